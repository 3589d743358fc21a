/* The participant table, explored: a slot is one process's until that process has left or everything it held is
 * swept. */
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "sync/shc_participant.h"
#include "t.h"

#define SLOTS 2u
#define GENERATIONS 8u

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

static struct {
    shc_participant_shm_t slots[SLOTS];
    shc_a32_t held[SLOTS]; /* what the holder of the slot owns: generation + 1 */
} shared;

static struct {
    shc_participants_t table;
    shc_identity_t ids[MODEL_THREADS];
    uint32_t holder[SLOTS][GENERATIONS]; /* thread + 1 that ever was this participant */
    bool sweeps_late;
} plan;

static const shc_identity_t *
me(void)
{
    return &plan.ids[model_self()];
}

/* Only what dead participants held is taken from them. */
static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    (void)arg;
    uint32_t holder = plan.holder[index][generation];
    MODEL_CHECK(holder == 0 || model_is_dead(holder - 1));
    uint32_t word = generation + 1;
    (void)shc_a32_cas_seq_cst(&shared.held[index], &word, 0);
}

/* The mistake: the slot is freed before it is swept. */
static void
reap_and_sweep_late(void)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t g = shc_participant_generation(shc_a64_load_relaxed(&shared.slots[i].state));
        shc_participants_t one = {.slots = &shared.slots[i], .count = 1};
        if (shc_participant_reap(&one, me(), NULL, NULL) != 0)
            sweep(NULL, i, g);
    }
}

static void
reap(void)
{
    if (plan.sweeps_late)
        reap_and_sweep_late();
    else
        (void)shc_participant_reap(&plan.table, me(), sweep, NULL);
}

static void
use_slot(uint32_t i, uint32_t g)
{
    MODEL_CHECK(i < SLOTS && g < GENERATIONS);
    MODEL_CHECK(plan.holder[i][g] == 0);
    plan.holder[i][g] = model_self() + 1;
    MODEL_CHECK(shc_a32_load_relaxed(&shared.held[i]) == 0);
    shc_a32_store_relaxed(&shared.held[i], g + 1);
    MODEL_CHECK(!shc_participant_is_dead(&plan.table, i, g, UINT32_MAX, me()));
    MODEL_CHECK(shc_a32_load_relaxed(&shared.held[i]) == g + 1);
}

static void
leave_slot(uint32_t i)
{
    shc_participant_begin_leave(&plan.table, i);
    shc_a32_store_relaxed(&shared.held[i], 0);
    shc_participant_end_leave(&plan.table, i);
}

/* Comes, if need be after making room, and goes. */
static void
visitor(void)
{
    uint32_t i, g;
    int r = shc_participant_join(&plan.table, me(), &i, &g);
    if (r == SHC_FULL) {
        reap();
        r = shc_participant_join(&plan.table, me(), &i, &g);
    }
    if (r == SHC_FULL)
        return;
    use_slot(i, g);
    leave_slot(i);
}

static void
stayer(void)
{
    uint32_t i, g;
    if (shc_participant_join(&plan.table, me(), &i, &g) == 0)
        use_slot(i, g);
}

static void
reaper(void)
{
    reap();
}

/* Living participants count, whatever comes and goes. */
static void
counter(void)
{
    uint32_t i, g;
    if (shc_participant_join(&plan.table, me(), &i, &g) != 0)
        return;
    use_slot(i, g);
    MODEL_CHECK(shc_participant_count_alive(&plan.table, SHC_PARTICIPANT_MAX, UINT32_MAX, me()) >= 1);
    leave_slot(i);
}

/* A thread that comes back from its wait when its process has left, as at the end of an interpreter. */
static void
late_waiter(void)
{
    uint32_t i, g;
    if (shc_participant_join(&plan.table, me(), &i, &g) != 0)
        return;
    shc_participant_begin_wait(&plan.table, i, g);
    leave_slot(i);
    shc_participant_end_wait(&plan.table, i, g);
}

