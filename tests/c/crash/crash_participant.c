/* A joining, leaving or reaping process is killed at every instruction. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "support/crash_kill.h"
#include "support/crash_trace.h"
#include "sync/shc_participant.h"
#include "t.h"

#define SLOTS 6u

/* What participants own in this structure: a word for each slot, stamped like a lease. */
typedef struct body_shm {
    shc_a64_t held[SLOTS];
} body_shm_t;

static int
accept(const shc_seg_id_t *id)
{
    return id->body_size == sizeof(body_shm_t) ? 0 : SHC_E_CORRUPT;
}

static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    const shc_seg_t *seg = arg;
    body_shm_t *body = shc_seg_body(seg);
    uint64_t dead = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint64_t word = dead;
        (void)shc_a64_cas_seq_cst(&body->held[i], &word, 0);
    }
}

static const shc_seg_spec_t spec = {.kind = 0x9a, .body_align = SHC_HOT_PAD, .sweep = sweep, .validate = accept};

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

static void
bind(crash_party_t *party)
{
    (void)party;
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    bool found = false;
    for (uint32_t i = 0; i < SLOTS; i++)
        found = found ||
                shc_a64_load_relaxed(&body_of(party)->held[i]) == ((uint64_t)(index + 1) | (uint64_t)generation << 12);
    return found;
}

static int
verify(const crash_party_t *party)
{
    return shc_participant_check(&party->seg.participants);
}

static const crash_script_t script = {
    .name = "participant",
    .spec = &spec,
    .args = {.body_size = sizeof(body_shm_t), .participants = SLOTS, .mode = 0600, .persist = true},
    .init = init,
    .bind = bind,
    .rebase = bind,
    .owns = owns,
    .verify = verify,
};

/* ---- survivors ---- */

/* The victim is dead for everybody, whatever phase it died in, and nobody else is. */
static void
check_verdicts(const crash_party_t *survivor, const crash_party_t *peer)
{
    uint32_t index, generation;
    const shc_participants_t *table = &survivor->seg.participants;
    const shc_identity_t *me = &survivor->seg.self->id;
    if (crash_victim_slot(survivor, &index, &generation))
        SURVIVES(shc_participant_is_dead(table, index, generation, UINT32_MAX, me));
    SURVIVES(!shc_participant_is_dead(table, peer->seg.index, peer->seg.generation, UINT32_MAX, me));
    SURVIVES(!shc_participant_is_dead(table, survivor->seg.index, survivor->seg.generation, UINT32_MAX, me));
    SURVIVES_EQ(shc_participant_count_alive(table, SHC_PARTICIPANT_MAX, UINT32_MAX, me), 2);
    SURVIVES_EQ(shc_participant_count_alive(table, survivor->seg.index, UINT32_MAX, me), 1);
    SURVIVES_EQ(shc_participant_count_waiters(table, me), 0);
}

/* Every slot but those of the two living can be had, holds something, and is given back. */
static void
use_all_slots(const crash_party_t *survivor)
{
    shc_seg_t others[SLOTS];
    uint32_t n = 0;
    body_shm_t *body = body_of(survivor);
    for (; n < SLOTS - 2; n++) {
        others[n] = survivor->seg;
        others[n].epoch = 0;
        SURVIVES_EQ(shc_seg_rejoin(&others[n]), 0);
        SURVIVES_EQ(shc_a64_load_relaxed(&body->held[others[n].index]), 0);
    }
    shc_seg_t one_more = survivor->seg;
    one_more.epoch = 0;
    SURVIVES_EQ(shc_seg_rejoin(&one_more), SHC_E_PARTICIPANTS);
    while (n-- > 0) {
        shc_participant_begin_leave(&others[n].participants, others[n].index);
        shc_participant_end_leave(&others[n].participants, others[n].index);
    }
}

static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    check_verdicts(survivor, peer);
    use_all_slots(survivor);
    check_verdicts(survivor, peer);
}

/* ---- cases ---- */

static void
hold_something(const crash_party_t *party)
{
    shc_a64_store_relaxed(&body_of(party)->held[party->seg.index], shc_seg_owner_word(&party->seg));
}

static void
act_join(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    if (shc_seg_rejoin(&victim->seg) == 0)
        hold_something(victim);
}

/* Two dead ones, each in possession of something. */
static void
setup_dead(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    for (int i = 0; i < 2; i++) {
        uint64_t word = crash_plant_dead(peer);
        shc_a64_store_relaxed(&body_of(peer)->held[(word & 0xfff) - 1], word);
    }
}

