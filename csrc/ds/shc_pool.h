/* Pool of memory blocks, shared by all processes that have it open; and a shelf of buffers that were given back.
 *
 * Overview. The blocks are the arena's (seg/shc_arena.h), and so is all that is said there: whose a block is stands in
 * its own word, what several hold is in records, and so is what is on its way. A pool adds when memory goes back to
 * the system, and the shelf.
 *
 * Idle memory. Whoever has a timer calls shc_pool_tend from time to time; SHC_POOL_SAMPLES calls are one interval. Each
 * looks how much is in use. What was in use at none of the looks of the last interval, and is more than the pool began
 * with, goes back to the system. Each process looks for itself, and empties its own magazines: nobody waits for
 * anybody, and it does no harm if nobody does it.
 *
 * Shelf. A place is one word:
 *
 *     EMPTY            --shelve-->                  PLACING(me)   write size and ref, attach the block
 *     PLACING(me)      --the block is attached-->   FULL
 *     FULL             --unshelve, clear-->         TAKING(me)    take the block, clear ref and size
 *     TAKING(me)       --the block is ours-->       EMPTY, or FULL again if it is none of the size that is wanted
 *     PLACING(dead), TAKING(dead)  --sweep-->       FULL if its block is attached, else EMPTY
 *
 * each step ONE atomic operation on that word. Who is stamped in it is the only one who writes the rest of the place,
 * and decides about its block: so nobody takes or attaches a block that another may touch.
 *   `placed` is counted up behind each step to FULL, and by each sweep for one who died between the two. Who has looked
 * for a size in vain need not look again before it has moved.
 *   The sweep first lets the arena ask which blocks of the dead a place names that the dead one has stamped (those
 *   become ATTACHED), then settles those places by what state their blocks are in. Both follow from the words alone, so
 *   a sweep that was killed is done again.
 *
 * Usage
 *     shc_pool_configure(&options, &args);  args.participants = n;  shc_pool_lay_out(&args);      then shc_seg_create
 *     shc_pool_open(&pool, seg);
 *     r = shc_arena_allocate(&pool.arena, n, &ref);  ...  r = shc_arena_release(&pool.arena, ref);
 *     r = shc_pool_unshelve(&pool, n, &ref);      a buffer of just that size that was given back; SHC_EMPTY: allocate
 *     r = shc_pool_shelve(&pool, ref, n);         SHC_FULL: no place is free; release it
 *     shc_pool_leave(&pool);                      before shc_seg_leave
 *
 * Guarantees
 *   (a) What the arena guarantees.
 *   (b) unshelve finds a buffer of that size if one lies there all the time; what somebody is just moving it may miss.
 *   (c) What a killed process held is free after the sweep of its slot, or on the shelf; a buffer that lies on the
 *       shelf is there whatever becomes of who gave it back.
 *   (d) Nothing read from the segment is used before it is bounded by private geometry; every loop ends.
 *
 * Progress: lock-free as the arena is; shelve and unshelve look at each place at most once.
 *
 * Pairs
 *   A1 <- R1: who takes from a place comes after who laid the buffer there; who lays one there, after it was cleared.
 *   AR1: places claimed.
 *   A2 <- R2: who sees that `placed` has not moved since it was read before a look in vain would see no more.
 *
 * Crash points (where killed -> what stays -> who mends it; "sweep" is that of the dead one's slot)
 *   place claimed, EMPTY before       PLACING(dead)      sweep: EMPTY; the block is the dead one's: free
 *   ref written, not attached         PLACING(dead)      sweep: FULL
 *   attached                          PLACING(dead)      sweep: FULL
 *   claimed to take                   TAKING(dead)       sweep: FULL
 *   taken, ref there yet              TAKING(dead)       sweep: FULL
 *   ref cleared                       TAKING(dead)       sweep: EMPTY; the block is the dead one's: free
 *   FULL, not counted in `placed`     a buffer that some sweep counts
 *                                     do not look for
 *   sweep, anywhere                   what is left       the next sweep */
