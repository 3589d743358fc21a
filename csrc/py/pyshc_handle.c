#include "py/pyshc_handle.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "py/pyshc_refusal.h"

#define DEFAULT_MODE 0600
#define DEFAULT_PARTICIPANTS 128
/* While an object is awaited: how long between two looks at its name. */
#define LOOK_MIN_NS UINT64_C(500000)
#define LOOK_MAX_NS UINT64_C(20000000)
/* A living process that is removing a name is given this long before a creation calls the name taken. */
#define REMOVAL_NS UINT64_C(1000000000)

/* ---- the interpreter's list of open handles ---- */

static void
list_add(pyshc_handle_t *h)
{
    PYSHC_GUARD_LOCK(&h->st->handles_guard);
    h->next = h->st->handles;
    h->link = &h->st->handles;
    if (h->next != NULL)
        h->next->link = &h->next;
    h->st->handles = h;
    PYSHC_GUARD_UNLOCK(&h->st->handles_guard);
}

/* The list is guarded. */
static void
unlink_from_list(pyshc_handle_t *h)
{
    if (h->link == NULL)
        return;
    *h->link = h->next;
    if (h->next != NULL)
        h->next->link = h->link;
    h->link = NULL;
}

static void
list_remove(pyshc_handle_t *h)
{
    PYSHC_GUARD_LOCK(&h->st->handles_guard);
    unlink_from_list(h);
    PYSHC_GUARD_UNLOCK(&h->st->handles_guard);
}

/* Of one in the list; NULL if its last reference is going in another thread just now. The list is guarded, and what is
 * in it has its segment. */
static PyObject *
reference_to(pyshc_handle_t *h)
{
    return PYSHC_FREE_THREADED ? pyshc_weakref_get(h->known) : Py_NewRef((PyObject *)h);
}

pyshc_handle_t *
pyshc_handle_find(pyshc_state_t *st, const pyshc_kind_t *kind, uint64_t key)
{
    PyObject *found = NULL;
    PYSHC_GUARD_LOCK(&st->handles_guard);
    for (pyshc_handle_t *h = st->handles; h != NULL && found == NULL; h = h->next)
        if (h->kind == kind && !pyshc_handle_is_closed(h) && h->shared->seg.id.key == key)
            found = reference_to(h);
    PYSHC_GUARD_UNLOCK(&st->handles_guard);
    return (pyshc_handle_t *)found;
}

/* ---- errors in the words of the user ---- */

const char *
pyshc_handle_type_name(const pyshc_handle_t *h)
{
    const char *dot = strrchr(Py_TYPE(h)->tp_name, '.');
    return dot != NULL ? dot + 1 : Py_TYPE(h)->tp_name;
}

int
pyshc_handle_raise_closed(pyshc_handle_t *h)
{
    PyErr_Format(PyExc_ValueError, "%s %R is closed", pyshc_handle_type_name(h), h->name);
    return PYSHC_RAISED;
}

bool
pyshc_handle_refuse_closed(pyshc_handle_t *h)
{
    (void)pyshc_handle_raise_closed(h);
    pyshc_handle_unpin(h);
    return false;
}

/* ---- life ---- */

pyshc_handle_t *
pyshc_handle_new(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &pyshc_module);
    if (module == NULL)
        return NULL;
    pyshc_handle_t *h = (pyshc_handle_t *)type->tp_alloc(type, 0);
    if (h == NULL)
        return NULL;
    h->module = Py_NewRef(module);
    h->st = pyshc_state_of(module);
    h->spin_ns = UINT32_MAX;
    shc_a32_store_relaxed(&h->closed, 1); /* until it is filled */
    return h;
}

/* Workers of multiprocessing end by os._exit, which runs no atexit function but multiprocessing's own finalisers:
 * ask to be one of them, once in each process. */
static bool
arrange_farewell(pyshc_state_t *st)
{
    uint64_t epoch = shc_self_epoch(&pyshc_self);
    if (shc_a64_load_relaxed(&st->farewell_epoch) == epoch)
        return true;
    PyObject *name = PyUnicode_FromString("multiprocessing.util");
    PyObject *util = name != NULL ? PyImport_GetModule(name) : NULL;
    Py_XDECREF(name);
    if (util == NULL)
        return !PyErr_Occurred();
    PyObject *farewell = PyImport_ImportModule("shmcomm._farewell");
    PyObject *done = farewell != NULL ? PyObject_CallMethod(farewell, "arrange", "O", util) : NULL;
    Py_DECREF(util);
    Py_XDECREF(farewell);
    Py_XDECREF(done);
    if (done != NULL)
        shc_a64_store_relaxed(&st->farewell_epoch, epoch);
    return done != NULL;
}

