/* The pool of objects, explored: more processes than slots, with sleepers, deaths and a reaper. A slot is in one hand
 * at a time, what was half done is said to be dirty, and nobody sleeps while something is free. */
#include "ds/shc_objects.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define SLOTS_MAX 2u
#define SLOT_SIZE 8u

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* One process. */
typedef struct party {
    shc_self_t self;
    shc_seg_t seg;
    shc_objects_t pool;
} party_t;

static struct {
    party_t parties[MODEL_THREADS];
    uint32_t holder[SLOTS_MAX]; /* thread + 1 that is at work there */
    bool dirty[SLOTS_MAX];      /* that its next holder must be told */
    unsigned visits;
    bool leaves_dirty;
    bool trusts_hints;  /* a mistake: says that nothing is free when no hint is set */
    bool forgets_wake;  /* a mistake: gives back by the word alone */
    bool takes_plainly; /* a mistake: takes by a store */
} plan, fresh_plan;

static uint8_t *image; /* the segment: the fake's first file */
static uint8_t fresh_image[FAKE_FILE_BYTES];

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

/* ---- a user ---- */

static int
take_as_told(const shc_objects_t *pool, uint32_t *slot, bool *dirty)
{
    if (plan.trusts_hints && shc_a64_load_relaxed(&pool->hints[0]) == 0)
        return SHC_EMPTY;
    if (!plan.takes_plainly)
        return shc_objects_take(pool, slot, dirty);
    for (*slot = 0; *slot < pool->max_size; (*slot)++) {
        uint64_t word = shc_a64_load_relaxed(&pool->slots[*slot].word);
        *dirty = (word & SHC_OBJECTS_DIRTY) != 0;
        if ((word & SHC_OBJECTS_OWNER) != 0)
            continue;
        shc_a64_store_relaxed(&pool->slots[*slot].word, shc_seg_owner_word(pool->seg) | SHC_OBJECTS_USED);
        return 0;
    }
    return SHC_EMPTY;
}

/* As a user of the pool waits. */
static uint32_t
insist(const shc_objects_t *pool, bool *dirty)
{
    uint32_t slot;
    bool woken = false;
    while (take_as_told(pool, &slot, dirty) != 0) {
        uint32_t v = shc_event_prepare(&pool->shm->returned);
        if (take_as_told(pool, &slot, dirty) == 0)
            break;
        woken |= shc_event_wait(&pool->shm->returned, v, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS) == 0;
    }
    if (woken) {
        shc_event_pass_on(&pool->shm->returned);
        shc_event_notify_one(&pool->shm->returned);
    }
    return slot;
}

static void
enter(uint32_t slot, bool dirty)
{
    uint32_t before = plan.holder[slot];
    MODEL_CHECK(before == 0 || model_is_dead(before - 1));
    MODEL_CHECK(dirty || (before == 0 && !plan.dirty[slot]));
    MODEL_CHECK(!dirty || plan.dirty[slot] || model_deaths() > 0);
    plan.holder[slot] = model_self() + 1;
    plan.dirty[slot] = true; /* until it is given back */
}

static void
give_back(const shc_objects_t *pool, uint32_t slot)
{
    MODEL_CHECK(plan.holder[slot] == model_self() + 1);
    plan.holder[slot] = 0;
    plan.dirty[slot] = plan.leaves_dirty;
    plan.visits++;
    if (plan.forgets_wake)
        shc_a64_store_relaxed(&pool->slots[slot].word, SHC_OBJECTS_USED);
    else
        MODEL_CHECK(shc_objects_give_back(pool, slot, plan.leaves_dirty) == 0);
}

static void
use(void)
{
    const shc_objects_t *pool = &me()->pool;
    bool dirty;
    uint32_t slot = insist(pool, &dirty);
    enter(slot, dirty);
    model_point("at work");
    give_back(pool, slot);
}

/* The slot that it had before comes first. */
static void
use_twice(void)
{
    const shc_objects_t *pool = &me()->pool;
    bool dirty;
    uint32_t slot = insist(pool, &dirty);
    enter(slot, dirty);
    give_back(pool, slot);
    if (!shc_objects_try_take(pool, slot, &dirty))
        slot = insist(pool, &dirty);
    enter(slot, dirty);
    give_back(pool, slot);
}

/* Does not wait. */
static void
try_once(void)
{
    const shc_objects_t *pool = &me()->pool;
    uint32_t slot;
    bool dirty;
    if (shc_objects_take(pool, &slot, &dirty) != 0)
        return;
    enter(slot, dirty);
    give_back(pool, slot);
}

static void
reap(void)
{
    (void)shc_seg_reap_participants(&me()->seg);
}

/* ---- models ---- */

