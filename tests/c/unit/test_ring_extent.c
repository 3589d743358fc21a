/* Large messages of a ring: whose their memory is from the sender's claim to the receiver's release, in whatever order
 * the two come, go and die; and what a forger may write. */
#include "ds/shc_ring_extent.h"

#include <errno.h>
#include <unistd.h>

#include "seg/shc_arena_internal.h"
#include "support/scratch.h"
#include "support/segfix.h"
#include "t.h"

#define NAME "r"
#define BYTES SHC_RING_DATA_BYTES_MIN
#define UNITS (BYTES / 8)
#define CAPACITY 40u
#define PAGE (UINT64_C(1) << SHC_EXTENT_PAGE_SHIFT)
#define PAGES 16u

/* A process, as far as the segment can tell. */
typedef struct party {
    shc_seg_t seg;
    shc_ring_t ring;
    shc_arena_t arena;
} party_t;

/* `a` made the segment and is never killed. */
static party_t a, b, c;

static void
open_party(party_t *p)
{
    shc_ring_open(&p->ring, &p->seg);
    CHECK(p->ring.has_extents);
    shc_ring_extents_open(&p->arena, &p->seg);
}

static int
create_with(uint64_t pages)
{
    shc_seg_create_args_t args = fix_ring_extent_args(CAPACITY, BYTES, pages);
    int r = fix_create_with(NAME, &shc_ring_spec, &args, &a.seg);
    if (r == 0)
        open_party(&a);
    return r;
}

static void
set_up(void)
{
    fix_open();
    CHECK_OK(create_with(PAGES));
}

static void
join(party_t *p)
{
    CHECK_OK(fix_attach(NAME, &shc_ring_spec, &p->seg));
    open_party(p);
}

static void
take(party_t *p, int end)
{
    int r = shc_ring_take(&p->ring, end);
    CHECK(r == 0 || r == SHC_OWNER_DIED);
}

/* One process at both ends. */
static void
set_up_alone(void)
{
    set_up();
    take(&a, SHC_RING_PRODUCER);
    take(&a, SHC_RING_CONSUMER);
}

/* `from` sends and `to` receives. */
static void
set_up_pair(party_t *from, party_t *to)
{
    set_up();
    if (from != &a)
        join(from);
    if (to != &a && to != from)
        join(to);
    take(from, SHC_RING_PRODUCER);
    take(to, SHC_RING_CONSUMER);
}

static void
leave(party_t *p)
{
    for (int end = SHC_RING_PRODUCER; end <= SHC_RING_CONSUMER; end++)
        shc_ring_drop(&p->ring, end);
    shc_ring_extents_leave(&p->ring, &p->arena);
    CHECK(!shc_arena_names(&p->arena, p->seg.index));
    fix_leave(&p->seg, NAME);
}

/* It is dead, and its slot says so; whoever reaps sweeps. Returns its index. */
static uint32_t
kill_party(party_t *p)
{
    fix_plant_dead(&p->seg, p->seg.index, p->seg.generation, SHC_PARTICIPANT_LIVE);
    shc_seg_unmap(&p->seg);
    return p->seg.index;
}

static void
reap(uint32_t index)
{
    CHECK_EQ(shc_seg_reap_participants(&a.seg), 1);
    CHECK(!shc_arena_names(&a.arena, index));
    CHECK_OK(shc_arena_check(&a.arena));
}

/* Nothing may be left on its way. */
static void
tear_down(void)
{
    CHECK_OK(shc_ring_check(&a.ring));
    CHECK_OK(shc_arena_check(&a.arena));
    CHECK(!shc_arena_is_used(&a.arena));
    leave(&a);
    fix_close();
}

/* ---- a message is its number over and over ---- */

static void
fill(uint8_t *dst, uint32_t number, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        dst[i] = (uint8_t)(number * 31 + i % 251);
}

static void
check_bytes(const uint8_t *src, uint32_t number, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        if (src[i] != (uint8_t)(number * 31 + i % 251))
            CHECK_EQ(i, length);
}

static int
stage_large(party_t *p, uint32_t number, uint64_t length, shc_ref_t *ref)
{
    shc_extent_t extent;
    int r = shc_ring_claim_extent(&p->ring, &p->arena, length, &extent);
    if (r != 0)
        return r;
    CHECK_GE(extent.length, length);
    CHECK_EQ(extent.length % PAGE, 0);
    fill(extent.memory, number, length);
    shc_ring_stage_extent(&p->ring, &extent, length, (uint8_t)(number & 0x7f));
    if (ref != NULL)
        *ref = extent.ref;
    return 0;
}

static int
send_large(party_t *p, uint32_t number, uint64_t length)
{
    int r = stage_large(p, number, length, NULL);
    if (r == 0)
        shc_ring_publish(&p->ring);
    return r;
}

static int
send_small(party_t *p, uint32_t number, uint64_t length)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(&p->ring, length, &dst, &room);
    if (r != 0)
        return r;
    fill(dst, number, length);
    shc_ring_stage(&p->ring, (uint32_t)length, (uint8_t)(number & 0x7f));
    shc_ring_publish(&p->ring);
    return 0;
}

/* The front message is large, and its bytes are right. */
static shc_ref_t
look_at_large(party_t *p, uint32_t number, uint64_t length, shc_ring_message_t *msg)
{
    shc_extent_t extent;
    CHECK_OK(shc_ring_front(&p->ring, msg));
    CHECK(!shc_ring_is_gone(&p->ring, &p->arena, msg));
    CHECK_EQ(msg->tag, (number & 0x7f) | SHC_EXTENT_TAG);
    CHECK_OK(shc_extent_read(&p->arena, msg->payload, msg->length, &extent));
    CHECK_EQ(extent.length, length);
    check_bytes(extent.memory, number, length);
    return extent.ref;
}

