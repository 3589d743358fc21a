/* SharedMemoryBuffer: named bytes, or the bytes of a multiprocessing.shared_memory.SharedMemory. */
#include "py/pyshc_array.h"

#include <string.h>

#include "py/pyshc_handle.h"

/* Copies of at least this size let other threads run. */
#define DETACH_BYTES (256 * 1024)

typedef struct pyshc_buffer {
    pyshc_handle_t h;
    shc_buffer_t buffer;
    shc_buffer_shm_t own_head; /* of a stdlib segment, which has no head of ours */
    Py_buffer foreign;         /* its memory; obj == NULL: ours */
    Py_ssize_t foreign_exports;
    bool foreign_viewed;    /* as `viewed`, for a stdlib segment: then its memory stays until this object goes */
    pyshc_shared_t *viewed; /* once its memory was asked for: NumPy keeps the object, but not the buffer */
    bool flushes;           /* its creator asked for checksums */
} pyshc_buffer_t;

static void
bind_buffer(pyshc_shared_t *shared)
{
    shc_buffer_open(&shared->buffer, &shared->seg);
}

static const pyshc_kind_t buffer_kind = {.spec = &shc_buffer_spec, .init = shc_buffer_init, .bind = bind_buffer};

/* ---- entering ---- */

static bool
is_foreign(const pyshc_buffer_t *b)
{
    return b->h.foreign != NULL;
}

/* The object is guarded. */
static void
release_foreign(pyshc_buffer_t *b)
{
    if (!pyshc_handle_is_closed(&b->h) || b->foreign_exports != 0 || b->foreign_viewed || b->foreign.obj == NULL)
        return;
    Py_buffer memory = b->foreign;
    b->foreign.obj = NULL; /* first: the release may let other threads in */
    PyBuffer_Release(&memory);
}

/* A call on a stdlib segment counts as an export: its memory stays while a large copy lets other threads run. */
static bool
enter_foreign(pyshc_buffer_t *b)
{
    bool open;
    PYSHC_CRITICAL_BEGIN(b);
    open = !pyshc_handle_is_closed(&b->h);
    b->foreign_exports += open;
    PYSHC_CRITICAL_END();
    if (!open)
        (void)pyshc_handle_raise_closed(&b->h);
    return open;
}

static void
leave_foreign(pyshc_buffer_t *b)
{
    PYSHC_CRITICAL_BEGIN(b);
    b->foreign_exports--;
    release_foreign(b);
    PYSHC_CRITICAL_END();
}

static bool
enter(pyshc_buffer_t *b)
{
    return is_foreign(b) ? enter_foreign(b) : pyshc_handle_pin(&b->h);
}

static void
leave(pyshc_buffer_t *b)
{
    if (is_foreign(b))
        leave_foreign(b);
    else
        pyshc_handle_unpin(&b->h);
}

/* ---- making ---- */

static bool
opened(pyshc_buffer_t *b)
{
    b->buffer = b->h.shared->buffer;
    return true;
}

static bool
create(pyshc_buffer_t *b, const pyshc_creation_t *creation, uint64_t size, bool checksum, bool *exists)
{
    shc_seg_create_args_t args = {0};
    args.body_size = shc_buffer_body_size(size);
    args.config[SHC_BUFFER_CONFIG_SIZE] = size;
    args.config[SHC_BUFFER_CONFIG_CHECKSUM] = checksum;
    b->flushes = checksum;
    return pyshc_handle_create(&b->h, &buffer_kind, creation, &args, exists);
}

static bool
parse_size(PyObject *arg, uint64_t *size)
{
    return pyshc_parse_integer(arg, "size", 1, SHC_BUFFER_SIZE_MAX, size);
}

static bool
set_flags(pyshc_buffer_t *b, PyObject *flags)
{
    uint64_t value;
    if (flags == NULL)
        return true;
    if (!pyshc_parse_integer(flags, "flags", 0, UINT32_MAX, &value))
        return false;
    shc_a32_store_relaxed(&b->buffer.shm->flags, (uint32_t)value);
    return true;
}

