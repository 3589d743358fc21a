/* Pages: runs, growth, and giving memory back to the system. */
#include "seg/shc_arena_internal.h"

#define TABLE_STEP UINT64_C(4096) /* the page words' memory is reserved up to a multiple of this */

/* ---- free runs ---- */

static void
store_run(shc_arena_t *a, uint32_t page, uint32_t state, uint32_t generation, uint32_t length)
{
    uint32_t owner = state == SHC_ARENA_FREE ? 0 : shc_arena__owner(a);
    uint64_t word = shc_arena__run(state, owner, generation, length);
    shc_a64_store_release(shc_arena__word(a, page), word); /* R1 */
}

static uint32_t
generation_at(const shc_arena_t *a, uint32_t page)
{
    return shc_arena__generation(shc_a64_load_relaxed(shc_arena__word(a, page)));
}

void
shc_arena__free_pages(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t generation)
{
    store_run(a, page, SHC_ARENA_FREE, generation, length);
    shc_arena__push_hint(&a->shm->runs[shc_floor_log2(length)], page);
    uint64_t low = shc_a64_load_relaxed(&a->shm->low);
    for (uint32_t round = 0; page < low && round < SHC_ARENA_ROUNDS; round++)
        if (shc_a64_cas_seq_cst(&a->shm->low, &low, page)) /* AR3 */
            break;
}

/* A run of `length` that is ours keeps its first n pages; the rest is free. The new head is written while it is still
 * covered, then uncovered, both OWNED. */
static void
trim(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t n)
{
    if (length == n)
        return;
    uint32_t generation = generation_at(a, page + n);
    store_run(a, page + n, SHC_ARENA_OWNED, generation, length - n);
    store_run(a, page, SHC_ARENA_OWNED, generation_at(a, page), n);
    shc_arena__free_pages(a, page + n, length - n, generation);
}

/* FREE -> OWNED(me), if the page begins a free run. *length: its pages, bounded. */
static bool
claim_run(shc_arena_t *a, uint32_t page, uint64_t seen, uint32_t *length)
{
    if (!shc_arena__is_free_run(seen) || !shc_arena__step(seen, a->frontier - page, length))
        return false;
    uint64_t mine = shc_arena__run(SHC_ARENA_OWNED, shc_arena__owner(a), shc_arena__generation(seen), *length);
    return shc_a64_cas_seq_cst(shc_arena__word(a, page), &seen, mine); /* AR1, A1 */
}

/* What was freed last is warm in the caches. Only a run of about that length: cutting up others at random would scatter
 * what stays for long. */
static bool
take_hinted(shc_arena_t *a, uint32_t n, uint32_t *page)
{
    uint32_t length;
    if (!shc_arena__pop_hint(&a->shm->runs[shc_floor_log2(n)], page) || *page >= shc_arena__frontier(a))
        return false;
    uint64_t seen = shc_a64_load_acquire(shc_arena__word(a, *page)); /* A1 */
    if (shc_arena_length_of(seen) < n || shc_arena_length_of(seen) >= 2 * n || !claim_run(a, *page, seen, &length))
        return false;
    trim(a, *page, length, n);
    return true;
}

/* ---- windows: pages beside each other that are free, or can be made so ---- */

typedef struct window {
    uint32_t first;
    uint32_t length;
    uint32_t first_free; /* the lowest free run that was seen on the way, or the end of the arena */
    uint64_t backed;     /* pages with memory that were seen */
} window_t;

/* The first one of at least n pages in [from, frontier); with `growing`, UNBACKED pages count, and so do those beyond
 * the frontier. */
