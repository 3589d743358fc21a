/* Who is who, and who is dead. */
#define _GNU_SOURCE
#include "os/shc_os.h"
#include "support/os_faults.h"
#include "t.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* A process that tells who it is and then lives until it is killed. It dies with the test. */
typedef struct told {
    shc_identity_t id;
    shc_a32_t ready;
} told_t;

static void
sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

static told_t *
new_told(void)
{
    told_t *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(told != MAP_FAILED);
    return told;
}

static void
tell(told_t *told)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    shc_a32_store_release(&told->ready, shc_os_identity(&told->id) == 0 ? 1 : 2); /* R1 */
}

static void
await_told(const told_t *told)
{
    while (shc_a32_load_acquire(&told->ready) == 0) /* A1 <- R1: the identity */
        sleep_ms(1);
    CHECK_EQ(shc_a32_load_relaxed(&told->ready), 1);
}

static void
tell_and_live(told_t *told)
{
    tell(told);
    for (;;)
        pause();
}

static shc_identity_t
start_process(void)
{
    told_t *told = new_told();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        tell_and_live(told);
    await_told(told);
    CHECK_EQ(told->id.pid, (uint32_t)pid);
    return told->id;
}

static void
kill_and_leave_as_zombie(const shc_identity_t *who)
{
    siginfo_t info;
    CHECK_EQ(kill((pid_t)who->pid, SIGKILL), 0);
    CHECK_EQ(waitid(P_PID, who->pid, &info, WEXITED | WNOWAIT), 0);
}

static void
kill_and_reap(const shc_identity_t *who)
{
    CHECK_EQ(kill((pid_t)who->pid, SIGKILL), 0);
    CHECK_EQ(waitpid((pid_t)who->pid, NULL, 0), (pid_t)who->pid);
}

static shc_identity_t
me(void)
{
    shc_identity_t id;
    CHECK_EQ(shc_os_identity(&id), 0);
    return id;
}

static bool
dead(const shc_identity_t *who)
{
    shc_identity_t self = me();
    return shc_os_is_dead(who, &self);
}

/* ---- identity ---- */

TEST(identity_names_the_process_and_stays_the_same)
{
    shc_identity_t a = me();
    sleep_ms(20);
    shc_identity_t b = me();
    CHECK_EQ(a.pid, (uint32_t)getpid());
    CHECK_EQ(a.uid, (uint32_t)geteuid());
    CHECK(a.start == b.start && a.pidino == b.pidino && a.pidns == b.pidns);
}

TEST(identity_of_a_child_is_another_one)
{
    shc_identity_t self = me();
    shc_identity_t child = start_process();
    CHECK(child.pid != self.pid);
    CHECK(child.pidino == 0 || child.pidino != self.pidino);
    CHECK_EQ(child.pidns, self.pidns);
    kill_and_reap(&child);
}

/* ---- liveness that every body sees ---- */

TEST(living_is_not_dead)
{
    shc_identity_t self = me();
    CHECK(!dead(&self));
    shc_identity_t who = start_process();
    CHECK(!dead(&who));
    kill_and_reap(&who);
}

TEST(stopped_is_not_dead)
{
    shc_identity_t who = start_process();
    CHECK_EQ(kill((pid_t)who.pid, SIGSTOP), 0);
    CHECK_EQ(waitpid((pid_t)who.pid, NULL, WUNTRACED), (pid_t)who.pid);
    CHECK(!dead(&who));
    kill_and_reap(&who);
}

TEST(zombie_counts_as_dead_and_is_left_to_its_parent)
{
    shc_identity_t who = start_process();
    kill_and_leave_as_zombie(&who);
    CHECK(dead(&who));
    CHECK_EQ(waitpid((pid_t)who.pid, NULL, 0), (pid_t)who.pid);
    CHECK(dead(&who));
}

TEST(only_the_pid_counts_where_nothing_else_is_known)
{
    shc_identity_t who = start_process();
    who.start = 0;
    who.pidino = 0;
    CHECK(!dead(&who));
    kill_and_leave_as_zombie(&who);
    CHECK(dead(&who));
    CHECK_EQ(waitpid((pid_t)who.pid, NULL, 0), (pid_t)who.pid);
    CHECK(dead(&who));
}