PyDoc_STRVAR(buffer_doc,
             "SharedMemoryBuffer(size, *, flags=0, checksum=False, name=None, mode=0o600, persist=False, "
             "directory=None, max_participants=128)\n--\n\n"
             "size bytes of shared memory with a name and a small head. memoryview(b) and numpy.frombuffer(b) are the "
             "memory itself.\n\n"
             "flags: 32 bits for the user. checksum=True: close() of this object, its creator, runs flush_checksum().\n"
             "name, mode, persist, directory, max_participants: see SharedObject. Nothing here locks: "
             "processes that write the same bytes\n"
             "at once get a mixture.\n\n"
             "Raises FileExistsError if a living object has the name, OSError(ENOSPC) if the memory is not there.\n\n"
             ">>> with SharedMemoryBuffer(16) as b:\n"
             "...     b.write(b'hello')\n"
             "...     b.read(0, 5)\n"
             "5\n"
             "b'hello'");

static PyObject *
buffer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"size", "flags", "checksum", PYSHC_CREATION_NAMES};
    PyObject *v[3 + PYSHC_CREATION_COUNT];
    uint64_t size;
    bool checksum = false;
    if (!pyshc_parse_tuple("SharedMemoryBuffer", args, kwargs, names, 3 + PYSHC_CREATION_COUNT, 1, 1, v) ||
        !parse_size(v[0], &size) || !pyshc_parse_flag(v[2], &checksum))
        return NULL;
    pyshc_buffer_t *b = (pyshc_buffer_t *)pyshc_handle_new(type);
    pyshc_creation_t creation = {v[3], v[4], v[5], v[6], v[7]};
    if (b != NULL && !(create(b, &creation, size, checksum, NULL) && opened(b) && set_flags(b, v[1])))
        Py_CLEAR(b);
    return (PyObject *)b;
}

PyDoc_STRVAR(attach_doc, "attach($type, name, *, timeout=0, directory=None, foreign=False)\n--\n\n"
                         "Open an existing buffer by name, waiting up to timeout seconds for it to appear.\n\n"
                         "foreign=True accepts an object of another user. Raises FileNotFoundError; LayoutError if the "
                         "name is something else;\n"
                         "PermissionError; OSError if all participants' slots are taken.");

static PyObject *
attach_with(PyTypeObject *type, PyObject *const *v, PyObject *namespace)
{
    uint64_t deadline_ns = 0;
    bool foreign = false;
    if ((v[1] != NULL && !pyshc_parse_timeout(v[1], &deadline_ns)) || !pyshc_parse_flag(v[3], &foreign))
        return NULL;
    pyshc_buffer_t *b = (pyshc_buffer_t *)pyshc_handle_new(type);
    if (b != NULL &&
        !(pyshc_handle_attach(&b->h, &buffer_kind, v[0], namespace, v[2], deadline_ns, foreign, false) && opened(b)))
        Py_CLEAR(b);
    return (PyObject *)b;
}

static PyObject *
buffer_attach(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "timeout", "directory", "foreign"};
    PyObject *v[4];
    if (!pyshc_parse("attach", args, nargs, kwnames, names, 4, 1, 1, v))
        return NULL;
    return attach_with((PyTypeObject *)cls, v, NULL);
}

PyDoc_STRVAR(
    open_doc,
    "open($type, name, size=None, *, flags=0, checksum=False, mode=0o600, persist=False, directory=None,\n"
    "     max_participants=128)\n--\n\n"
    "Attach to the buffer of that name, or create it if there is none; of several processes that do so at "
    "once, one creates.\n\n"
    "size is needed to create, flags are what the head begins with. What else is stated and the existing buffer "
    "has otherwise is a\n"
    "LayoutError; what is not stated is taken as it is. An existing one of another user is a PermissionError: only "
    "attach() has foreign=.\n"
    "Raises ValueError if it has to create and has no size.");

/* Whether an existing buffer has what open() was told. */
static bool
agrees(pyshc_buffer_t *b, const pyshc_creation_t *creation, uint64_t size, PyObject *checksum)
{
    bool flushes = b->h.shared->seg.id.config[SHC_BUFFER_CONFIG_CHECKSUM] != 0, asked = flushes;
    if (size != 0 && size != b->buffer.size) {
        pyshc_handle_disagree(&b->h, "size", PyUnicode_FromFormat("%llu", (unsigned long long)b->buffer.size),
                              PyUnicode_FromFormat("%llu", (unsigned long long)size));
        return false;
    }
    if (!pyshc_parse_flag(checksum, &asked))
        return false;
    if (asked == flushes)
        return pyshc_handle_agrees(&b->h, creation);
    pyshc_handle_disagree(&b->h, "checksum", PyObject_Repr(flushes ? Py_True : Py_False),
                          PyObject_Repr(asked ? Py_True : Py_False));
    return false;
}

