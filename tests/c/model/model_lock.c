/* The robust lock, explored: one inside at a time, nobody waits for a free lock, a death inside is announced to the
 * next. */
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "sync/shc_lock.h"
#include "t.h"

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

static struct {
    shc_lock_shm_t lock;
    shc_a32_t work; /* each store of it is a point inside */
    shc_participant_shm_t slots[MODEL_THREADS];
} shared;

static struct {
    uint32_t inside; /* thread + 1 between acquire and release */
    bool half_done;  /* somebody died inside, and nobody has repaired it */
    unsigned worked;
    unsigned rounds;
    bool careless; /* after a sleep, acquires without CONTENDED: the bug of glibc 20973 */
    bool grabs;    /* takes a dead holder's lock by a store */
    shc_participants_t table;
    shc_lock_party_t parties[MODEL_THREADS];
    shc_identity_t ids[MODEL_THREADS];
} plan;

static shc_lock_party_t *
me(void)
{
    return &plan.parties[model_self()];
}

static bool
holder_lives(void)
{
    return plan.inside != 0 && !model_is_dead(plan.inside - 1);
}

/* ---- a thread ---- */

static void
repair(void)
{
    shc_a32_store_relaxed(&shared.work, 0);
    plan.half_done = false;
    shc_lock_mark_consistent(&shared.lock);
}

static void
work(int r)
{
    MODEL_CHECK(r == 0 || r == SHC_OWNER_DIED);
    MODEL_CHECK(!holder_lives());
    MODEL_CHECK(r == SHC_OWNER_DIED || !plan.half_done);
    MODEL_CHECK(r == 0 || model_deaths() != 0);
    plan.inside = model_self() + 1;
    if (r == SHC_OWNER_DIED)
        repair();
    plan.half_done = true;
    shc_a32_store_relaxed(&shared.work, 1);
    shc_a32_store_relaxed(&shared.work, 2);
    MODEL_CHECK(plan.inside == model_self() + 1);
    plan.half_done = false;
    plan.inside = 0;
    plan.worked++;
}

/* As shc_lock_acquire, but whoever has slept forgets that others may sleep still. */
static int
acquire_carelessly(void)
{
    uint32_t word, claim = shc_lock_owner_word(me());
    for (;;) {
        word = 0;
        if (shc_a32_cas_acquire(&shared.lock.word, &word, claim))
            return 0;
        uint32_t marked = word | SHC_LOCK_CONTENDED;
        if (word == marked || shc_a32_cas_acquire(&shared.lock.word, &word, marked))
            (void)!shc_os_futex_wait(&shared.lock.word, marked, SHC_NEVER);
    }
}

/* Looks, finds the holder dead, and is the holder: as if nobody else looked at the same time. */
static int
grab(void)
{
    uint32_t word = 0;
    if (shc_a32_cas_acquire(&shared.lock.word, &word, shc_lock_owner_word(me())))
        return 0;
    if (!shc_participant_is_dead(&plan.table, (word & SHC_LOCK_INDEX_MASK) - 1, 0, SHC_LOCK_GENERATION_MASK, me()->me))
        return shc_lock_acquire(&shared.lock, me(), SHC_NEVER);
    shc_a32_store_relaxed(&shared.lock.word, shc_lock_owner_word(me()));
    return SHC_OWNER_DIED;
}

static int
acquire(void)
{
    if (plan.grabs)
        return grab();
    return plan.careless ? acquire_carelessly() : shc_lock_acquire(&shared.lock, me(), SHC_NEVER);
}

static void
worker(void)
{
    for (unsigned i = 0; i < plan.rounds; i++) {
        work(acquire());
        shc_lock_release(&shared.lock);
    }
}

/* Tries only. */
static void
trier(void)
{
    for (unsigned i = 0; i < 2; i++) {
        int r = shc_lock_try_acquire(&shared.lock, me());
        if (r == SHC_BUSY)
            continue;
        work(r);
        shc_lock_release(&shared.lock);
    }
}

/* Does not wait for long. */
static void
impatient(void)
{
    int r = shc_lock_acquire(&shared.lock, me(), shc_os_now_ns() + 5);
    if (r == SHC_TIMEOUT)
        return;
    work(r);
    shc_lock_release(&shared.lock);
}

