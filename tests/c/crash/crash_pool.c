/* A process is killed at every instruction of what it does with the shelf, and of giving idle memory back; the others
 * go on at once, and after the sweep nothing is lost. The blocks themselves are the arena's business: crash_arena.c. */
#include <string.h>

#include "ds/shc_pool.h"
#include "support/crash_kill.h"
#include "support/proc.h"
#include "t.h"

#define PAGE 65536u
#define PAGES 4u
#define PLACES 3u
#define SIZE 10000u /* few to a page: a sweep looks at each */

/* What has happened before, and what the operation does. */
typedef struct plan {
    uint32_t shelved; /* buffers of SIZE bytes that the peer has laid on the shelf */
    uint64_t other;   /* size of one more, if not 0 */
    bool own;         /* the victim owns a buffer */
} plan_t;

typedef struct own {
    shc_pool_t pool;
} own_t;

static struct {
    shc_seg_t seg; /* with the descriptor that victims inherit */
} facts;

static shc_ref_t *own_ref; /* of the victim */

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static shc_pool_t *
pool_of(const crash_party_t *party)
{
    return &((own_t *)party->own)->pool;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    shc_pool_open(pool_of(party), &party->seg);
}

static void
rebase(crash_party_t *party)
{
    shc_pool_t fresh, *pool = pool_of(party);
    shc_pool_open(&fresh, &party->seg);
    pool->shm = fresh.shm;
    pool->places = fresh.places;
    pool->arena.seg = fresh.arena.seg;
    pool->arena.shm = fresh.arena.shm;
    pool->arena.parties = fresh.arena.parties;
    pool->arena.words = fresh.arena.words;
}

static int
verify(const crash_party_t *party)
{
    return shc_pool_check(pool_of(party));
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    return shc_pool_names(pool_of(party), index, generation);
}

/* ---- before the operation ---- */

static shc_ref_t
make(shc_pool_t *pool, uint64_t size)
{
    shc_ref_t ref;
    CHECK_OK(shc_arena_allocate(&pool->arena, size, &ref));
    memset(shc_arena_at(&pool->arena, ref), (int)(size % 251), size);
    return ref;
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_pool_t *pool = pool_of(peer);
    facts.seg = peer->seg;
    for (uint32_t i = 0; i < plan->shelved; i++)
        CHECK_OK(shc_pool_shelve(pool, make(pool, SIZE), SIZE));
    if (plan->other != 0)
        CHECK_OK(shc_pool_shelve(pool, make(pool, plan->other), plan->other));
}

static void
prepare(crash_party_t *victim, const crash_case_t *c)
{
    victim->seg.fd = facts.seg.fd;
    victim->seg.dev = facts.seg.dev;
    victim->seg.ino = facts.seg.ino;
    *own_ref = plan_of(c)->own ? make(pool_of(victim), SIZE) : SHC_ARENA_NOTHING;
}

/* ---- survivors ---- */

/* What one finds there is whole. */
static void
take(shc_pool_t *pool, uint64_t size, uint32_t *n)
{
    shc_ref_t ref;
    int r = shc_pool_unshelve(pool, size, &ref);
    SURVIVES(r == 0 || r == SHC_EMPTY);
    if (r != 0)
        return;
    const uint8_t *p = shc_arena_at(&pool->arena, ref);
    for (uint64_t i = 0; i < size; i++)
        SURVIVES_EQ(p[i], size % 251);
    SURVIVES_EQ(shc_arena_release(&pool->arena, ref), 0);
    ++*n;
}

/* One goes away with the victim, at most; and one comes, at most. */
static void
count_shelf(shc_pool_t *pool, const plan_t *plan)
{
    uint32_t n = 0, others = 0;
    for (uint32_t i = 0; i < PLACES; i++)
        take(pool, SIZE, &n);
    if (plan->other != 0)
        take(pool, plan->other, &others);
    uint32_t less = (plan->own ? 0 : 1) + (crash_is_double() ? 1 : 0);
    SURVIVES(n + less >= plan->shelved);
    SURVIVES(n <= plan->shelved + (plan->own ? 1 : 0));
    SURVIVES(plan->other == 0 || plan->own || others == 1);
}

