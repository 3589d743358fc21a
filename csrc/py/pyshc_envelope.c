/* Envelopes: the C side. */
#include "py/pyshc_handle.h"

/* ---- options ---- */

static PyObject *
or_none(PyObject *value)
{
    return value != NULL ? value : Py_None;
}

static PyObject *
module(void)
{
    return PyImport_ImportModule("shmcomm._envelope");
}

static bool
is_none(const PyObject *value)
{
    return value == NULL || value == Py_None;
}

bool
pyshc_envelope_word(const pyshc_envelope_options_t *o, uint64_t *word)
{
    *word = 0;
    if (is_none(o->compression) && is_none(o->threshold) && is_none(o->key))
        return true; /* nothing is imported */
    PyObject *m = module(), *number = NULL;
    if (m != NULL)
        number =
            PyObject_CallMethod(m, "options", "OOO", or_none(o->compression), or_none(o->threshold), or_none(o->key));
    *word = number != NULL ? PyLong_AsUnsignedLongLong(number) : 0;
    Py_XDECREF(number);
    Py_XDECREF(m);
    return !PyErr_Occurred();
}

/* From here on nothing takes the fast way that must not. */
static void
switch_on(pyshc_handle_t *h)
{
    pyshc_envelope_t *e = &h->envelope;
    e->is_on = true;
    e->sends = h->codec.sends;
    e->takes = h->codec.takes;
    h->codec.sends = 0;
    if (e->is_encrypted)
        h->codec.takes = 0;
}

bool
pyshc_envelope_begin(pyshc_handle_t *h, uint64_t word, PyObject *key)
{
    pyshc_envelope_t *e = &h->envelope;
    e->is_locked = key == Py_False;
    if (word == 0 && (is_none(key) || e->is_locked))
        return true;
    if (e->is_locked) {
        e->is_encrypted = true; /* so that nothing is read */
        switch_on(h);
        return true;
    }
    PyObject *m = module();
    const char *identity = (const char *)&h->shared->seg.id;
    if (m != NULL)
        e->worker = PyObject_CallMethod(m, "adopt", "KOy#", (unsigned long long)word, or_none(key), identity,
                                        (Py_ssize_t)sizeof h->shared->seg.id);
    Py_XDECREF(m);
    if (e->worker == NULL)
        return false;
    e->is_encrypted = !is_none(key);
    switch_on(h);
    return true;
}

static bool
disagree(pyshc_handle_t *h, PyObject *found)
{
    const char *option;
    PyObject *there, *asked;
    if (PyArg_ParseTuple(found, "sOO", &option, &there, &asked))
        pyshc_handle_disagree(h, option, Py_NewRef(there), Py_NewRef(asked));
    return false;
}

bool
pyshc_envelope_agrees(pyshc_handle_t *h, uint64_t word, const pyshc_envelope_options_t *o)
{
    if (is_none(o->compression) && is_none(o->threshold))
        return true;
    PyObject *m = module(), *found = NULL;
    if (m != NULL)
        found = PyObject_CallMethod(m, "differs", "KOO", (unsigned long long)word, or_none(o->compression),
                                    or_none(o->threshold));
    Py_XDECREF(m);
    bool agrees = found == Py_None || (found != NULL && disagree(h, found));
    Py_XDECREF(found);
    return agrees;
}

PyObject *
pyshc_envelope_save(const pyshc_handle_t *h)
{
    if (h->envelope.is_locked)
        return Py_NewRef(Py_False);
    if (h->envelope.worker == NULL)
        return Py_NewRef(Py_None);
    return PyObject_CallMethod(h->envelope.worker, "key_for_child", NULL);
}

PyObject *
pyshc_envelope_describe(uint64_t word)
{
    if (word == 0)
        return Py_BuildValue("(OO)", Py_None, Py_False);
    PyObject *m = module();
    PyObject *text = m != NULL ? PyObject_CallMethod(m, "describe", "K", (unsigned long long)word) : NULL;
    Py_XDECREF(m);
    return text;
}

bool
pyshc_envelope_check(pyshc_handle_t *h)
{
    if (SHC_LIKELY(!h->envelope.is_locked))
        return true;
    PyErr_Format(PyExc_ValueError, "%R was opened to be looked at only, without its key", h);
    return false;
}

int
pyshc_envelope_traverse(pyshc_envelope_t *envelope, visitproc visit, void *arg)
{
    Py_VISIT(envelope->worker);
    return 0;
}

