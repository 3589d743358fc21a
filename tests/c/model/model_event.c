/* The event count, explored: nobody sleeps while there is something to take. The same program with one of the rules of
 * shc_event.h broken must be found to fail: that is what makes the explorer believable. */
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "sync/shc_event.h"
#include "t.h"

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* What may be wrong on purpose. */
typedef enum fault {
    NONE,
    NO_SECOND_LOOK,    /* the waiter sleeps without looking again */
    LOOK_BEFORE_FLAG,  /* the waiter looks again before it has set the flag: what a missing fence permits */
    FLAG_BEFORE_STORE, /* the notifier reads the flag before it has stored the condition: the same on its side */
    NO_PASS_ON,
    ONLY_ARMS, /* pass_on without looking at the condition */
    NO_BUMP,   /* the flag is cleared, the sequence stays */
} fault_t;

static struct {
    shc_event_shm_t event;
    shc_a32_t made;
    shc_a32_t taken;
} shared;

static struct {
    fault_t fault;
    bool slices;
    bool all; /* notify_all */
    unsigned things;
    unsigned got[MODEL_THREADS];
    bool gave_up[MODEL_THREADS];
} plan;

/* ---- waiter ---- */

static bool
take_thing(void)
{
    uint32_t taken = shc_a32_load_relaxed(&shared.taken);
    while (shc_a32_load_relaxed(&shared.made) != taken)
        if (shc_a32_cas_seq_cst(&shared.taken, &taken, taken + 1))
            return true;
    return false;
}

static bool
has_thing(void)
{
    uint32_t taken = shc_a32_load_relaxed(&shared.taken);
    return shc_a32_load_relaxed(&shared.made) != taken;
}

static void
wake_without_bump(void)
{
    shc_fence_seq_cst();
    uint32_t v = shc_a32_load_relaxed(&shared.event.word);
    if ((v & SHC_EVENT_SLEEPERS) && shc_a32_cas_seq_cst(&shared.event.word, &v, v & ~SHC_EVENT_SLEEPERS))
        (void)shc_os_futex_wake(&shared.event.word, 1);
}

static void
notify(void)
{
    if (plan.fault == NO_BUMP)
        wake_without_bump();
    else if (plan.all)
        shc_event_notify_all(&shared.event);
    else
        shc_event_notify_one(&shared.event);
}

static void
pass_on(void)
{
    if (plan.fault == NO_PASS_ON)
        return;
    shc_event_pass_on(&shared.event);
    if (plan.fault != ONLY_ARMS && has_thing())
        notify();
}

static bool
look_again(bool early)
{
    if (plan.fault == NO_SECOND_LOOK)
        return false;
    return plan.fault == LOOK_BEFORE_FLAG ? early : take_thing();
}

/* With slices, whoever has slept two of them in vain gives up: then there was nothing for it. */
static bool
wait_for_thing(void)
{
    unsigned slices = 0;
    bool woken = false, got = take_thing();
    while (!got && slices < 3) {
        bool early = plan.fault == LOOK_BEFORE_FLAG && take_thing();
        uint32_t v = shc_event_prepare(&shared.event);
        got = look_again(early);
        if (got)
            break;
        int r = shc_event_wait(&shared.event, v, plan.slices ? shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS : SHC_NEVER);
        woken = woken || r == 0;
        slices += r == SHC_TIMEOUT;
        got = take_thing();
    }
    if (woken)
        pass_on();
    return got;
}

static void
waiter(void)
{
    bool got = wait_for_thing();
    plan.got[model_self()] += got;
    plan.gave_up[model_self()] = !got;
}

/* ---- notifier ---- */

static void
add_thing(void)
{
    if (plan.fault == FLAG_BEFORE_STORE) {
        bool flag = shc_a32_load_relaxed(&shared.event.word) & SHC_EVENT_SLEEPERS;
        (void)shc_a32_fetch_add_relaxed(&shared.made, 1);
        if (flag)
            notify();
        return;
    }
    (void)shc_a32_fetch_add_relaxed(&shared.made, 1);
    notify();
}

static void
notifier(void)
{
    for (unsigned i = 0; i < plan.things; i++)
        add_thing();
}

/* ---- models ---- */

