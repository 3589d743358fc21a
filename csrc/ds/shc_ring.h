/* SPSC byte ring: one producer process, one consumer process, messages of any length up to half of the memory.
 *
 * Overview. The producer owns `tail`, the consumer owns `head`; each keeps its own cursor and a copy of the other's
 * in private memory and looks at the other's line only when the copy says full or empty, so a stream costs half a
 * cache-line transfer per message or less. A message exists when the store of `tail` that covers it is visible, and
 * its space is free when the store of `head` that passes it is. There is no other commit, so a kill needs no repair
 * at all.
 *
 * Usage
 *     r = shc_ring_take(ring, SHC_RING_PRODUCER);                  once; 0, SHC_OWNER_DIED (fine, too) or SHC_BUSY
 *     r = shc_ring_claim(ring, n, &dst, &room);                    0, SHC_FULL, SHC_SHUTDOWN, SHC_E_TOO_LARGE,
 *                                                                  SHC_E_CORRUPT
 *     fill at most room bytes;  shc_ring_stage(ring, n, tag);      again for a batch
 *     shc_ring_publish(ring);  shc_event_notify_one(&ring->shm->items);
 *
 *     r = shc_ring_front(ring, &msg);                              0, SHC_EMPTY, SHC_SHUTDOWN, SHC_E_CORRUPT
 *     copy msg out;  shc_ring_consume(ring, &msg);                 or hold it: shc_ring_hold(ring, &msg)
 *     shc_ring_give_back(ring);  shc_event_notify_one(&ring->shm->space);
 *
 * Waiting is the caller's: a failed claim or front leaves the word and value to watch in ring->send_watch /
 * receive_watch. Who sleeps may say so (shc_participant_begin_wait), for reports.
 *
 * Guarantees
 *   (a) FIFO; each message is delivered once as long as the consumer lives. If the consumer dies, its successor sees
 *       again what the dead one had not given back (at least once): the message it was working on, and with holds,
 *       all from the oldest hold on.
 *   (b) A message that the producer had not published when it died does not exist; the successor starts at `tail`.
 *   (c) What the consumer holds is not overwritten until it is released, in whatever order holds are released.
 *   (d) Nothing read from the ring is trusted: cursors, lengths and checks are bounded by private geometry before
 *       use; every loop ends.
 *
 * Progress: claim, stage, publish, front, consume, give_back are wait-free. take asks the kernel, if the end is held
 * by another.
 *
 * Pairs
 *   A1 <- R1: consumer's load of tail  <- producer's store: the records up to tail.
 *   A2 <- R2: producer's load of head  <- consumer's store: the consumer's reads of the space before head are over.
 *   AR1 <- R3: who takes an end  <- who gave it back: that end's cursor is final.
 *   A3 <- AR2: who finds the ring empty after seeing shutdown sees every message published before the shutdown.
 *
 * Crash points (producer / consumer)
 *   end taken, nothing else       the lease names the dead: the next one takes it at once
 *   record half written           not covered by tail: does not exist
 *   staged, not published         the same
 *   tail stored, no notify        the consumer's slice ends
 *   tail stored, `sent` not       sent is rebuilt from tail.count when the end is taken
 *   copied out, head not stored   delivered again to the successor
 *   head stored, no notify        the producer's slice ends
 *
 * ABA: cursors are stored by their owner only, never exchanged. A stale private copy of the other's cursor errs on
 * the safe side, unless 2^40 units (8 TiB) pass between two looks: no, since the owner of a copy bounds the other by
 * its own cursor.
 *
 * Source: cached opposite cursors as in Rigtorp's SPSCQueue; the rest is ours. */
#ifndef SHC_RING_H
#define SHC_RING_H

#include "ds/shc_ring_shm.h"
#include "seg/shc_seg.h"
#include "sync/shc_event.h"

enum {
    SHC_RING_PRODUCER = 0,
    SHC_RING_CONSUMER = 1
};

#define SHC_RING_POSITION_MASK ((UINT64_C(1) << 40) - 1)
#define SHC_RING_COUNT_MASK ((UINT64_C(1) << 24) - 1)
#define SHC_RING_HOLDS 64u

typedef struct shc_ring_cursor {
    uint64_t position; /* 8-byte units, modulo 2^40 */
    uint64_t count;    /* messages, modulo 2^24 */
} shc_ring_cursor_t;

typedef struct shc_ring_message {
    const uint8_t *payload;
    uint32_t length;
    uint8_t tag;
    shc_ring_cursor_t end; /* behind the message */
} shc_ring_message_t;

typedef struct shc_ring_hold {
    shc_ring_cursor_t end; /* head may advance to here once this hold and all older ones are released */
    bool released;
} shc_ring_hold_t;

/* Process-private. Each end's part lies on lines of its own. */
typedef struct shc_ring {
    shc_ring_shm_t *shm;
    uint8_t *data;
    shc_seg_t *seg;
    uint64_t units; /* data_bytes / 8 */
    uint64_t capacity;
    uint64_t payload_max;
    uint64_t key;
    uint8_t pad0[SHC_HOT_PAD];
    /* producer */
    shc_ring_cursor_t tail;
    shc_ring_cursor_t head_copy;
    uint64_t sent;
    uint64_t claim_skip; /* units to skip before the claimed record */
    shc_watch_t send_watch;
    uint8_t pad1[SHC_HOT_PAD];
    /* consumer */
    shc_ring_cursor_t read; /* behind the last message taken; ahead of head while messages are held */
    shc_ring_cursor_t tail_copy;
    uint64_t received;
    uint64_t peak;
    shc_watch_t receive_watch;
    uint32_t hold_first, hold_last; /* free-running; holds[i % SHC_RING_HOLDS] */
    shc_ring_hold_t holds[SHC_RING_HOLDS];
} shc_ring_t;

