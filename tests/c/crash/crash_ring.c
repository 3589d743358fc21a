/* The ring's producer or consumer is killed at every instruction; the other end goes on, a successor takes the dead
 * one's. */
#include <stdio.h>
#include <string.h>

#include "ds/shc_ring.h"
#include "support/crash_kill.h"
#include "t.h"

#define DATA_BYTES 4096u
#define UNITS (DATA_BYTES / 8)
#define CAPACITY 60u
#define SUCCESSOR_LENGTH 24u

/* What the ring holds when the operation begins, and what the operation does. Messages are numbered from the creation
 * of the ring; a number decides tag and bytes. */
typedef struct plan {
    int end;             /* whose holder dies */
    uint32_t rolled;     /* messages that have passed through before */
    uint32_t filled;     /* messages that lie in the ring */
    uint32_t old_length; /* of those */
    uint32_t length;     /* of the messages that the operation sends */
    uint32_t count;      /* messages that the operation moves, if it gets to its end */
    bool one_by_one;     /* some of them may have moved; else all or none */
    bool takes;          /* the operation is to take the end; nobody holds it before */
    bool dead_holder;    /* and its last holder was killed, too */
} plan_t;

typedef struct own {
    shc_ring_t ring;
    uint8_t inbox[DATA_BYTES];
} own_t;

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static shc_ring_t *
ring_of(const crash_party_t *party)
{
    return &((own_t *)party->own)->ring;
}

/* ---- messages ---- */

static uint8_t
byte_of(uint64_t number, uint64_t i)
{
    return (uint8_t)(number * 151 + i * 7 + 3);
}

static void
fill_message(uint8_t *dst, uint64_t number, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        dst[i] = byte_of(number, i);
}

static bool
is_message(const shc_ring_message_t *msg, uint64_t number)
{
    for (uint32_t i = 0; i < msg->length; i++)
        if (msg->payload[i] != byte_of(number, i))
            return false;
    return msg->tag == (uint8_t)number;
}

/* 0 or why the message does not fit. Not yet visible. */
static int
stage_next(shc_ring_t *ring, uint32_t length)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(ring, length, &dst, &room);
    if (r != 0)
        return r;
    fill_message(dst, ring->tail.count, length);
    shc_ring_stage(ring, length, (uint8_t)ring->tail.count);
    return 0;
}

static void
publish(shc_ring_t *ring)
{
    shc_ring_publish(ring);
    shc_event_notify_one(&ring->shm->items);
}

static int
send_next(shc_ring_t *ring, uint32_t length)
{
    int r = stage_next(ring, length);
    if (r == 0)
        publish(ring);
    return r;
}

static void
give_back(shc_ring_t *ring)
{
    shc_ring_give_back(ring);
    shc_event_notify_one(&ring->shm->space);
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    shc_ring_open(ring_of(party), &party->seg);
}

static void
rebase(crash_party_t *party)
{
    shc_ring_t fresh, *ring = ring_of(party);
    shc_ring_open(&fresh, &party->seg);
    ring->shm = fresh.shm;
    ring->data = fresh.data;
    ring->seg = fresh.seg;
    ring->send_watch.word = fresh.send_watch.word;
    ring->receive_watch.word = fresh.receive_watch.word;
}

static int
verify(const crash_party_t *party)
{
    return shc_ring_check(ring_of(party));
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    const shc_ring_shm_t *shm = ring_of(party)->shm;
    uint64_t word = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    return shc_a64_load_relaxed(&shm->producer) == word || shc_a64_load_relaxed(&shm->consumer) == word;
}

