/* Files, maps and directories of the shared-memory file system. */
#define _GNU_SOURCE
#include "os/shc_os.h"
#include "support/os_faults.h"
#include "support/scratch.h"
#include "t.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

#ifndef __O_TMPFILE
#define __O_TMPFILE 020000000
#endif

static scratch_t
new_scratch(void)
{
    scratch_t s;
    CHECK(scratch_open(&s));
    t_leaves_cleanup_to_exit();
    return s;
}

/* The longest name that there is. */
static const shc_identity_t maker = {.pid = UINT32_MAX, .pidns = UINT64_MAX};

typedef struct new_file {
    int fd;
    char tmp[SHC_OS_TMP_NAME];
} new_file_t;

static new_file_t
create(const scratch_t *s)
{
    new_file_t f = {.fd = -1, .tmp = "untouched"};
    CHECK_EQ(shc_os_file_new(s->fd, 0600, &maker, &f.fd, f.tmp), 0);
    CHECK(f.fd >= 0);
    return f;
}

static void
publish(const scratch_t *s, const new_file_t *f, const char *name)
{
    CHECK_EQ(shc_os_file_publish(s->fd, f->fd, f->tmp, name), 0);
}

static shc_os_file_info_t
info(int fd)
{
    shc_os_file_info_t out;
    CHECK_EQ(shc_os_file_info(fd, &out), 0);
    return out;
}

static void
check_close_on_exec(int fd)
{
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static void
ignore_alarm(int signal_number)
{
    (void)signal_number;
}

static void
handle_alarm(void)
{
    struct sigaction act;
    memset(&act, 0, sizeof(act));
    act.sa_handler = ignore_alarm;
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
}

static unsigned
open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* ---- new, publish, discard ---- */

static void
check_new_file_is_private_until_published(void)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    check_close_on_exec(f.fd);
    CHECK_EQ(info(f.fd).size, 0);
    char only[256] = "";
    CHECK_EQ(scratch_count(&s, only), f.tmp[0] != '\0');
    CHECK_EQ(strcmp(only, f.tmp), 0);
    CHECK_EQ(pwrite(f.fd, "whole", 5, 0), 5);
    publish(&s, &f, "public");
    CHECK_EQ(scratch_count(&s, only), 1);
    CHECK_EQ(strcmp(only, "public"), 0);
    bool same = false;
    shc_os_file_info_t i = info(f.fd);
    CHECK_EQ(shc_os_file_is(s.fd, "public", i.dev, i.ino, &same), 0);
    CHECK(same);
    CHECK_EQ(i.size, 5);
    shc_os_file_info_t seen;
    memset(&seen, 0xee, sizeof seen);
    CHECK_EQ(shc_os_file_look(s.fd, "public", &seen), 0);
    CHECK_EQ(seen.dev == i.dev && seen.ino == i.ino && seen.size == 5, 1);
    CHECK_EQ(seen.uid == geteuid() && seen.mode == 0600 && seen.allocated == i.allocated, 1);
    CHECK(!seen.is_directory && !i.is_directory);
    shc_os_close(f.fd);
    scratch_close(&s);
}

TEST(a_new_file_is_private_until_it_is_published)
{
    check_new_file_is_private_until_published();
}

static void
check_publish_refuses_a_taken_name(void)
{
    scratch_t s = new_scratch();
    new_file_t first = create(&s);
    publish(&s, &first, "name");
    new_file_t second = create(&s);
    CHECK_EQ(shc_os_file_publish(s.fd, second.fd, second.tmp, "name"), -EEXIST);
    shc_os_file_discard(s.fd, second.tmp);
    CHECK_EQ(scratch_count(&s, NULL), 1);
    bool same = false;
    shc_os_file_info_t i = info(first.fd);
    CHECK_EQ(shc_os_file_is(s.fd, "name", i.dev, i.ino, &same), 0);
    CHECK(same);
    scratch_close(&s);
}

TEST(publish_refuses_a_name_that_is_taken)
{
    check_publish_refuses_a_taken_name();
}

TEST(publish_refuses_the_name_of_a_dangling_symbolic_link)
{
    scratch_t s = new_scratch();
    CHECK_EQ(symlinkat("nowhere", s.fd, "name"), 0);
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_publish(s.fd, f.fd, f.tmp, "name"), -EEXIST);
    scratch_close(&s);
}

TEST(a_new_file_has_the_mode_asked_for_whatever_the_umask)
{
    scratch_t s = new_scratch();
    const uint32_t modes[] = {0600, 0660, 0666, 0400};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(modes); i++) {
        int fd = -1;
        char tmp[SHC_OS_TMP_NAME];
        (void)umask(i % 2 == 0 ? 0077 : 0000);
        CHECK_EQ(shc_os_file_new(s.fd, modes[i], &maker, &fd, tmp), 0);
        CHECK_EQ(info(fd).mode, modes[i]);
        CHECK_EQ(info(fd).uid, geteuid());
        shc_os_file_discard(s.fd, tmp);
        shc_os_close(fd);
    }
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}

