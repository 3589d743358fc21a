/* Sending: one message, many, or none if there is no room. */
#include "py/py_ring.h"

/* A batch is published at least this often, so that the consumer starts early. */
#define BATCH_MESSAGES 64
#define BATCH_BYTES (16 * 1024)

typedef struct send_op {
    pyshc_operation_t base;
    pyshc_outgoing_t *out;
    pyshc_wrapped_t *wrapped; /* in place of out: with an envelope */
    size_t need;
} send_op_t;

/* ---- plain values: no preparation, size known before ---- */

static SHC_ALWAYS_INLINE int
stage_plain(shc_ring_t *ring, PyObject *obj, size_t length, uint8_t tag)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(ring, length, &dst, &room);
    if (SHC_UNLIKELY(r != 0))
        return r;
    pyshc_fast_write(obj, tag, dst, length);
    shc_ring_stage(ring, (uint32_t)length, tag);
    return 0;
}

/* 0, SHC_FULL, SHC_E_TOO_LARGE, ..., PYSHC_RAISED; SHC_AGAIN: not a plain value. The end is entered. For bytes the
 * compiler knows the tag. */
static SHC_ALWAYS_INLINE int
stage_fast(pyshc_handle_t *h, PyObject *obj)
{
    size_t length;
    uint8_t tag;
    shc_ring_t *ring = &h->shared->ring;
    if (!pyshc_fast_size(&h->codec, obj, &length, &tag))
        return SHC_AGAIN;
    if (SHC_LIKELY(tag == SHC_WIRE_BYTES))
        return stage_plain(ring, obj, length, SHC_WIRE_BYTES);
    return stage_plain(ring, obj, length, tag);
}

/* The end is entered, and left. */
static SHC_ALWAYS_INLINE int
send_entered(pyshc_handle_t *h, PyObject *obj)
{
    pyshc_shared_t *shared = h->shared;
    int r = SHC_UNLIKELY(shc_a64_load_relaxed(&shared->reserver) != 0) ? SHC_AGAIN : stage_fast(h, obj);
    if (SHC_LIKELY(r == 0))
        shc_ring_publish(&shared->ring);
    pyshc_ring_leave_send(shared);
    if (SHC_LIKELY(r == 0))
        shc_event_notify_one(&shared->ring.shm->items);
    return r;
}

static SHC_NOINLINE int
send_fast(pyshc_handle_t *h, PyObject *obj)
{
    int r = pyshc_ring_enter(h, SHC_RING_PRODUCER);
    return SHC_UNLIKELY(r != 0) ? r : send_entered(h, obj);
}

/* False: nothing has happened, whatever the reason. */
static SHC_ALWAYS_INLINE bool
send_quickly(pyshc_handle_t *h, PyObject *obj)
{
    return pyshc_ring_enter_quickly(h, SHC_RING_PRODUCER) && SHC_LIKELY(send_entered(h, obj) == 0);
}

/* ---- everything else ---- */

/* Encodes into a record of the ring. *room: what it could have been long. */
static int
stage_inline(shc_ring_t *ring, pyshc_outgoing_t *out, size_t need, uint64_t *room)
{
    uint8_t *dst, tag;
    size_t length;
    int r = shc_ring_claim(ring, need, &dst, room);
    if (r == 0)
        r = pyshc_outgoing_write(out, dst, (size_t)*room, &length, &tag);
    if (r == 0)
        shc_ring_stage(ring, (uint32_t)length, tag);
    return r;
}

/* Encodes into memory of its own. */
static int
stage_large(pyshc_shared_t *shared, pyshc_outgoing_t *out, size_t need, uint64_t *room)
{
    shc_extent_t extent;
    size_t length;
    uint8_t tag;
    int r = pyshc_ring_claim_extent(shared, need, &extent);
    if (r != 0)
        return r;
    *room = extent.length;
    r = pyshc_outgoing_write(out, extent.memory, (size_t)extent.length, &length, &tag);
    if (r == 0)
        shc_ring_stage_extent(&shared->ring, &extent, length, tag);
    else
        pyshc_ring_release_extent(shared, extent.ref);
    return r;
}

