/* More parties than slots, whose memory tells who else was inside; holders killed at random. See tests/SCENARIOS.md. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ds/shc_objects.h"
#include "stress_impl.h"

#define PARTIES 4u
#define SLOTS 3u
#define WORDS 6u

/* In a slot's memory, plain: who holds the slot is alone here. */
typedef struct inside {
    uint64_t party; /* number + 1 while somebody holds it */
    uint64_t dirty; /* what the next one must be told */
    uint64_t visits;
    uint64_t text[WORDS]; /* all equal unless somebody is at work */
} inside_t;

typedef struct scene {
    uint64_t rounds;
    uint64_t visits[PARTIES];
} scene_t;

static scene_t *scene;
static shc_seg_t seg;
static bool kills;

/* A participant of its own over the mapping that all share. */
static void
join(shc_seg_t *own, shc_objects_t *pool)
{
    *own = seg;
    int r = shc_participant_join(&own->participants, &fix.self.id, &own->index, &own->generation);
    if (r == SHC_FULL) {
        (void)shc_seg_reap_participants(own);
        r = shc_participant_join(&own->participants, &fix.self.id, &own->index, &own->generation);
    }
    CHECK_OK(r);
    shc_objects_open(pool, own);
}

static void
leave(const shc_seg_t *own)
{
    shc_participant_begin_leave(&own->participants, own->index);
    shc_participant_end_leave(&own->participants, own->index);
}

