/* The cell ring: order, capacity, memory, batches, holds, death, shutdown, and what it makes of bad words. */
#include "ds/shc_cells.h"

#include <errno.h>
#include <pthread.h>

#include "support/segfix.h"
#include "t.h"

#define ONE (UINT64_C(1) << 24)

static shc_seg_t seg;
static shc_cells_t ring;

static void
open_ring(uint64_t capacity, uint64_t entries, uint64_t cells)
{
    shc_seg_create_args_t args = fix_cells_args(capacity, entries, cells, FIX_PARTICIPANTS);
    fix_open();
    CHECK_OK(fix_create_with("c", &fix_cells_spec, &args, &seg));
    fix_cells_open(&ring, &seg);
}

static void
close_ring(void)
{
    CHECK_OK(shc_cells_check(&ring));
    fix_leave(&seg, "c");
    fix_close();
}

/* As if `messages` had passed, which took `cells`. */
static void
age(uint64_t messages, uint64_t cells)
{
    uint64_t base = messages << 24, cursor = base | (cells & 0xffffff);
    for (uint64_t i = 0; i <= ring.entry_mask; i++) {
        uint64_t number = messages + i;
        shc_a64_store_relaxed(&ring.entries[number & ring.entry_mask].word, (number << 24) - ring.lap);
    }
    shc_a64_store_relaxed(&ring.shm->tail, cursor);
    shc_a64_store_relaxed(&ring.shm->head, cursor);
    shc_a64_store_relaxed(&ring.shm->recl, cursor);
    shc_a64_store_relaxed(&ring.shm->lost, base - ONE);
    shc_a64_store_relaxed(&ring.shm->aborted, base - ONE);
    fix_cells_open(&ring, &seg);
}

/* ---- messages ---- */

static void
fill(const shc_cells_slot_t *slot, uint64_t number, uint32_t length)
{
    CHECK_LE(length, slot->room);
    for (uint32_t i = 0; i < length; i++)
        slot->payload[i] = (uint8_t)(number * 31 + i);
}

static bool
holds(const shc_cells_slot_t *slot, uint64_t number)
{
    for (uint32_t i = 0; i < slot->length; i++)
        if (slot->payload[i] != (uint8_t)(number * 31 + i))
            return false;
    return slot->tag == (uint8_t)number;
}

static int
send(uint64_t number, uint32_t length)
{
    shc_cells_slot_t slot;
    int r = shc_cells_claim(&ring, length, &slot);
    if (r != 0)
        return r;
    fill(&slot, number, length);
    shc_cells_send(&ring, &slot, length, (uint8_t)number, 0);
    return 0;
}

static int
receive(uint64_t number, uint32_t length)
{
    shc_cells_slot_t slot;
    int r = shc_cells_take(&ring, &slot);
    if (r != 0)
        return r;
    CHECK_EQ(slot.length, length);
    CHECK(holds(&slot, number));
    shc_cells_finish(&ring, &slot);
    return 0;
}

static uint64_t
word_at(uint64_t cursor)
{
    return shc_a64_load_relaxed(&shc_cells__entry(&ring, cursor)->word);
}

/* What stands in an entry becomes somebody else's. */
static void
give_to(const shc_cells_slot_t *slot, uint32_t index)
{
    uint64_t word = (slot->word & ~SHC_CELLS_OWNER) | (index + 1);
    shc_a64_store_relaxed(&slot->entry->word, word);
}

/* ---- one message ---- */

TEST(message_arrives_as_it_was_sent)
{
    static const uint32_t lengths[] = {0, 1, 47, 48, 49, 63, 64, 65, 128, 1000, 2047, 2048};
    open_ring(8, 8, 64);
    CHECK_EQ(ring.payload_max, 2048);
    for (unsigned round = 0; round < 40; round++)
        for (unsigned i = 0; i < SHC_ARRAY_SIZE(lengths); i++) {
            CHECK_OK(send(i + round, lengths[i]));
            CHECK_OK(receive(i + round, lengths[i]));
        }
    close_ring();
}

TEST(message_that_never_fits_is_refused_and_others_still_fit)
{
    shc_cells_slot_t slot;
    open_ring(8, 8, 64);
    CHECK_EQ(shc_cells_claim(&ring, 2049, &slot), SHC_E_TOO_LARGE);
    CHECK_EQ(shc_cells_claim(&ring, UINT64_MAX, &slot), SHC_E_TOO_LARGE);
    CHECK_OK(send(1, 2048));
    CHECK_OK(receive(1, 2048));
    close_ring();
}

TEST(longest_message_is_less_than_64_kib_in_a_large_ring)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 1 << 14);
    CHECK_EQ(ring.payload_max, 1023 * 64);
    CHECK_EQ(shc_cells_claim(&ring, 1023 * 64 + 1, &slot), SHC_E_TOO_LARGE);
    CHECK_OK(send(3, 1023 * 64));
    CHECK_OK(receive(3, 1023 * 64));
    close_ring();
}

TEST(flags_tag_and_a_shorter_length_travel_with_the_message)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_OK(shc_cells_claim(&ring, 300, &slot));
    CHECK_EQ(slot.room, 320);
    fill(&slot, 200, 5);
    shc_cells_send(&ring, &slot, 5, 200, SHC_CELLS_REFERENCE | 0x80);
    CHECK_OK(shc_cells_take(&ring, &slot));
    CHECK_EQ(slot.length, 5);
    CHECK_EQ(slot.flags, 0x81);
    CHECK(holds(&slot, 200));
    shc_cells_finish(&ring, &slot);
    close_ring();
}

TEST(payload_of_cells_is_contiguous_aligned_and_inside)
{
    shc_cells_slot_t slot;
    open_ring(8, 8, 64);
    const uint8_t *begin = ring.cells, *end = begin + 64 * 64;
    for (uint64_t i = 0; i < 500; i++) {
        CHECK_OK(shc_cells_claim(&ring, 49 + i * 37 % 2000, &slot));
        CHECK(slot.payload >= begin && slot.payload + slot.room <= end);
        CHECK_EQ((uintptr_t)slot.payload % 64, 0);
        shc_cells_send(&ring, &slot, 0, 0, 0);
        CHECK_OK(receive(0, 0));
    }
    close_ring();
}

