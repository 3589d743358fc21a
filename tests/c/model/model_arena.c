/* The allocator, explored: the words of pages, blocks and records under two or three processes that may die at
 * any point, and one that sweeps. */
#define FAKE_FILE_BYTES 49152u
#include "seg/shc_arena_internal.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define PAGE 4096u
#define PAGES 3u
#define BLOCK 1024u /* three to a slab */
#define GIVEN UINT32_MAX

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
    uint64_t ticket;
    bool letting_go;      /* the first holder has begun to */
    uint32_t idle[PAGES]; /* generations of pages that nobody may release or free; GIVEN: some may */
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
    MODEL_CHECK(r == 0 || r == SHC_FULL || (r == -ENOSPC && fake.reserve_error != 0));
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

/* Leaves while others work: it owns nothing, but has records, so that it looks through all pages. */
static void
leave(void)
{
    shc_arena_leave(mine());
}

static void
use_all_and_clean_up(void)
{
    use_all_pages();
    clean_up();
}

static void
use_two_then_all_pages(void)
{
    use_two_pages();
    use_all_pages();
}

static void
look(void)
{
    shc_arena_stats_t s;
    MODEL_CHECK(shc_arena_stats(mine(), &s) == 0);
}

/* What shc_arena_recover.c does, but goes on by one page where a run ends behind the frontier that was loaded. */
static void
leave_with_an_old_frontier(void)
{
    uint32_t me_too = shc_arena_state(SHC_ARENA_OWNED, me()->seg.index + 1, 0), frontier = shc_arena__frontier(mine());
    uint32_t length;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(mine(), page)); /* A1 */
        uint32_t upper = shc_arena_upper_of(word), g = shc_arena_generation_of(upper);
        bool sound = shc_arena__step(word, frontier - page, &length);
        if (sound && shc_arena_kind_of(word) == SHC_ARENA_RUN && upper == (me_too | g << 15))
            shc_arena__free_pages(mine(), page, length, g + 1);
    }
}