static void
reset_to(fault_t fault, unsigned things, bool slices, bool all)
{
    fake_reset();
    memset(&shared, 0, sizeof shared);
    memset(&plan, 0, sizeof plan);
    plan.fault = fault;
    plan.things = things;
    plan.slices = slices;
    plan.all = all;
    model_share(&shared, sizeof shared);
}

/* Nobody gave up with something left to take, and nothing was taken that nobody made. */
static void
finish(void)
{
    uint32_t made = shc_a32_load_relaxed(&shared.made), taken = shc_a32_load_relaxed(&shared.taken);
    MODEL_CHECK(taken <= made);
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        MODEL_CHECK(!plan.gave_up[i] || model_is_dead(i) || taken == made);
}

/* Without deaths no slice is ever needed. */
static void
finish_undisturbed(void)
{
    finish();
    MODEL_CHECK(model_timeouts() == 0);
}

#define RESET(name, ...)                                                                                               \
    static void reset_##name(void)                                                                                     \
    {                                                                                                                  \
        reset_to(__VA_ARGS__);                                                                                         \
    }
RESET(one, NONE, 1, false, false)
RESET(two, NONE, 2, false, false)
RESET(three, NONE, 3, false, false)
RESET(all, NONE, 2, false, true)
RESET(two_slices, NONE, 2, true, false)
RESET(all_slices, NONE, 2, true, true)
RESET(no_second_look, NO_SECOND_LOOK, 1, false, false)
RESET(look_before_flag, LOOK_BEFORE_FLAG, 1, false, false)
RESET(flag_before_store, FLAG_BEFORE_STORE, 1, false, false)
RESET(no_pass_on, NO_PASS_ON, 2, false, false)
RESET(only_arms, ONLY_ARMS, 3, false, false)
RESET(no_bump, NO_BUMP, 2, false, false)

TEST_LIMIT(no_wake_up_is_lost, 120)
{
    static const model_t models[] = {
        {.name = "1 waiter, 1 put",
         .threads = 2,
         .body = {waiter, notifier},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 10},
        {.name = "2 waiters, 2 puts by one",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_two,
         .finish = finish_undisturbed,
         .preemptions = 4},
        {.name = "2 waiters, 2 notifiers",
         .threads = 4,
         .body = {waiter, waiter, notifier, notifier},
         .reset = reset_one,
         .finish = finish_undisturbed,
         .preemptions = 3},
        {.name = "3 waiters, 3 puts by one",
         .threads = 4,
         .body = {waiter, waiter, waiter, notifier},
         .reset = reset_three,
         .finish = finish_undisturbed,
         .preemptions = 3},
        {.name = "2 waiters, notify_all",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_all,
         .finish = finish_undisturbed,
         .preemptions = 3},
    };
    model_print_head();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(models); i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(a_death_costs_slices_only, 120)
{
    static const model_t models[] = {
        {.name = "2 waiters, 2 puts, one dies",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_two_slices,
         .finish = finish,
         .preemptions = 3,
         .kills = 1,
         .early_timeouts = 1},
        {.name = "2 waiters, 2 puts, two die",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_two_slices,
         .finish = finish,
         .preemptions = 2,
         .kills = 2},
        {.name = "2 waiters, notify_all, one dies",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_all_slices,
         .finish = finish,
         .preemptions = 3,
         .kills = 1},
    };
    model_print_head();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(models); i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(each_rule_is_needed, 120)
{
    static const model_t models[] = {
        {.name = "no second look", .threads = 2, .body = {waiter, notifier}, .reset = reset_no_second_look},
        {.name = "second look before the flag (no fence)",
         .threads = 2,
         .body = {waiter, notifier},
         .reset = reset_look_before_flag},
        {.name = "flag read before the put (no fence)",
         .threads = 2,
         .body = {waiter, notifier},
         .reset = reset_flag_before_store},
        {.name = "no pass_on", .threads = 3, .body = {waiter, waiter, notifier}, .reset = reset_no_pass_on},
        {.name = "pass_on that only arms",
         .threads = 4,
         .body = {waiter, waiter, waiter, notifier},
         .reset = reset_only_arms},
        {.name = "the sequence is not bumped",
         .threads = 3,
         .body = {waiter, waiter, notifier},
         .reset = reset_no_bump},
    };
    model_print_head();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(models); i++) {
        model_t model = models[i];
        model.finish = finish_undisturbed;
        model.preemptions = 3;
        model.must_fail = true;
        model_run(&model);
    }
}