/* ---- how many fit ---- */

TEST(capacity_is_exact)
{
    static const uint64_t capacities[][2] = {{1, 1}, {1, 2}, {2, 2}, {3, 4}, {5, 64}, {64, 64}};
    for (unsigned k = 0; k < SHC_ARRAY_SIZE(capacities); k++) {
        uint64_t capacity = capacities[k][0], sent = 0, received = 0;
        open_ring(capacity, capacities[k][1], 64);
        for (unsigned round = 0; round < 5; round++) {
            while (send(sent, (uint32_t)(sent % 49)) == 0)
                sent++;
            CHECK_EQ(sent - received, capacity);
            CHECK_EQ(shc_cells_length(&ring), capacity);
            for (uint64_t i = 0; i <= capacity / 2; i++, received++)
                CHECK_OK(receive(received, (uint32_t)(received % 49)));
        }
        close_ring();
    }
}

TEST(message_that_was_taken_does_not_count_though_it_is_still_read)
{
    shc_cells_slot_t held;
    open_ring(2, 4, 64);
    CHECK_OK(send(0, 100));
    CHECK_OK(send(1, 10));
    CHECK_EQ(send(2, 10), SHC_FULL);
    CHECK_OK(shc_cells_take(&ring, &held));
    CHECK_OK(send(2, 10));
    CHECK_EQ(send(3, 10), SHC_FULL);
    CHECK(holds(&held, 0));
    CHECK_OK(receive(1, 10));
    CHECK_OK(receive(2, 10));
    shc_cells_finish(&ring, &held);
    close_ring();
}

TEST(holding_more_than_there_are_spare_entries_is_felt)
{
    shc_cells_slot_t held, slot;
    open_ring(2, 2, 64);
    CHECK_OK(send(0, 10));
    CHECK_OK(shc_cells_take(&ring, &held));
    CHECK_OK(send(1, 10));
    CHECK_EQ(shc_cells_claim(&ring, 10, &slot), SHC_FULL);
    CHECK(slot.entry == held.entry && slot.word == held.word && !slot.wants_memory);
    shc_cells_finish(&ring, &held);
    CHECK_OK(send(2, 10));
    CHECK_OK(receive(1, 10));
    CHECK_OK(receive(2, 10));
    close_ring();
}

TEST(full_of_bytes_says_so_and_names_the_oldest)
{
    shc_cells_slot_t slot;
    open_ring(64, 64, 64);
    CHECK_OK(send(0, 2048));
    CHECK_OK(send(1, 2048));
    CHECK_EQ(shc_cells_claim(&ring, 49, &slot), SHC_FULL);
    CHECK(slot.wants_memory);
    CHECK(slot.entry == &ring.entries[0]);
    CHECK_EQ(slot.word, word_at(0));
    CHECK_OK(send(2, 48)); /* needs none */
    CHECK_OK(receive(0, 2048));
    CHECK_NE(word_at(0), slot.word);
    CHECK_OK(send(3, 2048));
    CHECK_OK(receive(1, 2048));
    CHECK_OK(receive(2, 48));
    CHECK_OK(receive(3, 2048));
    close_ring();
}

TEST(full_of_messages_names_the_oldest_that_nobody_has_taken)
{
    shc_cells_slot_t held, slot;
    open_ring(1, 4, 64);
    CHECK_OK(send(0, 0));
    CHECK_OK(shc_cells_take(&ring, &held));
    CHECK_OK(send(1, 0));
    CHECK_EQ(shc_cells_claim(&ring, 100, &slot), SHC_FULL);
    CHECK(!slot.wants_memory && slot.entry == &ring.entries[1]);
    CHECK_OK(receive(1, 0));
    shc_cells_finish(&ring, &held);
    close_ring();
}

TEST(all_memory_is_there_again_wherever_the_ring_begins)
{
    open_ring(16, 16, 64);
    for (uint64_t start = 0; start < 64; start++) {
        age(100 + start, start);
        CHECK_OK(send(start, 2048));
        CHECK_OK(receive(start, 2048));
        uint64_t n = 0;
        while (send(n, 64 * 8) == 0)
            n++;
        CHECK_GE(n, 7); /* what is skipped at the end is less than one message */
        for (uint64_t i = 0; i < n; i++)
            CHECK_OK(receive(i, 64 * 8));
    }
    close_ring();
}

/* ---- order ---- */

TEST(younger_messages_wait_for_one_that_is_being_written)
{
    shc_cells_slot_t first, second, slot;
    open_ring(8, 8, 64);
    CHECK_OK(shc_cells_claim(&ring, 10, &first));
    CHECK_OK(shc_cells_claim(&ring, 60, &second));
    fill(&second, 2, 60);
    shc_cells_send(&ring, &second, 60, 2, 0);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    CHECK(slot.entry == first.entry && slot.word == first.word);
    CHECK_EQ(shc_cells_length(&ring), 2);
    CHECK(!shc_cells_unblock(&ring, &slot));
    fill(&first, 1, 10);
    shc_cells_send(&ring, &first, 10, 1, 0);
    CHECK(shc_cells_unblock(&ring, &slot)); /* it has changed */
    CHECK_OK(receive(1, 10));
    CHECK_OK(receive(2, 60));
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY);
    close_ring();
}

TEST(aborted_message_is_passed_and_its_memory_comes_back)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    for (uint64_t i = 0; i < 50; i++) {
        CHECK_OK(shc_cells_claim(&ring, 2000, &slot));
        CHECK_OK(send(i, 10));
        shc_cells_abort(&ring, &slot);
        CHECK_OK(receive(i, 10));
        CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY);
    }
    CHECK_EQ(shc_cells_count(&ring).aborted, 50);
    CHECK_EQ(shc_cells_count(&ring).sent, 50);
    CHECK_EQ(shc_cells_count(&ring).received, 50);
    close_ring();
}

