/* The allocator as it grows: the same operations in arenas of 64 MiB and 4 GiB that are empty, largely in use, or full
 * of holes, and with 100 to 1,000,000 blocks alive. Rows are named OPERATION@WHERE; those of one operation are to be
 * compared with each other: `make -C csrc growth`.
 *
 * The file is sparse and memory is reserved by nobody (the handle has no descriptor), so 4 GiB in use cost what is
 * touched: the words of the allocator. What the system takes for memory is no matter of how much there is. */
#include "runner.h"
#include "seg/shc_arena.h"

#include <stdlib.h>
#include <string.h>

#define KIND 0xfffffffeu /* none of the product's: an arena by itself */
#define MIB (UINT64_C(1) << 20)
#define PAGE_SHIFT 16u
#define PAGE (UINT64_C(1) << PAGE_SHIFT)

typedef enum state {
    EMPTY,
    USED,  /* all but the end: 15 pages of a run, a page of small blocks, and so on */
    HOLES, /* the same, then every other run is released, and of the small blocks all but a few of every page */
} state_t;

static shc_seg_t seg;
static shc_arena_geometry_t geometry;
static shc_arena_t arena;
static uint64_t rng;

/* What was made last: operations come one after the other, each with a scene of its own. */
static struct {
    uint64_t bytes;
    state_t state;
    uint64_t live;
    uint64_t size;
    uint32_t growth;
    shc_ref_t *refs; /* of those alive */
    uint64_t n;
} scene;

static const shc_layout_row_t rows[] = {SHC_ARENA_LAYOUT(SHC_LAYOUT_ROW, shc_arena_shm_t)         /* */
                                        SHC_ARENA_MAP_LAYOUT(SHC_LAYOUT_ROW, shc_arena_map_shm_t) /* */
                                        SHC_ARENA_PARTY_LAYOUT(SHC_LAYOUT_ROW, shc_arena_party_shm_t)};

static int
validate(const shc_seg_id_t *id)
{
    (void)id; /* nobody else attaches */
    return 0;
}

static void
init(shc_seg_t *made)
{
    shc_arena_init(made, &geometry);
}

static const shc_seg_spec_t spec = {.kind = KIND,
                                    .rows = rows,
                                    .row_count = SHC_ARRAY_SIZE(rows),
                                    .body_align = UINT64_C(1) << SHC_ARENA_PAGE_SHIFT_MAX,
                                    .grows = true,
                                    .validate = validate};

static uint64_t
random_below(uint64_t n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (rng >> 33) * n >> 31;
}

/* ---- scenes ---- */

static void
close_scene(void)
{
    if (scene.bytes == 0)
        return;
    BENCH_OK(shc_arena_check(&arena));
    for (uint64_t i = 0; i < scene.n; i++)
        BENCH_OK(shc_arena_release(&arena, scene.refs[i]));
    shc_arena_leave(&arena);
    bench_close(&seg);
    free(scene.refs);
    memset(&scene, 0, sizeof scene);
}

static void
open_arena(uint64_t bytes, uint32_t growth)
{
    shc_seg_create_args_t args = {.participants = 16, .mode = 0600};
    uint64_t body;
    BENCH_OK(shc_seg_size_for(&spec, &args, &body));
    geometry = (shc_arena_geometry_t){.at = body,
                                      .pages = (uint32_t)(bytes >> PAGE_SHIFT),
                                      .page_shift = PAGE_SHIFT,
                                      .growth = growth,
                                      .records = 512,
                                      .participants = args.participants};
    BENCH_OK(shc_arena_lay_out(&geometry));
    args.body_size = geometry.end - body;
    shc_arena_reservation(&geometry, body, args.reserved);
    bench_create(&spec, &args, init, &seg);
    shc_os_close(seg.fd);
    seg.fd = -1; /* reserves nothing */
    shc_arena_open(&arena, &seg, &geometry);
    rng = 1;
    scene.bytes = bytes;
}

static void
keep(uint64_t size)
{
    BENCH_OK(shc_arena_allocate(&arena, size, &scene.refs[scene.n]));
    scene.n++;
}

/* All but the last 32 MiB, or a quarter of what is smaller. */
static void
use_most(void)
{
    uint64_t rest = scene.bytes / 4 < 32 * MIB ? scene.bytes / 4 : 32 * MIB;
    uint64_t pages = (scene.bytes - rest) >> PAGE_SHIFT;
    scene.refs = malloc((pages / 16 + 1) * 1100 * sizeof *scene.refs);
    BENCH_CHECK(scene.refs != NULL);
    for (uint64_t group = 0; group < pages / 16; group++) {
        for (unsigned i = 0; i < 15; i++)
            keep(PAGE);
        for (unsigned i = 0; i < 960; i++) /* a page of 64 bytes each */
            keep(64);
    }
}