/* Takes it, and keeps its memory. */
static shc_ref_t
take_large(party_t *p, uint32_t number, uint64_t length)
{
    shc_ring_message_t msg;
    shc_ref_t ref = look_at_large(p, number, length, &msg);
    CHECK_OK(shc_arena_adopt(&p->arena, ref));
    shc_ring_consume(&p->ring, &msg);
    shc_ring_give_back(&p->ring);
    return ref;
}

static void
receive_large(party_t *p, uint32_t number, uint64_t length)
{
    CHECK_OK(shc_arena_release(&p->arena, take_large(p, number, length)));
}

static void
receive_small(party_t *p, uint32_t number, uint64_t length)
{
    shc_ring_message_t msg;
    CHECK_OK(shc_ring_front(&p->ring, &msg));
    CHECK_EQ(msg.tag, number & 0x7f);
    CHECK_EQ(msg.length, length);
    check_bytes(msg.payload, number, length);
    shc_ring_consume(&p->ring, &msg);
    shc_ring_give_back(&p->ring);
}

static int
front(party_t *p)
{
    shc_ring_message_t msg;
    return shc_ring_front(&p->ring, &msg);
}

static uint64_t
used(void)
{
    shc_arena_stats_t s;
    CHECK_OK(shc_arena_stats(&a.arena, &s));
    return s.bytes_used;
}

/* ---- to and fro ---- */

TEST(what_was_sent_is_received_and_its_memory_comes_back)
{
    static const uint64_t lengths[] = {0, 1, 4095, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE - 7, PAGES * PAGE};
    set_up_pair(&a, &b);
    for (uint32_t i = 0; i < SHC_ARRAY_SIZE(lengths); i++) {
        CHECK_OK(send_large(&a, i, lengths[i]));
        CHECK_EQ(used(), (lengths[i] <= PAGE ? 1 : (lengths[i] + PAGE - 1) / PAGE) * PAGE);
        receive_large(&b, i, lengths[i]);
        CHECK_EQ(front(&b), SHC_EMPTY);
        CHECK_EQ(used(), 0);
    }
    CHECK_EQ(b.arena.outstanding, 0);
    leave(&b);
    tear_down();
}

TEST(one_process_may_be_at_both_ends)
{
    set_up_alone();
    for (uint32_t i = 0; i < 20; i++) {
        CHECK_OK(send_large(&a, i, 3 * PAGE));
        receive_large(&a, i, 3 * PAGE);
    }
    CHECK_EQ(a.arena.outstanding, 0);
    tear_down();
}

TEST(small_and_large_ones_keep_their_order_and_go_in_one_batch)
{
    set_up_pair(&a, &b);
    for (uint32_t i = 0; i < 50; i++) {
        CHECK_OK(send_small(&a, i, 40));
        CHECK_OK(stage_large(&a, i + 1, PAGE + i, NULL));
        CHECK_OK(stage_large(&a, i + 2, 2 * PAGE, NULL));
        receive_small(&b, i, 40);
        CHECK_EQ(front(&b), SHC_EMPTY);
        shc_ring_publish(&a.ring);
        receive_large(&b, i + 1, PAGE + i);
        receive_large(&b, i + 2, 2 * PAGE);
    }
    leave(&b);
    tear_down();
}

TEST(what_is_held_stays_as_it_is_whatever_comes_and_goes_behind_it)
{
    enum {
        N = 5
    };
    static const uint32_t order[N] = {3, 0, 4, 1, 2};
    shc_ref_t held[N];
    set_up_pair(&a, &b);
    for (uint32_t i = 0; i < N; i++)
        CHECK_OK(send_large(&a, i, PAGE + 1 + 100 * i));
    for (uint32_t i = 0; i < N; i++)
        held[i] = take_large(&b, i, PAGE + 1 + 100 * i);
    for (uint32_t i = 0; i < 300; i++) { /* the ring goes round, and so does the memory that is left */
        CHECK_OK(send_large(&a, i, 3 * PAGE));
        receive_large(&b, i, 3 * PAGE);
    }
    for (uint32_t i = 0; i < N; i++) {
        check_bytes(shc_arena_at(&b.arena, held[order[i]]), order[i], PAGE + 1 + 100 * order[i]);
        CHECK_OK(shc_arena_release(&b.arena, held[order[i]]));
        CHECK_EQ(used(), (N - 1 - i) * 2 * PAGE);
        CHECK_EQ(shc_arena_release(&b.arena, held[order[i]]), SHC_E_STALE);
    }
    leave(&b);
    tear_down();
}

TEST(what_was_claimed_and_is_not_sent_is_given_back)
{
    shc_extent_t extent;
    set_up_alone();
    CHECK_OK(shc_ring_claim_extent(&a.ring, &a.arena, 3 * PAGE, &extent));
    CHECK_OK(shc_arena_release(&a.arena, extent.ref));
    CHECK_EQ(front(&a), SHC_EMPTY);
    CHECK_OK(send_small(&a, 1, 8));
    receive_small(&a, 1, 8);
    CHECK_EQ(a.arena.outstanding, 0);
    tear_down();
}

/* ---- no room ---- */

