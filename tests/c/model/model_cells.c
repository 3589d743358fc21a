/* The cell ring, explored: senders and receivers that wait, for places or for memory, somebody who shuts down, deaths
 * and a reaper. Every message arrives once, whole, and not before an older one; nobody sleeps while it could go on. */
#include "ds/shc_cells.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define CELLS 64u
#define SHORT 8u
#define LONG 2048u /* two of them fill the memory */
#define NUMBERS 32u

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* One process. */
typedef struct party {
    shc_self_t self;
    shc_seg_t seg;
    shc_cells_t ring;
} party_t;

static struct {
    party_t parties[MODEL_THREADS];
    uint8_t sent[NUMBERS];    /* send has returned */
    uint8_t arrived[NUMBERS]; /* take has returned */
    uint32_t lengths[NUMBERS];
    uint32_t length[MODEL_THREADS]; /* of what a sender sends */
    uint32_t each;                  /* messages that it sends */
    uint32_t rest;                  /* what receive_by_turns has still to receive */
    bool gate_is_open;
    bool publishes_early;    /* a mistake: before the payload */
    bool gives_back_early;   /* a mistake: before it has read */
    bool forgets_wake;       /* a mistake: sends by the word alone */
    bool takes_number_first; /* a mistake: moves tail, then claims */
    bool ignores_shutdown;   /* a mistake: does not look again after its claim */
    bool keeps_wake;         /* a mistake: a sender does not hand on what is of no use to it */
} plan, fresh_plan;

static shc_event_shm_t gate;
static uint8_t *image; /* the segment: the fake's first file */
static uint8_t fresh_image[FAKE_FILE_BYTES];
static uint64_t fresh_capacity;

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

static uint32_t
my_length(void)
{
    return plan.length[model_self()];
}

static uint64_t
number_of(const shc_cells_slot_t *slot)
{
    return slot->cursor >> 24;
}

static uint8_t
byte_of(const shc_cells_slot_t *slot)
{
    return (uint8_t)(number_of(slot) * 37 + 11);
}

/* As the memory is, without a point. */
static uint64_t
word_of(const shc_cells_t *ring, uint64_t number)
{
    uint64_t word;
    memcpy(&word, &ring->entries[number & ring->entry_mask].word, sizeof word);
    return word;
}

/* ---- sleeping as a user of the ring does ---- */

static void
leave_woken(shc_event_shm_t *event, bool woken)
{
    if (!woken)
        return;
    shc_event_pass_on(event);
    shc_event_notify_one(event);
}

