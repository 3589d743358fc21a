/* Receiving: copied out, looked at, or read in place. */
#include "py/py_ring.h"

typedef struct receive_op {
    pyshc_operation_t base;
    bool copy;
    bool peek;
    pyshc_lease_t *lease; /* copy == false: made before the end is entered */
    PyObject *result;     /* decoded while the end was entered, or NULL: finish `in` */
    pyshc_incoming_t in;
} receive_op_t;

/* ---- decoding, the end entered ---- */

/* Goes past a message. With a lease that somebody kept, its memory stays in use. */
static int
take(pyshc_shared_t *shared, const shc_ring_message_t *msg, pyshc_lease_t *lease)
{
    shc_ring_t *ring = &shared->ring;
    if (lease == NULL) {
        shc_ring_consume(ring, msg);
        shc_ring_give_back(ring);
        return 0;
    }
    int r = shc_ring_hold(ring, msg, &lease->hold);
    if (r != 0)
        return r;
    pyshc_shared_add_end_user(shared, SHC_RING_CONSUMER);
    lease->epoch = shared->seg.epoch;
    lease->shared = shared;
    return 0;
}

/* One message that is not plain, into op. */
static int
read_message(receive_op_t *op, const shc_ring_message_t *msg)
{
    pyshc_handle_t *h = op->base.handle;
    pyshc_lease_t *lease = op->copy ? NULL : op->lease;
    if (lease != NULL) {
        if (h->shared->ring.hold_last - h->shared->ring.hold_first == SHC_RING_HOLDS)
            return SHC_E_LEASES;
        lease->payload = msg->payload;
        lease->length = msg->length;
    }
    int r = pyshc_incoming_read(h->st, &h->codec, msg->tag, msg->payload, msg->length, (PyObject *)lease, &op->in);
    if (r == PYSHC_NEED_NUMPY)
        return r;
    if (r != 0 && !PyErr_ExceptionMatches(h->st->CorruptedError) && !PyErr_ExceptionMatches(h->st->NotEncodableError))
        return PYSHC_RAISED; /* no memory: the message stays */
    if (op->peek)
        return r != 0 ? PYSHC_RAISED : 0;
    /* A message that cannot be read is gone past, or it would stand in the way for ever. */
    int taken = take(h->shared, msg, r == 0 && lease != NULL && op->in.holds_owner ? lease : NULL);
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
    r = shc_ring_front(&shared->ring, &msg);
    base->gained = shc_ring_ahead(&shared->ring);
    if (r == 0 && op->copy) {
        r = read_fast(h, &msg, &op->result);
        if (r == 0 && !op->peek)
            r = take(shared, &msg, NULL);
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

static int
receive_once(receive_op_t *op, uint64_t deadline_ns, PyObject **result)
{
    pyshc_handle_t *h = op->base.handle;
    if (!op->copy && (op->lease = pyshc_lease_new(h->st)) == NULL)
        return PYSHC_RAISED;
    op->result = NULL;
    int r = pyshc_wait(&op->base, deadline_ns);
    if (r == 0)
        *result = op->result != NULL ? op->result : pyshc_incoming_finish(&op->in);
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
                                  .spin = &h->shared->receive_spin};
    op.copy = copy;
    op.peek = peek;
    op.lease = NULL;
    int r = receive_once(&op, deadline_ns, result);
    if (r != PYSHC_NEED_NUMPY)
        return r;
    if (pyshc_numpy_import(h->st) != 0)
        return PYSHC_RAISED;
    return receive_once(&op, deadline_ns, result);
}

static SHC_ALWAYS_INLINE int
receive_fast(pyshc_handle_t *h, PyObject **result)
{
    shc_ring_message_t msg;
    pyshc_shared_t *shared = h->shared;
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (SHC_UNLIKELY(r != 0))
        return r;
    r = shc_ring_front(&shared->ring, &msg);
    if (SHC_LIKELY(r == 0))
        r = read_fast(h, &msg, result);
    if (SHC_LIKELY(r == 0)) {
        shc_ring_consume(&shared->ring, &msg);
        shc_ring_give_back(&shared->ring);
    }
    pyshc_ring_leave_receive(shared);
    if (SHC_LIKELY(r == 0))
        shc_event_notify_one(&shared->ring.shm->space);
    return r;
}

static SHC_ALWAYS_INLINE int
receive_one(pyshc_handle_t *h, uint64_t deadline_ns, PyObject **result)
{
    int r = receive_fast(h, result);
    if (SHC_UNLIKELY(r == SHC_AGAIN || (r == SHC_EMPTY && deadline_ns != 0)))
        r = receive_any(h, deadline_ns, true, false, result);
    return r;
}

PyObject *
pyshc_ring_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", "copy"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    uint64_t deadline_ns = SHC_NEVER;
    bool copy = true;
    PyObject *values[2], *result = NULL;
    if ((nargs != 0 || kwnames != NULL) &&
        (!pyshc_parse("receive", args, nargs, kwnames, names, 2, 2, 0, values) ||
         !pyshc_parse_timeout(values[0], &deadline_ns) || !pyshc_parse_flag(values[1], &copy)))
        return NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r =
        SHC_LIKELY(copy) ? receive_one(h, deadline_ns, &result) : receive_any(h, deadline_ns, false, false, &result);
    if (SHC_UNLIKELY(r != 0))
        result = pyshc_ring_raise(h, r);
    pyshc_handle_unpin(h);
    return result;
}