TEST(a_full_arena_is_a_full_ring_until_something_comes_back)
{
    shc_ref_t held[PAGES / 4];
    set_up_pair(&a, &b);
    for (uint32_t i = 0; i < PAGES / 4; i++) {
        CHECK_OK(send_large(&a, i, 4 * PAGE));
        held[i] = take_large(&b, i, 4 * PAGE);
    }
    for (uint32_t i = 0; i < PAGES / 4; i++) {
        CHECK_EQ(send_large(&a, i, 4 * PAGE), SHC_FULL);
        CHECK_OK(send_small(&a, i, 8)); /* the ring has room */
        receive_small(&b, i, 8);
        CHECK_OK(shc_arena_release(&b.arena, held[i]));
        CHECK_OK(send_large(&a, i, 4 * PAGE));
        held[i] = take_large(&b, i, 4 * PAGE);
    }
    for (uint32_t i = 0; i < PAGES / 4; i++)
        CHECK_OK(shc_arena_release(&b.arena, held[i]));
    leave(&b);
    tear_down();
}

/* Else it would be taken for a change all the time. */
TEST(who_waits_for_memory_watches_the_head_as_it_is)
{
    set_up_alone();
    for (uint32_t i = 0; i < 10; i++) {
        CHECK_OK(send_small(&a, i, 8));
        receive_small(&a, i, 8);
    }
    CHECK_OK(send_large(&a, 1, PAGES * PAGE));
    shc_ref_t ref = take_large(&a, 1, PAGES * PAGE);
    CHECK_EQ(send_large(&a, 2, PAGE), SHC_FULL);
    CHECK_EQ(a.ring.send_watch.seen, shc_a64_load_relaxed(a.ring.send_watch.word));
    CHECK_OK(shc_arena_release(&a.arena, ref));
    tear_down();
}

TEST(a_full_ring_takes_no_memory)
{
    set_up_alone();
    for (uint32_t i = 0; i < CAPACITY; i++)
        CHECK_OK(send_small(&a, i, 8));
    CHECK_EQ(send_large(&a, 1, PAGE), SHC_FULL);
    CHECK_EQ(a.arena.outstanding, 0);
    CHECK(shc_arena_is_fresh(&a.arena));
    shc_ring_shutdown(&a.ring, false);
    CHECK_EQ(send_large(&a, 1, PAGE), SHC_SHUTDOWN);
    CHECK_EQ(a.arena.outstanding, 0);
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    tear_down();
}

TEST(the_largest_message_is_the_whole_arena_once_nothing_is_in_use)
{
    enum {
        N = 6
    };
    uint64_t seed = t_seed();
    set_up_alone();
    CHECK_EQ(send_large(&a, 1, PAGES * PAGE + 1), SHC_E_TOO_LARGE);
    CHECK_EQ(send_large(&a, 1, UINT64_MAX), SHC_E_TOO_LARGE);
    for (uint32_t round = 0; round < 20; round++) {
        shc_ref_t held[N];
        for (uint32_t i = 0; i < N; i++) { /* 12 pages at most, cut as they come */
            uint64_t length = t_random(&seed) % (2 * PAGE + 1);
            CHECK_OK(send_large(&a, i, length));
            held[i] = take_large(&a, i, length);
        }
        CHECK_EQ(send_large(&a, 1, PAGES * PAGE), SHC_FULL);
        for (uint32_t i = 0; i < N; i++) {
            CHECK_OK(shc_arena_release(&a.arena, held[i]));
            if (round % 3 == 0) /* holes between what is free */
                (void)shc_arena_cleanup(&a.arena, 2 * PAGE);
        }
        CHECK_OK(send_large(&a, 1, PAGES * PAGE));
        receive_large(&a, 1, PAGES * PAGE);
    }
    tear_down();
}

#ifndef SHC_OS_POSIX
/* What else is in use may come back; if nothing is, there never is more. */
TEST(a_full_file_system_is_a_full_ring_while_something_is_in_use)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=1m"))
        T_SKIP("no mount namespaces here");
    fix.dir_fd = s.fd;
    CHECK_OK(shc_self_init(&fix.self));
    CHECK_OK(create_with(64));
    take(&a, SHC_RING_PRODUCER);
    take(&a, SHC_RING_CONSUMER);
    CHECK_EQ(send_large(&a, 0, 30 * PAGE), -ENOSPC);
    CHECK_EQ(a.arena.outstanding, 0);
    CHECK_OK(send_large(&a, 1, 8 * PAGE));
    CHECK_EQ(send_large(&a, 2, 8 * PAGE), SHC_FULL);
    shc_ref_t ref = take_large(&a, 1, 8 * PAGE);
    CHECK_EQ(send_large(&a, 2, 8 * PAGE), SHC_FULL);
    CHECK_OK(shc_arena_release(&a.arena, ref));
    CHECK_OK(send_large(&a, 2, 8 * PAGE));
    receive_large(&a, 2, 8 * PAGE);
    CHECK_EQ(send_large(&a, 0, 30 * PAGE), -ENOSPC);
    CHECK_OK(send_small(&a, 3, 8));
    receive_small(&a, 3, 8);
    CHECK_EQ(a.arena.outstanding, 0);
    leave(&a);
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}
#endif

