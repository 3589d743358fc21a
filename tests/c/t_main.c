/* Runs the tests of one program; see t.h. */
#include "t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/shc_status.h"

#define EXIT_SKIPPED 77
#define GRACE_NS 2000000000LL /* for killed processes to be gone */
#define ENDING_NS 300000000LL /* for processes that are ending by themselves */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

typedef enum outcome {
    PASSED,
    FAILED,
    SKIPPED
} outcome_t;

static t_test_t *first, **last = &first;
static char test_dir[128];
static pid_t running_group;
static bool leak_check = true, cleanup_check = true;

/* ---- what tests call ---- */

void
t_register(t_test_t *test)
{
    *last = test;
    last = &test->next;
}

void
t_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    fflush(stderr);
    _exit(1);
}

void
t_skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    fflush(stdout);
    _exit(EXIT_SKIPPED);
}

static const char *
number_text(char *buf, size_t size, t_number_t x)
{
    if (x.negative)
        snprintf(buf, size, "%" PRId64, (int64_t)x.bits);
    else if (x.bits < 10)
        snprintf(buf, size, "%" PRIu64, x.bits);
    else
        snprintf(buf, size, "%" PRIu64 " (%#" PRIx64 ")", x.bits, x.bits);
    return buf;
}

void
t_compare(const char *file, int line, const char *a_text, const char *b_text, t_number_t a, t_number_t b, t_op_t op)
{
    static const char *const names[] = {"==", "!=", "<", "<=", ">", ">="};
    bool equal = a.negative == b.negative && a.bits == b.bits;
    bool less = a.negative != b.negative ? a.negative : a.bits < b.bits;
    const bool holds[] = {equal, !equal, less, less || equal, !less && !equal, !less};
    char left[64], right[64];
    if (!holds[op])
        t_fail(file, line, "expected %s %s %s\n    %s is %s\n    %s is %s", a_text, names[op], b_text, a_text,
               number_text(left, sizeof left, a), b_text, number_text(right, sizeof right, b));
}

void
t_fail_status(const char *file, int line, const char *text, int status)
{
    const char *sentence = shc_status_sentence(status);
    if (sentence == NULL)
        sentence = status < 0 && status > -4096 ? strerror(-status) : "not a known status";
    t_fail(file, line, "%s returned %d: %s", text, status, sentence);
}

void
t_check_str(const char *file, int line, const char *a_text, const char *b_text, const char *a, const char *b)
{
    bool equal = a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
    if (!equal)
        t_fail(file, line, "expected equal text\n    %s is \"%s\"\n    %s is \"%s\"", a_text, a == NULL ? "(NULL)" : a,
               b_text, b == NULL ? "(NULL)" : b);
}

void
t_check_mem(const char *file, int line, const char *a_text, const char *b_text, const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    size_t i = 0;
    while (i < n && x[i] == y[i])
        i++;
    if (i < n)
        t_fail(file, line, "expected equal memory\n    %s[%zu] is %#x\n    %s[%zu] is %#x", a_text, i, (unsigned)x[i],
               b_text, i, (unsigned)y[i]);
}

const char *
t_dir(void)
{
    if (mkdir(test_dir, 0700) != 0 && errno != EEXIST)
        t_fail(__FILE__, __LINE__, "cannot make the folder %s: %s", test_dir, strerror(errno));
    return test_dir;
}

