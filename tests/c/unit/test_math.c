/* The integer helpers of base/shc_math.h. */
#include "base/shc_math.h"

#include "t.h"

TEST(powers_of_two_are_told_from_the_rest)
{
    CHECK(!shc_is_pow2(0));
    for (int i = 0; i < 64; i++) {
        uint64_t p = UINT64_C(1) << i;
        CHECK(shc_is_pow2(p));
        CHECK(i == 0 || i == 63 || !shc_is_pow2(p + 1) || p == 1);
        CHECK(i < 2 || !shc_is_pow2(p - 1));
    }
    CHECK(!shc_is_pow2(UINT64_MAX));
}

TEST(ceil_pow2_is_the_smallest_power_not_below)
{
    CHECK_EQ(shc_ceil_pow2(0), 1);
    CHECK_EQ(shc_ceil_pow2(1), 1);
    CHECK_EQ(shc_ceil_pow2(3), 4);
    for (int i = 2; i < 63; i++) {
        uint64_t p = UINT64_C(1) << i;
        CHECK_EQ(shc_ceil_pow2(p - 1), p);
        CHECK_EQ(shc_ceil_pow2(p), p);
        CHECK_EQ(shc_ceil_pow2(p + 1), 2 * p);
    }
}

TEST(ceil_pow2_says_0_when_there_is_none)
{
    CHECK_EQ(shc_ceil_pow2(UINT64_C(1) << 63), UINT64_C(1) << 63);
    CHECK_EQ(shc_ceil_pow2((UINT64_C(1) << 63) + 1), 0);
    CHECK_EQ(shc_ceil_pow2(UINT64_MAX), 0);
}

TEST(align_up_keeps_what_is_aligned)
{
    for (uint64_t x = 0; x < 300; x++) {
        uint64_t y = shc_align_up(x, 64);
        CHECK_EQ(y % 64, 0);
        CHECK_LE(x, y);
        CHECK_LT(y - x, 64);
    }
    CHECK_EQ(shc_align_up(12345, 1), 12345);
}

TEST(align_down_keeps_what_is_aligned)
{
    for (uint64_t x = 0; x < 300; x++) {
        uint64_t y = shc_align_down(x, 64);
        CHECK_EQ(y % 64, 0);
        CHECK_LE(y, x);
        CHECK_LT(x - y, 64);
    }
    CHECK_EQ(shc_align_down(UINT64_MAX, UINT64_C(1) << 63), UINT64_C(1) << 63);
}

TEST(checked_sums_and_products_report_a_wrap)
{
    uint64_t out = 7;
    CHECK(shc_add_checked(UINT64_MAX - 1, 1, &out));
    CHECK_EQ(out, UINT64_MAX);
    CHECK(!shc_add_checked(UINT64_MAX, 1, &out));
    CHECK(shc_mul_checked(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &out));
    CHECK_EQ(out, UINT64_MAX - UINT32_MAX);
    CHECK(!shc_mul_checked(UINT64_C(1) << 32, UINT64_C(1) << 32, &out));
    CHECK(shc_mul_checked(0, UINT64_MAX, &out));
    CHECK_EQ(out, 0);
}