TEST(what_a_dead_one_held_is_there_for_whoever_finds_no_memory)
{
    set_up_pair(&a, &b);
    CHECK_OK(send_large(&a, 1, PAGES * PAGE));
    (void)take_large(&b, 1, PAGES * PAGE);
    CHECK_EQ(send_large(&a, 2, PAGE), SHC_FULL);
    uint32_t index = kill_party(&b);
    CHECK_OK(send_large(&a, 2, PAGES * PAGE));
    CHECK(!shc_arena_names(&a.arena, index));
    take(&a, SHC_RING_CONSUMER);
    receive_large(&a, 2, PAGES * PAGE);
    tear_down();
}

/* ---- clear ---- */

TEST(clear_frees_what_it_forgets_and_nothing_else)
{
    set_up_pair(&a, &b);
    CHECK_OK(send_large(&a, 0, 2 * PAGE));
    shc_ref_t held = take_large(&b, 0, 2 * PAGE);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_OK(send_small(&a, i, 30));
        CHECK_OK(send_large(&a, i, PAGE));
    }
    shc_extent_t extent;
    CHECK_OK(shc_ring_claim_extent(&a.ring, &a.arena, PAGE, &extent)); /* not sent yet */
    CHECK_OK(shc_ring_clear_extents(&b.ring, &b.arena));
    CHECK_EQ(front(&b), SHC_EMPTY);
    CHECK_EQ(used(), 3 * PAGE);
    CHECK_OK(shc_arena_release(&a.arena, extent.ref));
    check_bytes(shc_arena_at(&b.arena, held), 0, 2 * PAGE);
    CHECK_OK(shc_arena_release(&b.arena, held));
    CHECK_EQ(b.arena.outstanding, 0);
    CHECK_OK(shc_ring_clear_extents(&b.ring, &b.arena)); /* an empty one */
    leave(&b);
    tear_down();
}

TEST(clear_behind_a_hold_frees_memory_and_the_record_comes_with_the_hold)
{
    shc_ring_message_t msg;
    uint32_t hold;
    set_up_alone();
    CHECK_OK(send_small(&a, 1, 30));
    CHECK_OK(send_large(&a, 2, PAGE));
    CHECK_OK(shc_ring_front(&a.ring, &msg));
    CHECK_OK(shc_ring_hold(&a.ring, &msg, &hold));
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    CHECK_EQ(used(), 0);
    CHECK_EQ(shc_ring_held(&a.ring), 2);
    check_bytes(msg.payload, 1, 30);
    shc_ring_mark_released(&a.ring, hold);
    CHECK(shc_ring_settle_holds(&a.ring));
    CHECK_EQ(shc_ring_held(&a.ring), 0);
    tear_down();
}

TEST(clear_forgets_what_would_not_be_delivered_any_more)
{
    for (int fresh = 0; fresh < 2; fresh++) {
        set_up_alone();
        CHECK_OK(send_small(&a, 1, 30));
        if (!fresh)
            CHECK_OK(send_large(&a, 2, PAGE));
        shc_ring_shutdown(&a.ring, true);
        CHECK_EQ(front(&a), SHC_SHUTDOWN);
        CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
        uint64_t messages, bytes;
        shc_ring_backlog(&a.ring, &messages, &bytes);
        CHECK_EQ(messages, 0);
        tear_down();
    }
}

TEST(clear_goes_past_a_record_that_cannot_be)
{
    set_up_alone();
    CHECK_OK(send_large(&a, 1, PAGE));
    uint64_t second = a.ring.tail.position;
    CHECK_OK(send_small(&a, 2, 30));
    CHECK_OK(send_small(&a, 3, 30));
    memset(shc_ring_record_at(&a.ring, second), 0xee, 8);
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    CHECK_EQ(front(&a), SHC_EMPTY);
    CHECK_OK(send_large(&a, 4, PAGE));
    receive_large(&a, 4, PAGE);
    tear_down();
}

/* ---- who leaves ---- */

TEST(what_was_sent_outlives_the_senders_leaving)
{
    shc_extent_t extent;
    set_up_pair(&b, &a);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(send_large(&b, i, PAGE + i));
    receive_large(&a, 0, PAGE);
    shc_ref_t held = take_large(&a, 1, PAGE + 1);
    CHECK_OK(shc_ring_claim_extent(&b.ring, &b.arena, PAGE, &extent)); /* and is never sent */
    leave(&b);
    CHECK_EQ(used(), 6 * PAGE);
    join(&c);
    take(&c, SHC_RING_PRODUCER);
    CHECK_EQ(c.seg.index, b.seg.index); /* the same name, another process */
    CHECK_OK(send_large(&c, 4, 3 * PAGE));
    receive_large(&a, 2, PAGE + 2);
    receive_large(&a, 3, PAGE + 3);
    receive_large(&a, 4, 3 * PAGE);
    check_bytes(shc_arena_at(&a.arena, held), 1, PAGE + 1);
    CHECK_OK(shc_arena_release(&a.arena, held));
    leave(&c);
    tear_down();
}

TEST(who_leaves_gives_back_what_it_received)
{
    set_up_pair(&a, &b);
    CHECK_OK(send_large(&a, 1, PAGE));
    CHECK_OK(send_large(&a, 2, 2 * PAGE));
    (void)take_large(&b, 1, PAGE);
    leave(&b);
    CHECK_EQ(used(), 2 * PAGE);
    take(&a, SHC_RING_CONSUMER);
    receive_large(&a, 2, 2 * PAGE);
    tear_down();
}

