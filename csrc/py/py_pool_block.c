/* Block: memory of a pool, and how it travels from process to process. */
#include "py/py_pool.h"

#include <stddef.h>

#define NO_RECORD UINT32_MAX
/* Reserving memory takes its time: so large a block lets other threads run. */
#define DETACH_BYTES (UINT64_C(256) * 1024)

/* What a block holds. */
typedef struct hold {
    pyshc_handle_t *handle; /* strong, and pinned while `epoch` is this process's; NULL once released */
    uint64_t size;          /* that was asked for */
    shc_ref_t ref;
    uint64_t epoch;
    uint32_t record; /* NO_RECORD: nobody else can hold it */
} hold_t;

/* May be used by any thread. A critical section guards its members: none of those here waits for anything, so none is
 * suspended. Who lets go takes the hold out of the block first; `record` changes under the pool's lock, too, so that
 * who has that lock and finds the block unreleased knows it. */
typedef struct block {
    PyObject_HEAD hold_t hold;
    void *memory;
    pyshc_shared_t *viewed; /* once its memory was asked for: the mapping stays for those who keep the block, too */
    Py_ssize_t exports;
    uint64_t ticket; /* of what `handle` said, if it was asked */
    bool is_handed;
    PyObject *weakrefs;
} block_t;

/* ---- making ---- */

static SHC_ALWAYS_INLINE bool
parse_size(const pyshc_handle_t *h, PyObject *arg, uint64_t *size)
{
    uint64_t most = (uint64_t)h->shared->pool->arena.g.pages << SHC_POOL_PAGE_SHIFT;
    int64_t value;
    if (SHC_LIKELY(PyLong_CheckExact(arg)) && pyshc_long_is_compact(arg, &value) && value >= 1 &&
        (uint64_t)value <= most) {
        *size = (uint64_t)value;
        return true;
    }
    return pyshc_parse_integer(arg, "size", 1, most, size);
}

/* 0 or why there is no block. */
static SHC_ALWAYS_INLINE int
take_memory(pyshc_shared_t *shared, uint64_t size, bool shelved, shc_ref_t *ref)
{
    int r = shelved ? shc_pool_unshelve(shared->pool, size, ref) : SHC_EMPTY;
    return r == SHC_EMPTY ? shc_arena_allocate(&shared->pool->arena, size, ref) : r;
}

/* The lock is held before, and not after. */
static SHC_ALWAYS_INLINE int
find_memory(pyshc_shared_t *shared, uint64_t size, bool shelved, shc_ref_t *ref)
{
    int r = take_memory(shared, size, shelved, ref);
    pyshc_pool_unlock(shared);
    return r;
}

/* The same while other threads run. With `hard`, what dead processes held is taken back first; and rather than there be
 * no memory, the shelf is emptied. */
static SHC_NOINLINE int
find_memory_detached(pyshc_shared_t *shared, uint64_t size, bool shelved, shc_ref_t *ref, bool hard)
{
    int r;
    Py_BEGIN_ALLOW_THREADS
    {
        if (hard)
            (void)shc_seg_reap_participants(&shared->seg);
        r = take_memory(shared, size, shelved, ref);
        if (r != 0 && hard && shelved && shc_pool_clear(shared->pool) != 0)
            r = take_memory(shared, size, shelved, ref);
        pyshc_pool_unlock(shared);
    }
    Py_END_ALLOW_THREADS return r;
}

/* ---- objects: their memory is used again, as theirs is the larger part of what a block costs ---- */

/* A block without memory. */
static SHC_ALWAYS_INLINE block_t *
new_block(pyshc_state_t *st)
{
    block_t *b;
    if (!PYSHC_FREE_THREADED && SHC_LIKELY(st->n_spare_blocks != 0)) {
        b = (block_t *)PyObject_Init(st->spare_blocks[--st->n_spare_blocks], st->block_type);
        b->hold.handle = NULL;
        b->viewed = NULL;
        b->exports = 0;
        b->is_handed = false;
        b->weakrefs = NULL;
        PyObject_GC_Track((PyObject *)b);
    } else {
        b = (block_t *)st->block_type->tp_alloc(st->block_type, 0);
    }
    if (SHC_LIKELY(b != NULL))
        b->hold.record = NO_RECORD;
    return b;
}

/* The object is not tracked any more. */
static SHC_ALWAYS_INLINE void
free_block(pyshc_state_t *st, PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (!PYSHC_FREE_THREADED && SHC_LIKELY(st != NULL && st->n_spare_blocks < PYSHC_SPARE_BLOCKS))
        st->spare_blocks[st->n_spare_blocks++] = self;
    else
        type->tp_free(self);
    Py_DECREF(type);
}

