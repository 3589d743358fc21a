/* The participant table: joining, leaving, who is dead, reaping. */
#include "sync/shc_participant.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define SLOTS 4u
#define NOBODY SHC_PARTICIPANT_MAX

static shc_participant_shm_t *slots;
static shc_participants_t table;
/* fix_plant_* take a segment; this one has nothing but the table. */
static shc_seg_t seg;

static void
set_up(void)
{
    fix_open();
    slots = proc_share(SLOTS * sizeof *slots);
    table = (shc_participants_t){.slots = slots, .count = SLOTS};
    seg.participants = table;
}

static const shc_identity_t *
me(void)
{
    return &fix.self.id;
}

static uint64_t
state_of(uint32_t index)
{
    return shc_a64_load_relaxed(&slots[index].state);
}

static bool
is_dead(uint32_t index, uint32_t generation)
{
    return shc_participant_is_dead(&table, index, generation, UINT32_MAX, me());
}

static uint32_t
alive_but(uint32_t index)
{
    return shc_participant_count_alive(&table, index, UINT32_MAX, me());
}

static void
leave(uint32_t index)
{
    shc_participant_begin_leave(&table, index);
    shc_participant_end_leave(&table, index);
}

/* ---- joining and leaving ---- */

TEST(join_takes_the_first_free_slot_and_fills_it)
{
    uint32_t index = 9, generation = 9;
    shc_identity_t who;
    uint64_t since;
    uint32_t phase, seen;
    set_up();
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    CHECK_EQ(index, 0);
    CHECK_EQ(generation, 0);
    CHECK(shc_participant_read(&table, 0, &who, &since, &phase, &seen));
    CHECK_EQ(phase, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(who.pid, getpid());
    CHECK_EQ(who.uid, geteuid());
    CHECK_EQ(who.start, me()->start);
    CHECK_EQ(who.pidino, me()->pidino);
    CHECK_EQ(who.pidns, me()->pidns);
    CHECK_GT(since, UINT64_C(1600000000) * 1000000000);
    CHECK_EQ(shc_participant_actor(state_of(0)), getpid());
    CHECK_OK(shc_participant_check(&table));
    fix_close();
}

TEST(join_of_a_full_table_says_full_and_writes_nothing)
{
    uint32_t index, generation;
    set_up();
    for (uint32_t i = 0; i < SLOTS; i++) {
        CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
        CHECK_EQ(index, i);
    }
    index = generation = 77;
    CHECK_EQ(shc_participant_join(&table, me(), &index, &generation), SHC_FULL);
    CHECK_EQ(index, 77);
    CHECK_EQ(generation, 77);
    fix_close();
}

TEST(leaving_frees_the_slot_with_the_next_generation)
{
    uint32_t index, generation;
    set_up();
    for (uint32_t g = 0; g < 5; g++) {
        CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
        CHECK_EQ(index, 0);
        CHECK_EQ(generation, g);
        shc_participant_begin_leave(&table, 0);
        CHECK_EQ(shc_participant_phase(state_of(0)), SHC_PARTICIPANT_LEAVING);
        CHECK_EQ(shc_participant_generation(state_of(0)), g);
        CHECK_EQ(shc_participant_actor(state_of(0)), getpid());
        shc_participant_end_leave(&table, 0);
        CHECK_EQ(state_of(0), shc_participant_word(SHC_PARTICIPANT_FREE, 0, g + 1));
    }
    fix_close();
}

TEST(a_visitor_has_a_slot_and_is_not_counted)
{
    uint32_t index, generation;
    shc_identity_t who;
    uint64_t since;
    uint32_t phase, seen;
    set_up();
    CHECK_OK(shc_participant_visit(&table, me(), &index, &generation));
    CHECK(shc_participant_read(&table, index, &who, &since, &phase, &seen));
    CHECK_EQ(phase, SHC_PARTICIPANT_LEAVING);
    CHECK_EQ(who.pid, getpid());
    CHECK_EQ(alive_but(NOBODY), 0);
    CHECK(!is_dead(index, generation));
    CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 0);
    shc_participant_end_leave(&table, index);
    CHECK_EQ(state_of(index), shc_participant_word(SHC_PARTICIPANT_FREE, 0, generation + 1));
    fix_close();
}

