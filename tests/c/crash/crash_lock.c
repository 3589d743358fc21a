/* The holder, the waiter, the thief or the repairer of a robust lock is killed at every instruction. */
#include <string.h>

#include "support/crash_kill.h"
#include "sync/shc_lock.h"
#include "t.h"

#define MS UINT64_C(1000000)

/* What the lock protects: two words that are equal whenever nobody is inside. */
typedef struct body_shm {
    shc_lock_shm_t lock;
    shc_a32_t pad[31];
    shc_a64_t left;
    shc_a64_t right;
} body_shm_t;

static int
accept(const shc_seg_id_t *id)
{
    return id->body_size == sizeof(body_shm_t) ? 0 : SHC_E_CORRUPT;
}

static const shc_seg_spec_t spec = {.kind = 0x10c, .body_align = SHC_HOT_PAD, .validate = accept};

static void
init(shc_seg_t *seg)
{
    (void)seg; /* zero is a free lock over equal words */
}

static body_shm_t *
body_of(const crash_party_t *party)
{
    return shc_seg_body(&party->seg);
}

static shc_lock_party_t
identity_of(const crash_party_t *party)
{
    return (shc_lock_party_t){.participants = &party->seg.participants,
                              .me = &party->seg.self->id,
                              .index = party->seg.index,
                              .generation = party->seg.generation};
}

/* ---- work under the lock ---- */

static void
change_both(body_shm_t *body)
{
    shc_a64_store_relaxed(&body->left, shc_a64_load_relaxed(&body->left) + 1);
    shc_a64_store_relaxed(&body->right, shc_a64_load_relaxed(&body->right) + 1);
}

static void
repair(body_shm_t *body)
{
    shc_a64_store_relaxed(&body->right, shc_a64_load_relaxed(&body->left));
    shc_lock_mark_consistent(&body->lock);
}

/* One critical section with whatever the lock says; nothing if it cannot be had by deadline_ns (0: now). */
static int
work(const crash_party_t *party, uint64_t deadline_ns)
{
    body_shm_t *body = body_of(party);
    shc_lock_party_t me = identity_of(party);
    int r = deadline_ns == 0 ? shc_lock_try_acquire(&body->lock, &me) : shc_lock_acquire(&body->lock, &me, deadline_ns);
    if (r != 0 && r != SHC_OWNER_DIED)
        return r;
    if (r == SHC_OWNER_DIED)
        repair(body);
    change_both(body);
    shc_lock_release(&body->lock);
    return r;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    (void)party;
}

static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    (void)c;
    (void)work(survivor, 0);
}

static int
verify(const crash_party_t *party)
{
    return shc_lock_check(&body_of(party)->lock, &party->seg.participants);
}

static const crash_script_t script = {
    .name = "lock",
    .spec = &spec,
    .args = {.body_size = sizeof(body_shm_t), .participants = 5, .mode = 0600, .persist = true},
    .init = init,
    .bind = bind,
    .rebase = bind,
    .recover = recover,
    .verify = verify,
};

/* Survivor and peer get the lock in turn, at once. Whoever gets it as an ordinary holder finds the words equal: a
 * death in between has been announced to somebody. */
static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const crash_party_t *parties[] = {survivor, peer, survivor};
    body_shm_t *body = body_of(survivor);
    (void)c;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(parties); i++) {
        shc_lock_party_t me = identity_of(parties[i]), other = identity_of(parties[(i + 1) % 2]);
        int r = shc_lock_try_acquire(&body->lock, &me);
        SURVIVES(r == 0 || (r == SHC_OWNER_DIED && i == 0));
        if (r == SHC_OWNER_DIED)
            repair(body);
        SURVIVES_EQ(shc_a64_load_relaxed(&body->left), shc_a64_load_relaxed(&body->right));
        SURVIVES_EQ(shc_lock_try_acquire(&body->lock, &other), SHC_BUSY);
        SURVIVES_EQ(verify(survivor), 0);
        change_both(body);
        shc_lock_release(&body->lock);
    }
    SURVIVES_EQ(shc_a32_load_relaxed(&body->lock.word), 0);
}