/* The handle has its segment: it can be used from now on. */
static bool
fill(pyshc_handle_t *h, const pyshc_kind_t *kind, pyshc_shared_t *shared, PyObject *name, PyObject *namespace,
     const pyshc_place_t *place)
{
    h->kind = kind;
    h->shared = shared;
    h->pins_epoch = shared->seg.epoch;
    shc_a64_store_relaxed(&h->epoch, shared->seg.epoch);
    h->name = Py_NewRef(name);
    h->namespace = Py_NewRef(namespace);
    if (PYSHC_FREE_THREADED && (h->known = PyWeakref_NewRef((PyObject *)h, NULL)) == NULL) {
        pyshc_shared_release(shared, 0);
        h->shared = NULL;
        return false;
    }
    shc_a32_store_relaxed(&h->closed, 0);
    list_add(h);
    h->directory = PyUnicode_DecodeFSDefault(place->directory);
    return h->directory != NULL && arrange_farewell(h->st);
}

static bool
parse_creation(const pyshc_creation_t *c, shc_seg_create_args_t *args)
{
    uint64_t mode = DEFAULT_MODE, participants = DEFAULT_PARTICIPANTS;
    if (c->mode != NULL && !pyshc_parse_integer(c->mode, "mode", 0, 0777, &mode))
        return false;
    if (c->max_participants != NULL &&
        !pyshc_parse_integer(c->max_participants, "max_participants", 1, SHC_PARTICIPANT_MAX, &participants))
        return false;
    if (!pyshc_parse_flag(c->persist, &args->persist))
        return false;
    if ((mode & 0600) != 0600) {
        char text[PYSHC_MODE_TEXT];
        PyErr_Format(PyExc_ValueError, "mode must let its owner read and write (0o600), and %s does not",
                     pyshc_mode_text((uint32_t)mode, text));
        return false;
    }
    args->mode = (uint32_t)mode;
    args->participants = (uint32_t)participants;
    return true;
}

/* Sleeps until `until_ns` with the interpreter free; false if a signal handler raised. */
static bool
doze(uint64_t until_ns)
{
    shc_a32_t word;
    shc_a32_store_relaxed(&word, 0);
    int r;
    Py_BEGIN_ALLOW_THREADS r = shc_os_futex_wait(&word, 0, until_ns);
    Py_END_ALLOW_THREADS(void) r; /* why it ended does not matter: the caller looks again */
    return PyErr_CheckSignals() == 0;
}

static int
create_patiently(const pyshc_kind_t *kind, const pyshc_place_t *place, const shc_seg_create_args_t *args,
                 pyshc_shared_t **out)
{
    uint64_t end = 0;
    for (;;) {
        int r;
        Py_BEGIN_ALLOW_THREADS /* reserving memory takes its time */
            r = pyshc_shared_create(place, kind->spec, args, kind->init, kind->bind, out);
        Py_END_ALLOW_THREADS if (r != SHC_GONE) return r;
        uint64_t now = shc_os_now_ns();
        end = end != 0 ? end : now + REMOVAL_NS;
        if (now >= end)
            return SHC_GONE;
        if (!doze(now + LOOK_MIN_NS))
            return PYSHC_RAISED;
    }
}

static bool
make_do(const pyshc_kind_t *kind, shc_seg_create_args_t *args, int status)
{
    bool too_large = status == -EFBIG || status == -ENOMEM || status == -EOPNOTSUPP;
    return too_large && kind->make_do != NULL && kind->make_do(args, status);
}