static void
sleep_once(shc_event_shm_t *event, uint32_t prepared, bool *woken)
{
    *woken |= shc_event_wait(event, prepared, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0;
}

/* ---- sender ---- */

/* What many queues do: whoever is killed in between leaves a number that is nobody's. */
static int
claim_number_first(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    uint64_t tail = shc_a64_load_relaxed(&ring->shm->tail);
    while (!shc_a64_cas_seq_cst(&ring->shm->tail, &tail, shc_cells_after(tail, 0, CELLS)))
        continue;
    slot->base = slot->cursor = tail;
    slot->next = shc_cells_after(tail, 0, CELLS);
    slot->entry = shc_cells__entry(ring, tail);
    slot->word = shc_cells_word(tail & SHC_CELLS_NUMBER, SHC_CELLS_CLAIMED, 0, shc_cells__me(ring));
    shc_cells__set_payload(ring, slot);
    shc_a64_store_relaxed(&slot->entry->word, slot->word);
    return 0;
}

static int
claim_blindly(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    uint64_t tail = shc_a64_load_relaxed(&ring->shm->tail);
    slot->base = slot->cursor = tail;
    slot->next = shc_cells_after(tail, 0, CELLS);
    slot->entry = shc_cells__entry(ring, tail);
    slot->word = shc_cells_word(tail & SHC_CELLS_NUMBER, SHC_CELLS_CLAIMED, 0, shc_cells__me(ring));
    shc_cells__set_payload(ring, slot);
    uint64_t before = word_of(ring, number_of(slot));
    if (shc_a32_load_relaxed(&ring->shm->shutdown) != 0)
        return SHC_SHUTDOWN;
    return shc_a64_cas_seq_cst(&slot->entry->word, &before, slot->word) ? 0 : SHC_FULL;
}

static int
claim(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    if (plan.takes_number_first)
        return claim_number_first(ring, slot);
    if (plan.ignores_shutdown)
        return claim_blindly(ring, slot);
    return shc_cells_claim(ring, my_length(), slot);
}

/* 0 or SHC_SHUTDOWN. Who was woken where places are given out, and then lacks memory, leaves that event. */
static int
insist_on_place(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    shc_event_shm_t *woken_by = NULL;
    int r;
    while ((r = claim(ring, slot)) == SHC_FULL) {
        shc_event_shm_t *event = shc_cells_space_event(ring, slot);
        bool woken = false;
        if (woken_by != NULL && woken_by != event) {
            leave_woken(woken_by, !plan.keeps_wake);
            woken_by = NULL;
        }
        uint32_t v = shc_event_prepare(event);
        if ((r = claim(ring, slot)) != SHC_FULL)
            break;
        if (shc_cells_space_event(ring, slot) == event && !shc_cells_unblock(ring, slot))
            sleep_once(event, v, &woken);
        if (woken)
            woken_by = event;
    }
    leave_woken(woken_by, woken_by != NULL);
    return r;
}

static void
publish(shc_cells_t *ring, shc_cells_slot_t *slot)
{
    uint64_t number = number_of(slot);
    plan.lengths[number] = my_length();
    if (!plan.publishes_early)
        *slot->payload = byte_of(slot);
    if (plan.forgets_wake)
        shc_cells_publish(slot, my_length(), (uint8_t)number, 0);
    else
        shc_cells_send(ring, slot, my_length(), (uint8_t)number, 0);
    if (plan.publishes_early) {
        model_point("the payload");
        *slot->payload = byte_of(slot);
    }
    plan.sent[number]++;
}

static void
send(void)
{
    shc_cells_slot_t slot;
    for (uint32_t i = 0; i < plan.each; i++) {
        int r = insist_on_place(&me()->ring, &slot);
        if (r == SHC_SHUTDOWN)
            return;
        MODEL_CHECK(r == 0);
        publish(&me()->ring, &slot);
    }
}

static void
send_one(void)
{
    shc_cells_slot_t slot;
    MODEL_CHECK(insist_on_place(&me()->ring, &slot) == 0);
    publish(&me()->ring, &slot);
}

/* Two at once. */
static void
send_batch(void)
{
    shc_cells_t *ring = &me()->ring;
    shc_cells_slot_t first, second;
    MODEL_CHECK(insist_on_place(ring, &first) == 0);
    if (shc_cells_claim_next(ring, &first, my_length(), &second) != 0) {
        publish(ring, &first);
        send_one();
        return;
    }
    plan.lengths[number_of(&first)] = plan.lengths[number_of(&second)] = my_length();
    *first.payload = byte_of(&first);
    *second.payload = byte_of(&second);
    shc_cells_publish(&first, my_length(), (uint8_t)number_of(&first), 0);
    shc_cells_publish(&second, my_length(), (uint8_t)number_of(&second), 0);
    shc_cells_end_claims(ring, &second);
    plan.sent[number_of(&first)]++;
    plan.sent[number_of(&second)]++;
    shc_event_notify_one(&ring->shm->items);
}

/* Sends one after having given one up. */
static void
abort_and_send(void)
{
    shc_cells_slot_t slot;
    MODEL_CHECK(insist_on_place(&me()->ring, &slot) == 0);
    *slot.payload = 0;
    shc_cells_abort(&me()->ring, &slot);
    send_one();
}

/* ---- receiver ---- */

static void
note_arrival(const shc_cells_t *ring, const shc_cells_slot_t *slot)
{
    uint64_t number = number_of(slot);
    MODEL_CHECK(number < NUMBERS && plan.arrived[number]++ == 0);
    for (uint64_t older = 0; older < number; older++) {
        uint64_t word = word_of(ring, older);
        if (word >> 24 == older)
            MODEL_CHECK(shc_cells_state(word) != SHC_CELLS_READY && shc_cells_state(word) != SHC_CELLS_CLAIMED);
    }
}

static void
read_and_finish(shc_cells_t *ring, const shc_cells_slot_t *slot)
{
    if (plan.gives_back_early)
        shc_cells_finish(ring, slot);
    model_point("the payload");
    MODEL_CHECK(slot->length == plan.lengths[number_of(slot)] && slot->tag == (uint8_t)number_of(slot));
    MODEL_CHECK(*slot->payload == byte_of(slot));
    if (!plan.gives_back_early)
        shc_cells_finish(ring, slot);
}

/* 0; SHC_SHUTDOWN; SHC_EMPTY when no sender is left. */
static int
insist_on_message(shc_cells_t *ring, bool (*is_over)(void), shc_cells_slot_t *slot)
{
    shc_event_shm_t *event = &ring->shm->items;
    bool woken = false;
    int r;
    while ((r = shc_cells_take(ring, slot)) == SHC_EMPTY || r == SHC_BUSY) {
        uint32_t v = shc_event_prepare(event);
        bool over = is_over();
        if ((r = shc_cells_take(ring, slot)) != SHC_EMPTY && r != SHC_BUSY)
            break;
        if (r == SHC_EMPTY && over)
            break;
        if (!shc_cells_unblock(ring, slot))
            sleep_once(event, v, &woken);
    }
    leave_woken(event, woken);
    return r;
}

static bool
never(void)
{
    return false;
}

static void
receive(unsigned n)
{
    shc_cells_slot_t slot;
    for (unsigned i = 0; i < n; i++) {
        MODEL_CHECK(insist_on_message(&me()->ring, never, &slot) == 0);
        note_arrival(&me()->ring, &slot);
        read_and_finish(&me()->ring, &slot);
    }
}

/* Receives one, and the rest when what that had room for has been sent. */
static void
receive_by_turns(void)
{
    receive(1);
    for (;;) {
        uint32_t v = shc_event_prepare(&gate);
        if (plan.gate_is_open)
            break;
        (void)!shc_event_wait(&gate, v, shc_os_now_ns() + SHC_EVENT_SLICE_MAX_NS);
    }
    receive(plan.rest);
}

static void
send_and_open(void)
{
    send_one();
    plan.gate_is_open = true;
    shc_event_notify_all(&gate);
}

static void
receive_one(void)
{
    receive(1);
}

static void
receive_two(void)
{
    receive(2);
}

static void
receive_three(void)
{
    receive(3);
}

static void
receive_four(void)
{
    receive(4);
}

static void
receive_until_shutdown(void)
{
    shc_cells_slot_t slot;
    int r;
    while ((r = insist_on_message(&me()->ring, never, &slot)) == 0) {
        note_arrival(&me()->ring, &slot);
        read_and_finish(&me()->ring, &slot);
    }
    MODEL_CHECK(r == SHC_SHUTDOWN);
}

/* Senders are threads 0 and 1. */
static bool
senders_are_gone(void)
{
    return (model_is_dead(0) || model_has_ended(0)) && (model_is_dead(1) || model_has_ended(1));
}

static void
receive_what_comes(void)
{
    shc_cells_slot_t slot;
    while (insist_on_message(&me()->ring, senders_are_gone, &slot) == 0) {
        note_arrival(&me()->ring, &slot);
        read_and_finish(&me()->ring, &slot);
    }
}

/* ---- others ---- */

static void
shut_down(void)
{
    shc_cells_shutdown(&me()->ring, false);
}

static void
reap(void)
{
    (void)shc_seg_reap_participants(&me()->seg);
}

/* ---- models ---- */

static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    const shc_seg_t *seg = arg;
    shc_cells_geometry_t g;
    shc_cells_t ring;
    (void)generation;
    CHECK_OK(shc_cells_from_config(seg->id.config, &g));
    shc_cells_open(&ring, seg, shc_seg_body(seg), &g, 0);
    shc_cells_sweep(&ring, index);
}

