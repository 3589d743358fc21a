/* The SPSC ring without Python: what an operation costs alone, a stream between two processes, a round trip. */
#include "ds/shc_ring.h"

#include <string.h>

#include "runner.h"

#define DATA_BYTES (UINT64_C(1) << 20)
#define CAPACITY 4096
#define SIZE 64
#define LARGE 4096
#define BATCH 64
#define STREAM 2000000
#define TRIPS 200000

typedef struct bench_channel {
    shc_seg_t seg;
    shc_ring_t ring;
    uint64_t sent, received; /* each message is its number over and over */
} bench_channel_t;

static bench_channel_t there, back;

/* ---- one message ---- */

static inline bool
stage(bench_channel_t *c, uint32_t length)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(&c->ring, length, &dst, &room);
    if (r == SHC_FULL)
        return false;
    BENCH_OK(r);
    for (uint32_t i = 0; i < length; i += sizeof(c->sent))
        memcpy(dst + i, &c->sent, sizeof(c->sent));
    c->sent++;
    shc_ring_stage(&c->ring, length, 1);
    return true;
}

static inline void
publish(bench_channel_t *c)
{
    shc_ring_publish(&c->ring);
    shc_event_notify_one(&c->ring.shm->items);
}

static inline bool
front(bench_channel_t *c, uint32_t length, shc_ring_message_t *msg)
{
    uint8_t bytes[LARGE];
    int r = shc_ring_front(&c->ring, msg);
    if (r == SHC_EMPTY)
        return false;
    BENCH_OK(r);
    BENCH_CHECK(msg->length == length && msg->tag == 1);
    shc_racy_copy(bytes, msg->payload, length);
    BENCH_CHECK(memcmp(bytes, &c->received, sizeof(c->received)) == 0);
    BENCH_CHECK(memcmp(bytes + length - sizeof(c->received), &c->received, sizeof(c->received)) == 0);
    c->received++;
    return true;
}

static inline void
give_back(bench_channel_t *c)
{
    shc_ring_give_back(&c->ring);
    shc_event_notify_one(&c->ring.shm->space);
}

static inline bool
push(bench_channel_t *c, uint32_t length)
{
    if (!stage(c, length))
        return false;
    publish(c);
    return true;
}

static inline bool
pop(bench_channel_t *c, uint32_t length)
{
    shc_ring_message_t msg;
    if (!front(c, length, &msg))
        return false;
    shc_ring_consume(&c->ring, &msg);
    give_back(c);
    return true;
}

/* ---- operations ---- */

static inline void
push_pop(uint64_t n, uint32_t length)
{
    while (n-- > 0)
        BENCH_CHECK(push(&there, length) && pop(&there, length));
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
    shc_ring_message_t msg;
    for (uint64_t done = 0; done < n;) {
        uint64_t some = n - done < BATCH ? n - done : BATCH;
        for (uint64_t i = 0; i < some; i++)
            BENCH_CHECK(stage(&there, SIZE));
        publish(&there);
        for (uint64_t i = 0; i < some; i++) {
            BENCH_CHECK(front(&there, SIZE, &msg));
            shc_ring_consume(&there.ring, &msg);
        }
        give_back(&there);
        done += some;
    }
}

static void
push_hold_release_64(uint64_t n)
{
    shc_ring_message_t msg;
    uint32_t hold;
    while (n-- > 0) {
        BENCH_CHECK(push(&there, SIZE) && front(&there, SIZE, &msg));
        BENCH_OK(shc_ring_hold(&there.ring, &msg, &hold));
        shc_ring_mark_released(&there.ring, hold);
        BENCH_CHECK(shc_ring_settle_holds(&there.ring));
        shc_event_notify_one(&there.ring.shm->space);
    }
}

static void
front_of_empty(uint64_t n)
{
    shc_ring_message_t msg;
    while (n-- > 0)
        BENCH_CHECK(shc_ring_front(&there.ring, &msg) == SHC_EMPTY);
}

const bench_op_t bench_ops[] = {
    {"push_pop_64", push_pop_64, 1000000},
    {"push_pop_4096", push_pop_4096, 100000},
    {"batch_64", batch_64, 1000000},
    {"push_hold_release_64", push_hold_release_64, 500000},
    {"front_of_empty", front_of_empty, 1000000},
    {NULL, NULL, 0},
};

/* ---- two processes ---- */

static void
create(bench_channel_t *c)
{
    shc_seg_create_args_t args = {.body_size = shc_ring_body_size(DATA_BYTES), .participants = 4, .mode = 0600};
    args.config[SHC_RING_CONFIG_CAPACITY] = CAPACITY;
    args.config[SHC_RING_CONFIG_DATA_BYTES] = DATA_BYTES;
    bench_create(&shc_ring_spec, &args, shc_ring_init, &c->seg);
    shc_ring_open(&c->ring, &c->seg);
    c->sent = c->received = 0;
}

static inline void
push_waiting(bench_channel_t *c)
{
    while (!push(c, SIZE))
        shc_pause();
}

static inline void
pop_waiting(bench_channel_t *c)
{
    while (!pop(c, SIZE))
        shc_pause();
}

static void
push_stream(void *arg)
{
    (void)arg;
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_PRODUCER));
    for (uint64_t i = 0; i <= STREAM; i++)
        push_waiting(&there);
}

static void
pop_stream(void *arg)
{
    double *ns = arg;
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_CONSUMER));
    pop_waiting(&there);
    uint64_t start = shc_os_now_ns();
    for (uint64_t i = 0; i < STREAM; i++)
        pop_waiting(&there);
    *ns = (double)(shc_os_now_ns() - start) / STREAM;
}

static void
echo(void *arg)
{
    (void)arg;
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_CONSUMER));
    BENCH_OK(shc_ring_take(&back.ring, SHC_RING_PRODUCER));
    for (uint64_t i = 0; i <= TRIPS; i++) {
        pop_waiting(&there);
        push_waiting(&back);
    }
}

static void
call(void *arg)
{
    double *ns = arg;
    uint64_t start = 0;
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_PRODUCER));
    BENCH_OK(shc_ring_take(&back.ring, SHC_RING_CONSUMER));
    for (uint64_t i = 0; i <= TRIPS; i++) {
        push_waiting(&there);
        pop_waiting(&back);
        if (i == 0)
            start = shc_os_now_ns();
    }
    *ns = (double)(shc_os_now_ns() - start) / TRIPS;
}

static double
between_two(void (*other)(void *), void (*here)(void *))
{
    double ns[BENCH_ROUNDS];
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
    bench_print("stream of 64, two processes", between_two(push_stream, pop_stream), "ns/message");
    bench_print("round trip of 64, spinning", between_two(echo, call), "ns");
}

void
bench_set_up(void)
{
    create(&there);
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_PRODUCER));
    BENCH_OK(shc_ring_take(&there.ring, SHC_RING_CONSUMER));
}

void
bench_tear_down(void)
{
    bench_close(&there.seg);
}
