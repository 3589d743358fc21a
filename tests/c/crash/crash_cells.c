/* A sender, a receiver, one who mends or who helps is killed at every instruction; the others go on at once. Each
 * message is its number in the ring, so what arrives tells what is missing. */
#include <string.h>

#include "ds/shc_cells.h"
#include "support/crash_kill.h"
#include "support/segfix.h"
#include "t.h"

#define CAPACITY 6u
#define ENTRIES 8u
#define CELLS 64u
#define ONE (UINT64_C(1) << 24)
#define BATCH 3u

/* What has happened before, and what the operation does. */
typedef struct plan {
    uint32_t rolled;     /* messages that have passed before */
    uint32_t old_length; /* of those, and of what lies there */
    uint32_t filled;     /* messages that lie there */
    uint32_t length;     /* of what the operation sends */
    uint32_t moves;      /* messages that it sends or receives, if it gets to its end */
    uint32_t may_lose;   /* of those and of the dead's */
    bool receives;
    bool peer_holds;   /* the peer keeps one that it has taken, the oldest */
    bool dead_claim;   /* behind what lies there, somebody died who was writing */
    bool dead_take;    /* before it, somebody who was reading */
    bool hints_lag;    /* tail and head stand where they stood one message before */
    bool has_sleepers; /* somebody announced a sleep on either side */
    bool immediate;
} plan_t;

typedef struct own {
    shc_cells_t ring;
    shc_cells_slot_t held;
    bool holds;
} own_t;

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static shc_cells_t *
ring_of(const crash_party_t *party)
{
    return &((own_t *)party->own)->ring;
}

/* ---- messages ---- */

static uint64_t
number_of(const shc_cells_slot_t *slot)
{
    return slot->cursor >> 24;
}

static void
fill(const shc_cells_slot_t *slot, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        slot->payload[i] = (uint8_t)(number_of(slot) * 151 + i * 7 + 3);
}

static bool
is_message(const shc_cells_slot_t *slot)
{
    for (uint32_t i = 0; i < slot->length; i++)
        if (slot->payload[i] != (uint8_t)(number_of(slot) * 151 + i * 7 + 3))
            return false;
    return slot->tag == (uint8_t)number_of(slot);
}

static int
send(shc_cells_t *ring, uint32_t length)
{
    shc_cells_slot_t slot;
    int r = shc_cells_claim(ring, length, &slot);
    if (r != 0)
        return r;
    fill(&slot, length);
    shc_cells_send(ring, &slot, length, (uint8_t)number_of(&slot), 0);
    return 0;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    fix_cells_open(ring_of(party), &party->seg);
}

static void
rebase(crash_party_t *party)
{
    own_t *own = party->own;
    uint64_t seen = shc_a64_load_relaxed(&own->ring.recl_seen);
    fix_cells_open(&own->ring, &party->seg);
    shc_a64_store_relaxed(&own->ring.recl_seen, seen);
    if (!own->holds)
        return;
    own->held.entry = shc_cells__entry(&own->ring, own->held.cursor);
    shc_cells__set_payload(&own->ring, &own->held);
}

static int
verify(const crash_party_t *party)
{
    return shc_cells_check(ring_of(party));
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    (void)generation;
    return shc_cells_held_by(ring_of(party), index) != 0;
}

/* The successor moves one message. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(survivor);
    shc_cells_slot_t slot;
    if (!plan_of(c)->receives) {
        (void)send(ring, 10);
        return;
    }
    while (shc_cells_take(ring, &slot) != 0)
        if (!shc_cells_unblock(ring, &slot))
            return;
    shc_cells_finish(ring, &slot);
}

static crash_script_t
make_script(void)
{
    crash_script_t script = {
        .name = "cells",
        .spec = &fix_cells_spec,
        .args = fix_cells_args(CAPACITY, ENTRIES, CELLS, 6),
        .init = fix_cells_init,
        .own_size = sizeof(own_t),
        .bind = bind,
        .rebase = rebase,
        .recover = recover,
        .owns = owns,
        .verify = verify,
    };
    script.args.persist = true;
    return script;
}

/* ---- before the operation ---- */

