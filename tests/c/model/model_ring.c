/* The ring, explored: producer, consumer and, when one of them dies, a successor. Every message arrives once and in
 * order; a successor of the consumer may see again what its predecessor had not given back. */
#include "ds/shc_ring.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define DATA_BYTES 4096u
#define LENGTH (DATA_BYTES / 2 - 8) /* two messages fill the ring, the third lies where the first was */
#define MESSAGES 3u

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* One process. */
typedef struct party {
    shc_self_t self;
    shc_seg_t seg;
    shc_ring_t ring;
} party_t;

static struct {
    party_t parties[MODEL_THREADS];
    uint64_t published; /* messages that are surely published */
    uint64_t taken;     /* messages that are surely given back */
    uint64_t shut_at;   /* messages that were surely published before the shutdown */
    bool shut;
    uint32_t holder; /* thread + 1 that is the producer, where several want to be */
    bool publishes_early;
    bool gives_back_early;
} plan, fresh_plan;

static uint8_t *image; /* the segment: the fake's first file */
static uint8_t fresh_image[FAKE_FILE_BYTES];

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

/* ---- sleeping as a user of the ring does ---- */

static void
sleep_for(shc_event_shm_t *event, const shc_watch_t *watch, const shc_ring_t *ring)
{
    uint32_t v = shc_event_prepare(event);
    if (shc_a64_load_relaxed(watch->word) != watch->seen || shc_ring_shutdown_flags(ring) != 0)
        return;
    if (shc_event_wait(event, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0)
        shc_event_pass_on(event);
}

/* ---- producer ---- */

static uint8_t
byte_of(uint64_t number)
{
    return (uint8_t)(number * 37 + 11);
}

/* 0, or SHC_SHUTDOWN. */
static int
send_next(shc_ring_t *ring)
{
    uint8_t *dst;
    uint64_t room;
    int r;
    while ((r = shc_ring_claim(ring, LENGTH, &dst, &room)) == SHC_FULL)
        sleep_for(&ring->shm->space, &ring->send_watch, ring);
    if (r == SHC_SHUTDOWN)
        return r;
    MODEL_CHECK(r == 0);
    uint64_t number = ring->tail.count;
    if (!plan.publishes_early)
        *dst = byte_of(number);
    shc_ring_stage(ring, LENGTH, (uint8_t)number);
    shc_ring_publish(ring);
    if (plan.publishes_early) {
        model_point("the payload");
        *dst = byte_of(number);
    }
    plan.published = number + 1 > plan.published ? number + 1 : plan.published;
    shc_event_notify_one(&ring->shm->items);
    return 0;
}

static void
produce(void)
{
    shc_ring_t *ring = &me()->ring;
    int r = shc_ring_take(ring, SHC_RING_PRODUCER);
    MODEL_CHECK(r == 0 || (r == SHC_OWNER_DIED && model_deaths() > 0));
    MODEL_CHECK(ring->tail.count >= plan.published && ring->tail.count <= plan.published + 1);
    plan.published = ring->tail.count;
    while (ring->tail.count < MESSAGES)
        if (send_next(ring) != 0)
            return;
}

/* ---- consumer ---- */

static void
consume(void)
{
    shc_ring_t *ring = &me()->ring;
    shc_ring_message_t msg = {.payload = NULL};
    int r = shc_ring_take(ring, SHC_RING_CONSUMER);
    MODEL_CHECK(r == 0 || (r == SHC_OWNER_DIED && model_deaths() > 0));
    MODEL_CHECK(ring->read.count >= plan.taken && ring->read.count <= plan.taken + 1);
    plan.taken = ring->read.count;
    while (ring->read.count < MESSAGES) {
        r = shc_ring_front(ring, &msg);
        if (r == SHC_EMPTY) {
            sleep_for(&ring->shm->items, &ring->receive_watch, ring);
            continue;
        }
        if (r == SHC_SHUTDOWN) {
            MODEL_CHECK(plan.shut || model_deaths() > 0);
            MODEL_CHECK(ring->read.count >= plan.shut_at);
            return;
        }
        MODEL_CHECK(r == 0);
        if (plan.gives_back_early) {
            shc_ring_consume(ring, &msg);
            shc_ring_give_back(ring);
            model_point("the payload");
            MODEL_CHECK(msg.payload[0] == byte_of(ring->read.count - 1));
            shc_event_notify_one(&ring->shm->space);
            continue;
        }
        MODEL_CHECK(msg.tag == (uint8_t)ring->read.count && msg.length == LENGTH);
        MODEL_CHECK(msg.payload[0] == byte_of(ring->read.count));
        shc_ring_consume(ring, &msg);
        shc_ring_give_back(ring);
        plan.taken = ring->read.count;
        shc_event_notify_one(&ring->shm->space);
    }
}

/* Somebody, at any time. */
static void
close_ring(void)
{
    plan.shut_at = plan.published;
    plan.shut = true;
    shc_ring_shutdown(&me()->ring, false);
}

/* ---- several that want to be the producer ---- */

static void
compete(void)
{
    shc_ring_t *ring = &me()->ring;
    for (int i = 0; i < 2; i++) {
        int r = shc_ring_take(ring, SHC_RING_PRODUCER);
        if (r == SHC_BUSY)
            continue;
        MODEL_CHECK(r == 0 || (r == SHC_OWNER_DIED && model_deaths() > 0));
        MODEL_CHECK(plan.holder == 0 || model_is_dead(plan.holder - 1));
        plan.holder = model_self() + 1;
        MODEL_CHECK(ring->tail.count >= plan.published && ring->tail.count <= plan.published + 1);
        if (ring->tail.count < 2)
            MODEL_CHECK(send_next(ring) == 0);
        MODEL_CHECK(plan.holder == model_self() + 1);
        plan.holder = 0;
        shc_ring_drop(ring, SHC_RING_PRODUCER);
    }
}

static void
reap(void)
{
    (void)shc_seg_reap_participants(&me()->seg);
}

/* ---- models ---- */

/* Made once: a segment that all threads have joined. */
static void
make_fresh(void)
{
    const shc_seg_create_args_t args = {.body_size = shc_ring_body_size(DATA_BYTES),
                                        .config = {8, DATA_BYTES},
                                        .participants = MODEL_THREADS + 1,
                                        .mode = 0600,
                                        .persist = true};
    static shc_self_t self;
    shc_seg_t made;
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.ring", &self, &shc_ring_spec, &args, shc_ring_init, &made));
    image = made.base;
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        party_t *party = &plan.parties[i];
        party->self = self;
        party->self.id.pid = FAKE_FIRST_PID + i;
        party->seg = made;
        party->seg.self = &party->self;
        CHECK_OK(shc_participant_join(&made.participants, &party->self.id, &party->seg.index, &party->seg.generation));
        shc_ring_open(&party->ring, &party->seg);
    }
    memcpy(fresh_image, image, sizeof fresh_image);
    fresh_plan = plan;
}

