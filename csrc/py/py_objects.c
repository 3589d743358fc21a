/* ObjectPool: making it, opening it, looking at it. Its use is in py_objects_use.c. */
#include "py/py_objects.h"

#define DEFAULT_MAX_SIZE 64

/* ---- creating and opening ---- */

static void
bind_objects(pyshc_shared_t *shared)
{
    shc_objects_open(&shared->objects, &shared->seg);
}

static void
wake_objects(pyshc_shared_t *shared)
{
    shc_event_notify_all(&shared->objects.shm->returned);
}

static const pyshc_kind_t objects_kind = {
    .spec = &shc_objects_spec,
    .init = shc_objects_init,
    .bind = bind_objects,
    .wake = wake_objects,
    .let_go = pyshc_objects_let_go,
};

typedef struct objects_options {
    uint64_t initial_size;
    uint64_t max_size;
    uint64_t slot_size;
    bool has_max_size;
    bool has_slot_size;
} objects_options_t;

static bool
is_given(PyObject *arg)
{
    return arg != NULL && arg != Py_None;
}

static bool
parse_options(PyObject *initial_size, PyObject *max_size, PyObject *slot_size, objects_options_t *out)
{
    *out = (objects_options_t){
        .max_size = DEFAULT_MAX_SIZE, .has_max_size = is_given(max_size), .has_slot_size = is_given(slot_size)};
    if (out->has_max_size && !pyshc_parse_integer(max_size, "max_size", 1, SHC_OBJECTS_MAX_SIZE_MAX, &out->max_size))
        return false;
    if (out->has_slot_size &&
        !pyshc_parse_integer(slot_size, "slot_size", 0, SHC_OBJECTS_SLOT_SIZE_MAX, &out->slot_size))
        return false;
    return initial_size == NULL ||
           pyshc_parse_integer(initial_size, "initial_size", 0, out->max_size, &out->initial_size);
}

static bool
parse_callable(PyObject *arg, const char *what, PyObject **out)
{
    if (!PyCallable_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "%s must be callable, not %s", what, Py_TYPE(arg)->tp_name);
        return false;
    }
    *out = Py_NewRef(arg);
    return true;
}

/* A handle with its callables; it has no segment yet. */
static pyshc_objects_t *
new_handle(PyTypeObject *type, PyObject *factory, PyObject *reset, PyObject *validate)
{
    pyshc_objects_t *p = (pyshc_objects_t *)pyshc_handle_new(type);
    if (p == NULL)
        return NULL;
    p->h.spin_ns = 0; /* an object is out for longer than a spin lasts, and no one word tells when one comes back */
    if (!parse_callable(factory, "factory", &p->factory) ||
        (is_given(reset) && !parse_callable(reset, "reset", &p->reset)) ||
        (is_given(validate) && !parse_callable(validate, "validate", &p->validate)))
        Py_CLEAR(p);
    return p;
}

static bool
create(pyshc_objects_t *p, const pyshc_creation_t *creation, const objects_options_t *options, bool *exists)
{
    shc_seg_create_args_t args = {0};
    args.body_size = shc_objects_body_size(options->max_size, options->slot_size);
    args.config[SHC_OBJECTS_CONFIG_MAX_SIZE] = options->max_size;
    args.config[SHC_OBJECTS_CONFIG_SLOT_SIZE] = options->slot_size;
    if (!pyshc_handle_create(&p->h, &objects_kind, creation, &args, exists))
        return false;
    return p->h.shared == NULL || pyshc_objects_build_first(p, options->initial_size);
}

PyDoc_STRVAR(
    objects_doc,
    "ObjectPool(factory, *, reset=None, validate=None, initial_size=0, max_size=64, slot_size=0, name=None, "
    "mode=0o600,\n"
    "           persist=False, directory=None, max_participants=128)\n--\n\n"
    "Objects that are dear to make, used by one at a time and then by others: at most max_size are in use at once, in "
    "all processes\n"
    "that attach.\n\n"
    "factory() makes one. Each process has its own callables and its own objects; it gets back the one it used last. "
    "reset(obj) runs\n"
    "when an object is released, validate(obj) before one is handed out again: if it is false, another one is made. "
    "initial_size: how many\n"
    "the creator makes at once. max_size: 1 to 65536.\n\n"
    "slot_size: bytes of shared memory for each object, at least 64-byte aligned and zero at first. factory(view) gets "
    "it as a writable\n"
    "memoryview, and each process makes its object over a slot once. What a killed process was using comes back, and "
    "goes through\n"
    "reset(obj) before anybody gets it, as does what was not valid.\n\n"
    "An exception of a callable comes out of acquire() or release(); that object is dropped and its place is free "
    "again, to be reset\n"
    "before use. close() takes back what is still in use; do not use it any more.\n"
    "name, mode, persist, directory, max_participants: as for every shared object.\n\n"
    "Raises FileExistsError if a living object has the name, OSError(ENOSPC) if the memory is not there.\n\n"
    ">>> with ObjectPool(bytearray, reset=bytearray.clear) as pool:\n"
    "...     with pool.borrow() as scratch:\n"
    "...         scratch += b'work'\n"
    "...     pool.acquire()\n"
    "bytearray(b'')");

