/* The pool of objects without Python: a slot taken and given back, by who knows it and by who must look; nothing free;
 * two processes that each have their own. */
#include "ds/shc_objects.h"

#include "runner.h"

#define SIZE 64u
#define PAIR_ROUNDS 2000000

static shc_seg_t seg;
static shc_objects_t pool;

static void
create(uint64_t max_size)
{
    shc_seg_create_args_t args = {
        .body_size = shc_objects_body_size(max_size, 0), .participants = 4, .mode = 0600, .config = {max_size, 0}};
    bench_create(&shc_objects_spec, &args, shc_objects_init, &seg);
    shc_objects_open(&pool, &seg);
}

/* ---- alone ---- */

static void
known_slot(uint64_t n)
{
    bool dirty;
    while (n-- > 0) {
        BENCH_CHECK(shc_objects_try_take(&pool, 5, &dirty));
        BENCH_OK(shc_objects_give_back(&pool, 5, false));
    }
}

static void
any_slot(uint64_t n)
{
    uint32_t slot;
    bool dirty;
    while (n-- > 0) {
        BENCH_OK(shc_objects_take(&pool, &slot, &dirty));
        BENCH_OK(shc_objects_give_back(&pool, slot, false));
    }
}

/* All 64, then all of them back; n counts slots. */
static void
every_slot(uint64_t n)
{
    uint32_t slot;
    bool dirty;
    for (uint64_t i = 0; i < n; i += SIZE) {
        for (uint32_t k = 0; k < SIZE; k++)
            BENCH_OK(shc_objects_take(&pool, &slot, &dirty));
        for (uint32_t k = 0; k < SIZE; k++)
            BENCH_OK(shc_objects_give_back(&pool, k, false));
    }
}

static void
take_all_of_pool(void)
{
    uint32_t slot;
    bool dirty;
    for (uint32_t k = 0; k < pool.max_size; k++)
        BENCH_OK(shc_objects_take(&pool, &slot, &dirty));
}

static void
give_all_back(void)
{
    for (uint32_t k = 0; k < pool.max_size; k++)
        BENCH_OK(shc_objects_give_back(&pool, k, false));
}

static void
nothing_free(uint64_t n)
{
    uint32_t slot;
    bool dirty;
    take_all_of_pool();
    while (n-- > 0)
        BENCH_CHECK(shc_objects_take(&pool, &slot, &dirty) == SHC_EMPTY);
    give_all_back();
}

static void
count(uint64_t n)
{
    while (n-- > 0)
        BENCH_CHECK(shc_objects_count(&pool).taken == 0);
}

const bench_op_t bench_ops[] = {
    {"known_slot", known_slot, 2000000},    {"any_slot", any_slot, 1000000}, {"every_slot", every_slot, 64 * 4000},
    {"nothing_free", nothing_free, 100000}, {"count", count, 500000},        {NULL, NULL, 0},
};

/* ---- two processes ---- */

/* Each finds a slot and goes on with it, as users do. */
static void
keep_taking(void *arg)
{
    double *ns = arg;
    uint32_t slot;
    bool dirty;
    BENCH_OK(shc_objects_take(&pool, &slot, &dirty));
    uint64_t start = shc_os_now_ns();
    for (uint64_t i = 0; i < PAIR_ROUNDS; i++) {
        BENCH_OK(shc_objects_give_back(&pool, slot, false));
        while (!shc_objects_try_take(&pool, slot, &dirty)) /* who still searches may have been faster */
            shc_pause();
    }
    *ns = (double)(shc_os_now_ns() - start) / PAIR_ROUNDS;
    BENCH_OK(shc_objects_give_back(&pool, slot, false));
}

static void
keep_taking_too(void *arg)
{
    double ns;
    (void)arg;
    keep_taking(&ns);
}

/* Both look for any slot, each time: the worst. */
static void
keep_searching(void *arg)
{
    double *ns = arg;
    uint64_t start = shc_os_now_ns();
    any_slot(PAIR_ROUNDS / 4);
    *ns = (double)(shc_os_now_ns() - start) / (PAIR_ROUNDS / 4);
}

static void
keep_searching_too(void *arg)
{
    (void)arg;
    any_slot(PAIR_ROUNDS / 4);
}

static double
between_two(uint64_t max_size, void (*other)(void *), void (*here)(void *))
{
    double ns[BENCH_ROUNDS];
    for (unsigned i = 0; i < BENCH_ROUNDS; i++) {
        create(max_size);
        bench_two(other, here, &ns[i]);
        bench_close(&seg);
    }
    return bench_median(ns, BENCH_ROUNDS);
}

void
bench_pair(void)
{
    bench_print("two processes, a known slot each", between_two(SIZE, keep_taking_too, keep_taking), "ns");
    bench_print("the same, words on one line", between_two(4, keep_taking_too, keep_taking), "ns");
    bench_print("two processes that search", between_two(SIZE, keep_searching_too, keep_searching), "ns");
    create(SHC_OBJECTS_MAX_SIZE_MAX);
    take_all_of_pool();
    uint64_t start = shc_os_now_ns();
    uint32_t slot;
    bool dirty;
    BENCH_CHECK(shc_objects_take(&pool, &slot, &dirty) == SHC_EMPTY);
    bench_print("nothing free of 65536", (double)(shc_os_now_ns() - start), "ns");
    give_all_back();
    bench_close(&seg);
}

void
bench_set_up(void)
{
    create(SIZE);
}

void
bench_tear_down(void)
{
    bench_close(&seg);
}
