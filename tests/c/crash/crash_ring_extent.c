/* A process is killed at every instruction of what it does with large messages, at either end or leaving; the other end
 * goes on, a successor takes the dead one's. */
#include <string.h>

#include "ds/shc_ring_extent.h"
#include "support/crash_impl.h"
#include "support/segfix.h"
#include "t.h"

#define DATA_BYTES 4096u
#define UNITS (DATA_BYTES / 8)
#define CAPACITY 60u
#define PAGE (UINT64_C(1) << SHC_EXTENT_PAGE_SHIFT)
#define PAGES 4u
#define SMALL 40u
#define HELD_MAX 3u

/* What there is when the operation begins, and what the operation does. Messages are numbered from the creation of the
 * ring; a number decides tag and bytes. A letter stands for a message: s small, l of one page, L of two. */
typedef struct plan {
    int end;             /* whose holder dies */
    const char *rolled;  /* messages that have passed through before */
    const char *held;    /* of which the peer still has the memory */
    const char *filled;  /* messages that lie in the ring */
    const char *sends;   /* what the operation sends */
    uint32_t receives;   /* how many it goes past, if it gets to its end */
    bool one_by_one;     /* some of them may have moved; else all or none */
    bool behind_a_hold;  /* what it goes past is in the ring until the hold is over */
    uint64_t lead_units; /* that have gone through the ring before all that */
} plan_t;

typedef struct own {
    shc_ring_t ring;
    shc_arena_t arena;
    shc_ref_t held[HELD_MAX];
} own_t;

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static own_t *
own_of(const crash_party_t *party)
{
    return party->own;
}

static uint32_t
count_of(const char *letters)
{
    return letters != NULL ? (uint32_t)strlen(letters) : 0;
}

/* ---- messages ---- */

static uint64_t
length_of(char letter)
{
    return letter == 's' ? SMALL : letter == 'l' ? PAGE - 24 : 2 * PAGE - 24;
}

/* A word of a message, every few thousand bytes and at its end. */
#define STRIDE 16384u

static uint64_t
word_of(uint64_t number, uint64_t at)
{
    return (number + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ at;
}

static void
fill(uint8_t *dst, uint64_t number, uint64_t length)
{
    for (uint64_t at = 0; at + 8 < length; at += STRIDE) {
        uint64_t word = word_of(number, at);
        memcpy(dst + at, &word, sizeof word);
    }
    uint64_t last = word_of(number, length);
    memcpy(dst + length - 8, &last, sizeof last);
}

static bool
is_filled(const uint8_t *src, uint64_t number, uint64_t length)
{
    for (uint64_t at = 0; at + 8 < length; at += STRIDE)
        if (shc_racy_u64(src + at) != word_of(number, at))
            return false;
    return shc_racy_u64(src + length - 8) == word_of(number, length);
}

static uint8_t
tag_of(uint64_t number)
{
    return number & 0x7f;
}

static int
stage_small(own_t *own, uint64_t number)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(&own->ring, SMALL, &dst, &room);
    if (r != 0)
        return r;
    fill(dst, number, SMALL);
    shc_ring_stage(&own->ring, SMALL, tag_of(number));
    return 0;
}

/* 0 or why the message does not fit. Not yet visible. */
static int
stage(own_t *own, char letter)
{
    shc_extent_t extent;
    uint64_t number = own->ring.tail.count, length = length_of(letter);
    if (letter == 's')
        return stage_small(own, number);
    int r = shc_ring_claim_extent(&own->ring, &own->arena, length, &extent);
    if (r != 0)
        return r;
    fill(extent.memory, number, length);
    shc_ring_stage_extent(&own->ring, &extent, length, tag_of(number));
    return 0;
}

static void
publish(own_t *own)
{
    shc_ring_publish(&own->ring);
    shc_event_notify_one(&own->ring.shm->items);
}

static int
send(own_t *own, char letter)
{
    int r = stage(own, letter);
    if (r == 0)
        publish(own);
    return r;
}

static void
go_past(own_t *own, const shc_ring_message_t *msg)
{
    shc_ring_consume(&own->ring, msg);
    shc_ring_give_back(&own->ring);
    shc_event_notify_one(&own->ring.shm->space);
}