static bool
find_window(shc_arena_t *a, uint32_t from, uint32_t n, bool growing, window_t *w)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    *w = (window_t){.first = from, .first_free = a->g.pages};
    for (uint32_t page = from; page < frontier && w->length < n; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        bool sound = shc_arena__walk(a, word, page, &frontier, &length);
        bool free = sound && shc_arena__is_free_run(word);
        bool unbacked = shc_arena_kind_of(word) == SHC_ARENA_UNBACKED;
        w->backed += unbacked ? 0 : length;
        if (free && page < w->first_free)
            w->first_free = page;
        if (free || (growing && unbacked))
            w->length += length;
        else
            *w = (window_t){.first = page + length, .first_free = w->first_free, .backed = w->backed};
    }
    if (growing && w->length < n && w->first + w->length == frontier)
        w->length += a->g.pages - frontier;
    return w->length >= n;
}

/* UNBACKED -> MOVING(me). */
static bool
claim_unbacked(shc_arena_t *a, uint32_t page, uint64_t seen)
{
    if (shc_arena_kind_of(seen) != SHC_ARENA_UNBACKED)
        return false;
    uint32_t mine = shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), shc_arena__generation(seen));
    return shc_a64_cas_seq_cst(shc_arena__word(a, page), &seen, shc_arena_page(SHC_ARENA_MOVING, 1, mine)); /* AR1 */
}

/* How many pages from `page` on are MOVING in a window that is ours. */
static uint32_t
count_moving(const shc_arena_t *a, uint32_t page, uint32_t end)
{
    uint32_t n = 0;
    while (page + n < end && shc_arena_kind_of(shc_a64_load_relaxed(shc_arena__word(a, page + n))) == SHC_ARENA_MOVING)
        n++;
    return n;
}

/* What lies in [first, end) and was claimed goes back to what it was. */
static void
unclaim(shc_arena_t *a, uint32_t first, uint32_t end)
{
    uint32_t length;
    for (uint32_t page = first; page < end; page += length) {
        length = count_moving(a, page, end);
        if (length > 0) {
            shc_arena__unback(a, page, length, shc_arena__owner(a));
            continue;
        }
        uint64_t word = shc_a64_load_relaxed(shc_arena__word(a, page));
        (void)shc_arena__step(word, end - page, &length);
        shc_arena__free_pages(a, page, length, shc_arena__generation(word));
    }
}

/* Claims piece after piece, upwards, until there are `most` pages or something is in the way. Returns the pages that
 * are ours now: at least n, or 0 (then nothing is). */
static uint32_t
claim_window(shc_arena_t *a, uint32_t first, uint32_t n, uint32_t most, bool growing)
{
    uint32_t page = first, length;
    while (page - first < most && page < a->frontier) {
        uint64_t seen = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (claim_run(a, page, seen, &length))
            page += length;
        else if (growing && claim_unbacked(a, page, seen))
            page++;
        else
            break;
    }
    if (page - first >= n)
        return page - first;
    unclaim(a, first, page);
    return 0;
}

/* ---- from what is free ---- */

/* Nothing is free below `page`, unless somebody has released a run since *low was looked at. */
static void
raise_low(shc_arena_t *a, uint64_t low, uint32_t page)
{
    (void)shc_a64_cas_seq_cst(&a->shm->low, &low, page); /* AR3 */
}

/* SHC_AGAIN: somebody was faster. */
static int
take_window(shc_arena_t *a, uint32_t from, uint32_t n, uint32_t *page)
{
    window_t w;
    uint64_t low = shc_a64_load_relaxed(&a->shm->low);
    bool found = find_window(a, from, n, false, &w);
    uint32_t length = found ? claim_window(a, w.first, n, n, false) : 0;
    if (found && length == 0)
        return SHC_AGAIN;
    bool takes_lowest = found && w.first_free == w.first;
    if (from == 0 || takes_lowest)
        raise_low(a, low, takes_lowest ? w.first + n : w.first_free);
    if (!found)
        return SHC_FULL;
    store_run(a, w.first, SHC_ARENA_OWNED, generation_at(a, w.first), length);
    trim(a, w.first, length, n);
    *page = w.first;
    return 0;
}

