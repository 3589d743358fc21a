/* Clocks, waiting, the fork word, random bytes. */
#define _GNU_SOURCE
#include "os/shc_os.h"
#include "support/os_faults.h"
#include "t.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define MS UINT64_C(1000000)

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static void
ignore_alarm(int signal_number)
{
    (void)signal_number;
}

static void
handle_alarm(int flags)
{
    struct sigaction act;
    memset(&act, 0, sizeof(act));
    act.sa_handler = ignore_alarm;
    act.sa_flags = flags;
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
}

static void
sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0)
        ;
}

static int
exit_status(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        CHECK_EQ(errno, EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- time ---- */

TEST(now_never_goes_back)
{
    uint64_t last = shc_os_now_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = shc_os_now_ns();
        CHECK(now >= last);
        last = now;
    }
    sleep_ms(2);
    CHECK(shc_os_now_ns() >= last + 2 * MS);
}

TEST(wall_clock_agrees_with_time)
{
    uint64_t before = (uint64_t)time(NULL);
    uint64_t wall = shc_os_wall_ns() / 1000000000;
    CHECK(wall + 1 >= before && wall <= (uint64_t)time(NULL) + 1);
}

TEST(cpus_are_at_least_one)
{
    CHECK(shc_os_cpus() >= 1);
    shc_os_yield();
}

#ifndef SHC_OS_POSIX
TEST(cpus_follow_the_affinity_of_the_process)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CHECK_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    CHECK_EQ(shc_os_cpus(), CPU_COUNT(&set));
    for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set) && kept++ > 0)
            CPU_CLR(cpu, &set);
    CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    CHECK_EQ(shc_os_cpus(), 1);
}

TEST(cpus_are_one_when_the_kernel_does_not_tell)
{
    if (!fault_deny(SYS_sched_getaffinity, 0, 0, EPERM))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_cpus(), 1);
}
#endif

/* ---- waiting ---- */

/* One word at two addresses: a shared file mapped twice, as in two processes. */
typedef struct two_views {
    shc_a32_t *mine;
    shc_a32_t *theirs;
} two_views_t;

static two_views_t
open_two_views(void)
{
    int dir = t_dir_fd();
    int fd = openat(dir, "word", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(unlinkat(dir, "word", 0), 0);
    CHECK_EQ(close(dir), 0);
    CHECK_EQ(ftruncate(fd, 4096), 0);
    void *a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(a != MAP_FAILED && b != MAP_FAILED && a != b);
    CHECK_EQ(close(fd), 0);
    return (two_views_t){a, b};
}

TEST(wait_on_another_value_returns_at_once)
{
    shc_a32_t word;
    shc_a32_store_relaxed(&word, 7);
    CHECK_EQ(shc_os_futex_wait(&word, 8, SHC_NEVER), SHC_AGAIN);
}

TEST(wait_ends_at_its_deadline_and_not_before)
{
    shc_a32_t word;
    shc_a32_store_relaxed(&word, 7);
    CHECK_EQ(shc_os_futex_wait(&word, 7, 0), SHC_TIMEOUT);
    CHECK_EQ(shc_os_futex_wait(&word, 7, shc_os_now_ns()), SHC_TIMEOUT);
    uint64_t deadline = shc_os_now_ns() + 5 * MS;
    CHECK_EQ(shc_os_futex_wait(&word, 7, deadline), SHC_TIMEOUT);
    CHECK(shc_os_now_ns() >= deadline);
}

static void *
change_and_wake(void *arg)
{
    shc_a32_t *word = arg;
    sleep_ms(3);
    shc_a32_store_relaxed(word, 1);
    (void)shc_os_futex_wake(word, 1);
    return NULL;
}

/* On a loaded machine the word may have changed before the sleep began. */
static bool
is_awake(int rc)
{
    return rc == 0 || rc == SHC_AGAIN;
}

TEST(wait_ends_when_another_process_changes_the_word_and_wakes)
{
    two_views_t v = open_two_views();
    pid_t child = fork();
    if (child == 0)
        _exit(is_awake(shc_os_futex_wait(v.theirs, 0, SHC_NEVER)) ? 0 : 1);
    (void)change_and_wake(v.mine);
    CHECK_EQ(exit_status(child), 0);
}

#ifndef SHC_OS_POSIX
/* The child does nothing after its start but sleep on the word. */
static void
await_asleep(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    for (char text[256] = ""; strstr(text, ") S ") == NULL; sleep_ms(1)) {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fgets(text, sizeof(text), file) != NULL);
        (void)fclose(file);
    }
}