int
t_dir_fd(void)
{
    int fd = open(t_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        t_fail(__FILE__, __LINE__, "cannot open the folder %s: %s", test_dir, strerror(errno));
    return fd;
}

static double
factor(const char *variable)
{
    const char *text = getenv(variable);
    double x = text == NULL ? 1.0 : strtod(text, NULL);
    return x > 0.0 ? x : 1.0;
}

uint64_t
t_scaled(uint64_t n)
{
    double scaled = (double)n * factor("SHC_TEST_SCALE") / (SANITIZED ? 10.0 : 1.0);
    return scaled < 1.0 ? 1 : (uint64_t)scaled;
}

uint64_t
t_seed(void)
{
    struct timespec now;
    const char *text = getenv("SHC_TEST_SEED");
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t state = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20 ^ (uint64_t)getpid() << 44;
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : t_random(&state);
    printf("seed: SHC_TEST_SEED=%#" PRIx64 "\n", seed);
    fflush(stdout);
    return seed;
}

void
t_no_leak_check(void)
{
    leak_check = false;
}

void
t_leaves_cleanup_to_exit(void)
{
    cleanup_check = false;
}

int
t_wait(int pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            t_fail(__FILE__, __LINE__, "waitpid(%d): %s", pid, strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- in the process of one test ---- */

/* Entries of a folder, without "." and ".."; -1 where it cannot be read. */
static int
count_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    if (dir == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static void
print_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300], target[300];
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0)
            fprintf(stderr, "    %s -> %.*s\n", entry->d_name, (int)n, target);
    }
    closedir(dir);
}

static int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* The kernel lists a thread for a moment after it was joined. */
static int
count_other_threads(void)
{
    const struct timespec moment = {0, 1000000};
    int64_t deadline = now_ns() + ENDING_NS;
    int others;
    while ((others = count_entries("/proc/self/task") - 1) > 0 && now_ns() < deadline)
        nanosleep(&moment, NULL);
    return others;
}

static void
run_here(const t_test_t *test)
{
    int descriptors = count_entries("/proc/self/fd");
    test->body();
    fflush(NULL);
    int still_open = count_entries("/proc/self/fd");
    if (cleanup_check && still_open > descriptors) {
        print_descriptors();
        t_fail(test->name, 0, "left %d descriptors open", still_open - descriptors);
    }
    int threads = cleanup_check && !SANITIZED ? count_other_threads() : 0; /* a sanitizer has a thread of its own */
    if (threads > 0)
        t_fail(test->name, 0, "left %d threads running", threads);
    if (!leak_check)
        _exit(0);
    exit(0); /* the leak checker runs now */
}

/* ---- in the parent ---- */

/* Empties and removes the test's folder; returns how many files lay there. */
static int
remove_dir(void)
{
    DIR *dir = opendir(test_dir);
    int n = 0;
    if (dir == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        fprintf(stderr, "    left behind: %s/%s\n", test_dir, entry->d_name);
        unlinkat(dirfd(dir), entry->d_name, 0);
        n++;
    }
    closedir(dir);
    rmdir(test_dir);
    return n;
}

/* What ends this program by hand or by timeout(1): the test that runs must not outlive it. */
static sigset_t
watched_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

_Noreturn static void
give_up(int signal_number)
{
    kill(-running_group, SIGKILL);
    while (waitpid(-running_group, NULL, 0) > 0) {
    }
    (void)remove_dir();
    _exit(128 + signal_number);
}

/* Sleeps until a child changes state or the deadline; the watched signals are blocked. */
static void
sleep_for_child(int64_t deadline)
{
    sigset_t set = watched_signals();
    int64_t left = deadline - now_ns();
    if (left > 100000000) /* a signal that was merged with another is noticed within 0.1 s */
        left = 100000000;
    struct timespec t = {0, left > 0 ? left : 0};
    int got = sigtimedwait(&set, NULL, &t);
    if (got > 0 && got != SIGCHLD)
        give_up(got);
}

/* False when the deadline came first. */
static bool
wait_until(pid_t pid, int64_t deadline, int *status)
{
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return true;
        if (now_ns() >= deadline)
            return false;
        sleep_for_child(deadline);
    }
}

/* Reaps what a test forked and left, sending each the signal (0: none), until all have ended or the time is over.
 * Returns how many did. */
static int
reap_group(pid_t group, int signal_number, int64_t deadline)
{
    int reaped = 0, status;
    for (;;) {
        while (waitpid(-group, &status, WNOHANG) > 0)
            reaped++;
        if (kill(-group, signal_number) != 0 || now_ns() >= deadline)
            return reaped;
        sleep_for_child(deadline);
    }
}

