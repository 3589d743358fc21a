/* A pool of memory in shared memory.
 *
 *     0       head      two figures
 *     128     shelf     32 bytes for each place where a buffer can lie that was given back: none in a plain pool
 *     arena   at the next multiple of its page size: seg/shc_arena_shm.h
 *
 * Always true: a place is EMPTY with ref and size 0, or in the hands of the participant stamped in its word, or FULL,
 * and then its ref leads to an ATTACHED block of at least `size` bytes. No block is named by two places that are
 * FULL. */
#ifndef SHC_POOL_SHM_H
#define SHC_POOL_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

typedef struct shc_pool_shm {
    shc_a64_t placed;
    shc_a64_t given_back;
    uint8_t pad0[112];
} shc_pool_shm_t;

#define SHC_POOL_LAYOUT(ROW, T)                                                                                        \
    ROW(T, placed, 0, 8, "anybody", "hint: times that a place became FULL")                                            \
    ROW(T, given_back, 8, 8, "anybody", "bytes that went back to the system since creation; hint")                     \
    ROW(T, pad0, 16, 112, "nobody", "zero")

SHC_POOL_LAYOUT(SHC_LAYOUT_ASSERT, shc_pool_shm_t)
_Static_assert(sizeof(shc_pool_shm_t) == 128, "the shelf follows the head");

typedef struct shc_pool_place_shm {
    shc_a64_t word;
    shc_a64_t ref;
    shc_a64_t size;
    uint64_t spare;
} shc_pool_place_shm_t;

#define SHC_POOL_PLACE_LAYOUT(ROW, T)                                                                                  \
    ROW(T, word, 0, 8, "anybody", "state 2 at bit 62 | owner: index + 1 12, generation 32; 0 EMPTY")                   \
    ROW(T, ref, 8, 8, "who is stamped in word", "the buffer's block, 0 if EMPTY")                                      \
    ROW(T, size, 16, 8, "who is stamped in word", "bytes that were asked for")                                         \
    ROW(T, spare, 24, 8, "nobody", "zero")

SHC_POOL_PLACE_LAYOUT(SHC_LAYOUT_ASSERT, shc_pool_place_shm_t)
_Static_assert(sizeof(shc_pool_place_shm_t) == 32, "two places to a line");

/* States of a place. */
#define SHC_POOL_EMPTY UINT64_C(0)
#define SHC_POOL_PLACING (UINT64_C(1) << 62) /* the owner is laying a buffer there */
#define SHC_POOL_FULL (UINT64_C(2) << 62)
#define SHC_POOL_TAKING (UINT64_C(3) << 62) /* the owner is taking it away */
#define SHC_POOL_OWNER_MASK ((UINT64_C(1) << 44) - 1)

/* Config words of the segment. */
enum {
    SHC_POOL_CONFIG_ARENA = 0,    /* two words; seg/shc_arena.h */
    SHC_POOL_CONFIG_INTERVAL = 2, /* ns between two looks for memory that is idle; 0: nobody looks */
    SHC_POOL_CONFIG_PLACES = 3,   /* of the shelf */
};

#define SHC_POOL_PAGE_SHIFT 16u
#define SHC_POOL_RECORDS 16384u /* blocks shared with others that one process may hold */
#define SHC_POOL_PLACES_MAX UINT64_C(1000000)
#define SHC_POOL_GROWTH_MAX 65535u /* percent */
#define SHC_POOL_BYTES_MAX (UINT64_C(1) << 39)

#endif