/* How much to ask for, when `room` was not enough. The size is an upper bound, a little more than what is needed: only
 * what the largest room cannot take is too large. */
static int
measure(const shc_ring_t *ring, pyshc_outgoing_t *out, uint64_t room, size_t *need)
{
    int r = pyshc_outgoing_size(out, need);
    if (r != 0 || pyshc_ring_is_large(ring, *need))
        return r;
    if (*need > ring->payload_max && room < ring->payload_max)
        *need = ring->payload_max;
    if (*need <= room)
        *need = room + 1 < ring->payload_max ? room + 1 : ring->payload_max + 1;
    return 0;
}

/* Encodes where there is room. The end is entered. */
static int
stage_outgoing(pyshc_shared_t *shared, pyshc_outgoing_t *out, size_t *need)
{
    shc_ring_t *ring = &shared->ring;
    int r;
    do {
        uint64_t room = 0;
        r = pyshc_ring_is_large(ring, *need) ? stage_large(shared, out, *need, &room)
                                             : stage_inline(ring, out, *need, &room);
        if (r != PYSHC_NEED_ROOM)
            return r;
        r = measure(ring, out, room, need);
    } while (r == 0);
    return r;
}

/* What has an envelope: encrypted when it is known where it will stand. The end is entered. */
static int
stage_wrapped(pyshc_shared_t *shared, const pyshc_wrapped_t *w)
{
    shc_ring_t *ring = &shared->ring;
    shc_extent_t extent;
    uint64_t room;
    uint8_t *dst;
    bool is_large = pyshc_ring_is_large(ring, w->length);
    int r =
        is_large ? pyshc_ring_claim_extent(shared, w->length, &extent) : shc_ring_claim(ring, w->length, &dst, &room);
    if (r != 0)
        return r;
    r = pyshc_wrapped_write(w, pyshc_ring_place_to_send(ring), is_large ? extent.memory : dst);
    if (r == 0 && is_large)
        shc_ring_stage_extent(ring, &extent, w->length, w->tag);
    else if (r == 0)
        shc_ring_stage(ring, (uint32_t)w->length, w->tag);
    else if (is_large)
        pyshc_ring_release_extent(shared, extent.ref);
    return r;
}

static int
send_attempt(pyshc_operation_t *base)
{
    send_op_t *op = (send_op_t *)base;
    pyshc_handle_t *h = base->handle;
    int r = pyshc_ring_enter(h, SHC_RING_PRODUCER);
    if (r != 0)
        return r;
    uint64_t seen = h->shared->ring.send_watch.seen;
    r = pyshc_ring_check_reserved(h);
    if (r == 0)
        r = op->wrapped != NULL ? stage_wrapped(h->shared, op->wrapped) : stage_outgoing(h->shared, op->out, &op->need);
    base->gained = shc_ring_freed(seen, h->shared->ring.send_watch.seen);
    if (r == 0)
        shc_ring_publish(&h->shared->ring);
    base->watch = h->shared->ring.send_watch;
    pyshc_ring_leave_send(h->shared);
    if (r == 0)
        shc_event_notify_one(&h->shared->ring.shm->items);
    return r;
}

static void
send_op_init(send_op_t *op, pyshc_handle_t *h, pyshc_outgoing_t *out)
{
    shc_ring_t *ring = &h->shared->ring;
    op->base = (pyshc_operation_t){.attempt = send_attempt,
                                   .handle = h,
                                   .would_block = SHC_FULL,
                                   .event = &ring->shm->space,
                                   .spin = &h->shared->send_spin};
    op->out = out;
    op->wrapped = NULL;
    op->need = 0;
}

/* ---- while another thread has a reservation ----
 *
 * Then the end cannot be used, however much room there is. That is this process's own business, so it is waited for on
 * private words: `reserver` is watched, and `reservation_over` is slept on. (On `space` each message that the consumer
 * takes would wake the sleeper for nothing, and cost the consumer a system call.)
 *
 * No wake-up is lost. Whoever ends a reservation stores 0 to `reserver` and then notifies; a waiter arms and then loads
 * `reserver`. So either the waiter sees the 0, or the notifier sees it armed: SC1 of sync/shc_event.h. What ends the
 * wait otherwise notifies as well: close() and shutdown() in this process; a shutdown elsewhere is seen when the slice
 * ends. Everybody is woken, since all can go on, one after the other. That the reservation is gone is only a hint: the
 * next attempt decides, under the end's lock.
 *
 * A thread waits either for this or for room, never for both: each wait has an event of its own, and whoever leaves the
 * one for room because of a reservation passes on the wake it may have had, as always. */