void
pyshc_block_free_spare(pyshc_state_t *st)
{
    while (st->n_spare_blocks != 0)
        PyObject_GC_Del(st->spare_blocks[--st->n_spare_blocks]);
}

/* The pin is the block's from now on. */
static SHC_ALWAYS_INLINE void
fill(block_t *b, pyshc_handle_t *h, shc_ref_t ref, uint64_t size)
{
    b->hold.handle = (pyshc_handle_t *)Py_NewRef((PyObject *)h);
    b->hold.size = size;
    b->hold.ref = ref;
    b->hold.epoch = h->shared->seg.epoch;
    b->memory = shc_arena_at(&h->shared->pool->arena, ref);
}

static PyObject *
allocate(pyshc_handle_t *h, block_t *b, PyObject *arg, bool shelved)
{
    uint64_t size;
    shc_ref_t ref;
    if (!parse_size(h, arg, &size) || !pyshc_pool_lock(h))
        return NULL;
    int r = SHC_LIKELY(size < DETACH_BYTES) ? find_memory(h->shared, size, shelved, &ref)
                                            : find_memory_detached(h->shared, size, shelved, &ref, false);
    if (SHC_UNLIKELY(r != 0))
        r = pyshc_pool_lock(h) ? find_memory_detached(h->shared, size, shelved, &ref, true) : PYSHC_RAISED;
    if (SHC_UNLIKELY(r != 0))
        return pyshc_pool_refuse(h, r, size);
    fill(b, h, ref, size);
    return (PyObject *)b;
}

PyObject *
pyshc_pool_allocate(pyshc_handle_t *h, PyObject *size, bool shelved)
{
    if (!pyshc_handle_pin(h))
        return NULL;
    block_t *b = new_block(h->st);
    bool tended = pyshc_pool_is_tended((pyshc_pool_t *)h) || pyshc_pool_tend((pyshc_pool_t *)h);
    if (SHC_LIKELY(b != NULL && tended && allocate(h, b, size, shelved) != NULL))
        return (PyObject *)b;
    Py_XDECREF(b);
    pyshc_handle_unpin(h);
    return NULL;
}

/* ---- letting go ---- */

/* At the end of a process its pool has let all go. */
static SHC_ALWAYS_INLINE bool
has_ended(const pyshc_handle_t *h)
{
    return SHC_UNLIKELY(shc_a32_load_relaxed(&h->closed) == 2);
}

/* The lock is held. */
static SHC_ALWAYS_INLINE int
let_memory_go(const hold_t *hold)
{
    shc_pool_t *pool = hold->handle->shared->pool;
    if (SHC_UNLIKELY(hold->record != NO_RECORD))
        return shc_arena_drop(&pool->arena, hold->ref, hold->record);
    int r = pool->n_places != 0 ? shc_pool_shelve(pool, hold->ref, hold->size) : SHC_FULL;
    return r == SHC_FULL ? shc_arena_release(&pool->arena, hold->ref) : r;
}

/* A hold that is in no block any more. 0; SHC_E_STALE: somebody wrote over the pool's words. In a forked child it is
 * the parent's. */
static SHC_ALWAYS_INLINE int
let_go(const hold_t *hold)
{
    pyshc_handle_t *h = hold->handle;
    bool ours = SHC_LIKELY(hold->epoch == shc_self_epoch(&pyshc_self));
    int r = 0;
    if (ours && !has_ended(h) && pyshc_mutex_lock(&h->shared->send_lock)) {
        if (!has_ended(h)) /* it may have, while we waited */
            r = let_memory_go(hold);
        pyshc_pool_unlock(h->shared);
    }
    if (ours)
        pyshc_handle_unpin(h);
    Py_DECREF(h);
    return r;
}

typedef enum {
    TAKEN,
    RELEASED,
    VIEWED,
    FOREIGN
} outcome_t;

/* Takes the hold out of the block, which is released then. `by`: the pool that takes it back, or NULL. In the critical
 * section; RELEASED and TAKEN leave *hold alone or fill it, the other two say what stands in the way. */