TEST(a_process_of_another_pid_namespace_is_not_dead)
{
    shc_identity_t self = me();
    shc_identity_t who = start_process();
    kill_and_reap(&who);
    CHECK(shc_os_is_dead(&who, &self));
    who.pidns++;
    CHECK(!shc_os_is_dead(&who, &self));
    who.pidns = 0;
    CHECK_EQ(shc_os_is_dead(&who, &self), self.pidns == 0);
}

/* There, its number means nothing, and the system denies it. */
static void
judge_from_within(const shc_identity_t *outer)
{
    shc_identity_t self = me();
    CHECK(self.pidns != outer->pidns);
    CHECK_EQ(kill((pid_t)outer->pid, 0), -1);
    CHECK_EQ(errno, ESRCH);
    CHECK(!shc_os_is_dead(outer, &self));
    _exit(0);
}

TEST(a_living_process_is_not_dead_for_those_in_a_pid_namespace_below)
{
    shc_identity_t who = start_process();
    if (unshare(CLONE_NEWPID) != 0)
        T_SKIP("needs root and PID namespaces");
    t_no_leak_check();
    pid_t child = fork();
    if (child == 0)
        judge_from_within(&who);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    kill_and_reap(&who);
}

TEST(a_pid_that_no_process_can_have_is_not_dead)
{
    shc_identity_t who = me();
    who.start = who.pidino = 0;
    const uint32_t impossible[] = {0, (uint32_t)INT_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(impossible); i++) {
        who.pid = impossible[i];
        CHECK(!dead(&who));
    }
    who.pid = INT_MAX; /* beyond every pid_max: the kernel knows that nobody has it */
    CHECK(dead(&who));
}

TEST(a_process_that_we_may_not_signal_is_not_dead)
{
    if (geteuid() != 0)
        T_SKIP("needs root, to become somebody else");
    shc_identity_t who = start_process();
    pid_t stranger = fork();
    if (stranger == 0) {
        CHECK_EQ(setresuid(65534, 65534, 65534), 0);
        CHECK_EQ(kill((pid_t)who.pid, 0), -1);
        CHECK_EQ(errno, EPERM);
        CHECK(!dead(&who));
        _exit(0);
    }
    CHECK_EQ(t_wait(stranger), 0);
    kill_and_reap(&who);
}

TEST(want_of_descriptors_kills_nobody)
{
    shc_identity_t self = me();
    shc_identity_t living = start_process();
    shc_identity_t stopped = start_process();
    shc_identity_t zombie = start_process();
    shc_identity_t gone = start_process();
    CHECK_EQ(kill((pid_t)stopped.pid, SIGSTOP), 0);
    kill_and_leave_as_zombie(&zombie);
    kill_and_reap(&gone);
    rlim_t old = fault_no_descriptors();
    bool verdicts[] = {shc_os_is_dead(&self, &self), shc_os_is_dead(&living, &self), shc_os_is_dead(&stopped, &self),
                       shc_os_is_dead(&zombie, &self), shc_os_is_dead(&gone, &self)};
    fault_allow_descriptors(old);
    CHECK(!verdicts[0] && !verdicts[1] && !verdicts[2]);
    CHECK(verdicts[3] && verdicts[4]);
}

static void
ignore_alarm(int signal_number)
{
    (void)signal_number;
}

TEST(verdicts_stand_in_a_storm_of_signals)
{
    struct sigaction act;
    memset(&act, 0, sizeof(act));
    act.sa_handler = ignore_alarm;
    shc_identity_t self = me();
    shc_identity_t living = start_process();
    shc_identity_t zombie = start_process();
    kill_and_leave_as_zombie(&zombie);
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
    fault_signal_storm(50);
    for (int i = 0; i < 2000; i++) {
        shc_identity_t again;
        CHECK(!shc_os_is_dead(&living, &self) && shc_os_is_dead(&zombie, &self));
        CHECK_EQ(shc_os_identity(&again), 0);
        CHECK(again.start == self.start && again.pidino == self.pidino && again.pidns == self.pidns);
    }
    fault_signal_storm(0);
}

#ifndef SHC_OS_POSIX

