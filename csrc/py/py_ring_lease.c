/* Reading and writing in place: the lease over a received message, and the reservation of one to be sent. */
#include "py/py_ring.h"

#include "py/pyshc_array.h"

/* ---- lease: exporter of a received message's bytes ---- */

pyshc_lease_t *
pyshc_lease_new(pyshc_state_t *st)
{
    return (pyshc_lease_t *)st->lease_type->tp_alloc(st->lease_type, 0);
}

/* Advances head over holds that were released while their end was in use. The end is entered. */
void
pyshc_ring_release_deferred(pyshc_shared_t *shared)
{
    shared->holds_deferred = false;
    if (shc_ring_settle_holds(&shared->ring))
        shc_event_notify_one(&shared->ring.shm->space);
}

static void
release_hold(pyshc_shared_t *shared, uint32_t hold)
{
    /* A finaliser inside a call on this very end: the call settles it when it leaves. */
    if (pyshc_mutex_is_mine(&shared->receive_lock)) {
        shc_ring_mark_released(&shared->ring, hold);
        shared->holds_deferred = true;
        return;
    }
    (void)pyshc_mutex_lock(&shared->receive_lock); /* cannot fail: not ours */
    shc_ring_mark_released(&shared->ring, hold);
    bool freed = shc_ring_settle_holds(&shared->ring);
    pyshc_mutex_unlock(&shared->receive_lock);
    if (freed)
        shc_event_notify_one(&shared->ring.shm->space);
}

