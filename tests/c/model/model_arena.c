/* The allocator, explored: the words of pages, blocks and records under two or three processes that may die at any
 * point, and one that sweeps. */
#define FAKE_FILE_BYTES 49152u
#include "seg/shc_arena_internal.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define PAGE 4096u
#define PAGES 3u
#define BLOCK 1024u /* three to a slab */

static void
fake_on_unlink(uint32_t file)
{
    (void)file;
}

/* One process. */
typedef struct party {
    shc_self_t self;
    shc_seg_t seg;
    shc_arena_t arena;
} party_t;

static struct {
    party_t parties[MODEL_THREADS];
    uint32_t owner[PAGES][4]; /* thread + 1 that was given the block (or, as [0], the page) */
    shc_ref_t ref;            /* of the block that is lent */
    uint32_t record[MODEL_THREADS];
    bool letting_go; /* the first holder has begun to */
    shc_arena_parcel_t parcel;
    uint32_t collected; /* by threads that had the block first */
    bool recalled;
} plan;

static uint8_t *image; /* the segment: the fake's first file */
static uint8_t fresh_image[FAKE_FILE_BYTES];

static party_t *
me(void)
{
    return &plan.parties[model_self()];
}

static shc_arena_t *
mine(void)
{
    return &me()->arena;
}

/* ---- who has what ---- */

static uint32_t *
owner_of(shc_ref_t ref)
{
    uint64_t offset = (ref & SHC_ARENA_PLACE_MASK) * SHC_ARENA_UNIT - mine()->g.data;
    return &plan.owner[offset / PAGE][offset % PAGE / BLOCK];
}

static void
got(shc_ref_t ref, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += size < PAGE ? size : PAGE) {
        uint32_t *owner = owner_of(ref + at / SHC_ARENA_UNIT);
        MODEL_CHECK(*owner == 0 || model_is_dead(*owner - 1));
        *owner = model_self() + 1;
    }
}

static void
give(shc_ref_t ref, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += size < PAGE ? size : PAGE) {
        uint32_t *owner = owner_of(ref + at / SHC_ARENA_UNIT);
        MODEL_CHECK(*owner == model_self() + 1);
        *owner = 0;
    }
    MODEL_CHECK(shc_arena_release(mine(), ref) == 0);
}

static void
use(uint64_t size)
{
    shc_ref_t ref;
    int r = shc_arena_allocate(mine(), size, &ref);
    MODEL_CHECK(r == 0 || r == SHC_FULL);
    if (r == 0) {
        got(ref, size);
        give(ref, size);
    }
}

/* ---- bodies ---- */

static void
use_block(void)
{
    use(BLOCK);
    shc_arena__flush_all(mine());
}

static void
use_one_page(void)
{
    use(PAGE);
}

static void
use_two_pages(void)
{
    use(2 * PAGE);
}

static void
use_all_pages(void)
{
    use(PAGES * PAGE);
}

/* The page's new user fills it with what looks like a free block's word to whoever comes too late. */
static void
empty_and_use_page(void)
{
    uint32_t free_word = shc_arena_state(SHC_ARENA_FREE, 0, 0);
    shc_ref_t ref;
    (void)shc_arena_cleanup(mine(), UINT64_MAX);
    if (shc_arena_allocate(mine(), PAGE, &ref) != 0)
        return;
    got(ref, PAGE);
    uint32_t *words = shc_arena_at(mine(), ref);
    for (uint32_t i = 0; i < 8; i++)
        words[i] = free_word;
    model_point("the page's user");
    for (uint32_t i = 0; i < 8; i++)
        MODEL_CHECK(words[i] == free_word);
    give(ref, PAGE);
}