/* The successor takes the end and moves one message. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    shc_ring_t *ring = ring_of(survivor);
    shc_ring_message_t msg;
    int r = shc_ring_take(ring, plan_of(c)->end);
    if (r != 0 && r != SHC_OWNER_DIED)
        return;
    if (plan_of(c)->end == SHC_RING_PRODUCER) {
        (void)send_next(ring, SUCCESSOR_LENGTH);
    } else if (shc_ring_front(ring, &msg) == 0) {
        shc_ring_consume(ring, &msg);
        give_back(ring);
    }
}

static const crash_script_t script = {
    .name = "ring",
    .spec = &shc_ring_spec,
    .args = {.body_size = sizeof(shc_ring_shm_t) + DATA_BYTES,
             .config = {CAPACITY, DATA_BYTES},
             .participants = 4,
             .mode = 0600,
             .persist = true},
    .init = shc_ring_init,
    .own_size = sizeof(own_t),
    .bind = bind,
    .rebase = rebase,
    .recover = recover,
    .owns = owns,
    .verify = verify,
};

/* ---- before the operation ---- */

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_ring_t *ring = ring_of(peer);
    CHECK_OK(shc_ring_take(ring, SHC_RING_PRODUCER));
    CHECK_OK(shc_ring_take(ring, SHC_RING_CONSUMER));
    for (uint32_t i = 0; i < plan->rolled + plan->filled; i++) {
        shc_ring_message_t msg;
        CHECK_OK(send_next(ring, plan->old_length));
        if (i >= plan->rolled)
            continue;
        CHECK_OK(shc_ring_front(ring, &msg));
        shc_ring_consume(ring, &msg);
        give_back(ring);
    }
    shc_ring_drop(ring, plan->end);
    if (plan->dead_holder)
        shc_a64_store_relaxed(plan->end == SHC_RING_PRODUCER ? &ring->shm->producer : &ring->shm->consumer,
                              crash_plant_dead(peer));
}

static void
prepare(crash_party_t *victim, const crash_case_t *c)
{
    if (!plan_of(c)->takes)
        CHECK_OK(shc_ring_take(ring_of(victim), plan_of(c)->end));
}

/* ---- survivors ---- */

/* What is known of the dead end's lease before anybody mends it. */
typedef struct lease {
    bool of_dead;
    uint64_t deaths;
} lease_t;

static lease_t
look_at_lease(const shc_ring_t *ring, int end)
{
    bool producer = end == SHC_RING_PRODUCER;
    uint64_t word = shc_a64_load_relaxed(producer ? &ring->shm->producer : &ring->shm->consumer);
    return (lease_t){.of_dead = word != 0 && shc_seg_owner_is_dead(ring->seg, word),
                     .deaths =
                         shc_a64_load_relaxed(producer ? &ring->shm->producer_deaths : &ring->shm->consumer_deaths)};
}

/* The end is there for a successor at once, the living one's is not, and the death has been counted. */
static void
take_over(crash_party_t *survivor, const crash_case_t *c)
{
    int end = plan_of(c)->end;
    shc_ring_t *ring = ring_of(survivor);
    lease_t before = look_at_lease(ring, end);
    SURVIVES_EQ(shc_ring_take(ring, 1 - end), SHC_BUSY);
    SURVIVES_EQ(shc_ring_take(ring, end), before.of_dead ? SHC_OWNER_DIED : 0);
    SURVIVES_EQ(look_at_lease(ring, end).deaths, before.deaths + before.of_dead);
    SURVIVES_EQ(shc_ring_take(ring, end), 0);
    SURVIVES_EQ(shc_ring_holder_pid(ring, end), survivor->seg.self->id.pid);
}

/* `moved` is what the victim got done of its operation, and perhaps one message of a successor that died, too. */
static bool
may_have_moved(const plan_t *plan, uint64_t moved)
{
    uint64_t last = plan->count + (crash_is_double() ? 1 : 0);
    if (plan->one_by_one || crash_is_double())
        return moved <= last;
    return moved == 0 || moved == plan->count;
}

static uint32_t
expected_length(const plan_t *plan, uint64_t number)
{
    uint64_t first = plan->rolled + plan->filled;
    bool sent_by_victim = plan->end == SHC_RING_PRODUCER && number < first + plan->count;
    return number < first ? plan->old_length : sent_by_victim ? plan->length : SUCCESSOR_LENGTH;
}

/* Receives everything: the numbers up to `end`, each once and in order. Returns with the ring empty, or shut down. */
static void
drain(shc_ring_t *ring, const plan_t *plan, uint64_t end)
{
    shc_ring_message_t msg;
    int r;
    while ((r = shc_ring_front(ring, &msg)) == 0) {
        SURVIVES(is_message(&msg, ring->read.count));
        if (plan != NULL && !crash_is_double())
            SURVIVES_EQ(msg.length, expected_length(plan, ring->read.count));
        shc_ring_consume(ring, &msg);
        give_back(ring);
    }
    SURVIVES_EQ(r, shc_ring_shutdown_flags(ring) ? SHC_SHUTDOWN : SHC_EMPTY);
    if (!(shc_ring_shutdown_flags(ring) & SHC_RING_IMMEDIATE))
        SURVIVES_EQ(ring->read.count, end);
}

