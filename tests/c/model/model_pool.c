/* The shelf of a pool, explored: who lays buffers there, takes them, clears it, leaves, dies and sweeps at once. No
 * buffer is in two hands, none is lost but the one that a victim was just taking, and who has looked in vain finds what
 * came later. Each buffer is a page, so that its state is one word. */
#define FAKE_FILE_BYTES 1310720u
#include "ds/shc_pool.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define PLACES 2u
#define PAGES 3u
#define LARGE (UINT64_C(1) << SHC_POOL_PAGE_SHIFT)
#define SMALL (LARGE - 2) /* another size, of the same blocks, and remembered in the same place */
#define PARTIES (MODEL_THREADS + 1)
#define INSPECTOR MODEL_THREADS /* looks at what is left */

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* One process. */
typedef struct party {
    shc_self_t self;
    shc_seg_t seg;
    shc_pool_t pool;
    shc_ref_t hand[2]; /* what it has from the beginning */
    bool takes;        /* it is just looking for a buffer, or clearing */
    uint32_t excuses;  /* how many buffers are lost at most if it is killed there */
} party_t;

typedef enum where {
    NOWHERE, /* free: nobody may find it on the shelf */
    IN_HAND,
    ON_ITS_WAY, /* to the shelf */
    ON_SHELF
} where_t;

typedef struct buffer {
    where_t where;
    uint32_t by; /* thread + 1 that has it, or laid it there */
    uint64_t size;
    bool stays; /* a dead one was moving it, and its place names it: no sweep loses it */
} buffer_t;

static struct {
    party_t parties[PARTIES];
    buffer_t buffers[PAGES];
    uint32_t looks;   /* begun by anybody */
    uint32_t cleared; /* buffers, by those who came to tell */
    bool may_be_full; /* there may be no place for a buffer */
    bool looks_once;  /* a mistake: takes what lies there, whatever size it is now */
    bool lays_plainly;
} plan;

static uint8_t *image; /* the segment: the fake's first file */

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

static buffer_t *
buffer_of(shc_ref_t ref)
{
    const shc_arena_geometry_t *g = &plan.parties[0].pool.arena.g;
    uint64_t page = ((ref & SHC_ARENA_PLACE_MASK) * SHC_ARENA_UNIT - g->data) >> g->page_shift;
    MODEL_CHECK(page < PAGES);
    return &plan.buffers[page];
}

/* ---- known mistakes ---- */

/* What shc_pool.c does, but without a look at the size behind the claim. */
static int
unshelve_at_once(shc_pool_t *pool, uint64_t size, shc_ref_t *ref)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        shc_pool_place_shm_t *place = &pool->places[i];
        uint64_t full = SHC_POOL_FULL;
        if (shc_a64_load_relaxed(&place->word) != SHC_POOL_FULL || shc_a64_load_relaxed(&place->size) != size ||
            !shc_a64_cas_seq_cst(&place->word, &full, SHC_POOL_TAKING | shc_seg_owner_word(pool->arena.seg))) /* AR1 */
            continue;
        *ref = shc_a64_load_relaxed(&place->ref);
        MODEL_CHECK(shc_arena_take(&pool->arena, *ref) == 0);
        shc_a64_store_relaxed(&place->ref, 0);
        shc_a64_store_relaxed(&place->size, 0);
        shc_a64_store_release(&place->word, SHC_POOL_EMPTY); /* R1 */
        return 0;
    }
    return SHC_EMPTY;
}

/* What shc_pool.c does, but claims by a store. */
static int
shelve_plainly(shc_pool_t *pool, shc_ref_t ref, uint64_t size)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        shc_pool_place_shm_t *place = &pool->places[i];
        if (shc_a64_load_relaxed(&place->word) != SHC_POOL_EMPTY)
            continue;
        shc_a64_store_relaxed(&place->word, SHC_POOL_PLACING | shc_seg_owner_word(pool->arena.seg));
        shc_a64_store_relaxed(&place->size, size);
        shc_a64_store_relaxed(&place->ref, ref);
        MODEL_CHECK(shc_arena_attach(&pool->arena, ref) == 0);
        shc_a64_store_release(&place->word, SHC_POOL_FULL);     /* R1 */
        (void)shc_a64_fetch_add_release(&pool->shm->placed, 1); /* R2 */
        return 0;
    }
    return SHC_FULL;
}

