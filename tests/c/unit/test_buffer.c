/* The head of a plain buffer. */
#include "ds/shc_buffer.h"

#include "base/shc_crc32c.h"
#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define SIZE 1000u

static shc_seg_t seg;
static shc_buffer_t buffer;

static void
set_up(uint64_t size)
{
    fix_open();
    CHECK_OK(fix_create_buffer("b", size, &seg));
    shc_buffer_open(&buffer, &seg);
}

static void
tear_down(void)
{
    fix_leave(&seg, "b");
    fix_close();
}

TEST(a_new_buffer_is_zero_and_unused)
{
    set_up(SIZE);
    CHECK_EQ(buffer.size, SIZE);
    CHECK_EQ((uintptr_t)buffer.data % 64, 0);
    CHECK_EQ(shc_buffer_used(&buffer), 0);
    CHECK_OK(shc_buffer_check(&buffer));
    for (uint64_t i = 0; i < SIZE; i++)
        CHECK_EQ(buffer.data[i], 0);
    tear_down();
}

TEST(the_last_byte_of_the_data_is_the_last_byte_of_the_segment)
{
    set_up(1);
    CHECK_EQ((uintptr_t)(buffer.data + buffer.size), (uintptr_t)(seg.base + seg.id.size));
    buffer.data[0] = 1;
    tear_down();
}

TEST(the_mark_rises_to_the_highest_end_and_never_falls_by_writing)
{
    set_up(SIZE);
    shc_buffer_note_write(&buffer, 10, 5);
    CHECK_EQ(shc_buffer_used(&buffer), 15);
    shc_buffer_note_write(&buffer, 0, 15);
    CHECK_EQ(shc_buffer_used(&buffer), 15);
    shc_buffer_note_write(&buffer, SIZE - 1, 1);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    shc_buffer_note_write(&buffer, 0, 1);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    shc_buffer_note_write(&buffer, SIZE, 0);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    tear_down();
}

TEST(clear_zeroes_the_range_and_nothing_else)
{
    set_up(SIZE);
    memset(buffer.data, 0xff, SIZE);
    shc_buffer_note_write(&buffer, 0, SIZE);
    shc_buffer_clear(&buffer, 100, 50);
    CHECK_EQ(buffer.data[99], 0xff);
    CHECK_EQ(buffer.data[100], 0);
    CHECK_EQ(buffer.data[149], 0);
    CHECK_EQ(buffer.data[150], 0xff);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    tear_down();
}

TEST(the_mark_falls_back_when_its_end_is_cleared)
{
    set_up(SIZE);
    shc_buffer_note_write(&buffer, 0, 500);
    shc_buffer_clear(&buffer, 400, 200);
    CHECK_EQ(shc_buffer_used(&buffer), 400);
    shc_buffer_clear(&buffer, 400, 100);
    CHECK_EQ(shc_buffer_used(&buffer), 400);
    shc_buffer_clear(&buffer, 0, 399);
    CHECK_EQ(shc_buffer_used(&buffer), 400);
    shc_buffer_clear(&buffer, 0, SIZE);
    CHECK_EQ(shc_buffer_used(&buffer), 0);
    shc_buffer_clear(&buffer, 0, 0);
    CHECK_EQ(shc_buffer_used(&buffer), 0);
    tear_down();
}

TEST(the_checksum_covers_all_data_and_only_them)
{
    set_up(9);
    memcpy(buffer.data, "123456789", 9);
    CHECK_EQ(shc_buffer_checksum(&buffer), UINT32_C(0xe3069283));
    shc_a64_store_relaxed(&buffer.shm->user, 7);
    CHECK_EQ(shc_buffer_checksum(&buffer), UINT32_C(0xe3069283));
    tear_down();
}

