/* One producer, one consumer, random lengths, batches, holds and pauses: see tests/SCENARIOS.md. */
#include "stress_impl.h"

#define HOLDS_MAX 16u

typedef struct held {
    uint32_t hold;
    uint64_t number;
    const uint8_t *payload;
    uint32_t length;
} held_t;

typedef struct plan {
    uint64_t seed;
    uint64_t messages;
    uint64_t capacity;
    uint64_t bytes;
    uint64_t length_max;
    unsigned batch_max;
    unsigned holds_max;
} plan_t;

static plan_t plan;
static shc_seg_t seg;

/* ---- waiting as a user of the core does it ---- */

static bool
has_moved(const shc_watch_t *watch, const shc_ring_t *ring)
{
    return shc_a64_load_relaxed(watch->word) != watch->seen || shc_ring_shutdown_flags(ring) != 0;
}

static void
sleep_on(shc_event_shm_t *ev, const shc_watch_t *watch, const shc_ring_t *ring)
{
    uint32_t v = shc_event_prepare(ev);
    if (has_moved(watch, ring))
        return;
    int r = stress_wait(ev, v);
    CHECK_NE(r, SHC_INTERRUPTED);
    CHECK(r != SHC_TIMEOUT || !has_moved(watch, ring)); /* else a wake-up was lost */
    if (r == 0)
        shc_event_pass_on(ev);
}

/* ---- the producer ---- */

static unsigned
stage_batch(shc_ring_t *ring, uint64_t next, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *dst;
        uint64_t room;
        uint32_t length = stress_length(plan.seed, next + i, plan.length_max);
        int r = shc_ring_claim(ring, length, &dst, &room);
        if (r == SHC_FULL)
            return i;
        CHECK_OK(r);
        CHECK_GE(room, length);
        stress_fill(dst, length, plan.seed, next + i);
        shc_ring_stage(ring, length, stress_tag(plan.seed, next + i));
    }
    return n;
}

static void
produce(stress_party_t *party)
{
    shc_ring_t ring;
    shc_ring_open(&ring, &seg);
    CHECK_OK(shc_ring_take(&ring, SHC_RING_PRODUCER));
    for (uint64_t next = 0; next < plan.messages;) {
        uint64_t left = plan.messages - next, batch = 1 + t_random(&party->rng) % plan.batch_max;
        unsigned n = stage_batch(&ring, next, (unsigned)(batch < left ? batch : left));
        stress_dawdle(&party->rng);
        if (n > 0) {
            shc_ring_publish(&ring);
            shc_event_notify_one(&ring.shm->items);
        } else {
            sleep_on(&ring.shm->space, &ring.send_watch, &ring);
        }
        next += n;
    }
    shc_ring_shutdown(&ring, false);
    shc_ring_drop(&ring, SHC_RING_PRODUCER);
}

/* ---- the consumer ---- */

typedef struct consumer {
    shc_ring_t ring;
    uint64_t next;
    uint64_t *rng;
    held_t held[HOLDS_MAX];
    unsigned n_held;
} consumer_t;

static void
check_message(const consumer_t *c, const shc_ring_message_t *msg)
{
    CHECK_EQ(msg->length, stress_length(plan.seed, c->next, plan.length_max));
    CHECK_EQ(msg->tag, stress_tag(plan.seed, c->next));
    CHECK(stress_matches(msg->payload, msg->length, plan.seed, c->next));
}

/* What was held has kept its content all the time. */
static void
release_one(consumer_t *c)
{
    held_t *h = &c->held[t_random(c->rng) % c->n_held];
    CHECK(stress_matches(h->payload, h->length, plan.seed, h->number));
    shc_ring_mark_released(&c->ring, h->hold);
    *h = c->held[--c->n_held];
    if (shc_ring_settle_holds(&c->ring))
        shc_event_notify_one(&c->ring.shm->space);
}