static const shc_seg_spec_t spec = {.kind = 0xfffffffd, .body_align = SHC_HOT_PAD, .sweep = sweep};

static void
init(shc_seg_t *seg)
{
    shc_cells_geometry_t g;
    CHECK_OK(shc_cells_from_config(seg->id.config, &g));
    shc_cells_init(shc_seg_body(seg), &g);
}

/* Made once for each capacity: a segment that all threads have joined. */
static void
make_fresh(uint64_t capacity)
{
    shc_cells_geometry_t g = {.capacity = capacity, .entries = capacity, .cells = CELLS};
    shc_seg_create_args_t args = {.participants = MODEL_THREADS + 1, .mode = 0600, .persist = true};
    static shc_self_t self;
    shc_seg_t made;
    CHECK_OK(shc_cells_lay_out(&g));
    shc_cells_to_config(&g, args.config);
    args.body_size = g.size;
    memset(&plan, 0, sizeof plan);
    fake_reset();
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.cells", &self, &spec, &args, init, &made));
    image = made.base;
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        party_t *party = &plan.parties[i];
        party->self = self;
        party->self.id.pid = FAKE_FIRST_PID + i;
        party->seg = made;
        party->seg.self = &party->self;
        CHECK_OK(shc_participant_join(&made.participants, &party->self.id, &party->seg.index, &party->seg.generation));
        shc_cells_open(&party->ring, &party->seg, shc_seg_body(&made), &g, 8);
    }
    memcpy(fresh_image, image, sizeof fresh_image);
    fresh_plan = plan;
    fresh_capacity = capacity;
}

