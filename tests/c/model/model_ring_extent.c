/* Large messages of a ring, explored: who sends, receives, leaves, clears, dies and sweeps at once. Every message that
 * was published is received, once unless its receiver died, and its bytes are right as long as anybody has it; in the
 * end no memory is anybody's. */
#define FAKE_FILE_BYTES 262144u
#include "ds/shc_ring_extent.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define DATA_BYTES 4096u
#define HALF (DATA_BYTES / 2 - 8) /* a small message that takes half of the ring */
#define PAGES 2u
#define PARTIES (MODEL_THREADS + 1)
#define INSPECTOR MODEL_THREADS /* looks at what is left */
#define MESSAGES 4u

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
    shc_arena_t arena;
} party_t;

static struct {
    party_t parties[PARTIES];
    uint32_t received[MESSAGES]; /* how often, by number */
    bool cleared;                /* some may have been forgotten */
    bool adopts_late;
} plan;

static uint8_t *image; /* the segment: the fake's first file */

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

/* ---- messages ---- */

static uint64_t
word_of(uint64_t number)
{
    return (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool
is_right(const uint8_t *at, uint64_t number)
{
    return shc_racy_u64(at) == word_of(number);
}

static int
send_large(party_t *p)
{
    shc_extent_t extent;
    uint64_t word = word_of(p->ring.tail.count);
    int r = shc_ring_claim_extent(&p->ring, &p->arena, 1, &extent);
    if (r != 0)
        return r;
    memcpy(extent.memory, &word, sizeof word);
    shc_ring_stage_extent(&p->ring, &extent, sizeof word, 0);
    shc_ring_publish(&p->ring);
    return 0;
}

static int
send_half(party_t *p)
{
    uint8_t *dst;
    uint64_t room, word = word_of(p->ring.tail.count);
    int r = shc_ring_claim(&p->ring, HALF, &dst, &room);
    if (r != 0)
        return r;
    memcpy(dst, &word, sizeof word);
    shc_ring_stage(&p->ring, HALF, 0);
    shc_ring_publish(&p->ring);
    return 0;
}

static void
go_past(party_t *p, const shc_ring_message_t *msg, uint64_t number)
{
    plan.received[number]++;
    shc_ring_consume(&p->ring, msg);
    shc_ring_give_back(&p->ring);
}

/* One message, if there is one. */
static int
receive(party_t *p)
{
    shc_ring_message_t msg;
    shc_extent_t extent;
    uint64_t number = p->ring.read.count;
    int r = shc_ring_front(&p->ring, &msg);
    if (r != 0)
        return r;
    if ((msg.tag & SHC_EXTENT_TAG) == 0) {
        MODEL_CHECK(is_right(msg.payload, number));
        go_past(p, &msg, number);
        return 0;
    }
    MODEL_CHECK(shc_extent_read(&p->arena, msg.payload, msg.length, &extent) == 0);
    if (!plan.adopts_late)
        MODEL_CHECK(shc_arena_adopt(&p->arena, extent.ref) == 0);
    go_past(p, &msg, number);
    if (plan.adopts_late)
        MODEL_CHECK(shc_arena_adopt(&p->arena, extent.ref) == 0);
    MODEL_CHECK(is_right(extent.memory, number));
    MODEL_CHECK(shc_arena_release(&p->arena, extent.ref) == 0);
    return 0;
}

static bool
takes(party_t *p, int end)
{
    int r = shc_ring_take(&p->ring, end);
    MODEL_CHECK(r == 0 || r == SHC_OWNER_DIED || r == SHC_BUSY);
    return r != SHC_BUSY;
}

/* ---- bodies ---- */

static void
send_one(void)
{
    if (takes(me(), SHC_RING_PRODUCER))
        MODEL_CHECK(send_large(me()) == 0);
    shc_ring_drop(&me()->ring, SHC_RING_PRODUCER);
}

/* The ring has room for it when its oldest half has been received. */
static void
send_one_half(void)
{
    if (takes(me(), SHC_RING_PRODUCER) && send_half(me()) == 0)
        model_point("sent over what was received");
    shc_ring_drop(&me()->ring, SHC_RING_PRODUCER);
}

static void
receive_all(void)
{
    if (takes(me(), SHC_RING_CONSUMER))
        while (receive(me()) == 0)
            ;
    shc_ring_drop(&me()->ring, SHC_RING_CONSUMER);
}

static void
receive_one(void)
{
    if (takes(me(), SHC_RING_CONSUMER))
        (void)receive(me());
    shc_ring_drop(&me()->ring, SHC_RING_CONSUMER);
}

static void
clear(void)
{
    plan.cleared = true;
    if (takes(me(), SHC_RING_CONSUMER))
        MODEL_CHECK(shc_ring_clear_extents(&me()->ring, &me()->arena) == 0);
    shc_ring_drop(&me()->ring, SHC_RING_CONSUMER);
}

static void
leave(void)
{
    shc_ring_extents_leave(&me()->ring, &me()->arena);
}

/* Without a look at what its messages refer to. */
static void
leave_at_once(void)
{
    shc_arena_leave(&me()->arena);
}

static void
die(void)
{
    model_exit();
}

static void
reap(void)
{
    (void)shc_seg_reap_participants(&me()->seg);
}

/* What shc_ring_extent.c does, but without a look at the head: a record that was overwritten ends it. */
static void
settle_without_a_second_look(const shc_ring_t *ring, shc_arena_t *arena, uint32_t index)
{
    uint64_t position = shc_a64_load_acquire(&ring->shm->head) & SHC_RING_POSITION_MASK; /* A2 */
    uint64_t tail = shc_a64_load_acquire(&ring->shm->tail) & SHC_RING_POSITION_MASK;     /* A1 */
    while (position != tail) {
        const uint8_t *at = shc_ring_record_at(ring, position);
        uint64_t head = shc_racy_u64(at);
        if (head != shc_ring_record_head(ring, position, (uint32_t)head, (uint8_t)(head >> 32)))
            return;
        if (head >> 32 & SHC_EXTENT_TAG)
            shc_arena_settle(arena, index, shc_racy_u64(at + SHC_RING_RECORD_HEAD));
        position += shc_ring_record_units((uint32_t)head);
    }
}

static void
reap_without_a_second_look(void)
{
    uint32_t index = plan.parties[0].seg.index;
    settle_without_a_second_look(&me()->ring, &me()->arena, index);
    shc_arena_sweep(&me()->arena, index, NULL, NULL);
}

/* ---- models ---- */

static void
add_party(uint32_t i, const shc_seg_t *made, const shc_self_t *self)
{
    party_t *party = &plan.parties[i];
    party->self = *self;
    party->self.id.pid = FAKE_FIRST_PID + i;
    party->seg = *made;
    party->seg.self = &party->self;
    CHECK_OK(shc_participant_join(&made->participants, &party->self.id, &party->seg.index, &party->seg.generation));
    shc_ring_open(&party->ring, &party->seg);
    shc_ring_extents_open(&party->arena, &party->seg);
}

/* A segment that all have joined. */
static void
make_segment(void)
{
    static shc_self_t self;
    shc_seg_t made;
    shc_seg_create_args_t args = {.config = {8, DATA_BYTES}, .participants = PARTIES, .mode = 0600, .persist = true};
    fake_reset();
    memset(&plan, 0, sizeof plan);
    shc_ring_set_extent_bytes(args.config, PAGES << SHC_EXTENT_PAGE_SHIFT);
    CHECK_OK(shc_ring_lay_out(&args));
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.ring", &self, &shc_ring_spec, &args, shc_ring_init, &made));
    shc_participant_end_leave(&made.participants, made.index);
    image = made.base;
    for (uint32_t i = 0; i < PARTIES; i++)
        add_party(i, &made, &self);
}

/* All pages have memory, and nobody has them. */
static void
make_grown(void)
{
    party_t *p = &plan.parties[INSPECTOR];
    shc_ref_t refs[PAGES];
    make_segment();
    for (uint32_t i = 0; i < PAGES; i++)
        CHECK_OK(shc_arena_allocate(&p->arena, UINT64_C(1) << SHC_EXTENT_PAGE_SHIFT, &refs[i]));
    for (uint32_t i = 0; i < PAGES; i++)
        CHECK_OK(shc_arena_release(&p->arena, refs[i]));
}

/* A small message is on its way, and no memory was ever asked for. */
static void
make_small_sent(void)
{
    party_t *p = &plan.parties[0];
    make_segment();
    CHECK_OK(shc_ring_take(&p->ring, SHC_RING_PRODUCER));
    CHECK_OK(send_half(p));
}

/* One large message on its way, sent by party 0. */
static void
make_large_sent(void)
{
    party_t *p = &plan.parties[0];
    make_grown();
    CHECK_OK(shc_ring_take(&p->ring, SHC_RING_PRODUCER));
    CHECK_OK(send_large(p));
    shc_ring_drop(&p->ring, SHC_RING_PRODUCER);
}

/* A small one that takes half of the ring, and a large one behind it. */
static void
make_half_and_large_sent(void)
{
    party_t *p = &plan.parties[0];
    make_grown();
    CHECK_OK(shc_ring_take(&p->ring, SHC_RING_PRODUCER));
    CHECK_OK(send_half(p));
    CHECK_OK(send_large(p));
}

/* What is copied back before each schedule: all that is ever written. */
static struct {
    uint64_t from;
    uint64_t n;
} touched[2 + PAGES];
static uint8_t fresh_image[FAKE_FILE_BYTES];
static uint8_t fresh_plan[sizeof plan];
static void (*made_for)(void);

static void
find_touched(void)
{
    const shc_arena_geometry_t *g = &plan.parties[0].arena.g;
    uint64_t body = plan.parties[0].seg.id.body_offset;
    touched[0].n = body + shc_ring_body_size(DATA_BYTES);
    touched[1].from = g->at;
    touched[1].n = g->record_table - g->at;
    for (uint32_t i = 0; i < PAGES; i++) {
        touched[2 + i].from = g->data + ((uint64_t)i << g->page_shift);
        touched[2 + i].n = 64;
    }
}

static void
restore(void (*make)(void))
{
    if (made_for != make) {
        make();
        find_touched();
        memcpy(fresh_image, image, sizeof fresh_image);
        memcpy(fresh_plan, &plan, sizeof plan);
        made_for = make;
    }
    memcpy(&plan, fresh_plan, sizeof plan);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(touched); i++)
        memcpy(image + touched[i].from, fresh_image + touched[i].from, touched[i].n);
    const party_t *p = &plan.parties[0];
    model_share(&p->ring.shm->tail, sizeof(shc_a64_t));
    model_share(&p->ring.shm->head, sizeof(shc_a64_t));
    model_share(p->arena.words, PAGES * sizeof(shc_a64_t));
    model_share(&p->arena.shm->frontier, sizeof(shc_a64_t));
}

static void
reset_grown(void)
{
    restore(make_grown);
}

static void
reset_small_sent(void)
{
    restore(make_small_sent);
}

static void
reset_large_sent(void)
{
    restore(make_large_sent);
}

static void
reset_half_and_large_sent(void)
{
    restore(make_half_and_large_sent);
}

static void
reset_large_sent_adopts_late(void)
{
    restore(make_large_sent);
    plan.adopts_late = true;
}

static void
finish(void)
{
    party_t *p = &plan.parties[INSPECTOR];
    (void)shc_seg_reap_participants(&p->seg);
    MODEL_CHECK(shc_arena_check(&p->arena) == 0);
    plan.adopts_late = false;
    MODEL_CHECK(takes(p, SHC_RING_CONSUMER) && takes(p, SHC_RING_PRODUCER));
    while (p->ring.read.count != p->ring.tail.count)
        MODEL_CHECK(receive(p) == 0);
    for (uint64_t i = 0; i < p->ring.tail.count && !plan.cleared; i++)
        MODEL_CHECK(plan.received[i] == 1 || (plan.received[i] > 1 && model_deaths() > 0));
    MODEL_CHECK(!shc_arena_is_used(&p->arena));
    MODEL_CHECK(shc_ring_check(&p->ring) == 0);
    MODEL_CHECK(shc_arena_check(&p->arena) == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(large_messages_come_through, 120)
{
    static const model_t models[] = {
        {.name = "sender and receiver",
         .threads = 2,
         .body = {send_one, receive_all},
         .reset = reset_grown,
         .finish = finish,
         .preemptions = 4},
        {.name = "the sender leaves",
         .threads = 2,
         .body = {leave, receive_all},
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 4},
        {.name = "the sender leaves, another sends",
         .threads = 3,
         .body = {leave, receive_all, send_one},
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 3},
        {.name = "the first large one comes while one clears",
         .threads = 2,
         .body = {send_one, clear},
         .reset = reset_small_sent,
         .finish = finish,
         .preemptions = 3},
        {.name = "one clears while the sender leaves",
         .threads = 2,
         .body = {leave, clear},
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 4},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(the_dead_are_swept_while_others_work, 120)
{
    static const model_t models[] = {
        {.name = "the sender dies",
         .threads = 3,
         .body = {send_one, receive_all, reap},
         .heir = {0, 0, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_grown,
         .finish = finish,
         .preemptions = 2},
        {.name = "the sender dies, another sends",
         .threads = 4,
         .body = {die, receive_all, reap, send_one},
         .heir = {0, 0, 1, 0},
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 2},
        {.name = "the receiver dies",
         .threads = 3,
         .body = {receive_all, receive_all, reap},
         .heir = {0, 1, 1},
         .killable = 1,
         .kills = 1,
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 3},
        {.name = "the receiver dies, its sweeper dies",
         .threads = 4,
         .body = {receive_all, reap, receive_all, reap},
         .heir = {0, 1, 1, 2},
         .killable = 3,
         .kills = 2,
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 1},
        {.name = "records are overwritten under the sweep",
         .threads = 4,
         .body = {die, receive_one, send_one_half, reap},
         .heir = {0, 0, 1, 1},
         .reset = reset_half_and_large_sent,
         .finish = finish,
         .preemptions = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "the sender leaves without settling",
         .threads = 2,
         .body = {leave_at_once, receive_all},
         .reset = reset_large_sent,
         .finish = finish,
         .preemptions = 3,
         .must_fail = true},
        {.name = "the receiver adopts behind the head",
         .threads = 2,
         .body = {leave, receive_all},
         .reset = reset_large_sent_adopts_late,
         .finish = finish,
         .preemptions = 3,
         .must_fail = true},
        {.name = "the sweep does not look at the head again",
         .threads = 4,
         .body = {die, receive_one, send_one_half, reap_without_a_second_look},
         .heir = {0, 0, 1, 1},
         .reset = reset_half_and_large_sent,
         .finish = finish,
         .preemptions = 3,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