/* What shc_pool.c does with the places of a dead one behind the arena's sweep. */
static void
settle(shc_pool_t *pool, uint64_t dead)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        shc_pool_place_shm_t *place = &pool->places[i];
        uint32_t state;
        if ((shc_a64_load_acquire(&place->word) & SHC_POOL_OWNER_MASK) != dead) /* A1 */
            continue;
        shc_ref_t ref = shc_a64_load_relaxed(&place->ref);
        if (ref != 0 && shc_arena_look(&pool->arena, ref, &state) == 0 &&
            shc_arena_state_of(state) == SHC_ARENA_ATTACHED) {
            shc_a64_store_release(&place->word, SHC_POOL_FULL);     /* R1 */
            (void)shc_a64_fetch_add_release(&pool->shm->placed, 1); /* R2 */
            continue;
        }
        shc_a64_store_relaxed(&place->ref, 0);
        shc_a64_store_relaxed(&place->size, 0);
        shc_a64_store_release(&place->word, SHC_POOL_EMPTY); /* R1 */
    }
}

/* Does not ask for the blocks that the places of the dead name. */
static void
sweep_without_keep(void *arg, uint32_t index, uint32_t generation)
{
    shc_pool_t pool;
    shc_pool_open(&pool, arg);
    shc_arena_sweep(&pool.arena, index, NULL, NULL);
    settle(&pool, (uint64_t)(index + 1) | (uint64_t)generation << 12);
    (void)shc_a64_fetch_add_release(&pool.shm->placed, 1); /* R2 */
}

static bool
keep_all(void *arg, shc_ref_t ref)
{
    const shc_pool_t *pool = arg;
    bool named = false;
    for (uint32_t i = 0; i < PLACES; i++)
        named = named || shc_a64_load_relaxed(&pool->places[i].ref) == ref;
    return named;
}

/* Does not count what the dead one had no time to count. */
static void
sweep_uncounted(void *arg, uint32_t index, uint32_t generation)
{
    shc_pool_t pool;
    shc_pool_open(&pool, arg);
    shc_arena_sweep(&pool.arena, index, keep_all, &pool);
    settle(&pool, (uint64_t)(index + 1) | (uint64_t)generation << 12);
}

static const shc_seg_spec_t forgets_keep = {.sweep = sweep_without_keep};
static const shc_seg_spec_t forgets_count = {.sweep = sweep_uncounted};

/* ---- to and from the shelf ---- */

static bool
lies_there(uint64_t size)
{
    bool found = false;
    for (uint32_t i = 0; i < PAGES; i++)
        found = found || (plan.buffers[i].where == ON_SHELF && plan.buffers[i].size == size);
    return found;
}

/* Who was killed while it looked for a buffer counts: which one it had is not known. */
static bool
anybody_takes(void)
{
    bool found = false;
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        found = found || plan.parties[i].takes;
    return found || plan.cleared != 0;
}

static bool
take(uint64_t size, shc_ref_t *ref)
{
    party_t *p = me();
    bool must_find = lies_there(size) && !anybody_takes();
    uint32_t looks = ++plan.looks;
    p->takes = true;
    p->excuses = 1;
    int r = plan.looks_once ? unshelve_at_once(&p->pool, size, ref) : shc_pool_unshelve(&p->pool, size, ref);
    p->takes = false;
    p->excuses = 0;
    MODEL_CHECK(r == 0 || r == SHC_EMPTY);
    MODEL_CHECK(r == 0 || !must_find || plan.looks != looks);
    if (r != 0)
        return false;
    buffer_t *buffer = buffer_of(*ref);
    MODEL_CHECK(buffer->where == ON_SHELF || buffer->where == ON_ITS_WAY);
    MODEL_CHECK(buffer->size == size);
    *buffer = (buffer_t){.where = IN_HAND, .by = model_self() + 1, .size = size};
    return true;
}

static void
give(shc_ref_t ref)
{
    buffer_t *buffer = buffer_of(ref);
    MODEL_CHECK(buffer->where == IN_HAND && buffer->by == model_self() + 1);
    buffer->where = NOWHERE;
    MODEL_CHECK(shc_arena_release(&me()->pool.arena, ref) == 0);
}

