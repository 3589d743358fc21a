/* Geometry, handles, and the steps of one block. */
#include "seg/shc_arena.h"

#include <string.h>

#include "base/shc_math.h"
#include "seg/shc_arena_internal.h"

/* ---- geometry ---- */

#define SYSTEM_PAGE UINT64_C(4096) /* tables that are backed apart begin on one; larger ones are backed sooner */

static bool
is_geometry(const shc_arena_geometry_t *g)
{
    return g->page_shift >= SHC_ARENA_PAGE_SHIFT_MIN && g->page_shift <= SHC_ARENA_PAGE_SHIFT_MAX && g->pages >= 1 &&
           g->pages <= SHC_ARENA_PAGES_MAX && g->initial <= g->pages && g->participants >= 1 &&
           g->participants <= SHC_PARTICIPANT_MAX && g->growth <= UINT16_MAX && g->records <= UINT16_MAX &&
           g->at % (UINT64_C(1) << g->page_shift) == 0 && g->at < SHC_ARENA_END_MAX;
}

int
shc_arena_lay_out(shc_arena_geometry_t *g)
{
    if (!is_geometry(g))
        return -EINVAL;
    uint64_t page = UINT64_C(1) << g->page_shift;
    g->parties = g->at + sizeof(shc_arena_shm_t);
    g->words = shc_align_up(g->parties + g->participants * sizeof(shc_arena_party_shm_t), SYSTEM_PAGE);
    g->record_stride = shc_align_up((uint64_t)g->records * sizeof(shc_a64_t), SYSTEM_PAGE);
    g->record_table = shc_align_up(g->words + (uint64_t)g->pages * sizeof(shc_a64_t), SYSTEM_PAGE);
    g->data = shc_align_up(g->record_table + g->participants * g->record_stride, page);
    g->end = g->data + ((uint64_t)g->pages << g->page_shift);
    return g->end <= SHC_ARENA_END_MAX ? 0 : SHC_E_TOO_LARGE;
}

void
shc_arena_to_config(const shc_arena_geometry_t *g, uint64_t config[SHC_ARENA_CONFIG_WORDS])
{
    config[0] = g->pages | (uint64_t)g->page_shift << 32 | (uint64_t)g->growth << 40;
    config[1] = g->initial | (uint64_t)g->records << 32;
}

int
shc_arena_from_config(const uint64_t config[SHC_ARENA_CONFIG_WORDS], uint64_t at, uint32_t participants,
                      shc_arena_geometry_t *g)
{
    *g = (shc_arena_geometry_t){.at = at,
                                .pages = (uint32_t)config[0],
                                .initial = (uint32_t)config[1],
                                .page_shift = (uint32_t)(config[0] >> 32) & 0xff,
                                .growth = (uint32_t)(config[0] >> 40),
                                .records = (uint32_t)(config[1] >> 32),
                                .participants = participants};
    return shc_arena_lay_out(g) == 0 ? 0 : SHC_E_CORRUPT;
}

void
shc_arena_reservation(const shc_arena_geometry_t *g, uint64_t body, shc_seg_range_t ranges[2])
{
    uint64_t tables = g->words + (uint64_t)g->initial * sizeof(shc_a64_t) - g->at;
    ranges[0] = (shc_seg_range_t){.from = g->at - body, .n = tables};
    ranges[1] = (shc_seg_range_t){.from = g->data - body, .n = (uint64_t)g->initial << g->page_shift};
}

static shc_arena_class_t
lay_out_class(uint32_t c, uint32_t page_shift)
{
    uint32_t page = UINT32_C(1) << page_shift;
    uint32_t size = (uint32_t)shc_arena_class_size(c), states, first;
    uint32_t count = page / (size + (uint32_t)sizeof(shc_a32_t)); /* at most */
    do {
        states = (count + 63) / 64 * (uint32_t)sizeof(shc_a64_t);
        first = (uint32_t)shc_align_up(states + count * sizeof(shc_a32_t), SHC_CACHE_LINE);
    } while (first + count * size > page && count-- > 1);
    uint32_t units = size / SHC_ARENA_UNIT;
    return (shc_arena_class_t){.reciprocal = ((UINT32_C(1) << SHC_ARENA_RECIPROCAL) + units - 1) / units,
                               .size = (uint16_t)units,
                               .first = (uint16_t)(first / SHC_ARENA_UNIT),
                               .count = (uint16_t)count,
                               .states = (uint16_t)states};
}

/* ---- life ---- */