static int
reservation_attempt(pyshc_operation_t *op)
{
    pyshc_shared_t *shared = op->handle->shared;
    op->watch = (shc_watch_t){.word = &shared->reserver, .seen = shc_a64_load_relaxed(&shared->reserver)};
    if (op->watch.seen == 0)
        return 0;
    return shc_ring_shutdown_flags(&shared->ring) != 0 ? SHC_SHUTDOWN : PYSHC_RESERVED;
}

static int
wait_for_reservation(pyshc_handle_t *h, uint64_t deadline_ns)
{
    pyshc_operation_t op = {.attempt = reservation_attempt,
                            .handle = h,
                            .would_block = PYSHC_RESERVED,
                            .event = &h->shared->reservation_over,
                            .spin = &h->shared->reservation_spin};
    return pyshc_wait(&op, deadline_ns);
}

int
pyshc_ring_wait_reserved(pyshc_operation_t *op, uint64_t deadline_ns)
{
    int r = PYSHC_RESERVED;
    while (r == PYSHC_RESERVED && deadline_ns != 0) {
        r = wait_for_reservation(op->handle, deadline_ns);
        if (r != 0)
            break;
        r = pyshc_wait(op, deadline_ns);
    }
    return r;
}

static int
refuse_size(pyshc_handle_t *h, int status, pyshc_outgoing_t *out)
{
    bool exact;
    uint64_t size = pyshc_outgoing_full_size(out, &exact);
    return pyshc_ring_refuse_size(h, status, size, exact);
}

/* The same for a channel with an envelope, into which the message goes before the end is entered. */
static int
send_wrapped(pyshc_handle_t *h, PyObject *obj, uint64_t deadline_ns)
{
    pyshc_wrapped_t w;
    send_op_t op;
    int r = pyshc_wrapped_make(h, obj, pyshc_ring_message_max(&h->shared->ring), &w);
    if (r == 0 && !pyshc_check_unchanged(h))
        r = PYSHC_RAISED;
    if (r == 0) {
        send_op_init(&op, h, NULL);
        op.wrapped = &w;
        r = pyshc_ring_wait_to_send(&op.base, deadline_ns);
    }
    if (SHC_UNLIKELY(pyshc_channel_is_about_size(r)))
        r = pyshc_ring_refuse_size(h, r, w.length, true);
    pyshc_wrapped_clear(&w, r == 0);
    return r;
}

/* Encodes as the codec says, falling back to pickle where it allows that, and waits for room. */
static int
send_any(pyshc_handle_t *h, PyObject *obj, uint64_t deadline_ns)
{
    if (h->envelope.is_on)
        return send_wrapped(h, obj, deadline_ns);
    pyshc_outgoing_t out;
    send_op_t op;
    int r = pyshc_outgoing_prepare(h->st, &h->codec, obj, &out);
    if (r != 0)
        return PYSHC_RAISED;
    out.limit = pyshc_ring_message_max(&h->shared->ring);
    send_op_init(&op, h, &out);
    r = pyshc_ring_wait_to_send(&op.base, deadline_ns);
    if (r == PYSHC_NOT_NATIVE) {
        r = pyshc_outgoing_pickle(&out) != 0 ? PYSHC_RAISED : 0;
        op.need = 0;
        if (r == 0)
            r = pyshc_ring_wait_to_send(&op.base, deadline_ns);
    }
    if (SHC_UNLIKELY(pyshc_channel_is_about_size(r)))
        r = refuse_size(h, r, &out);
    if (SHC_LIKELY(r == 0))
        pyshc_outgoing_clear(&out);
    else
        pyshc_outgoing_abandon(&out);
    return r;
}

