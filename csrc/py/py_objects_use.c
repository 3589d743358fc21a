/* ObjectPool: acquiring, releasing, borrowing; the calls of factory, validate and reset. */
#include "py/py_objects.h"

static shc_objects_t *
slots_of(const pyshc_objects_t *p)
{
    return &p->h.shared->objects;
}

static bool
has_memory(const pyshc_objects_t *p)
{
    return slots_of(p)->slot_size != 0;
}

static bool
lock(const pyshc_objects_t *p)
{
    return pyshc_mutex_lock(&p->h.shared->send_lock);
}

static void
unlock(const pyshc_objects_t *p)
{
    pyshc_mutex_unlock(&p->h.shared->send_lock);
}

/* ---- entering ---- */

/* What the table says is guarded by the lock; this only tells whether it is there. */
static bool
has_table(const pyshc_objects_t *p)
{
    return shc_a64_load_relaxed(&p->table_epoch) == p->h.shared->seg.epoch;
}

/* The first time, and in a forked child: there the objects were the parent's. What they lead to (a connection, say)
 * still is, so the child builds its own, and what the parent had acquired is not the child's to give back. */
static SHC_NOINLINE bool
begin_table(pyshc_objects_t *p)
{
    pyshc_object_table_t fresh, old;
    if (!pyshc_objects_table_init(&fresh, slots_of(p)->max_size)) {
        PyErr_NoMemory();
        return false;
    }
    if (!lock(p)) {
        pyshc_objects_table_drop(&fresh);
        return false;
    }
    old = fresh;
    if (!has_table(p)) {
        old = p->table;
        p->table = fresh;
        shc_a64_store_relaxed(&p->table_epoch, p->h.shared->seg.epoch);
    }
    unlock(p);
    pyshc_objects_table_drop(&old);
    return true;
}

bool
pyshc_objects_enter(pyshc_objects_t *p)
{
    if (!pyshc_handle_pin(&p->h))
        return false;
    if (SHC_LIKELY(has_table(p)) || begin_table(p))
        return true;
    pyshc_handle_unpin(&p->h);
    return false;
}

/* ---- a slot comes ---- */

/* The newest idle object that is not in its way: it comes along to a slot that has none. */
static void
bring_object(pyshc_object_table_t *table, uint32_t slot)
{
    uint32_t from = table->newest;
    pyshc_objects_table_rouse(table, from, PYSHC_OBJECT_NONE);
    PyObject *object = pyshc_objects_table_take(table, from);
    bool put = pyshc_objects_table_put(table, slot, object);
    (void)put; /* it cannot be there: it has just been taken out */
}

/* Takes the slot of an idle object, the newest first: its object is built. */
static bool
take_built(pyshc_objects_t *p, uint32_t *slot, bool *dirty)
{
    for (uint32_t s = p->table.newest; s != PYSHC_NO_SLOT; s = p->table.entries[s].older) {
        if (shc_objects_try_take(slots_of(p), s, dirty)) {
            *slot = s;
            return true;
        }
    }
    return false;
}

/* The lock is held. 0: the slot is ours and BUSY; SHC_EMPTY; SHC_E_CORRUPT: it was ours before. */
static int
take_slot(pyshc_objects_t *p, uint32_t *slot, bool *dirty)
{
    pyshc_object_table_t *table = &p->table;
    if (!take_built(p, slot, dirty)) {
        int r = shc_objects_take(slots_of(p), slot, dirty);
        if (r != 0)
            return r;
    }
    pyshc_object_entry_t *e = &table->entries[*slot];
    if (SHC_UNLIKELY(e->state >= PYSHC_OBJECT_BUSY))
        return SHC_E_CORRUPT;
    if (e->state == PYSHC_OBJECT_IDLE)
        pyshc_objects_table_rouse(table, *slot, PYSHC_OBJECT_BUSY);
    else if (table->newest != PYSHC_NO_SLOT && !has_memory(p))
        bring_object(table, *slot);
    e->state = PYSHC_OBJECT_BUSY;
    return 0;
}

typedef struct acquisition {
    pyshc_operation_t op;
    uint32_t slot;
    bool dirty;
    PyObject *object; /* new reference, if nothing was left to do but to hand it out */
} acquisition_t;

