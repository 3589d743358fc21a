/* The cell ring without Python: what an operation costs alone, streams between two processes, and both processes doing
 * both. Beside it what a lock would cost: a ring of slots under shc_lock, each message copied while it is held. */
#include "ds/shc_cells.h"

#include <string.h>

#include "runner.h"
#include "sync/shc_lock.h"

#define CAPACITY 1024
#define ENTRIES 1024
#define CELLS (UINT64_C(1) << 16)
#define TINY 32
#define SIZE 64
#define LARGE 4096
#define BATCH 64
#define STREAM 2000000
#define TRIPS 200000
#define BOTH 1000000

typedef struct bench_channel {
    shc_seg_t seg;
    shc_cells_t cells;
    uint64_t sent, received; /* each message is its number over and over */
} bench_channel_t;

static bench_channel_t there, back;
static uint32_t stream_length;

/* ---- the engine in a segment of its own ---- */

static const shc_layout_row_t rows[] = {SHC_CELLS_LAYOUT(SHC_LAYOUT_ROW, shc_cells_shm_t) /* */
                                        SHC_CELLS_ENTRY_LAYOUT(SHC_LAYOUT_ROW, shc_cells_entry_shm_t)};
static const shc_seg_spec_t spec = {
    .kind = 0xfffffffd, .rows = rows, .row_count = SHC_ARRAY_SIZE(rows), .body_align = SHC_HOT_PAD};

static void
geometry(shc_cells_geometry_t *g)
{
    *g = (shc_cells_geometry_t){.capacity = CAPACITY, .entries = ENTRIES, .cells = CELLS};
    BENCH_OK(shc_cells_lay_out(g));
}

static void
init(shc_seg_t *seg)
{
    shc_cells_geometry_t g;
    geometry(&g);
    shc_cells_init(shc_seg_body(seg), &g);
}

static void
create(bench_channel_t *c)
{
    shc_cells_geometry_t g;
    geometry(&g);
    shc_seg_create_args_t args = {.body_size = g.size, .participants = 4, .mode = 0600};
    bench_create(&spec, &args, init, &c->seg);
    shc_cells_open(&c->cells, &c->seg, shc_seg_body(&c->seg), &g, 8);
    c->sent = c->received = 0;
}

/* ---- one message ---- */

static inline bool
fill(bench_channel_t *c, uint32_t length, int claimed, shc_cells_slot_t *slot)
{
    if (claimed == SHC_FULL)
        return false;
    BENCH_OK(claimed);
    for (uint32_t i = 0; i < length; i += sizeof(c->sent))
        memcpy(slot->payload + i, &c->sent, sizeof(c->sent));
    c->sent++;
    return true;
}

static inline bool
push(bench_channel_t *c, uint32_t length)
{
    shc_cells_slot_t slot;
    if (!fill(c, length, shc_cells_claim(&c->cells, length, &slot), &slot))
        return false;
    shc_cells_send(&c->cells, &slot, length, 1, 0);
    return true;
}

static inline bool
look(bench_channel_t *c, uint32_t length, bool in_order, int taken, const shc_cells_slot_t *slot)
{
    uint8_t bytes[LARGE];
    uint64_t last;
    if (taken == SHC_EMPTY || taken == SHC_BUSY)
        return false;
    BENCH_OK(taken);
    BENCH_CHECK(slot->length == length && slot->tag == 1);
    shc_racy_copy(bytes, slot->payload, length);
    memcpy(&last, bytes + length - sizeof last, sizeof last);
    BENCH_CHECK(memcmp(bytes, &last, sizeof last) == 0);
    BENCH_CHECK(!in_order || last == c->received);
    c->received++;
    return true;
}

static inline bool
pop(bench_channel_t *c, uint32_t length, bool in_order)
{
    shc_cells_slot_t slot;
    if (!look(c, length, in_order, shc_cells_take(&c->cells, &slot), &slot))
        return false;
    shc_cells_finish(&c->cells, &slot);
    return true;
}

/* ---- batches: how many messages ---- */

static inline uint64_t
push_batch(bench_channel_t *c, uint64_t n)
{
    shc_cells_slot_t slots[BATCH];
    uint64_t i = 0;
    while (i < n && fill(c, SIZE,
                         i == 0 ? shc_cells_claim(&c->cells, SIZE, &slots[0])
                                : shc_cells_claim_next(&c->cells, &slots[i - 1], SIZE, &slots[i]),
                         &slots[i]))
        i++;
    if (i == 0)
        return 0;
    for (uint64_t k = 0; k + 1 < i; k++)
        shc_cells_publish(&slots[k], SIZE, 1, 0);
    shc_cells_send(&c->cells, &slots[i - 1], SIZE, 1, 0);
    return i;
}