static void
lay(shc_ref_t ref, uint64_t size)
{
    shc_pool_t *pool = &me()->pool;
    buffer_t *buffer = buffer_of(ref);
    MODEL_CHECK(buffer->where == IN_HAND && buffer->by == model_self() + 1);
    buffer->where = ON_ITS_WAY;
    buffer->size = size;
    int r = plan.lays_plainly ? shelve_plainly(pool, ref, size) : shc_pool_shelve(pool, ref, size);
    if (r != 0) {
        MODEL_CHECK(r == SHC_FULL && plan.may_be_full);
        buffer->where = IN_HAND;
        give(ref);
    } else if (buffer->where == ON_ITS_WAY && buffer->by == model_self() + 1)
        buffer->where = ON_SHELF; /* else somebody has it already */
}

/* A dead one was moving this buffer, and its place names it: it is none of those that may be lost. */
static void
note(party_t *dead, buffer_t *buffer)
{
    if (!buffer->stays && dead->excuses != 0)
        dead->excuses--;
    buffer->stays = true;
}

static void
note_what_stays(void)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        const shc_pool_place_shm_t *place = &plan.parties[0].pool.places[i];
        uint64_t owner = shc_racy_u64((const uint8_t *)&place->word) & 0xfff;
        uint64_t ref = shc_racy_u64((const uint8_t *)&place->ref);
        for (uint32_t k = 0; k < MODEL_THREADS; k++)
            if (model_is_dead(k) && owner == plan.parties[k].seg.index + 1 && ref != 0)
                note(&plan.parties[k], buffer_of(ref));
    }
}

/* ---- bodies ---- */

static void
lay_one(void)
{
    lay(me()->hand[0], LARGE);
}

static void
lay_two(void)
{
    lay(me()->hand[0], LARGE);
    lay(me()->hand[1], LARGE);
}

static void
take_one(void)
{
    shc_ref_t ref;
    if (take(LARGE, &ref))
        give(ref);
}

/* The second look is for what came since the first. */
static void
look_twice(void)
{
    shc_ref_t ref;
    if (take(LARGE, &ref) || take(LARGE, &ref))
        give(ref);
}

static void
take_and_lay_back(void)
{
    shc_ref_t ref;
    if (take(LARGE, &ref))
        lay(ref, LARGE);
}

static void
take_and_lay_as_small(void)
{
    shc_ref_t ref;
    if (take(LARGE, &ref))
        lay(ref, SMALL);
}

static void
take_either(void)
{
    shc_ref_t ref;
    if (take(SMALL, &ref) || take(LARGE, &ref))
        give(ref);
}

static void
clear(void)
{
    party_t *p = me();
    plan.looks++;
    p->takes = true;
    p->excuses = PLACES;
    plan.cleared += shc_pool_clear(&p->pool);
    p->takes = false;
    p->excuses = 0;
}

/* With one on the shelf and one in its hand. */
static void
lay_one_and_leave(void)
{
    lay(me()->hand[0], LARGE);
    buffer_of(me()->hand[1])->where = NOWHERE;
    shc_pool_leave(&me()->pool);
    MODEL_CHECK(!shc_pool_names(&me()->pool, me()->seg.index, me()->seg.generation));
}

static void
reap(void)
{
    note_what_stays();
    (void)shc_seg_reap_participants(&me()->seg);
}

/* ---- models ---- */

static void
add_party(uint32_t i, const shc_seg_t *made, const shc_self_t *self)
{
    party_t *party = &plan.parties[i];
    party->self = *self;
    party->self.id.pid = FAKE_FIRST_PID + i;
    party->seg = *made;
    party->seg.self = &party->self;
    CHECK_OK(shc_participant_join(&made->participants, &party->self.id, &party->seg.index, &party->seg.generation));
    shc_pool_open(&party->pool, &party->seg);
}

/* A segment that all have joined. */
static void
make_segment(void)
{
    static shc_self_t self;
    static const shc_pool_options_t options = {
        .initial_bytes = PAGES * LARGE, .max_bytes = PAGES * LARGE, .places = PLACES};
    shc_seg_create_args_t args = {.participants = PARTIES, .mode = 0600, .persist = true};
    shc_seg_t made;
    fake_reset();
    memset(&plan, 0, sizeof plan);
    CHECK_OK(shc_pool_configure(&options, &args));
    CHECK_OK(shc_pool_lay_out(&args));
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.pool", &self, &shc_pool_spec, &args, shc_pool_init, &made));
    shc_participant_end_leave(&made.participants, made.index);
    image = made.base;
    for (uint32_t i = 0; i < PARTIES; i++)
        add_party(i, &made, &self);
}

