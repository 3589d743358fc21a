/* The pool: what it adds to the arena. */
#include "ds/shc_pool.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define NAME "shmcomm.pool"
#define PAGE 65536u

static shc_seg_t seg;
static shc_pool_t pool;

static const shc_pool_options_t usual = {
    .initial_bytes = 4 * PAGE, .max_bytes = 64 * PAGE, .interval_ns = 5, .growth = 100, .places = 4};

static void
set_up_with(shc_pool_options_t options)
{
    shc_seg_create_args_t args = {.participants = FIX_PARTICIPANTS, .mode = 0600};
    fix_open();
    CHECK_OK(shc_pool_configure(&options, &args));
    CHECK_OK(shc_pool_lay_out(&args));
    CHECK_OK(fix_create_with(NAME, &shc_pool_spec, &args, &seg));
    shc_pool_open(&pool, &seg);
}

static void
set_up(void)
{
    set_up_with(usual);
}

static void
tear_down(void)
{
    CHECK_OK(shc_pool_check(&pool));
    shc_pool_leave(&pool);
    CHECK(!shc_pool_names(&pool, seg.index, seg.generation));
    CHECK_OK(shc_pool_check(&pool));
    fix_leave(&seg, NAME);
    fix_close();
}

static shc_ref_t
allocate(uint64_t size)
{
    shc_ref_t ref = SHC_ARENA_NOTHING;
    CHECK_OK(shc_arena_allocate(&pool.arena, size, &ref));
    return ref;
}

static shc_arena_stats_t
stats(void)
{
    shc_arena_stats_t s;
    CHECK_OK(shc_arena_stats(&pool.arena, &s));
    return s;
}

/* Another participant over the same file: what it does is another process's. */
typedef struct other {
    shc_seg_t seg;
    shc_pool_t pool;
} other_t;

static void
join_other(other_t *other)
{
    CHECK_OK(fix_attach(NAME, &shc_pool_spec, &other->seg));
    shc_pool_open(&other->pool, &other->seg);
}

static void
leave_other(other_t *other)
{
    shc_pool_leave(&other->pool);
    fix_leave(&other->seg, NAME);
}

static void
kill_other(other_t *other)
{
    fix_plant_dead(&other->seg, other->seg.index, other->seg.generation, SHC_PARTICIPANT_LIVE);
    shc_seg_unmap(&other->seg);
}

static unsigned
shelved(void)
{
    unsigned n = 0;
    uint64_t size;
    for (uint32_t i = 0; i < pool.n_places; i++)
        n += shc_pool_look(&pool, i, &size);
    return n;
}

/* ---- making ---- */

TEST(options_come_back_as_they_were_rounded)
{
    shc_pool_options_t o = usual, back;
    o.initial_bytes = 1;
    o.max_bytes = 5 * PAGE + 1;
    set_up_with(o);
    shc_pool_options_of(&seg, &back);
    CHECK_EQ(back.initial_bytes, PAGE);
    CHECK_EQ(back.max_bytes, 6 * PAGE);
    CHECK_EQ(back.interval_ns, 5);
    CHECK_EQ(back.growth, 100);
    CHECK_EQ(back.places, 4);
    CHECK_EQ(stats().bytes_total, 6 * PAGE);
    CHECK_EQ(stats().bytes_backed, PAGE);
    tear_down();
}

TEST(pools_that_cannot_be_are_refused)
{
    static const shc_pool_options_t cases[] = {
        {.initial_bytes = 0, .max_bytes = 0},
        {.initial_bytes = 2, .max_bytes = 1},
        {.max_bytes = SHC_POOL_BYTES_MAX + 1},
        {.max_bytes = PAGE, .growth = SHC_POOL_GROWTH_MAX + 1},
        {.max_bytes = PAGE, .places = SHC_POOL_PLACES_MAX + 1},
    };
    shc_seg_create_args_t args = {.participants = 4, .mode = 0600};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++)
        CHECK_EQ(shc_pool_configure(&cases[i], &args), -EINVAL);
    CHECK_OK(shc_pool_configure(&usual, &args));
    args.config[SHC_POOL_CONFIG_PLACES] = UINT64_MAX;
    CHECK_EQ(shc_pool_lay_out(&args), -EINVAL);
    CHECK_OK(shc_pool_configure(&usual, &args));
    args.participants = 0;
    CHECK_EQ(shc_pool_lay_out(&args), -EINVAL);
}