static void
lease_dealloc(PyObject *self)
{
    pyshc_lease_t *lease = (pyshc_lease_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    pyshc_shared_t *shared = lease->shared;
    if (shared != NULL) {
        /* In a forked child the hold is the parent's; only the mapping was ours. */
        bool ours = lease->epoch == shc_self_epoch(&pyshc_self);
        bool is_hold = lease->extent == SHC_ARENA_NOTHING;
        if (ours && is_hold)
            release_hold(shared, lease->hold);
        else if (ours)
            pyshc_ring_release_extent(shared, lease->extent);
        pyshc_shared_release(shared, ours && is_hold ? 1u << SHC_RING_CONSUMER : 0);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static int
lease_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    pyshc_lease_t *lease = (pyshc_lease_t *)self;
    return PyBuffer_FillInfo(view, self, (void *)(uintptr_t)lease->payload, lease->length, 1, flags);
}

PyDoc_STRVAR(lease_doc, "The memory of a message that was received with copy=False. Views of it keep it in use.");

static PyType_Slot lease_slots[] = {
    {Py_tp_doc, (void *)lease_doc},
    {Py_tp_dealloc, lease_dealloc},
    {Py_bf_getbuffer, lease_getbuffer},
    {0, NULL},
};

PyType_Spec pyshc_lease_spec = {
    .name = "shmcomm.Lease",
    .basicsize = sizeof(pyshc_lease_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};

/* ---- reservation: a message that is written where it will be read ---- */

enum {
    OPEN,
    COMMITTED,
    ABORTED
};

/* May be committed, aborted and viewed by any thread: critical sections keep them apart where nothing else does. A
 * section is suspended when something inside it waits, so what was checked before Python's own functions were called is
 * checked again. */
typedef struct reservation {
    PyObject_HEAD pyshc_handle_t *handle; /* strong */
    pyshc_shared_t *shared;
    uint64_t epoch;
    uint8_t *payload;
    shc_extent_t extent; /* if the message lies in one; else its reference is SHC_ARENA_NOTHING */
    size_t length;       /* of the whole payload */
    size_t offset;       /* where the user's bytes begin in it */
    uint8_t tag;
    int status;
    Py_ssize_t exports;
    pyshc_shared_t *viewed; /* once its memory was asked for: NumPy keeps the reservation, but not the buffer */
    PyObject *view;         /* weak reference to what `with` handed out, memoryview or ndarray: it holds us */
    PyObject *shape;        /* reserve_array: how to make the ndarray */
    PyObject *dtype;
    /* With a key the message is written to private memory, and encrypted into the room in the ring when it is sent. */
    PyObject *plain; /* bytes that nobody else has, or NULL */
    uint8_t *slot;
    pyshc_wrapped_t wrapped; /* while it is being sent */
} reservation_t;

int
pyshc_ring_check_reserved(pyshc_handle_t *h)
{
    uint64_t reserver = shc_a64_load_relaxed(&h->shared->reserver);
    if (SHC_LIKELY(reserver == 0))
        return 0;
    if (reserver != pyshc_thread_number())
        return shc_ring_shutdown_flags(&h->shared->ring) != 0 ? SHC_SHUTDOWN : PYSHC_RESERVED;
    PyErr_Format(PyExc_BufferError,
                 "%R has an open reservation, made by this thread, which would wait for itself: commit or abort it "
                 "before the next message",
                 h);
    return PYSHC_RAISED;
}

typedef struct reserve_op {
    pyshc_operation_t base;
    reservation_t *reservation;
    pyshc_array_plan_t *plan; /* NULL: plain bytes */
    size_t nbytes;            /* to claim */
} reserve_op_t;

/* Room in the ring, or memory of its own. */
static int
claim(reserve_op_t *op, uint64_t *room)
{
    reservation_t *r = op->reservation;
    pyshc_shared_t *shared = op->base.handle->shared;
    r->extent.ref = SHC_ARENA_NOTHING;
    if (!pyshc_ring_is_large(&shared->ring, op->nbytes))
        return shc_ring_claim(&shared->ring, op->nbytes, &r->payload, room);
    int status = pyshc_ring_claim_extent(shared, op->nbytes, &r->extent);
    if (status != 0) {
        r->extent.ref = SHC_ARENA_NOTHING;
        return status;
    }
    r->payload = r->extent.memory;
    *room = r->extent.length;
    return 0;
}

/* The same, and where the user writes. */
static int
claim_to_write(reserve_op_t *op, uint64_t *room)
{
    reservation_t *r = op->reservation;
    int status = claim(op, room);
    if (status != 0 || r->plain == NULL)
        return status;
    r->slot = r->payload;
    r->payload = (uint8_t *)PyBytes_AS_STRING(r->plain);
    *room = (uint64_t)PyBytes_GET_SIZE(r->plain);
    return 0;
}

static int
claim_bytes(reserve_op_t *op)
{
    reservation_t *r = op->reservation;
    uint64_t room;
    int status = claim_to_write(op, &room);
    r->length = r->plain != NULL ? (size_t)PyBytes_GET_SIZE(r->plain) : op->nbytes;
    r->offset = 0;
    r->tag = SHC_WIRE_BYTES;
    return status;
}

static int
claim_array(reserve_op_t *op)
{
    reservation_t *r = op->reservation;
    uint64_t room;
    int status = claim_to_write(op, &room);
    if (status != 0)
        return status;
    status = pyshc_array_begin(op->plan, r->payload, (size_t)room, &r->offset, &r->length, &r->tag);
    if (status != 0 && r->extent.ref != SHC_ARENA_NOTHING)
        pyshc_ring_release_extent(op->base.handle->shared, r->extent.ref);
    return status;
}

static int
reserve_attempt(pyshc_operation_t *base)
{
    reserve_op_t *op = (reserve_op_t *)base;
    pyshc_shared_t *shared = base->handle->shared;
    int r = pyshc_ring_enter(base->handle, SHC_RING_PRODUCER);
    if (r != 0)
        return r;
    r = pyshc_ring_check_reserved(base->handle);
    if (r == 0)
        r = op->plan != NULL ? claim_array(op) : claim_bytes(op);
    if (r == 0) {
        shc_a64_store_relaxed(&shared->reserver, pyshc_thread_number());
        pyshc_shared_add_end_user(shared, SHC_RING_PRODUCER);
        op->reservation->shared = shared;
        op->reservation->epoch = shared->seg.epoch;
    }
    base->watch = shared->ring.send_watch;
    pyshc_ring_leave_send(shared);
    return r;
}

/* Private memory for what will be encrypted, zero like that of a new segment: it may go out as it is. */
static bool
reserve_plain(reservation_t *r, size_t *nbytes)
{
    if (!r->handle->envelope.is_encrypted)
        return true;
    if (*nbytes > (size_t)PY_SSIZE_T_MAX - 2 * PYSHC_ENVELOPE_OVERHEAD) {
        PyErr_NoMemory();
        return false;
    }
    r->plain = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)*nbytes);
    if (r->plain == NULL)
        return false;
    memset(PyBytes_AS_STRING(r->plain), 0, *nbytes);
    *nbytes += PYSHC_ENVELOPE_OVERHEAD;
    return true;
}

static reservation_t *
reserve(pyshc_handle_t *h, pyshc_array_plan_t *plan, size_t nbytes, uint64_t deadline_ns)
{
    reservation_t *r = (reservation_t *)h->st->reservation_type->tp_alloc(h->st->reservation_type, 0);
    if (r == NULL)
        return NULL;
    r->handle = (pyshc_handle_t *)Py_NewRef(h);
    r->status = ABORTED; /* until it has memory */
    if (!pyshc_envelope_check(h) || !reserve_plain(r, &nbytes)) {
        Py_DECREF(r);
        return NULL;
    }
    reserve_op_t op = {.reservation = r, .plan = plan, .nbytes = nbytes};
    op.base = (pyshc_operation_t){.attempt = reserve_attempt,
                                  .handle = h,
                                  .would_block = SHC_FULL,
                                  .event = &h->shared->ring.shm->space,
                                  .spin = &h->shared->send_spin};
    int status = pyshc_ring_wait_to_send(&op.base, deadline_ns);
    if (status == 0) {
        r->status = OPEN;
        return r;
    }
    Py_DECREF(r);
    if (pyshc_channel_is_about_size(status))
        status = pyshc_ring_refuse_size(h, status, nbytes, plan == NULL);
    pyshc_channel_raise(h, status);
    return NULL;
}

PyObject *
pyshc_ring_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"nbytes", "timeout"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *values[2];
    uint64_t deadline_ns, nbytes;
    if (!pyshc_parse("reserve", args, nargs, kwnames, names, 2, 2, 1, values) ||
        !pyshc_parse_integer(values[0], "nbytes", 0, PY_SSIZE_T_MAX, &nbytes) ||
        !pyshc_parse_timeout(values[1], &deadline_ns))
        return NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *result = (PyObject *)reserve(h, NULL, (size_t)nbytes, deadline_ns);
    pyshc_handle_unpin(h);
    return result;
}