static SHC_ALWAYS_INLINE outcome_t
take_out(block_t *b, const pyshc_handle_t *by, hold_t *hold)
{
    pyshc_handle_t *h = b->hold.handle;
    if (SHC_UNLIKELY(h == NULL))
        return RELEASED;
    if (SHC_UNLIKELY(by != NULL && h != by && h->shared != by->shared)) {
        hold->handle = (pyshc_handle_t *)Py_NewRef((PyObject *)h);
        return FOREIGN;
    }
    if (SHC_UNLIKELY(b->exports != 0)) {
        hold->size = (uint64_t)b->exports;
        return VIEWED;
    }
    *hold = b->hold;
    b->hold.handle = NULL;
    return TAKEN;
}

static PyObject *
refuse_released(void)
{
    PyErr_SetString(PyExc_ValueError, "the block was released");
    return NULL;
}

static SHC_NOINLINE PyObject *
refuse_to_release(outcome_t why, hold_t *hold, pyshc_handle_t *by)
{
    if (why == RELEASED)
        return refuse_released();
    if (why == VIEWED)
        return PyErr_Format(PyExc_BufferError, "the block is still in use by %llu view%s (memoryview, array)",
                            (unsigned long long)hold->size, hold->size == 1 ? "" : "s");
    PyErr_Format(PyExc_ValueError, "the block is of %R, not of %R", hold->handle, by);
    Py_DECREF(hold->handle);
    return NULL;
}

static SHC_ALWAYS_INLINE PyObject *
release(PyObject *self, pyshc_handle_t *by)
{
    hold_t hold;
    outcome_t outcome;
    PYSHC_CRITICAL_BEGIN(self);
    outcome = take_out((block_t *)self, by, &hold);
    PYSHC_CRITICAL_END();
    if (SHC_UNLIKELY(outcome != TAKEN))
        return refuse_to_release(outcome, &hold, by);
    pyshc_state_t *st = hold.handle->st;
    int r = let_go(&hold);
    if (SHC_UNLIKELY(r != 0))
        return pyshc_raise(st, r == SHC_E_STALE ? SHC_E_CORRUPT : r, "the released block");
    Py_RETURN_NONE;
}

static PyObject *
block_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return release(self, NULL);
}

PyObject *
pyshc_pool_release(PyObject *self, PyObject *block)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (SHC_LIKELY(Py_IS_TYPE(block, h->st->block_type)))
        return release(block, h);
    return PyErr_Format(PyExc_TypeError, "%R takes back a Block, not %s", h, Py_TYPE(block)->tp_name);
}

static void
block_dealloc(PyObject *self)
{
    block_t *b = (block_t *)self;
    /* NULL when the module is gone already: PyType_GetModule() would set an exception. */
    PyObject *module = ((PyHeapTypeObject *)Py_TYPE(self))->ht_module;
    PyObject_GC_UnTrack(self);
    if (b->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (b->hold.handle != NULL)
        (void)let_go(&b->hold); /* there is nobody to tell */
    if (b->viewed != NULL)
        pyshc_shared_unexport(b->viewed);
    free_block(module != NULL ? pyshc_state_of(module) : NULL, self);
}

/* No tp_clear: a cycle through the handle is broken in the dict of the handle's subclass. */
static int
block_traverse(PyObject *self, visitproc visit, void *arg)
{
    block_t *b = (block_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(b->hold.handle);
    return 0;
}

/* A new reference to the handle; NULL, without an exception, if the block was released. */
static pyshc_handle_t *
handle_of(PyObject *self)
{
    pyshc_handle_t *h;
    PYSHC_CRITICAL_BEGIN(self);
    h = (pyshc_handle_t *)Py_XNewRef((PyObject *)((block_t *)self)->hold.handle);
    PYSHC_CRITICAL_END();
    return h;
}

static bool
is_released(PyObject *self)
{
    pyshc_handle_t *h = handle_of(self);
    Py_XDECREF(h);
    return h == NULL;
}

static PyObject *
block_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return is_released(self) ? refuse_released() : Py_NewRef(self);
}

/* It may have been released inside. */
static PyObject *
block_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    return is_released(self) ? Py_NewRef(Py_None) : release(self, NULL);
}

/* ---- memory ---- */

/* In the critical section. */
static int
export_memory(block_t *b, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (b->hold.handle == NULL) {
        (void)refuse_released();
        return -1;
    }
    pyshc_shared_t *shared = b->hold.handle->shared;
    if (shared == NULL && b->viewed == NULL) {
        PyErr_Format(PyExc_ValueError, "the block is gone: %R is closed in this process", b->hold.handle);
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)b, b->memory, (Py_ssize_t)b->hold.size, 0, flags) < 0)
        return -1;
    if (b->viewed == NULL) {
        b->viewed = shared;
        pyshc_shared_export(shared);
    }
    b->exports++;
    return 0;
}

