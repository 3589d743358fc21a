/* The event count: its word, and sleeping on it. */
#include "sync/shc_event.h"

#include <pthread.h>
#include <signal.h>

#include "support/proc.h"
#include "t.h"

#define MS UINT64_C(1000000)

static shc_event_shm_t ev;

static uint32_t
word(void)
{
    return shc_a32_load_relaxed(&ev.word);
}

TEST(notifying_when_nobody_sleeps_changes_nothing)
{
    shc_event_notify_one(&ev);
    shc_event_notify_all(&ev);
    shc_event_wake(&ev, 1);
    CHECK_EQ(word(), 0);
}

TEST(prepare_sets_the_flag_and_returns_the_word_with_it)
{
    CHECK_EQ(shc_event_prepare(&ev), SHC_EVENT_SLEEPERS);
    CHECK_EQ(word(), SHC_EVENT_SLEEPERS);
    CHECK_EQ(shc_event_prepare(&ev), SHC_EVENT_SLEEPERS);
    CHECK_EQ(word(), SHC_EVENT_SLEEPERS);
}

TEST(notify_takes_the_flag_and_bumps_the_sequence)
{
    (void)shc_event_prepare(&ev);
    shc_event_notify_one(&ev);
    CHECK_EQ(word(), 2);
    (void)shc_event_prepare(&ev);
    shc_event_notify_all(&ev);
    CHECK_EQ(word(), 4);
    shc_event_notify_all(&ev);
    CHECK_EQ(word(), 4);
}

TEST(the_sequence_wraps_and_leaves_the_flag_clear)
{
    shc_a32_store_relaxed(&ev.word, UINT32_MAX - 1);
    CHECK_EQ(shc_event_prepare(&ev), UINT32_MAX);
    shc_event_notify_one(&ev);
    CHECK_EQ(word(), 0);
}

TEST(a_wait_that_was_notified_before_it_began_does_not_sleep)
{
    uint32_t v = shc_event_prepare(&ev);
    shc_event_notify_one(&ev);
    CHECK_EQ(shc_event_wait(&ev, v, SHC_NEVER), SHC_AGAIN);
}

TEST(a_wait_ends_at_its_deadline_and_leaves_the_flag)
{
    uint64_t begun = shc_os_now_ns();
    uint32_t v = shc_event_prepare(&ev);
    CHECK_EQ(shc_event_wait(&ev, v, begun + 3 * MS), SHC_TIMEOUT);
    CHECK_GE(shc_os_now_ns() - begun, 3 * MS);
    CHECK_EQ(word(), SHC_EVENT_SLEEPERS);
    CHECK_EQ(shc_event_wait(&ev, v, 0), SHC_TIMEOUT);
}

TEST(pass_on_arms_the_flag_again_and_nothing_else)
{
    (void)shc_event_prepare(&ev);
    shc_event_notify_one(&ev);
    shc_event_pass_on(&ev);
    CHECK_EQ(word(), 2 | SHC_EVENT_SLEEPERS);
}

/* ---- with sleepers ---- */

typedef struct sleeper {
    pthread_t thread;
    shc_a32_t prepared;
    int result;
} sleeper_t;

static void *
sleep_once(void *arg)
{
    sleeper_t *s = arg;
    uint32_t v = shc_event_prepare(&ev);
    shc_a32_store_release(&s->prepared, 1); /* R1 */
    s->result = shc_event_wait(&ev, v, SHC_NEVER);
    return NULL;
}

static void
start_sleeper(sleeper_t *s)
{
    shc_a32_store_relaxed(&s->prepared, 0);
    CHECK_EQ(pthread_create(&s->thread, NULL, sleep_once, s), 0);
    proc_await(&s->prepared, 1);
}

static void
join_sleeper(const sleeper_t *s)
{
    CHECK_EQ(pthread_join(s->thread, NULL), 0);
    CHECK(s->result == 0 || s->result == SHC_AGAIN);
}

TEST(notify_one_wakes_a_sleeper)
{
    sleeper_t s;
    start_sleeper(&s);
    proc_sleep_us(2000);
    shc_event_notify_one(&ev);
    join_sleeper(&s);
}

TEST(notify_all_wakes_everybody)
{
    sleeper_t s[5];
    for (size_t i = 0; i < SHC_ARRAY_SIZE(s); i++)
        start_sleeper(&s[i]);
    proc_sleep_us(2000);
    shc_event_notify_all(&ev);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(s); i++)
        join_sleeper(&s[i]);
}

static void
do_nothing(int number)
{
    (void)number;
}

typedef struct alarmed {
    pthread_t sleeper;
    shc_a32_t over;
} alarmed_t;

static void *
send_signals(void *arg)
{
    alarmed_t *a = arg;
    while (shc_a32_load_acquire(&a->over) == 0) { /* A2 */
        proc_sleep_us(1000);
        (void)pthread_kill(a->sleeper, SIGUSR1);
    }
    return NULL;
}

TEST(a_signal_ends_a_wait_even_if_calls_are_to_be_restarted)
{
    pthread_t thread;
    alarmed_t a = {.sleeper = pthread_self()};
    struct sigaction action = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(pthread_create(&thread, NULL, send_signals, &a), 0);
    CHECK_EQ(shc_event_wait(&ev, shc_event_prepare(&ev), SHC_NEVER), SHC_INTERRUPTED);
    shc_a32_store_release(&a.over, 1); /* R2 */
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

static shc_event_shm_t *shared;

static void
sleep_elsewhere(void *arg)
{
    shc_a32_t *ready = arg;
    uint32_t v = shc_event_prepare(shared);
    proc_signal(ready);
    int r = shc_event_wait(shared, v, SHC_NEVER);
    CHECK(r == 0 || r == SHC_AGAIN);
}

TEST(a_sleeper_in_another_process_is_woken)
{
    shc_a32_t *ready = proc_share(sizeof *ready);
    shared = proc_share(sizeof *shared);
    pid_t pid = proc_start(sleep_elsewhere, ready);
    proc_await(ready, 1);
    proc_sleep_us(2000);
    shc_event_notify_one(shared);
    proc_join(pid);
}

TEST(a_killed_sleeper_costs_one_useless_wake_and_nothing_else)
{
    shc_a32_t *ready = proc_share(sizeof *ready);
    shared = proc_share(sizeof *shared);
    pid_t pid = proc_start(sleep_elsewhere, ready);
    proc_await(ready, 1);
    proc_kill(pid);
    CHECK_EQ(shc_a32_load_relaxed(&shared->word), SHC_EVENT_SLEEPERS);
    shc_event_notify_one(shared);
    CHECK_EQ(shc_a32_load_relaxed(&shared->word), 2);
    shc_event_notify_one(shared);
    CHECK_EQ(shc_a32_load_relaxed(&shared->word), 2);
}
