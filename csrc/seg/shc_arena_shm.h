/* The allocator's part of a segment.
 *
 *     head         frontier, hints
 *     parties      64 bytes per participant slot
 *     maps         192 bytes per 512 pages
 *     page words   8 bytes per page, as far as the frontier
 *     records      what each participant holds of blocks that several hold; each participant's own, backed when used
 *     data         the pages
 *
 * A page word is {page's part 32 | block's part 32}:
 *
 *     bits 0-2     kind: UNBACKED, MOVING, SLAB, RUN
 *     bits 8-31    length in pages (MOVING, RUN), size class (SLAB)
 *     bits 32-34   state, bits 35-46 owner (participant index + 1, 0 nobody), bits 47-63 generation
 *
 * The upper half has the form of the state word that each small block has in its slab. A word of zero is a page that
 * has never had memory.
 *
 * A slab page: hint bits (u64, set: probably free), state words (u32), then from a multiple of 64 on the blocks.
 *
 * Always true: word i may be looked at for i < frontier <= pages. A page whose word is UNBACKED, SLAB, or a RUN that is
 * FREE is not covered by a run before it. The generation in a page's word never falls, whatever else the word says. */
#ifndef SHC_ARENA_SHM_H
#define SHC_ARENA_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

#define SHC_ARENA_CLASSES 39u
#define SHC_ARENA_SMALL_MAX 28672u /* two in a page of 64 KiB, beside their words */
#define SHC_ARENA_BUCKETS 24u
#define SHC_ARENA_GROUP_PAGES 8u /* whose words fill a line */
#define SHC_ARENA_MAP_PAGES (64u * SHC_ARENA_GROUP_PAGES)
#define SHC_ARENA_UNIT 16u
#define SHC_ARENA_PAGE_SHIFT_MIN 12u
#define SHC_ARENA_PAGE_SHIFT_MAX 16u
#define SHC_ARENA_PAGES_MAX UINT32_C(0xfffffe)
#define SHC_ARENA_END_MAX (UINT64_C(1) << 40)
#define SHC_ARENA_RECORDS_STEP 512u /* records of a participant are backed in steps of one system page */

typedef struct shc_arena_shm {
    shc_a64_t frontier;
    shc_a64_t shortages;
    uint8_t pad0[112];
    shc_a64_t runs[SHC_ARENA_BUCKETS];
    shc_a64_t slabs[SHC_ARENA_CLASSES];
    uint8_t pad1[8];
    shc_a64_t tops[SHC_ARENA_BUCKETS];
} shc_arena_shm_t;

#define SHC_ARENA_LAYOUT(ROW, T)                                                                                       \
    ROW(T, frontier, 0, 8, "who grows", "pages whose words have memory; only rises")                                   \
    ROW(T, shortages, 8, 8, "who finds no memory", "hint: the others empty their magazines when it has moved")         \
    ROW(T, pad0, 16, 112, "nobody", "zero")                                                                            \
    ROW(T, runs, 128, 192, "anybody",                                                                                  \
        "hints per power of two of pages: the two free runs freed last; page + 1 in bits 0-24 and 25-49")              \
    ROW(T, slabs, 320, 312, "anybody", "hints per size class: two slabs with free blocks, in the same form")           \
    ROW(T, pad1, 632, 8, "nobody", "zero")                                                                             \
    ROW(T, tops, 640, 192, "anybody", "hints per power of two of pages: which maps, in 64 parts, have a bit set for it")

SHC_ARENA_LAYOUT(SHC_LAYOUT_ASSERT, shc_arena_shm_t)
_Static_assert(sizeof(shc_arena_shm_t) == 832, "parties follow the head on lines of their own");

/* One for every 512 pages: where free runs begin. */
typedef struct shc_arena_map_shm {
    shc_a64_t groups[SHC_ARENA_BUCKETS];
} shc_arena_map_shm_t;

#define SHC_ARENA_MAP_LAYOUT(ROW, T)                                                                                   \
    ROW(T, groups, 0, 192, "anybody",                                                                                  \
        "hints per power of two of pages: a bit for 8 pages each, set: a free run of that length begins there")

SHC_ARENA_MAP_LAYOUT(SHC_LAYOUT_ASSERT, shc_arena_map_shm_t)
_Static_assert(sizeof(shc_arena_map_shm_t) == 192, "maps begin on lines of their own");

typedef struct shc_arena_party_shm {
    shc_a64_t page;
    shc_a32_t records;
    shc_a8_t cached[SHC_ARENA_CLASSES];
    uint8_t spare[13];
} shc_arena_party_shm_t;

