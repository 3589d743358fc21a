/* Many processes take buffers from the shelf and lay them there, send blocks to each other and let go of them at once;
 * some are killed. See tests/SCENARIOS.md. */
#include "ds/shc_pool.h"
#include "stress_impl.h"

#define PARTIES 4u
#define HELD 12u
#define BOXES 8u
#define PLACES 16u
#define NAME "shmcomm.pool"

/* What a buffer begins with; the rest follows from it. */
typedef struct stamp {
    uint64_t ref;
    uint64_t size;
} stamp_t;

/* A message with a block. */
#define EMPTY UINT64_C(0)
#define FULL UINT64_C(1)
#define IN_USE UINT64_C(2) /* and the number of the party that is writing or reading */

typedef struct box {
    shc_a64_t state;
    shc_ref_t ref;
    uint64_t ticket;
} box_t;

typedef struct scene {
    box_t boxes[BOXES];
    shc_a64_t reused;
    shc_a64_t received;
    shc_a64_t left;      /* parties that have left, and with them what they had sent */
    uint64_t operations; /* of each party */
} scene_t;

static scene_t *scene;
static shc_seg_t seg;

typedef struct worker {
    shc_seg_t seg;
    shc_pool_t pool;
    uint64_t *rng;
    unsigned number;
    bool among_the_dying;
    shc_ref_t held[HELD];
    uint32_t record[HELD]; /* + 1, if the block is lent */
} worker_t;

static const uint64_t sizes[] = {64, 100, 1000, 5000, 20000, 100000};

/* ---- buffers ---- */

static void
fill(worker_t *w, shc_ref_t ref, uint64_t size)
{
    uint8_t *p = shc_arena_at(&w->pool.arena, ref);
    stamp_t stamp = {ref, size};
    memcpy(p, &stamp, sizeof stamp);
    stress_fill(p + sizeof stamp, (uint32_t)(size < 4096 ? size : 4096) - (uint32_t)sizeof stamp, ref, size);
}

static uint64_t
check_content(worker_t *w, shc_ref_t ref)
{
    stamp_t stamp;
    const uint8_t *p = shc_arena_at(&w->pool.arena, ref);
    memcpy(&stamp, p, sizeof stamp);
    CHECK_EQ(stamp.ref & SHC_ARENA_PLACE_MASK, ref & SHC_ARENA_PLACE_MASK);
    CHECK_LE(stamp.size, 100000);
    uint32_t checked = (uint32_t)(stamp.size < 4096 ? stamp.size : 4096) - (uint32_t)sizeof stamp;
    CHECK(stress_matches(p + sizeof stamp, checked, stamp.ref, stamp.size));
    return stamp.size;
}

/* ---- operations ---- */

/* What lies on the shelf is as it was laid there. */
static void
get_buffer(worker_t *w, uint32_t k)
{
    uint64_t size = sizes[t_random(w->rng) % SHC_ARRAY_SIZE(sizes)];
    int r = shc_pool_unshelve(&w->pool, size, &w->held[k]);
    if (r == 0) {
        CHECK_EQ(check_content(w, w->held[k]), size);
        (void)shc_a64_fetch_add_relaxed(&scene->reused, 1);
        return;
    }
    CHECK_EQ(r, SHC_EMPTY);
    r = shc_arena_allocate(&w->pool.arena, size, &w->held[k]);
    CHECK(r == 0 || r == SHC_FULL);
    if (r == 0)
        fill(w, w->held[k], size);
    else
        w->held[k] = SHC_ARENA_NOTHING;
}

static void
let_go(worker_t *w, uint32_t k)
{
    uint64_t size = check_content(w, w->held[k]);
    if (w->record[k] != 0) {
        CHECK_OK(shc_arena_drop(&w->pool.arena, w->held[k], w->record[k] - 1));
    } else {
        int r = t_random(w->rng) % 4 != 0 ? shc_pool_shelve(&w->pool, w->held[k], size) : SHC_FULL;
        if (r == SHC_FULL)
            r = shc_arena_release(&w->pool.arena, w->held[k]);
        CHECK_OK(r);
    }
    w->held[k] = SHC_ARENA_NOTHING;
    w->record[k] = 0;
}

/* Sends the block, and lets go of it right away. */
static void
send(worker_t *w, uint32_t k)
{
    uint64_t empty = EMPTY;
    uint32_t record;
    box_t *box = &scene->boxes[t_random(w->rng) % BOXES];
    if (!shc_a64_cas_seq_cst(&box->state, &empty, IN_USE + w->number))
        return;
    if (w->record[k] == 0) {
        CHECK_OK(shc_arena_lend(&w->pool.arena, w->held[k], &record));
        w->record[k] = record + 1;
    }
    box->ref = w->held[k];
    CHECK_OK(shc_arena_post(&w->pool.arena, box->ref, &box->ticket));
    shc_a64_store_release(&box->state, FULL);
    let_go(w, k);
}

/* Only where its sender was killed or has left may a block that was sent be gone. */
static void
receive(worker_t *w, uint32_t k)
{
    uint64_t full = FULL;
    uint32_t record;
    box_t *box = &scene->boxes[t_random(w->rng) % BOXES];
    if (!shc_a64_cas_seq_cst(&box->state, &full, IN_USE + w->number))
        return;
    shc_ref_t ref = box->ref;
    int r = shc_arena_collect(&w->pool.arena, ref, box->ticket, &record);
    shc_a64_store_release(&box->state, EMPTY);
    CHECK(r == 0 || (r == SHC_E_STALE && (w->among_the_dying || shc_a64_load_acquire(&scene->left) != 0)));
    if (r != 0)
        return;
    w->held[k] = ref;
    w->record[k] = record + 1;
    (void)check_content(w, w->held[k]);
    (void)shc_a64_fetch_add_relaxed(&scene->received, 1);
}

