/* A process is killed at every instruction of what it does with a pool of objects; the others go on at once, and every
 * slot is to be had again. */
#include <string.h>

#include "ds/shc_objects.h"
#include "support/crash_kill.h"
#include "t.h"

#define SLOTS 5u
#define SLOT_SIZE 16u

/* What has happened before, and what the operation does. Slots are dealt out from 0: first the peer's, then those of
 * somebody who died before, then the victim's. */
typedef struct plan {
    uint32_t peers;
    uint32_t deads;
    uint32_t victims;
    uint32_t slot;    /* that the operation is about */
    bool dirty;       /* it is given back so */
    bool was_dirty;   /* the free slots are, when the operation begins */
    bool no_hints;    /* a kill has left none */
    bool all_hints;   /* all of them mislead */
    bool has_sleeper; /* somebody announced a sleep */
} plan_t;

typedef struct own {
    shc_objects_t pool;
} own_t;

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static shc_objects_t *
pool_of(const crash_party_t *party)
{
    return &((own_t *)party->own)->pool;
}

static uint64_t
word_of(const shc_objects_t *pool, uint32_t slot)
{
    return shc_a64_load_relaxed(&pool->slots[slot].word);
}

static uint64_t
owner_of(const shc_objects_t *pool, uint32_t slot)
{
    return word_of(pool, slot) & SHC_OBJECTS_OWNER;
}

/* ---- use: a mark in the slot's memory as long as it is half done ---- */

static shc_a64_t *
mark_of(const shc_objects_t *pool, uint32_t slot)
{
    return (shc_a64_t *)(void *)shc_objects_memory(pool, slot);
}

static void
begin_use(const shc_objects_t *pool, uint32_t slot)
{
    shc_a64_store_relaxed(mark_of(pool, slot), 1);
}

static void
give_back(const shc_objects_t *pool, uint32_t slot, bool dirty)
{
    if (!dirty)
        shc_a64_store_relaxed(mark_of(pool, slot), 0);
    (void)!shc_objects_give_back(pool, slot, dirty);
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    shc_objects_open(pool_of(party), &party->seg);
}

static int
verify(const crash_party_t *party)
{
    return shc_objects_check(pool_of(party));
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    return shc_objects_held_by(pool_of(party), index, generation) != 0;
}

/* The successor uses one slot. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    uint32_t slot;
    bool dirty;
    (void)c;
    if (shc_objects_take(pool_of(survivor), &slot, &dirty) != 0)
        return;
    begin_use(pool_of(survivor), slot);
    give_back(pool_of(survivor), slot, false);
}

static crash_script_t
make_script(void)
{
    return (crash_script_t){
        .name = "objects",
        .spec = &shc_objects_spec,
        .args = {.body_size = shc_objects_body_size(SLOTS, SLOT_SIZE),
                 .config = {SLOTS, SLOT_SIZE},
                 .participants = 5,
                 .mode = 0600,
                 .persist = true},
        .init = shc_objects_init,
        .own_size = sizeof(own_t),
        .bind = bind,
        .rebase = bind,
        .recover = recover,
        .owns = owns,
        .verify = verify,
    };
}

/* ---- before the operation ---- */

static void
take_slot(const shc_objects_t *pool, uint32_t slot)
{
    bool dirty;
    CHECK(shc_objects_try_take(pool, slot, &dirty));
    begin_use(pool, slot);
}

static void
set_hints(const shc_objects_t *pool, uint64_t bits)
{
    shc_a64_store_relaxed(&pool->hints[0], bits);
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    const shc_objects_t *pool = pool_of(peer);
    uint64_t dead = plan->deads != 0 ? crash_plant_dead(peer) : 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (slot < plan->peers + plan->deads)
            take_slot(pool, slot);
        else if (plan->was_dirty)
            shc_a64_store_relaxed(&pool->slots[slot].word, SHC_OBJECTS_USED | SHC_OBJECTS_DIRTY);
        if (slot >= plan->peers && slot < plan->peers + plan->deads)
            shc_a64_store_relaxed(&pool->slots[slot].word, dead | SHC_OBJECTS_USED);
    }
    if (plan->has_sleeper)
        (void)shc_event_prepare(&pool->shm->returned);
}

static void
prepare(crash_party_t *victim, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    for (uint32_t i = 0; i < plan->victims; i++)
        take_slot(pool_of(victim), plan->peers + plan->deads + i);
    if (plan->no_hints)
        set_hints(pool_of(victim), 0);
    if (plan->all_hints)
        set_hints(pool_of(victim), (UINT64_C(1) << SLOTS) - 1);
}

/* ---- survivors ---- */

static void
peer_keeps_its_slots(const crash_party_t *peer)
{
    const shc_objects_t *pool = pool_of(peer);
    uint32_t held = shc_objects_held_by(pool, peer->seg.index, peer->seg.generation);
    for (uint32_t slot = 0; slot < held; slot++)
        SURVIVES_EQ(owner_of(pool, slot), shc_seg_owner_word(&peer->seg));
}

