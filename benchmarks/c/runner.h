/* What the C benchmarks share: a table of operations, a segment to work on, two processes, and main().
 *
 *     PROGRAM                  nanoseconds per operation, the median of several rounds, then whatever bench_pair
 *                              measures
 *     PROGRAM --ops            names of the operations, one a line
 *     PROGRAM --count OP N     does OP exactly N times and nothing else that depends on N: for counting instructions
 *
 * An operation that loses, reorders or damages a message ends the program with status 1. */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdint.h>

#include "seg/shc_seg.h"

typedef struct bench_op {
    const char *name;
    void (*run)(uint64_t n);
    uint64_t rounds_n; /* operations in one timed round */
} bench_op_t;

/* Given by each program. */
extern const bench_op_t bench_ops[]; /* ends with a row of zeros */
void bench_set_up(void);
void bench_tear_down(void);
void bench_pair(void); /* two processes; not part of --count */

/* Ends the program, saying why. */
_Noreturn void bench_fail(const char *what, long status);

/* The status of a core function that must be 0. */
#define BENCH_OK(call) bench_ok(#call, (call))
#define BENCH_CHECK(cond) ((cond) ? (void)0 : bench_fail(#cond, 0))

static inline void
bench_ok(const char *what, int status)
{
    if (status != 0)
        bench_fail(what, status);
}

/* Segments in a folder of the program's own, which goes with it; at most BENCH_SEGMENTS are open at once. */
#define BENCH_SEGMENTS 2
void bench_create(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, void (*init)(shc_seg_t *),
                  shc_seg_t *seg);
void bench_close(shc_seg_t *seg);

/* Runs `other` in a child, in all open segments a participant of its own, while `here` runs. Ends the program unless
 * both return. */
void bench_two(void (*other)(void *), void (*here)(void *), void *arg);

/* Medians, printed as "name  value unit". */
#define BENCH_ROUNDS 7
double bench_median(double *values, unsigned count);
void bench_print(const char *name, double value, const char *unit);

#endif
