/* Plain counters under the robust lock, with holders killed at random. See tests/SCENARIOS.md. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress_impl.h"
#include "sync/shc_lock.h"

#define PARTIES 4u
#define SLOTS 8u

/* Behind the lock everything is plain memory. `first` and `second` are equal whenever the lock is free. */
typedef struct scene {
    shc_lock_shm_t lock;
    uint8_t pad[124];
    uint64_t first, second;
    uint32_t inside;           /* index + 1 of who is between acquire and release */
    uint64_t counted[PARTIES]; /* increments that were finished by each party's incarnations */
    uint64_t repaired;
    uint64_t rounds;
} scene_t;

static scene_t *scene;
static shc_participants_t table;

static void
join(shc_lock_party_t *p, const shc_identity_t *me)
{
    p->participants = &table;
    p->me = me;
    int r = shc_participant_join(&table, me, &p->index, &p->generation);
    if (r == SHC_FULL) {
        (void)shc_participant_reap(&table, me, NULL, NULL);
        r = shc_participant_join(&table, me, &p->index, &p->generation);
    }
    CHECK_OK(r);
}

static void
repair(void)
{
    CHECK_LE(scene->first - scene->second, 1);
    scene->second = scene->first;
    scene->inside = 0;
    scene->repaired++;
    shc_lock_mark_consistent(&scene->lock);
}

static void
increment(const shc_lock_party_t *p, unsigned number, uint64_t *rng)
{
    CHECK_EQ(scene->inside, 0);
    scene->inside = p->index + 1;
    CHECK_EQ(scene->first, scene->second);
    scene->first++;
    stress_dawdle(rng);
    scene->second++;
    scene->counted[number]++;
    CHECK_EQ(scene->inside, p->index + 1);
    scene->inside = 0;
}

static int
acquire(const shc_lock_party_t *p, uint64_t *rng)
{
    for (;;) {
        uint64_t dice = t_random(rng) % 8;
        int r = dice == 0   ? shc_lock_try_acquire(&scene->lock, p)
                : dice == 1 ? shc_lock_acquire(&scene->lock, p, shc_os_now_ns() + t_random(rng) % 100000)
                            : shc_lock_acquire(&scene->lock, p, SHC_NEVER);
        if (r == 0 || r == SHC_OWNER_DIED)
            return r;
        CHECK(r == SHC_BUSY || r == SHC_TIMEOUT);
    }
}

static void
count(stress_party_t *party)
{
    shc_lock_party_t p;
    join(&p, &fix.self.id);
    for (uint64_t i = 0; i < scene->rounds; i++) {
        if (acquire(&p, &party->rng) == SHC_OWNER_DIED)
            repair();
        increment(&p, party->number, &party->rng);
        shc_lock_release(&scene->lock);
        stress_dawdle(&party->rng);
    }
    shc_participant_begin_leave(&table, p.index);
    shc_participant_end_leave(&table, p.index);
}

static void
set_up(uint64_t rounds)
{
    fix_open();
    scene = proc_share(sizeof *scene);
    scene->rounds = rounds;
    table = (shc_participants_t){.slots = proc_share(SLOTS * sizeof *table.slots), .count = SLOTS};
}

static uint64_t
total(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < PARTIES; i++)
        n += scene->counted[i];
    return n;
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[PARTIES];
    set_up(t_scaled(40000));
    for (unsigned i = 0; i < PARTIES; i++)
        parties[i] = (stress_party_t){.role = count};
    stress_run(parties, PARTIES, kind, &seed);
    CHECK_EQ(scene->first, PARTIES * scene->rounds);
    CHECK_EQ(scene->second, scene->first);
    CHECK_EQ(total(), scene->first);
    CHECK_EQ(scene->repaired, 0);
    CHECK_EQ(shc_a32_load_relaxed(&scene->lock.word) & ~SHC_LOCK_CONTENDED, 0);
    fix_close();
}

TEST_LIMIT(threads_lose_no_increment, 120)
{
    run(THREADS);
}

TEST_LIMIT(processes_lose_no_increment, 120)
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

/* Kills one party wherever it is; half of the time the corpse stays unburied for a while. */
static void
kill_one(stress_party_t *parties, uint64_t *seed)
{
    stress_party_t *victim = &parties[t_random(seed) % PARTIES];
    pid_t pid = victim->pid;
    if (t_random(seed) % 2 == 0) {
        proc_kill(pid);
        revive(victim, seed);
        return;
    }
    proc_kill_unburied(pid);
    revive(victim, seed);
    proc_sleep_us((long)(t_random(seed) % 3000));
    CHECK_EQ(t_wait(pid), 128 + SIGKILL);
}

TEST_LIMIT(killed_holders_hand_the_lock_and_the_repair_on, 120)
{
    uint64_t seed = t_seed(), kills = t_scaled(300);
    stress_party_t parties[PARTIES];
    set_up(UINT64_MAX);
    for (unsigned i = 0; i < PARTIES; i++) {
        parties[i] = (stress_party_t){.role = count, .number = i};
        revive(&parties[i], &seed);
    }
    for (uint64_t i = 0; i < kills; i++) {
        proc_sleep_us((long)(t_random(&seed) % 4000));
        kill_one(parties, &seed);
    }
    for (unsigned i = 0; i < PARTIES; i++)
        proc_kill(parties[i].pid);

    shc_lock_party_t last;
    join(&last, &fix.self.id);
    int r = shc_lock_acquire(&scene->lock, &last, SHC_NEVER);
    if (r == SHC_OWNER_DIED)
        repair();
    else
        CHECK_OK(r);
    uint64_t unfinished = scene->first - total();
    printf("%llu increments, %llu kills, %llu repairs, %llu increments of victims\n", (unsigned long long)scene->first,
           (unsigned long long)kills + PARTIES, (unsigned long long)scene->repaired, (unsigned long long)unfinished);
    CHECK_EQ(scene->first, scene->second);
    CHECK_LE(unfinished, scene->repaired);
    CHECK_LE(scene->repaired, kills + PARTIES);
    CHECK_OK(shc_lock_check(&scene->lock, &table));
    shc_lock_release(&scene->lock);
    fix_close();
}
