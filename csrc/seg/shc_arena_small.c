/* Slabs: where blocks come from when a magazine is empty, and where they go when it is full. */
#include "seg/shc_arena_internal.h"

uint64_t
shc_arena__enter(shc_arena_t *a, uint32_t owner, uint32_t page)
{
    shc_a64_store_release(&a->parties[owner - 1].page, page + UINT64_C(1)); /* R5: of the page before it */
    shc_fence_seq_cst();                                                    /* SC1 */
    return shc_a64_load_acquire(shc_arena__word(a, page));                  /* A1 */
}

void
shc_arena__exit(shc_arena_t *a, uint32_t owner)
{
    shc_a64_store_release(&a->parties[owner - 1].page, 0); /* R5 */
}

static uint32_t
depth_of(uint32_t class)
{
    return class < SHC_ARENA_CLASSES_SMALL ? SHC_ARENA_DEPTH_SMALL : SHC_ARENA_DEPTH_LARGE;
}

static void
cache(shc_arena_t *a, uint32_t class, shc_ref_t ref)
{
    uint32_t n = a->count[class]++;
    a->cache[shc_arena_cache_at(class) + n] = ref;
    shc_a8_store_relaxed(&a->parties[a->seg->index].cached[class], (uint8_t)(n + 1));
}

/* ---- taking ---- */

static bool
claim_block(shc_arena_t *a, uint32_t page, uint32_t class, uint32_t block)
{
    shc_a32_t *word = &shc_arena__states(a, page, class)[block];
    uint32_t seen = shc_a32_load_relaxed(word);
    uint32_t generation = shc_arena_generation_of(seen);
    if (seen != shc_arena_state(SHC_ARENA_FREE, 0, generation))
        return false;
    if (!shc_a32_cas_acquire(word, &seen, shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), generation))) /* A2 */
        return false;
    cache(a, class, shc_arena__ref_of(a, page, class, block, generation));
    return true;
}

/* The lowest `want` bits of `bits`. */
static uint64_t
lowest_bits(uint64_t bits, uint32_t want)
{
    uint64_t rest = bits;
    for (uint32_t i = 0; i < want; i++)
        rest &= rest - 1;
    return bits & ~rest;
}

/* Takes bits out of a hint word, so that nobody else tries the same blocks. */
static uint64_t
take_bits(shc_a64_t *word, uint32_t want)
{
    uint64_t seen = shc_a64_load_relaxed(word);
    for (uint32_t round = 0; seen != 0 && round < SHC_ARENA_ROUNDS; round++) {
        uint64_t taken = lowest_bits(seen, want);
        if (shc_a64_cas_seq_cst(word, &seen, seen & ~taken)) /* AR3 */
            return taken;
    }
    return 0;
}

/* The magazine gets up to `want` blocks in all that hint bits tell of. */
static void
take_by_bits(shc_arena_t *a, uint32_t page, uint32_t class, uint32_t want)
{
    uint32_t count = a->class[class].count;
    shc_a64_t *bits = shc_arena__bits(a, page);
    for (uint32_t i = 0; i < (count + 63) / 64; i++) {
        for (uint32_t round = 0; a->count[class] < want && round < SHC_ARENA_ROUNDS; round++) {
            uint64_t taken = take_bits(&bits[i], want - a->count[class]);
            if (taken == 0)
                break;
            for (; taken != 0; taken &= taken - 1) {
                uint32_t block = 64 * i + shc_lowest_bit(taken);
                if (block < count)
                    (void)claim_block(a, page, class, block);
            }
        }
    }
}

/* The same from the state words themselves: finds what lost its bit. */
static void
take_by_states(shc_arena_t *a, uint32_t page, uint32_t class, uint32_t want)
{
    for (uint32_t block = 0; block < a->class[class].count && a->count[class] < want; block++)
        (void)claim_block(a, page, class, block);
}

static bool
is_slab_of(uint64_t page_word, uint32_t class)
{
    return shc_arena__is_open_slab(page_word) && shc_arena_length_of(page_word) == class;
}