static PyObject *
or_default(pyshc_handle_t *h, int r, PyObject *result, PyObject *fallback)
{
    if (SHC_LIKELY(r == 0))
        return result;
    return r == SHC_EMPTY ? Py_NewRef(fallback) : pyshc_ring_raise(h, r);
}

PyObject *
pyshc_ring_try_receive(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"default"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *fallback = Py_None, *values[1], *result = NULL;
    if (nargs != 0 || kwnames != NULL) {
        if (!pyshc_parse("try_receive", args, nargs, kwnames, names, 1, 1, 0, values))
            return NULL;
        fallback = values[0];
    }
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
    PyObject *result = NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = receive_one(h, SHC_NEVER, &result);
    if (SHC_UNLIKELY(r != 0))
        result = r == SHC_SHUTDOWN ? NULL : pyshc_ring_raise(h, r); /* NULL alone ends the iteration */
    pyshc_handle_unpin(h);
    return result;
}

/* ---- batches ---- */

/* Up to `count` plain values under one entry of the end; gives their space back once. Returns why it stopped. */
static int
receive_run(pyshc_handle_t *h, PyObject *list, Py_ssize_t count)
{
    shc_ring_message_t msg;
    pyshc_shared_t *shared = h->shared;
    Py_ssize_t before = PyList_GET_SIZE(list);
    int r = pyshc_ring_enter(h, SHC_RING_CONSUMER);
    if (r != 0)
        return r;
    while (r == 0 && PyList_GET_SIZE(list) < count) {
        PyObject *item;
        r = shc_ring_front(&shared->ring, &msg);
        if (r == 0)
            r = read_fast(h, &msg, &item);
        if (r != 0)
            break;
        if (PyList_Append(list, item) < 0)
            r = PYSHC_RAISED;
        else
            shc_ring_consume(&shared->ring, &msg);
        Py_DECREF(item);
    }
    bool any = PyList_GET_SIZE(list) > before;
    if (any)
        shc_ring_give_back(&shared->ring);
    pyshc_ring_leave_receive(shared);
    if (any)
        shc_event_notify_one(&shared->ring.shm->space);
    return r;
}

/* Waits for the first, takes the rest as they are there. */
static int
receive_all(pyshc_handle_t *h, PyObject *list, Py_ssize_t count, uint64_t deadline_ns)
{
    int r = 0;
    while (r == 0 && PyList_GET_SIZE(list) < count) {
        r = receive_run(h, list, count);
        bool wait = r == SHC_EMPTY && PyList_GET_SIZE(list) == 0;
        if (r != SHC_AGAIN && !wait)
            break;
        PyObject *item;
        r = receive_any(h, wait ? deadline_ns : 0, true, false, &item);
        if (r == 0) {
            r = PyList_Append(list, item) < 0 ? PYSHC_RAISED : 0;
            Py_DECREF(item);
        }
    }
    bool some = PyList_GET_SIZE(list) > 0 && (r == SHC_EMPTY || r == SHC_SHUTDOWN);
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
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    if (!pyshc_handle_pin(h)) {
        Py_DECREF(list);
        return NULL;
    }
    int r = receive_all(h, list, (Py_ssize_t)count, deadline_ns);
    if (r != 0) {
        pyshc_ring_raise(h, r);
        if (PyList_GET_SIZE(list) > 0)
            pyshc_error_note("received", Py_NewRef(list)); /* or it would be lost */
        Py_CLEAR(list);
    }
    pyshc_handle_unpin(h);
    return list;
}
