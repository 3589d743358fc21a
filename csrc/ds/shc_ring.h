/* SPSC byte ring: one producer process, one consumer process, messages of any length: up to half of the ring in its
 * records, longer ones, if it has an arena, as extents (ds/shc_extent.h; ds/shc_ring_extent.h for what is to do).
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
 *   SC1: records looked at, then both cursors again  <->  head stored (R2, A2), then its space written. Who sees the
 *        new bytes sees that head has moved.
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

/* So far ahead of its tail the producer asks for the line that it will write. The consumer has read it, and a store to
 * it would wait until it came over: with the fence behind each publication, 100 ns a message where the cores are far
 * apart, and 30 when the line is asked for a dozen messages before. */
#define SHC_RING_AHEAD_UNITS 128u

typedef struct shc_ring_cursor {
    uint64_t position; /* 8-byte units */
    uint64_t count;    /* messages */
} shc_ring_cursor_t;

typedef struct shc_ring_message {
    const uint8_t *payload;
    uint32_t length;
    uint8_t tag;
    uint64_t units; /* of its record */
} shc_ring_message_t;

typedef struct shc_ring_hold {
    shc_ring_cursor_t end; /* head may advance to here once this hold and all older ones are released */
    bool released;
} shc_ring_hold_t;

/* Process-private. Each end's part lies on lines of its own.
 *
 * An end's own cursor runs freely: only the low bits of both numbers are shared, and only they are compared. Its count
 * is the total of messages, since a total whose low bits disagree with the shared count is mended at take.
 *
 * What an end may use without a look at the other follows from its cursor and its copy of the other's: room_units and
 * room_count for the producer, run_end for the consumer. */
typedef struct shc_ring {
    shc_ring_shm_t *shm;
    uint8_t *data;
    shc_seg_t *seg;
    uint64_t units; /* data_bytes / 8 */
    uint64_t capacity;
    uint64_t payload_max; /* of a record */
    uint64_t key;
    bool has_extents;
    uint8_t pad0[SHC_HOT_PAD];
    /* producer */
    shc_ring_cursor_t tail;
    uint64_t room_units; /* contiguous, behind tail; 0 while claim_skip is not */
    uint64_t room_count; /* tail.count must not pass it */
    uint64_t claim_skip; /* units to skip before the next record */
    shc_ring_cursor_t head_copy;
    shc_watch_t send_watch;
    uint8_t pad1[SHC_HOT_PAD];
    /* consumer */
    shc_ring_cursor_t read; /* behind the last message taken; ahead of head while messages are held */
    uint64_t run_end; /* position up to which records lie one behind the other: tail_copy or the end of the data */
    uint64_t inherited_end; /* where the tail was when the end was taken: a predecessor may have had what lies before */
    shc_ring_cursor_t tail_copy;
    uint64_t peak;
    shc_watch_t receive_watch;
    uint32_t hold_first, hold_last; /* free-running; holds[i % SHC_RING_HOLDS] */
    shc_ring_hold_t holds[SHC_RING_HOLDS];
} shc_ring_t;

extern const shc_seg_spec_t shc_ring_spec;

/* Bytes of a ring of data_bytes, a power of two in [MIN, MAX], without an arena: of the whole body if there is none. */
uint64_t shc_ring_body_size(uint64_t data_bytes);

/* Whether there are extents, and how many bytes of them at most: 0, or a multiple of their page. */
void shc_ring_set_extent_bytes(uint64_t config[SHC_SEG_CONFIG_WORDS], uint64_t bytes);
uint64_t shc_ring_extent_bytes(const uint64_t config[SHC_SEG_CONFIG_WORDS]);

/* Completes what shc_seg_create is told, from the number of participants and the config words in it. */
SHC_MUST_USE int shc_ring_lay_out(shc_seg_create_args_t *args);

/* For shc_seg_create: an empty ring is all zero. */
void shc_ring_init(shc_seg_t *seg);

/* Binds the private handle to an attached segment. Takes no end. */
void shc_ring_open(shc_ring_t *ring, shc_seg_t *seg);

/* Takes an end for this process and loads its cursor. 0; SHC_OWNER_DIED: done, from a dead process; SHC_BUSY: a
 * living process has it; SHC_E_CORRUPT: its cursors cannot be. Fine to call when the end is ours already,
 * with nothing staged or held: its cursor is loaded again, and holds begin anew. */