static bool
create_at(pyshc_handle_t *h, const pyshc_kind_t *kind, shc_seg_create_args_t *args, PyObject *name, PyObject *namespace,
          PyObject *directory, bool *exists)
{
    pyshc_place_t place;
    pyshc_shared_t *shared;
    if (!pyshc_place_resolve(name, namespace, directory, &place))
        return false;
    int r = create_patiently(kind, &place, args, &shared);
    while (make_do(kind, args, r))
        r = create_patiently(kind, &place, args, &shared);
    bool done = false;
    if (r == 0) {
        done = fill(h, kind, shared, name, namespace, &place);
    } else if (r == -EEXIST && exists != NULL) {
        *exists = done = true;
    } else if (r != PYSHC_RAISED) {
        uint64_t size = 0;
        int known =
            r == -ENOSPC ? shc_seg_need_for(kind->spec, args, &size) : shc_seg_size_for(kind->spec, args, &size);
        if (known != 0)
            size = UINT64_MAX;
        pyshc_refuse_creation(h->st, r, pyshc_handle_type_name(h), kind->spec->kind, &place, name, size);
    }
    pyshc_place_clear(&place);
    return done;
}

bool
pyshc_handle_create(pyshc_handle_t *h, const pyshc_kind_t *kind, const pyshc_creation_t *c, shc_seg_create_args_t *args,
                    bool *exists)
{
    if (!parse_creation(c, args))
        return false;
    int laid_out = kind->lay_out != NULL ? kind->lay_out(args) : 0;
    if (laid_out != 0) {
        pyshc_raise(h->st, laid_out, "cannot create %s", pyshc_handle_type_name(h));
        return false;
    }
    PyObject *namespace = pyshc_place_namespace();
    PyObject *name = c->name == NULL || c->name == Py_None ? pyshc_place_random_name() : Py_NewRef(c->name);
    bool done = namespace != NULL && name != NULL && create_at(h, kind, args, name, namespace, c->directory, exists);
    Py_XDECREF(namespace);
    Py_XDECREF(name);
    return done;
}

static int
attach_patiently(const pyshc_kind_t *kind, const pyshc_place_t *place, uint64_t deadline_ns, bool any_owner,
                 shc_os_file_info_t *info, pyshc_shared_t **out)
{
    for (uint64_t pause = LOOK_MIN_NS;; pause = pause < LOOK_MAX_NS ? 2 * pause : pause) {
        int r = pyshc_shared_attach(place, kind->spec, any_owner, kind->bind, info, out);
        uint64_t now = shc_os_now_ns();
        if ((r != -ENOENT && r != SHC_GONE) || now >= deadline_ns)
            return r;
        if (!doze(deadline_ns - now < pause ? deadline_ns : now + pause))
            return PYSHC_RAISED;
    }
}

static bool
attach_at(pyshc_handle_t *h, const pyshc_kind_t *kind, PyObject *name, PyObject *namespace, PyObject *directory,
          uint64_t deadline_ns, bool any_owner, bool absent_is_fine)
{
    pyshc_place_t place;
    pyshc_shared_t *shared;
    if (!pyshc_place_resolve(name, namespace, directory, &place))
        return false;
    shc_os_file_info_t info = {0};
    int r = attach_patiently(kind, &place, deadline_ns, any_owner, &info, &shared);
    bool done = false;
    h->mode = info.mode;
    if (r == 0)
        done = fill(h, kind, shared, name, namespace, &place);
    else if ((r == -ENOENT || r == SHC_GONE) && absent_is_fine)
        done = true;
    else if (r != PYSHC_RAISED)
        pyshc_refuse_attach(h->st, r, pyshc_handle_type_name(h), &place, name, deadline_ns != 0);
    pyshc_place_clear(&place);
    return done;
}

bool
pyshc_handle_attach(pyshc_handle_t *h, const pyshc_kind_t *kind, PyObject *name, PyObject *namespace,
                    PyObject *directory, uint64_t deadline_ns, bool any_owner, bool absent_is_fine)
{
    PyObject *space = namespace != NULL ? Py_NewRef(namespace) : pyshc_place_namespace();
    bool done = space != NULL && attach_at(h, kind, name, space, directory, deadline_ns, any_owner, absent_is_fine);
    Py_XDECREF(space);
    return done;
}

void
pyshc_handle_disagree(pyshc_handle_t *h, const char *option, PyObject *there, PyObject *asked)
{
    if (there != NULL && asked != NULL)
        PyErr_Format(h->st->LayoutError,
                     "%R exists with %s %U, not %U; to take it as it is, leave %s= out or use attach()", h, option,
                     there, asked, option);
    Py_XDECREF(there);
    Py_XDECREF(asked);
}

