/* Memory inside a segment: blocks from 16 bytes to almost half a page from slabs, larger ones as runs of whole pages.
 *
 * Overview. The arena is a range of the segment's file, as long as it may ever get, mapped once by everybody. Pages
 * are UNBACKED (a hole of the file) until somebody reserves memory for them, and become so again when they are given
 * back. A reference is an offset and a generation: one number that any process understands.
 *
 * Every block has one state word: in its slab, or, of a run, the page word of its first page. A word is
 *
 *     FREE(g)         --allocate-->             OWNED(me, g)
 *     OWNED(me, g)    --release-->              OWNED(me, g+1) in my magazine, or FREE(g+1)
 *     OWNED(me, g)    --attach-->               ATTACHED(g)         part of a structure, whose words say so
 *     ATTACHED(g)     --take-->                 OWNED(me, g)
 *     OWNED(x, g), ATTACHED(g)   --adopt-->     OWNED(me, g)        x sent it, and the structure's words say to whom
 *     ATTACHED(g)     --retire-->               RETIRING(me, g)     --reclaim--> OWNED(me, g)
 *     OWNED(me, g)    --lend-->                 LOANED(g)           held by all who have a record of it
 *     LOANED(g)       --drop-->                 CLOSING(me, g)      --nobody has one--> OWNED(me, g)
 *                                                                   --somebody has--> LOANED(g)
 *     CLOSING(x, g)   --drop, sweep-->          CLOSING(me, g)
 *     CLOSING(x, g)   --hold-->                 LOANED(g)
 *     OWNED(dead, g)  --settle-->               ATTACHED(g)         the structure found that it refers to it
 *     OWNED(dead, g)  --sweep-->                FREE(g+1), or ATTACHED(g) if the structure says that it is there
 *
 * each step ONE atomic operation on that word. Free lists do not exist; hint bits, LIFO hints and the map say where to
 * look first, may be wrong in either direction, and are healed by scans.
 *
 * Magazines. A process keeps a few blocks of each class in private memory, where they stay OWNED by it. allocate takes
 * the reference from there and touches no shared word but the hint of how many are left; release writes the generation
 * and puts the block in the magazine of whoever releases it. What a killed process had there comes back with all else
 * it owned.
 *
 * A class that runs dry again and again gets its slabs several at a time: so many per cent of those that this process
 * has made of it since it last gave memory back as growth adds to the memory, from pages that are free. Then fewer of
 * its blocks lie between the runs of others, and less is looked through before the next slab.
 *
 * Runs. Page words are a chain: a run's word says how long it is, the words of the pages that it covers mean nothing
 * (but for their generation). So one store of one word splits (the new head is written first, OWNED and still covered),
 * joins (the covered head was claimed first) and commits. No lock protects this. Whoever needs n pages claims free runs
 * and UNBACKED pages beside each other one by one in ascending order, each by one compare-and-swap, then joins them;
 * who finds one taken lets go of those before. Of several in each other's way the one whose piece begins highest goes
 * on.
 *   Lemma of the chain. A covered word never says FREE run, SLAB or UNBACKED: it was OWNED or MOVING when it was
 *   covered, and only the owner of the run that covers it writes it, as OWNED or MOVING. So who sees one of these three
 *   at any page may compare-and-swap from it.
 *   Lemma of the sweep. Who walks the chain from page 0 while others split, join and grow meets every run that a dead
 *   process owns, and takes nothing else for one. Such a run cannot change while the walk goes on. Each page that the
 *   walk comes to has been a boundary since it began, or was written since, while covered, by one of the living: page 0
 *   is one; the word of a boundary ends at a boundary; and a page that was covered since has the word that it had as a
 *   boundary, or one that was written since, which ends where the covering run does or at another that was written
 *   before it. So no step jumps over a run that was there all the time, and a word that says OWNED(dead) or
 *   MOVING(dead) is the head of one. It rests on two rules. A word that is written to a covered page ends at a boundary
 *   or at a page that has just been written so: splitting writes the last piece, dissolving goes downwards. And a run
 *   that does not fit below the frontier that the walk knows was stored after somebody had raised it: the frontier is
 *   loaded again, and the run is one step. Who went on by one page there would come to a covered page that was no
 *   boundary since, whose word names whoever had it long ago.
 *
 * Words in slabs. A slab that is emptied becomes an ordinary page with a user's bytes in it, so a compare-and-swap that
 * was decided on before must not come after. Whoever is about to change a word in a slab that he does not own says so
 * first in his line (`page`), and then looks whether the page is a slab; who empties one marks the page first, and
 * then looks at all lines (SC1: one of the two sees the other). A block that is not FREE keeps its slab from being
 * emptied, so its owner needs no such care. Nor does who takes, retires or adopts a block, though it is not its own
 * yet: of those who want to, the structure's words have let one through before (h), and until that one has come the
 * block is not FREE. That saves each of them a fence.
 *
 * Blocks on their way. A block that is sent in a message stays OWNED by its sender until the receiver adopts it: so it
 * is never in nobody's hands, and a sender that is killed just before or just after the step that made the message
 * visible needs to leave no note of which it was. Its sweeper looks at the structure: what a message refers to is
 * settled, the rest is freed. (Were it attached first, it would stay so if the sender died before the message was
 * visible; were it attached after, the receiver might come before.)
 *
 * Blocks that several processes hold. A count would not say whose share a killed process took with it. Each participant
 * has records of its own, one word each: the reference it holds. The block's word says LOANED, the records say by whom.
 * To hold: write the record, then look at the word (SC2). To drop: mark the record as LEAVING, make the word
 * CLOSING(me), then look at all records (SC2), then CLOSING -> OWNED(me) if there is none and back to LOANED else, then
 * clear the record. Why it is right: of two that drop at once, the one whose CLOSING comes second sees the other's
 * mark; one that comes to hold either is seen in the records, or sees CLOSING and takes it back to LOANED, whereupon
 * the closer's step fails; so the last to leave frees the block, and nobody frees it under a holder. Nobody waits for
 * anybody.
 *   A reference that travels in a message has a record as well, a POSTED one of its sender: so the sender may drop the
 * block before the receiver knows of it. The receiver writes a record of its own, looks at the word as any holder does,
 * and then clears the sender's by one compare-and-swap (nobody else writes to a living participant's records); as it
 * holds the block itself, that can not be the last one. A nonce in the record keeps a second copy of a message from
 * clearing what was posted for another one (ambiguous after 512 messages of one sender that carry the same block in the
 * same record), and an old message of a slot's last holder from clearing what the next one posts: that one begins with
 * another nonce.
 *
 * Growth. When no free run is there, pages are claimed UNBACKED -> MOVING(me), their memory is reserved, and one store
 * makes a run of them. A full memory file system is -ENOSPC from allocate, never SIGBUS. The page words' own memory is
 * reserved before `frontier` rises over them. cleanup() goes the other way: run -> MOVING(me) -> memory given back ->
 * UNBACKED. Where the system cannot take memory back, the pages stay FREE.
 *
 * Map. How long a look for pages takes does not depend on how many there are. A bit tells that in a group of eight
 * pages a free run of 2^k to 2^(k+1) - 1 pages begins, for each k; another one, in `tops`, that there is such a bit in
 * a map of 64 groups. Whoever needs n pages looks at the lowest of these groups, k upwards from that of n; then, k
 * downwards, at a few whose runs are too short, for several beside each other. Who frees a run sets its bits after its
 * word, and leaves alone what is set. Who finds none in a group clears the bit and looks again, and sets it again if
 * there is one now (SC3: one of the two sees the other); the same with `tops` and the groups. So a bit may be too much,
 * which costs one look; it is wanting only while somebody is between two of these steps, or was killed there: then the
 * sweep, which meets every free run, sets what is missing.
 *   Nothing is added while the map leads to a piece that is long enough. What it does not lead to, short runs beside
 * each other far up, is found by a look at all page words that joins them: before SHC_FULL is said, and before the
 * arena grows if this process has added an eighth of it since the last such look. So the look costs a few words for
 * each page that was added. The same holds of the look at all pages by which an arena that grows by a part of itself
 * learns how much it has.
 *
 * Usage
 *     A kind with an arena says grows in its spec and aligns its body to the page; it keeps the geometry in its config
 *     words, has create reserve what shc_arena_reservation says beside its own part, and calls shc_arena_init in its
 *     init. Its sweep mends the structure's own words first and ends with shc_arena_sweep.
 *
 *     shc_arena_open(&arena, seg, &geometry);                 after shc_seg_create / attach / rejoin
 *     r = shc_arena_allocate(&arena, n, &ref);  p = shc_arena_at(&arena, ref);   fill it
 *     r = shc_arena_attach(&arena, ref);                      ... the structure's word now refers to it
 *     r = shc_arena_take(&arena, ref);  ... r = shc_arena_release(&arena, ref);
 *     shc_arena_leave(&arena);                                before shc_seg_leave
 *
 * Guarantees
 *   (a) A block is in one place at a time. What was released is not found by an old reference: SHC_E_STALE (ambiguous
 *       only after 2^17 releases of the blocks of one page within the life of the reference).
 *   (b) allocate says SHC_FULL only when no piece that is long enough is free or to be had below the arena's maximum,
 *       after own magazines and empty slabs have been given up; memory in the magazines of others, and what another
 *       allocation has just claimed and is about to let go, does not count as free. It says so as well when others were
 *       faster 64 times in a row. Nothing is moved: a piece may be
 *       wanting though there is room in sum.
 *   (c) What a participant owned when it died is free after the sweep of its slot, or part of the structure.
 *   (d) Classes that are multiples of 64 bytes are aligned to 64, runs to pages, all to 16. At most 20 % of a block
 *       from 80 bytes up to 7/16 of a page is unused, less than a page of a run.
 *   (e) Nothing read from the segment is used before it is bounded by private geometry; every loop ends. Neither helps
 *       against a process that makes holes of memory in use or truncates the file: that is SIGBUS, as for any mapping.
 *   (f) A handle is used by one thread at a time: the caller's lock. It takes less than 4 KiB. A forked child opens it
 *       anew after shc_seg_rejoin: what its parent's magazines hold is the parent's.
 *   (g) While pages are free or can be added, what allocate and release cost depends neither on the size of the arena
 *       nor on how much of it is in use: a look at all pages is paid for by the pages that were added. Without such
 *       pages, all of them may be looked at for a block, and are before SHC_FULL; cleanup, sweep, stats and check do
 *       so, too.
 *   (h) The structure's own words say who may take or retire a block: two who race for one block must be decided there,
 *       not by who comes first to its state word. Nothing but drop and sweep acts on blocks of others.
 *
 * Progress: allocate and release from the magazine are wait-free, all else lock-free but for the reservation of memory,
 * a system call.
 *
 * Pairs
 *   A1 <- R1: who sees a SLAB sees its words filled, and who claims a free run comes after its last user.
 *   A2 <- R2: who claims a free block comes after its last user.
 *   A3 <- R3: who takes or resolves a block sees what was written before it was attached or lent.
 *   A4 <- AR4: who sees the frontier above a page finds memory under its word.
 *   A5 <- R5: who empties a slab and finds a line cleared comes after the changes that it announced.
 *   A6 <- R6: who finds a record LEAVING or cleared comes after what its holder did with the block.
 *   AR5: records that were posted are collected by others; of sender and receiver one gets each.
 *   AR1: page words claimed or handed over.
 *   AR2: state words of blocks likewise.
 *   AR3: hints; they carry nothing.
 *   SC1: line written, then page looked at (A2, AR2 follow)  <->  page marked, then lines looked at.
 *   SC2: record written, then state looked at  <->  state made CLOSING, then records looked at.
 *   SC3: run freed, then its bit looked at; bit set, then the upper bit looked at  <->  bit cleared, then runs looked
 *        at; upper bit cleared, then bits looked at.
 *
 * Crash points (where killed -> what stays -> who mends it; "sweep" is shc_arena_sweep of the dead one's index)
 *   refill, hint bits taken           bits lost          a scan of state words before SHC_FULL is said
 *   refill, blocks claimed            OWNED(dead)        sweep
 *   flush, some blocks FREE           hint bits missing  the same scan
 *   run freed, bits not set           bits missing       sweep
 *   bit cleared, looked again         bit missing        sweep
 *   runs claimed, to be joined        RUN OWNED(dead)s   sweep: free runs as they were
 *   new slab, filled half             RUN OWNED(dead)    sweep: a free page
 *   claimed runs, not joined          RUN OWNED(dead)s   sweep: free runs as they were
 *   run split, new head covered       one run            sweep: free as a whole
 *   run split, new head uncovered     two runs           sweep
 *   UNBACKED claimed, reserved or not MOVING(dead)       sweep: given back, UNBACKED
 *   table reserved, frontier not      nothing            the next one who grows; reserving twice does no harm
 *   giving back, anywhere             MOVING(dead)       sweep goes on with it
 *   letting a window go, half done    MOVING(dead)s,     sweep; what was let go before is anybody's
 *                                     RUN OWNED(dead)s
 *   emptying a slab, blocks claimed   OWNED(dead)        sweep; the slab stays
 *   emptying, page marked             SLAB OWNED(dead)   sweep opens it again
 *   attach / take / retire            either side        sweep asks the structure
 *   adopt                             either side        sweep of the sender or the receiver, after the structure has
 *                                                        settled what its messages refer to
 *   record backed, not counted        nothing            the next one who needs it; reserving twice does no harm
 *   lend, record written              OWNED(dead)        sweep frees it
 *   lend, done                        a holder           sweep drops it for him
 *   hold, record written              one record more,   sweep drops it; a word of another generation is let alone
 *                                     maybe of nothing
 *   post, record written              the message holds  sweep of the sender
 *   collect, both records             two holders        sweep of the receiver; the sender's record stays as that of a
 *                                                        message which was never collected
 *   unpost, anywhere                  as drop            sweep of the sender; of several messages each is one drop
 *   drop, record LEAVING              nobody counts it   sweep drops again
 *   drop, CLOSING(dead)               the record LEAVING sweep closes as its own; meanwhile hold and drop of others
 *                                                        take the word over
 *   drop, OWNED(dead)                 the same           sweep frees it
 *   sweep, anywhere                   what is left       the next sweep: REAPING makes one of them at a time
 *   leave, half swept by itself       what is left       sweep
 *
 * Source: magazines and class spacing after jemalloc's and mimalloc's; owner-stamped words and the rest are ours. */