static bool
open_once(pyshc_buffer_t *b, PyObject *const *v, uint64_t size, bool checksum)
{
    bool exists = false;
    pyshc_creation_t creation = {v[0], v[4], v[5], v[6], v[7]};
    if (!pyshc_handle_attach(&b->h, &buffer_kind, v[0], NULL, v[6], 0, false, true))
        return false;
    if (b->h.shared != NULL) {
        b->flushes = false; /* of an earlier try to create it */
        return opened(b) && agrees(b, &creation, size, v[3]);
    }
    if (size == 0) {
        PyErr_Format(PyExc_ValueError, "there is no buffer named %R, and creating it needs a size", v[0]);
        return false;
    }
    if (!create(b, &creation, size, checksum, &exists))
        return false;
    return exists || (opened(b) && set_flags(b, v[2]));
}

static PyObject *
buffer_open(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "size",    "flags",     "checksum",
                                        "mode", "persist", "directory", "max_participants"};
    PyObject *v[8];
    uint64_t size = 0;
    bool checksum = false;
    if (!pyshc_parse("open", args, nargs, kwnames, names, 8, 2, 1, v) ||
        (v[1] != NULL && v[1] != Py_None && !parse_size(v[1], &size)) || !pyshc_parse_flag(v[3], &checksum))
        return NULL;
    pyshc_buffer_t *b = (pyshc_buffer_t *)pyshc_handle_new((PyTypeObject *)cls);
    while (b != NULL && b->h.shared == NULL) {
        if (!open_once(b, v, size, checksum) || PyErr_CheckSignals() < 0)
            Py_CLEAR(b);
    }
    return (PyObject *)b;
}

PyDoc_STRVAR(from_shared_memory_doc,
             "from_shared_memory($type, shm, /)\n--\n\n"
             "The memory of a multiprocessing.shared_memory.SharedMemory, all of it, with the methods of this type.\n\n"
             "Its head (flags, user, checksum, used) is this object's own: the segment has no place for it. Closing "
             "lets shm go but does not close it.");

static PyObject *
buffer_from_shared_memory(PyObject *cls, PyObject *shm)
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)pyshc_handle_new((PyTypeObject *)cls);
    PyObject *memory = b != NULL ? PyObject_GetAttrString(shm, "buf") : NULL;
    PyObject *name = memory != NULL ? PyObject_GetAttrString(shm, "name") : NULL;
    if (name != NULL && memory == Py_None) {
        PyErr_Format(PyExc_ValueError, "SharedMemory %R is closed", name);
        Py_CLEAR(b);
    } else if (name == NULL || PyObject_GetBuffer(memory, &b->foreign, PyBUF_CONTIG) < 0) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Format(PyExc_TypeError, "from_shared_memory() needs a SharedMemory, not %s", Py_TYPE(shm)->tp_name);
        Py_CLEAR(b);
    } else {
        b->h.foreign = Py_NewRef(shm);
        b->h.name = Py_NewRef(name);
        b->buffer = (shc_buffer_t){.shm = &b->own_head, .data = b->foreign.buf, .size = (uint64_t)b->foreign.len};
        shc_a32_store_relaxed(&b->own_head.magic, SHC_BUFFER_MAGIC);
        shc_a32_store_relaxed(&b->own_head.version, SHC_BUFFER_VERSION);
        shc_a64_store_relaxed(&b->own_head.size, b->buffer.size);
        shc_a32_store_relaxed(&b->h.closed, 0);
    }
    Py_XDECREF(name);
    Py_XDECREF(memory);
    return (PyObject *)b;
}

/* ---- pickling ---- */

static PyObject *
buffer_rebuild(PyObject *cls, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_rebuild() takes 3 arguments");
        return NULL;
    }
    PyObject *v[4] = {args[0], NULL, args[2], NULL};
    return attach_with((PyTypeObject *)cls, v, args[1]);
}