static void
reset_to(uint64_t capacity, uint32_t length, uint32_t each)
{
    if (image == NULL || fresh_capacity != capacity)
        make_fresh(capacity);
    plan = fresh_plan;
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        plan.length[i] = length;
    plan.each = each;
    memcpy(image, fresh_image, sizeof fresh_image);
    model_share(plan.parties[0].ring.shm, sizeof(shc_cells_shm_t));
    model_share(plan.parties[0].ring.entries, capacity * sizeof(shc_cells_entry_shm_t));
}

static void
reset_one(void)
{
    reset_to(1, SHORT, 2);
}

static void
reset_two(void)
{
    reset_to(2, SHORT, 2);
}

static void
reset_four(void)
{
    reset_to(4, SHORT, 2);
}

static void
reset_memory(void)
{
    reset_to(4, LONG, 2);
}

/* What lies there when the threads begin. */
static void
fill_beforehand(const uint32_t *lengths, unsigned n)
{
    shc_cells_t *ring = &plan.parties[0].ring;
    memset(&gate, 0, sizeof gate);
    for (unsigned i = 0; i < n; i++) {
        shc_cells_slot_t slot;
        plan.lengths[i] = lengths[i];
        plan.sent[i] = 1;
        MODEL_CHECK(shc_cells_claim(ring, lengths[i], &slot) == 0);
        *slot.payload = byte_of(&slot);
        shc_cells_send(ring, &slot, lengths[i], (uint8_t)i, 0);
    }
    plan.rest = n + 1;
    model_share(&gate, sizeof gate);
}

/* No place is left and no memory; the oldest message has none to give back. */
static void
reset_mixed(void)
{
    static const uint32_t lengths[] = {SHORT, LONG, LONG, SHORT};
    reset_to(4, SHORT, 1);
    fill_beforehand(lengths, SHC_ARRAY_SIZE(lengths));
    plan.length[0] = LONG;
}

/* No memory is left; the oldest message has little to give back. */
static void
reset_little_memory(void)
{
    static const uint32_t lengths[] = {2 * 64, LONG, LONG - 2 * 64};
    reset_to(4, SHORT, 1);
    fill_beforehand(lengths, SHC_ARRAY_SIZE(lengths));
    plan.length[0] = LONG;
    plan.length[1] = 2 * 64;
}

static void
reset_keeps_wake(void)
{
    reset_mixed();
    plan.keeps_wake = true;
}

static void
reset_each_one(void)
{
    reset_to(2, SHORT, 1);
}

static void
reset_with_participants(void)
{
    reset_to(2, SHORT, 1);
    model_share(plan.parties[0].seg.participants.slots, (MODEL_THREADS + 1) * sizeof(shc_participant_shm_t));
}

static void
reset_publishes_early(void)
{
    reset_two();
    plan.publishes_early = true;
}

static void
reset_gives_back_early(void)
{
    reset_one();
    plan.gives_back_early = true;
}

static void
reset_forgets_wake(void)
{
    reset_two();
    plan.forgets_wake = true;
}

static void
reset_takes_number_first(void)
{
    reset_four();
    plan.each = 1;
    plan.takes_number_first = true;
}

static void
reset_ignores_shutdown(void)
{
    reset_four();
    plan.each = 1;
    plan.ignores_shutdown = true;
}

/* ---- what must hold ---- */

static shc_cells_counts_t
count(void)
{
    shc_cells_t *ring = &plan.parties[0].ring;
    MODEL_CHECK(shc_cells_check(ring) == 0);
    shc_cells_counts_t n = shc_cells_count(ring);
    MODEL_CHECK(n.sent == n.received + n.lost + n.ready + n.held);
    return n;
}

static void
finish_undisturbed(void)
{
    shc_cells_counts_t n = count();
    MODEL_CHECK(n.ready + n.held + n.writing + n.lost == 0);
    for (unsigned i = 0; i < NUMBERS; i++)
        MODEL_CHECK(plan.sent[i] == plan.arrived[i]);
    MODEL_CHECK(model_timeouts() == 0);
}