PyObject *
pyshc_ring_reserve_array(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"shape", "dtype", "timeout"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *values[3];
    uint64_t deadline_ns;
    pyshc_array_plan_t plan;
    if (!pyshc_parse("reserve_array", args, nargs, kwnames, names, 3, 3, 2, values) ||
        !pyshc_parse_timeout(values[2], &deadline_ns))
        return NULL;
    if (pyshc_array_plan(h->st, values[0], values[1], &plan) != 0)
        return NULL;
    reservation_t *r = NULL;
    size_t bound;
    if (pyshc_array_bound(&plan, &bound) == 0 && pyshc_handle_pin(h)) {
        r = reserve(h, &plan, bound, deadline_ns);
        pyshc_handle_unpin(h);
    }
    if (r != NULL) {
        r->shape = Py_NewRef(plan.shape);
        r->dtype = Py_NewRef(plan.type.dtype);
    }
    pyshc_array_plan_clear(&plan);
    return (PyObject *)r;
}

/* False with an exception: nothing was sent. */
static bool
send_claimed(reservation_t *r, shc_ring_t *ring, size_t length)
{
    if (r->plain != NULL) {
        if (pyshc_wrapped_write(&r->wrapped, pyshc_ring_place_to_send(ring), r->slot) != 0)
            return false;
        length = r->wrapped.length;
        r->tag = r->wrapped.tag;
    }
    if (r->extent.ref != SHC_ARENA_NOTHING)
        shc_ring_stage_extent(ring, &r->extent, length, r->tag);
    else
        shc_ring_stage(ring, (uint32_t)length, r->tag);
    shc_ring_publish(ring);
    return true;
}