TEST(discard_of_no_name_is_nothing)
{
    scratch_t s = new_scratch();
    shc_os_file_discard(s.fd, "");
    shc_os_file_discard(s.fd, "missing");
    scratch_close(&s);
}

/* Some kernels make an unnamed file there; a name is what nobody can give it. */
TEST(nothing_is_published_in_a_directory_that_is_gone)
{
    scratch_t s = new_scratch();
    int fd = 77;
    char tmp[SHC_OS_TMP_NAME] = "same";
    CHECK_EQ(rmdir(s.path), 0);
    int r = shc_os_file_new(s.fd, 0600, &maker, &fd, tmp);
    if (r == 0) {
        CHECK_EQ(shc_os_file_publish(s.fd, fd, tmp, "name"), -ENOENT);
        return;
    }
    CHECK_EQ(r, -ENOENT);
    CHECK_EQ(fd, 77);
    CHECK_EQ(strcmp(tmp, "same"), 0);
}

TEST(new_for_want_of_descriptors_fails)
{
    scratch_t s = new_scratch();
    int fd = 77;
    char tmp[SHC_OS_TMP_NAME];
    rlim_t old = fault_no_descriptors();
    int rc = shc_os_file_new(s.fd, 0600, &maker, &fd, tmp);
    fault_allow_descriptors(old);
    CHECK_EQ(rc, -EMFILE);
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}

/* A private name says whose it is. */
static void
check_private_name(const char *tmp)
{
    const char *start = SHC_OS_TMP_PREFIX "4294967295.18446744073709551615.";
    CHECK_EQ(strncmp(tmp, start, strlen(start)), 0);
    CHECK_EQ(strspn(tmp + strlen(start), "0123456789abcdef"), 16);
    CHECK_EQ(strlen(tmp), strlen(start) + 16);
}

#ifndef SHC_OS_POSIX

TEST(a_new_file_has_no_name_at_all_where_the_system_knows_unnamed_files)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(f.tmp[0], '\0');
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}

static void
check_named_files(int error)
{
    if (!fault_deny(SYS_openat, 2, __O_TMPFILE, error))
        T_SKIP("no seccomp filters here");
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    check_private_name(f.tmp);
    scratch_close(&s);
    check_new_file_is_private_until_published();
    check_publish_refuses_a_taken_name();
}

TEST(private_names_serve_on_a_file_system_without_unnamed_files)
{
    check_named_files(EOPNOTSUPP);
}

TEST(private_names_serve_on_a_kernel_without_unnamed_files)
{
    check_named_files(EISDIR);
}

TEST(private_names_serve_where_proc_is_missing)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/proc", "tmpfs", 0, "size=4k") != 0)
        T_SKIP("needs root and mount namespaces");
    t_no_leak_check();
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    check_private_name(f.tmp);
    publish(&s, &f, "public");
    CHECK(scratch_has(&s, "public") && !scratch_has(&s, f.tmp));
    scratch_close(&s);
}

#else

TEST(a_private_name_says_whose_it_is)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    check_private_name(f.tmp);
    scratch_close(&s);
}

#endif

/* ---- reserve ---- */

TEST(reserve_sets_the_size_and_holds_memory_for_every_byte)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    const uint64_t sizes[] = {1, 4096, 100000, 5 * MIB + 1};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        CHECK_EQ(shc_os_file_reserve(f.fd, sizes[i]), 0);
        CHECK_EQ(info(f.fd).size, sizes[i]);
        CHECK(info(f.fd).allocated >= sizes[i]);
    }
    scratch_close(&s);
}

TEST(reserve_keeps_what_is_there_and_reads_zero_elsewhere)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    char bytes[8] = "";
    CHECK_EQ(pwrite(f.fd, "data", 4, 0), 4);
    CHECK_EQ(shc_os_file_reserve(f.fd, 100000), 0);
    CHECK_EQ(pread(f.fd, bytes, 8, 0), 8);
    CHECK_EQ(memcmp(bytes, "data\0\0\0\0", 8), 0);
    CHECK_EQ(pread(f.fd, bytes, 8, 99992), 8);
    CHECK_EQ(memcmp(bytes, "\0\0\0\0\0\0\0\0", 8), 0);
    CHECK_EQ(shc_os_file_reserve(f.fd, 2), 0);
    CHECK_EQ(info(f.fd).size, 2);
    CHECK_EQ(shc_os_file_reserve(f.fd, 0), 0);
    CHECK_EQ(info(f.fd).size, 0);
    scratch_close(&s);
}