/* Lays one there and takes it again; what lies there stays. */
static void
work(shc_pool_t *pool)
{
    shc_ref_t ref = SHC_ARENA_NOTHING, back;
    SURVIVES_EQ(shc_arena_allocate(&pool->arena, 48, &ref), 0);
    int r = shc_pool_shelve(pool, ref, 48);
    SURVIVES(r == 0 || r == SHC_FULL);
    if (r == 0) {
        r = shc_pool_shelve(pool, ref, 48);
        SURVIVES(r == SHC_E_STALE || r == SHC_FULL);
        SURVIVES_EQ(shc_pool_unshelve(pool, 48, &back), 0);
        SURVIVES_EQ(back, ref);
    }
    SURVIVES_EQ(shc_arena_release(&pool->arena, ref), 0);
}

static void
nothing_is_lost(shc_pool_t *survivor, shc_pool_t *peer)
{
    shc_arena_stats_t s;
    shc_ref_t all = SHC_ARENA_NOTHING;
    (void)shc_pool_clear(peer);
    (void)shc_arena_cleanup(&peer->arena, UINT64_MAX);
    (void)shc_arena_cleanup(&survivor->arena, UINT64_MAX);
    SURVIVES_EQ(shc_arena_stats(&survivor->arena, &s), 0);
    SURVIVES_EQ(s.bytes_used, 0);
    SURVIVES_EQ(s.bytes_free, s.bytes_backed);
    SURVIVES_EQ(shc_arena_allocate(&survivor->arena, PAGES * PAGE, &all), 0);
    SURVIVES_EQ(shc_arena_release(&survivor->arena, all), 0);
}

static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    work(pool_of(survivor));
    work(pool_of(peer));
    SURVIVES_EQ(shc_pool_check(pool_of(survivor)), 0);
    (void)shc_seg_reap_participants(&survivor->seg);
    SURVIVES_EQ(shc_pool_check(pool_of(survivor)), 0);
    count_shelf(pool_of(peer), plan_of(c));
    work(pool_of(survivor));
    nothing_is_lost(pool_of(survivor), pool_of(peer));
}

/* What clear does may take everything away. */
static void
check_cleared(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    work(pool_of(survivor));
    (void)shc_seg_reap_participants(&survivor->seg);
    nothing_is_lost(pool_of(survivor), pool_of(peer));
}

/* What a successor does that will be killed, too. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    shc_ref_t ref;
    (void)c;
    if (shc_pool_unshelve(pool_of(survivor), SIZE, &ref) == 0)
        (void)!shc_pool_shelve(pool_of(survivor), ref, SIZE);
}

static crash_script_t
script(void)
{
    shc_pool_options_t o = {.initial_bytes = PAGES * PAGE, .max_bytes = PAGES * PAGE, .places = PLACES};
    crash_script_t s = {
        .name = "pool",
        .spec = &shc_pool_spec,
        .args = {.participants = 4, .mode = 0600, .persist = true},
        .init = shc_pool_init,
        .own_size = sizeof(own_t),
        .bind = bind,
        .rebase = rebase,
        .recover = recover,
        .owns = owns,
        .verify = verify,
    };
    shc_arena_geometry_t g = {.pages = PAGES, .initial = PAGES, .page_shift = SHC_POOL_PAGE_SHIFT, .records = 8};
    CHECK_OK(shc_pool_configure(&o, &s.args));
    shc_arena_to_config(&g,
                        s.args.config + SHC_POOL_CONFIG_ARENA); /* a small image: it is copied at each instruction */
    CHECK_OK(shc_pool_lay_out(&s.args));
    own_ref = proc_share(sizeof *own_ref);
    return s;
}

/* ---- operations ---- */

static void
act_shelve(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_pool_shelve(pool_of(victim), *own_ref, SIZE);
}

static void
act_unshelve(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t ref;
    (void)c;
    if (shc_pool_unshelve(pool_of(victim), SIZE, &ref) == 0)
        (void)!shc_arena_release(&pool_of(victim)->arena, ref);
}

static void
act_take_and_put_back(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t ref;
    (void)c;
    if (shc_pool_unshelve(pool_of(victim), SIZE, &ref) == 0)
        (void)!shc_pool_shelve(pool_of(victim), ref, SIZE);
}

