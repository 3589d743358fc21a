/* Integer helpers. Sizes that come from outside pass through the checked forms before they are used. */
#ifndef SHC_MATH_H
#define SHC_MATH_H

#include <stdbool.h>

#include "base/shc_base.h"

static inline bool
shc_is_pow2(uint64_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

/* Smallest power of two >= x; 0 when x > 2^63. */
static inline uint64_t
shc_ceil_pow2(uint64_t x)
{
    uint64_t p = 1;
    while (p < x && p != 0)
        p <<= 1;
    return p;
}

/* `align` is a power of two; the caller knows that x + align does not wrap. */
static inline uint64_t
shc_align_up(uint64_t x, uint64_t align)
{
    return (x + align - 1) & ~(align - 1);
}

static inline uint64_t
shc_align_down(uint64_t x, uint64_t align)
{
    return x & ~(align - 1);
}

/* Of x != 0: the position of its highest and of its lowest bit. */
static inline unsigned
shc_floor_log2(uint64_t x)
{
    return 63u - (unsigned)__builtin_clzll(x);
}

static inline unsigned
shc_lowest_bit(uint64_t x)
{
    return (unsigned)__builtin_ctzll(x);
}

/* *out = a + b; false on wrap. */
static inline bool
shc_add_checked(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool
shc_mul_checked(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

#endif