TEST(generations_wrap_without_touching_the_rest_of_the_word)
{
    uint32_t index, generation;
    set_up();
    shc_a64_store_relaxed(&slots[0].state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, UINT32_MAX));
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    CHECK_EQ(generation, UINT32_MAX);
    CHECK_OK(shc_participant_check(&table));
    leave(0);
    CHECK_EQ(state_of(0), 0);
    fix_close();
}

TEST(a_word_keeps_its_three_parts_apart)
{
    uint64_t word = shc_participant_word(SHC_PARTICIPANT_REAPING, 0x3fffff, 0xdeadbeef);
    CHECK_EQ(shc_participant_phase(word), SHC_PARTICIPANT_REAPING);
    CHECK_EQ(shc_participant_actor(word), 0x3fffff);
    CHECK_EQ(shc_participant_generation(word), 0xdeadbeef);
    CHECK_EQ(word >> 57, 0);
    CHECK_EQ(shc_participant_actor(shc_participant_word(0, UINT32_MAX, 0)), 0x3fffff);
}

/* ---- who is dead ---- */

TEST(a_living_holder_is_not_dead)
{
    set_up();
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_LIVE);
    CHECK(!is_dead(1, 7));
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_LEAVING);
    CHECK(!is_dead(1, 7));
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_JOINING);
    CHECK(!is_dead(1, 7));
    fix_close();
}

TEST(a_killed_holder_is_dead_while_it_is_a_zombie)
{
    static const uint32_t phases[] = {SHC_PARTICIPANT_JOINING, SHC_PARTICIPANT_LIVE, SHC_PARTICIPANT_LEAVING,
                                      SHC_PARTICIPANT_DEAD, SHC_PARTICIPANT_REAPING};
    set_up();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(phases); i++) {
        fix_plant_dead(&seg, 1, 7, phases[i]);
        CHECK(is_dead(1, 7));
    }
    fix_close();
}

TEST(a_holder_whose_slot_has_moved_on_is_dead)
{
    set_up();
    fix_plant_living(&seg, 1, 8, SHC_PARTICIPANT_LIVE);
    CHECK(is_dead(1, 7));
    CHECK(is_dead(1, 9));
    CHECK(!is_dead(1, 8));
    shc_a64_store_relaxed(&slots[2].state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, 3));
    CHECK(is_dead(2, 3));
    CHECK(is_dead(2, 2));
    fix_close();
}

TEST(only_the_bits_of_the_mask_are_compared)
{
    set_up();
    fix_plant_living(&seg, 1, 0x40007, SHC_PARTICIPANT_LIVE);
    CHECK(!shc_participant_is_dead(&table, 1, 7, 0x3ffff, me()));
    CHECK(shc_participant_is_dead(&table, 1, 7, 0x7ffff, me()));
    CHECK(shc_participant_is_dead(&table, 1, 6, 0x3ffff, me()));
    fix_close();
}

TEST(an_index_outside_the_table_is_nobody)
{
    set_up();
    CHECK(is_dead(SLOTS, 0));
    CHECK(is_dead(UINT32_MAX, 0));
    fix_close();
}

TEST(a_holder_being_reaped_is_dead_though_the_reaper_lives)
{
    set_up();
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_REAPING);
    CHECK(is_dead(1, 7));
    fix_close();
}

TEST(a_reused_pid_is_not_taken_for_its_last_owner)
{
    set_up();
    if (me()->pidino == 0 && me()->start == 0)
        T_SKIP("this system tells neither start times nor pidfd inodes");
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_LIVE);
    if (me()->pidino != 0) {
        shc_a64_store_relaxed(&slots[1].pidino, me()->pidino); /* not the parent's */
        CHECK(is_dead(1, 7));
    }
    shc_a64_store_relaxed(&slots[1].pidino, 0);
    shc_a64_store_relaxed(&slots[1].start, 1);
    CHECK_EQ(is_dead(1, 7), me()->start != 0);
    fix_close();
}

TEST(a_pid_that_differs_from_the_actors_makes_the_slot_dead)
{
    set_up();
    fix_plant_living(&seg, 1, 7, SHC_PARTICIPANT_LIVE);
    shc_a32_store_relaxed(&slots[1].pid, (uint32_t)getpid());
    CHECK(is_dead(1, 7));
    fix_close();
}