static void
reset(void)
{
    if (image == NULL) {
        fake_reset();
        make_fresh();
    }
    plan = fresh_plan;
    memcpy(image, fresh_image, sizeof fresh_image);
    model_share(plan.parties[0].ring.shm, sizeof(shc_ring_shm_t));
}

static void
reset_with_slots(void)
{
    reset();
    model_share(plan.parties[0].seg.participants.slots, (MODEL_THREADS + 1) * sizeof(shc_participant_shm_t));
}

static void
reset_publishes_early(void)
{
    reset();
    plan.publishes_early = true;
}

static void
reset_gives_back_early(void)
{
    reset();
    plan.gives_back_early = true;
}

static void
finish(void)
{
    MODEL_CHECK(shc_ring_check(&plan.parties[0].ring) == 0);
    MODEL_CHECK(shc_seg_check(&plan.parties[0].seg) == 0);
}

/* All that was to be sent has been received, and whoever slept was woken. */
static void
finish_undisturbed(void)
{
    finish();
    MODEL_CHECK(plan.published == MESSAGES && (plan.taken == MESSAGES || plan.gives_back_early));
    MODEL_CHECK(model_timeouts() == 0);
}

/* The same after a death: the heir has done the rest. */
static void
finish_after_death(void)
{
    finish();
    MODEL_CHECK(plan.published == MESSAGES);
    MODEL_CHECK(plan.taken == MESSAGES);
    MODEL_CHECK(model_deaths() > 0 || model_timeouts() == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(every_message_once_and_in_order, 120)
{
    static const model_t models[] = {
        {.name = "producer and consumer",
         .threads = 2,
         .body = {produce, consume},
         .reset = reset,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "producer, consumer, somebody shuts down",
         .threads = 3,
         .body = {produce, consume, close_ring},
         .reset = reset,
         .finish = finish,
         .preemptions = 3},
        {.name = "two that want to be the producer",
         .threads = 2,
         .body = {compete, compete},
         .reset = reset_with_slots,
         .finish = finish,
         .preemptions = 4},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(an_heir_does_the_rest, 120)
{
    static const model_t models[] = {
        {.name = "the producer dies",
         .threads = 3,
         .body = {produce, consume, produce},
         .heir = {0, 0, 1},
         .killable = 1,
         .reset = reset,
         .finish = finish_after_death,
         .preemptions = 3,
         .kills = 1},
        {.name = "the consumer dies",
         .threads = 3,
         .body = {produce, consume, consume},
         .heir = {0, 0, 2},
         .killable = 2,
         .reset = reset,
         .finish = finish_after_death,
         .preemptions = 3,
         .kills = 1},
        {.name = "both die",
         .threads = 4,
         .body = {produce, consume, produce, consume},
         .heir = {0, 0, 1, 2},
         .killable = 3,
         .reset = reset,
         .finish = finish_after_death,
         .preemptions = 1,
         .kills = 2},
        {.name = "two that want to be the producer, one dies",
         .threads = 2,
         .body = {compete, compete},
         .reset = reset_with_slots,
         .finish = finish,
         .preemptions = 3,
         .kills = 1},
        {.name = "the same, and somebody reaps",
         .threads = 3,
         .body = {compete, compete, reap},
         .reset = reset_with_slots,
         .finish = finish,
         .preemptions = 2,
         .kills = 1,
         .killable = 3},
        {.name = "two of these die",
         .threads = 3,
         .body = {compete, compete, reap},
         .reset = reset_with_slots,
         .finish = finish,
         .preemptions = 1,
         .kills = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "published before the payload is there",
         .threads = 2,
         .body = {produce, consume},
         .reset = reset_publishes_early,
         .finish = finish_undisturbed,
         .preemptions = 3,
         .must_fail = true},
        {.name = "given back before the payload is read",
         .threads = 2,
         .body = {produce, consume},
         .reset = reset_gives_back_early,
         .finish = finish_undisturbed,
         .preemptions = 3,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
