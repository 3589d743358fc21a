/* The allocator, on real files: growth is the file system's business, too. */
#include "seg/shc_arena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "seg/shc_arena_internal.h"
#include "support/os_faults.h"
#include "support/proc.h"
#include "support/scratch.h"
#include "support/segfix.h"
#include "t.h"

#define NAME "shmcomm.arena"
#define SMALL_SHIFT 12u

static shc_seg_t seg;
static shc_arena_t arena;

static const shc_arena_geometry_t usual = {.pages = 64, .initial = 2, .page_shift = 16, .growth = 100, .records = 1000};

static int
create(shc_arena_geometry_t g)
{
    shc_seg_create_args_t args = fix_arena_args(&g, FIX_PARTICIPANTS);
    int r = fix_create_with(NAME, &fix_arena_spec, &args, &seg);
    if (r == 0)
        fix_arena_open(&arena, &seg);
    return r;
}

static void
set_up_with(shc_arena_geometry_t g)
{
    fix_open();
    CHECK_OK(create(g));
}

static void
set_up(void)
{
    set_up_with(usual);
}

static void
tear_down(void)
{
    CHECK_OK(shc_arena_check(&arena));
    shc_arena_leave(&arena);
    CHECK(!shc_arena_names(&arena, seg.index));
    CHECK_OK(shc_arena_check(&arena));
    fix_leave(&seg, NAME);
    fix_close();
}

static shc_ref_t
allocate(uint64_t size)
{
    shc_ref_t ref = SHC_ARENA_NOTHING;
    CHECK_OK(shc_arena_allocate(&arena, size, &ref));
    CHECK_NE(ref, SHC_ARENA_NOTHING);
    return ref;
}

static uint64_t
size_of(shc_ref_t ref)
{
    void *memory;
    uint64_t size;
    CHECK_OK(shc_arena_resolve(&arena, ref, &memory, &size));
    CHECK(memory == shc_arena_at(&arena, ref));
    return size;
}

static uint32_t
state_of(shc_ref_t ref)
{
    uint32_t word;
    CHECK_OK(shc_arena_look(&arena, ref, &word));
    return shc_arena_state_of(word);
}

static shc_arena_stats_t
stats(void)
{
    shc_arena_stats_t s;
    CHECK_OK(shc_arena_stats(&arena, &s));
    return s;
}

static uint64_t
page_word(uint32_t page)
{
    return shc_a64_load_relaxed(&arena.words[page]);
}

/* Bytes that the file really takes. */
static uint64_t
allocated(void)
{
    shc_os_file_info_t info;
    CHECK_OK(shc_os_file_look(fix.dir_fd, NAME, &info));
    return info.allocated;
}

/* Another participant over the same mapping: what it does is another process's. */
typedef struct other {
    shc_seg_t seg;
    shc_arena_t arena;
} other_t;

static void
join_other(other_t *other)
{
    CHECK_OK(fix_attach(NAME, &fix_arena_spec, &other->seg));
    fix_arena_open(&other->arena, &other->seg);
}

static void
leave_other(other_t *other)
{
    shc_arena_leave(&other->arena);
    fix_leave(&other->seg, NAME);
}

/* It is dead, and its slot says so; reaping sweeps. */
static void
kill_other(other_t *other)
{
    fix_plant_dead(&other->seg, other->seg.index, other->seg.generation, SHC_PARTICIPANT_LIVE);
    shc_seg_unmap(&other->seg);
}

/* ---- geometry ---- */

TEST(classes_are_a_fifth_apart_and_cover_every_size)
{
    for (uint32_t c = 0; c < SHC_ARENA_CLASSES; c++) {
        uint64_t size = shc_arena_class_size(c), before = c == 0 ? 0 : shc_arena_class_size(c - 1);
        CHECK_EQ(shc_arena_class_of(size), c);
        CHECK_EQ(shc_arena_class_of(before + 1), c);
        CHECK_EQ(size % SHC_ARENA_UNIT, 0);
        CHECK_GT(size, before);
        if (c >= 4)
            CHECK_LE((size - before - 1) * 5, size);
    }
    CHECK_EQ(shc_arena_class_size(SHC_ARENA_CLASSES - 1), SHC_ARENA_SMALL_MAX);
    CHECK_EQ(shc_arena_class_of(0), 0);
}

TEST(blocks_of_every_class_fit_their_page_and_do_not_overlap)
{
    for (uint32_t shift = SHC_ARENA_PAGE_SHIFT_MIN; shift <= SHC_ARENA_PAGE_SHIFT_MAX; shift++) {
        shc_arena_geometry_t g = usual;
        g.page_shift = shift;
        set_up_with(g);
        for (uint32_t c = 0; c < arena.classes; c++) {
            const shc_arena_class_t *k = &arena.class[c];
            CHECK_GE(k->count, 2);
            CHECK_LE((k->first + k->count * k->size) * SHC_ARENA_UNIT, UINT64_C(1) << shift);
            CHECK_GE(k->first * SHC_ARENA_UNIT, k->states + k->count * 4u);
            CHECK_EQ(k->first * SHC_ARENA_UNIT % SHC_CACHE_LINE, 0);
            CHECK_EQ(k->states, (k->count + 63u) / 64 * 8);
            for (uint32_t i = 0; i < k->count; i++)
                CHECK_EQ((uint64_t)i * k->size * k->reciprocal >> SHC_ARENA_RECIPROCAL, i);
        }
        tear_down();
    }
}

TEST(a_geometry_survives_its_config_words)
{
    shc_arena_geometry_t g = usual, back;
    uint64_t config[SHC_ARENA_CONFIG_WORDS];
    g.at = 65536;
    g.participants = 7;
    CHECK_OK(shc_arena_lay_out(&g));
    shc_arena_to_config(&g, config);
    CHECK_OK(shc_arena_from_config(config, g.at, 7, &back));
    CHECK_MEM(&g, &back, sizeof g);
    CHECK(g.at < g.parties && g.parties < g.words && g.words < g.record_table && g.record_table < g.data);
    CHECK_EQ(g.data % 65536, 0);
    CHECK_EQ(g.end - g.data, 64u << 16);
}

TEST(geometries_that_cannot_be_are_refused)
{
    static const struct {
        uint32_t pages, initial, shift, growth, records, participants;
        uint64_t at;
    } cases[] = {
        {0, 0, 16, 0, 0, 1, 0},        {4, 5, 16, 0, 0, 1, 0},          {4, 4, 11, 0, 0, 1, 0},
        {4, 4, 17, 0, 0, 1, 0},        {4, 4, 16, 65536, 0, 1, 0},      {4, 4, 16, 0, 65536, 1, 0},
        {4, 4, 16, 0, 0, 0, 0},        {4, 4, 16, 0, 0, 2048, 0},       {4, 4, 16, 0, 0, 1, 4096},
        {0xffffff, 4, 16, 0, 0, 1, 0}, {4, 4, 16, 0, 0, 1, UINT64_MAX}, {UINT32_MAX, 4, 16, 0, 0, 1, 0},
    };
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        shc_arena_geometry_t g = {.pages = cases[i].pages, .initial = cases[i].initial, .page_shift = cases[i].shift};
        g.growth = cases[i].growth;
        g.records = cases[i].records;
        g.participants = cases[i].participants;
        g.at = cases[i].at;
        CHECK_EQ(shc_arena_lay_out(&g), -EINVAL);
    }
    shc_arena_geometry_t g = {.pages = SHC_ARENA_PAGES_MAX, .page_shift = 16, .participants = 1};
    CHECK_EQ(shc_arena_lay_out(&g), SHC_E_TOO_LARGE);
    uint64_t config[SHC_ARENA_CONFIG_WORDS] = {UINT64_MAX, UINT64_MAX};
    CHECK_EQ(shc_arena_from_config(config, 0, 1, &g), SHC_E_CORRUPT);
}

/* ---- small blocks ---- */

TEST(a_block_is_as_large_as_asked_for_aligned_and_the_callers_own)
{
    set_up();
    for (uint64_t size = 0; size <= SHC_ARENA_SMALL_MAX; size += size < 200 ? 1 : 97) {
        shc_ref_t ref = allocate(size);
        CHECK_GE(size_of(ref), size);
        CHECK_EQ(size_of(ref), shc_arena_class_size(shc_arena_class_of(size)));
        CHECK_EQ(state_of(ref), SHC_ARENA_OWNED);
        uint64_t align = size_of(ref) % 64 == 0 ? 64 : 16;
        CHECK_EQ((uintptr_t)shc_arena_at(&arena, ref) % align, 0);
        memset(shc_arena_at(&arena, ref), 0xa5, size_of(ref));
        CHECK_OK(shc_arena_release(&arena, ref));
    }
    tear_down();
}

TEST(no_two_blocks_overlap)
{
    enum {
        N = 3000
    };
    static shc_ref_t refs[N];
    uint64_t rng = t_seed();
    shc_arena_geometry_t g = usual;
    g.pages = 400;
    set_up_with(g);
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = allocate(t_random(&rng) % (i % 50 == 0 ? 70000 : 2000));
        memset(shc_arena_at(&arena, refs[i]), (int)(i & 0xff), size_of(refs[i]));
    }
    for (uint32_t i = 0; i < N; i++) {
        const uint8_t *p = shc_arena_at(&arena, refs[i]);
        for (uint64_t k = 0; k < size_of(refs[i]); k++)
            CHECK_EQ(p[k], i & 0xff);
    }
    CHECK_OK(shc_arena_check(&arena));
    for (uint32_t i = 0; i < N; i++)
        CHECK_OK(shc_arena_release(&arena, refs[i]));
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

TEST(what_was_released_last_is_given_out_first)
{
    set_up();
    shc_ref_t a = allocate(100), b = allocate(100);
    CHECK_OK(shc_arena_release(&arena, a));
    CHECK_OK(shc_arena_release(&arena, b));
    CHECK_EQ(allocate(100) & SHC_ARENA_PLACE_MASK, b & SHC_ARENA_PLACE_MASK);
    CHECK_EQ(allocate(100) & SHC_ARENA_PLACE_MASK, a & SHC_ARENA_PLACE_MASK);
    tear_down();
}