/* What statfs(2) says by path: fstatfs(2) may be denied. */
static uint64_t
space_of(const scratch_t *s)
{
    struct statvfs fs;
    CHECK_EQ(statvfs(s->path, &fs), 0);
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static void
check_reserve_beyond_a_small_file_system(const char *options, uint64_t size)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, options))
        T_SKIP("needs root, to mount a small file system");
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_reserve(f.fd, 64 * KIB), 0);
    CHECK_EQ(pwrite(f.fd, "data", 4, 0), 4);
    uint64_t before = space_of(&s);
    CHECK_EQ(before, size - 64 * KIB);
    CHECK_EQ(shc_os_file_reserve(f.fd, size + 1), -ENOSPC);
    CHECK_EQ(info(f.fd).size, 64 * KIB);
    CHECK_EQ(info(f.fd).allocated, 64 * KIB);
    CHECK_EQ(space_of(&s), before);
    char bytes[4];
    CHECK_EQ(pread(f.fd, bytes, 4, 0), 4);
    CHECK_EQ(memcmp(bytes, "data", 4), 0);
    CHECK_EQ(shc_os_file_reserve(f.fd, size), 0);
    CHECK_EQ(space_of(&s), 0);
    shc_os_close(f.fd);
    scratch_close(&s);
}

TEST(reserve_beyond_a_small_file_system_leaves_nothing_reserved)
{
    check_reserve_beyond_a_small_file_system("size=1m", MIB);
}

/* Somebody else may take the space between the look at it and the reservation. 66 MiB take more than one piece. */
TEST(reserve_that_fails_half_way_gives_back_what_it_had)
{
    if (!fault_deny(SYS_fstatfs, 0, 0, EPERM))
        T_SKIP("no seccomp filters here");
    check_reserve_beyond_a_small_file_system("size=1m", MIB);
    check_reserve_beyond_a_small_file_system("size=66m", 66 * MIB);
}

/* Nothing of it is tried: filling the machine's memory to find out would be no service. */
TEST(reserve_beyond_the_free_space_leaves_nothing_reserved)
{
    scratch_t s = new_scratch();
    uint64_t space = 0;
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_space(f.fd, &space), 0);
    if (space > UINT64_C(1) << 60)
        T_SKIP("the file system has no limit");
    if (!fault_deny(SYS_fallocate, 0, 0, EIO) || !fault_deny(SYS_pwrite64, 0, 0, EIO))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_file_reserve(f.fd, space + MIB), -ENOSPC);
    CHECK_EQ(info(f.fd).size, 0);
    CHECK_EQ(info(f.fd).allocated, 0);
    scratch_close(&s);
}

TEST(reserve_beyond_the_limit_of_the_process_is_told_and_kills_nobody)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    struct rlimit limit = {100000, 100000};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ(shc_os_file_reserve(f.fd, 100001), -EFBIG);
    CHECK_EQ(info(f.fd).size, 0);
    CHECK_EQ(shc_os_file_reserve(f.fd, 100000), 0);
    CHECK_EQ(shc_os_file_reserve(f.fd, 50000), 0);
    scratch_close(&s);
}

TEST(reserve_of_an_absurd_size_is_told)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_reserve(f.fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(shc_os_file_reserve(f.fd, (uint64_t)INT64_MAX + 1), -EFBIG);
    CHECK_EQ(info(f.fd).size, 0);
    scratch_close(&s);
}

TEST(reserve_of_what_is_no_writable_file_is_told)
{
    t_leaves_cleanup_to_exit();
    CHECK_EQ(shc_os_file_reserve(-1, 1), -EBADF);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(shc_os_file_reserve(fd, 1) < 0);
}

TEST(reserve_ends_in_a_storm_of_signals)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    handle_alarm();
    fault_signal_storm(1000);
    int rc = shc_os_file_reserve(f.fd, 96 * MIB + 5);
    fault_signal_storm(0);
    CHECK_EQ(rc, 0);
    CHECK_EQ(info(f.fd).size, 96 * MIB + 5);
    CHECK(info(f.fd).allocated >= 96 * MIB + 5);
    shc_os_close(f.fd);
    scratch_close(&s);
}

#ifndef SHC_OS_POSIX
/* A file system may promise more than the machine has; whoever believes it is killed for want of memory. */
TEST(reserve_beyond_the_memory_of_the_machine_is_not_even_tried)
{
    const uint64_t tib = UINT64_C(1) << 40;
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=1024t"))
        T_SKIP("needs root, to mount a file system");
    new_file_t f = create(&s);
    if (!fault_deny(SYS_fallocate, 0, 0, EIO) || !fault_deny(SYS_pwrite64, 0, 0, EIO))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_file_reserve(f.fd, 1000 * tib), -ENOSPC);
    CHECK_EQ(shc_os_file_reserve(f.fd, MIB), -EIO);
    shc_os_close(f.fd);
    scratch_close(&s);
}

/* As if no piece of 64 MiB could be finished between two signals. */
TEST(reserve_takes_smaller_pieces_when_signals_interrupt_large_ones)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    if (!fault_deny(SYS_fallocate, 3, 64 << 20, EINTR))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_file_reserve(f.fd, 96 * MIB + 5), 0);
    CHECK_EQ(info(f.fd).size, 96 * MIB + 5);
    CHECK(info(f.fd).allocated >= 96 * MIB + 5);
    shc_os_close(f.fd);
    scratch_close(&s);
}

