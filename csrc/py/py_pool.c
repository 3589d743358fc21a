/* MemoryPool, and what it has in common with BufferPool (py_pool_buffers.c). Blocks are in py_pool_block.c. */
#include "py/py_pool.h"

#include <errno.h>
#include <math.h>

#include "py/pyshc_refusal.h"

#define DEFAULT_INITIAL_BYTES (UINT64_C(1) << 20)
#define DEFAULT_MAX_BYTES (UINT64_C(100) << 20)
#define DEFAULT_GROWTH 100u
#define DEFAULT_INTERVAL_NS UINT64_C(60000000000)
#define DEFAULT_PLACES 1000u
#define GROWTH_FACTOR_MAX 100
#define INTERVAL_MIN_S 0.001
#define INTERVAL_MAX_S 1e9

/* ---- the segment ---- */

static void
open_pool(pyshc_shared_t *shared)
{
    shc_pool_open(shared->pool, &shared->seg);
}

/* The last handle goes: nobody is in a call, or (at the end of the interpreter) the lock is held by who calls this. */
static void
leave_pool(pyshc_shared_t *shared)
{
    shc_pool_leave(shared->pool);
}

static void
bind_pool(pyshc_shared_t *shared)
{
    open_pool(shared);
    shared->rejoined = open_pool;
    shared->leaving = leave_pool;
}

const pyshc_kind_t pyshc_pool_kind = {
    .spec = &shc_pool_spec,
    .init = shc_pool_init,
    .bind = bind_pool,
    .lay_out = shc_pool_lay_out,
};

bool
pyshc_pool_refuse_end(pyshc_handle_t *h)
{
    pyshc_pool_unlock(h->shared);
    PyErr_Format(PyExc_ValueError, "%R is closed: its process is ending", h);
    return false;
}

/* ---- options ---- */

static bool
parse_bytes(PyObject *arg, const char *what, uint64_t *out)
{
    return arg == NULL || arg == Py_None || pyshc_parse_integer(arg, what, 1, SHC_POOL_BYTES_MAX, out);
}

/* A number in [low, high]; false: TypeError or ValueError. */
static bool
parse_number(PyObject *arg, const char *what, double low, double high, double *out)
{
    *out = PyFloat_AsDouble(arg);
    if (*out == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s must be a number, not %s", what, Py_TYPE(arg)->tp_name);
        return false;
    }
    if (*out >= low && *out <= high)
        return true;
    PyErr_Format(PyExc_ValueError, "%s cannot be %R", what, arg);
    return false;
}

static bool
parse_growth(PyObject *arg, uint32_t *percent)
{
    double factor;
    if (arg == NULL || arg == Py_None)
        return true;
    if (!parse_number(arg, "growth_factor (1 to 100)", 1, GROWTH_FACTOR_MAX, &factor))
        return false;
    *percent = (uint32_t)lround((factor - 1) * 100);
    return true;
}

/* None: nobody looks for idle memory. */
static bool
parse_interval(PyObject *arg, uint64_t *ns)
{
    double seconds;
    if (arg == NULL)
        return true;
    *ns = 0;
    if (arg == Py_None)
        return true;
    if (!parse_number(arg, "cleanup_interval (seconds, at least 0.001, or None)", INTERVAL_MIN_S, INTERVAL_MAX_S,
                      &seconds))
        return false;
    *ns = (uint64_t)(seconds * 1e9);
    return true;
}

/* What is not given stays as it is in *o. */
static bool
parse_options(PyObject *places, PyObject *const *v, bool shelf, shc_pool_options_t *o)
{
    uint64_t n = o->places;
    if (!parse_bytes(v[0], "initial_size", &o->initial_bytes) || !parse_bytes(v[1], "max_size", &o->max_bytes) ||
        !parse_growth(v[2], &o->growth) || !parse_interval(v[3], &o->interval_ns))
        return false;
    if (shelf && places != NULL && places != Py_None &&
        !pyshc_parse_integer(places, "max_pool_size", 1, SHC_POOL_PLACES_MAX, &n))
        return false;
    o->places = (uint32_t)n;
    return true;
}

static bool
is_shelf_type(PyTypeObject *type, const pyshc_state_t *st)
{
    return PyType_IsSubtype(type, st->buffer_pool_type);
}