void
shc_arena_init(shc_seg_t *seg, const shc_arena_geometry_t *g)
{
    shc_arena_shm_t *shm = shc_seg_at(seg, g->at);
    shc_a64_t *words = shc_seg_at(seg, g->words);
    shc_a64_store_relaxed(&shm->frontier, g->initial);
    for (uint32_t i = 1; i < g->initial; i++) /* covered: lemma of the chain */
        shc_a64_store_relaxed(&words[i], shc_arena_page(SHC_ARENA_MOVING, 1, 0));
    if (g->initial > 0)
        shc_a64_store_relaxed(&words[0], shc_arena__run(SHC_ARENA_FREE, 0, 0, g->initial));
}

void
shc_arena_open(shc_arena_t *a, shc_seg_t *seg, const shc_arena_geometry_t *g)
{
    memset(a, 0, sizeof *a);
    a->seg = seg;
    a->shm = shc_seg_at(seg, g->at);
    a->parties = shc_seg_at(seg, g->parties);
    a->words = shc_seg_at(seg, g->words);
    a->g = *g;
    a->small_max = (UINT64_C(1) << g->page_shift) / 16 * 7;
    a->classes = shc_arena_class_of(a->small_max) + 1;
    for (uint32_t c = 0; c < a->classes; c++)
        a->class[c] = lay_out_class(c, g->page_shift);
    a->shortages = shc_a64_load_relaxed(&a->shm->shortages);
    a->posted = seg->generation * SHC_ARENA_NONCES_APART;
}

void
shc_arena_leave(shc_arena_t *a)
{
    shc_arena__flush_all(a);
    if (a->outstanding != 0 || shc_arena__records(a, a->seg->index) != 0)
        shc_arena_sweep(a, a->seg->index, NULL, NULL);
    a->outstanding = 0;
}

uint32_t
shc_arena__frontier(shc_arena_t *a)
{
    uint64_t frontier = shc_a64_load_acquire(&a->shm->frontier); /* A4 */
    if (frontier > a->frontier)
        a->frontier = frontier < a->g.pages ? (uint32_t)frontier : a->g.pages;
    return a->frontier;
}

/* ---- hints ---- */

#define HINT_BITS 25
#define HINT_MASK ((UINT64_C(1) << HINT_BITS) - 1)

void
shc_arena__push_hint(shc_a64_t *hint, uint32_t page)
{
    uint64_t seen = shc_a64_load_relaxed(hint);
    uint64_t top = seen & HINT_MASK;
    if (top != page + UINT64_C(1))
        (void)shc_a64_cas_seq_cst(hint, &seen, (page + UINT64_C(1)) | top << HINT_BITS); /* AR3 */
}

bool
shc_arena__pop_hint(shc_a64_t *hint, uint32_t *page)
{
    uint64_t seen = shc_a64_load_relaxed(hint);
    uint64_t top = seen & HINT_MASK;
    if (top == 0 || !shc_a64_cas_seq_cst(hint, &seen, seen >> HINT_BITS & HINT_MASK)) /* AR3 */
        return false;
    *page = (uint32_t)(top - 1);
    return true;
}

/* ---- one block ---- */

static SHC_ALWAYS_INLINE int
locate_small(const shc_arena_t *a, uint32_t unit, shc_arena_place_t *place)
{
    uint32_t class = shc_arena_length_of(place->page_word);
    if (class >= a->classes)
        return SHC_E_CORRUPT;
    const shc_arena_class_t *c = &a->class[class];
    if (unit < c->first)
        return SHC_E_STALE;
    uint32_t block = (uint32_t)((uint64_t)(unit - c->first) * c->reciprocal >> SHC_ARENA_RECIPROCAL);
    if (block >= c->count || c->first + block * c->size != unit)
        return SHC_E_STALE;
    place->class = class;
    place->block = block;
    place->word = &shc_arena__states(a, place->page, class)[block];
    return 0;
}

/* Inline where it is all of the work. */
static SHC_ALWAYS_INLINE int
locate(shc_arena_t *a, shc_ref_t ref, shc_arena_place_t *place)
{
    uint64_t first = a->g.data / SHC_ARENA_UNIT, at = ref & SHC_ARENA_PLACE_MASK;
    unsigned shift = a->g.page_shift - 4;
    uint64_t page = (at - first) >> shift; /* huge if it lies before */
    if (SHC_UNLIKELY((ref & ~SHC_ARENA_REF_MASK) != 0) || (page >= a->frontier && page >= shc_arena__frontier(a)))
        return SHC_E_STALE;
    uint32_t unit = (uint32_t)((at - first) & ((UINT64_C(1) << shift) - 1));
    place->page = (uint32_t)page;
    place->page_word = shc_a64_load_acquire(shc_arena__word(a, place->page)); /* A1 */
    if (SHC_LIKELY(shc_arena__is_open_slab(place->page_word)))
        return locate_small(a, unit, place);
    place->word = NULL;
    uint32_t length = shc_arena_length_of(place->page_word);
    if (shc_arena_kind_of(place->page_word) != SHC_ARENA_RUN || unit != 0)
        return SHC_E_STALE;
    return length >= 1 && length <= a->g.pages - place->page ? 0 : SHC_E_CORRUPT;
}

