/* A clock under which a word never rests: preloaded by tests/test_wait.py.
 *
 * Once started, each look at the monotonic clock takes that clock one step further and stores another of two values to
 * a word. A call that watches the word, and looks at the clock while it does, sees it change whenever it looks: a peer
 * that always stores and never helps, in lockstep with its victim, so that no scheduler has a say. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 1000000
/* More looks than any call that heeds its deadline takes. */
#define LOOKS_MAX 1000000
#define GONE_ON 9

typedef struct restless {
    _Atomic uint64_t *word;
    uint64_t values[2];
    int64_t start_ns;
    uint64_t looks;
    uint64_t interrupt_at; /* the look at which SIGINT comes; 0: none */
} restless_t;

static restless_t now;

static int64_t
real_time(clockid_t clock, struct timespec *time)
{
    if (syscall(SYS_clock_gettime, clock, time) != 0)
        return -1;
    return time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}

/* From now on, until stop(). */
void start(_Atomic uint64_t *word, uint64_t first, uint64_t second, uint64_t interrupt_at);

void
start(_Atomic uint64_t *word, uint64_t first, uint64_t second, uint64_t interrupt_at)
{
    struct timespec time;
    now = (restless_t){.values = {first, second}, .interrupt_at = interrupt_at};
    now.start_ns = real_time(CLOCK_MONOTONIC, &time);
    now.word = word;
}

/* Lets the word rest; returns how often it was changed. */
uint64_t stop(void);

uint64_t
stop(void)
{
    now.word = NULL;
    return now.looks;
}

int
clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_MONOTONIC || now.word == NULL)
        return real_time(clock, time) < 0 ? -1 : 0;
    int64_t ns = now.start_ns + (int64_t)++now.looks * STEP_NS;
    *time = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    atomic_store(now.word, now.values[now.looks & 1]);
    if (now.looks == now.interrupt_at)
        (void)raise(SIGINT);
    if (now.looks == LOOKS_MAX)
        _exit(GONE_ON);
    return 0;
}
