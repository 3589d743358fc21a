/* The contract with the operating system: everything that the core asks of it, and nothing else does a system call.
 *
 * Bodies: shc_os_linux.c (futex, pidfd, O_TMPFILE, madvise) and shc_os_posix.c (plain POSIX: a bounded sleeping
 * poll for futex, kill(2) for liveness, a temporary name for O_TMPFILE, pthread_atfork for the fork page), chosen at
 * build time by -DSHC_OS_POSIX. What the two share stands in shc_os_common.c.
 *
 * Conventions: 0 is success, -errno a failure, positive values are outcomes from shc_status.def. EINTR never leaves a
 * function except where SHC_INTERRUPTED is promised. Out parameters are written only on success. All descriptors are
 * close-on-exec. Nothing here allocates (but for the C library's own buffer while a directory is read), prints or
 * keeps a global (shc_os_posix.c keeps the one word that its fork handler must reach). */
#ifndef SHC_OS_H
#define SHC_OS_H

#include <sys/types.h>

#include "atomic/shc_atomic.h"
#include "base/shc_status.h"

/* Which body this is: processes built with different ones cannot wake each other, so it is part of every segment's
 * fingerprint. */
#ifdef SHC_OS_POSIX
#define SHC_OS_BODY "posix"
#else
#define SHC_OS_BODY "linux"
#endif

/* ---- time ---- */

#define SHC_NEVER UINT64_MAX

/* Nanoseconds of the monotonic clock, the one that deadlines are given in. */
uint64_t shc_os_now_ns(void);

/* Nanoseconds since 1970, for people to read. */
uint64_t shc_os_wall_ns(void);

/* CPUs that this process may run on now, at least 1. */
unsigned shc_os_cpus(void);

/* Lets another runnable thread have this CPU. */
void shc_os_yield(void);

/* ---- waiting on a word ---- */

/* Sleeps while *word == expected, until woken, a signal, or deadline_ns (monotonic; SHC_NEVER: none).
 * 0: woken, maybe for no reason. SHC_AGAIN: *word differed. SHC_TIMEOUT. SHC_INTERRUPTED: a signal handler ran, however
 * it was installed.
 * The word may be shared between processes at different addresses. Whoever wakes changes the word first: a body
 * without a futex sees nothing else. A handler that ran just before the sleep began does not end it: who must react
 * to signals sleeps in slices. */
SHC_MUST_USE int shc_os_futex_wait(shc_a32_t *word, uint32_t expected, uint64_t deadline_ns);

/* Wakes up to `count` sleepers of the word. Returns how many (0 where the system cannot tell), or -errno. */
int shc_os_futex_wake(shc_a32_t *word, uint32_t count);

/* ---- who is who, and who is dead ---- */

/* A process, such that a reused pid is not taken for it. 0 in `start` and `pidino`: unknown, not compared. */
typedef struct shc_identity {
    uint32_t pid;
    uint32_t uid;
    uint64_t start;  /* start time in clock ticks since boot; 0 in a time namespace, which would shift it */
    uint64_t pidino; /* inode of its pidfd, unique for the life of the system (pidfs, Linux >= 6.9) */
    uint64_t pidns;  /* inode of its PID namespace; 0 (unknown) is a namespace like any other */
} shc_identity_t;

/* The calling process. What the system does not tell is 0; a mere shortage (-EMFILE) is a failure, not a weaker
 * identity. */
SHC_MUST_USE int shc_os_identity(shc_identity_t *out);

/* The effective user id of the calling process, as shc_os_identity gives it, without the rest. */
uint32_t shc_os_uid(void);

/* True only when the kernel says that no thread of *who will execute another user instruction: it is gone, a zombie, or
 * its pid now belongs to somebody else. False when it lives, when it is stopped, and when that cannot be known
 * (another PID namespace, no permission). `who->start` and `who->pidino` may be 0 (then only the pid counts). Needs no
 * descriptor to be free: with none left it asks kill(2), as the plain POSIX body always does, which takes a reused pid
 * and the unreaped zombie of another parent for living. A pid of 0 or beyond INT_MAX names nobody whom the kernel could
 * judge: false. */
bool shc_os_is_dead(const shc_identity_t *who, const shc_identity_t *self);

/* A private word of the caller's own that reads 0 in a forked child whatever its parent wrote there; in the Linux
 * body also after a bare clone(2). It lives until the process ends: ask once, not per object. -ENOSYS: the kernel is
 * older than 4.14. */
SHC_MUST_USE int shc_os_fork_word(shc_a64_t **out);

/* Fills with unpredictable bytes. */
SHC_MUST_USE int shc_os_random(void *buf, size_t n);

/* ---- files of the shared-memory file system ---- */

typedef struct shc_os_file_info {
    uint64_t dev;
    uint64_t ino;
    uint64_t size;
    uint64_t allocated; /* bytes of memory that the file really holds */
    uint32_t uid;
    uint32_t mode; /* permission bits */
    bool is_directory;
} shc_os_file_info_t;

#define SHC_OS_TMP_PREFIX "shmcomm.~"
#define SHC_OS_TMP_NAME 64