TEST(a_dead_process_of_another_pid_namespace_counts_as_living)
{
    set_up();
    fix_plant_dead(&seg, 1, 7, SHC_PARTICIPANT_LIVE);
    shc_a64_store_relaxed(&slots[1].pidns, me()->pidns + 1);
    CHECK(!is_dead(1, 7));
    CHECK_EQ(alive_but(NOBODY), 1);
    CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 0);
    fix_close();
}

/* ---- counting ---- */

TEST(only_living_users_are_counted)
{
    set_up();
    CHECK_EQ(alive_but(NOBODY), 0);
    fix_plant_living(&seg, 0, 0, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(alive_but(NOBODY), 1);
    CHECK_EQ(alive_but(0), 0);
    fix_plant_dead(&seg, 1, 0, SHC_PARTICIPANT_LIVE);
    fix_plant_living(&seg, 2, 0, SHC_PARTICIPANT_LEAVING);
    fix_plant_living(&seg, 3, 0, SHC_PARTICIPANT_REAPING);
    CHECK_EQ(alive_but(NOBODY), 1);
    CHECK_EQ(alive_but(1), 1);
    fix_plant_living(&seg, 3, 0, SHC_PARTICIPANT_JOINING);
    CHECK_EQ(alive_but(NOBODY), 1);
    fix_plant_living(&seg, 3, 0, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(alive_but(NOBODY), 2);
    fix_close();
}

TEST(counting_stops_when_there_are_enough)
{
    set_up();
    for (uint32_t i = 0; i < SLOTS; i++)
        fix_plant_living(&seg, i, 0, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(shc_participant_count_alive(&table, NOBODY, 1, me()), 1);
    CHECK_EQ(shc_participant_count_alive(&table, NOBODY, 3, me()), 3);
    CHECK_EQ(shc_participant_count_alive(&table, NOBODY, 0, me()), 0);
    CHECK_EQ(alive_but(NOBODY), SLOTS);
    fix_close();
}

/* ---- who waits ---- */

static uint64_t
waiters(void)
{
    return shc_participant_count_waiters(&table, me());
}

static void
plant_waiters(uint32_t index, uint32_t generation, uint32_t threads)
{
    shc_a64_store_relaxed(&slots[index].waiters, shc_participant_waiters_word(generation, threads));
}

TEST(a_wait_is_counted_from_its_beginning_to_its_end)
{
    uint32_t index, generation;
    set_up();
    shc_a64_store_relaxed(&slots[0].state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, 7));
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    CHECK_EQ(waiters(), 0);
    shc_participant_begin_wait(&table, index, generation);
    CHECK_EQ(waiters(), 1);
    shc_participant_begin_wait(&table, index, generation);
    CHECK_EQ(waiters(), 2);
    CHECK_OK(shc_participant_check(&table));
    shc_participant_end_wait(&table, index, generation);
    CHECK_EQ(waiters(), 1);
    shc_participant_end_wait(&table, index, generation);
    CHECK_EQ(waiters(), 0);
    CHECK_EQ(shc_a64_load_relaxed(&slots[0].waiters), shc_participant_waiters_word(7, 0));
    fix_close();
}

TEST(waiters_of_all_living_users_are_added_up)
{
    set_up();
    for (uint32_t i = 0; i < SLOTS; i++) {
        fix_plant_living(&seg, i, 5, SHC_PARTICIPANT_LIVE);
        plant_waiters(i, 5, i + 1);
    }
    CHECK_EQ(waiters(), 1 + 2 + 3 + 4);
    fix_plant_living(&seg, 3, 5, SHC_PARTICIPANT_LEAVING);
    CHECK_EQ(waiters(), 1 + 2 + 3);
    fix_plant_dead(&seg, 2, 5, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(waiters(), 1 + 2);
    plant_waiters(1, 4, 2);
    CHECK_EQ(waiters(), 1);
    shc_a64_store_relaxed(&slots[0].state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, 5));
    CHECK_EQ(waiters(), 0);
    fix_close();
}

TEST(who_comes_back_to_a_slot_that_has_moved_on_changes_nothing)
{
    uint32_t index, generation, again, next;
    set_up();
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    shc_participant_begin_wait(&table, index, generation);
    leave(index);
    CHECK_EQ(waiters(), 0);
    CHECK_OK(shc_participant_join(&table, me(), &again, &next));
    CHECK_EQ(again, index);
    CHECK_EQ(waiters(), 0);
    shc_participant_begin_wait(&table, again, next);
    shc_participant_end_wait(&table, index, generation);
    CHECK_EQ(waiters(), 1);
    shc_participant_begin_wait(&table, index, generation);
    CHECK_EQ(waiters(), 1);
    fix_close();
}

TEST(an_impossible_count_of_waiters_is_bounded_and_stays_in_its_half_of_the_word)
{
    static const uint32_t forged[] = {SHC_PARTICIPANT_WAITERS_MAX, SHC_PARTICIPANT_WAITERS_MAX + 1, UINT32_MAX};
    uint32_t index, generation;
    set_up();
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    for (size_t i = 0; i < SHC_ARRAY_SIZE(forged); i++) {
        plant_waiters(index, generation, forged[i]);
        CHECK_EQ(waiters(), SHC_PARTICIPANT_WAITERS_MAX);
        CHECK_EQ(shc_participant_check(&table), forged[i] > SHC_PARTICIPANT_WAITERS_MAX ? SHC_E_CORRUPT : 0);
        shc_participant_begin_wait(&table, index, generation);
        CHECK_EQ(shc_a64_load_relaxed(&slots[index].waiters), shc_participant_waiters_word(generation, forged[i]));
    }
    plant_waiters(index, generation, 0);
    shc_participant_end_wait(&table, index, generation);
    CHECK_EQ(shc_a64_load_relaxed(&slots[index].waiters), shc_participant_waiters_word(generation, 0));
    fix_close();
}

static void
join_wait_and_die(void *arg)
{
    uint32_t *index = arg, generation;
    CHECK_OK(shc_self_refresh(&fix.self));
    CHECK_OK(shc_participant_join(&table, me(), index, &generation));
    shc_participant_begin_wait(&table, *index, generation);
    (void)kill(getpid(), SIGKILL);
}

TEST(a_killed_waiter_is_not_counted_and_leaves_no_count_to_its_successor)
{
    uint32_t *index = proc_share(sizeof *index), again, generation;
    set_up();
    CHECK_EQ(t_wait(proc_start(join_wait_and_die, index)), 128 + SIGKILL);
    CHECK_EQ(shc_participant_waiters(shc_a64_load_relaxed(&slots[*index].waiters)), 1);
    CHECK_EQ(waiters(), 0);
    CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 1);
    CHECK_EQ(waiters(), 0);
    CHECK_OK(shc_participant_join(&table, me(), &again, &generation));
    CHECK_EQ(again, *index);
    CHECK_EQ(waiters(), 0);
    fix_close();
}

#define COUNTING_THREADS 4

static uint32_t counted_index, counted_generation;

static void *
wait_often(void *arg)
{
    uint64_t rounds = t_scaled(100000);
    (void)arg;
    for (uint64_t i = 0; i < rounds; i++) {
        shc_participant_begin_wait(&table, counted_index, counted_generation);
        shc_participant_end_wait(&table, counted_index, counted_generation);
    }
    shc_participant_begin_wait(&table, counted_index, counted_generation);
    return NULL;
}

TEST(threads_of_one_process_count_together)
{
    pthread_t threads[COUNTING_THREADS];
    set_up();
    CHECK_OK(shc_participant_join(&table, me(), &counted_index, &counted_generation));
    for (int i = 0; i < COUNTING_THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, wait_often, NULL), 0);
    for (int i = 0; i < COUNTING_THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(waiters(), COUNTING_THREADS);
    fix_close();
}

/* ---- reaping ---- */

typedef struct swept {
    uint32_t n;
    uint32_t index[8], generation[8];
    uint64_t state[8];
} swept_t;

static void
note_sweep(void *arg, uint32_t index, uint32_t generation)
{
    swept_t *s = arg;
    s->index[s->n] = index;
    s->generation[s->n] = generation;
    s->state[s->n++] = state_of(index);
}

TEST(reap_sweeps_and_frees_the_slots_of_the_dead_in_every_phase)
{
    static const uint32_t phases[SLOTS] = {SHC_PARTICIPANT_JOINING, SHC_PARTICIPANT_LIVE, SHC_PARTICIPANT_LEAVING,
                                           SHC_PARTICIPANT_REAPING};
    swept_t s = {0};
    set_up();
    for (uint32_t i = 0; i < SLOTS; i++)
        fix_plant_dead(&seg, i, 10 + i, phases[i]);
    CHECK_EQ(shc_participant_reap(&table, me(), note_sweep, &s), SLOTS);
    CHECK_EQ(s.n, SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++) {
        CHECK_EQ(s.index[i], i);
        CHECK_EQ(s.generation[i], 10 + i);
        CHECK_EQ(s.state[i], shc_participant_word(SHC_PARTICIPANT_REAPING, me()->pid, 10 + i));
        CHECK_EQ(state_of(i), shc_participant_word(SHC_PARTICIPANT_FREE, 0, 11 + i));
    }
    CHECK_EQ(shc_participant_reap(&table, me(), note_sweep, &s), 0);
    fix_close();
}

TEST(reap_leaves_the_living_and_the_free_alone)
{
    uint32_t index, generation;
    uint64_t before[SLOTS];
    swept_t s = {0};
    set_up();
    CHECK_OK(shc_participant_join(&table, me(), &index, &generation));
    fix_plant_living(&seg, 1, 3, SHC_PARTICIPANT_LEAVING);
    fix_plant_living(&seg, 2, 3, SHC_PARTICIPANT_REAPING);
    for (uint32_t i = 0; i < SLOTS; i++)
        before[i] = state_of(i);
    CHECK_EQ(shc_participant_reap(&table, me(), note_sweep, &s), 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK_EQ(state_of(i), before[i]);
    CHECK_EQ(s.n, 0);
    fix_close();
}

TEST(reap_needs_no_sweep_function)
{
    set_up();
    fix_plant_dead(&seg, 2, 1, SHC_PARTICIPANT_DEAD);
    CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 1);
    CHECK_EQ(state_of(2), shc_participant_word(SHC_PARTICIPANT_FREE, 0, 2));
    fix_close();
}

static void
join_and_die(void *arg)
{
    uint32_t *index = arg, generation;
    CHECK_OK(shc_self_refresh(&fix.self));
    CHECK_OK(shc_participant_join(&table, me(), index, &generation));
    (void)kill(getpid(), SIGKILL);
}

TEST(a_really_killed_process_is_reaped_buried_or_not)
{
    uint32_t *index = proc_share(sizeof *index);
    set_up();
    for (int buried = 0; buried < 2; buried++) {
        siginfo_t info;
        pid_t pid = proc_start(join_and_die, index);
        CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        if (buried)
            CHECK_EQ(t_wait(pid), 128 + SIGKILL);
        CHECK_EQ(alive_but(NOBODY), 0);
        CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 1);
        CHECK_EQ(fix_phase(&seg, *index), SHC_PARTICIPANT_FREE);
        if (!buried)
            CHECK_EQ(t_wait(pid), 128 + SIGKILL);
    }
    fix_close();
}