static int
refuse_plain(pyshc_handle_t *h, PyObject *obj)
{
    size_t length;
    uint8_t tag;
    bool known = pyshc_fast_size(&h->codec, obj, &length, &tag);
    return pyshc_ring_refuse_size(h, SHC_E_TOO_LARGE, known ? length : 0, true);
}

static SHC_ALWAYS_INLINE int
send_one(pyshc_handle_t *h, PyObject *obj, uint64_t deadline_ns)
{
    int r = send_fast(h, obj);
    bool is_large = r == SHC_E_TOO_LARGE && h->shared->ring.has_extents;
    if (SHC_UNLIKELY(r == SHC_AGAIN || (r == SHC_FULL && deadline_ns != 0) || is_large))
        r = send_any(h, obj, deadline_ns);
    else if (SHC_UNLIKELY(r == SHC_E_TOO_LARGE))
        r = refuse_plain(h, obj);
    return r;
}

PyObject *
pyshc_ring_try_send(PyObject *self, PyObject *obj)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (SHC_LIKELY(send_quickly(h, obj)))
        Py_RETURN_TRUE;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = send_one(h, obj, 0);
    PyObject *result;
    if (SHC_LIKELY(r == 0))
        result = Py_NewRef(Py_True);
    else
        result = r == SHC_FULL || r == PYSHC_RESERVED ? Py_NewRef(Py_False) : pyshc_channel_raise(h, r);
    pyshc_handle_unpin(h);
    return result;
}

static SHC_NOINLINE PyObject *
send_parsed(pyshc_handle_t *h, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"obj", "timeout"};
    PyObject *values[2];
    uint64_t deadline_ns;
    if (!pyshc_parse("send", args, nargs, kwnames, names, 2, 2, 1, values) ||
        !pyshc_parse_timeout(values[1], &deadline_ns))
        return NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = send_one(h, values[0], deadline_ns);
    PyObject *result = SHC_LIKELY(r == 0) ? Py_NewRef(Py_None) : pyshc_channel_raise(h, r);
    pyshc_handle_unpin(h);
    return result;
}

PyObject *
pyshc_ring_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (SHC_LIKELY(nargs == 1 && kwnames == NULL) && SHC_LIKELY(send_quickly(h, args[0])))
        Py_RETURN_NONE;
    return send_parsed(h, args, nargs, kwnames);
}

/* ---- batches ----
 *
 * Objects are taken as they are sent, however many there are still to come. A list or tuple is read by index: encoding
 * may run Python code, which may change the list. An iterator is asked for an object when all before it are published,
 * and the end is not entered: it may take its time, wait for an answer to what it yielded, use the channel or close it.
 * Only what Python itself iterates over, without running anybody's code, is taken in pieces.
 *
 * A publication comes at least every BATCH_MESSAGES or BATCH_BYTES; every BATCH_MESSAGES signals are looked for. */

/* Stages plain values, as many as one publication takes. Returns why it stopped. The end is entered. */
static int
stage_run(pyshc_handle_t *h, PyObject *const *items, Py_ssize_t count, Py_ssize_t *staged)
{
    const shc_ring_t *ring = &h->shared->ring;
    uint64_t start = ring->tail.position;
    Py_ssize_t n = 0, limit = count < BATCH_MESSAGES ? count : BATCH_MESSAGES;
    int r = 0;
    while (n < limit && ((ring->tail.position - start) & SHC_RING_POSITION_MASK) < BATCH_BYTES / 8) {
        r = stage_fast(h, items[n]);
        if (r != 0)
            break;
        n++;
    }
    *staged = n;
    return r;
}

/* Whether a run can begin: not to enter the end for nothing. */
static bool
is_plain(const pyshc_handle_t *h, PyObject *sequence, Py_ssize_t at)
{
    size_t length;
    uint8_t tag;
    bool plain = false;
    PYSHC_CRITICAL_BEGIN(sequence);
    if (at < PySequence_Fast_GET_SIZE(sequence))
        plain = pyshc_fast_size(&h->codec, PySequence_Fast_ITEMS(sequence)[at], &length, &tag);
    PYSHC_CRITICAL_END();
    return plain;
}