static PyObject *
buffer_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    PyObject *maker =
        PyObject_GetAttrString((PyObject *)Py_TYPE(self), is_foreign(b) ? "from_shared_memory" : "_rebuild");
    PyObject *result = NULL;
    if (maker != NULL && is_foreign(b))
        result = Py_BuildValue("O(O)", maker, b->h.foreign);
    else if (maker != NULL)
        result = Py_BuildValue("O(OOO)", maker, b->h.name, b->h.namespace, b->h.directory);
    Py_XDECREF(maker);
    leave(b);
    return result;
}

/* ---- bytes ---- */

/* [offset, offset + length) inside? length absent: to the end. */
static bool
parse_range(pyshc_buffer_t *b, PyObject *offset_arg, PyObject *length_arg, uint64_t *offset, uint64_t *length)
{
    *offset = 0;
    if (offset_arg != NULL && !pyshc_parse_integer(offset_arg, "offset", 0, b->buffer.size, offset))
        return false;
    *length = b->buffer.size - *offset;
    return length_arg == NULL || length_arg == Py_None || pyshc_parse_integer(length_arg, "length", 0, *length, length);
}

static void
copy_bytes(void *dst, const void *src, size_t n)
{
    if (n < DETACH_BYTES) {
        memmove(dst, src, n);
        return;
    }
    Py_BEGIN_ALLOW_THREADS memmove(dst, src, n);
    Py_END_ALLOW_THREADS
}

PyDoc_STRVAR(write_doc,
             "write($self, data, offset=0)\n--\n\n"
             "Copy a bytes-like object to offset (in bytes); returns the number of bytes.\n\n"
             "Raises ValueError if it does not fit, and then writes nothing; TypeError if it is not bytes-like.");

static PyObject *
write_view(pyshc_buffer_t *b, const Py_buffer *data, PyObject *offset_arg)
{
    uint64_t offset = 0;
    if (offset_arg != NULL && !pyshc_parse_integer(offset_arg, "offset", 0, b->buffer.size, &offset))
        return NULL;
    if ((uint64_t)data->len > b->buffer.size - offset) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at offset %llu do not fit into %R of %llu bytes", data->len,
                     (unsigned long long)offset, b, (unsigned long long)b->buffer.size);
        return NULL;
    }
    copy_bytes(b->buffer.data + offset, data->buf, (size_t)data->len);
    shc_buffer_note_write(&b->buffer, offset, (uint64_t)data->len);
    return PyLong_FromSsize_t(data->len);
}

static PyObject *
buffer_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"data", "offset"};
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject *v[2], *result = NULL;
    Py_buffer data;
    if (!pyshc_parse("write", args, nargs, kwnames, names, 2, 2, 1, v) || !enter(b))
        return NULL;
    if (PyObject_GetBuffer(v[0], &data, PyBUF_CONTIG_RO) == 0) {
        result = write_view(b, &data, v[1]);
        PyBuffer_Release(&data);
    }
    leave(b);
    return result;
}

PyDoc_STRVAR(read_doc, "read($self, offset=0, length=None)\n--\n\nA copy of length bytes from offset; None: to the "
                       "end. ValueError if there "
                       "are not as many.");

static PyObject *
buffer_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length"};
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject *v[2], *result = NULL;
    uint64_t offset, length;
    if (!pyshc_parse("read", args, nargs, kwnames, names, 2, 2, 0, v) || !enter(b))
        return NULL;
    if (parse_range(b, v[0], v[1], &offset, &length))
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (result != NULL)
        copy_bytes(PyBytes_AS_STRING(result), b->buffer.data + offset, (size_t)length);
    leave(b);
    return result;
}

PyDoc_STRVAR(clear_doc, "clear($self, offset=0, length=None)\n--\n\nZero length bytes from offset; None: to the end.");