/* A ring that is kept when nobody uses it keeps its messages. */
TEST(messages_wait_in_a_persistent_ring_for_the_next_process)
{
    fix_open();
    shc_seg_create_args_t args = fix_ring_extent_args(CAPACITY, BYTES, PAGES);
    args.persist = true;
    CHECK_OK(fix_create_with(NAME, &shc_ring_spec, &args, &a.seg));
    open_party(&a);
    take(&a, SHC_RING_PRODUCER);
    CHECK_OK(send_large(&a, 1, 3 * PAGE));
    CHECK_OK(send_large(&a, 2, PAGE));
    leave(&a);
    CHECK(fix_exists(NAME));
    join(&a);
    take(&a, SHC_RING_CONSUMER);
    receive_large(&a, 1, 3 * PAGE);
    receive_large(&a, 2, PAGE);
    CHECK_OK(shc_seg_unlink(&a.seg, fix.dir_fd, NAME));
    tear_down();
}

/* ---- who is killed ---- */

enum {
    CLAIMED,
    STAGED,
    PUBLISHED,
    RECEIVED,
    SENDER_STAGES
};

TEST(a_sender_killed_at_any_stage_leaves_what_it_had_published)
{
    for (int stage = CLAIMED; stage < SENDER_STAGES; stage++) {
        shc_extent_t extent;
        shc_ref_t held = SHC_ARENA_NOTHING;
        set_up_pair(&b, &a);
        CHECK_OK(send_large(&b, 1, 2 * PAGE)); /* and one that is on its way whatever happens */
        if (stage == CLAIMED)
            CHECK_OK(shc_ring_claim_extent(&b.ring, &b.arena, PAGE, &extent));
        else
            CHECK_OK(stage_large(&b, 2, PAGE, NULL));
        if (stage >= PUBLISHED)
            shc_ring_publish(&b.ring);
        if (stage == RECEIVED)
            held = take_large(&a, 1, 2 * PAGE);
        reap(kill_party(&b));
        CHECK_EQ(used(), (stage >= PUBLISHED ? 3 : 2) * PAGE);
        if (stage == RECEIVED)
            CHECK_OK(shc_arena_release(&a.arena, held));
        else
            receive_large(&a, 1, 2 * PAGE);
        if (stage >= PUBLISHED)
            receive_large(&a, 2, PAGE);
        CHECK_EQ(front(&a), SHC_EMPTY);
        tear_down();
    }
}

enum {
    ADOPTED,
    CONSUMED,
    RELEASED,
    RECEIVER_STAGES
};

/* Returns the message's reference. */
static shc_ref_t
receive_up_to(party_t *p, int stage)
{
    shc_ring_message_t msg;
    shc_ref_t ref = look_at_large(p, 1, 2 * PAGE, &msg);
    CHECK_OK(shc_arena_adopt(&p->arena, ref));
    if (stage >= CONSUMED) {
        shc_ring_consume(&p->ring, &msg);
        shc_ring_give_back(&p->ring);
    }
    if (stage >= RELEASED)
        CHECK_OK(shc_arena_release(&p->arena, ref));
    return ref;
}

TEST(a_receiver_killed_at_any_stage_loses_no_message_and_keeps_no_memory)
{
    for (int early = 0; early < 2; early++) /* the successor may come before the sweep, or behind it */
        for (int stage = ADOPTED; stage < RECEIVER_STAGES; stage++) {
            set_up_pair(&a, &b);
            CHECK_OK(send_large(&a, 1, 2 * PAGE));
            CHECK_OK(send_large(&a, 2, PAGE));
            (void)receive_up_to(&b, stage);
            uint32_t index = kill_party(&b);
            if (!early)
                reap(index);
            take(&a, SHC_RING_CONSUMER);
            if (stage == ADOPTED)
                receive_large(&a, 1, 2 * PAGE);
            receive_large(&a, 2, PAGE);
            CHECK_EQ(front(&a), SHC_EMPTY);
            if (early)
                reap(index);
            tear_down();
        }
}

TEST(a_successor_holds_a_message_while_the_one_who_had_it_before_is_swept)
{
    set_up_pair(&a, &b);
    CHECK_OK(send_large(&a, 1, 2 * PAGE));
    (void)receive_up_to(&b, ADOPTED);
    uint32_t index = kill_party(&b);
    take(&a, SHC_RING_CONSUMER);
    shc_ref_t held = take_large(&a, 1, 2 * PAGE);
    reap(index);
    CHECK_EQ(used(), 2 * PAGE);
    check_bytes(shc_arena_at(&a.arena, held), 1, 2 * PAGE);
    CHECK_OK(shc_arena_release(&a.arena, held));
    tear_down();
}

TEST(a_successor_sends_on_before_the_dead_sender_is_swept)
{
    set_up_pair(&b, &a);
    CHECK_OK(send_large(&b, 1, 2 * PAGE));
    CHECK_OK(stage_large(&b, 9, PAGE, NULL));
    uint32_t index = kill_party(&b);
    join(&c);
    take(&c, SHC_RING_PRODUCER);
    CHECK_OK(send_large(&c, 2, PAGE));
    receive_large(&a, 1, 2 * PAGE);
    CHECK_OK(send_large(&c, 3, 2 * PAGE));
    reap(index);
    CHECK_EQ(used(), 3 * PAGE);
    receive_large(&a, 2, PAGE);
    receive_large(&a, 3, 2 * PAGE);
    leave(&c);
    tear_down();
}