int
shc_arena__locate(shc_arena_t *a, shc_ref_t ref, shc_arena_place_t *place)
{
    return locate(a, ref, place);
}

uint32_t
shc_arena__load(const shc_arena_t *a, const shc_arena_place_t *place)
{
    if (place->word != NULL)
        return shc_a32_load_acquire(place->word);                                     /* A3 */
    return shc_arena_upper_of(shc_a64_load_acquire(shc_arena__word(a, place->page))); /* A3 */
}

bool
shc_arena__change(const shc_arena_t *a, const shc_arena_place_t *place, uint32_t from, uint32_t to)
{
    if (place->word != NULL)
        return shc_a32_cas_seq_cst(place->word, &from, to); /* AR2, R3 */
    uint32_t length = shc_arena_length_of(place->page_word);
    uint64_t seen = shc_arena_page(SHC_ARENA_RUN, length, from);
    return shc_a64_cas_seq_cst(shc_arena__word(a, place->page), &seen,
                               shc_arena_page(SHC_ARENA_RUN, length, to)); /* AR2, R3 */
}

static SHC_ALWAYS_INLINE int
check_in_use(shc_arena_t *a, const shc_arena_place_t *place, shc_ref_t ref)
{
    uint32_t word = shc_arena__load(a, place);
    bool in_use = shc_arena_state_of(word) != SHC_ARENA_FREE;
    return in_use && shc_arena_generation_of(word) == shc_arena_ref_generation(ref) ? 0 : SHC_E_STALE;
}

int
shc_arena_look(shc_arena_t *a, shc_ref_t ref, uint32_t *state_word)
{
    shc_arena_place_t place;
    int r = locate(a, ref, &place);
    if (r == 0)
        r = check_in_use(a, &place, ref);
    if (r == 0)
        *state_word = shc_arena__load(a, &place);
    return r;
}

int
shc_arena_resolve(shc_arena_t *a, shc_ref_t ref, void **memory, uint64_t *size)
{
    shc_arena_place_t place;
    int r = locate(a, ref, &place);
    if (r == 0)
        r = check_in_use(a, &place, ref);
    if (r != 0)
        return r;
    *memory = shc_seg_at(a->seg, (ref & SHC_ARENA_PLACE_MASK) * SHC_ARENA_UNIT);
    *size = place.word != NULL ? (uint64_t)a->class[place.class].size * SHC_ARENA_UNIT
                               : (uint64_t)shc_arena_length_of(place.page_word) << a->g.page_shift;
    return 0;
}

static int
step(shc_arena_t *a, shc_ref_t ref, uint32_t from, uint32_t to)
{
    shc_arena_place_t place;
    uint32_t me = shc_arena__owner(a), g = shc_arena_ref_generation(ref);
    bool owned_before = from != SHC_ARENA_ATTACHED, owned_after = to != SHC_ARENA_ATTACHED;
    int r = locate(a, ref, &place);
    if (r != 0)
        return r;
    uint32_t before = shc_arena_state(from, owned_before ? me : 0, g);
    uint32_t after = shc_arena_state(to, owned_after ? me : 0, g);
    if (!shc_arena__change(a, &place, before, after))
        return SHC_E_STALE;
    a->outstanding += (int)owned_after - (int)owned_before;
    return 0;
}

int
shc_arena_attach(shc_arena_t *a, shc_ref_t ref)
{
    return step(a, ref, SHC_ARENA_OWNED, SHC_ARENA_ATTACHED);
}

int
shc_arena_take(shc_arena_t *a, shc_ref_t ref)
{
    return step(a, ref, SHC_ARENA_ATTACHED, SHC_ARENA_OWNED);
}

int
shc_arena_retire(shc_arena_t *a, shc_ref_t ref)
{
    return step(a, ref, SHC_ARENA_ATTACHED, SHC_ARENA_RETIRING);
}

int
shc_arena_reclaim(shc_arena_t *a, shc_ref_t ref)
{
    return step(a, ref, SHC_ARENA_RETIRING, SHC_ARENA_OWNED);
}

int
shc_arena_restore(shc_arena_t *a, shc_ref_t ref)
{
    return step(a, ref, SHC_ARENA_RETIRING, SHC_ARENA_ATTACHED);
}

