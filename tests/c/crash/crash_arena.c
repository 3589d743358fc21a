/* A process is killed at every instruction of what it does with the allocator; the others go on at once, and after the
 * sweep nothing is lost. */
#include <string.h>

#include "seg/shc_arena_internal.h"
#include "support/crash_kill.h"
#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define PAGE 4096u
#define PAGES 12u
#define INITIAL 6u
#define REFS 40u

/* What has happened before, and what the operation does. */
typedef struct plan {
    uint32_t blocks; /* of 64 bytes that the peer allocates; half of them are released again */
    uint32_t runs;   /* of one page that the peer allocates; the odd ones are released again */
    uint32_t cached; /* blocks of 64 bytes that the victim has in its magazine */
    uint64_t size;   /* of the block that the operation is about */
    uint32_t joined; /* pages of a run that the peer made of single ones and released: its inner words name the peer */
    bool bitless;    /* the first slab's hint bits are lost, and no page is free */
    bool own;        /* the victim owns it */
    bool lent;       /* the peer has lent it */
    bool posted;     /* and a message of the peer's holds it */
    bool held;       /* the victim holds it, too */
    bool dropped;    /* the peer does not hold it any more */
    bool attached;   /* the peer has attached it */
} plan_t;

typedef struct own {
    shc_arena_t arena;
} own_t;

/* What the parent did before, as all processes know it: they are forked afterwards. */
static struct {
    shc_seg_t seg; /* and how it grows, which victims inherit */
    shc_ref_t refs[REFS];
    uint32_t n;
    shc_ref_t ref; /* of the operation */
    uint64_t ticket;
    uint32_t record;
} facts;

static uint32_t held_record; /* in the victim */
static shc_ref_t *own_ref;   /* of the victim, whom the survivors may ask in this way only */

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static shc_arena_t *
arena_of(const crash_party_t *party)
{
    return &((own_t *)party->own)->arena;
}

/* ---- the script ---- */

static void
bind(crash_party_t *party)
{
    fix_arena_open(arena_of(party), &party->seg);
}

static void
rebase(crash_party_t *party)
{
    shc_arena_t fresh, *arena = arena_of(party);
    fix_arena_open(&fresh, &party->seg);
    arena->seg = fresh.seg;
    arena->shm = fresh.shm;
    arena->parties = fresh.parties;
    arena->words = fresh.words;
}

static int
verify(const crash_party_t *party)
{
    return shc_arena_check(arena_of(party));
}

static bool
owns(const crash_party_t *party, uint32_t index, uint32_t generation)
{
    (void)generation;
    return shc_arena_names(arena_of(party), index);
}

/* ---- blocks that tell if somebody else wrote to them ---- */

static void
fill(shc_arena_t *a, shc_ref_t ref, uint64_t size)
{
    memset(shc_arena_at(a, ref), (int)(ref % 251), size);
}

static bool
is_whole(shc_arena_t *a, shc_ref_t ref)
{
    void *memory;
    uint64_t size;
    if (shc_arena_resolve(a, ref, &memory, &size) != 0)
        return false;
    const uint8_t *p = memory;
    uint64_t i = 0;
    while (i < 64 && p[i] == ref % 251)
        i++;
    return i == 64;
}

/* ---- before the operation ---- */

static shc_ref_t
make(shc_arena_t *a, uint64_t size)
{
    shc_ref_t ref;
    CHECK_OK(shc_arena_allocate(a, size, &ref));
    fill(a, ref, size < 64 ? 64 : size);
    return ref;
}

static void
make_some(shc_arena_t *a, uint32_t n, uint64_t size)
{
    shc_ref_t made[REFS];
    for (uint32_t i = 0; i < n; i++)
        made[i] = make(a, size);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 2 == 1)
            CHECK_OK(shc_arena_release(a, made[i]));
        else
            facts.refs[facts.n++] = made[i];
    }
}