static bool
needs_reset(const pyshc_objects_t *p, bool dirty)
{
    return dirty && p->reset != NULL && has_memory(p);
}

/* The lock is held, the slot is BUSY. */
static void
hand_out_if_ready(pyshc_objects_t *p, acquisition_t *a)
{
    pyshc_object_entry_t *e = &p->table.entries[a->slot];
    if (SHC_UNLIKELY(e->object == NULL || p->validate != NULL || needs_reset(p, a->dirty)))
        return;
    e->state = PYSHC_OBJECT_OUT;
    a->object = Py_NewRef(e->object);
}

static int
attempt_take(pyshc_operation_t *op)
{
    acquisition_t *a = (acquisition_t *)op;
    pyshc_objects_t *p = (pyshc_objects_t *)op->handle;
    if (!lock(p))
        return PYSHC_RAISED;
    int r = take_slot(p, &a->slot, &a->dirty);
    if (SHC_LIKELY(r == 0))
        hand_out_if_ready(p, a);
    unlock(p);
    return r;
}

/* ---- a slot goes ---- */

/* Gives back a slot that is BUSY. With its object, which is idle then, or without. False: CorruptedError set. */
static bool
put_back(pyshc_objects_t *p, uint32_t slot, bool keep, bool dirty)
{
    PyObject *dropped = NULL;
    if (!lock(p))
        return false;
    int r = shc_objects_give_back(slots_of(p), slot, dirty);
    if (r == 0 && keep) {
        pyshc_objects_table_rest(&p->table, slot);
    } else {
        dropped = pyshc_objects_table_take(&p->table, slot);
        p->table.entries[slot].state = PYSHC_OBJECT_NONE;
    }
    unlock(p);
    Py_XDECREF(dropped);
    if (r != 0)
        pyshc_raise(p->h.st, r, "%R", p);
    return r == 0;
}

/* An exception is set, and stays the one that is told: the slot goes back, its object goes. In a child that was forked
 * meanwhile neither is its own, and what a handle that was closed meanwhile holds goes back with it. */
static void
put_back_failed(pyshc_objects_t *p, uint32_t slot)
{
    if (pyshc_handle_is_closed(&p->h) || !pyshc_shared_is_current(p->h.shared))
        return;
    PyObject *error = pyshc_error_take();
    if (!put_back(p, slot, false, true))
        PyErr_Clear();
    pyshc_error_restore(error);
}

/* ---- the callables ---- */

static bool
call_reset(const pyshc_objects_t *p, PyObject *object)
{
    PyObject *result = PyObject_CallOneArg(p->reset, object);
    Py_XDECREF(result);
    return result != NULL;
}

/* 1, 0, or -1 with an exception set. */
static int
call_validate(const pyshc_objects_t *p, PyObject *object)
{
    if (p->validate == NULL)
        return 1;
    PyObject *result = PyObject_CallOneArg(p->validate, object);
    int valid = result != NULL ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return valid;
}

/* The memory of a slot, as long as anybody looks at it. */
typedef struct slot_memory {
    PyObject_HEAD pyshc_shared_t *shared;
    uint8_t *memory;
    Py_ssize_t size;
} slot_memory_t;

static PyObject *
view_memory(const pyshc_objects_t *p, uint32_t slot)
{
    slot_memory_t *m = PyObject_New(slot_memory_t, p->h.st->slot_memory_type);
    if (m == NULL)
        return NULL;
    m->shared = p->h.shared;
    m->memory = shc_objects_memory(slots_of(p), slot);
    m->size = (Py_ssize_t)slots_of(p)->slot_size;
    pyshc_shared_export(m->shared);
    PyObject *view = PyMemoryView_FromObject((PyObject *)m);
    Py_DECREF(m);
    return view;
}

static PyObject *
call_factory(const pyshc_objects_t *p, uint32_t slot)
{
    if (!has_memory(p))
        return PyObject_CallNoArgs(p->factory);
    PyObject *view = view_memory(p, slot);
    PyObject *object = view != NULL ? PyObject_CallOneArg(p->factory, view) : NULL;
    Py_XDECREF(view);
    return object;
}