/* True if the magazine has something now. */
static bool
take_from(shc_arena_t *a, uint32_t page, uint32_t class, bool by_states)
{
    uint32_t want = depth_of(class) / 2;
    if (page >= a->frontier && page >= shc_arena__frontier(a))
        return false;
    if (is_slab_of(shc_arena__enter(a, shc_arena__owner(a), page), class)) {
        if (by_states)
            take_by_states(a, page, class, want);
        else
            take_by_bits(a, page, class, want);
    }
    shc_arena__exit(a, shc_arena__owner(a));
    if (a->count[class] == 0)
        return false;
    a->slab[class] = page + 1;
    return true;
}

/* Looks at up to `n` pages from where the last look ended. A page word in the middle of a run says neither of what is
 * looked for. */
static bool
take_from_any(shc_arena_t *a, uint32_t class, uint32_t n, bool by_states)
{
    uint32_t frontier = shc_arena__frontier(a), page = a->scan;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length;
        page = page < frontier ? page : 0;
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (is_slab_of(word, class) && take_from(a, page, class, by_states)) {
            a->scan = page;
            return true;
        }
        (void)shc_arena__walk(a, word, page, &frontier, &length);
        i += length - 1;
        page += length;
    }
    a->scan = page < frontier ? page : 0;
    return false;
}

static bool
take_from_hints(shc_arena_t *a, uint32_t class)
{
    uint32_t page;
    if (a->slab[class] != 0 && take_from(a, a->slab[class] - 1, class, false))
        return true;
    a->slab[class] = 0;
    for (uint32_t i = 0; i < 2 && shc_arena__pop_hint(&a->shm->slabs[class], &page); i++)
        if (take_from(a, page, class, false)) {
            shc_arena__push_hint(&a->shm->slabs[class], page); /* there may be more */
            return true;
        }
    return false;
}

/* ---- a new slab ---- */

/* The first `want` blocks go to the magazine, the rest are FREE. The store of the page word makes it a slab. */
static void
make_slab(shc_arena_t *a, uint32_t page, uint32_t class, uint32_t want)
{
    uint32_t count = a->class[class].count;
    uint32_t mine = want < count ? want : count;
    uint32_t generation = shc_arena__generation(shc_a64_load_relaxed(shc_arena__word(a, page)));
    shc_a64_t *bits = shc_arena__bits(a, page);
    shc_a32_t *states = shc_arena__states(a, page, class);
    for (uint32_t i = 0; i < (count + 63) / 64; i++) {
        uint64_t there = count - 64 * i < 64 ? (UINT64_C(1) << (count - 64 * i)) - 1 : UINT64_MAX;
        shc_a64_store_relaxed(&bits[i], i == 0 ? there & ~((UINT64_C(1) << mine) - 1) : there);
    }
    for (uint32_t i = 0; i < count; i++)
        shc_a32_store_relaxed(&states[i], i < mine ? shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), generation)
                                                   : shc_arena_state(SHC_ARENA_FREE, 0, generation));
    uint64_t slab = shc_arena_page(SHC_ARENA_SLAB, class, shc_arena_state(SHC_ARENA_FREE, 0, generation));
    shc_a64_store_release(shc_arena__word(a, page), slab); /* R1 */
    for (uint32_t i = mine; i-- > 0;)
        cache(a, class, shc_arena__ref_of(a, page, class, i, generation));
    a->slab[class] = page + 1;
    if (a->made[class] < SHC_ARENA_MADE_MAX)
        a->made[class]++;
    if (mine < count)
        shc_arena__push_hint(&a->shm->slabs[class], page);
}

/* A slab of the class was just made: more of them, if it was not the first. */
static void
stock_up(shc_arena_t *a, uint32_t class)
{
    uint32_t page, more = (a->made[class] - 1u) * a->g.growth / 100;
    more = more < SHC_ARENA_MADE_MAX ? more : SHC_ARENA_MADE_MAX;
    while (more-- > 0 && shc_arena__take_free_pages(a, 1, &page) == 0)
        make_slab(a, page, class, 0);
}

#define SCAN_SHORT 16u /* pages that are looked at before a new slab is made of a free one */