TEST(an_old_reference_is_stale_for_ever)
{
    void *memory;
    uint64_t size;
    uint32_t word;
    set_up();
    shc_ref_t old = allocate(64);
    CHECK_OK(shc_arena_release(&arena, old));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(shc_arena_release(&arena, old), SHC_E_STALE);
        CHECK_EQ(shc_arena_resolve(&arena, old, &memory, &size), SHC_E_STALE);
        CHECK_EQ(shc_arena_look(&arena, old, &word), SHC_E_STALE);
        CHECK_EQ(shc_arena_attach(&arena, old), SHC_E_STALE);
        CHECK_EQ(shc_arena_take(&arena, old), SHC_E_STALE);
        shc_ref_t again = allocate(64);
        CHECK_EQ(again & SHC_ARENA_PLACE_MASK, old & SHC_ARENA_PLACE_MASK);
        CHECK_NE(again, old);
        CHECK_EQ(shc_arena_release(&arena, old), SHC_E_STALE);
        CHECK_OK(shc_arena_release(&arena, again));
    }
    (void)shc_arena_cleanup(&arena, 0); /* its page is no slab any more */
    CHECK_EQ(shc_arena_release(&arena, old), SHC_E_STALE);
    tear_down();
}

TEST(generations_go_on_when_a_page_changes_its_class)
{
    shc_arena_geometry_t g = {.pages = 1, .initial = 1, .page_shift = SMALL_SHIFT};
    static shc_ref_t seen[20000];
    uint32_t n = 0;
    set_up_with(g);
    static const uint64_t sizes[] = {16, 1024, 64, 4096, 16, 512};
    for (uint32_t round = 0; round < 30; round++) {
        uint64_t size = sizes[round % SHC_ARRAY_SIZE(sizes)];
        for (uint32_t i = 0; i < 30; i++) {
            shc_ref_t ref = allocate(size);
            for (uint32_t k = 0; k < n; k++)
                CHECK_NE(seen[k], ref);
            seen[n++] = ref;
            CHECK_OK(shc_arena_release(&arena, ref));
        }
        for (uint32_t k = 0; k < n; k++)
            CHECK_EQ(shc_arena_release(&arena, seen[k]), SHC_E_STALE);
        (void)shc_arena_cleanup(&arena, UINT64_MAX);
        CHECK_EQ(stats().bytes_free, 4096);
    }
    tear_down();
}

TEST(a_generation_comes_round_without_harm)
{
    set_up();
    shc_ref_t first = allocate(40), ref = first;
    for (uint32_t i = 0; i <= SHC_ARENA_GENERATION_MASK; i++) {
        CHECK_OK(shc_arena_release(&arena, ref));
        ref = allocate(40);
    }
    CHECK_EQ(ref, first); /* as promised: after 2^17 releases */
    CHECK_OK(shc_arena_release(&arena, ref));
    tear_down();
}

TEST(references_to_nowhere_are_stale)
{
    static const uint64_t beside[] = {0, 1, 15, 16, 65535};
    set_up();
    shc_ref_t ref = allocate(100);
    uint64_t g = (uint64_t)shc_arena_ref_generation(ref) << 36;
    CHECK_EQ(shc_arena_release(&arena, SHC_ARENA_NOTHING), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&arena, UINT64_MAX), SHC_E_STALE);
    CHECK(shc_arena_at(&arena, SHC_ARENA_NOTHING) == NULL);
    CHECK(shc_arena_at(&arena, SHC_ARENA_PLACE_MASK) == NULL);
    CHECK(shc_arena_at(&arena, arena.g.end / 16) == NULL);
    CHECK(shc_arena_at(&arena, arena.g.data / 16 - 1) == NULL);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(beside); i++)
        CHECK_EQ(shc_arena_release(&arena, (arena.g.data + beside[i]) / 16 | g), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&arena, ref + 1), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&arena, arena.g.end / 16 - 1), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&arena, arena.g.end / 16), SHC_E_STALE);
    CHECK_OK(shc_arena_release(&arena, ref));
    tear_down();
}

TEST(a_reference_with_further_bits_is_stale)
{
    void *memory;
    uint64_t size, ticket;
    uint32_t word, k, more;
    set_up();
    shc_ref_t own = allocate(100), run = allocate(70000), lent = allocate(100);
    CHECK_OK(shc_arena_lend(&arena, lent, &k));
    CHECK_OK(shc_arena_post(&arena, lent, &ticket));
    for (unsigned bit = 53; bit < 64; bit++) {
        uint64_t beyond = UINT64_C(1) << bit;
        CHECK_EQ(shc_arena_release(&arena, own | beyond), SHC_E_STALE);
        CHECK_EQ(shc_arena_release(&arena, run | beyond), SHC_E_STALE);
        CHECK_EQ(shc_arena_attach(&arena, own | beyond), SHC_E_STALE);
        CHECK_EQ(shc_arena_lend(&arena, own | beyond, &more), SHC_E_STALE);
        CHECK_EQ(shc_arena_resolve(&arena, own | beyond, &memory, &size), SHC_E_STALE);
        CHECK_EQ(shc_arena_look(&arena, own | beyond, &word), SHC_E_STALE);
        CHECK_EQ(shc_arena_hold(&arena, lent | beyond, &more), SHC_E_STALE);
        CHECK_EQ(shc_arena_post(&arena, lent | beyond, &ticket), SHC_E_STALE);
        CHECK_EQ(shc_arena_collect(&arena, lent | beyond, ticket, &more), SHC_E_STALE);
        CHECK_EQ(shc_arena_drop(&arena, lent | beyond, k), SHC_E_STALE);
        CHECK_EQ(shc_arena_unpost(&arena, lent | beyond, ticket ^ (bit < 62 ? UINT64_C(1) << (bit - 53) : 0)),
                 SHC_E_STALE); /* together they would make the word of what was posted */
    }
    CHECK_EQ(stats().records, 2);
    CHECK_OK(shc_arena_release(&arena, own));
    CHECK_OK(shc_arena_release(&arena, run));
    CHECK_OK(shc_arena_unpost(&arena, lent, ticket));
    CHECK_OK(shc_arena_drop(&arena, lent, k));
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

TEST(a_full_arena_says_so_and_gives_again_what_comes_back)
{
    shc_arena_geometry_t g = {.pages = 4, .initial = 4, .page_shift = SMALL_SHIFT};
    static shc_ref_t refs[1000];
    uint32_t n = 0;
    int r;
    set_up_with(g);
    while ((r = shc_arena_allocate(&arena, 64, &refs[n])) == 0)
        n++;
    CHECK_EQ(r, SHC_FULL);
    CHECK_EQ(n, 4u * arena.class[shc_arena_class_of(64)].count);
    CHECK_EQ(shc_arena_allocate(&arena, 4096, &refs[n]), SHC_FULL);
    CHECK_EQ(shc_arena_allocate(&arena, 5 * 4096, &refs[n]), SHC_E_TOO_LARGE);
    CHECK_EQ(shc_arena_allocate(&arena, UINT64_MAX, &refs[n]), SHC_E_TOO_LARGE);
    CHECK_OK(shc_arena_release(&arena, refs[--n]));
    refs[n++] = allocate(64);
    while (n > 0)
        CHECK_OK(shc_arena_release(&arena, refs[--n]));
    shc_ref_t all = allocate(4 * 4096); /* slabs are given up when pages are wanted */
    CHECK_OK(shc_arena_release(&arena, all));
    tear_down();
}

TEST(blocks_that_lost_their_hint_bits_are_found_before_full_is_said)
{
    shc_arena_geometry_t g = {.pages = 1, .initial = 1, .page_shift = SMALL_SHIFT};
    static shc_ref_t refs[100];
    uint32_t n = 0;
    set_up_with(g);
    refs[n++] = allocate(64);
    CHECK_LE(arena.class[3].count, 64);
    shc_a64_store_relaxed(shc_arena__bits(&arena, 0), 0);
    shc_a64_store_relaxed(&arena.shm->slabs[3], 0);
    while (shc_arena_allocate(&arena, 64, &refs[n]) == 0)
        n++;
    CHECK_EQ(n, arena.class[3].count);
    tear_down();
}

TEST(wrong_hints_do_no_harm)
{
    uint64_t rng = t_seed();
    shc_ref_t held[20] = {0};
    set_up();
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t k = (uint32_t)(t_random(&rng) % 20);
        if (held[k] != 0)
            CHECK_OK(shc_arena_release(&arena, held[k]));
        held[k] = 0;
        shc_a64_store_relaxed(&arena.shm->slabs[t_random(&rng) % SHC_ARENA_CLASSES], t_random(&rng));
        shc_a64_store_relaxed(&arena.shm->runs[t_random(&rng) % 24], t_random(&rng));
        shc_a64_store_relaxed(&arena.shm->low, t_random(&rng));
        if (shc_arena_kind_of(page_word(0)) == SHC_ARENA_SLAB)
            shc_a64_store_relaxed(shc_arena__bits(&arena, 0), t_random(&rng));
        int r = shc_arena_allocate(&arena, t_random(&rng) % 200000, &held[k]);
        CHECK(r == 0 || r == SHC_FULL);
        if (r != 0)
            held[k] = 0;
        else
            memset(shc_arena_at(&arena, held[k]), 1, 16);
    }
    CHECK_OK(shc_arena_check(&arena));
    for (uint32_t k = 0; k < 20; k++)
        if (held[k] != 0)
            CHECK_OK(shc_arena_release(&arena, held[k]));
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

/* ---- runs ---- */

TEST(large_blocks_are_whole_pages)
{
    set_up();
    shc_ref_t one = allocate(SHC_ARENA_SMALL_MAX + 1), two = allocate(65537), three = allocate(3 << 16);
    CHECK_EQ(size_of(one), 65536);
    CHECK_EQ(size_of(two), 131072);
    CHECK_EQ(size_of(three), 196608);
    CHECK_EQ(((uintptr_t)shc_arena_at(&arena, three) - (uintptr_t)shc_seg_at(&seg, arena.g.data)) % 65536, 0);
    CHECK_EQ(stats().runs, 3);
    CHECK_EQ(stats().bytes_used, 6 << 16);
    CHECK_OK(shc_arena_release(&arena, two));
    CHECK_EQ(shc_arena_release(&arena, two), SHC_E_STALE);
    shc_ref_t again = allocate(131072);
    CHECK_EQ(again & SHC_ARENA_PLACE_MASK, two & SHC_ARENA_PLACE_MASK);
    CHECK_NE(again, two);
    CHECK_EQ(shc_arena_release(&arena, again + 4096), SHC_E_STALE); /* its second page */
    CHECK_OK(shc_arena_release(&arena, one));
    CHECK_OK(shc_arena_release(&arena, again));
    CHECK_OK(shc_arena_release(&arena, three));
    tear_down();
}

TEST(neighbouring_free_runs_are_joined_when_a_long_one_is_wanted)
{
    shc_arena_geometry_t g = {.pages = 16, .initial = 16, .page_shift = SMALL_SHIFT};
    shc_ref_t refs[16];
    set_up_with(g);
    for (int i = 0; i < 16; i++)
        refs[i] = allocate(4096);
    for (int i = 0; i < 16; i += 2)
        CHECK_OK(shc_arena_release(&arena, refs[i]));
    CHECK_EQ(shc_arena_allocate(&arena, 2 * 4096, &refs[0]), SHC_FULL);
    CHECK_EQ(stats().bytes_largest, 4096);
    CHECK_EQ(stats().fragmentation, 87); /* 7 of 8 free pages */
    for (int i = 1; i < 16; i += 2)
        CHECK_OK(shc_arena_release(&arena, refs[i]));
    CHECK_EQ(stats().bytes_largest, 16 * 4096);
    CHECK_EQ(stats().fragmentation, 0);
    refs[0] = allocate(16 * 4096);
    CHECK_EQ(shc_arena_length_of(page_word(0)), 16);
    CHECK_OK(shc_arena_release(&arena, refs[0]));
    for (int i = 0; i < 16; i++) { /* and split again */
        refs[i] = allocate(4096);
        CHECK_EQ(size_of(refs[i]), 4096);
    }
    CHECK_OK(shc_arena_check(&arena));
    tear_down();
}

TEST(a_piece_that_somebody_takes_meanwhile_is_let_go)
{
    shc_arena_geometry_t g = {.pages = 4, .initial = 4, .page_shift = SMALL_SHIFT};
    shc_ref_t a, b;
    set_up_with(g);
    a = allocate(4096);
    b = allocate(4096);
    CHECK_OK(shc_arena_release(&arena, a));
    uint64_t word = page_word(1);
    CHECK_EQ(shc_arena_upper_of(word), shc_arena_state(SHC_ARENA_OWNED, seg.index + 1, 0));
    CHECK_EQ(shc_arena_allocate(&arena, 3 * 4096, &a), SHC_FULL); /* page 0, then 2 and 3 */
    CHECK(shc_arena__is_free_run(page_word(0)));
    CHECK(shc_arena__is_free_run(page_word(2)));
    CHECK_EQ(page_word(1), word);
    CHECK_OK(shc_arena_release(&arena, b));
    CHECK_OK(shc_arena_release(&arena, allocate(4 * 4096)));
    tear_down();
}

/* ---- growth ---- */

#ifndef SHC_OS_POSIX
TEST(a_new_arena_takes_the_memory_of_its_first_pages_only)
{
    shc_arena_geometry_t g = usual;
    g.pages = 100000; /* 6 GiB */
    set_up_with(g);
    CHECK_GT(seg.id.size, UINT64_C(6) << 30);
    CHECK_LE(allocated(), (2 << 16) + 32768);
    CHECK_EQ(stats().bytes_backed, 2 << 16);
    CHECK_EQ(stats().bytes_total, UINT64_C(100000) << 16);
    tear_down();
}
#endif

TEST(growth_doubles_or_takes_what_is_needed)
{
    shc_arena_geometry_t g = usual;
    set_up_with(g);
    for (uint32_t i = 0; i < 3; i++)
        (void)allocate(65536);
    CHECK_EQ(stats().bytes_backed, 4 << 16);
    for (uint32_t i = 0; i < 2; i++)
        (void)allocate(65536);
    CHECK_EQ(stats().bytes_backed, 8 << 16);
    (void)allocate(20 << 16); /* the three free pages before it are part of it */
    CHECK_EQ(stats().bytes_backed, 25 << 16);
    tear_down();
    g.growth = 0;
    set_up_with(g);
    (void)allocate(2 << 16);
    (void)allocate(65536);
    CHECK_EQ(stats().bytes_backed, 3 << 16);
    tear_down();
}

#ifndef SHC_OS_POSIX
TEST(no_page_is_touched_before_it_has_memory)
{
    uint64_t rng = t_seed();
    shc_ref_t held[64] = {0};
    shc_arena_geometry_t g = usual;
    g.pages = 2000;
    g.initial = 0;
    set_up_with(g);
    uint64_t before = allocated();
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t k = (uint32_t)(t_random(&rng) % 64);
        if (held[k] != 0)
            CHECK_OK(shc_arena_release(&arena, held[k]));
        held[k] = allocate(t_random(&rng) % (k < 8 ? 2000000 : 5000));
        memset(shc_arena_at(&arena, held[k]), 3, size_of(held[k]));
        if (i % 100 == 0)
            (void)shc_arena_cleanup(&arena, 0);
        if (i % 20 == 0) {
            CHECK_OK(shc_arena_check(&arena));
            CHECK_LE(allocated(), before + stats().bytes_backed + 16384); /* the page words' own memory */
            CHECK_GE(allocated(), before + stats().bytes_backed);
        }
    }
    tear_down();
}
#endif