/* Its own count is its own, whoever had the slot before, and nobody else's count remains when others are gone. */
static void
waiter(void)
{
    uint32_t i, g;
    if (shc_participant_join(&plan.table, me(), &i, &g) != 0)
        return;
    use_slot(i, g);
    shc_participant_begin_wait(&plan.table, i, g);
    MODEL_CHECK(shc_a64_load_relaxed(&shared.slots[i].waiters) == shc_participant_waiters_word(g, 1));
    uint64_t all = shc_participant_count_waiters(&plan.table, me());
    MODEL_CHECK(all >= 1 && all <= SLOTS);
    shc_participant_end_wait(&plan.table, i, g);
    MODEL_CHECK(shc_a64_load_relaxed(&shared.slots[i].waiters) == shc_participant_waiters_word(g, 0));
}

static void
reset(void)
{
    fake_reset();
    memset(&shared, 0, sizeof shared);
    memset(&plan, 0, sizeof plan);
    plan.table = (shc_participants_t){.slots = shared.slots, .count = SLOTS};
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        plan.ids[i] = (shc_identity_t){.pid = FAKE_FIRST_PID + i, .uid = 1, .start = 5, .pidns = 7};
    model_share(&shared, sizeof shared);
}

static void
reset_sweeps_late(void)
{
    reset();
    plan.sweeps_late = true;
}

/* One more reaping, and only those are there who live and have not left. */
static void
finish(void)
{
    const shc_identity_t other = {.pid = FAKE_FIRST_PID + MODEL_THREADS, .pidns = 7};
    (void)shc_participant_reap(&plan.table, &other, sweep, NULL);
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint64_t word = shc_a64_load_relaxed(&shared.slots[i].state);
        uint32_t g = shc_participant_generation(word);
        bool is_live = shc_participant_phase(word) == SHC_PARTICIPANT_LIVE;
        MODEL_CHECK(is_live || shc_participant_phase(word) == SHC_PARTICIPANT_FREE);
        MODEL_CHECK(is_live ? shc_a32_load_relaxed(&shared.held[i]) == g + 1
                            : shc_a32_load_relaxed(&shared.held[i]) == 0);
        MODEL_CHECK(!is_live || (plan.holder[i][g] != 0 && !model_is_dead(plan.holder[i][g] - 1)));
    }
    MODEL_CHECK(shc_participant_check(&plan.table) == 0);
    MODEL_CHECK(shc_participant_count_waiters(&plan.table, &other) == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(a_slot_is_one_process_s, 120)
{
    static const model_t models[] = {
        {.name = "3 visitors, 2 slots",
         .threads = 3,
         .body = {visitor, visitor, visitor},
         .reset = reset,
         .finish = finish,
         .preemptions = 3},
        {.name = "visitor, counter, reaper",
         .threads = 3,
         .body = {visitor, counter, reaper},
         .reset = reset,
         .finish = finish,
         .preemptions = 3},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(a_count_of_waiters_is_its_owner_s, 120)
{
    static const model_t models[] = {
        {.name = "a late waiter, 2 waiters",
         .threads = 3,
         .body = {late_waiter, waiter, waiter},
         .reset = reset,
         .finish = finish,
         .preemptions = 3},
        {.name = "2 waiters, reaper, one dies",
         .threads = 3,
         .body = {waiter, waiter, reaper},
         .reset = reset,
         .finish = finish,
         .preemptions = 2,
         .kills = 1},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(the_dead_are_swept_and_nobody_else, 120)
{
    static const model_t models[] = {
        {.name = "2 visitors, one stays, one dies",
         .threads = 3,
         .body = {visitor, visitor, stayer},
         .reset = reset,
         .finish = finish,
         .preemptions = 2,
         .kills = 1},
        {.name = "visitor, 2 reapers, one dies",
         .threads = 3,
         .body = {visitor, reaper, reaper},
         .reset = reset,
         .finish = finish,
         .preemptions = 3,
         .kills = 1},
        {.name = "visitor, 2 reapers, two die",
         .threads = 3,
         .body = {visitor, reaper, reaper},
         .reset = reset,
         .finish = finish,
         .preemptions = 2,
         .kills = 2},
        {.name = "2 visitors, 2 reapers, two die",
         .threads = 4,
         .body = {visitor, visitor, reaper, reaper},
         .reset = reset,
         .finish = finish,
         .preemptions = 1,
         .kills = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "a slot freed before it is swept",
         .threads = 3,
         .body = {visitor, visitor, reaper},
         .reset = reset_sweeps_late,
         .finish = finish,
         .preemptions = 2,
         .kills = 1,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
