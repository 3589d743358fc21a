/* The SPSC byte ring: boundaries, skip marks, wraps of both counters, holds, take-over, forged words. */
#include "ds/shc_ring.h"

#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define BYTES SHC_RING_DATA_BYTES_MIN
#define UNITS (BYTES / 8)
#define MANY SHC_RING_CAPACITY_MAX

static shc_seg_t seg;
static shc_ring_t ring;

static void
set_up_untaken(uint64_t capacity)
{
    fix_open();
    CHECK_OK(fix_create_ring("r", capacity, BYTES, &seg));
    shc_ring_open(&ring, &seg);
}

static void
take_both(void)
{
    CHECK_OK(shc_ring_take(&ring, SHC_RING_PRODUCER));
    CHECK_OK(shc_ring_take(&ring, SHC_RING_CONSUMER));
}

static void
set_up(uint64_t capacity)
{
    set_up_untaken(capacity);
    take_both();
}

static void
tear_down(void)
{
    fix_leave(&seg, "r");
    fix_close();
}

/* As if so many units and messages had gone through the empty ring before. */
static void
start_at(uint64_t position, uint64_t count)
{
    uint64_t word = (position & SHC_RING_POSITION_MASK) | count << 40;
    shc_a64_store_relaxed(&ring.shm->tail, word);
    shc_a64_store_relaxed(&ring.shm->head, word);
    take_both();
}

/* ---- a message is its number over and over; its length and tag follow from the number ---- */

static int
stage_length(uint32_t number, uint64_t length)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(&ring, length, &dst, &room);
    if (r != 0)
        return r;
    CHECK_GE(room, length);
    CHECK_LE(room, ring.payload_max);
    CHECK(dst >= ring.data + SHC_RING_RECORD_HEAD && dst + room <= ring.data + BYTES);
    for (uint64_t i = 0; i < length; i++)
        dst[i] = (uint8_t)(number + i);
    shc_ring_stage(&ring, (uint32_t)length, (uint8_t)number);
    return 0;
}

static int
send_length(uint32_t number, uint64_t length)
{
    int r = stage_length(number, length);
    if (r == 0)
        shc_ring_publish(&ring);
    return r;
}

static void
check_message(const shc_ring_message_t *msg, uint32_t number, uint64_t length)
{
    CHECK_EQ(msg->length, length);
    CHECK_EQ(msg->tag, (uint8_t)number);
    CHECK_EQ((uintptr_t)msg->payload % 8, 0);
    for (uint64_t i = 0; i < length; i++)
        CHECK_EQ(msg->payload[i], (uint8_t)(number + i));
}

static void
receive_length(uint32_t number, uint64_t length)
{
    shc_ring_message_t msg;
    CHECK_OK(shc_ring_front(&ring, &msg));
    check_message(&msg, number, length);
    shc_ring_consume(&ring, &msg);
    shc_ring_give_back(&ring);
}

static int
front(void)
{
    shc_ring_message_t msg;
    return shc_ring_front(&ring, &msg);
}

static void
check_backlog(uint64_t messages, uint64_t bytes)
{
    uint64_t m, b;
    shc_ring_backlog(&ring, &m, &b);
    CHECK_EQ(m, messages);
    CHECK_EQ(b, bytes);
}

/* ---- one message ---- */

TEST(a_new_ring_is_empty_and_sound)
{
    set_up(8);
    CHECK_EQ(front(), SHC_EMPTY);
    check_backlog(0, 0);
    CHECK_EQ(shc_ring_held(&ring), 0);
    CHECK_OK(shc_ring_check(&ring));
    tear_down();
}

TEST(what_was_sent_is_received_once)
{
    set_up(8);
    CHECK_OK(send_length(1, 13));
    check_backlog(1, 24);
    CHECK_OK(shc_ring_check(&ring));
    receive_length(1, 13);
    CHECK_EQ(front(), SHC_EMPTY);
    check_backlog(0, 0);
    tear_down();
}

TEST(front_shows_the_same_message_until_it_is_consumed)
{
    shc_ring_message_t a, b;
    set_up(8);
    CHECK_OK(send_length(1, 13));
    CHECK_OK(shc_ring_front(&ring, &a));
    CHECK_OK(shc_ring_front(&ring, &b));
    CHECK_EQ((uintptr_t)a.payload, (uintptr_t)b.payload);
    check_message(&b, 1, 13);
    tear_down();
}

TEST(every_length_from_nothing_to_payload_max_travels)
{
    set_up(8);
    CHECK_EQ(ring.payload_max, BYTES / 2 - 8);
    for (uint64_t length = 0; length <= ring.payload_max; length++) {
        CHECK_OK(send_length((uint32_t)length, length));
        receive_length((uint32_t)length, length);
    }
    CHECK_EQ(front(), SHC_EMPTY);
    tear_down();
}

