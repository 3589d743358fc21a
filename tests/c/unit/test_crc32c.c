#include "base/shc_crc32c.h"
#include "t.h"

#include <string.h>

/* The definition: polynomial division, one bit at a time. */
static uint32_t
divide(uint32_t crc, const uint8_t *p, size_t n)
{
    uint32_t c = ~crc;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (c & 1 ? UINT32_C(0x82f63b78) : 0);
    }
    return ~c;
}

static void
fill(uint8_t *p, size_t n)
{
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = (uint8_t)(x >> 24);
    }
}

static void
check_both(const void *data, size_t n, uint32_t expected)
{
    CHECK_EQ(shc_crc32c(0, data, n), expected);
    CHECK_EQ(shc_crc32c_portable(0, data, n), expected);
}

TEST(crc32c_has_the_published_check_values)
{
    uint8_t bytes[32];
    check_both("123456789", 9, 0xe3069283);
    check_both("", 0, 0);
    memset(bytes, 0, sizeof(bytes)); /* this and the next two: RFC 3720, appendix B.4 */
    check_both(bytes, sizeof(bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    check_both(bytes, sizeof(bytes), 0x62a8ab43);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    check_both(bytes, sizeof(bytes), 0x46dd794e);
}

/* One byte among zeros, at each place of an 8-byte step, visits each entry of the tables alone. */
TEST(crc32c_tables_follow_their_rule)
{
    uint8_t bytes[8];
    for (unsigned place = 0; place < 8; place++) {
        for (unsigned value = 0; value < 256; value++) {
            memset(bytes, 0, sizeof(bytes));
            bytes[place] = (uint8_t)value;
            /* A running value of all ones cancels the inversion: what is left is the table's entry. */
            CHECK_EQ(shc_crc32c_portable(UINT32_MAX, bytes, 8), divide(UINT32_MAX, bytes, 8));
        }
    }
}

TEST(crc32c_agrees_with_the_definition_for_every_length_and_alignment)
{
    uint8_t bytes[100];
    fill(bytes, sizeof(bytes));
    for (size_t start = 0; start < 9; start++)
        for (size_t n = 0; start + n <= sizeof(bytes); n++)
            check_both(bytes + start, n, divide(0, bytes + start, n));
}

TEST(crc32c_of_a_text_in_pieces_is_that_of_the_whole)
{
    uint8_t bytes[100];
    fill(bytes, sizeof(bytes));
    uint32_t whole = divide(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
        CHECK_EQ(shc_crc32c(shc_crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), whole);
        uint32_t first = shc_crc32c_portable(0, bytes, cut);
        CHECK_EQ(shc_crc32c_portable(first, bytes + cut, sizeof(bytes) - cut), whole);
    }
}