/* ---- many at once ---- */

#define CROWD 8
#define CROWD_SLOTS 5u

typedef struct crowd {
    shc_a32_t holders[CROWD_SLOTS];
    shc_a32_t go;
    uint64_t rounds;
} crowd_t;

static void
join_and_leave_often(void *arg)
{
    crowd_t *c = arg;
    CHECK_OK(shc_self_refresh(&fix.self));
    proc_await(&c->go, 1);
    for (uint64_t i = 0; i < c->rounds;) {
        uint32_t index, generation;
        if (shc_participant_join(&table, me(), &index, &generation) == SHC_FULL) {
            shc_os_yield();
            continue;
        }
        CHECK_EQ(shc_a32_fetch_add_relaxed(&c->holders[index], 1), 0);
        CHECK_EQ(fix_generation(&seg, index), generation);
        CHECK_EQ(shc_a32_fetch_add_relaxed(&c->holders[index], UINT32_MAX), 1);
        leave(index);
        i++;
    }
}

TEST(no_slot_is_given_to_two_processes)
{
    pid_t pids[CROWD];
    crowd_t *c = proc_share(sizeof *c);
    fix_open();
    slots = proc_share(CROWD_SLOTS * sizeof *slots);
    table = (shc_participants_t){.slots = slots, .count = CROWD_SLOTS};
    seg.participants = table;
    c->rounds = t_scaled(20000);
    for (int i = 0; i < CROWD; i++)
        pids[i] = proc_start(join_and_leave_often, c);
    proc_signal(&c->go);
    for (int i = 0; i < CROWD; i++)
        proc_join(pids[i]);
    uint64_t generations = 0;
    for (uint32_t i = 0; i < CROWD_SLOTS; i++)
        generations += fix_generation(&seg, i);
    CHECK_EQ(generations, CROWD * c->rounds);
    fix_close();
}

