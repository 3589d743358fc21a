/* Atomic words in shared memory: the only user of <stdatomic.h>.
 *
 * The memory order is part of each operation's name; there is no order argument anywhere else. A shared word is a one-
 * member struct, so that it cannot be read or written except through here. Every use of an acquire or release operation
 * in the core carries a label in a comment on its line (`A1`, `R1`: DPDK's convention) and the header of its module has
 * the table that pairs them; tests/test_house.py refuses an unlabelled one.
 *
 * A 64-bit word must be lock-free: a lock table would be private to a process and silently wrong in shared memory.
 *
 * Test builds (-DSHC_HOOK) call shc_hook(where, word) before each access: the interleaving explorer switches threads
 * there. In all other builds the hook is nothing.
 *
 * ThreadSanitizer does not model fences. Ours order a store before a later load (Dekker's pattern of the event
 * count) and never carry the payload's happens-before, so its verdict does not rest on them; under TSan the fence is
 * a read-modify- write, which keeps gcc from warning and the machine's order as strong. */
#ifndef SHC_ATOMIC_H
#define SHC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/shc_base.h"

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "32 and 64 bit atomics must be lock-free");

typedef struct shc_a8 {
    _Atomic uint8_t v;
} shc_a8_t;

typedef struct shc_a32 {
    _Atomic uint32_t v;
} shc_a32_t;

typedef struct shc_a64 {
    _Atomic uint64_t v;
} shc_a64_t;

_Static_assert(sizeof(shc_a8_t) == 1 && sizeof(shc_a32_t) == 4 && sizeof(shc_a64_t) == 8,
               "an atomic word has no hidden lock");

#ifdef SHC_HOOK
/* Defined by the test program. */
void shc_hook(const char *where, const volatile void *word);
#define SHC_HOOK_POINT(word) shc_hook(__func__, (word))
#else
#define SHC_HOOK_POINT(word) ((void)0)
#endif

#define SHC_ATOMIC_OPS(W)                                                                                              \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_load_relaxed(const shc_a##W##_t *a)                                \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_load_explicit(&((shc_a##W##_t *)(uintptr_t)a)->v, memory_order_relaxed);                         \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_load_acquire(const shc_a##W##_t *a)                                \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_load_explicit(&((shc_a##W##_t *)(uintptr_t)a)->v, memory_order_acquire);                         \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_load_seq_cst(const shc_a##W##_t *a)                                \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_load_explicit(&((shc_a##W##_t *)(uintptr_t)a)->v, memory_order_seq_cst);                         \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE void shc_a##W##_store_relaxed(shc_a##W##_t *a, uint##W##_t x)                             \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        atomic_store_explicit(&a->v, x, memory_order_relaxed);                                                         \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE void shc_a##W##_store_release(shc_a##W##_t *a, uint##W##_t x)                             \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        atomic_store_explicit(&a->v, x, memory_order_release);                                                         \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_exchange_seq_cst(shc_a##W##_t *a, uint##W##_t x)                   \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_exchange_explicit(&a->v, x, memory_order_seq_cst);                                               \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_exchange_release(shc_a##W##_t *a, uint##W##_t x)                   \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_exchange_explicit(&a->v, x, memory_order_release);                                               \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_fetch_or_seq_cst(shc_a##W##_t *a, uint##W##_t x)                   \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_fetch_or_explicit(&a->v, x, memory_order_seq_cst);                                               \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_fetch_add_relaxed(shc_a##W##_t *a, uint##W##_t x)                  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_fetch_add_explicit(&a->v, x, memory_order_relaxed);                                              \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_fetch_add_release(shc_a##W##_t *a, uint##W##_t x)                  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_fetch_add_explicit(&a->v, x, memory_order_release);                                              \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE uint##W##_t shc_a##W##_fetch_add_seq_cst(shc_a##W##_t *a, uint##W##_t x)                  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_fetch_add_explicit(&a->v, x, memory_order_seq_cst);                                              \
    }                                                                                                                  \
    /* Strong: false only when *a differed; *expected then holds what was found. */                                    \
    static SHC_ALWAYS_INLINE bool shc_a##W##_cas_seq_cst(shc_a##W##_t *a, uint##W##_t *expected, uint##W##_t desired)  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_compare_exchange_strong_explicit(&a->v, expected, desired, memory_order_seq_cst,                 \
                                                       memory_order_seq_cst);                                          \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE bool shc_a##W##_cas_acquire(shc_a##W##_t *a, uint##W##_t *expected, uint##W##_t desired)  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_compare_exchange_strong_explicit(&a->v, expected, desired, memory_order_acquire,                 \
                                                       memory_order_relaxed);                                          \
    }                                                                                                                  \
    static SHC_ALWAYS_INLINE bool shc_a##W##_cas_relaxed(shc_a##W##_t *a, uint##W##_t *expected, uint##W##_t desired)  \
    {                                                                                                                  \
        SHC_HOOK_POINT(a);                                                                                             \
        return atomic_compare_exchange_strong_explicit(&a->v, expected, desired, memory_order_relaxed,                 \
                                                       memory_order_relaxed);                                          \
    }

/* Bytes are for hints that are only loaded and stored. */
static SHC_ALWAYS_INLINE uint8_t
shc_a8_load_relaxed(const shc_a8_t *a)
{
    SHC_HOOK_POINT(a);
    return atomic_load_explicit(&((shc_a8_t *)(uintptr_t)a)->v, memory_order_relaxed);
}

static SHC_ALWAYS_INLINE void
shc_a8_store_relaxed(shc_a8_t *a, uint8_t x)
{
    SHC_HOOK_POINT(a);
    atomic_store_explicit(&a->v, x, memory_order_relaxed);
}

SHC_ATOMIC_OPS(32)
SHC_ATOMIC_OPS(64)

/* Orders every earlier store before every later load, of this thread, in the single order of all such fences. */
static SHC_ALWAYS_INLINE void
shc_fence_seq_cst(void)
{
#if SHC_TSAN
    shc_a32_t word;
    atomic_init(&word.v, 0);
    (void)atomic_fetch_add_explicit(&word.v, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Copies bytes that another process may be rewriting. The result may be torn, never undefined: whoever calls this
 * validates the private copy. memcpy in ordinary builds, relaxed byte loads under TSan. */
static inline void
shc_racy_copy(void *dst, const void *src, size_t n)
{
#if SHC_TSAN
    const _Atomic uint8_t *from = (const _Atomic uint8_t *)src;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = atomic_load_explicit(&((_Atomic uint8_t *)(uintptr_t)from)[i], memory_order_relaxed);
#else
    memcpy(dst, src, n);
#endif
}

/* One number at any address that another process may be rewriting, read once: what a check saw is what is used
 * afterwards. The compiler cannot know where the value came from, so it cannot fetch it again. */
#define SHC_RACY_LOAD(W)                                                                                               \
    static SHC_ALWAYS_INLINE uint##W##_t shc_racy_u##W(const void *src)                                                \
    {                                                                                                                  \
        uint##W##_t x;                                                                                                 \
        shc_racy_copy(&x, src, sizeof(x));                                                                             \
        __asm__("" : "+r"(x));                                                                                         \
        return x;                                                                                                      \
    }

SHC_RACY_LOAD(8)
SHC_RACY_LOAD(32)
SHC_RACY_LOAD(64)

/* A hint to the core that this is a spin loop. 1 to 140 cycles: bound spins by the clock, never by a count. */
static SHC_ALWAYS_INLINE void
shc_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

#endif