/* Ends the reservation. In a forked child, or after the interpreter let everything go, there is nothing to publish. */
static int
finish(reservation_t *r, int status, size_t length)
{
    pyshc_shared_t *shared = r->shared;
    bool ours = r->epoch == shc_self_epoch(&pyshc_self);
    r->shared = NULL;
    if (ours) {
        /* A finaliser may come here from inside a call on this very end: then nobody else can be in it. */
        bool entered = !pyshc_mutex_is_mine(&shared->send_lock) && pyshc_mutex_lock(&shared->send_lock);
        if (status == COMMITTED && !send_claimed(r, &shared->ring, length))
            status = ABORTED;
        if (status == ABORTED && r->extent.ref != SHC_ARENA_NOTHING)
            pyshc_ring_release_extent(shared, r->extent.ref);
        shc_a64_store_relaxed(&shared->reserver, 0);
        if (entered)
            pyshc_mutex_unlock(&shared->send_lock);
        shc_event_notify_all(&shared->reservation_over);
        if (status == COMMITTED)
            shc_event_notify_one(&shared->ring.shm->items);
    }
    r->status = status;
    /* The mapping must outlive an array that the user still has: `viewed` sees to that. */
    pyshc_shared_release(shared, ours ? 1u << SHC_RING_PRODUCER : 0);
    return status;
}

static bool
check_open(const reservation_t *r)
{
    if (r->status == OPEN && r->epoch == shc_self_epoch(&pyshc_self))
        return true;
    PyErr_Format(PyExc_ValueError, "the reservation is %s already", r->status == COMMITTED ? "committed" : "aborted");
    return false;
}

static bool
check_unused(const reservation_t *r)
{
    if (r->exports == 0)
        return true;
    PyErr_SetString(PyExc_BufferError, "the reserved memory is still in use by a view");
    return false;
}

/* Takes back what `with` handed out, if it is still alive: a memoryview is released, an array becomes read-only. False
 * with an exception: the memory is still in use, by a view that is not known here. */
static bool
recall_view(reservation_t *r)
{
    const pyshc_codec_names_t *names = &r->handle->st->codec.names;
    PyObject *view = r->view != NULL ? pyshc_weakref_get(r->view) : NULL;
    if (view != NULL) {
        PyObject *done = r->dtype != NULL ? PyObject_CallMethodOneArg(view, names->n_setflags, Py_False)
                                          : PyObject_CallMethodNoArgs(view, names->n_release);
        Py_DECREF(view);
        if (done == NULL)
            return false;
        Py_DECREF(done);
    }
    Py_CLEAR(r->view);
    return check_unused(r);
}

/* Sends what was reserved. False with an exception: a view is in use; or the channel was shut down meanwhile, and the
 * reservation is over. */
static bool
send_reserved(reservation_t *r, size_t length)
{
    if (!recall_view(r))
        return false;
    pyshc_wrapped_clear(&r->wrapped, true);
    if (r->plain != NULL && pyshc_wrapped_bytes(r->handle, r->tag, r->payload, length, &r->wrapped) != 0)
        return false;
    if (!check_open(r)) /* Python code ran since it was last looked at */
        return false;
    bool is_late = shc_ring_shutdown_flags(&r->shared->ring) != 0;
    int status = finish(r, is_late ? ABORTED : COMMITTED, length);
    pyshc_wrapped_clear(&r->wrapped, true);
    if (is_late)
        pyshc_channel_raise(r->handle, SHC_SHUTDOWN);
    return status == COMMITTED;
}