typedef struct reapers {
    shc_a32_t sweeps[SLOTS];
    shc_a32_t reaped;
    shc_a32_t round;
    shc_a32_t done;
    uint64_t rounds;
} reapers_t;

static void
count_sweep(void *arg, uint32_t index, uint32_t generation)
{
    reapers_t *r = arg;
    (void)generation;
    shc_a32_fetch_add_relaxed(&r->sweeps[index], 1);
}

static void
spin_until(const shc_a32_t *word, uint32_t value)
{
    for (uint32_t spins = 1; shc_a32_load_acquire(word) < value; spins++) /* A <- proc_signal */
        if (spins % 4096 == 0)
            shc_os_yield();
}

static void
reap_often(void *arg)
{
    reapers_t *r = arg;
    CHECK_OK(shc_self_refresh(&fix.self));
    for (uint32_t i = 1; i <= r->rounds; i++) {
        spin_until(&r->round, i);
        shc_a32_fetch_add_relaxed(&r->reaped, shc_participant_reap(&table, me(), count_sweep, r));
        proc_signal(&r->done);
    }
}

#define REAPERS 4

TEST_LIMIT(many_reapers_sweep_each_dead_slot_once, 60)
{
    pid_t pids[REAPERS];
    reapers_t *r = proc_share(sizeof *r);
    set_up();
    (void)fix_corpse();
    r->rounds = t_scaled(1000);
    for (int i = 0; i < REAPERS; i++)
        pids[i] = proc_start(reap_often, r);
    for (uint32_t round = 1; round <= r->rounds; round++) {
        for (uint32_t i = 0; i < SLOTS; i++)
            fix_plant_dead(&seg, i, round, SHC_PARTICIPANT_LIVE);
        proc_signal(&r->round);
        spin_until(&r->done, REAPERS * round);
        CHECK_EQ(shc_a32_load_relaxed(&r->reaped), SLOTS * round);
        for (uint32_t i = 0; i < SLOTS; i++) {
            CHECK_EQ(shc_a32_load_relaxed(&r->sweeps[i]), round);
            CHECK_EQ(state_of(i), shc_participant_word(SHC_PARTICIPANT_FREE, 0, round + 1));
        }
    }
    for (int i = 0; i < REAPERS; i++)
        proc_join(pids[i]);
    fix_close();
}