static void
let_go(own_t *own, shc_ref_t ref)
{
    if (ref == SHC_ARENA_NOTHING)
        return;
    (void)!shc_arena_release(&own->arena, ref);
    shc_event_notify_one(&own->ring.shm->space);
}

/* Takes the next message, whatever it is; *ref: the memory of a large one, which is ours now. */
static int
receive(own_t *own, shc_ref_t *ref)
{
    shc_ring_message_t msg;
    shc_extent_t extent;
    *ref = SHC_ARENA_NOTHING;
    int r = shc_ring_front(&own->ring, &msg);
    if (r == 0 && (msg.tag & SHC_EXTENT_TAG) && !shc_ring_is_gone(&own->ring, &own->arena, &msg)) {
        r = shc_extent_read(&own->arena, msg.payload, msg.length, &extent);
        if (r == 0)
            r = shc_arena_adopt(&own->arena, extent.ref);
        if (r == 0)
            *ref = extent.ref;
    }
    if (r == 0)
        go_past(own, &msg);
    return r;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    shc_ring_open(&own_of(party)->ring, &party->seg);
    shc_ring_extents_open(&own_of(party)->arena, &party->seg);
}

static void
rebase(crash_party_t *party)
{
    own_t fresh, *own = own_of(party);
    shc_ring_open(&fresh.ring, &party->seg);
    shc_ring_extents_open(&fresh.arena, &party->seg);
    own->ring.shm = fresh.ring.shm;
    own->ring.data = fresh.ring.data;
    own->ring.seg = fresh.ring.seg;
    own->ring.send_watch.word = fresh.ring.send_watch.word;
    own->ring.receive_watch.word = fresh.ring.receive_watch.word;
    own->arena.seg = fresh.arena.seg;
    own->arena.shm = fresh.arena.shm;
    own->arena.parties = fresh.arena.parties;
    own->arena.words = fresh.arena.words;
}

static int
verify(const crash_party_t *party)
{
    int r = shc_ring_check(&own_of(party)->ring);
    return r == 0 ? shc_arena_check(&own_of(party)->arena) : r;
}

/* Nobody has anything at the end of a check, be it in the slot that was the dead one's. */
static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    const shc_ring_shm_t *shm = own_of(party)->ring.shm;
    uint64_t word = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    return shc_a64_load_relaxed(&shm->producer) == word || shc_a64_load_relaxed(&shm->consumer) == word ||
           shc_arena_names(&own_of(party)->arena, index);
}

/* The successor takes the end and moves one message. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    own_t *own = own_of(survivor);
    shc_ref_t ref;
    int r = shc_ring_take(&own->ring, plan_of(c)->end);
    if (r != 0 && r != SHC_OWNER_DIED)
        return;
    if (plan_of(c)->end == SHC_RING_PRODUCER)
        (void)send(own, 'l');
    else if (receive(own, &ref) == 0)
        let_go(own, ref);
}

static crash_script_t script = {
    .name = "large messages",
    .spec = &shc_ring_spec,
    .init = shc_ring_init,
    .own_size = sizeof(own_t),
    .bind = bind,
    .rebase = rebase,
    .recover = recover,
    .owns = owns,
    .verify = verify,
};

static void
run(const crash_case_t *cases, size_t n)
{
    script.args = fix_ring_extent_args(CAPACITY, DATA_BYTES, PAGES);
    script.args.persist = true;
    crash_run(&script, cases, n);
}

/* ---- before the operation ---- */

static void
roll(own_t *own, const char *letters, shc_ref_t *kept)
{
    for (uint32_t i = 0; i < count_of(letters); i++) {
        shc_ref_t ref;
        CHECK_OK(send(own, letters[i]));
        CHECK_OK(receive(own, &ref));
        if (kept != NULL)
            kept[i] = ref;
        else
            let_go(own, ref);
    }
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    own_t *own = own_of(peer);
    shc_a64_store_relaxed(&own->ring.shm->tail, plan->lead_units);
    shc_a64_store_relaxed(&own->ring.shm->head, plan->lead_units);
    CHECK_OK(shc_ring_take(&own->ring, SHC_RING_PRODUCER));
    CHECK_OK(shc_ring_take(&own->ring, SHC_RING_CONSUMER));
    roll(own, plan->rolled, NULL);
    roll(own, plan->held, own->held);
    for (uint32_t i = 0; i < count_of(plan->filled); i++)
        CHECK_OK(send(own, plan->filled[i]));
    shc_ring_drop(&own->ring, plan->end);
}

