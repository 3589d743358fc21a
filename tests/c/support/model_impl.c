#include "support/model_impl.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "t.h"

#define STACK_BYTES 65536u
#define CHOICES_MAX 4096u
#define POINTS_MAX 20000u /* of one schedule; a longer one is taken for endless */
#define RANGES_MAX 16u
#define TRACE_MAX 400u
#define NEVER UINT64_MAX

typedef enum state {
    RUNNABLE,
    ASLEEP,
    WAITS_FOR_DEATH,
    ENDED,
    DEAD
} state_t;

typedef struct thread {
    jmp_buf resume; /* where it goes on */
    jmp_buf begin;  /* the bottom of its stack */
    ucontext_t made;
    void *stack;
    state_t state;
    const void *word;
    uint64_t deadline_ns;
    uint64_t asleep_since; /* order of falling asleep */
    int wake_reason;
} thread_t;

typedef struct choice {
    uint16_t taken;
    uint16_t count;
} choice_t;

static struct {
    const model_t *model;
    thread_t threads[MODEL_THREADS];
    ucontext_t main_context;
    jmp_buf main_resume;
    uint32_t running;
    /* the schedule */
    choice_t choices[CHOICES_MAX];
    size_t n_choices; /* decided beforehand */
    size_t depth;     /* used so far */
    unsigned bound;
    unsigned preemptions;
    unsigned deaths;
    unsigned timeouts;
    unsigned early_timeouts;
    unsigned points;
    uint64_t now_ns;
    uint64_t sleeps;
    bool failed;
    char failure[600];
    struct {
        const uint8_t *base;
        size_t size;
    } ranges[RANGES_MAX];
    size_t n_ranges;
    /* the report */
    bool tracing;
    uintptr_t word; /* that the thread at the point is about to touch */
    uint64_t schedules;
    uint64_t all_schedules;
    unsigned models;
} now;

/* ---- threads as coroutines ---- */

static void back_to_main(void);

/* Jumping to `begin` starts the body anew, wherever it was left. */
static void
thread_main(void)
{
    uint32_t self = now.running;
    if (_setjmp(now.threads[self].begin) == 0)
        (void)swapcontext(&now.threads[self].made, &now.main_context);
    now.model->body[now.running]();
    now.threads[now.running].state = ENDED;
    back_to_main();
}

static SHC_NOINLINE void
make_thread(uint32_t i)
{
    thread_t *t = &now.threads[i];
    t->stack = malloc(STACK_BYTES);
    CHECK(t->stack != NULL);
    CHECK_EQ(getcontext(&t->made), 0);
    t->made.uc_stack.ss_sp = t->stack;
    t->made.uc_stack.ss_size = STACK_BYTES;
    makecontext(&t->made, thread_main, 0);
    now.running = i;
    CHECK_EQ(swapcontext(&now.main_context, &t->made), 0);
}

static void
make_threads(void)
{
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        if (now.threads[i].stack == NULL)
            make_thread(i);
    now.running = MODEL_NOBODY;
}

static void
back_to_main(void)
{
    if (_setjmp(now.threads[now.running].resume) == 0)
        _longjmp(now.main_resume, 1);
}

/* For those that do not come back. */
static _Noreturn void
leave_for_main(void)
{
    _longjmp(now.main_resume, 1);
}

static void
resume(uint32_t i)
{
    now.running = i;
    if (_setjmp(now.main_resume) == 0)
        _longjmp(now.threads[i].resume, 1);
}

/* ---- choices ---- */

static unsigned
choose(unsigned count)
{
    if (count == 1)
        return 0;
    if (now.depth == CHOICES_MAX)
        model_failed(__FILE__, __LINE__, "more than %u choices in one schedule", CHOICES_MAX);
    if (now.depth == now.n_choices)
        now.choices[now.n_choices++] = (choice_t){.taken = 0, .count = (uint16_t)count};
    return now.choices[now.depth++].taken;
}

