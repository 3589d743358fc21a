/* Receiving: copied out, looked at, or read in place. */
#include "py/py_ring.h"

typedef struct receive_op {
    pyshc_operation_t base;
    bool copy;
    bool peek;
    pyshc_lease_t *lease; /* copy == false: made before the end is entered */
    PyObject *result;     /* decoded while the end was entered, or NULL: finish `in` */
    pyshc_incoming_t in;
    PyObject *wrapped; /* a message with an envelope, copied out, or NULL */
    uint8_t tag;       /* of that, */
    uint64_t place;    /* and where it stood */
} receive_op_t;

/* ---- decoding, the end entered ---- */

static void
keep(pyshc_shared_t *shared, pyshc_lease_t *lease, shc_ref_t extent)
{
    lease->extent = extent;
    lease->epoch = shared->seg.epoch;
    lease->shared = shared;
}

/* Goes past a message in the ring. With a lease that somebody kept, its memory stays in use. */
static int
take_inline(pyshc_shared_t *shared, const shc_ring_message_t *msg, pyshc_lease_t *lease)
{
    if (lease == NULL) {
        shc_ring_finish(&shared->ring, msg);
        return 0;
    }
    int r = shc_ring_hold(&shared->ring, msg, &lease->hold);
    if (r != 0)
        return r;
    pyshc_shared_add_end_user(shared, SHC_RING_CONSUMER);
    keep(shared, lease, SHC_ARENA_NOTHING);
    return 0;
}

/* Goes past one with memory of its own, which is ours before the record is the producer's again. A lease keeps the
 * memory, and not the ring's. */
static int
take_large(pyshc_shared_t *shared, const shc_ring_message_t *msg, shc_ref_t extent, pyshc_lease_t *lease)
{
    int r = pyshc_ring_adopt_extent(shared, extent);
    if (r == PYSHC_RAISED)
        return r;
    shc_ring_finish(&shared->ring, msg);
    if (r != 0)
        return SHC_E_CORRUPT; /* a stranger wrote to the word of its memory since it was read */
    if (lease == NULL) {
        pyshc_ring_release_extent(shared, extent);
        return 0;
    }
    pyshc_shared_add_user(shared);
    keep(shared, lease, extent);
    return 0;
}

/* Where a message lies. */
typedef struct source {
    const shc_ring_message_t *msg;
    const uint8_t *payload;
    size_t length;
    uint8_t tag;
    shc_ref_t extent; /* SHC_ARENA_NOTHING: in the ring */
} source_t;

static int
take(pyshc_shared_t *shared, const source_t *from, pyshc_lease_t *lease)
{
    if (from->extent == SHC_ARENA_NOTHING)
        return take_inline(shared, from->msg, lease);
    return take_large(shared, from->msg, from->extent, lease);
}

/* 0; PYSHC_RAISED: no memory. A descriptor that leads nowhere is left as a message with a tag that nothing has. */
static int
locate(pyshc_shared_t *shared, const shc_ring_message_t *msg, source_t *from)
{
    shc_extent_t extent;
    *from = (source_t){.msg = msg, .payload = msg->payload, .length = msg->length, .tag = msg->tag};
    if (SHC_LIKELY((msg->tag & SHC_EXTENT_TAG) == 0) || !shared->ring.has_extents)
        return 0;
    int r = pyshc_ring_read_extent(shared, msg, &extent);
    if (r == 0)
        *from = (source_t){.msg = msg,
                           .payload = extent.memory,
                           .length = (size_t)extent.length,
                           .tag = (uint8_t)(msg->tag & ~SHC_EXTENT_TAG),
                           .extent = extent.ref};
    return r == PYSHC_RAISED ? r : 0;
}

static bool
has_lease_left(const shc_ring_t *ring)
{
    return ring->hold_last - ring->hold_first < SHC_RING_HOLDS;
}

/* Copies a message out that is opened when the end has been left: that may take long, and runs Python code. */
static int
read_wrapped(receive_op_t *op, const source_t *from)
{
    pyshc_shared_t *shared = op->base.handle->shared;
    op->place = pyshc_ring_place_to_receive(&shared->ring);
    op->tag = from->tag;
    op->wrapped = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)from->length);
    if (op->wrapped == NULL)
        return PYSHC_RAISED;
    shc_racy_copy(PyBytes_AS_STRING(op->wrapped), from->payload, from->length);
    int r = op->peek ? 0 : take(shared, from, NULL);
    if (r != 0)
        Py_CLEAR(op->wrapped);
    return r;
}