static void
hand_out(uint32_t party, uint32_t n)
{
    party_t *p = &plan.parties[party];
    for (uint32_t i = 0; i < n; i++) {
        CHECK_OK(shc_arena_allocate(&p->pool.arena, LARGE, &p->hand[i]));
        *buffer_of(p->hand[i]) = (buffer_t){.where = IN_HAND, .by = party + 1};
    }
}

static void
fill_place(void)
{
    shc_pool_t *pool = &plan.parties[INSPECTOR].pool;
    shc_ref_t ref;
    CHECK_OK(shc_arena_allocate(&pool->arena, LARGE, &ref));
    CHECK_OK(shc_pool_shelve(pool, ref, LARGE));
    *buffer_of(ref) = (buffer_t){.where = ON_SHELF, .by = INSPECTOR + 1, .size = LARGE};
}

/* The first has two buffers, the second has one. */
static void
make_empty(void)
{
    make_segment();
    hand_out(0, 2);
    hand_out(1, 1);
}

/* One lies there; the first and the second have one each. */
static void
make_one(void)
{
    make_segment();
    fill_place();
    hand_out(0, 1);
    hand_out(1, 1);
}

/* Two lie there, the first has one. */
static void
make_full(void)
{
    make_segment();
    fill_place();
    fill_place();
    hand_out(0, 1);
}

/* What is copied back before each schedule: all that is ever written. */
static struct {
    uint64_t from;
    uint64_t n;
} touched[2];
static uint8_t fresh_image[FAKE_FILE_BYTES];
static uint8_t fresh_plan[sizeof plan];
static void (*made_for)(void);

static void
find_touched(void)
{
    const shc_arena_geometry_t *g = &plan.parties[0].pool.arena.g;
    touched[0].n = plan.parties[0].seg.id.body_offset + sizeof(shc_pool_shm_t) + PLACES * sizeof(shc_pool_place_shm_t);
    touched[1].from = g->at;
    touched[1].n = g->words + PAGES * sizeof(shc_a64_t) - g->at;
}

static void
restore(void (*make)(void))
{
    if (made_for != make) {
        make();
        find_touched();
        memcpy(fresh_image, image, sizeof fresh_image);
        memcpy(fresh_plan, &plan, sizeof plan);
        made_for = make;
    }
    memcpy(&plan, fresh_plan, sizeof plan);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(touched); i++)
        memcpy(image + touched[i].from, fresh_image + touched[i].from, touched[i].n);
    const shc_pool_t *pool = &plan.parties[0].pool;
    model_share(pool->places, PLACES * sizeof(shc_pool_place_shm_t));
    model_share(&pool->shm->placed, sizeof(shc_a64_t));
    model_share(pool->arena.words, PAGES * sizeof(shc_a64_t));
}

static void
reset_empty(void)
{
    restore(make_empty);
}

static void
reset_crowded(void)
{
    restore(make_empty);
    plan.may_be_full = true;
}

static void
reset_one(void)
{
    restore(make_one);
    plan.may_be_full = true;
}

static void
reset_full(void)
{
    restore(make_full);
    plan.may_be_full = true;
}

static void
reset_full_with_participants(void)
{
    reset_full();
    model_share(plan.parties[0].seg.participants.slots, PARTIES * sizeof(shc_participant_shm_t));
}

static void
reset_full_looks_once(void)
{
    reset_full();
    plan.looks_once = true;
}

static void
reset_empty_lays_plainly(void)
{
    reset_empty();
    plan.lays_plainly = true;
}

static void
reset_empty_forgets_keep(void)
{
    reset_empty();
    plan.parties[2].seg.spec = &forgets_keep;
}

static void
reset_full_forgets_keep(void)
{
    reset_full();
    plan.parties[2].seg.spec = &forgets_keep;
}

static void
reset_empty_forgets_count(void)
{
    reset_empty();
    plan.parties[2].seg.spec = &forgets_count;
}

/* ---- what is left ---- */