static bool
build(pyshc_objects_t *p, uint32_t slot)
{
    PyObject *object = call_factory(p, slot);
    if (object == NULL || !pyshc_check_unchanged(&p->h) || !lock(p)) {
        Py_XDECREF(object);
        return false;
    }
    bool put = pyshc_objects_table_put(&p->table, slot, object);
    unlock(p);
    if (put)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "the factory of %R returned the same %s object again: each call must make another one", p,
                 Py_TYPE(object)->tp_name);
    Py_DECREF(object);
    return false;
}

static bool
drop_object(pyshc_objects_t *p, uint32_t slot)
{
    if (!lock(p))
        return false;
    PyObject *object = pyshc_objects_table_take(&p->table, slot);
    unlock(p);
    Py_XDECREF(object);
    return pyshc_check_unchanged(&p->h);
}

static bool
reset_if_dirty(pyshc_objects_t *p, uint32_t slot, bool dirty)
{
    if (!needs_reset(p, dirty))
        return true;
    return call_reset(p, p->table.entries[slot].object) && pyshc_check_unchanged(&p->h);
}

/* The slot is BUSY. Its object is built, clean and valid then; what was not valid counts as dirty. */
static bool
make_ready(pyshc_objects_t *p, uint32_t slot, bool dirty)
{
    pyshc_object_entry_t *e = &p->table.entries[slot];
    if (e->object != NULL) {
        if (!reset_if_dirty(p, slot, dirty))
            return false;
        int valid = call_validate(p, e->object);
        if (valid < 0 || !pyshc_check_unchanged(&p->h))
            return false;
        if (valid > 0)
            return true;
        dirty = true;
        if (!drop_object(p, slot))
            return false;
    }
    return build(p, slot) && reset_if_dirty(p, slot, dirty);
}

/* ---- acquire ---- */

/* From BUSY into the hands of the user, by way of the callables. */
static PyObject *
prepare_and_hand_out(pyshc_objects_t *p, const acquisition_t *a)
{
    if (!make_ready(p, a->slot, a->dirty)) {
        put_back_failed(p, a->slot);
        return NULL;
    }
    pyshc_object_entry_t *e = &p->table.entries[a->slot];
    PyObject *object = Py_NewRef(e->object);
    if (!lock(p)) {
        Py_DECREF(object);
        return NULL;
    }
    e->state = PYSHC_OBJECT_OUT;
    unlock(p);
    return object;
}

/* A new reference; NULL with *status: SHC_EMPTY, or else an exception is set. The pool is entered. */
static PyObject *
acquire_until(pyshc_objects_t *p, uint64_t deadline_ns, int *status)
{
    acquisition_t a = {.op = {.attempt = attempt_take,
                              .handle = &p->h,
                              .would_block = SHC_EMPTY,
                              .event = &slots_of(p)->shm->returned,
                              .spin = &p->h.shared->send_spin}};
    *status = pyshc_wait(&a.op, deadline_ns);
    if (SHC_UNLIKELY(*status != 0)) {
        if (*status != SHC_EMPTY && *status != PYSHC_RAISED)
            pyshc_raise(p->h.st, *status, "%R", p);
        return NULL;
    }
    return SHC_LIKELY(a.object != NULL) ? a.object : prepare_and_hand_out(p, &a);
}

static PyObject *
acquire(pyshc_objects_t *p, PyObject *timeout)
{
    uint64_t deadline_ns;
    int status;
    if (!pyshc_parse_timeout(timeout, &deadline_ns) || !pyshc_objects_enter(p))
        return NULL;
    PyObject *object = acquire_until(p, deadline_ns, &status);
    if (status == SHC_EMPTY)
        PyErr_Format(p->h.st->Empty, "%R: all %u objects are in use", p, (unsigned)slots_of(p)->max_size);
    pyshc_handle_unpin(&p->h);
    return object;
}

PyObject *
pyshc_objects_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"timeout"};
    PyObject *v[1];
    if (!pyshc_parse("acquire", args, nargs, kwnames, names, 1, 1, 0, v))
        return NULL;
    return acquire((pyshc_objects_t *)self, v[0]);
}

PyObject *
pyshc_objects_try_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"default"};
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    PyObject *v[1];
    int status;
    if (!pyshc_parse("try_acquire", args, nargs, kwnames, names, 1, 1, 0, v) || !pyshc_objects_enter(p))
        return NULL;
    PyObject *object = acquire_until(p, 0, &status);
    if (status == SHC_EMPTY)
        object = Py_NewRef(v[0] != NULL ? v[0] : Py_None);
    pyshc_handle_unpin(&p->h);
    return object;
}