TEST(more_than_payload_max_is_too_large_whatever_is_free)
{
    uint8_t *dst;
    uint64_t room;
    set_up(8);
    CHECK_EQ(shc_ring_claim(&ring, ring.payload_max + 1, &dst, &room), SHC_E_TOO_LARGE);
    CHECK_EQ(shc_ring_claim(&ring, UINT64_MAX, &dst, &room), SHC_E_TOO_LARGE);
    CHECK_EQ(shc_ring_claim(&ring, UINT64_MAX - 7, &dst, &room), SHC_E_TOO_LARGE);
    CHECK_OK(shc_ring_claim(&ring, ring.payload_max, &dst, &room));
    tear_down();
}

TEST(a_message_of_payload_max_fits_into_an_empty_ring_at_every_offset)
{
    set_up(8);
    for (uint64_t at = 0; at < UNITS; at++) {
        start_at(UNITS * 5 + at, at);
        CHECK_OK(send_length((uint32_t)at, ring.payload_max));
        CHECK_OK(shc_ring_check(&ring));
        receive_length((uint32_t)at, ring.payload_max);
        CHECK_EQ(front(), SHC_EMPTY);
    }
    tear_down();
}

TEST(a_skip_mark_may_stand_at_every_offset_near_the_end)
{
    set_up(8);
    for (uint64_t at = 1; at < UNITS; at++) {
        uint64_t to_end = UNITS - at;
        uint64_t length = to_end * 8; /* one unit more than there is, with its head */
        if (length > ring.payload_max)
            continue;
        start_at(at, 0);
        CHECK_OK(send_length((uint32_t)at, length));
        CHECK_EQ(ring.tail.position, UNITS + to_end + 1);
        check_backlog(1, (to_end + to_end + 1) * 8);
        CHECK_OK(shc_ring_check(&ring));
        receive_length((uint32_t)at, length);
        check_backlog(0, 0);
    }
    tear_down();
}

TEST(a_message_that_ends_with_the_data_needs_no_skip_mark)
{
    set_up(8);
    for (uint64_t to_end = 1; to_end <= UNITS / 2; to_end++) {
        start_at(UNITS - to_end, 0);
        CHECK_OK(send_length(1, to_end * 8 - 8));
        CHECK_EQ(ring.tail.position, UNITS);
        receive_length(1, to_end * 8 - 8);
    }
    tear_down();
}

/* ---- counters that wrap ---- */

TEST(positions_wrap_at_2_to_the_40_units)
{
    set_up(8);
    for (uint64_t back = 0; back < 12; back++) {
        start_at(SHC_RING_POSITION_MASK + 1 - back, 3);
        for (uint32_t i = 0; i < 8; i++)
            CHECK_OK(send_length(i, 1 + i));
        CHECK_EQ(send_length(9, 0), SHC_FULL);
        CHECK_OK(shc_ring_check(&ring));
        for (uint32_t i = 0; i < 8; i++)
            receive_length(i, 1 + i);
        CHECK_EQ(front(), SHC_EMPTY);
        CHECK_LT(shc_a64_load_relaxed(&ring.shm->tail) & SHC_RING_POSITION_MASK, 30);
    }
    tear_down();
}

TEST(counts_wrap_at_2_to_the_24_messages)
{
    set_up(8);
    for (uint64_t back = 0; back < 10; back++) {
        start_at(77, (SHC_RING_COUNT_MASK + 1 - back) & SHC_RING_COUNT_MASK);
        for (uint32_t i = 0; i < 8; i++)
            CHECK_OK(send_length(i, 8));
        CHECK_EQ(send_length(9, 8), SHC_FULL);
        check_backlog(8, 128);
        for (uint32_t i = 0; i < 8; i++)
            receive_length(i, 8);
        CHECK_EQ(front(), SHC_EMPTY);
    }
    tear_down();
}

/* ---- full and empty ---- */

TEST(capacity_counts_messages_and_not_bytes)
{
    set_up(3);
    for (uint32_t i = 0; i < 3; i++)
        CHECK_OK(send_length(i, 0));
    CHECK_EQ(send_length(3, 0), SHC_FULL);
    receive_length(0, 0);
    CHECK_OK(send_length(3, 0));
    CHECK_EQ(send_length(4, 0), SHC_FULL);
    tear_down();
}

TEST(a_capacity_of_1_alternates)
{
    set_up(1);
    for (uint32_t i = 0; i < 3 * UNITS; i++) {
        CHECK_OK(send_length(i, i % 40));
        CHECK_EQ(send_length(i, 0), SHC_FULL);
        receive_length(i, i % 40);
        CHECK_EQ(front(), SHC_EMPTY);
    }
    tear_down();
}

TEST(the_last_byte_of_memory_is_used_at_every_offset)
{
    set_up(MANY);
    for (uint64_t at = 0; at < UNITS; at++) {
        start_at(at, 0);
        for (uint32_t i = 0; i < UNITS; i++)
            CHECK_OK(send_length(i, 0));
        CHECK_EQ(send_length(0, 0), SHC_FULL);
        check_backlog(UNITS, BYTES);
        receive_length(0, 0);
        CHECK_EQ(send_length(0, 1), SHC_FULL);
        CHECK_OK(send_length(0, 0));
    }
    CHECK_OK(shc_ring_check(&ring));
    tear_down();
}