#ifndef SHC_ARENA_H
#define SHC_ARENA_H

#include "base/shc_math.h"
#include "seg/shc_arena_shm.h"
#include "seg/shc_seg.h"

typedef uint64_t shc_ref_t;
#define SHC_ARENA_NOTHING UINT64_C(0)

/* Where an arena lies and how large it may get. The structure chooses the first part, and keeps it in two config words
 * of its segment; shc_arena_lay_out computes the rest. */
typedef struct shc_arena_geometry {
    uint64_t at;      /* file offset, a multiple of the page size */
    uint32_t pages;   /* at most */
    uint32_t initial; /* pages that are reserved at create */
    uint32_t page_shift;
    uint32_t growth;  /* percent: how much a step of growth adds to what is there; 0: just what is needed */
    uint32_t records; /* blocks shared with others that a participant may hold; 0: none */
    uint32_t participants;
    uint32_t top_shift; /* a bit of `tops` stands for so many maps, as a power of two */
    uint64_t parties;   /* file offsets */
    uint64_t maps;
    uint64_t words;
    uint64_t record_table;
    uint64_t record_stride;
    uint64_t data;
    uint64_t end;
} shc_arena_geometry_t;

#define SHC_ARENA_CONFIG_WORDS 2

/* Of the hints where something is to be had. */
static inline uint32_t
shc_arena_maps(const shc_arena_geometry_t *g)
{
    return (g->pages - 1) / SHC_ARENA_MAP_PAGES + 1;
}