static inline uint64_t
pop_batch(bench_channel_t *c, uint64_t n)
{
    shc_cells_slot_t slot, last;
    uint64_t i = 0;
    while (i < n &&
           look(c, SIZE, true, i == 0 ? shc_cells_take(&c->cells, &slot) : shc_cells_take_next(&c->cells, &last, &slot),
                &slot)) {
        if (i++ != 0)
            shc_cells_give_back(&c->cells, &last);
        last = slot;
    }
    if (i != 0)
        shc_cells_finish(&c->cells, &last);
    return i;
}

/* ---- operations ---- */

static inline void
push_pop(uint64_t n, uint32_t length)
{
    while (n-- > 0)
        BENCH_CHECK(push(&there, length) && pop(&there, length, true));
}

static void
push_pop_32(uint64_t n)
{
    push_pop(n, TINY);
}

static void
push_pop_64(uint64_t n)
{
    push_pop(n, SIZE);
}

static void
push_pop_4096(uint64_t n)
{
    push_pop(n, LARGE);
}

/* One operation is one message, of batches of 64. */
static void
batch_64(uint64_t n)
{
    for (uint64_t done = 0; done < n;) {
        uint64_t some = n - done < BATCH ? n - done : BATCH;
        BENCH_CHECK(push_batch(&there, some) == some);
        BENCH_CHECK(pop_batch(&there, some) == some);
        done += some;
    }
}

static void
take_of_empty(uint64_t n)
{
    shc_cells_slot_t slot;
    while (n-- > 0)
        BENCH_CHECK(shc_cells_take(&there.cells, &slot) == SHC_EMPTY);
}

const bench_op_t bench_ops[] = {
    {"push_pop_32", push_pop_32, 1000000},     {"push_pop_64", push_pop_64, 1000000},
    {"push_pop_4096", push_pop_4096, 100000},  {"batch_64", batch_64, 1000000},
    {"take_of_empty", take_of_empty, 1000000}, {NULL, NULL, 0},
};

/* ---- two processes ---- */

static inline void
push_waiting(bench_channel_t *c, uint32_t length)
{
    while (!push(c, length))
        shc_pause();
}

static inline void
pop_waiting(bench_channel_t *c, uint32_t length, bool in_order)
{
    while (!pop(c, length, in_order))
        shc_pause();
}

static void
push_stream(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i <= STREAM; i++)
        push_waiting(&there, stream_length);
}

static void
pop_stream(void *arg)
{
    double *ns = arg;
    pop_waiting(&there, stream_length, true);
    uint64_t start = shc_os_now_ns();
    for (uint64_t i = 0; i < STREAM; i++)
        pop_waiting(&there, stream_length, true);
    *ns = (double)(shc_os_now_ns() - start) / STREAM;
}

static void
push_batches(void *arg)
{
    (void)arg;
    for (uint64_t done = 0; done < STREAM + BATCH;)
        done += push_batch(&there, BATCH);
}

static void
pop_batches(void *arg)
{
    double *ns = arg;
    uint64_t start = shc_os_now_ns();
    for (uint64_t done = 0; done < STREAM;)
        done += pop_batch(&there, BATCH);
    *ns = (double)(shc_os_now_ns() - start) / STREAM;
}

static void
echo(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i <= TRIPS; i++) {
        pop_waiting(&there, SIZE, true);
        push_waiting(&back, SIZE);
    }
}

static void
call(void *arg)
{
    double *ns = arg;
    uint64_t start = 0;
    for (uint64_t i = 0; i <= TRIPS; i++) {
        push_waiting(&there, SIZE);
        pop_waiting(&back, SIZE, true);
        if (i == 0)
            start = shc_os_now_ns();
    }
    *ns = (double)(shc_os_now_ns() - start) / TRIPS;
}

static void
push_and_pop(uint32_t length)
{
    for (uint64_t i = 0; i < BOTH; i++) {
        push_waiting(&there, length);
        pop_waiting(&there, length, false);
    }
}

/* Both begin at about the same time. */
static void
wait_for_other(void)
{
    pop_waiting(&back, TINY, false);
}

static void
call_other(void)
{
    push_waiting(&back, TINY);
}

static void
do_both(void *arg)
{
    (void)arg;
    call_other();
    push_and_pop(stream_length);
}