TEST(full_ends_as_soon_as_the_head_leaves_just_enough)
{
    set_up(MANY);
    for (uint64_t at = 0; at < UNITS; at += 5) {
        start_at(at, 0);
        uint32_t sent = 0, received = 0;
        while (send_length(sent, sent % 50) == 0)
            sent++;
        for (uint32_t round = 0; round < 60; round++) {
            while (send_length(sent, sent % 50) == SHC_FULL) {
                receive_length(received, received % 50);
                received++;
            }
            sent++;
        }
        while (received < sent) {
            receive_length(received, received % 50);
            received++;
        }
        CHECK_EQ(front(), SHC_EMPTY);
    }
    tear_down();
}

TEST(a_failed_claim_leaves_what_to_watch)
{
    set_up(1);
    CHECK_OK(send_length(0, 0));
    CHECK_EQ(send_length(1, 0), SHC_FULL);
    CHECK_EQ(shc_a64_load_relaxed(ring.send_watch.word), ring.send_watch.seen);
    receive_length(0, 0);
    CHECK_NE(shc_a64_load_relaxed(ring.send_watch.word), ring.send_watch.seen);
    tear_down();
}

TEST(a_failed_front_leaves_what_to_watch)
{
    set_up(1);
    CHECK_EQ(front(), SHC_EMPTY);
    CHECK_EQ(shc_a64_load_relaxed(ring.receive_watch.word), ring.receive_watch.seen);
    CHECK_OK(send_length(0, 0));
    CHECK_NE(shc_a64_load_relaxed(ring.receive_watch.word), ring.receive_watch.seen);
    tear_down();
}

/* ---- claims, batches ---- */

TEST(a_claim_that_is_never_staged_leaves_nothing)
{
    uint8_t *dst;
    uint64_t room;
    set_up(8);
    start_at(UNITS - 2, 0);
    CHECK_OK(shc_ring_claim(&ring, 100, &dst, &room)); /* behind a skip */
    memset(dst, 0xee, room);
    CHECK_OK(shc_ring_claim(&ring, 4, &dst, &room)); /* before the end after all */
    CHECK_EQ((uintptr_t)dst, (uintptr_t)(ring.data + BYTES - 8));
    CHECK_EQ(room, 8);
    CHECK_EQ(front(), SHC_EMPTY);
    CHECK_OK(send_length(5, 4));
    receive_length(5, 4);
    CHECK_EQ(front(), SHC_EMPTY);
    tear_down();
}

TEST(a_failed_claim_leaves_no_skip_behind_for_the_next_stage)
{
    uint8_t *dst;
    uint64_t room;
    set_up(MANY);
    start_at(UNITS - 4, 0);
    CHECK_OK(send_length(0, 8)); /* two units are left before the end, all of the front is free */
    CHECK_OK(shc_ring_claim(&ring, 1000, &dst, &room));
    CHECK_NE(ring.claim_skip, 0);
    CHECK_OK(send_length(1, 8));
    receive_length(0, 8);
    receive_length(1, 8);
    tear_down();
}

TEST(a_claimed_message_may_be_staged_shorter_or_as_long_as_the_room)
{
    uint8_t *dst;
    uint64_t room;
    shc_ring_message_t msg;
    set_up(8);
    CHECK_OK(shc_ring_claim(&ring, 100, &dst, &room));
    CHECK_EQ(room, ring.payload_max);
    shc_ring_stage(&ring, 1, 0);
    CHECK_EQ(ring.tail.position, 2);
    CHECK_OK(shc_ring_claim(&ring, 1, &dst, &room));
    memset(dst, 3, room);
    shc_ring_stage(&ring, (uint32_t)room, 9);
    shc_ring_publish(&ring);
    CHECK_OK(shc_ring_front(&ring, &msg));
    shc_ring_consume(&ring, &msg);
    CHECK_OK(shc_ring_front(&ring, &msg));
    CHECK_EQ(msg.length, room);
    CHECK_EQ(msg.payload[room - 1], 3);
    tear_down();
}

TEST(staged_messages_are_invisible_until_published_together)
{
    set_up(8);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_OK(stage_length(i, i * 3));
        CHECK_EQ(front(), SHC_EMPTY);
        check_backlog(0, 0);
    }
    shc_ring_publish(&ring);
    check_backlog(5, 88);
    for (uint32_t i = 0; i < 5; i++)
        receive_length(i, i * 3);
    tear_down();
}

TEST(a_batch_may_fill_the_ring_and_not_more)
{
    set_up(4);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(stage_length(i, 10));
    CHECK_EQ(stage_length(4, 10), SHC_FULL);
    shc_ring_publish(&ring);
    CHECK_EQ(send_length(4, 10), SHC_FULL);
    receive_length(0, 10);
    CHECK_OK(send_length(4, 10));
    tear_down();
}