/* Who is beaten by a sweeper that settles the block tries once more; more often only a scribbler is at it. */
#define ADOPTIONS 3

int
shc_arena_adopt(shc_arena_t *a, shc_ref_t ref)
{
    shc_arena_place_t place;
    uint32_t g = shc_arena_ref_generation(ref), mine = shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), g);
    for (int round = 0; round < ADOPTIONS; round++) {
        int r = locate(a, ref, &place);
        if (r != 0)
            return r;
        uint32_t word = shc_arena__load(a, &place), state = shc_arena_state_of(word);
        if (word == mine)
            return 0; /* sent by this process, and counted then */
        if (shc_arena_generation_of(word) != g || (state != SHC_ARENA_OWNED && state != SHC_ARENA_ATTACHED))
            return SHC_E_STALE;
        if (shc_arena__change(a, &place, word, mine)) {
            a->outstanding++;
            return 0;
        }
    }
    return SHC_E_STALE;
}

void
shc_arena_settle(shc_arena_t *a, uint32_t index, shc_ref_t ref)
{
    shc_arena_place_t place;
    uint32_t g = shc_arena_ref_generation(ref);
    if (locate(a, ref, &place) == 0)
        (void)shc_arena__change(a, &place, shc_arena_state(SHC_ARENA_OWNED, index + 1, g),
                                shc_arena_state(SHC_ARENA_ATTACHED, 0, g));
}

/* ---- allocate and release ---- */

/* Somebody found no memory: what lies in our magazines is given up. */
static void
heed_shortage(shc_arena_t *a)
{
    uint64_t shortages = shc_a64_load_relaxed(&a->shm->shortages);
    if (SHC_LIKELY(shortages == a->shortages))
        return;
    a->shortages = shortages;
    shc_arena__flush_all(a);
}

static int
allocate_run(shc_arena_t *a, uint64_t size, shc_ref_t *ref)
{
    uint64_t pages = shc_arena__pages_for(a, size);
    uint32_t page;
    if (pages > a->g.pages)
        return SHC_E_TOO_LARGE;
    int r = shc_arena__take_pages(a, (uint32_t)pages, &page);
    if (r != 0)
        return r;
    uint64_t word = shc_a64_load_relaxed(shc_arena__word(a, page));
    *ref = shc_arena_ref(shc_arena__page_offset(a, page), shc_arena__generation(word));
    a->outstanding++;
    return 0;
}

int
shc_arena_allocate_slow(shc_arena_t *a, uint64_t size, shc_ref_t *ref)
{
    heed_shortage(a);
    if (size > a->small_max)
        return allocate_run(a, size, ref);
    uint32_t class = shc_arena_class_of(size);
    int r = shc_arena__refill(a, class);
    return r != 0 ? r : shc_arena_allocate(a, size, ref);
}

/* Into the magazine of its class, under the generation that comes next. */
static void
cache_block(shc_arena_t *a, const shc_arena_place_t *place, shc_ref_t ref)
{
    uint32_t class = place->class, generation = shc_arena_ref_generation(ref) + 1;
    uint32_t depth = class < SHC_ARENA_CLASSES_SMALL ? SHC_ARENA_DEPTH_SMALL : SHC_ARENA_DEPTH_LARGE;
    if (SHC_UNLIKELY(a->count[class] == depth)) {
        heed_shortage(a);
        if (a->count[class] == depth)
            shc_arena__flush(a, class, depth / 2);
    }
    shc_a32_store_relaxed(place->word, shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), generation));
    uint32_t n = a->count[class]++;
    a->cache[shc_arena_cache_at(class) + n] =
        (ref & SHC_ARENA_PLACE_MASK) | (uint64_t)(generation & SHC_ARENA_GENERATION_MASK) << 36;
    shc_a8_store_relaxed(&a->parties[a->seg->index].cached[class], (uint8_t)(n + 1));
}

int
shc_arena_release(shc_arena_t *a, shc_ref_t ref)
{
    shc_arena_place_t place;
    int r = locate(a, ref, &place);
    if (SHC_UNLIKELY(r != 0))
        return r;
    uint32_t generation = shc_arena_ref_generation(ref);
    uint32_t mine = shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), generation);
    if (place.word == NULL) {
        if (shc_arena_upper_of(place.page_word) != mine)
            return SHC_E_STALE;
        a->outstanding--;
        shc_arena__free_pages(a, place.page, shc_arena_length_of(place.page_word), generation + 1);
        return 0;
    }
    if (SHC_UNLIKELY(shc_a32_load_relaxed(place.word) != mine))
        return SHC_E_STALE;
    a->outstanding--;
    cache_block(a, &place, ref);
    return 0;
}