static void
do_both_timed(void *arg)
{
    double *ns = arg;
    wait_for_other();
    uint64_t start = shc_os_now_ns();
    push_and_pop(stream_length);
    *ns = (double)(shc_os_now_ns() - start) / BOTH;
}

/* ---- the floor: a ring of slots under a robust lock, in the memory of the cells ---- */

typedef struct locked_ring {
    shc_lock_shm_t lock;
    uint8_t pad[SHC_HOT_PAD - sizeof(shc_lock_shm_t)];
    uint64_t head, tail;
    struct {
        uint64_t length;
        uint8_t payload[SIZE];
    } slots[CAPACITY];
} locked_ring_t;

_Static_assert(sizeof(locked_ring_t) <= CELLS * SHC_CELLS_CELL, "it fits into the cells");

static bool
push_locked(locked_ring_t *ring, const shc_lock_party_t *party, uint64_t value)
{
    BENCH_OK(shc_lock_acquire(&ring->lock, party, SHC_NEVER));
    bool fits = ring->tail - ring->head < CAPACITY;
    if (fits) {
        uint8_t *dst = ring->slots[ring->tail % CAPACITY].payload;
        for (uint32_t i = 0; i < SIZE; i += sizeof value)
            memcpy(dst + i, &value, sizeof value);
        ring->slots[ring->tail++ % CAPACITY].length = SIZE;
    }
    shc_lock_release(&ring->lock);
    return fits;
}

static bool
pop_locked(locked_ring_t *ring, const shc_lock_party_t *party)
{
    uint8_t bytes[SIZE];
    BENCH_OK(shc_lock_acquire(&ring->lock, party, SHC_NEVER));
    bool found = ring->tail != ring->head;
    if (found) {
        BENCH_CHECK(ring->slots[ring->head % CAPACITY].length == SIZE);
        shc_racy_copy(bytes, ring->slots[ring->head++ % CAPACITY].payload, SIZE);
    }
    shc_lock_release(&ring->lock);
    BENCH_CHECK(!found || memcmp(bytes, bytes + SIZE - 8, 8) == 0);
    return found;
}

static void
do_both_locked(void *arg)
{
    locked_ring_t *ring = (locked_ring_t *)(void *)there.cells.cells;
    const shc_seg_t *seg = &there.seg;
    shc_lock_party_t party = {&seg->participants, &seg->self->id, seg->index, seg->generation};
    if (arg == NULL)
        call_other();
    else
        wait_for_other();
    uint64_t start = shc_os_now_ns();
    for (uint64_t i = 0; i < BOTH; i++) {
        while (!push_locked(ring, &party, i))
            shc_pause();
        while (!pop_locked(ring, &party))
            shc_pause();
    }
    if (arg != NULL)
        *(double *)arg = (double)(shc_os_now_ns() - start) / BOTH;
}

static void
do_both_locked_there(void *arg)
{
    (void)arg;
    do_both_locked(NULL);
}

static double
between_two(void (*other)(void *), void (*here)(void *), uint32_t length)
{
    double ns[BENCH_ROUNDS];
    stream_length = length;
    for (unsigned i = 0; i < BENCH_ROUNDS; i++) {
        create(&there);
        create(&back);
        bench_two(other, here, &ns[i]);
        bench_close(&back.seg);
        bench_close(&there.seg);
    }
    return bench_median(ns, BENCH_ROUNDS);
}

void
bench_pair(void)
{
    bench_print("stream of 32, two processes", between_two(push_stream, pop_stream, TINY), "ns/message");
    bench_print("stream of 64, two processes", between_two(push_stream, pop_stream, SIZE), "ns/message");
    bench_print("stream of 4096, two processes", between_two(push_stream, pop_stream, LARGE), "ns/message");
    bench_print("batches of 64, two processes", between_two(push_batches, pop_batches, SIZE), "ns/message");
    bench_print("round trip of 64, spinning", between_two(echo, call, SIZE), "ns");
    bench_print("both push and pop 64", between_two(do_both, do_both_timed, SIZE), "ns/pair of each");
    bench_print("both push and pop 64, under a lock", between_two(do_both_locked_there, do_both_locked, SIZE),
                "ns/pair of each");
    bench_print("both push and pop 4096", between_two(do_both, do_both_timed, LARGE), "ns/pair of each");
}

void
bench_set_up(void)
{
    create(&there);
}

void
bench_tear_down(void)
{
    bench_close(&there.seg);
}