/* The next schedule in the order of depth first search; false: there is none. */
static bool
next_schedule(void)
{
    while (now.n_choices > 0) {
        choice_t *last = &now.choices[now.n_choices - 1];
        if (++last->taken < last->count)
            return true;
        now.n_choices--;
    }
    return false;
}

/* Words are shown as range:offset, the ranges in the order in which reset() shared them. */
static void
trace(const char *what, const char *where)
{
    static unsigned lines;
    if (!now.tracing || lines >= TRACE_MAX)
        return;
    lines++;
    fprintf(stderr, "      %c  %s%s", now.running == MODEL_NOBODY ? '-' : (char)('A' + now.running), what, where);
    for (size_t i = 0; i < now.n_ranges; i++)
        if (now.word - (uintptr_t)now.ranges[i].base < now.ranges[i].size)
            fprintf(stderr, " %zu:%zu", i, (size_t)(now.word - (uintptr_t)now.ranges[i].base));
    fputc('\n', stderr);
}

/* ---- failures ---- */

void
model_failed(const char *file, int line, const char *format, ...)
{
    va_list args;
    int n = snprintf(now.failure, sizeof now.failure, "%s:%d: ", file, line);
    va_start(args, format);
    vsnprintf(now.failure + n, sizeof now.failure - (size_t)n, format, args);
    va_end(args);
    now.failed = true;
    leave_for_main();
}

/* ---- what threads call ---- */

uint32_t
model_self(void)
{
    return now.running;
}

bool
model_is_dead(uint32_t thread)
{
    return now.threads[thread].state == DEAD;
}

bool
model_has_ended(uint32_t thread)
{
    return now.threads[thread].state == ENDED;
}

unsigned
model_timeouts(void)
{
    return now.timeouts;
}

unsigned
model_deaths(void)
{
    return now.deaths;
}

uint64_t
model_now_ns(uint64_t tick_ns)
{
    return now.now_ns += tick_ns;
}

void
model_share(const void *base, size_t size)
{
    CHECK_LT(now.n_ranges, RANGES_MAX);
    now.ranges[now.n_ranges].base = base;
    now.ranges[now.n_ranges++].size = size;
}

static bool
is_shared(const volatile void *word)
{
    uintptr_t at = (uintptr_t)word;
    for (size_t i = 0; i < now.n_ranges; i++)
        if (at - (uintptr_t)now.ranges[i].base < now.ranges[i].size)
            return true;
    return false;
}

static bool
may_die(uint32_t i)
{
    return now.deaths < now.model->kills && (now.model->killable == 0 || (now.model->killable >> i & 1) != 0);
}

static void
bury(uint32_t i)
{
    now.deaths++;
    now.threads[i].state = DEAD;
    for (uint32_t j = 0; j < now.model->threads; j++)
        if (now.threads[j].state == WAITS_FOR_DEATH && now.model->heir[j] == i + 1)
            now.threads[j].state = RUNNABLE;
}

static _Noreturn void
die(const char *where)
{
    trace("is killed before ", where);
    bury(now.running);
    leave_for_main();
}

void
model_exit(void)
{
    trace("exits", "");
    bury(now.running);
    leave_for_main();
}

static unsigned
other_runnable(uint32_t *list)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < now.model->threads; i++)
        if (i != now.running && now.threads[i].state == RUNNABLE)
            list[n++] = i;
    return n;
}

/* Those too whose sleep may end before somebody has to wait for it. */
static unsigned
other_possible(uint32_t *list)
{
    unsigned n = other_runnable(list);
    for (uint32_t i = 0; i < now.model->threads && now.early_timeouts < now.model->early_timeouts; i++)
        if (now.threads[i].state == ASLEEP && now.threads[i].deadline_ns != NEVER)
            list[n++] = i;
    return n;
}