/* One message that is not plain, into op. */
static int
read_message(receive_op_t *op, const shc_ring_message_t *msg)
{
    pyshc_handle_t *h = op->base.handle;
    pyshc_lease_t *lease = op->copy ? NULL : op->lease;
    source_t from;
    if (locate(h->shared, msg, &from) != 0)
        return PYSHC_RAISED;
    if (SHC_UNLIKELY(pyshc_envelope_is_wrapped(&h->envelope, from.tag)))
        return read_wrapped(op, &from);
    if (lease != NULL) {
        if (from.extent == SHC_ARENA_NOTHING && !has_lease_left(&h->shared->ring))
            return SHC_E_LEASES;
        lease->payload = from.payload;
        lease->length = (Py_ssize_t)from.length;
    }
    int r = pyshc_incoming_read(h->st, &h->codec, from.tag, from.payload, from.length, (PyObject *)lease, &op->in);
    if (r == PYSHC_NEED_NUMPY)
        return r;
    if (r != 0 && !PyErr_ExceptionMatches(h->st->CorruptedError) && !PyErr_ExceptionMatches(h->st->NotEncodableError))
        return PYSHC_RAISED; /* no memory: the message stays */
    if (op->peek)
        return r != 0 ? PYSHC_RAISED : 0;
    /* A message that cannot be read is gone past, or it would stand in the way for ever. */
    int taken = take(h->shared, &from, r == 0 && lease != NULL && op->in.holds_owner ? lease : NULL);
    if (r == 0 && taken != 0)
        pyshc_incoming_clear(&op->in);
    return r != 0 ? PYSHC_RAISED : taken;
}

/* A plain value needs no second step. */
static SHC_ALWAYS_INLINE int
read_fast(pyshc_handle_t *h, const shc_ring_message_t *msg, PyObject **result)
{
    *result = pyshc_fast_read(h->st, &h->codec, msg->tag, msg->payload, msg->length);
    return SHC_LIKELY(*result != NULL) ? 0 : PyErr_Occurred() ? PYSHC_RAISED : SHC_AGAIN;
}

static int
receive_attempt(pyshc_operation_t *base)
{
    receive_op_t *op = (receive_op_t *)base;
    pyshc_handle_t *h = base->handle;
    pyshc_shared_t *shared = h->shared;
    shc_ring_message_t msg;
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (r != 0)
        return r;
    r = pyshc_ring_front(shared, &msg);
    base->gained = shc_ring_ahead(&shared->ring);
    if (r == 0 && op->copy) {
        r = read_fast(h, &msg, &op->result);
        if (r == 0 && !op->peek)
            shc_ring_finish(&shared->ring, &msg);
        else if (r == SHC_AGAIN)
            r = read_message(op, &msg);
    } else if (r == 0) {
        r = read_message(op, &msg);
    }
    base->watch = shared->ring.receive_watch;
    pyshc_ring_leave_receive(shared);
    if (r == 0 || r == PYSHC_RAISED)
        shc_event_notify_one(&shared->ring.shm->space);
    return r;
}

/* ---- the operation ---- */

/* Nothing has come for a while. With the end entered: at the interpreter's end another thread may let it go, and must
 * not take what this one is just giving back to the system for something that was left behind. */
static void
on_idle(pyshc_operation_t *op)
{
    if (pyshc_ring_enter(op->handle, SHC_RING_CONSUMER) != 0) {
        PyErr_Clear(); /* the next attempt says so */
        return;
    }
    pyshc_ring_trim_extents(op->handle->shared);
    pyshc_ring_leave_receive(op->handle->shared);
}

static PyObject *
finish(receive_op_t *op)
{
    pyshc_handle_t *h = op->base.handle;
    if (op->result != NULL)
        return op->result;
    if (op->wrapped == NULL)
        return op->peek ? pyshc_incoming_peek(&op->in) : pyshc_incoming_finish(&op->in);
    PyObject *value = pyshc_envelope_open(h, op->tag, op->wrapped, op->place, pyshc_ring_message_max(&h->shared->ring),
                                          op->copy, op->peek);
    Py_CLEAR(op->wrapped);
    return value;
}