TEST(a_forged_mark_is_never_believed_beyond_the_size)
{
    set_up(SIZE);
    shc_a64_store_relaxed(&buffer.shm->used, UINT64_MAX);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    CHECK_EQ(shc_buffer_check(&buffer), SHC_E_CORRUPT);
    shc_buffer_note_write(&buffer, 0, SIZE);
    CHECK_EQ(shc_buffer_used(&buffer), SIZE);
    shc_buffer_clear(&buffer, 0, SIZE);
    CHECK_LE(shc_buffer_used(&buffer), SIZE);
    tear_down();
}

TEST(clearing_everything_mends_a_forged_mark)
{
    set_up(SIZE);
    shc_a64_store_relaxed(&buffer.shm->used, UINT64_MAX);
    shc_buffer_clear(&buffer, 0, SIZE);
    CHECK_EQ(shc_buffer_used(&buffer), 0);
    CHECK_OK(shc_buffer_check(&buffer));
    tear_down();
}

TEST(check_finds_each_forged_field_of_the_head)
{
    set_up(SIZE);
    shc_a32_store_relaxed(&buffer.shm->magic, 1);
    CHECK_EQ(shc_buffer_check(&buffer), SHC_E_CORRUPT);
    shc_a32_store_relaxed(&buffer.shm->magic, SHC_BUFFER_MAGIC);
    shc_a32_store_relaxed(&buffer.shm->version, 2);
    CHECK_EQ(shc_buffer_check(&buffer), SHC_E_CORRUPT);
    shc_a32_store_relaxed(&buffer.shm->version, SHC_BUFFER_VERSION);
    shc_a64_store_relaxed(&buffer.shm->size, SIZE + 1);
    CHECK_EQ(shc_buffer_check(&buffer), SHC_E_CORRUPT);
    CHECK_EQ(buffer.size, SIZE);
    shc_a64_store_relaxed(&buffer.shm->size, SIZE);
    CHECK_OK(shc_buffer_check(&buffer));
    tear_down();
}

static int
validate(uint64_t size, uint64_t body_size, uint64_t checksum)
{
    shc_seg_id_t id = {.body_size = body_size};
    id.config[SHC_BUFFER_CONFIG_SIZE] = size;
    id.config[SHC_BUFFER_CONFIG_CHECKSUM] = checksum;
    return shc_buffer_spec.validate(&id);
}

TEST(impossible_configurations_are_refused)
{
    CHECK_OK(validate(1, 129, 0));
    CHECK_OK(validate(SHC_BUFFER_SIZE_MAX, SHC_BUFFER_SIZE_MAX + 128, 1));
    CHECK_EQ(validate(0, 128, 0), SHC_E_CORRUPT);
    CHECK_EQ(validate(SHC_BUFFER_SIZE_MAX + 1, SHC_BUFFER_SIZE_MAX + 129, 0), SHC_E_CORRUPT);
    CHECK_EQ(validate(100, 227, 0), SHC_E_CORRUPT);
    CHECK_EQ(validate(100, 229, 0), SHC_E_CORRUPT);
    CHECK_EQ(validate(UINT64_MAX - 127, 0, 0), SHC_E_CORRUPT);
    CHECK_EQ(validate(100, 228, 2), SHC_E_CORRUPT);
}

static void
write_and_note(void *arg)
{
    const uint64_t *at = arg;
    shc_seg_t other;
    shc_buffer_t theirs;
    CHECK_OK(fix_attach("b", &shc_buffer_spec, &other));
    shc_buffer_open(&theirs, &other);
    memset(theirs.data + *at, 7, 10);
    shc_buffer_note_write(&theirs, *at, 10);
    fix_leave(&other, "b");
}

TEST(what_another_process_wrote_is_seen_up_to_the_mark)
{
    uint64_t at[] = {500, 90};
    set_up(SIZE);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(at); i++)
        proc_join(proc_start(write_and_note, &at[i]));
    CHECK_EQ(shc_buffer_used(&buffer), 510);
    CHECK_EQ(buffer.data[509], 7);
    CHECK_EQ(buffer.data[99], 7);
    tear_down();
}