static int
block_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    int done;
    PYSHC_CRITICAL_BEGIN(self);
    done = export_memory((block_t *)self, view, flags);
    PYSHC_CRITICAL_END();
    return done;
}

static void
block_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    PYSHC_CRITICAL_BEGIN(self);
    ((block_t *)self)->exports--;
    PYSHC_CRITICAL_END();
}

static Py_ssize_t
block_length(PyObject *self)
{
    if (!is_released(self))
        return (Py_ssize_t)((block_t *)self)->hold.size;
    (void)refuse_released();
    return -1;
}

static PyObject *
block_get_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((block_t *)self)->hold.size);
}

static PyObject *
block_get_released(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(is_released(self));
}

static PyObject *
block_repr(PyObject *self)
{
    unsigned long long size = ((block_t *)self)->hold.size;
    pyshc_handle_t *h = handle_of(self);
    if (h == NULL)
        return PyUnicode_FromFormat("<Block of %llu bytes, released>", size);
    PyObject *text = PyUnicode_FromFormat("<Block of %llu bytes of %R>", size, h);
    Py_DECREF(h);
    return text;
}

/* ---- on its way ---- */

#define GONE SHC_GONE /* the block was released meanwhile */

/* One more holder, for whoever opens it. The lock is held. In the critical section: who has taken the hold out of the
 * block by now knows nothing of a record that comes later. */
static int
post(block_t *b, const pyshc_handle_t *h, bool for_handle, uint64_t *ticket)
{
    shc_arena_t *arena = &h->shared->pool->arena;
    int r = 0;
    if (b->hold.handle != h)
        return GONE;
    if (for_handle && b->is_handed) {
        *ticket = b->ticket;
        return 0;
    }
    if (b->hold.record == NO_RECORD) {
        r = shc_arena_lend(arena, b->hold.ref, &b->hold.record);
        if (r != 0)
            b->hold.record = NO_RECORD;
    }
    if (r == 0)
        r = shc_arena_post(arena, b->hold.ref, ticket);
    if (r == 0 && for_handle) {
        b->ticket = *ticket;
        b->is_handed = true;
    }
    return r;
}

/* The handle, referred to and pinned once more; NULL with an exception: the block cannot be sent. */
static pyshc_handle_t *
begin_sending(PyObject *self)
{
    pyshc_handle_t *h;
    bool ours = false;
    PYSHC_CRITICAL_BEGIN(self);
    const hold_t *hold = &((block_t *)self)->hold;
    h = (pyshc_handle_t *)Py_XNewRef((PyObject *)hold->handle);
    ours = h != NULL && hold->epoch == shc_self_epoch(&pyshc_self);
    if (ours)
        pyshc_count_up(&h->pins); /* the block has one already: what it pins stays, though it be closed */
    PYSHC_CRITICAL_END();
    if (ours)
        return h;
    if (h == NULL)
        return (pyshc_handle_t *)refuse_released();
    PyErr_Format(PyExc_ValueError,
                 "the block of %R is held by the process that this one was forked from: only that one can send it", h);
    Py_DECREF(h);
    return NULL;
}

static int
post_locked(PyObject *self, pyshc_handle_t *h, bool for_handle, uint64_t *ticket)
{
    int r;
    if (!pyshc_pool_lock(h))
        return PYSHC_RAISED;
    PYSHC_CRITICAL_BEGIN(self);
    r = post((block_t *)self, h, for_handle, ticket);
    PYSHC_CRITICAL_END();
    pyshc_pool_unlock(h->shared);
    return r;
}

static PyObject *
refuse_to_send(pyshc_handle_t *h, int status, uint64_t size)
{
    if (status == GONE)
        return refuse_released();
    if (status == SHC_E_LEASES)
        return PyErr_Format(PyExc_BufferError, "this process shares %u blocks of %R already: the most that one may",
                            SHC_POOL_RECORDS, h);
    return pyshc_pool_refuse(h, status == SHC_E_STALE ? SHC_E_CORRUPT : status, size);
}

