/* Makes the system refuse things, for tests of what is done then. All of it lasts until the calling process ends. */
#ifndef OS_FAULTS_H
#define OS_FAULTS_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* System call `nr` fails with `error` whenever its argument `arg` has all bits of `mask` (0: always). False: this
 * machine knows no seccomp filters. */
static inline bool
fault_deny(long nr, unsigned arg, uint32_t mask, int error)
{
    uint32_t offset = (uint32_t)(offsetof(struct seccomp_data, args) + 8 * arg);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mask, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Memory of a mapping can neither be reserved nor given back: the kernel is too old. False: no filters. */
static inline bool
fault_no_growth_by_map(void)
{
    return fault_deny(SYS_madvise, 2, MADV_POPULATE_WRITE, EINVAL) && fault_deny(SYS_madvise, 2, MADV_REMOVE, EINVAL);
}

/* No further descriptor can be opened. Returns the old limit, for fault_allow_descriptors. */
static inline rlim_t
fault_no_descriptors(void)
{
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t old = limit.rlim_cur;
    limit.rlim_cur = 0;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return old;
}

static inline void
fault_allow_descriptors(rlim_t old)
{
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = old;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* SIGALRM every `us` microseconds, 0: no more. The caller has installed a handler. */
static inline void
fault_signal_storm(unsigned us)
{
    struct itimerval every = {{0, (suseconds_t)us}, {0, (suseconds_t)us}};
    (void)setitimer(ITIMER_REAL, &every, NULL);
}

#endif
