/* Hunting lost wake-ups: several producers, several sleeping consumers, notify_one with pass_on. See
 * tests/SCENARIOS.md. */
#include "stress_impl.h"

#define PRODUCERS 3
#define CONSUMERS 3

/* `put` is stored plainly by its one producer: only the event count's own fences order it before the look at the
 * flag. */
typedef struct scene {
    shc_event_shm_t items;
    shc_a64_t put[PRODUCERS];
    shc_a64_t taken;
    shc_a64_t wanted; /* all together */
    shc_a64_t sleeps;
    bool always_all; /* notify_all instead of notify_one */
} scene_t;

static scene_t *scene;

static uint64_t
count_put(void)
{
    uint64_t n = 0;
    for (int i = 0; i < PRODUCERS; i++)
        n += shc_a64_load_acquire(&scene->put[i]); /* A1 */
    return n;
}

static bool
is_over(void)
{
    return shc_a64_load_relaxed(&scene->taken) == shc_a64_load_relaxed(&scene->wanted);
}

/* What consumers wait for. */
static bool
has_something(void)
{
    return count_put() > shc_a64_load_relaxed(&scene->taken) || is_over();
}

static void
notify(void)
{
    if (scene->always_all)
        shc_event_notify_all(&scene->items);
    else
        shc_event_notify_one(&scene->items);
}

static void
produce(stress_party_t *party)
{
    shc_a64_t *put = &scene->put[party->number];
    uint64_t n = shc_a64_load_relaxed(&scene->wanted) / PRODUCERS;
    for (uint64_t i = 1; i <= n; i++) {
        shc_a64_store_release(put, i); /* R1 */
        notify();
        if (t_random(&party->rng) % 8 != 0)
            continue;
        stress_dawdle(&party->rng);
        /* Let everybody fall asleep now and then. */
        while (t_random(&party->rng) % 4 == 0 && count_put() > shc_a64_load_relaxed(&scene->taken))
            proc_sleep_us(20);
    }
}

static bool
take_one(void)
{
    uint64_t taken = shc_a64_load_relaxed(&scene->taken);
    while (taken < count_put())
        if (shc_a64_cas_seq_cst(&scene->taken, &taken, taken + 1))
            return true;
    return false;
}

static void
sleep_for_item(void)
{
    uint32_t v = shc_event_prepare(&scene->items);
    if (has_something())
        return;
    int r = stress_wait(&scene->items, v);
    shc_a64_fetch_add_relaxed(&scene->sleeps, 1);
    CHECK(r != SHC_TIMEOUT || !has_something()); /* else a wake-up was lost */
    if (r != 0)
        return;
    /* Woken: others may sleep on, and the flag was taken from them. */
    bool mine = take_one();
    shc_event_pass_on(&scene->items);
    if (has_something())
        notify();
    (void)mine;
}

static void
consume(stress_party_t *party)
{
    while (!is_over()) {
        if (!take_one())
            sleep_for_item();
        if (t_random(&party->rng) % 64 == 0)
            stress_dawdle(&party->rng);
    }
    shc_event_notify_all(&scene->items);
}

static void
run(stress_kind_t kind, bool always_all)
{
    uint64_t seed = t_seed();
    stress_party_t parties[PRODUCERS + CONSUMERS];
    fix_open();
    scene = proc_share(sizeof *scene);
    scene->always_all = always_all;
    shc_a64_store_relaxed(&scene->wanted, PRODUCERS * t_scaled(60000));
    for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++)
        parties[i] = (stress_party_t){.role = i < PRODUCERS ? produce : consume};
    stress_run(parties, PRODUCERS + CONSUMERS, kind, &seed);
    CHECK(is_over());
    printf("%llu items, %llu sleeps\n", (unsigned long long)shc_a64_load_relaxed(&scene->taken),
           (unsigned long long)shc_a64_load_relaxed(&scene->sleeps));
    fix_close();
}

TEST_LIMIT(threads_notify_one, 120)
{
    run(THREADS, false);
}

TEST_LIMIT(threads_notify_all, 120)
{
    run(THREADS, true);
}

TEST_LIMIT(processes_notify_one, 120)
{
    run(PROCESSES, false);
}

TEST_LIMIT(processes_notify_all, 120)
{
    run(PROCESSES, true);
}

/* ---- bursts: as many items as sleepers, all asleep before ---- */

typedef struct bursts {
    shc_event_shm_t items;
    shc_a64_t put;
    shc_a64_t taken;
    shc_a32_t asleep; /* or about to be */
    shc_a64_t rounds;
} bursts_t;

static bursts_t *bursts;

static bool
burst_has_something(void)
{
    return shc_a64_load_acquire(&bursts->put) > shc_a64_load_relaxed(&bursts->taken); /* A2 */
}

