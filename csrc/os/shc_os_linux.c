/* The Linux body of shc_os.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "os/shc_os_body.h"

#ifndef SHC_OS_POSIX

#ifndef __linux__
#error "shmcomm runs on Linux; for another POSIX system, try the untuned body with -DSHC_OS_POSIX"
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/shc_math.h"

#define NS_PER_S UINT64_C(1000000000)

_Static_assert(sizeof(long) == 8 && sizeof(time_t) == 8 && sizeof(ino_t) == 8 && sizeof(off_t) == 8,
               "the calls below are spelt for 64-bit systems");

/* Numbers of the kernel's interface. Its own headers are a package apart on some distributions, and older C
 * libraries lack the newer ones. */
#define FUTEX_WAKE 1
#define FUTEX_WAIT_BITSET 9
#define FUTEX_ANY_BIT UINT32_MAX
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define PIDFS_MAGIC 0x50494446
#define TMPFS_MAGIC 0x01021994
#define FIRST_TIME_NS UINT64_C(0xeffffffa) /* inode of the time namespace that the system starts with */

/* ---- CPUs and waiting ---- */

unsigned
shc_os_cpus(void)
{
    /* Asked directly: the C library's set stops at 1024 CPUs, and the kernel refuses one that is too short. */
    uint64_t mask[256];
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    unsigned count = 0;
    for (long i = 0; i < bytes / (long)sizeof(mask[0]); i++)
        for (uint64_t bits = mask[i]; bits != 0; bits &= bits - 1)
            count++;
    return count > 0 ? count : 1;
}

/* A time-out is always given, be it a hundred years off: without one the kernel resumes the wait by itself after a
 * handler that was installed with SA_RESTART, and the caller would never hear of the signal. */
#define DEADLINE_MAX (UINT64_C(1) << 62)

int
shc_os_futex_wait(shc_a32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    uint64_t end = deadline_ns < DEADLINE_MAX ? deadline_ns : DEADLINE_MAX;
    struct timespec until = {(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &until, NULL, FUTEX_ANY_BIT) == 0)
        return 0;
    switch (errno) {
    case EAGAIN:
        return SHC_AGAIN;
    case ETIMEDOUT:
        return SHC_TIMEOUT;
    case EINTR:
        return SHC_INTERRUPTED;
    default:
        return -errno;
    }
}

int
shc_os_futex_wake(shc_a32_t *word, uint32_t count)
{
    if (count == 0)
        return 0; /* the kernel would wake one */
    int n = count < INT_MAX ? (int)count : INT_MAX;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
    return woken >= 0 ? (int)woken : -errno;
}

/* ---- identity ---- */