#ifndef SHC_POOL_H
#define SHC_POOL_H

#include "ds/shc_pool_shm.h"
#include "seg/shc_arena.h"
#include "seg/shc_seg.h"

#define SHC_POOL_SAMPLES 4u
#define SHC_POOL_MISSES 4u

/* A size that was looked for in vain, and what `placed` was before. */
typedef struct shc_pool_miss {
    uint64_t size;
    uint64_t placed;
} shc_pool_miss_t;

/* Process-private. */
typedef struct shc_pool {
    shc_arena_t arena;
    shc_pool_shm_t *shm;
    shc_pool_place_shm_t *places;
    uint32_t n_places;
    uint32_t n_samples; /* looks at what is in use, since the beginning */
    uint64_t samples[SHC_POOL_SAMPLES];
    shc_pool_miss_t misses[SHC_POOL_MISSES];
} shc_pool_t;

_Static_assert(sizeof(shc_pool_t) <= 4096, "a handle takes at most 4 KiB of private memory");

typedef struct shc_pool_options {
    uint64_t initial_bytes; /* rounded up to pages, as max_bytes is */
    uint64_t max_bytes;
    uint64_t interval_ns;
    uint32_t growth; /* percent: how much a step adds to what is there */
    uint32_t places;
} shc_pool_options_t;

extern const shc_seg_spec_t shc_pool_spec;

/* Writes the config words. -EINVAL: there is no such pool. */
SHC_MUST_USE int shc_pool_configure(const shc_pool_options_t *options, shc_seg_create_args_t *args);

/* The size of the body and what is reserved of it, from config words and the number of participants. -EINVAL,
 * SHC_E_TOO_LARGE. */
SHC_MUST_USE int shc_pool_lay_out(shc_seg_create_args_t *args);

/* What was configured, rounded as it was. The segment has been validated. */
void shc_pool_options_of(const shc_seg_t *seg, shc_pool_options_t *out);

void shc_pool_init(shc_seg_t *seg);

/* Binds the private handle; takes nothing. Again after shc_seg_rejoin. */
void shc_pool_open(shc_pool_t *pool, shc_seg_t *seg);

/* Gives back all that this process holds. */
void shc_pool_leave(shc_pool_t *pool);

/* One look for memory that is idle; returns how many bytes went back to the system. */
uint64_t shc_pool_tend(shc_pool_t *pool);

/* All free memory but what the pool began with goes back to the system; returns how much. */
uint64_t shc_pool_cleanup(shc_pool_t *pool);

/* ---- the shelf ---- */

/* Lays a block that this process owns, of which `size` bytes are in use, on the shelf. SHC_FULL: there is no place for
 * it; SHC_E_STALE: it is not this process's. */
SHC_MUST_USE int shc_pool_shelve(shc_pool_t *pool, shc_ref_t ref, uint64_t size);

/* Takes a buffer of just that size, 1 or more. SHC_EMPTY; SHC_E_CORRUPT: what lay there was none. */
SHC_MUST_USE int shc_pool_unshelve(shc_pool_t *pool, uint64_t size, shc_ref_t *ref);

/* Releases all that lies there; returns how many. */
uint32_t shc_pool_clear(shc_pool_t *pool);

/* Whether there is a buffer in a place, and of what size: a hint while others work. */
bool shc_pool_look(const shc_pool_t *pool, uint32_t place, uint64_t *size);

/* ---- all of it ---- */

/* Read-only walk over everything: 0 or SHC_E_CORRUPT. Nobody may be at work; the dead may have left things. */
SHC_MUST_USE int shc_pool_check(shc_pool_t *pool);

/* Whether any word names participant `index` as its owner or holder. */
bool shc_pool_names(shc_pool_t *pool, uint32_t index, uint32_t generation);

#endif
