/* The ring's Python face, shared between its files. */
#ifndef PY_RING_H
#define PY_RING_H

#include "py/pyshc_channel.h"
#include "py/pyshc_wait.h"

/* A member of its own keeps Python from making a class of two kinds: their layouts conflict. */
typedef struct pyshc_ring_object {
    pyshc_handle_t h;
    uint32_t own_layout; /* never read */
} pyshc_ring_object_t;

/* Takes the handle's end if need be and locks it for this thread: 0, PYSHC_RAISED. */
SHC_MUST_USE int pyshc_ring_enter_slow(pyshc_handle_t *h, int end);

static inline pyshc_mutex_t *
pyshc_ring_mutex(pyshc_shared_t *shared, int end)
{
    return end == SHC_RING_PRODUCER ? &shared->send_lock : &shared->receive_lock;
}

static SHC_ALWAYS_INLINE bool
pyshc_ring_has_end(const pyshc_handle_t *h, int end)
{
    /* After a fork another handle may have made the segment this process's own: then our ends are still the
     * parent's. */
    return shc_a64_load_relaxed(&h->taken[end]) == h->shared->seg.epoch;
}

static SHC_ALWAYS_INLINE int
pyshc_ring_enter(pyshc_handle_t *h, int end)
{
    if (SHC_UNLIKELY(!pyshc_ring_has_end(h, end)))
        return pyshc_ring_enter_slow(h, end);
    if (!pyshc_mutex_lock(pyshc_ring_mutex(h->shared, end)))
        return PYSHC_RAISED;
    /* At the interpreter's end another thread may have given it up since we looked. */
    if (!PYSHC_FREE_THREADED || SHC_LIKELY(pyshc_ring_has_end(h, end)))
        return 0;
    pyshc_mutex_unlock(pyshc_ring_mutex(h->shared, end));
    return pyshc_ring_enter_slow(h, end);
}

/* For a call that neither waits nor runs Python code: with an interpreter lock nobody closes the handle or forks
 * meanwhile, so it needs no pin. False: the call goes the usual way, which finds out why. */
static SHC_ALWAYS_INLINE bool
pyshc_ring_enter_quickly(pyshc_handle_t *h, int end)
{
    /* 0 in a child that has just been forked, and for an end that was never taken. */
    uint64_t epoch = shc_self_epoch(&pyshc_self);
    return SHC_LIKELY(shc_a64_load_relaxed(&h->taken[end]) == epoch && epoch != 0) &&
           SHC_LIKELY(!pyshc_mark_load(&h->closed)) && pyshc_mutex_try(pyshc_ring_mutex(h->shared, end));
}

/* Ends the use of an end. */
static SHC_ALWAYS_INLINE void
pyshc_ring_leave_send(pyshc_shared_t *shared)
{
    pyshc_mutex_unlock(&shared->send_lock);
}

void pyshc_ring_release_deferred(pyshc_shared_t *shared);

/* Does first what releases of views by this thread had to put off. */
static SHC_ALWAYS_INLINE void
pyshc_ring_leave_receive(pyshc_shared_t *shared)
{
    if (SHC_UNLIKELY(shared->holds_deferred))
        pyshc_ring_release_deferred(shared);
    pyshc_mutex_unlock(&shared->receive_lock);
}

extern const pyshc_kind_t pyshc_ring_kind;

/* ---- large messages: py_ring_extent.c. The core's functions, with the arena's handle locked and made when it is first
 * needed: PYSHC_RAISED (MemoryError) if that cannot be. ---- */

SHC_MUST_USE int pyshc_ring_claim_extent(pyshc_shared_t *shared, uint64_t n, shc_extent_t *out);
SHC_MUST_USE int pyshc_ring_read_extent(pyshc_shared_t *shared, const shc_ring_message_t *msg, shc_extent_t *out);
/* shc_ring_front, past what is gone. */
SHC_MUST_USE int pyshc_ring_front(pyshc_shared_t *shared, shc_ring_message_t *msg);
SHC_MUST_USE int pyshc_ring_adopt_extent(pyshc_shared_t *shared, shc_ref_t ref);

