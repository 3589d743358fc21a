/* Which codec, and what it does with a message. */
#include "py/pyshc_codec_internal.h"

#define BIT(tag) (UINT64_C(1) << (tag))
#define PLAIN (BIT(SHC_WIRE_PLAIN_END) - BIT(SHC_WIRE_NONE))
#define NATIVE (PLAIN | BIT(SHC_WIRE_VALUE))

/* What is larger is not measured, but for what is one run of bytes. */
#define MEASURED_MAX (UINT64_C(64) * 1024 * 1024)

static const struct {
    const char *name;
    uint64_t sends, takes;
} kinds[] = {
    [PYSHC_CODEC_AUTO] = {"auto", PLAIN, NATIVE | BIT(SHC_WIRE_PICKLE)},
    [PYSHC_CODEC_NATIVE] = {"native", PLAIN, NATIVE},
    [PYSHC_CODEC_PICKLE] = {"pickle", 0, NATIVE | BIT(SHC_WIRE_PICKLE)},
    [PYSHC_CODEC_RAW] = {"raw", BIT(SHC_WIRE_BYTES), BIT(SHC_WIRE_BYTES)},
    [PYSHC_CODEC_CUSTOM] = {"an object with dumps and loads", 0, NATIVE | BIT(SHC_WIRE_CUSTOM)},
};

/* ---- choosing ---- */

static int
set_kind(pyshc_codec_t *out, int kind, PyObject *spec, PyObject *dumps, PyObject *loads)
{
    pyshc_codec_clear(out);
    out->kind = kind;
    out->sends = kinds[kind].sends;
    out->takes = kinds[kind].takes;
    out->spec = Py_NewRef(spec);
    out->dumps = dumps;
    out->loads = loads;
    return 0;
}

static int
set_named(pyshc_codec_t *out, int kind)
{
    PyObject *spec = PyUnicode_FromString(kinds[kind].name);
    if (spec == NULL)
        return PYSHC_RAISED;
    (void)set_kind(out, kind, spec, NULL, NULL);
    Py_DECREF(spec);
    return 0;
}

static int
parse_name(PyObject *arg, pyshc_codec_t *out)
{
    for (int kind = PYSHC_CODEC_AUTO; kind < PYSHC_CODEC_CUSTOM; kind++) {
        if (PyUnicode_CompareWithASCIIString(arg, kinds[kind].name) == 0)
            return set_named(out, kind);
    }
    PyErr_Format(PyExc_ValueError,
                 "codec must be 'auto', 'native', 'pickle', 'raw' or an object with dumps and loads, not %R", arg);
    return PYSHC_RAISED;
}