/* The messages in the ring are the victim's own: it was the sender, and goes on. */
static void
setup_empty(crash_party_t *peer, const crash_case_t *c)
{
    plan_t empty = *plan_of(c);
    crash_case_t of_empty = *c;
    empty.filled = NULL;
    of_empty.plan = &empty;
    setup(peer, &of_empty);
}

static void
prepare(crash_party_t *victim, const crash_case_t *c)
{
    CHECK_OK(shc_ring_take(&own_of(victim)->ring, plan_of(c)->end));
}

static void
prepare_sender(crash_party_t *victim, const crash_case_t *c)
{
    prepare(victim, c);
    for (uint32_t i = 0; i < count_of(plan_of(c)->filled); i++)
        CHECK_OK(send(own_of(victim), plan_of(c)->filled[i]));
}

/* ---- survivors ---- */

/* The messages that were there when the operation began or were sent by it; those of others may be anything: 0. */
static char
letter_of(const plan_t *plan, uint64_t number)
{
    uint64_t rolled = count_of(plan->rolled) + count_of(plan->held), filled = rolled + count_of(plan->filled);
    if (number < filled)
        return plan->filled[number - rolled];
    return number < filled + count_of(plan->sends) ? plan->sends[number - filled] : 0;
}

/* The front message is the one that its number says, in the ring or in memory of its own. True: it is gone. */
static bool
check_front(own_t *own, char letter)
{
    shc_ring_message_t msg;
    shc_extent_t extent;
    uint64_t number = own->ring.read.count;
    SURVIVES_EQ(shc_ring_front(&own->ring, &msg), 0);
    SURVIVES_EQ(msg.tag & 0x7f, tag_of(number));
    if ((msg.tag & SHC_EXTENT_TAG) == 0) {
        SURVIVES(letter == 's' || letter == 0);
        SURVIVES_EQ(msg.length, SMALL);
        SURVIVES(is_filled(msg.payload, number, SMALL));
        return false;
    }
    if (shc_ring_is_gone(&own->ring, &own->arena, &msg))
        return true;
    SURVIVES_EQ(shc_extent_read(&own->arena, msg.payload, msg.length, &extent), 0);
    SURVIVES(letter == 0 || extent.length == length_of(letter));
    SURVIVES(is_filled(extent.memory, number, extent.length));
    return false;
}

/* Receives everything: the numbers up to `end`, each once and in order. Those before `known` are the plan's. Returns
 * how many were gone. */
static uint32_t
drain(own_t *own, const plan_t *plan, uint64_t known, uint64_t end)
{
    uint32_t gone = 0;
    shc_ref_t ref;
    while (own->ring.read.count != end) {
        bool is_known = own->ring.read.count < known && !crash_is_double();
        gone += check_front(own, is_known ? letter_of(plan, own->ring.read.count) : 0);
        SURVIVES_EQ(receive(own, &ref), 0);
        if (ref != SHC_ARENA_NOTHING)
            SURVIVES_EQ(shc_arena_release(&own->arena, ref), 0);
    }
    SURVIVES_EQ(receive(own, &ref), SHC_EMPTY);
    return gone;
}

static void
take_over(crash_party_t *survivor, int end)
{
    int r = shc_ring_take(&own_of(survivor)->ring, end);
    SURVIVES(r == 0 || r == SHC_OWNER_DIED);
    SURVIVES_EQ(shc_ring_take(&own_of(survivor)->ring, 1 - end), SHC_BUSY);
}

/* `moved` is what the victim got done of its operation, and perhaps one message of a successor that died, too. */
static bool
may_have_moved(const plan_t *plan, uint64_t moved, uint64_t count)
{
    if (plan->one_by_one || crash_is_double())
        return moved <= count + (crash_is_double() ? 1 : 0);
    return moved == 0 || moved == count;
}

/* A large one may find no memory; a small one always has room. */
static void
send_on(own_t *own)
{
    int r = send(own, 'l');
    SURVIVES(r == 0 || r == SHC_FULL);
    SURVIVES_EQ(send(own, 's'), 0);
}

