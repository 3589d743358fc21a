/* What POSIX says once for all systems: clocks, files, directories. */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif

#include "os/shc_os_body.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define BLOCK 512 /* the unit of st_blocks */

/* ---- time ---- */

static uint64_t
read_clock(clockid_t clock)
{
    struct timespec t = {0, 0};
    (void)clock_gettime(clock, &t); /* fails for an unknown clock only */
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t
shc_os_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t
shc_os_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void
shc_os_yield(void)
{
    (void)sched_yield();
}

/* ---- processes ---- */

uint64_t
shc__os_inode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

uint64_t
shc__os_pid_namespace(void)
{
    return shc__os_inode_of("/proc/self/ns/pid");
}

bool
shc__os_is_zombie_child(uint32_t pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof(info));
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return false;
    return info.si_pid == (pid_t)pid;
}

/* ---- reading ---- */

static int
read_all(int fd, uint8_t *buf, size_t n, size_t *got)
{
    size_t at = 0;
    while (at < n) {
        ssize_t r = read(fd, buf + at, n - at);
        if (r == 0)
            break;
        if (r > 0)
            at += (size_t)r;
        else if (errno != EINTR)
            return -errno;
    }
    *got = at;
    return 0;
}

static int
open_at(int dir_fd, const char *name, int flags, mode_t mode, int *fd)
{
    int r;
    do {
        r = openat(dir_fd, name, flags | O_CLOEXEC | O_NOCTTY, mode);
    } while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    *fd = r;
    return 0;
}

int
shc__os_read_file(const char *path, void *buf, size_t n, size_t *got)
{
    int fd = -1;
    int rc = open_at(AT_FDCWD, path, O_RDONLY, 0, &fd);
    if (rc != 0)
        return rc;
    rc = read_all(fd, buf, n, got);
    shc_os_close(fd);
    return rc;
}

/* ---- new files ---- */

static char *
append_text(char *to, const char *text)
{
    size_t n = strlen(text);
    memcpy(to, text, n);
    return to + n;
}

static char *
append_decimal(char *to, uint64_t x)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + x % 10);
        x /= 10;
    } while (x != 0);
    while (n > 0)
        *to++ = digits[--n];
    return to;
}

static char *
append_hex(char *to, uint64_t x)
{
    for (unsigned i = 0; i < 16; i++, x <<= 4)
        *to++ = "0123456789abcdef"[x >> 60];
    return to;
}

#define TMP_NAME_MAX (sizeof(SHC_OS_TMP_PREFIX) - 1 + 10 + 1 + 20 + 1 + 16 + 1)
_Static_assert(TMP_NAME_MAX <= SHC_OS_TMP_NAME, "a private name fits its buffer");

static void
write_tmp_name(char *to, const shc_identity_t *maker, uint64_t random)
{
    to = append_text(to, SHC_OS_TMP_PREFIX);
    to = append_decimal(to, maker->pid);
    to = append_text(to, ".");
    to = append_decimal(to, maker->pidns);
    to = append_text(to, ".");
    to = append_hex(to, random);
    *to = '\0';
}

int
shc__os_set_mode(int fd, uint32_t mode)
{
    int r;
    do {
        r = fchmod(fd, (mode_t)mode);
    } while (r != 0 && errno == EINTR);
    if (r == 0)
        return 0;
    r = -errno;
    shc_os_close(fd);
    return r;
}

int
shc__os_named_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd, char tmp_name[SHC_OS_TMP_NAME])
{
    char name[SHC_OS_TMP_NAME];
    int new_fd = -1;
    int rc;
    do {
        uint64_t random;
        rc = shc_os_random(&random, sizeof(random));
        if (rc != 0)
            return rc;
        write_tmp_name(name, maker, random);
        rc = open_at(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, (mode_t)mode, &new_fd);
    } while (rc == -EEXIST);
    if (rc != 0)
        return rc;
    rc = shc__os_set_mode(new_fd, mode);
    if (rc != 0) {
        shc_os_file_discard(dir_fd, name);
        return rc;
    }
    memcpy(tmp_name, name, sizeof(name));
    *fd = new_fd;
    return 0;
}