bool
pyshc_objects_build_first(pyshc_objects_t *p, uint64_t count)
{
    int status = 0;
    if (count == 0)
        return true;
    if (!pyshc_objects_enter(p))
        return false;
    for (uint64_t i = 0; i < count && status == 0; i++) {
        PyObject *object = acquire_until(p, 0, &status);
        if (object == NULL && status != SHC_EMPTY)
            status = PYSHC_RAISED;
        Py_XDECREF(object);
    }
    bool fine = status != PYSHC_RAISED; /* others who found the name may have been faster: then there are fewer */
    for (uint32_t slot = p->table.max_size; fine && slot-- > 0;)
        fine = p->table.entries[slot].state != PYSHC_OBJECT_OUT || put_back(p, slot, true, false);
    pyshc_handle_unpin(&p->h);
    return fine;
}

/* ---- release ---- */

/* The slot of an object that the user has; it is BUSY then. PYSHC_NO_SLOT: ValueError set. */
static uint32_t
take_from_user(pyshc_objects_t *p, PyObject *object)
{
    if (!lock(p))
        return PYSHC_NO_SLOT;
    uint32_t slot = pyshc_objects_table_find(&p->table, object);
    bool ours = slot != PYSHC_NO_SLOT;
    bool out = ours && p->table.entries[slot].state == PYSHC_OBJECT_OUT;
    if (out)
        p->table.entries[slot].state = PYSHC_OBJECT_BUSY;
    unlock(p);
    if (out)
        return slot;
    PyErr_Format(PyExc_ValueError,
                 ours ? "this %s object of %R is not in use: it has been released"
                      : "this %s object was not acquired from this %R in this process",
                 Py_TYPE(object)->tp_name, p);
    return PYSHC_NO_SLOT;
}

static bool
release(pyshc_objects_t *p, PyObject *object)
{
    uint32_t slot = take_from_user(p, object);
    if (slot == PYSHC_NO_SLOT)
        return false;
    if (p->reset != NULL && !call_reset(p, object)) {
        put_back_failed(p, slot);
        return false;
    }
    /* A handle that was closed meanwhile is pinned, and may finish; but not in a child that was forked meanwhile, nor
     * when the interpreter ends and has taken all back. */
    if (SHC_UNLIKELY(!pyshc_shared_is_current(p->h.shared) || p->table.max_size == 0)) {
        pyshc_raise_changed(&p->h);
        return false;
    }
    return put_back(p, slot, true, false);
}

PyObject *
pyshc_objects_release(PyObject *self, PyObject *object)
{
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    if (!pyshc_objects_enter(p))
        return NULL;
    bool done = release(p, object);
    pyshc_handle_unpin(&p->h);
    return done ? Py_NewRef(Py_None) : NULL;
}

/* ---- dropping ---- */

/* An idle object, out of the table; NULL: there is none, or an exception is set. */
static PyObject *
take_idle(pyshc_objects_t *p)
{
    PyObject *object = NULL;
    if (!lock(p))
        return NULL;
    uint32_t slot = p->table.newest;
    if (slot != PYSHC_NO_SLOT) {
        pyshc_objects_table_rouse(&p->table, slot, PYSHC_OBJECT_NONE);
        object = pyshc_objects_table_take(&p->table, slot);
    }
    unlock(p);
    return object;
}

PyObject *
pyshc_objects_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    PyObject *object = NULL;
    if (!pyshc_objects_enter(p))
        return NULL;
    /* Counted, as finalisers may use the pool, or close it. */
    for (uint32_t n = slots_of(p)->max_size; n > 0 && !pyshc_handle_is_closed(&p->h); n--) {
        object = take_idle(p);
        if (object == NULL)
            break;
        Py_DECREF(object);
    }
    pyshc_handle_unpin(&p->h);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

void
pyshc_objects_let_go(pyshc_handle_t *h)
{
    pyshc_objects_t *p = (pyshc_objects_t *)h;
    bool current = pyshc_shared_is_current(h->shared) && has_table(p);
    for (uint32_t slot = 0; current && slot < p->table.max_size; slot++) {
        if (p->table.entries[slot].state >= PYSHC_OBJECT_BUSY)
            (void)!shc_objects_give_back(slots_of(p), slot, true); /* a word that is not ours: nothing to give back */
    }
    pyshc_objects_table_drop(&p->table);
}