/* Sends plain values from *done on, as many as one publication takes. */
static int
send_run(pyshc_handle_t *h, PyObject *sequence, Py_ssize_t *done)
{
    pyshc_shared_t *shared = h->shared;
    Py_ssize_t staged = 0;
    int r = pyshc_ring_enter(h, SHC_RING_PRODUCER);
    if (r != 0)
        return r;
    /* Nothing in here runs Python code or waits: the items stay where they are. */
    PYSHC_CRITICAL_BEGIN(sequence);
    Py_ssize_t left = PySequence_Fast_GET_SIZE(sequence) - *done;
    if (shc_a64_load_relaxed(&shared->reserver) != 0)
        r = SHC_AGAIN;
    else if (left > 0)
        r = stage_run(h, PySequence_Fast_ITEMS(sequence) + *done, left, &staged);
    PYSHC_CRITICAL_END();
    if (staged > 0)
        shc_ring_publish(&shared->ring);
    pyshc_ring_leave_send(shared);
    if (staged > 0)
        shc_event_notify_one(&shared->ring.shm->items);
    *done += staged;
    return r;
}

/* Sends the object at *done, whatever it is. */
static int
send_item(pyshc_handle_t *h, PyObject *sequence, uint64_t deadline_ns, Py_ssize_t *done)
{
    PyObject *obj = PySequence_GetItem(sequence, *done);
    if (obj == NULL) {
        PyErr_Clear(); /* the list has become shorter: nothing else can be wrong */
        return 0;
    }
    int r = send_any(h, obj, deadline_ns);
    Py_DECREF(obj);
    *done += r == 0;
    return r;
}