static void
give_to(const shc_cells_slot_t *slot, uint64_t owner)
{
    shc_a64_store_relaxed(&slot->entry->word, (slot->word & ~SHC_CELLS_OWNER) | (owner & SHC_CELLS_OWNER));
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    own_t *own = peer->own;
    shc_cells_t *ring = &own->ring;
    shc_cells_slot_t slot;
    uint64_t dead = plan->dead_claim || plan->dead_take ? crash_plant_dead(peer) : 0;
    for (uint32_t i = 0; i < plan->rolled; i++) {
        CHECK_OK(send(ring, plan->old_length));
        CHECK_OK(shc_cells_take(ring, &slot));
        shc_cells_finish(ring, &slot);
    }
    uint64_t tail = shc_a64_load_relaxed(&ring->shm->tail), head = shc_a64_load_relaxed(&ring->shm->head);
    if (plan->peer_holds || plan->dead_take) {
        CHECK_OK(send(ring, plan->old_length));
        CHECK_OK(shc_cells_take(ring, &own->held));
        shc_cells_end_takes(ring, &own->held);
        own->holds = plan->peer_holds;
        if (plan->dead_take)
            give_to(&own->held, dead);
    }
    for (uint32_t i = 0; i < plan->filled; i++) {
        tail = shc_a64_load_relaxed(&ring->shm->tail);
        CHECK_OK(send(ring, plan->old_length));
    }
    if (plan->dead_claim) {
        CHECK_OK(shc_cells_claim(ring, plan->old_length, &slot));
        shc_cells_end_claims(ring, &slot);
        give_to(&slot, dead);
    }
    if (plan->hints_lag) {
        shc_a64_store_relaxed(&ring->shm->tail, tail);
        shc_a64_store_relaxed(&ring->shm->head, head);
    }
    if (plan->has_sleepers) {
        (void)shc_event_prepare(&ring->shm->items);
        (void)shc_event_prepare(&ring->shm->space);
        (void)shc_event_prepare(&ring->shm->memory);
    }
}

/* ---- survivors ---- */

typedef struct seen {
    uint64_t arrived;
    uint64_t first; /* number that arrived first */
    uint64_t next;  /* the least that may arrive next */
} seen_t;

/* Who is in the way is mended at once: the only living ones are the two survivors. */
static int
take_at_once(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    int r;
    while ((r = shc_cells_take(ring, slot)) == SHC_BUSY)
        SURVIVES(shc_cells_unblock(ring, slot));
    return r;
}

static int
send_at_once(shc_cells_t *ring, uint32_t length)
{
    shc_cells_slot_t slot;
    int r;
    while ((r = shc_cells_claim(ring, length, &slot)) == SHC_FULL)
        if (!shc_cells_unblock(ring, &slot))
            return SHC_FULL;
    if (r != 0)
        return r;
    fill(&slot, length);
    shc_cells_send(ring, &slot, length, (uint8_t)number_of(&slot), 0);
    return 0;
}

/* Everything that is there, by turns: each number once, in order, whole. */
static void
drain(shc_cells_t *a, shc_cells_t *b, seen_t *seen)
{
    shc_cells_slot_t slot;
    shc_cells_t *ring = a;
    int r;
    while ((r = take_at_once(ring, &slot)) == 0) {
        SURVIVES(is_message(&slot));
        SURVIVES(number_of(&slot) >= seen->next);
        if (seen->arrived++ == 0)
            seen->first = number_of(&slot);
        seen->next = number_of(&slot) + 1;
        shc_cells_finish(ring, &slot);
        ring = ring == a ? b : a;
    }
    SURVIVES_EQ(r, shc_cells_shutdown_flags(a) != 0 ? SHC_SHUTDOWN : SHC_EMPTY);
}

/* As many as into a new ring, and then the longest. */
static void
use_fully(shc_cells_t *a, shc_cells_t *b)
{
    seen_t seen = {0};
    uint64_t n = 0;
    int r;
    while ((r = send_at_once(n % 2 == 0 ? a : b, (uint32_t)(n * 20 % 60))) == 0)
        n++;
    SURVIVES_EQ(r, SHC_FULL);
    SURVIVES_EQ(n, CAPACITY);
    SURVIVES_EQ(shc_cells_length(a), CAPACITY);
    drain(a, b, &seen);
    SURVIVES_EQ(seen.arrived, CAPACITY);
    SURVIVES_EQ(send_at_once(a, (uint32_t)a->payload_max), 0);
    SURVIVES_EQ(send_at_once(b, 48), 0);
    drain(b, a, &seen);
    SURVIVES_EQ(seen.arrived, CAPACITY + 2);
}

