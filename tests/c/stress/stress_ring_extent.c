/* Large messages among small ones: held and let go in any order, in memory that is often short, with either end killed
 * at random. See tests/SCENARIOS.md. */
#include "stress_impl.h"

#define NAME "r"
#define DATA_BYTES 16384u
#define CAPACITY 60u
#define PAGE (UINT64_C(1) << SHC_EXTENT_PAGE_SHIFT)
#define PAGES 12u
#define LENGTH_MAX (3 * PAGE)
#define KEPT_MAX 6u
#define HOLDS_MAX 3u

static shc_seg_t seg;

/* What everybody sees, and no kill takes away. */
typedef struct scene {
    uint64_t seed;
    uint64_t messages;
    shc_a64_t received; /* messages that have surely been received */
    shc_a64_t gone;
} scene_t;

static scene_t *scene;

/* One process, or thread that passes for one. */
typedef struct party {
    shc_seg_t seg;
    shc_ring_t ring;
    shc_arena_t arena;
    uint64_t *rng;
} party_t;

static void
join(party_t *p, stress_party_t *stress)
{
    p->seg = seg;
    p->seg.epoch = 0; /* not this party yet */
    p->rng = &stress->rng;
    int r;
    while ((r = shc_seg_rejoin(&p->seg)) == SHC_E_PARTICIPANTS)
        proc_sleep_us(100); /* there is one slot for each of us, and the sweeper is just at that of the dead one */
    CHECK_OK(r);
    shc_ring_open(&p->ring, &p->seg);
    shc_ring_extents_open(&p->arena, &p->seg);
}

static void
leave(party_t *p, int end)
{
    shc_ring_drop(&p->ring, end);
    shc_ring_extents_leave(&p->ring, &p->arena);
    shc_participant_end_leave(&p->seg.participants, p->seg.index);
}

static void
take(party_t *p, int end)
{
    int r = shc_ring_take(&p->ring, end);
    CHECK(r == 0 || r == SHC_OWNER_DIED);
}

/* A wait that ends by its slice with something to do there would be a lost wake-up. */
static void
sleep_on(shc_event_shm_t *ev, uint32_t prepared)
{
    int r = stress_wait(ev, prepared);
    CHECK(r == 0 || r == SHC_AGAIN);
    if (r == 0)
        shc_event_pass_on(ev);
}

/* ---- messages ---- */

/* Half of them are small. */
static uint32_t
length_of(uint64_t number)
{
    uint64_t h = stress_hash(scene->seed, number);
    return (uint32_t)((h >> 8) % (h % 2 == 0 ? 200 : LENGTH_MAX + 1));
}

static bool
is_large(const shc_ring_t *ring, uint64_t number)
{
    return length_of(number) > ring->payload_max;
}

static uint8_t
tag_of(uint64_t number)
{
    return stress_tag(scene->seed, number) & 0x7f;
}

/* ---- the sender ---- */

static int
stage_large(party_t *p, uint64_t number)
{
    shc_extent_t extent;
    uint32_t length = length_of(number);
    int r = shc_ring_claim_extent(&p->ring, &p->arena, length, &extent);
    if (r != 0)
        return r;
    if (t_random(p->rng) % 16 == 0) { /* thinks better of it, and again */
        CHECK_OK(shc_arena_release(&p->arena, extent.ref));
        return SHC_AGAIN;
    }
    stress_fill(extent.memory, length, scene->seed, number);
    shc_ring_stage_extent(&p->ring, &extent, length, tag_of(number));
    return 0;
}

static int
stage_small(party_t *p, uint64_t number)
{
    uint8_t *dst;
    uint64_t room;
    uint32_t length = length_of(number);
    int r = shc_ring_claim(&p->ring, length, &dst, &room);
    if (r != 0)
        return r;
    stress_fill(dst, length, scene->seed, number);
    shc_ring_stage(&p->ring, length, tag_of(number));
    return 0;
}

static int
stage(party_t *p)
{
    uint64_t number = p->ring.tail.count;
    int r;
    do
        r = is_large(&p->ring, number) ? stage_large(p, number) : stage_small(p, number);
    while (r == SHC_AGAIN);
    CHECK(r == 0 || r == SHC_FULL);
    return r;
}

/* What there is room for, at most three: then they become visible. */
static void
send_some(party_t *p)
{
    uint32_t prepared = shc_event_prepare(&p->ring.shm->space);
    unsigned n = 0;
    while (n < 3 && p->ring.tail.count < scene->messages && stage(p) == 0)
        n++;
    if (n == 0) {
        sleep_on(&p->ring.shm->space, prepared);
        return;
    }
    stress_dawdle(p->rng);
    shc_ring_publish(&p->ring);
    shc_event_notify_one(&p->ring.shm->items);
}

static void
produce(stress_party_t *stress)
{
    party_t p;
    join(&p, stress);
    take(&p, SHC_RING_PRODUCER);
    while (p.ring.tail.count < scene->messages)
        send_some(&p);
    shc_ring_shutdown(&p.ring, false);
    leave(&p, SHC_RING_PRODUCER); /* its last messages are on their way */
}