/* What the peer holds is as it was. */
static void
release_held(own_t *own, const plan_t *plan)
{
    uint64_t first = count_of(plan->rolled);
    for (uint32_t i = 0; i < count_of(plan->held); i++) {
        SURVIVES(is_filled(shc_arena_at(&own->arena, own->held[i]), first + i, length_of(plan->held[i])));
        SURVIVES_EQ(shc_arena_release(&own->arena, own->held[i]), 0);
    }
}

/* Nothing is on its way nor held: all memory is there for one message, whatever the dead had. */
static void
use_fully(crash_party_t *sender, crash_party_t *receiver)
{
    own_t *from = own_of(sender), *to = own_of(receiver);
    shc_extent_t extent;
    shc_ref_t ref;
    SURVIVES_EQ(shc_ring_claim_extent(&from->ring, &from->arena, PAGES * PAGE, &extent), 0);
    shc_ring_stage_extent(&from->ring, &extent, PAGES * PAGE, 1);
    publish(from);
    SURVIVES_EQ(receive(to, &ref), 0);
    SURVIVES_EQ(shc_arena_release(&to->arena, ref), 0);
    (void)shc_seg_reap_participants(&sender->seg);
    SURVIVES(!shc_arena_is_used(&from->arena));
}

static uint64_t
numbers_before(const plan_t *plan)
{
    return count_of(plan->rolled) + count_of(plan->held);
}

static void
producer_died(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    own_t *from = own_of(survivor), *to = own_of(peer);
    take_over(survivor, SHC_RING_PRODUCER);
    uint64_t known = from->ring.tail.count, sent = known - numbers_before(plan) - count_of(plan->filled);
    SURVIVES(may_have_moved(plan, sent, count_of(plan->sends)));
    send_on(from);
    SURVIVES_EQ(drain(to, plan, known, from->ring.tail.count), 0);
    release_held(to, plan);
    use_fully(survivor, peer);
}

static void
consumer_died(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    own_t *from = own_of(peer), *to = own_of(survivor);
    take_over(survivor, SHC_RING_CONSUMER);
    SURVIVES(may_have_moved(plan, to->ring.read.count - numbers_before(plan), plan->receives));
    uint64_t known = from->ring.tail.count;
    send_on(from);
    uint32_t gone = drain(to, plan, known, from->ring.tail.count);
    SURVIVES(gone <= (plan->behind_a_hold ? plan->receives : 0));
    release_held(from, plan);
    use_fully(peer, survivor);
}

/* ---- operations of the producer ---- */

static void
act_send(crash_party_t *victim, const crash_case_t *c)
{
    for (const char *letter = plan_of(c)->sends; letter != NULL && *letter != 0; letter++)
        if (send(own_of(victim), *letter) != 0)
            return;
}

static void
act_send_batch(crash_party_t *victim, const crash_case_t *c)
{
    for (const char *letter = plan_of(c)->sends; *letter != 0; letter++)
        if (stage(own_of(victim), *letter) != 0)
            break;
    publish(own_of(victim));
}

/* There is no memory for it, dead or alive. */
static void
act_send_too_much(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!send(own_of(victim), 'L');
}

static void
act_abort(crash_party_t *victim, const crash_case_t *c)
{
    shc_extent_t extent;
    own_t *own = own_of(victim);
    (void)c;
    if (shc_ring_claim_extent(&own->ring, &own->arena, length_of('L'), &extent) == 0)
        let_go(own, extent.ref);
}

/* Closes: something was claimed and not sent, other messages are on their way or were received. */
static void
act_leave(crash_party_t *victim, const crash_case_t *c)
{
    own_t *own = own_of(victim);
    shc_ring_drop(&own->ring, plan_of(c)->end);
    shc_ring_extents_leave(&own->ring, &own->arena);
    shc_seg_leave(&victim->seg, -1, "none");
}

static void
prepare_sender_to_leave(crash_party_t *victim, const crash_case_t *c)
{
    shc_extent_t extent;
    prepare_sender(victim, c);
    CHECK_OK(shc_ring_claim_extent(&own_of(victim)->ring, &own_of(victim)->arena, length_of('l'), &extent));
}

#define PRODUCER_CASE(title, set_up, ready, operation, ...)                                                            \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){.end = SHC_RING_PRODUCER, __VA_ARGS__}, .setup = (set_up),            \
        .prepare = (ready), .act = (operation), .check = producer_died                                                 \
    }