TEST(reserve_writes_where_the_file_system_cannot_reserve)
{
    if (!fault_deny(SYS_fallocate, 0, 0, EOPNOTSUPP))
        T_SKIP("no seccomp filters here");
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(pwrite(f.fd, "data", 4, 0), 4);
    CHECK_EQ(shc_os_file_reserve(f.fd, 100001), 0);
    CHECK_EQ(info(f.fd).size, 100001);
    CHECK(info(f.fd).allocated >= 100001);
    char bytes[4];
    CHECK_EQ(pread(f.fd, bytes, 4, 0), 4);
    CHECK_EQ(memcmp(bytes, "data", 4), 0);
    scratch_close(&s);
    check_reserve_beyond_a_small_file_system("size=1m", MIB);
}
#endif

/* ---- ranges ---- */

TEST(a_size_without_memory_is_a_hole)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_set_size(f.fd, 100 * MIB), 0);
    CHECK_EQ(info(f.fd).size, 100 * MIB);
    CHECK_EQ(info(f.fd).allocated, 0);
    CHECK_EQ(shc_os_file_set_size(f.fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(shc_os_file_set_size(f.fd, 10), 0);
    CHECK_EQ(info(f.fd).size, 10);
    struct rlimit limit = {100000, 100000};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ(shc_os_file_set_size(f.fd, 100001), -EFBIG);
    CHECK_EQ(info(f.fd).size, 10);
    scratch_close(&s);
}

#ifdef SHC_OS_POSIX
TEST(ranges_are_not_this_bodys_business)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_set_size(f.fd, MIB), 0);
    CHECK_EQ(shc_os_file_reserve_range(f.fd, 0, 4096), -EOPNOTSUPP);
    CHECK_EQ(shc_os_file_give_back(f.fd, 0, 4096), -EOPNOTSUPP);
    void *base;
    CHECK_EQ(shc_os_map(f.fd, MIB, &base), 0);
    CHECK_EQ(shc_os_growth_of(f.fd, base), SHC_OS_GROWS_NOT);
    CHECK_EQ(shc_os_map_reserve(base, 0, 4096), -EOPNOTSUPP);
    CHECK_EQ(shc_os_map_give_back(base, 0, 4096), -EOPNOTSUPP);
    shc_os_unmap(base, MIB);
    scratch_close(&s);
}
#else
TEST(a_range_is_reserved_and_given_back_and_the_rest_stays)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    char bytes[4] = "";
    CHECK_EQ(shc_os_file_set_size(f.fd, 10 * MIB), 0);
    CHECK_EQ(pwrite(f.fd, "data", 4, 2 * MIB), 4);
    CHECK_EQ(shc_os_file_reserve_range(f.fd, MIB, 3 * MIB), 0);
    CHECK_EQ(shc_os_file_reserve_range(f.fd, 2 * MIB, MIB), 0); /* again */
    CHECK_EQ(info(f.fd).size, 10 * MIB);
    CHECK_EQ(info(f.fd).allocated, 3 * MIB);
    CHECK_EQ(pread(f.fd, bytes, 4, 2 * MIB), 4);
    CHECK_EQ(memcmp(bytes, "data", 4), 0);
    CHECK_EQ(shc_os_file_give_back(f.fd, MIB, MIB), 0);
    CHECK_EQ(info(f.fd).allocated, 2 * MIB);
    CHECK_EQ(shc_os_file_give_back(f.fd, MIB, 9 * MIB), 0);
    CHECK_EQ(info(f.fd).allocated, 0);
    CHECK_EQ(info(f.fd).size, 10 * MIB);
    CHECK_EQ(pread(f.fd, bytes, 4, 2 * MIB), 4);
    CHECK_EQ(memcmp(bytes, "\0\0\0\0", 4), 0);
    CHECK_EQ(shc_os_file_reserve_range(-1, 0, 4096), -EBADF);
    CHECK_EQ(shc_os_file_give_back(-1, 0, 4096), -EBADF);
    scratch_close(&s);
}

TEST(a_range_that_is_not_to_be_had_is_told)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=1m"))
        T_SKIP("needs root, to mount a file system");
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_set_size(f.fd, 10 * MIB), 0);
    CHECK_EQ(shc_os_file_reserve_range(f.fd, 5 * MIB, 2 * MIB), -ENOSPC);
    CHECK_EQ(info(f.fd).allocated, 0);
    CHECK_EQ(shc_os_file_reserve_range(f.fd, 5 * MIB, MIB / 2), 0);
    shc_os_close(f.fd);
    scratch_close(&s);
}

TEST(ranges_are_told_where_the_system_has_no_such_call)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_set_size(f.fd, MIB), 0);
    if (!fault_deny(SYS_fallocate, 0, 0, ENOSYS))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_file_reserve_range(f.fd, 0, 4096), -EOPNOTSUPP);
    CHECK_EQ(shc_os_file_give_back(f.fd, 0, 4096), -EOPNOTSUPP);
    CHECK_EQ(info(f.fd).allocated, 0);
    scratch_close(&s);
}

/* ---- ranges by way of a mapping ---- */

#define PAGE UINT64_C(4096)