int
shc_arena__take_free_pages(shc_arena_t *a, uint32_t n, uint32_t *page)
{
    uint64_t low = shc_a64_load_relaxed(&a->shm->low);
    uint32_t from = low < shc_arena__frontier(a) ? (uint32_t)low : 0;
    int r = SHC_AGAIN;
    for (uint32_t round = 0; r == SHC_AGAIN && round < SHC_ARENA_ROUNDS; round++) {
        r = take_window(a, from, n, page);
        if (r == SHC_FULL && from != 0) {
            from = 0; /* `low` is a hint */
            r = SHC_AGAIN;
        }
    }
    return r == SHC_AGAIN ? SHC_FULL : r;
}

/* ---- growth ---- */

/* The page words below `end` get memory. */
static int
raise_frontier(shc_arena_t *a, uint32_t end)
{
    uint32_t frontier = shc_arena__frontier(a);
    while (frontier < end) {
        uint64_t from = shc_align_up(frontier * sizeof(shc_a64_t), TABLE_STEP), to = end * sizeof(shc_a64_t);
        int r = from < to ? shc_seg_reserve(a->seg, a->g.words + from, to - from) : 0;
        if (r != 0)
            return r;
        uint64_t seen = frontier;
        (void)shc_a64_cas_seq_cst(&a->shm->frontier, &seen, end); /* AR4 */
        uint32_t before = frontier;
        frontier = shc_arena__frontier(a);
        if (frontier == before)
            return SHC_E_CORRUPT; /* it fell */
    }
    return 0;
}

/* Memory for the MOVING(me) pages of a claimed window. */
static int
reserve_window(shc_arena_t *a, uint32_t first, uint32_t end)
{
    uint32_t length;
    for (uint32_t page = first; page < end; page += length) {
        length = count_moving(a, page, end);
        if (length == 0) {
            (void)shc_arena__step(shc_a64_load_relaxed(shc_arena__word(a, page)), end - page, &length);
            continue;
        }
        int r = shc_seg_reserve(a->seg, shc_arena__page_offset(a, page), (uint64_t)length << a->g.page_shift);
        if (r != 0)
            return r;
    }
    return 0;
}

/* A window of n pages, and up to `most` if it is that long. */
static int
grow_by(shc_arena_t *a, const window_t *w, uint32_t n, uint32_t most, uint32_t *page)
{
    uint32_t room = a->g.pages - w->first;
    int r = raise_frontier(a, w->first + (most < room ? most : room));
    if (r != 0)
        return r;
    uint32_t length = claim_window(a, w->first, n, most, true);
    if (length == 0)
        return SHC_AGAIN;
    r = reserve_window(a, w->first, w->first + length);
    if (r != 0) {
        unclaim(a, w->first, w->first + length);
        return r;
    }
    store_run(a, w->first, SHC_ARENA_OWNED, generation_at(a, w->first), length);
    trim(a, w->first, length, n);
    *page = w->first;
    return 0;
}

static int
grow(shc_arena_t *a, uint32_t n, uint32_t *page)
{
    window_t w;
    int r = SHC_AGAIN;
    for (uint32_t round = 0; r == SHC_AGAIN && round < SHC_ARENA_ROUNDS; round++) {
        if (!find_window(a, 0, n, true, &w))
            return SHC_FULL;
        uint64_t step = w.backed * a->g.growth / 100;
        uint32_t most = step <= n ? n : step < a->g.pages ? (uint32_t)step : a->g.pages;
        r = grow_by(a, &w, n, most, page);
        if (r < 0 && most > n)
            r = grow_by(a, &w, n, n, page);
    }
    return r == SHC_AGAIN ? SHC_FULL : r;
}

