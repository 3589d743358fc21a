/* Event count and lock without Python: what they cost when nobody waits, and a wake-up from one process to another. */
#include "ds/shc_buffer.h"
#include "runner.h"
#include "sync/shc_event.h"
#include "sync/shc_lock.h"

#define TRIPS 20000

/* The words lie in the data of a buffer, each on its own lines. */
typedef struct bench_words {
    shc_event_shm_t ping;
    uint8_t pad0[SHC_HOT_PAD - sizeof(shc_event_shm_t)];
    shc_event_shm_t pong;
    uint8_t pad1[SHC_HOT_PAD - sizeof(shc_event_shm_t)];
    shc_a32_t turn; /* even: pong's */
    uint8_t pad2[SHC_HOT_PAD - sizeof(shc_a32_t)];
    shc_lock_shm_t lock;
} bench_words_t;

static shc_seg_t seg;
static bench_words_t *words;

/* ---- alone ---- */

static void
notify_nobody(uint64_t n)
{
    while (n-- > 0)
        shc_event_notify_one(&words->ping);
}

static void
prepare_and_notify(uint64_t n)
{
    while (n-- > 0) {
        uint32_t before = shc_event_prepare(&words->ping);
        shc_event_wake(&words->ping, 1);
        BENCH_CHECK(shc_event_wait(&words->ping, before, SHC_NEVER) == SHC_AGAIN);
    }
}

static void
lock_and_release(uint64_t n)
{
    shc_lock_party_t me = {&seg.participants, &seg.self->id, seg.index, seg.generation};
    while (n-- > 0) {
        BENCH_OK(shc_lock_acquire(&words->lock, &me, SHC_NEVER));
        shc_lock_release(&words->lock);
    }
}

const bench_op_t bench_ops[] = {
    {"notify_nobody", notify_nobody, 2000000},
    {"prepare_and_notify", prepare_and_notify, 100000},
    {"lock_and_release", lock_and_release, 1000000},
    {NULL, NULL, 0},
};

/* ---- two processes, both asleep while it is the other's turn ---- */

static void
await_turn(shc_event_shm_t *event, uint32_t turn)
{
    while (shc_a32_load_acquire(&words->turn) != turn) {
        uint32_t before = shc_event_prepare(event);
        if (shc_a32_load_acquire(&words->turn) == turn)
            return;
        int r = shc_event_wait(event, before, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS);
        BENCH_CHECK(r == 0 || r == SHC_AGAIN || r == SHC_TIMEOUT);
    }
}

static void
pass_turn(shc_event_shm_t *event, uint32_t turn)
{
    shc_a32_store_release(&words->turn, turn);
    shc_event_notify_one(event);
}

static void
pong(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < TRIPS; i++) {
        await_turn(&words->pong, 2 * i + 1);
        pass_turn(&words->ping, 2 * i + 2);
    }
}

static void
ping(void *arg)
{
    double *ns = arg;
    uint64_t start = shc_os_now_ns();
    for (uint32_t i = 0; i < TRIPS; i++) {
        pass_turn(&words->pong, 2 * i + 1);
        await_turn(&words->ping, 2 * i + 2);
    }
    *ns = (double)(shc_os_now_ns() - start) / TRIPS;
}

void
bench_set_up(void)
{
    shc_seg_create_args_t args = {.body_size = shc_buffer_body_size(sizeof(*words)), .participants = 4, .mode = 0600};
    shc_buffer_t buffer;
    args.config[SHC_BUFFER_CONFIG_SIZE] = sizeof(*words);
    bench_create(&shc_buffer_spec, &args, shc_buffer_init, &seg);
    shc_buffer_open(&buffer, &seg);
    words = (bench_words_t *)(void *)buffer.data;
}

void
bench_tear_down(void)
{
    bench_close(&seg);
}

void
bench_pair(void)
{
    double ns[3];
    for (unsigned i = 0; i < 3; i++) {
        bench_set_up();
        bench_two(pong, ping, &ns[i]);
        bench_tear_down();
    }
    bench_print("event ping-pong, asleep", bench_median(ns, 3), "ns");
}
