/* When an end looks at its partner's line. */
#include "sync/shc_pace.h"

#include "os/shc_os.h"
#include "t.h"

#define US UINT64_C(1000)
#define STAND_OFF (2 * US)

static shc_pace_t pace;

static void
look(unsigned times, uint64_t gained)
{
    for (unsigned i = 0; i < times; i++)
        shc_pace_after_look(&pace, gained);
}

/* Plain looks until one stands off. */
static unsigned
looks_until_a_trial(uint64_t gained)
{
    unsigned n = 0;
    while (!shc_pace_stands_off(&pace)) {
        look(1, gained);
        CHECK_LE(++n, 5000);
    }
    return n;
}

TEST(a_new_pace_looks_at_once)
{
    CHECK(!shc_pace_stands_off(&pace));
    shc_pace_before_look(&pace, SHC_NEVER);
    CHECK_EQ(shc_a64_load_relaxed(&pace.looked_ns), 0);
}

TEST(a_trial_comes_after_eight_plain_looks)
{
    CHECK_EQ(looks_until_a_trial(1), 8);
}

TEST(a_trial_that_finds_little_comes_half_as_often_each_time_down_to_one_in_4096)
{
    unsigned expected = 8;
    for (int i = 0; i < 14; i++) {
        CHECK_EQ(looks_until_a_trial(1), expected);
        look(1, 7); /* several, but fewer than eight */
        CHECK(!shc_pace_stands_off(&pace));
        expected = expected < 4096 ? 2 * expected : 4096;
    }
}

TEST(a_burst_that_is_always_as_long_is_no_stream)
{
    (void)looks_until_a_trial(16);
    look(1, 16);
    CHECK(!shc_pace_stands_off(&pace));
    CHECK_EQ(looks_until_a_trial(16), 16);
}

TEST(a_stream_stands_off_64_times_then_one_plain_look_measures_again)
{
    (void)looks_until_a_trial(1);
    for (int i = 0; i < 64; i++) {
        CHECK(shc_pace_stands_off(&pace));
        look(1, 70);
    }
    CHECK_EQ(looks_until_a_trial(2), 1);
    look(1, 70);
    CHECK(shc_pace_stands_off(&pace));
}

TEST(a_stream_that_dries_up_is_looked_at_plainly_and_tried_again_soon)
{
    (void)looks_until_a_trial(1);
    look(3, 70);
    look(1, 2);
    CHECK(!shc_pace_stands_off(&pace));
    CHECK_EQ(looks_until_a_trial(1), 1);
}

TEST(a_stream_found_after_many_vain_trials_is_tried_again_soon)
{
    for (int i = 0; i < 6; i++) {
        (void)looks_until_a_trial(1);
        look(1, 1);
    }
    (void)looks_until_a_trial(1);
    look(64, 70);
    CHECK_EQ(looks_until_a_trial(1), 1);
}

TEST(standing_off_lasts_until_two_microseconds_after_the_last_look_began)
{
    (void)looks_until_a_trial(1);
    uint64_t begun = shc_os_now_ns();
    shc_pace_stand_off(&pace, begun, SHC_NEVER);
    CHECK_GE(shc_a64_load_relaxed(&pace.looked_ns), begun + STAND_OFF);
    uint64_t first = shc_a64_load_relaxed(&pace.looked_ns);
    shc_pace_before_look(&pace, SHC_NEVER);
    CHECK_GE(shc_a64_load_relaxed(&pace.looked_ns), first + STAND_OFF);
}

TEST(a_trial_stands_off_from_now_on)
{
    (void)looks_until_a_trial(1);
    uint64_t begun = shc_os_now_ns();
    shc_pace_before_look(&pace, SHC_NEVER);
    CHECK_GE(shc_a64_load_relaxed(&pace.looked_ns), begun + STAND_OFF);
}

TEST(standing_off_ends_at_the_deadline)
{
    (void)looks_until_a_trial(1);
    look(1, 70);
    uint64_t far_off = shc_os_now_ns() + UINT64_C(3600) * 1000 * 1000 * US;
    shc_a64_store_relaxed(&pace.looked_ns, far_off);
    shc_pace_before_look(&pace, 1); /* returns, or the watchdog ends this */
    CHECK_LT(shc_a64_load_relaxed(&pace.looked_ns), far_off);
}

TEST(gains_beyond_32_bits_are_a_stream_like_any_other)
{
    (void)looks_until_a_trial(1);
    look(1, UINT64_MAX);
    CHECK(shc_pace_stands_off(&pace));
}
