#include "ds/shc_pool.h"

#include <errno.h>
#include <string.h>

#include "base/shc_math.h"

static const shc_layout_row_t pool_rows[] = {SHC_POOL_LAYOUT(SHC_LAYOUT_ROW, shc_pool_shm_t)             /* */
                                             SHC_POOL_PLACE_LAYOUT(SHC_LAYOUT_ROW, shc_pool_place_shm_t) /* */
                                             SHC_ARENA_LAYOUT(SHC_LAYOUT_ROW, shc_arena_shm_t)           /* */
                                             SHC_ARENA_MAP_LAYOUT(SHC_LAYOUT_ROW, shc_arena_map_shm_t)   /* */
                                             SHC_ARENA_PARTY_LAYOUT(SHC_LAYOUT_ROW, shc_arena_party_shm_t)};

/* ---- geometry ---- */

#define PAGE (UINT64_C(1) << SHC_POOL_PAGE_SHIFT)

static uint64_t
pages_for(uint64_t bytes)
{
    return (bytes >> SHC_POOL_PAGE_SHIFT) + ((bytes & (PAGE - 1)) != 0);
}

/* Bytes of head and shelf. */
static uint64_t
front_size(const uint64_t *config)
{
    return sizeof(shc_pool_shm_t) + config[SHC_POOL_CONFIG_PLACES] * sizeof(shc_pool_place_shm_t);
}

/* SHC_E_CORRUPT: nobody has configured this. */
static int
geometry_at(const uint64_t *config, uint64_t body, uint32_t participants, shc_arena_geometry_t *g)
{
    if (config[SHC_POOL_CONFIG_PLACES] > SHC_POOL_PLACES_MAX || body >= SHC_ARENA_END_MAX)
        return SHC_E_CORRUPT;
    uint64_t at = shc_align_up(body + front_size(config), PAGE);
    int r = shc_arena_from_config(config + SHC_POOL_CONFIG_ARENA, at, participants, g);
    return r == 0 && g->page_shift == SHC_POOL_PAGE_SHIFT ? 0 : SHC_E_CORRUPT;
}

static void
geometry_of(const shc_seg_t *seg, shc_arena_geometry_t *g)
{
    int r = geometry_at(seg->id.config, seg->id.body_offset, seg->id.participants, g);
    SHC_ASSERT(r == 0); /* it was validated */
    (void)r;
}

static int
validate(const shc_seg_id_t *id)
{
    shc_arena_geometry_t g;
    int r = geometry_at(id->config, id->body_offset, id->participants, &g);
    return r == 0 && g.end == id->size ? 0 : SHC_E_CORRUPT;
}

int
shc_pool_configure(const shc_pool_options_t *o, shc_seg_create_args_t *args)
{
    if (o->max_bytes == 0 || o->max_bytes > SHC_POOL_BYTES_MAX || o->initial_bytes > o->max_bytes ||
        o->growth > SHC_POOL_GROWTH_MAX || o->places > SHC_POOL_PLACES_MAX)
        return -EINVAL;
    shc_arena_geometry_t g = {.pages = (uint32_t)pages_for(o->max_bytes),
                              .initial = (uint32_t)pages_for(o->initial_bytes),
                              .page_shift = SHC_POOL_PAGE_SHIFT,
                              .growth = o->growth,
                              .records = SHC_POOL_RECORDS};
    shc_arena_to_config(&g, args->config + SHC_POOL_CONFIG_ARENA);
    args->config[SHC_POOL_CONFIG_INTERVAL] = o->interval_ns;
    args->config[SHC_POOL_CONFIG_PLACES] = o->places;
    return 0;
}

int
shc_pool_lay_out(shc_seg_create_args_t *args)
{
    shc_arena_geometry_t g;
    uint64_t body;
    args->body_size = 0;
    int r = shc_seg_size_for(&shc_pool_spec, args, &body); /* of no body: where one begins */
    if (r == 0 && geometry_at(args->config, body, args->participants, &g) != 0)
        r = -EINVAL;
    if (r != 0)
        return r;
    args->body_size = g.end - body;
    args->reserved[0] = (shc_seg_range_t){.from = 0, .n = front_size(args->config)};
    shc_arena_reservation(&g, body, args->reserved + 1);
    return 0;
}