/* Slots whose holder is neither of the living. */
static uint32_t
count_dead(const crash_party_t *survivor, const crash_party_t *peer)
{
    uint32_t dead = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        uint64_t owner = owner_of(pool_of(survivor), slot);
        dead += owner != 0 && owner != shc_seg_owner_word(&peer->seg);
    }
    return dead;
}

static void
take_one(const shc_objects_t *pool, const crash_party_t *peer)
{
    uint64_t before[SLOTS];
    uint32_t slot;
    bool dirty;
    for (uint32_t i = 0; i < SLOTS; i++)
        before[i] = word_of(pool, i);
    SURVIVES_EQ(shc_objects_take(pool, &slot, &dirty), 0);
    SURVIVES(slot < SLOTS && (before[slot] & SHC_OBJECTS_OWNER) != shc_seg_owner_word(&peer->seg));
    bool was_taken = (before[slot] & SHC_OBJECTS_OWNER) != 0;
    SURVIVES_EQ(dirty, was_taken || (before[slot] & SHC_OBJECTS_DIRTY) != 0);
    SURVIVES(dirty || shc_a64_load_relaxed(mark_of(pool, slot)) == 0);
    begin_use(pool, slot);
}

/* Whatever the peer does not hold is there at once, each slot once, and half-done ones say so. Twice: what was given
 * back is found again. */
static void
go_on(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const shc_objects_t *pool = pool_of(survivor);
    const shc_seg_t *seg = &survivor->seg;
    uint32_t slot, kept = plan_of(c)->peers;
    bool dirty;
    peer_keeps_its_slots(peer);
    SURVIVES_EQ(shc_objects_held_by(pool, peer->seg.index, peer->seg.generation), kept);
    uint64_t deaths = shc_a64_load_relaxed(&pool->shm->deaths) + count_dead(survivor, peer);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = kept; i < SLOTS; i++)
            take_one(pool, peer);
        SURVIVES_EQ(shc_objects_take(pool, &slot, &dirty), SHC_EMPTY);
        SURVIVES_EQ(shc_objects_take(pool_of(peer), &slot, &dirty), SHC_EMPTY);
        SURVIVES_EQ(shc_objects_held_by(pool, seg->index, seg->generation), SLOTS - kept);
        for (uint32_t i = kept; i < SLOTS; i++) {
            shc_a64_store_relaxed(mark_of(pool, i), 0);
            SURVIVES_EQ(shc_objects_give_back(pool, i, false), 0);
        }
    }
    SURVIVES_EQ(shc_a64_load_relaxed(&pool->shm->deaths), deaths);
    peer_keeps_its_slots(peer);
}

/* ---- operations ---- */

static void
act_take_known(crash_party_t *victim, const crash_case_t *c)
{
    bool dirty;
    if (shc_objects_try_take(pool_of(victim), plan_of(c)->slot, &dirty))
        begin_use(pool_of(victim), plan_of(c)->slot);
}

static void
act_take(crash_party_t *victim, const crash_case_t *c)
{
    uint32_t slot;
    bool dirty;
    (void)c;
    if (shc_objects_take(pool_of(victim), &slot, &dirty) == 0)
        begin_use(pool_of(victim), slot);
}

static void
act_give_back(crash_party_t *victim, const crash_case_t *c)
{
    give_back(pool_of(victim), plan_of(c)->slot, plan_of(c)->dirty);
}

static void
act_use(crash_party_t *victim, const crash_case_t *c)
{
    uint32_t slot;
    bool dirty;
    for (int i = 0; i < 2; i++) {
        if (shc_objects_take(pool_of(victim), &slot, &dirty) != 0)
            return;
        begin_use(pool_of(victim), slot);
        give_back(pool_of(victim), slot, plan_of(c)->dirty);
    }
}

static void
act_reap(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_seg_reap_participants(&victim->seg);
}

#define CASE(title, operation, ...)                                                                                    \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){__VA_ARGS__}, .setup = setup, .prepare = prepare, .act = (operation), \
        .check = go_on                                                                                                 \
    }