TEST(messages_of_a_batch_may_be_consumed_before_any_is_given_back)
{
    set_up(4);
    shc_ring_message_t msg;
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_length(i, 10));
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_OK(shc_ring_front(&ring, &msg));
        check_message(&msg, i, 10);
        shc_ring_consume(&ring, &msg);
    }
    CHECK_EQ(shc_ring_held(&ring), 4);
    CHECK_EQ(front(), SHC_EMPTY);
    CHECK_EQ(send_length(4, 10), SHC_FULL);
    shc_ring_give_back(&ring);
    CHECK_EQ(shc_ring_held(&ring), 0);
    CHECK_OK(send_length(4, 10));
    tear_down();
}

/* ---- holds ---- */

static uint32_t
hold_next(uint32_t number, uint64_t length, const uint8_t **payload)
{
    shc_ring_message_t msg;
    uint32_t hold;
    CHECK_OK(shc_ring_front(&ring, &msg));
    check_message(&msg, number, length);
    CHECK_OK(shc_ring_hold(&ring, &msg, &hold));
    if (payload != NULL)
        *payload = msg.payload;
    return hold;
}

static bool
let_go(uint32_t hold)
{
    shc_ring_mark_released(&ring, hold);
    return shc_ring_settle_holds(&ring);
}

TEST(space_is_free_when_the_oldest_hold_is_released)
{
    uint32_t hold[4];
    set_up(4);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_length(i, 20));
    for (uint32_t i = 0; i < 4; i++)
        hold[i] = hold_next(i, 20, NULL);
    CHECK(!let_go(hold[2]));
    CHECK(!let_go(hold[1]));
    CHECK_EQ(shc_ring_held(&ring), 4);
    CHECK_EQ(send_length(9, 20), SHC_FULL);
    CHECK(let_go(hold[0])); /* the first three together */
    CHECK_EQ(shc_ring_held(&ring), 1);
    check_backlog(1, 32);
    CHECK(let_go(hold[3]));
    CHECK_EQ(shc_ring_held(&ring), 0);
    CHECK(!shc_ring_settle_holds(&ring));
    tear_down();
}

TEST(every_order_of_releasing_five_holds_frees_all)
{
    set_up(MANY);
    for (unsigned order = 0; order < 120; order++) {
        uint32_t hold[5], left[5] = {0, 1, 2, 3, 4};
        for (uint32_t i = 0; i < 5; i++)
            CHECK_OK(send_length(i, 7 * i));
        for (uint32_t i = 0; i < 5; i++)
            hold[i] = hold_next(i, 7 * i, NULL);
        unsigned code = order;
        for (unsigned n = 5; n > 0; code /= n, n--) {
            unsigned pick = code % n;
            bool oldest = left[pick] == 5 - n && pick == 0;
            bool freed = let_go(hold[left[pick]]);
            CHECK(!oldest || freed);
            memmove(&left[pick], &left[pick + 1], (4 - pick) * sizeof left[0]);
        }
        check_backlog(0, 0);
        CHECK_EQ(shc_ring_held(&ring), 0);
    }
    tear_down();
}

TEST(what_is_held_is_not_overwritten_while_the_ring_goes_round)
{
    const uint8_t *payload;
    uint32_t received = 1, sent = 1;
    set_up(MANY);
    CHECK_OK(send_length(0, 100));
    uint32_t hold = hold_next(0, 100, &payload);
    while (send_length(sent, 40) == 0)
        sent++;
    for (; received < sent; received++)
        receive_length(received, 40);
    CHECK_EQ(send_length(sent, 40), SHC_FULL);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ(payload[i], (uint8_t)i);
    CHECK(let_go(hold));
    check_backlog(0, 0);
    CHECK_OK(send_length(sent, 40));
    tear_down();
}

TEST(messages_consumed_behind_a_hold_are_freed_with_it)
{
    set_up(4);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_length(i, 20));
    uint32_t hold = hold_next(0, 20, NULL);
    receive_length(1, 20);
    receive_length(2, 20);
    CHECK_EQ(shc_ring_held(&ring), 3);
    CHECK_EQ(send_length(4, 20), SHC_FULL);
    CHECK(let_go(hold));
    CHECK_EQ(shc_ring_held(&ring), 0);
    check_backlog(1, 32);
    receive_length(3, 20);
    tear_down();
}

TEST(there_are_64_holds_and_not_one_more)
{
    shc_ring_message_t msg;
    uint32_t hold[SHC_RING_HOLDS], one_more;
    set_up(MANY);
    for (uint32_t i = 0; i < SHC_RING_HOLDS + 1; i++)
        CHECK_OK(send_length(i, 8));
    for (uint32_t i = 0; i < SHC_RING_HOLDS; i++)
        hold[i] = hold_next(i, 8, NULL);
    CHECK_OK(shc_ring_front(&ring, &msg));
    CHECK_EQ(shc_ring_hold(&ring, &msg, &one_more), SHC_E_LEASES);
    CHECK(!let_go(hold[1]));
    CHECK_EQ(shc_ring_hold(&ring, &msg, &one_more), SHC_E_LEASES);
    CHECK(let_go(hold[0]));
    CHECK_OK(shc_ring_hold(&ring, &msg, &one_more));
    for (uint32_t i = 2; i < SHC_RING_HOLDS; i++)
        CHECK(let_go(hold[i]));
    CHECK(let_go(one_more));
    check_backlog(0, 0);
    tear_down();
}