/* ---- the receiver ---- */

typedef struct kept {
    uint64_t number;
    shc_ref_t ref;
} kept_t;

typedef struct held {
    uint64_t number;
    uint32_t hold;
    const uint8_t *payload;
} held_t;

typedef struct consumer {
    party_t p;
    kept_t kept[KEPT_MAX];
    held_t held[HOLDS_MAX];
    unsigned n_kept;
    unsigned n_held;
} consumer_t;

/* What was kept has kept its content all the time. */
static void
let_one_go(consumer_t *c)
{
    kept_t *k = &c->kept[t_random(c->p.rng) % c->n_kept];
    CHECK(stress_matches(shc_arena_at(&c->p.arena, k->ref), length_of(k->number), scene->seed, k->number));
    CHECK_OK(shc_arena_release(&c->p.arena, k->ref));
    *k = c->kept[--c->n_kept];
    shc_event_notify_one(&c->p.ring.shm->space);
}

static void
end_a_hold(consumer_t *c)
{
    held_t *h = &c->held[t_random(c->p.rng) % c->n_held];
    CHECK(stress_matches(h->payload, length_of(h->number), scene->seed, h->number));
    shc_ring_mark_released(&c->p.ring, h->hold);
    *h = c->held[--c->n_held];
    if (shc_ring_settle_holds(&c->p.ring))
        shc_event_notify_one(&c->p.ring.shm->space);
}

/* Before anything says so in the ring. */
static void
note_received(uint64_t number)
{
    if (shc_a64_load_relaxed(&scene->received) == number)
        shc_a64_store_relaxed(&scene->received, number + 1);
}

static void
go_past(consumer_t *c, const shc_ring_message_t *msg)
{
    note_received(c->p.ring.read.count);
    shc_ring_consume(&c->p.ring, msg);
    shc_ring_give_back(&c->p.ring);
    shc_event_notify_one(&c->p.ring.shm->space);
}

static void
receive_large(consumer_t *c, const shc_ring_message_t *msg)
{
    shc_extent_t extent;
    uint64_t number = c->p.ring.read.count;
    if (shc_ring_is_gone(&c->p.ring, &c->p.arena, msg)) {
        CHECK_LT(number, shc_a64_load_relaxed(&scene->received)); /* somebody had it */
        shc_a64_store_relaxed(&scene->gone, shc_a64_load_relaxed(&scene->gone) + 1);
        go_past(c, msg);
        return;
    }
    CHECK_OK(shc_extent_read(&c->p.arena, msg->payload, msg->length, &extent));
    CHECK_EQ(extent.length, length_of(number));
    CHECK(stress_matches(extent.memory, length_of(number), scene->seed, number));
    CHECK_OK(shc_arena_adopt(&c->p.arena, extent.ref));
    go_past(c, msg);
    c->kept[c->n_kept++] = (kept_t){.number = number, .ref = extent.ref};
}

static void
receive_small(consumer_t *c, const shc_ring_message_t *msg)
{
    uint64_t number = c->p.ring.read.count;
    held_t *h = &c->held[c->n_held];
    CHECK_EQ(msg->length, length_of(number));
    CHECK(stress_matches(msg->payload, msg->length, scene->seed, number));
    note_received(number);
    bool holds = c->n_held < HOLDS_MAX && t_random(c->p.rng) % 8 == 0;
    if (!holds || shc_ring_hold(&c->p.ring, msg, &h->hold) != 0) {
        go_past(c, msg);
        return;
    }
    *h = (held_t){.number = number, .hold = h->hold, .payload = msg->payload};
    c->n_held++;
}

static int
receive(consumer_t *c)
{
    shc_ring_message_t msg;
    uint64_t number = c->p.ring.read.count;
    int r = shc_ring_front(&c->p.ring, &msg);
    if (r != 0)
        return r;
    CHECK_EQ(msg.tag, tag_of(number) | (is_large(&c->p.ring, number) ? SHC_EXTENT_TAG : 0));
    if (is_large(&c->p.ring, number))
        receive_large(c, &msg);
    else
        receive_small(c, &msg);
    return 0;
}

static void
let_go(consumer_t *c, bool all)
{
    while (c->n_kept > 0 && (all || c->n_kept == KEPT_MAX || t_random(c->p.rng) % 3 == 0))
        let_one_go(c);
    while (c->n_held > 0 && (all || t_random(c->p.rng) % 4 == 0))
        end_a_hold(c);
}

