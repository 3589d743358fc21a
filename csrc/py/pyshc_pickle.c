/* Pickle, protocol 5: the stream, and the buffers that objects hand over beside it, which are copied once, straight
 * to where they go. */
#include "py/pyshc_codec_internal.h"

static bool
knows_pickle(pyshc_codec_state_t *cs)
{
    PYSHC_GUARD_LOCK(&cs->guard);
    bool known = cs->pickle_loads != NULL;
    PYSHC_GUARD_UNLOCK(&cs->guard);
    return known;
}

/* Takes all three references, of which none is NULL; the first thread's stay. */
static void
adopt(pyshc_codec_state_t *cs, PyObject *dumps, PyObject *error, PyObject *loads)
{
    PYSHC_GUARD_LOCK(&cs->guard);
    bool is_first = cs->pickle_loads == NULL;
    if (is_first) {
        cs->pickle_dumps = dumps;
        cs->pickling_error = error;
        cs->pickle_loads = loads;
    }
    PYSHC_GUARD_UNLOCK(&cs->guard);
    if (!is_first) {
        Py_DECREF(dumps);
        Py_DECREF(error);
        Py_DECREF(loads);
    }
}

static bool
find_pickle(pyshc_state_t *st)
{
    if (SHC_LIKELY(knows_pickle(&st->codec)))
        return true;
    PyObject *module = PyImport_ImportModule("pickle");
    PyObject *dumps = module != NULL ? PyObject_GetAttrString(module, "dumps") : NULL;
    PyObject *error = dumps != NULL ? PyObject_GetAttrString(module, "PicklingError") : NULL;
    PyObject *loads = error != NULL ? PyObject_GetAttrString(module, "loads") : NULL;
    Py_XDECREF(module);
    if (loads != NULL) {
        adopt(&st->codec, dumps, error, loads);
        return true;
    }
    Py_XDECREF(dumps);
    Py_XDECREF(error);
    return false;
}

/* ---- sending ---- */

/* Where this thread notes what is posted for the message that it is pickling, or NULL. */
static _Thread_local PyObject **posted;

bool
pyshc_pickle_note_posted(PyObject *handle)
{
    if (posted == NULL)
        return true; /* whoever pickles it is none of ours */
    if (*posted == NULL)
        *posted = PyList_New(0);
    return *posted != NULL && PyList_Append(*posted, handle) == 0;
}

/* pickle.dumps(obj, 5, buffer_callback=buffers.append) */
static PyObject *
call_dumps(pyshc_state_t *st, PyObject *obj, PyObject *buffers)
{
    PyObject *append = PyObject_GetAttr(buffers, st->codec.names.n_append), *protocol = PyLong_FromLong(5),
             *stream = NULL;
    if (append != NULL && protocol != NULL) {
        PyObject *args[] = {obj, protocol, append};
        stream = PyObject_Vectorcall(st->codec.pickle_dumps, args, 2, st->codec.dumps_keywords);
    }
    Py_XDECREF(append);
    Py_XDECREF(protocol);
    return stream;
}

/* What pickle raises for an object that it cannot take, as opposed to what a __reduce__ raises on its own account. */
static bool
is_refusal(pyshc_state_t *st)
{
    return PyErr_ExceptionMatches(st->codec.pickling_error) || PyErr_ExceptionMatches(PyExc_TypeError) ||
           PyErr_ExceptionMatches(PyExc_AttributeError);
}

static int
refused(const pyshc_outgoing_t *out)
{
    if (!is_refusal(out->st))
        return PYSHC_RAISED;
    PyObject *cause = pyshc_error_take();
    if (out->culprit == NULL)
        PyErr_Format(out->st->NotEncodableError, "%s cannot be pickled: %S", Py_TYPE(out->obj)->tp_name, cause);
    else
        pyshc_outgoing_refuse(out, "", cause);
    PyObject *raised = pyshc_error_take();
    pyshc_error_restore(cause);
    PYSHC_RAISE_FROM_CURRENT(pyshc_error_restore(raised));
    return PYSHC_RAISED;
}

/* One run of bytes: pickle refuses others. NULL: released meanwhile, ValueError. */
static const Py_buffer *
buffer_at(const pyshc_outgoing_t *out, Py_ssize_t i)
{
    return PyPickleBuffer_GetBuffer(PyList_GET_ITEM(out->buffers, i));
}