/* (name, namespace, directory, shelf, key, ref, ticket, size) */
static PyObject *
make_address(PyObject *self, bool for_handle)
{
    const hold_t *hold = &((block_t *)self)->hold;
    uint64_t ticket = 0;
    pyshc_handle_t *h = begin_sending(self);
    if (h == NULL)
        return NULL;
    int r = post_locked(self, h, for_handle, &ticket);
    PyObject *address =
        r != 0 ? refuse_to_send(h, r, hold->size)
               : Py_BuildValue("(OOOiKKKK)", h->name, h->namespace, h->directory, (int)pyshc_pool_is_shelf(h->shared),
                               (unsigned long long)h->shared->seg.id.key, (unsigned long long)hold->ref,
                               (unsigned long long)ticket, (unsigned long long)hold->size);
    /* While the handle is held: another thread may release the block at any time. */
    if (address != NULL && !for_handle && !pyshc_pickle_note_posted(address)) {
        pyshc_block_unpost(h->st, address);
        Py_CLEAR(address);
    }
    pyshc_handle_unpin(h);
    Py_DECREF(h);
    return address;
}

static PyObject *
block_get_handle(PyObject *self, void *Py_UNUSED(closure))
{
    return make_address(self, true);
}

static PyObject *
block_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *address = make_address(self, false), *result = NULL;
    PyObject *attach = address != NULL ? PyObject_GetAttrString((PyObject *)Py_TYPE(self), "attach") : NULL;
    if (attach != NULL)
        result = Py_BuildValue("O(O)", attach, address);
    Py_XDECREF(attach);
    Py_XDECREF(address);
    return result;
}

typedef struct address {
    PyObject *name, *namespace, *directory; /* borrowed */
    int shelf;
    unsigned long long key, ref, ticket, size;
} address_t;

static bool
read_address(PyObject *handle, address_t *a)
{
    if (PyTuple_Check(handle) && PyTuple_GET_SIZE(handle) == 8 &&
        PyArg_ParseTuple(handle, "UUUiKKKK", &a->name, &a->namespace, &a->directory, &a->shelf, &a->key, &a->ref,
                         &a->ticket, &a->size))
        return true;
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError))
        return false;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "attach() takes the handle of a Block, not %R", handle);
    return false;
}

/* The pool of that key, by name if this process has not opened it. */
static pyshc_handle_t *
find_pool(pyshc_state_t *st, const address_t *a)
{
    pyshc_handle_t *h = pyshc_handle_find(st, &pyshc_pool_kind, a->key);
    if (h != NULL)
        return h;
    PyTypeObject *type = a->shelf ? st->buffer_pool_type : st->pool_type;
    h = pyshc_pool_attach_by(type, a->name, a->namespace, a->directory, 0, false);
    if (h == NULL || h->shared->seg.id.key == a->key)
        return h;
    PyErr_Format(PyExc_FileNotFoundError, "the pool %R that the block is of is gone: another one has its name",
                 a->name);
    Py_DECREF(h);
    return NULL;
}

void
pyshc_block_unpost(pyshc_state_t *st, PyObject *handle)
{
    PyObject *error = pyshc_error_take();
    address_t a;
    pyshc_handle_t *h = read_address(handle, &a) ? pyshc_handle_find(st, &pyshc_pool_kind, a.key) : NULL;
    if (h != NULL && pyshc_handle_pin(h)) {
        if (pyshc_pool_lock(h)) {
            (void)!shc_arena_unpost(&h->shared->pool->arena, a.ref, a.ticket);
            pyshc_pool_unlock(h->shared);
        }
        pyshc_handle_unpin(h);
    }
    Py_XDECREF(h);
    PyErr_Clear(); /* a pool that is closed holds nothing */
    pyshc_error_restore(error);
}

/* The lock is held. */
static int
collect(pyshc_handle_t *h, block_t *b, const address_t *a)
{
    shc_arena_t *arena = &h->shared->pool->arena;
    void *memory;
    uint64_t room;
    uint32_t record;
    int r = pyshc_incoming_is_peek() ? shc_arena_hold(arena, a->ref, &record)
                                     : shc_arena_collect(arena, a->ref, a->ticket, &record);
    if (r != 0)
        return r;
    r = shc_arena_resolve(arena, a->ref, &memory, &room);
    if (r == 0 && a->size >= 1 && a->size <= room) {
        fill(b, h, a->ref, a->size);
        b->hold.record = record;
        return 0;
    }
    (void)!shc_arena_drop(arena, a->ref, record);
    return SHC_E_CORRUPT;
}

static PyObject *
refuse_to_open(pyshc_handle_t *h, int status)
{
    if (status == SHC_E_STALE)
        return PyErr_Format(PyExc_ValueError,
                            "the block of %R is gone: whoever sent it has taken it back or ended, or it was opened "
                            "before and nobody holds it any more",
                            h);
    if (status == SHC_E_LEASES)
        return PyErr_Format(PyExc_BufferError, "this process shares %u blocks of %R already: the most that one may",
                            SHC_POOL_RECORDS, h);
    return pyshc_pool_refuse(h, status, SHC_ARENA_RECORDS_STEP * sizeof(uint64_t));
}