static void
consume(stress_party_t *stress)
{
    consumer_t c = {.n_kept = 0};
    int r = 0;
    join(&c.p, stress);
    take(&c.p, SHC_RING_CONSUMER);
    CHECK_LE(c.p.ring.read.count, shc_a64_load_relaxed(&scene->received)); /* nothing was lost with those before us */
    while (r != SHC_SHUTDOWN) {
        uint32_t prepared = shc_event_prepare(&c.p.ring.shm->items);
        r = receive(&c);
        let_go(&c, r != 0);
        stress_dawdle(c.p.rng);
        CHECK(r == 0 || r == SHC_EMPTY || r == SHC_SHUTDOWN);
        if (r == SHC_EMPTY)
            sleep_on(&c.p.ring.shm->items, prepared);
    }
    CHECK_EQ(c.p.ring.read.count, scene->messages);
    leave(&c.p, SHC_RING_CONSUMER);
}

/* ---- running ---- */

static void
set_up(uint64_t messages, uint64_t *seed)
{
    fix_open();
    scene = proc_share(sizeof *scene);
    scene->seed = t_random(seed);
    scene->messages = messages;
    shc_seg_create_args_t args = fix_ring_extent_args(CAPACITY, DATA_BYTES, PAGES);
    CHECK_OK(fix_create_with(NAME, &shc_ring_spec, &args, &seg));
}

/* Nothing is in use; all of it is there in one piece. */
static void
wind_up(void)
{
    shc_arena_t arena;
    shc_ring_t ring;
    shc_ref_t all;
    shc_ring_open(&ring, &seg);
    shc_ring_extents_open(&arena, &seg);
    CHECK_OK(shc_ring_check(&ring));
    CHECK_OK(shc_arena_check(&arena));
    CHECK(!shc_arena_is_used(&arena));
    CHECK_OK(shc_arena_allocate(&arena, PAGES * PAGE, &all));
    CHECK_OK(shc_arena_release(&arena, all));
    CHECK_OK(shc_seg_check(&seg));
    fix_leave(&seg, NAME);
    fix_close();
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[] = {{.role = produce}, {.role = consume}};
    set_up(t_scaled(8000), &seed);
    stress_run(parties, SHC_ARRAY_SIZE(parties), kind, &seed);
    CHECK_EQ(shc_a64_load_relaxed(&scene->received), scene->messages);
    wind_up();
}

TEST_LIMIT(threads_send_large_messages, 240)
{
    run(THREADS);
}

TEST_LIMIT(processes_send_large_messages, 240)
{
    run(PROCESSES);
}

/* ---- with kills ---- */

/* Sweeps all the time, until it is killed. */
static void
sweep(stress_party_t *stress)
{
    party_t p;
    join(&p, stress);
    for (;;) {
        (void)shc_seg_reap_participants(&p.seg);
        proc_sleep_us((long)(t_random(p.rng) % 3000));
    }
}

/* Until it is killed. */
static void
send_for_ever(stress_party_t *stress)
{
    party_t p;
    join(&p, stress);
    take(&p, SHC_RING_PRODUCER);
    for (;;)
        send_some(&p);
}

static void
revive(stress_party_t *party, uint64_t *seed)
{
    party->rng = t_random(seed);
    stress_start(party, PROCESSES);
}

/* What is on its way is received; the parent has been none of the three. */
static void
receive_the_rest(uint64_t *seed)
{
    stress_party_t self = {.rng = t_random(seed)};
    consumer_t c = {.n_kept = 0};
    (void)shc_seg_reap_participants(&seg);
    join(&c.p, &self);
    take(&c.p, SHC_RING_CONSUMER);
    take(&c.p, SHC_RING_PRODUCER);
    uint64_t sent = c.p.ring.tail.count;
    while (c.p.ring.read.count < sent) {
        CHECK_OK(receive(&c));
        let_go(&c, false);
    }
    let_go(&c, true);
    CHECK_EQ(shc_a64_load_relaxed(&scene->received), sent);
    printf("%llu messages, %llu of them gone\n", (unsigned long long)sent,
           (unsigned long long)shc_a64_load_relaxed(&scene->gone));
    shc_ring_drop(&c.p.ring, SHC_RING_PRODUCER);
    leave(&c.p, SHC_RING_CONSUMER);
}

TEST_LIMIT(whoever_is_killed_loses_no_message_and_keeps_no_memory, 240)
{
    enum {
        VICTIMS = 3
    };
    uint64_t seed = t_seed(), kills = t_scaled(300);
    stress_party_t parties[VICTIMS] = {{.role = send_for_ever}, {.role = consume}, {.role = sweep}};
    set_up(UINT64_MAX, &seed);
    for (unsigned i = 0; i < VICTIMS; i++)
        revive(&parties[i], &seed);
    for (uint64_t i = 0; i < kills; i++) {
        stress_party_t *victim = &parties[t_random(&seed) % VICTIMS];
        proc_sleep_us((long)(t_random(&seed) % 10000));
        proc_kill(victim->pid);
        revive(victim, &seed);
    }
    for (unsigned i = 0; i < VICTIMS; i++)
        proc_kill(parties[i].pid);
    receive_the_rest(&seed);
    (void)shc_seg_reap_participants(&seg);
    wind_up();
}