/* Both ends were one process's, and both messages its own. */
TEST(a_process_that_was_both_ends_leaves_its_messages_to_the_next)
{
    set_up_pair(&b, &b);
    CHECK_OK(send_large(&b, 1, 2 * PAGE));
    CHECK_OK(send_large(&b, 2, PAGE));
    (void)receive_up_to(&b, ADOPTED);
    reap(kill_party(&b));
    take(&a, SHC_RING_CONSUMER);
    receive_large(&a, 1, 2 * PAGE);
    receive_large(&a, 2, PAGE);
    tear_down();
}

/* A hold in the ring keeps the head back: the successor sees the records of what the dead one had released. */
TEST(what_was_released_behind_a_hold_is_gone_and_says_so)
{
    shc_ring_message_t msg;
    uint32_t hold;
    set_up_pair(&a, &b);
    CHECK_OK(send_small(&a, 0, 30));
    CHECK_OK(send_large(&a, 1, PAGE));
    CHECK_OK(send_large(&a, 2, PAGE));
    CHECK_OK(send_large(&a, 3, PAGE));
    CHECK_OK(shc_ring_front(&b.ring, &msg));
    CHECK_OK(shc_ring_hold(&b.ring, &msg, &hold));
    receive_large(&b, 1, PAGE);
    (void)take_large(&b, 2, PAGE); /* in use until it dies */
    reap(kill_party(&b));
    take(&a, SHC_RING_CONSUMER);
    receive_small(&a, 0, 30);
    CHECK_OK(shc_ring_front(&a.ring, &msg));
    CHECK(shc_ring_is_gone(&a.ring, &a.arena, &msg));
    shc_ring_consume(&a.ring, &msg);
    shc_ring_give_back(&a.ring);
    receive_large(&a, 2, PAGE);
    receive_large(&a, 3, PAGE);
    /* Nothing that came since can be gone. */
    CHECK_OK(send_large(&a, 4, PAGE));
    CHECK_OK(shc_arena_release(&a.arena, look_at_large(&a, 4, PAGE, &msg)));
    CHECK_OK(shc_ring_front(&a.ring, &msg));
    CHECK(!shc_ring_is_gone(&a.ring, &a.arena, &msg));
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    tear_down();
}

/* ---- the look at the records ---- */

/* As if so many units and messages had gone through the empty ring before. */
static void
start_at(party_t *p, uint64_t position, uint64_t count)
{
    uint64_t word = (position & SHC_RING_POSITION_MASK) | count << 40;
    shc_a64_store_relaxed(&p->ring.shm->tail, word);
    shc_a64_store_relaxed(&p->ring.shm->head, word);
    take(p, SHC_RING_PRODUCER);
}

/* Small ones lead the large ones over the end of the data, with and without a skip mark, and over the end of the
 * positions. */
TEST(a_sweep_finds_every_message_wherever_it_lies)
{
    for (uint64_t lead = 0; lead < 8; lead++)
        for (int far = 0; far < 2; far++) {
            uint64_t start = (far ? SHC_RING_POSITION_MASK + 1 : 4 * UNITS) - 9 - lead;
            uint32_t sent = 0;
            set_up();
            join(&b);
            start_at(&b, start, far ? SHC_RING_COUNT_MASK - 3 : 0);
            take(&a, SHC_RING_CONSUMER);
            for (; sent < 12; sent++)
                CHECK_OK(sent % 3 == 2 ? send_small(&b, sent, 8 * lead) : send_large(&b, sent, PAGE));
            CHECK_OK(stage_large(&b, 99, PAGE, NULL));
            reap(kill_party(&b));
            CHECK_EQ(used(), 8 * PAGE);
            for (uint32_t i = 0; i < sent; i++)
                if (i % 3 == 2)
                    receive_small(&a, i, 8 * lead);
                else
                    receive_large(&a, i, PAGE);
            CHECK_EQ(front(&a), SHC_EMPTY);
            tear_down();
        }
}

TEST(a_sweep_of_a_full_ring_comes_to_its_end)
{
    set_up_pair(&b, &a);
    CHECK_OK(send_large(&b, 0, PAGE));
    for (uint32_t i = 1; i < CAPACITY; i++)
        CHECK_OK(send_small(&b, i, UNITS * 8 / CAPACITY - 24));
    while (send_small(&b, 0, 0) == 0)
        ;
    reap(kill_party(&b));
    CHECK_EQ(used(), PAGE);
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    tear_down();
}

TEST(a_sweep_of_forged_records_ends_and_frees_the_rest)
{
    static const uint64_t forged[] = {0, UINT64_MAX, 16, UINT32_MAX, UINT64_C(1) << 63};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(forged); i++)
        for (int where = 0; where < 3; where++) {
            set_up_pair(&b, &a);
            uint64_t at[3] = {b.ring.tail.position, 0, 0};
            CHECK_OK(send_large(&b, 0, PAGE));
            at[1] = b.ring.tail.position;
            CHECK_OK(send_large(&b, 1, PAGE));
            at[2] = b.ring.tail.position;
            CHECK_OK(send_large(&b, 2, PAGE));
            memcpy(shc_ring_record_at(&a.ring, at[where]), &forged[i], 8);
            reap(kill_party(&b));
            CHECK_EQ(used(), (uint64_t)where * PAGE);
            CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
            CHECK_EQ(used(), 0);
            tear_down();
        }
}