/* An attribute that can be called; TypeError in the caller's terms if there is none. */
static PyObject *
method_of(PyObject *arg, const char *name)
{
    PyObject *method = PyObject_GetAttrString(arg, name);
    if (method == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    if (method != NULL && PyCallable_Check(method))
        return method;
    Py_XDECREF(method);
    PyErr_Clear();
    PyErr_Format(
        PyExc_TypeError,
        "codec must be 'auto', 'native', 'pickle', 'raw' or an object with dumps and loads; %R has no method %s()", arg,
        name);
    return NULL;
}

int
pyshc_codec_parse(pyshc_state_t *Py_UNUSED(st), PyObject *arg, pyshc_codec_t *out)
{
    if (arg == NULL)
        return set_named(out, PYSHC_CODEC_AUTO);
    if (PyUnicode_Check(arg))
        return parse_name(arg, out);
    PyObject *dumps = method_of(arg, "dumps");
    PyObject *loads = dumps != NULL ? method_of(arg, "loads") : NULL;
    if (loads == NULL) {
        Py_XDECREF(dumps);
        return PYSHC_RAISED;
    }
    return set_kind(out, PYSHC_CODEC_CUSTOM, arg, dumps, loads);
}

PyObject *
pyshc_codec_kind_text(uint64_t kind)
{
    if (kind < PYSHC_CODEC_CUSTOM)
        return PyUnicode_FromFormat("'%s'", kinds[kind].name);
    return PyUnicode_FromString(kinds[PYSHC_CODEC_CUSTOM].name);
}

int
pyshc_codec_adopt(pyshc_state_t *st, uint64_t kind, pyshc_codec_t *out)
{
    if (kind < PYSHC_CODEC_CUSTOM)
        return set_named(out, (int)kind);
    if (kind == PYSHC_CODEC_CUSTOM)
        PyErr_SetString(PyExc_ValueError,
                        "the creator's codec is an object of its own, which shared memory cannot carry: pass codec=");
    else
        PyErr_Format(st->CorruptedError, "shared memory names codec number %llu, which does not exist",
                     (unsigned long long)kind);
    return PYSHC_RAISED;
}

/* A module becomes (name,): no codec is a tuple. */
PyObject *
pyshc_codec_save(const pyshc_codec_t *codec)
{
    if (codec->spec == NULL)
        Py_RETURN_NONE;
    if (!PyModule_Check(codec->spec))
        return Py_NewRef(codec->spec);
    PyObject *name = PyModule_GetNameObject(codec->spec);
    PyObject *saved = name != NULL ? PyTuple_Pack(1, name) : NULL;
    Py_XDECREF(name);
    return saved;
}

PyObject *
pyshc_codec_restore(PyObject *saved)
{
    if (!PyTuple_CheckExact(saved) || PyTuple_GET_SIZE(saved) != 1 || !PyUnicode_Check(PyTuple_GET_ITEM(saved, 0)))
        return Py_NewRef(saved);
    return PyImport_Import(PyTuple_GET_ITEM(saved, 0));
}

int
pyshc_codec_traverse(pyshc_codec_t *codec, visitproc visit, void *arg)
{
    Py_VISIT(codec->dumps);
    Py_VISIT(codec->loads);
    Py_VISIT(codec->spec);
    return 0;
}

void
pyshc_codec_clear(pyshc_codec_t *codec)
{
    Py_CLEAR(codec->dumps);
    Py_CLEAR(codec->loads);
    Py_CLEAR(codec->spec);
}

/* ---- the interpreter's part ---- */

int
pyshc_codec_state_init(pyshc_state_t *st)
{
#define X(name)                                                                                                        \
    if ((st->codec.names.n_##name = PyUnicode_InternFromString(#name)) == NULL)                                        \
        return -1;
    PYSHC_CODEC_NAMES(X)
#undef X
    st->codec.empty_tuple = PyTuple_New(0);
    st->codec.dumps_keywords = Py_BuildValue("(s)", "buffer_callback");
    st->codec.loads_keywords = Py_BuildValue("(s)", "buffers");
    return st->codec.empty_tuple != NULL && st->codec.dumps_keywords != NULL && st->codec.loads_keywords != NULL ? 0
                                                                                                                 : -1;
}

int
pyshc_codec_state_traverse(pyshc_codec_state_t *cs, visitproc visit, void *arg)
{
    for (size_t i = 0; i < PYSHC_CODEC_DTYPES; i++)
        Py_VISIT(cs->dtypes[i].dtype);
    Py_VISIT(cs->ndarray);
    Py_VISIT(cs->generic);
    Py_VISIT(cs->dtype);
    Py_VISIT(cs->str_);
    Py_VISIT(cs->bytes_);
    Py_VISIT(cs->void_);
    Py_VISIT(cs->pickle_dumps);
    Py_VISIT(cs->pickle_loads);
    Py_VISIT(cs->pickling_error);
    return 0;
}

void
pyshc_codec_state_clear(pyshc_codec_state_t *cs)
{
    for (size_t i = 0; i < PYSHC_CODEC_KEYS; i++)
        Py_CLEAR(cs->keys[i]);
    for (size_t i = 0; i < PYSHC_CODEC_DTYPES; i++)
        pyshc_dtype_clear(&cs->dtypes[i]);
    Py_CLEAR(cs->void_);
    Py_CLEAR(cs->ndarray);
    Py_CLEAR(cs->generic);
    Py_CLEAR(cs->dtype);
    Py_CLEAR(cs->str_);
    Py_CLEAR(cs->bytes_);
    Py_CLEAR(cs->pickle_loads);
    Py_CLEAR(cs->pickle_dumps);
    Py_CLEAR(cs->pickling_error);
    Py_CLEAR(cs->dumps_keywords);
    Py_CLEAR(cs->loads_keywords);
    Py_CLEAR(cs->empty_tuple);
#define X(name) Py_CLEAR(cs->names.n_##name);
    PYSHC_CODEC_NAMES(X)
#undef X
}

/* ---- sending ---- */

void
pyshc_outgoing_refuse(const pyshc_outgoing_t *out, const char *who, PyObject *cause)
{
    const char *type = Py_TYPE(out->obj)->tp_name, *culprit = out->culprit->tp_name;
    bool inside = out->culprit != Py_TYPE(out->obj);
    PyObject *more = cause != NULL ? PyUnicode_FromFormat("; and pickle says: %S", cause) : PyUnicode_FromString("");
    if (more != NULL)
        PyErr_Format(out->st->NotEncodableError, "%scannot send %s%s%s%s: %s%U", who, type,
                     inside ? ", because of " : "", inside ? culprit : "", inside ? " in it" : "", out->reason, more);
    Py_XDECREF(more);
}

static int
prepare_raw(pyshc_outgoing_t *out)
{
    out->has_view = PyObject_GetBuffer(out->obj, &out->view, PyBUF_SIMPLE) == 0;
    if (out->has_view)
        return 0;
    if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_BufferError) ||
        PyErr_ExceptionMatches(PyExc_ValueError))
        PYSHC_RAISE_FROM_CURRENT(
            PyErr_Format(out->st->NotEncodableError,
                         "codec='raw' sends contiguous bytes-like objects only, not %s; make it bytes first, "
                         "or use codec='auto'",
                         Py_TYPE(out->obj)->tp_name));
    return PYSHC_RAISED;
}

static int
prepare_custom(pyshc_outgoing_t *out)
{
    PyObject *text = PyObject_CallOneArg(out->codec->dumps, out->obj);
    if (text == NULL)
        return PYSHC_RAISED;
    out->has_view = PyObject_GetBuffer(text, &out->view, PyBUF_SIMPLE) == 0;
    if (!out->has_view) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "the codec's dumps() must return a contiguous bytes-like object, and returned %s",
                     Py_TYPE(text)->tp_name);
    }
    Py_DECREF(text);
    return out->has_view ? 0 : PYSHC_RAISED;
}