static void
make_holes(void)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < scene.n; i++) {
        uint64_t in_group = i % 975;
        bool released = in_group < 15 ? in_group % 2 == 1 : in_group % 64 != 0;
        if (released)
            BENCH_OK(shc_arena_release(&arena, scene.refs[i]));
        else
            scene.refs[kept++] = scene.refs[i];
    }
    scene.n = kept;
}

static void
set_scene(uint64_t bytes, state_t state)
{
    if (scene.bytes == bytes && scene.state == state && scene.live == 0)
        return;
    close_scene();
    open_arena(bytes, 100);
    scene.state = state;
    if (state != EMPTY)
        use_most();
    if (state == HOLES)
        make_holes();
}

/* ---- operations in them ---- */

static SHC_ALWAYS_INLINE void
pairs(uint64_t n, uint64_t size)
{
    shc_ref_t ref;
    while (n-- > 0) {
        BENCH_OK(shc_arena_allocate(&arena, size, &ref));
        BENCH_OK(shc_arena_release(&arena, ref));
    }
}

/* More than magazines and hints hold; the first come are the first to go. */
static void
batches(uint64_t n, uint64_t size, unsigned many)
{
    shc_ref_t refs[100];
    while (n-- > 0) {
        for (unsigned i = 0; i < many; i++)
            BENCH_OK(shc_arena_allocate(&arena, size, &refs[i]));
        for (unsigned i = 0; i < many; i++)
            BENCH_OK(shc_arena_release(&arena, refs[i]));
    }
}

/* Some of each size at once, released at random: of 64 KiB to 1 MiB. */
static void
mixture(uint64_t n)
{
    shc_ref_t refs[6] = {0};
    while (n-- > 0) {
        uint64_t k = random_below(6);
        if (refs[k] != 0) {
            BENCH_OK(shc_arena_release(&arena, refs[k]));
            refs[k] = 0;
        } else {
            BENCH_OK(shc_arena_allocate(&arena, PAGE + random_below(UINT64_C(65536) << random_below(5)), &refs[k]));
        }
    }
    for (unsigned k = 0; k < 6; k++)
        if (refs[k] != 0)
            BENCH_OK(shc_arena_release(&arena, refs[k]));
}

#define OPERATIONS(DO)                                                                                                 \
    DO(pair_64, pairs(n, 64), 20000)                                                                                   \
    DO(batch_64, batches(n, 64, 100), 1000)                                                                            \
    DO(batch_1000, batches(n, 1000, 100), 1000)                                                                        \
    DO(pair_64k, pairs(n, PAGE), 20000)                                                                                \
    DO(batch_64k, batches(n, PAGE, 16), 1000)                                                                          \
    DO(pair_1m, pairs(n, MIB), 20000)                                                                                  \
    DO(batch_1m, batches(n, MIB, 8), 1000)                                                                             \
    DO(pair_16m, pairs(n, 16 * MIB), 20000)                                                                            \
    DO(mixture, mixture(n), 20000)

#define IN_SCENES(DO, operation, call, rounds)                                                                         \
    DO(operation, call, rounds, 64m_empty, 64 * MIB, EMPTY)                                                            \
    DO(operation, call, rounds, 64m_used, 64 * MIB, USED)                                                              \
    DO(operation, call, rounds, 64m_holes, 64 * MIB, HOLES)                                                            \
    DO(operation, call, rounds, 4g_empty, 4096 * MIB, EMPTY)                                                           \
    DO(operation, call, rounds, 4g_used, 4096 * MIB, USED)                                                             \
    DO(operation, call, rounds, 4g_holes, 4096 * MIB, HOLES)

#define DEFINE(operation, call, rounds, suffix, bytes, state)                                                          \
    static void operation##_##suffix(uint64_t n)                                                                       \
    {                                                                                                                  \
        set_scene(bytes, state);                                                                                       \
        call;                                                                                                          \
    }

#define DEFINE_ALL(operation, call, rounds) IN_SCENES(DEFINE, operation, call, rounds)
OPERATIONS(DEFINE_ALL)

/* ---- many alive ---- */

#define ADDED 130000u