SHC_MUST_USE int shc_ring_take(shc_ring_t *ring, int end);

/* Gives an end back, if it is ours. Nothing may be staged or held. */
void shc_ring_drop(shc_ring_t *ring, int end);

/* The process that holds an end, 0 if none. */
uint32_t shc_ring_holder_pid(const shc_ring_t *ring, int end);

/* ---- records ---- */

static SHC_ALWAYS_INLINE uint64_t
shc_ring_record_units(uint64_t length)
{
    return (length + SHC_RING_RECORD_HEAD + 7) >> 3;
}

static SHC_ALWAYS_INLINE uint64_t
shc_ring_record_head(const shc_ring_t *ring, uint64_t position, uint32_t length, uint8_t tag)
{
    uint32_t mark = (uint32_t)(position ^ ring->key) << 8 | tag;
    return (uint64_t)length | (uint64_t)mark << 32;
}

static SHC_ALWAYS_INLINE uint8_t *
shc_ring_record_at(const shc_ring_t *ring, uint64_t position)
{
    return ring->data + ((position & (ring->units - 1)) << 3);
}

/* The shared word for a cursor. */
static SHC_ALWAYS_INLINE uint64_t
shc_ring_word(shc_ring_cursor_t cursor)
{
    return (cursor.position & SHC_RING_POSITION_MASK) | cursor.count << 40;
}

/* ---- producer ---- */

/* The slow half of claim: finds *room_units >= need_units. SHC_FULL, SHC_E_CORRUPT. */
SHC_MUST_USE int shc_ring__make_room(shc_ring_t *ring, uint64_t need_units, uint64_t *room_units);

/* The slow part of stage: marks the end of the data as skipped; the record comes behind it. */
void shc_ring__stage_skip(shc_ring_t *ring);

/* Finds contiguous room for a payload of at least `need` bytes. *room >= need is all that may be written at *dst. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_ring_claim(shc_ring_t *ring, uint64_t need, uint8_t **dst, uint64_t *room)
{
    if (SHC_UNLIKELY(shc_a32_load_relaxed(&ring->shm->shutdown) != 0))
        return SHC_SHUTDOWN;
    if (SHC_UNLIKELY(need > ring->payload_max))
        return SHC_E_TOO_LARGE;
    uint64_t units = shc_ring_record_units(need), room_units = ring->room_units;
    if (SHC_UNLIKELY(units > room_units || ring->tail.count == ring->room_count)) {
        int r = shc_ring__make_room(ring, units, &room_units);
        if (r != 0)
            return r;
    }
    uint64_t bytes = (room_units << 3) - SHC_RING_RECORD_HEAD;
    *room = bytes < ring->payload_max ? bytes : ring->payload_max;
    *dst = shc_ring_record_at(ring, ring->tail.position + ring->claim_skip) + SHC_RING_RECORD_HEAD;
    return 0;
}

/* Writes the record's head behind which the payload stands. Not yet visible. */
static SHC_ALWAYS_INLINE void
shc_ring_stage(shc_ring_t *ring, uint32_t length, uint8_t tag)
{
    if (SHC_UNLIKELY(ring->claim_skip != 0))
        shc_ring__stage_skip(ring);
    uint64_t position = ring->tail.position, units = shc_ring_record_units(length);
    uint64_t head = shc_ring_record_head(ring, position, length, tag);
    uint8_t *record = shc_ring_record_at(ring, position);
    ring->tail.position = position + units;
    ring->tail.count++;
    ring->room_units -= units;
    memcpy(record, &head, sizeof head);
    if (SHC_LIKELY(ring->room_units > SHC_RING_AHEAD_UNITS))
        SHC_PREFETCH_WRITE(record + SHC_RING_AHEAD_UNITS * 8);
}

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
    shc_ring_cursor_t tail = ring->tail;
    shc_ring_shm_t *shm = ring->shm;
    shc_a64_store_release(&shm->tail, shc_ring_word(tail)); /* R1 */
    shc_a64_store_relaxed(&shm->sent, tail.count);
}

/* ---- consumer ---- */

/* The slow halves of front: looks for more; tells a skip mark from a record that cannot be. */
SHC_MUST_USE int shc_ring__find_run(shc_ring_t *ring);
SHC_MUST_USE int shc_ring__skip_to_start(shc_ring_t *ring, uint64_t head);