/* What shc_arena_small.c does, without saying so first. */
static void
claim_unannounced(void)
{
    uint64_t word = shc_a64_load_acquire(shc_arena__word(mine(), 0)); /* A1 */
    if (!shc_arena__is_open_slab(word))
        return;
    uint32_t class = shc_arena_class_of(BLOCK);
    shc_a32_t *state = &shc_arena__states(mine(), 0, class)[0];
    uint32_t seen = shc_a32_load_relaxed(state);
    uint32_t owned = shc_arena_state(SHC_ARENA_OWNED, me()->seg.index + 1, 0);
    if (seen != shc_arena_state(SHC_ARENA_FREE, 0, 0) || !shc_a32_cas_seq_cst(state, &seen, owned))
        return;
    (void)shc_a32_cas_seq_cst(state, &owned, seen);
}

static void
clean_up(void)
{
    (void)shc_arena_cleanup(mine(), 0);
}

static void
reap(void)
{
    (void)shc_seg_reap_participants(&me()->seg);
}

/* Nothing to do for the first thread. */
static void
rest(void)
{
}

/* ---- loans ---- */

static void
first_holder(void)
{
    plan.letting_go = true;
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, plan.record[0]) == 0);
}

static void
other_holder(void)
{
    uint32_t record, word;
    int r = shc_arena_hold(mine(), plan.ref, &record);
    MODEL_CHECK(r == 0 || (r == SHC_E_STALE && (plan.letting_go || model_deaths() > 0)));
    if (r != 0)
        return;
    MODEL_CHECK(shc_arena_look(mine(), plan.ref, &word) == 0);
    MODEL_CHECK(shc_arena_state_of(word) == SHC_ARENA_LOANED || shc_arena_state_of(word) == SHC_ARENA_CLOSING);
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, record) == 0);
}

/* ---- parcels ---- */

/* Whoever collects while the parcel is there has the block. */
static void
collector(void)
{
    uint32_t record, word;
    int r = shc_arena_collect(mine(), &plan.parcel, &record);
    MODEL_CHECK(r == 0 || (r == SHC_E_STALE && (plan.collected > 0 || plan.recalled || model_deaths() > 0)));
    if (r != 0)
        return;
    plan.collected++;
    MODEL_CHECK(shc_arena_look(mine(), plan.ref, &word) == 0);
    MODEL_CHECK(shc_arena_state_of(word) == SHC_ARENA_LOANED || shc_arena_state_of(word) == SHC_ARENA_CLOSING);
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, record) == 0);
}

/* Its sender still holds the block, posts it, and lets go: it is there all the time. */
static void
sender(void)
{
    uint32_t word;
    MODEL_CHECK(shc_arena_post(mine(), plan.ref, &plan.parcel) == 0);
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, plan.record[0]) == 0);
    MODEL_CHECK(shc_arena_look(mine(), plan.ref, &word) == 0);
    MODEL_CHECK(shc_arena_recall(mine(), &plan.parcel) == 0);
}

static void
sender_that_takes_back(void)
{
    plan.recalled = true;
    int r = shc_arena_recall(mine(), &plan.parcel);
    MODEL_CHECK(r == 0 || r == SHC_E_STALE);
}

/* Clears the parcel before it holds the block itself. */
static void
collector_that_clears_too_early(void)
{
    uint32_t record;
    uint64_t seen = plan.parcel.word;
    if (!shc_a64_cas_seq_cst(shc_arena__record(mine(), 0, plan.parcel.record), &seen, 0)) /* AR6 */
        return;
    MODEL_CHECK(shc_arena_hold(mine(), plan.ref, &record) == 0);
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, record) == 0);
}

/* Looks for other holders first, and closes then. */
static void
holder_that_looks_too_early(void)
{
    shc_arena_place_t place;
    uint32_t g = shc_arena_ref_generation(plan.ref), loaned = shc_arena_state(SHC_ARENA_LOANED, 0, g);
    plan.letting_go = true;
    MODEL_CHECK(shc_arena__locate(mine(), plan.ref, &place) == 0);
    shc_a64_store_relaxed(shc_arena__record(mine(), 0, plan.record[0]), 0);
    if (!shc_arena__is_held(mine(), plan.ref))
        (void)shc_arena__change(mine(), &place, loaned, shc_arena_state(SHC_ARENA_FREE, 0, g + 1));
}