#define SHC_ARENA_PARTY_LAYOUT(ROW, T)                                                                                 \
    ROW(T, page, 0, 8, "owner, who sweeps it", "page + 1 in whose slab it is changing words that are not its own; 0")  \
    ROW(T, records, 8, 4, "owner", "records that have memory and may be in use")                                       \
    ROW(T, cached, 12, 39, "owner", "hint: blocks in its magazine, per size class")                                    \
    ROW(T, spare, 51, 13, "nobody", "zero")

SHC_ARENA_PARTY_LAYOUT(SHC_LAYOUT_ASSERT, shc_arena_party_shm_t)
_Static_assert(sizeof(shc_arena_party_shm_t) == 64, "each participant writes a line of its own");

enum {
    SHC_ARENA_UNBACKED = 0, /* no memory is reserved for the page */
    SHC_ARENA_MOVING = 1,   /* memory is just being reserved or given back by the owner */
    SHC_ARENA_SLAB = 2,     /* blocks of one class; OWNED: being emptied by the owner */
    SHC_ARENA_RUN = 3,      /* one block of whole pages, be it free or not */
};

enum {
    SHC_ARENA_FREE = 0,
    SHC_ARENA_OWNED = 1,    /* by the stamped participant, in its hands or its magazine */
    SHC_ARENA_ATTACHED = 2, /* part of a structure */
    SHC_ARENA_RETIRING = 3, /* being taken out of a structure by the stamped participant */
    SHC_ARENA_LOANED = 4,   /* held by all who have a record of it */
    SHC_ARENA_CLOSING = 5,  /* the stamped participant looks whether anybody still holds it */
};

#define SHC_ARENA_OWNER_MASK UINT32_C(0xfff)
#define SHC_ARENA_GENERATION_MASK UINT32_C(0x1ffff)
#define SHC_ARENA_PLACE_MASK ((UINT64_C(1) << 36) - 1)

/* A record: {LEAVING | POSTED | nonce 9 | reference 53}; 0: none. */
#define SHC_ARENA_LEAVING (UINT64_C(1) << 63) /* its holder is letting go: it does not count */
#define SHC_ARENA_POSTED (UINT64_C(1) << 62)  /* held for a message that is on its way */
#define SHC_ARENA_NONCE_MASK UINT64_C(0x1ff)
#define SHC_ARENA_REF_MASK ((UINT64_C(1) << 53) - 1)

/* {state 3 | owner 12 | generation 17}: a block's state word, and the upper half of a page word. */
static inline uint32_t
shc_arena_state(uint32_t state, uint32_t owner, uint32_t generation)
{
    return state | (owner & SHC_ARENA_OWNER_MASK) << 3 | generation << 15;
}

static inline uint32_t
shc_arena_state_of(uint32_t word)
{
    return word & 7;
}

static inline uint32_t
shc_arena_owner_of(uint32_t word)
{
    return word >> 3 & SHC_ARENA_OWNER_MASK;
}

static inline uint32_t
shc_arena_generation_of(uint32_t word)
{
    return word >> 15;
}

static inline uint64_t
shc_arena_page(uint32_t kind, uint32_t length, uint32_t state_word)
{
    return (uint64_t)kind | (uint64_t)length << 8 | (uint64_t)state_word << 32;
}

static inline uint32_t
shc_arena_kind_of(uint64_t page_word)
{
    return (uint32_t)(page_word & 7);
}

/* Pages of a MOVING or a RUN, class of a SLAB. */
static inline uint32_t
shc_arena_length_of(uint64_t page_word)
{
    return (uint32_t)page_word >> 8;
}

static inline uint32_t
shc_arena_upper_of(uint64_t page_word)
{
    return (uint32_t)(page_word >> 32);
}

/* A reference: {generation 17 | place 36}, the place in units of 16 bytes from the beginning of the segment. */
static inline uint64_t
shc_arena_ref(uint64_t offset, uint32_t generation)
{
    return offset / SHC_ARENA_UNIT | (uint64_t)(generation & SHC_ARENA_GENERATION_MASK) << 36;
}

/* Whether it has the form of a reference: a number with bits beyond it would pass for the same block, but not for the
 * same holder. */
static inline bool
shc_arena_is_ref(uint64_t ref)
{
    return ref != 0 && (ref & ~SHC_ARENA_REF_MASK) == 0;
}

static inline uint32_t
shc_arena_ref_generation(uint64_t ref)
{
    return (uint32_t)(ref >> 36) & SHC_ARENA_GENERATION_MASK;
}

#endif