TEST(hold_numbers_wrap)
{
    set_up(8);
    ring.hold_first = ring.hold_last = UINT32_MAX - 1;
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_length(i, 8));
    uint32_t a = hold_next(0, 8, NULL), b = hold_next(1, 8, NULL), c = hold_next(2, 8, NULL);
    CHECK_EQ(c, 0);
    CHECK(!let_go(c));
    CHECK(let_go(a));
    CHECK(let_go(b));
    CHECK_EQ(ring.hold_first, ring.hold_last);
    receive_length(3, 8);
    check_backlog(0, 0);
    tear_down();
}

/* ---- clear, shutdown ---- */

TEST(clear_forgets_what_is_published_and_keeps_count)
{
    set_up(8);
    CHECK_OK(shc_ring_clear(&ring));
    for (uint32_t i = 0; i < 6; i++)
        CHECK_OK(send_length(i, 100));
    receive_length(0, 100);
    CHECK_OK(shc_ring_clear(&ring));
    CHECK_EQ(front(), SHC_EMPTY);
    check_backlog(0, 0);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->received), 6);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->sent), 6);
    CHECK_OK(send_length(7, 3));
    receive_length(7, 3);
    tear_down();
}

TEST(clear_behind_a_hold_frees_nothing_before_its_release)
{
    const uint8_t *payload;
    set_up(4);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_length(i, 20));
    uint32_t hold = hold_next(0, 20, &payload);
    CHECK_OK(shc_ring_clear(&ring));
    CHECK_EQ(front(), SHC_EMPTY);
    CHECK_EQ(send_length(4, 20), SHC_FULL);
    CHECK_EQ(payload[3], 3);
    CHECK(let_go(hold));
    check_backlog(0, 0);
    CHECK_OK(send_length(4, 20));
    receive_length(4, 20);
    tear_down();
}

TEST(after_a_graceful_shutdown_what_is_left_is_delivered)
{
    set_up(8);
    CHECK_OK(send_length(0, 5));
    CHECK_OK(send_length(1, 5));
    shc_ring_shutdown(&ring, false);
    CHECK_EQ(shc_ring_shutdown_flags(&ring), SHC_RING_SHUTDOWN);
    CHECK_EQ(send_length(2, 5), SHC_SHUTDOWN);
    receive_length(0, 5);
    receive_length(1, 5);
    CHECK_EQ(front(), SHC_SHUTDOWN);
    tear_down();
}

TEST(after_an_immediate_shutdown_nothing_is_delivered)
{
    set_up(8);
    CHECK_OK(send_length(0, 5));
    shc_ring_shutdown(&ring, true);
    CHECK_EQ(send_length(1, 5), SHC_SHUTDOWN);
    CHECK_EQ(front(), SHC_SHUTDOWN);
    shc_ring_shutdown(&ring, false);
    CHECK_EQ(front(), SHC_SHUTDOWN);
    check_backlog(1, 16);
    tear_down();
}

TEST(a_batch_staged_before_a_shutdown_may_still_be_published)
{
    set_up(8);
    CHECK_OK(stage_length(0, 5));
    shc_ring_shutdown(&ring, false);
    CHECK_EQ(stage_length(1, 5), SHC_SHUTDOWN);
    CHECK_EQ(front(), SHC_SHUTDOWN);
    shc_ring_publish(&ring);
    receive_length(0, 5);
    CHECK_EQ(front(), SHC_SHUTDOWN);
    tear_down();
}

TEST(shutdown_bumps_both_event_counts_if_somebody_may_sleep)
{
    set_up(8);
    (void)shc_event_prepare(&ring.shm->items);
    (void)shc_event_prepare(&ring.shm->space);
    shc_ring_shutdown(&ring, false);
    CHECK_EQ(shc_a32_load_relaxed(&ring.shm->items.word), 2);
    CHECK_EQ(shc_a32_load_relaxed(&ring.shm->space.word), 2);
    tear_down();
}

/* ---- both ends and who has them ---- */

static uint64_t
lease(int end)
{
    return shc_a64_load_relaxed(end == SHC_RING_PRODUCER ? &ring.shm->producer : &ring.shm->consumer);
}

static void
set_lease(int end, uint64_t word)
{
    shc_a64_store_relaxed(end == SHC_RING_PRODUCER ? &ring.shm->producer : &ring.shm->consumer, word);
}

TEST(taking_and_dropping_stamps_and_clears_the_lease)
{
    set_up_untaken(8);
    for (int end = SHC_RING_PRODUCER; end <= SHC_RING_CONSUMER; end++) {
        CHECK_EQ(shc_ring_holder_pid(&ring, end), 0);
        CHECK_OK(shc_ring_take(&ring, end));
        CHECK_EQ(lease(end), shc_seg_owner_word(&seg));
        CHECK_EQ(shc_ring_holder_pid(&ring, end), getpid());
        CHECK_OK(shc_ring_take(&ring, end));
        shc_ring_drop(&ring, end);
        CHECK_EQ(lease(end), 0);
        shc_ring_drop(&ring, end);
    }
    tear_down();
}