/* Between what lay there and what arrived, all is accounted for. */
static void
account_for(const crash_party_t *survivor, const crash_case_t *c, const seen_t *seen, uint64_t before)
{
    const plan_t *plan = plan_of(c);
    shc_cells_counts_t n = shc_cells_count(ring_of(survivor));
    SURVIVES_EQ(n.ready, 0);
    SURVIVES_EQ(n.writing, 0);
    SURVIVES_EQ(n.held, 0);
    SURVIVES_EQ(n.sent, n.received + n.lost);
    SURVIVES(n.lost <= plan->may_lose + (crash_is_double() ? 1u : 0u));
    SURVIVES(n.lost >= (plan->dead_claim ? 1u : 0u) + (plan->dead_take ? 1u : 0u));
    uint64_t by_victim = n.received - before - seen->arrived;
    SURVIVES(by_victim <= (plan->receives ? plan->moves : 0u) + (crash_is_double() ? 1u : 0u));
    if (!plan->receives && !crash_is_double() && !plan->dead_take)
        SURVIVES(plan->filled == 0 || seen->arrived >= plan->filled);
}

/* What the dead held, where nobody had to wait for it. */
static void
mend_all(const shc_cells_t *ring)
{
    for (uint64_t i = 0; i <= ring->entry_mask; i++) {
        shc_cells_slot_t slot = {.entry = &ring->entries[i]};
        slot.word = shc_a64_load_relaxed(&slot.entry->word);
        if (shc_cells_is_held(slot.word))
            SURVIVES(shc_cells_unblock(ring, &slot));
    }
}

static void
go_on(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    own_t *own = peer->own;
    shc_cells_t *a = ring_of(survivor), *b = ring_of(peer);
    seen_t seen = {0};
    bool is_shut = shc_cells_shutdown_flags(a) != 0;
    if (own->holds)
        SURVIVES(is_message(&own->held));
    SURVIVES_EQ(shc_cells_held_by(b, peer->seg.index), own->holds);
    int r = send_at_once(b, 20);
    SURVIVES(r == (is_shut ? SHC_SHUTDOWN : 0) || (r == SHC_FULL && plan->filled >= CAPACITY - BATCH));
    if (shc_cells_shutdown_flags(a) & SHC_CELLS_IMMEDIATE)
        seen.arrived += shc_cells_clear(a, NULL, NULL);
    drain(a, b, &seen);
    if (own->holds) {
        SURVIVES(is_message(&own->held));
        shc_cells_finish(b, &own->held);
        own->holds = false;
    }
    mend_all(a);
    account_for(survivor, c, &seen, plan->rolled + plan->peer_holds);
    if (!is_shut)
        use_fully(a, b);
}

/* ---- operations ---- */

static void
act_send(crash_party_t *victim, const crash_case_t *c)
{
    for (uint32_t i = 0; i < plan_of(c)->moves; i++)
        (void)send(ring_of(victim), plan_of(c)->length);
}

static void
act_send_batch(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(victim);
    uint32_t length = plan_of(c)->length, n = 0;
    shc_cells_slot_t slots[BATCH];
    while (n < BATCH && (n == 0 ? shc_cells_claim(ring, length, &slots[0])
                                : shc_cells_claim_next(ring, &slots[n - 1], length, &slots[n])) == 0)
        fill(&slots[n++], length);
    for (uint32_t i = 0; i < n; i++)
        shc_cells_publish(&slots[i], length, (uint8_t)number_of(&slots[i]), 0);
    if (n == 0)
        return;
    shc_cells_end_claims(ring, &slots[n - 1]);
    shc_event_notify_one(&ring->shm->items);
}

static void
act_abort(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_slot_t slot;
    if (shc_cells_claim(ring_of(victim), plan_of(c)->length, &slot) == 0)
        shc_cells_abort(ring_of(victim), &slot);
}

static void
act_receive(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_slot_t slot;
    for (uint32_t i = 0; i < plan_of(c)->moves; i++)
        if (shc_cells_take(ring_of(victim), &slot) == 0)
            shc_cells_finish(ring_of(victim), &slot);
}