TEST(memory_goes_back_to_the_system)
{
    shc_arena_geometry_t g = usual;
    set_up_with(g);
    uint64_t before = allocated();
    shc_ref_t large = allocate(30 << 16), small = allocate(100);
    CHECK_OK(shc_arena_release(&arena, large));
#ifdef SHC_OS_POSIX
    CHECK_EQ(shc_arena_cleanup(&arena, 0), 0);
    CHECK_EQ(allocated(), before);
    CHECK_GE(stats().bytes_free, 30 << 16);
    CHECK_OK(shc_arena_release(&arena, small));
#else
    CHECK_GE(allocated(), before + (29 << 16));
    CHECK_GE(shc_arena_cleanup(&arena, 0), 29 << 16);
    CHECK_EQ(stats().bytes_backed, 1 << 16);
    CHECK_OK(shc_arena_release(&arena, small));
    CHECK_EQ(shc_arena_cleanup(&arena, 0), 1 << 16);
    CHECK_EQ(stats().bytes_backed, 0);
    CHECK_LE(allocated(), before);
    large = allocate(64 << 16); /* and comes back */
    memset(shc_arena_at(&arena, large), 1, 64 << 16);
    CHECK_OK(shc_arena_release(&arena, large));
    CHECK_EQ(shc_arena_cleanup(&arena, 10 << 16), 54 << 16);
#endif
    tear_down();
}

/* Runs are cut where they are longer than what is to stay. */
#ifdef SHC_OS_POSIX
#define GIVEN_BACK 0u
#else
#define GIVEN_BACK 1u
#endif

TEST(cleanup_keeps_no_more_of_a_long_run)
{
    static const uint64_t keeps[] = {0, 1, 4096, 4097, 9 * 4096, 15 * 4096 + 1, 16 * 4096, UINT64_MAX};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(keeps); i++)
        for (uint32_t hole = 0; hole < 2; hole++) { /* in one piece, or with a page in use in between */
            shc_arena_geometry_t g = {.pages = 16, .initial = 16, .page_shift = SMALL_SHIFT};
            uint64_t n = 16 - hole, keep = keeps[i] < n * 4096 ? (keeps[i] + 4095) / 4096 : n;
            set_up_with(g);
            shc_ref_t before = allocate(5 * 4096), used = allocate(4096), behind = allocate(10 * 4096);
            CHECK_OK(shc_arena_release(&arena, before));
            CHECK_OK(shc_arena_release(&arena, behind));
            if (hole == 0) {
                CHECK_OK(shc_arena_release(&arena, used));
                CHECK_OK(shc_arena_release(&arena, allocate(16 * 4096)));
            }
            CHECK_EQ(shc_arena_cleanup(&arena, keeps[i]), GIVEN_BACK * (n - keep) * 4096);
            CHECK_EQ(stats().bytes_free, (n - GIVEN_BACK * (n - keep)) * 4096);
            if (hole != 0)
                CHECK_OK(shc_arena_release(&arena, used));
            CHECK_OK(shc_arena_release(&arena, allocate(16 * 4096)));
            tear_down();
        }
}

TEST(cleanup_keeps_what_it_is_told_to)
{
    shc_arena_geometry_t g = {.pages = 16, .initial = 16, .page_shift = SMALL_SHIFT};
    shc_ref_t refs[16];
    set_up_with(g);
    for (int i = 0; i < 16; i++)
        refs[i] = allocate(4096);
    for (int i = 0; i < 16; i++)
        CHECK_OK(shc_arena_release(&arena, refs[i]));
    CHECK_EQ(shc_arena_cleanup(&arena, UINT64_MAX), 0);
#ifndef SHC_OS_POSIX
    CHECK_EQ(shc_arena_cleanup(&arena, 4 * 4096), 12 * 4096);
    CHECK_EQ(stats().bytes_backed, 4 * 4096);
#endif
    tear_down();
}

#ifndef SHC_OS_POSIX
static void
fill_a_file_system(shc_os_growth_t growth)
{
    scratch_t s;
    if (!scratch_open_mounted(&s, "size=1m"))
        T_SKIP("no mount namespaces here");
    shc_arena_geometry_t g = usual;
    fix.dir_fd = s.fd;
    CHECK_OK(shc_self_init(&fix.self));
    CHECK_OK(create(g));
    CHECK_EQ(seg.growth, growth);
    shc_ref_t refs[64];
    uint32_t n = 0;
    int r;
    while ((r = shc_arena_allocate(&arena, 65536, &refs[n])) == 0)
        memset(shc_arena_at(&arena, refs[n++]), 7, 65536);
    CHECK_EQ(r, -ENOSPC);
    CHECK_GE(n, 10);
    CHECK_LE(n, 15);
    CHECK_OK(shc_arena_check(&arena));
    uint64_t before = allocated();
    CHECK_EQ(shc_arena_allocate(&arena, 3 << 16, &refs[n]), -ENOSPC);
    CHECK_EQ(shc_arena_allocate(&arena, 64, &refs[n]), -ENOSPC);
    CHECK_EQ(stats().bytes_backed, (uint64_t)n << 16);
    CHECK_EQ(allocated(), before); /* what could be had for a part was given back */
    CHECK_LE(before, ((uint64_t)n << 16) + 32768);
    CHECK_OK(shc_arena_release(&arena, refs[--n]));
    CHECK_OK(shc_arena_allocate(&arena, 64, &refs[n])); /* from what there is */
    while (n > 0)
        CHECK_OK(shc_arena_release(&arena, refs[--n]));
    shc_seg_leave(&seg, fix.dir_fd, NAME);
    shc_seg_unmap(&seg);
    g.initial = 40;
    CHECK_EQ(create(g), -ENOSPC);
    CHECK_EQ(scratch_count(&s, NULL), 0);
    scratch_close(&s);
}