/* ---- models ---- */

static int
validate(const shc_seg_id_t *id)
{
    (void)id;
    return 0;
}

static shc_arena_geometry_t geometry;

static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_arena_t arena;
    (void)generation;
    shc_arena_open(&arena, arg, &geometry);
    shc_arena_sweep(&arena, index, NULL, NULL);
}

static const shc_seg_spec_t spec = {
    .kind = 0xfffffffeu, .body_align = PAGE, .grows = true, .sweep = sweep, .validate = validate};

static void
init(shc_seg_t *seg)
{
    shc_arena_init(seg, &geometry);
}

static void
lay_out(uint32_t initial, uint32_t records, shc_seg_create_args_t *args)
{
    *args = (shc_seg_create_args_t){.participants = MODEL_THREADS, .mode = 0600, .persist = true};
    uint64_t body;
    CHECK_OK(shc_seg_size_for(&spec, args, &body));
    geometry = (shc_arena_geometry_t){.at = body,
                                      .pages = PAGES,
                                      .initial = initial,
                                      .page_shift = 12,
                                      .records = records,
                                      .participants = MODEL_THREADS};
    CHECK_OK(shc_arena_lay_out(&geometry));
    args->body_size = geometry.end - body;
    shc_arena_reservation(&geometry, body, args->reserved);
}

/* A segment that all threads have joined. */
static void
make_segment(uint32_t initial)
{
    static shc_self_t self;
    shc_seg_create_args_t args;
    shc_seg_t made;
    fake_reset();
    memset(&plan, 0, sizeof plan);
    lay_out(initial, 2, &args);
    CHECK_OK(shc_self_init(&self));
    CHECK_OK(shc_seg_create(0, "shmcomm.arena", &self, &spec, &args, init, &made));
    shc_participant_end_leave(&made.participants, made.index);
    image = made.base;
    for (uint32_t i = 0; i < MODEL_THREADS; i++) {
        party_t *party = &plan.parties[i];
        party->self = self;
        party->self.id.pid = FAKE_FIRST_PID + i;
        party->seg = made;
        party->seg.self = &party->self;
        CHECK_OK(shc_participant_join(&made.participants, &party->self.id, &party->seg.index, &party->seg.generation));
        shc_arena_open(&party->arena, &party->seg, &geometry);
    }
}

/* What the thread of each model finds: made once per model, then copied. */
static void (*made_for)(void);
static uint8_t fresh_plan[sizeof plan];

static void
restore(void (*make)(void))
{
    if (made_for != make) {
        make();
        memcpy(fresh_image, image, sizeof fresh_image);
        memcpy(fresh_plan, &plan, sizeof plan);
        made_for = make;
    }
    memcpy(&plan, fresh_plan, sizeof plan);
    memcpy(image, fresh_image, sizeof fresh_image);
    model_share(image + geometry.words, PAGES * sizeof(uint64_t));
    model_share(image + geometry.at, 8); /* frontier */
    for (uint32_t i = 0; i < 3; i++) {
        model_share(image + geometry.parties + i * sizeof(shc_arena_party_shm_t), 8);
        model_share(image + geometry.record_table + i * geometry.record_stride, 16);
    }
    model_share(image + geometry.data, 20); /* hint bits and states of the first slab */
}

static void
make_slab(void)
{
    make_segment(PAGES);
    shc_arena_t *a = &plan.parties[3].arena;
    shc_ref_t ref;
    CHECK_OK(shc_arena_allocate(a, BLOCK, &ref));
    CHECK_OK(shc_arena_release(a, ref));
    shc_arena__flush_all(a);
    uint32_t class = shc_arena_class_of(BLOCK);
    for (uint32_t i = 0; i < 3; i++) /* as if nothing had been released yet */
        shc_a32_store_relaxed(&shc_arena__states(a, 0, class)[i], shc_arena_state(SHC_ARENA_FREE, 0, 0));
}

