/* The rows of the layout tables and their hash. */
#include "base/shc_layout.h"

#include "ds/shc_buffer_shm.h"
#include "ds/shc_pool_shm.h"
#include "ds/shc_ring_shm.h"
#include "seg/shc_arena_shm.h"
#include "seg/shc_seg_shm.h"
#include "t.h"

#define ROWS(name, table, type) static const shc_layout_row_t name[] = {table(SHC_LAYOUT_ROW, type)}

ROWS(id_rows, SHC_SEG_ID_LAYOUT, shc_seg_id_t);
ROWS(seg_rows, SHC_SEG_LAYOUT, shc_seg_shm_t);
ROWS(participant_rows, SHC_PARTICIPANT_LAYOUT, shc_participant_shm_t);
ROWS(event_rows, SHC_EVENT_LAYOUT, shc_event_shm_t);
ROWS(lock_rows, SHC_LOCK_LAYOUT, shc_lock_shm_t);
ROWS(arena_rows, SHC_ARENA_LAYOUT, shc_arena_shm_t);
ROWS(arena_map_rows, SHC_ARENA_MAP_LAYOUT, shc_arena_map_shm_t);
ROWS(arena_party_rows, SHC_ARENA_PARTY_LAYOUT, shc_arena_party_shm_t);
ROWS(ring_rows, SHC_RING_LAYOUT, shc_ring_shm_t);
ROWS(buffer_rows, SHC_BUFFER_LAYOUT, shc_buffer_shm_t);
ROWS(pool_rows, SHC_POOL_LAYOUT, shc_pool_shm_t);
ROWS(pool_place_rows, SHC_POOL_PLACE_LAYOUT, shc_pool_place_shm_t);

static void
check_covers(const shc_layout_row_t *rows, size_t n, size_t size)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(rows[i].offset, at);
        CHECK_GT(rows[i].size, 0);
        CHECK_STR(rows[i].type, rows[0].type);
        CHECK(rows[i].writer[0] != '\0' && rows[i].note[0] != '\0');
        at += rows[i].size;
    }
    CHECK_EQ(at, size);
}

TEST(every_table_covers_its_struct_without_a_hole)
{
    check_covers(id_rows, SHC_ARRAY_SIZE(id_rows), sizeof(shc_seg_id_t));
    check_covers(seg_rows, SHC_ARRAY_SIZE(seg_rows), sizeof(shc_seg_shm_t));
    check_covers(participant_rows, SHC_ARRAY_SIZE(participant_rows), sizeof(shc_participant_shm_t));
    check_covers(event_rows, SHC_ARRAY_SIZE(event_rows), sizeof(shc_event_shm_t));
    check_covers(lock_rows, SHC_ARRAY_SIZE(lock_rows), sizeof(shc_lock_shm_t));
    check_covers(arena_rows, SHC_ARRAY_SIZE(arena_rows), sizeof(shc_arena_shm_t));
    check_covers(arena_map_rows, SHC_ARRAY_SIZE(arena_map_rows), sizeof(shc_arena_map_shm_t));
    check_covers(arena_party_rows, SHC_ARRAY_SIZE(arena_party_rows), sizeof(shc_arena_party_shm_t));
    check_covers(ring_rows, SHC_ARRAY_SIZE(ring_rows), sizeof(shc_ring_shm_t));
    check_covers(buffer_rows, SHC_ARRAY_SIZE(buffer_rows), sizeof(shc_buffer_shm_t));
    check_covers(pool_rows, SHC_ARRAY_SIZE(pool_rows), sizeof(shc_pool_shm_t));
    check_covers(pool_place_rows, SHC_ARRAY_SIZE(pool_place_rows), sizeof(shc_pool_place_shm_t));
}

static bool
is_hot(const shc_layout_row_t *row)
{
    return strcmp(row->field, "tail") == 0 || strcmp(row->field, "head") == 0 || strcmp(row->field, "items") == 0 ||
           strcmp(row->field, "space") == 0 || strcmp(row->field, "producer") == 0;
}

TEST(hot_words_of_the_ring_begin_pairs_of_cache_lines)
{
    unsigned hot = 0;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(ring_rows); i++) {
        if (!is_hot(&ring_rows[i]))
            continue;
        CHECK_EQ(ring_rows[i].offset % SHC_HOT_PAD, 0);
        hot++;
    }
    CHECK_EQ(hot, 5);
}

TEST(the_hash_depends_on_what_makes_the_format)
{
    const shc_layout_row_t row = {"t", "f", 0, 8, "w", "n"};
    shc_layout_row_t other[] = {
        {"u", "f", 0, 8, "w", "n"}, {"t", "g", 0, 8, "w", "n"}, {"t", "f", 8, 8, "w", "n"}, {"t", "f", 0, 4, "w", "n"}};
    uint64_t h = shc_layout_hash(SHC_LAYOUT_SEED, &row, 1);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(other); i++)
        CHECK_NE(shc_layout_hash(SHC_LAYOUT_SEED, &other[i], 1), h);
    CHECK_NE(shc_layout_hash(h, &row, 1), h);
}

TEST(the_hash_does_not_depend_on_prose)
{
    const shc_layout_row_t row = {"t", "f", 0, 8, "w", "n"}, reworded = {"t", "f", 0, 8, "x", "other words"};
    CHECK_EQ(shc_layout_hash(SHC_LAYOUT_SEED, &row, 1), shc_layout_hash(SHC_LAYOUT_SEED, &reworded, 1));
}

TEST(the_hash_keeps_neighbouring_texts_apart)
{
    const shc_layout_row_t a = {"ab", "c", 0, 8, "", ""}, b = {"a", "bc", 0, 8, "", ""};
    CHECK_NE(shc_layout_hash(SHC_LAYOUT_SEED, &a, 1), shc_layout_hash(SHC_LAYOUT_SEED, &b, 1));
}