/* A small max_size makes the default of initial_size smaller. */
static bool
complete(PyObject *const *v, shc_pool_options_t *o)
{
    bool given = v[0] != NULL && v[0] != Py_None;
    if (!given && o->initial_bytes > o->max_bytes)
        o->initial_bytes = o->max_bytes;
    if (o->initial_bytes <= o->max_bytes)
        return true;
    PyErr_Format(PyExc_ValueError, "initial_size (%llu) is larger than max_size (%llu)",
                 (unsigned long long)o->initial_bytes, (unsigned long long)o->max_bytes);
    return false;
}

/* ---- creating and opening ---- */

static bool
create(pyshc_handle_t *h, PyObject *places, PyObject *const *v, const pyshc_creation_t *creation, bool *exists)
{
    shc_seg_create_args_t args = {0};
    bool shelf = is_shelf_type(Py_TYPE(h), h->st);
    shc_pool_options_t o = {.initial_bytes = DEFAULT_INITIAL_BYTES,
                            .max_bytes = DEFAULT_MAX_BYTES,
                            .growth = DEFAULT_GROWTH,
                            .interval_ns = DEFAULT_INTERVAL_NS,
                            .places = shelf ? DEFAULT_PLACES : 0};
    if (!parse_options(places, v, shelf, &o) || !complete(v, &o))
        return false;
    int r = shc_pool_configure(&o, &args);
    if (r != 0) {
        pyshc_raise(h->st, r, "%s", Py_TYPE(h)->tp_name);
        return false;
    }
    return pyshc_handle_create(h, &pyshc_pool_kind, creation, &args, exists);
}

PyObject *
pyshc_pool_make(PyTypeObject *type, PyObject *places, PyObject *const *options, const pyshc_creation_t *creation)
{
    pyshc_handle_t *h = pyshc_handle_new(type);
    if (h != NULL && !create(h, places, options, creation, NULL))
        Py_CLEAR(h);
    return (PyObject *)h;
}

/* A MemoryPool and a BufferPool are one kind of segment; which it is, is in its configuration. */
static bool
is_of_type(pyshc_handle_t *h)
{
    if (pyshc_pool_is_shelf(h->shared) == is_shelf_type(Py_TYPE(h), h->st))
        return true;
    PyErr_Format(h->st->LayoutError, "the object named %R is a %s", h->name,
                 pyshc_pool_is_shelf(h->shared) ? "BufferPool" : "MemoryPool");
    return false;
}

pyshc_handle_t *
pyshc_pool_attach_by(PyTypeObject *type, PyObject *name, PyObject *namespace, PyObject *directory, uint64_t deadline_ns,
                     bool foreign)
{
    pyshc_handle_t *h = pyshc_handle_new(type);
    if (h != NULL &&
        !(pyshc_handle_attach(h, &pyshc_pool_kind, name, namespace, directory, deadline_ns, foreign, false) &&
          is_of_type(h)))
        Py_CLEAR(h);
    return h;
}

const char pyshc_pool_attach_doc[] =
    "attach($type, name, *, timeout=0, directory=None, foreign=False)\n--\n\n"
    "Open an existing pool by name, waiting up to timeout seconds for it to appear.\n\n"
    "foreign=True accepts an object of another user. Raises FileNotFoundError; LayoutError if the name is something "
    "else;\n"
    "PermissionError.";

PyObject *
pyshc_pool_attach(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "timeout", "directory", "foreign"};
    PyObject *v[4];
    uint64_t deadline_ns = 0;
    bool foreign = false;
    if (!pyshc_parse("attach", args, nargs, kwnames, names, 4, 1, 1, v) ||
        (v[1] != NULL && !pyshc_parse_timeout(v[1], &deadline_ns)) || !pyshc_parse_flag(v[3], &foreign))
        return NULL;
    return (PyObject *)pyshc_pool_attach_by((PyTypeObject *)cls, v[0], NULL, v[2], deadline_ns, foreign);
}

static bool
size_agrees(pyshc_handle_t *h, const char *option, uint64_t there, uint64_t asked)
{
    if (there == asked)
        return true;
    pyshc_handle_disagree(h, option, PyUnicode_FromFormat("%llu", (unsigned long long)there),
                          PyUnicode_FromFormat("%llu", (unsigned long long)asked));
    return false;
}

