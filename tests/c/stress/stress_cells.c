/* Senders and receivers that wait, hold and send in batches; what each did when is written down and judged afterwards
 * as the history of a queue. Then with kills. See tests/SCENARIOS.md. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ds/shc_cells.h"
#include "stress_impl.h"

#define SENDERS 2u
#define RECEIVERS 2u
#define PARTIES (SENDERS + RECEIVERS)
#define CAPACITY 12u
#define ENTRIES 16u
#define CELLS 128u
#define HELD 3u
#define BATCH 4u

/* One message: when its send and its receive began and ended. */
typedef struct event {
    uint64_t send_begin, send_end;
    uint64_t take_begin, take_end;
    uint64_t sender_seq; /* sender << 32 | seq */
    uint64_t taken;
} event_t;

/* A receiver saw nothing. */
typedef struct emptiness {
    uint64_t begin, end;
} emptiness_t;

#define EMPTY_MAX 20000u

typedef struct scene {
    uint64_t each;
    uint64_t seed;
    shc_a32_t senders_left;
    uint32_t empty_count[PARTIES];
    emptiness_t empty[PARTIES][EMPTY_MAX];
    uint64_t next_seq[PARTIES]; /* with kills: how many a party has begun to send */
    event_t log[];
} scene_t;

static scene_t *scene;
static shc_seg_t seg;
static shc_cells_t shared; /* the one handle of all threads */
static bool kills;

/* ---- parties ---- */

/* A participant of its own over the mapping that all share; threads share the handle, too. */
static void
join(shc_seg_t *own, shc_cells_t *ring)
{
    *own = seg;
    int r = shc_participant_join(&own->participants, &fix.self.id, &own->index, &own->generation);
    while (r == SHC_FULL) {
        (void)shc_seg_reap_participants(own);
        r = shc_participant_join(&own->participants, &fix.self.id, &own->index, &own->generation);
    }
    CHECK_OK(r);
    fix_cells_open(ring, own);
}

static void
leave(const shc_seg_t *own)
{
    shc_participant_begin_leave(&own->participants, own->index);
    shc_participant_end_leave(&own->participants, own->index);
}

/* ---- waiting ---- */

