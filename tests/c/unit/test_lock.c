/* The robust lock: its word by hand, and with real deaths. */
#include "sync/shc_lock.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define SLOTS 4u
#define MS UINT64_C(1000000)

static shc_participants_t table;
static shc_seg_t seg; /* for fix_plant_*: only its table counts */
static shc_lock_party_t party;
static shc_lock_shm_t *lock;

static void
join(shc_lock_party_t *p)
{
    p->participants = &table;
    p->me = &fix.self.id;
    CHECK_OK(shc_self_refresh(&fix.self));
    CHECK_OK(shc_participant_join(&table, &fix.self.id, &p->index, &p->generation));
}

static void
set_up(void)
{
    fix_open();
    table = (shc_participants_t){.slots = proc_share(SLOTS * sizeof *table.slots), .count = SLOTS};
    seg.participants = table;
    lock = proc_share(sizeof *lock);
    join(&party);
}

static uint32_t
word(void)
{
    return shc_a32_load_relaxed(&lock->word);
}

static void
set_word(uint32_t w)
{
    shc_a32_store_relaxed(&lock->word, w);
}

static uint32_t
mine(void)
{
    return shc_lock_owner_word(&party);
}

static uint32_t
word_of(uint32_t index, uint32_t generation)
{
    shc_lock_party_t other = {.index = index, .generation = generation};
    return shc_lock_owner_word(&other);
}

static uint64_t
in_ms(uint64_t ms)
{
    return shc_os_now_ns() + ms * MS;
}

/* ---- alone ---- */

TEST(acquiring_a_free_lock_stamps_it_and_releasing_clears_it)
{
    set_up();
    CHECK_OK(shc_lock_try_acquire(lock, &party));
    CHECK_EQ(word(), mine());
    CHECK_OK(shc_lock_check(lock, &table));
    shc_lock_release(lock);
    CHECK_EQ(word(), 0);
    CHECK_OK(shc_lock_acquire(lock, &party, 0));
    CHECK_EQ(word(), mine());
    shc_lock_release(lock);
    fix_close();
}

TEST(the_owner_word_keeps_18_bits_of_the_generation)
{
    CHECK_EQ(word_of(0, 0), 1);
    CHECK_EQ(word_of(SHC_PARTICIPANT_MAX - 1, 0x3ffff), SHC_PARTICIPANT_MAX | UINT32_C(0x3ffff) << 12);
    CHECK_EQ(word_of(5, UINT32_MAX) & (SHC_LOCK_CONTENDED | SHC_LOCK_RECOVER), 0);
}

TEST(a_lock_held_by_a_living_process_is_busy)
{
    set_up();
    fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_BUSY);
    CHECK_EQ(word(), word_of(2, 9));
    fix_close();
}

TEST(a_lock_is_not_recursive)
{
    set_up();
    CHECK_OK(shc_lock_try_acquire(lock, &party));
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_BUSY);
    CHECK_EQ(shc_lock_acquire(lock, &party, in_ms(1)), SHC_TIMEOUT);
    fix_close();
}

TEST(waiting_for_a_living_holder_times_out_and_marks_the_word)
{
    set_up();
    fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    uint64_t begun = shc_os_now_ns();
    CHECK_EQ(shc_lock_acquire(lock, &party, begun + 25 * MS), SHC_TIMEOUT);
    CHECK_GE(shc_os_now_ns() - begun, 25 * MS);
    CHECK_EQ(word(), word_of(2, 9) | SHC_LOCK_CONTENDED);
    fix_close();
}

TEST(a_deadline_in_the_past_still_takes_a_free_lock)
{
    set_up();
    CHECK_OK(shc_lock_acquire(lock, &party, 0));
    CHECK_EQ(shc_lock_acquire(lock, &party, 0), SHC_TIMEOUT);
    fix_close();
}

/* ---- the holder is dead ---- */

TEST(the_lock_of_a_dead_holder_is_taken_over_with_the_duty_to_repair)
{
    set_up();
    for (int contended = 0; contended < 2; contended++) {
        fix_plant_dead(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
        set_word(word_of(2, 9) | (contended ? SHC_LOCK_CONTENDED : 0));
        CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_OWNER_DIED);
        CHECK_EQ(word(), mine() | SHC_LOCK_RECOVER | SHC_LOCK_CONTENDED);
        shc_lock_mark_consistent(lock);
        CHECK_EQ(word(), mine() | SHC_LOCK_CONTENDED);
        shc_lock_release(lock);
    }
    fix_close();
}

TEST(a_recoverer_that_dies_hands_the_duty_on)
{
    set_up();
    fix_plant_dead(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9) | SHC_LOCK_RECOVER | SHC_LOCK_CONTENDED);
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_OWNER_DIED);
    CHECK_EQ(word(), mine() | SHC_LOCK_RECOVER | SHC_LOCK_CONTENDED);
    fix_close();
}

TEST(waiting_for_a_dead_holder_ends_within_a_slice)
{
    set_up();
    fix_plant_dead(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    CHECK_EQ(shc_lock_acquire(lock, &party, SHC_NEVER), SHC_OWNER_DIED);
    fix_close();
}

TEST(a_holder_that_left_without_releasing_counts_as_dead)
{
    set_up();
    fix_plant_living(&seg, 2, 10, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_OWNER_DIED);
    fix_close();
}

TEST(the_successor_in_a_dead_holders_slot_keeps_its_lock)
{
    set_up();
    /* A survivor saw (2, 9); meanwhile slot 2 was reaped, and its next user took the lock. */
    fix_plant_living(&seg, 2, 10, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 10));
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_BUSY);
    CHECK_EQ(word(), word_of(2, 10));
    fix_close();
}