int
pyshc_outgoing_prepare(pyshc_state_t *st, const pyshc_codec_t *codec, PyObject *obj, pyshc_outgoing_t *out)
{
    out->st = st;
    out->codec = codec;
    out->obj = obj;
    out->form = codec->kind;
    out->has_view = false;
    out->stream = NULL;
    out->buffers = NULL;
    out->posted = NULL;
    out->culprit = NULL;
    out->reason = NULL;
    out->limit = UINT32_MAX;
    int r = 0;
    if (codec->kind == PYSHC_CODEC_RAW)
        r = prepare_raw(out);
    else if (codec->kind == PYSHC_CODEC_CUSTOM)
        r = prepare_custom(out);
    else if (codec->kind == PYSHC_CODEC_PICKLE)
        r = pyshc_pickle_dump(out);
    if (r != 0)
        pyshc_outgoing_abandon(out);
    return r;
}

int
pyshc_outgoing_pickle(pyshc_outgoing_t *out)
{
    out->form = PYSHC_CODEC_PICKLE;
    return pyshc_pickle_dump(out);
}

void
pyshc_outgoing_clear(pyshc_outgoing_t *out)
{
    if (SHC_UNLIKELY(out->has_view)) {
        out->has_view = false;
        PyBuffer_Release(&out->view);
    }
    Py_CLEAR(out->stream);
    Py_CLEAR(out->buffers);
    Py_CLEAR(out->posted);
    Py_CLEAR(out->culprit);
}

void
pyshc_outgoing_abandon(pyshc_outgoing_t *out)
{
    Py_ssize_t n = out->posted != NULL ? PyList_GET_SIZE(out->posted) : 0;
    for (Py_ssize_t i = 0; i < n; i++)
        pyshc_block_unpost(out->st, PyList_GET_ITEM(out->posted, i));
    pyshc_outgoing_clear(out);
}

static int
encode(pyshc_outgoing_t *out, pyshc_encoder_t *e)
{
    int r = out->form == PYSHC_CODEC_PICKLE ? pyshc_pickle_write(e, out) : pyshc_encode_value(e, out->obj);
    if (r != PYSHC_NOT_NATIVE)
        return r;
    Py_XSETREF(out->culprit, (PyTypeObject *)Py_NewRef((PyObject *)e->culprit));
    out->reason = e->reason;
    if (out->form != PYSHC_CODEC_NATIVE)
        return r;
    pyshc_outgoing_refuse(out, "codec='native' ", NULL);
    return PYSHC_RAISED;
}

/* By the encoder: what is native and not plain, and what is pickled. */
static int
write_encoded(pyshc_outgoing_t *out, uint8_t *dst, size_t room, size_t *length)
{
    pyshc_encoder_t e;
    pyshc_encode_begin(&e, out->st, dst, room, out->limit);
    int gc = pyshc_gc_pause();
    int r = encode(out, &e);
    pyshc_gc_resume(gc);
    *length = (size_t)(e.at - dst);
    pyshc_encode_end(&e);
    return r;
}