static void
start_sleepers(shc_a32_t *word, int n)
{
    for (int i = 0; i < n; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(shc_os_futex_wait(word, 0, SHC_NEVER) == 0 ? 0 : 1);
        await_asleep(child);
    }
}

TEST(wake_tells_how_many_slept_and_wakes_no_more_than_asked)
{
    two_views_t v = open_two_views();
    start_sleepers(v.theirs, 5);
    CHECK_EQ(shc_os_futex_wake(v.mine, 0), 0);
    CHECK_EQ(shc_os_futex_wake(v.mine, 1), 1);
    CHECK_EQ(shc_os_futex_wake(v.mine, 2), 2);
    CHECK_EQ(shc_os_futex_wake(v.mine, UINT32_MAX), 2);
    CHECK_EQ(shc_os_futex_wake(v.mine, UINT32_MAX), 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(exit_status(-1), 0);
}

TEST(wait_and_wake_at_a_bad_address_are_failures)
{
    void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(hole != MAP_FAILED);
    CHECK_EQ(shc_os_futex_wait(hole, 0, 0), -EFAULT);
    CHECK_EQ(shc_os_futex_wake(hole, 1), -EFAULT);
}
#endif

static void
check_wait_is_interrupted(int flags, uint64_t deadline)
{
    shc_a32_t word;
    shc_a32_store_relaxed(&word, 0);
    handle_alarm(flags);
    fault_signal_storm(2000);
    int rc = shc_os_futex_wait(&word, 0, deadline);
    fault_signal_storm(0);
    CHECK_EQ(rc, SHC_INTERRUPTED);
}

TEST(wait_tells_of_a_signal_however_its_handler_was_installed)
{
    check_wait_is_interrupted(0, SHC_NEVER);
    check_wait_is_interrupted(SA_RESTART, SHC_NEVER);
    check_wait_is_interrupted(SA_RESTART, SHC_NEVER - 1);
    check_wait_is_interrupted(0, shc_os_now_ns() + 600000 * MS);
    check_wait_is_interrupted(SA_RESTART, shc_os_now_ns() + 600000 * MS);
}

TEST(wait_works_between_threads_of_one_process)
{
    two_views_t v = open_two_views();
    pthread_t waker;
    CHECK_EQ(pthread_create(&waker, NULL, change_and_wake, v.mine), 0);
    CHECK(is_awake(shc_os_futex_wait(v.theirs, 0, SHC_NEVER)));
    CHECK_EQ(pthread_join(waker, NULL), 0);
}

#ifndef SHC_OS_POSIX
/* The kernel adds the namespace's offset to a deadline: one near the end of its numbers must not end in the past. */
TEST(wait_without_a_deadline_does_not_end_in_a_time_namespace)
{
    const char offset[] = "monotonic -5 0";
    int fd = unshare(CLONE_NEWTIME) == 0 ? open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0 || write(fd, offset, strlen(offset)) != (ssize_t)strlen(offset))
        T_SKIP("needs root and time namespaces");
    CHECK_EQ(close(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        check_wait_is_interrupted(0, SHC_NEVER);
        _exit(0);
    }
    CHECK_EQ(exit_status(child), 0);
}
#endif

/* ---- the fork word ---- */

static shc_a64_t *
new_fork_word(uint64_t value)
{
    shc_a64_t *word = NULL;
    CHECK_EQ(shc_os_fork_word(&word), 0);
    CHECK_EQ(shc_a64_load_relaxed(word), 0);
    shc_a64_store_relaxed(word, value);
    return word;
}

TEST(fork_word_reads_zero_in_a_child_and_keeps_its_value_in_the_parent)
{
    shc_a64_t *word = new_fork_word(5);
    pid_t child = fork();
    if (child == 0)
        _exit((int)shc_a64_load_relaxed(word));
    CHECK_EQ(exit_status(child), 0);
    CHECK_EQ(shc_a64_load_relaxed(word), 5);
}

TEST(fork_word_of_a_child_is_its_own_and_wiped_again_in_the_grandchild)
{
    shc_a64_t *word = new_fork_word(5);
    pid_t child = fork();
    if (child == 0) {
        shc_a64_store_relaxed(word, 6);
        pid_t grandchild = fork();
        if (grandchild == 0)
            _exit((int)shc_a64_load_relaxed(word));
        _exit(exit_status(grandchild) == 0 && shc_a64_load_relaxed(word) == 6 ? 0 : 1);
    }
    CHECK_EQ(exit_status(child), 0);
    CHECK_EQ(shc_a64_load_relaxed(word), 5);
}

TEST(fork_words_are_distinct_and_all_wiped)
{
    shc_a64_t *a = new_fork_word(1);
    shc_a64_t *b = new_fork_word(2);
    shc_a64_t *c = new_fork_word(4);
    CHECK(a != b && b != c && a != c);
    CHECK_EQ(shc_a64_load_relaxed(a) + shc_a64_load_relaxed(b) + shc_a64_load_relaxed(c), 7);
    pid_t child = fork();
    if (child == 0)
        _exit((int)(shc_a64_load_relaxed(a) | shc_a64_load_relaxed(b) | shc_a64_load_relaxed(c)));
    CHECK_EQ(exit_status(child), 0);
}

#ifndef SHC_OS_POSIX
TEST(fork_word_is_wiped_after_a_bare_clone_too)
{
    shc_a64_t *word = new_fork_word(5);
    long child = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        syscall(SYS_exit_group, (int)shc_a64_load_relaxed(word));
    CHECK_EQ(exit_status((pid_t)child), 0);
    CHECK_EQ(shc_a64_load_relaxed(word), 5);
}

TEST(fork_word_is_refused_where_the_kernel_does_not_wipe)
{
    shc_a64_t *word = NULL;
    if (!fault_deny(SYS_madvise, 2, MADV_WIPEONFORK, EINVAL))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_fork_word(&word), -ENOSYS);
    CHECK(word == NULL);
}
#endif

