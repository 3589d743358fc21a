#include "ds/shc_ring_extent.h"

#include "base/shc_math.h"

static uint64_t
distance(uint64_t from, uint64_t to)
{
    return (to - from) & SHC_RING_POSITION_MASK;
}

/* ---- producer ---- */

int
shc_ring_claim_extent(shc_ring_t *ring, shc_arena_t *arena, uint64_t n, shc_extent_t *out)
{
    uint64_t room, head = shc_a64_load_relaxed(&ring->shm->head);
    int r = shc_ring_claim(ring, SHC_EXTENT_DESCRIPTOR, &out->descriptor, &room);
    if (r == 0)
        r = shc_extent_allocate(arena, n, out);
    if (r == SHC_FULL)
        ring->send_watch.seen = head; /* memory comes back when messages are taken, though not at that moment */
    return r;
}

void
shc_ring_stage_extent(shc_ring_t *ring, const shc_extent_t *extent, uint64_t length, uint8_t tag)
{
    shc_extent_describe(extent, length);
    shc_ring_stage(ring, SHC_EXTENT_DESCRIPTOR, tag | SHC_EXTENT_TAG);
}

/* ---- consumer ---- */

bool
shc_ring_is_gone(const shc_ring_t *ring, shc_arena_t *arena, const shc_ring_message_t *msg)
{
    shc_extent_t extent;
    return shc_ring_is_inherited(ring) && (msg->tag & SHC_EXTENT_TAG) != 0 && msg->length == SHC_EXTENT_DESCRIPTOR &&
           shc_extent_read(arena, msg->payload, msg->length, &extent) == SHC_E_STALE && shc_arena_is_ref(extent.ref) &&
           shc_arena_at(arena, extent.ref) != NULL;
}

/* Goes past a message and frees its memory. What has none is left as it is. */
static void
discard(shc_ring_t *ring, shc_arena_t *arena, const shc_ring_message_t *msg)
{
    shc_extent_t extent;
    bool is_large = (msg->tag & SHC_EXTENT_TAG) != 0 && shc_extent_read(arena, msg->payload, msg->length, &extent) == 0;
    bool is_ours = is_large && shc_arena_adopt(arena, extent.ref) == 0;
    shc_ring_finish(ring, msg);
    if (is_ours)
        (void)!shc_arena_release(arena, extent.ref);
}

int
shc_ring_clear_extents(shc_ring_t *ring, shc_arena_t *arena)
{
    shc_ring_message_t msg;
    int r = shc_ring__look(ring);
    if (r != 0)
        return r == SHC_EMPTY ? 0 : r;
    /* Only what is there now: who sends on meanwhile does not keep us here. The arena is looked at behind A1: if it is
     * fresh still, none of that is large. A record that cannot be ends the walk. */
    while (!shc_arena_is_fresh(arena) && distance(ring->read.position, ring->tail_copy.position) != 0 &&
           shc_ring__next(ring, &msg) == 0)
        discard(ring, arena, &msg);
    shc_ring__forget(ring);
    return 0;
}

/* ---- sweep ---- */

/* A look at the records from head to tail while others take them, give them back and write new ones. */
typedef struct walk {
    const shc_ring_t *ring;
    uint64_t position;
    uint64_t tail;
} walk_t;

/* Whether the record at the walk's position was not given back when it was read. If it was, the walk goes on where the
 * ring begins now. */
static bool
was_there(walk_t *walk)
{
    const shc_ring_t *ring = walk->ring;
    shc_fence_seq_cst();                                                             /* SC1 */
    uint64_t head = shc_a64_load_acquire(&ring->shm->head) & SHC_RING_POSITION_MASK; /* A2 */
    if (distance(head, walk->position) <= ring->units)
        return true;
    bool inside = distance(walk->position, head) <= distance(walk->position, walk->tail);
    walk->position = inside ? head : walk->tail;
    return false;
}

/* The record at the walk's position, read whole: 0 units if there is none. */
static uint64_t
read_record(const walk_t *walk, shc_ref_t *ref)
{
    const shc_ring_t *ring = walk->ring;
    const uint8_t *at = shc_ring_record_at(ring, walk->position);
    uint64_t head = shc_racy_u64(at), to_end = ring->units - (walk->position & (ring->units - 1));
    uint32_t length = (uint32_t)head;
    uint8_t tag = (uint8_t)(head >> 32);
    *ref = SHC_ARENA_NOTHING;
    if (head == shc_ring_record_head(ring, walk->position, SHC_RING_SKIP, 0))
        return to_end;
    uint64_t units = shc_ring_record_units(length);
    if (units > to_end || head != shc_ring_record_head(ring, walk->position, length, tag))
        return 0;
    if ((tag & SHC_EXTENT_TAG) != 0 && length == SHC_EXTENT_DESCRIPTOR)
        *ref = shc_racy_u64(at + SHC_RING_RECORD_HEAD);
    return units;
}

void
shc_ring_settle_extents(const shc_ring_t *ring, shc_arena_t *arena, uint32_t index)
{
    uint64_t head = shc_a64_load_acquire(&ring->shm->head) & SHC_RING_POSITION_MASK; /* A2 */
    uint64_t tail = shc_a64_load_acquire(&ring->shm->tail) & SHC_RING_POSITION_MASK; /* A1 */
    walk_t walk = {.ring = ring, .position = head, .tail = tail};
    /* Each step goes past a record, or to where a consumer is by now: only a scribbler makes more of them. */
    for (uint64_t step = 0; walk.position != walk.tail && step < 2 * ring->units; step++) {
        shc_ref_t ref;
        uint64_t units = read_record(&walk, &ref);
        if (!was_there(&walk))
            continue;
        if (units == 0 || units > distance(walk.position, walk.tail))
            return;
        if (shc_arena_is_ref(ref))
            shc_arena_settle(arena, index, ref);
        walk.position = (walk.position + units) & SHC_RING_POSITION_MASK;
    }
}

void
shc_ring_extents_leave(const shc_ring_t *ring, shc_arena_t *arena)
{
    if (arena->outstanding != 0)
        shc_ring_settle_extents(ring, arena, arena->seg->index);
    shc_arena_leave(arena);
}
