/* Block: memory of a pool, and how it travels from process to process. */
#include "py/py_pool.h"

#include <stddef.h>

#define NO_RECORD UINT32_MAX
/* Reserving memory takes its time: so large a block lets other threads run. */
#define DETACH_BYTES (UINT64_C(256) * 1024)

/* May be used by any thread: critical sections keep them apart where nothing else does. */
typedef struct block {
    PyObject_HEAD pyshc_handle_t *handle; /* strong, and pinned while `epoch` is this process's; NULL once released */
    void *memory;
    uint64_t size; /* that was asked for */
    shc_ref_t ref;
    uint64_t epoch;
    uint32_t record;        /* NO_RECORD: nobody else can hold it */
    pyshc_shared_t *viewed; /* once its memory was asked for: the mapping stays for those who keep the block, too */
    Py_ssize_t exports;
    PyObject *handed; /* what `handle` said; NULL if it was not asked */
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

/* 0 or why there is no block. The lock is held before, and not after. */
static int
find_memory(pyshc_shared_t *shared, uint64_t size, bool shelved, shc_ref_t *ref)
{
    int r = shelved ? shc_pool_unshelve(shared->pool, size, ref) : SHC_EMPTY;
    if (r == SHC_EMPTY)
        r = shc_arena_allocate(&shared->pool->arena, size, ref);
    pyshc_pool_unlock(shared);
    return r;
}

/* The same while other threads run; with `reaping`, what dead processes held is taken back first. */
static SHC_NOINLINE int
find_memory_detached(pyshc_shared_t *shared, uint64_t size, bool shelved, shc_ref_t *ref, bool reaping)
{
    int r;
    Py_BEGIN_ALLOW_THREADS
    {
        if (reaping)
            (void)shc_seg_reap_participants(&shared->seg);
        r = find_memory(shared, size, shelved, ref);
    }
    Py_END_ALLOW_THREADS return r;
}

/* ---- objects: their memory is used again, as theirs is the larger part of what a block costs ---- */

/* A block without memory. */
static SHC_ALWAYS_INLINE block_t *
new_block(pyshc_state_t *st)
{
    block_t *b;
#ifndef Py_GIL_DISABLED
    if (SHC_LIKELY(st->n_spare_blocks != 0)) {
        b = (block_t *)PyObject_Init(st->spare_blocks[--st->n_spare_blocks], st->block_type);
        b->handle = NULL;
        b->viewed = NULL;
        b->exports = 0;
        b->handed = b->weakrefs = NULL;
        b->record = NO_RECORD;
        PyObject_GC_Track((PyObject *)b);
        return b;
    }
#endif
    b = (block_t *)st->block_type->tp_alloc(st->block_type, 0);
    if (SHC_LIKELY(b != NULL))
        b->record = NO_RECORD;
    return b;
}

/* The object is not tracked any more. */
static SHC_ALWAYS_INLINE void
free_block(pyshc_state_t *st, PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
#ifndef Py_GIL_DISABLED
    if (SHC_LIKELY(st != NULL && st->n_spare_blocks < PYSHC_SPARE_BLOCKS))
        st->spare_blocks[st->n_spare_blocks++] = self;
    else
#endif
        type->tp_free(self);
    (void)st;
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
    b->handle = (pyshc_handle_t *)Py_NewRef((PyObject *)h);
    b->memory = shc_arena_at(&h->shared->pool->arena, ref);
    b->size = size;
    b->ref = ref;
    b->epoch = h->shared->seg.epoch;
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
    bool tended = ((pyshc_pool_t *)h)->tended_epoch == h->shared->seg.epoch || pyshc_pool_tend((pyshc_pool_t *)h);
    if (SHC_LIKELY(b != NULL && tended && allocate(h, b, size, shelved) != NULL))
        return (PyObject *)b;
    Py_XDECREF(b);
    pyshc_handle_unpin(h);
    return NULL;
}

/* ---- letting go ---- */

/* In a forked child a block is the parent's. At the end of a process its pool has let all go. */
static SHC_ALWAYS_INLINE bool
is_ours(const block_t *b)
{
    return b->epoch == shc_self_epoch(&pyshc_self) && shc_a32_load_relaxed(&b->handle->closed) != 2;
}

/* The lock is held. */
static SHC_ALWAYS_INLINE int
let_memory_go(const block_t *b)
{
    shc_pool_t *pool = b->handle->shared->pool;
    if (SHC_UNLIKELY(b->record != NO_RECORD))
        return shc_arena_drop(&pool->arena, b->ref, b->record);
    int r = pool->n_places != 0 ? shc_pool_shelve(pool, b->ref, b->size) : SHC_FULL;
    return r == SHC_FULL ? shc_arena_release(&pool->arena, b->ref) : r;
}

/* The block has memory and nobody looks at it. 0; SHC_E_STALE: somebody wrote over the pool's words. */
static SHC_ALWAYS_INLINE int
release(block_t *b)
{
    pyshc_handle_t *h = b->handle;
    bool pins = b->epoch == shc_self_epoch(&pyshc_self);
    int r = 0;
    if (SHC_LIKELY(is_ours(b)) && pyshc_mutex_lock(&h->shared->send_lock)) {
        if (SHC_LIKELY(is_ours(b)))
            r = let_memory_go(b);
        pyshc_pool_unlock(h->shared);
    }
    b->handle = NULL;
    b->memory = NULL;
    Py_CLEAR(b->handed);
    if (pins)
        pyshc_handle_unpin(h);
    Py_DECREF(h);
    return r;
}

static bool
check_unreleased(const block_t *b)
{
    if (SHC_LIKELY(b->handle != NULL))
        return true;
    PyErr_SetString(PyExc_ValueError, "the block was released");
    return false;
}

static bool
release_checked(block_t *b)
{
    if (!check_unreleased(b))
        return false;
    if (b->exports != 0) {
        PyErr_Format(PyExc_BufferError, "the block is still in use by %zd view%s (memoryview, array)", b->exports,
                     b->exports == 1 ? "" : "s");
        return false;
    }
    pyshc_state_t *st = b->handle->st;
    int r = release(b);
    if (r != 0)
        pyshc_raise(st, r == SHC_E_STALE ? SHC_E_CORRUPT : r, "the released block");
    return r == 0;
}

static SHC_ALWAYS_INLINE PyObject *
release_object(PyObject *self)
{
    bool done;
    PYSHC_CRITICAL_BEGIN(self);
    done = release_checked((block_t *)self);
    PYSHC_CRITICAL_END();
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
block_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return release_object(self);
}

PyObject *
pyshc_pool_release(PyObject *self, PyObject *block)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!Py_IS_TYPE(block, h->st->block_type)) {
        PyErr_Format(PyExc_TypeError, "%R takes back a Block, not %s", h, Py_TYPE(block)->tp_name);
        return NULL;
    }
    const block_t *b = (const block_t *)block;
    if (b->handle != NULL && b->handle != h && b->handle->shared != h->shared) {
        PyErr_Format(PyExc_ValueError, "the block is of %R, not of %R", b->handle, h);
        return NULL;
    }
    return release_object(block);
}