/* All space is back: as many messages fit as into a new ring, and the longest one does. */
static void
use_fully(shc_ring_t *from, shc_ring_t *to)
{
    uint64_t n = 0, messages, bytes;
    int r;
    while ((r = send_next(from, 0)) == 0)
        n++;
    SURVIVES_EQ(r, SHC_FULL);
    SURVIVES_EQ(n, CAPACITY < UNITS ? CAPACITY : UNITS);
    drain(to, NULL, from->tail.count);
    SURVIVES_EQ(send_next(from, (uint32_t)from->payload_max), 0);
    drain(to, NULL, from->tail.count);
    shc_ring_backlog(to, &messages, &bytes);
    SURVIVES_EQ(messages, 0);
    SURVIVES_EQ(bytes, 0);
    SURVIVES_EQ(shc_a64_load_relaxed(&from->shm->sent), from->tail.count);
    SURVIVES_EQ(shc_a64_load_relaxed(&from->shm->received), from->tail.count);
}

static void
after_shutdown(shc_ring_t *from)
{
    SURVIVES_EQ(send_next(from, SUCCESSOR_LENGTH), SHC_SHUTDOWN);
}

static void
producer_died(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_ring_t *from = ring_of(survivor), *to = ring_of(peer);
    take_over(survivor, c);
    SURVIVES(may_have_moved(plan, from->tail.count - plan->rolled - plan->filled));
    bool is_shut = shc_ring_shutdown_flags(from) != 0;
    if (is_shut)
        after_shutdown(from);
    while (!is_shut && from->tail.count < plan->rolled + plan->filled + plan->count + 3)
        if (send_next(from, plan->count == 1 && from->tail.count == plan->rolled + plan->filled
                                ? plan->length
                                : SUCCESSOR_LENGTH) != 0)
            break;
    drain(to, NULL, from->tail.count);
    if (!is_shut)
        use_fully(from, to);
}

static void
consumer_died(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_ring_t *from = ring_of(peer), *to = ring_of(survivor);
    take_over(survivor, c);
    SURVIVES(may_have_moved(plan, to->read.count - plan->rolled));
    bool is_shut = shc_ring_shutdown_flags(from) != 0;
    if (is_shut)
        after_shutdown(from);
    for (int i = 0; i < 3 && !is_shut; i++)
        if (send_next(from, SUCCESSOR_LENGTH) != 0)
            break;
    drain(to, plan, from->tail.count);
    if (!is_shut)
        use_fully(from, to);
}

/* ---- operations of the producer ---- */

static void
act_send(crash_party_t *victim, const crash_case_t *c)
{
    (void)send_next(ring_of(victim), plan_of(c)->length);
}

static void
act_send_batch(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_t *ring = ring_of(victim);
    for (uint32_t i = 0; i < 5; i++)
        if (stage_next(ring, plan_of(c)->length) != 0)
            break;
    publish(ring);
}

static void
act_take(crash_party_t *victim, const crash_case_t *c)
{
    (void)!shc_ring_take(ring_of(victim), plan_of(c)->end);
}

static void
act_drop(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_drop(ring_of(victim), plan_of(c)->end);
}

static void
act_shutdown(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_ring_shutdown(ring_of(victim), false);
}

/* 16 units each: 32 of them fill the data exactly, and 31 leave room for one. */
#define ONE_32ND 120u

#define PRODUCER_CASE(title, operation, ...)                                                                           \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){.end = SHC_RING_PRODUCER, __VA_ARGS__}, .setup = setup,               \
        .prepare = prepare, .act = (operation), .check = producer_died                                                 \
    }