/* How many blocks a magazine holds: of up to 1 KiB, and larger ones. */
#define SHC_ARENA_DEPTH_SMALL 14u
#define SHC_ARENA_DEPTH_LARGE 4u
#define SHC_ARENA_CLASSES_SMALL 20u
#define SHC_ARENA_CACHE                                                                                                \
    (SHC_ARENA_CLASSES_SMALL * SHC_ARENA_DEPTH_SMALL +                                                                 \
     (SHC_ARENA_CLASSES - SHC_ARENA_CLASSES_SMALL) * SHC_ARENA_DEPTH_LARGE)

#define SHC_ARENA_RECIPROCAL 24
#define SHC_ARENA_MADE_MAX 32u

/* Blocks of a class in their slab, in units of 16 bytes. */
typedef struct shc_arena_class {
    uint32_t reciprocal; /* place * reciprocal >> SHC_ARENA_RECIPROCAL is place / size, for places within a page */
    uint16_t size;
    uint16_t first;
    uint16_t count;
    uint16_t states; /* offset of the state words in bytes */
} shc_arena_class_t;

/* Process-private. */
typedef struct shc_arena {
    shc_seg_t *seg;
    shc_arena_shm_t *shm;
    shc_arena_party_shm_t *parties;
    shc_arena_map_shm_t *maps;
    shc_a64_t *words;
    uint64_t small_max;  /* bytes */
    int64_t outstanding; /* blocks that are OWNED and not in a magazine, and those that were sent */
    uint64_t shortages;  /* that were seen */
    uint32_t frontier;   /* that was seen */
    uint32_t scan;       /* where to look for slabs */
    uint32_t grown;      /* pages that were added since all of them were looked at */
    uint32_t bare;       /* where pages were added last */
    uint32_t posted;     /* numbers what was posted */
    uint32_t record;     /* where to look for a record */
    uint32_t classes;    /* in use with this page size */
    shc_arena_geometry_t g;
    shc_arena_class_t class[SHC_ARENA_CLASSES];
    uint32_t slab[SHC_ARENA_CLASSES]; /* page + 1 that had free blocks last */
    uint8_t count[SHC_ARENA_CLASSES];
    uint8_t made[SHC_ARENA_CLASSES]; /* slabs since memory was last given back, up to SHC_ARENA_MADE_MAX */
    shc_ref_t cache[SHC_ARENA_CACHE];
} shc_arena_t;