static void
block_dealloc(PyObject *self)
{
    block_t *b = (block_t *)self;
    /* The module may be gone already, but for what a block that was never released keeps alive. */
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    PyObject_GC_UnTrack(self);
    if (b->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (b->handle != NULL)
        (void)release(b); /* there is nobody to tell */
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
    Py_VISIT(b->handle);
    return 0;
}

static PyObject *
block_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return check_unreleased((block_t *)self) ? Py_NewRef(self) : NULL;
}

/* It may have been released inside. */
static PyObject *
block_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    return ((block_t *)self)->handle == NULL ? Py_NewRef(Py_None) : release_object(self);
}

/* ---- memory ---- */

static int
export_memory(block_t *b, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (!check_unreleased(b))
        return -1;
    pyshc_shared_t *shared = b->handle->shared;
    if (shared == NULL && b->viewed == NULL) {
        PyErr_Format(PyExc_ValueError, "the block is gone: %R is closed in this process", b->handle);
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)b, b->memory, (Py_ssize_t)b->size, 0, flags) < 0)
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
    const block_t *b = (block_t *)self;
    return check_unreleased(b) ? (Py_ssize_t)b->size : -1;
}

static PyObject *
block_get_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((block_t *)self)->size);
}

static PyObject *
block_get_released(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((block_t *)self)->handle == NULL);
}

static PyObject *
block_repr(PyObject *self)
{
    const block_t *b = (block_t *)self;
    if (b->handle == NULL)
        return PyUnicode_FromFormat("<Block of %llu bytes, released>", (unsigned long long)b->size);
    return PyUnicode_FromFormat("<Block of %llu bytes of %R>", (unsigned long long)b->size, b->handle);
}

/* ---- on its way ---- */