TEST_LIMIT(producer_killed_at_every_instruction, 120)
{
    const crash_case_t cases[] = {
        PRODUCER_CASE("send to an empty ring", act_send, .length = 40, .count = 1),
        PRODUCER_CASE("send into the last room", act_send, .filled = 31, .old_length = ONE_32ND, .length = ONE_32ND,
                      .count = 1),
        PRODUCER_CASE("send to a full ring", act_send, .filled = 32, .old_length = ONE_32ND, .length = 40),
        PRODUCER_CASE("send the last message of the capacity", act_send, .filled = CAPACITY - 1, .length = 8,
                      .count = 1),
        PRODUCER_CASE("send up to the end of the data", act_send, .rolled = 31, .old_length = ONE_32ND,
                      .length = ONE_32ND, .count = 1),
        PRODUCER_CASE("send behind a skip mark", act_send, .rolled = 31, .old_length = ONE_32ND, .length = 200,
                      .count = 1),
        PRODUCER_CASE("send the longest behind a skip mark", act_send, .rolled = 30, .filled = 1,
                      .old_length = ONE_32ND, .length = DATA_BYTES / 2 - 8, .count = 1),
        PRODUCER_CASE("send a batch", act_send_batch, .filled = 3, .old_length = 16, .length = 24, .count = 5),
        PRODUCER_CASE("send a batch over the end", act_send_batch, .rolled = 30, .filled = 1, .old_length = ONE_32ND,
                      .length = 88, .count = 5),
        PRODUCER_CASE("send a batch that is cut short", act_send_batch, .filled = 30, .old_length = ONE_32ND,
                      .length = ONE_32ND, .count = 2),
        PRODUCER_CASE("take the free end", act_take, .filled = 2, .old_length = 16, .takes = true),
        PRODUCER_CASE("take a dead holder's end", act_take, .filled = 2, .old_length = 16, .takes = true,
                      .dead_holder = true),
        PRODUCER_CASE("drop the end", act_drop, .filled = 2, .old_length = 16),
        PRODUCER_CASE("shut down", act_shutdown, .filled = 2, .old_length = 16),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- operations of the consumer ---- */

static void
copy_out(own_t *own, const shc_ring_message_t *msg)
{
    memcpy(own->inbox, msg->payload, msg->length);
}

static void
act_receive(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_t *ring = ring_of(victim);
    for (uint32_t i = 0; i < plan_of(c)->count; i++) {
        shc_ring_message_t msg;
        if (shc_ring_front(ring, &msg) != 0)
            return;
        copy_out(victim->own, &msg);
        shc_ring_consume(ring, &msg);
        give_back(ring);
    }
}

static void
act_receive_empty(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_message_t msg;
    (void)c;
    (void)!shc_ring_front(ring_of(victim), &msg);
}

static void
act_receive_batch(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_t *ring = ring_of(victim);
    for (uint32_t i = 0; i < plan_of(c)->count; i++) {
        shc_ring_message_t msg;
        if (shc_ring_front(ring, &msg) != 0)
            break;
        copy_out(victim->own, &msg);
        shc_ring_consume(ring, &msg);
    }
    give_back(ring);
}

/* Holds three, copies a fourth out behind them, and releases the holds in another order. */
static void
act_hold(crash_party_t *victim, const crash_case_t *c)
{
    static const uint32_t order[] = {1, 2, 0};
    shc_ring_t *ring = ring_of(victim);
    shc_ring_message_t msg;
    uint32_t holds[3];
    (void)c;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(holds); i++)
        if (shc_ring_front(ring, &msg) != 0 || shc_ring_hold(ring, &msg, &holds[i]) != 0)
            return;
    if (shc_ring_front(ring, &msg) != 0)
        return;
    copy_out(victim->own, &msg);
    shc_ring_consume(ring, &msg);
    give_back(ring);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(order); i++) {
        shc_ring_mark_released(ring, holds[order[i]]);
        if (shc_ring_settle_holds(ring))
            shc_event_notify_one(&ring->shm->space);
    }
}

/* As long as the oldest is held, nothing is given back. */
static void
act_hold_the_oldest(crash_party_t *victim, const crash_case_t *c)
{
    shc_ring_t *ring = ring_of(victim);
    shc_ring_message_t msg;
    uint32_t holds[2];
    (void)c;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(holds); i++)
        if (shc_ring_front(ring, &msg) != 0 || shc_ring_hold(ring, &msg, &holds[i]) != 0)
            return;
    shc_ring_mark_released(ring, holds[1]);
    (void)!shc_ring_settle_holds(ring);
    if (shc_ring_front(ring, &msg) != 0)
        return;
    shc_ring_consume(ring, &msg);
    give_back(ring);
}

static void
act_clear(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_ring_clear(ring_of(victim));
    shc_event_notify_one(&ring_of(victim)->shm->space);
}

static void
act_shutdown_now(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_ring_shutdown(ring_of(victim), true);
}

#define CONSUMER_CASE(title, operation, ...)                                                                           \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){.end = SHC_RING_CONSUMER, __VA_ARGS__}, .setup = setup,               \
        .prepare = prepare, .act = (operation), .check = consumer_died                                                 \
    }