/* How many buffers lie there; *on_shelf: which. Each in one place, and of the size that it was laid there with. */
static uint32_t
count_shelf(bool on_shelf[PAGES])
{
    uint32_t n = 0;
    uint64_t size;
    for (uint32_t i = 0; i < PLACES; i++) {
        const shc_pool_place_shm_t *place = &plan.parties[INSPECTOR].pool.places[i];
        if (!shc_pool_look(&plan.parties[INSPECTOR].pool, i, &size)) {
            MODEL_CHECK(shc_a64_load_relaxed(&place->word) == SHC_POOL_EMPTY);
            continue;
        }
        const buffer_t *buffer = buffer_of(shc_a64_load_relaxed(&place->ref));
        uint32_t page = (uint32_t)(buffer - plan.buffers);
        MODEL_CHECK(!on_shelf[page] && buffer->size == size);
        on_shelf[page] = true;
        n++;
    }
    return n;
}

/* What a victim was just taking is lost, and what was cleared is free. */
static void
check_buffers(const bool on_shelf[PAGES])
{
    uint32_t missing = 0, excused = plan.cleared;
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        excused += plan.parties[i].excuses;
    for (uint32_t i = 0; i < PAGES; i++) {
        const buffer_t *buffer = &plan.buffers[i];
        if (on_shelf[i])
            MODEL_CHECK(buffer->where == ON_SHELF || buffer->where == ON_ITS_WAY);
        else
            missing += buffer->where == ON_SHELF || (buffer->where == ON_ITS_WAY && buffer->stays);
    }
    MODEL_CHECK(missing <= excused && (missing == excused || model_deaths() > 0));
}

/* Whoever lives finds what lies there, whatever it has looked for in vain. Looks through a copy, and puts all back, so
 * that each look is the first. */
static void
check_survivor(const party_t *p, uint64_t size)
{
    shc_pool_t pool = p->pool;
    uint64_t placed = shc_a64_load_relaxed(&pool.shm->placed), found;
    bool lies = false;
    shc_ref_t ref;
    for (uint32_t i = 0; i < PLACES; i++)
        lies = lies || (shc_pool_look(&pool, i, &found) && found == size);
    MODEL_CHECK(shc_pool_unshelve(&pool, size, &ref) == (lies ? 0 : SHC_EMPTY));
    if (lies)
        MODEL_CHECK(shc_pool_shelve(&pool, ref, size) == 0);
    shc_a64_store_relaxed(&pool.shm->placed, placed);
}

/* All but the dead leave. */
static void
check_left(uint32_t shelved)
{
    shc_pool_t *pool = &plan.parties[INSPECTOR].pool;
    shc_arena_stats_t s;
    for (uint32_t i = 0; i < PARTIES; i++) {
        party_t *p = &plan.parties[i];
        if (i == INSPECTOR || !model_is_dead(i))
            shc_pool_leave(&p->pool);
        MODEL_CHECK(!shc_pool_names(pool, p->seg.index, p->seg.generation));
    }
    MODEL_CHECK(shc_arena_stats(&pool->arena, &s) == 0 && s.bytes_used == shelved * LARGE);
}