int
shc_arena__refill(shc_arena_t *a, uint32_t class)
{
    uint32_t page, frontier = shc_arena__frontier(a);
    uint32_t few = frontier < SCAN_SHORT ? frontier : SCAN_SHORT;
    if (take_from_hints(a, class) || take_from_any(a, class, few, false))
        return 0;
    int r = shc_arena__take_free_pages(a, 1, &page);
    if (r == SHC_FULL && shc_arena__is_look_due(a) && take_from_any(a, class, frontier, false))
        return 0;
    if (r == SHC_FULL)
        r = shc_arena__find_pages(a, 1, &page);
    if (r != 0 && r != SHC_E_CORRUPT) {
        if (take_from_any(a, class, frontier, false))
            return 0;
        r = shc_arena__take_pages(a, 1, &page);
    }
    if (r == 0) {
        make_slab(a, page, class, depth_of(class) / 2);
        stock_up(a, class);
    } else if (take_from_any(a, class, shc_arena__frontier(a), true)) {
        r = 0;
    }
    return r;
}

/* ---- giving back ---- */

void
shc_arena__mark_free(shc_arena_t *a, uint32_t page, uint32_t word, uint64_t bits)
{
    (void)shc_a64_fetch_or_seq_cst(&shc_arena__bits(a, page)[word], bits); /* AR3 */
}

/* Where a block from our own magazine lies: no question of what the segment says. */
static uint32_t
cached_block(const shc_arena_t *a, uint32_t class, shc_ref_t ref, uint32_t *page)
{
    const shc_arena_class_t *c = &a->class[class];
    unsigned shift = a->g.page_shift - 4;
    uint64_t unit = (ref & SHC_ARENA_PLACE_MASK) - a->g.data / SHC_ARENA_UNIT;
    *page = (uint32_t)(unit >> shift);
    return (uint32_t)(((unit & ((UINT64_C(1) << shift) - 1)) - c->first) * c->reciprocal >> SHC_ARENA_RECIPROCAL);
}

/* Frees blocks in a row whose hint bits are in one word; returns how many. The hint bit follows the state, and between
 * the two the slab could be emptied: hence the announcement, though they are our own. */
static uint32_t
free_some(shc_arena_t *a, uint32_t class, const shc_ref_t *refs, uint32_t n)
{
    uint32_t page, block = cached_block(a, class, refs[0], &page), next = page, i = 0;
    bool sound = is_slab_of(shc_arena__enter(a, shc_arena__owner(a), page), class);
    shc_a32_t *states = shc_arena__states(a, page, class);
    uint32_t word = block / 64;
    uint64_t bits = 0;
    while (next == page && block / 64 == word) {
        uint32_t generation = shc_arena_ref_generation(refs[i]);
        if (sound) /* else a scribbler was at the page word */
            shc_a32_store_release(&states[block], shc_arena_state(SHC_ARENA_FREE, 0, generation)); /* R2 */
        bits |= UINT64_C(1) << block % 64;
        if (++i == n)
            break;
        block = cached_block(a, class, refs[i], &next);
    }
    if (sound)
        shc_arena__mark_free(a, page, word, bits);
    shc_arena__exit(a, shc_arena__owner(a));
    shc_arena__push_hint(&a->shm->slabs[class], page);
    return i;
}

void
shc_arena__flush(shc_arena_t *a, uint32_t class, uint32_t n)
{
    shc_ref_t *cached = &a->cache[shc_arena_cache_at(class)];
    uint32_t rest = a->count[class] - n;
    for (uint32_t i = 0; i < n;)
        i += free_some(a, class, cached + i, n - i); /* the oldest: what was used last stays */
    memmove(cached, cached + n, rest * sizeof *cached);
    a->count[class] = (uint8_t)rest;
    shc_a8_store_relaxed(&a->parties[a->seg->index].cached[class], (uint8_t)rest);
}

void
shc_arena__flush_all(shc_arena_t *a)
{
    for (uint32_t c = 0; c < a->classes; c++)
        if (a->count[c] != 0)
            shc_arena__flush(a, c, a->count[c]);
}

/* ---- emptying slabs ---- */

