/* The single-producer single-consumer byte ring in shared memory.
 *
 *     0     producer's line      tail
 *     128   consumer's line      head
 *     256   items                where the consumer sleeps
 *     384   space                where the producer sleeps
 *     512   control              leases of both ends, shutdown
 *     640   data                 `data_bytes` bytes, a power of two
 *     then, of a ring that has one, from a multiple of its page on: the arena of its large messages
 *
 * A cursor is one word {count 24 | position 40}: messages so far modulo 2^24 and 8-byte units so far modulo 2^40.
 * One store commits both.
 *
 * Always true (differences modulo their width): 0 <= tail.position - head.position <= data_bytes / 8;
 * 0 <= tail.count - head.count <= capacity; every message takes at least one unit, and units without a message do not
 * exist.
 *
 * A record starts at a multiple of 8 bytes: u32 length, u32 mark = {check 24 | tag 8}, payload, padding to 8. check
 * is the low 24 bits of (position xor segment key). length 0xffffffff: the rest up to the end of the data is
 * skipped. With SHC_EXTENT_TAG in its tag the payload is the descriptor of a message that lies in the arena. */
#ifndef SHC_RING_SHM_H
#define SHC_RING_SHM_H

#include "sync/shc_event_shm.h"

typedef struct shc_ring_shm {
    shc_a64_t tail;
    shc_a64_t sent;
    uint8_t pad0[112];
    shc_a64_t head;
    shc_a64_t received;
    shc_a64_t peak;
    uint8_t pad1[104];
    shc_event_shm_t items;
    uint8_t pad2[124];
    shc_event_shm_t space;
    uint8_t pad3[124];
    shc_a64_t producer;
    shc_a64_t consumer;
    shc_a32_t shutdown;
    shc_a32_t spare;
    shc_a64_t producer_deaths;
    shc_a64_t consumer_deaths;
    uint8_t pad4[88];
} shc_ring_shm_t;

#define SHC_RING_LAYOUT(ROW, T)                                                                                        \
    ROW(T, tail, 0, 8, "producer", "cursor behind the last published message; its store commits")                      \
    ROW(T, sent, 8, 8, "producer", "messages since creation; hint, rebuilt from tail.count at a takeover")             \
    ROW(T, pad0, 16, 112, "nobody", "zero")                                                                            \
    ROW(T, head, 128, 8, "consumer", "cursor behind the last message given back; its store frees space")               \
    ROW(T, received, 136, 8, "consumer", "messages since creation; hint")                                              \
    ROW(T, peak, 144, 8, "consumer", "longest backlog that the consumer saw; hint")                                    \
    ROW(T, pad1, 152, 104, "nobody", "zero")                                                                           \
    ROW(T, items, 256, 4, "both", "event count: a message was published")                                              \
    ROW(T, pad2, 260, 124, "nobody", "zero")                                                                           \
    ROW(T, space, 384, 4, "both", "event count: space was given back")                                                 \
    ROW(T, pad3, 388, 124, "nobody", "zero")                                                                           \
    ROW(T, producer, 512, 8, "who takes the end", "holder of the producer's end: index + 1, generation; 0 free")       \
    ROW(T, consumer, 520, 8, "who takes the end", "holder of the consumer's end")                                      \
    ROW(T, shutdown, 528, 4, "anybody", "bit 0: no more sends; bit 1: what is left is not delivered; sticky")          \
    ROW(T, spare, 532, 4, "nobody", "zero")                                                                            \
    ROW(T, producer_deaths, 536, 8, "who takes the end",                                                               \
        "times the producer's end was taken from a dead process; hint")                                                \
    ROW(T, consumer_deaths, 544, 8, "who takes the end", "the same for the consumer's end")                            \
    ROW(T, pad4, 552, 88, "nobody", "zero")

SHC_RING_LAYOUT(SHC_LAYOUT_ASSERT, shc_ring_shm_t)
_Static_assert(sizeof(shc_ring_shm_t) == 640, "data follows the head of the ring");

#define SHC_RING_SHUTDOWN 1u
#define SHC_RING_IMMEDIATE 2u

/* Config words of the segment. */
enum {
    SHC_RING_CONFIG_CAPACITY = 0,   /* messages */
    SHC_RING_CONFIG_DATA_BYTES = 1, /* power of two */
    SHC_RING_CONFIG_CODEC = 2,      /* what the creator chose; the binding's business */
    SHC_RING_CONFIG_ARENA = 3,      /* two words; zero: no arena */
    SHC_RING_CONFIG_ENVELOPE = 5,   /* compression and encryption; the binding's business */
};

#define SHC_RING_CAPACITY_MAX ((UINT64_C(1) << 23) - 1)
#define SHC_RING_DATA_BYTES_MIN UINT64_C(4096)
#define SHC_RING_DATA_BYTES_MAX (UINT64_C(1) << 40)

#define SHC_RING_RECORD_HEAD 8u
#define SHC_RING_SKIP UINT32_C(0xffffffff)

/* With an arena, longer ones lie there: they are warm in the caches when they come round again, however long the ring
 * is. Both ways cost the same at about this length. */
#define SHC_RING_INLINE_MAX (UINT64_C(64) * 1024)

/* Longest payload of a record: with its head at most half of the data, so that it fits at some offset whatever the
 * position; and less than the skip mark. */
static inline uint64_t
shc_ring_payload_max(uint64_t data_bytes, bool has_arena)
{
    uint64_t half = data_bytes / 2 - SHC_RING_RECORD_HEAD;
    uint64_t most = has_arena ? SHC_RING_INLINE_MAX : UINT32_C(0xfffffff0);
    return half < most ? half : most;
}

#endif
