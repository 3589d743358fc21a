/* The pool without Python: blocks, buffers of the shelf, blocks that are sent, looks for idle memory. */
#include "ds/shc_pool.h"
#include "runner.h"

static shc_seg_t seg;
static shc_pool_t pool;

static void
block_64(uint64_t n)
{
    shc_ref_t ref;
    while (n-- > 0) {
        BENCH_OK(shc_arena_allocate(&pool.arena, 64, &ref));
        BENCH_OK(shc_arena_release(&pool.arena, ref));
    }
}

static void
buffer_64(uint64_t n)
{
    shc_ref_t ref;
    BENCH_OK(shc_arena_allocate(&pool.arena, 64, &ref));
    BENCH_OK(shc_pool_shelve(&pool, ref, 64));
    while (n-- > 0) {
        BENCH_OK(shc_pool_unshelve(&pool, 64, &ref));
        BENCH_OK(shc_pool_shelve(&pool, ref, 64));
    }
    BENCH_CHECK(shc_pool_clear(&pool) == 1);
}

/* What a size costs that nobody has given back. */
static void
no_buffer(uint64_t n)
{
    shc_ref_t ref;
    while (n-- > 0)
        BENCH_CHECK(shc_pool_unshelve(&pool, 65, &ref) == SHC_EMPTY);
}

static void
send_64(uint64_t n)
{
    while (n-- > 0) {
        shc_ref_t ref;
        uint64_t ticket;
        uint32_t mine, theirs;
        BENCH_OK(shc_arena_allocate(&pool.arena, 64, &ref));
        BENCH_OK(shc_arena_lend(&pool.arena, ref, &mine));
        BENCH_OK(shc_arena_post(&pool.arena, ref, &ticket));
        BENCH_OK(shc_arena_drop(&pool.arena, ref, mine));
        BENCH_OK(shc_arena_collect(&pool.arena, ref, ticket, &theirs));
        BENCH_OK(shc_arena_drop(&pool.arena, ref, theirs));
    }
}

static void
tend(uint64_t n)
{
    while (n-- > 0)
        (void)shc_pool_tend(&pool);
}

const bench_op_t bench_ops[] = {
    {"block_64", block_64, 2000000},
    {"buffer_64", buffer_64, 1000000},
    {"no_buffer", no_buffer, 100000},
    {"send_64", send_64, 500000},
    {"tend", tend, 10000},
    {NULL, NULL, 0},
};

void
bench_set_up(void)
{
    shc_pool_options_t o = {.initial_bytes = 1 << 20, .max_bytes = 100 << 20, .growth = 100, .places = 1000};
    shc_seg_create_args_t args = {.participants = 128, .mode = 0600};
    BENCH_OK(shc_pool_configure(&o, &args));
    BENCH_OK(shc_pool_lay_out(&args));
    bench_create(&shc_pool_spec, &args, shc_pool_init, &seg);
    shc_pool_open(&pool, &seg);
}

void
bench_tear_down(void)
{
    BENCH_OK(shc_pool_check(&pool));
    shc_pool_leave(&pool);
    bench_close(&seg);
}

/* ---- two processes: one sends blocks, the other receives them ---- */

#define BOX 64u
#define BLOCKS 500000u

typedef struct box {
    shc_a64_t full;
    shc_ref_t ref;
    uint64_t ticket;
} box_t;

static box_t *boxes;

static void
sender(void *arg)
{
    (void)arg;
    shc_pool_open(&pool, &seg);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        shc_ref_t ref;
        uint32_t record;
        box_t *box = &boxes[i % BOX];
        BENCH_OK(shc_arena_allocate(&pool.arena, 64, &ref));
        *(uint32_t *)shc_arena_at(&pool.arena, ref) = i;
        while (shc_a64_load_acquire(&box->full) != 0)
            shc_os_yield();
        BENCH_OK(shc_arena_lend(&pool.arena, ref, &record));
        box->ref = ref;
        BENCH_OK(shc_arena_post(&pool.arena, ref, &box->ticket));
        shc_a64_store_release(&box->full, 1);
        BENCH_OK(shc_arena_drop(&pool.arena, ref, record));
    }
    for (uint32_t i = 0; i < BOX; i++) /* what is on its way goes with its sender */
        while (shc_a64_load_acquire(&boxes[i].full) != 0)
            shc_os_yield();
    shc_pool_leave(&pool);
}

static void
receiver(void *arg)
{
    double *ns = arg;
    uint64_t start = shc_os_now_ns();
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t record;
        box_t *box = &boxes[i % BOX];
        while (shc_a64_load_acquire(&box->full) == 0)
            shc_os_yield();
        shc_ref_t ref = box->ref;
        BENCH_OK(shc_arena_collect(&pool.arena, ref, box->ticket, &record));
        shc_a64_store_release(&box->full, 0);
        BENCH_CHECK(*(uint32_t *)shc_arena_at(&pool.arena, ref) == i);
        BENCH_OK(shc_arena_drop(&pool.arena, ref, record));
    }
    *ns = (double)(shc_os_now_ns() - start) / BLOCKS;
}

void
bench_pair(void)
{
    double ns[3];
    for (unsigned i = 0; i < 3; i++) {
        shc_ref_t ref;
        bench_set_up();
        BENCH_OK(shc_arena_allocate(&pool.arena, BOX * sizeof *boxes, &ref));
        boxes = shc_arena_at(&pool.arena, ref);
        for (uint32_t k = 0; k < BOX; k++)
            shc_a64_store_relaxed(&boxes[k].full, 0);
        bench_two(sender, receiver, &ns[i]);
        BENCH_OK(shc_arena_release(&pool.arena, ref));
        bench_tear_down();
    }
    bench_print("send a block of 64 bytes to another process", bench_median(ns, 3), "ns");
}