bool
pyshc_handle_agrees(pyshc_handle_t *h, const pyshc_creation_t *c)
{
    shc_seg_create_args_t asked = {0};
    const shc_seg_id_t *id = &h->shared->seg.id;
    bool persists = id->flags & SHC_SEG_FLAG_PERSIST;
    char there[PYSHC_MODE_TEXT], wanted[PYSHC_MODE_TEXT];
    if (!parse_creation(c, &asked))
        return false;
    if (c->mode != NULL && asked.mode != (h->mode & 0777))
        pyshc_handle_disagree(h, "mode", PyUnicode_FromString(pyshc_mode_text(h->mode, there)),
                              PyUnicode_FromString(pyshc_mode_text(asked.mode, wanted)));
    else if (c->persist != NULL && asked.persist != persists)
        pyshc_handle_disagree(h, "persist", PyObject_Repr(persists ? Py_True : Py_False),
                              PyObject_Repr(asked.persist ? Py_True : Py_False));
    else if (c->max_participants != NULL && asked.participants != id->participants)
        pyshc_handle_disagree(h, "max_participants", PyUnicode_FromFormat("%u", (unsigned)id->participants),
                              PyUnicode_FromFormat("%u", (unsigned)asked.participants));
    else
        return true;
    return false;
}

/* What this process has taken through the handle. */
static uint32_t
ends_of(const pyshc_handle_t *h)
{
    uint64_t epoch = shc_self_epoch(&pyshc_self);
    uint32_t ends = 0;
    for (int end = 0; epoch != 0 && end < 2; end++)
        ends |= (uint32_t)(shc_a64_load_relaxed(&h->taken[end]) == epoch) << end;
    return ends;
}

/* Lets the segment go, once. */
static void
let_go(pyshc_handle_t *h)
{
    pyshc_shared_t *shared = h->shared;
    list_remove(h);
    if (shared != NULL && h->kind->let_go != NULL)
        h->kind->let_go(h);
    h->shared = NULL;
    if (shared != NULL)
        pyshc_shared_release(shared, ends_of(h));
}

void
pyshc_handle_unpin_last(pyshc_handle_t *h)
{
    uint32_t closed_word = 1;
    /* Closer and last pin may both come here; one wins. */
    if (shc_a32_cas_seq_cst(&h->closed, &closed_word, 2)) /* AR1 */
        let_go(h);
}

/* Pins are threads inside calls; those of the parent do not exist in a forked child. */
static void
forget_pins_of_parent(pyshc_handle_t *h)
{
    uint64_t epoch = pyshc_shared_own_epoch();
    pyshc_registry_lock();
    if (h->pins_epoch != epoch) {
        shc_a32_store_relaxed(&h->pins, 0);
        h->pins_epoch = epoch;
    }
    pyshc_registry_unlock();
}

void
pyshc_handle_close(pyshc_handle_t *h)
{
    uint32_t open_word = 0;
    if (shc_a32_load_relaxed(&h->closed) != 0)
        return;
    forget_pins_of_parent(h);
    pyshc_count_up(&h->pins);                             /* ours: h->shared stays while we look at it */
    if (shc_a32_cas_seq_cst(&h->closed, &open_word, 1)) { /* AR1 */
        /* A pinner either sees the mark, or we see its pin. */
        if (shc_a32_load_seq_cst(&h->pins) > 1 && h->kind->wake != NULL) /* AR1 */
            h->kind->wake(h->shared);
    }
    pyshc_handle_unpin(h);
}

/* The handle is its parent's still, or leads to no segment of ours. */
bool
pyshc_handle_pin_slowly(pyshc_handle_t *h)
{
    forget_pins_of_parent(h);
    pyshc_count_up(&h->pins);
    if (pyshc_mark_load(&h->closed) || h->shared == NULL)
        return pyshc_handle_refuse_closed(h);
    int r = pyshc_shared_refresh(h->shared);
    if (r == 0 && arrange_farewell(h->st)) {
        shc_a64_store_release(&h->epoch, shc_self_epoch(&pyshc_self)); /* R1 */
        return true;
    }
    if (r != 0)
        pyshc_raise(h->st, r, "%s %R cannot be used in this forked process", pyshc_handle_type_name(h), h->name);
    pyshc_handle_unpin(h);
    return false;
}

/* ---- the end of the interpreter ---- */

/* The first of the list, as a new reference, out of the list; NULL: there is none. One whose last reference is going in
 * another thread just now is left to that: its dealloc waits at the list. */