/* Phase and actor of the planted ones: the last dead reaper, the dead leaver. */
static void
setup_dead_reaper(crash_party_t *peer, const crash_case_t *c)
{
    static const uint32_t phases[] = {SHC_PARTICIPANT_REAPING, SHC_PARTICIPANT_LEAVING};
    setup_dead(peer, c);
    for (uint32_t i = 0; i < 2; i++) {
        shc_a64_t *state = &peer->seg.participants.slots[peer->seg.index + 1 + i].state;
        uint64_t word = shc_a64_load_relaxed(state);
        shc_a64_store_relaxed(
            state, shc_participant_word(phases[i], shc_participant_actor(word), shc_participant_generation(word)));
    }
}

/* No slot is free: who joins must reap first. */
static void
setup_full(crash_party_t *peer, const crash_case_t *c)
{
    setup_dead(peer, c);
    for (uint32_t i = 0; i < SLOTS; i++) {
        shc_participant_shm_t *slot = &peer->seg.participants.slots[i];
        if (shc_participant_phase(shc_a64_load_relaxed(&slot->state)) == SHC_PARTICIPANT_FREE)
            memcpy(slot, &peer->seg.participants.slots[peer->seg.index + 1], sizeof *slot);
    }
}

static void
prepare_holding(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    hold_something(victim);
}

static void
act_leave(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_participant_begin_leave(&victim->seg.participants, victim->seg.index);
    shc_a64_store_relaxed(&body_of(victim)->held[victim->seg.index], 0);
    shc_participant_end_leave(&victim->seg.participants, victim->seg.index);
}

static void
act_wait(crash_party_t *victim, const crash_case_t *c)
{
    const shc_seg_t *seg = &victim->seg;
    (void)c;
    shc_participant_begin_wait(&seg->participants, seg->index, seg->generation);
    shc_participant_begin_wait(&seg->participants, seg->index, seg->generation);
    shc_participant_end_wait(&seg->participants, seg->index, seg->generation);
}

static void
act_reap(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_seg_reap_participants(&victim->seg);
}

TEST_LIMIT(participant_killed_at_every_instruction, 120)
{
    const crash_case_t cases[] = {
        {.name = "join", .outsider = true, .act = act_join, .check = check},
        {.name = "join behind dead ones", .outsider = true, .setup = setup_dead, .act = act_join, .check = check},
        {.name = "join a full table of dead", .outsider = true, .setup = setup_full, .act = act_join, .check = check},
        {.name = "leave", .prepare = prepare_holding, .act = act_leave, .check = check},
        {.name = "wait", .prepare = prepare_holding, .act = act_wait, .check = check},
        {.name = "reap nobody", .prepare = prepare_holding, .act = act_reap, .check = check},
        {.name = "reap two dead", .setup = setup_dead, .prepare = prepare_holding, .act = act_reap, .check = check},
        {.name = "reap a dead reaper, a dead leaver",
         .setup = setup_dead_reaper,
         .prepare = prepare_holding,
         .act = act_reap,
         .check = check},
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- stops ---- */

/* Whatever it was doing: nobody's slot is free to take, nobody is reaped, others come and go. */
static void
nobody_is_dead(crash_party_t *parent)
{
    const shc_participants_t *table = &parent->seg.participants;
    shc_seg_t other = parent->seg;
    for (uint32_t i = 0; i < table->count; i++) {
        uint64_t word = shc_a64_load_relaxed(&table->slots[i].state);
        uint32_t phase = shc_participant_phase(word);
        bool says_dead =
            shc_participant_is_dead(table, i, shc_participant_generation(word), UINT32_MAX, &parent->seg.self->id);
        CHECK_EQ(says_dead, phase == SHC_PARTICIPANT_FREE || phase == SHC_PARTICIPANT_REAPING);
    }
    CHECK_EQ(shc_seg_reap_participants(&parent->seg), 0);
    other.epoch = 0;
    CHECK_OK(shc_seg_rejoin(&other));
    shc_participant_begin_leave(&other.participants, other.index);
    shc_participant_end_leave(&other.participants, other.index);
}

static void
stopped_join(crash_party_t *victim)
{
    CHECK_OK(shc_seg_rejoin(&victim->seg));
    hold_something(victim);
}

static void
stopped_leave(crash_party_t *victim)
{
    act_leave(victim, NULL);
}

static void
setup_two_dead(crash_party_t *parent)
{
    setup_dead(parent, NULL);
}

static uint32_t
slots_in_phase(const crash_party_t *party, uint32_t wanted)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        n += shc_participant_phase(shc_a64_load_relaxed(&party->seg.participants.slots[i].state)) == wanted;
    return n;
}

/* The slot that the stopped reaper has in its hands stays there; those that it has not are ours to reap. */
static void
reap_meanwhile(crash_party_t *parent)
{
    uint32_t in_hands = slots_in_phase(parent, SHC_PARTICIPANT_REAPING);
    (void)shc_seg_reap_participants(&parent->seg);
    CHECK_EQ(slots_in_phase(parent, SHC_PARTICIPANT_REAPING), in_hands);
    CHECK_EQ(slots_in_phase(parent, SHC_PARTICIPANT_LIVE), 2);
    CHECK_EQ(slots_in_phase(parent, SHC_PARTICIPANT_FREE), SLOTS - 2 - in_hands);
    CHECK_OK(verify(parent));
}

static void
stopped_reap(crash_party_t *victim)
{
    (void)shc_seg_reap_participants(&victim->seg);
    CHECK_OK(verify(victim));
}

/* The victim has ended without leaving, so now it is dead indeed. */
static void
it_is_dead_now(crash_party_t *parent)
{
    (void)shc_seg_reap_participants(&parent->seg);
    CHECK_EQ(
        shc_participant_count_alive(&parent->seg.participants, SHC_PARTICIPANT_MAX, UINT32_MAX, &parent->seg.self->id),
        1);
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint64_t word = shc_a64_load_relaxed(&parent->seg.participants.slots[i].state);
        CHECK(i == parent->seg.index || shc_participant_phase(word) == SHC_PARTICIPANT_FREE);
        CHECK_EQ(shc_a64_load_relaxed(&body_of(parent)->held[i]), 0);
    }
}