/* A new, empty file without a public name, opened read-write, its permission bits `mode` whatever the umask.
 * tmp_name receives "" where the system knows unnamed files, else the private name SHC_OS_TMP_PREFIX "<pid>.<pidns>.
 * <random hex>" of `maker`, under which a killed creator's file can be found and removed, and a living one's is known
 * for his. */
SHC_MUST_USE int shc_os_file_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd,
                                 char tmp_name[SHC_OS_TMP_NAME]);

/* Gives a new file its public name in one step; -EEXIST if the name is taken. */
SHC_MUST_USE int shc_os_file_publish(int dir_fd, int fd, const char *tmp_name, const char *name);

/* Removes the private name of a file that is not to be published ("" is fine). */
void shc_os_file_discard(int dir_fd, const char *tmp_name);

/* Sets the size and reserves memory for every byte: later stores cannot fail. -ENOSPC, or -EFBIG (a limit of the
 * process or the system; no signal is raised), leaves the file with the size and the contents that it had, and
 * nothing more reserved. */
SHC_MUST_USE int shc_os_file_reserve(int fd, uint64_t size);

/* Sets the size without reserving anything: what a file gains is a hole, which reads zero and costs nothing. Touching a
 * hole through a map takes memory at once, or raises SIGBUS when there is none: reserve first. -EFBIG as above. */
SHC_MUST_USE int shc_os_file_set_size(int fd, uint64_t size);

/* Reserves memory for the bytes [from, from + n) of a file that is long enough; what is there stays as it is, whoever
 * writes to it meanwhile. -ENOSPC: part of the range may be reserved now, the rest is as it was. -EOPNOTSUPP: the
 * system or the file system can reserve by overwriting only. */
SHC_MUST_USE int shc_os_file_reserve_range(int fd, uint64_t from, uint64_t n);

/* Gives the memory of [from, from + n) back to the system: whole pages become holes, the rest of the range reads zero.
 * -EOPNOTSUPP: the system or the file system does not take memory back; nothing has changed. */
SHC_MUST_USE int shc_os_file_give_back(int fd, uint64_t from, uint64_t n);

/* Opens an existing regular file read-write; -ELOOP for a symbolic link, -EINVAL for what is no regular file. */
SHC_MUST_USE int shc_os_file_open(int dir_fd, const char *name, int *fd);

SHC_MUST_USE int shc_os_file_info(int fd, shc_os_file_info_t *out);

/* The same without opening it: also of files that may not be opened, and of what is no regular file. */
SHC_MUST_USE int shc_os_file_look(int dir_fd, const char *name, shc_os_file_info_t *out);

/* 0 and *same: whether `name` still names the file (dev, ino). */
SHC_MUST_USE int shc_os_file_is(int dir_fd, const char *name, uint64_t dev, uint64_t ino, bool *same);

SHC_MUST_USE int shc_os_file_unlink(int dir_fd, const char *name);

/* Bytes that the file system of fd has free for this user; UINT64_MAX if it was mounted without a limit. */
SHC_MUST_USE int shc_os_file_space(int fd, uint64_t *free_bytes);

SHC_MUST_USE int shc_os_map(int fd, uint64_t size, void **base);
void shc_os_unmap(void *base, uint64_t size);

/* How memory for holes of a file that is mapped can be reserved later, and given back. */
typedef enum shc_os_growth {
    SHC_OS_GROWS_NOT,    /* in no way: all of it is reserved when the file is made */
    SHC_OS_GROWS_BY_MAP, /* shc_os_map_reserve, shc_os_map_give_back: the descriptor may be closed */
    SHC_OS_GROWS_BY_FD,  /* shc_os_file_reserve_range, shc_os_file_give_back, if any */
} shc_os_growth_t;

/* For the file of fd, mapped at `base`; the first page of it has memory. */
shc_os_growth_t shc_os_growth_of(int fd, void *base);

/* As shc_os_file_reserve_range, by way of the mapping. -EOPNOTSUPP: the system cannot. -ENOSPC also where somebody has
 * cut the file short. */
SHC_MUST_USE int shc_os_map_reserve(void *base, uint64_t from, uint64_t n);

/* As shc_os_file_give_back, by way of the mapping. -EOPNOTSUPP also where the process has locked this memory (mlock,
 * mlockall); nothing has changed. */
SHC_MUST_USE int shc_os_map_give_back(void *base, uint64_t from, uint64_t n);

void shc_os_close(int fd);

/* ---- directories ---- */

/* The place for shared memory when nobody says otherwise. */
#define SHC_OS_DEFAULT_DIR "/dev/shm"

SHC_MUST_USE int shc_os_dir_open(const char *path, int *dir_fd);

/* Calls visit(arg, name) for every entry but "." and ".." whose name starts with prefix; stops early when visit returns
 * non-zero and returns that. visit may remove entries and scan the same directory; what comes or goes meanwhile may
 * or may not be seen. Uses one descriptor. */
SHC_MUST_USE int shc_os_dir_scan(int dir_fd, const char *prefix, int (*visit)(void *arg, const char *name), void *arg);

#endif
