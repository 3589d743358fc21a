/* The allocator without Python: blocks from the magazine, through the slabs, runs of pages, loans. */
#include "runner.h"
#include "seg/shc_arena.h"

#include <string.h>

#define KIND 0xfffffffeu /* none of the product's: an arena by itself */
#define PAIRS 2000000

static shc_seg_t seg;
static shc_arena_geometry_t geometry = {
    .pages = 1u << 16, .initial = 64, .page_shift = 16, .growth = 100, .records = 512};
static shc_arena_t arena;

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

/* ---- one at a time ---- */

static SHC_ALWAYS_INLINE void
one_by_one(uint64_t n, uint64_t size)
{
    shc_ref_t ref;
    while (n-- > 0) {
        BENCH_OK(shc_arena_allocate(&arena, size, &ref));
        BENCH_OK(shc_arena_release(&arena, ref));
    }
}

static void
pair_64(uint64_t n)
{
    one_by_one(n, 64);
}

static void
pair_1000(uint64_t n)
{
    one_by_one(n, 1000);
}

static void
pair_16k(uint64_t n)
{
    one_by_one(n, 16384);
}

static void
pair_64k(uint64_t n)
{
    one_by_one(n, 65536);
}

static void
pair_1m(uint64_t n)
{
    one_by_one(n, UINT64_C(1) << 20);
}

static void
pair_256m(uint64_t n)
{
    one_by_one(n, UINT64_C(256) << 20);
}

/* ---- more than a magazine holds ---- */

#define MANY 100u

static void
hundred_of_64(uint64_t n)
{
    shc_ref_t refs[MANY];
    while (n-- > 0) {
        for (uint32_t i = 0; i < MANY; i++)
            BENCH_OK(shc_arena_allocate(&arena, 64, &refs[i]));
        for (uint32_t i = 0; i < MANY; i++)
            BENCH_OK(shc_arena_release(&arena, refs[i]));
    }
}

/* ---- whose it is ---- */

static void
attach_take(uint64_t n)
{
    shc_ref_t ref;
    BENCH_OK(shc_arena_allocate(&arena, 64, &ref));
    while (n-- > 0) {
        BENCH_OK(shc_arena_attach(&arena, ref));
        BENCH_OK(shc_arena_take(&arena, ref));
    }
    BENCH_OK(shc_arena_release(&arena, ref));
}

static void
resolve(uint64_t n)
{
    shc_ref_t ref;
    void *memory;
    uint64_t size;
    BENCH_OK(shc_arena_allocate(&arena, 64, &ref));
    while (n-- > 0)
        BENCH_OK(shc_arena_resolve(&arena, ref, &memory, &size));
    BENCH_OK(shc_arena_release(&arena, ref));
}

static void
lend_drop(uint64_t n)
{
    shc_ref_t ref;
    uint32_t record;
    while (n-- > 0) {
        BENCH_OK(shc_arena_allocate(&arena, 64, &ref));
        BENCH_OK(shc_arena_lend(&arena, ref, &record));
        BENCH_OK(shc_arena_drop(&arena, ref, record));
    }
}

static void
hold_drop(uint64_t n)
{
    shc_ref_t ref;
    uint32_t first, record;
    BENCH_OK(shc_arena_allocate(&arena, 64, &ref));
    BENCH_OK(shc_arena_lend(&arena, ref, &first));
    while (n-- > 0) {
        BENCH_OK(shc_arena_hold(&arena, ref, &record));
        BENCH_OK(shc_arena_drop(&arena, ref, record));
    }
    BENCH_OK(shc_arena_drop(&arena, ref, first));
}

static void
sweep(uint64_t n)
{
    while (n-- > 0)
        shc_arena_sweep(&arena, 3, NULL, NULL);
}

const bench_op_t bench_ops[] = {
    {"pair_64", pair_64, 2000000},
    {"pair_1000", pair_1000, 2000000},
    {"pair_16k", pair_16k, 2000000},
    {"pair_64k", pair_64k, 1000000},
    {"pair_1m", pair_1m, 1000000},
    {"pair_256m", pair_256m, 1000000},
    {"hundred_of_64", hundred_of_64, 20000},
    {"attach_take", attach_take, 1000000},
    {"resolve", resolve, 2000000},
    {"lend_drop", lend_drop, 500000},
    {"hold_drop", hold_drop, 500000},
    {"sweep", sweep, 1000},
    {NULL, NULL, 0},
};

/* The file is sparse, and no page of the long runs is touched: what is reserved at set-up is the largest of them. */
void
bench_set_up(void)
{
    shc_seg_create_args_t args = {.participants = 128, .mode = 0600};
    shc_ref_t ref;
    uint64_t body;
    BENCH_OK(shc_seg_size_for(&spec, &args, &body));
    geometry.at = body;
    geometry.participants = args.participants;
    BENCH_OK(shc_arena_lay_out(&geometry));
    args.body_size = geometry.end - body;
    shc_arena_reservation(&geometry, body, args.reserved);
    bench_create(&spec, &args, init, &seg);
    shc_arena_open(&arena, &seg, &geometry);
    BENCH_OK(shc_arena_allocate(&arena, UINT64_C(256) << 20, &ref));
    BENCH_OK(shc_arena_release(&arena, ref));
}

void
bench_tear_down(void)
{
    BENCH_OK(shc_arena_check(&arena));
    shc_arena_leave(&arena);
    bench_close(&seg);
}

/* ---- two processes: one allocates and attaches, the other takes and releases ---- */

#define BOX 64u

typedef struct boxes {
    shc_a64_t box[BOX];
} boxes_t;

static boxes_t *boxes;

static void
producer(void *arg)
{
    (void)arg;
    shc_arena_open(&arena, &seg, &geometry);
    for (uint32_t i = 0; i < PAIRS; i++) {
        shc_ref_t ref;
        shc_a64_t *box = &boxes->box[i % BOX];
        BENCH_OK(shc_arena_allocate(&arena, 64, &ref));
        memcpy(shc_arena_at(&arena, ref), &i, sizeof i);
        BENCH_OK(shc_arena_attach(&arena, ref));
        while (shc_a64_load_acquire(box) != 0)
            shc_os_yield();
        shc_a64_store_release(box, ref);
    }
    shc_arena_leave(&arena);
}

static void
consumer(void *arg)
{
    double *ns = arg;
    uint64_t start = shc_os_now_ns();
    for (uint32_t i = 0; i < PAIRS; i++) {
        shc_ref_t ref;
        uint32_t number;
        shc_a64_t *box = &boxes->box[i % BOX];
        while ((ref = shc_a64_load_acquire(box)) == 0)
            shc_os_yield();
        shc_a64_store_release(box, 0);
        BENCH_OK(shc_arena_take(&arena, ref));
        memcpy(&number, shc_arena_at(&arena, ref), sizeof number);
        BENCH_CHECK(number == i);
        BENCH_OK(shc_arena_release(&arena, ref));
    }
    *ns = (double)(shc_os_now_ns() - start) / PAIRS;
}

void
bench_pair(void)
{
    double ns[3];
    for (unsigned i = 0; i < 3; i++) {
        shc_ref_t ref;
        bench_set_up();
        BENCH_OK(shc_arena_allocate(&arena, sizeof *boxes, &ref));
        boxes = shc_arena_at(&arena, ref);
        memset(boxes, 0, sizeof *boxes);
        bench_two(producer, consumer, &ns[i]);
        BENCH_OK(shc_arena_release(&arena, ref));
        bench_tear_down();
    }
    bench_print("hand 64 bytes to another process", bench_median(ns, 3), "ns");
}
