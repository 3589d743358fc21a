/* The pool of objects: taking, giving back, hints that are wrong, holders that died, forged words. */
#include "ds/shc_objects.h"

#include <pthread.h>
#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

static shc_seg_t seg;
static shc_objects_t pool;

static void
set_up(uint64_t max_size, uint64_t slot_size)
{
    fix_open();
    CHECK_OK(fix_create_objects("p", max_size, slot_size, &seg));
    shc_objects_open(&pool, &seg);
}

static void
tear_down(void)
{
    CHECK_OK(shc_objects_check(&pool));
    fix_leave(&seg, "p");
    fix_close();
}

static uint32_t
take(bool expect_dirty)
{
    uint32_t slot;
    bool dirty;
    CHECK_OK(shc_objects_take(&pool, &slot, &dirty));
    CHECK_LT(slot, pool.max_size);
    CHECK_EQ(dirty, expect_dirty);
    return slot;
}

static int
try_any(void)
{
    uint32_t slot;
    bool dirty;
    return shc_objects_take(&pool, &slot, &dirty);
}

static void
take_all(void)
{
    for (uint32_t i = 0; i < pool.max_size; i++)
        (void)take(false);
    CHECK_EQ(try_any(), SHC_EMPTY);
}

static void
check_counts(uint32_t taken, uint32_t used, uint32_t dirty)
{
    shc_objects_counts_t n = shc_objects_count(&pool);
    CHECK_EQ(n.taken, taken);
    CHECK_EQ(n.used, used);
    CHECK_EQ(n.dirty, dirty);
}

static uint64_t
word_of(uint32_t slot)
{
    return shc_a64_load_relaxed(&pool.slots[slot].word);
}

static void
put_word(uint32_t slot, uint64_t word)
{
    shc_a64_store_relaxed(&pool.slots[slot].word, word);
}

static bool
is_hinted(uint32_t slot)
{
    return shc_objects__is_hinted(&pool, slot);
}

/* The living one that was planted in a participant slot goes. */
static void
uproot(uint32_t index)
{
    shc_a64_store_relaxed(&seg.participants.slots[index].state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, 99));
}

/* ---- geometry ---- */

TEST(memory_of_slots_is_aligned_zero_and_apart)
{
    static const uint64_t sizes[] = {1, 63, 64, 65, 1000, 4096};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        set_up(5, sizes[i]);
        for (uint32_t slot = 0; slot < 5; slot++) {
            uint8_t *memory = shc_objects_memory(&pool, slot);
            CHECK_EQ((uintptr_t)memory % 64, 0);
            for (uint64_t k = 0; k < sizes[i]; k++)
                CHECK_EQ(memory[k], 0);
            memset(memory, 0xff, sizes[i]);
        }
        CHECK(shc_objects_memory(&pool, 4) + sizes[i] <= (uint8_t *)shc_seg_body(&seg) + seg.id.body_size);
        check_counts(0, 0, 0);
        tear_down();
    }
}

TEST(slots_may_have_no_memory)
{
    set_up(3, 0);
    CHECK(shc_objects_memory(&pool, 2) == NULL);
    tear_down();
}

TEST(a_forged_size_is_refused)
{
    static const struct {
        uint32_t word;
        uint64_t value;
    } forged[] = {{SHC_OBJECTS_CONFIG_MAX_SIZE, 0},
                  {SHC_OBJECTS_CONFIG_MAX_SIZE, 7},
                  {SHC_OBJECTS_CONFIG_MAX_SIZE, SHC_OBJECTS_MAX_SIZE_MAX + 1},
                  {SHC_OBJECTS_CONFIG_MAX_SIZE, UINT64_MAX},
                  {SHC_OBJECTS_CONFIG_SLOT_SIZE, 200},
                  {SHC_OBJECTS_CONFIG_SLOT_SIZE, UINT64_MAX},
                  {SHC_OBJECTS_CONFIG_SLOT_SIZE, SHC_OBJECTS_SLOT_SIZE_MAX + 1}};
    set_up(8, 100);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(forged); i++) {
        shc_seg_id_t id = seg.id;
        id.config[forged[i].word] = forged[i].value;
        CHECK_EQ(shc_objects_spec.validate(&id), SHC_E_CORRUPT);
    }
    CHECK_OK(shc_objects_spec.validate(&seg.id));
    tear_down();
}

/* ---- taking and giving back ---- */

TEST(each_slot_is_taken_once)
{
    static const uint64_t sizes[] = {1, 2, 63, 64, 65, 128, 200};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        bool seen[200] = {false};
        set_up(sizes[i], 0);
        for (uint64_t k = 0; k < sizes[i]; k++) {
            uint32_t slot = take(false);
            CHECK(!seen[slot]);
            seen[slot] = true;
        }
        CHECK_EQ(try_any(), SHC_EMPTY);
        check_counts((uint32_t)sizes[i], (uint32_t)sizes[i], 0);
        CHECK_EQ(shc_objects_held_by(&pool, seg.index, seg.generation), sizes[i]);
        for (uint32_t k = 0; k < sizes[i]; k++)
            CHECK_OK(shc_objects_give_back(&pool, k, false));
        check_counts(0, (uint32_t)sizes[i], 0);
        tear_down();
    }
}