TEST_LIMIT(user_killed_at_every_instruction, 240)
{
    const crash_script_t script = make_script();
    const crash_case_t cases[] = {
        CASE("take a slot one knows", act_take_known, .peers = 2, .slot = 3),
        CASE("take a dirty slot one knows", act_take_known, .peers = 1, .slot = 3, .was_dirty = true),
        CASE("take a slot that another has", act_take_known, .peers = 2, .slot = 1),
        CASE("take any", act_take, .peers = 2),
        CASE("take any, all dirty", act_take, .peers = 1, .was_dirty = true),
        CASE("take without hints", act_take, .peers = 3, .no_hints = true),
        CASE("take, misled by hints", act_take, .peers = 4, .all_hints = true),
        CASE("take from the dead", act_take, .peers = 3, .deads = 2),
        CASE("take from the dead, misled by hints", act_take, .peers = 4, .deads = 1, .all_hints = true),
        CASE("nothing to take", act_take, .peers = 3, .victims = 2),
        CASE("give back", act_give_back, .peers = 2, .victims = 1, .slot = 2),
        CASE("give back dirty", act_give_back, .peers = 2, .victims = 1, .slot = 2, .dirty = true),
        CASE("give back without a hint", act_give_back, .peers = 2, .victims = 2, .slot = 3, .no_hints = true),
        CASE("give back while somebody sleeps", act_give_back, .peers = 2, .victims = 3, .slot = 3,
             .has_sleeper = true),
        CASE("use twice", act_use, .peers = 3),
        CASE("use twice, leaving it dirty", act_use, .peers = 3, .dirty = true, .has_sleeper = true),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

TEST_LIMIT(reaper_killed_at_every_instruction, 240)
{
    const crash_script_t script = make_script();
    const crash_case_t cases[] = {
        CASE("sweep one slot", act_reap, .peers = 2, .deads = 1),
        CASE("sweep three slots", act_reap, .peers = 1, .deads = 3, .no_hints = true),
        CASE("sweep while somebody sleeps", act_reap, .peers = 2, .deads = 3, .has_sleeper = true),
        CASE("sweep beside slots of one's own", act_reap, .peers = 1, .deads = 2, .victims = 2),
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- real kills, and stops ---- */

static uint32_t
insist_on_one(const shc_objects_t *pool)
{
    uint32_t slot;
    bool dirty;
    while (shc_objects_take(pool, &slot, &dirty) != 0) {
        uint32_t v = shc_event_prepare(&pool->shm->returned);
        if (shc_objects_take(pool, &slot, &dirty) == 0)
            break;
        if (shc_event_wait(&pool->shm->returned, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0) {
            shc_event_pass_on(&pool->shm->returned);
            shc_event_notify_one(&pool->shm->returned);
        }
    }
    return slot;
}

static void
insist(crash_party_t *party)
{
    (void)insist_on_one(pool_of(party));
}

static void
take_all_but_last(crash_party_t *parent)
{
    for (uint32_t slot = 0; slot + 1 < SLOTS; slot++)
        take_slot(pool_of(parent), slot);
}

static void
take_last(crash_party_t *party)
{
    take_slot(pool_of(party), SLOTS - 1);
}

static void
take_every_one(crash_party_t *parent)
{
    take_all_but_last(parent);
    take_last(parent);
}

static void
give_last_back(crash_party_t *party)
{
    give_back(pool_of(party), SLOTS - 1, false);
}

static void
give_first_back(crash_party_t *parent)
{
    give_back(pool_of(parent), 0, false);
}

TEST_LIMIT(who_waits_gets_a_slot_after_real_kills, 240)
{
    const crash_script_t script = make_script();
    static const kill_case_t cases[] = {
        {.name = "killed while it gives the last one back",
         .setup = take_all_but_last,
         .prepare = take_last,
         .act = give_last_back,
         .survive = insist},
        {.name = "another waiter killed in its sleep",
         .way = KILL_ASLEEP,
         .setup = take_every_one,
         .act = insist,
         .survive = insist,
         .after = give_first_back},
        {.name = "another waiter killed when woken",
         .way = KILL_WOKEN,
         .setup = take_every_one,
         .act = insist,
         .survive = insist,
         .after = give_first_back},
    };
    crash_kill(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* Takes what there is, and none of it comes from the stopped one. */
static void
take_meanwhile(crash_party_t *parent)
{
    const shc_objects_t *pool = pool_of(parent);
    uint32_t slot;
    bool dirty;
    CHECK_EQ(shc_seg_reap_participants(&parent->seg), 0);
    if (shc_objects_take(pool, &slot, &dirty) != 0)
        return;
    CHECK(!dirty);
    CHECK_EQ(shc_a64_load_relaxed(mark_of(pool, slot)), 0);
    CHECK_OK(shc_objects_give_back(pool, slot, false));
}

static void
use_some(crash_party_t *party)
{
    for (int i = 0; i < 4; i++) {
        uint32_t slot = insist_on_one(pool_of(party));
        begin_use(pool_of(party), slot);
        give_back(pool_of(party), slot, false);
    }
}

static void
nothing_came_from_dead(crash_party_t *parent)
{
    CHECK_EQ(shc_a64_load_relaxed(&pool_of(parent)->shm->deaths), 0);
    CHECK_OK(shc_objects_check(pool_of(parent)));
}

TEST_LIMIT(stopped_holder_is_not_dead, 60)
{
    const crash_script_t script = make_script();
    static const stop_case_t cases[] = {
        {.name = "stopped while it gives the last one back",
         .setup = take_all_but_last,
         .prepare = take_last,
         .act = give_last_back,
         .meanwhile = take_meanwhile,
         .after = nothing_came_from_dead},
        {.name = "stopped while it takes and gives back",
         .act = use_some,
         .meanwhile = take_meanwhile,
         .after = nothing_came_from_dead},
    };
    crash_stop(&script, cases, SHC_ARRAY_SIZE(cases));
}
