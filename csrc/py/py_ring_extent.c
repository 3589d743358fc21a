/* Large messages of the ring: the core's functions, for the threads of one process. */
#include "py/py_ring.h"

#include <stdlib.h>

/* NULL with MemoryError, and nothing is locked. Whoever holds it does nothing but call the core. */
static shc_arena_t *
lock(pyshc_shared_t *shared)
{
    PYSHC_GUARD_LOCK(&shared->extents_guard);
    if (SHC_UNLIKELY(shared->extents == NULL)) {
        shared->extents = malloc(sizeof *shared->extents);
        if (shared->extents != NULL)
            shc_ring_extents_open(shared->extents, &shared->seg);
    }
    if (SHC_LIKELY(shared->extents != NULL))
        return shared->extents;
    PYSHC_GUARD_UNLOCK(&shared->extents_guard);
    PyErr_NoMemory();
    return NULL;
}

static void
unlock(pyshc_shared_t *shared)
{
    PYSHC_GUARD_UNLOCK(&shared->extents_guard);
}

void
pyshc_ring_reopen_extents(pyshc_shared_t *shared)
{
    memset(&shared->extents_guard, 0, sizeof shared->extents_guard);
    if (shared->extents != NULL)
        shc_ring_extents_open(shared->extents, &shared->seg); /* what was in our parent's hands is not in ours */
}

void
pyshc_ring_leave_extents(pyshc_shared_t *shared)
{
    if (shared->extents != NULL)
        shc_ring_extents_leave(&shared->ring, shared->extents);
}

int
pyshc_ring_claim_extent(pyshc_shared_t *shared, uint64_t n, shc_extent_t *out)
{
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    int r = shc_ring_claim_extent(&shared->ring, arena, n, out);
    unlock(shared);
    return r;
}

int
pyshc_ring_read_extent(pyshc_shared_t *shared, const shc_ring_message_t *msg, shc_extent_t *out)
{
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    int r = shc_extent_read(arena, msg->payload, msg->length, out);
    unlock(shared);
    return r;
}

/* Only right after the end was taken. */
static int
go_past_gone(pyshc_shared_t *shared, const shc_ring_message_t *msg)
{
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    bool gone = shc_ring_is_gone(&shared->ring, arena, msg);
    unlock(shared);
    if (!gone)
        return 0;
    shc_ring_finish(&shared->ring, msg);
    shc_event_notify_one(&shared->ring.shm->space);
    return SHC_AGAIN;
}

int
pyshc_ring_front(pyshc_shared_t *shared, shc_ring_message_t *msg)
{
    const shc_ring_t *ring = &shared->ring;
    int r;
    do {
        r = shc_ring_front(&shared->ring, msg);
        bool may_be_gone = r == 0 && ring->has_extents && shc_ring_is_inherited(ring);
        if (SHC_UNLIKELY(may_be_gone && (msg->tag & SHC_EXTENT_TAG) != 0))
            r = go_past_gone(shared, msg);
    } while (r == SHC_AGAIN);
    return r;
}

int
pyshc_ring_adopt_extent(pyshc_shared_t *shared, shc_ref_t ref)
{
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    int r = shc_arena_adopt(arena, ref);
    unlock(shared);
    return r;
}

/* The handle is there: it has given out what comes back. */
void
pyshc_ring_release_extent(pyshc_shared_t *shared, shc_ref_t ref)
{
    PYSHC_GUARD_LOCK(&shared->extents_guard);
    (void)!shc_arena_release(shared->extents, ref); /* of what is ours it fails only if a stranger wrote its word */
    unlock(shared);
    shc_event_notify_one(&shared->ring.shm->space);
}

int
pyshc_ring_clear_all(pyshc_shared_t *shared)
{
    if (!shared->ring.has_extents)
        return shc_ring_clear(&shared->ring);
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    int r = shc_ring_clear_extents(&shared->ring, arena);
    unlock(shared);
    return r;
}

int
pyshc_ring_extent_stats(pyshc_shared_t *shared, shc_arena_stats_t *out)
{
    memset(out, 0, sizeof *out);
    if (!shared->ring.has_extents)
        return 0;
    shc_arena_t *arena = lock(shared);
    if (arena == NULL)
        return PYSHC_RAISED;
    int r = shc_arena_stats(arena, out);
    unlock(shared);
    return r;
}

/* So much stays: what comes after a pause finds memory that need not be cleared by the system first. */
#define KEPT_BYTES (UINT64_C(4) << 20)

void
pyshc_ring_trim_extents(pyshc_shared_t *shared)
{
    PYSHC_GUARD_LOCK(&shared->extents_guard);
    if (shared->extents != NULL) {
        (void)shc_seg_reap_participants(&shared->seg);
        (void)shc_arena_cleanup(shared->extents, KEPT_BYTES);
    }
    unlock(shared);
}