static bool
sleep_once(const shc_cells_t *ring, shc_event_shm_t *event, uint32_t prepared, const shc_cells_slot_t *slot)
{
    if (shc_cells_is_held(slot->word) && shc_cells_unblock(ring, slot))
        return false;
    if (kills)
        return shc_event_wait(event, prepared, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0;
    int r = stress_wait(event, prepared);
    CHECK_NE(r, SHC_TIMEOUT);
    return r == 0;
}

static void
leave_woken(shc_event_shm_t *event)
{
    if (event == NULL)
        return;
    shc_event_pass_on(event);
    shc_event_notify_one(event);
}

static int
claim_waiting(shc_cells_t *ring, uint64_t length, shc_cells_slot_t *slot)
{
    shc_event_shm_t *woken_by = NULL;
    int r;
    while ((r = shc_cells_claim(ring, length, slot)) == SHC_FULL) {
        shc_event_shm_t *event = shc_cells_space_event(ring, slot);
        if (woken_by != event) {
            leave_woken(woken_by);
            woken_by = NULL;
        }
        uint32_t v = shc_event_prepare(event);
        if ((r = shc_cells_claim(ring, length, slot)) != SHC_FULL)
            break;
        if (shc_cells_space_event(ring, slot) == event && sleep_once(ring, event, v, slot))
            woken_by = event;
    }
    leave_woken(woken_by);
    return r;
}

static void
note_empty(unsigned number, uint64_t begin, int r)
{
    uint32_t *n = &scene->empty_count[number];
    if (r != SHC_EMPTY || kills || *n == EMPTY_MAX)
        return;
    scene->empty[number][*n] = (emptiness_t){.begin = begin, .end = shc_os_now_ns()};
    ++*n;
}

/* ---- messages: their sender and its count, then what follows from those ---- */

static uint32_t
length_of(uint64_t sender_seq)
{
    return 8 + stress_length(scene->seed, sender_seq, SHC_CELLS_CELL * CELLS / 2 - 8);
}

static void
fill(const shc_cells_slot_t *slot, uint64_t sender_seq)
{
    uint32_t length = length_of(sender_seq);
    CHECK_LE(length, slot->room);
    memcpy(slot->payload, &sender_seq, 8);
    stress_fill(slot->payload + 8, length - 8, scene->seed, sender_seq);
}

static uint64_t
look_at(const shc_cells_slot_t *slot)
{
    uint64_t sender_seq;
    CHECK_GE(slot->length, 8);
    memcpy(&sender_seq, slot->payload, 8);
    CHECK_EQ(slot->length, length_of(sender_seq));
    CHECK_EQ(slot->tag, stress_tag(scene->seed, sender_seq));
    CHECK(stress_matches(slot->payload + 8, slot->length - 8, scene->seed, sender_seq));
    return sender_seq;
}

static event_t *
event_of(const shc_cells_slot_t *slot)
{
    uint64_t number = slot->cursor >> 24;
    CHECK_LT(number, 2 * SENDERS * scene->each);
    return &scene->log[number];
}

/* ---- senders ---- */

static uint64_t
send_some(stress_party_t *party, shc_cells_t *ring, uint64_t seq, uint64_t most)
{
    shc_cells_slot_t slots[BATCH];
    uint64_t ids[BATCH], begin = shc_os_now_ns(), want = 1 + t_random(&party->rng) % most, n = 0;
    int r = 0;
    while (n < want && r == 0) {
        ids[n] = (uint64_t)party->number << 32 | (seq + n);
        r = n == 0 ? claim_waiting(ring, length_of(ids[0]), &slots[0])
                   : shc_cells_claim_next(ring, &slots[n - 1], length_of(ids[n]), &slots[n]);
        if (r == 0)
            fill(&slots[n], ids[n]);
        n += r == 0;
    }
    CHECK(n > 0);
    for (uint64_t i = 0; i < n; i++)
        event_of(&slots[i])->sender_seq = ids[i];
    for (uint64_t i = 0; i + 1 < n; i++)
        shc_cells_publish(&slots[i], length_of(ids[i]), stress_tag(scene->seed, ids[i]), 0);
    shc_cells_send(ring, &slots[n - 1], length_of(ids[n - 1]), stress_tag(scene->seed, ids[n - 1]), 0);
    for (uint64_t i = 0; i < n; i++) {
        event_of(&slots[i])->send_begin = begin;
        event_of(&slots[i])->send_end = shc_os_now_ns();
    }
    return n;
}

static void
abort_one(shc_cells_t *ring)
{
    shc_cells_slot_t slot;
    CHECK_OK(claim_waiting(ring, 100, &slot));
    memset(slot.payload, 0xee, 100);
    shc_cells_abort(ring, &slot);
}

static void
send_all(stress_party_t *party, shc_cells_t *ring)
{
    for (uint64_t seq = 0; seq < scene->each;) {
        uint64_t left = scene->each - seq;
        seq += send_some(party, ring, seq, left < BATCH ? left : BATCH);
        if (t_random(&party->rng) % 16 == 0)
            abort_one(ring);
        stress_dawdle(&party->rng);
    }
    if (shc_a32_fetch_add_seq_cst(&scene->senders_left, UINT32_MAX) == 1)
        shc_cells_shutdown(ring, false);
}

/* ---- receivers ---- */

typedef struct keep {
    shc_cells_slot_t slots[HELD];
    uint32_t n;
} keep_t;

static void
release_one(shc_cells_t *ring, keep_t *keep, uint64_t dice)
{
    shc_cells_slot_t *slot = &keep->slots[dice % keep->n];
    (void)look_at(slot);
    shc_cells_finish(ring, slot);
    shc_cells_end_hold(ring);
    *slot = keep->slots[--keep->n];
}

/* Who sleeps holds nothing: a sender might wait for just that. */
static int
take_waiting(shc_cells_t *ring, unsigned number, keep_t *keep, shc_cells_slot_t *slot, uint64_t *begin)
{
    shc_event_shm_t *event = &ring->shm->items, *woken_by = NULL;
    int r;
    for (;;) {
        *begin = shc_os_now_ns();
        if ((r = shc_cells_take(ring, slot)) != SHC_EMPTY && r != SHC_BUSY)
            break;
        note_empty(number, *begin, r);
        while (keep->n != 0)
            release_one(ring, keep, 0);
        uint32_t v = shc_event_prepare(event);
        *begin = shc_os_now_ns();
        if ((r = shc_cells_take(ring, slot)) != SHC_EMPTY && r != SHC_BUSY)
            break;
        if (sleep_once(ring, event, v, slot))
            woken_by = event;
    }
    leave_woken(woken_by);
    return r;
}

static void
receive_all(stress_party_t *party, shc_cells_t *ring)
{
    keep_t keep = {.n = 0};
    shc_cells_slot_t slot;
    uint64_t begin, last = 0;
    int r;
    while ((r = take_waiting(ring, party->number, &keep, &slot, &begin)) == 0) {
        event_t *event = event_of(&slot);
        event->take_begin = begin;
        event->take_end = shc_os_now_ns();
        event->taken++;
        CHECK(slot.cursor >= last);
        last = slot.cursor;
        CHECK_EQ(look_at(&slot), event->sender_seq);
        bool holds = keep.n < HELD && t_random(&party->rng) % 8 == 0 && shc_cells_hold(ring) == 0;
        if (holds) {
            shc_cells_end_takes(ring, &slot);
            shc_cells_notify_space(ring);
            keep.slots[keep.n++] = slot;
        } else {
            shc_cells_finish(ring, &slot);
        }
        if (keep.n != 0 && t_random(&party->rng) % 4 == 0)
            release_one(ring, &keep, t_random(&party->rng));
        stress_dawdle(&party->rng);
    }
    CHECK_EQ(r, SHC_SHUTDOWN);
    while (keep.n != 0)
        release_one(ring, &keep, 0);
}

static void
work(stress_party_t *party)
{
    shc_seg_t own;
    shc_cells_t mine, *ring = party->arg;
    if (ring == NULL)
        join(&own, ring = &mine);
    if (party->number < SENDERS)
        send_all(party, ring);
    else
        receive_all(party, ring);
    if (ring == &mine)
        leave(&own);
}

/* ---- judgement ---- */

/* Numbers are the order of the queue: what ended before another began has the lower one. */
static void
judge_order(uint64_t n)
{
    uint64_t last_seq[SENDERS] = {0}, sent = 0, latest_send = 0, latest_take = 0;
    for (uint64_t i = 0; i < n; i++) {
        const event_t *e = &scene->log[i];
        if (e->send_end == 0) { /* aborted */
            CHECK_EQ(e->taken, 0);
            continue;
        }
        sent++;
        CHECK_EQ(e->taken, 1);
        CHECK_GE(e->send_end, latest_send);
        CHECK_GE(e->take_end, latest_take);
        CHECK_GE(e->take_end, e->send_begin);
        latest_send = e->send_begin > latest_send ? e->send_begin : latest_send;
        latest_take = e->take_begin > latest_take ? e->take_begin : latest_take;
        uint64_t sender = e->sender_seq >> 32, seq = e->sender_seq & UINT32_MAX;
        CHECK_EQ(seq, last_seq[sender]);
        last_seq[sender]++;
    }
    CHECK_EQ(sent, SENDERS * scene->each);
}

/* Whoever saw an empty queue, no message lay in it all the while. Of those sent before it looked, the last to be taken
 * is the one with the highest number. */
static void
judge_emptiness(uint64_t n)
{
    for (unsigned p = SENDERS; p < PARTIES; p++) {
        uint64_t i = 0;
        for (uint32_t k = 0; k < scene->empty_count[p]; k++) {
            const emptiness_t *empty = &scene->empty[p][k];
            while (i < n && (scene->log[i].send_end == 0 || scene->log[i].take_begin <= empty->end))
                i++;
            /* From i on, all are taken later, but for those that another receiver has just begun to take. */
            for (uint64_t j = i; j < n && j < i + ENTRIES; j++) {
                const event_t *e = &scene->log[j];
                CHECK(e->send_end == 0 || e->take_begin <= empty->end || e->send_end >= empty->begin);
            }
        }
    }
}

static void
set_up(uint64_t each, uint64_t seed)
{
    fix_open();
    scene = proc_share(sizeof *scene + 2 * SENDERS * each * sizeof(event_t));
    scene->each = each;
    scene->seed = seed;
    shc_a32_store_relaxed(&scene->senders_left, SENDERS);
    shc_seg_create_args_t args = fix_cells_args(CAPACITY, ENTRIES, CELLS, 3 * PARTIES);
    CHECK_OK(fix_create_with("c", &fix_cells_spec, &args, &seg));
    fix_cells_open(&shared, &seg);
}

static void
run(stress_kind_t kind, bool share_handle)
{
    uint64_t seed = t_seed();
    stress_party_t parties[PARTIES];
    set_up(t_scaled(60000), t_random(&seed));
    for (unsigned i = 0; i < PARTIES; i++)
        parties[i] = (stress_party_t){.role = work, .arg = share_handle ? &shared : NULL};
    stress_run(parties, PARTIES, kind, &seed);
    uint64_t claimed = shc_a64_load_relaxed(&shared.shm->tail) >> 24;
    judge_order(claimed);
    judge_emptiness(claimed);
    shc_cells_counts_t n = shc_cells_count(&shared);
    CHECK_EQ(n.sent, SENDERS * scene->each);
    CHECK_EQ(n.received, n.sent);
    CHECK_EQ(n.aborted, claimed - n.sent);
    CHECK_OK(shc_cells_check(&shared));
    fix_leave(&seg, "c");
    fix_close();
}

TEST_LIMIT(threads_have_a_queue, 120)
{
    run(THREADS, true);
}

/* As between processes, before ThreadSanitizer's eyes. */
TEST_LIMIT(threads_with_handles_of_their_own_have_a_queue, 120)
{
    run(THREADS, false);
}

TEST_LIMIT(processes_have_a_queue, 120)
{
    run(PROCESSES, false);
}

/* ---- with kills ---- */

#define KILLS_EACH 100000u

/* Marks what has arrived; twice is a failure. */
static shc_a8_t *
mark_of(uint64_t sender_seq)
{
    return (shc_a8_t *)(void *)scene->log + (sender_seq >> 32) * KILLS_EACH + (sender_seq & UINT32_MAX);
}

static void
send_for_ever(stress_party_t *party)
{
    shc_seg_t own;
    shc_cells_t ring;
    shc_cells_slot_t slot;
    join(&own, &ring);
    while (scene->next_seq[party->number] < KILLS_EACH) {
        uint64_t id = (uint64_t)party->number << 32 | scene->next_seq[party->number]++;
        CHECK_OK(claim_waiting(&ring, length_of(id), &slot));
        fill(&slot, id);
        shc_cells_send(&ring, &slot, length_of(id), stress_tag(scene->seed, id), 0);
        stress_dawdle(&party->rng);
    }
    (void)pause();
}

static void
note_arrival(const shc_cells_slot_t *slot)
{
    uint64_t id = look_at(slot);
    CHECK_LT(id >> 32, PARTIES);
    CHECK_EQ(shc_a8_load_relaxed(mark_of(id)), 0);
    shc_a8_store_relaxed(mark_of(id), 1);
}

static void
receive_for_ever(stress_party_t *party)
{
    shc_seg_t own;
    shc_cells_t ring;
    shc_cells_slot_t slot;
    keep_t keep = {.n = 0};
    uint64_t begin;
    join(&own, &ring);
    while (take_waiting(&ring, party->number, &keep, &slot, &begin) == 0) {
        note_arrival(&slot);
        shc_cells_finish(&ring, &slot);
    }
}

static void
revive(stress_party_t *party, uint64_t *seed)
{
    party->rng = t_random(seed);
    stress_start(party, PROCESSES);
}

static void
kill_one(stress_party_t *victim, uint64_t *seed)
{
    pid_t pid = victim->pid;
    bool buried = t_random(seed) % 2 == 0;
    if (buried)
        proc_kill(pid);
    else
        proc_kill_unburied(pid);
    revive(victim, seed);
    proc_sleep_us((long)(t_random(seed) % 2000));
    if (!buried)
        CHECK_EQ(t_wait(pid), 128 + SIGKILL);
}

static void
drain(void)
{
    shc_cells_slot_t slot;
    int r;
    (void)shc_seg_reap_participants(&seg);
    while ((r = shc_cells_take(&shared, &slot)) == 0) {
        note_arrival(&slot);
        shc_cells_finish(&shared, &slot);
    }
    CHECK_EQ(r, SHC_EMPTY);
}

TEST_LIMIT(kills_lose_one_message_each_and_stop_nobody, 120)
{
    uint64_t seed = t_seed(), n = t_scaled(200), begun = 0, arrived = 0;
    stress_party_t parties[PARTIES];
    kills = true;
    set_up(KILLS_EACH, t_random(&seed));
    for (unsigned i = 0; i < PARTIES; i++) {
        parties[i] = (stress_party_t){.role = i < SENDERS ? send_for_ever : receive_for_ever, .number = i};
        revive(&parties[i], &seed);
    }
    for (uint64_t i = 0; i < n; i++) {
        proc_sleep_us((long)(t_random(&seed) % 3000));
        kill_one(&parties[t_random(&seed) % PARTIES], &seed);
    }
    for (unsigned i = 0; i < PARTIES; i++)
        proc_kill(parties[i].pid);
    drain();
    for (unsigned p = 0; p < SENDERS; p++) {
        begun += scene->next_seq[p];
        for (uint64_t seq = 0; seq < scene->next_seq[p]; seq++)
            arrived += shc_a8_load_relaxed(mark_of((uint64_t)p << 32 | seq));
    }
    shc_cells_counts_t counts = shc_cells_count(&shared);
    printf("%llu kills, %llu messages, %llu lost\n", (unsigned long long)(n + PARTIES), (unsigned long long)begun,
           (unsigned long long)counts.lost);
    CHECK_GT(arrived, 0);
    CHECK_LE(begun - arrived, n + PARTIES);
    CHECK_LE(counts.lost, n + PARTIES);
    CHECK_EQ(counts.received + counts.lost, counts.sent);
    CHECK_OK(shc_cells_check(&shared));
    fix_leave(&seg, "c");
    fix_close();
}