TEST_LIMIT(stopped_participant_is_not_dead, 60)
{
    static const stop_case_t cases[] = {
        {.name = "stopped while it joins",
         .outsider = true,
         .act = stopped_join,
         .meanwhile = nobody_is_dead,
         .after = it_is_dead_now},
        {.name = "stopped while it leaves", .act = stopped_leave, .meanwhile = nobody_is_dead, .after = it_is_dead_now},
        {.name = "stopped while it reaps",
         .setup = setup_two_dead,
         .act = stopped_reap,
         .meanwhile = reap_meanwhile,
         .after = it_is_dead_now},
    };
    crash_stop(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- reused pids ---- */

/* The table's view of a holder whose pid now belongs to `stranger`, when its identity was `was`. */
static bool
is_dead_to(const shc_participants_t *table, const shc_identity_t *was, const shc_identity_t *me)
{
    uint32_t index, generation;
    CHECK_OK(shc_participant_join(table, was, &index, &generation));
    bool dead = shc_participant_is_dead(table, index, generation, UINT32_MAX, me);
    CHECK_EQ(shc_participant_reap(table, me, NULL, NULL), dead);
    if (!dead) {
        shc_participant_begin_leave(table, index);
        shc_participant_end_leave(table, index);
    }
    return dead;
}

static shc_identity_t
identity_of_sleeper(pid_t *pid)
{
    int ends[2];
    shc_identity_t id;
    CHECK_EQ(pipe(ends), 0);
    *pid = fork();
    CHECK_GE(*pid, 0);
    if (*pid == 0) {
        bool told = shc_os_identity(&id) == 0 && write(ends[1], &id, sizeof id) == (ssize_t)sizeof id;
        while (told)
            (void)pause();
        _exit(1);
    }
    CHECK_EQ(read(ends[0], &id, sizeof id), (ssize_t)sizeof id);
    CHECK_EQ(close(ends[0]) + close(ends[1]), 0);
    return id;
}

TEST(a_stranger_with_a_reused_pid_does_not_keep_the_dead_alive)
{
    shc_participant_shm_t slots[2];
    const shc_participants_t table = {.slots = slots, .count = 2};
    shc_identity_t me;
    pid_t pid;
    memset(slots, 0, sizeof slots);
    CHECK_OK(shc_os_identity(&me));
    const shc_identity_t stranger = identity_of_sleeper(&pid);
    CHECK(!is_dead_to(&table, &stranger, &me));
    shc_identity_t unknown = stranger;
    unknown.start = unknown.pidino = 0;
    CHECK(!is_dead_to(&table, &unknown, &me));
    if (stranger.pidino != 0) {
        shc_identity_t was = stranger;
        was.pidino++;
        CHECK(is_dead_to(&table, &was, &me));
    }
    if (stranger.start != 0) {
        shc_identity_t was = stranger;
        was.pidino = 0;
        was.start--;
        CHECK(is_dead_to(&table, &was, &me));
    }
    trace_kill(pid);
    CHECK(is_dead_to(&table, &unknown, &me)); /* a zombie */
    trace_bury(pid);
    CHECK(is_dead_to(&table, &unknown, &me)); /* nobody */
}