static pyshc_handle_t *
take_first(pyshc_state_t *st)
{
    PyObject *taken = NULL;
    PYSHC_GUARD_LOCK(&st->handles_guard);
    while (taken == NULL && st->handles != NULL) {
        pyshc_handle_t *h = st->handles;
        unlink_from_list(h);
        taken = reference_to(h);
    }
    PYSHC_GUARD_UNLOCK(&st->handles_guard);
    return (pyshc_handle_t *)taken;
}

/* False if a finaliser came here from inside a call on this very end. */
static bool
enter_end(pyshc_mutex_t *mutex)
{
    return !pyshc_mutex_is_mine(mutex) && pyshc_mutex_lock(mutex);
}

/* A daemon thread may be waiting through the handle and never come back: its mapping stays, the rest goes now. One that
 * works is done with what it does. */
static void
let_go_in_use(pyshc_handle_t *h)
{
    pyshc_shared_t *shared = h->shared;
    uint32_t ends = ends_of(h);
    pyshc_shared_export(shared);
    if (!PYSHC_FREE_THREADED && h->kind->let_go != NULL)
        h->kind->let_go(h);                 /* else that thread may be at it; what it has, others find to be nobody's */
    shc_a64_store_relaxed(&h->taken[0], 0); /* it must not think that it has them still */
    shc_a64_store_relaxed(&h->taken[1], 0);
    bool sends = enter_end(&shared->send_lock), receives = enter_end(&shared->receive_lock);
    pyshc_shared_release(shared, ends);
    if (receives)
        pyshc_mutex_unlock(&shared->receive_lock);
    if (sends)
        pyshc_mutex_unlock(&shared->send_lock);
    if (h->kind->wake != NULL)
        h->kind->wake(shared);
}

void
pyshc_handle_close_all(pyshc_state_t *st)
{
    pyshc_handle_t *h;
    while ((h = take_first(st)) != NULL) {
        forget_pins_of_parent(h);
        bool is_ours = shc_a32_exchange_seq_cst(&h->closed, 2) != 2; /* AR1; else another thread is letting it go */
        bool is_used = shc_a32_load_seq_cst(&h->pins) != 0;          /* AR1 */
        if (is_ours && is_used)
            let_go_in_use(h);
        else if (is_ours)
            let_go(h);
        Py_DECREF(h);
    }
}

/* ---- the base type ---- */

int
pyshc_handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(h->module);
    Py_VISIT(h->foreign);
    int r = pyshc_envelope_traverse(&h->envelope, visit, arg);
    return r != 0 ? r : pyshc_codec_traverse(&h->codec, visit, arg);
}

static int
object_clear(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    pyshc_codec_clear(&h->codec);
    pyshc_envelope_clear(&h->envelope);
    return 0;
}

void
pyshc_handle_dealloc(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pyshc_handle_close(h); /* first: callbacks of weak references run anything, and must not find it in the list */
    list_remove(h);
    PyObject_ClearWeakRefs(self);
    Py_XDECREF(h->known);
    pyshc_codec_clear(&h->codec);
    pyshc_envelope_clear(&h->envelope);
    Py_XDECREF(h->foreign);
    Py_XDECREF(h->name);
    Py_XDECREF(h->namespace);
    Py_XDECREF(h->directory);
    PyObject *module = h->module;
    type->tp_free(self);
    Py_DECREF(type);
    Py_DECREF(module);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Let the object go. The last process to do so removes its name, unless it is persistent.\n\n"
                        "Waiting calls in other threads end with ValueError. Views of its memory stay valid; what they "
                        "show is theirs until the\n"
                        "last of them is gone. Closing twice is fine.");

static PyObject *
object_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_close((pyshc_handle_t *)self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(unlink_doc, "unlink($self, /)\n--\n\n"
                         "Remove the name now. Whoever has the object open goes on using it; nobody can attach any "
                         "more, and the name is free.\n\n"
                         "Raises FileNotFoundError if the name is gone already.");

static PyObject *
object_unlink(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    int dir_fd;
    if (!pyshc_handle_pin(h))
        return NULL;
    int r = shc_os_dir_open(h->shared->directory, &dir_fd);
    if (r == 0) {
        r = shc_seg_unlink(&h->shared->seg, dir_fd, h->shared->file);
        shc_os_close(dir_fd);
    }
    if (r != 0)
        pyshc_refuse_unlink(h->st, r, pyshc_handle_type_name(h), h->shared->directory, h->name);
    pyshc_handle_unpin(h);
    return r != 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe object itself; ValueError if it is closed.");
PyDoc_STRVAR(exit_doc, "__exit__($self, exc_type, exc, traceback, /)\n--\n\nclose().");

static PyObject *
object_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    pyshc_handle_unpin(h);
    return Py_NewRef(self);
}

static PyObject *
object_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    pyshc_handle_close((pyshc_handle_t *)self);
    Py_RETURN_NONE;
}