/* When the process becomes a participant anew after a fork, and before it is one no longer. */
void pyshc_ring_reopen_extents(pyshc_shared_t *shared);
void pyshc_ring_leave_extents(pyshc_shared_t *shared);

/* Gives the memory back, by whoever of us claimed or adopted it; who waits for some is told. */
void pyshc_ring_release_extent(pyshc_shared_t *shared, shc_ref_t ref);

/* Forgets all messages, large ones included. The receiving end is entered. */
SHC_MUST_USE int pyshc_ring_clear_all(pyshc_shared_t *shared);

/* Figures of the memory for large messages; all zero if there is none. */
SHC_MUST_USE int pyshc_ring_extent_stats(pyshc_shared_t *shared, shc_arena_stats_t *out);

/* Gives most of what is free of it back to the system. */
void pyshc_ring_trim_extents(pyshc_shared_t *shared);

static inline bool
pyshc_ring_is_large(const shc_ring_t *ring, uint64_t length)
{
    return length > ring->payload_max && ring->has_extents;
}

/* Where a message stands, for its envelope: the cursor before it. The one that was claimed last, and the next to be
 * received. */
static inline uint64_t
pyshc_ring_place_to_send(const shc_ring_t *ring)
{
    return shc_ring_word((shc_ring_cursor_t){ring->tail.position + ring->claim_skip, ring->tail.count});
}

static inline uint64_t
pyshc_ring_place_to_receive(const shc_ring_t *ring)
{
    return shc_ring_word(ring->read);
}

/* The longest message that can ever be sent. */
static inline uint64_t
pyshc_ring_message_max(const shc_ring_t *ring)
{
    return ring->has_extents ? shc_ring_extent_bytes(ring->seg->id.config) : ring->payload_max;
}

/* Moving messages: py_ring_send.c, py_ring_receive.c, py_ring_lease.c. */
PyObject *pyshc_ring_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_try_send(PyObject *self, PyObject *obj);
PyObject *pyshc_ring_send_batch(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_try_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_peek(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_receive_batch(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_next(PyObject *self);
PyObject *pyshc_ring_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_ring_reserve_array(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* After pyshc_channel_is_about_size(): raises why a message of that many bytes, of up to that many if it is not exact,
 * cannot be; size 0: not known. Returns PYSHC_RAISED. */
SHC_COLD int pyshc_ring_refuse_size(pyshc_handle_t *h, int status, uint64_t size, bool exact);

/* Whether the sending end, which is entered, is kept by a reservation: 0 if not; PYSHC_RAISED (BufferError) if it is
 * this thread's, which would wait for itself; PYSHC_RESERVED if it is another's, or SHC_SHUTDOWN. */
SHC_MUST_USE int pyshc_ring_check_reserved(pyshc_handle_t *h);

/* Slow half: the last attempt returned PYSHC_RESERVED. */
SHC_MUST_USE int pyshc_ring_wait_reserved(pyshc_operation_t *op, uint64_t deadline_ns);

/* pyshc_wait() for an operation that sends, and whose attempt may return PYSHC_RESERVED: waits for that, too. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
pyshc_ring_wait_to_send(pyshc_operation_t *op, uint64_t deadline_ns)
{
    int r = pyshc_wait(op, deadline_ns);
    return SHC_UNLIKELY(r == PYSHC_RESERVED) ? pyshc_ring_wait_reserved(op, deadline_ns) : r;
}

/* A lease over a message: exports exactly [payload, payload + length), read-only. */
typedef struct pyshc_lease {
    PyObject_HEAD pyshc_shared_t *shared; /* NULL while it holds nothing */
    const uint8_t *payload;
    Py_ssize_t length;
    shc_ref_t extent; /* of a large message; else SHC_ARENA_NOTHING, and there is */
    uint32_t hold;    /* a hold in the ring */
    uint64_t epoch;
} pyshc_lease_t;

pyshc_lease_t *pyshc_lease_new(pyshc_state_t *st);

#endif