/* Nobody is killed in most runs: there the slice is so long that its end is a lost wake-up. */
static void
sleep_once(const shc_objects_t *pool, uint32_t prepared, bool *woken)
{
    shc_event_shm_t *event = &pool->shm->returned;
    if (kills) {
        *woken |= shc_event_wait(event, prepared, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0;
        return;
    }
    int r = stress_wait(event, prepared);
    CHECK_NE(r, SHC_TIMEOUT);
    *woken |= r == 0;
}

static uint32_t
take_waiting(const shc_objects_t *pool, bool *dirty)
{
    uint32_t slot;
    bool woken = false;
    while (shc_objects_take(pool, &slot, dirty) != 0) {
        uint32_t v = shc_event_prepare(&pool->shm->returned);
        if (shc_objects_take(pool, &slot, dirty) == 0)
            break;
        sleep_once(pool, v, &woken);
    }
    if (woken) {
        shc_event_pass_on(&pool->shm->returned);
        shc_event_notify_one(&pool->shm->returned);
    }
    return slot;
}

/* What the last holder left is whole, or the slot is dirty. */
static void
enter(inside_t *in, bool dirty)
{
    bool whole = in->party == 0 && in->dirty == 0;
    for (unsigned i = 1; i < WORDS; i++)
        whole = whole && in->text[i] == in->text[0];
    CHECK(whole || dirty);
    CHECK(kills || (in->party == 0 && dirty == (in->dirty != 0)));
}

static void
visit(stress_party_t *party, const shc_objects_t *pool, uint32_t slot, bool dirty)
{
    inside_t *in = (inside_t *)(void *)shc_objects_memory(pool, slot);
    enter(in, dirty);
    in->party = party->number + 1;
    uint64_t text = t_random(&party->rng);
    for (unsigned i = 0; i < WORDS; i++) {
        in->text[i] = text;
        if (i == WORDS / 2)
            stress_dawdle(&party->rng);
    }
    CHECK_EQ(in->party, party->number + 1);
    in->visits++;
    scene->visits[party->number]++;
    bool is_dirty = t_random(&party->rng) % 8 == 0;
    in->dirty = is_dirty;
    in->party = 0;
    CHECK_OK(shc_objects_give_back(pool, slot, is_dirty));
}

static void
use(stress_party_t *party)
{
    shc_seg_t own;
    shc_objects_t pool;
    uint32_t last = 0;
    join(&own, &pool);
    for (uint64_t i = 0; i < scene->rounds; i++) {
        bool dirty;
        if (t_random(&party->rng) % 4 == 0 || !shc_objects_try_take(&pool, last, &dirty))
            last = take_waiting(&pool, &dirty);
        visit(party, &pool, last, dirty);
        if (t_random(&party->rng) % 4 == 0)
            stress_dawdle(&party->rng);
    }
    leave(&own);
}

static void
set_up(uint64_t rounds)
{
    fix_open();
    scene = proc_share(sizeof *scene);
    scene->rounds = rounds;
    shc_seg_create_args_t args = fix_objects_args(SLOTS, sizeof(inside_t));
    args.participants = 3 * PARTIES;
    CHECK_OK(fix_create_with("p", &shc_objects_spec, &args, &seg));
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed(), visits = 0;
    stress_party_t parties[PARTIES];
    shc_objects_t pool;
    set_up(t_scaled(60000));
    for (unsigned i = 0; i < PARTIES; i++)
        parties[i] = (stress_party_t){.role = use};
    stress_run(parties, PARTIES, kind, &seed);
    shc_objects_open(&pool, &seg);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        visits += ((inside_t *)(void *)shc_objects_memory(&pool, slot))->visits;
    CHECK_EQ(visits, PARTIES * scene->rounds);
    CHECK_EQ(shc_objects_count(&pool).taken, 0);
    CHECK_EQ(shc_a64_load_relaxed(&pool.shm->deaths), 0);
    CHECK_OK(shc_objects_check(&pool));
    fix_leave(&seg, "p");
    fix_close();
}

TEST_LIMIT(threads_are_alone_with_what_they_took, 120)
{
    run(THREADS);
}

TEST_LIMIT(processes_are_alone_with_what_they_took, 120)
{
    run(PROCESSES);
}

/* ---- with kills ---- */

static void
revive(stress_party_t *party, uint64_t *seed)
{
    party->rng = t_random(seed);
    stress_start(party, PROCESSES);
}

static void
kill_one(stress_party_t *parties, uint64_t *seed)
{
    stress_party_t *victim = &parties[t_random(seed) % PARTIES];
    pid_t pid = victim->pid;
    bool buried = t_random(seed) % 2 == 0;
    if (buried)
        proc_kill(pid);
    else
        proc_kill_unburied(pid);
    revive(victim, seed);
    proc_sleep_us((long)(t_random(seed) % 3000));
    if (!buried)
        CHECK_EQ(t_wait(pid), 128 + SIGKILL);
}

/* Everything is to be had again, and what was not whole is said to be dirty. */
static void
take_everything(void)
{
    shc_objects_t pool;
    uint32_t slot;
    bool dirty;
    shc_objects_open(&pool, &seg);
    for (uint32_t i = 0; i < SLOTS; i++) {
        CHECK_OK(shc_objects_take(&pool, &slot, &dirty));
        enter((inside_t *)(void *)shc_objects_memory(&pool, slot), dirty);
    }
    CHECK_EQ(shc_objects_take(&pool, &slot, &dirty), SHC_EMPTY);
    CHECK_OK(shc_objects_check(&pool));
}

TEST_LIMIT(killed_holders_leave_dirty_slots_and_lose_none, 120)
{
    uint64_t seed = t_seed(), n = t_scaled(300);
    stress_party_t parties[PARTIES];
    kills = true;
    set_up(UINT64_MAX);
    for (unsigned i = 0; i < PARTIES; i++) {
        parties[i] = (stress_party_t){.role = use, .number = i};
        revive(&parties[i], &seed);
    }
    for (uint64_t i = 0; i < n; i++) {
        proc_sleep_us((long)(t_random(&seed) % 4000));
        kill_one(parties, &seed);
    }
    for (unsigned i = 0; i < PARTIES; i++)
        proc_kill(parties[i].pid);
    take_everything();
    uint64_t deaths = shc_a64_load_relaxed(&((shc_objects_shm_t *)shc_seg_body(&seg))->deaths);
    printf("%llu kills, %llu slots came back from the dead\n", (unsigned long long)(n + PARTIES),
           (unsigned long long)deaths);
    CHECK_LE(deaths, n + PARTIES);
    fix_leave(&seg, "p");
    fix_close();
}