static void
make_joined(shc_arena_t *a, uint32_t n)
{
    shc_ref_t single[REFS];
    for (uint32_t i = 0; i < n; i++)
        single[i] = make(a, PAGE);
    for (uint32_t i = 0; i < n; i++)
        CHECK_OK(shc_arena_release(a, single[i]));
    if (n > 0)
        CHECK_OK(shc_arena_release(a, make(a, n * PAGE)));
}

/* The first slab's free blocks lose their bits, and no page is left for another slab. */
static void
hide_free_blocks(shc_arena_t *a)
{
    while (shc_arena_allocate(a, PAGE, &facts.refs[facts.n]) == 0) {
        fill(a, facts.refs[facts.n], PAGE);
        facts.n++;
    }
    shc_arena__flush_all(a);
    shc_a64_store_relaxed(shc_arena__bits(a, 0), 0);
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_arena_t *a = arena_of(peer);
    memset(&facts, 0, sizeof facts);
    facts.seg = peer->seg;
    make_some(a, plan->blocks, 64);
    make_some(a, plan->runs, PAGE);
    make_joined(a, plan->joined);
    if (plan->bitless)
        hide_free_blocks(a);
    if (!plan->lent && !plan->attached)
        return;
    facts.ref = make(a, plan->size);
    if (plan->attached)
        CHECK_OK(shc_arena_attach(a, facts.ref));
    else
        CHECK_OK(shc_arena_lend(a, facts.ref, &facts.record));
    if (plan->posted)
        CHECK_OK(shc_arena_post(a, facts.ref, &facts.ticket));
}

/* Just n blocks of 64 bytes in the magazine; what else was taken for that stays the victim's. */
static void
fill_magazine(shc_arena_t *a, uint32_t n)
{
    shc_ref_t refs[2 * SHC_ARENA_DEPTH_SMALL];
    uint32_t class = shc_arena_class_of(64), taken = 0;
    while (n > 0 && (taken < n || a->count[class] != 0))
        refs[taken++] = make(a, 64);
    while (a->count[class] < n)
        CHECK_OK(shc_arena_release(a, refs[--taken]));
}

static void
prepare(crash_party_t *victim, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_arena_t *a = arena_of(victim);
    victim->seg.is_copy = false; /* the first victim works on the file itself */
    victim->seg.growth = facts.seg.growth;
    victim->seg.fd = facts.seg.fd;
    victim->seg.dev = facts.seg.dev;
    victim->seg.ino = facts.seg.ino;
    *own_ref = plan->own ? make(a, plan->size) : SHC_ARENA_NOTHING;
    fill_magazine(a, plan->cached);
    if (plan->held)
        CHECK_OK(shc_arena_hold(a, facts.ref, &held_record));
}

/* The peer is the only other holder, and goes. */
static void
prepare_last(crash_party_t *victim, const crash_case_t *c)
{
    prepare(victim, c);
    shc_a64_store_relaxed((shc_a64_t *)shc_seg_at(&victim->seg, arena_of(victim)->g.record_table) + facts.record, 0);
}

/* ---- survivors ---- */

static void
peer_is_unharmed(crash_party_t *peer)
{
    for (uint32_t i = 0; i < facts.n; i++)
        SURVIVES(is_whole(arena_of(peer), facts.refs[i]));
}

/* Takes and gives back; what is somebody's stays whole. */
static void
work(crash_party_t *party, crash_party_t *peer)
{
    static const uint64_t sizes[] = {64, 64, 1000, PAGE, 2 * PAGE, 16};
    shc_ref_t made[SHC_ARRAY_SIZE(sizes)];
    shc_arena_t *a = arena_of(party);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        made[i] = SHC_ARENA_NOTHING;
        int r = shc_arena_allocate(a, sizes[i], &made[i]);
        SURVIVES(r == 0 || r == SHC_FULL);
        if (r == 0)
            fill(a, made[i], sizes[i]);
    }
    peer_is_unharmed(peer);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        if (made[i] == SHC_ARENA_NOTHING)
            continue;
        if (sizes[i] >= 64)
            SURVIVES(is_whole(a, made[i]));
        SURVIVES_EQ(shc_arena_release(a, made[i]), 0);
        SURVIVES_EQ(shc_arena_release(a, made[i]), SHC_E_STALE);
    }
}