/* 10 MiB, of which the first page has memory. */
typedef struct mapped {
    scratch_t s;
    new_file_t f;
    uint8_t *base;
} mapped_t;

static void
map_file(mapped_t *m)
{
    void *base;
    m->f = create(&m->s);
    CHECK_EQ(shc_os_file_set_size(m->f.fd, 10 * MIB), 0);
    CHECK_EQ(shc_os_file_reserve_range(m->f.fd, 0, PAGE), 0);
    CHECK_EQ(shc_os_map(m->f.fd, 10 * MIB, &base), 0);
    m->base = base;
}

static mapped_t
new_mapped(void)
{
    mapped_t m = {.s = new_scratch()};
    map_file(&m);
    return m;
}

/* On a file system of 1 MiB. */
static bool
new_small_mapped(mapped_t *m)
{
    if (!scratch_open_mounted(&m->s, "size=1m"))
        return false;
    map_file(m);
    return true;
}

static void
close_mapped(mapped_t *m)
{
    shc_os_unmap(m->base, 10 * MIB);
    shc_os_close(m->f.fd);
    scratch_close(&m->s);
}

static uint64_t
allocated(const mapped_t *m)
{
    return info(m->f.fd).allocated;
}

TEST(a_mapped_range_is_reserved_and_given_back_and_the_rest_stays)
{
    mapped_t m = new_mapped();
    CHECK_EQ(shc_os_growth_of(m.f.fd, m.base), SHC_OS_GROWS_BY_MAP);
    CHECK_EQ(pwrite(m.f.fd, "data", 4, 2 * MIB), 4);
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, 8 * MIB), 0);
    CHECK_EQ(shc_os_map_reserve(m.base, 2 * MIB, MIB), 0); /* again */
    CHECK_EQ(shc_os_map_reserve(m.base, 9 * MIB, 0), 0);
    CHECK_EQ(info(m.f.fd).size, 10 * MIB);
    CHECK_EQ(allocated(&m), 8 * MIB + PAGE);
    CHECK_EQ(memcmp(m.base + 2 * MIB, "data", 4), 0);
    CHECK_EQ(shc_os_map_give_back(m.base, MIB, MIB), 0);
    CHECK_EQ(allocated(&m), 7 * MIB + PAGE);
    CHECK_EQ(memcmp(m.base + 2 * MIB, "data", 4), 0);
    CHECK_EQ(shc_os_map_give_back(m.base, 0, 10 * MIB), 0);
    CHECK_EQ(allocated(&m), 0);
    CHECK_EQ(info(m.f.fd).size, 10 * MIB);
    CHECK_EQ(memcmp(m.base + 2 * MIB, "\0\0\0\0", 4), 0);
    close_mapped(&m);
}

TEST(parts_of_pages_are_reserved_as_a_whole_and_cleared_when_given_back)
{
    mapped_t m = new_mapped();
    CHECK_EQ(shc_os_map_reserve(m.base, 3 * PAGE - 1, PAGE + 2), 0); /* pages 2, 3, 4 */
    CHECK_EQ(allocated(&m), 4 * PAGE);
    memset(m.base + 2 * PAGE, 'x', 3 * PAGE);
    CHECK_EQ(shc_os_map_give_back(m.base, 2 * PAGE + 1, PAGE - 2), 0); /* no whole page */
    CHECK_EQ(allocated(&m), 4 * PAGE);
    CHECK_EQ(m.base[2 * PAGE], 'x');
    CHECK_EQ(m.base[2 * PAGE + 1], 0);
    CHECK_EQ(m.base[3 * PAGE - 2], 0);
    CHECK_EQ(m.base[3 * PAGE - 1], 'x');
    CHECK_EQ(shc_os_map_give_back(m.base, 3 * PAGE - 1, PAGE + 2), 0);
    CHECK_EQ(allocated(&m), 3 * PAGE);
    CHECK_EQ(m.base[3 * PAGE - 1], 0);
    CHECK_EQ(m.base[4 * PAGE], 0);
    CHECK_EQ(m.base[4 * PAGE + 1], 'x');
    CHECK_EQ(shc_os_map_reserve(m.base, 10 * MIB - 1, 1), 0);
    close_mapped(&m);
}

TEST(a_mapped_range_that_is_not_to_be_had_is_told_and_kills_nobody)
{
    mapped_t m;
    if (!new_small_mapped(&m))
        T_SKIP("needs root, to mount a file system");
    CHECK_EQ(shc_os_growth_of(m.f.fd, m.base), SHC_OS_GROWS_BY_MAP);
    m.base[0] = 'x';
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, 8 * MIB), -ENOSPC);
    CHECK_EQ(allocated(&m), MIB);
    CHECK_EQ(shc_os_map_give_back(m.base, 9 * MIB + 1, PAGE - 2), 0); /* no memory to clear it, and it reads zero */
    CHECK_EQ(shc_os_map_give_back(m.base, MIB, 8 * MIB), 0);
    CHECK_EQ(allocated(&m), PAGE);
    CHECK_EQ(shc_os_map_reserve(m.base, 5 * MIB, MIB - PAGE), 0);
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, PAGE), -ENOSPC);
    CHECK_EQ(m.base[0], 'x');
    close_mapped(&m);
}