_Static_assert(sizeof(shc_arena_t) <= 4096, "a handle takes at most 4 KiB of private memory");

/* ---- geometry ---- */

/* Computes the second part from the first. -EINVAL: no such arena; SHC_E_TOO_LARGE. */
SHC_MUST_USE int shc_arena_lay_out(shc_arena_geometry_t *g);

void shc_arena_to_config(const shc_arena_geometry_t *g, uint64_t config[SHC_ARENA_CONFIG_WORDS]);

/* From config words that somebody else wrote: SHC_E_CORRUPT. */
SHC_MUST_USE int shc_arena_from_config(const uint64_t config[SHC_ARENA_CONFIG_WORDS], uint64_t at,
                                       uint32_t participants, shc_arena_geometry_t *g);

/* What shc_seg_create must reserve (relative to `body`, the offset of the body): two ranges. */
void shc_arena_reservation(const shc_arena_geometry_t *g, uint64_t body, shc_seg_range_t ranges[2]);

/* ---- life ---- */

/* In init() of shc_seg_create. The memory is all zero. */
void shc_arena_init(shc_seg_t *seg, const shc_arena_geometry_t *g);

/* Binds the private handle; takes nothing. */
void shc_arena_open(shc_arena_t *arena, shc_seg_t *seg, const shc_arena_geometry_t *g);