TEST(segments_with_other_words_are_no_pools)
{
    set_up();
    shc_seg_id_t id = seg.id;
    CHECK_OK(shc_pool_spec.validate(&id));
    for (unsigned i = 0; i < SHC_SEG_CONFIG_WORDS; i++) {
        static const uint64_t words[] = {1, UINT64_MAX, UINT64_MAX >> 1, UINT64_C(1) << 32, UINT64_C(1) << 20};
        for (size_t k = 0; k < SHC_ARRAY_SIZE(words); k++) {
            id = seg.id;
            id.config[i] ^= words[k];
            int r = shc_pool_spec.validate(&id);
            CHECK(r == 0 || r == SHC_E_CORRUPT);
            bool free_choice = i == SHC_POOL_CONFIG_INTERVAL || i > SHC_POOL_CONFIG_PLACES;
            CHECK(!free_choice || r == 0);
        }
    }
    id = seg.id;
    id.size += PAGE;
    CHECK_EQ(shc_pool_spec.validate(&id), SHC_E_CORRUPT);
    id = seg.id;
    id.body_offset = UINT64_MAX - 5;
    CHECK_EQ(shc_pool_spec.validate(&id), SHC_E_CORRUPT);
    tear_down();
}

TEST(blocks_of_a_pool_are_the_arenas)
{
    other_t other;
    uint32_t record, theirs;
    set_up();
    join_other(&other);
    shc_ref_t ref = allocate(100);
    memset(shc_arena_at(&pool.arena, ref), 7, 100);
    CHECK_OK(shc_arena_lend(&pool.arena, ref, &record));
    CHECK_OK(shc_arena_hold(&other.pool.arena, ref, &theirs));
    CHECK_EQ(*(uint8_t *)shc_arena_at(&other.pool.arena, ref), 7);
    CHECK_OK(shc_arena_drop(&pool.arena, ref, record));
    CHECK_OK(shc_arena_drop(&other.pool.arena, ref, theirs));
    CHECK_EQ(stats().bytes_used, 0);
    leave_other(&other);
    tear_down();
}

/* ---- memory that is idle ---- */

TEST(memory_that_was_idle_for_an_interval_goes_back)
{
    set_up();
    shc_ref_t large = allocate(32 * PAGE), small = allocate(100);
    for (unsigned i = 0; i < 2 * SHC_POOL_SAMPLES; i++)
        (void)shc_pool_tend(&pool); /* what growth took beside */
    CHECK_EQ(shc_pool_tend(&pool), 0);
    CHECK_OK(shc_arena_release(&pool.arena, large));
    CHECK_GE(stats().bytes_backed, 33 * PAGE);
    uint64_t before = shc_a64_load_relaxed(&pool.shm->given_back);
    for (unsigned i = 1; i < SHC_POOL_SAMPLES; i++)
        CHECK_EQ(shc_pool_tend(&pool), 0); /* it was in use within the interval */
    uint64_t given = shc_pool_tend(&pool);
#ifndef SHC_OS_POSIX
    CHECK_GE(given, 28 * PAGE);
    CHECK_LE(stats().bytes_backed, 5 * PAGE); /* what it began with, and what rounds up */
#endif
    CHECK_EQ(shc_a64_load_relaxed(&pool.shm->given_back), before + given);
    CHECK_OK(shc_arena_release(&pool.arena, small));
    tear_down();
}

TEST(a_young_pool_gives_nothing_back)
{
    set_up();
    CHECK_OK(shc_arena_release(&pool.arena, allocate(32 * PAGE)));
    for (unsigned i = 1; i < SHC_POOL_SAMPLES; i++)
        CHECK_EQ(shc_pool_tend(&pool), 0);
    tear_down();
}

TEST(cleanup_leaves_what_the_pool_began_with)
{
    set_up();
    shc_ref_t kept = allocate(PAGE);
    CHECK_OK(shc_arena_release(&pool.arena, allocate(32 * PAGE)));
    uint64_t backed = stats().bytes_backed, given = shc_pool_cleanup(&pool);
#ifndef SHC_OS_POSIX
    CHECK_EQ(given, backed - 4 * PAGE);
    CHECK_EQ(stats().bytes_backed, 4 * PAGE);
#else
    CHECK_EQ(given, 0);
    CHECK_EQ(stats().bytes_backed, backed);
#endif
    CHECK_EQ(shc_pool_cleanup(&pool), 0);
    CHECK_OK(shc_arena_release(&pool.arena, kept));
    tear_down();
}