/* Made once for each number of slots: a segment that all threads have joined. */
static void
make_fresh(uint32_t slots)
{
    const shc_seg_create_args_t args = {.body_size = shc_objects_body_size(slots, SLOT_SIZE),
                                        .config = {slots, SLOT_SIZE},
                                        .participants = MODEL_THREADS + 1,
                                        .mode = 0600,
                                        .persist = true};
    static shc_self_t self;
    shc_seg_t made;
    memset(&plan, 0, sizeof plan);
    fake_reset();
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.objects", &self, &shc_objects_spec, &args, shc_objects_init, &made));
    image = made.base;
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        party_t *party = &plan.parties[i];
        party->self = self;
        party->self.id.pid = FAKE_FIRST_PID + i;
        party->seg = made;
        party->seg.self = &party->self;
        CHECK_OK(shc_participant_join(&made.participants, &party->self.id, &party->seg.index, &party->seg.generation));
        shc_objects_open(&party->pool, &party->seg);
    }
    memcpy(fresh_image, image, sizeof fresh_image);
    fresh_plan = plan;
}

static void
reset_to(uint32_t slots)
{
    if (image == NULL || fresh_plan.parties[0].pool.max_size != slots)
        make_fresh(slots);
    plan = fresh_plan;
    memcpy(image, fresh_image, sizeof fresh_image);
    model_share(&plan.parties[0].pool.shm->returned, sizeof(shc_event_shm_t));
    model_share(plan.parties[0].pool.hints, sizeof(shc_a64_t));
    model_share(plan.parties[0].pool.slots, slots * sizeof(shc_objects_slot_shm_t));
}

static void
reset_one(void)
{
    reset_to(1);
}

static void
reset_two(void)
{
    reset_to(2);
}

static void
reset_dirty(void)
{
    reset_to(1);
    plan.leaves_dirty = true;
}

static void
reset_with_participants(void)
{
    reset_to(1);
    model_share(plan.parties[0].seg.participants.slots, (MODEL_THREADS + 1) * sizeof(shc_participant_shm_t));
}

static void
reset_trusts_hints(void)
{
    reset_to(1);
    plan.trusts_hints = true;
}

static void
reset_forgets_wake(void)
{
    reset_to(1);
    plan.forgets_wake = true;
}

static void
reset_takes_plainly(void)
{
    reset_to(1);
    plan.takes_plainly = true;
}

static void
finish(void)
{
    const shc_objects_t *pool = &plan.parties[0].pool;
    MODEL_CHECK(shc_objects_check(pool) == 0);
    MODEL_CHECK(shc_objects_count(pool).taken <= model_deaths());
    MODEL_CHECK(shc_a64_load_relaxed(&pool->shm->deaths) <= model_deaths());
}

/* A slot is as free as its word says, and hinted at unless somebody died before it could. */
static void
finish_undisturbed(void)
{
    const shc_objects_t *pool = &plan.parties[0].pool;
    finish();
    for (uint32_t slot = 0; slot < pool->max_size; slot++)
        MODEL_CHECK(shc_objects__is_hinted(pool, slot));
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

TEST_LIMIT(one_holder_at_a_time_and_no_wake_up_lost, 120)
{
    static const model_t models[] = {
        {.name = "2 users, 1 slot, twice each",
         .threads = 2,
         .body = {use_twice, use_twice},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 5},
        {.name = "3 users, 1 slot",
         .threads = 3,
         .body = {use, use, use},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "3 users, 2 slots",
         .threads = 3,
         .body = {use, use_twice, use},
         .reset = reset_two,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "2 users and one that tries",
         .threads = 3,
         .body = {use, use, try_once},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "2 users that leave it dirty",
         .threads = 2,
         .body = {use_twice, use},
         .reset = reset_dirty,
         .finish = finish_undisturbed,
         .preemptions = 5},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(deaths_are_survived, 120)
{
    static const model_t models[] = {
        {.name = "2 users, one dies",
         .threads = 2,
         .body = {use_twice, use_twice},
         .reset = reset_one,
         .finish = finish,
         .preemptions = 4,
         .kills = 1},
        {.name = "3 users, two die",
         .threads = 3,
         .body = {use, use, use},
         .reset = reset_one,
         .finish = finish,
         .preemptions = 2,
         .kills = 2},
        {.name = "3 users, 2 slots, two die",
         .threads = 3,
         .body = {use, use, use},
         .reset = reset_two,
         .finish = finish,
         .preemptions = 2,
         .kills = 2},
        {.name = "2 users, one dies, somebody reaps",
         .threads = 3,
         .body = {use, use, reap},
         .reset = reset_with_participants,
         .finish = finish,
         .preemptions = 2,
         .kills = 1},
        {.name = "2 users, two die, one of them the reaper",
         .threads = 4,
         .body = {use, reap, use, reap},
         .reset = reset_with_participants,
         .finish = finish,
         .preemptions = 1,
         .kills = 2,
         .killable = 3},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "hints are taken for the truth",
         .threads = 2,
         .body = {use, use},
         .reset = reset_trusts_hints,
         .finish = finish_undisturbed,
         .preemptions = 3,
         .must_fail = true},
        {.name = "given back without a wake",
         .threads = 2,
         .body = {use, use},
         .reset = reset_forgets_wake,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
        {.name = "taken by a store",
         .threads = 2,
         .body = {use, use},
         .reset = reset_takes_plainly,
         .finish = finish_undisturbed,
         .preemptions = 2,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