TEST(a_full_file_system_is_told_by_allocate_and_kills_nobody)
{
    fill_a_file_system(SHC_OS_GROWS_BY_MAP);
}

TEST(a_full_file_system_is_told_by_the_descriptor_as_well)
{
    if (!fault_no_growth_by_map())
        T_SKIP("no seccomp filters here");
    fill_a_file_system(SHC_OS_GROWS_BY_FD);
}

TEST(where_nothing_can_be_reserved_apart_everything_is_at_create)
{
    if (!fault_no_growth_by_map() || !fault_deny(SYS_fallocate, 0, 0, EOPNOTSUPP))
        T_SKIP("no seccomp filters here");
    set_up();
    CHECK_GE(allocated(), 64 << 16);
    uint64_t before = allocated();
    shc_ref_t ref = allocate(60 << 16);
    memset(shc_arena_at(&arena, ref), 1, 60 << 16);
    CHECK_OK(shc_arena_release(&arena, ref));
    CHECK_EQ(shc_arena_cleanup(&arena, 0), 0);
    CHECK_EQ(allocated(), before);
    ref = allocate(60 << 16);
    CHECK_OK(shc_arena_release(&arena, ref));
    tear_down();
}
#endif

/* There and back, which takes 50 pages of memory that are not there yet. */
static void
grow_and_shrink(void)
{
    shc_ref_t ref = allocate(50 << 16);
    memset(shc_arena_at(&arena, ref), 1, 50 << 16);
    CHECK_OK(shc_arena_release(&arena, ref));
#ifndef SHC_OS_POSIX
    CHECK_GE(shc_arena_cleanup(&arena, 0), 50 << 16);
#endif
}

TEST(growth_after_the_name_is_gone)
{
    set_up();
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    CHECK_EQ(fix_count_files(), 0);
    grow_and_shrink();
    tear_down();
}

static int
lowest_free_descriptor(void)
{
    int fd = dup(STDERR_FILENO);
    CHECK_GE(fd, 0);
    (void)close(fd);
    return fd;
}

TEST(an_open_segment_takes_no_descriptor)
{
    other_t other;
    fix_open();
    int lowest = lowest_free_descriptor();
    CHECK_OK(create(usual));
    CHECK_EQ(lowest_free_descriptor(), lowest);
    join_other(&other);
    CHECK_EQ(lowest_free_descriptor(), lowest);
    CHECK_EQ(seg.fd, -1);
    CHECK_EQ(other.seg.fd, -1);
#ifdef SHC_OS_POSIX
    CHECK_EQ(seg.growth, SHC_OS_GROWS_NOT);
    CHECK_EQ(other.seg.growth, SHC_OS_GROWS_NOT);
#else
    CHECK_EQ(seg.growth, SHC_OS_GROWS_BY_MAP);
    CHECK_EQ(other.seg.growth, SHC_OS_GROWS_BY_MAP);
#endif
    leave_other(&other);
    tear_down();
}

TEST(growth_for_want_of_descriptors)
{
    set_up();
    rlim_t old = fault_no_descriptors();
    grow_and_shrink();
    fault_allow_descriptors(old);
    tear_down();
}

static void
close_all_and_grow(void *arg)
{
    (void)arg;
    for (int fd = STDERR_FILENO + 1; fd < 1000; fd++)
        (void)close(fd);
    grow_and_shrink();
}

TEST(growth_after_all_descriptors_were_closed_as_daemons_do)
{
    set_up();
    proc_join(proc_start(close_all_and_grow, NULL));
    tear_down();
}

TEST(a_copy_reserves_nothing_and_reads_zero_where_memory_was_given_back)
{
    shc_seg_t copy;
    set_up();
    shc_ref_t ref = allocate(65536);
    uint64_t at = arena.g.data;
    memset(shc_seg_at(&seg, at), 1, 65536);
    fix_guarded_t image = fix_guard(seg.id.size);
    memcpy(image.bytes, seg.base, at + 65536);
    uint64_t before = allocated();
    CHECK_OK(shc_seg_adopt(image.bytes, seg.id.size, &fix.self, &fix_arena_spec, &copy));
    CHECK(copy.is_copy && !seg.is_copy);
    CHECK_OK(shc_seg_reserve(&copy, at, 60 << 16));
    CHECK_EQ(allocated(), before);
    CHECK_OK(shc_seg_give_back(&copy, at + 1, 65534));
    const uint8_t *bytes = shc_seg_at(&copy, at);
    CHECK(bytes[0] == 1 && bytes[1] == 0 && bytes[65534] == 0 && bytes[65535] == 1);
    CHECK_EQ(allocated(), before);
    CHECK_EQ(*(const uint8_t *)shc_seg_at(&seg, at + 1), 1);
    fix_unguard(&image);
    CHECK_OK(shc_arena_release(&arena, ref));
    tear_down();
}

#ifndef SHC_OS_POSIX
/* Where the system cannot do without. */
TEST(a_descriptor_that_is_kept_is_given_back)
{
    other_t other;
    if (!fault_no_growth_by_map())
        T_SKIP("no seccomp filters here");
    fix_open();
    int lowest = lowest_free_descriptor();
    CHECK_OK(create(usual));
    join_other(&other);
    CHECK_EQ(seg.growth, SHC_OS_GROWS_BY_FD);
    CHECK_EQ(other.seg.growth, SHC_OS_GROWS_BY_FD);
    CHECK(seg.fd >= 0 && other.seg.fd >= 0 && seg.fd != other.seg.fd);
    grow_and_shrink();
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    grow_and_shrink();
    leave_other(&other);
    shc_arena_leave(&arena);
    fix_leave(&seg, NAME);
    CHECK_EQ(lowest_free_descriptor(), lowest);
    fix_close();
}

TEST(a_descriptor_that_was_closed_is_told_and_another_file_left_alone)
{
    shc_ref_t ref;
    if (!fault_no_growth_by_map())
        T_SKIP("no seccomp filters here");
    set_up();
    int fd = seg.fd;
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    (void)close(fd);
    CHECK_EQ(shc_arena_allocate(&arena, 50 << 16, &ref), -EBADF);
    fix_write_file("precious", "abc", 3);
    int stranger = openat(fix.dir_fd, "precious", O_RDWR | O_CLOEXEC);
    CHECK_EQ(stranger, fd);
    CHECK_EQ(shc_arena_allocate(&arena, 50 << 16, &ref), -EBADF);
    CHECK_EQ(shc_arena_cleanup(&arena, 0), 0); /* what cannot be given back stays */
    char text[4] = "";
    CHECK_EQ(fix_read_file("precious", text, 4), 3);
    CHECK_STR(text, "abc");
    CHECK_EQ(unlinkat(fix.dir_fd, "precious", 0), 0);
    (void)close(stranger);
    CHECK_EQ(dup2(copy, fd), fd);
    (void)close(copy);
    CHECK_OK(shc_arena_check(&arena));
    (void)allocate(50 << 16);
    tear_down();
}
#endif

TEST(limits_of_the_process_are_told_at_create)
{
    struct rlimit old, limit;
    fix_open();
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 1 << 20;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ(create(usual), -EFBIG);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(SHC_OS_POSIX)
    shc_arena_geometry_t g = usual;
    g.pages = 1 << 18; /* 16 GiB */
    CHECK_EQ(getrlimit(RLIMIT_AS, &old), 0);
    limit = old;
    limit.rlim_cur = UINT64_C(1) << 30;
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(create(g), -ENOMEM);
    CHECK_EQ(setrlimit(RLIMIT_AS, &old), 0);
#endif
    CHECK_EQ(fix_count_files(), 0);
    CHECK_OK(create(usual));
    tear_down();
}

/* ---- whose a block is ---- */

TEST(a_block_goes_from_hand_to_structure_and_on)
{
    other_t other;
    set_up();
    join_other(&other);
    for (int large = 0; large < 2; large++) {
        shc_ref_t ref = allocate(large ? 100000 : 300);
        CHECK_EQ(shc_arena_take(&arena, ref), SHC_E_STALE);
        CHECK_EQ(shc_arena_retire(&arena, ref), SHC_E_STALE);
        CHECK_EQ(shc_arena_release(&other.arena, ref), SHC_E_STALE); /* a foreign block */
        CHECK_EQ(shc_arena_attach(&other.arena, ref), SHC_E_STALE);
        CHECK_OK(shc_arena_attach(&arena, ref));
        CHECK_EQ(state_of(ref), SHC_ARENA_ATTACHED);
        CHECK_EQ(shc_arena_attach(&arena, ref), SHC_E_STALE);
        CHECK_EQ(shc_arena_release(&arena, ref), SHC_E_STALE);
        CHECK_OK(shc_arena_retire(&other.arena, ref));
        CHECK_EQ(state_of(ref), SHC_ARENA_RETIRING);
        CHECK_EQ(shc_arena_take(&arena, ref), SHC_E_STALE);
        CHECK_EQ(shc_arena_reclaim(&arena, ref), SHC_E_STALE);
        CHECK_OK(shc_arena_restore(&other.arena, ref));
        CHECK_OK(shc_arena_retire(&other.arena, ref));
        CHECK_OK(shc_arena_reclaim(&other.arena, ref));
        CHECK_OK(shc_arena_attach(&other.arena, ref));
        CHECK_OK(shc_arena_take(&arena, ref));
        CHECK_OK(shc_arena_release(&arena, ref));
    }
    CHECK_EQ(arena.outstanding, 0);
    CHECK_EQ(other.arena.outstanding, 0);
    leave_other(&other);
    tear_down();
}

/* ---- blocks on their way ---- */

static bool
is_owned_by(shc_ref_t ref, const shc_seg_t *who)
{
    uint32_t word;
    CHECK_OK(shc_arena_look(&arena, ref, &word));
    return shc_arena_state_of(word) == SHC_ARENA_OWNED && shc_arena_owner_of(word) == who->index + 1;
}