static PyObject *
number_text(double number)
{
    PyObject *value = PyFloat_FromDouble(number);
    PyObject *text = value != NULL ? PyObject_Repr(value) : NULL;
    Py_XDECREF(value);
    return text;
}

static PyObject *
interval_text(uint64_t ns)
{
    return ns != 0 ? number_text((double)ns / 1e9) : PyUnicode_FromString("None");
}

static uint64_t
rounded(uint64_t bytes)
{
    uint64_t page = UINT64_C(1) << SHC_POOL_PAGE_SHIFT;
    return (bytes + page - 1) / page * page;
}

/* Whether an existing pool has what open() was told. */
static bool
agrees(pyshc_handle_t *h, PyObject *places, PyObject *const *v, const pyshc_creation_t *creation)
{
    shc_pool_options_t there, asked;
    shc_pool_options_of(&h->shared->seg, &there);
    asked = there;
    if (!parse_options(places, v, there.places != 0, &asked) ||
        !size_agrees(h, "initial_size", there.initial_bytes, rounded(asked.initial_bytes)) ||
        !size_agrees(h, "max_size", there.max_bytes, rounded(asked.max_bytes)) ||
        !size_agrees(h, "max_pool_size", there.places, asked.places))
        return false;
    if (asked.growth != there.growth)
        pyshc_handle_disagree(h, "growth_factor", number_text(1 + there.growth / 100.0),
                              number_text(1 + asked.growth / 100.0));
    else if (asked.interval_ns != there.interval_ns)
        pyshc_handle_disagree(h, "cleanup_interval", interval_text(there.interval_ns),
                              interval_text(asked.interval_ns));
    else
        return pyshc_handle_agrees(h, creation);
    return false;
}

/* One round: attach, else create. false: exception. h->shared NULL afterwards: lost both races, try again. */
static bool
open_once(pyshc_handle_t *h, PyObject *places, PyObject *const *v, const pyshc_creation_t *creation)
{
    bool exists = false;
    if (!pyshc_handle_attach(h, &pyshc_pool_kind, creation->name, NULL, creation->directory, 0, false, true))
        return false;
    if (h->shared != NULL)
        return is_of_type(h) && agrees(h, places, v, creation);
    return create(h, places, v, creation, &exists);
}

PyObject *
pyshc_pool_open_or_make(PyTypeObject *type, PyObject *places, PyObject *const *options,
                        const pyshc_creation_t *creation)
{
    pyshc_handle_t *h = pyshc_handle_new(type);
    while (h != NULL && h->shared == NULL) {
        if (!open_once(h, places, options, creation) || PyErr_CheckSignals() < 0)
            Py_CLEAR(h);
    }
    return (PyObject *)h;
}

PyDoc_STRVAR(
    pool_doc,
    "MemoryPool(*, initial_size=1048576, max_size=104857600, growth_factor=2.0, cleanup_interval=60.0, name=None,\n"
    "           mode=0o600, persist=False, directory=None, max_participants=128)\n--\n\n"
    "Memory that processes allocate from, and hand to each other in blocks: a Block that is sent through any channel,\n"
    "queue or pipe arrives as the same memory, and is free when its last holder lets go of it or dies.\n\n"
    "initial_size: bytes that are reserved at once; max_size: bytes at most, both rounded up to 64 KiB. growth_factor: "
    "when\n"
    "memory runs out, so many times what is there is reserved, as far as there is room (1: just what is needed). "
    "cleanup_interval:\n"
    "seconds after which memory that was not used meanwhile goes back to the system, down to initial_size, and what "
    "dead processes\n"
    "held is taken back; None: when cleanup() is called. A thread in the background does it, from the first "
    "allocation on.\n"
    "name, mode, persist, directory, max_participants: as for every shared object.\n\n"
    "Raises FileExistsError if a living object has the name, OSError(ENOSPC) if the memory is not there.\n\n"
    ">>> with MemoryPool() as pool, pool.allocate(1000) as block:\n"
    "...     memoryview(block)[:5] = b'hello'\n"
    "...     len(block)\n"
    "1000");

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {PYSHC_POOL_OPTION_NAMES, PYSHC_CREATION_NAMES};
    PyObject *v[PYSHC_POOL_OPTIONS + PYSHC_CREATION_COUNT];
    if (!pyshc_parse_tuple("MemoryPool", args, kwargs, names, PYSHC_POOL_OPTIONS + PYSHC_CREATION_COUNT, 0, 0, v))
        return NULL;
    pyshc_creation_t creation = {v[4], v[5], v[6], v[7], v[8]};
    return pyshc_pool_make(type, NULL, v, &creation);
}