/* The structure's block, if there is one, and what the peer has lent. */
static void
settle_shared(crash_party_t *survivor, crash_party_t *peer, const plan_t *plan)
{
    shc_arena_t *a = arena_of(peer);
    uint32_t word;
    shc_ref_t attached = plan->own ? *own_ref : facts.ref;
    if ((plan->attached || plan->own) && shc_arena_look(a, attached, &word) == 0) {
        SURVIVES(is_whole(a, attached));
        SURVIVES_EQ(shc_arena_take(a, attached), 0);
        SURVIVES_EQ(shc_arena_release(a, attached), 0);
    }
    if (!plan->lent)
        return;
    uint32_t record;
    if (plan->posted) { /* the victim's message, or it was never received */
        int r = shc_arena_unpost(a, facts.ref, facts.ticket);
        SURVIVES(r == 0 || r == SHC_E_STALE);
    }
    if (!plan->dropped) {
        SURVIVES(is_whole(a, facts.ref));
        SURVIVES_EQ(shc_arena_hold(arena_of(survivor), facts.ref, &record), 0);
        SURVIVES_EQ(shc_arena_drop(a, facts.ref, facts.record), 0);
        SURVIVES(is_whole(a, facts.ref));
        SURVIVES_EQ(shc_arena_drop(arena_of(survivor), facts.ref, record), 0);
    }
    SURVIVES_EQ(shc_arena_hold(a, facts.ref, &record), SHC_E_STALE);
}

/* Nothing is anybody's any more: all pages are to be had in one piece. */
static void
nothing_is_lost(crash_party_t *survivor, crash_party_t *peer)
{
    shc_arena_stats_t s;
    shc_ref_t all;
    shc_arena_t *a = arena_of(survivor);
    for (uint32_t i = 0; i < facts.n; i++)
        SURVIVES_EQ(shc_arena_release(arena_of(peer), facts.refs[i]), 0);
    (void)shc_arena_cleanup(arena_of(peer), UINT64_MAX);
    (void)shc_arena_cleanup(a, UINT64_MAX);
    SURVIVES_EQ(shc_arena_stats(a, &s), 0);
    SURVIVES_EQ(s.bytes_used, 0);
    SURVIVES_EQ(s.records, 0);
    SURVIVES_EQ(s.bytes_free, s.bytes_backed);
    SURVIVES_EQ(shc_arena_allocate(a, PAGES * PAGE, &all), 0);
    fill(a, all, PAGES * PAGE);
    SURVIVES_EQ(shc_arena_release(a, all), 0);
}

static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    peer_is_unharmed(peer);
    work(survivor, peer);
    work(peer, peer);
    SURVIVES_EQ(shc_arena_check(arena_of(survivor)), 0);
    (void)shc_seg_reap_participants(&survivor->seg);
    settle_shared(survivor, peer, plan_of(c));
    work(survivor, peer);
    nothing_is_lost(survivor, peer);
}

/* What a successor does that will be killed, too. */
static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    shc_arena_t *a = arena_of(survivor);
    shc_ref_t ref;
    uint32_t record;
    if (plan_of(c)->lent && !plan_of(c)->dropped && shc_arena_hold(a, facts.ref, &record) == 0)
        (void)!shc_arena_drop(a, facts.ref, record);
    if (shc_arena_allocate(a, 64, &ref) == 0)
        (void)!shc_arena_release(a, ref);
}

static crash_script_t
script(void)
{
    shc_arena_geometry_t g = {.pages = PAGES, .initial = INITIAL, .page_shift = 12, .growth = 30, .records = 8};
    crash_script_t s = {
        .name = "arena",
        .spec = &fix_arena_spec,
        .args = fix_arena_args(&g, 4),
        .init = fix_arena_init,
        .own_size = sizeof(own_t),
        .bind = bind,
        .rebase = rebase,
        .recover = recover,
        .owns = owns,
        .verify = verify,
    };
    s.args.persist = true;
    own_ref = proc_share(sizeof *own_ref);
    return s;
}