void
shc_pool_options_of(const shc_seg_t *seg, shc_pool_options_t *out)
{
    shc_arena_geometry_t g;
    geometry_of(seg, &g);
    *out = (shc_pool_options_t){.initial_bytes = g.initial * PAGE,
                                .max_bytes = g.pages * PAGE,
                                .interval_ns = seg->id.config[SHC_POOL_CONFIG_INTERVAL],
                                .growth = g.growth,
                                .places = (uint32_t)seg->id.config[SHC_POOL_CONFIG_PLACES]};
}

/* ---- life ---- */

void
shc_pool_init(shc_seg_t *seg)
{
    shc_arena_geometry_t g;
    geometry_of(seg, &g);
    shc_arena_init(seg, &g);
}

void
shc_pool_open(shc_pool_t *pool, shc_seg_t *seg)
{
    shc_arena_geometry_t g;
    geometry_of(seg, &g);
    memset(pool, 0, sizeof *pool);
    shc_arena_open(&pool->arena, seg, &g);
    pool->shm = shc_seg_body(seg);
    pool->places = (shc_pool_place_shm_t *)(void *)(pool->shm + 1);
    pool->n_places = (uint32_t)seg->id.config[SHC_POOL_CONFIG_PLACES];
}

void
shc_pool_leave(shc_pool_t *pool)
{
    shc_arena_leave(&pool->arena);
}

/* ---- memory that is idle ---- */

/* Keeps `spare` bytes of free memory, and more if there would be less in all than the pool began with. */
static uint64_t
give_back(shc_pool_t *pool, uint64_t spare)
{
    shc_arena_stats_t s;
    uint64_t initial = (uint64_t)pool->arena.g.initial << SHC_POOL_PAGE_SHIFT;
    (void)shc_arena_cleanup(&pool->arena, UINT64_MAX); /* now no slab is empty */
    if (shc_arena_stats(&pool->arena, &s) != 0 || s.bytes_free > s.bytes_backed)
        return 0;
    uint64_t taken = s.bytes_backed - s.bytes_free;
    uint64_t given = shc_arena_cleanup(&pool->arena, taken + spare < initial ? initial - taken : spare);
    if (given != 0)
        (void)shc_a64_fetch_add_relaxed(&pool->shm->given_back, given);
    return given;
}

uint64_t
shc_pool_tend(shc_pool_t *pool)
{
    shc_arena_stats_t s;
    if (shc_arena_stats(&pool->arena, &s) != 0)
        return 0;
    pool->samples[pool->n_samples % SHC_POOL_SAMPLES] = s.bytes_used;
    if (++pool->n_samples < SHC_POOL_SAMPLES)
        return 0;
    uint64_t most = 0;
    for (uint32_t i = 0; i < SHC_POOL_SAMPLES; i++)
        most = pool->samples[i] > most ? pool->samples[i] : most;
    return give_back(pool, most - s.bytes_used);
}

uint64_t
shc_pool_cleanup(shc_pool_t *pool)
{
    return give_back(pool, 0);
}

/* ---- the shelf ---- */

static bool
claim(shc_pool_place_shm_t *place, uint64_t from, uint64_t to)
{
    return shc_a64_cas_seq_cst(&place->word, &from, to); /* AR1, A1 */
}

static uint64_t
mine(const shc_pool_t *pool, uint64_t state)
{
    return state | shc_seg_owner_word(pool->arena.seg);
}

/* The place is ours, and empty from now on. */
static void
vacate(shc_pool_place_shm_t *place)
{
    shc_a64_store_relaxed(&place->ref, 0);
    shc_a64_store_relaxed(&place->size, 0);
    shc_a64_store_release(&place->word, SHC_POOL_EMPTY); /* R1 */
}

/* Where to begin to look: buffers of one size lie near each other. */
static uint32_t
first_place(const shc_pool_t *pool, uint64_t size)
{
    return (uint32_t)((size * UINT64_C(0x9e3779b97f4a7c15) >> 32) * pool->n_places >> 32);
}

/* Others may take what lies in a place of ours now. */
static void
make_full(const shc_pool_t *pool, shc_pool_place_shm_t *place)
{
    shc_a64_store_release(&place->word, SHC_POOL_FULL);     /* R1 */
    (void)shc_a64_fetch_add_release(&pool->shm->placed, 1); /* R2 */
}