/* Gives back all that this process holds. */
void shc_arena_leave(shc_arena_t *arena);

/* Whether the structure refers to a block that a dead process left OWNED or RETIRING: then it becomes ATTACHED. */
typedef bool (*shc_arena_keep_fn)(void *arg, shc_ref_t ref);

/* For the kind's sweep, before shc_arena_sweep: the structure refers to a block that participant `index`, who is dead
 * or leaving, may have left OWNED; it is not freed then. For structures that can go through all they refer to, but not
 * look one reference up. */
void shc_arena_settle(shc_arena_t *arena, uint32_t index, shc_ref_t ref);

/* For the kind's sweep, after the structure's own words: gives back all that participant `index` held. keep NULL: the
 * structure refers to none, or has settled them. Uses no participant of its own. */
void shc_arena_sweep(shc_arena_t *arena, uint32_t index, shc_arena_keep_fn keep, void *arg);

/* ---- blocks ---- */

static inline uint32_t
shc_arena_class_of(uint64_t size)
{
    uint64_t last = size == 0 ? 0 : (size - 1) / SHC_ARENA_UNIT;
    if (last < 4)
        return (uint32_t)last;
    unsigned steps = shc_floor_log2(last) - 2;
    return (uint32_t)(4 * steps + (last >> steps));
}

static inline uint64_t
shc_arena_class_size(uint32_t c)
{
    return c < 4 ? (c + UINT64_C(1)) * SHC_ARENA_UNIT : (UINT64_C(5) + c % 4) * SHC_ARENA_UNIT << (c / 4 - 1);
}

