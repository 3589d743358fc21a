/* Explores schedules: small programs of two to four logical threads over the real code of the core, every
 * interleaving of their accesses to shared words with at most so many preemptions, and a kill at every point as a
 * further choice.
 *
 * A test
 *     #include "support/model_impl.h"
 *     #include "support/fake_os.c"      instead of csrc/os: futex, time, liveness and files belong to the explorer
 * describes a model_t and calls model_run. The hook before each atomic access (-DSHC_HOOK) is where threads can be
 * switched. Each logical thread is a process of its own: killed, it stays dead for shc_os_is_dead.
 *
 * Choices, enumerated depth first by running the program again and again from its start:
 *     at a point     go on; switch to another thread that can run (a preemption); let a sleeper with a deadline time
 *                    out and switch to it (a preemption, too; if early_timeouts are left); die (if kills are left)
 *     at a sleep     fall asleep; die in it
 *     at a wake      which sleeper; whether it dies instead of running on
 *     no choice      switching away from a thread that sleeps, ended or died is free
 * Else time passes only when nobody can run: then the sleeper with the earliest deadline times out. Nobody with a
 * deadline is a deadlock, which is how lost wake-ups show.
 *
 * The bounds are raised one by one (iterative context bounding), so that a failure is shown with the fewest
 * preemptions. Only sequentially consistent executions are seen; weak memory is the business of the pair tables and
 * TSan.
 *
 * SHMCOMM_MODEL_EXTRA=n raises every bound on preemptions by n. */
#ifndef MODEL_IMPL_H
#define MODEL_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atomic/shc_atomic.h"

#define MODEL_THREADS 4u
#define MODEL_NOBODY UINT32_MAX

typedef struct model {
    const char *name;
    unsigned threads;
    void (*body[MODEL_THREADS])(void);
    void (*reset)(void);  /* everything shared, to its beginning; no points here */
    void (*finish)(void); /* when all threads have ended or died: MODEL_CHECK what must hold; no points here */
    unsigned preemptions;
    unsigned kills;
    unsigned killable; /* bit set of threads; 0: all */
    unsigned early_timeouts;
    uint32_t heir[MODEL_THREADS]; /* thread i + 1 starts only after the death of this one (0: at once) */
    bool must_fail;               /* the program is wrong on purpose: not finding that is the failure */
} model_t;

/* Explores, prints a line, and fails the test if something was found (must_fail: if nothing was). */
void model_run(const model_t *model);
void model_print_head(void);
void model_print_sum(void);

/* ---- for bodies and fakes ---- */

#define MODEL_CHECK(cond) ((cond) ? (void)0 : model_failed(__FILE__, __LINE__, "%s", #cond))
_Noreturn __attribute__((format(printf, 3, 4))) void model_failed(const char *file, int line, const char *format, ...);

/* Accesses to this memory are points. Forgotten before each schedule: call it from reset. */
void model_share(const void *base, size_t size);

/* A point that is no access. */
void model_point(const char *where);

/* The running thread, MODEL_NOBODY in reset and finish. */
uint32_t model_self(void);
bool model_is_dead(uint32_t thread);
bool model_has_ended(uint32_t thread);

/* The running thread's process ends here, without further ado; as dead as if it was killed. */
_Noreturn void model_exit(void);

/* Time-outs that were needed so far in this schedule because nobody could run. */
unsigned model_timeouts(void);
unsigned model_deaths(void);

/* What atomic/shc_atomic.h calls in builds with -DSHC_HOOK (and this folder is compiled in all). */
void shc_hook(const char *where, const volatile void *word);

/* ---- for fake_os.c ---- */

uint64_t model_now_ns(uint64_t tick_ns);
enum {
    MODEL_WOKEN,
    MODEL_TIMED_OUT
};
int model_sleep(const void *word, uint64_t deadline_ns);
unsigned model_wake(const void *word, unsigned count);

#endif