/* ---- random bytes ---- */

TEST(random_fills_every_byte_and_never_twice_the_same)
{
    enum {
        N = 1 << 20
    };
    uint8_t *a = calloc(2, N);
    CHECK(a != NULL);
    uint8_t *b = a + N;
    handle_alarm(0);
    fault_signal_storm(100);
    int rc = shc_os_random(a, N);
    int rc2 = shc_os_random(b, N);
    fault_signal_storm(0);
    CHECK_EQ(rc, 0);
    CHECK_EQ(rc2, 0);
    for (size_t at = 0; at < N; at += 16)
        CHECK(memcmp(a + at, b + at, 16) != 0);
    free(a);
}

TEST(random_of_nothing_touches_nothing)
{
    uint8_t byte = 7;
    CHECK_EQ(shc_os_random(&byte, 0), 0);
    CHECK_EQ(byte, 7);
}

TEST(random_tells_when_there_is_none)
{
    uint8_t bytes[8];
#ifdef SHC_OS_POSIX
    rlim_t old = fault_no_descriptors();
    int rc = shc_os_random(bytes, sizeof(bytes));
    fault_allow_descriptors(old);
    CHECK_EQ(rc, -EMFILE);
#else
    if (!fault_deny(SYS_getrandom, 0, 0, ENOSYS))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_random(bytes, sizeof(bytes)), -ENOSYS);
#endif
}