/* ---- the shelf ---- */

TEST(a_buffer_on_the_shelf_is_found_by_its_size)
{
    other_t other;
    shc_ref_t ref;
    uint64_t size;
    set_up();
    join_other(&other);
    shc_ref_t a = allocate(100), b = allocate(101), c = allocate(70000);
    memset(shc_arena_at(&pool.arena, b), 9, 101);
    CHECK_EQ(shc_pool_unshelve(&pool, 100, &ref), SHC_EMPTY);
    CHECK_OK(shc_pool_shelve(&pool, a, 100));
    CHECK_OK(shc_pool_shelve(&pool, b, 101));
    CHECK_OK(shc_pool_shelve(&pool, c, 70000));
    CHECK_EQ(shelved(), 3);
    CHECK_OK(shc_pool_check(&pool));
    CHECK_EQ(shc_pool_shelve(&pool, a, 100), SHC_E_STALE); /* twice */
    CHECK_EQ(shc_pool_shelve(&other.pool, b, 101), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&pool.arena, a), SHC_E_STALE);
    CHECK_EQ(shelved(), 3);
    CHECK_EQ(shc_pool_unshelve(&other.pool, 99, &ref), SHC_EMPTY);
    CHECK_OK(shc_pool_unshelve(&other.pool, 101, &ref));
    CHECK_EQ(ref, b);
    CHECK_EQ(*(uint8_t *)shc_arena_at(&other.pool.arena, ref), 9);
    CHECK_EQ(shc_pool_unshelve(&pool, 101, &ref), SHC_EMPTY);
    CHECK_OK(shc_pool_unshelve(&pool, 70000, &ref));
    CHECK_EQ(ref, c);
    CHECK_OK(shc_arena_release(&pool.arena, c));
    CHECK_OK(shc_arena_release(&other.pool.arena, b));
    CHECK_EQ(shc_pool_clear(&other.pool), 1);
    CHECK_EQ(shc_pool_clear(&other.pool), 0);
    CHECK_EQ(stats().bytes_used, 0);
    CHECK(!shc_pool_look(&pool, pool.n_places, &size));
    leave_other(&other);
    tear_down();
}

TEST(a_size_that_was_looked_for_in_vain_is_looked_for_again_when_something_came)
{
    other_t other;
    shc_ref_t ref, mine;
    set_up();
    join_other(&other);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(shc_pool_unshelve(&pool, 64, &ref), SHC_EMPTY);
    CHECK_OK(shc_arena_allocate(&other.pool.arena, 64, &mine));
    CHECK_OK(shc_pool_shelve(&other.pool, mine, 64));
    CHECK_OK(shc_pool_unshelve(&pool, 64, &ref));
    CHECK_EQ(shc_pool_unshelve(&pool, 64, &mine), SHC_EMPTY);
    /* Its owner dies just before it counts: what it laid there is found after the sweep. */
    uint64_t placed = shc_a64_load_relaxed(&pool.shm->placed);
    CHECK_OK(shc_arena_allocate(&other.pool.arena, 64, &mine));
    CHECK_OK(shc_pool_shelve(&other.pool, mine, 64));
    shc_a64_store_relaxed(&pool.shm->placed, placed);
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_OK(shc_pool_unshelve(&pool, 64, &mine));
    CHECK_OK(shc_arena_release(&pool.arena, mine));
    CHECK_OK(shc_arena_release(&pool.arena, ref));
    tear_down();
}

TEST(a_full_shelf_says_so)
{
    shc_ref_t refs[5];
    set_up();
    for (int i = 0; i < 5; i++)
        refs[i] = allocate(64);
    for (int i = 0; i < 4; i++)
        CHECK_OK(shc_pool_shelve(&pool, refs[i], 64));
    CHECK_EQ(shc_pool_shelve(&pool, refs[4], 64), SHC_FULL);
    CHECK_OK(shc_arena_release(&pool.arena, refs[4]));
    CHECK_EQ(shc_pool_clear(&pool), 4);
    tear_down();
    shc_pool_options_t plain = usual;
    plain.places = 0;
    set_up_with(plain);
    refs[0] = allocate(64);
    CHECK_EQ(shc_pool_shelve(&pool, refs[0], 64), SHC_FULL);
    CHECK_EQ(shc_pool_unshelve(&pool, 64, &refs[1]), SHC_EMPTY);
    CHECK_EQ(shc_pool_clear(&pool), 0);
    CHECK_OK(shc_arena_release(&pool.arena, refs[0]));
    tear_down();
}