static PyObject *
objects_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"factory",  "reset",     "validate",          "initial_size",
                                        "max_size", "slot_size", PYSHC_CREATION_NAMES};
    PyObject *v[6 + PYSHC_CREATION_COUNT];
    objects_options_t options;
    if (!pyshc_parse_tuple("ObjectPool", args, kwargs, names, 6 + PYSHC_CREATION_COUNT, 1, 1, v) ||
        !parse_options(v[3], v[4], v[5], &options))
        return NULL;
    pyshc_objects_t *p = new_handle(type, v[0], v[1], v[2]);
    pyshc_creation_t creation = {v[6], v[7], v[8], v[9], v[10]};
    if (p != NULL && !create(p, &creation, &options, NULL))
        Py_CLEAR(p);
    return (PyObject *)p;
}

PyDoc_STRVAR(attach_doc,
             "attach($type, name, factory, *, reset=None, validate=None, timeout=0, directory=None, foreign=False)\n"
             "--\n\n"
             "Open an existing pool by name, waiting up to timeout seconds for it to appear. The callables are this "
             "process's own.\n\n"
             "foreign=True accepts an object of another user.\n"
             "Raises FileNotFoundError; LayoutError if the name is something else; PermissionError.");

/* v: name, factory, reset, validate, timeout, directory, foreign. */
static PyObject *
attach_with(PyTypeObject *type, PyObject *const *v, PyObject *namespace)
{
    uint64_t deadline_ns = 0;
    bool foreign = false;
    if ((v[4] != NULL && !pyshc_parse_timeout(v[4], &deadline_ns)) || !pyshc_parse_flag(v[6], &foreign))
        return NULL;
    pyshc_objects_t *p = new_handle(type, v[1], v[2], v[3]);
    if (p != NULL && !pyshc_handle_attach(&p->h, &objects_kind, v[0], namespace, v[5], deadline_ns, foreign, false))
        Py_CLEAR(p);
    return (PyObject *)p;
}

static PyObject *
objects_attach(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "factory", "reset", "validate", "timeout", "directory", "foreign"};
    PyObject *v[7];
    if (!pyshc_parse("attach", args, nargs, kwnames, names, 7, 2, 2, v))
        return NULL;
    return attach_with((PyTypeObject *)cls, v, NULL);
}

static bool
number_agrees(pyshc_objects_t *p, const char *option, uint64_t there, uint64_t asked)
{
    if (asked != there)
        pyshc_handle_disagree(&p->h, option, PyUnicode_FromFormat("%llu", (unsigned long long)there),
                              PyUnicode_FromFormat("%llu", (unsigned long long)asked));
    return asked == there;
}

/* Whether an existing pool has what open() was told. */
static bool
agrees(pyshc_objects_t *p, const pyshc_creation_t *creation, const objects_options_t *options)
{
    const uint64_t *config = p->h.shared->seg.id.config;
    if (options->has_max_size && !number_agrees(p, "max_size", config[SHC_OBJECTS_CONFIG_MAX_SIZE], options->max_size))
        return false;
    if (options->has_slot_size &&
        !number_agrees(p, "slot_size", config[SHC_OBJECTS_CONFIG_SLOT_SIZE], options->slot_size))
        return false;
    return pyshc_handle_agrees(&p->h, creation);
}

PyDoc_STRVAR(open_doc,
             "open($type, name, factory, *, reset=None, validate=None, initial_size=0, max_size=None, slot_size=None, "
             "mode=0o600,\n"
             "     persist=False, directory=None, max_participants=128)\n--\n\n"
             "Attach to the pool of that name, or create it if there is none; of several processes that do so at once, "
             "one creates.\n\n"
             "initial_size is for who creates. What is stated and the existing pool has otherwise is a LayoutError; "
             "what is not stated is\n"
             "taken as it is, and by default when it is created.");