TEST(an_end_that_a_living_process_has_is_busy_and_stays_its_own)
{
    set_up_untaken(8);
    for (int end = SHC_RING_PRODUCER; end <= SHC_RING_CONSUMER; end++) {
        uint64_t theirs = fix_plant_living(&seg, 2, 5, SHC_PARTICIPANT_LIVE);
        set_lease(end, theirs);
        CHECK_EQ(shc_ring_take(&ring, end), SHC_BUSY);
        shc_ring_drop(&ring, end);
        CHECK_EQ(lease(end), theirs);
        CHECK_EQ(shc_ring_holder_pid(&ring, end), getppid());
        set_lease(end, 0);
    }
    shc_a64_store_relaxed(&seg.participants.slots[2].state, 0);
    tear_down();
}

TEST(a_dead_holders_end_is_taken_over_and_counted)
{
    set_up_untaken(8);
    for (int end = SHC_RING_PRODUCER; end <= SHC_RING_CONSUMER; end++) {
        set_lease(end, fix_plant_dead(&seg, 2, 5, SHC_PARTICIPANT_LIVE));
        CHECK_EQ(shc_ring_take(&ring, end), SHC_OWNER_DIED);
        CHECK_EQ(lease(end), shc_seg_owner_word(&seg));
    }
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->producer_deaths), 1);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->consumer_deaths), 1);
    tear_down();
}

TEST(the_end_of_an_earlier_generation_is_nobodys)
{
    set_up_untaken(8);
    uint64_t theirs = fix_plant_living(&seg, 2, 5, SHC_PARTICIPANT_LIVE);
    set_lease(SHC_RING_PRODUCER, theirs - (1 << 12));
    CHECK_EQ(shc_ring_holder_pid(&ring, SHC_RING_PRODUCER), 0);
    CHECK_EQ(shc_ring_take(&ring, SHC_RING_PRODUCER), SHC_OWNER_DIED);
    shc_a64_store_relaxed(&seg.participants.slots[2].state, 0);
    tear_down();
}

TEST(reaping_frees_the_ends_of_the_dead_and_no_others)
{
    set_up_untaken(8);
    CHECK_OK(shc_ring_take(&ring, SHC_RING_PRODUCER));
    set_lease(SHC_RING_CONSUMER, fix_plant_dead(&seg, 2, 5, SHC_PARTICIPANT_LIVE));
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(lease(SHC_RING_CONSUMER), 0);
    CHECK_EQ(lease(SHC_RING_PRODUCER), shc_seg_owner_word(&seg));
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->consumer_deaths), 1);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->producer_deaths), 0);
    CHECK_OK(shc_ring_take(&ring, SHC_RING_CONSUMER));
    tear_down();
}

TEST(a_successor_sees_what_the_dead_consumer_had_not_given_back)
{
    set_up(8);
    for (uint32_t i = 0; i < 5; i++)
        CHECK_OK(send_length(i, 30));
    receive_length(0, 30);
    (void)hold_next(1, 30, NULL);
    receive_length(2, 30);
    set_lease(SHC_RING_CONSUMER, fix_plant_dead(&seg, 2, 5, SHC_PARTICIPANT_LIVE));
    CHECK_EQ(shc_ring_take(&ring, SHC_RING_CONSUMER), SHC_OWNER_DIED);
    for (uint32_t i = 1; i < 5; i++)
        receive_length(i, 30);
    CHECK_EQ(front(), SHC_EMPTY);
    tear_down();
}

TEST(what_a_dead_producer_had_not_published_does_not_exist)
{
    set_up(8);
    CHECK_OK(send_length(0, 30));
    CHECK_OK(stage_length(1, 30));
    set_lease(SHC_RING_PRODUCER, fix_plant_dead(&seg, 2, 5, SHC_PARTICIPANT_LIVE));
    CHECK_EQ(shc_ring_take(&ring, SHC_RING_PRODUCER), SHC_OWNER_DIED);
    CHECK_OK(send_length(2, 30));
    receive_length(0, 30);
    receive_length(2, 30);
    CHECK_EQ(front(), SHC_EMPTY);
    tear_down();
}

/* The total is a hint that is stored after the cursor: it may lag by a batch, or lead if the cursor was never
 * stored. */
static void
check_total(uint64_t total, uint64_t hint)
{
    shc_a64_store_relaxed(&ring.shm->sent, hint);
    shc_a64_store_relaxed(&ring.shm->received, hint);
    start_at(0, total & SHC_RING_COUNT_MASK);
    CHECK_EQ(ring.tail.count, total);
    CHECK_EQ(ring.read.count, total);
}

TEST(totals_are_rebuilt_from_the_cursors_count)
{
    const uint64_t turn = SHC_RING_COUNT_MASK + 1;
    set_up(8);
    check_total(100, 100);
    check_total(107, 100);
    check_total(turn + 3, turn - 2);
    check_total(turn - 2, turn + 3);
    check_total(5 * turn, 5 * turn - 1);
    check_total(5 * turn + turn / 2 - 1, 5 * turn);
    check_total(0, 0);
    tear_down();
}