TEST(the_shelf_outlives_who_laid_something_there)
{
    other_t other;
    shc_ref_t ref, theirs, lost;
    set_up();
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.pool.arena, 70000, &theirs));
    CHECK_OK(shc_arena_allocate(&other.pool.arena, 64, &lost));
    CHECK_OK(shc_pool_shelve(&other.pool, theirs, 70000));
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_OK(shc_pool_unshelve(&pool, 70000, &ref));
    CHECK_EQ(ref, theirs);
    CHECK_OK(shc_arena_release(&pool.arena, ref));
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

TEST(a_move_that_a_dead_process_began_is_finished_or_undone)
{
    other_t other;
    shc_ref_t refs[5], ref;
    shc_pool_options_t o = usual;
    o.places = 5;
    set_up_with(o);
    join_other(&other);
    uint64_t dead = shc_seg_owner_word(&other.seg);
    for (int i = 0; i < 5; i++)
        CHECK_OK(shc_arena_allocate(&other.pool.arena, 64, &refs[i]));
    const uint64_t placing = SHC_POOL_PLACING | dead, taking = SHC_POOL_TAKING | dead;
    const uint64_t words[] = {placing, placing, placing, taking, taking};
    CHECK_OK(shc_arena_attach(&other.pool.arena, refs[2]));
    CHECK_OK(shc_arena_attach(&other.pool.arena, refs[4]));
    for (uint32_t i = 0; i < 5; i++) {
        shc_pool_place_shm_t *place = &pool.places[i];
        shc_a64_store_relaxed(&place->word, words[i]);
        shc_a64_store_relaxed(&place->size, 64);
        shc_a64_store_relaxed(&place->ref, i == 0 ? 0 : refs[i]); /* not yet written in the first */
    }
    CHECK_OK(shc_pool_check(&pool));
    CHECK(shc_pool_names(&pool, other.seg.index, other.seg.generation));
    CHECK_EQ(shc_pool_unshelve(&pool, 64, &ref), SHC_EMPTY); /* nobody else takes it */
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK(!shc_pool_names(&pool, other.seg.index, other.seg.generation));
    CHECK_OK(shc_pool_check(&pool));
    CHECK_EQ(shelved(), 4);
    CHECK_EQ(stats().class[3].used, 4); /* the first was the dead one's */
    CHECK_EQ(shc_pool_clear(&pool), 4);
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

TEST(a_forked_child_uses_the_pool_as_itself)
{
    set_up();
    shc_ref_t ref = allocate(64);
    int pid = fork();
    if (pid == 0) {
        shc_ref_t own;
        CHECK_OK(shc_seg_rejoin(&seg));
        shc_pool_open(&pool, &seg);
        CHECK_EQ(shc_arena_release(&pool.arena, ref), SHC_E_STALE); /* it is the parent's */
        own = allocate(64);
        CHECK_NE(own, ref);
        CHECK_OK(shc_pool_shelve(&pool, own, 64));
        shc_pool_leave(&pool);
        shc_seg_leave(&seg, fix.dir_fd, NAME);
        _exit(0);
    }
    CHECK_EQ(t_wait(pid), 0);
    CHECK_OK(shc_arena_release(&pool.arena, ref));
    CHECK_OK(shc_pool_unshelve(&pool, 64, &ref));
    CHECK_OK(shc_arena_release(&pool.arena, ref));
    tear_down();
}

/* ---- what no correct process writes ---- */

TEST(check_finds_places_that_cannot_be)
{
    set_up();
    shc_ref_t ref = allocate(64), own = allocate(64);
    CHECK_OK(shc_pool_shelve(&pool, ref, 64));
    uint32_t full = 0;
    uint64_t size;
    while (!shc_pool_look(&pool, full, &size))
        full++;
    shc_pool_place_shm_t *there = &pool.places[full], *none = &pool.places[(full + 1) % 4];
    const struct {
        shc_a64_t *word;
        uint64_t wrong;
    } cases[] = {
        {&there->word, SHC_POOL_EMPTY},
        {&there->word, SHC_POOL_FULL | 1},
        {&there->word, SHC_POOL_PLACING},
        {&there->word, SHC_POOL_TAKING | (FIX_PARTICIPANTS + 1)},
        {&there->word, SHC_POOL_FULL | UINT64_C(1) << 50},
        {&there->ref, 0},
        {&there->ref, own},
        {&there->ref, UINT64_MAX},
        {&there->size, 0},
        {&there->size, 65},
        {&there->size, UINT64_MAX},
        {&none->word, SHC_POOL_FULL},
        {&none->ref, ref},
        {&none->size, 1},
    };
    CHECK_OK(shc_pool_check(&pool));
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        uint64_t right = shc_a64_load_relaxed(cases[i].word);
        shc_a64_store_relaxed(cases[i].word, cases[i].wrong);
        CHECK_EQ(shc_pool_check(&pool), SHC_E_CORRUPT);
        shc_a64_store_relaxed(cases[i].word, right);
    }
    pool.shm->pad0[3] = 1;
    CHECK_EQ(shc_pool_check(&pool), SHC_E_CORRUPT);
    pool.shm->pad0[3] = 0;
    CHECK_OK(shc_arena_release(&pool.arena, own));
    CHECK_EQ(shc_pool_clear(&pool), 1);
    tear_down();
}