int
shc__os_named_publish(int dir_fd, const char *tmp_name, const char *name)
{
    if (linkat(dir_fd, tmp_name, dir_fd, name, 0) != 0)
        return -errno;
    /* A private name that stays (we are killed here) is one that a later sweep of dead creators' names removes. */
    shc_os_file_discard(dir_fd, tmp_name);
    return 0;
}

void
shc_os_file_discard(int dir_fd, const char *tmp_name)
{
    if (tmp_name[0] != '\0')
        (void)unlinkat(dir_fd, tmp_name, 0);
}

/* ---- reservation ---- */

/* A signal undoes what the interrupted call had reserved so far. Pieces bound that loss, and shrink under a storm of
 * signals, so that every piece is finished at some time. */
#define PIECE_MAX (UINT64_C(64) << 20)
#define PIECE_MIN (UINT64_C(64) << 10)

/* The kernel kills (SIGXFSZ) who exceeds this limit, so it is asked for first. */
static bool
within_file_limit(uint64_t size)
{
    struct rlimit limit;
    if (size > INT64_MAX)
        return false;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur;
}

static int
set_size(int fd, uint64_t size)
{
    int r;
    do {
        r = ftruncate(fd, (off_t)size);
    } while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}

static int
write_zeros(int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[4096];
    while (from < to) {
        size_t n = to - from < sizeof(zeros) ? (size_t)(to - from) : sizeof(zeros);
        ssize_t r = pwrite(fd, zeros, n, (off_t)from);
        if (r >= 0)
            from += (uint64_t)r;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/* In pieces. -EOPNOTSUPP: `*from` says where it stopped. */
static int
allocate_bytes(int fd, uint64_t *from, uint64_t to)
{
    uint64_t piece = PIECE_MAX;
    while (*from < to) {
        uint64_t n = to - *from < piece ? to - *from : piece;
        int rc = shc__os_allocate(fd, *from, n);
        if (rc == 0)
            *from += n;
        else if (rc == -EINTR)
            piece = piece > PIECE_MIN ? piece / 2 : piece;
        else
            return rc;
    }
    return 0;
}

/* Bytes before `old_size` hold data: where only writing reserves, they are left alone. */
static int
reserve_bytes(int fd, uint64_t old_size, uint64_t size)
{
    uint64_t at = 0;
    int rc = allocate_bytes(fd, &at, size);
    return rc == -EOPNOTSUPP ? write_zeros(fd, at > old_size ? at : old_size, size) : rc;
}

/* Asked before anything is taken: a memory file system as large as the machine's memory (the usual default) hands
 * out its last page and the system then kills somebody. */
static bool
is_there(int fd, uint64_t bytes)
{
    uint64_t space = UINT64_MAX;
    if (shc_os_file_space(fd, &space) != 0)
        space = UINT64_MAX; /* the allocation itself will tell */
    return bytes <= space && bytes <= shc__os_memory_available(fd);
}

int
shc_os_file_reserve(int fd, uint64_t size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    uint64_t old_size = (uint64_t)st.st_size;
    if (size > old_size && !within_file_limit(size))
        return -EFBIG;
    if (size > old_size && !is_there(fd, size - old_size))
        return -ENOSPC;
    int rc = reserve_bytes(fd, old_size, size);
    if (rc == 0 && size < old_size)
        return set_size(fd, size);
    if (rc != 0 && size > old_size)
        (void)set_size(fd, old_size); /* rc is the error to tell; shrinking a file that we may write does not fail */
    return rc;
}

int
shc_os_file_set_size(int fd, uint64_t size)
{
    return within_file_limit(size) ? set_size(fd, size) : -EFBIG;
}

int
shc_os_file_reserve_range(int fd, uint64_t from, uint64_t n)
{
    uint64_t at = from;
    if (!is_there(fd, n))
        return -ENOSPC;
    return allocate_bytes(fd, &at, from + n);
}

int
shc_os_file_give_back(int fd, uint64_t from, uint64_t n)
{
    int rc;
    do {
        rc = shc__os_punch(fd, from, n);
    } while (rc == -EINTR);
    return rc;
}

/* ---- who is who ---- */

uint32_t
shc_os_uid(void)
{
    return (uint32_t)geteuid();
}

/* ---- existing files ---- */

static int
type_error(mode_t mode)
{
    if (S_ISREG(mode))
        return 0;
    return S_ISLNK(mode) ? -ELOOP : -EINVAL;
}

int
shc_os_file_open(int dir_fd, const char *name, int *fd)
{
    struct stat st;
    /* Looked at before it is opened: opening a device can do things. Looked at again after: it may have been
     * exchanged. */
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return -errno;
    int rc = type_error(st.st_mode);
    if (rc != 0)
        return rc;
    int new_fd = -1;
    rc = open_at(dir_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0, &new_fd);
    if (rc != 0)
        return rc;
    rc = fstat(new_fd, &st) == 0 ? type_error(st.st_mode) : -errno;
    if (rc != 0) {
        shc_os_close(new_fd);
        return rc;
    }
    *fd = new_fd;
    return 0;
}

static shc_os_file_info_t
info_from(const struct stat *st)
{
    return (shc_os_file_info_t){
        .dev = (uint64_t)st->st_dev,
        .ino = (uint64_t)st->st_ino,
        .size = (uint64_t)st->st_size,
        .allocated = (uint64_t)st->st_blocks * BLOCK,
        .uid = (uint32_t)st->st_uid,
        .mode = (uint32_t)st->st_mode & 07777,
        .is_directory = S_ISDIR(st->st_mode),
    };
}

int
shc_os_file_info(int fd, shc_os_file_info_t *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *out = info_from(&st);
    return 0;
}

int
shc_os_file_look(int dir_fd, const char *name, shc_os_file_info_t *out)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return -errno;
    *out = info_from(&st);
    return 0;
}

int
shc_os_file_is(int dir_fd, const char *name, uint64_t dev, uint64_t ino, bool *same)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *same = (uint64_t)st.st_dev == dev && (uint64_t)st.st_ino == ino;
    else if (errno == ENOENT)
        *same = false;
    else
        return -errno;
    return 0;
}

