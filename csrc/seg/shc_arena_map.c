/* Where free runs begin: hints, so that nobody needs to look at all page words. The argument is in
 * shc_arena.h. */
#include "seg/shc_arena_internal.h"

#define GROUP_PAGES SHC_ARENA_GROUP_PAGES

/* A bit and the word it is in. */
typedef struct mark {
    shc_a64_t *word;
    uint64_t bit;
} mark_t;

static shc_arena_map_shm_t *
map_of(const shc_arena_t *a, uint32_t page)
{
    return &a->maps[page / SHC_ARENA_MAP_PAGES];
}

static mark_t
top_of(const shc_arena_t *a, uint32_t bucket, uint32_t page)
{
    return (mark_t){&a->shm->tops[bucket], UINT64_C(1) << (page / SHC_ARENA_MAP_PAGES >> a->g.top_shift)};
}

static mark_t
group_of(const shc_arena_t *a, uint32_t bucket, uint32_t page)
{
    return (mark_t){&map_of(a, page)->groups[bucket], UINT64_C(1) << page / GROUP_PAGES % 64};
}

static bool
is_set(mark_t m)
{
    return (shc_a64_load_relaxed(m.word) & m.bit) != 0;
}

/* ---- setting ---- */

/* What it tells of was stored before. */
static void
set(mark_t m)
{
    if (is_set(m))
        return;
    (void)shc_a64_fetch_or_seq_cst(m.word, m.bit); /* AR3 */
    shc_fence_seq_cst();                           /* SC3: the next level is looked at */
}

static void
set_group(shc_arena_t *a, uint32_t bucket, uint32_t page)
{
    set(group_of(a, bucket, page));
    set(top_of(a, bucket, page));
}

void
shc_arena__mark_run(shc_arena_t *a, uint32_t page, uint32_t length)
{
    shc_fence_seq_cst(); /* SC3 */
    set_group(a, shc_floor_log2(length), page);
}

bool
shc_arena__is_marked(const shc_arena_t *a, uint32_t page, uint32_t length)
{
    uint32_t bucket = shc_floor_log2(length);
    return is_set(group_of(a, bucket, page)) && is_set(top_of(a, bucket, page));
}

/* ---- clearing ---- */

/* False: somebody else has just changed the word, and the bit stays for the next one who is misled. */
static bool
clear(mark_t m)
{
    uint64_t seen = shc_a64_load_relaxed(m.word);
    if ((seen & m.bit) == 0 || !shc_a64_cas_seq_cst(m.word, &seen, seen & ~m.bit)) /* AR3 */
        return false;
    shc_fence_seq_cst(); /* SC3 */
    return true;
}

static bool
has_run(shc_arena_t *a, uint32_t bucket, uint32_t group)
{
    uint32_t frontier = shc_arena__frontier(a);
    for (uint32_t page = group; page < group + GROUP_PAGES && page < frontier; page++) {
        uint64_t word = shc_a64_load_relaxed(shc_arena__word(a, page));
        uint32_t length = shc_arena_length_of(word);
        if (shc_arena__is_free_run(word) && length != 0 && shc_floor_log2(length) == bucket)
            return true;
    }
    return false;
}

/* The last look comes after that: who frees a run later finds the bit cleared, and sets it. Both levels are set again,
 * as the upper one may have been cleared meanwhile for want of this bit. */
void
shc_arena__clear_group(shc_arena_t *a, uint32_t bucket, uint32_t group)
{
    if (clear(group_of(a, bucket, group)) && has_run(a, bucket, group))
        set_group(a, bucket, group);
}

/* ---- looking ---- */

/* The maps that a bit of tops[] stands for begin with this one. */
static uint32_t
first_map(const shc_arena_t *a, uint32_t top)
{
    uint32_t map = top << a->g.top_shift, maps = shc_arena_maps(&a->g);
    return map < maps ? map : maps;
}

static bool
has_group(const shc_arena_t *a, uint32_t bucket, uint32_t top)
{
    for (uint32_t map = first_map(a, top); map < first_map(a, top + 1); map++)
        if (shc_a64_load_relaxed(&a->maps[map].groups[bucket]) != 0)
            return true;
    return false;
}

static void
check_top(shc_arena_t *a, uint32_t bucket, uint32_t top)
{
    mark_t m = {&a->shm->tops[bucket], UINT64_C(1) << top};
    if (!has_group(a, bucket, top) && clear(m) && has_group(a, bucket, top))
        set(m);
}

static uint32_t
next_below_top(const shc_arena_t *a, uint32_t bucket, uint32_t top, uint32_t from)
{
    uint32_t map = first_map(a, top), end = first_map(a, top + 1), begin = from / SHC_ARENA_MAP_PAGES;
    for (map = map < begin ? begin : map; map < end; map++) {
        uint64_t groups = shc_a64_load_relaxed(&a->maps[map].groups[bucket]);
        if (map == begin)
            groups &= UINT64_MAX << from / GROUP_PAGES % 64;
        if (groups != 0)
            return map * SHC_ARENA_MAP_PAGES + shc_lowest_bit(groups) * GROUP_PAGES;
    }
    return SHC_ARENA_NO_PAGE;
}

uint32_t
shc_arena__next_marked(shc_arena_t *a, uint32_t bucket, uint32_t from)
{
    if (from >= a->g.pages)
        return SHC_ARENA_NO_PAGE;
    mark_t first = top_of(a, bucket, from);
    uint64_t tops = shc_a64_load_relaxed(first.word) & ~(first.bit - 1);
    for (; tops != 0; tops &= tops - 1) {
        uint32_t page = next_below_top(a, bucket, shc_lowest_bit(tops), from);
        if (page != SHC_ARENA_NO_PAGE)
            return page;
        check_top(a, bucket, shc_lowest_bit(tops));
    }
    return SHC_ARENA_NO_PAGE;
}