static void
do_nothing(int number)
{
    (void)number;
}

TEST(signals_that_never_let_a_slice_end_do_not_hide_a_death)
{
    struct sigaction action = {.sa_handler = do_nothing};
    struct itimerval storm = {{0, 2000}, {0, 2000}}, calm = {{0, 0}, {0, 0}};
    int r;
    set_up();
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    fix_plant_dead(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    CHECK_EQ(setitimer(ITIMER_REAL, &storm, NULL), 0);
    do
        r = shc_lock_acquire(lock, &party, SHC_NEVER);
    while (r == SHC_INTERRUPTED);
    CHECK_EQ(setitimer(ITIMER_REAL, &calm, NULL), 0);
    CHECK_EQ(r, SHC_OWNER_DIED);
    fix_close();
}

TEST(a_signal_is_reported_while_the_holder_lives)
{
    struct sigaction action = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    struct itimerval storm = {{0, 2000}, {0, 2000}}, calm = {{0, 0}, {0, 0}};
    set_up();
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    fix_plant_living(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    set_word(word_of(2, 9));
    CHECK_EQ(setitimer(ITIMER_REAL, &storm, NULL), 0);
    CHECK_EQ(shc_lock_acquire(lock, &party, SHC_NEVER), SHC_INTERRUPTED);
    CHECK_EQ(setitimer(ITIMER_REAL, &calm, NULL), 0);
    fix_close();
}

/* ---- words that nobody correct writes ---- */

TEST(stray_bits_without_a_holder_are_mended_by_the_next)
{
    static const uint32_t stray[] = {SHC_LOCK_CONTENDED, SHC_LOCK_RECOVER, UINT32_C(0x1000), UINT32_C(0xfffff000)};
    set_up();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(stray); i++) {
        set_word(stray[i]);
        CHECK_EQ(shc_lock_check(lock, &table), SHC_E_CORRUPT);
        CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_OWNER_DIED);
        CHECK_OK(shc_lock_check(lock, &table));
        shc_lock_release(lock);
        CHECK_EQ(word(), 0);
        set_word(stray[i]);
        CHECK_EQ(shc_lock_acquire(lock, &party, in_ms(1000)), SHC_OWNER_DIED);
        shc_lock_release(lock);
    }
    fix_close();
}

TEST(a_holder_outside_the_table_is_nobody)
{
    set_up();
    set_word(SLOTS + 1);
    CHECK_EQ(shc_lock_check(lock, &table), SHC_E_CORRUPT);
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_OWNER_DIED);
    set_word(SLOTS);
    CHECK_OK(shc_lock_check(lock, &table));
    fix_close();
}

/* ---- with others ---- */

typedef struct scene {
    shc_a32_t held;
    shc_a32_t go;
    int outcome;
} scene_t;

static void
hold_until_killed(void *arg)
{
    scene_t *scene = arg;
    shc_lock_party_t other;
    join(&other);
    CHECK_OK(shc_lock_try_acquire(lock, &other));
    proc_signal(&scene->held);
    for (;;)
        pause();
}

TEST(a_killed_holder_is_found_dead_while_it_is_a_zombie)
{
    scene_t *scene = proc_share(sizeof *scene);
    set_up();
    pid_t pid = proc_start(hold_until_killed, scene);
    proc_await(&scene->held, 1);
    CHECK_EQ(shc_lock_try_acquire(lock, &party), SHC_BUSY);
    proc_kill_unburied(pid);
    CHECK_EQ(shc_lock_acquire(lock, &party, SHC_NEVER), SHC_OWNER_DIED);
    (void)t_wait(pid);
    fix_close();
}

TEST(a_stopped_holder_keeps_its_lock)
{
    scene_t *scene = proc_share(sizeof *scene);
    set_up();
    pid_t pid = proc_start(hold_until_killed, scene);
    proc_await(&scene->held, 1);
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_EQ(shc_lock_acquire(lock, &party, in_ms(30)), SHC_TIMEOUT);
    proc_kill(pid);
    fix_close();
}

static void
wait_for_lock(void *arg)
{
    scene_t *scene = arg;
    shc_lock_party_t other;
    join(&other);
    proc_signal(&scene->go);
    scene->outcome = shc_lock_acquire(lock, &other, SHC_NEVER);
    CHECK(word() & SHC_LOCK_CONTENDED);
    shc_lock_release(lock);
}

TEST(a_release_wakes_a_sleeper_that_takes_the_lock_as_contended)
{
    scene_t *scene = proc_share(sizeof *scene);
    set_up();
    CHECK_OK(shc_lock_try_acquire(lock, &party));
    scene->outcome = -1;
    pid_t pid = proc_start(wait_for_lock, scene);
    while (!(word() & SHC_LOCK_CONTENDED))
        proc_sleep_us(100);
    shc_lock_release(lock);
    proc_join(pid);
    CHECK_EQ(scene->outcome, 0);
    CHECK_EQ(word(), 0);
    fix_close();
}

TEST(a_release_that_was_killed_before_its_wake_delays_a_sleeper_by_a_slice)
{
    scene_t *scene = proc_share(sizeof *scene);
    set_up();
    CHECK_OK(shc_lock_try_acquire(lock, &party));
    pid_t pid = proc_start(wait_for_lock, scene);
    while (!(word() & SHC_LOCK_CONTENDED))
        proc_sleep_us(100);
    proc_sleep_us(2000);
    set_word(0);
    proc_join(pid);
    CHECK_EQ(scene->outcome, 0);
    fix_close();
}