/* ---- slot memory ---- */

static int
slot_memory_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    slot_memory_t *m = (slot_memory_t *)self;
    return PyBuffer_FillInfo(view, self, m->memory, m->size, 0, flags);
}

static void
slot_memory_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    pyshc_shared_unexport(((slot_memory_t *)self)->shared);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slot_memory_slots[] = {
    {Py_tp_doc, "The shared memory of one slot of an ObjectPool; it stays mapped while anything refers to it."},
    {Py_tp_dealloc, slot_memory_dealloc},
    {Py_bf_getbuffer, slot_memory_getbuffer},
    {0, NULL},
};

PyType_Spec pyshc_slot_memory_spec = {
    .name = "shmcomm._core.SlotMemory",
    .basicsize = sizeof(slot_memory_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slot_memory_slots,
};

/* ---- borrow ---- */

typedef struct borrow {
    PyObject_HEAD pyshc_objects_t *pool;
    PyObject *timeout; /* NULL: none */
    PyObject *object;  /* between enter and exit */
} borrow_t;

PyObject *
pyshc_objects_borrow(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"timeout"};
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    PyObject *v[1];
    uint64_t deadline_ns;
    if (!pyshc_parse("borrow", args, nargs, kwnames, names, 1, 1, 0, v) || !pyshc_parse_timeout(v[0], &deadline_ns) ||
        !pyshc_objects_enter(p))
        return NULL;
    borrow_t *b = (borrow_t *)p->h.st->borrow_type->tp_alloc(p->h.st->borrow_type, 0);
    if (b != NULL) {
        b->pool = (pyshc_objects_t *)Py_NewRef(self);
        b->timeout = Py_XNewRef(v[0]);
    }
    pyshc_handle_unpin(&p->h);
    return (PyObject *)b;
}

static PyObject *
borrow_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    borrow_t *b = (borrow_t *)self;
    if (b->object != NULL) {
        PyErr_Format(PyExc_RuntimeError, "an object of %R is borrowed through this already: call borrow() again",
                     b->pool);
        return NULL;
    }
    PyObject *object = acquire(b->pool, b->timeout);
    if (object == NULL)
        return NULL;
    Py_XSETREF(b->object, Py_NewRef(object));
    return object;
}

/* What a pool that was closed inside the block had handed out has gone back. */
static PyObject *
borrow_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    borrow_t *b = (borrow_t *)self;
    PyObject *object = b->object, *result = NULL;
    b->object = NULL;
    if (object == NULL)
        PyErr_Format(PyExc_RuntimeError, "nothing of %R is borrowed through this", b->pool);
    else if (pyshc_handle_is_closed(&b->pool->h))
        result = Py_NewRef(Py_None);
    else
        result = pyshc_objects_release((PyObject *)b->pool, object);
    Py_XDECREF(object);
    return result;
}

static int
borrow_traverse(PyObject *self, visitproc visit, void *arg)
{
    borrow_t *b = (borrow_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(b->pool);
    Py_VISIT(b->timeout);
    Py_VISIT(b->object);
    return 0;
}

static int
borrow_clear(PyObject *self)
{
    borrow_t *b = (borrow_t *)self;
    Py_CLEAR(b->object);
    return 0;
}

static void
borrow_dealloc(PyObject *self)
{
    borrow_t *b = (borrow_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(b->object);
    Py_XDECREF(b->timeout);
    Py_XDECREF(b->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef borrow_methods[] = {
    {"__enter__", borrow_enter, METH_NOARGS, NULL},
    {"__exit__", borrow_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot borrow_slots[] = {
    {Py_tp_doc, "`with pool.borrow() as obj:` acquires an object for the block and releases it at its end."},
    {Py_tp_dealloc, borrow_dealloc},
    {Py_tp_traverse, borrow_traverse},
    {Py_tp_clear, borrow_clear},
    {Py_tp_methods, borrow_methods},
    {0, NULL},
};

PyType_Spec pyshc_borrow_spec = {
    .name = "shmcomm._core.Borrow",
    .basicsize = sizeof(borrow_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = borrow_slots,
};