/* The lock belongs to the peer, who lives: it goes on and hands over. */
static void
check_held_by_peer(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    body_shm_t *body = body_of(survivor);
    shc_lock_party_t me = identity_of(survivor);
    uint32_t word = shc_a32_load_relaxed(&body->lock.word);
    SURVIVES_EQ(word & ~SHC_LOCK_CONTENDED, shc_lock_owner_word(&(shc_lock_party_t){.index = peer->seg.index}));
    SURVIVES_EQ(shc_lock_try_acquire(&body->lock, &me), SHC_BUSY);
    SURVIVES_EQ(shc_a64_load_relaxed(&body->left), shc_a64_load_relaxed(&body->right));
    shc_lock_release(&body->lock);
    check(survivor, peer, c);
}

/* ---- cases ---- */

static void
setup_held_by_peer(crash_party_t *peer, const crash_case_t *c)
{
    shc_lock_party_t me = identity_of(peer);
    (void)c;
    CHECK_OK(shc_lock_try_acquire(&body_of(peer)->lock, &me));
}

/* Died in the middle of its change, `more` is what else its word says. */
static void
plant_holder(crash_party_t *peer, uint32_t more)
{
    uint64_t dead = crash_plant_dead(peer);
    shc_lock_party_t holder = {.index = (uint32_t)(dead & 0xfff) - 1, .generation = (uint32_t)(dead >> 12)};
    shc_a32_store_relaxed(&body_of(peer)->lock.word, shc_lock_owner_word(&holder) | more);
    shc_a64_store_relaxed(&body_of(peer)->left, 7);
}

static void
setup_dead_holder(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    plant_holder(peer, 0);
}

static void
setup_dead_repairer(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    plant_holder(peer, SHC_LOCK_RECOVER | SHC_LOCK_CONTENDED);
}

static void
act_work(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)work(victim, 0);
}

static void
act_work_waiting(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)work(victim, shc_os_now_ns() + 25 * MS);
}

static void
prepare_acquired(crash_party_t *victim, const crash_case_t *c)
{
    shc_lock_party_t me = identity_of(victim);
    (void)c;
    CHECK_OK(shc_lock_try_acquire(&body_of(victim)->lock, &me));
}

/* As if somebody slept for it. */
static void
prepare_wanted(crash_party_t *victim, const crash_case_t *c)
{
    shc_a32_t *word = &body_of(victim)->lock.word;
    prepare_acquired(victim, c);
    shc_a32_store_relaxed(word, shc_a32_load_relaxed(word) | SHC_LOCK_CONTENDED);
}

static void
act_release(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_lock_release(&body_of(victim)->lock);
}

static void
prepare_stolen(crash_party_t *victim, const crash_case_t *c)
{
    shc_lock_party_t me = identity_of(victim);
    (void)c;
    CHECK_EQ(shc_lock_try_acquire(&body_of(victim)->lock, &me), SHC_OWNER_DIED);
}

static void
act_repair(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    repair(body_of(victim));
    shc_lock_release(&body_of(victim)->lock);
}