TEST(a_block_is_adopted_from_whoever_sent_it)
{
    other_t other;
    set_up();
    join_other(&other);
    for (int large = 0; large < 2; large++) {
        shc_ref_t ref = allocate(large ? 100000 : 300);
        memset(shc_arena_at(&arena, ref), 9, 300);
        CHECK_OK(shc_arena_adopt(&other.arena, ref)); /* OWNED by another */
        CHECK(is_owned_by(ref, &other.seg));
        CHECK_EQ(other.arena.outstanding, 1);
        CHECK_OK(shc_arena_adopt(&other.arena, ref)); /* once more: nothing is counted twice */
        CHECK_EQ(other.arena.outstanding, 1);
        CHECK_EQ(shc_arena_release(&arena, ref), SHC_E_STALE);
        CHECK_OK(shc_arena_attach(&other.arena, ref));
        CHECK_OK(shc_arena_adopt(&other.arena, ref)); /* ATTACHED */
        CHECK(is_owned_by(ref, &other.seg));
        CHECK_EQ(((uint8_t *)shc_arena_at(&arena, ref))[299], 9);
        CHECK_OK(shc_arena_release(&other.arena, ref));
        CHECK_EQ(other.arena.outstanding, 0);
        CHECK_EQ(shc_arena_adopt(&other.arena, ref), SHC_E_STALE); /* free, or in a magazine under another number */
        CHECK_EQ(shc_arena_adopt(&arena, ref), SHC_E_STALE);
    }
    /* What was sent counts as outstanding of its sender for good: leaving looks through all pages then. */
    CHECK_EQ(arena.outstanding, 2);
    leave_other(&other);
    tear_down();
}

TEST(a_block_in_any_other_state_is_not_adopted)
{
    other_t other;
    uint32_t record;
    set_up();
    join_other(&other);
    shc_ref_t lent = allocate(100000), retiring = allocate(100000), before = allocate(100000);
    CHECK_OK(shc_arena_lend(&arena, lent, &record));
    CHECK_OK(shc_arena_attach(&arena, retiring));
    CHECK_OK(shc_arena_retire(&arena, retiring));
    CHECK_OK(shc_arena_release(&arena, before));
    shc_ref_t again = allocate(100000);
    CHECK_EQ(again & SHC_ARENA_PLACE_MASK, before & SHC_ARENA_PLACE_MASK);
    const shc_ref_t refs[] = {lent,
                              retiring,
                              before, /* of the block's last life */
                              SHC_ARENA_NOTHING,
                              again | UINT64_C(1) << 53,
                              again | UINT64_C(1) << 63,
                              again + 1,
                              again + 65536 / SHC_ARENA_UNIT,
                              1,
                              SHC_ARENA_PLACE_MASK,
                              UINT64_MAX};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(refs); i++) {
        CHECK_EQ(shc_arena_adopt(&other.arena, refs[i]), SHC_E_STALE);
        shc_arena_settle(&other.arena, seg.index, refs[i]);
    }
    CHECK_EQ(other.arena.outstanding, 0);
    CHECK(is_owned_by(again, &seg));
    CHECK_EQ(state_of(lent), SHC_ARENA_LOANED);
    CHECK_EQ(state_of(retiring), SHC_ARENA_RETIRING);
    CHECK_OK(shc_arena_drop(&arena, lent, record));
    CHECK_OK(shc_arena_reclaim(&arena, retiring));
    CHECK_OK(shc_arena_release(&arena, retiring));
    CHECK_OK(shc_arena_release(&arena, again));
    leave_other(&other);
    tear_down();
}

TEST(settled_is_what_that_participant_owns_and_nothing_else)
{
    other_t other;
    shc_ref_t theirs, dropped;
    set_up();
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.arena, 100000, &theirs));
    CHECK_OK(shc_arena_allocate(&other.arena, 100000, &dropped));
    shc_ref_t mine = allocate(100000), small = allocate(64);
    uint32_t index = other.seg.index;
    shc_arena_settle(&arena, index, mine);
    shc_arena_settle(&arena, index, small);
    shc_arena_settle(&arena, index + 1, theirs);
    CHECK(is_owned_by(mine, &seg));
    CHECK(is_owned_by(small, &seg));
    CHECK(is_owned_by(theirs, &other.seg));
    shc_arena_settle(&arena, index, theirs);
    CHECK_EQ(state_of(theirs), SHC_ARENA_ATTACHED);
    shc_arena_settle(&arena, index, theirs); /* a sweep that begins again */
    CHECK_EQ(state_of(theirs), SHC_ARENA_ATTACHED);
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_arena_adopt(&arena, dropped), SHC_E_STALE);
    CHECK_OK(shc_arena_adopt(&arena, theirs));
    CHECK_OK(shc_arena_release(&arena, theirs));
    CHECK_OK(shc_arena_release(&arena, mine));
    CHECK_OK(shc_arena_release(&arena, small));
    CHECK_EQ(arena.outstanding, 0);
    tear_down();
}

TEST(an_arena_is_used_while_anything_is_in_anybodys_hands)
{
    other_t other;
    uint32_t record;
    set_up();
    CHECK(!shc_arena_is_used(&arena));
    CHECK(!shc_arena_is_fresh(&arena)); /* two pages were there from the beginning */
    join_other(&other);
    shc_ref_t ref = allocate(100000);
    CHECK(shc_arena_is_used(&other.arena));
    CHECK_OK(shc_arena_attach(&arena, ref));
    CHECK(shc_arena_is_used(&other.arena));
    CHECK_OK(shc_arena_take(&arena, ref));
    CHECK_OK(shc_arena_lend(&arena, ref, &record));
    CHECK(shc_arena_is_used(&other.arena));
    CHECK_OK(shc_arena_drop(&arena, ref, record));
    CHECK(!shc_arena_is_used(&other.arena));
    ref = allocate(64);
    CHECK(shc_arena_is_used(&other.arena));
    CHECK_OK(shc_arena_release(&arena, ref)); /* to the magazine */
    CHECK(shc_arena_is_used(&other.arena));
    shc_arena__flush_all(&arena);
    CHECK(!shc_arena_is_used(&other.arena)); /* a slab all of whose blocks are free */
    uint64_t before = page_word(2);
    shc_a64_store_relaxed(&arena.words[2], shc_arena_page(SHC_ARENA_MOVING, 1, shc_arena_state(1, 2, 0)));
    shc_a64_store_relaxed(&arena.shm->frontier, 3);
    CHECK(shc_arena_is_used(&other.arena));
    shc_a64_store_relaxed(&arena.words[2], UINT64_MAX); /* what nobody writes */
    CHECK(shc_arena_is_used(&other.arena));
    shc_a64_store_relaxed(&arena.words[2], shc_arena_page(SHC_ARENA_SLAB, 4000, 0));
    CHECK(shc_arena_is_used(&other.arena));
    shc_a64_store_relaxed(&arena.words[2], before);
    CHECK(!shc_arena_is_used(&other.arena));
    leave_other(&other);
    tear_down();
}

TEST(who_releases_a_block_keeps_it_in_its_own_magazine)
{
    enum {
        N = 100
    };
    other_t other;
    shc_ref_t refs[N];
    set_up();
    join_other(&other);
    for (int i = 0; i < N; i++) {
        refs[i] = allocate(64);
        CHECK_OK(shc_arena_attach(&arena, refs[i]));
    }
    for (int i = 0; i < N; i++) {
        CHECK_OK(shc_arena_take(&other.arena, refs[i]));
        CHECK_OK(shc_arena_release(&other.arena, refs[i]));
    }
    shc_arena_stats_t s = stats();
    CHECK_EQ(s.class[3].cached, arena.count[3] + other.arena.count[3]);
    CHECK_EQ(s.class[3].used, s.class[3].cached);
    CHECK_EQ(s.bytes_used, 0);
    CHECK_EQ(s.class[3].pages, 1);
    leave_other(&other);
    CHECK_EQ(stats().class[3].used, arena.count[3]);
    tear_down();
}

TEST(a_shortage_empties_the_magazines_of_the_others)
{
    shc_arena_geometry_t g = {.pages = 2, .initial = 2, .page_shift = SMALL_SHIFT};
    other_t other;
    shc_ref_t ref;
    set_up_with(g);
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.arena, 64, &ref));
    CHECK_OK(shc_arena_release(&other.arena, ref));
    CHECK_EQ(shc_arena_allocate(&arena, 2 * 4096, &ref), SHC_FULL);
    CHECK_OK(shc_arena_allocate(&other.arena, 128, &ref)); /* hears of it here */
    CHECK_EQ(other.arena.count[3], 0);
    CHECK_OK(shc_arena_release(&other.arena, ref));
    leave_other(&other);
    CHECK_OK(shc_arena_release(&arena, allocate(2 * 4096)));
    tear_down();
}

/* ---- the dead ---- */

TEST(what_a_dead_process_owned_comes_back)
{
    other_t other;
    shc_ref_t small, large, kept;
    set_up();
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.arena, 200, &small));
    CHECK_OK(shc_arena_allocate(&other.arena, 200000, &large));
    CHECK_OK(shc_arena_allocate(&other.arena, 200, &kept));
    CHECK_OK(shc_arena_attach(&other.arena, kept));
    uint32_t index = other.seg.index;
    CHECK(shc_arena_names(&arena, index));
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK(!shc_arena_names(&arena, index));
    CHECK_EQ(state_of(kept), SHC_ARENA_ATTACHED);
    CHECK_EQ(shc_arena_take(&arena, small), SHC_E_STALE);
    CHECK_EQ(shc_arena_release(&arena, large), SHC_E_STALE);
    CHECK_EQ(stats().bytes_used, shc_arena_class_size(shc_arena_class_of(200)));
    CHECK_OK(shc_arena_take(&arena, kept));
    CHECK_OK(shc_arena_release(&arena, kept));
    tear_down();
}

static bool
keep_even(void *arg, shc_ref_t ref)
{
    *(uint32_t *)arg += 1;
    return ref / 13 % 2 == 0;
}