/* Returns how many processes of the test had to be killed: those that were just ending are let go. */
static int
end_group(pid_t group)
{
    (void)reap_group(group, 0, now_ns() + ENDING_NS);
    return reap_group(group, SIGKILL, now_ns() + GRACE_NS);
}

static pid_t
start(const t_test_t *test, const sigset_t *mask)
{
    snprintf(test_dir, sizeof test_dir, "%s/shmcomm-t.%d.%s", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
             (int)getpid(), "dir");
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    sigprocmask(SIG_SETMASK, mask, NULL);
    run_here(test);
    return -1;
}

static outcome_t
judge(const t_test_t *test, bool ended, int status, int64_t took_ns, int processes, int files)
{
    int ms = (int)(took_ns / 1000000);
    bool clean = processes == 0 && files == 0;
    if (ended && WIFEXITED(status) && WEXITSTATUS(status) == 0 && clean) {
        printf("ok    %s (%d ms)\n", test->name, ms);
        return PASSED;
    }
    if (ended && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED && clean) {
        printf("skip  %s\n", test->name);
        return SKIPPED;
    }
    printf("FAIL  %s (%d ms):", test->name, ms);
    if (!ended)
        printf(" did not end in time and was killed;");
    else if (WIFSIGNALED(status))
        printf(" ended by signal %d (%s);", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        printf(" exit status %d;", WEXITSTATUS(status));
    printf(" left %d processes and %d files\n", processes, files);
    return FAILED;
}

static outcome_t
run_one(const t_test_t *test, const sigset_t *mask)
{
    int status = 0;
    int64_t begun = now_ns();
    int64_t limit = (int64_t)(test->limit_s * factor("SHC_TEST_TIMEOUT_SCALE") * 1e9);
    pid_t pid = start(test, mask);
    if (pid < 0) {
        printf("FAIL  %s: fork: %s\n", test->name, strerror(errno));
        return FAILED;
    }
    setpgid(pid, pid); /* both sides do it: neither knows who is first */
    running_group = pid;
    bool ended = wait_until(pid, begun + limit, &status);
    if (!ended) {
        kill(-pid, SIGKILL);
        wait_until(pid, now_ns() + GRACE_NS, &status);
    }
    int64_t took = now_ns() - begun;
    int processes = end_group(pid);
    int files = remove_dir();
    outcome_t outcome = judge(test, ended, status, took, ended ? processes : 0, ended ? files : 0);
    fflush(NULL);
    return outcome;
}

static int
run_all(const char *program, const char *only)
{
    int counts[3] = {0, 0, 0};
    int64_t begun = now_ns();
    sigset_t mask, watched = watched_signals();
    sigprocmask(SIG_BLOCK, &watched, &mask);
#ifdef __linux__
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans of a test come to us and not to init */
#endif
    for (const t_test_t *test = first; test != NULL; test = test->next)
        if (only == NULL || strcmp(only, test->name) == 0)
            counts[run_one(test, &mask)]++;
    int total = counts[PASSED] + counts[FAILED] + counts[SKIPPED];
    if (total == 0) {
        fprintf(stderr, "%s: no test%s%s (--list shows them)\n", program, only ? " is named " : "", only ? only : "");
        return 1;
    }
    const char *slash = strrchr(program, '/');
    printf("%s: %d passed, %d failed, %d skipped in %.1f s\n", slash ? slash + 1 : program, counts[PASSED],
           counts[FAILED], counts[SKIPPED], (double)(now_ns() - begun) / 1e9);
    return counts[FAILED] > 0 ? 1 : counts[PASSED] == 0 ? EXIT_SKIPPED : 0;
}

int
main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (const t_test_t *test = first; test != NULL; test = test->next)
            puts(test->name);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--run") == 0)
        return run_all(argv[0], argv[2]);
    if (argc == 1)
        return run_all(argv[0], NULL);
    fprintf(stderr, "usage: %s [--list | --run NAME]\n", argv[0]);
    return 2;
}
