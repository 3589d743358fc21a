/* Many processes allocate, hand on, lend and release blocks of all sizes; some are killed. See tests/SCENARIOS.md. */
#include "stress_impl.h"

#define PARTIES 4u
#define HELD 48u
#define BOXES 16u
#define PAGES 384u /* 24 MiB: too little now and then */
#define SIZE_MAX_LOG2 22u

/* What every block begins with; the rest follows from it. */
typedef struct stamp {
    uint64_t ref;
    uint64_t size;
} stamp_t;

typedef struct scene {
    shc_a64_t handed[BOXES]; /* references of ATTACHED blocks: the structure of this test */
    shc_a64_t lent[BOXES];   /* of blocks that somebody has lent, or had */
    shc_a64_t allocations[PARTIES];
    shc_a64_t bytes[PARTIES];
    shc_a64_t full[PARTIES];
    uint64_t operations; /* of each party */
    uint64_t kills;
} scene_t;

static scene_t *scene;
static shc_seg_t seg;

typedef struct worker {
    shc_seg_t seg;
    shc_arena_t arena;
    uint64_t *rng;
    unsigned number;
    bool among_the_dying;
    shc_ref_t held[HELD];
    uint32_t record[HELD]; /* + 1, if the block is lent */
} worker_t;

/* ---- blocks ---- */

/* Short ones are checked byte by byte; of long ones a word in every 512 bytes, which is less than anything that
 * could be given out twice. */
static void
fill(worker_t *w, shc_ref_t ref, uint64_t size)
{
    uint8_t *p = shc_arena_at(&w->arena, ref);
    stamp_t stamp = {ref, size};
    memcpy(p, &stamp, sizeof stamp);
    if (size <= 4096) {
        stress_fill(p + sizeof stamp, (uint32_t)(size - sizeof stamp), ref, size);
        return;
    }
    for (uint64_t at = 512; at + 8 <= size; at += 512) {
        uint64_t word = stress_hash(ref, at);
        memcpy(p + at, &word, 8);
    }
}

static void
check_content(worker_t *w, shc_ref_t ref)
{
    void *memory;
    stamp_t stamp;
    uint64_t room;
    CHECK_OK(shc_arena_resolve(&w->arena, ref, &memory, &room));
    const uint8_t *p = memory;
    memcpy(&stamp, p, sizeof stamp);
    CHECK_EQ(stamp.ref, ref);
    CHECK_LE(stamp.size, room);
    if (stamp.size <= 4096) {
        CHECK(stress_matches(p + sizeof stamp, (uint32_t)(stamp.size - sizeof stamp), ref, stamp.size));
        return;
    }
    for (uint64_t at = 512; at + 8 <= stamp.size; at += 512) {
        uint64_t word = stress_hash(ref, at);
        CHECK_MEM(p + at, &word, 8);
    }
}

/* From 16 bytes to 4 MiB, every power of two as likely as another, but few of the longest. */
static uint64_t
some_size(uint64_t *rng)
{
    uint64_t log2 = 4 + t_random(rng) % (SIZE_MAX_LOG2 - 4);
    if (log2 > 16 && t_random(rng) % 8 != 0)
        log2 = 4 + log2 % 8;
    return (UINT64_C(1) << log2) + t_random(rng) % ((UINT64_C(1) << log2) + 1);
}

/* ---- operations ---- */

static void
allocate(worker_t *w, uint32_t k)
{
    uint64_t size = some_size(w->rng);
    int r = shc_arena_allocate(&w->arena, size, &w->held[k]);
    if (r == SHC_FULL) {
        w->held[k] = SHC_ARENA_NOTHING;
        (void)shc_a64_fetch_add_relaxed(&scene->full[w->number], 1);
        return;
    }
    CHECK_OK(r);
    fill(w, w->held[k], size);
    (void)shc_a64_fetch_add_relaxed(&scene->allocations[w->number], 1);
    (void)shc_a64_fetch_add_relaxed(&scene->bytes[w->number], size);
}

static void
let_go(worker_t *w, uint32_t k)
{
    check_content(w, w->held[k]);
    if (w->record[k] != 0)
        CHECK_OK(shc_arena_drop(&w->arena, w->held[k], w->record[k] - 1));
    else
        CHECK_OK(shc_arena_release(&w->arena, w->held[k]));
    w->held[k] = SHC_ARENA_NOTHING;
    w->record[k] = 0;
}