/* Against a list: what is claimed, published or aborted in any order, taken, held, given back in any order. */
typedef struct item {
    shc_cells_slot_t slot;
    uint64_t number;
    uint32_t length;
    enum {
        WRITING,
        SENT,
        GIVEN_UP,
        READING,
        DONE
    } state;
} item_t;

static void
step_of(item_t *items, uint64_t *first, uint64_t *next, uint64_t *end, uint64_t *rng)
{
    uint64_t dice = t_random(rng) % 8;
    item_t *any = *end > *first ? &items[(*first + t_random(rng) % (*end - *first)) % 64] : NULL;
    shc_cells_slot_t slot;
    if (dice < 3 && *end - *first < 40) {
        item_t *item = &items[*end % 64];
        item->length = (uint32_t)(t_random(rng) % (dice == 0 ? 600 : 60));
        if (shc_cells_claim(&ring, item->length, &item->slot) != 0)
            return;
        item->number = *end;
        item->state = WRITING;
        ++*end;
    } else if (dice < 5 && any != NULL && any->state == WRITING) {
        fill(&any->slot, any->number, any->length);
        any->state = t_random(rng) % 4 != 0 ? SENT : GIVEN_UP;
        if (any->state == SENT)
            shc_cells_send(&ring, &any->slot, any->length, (uint8_t)any->number, 0);
        else
            shc_cells_abort(&ring, &any->slot);
    } else if (dice < 7) {
        while (*next < *end && items[*next % 64].state == GIVEN_UP)
            items[(*next)++ % 64].state = DONE;
        item_t *item = &items[*next % 64];
        int expected = *next == *end ? SHC_EMPTY : item->state == WRITING ? SHC_BUSY : 0;
        CHECK_EQ(shc_cells_take(&ring, &slot), expected);
        if (expected != 0)
            return;
        CHECK_EQ(slot.length, item->length);
        item->slot = slot;
        item->state = READING;
        shc_cells_end_takes(&ring, &slot);
        ++*next;
    } else if (any != NULL && any->state == READING) {
        CHECK(holds(&any->slot, any->number));
        shc_cells_finish(&ring, &any->slot);
        any->state = DONE;
    }
    while (*first < *next && items[*first % 64].state == DONE)
        ++*first;
}

static void
compare_with_list(uint64_t steps, uint64_t *rng)
{
    static item_t items[64];
    uint64_t first = 0, next = 0, end = 0;
    for (uint64_t i = 0; i < steps; i++) {
        step_of(items, &first, &next, &end, rng);
        if (i % 64 == 0)
            CHECK_OK(shc_cells_check(&ring));
    }
    for (; first < end; first++) {
        item_t *item = &items[first % 64];
        if (item->state == WRITING)
            shc_cells_abort(&ring, &item->slot);
        else if (item->state == SENT)
            CHECK_OK(receive(item->number, item->length));
        else if (item->state == READING)
            shc_cells_finish(&ring, &item->slot);
    }
    CHECK_EQ(shc_cells_take(&ring, &items[0].slot), SHC_EMPTY);
}

TEST(anything_in_any_order_is_as_in_a_list)
{
    static const uint64_t sizes[][3] = {{32, 64, 64}, {7, 8, 64}, {64, 64, 256}, {3, 4, 128}};
    uint64_t rng = t_seed();
    for (unsigned i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        open_ring(sizes[i][0], sizes[i][1], sizes[i][2]);
        compare_with_list(t_scaled(40000), &rng);
        close_ring();
    }
}

TEST(numbers_and_positions_come_round)
{
    uint64_t rng = t_seed();
    open_ring(32, 64, 64);
    for (uint64_t i = 1; i <= 20; i++) {
        age((UINT64_C(1) << 40) - i * 7, (UINT64_C(1) << 24) - i * 5);
        compare_with_list(t_scaled(3000), &rng);
    }
    close_ring();
}

/* ---- lagging hints ---- */

TEST(hints_that_lag_are_moved_on)
{
    open_ring(8, 8, 64);
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t tail = shc_a64_load_relaxed(&ring.shm->tail), head = shc_a64_load_relaxed(&ring.shm->head);
        CHECK_OK(send(i, 70));
        shc_a64_store_relaxed(&ring.shm->tail, tail); /* as if killed before */
        CHECK_OK(send(i + 1, 70));
        CHECK_OK(receive(i, 70));
        CHECK_OK(receive(i + 1, 70));
        shc_a64_store_relaxed(&ring.shm->head, head);
        CHECK_EQ(receive(0, 0), SHC_EMPTY);
        CHECK_EQ(shc_cells_length(&ring), 0);
    }
    close_ring();
}

TEST(tail_of_a_killed_claim_lags_by_one_and_passes_the_check)
{
    shc_cells_slot_t slot;
    open_ring(8, 8, 64);
    CHECK_OK(shc_cells_claim(&ring, 10, &slot));
    CHECK_OK(shc_cells_check(&ring));
    give_to(&slot, 3);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    CHECK(shc_cells_unblock(&ring, &slot));
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY); /* head and recl are ahead of tail now */
    CHECK_OK(shc_cells_check(&ring));
    CHECK_EQ(shc_cells_length(&ring), 0);
    CHECK_OK(send(1, 10));
    CHECK_OK(receive(1, 10));
    close_ring();
}

/* ---- batches ---- */

static uint64_t
send_batch(uint64_t first, uint64_t n, uint32_t length)
{
    shc_cells_slot_t slots[128];
    uint64_t i = 0;
    while (i < n && (i == 0 ? shc_cells_claim(&ring, length, &slots[0])
                            : shc_cells_claim_next(&ring, &slots[i - 1], length, &slots[i])) == 0) {
        fill(&slots[i], first + i, length);
        i++;
    }
    for (uint64_t k = 0; k < i; k++)
        shc_cells_publish(&slots[k], length, (uint8_t)(first + k), 0);
    if (i != 0)
        shc_cells_end_claims(&ring, &slots[i - 1]);
    return i;
}