TEST(a_mapped_file_that_was_cut_short_is_told_and_kills_nobody)
{
    mapped_t m = new_mapped();
    CHECK_EQ(shc_os_file_set_size(m.f.fd, PAGE), 0);
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, PAGE), -ENOSPC);
    CHECK_EQ(shc_os_map_give_back(m.base, MIB + 1, PAGE), 0);
    CHECK_EQ(shc_os_file_set_size(m.f.fd, 0), 0);
    CHECK_EQ(shc_os_growth_of(m.f.fd, m.base), SHC_OS_GROWS_BY_FD);
    close_mapped(&m);
}

TEST(more_than_the_memory_of_the_machine_is_not_even_tried_in_a_mapping)
{
    mapped_t m = new_mapped();
    if (!fault_deny(SYS_madvise, 2, MADV_POPULATE_WRITE, EIO))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_map_reserve(m.base, 0, 1000 * MIB * MIB), -ENOSPC);
    CHECK_EQ(shc_os_map_reserve(m.base, 0, MIB), -EIO);
    close_mapped(&m);
}

TEST(a_kernel_without_the_advice_takes_the_descriptor)
{
    mapped_t m = new_mapped();
    if (!fault_no_growth_by_map())
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_growth_of(m.f.fd, m.base), SHC_OS_GROWS_BY_FD);
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, PAGE), -EOPNOTSUPP);
    CHECK_EQ(shc_os_map_give_back(m.base, 0, PAGE), -EOPNOTSUPP);
    CHECK_EQ(allocated(&m), PAGE);
    close_mapped(&m);
}

TEST(a_kernel_that_is_short_of_something_for_ever_is_asked_again_but_not_for_ever)
{
    mapped_t m = new_mapped();
    if (!fault_deny(SYS_madvise, 2, MADV_POPULATE_WRITE, EAGAIN))
        T_SKIP("no seccomp filters here");
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, PAGE), -EAGAIN);
    close_mapped(&m);
}

TEST(a_file_system_that_is_not_in_memory_takes_the_descriptor)
{
    mapped_t m = new_mapped();
    int other = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    CHECK(other >= 0);
    CHECK_EQ(shc_os_growth_of(other, m.base), SHC_OS_GROWS_BY_FD);
    shc_os_close(other);
    close_mapped(&m);
}

TEST(memory_that_the_process_has_locked_is_not_given_back)
{
    mapped_t m = new_mapped();
    CHECK_EQ(shc_os_map_reserve(m.base, MIB, 2 * PAGE), 0);
    m.base[MIB] = 'x';
    if (syscall(SYS_mlock, m.base + MIB, 2 * PAGE) != 0) /* the sanitizers' mlock does nothing */
        T_SKIP("may not lock memory");
    CHECK_EQ(shc_os_map_give_back(m.base, MIB, 2 * PAGE), -EOPNOTSUPP);
    CHECK_EQ(allocated(&m), 3 * PAGE);
    CHECK_EQ(m.base[MIB], 'x');
    CHECK_EQ(syscall(SYS_munlock, m.base + MIB, 2 * PAGE), 0);
    CHECK_EQ(shc_os_map_give_back(m.base, MIB, 2 * PAGE), 0);
    CHECK_EQ(allocated(&m), PAGE);
    close_mapped(&m);
}
#endif

/* ---- open, is, unlink, space ---- */

TEST(open_takes_a_regular_file_read_write)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    publish(&s, &f, "file");
    int fd = -1;
    CHECK_EQ(shc_os_file_open(s.fd, "file", &fd), 0);
    check_close_on_exec(fd);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    CHECK_EQ(info(fd).ino, info(f.fd).ino);
    scratch_close(&s);
}

static void
check_open_refuses(const scratch_t *s, const char *name, int error)
{
    int fd = 77;
    CHECK_EQ(shc_os_file_open(s->fd, name, &fd), error);
    CHECK_EQ(fd, 77);
}

/* A FIFO without a reader would hold up an innocent open for good. */
TEST(open_refuses_everything_else_and_never_blocks)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    publish(&s, &f, "file");
    CHECK_EQ(symlinkat("file", s.fd, "link"), 0);
    CHECK_EQ(symlinkat("nowhere", s.fd, "dangling"), 0);
    CHECK_EQ(mkdirat(s.fd, "directory", 0700), 0);
    CHECK_EQ(mkfifoat(s.fd, "fifo", 0600), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", s.path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    unsigned before = open_descriptors();
    check_open_refuses(&s, "link", -ELOOP);
    check_open_refuses(&s, "dangling", -ELOOP);
    check_open_refuses(&s, "directory", -EINVAL);
    check_open_refuses(&s, "fifo", -EINVAL);
    check_open_refuses(&s, "socket", -EINVAL);
    check_open_refuses(&s, "missing", -ENOENT);
    check_open_refuses(&s, "", -ENOENT);
    CHECK_EQ(open_descriptors(), before);
    scratch_close(&s);
}