PyDoc_STRVAR(
    open_doc,
    "open($type, name, *, initial_size=1048576, max_size=104857600, growth_factor=2.0, cleanup_interval=60.0,\n"
    "     mode=0o600, persist=False, directory=None, max_participants=128)\n--\n\n"
    "Attach to the pool of that name, or create it if there is none; of several processes that do so at once, "
    "one creates.\n\n"
    "What is stated and the existing pool has otherwise is a LayoutError (sizes are rounded up first); what is "
    "not stated is\n"
    "taken as it is.");

static PyObject *
pool_open(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name",      PYSHC_POOL_OPTION_NAMES, "mode", "persist",
                                        "directory", "max_participants"};
    PyObject *v[9];
    if (!pyshc_parse("open", args, nargs, kwnames, names, 9, 1, 1, v))
        return NULL;
    pyshc_creation_t creation = {v[0], v[5], v[6], v[7], v[8]};
    return pyshc_pool_open_or_make((PyTypeObject *)cls, NULL, v + 1, &creation);
}

/* ---- pickling ---- */

PyObject *
pyshc_pool_rebuild(PyObject *cls, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 3)
        return (PyObject *)pyshc_pool_attach_by((PyTypeObject *)cls, args[0], args[1], args[2], 0, false);
    PyErr_SetString(PyExc_TypeError, "_rebuild() takes 3 arguments");
    return NULL;
}

PyObject *
pyshc_pool_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *rebuild = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_rebuild");
    PyObject *result = rebuild != NULL ? Py_BuildValue("O(OOO)", rebuild, h->name, h->namespace, h->directory) : NULL;
    Py_XDECREF(rebuild);
    pyshc_handle_unpin(h);
    return result;
}

/* ---- allocating ---- */

PyObject *
pyshc_pool_refuse(pyshc_handle_t *h, int status, uint64_t size)
{
    shc_arena_stats_t s;
    if (status == PYSHC_RAISED)
        return NULL;
    if (status != SHC_FULL) {
        if (status < 0 && status > -4096)
            pyshc_refuse_growth(h, status, "block", size);
        else
            pyshc_raise(h->st, status, "%R", h);
        return NULL;
    }
    if (!pyshc_pool_lock(h))
        return NULL;
    int r = shc_arena_stats(&h->shared->pool->arena, &s);
    pyshc_pool_unlock(h->shared);
    if (r != 0)
        return pyshc_raise(h->st, r, "%R", h);
    return PyErr_Format(PyExc_MemoryError,
                        "%R is full: %llu bytes asked, max_size is %llu, %llu are in use and the largest free piece "
                        "has %llu; release blocks, or create the pool with a larger max_size",
                        h, (unsigned long long)size, (unsigned long long)s.bytes_total,
                        (unsigned long long)s.bytes_used, (unsigned long long)s.bytes_largest);
}

static PyObject *
pool_allocate(PyObject *self, PyObject *size)
{
    return pyshc_pool_allocate((pyshc_handle_t *)self, size, false);
}

bool
pyshc_pool_tend(pyshc_pool_t *p)
{
    uint64_t ns = p->h.shared->seg.id.config[SHC_POOL_CONFIG_INTERVAL];
    shc_a64_store_relaxed(&p->tended_epoch, shc_self_epoch(&pyshc_self));
    if (ns == 0)
        return true;
    PyObject *timer = PyImport_ImportModule("shmcomm._pool_timer");
    PyObject *done =
        timer != NULL ? PyObject_CallMethod(timer, "watch", "Od", p, (double)ns / 1e9 / SHC_POOL_SAMPLES) : NULL;
    Py_XDECREF(timer);
    Py_XDECREF(done);
    return done != NULL;
}

/* ---- giving back ---- */