TEST(a_sweep_between_forged_cursors_ends)
{
    static const uint64_t forged[] = {0, 1, UNITS, UNITS + 1, SHC_RING_POSITION_MASK, UINT64_MAX, 3};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(forged); i++)
        for (size_t k = 0; k < SHC_ARRAY_SIZE(forged); k++) {
            set_up_pair(&b, &a);
            CHECK_OK(send_large(&b, 0, PAGE));
            shc_a64_store_relaxed(&a.ring.shm->head, forged[i]);
            shc_a64_store_relaxed(&a.ring.shm->tail, forged[k]);
            CHECK_EQ(shc_seg_reap_participants(&a.seg), 0);
            (void)kill_party(&b);
            CHECK_EQ(shc_seg_reap_participants(&a.seg), 1);
            CHECK(!shc_arena_names(&a.arena, b.seg.index));
            CHECK_OK(shc_arena_check(&a.arena));
            shc_ring_drop(&a.ring, SHC_RING_CONSUMER);
            leave(&a);
            fix_close();
        }
}

/* ---- forged descriptors ---- */

static void
forge(shc_ref_t ref, uint64_t length, uint32_t record_length)
{
    uint8_t *dst;
    uint64_t room, words[3] = {ref, length, 0};
    CHECK_OK(shc_ring_claim(&a.ring, record_length, &dst, &room));
    memcpy(dst, words, record_length < sizeof words ? record_length : sizeof words);
    shc_ring_stage(&a.ring, record_length, 5 | SHC_EXTENT_TAG);
    shc_ring_publish(&a.ring);
}

TEST(a_descriptor_that_leads_nowhere_is_told_and_gone_past)
{
    shc_ref_t ref, small;
    set_up_alone();
    CHECK_OK(shc_arena_allocate(&a.arena, 2 * PAGE, &ref));
    CHECK_OK(shc_arena_allocate(&a.arena, 100, &small));
    const struct {
        shc_ref_t ref;
        uint64_t length;
        uint32_t record;
    } cases[] = {
        {SHC_ARENA_NOTHING, 0, 16},
        {ref, 2 * PAGE + 1, 16},
        {ref, UINT64_MAX, 16},
        {ref, 1, 8},
        {ref, 1, 15},
        {ref, 1, 17},
        {ref, 1, 24},
        {ref, 1, 0},
        {ref + (UINT64_C(1) << 36), 1, 16}, /* another generation */
        {ref | UINT64_C(1) << 53, 1, 16},
        {ref | UINT64_C(1) << 63, 1, 16},
        {ref + 1, 1, 16},                         /* within a run */
        {ref + PAGE / SHC_ARENA_UNIT, 1, 16},     /* a page of a run */
        {ref + 2 * PAGE / SHC_ARENA_UNIT, 1, 16}, /* what is free */
        {small, 113, 16},
        {small + 1, 1, 16},
        {1, 1, 16},                    /* the segment's own head */
        {SHC_ARENA_PLACE_MASK, 1, 16}, /* far beyond */
        {UINT64_MAX, UINT64_MAX, 16},
    };
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        shc_ring_message_t msg;
        shc_extent_t extent;
        forge(cases[i].ref, cases[i].length, cases[i].record);
        CHECK_OK(shc_ring_front(&a.ring, &msg));
        CHECK_EQ(shc_extent_read(&a.arena, msg.payload, msg.length, &extent), SHC_E_STALE);
        CHECK(!shc_ring_is_gone(&a.ring, &a.arena, &msg));
        shc_ring_consume(&a.ring, &msg);
        shc_ring_give_back(&a.ring);
        forge(cases[i].ref, cases[i].length, cases[i].record);
        shc_ring_settle_extents(&a.ring, &a.arena, a.seg.index);
        CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    }
    CHECK_EQ(used() - shc_arena_class_size(shc_arena_class_of(100)), 2 * PAGE);
    CHECK_OK(shc_arena_take(&a.arena, ref)); /* some records said that they were sent */
    CHECK_OK(shc_arena_take(&a.arena, small));
    CHECK_OK(shc_arena_release(&a.arena, ref));
    CHECK_OK(shc_arena_release(&a.arena, small));
    (void)shc_arena_cleanup(&a.arena, UINT64_MAX);
    tear_down();
}

/* What is not OWNED by a dead one is let alone, whatever a record says. */
TEST(a_forged_descriptor_does_not_take_a_block_from_the_living)
{
    shc_ref_t ref;
    set_up_alone();
    join(&b);
    join(&c);
    CHECK_OK(shc_arena_allocate(&b.arena, PAGE, &ref));
    forge(ref, 1, 16);
    reap(kill_party(&c));
    uint32_t word;
    CHECK_OK(shc_arena_look(&b.arena, ref, &word));
    CHECK_EQ(shc_arena_owner_of(word), b.seg.index + 1);
    CHECK_OK(shc_arena_release(&b.arena, ref));
    CHECK_OK(shc_ring_clear_extents(&a.ring, &a.arena));
    leave(&b);
    tear_down();
}

/* ---- geometry ---- */

TEST(rings_with_an_arena_are_laid_out_for_any_number_of_participants)
{
    for (uint32_t n = 1; n <= SHC_PARTICIPANT_MAX; n += n < 70 ? 1 : 397) {
        shc_arena_t arena;
        shc_seg_create_args_t args = fix_ring_args(CAPACITY, BYTES);
        args.participants = n;
        shc_ring_set_extent_bytes(args.config, 2 * PAGE);
        fix_open();
        CHECK_OK(shc_ring_lay_out(&args));
        CHECK_EQ(shc_ring_extent_bytes(args.config), 2 * PAGE);
        CHECK_OK(fix_create_with(NAME, &shc_ring_spec, &args, &a.seg));
        shc_ring_extents_open(&arena, &a.seg);
        CHECK_EQ(arena.g.at % PAGE, 0);
        CHECK_GE(arena.g.at, a.seg.id.body_offset + shc_ring_body_size(BYTES));
        CHECK_EQ(arena.g.end, a.seg.id.size);
        shc_ref_t ref;
        CHECK_OK(shc_arena_allocate(&arena, 2 * PAGE, &ref));
        memset(shc_arena_at(&arena, ref), 1, 2 * PAGE);
        CHECK_OK(shc_arena_release(&arena, ref));
        fix_leave(&a.seg, NAME);
        fix_close();
    }
}