static inline uint32_t
shc_arena_cache_at(uint32_t c)
{
    return c < SHC_ARENA_CLASSES_SMALL ? c * SHC_ARENA_DEPTH_SMALL
                                       : SHC_ARENA_CLASSES_SMALL * SHC_ARENA_DEPTH_SMALL +
                                             (c - SHC_ARENA_CLASSES_SMALL) * SHC_ARENA_DEPTH_LARGE;
}

SHC_MUST_USE int shc_arena_allocate_slow(shc_arena_t *arena, uint64_t size, shc_ref_t *ref);

/* A block of at least `size` bytes, OWNED by this process, its bytes as the last user left them. 0; SHC_FULL: the arena
 * is at its maximum; -ENOSPC and the like: the system has no more; SHC_E_TOO_LARGE: never. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_arena_allocate(shc_arena_t *arena, uint64_t size, shc_ref_t *ref)
{
    if (SHC_UNLIKELY(size > SHC_ARENA_SMALL_MAX))
        return shc_arena_allocate_slow(arena, size, ref);
    uint32_t c = shc_arena_class_of(size);
    uint32_t n = arena->count[c]; /* always 0 for what is no small block with this page size */
    if (SHC_UNLIKELY(n == 0))
        return shc_arena_allocate_slow(arena, size, ref);
    *ref = arena->cache[shc_arena_cache_at(c) + --n];
    arena->count[c] = (uint8_t)n;
    arena->outstanding++;
    shc_a8_store_relaxed(&arena->parties[arena->seg->index].cached[c], (uint8_t)n);
    return 0;
}

/* Gives back a block that this process owns. SHC_E_STALE: it does not (released before, attached, somebody else's). */
SHC_MUST_USE int shc_arena_release(shc_arena_t *arena, shc_ref_t ref);

/* The memory of a reference, whatever its state: at least 16 bytes of the arena's data, or NULL if the reference does
 * not lead there. For structures that know by their own words what it is. */
static inline void *
shc_arena_at(const shc_arena_t *arena, shc_ref_t ref)
{
    uint64_t offset = (ref & SHC_ARENA_PLACE_MASK) * SHC_ARENA_UNIT;
    if (offset < arena->g.data || offset >= arena->g.end)
        return NULL;
    return shc_seg_at(arena->seg, offset);
}

/* The same with the block's size, if the reference is not stale. */
SHC_MUST_USE int shc_arena_resolve(shc_arena_t *arena, shc_ref_t ref, void **memory, uint64_t *size);

/* The state word of a block, for structures and tests; SHC_E_STALE as above. */
SHC_MUST_USE int shc_arena_look(shc_arena_t *arena, shc_ref_t ref, uint32_t *state_word);

/* One step of the state each; SHC_E_STALE if the block is not in the state that the step begins with. */
SHC_MUST_USE int shc_arena_attach(shc_arena_t *arena, shc_ref_t ref);  /* OWNED(me) -> ATTACHED */
SHC_MUST_USE int shc_arena_take(shc_arena_t *arena, shc_ref_t ref);    /* ATTACHED -> OWNED(me) */
SHC_MUST_USE int shc_arena_retire(shc_arena_t *arena, shc_ref_t ref);  /* ATTACHED -> RETIRING(me) */
SHC_MUST_USE int shc_arena_reclaim(shc_arena_t *arena, shc_ref_t ref); /* RETIRING(me) -> OWNED(me) */
SHC_MUST_USE int shc_arena_restore(shc_arena_t *arena, shc_ref_t ref); /* RETIRING(me) -> ATTACHED */

/* OWNED by whoever sent it, be it this process, or ATTACHED -> OWNED(me): by the one that the structure's words let
 * have it. The sender's part was to allocate it and to make the reference visible; that is all. */
SHC_MUST_USE int shc_arena_adopt(shc_arena_t *arena, shc_ref_t ref);

/* ---- blocks that several processes hold ---- */

/* OWNED(me) -> LOANED, with this process as the first holder. *record is for drop. SHC_E_STALE; SHC_E_LEASES: no record
 * is free; -ENOSPC: nor is memory for more. */
SHC_MUST_USE int shc_arena_lend(shc_arena_t *arena, shc_ref_t ref, uint32_t *record);

/* One more holder: this process, as often as it likes. SHC_E_STALE: nobody holds the block any more. */
SHC_MUST_USE int shc_arena_hold(shc_arena_t *arena, shc_ref_t ref, uint32_t *record);