/* Who was in the middle loses one message, its own or the one that it had taken. */
static void
finish_after_death(void)
{
    shc_cells_counts_t n = count();
    MODEL_CHECK(n.lost + n.held + n.writing <= model_deaths());
    for (unsigned i = 0; i < NUMBERS; i++)
        MODEL_CHECK(plan.arrived[i] <= 1);
    uint64_t sent = 0, arrived = 0;
    for (unsigned i = 0; i < NUMBERS; i++) {
        sent += plan.sent[i];
        arrived += plan.arrived[i];
    }
    MODEL_CHECK(sent <= arrived + model_deaths() + n.ready);
    bool receiver_lives = !model_is_dead(2);
    MODEL_CHECK(!receiver_lives || n.ready + n.writing == 0);
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
        {.name = "1 sender, 1 receiver, 1 place",
         .threads = 2,
         .body = {send, receive_two},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 3},
        {.name = "2 senders, 1 receiver",
         .threads = 3,
         .body = {send, send_one, receive_three},
         .reset = reset_two,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "1 sender, 2 receivers",
         .threads = 3,
         .body = {send, receive_one, receive_one},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "2 senders, 2 receivers",
         .threads = 4,
         .body = {send_one, send_one, receive_one, receive_one},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "batch, sender, receiver",
         .threads = 3,
         .body = {send_batch, send_one, receive_three},
         .reset = reset_four,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "2 senders, one gives up, receiver",
         .threads = 3,
         .body = {abort_and_send, send_one, receive_two},
         .reset = reset_two,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "2 senders that want memory, receiver",
         .threads = 3,
         .body = {send, send, receive_four},
         .reset = reset_memory,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "one wants memory, one a place",
         .threads = 3,
         .body = {send_one, send_and_open, receive_by_turns},
         .reset = reset_mixed,
         .finish = finish_undisturbed,
         .preemptions = 2},
        {.name = "one wants much memory, one little",
         .threads = 3,
         .body = {send_one, send_and_open, receive_by_turns},
         .reset = reset_little_memory,
         .finish = finish_undisturbed,
         .preemptions = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(shutdown_loses_nothing, 120)
{
    static const model_t models[] = {
        {.name = "sender, receiver, somebody shuts down",
         .threads = 3,
         .body = {send, receive_until_shutdown, shut_down},
         .reset = reset_four,
         .finish = finish_undisturbed,
         .preemptions = 3},
        {.name = "2 senders, receiver, somebody shuts down",
         .threads = 4,
         .body = {send, send, receive_until_shutdown, shut_down},
         .reset = reset_each_one,
         .finish = finish_undisturbed,
         .preemptions = 1},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(deaths_are_survived, 120)
{
    static const model_t models[] = {
        {.name = "2 senders, receiver, one dies",
         .threads = 3,
         .body = {send, send_one, receive_what_comes},
         .reset = reset_two,
         .finish = finish_after_death,
         .preemptions = 1,
         .kills = 1,
         .killable = 3},
        {.name = "2 senders, 2 receivers, one of them dies",
         .threads = 4,
         .body = {send_one, send_one, receive_what_comes, receive_what_comes},
         .reset = reset_one,
         .finish = finish_after_death,
         .preemptions = 1,
         .kills = 1,
         .killable = 8},
        {.name = "2 senders, 2 receivers, two die",
         .threads = 4,
         .body = {send_one, send_one, receive_what_comes, receive_what_comes},
         .reset = reset_four,
         .finish = finish_after_death,
         .preemptions = 0,
         .kills = 2,
         .killable = 11},
        {.name = "sender, receivers, one dies, somebody reaps",
         .threads = 4,
         .body = {send_one, reap, receive_what_comes, receive_what_comes},
         .reset = reset_with_participants,
         .finish = finish_after_death,
         .preemptions = 1,
         .kills = 1},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "published before the payload",
         .threads = 2,
         .body = {send, receive_two},
         .reset = reset_publishes_early,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
        {.name = "given back before it was read",
         .threads = 2,
         .body = {send, receive_two},
         .reset = reset_gives_back_early,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
        {.name = "sent without a wake",
         .threads = 2,
         .body = {send, receive_two},
         .reset = reset_forgets_wake,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
        {.name = "a wake is kept that was of no use",
         .threads = 3,
         .body = {send_one, send_and_open, receive_by_turns},
         .reset = reset_keeps_wake,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
        {.name = "a number first, then the claim",
         .threads = 3,
         .body = {send, send, receive_what_comes},
         .reset = reset_takes_number_first,
         .finish = finish_after_death,
         .preemptions = 1,
         .kills = 1,
         .must_fail = true},
        {.name = "no second look at the shutdown",
         .threads = 3,
         .body = {send, receive_until_shutdown, shut_down},
         .reset = reset_ignores_shutdown,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