/* One round: attach, else create. false: exception. No segment afterwards: lost both races, try again. */
static bool
open_once(pyshc_objects_t *p, PyObject *const *v, const objects_options_t *options)
{
    bool exists = false;
    pyshc_creation_t creation = {v[0], v[7], v[8], v[9], v[10]};
    if (!pyshc_handle_attach(&p->h, &objects_kind, v[0], NULL, v[9], 0, false, true))
        return false;
    if (p->h.shared != NULL)
        return agrees(p, &creation, options);
    return create(p, &creation, options, &exists);
}

static PyObject *
objects_open(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name",      "factory", "reset",   "validate",  "initial_size",    "max_size",
                                        "slot_size", "mode",    "persist", "directory", "max_participants"};
    PyObject *v[11];
    objects_options_t options;
    if (!pyshc_parse("open", args, nargs, kwnames, names, 11, 2, 2, v) || !parse_options(v[4], v[5], v[6], &options))
        return NULL;
    pyshc_objects_t *p = new_handle((PyTypeObject *)cls, v[1], v[2], v[3]);
    while (p != NULL && p->h.shared == NULL) {
        if (!open_once(p, v, &options) || PyErr_CheckSignals() < 0)
            Py_CLEAR(p);
    }
    return (PyObject *)p;
}

/* ---- pickling: the callables travel along ---- */

static PyObject *
objects_rebuild(PyObject *cls, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_rebuild() takes 6 arguments");
        return NULL;
    }
    PyObject *v[7] = {args[0], args[3], args[4], args[5], NULL, args[2], NULL};
    return attach_with((PyTypeObject *)cls, v, args[1]);
}

static PyObject *
objects_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    if (!pyshc_handle_pin(&p->h))
        return NULL;
    PyObject *rebuild = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_rebuild");
    PyObject *result = NULL;
    if (rebuild != NULL)
        result = Py_BuildValue("O(OOOOOO)", rebuild, p->h.name, p->h.namespace, p->h.directory, p->factory,
                               p->reset != NULL ? p->reset : Py_None, p->validate != NULL ? p->validate : Py_None);
    Py_XDECREF(rebuild);
    pyshc_handle_unpin(&p->h);
    return result;
}

/* ---- looking ---- */

typedef enum {
    SIZE,
    ALLOCATED,
    AVAILABLE,
    MAX_SIZE,
    SLOT_SIZE
} figure_t;

static uint64_t
figure_of(const shc_objects_t *o, figure_t which)
{
    switch (which) {
    case SIZE:
        return shc_objects_count(o).used;
    case ALLOCATED:
        return shc_objects_count(o).taken;
    case AVAILABLE:
        return o->max_size - shc_objects_count(o).taken;
    case MAX_SIZE:
        return o->max_size;
    default:
        return o->slot_size;
    }
}

static PyObject *
objects_get_figure(PyObject *self, void *which)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    uint64_t n = figure_of(&h->shared->objects, (figure_t)(uintptr_t)which);
    pyshc_handle_unpin(h);
    return PyLong_FromUnsignedLongLong(n);
}

static PyObject *
holds_of(pyshc_shared_t *shared, uint32_t index, uint32_t generation)
{
    uint32_t held = shc_objects_held_by(&shared->objects, index, generation);
    if (held == 0)
        return PyTuple_New(0);
    return Py_BuildValue("(N)", PyUnicode_FromFormat("%u object%s", (unsigned)held, held == 1 ? "" : "s"));
}

static PyObject *
stats_fields(pyshc_handle_t *h)
{
    const shc_objects_t *o = &h->shared->objects;
    shc_objects_counts_t n = shc_objects_count(o);
    uint64_t waiters = shc_participant_count_waiters(&h->shared->seg.participants, &pyshc_self.id);
    PyObject *participants = pyshc_participants(h->shared, holds_of);
    if (participants == NULL)
        return NULL;
    return Py_BuildValue("{s:K,s:K,s:I,s:I,s:I,s:I,s:I,s:K,s:K,s:K,s:N}", "bytes_total",
                         (unsigned long long)(o->max_size * o->slot_size), "bytes_used",
                         (unsigned long long)(n.taken * o->slot_size), "max_size", (unsigned)o->max_size, "size",
                         (unsigned)n.used, "allocated", (unsigned)n.taken, "available",
                         (unsigned)(o->max_size - n.taken), "dirty", (unsigned)n.dirty, "slot_size",
                         (unsigned long long)o->slot_size, "waiters", (unsigned long long)waiters, "deaths",
                         (unsigned long long)shc_a64_load_relaxed(&o->shm->deaths), "participants", participants);
}