PyDoc_STRVAR(commit_doc, "commit($self, /, nbytes=None)\n--\n\n"
                         "Send the message. With nbytes, only that many of the reserved bytes (reserve() only).\n\n"
                         "It may follow the channel's close(), which does not end reservations. Raises ShutDown if the "
                         "channel was shut down meanwhile,\n"
                         "ValueError if it was committed or aborted already.\n"
                         "Raises BufferError while a memoryview of the reserved memory is alive: what is sent must not "
                         "change any more. An array of\n"
                         "reserve_array() becomes read-only instead; its slices do not, and must not be written to.");

/* The length that commit() was asked to send; false with an exception if that cannot be. */
static bool
parse_length(const reservation_t *r, PyObject *nbytes, uint64_t *length)
{
    *length = r->length;
    if (nbytes == NULL || nbytes == Py_None)
        return true;
    if (r->dtype == NULL)
        return pyshc_parse_integer(nbytes, "nbytes", 0, r->length, length);
    PyErr_SetString(PyExc_TypeError, "an array is sent whole: commit() takes nbytes only after reserve()");
    return false;
}

static PyObject *
reservation_commit(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"nbytes"};
    reservation_t *r = (reservation_t *)self;
    PyObject *values[1];
    uint64_t length;
    bool sent;
    if (!pyshc_parse("commit", args, nargs, kwnames, names, 1, 1, 0, values))
        return NULL;
    PYSHC_CRITICAL_BEGIN(self);
    sent = check_open(r) && parse_length(r, values[0], &length) && send_reserved(r, (size_t)length);
    PYSHC_CRITICAL_END();
    return sent ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(
    abort_doc,
    "abort($self, /)\n--\n\nGive the reserved memory back; nothing is sent. Views of it must not be used any more.");

static bool
give_back(reservation_t *r)
{
    if (!check_open(r))
        return false;
    if (!recall_view(r))
        PyErr_Clear();  /* nothing is sent, so a view that stays alive shows memory that is not a message */
    if (!check_open(r)) /* Python code ran since it was last looked at */
        return false;
    (void)finish(r, ABORTED, 0);
    return true;
}

static PyObject *
reservation_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    bool done;
    PYSHC_CRITICAL_BEGIN(self);
    done = give_back((reservation_t *)self);
    PYSHC_CRITICAL_END();
    return done ? Py_NewRef(Py_None) : NULL;
}

/* A view holds the reservation, so that its memory stays; the reservation knows the view by a weak reference only. Who
 * drops both has ended the reservation, without the help of the collector. */
static PyObject *
hand_out(reservation_t *r)
{
    PyObject *view = r->dtype != NULL ? pyshc_array_over(r->handle->st, (PyObject *)r, r->shape, r->dtype)
                                      : PyMemoryView_FromObject((PyObject *)r);
    PyObject *known = view != NULL ? PyWeakref_NewRef(view, NULL) : NULL;
    if (known == NULL) {
        Py_XDECREF(view);
        return NULL;
    }
    Py_XSETREF(r->view, known);
    return view;
}

static PyObject *
enter(reservation_t *r)
{
    if (!check_open(r))
        return NULL;
    PyObject *view = r->view != NULL ? pyshc_weakref_get(r->view) : NULL; /* entered again: the same one */
    return view != NULL ? view : hand_out(r);
}

static PyObject *
reservation_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *view;
    PYSHC_CRITICAL_BEGIN(self);
    view = enter((reservation_t *)self);
    PYSHC_CRITICAL_END();
    return view;
}

/* At the end of a block. False with an exception. */
static bool
leave(reservation_t *r, bool failed)
{
    if (r->status != OPEN || r->epoch != shc_self_epoch(&pyshc_self))
        return true; /* committed or aborted inside the block; or forked there: it is the parent's */
    if (failed)
        return give_back(r);
    if (send_reserved(r, r->length))
        return true;
    if (r->status != OPEN)
        return false;
    /* The message was not sent because a view is alive: that is what the user must hear. */
    PyErr_Clear();
    if (give_back(r))
        PyErr_SetString(PyExc_BufferError, "the message was not sent: a view of the reserved memory is still in use; "
                                           "release it before the block ends, or use reserve_array()");
    return false;
}