static void
time_out(thread_t *t)
{
    if (t->deadline_ns > now.now_ns)
        now.now_ns = t->deadline_ns;
    t->state = RUNNABLE;
    t->wake_reason = MODEL_TIMED_OUT;
}

static uint32_t preempted_by = MODEL_NOBODY; /* tells the main loop which thread a preemption chose */

static void
point(const char *where, uintptr_t word)
{
    uint32_t others[MODEL_THREADS];
    if (now.running == MODEL_NOBODY)
        return;
    now.word = word;
    if (++now.points > POINTS_MAX)
        model_failed(__FILE__, __LINE__, "the schedule does not end");
    unsigned n = now.preemptions < now.bound ? other_possible(others) : 0;
    unsigned c = choose(1 + n + may_die(now.running));
    if (c == 0) {
        trace("", where);
        return;
    }
    if (c > n)
        die(where);
    now.preemptions++;
    preempted_by = others[c - 1];
    if (now.threads[preempted_by].state == ASLEEP) {
        now.early_timeouts++;
        time_out(&now.threads[preempted_by]);
    }
    back_to_main();
    now.word = word;
    trace("", where);
}

void
model_point(const char *where)
{
    point(where, 0);
}

#ifndef SHC_HOOK
void shc_hook(const char *where, const volatile void *word); /* in other variants nobody calls it */
#endif

void
shc_hook(const char *where, const volatile void *word)
{
    if (is_shared(word))
        point(where, (uintptr_t)word);
}

/* ---- sleeping ---- */

int
model_sleep(const void *word, uint64_t deadline_ns)
{
    thread_t *t = &now.threads[now.running];
    if (may_die(now.running) && choose(2) == 1)
        die("waking from its sleep");
    now.word = (uintptr_t)word;
    trace("falls asleep on", "");
    t->state = ASLEEP;
    t->word = word;
    t->deadline_ns = deadline_ns;
    t->asleep_since = now.sleeps++;
    back_to_main();
    now.word = 0;
    trace(t->wake_reason == MODEL_WOKEN ? "is awake" : "timed out", "");
    return t->wake_reason;
}

static void
wake_one(uint32_t i)
{
    now.threads[i].state = RUNNABLE;
    now.threads[i].wake_reason = MODEL_WOKEN;
    if (may_die(i) && choose(2) == 1) {
        trace("wakes one who is killed: ", i == 0 ? "A" : i == 1 ? "B" : i == 2 ? "C" : "D");
        bury(i);
    }
}

unsigned
model_wake(const void *word, unsigned count)
{
    unsigned woken = 0;
    while (woken < count) {
        uint32_t sleepers[MODEL_THREADS];
        unsigned n = 0;
        for (uint32_t i = 0; i < now.model->threads; i++)
            if (now.threads[i].state == ASLEEP && now.threads[i].word == word)
                sleepers[n++] = i;
        if (n == 0)
            break;
        wake_one(sleepers[choose(n)]);
        woken++;
    }
    return woken;
}

/* Nobody can run: the earliest deadline comes. False: there is none. */
static bool
pass_time(void)
{
    thread_t *first = NULL;
    for (uint32_t i = 0; i < now.model->threads; i++) {
        thread_t *t = &now.threads[i];
        if (t->state == ASLEEP && t->deadline_ns != NEVER && (first == NULL || t->deadline_ns < first->deadline_ns))
            first = t;
    }
    if (first == NULL)
        return false;
    now.timeouts++;
    time_out(first);
    return true;
}

/* ---- one schedule ---- */

static void
begin_schedule(void)
{
    now.depth = 0;
    now.preemptions = now.deaths = now.timeouts = now.early_timeouts = now.points = 0;
    now.now_ns = UINT64_C(1000000000);
    now.sleeps = 0;
    now.failed = false;
    now.n_ranges = 0;
    now.running = MODEL_NOBODY;
    preempted_by = MODEL_NOBODY;
    for (uint32_t i = 0; i < now.model->threads; i++) {
        thread_t *t = &now.threads[i];
        t->state = now.model->heir[i] == 0 ? RUNNABLE : WAITS_FOR_DEATH;
        memcpy(&t->resume, &t->begin, sizeof t->resume);
    }
    now.model->reset();
}