/* The younger one is given back first. */
static void
act_hold(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(victim);
    shc_cells_slot_t first, second;
    (void)c;
    if (shc_cells_take(ring, &first) != 0)
        return;
    shc_cells_end_takes(ring, &first);
    if (shc_cells_take(ring, &second) == 0)
        shc_cells_finish(ring, &second);
    shc_cells_finish(ring, &first);
}

static void
act_receive_batch(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(victim);
    shc_cells_slot_t slots[BATCH];
    uint32_t n = 0;
    (void)c;
    while (n < BATCH &&
           (n == 0 ? shc_cells_take(ring, &slots[0]) : shc_cells_take_next(ring, &slots[n - 1], &slots[n])) == 0)
        n++;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        shc_cells_give_back(ring, &slots[i]);
    shc_cells_end_takes(ring, &slots[n - 1]);
    shc_cells_notify_space(ring);
}

static void
act_clear(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_cells_clear(ring_of(victim), NULL, NULL);
}

static void
act_shutdown(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_shutdown(ring_of(victim), plan_of(c)->immediate);
}

/* What keeps a receiver, then what keeps a sender. */
static void
act_unblock(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(victim);
    shc_cells_slot_t slot;
    if (!plan_of(c)->receives) {
        if (shc_cells_claim(ring, plan_of(c)->length, &slot) == SHC_FULL)
            (void)!shc_cells_unblock(ring, &slot);
        return;
    }
    while (shc_cells_take(ring, &slot) == 0)
        shc_cells_finish(ring, &slot);
    (void)!shc_cells_unblock(ring, &slot);
}

static void
act_reap(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_seg_reap_participants(&victim->seg);
}

/* It closes with a reservation open, and something held. */
static void
act_leave(crash_party_t *victim, const crash_case_t *c)
{
    shc_cells_t *ring = ring_of(victim);
    shc_cells_slot_t slot;
    (void)!shc_cells_claim(ring, plan_of(c)->length, &slot);
    (void)!shc_cells_take(ring, &slot);
    shc_cells_sweep(ring, victim->seg.index);
}

#define CASE(title, operation, ...)                                                                                    \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){__VA_ARGS__}, .setup = setup, .act = (operation), .check = go_on      \
    }