TEST_LIMIT(party_killed_at_every_instruction, 120)
{
    const crash_case_t cases[] = {
        {.name = "try a free lock, work, release", .act = act_work, .check = check},
        {.name = "acquire a free lock, work, release", .act = act_work_waiting, .check = check},
        {.name = "release, nobody waits", .prepare = prepare_acquired, .act = act_release, .check = check},
        {.name = "release, somebody waits", .prepare = prepare_wanted, .act = act_release, .check = check},
        {.name = "try a held lock", .setup = setup_held_by_peer, .act = act_work, .check = check_held_by_peer},
        {.name = "wait for a held lock",
         .setup = setup_held_by_peer,
         .act = act_work_waiting,
         .check = check_held_by_peer},
        {.name = "steal at once", .setup = setup_dead_holder, .act = act_work, .check = check},
        {.name = "steal after waiting", .setup = setup_dead_holder, .act = act_work_waiting, .check = check},
        {.name = "steal from a dead repairer", .setup = setup_dead_repairer, .act = act_work, .check = check},
        {.name = "repair, mark consistent, release",
         .setup = setup_dead_holder,
         .prepare = prepare_stolen,
         .act = act_repair,
         .check = check},
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- real kills, and stops ---- */

/* Gets the lock, however long it takes, and leaves everything in order. */
static void
insist(crash_party_t *party)
{
    body_shm_t *body = body_of(party);
    shc_lock_party_t me = identity_of(party);
    int r;
    do {
        r = shc_lock_acquire(&body->lock, &me, SHC_NEVER);
    } while (r == SHC_INTERRUPTED);
    CHECK(r == 0 || r == SHC_OWNER_DIED);
    if (r == SHC_OWNER_DIED)
        repair(body);
    CHECK_EQ(shc_a64_load_relaxed(&body->left), shc_a64_load_relaxed(&body->right));
    change_both(body);
    shc_lock_release(&body->lock);
}

static void
acquire(crash_party_t *party)
{
    prepare_acquired(party, NULL);
}

static void
release(crash_party_t *party)
{
    shc_lock_release(&body_of(party)->lock);
}

static void
work_and_release(crash_party_t *party)
{
    change_both(body_of(party));
    release(party);
}

static void
wait_briefly(crash_party_t *party)
{
    (void)work(party, shc_os_now_ns() + 2 * MS);
}

TEST_LIMIT(waiter_goes_on_after_real_kills, 120)
{
    static const kill_case_t cases[] = {
        {.name = "holder killed anywhere until it has let go",
         .prepare = acquire,
         .act = work_and_release,
         .survive = insist},
        {.name = "another waiter killed anywhere",
         .setup = acquire,
         .act = wait_briefly,
         .survive = insist,
         .after = release},
        {.name = "another waiter killed in its sleep",
         .way = KILL_ASLEEP,
         .setup = acquire,
         .act = insist,
         .survive = insist,
         .after = release},
        {.name = "another waiter killed when woken",
         .way = KILL_WOKEN,
         .setup = acquire,
         .act = insist,
         .survive = insist,
         .after = release},
    };
    crash_kill(&script, cases, SHC_ARRAY_SIZE(cases));
}

/* Somebody stopped is not dead: the lock is his or it is free, and it is never to be repaired. */
static void
try_without_repair(crash_party_t *party)
{
    body_shm_t *body = body_of(party);
    shc_lock_party_t me = identity_of(party);
    int r = shc_lock_try_acquire(&body->lock, &me);
    CHECK(r == 0 || r == SHC_BUSY);
    CHECK_EQ(shc_seg_reap_participants(&party->seg), 0);
    if (r == 0) {
        CHECK_EQ(shc_a64_load_relaxed(&body->left), shc_a64_load_relaxed(&body->right));
        shc_lock_release(&body->lock);
    }
}

static void
work_at_once(crash_party_t *party)
{
    (void)work(party, 0);
}

TEST_LIMIT(stopped_holder_is_not_dead, 60)
{
    static const stop_case_t cases[] = {
        {.name = "stopped while it works and lets go",
         .prepare = acquire,
         .act = work_and_release,
         .meanwhile = try_without_repair,
         .after = insist},
        {.name = "stopped while it acquires", .act = insist, .meanwhile = try_without_repair, .after = insist},
        {.name = "stopped while it tries", .act = work_at_once, .meanwhile = try_without_repair, .after = insist},
    };
    crash_stop(&script, cases, SHC_ARRAY_SIZE(cases));
}