/* A list or tuple, from *done on. */
static int
send_sequence(pyshc_handle_t *h, PyObject *sequence, uint64_t deadline_ns, Py_ssize_t *done)
{
    Py_ssize_t checked = *done;
    while (*done < PySequence_Fast_GET_SIZE(sequence)) {
        bool is_due = *done - checked >= BATCH_MESSAGES;
        if ((is_due && PyErr_CheckSignals() < 0) || !pyshc_check_unchanged(h))
            return PYSHC_RAISED;
        checked = is_due ? *done : checked;
        int r = is_plain(h, sequence, *done) ? send_run(h, sequence, done) : SHC_AGAIN;
        if (r == SHC_AGAIN || r == SHC_FULL || r == SHC_E_TOO_LARGE)
            r = send_item(h, sequence, deadline_ns, done);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Whether iterating over an object runs nobody's code, so that it keeps nobody waiting. */
static bool
is_quick(PyObject *objs)
{
    static PyTypeObject *const quick[] = {&PyRange_Type,     &PyDict_Type,   &PyDictKeys_Type,  &PyDictValues_Type,
                                          &PyDictItems_Type, &PySet_Type,    &PyFrozenSet_Type, &PyBytes_Type,
                                          &PyByteArray_Type, &PyUnicode_Type};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(quick); i++) {
        if (Py_IS_TYPE(objs, quick[i]))
            return true;
    }
    return false;
}

/* The next objects of an iterator, as many as one publication takes: a new tuple, or NULL with an exception. */
static PyObject *
next_piece(PyObject *iterator)
{
    PyObject *piece = PyTuple_New(BATCH_MESSAGES), *obj;
    Py_ssize_t n = 0;
    while (piece != NULL && n < BATCH_MESSAGES && (obj = PyIter_Next(iterator)) != NULL)
        PyTuple_SET_ITEM(piece, n++, obj);
    if (PyErr_Occurred())
        Py_CLEAR(piece);
    else if (n < BATCH_MESSAGES)
        (void)_PyTuple_Resize(&piece, n); /* sets piece to NULL when it fails */
    return piece;
}

/* Nothing more is asked of an iterator when the time is over; of 0 seconds it is not: they say not to wait for room. */
static bool
is_over(uint64_t deadline_ns)
{
    return deadline_ns != 0 && deadline_ns != SHC_NEVER && shc_os_now_ns() >= deadline_ns;
}

static int
send_piece(pyshc_handle_t *h, PyObject *piece, uint64_t deadline_ns, Py_ssize_t *sent)
{
    Py_ssize_t done = 0;
    if (PyTuple_GET_SIZE(piece) > 0 && *sent > 0 && is_over(deadline_ns))
        return SHC_TIMEOUT;
    int r = send_sequence(h, piece, deadline_ns, &done);
    *sent += done;
    return r;
}

static int
send_pieces(pyshc_handle_t *h, PyObject *iterator, uint64_t deadline_ns, Py_ssize_t *sent)
{
    for (;;) {
        PyObject *piece = next_piece(iterator);
        if (piece == NULL)
            return PYSHC_RAISED;
        bool is_last = PyTuple_GET_SIZE(piece) < BATCH_MESSAGES;
        int r = send_piece(h, piece, deadline_ns, sent);
        Py_DECREF(piece);
        if (r != 0 || is_last)
            return r;
        if (PyErr_CheckSignals() < 0)
            return PYSHC_RAISED;
    }
}

static int
send_each(pyshc_handle_t *h, PyObject *iterator, uint64_t deadline_ns, Py_ssize_t *sent)
{
    PyObject *obj;
    while ((obj = PyIter_Next(iterator)) != NULL) {
        int r = pyshc_check_unchanged(h) ? send_one(h, obj, deadline_ns) : PYSHC_RAISED;
        Py_DECREF(obj);
        if (r != 0)
            return r;
        ++*sent;
        if (is_over(deadline_ns))
            return SHC_TIMEOUT;
        if ((*sent % BATCH_MESSAGES == 0 && PyErr_CheckSignals() < 0) || !pyshc_check_unchanged(h))
            return PYSHC_RAISED;
    }
    return PyErr_Occurred() ? PYSHC_RAISED : 0;
}

static int
send_all(pyshc_handle_t *h, PyObject *objs, uint64_t deadline_ns, Py_ssize_t *sent)
{
    if (PyList_CheckExact(objs) || PyTuple_CheckExact(objs))
        return send_sequence(h, objs, deadline_ns, sent);
    PyObject *iterator = PyObject_GetIter(objs);
    if (iterator == NULL)
        return PYSHC_RAISED;
    int r = is_quick(objs) ? send_pieces(h, iterator, deadline_ns, sent) : send_each(h, iterator, deadline_ns, sent);
    Py_DECREF(iterator);
    return r;
}

/* Full, with how far it came; of how many, where that costs nothing to know. */
static void
raise_time_over(pyshc_handle_t *h, int status, PyObject *objs, Py_ssize_t sent)
{
    const char *what = "the time was over";
    if (status != SHC_TIMEOUT)
        what = status == SHC_FULL ? "the channel is full" : "another thread has a reservation";
    if (PyList_CheckExact(objs) || PyTuple_CheckExact(objs) || is_quick(objs))
        PyErr_Format(h->st->Full, "%R: %s after %zd of %zd messages", h, what, sent, PyObject_Size(objs));
    else
        PyErr_Format(h->st->Full, "%R: %s after %zd messages", h, what, sent);
}

static PyObject *
send_batch(pyshc_handle_t *h, PyObject *objs, uint64_t deadline_ns)
{
    Py_ssize_t sent = 0;
    PyObject *result = NULL;
    if (pyshc_handle_pin(h)) {
        int r = send_all(h, objs, deadline_ns, &sent);
        if (r == 0)
            result = PyLong_FromSsize_t(sent);
        else if (r == SHC_FULL || r == SHC_TIMEOUT || r == PYSHC_RESERVED)
            raise_time_over(h, r, objs, sent);
        else
            pyshc_channel_raise(h, r);
        pyshc_handle_unpin(h);
    }
    if (result == NULL)
        pyshc_error_note("sent", PyLong_FromSsize_t(sent)); /* or nobody knew where to go on */
    return result;
}

PyObject *
pyshc_ring_send_batch(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"objs", "timeout"};
    PyObject *values[2];
    uint64_t deadline_ns;
    if (!pyshc_parse("send_batch", args, nargs, kwnames, names, 2, 2, 1, values) ||
        !pyshc_parse_timeout(values[1], &deadline_ns))
        return NULL;
    return send_batch((pyshc_handle_t *)self, values[0], deadline_ns);
}