static void
act_clear(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_pool_clear(pool_of(victim));
}

static void
act_tend(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    for (uint32_t i = 0; i < SHC_POOL_SAMPLES; i++)
        (void)shc_pool_tend(pool_of(victim));
}

static void
act_leave(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_pool_leave(pool_of(victim));
}

#define CASE(title, operation, checks, ...)                                                                            \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){__VA_ARGS__}, .setup = setup, .prepare = prepare, .act = (operation), \
        .check = (checks)                                                                                              \
    }

TEST_LIMIT(shelf, 600)
{
    const crash_case_t cases[] = {
        CASE("shelve", act_shelve, check, .own = true),
        CASE("shelve beside others", act_shelve, check, .shelved = 2, .own = true),
        CASE("shelve where there is no place", act_shelve, check, .shelved = 3, .own = true),
        CASE("unshelve", act_unshelve, check, .shelved = 1),
        CASE("unshelve one of several", act_unshelve, check, .shelved = 2, .other = 60000),
        CASE("unshelve and shelve", act_take_and_put_back, check, .shelved = 2),
        CASE("clear", act_clear, check_cleared, .shelved = 2, .other = 60000),
        CASE("tend", act_tend, check, .shelved = 1),
        CASE("leave", act_leave, check, .shelved = 1, .own = true),
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

/* Somebody died before, in the middle of laying a buffer there and of taking one. */
static void
setup_dead(crash_party_t *peer, const crash_case_t *c)
{
    setup(peer, c);
    shc_pool_t *pool = pool_of(peer);
    uint64_t dead = crash_plant_dead(peer);
    uint32_t n = 0;
    for (uint32_t i = 0; i < PLACES; i++) {
        shc_pool_place_shm_t *place = &pool->places[i];
        if (shc_a64_load_relaxed(&place->word) != SHC_POOL_FULL)
            continue;
        shc_a64_store_relaxed(&place->word, (n++ == 0 ? SHC_POOL_PLACING : SHC_POOL_TAKING) | dead);
    }
    CHECK_EQ(n, 2);
}

static void
act_reap(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_seg_reap_participants(&victim->seg);
}

TEST_LIMIT(sweeps, 600)
{
    const crash_case_t cases[] = {
        {.name = "sweep of places",
         .plan = &(const plan_t){.shelved = 2},
         .setup = setup_dead,
         .prepare = prepare,
         .act = act_reap,
         .check = check},
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- stopped, not killed ---- */

static void
lay_two(crash_party_t *parent)
{
    for (int i = 0; i < 2; i++)
        CHECK_OK(shc_pool_shelve(pool_of(parent), make(pool_of(parent), SIZE), SIZE));
}

static void
move_buffers(crash_party_t *party)
{
    shc_pool_t *pool = pool_of(party);
    shc_ref_t ref;
    for (int i = 0; i < 4; i++) {
        int r = shc_pool_unshelve(pool, SIZE, &ref);
        CHECK(r == 0 || r == SHC_EMPTY);
        if (r == SHC_EMPTY)
            ref = make(pool, SIZE);
        const uint8_t *p = shc_arena_at(&pool->arena, ref);
        for (uint64_t k = 0; k < SIZE; k += SIZE / 4) /* each step is traced */
            CHECK_EQ(p[k], SIZE % 251);
        r = shc_pool_shelve(pool, ref, SIZE);
        CHECK(r == 0 || r == SHC_FULL);
        if (r == SHC_FULL)
            CHECK_OK(shc_arena_release(&pool->arena, ref));
    }
}

static void
move_beside(crash_party_t *party)
{
    move_buffers(party);
    CHECK_EQ(shc_seg_reap_participants(&party->seg), 0);
}

static void
all_is_whole(crash_party_t *party)
{
    CHECK_OK(shc_pool_check(pool_of(party)));
    move_buffers(party);
}

TEST_LIMIT(a_stopped_process_keeps_what_it_moves, 120)
{
    static const stop_case_t cases[] = {
        {.name = "stopped while it moves buffers",
         .setup = lay_two,
         .act = move_buffers,
         .meanwhile = move_beside,
         .after = all_is_whole},
    };
    crash_script_t s = script();
    crash_stop(&s, cases, SHC_ARRAY_SIZE(cases));
}