/* The box names the block before it is attached, and until it is not attached any more: then a death in between leaves
 * a stale reference in it, never a block that nobody knows. */
static void
hand_on(worker_t *w, uint32_t k)
{
    shc_a64_t *box = &scene->handed[t_random(w->rng) % BOXES];
    uint64_t empty = 0;
    if (w->record[k] != 0)
        return;
    if (!w->among_the_dying) {
        CHECK_OK(shc_arena_attach(&w->arena, w->held[k]));
        if (!shc_a64_cas_seq_cst(box, &empty, w->held[k])) {
            CHECK_OK(shc_arena_take(&w->arena, w->held[k]));
            return;
        }
    } else {
        if (!shc_a64_cas_seq_cst(box, &empty, w->held[k]))
            return;
        CHECK_OK(shc_arena_attach(&w->arena, w->held[k]));
    }
    w->held[k] = SHC_ARENA_NOTHING;
}

static void
take_over(worker_t *w, uint32_t k)
{
    uint32_t word;
    shc_a64_t *box = &scene->handed[t_random(w->rng) % BOXES];
    if (!w->among_the_dying) {
        uint64_t ref = shc_a64_exchange_seq_cst(box, 0);
        if (ref == 0)
            return;
        CHECK_OK(shc_arena_take(&w->arena, ref));
        w->held[k] = ref;
        return;
    }
    uint64_t ref = shc_a64_load_acquire(box);
    if (ref == 0)
        return;
    if (shc_arena_take(&w->arena, ref) == 0) {
        w->held[k] = ref;
        (void)shc_a64_cas_seq_cst(box, &(uint64_t){ref}, 0); /* or it has gone from hand to hand to another box since */
    } else if (shc_arena_look(&w->arena, ref, &word) == SHC_E_STALE) {
        (void)shc_a64_cas_seq_cst(box, &(uint64_t){ref}, 0);
    }
}

static void
lend(worker_t *w, uint32_t k)
{
    uint32_t record;
    if (w->record[k] != 0)
        return;
    CHECK_OK(shc_arena_lend(&w->arena, w->held[k], &record));
    w->record[k] = record + 1;
    shc_a64_store_release(&scene->lent[t_random(w->rng) % BOXES], w->held[k]);
}

static void
share(worker_t *w, uint32_t k)
{
    uint32_t record;
    uint64_t ref = shc_a64_load_acquire(&scene->lent[t_random(w->rng) % BOXES]);
    if (ref == 0)
        return;
    int r = shc_arena_hold(&w->arena, ref, &record);
    CHECK(r == 0 || r == SHC_E_STALE);
    if (r != 0)
        return;
    w->held[k] = ref;
    w->record[k] = record + 1;
    check_content(w, ref);
}

static void
operate(worker_t *w)
{
    uint32_t k = (uint32_t)(t_random(w->rng) % HELD), dice = (uint32_t)(t_random(w->rng) % 16);
    if (w->held[k] == SHC_ARENA_NOTHING) {
        if (dice < 10)
            allocate(w, k);
        else if (dice < 13)
            take_over(w, k);
        else
            share(w, k);
    } else if (dice < 10) {
        let_go(w, k);
    } else if (dice < 13) {
        hand_on(w, k);
    } else {
        lend(w, k);
    }
    if (t_random(w->rng) % 2000 == 0)
        (void)shc_arena_cleanup(&w->arena, t_random(w->rng) % (32 << 20));
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
    fix_arena_open(&w.arena, &w.seg);
    for (uint64_t i = 0; i < scene->operations; i++)
        operate(&w);
    for (uint32_t k = 0; k < HELD; k++)
        if (w.held[k] != SHC_ARENA_NOTHING)
            let_go(&w, k);
    CHECK_EQ(w.arena.outstanding, 0);
    shc_arena_leave(&w.arena);
    shc_participant_begin_leave(&w.seg.participants, w.seg.index);
    shc_participant_end_leave(&w.seg.participants, w.seg.index);
}

/* ---- a run ---- */