extern const shc_seg_spec_t shc_ring_spec;

/* Bytes of the body for data_bytes, a power of two in [MIN, MAX]. */
uint64_t shc_ring_body_size(uint64_t data_bytes);

/* For shc_seg_create: an empty ring is all zero. */
void shc_ring_init(shc_seg_t *seg);

/* Binds the private handle to an attached segment. Takes no end. */
void shc_ring_open(shc_ring_t *ring, shc_seg_t *seg);

/* Takes an end for this process and loads its cursor. 0; SHC_OWNER_DIED: done, from a dead process; SHC_BUSY: a
 * living process has it; SHC_E_CORRUPT: its cursors cannot be. Fine to call when the end is ours already. */
SHC_MUST_USE int shc_ring_take(shc_ring_t *ring, int end);

/* Gives an end back, if it is ours. Nothing may be staged or held. */
void shc_ring_drop(shc_ring_t *ring, int end);

/* The process that holds an end, 0 if none. */
uint32_t shc_ring_holder_pid(const shc_ring_t *ring, int end);

/* ---- producer ---- */

/* Finds contiguous room for a payload of at least `need` bytes. *room >= need is all that may be written at *dst. */
SHC_MUST_USE int shc_ring_claim(shc_ring_t *ring, uint64_t need, uint8_t **dst, uint64_t *room);

/* Writes the record's head behind which the payload stands. Not yet visible. */
void shc_ring_stage(shc_ring_t *ring, uint32_t length, uint8_t tag);

/* Messages that the consumer gave back between two values of send_watch.seen. */
static inline uint64_t
shc_ring_freed(uint64_t before, uint64_t after)
{
    return ((after >> 40) - (before >> 40)) & SHC_RING_COUNT_MASK;
}

/* Makes all staged messages visible: the commit. */
static SHC_ALWAYS_INLINE void
shc_ring_publish(shc_ring_t *ring)
{
    uint64_t word = ring->tail.position | ring->tail.count << 40;
    shc_a64_store_release(&ring->shm->tail, word); /* R1 */
    shc_a64_store_relaxed(&ring->shm->sent, ring->sent);
}

/* ---- consumer ---- */

/* The oldest message not yet taken. */
SHC_MUST_USE int shc_ring_front(shc_ring_t *ring, shc_ring_message_t *msg);

/* Messages known to be there and not taken. */
static inline uint64_t
shc_ring_ahead(const shc_ring_t *ring)
{
    return (ring->tail_copy.count - ring->read.count) & SHC_RING_COUNT_MASK;
}

/* Goes past a message that has been copied out. Its space is free after give_back. */
void shc_ring_consume(shc_ring_t *ring, const shc_ring_message_t *msg);

/* Goes past a message whose memory stays in use until the hold is marked released. SHC_E_LEASES: too many are held. */
SHC_MUST_USE int shc_ring_hold(shc_ring_t *ring, const shc_ring_message_t *msg, uint32_t *hold);

/* The holder of `hold` is done with it. Nothing shared changes before settle. */
void shc_ring_mark_released(shc_ring_t *ring, uint32_t hold);

/* Lets the producer have the space of released holds, oldest first; true if there was some (then notify `space`). */
SHC_MUST_USE bool shc_ring_settle_holds(shc_ring_t *ring);

/* Lets the producer have the space of what was consumed, as far as no hold is older. */
static SHC_ALWAYS_INLINE void
shc_ring_give_back(shc_ring_t *ring)
{
    if (SHC_UNLIKELY(ring->hold_first != ring->hold_last))
        return;
    uint64_t word = ring->read.position | ring->read.count << 40;
    shc_a64_store_release(&ring->shm->head, word); /* R2 */
    shc_a64_store_relaxed(&ring->shm->received, ring->received);
}

/* Forgets everything that is published and not yet taken. */
SHC_MUST_USE int shc_ring_clear(shc_ring_t *ring);

/* ---- anybody ---- */

/* No more sends; with `immediate`, what is left is not delivered. Wakes everybody. Sticky. */
void shc_ring_shutdown(shc_ring_t *ring, bool immediate);

static inline uint32_t
shc_ring_shutdown_flags(const shc_ring_t *ring)
{
    return shc_a32_load_relaxed(&ring->shm->shutdown);
}

/* Messages published and not given back, and their bytes: hints while others work. */
void shc_ring_backlog(const shc_ring_t *ring, uint64_t *messages, uint64_t *bytes);

/* Messages that this process, the consumer, has taken and not given back. */
uint64_t shc_ring_held(const shc_ring_t *ring);

/* Read-only walk over all records: 0 or SHC_E_CORRUPT. The ring must be at rest. */
SHC_MUST_USE int shc_ring_check(const shc_ring_t *ring);

#endif