/* One more holder for whoever opens it. The lock is held. */
static int
post(block_t *b, shc_arena_parcel_t *parcel)
{
    shc_arena_t *arena = &b->handle->shared->pool->arena;
    int r = 0;
    if (b->record == NO_RECORD) {
        r = shc_arena_lend(arena, b->ref, &b->record);
        if (r != 0)
            b->record = NO_RECORD;
    }
    return r != 0 ? r : shc_arena_post(arena, b->ref, parcel);
}

static PyObject *
refuse_to_send(const block_t *b, int status)
{
    if (status == SHC_E_LEASES) {
        PyErr_Format(PyExc_BufferError, "this process shares %u blocks of %R already: the most that one may",
                     SHC_POOL_RECORDS, b->handle);
        return NULL;
    }
    return pyshc_pool_refuse(b->handle, status == SHC_E_STALE ? SHC_E_CORRUPT : status, b->size);
}

/* (name, namespace, directory, shelf, key, word, index, record, size) */
static PyObject *
make_handle(block_t *b)
{
    shc_arena_parcel_t parcel;
    if (!check_unreleased(b))
        return NULL;
    pyshc_handle_t *h = b->handle;
    if (b->epoch != shc_self_epoch(&pyshc_self)) {
        PyErr_Format(PyExc_ValueError,
                     "the block of %R is held by the process that this one was forked from: only that "
                     "one can send it",
                     h);
        return NULL;
    }
    if (!pyshc_pool_lock(h))
        return NULL;
    int r = post(b, &parcel);
    pyshc_pool_unlock(h->shared);
    if (r != 0)
        return refuse_to_send(b, r);
    PyObject *handle =
        Py_BuildValue("(OOOiKKIIK)", h->name, h->namespace, h->directory, (int)pyshc_pool_is_shelf(h->shared),
                      (unsigned long long)h->shared->seg.id.key, (unsigned long long)parcel.word,
                      (unsigned)parcel.index, (unsigned)parcel.record, (unsigned long long)b->size);
    return handle;
}

static PyObject *
block_get_handle(PyObject *self, void *Py_UNUSED(closure))
{
    block_t *b = (block_t *)self;
    PyObject *handle;
    PYSHC_CRITICAL_BEGIN(self);
    if (b->handed == NULL || b->handle == NULL)
        Py_XSETREF(b->handed, make_handle(b));
    handle = Py_XNewRef(b->handed);
    PYSHC_CRITICAL_END();
    return handle;
}

static PyObject *
block_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *handle, *result = NULL;
    PYSHC_CRITICAL_BEGIN(self);
    handle = make_handle((block_t *)self);
    PYSHC_CRITICAL_END();
    PyObject *attach = handle != NULL ? PyObject_GetAttrString((PyObject *)Py_TYPE(self), "attach") : NULL;
    if (attach != NULL)
        result = Py_BuildValue("O(O)", attach, handle);
    Py_XDECREF(attach);
    Py_XDECREF(handle);
    return result;
}

typedef struct address {
    PyObject *name, *namespace, *directory; /* borrowed */
    int shelf;
    unsigned long long key, word, size;
    unsigned index, record;
} address_t;

static bool
read_address(PyObject *handle, address_t *a)
{
    if (PyTuple_Check(handle) && PyTuple_GET_SIZE(handle) == 9 &&
        PyArg_ParseTuple(handle, "UUUiKKIIK", &a->name, &a->namespace, &a->directory, &a->shelf, &a->key, &a->word,
                         &a->index, &a->record, &a->size))
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

/* The lock is held. */
static int
collect(pyshc_handle_t *h, block_t *b, const address_t *a)
{
    shc_arena_t *arena = &h->shared->pool->arena;
    shc_arena_parcel_t parcel = {.word = a->word, .index = a->index, .record = a->record};
    shc_ref_t ref = shc_arena_parcel_ref(&parcel);
    void *memory;
    uint64_t room;
    int r = shc_arena_collect(arena, &parcel, &b->record);
    if (r != 0)
        return r;
    r = shc_arena_resolve(arena, ref, &memory, &room);
    if (r == 0 && a->size >= 1 && a->size <= room) {
        fill(b, h, ref, a->size);
        return 0;
    }
    r = shc_arena_drop(arena, ref, b->record);
    (void)r;
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
    int r = PYSHC_RAISED;
    if (b != NULL && pyshc_pool_lock(h)) {
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
    "Pickled, "
    "and sent\n"
    "through any channel, queue or pipe, it arrives as the same memory, and is free when the last of its holders lets "
    "go; the sender\n"
    "may let go right after sending. What nobody opens is in use until the sender ends or calls "
    "cleanup(parcels=True).\n\n"
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