static int
write_view(const pyshc_outgoing_t *out, uint8_t *dst, size_t room, size_t *length)
{
    *length = (size_t)out->view.len;
    if (*length > room)
        return PYSHC_NEED_ROOM;
    if (*length > 0)
        memcpy(dst, out->view.buf, *length);
    return 0;
}

int
pyshc_outgoing_write(pyshc_outgoing_t *out, uint8_t *dst, size_t room, size_t *length, uint8_t *tag)
{
    if (out->has_view) {
        *tag = out->form == PYSHC_CODEC_RAW ? SHC_WIRE_BYTES : SHC_WIRE_CUSTOM;
        return write_view(out, dst, room, length);
    }
    if (out->form != PYSHC_CODEC_PICKLE && pyshc_fast_size(out->codec, out->obj, length, tag)) {
        if (*length > room)
            return PYSHC_NEED_ROOM;
        pyshc_fast_write(out->obj, *tag, dst, *length);
        return 0;
    }
    *tag = out->form == PYSHC_CODEC_PICKLE ? SHC_WIRE_PICKLE : SHC_WIRE_VALUE;
    return write_encoded(out, dst, room, length);
}

int
pyshc_outgoing_size(pyshc_outgoing_t *out, size_t *upper_bound)
{
    uint8_t tag;
    if (out->has_view) {
        *upper_bound = (size_t)out->view.len;
        return 0;
    }
    if (out->form != PYSHC_CODEC_PICKLE && pyshc_fast_size(out->codec, out->obj, upper_bound, &tag))
        return 0;
    pyshc_encoder_t e;
    pyshc_encode_begin(&e, out->st, NULL, 0, out->limit);
    int gc = pyshc_gc_pause();
    int r = encode(out, &e);
    pyshc_gc_resume(gc);
    *upper_bound = r == PYSHC_NEED_ROOM ? (size_t)out->limit + 1 : (size_t)e.counted;
    pyshc_encode_end(&e);
    return r == PYSHC_NEED_ROOM ? 0 : r;
}

uint64_t
pyshc_outgoing_full_size(pyshc_outgoing_t *out, bool *exact)
{
    size_t size;
    uint8_t tag;
    *exact = out->has_view || (out->form != PYSHC_CODEC_PICKLE && pyshc_fast_size(out->codec, out->obj, &size, &tag));
    /* Tuples of tuples may have no end that anybody lives to see: counting stops somewhere. */
    if (out->limit < MEASURED_MAX)
        out->limit = out->limit < MEASURED_MAX / 256 ? out->limit * 256 : MEASURED_MAX;
    if (pyshc_outgoing_size(out, &size) == 0)
        return *exact || size <= out->limit ? size : 0;
    PyErr_Clear(); /* it was another object a moment ago: that it was too large is still what is to be told */
    return 0;
}

/* ---- receiving ---- */

static void
decoder_init(pyshc_decoder_t *d, pyshc_state_t *st, const uint8_t *src, size_t length, PyObject *owner)
{
    d->in = (shc_wire_reader_t){.at = src, .end = src + length};
    d->st = st;
    d->start = src;
    d->owner = owner;
    d->window = NULL;
    d->depth = 0;
    d->hashed = 0;
    d->need_numpy = false;
    d->holds_owner = false;
}

static PyObject *
whole_value(pyshc_decoder_t *d)
{
    PyObject *value = pyshc_decode_value(d);
    if (SHC_UNLIKELY(value != NULL && d->in.at != d->in.end)) {
        Py_DECREF(value);
        return pyshc_decode_corrupt(d, "there are bytes behind its end");
    }
    return value;
}