static void
hold(consumer_t *c, const shc_ring_message_t *msg)
{
    held_t *h = &c->held[c->n_held];
    int r = shc_ring_hold(&c->ring, msg, &h->hold);
    if (r == SHC_E_LEASES) { /* an old one keeps the younger ones' numbers taken */
        while (c->n_held > 0)
            release_one(c);
        shc_ring_consume(&c->ring, msg);
        return;
    }
    CHECK_OK(r);
    h->number = c->next;
    h->payload = msg->payload;
    h->length = msg->length;
    c->n_held++;
}

static int
take_batch(consumer_t *c, unsigned n)
{
    shc_ring_message_t msg;
    int r = 0;
    for (; n > 0; n--, c->next++) {
        r = shc_ring_front(&c->ring, &msg);
        if (r != 0)
            break;
        check_message(c, &msg);
        if (c->n_held < plan.holds_max && t_random(c->rng) % 4 == 0)
            hold(c, &msg);
        else
            shc_ring_consume(&c->ring, &msg);
    }
    shc_ring_give_back(&c->ring);
    shc_event_notify_one(&c->ring.shm->space);
    return r;
}

static void
consume(stress_party_t *party)
{
    consumer_t c = {.rng = &party->rng};
    int r = 0;
    shc_ring_open(&c.ring, &seg);
    CHECK_OK(shc_ring_take(&c.ring, SHC_RING_CONSUMER));
    while (r != SHC_SHUTDOWN) {
        r = take_batch(&c, 1 + (unsigned)(t_random(c.rng) % plan.batch_max));
        stress_dawdle(c.rng);
        while (c.n_held > 0 && (r != 0 || t_random(c.rng) % 4 == 0))
            release_one(&c);
        if (r == SHC_EMPTY)
            sleep_on(&c.ring.shm->items, &c.ring.receive_watch, &c.ring);
        else
            CHECK(r == 0 || r == SHC_SHUTDOWN);
    }
    CHECK_EQ(c.next, plan.messages);
    CHECK_EQ(shc_ring_held(&c.ring), 0);
    shc_ring_drop(&c.ring, SHC_RING_CONSUMER);
}

/* ---- an onlooker, who must see sane numbers whatever happens ---- */

static void
look_on(stress_party_t *party)
{
    shc_ring_t ring;
    shc_ring_open(&ring, &seg);
    while (shc_ring_shutdown_flags(&ring) == 0) {
        uint64_t messages, bytes;
        shc_ring_backlog(&ring, &messages, &bytes);
        CHECK_LE(messages, plan.capacity);
        CHECK_LE(bytes, plan.bytes);
        (void)shc_ring_holder_pid(&ring, (int)(t_random(&party->rng) % 2));
        proc_sleep_us(200);
    }
}

/* ---- running ---- */

static void
run(stress_kind_t kind, const plan_t *wanted)
{
    uint64_t seed = t_seed();
    stress_party_t parties[] = {{.role = produce}, {.role = consume}, {.role = look_on}};
    shc_ring_t ring;
    fix_open();
    plan = *wanted;
    plan.messages = t_scaled(wanted->messages);
    plan.seed = t_random(&seed);
    CHECK_OK(fix_create_ring("r", plan.capacity, plan.bytes, &seg));
    shc_ring_open(&ring, &seg);
    CHECK_LE(plan.length_max, ring.payload_max);
    stress_run(parties, SHC_ARRAY_SIZE(parties), kind, &seed);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->sent), plan.messages);
    CHECK_EQ(shc_a64_load_relaxed(&ring.shm->received), plan.messages);
    CHECK_OK(shc_ring_check(&ring));
    CHECK_OK(shc_seg_check(&seg));
    fix_leave(&seg, "r");
    fix_close();
}

/* Capacity 1: every message waits for the one before. */
static const plan_t ping = {.messages = 40000, .capacity = 1, .bytes = 4096, .length_max = 64, .batch_max = 1};
/* Long messages in little memory: skip marks and full rings all the time. */
static const plan_t tight = {
    .messages = 150000, .capacity = 100, .bytes = 4096, .length_max = 2040, .batch_max = 4, .holds_max = 3};