int
shc_pool_shelve(shc_pool_t *pool, shc_ref_t ref, uint64_t size)
{
    uint32_t first = pool->n_places != 0 ? first_place(pool, size) : 0;
    for (uint32_t i = 0; i < pool->n_places; i++) {
        shc_pool_place_shm_t *place = &pool->places[(first + i) % pool->n_places];
        if (shc_a64_load_relaxed(&place->word) != SHC_POOL_EMPTY ||
            !claim(place, SHC_POOL_EMPTY, mine(pool, SHC_POOL_PLACING)))
            continue;
        shc_a64_store_relaxed(&place->size, size);
        shc_a64_store_relaxed(&place->ref, ref);
        int r = shc_arena_attach(&pool->arena, ref);
        if (r != 0) {
            vacate(place);
            return r;
        }
        make_full(pool, place);
        return 0;
    }
    return SHC_FULL;
}

/* Takes the block of a FULL place; with `size` not 0 only if it is of that size. */
static bool
take_from(shc_pool_t *pool, shc_pool_place_shm_t *place, uint64_t size, shc_ref_t *ref)
{
    if (shc_a64_load_relaxed(&place->word) != SHC_POOL_FULL ||
        (size != 0 && shc_a64_load_relaxed(&place->size) != size) ||
        !claim(place, SHC_POOL_FULL, mine(pool, SHC_POOL_TAKING)))
        return false;
    if (size != 0 && shc_a64_load_relaxed(&place->size) != size) { /* another one since we looked */
        make_full(pool, place);
        return false;
    }
    *ref = shc_a64_load_relaxed(&place->ref);
    bool taken = shc_arena_take(&pool->arena, *ref) == 0; /* else a scribbler was here */
    vacate(place);
    return taken;
}

static shc_pool_miss_t *
miss_of(shc_pool_t *pool, uint64_t size)
{
    return &pool->misses[first_place(pool, size) % SHC_POOL_MISSES];
}

/* What a place said of a block that is ours now. */
static int
check_room(shc_pool_t *pool, shc_ref_t ref, uint64_t size)
{
    void *memory;
    uint64_t room;
    if (shc_arena_resolve(&pool->arena, ref, &memory, &room) == 0 && room >= size)
        return 0;
    int r = shc_arena_release(&pool->arena, ref);
    (void)r;
    return SHC_E_CORRUPT;
}

int
shc_pool_unshelve(shc_pool_t *pool, uint64_t size, shc_ref_t *ref)
{
    if (pool->n_places == 0)
        return SHC_EMPTY;
    shc_pool_miss_t *miss = miss_of(pool, size);
    uint64_t placed = shc_a64_load_acquire(&pool->shm->placed); /* A2 */
    if (miss->size == size && miss->placed == placed)
        return SHC_EMPTY;
    uint32_t first = first_place(pool, size);
    for (uint32_t i = 0; i < pool->n_places; i++)
        if (take_from(pool, &pool->places[(first + i) % pool->n_places], size, ref))
            return check_room(pool, *ref, size);
    *miss = (shc_pool_miss_t){.size = size, .placed = placed};
    return SHC_EMPTY;
}

uint32_t
shc_pool_clear(shc_pool_t *pool)
{
    uint32_t n = 0;
    shc_ref_t ref;
    for (uint32_t i = 0; i < pool->n_places; i++)
        if (take_from(pool, &pool->places[i], 0, &ref))
            n += shc_arena_release(&pool->arena, ref) == 0;
    return n;
}

bool
shc_pool_look(const shc_pool_t *pool, uint32_t place, uint64_t *size)
{
    if (place >= pool->n_places)
        return false;
    *size = shc_a64_load_relaxed(&pool->places[place].size);
    return shc_a64_load_relaxed(&pool->places[place].word) == SHC_POOL_FULL;
}

/* ---- sweep ---- */

#define NAMED_MAX 8u /* a process moves one buffer at a time: more only a scribbler stamps, whose buffers may be lost */

typedef struct sweep {
    shc_pool_t *pool;
    uint64_t dead;              /* its owner word */
    shc_ref_t named[NAMED_MAX]; /* by places that the dead one has stamped */
    uint32_t n_named;
} sweep_t;

static bool
is_of_dead(const sweep_t *s, uint64_t word)
{
    uint64_t state = word & ~SHC_POOL_OWNER_MASK;
    return (state == SHC_POOL_PLACING || state == SHC_POOL_TAKING) && (word & SHC_POOL_OWNER_MASK) == s->dead;
}

