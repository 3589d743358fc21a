/* Shared between the files of the allocator only. */
#ifndef SHC_ARENA_INTERNAL_H
#define SHC_ARENA_INTERNAL_H

#include <errno.h>
#include <string.h>

#include "seg/shc_arena.h"

#define SHC_ARENA_ROUNDS 64u /* of something that others undid; more often only a scribbler does */

/* Where the nonces of a slot's next holder begin: of 512, as far from those of the last ones as can be. */
#define SHC_ARENA_NONCES_APART 317u

/* Where a block's state word is. */
typedef struct shc_arena_place {
    shc_a32_t *word; /* NULL: the upper half of the page word */
    uint64_t page_word;
    uint32_t page;
    uint32_t class;
    uint32_t block; /* within its slab */
} shc_arena_place_t;

static inline uint32_t
shc_arena__owner(const shc_arena_t *a)
{
    return a->seg->index + 1;
}

static inline shc_a64_t *
shc_arena__word(const shc_arena_t *a, uint32_t page)
{
    return &a->words[page];
}

static inline uint64_t
shc_arena__page_offset(const shc_arena_t *a, uint32_t page)
{
    return a->g.data + ((uint64_t)page << a->g.page_shift);
}

/* Pages that so many bytes take. */
static inline uint64_t
shc_arena__pages_for(const shc_arena_t *a, uint64_t size)
{
    return (size >> a->g.page_shift) + ((size & ((UINT64_C(1) << a->g.page_shift) - 1)) != 0);
}

static inline uint64_t
shc_arena__run(uint32_t state, uint32_t owner, uint32_t generation, uint32_t length)
{
    return shc_arena_page(SHC_ARENA_RUN, length, shc_arena_state(state, owner, generation));
}

static inline uint32_t
shc_arena__generation(uint64_t page_word)
{
    return shc_arena_generation_of(shc_arena_upper_of(page_word));
}

static inline bool
shc_arena__is_free_run(uint64_t page_word)
{
    return shc_arena_kind_of(page_word) == SHC_ARENA_RUN &&
           shc_arena_state_of(shc_arena_upper_of(page_word)) == SHC_ARENA_FREE;
}

static inline bool
shc_arena__is_open_slab(uint64_t page_word)
{
    return shc_arena_kind_of(page_word) == SHC_ARENA_SLAB &&
           shc_arena_state_of(shc_arena_upper_of(page_word)) == SHC_ARENA_FREE;
}

/* How far the chain goes on from a page: at least 1, and not beyond `end`. False: no correct process writes this. */
static inline bool
shc_arena__step(uint64_t page_word, uint32_t left, uint32_t *step)
{
    uint32_t kind = shc_arena_kind_of(page_word);
    bool spans = kind == SHC_ARENA_RUN || kind == SHC_ARENA_MOVING;
    uint32_t length = spans ? shc_arena_length_of(page_word) : 1;
    bool sound = kind <= SHC_ARENA_RUN && length >= 1 && length <= left;
    *step = sound ? length : 1;
    return sound;
}

/* ---- shc_arena.c ---- */

/* Pages whose words may be looked at; never more than the arena has. */
uint32_t shc_arena__frontier(shc_arena_t *a);

/* Finds the state word of a reference; SHC_E_STALE if it leads to no block. */
SHC_MUST_USE int shc_arena__locate(shc_arena_t *a, shc_ref_t ref, shc_arena_place_t *place);
uint32_t shc_arena__load(const shc_arena_t *a, const shc_arena_place_t *place);
bool shc_arena__change(const shc_arena_t *a, const shc_arena_place_t *place, uint32_t from, uint32_t to);

/* One step of a walk over the chain while others work. `word` was loaded from `page` with acquire. A run that does not
 * fit below *frontier may have grown over it since that was loaded: whoever stored the word had raised the frontier
 * before (AR4, R1), so it is loaded again and the word is judged again. To go on by one page would lead into somebody's
 * run, to words that mean nothing. False: no correct process wrote it. */
