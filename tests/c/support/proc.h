/* Processes of a test. Every child dies with the test's own process group at the latest: the harness kills what is
 * left, and says so. */
#ifndef PROC_H
#define PROC_H

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "atomic/shc_atomic.h"
#include "t.h"

/* Runs fn(arg) in a child that ends with status 0 if it returns. */
static inline pid_t
proc_start(void (*fn)(void *arg), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0) {
        fn(arg);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

static inline void
proc_join(pid_t pid)
{
    CHECK_EQ(t_wait(pid), 0);
}

static inline void
proc_kill(pid_t pid)
{
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(t_wait(pid), 128 + SIGKILL);
}

/* Kills it and leaves the zombie, as a parent that is slow to wait does; t_wait(pid) buries it. */
static inline void
proc_kill_unburied(pid_t pid)
{
    siginfo_t info;
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static inline void
proc_sleep_us(long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    (void)nanosleep(&t, NULL);
}

/* Zeroed memory that children share. */
static inline void *
proc_share(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* Waits until *word is at least `value`; the watchdog is the only limit. */
static inline void
proc_await(const shc_a32_t *word, uint32_t value)
{
    while (shc_a32_load_acquire(word) < value) /* A <- proc_signal */
        proc_sleep_us(100);
}

static inline void
proc_signal(shc_a32_t *word)
{
    uint32_t v = shc_a32_load_relaxed(word);
    while (!shc_a32_cas_seq_cst(word, &v, v + 1))
        ;
}

#endif