static PyObject *
buffer_clear(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length"};
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject *v[2];
    uint64_t offset, length;
    if (!pyshc_parse("clear", args, nargs, kwnames, names, 2, 2, 0, v) || !enter(b))
        return NULL;
    bool fine = parse_range(b, v[0], v[1], &offset, &length);
    if (fine)
        shc_buffer_clear(&b->buffer, offset, length);
    leave(b);
    return fine ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(as_array_doc, "as_array($self, shape, dtype, offset=0)\n--\n\nA NumPy array over the memory from offset; "
                           "writing to it writes to the buffer.\n\n"
                           "offset is in bytes. Raises ValueError if it does not fit, ImportError without NumPy.\n\n"
                           ">>> with SharedMemoryBuffer(24) as b:\n"
                           "...     b.as_array(3, 'i8')[:] = 5\n"
                           "...     b.read(0, 1)\n"
                           "b'\\x05'");

/* NumPy itself would take a negative offset, and pointers to objects out of shared memory. */
static PyObject *
array_at(pyshc_buffer_t *b, const pyshc_array_plan_t *plan, PyObject *offset_arg)
{
    uint64_t offset = 0;
    if (offset_arg != NULL && !pyshc_parse_integer(offset_arg, "offset", 0, b->buffer.size, &offset))
        return NULL;
    if (plan->nbytes > b->buffer.size - offset) {
        PyErr_Format(PyExc_ValueError, "an array of %zu bytes at offset %llu does not fit into %R of %llu bytes",
                     plan->nbytes, (unsigned long long)offset, b, (unsigned long long)b->buffer.size);
        return NULL;
    }
    PyObject *at = PyLong_FromUnsignedLongLong(offset);
    PyObject *array = NULL;
    if (at != NULL)
        array = PyObject_CallFunctionObjArgs(b->h.st->codec.ndarray, plan->shape, plan->type.dtype, b, at, NULL);
    Py_XDECREF(at);
    return array;
}

static PyObject *
buffer_as_array(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"shape", "dtype", "offset"};
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject *v[3], *result = NULL;
    pyshc_array_plan_t plan;
    if (!pyshc_parse("as_array", args, nargs, kwnames, names, 3, 3, 2, v) || !enter(b))
        return NULL;
    if (pyshc_array_plan(b->h.st, v[0], v[1], &plan) == 0) {
        result = array_at(b, &plan, v[2]);
        pyshc_array_plan_clear(&plan);
    }
    leave(b);
    return result;
}

/* The view keeps the memory from now on. The object is entered. */
static void
note_view(pyshc_buffer_t *b)
{
    PYSHC_CRITICAL_BEGIN(b);
    if (is_foreign(b)) {
        b->foreign_exports++;
        b->foreign_viewed = true;
    } else if (b->viewed == NULL) {
        b->viewed = b->h.shared;
        pyshc_shared_export(b->viewed);
    }
    PYSHC_CRITICAL_END();
}

static int
buffer_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    view->obj = NULL;
    if (!enter(b))
        return -1;
    int r = PyBuffer_FillInfo(view, self, b->buffer.data, (Py_ssize_t)b->buffer.size, 0, flags);
    if (r == 0)
        note_view(b);
    leave(b);
    return r;
}

static void
buffer_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (is_foreign(b))
        leave_foreign(b);
}

/* ---- head ---- */

static PyObject *
make_header(const pyshc_buffer_t *b)
{
    const shc_buffer_shm_t *head = b->buffer.shm;
    PyObject *module = PyImport_ImportModule("shmcomm._stats");
    if (module == NULL)
        return NULL;
    PyObject *header = PyObject_CallMethod(
        module, "BufferHeader", "IIKIIK", shc_a32_load_relaxed(&head->magic), shc_a32_load_relaxed(&head->version),
        (unsigned long long)shc_a64_load_relaxed(&head->size), shc_a32_load_relaxed(&head->flags),
        shc_a32_load_relaxed(&head->checksum), (unsigned long long)shc_a64_load_relaxed(&head->user));
    Py_DECREF(module);
    return header;
}

static PyObject *
buffer_get_header(PyObject *self, void *Py_UNUSED(closure))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    PyObject *header = make_header(b);
    leave(b);
    return header;
}

PyDoc_STRVAR(set_header_doc, "set_header($self, *, flags=None, user=None)\n--\n\nSet the user's fields of the head: "
                             "flags has 32 bits, user 64.");

static PyObject *
buffer_set_header(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"flags", "user"};
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject *v[2];
    uint64_t flags, user;
    if (!pyshc_parse("set_header", args, nargs, kwnames, names, 2, 0, 0, v))
        return NULL;
    bool has_flags = v[0] != NULL && v[0] != Py_None, has_user = v[1] != NULL && v[1] != Py_None;
    if ((has_flags && !pyshc_parse_integer(v[0], "flags", 0, UINT32_MAX, &flags)) ||
        (has_user && !pyshc_parse_integer(v[1], "user", 0, UINT64_MAX, &user)) || !enter(b))
        return NULL;
    if (has_flags)
        shc_a32_store_relaxed(&b->buffer.shm->flags, (uint32_t)flags);
    if (has_user)
        shc_a64_store_relaxed(&b->buffer.shm->user, user);
    leave(b);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(validate_header_doc, "validate_header($self, /)\n--\n\nTrue if the head is as its creator wrote it.");