static inline bool
shc_arena__walk(shc_arena_t *a, uint64_t word, uint32_t page, uint32_t *frontier, uint32_t *step)
{
    if (SHC_LIKELY(shc_arena__step(word, *frontier - page, step)))
        return true;
    *frontier = shc_arena__frontier(a);
    return shc_arena__step(word, *frontier - page, step);
}

/* ---- hints: two page numbers, the newest first ---- */

void shc_arena__push_hint(shc_a64_t *hint, uint32_t page);
bool shc_arena__pop_hint(shc_a64_t *hint, uint32_t *page);

/* ---- shc_arena_pages.c ---- */

/* A run of just n pages, OWNED by this process: the lowest that are free, so that slabs, which stay
 * for long, lie together. SHC_FULL if there is not enough in one piece. */
SHC_MUST_USE int shc_arena__take_free_pages(shc_arena_t *a, uint32_t n, uint32_t *page);

/* The same with all means: what was freed last, growth, emptying slabs. SHC_FULL, -ENOSPC. */
SHC_MUST_USE int shc_arena__take_pages(shc_arena_t *a, uint32_t n, uint32_t *page);

/* A run that is ours, or that a dead process left to its sweeper, becomes free. */
void shc_arena__free_pages(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t generation);

/* Memory of MOVING(owner) pages goes back to the system; they become UNBACKED, whether or not that could be done. */
void shc_arena__unback(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t owner);

/* ---- shc_arena_small.c ---- */

/* Announces that words in the slab `page` are about to be changed, on the line of `owner`; its word after that. */
uint64_t shc_arena__enter(shc_arena_t *a, uint32_t owner, uint32_t page);
void shc_arena__exit(shc_arena_t *a, uint32_t owner);

static inline shc_a64_t *
shc_arena__bits(const shc_arena_t *a, uint32_t page)
{
    return shc_seg_at(a->seg, shc_arena__page_offset(a, page));
}

static inline shc_a32_t *
shc_arena__states(const shc_arena_t *a, uint32_t page, uint32_t class)
{
    return shc_seg_at(a->seg, shc_arena__page_offset(a, page) + a->class[class].states);
}

static inline shc_ref_t
shc_arena__ref_of(const shc_arena_t *a, uint32_t page, uint32_t class, uint32_t block, uint32_t generation)
{
    const shc_arena_class_t *c = &a->class[class];
    uint64_t units = c->first + (uint64_t)block * c->size;
    return shc_arena_ref(shc_arena__page_offset(a, page) + units * SHC_ARENA_UNIT, generation);
}

SHC_MUST_USE int shc_arena__refill(shc_arena_t *a, uint32_t class);
void shc_arena__flush(shc_arena_t *a, uint32_t class, uint32_t n);
void shc_arena__flush_all(shc_arena_t *a);

/* Sets hints that blocks are free; the page is announced. */
void shc_arena__mark_free(shc_arena_t *a, uint32_t page, uint32_t word, uint64_t bits);

/* Slabs without a used block become free pages. */
void shc_arena__empty_slabs(shc_arena_t *a);

/* ---- shc_arena_loan.c ---- */

/* Lets go of the reference in record `k` of participant `owner` (whose line and stamp are used), as far as a block is
 * concerned that it still refers to. True: it was the last one, and the block is OWNED(owner) now. */
bool shc_arena__close(shc_arena_t *a, uint32_t owner, shc_ref_t ref);

shc_a64_t *shc_arena__record(const shc_arena_t *a, uint32_t index, uint32_t k);

/* Records of a participant that may be looked at. */
uint32_t shc_arena__records(const shc_arena_t *a, uint32_t index);

bool shc_arena__is_held(const shc_arena_t *a, shc_ref_t ref);

/* Held, or being let go of by somebody who may have been killed over it. */
bool shc_arena__is_recorded(const shc_arena_t *a, shc_ref_t ref);

#endif