/* ---- models ---- */

static void
reset_to(unsigned rounds)
{
    fake_reset();
    memset(&shared, 0, sizeof shared);
    memset(&plan, 0, sizeof plan);
    plan.rounds = rounds;
    plan.table = (shc_participants_t){.slots = shared.slots, .count = MODEL_THREADS};
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        plan.ids[i] = (shc_identity_t){.pid = FAKE_FIRST_PID + i, .uid = 1, .start = 5, .pidns = 7};
        plan.parties[i] = (shc_lock_party_t){.participants = &plan.table, .me = &plan.ids[i]};
        if (shc_participant_join(&plan.table, &plan.ids[i], &plan.parties[i].index, &plan.parties[i].generation) != 0)
            t_fail(__FILE__, __LINE__, "no slot for thread %u", i);
    }
    model_share(&shared.lock, sizeof shared.lock);
    model_share(&shared.work, sizeof shared.work);
}

static void
reset_once(void)
{
    reset_to(1);
}

static void
reset_twice(void)
{
    reset_to(2);
}

static void
reset_careless(void)
{
    reset_to(1);
    plan.careless = true;
}

static void
reset_grabs(void)
{
    reset_to(1);
    plan.grabs = true;
}

static void
reset_spinning(void)
{
    reset_to(1);
    fake.cpus = 2;
    fake.tick_ns = 1500;
}

/* The lock is free unless the last one died with it. */
static void
finish(void)
{
    uint32_t word = shc_a32_load_relaxed(&shared.lock.word);
    MODEL_CHECK(word == 0 || model_is_dead((word & SHC_LOCK_INDEX_MASK) - 1));
    MODEL_CHECK(shc_lock_check(&shared.lock, &plan.table) == 0);
}

static void
finish_undisturbed(void)
{
    finish();
    MODEL_CHECK(shc_a32_load_relaxed(&shared.lock.word) == 0);
    MODEL_CHECK(model_timeouts() == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(one_inside_and_no_wake_up_lost, 120)
{
    static const model_t models[] = {
        {.name = "2 threads, twice each",
         .threads = 2,
         .body = {worker, worker},
         .reset = reset_twice,
         .finish = finish_undisturbed,
         .preemptions = 6},
        {.name = "3 threads",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_once,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "4 threads",
         .threads = 4,
         .body = {worker, worker, worker, worker},
         .reset = reset_once,
         .finish = finish_undisturbed,
         .preemptions = 3},
        {.name = "2 threads that spin first",
         .threads = 2,
         .body = {worker, worker},
         .reset = reset_spinning,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "2 threads, one that tries only",
         .threads = 3,
         .body = {worker, worker, trier},
         .reset = reset_once,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "2 threads, one that gives up",
         .threads = 3,
         .body = {worker, worker, impatient},
         .reset = reset_once,
         .finish = finish_undisturbed,
         .preemptions = 4,
         .early_timeouts = 2},
        {.name = "3 threads, slices end early",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_once,
         .finish = finish_undisturbed,
         .preemptions = 4,
         .early_timeouts = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(deaths_are_survived_and_announced, 120)
{
    static const model_t models[] = {
        {.name = "2 threads, one dies",
         .threads = 2,
         .body = {worker, worker},
         .reset = reset_twice,
         .finish = finish,
         .preemptions = 3,
         .kills = 1},
        {.name = "3 threads, one dies",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_once,
         .finish = finish,
         .preemptions = 4,
         .kills = 1,
         .early_timeouts = 1},
        {.name = "3 threads, two die",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_once,
         .finish = finish,
         .preemptions = 3,
         .kills = 2,
         .early_timeouts = 1},
        {.name = "2 threads and one that tries, one dies",
         .threads = 3,
         .body = {worker, worker, trier},
         .reset = reset_once,
         .finish = finish,
         .preemptions = 3,
         .kills = 1},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "acquired without CONTENDED after a sleep",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_careless,
         .finish = finish_undisturbed,
         .preemptions = 3,
         .must_fail = true},
        {.name = "a dead holder's lock taken by a store",
         .threads = 3,
         .body = {worker, worker, worker},
         .reset = reset_grabs,
         .finish = finish,
         .preemptions = 2,
         .kills = 1,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