/* Big batches in a roomy ring. */
static const plan_t stream = {.messages = 600000, .capacity = 4096, .bytes = 65536, .length_max = 300, .batch_max = 64};
/* Many messages held and released in any order. */
static const plan_t holding = {
    .messages = 200000, .capacity = 256, .bytes = 16384, .length_max = 500, .batch_max = 8, .holds_max = HOLDS_MAX};

TEST_LIMIT(threads_one_message_at_a_time, 120)
{
    run(THREADS, &ping);
}

TEST_LIMIT(threads_tight_memory, 120)
{
    run(THREADS, &tight);
}

TEST_LIMIT(threads_stream_of_batches, 120)
{
    run(THREADS, &stream);
}

TEST_LIMIT(threads_holding, 120)
{
    run(THREADS, &holding);
}

TEST_LIMIT(processes_one_message_at_a_time, 120)
{
    run(PROCESSES, &ping);
}

TEST_LIMIT(processes_tight_memory, 120)
{
    run(PROCESSES, &tight);
}

TEST_LIMIT(processes_stream_of_batches, 120)
{
    run(PROCESSES, &stream);
}

TEST_LIMIT(processes_holding, 120)
{
    run(PROCESSES, &holding);
}

/* ---- a shutdown right behind the last message ---- */

typedef struct ends {
    shc_a32_t round; /* begins */
    shc_a32_t done;
    uint32_t rounds;
} ends_t;

static ends_t *ends;

static void
spin_until(const shc_a32_t *word, uint32_t value)
{
    for (uint32_t spins = 1; shc_a32_load_acquire(word) < value; spins++) /* A <- proc_signal */
        if (spins % 4096 == 0)
            shc_os_yield();
}

static void
send_last(stress_party_t *party)
{
    shc_ring_t ring;
    shc_ring_open(&ring, &seg);
    CHECK_OK(shc_ring_take(&ring, SHC_RING_PRODUCER));
    for (uint32_t i = 1; i <= ends->rounds; i++) {
        spin_until(&ends->done, i - 1);
        shc_a32_store_relaxed(&ring.shm->shutdown, 0); /* as if it were another ring */
        CHECK_EQ(stage_batch(&ring, i, 1), 1);
        proc_signal(&ends->round);
        for (uint64_t n = t_random(&party->rng) % 200; n > 0; n--)
            (void)shc_ring_shutdown_flags(&ring);
        shc_ring_publish(&ring);
        shc_ring_shutdown(&ring, false);
    }
}

static void
receive_last(stress_party_t *party)
{
    consumer_t c = {.rng = &party->rng};
    shc_ring_open(&c.ring, &seg);
    CHECK_OK(shc_ring_take(&c.ring, SHC_RING_CONSUMER));
    for (uint32_t i = 1; i <= ends->rounds; i++) {
        spin_until(&ends->round, i);
        c.next = i;
        while (take_batch(&c, 2) != SHC_SHUTDOWN)
            ;
        CHECK_EQ(c.next, i + 1);
        proc_signal(&ends->done);
    }
}

static void
run_ends(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[] = {{.role = send_last}, {.role = receive_last}};
    fix_open();
    plan = ping;
    plan.seed = t_random(&seed);
    ends = proc_share(sizeof *ends);
    ends->rounds = (uint32_t)t_scaled(20000);
    CHECK_OK(fix_create_ring("r", plan.capacity, plan.bytes, &seg));
    stress_run(parties, SHC_ARRAY_SIZE(parties), kind, &seed);
    fix_leave(&seg, "r");
    fix_close();
}

TEST_LIMIT(threads_shutdown_behind_the_last_message, 120)
{
    run_ends(THREADS);
}

TEST_LIMIT(processes_shutdown_behind_the_last_message, 120)
{
    run_ends(PROCESSES);
}