static int
receive_once(receive_op_t *op, uint64_t deadline_ns, PyObject **result)
{
    pyshc_handle_t *h = op->base.handle;
    if (!op->copy && (op->lease = pyshc_lease_new(h->st)) == NULL)
        return PYSHC_RAISED;
    op->result = NULL;
    op->wrapped = NULL;
    int r = pyshc_wait(&op->base, deadline_ns);
    if (r == 0)
        *result = finish(op);
    Py_CLEAR(op->lease);
    return r == 0 && *result == NULL ? PYSHC_RAISED : r;
}

static int
receive_any(pyshc_handle_t *h, uint64_t deadline_ns, bool copy, bool peek, PyObject **result)
{
    receive_op_t op;
    op.base = (pyshc_operation_t){.attempt = receive_attempt,
                                  .handle = h,
                                  .would_block = SHC_EMPTY,
                                  .event = &h->shared->ring.shm->items,
                                  .spin = &h->shared->receive_spin,
                                  .idle = on_idle};
    op.copy = copy;
    op.peek = peek;
    op.lease = NULL;
    int r = receive_once(&op, deadline_ns, result);
    if (r != PYSHC_NEED_NUMPY)
        return r;
    if (pyshc_numpy_import(h->st, PYSHC_ARRAY_ARRIVED) != 0)
        return PYSHC_RAISED;
    return receive_once(&op, deadline_ns, result);
}

/* gained: NULL, or how many messages a look found. */
static SHC_ALWAYS_INLINE int
receive_fast(pyshc_handle_t *h, PyObject **result, uint64_t *gained)
{
    shc_ring_message_t msg;
    pyshc_shared_t *shared = h->shared;
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (SHC_UNLIKELY(r != 0))
        return r;
    r = shc_ring_front(&shared->ring, &msg);
    if (gained != NULL)
        *gained = shc_ring_ahead(&shared->ring);
    if (SHC_LIKELY(r == 0))
        r = read_fast(h, &msg, result);
    if (SHC_LIKELY(r == 0)) {
        shc_ring_finish(&shared->ring, &msg);
    }
    pyshc_ring_leave_receive(shared);
    if (SHC_LIKELY(r == 0))
        shc_event_notify_one(&shared->ring.shm->space);
    return r;
}

/* What is known to be there has been taken; the caller may wait. */
static SHC_NOINLINE int
receive_looking(pyshc_handle_t *h, uint64_t deadline_ns, PyObject **result)
{
    uint64_t gained = 0;
    shc_pace_t *pace = &h->shared->receive_spin.pace;
    shc_pace_before_look(pace, deadline_ns);
    int r = receive_fast(h, result, &gained);
    if (SHC_LIKELY(r == 0 || r == SHC_AGAIN))
        shc_pace_after_look(pace, gained);
    return r;
}

static SHC_ALWAYS_INLINE int
receive_one(pyshc_handle_t *h, uint64_t deadline_ns, PyObject **result)
{
    int r;
    /* In free-threaded builds other threads may be moving that cursor: it is not looked at outside of the lock. */
    if (!PYSHC_FREE_THREADED && SHC_UNLIKELY(deadline_ns != 0 && shc_ring_must_look(&h->shared->ring)))
        r = receive_looking(h, deadline_ns, result);
    else
        r = receive_fast(h, result, NULL);
    if (SHC_UNLIKELY(r == SHC_AGAIN || (r == SHC_EMPTY && deadline_ns != 0)))
        r = receive_any(h, deadline_ns, true, false, result);
    return r;
}