TEST(open_of_a_file_that_is_not_ours_to_write_is_refused)
{
    if (geteuid() != 0)
        T_SKIP("needs root, to become somebody else");
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    publish(&s, &f, "file");
    CHECK_EQ(fchmod(s.fd, 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(setresuid(65534, 65534, 65534), 0);
        check_open_refuses(&s, "file", -EACCES);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    scratch_close(&s);
}

TEST(a_name_stops_naming_a_file_that_was_replaced_or_removed)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    publish(&s, &f, "file");
    shc_os_file_info_t i = info(f.fd);
    bool same = false;
    CHECK_EQ(shc_os_file_is(s.fd, "file", i.dev, i.ino, &same), 0);
    CHECK(same);
    CHECK_EQ(shc_os_file_unlink(s.fd, "file"), 0);
    CHECK_EQ(shc_os_file_is(s.fd, "file", i.dev, i.ino, &same), 0);
    CHECK(!same);
    new_file_t other = create(&s);
    publish(&s, &other, "file");
    same = true;
    CHECK_EQ(shc_os_file_is(s.fd, "file", i.dev, i.ino, &same), 0);
    CHECK(!same);
    CHECK_EQ(shc_os_file_is(-1, "file", i.dev, i.ino, &same), -EBADF);
    scratch_close(&s);
}

TEST(unlink_of_a_missing_name_is_told)
{
    scratch_t s = new_scratch();
    CHECK_EQ(shc_os_file_unlink(s.fd, "missing"), -ENOENT);
    scratch_close(&s);
}

TEST(space_shrinks_by_what_is_reserved)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=1m"))
        T_SKIP("needs root, to mount a small file system");
    uint64_t before = 0;
    uint64_t after = 0;
    new_file_t f = create(&s);
    CHECK_EQ(shc_os_file_space(s.fd, &before), 0);
    CHECK_EQ(before, MIB);
    CHECK_EQ(shc_os_file_reserve(f.fd, 64 * KIB), 0);
    CHECK_EQ(shc_os_file_space(f.fd, &after), 0);
    CHECK_EQ(before - after, 64 * KIB);
    shc_os_close(f.fd);
    scratch_close(&s);
}

TEST(space_without_a_limit_is_endless)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=0,nr_inodes=0"))
        T_SKIP("needs root, to mount a file system");
    uint64_t space = 0;
    CHECK_EQ(shc_os_file_space(s.fd, &space), 0);
    CHECK_EQ(space, UINT64_MAX);
    CHECK_EQ(shc_os_file_space(-1, &space), -EBADF);
    scratch_close(&s);
}

/* ---- maps ---- */

TEST(two_maps_of_one_file_show_the_same_bytes)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    void *a = NULL;
    void *b = NULL;
    CHECK_EQ(shc_os_file_reserve(f.fd, 8192), 0);
    CHECK_EQ(shc_os_map(f.fd, 8192, &a), 0);
    CHECK_EQ(shc_os_map(f.fd, 8192, &b), 0);
    CHECK(a != b);
    memcpy((char *)a + 5000, "hello", 5);
    CHECK_EQ(memcmp((char *)b + 5000, "hello", 5), 0);
    shc_os_unmap(a, 8192);
    CHECK_EQ(msync(a, 4096, MS_ASYNC), -1);
    shc_os_unmap(b, 8192);
    scratch_close(&s);
}

TEST(a_map_that_fails_leaves_the_output_alone)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    void *base = &s;
    CHECK_EQ(shc_os_map(f.fd, 0, &base), -EINVAL);
    CHECK_EQ(shc_os_map(-1, 4096, &base), -EBADF);
    CHECK_EQ(shc_os_map(f.fd, UINT64_C(1) << 62, &base), -ENOMEM);
    CHECK(base == &s);
    scratch_close(&s);
}

/* ---- directories ---- */