/* ---- operations ---- */

static void
act_allocate(crash_party_t *victim, const crash_case_t *c)
{
    shc_ref_t ref;
    (void)!shc_arena_allocate(arena_of(victim), plan_of(c)->size, &ref);
}

static void
act_release(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_arena_release(arena_of(victim), *own_ref);
}

static void
act_cleanup(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_arena_cleanup(arena_of(victim), PAGE);
}

static void
act_give_all_back(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_arena_cleanup(arena_of(victim), 0);
}

static void
act_attach_and_take(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_arena_attach(arena_of(victim), *own_ref);
    (void)!shc_arena_take(arena_of(victim), *own_ref);
    (void)!shc_arena_release(arena_of(victim), *own_ref);
}

static void
act_take(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    if (shc_arena_take(arena_of(victim), facts.ref) == 0)
        (void)!shc_arena_release(arena_of(victim), facts.ref);
}

static void
act_retire(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_arena_retire(arena_of(victim), facts.ref);
    (void)!shc_arena_restore(arena_of(victim), facts.ref);
    (void)!shc_arena_retire(arena_of(victim), facts.ref);
    (void)!shc_arena_reclaim(arena_of(victim), facts.ref);
    (void)!shc_arena_release(arena_of(victim), facts.ref);
}

static void
act_lend_and_drop(crash_party_t *victim, const crash_case_t *c)
{
    uint32_t record;
    (void)c;
    (void)!shc_arena_lend(arena_of(victim), *own_ref, &record);
    (void)!shc_arena_drop(arena_of(victim), *own_ref, record);
}

static void
act_hold(crash_party_t *victim, const crash_case_t *c)
{
    uint32_t record;
    (void)c;
    (void)!shc_arena_hold(arena_of(victim), facts.ref, &record);
}

static void
act_post_and_drop(crash_party_t *victim, const crash_case_t *c)
{
    uint64_t ticket;
    (void)c;
    (void)!shc_arena_post(arena_of(victim), facts.ref, &ticket);
    (void)!shc_arena_drop(arena_of(victim), facts.ref, held_record);
    (void)!shc_arena_unpost(arena_of(victim), facts.ref, ticket);
}

static void
act_collect_and_drop(crash_party_t *victim, const crash_case_t *c)
{
    uint32_t record;
    (void)c;
    if (shc_arena_collect(arena_of(victim), facts.ref, facts.ticket, &record) == 0)
        (void)!shc_arena_drop(arena_of(victim), facts.ref, record);
}

static void
act_drop(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)!shc_arena_drop(arena_of(victim), facts.ref, held_record);
}

static void
act_leave(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    shc_arena_leave(arena_of(victim));
}

static void
act_reap(crash_party_t *victim, const crash_case_t *c)
{
    (void)c;
    (void)shc_seg_reap_participants(&victim->seg);
}

#define CASE(title, operation, ...)                                                                                    \
    {                                                                                                                  \
        .name = (title), .plan = &(const plan_t){__VA_ARGS__}, .setup = setup, .prepare = prepare, .act = (operation), \
        .check = check                                                                                                 \
    }