int
shc_arena__take_pages(shc_arena_t *a, uint32_t n, uint32_t *page)
{
    if (take_hinted(a, n, page))
        return 0;
    int r = shc_arena__take_free_pages(a, n, page);
    if (r == SHC_FULL)
        r = grow(a, n, page);
    if (r == 0 || r == SHC_E_CORRUPT)
        return r;
    shc_arena__flush_all(a);
    shc_arena__empty_slabs(a);
    int why = r;
    r = shc_arena__take_free_pages(a, n, page);
    if (r == SHC_FULL && why == SHC_FULL)
        r = grow(a, n, page); /* a slab between two holes */
    if (r != 0)
        a->shortages = shc_a64_fetch_add_relaxed(&a->shm->shortages, 1) + 1;
    return r == SHC_FULL ? why : r;
}

/* ---- back to the system ---- */

static void
store_moving(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t owner)
{
    uint32_t state = shc_arena_state(SHC_ARENA_OWNED, owner, generation_at(a, page));
    shc_a64_store_release(shc_arena__word(a, page), shc_arena_page(SHC_ARENA_MOVING, length, state)); /* R1 */
}

/* MOVING(owner) of `length` pages, whose memory is gone: each page by itself, then UNBACKED. The words of the covered
 * pages are made MOVING before they are uncovered, the last one first: who walks by meanwhile goes from one that is
 * written to others that are, never to a word from an earlier life of its page (lemma of the sweep). */
static void
dissolve(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t owner)
{
    for (uint32_t i = length; i-- > 1;)
        store_moving(a, page + i, 1, owner);
    if (length > 1)
        store_moving(a, page, 1, owner);
    for (uint32_t i = 0; i < length; i++) {
        uint32_t state = shc_arena_state(SHC_ARENA_FREE, 0, generation_at(a, page + i));
        uint64_t unbacked = shc_arena_page(SHC_ARENA_UNBACKED, 0, state);
        shc_a64_store_release(shc_arena__word(a, page + i), unbacked); /* R1 */
    }
}

static int
give_back(shc_arena_t *a, uint32_t page, uint32_t length)
{
    return shc_seg_give_back(a->seg, shc_arena__page_offset(a, page), (uint64_t)length << a->g.page_shift);
}

void
shc_arena__unback(shc_arena_t *a, uint32_t page, uint32_t length, uint32_t owner)
{
    int r = give_back(a, page, length);
    (void)r; /* what the system does not take is there when the page is reserved again */
    dissolve(a, page, length, owner);
}

/* True if the system took it. */
static bool
give_run_back(shc_arena_t *a, uint32_t page, uint64_t seen)
{
    uint32_t length;
    if (!claim_run(a, page, seen, &length))
        return false;
    store_moving(a, page, length, shc_arena__owner(a));
    if (give_back(a, page, length) != 0) {
        shc_arena__free_pages(a, page, length, generation_at(a, page));
        return false;
    }
    dissolve(a, page, length, shc_arena__owner(a));
    return true;
}

/* A free run is cut behind its first n pages. If somebody is faster it stays as long as it was, for this time. */
static void
cut(shc_arena_t *a, uint32_t page, uint64_t seen, uint32_t n, uint32_t *length)
{
    if (!claim_run(a, page, seen, length))
        return;
    trim(a, page, *length, n);
    shc_arena__free_pages(a, page, n, generation_at(a, page));
    *length = n;
}

uint64_t
shc_arena_cleanup(shc_arena_t *a, uint64_t keep)
{
    uint64_t left = shc_arena__pages_for(a, keep), given = 0;
    uint32_t frontier = shc_arena__frontier(a), length;
    shc_arena__flush_all(a);
    shc_arena__empty_slabs(a);
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        bool sound = shc_arena__walk(a, word, page, &frontier, &length);
        if (!sound || !shc_arena__is_free_run(word))
            continue;
        if (left > 0 && left < length)
            cut(a, page, word, (uint32_t)left, &length);
        if (left > 0)
            left -= length < left ? length : left;
        else if (give_run_back(a, page, word))
            given += (uint64_t)length << a->g.page_shift;
    }
    return given;
}