static uint64_t
receive_batch(uint64_t first, uint64_t n, uint32_t length)
{
    shc_cells_slot_t slots[128];
    uint64_t i = 0;
    while (i < n &&
           (i == 0 ? shc_cells_take(&ring, &slots[0]) : shc_cells_take_next(&ring, &slots[i - 1], &slots[i])) == 0)
        i++;
    for (uint64_t k = 0; k < i; k++) {
        CHECK_EQ(slots[k].length, length);
        CHECK(holds(&slots[k], first + k));
        shc_cells_give_back(&ring, &slots[k]);
    }
    if (i != 0)
        shc_cells_end_takes(&ring, &slots[i - 1]);
    return i;
}

TEST(batches_of_any_size_fit_rings_of_any_size)
{
    static const uint64_t sizes[][2] = {{1, 1}, {1, 2}, {2, 2}, {4, 4}, {100, 128}};
    for (unsigned k = 0; k < SHC_ARRAY_SIZE(sizes); k++) {
        uint64_t capacity = sizes[k][0], sent = 0, received = 0;
        open_ring(capacity, sizes[k][1], 1024);
        for (uint64_t n = 1; n <= 120; n++) {
            uint64_t queued = sent - received, fits = capacity - queued < n ? capacity - queued : n;
            CHECK_EQ(send_batch(sent, n, 65), fits);
            sent += fits;
            received += receive_batch(received, n - n / 3, 65);
            CHECK_OK(shc_cells_check(&ring));
        }
        CHECK_EQ(receive_batch(received, 128, 65), sent - received);
        close_ring();
    }
}

TEST(batch_is_one_run_unless_somebody_claims_in_between)
{
    shc_cells_slot_t slots[4], other;
    open_ring(16, 16, 64);
    CHECK_OK(shc_cells_claim(&ring, 1, &slots[0]));
    CHECK_OK(shc_cells_claim_next(&ring, &slots[0], 1, &slots[1]));
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->tail), 0);
    CHECK_OK(shc_cells_claim(&ring, 1, &other)); /* moves tail on its way */
    CHECK(other.entry == &ring.entries[2]);
    CHECK_OK(shc_cells_claim_next(&ring, &slots[1], 1, &slots[2]));
    CHECK(slots[2].entry == &ring.entries[3]);
    for (unsigned i = 0; i < 3; i++)
        shc_cells_publish(&slots[i], 0, (uint8_t)i, 0);
    shc_cells_end_claims(&ring, &slots[2]);
    shc_cells_send(&ring, &other, 0, 9, 0);
    CHECK_OK(receive(0, 0));
    CHECK_OK(receive(1, 0));
    CHECK_OK(receive(9, 0));
    CHECK_OK(receive(2, 0));
    close_ring();
}

TEST(batch_without_end_keeps_tail_within_reach)
{
    shc_cells_slot_t last, slot;
    open_ring(4, 4, 64);
    CHECK_OK(shc_cells_claim(&ring, 10, &last));
    for (uint64_t i = 0; i < 100; i++) {
        fill(&last, i, 10);
        shc_cells_publish(&last, 10, (uint8_t)i, 0);
        CHECK_OK(receive(i, 10));
        CHECK_OK(shc_cells_claim_next(&ring, &last, 10, &slot));
        last = slot;
    }
    CHECK_OK(send(101, 10)); /* as somebody else would, who knows only of tail */
    shc_cells_send(&ring, &last, 0, 100, 0);
    CHECK_OK(receive(100, 0));
    CHECK_OK(receive(101, 10));
    close_ring();
}

TEST(killed_batch_leaves_tail_far_behind_and_passes_the_check)
{
    shc_cells_slot_t slots[6], slot;
    open_ring(8, 8, 64);
    CHECK_OK(shc_cells_claim(&ring, 10, &slots[0]));
    for (unsigned i = 1; i < 6; i++)
        CHECK_OK(shc_cells_claim_next(&ring, &slots[i - 1], 10, &slots[i]));
    for (unsigned i = 0; i < 6; i++)
        give_to(&slots[i], 3);
    for (unsigned i = 0; i < 6; i++) {
        CHECK_OK(shc_cells_check(&ring));
        CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
        CHECK(shc_cells_unblock(&ring, &slot));
    }
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY);
    CHECK_OK(shc_cells_check(&ring));
    CHECK_EQ(shc_cells_count(&ring).lost, 6);
    for (uint64_t i = 0; i < 8; i++)
        CHECK_OK(send(i, 10));
    CHECK_EQ(send(8, 10), SHC_FULL);
    CHECK_EQ(shc_cells_clear(&ring, NULL, NULL), 8);
    close_ring();
}

/* ---- holds ---- */

TEST(what_is_held_is_not_overwritten_in_whatever_order_it_is_released)
{
    shc_cells_slot_t held[3], slot;
    open_ring(8, 8, 64);
    for (uint64_t i = 0; i < 3; i++)
        CHECK_OK(send(i, 640));
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_OK(shc_cells_take(&ring, &held[i]));
        shc_cells_end_takes(&ring, &held[i]);
    }
    shc_cells_finish(&ring, &held[2]);
    shc_cells_finish(&ring, &held[1]);
    CHECK_OK(send(3, 1280));
    CHECK_EQ(shc_cells_claim(&ring, 1280, &slot), SHC_FULL); /* the oldest hold keeps all of it */
    CHECK(slot.wants_memory && slot.entry == held[0].entry);
    CHECK(holds(&held[0], 0));
    shc_cells_finish(&ring, &held[0]);
    CHECK_OK(send(4, 1280));
    CHECK_OK(receive(3, 1280));
    CHECK_OK(receive(4, 1280));
    close_ring();
}

TEST(holds_are_limited)
{
    open_ring(8, 8, 64);
    for (unsigned i = 0; i < FIX_CELLS_HOLDS; i++)
        CHECK_OK(shc_cells_hold(&ring));
    CHECK_EQ(shc_cells_hold(&ring), SHC_E_LEASES);
    shc_cells_end_hold(&ring);
    CHECK_OK(shc_cells_hold(&ring));
    close_ring();
}

/* ---- peek and clear ---- */