static void
finish(void)
{
    shc_pool_t *pool = &plan.parties[INSPECTOR].pool;
    bool on_shelf[PAGES] = {false};
    note_what_stays();
    (void)shc_seg_reap_participants(&plan.parties[INSPECTOR].seg);
    MODEL_CHECK(shc_pool_check(pool) == 0);
    uint32_t shelved = count_shelf(on_shelf);
    check_buffers(on_shelf);
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        if (model_is_dead(i))
            continue;
        check_survivor(&plan.parties[i], LARGE);
        check_survivor(&plan.parties[i], SMALL);
    }
    check_left(shelved);
    MODEL_CHECK(shc_pool_clear(pool) == shelved);
    MODEL_CHECK(!shc_arena_is_used(&pool->arena) && shc_pool_check(pool) == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(buffers_are_in_one_hand_and_found, 120)
{
    static const model_t models[] = {
        {.name = "one lays, one looks twice",
         .threads = 2,
         .body = {look_twice, lay_one},
         .reset = reset_empty,
         .finish = finish,
         .preemptions = 5},
        {.name = "two lay, one looks twice",
         .threads = 3,
         .body = {lay_one, lay_one, look_twice},
         .reset = reset_empty,
         .finish = finish,
         .preemptions = 3},
        {.name = "three buffers for two places",
         .threads = 2,
         .body = {lay_two, lay_one},
         .reset = reset_crowded,
         .finish = finish,
         .preemptions = 4},
        {.name = "two take one, one lays one",
         .threads = 3,
         .body = {take_one, lay_one, take_one},
         .reset = reset_one,
         .finish = finish,
         .preemptions = 3},
        {.name = "two take and lay back",
         .threads = 3,
         .body = {take_and_lay_back, take_and_lay_back, look_twice},
         .reset = reset_full,
         .finish = finish,
         .preemptions = 2},
        {.name = "sizes change under who looks",
         .threads = 3,
         .body = {take_one, take_and_lay_as_small, take_either},
         .reset = reset_full,
         .finish = finish,
         .preemptions = 3},
        {.name = "one clears",
         .threads = 3,
         .body = {lay_one, clear, take_and_lay_back},
         .reset = reset_full,
         .finish = finish,
         .preemptions = 3},
        {.name = "two clear",
         .threads = 2,
         .body = {clear, clear},
         .reset = reset_full,
         .finish = finish,
         .preemptions = 4},
        {.name = "one leaves",
         .threads = 3,
         .body = {lay_one_and_leave, lay_one, take_one},
         .reset = reset_crowded,
         .finish = finish,
         .preemptions = 3},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(the_dead_are_swept_while_others_work, 120)
{
    static const model_t models[] = {
        {.name = "who lays dies",
         .threads = 3,
         .body = {lay_one, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_empty,
         .finish = finish,
         .preemptions = 3},
        {.name = "who lays two dies, another lays one",
         .threads = 3,
         .body = {lay_two, lay_one, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_crowded,
         .finish = finish,
         .preemptions = 3},
        {.name = "who takes dies",
         .threads = 3,
         .body = {take_one, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_one,
         .finish = finish,
         .preemptions = 3},
        {.name = "who takes and lays back dies",
         .threads = 3,
         .body = {take_and_lay_as_small, take_one, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_full,
         .finish = finish,
         .preemptions = 2},
        {.name = "who clears dies",
         .threads = 3,
         .body = {clear, take_and_lay_back, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_full,
         .finish = finish,
         .preemptions = 2},
        {.name = "who leaves dies",
         .threads = 3,
         .body = {lay_one_and_leave, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_empty,
         .finish = finish,
         .preemptions = 3},
        {.name = "who lays dies, its sweeper dies",
         .threads = 4,
         .body = {lay_one, reap, look_twice, reap},
         .heir = {0, 1, 0, 2},
         .killable = 3,
         .kills = 2,
         .reset = reset_empty,
         .finish = finish,
         .preemptions = 2},
        {.name = "who takes dies, its sweeper dies",
         .threads = 4,
         .body = {take_one, reap, look_twice, reap},
         .heir = {0, 1, 0, 2},
         .killable = 3,
         .kills = 2,
         .reset = reset_full,
         .finish = finish,
         .preemptions = 1},
        {.name = "two die, two sweep",
         .threads = 4,
         .body = {lay_one, take_and_lay_back, reap, reap},
         .heir = {0, 0, 1, 2},
         .killable = 3,
         .kills = 2,
         .reset = reset_one,
         .finish = finish,
         .preemptions = 1},
        {.name = "one dies, two sweep it",
         .threads = 3,
         .body = {take_and_lay_back, reap, reap},
         .heir = {0, 1, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_full_with_participants,
         .finish = finish,
         .preemptions = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "the sweep does not keep what was being laid",
         .threads = 3,
         .body = {lay_one, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_empty_forgets_keep,
         .finish = finish,
         .preemptions = 2,
         .must_fail = true},
        {.name = "the sweep does not keep what was being taken",
         .threads = 3,
         .body = {take_one, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_full_forgets_keep,
         .finish = finish,
         .preemptions = 2,
         .must_fail = true},
        {.name = "the sweep does not count",
         .threads = 3,
         .body = {lay_one, look_twice, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_empty_forgets_count,
         .finish = finish,
         .preemptions = 2,
         .must_fail = true},
        {.name = "no second look at the size",
         .threads = 2,
         .body = {take_one, take_and_lay_as_small},
         .reset = reset_full_looks_once,
         .finish = finish,
         .preemptions = 3,
         .must_fail = true},
        {.name = "claimed by a store",
         .threads = 2,
         .body = {lay_one, lay_one},
         .reset = reset_empty_lays_plainly,
         .finish = finish,
         .preemptions = 2,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