int
pyshc_pickle_dump(pyshc_outgoing_t *out)
{
    if (!find_pickle(out->st))
        return PYSHC_RAISED;
    out->buffers = PyList_New(0);
    if (out->buffers == NULL)
        return PYSHC_RAISED;
    PyObject **before = posted;
    posted = &out->posted;
    out->stream = call_dumps(out->st, out->obj, out->buffers);
    posted = before;
    if (out->stream == NULL)
        return refused(out);
    if (!PyBytes_CheckExact(out->stream)) {
        PyErr_Format(PyExc_TypeError, "pickle.dumps() returned %s", Py_TYPE(out->stream)->tp_name);
        return PYSHC_RAISED;
    }
    return 0;
}

static int
put_u64(pyshc_encoder_t *e, uint64_t number)
{
    return pyshc_encode_data(e, &number, sizeof(number));
}

static int
write_buffer(pyshc_encoder_t *e, const Py_buffer *view)
{
    uint8_t *dst;
    int r = put_u64(e, (uint64_t)view->len);
    if (r == 0)
        r = pyshc_encode_aligned(e, (size_t)view->len, &dst);
    if (r == 0 && dst != NULL && view->len > 0)
        memcpy(dst, view->buf, (size_t)view->len);
    return r;
}

int
pyshc_pickle_write(pyshc_encoder_t *e, const pyshc_outgoing_t *out)
{
    Py_ssize_t count = PyList_GET_SIZE(out->buffers), size = PyBytes_GET_SIZE(out->stream);
    uint8_t *at = pyshc_encode_take(e, shc_wire_length_size((uint64_t)count));
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    (void)shc_wire_put_length(at, (uint64_t)count);
    int r = put_u64(e, (uint64_t)size);
    if (r == 0)
        r = pyshc_encode_data(e, PyBytes_AS_STRING(out->stream), (size_t)size);
    for (Py_ssize_t i = 0; r == 0 && i < count; i++) {
        const Py_buffer *view = buffer_at(out, i);
        r = view != NULL ? write_buffer(e, view) : PYSHC_RAISED;
    }
    return r;
}

/* ---- receiving ---- */

/* A writable copy, as buffers are that pickle keeps in its stream; or a view of the owner. */
static PyObject *
read_buffer(pyshc_decoder_t *d)
{
    uint64_t length;
    const uint8_t *src;
    if (!shc_wire_read_u64(&d->in, &length) || !shc_wire_read_pad(&d->in) || !shc_wire_read_bytes(&d->in, length, &src))
        return pyshc_decode_corrupt(d, "a buffer of a pickled message is cut short");
    if (pyshc_decode_in_place(d))
        return pyshc_decode_window(d, src, (size_t)length);
    PyObject *copy = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (copy != NULL && length > 0)
        shc_racy_copy(PyByteArray_AS_STRING(copy), src, (size_t)length);
    return copy;
}

static PyObject *
read_buffers(pyshc_decoder_t *d, uint64_t count)
{
    PyObject *buffers = PyTuple_New((Py_ssize_t)count);
    for (Py_ssize_t i = 0; buffers != NULL && i < (Py_ssize_t)count; i++) {
        PyObject *buffer = read_buffer(d);
        if (buffer == NULL)
            Py_CLEAR(buffers);
        else
            PyTuple_SET_ITEM(buffers, i, buffer);
    }
    return buffers;
}

int
pyshc_pickle_read(pyshc_decoder_t *d, PyObject **stream, PyObject **buffers)
{
    uint64_t count, length;
    const uint8_t *src;
    /* Each buffer takes nine bytes at least. */
    if (!shc_wire_read_length(&d->in, &count) || count > shc_wire_left(&d->in) / 9 ||
        !shc_wire_read_u64(&d->in, &length) || !shc_wire_read_bytes(&d->in, length, &src)) {
        pyshc_decode_corrupt(d, "a pickled message is cut short");
        return PYSHC_RAISED;
    }
    *buffers = read_buffers(d, count);
    if (*buffers == NULL)
        return PYSHC_RAISED;
    *stream = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (*stream == NULL) {
        Py_CLEAR(*buffers);
        return PYSHC_RAISED;
    }
    shc_racy_copy(PyBytes_AS_STRING(*stream), src, (size_t)length);
    return 0;
}

/* pickle.loads(stream, buffers=buffers) */
PyObject *
pyshc_pickle_load(pyshc_state_t *st, PyObject *stream, PyObject *buffers)
{
    if (!find_pickle(st))
        return NULL;
    PyObject *args[] = {stream, buffers};
    if (PyTuple_GET_SIZE(buffers) == 0)
        return PyObject_CallOneArg(st->codec.pickle_loads, stream);
    return PyObject_Vectorcall(st->codec.pickle_loads, args, 1, st->codec.loads_keywords);
}