TEST(peek_shows_the_oldest_and_says_when_it_has_gone)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_EQ(shc_cells_peek(&ring, &slot), SHC_EMPTY);
    CHECK_OK(send(7, 100));
    CHECK_OK(send(8, 10));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_OK(shc_cells_peek(&ring, &slot));
        CHECK_EQ(slot.length, 100);
        CHECK(holds(&slot, 7));
        CHECK(shc_cells_peeked(&slot));
    }
    CHECK_OK(receive(7, 100));
    CHECK(!shc_cells_peeked(&slot));
    CHECK_OK(shc_cells_peek(&ring, &slot));
    CHECK(holds(&slot, 8));
    CHECK_OK(receive(8, 10));
    CHECK_OK(shc_cells_claim(&ring, 3, &slot));
    shc_cells_slot_t writing = slot;
    CHECK_EQ(shc_cells_peek(&ring, &slot), SHC_BUSY);
    shc_cells_abort(&ring, &writing);
    CHECK_EQ(shc_cells_peek(&ring, &slot), SHC_EMPTY);
    close_ring();
}

static void
note_drop(void *arg, const shc_cells_slot_t *slot)
{
    *(uint64_t *)arg += slot->tag;
}

TEST(clear_drops_what_is_there_and_stops_at_what_is_being_written)
{
    shc_cells_slot_t slot;
    uint64_t sum = 0;
    open_ring(8, 8, 64);
    CHECK_EQ(shc_cells_clear(&ring, NULL, NULL), 0);
    CHECK_OK(send(1, 500));
    CHECK_OK(send(2, 0));
    CHECK_OK(shc_cells_claim(&ring, 3, &slot));
    CHECK_OK(send(4, 0));
    CHECK_EQ(shc_cells_clear(&ring, note_drop, &sum), 2);
    CHECK_EQ(sum, 3);
    shc_cells_send(&ring, &slot, 0, 3, 0);
    CHECK_EQ(shc_cells_clear(&ring, note_drop, &sum), 2);
    CHECK_EQ(sum, 10);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY);
    close_ring();
}

/* ---- shutdown ---- */

TEST(after_a_shutdown_nothing_is_sent_and_what_is_there_is_delivered)
{
    shc_cells_slot_t writing, slot;
    open_ring(4, 4, 64);
    CHECK_OK(send(1, 10));
    CHECK_OK(shc_cells_claim(&ring, 10, &writing));
    shc_cells_shutdown(&ring, false);
    CHECK_EQ(shc_cells_shutdown_flags(&ring), SHC_CELLS_SHUTDOWN);
    CHECK_EQ(send(3, 10), SHC_SHUTDOWN);
    CHECK_OK(receive(1, 10));
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY); /* that one was in time */
    fill(&writing, 2, 10);
    shc_cells_send(&ring, &writing, 10, 2, 0);
    CHECK_OK(receive(2, 10));
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_SHUTDOWN);
    CHECK_EQ(send(3, 10), SHC_SHUTDOWN);
    close_ring();
}

TEST(full_ring_that_is_shut_down_says_shutdown)
{
    open_ring(1, 1, 64);
    CHECK_OK(send(1, 10));
    CHECK_EQ(send(2, 10), SHC_FULL);
    shc_cells_shutdown(&ring, false);
    CHECK_EQ(send(2, 10), SHC_SHUTDOWN);
    CHECK_OK(receive(1, 10));
    close_ring();
}

TEST(immediate_shutdown_delivers_nothing_and_clear_still_works)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_OK(send(1, 10));
    CHECK_OK(send(2, 10));
    shc_cells_shutdown(&ring, true);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_SHUTDOWN);
    CHECK_EQ(send(3, 10), SHC_SHUTDOWN);
    CHECK_EQ(shc_cells_clear(&ring, NULL, NULL), 2);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_SHUTDOWN);
    close_ring();
}

/* ---- the dead ---- */

TEST(message_of_a_dead_sender_is_lost_once_and_counted)
{
    shc_cells_slot_t dead, slot;
    open_ring(4, 4, 64);
    (void)fix_plant_dead(&seg, 2, 7, SHC_PARTICIPANT_LIVE);
    CHECK_OK(shc_cells_claim(&ring, 300, &dead));
    CHECK_OK(send(1, 10));
    give_to(&dead, 2);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    CHECK_EQ(shc_cells_held_by(&ring, 2), 1);
    CHECK(shc_cells_unblock(&ring, &slot));
    CHECK_EQ(shc_cells_held_by(&ring, 2), 0);
    CHECK(shc_cells_unblock(&ring, &slot)); /* it has changed */
    CHECK_OK(receive(1, 10));
    shc_cells_counts_t n = shc_cells_count(&ring);
    CHECK_EQ(n.lost, 1);
    CHECK_EQ(n.sent, 2);
    CHECK_EQ(n.received, 1);
    close_ring();
}

TEST(living_owner_in_the_way_is_left_alone)
{
    shc_cells_slot_t living, slot;
    open_ring(1, 2, 64);
    (void)fix_plant_living(&seg, 2, 7, SHC_PARTICIPANT_LIVE);
    CHECK_OK(shc_cells_claim(&ring, 300, &living));
    give_to(&living, 2);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    CHECK(!shc_cells_unblock(&ring, &slot));
    CHECK_EQ(shc_cells_claim(&ring, 10, &slot), SHC_FULL);
    CHECK(!shc_cells_unblock(&ring, &slot));
    CHECK_EQ(shc_cells_held_by(&ring, 2), 1);
    shc_a64_store_relaxed(&seg.participants.slots[2].state, 0); /* else it keeps the name */
    close_ring();
}

TEST(message_of_a_dead_receiver_is_lost_and_its_memory_comes_back)
{
    shc_cells_slot_t dead, slot;
    open_ring(4, 4, 64);
    (void)fix_plant_dead(&seg, 2, 7, SHC_PARTICIPANT_LIVE);
    CHECK_OK(send(1, 2048));
    CHECK_OK(send(2, 2048));
    CHECK_OK(shc_cells_take(&ring, &dead));
    give_to(&dead, 2);
    CHECK_EQ(shc_cells_claim(&ring, 2048, &slot), SHC_FULL);
    CHECK(slot.entry == dead.entry);
    CHECK(shc_cells_unblock(&ring, &slot));
    CHECK_OK(send(3, 2048));
    CHECK_OK(receive(2, 2048));
    CHECK_OK(receive(3, 2048));
    CHECK_EQ(shc_cells_count(&ring).lost, 1);
    close_ring();
}