int
shc_os_file_unlink(int dir_fd, const char *name)
{
    return unlinkat(dir_fd, name, 0) == 0 ? 0 : -errno;
}

int
shc_os_file_space(int fd, uint64_t *free_bytes)
{
    struct statvfs fs;
    int r;
    do {
        r = fstatvfs(fd, &fs);
    } while (r != 0 && errno == EINTR);
    if (r != 0)
        return -errno;
    /* A memory file system mounted without a limit says that it has no blocks at all. */
    *free_bytes = fs.f_blocks == 0 ? UINT64_MAX : (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
    return 0;
}

int
shc_os_map(int fd, uint64_t size, void **base)
{
    if (size > SIZE_MAX)
        return -ENOMEM;
    void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *base = p;
    return 0;
}

void
shc_os_unmap(void *base, uint64_t size)
{
    (void)munmap(base, (size_t)size);
}

void
shc_os_close(int fd)
{
    (void)close(fd); /* after EINTR the descriptor is gone too: a second try could close somebody else's */
}

/* ---- directories ---- */

int
shc_os_dir_open(const char *path, int *dir_fd)
{
    return open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, dir_fd);
}

static bool
is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int
visit_entries(DIR *dir, const char *prefix, int (*visit)(void *arg, const char *name), void *arg)
{
    size_t n = strlen(prefix);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno == EINTR)
            continue;
        if (entry == NULL)
            return -errno;
        if (is_dots(entry->d_name) || strncmp(entry->d_name, prefix, n) != 0)
            continue;
        int rc = visit(arg, entry->d_name);
        if (rc != 0)
            return rc;
    }
}

int
shc_os_dir_scan(int dir_fd, const char *prefix, int (*visit)(void *arg, const char *name), void *arg)
{
    int fd = -1;
    /* Opened anew, not duplicated: a duplicate shares its position with the scans of other threads. */
    int rc = open_at(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0, &fd);
    if (rc != 0)
        return rc;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        rc = -errno;
        shc_os_close(fd);
        return rc;
    }
    rc = visit_entries(dir, prefix, visit, arg);
    (void)closedir(dir);
    return rc;
}
