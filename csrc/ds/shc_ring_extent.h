/* Large messages of a ring: extents in the arena behind it (ds/shc_extent.h).
 *
 * Usage. The arena's handle is the caller's, who keeps two threads from using it at once.
 *     shc_ring_extents_open(&arena, seg);                       if ring->has_extents
 *
 *     r = shc_ring_claim_extent(ring, &arena, n, &extent);      as claim; also -ENOSPC and the like
 *     fill extent.memory;  shc_ring_stage_extent(ring, &extent, length, tag);   or give it back by shc_arena_release
 *     shc_ring_publish(ring);  ...
 *
 *     r = shc_ring_front(ring, &msg);  if (msg.tag & SHC_EXTENT_TAG)     and not shc_ring_is_gone, which is gone past
 *         r = shc_extent_read(&arena, msg.payload, msg.length, &extent);          read it there
 *     r = shc_arena_adopt(&arena, extent.ref);  shc_ring_consume(ring, &msg);  shc_ring_give_back(ring);
 *     shc_arena_release(&arena, extent.ref);  notify space;     at any time later
 *
 *     shc_ring_extents_leave(ring, &arena);                     before shc_seg_leave
 *
 * Guarantees, beside those of the ring
 *   (a) What a killed producer had published is delivered; what it had not is free after its sweep.
 *   (b) If the consumer is killed before its store of `head`, its successor gets the message again, and finds its bytes
 *       as they were. What it had received is free after its sweep. While a message in the ring is held, `head` stays,
 *       and large ones behind it can be received and released: these do not come again (shc_ring_is_gone).
 *   (c) While nothing is on its way nor held, a message as large as the arena can be sent.
 *
 * Pairs
 *   A1, A2: those of ds/shc_ring.h. By A1 <- R1 a message's bytes and its descriptor are there when it is.
 *   SC1: record read, then head looked at  <->  space given back (R2), taken by the producer (A2), overwritten: who
 *        reads a record while it is overwritten sees that its space was given back. (Were it missed, a stranger's bytes
 *        would have to be the very reference of a block of the dead: it would stay with nobody until the segment ends.)
 *
 * Crash points (producer / consumer -> what stays -> who mends it)
 *   memory allocated, not published    OWNED(dead), no message refers to it    sweep frees it
 *   published                          OWNED(dead), a message refers to it     sweep settles it: ATTACHED
 *   adopted, head not stored           OWNED(dead), the message is still there sweep settles it
 *   head stored, not released          OWNED(dead), no message refers to it    sweep frees it
 *   released, not notified             nothing                                 the producer's slice ends
 *   released behind a hold in the ring a message that refers to nothing        the successor goes past it
 *   clearing                           as adopted, and so on                   sweep; the rest is there for the next
 *   leaving, some settled              ATTACHED, OWNED(dead)                   sweep goes on with it */
#ifndef SHC_RING_EXTENT_H
#define SHC_RING_EXTENT_H

#include "ds/shc_extent.h"
#include "ds/shc_ring.h"

/* Binds the caller's arena handle. */
void shc_ring_extents_open(shc_arena_t *arena, shc_seg_t *seg);

/* Room in the ring for a descriptor, and memory for at least n bytes, which is the caller's until the message is
 * published. SHC_FULL may mean either: then wait as for claim; who releases memory notifies `space`, too. */
SHC_MUST_USE int shc_ring_claim_extent(shc_ring_t *ring, shc_arena_t *arena, uint64_t n, shc_extent_t *out);

/* Stages a message of `length` bytes in claimed memory; nothing else may have been staged since. */
void shc_ring_stage_extent(shc_ring_t *ring, const shc_extent_t *extent, uint64_t length, uint8_t tag);

/* Whether a consumer before this one may have had the message that is to be read next. */
static inline bool
shc_ring_is_inherited(const shc_ring_t *ring)
{
    return (int64_t)(ring->inherited_end - ring->read.position) > 0;
}

/* Whether a message that front gave is a large one whose memory the consumer before this one had given back when it
 * died, without having come to let the producer know: to be gone past like one that was received. */
bool shc_ring_is_gone(const shc_ring_t *ring, shc_arena_t *arena, const shc_ring_message_t *msg);

/* shc_ring_clear for a ring with extents: frees the memory of what it forgets. */
SHC_MUST_USE int shc_ring_clear_extents(shc_ring_t *ring, shc_arena_t *arena);

/* For the sweep of participant `index`, or of this one when it leaves: what messages refer to is not freed. Others may
 * be at work. */
void shc_ring_settle_extents(const shc_ring_t *ring, shc_arena_t *arena, uint32_t index);

/* Gives back all that this process holds; what it has sent stays. */
void shc_ring_extents_leave(const shc_ring_t *ring, shc_arena_t *arena);

#endif