TEST(owner_that_is_nobody_counts_as_dead)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_OK(shc_cells_claim(&ring, 1, &slot));
    shc_a64_store_relaxed(&slot.entry->word, slot.word | SHC_CELLS_OWNER);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    CHECK(shc_cells_unblock(&ring, &slot));
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_EMPTY);
    close_ring();
}

TEST(sweep_takes_from_one_participant_only)
{
    shc_cells_slot_t claimed, taken, mine, slot;
    open_ring(8, 8, 64);
    (void)fix_plant_dead(&seg, 2, 7, SHC_PARTICIPANT_LIVE);
    CHECK_OK(send(1, 100));
    CHECK_OK(shc_cells_take(&ring, &taken));
    shc_cells_end_takes(&ring, &taken);
    CHECK_OK(shc_cells_claim(&ring, 100, &mine));
    CHECK_OK(shc_cells_claim(&ring, 100, &claimed));
    CHECK_OK(send(4, 1));
    give_to(&taken, 2);
    give_to(&claimed, 2);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_cells_held_by(&ring, 2), 0);
    CHECK_EQ(shc_cells_held_by(&ring, 0), 1);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
    fill(&mine, 2, 100);
    shc_cells_send(&ring, &mine, 100, 2, 0);
    CHECK_OK(receive(2, 100));
    CHECK_OK(receive(4, 1));
    CHECK_EQ(shc_cells_count(&ring).lost, 2);
    shc_cells_sweep(&ring, 0); /* nothing is left to sweep */
    CHECK_EQ(shc_cells_count(&ring).lost, 2);
    close_ring();
}

TEST(loss_is_counted_once_though_recl_was_not_moved)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    for (uint64_t i = 1; i <= 20; i++) {
        uint64_t recl = shc_a64_load_relaxed(&ring.shm->recl);
        CHECK_OK(shc_cells_claim(&ring, 1, &slot));
        give_to(&slot, 3);
        CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
        CHECK(shc_cells_unblock(&ring, &slot));
        shc_a64_store_relaxed(&ring.shm->recl, recl); /* as if killed between count and move */
        CHECK_EQ(shc_cells_count(&ring).lost, i);
        CHECK_OK(send(1, 1));
        CHECK_OK(receive(1, 1)); /* walks over it once more */
        CHECK_EQ(shc_cells_count(&ring).lost, i);
        CHECK_NE(shc_a64_load_relaxed(&ring.shm->recl), recl);
    }
    close_ring();
}

TEST(losses_are_counted_however_long_there_was_none)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    for (uint64_t k = 0; k < 9; k++) { /* the numbers go round twice */
        uint64_t lost = shc_a64_load_relaxed(&ring.shm->lost);
        age((UINT64_C(1) << 38) * k + 5, 0);
        shc_a64_store_relaxed(&ring.shm->lost, lost);
        CHECK_OK(send(1, 1));
        CHECK_OK(receive(1, 1));
        (void)shc_cells_count(&ring);
        CHECK_OK(shc_cells_claim(&ring, 1, &slot));
        give_to(&slot, 3);
        CHECK_EQ(shc_cells_take(&ring, &slot), SHC_BUSY);
        CHECK(shc_cells_unblock(&ring, &slot));
        CHECK_EQ(shc_cells_count(&ring).lost, k + 1);
    }
    close_ring();
}

TEST(count_of_losses_sticks_at_its_end)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    shc_a64_store_relaxed(&ring.shm->aborted, (UINT64_C(0) - ONE) | (0xffffff - 1));
    for (unsigned i = 0; i < 3; i++) {
        CHECK_OK(shc_cells_claim(&ring, 1, &slot));
        shc_cells_abort(&ring, &slot);
    }
    CHECK_OK(send(1, 1));
    CHECK_OK(receive(1, 1));
    CHECK_EQ(shc_cells_count(&ring).aborted, 0xffffff);
    close_ring();
}

/* ---- counts and walks ---- */

static void
note_state(void *arg, const shc_cells_slot_t *slot)
{
    uint64_t *states = arg;
    states[shc_cells_state(slot->word) >> 21]++;
}

TEST(counts_and_walk_see_every_state)
{
    shc_cells_slot_t reading, writing;
    uint64_t states[8] = {0};
    open_ring(16, 16, 64);
    for (uint64_t i = 0; i < 6; i++)
        CHECK_OK(send(i, 60));
    CHECK_OK(receive(0, 60));
    CHECK_OK(shc_cells_take(&ring, &reading));
    shc_cells_end_takes(&ring, &reading);
    CHECK_OK(receive(2, 60));
    CHECK_OK(shc_cells_claim(&ring, 1, &writing));
    shc_cells_counts_t n = shc_cells_count(&ring);
    CHECK_EQ(n.sent, 6);
    CHECK_EQ(n.received, 2);
    CHECK_EQ(n.held, 1);
    CHECK_EQ(n.ready, 3);
    CHECK_EQ(n.writing, 1);
    CHECK_EQ(n.lost + n.aborted, 0);
    shc_cells_walk(&ring, note_state, states);
    CHECK_EQ(states[3], 1);
    CHECK_EQ(states[4], 3);
    CHECK_EQ(states[5], 1);
    CHECK_EQ(states[0] + states[1] + states[2], 0);
    shc_cells_finish(&ring, &reading);
    shc_cells_abort(&ring, &writing);
    CHECK_EQ(shc_cells_clear(&ring, NULL, NULL), 3);
    close_ring();
}

/* ---- waking ---- */

static bool
has_sleepers(const shc_event_shm_t *event)
{
    return (shc_a32_load_relaxed(&event->word) & SHC_EVENT_SLEEPERS) != 0;
}