static bool
burst_take(void)
{
    uint64_t taken = shc_a64_load_relaxed(&bursts->taken);
    while (taken < shc_a64_load_acquire(&bursts->put)) /* A2 */
        if (shc_a64_cas_seq_cst(&bursts->taken, &taken, taken + 1))
            return true;
    return false;
}

/* One item each round; three puts for three sleepers are the case that needs pass_on. */
static void
burst_consume(stress_party_t *party)
{
    (void)party;
    for (uint64_t round = 0; round < shc_a64_load_relaxed(&bursts->rounds); round++) {
        proc_signal(&bursts->asleep);
        while (!burst_take()) {
            uint32_t v = shc_event_prepare(&bursts->items);
            if (burst_has_something())
                continue;
            int r = stress_wait(&bursts->items, v);
            CHECK(r != SHC_TIMEOUT || !burst_has_something()); /* else a wake-up was lost */
            if (r != 0)
                continue;
            bool mine = burst_take();
            shc_event_pass_on(&bursts->items);
            if (burst_has_something())
                shc_event_notify_one(&bursts->items);
            if (mine)
                break;
        }
        /* Nobody takes two of one round. */
        while (shc_a64_load_relaxed(&bursts->taken) < CONSUMERS * (round + 1))
            shc_os_yield();
    }
}

static void
burst_produce(stress_party_t *party)
{
    for (uint64_t round = 0; round < shc_a64_load_relaxed(&bursts->rounds); round++) {
        while (shc_a32_load_acquire(&bursts->asleep) < CONSUMERS * (round + 1)) /* A3 */
            shc_os_yield();
        if (t_random(&party->rng) % 2 == 0)
            proc_sleep_us((long)(t_random(&party->rng) % 60));
        for (unsigned i = 0; i < CONSUMERS; i++) {
            shc_a64_store_release(&bursts->put, CONSUMERS * round + i + 1); /* R2 */
            shc_event_notify_one(&bursts->items);
        }
    }
}

static void
run_bursts(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[1 + CONSUMERS] = {{.role = burst_produce}};
    fix_open();
    bursts = proc_share(sizeof *bursts);
    shc_a64_store_relaxed(&bursts->rounds, t_scaled(10000));
    for (unsigned i = 1; i <= CONSUMERS; i++)
        parties[i].role = burst_consume;
    stress_run(parties, 1 + CONSUMERS, kind, &seed);
    fix_close();
}

TEST_LIMIT(threads_three_puts_three_sleepers, 120)
{
    run_bursts(THREADS);
}

TEST_LIMIT(processes_three_puts_three_sleepers, 120)
{
    run_bursts(PROCESSES);
}

/* ---- one put, one sleeper, at the same instant: the fences ---- */

typedef struct duel {
    shc_event_shm_t items;
    uint8_t pad0[124];
    shc_a64_t put;
    uint8_t pad1[120];
    shc_a64_t taken;
    uint64_t rounds;
} duel_t;

static duel_t *duel;

static void
duel_consume(stress_party_t *party)
{
    (void)party;
    for (uint64_t i = 1; i <= duel->rounds; i++) {
        while (shc_a64_load_acquire(&duel->put) < i) { /* A4 */
            uint32_t v = shc_event_prepare(&duel->items);
            if (shc_a64_load_acquire(&duel->put) >= i) /* A4 */
                break;
            int r = stress_wait(&duel->items, v);
            CHECK(r != SHC_TIMEOUT || shc_a64_load_relaxed(&duel->put) < i); /* else a wake-up was lost */
        }
        shc_a64_store_release(&duel->taken, i); /* R4 */
    }
}

/* Puts when the sleeper is about to announce itself, as near as chance allows, and then waits for it. */
static void
duel_produce(stress_party_t *party)
{
    for (uint64_t i = 1; i <= duel->rounds; i++) {
        uint64_t seen = 0;
        for (uint64_t n = t_random(&party->rng) % 400; n > 0; n--)
            seen += shc_a32_load_relaxed(&duel->items.word) & SHC_EVENT_SLEEPERS; /* keeps its line near */
        CHECK_LT(seen, 400);
        shc_a64_store_release(&duel->put, i); /* R4 */
        shc_event_notify_one(&duel->items);
        for (uint32_t spins = 0; shc_a64_load_acquire(&duel->taken) < i; spins++) /* A4 */
            if (spins % 1024 == 1023)
                shc_os_yield();
    }
}

static void
run_duel(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[2] = {{.role = duel_produce}, {.role = duel_consume}};
    fix_open();
    duel = proc_share(sizeof *duel);
    duel->rounds = t_scaled(200000);
    stress_run(parties, 2, kind, &seed);
    fix_close();
}

TEST_LIMIT(threads_put_and_sleep_at_once, 120)
{
    run_duel(THREADS);
}

TEST_LIMIT(processes_put_and_sleep_at_once, 120)
{
    run_duel(PROCESSES);
}
