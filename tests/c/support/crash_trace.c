#include "support/crash_trace.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

#if defined(__x86_64__) && defined(__linux__)
#define MARK() __asm__ volatile("int3" ::: "memory")
#define CAN_STEP 1
#else
#define MARK() raise(SIGTRAP)
#define CAN_STEP 0
#endif

#define SYSCALL_INSTRUCTION 0x050f
#define SYSCALL_STOP (SIGTRAP | 0x80)

static void
pin_to_this_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)sched_getcpu(), &set);
    CHECK_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

static void
child_without_work(void *arg)
{
    (void)arg;
}

void
trace_require(void)
{
    if (!CAN_STEP)
        T_SKIP("stepping by instruction is written for Linux on x86-64");
    pid_t probe = fork();
    CHECK_GE(probe, 0);
    if (probe == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    if (t_wait(probe) != 0)
        T_SKIP("ptrace is forbidden here");
    pin_to_this_cpu();
    pid_t child = trace_start(NULL, child_without_work, NULL);
    trace_finish(child);
}

static _Noreturn void
fail_for(pid_t pid, const char *what, int status)
{
    t_fail(__FILE__, __LINE__, "traced process %d %s: %s %d", (int)pid, what,
           WIFEXITED(status)     ? "exited with"
           : WIFSIGNALED(status) ? "killed by signal"
                                 : "stopped by signal",
           WIFEXITED(status)     ? WEXITSTATUS(status)
           : WIFSIGNALED(status) ? WTERMSIG(status)
                                 : WSTOPSIG(status));
}

/* Waits for its next stop. */
static int
wait_stop(pid_t pid, const char *what)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        CHECK_EQ(errno, EINTR);
    if (!WIFSTOPPED(status))
        fail_for(pid, what, status);
    return status;
}

static bool
at_mark(pid_t pid, int status)
{
    siginfo_t info;
    if (WSTOPSIG(status) != SIGTRAP)
        return false;
    CHECK_EQ(ptrace(PTRACE_GETSIGINFO, pid, NULL, &info), 0);
    return info.si_code == SI_KERNEL;
}

/* A child that is not traced any more goes past the end mark. */
static void
on_mark(int sig)
{
    (void)sig;
}

static _Noreturn void
run_child(trace_fn prepare, trace_fn act, void *arg)
{
    CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
    raise(SIGSTOP);
    if (prepare != NULL)
        prepare(arg);
    (void)signal(SIGTRAP, on_mark);
    MARK();
    act(arg);
    MARK();
    _exit(0);
}

pid_t
trace_start(trace_fn prepare, trace_fn act, void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0)
        run_child(prepare, act, arg);
    (void)wait_stop(pid, "did not start");
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD), 0);
    CHECK_EQ(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    int status = wait_stop(pid, "failed while it prepared");
    if (!at_mark(pid, status))
        fail_for(pid, "failed while it prepared", status);
    return pid;
}

/* False at the end mark. */
static bool
go_on(pid_t pid, int request)
{
    CHECK_EQ(ptrace((enum __ptrace_request)request, pid, NULL, NULL), 0);
    int status = wait_stop(pid, "failed while it worked");
    if (at_mark(pid, status))
        return false;
    if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SYSCALL_STOP)
        fail_for(pid, "failed while it worked", status);
    return true;
}

bool
trace_step(pid_t pid)
{
    return go_on(pid, PTRACE_SINGLESTEP);
}

bool
trace_to_syscall(pid_t pid)
{
    return go_on(pid, PTRACE_SYSCALL);
}

void
trace_detach(pid_t pid)
{
    CHECK_EQ(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
}

void
trace_finish(pid_t pid)
{
    while (go_on(pid, PTRACE_CONT)) {
    }
    trace_detach(pid);
    CHECK_EQ(t_wait(pid), 0);
}

#if CAN_STEP
static uint64_t
instruction_pointer(pid_t pid)
{
    struct user_regs_struct regs;
    CHECK_EQ(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
    return regs.rip;
}

bool
trace_at_futex(pid_t pid)
{
    struct user_regs_struct regs;
    CHECK_EQ(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
    return regs.orig_rax == SYS_futex && (long long)regs.rax == -ENOSYS;
}
#else
bool
trace_at_futex(pid_t pid)
{
    (void)pid;
    return false;
}

static uint64_t
instruction_pointer(pid_t pid)
{
    (void)pid;
    return 0;
}
#endif

uint64_t
trace_where(pid_t pid)
{
    extern const char __executable_start;
    return instruction_pointer(pid) - (uint64_t)(uintptr_t)&__executable_start;
}

bool
trace_before_syscall(pid_t pid)
{
    errno = 0;
    long text = ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)instruction_pointer(pid), NULL);
    return errno == 0 && (text & 0xffff) == SYSCALL_INSTRUCTION;
}

void
trace_kill(pid_t pid)
{
    siginfo_t info;
    CHECK_EQ(kill(pid, SIGKILL), 0);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        CHECK_EQ(errno, EINTR);
}

void
trace_bury(pid_t pid)
{
    (void)t_wait(pid);
}

static shc_identity_t corpses[TRACE_CORPSES];

static shc_identity_t
make_corpse(void)
{
    siginfo_t info;
    shc_identity_t *id = mmap(NULL, sizeof *id, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(id != MAP_FAILED);
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0)
        _exit(shc_os_identity(id) == 0 ? 0 : 1);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        CHECK_EQ(errno, EINTR);
    CHECK_EQ(info.si_status, 0);
    shc_identity_t corpse = *id;
    CHECK_EQ(corpse.pid, (uint32_t)pid);
    (void)munmap(id, sizeof *id);
    return corpse;
}

const shc_identity_t *
trace_corpse(unsigned i)
{
    CHECK_LT(i, TRACE_CORPSES);
    if (corpses[i].pid == 0)
        corpses[i] = make_corpse();
    return &corpses[i];
}

void
trace_bury_corpses(void)
{
    for (unsigned i = 0; i < TRACE_CORPSES; i++)
        if (corpses[i].pid != 0)
            trace_bury((pid_t)corpses[i].pid);
    memset(corpses, 0, sizeof corpses);
}