PyObject *
pyshc_decode_quickly(pyshc_state_t *st, const uint8_t *src, size_t length)
{
    pyshc_decoder_t d;
    decoder_init(&d, st, src, length, NULL);
    int gc = pyshc_gc_pause();
    PyObject *value = whole_value(&d);
    pyshc_gc_resume(gc);
    if (SHC_UNLIKELY(value == NULL && !d.need_numpy) && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear();
    return value;
}

static PyObject *
refuse_tag(pyshc_incoming_t *in)
{
    PyObject *error = in->st->CorruptedError;
    const char *name = kinds[in->codec->kind].name;
    if (in->codec->kind == PYSHC_CODEC_CUSTOM && in->tag == SHC_WIRE_PICKLE)
        PyErr_SetString(error, "the message was pickled by its sender, and this handle's codec is an object of its "
                               "own: it never unpickles");
    else if (in->tag == SHC_WIRE_PICKLE)
        PyErr_Format(
            error,
            "the message was pickled by its sender, and this handle was opened with codec='%s', which never unpickles",
            name);
    else if (in->tag == SHC_WIRE_CUSTOM)
        PyErr_Format(
            error,
            "the message was written by a codec object of its sender, and this handle was opened with codec='%s'",
            name);
    else if (in->codec->kind == PYSHC_CODEC_RAW && in->tag < 64 && NATIVE >> in->tag & 1)
        PyErr_SetString(
            error, "the message is not bytes, and this handle was opened with codec='raw', which takes nothing else");
    else
        PyErr_Format(error, "the message has the unknown tag %d", in->tag);
    return NULL;
}

static PyObject *
read_plain(pyshc_incoming_t *in, pyshc_decoder_t *d)
{
    size_t length = shc_wire_left(&d->in);
    if (d->owner != NULL && in->tag == SHC_WIRE_BYTES)
        return pyshc_decode_window(d, d->start, length);
    PyObject *value = pyshc_fast_read(in->st, in->codec, in->tag, d->start, length);
    if (value == NULL && !PyErr_Occurred())
        return pyshc_decode_corrupt(d, "a plain value has the wrong length, or a text that should be ASCII is not");
    return value;
}

static PyObject *
read_by_tag(pyshc_incoming_t *in, pyshc_decoder_t *d)
{
    PyObject *stream = NULL;
    if (in->tag > 63 || !(in->codec->takes >> in->tag & 1))
        return refuse_tag(in);
    switch (in->tag) {
    case SHC_WIRE_VALUE:
        return whole_value(d);
    case SHC_WIRE_PICKLE:
        return pyshc_pickle_read(d, &stream, &in->buffers) == 0 ? stream : NULL;
    case SHC_WIRE_CUSTOM:
        stream = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)shc_wire_left(&d->in));
        if (stream != NULL)
            shc_racy_copy(PyBytes_AS_STRING(stream), d->start, shc_wire_left(&d->in));
        return stream;
    default:
        return read_plain(in, d);
    }
}

int
pyshc_incoming_read(pyshc_state_t *st, const pyshc_codec_t *codec, uint8_t tag, const uint8_t *src, size_t length,
                    PyObject *owner, pyshc_incoming_t *in)
{
    pyshc_decoder_t d;
    decoder_init(&d, st, src, length, owner);
    in->st = st;
    in->codec = codec;
    in->buffers = NULL;
    in->tag = tag;
    int gc = pyshc_gc_pause();
    in->value = read_by_tag(in, &d);
    Py_XDECREF(d.window);
    pyshc_gc_resume(gc);
    in->holds_owner = d.holds_owner;
    if (in->value != NULL)
        return 0;
    return d.need_numpy ? PYSHC_NEED_NUMPY : PYSHC_RAISED;
}

static PyObject *
call_loads(const pyshc_codec_t *codec, PyObject *stream)
{
    PyObject *view = PyMemoryView_FromObject(stream);
    PyObject *value = view != NULL ? PyObject_CallOneArg(codec->loads, view) : NULL;
    Py_XDECREF(view);
    return value;
}

PyObject *
pyshc_incoming_finish(pyshc_incoming_t *in)
{
    if (SHC_LIKELY(in->tag != SHC_WIRE_PICKLE && in->tag != SHC_WIRE_CUSTOM))
        return in->value;
    PyObject *value = in->tag == SHC_WIRE_PICKLE ? pyshc_pickle_load(in->st, in->value, in->buffers)
                                                 : call_loads(in->codec, in->value);
    pyshc_incoming_clear(in);
    return value;
}

static _Thread_local bool is_peek;

PyObject *
pyshc_incoming_peek(pyshc_incoming_t *in)
{
    bool before = is_peek;
    is_peek = true;
    PyObject *value = pyshc_incoming_finish(in);
    is_peek = before;
    return value;
}

bool
pyshc_incoming_is_peek(void)
{
    return is_peek;
}

void
pyshc_incoming_clear(pyshc_incoming_t *in)
{
    Py_CLEAR(in->value);
    Py_CLEAR(in->buffers);
}

/* ---- whole messages as bytes ---- */