static void
operate(worker_t *w)
{
    uint32_t k = (uint32_t)(t_random(w->rng) % HELD), dice = (uint32_t)(t_random(w->rng) % 8);
    if (w->held[k] == SHC_ARENA_NOTHING) {
        if (dice < 5)
            get_buffer(w, k);
        else
            receive(w, k);
    } else if (dice < 6) {
        let_go(w, k);
    } else {
        send(w, k);
    }
    if (t_random(w->rng) % 500 == 0)
        (void)shc_pool_tend(&w->pool);
    if (t_random(w->rng) % 5000 == 0)
        (void)shc_pool_clear(&w->pool);
    if (w->among_the_dying && t_random(w->rng) % 100 == 0)
        (void)shc_seg_reap_participants(&w->seg);
}

static void
work(stress_party_t *party)
{
    worker_t w = {.seg = seg, .rng = &party->rng, .number = party->number, .among_the_dying = party->arg != NULL};
    int r;
    while ((r = fix_join(&w.seg)) == SHC_FULL)
        (void)shc_seg_reap_participants(&w.seg);
    CHECK_OK(r);
    shc_pool_open(&w.pool, &w.seg);
    for (uint64_t i = 0; i < scene->operations; i++)
        operate(&w);
    for (uint32_t k = 0; k < HELD; k++)
        if (w.held[k] != SHC_ARENA_NOTHING)
            let_go(&w, k);
    (void)shc_a64_fetch_or_seq_cst(&scene->left, 1);
    shc_pool_leave(&w.pool);
    shc_participant_begin_leave(&w.seg.participants, w.seg.index);
    shc_participant_end_leave(&w.seg.participants, w.seg.index);
}

/* ---- a run ---- */

static void
set_up(uint64_t operations)
{
    shc_pool_options_t o = {.initial_bytes = 1 << 20, .max_bytes = 16 << 20, .growth = 50, .places = PLACES};
    shc_seg_create_args_t args = {.participants = 2 * PARTIES + 2, .mode = 0600};
    fix_open();
    CHECK_OK(shc_pool_configure(&o, &args));
    CHECK_OK(shc_pool_lay_out(&args));
    CHECK_OK(fix_create_with(NAME, &shc_pool_spec, &args, &seg));
    scene = proc_share(sizeof *scene);
    scene->operations = operations;
}

/* The shelf goes; then nothing may be in use, and everything can be had in one piece. */
static void
wind_up(void)
{
    shc_pool_t pool;
    shc_arena_stats_t s;
    shc_ref_t all;
    (void)shc_seg_reap_participants(&seg);
    shc_pool_open(&pool, &seg);
    CHECK_OK(shc_pool_check(&pool));
    (void)shc_pool_clear(&pool);
    (void)shc_arena_cleanup(&pool.arena, UINT64_MAX);
    CHECK_OK(shc_arena_stats(&pool.arena, &s));
    printf("%llu buffers from the shelf, %llu blocks received\n",
           (unsigned long long)shc_a64_load_relaxed(&scene->reused),
           (unsigned long long)shc_a64_load_relaxed(&scene->received));
    CHECK_EQ(s.bytes_used, 0);
    CHECK_EQ(s.records, 0);
    CHECK_OK(shc_arena_allocate(&pool.arena, s.bytes_total, &all));
    CHECK_OK(shc_arena_release(&pool.arena, all));
    CHECK_OK(shc_pool_check(&pool));
    CHECK_OK(shc_seg_check(&seg));
    shc_pool_leave(&pool);
    fix_leave(&seg, NAME);
    fix_close();
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[PARTIES];
    set_up(t_scaled(60000));
    for (unsigned i = 0; i < PARTIES; i++)
        parties[i] = (stress_party_t){.role = work};
    stress_run(parties, PARTIES, kind, &seed);
    CHECK_GT(shc_a64_load_relaxed(&scene->reused), 0);
    CHECK_GT(shc_a64_load_relaxed(&scene->received), 0);
    wind_up();
}

TEST_LIMIT(threads_reuse_and_send_buffers, 240)
{
    run(THREADS);
}

TEST_LIMIT(processes_reuse_and_send_buffers, 240)
{
    run(PROCESSES);
}

/* ---- with kills ---- */

static void
revive(stress_party_t *party, uint64_t *seed)
{
    for (uint32_t i = 0; i < BOXES; i++) {
        uint64_t victims = IN_USE + party->number;
        (void)shc_a64_cas_seq_cst(&scene->boxes[i].state, &victims, EMPTY);
    }
    party->rng = t_random(seed);
    stress_start(party, PROCESSES);
}

TEST_LIMIT(what_the_killed_held_or_sent_comes_back, 240)
{
    uint64_t seed = t_seed(), kills = t_scaled(300);
    stress_party_t parties[PARTIES];
    set_up(UINT64_MAX);
    for (unsigned i = 0; i < PARTIES; i++) {
        parties[i] = (stress_party_t){.role = work, .number = i, .arg = &scene};
        revive(&parties[i], &seed);
    }
    for (uint64_t i = 0; i < kills; i++) {
        stress_party_t *victim = &parties[t_random(&seed) % PARTIES];
        proc_sleep_us((long)(t_random(&seed) % 20000));
        proc_kill(victim->pid);
        revive(victim, &seed);
    }
    for (unsigned i = 0; i < PARTIES; i++)
        proc_kill(parties[i].pid);
    wind_up();
}
