/* BufferPool: a pool with a shelf in front of it. */
#include "py/py_pool.h"

PyDoc_STRVAR(
    pool_doc,
    "BufferPool(max_pool_size=1000, *, initial_size=1048576, max_size=104857600, growth_factor=2.0,\n"
    "           cleanup_interval=60.0, name=None, mode=0o600, persist=False, directory=None, max_participants=128)\n"
    "--\n\n"
    "Buffers in shared memory that are used again and again: one that was given back is handed out to the next who "
    "asks for that\n"
    "size, in any process, as it is.\n\n"
    "max_pool_size: buffers that may lie there, of all sizes together; one that is given back beyond that is free "
    "memory. The other\n"
    "keywords are MemoryPool's. What a killed process had comes back as free memory.\n\n"
    "Raises FileExistsError if a living object has the name, OSError(ENOSPC) if the memory is not there.\n\n"
    ">>> with BufferPool() as pool:\n"
    "...     pool.return_buffer(pool.get_buffer(512))\n"
    "...     pool.pool_sizes\n"
    "{512: 1}");

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"max_pool_size", PYSHC_POOL_OPTION_NAMES, PYSHC_CREATION_NAMES};
    PyObject *v[1 + PYSHC_POOL_OPTIONS + PYSHC_CREATION_COUNT];
    if (!pyshc_parse_tuple("BufferPool", args, kwargs, names, 1 + PYSHC_POOL_OPTIONS + PYSHC_CREATION_COUNT, 1, 0, v))
        return NULL;
    pyshc_creation_t creation = {v[5], v[6], v[7], v[8], v[9]};
    return pyshc_pool_make(type, v[0], v + 1, &creation);
}

PyDoc_STRVAR(
    open_doc,
    "open($type, name, max_pool_size=1000, *, initial_size=1048576, max_size=104857600, growth_factor=2.0,\n"
    "     cleanup_interval=60.0, mode=0o600, persist=False, directory=None, max_participants=128)\n--\n\n"
    "Attach to the pool of that name, or create it if there is none; of several processes that do so at once, "
    "one creates.\n\n"
    "What is stated and the existing pool has otherwise is a LayoutError (sizes are rounded up first); what is "
    "not stated is\n"
    "taken as it is.");

static PyObject *
pool_open(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name",    "max_pool_size", PYSHC_POOL_OPTION_NAMES, "mode",
                                        "persist", "directory",     "max_participants"};
    PyObject *v[10];
    if (!pyshc_parse("open", args, nargs, kwnames, names, 10, 2, 1, v))
        return NULL;
    pyshc_creation_t creation = {v[0], v[6], v[7], v[8], v[9]};
    return pyshc_pool_open_or_make((PyTypeObject *)cls, v[1], v + 2, &creation);
}

static PyObject *
pool_get_buffer(PyObject *self, PyObject *size)
{
    return pyshc_pool_allocate((pyshc_handle_t *)self, size, true);
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nMake free memory of all buffers that lie in the pool; those in use are "
                        "let alone.");

static PyObject *
pool_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *result = NULL;
    if (!pyshc_handle_pin(h))
        return NULL;
    if (pyshc_pool_lock(h)) {
        (void)shc_pool_clear(h->shared->pool);
        pyshc_pool_unlock(h->shared);
        result = Py_NewRef(Py_None);
    }
    pyshc_handle_unpin(h);
    return result;
}

/* ---- looking ---- */

static bool
count_one(PyObject *sizes, uint64_t size)
{
    PyObject *key = PyLong_FromUnsignedLongLong(size);
    PyObject *before = key != NULL ? PyDict_GetItemWithError(sizes, key) : NULL;
    PyObject *after = PyErr_Occurred() ? NULL : PyLong_FromLong(before != NULL ? PyLong_AsLong(before) + 1 : 1);
    bool done = after != NULL && PyDict_SetItem(sizes, key, after) == 0;
    Py_XDECREF(key);
    Py_XDECREF(after);
    return done;
}

static PyObject *
pool_get_sizes(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    uint64_t size;
    if (!pyshc_handle_pin(h))
        return NULL;
    const shc_pool_t *pool = h->shared->pool;
    PyObject *sizes = PyDict_New();
    for (uint32_t i = 0; sizes != NULL && i < pool->n_places; i++)
        if (shc_pool_look(pool, i, &size) && !count_one(sizes, size))
            Py_CLEAR(sizes);
    pyshc_handle_unpin(h);
    return sizes;
}

static PyObject *
pool_get_total(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    uint64_t size, n = 0;
    if (!pyshc_handle_pin(h))
        return NULL;
    const shc_pool_t *pool = h->shared->pool;
    for (uint32_t i = 0; i < pool->n_places; i++)
        n += shc_pool_look(pool, i, &size);
    pyshc_handle_unpin(h);
    return PyLong_FromUnsignedLongLong(n);
}

static PyObject *
pool_get_places(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    uint32_t n = h->shared->pool->n_places;
    pyshc_handle_unpin(h);
    return PyLong_FromUnsignedLong(n);
}

/* ---- the type ---- */

PyDoc_STRVAR(
    get_buffer_doc,
    "get_buffer($self, size, /)\n--\n\n"
    "A Block of size bytes: one of that size that was given back, in whatever process, or a new one. What is in "
    "it is what its\n"
    "last user left there. Its release(), and the end of a `with` block, give it back as return_buffer() "
    "does.\n\n"
    "Raises MemoryError when the pool is at its max_size; OSError(ENOSPC) when the system has no more memory.");
PyDoc_STRVAR(return_buffer_doc,
             "return_buffer($self, buf, /)\n--\n\n"
             "Give a buffer back. One that other processes hold, too, stays theirs, and is free memory after the last "
             "of them.\n\n"
             "ValueError if it was given back already or is another pool's; BufferError while a view of it is alive.");

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef pool_methods[] = {
    {"attach", FAST(pyshc_pool_attach), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, pyshc_pool_attach_doc},
    {"open", FAST(pool_open), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, open_doc},
    {"_rebuild", FAST(pyshc_pool_rebuild), METH_FASTCALL | METH_CLASS, NULL},
    {"__reduce__", pyshc_pool_reduce, METH_NOARGS, NULL},
    {"get_buffer", pool_get_buffer, METH_O, get_buffer_doc},
    {"return_buffer", pyshc_pool_release, METH_O, return_buffer_doc},
    {"clear", pool_clear, METH_NOARGS, clear_doc},
    {"cleanup", FAST(pyshc_pool_cleanup), METH_FASTCALL | METH_KEYWORDS, pyshc_pool_cleanup_doc},
    {"_tend", pyshc_pool_do_tend, METH_NOARGS, NULL},
    {"stats", pyshc_pool_stats, METH_NOARGS, pyshc_pool_stats_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"total_buffers", pool_get_total, NULL, "Buffers that lie in the pool.", NULL},
    {"pool_sizes", pool_get_sizes, NULL, "How many buffers of each size lie in the pool: a new dict.", NULL},
    {"max_pool_size", pool_get_places, NULL, "How many buffers can lie in the pool.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)pool_doc}, {Py_tp_new, pool_new},       {Py_tp_dealloc, pyshc_handle_dealloc},
    {Py_tp_methods, pool_methods}, {Py_tp_getset, pool_getset}, {0, NULL},
};

PyType_Spec pyshc_buffer_pool_spec = {
    .name = "shmcomm.BufferPool",
    .basicsize = sizeof(pyshc_pool_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = pool_slots,
};