TEST(the_structure_says_which_blocks_of_the_dead_it_refers_to)
{
    enum {
        N = 30
    };
    other_t other;
    shc_ref_t refs[N];
    uint32_t asked = 0;
    set_up();
    join_other(&other);
    for (int i = 0; i < N; i++) {
        CHECK_OK(shc_arena_allocate(&other.arena, i % 3 == 0 ? 100000 : 208, &refs[i]));
        if (i % 2 == 0) {
            CHECK_OK(shc_arena_attach(&other.arena, refs[i]));
            CHECK_OK(shc_arena_retire(&other.arena, refs[i]));
        }
    }
    uint32_t cached = other.arena.count[shc_arena_class_of(208)];
    shc_arena_sweep(&arena, other.seg.index, keep_even, &asked);
    CHECK_EQ(asked, N + cached);
    for (int i = 0; i < N; i++) {
        uint32_t word;
        bool even = refs[i] / 13 % 2 == 0;
        CHECK_EQ(shc_arena_look(&arena, refs[i], &word), even ? 0 : SHC_E_STALE);
        if (even) {
            CHECK_OK(shc_arena_take(&arena, refs[i]));
            CHECK_OK(shc_arena_release(&arena, refs[i]));
        }
    }
    shc_arena_sweep(&arena, other.seg.index, NULL, NULL); /* what the structure kept of the magazine */
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    tear_down();
}

/* Words as a process leaves them that is killed in between. */
TEST(halves_of_the_dead_are_finished_or_undone)
{
    shc_arena_geometry_t g = {.pages = 12, .initial = 12, .page_shift = SMALL_SHIFT};
    other_t other;
    set_up_with(g);
    join_other(&other);
    uint32_t dead = other.seg.index + 1;
    shc_ref_t mine = allocate(64);
    uint64_t rest = page_word(1);
    CHECK(shc_arena__is_free_run(rest));
    CHECK_EQ(shc_arena_length_of(rest), 11);
    uint32_t owned = shc_arena_state(SHC_ARENA_OWNED, dead, 5);
    shc_a64_store_relaxed(&arena.words[1], shc_arena_page(SHC_ARENA_MOVING, 3, owned)); /* giving back */
    shc_a64_store_relaxed(&arena.words[2], UINT64_C(0xdead) << 47 | 7);                 /* covered: means nothing */
    shc_a64_store_relaxed(&arena.words[4], shc_arena_page(SHC_ARENA_MOVING, 1, owned)); /* reserving */
    shc_a64_store_relaxed(&arena.words[5], shc_arena_page(SHC_ARENA_RUN, 2, owned));    /* claimed */
    uint64_t open = shc_arena_page(SHC_ARENA_SLAB, 3, shc_arena_state(SHC_ARENA_FREE, 0, 9));
    shc_a64_store_relaxed(&arena.words[7], (open & ~(UINT64_C(0x7fff) << 32)) | (uint64_t)(owned & 0x7fff) << 32);
    shc_a64_store_relaxed(&arena.words[8], shc_arena_page(SHC_ARENA_RUN, 4, shc_arena_state(SHC_ARENA_ATTACHED, 0, 1)));
    for (uint32_t i = 0; i < arena.class[3].count; i++)
        shc_a32_store_relaxed(&shc_arena__states(&arena, 7, 3)[i], shc_arena_state(SHC_ARENA_OWNED, dead, i));
    shc_a64_store_relaxed(&arena.parties[dead - 1].page, 8);
    CHECK_OK(shc_arena_check(&arena));
    CHECK(shc_arena_names(&arena, dead - 1));
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK(!shc_arena_names(&arena, dead - 1));
    for (uint32_t i = 1; i < 5; i++)
        CHECK_EQ(shc_arena_kind_of(page_word(i)), SHC_ARENA_UNBACKED);
    CHECK_EQ(page_word(5), shc_arena__run(SHC_ARENA_FREE, 0, 6, 2));
    CHECK_EQ(page_word(7), open);
    for (uint32_t i = 0; i < arena.class[3].count; i++)
        CHECK_EQ(shc_a32_load_relaxed(&shc_arena__states(&arena, 7, 3)[i]), shc_arena_state(SHC_ARENA_FREE, 0, i + 1));
    CHECK_OK(shc_arena_check(&arena));
    CHECK_OK(shc_arena_release(&arena, mine));
    tear_down();
}

TEST(the_last_generation_of_a_dead_process_comes_back_too)
{
    other_t other;
    shc_ref_t small, large;
    uint32_t last = SHC_ARENA_GENERATION_MASK;
    set_up();
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.arena, 64, &small));
    CHECK_OK(shc_arena_allocate(&other.arena, 65536, &large));
    for (int i = 0; i < 2; i++) {
        shc_arena_place_t place;
        uint32_t word = shc_arena_state(SHC_ARENA_OWNED, other.seg.index + 1, last);
        CHECK_OK(shc_arena__locate(&arena, i == 0 ? small : large, &place));
        CHECK(shc_arena__change(&arena, &place, shc_arena__load(&arena, &place), word));
    }
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(stats().bytes_used, 0);
    CHECK_EQ(stats().class[3].used, 0);
    tear_down();
}

TEST(a_slab_in_which_somebody_is_at_work_is_not_emptied)
{
    other_t other;
    shc_arena_geometry_t g = {.pages = 1, .initial = 1, .page_shift = SMALL_SHIFT};
    set_up_with(g);
    join_other(&other);
    CHECK_OK(shc_arena_release(&arena, allocate(64)));
    shc_a64_store_relaxed(&other.arena.parties[other.seg.index].page, 1);
    (void)shc_arena_cleanup(&arena, UINT64_MAX);
    CHECK(shc_arena__is_open_slab(page_word(0)));
    CHECK_EQ(stats().class[3].used, 0);
    CHECK_OK(shc_arena_release(&arena, allocate(64))); /* and serves as before */
    shc_a64_store_relaxed(&other.arena.parties[other.seg.index].page, 0);
    (void)shc_arena_cleanup(&arena, UINT64_MAX);
    CHECK(shc_arena__is_free_run(page_word(0)));
    leave_other(&other);
    tear_down();
}

TEST(a_process_that_leaves_gives_everything_back)
{
    other_t other;
    shc_ref_t ref;
    uint32_t record;
    set_up();
    join_other(&other);
    for (int i = 0; i < 40; i++)
        CHECK_OK(shc_arena_allocate(&other.arena, (uint64_t)i * 1000, &ref));
    CHECK_OK(shc_arena_lend(&other.arena, ref, &record));
    uint32_t index = other.seg.index;
    leave_other(&other);
    CHECK(!shc_arena_names(&arena, index));
    CHECK_EQ(stats().bytes_used, 0);
    CHECK_EQ(stats().records, 0);
    tear_down();
}

static void
fork_and_grow(void)
{
    set_up();
    shc_ref_t mine = allocate(64);
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0) {
        CHECK_OK(shc_seg_rejoin(&seg));
        fix_arena_open(&arena, &seg);
        CHECK_EQ(shc_arena_release(&arena, mine), SHC_E_STALE);
        shc_ref_t own = allocate(64), large = allocate(30 << 16);
        memset(shc_arena_at(&arena, large), 1, 30 << 16);
        CHECK_OK(shc_arena_release(&arena, own));
        CHECK_OK(shc_arena_release(&arena, large));
        shc_arena_leave(&arena);
        shc_seg_leave(&seg, fix.dir_fd, NAME);
        _exit(0);
    }
    CHECK_EQ(t_wait(pid), 0);
    CHECK_OK(shc_arena_release(&arena, mine));
    tear_down();
}

TEST(a_forked_child_has_magazines_of_its_own_and_grows)
{
    fork_and_grow();
}

#ifndef SHC_OS_POSIX
TEST(a_forked_child_grows_by_the_descriptor_that_it_has_inherited)
{
    if (!fault_no_growth_by_map())
        T_SKIP("no seccomp filters here");
    fork_and_grow();
}
#endif

/* ---- what others do while the chain is walked ---- */

static struct {
    other_t other; /* grows in the middle of a sweep */
    shc_ref_t grown;
    uint64_t pages;
} during;

static bool
grow_and_keep_nothing(void *arg, shc_ref_t ref)
{
    (void)arg;
    (void)ref;
    if (during.grown == SHC_ARENA_NOTHING) {
        CHECK_OK(shc_arena_allocate(&during.other.arena, during.pages * 4096, &during.grown));
        memset(shc_arena_at(&during.other.arena, during.grown), 0xaa, during.pages * 4096);
    }
    return false;
}

/* Somebody dies with one page, and with words of its own under a free run at the end of the arena. While that page is
 * swept the run becomes part of a larger one, whose pages are nobody's business. */
static void
sweep_while_somebody_grows(uint32_t initial, bool one_by_one)
{
    shc_arena_geometry_t g = {.pages = 64, .initial = initial, .page_shift = SMALL_SHIFT};
    other_t dead;
    shc_ref_t ref, four[4];
    shc_arena_t sweeper;
    memset(&during, 0, sizeof during);
    during.pages = 8;
    set_up_with(g);
    join_other(&dead);
    join_other(&during.other);
    CHECK_OK(shc_arena_allocate(&dead.arena, 4096, &ref));
    for (int i = 0; one_by_one && i < 4; i++)
        CHECK_OK(shc_arena_allocate(&dead.arena, 4096, &four[i]));
    for (int i = 0; one_by_one && i < 4; i++)
        CHECK_OK(shc_arena_release(&dead.arena, four[i]));
    CHECK_OK(shc_arena_allocate(&dead.arena, 4 * 4096, &ref));
    CHECK_OK(shc_arena_release(&dead.arena, ref));
    fix_arena_open(&sweeper, &seg);
    shc_arena_sweep(&sweeper, dead.seg.index, grow_and_keep_nothing, NULL);
    const uint8_t *bytes = shc_arena_at(&arena, during.grown);
    uint32_t first = (uint32_t)((during.grown & SHC_ARENA_PLACE_MASK) * 16 - arena.g.data) / 4096;
    CHECK_EQ(first, 1);
    CHECK_EQ(shc_arena_length_of(page_word(first)), 8);
    for (uint32_t i = 1; i < 8; i++) {
        CHECK_EQ(bytes[i * 4096], 0xaa);
        CHECK_EQ(shc_arena__generation(page_word(first + i)), i < 4 && one_by_one ? 1 : 0); /* as before */
    }
    CHECK(!shc_arena_names(&arena, dead.seg.index));
    kill_other(&dead);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    leave_other(&during.other);
    tear_down();
}

TEST(a_sweep_leaves_a_run_alone_that_grows_over_the_frontier)
{
    sweep_while_somebody_grows(5, true);  /* over words that say RUN */
    sweep_while_somebody_grows(1, false); /* and MOVING */
}