static void
find_named(sweep_t *s)
{
    for (uint32_t i = 0; i < s->pool->n_places && s->n_named < NAMED_MAX; i++) {
        const shc_pool_place_shm_t *place = &s->pool->places[i];
        if (is_of_dead(s, shc_a64_load_relaxed(&place->word)))
            s->named[s->n_named++] = shc_a64_load_relaxed(&place->ref);
    }
}

/* Whether the dead one was moving this block of its own to or from the shelf. */
static bool
keep(void *arg, shc_ref_t ref)
{
    const sweep_t *s = arg;
    for (uint32_t i = 0; i < s->n_named; i++)
        if (s->named[i] == ref)
            return true;
    return false;
}

static void
settle(const sweep_t *s, shc_pool_place_shm_t *place)
{
    uint64_t word = shc_a64_load_acquire(&place->word); /* A1 */
    uint32_t state;
    if (!is_of_dead(s, word))
        return;
    shc_ref_t ref = shc_a64_load_relaxed(&place->ref);
    bool there = ref != 0 && shc_arena_look(&s->pool->arena, ref, &state) == 0 &&
                 shc_arena_state_of(state) == SHC_ARENA_ATTACHED;
    if (!there) {
        vacate(place);
        return;
    }
    make_full(s->pool, place);
}

static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_pool_t pool;
    shc_pool_open(&pool, arg);
    sweep_t s = {.pool = &pool, .dead = (uint64_t)(index + 1) | (uint64_t)generation << 12};
    find_named(&s);
    shc_arena_sweep(&pool.arena, index, keep, &s);
    for (uint32_t i = 0; i < pool.n_places; i++)
        settle(&s, &pool.places[i]);
    (void)shc_a64_fetch_add_release(&pool.shm->placed, 1); /* R2: for a step that was not counted */
}

/* ---- all of it ---- */

static bool
is_sound_place(shc_pool_t *pool, const shc_pool_place_shm_t *place)
{
    uint64_t word = shc_a64_load_relaxed(&place->word), ref = shc_a64_load_relaxed(&place->ref);
    uint64_t size = shc_a64_load_relaxed(&place->size), room;
    uint32_t state, owner = (uint32_t)(word & 0xfff);
    void *memory;
    if (place->spare != 0 || (word & ~SHC_POOL_OWNER_MASK & ~SHC_POOL_TAKING) != 0)
        return false;
    switch (word & SHC_POOL_TAKING) {
    case SHC_POOL_EMPTY:
        return word == 0 && ref == 0 && size == 0;
    case SHC_POOL_FULL:
        return word == SHC_POOL_FULL && shc_arena_look(&pool->arena, ref, &state) == 0 &&
               shc_arena_state_of(state) == SHC_ARENA_ATTACHED &&
               shc_arena_resolve(&pool->arena, ref, &memory, &room) == 0 && size >= 1 && size <= room;
    default:
        return owner >= 1 && owner <= pool->arena.g.participants;
    }
}

int
shc_pool_check(shc_pool_t *pool)
{
    int r = shc_arena_check(&pool->arena);
    bool sound = r == 0;
    for (size_t i = 0; i < sizeof pool->shm->pad0; i++)
        sound = sound && pool->shm->pad0[i] == 0;
    for (uint32_t i = 0; i < pool->n_places && sound; i++)
        sound = is_sound_place(pool, &pool->places[i]);
    return sound ? 0 : SHC_E_CORRUPT;
}

bool
shc_pool_names(shc_pool_t *pool, uint32_t index, uint32_t generation)
{
    uint64_t owner = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    bool named = shc_arena_names(&pool->arena, index);
    for (uint32_t i = 0; i < pool->n_places; i++)
        named = named || (shc_a64_load_relaxed(&pool->places[i].word) & SHC_POOL_OWNER_MASK) == owner;
    return named;
}

/* What a place refers to is settled in several steps: it is looked at when nobody moves buffers. */
static int
check_segment(shc_seg_t *seg, bool at_rest)
{
    shc_pool_t pool;
    shc_pool_open(&pool, seg);
    return at_rest ? shc_pool_check(&pool) : shc_arena_inspect(&pool.arena, false);
}

const shc_seg_spec_t shc_pool_spec = {
    .kind = SHC_KIND_POOL,
    .rows = pool_rows,
    .row_count = SHC_ARRAY_SIZE(pool_rows),
    .body_align = SHC_HOT_PAD,
    .grows = true,
    .sweep = sweep,
    .validate = validate,
    .check = check_segment,
};