static PyObject *
buffer_validate_header(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    bool valid = shc_buffer_check(&b->buffer) == 0;
    leave(b);
    return PyBool_FromLong(valid);
}

/* The handle is pinned. */
static uint32_t
checksum_detached(const pyshc_buffer_t *b)
{
    uint32_t sum;
    Py_BEGIN_ALLOW_THREADS sum = shc_buffer_checksum(&b->buffer);
    Py_END_ALLOW_THREADS return sum;
}

PyDoc_STRVAR(flush_checksum_doc,
             "flush_checksum($self, /)\n--\n\nStore the CRC-32C of all bytes in the head and return it.");

static PyObject *
buffer_flush_checksum(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    uint32_t sum = checksum_detached(b);
    shc_a32_store_relaxed(&b->buffer.shm->checksum, sum);
    leave(b);
    return PyLong_FromUnsignedLong(sum);
}

PyDoc_STRVAR(verify_checksum_doc,
             "verify_checksum($self, /)\n--\n\nTrue if the bytes are those of the last flush_checksum().");

static PyObject *
buffer_verify_checksum(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    bool same = checksum_detached(b) == shc_a32_load_relaxed(&b->buffer.shm->checksum);
    leave(b);
    return PyBool_FromLong(same);
}

/* ---- sizes ---- */

typedef enum {
    SIZE,
    USED,
    AVAILABLE,
    DATA_OFFSET
} figure_t;

static PyObject *
buffer_get_figure(PyObject *self, void *which)
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    uint64_t n;
    if (!enter(b))
        return NULL;
    switch ((figure_t)(uintptr_t)which) {
    case SIZE:
        n = b->buffer.size;
        break;
    case USED:
        n = shc_buffer_used(&b->buffer);
        break;
    case AVAILABLE:
        n = b->buffer.size - shc_buffer_used(&b->buffer);
        break;
    default:
        n = is_foreign(b) ? 0 : (uint64_t)(b->buffer.data - b->h.shared->seg.base);
    }
    leave(b);
    return PyLong_FromUnsignedLongLong(n);
}

static PyObject *
buffer_is_full(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    bool full = shc_buffer_used(&b->buffer) == b->buffer.size;
    leave(b);
    return PyBool_FromLong(full);
}

static PyObject *
buffer_is_empty(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    bool empty = shc_buffer_used(&b->buffer) == 0;
    leave(b);
    return PyBool_FromLong(empty);
}

static Py_ssize_t
buffer_length(PyObject *self)
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return -1;
    leave(b);
    return (Py_ssize_t)b->buffer.size;
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\nA BufferStats: bytes and participants at about this moment.");

static PyObject *
buffer_stats(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    PyObject *participants = is_foreign(b) ? PyList_New(0) : pyshc_participants(b->h.shared, NULL);
    PyObject *fields = NULL;
    if (participants != NULL)
        fields = Py_BuildValue("{s:K,s:K,s:N}", "bytes_total", (unsigned long long)b->buffer.size, "bytes_used",
                               (unsigned long long)shc_buffer_used(&b->buffer), "participants", participants);
    leave(b);
    return pyshc_make_stats("BufferStats", fields);
}

/* ---- closing: a stdlib segment is let go here, everything else by the base ---- */

static void
close_foreign(pyshc_buffer_t *b)
{
    PYSHC_CRITICAL_BEGIN(b);
    shc_a32_store_relaxed(&b->h.closed, 1);
    release_foreign(b);
    PYSHC_CRITICAL_END();
}

static PyObject *
buffer_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (is_foreign(b)) {
        close_foreign(b);
        Py_RETURN_NONE;
    }
    if (b->flushes && !pyshc_handle_is_closed(&b->h)) {
        PyObject *sum = buffer_flush_checksum(self, NULL);
        if (sum == NULL && !pyshc_handle_is_closed(&b->h))
            return NULL;
        PyErr_Clear(); /* closed by another thread, which has flushed it */
        Py_XDECREF(sum);
    }
    pyshc_handle_close(&b->h);
    Py_RETURN_NONE;
}