TEST_LIMIT(sender_killed_at_every_instruction, 240)
{
    const crash_case_t cases[] = {
        PRODUCER_CASE("send the first one", setup, prepare, act_send, .sends = "l"),
        PRODUCER_CASE("send into used memory", setup, prepare, act_send, .rolled = "L", .filled = "sl", .sends = "l"),
        PRODUCER_CASE("send another behind one's own", setup_empty, prepare_sender, act_send, .filled = "ls",
                      .sends = "L"),
        PRODUCER_CASE("send a batch", setup, prepare, act_send_batch, .filled = "s", .sends = "lsLs"),
        PRODUCER_CASE("send behind a skip mark", setup, prepare, act_send, .filled = "s", .sends = "l",
                      .lead_units = UNITS - 8),
        PRODUCER_CASE("find no memory", setup, prepare, act_send_too_much, .held = "Ll"),
        PRODUCER_CASE("claim and give back", setup, prepare, act_abort, .rolled = "l", .filled = "l"),
        PRODUCER_CASE("leave", setup_empty, prepare_sender_to_leave, act_leave, .filled = "lsl"),
    };
    run(cases, SHC_ARRAY_SIZE(cases));
}

/* ---- operations of the consumer ---- */

static void
act_receive(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t ref;
    for (uint32_t i = 0; i < plan_of(c)->receives; i++)
        if (receive(own_of(victim), &ref) == 0)
            let_go(own_of(victim), ref);
}

/* Each is held while the next one comes. */
static void
act_receive_holding(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t before = SHC_ARENA_NOTHING, ref;
    for (uint32_t i = 0; i < plan_of(c)->receives && receive(own_of(victim), &ref) == 0; i++) {
        let_go(own_of(victim), before);
        before = ref;
    }
    let_go(own_of(victim), before);
}

/* The first one is held in the ring while others are received, cleared and let go. */
static void
act_behind_a_hold(crash_party_t *victim, const crash_case_t *c)
{
    own_t *own = own_of(victim);
    shc_ring_message_t msg;
    shc_ref_t ref;
    uint32_t hold;
    (void)c;
    if (shc_ring_front(&own->ring, &msg) != 0 || shc_ring_hold(&own->ring, &msg, &hold) != 0)
        return;
    if (receive(own, &ref) == 0)
        let_go(own, ref);
    (void)!shc_ring_clear_extents(&own->ring, &own->arena);
    shc_ring_mark_released(&own->ring, hold);
    if (shc_ring_settle_holds(&own->ring))
        shc_event_notify_one(&own->ring.shm->space);
}

static void
act_clear(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_ring_clear_extents(&own_of(victim)->ring, &own_of(victim)->arena);
    shc_event_notify_one(&own_of(victim)->ring.shm->space);
}

static void
prepare_receiver_to_leave(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t ref;
    prepare(victim, c);
    CHECK_OK(receive(own_of(victim), &ref)); /* and it is held to the end */
}

#define CONSUMER_CASE(title, ready, operation, ...)                                                                    \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){.end = SHC_RING_CONSUMER, __VA_ARGS__}, .setup = setup,               \
        .prepare = (ready), .act = (operation), .check = consumer_died                                                 \
    }

TEST_LIMIT(receiver_killed_at_every_instruction, 240)
{
    const crash_case_t cases[] = {
        CONSUMER_CASE("receive the only one", prepare, act_receive, .filled = "l", .receives = 1),
        CONSUMER_CASE("receive behind a skip mark", prepare, act_receive, .rolled = "s", .filled = "lL",
                      .lead_units = UNITS - 10, .receives = 2, .one_by_one = true),
        CONSUMER_CASE("hold one while the next comes", prepare, act_receive_holding, .filled = "lLl", .receives = 3,
                      .one_by_one = true),
        CONSUMER_CASE("receive, clear behind a hold", prepare, act_behind_a_hold, .filled = "sLsl", .receives = 4,
                      .behind_a_hold = true),
        CONSUMER_CASE("clear", prepare, act_clear, .filled = "lsLs", .receives = 4, .one_by_one = true),
        CONSUMER_CASE("leave", prepare_receiver_to_leave, act_leave, .filled = "Ll", .receives = 1),
    };
    run(cases, SHC_ARRAY_SIZE(cases));
}