/* Writes into bytes of the upper bound and cuts them to size. */
PyObject *
pyshc_outgoing_to_bytes(pyshc_outgoing_t *out, uint8_t *tag)
{
    size_t bound, length;
    int r = pyshc_outgoing_size(out, &bound);
    PyObject *bytes = r == 0 ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bound) : NULL;
    if (r == 0 && bytes == NULL)
        r = PYSHC_RAISED;
    if (r == 0)
        r = pyshc_outgoing_write(out, (uint8_t *)PyBytes_AS_STRING(bytes), bound, &length, tag);
    if (r == PYSHC_NEED_ROOM)
        PyErr_SetString(out->st->MessageTooLargeError, "a message has at most 4294967295 bytes");
    if (r == 0)
        (void)_PyBytes_Resize(&bytes, (Py_ssize_t)length);
    else
        Py_CLEAR(bytes);
    if (r == PYSHC_NOT_NATIVE && pyshc_outgoing_pickle(out) == 0)
        return pyshc_outgoing_to_bytes(out, tag);
    return bytes;
}

PyObject *
pyshc_codec_dump(pyshc_state_t *st, const pyshc_codec_t *codec, PyObject *obj, uint8_t *tag)
{
    pyshc_outgoing_t out;
    if (pyshc_outgoing_prepare(st, codec, obj, &out) != 0)
        return NULL;
    PyObject *bytes = pyshc_outgoing_to_bytes(&out, tag);
    if (bytes == NULL)
        pyshc_outgoing_abandon(&out);
    else
        pyshc_outgoing_clear(&out);
    return bytes;
}

PyObject *
pyshc_codec_load(pyshc_state_t *st, const pyshc_codec_t *codec, uint8_t tag, PyObject *data, bool copy)
{
    pyshc_incoming_t in;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0)
        return NULL;
    int r;
    do {
        r = pyshc_incoming_read(st, codec, tag, view.buf, (size_t)view.len, copy ? NULL : data, &in);
    } while (r == PYSHC_NEED_NUMPY && pyshc_numpy_import(st, PYSHC_ARRAY_ARRIVED) == 0);
    PyObject *value = r == 0 ? pyshc_incoming_finish(&in) : NULL;
    PyBuffer_Release(&view);
    return value;
}

/* ---- for tests and tools ---- */

PyDoc_STRVAR(encode_doc, "_encode($module, obj, codec='auto', /)\n--\n\nA message as (tag, payload).");

static PyObject *
encode_function(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    pyshc_state_t *st = pyshc_state_of(module);
    pyshc_codec_t codec = {0};
    uint8_t tag;
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "_encode() takes an object and a codec (%zd arguments given)", nargs);
        return NULL;
    }
    if (pyshc_codec_parse(st, nargs > 1 ? args[1] : NULL, &codec) != 0)
        return NULL;
    PyObject *payload = pyshc_codec_dump(st, &codec, args[0], &tag);
    pyshc_codec_clear(&codec);
    return payload != NULL ? Py_BuildValue("(BN)", tag, payload) : NULL;
}

PyDoc_STRVAR(decode_doc,
             "_decode($module, tag, payload, codec='auto', copy=True, /)\n--\n\nThe object in a message.\n\n"
             "copy=False: what is decoded may refer to the payload, which must be read-only.");

static PyObject *
decode_function(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    pyshc_state_t *st = pyshc_state_of(module);
    pyshc_codec_t codec = {0};
    uint64_t tag;
    bool copy = true;
    if (nargs < 2 || nargs > 4) {
        PyErr_Format(PyExc_TypeError, "_decode() takes a tag, a payload, a codec and a flag (%zd arguments given)",
                     nargs);
        return NULL;
    }
    if (!pyshc_parse_integer(args[0], "tag", 0, 255, &tag) || !pyshc_parse_flag(nargs > 3 ? args[3] : NULL, &copy) ||
        pyshc_codec_parse(st, nargs > 2 ? args[2] : NULL, &codec) != 0)
        return NULL;
    PyObject *value = pyshc_codec_load(st, &codec, (uint8_t)tag, args[1], copy);
    pyshc_codec_clear(&codec);
    return value;
}

PyMethodDef pyshc_codec_methods[] = {
    {"_encode", (PyCFunction)(void (*)(void))encode_function, METH_FASTCALL, encode_doc},
    {"_decode", (PyCFunction)(void (*)(void))decode_function, METH_FASTCALL, decode_doc},
    {NULL, NULL, 0, NULL},
};