static bool
looks_empty(const shc_a32_t *states, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (shc_arena_state_of(shc_a32_load_relaxed(&states[i])) != SHC_ARENA_FREE)
            return false;
    return true;
}

/* Puts back the first n blocks of a slab that were claimed to empty it. */
static void
unclaim(shc_arena_t *a, uint32_t page, shc_a32_t *states, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t generation = shc_arena_generation_of(shc_a32_load_relaxed(&states[i]));
        shc_a32_store_release(&states[i], shc_arena_state(SHC_ARENA_FREE, 0, generation)); /* R2 */
        shc_arena__mark_free(a, page, i / 64, UINT64_C(1) << i % 64);
    }
}

/* FREE -> OWNED(me) for every block. *advance: how far the one that was released most often is ahead of
 * `generation`. */
static bool
claim_all(shc_arena_t *a, uint32_t page, shc_a32_t *states, uint32_t count, uint32_t generation, uint32_t *advance)
{
    *advance = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t seen = shc_a32_load_relaxed(&states[i]), g = shc_arena_generation_of(seen);
        uint32_t mine = shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), g);
        if (seen != shc_arena_state(SHC_ARENA_FREE, 0, g) || !shc_a32_cas_acquire(&states[i], &seen, mine)) { /* A2 */
            unclaim(a, page, states, i);
            return false;
        }
        uint32_t ahead = (g - generation) & SHC_ARENA_GENERATION_MASK;
        *advance = ahead > *advance ? ahead : *advance;
    }
    return true;
}

/* Whether somebody else is about to change words of this page. */
static bool
is_announced(const shc_arena_t *a, uint32_t page)
{
    for (uint32_t i = 0; i < a->g.participants; i++)
        if (i != a->seg->index && shc_a64_load_acquire(&a->parties[i].page) == page + UINT64_C(1)) /* A5 */
            return true;
    return false;
}

/* All blocks are ours: SLAB -> SLAB OWNED(me) -> RUN OWNED(me), or open again. */
static bool
close_slab(shc_arena_t *a, uint32_t page, uint64_t open, uint32_t generation)
{
    shc_a64_t *word = shc_arena__word(a, page);
    uint64_t seen = open;
    uint64_t marked =
        shc_arena_page(SHC_ARENA_SLAB, shc_arena_length_of(open),
                       shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), shc_arena__generation(open)));
    if (!shc_a64_cas_seq_cst(word, &seen, marked)) /* AR1 */
        return false;
    shc_fence_seq_cst(); /* SC1 */
    bool free = !is_announced(a, page);
    uint64_t after = free ? shc_arena__run(SHC_ARENA_OWNED, shc_arena__owner(a), generation, 1) : open;
    shc_a64_store_release(word, after); /* R1 */
    return free;
}

/* The next generation of the page is above that of each block, so that no reference to one of them fits again. */
static bool
empty_announced(shc_arena_t *a, uint32_t page, uint64_t word, uint32_t *generation)
{
    uint32_t class = shc_arena_length_of(word), advance;
    if (!shc_arena__is_open_slab(word) || class >= a->classes)
        return false;
    shc_a32_t *states = shc_arena__states(a, page, class);
    uint32_t count = a->class[class].count, first = shc_arena__generation(word);
    if (!looks_empty(states, count) || !claim_all(a, page, states, count, first, &advance))
        return false;
    *generation = first + advance + 1;
    if (close_slab(a, page, word, *generation))
        return true;
    unclaim(a, page, states, count);
    return false;
}

static bool
empty_slab(shc_arena_t *a, uint32_t page)
{
    uint32_t generation;
    uint64_t word = shc_arena__enter(a, shc_arena__owner(a), page);
    bool done = empty_announced(a, page, word, &generation);
    shc_arena__exit(a, shc_arena__owner(a));
    if (done)
        shc_arena__free_pages(a, page, 1, generation);
    return done;
}

void
shc_arena__empty_slabs(shc_arena_t *a)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        (void)shc_arena__walk(a, word, page, &frontier, &length);
        if (shc_arena__is_open_slab(word))
            (void)empty_slab(a, page);
    }
}