/* ---- what only the Linux body knows ---- */

TEST(identity_knows_start_and_namespace_whatever_the_program_is_called)
{
    shc_identity_t self = me();
    CHECK(self.pidns != 0);
    const char *names[] = {"a) R 1 2 3 (", ") ) ) 4 5 6", "(((", " ", "\n) Z 0 0", ""};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(names); i++) {
        CHECK_EQ(prctl(PR_SET_NAME, names[i]), 0);
        CHECK_EQ(me().start, self.start);
    }
    struct stat time_ns;
    if (stat("/proc/self/ns/time", &time_ns) == 0 && time_ns.st_ino == 0xeffffffa)
        CHECK(self.start != 0);
}

TEST(identity_for_want_of_descriptors_is_a_failure_not_a_weaker_one)
{
    shc_identity_t id;
    rlim_t old = fault_no_descriptors();
    int rc = shc_os_identity(&id);
    fault_allow_descriptors(old);
    CHECK_EQ(rc, -EMFILE);
}

TEST(identity_for_want_of_a_pidfd_alone_is_a_failure_too)
{
    shc_identity_t id;
    if (!fault_deny(SYS_pidfd_open, 0, 0, ENFILE))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_identity(&id), -ENFILE);
}

static void
check_forgeries_are_dead(void)
{
    shc_identity_t self = me();
    shc_identity_t who = start_process();
    CHECK(!shc_os_is_dead(&who, &self));
    if (who.pidino != 0) {
        shc_identity_t forged = who;
        forged.pidino++;
        CHECK(shc_os_is_dead(&forged, &self));
        forged = who;
        forged.start++; /* the inode is better evidence than the time */
        CHECK(!shc_os_is_dead(&forged, &self));
    }
    who.pidino = 0;
    CHECK(!shc_os_is_dead(&who, &self));
    if (who.start != 0) {
        who.start--;
        CHECK(shc_os_is_dead(&who, &self));
    }
    kill_and_reap(&who);
}

TEST(a_reused_pid_is_not_taken_for_its_former_holder)
{
    check_forgeries_are_dead();
}

/* A zombie that is not our child: waitid cannot tell. */
static shc_identity_t
start_zombie_of_another_parent(void)
{
    told_t *told = new_told();
    told_t *parent = new_told();
    if (fork() == 0) {
        pid_t child = fork();
        if (child == 0) {
            tell(told);
            _exit(0);
        }
        siginfo_t info;
        (void)waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
        tell_and_live(parent);
    }
    await_told(parent);
    await_told(told);
    return told->id;
}

TEST(zombie_of_another_parent_counts_as_dead)
{
    shc_identity_t who = start_zombie_of_another_parent();
    CHECK_EQ(kill((pid_t)who.pid, 0), 0);
    CHECK(dead(&who));
}

static void *
live_on(void *told)
{
    tell_and_live(told);
    return NULL;
}

/* The first thread ends, so the process shows as a zombie, but another one goes on. */
static shc_identity_t
start_headless_process(void)
{
    told_t *told = new_told();
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        (void)pthread_create(&thread, NULL, live_on, told);
        await_told(told);
        syscall(SYS_exit, 0);
    }
    await_told(told);
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    for (char text[256] = ""; strstr(text, ") Z ") == NULL; sleep_ms(1)) {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fgets(text, sizeof(text), file) != NULL);
        (void)fclose(file);
    }
    return told->id;
}

TEST(a_process_whose_first_thread_has_ended_is_not_dead)
{
    shc_identity_t who = start_headless_process();
    CHECK(!dead(&who));
    who.pidino = 0;
    CHECK(!dead(&who));
    kill_and_reap(&who);
    CHECK(dead(&who));
}

static void *
tell_tid_and_live(void *arg)
{
    shc_a32_store_release(arg, (uint32_t)syscall(SYS_gettid)); /* R1 */
    for (;;)
        pause();
    return NULL;
}

