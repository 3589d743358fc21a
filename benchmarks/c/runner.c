#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];
static int folder_fd;
static shc_self_t self;
static pid_t owner; /* only this process removes the folder */
static const char *const file_names[BENCH_SEGMENTS] = {"shmcomm.first", "shmcomm.second"};
static shc_seg_t *segments[BENCH_SEGMENTS];

static bool
make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "%s/shmcomm-bench.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    owner = getpid();
    if (mkdtemp(folder) == NULL)
        return false;
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder_fd >= 0;
}

static void
remove_folder(void)
{
    if (getpid() != owner)
        return;
    for (unsigned i = 0; i < BENCH_SEGMENTS; i++)
        (void)unlinkat(folder_fd, file_names[i], 0);
    (void)close(folder_fd);
    (void)rmdir(folder);
}

_Noreturn void
bench_fail(const char *what, long status)
{
    (void)fprintf(stderr, "benchmark failed: %s (%ld)\n", what, status);
    remove_folder();
    _exit(1);
}

/* ---- segments and processes ---- */

static unsigned
place_of(const shc_seg_t *seg)
{
    unsigned i = 0;
    while (i < BENCH_SEGMENTS && segments[i] != seg)
        i++;
    BENCH_CHECK(i < BENCH_SEGMENTS);
    return i;
}

void
bench_create(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, void (*init)(shc_seg_t *), shc_seg_t *seg)
{
    unsigned i = place_of(NULL);
    BENCH_OK(shc_seg_create(folder_fd, file_names[i], &self, spec, args, init, seg));
    segments[i] = seg;
}

void
bench_close(shc_seg_t *seg)
{
    unsigned i = place_of(seg);
    shc_seg_leave(seg, folder_fd, file_names[i]);
    shc_seg_unmap(seg);
    segments[i] = NULL;
}

static void
child(void (*body)(void *), void *arg)
{
    BENCH_OK(shc_self_refresh(&self));
    for (unsigned i = 0; i < BENCH_SEGMENTS; i++)
        if (segments[i] != NULL)
            BENCH_OK(shc_seg_rejoin(segments[i]));
    body(arg);
    for (unsigned i = 0; i < BENCH_SEGMENTS; i++)
        if (segments[i] != NULL)
            shc_seg_leave(segments[i], folder_fd, file_names[i]);
    _exit(0);
}

void
bench_two(void (*other)(void *), void (*here)(void *), void *arg)
{
    int status;
    pid_t pid = fork();
    BENCH_CHECK(pid >= 0);
    if (pid == 0)
        child(other, arg);
    here(arg);
    BENCH_CHECK(waitpid(pid, &status, 0) == pid);
    BENCH_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- numbers ---- */

static int
ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double
bench_median(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), ascending);
    return values[count / 2];
}

void
bench_print(const char *name, double value, const char *unit)
{
    (void)printf("%-32s %12.1f %s\n", name, value, unit);
}

static void
measure(const bench_op_t *op)
{
    double ns[BENCH_ROUNDS];
    op->run(op->rounds_n / 10 + 1);
    for (unsigned i = 0; i < BENCH_ROUNDS; i++) {
        uint64_t start = shc_os_now_ns();
        op->run(op->rounds_n);
        ns[i] = (double)(shc_os_now_ns() - start) / (double)op->rounds_n;
    }
    bench_print(op->name, bench_median(ns, BENCH_ROUNDS), "ns/op");
}

/* ---- the command line ---- */

static const bench_op_t *
op_named(const char *name)
{
    for (const bench_op_t *op = bench_ops; op->name != NULL; op++)
        if (strcmp(op->name, name) == 0)
            return op;
    return NULL;
}

static int
usage(const char *program)
{
    (void)fprintf(stderr, "usage: %s [--ops | --count OP N]\n", program);
    return 2;
}

static void
run_all(void)
{
    for (const bench_op_t *op = bench_ops; op->name != NULL; op++)
        measure(op);
    (void)fflush(stdout); /* or a child would print it again */
}

int
main(int argc, char **argv)
{
    const bench_op_t *op = argc == 4 && strcmp(argv[1], "--count") == 0 ? op_named(argv[2]) : NULL;
    if (argc == 2 && strcmp(argv[1], "--ops") == 0) {
        for (op = bench_ops; op->name != NULL; op++)
            (void)puts(op->name);
        return 0;
    }
    if (argc != 1 && op == NULL)
        return usage(argv[0]);
    if (!make_folder()) {
        perror(folder);
        return 1;
    }
    BENCH_OK(shc_self_init(&self));
    bench_set_up();
    if (op != NULL)
        op->run(strtoull(argv[3], NULL, 10));
    else
        run_all();
    bench_tear_down();
    if (op == NULL)
        bench_pair();
    remove_folder();
    return 0;
}