static PyObject *
reservation_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    bool done;
    PYSHC_CRITICAL_BEGIN(self);
    done = leave((reservation_t *)self, nargs > 0 && args[0] != Py_None);
    PYSHC_CRITICAL_END();
    return done ? Py_NewRef(Py_None) : NULL;
}

static int
export_memory(reservation_t *r, Py_buffer *view, int flags)
{
    if (!check_open(r)) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "the reservation is over");
        return -1;
    }
    uint8_t *memory = r->payload + r->offset;
    if (PyBuffer_FillInfo(view, (PyObject *)r, memory, (Py_ssize_t)(r->length - r->offset), 0, flags) < 0)
        return -1;
    if (r->viewed == NULL) {
        r->viewed = r->shared;
        pyshc_shared_export(r->viewed);
    }
    r->exports++;
    return 0;
}

static int
reservation_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    int done;
    PYSHC_CRITICAL_BEGIN(self);
    done = export_memory((reservation_t *)self, view, flags);
    PYSHC_CRITICAL_END();
    return done;
}

static void
reservation_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    PYSHC_CRITICAL_BEGIN(self);
    ((reservation_t *)self)->exports--;
    PYSHC_CRITICAL_END();
}

static void
reservation_dealloc(PyObject *self)
{
    reservation_t *r = (reservation_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (r->status == OPEN)
        (void)finish(r, ABORTED, 0);
    if (r->viewed != NULL)
        pyshc_shared_unexport(r->viewed);
    pyshc_wrapped_clear(&r->wrapped, true);
    Py_XDECREF(r->plain);
    Py_XDECREF(r->view);
    Py_XDECREF(r->shape);
    Py_XDECREF(r->dtype);
    Py_XDECREF(r->handle);
    type->tp_free(self);
    Py_DECREF(type);
}

/* No tp_clear: a cycle through the handle is broken in the dict of the handle's subclass. */
static int
reservation_traverse(PyObject *self, visitproc visit, void *arg)
{
    reservation_t *r = (reservation_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(r->handle);
    Py_VISIT(r->view);
    return 0;
}

static PyMethodDef reservation_methods[] = {
    {"commit", (PyCFunction)(void (*)(void))reservation_commit, METH_FASTCALL | METH_KEYWORDS, commit_doc},
    {"abort", reservation_abort, METH_NOARGS, abort_doc},
    {"__enter__", reservation_enter, METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe reserved memory: a writable memoryview, or an array."},
    {"__exit__", (PyCFunction)(void (*)(void))reservation_exit, METH_FASTCALL,
     "__exit__($self, exc_type, exc, traceback, /)\n--\n\nSends the message if there is no exception: `return`, "
     "`break` and "
     "`continue` send it, too."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(reservation_doc, "A message that is written where it will be read. `with channel.reserve(n) as buf:` "
                              "hands out a writable memoryview, `with\n"
                              "channel.reserve_array(shape, dtype) as a:` an array; leaving the block sends the "
                              "message, an exception gives the memory back,\n"
                              "and so does dropping it with what it handed out. Any thread may commit or abort it.");

static PyType_Slot reservation_slots[] = {
    {Py_tp_doc, (void *)reservation_doc},
    {Py_tp_dealloc, reservation_dealloc},
    {Py_tp_traverse, reservation_traverse},
    {Py_tp_methods, reservation_methods},
    {Py_bf_getbuffer, reservation_getbuffer},
    {Py_bf_releasebuffer, reservation_releasebuffer},
    {0, NULL},
};

PyType_Spec pyshc_reservation_spec = {
    .name = "shmcomm.Reservation",
    .basicsize = sizeof(reservation_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = reservation_slots,
};