TEST(totals_and_peak_are_kept_while_all_goes_well)
{
    set_up(8);
    for (uint32_t i = 0; i < 6; i++)
        CHECK_OK(send_length(i, 1));
    for (uint32_t i = 0; i < 6; i++)
        receive_length(i, 1);
    CHECK_OK(send_length(6, 1));
    receive_length(6, 1);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->sent), 7);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->received), 7);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->peak), 6);
    tear_down();
}

/* ---- forged words: a status, never a step out of the data ---- */

static uint64_t
cursor(uint64_t position, uint64_t count)
{
    return (position & SHC_RING_POSITION_MASK) | count << 40;
}

TEST(ends_with_impossible_cursors_are_refused_and_stay_free)
{
    static const struct {
        uint64_t head_position, head_count, tail_position, tail_count;
    } cases[] = {
        {0, 0, UNITS + 1, 1},              /* more units than there are */
        {0, 0, 10, 9},                     /* more messages than the capacity */
        {0, 0, 3, 4},                      /* more messages than units */
        {5, 0, 4, 1},                      /* head beyond tail */
        {0, 1, 4, 0},                      /* counts backwards */
        {0, 0, SHC_RING_POSITION_MASK, 1}, /* far beyond */
        {0, 0, 4, 0},                      /* units without a message */
    };
    set_up_untaken(8);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        shc_a64_store_relaxed(&ring.shm->head, cursor(cases[i].head_position, cases[i].head_count));
        shc_a64_store_relaxed(&ring.shm->tail, cursor(cases[i].tail_position, cases[i].tail_count));
        CHECK_EQ(shc_ring_take(&ring, SHC_RING_PRODUCER), SHC_E_CORRUPT);
        CHECK_EQ(shc_ring_take(&ring, SHC_RING_CONSUMER), SHC_E_CORRUPT);
        CHECK_EQ(lease(SHC_RING_PRODUCER), 0);
        CHECK_EQ(lease(SHC_RING_CONSUMER), 0);
        CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
        uint64_t messages, bytes;
        shc_ring_backlog(&ring, &messages, &bytes);
        CHECK_LE(messages, 8);
        CHECK_LE(bytes, BYTES);
    }
    tear_down();
}

TEST(a_head_forged_while_the_producer_works_is_refused_at_the_next_look)
{
    set_up(2);
    CHECK_OK(send_length(0, 8));
    CHECK_OK(send_length(1, 8));
    shc_a64_store_relaxed(&ring.shm->head, cursor(5, 2)); /* beyond the tail */
    CHECK_EQ(send_length(2, 8), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->head, cursor(4, 0));
    CHECK_EQ(send_length(2, 8), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->head, 0);
    CHECK_EQ(send_length(2, 8), SHC_FULL);
    tear_down();
}

TEST(a_tail_forged_while_the_consumer_works_is_refused_at_the_next_look)
{
    set_up(8);
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS + 1, 2));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    CHECK_EQ(shc_ring_clear(&ring), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->tail, cursor(7, 0));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    CHECK_EQ(shc_ring_clear(&ring), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->tail, 0);
    CHECK_EQ(front(), SHC_EMPTY);
    tear_down();
}

static void
put_record(uint64_t position, uint64_t head)
{
    memcpy(ring.data + (position & (UNITS - 1)) * 8, &head, sizeof head);
}

static uint64_t
sound_head(uint64_t position, uint32_t length, uint8_t tag)
{
    uint32_t mark = (uint32_t)(position ^ ring.key) << 8 | tag;
    return (uint64_t)length | (uint64_t)mark << 32;
}

TEST(a_record_whose_check_is_wrong_is_corrupt)
{
    set_up(8);
    CHECK_OK(send_length(0, 8));
    for (unsigned bit = 40; bit < 64; bit++) {
        put_record(0, sound_head(0, 8, 0) ^ UINT64_C(1) << bit);
        CHECK_EQ(front(), SHC_E_CORRUPT);
        CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
    }
    put_record(0, sound_head(0, 8, 0));
    receive_length(0, 8);
    tear_down();
}

TEST(a_record_that_leaves_its_place_is_corrupt)
{
    static const uint32_t lengths[] = {9, 16, 4088, 4089, UINT32_MAX - 1, UINT32_MAX, 0x80000000};
    set_up(8);
    CHECK_OK(send_length(0, 8));
    for (size_t i = 0; i < SHC_ARRAY_SIZE(lengths); i++) {
        put_record(0, sound_head(0, lengths[i], 0));
        CHECK_EQ(front(), SHC_E_CORRUPT);
        CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
    }
    tear_down();
}

TEST(a_record_that_runs_over_the_end_of_the_data_is_corrupt)
{
    set_up(8);
    start_at(UNITS - 2, 0);
    put_record(UNITS - 2, sound_head(UNITS - 2, 100, 0));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS + 12, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    tear_down();
}

TEST(a_record_longer_than_payload_max_is_corrupt_even_if_it_fits)
{
    set_up(8);
    uint32_t length = (uint32_t)ring.payload_max + 1;
    put_record(0, sound_head(0, length, 0));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    tear_down();
}