static PyObject *
buffer_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    return buffer_close(self, NULL);
}

static PyObject *
buffer_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (!enter(b))
        return NULL;
    leave(b);
    return Py_NewRef(self);
}

static PyObject *
buffer_unlink(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    if (is_foreign(b))
        return PyObject_CallMethod(b->h.foreign, "unlink", NULL);
    return PyObject_CallMethod((PyObject *)b->h.st->shared_object_type, "unlink", "O", self);
}

static void
buffer_dealloc(PyObject *self)
{
    pyshc_buffer_t *b = (pyshc_buffer_t *)self;
    PyObject_GC_UnTrack(self);
    if (b->viewed != NULL)
        pyshc_shared_unexport(b->viewed);
    if (b->foreign.obj != NULL)
        PyBuffer_Release(&b->foreign);
    if (is_foreign(b))
        shc_a32_store_relaxed(&b->h.closed, 2); /* nothing of ours to let go */
    pyshc_handle_dealloc(self);
}

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef buffer_methods[] = {
    {"attach", FAST(buffer_attach), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, attach_doc},
    {"open", FAST(buffer_open), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, open_doc},
    {"from_shared_memory", buffer_from_shared_memory, METH_O | METH_CLASS, from_shared_memory_doc},
    {"_rebuild", FAST(buffer_rebuild), METH_FASTCALL | METH_CLASS, NULL},
    {"__reduce__", buffer_reduce, METH_NOARGS, NULL},
    {"write", FAST(buffer_write), METH_FASTCALL | METH_KEYWORDS, write_doc},
    {"read", FAST(buffer_read), METH_FASTCALL | METH_KEYWORDS, read_doc},
    {"clear", FAST(buffer_clear), METH_FASTCALL | METH_KEYWORDS, clear_doc},
    {"as_array", FAST(buffer_as_array), METH_FASTCALL | METH_KEYWORDS, as_array_doc},
    {"set_header", FAST(buffer_set_header), METH_FASTCALL | METH_KEYWORDS, set_header_doc},
    {"validate_header", buffer_validate_header, METH_NOARGS, validate_header_doc},
    {"flush_checksum", buffer_flush_checksum, METH_NOARGS, flush_checksum_doc},
    {"verify_checksum", buffer_verify_checksum, METH_NOARGS, verify_checksum_doc},
    {"is_full", buffer_is_full, METH_NOARGS, "is_full($self, /)\n--\n\nTrue if the last byte has been written."},
    {"is_empty", buffer_is_empty, METH_NOARGS,
     "is_empty($self, /)\n--\n\nTrue if nothing has been written since the last clear."},
    {"stats", buffer_stats, METH_NOARGS, stats_doc},
    {"close", buffer_close, METH_NOARGS,
     "close($self, /)\n--\n\nLet the buffer go. The last process to do so removes its name, unless it is persistent. "
     "Views stay valid."},
    {"unlink", buffer_unlink, METH_NOARGS,
     "unlink($self, /)\n--\n\nRemove the name now; whoever has the buffer open goes on using it."},
    {"__enter__", buffer_enter, METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe buffer itself; ValueError if it is closed."},
    {"__exit__", buffer_exit, METH_VARARGS, "__exit__($self, exc_type, exc, traceback, /)\n--\n\nclose()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef buffer_getset[] = {
    {"header", buffer_get_header, NULL, "A BufferHeader: magic, version, size, flags, checksum, user.", NULL},
    {"size", buffer_get_figure, NULL, "Bytes of data.", (void *)SIZE},
    {"used", buffer_get_figure, NULL, "The highest end of any write() since the last clear(); views do not count.",
     (void *)USED},
    {"available", buffer_get_figure, NULL, "size - used.", (void *)AVAILABLE},
    {"data_offset", buffer_get_figure, NULL, "Where the data begin in the file, for those who open it by other means.",
     (void *)DATA_OFFSET},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)buffer_doc},
    {Py_tp_new, buffer_new},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_getset},
    {Py_sq_length, buffer_length},
    {Py_bf_getbuffer, buffer_getbuffer},
    {Py_bf_releasebuffer, buffer_releasebuffer},
    {0, NULL},
};

PyType_Spec pyshc_buffer_spec = {
    .name = "shmcomm.SharedMemoryBuffer",
    .basicsize = sizeof(pyshc_buffer_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = buffer_slots,
};