void
pyshc_envelope_clear(pyshc_envelope_t *envelope)
{
    Py_CLEAR(envelope->worker);
}

/* The codec as it is inside. What it refers to stays the handle's. */
static pyshc_codec_t
inner_codec(const pyshc_handle_t *h)
{
    pyshc_codec_t codec = h->codec;
    codec.sends = h->envelope.sends;
    codec.takes = h->envelope.takes;
    return codec;
}

/* ---- one message out ---- */

enum {
    PART_TAG,
    PART_HEAD,
    PART_BODY,
    PART_NONCE,
    PART_ENCRYPT,
    PART_IN_PLACE,
    PARTS
};

static PyObject *
part(const pyshc_wrapped_t *w, Py_ssize_t i)
{
    return PyTuple_GET_ITEM(w->parts, i);
}

static bool
is_sealed(const pyshc_wrapped_t *w)
{
    return part(w, PART_NONCE) != Py_None;
}

/* Steals body. */
static int
wrap(pyshc_handle_t *h, uint8_t tag, PyObject *body, pyshc_wrapped_t *w)
{
    w->parts = body != NULL ? PyObject_CallMethod(h->envelope.worker, "wrap", "iN", (int)tag, body) : NULL;
    if (w->parts == NULL)
        return PYSHC_RAISED;
    Py_ssize_t length = PyObject_Size(part(w, PART_BODY));
    if (length < 0)
        return PYSHC_RAISED;
    w->tag = (uint8_t)PyLong_AsLong(part(w, PART_TAG));
    w->length = (size_t)PyBytes_GET_SIZE(part(w, PART_HEAD)) + (size_t)length + (is_sealed(w) ? 16 : 0);
    return 0;
}

/* Who receives it would refuse it. */
static int
refuse_length(pyshc_handle_t *h, uint64_t length, uint64_t limit)
{
    PyObject *m = module(), *name = PyObject_Repr((PyObject *)h), *none = NULL;
    if (m != NULL && name != NULL)
        none =
            PyObject_CallMethod(m, "refuse_length", "OKK", name, (unsigned long long)length, (unsigned long long)limit);
    Py_XDECREF(none);
    Py_XDECREF(name);
    Py_XDECREF(m);
    return PYSHC_RAISED;
}

/* Whether the codec carries bytes as they are: then they need no copy on their way to and from the library. */
static bool
carries_bytes(uint64_t tags)
{
    return (tags >> SHC_WIRE_BYTES & 1) != 0;
}

/* What goes into the envelope, encoded: new bytes, or obj itself. */
static PyObject *
encode(pyshc_handle_t *h, PyObject *obj, pyshc_wrapped_t *w, uint8_t *tag)
{
    if (PyBytes_CheckExact(obj) && carries_bytes(w->codec.sends)) {
        *tag = SHC_WIRE_BYTES;
        return Py_NewRef(obj);
    }
    w->has_out = pyshc_outgoing_prepare(h->st, &w->codec, obj, &w->out) == 0;
    return w->has_out ? pyshc_outgoing_to_bytes(&w->out, tag) : NULL;
}

int
pyshc_wrapped_make(pyshc_handle_t *h, PyObject *obj, uint64_t limit, pyshc_wrapped_t *w)
{
    uint8_t tag = 0;
    w->parts = NULL;
    w->has_out = false;
    w->codec = inner_codec(h);
    if (!pyshc_envelope_check(h))
        return PYSHC_RAISED;
    PyObject *bytes = encode(h, obj, w, &tag);
    if (bytes != NULL && (uint64_t)PyBytes_GET_SIZE(bytes) > limit) {
        (void)refuse_length(h, (uint64_t)PyBytes_GET_SIZE(bytes), limit);
        Py_CLEAR(bytes);
    }
    return wrap(h, tag, bytes, w);
}

int
pyshc_wrapped_bytes(pyshc_handle_t *h, uint8_t tag, const uint8_t *data, size_t n, pyshc_wrapped_t *w)
{
    w->parts = NULL;
    w->has_out = false;
    return wrap(h, tag, PyMemoryView_FromMemory((char *)(uintptr_t)data, (Py_ssize_t)n, PyBUF_READ), w);
}

/* What is authenticated beside the message: new bytes. */
static PyObject *
head_and_place(const pyshc_wrapped_t *w, uint64_t place)
{
    PyObject *head = part(w, PART_HEAD);
    Py_ssize_t n = PyBytes_GET_SIZE(head);
    PyObject *both = PyBytes_FromStringAndSize(NULL, n + (Py_ssize_t)sizeof place);
    if (both != NULL) {
        memcpy(PyBytes_AS_STRING(both), PyBytes_AS_STRING(head), (size_t)n);
        memcpy(PyBytes_AS_STRING(both) + n, &place, sizeof place);
    }
    return both;
}