static PyObject *
open_in(pyshc_state_t *st, pyshc_handle_t *h, const address_t *a)
{
    if (!pyshc_handle_pin(h))
        return NULL;
    block_t *b = new_block(st);
    bool tended = pyshc_pool_is_tended((pyshc_pool_t *)h) || pyshc_pool_tend((pyshc_pool_t *)h);
    int r = PYSHC_RAISED;
    if (b != NULL && tended && pyshc_pool_lock(h)) {
        r = collect(h, b, a);
        pyshc_pool_unlock(h->shared);
    }
    if (r == 0)
        return (PyObject *)b;
    Py_XDECREF(b);
    refuse_to_open(h, r);
    pyshc_handle_unpin(h);
    return NULL;
}

PyDoc_STRVAR(
    attach_doc,
    "attach($type, handle, /)\n--\n\n"
    "The block that a handle is of, in any process: the same memory, held by this process, too.\n\n"
    "The first to do so takes it over from the sender; others get it as long as somebody holds it. The pool is "
    "opened by name\n"
    "unless this process has it open, and closed when its last block goes: who receives many opens it "
    "himself.\n"
    "Raises ValueError if the block is gone; FileNotFoundError if the pool is.");

static PyObject *
block_attach(PyObject *cls, PyObject *handle)
{
    PyObject *module = PyType_GetModuleByDef((PyTypeObject *)cls, &pyshc_module);
    address_t a;
    if (module == NULL || !read_address(handle, &a))
        return NULL;
    pyshc_state_t *st = pyshc_state_of(module);
    pyshc_handle_t *h = find_pool(st, &a);
    PyObject *block = h != NULL ? open_in(st, h, &a) : NULL;
    Py_XDECREF(h);
    return block;
}

/* ---- the type ---- */

PyDoc_STRVAR(
    block_doc,
    "Memory of a MemoryPool or BufferPool: a writable buffer (memoryview(block), numpy.frombuffer(block)).\n\n"
    "It is free again after release(), at the end of a `with` block, or when it is dropped with all its views. "
    "Sent through a channel or\n"
    "pipe (or whatever pickles at once: multiprocessing.Queue and executors do so later), it arrives as the same "
    "memory, and is free when\n"
    "the last of its holders lets go; the sender may let go right after sending, but has to keep its pool open until "
    "it has arrived. What\n"
    "nobody opens is in use until the sender closes the pool, ends, or calls cleanup(parcels=True).\n\n"
    "Nothing here locks: processes that write the same bytes at once get a mixture.");

PyDoc_STRVAR(release_doc,
             "release($self, /)\n--\n\n"
             "Let go of the memory: it is free when no other process holds it.\n\n"
             "BufferError while a view of it is alive, ValueError if it was released already. In a forked child, the "
             "parent's block is let\n"
             "alone.");

static PyMethodDef block_methods[] = {
    {"attach", block_attach, METH_O | METH_CLASS, attach_doc},
    {"release", block_release, METH_NOARGS, release_doc},
    {"__reduce__", block_reduce, METH_NOARGS, NULL},
    {"__enter__", block_enter, METH_NOARGS, NULL},
    {"__exit__", block_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(handle_doc,
             "A tuple of plain values for Block.attach() in any process. It keeps the memory in use until it is opened "
             "for the first time,\n"
             "though this block be released before; asked again, it is the same.");

static PyGetSetDef block_getset[] = {
    {"size", block_get_size, NULL, "Bytes that were asked for.", NULL},
    {"handle", block_get_handle, NULL, handle_doc, NULL},
    {"released", block_get_released, NULL, "True after release().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef block_members[] = {
    {"__weaklistoffset__", PYSHC_T_PYSSIZET, offsetof(block_t, weakrefs), PYSHC_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)block_doc},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_traverse, block_traverse},
    {Py_tp_repr, block_repr},
    {Py_tp_methods, block_methods},
    {Py_tp_getset, block_getset},
    {Py_tp_members, block_members},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {Py_bf_releasebuffer, block_releasebuffer},
    {0, NULL},
};

PyType_Spec pyshc_block_spec = {
    .name = "shmcomm.Block",
    .basicsize = sizeof(block_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = block_slots,
};