static bool
anybody_in(state_t state)
{
    bool found = false;
    for (uint32_t i = 0; i < now.model->threads; i++)
        found = found || now.threads[i].state == state;
    return found;
}

/* Whose turn it is; MODEL_NOBODY when all is over. */
static uint32_t
pick_thread(void)
{
    uint32_t runnable[MODEL_THREADS];
    uint32_t chosen = preempted_by;
    preempted_by = MODEL_NOBODY;
    if (chosen != MODEL_NOBODY)
        return chosen;
    now.running = MODEL_NOBODY;
    unsigned n = other_runnable(runnable);
    if (n == 0 && anybody_in(ASLEEP) && pass_time())
        n = other_runnable(runnable);
    return n == 0 ? MODEL_NOBODY : runnable[choose(n)];
}

static void
finish_schedule(void)
{
    now.running = MODEL_NOBODY;
    if (_setjmp(now.main_resume) != 0)
        return; /* a check failed */
    if (anybody_in(ASLEEP))
        model_failed(__FILE__, __LINE__, "deadlock: somebody sleeps for ever");
    now.model->finish();
}

static void
run_schedule(void)
{
    begin_schedule();
    for (;;) {
        uint32_t i = pick_thread();
        if (i == MODEL_NOBODY)
            break;
        resume(i);
        if (now.failed)
            return;
    }
    finish_schedule();
}

/* ---- one model ---- */

static void
show_failure(void)
{
    fflush(stdout);
    fprintf(stderr, "    %s\n    with %u preemptions and %u deaths, after these steps:\n", now.failure, now.preemptions,
            now.deaths);
    now.tracing = true;
    run_schedule();
    now.tracing = false;
    fprintf(stderr, "      -> %s\n", now.failure);
}

/* Everything within the bound; false at the first failure. */
static bool
explore(unsigned bound)
{
    now.bound = bound;
    now.n_choices = 0;
    now.schedules = 0;
    do {
        run_schedule();
        now.schedules++;
        if (now.failed)
            return false;
    } while (next_schedule());
    return true;
}

static unsigned
extra_preemptions(void)
{
    const char *text = getenv("SHMCOMM_MODEL_EXTRA");
    return text == NULL ? 0 : (unsigned)strtoul(text, NULL, 10);
}

static double
seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void
model_print_head(void)
{
    printf("    %-52s %11s %6s %11s %8s\n", "model", "preemptions", "kills", "schedules", "seconds");
}

void
model_run(const model_t *model)
{
    double begun = seconds();
    unsigned last = model->preemptions + extra_preemptions(), bound = 0;
    uint64_t tried = 0;
    bool sound = true;
    now.model = model;
    make_threads();
    for (; sound && bound <= last; bound++) {
        sound = explore(bound);
        tried += now.schedules;
    }
    /* A bound includes those below it: only the last one's schedules are different from each other. */
    now.all_schedules += sound ? now.schedules : tried;
    printf("    %-52s %11u %6u %11" PRIu64 " %8.1f%s\n", model->name, bound - 1, model->kills,
           sound ? now.schedules : tried, seconds() - begun,
           sound              ? ""
           : model->must_fail ? "  found, as it must be"
                              : "  FAILED");
    fflush(stdout);
    if (!sound && !model->must_fail)
        show_failure();
    if (sound == model->must_fail)
        t_fail(__FILE__, __LINE__, "model \"%s\": %s", model->name,
               sound ? "the explorer did not find what is wrong on purpose" : "found a schedule that fails");
}

void
model_print_sum(void)
{
    printf("    %-52s %11s %6s %11" PRIu64 "\n", "all", "", "", now.all_schedules);
}
