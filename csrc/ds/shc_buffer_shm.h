/* A plain buffer in shared memory: a head, then the user's bytes.
 *
 *     0      magic, version, size      written once
 *     16     flags, user, checksum     whoever sets them
 *     64     used                      high-water mark of writes
 *     128    data                      `size` bytes, 64-byte aligned */
#ifndef SHC_BUFFER_SHM_H
#define SHC_BUFFER_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

#define SHC_BUFFER_MAGIC UINT32_C(0x42434853) /* "SHCB", little-endian */
#define SHC_BUFFER_VERSION 1u

typedef struct shc_buffer_shm {
    shc_a32_t magic;
    shc_a32_t version;
    shc_a64_t size;
    shc_a32_t flags;
    shc_a32_t checksum;
    shc_a64_t user;
    uint8_t pad0[32];
    shc_a64_t used;
    uint8_t pad1[56];
} shc_buffer_shm_t;

#define SHC_BUFFER_LAYOUT(ROW, T)                                                                                      \
    ROW(T, magic, 0, 4, "creator", "\"SHCB\"")                                                                         \
    ROW(T, version, 4, 4, "creator", "1")                                                                              \
    ROW(T, size, 8, 8, "creator", "bytes of data")                                                                     \
    ROW(T, flags, 16, 4, "anybody", "the user's")                                                                      \
    ROW(T, checksum, 20, 4, "anybody", "CRC-32C of all data when it was last asked for")                               \
    ROW(T, user, 24, 8, "anybody", "the user's")                                                                       \
    ROW(T, pad0, 32, 32, "nobody", "zero")                                                                             \
    ROW(T, used, 64, 8, "writers", "highest end of any write since the last clear; hint, at most size")                \
    ROW(T, pad1, 72, 56, "nobody", "zero")

SHC_BUFFER_LAYOUT(SHC_LAYOUT_ASSERT, shc_buffer_shm_t)
_Static_assert(sizeof(shc_buffer_shm_t) == 128, "data is 64-byte aligned");

enum {
    SHC_BUFFER_CONFIG_SIZE = 0,
    SHC_BUFFER_CONFIG_CHECKSUM = 1, /* the creator asked for checksums */
};

#define SHC_BUFFER_SIZE_MAX (UINT64_C(1) << 46)

#endif