/* What can be had again later, and must not make us believe that the system has no such thing. */
static bool
is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static int
open_pidfd(uint32_t pid)
{
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

/* 0 where all pidfds share one inode (before Linux 6.9). */
static uint64_t
pidfd_inode(int fd)
{
    struct statfs fs;
    struct stat st;
    if (fstatfs(fd, &fs) != 0 || fs.f_type != PIDFS_MAGIC || fstat(fd, &st) != 0)
        return 0;
    return st.st_ino;
}

/* 0 and the inode (0: unknown), or -errno when short of something. */
static int
own_pidfd_inode(uint32_t pid, uint64_t *ino)
{
    int fd = open_pidfd(pid);
    if (fd < 0 && is_shortage(errno))
        return -errno;
    *ino = fd < 0 ? 0 : pidfd_inode(fd);
    if (fd >= 0)
        shc_os_close(fd);
    return 0;
}

/* The kernel shows start times shifted by the READER's time namespace: only those seen from the first one are the
 * same for everybody. Kernels without such namespaces have no such file. */
static bool
sees_true_start_times(void)
{
    uint64_t ns = shc__os_inode_of("/proc/self/ns/time");
    return ns == 0 || ns == FIRST_TIME_NS;
}

typedef struct stat_line {
    char state;
    uint64_t threads;
    uint64_t start;
} stat_line_t;

static uint64_t
parse_decimal(const char *p, const char *end)
{
    uint64_t x = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        x = x * 10 + (uint64_t)(*p - '0');
    return x;
}

/* Field 2 is the program's name in brackets, and may hold brackets, blanks and digits itself: what counts begins
 * after the last closing one. */
static bool
parse_stat_line(const char *text, size_t n, stat_line_t *out)
{
    const char *end = text + n;
    const char *p = end;
    while (p > text && p[-1] != ')')
        p--;
    if (p == text)
        return false;
    for (unsigned field = 3; p < end && field <= 22; field++) {
        while (p < end && *p == ' ')
            p++;
        if (p == end)
            return false;
        if (field == 3)
            out->state = *p;
        else if (field == 20)
            out->threads = parse_decimal(p, end);
        else if (field == 22)
            out->start = parse_decimal(p, end);
        while (p < end && *p != ' ')
            p++;
        if (field == 22)
            return out->start != 0;
    }
    return false;
}

static int
read_stat_line(const char *path, stat_line_t *out)
{
    char text[1024];
    size_t n;
    int rc = shc__os_read_file(path, text, sizeof(text), &n);
    if (rc != 0)
        return rc;
    return parse_stat_line(text, n, out) ? 0 : -EINVAL;
}

/* 0 and the start time (0: unknown), or -errno when short of something. */
static int
own_start(uint64_t *start)
{
    stat_line_t line = {0};
    int rc = read_stat_line("/proc/self/stat", &line);
    if (rc != 0 && is_shortage(-rc))
        return rc;
    *start = rc == 0 && sees_true_start_times() ? line.start : 0;
    return 0;
}

int
shc_os_identity(shc_identity_t *out)
{
    shc_identity_t id = {.pid = (uint32_t)getpid(), .uid = (uint32_t)geteuid()};
    int rc = own_pidfd_inode(id.pid, &id.pidino);
    if (rc != 0)
        return rc;
    rc = own_start(&id.start);
    if (rc != 0)
        return rc;
    id.pidns = shc__os_pid_namespace();
    *out = id;
    return 0;
}

/* ---- liveness ---- */

/* A /proc that was mounted for another PID namespace numbers processes in another way; so does one that is not
 * there. */
static bool
proc_numbers_as_we_do(void)
{
    char text[16];
    ssize_t n = readlink("/proc/self", text, sizeof(text));
    return n > 0 && parse_decimal(text, text + n) == (uint64_t)getpid();
}

static bool
read_stat_of(uint32_t pid, stat_line_t *out)
{
    char path[32] = "/proc/";
    char digits[10];
    size_t n = 0;
    size_t at = strlen(path);
    for (; pid != 0; pid /= 10)
        digits[n++] = (char)('0' + pid % 10);
    while (n > 0)
        path[at++] = digits[--n];
    memcpy(path + at, "/stat", sizeof("/stat"));
    return proc_numbers_as_we_do() && read_stat_line(path, out) == 0;
}

static bool
started_at_another_time(const stat_line_t *line, const shc_identity_t *who)
{
    return who->start != 0 && line->start != who->start && sees_true_start_times();
}

/* Readable: all of its threads have ended. */
static bool
pidfd_says_dead(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;
    do {
        r = poll(&p, 1, 0);
    } while (r < 0 && errno == EINTR);
    return r == 1 && (p.revents & (POLLIN | POLLHUP)) != 0;
}

/* The descriptor was opened first, so whoever has the number by now: another start time means that `who` is gone. */
static bool
belongs_to_another(int fd, const shc_identity_t *who)
{
    uint64_t ino = who->pidino != 0 ? pidfd_inode(fd) : 0;
    if (ino != 0)
        return ino != who->pidino;
    stat_line_t line = {0};
    return who->start != 0 && read_stat_of(who->pid, &line) && started_at_another_time(&line, who);
}

/* Asks for the process, where kill(2) would also be content with a thread of another one that got the number. */
static bool
no_such_process(uint32_t pid)
{
    return syscall(SYS_tgkill, (pid_t)pid, (pid_t)pid, 0) != 0 && errno == ESRCH;
}

/* For kernels without pidfds, policies that forbid them, and processes that have no descriptor left. A first thread
 * that has ended shows as a zombie while others still run: hence the count. */
static bool
is_dead_without_pidfd(const shc_identity_t *who)
{
    if (no_such_process(who->pid) || shc__os_is_zombie_child(who->pid))
        return true;
    stat_line_t line = {0};
    if (!read_stat_of(who->pid, &line))
        return false;
    bool ended = (line.state == 'Z' || line.state == 'X') && line.threads <= 1;
    return ended || started_at_another_time(&line, who);
}

bool
shc_os_is_dead(const shc_identity_t *who, const shc_identity_t *self)
{
    if (who->pidns != self->pidns || who->pid == 0 || who->pid > INT_MAX)
        return false;
    int fd = open_pidfd(who->pid);
    if (fd < 0)
        return errno == ESRCH || is_dead_without_pidfd(who);
    bool dead = pidfd_says_dead(fd) || belongs_to_another(fd, who);
    shc_os_close(fd);
    return dead;
}

/* ---- private pages, random bytes ---- */

int
shc_os_fork_word(shc_a64_t **out)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    if (madvise(page, size, MADV_WIPEONFORK) != 0) {
        int rc = errno == EINVAL ? -ENOSYS : -errno;
        (void)munmap(page, size);
        return rc;
    }
    *out = page;
    return 0;
}