TEST(a_slot_that_is_given_back_can_be_taken_at_once)
{
    bool dirty;
    set_up(4, 0);
    take_all();
    CHECK(!shc_objects_try_take(&pool, 2, &dirty));
    CHECK_OK(shc_objects_give_back(&pool, 2, false));
    CHECK(shc_objects_try_take(&pool, 2, &dirty));
    CHECK(!dirty);
    CHECK_OK(shc_objects_give_back(&pool, 3, false));
    CHECK_EQ(take(false), 3);
    CHECK_EQ(try_any(), SHC_EMPTY);
    tear_down();
}

TEST(who_gives_a_dirty_slot_back_tells_the_next)
{
    bool dirty = false;
    set_up(2, 0);
    uint32_t slot = take(false);
    CHECK_OK(shc_objects_give_back(&pool, slot, true));
    check_counts(0, 1, 1);
    CHECK(shc_objects_try_take(&pool, slot, &dirty));
    CHECK(dirty);
    check_counts(1, 1, 0);
    CHECK_OK(shc_objects_give_back(&pool, slot, false));
    CHECK(shc_objects_try_take(&pool, slot, &dirty));
    CHECK(!dirty);
    tear_down();
}

TEST(only_the_holder_gives_a_slot_back)
{
    set_up(4, 0);
    CHECK_EQ(shc_objects_give_back(&pool, 1, false), SHC_E_CORRUPT);
    uint32_t slot = take(false);
    CHECK_OK(shc_objects_give_back(&pool, slot, false));
    CHECK_EQ(shc_objects_give_back(&pool, slot, false), SHC_E_CORRUPT);
    uint64_t other = fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE) | SHC_OBJECTS_USED;
    put_word(1, other);
    CHECK_EQ(shc_objects_give_back(&pool, 1, false), SHC_E_CORRUPT);
    CHECK_EQ(word_of(1), other);
    put_word(1, 0);
    uproot(2);
    tear_down();
}

TEST(participants_begin_to_search_on_lines_of_their_own)
{
    shc_seg_t other;
    set_up(64, 0);
    CHECK_OK(fix_attach("p", &shc_objects_spec, &other));
    shc_objects_t others;
    shc_objects_open(&others, &other);
    uint32_t slot;
    bool dirty;
    CHECK_OK(shc_objects_take(&others, &slot, &dirty));
    CHECK_NE(take(false) / 8, slot / 8);
    CHECK_OK(shc_objects_give_back(&others, slot, false));
    fix_leave(&other, "p");
    tear_down();
}

/* ---- hints ---- */

TEST(hints_that_are_missing_hide_nothing)
{
    set_up(130, 0);
    for (uint32_t w = 0; w < 3; w++)
        shc_a64_store_relaxed(&pool.hints[w], 0);
    take_all();
    CHECK_OK(shc_objects_give_back(&pool, 77, false));
    CHECK(is_hinted(77));
    shc_a64_store_relaxed(&pool.hints[1], 0);
    CHECK_EQ(take(false), 77);
    tear_down();
}

TEST(hints_that_mislead_are_cleared)
{
    set_up(130, 0);
    take_all();
    for (uint32_t slot = 0; slot < 130; slot++)
        CHECK(!is_hinted(slot));
    CHECK_OK(shc_objects_give_back(&pool, 100, false));
    CHECK(is_hinted(100));
    tear_down();
}

TEST(a_hint_stays_while_its_slot_comes_and_goes)
{
    bool dirty;
    set_up(8, 0);
    for (int i = 0; i < 3; i++) {
        CHECK(shc_objects_try_take(&pool, 5, &dirty));
        CHECK(is_hinted(5));
        CHECK_OK(shc_objects_give_back(&pool, 5, false));
        CHECK(is_hinted(5));
    }
    tear_down();
}

TEST(hints_for_slots_that_are_not_there_are_ignored)
{
    set_up(5, 0);
    shc_a64_store_relaxed(&pool.hints[0], UINT64_MAX);
    CHECK_EQ(shc_objects_check(&pool), SHC_E_CORRUPT);
    take_all();
    shc_a64_store_relaxed(&pool.hints[0], 0);
    tear_down();
}

/* ---- deaths ---- */

TEST(who_finds_nothing_free_takes_from_the_dead)
{
    set_up(4, 0);
    take_all();
    uint64_t dead = fix_plant_dead(&seg, 2, 7, SHC_PARTICIPANT_LIVE);
    put_word(1, dead | SHC_OBJECTS_USED);
    put_word(3, dead | SHC_OBJECTS_USED);
    CHECK_EQ(shc_objects_held_by(&pool, 2, 7), 2);
    CHECK_EQ(take(true), 1);
    CHECK_EQ(take(true), 3);
    CHECK_EQ(try_any(), SHC_EMPTY);
    CHECK_EQ(shc_a64_load_relaxed(&pool.shm->deaths), 2);
    check_counts(4, 4, 0);
    tear_down();
}

