#include "base/shc_crc32c.h"

#if defined(SHC_CRC32C_X86)
#include <nmmintrin.h>
#elif defined(SHC_CRC32C_ARM)
#include <arm_acle.h>
#endif

/* Slicing by 8: TABLE[k][b] is the remainder of byte b followed by k zero bytes. A remainder is linear over GF(2),
 * so an entry is the exclusive or of those of b's single bits, and that of bit i with k zero bytes behind it is the
 * (reflected) polynomial 0x82f63b78 after 8 * k + 7 - i steps of
 *
 *     x -> (x >> 1) ^ (x & 1 ? 0x82f63b78 : 0)
 *
 * Each row below gives these eight remainders, bit 7 first; the compiler makes the rest. test_crc32c.c checks the
 * bytes of the portable form against a bit-by-bit division. */
#define ENTRY(b, p7, p6, p5, p4, p3, p2, p1, p0)                                                                       \
    (((b)&128 ? UINT32_C(p7) : 0) ^ ((b)&64 ? UINT32_C(p6) : 0) ^ ((b)&32 ? UINT32_C(p5) : 0) ^                        \
     ((b)&16 ? UINT32_C(p4) : 0) ^ ((b)&8 ? UINT32_C(p3) : 0) ^ ((b)&4 ? UINT32_C(p2) : 0) ^                           \
     ((b)&2 ? UINT32_C(p1) : 0) ^ ((b)&1 ? UINT32_C(p0) : 0))
#define ENTRIES_4(b, ...)                                                                                              \
    ENTRY(b, __VA_ARGS__), ENTRY((b) + 1, __VA_ARGS__), ENTRY((b) + 2, __VA_ARGS__), ENTRY((b) + 3, __VA_ARGS__)
#define ENTRIES_16(b, ...)                                                                                             \
    ENTRIES_4(b, __VA_ARGS__), ENTRIES_4((b) + 4, __VA_ARGS__), ENTRIES_4((b) + 8, __VA_ARGS__),                       \
        ENTRIES_4((b) + 12, __VA_ARGS__)
#define ENTRIES_64(b, ...)                                                                                             \
    ENTRIES_16(b, __VA_ARGS__), ENTRIES_16((b) + 16, __VA_ARGS__), ENTRIES_16((b) + 32, __VA_ARGS__),                  \
        ENTRIES_16((b) + 48, __VA_ARGS__)
#define ROW(...)                                                                                                       \
    {                                                                                                                  \
        ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),                         \
            ENTRIES_64(192, __VA_ARGS__)                                                                               \
    }

static const uint32_t TABLE[8][256] = {
    ROW(0x82f63b78, 0x417b1dbc, 0x20bd8ede, 0x105ec76f, 0x8ad958cf, 0xc79a971f, 0xe13b70f7, 0xf26b8303),
    ROW(0xfbc3faf9, 0xff17c604, 0x7f8be302, 0x3fc5f181, 0x9d14c3b8, 0x4e8a61dc, 0x274530ee, 0x13a29877),
    ROW(0x8b277743, 0xc76580d9, 0xe144fb14, 0x70a27d8a, 0x38513ec5, 0x9edea41a, 0x4f6f520d, 0xa541927e),
    ROW(0x52a0c93f, 0xaba65fe7, 0xd725148b, 0xe964b13d, 0xf64463e6, 0x7b2231f3, 0xbf672381, 0xdd45aab8),
    ROW(0x6ea2d55c, 0x37516aae, 0x1ba8b557, 0x8f2261d3, 0xc5670b91, 0xe045beb0, 0x7022df58, 0x38116fac),
    ROW(0x1c08b7d6, 0x0e045beb, 0x85f4168d, 0xc00c303e, 0x6006181f, 0xb2f53777, 0xdb8ca0c3, 0xef306b19),
    ROW(0xf56e0ef4, 0x7ab7077a, 0x3d5b83bd, 0x9c5bfaa6, 0x4e2dfd53, 0xa5e0c5d1, 0xd0065990, 0x68032cc8),
    ROW(0x34019664, 0x1a00cb32, 0x0d006599, 0x847609b4, 0x423b04da, 0x211d826d, 0x9278fa4e, 0x493c7d27),
};

/* The first byte is the lowest, whatever the machine's order. Written out, both compilers make one load of it. */
static uint64_t
load_le64(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

static uint32_t
slice_8(uint64_t x)
{
    return TABLE[7][x & 0xff] ^ TABLE[6][(x >> 8) & 0xff] ^ TABLE[5][(x >> 16) & 0xff] ^ TABLE[4][(x >> 24) & 0xff] ^
           TABLE[3][(x >> 32) & 0xff] ^ TABLE[2][(x >> 40) & 0xff] ^ TABLE[1][(x >> 48) & 0xff] ^ TABLE[0][x >> 56];
}

uint32_t
shc_crc32c_portable(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t c = ~crc;
    for (; n >= 8; p += 8, n -= 8)
        c = slice_8(load_le64(p) ^ c);
    for (; n > 0; p++, n--)
        c = (c >> 8) ^ TABLE[0][(c ^ *p) & 0xff];
    return ~c;
}

#if defined(SHC_CRC32C_X86)

SHC_TARGET("sse4.2")
static uint32_t
crc_hardware(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t c = ~crc;
    for (; n >= 8; p += 8, n -= 8)
        c = _mm_crc32_u64(c, load_le64(p));
    for (; n > 0; p++, n--)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return ~(uint32_t)c;
}

uint32_t
shc_crc32c(uint32_t crc, const void *data, size_t n)
{
    return SHC_CPU_HAS("sse4.2") ? crc_hardware(crc, data, n) : shc_crc32c_portable(crc, data, n);
}

#elif defined(SHC_CRC32C_ARM)

uint32_t
shc_crc32c(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t c = ~crc;
    for (; n >= 8; p += 8, n -= 8)
        c = __crc32cd(c, load_le64(p));
    for (; n > 0; p++, n--)
        c = __crc32cb(c, *p);
    return ~c;
}

#else

uint32_t
shc_crc32c(uint32_t crc, const void *data, size_t n)
{
    return shc_crc32c_portable(crc, data, n);
}

#endif