/* Of `size` bytes; each one has been replaced once, at random, so that they lie anywhere. */
static void
set_live(uint64_t live, uint64_t size, uint32_t growth)
{
    if (scene.live == live && scene.size == size && scene.growth == growth)
        return;
    close_scene();
    open_arena(4096 * MIB, growth);
    scene.live = live;
    scene.size = size;
    scene.growth = growth;
    scene.refs = malloc((live + ADDED) * sizeof *scene.refs);
    BENCH_CHECK(scene.refs != NULL);
    for (uint64_t i = 0; i < live; i++)
        keep(size);
    for (uint64_t i = 0; i < live; i++) {
        uint64_t k = random_below(live);
        BENCH_OK(shc_arena_release(&arena, scene.refs[k]));
        BENCH_OK(shc_arena_allocate(&arena, size, &scene.refs[k]));
    }
}

/* One of them, at random, goes, and another one comes. */
static void
replace(uint64_t n)
{
    while (n-- > 0) {
        uint64_t k = random_below(scene.live);
        BENCH_OK(shc_arena_release(&arena, scene.refs[k]));
        BENCH_OK(shc_arena_allocate(&arena, scene.size, &scene.refs[k]));
    }
}

/* Thirty of them go, each from another place, and as many come: more than a magazine evens out. */
static void
thirty(uint64_t n)
{
    while (n-- > 0) {
        uint64_t first = random_below(scene.live);
        for (uint64_t i = 0; i < 30; i++)
            BENCH_OK(shc_arena_release(&arena, scene.refs[(first + i * 7919) % scene.live]));
        for (uint64_t i = 0; i < 30; i++)
            BENCH_OK(shc_arena_allocate(&arena, scene.size, &scene.refs[(first + i * 7919) % scene.live]));
    }
}

/* Ten pages more, or a hundred blocks, in an arena that grows by just what is needed: so many that the looks at all
 * pages which are due now and then are counted in. */
static void
add(uint64_t n)
{
    uint64_t many = n * (scene.size < PAGE ? 100 : 10);
    BENCH_CHECK(scene.n + many <= scene.live + ADDED);
    for (uint64_t i = 0; i < many; i++)
        keep(scene.size);
}

#define LIVES(DO)                                                                                                      \
    DO(replace, 64, 1e2, 100, 64, 100)                                                                                 \
    DO(replace, 64, 1e6, 1000000, 64, 100)                                                                             \
    DO(replace, 1000, 1e2, 100, 1000, 100)                                                                             \
    DO(replace, 1000, 1e6, 1000000, 1000, 100)                                                                         \
    DO(replace, 64k, 1e2, 100, PAGE, 100)                                                                              \
    DO(replace, 64k, 6e4, 60000, PAGE, 100)                                                                            \
    DO(thirty, 64, 1e2, 100, 64, 100)                                                                                  \
    DO(thirty, 64, 1e6, 1000000, 64, 100)                                                                              \
    DO(thirty, 1000, 1e2, 100, 1000, 100)                                                                              \
    DO(thirty, 1000, 1e6, 1000000, 1000, 100)                                                                          \
    DO(thirty, 64k, 1e2, 100, PAGE, 100)                                                                               \
    DO(thirty, 64k, 6e4, 60000, PAGE, 100)                                                                             \
    DO(add, 1000, 1e2, 100, 1000, 0)                                                                                   \
    DO(add, 1000, 1e6, 1000000, 1000, 0)                                                                               \
    DO(add, 64k, 1e2, 100, PAGE, 0)                                                                                    \
    DO(add, 64k, 4e4, 40000, PAGE, 0)

#define DEFINE_LIVE(operation, what, suffix, live, size, growth)                                                       \
    static void operation##_##what##_##suffix(uint64_t n)                                                              \
    {                                                                                                                  \
        set_live(live, size, growth);                                                                                  \
        operation(n);                                                                                                  \
    }

LIVES(DEFINE_LIVE)

/* ---- all of them ---- */

#define ROW(operation, call, rounds, suffix, bytes, state) {#operation "@" #suffix, operation##_##suffix, rounds},
#define ROWS(operation, call, rounds) IN_SCENES(ROW, operation, call, rounds)
#define LIVE_ROW(operation, what, suffix, live, size, growth)                                                          \
    {#operation "_" #what "@" #suffix, operation##_##what##_##suffix, 100},

/* clang-format off */
const bench_op_t bench_ops[] = {
    OPERATIONS(ROWS)
    LIVES(LIVE_ROW)
    {NULL, NULL, 0},
};
/* clang-format on */

void
bench_set_up(void)
{
}

void
bench_tear_down(void)
{
    close_scene();
}

void
bench_pair(void)
{
}