static PyObject *
objects_stats(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *stats = pyshc_make_stats("ObjectPoolStats", stats_fields(h));
    pyshc_handle_unpin(h);
    return stats;
}

/* ---- the type ---- */

static int
objects_traverse(PyObject *self, visitproc visit, void *arg)
{
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    Py_VISIT(p->factory);
    Py_VISIT(p->reset);
    Py_VISIT(p->validate);
    for (uint32_t slot = 0; slot < p->table.max_size; slot++)
        Py_VISIT(p->table.entries[slot].object);
    return pyshc_handle_traverse(self, visit, arg);
}

/* Nobody can reach it any more: it is closed first, so that no finaliser finds it half cleared. */
static int
objects_clear(PyObject *self)
{
    pyshc_objects_t *p = (pyshc_objects_t *)self;
    pyshc_handle_close(&p->h);
    Py_CLEAR(p->factory);
    Py_CLEAR(p->reset);
    Py_CLEAR(p->validate);
    return 0;
}

static void
objects_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)objects_clear(self);
    pyshc_handle_dealloc(self);
}

PyDoc_STRVAR(acquire_doc, "acquire($self, timeout=None)\n--\n\n"
                          "An object for the caller alone, waiting up to timeout seconds (None: for ever) while all "
                          "are in use.\n\n"
                          "Raises Empty when the time is over; what factory, validate or reset raises.");
PyDoc_STRVAR(try_acquire_doc, "try_acquire($self, default=None)\n--\n\n"
                              "An object for the caller alone, or default if all are in use.");
PyDoc_STRVAR(release_doc,
             "release($self, obj, /)\n--\n\n"
             "Give an object back, by any thread of the process that acquired it, through the same pool object.\n\n"
             "Objects are known by identity. Raises ValueError for one that is not in use, or not from here; what "
             "reset raises.\n"
             "Views of a slot's memory that are still around see what the next user does there.");
PyDoc_STRVAR(borrow_doc, "borrow($self, timeout=None)\n--\n\n"
                         "`with pool.borrow() as obj:` acquires when the block begins and releases when it ends, "
                         "however it ends.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\n"
                        "Drop the objects that this process keeps and nobody uses; they are made anew when they are "
                        "needed.");
PyDoc_STRVAR(stats_doc,
             "stats($self, /)\n--\n\nAn ObjectPoolStats: counts, bytes and participants at about this moment.");

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef objects_methods[] = {
    {"attach", FAST(objects_attach), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, attach_doc},
    {"open", FAST(objects_open), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, open_doc},
    {"_rebuild", FAST(objects_rebuild), METH_FASTCALL | METH_CLASS, NULL},
    {"__reduce__", objects_reduce, METH_NOARGS, NULL},
    {"acquire", FAST(pyshc_objects_acquire), METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"try_acquire", FAST(pyshc_objects_try_acquire), METH_FASTCALL | METH_KEYWORDS, try_acquire_doc},
    {"release", pyshc_objects_release, METH_O, release_doc},
    {"borrow", FAST(pyshc_objects_borrow), METH_FASTCALL | METH_KEYWORDS, borrow_doc},
    {"clear", pyshc_objects_clear, METH_NOARGS, clear_doc},
    {"stats", objects_stats, METH_NOARGS, stats_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef objects_getset[] = {
    {"size", objects_get_figure, NULL, "Objects that there are: places that have been used so far, in all processes.",
     (void *)SIZE},
    {"allocated", objects_get_figure, NULL, "Objects in use, in all processes.", (void *)ALLOCATED},
    {"available", objects_get_figure, NULL, "Objects that can be acquired without waiting: max_size - allocated.",
     (void *)AVAILABLE},
    {"max_size", objects_get_figure, NULL, "Objects that can be in use at once.", (void *)MAX_SIZE},
    {"slot_size", objects_get_figure, NULL, "Bytes of shared memory for each object.", (void *)SLOT_SIZE},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot objects_slots[] = {
    {Py_tp_doc, (void *)objects_doc}, {Py_tp_new, objects_new},
    {Py_tp_dealloc, objects_dealloc}, {Py_tp_traverse, objects_traverse},
    {Py_tp_clear, objects_clear},     {Py_tp_methods, objects_methods},
    {Py_tp_getset, objects_getset},   {0, NULL},
};

PyType_Spec pyshc_objects_spec = {
    .name = "shmcomm.ObjectPool",
    .basicsize = sizeof(pyshc_objects_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = objects_slots,
};