static void
check_thread_is_nobody(void)
{
    static shc_a32_t tid;
    pthread_t thread;
    t_leaves_cleanup_to_exit();
    CHECK_EQ(pthread_create(&thread, NULL, tell_tid_and_live, &tid), 0);
    while (shc_a32_load_acquire(&tid) == 0) /* A1 <- R1: the number */
        sleep_ms(1);
    shc_identity_t who = {.pid = shc_a32_load_relaxed(&tid), .pidns = me().pidns};
    CHECK_EQ(kill((pid_t)who.pid, 0), 0);
    CHECK(dead(&who));
}

TEST(a_pid_reused_by_a_thread_is_not_taken_for_a_process)
{
    check_thread_is_nobody();
}

/* ---- without pidfds: an old kernel, or a policy ---- */

static void
check_everything_without_pidfds(int error)
{
    if (!fault_deny(SYS_pidfd_open, 0, 0, error))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(me().pidino, 0);
    shc_identity_t who = start_process();
    CHECK(!dead(&who));
    CHECK_EQ(kill((pid_t)who.pid, SIGSTOP), 0);
    CHECK(!dead(&who));
    kill_and_leave_as_zombie(&who);
    CHECK(dead(&who));
    CHECK_EQ(waitpid((pid_t)who.pid, NULL, 0), (pid_t)who.pid);
    CHECK(dead(&who));
    check_forgeries_are_dead();
    shc_identity_t zombie = start_zombie_of_another_parent();
    CHECK(dead(&zombie));
    shc_identity_t headless = start_headless_process();
    CHECK(!dead(&headless));
    check_thread_is_nobody();
}

TEST(liveness_on_a_kernel_without_pidfds)
{
    check_everything_without_pidfds(ENOSYS);
}

TEST(liveness_under_a_policy_that_forbids_pidfds)
{
    check_everything_without_pidfds(EPERM);
}

/* ---- strange worlds ---- */

static bool
write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

/* In a time namespace the kernel shows the start of everybody at another time. */
TEST(a_process_seen_from_another_time_namespace_is_not_dead)
{
    shc_identity_t who = start_process();
    who.pidino = 0;
    if (unshare(CLONE_NEWTIME) != 0 || !write_file("/proc/self/timens_offsets", "boottime 1000 0"))
        T_SKIP("needs root and time namespaces");
    pid_t child = fork();
    if (child == 0) {
        shc_identity_t self = me();
        CHECK_EQ(self.start, 0);
        CHECK(!shc_os_is_dead(&who, &self));
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    kill_and_reap(&who);
}

/* /proc of the outer namespace shows the numbers of others. */
static void
live_in_an_inner_pid_namespace(uint64_t outer_pidns)
{
    CHECK_EQ(getpid(), 1);
    (void)fault_deny(SYS_pidfd_open, 0, 0, ENOSYS);
    shc_identity_t self = me();
    CHECK(self.pidns != 0 && self.pidns != outer_pidns);
    told_t *told = new_told();
    pid_t child = fork();
    if (child == 0)
        tell_and_live(told);
    await_told(told);
    CHECK(!shc_os_is_dead(&told->id, &self));
    kill_and_reap(&told->id);
    CHECK(shc_os_is_dead(&told->id, &self));
    _exit(0);
}

TEST(a_proc_that_numbers_other_processes_is_not_believed)
{
    shc_identity_t self = me();
    if (unshare(CLONE_NEWPID) != 0)
        T_SKIP("needs root and PID namespaces");
    t_no_leak_check();
    pid_t child = fork();
    if (child == 0)
        live_in_an_inner_pid_namespace(self.pidns);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

TEST(without_proc_only_less_is_known)
{
    shc_identity_t with_proc = me();
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/proc", "tmpfs", 0, "size=4k") != 0)
        T_SKIP("needs root and mount namespaces");
    t_no_leak_check();
    shc_identity_t self = me();
    CHECK_EQ(self.pid, with_proc.pid);
    CHECK_EQ(self.pidino, with_proc.pidino);
    CHECK(self.start == 0 && self.pidns == 0);
    shc_identity_t who = start_process();
    CHECK(!dead(&who));
    kill_and_leave_as_zombie(&who);
    CHECK(dead(&who));
    CHECK(!dead(&with_proc));
    /* Even of the same process: which namespace is ours cannot be told. */
    kill_and_reap(&who);
    who.pidns = with_proc.pidns;
    CHECK(!dead(&who));
}

#endif