int
shc_os_random(void *buf, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t r = getrandom((uint8_t *)buf + at, n - at, 0);
        if (r >= 0)
            at += (size_t)r;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/* ---- files ---- */

#define PROC_FD_PATH 32

/* The name under which linkat(2) finds an open file. */
static void
write_proc_fd_path(char path[PROC_FD_PATH], int fd)
{
    static const char prefix[] = "/proc/self/fd/";
    char digits[10];
    size_t n = 0;
    size_t at = sizeof(prefix) - 1;
    memcpy(path, prefix, at);
    do {
        digits[n++] = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd != 0);
    while (n > 0)
        path[at++] = digits[--n];
    path[at] = '\0';
}

/* Whether a file without a name could be given one later: that takes /proc. */
static bool
can_be_linked(int fd)
{
    char path[PROC_FD_PATH];
    struct stat by_path;
    struct stat by_fd;
    write_proc_fd_path(path, fd);
    return stat(path, &by_path) == 0 && fstat(fd, &by_fd) == 0 && by_path.st_ino == by_fd.st_ino &&
           by_path.st_dev == by_fd.st_dev;
}

/* How file systems and old kernels say that they know no unnamed files. */
static bool
means_no_unnamed_files(int error)
{
    return error == EOPNOTSUPP || error == EISDIR || error == EINVAL || error == ENOSYS;
}

/* -EOPNOTSUPP: use a private name. */
static int
open_unnamed(int dir_fd, uint32_t mode, int *fd)
{
    int r;
    do {
        r = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, (mode_t)mode);
    } while (r < 0 && errno == EINTR);
    if (r < 0)
        return means_no_unnamed_files(errno) ? -EOPNOTSUPP : -errno;
    if (!can_be_linked(r)) {
        shc_os_close(r);
        return -EOPNOTSUPP;
    }
    *fd = r;
    return 0;
}

int
shc_os_file_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd, char tmp_name[SHC_OS_TMP_NAME])
{
    int new_fd = -1;
    int rc = open_unnamed(dir_fd, mode, &new_fd);
    if (rc == -EOPNOTSUPP)
        return shc__os_named_new(dir_fd, mode, maker, fd, tmp_name);
    if (rc == 0)
        rc = shc__os_set_mode(new_fd, mode);
    if (rc != 0)
        return rc;
    tmp_name[0] = '\0';
    *fd = new_fd;
    return 0;
}