/* Copies what a bytes-like object has, which must be `n` bytes. */
static int
put(uint8_t *dst, PyObject *data, size_t n)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0)
        return PYSHC_RAISED;
    bool fits = (size_t)view.len == n;
    if (fits && n > 0)
        memcpy(dst, view.buf, n);
    PyBuffer_Release(&view);
    if (!fits)
        PyErr_SetString(PyExc_RuntimeError, "an encrypted message has another length than it should");
    return fits ? 0 : PYSHC_RAISED;
}

/* encrypt(nonce, body, more), or encrypt_into(nonce, body, more, where it goes): functions of the library, so that no
 * Python code runs. */
static int
seal(const pyshc_wrapped_t *w, uint64_t place, uint8_t *dst, size_t n)
{
    bool in_place = part(w, PART_IN_PLACE) == Py_True;
    PyObject *more = head_and_place(w, place), *sealed = NULL;
    PyObject *room = in_place ? PyMemoryView_FromMemory((char *)dst, (Py_ssize_t)n, PyBUF_WRITE) : NULL;
    PyObject *args[] = {part(w, PART_NONCE), part(w, PART_BODY), more, room};
    if (more != NULL && (room != NULL || !in_place)) {
        int gc = pyshc_gc_pause();
        sealed = PyObject_Vectorcall(part(w, PART_ENCRYPT), args, in_place ? 4 : 3, NULL);
        pyshc_gc_resume(gc);
    }
    Py_XDECREF(room);
    Py_XDECREF(more);
    int r = sealed == NULL ? PYSHC_RAISED : in_place ? 0 : put(dst, sealed, n);
    Py_XDECREF(sealed);
    return r;
}

int
pyshc_wrapped_write(const pyshc_wrapped_t *w, uint64_t place, uint8_t *dst)
{
    PyObject *head = part(w, PART_HEAD);
    size_t n = (size_t)PyBytes_GET_SIZE(head);
    memcpy(dst, PyBytes_AS_STRING(head), n);
    if (is_sealed(w))
        return seal(w, place, dst + n, w->length - n);
    return put(dst + n, part(w, PART_BODY), w->length - n);
}

void
pyshc_wrapped_clear(pyshc_wrapped_t *w, bool sent)
{
    if (w->has_out && sent)
        pyshc_outgoing_clear(&w->out);
    else if (w->has_out)
        pyshc_outgoing_abandon(&w->out);
    w->has_out = false;
    Py_CLEAR(w->parts);
}

/* ---- one message in ---- */

/* (tag, bytes) of what was wrapped, decoded. */
static PyObject *
decode(pyshc_handle_t *h, PyObject *pair, bool copy, bool peek)
{
    long tag;
    PyObject *data;
    if (!PyArg_ParseTuple(pair, "lS", &tag, &data))
        return NULL;
    pyshc_codec_t codec = inner_codec(h);
    if (copy && tag == SHC_WIRE_BYTES && carries_bytes(codec.takes))
        return Py_NewRef(data);
    pyshc_incoming_t in;
    const uint8_t *src = (const uint8_t *)PyBytes_AS_STRING(data);
    int r;
    do {
        r = pyshc_incoming_read(h->st, &codec, (uint8_t)tag, src, (size_t)PyBytes_GET_SIZE(data), copy ? NULL : data,
                                &in);
    } while (r == PYSHC_NEED_NUMPY && pyshc_numpy_import(h->st, PYSHC_ARRAY_ARRIVED) == 0);
    if (r != 0)
        return NULL;
    return peek ? pyshc_incoming_peek(&in) : pyshc_incoming_finish(&in);
}

PyObject *
pyshc_envelope_open(pyshc_handle_t *h, uint8_t tag, PyObject *bytes, uint64_t place, uint64_t limit, bool copy,
                    bool peek)
{
    PyObject *pair = PyObject_CallMethod(h->envelope.worker, "unwrap", "iOy#K", (int)tag, bytes, (const char *)&place,
                                         (Py_ssize_t)sizeof place, (unsigned long long)limit);
    PyObject *value = pair != NULL ? decode(h, pair, copy, peek) : NULL;
    Py_XDECREF(pair);
    return value;
}