TEST(who_removes_the_name_only_leaves_the_dead_to_be_swept)
{
    shc_arena_geometry_t g = {.pages = 8, .initial = 5, .page_shift = SMALL_SHIFT};
    other_t others[FIX_PARTICIPANTS - 1];
    shc_ref_t ref;
    set_up_with(g);
    for (uint32_t i = 0; i < FIX_PARTICIPANTS - 1; i++)
        join_other(&others[i]);
    CHECK_OK(shc_arena_allocate(&others[0].arena, 4 * 4096, &ref));
    for (uint32_t i = 0; i < FIX_PARTICIPANTS - 1; i++)
        kill_other(&others[i]);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    CHECK(shc_arena_names(&arena, others[0].seg.index));
    CHECK_EQ(shc_seg_reap_participants(&seg), FIX_PARTICIPANTS - 1);
    CHECK(!shc_arena_names(&arena, others[0].seg.index));
    CHECK_OK(shc_arena_release(&arena, allocate(8 * 4096)));
    tear_down();
}

/* ---- blocks that several hold ---- */

TEST(the_last_holder_frees_the_block)
{
    other_t other;
    set_up();
    join_other(&other);
    for (int large = 0; large < 2; large++) {
        uint32_t a, b, c;
        shc_ref_t ref = allocate(large ? 70000 : 70);
        CHECK_EQ(shc_arena_hold(&other.arena, ref, &b), SHC_E_STALE); /* not lent */
        CHECK_EQ(shc_arena_lend(&other.arena, ref, &b), SHC_E_STALE); /* not its own */
        CHECK_OK(shc_arena_lend(&arena, ref, &a));
        CHECK_EQ(shc_arena_lend(&arena, ref, &b), SHC_E_STALE);
        CHECK_EQ(shc_arena_release(&arena, ref), SHC_E_STALE);
        CHECK_OK(shc_arena_hold(&other.arena, ref, &b));
        CHECK_OK(shc_arena_hold(&other.arena, ref, &c));
        CHECK_NE(b, c);
        CHECK_EQ(stats().records, 3);
        CHECK_OK(shc_arena_check(&arena));
        CHECK_OK(shc_arena_drop(&arena, ref, a));
        CHECK_EQ(shc_arena_drop(&arena, ref, a), SHC_E_STALE);
        CHECK_EQ(state_of(ref), SHC_ARENA_LOANED);
        CHECK_OK(shc_arena_drop(&other.arena, ref, b));
        CHECK_OK(shc_arena_hold(&arena, ref, &a)); /* there is still one to get it from */
        CHECK_OK(shc_arena_drop(&other.arena, ref, c));
        CHECK_EQ(state_of(ref), SHC_ARENA_LOANED);
        CHECK_OK(shc_arena_drop(&arena, ref, a));
        CHECK_EQ(shc_arena_hold(&arena, ref, &a), SHC_E_STALE);
        CHECK_EQ(stats().records, 0);
        CHECK_EQ(stats().bytes_used, 0);
    }
    CHECK_EQ(shc_arena_drop(&arena, 0, 0), SHC_E_STALE);
    CHECK_EQ(shc_arena_drop(&arena, 1, 1000000), SHC_E_STALE);
    CHECK_EQ(arena.outstanding, 0);
    leave_other(&other);
    tear_down();
}

TEST(a_dead_holder_lets_go_and_the_living_keep)
{
    other_t other;
    uint32_t a, b;
    set_up();
    join_other(&other);
    shc_ref_t both = allocate(70), only = allocate(70000);
    CHECK_OK(shc_arena_lend(&arena, both, &a));
    CHECK_OK(shc_arena_hold(&other.arena, both, &b));
    CHECK_OK(shc_arena_lend(&arena, only, &b));
    CHECK_OK(shc_arena_hold(&other.arena, only, &b));
    CHECK_OK(shc_arena_drop(&arena, only, 1));
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(state_of(both), SHC_ARENA_LOANED);
    CHECK_EQ(shc_arena_hold(&arena, only, &b), SHC_E_STALE);
    CHECK_EQ(stats().records, 1);
    CHECK_OK(shc_arena_drop(&arena, both, a));
    CHECK_EQ(stats().bytes_used, 0);
    tear_down();
}

TEST(a_block_that_a_dead_process_was_closing_is_held_or_freed)
{
    other_t other;
    uint32_t a;
    set_up();
    join_other(&other);
    uint32_t dead = other.seg.index + 1;
    shc_ref_t refs[3] = {allocate(70), allocate(70000), allocate(70)};
    for (int i = 0; i < 3; i++) {
        shc_arena_place_t place;
        uint32_t g = shc_arena_ref_generation(refs[i]);
        CHECK_OK(shc_arena_lend(&arena, refs[i], &a));
        CHECK_OK(shc_arena_hold(&other.arena, refs[i], &a));
        CHECK_OK(shc_arena__locate(&arena, refs[i], &place));
        CHECK(shc_arena__change(&arena, &place, shc_arena_state(SHC_ARENA_LOANED, 0, g),
                                shc_arena_state(SHC_ARENA_CLOSING, dead, g)));
        shc_a64_store_relaxed(shc_arena__record(&arena, dead - 1, a), refs[i] | SHC_ARENA_LEAVING);
    }
    CHECK_OK(shc_arena_check(&arena));
    CHECK_OK(shc_arena_drop(&arena, refs[0], 0));  /* takes the closing over: the last one */
    CHECK_OK(shc_arena_hold(&arena, refs[1], &a)); /* takes it back */
    CHECK_EQ(state_of(refs[1]), SHC_ARENA_LOANED);
    CHECK_EQ(state_of(refs[2]), SHC_ARENA_CLOSING);
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_arena_hold(&arena, refs[0], &a), SHC_E_STALE);
    CHECK_EQ(state_of(refs[1]), SHC_ARENA_LOANED);
    CHECK_EQ(state_of(refs[2]), SHC_ARENA_LOANED);
    CHECK(!shc_arena_names(&arena, dead - 1));
    CHECK_OK(shc_arena_check(&arena));
    tear_down();
}

TEST(a_message_holds_a_block_until_it_is_collected)
{
    other_t other;
    uint64_t ticket, copy;
    uint32_t a, b;
    set_up();
    join_other(&other);
    for (int large = 0; large < 2; large++) {
        shc_ref_t ref = allocate(large ? 70000 : 70);
        CHECK_EQ(shc_arena_post(&arena, ref, &ticket), SHC_E_STALE); /* not lent */
        CHECK_OK(shc_arena_lend(&arena, ref, &a));
        CHECK_OK(shc_arena_post(&arena, ref, &ticket));
        CHECK_OK(shc_arena_drop(&arena, ref, a)); /* before anybody has received it */
        CHECK_EQ(state_of(ref), SHC_ARENA_LOANED);
        CHECK_OK(shc_arena_check(&arena));
        CHECK_OK(shc_arena_collect(&other.arena, ref, ticket, &b));
        CHECK_EQ(stats().records, 1);
        CHECK_EQ(shc_arena_unpost(&arena, ref, ticket), SHC_E_STALE);
        CHECK_OK(shc_arena_collect(&arena, ref, ticket, &a)); /* a copy of the message: one more holder */
        CHECK_EQ(stats().records, 2);
        CHECK_OK(shc_arena_post(&other.arena, ref, &copy)); /* and one for another message: not the old one's */
        CHECK_OK(shc_arena_drop(&arena, ref, a));
        CHECK_OK(shc_arena_drop(&other.arena, ref, b));
        CHECK_OK(shc_arena_collect(&arena, ref, ticket, &a));
        CHECK_EQ(stats().records, 2);
        CHECK_OK(shc_arena_drop(&arena, ref, a));
        CHECK_EQ(shc_arena_unpost(&arena, ref, copy), SHC_E_STALE); /* not its own */
        CHECK_OK(shc_arena_unpost(&other.arena, ref, copy));
        CHECK_EQ(shc_arena_unpost(&other.arena, ref, copy), SHC_E_STALE);
        CHECK_EQ(shc_arena_collect(&arena, ref, copy, &a), SHC_E_STALE); /* nobody holds it any more */
        CHECK_EQ(shc_arena_collect(&arena, ref, UINT64_MAX, &a), SHC_E_STALE);
        CHECK_EQ(stats().records, 0);
        CHECK_EQ(stats().bytes_used, 0);
    }
    leave_other(&other);
    tear_down();
}

TEST(a_message_of_a_dead_sender_holds_nothing)
{
    other_t other;
    uint64_t ticket;
    uint32_t record;
    shc_ref_t ref, got;
    set_up();
    join_other(&other);
    CHECK_OK(shc_arena_allocate(&other.arena, 70, &ref));
    CHECK_OK(shc_arena_lend(&other.arena, ref, &record));
    CHECK_OK(shc_arena_post(&other.arena, ref, &ticket));
    CHECK_OK(shc_arena_allocate(&other.arena, 70, &got));
    CHECK_OK(shc_arena_lend(&other.arena, got, &record));
    CHECK_OK(shc_arena_post(&other.arena, got, &ticket));
    CHECK_OK(shc_arena_collect(&arena, got, ticket, &record));
    kill_other(&other);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    CHECK_EQ(shc_arena_hold(&arena, ref, &record), SHC_E_STALE);
    CHECK_EQ(state_of(got), SHC_ARENA_LOANED);
    CHECK_EQ(stats().records, 1);
    tear_down();
}

TEST(an_old_message_of_the_last_holder_of_a_slot_leaves_the_next_ones_alone)
{
    other_t old, next;
    uint64_t before, after;
    uint32_t mine, k, first;
    set_up();
    join_other(&old);
    shc_ref_t ref = allocate(70);
    CHECK_OK(shc_arena_lend(&arena, ref, &mine));
    CHECK_OK(shc_arena_hold(&old.arena, ref, &first));
    CHECK_OK(shc_arena_post(&old.arena, ref, &before)); /* is on its way */
    kill_other(&old);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    join_other(&next);
    CHECK_EQ(next.seg.index, old.seg.index);
    CHECK_OK(shc_arena_hold(&next.arena, ref, &first));
    CHECK_OK(shc_arena_post(&next.arena, ref, &after));
    CHECK_EQ(before >> 9, after >> 9); /* the same record */
    CHECK_OK(shc_arena_collect(&arena, ref, before, &k));
    CHECK_EQ(stats().records, 4);
    CHECK_OK(shc_arena_drop(&arena, ref, k));
    CHECK_OK(shc_arena_drop(&arena, ref, mine));
    CHECK_OK(shc_arena_drop(&next.arena, ref, first));
    CHECK_OK(shc_arena_collect(&arena, ref, after, &k)); /* it still holds its block */
    CHECK_OK(shc_arena_drop(&arena, ref, k));
    CHECK_EQ(stats().records, 0);
    leave_other(&next);
    tear_down();
}