static void
make_pages(void)
{
    make_segment(PAGES);
}

static void
make_empty(void)
{
    make_segment(0);
}

static void
make_loan(void)
{
    make_slab();
    shc_arena_t *a = &plan.parties[0].arena;
    CHECK_OK(shc_arena_allocate(a, BLOCK, &plan.ref));
    CHECK_OK(shc_arena_lend(a, plan.ref, &plan.record[0]));
}

static void
make_loan_of_pages(void)
{
    make_pages();
    shc_arena_t *a = &plan.parties[0].arena;
    CHECK_OK(shc_arena_allocate(a, 2 * PAGE, &plan.ref));
    CHECK_OK(shc_arena_lend(a, plan.ref, &plan.record[0]));
}

/* Posted by the first, who has let go; what only he may write is not shared. */
static void
make_parcel(void)
{
    make_loan();
    shc_arena_t *a = &plan.parties[0].arena;
    CHECK_OK(shc_arena_post(a, plan.ref, &plan.parcel));
    CHECK_OK(shc_arena_drop(a, plan.ref, plan.record[0]));
}

/* The second holds the block as well, and has a parcel's record to spare. */
static void
make_parcel_and_holder(void)
{
    make_parcel();
    CHECK_OK(shc_arena_hold(&plan.parties[1].arena, plan.ref, &plan.record[1]));
}

static void
second_holder(void)
{
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, plan.record[1]) == 0);
}

static void
make_sender_and_holder(void)
{
    make_loan();
    CHECK_OK(shc_arena_hold(&plan.parties[1].arena, plan.ref, &plan.record[1]));
}

static void
reset_slab(void)
{
    restore(make_slab);
}

static void
reset_pages(void)
{
    restore(make_pages);
}

static void
reset_empty(void)
{
    restore(make_empty);
}

static void
reset_loan(void)
{
    restore(make_loan);
}

static void
reset_loan_of_pages(void)
{
    restore(make_loan_of_pages);
}

static void
reset_parcel(void)
{
    restore(make_parcel);
}

static void
reset_parcel_and_holder(void)
{
    restore(make_parcel_and_holder);
}

static void
reset_sender_and_holder(void)
{
    restore(make_sender_and_holder);
}