int
shc_os_file_publish(int dir_fd, int fd, const char *tmp_name, const char *name)
{
    char path[PROC_FD_PATH];
    if (tmp_name[0] != '\0')
        return shc__os_named_publish(dir_fd, tmp_name, name);
    write_proc_fd_path(path, fd);
    return linkat(AT_FDCWD, path, dir_fd, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

int
shc__os_allocate(int fd, uint64_t from, uint64_t n)
{
    if (fallocate(fd, 0, (off_t)from, (off_t)n) == 0)
        return 0;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

int
shc__os_punch(int fd, uint64_t from, uint64_t n)
{
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)n) == 0)
        return 0;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

/* The number of kB behind `key` in the text of the kernel's memory report; 0 if it is not there. */
static uint64_t
report_value(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at != NULL ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

static bool
is_in_memory(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static uint64_t
memory_available(void)
{
    char text[4096];
    size_t n;
    if (shc__os_read_file("/proc/meminfo", text, sizeof text - 1, &n) != 0)
        return UINT64_MAX;
    text[n] = '\0';
    uint64_t free_bytes = report_value(text, "MemAvailable:");
    return free_bytes != 0 ? free_bytes + report_value(text, "SwapFree:") : UINT64_MAX;
}

uint64_t
shc__os_memory_available(int fd)
{
    return is_in_memory(fd) ? memory_available() : UINT64_MAX;
}

/* ---- memory by way of a mapping ---- */

#define AGAIN_MAX 64u

static int
advise(void *at, uint64_t n, int advice)
{
    unsigned again = 0;
    while (madvise(at, (size_t)n, advice) != 0) {
        if (errno != EINTR && (errno != EAGAIN || ++again == AGAIN_MAX))
            return -errno;
        shc_os_yield();
    }
    return 0;
}

/* Nor is memory given back that the process has locked. */
static bool
means_no_such_advice(int rc)
{
    return rc == -EINVAL || rc == -ENOSYS || rc == -EOPNOTSUPP;
}

static uint64_t
page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Tried out, since emulators of the kernel take any advice about nothing. Elsewhere than in memory a page that is there
 * is not yet a block on the disk: the descriptor is the better way. */
shc_os_growth_t
shc_os_growth_of(int fd, void *base)
{
    bool by_map = is_in_memory(fd) && advise(base, page_size(), MADV_POPULATE_WRITE) == 0;
    return by_map ? SHC_OS_GROWS_BY_MAP : SHC_OS_GROWS_BY_FD;
}

/* Other threads that map or unmap something wait for the call. */
#define ADVISED_AT_ONCE (UINT64_C(4) << 20)

/* The pages that hold the bytes [from, to) get memory. The kernel says EFAULT where a store would raise SIGBUS. */
static int
populate(uint8_t *base, uint64_t from, uint64_t to)
{
    uint64_t end = shc_align_up(to, page_size());
    for (uint64_t at = shc_align_down(from, page_size()); at < end; at += ADVISED_AT_ONCE) {
        uint64_t n = end - at < ADVISED_AT_ONCE ? end - at : ADVISED_AT_ONCE;
        int rc = advise(base + at, n, MADV_POPULATE_WRITE);
        if (rc != 0)
            return rc == -EFAULT ? -ENOSPC : means_no_such_advice(rc) ? -EOPNOTSUPP : rc;
    }
    return 0;
}

int
shc_os_map_reserve(void *base, uint64_t from, uint64_t n)
{
    return n <= memory_available() ? populate(base, from, from + n) : -ENOSPC;
}

/* Part of a page. It may be a hole, where a store alone could raise SIGBUS. */
static void
clear_part(uint8_t *base, uint64_t from, uint64_t to)
{
    if (from < to && populate(base, from, to) == 0)
        memset(base + from, 0, (size_t)(to - from));
}

int
shc_os_map_give_back(void *base, uint64_t from, uint64_t n)
{
    uint64_t to = from + n;
    uint64_t first = shc_align_up(from, page_size()), end = shc_align_down(to, page_size());
    if (first >= end) {
        clear_part(base, from, to);
        return 0;
    }
    int rc = advise((uint8_t *)base + first, end - first, MADV_REMOVE);
    if (rc != 0)
        return means_no_such_advice(rc) ? -EOPNOTSUPP : rc;
    clear_part(base, from, first);
    clear_part(base, end, to);
    return 0;
}

#endif
