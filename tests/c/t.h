/* The harness of the C tests.
 *
 *     #include "t.h"
 *
 *     TEST(push_to_a_full_ring_says_so)
 *     {
 *         CHECK_EQ(shc_ring_push(&ring, ...), SHC_FULL);
 *     }
 *
 * Each TEST runs in a process of its own, under a watchdog, and fails if it leaves a descriptor, a thread, a process
 * or a file behind. A program made of such tests takes --list, --run NAME, or nothing (all of them); it exits with
 * 0, 1, or 77 when everything was skipped. tests/test_c.py finds tests by the text `TEST(` at the start of a line:
 * no other macro may make one; T_SKIP what cannot run.
 *
 * CHECK* are never compiled out, evaluate their operands once, print both, and end the process with status 1; they
 * work in threads and in forked children, too (the parent sees the status).
 *
 * Environment: SHC_TEST_TIMEOUT_SCALE (factor for the watchdog), SHC_TEST_SCALE (factor for t_scaled),
 * SHC_TEST_SEED. */
#ifndef SHC_T_H
#define SHC_T_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T_DEFAULT_LIMIT_S 20

typedef struct t_test {
    const char *name;
    void (*body)(void);
    unsigned limit_s;
    struct t_test *next;
} t_test_t;

void t_register(t_test_t *test);

#define TEST(name) T_DEFINE(name, T_DEFAULT_LIMIT_S)

/* For tests that may take longer than 20 s before the watchdog ends them. */
#define TEST_LIMIT(name, seconds) T_DEFINE(name, seconds)

#define T_DEFINE(name, seconds)                                                                                        \
    static void test_##name(void);                                                                                     \
    __attribute__((constructor)) static void register_##name(void)                                                     \
    {                                                                                                                  \
        static t_test_t test = {#name, test_##name, (seconds), NULL};                                                  \
        t_register(&test);                                                                                             \
    }                                                                                                                  \
    static void test_##name(void)

/* ---- checks ---- */

#define CHECK(cond) ((cond) ? (void)0 : t_fail(__FILE__, __LINE__, "%s", "CHECK(" #cond ")"))

#define CHECK_EQ(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_EQ)
#define CHECK_NE(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_NE)
#define CHECK_LT(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_LT)
#define CHECK_LE(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_LE)
#define CHECK_GT(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_GT)
#define CHECK_GE(a, b) t_compare(__FILE__, __LINE__, #a, #b, T_NUMBER(a), T_NUMBER(b), T_GE)

/* A status of the core that must be 0; prints what it means otherwise. */
#define CHECK_OK(call) t_check_ok(__FILE__, __LINE__, #call, (call))

/* Two C strings; NULL equals only NULL. */
#define CHECK_STR(a, b) t_check_str(__FILE__, __LINE__, #a, #b, (a), (b))

#define CHECK_MEM(a, b, n) t_check_mem(__FILE__, __LINE__, #a, #b, (a), (b), (n))

/* Ends the test as skipped. */
#define T_SKIP(reason) t_skip(reason)

/* ---- what tests share ---- */

/* A fresh folder on the shared-memory file system for this test, as path and as descriptor. It must be empty again when
 * the test ends; the harness removes it. */
const char *t_dir(void);
int t_dir_fd(void);

/* Iterations for a loop that takes n in a plain build: fewer under sanitizers, times SHC_TEST_SCALE; at least 1. */
uint64_t t_scaled(uint64_t n);

/* The run's seed: SHC_TEST_SEED, or a new one, which is printed. */
uint64_t t_seed(void);

/* The next number of a generator whose state is *state (splitmix64). */
static inline uint64_t
t_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* For a test that takes away what the leak checker needs, such as /proc. */
void t_no_leak_check(void);

/* For a test that leaves descriptors or threads to the end of its process on purpose. */
void t_leaves_cleanup_to_exit(void);

/* Waits for a child and returns its exit status, or 128 + the signal that ended it. */
int t_wait(int pid);

/* ---- behind the macros ---- */

typedef enum t_op {
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
} t_op_t;

typedef struct t_number {
    bool negative;
    uint64_t bits; /* two's complement when negative */
} t_number_t;

static inline t_number_t
t_signed(long long x)
{
    return (t_number_t){x < 0, (uint64_t)x};
}

static inline t_number_t
t_unsigned(unsigned long long x)
{
    return (t_number_t){false, x};
}

static inline t_number_t
t_pointer(const volatile void *x)
{
    return (t_number_t){false, (uint64_t)(uintptr_t)x};
}

/* Numbers compare by value, whatever their types: -1 is not UINT64_MAX. */
#define T_NUMBER(x)                                                                                                    \
    _Generic((x), bool                                                                                                 \
             : t_unsigned, char                                                                                        \
             : t_signed, signed char                                                                                   \
             : t_signed, short                                                                                         \
             : t_signed, int                                                                                           \
             : t_signed, long                                                                                          \
             : t_signed, long long                                                                                     \
             : t_signed, unsigned char                                                                                 \
             : t_unsigned, unsigned short                                                                              \
             : t_unsigned, unsigned                                                                                    \
             : t_unsigned, unsigned long                                                                               \
             : t_unsigned, unsigned long long                                                                          \
             : t_unsigned, default                                                                                     \
             : t_pointer)(x)

void t_compare(const char *file, int line, const char *a_text, const char *b_text, t_number_t a, t_number_t b,
               t_op_t op);
_Noreturn void t_fail_status(const char *file, int line, const char *text, int status);
void t_check_str(const char *file, int line, const char *a_text, const char *b_text, const char *a, const char *b);
void t_check_mem(const char *file, int line, const char *a_text, const char *b_text, const void *a, const void *b,
                 size_t n);
_Noreturn void t_skip(const char *reason);
_Noreturn __attribute__((format(printf, 3, 4))) void t_fail(const char *file, int line, const char *format, ...);

/* Seen by the compiler, which then knows that out parameters are set behind it. */
static inline void
t_check_ok(const char *file, int line, const char *text, int status)
{
    if (status != 0)
        t_fail_status(file, line, text, status);
}

#endif