TEST(a_ring_without_an_arena_is_laid_out_as_ever)
{
    shc_seg_create_args_t args = fix_ring_args(CAPACITY, BYTES), before = args;
    shc_ring_set_extent_bytes(args.config, 0);
    CHECK_OK(shc_ring_lay_out(&args));
    CHECK_MEM(&args, &before, sizeof args);
    CHECK_EQ(shc_ring_extent_bytes(args.config), 0);
    /* What was asked before is forgotten. */
    shc_ring_set_extent_bytes(args.config, 100 * PAGE);
    CHECK_OK(shc_ring_lay_out(&args));
    CHECK_GT(args.body_size, 100 * PAGE);
    shc_ring_set_extent_bytes(args.config, 0);
    CHECK_OK(shc_ring_lay_out(&args));
    CHECK_MEM(&args, &before, sizeof args);
}

TEST(larger_arenas_than_there_are_are_refused)
{
    static const uint64_t bytes[] = {SHC_ARENA_END_MAX, (uint64_t)(SHC_ARENA_PAGES_MAX + 1) * PAGE,
                                     (UINT64_C(1) << 48) + PAGE, UINT64_MAX & ~(PAGE - 1)};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(bytes); i++) {
        shc_seg_create_args_t args = fix_ring_args(CAPACITY, BYTES);
        shc_ring_set_extent_bytes(args.config, bytes[i]);
        CHECK_EQ(shc_ring_lay_out(&args), SHC_E_TOO_LARGE);
    }
}

TEST(only_the_ring_and_the_tables_are_reserved_at_create)
{
    shc_seg_create_args_t args = fix_ring_extent_args(CAPACITY, BYTES, 4096);
    uint64_t need, size;
    CHECK_OK(shc_seg_need_for(&shc_ring_spec, &args, &need));
    CHECK_OK(shc_seg_size_for(&shc_ring_spec, &args, &size));
    CHECK_GT(size, 4096 * PAGE);
    CHECK_LT(need, 4 * BYTES);
    CHECK_GE(need, shc_ring_body_size(BYTES) + sizeof(shc_arena_shm_t));
    args = fix_ring_args(CAPACITY, BYTES);
    CHECK_OK(shc_seg_need_for(&shc_ring_spec, &args, &need));
    CHECK_OK(shc_seg_size_for(&shc_ring_spec, &args, &size));
    CHECK_EQ(need, size);
    args.body_size = UINT64_MAX;
    CHECK_EQ(shc_seg_need_for(&shc_ring_spec, &args, &need), SHC_E_TOO_LARGE);
}

static void
change_config(shc_seg_id_t *id, unsigned which)
{
    uint64_t *arena = &id->config[SHC_RING_CONFIG_ARENA];
    switch (which) {
    case 0:
        arena[0]++; /* a page more than the file has */
        break;
    case 1:
        arena[0]--;
        break;
    case 2:
        arena[0] = 0; /* none, behind it a body of one */
        break;
    case 3:
        arena[0] ^= UINT64_C(1) << 32; /* pages of 128 KiB */
        break;
    case 4:
        arena[0] ^= UINT64_C(31) << 32; /* of 32 KiB */
        break;
    case 5:
        arena[1] = UINT64_C(0xffff) << 32; /* tables of records */
        break;
    case 6:
        arena[1] = PAGES + 1; /* reserved at create */
        break;
    case 7:
        id->flags &= ~SHC_SEG_FLAG_GROWS;
        break;
    case 8:
        id->participants += 8;
        break;
    default:
        id->size -= PAGE;
        break;
    }
}

TEST(impossible_arenas_are_refused)
{
    shc_seg_id_t id;
    set_up();
    CHECK_OK(shc_ring_spec.validate(&a.seg.id));
    for (unsigned which = 0; which < 10; which++) {
        id = a.seg.id;
        id.participants = FIX_PARTICIPANTS;
        change_config(&id, which);
        /* Of eight participants more the table still ends where the words of the pages begin. */
        CHECK_EQ(shc_ring_spec.validate(&id), which == 8 ? 0 : SHC_E_CORRUPT);
    }
    fix_leave(&a.seg, NAME);
    CHECK_OK(fix_create_ring(NAME, CAPACITY, BYTES, &a.seg));
    id = a.seg.id;
    CHECK_OK(shc_ring_spec.validate(&id));
    id.flags |= SHC_SEG_FLAG_GROWS;
    CHECK_EQ(shc_ring_spec.validate(&id), SHC_E_CORRUPT);
    id = a.seg.id;
    id.config[SHC_RING_CONFIG_ARENA + 1] = 1;
    CHECK_EQ(shc_ring_spec.validate(&id), SHC_E_CORRUPT);
    id = a.seg.id;
    id.config[SHC_RING_CONFIG_ARENA] = 1;
    CHECK_EQ(shc_ring_spec.validate(&id), SHC_E_CORRUPT);
    fix_leave(&a.seg, NAME);
    fix_close();
}