TEST_LIMIT(small_blocks, 600)
{
    const crash_case_t cases[] = {
        CASE("allocate from the magazine", act_allocate, .blocks = 4, .cached = 3, .size = 64),
        CASE("allocate, refill by hint bits", act_allocate, .blocks = 9, .size = 64),
        CASE("allocate, a new slab", act_allocate, .blocks = 2, .size = 1024),
        CASE("allocate what lost its hint bit", act_allocate, .blocks = 9, .bitless = true, .size = 64),
        CASE("release to the magazine", act_release, .blocks = 4, .size = 64, .own = true),
        CASE("release to a full magazine", act_release, .blocks = 4, .cached = 14, .size = 64, .own = true),
        CASE("attach, take, release", act_attach_and_take, .blocks = 4, .size = 64, .own = true),
        CASE("take what somebody attached", act_take, .blocks = 4, .size = 64, .attached = true),
        CASE("retire what somebody attached", act_retire, .blocks = 4, .size = 64, .attached = true),
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

TEST_LIMIT(pages, 600)
{
    const crash_case_t cases[] = {
        CASE("allocate a page that was just released", act_allocate, .runs = 4, .size = PAGE),
        CASE("allocate three pages of a longer run", act_allocate, .runs = 1, .size = 3 * PAGE),
        CASE("allocate pages of several runs", act_allocate, .runs = 2, .size = 5 * PAGE),
        CASE("allocate a page, grow by more", act_allocate, .runs = 6, .size = 2 * PAGE),
        CASE("allocate free and new pages", act_allocate, .runs = 2, .size = 8 * PAGE),
        CASE("release a page", act_release, .runs = 3, .size = PAGE, .own = true),
        CASE("release a long run", act_release, .runs = 3, .size = 3 * PAGE, .own = true),
        CASE("attach, take, release", act_attach_and_take, .size = 2 * PAGE, .own = true),
        CASE("take what somebody attached", act_take, .size = 2 * PAGE, .attached = true),
        CASE("retire what somebody attached", act_retire, .size = 2 * PAGE, .attached = true),
        CASE("clean up: empty a slab, give runs back", act_cleanup, .runs = 5, .cached = 7),
        CASE("ask for more than there is in one piece", act_allocate, .runs = 10, .cached = 7, .size = 4 * PAGE),
        CASE("clean up a run that was joined", act_give_all_back, .blocks = 1, .runs = 1, .joined = 3),
        CASE("allocate pieces of a run that was joined", act_allocate, .runs = 1, .joined = 4, .size = 2 * PAGE),
        CASE("clean up but for a page of a long run", act_cleanup, .runs = 1, .joined = 4),
        CASE("clean up beside slabs in use", act_cleanup, .blocks = 3, .runs = 3, .cached = 7),
        CASE("leave", act_leave, .blocks = 4, .cached = 5, .size = 2 * PAGE, .own = true),
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

TEST_LIMIT(loans, 600)
{
    const crash_case_t cases[] = {
        CASE("lend and drop", act_lend_and_drop, .blocks = 4, .size = 64, .own = true),
        CASE("lend and drop pages", act_lend_and_drop, .size = 2 * PAGE, .own = true),
        CASE("hold", act_hold, .size = 64, .lent = true),
        CASE("hold pages", act_hold, .size = 2 * PAGE, .lent = true),
        CASE("drop while somebody holds", act_drop, .size = 64, .lent = true, .held = true),
        CASE("drop pages while somebody holds", act_drop, .size = 2 * PAGE, .lent = true, .held = true),
        {.name = "drop as the last one",
         .plan = &(const plan_t){.blocks = 4, .size = 64, .lent = true, .held = true, .dropped = true},
         .setup = setup,
         .prepare = prepare_last,
         .act = act_drop,
         .check = check},
        {.name = "drop pages as the last one",
         .plan = &(const plan_t){.size = 2 * PAGE, .lent = true, .held = true, .dropped = true},
         .setup = setup,
         .prepare = prepare_last,
         .act = act_drop,
         .check = check},
        CASE("post, drop, take the message back", act_post_and_drop, .size = 64, .lent = true, .held = true),
        CASE("collect a message and drop", act_collect_and_drop, .size = 64, .lent = true, .posted = true),
        CASE("collect a message with pages and drop", act_collect_and_drop, .size = 2 * PAGE, .lent = true,
             .posted = true),
        CASE("leave with loans", act_leave, .blocks = 4, .size = 64, .lent = true, .held = true),
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

/* Somebody died before: in the middle of everything at once. */
static void
setup_dead(crash_party_t *peer, const crash_case_t *c)
{
    setup(peer, c);
    shc_arena_t *a = arena_of(peer);
    shc_ref_t block = make(a, 64), run = make(a, 2 * PAGE), lent = make(a, 64);
    uint32_t dead = (uint32_t)crash_plant_dead(peer) & 0xfff, record;
    CHECK_OK(shc_arena_lend(a, lent, &record));
    crash_party_t heir = *peer;
    own_t own = {.arena = *a};
    heir.own = &own;
    heir.seg.index = dead - 1;
    own.arena.seg = &heir.seg;
    CHECK_OK(shc_arena_attach(a, block));
    CHECK_OK(shc_arena_attach(a, run));
    CHECK_OK(shc_arena_take(&own.arena, block)); /* now the dead one's */
    CHECK_OK(shc_arena_take(&own.arena, run));
    CHECK_OK(shc_arena_hold(&own.arena, lent, &record));
    CHECK_OK(shc_arena_drop(a, lent, 0));
    for (uint32_t page = 0; page < a->frontier; page++) {
        uint64_t word = shc_a64_load_relaxed(&a->words[page]);
        if (shc_arena_kind_of(word) != SHC_ARENA_UNBACKED)
            continue;
        shc_a64_store_relaxed(&a->words[page],
                              shc_arena_page(SHC_ARENA_MOVING, 1, shc_arena_state(SHC_ARENA_OWNED, dead, 0)));
        break;
    }
}

TEST_LIMIT(sweeps, 600)
{
    const crash_case_t cases[] = {
        {.name = "sweep of blocks, runs and a record",
         .plan = &(const plan_t){.blocks = 4, .runs = 2},
         .setup = setup_dead,
         .prepare = prepare,
         .act = act_reap,
         .check = check},
        {.name = "the same after growth",
         .plan = &(const plan_t){.blocks = 4, .runs = 7},
         .setup = setup_dead,
         .prepare = prepare,
         .act = act_reap,
         .check = check},
    };
    crash_script_t s = script();
    crash_run(&s, cases, SHC_ARRAY_SIZE(cases));
}

/* ---- stopped, not killed ---- */

/* Half of what anybody does, with a block of each sort. */
static void
do_everything(crash_party_t *party)
{
    static const uint64_t sizes[] = {64, 1024, 200, PAGE, 2 * PAGE};
    shc_ref_t made[SHC_ARRAY_SIZE(sizes)];
    shc_arena_t *a = arena_of(party);
    uint32_t record;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        int r = shc_arena_allocate(a, sizes[i], &made[i]);
        CHECK(r == 0 || r == SHC_FULL);
        if (r != 0)
            made[i] = SHC_ARENA_NOTHING;
        else
            fill(a, made[i], sizes[i]);
    }
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        if (made[i] == SHC_ARENA_NOTHING)
            continue;
        CHECK(is_whole(a, made[i]));
        if (i % 2 == 0) {
            CHECK_OK(shc_arena_lend(a, made[i], &record));
            CHECK_OK(shc_arena_drop(a, made[i], record));
        } else {
            CHECK_OK(shc_arena_release(a, made[i]));
        }
    }
    (void)shc_arena_cleanup(a, UINT64_MAX);
}

static void
do_everything_twice(crash_party_t *victim)
{
    do_everything(victim);
    do_everything(victim);
}

static void
go_on_beside(crash_party_t *party)
{
    do_everything(party);
    CHECK_EQ(shc_seg_reap_participants(&party->seg), 0);
}

static void
all_is_whole(crash_party_t *party)
{
    CHECK_OK(shc_arena_check(arena_of(party)));
    do_everything(party);
}

TEST_LIMIT(a_stopped_process_is_in_nobodys_way, 120)
{
    static const stop_case_t cases[] = {
        {.name = "stopped while it does everything",
         .act = do_everything_twice,
         .meanwhile = go_on_beside,
         .after = all_is_whole},
    };
    crash_script_t s = script();
    crash_stop(&s, cases, SHC_ARRAY_SIZE(cases));
}