/* A plain value that is known to be there. NULL, without an exception: nothing has happened, whatever the reason. */
static SHC_ALWAYS_INLINE PyObject *
receive_quickly(pyshc_handle_t *h)
{
    shc_ring_message_t msg;
    PyObject *result = NULL;
    if (!pyshc_ring_enter_quickly(h, SHC_RING_CONSUMER))
        return NULL;
    pyshc_shared_t *shared = h->shared;
    shc_ring_t *ring = &shared->ring;
    bool there = SHC_LIKELY(!shc_ring_must_look(ring)) && SHC_LIKELY(shc_ring_front(ring, &msg) == 0);
    if (there && msg.tag != SHC_WIRE_VALUE) /* which may have to run the collector */
        result = pyshc_fast_read(h->st, &h->codec, msg.tag, msg.payload, msg.length);
    if (SHC_LIKELY(result != NULL)) {
        shc_ring_finish(ring, &msg);
        pyshc_ring_leave_receive(shared);
        shc_event_notify_one(&ring->shm->space);
        return result;
    }
    pyshc_ring_leave_receive(shared);
    PyErr_Clear(); /* no memory: the usual way will find that out, too */
    return NULL;
}

static SHC_NOINLINE PyObject *
receive_parsed(pyshc_handle_t *h, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", "copy"};
    uint64_t deadline_ns;
    bool copy = true;
    PyObject *values[2], *result = NULL;
    if (!pyshc_parse("receive", args, nargs, kwnames, names, 2, 1, 0, values) ||
        !pyshc_parse_timeout(values[0], &deadline_ns) || !pyshc_parse_flag(values[1], &copy))
        return NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r =
        SHC_LIKELY(copy) ? receive_one(h, deadline_ns, &result) : receive_any(h, deadline_ns, false, false, &result);
    if (SHC_UNLIKELY(r != 0))
        result = pyshc_channel_raise(h, r);
    pyshc_handle_unpin(h);
    return result;
}

PyObject *
pyshc_ring_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *result = SHC_LIKELY(nargs == 0 && kwnames == NULL) ? receive_quickly(h) : NULL;
    return SHC_LIKELY(result != NULL) ? result : receive_parsed(h, args, nargs, kwnames);
}

static PyObject *
or_default(pyshc_handle_t *h, int r, PyObject *result, PyObject *fallback)
{
    if (SHC_LIKELY(r == 0))
        return result;
    return r == SHC_EMPTY ? Py_NewRef(fallback) : pyshc_channel_raise(h, r);
}

PyObject *
pyshc_ring_try_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"default"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *fallback = Py_None, *values[1], *result;
    if (nargs != 0 || kwnames != NULL) {
        if (!pyshc_parse("try_receive", args, nargs, kwnames, names, 1, 1, 0, values))
            return NULL;
        fallback = values[0];
    }
    result = receive_quickly(h);
    if (SHC_LIKELY(result != NULL))
        return result;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = receive_one(h, 0, &result);
    result = or_default(h, r, result, fallback);
    pyshc_handle_unpin(h);
    return result;
}

PyObject *
pyshc_ring_peek(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"default"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *fallback = Py_None, *values[1], *result = NULL;
    if (nargs != 0 || kwnames != NULL) {
        if (!pyshc_parse("peek", args, nargs, kwnames, names, 1, 1, 0, values))
            return NULL;
        fallback = values[0];
    }
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = receive_any(h, 0, true, true, &result);
    result = or_default(h, r, result, fallback);
    pyshc_handle_unpin(h);
    return result;
}

PyObject *
pyshc_ring_next(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *result = receive_quickly(h);
    if (SHC_LIKELY(result != NULL))
        return result;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = receive_one(h, SHC_NEVER, &result);
    if (SHC_UNLIKELY(r != 0))
        result = r == SHC_SHUTDOWN ? NULL : pyshc_channel_raise(h, r); /* NULL alone ends the iteration */
    pyshc_handle_unpin(h);
    return result;
}

/* ---- batches ---- */

/* A list that is being filled; `room` items fit without a call. */
typedef struct batch {
    PyObject *list; /* NULL until something is expected */
    Py_ssize_t room;
} batch_t;

/* More is not made room for at once, whatever is asked. */
#define BATCH_ROOM_MAX 4096

/* About how many messages are there; those that are held count, too. */
static uint64_t
backlog_of(const pyshc_handle_t *h)
{
    uint64_t messages, bytes;
    shc_ring_backlog(&h->shared->ring, &messages, &bytes);
    return messages;
}

static Py_ssize_t
batch_size(const batch_t *batch)
{
    return batch->list != NULL ? PyList_GET_SIZE(batch->list) : 0;
}