/* The lock is held before, and not after: see py_pool.h. */
static uint64_t
give_back(pyshc_shared_t *shared, bool recall, uint64_t (*how)(shc_pool_t *))
{
    uint64_t given;
    Py_BEGIN_ALLOW_THREADS
    {
        (void)shc_seg_reap_participants(&shared->seg);
        if (recall)
            (void)shc_arena_unpost_all(&shared->pool->arena);
        given = how(shared->pool);
        pyshc_pool_unlock(shared);
    }
    Py_END_ALLOW_THREADS return given;
}

const char pyshc_pool_cleanup_doc[] =
    "cleanup($self, *, parcels=False)\n--\n\n"
    "Take back what dead processes held, and give free memory beyond initial_size back to the system now; returns how "
    "many bytes that\n"
    "was. parcels=True also frees the blocks that this process has sent and nobody has opened yet: whoever opens one "
    "later gets\n"
    "ValueError.";

PyObject *
pyshc_pool_cleanup(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"parcels"};
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *v[1], *result = NULL;
    bool recall = false;
    if (!pyshc_parse("cleanup", args, nargs, kwnames, names, 1, 0, 0, v) || !pyshc_parse_flag(v[0], &recall) ||
        !pyshc_handle_pin(h))
        return NULL;
    if (pyshc_pool_lock(h))
        result = PyLong_FromUnsignedLongLong(give_back(h->shared, recall, shc_pool_cleanup));
    pyshc_handle_unpin(h);
    return result;
}

/* One look of the timer; False: the pool is closed. */
PyObject *
pyshc_pool_do_tend(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *result = NULL;
    if (pyshc_handle_is_closed(h))
        Py_RETURN_FALSE;
    if (!pyshc_handle_pin(h))
        return NULL;
    if (pyshc_pool_lock(h)) {
        (void)give_back(h->shared, false, shc_pool_tend);
        result = Py_NewRef(Py_True);
    }
    pyshc_handle_unpin(h);
    return result;
}

/* ---- looking ---- */

static bool
read_stats(pyshc_handle_t *h, shc_arena_stats_t *s)
{
    if (!pyshc_pool_lock(h))
        return false;
    int r = shc_arena_stats(&h->shared->pool->arena, s);
    pyshc_pool_unlock(h->shared);
    if (r != 0)
        pyshc_raise(h->st, r, "%R", h);
    return r == 0;
}

static PyObject *
class_info(uint64_t block_size, uint64_t total, uint64_t used, uint64_t cached)
{
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K}", "block_size", (unsigned long long)block_size, "total",
                         (unsigned long long)total, "used", (unsigned long long)(used - cached), "free",
                         (unsigned long long)(total - used + cached), "cached", (unsigned long long)cached);
}

static PyObject *
size_classes(const shc_arena_stats_t *s)
{
    PyObject *list = PyList_New(0);
    for (uint32_t c = 0; list != NULL && c < SHC_ARENA_CLASSES; c++) {
        const shc_arena_class_stats_t *k = &s->class[c];
        if (k->pages == 0)
            continue;
        PyObject *row = class_info(shc_arena_class_size(c), k->blocks, k->used, k->cached);
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

PyDoc_STRVAR(get_pool_doc,
             "get_pool($self, size, /)\n--\n\n"
             "A SizeClassInfo of the blocks that serve `size` bytes: block_size, and how many there are in total, used "
             "and free.\n\n"
             "Above 28 KiB a block is as many pages of 64 KiB as it needs: then free is how many such blocks the free "
             "memory has\n"
             "room for.");

static bool
parse_size(pyshc_handle_t *h, PyObject *arg, uint64_t *size)
{
    const shc_arena_geometry_t *g = &h->shared->pool->arena.g;
    return pyshc_parse_integer(arg, "size", 1, (uint64_t)g->pages << SHC_POOL_PAGE_SHIFT, size);
}

static PyObject *
info_of(pyshc_handle_t *h, uint64_t size)
{
    shc_arena_stats_t s;
    uint64_t used, free;
    if (!read_stats(h, &s))
        return NULL;
    if (size <= SHC_ARENA_SMALL_MAX) {
        uint32_t c = shc_arena_class_of(size);
        return class_info(shc_arena_class_size(c), s.class[c].blocks, s.class[c].used, s.class[c].cached);
    }
    if (!pyshc_pool_lock(h))
        return NULL;
    uint64_t whole = rounded(size);
    int r = shc_arena_count_runs(&h->shared->pool->arena, (uint32_t)(whole >> SHC_POOL_PAGE_SHIFT), &used, &free);
    pyshc_pool_unlock(h->shared);
    return r != 0 ? pyshc_raise(h->st, r, "%R", h) : class_info(whole, used + free, used, 0);
}

static PyObject *
pool_get_pool(PyObject *self, PyObject *arg)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *info = NULL;
    uint64_t size;
    if (!pyshc_handle_pin(h))
        return NULL;
    if (parse_size(h, arg, &size))
        info = pyshc_make_stats("SizeClassInfo", info_of(h, size));
    pyshc_handle_unpin(h);
    return info;
}

typedef enum {
    TOTAL_ALLOCATED,
    POOL_COUNT,
    MAX_SIZE
} figure_t;

static uint64_t
count_classes(const shc_arena_stats_t *s)
{
    uint64_t n = s->runs != 0;
    for (uint32_t c = 0; c < SHC_ARENA_CLASSES; c++)
        n += s->class[c].pages != 0;
    return n;
}

static PyObject *
pool_get_figure(PyObject *self, void *which)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    shc_arena_stats_t s;
    if (!pyshc_handle_pin(h))
        return NULL;
    bool known = read_stats(h, &s);
    pyshc_handle_unpin(h);
    if (!known)
        return NULL;
    figure_t figure = (figure_t)(uintptr_t)which;
    return PyLong_FromUnsignedLongLong(figure == TOTAL_ALLOCATED ? s.bytes_used
                                       : figure == POOL_COUNT    ? count_classes(&s)
                                                                 : s.bytes_total);
}