TEST(a_place_that_lies_gives_no_memory)
{
    set_up();
    shc_ref_t ref = allocate(64), got;
    CHECK_OK(shc_pool_shelve(&pool, ref, 64));
    uint32_t full = 0;
    uint64_t size;
    while (!shc_pool_look(&pool, full, &size))
        full++;
    shc_pool_place_shm_t *place = &pool.places[full];
    shc_a64_store_relaxed(&place->size, 1 << 20); /* more than the block has */
    CHECK_EQ(shc_pool_unshelve(&pool, 1 << 20, &got), SHC_E_CORRUPT);
    CHECK_EQ(stats().bytes_used, 0);
    static const uint64_t refs[] = {0, 1, UINT64_MAX, UINT64_C(1) << 40};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(refs); i++) {
        shc_a64_store_relaxed(&place->word, SHC_POOL_FULL);
        shc_a64_store_relaxed(&place->size, 64);
        shc_a64_store_relaxed(&place->ref, refs[i]);
        (void)shc_a64_fetch_add_relaxed(&pool.shm->placed, 1);
        CHECK_EQ(shc_pool_unshelve(&pool, 64, &got), SHC_EMPTY);
        CHECK_EQ(shelved(), 0);
    }
    tear_down();
}

/* Random words in the whole body, under every operation, between pages that nobody may touch. */
TEST(whatever_lies_in_shared_memory_nothing_is_touched_outside)
{
    uint64_t rng = t_seed(), rounds = t_scaled(3000);
    shc_pool_options_t o = {.initial_bytes = 2 * PAGE, .max_bytes = 8 * PAGE, .growth = 100, .places = 4};
    shc_seg_t image;
    set_up_with(o);
    fix_guarded_t guarded = fix_guard(seg.id.size);
    memcpy(guarded.bytes, seg.base, seg.id.size);
    CHECK_OK(shc_seg_adopt(guarded.bytes, seg.id.size, &fix.self, &shc_pool_spec, &image));
    CHECK_OK(fix_join(&image));
    for (uint64_t i = 0; i < rounds; i++) {
        shc_pool_t p;
        shc_ref_t ref;
        uint64_t bytes;
        shc_pool_open(&p, &image);
        for (int k = 0; k < 8; k++) {
            uint64_t from = image.id.body_offset, span = k < 5 ? 256 : p.arena.g.record_table - from;
            uint64_t value = t_random(&rng) >> t_random(&rng) % 64;
            memcpy(shc_seg_at(&image, from + (t_random(&rng) % span & ~UINT64_C(7))), &value, 8);
        }
        if (shc_pool_unshelve(&p, 64, &ref) == 0)
            memset(shc_arena_at(&p.arena, ref), 1, 64);
        if (shc_arena_allocate(&p.arena, 64, &ref) == 0)
            (void)!shc_pool_shelve(&p, ref, 64);
        (void)shc_pool_look(&p, (uint32_t)t_random(&rng) % 5, &bytes);
        (void)!shc_pool_check(&p);
        (void)shc_pool_names(&p, 1, 1);
        (void)shc_pool_tend(&p);
        (void)shc_pool_cleanup(&p);
        shc_pool_spec.sweep(&image, (uint32_t)t_random(&rng) % FIX_PARTICIPANTS, 1);
        (void)shc_pool_clear(&p);
    }
    fix_unguard(&guarded);
    tear_down();
}