/* Makes the list, for as many messages as seem to be there. The end is not entered: a collection may run. */
static bool
batch_begin(batch_t *batch, uint64_t expected, Py_ssize_t count)
{
    if (batch->list != NULL)
        return true;
    batch->room = expected < BATCH_ROOM_MAX ? (Py_ssize_t)expected : BATCH_ROOM_MAX;
    batch->room = batch->room < count ? batch->room : count;
    batch->list = PyList_New(batch->room);
    if (batch->list == NULL)
        return false;
    Py_SET_SIZE(batch->list, 0);
    return true;
}

/* Steals item. */
static SHC_ALWAYS_INLINE bool
batch_add(batch_t *batch, PyObject *item)
{
    Py_ssize_t size = PyList_GET_SIZE(batch->list);
    if (SHC_LIKELY(size < batch->room)) {
        PyList_SET_ITEM(batch->list, size, item);
        Py_SET_SIZE(batch->list, size + 1);
        return true;
    }
    int r = PyList_Append(batch->list, item);
    Py_DECREF(item);
    return r == 0;
}

/* Up to `count` plain values under one entry of the end; gives their space back once. Returns why it stopped. */
static int
receive_run(pyshc_handle_t *h, batch_t *batch, Py_ssize_t count)
{
    shc_ring_message_t msg;
    pyshc_shared_t *shared = h->shared;
    Py_ssize_t before = PyList_GET_SIZE(batch->list), size = before;
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (r != 0)
        return r;
    while (r == 0 && size < count) {
        PyObject *item;
        r = shc_ring_front(&shared->ring, &msg);
        if (r == 0)
            r = read_fast(h, &msg, &item);
        if (r != 0)
            break;
        if (!batch_add(batch, item)) {
            r = PYSHC_RAISED;
            break;
        }
        shc_ring_consume(&shared->ring, &msg);
        size++;
    }
    if (size > before)
        shc_ring_give_back(&shared->ring);
    pyshc_ring_leave_receive(shared);
    if (size > before)
        shc_event_notify_one(&shared->ring.shm->space);
    return r;
}

/* One message of any kind, waiting if none is there. */
static int
receive_into(pyshc_handle_t *h, batch_t *batch, Py_ssize_t count, uint64_t deadline_ns)
{
    PyObject *item;
    int r = receive_any(h, deadline_ns, true, false, &item);
    if (r != 0)
        return r;
    if (batch_begin(batch, 1 + backlog_of(h), count))
        return batch_add(batch, item) ? 0 : PYSHC_RAISED;
    Py_DECREF(item);
    return PYSHC_RAISED;
}

/* Waits for the first, takes the rest as they are there. */
static int
receive_all(pyshc_handle_t *h, batch_t *batch, Py_ssize_t count, uint64_t deadline_ns)
{
    int r = 0;
    while (r == 0 && batch_size(batch) < count) {
        uint64_t expected = backlog_of(h);
        if (expected != 0 && !batch_begin(batch, expected, count))
            return PYSHC_RAISED;
        r = expected != 0 ? receive_run(h, batch, count) : SHC_EMPTY;
        bool wait = r == SHC_EMPTY && batch_size(batch) == 0;
        if (r == SHC_AGAIN || wait)
            r = receive_into(h, batch, count, wait ? deadline_ns : 0);
    }
    bool some = batch_size(batch) > 0 && (r == SHC_EMPTY || r == SHC_SHUTDOWN);
    return some ? 0 : r;
}

PyObject *
pyshc_ring_receive_batch(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"count", "timeout"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *values[2];
    uint64_t deadline_ns, count;
    if (!pyshc_parse("receive_batch", args, nargs, kwnames, names, 2, 2, 1, values) ||
        !pyshc_parse_integer(values[0], "count", 1, PY_SSIZE_T_MAX, &count) ||
        !pyshc_parse_timeout(values[1], &deadline_ns))
        return NULL;
    batch_t batch = {NULL, 0};
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = receive_all(h, &batch, (Py_ssize_t)count, deadline_ns);
    if (r != 0) {
        pyshc_channel_raise(h, r);
        if (r != SHC_EMPTY && r != SHC_SHUTDOWN)
            pyshc_error_note("received", batch.list != NULL ? Py_NewRef(batch.list) : PyList_New(0));
        Py_CLEAR(batch.list);
    }
    pyshc_handle_unpin(h);
    return batch.list;
}