TEST_LIMIT(consumer_killed_at_every_instruction, 120)
{
    const crash_case_t cases[] = {
        CONSUMER_CASE("receive from an empty ring", act_receive_empty, .rolled = 5, .old_length = 40),
        CONSUMER_CASE("receive the only message", act_receive, .filled = 1, .old_length = 40, .count = 1),
        CONSUMER_CASE("receive from a full ring", act_receive, .filled = 32, .old_length = ONE_32ND, .count = 1),
        CONSUMER_CASE("receive three", act_receive, .filled = 5, .old_length = 16, .count = 3, .one_by_one = true),
        CONSUMER_CASE("receive behind a skip mark", act_receive, .rolled = 12, .filled = 2, .old_length = 312,
                      .count = 2, .one_by_one = true),
        CONSUMER_CASE("receive a batch", act_receive_batch, .filled = 6, .old_length = 24, .count = 5),
        CONSUMER_CASE("receive a batch, all of it", act_receive_batch, .rolled = 10, .filled = 4, .old_length = 312,
                      .count = 4),
        CONSUMER_CASE("hold, release in another order", act_hold, .filled = 6, .old_length = 24, .count = 4),
        CONSUMER_CASE("go on behind a hold", act_hold_the_oldest, .filled = 6, .old_length = 24),
        CONSUMER_CASE("clear", act_clear, .filled = 7, .old_length = 24, .count = 7),
        CONSUMER_CASE("clear an empty ring", act_clear, .rolled = 7, .old_length = 24),
        CONSUMER_CASE("take the free end", act_take, .filled = 2, .old_length = 16, .takes = true),
        CONSUMER_CASE("take a dead holder's end", act_take, .filled = 2, .old_length = 16, .takes = true,
                      .dead_holder = true),
        CONSUMER_CASE("drop the end", act_drop, .filled = 2, .old_length = 16),
        CONSUMER_CASE("shut down at once", act_shutdown_now, .filled = 2, .old_length = 16),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- real kills, and stops ---- */

/* A sleep of the one who found the ring empty (or full): `word` has not changed since it was `seen`. */
static void
sleep_for(shc_event_shm_t *event, const shc_watch_t *watch)
{
    uint32_t v = shc_event_prepare(event);
    if (shc_a64_load_relaxed(watch->word) != watch->seen)
        return;
    if (shc_event_wait(event, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0)
        shc_event_pass_on(event);
}

#define LAST_LENGTH 1u

/* Receives up to the last message: every number once and in order. */
static void
receive_to_last(crash_party_t *party)
{
    shc_ring_t *ring = ring_of(party);
    shc_ring_message_t msg = {.length = 0};
    CHECK_OK(shc_ring_take(ring, SHC_RING_CONSUMER));
    while (msg.length != LAST_LENGTH) {
        int r = shc_ring_front(ring, &msg);
        if (r == SHC_EMPTY) {
            sleep_for(&ring->shm->items, &ring->receive_watch);
            continue;
        }
        CHECK_OK(r);
        CHECK(is_message(&msg, ring->read.count));
        shc_ring_consume(ring, &msg);
        give_back(ring);
    }
}

static void
receive_until_shutdown(crash_party_t *party)
{
    shc_ring_t *ring = ring_of(party);
    shc_ring_message_t msg;
    int r;
    CHECK_OK(shc_ring_take(ring, SHC_RING_CONSUMER));
    while ((r = shc_ring_front(ring, &msg)) != SHC_SHUTDOWN) {
        CHECK_EQ(r, SHC_EMPTY);
        uint32_t v = shc_event_prepare(&ring->shm->items);
        if (shc_ring_shutdown_flags(ring) == 0)
            (void)!shc_event_wait(&ring->shm->items, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS);
    }
}

static void
take_to_send(crash_party_t *party)
{
    CHECK_OK(shc_ring_take(ring_of(party), SHC_RING_PRODUCER));
}

static void
take_to_receive(crash_party_t *party)
{
    CHECK_OK(shc_ring_take(ring_of(party), SHC_RING_CONSUMER));
}

static void
send_one(crash_party_t *party)
{
    CHECK_OK(send_next(ring_of(party), SUCCESSOR_LENGTH));
}

static void
send_last(crash_party_t *party)
{
    CHECK_OK(send_next(ring_of(party), LAST_LENGTH));
}

/* If the victim got its message out, nobody but the survivor itself ends its sleep. */
static void
succeed_and_send_last(crash_party_t *parent)
{
    CHECK_EQ(shc_ring_take(ring_of(parent), SHC_RING_PRODUCER), SHC_OWNER_DIED);
    if (ring_of(parent)->tail.count == 0)
        send_last(parent);
}

static void
fill_ring(crash_party_t *parent)
{
    take_to_send(parent);
    while (send_next(ring_of(parent), ONE_32ND) == 0) {
    }
    shc_ring_drop(ring_of(parent), SHC_RING_PRODUCER);
}

static void
receive_one(crash_party_t *party)
{
    shc_ring_t *ring = ring_of(party);
    shc_ring_message_t msg;
    CHECK_OK(shc_ring_front(ring, &msg));
    CHECK(is_message(&msg, ring->read.count));
    shc_ring_consume(ring, &msg);
    give_back(ring);
}

static void
send_waiting(crash_party_t *party)
{
    shc_ring_t *ring = ring_of(party);
    int r;
    take_to_send(party);
    while ((r = send_next(ring, ONE_32ND)) == SHC_FULL)
        sleep_for(&ring->shm->space, &ring->send_watch);
    CHECK_OK(r);
}

static void
succeed_and_receive(crash_party_t *parent)
{
    CHECK_EQ(shc_ring_take(ring_of(parent), SHC_RING_CONSUMER), SHC_OWNER_DIED);
    if (ring_of(parent)->read.count == 0)
        receive_one(parent);
}

static void
shut_down(crash_party_t *party)
{
    shc_ring_shutdown(ring_of(party), false);
}

TEST_LIMIT(other_end_goes_on_after_real_kills, 240)
{
    static const kill_case_t cases[] = {
        {.name = "producer killed in send",
         .prepare = take_to_send,
         .act = send_last,
         .survive = receive_to_last,
         .after = succeed_and_send_last},
        {.name = "consumer killed in receive",
         .setup = fill_ring,
         .prepare = take_to_receive,
         .act = receive_one,
         .survive = send_waiting,
         .after = succeed_and_receive},
        {.name = "somebody killed in shutdown",
         .act = shut_down,
         .survive = receive_until_shutdown,
         .after = shut_down},
    };
    crash_kill(&script, cases, SHC_ARRAY_SIZE(cases));
}

static void
send_some(crash_party_t *party)
{
    for (int i = 0; i < 4; i++)
        send_one(party);
}

static void
receive_meanwhile(crash_party_t *parent)
{
    shc_ring_t *ring = ring_of(parent);
    CHECK_EQ(shc_ring_take(ring, SHC_RING_PRODUCER), SHC_BUSY);
    CHECK_EQ(shc_seg_reap_participants(&parent->seg), 0);
    shc_ring_message_t msg;
    while (shc_ring_front(ring, &msg) == 0)
        receive_one(parent);
}

static void
send_meanwhile(crash_party_t *parent)
{
    shc_ring_t *ring = ring_of(parent);
    CHECK_EQ(shc_ring_take(ring, SHC_RING_CONSUMER), SHC_BUSY);
    CHECK_EQ(shc_seg_reap_participants(&parent->seg), 0);
    int r = send_next(ring, 8);
    CHECK(r == 0 || r == SHC_FULL);
}

static void
all_came(crash_party_t *parent)
{
    shc_ring_message_t msg;
    while (shc_ring_front(ring_of(parent), &msg) == 0)
        receive_one(parent);
    CHECK_EQ(ring_of(parent)->read.count, 4);
}

static void
take_and_send_some(crash_party_t *parent)
{
    take_to_send(parent);
    send_some(parent);
}

static void
receive_some(crash_party_t *party)
{
    for (int i = 0; i < 4; i++)
        receive_one(party);
}

/* Its slot is still there; what it received is gone from the ring. */
static void
four_are_gone(crash_party_t *parent)
{
    uint64_t messages, bytes;
    shc_ring_backlog(ring_of(parent), &messages, &bytes);
    CHECK_EQ(ring_of(parent)->tail.count - messages, 4);
    CHECK_OK(shc_ring_check(ring_of(parent)));
}

TEST_LIMIT(stopped_end_is_not_dead, 60)
{
    static const stop_case_t cases[] = {
        {.name = "producer stopped in send",
         .setup = take_to_receive,
         .prepare = take_to_send,
         .act = send_some,
         .meanwhile = receive_meanwhile,
         .after = all_came},
        {.name = "consumer stopped in receive",
         .setup = take_and_send_some,
         .prepare = take_to_receive,
         .act = receive_some,
         .meanwhile = send_meanwhile,
         .after = four_are_gone},
    };
    crash_stop(&script, cases, SHC_ARRAY_SIZE(cases));
}