/* The record at `read`, of which `head` was loaded once: 0, or SHC_AGAIN if it is no message. */
static SHC_ALWAYS_INLINE int
shc_ring__read_record(const shc_ring_t *ring, uint64_t head, shc_ring_message_t *msg)
{
    uint32_t length = (uint32_t)head;
    uint8_t tag = (uint8_t)(head >> 32);
    uint64_t units = shc_ring_record_units(length);
    uint64_t position = ring->read.position;
    if (SHC_UNLIKELY(units > ring->run_end - position || length > ring->payload_max ||
                     head != shc_ring_record_head(ring, position, length, tag)))
        return SHC_AGAIN;
    msg->payload = shc_ring_record_at(ring, position) + SHC_RING_RECORD_HEAD;
    msg->length = length;
    msg->tag = tag;
    msg->units = units;
    return 0;
}

/* Whether front will look at the producer's line. */
static SHC_ALWAYS_INLINE bool
shc_ring_must_look(const shc_ring_t *ring)
{
    return ring->read.position == ring->run_end;
}

/* The oldest message not yet taken. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_ring_front(shc_ring_t *ring, shc_ring_message_t *msg)
{
    if (SHC_UNLIKELY(shc_a32_load_relaxed(&ring->shm->shutdown) & SHC_RING_IMMEDIATE))
        return SHC_SHUTDOWN;
    for (;;) {
        int r = SHC_UNLIKELY(shc_ring_must_look(ring)) ? shc_ring__find_run(ring) : 0;
        if (SHC_UNLIKELY(r != 0))
            return r;
        uint64_t head = shc_racy_u64(shc_ring_record_at(ring, ring->read.position));
        if (SHC_LIKELY(shc_ring__read_record(ring, head, msg) == 0))
            return 0;
        r = shc_ring__skip_to_start(ring, head);
        if (r != 0)
            return r;
    }
}

/* Messages known to be there and not taken. */
static inline uint64_t
shc_ring_ahead(const shc_ring_t *ring)
{
    return (ring->tail_copy.count - ring->read.count) & SHC_RING_COUNT_MASK;
}

/* The newest hold ends where `read` stands, whatever was copied out since. */
void shc_ring__extend_hold(shc_ring_t *ring);

static SHC_ALWAYS_INLINE void
shc_ring__go_past(shc_ring_t *ring, const shc_ring_message_t *msg)
{
    ring->read.position += msg->units;
    ring->read.count++;
}

/* Goes past a message that has been copied out. Its space is free after give_back. */
static SHC_ALWAYS_INLINE void
shc_ring_consume(shc_ring_t *ring, const shc_ring_message_t *msg)
{
    shc_ring__go_past(ring, msg);
    if (SHC_UNLIKELY(ring->hold_first != ring->hold_last))
        shc_ring__extend_hold(ring);
}

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
    shc_ring_cursor_t read = ring->read;
    shc_ring_shm_t *shm = ring->shm;
    shc_a64_store_release(&shm->head, shc_ring_word(read)); /* R2 */
    shc_a64_store_relaxed(&shm->received, read.count);
}

/* Both, of one message. */
static SHC_ALWAYS_INLINE void
shc_ring_finish(shc_ring_t *ring, const shc_ring_message_t *msg)
{
    shc_ring_consume(ring, msg);
    shc_ring_give_back(ring);
}

/* Forgets everything that is published and not yet taken. */
SHC_MUST_USE int shc_ring_clear(shc_ring_t *ring);

/* The parts of clear, for who looks at what is forgotten: what is there now (0, SHC_EMPTY, SHC_E_CORRUPT); its next
 * message, while one is left, be it to be delivered or not; and the rest of it, unseen. */
SHC_MUST_USE int shc_ring__look(shc_ring_t *ring);
SHC_MUST_USE int shc_ring__next(shc_ring_t *ring, shc_ring_message_t *msg);
void shc_ring__forget(shc_ring_t *ring);

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

/* Read-only walk over all records, which stay as they are while neither cursor moves: 0; SHC_E_CORRUPT; SHC_AGAIN: a
 * cursor has moved meanwhile, and what was found may be due to that. */
SHC_MUST_USE int shc_ring_check(const shc_ring_t *ring);

#endif