TEST_LIMIT(sender_killed_at_every_instruction, 240)
{
    const crash_script_t script = make_script();
    const crash_case_t cases[] = {
        CASE("send", act_send, .length = 10, .moves = 1, .may_lose = 1),
        CASE("send 100 bytes", act_send, .rolled = 9, .old_length = 60, .filled = 2, .length = 100, .moves = 1,
             .may_lose = 1),
        CASE("send across the end", act_send, .rolled = 3, .old_length = 64 * 20, .filled = 0, .length = 640,
             .moves = 1, .may_lose = 1),
        CASE("send 600 bytes", act_send, .rolled = 2, .old_length = 70, .length = 600, .moves = 1, .may_lose = 1),
        CASE("send twice, entries come round", act_send, .rolled = 7, .old_length = 10, .filled = 1, .length = 50,
             .moves = 2, .may_lose = 1),
        CASE("send into the last place", act_send, .rolled = 5, .filled = 5, .length = 10, .moves = 1, .may_lose = 1),
        CASE("send to a full ring", act_send, .rolled = 1, .filled = 6, .length = 10, .moves = 1),
        CASE("send without memory", act_send, .old_length = 64 * 30, .filled = 2, .length = 640, .moves = 1),
        CASE("send to sleepers", act_send, .length = 10, .moves = 1, .may_lose = 1, .has_sleepers = true),
        CASE("send where hints lag", act_send, .rolled = 2, .old_length = 60, .filled = 2, .length = 60, .moves = 1,
             .may_lose = 1, .hints_lag = true),
        CASE("send behind a dead sender", act_send, .filled = 1, .old_length = 60, .length = 60, .moves = 1,
             .may_lose = 2, .dead_claim = true),
        CASE("send behind a dead receiver", act_send, .filled = 1, .old_length = 60, .length = 60, .moves = 1,
             .may_lose = 2, .dead_take = true),
        CASE("send beside a hold", act_send, .rolled = 4, .filled = 4, .old_length = 60, .length = 60, .moves = 1,
             .may_lose = 1, .peer_holds = true),
        CASE("send a batch", act_send_batch, .rolled = 3, .old_length = 64 * 20, .length = 70, .moves = BATCH,
             .may_lose = BATCH, .has_sleepers = true),
        CASE("send a batch to the last places", act_send_batch, .rolled = 6, .filled = 4, .length = 10, .moves = BATCH,
             .may_lose = BATCH),
        CASE("abort", act_abort, .filled = 1, .length = 100, .may_lose = 1, .has_sleepers = true),
        CASE("shut down", act_shutdown, .filled = 2, .old_length = 60, .has_sleepers = true),
        CASE("shut down at once", act_shutdown, .filled = 2, .old_length = 60, .immediate = true),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

TEST_LIMIT(receiver_killed_at_every_instruction, 240)
{
    const crash_script_t script = make_script();
    const crash_case_t cases[] = {
        CASE("receive", act_receive, .filled = 1, .old_length = 10, .moves = 1, .may_lose = 1, .receives = true),
        CASE("receive from an empty ring", act_receive, .rolled = 3, .moves = 1, .receives = true),
        CASE("receive twice of a full ring", act_receive, .rolled = 5, .filled = 6, .old_length = 100, .moves = 2,
             .may_lose = 1, .receives = true, .has_sleepers = true),
        CASE("receive where hints lag", act_receive, .rolled = 2, .filled = 2, .old_length = 60, .moves = 1,
             .may_lose = 1, .receives = true, .hints_lag = true),
        CASE("receive beside a hold", act_receive, .rolled = 6, .filled = 3, .old_length = 60, .moves = 1,
             .may_lose = 1, .receives = true, .peer_holds = true),
        CASE("receive before a dead sender", act_receive, .filled = 1, .old_length = 60, .moves = 2, .may_lose = 2,
             .receives = true, .dead_claim = true),
        CASE("hold two, release in another order", act_hold, .rolled = 3, .filled = 3, .old_length = 64 * 10,
             .moves = 2, .may_lose = 2, .receives = true, .has_sleepers = true),
        CASE("receive a batch", act_receive_batch, .rolled = 7, .filled = 4, .old_length = 100, .moves = BATCH,
             .may_lose = BATCH, .receives = true, .has_sleepers = true),
        CASE("clear", act_clear, .rolled = 4, .filled = 4, .old_length = 100, .moves = 4, .may_lose = 1,
             .receives = true, .has_sleepers = true),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

TEST_LIMIT(who_mends_is_killed_at_every_instruction, 240)
{
    const crash_script_t script = make_script();
    const crash_case_t cases[] = {
        CASE("unblock receivers", act_unblock, .filled = 1, .old_length = 60, .moves = 1, .may_lose = 2,
             .receives = true, .dead_claim = true, .has_sleepers = true),
        CASE("unblock senders", act_unblock, .filled = 1, .old_length = 2000, .length = 2000, .may_lose = 2,
             .dead_take = true, .has_sleepers = true),
        CASE("sweep a claim", act_reap, .filled = 2, .old_length = 60, .may_lose = 1, .dead_claim = true),
        CASE("sweep a claim and a hold", act_reap, .rolled = 5, .filled = 2, .old_length = 60, .may_lose = 2,
             .dead_claim = true, .dead_take = true, .has_sleepers = true),
        CASE("leave", act_leave, .filled = 2, .old_length = 60, .length = 100, .moves = 1, .may_lose = 2,
             .receives = true),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- real kills, and stops ---- */

static void
sleep_for(shc_event_shm_t *event, const shc_cells_slot_t *slot, const shc_cells_t *ring)
{
    uint32_t v = shc_event_prepare(event);
    if (shc_a64_load_relaxed(&slot->entry->word) != slot->word || shc_cells_unblock(ring, slot))
        return;
    if (shc_event_wait(event, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0) {
        shc_event_pass_on(event);
        shc_event_notify_one(event);
    }
}

static void
insist_on_receiving(crash_party_t *party)
{
    shc_cells_t *ring = ring_of(party);
    shc_cells_slot_t slot;
    int r;
    while ((r = shc_cells_take(ring, &slot)) == SHC_EMPTY || r == SHC_BUSY)
        sleep_for(&ring->shm->items, &slot, ring);
    CHECK_OK(r);
    CHECK(is_message(&slot));
    shc_cells_finish(ring, &slot);
}

static void
insist_on_sending(crash_party_t *party)
{
    shc_cells_t *ring = ring_of(party);
    shc_cells_slot_t slot;
    int r;
    while ((r = shc_cells_claim(ring, 100, &slot)) == SHC_FULL)
        sleep_for(shc_cells_space_event(ring, &slot), &slot, ring);
    CHECK_OK(r);
    fill(&slot, 100);
    shc_cells_send(ring, &slot, 100, (uint8_t)number_of(&slot), 0);
}

static void
send_two(crash_party_t *party)
{
    (void)send(ring_of(party), 10);
    (void)send(ring_of(party), 100);
}

static void
send_one(crash_party_t *party)
{
    CHECK_OK(send(ring_of(party), 100));
}

/* One more, so that there is something to receive whatever the victim did. */
static void
send_and_receive(crash_party_t *party)
{
    insist_on_sending(party);
    insist_on_receiving(party);
}

static void
fill_up(crash_party_t *party)
{
    while (send(ring_of(party), 100) == 0)
        continue;
}

static void
receive_two(crash_party_t *party)
{
    shc_cells_slot_t slot;
    for (int i = 0; i < 2; i++)
        if (shc_cells_take(ring_of(party), &slot) == 0)
            shc_cells_finish(ring_of(party), &slot);
}

TEST_LIMIT(who_waits_gets_on_after_real_kills, 240)
{
    const crash_script_t script = make_script();
    static const kill_case_t cases[] = {
        {.name = "sender killed, receiver asleep", .act = send_two, .survive = insist_on_receiving, .after = send_one},
        {.name = "receiver killed, sender asleep",
         .setup = fill_up,
         .act = receive_two,
         .survive = insist_on_sending,
         .after = receive_two},
        {.name = "another receiver killed in its sleep",
         .way = KILL_ASLEEP,
         .act = insist_on_receiving,
         .survive = insist_on_receiving,
         .after = send_one},
        {.name = "another receiver killed when woken",
         .way = KILL_WOKEN,
         .act = insist_on_receiving,
         .survive = send_and_receive,
         .after = send_one},
        {.name = "another sender killed when woken",
         .way = KILL_WOKEN,
         .setup = fill_up,
         .act = insist_on_sending,
         .survive = insist_on_sending,
         .after = receive_two},
    };
    crash_kill(&script, cases, SHC_ARRAY_SIZE(cases));
}

static void
move_four(crash_party_t *party)
{
    for (int i = 0; i < 4; i++) {
        insist_on_sending(party);
        insist_on_receiving(party);
    }
}

/* Nothing of the stopped one is taken for dead. */
static void
move_meanwhile(crash_party_t *parent)
{
    shc_cells_t *ring = ring_of(parent);
    shc_cells_slot_t slot;
    CHECK_EQ(shc_seg_reap_participants(&parent->seg), 0);
    int r = shc_cells_claim(ring, 100, &slot);
    if (r == 0) {
        fill(&slot, 100);
        shc_cells_send(ring, &slot, 100, (uint8_t)number_of(&slot), 0);
    } else {
        CHECK_EQ(r, SHC_FULL);
        CHECK(!shc_cells_unblock(ring, &slot));
    }
    r = shc_cells_take(ring, &slot);
    if (r == 0) {
        CHECK(is_message(&slot));
        shc_cells_finish(ring, &slot);
    } else {
        CHECK(r == SHC_BUSY || r == SHC_EMPTY);
        CHECK(!shc_cells_unblock(ring, &slot));
    }
}

static void
nothing_was_lost(crash_party_t *parent)
{
    CHECK_OK(shc_cells_check(ring_of(parent)));
    CHECK_EQ(shc_cells_count(ring_of(parent)).lost, 0);
}

/* What was sent meanwhile is received, so that the stopped one finds room. */
static void
make_room(crash_party_t *parent)
{
    (void)shc_cells_clear(ring_of(parent), NULL, NULL);
}

TEST_LIMIT(stopped_one_is_not_dead, 60)
{
    const crash_script_t script = make_script();
    static const stop_case_t cases[] = {
        {.name = "stopped while it sends and receives",
         .setup = make_room,
         .act = move_four,
         .meanwhile = move_meanwhile,
         .after = nothing_was_lost},
    };
    crash_stop(&script, cases, SHC_ARRAY_SIZE(cases));
}