TEST(records_run_out_and_come_back)
{
    static uint32_t records[1000];
    uint32_t more;
    set_up();
    shc_ref_t ref = allocate(64), other = allocate(64);
    CHECK_OK(shc_arena_lend(&arena, ref, &records[0]));
    for (uint32_t i = 1; i < 1000; i++)
        CHECK_OK(shc_arena_hold(&arena, ref, &records[i]));
    CHECK_EQ(shc_arena_hold(&arena, ref, &more), SHC_E_LEASES);
    CHECK_EQ(shc_arena_lend(&arena, other, &more), SHC_E_LEASES);
    CHECK_OK(shc_arena_release(&arena, other));
    CHECK_OK(shc_arena_drop(&arena, ref, records[500]));
    CHECK_OK(shc_arena_hold(&arena, ref, &more));
    CHECK_EQ(more, records[500]);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK_OK(shc_arena_drop(&arena, ref, records[i]));
    CHECK_EQ(stats().records, 0);
    tear_down();
    shc_arena_geometry_t g = usual;
    g.records = 0;
    set_up_with(g);
    ref = allocate(64);
    CHECK_EQ(shc_arena_lend(&arena, ref, &more), SHC_E_LEASES);
    CHECK_EQ(state_of(ref), SHC_ARENA_OWNED);
    tear_down();
}

/* ---- what no correct process writes ---- */

TEST(check_finds_words_that_cannot_be)
{
    shc_arena_geometry_t g = {.pages = 12, .initial = 12, .page_shift = SMALL_SHIFT, .records = 10};
    set_up_with(g);
    (void)allocate(64);
    (void)allocate(3 * 4096);
    uint64_t run = page_word(1), slab = page_word(0);
    const uint64_t bad[] = {run | 4,
                            (run & ~UINT64_C(0xffffff00)) | (UINT64_C(12) << 8),
                            run & ~UINT64_C(0xffffff00),
                            run | 8,
                            run | UINT64_C(7) << 32,
                            run | UINT64_C(0xfff) << 35,
                            run & ~(UINT64_C(0xfff) << 35),
                            UINT64_C(1) << 32,
                            1 << 8,
                            SHC_ARENA_MOVING | (3 << 8),
                            SHC_ARENA_SLAB | (SHC_ARENA_CLASSES << 8),
                            shc_arena__run(SHC_ARENA_LOANED, 0, 0, 3),
                            shc_arena__run(SHC_ARENA_CLOSING, 1, 0, 3)};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(bad); i++) {
        shc_a64_store_relaxed(&arena.words[1], bad[i]);
        CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
        shc_a64_store_relaxed(&arena.words[1], run);
        CHECK_OK(shc_arena_check(&arena));
    }
    shc_a64_store_relaxed(&arena.words[0], slab | 8);
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&arena.words[0], slab);
    shc_a32_t *state = &shc_arena__states(&arena, 0, 3)[5];
    uint32_t word = shc_a32_load_relaxed(state);
    const uint32_t bad_states[] = {6, 7, 1, 2 | 8, (0xfff << 3) | 1, 4, 5 | 8};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(bad_states); i++) {
        shc_a32_store_relaxed(state, bad_states[i]);
        CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
        shc_a32_store_relaxed(state, word);
    }
    CHECK_OK(shc_arena_check(&arena));
    arena.shm->pad0[3] = 1;
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    arena.shm->pad0[3] = 0;
    arena.shm->pad1[3] = 1;
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    arena.shm->pad1[3] = 0;
    arena.parties[3].spare[12] = 1;
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    arena.parties[3].spare[12] = 0;
    shc_a32_store_relaxed(&arena.parties[2].records, 11);
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    shc_a32_store_relaxed(&arena.parties[2].records, 0);
    shc_a64_store_relaxed(&arena.shm->frontier, 13);
    CHECK_EQ(shc_arena_check(&arena), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&arena.shm->frontier, 12);
    tear_down();
}

TEST(a_sweep_ends_at_a_word_that_cannot_be)
{
    shc_arena_geometry_t g = {.pages = 8, .initial = 8, .page_shift = SMALL_SHIFT};
    uint64_t lengths = UINT64_C(0xffffff) << 8;
    other_t other;
    set_up_with(g);
    join_other(&other);
    shc_ref_t run = allocate(4 * 4096);
    uint64_t word = page_word(0), old = shc_arena__run(SHC_ARENA_OWNED, other.seg.index + 1, 1, 1);
    for (uint32_t i = 1; i < 4; i++) /* as if it had had these pages once */
        shc_a64_store_relaxed(&arena.words[i], old);
    const uint64_t bad[] = {word & ~lengths, word | lengths, (word & ~UINT64_C(7)) | 4, word | 7};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(bad); i++) {
        shc_a64_store_relaxed(&arena.words[0], bad[i]);
        shc_arena_sweep(&arena, other.seg.index, NULL, NULL);
        CHECK(!shc_arena_names(&arena, other.seg.index));
        for (uint32_t k = 1; k < 4; k++)
            CHECK_EQ(page_word(k), old);
    }
    shc_a64_store_relaxed(&arena.words[0], word);
    CHECK_OK(shc_arena_release(&arena, run));
    leave_other(&other);
    tear_down();
}

/* Everything that is called with whatever lies there: a status, no crash, no endless loop. */
static void
use_whatever_is_there(shc_arena_t *a, uint64_t *rng)
{
    shc_arena_stats_t s;
    shc_ref_t held[8];
    uint32_t n = 0, record;
    for (int i = 0; i < 8; i++) {
        int r = shc_arena_allocate(a, t_random(rng) % 20000, &held[n]);
        if (r == 0 && shc_arena_at(a, held[n]) != NULL)
            n++;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (i % 4 == 0 && shc_arena_lend(a, held[i], &record) == 0)
            (void)!shc_arena_drop(a, held[i], record);
        else if (i % 4 == 1 && shc_arena_attach(a, held[i]) == 0)
            (void)!shc_arena_take(a, held[i]);
        (void)!shc_arena_release(a, held[i]);
    }
    (void)!shc_arena_check(a);
    (void)!shc_arena_stats(a, &s);
    (void)shc_arena_names(a, 1);
    shc_arena_sweep(a, 1, NULL, NULL);
    (void)shc_arena_cleanup(a, 3 * 4096);
    (void)!shc_arena_hold(a, t_random(rng), &record);
    (void)!shc_arena_release(a, (arena.g.data / 16) + t_random(rng) % 4096);
}

TEST_LIMIT(whatever_lies_in_shared_memory_nothing_is_touched_outside, 60)
{
    shc_arena_geometry_t g = {.pages = 24, .initial = 8, .page_shift = SMALL_SHIFT, .growth = 50, .records = 20};
    uint64_t rng = t_seed();
    set_up_with(g);
    for (int i = 0; i < 30; i++)
        (void)allocate((uint64_t)i * 40);
    fix_guarded_t image = fix_guard(seg.id.size);
    for (uint64_t round = 0; round < t_scaled(3000); round++) {
        shc_seg_t copy;
        shc_arena_t over;
        memcpy(image.bytes, seg.base, seg.id.size);
        CHECK_OK(shc_seg_adopt(image.bytes, seg.id.size, &fix.self, &fix_arena_spec, &copy));
        fix_arena_open(&over, &copy);
        uint32_t hits = 1 + (uint32_t)(t_random(&rng) % 20);
        for (uint32_t i = 0; i < hits; i++) {
            static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << 31, UINT64_C(1) << 63, 0xff, 3, 2};
            uint64_t where = i % 2 == 0 ? arena.g.words + t_random(&rng) % 192 : arena.g.at + t_random(&rng) % 8192;
            uint64_t what = t_random(&rng) % 2 ? t_random(&rng) : values[t_random(&rng) % SHC_ARRAY_SIZE(values)];
            if (i % 5 == 4)
                where = arena.g.data + t_random(&rng) % (24 * 4096 - 8);
            memcpy(image.bytes + (where & ~UINT64_C(7)), &what, 8);
        }
        use_whatever_is_there(&over, &rng);
    }
    fix_unguard(&image);
    tear_down();
}

/* ---- and beside somebody who never stops writing it ---- */

typedef struct scribbler {
    pthread_t thread;
    shc_a32_t over;
    uint64_t rng;
    uint8_t *image;
} scribbler_t;

static void *
scribble(void *arg)
{
    scribbler_t *s = arg;
    while (shc_a32_load_relaxed(&s->over) == 0) {
        uint64_t dice = t_random(&s->rng), size = arena.g.end - arena.g.at;
        uint64_t at = dice % 4 == 0 ? arena.g.words + (dice >> 8) % 192 : arena.g.at + (dice >> 8) % size;
        shc_a64_t *word = (shc_a64_t *)(void *)(s->image + (at & ~UINT64_C(7)));
        shc_a64_store_relaxed(word, dice & 0x80 ? t_random(&s->rng) : dice >> 60);
        if (dice % 16 == 0)
            shc_os_yield();
    }
    return NULL;
}

TEST_LIMIT(an_arena_beside_a_scribbler, 120)
{
    shc_arena_geometry_t g = {.pages = 24, .initial = 8, .page_shift = SMALL_SHIFT, .growth = 50, .records = 20};
    uint64_t rng = t_seed();
#if SHC_TSAN
    T_SKIP("a scribbler is a data race on purpose");
#endif
    set_up_with(g);
    fix_guarded_t image = fix_guard(seg.id.size);
    for (uint64_t round = 0; round < t_scaled(1000); round++) {
        shc_seg_t copy;
        shc_arena_t over;
        scribbler_t s = {.rng = t_random(&rng), .image = image.bytes};
        memcpy(image.bytes, seg.base, seg.id.size);
        CHECK_OK(shc_seg_adopt(image.bytes, seg.id.size, &fix.self, &fix_arena_spec, &copy));
        fix_arena_open(&over, &copy);
        CHECK_EQ(pthread_create(&s.thread, NULL, scribble, &s), 0);
        for (int i = 0; i < 10; i++)
            use_whatever_is_there(&over, &rng);
        shc_a32_store_relaxed(&s.over, 1);
        CHECK_EQ(pthread_join(s.thread, NULL), 0);
    }
    fix_unguard(&image);
    tear_down();
}