TEST(the_dead_are_left_alone_while_something_is_free)
{
    set_up(2, 0);
    put_word(0, fix_plant_dead(&seg, 2, 7, SHC_PARTICIPANT_LIVE) | SHC_OBJECTS_USED);
    CHECK_EQ(take(false), 1);
    CHECK_EQ(take(true), 0);
    tear_down();
}

TEST(a_sweep_gives_back_what_the_dead_held)
{
    bool dirty;
    set_up(70, 0);
    take_all();
    uint64_t dead = fix_plant_dead(&seg, 3, 11, SHC_PARTICIPANT_LIVE);
    put_word(0, dead | SHC_OBJECTS_USED);
    put_word(69, dead | SHC_OBJECTS_USED);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    check_counts(68, 70, 2);
    CHECK(is_hinted(0) && is_hinted(69));
    CHECK_EQ(shc_a64_load_relaxed(&pool.shm->deaths), 2);
    CHECK(shc_objects_try_take(&pool, 69, &dirty));
    CHECK(dirty);
    CHECK_EQ(take(true), 0);
    tear_down();
}

TEST(a_sweep_of_who_held_nothing_changes_nothing)
{
    set_up(3, 0);
    uint32_t slot = take(false);
    (void)fix_plant_dead(&seg, 3, 11, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_a64_load_relaxed(&pool.shm->deaths), 0);
    CHECK_OK(shc_objects_give_back(&pool, slot, false));
    tear_down();
}

TEST(what_the_living_hold_stays_theirs)
{
    set_up(3, 0);
    take_all();
    put_word(1, fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE) | SHC_OBJECTS_USED);
    put_word(2, fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE) | SHC_OBJECTS_USED);
    CHECK_EQ(try_any(), SHC_EMPTY);
    CHECK_EQ(shc_seg_reap_participants(&seg), 0);
    CHECK_EQ(try_any(), SHC_EMPTY);
    CHECK_EQ(shc_objects_held_by(&pool, 2, 9), 2);
    uproot(2);
    tear_down();
}

/* A living process came to the dead one's participant slot: the words of both name the same index. */
TEST(an_older_generation_is_dead_beside_a_living_one)
{
    set_up(3, 0);
    take_all();
    uint64_t living = fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    put_word(0, living | SHC_OBJECTS_USED);
    put_word(1, ((living & 0xfff) | UINT64_C(8) << 12) | SHC_OBJECTS_USED);
    put_word(2, living | SHC_OBJECTS_USED);
    CHECK_EQ(take(true), 1);
    CHECK_EQ(try_any(), SHC_EMPTY);
    uproot(2);
    tear_down();
}

/* ---- waiting ---- */

static void *
give_one_back(void *arg)
{
    proc_sleep_us(20000);
    CHECK_OK(shc_objects_give_back(&pool, *(uint32_t *)arg, false));
    return NULL;
}

TEST(a_slot_that_is_given_back_wakes_who_waits)
{
    pthread_t thread;
    uint32_t slot = 1;
    set_up(2, 0);
    take_all();
    CHECK_EQ(pthread_create(&thread, NULL, give_one_back, &slot), 0);
    while (try_any() == SHC_EMPTY) {
        uint32_t v = shc_event_prepare(&pool.shm->returned);
        if (shc_objects_count(&pool).taken == 2)
            (void)!shc_event_wait(&pool.shm->returned, v, SHC_NEVER);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    tear_down();
}

TEST(a_sweep_wakes_who_waits)
{
    set_up(1, 0);
    (void)take(false);
    put_word(0, fix_plant_dead(&seg, 3, 11, SHC_PARTICIPANT_LIVE) | SHC_OBJECTS_USED);
    uint32_t v = shc_event_prepare(&pool.shm->returned);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_event_wait(&pool.shm->returned, v, SHC_NEVER), SHC_AGAIN);
    tear_down();
}

/* ---- forged words ---- */

TEST(forged_words_are_found_and_heal)
{
    static const uint64_t forged[] = {UINT64_MAX,
                                      SHC_OBJECTS_DIRTY,
                                      UINT64_C(1) << 63,
                                      UINT64_C(1) << 46 | SHC_OBJECTS_USED,
                                      0xfff | SHC_OBJECTS_USED,
                                      5 | SHC_OBJECTS_USED, /* one more than there are participants */
                                      UINT64_C(77) << 12 | SHC_OBJECTS_USED,
                                      1};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(forged); i++) {
        uint32_t slot;
        bool dirty;
        set_up(2, 0);
        uint32_t mine = take(false);
        put_word(1 - mine, forged[i]);
        CHECK_EQ(shc_objects_check(&pool), SHC_E_CORRUPT);
        CHECK_LE(shc_objects_count(&pool).taken, 2);
        if (forged[i] == 1) /* this process, as far as one can tell */
            CHECK_EQ(shc_objects_take(&pool, &slot, &dirty), SHC_EMPTY);
        else
            CHECK_OK(shc_objects_take(&pool, &slot, &dirty));
        put_word(1 - mine, 0);
        tear_down();
    }
}
