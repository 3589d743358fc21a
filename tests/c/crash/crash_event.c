/* A waiter or a notifier of an event count is killed at every instruction. */
#include <string.h>

#include "support/crash_kill.h"
#include "sync/shc_event.h"
#include "t.h"

#define MS UINT64_C(1000000)

/* A condition with its event: sleep while all that was made is taken. */
typedef struct body_shm {
    shc_event_shm_t event;
    shc_a32_t pad[31];
    shc_a32_t made;
    shc_a32_t taken;
} body_shm_t;

static int
accept(const shc_seg_id_t *id)
{
    return id->body_size == sizeof(body_shm_t) ? 0 : SHC_E_CORRUPT;
}

static const shc_seg_spec_t spec = {.kind = 0xec, .body_align = SHC_HOT_PAD, .validate = accept};

static void
init(shc_seg_t *seg)
{
    (void)seg;
}

static body_shm_t *
body_of(const crash_party_t *party)
{
    return shc_seg_body(&party->seg);
}

/* ---- the two sides, as the essay in shc_event.h has them ---- */

static bool
has_thing(const body_shm_t *body)
{
    uint32_t taken = shc_a32_load_relaxed(&body->taken); /* first: it never passes what was made by then */
    return shc_a32_load_relaxed(&body->made) != taken;
}

static bool
take_thing(body_shm_t *body)
{
    uint32_t taken = shc_a32_load_relaxed(&body->taken);
    while (shc_a32_load_relaxed(&body->made) != taken)
        if (shc_a32_cas_seq_cst(&body->taken, &taken, taken + 1))
            return true;
    return false;
}

static void
add_thing(body_shm_t *body)
{
    (void)shc_a32_fetch_add_relaxed(&body->made, 1);
    shc_event_notify_one(&body->event);
}

static void
pass_on(body_shm_t *body)
{
    shc_event_pass_on(&body->event);
    if (has_thing(body))
        shc_event_notify_one(&body->event);
}

static uint64_t
end_of_slice(uint64_t *slice, uint64_t deadline_ns)
{
    uint64_t end = shc_os_now_ns() + *slice;
    *slice = *slice < SHC_EVENT_SLICE_MAX_NS ? 2 * *slice : *slice;
    return end < deadline_ns ? end : deadline_ns;
}

/* Whether it got one by deadline_ns. */
static bool
wait_for_thing(body_shm_t *body, uint64_t deadline_ns)
{
    uint64_t slice = SHC_EVENT_SLICE_MIN_NS;
    bool woken = false, got = take_thing(body);
    while (!got) {
        uint32_t v = shc_event_prepare(&body->event);
        got = take_thing(body);
        if (got)
            break;
        int r = shc_event_wait(&body->event, v, end_of_slice(&slice, deadline_ns));
        woken = woken || r == 0;
        got = take_thing(body);
        if (r == SHC_TIMEOUT && shc_os_now_ns() >= deadline_ns)
            break;
    }
    if (woken)
        pass_on(body);
    return got;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    (void)party;
}

static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    (void)c;
    add_thing(body_of(survivor));
}

static int
verify(const crash_party_t *party)
{
    (void)party;
    return 0; /* every value of the word is one that it may have */
}

static const crash_script_t script = {
    .name = "event",
    .spec = &spec,
    .args = {.body_size = sizeof(body_shm_t), .participants = 4, .mode = 0600, .persist = true},
    .init = init,
    .bind = bind,
    .rebase = bind,
    .recover = recover,
    .verify = verify,
};

/* A sleeper that announces itself now is seen by the next notifier, whatever the dead one left in the word: it would
 * not have slept. And what is there can be taken without a notifier. */
static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    body_shm_t *body = body_of(survivor);
    (void)peer;
    (void)c;
    while (take_thing(body)) {
    }
    for (int round = 0; round < 3; round++) {
        uint32_t v = shc_event_prepare(&body->event);
        SURVIVES(!take_thing(body));
        add_thing(body);
        SURVIVES(v != shc_a32_load_relaxed(&body->event.word));
        SURVIVES_EQ(shc_event_wait(&body->event, v, SHC_NEVER), SHC_AGAIN);
        SURVIVES(take_thing(body));
        pass_on(body);
        SURVIVES_EQ(shc_a32_load_relaxed(&body->event.word) & SHC_EVENT_SLEEPERS, SHC_EVENT_SLEEPERS);
        SURVIVES(!wait_for_thing(body, 1));
    }
}

/* ---- cases ---- */

static void
setup_sleeper(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    (void)shc_event_prepare(&body_of(peer)->event);
}

static void
setup_thing(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    add_thing(body_of(peer));
}

static void
setup_sequence_at_its_end(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    shc_a32_store_relaxed(&body_of(peer)->event.word, UINT32_MAX);
}

static void
act_wait(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)wait_for_thing(body_of(victim), shc_os_now_ns() + 5 * MS);
}

static void
act_notify_one(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    add_thing(body_of(victim));
}

static void
act_notify_all(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_a32_fetch_add_relaxed(&body_of(victim)->made, 2);
    shc_event_notify_all(&body_of(victim)->event);
}

static void
act_pass_on(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    pass_on(body_of(victim));
}

TEST_LIMIT(party_killed_at_every_instruction, 60)
{
    const crash_case_t cases[] = {
        {.name = "wait in vain", .act = act_wait, .check = check},
        {.name = "wait for what is there", .setup = setup_thing, .act = act_wait, .check = check},
        {.name = "notify, nobody sleeps", .act = act_notify_one, .check = check},
        {.name = "notify one", .setup = setup_sleeper, .act = act_notify_one, .check = check},
        {.name = "notify all", .setup = setup_sleeper, .act = act_notify_all, .check = check},
        {.name = "notify, the sequence wraps",
         .setup = setup_sequence_at_its_end,
         .act = act_notify_one,
         .check = check},
        {.name = "pass on, nothing left", .act = act_pass_on, .check = check},
        {.name = "pass on, more to take", .setup = setup_thing, .act = act_pass_on, .check = check},
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- real kills ---- */

static void
get_thing(crash_party_t *party)
{
    CHECK(wait_for_thing(body_of(party), SHC_NEVER));
}

static void
make_thing(crash_party_t *party)
{
    add_thing(body_of(party));
}

/* For the survivor, in case that the victim did not get so far. */
static void
make_thing_if_none(crash_party_t *parent)
{
    if (shc_a32_load_relaxed(&body_of(parent)->made) == 0)
        add_thing(body_of(parent));
}

/* One for each sleeper; the second finds the flag taken away and wakes nobody. */
static void
make_two_things(crash_party_t *parent)
{
    add_thing(body_of(parent));
    add_thing(body_of(parent));
}

TEST_LIMIT(waiter_goes_on_after_real_kills, 240)
{
    static const kill_case_t cases[] = {
        {.name = "notifier killed anywhere", .act = make_thing, .survive = get_thing, .after = make_thing_if_none},
        {.name = "another waiter killed in its sleep",
         .way = KILL_ASLEEP,
         .act = get_thing,
         .survive = get_thing,
         .after = make_thing},
        {.name = "another waiter killed when woken",
         .way = KILL_WOKEN,
         .act = get_thing,
         .survive = get_thing,
         .after = make_two_things},
    };
    crash_kill(&script, cases, SHC_ARRAY_SIZE(cases));
}