TEST(send_and_finish_wake_sleepers)
{
    open_ring(4, 4, 64);
    (void)shc_event_prepare(&ring.shm->items);
    CHECK_OK(send(1, 1));
    CHECK(!has_sleepers(&ring.shm->items));
    (void)shc_event_prepare(&ring.shm->space);
    CHECK_OK(receive(1, 1));
    CHECK(!has_sleepers(&ring.shm->space));
    close_ring();
}

TEST(senders_sleep_where_what_they_lack_is_given_back)
{
    shc_cells_slot_t slot;
    open_ring(3, 4, 64);
    CHECK_OK(send(1, 0));
    CHECK_OK(send(2, 2048));
    CHECK_OK(send(3, 2048));
    CHECK_EQ(shc_cells_claim(&ring, 2048, &slot), SHC_FULL);
    CHECK(shc_cells_space_event(&ring, &slot) == &ring.shm->space);
    CHECK_OK(receive(1, 0));
    CHECK_EQ(shc_cells_claim(&ring, 2048, &slot), SHC_FULL);
    CHECK(shc_cells_space_event(&ring, &slot) == &ring.shm->memory);
    (void)shc_event_prepare(&ring.shm->memory);
    CHECK_OK(receive(2, 2048));
    CHECK(!has_sleepers(&ring.shm->memory));
    close_ring();
}

TEST(abort_unblock_clear_and_shutdown_wake_both_sides)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    for (unsigned way = 0; way < 4; way++) {
        CHECK_OK(shc_cells_claim(&ring, 1, &slot));
        shc_cells_end_claims(&ring, &slot);
        (void)shc_event_prepare(&ring.shm->items);
        (void)shc_event_prepare(&ring.shm->space);
        (void)shc_event_prepare(&ring.shm->memory);
        if (way == 0)
            shc_cells_abort(&ring, &slot);
        if (way == 1 || way == 2)
            give_to(&slot, 3);
        slot.word = shc_a64_load_relaxed(&slot.entry->word);
        if (way == 1)
            CHECK(shc_cells_unblock(&ring, &slot));
        if (way == 2)
            shc_cells_sweep(&ring, 3);
        if (way == 3)
            shc_cells_shutdown(&ring, false);
        CHECK(!has_sleepers(&ring.shm->items));
        CHECK(!has_sleepers(&ring.shm->space));
        CHECK(!has_sleepers(&ring.shm->memory));
        if (way == 3)
            shc_cells_abort(&ring, &slot);
    }
    close_ring();
}

/* ---- geometry ---- */

TEST(impossible_geometries_are_refused)
{
    static const uint64_t bad[][3] = {
        {0, 4, 64},          {5, 4, 64},
        {4, 6, 64},          {4, 4, 96},
        {4, 4, 32},          {4, 4, SHC_CELLS_CELLS_MAX * 2},
        {4, 0, 64},          {SHC_CELLS_CAPACITY_MAX + 1, SHC_CELLS_CAPACITY_MAX * 2, 64},
        {4, UINT64_MAX, 64}, {4, SHC_CELLS_CAPACITY_MAX * 4, 64},
        {UINT64_MAX, 4, 64},
    };
    shc_cells_geometry_t g;
    for (unsigned i = 0; i < SHC_ARRAY_SIZE(bad); i++) {
        g = (shc_cells_geometry_t){.capacity = bad[i][0], .entries = bad[i][1], .cells = bad[i][2]};
        CHECK_EQ(shc_cells_lay_out(&g), -EINVAL);
    }
    g = (shc_cells_geometry_t){.capacity = 100, .entries = 128, .cells = 1024};
    CHECK_OK(shc_cells_lay_out(&g));
    CHECK_EQ(g.size, sizeof(shc_cells_shm_t) + 128 * 64 + 1024 * 64);
}

TEST(geometry_survives_its_config_words)
{
    shc_cells_geometry_t g = {.capacity = SHC_CELLS_CAPACITY_MAX,
                              .entries = 2 * SHC_CELLS_CAPACITY_MAX,
                              .cells = SHC_CELLS_CELLS_MAX},
                         back;
    uint64_t config[SHC_CELLS_CONFIG_WORDS];
    CHECK_OK(shc_cells_lay_out(&g));
    shc_cells_to_config(&g, config);
    CHECK_OK(shc_cells_from_config(config, &back));
    CHECK_MEM(&g, &back, sizeof g);
    config[0] = 0;
    CHECK_EQ(shc_cells_from_config(config, &back), SHC_E_CORRUPT);
}

/* ---- words that no correct process writes ---- */

TEST(count_of_cells_beyond_all_is_corrupt)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_OK(send(1, 1));
    shc_a64_store_relaxed(&ring.entries[0].word, word_at(0) | UINT64_C(0x3ff) << 11);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_E_CORRUPT);
    CHECK_EQ(shc_cells_peek(&ring, &slot), SHC_E_CORRUPT);
    CHECK_EQ(shc_cells_check(&ring), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&ring.entries[0].word, word_at(0) & ~(UINT64_C(0x3ff) << 11));
    CHECK_OK(receive(1, 1));
    close_ring();
}

TEST(length_beyond_the_room_is_corrupt_and_the_rest_arrives)
{
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    CHECK_OK(send(1, 1));
    CHECK_OK(send(2, 2));
    shc_a64_store_relaxed(&ring.entries[0].meta, 49);
    CHECK_EQ(shc_cells_peek(&ring, &slot), SHC_E_CORRUPT);
    CHECK_EQ(shc_cells_take(&ring, &slot), SHC_E_CORRUPT);
    CHECK_OK(receive(2, 2));
    close_ring();
}