/* "2 of its own, 300 bytes", ... */
static PyObject *
holding_text(const shc_arena_holding_t *mine)
{
    PyObject *list = PyList_New(0), *rows[3] = {NULL, NULL, NULL};
    if (mine->blocks != 0)
        rows[0] = PyUnicode_FromFormat("%llu of its own, %llu bytes", (unsigned long long)mine->blocks,
                                       (unsigned long long)mine->bytes);
    if (mine->shared != 0)
        rows[1] = PyUnicode_FromFormat("%llu shared", (unsigned long long)mine->shared);
    if (mine->posted != 0)
        rows[2] = PyUnicode_FromFormat("%llu on their way", (unsigned long long)mine->posted);
    for (int i = 0; i < 3; i++) {
        if (list != NULL && rows[i] != NULL && PyList_Append(list, rows[i]) < 0)
            Py_CLEAR(list);
        Py_XDECREF(rows[i]);
    }
    PyObject *holds = list != NULL && !PyErr_Occurred() ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return holds;
}

/* What fill_in() puts the text in the place of. */
static PyObject *
index_of(pyshc_shared_t *Py_UNUSED(shared), uint32_t index, uint32_t Py_UNUSED(generation))
{
    return PyLong_FromUnsignedLong(index);
}

static bool
fill_in(PyObject *rows, const shc_arena_holding_t *all)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        unsigned long index = PyLong_AsUnsignedLong(PyDict_GetItemString(row, "holds"));
        PyObject *text = holding_text(&all[index]);
        int r = text != NULL ? PyDict_SetItemString(row, "holds", text) : -1;
        Py_XDECREF(text);
        if (r < 0)
            return false;
    }
    return true;
}

/* All of them from one walk over the pool. */
static PyObject *
participants_of(pyshc_handle_t *h)
{
    shc_arena_holding_t *all = PyMem_Calloc(h->shared->seg.id.participants, sizeof *all);
    if (all == NULL)
        return PyErr_NoMemory();
    PyObject *rows = NULL;
    if (pyshc_pool_lock(h)) {
        int r = shc_arena_holdings(&h->shared->pool->arena, all);
        pyshc_pool_unlock(h->shared);
        rows = r == 0 ? pyshc_participants(h->shared, index_of) : pyshc_raise(h->st, r, "%R", h);
    }
    if (rows != NULL && !fill_in(rows, all))
        Py_CLEAR(rows);
    PyMem_Free(all);
    return rows;
}

static uint64_t
count_shelved(const shc_pool_t *pool)
{
    uint64_t size, n = 0;
    for (uint32_t i = 0; i < pool->n_places; i++)
        n += shc_pool_look(pool, i, &size);
    return n;
}