static void
set_up(uint64_t operations)
{
    shc_arena_geometry_t g = {.pages = PAGES, .initial = 16, .page_shift = 16, .growth = 50, .records = 200};
    shc_seg_create_args_t args = fix_arena_args(&g, 2 * PARTIES + 2);
    fix_open();
    CHECK_OK(fix_create_with("shmcomm.arena", &fix_arena_spec, &args, &seg));
    scene = proc_share(sizeof *scene);
    scene->operations = operations;
}

static uint64_t
sum(const shc_a64_t *counts)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < PARTIES; i++)
        n += shc_a64_load_relaxed(&counts[i]);
    return n;
}

/* What is left in the boxes goes; then nothing may be in use, and everything goes back to the system. */
static void
wind_up(void)
{
    shc_arena_t arena;
    shc_arena_stats_t s;
    (void)shc_seg_reap_participants(&seg);
    fix_arena_open(&arena, &seg);
    CHECK_OK(shc_arena_check(&arena));
    for (uint32_t i = 0; i < BOXES; i++) {
        uint64_t ref = shc_a64_load_relaxed(&scene->handed[i]);
        if (ref != 0 && shc_arena_take(&arena, ref) == 0)
            CHECK_OK(shc_arena_release(&arena, ref));
    }
    (void)shc_arena_cleanup(&arena, UINT64_MAX);
    CHECK_OK(shc_arena_stats(&arena, &s));
    printf("%llu blocks of %llu MiB in all, %llu times full, %llu kills; all released: %llu KiB backed, "
           "fragmentation %u %%",
           (unsigned long long)sum(scene->allocations), (unsigned long long)sum(scene->bytes) >> 20,
           (unsigned long long)sum(scene->full), (unsigned long long)scene->kills,
           (unsigned long long)s.bytes_backed >> 10, s.fragmentation);
    CHECK_EQ(s.bytes_used, 0);
    CHECK_EQ(s.records, 0);
    CHECK_EQ(s.bytes_free, s.bytes_backed);
    CHECK_LE(s.fragmentation, 25);
    shc_ref_t all;
    CHECK_OK(shc_arena_allocate(&arena, s.bytes_total, &all));
    CHECK_OK(shc_arena_release(&arena, all));
    (void)shc_arena_cleanup(&arena, 0);
    CHECK_OK(shc_arena_stats(&arena, &s));
    printf("; given back: %llu KiB backed\n", (unsigned long long)s.bytes_backed >> 10);
#ifndef SHC_OS_POSIX
    CHECK_EQ(s.bytes_backed, 0);
#endif
    CHECK_OK(shc_arena_check(&arena));
    CHECK_OK(shc_seg_check(&seg));
    shc_arena_leave(&arena);
    fix_leave(&seg, "shmcomm.arena");
    fix_close();
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[PARTIES];
    set_up(t_scaled(40000));
    for (unsigned i = 0; i < PARTIES; i++)
        parties[i] = (stress_party_t){.role = work};
    stress_run(parties, PARTIES, kind, &seed);
    wind_up();
}

TEST_LIMIT(threads_keep_their_blocks_apart, 240)
{
    run(THREADS);
}

TEST_LIMIT(processes_keep_their_blocks_apart, 240)
{
    run(PROCESSES);
}

/* ---- with kills ---- */

#define BLOCKS_PER_KILL 1000u /* at least: 10,000 kills are 10 million blocks */

static void
revive(stress_party_t *party, uint64_t *seed)
{
    party->rng = t_random(seed);
    stress_start(party, PROCESSES);
}

TEST_LIMIT(what_the_killed_held_comes_back, 240)
{
    uint64_t seed = t_seed(), kills = t_scaled(300);
    stress_party_t parties[PARTIES];
    set_up(UINT64_MAX);
    for (unsigned i = 0; i < PARTIES; i++) {
        parties[i] = (stress_party_t){.role = work, .number = i, .arg = &scene};
        revive(&parties[i], &seed);
    }
    while (scene->kills < kills || sum(scene->allocations) < kills * BLOCKS_PER_KILL) {
        stress_party_t *victim = &parties[t_random(&seed) % PARTIES];
        proc_sleep_us((long)(t_random(&seed) % 20000));
        proc_kill(victim->pid);
        scene->kills++;
        revive(victim, &seed);
    }
    for (unsigned i = 0; i < PARTIES; i++)
        proc_kill(parties[i].pid);
    wind_up();
}