static int
count_visit(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static void
make_files(const scratch_t *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%s.%u", i % 2 == 0 ? "even" : "odd", i);
        int fd = openat(s->fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        (void)close(fd);
    }
}

TEST(scan_visits_just_the_names_with_the_prefix)
{
    scratch_t s = new_scratch();
    make_files(&s, 101);
    unsigned n = 0;
    CHECK_EQ(shc_os_dir_scan(s.fd, "even.", count_visit, &n), 0);
    CHECK_EQ(n, 51);
    n = 0;
    CHECK_EQ(shc_os_dir_scan(s.fd, "", count_visit, &n), 0);
    CHECK_EQ(n, 101);
    n = 0;
    CHECK_EQ(shc_os_dir_scan(s.fd, "even.100.and.more", count_visit, &n), 0);
    CHECK_EQ(n, 0);
    scratch_close(&s);
}

static int
stop_at_third(void *arg, const char *name)
{
    (void)name;
    return ++*(unsigned *)arg == 3 ? -1234 : 0;
}

TEST(scan_stops_when_the_visitor_says_so_and_starts_afresh_next_time)
{
    scratch_t s = new_scratch();
    make_files(&s, 20);
    for (int i = 0; i < 3; i++) {
        unsigned n = 0;
        CHECK_EQ(shc_os_dir_scan(s.fd, "", stop_at_third, &n), -1234);
        CHECK_EQ(n, 3);
    }
    unsigned n = 0;
    CHECK_EQ(shc_os_dir_scan(s.fd, "", count_visit, &n), 0);
    CHECK_EQ(n, 20);
    scratch_close(&s);
}

typedef struct outer_scan {
    int dir_fd;
    unsigned visited;
} outer_scan_t;

static int
scan_again(void *arg, const char *name)
{
    outer_scan_t *outer = arg;
    unsigned n = 0;
    (void)name;
    CHECK_EQ(shc_os_dir_scan(outer->dir_fd, "", count_visit, &n), 0);
    CHECK_EQ(n, 3000);
    outer->visited++;
    return 0;
}

TEST(scans_of_one_directory_do_not_disturb_each_other)
{
    scratch_t s = new_scratch();
    make_files(&s, 3000); /* more than one read of the directory takes */
    unsigned before = open_descriptors();
    outer_scan_t outer = {s.fd, 0};
    CHECK_EQ(shc_os_dir_scan(s.fd, "odd.10", scan_again, &outer), 0);
    CHECK_EQ(outer.visited, 55); /* 101 to 109, 1001 to 1099 */
    CHECK_EQ(open_descriptors(), before);
    scratch_close(&s);
}

static int
remove_visited(void *arg, const char *name)
{
    scratch_t *s = arg;
    return shc_os_file_unlink(s->fd, name);
}

TEST(scan_may_remove_what_it_visits)
{
    scratch_t s = new_scratch();
    make_files(&s, 500);
    CHECK_EQ(shc_os_dir_scan(s.fd, "", remove_visited, &s), 0);
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}

TEST(scan_for_want_of_descriptors_is_told)
{
    scratch_t s = new_scratch();
    unsigned n = 0;
    rlim_t old = fault_no_descriptors();
    int rc = shc_os_dir_scan(s.fd, "", count_visit, &n);
    fault_allow_descriptors(old);
    CHECK_EQ(rc, -EMFILE);
    scratch_close(&s);
}

TEST(dir_open_takes_directories_only)
{
    scratch_t s = new_scratch();
    new_file_t f = create(&s);
    publish(&s, &f, "file");
    char path[128];
    int fd = -1;
    CHECK_EQ(shc_os_dir_open(s.path, &fd), 0);
    check_close_on_exec(fd);
    shc_os_close(fd);
    fd = 77;
    (void)snprintf(path, sizeof(path), "%s/file", s.path);
    CHECK_EQ(shc_os_dir_open(path, &fd), -ENOTDIR);
    (void)snprintf(path, sizeof(path), "%s/missing", s.path);
    CHECK_EQ(shc_os_dir_open(path, &fd), -ENOENT);
    CHECK_EQ(fd, 77);
    scratch_close(&s);
}

/* ---- signals, descriptors ---- */

static void
one_round(const scratch_t *s)
{
    int dir = -1;
    int fd = -1;
    bool same = false;
    uint64_t space = 0;
    unsigned n = 0;
    void *base = NULL;
    CHECK_EQ(shc_os_dir_open(s->path, &dir), 0);
    new_file_t f = create(s);
    CHECK_EQ(shc_os_file_reserve(f.fd, 64 * KIB), 0);
    publish(s, &f, "file");
    CHECK_EQ(shc_os_file_open(dir, "file", &fd), 0);
    shc_os_file_info_t i = info(fd);
    CHECK_EQ(shc_os_file_is(dir, "file", i.dev, i.ino, &same), 0);
    CHECK_EQ(shc_os_file_look(dir, "file", &i), 0);
    CHECK_EQ(shc_os_file_space(fd, &space), 0);
    CHECK_EQ(shc_os_map(fd, 64 * KIB, &base), 0);
    CHECK_EQ(shc_os_dir_scan(dir, "file", count_visit, &n), 0);
    CHECK(same && n == 1);
    if (shc_os_growth_of(fd, base) == SHC_OS_GROWS_BY_MAP) {
        CHECK_EQ(shc_os_map_give_back(base, 0, 64 * KIB), 0);
        CHECK_EQ(shc_os_map_reserve(base, 0, 64 * KIB), 0);
    }
    shc_os_unmap(base, 64 * KIB);
    CHECK_EQ(shc_os_file_unlink(dir, "file"), 0);
    shc_os_close(fd);
    shc_os_close(f.fd);
    shc_os_close(dir);
}

TEST(no_call_fails_in_a_storm_of_signals_and_none_leaks_a_descriptor)
{
    scratch_t s = new_scratch();
    unsigned before = open_descriptors();
    handle_alarm();
    fault_signal_storm(50);
    for (int i = 0; i < 1000; i++)
        one_round(&s);
    fault_signal_storm(0);
    CHECK_EQ(open_descriptors(), before);
    scratch_close(&s);
}