/* ---- what cannot be ---- */

TEST(check_finds_impossible_words)
{
    set_up();
    CHECK_OK(shc_participant_check(&table));
    for (uint32_t phase = SHC_PARTICIPANT_REAPING + 1; phase < 8; phase++) {
        shc_a64_store_relaxed(&slots[3].state, phase);
        CHECK_EQ(shc_participant_check(&table), SHC_E_CORRUPT);
    }
    shc_a64_store_relaxed(&slots[3].state, UINT64_C(1) << 57);
    CHECK_EQ(shc_participant_check(&table), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&slots[3].state, 0);
    shc_a64_store_relaxed(&slots[3].spare, 1);
    CHECK_EQ(shc_participant_check(&table), SHC_E_CORRUPT);
    fix_close();
}

TEST(slots_with_impossible_words_are_dead_and_reaped)
{
    set_up();
    shc_a64_store_relaxed(&slots[3].state, 7);
    shc_a64_store_relaxed(&slots[2].state, shc_participant_word(SHC_PARTICIPANT_JOINING, 0, 4));
    CHECK_EQ(alive_but(NOBODY), 0);
    CHECK_EQ(shc_participant_reap(&table, me(), NULL, NULL), 2);
    CHECK_EQ(state_of(3), shc_participant_word(SHC_PARTICIPANT_FREE, 0, 1));
    CHECK_OK(shc_participant_check(&table));
    fix_close();
}