/* No longer; the last one releases the block. SHC_E_STALE: the record is not of this reference. */
SHC_MUST_USE int shc_arena_drop(shc_arena_t *arena, shc_ref_t ref, uint32_t record);

/* For a message that carries the reference of a block which this process holds: the message holds it, too, until it is
 * collected, whatever becomes of the sender's own hold. A message that is never collected holds it as long as its
 * sender lives. *ticket travels with it. As hold. */
SHC_MUST_USE int shc_arena_post(shc_arena_t *arena, shc_ref_t ref, uint64_t *ticket);

/* By whoever got the message: from now on this process holds the block in its place. A copy of the message that comes
 * later is a mere hold: SHC_E_STALE if nobody holds the block any more. */
SHC_MUST_USE int shc_arena_collect(shc_arena_t *arena, shc_ref_t ref, uint64_t ticket, uint32_t *record);

/* By the sender, of a message that will not be sent. SHC_E_STALE: it was collected. */
SHC_MUST_USE int shc_arena_unpost(shc_arena_t *arena, shc_ref_t ref, uint64_t ticket);

/* The same of all that this process has posted and nobody has collected; returns how many. */
uint32_t shc_arena_unpost_all(shc_arena_t *arena);

/* ---- all of it ---- */

/* Empties this process's magazines and gives free memory back to the system, but for `keep` bytes, up to whole pages.
 * Returns how much. */
uint64_t shc_arena_cleanup(shc_arena_t *arena, uint64_t keep);

typedef struct shc_arena_class_stats {
    uint64_t pages;
    uint64_t blocks;
    uint64_t used; /* not free, magazines included */
    uint64_t cached;
} shc_arena_class_stats_t;

typedef struct shc_arena_stats {
    shc_arena_class_stats_t class[SHC_ARENA_CLASSES];
    uint64_t bytes_total;   /* at most */
    uint64_t bytes_backed;  /* that have memory */
    uint64_t bytes_used;    /* of blocks in use and runs, whole blocks; magazines do not count */
    uint64_t bytes_free;    /* of free runs */
    uint64_t bytes_largest; /* of the largest piece that could be allocated: free, or still to be had */
    uint64_t runs;          /* in use */
    uint64_t records;       /* in use, posted ones included */
    uint64_t posted;        /* of those: for messages that nobody has collected */
    uint32_t fragmentation; /* percent of what is not used that does not lie in that piece */
} shc_arena_stats_t;

/* Whether anything is in use at about this moment, in whoever's hands: what was allocated, is kept in a magazine, or
 * is being moved. Looks at every page. */
bool shc_arena_is_used(shc_arena_t *arena);

/* True: nothing was ever allocated. */
static inline bool
shc_arena_is_fresh(const shc_arena_t *arena)
{
    return shc_a64_load_relaxed(&arena->shm->frontier) == 0;
}

/* Hints while others work. SHC_E_CORRUPT: what no correct process writes, however many of them are at work. */
SHC_MUST_USE int shc_arena_stats(shc_arena_t *arena, shc_arena_stats_t *out);

/* Blocks of just so many pages: in use, and how many the free runs have room for. As stats. */
SHC_MUST_USE int shc_arena_count_runs(shc_arena_t *arena, uint32_t pages, uint64_t *used, uint64_t *free);

/* What one participant has. */
typedef struct shc_arena_holding {
    uint64_t blocks; /* its own, magazines not counted */
    uint64_t bytes;  /* of those */
    uint64_t shared; /* blocks that others may hold, too */
    uint64_t posted; /* messages with a block that nobody has collected */
} shc_arena_holding_t;

/* For each participant of the segment. As stats. */
SHC_MUST_USE int shc_arena_holdings(shc_arena_t *arena, shc_arena_holding_t *out);

/* Read-only walk over everything: 0 or SHC_E_CORRUPT. Nobody may be at work; the dead may have left things. */
SHC_MUST_USE int shc_arena_check(shc_arena_t *arena);

/* For a kind's check: that, or, while others may be at work, whether there is what none of them ever writes. */
SHC_MUST_USE int shc_arena_inspect(shc_arena_t *arena, bool at_rest);

/* Whether any word names participant `index` as its owner or holder. */
bool shc_arena_names(shc_arena_t *arena, uint32_t index);

#endif