static PyObject *
stats_fields(pyshc_handle_t *h, const shc_arena_stats_t *s)
{
    uint64_t blocks = s->runs, free = s->bytes_free;
    for (uint32_t c = 0; c < SHC_ARENA_CLASSES; c++)
        blocks += s->class[c].used - s->class[c].cached;
    PyObject *classes = size_classes(s);
    PyObject *participants = classes != NULL ? participants_of(h) : NULL;
    if (participants == NULL) {
        Py_XDECREF(classes);
        return NULL;
    }
    uint64_t given = shc_a64_load_relaxed(&h->shared->pool->shm->given_back);
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:K,s:K,s:K,s:K,s:N,s:N}", "bytes_total",
                         (unsigned long long)s->bytes_total, "bytes_backed", (unsigned long long)s->bytes_backed,
                         "bytes_used", (unsigned long long)s->bytes_used, "bytes_free", (unsigned long long)free,
                         "bytes_largest", (unsigned long long)s->bytes_largest, "bytes_given_back",
                         (unsigned long long)given, "fragmentation", (unsigned)s->fragmentation, "blocks",
                         (unsigned long long)blocks, "shelved", (unsigned long long)count_shelved(h->shared->pool),
                         "records", (unsigned long long)s->records, "parcels", (unsigned long long)s->posted,
                         "size_classes", classes, "participants", participants);
}

const char pyshc_pool_stats_doc[] =
    "stats($self, /)\n--\n\nA PoolStats: memory, blocks, size classes, and who holds what, at about this moment.";

PyObject *
pyshc_pool_stats(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyObject *stats = NULL;
    shc_arena_stats_t s;
    if (!pyshc_handle_pin(h))
        return NULL;
    if (read_stats(h, &s))
        stats = pyshc_make_stats("PoolStats", stats_fields(h, &s));
    pyshc_handle_unpin(h);
    return stats;
}

/* ---- the type ---- */

PyDoc_STRVAR(
    allocate_doc,
    "allocate($self, size, /)\n--\n\n"
    "A Block of size bytes, 1 to max_size; what is in it is what its last user left there.\n\n"
    "Blocks of 64 bytes and multiples of it begin at a multiple of 64. Raises MemoryError when the pool is at "
    "its max_size and\n"
    "no piece is free that is long enough; OSError(ENOSPC) when the system has no more memory for it to grow.");
PyDoc_STRVAR(release_doc, "release($self, block, /)\n--\n\n"
                          "The same as block.release(). ValueError if it was released already or is another pool's.");

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef pool_methods[] = {
    {"attach", FAST(pyshc_pool_attach), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, pyshc_pool_attach_doc},
    {"open", FAST(pool_open), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, open_doc},
    {"_rebuild", FAST(pyshc_pool_rebuild), METH_FASTCALL | METH_CLASS, NULL},
    {"__reduce__", pyshc_pool_reduce, METH_NOARGS, NULL},
    {"allocate", pool_allocate, METH_O, allocate_doc},
    {"release", pyshc_pool_release, METH_O, release_doc},
    {"get_pool", pool_get_pool, METH_O, get_pool_doc},
    {"cleanup", FAST(pyshc_pool_cleanup), METH_FASTCALL | METH_KEYWORDS, pyshc_pool_cleanup_doc},
    {"_tend", pyshc_pool_do_tend, METH_NOARGS, NULL},
    {"stats", pyshc_pool_stats, METH_NOARGS, pyshc_pool_stats_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"total_allocated", pool_get_figure, NULL, "Bytes of all blocks that are in use, in all processes.",
     (void *)TOTAL_ALLOCATED},
    {"pool_count", pool_get_figure, NULL, "Size classes that have memory; all blocks of whole pages are one.",
     (void *)POOL_COUNT},
    {"max_size", pool_get_figure, NULL, "Bytes that the pool can have at most.", (void *)MAX_SIZE},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)pool_doc}, {Py_tp_new, pool_new},       {Py_tp_dealloc, pyshc_handle_dealloc},
    {Py_tp_methods, pool_methods}, {Py_tp_getset, pool_getset}, {0, NULL},
};

PyType_Spec pyshc_pool_spec = {
    .name = "shmcomm.MemoryPool",
    .basicsize = sizeof(pyshc_pool_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = pool_slots,
};