/* What shc_arena_pages.c does when it gives a free run back, but upwards. */
static void
dissolve_upwards(void)
{
    use_all_pages();
    uint64_t word = shc_a64_load_acquire(shc_arena__word(mine(), 0)); /* A1 */
    uint32_t owned = shc_arena_state(SHC_ARENA_OWNED, me()->seg.index + 1, 0);
    if (!shc_arena__is_free_run(word) || shc_arena_length_of(word) != PAGES)
        return;
    uint64_t mine_now = shc_arena_page(SHC_ARENA_MOVING, PAGES, owned | shc_arena__generation(word) << 15);
    if (!shc_a64_cas_seq_cst(shc_arena__word(mine(), 0), &word, mine_now)) /* AR1 */
        return;
    for (uint32_t i = 1; i <= PAGES; i++) {
        shc_a64_t *at = shc_arena__word(mine(), i % PAGES);
        uint32_t g = shc_arena__generation(shc_a64_load_relaxed(at));
        shc_a64_store_release(at, shc_arena_page(SHC_ARENA_MOVING, 1, owned | g << 15)); /* R1 */
    }
    shc_arena__unback(mine(), 0, 1, me()->seg.index + 1);
    shc_arena__unback(mine(), 1, 1, me()->seg.index + 1);
    shc_arena__unback(mine(), 2, 1, me()->seg.index + 1);
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

/* Has posted the block in a message, and lets go. */
static void
sender(void)
{
    first_holder();
}

static void
receiver(void)
{
    uint32_t record, word;
    int r = shc_arena_collect(mine(), plan.ref, plan.ticket, &record);
    MODEL_CHECK(r == 0 || (r == SHC_E_STALE && model_deaths() > 0));
    if (r != 0)
        return;
    MODEL_CHECK(shc_arena_look(mine(), plan.ref, &word) == 0);
    MODEL_CHECK(shc_arena_state_of(word) == SHC_ARENA_LOANED || shc_arena_state_of(word) == SHC_ARENA_CLOSING);
    MODEL_CHECK(shc_arena_drop(mine(), plan.ref, record) == 0);
}

static void
sender_who_changes_its_mind(void)
{
    int r = shc_arena_unpost(mine(), plan.ref, plan.ticket);
    MODEL_CHECK(r == 0 || r == SHC_E_STALE);
    first_holder();
}

/* Or comes too late. */
static void
hasty_receiver(void)
{
    uint32_t record;
    int r = shc_arena_collect(mine(), plan.ref, plan.ticket, &record);
    MODEL_CHECK(r == 0 || r == SHC_E_STALE);
    if (r == 0)
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
make_segment_that(shc_os_growth_t growth, uint32_t initial)
{
    static shc_self_t self;
    shc_seg_create_args_t args;
    shc_seg_t made;
    fake_reset();
    fake.growth = growth;
    memset(&plan, 0, sizeof plan);
    for (uint32_t i = 0; i < PAGES; i++)
        plan.idle[i] = GIVEN;
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

static void
make_segment(uint32_t initial)
{
    make_segment_that(SHC_OS_GROWS_BY_MAP, initial);
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
make_empty_by_fd(void)
{
    make_segment_that(SHC_OS_GROWS_BY_FD, 0);
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
make_message(void)
{
    make_loan();
    CHECK_OK(shc_arena_post(&plan.parties[0].arena, plan.ref, &plan.ticket));
}

static void
make_loan_of_pages(void)
{
    make_pages();
    shc_arena_t *a = &plan.parties[0].arena;
    CHECK_OK(shc_arena_allocate(a, 2 * PAGE, &plan.ref));
    CHECK_OK(shc_arena_lend(a, plan.ref, &plan.record[0]));
}

/* Thread 0 has a record, and once had pages that lie under a free run now. Their words still name it. */
static void
remember_pages(uint32_t first, uint32_t end)
{
    shc_arena_t *a = &plan.parties[0].arena;
    shc_ref_t before[PAGES], run[PAGES];
    uint32_t record;
    CHECK_OK(shc_arena_allocate(a, BLOCK, &run[0]));
    CHECK_OK(shc_arena_lend(a, run[0], &record));
    CHECK_OK(shc_arena_drop(a, run[0], record));
    (void)shc_arena_cleanup(a, UINT64_MAX);
    for (uint32_t i = 0; i < first; i++)
        CHECK_OK(shc_arena_allocate(a, PAGE, &before[i]));
    for (uint32_t i = first; i < end; i++)
        CHECK_OK(shc_arena_allocate(a, PAGE, &run[i]));
    for (uint32_t i = first; i < end; i++)
        CHECK_OK(shc_arena_release(a, run[i]));
    CHECK_OK(shc_arena_allocate(a, (end - first) * PAGE, &run[first]));
    CHECK_OK(shc_arena_release(a, run[first]));
    for (uint32_t i = 0; i < first; i++)
        CHECK_OK(shc_arena_release(a, before[i]));
    CHECK_EQ(shc_arena_length_of(shc_a64_load_relaxed(&a->words[first])), end - first);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint64_t word = shc_a64_load_relaxed(&a->words[i]);
        bool names = shc_arena_owner_of(shc_arena_upper_of(word)) == plan.parties[0].seg.index + 1;
        CHECK_EQ(names, i > first && i < end);
        plan.idle[i] = names ? shc_arena__generation(word) : GIVEN;
    }
}

static void
make_small_with_a_past(void)
{
    make_segment(2);
    remember_pages(0, 2);
}

static void
make_pages_with_a_past(void)
{
    make_segment(PAGES);
    remember_pages(1, PAGES);
}

static void
make_small(void)
{
    make_segment(2);
}

static void
reset_small_with_a_past(void)
{
    restore(make_small_with_a_past);
}

static void
reset_pages_with_a_past(void)
{
    restore(make_pages_with_a_past);
}

static void
reset_small(void)
{
    restore(make_small);
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
reset_empty_by_fd(void)
{
    restore(make_empty_by_fd);
}

/* Until all have ended, the system has no memory and takes none. */
static void
reset_scarce(void)
{
    restore(make_small);
    fake.reserve_error = -ENOSPC;
    fake.give_back_error = -EOPNOTSUPP;
}

static void
reset_loan(void)
{
    restore(make_loan);
}

static void
reset_message(void)
{
    restore(make_message);
}

static void
reset_loan_of_pages(void)
{
    restore(make_loan_of_pages);
}

/* The lemma of the chain, and that nobody has freed what was nobody's to free. */
static void
check_words(const shc_arena_t *a)
{
    uint32_t end = 0;
    for (uint32_t page = 0; page < PAGES; page++) {
        uint64_t word = shc_a64_load_relaxed(&a->words[page]);
        uint32_t kind = shc_arena_kind_of(word);
        bool is_head = page >= end, spans = kind == SHC_ARENA_RUN || kind == SHC_ARENA_MOVING;
        MODEL_CHECK(is_head || (spans && shc_arena_state_of(shc_arena_upper_of(word)) != SHC_ARENA_FREE) ||
                    kind == SHC_ARENA_MOVING);
        MODEL_CHECK(plan.idle[page] == GIVEN || plan.idle[page] == shc_arena__generation(word));
        end = is_head ? page + (spans ? shc_arena_length_of(word) : 1) : end;
    }
}

/* The dead are swept; then nothing is anybody's, and all pages can be had. */
static void
finish(void)
{
    party_t *last = &plan.parties[3];
    shc_arena_stats_t s;
    shc_ref_t all;
    fake.reserve_error = 0;
    fake.give_back_error = 0;
    shc_arena_open(&last->arena, &last->seg, &geometry);
    MODEL_CHECK(shc_arena_check(&last->arena) == 0);
    check_words(&last->arena);
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
        MODEL("two grow by descriptor", reset_empty_by_fd, use_one_page, use_two_pages, NULL, 2, 5, 0),
        MODEL("one grows, one gives back", reset_pages, use_all_pages, clean_up, NULL, 2, 5, 0),
        MODEL("two grow, one dies, one reaps", reset_empty, use_one_page, use_two_pages, reap, 3, 2, 1),
        MODEL("two give back, one dies, one reaps", reset_pages, clean_up, clean_up, reap, 3, 2, 1),
        MODEL("one cannot grow, one uses pages", reset_scarce, use_all_pages, use_two_pages, NULL, 2, 4, 0),
        MODEL("one cannot grow, one cannot give back", reset_scarce, use_all_pages, clean_up, NULL, 2, 4, 0),
        MODEL("one cannot grow and dies, one reaps", reset_scarce, use_all_pages, use_one_page, reap, 3, 2, 1),
        MODEL("two use pages, both die, one reaps", reset_pages, use_two_pages, use_one_page, reap, 3, 2, 2),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(who_walks_the_chain_takes_nothing_for_its_own, 240)
{
    const model_t models[] = {
        MODEL("one leaves, one grows over the old frontier", reset_small_with_a_past, leave, use_all_pages, NULL, 2, 4,
              0),
        MODEL("one leaves, one makes a run and gives it back", reset_pages_with_a_past, leave, use_all_and_clean_up,
              NULL, 2, 4, 0),
        MODEL("one looks, one grows over the old frontier", reset_small, look, use_all_pages, NULL, 2, 4, 0),
        MODEL("two grow over the first run", reset_small, use_two_then_all_pages, use_two_pages, NULL, 2, 4, 0),
        MODEL("one leaves, one grows, one dies, one reaps", reset_small_with_a_past, leave, use_all_pages, reap, 3, 2,
              1),
        MODEL("one leaves, one gives back, one dies, one reaps", reset_pages_with_a_past, leave, use_all_and_clean_up,
              reap, 3, 2, 1),
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

TEST_LIMIT(a_message_holds_its_block, 240)
{
    const model_t models[] = {
        MODEL("the sender lets go, the receiver collects", reset_message, sender, receiver, NULL, 2, 4, 0),
        MODEL("the sender changes its mind", reset_message, sender_who_changes_its_mind, hasty_receiver, NULL, 2, 4, 0),
        MODEL("one of them dies, one reaps", reset_message, sender_who_changes_its_mind, hasty_receiver, reap, 3, 2, 1),
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    model_t models[] = {
        MODEL("a block claimed without an announcement", reset_slab, claim_unannounced, empty_and_use_page, NULL, 2, 4,
              0),
        MODEL("a run that has grown over the old frontier walked into", reset_small_with_a_past,
              leave_with_an_old_frontier, use_all_pages, NULL, 2, 4, 0),
        MODEL("a run dissolved upwards", reset_pages_with_a_past, leave, dissolve_upwards, NULL, 2, 4, 0),
        MODEL("holders looked for before closing", reset_loan, holder_that_looks_too_early, other_holder, NULL, 2, 3,
              0),
    };
    for (size_t i = 0; i < SHC_ARRAY_SIZE(models); i++)
        models[i].must_fail = true;
    run_all(models, SHC_ARRAY_SIZE(models));
}