static PyObject *
object_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((pyshc_handle_t *)self)->name);
}

static PyObject *
object_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pyshc_handle_is_closed((pyshc_handle_t *)self));
}

static PyObject *
object_repr(PyObject *self)
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    return PyUnicode_FromFormat("<%s %R%s>", pyshc_handle_type_name(h), h->name,
                                pyshc_handle_is_closed(h) ? " closed" : "");
}

PyObject *
pyshc_make_stats(const char *cls, PyObject *fields)
{
    PyObject *result = NULL;
    PyObject *module = fields != NULL ? PyImport_ImportModule("shmcomm._stats") : NULL;
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, cls) : NULL;
    PyObject *empty = type != NULL ? PyTuple_New(0) : NULL;
    if (empty != NULL)
        result = PyObject_Call(type, empty, fields);
    Py_XDECREF(empty);
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_XDECREF(fields);
    return result;
}

static PyObject *
participant(pyshc_shared_t *shared, uint32_t index, PyObject *(*holds)(pyshc_shared_t *, uint32_t, uint32_t))
{
    shc_identity_t who;
    uint64_t since;
    uint32_t phase, generation;
    if (!shc_participant_read(&shared->seg.participants, index, &who, &since, &phase, &generation))
        return Py_NewRef(Py_None);
    bool dead = shc_participant_is_dead(&shared->seg.participants, index, generation, UINT32_MAX, &pyshc_self.id);
    PyObject *held = holds != NULL ? holds(shared, index, generation) : PyTuple_New(0);
    if (held == NULL)
        return NULL;
    return Py_BuildValue("{s:k,s:d,s:O,s:N}", "pid", (unsigned long)who.pid, "since", (double)since / 1e9, "alive",
                         dead ? Py_False : Py_True, "holds", held);
}

PyObject *
pyshc_participants(pyshc_shared_t *shared, PyObject *(*holds)(pyshc_shared_t *, uint32_t, uint32_t))
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < shared->seg.participants.count; i++) {
        PyObject *row = participant(shared, i, holds);
        if (row == NULL || (row != Py_None && PyList_Append(list, row) < 0))
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static PyMethodDef object_methods[] = {
    {"close", object_close, METH_NOARGS, close_doc},
    {"unlink", object_unlink, METH_NOARGS, unlink_doc},
    {"__enter__", object_enter, METH_NOARGS, enter_doc},
    {"__exit__", object_exit, METH_VARARGS, exit_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef object_getset[] = {
    {"name", object_get_name, NULL, "The name by which other processes attach.", NULL},
    {"closed", object_get_closed, NULL, "True after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef object_members[] = {
    {"__weaklistoffset__", PYSHC_T_PYSSIZET, offsetof(pyshc_handle_t, weakrefs), PYSHC_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    object_doc,
    "Base of every named object in shared memory: name, closed, close(), unlink(), context manager, pickling by "
    "name.\n\n"
    "What all of them take when they are created:\n"
    "name: 1 to 200 of A-Z a-z 0-9 . _ -; None makes one up. mode: permissions of the file, 0o600 (which help() shows "
    "as 384).\n"
    "persist=True: it stays when the last process has closed it, until unlink(). directory: where, instead of "
    "SHMCOMM_DIR or /dev/shm.\n"
    "max_participants: processes that may have it open at a time, 1 to 2047.");

static PyType_Slot object_slots[] = {
    {Py_tp_doc, (void *)object_doc},
    {Py_tp_traverse, pyshc_handle_traverse},
    {Py_tp_clear, object_clear},
    {Py_tp_dealloc, pyshc_handle_dealloc},
    {Py_tp_repr, object_repr},
    {Py_tp_methods, object_methods},
    {Py_tp_getset, object_getset},
    {Py_tp_members, object_members},
    {0, NULL},
};

PyType_Spec pyshc_shared_object_spec = {
    .name = "shmcomm.SharedObject",
    .basicsize = sizeof(pyshc_handle_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = object_slots,
};