TEST(nonsense_in_head_and_tail_ends_every_call)
{
    static const uint64_t odd[] = {1, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(0xdeadbeef) << 24, ONE, 63};
    shc_cells_slot_t slot;
    open_ring(4, 4, 64);
    for (unsigned i = 0; i < SHC_ARRAY_SIZE(odd); i++)
        for (unsigned which = 0; which < 3; which++) {
            shc_a64_t *words[] = {&ring.shm->tail, &ring.shm->head, &ring.shm->recl};
            shc_a64_store_relaxed(words[which], odd[i]);
            (void)!shc_cells_claim(&ring, 100, &slot);
            (void)!shc_cells_take(&ring, &slot);
            (void)!shc_cells_peek(&ring, &slot);
            (void)shc_cells_clear(&ring, NULL, NULL);
            (void)shc_cells_count(&ring);
            (void)shc_cells_length(&ring);
            (void)!shc_cells_check(&ring);
            age(0, 0);
        }
    close_ring();
}

TEST(check_finds_each_damage)
{
    shc_cells_slot_t slot;
    open_ring(4, 8, 64);
    CHECK_OK(send(1, 100));
    CHECK_OK(send(2, 10));
    CHECK_OK(shc_cells_claim(&ring, 10, &slot));
    shc_cells_end_claims(&ring, &slot);
    CHECK_OK(shc_cells_check(&ring));
    struct {
        shc_a64_t *word;
        uint64_t value;
    } damages[] = {
        {&ring.shm->tail, shc_a64_load_relaxed(&ring.shm->tail) + 1},
        {&ring.shm->tail, shc_a64_load_relaxed(&ring.shm->tail) + ONE},
        {&ring.shm->tail, shc_a64_load_relaxed(&ring.shm->tail) - 9 * ONE},
        {&ring.shm->head, ONE},
        {&ring.shm->head, ONE * 9},
        {&ring.shm->recl, 5},
        {&ring.shm->recl, 9 * ONE},
        {&ring.shm->lost, 0},
        {&ring.shm->aborted, 7 * ONE},
        {&ring.entries[0].word, word_at(0) | SHC_CELLS_STATE},
        {&ring.entries[0].word, (word_at(0) & ~SHC_CELLS_STATE) | SHC_CELLS_TAKEN},
        {&ring.entries[0].word, word_at(0) & ~SHC_CELLS_OWNER},
        {&ring.entries[0].word, word_at(0) | SHC_CELLS_OWNER},
        {&ring.entries[1].word, word_at(ONE) + ONE},
        {&ring.entries[5].word, word_at(5 * ONE) + ONE},
        {&ring.entries[5].word, word_at(5 * ONE) | SHC_CELLS_READY},
    };
    damages[7].value = 3 * ONE;
    for (unsigned i = 0; i < SHC_ARRAY_SIZE(damages); i++) {
        uint64_t sound = shc_a64_load_relaxed(damages[i].word);
        shc_a64_store_relaxed(damages[i].word, damages[i].value);
        if (i == 10) /* what is taken lies before head */
            CHECK_OK(shc_cells_check(&ring));
        else
            CHECK_EQ(shc_cells_check(&ring), SHC_E_CORRUPT);
        shc_a64_store_relaxed(damages[i].word, sound);
        CHECK_OK(shc_cells_check(&ring));
    }
    shc_cells_abort(&ring, &slot);
    close_ring();
}

/* ---- beside a scribbler ---- */

typedef struct scribbler {
    shc_cells_t ring; /* its own handle */
    uint64_t rng;
    shc_a32_t is_over;
} scribbler_t;

static void *
scribble(void *arg)
{
    scribbler_t *s = arg;
    shc_cells_t *its = &s->ring;
    while (shc_a32_load_relaxed(&s->is_over) == 0) {
        uint64_t dice = t_random(&s->rng);
        shc_cells_entry_shm_t *entry = &its->entries[dice & its->entry_mask];
        shc_a64_t *words[] = {&its->shm->tail, &its->shm->head, &its->shm->recl, &its->shm->lost,
                              &entry->word,    &entry->meta,    &entry->word,    &entry->word};
        shc_a64_t *word = words[dice >> 40 & 7];
        uint64_t old = shc_a64_load_relaxed(word), odd[] = {old + ONE, old - ONE, old ^ (dice & 0xffffff), dice};
        shc_a64_store_relaxed(word, odd[dice >> 50 & 3]);
        if (dice >> 60 == 0)
            shc_os_yield();
    }
    return NULL;
}

static void
try_everything(uint64_t dice)
{
    shc_cells_slot_t slot = {.entry = ring.entries}, next;
    const uint8_t *begin = (const uint8_t *)ring.entries, *end = ring.cells + 64 * 64;
    int r = dice % 2 ? shc_cells_claim(&ring, dice >> 8 & 0x7ff, &slot) : shc_cells_take(&ring, &slot);
    if (r != 0) {
        (void)!shc_cells_unblock(&ring, &slot);
        (void)shc_cells_clear(&ring, NULL, NULL);
        (void)!shc_cells_peek(&ring, &slot);
        (void)shc_cells_count(&ring);
        (void)!shc_cells_check(&ring);
        shc_cells_sweep(&ring, (uint32_t)(dice >> 8) % 4);
        return;
    }
    CHECK(slot.payload >= begin && slot.payload + slot.room <= end);
    if (dice % 2 == 0) {
        CHECK_LE(slot.length, slot.room);
        shc_cells_finish(&ring, &slot);
        return;
    }
    if (shc_cells_claim_next(&ring, &slot, 100, &next) == 0)
        shc_cells_abort(&ring, &next);
    shc_cells_send(&ring, &slot, slot.room, 0, 0);
}

TEST_LIMIT(everything_ends_and_stays_inside_beside_a_scribbler, 60)
{
    uint64_t seed = t_seed();
    static scribbler_t scribbler;
    pthread_t thread;
    open_ring(11, 16, 64);
    scribbler.rng = t_random(&seed);
    fix_cells_open(&scribbler.ring, &seg);
    CHECK_EQ(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    for (uint64_t i = 0, n = t_scaled(60000); i < n; i++) {
        try_everything(t_random(&seed));
        if (i % 64 == 0)
            age(i, i);
    }
    shc_a32_store_relaxed(&scribbler.is_over, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    age(0, 0);
    CHECK_OK(send(1, 100));
    CHECK_OK(receive(1, 100));
    close_ring();
}