TEST(a_skip_mark_without_a_message_behind_it_is_corrupt)
{
    set_up(8);
    start_at(UNITS - 2, 0);
    put_record(UNITS - 2, sound_head(UNITS - 2, SHC_RING_SKIP, 0));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS - 1, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    tear_down();
}

TEST(two_skip_marks_in_a_row_are_corrupt)
{
    set_up(8);
    start_at(UNITS - 2, 0);
    put_record(UNITS - 2, sound_head(UNITS - 2, SHC_RING_SKIP, 0));
    put_record(UNITS, sound_head(UNITS, SHC_RING_SKIP, 0));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS + UNITS - 2, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    tear_down();
}

TEST(a_skip_mark_with_a_tag_is_corrupt)
{
    set_up(8);
    start_at(UNITS - 2, 0);
    put_record(UNITS - 2, sound_head(UNITS - 2, SHC_RING_SKIP, 1));
    put_record(UNITS, sound_head(UNITS, 0, 0));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(UNITS + 1, 1));
    CHECK_EQ(front(), SHC_E_CORRUPT);
    tear_down();
}

TEST(bytes_of_another_ring_do_not_pass_for_records)
{
    shc_seg_t other_seg;
    shc_ring_t other;
    set_up(8);
    CHECK_OK(fix_create_ring("other", 8, BYTES, &other_seg));
    shc_ring_open(&other, &other_seg);
    CHECK_OK(send_length(0, 8));
    memcpy(other.data, ring.data, BYTES);
    shc_a64_store_relaxed(&other.shm->tail, cursor(2, 1));
    CHECK_NE((other.key ^ ring.key) & 0xffffff, 0); /* fails once in 16 million runs */
    CHECK_EQ(shc_ring_check(&other), SHC_E_CORRUPT);
    fix_leave(&other_seg, "other");
    tear_down();
}

TEST(check_counts_messages_and_units)
{
    set_up(8);
    CHECK_OK(send_length(0, 8));
    CHECK_OK(send_length(1, 8));
    CHECK_OK(shc_ring_check(&ring));
    shc_a64_store_relaxed(&ring.shm->tail, cursor(4, 3));
    CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->tail, cursor(4, 1));
    CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.shm->tail, cursor(3, 2));
    CHECK_EQ(shc_ring_check(&ring), SHC_E_CORRUPT);
    tear_down();
}

TEST(check_writes_nothing)
{
    static uint8_t before[16384], after[16384];
    set_up(8);
    for (uint32_t i = 0; i < 6; i++)
        CHECK_OK(send_length(i, 8));
    CHECK_LE(seg.id.size, sizeof before);
    memcpy(before, seg.base, seg.id.size);
    CHECK_OK(shc_ring_check(&ring));
    uint64_t messages, bytes;
    shc_ring_backlog(&ring, &messages, &bytes);
    (void)shc_ring_holder_pid(&ring, SHC_RING_PRODUCER);
    memcpy(after, seg.base, seg.id.size);
    CHECK_MEM(before, after, seg.id.size);
    tear_down();
}

static int
validate(uint64_t capacity, uint64_t data_bytes, uint64_t body_size)
{
    shc_seg_id_t id = {.body_size = body_size};
    id.config[SHC_RING_CONFIG_CAPACITY] = capacity;
    id.config[SHC_RING_CONFIG_DATA_BYTES] = data_bytes;
    return shc_ring_spec.validate(&id);
}

TEST(impossible_configurations_are_refused)
{
    CHECK_OK(validate(1, BYTES, BYTES + 640));
    CHECK_OK(validate(MANY, SHC_RING_DATA_BYTES_MAX, SHC_RING_DATA_BYTES_MAX + 640));
    CHECK_EQ(validate(0, BYTES, BYTES + 640), SHC_E_CORRUPT);
    CHECK_EQ(validate(MANY + 1, BYTES, BYTES + 640), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, BYTES / 2, BYTES / 2 + 640), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, BYTES + 8, BYTES + 648), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, 2 * SHC_RING_DATA_BYTES_MAX, 2 * SHC_RING_DATA_BYTES_MAX + 640), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, BYTES, BYTES + 639), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, 0, 640), SHC_E_CORRUPT);
    CHECK_EQ(validate(1, UINT64_C(1) << 63, (UINT64_C(1) << 63) + 640), SHC_E_CORRUPT);
}

TEST(the_largest_payload_is_below_the_skip_mark)
{
    CHECK_EQ(shc_ring_payload_max(4096, false), 2040);
    CHECK_EQ(shc_ring_payload_max(SHC_RING_DATA_BYTES_MAX, false), UINT32_C(0xfffffff0));
    CHECK_LT(shc_ring_payload_max(SHC_RING_DATA_BYTES_MAX, false), SHC_RING_SKIP);
    CHECK_EQ(shc_ring_payload_max(4096, true), 2040);
    CHECK_EQ(shc_ring_payload_max(SHC_RING_DATA_BYTES_MAX, true), SHC_RING_INLINE_MAX);
}