/* The dead are swept; then nothing is anybody's, and all pages can be had. */
static void
finish(void)
{
    party_t *last = &plan.parties[3];
    shc_arena_stats_t s;
    shc_ref_t all;
    shc_arena_open(&last->arena, &last->seg, &geometry);
    MODEL_CHECK(shc_arena_check(&last->arena) == 0);
    for (uint32_t i = 0; i < 3; i++) {
        if (model_is_dead(i))
            shc_arena_sweep(&last->arena, plan.parties[i].seg.index, NULL, NULL);
        else
            shc_arena__flush_all(&plan.parties[i].arena);
        MODEL_CHECK(!shc_arena_names(&last->arena, plan.parties[i].seg.index));
    }
    MODEL_CHECK(shc_arena_check(&last->arena) == 0);
    MODEL_CHECK(shc_arena_stats(&last->arena, &s) == 0);
    MODEL_CHECK(s.bytes_used == 0 && s.records == 0);
    MODEL_CHECK(shc_arena_allocate(&last->arena, PAGES * PAGE, &all) == 0);
    MODEL_CHECK(shc_arena_release(&last->arena, all) == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

#define MODEL(title, start, first, second, third, n, bound, deaths)                                                    \
    {                                                                                                                  \
        .name = (title), .threads = (n), .body = {first, second, third}, .reset = (start), .finish = finish,           \
        .preemptions = (bound), .kills = (deaths), .killable = (deaths) == 0 ? 0 : 3                                   \
    }

TEST_LIMIT(blocks_have_one_owner, 240)
{
    const model_t models[] = {
        MODEL("two use blocks of one slab", reset_slab, use_block, use_block, NULL, 2, 4, 0),
        MODEL("one uses a block, one empties the slab", reset_slab, use_block, empty_and_use_page, NULL, 2, 4, 0),
        MODEL("two empty one slab", reset_slab, empty_and_use_page, empty_and_use_page, NULL, 2, 4, 0),
        MODEL("a block, a page, one dies, one reaps", reset_slab, use_block, empty_and_use_page, reap, 3, 2, 1),
        MODEL("two make slabs", reset_empty, use_block, use_block, NULL, 2, 4, 0),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(pages_have_one_owner, 240)
{
    const model_t models[] = {
        MODEL("one page and two pages", reset_pages, use_one_page, use_two_pages, NULL, 2, 5, 0),
        MODEL("two pages twice", reset_pages, use_two_pages, use_two_pages, NULL, 2, 5, 0),
        MODEL("three of all sizes", reset_pages, use_one_page, use_two_pages, use_all_pages, 3, 3, 0),
        MODEL("two grow", reset_empty, use_one_page, use_two_pages, NULL, 2, 5, 0),
        MODEL("one grows, one gives back", reset_pages, use_all_pages, clean_up, NULL, 2, 5, 0),
        MODEL("two grow, one dies, one reaps", reset_empty, use_one_page, use_two_pages, reap, 3, 2, 1),
        MODEL("two give back, one dies, one reaps", reset_pages, clean_up, clean_up, reap, 3, 2, 1),
        MODEL("two use pages, both die, one reaps", reset_pages, use_two_pages, use_one_page, reap, 3, 2, 2),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(the_last_holder_frees_a_block, 240)
{
    const model_t models[] = {
        MODEL("one lets go, one comes", reset_loan, first_holder, other_holder, NULL, 2, 4, 0),
        MODEL("one lets go, two come", reset_loan, first_holder, other_holder, other_holder, 3, 3, 0),
        MODEL("one lets go of pages, two come", reset_loan_of_pages, first_holder, other_holder, other_holder, 3, 3, 0),
        MODEL("one of two dies, one reaps", reset_loan, first_holder, other_holder, reap, 3, 2, 1),
        MODEL("both die, one reaps", reset_loan, first_holder, other_holder, reap, 3, 2, 2),
        MODEL("one of two with pages dies", reset_loan_of_pages, first_holder, other_holder, reap, 3, 3, 1),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(a_parcel_is_collected_once_and_holds_till_then, 240)
{
    const model_t models[] = {
        MODEL("two collect", reset_parcel, rest, collector, collector, 3, 3, 0),
        MODEL("one collects, the sender takes back", reset_parcel, sender_that_takes_back, collector, NULL, 2, 5, 0),
        MODEL("two collect, the sender takes back", reset_parcel, sender_that_takes_back, collector, collector, 3, 2,
              0),
        MODEL("one lets go, one collects", reset_parcel_and_holder, rest, second_holder, collector, 3, 4, 0),
        MODEL("one sends, lets go, takes back, one lets go", reset_sender_and_holder, sender, second_holder, NULL, 2, 4,
              0),
        MODEL("the sender dies, one collects, one reaps", reset_parcel, sender_that_takes_back, collector, reap, 3, 2,
              1),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    model_t models[] = {
        MODEL("a parcel cleared before its block is held", reset_parcel_and_holder, rest, second_holder,
              collector_that_clears_too_early, 3, 3, 0),
        MODEL("a block claimed without an announcement", reset_slab, claim_unannounced, empty_and_use_page, NULL, 2, 4,
              0),
        MODEL("holders looked for before closing", reset_loan, holder_that_looks_too_early, other_holder, NULL, 2, 3,
              0),
    };
    for (size_t i = 0; i < SHC_ARRAY_SIZE(models); i++)
        models[i].must_fail = true;
    run_all(models, SHC_ARRAY_SIZE(models));
}
