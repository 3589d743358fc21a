/* Codecs: Python objects to messages and back. The byte format stands in ds/shc_wire.h.
 *
 * Sending, with the steps that may run anybody's Python code kept apart from those that run while an end is held:
 *
 *     if (pyshc_fast_size(codec, obj, &length, &tag))  claim length;  pyshc_fast_write(obj, tag, dst, length);
 *                                                      plain values
 *     else  pyshc_outgoing_prepare(st, codec, obj, &out);                    pickles or calls dumps() if the codec
 *           says so
 *           r = pyshc_outgoing_write(&out, dst, room, &length, &tag);        as often as need be; no Python code
 *           PYSHC_NEED_ROOM:   pyshc_outgoing_size(&out, &need);             no Python code; then claim that much
 *           PYSHC_NOT_NATIVE:  give the end back;  pyshc_outgoing_pickle(&out);  write again
 *           pyshc_outgoing_clear(&out);
 *
 * Receiving:
 *
 *     obj = pyshc_fast_read(st, codec, tag, src, length);                    NULL without an exception: the long way
 *     r = pyshc_incoming_read(st, codec, tag, src, length, owner, &in);      no Python code; afterwards src is not
 *     needed
 *         PYSHC_NEED_NUMPY:  give the end back;  pyshc_numpy_import(st);  read again
 *         in.holds_owner:    views of owner exist, or will; without an owner everything is copied
 *     obj = pyshc_incoming_finish(&in);                                      unpickles or calls loads();   or
 *                                                                            pyshc_incoming_clear(&in)
 *
 * "No Python code" means: nothing that a user wrote. NumPy's C functions are called, and exceptions of ours are
 * made. Collections are put off. What is sent stays the caller's; out.obj is borrowed until clear.
 *
 * Every receiver decodes plain and native messages, whatever its codec, except `raw`, which takes bytes only.
 * Pickled messages are opened by `auto` and `pickle` only, and a sender's own by a codec object only: all others
 * raise CorruptedError and run nothing.
 *
 * An envelope (compression, encryption) goes around a whole message: py/pyshc_envelope.h. */
#ifndef PYSHC_CODEC_H
#define PYSHC_CODEC_H

#include "py/pyshc_compat.h" /* Python.h comes before everything else */

#include "ds/shc_wire.h"

typedef struct pyshc_state pyshc_state_t;

/* Beside the core's codes, which are at most a few dozen, and PYSHC_RAISED. */
enum {
    PYSHC_NEED_ROOM = 1001,
    PYSHC_NOT_NATIVE = 1002,
    PYSHC_NEED_NUMPY = 1003
};

/* Stored in segments: an attached handle adopts its creator's codec. */
enum {
    PYSHC_CODEC_AUTO = 0,
    PYSHC_CODEC_NATIVE = 1,
    PYSHC_CODEC_PICKLE = 2,
    PYSHC_CODEC_RAW = 3,
    PYSHC_CODEC_CUSTOM = 4,
};

/* Part of each handle; all zero is a codec that has not been chosen yet. */
typedef struct pyshc_codec {
    int kind;
    uint64_t sends; /* bit per message tag that the fast way may write, */
    uint64_t takes; /* and that may be read at all without running code */
    PyObject *dumps, *loads;
    PyObject *spec; /* what the user passed: a str, a module or an object */
} pyshc_codec_t;

/* arg NULL: "auto". 0, or PYSHC_RAISED: ValueError or TypeError in words. *out must be zero or a codec, which is
 * replaced. */
SHC_MUST_USE int pyshc_codec_parse(pyshc_state_t *st, PyObject *arg, pyshc_codec_t *out);

/* How messages call a kind: 'auto', ..., or what stands for an object. New reference. */
PyObject *pyshc_codec_kind_text(uint64_t kind);

/* By the kind that stands in a segment. ValueError: the creator's codec is an object; CorruptedError: no kind at
 * all. */
SHC_MUST_USE int pyshc_codec_adopt(pyshc_state_t *st, uint64_t kind, pyshc_codec_t *out);

/* A picklable object for the codec (a module becomes its name), and back to what parse takes. New references, NULL
 * on failure. */
PyObject *pyshc_codec_save(const pyshc_codec_t *codec);
PyObject *pyshc_codec_restore(PyObject *saved);

int pyshc_codec_traverse(pyshc_codec_t *codec, visitproc visit, void *arg);
void pyshc_codec_clear(pyshc_codec_t *codec);

/* ---- state of the interpreter: what is looked up once ---- */

#define PYSHC_CODEC_KEYS 256 /* recently decoded short keys of dicts */
#define PYSHC_CODEC_DTYPES 16

typedef struct pyshc_dtype_entry {
    PyObject *dtype;
    PyObject *descriptor; /* bytes */
    PyObject *names;      /* of a structure: the tuple that it had then, or NULL */
    uint64_t item_size;
} pyshc_dtype_entry_t;

/* Attribute names, interned: one made for each look-up would push others out of the interpreter's cache of methods. */
#define PYSHC_CODEC_NAMES(X)                                                                                           \
    X(append)                                                                                                          \
    X(cast)                                                                                                            \
    X(char)                                                                                                            \
    X(dtype)                                                                                                           \
    X(fields)                                                                                                          \
    X(hasobject)                                                                                                       \
    X(isalignedstruct)                                                                                                 \
    X(itemsize) X(kind) X(metadata) X(names) X(release) X(setflags) X(str) X(subdtype) X(type)

typedef struct pyshc_codec_names {
#define X(name) PyObject *n_##name;
    PYSHC_CODEC_NAMES(X)
#undef X
} pyshc_codec_names_t;

typedef struct pyshc_codec_state {
    pyshc_codec_names_t names;
    PyObject *keys[PYSHC_CODEC_KEYS];
    pyshc_dtype_entry_t dtypes[PYSHC_CODEC_DTYPES];
    uint32_t next_dtype;
    pyshc_guard_t guard;                                         /* over dtypes */
    PyObject *ndarray, *generic, *dtype, *str_, *bytes_, *void_; /* NumPy's, NULL until needed */
    PyObject *pickle_dumps, *pickle_loads, *pickling_error;      /* NULL until needed */
    PyObject *dumps_keywords;                                    /* ("buffer_callback",) */
    PyObject *loads_keywords;                                    /* ("buffers",) */
    PyObject *empty_tuple;
} pyshc_codec_state_t;

int pyshc_codec_state_init(pyshc_state_t *st);
int pyshc_codec_state_traverse(pyshc_codec_state_t *cs, visitproc visit, void *arg);
void pyshc_codec_state_clear(pyshc_codec_state_t *cs);

/* ---- one message out ---- */

typedef struct pyshc_outgoing {
    pyshc_state_t *st;
    const pyshc_codec_t *codec;
    PyObject *obj; /* borrowed */
    int form;      /* PYSHC_CODEC_*: how it is written now */
    bool has_view;
    Py_buffer view;        /* RAW: of obj; CUSTOM: of what dumps() returned */
    PyObject *stream;      /* PICKLE */
    PyObject *buffers;     /* PICKLE: list of PickleBuffer */
    PyObject *posted;      /* PICKLE: list of handles of the blocks of memory that travel with it, or NULL */
    PyTypeObject *culprit; /* of the value that is not native */
    const char *reason;
    uint64_t limit; /* size() need not count further: longest payload that can be sent at all */
} pyshc_outgoing_t;

SHC_MUST_USE int pyshc_outgoing_prepare(pyshc_state_t *st, const pyshc_codec_t *codec, PyObject *obj,
                                        pyshc_outgoing_t *out);
SHC_MUST_USE int pyshc_outgoing_write(pyshc_outgoing_t *out, uint8_t *dst, size_t room, size_t *length, uint8_t *tag);
SHC_MUST_USE int pyshc_outgoing_size(pyshc_outgoing_t *out, size_t *upper_bound);
SHC_MUST_USE int pyshc_outgoing_pickle(pyshc_outgoing_t *out);
/* NotEncodableError: which value is to blame, and why. who: begins the sentence; cause: what pickle said, or NULL. */
void pyshc_outgoing_refuse(const pyshc_outgoing_t *out, const char *who, PyObject *cause);
/* How large a message is that was refused as too large; `exact`: not only an upper bound. 0: that would
 * take too long to say. */
uint64_t pyshc_outgoing_full_size(pyshc_outgoing_t *out, bool *exact);
void pyshc_outgoing_clear(pyshc_outgoing_t *out);
/* The same of what was not sent: blocks of memory do not travel with it. An exception that is set stays. */
void pyshc_outgoing_abandon(pyshc_outgoing_t *out);

/* While this thread pickles a message: notes the handle of a block that was posted for it. False: MemoryError. */
bool pyshc_pickle_note_posted(PyObject *handle);

/* ---- one message in ---- */

typedef struct pyshc_incoming {
    pyshc_state_t *st;
    const pyshc_codec_t *codec;
    PyObject *value;   /* decoded; or the private copy of a stream */
    PyObject *buffers; /* PICKLE: tuple of buffers */
    uint8_t tag;
    bool holds_owner;
} pyshc_incoming_t;

SHC_MUST_USE int pyshc_incoming_read(pyshc_state_t *st, const pyshc_codec_t *codec, uint8_t tag, const uint8_t *src,
                                     size_t length, PyObject *owner, pyshc_incoming_t *in);
PyObject *pyshc_incoming_finish(pyshc_incoming_t *in);
/* The same of a message that stays where it is: blocks of memory in it are held, but not taken over. */
PyObject *pyshc_incoming_peek(pyshc_incoming_t *in);
/* Whether this thread is in there. */
bool pyshc_incoming_is_peek(void);
void pyshc_incoming_clear(pyshc_incoming_t *in);

/* Imports NumPy; `what` says what for: 0 or PYSHC_RAISED (ImportError that names the extra). */
SHC_MUST_USE int pyshc_numpy_import(pyshc_state_t *st, const char *what);

#define PYSHC_ARRAY_ARRIVED "the message holds a NumPy array"

/* ---- whole messages as bytes ---- */

/* What was prepared, in bytes; NULL: it stays to be abandoned. */
PyObject *pyshc_outgoing_to_bytes(pyshc_outgoing_t *out, uint8_t *tag);

PyObject *pyshc_codec_dump(pyshc_state_t *st, const pyshc_codec_t *codec, PyObject *obj, uint8_t *tag);
/* `data` exports the payload; copy == false: what is decoded may refer to it. */
PyObject *pyshc_codec_load(pyshc_state_t *st, const pyshc_codec_t *codec, uint8_t tag, PyObject *data, bool copy);

extern PyMethodDef pyshc_codec_methods[]; /* _encode, _decode */

/* ---- plain values: a few instructions and a copy ---- */

/* A VALUE message, read in one go: NULL without an exception if it takes the long way (which then says what is
 * wrong). */
PyObject *pyshc_decode_quickly(pyshc_state_t *st, const uint8_t *src, size_t length);

static SHC_ALWAYS_INLINE bool
pyshc_long_as_int64(PyObject *obj, int64_t *value)
{
    if (SHC_LIKELY(pyshc_long_is_compact(obj, value)))
        return true;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    return overflow == 0;
}

/* Whether obj is a plain value that this codec sends as such; then its tag and the length of its payload. */
static SHC_ALWAYS_INLINE bool
pyshc_fast_size(const pyshc_codec_t *codec, PyObject *obj, size_t *length, uint8_t *tag)
{
    PyTypeObject *type = Py_TYPE(obj);
    int64_t number;
    if (type == &PyBytes_Type) {
        *tag = SHC_WIRE_BYTES;
        *length = (size_t)PyBytes_GET_SIZE(obj);
    } else if (type == &PyLong_Type) {
        if (SHC_UNLIKELY(!pyshc_long_as_int64(obj, &number)))
            return false;
        *tag = SHC_WIRE_INT64;
        *length = sizeof(number);
    } else if (type == &PyUnicode_Type) {
        if (!PyUnicode_IS_COMPACT_ASCII(obj))
            return false;
        *tag = SHC_WIRE_ASCII;
        *length = (size_t)PyUnicode_GET_LENGTH(obj);
    } else if (type == &PyFloat_Type) {
        *tag = SHC_WIRE_FLOAT;
        *length = sizeof(double);
    } else if (obj == Py_None || type == &PyBool_Type) {
        *tag = obj == Py_None ? SHC_WIRE_NONE : obj == Py_True ? SHC_WIRE_TRUE : SHC_WIRE_FALSE;
        *length = 0;
    } else {
        return false;
    }
    return codec->sends >> *tag & 1;
}

/* With what fast_size said; `length` bytes at dst. */
static SHC_ALWAYS_INLINE void
pyshc_fast_write(PyObject *obj, uint8_t tag, uint8_t *dst, size_t length)
{
    int64_t number;
    switch (tag) {
    case SHC_WIRE_BYTES:
        memcpy(dst, PyBytes_AS_STRING(obj), length);
        break;
    case SHC_WIRE_ASCII:
        memcpy(dst, PyUnicode_DATA(obj), length);
        break;
    case SHC_WIRE_INT64:
        (void)pyshc_long_as_int64(obj, &number);
        (void)shc_wire_put_int64(dst, number);
        break;
    case SHC_WIRE_FLOAT:
        (void)shc_wire_put_double(dst, PyFloat_AS_DOUBLE(obj));
        break;
    default: /* the tag says it all */
        break;
    }
}

static SHC_ALWAYS_INLINE uint64_t
pyshc_word_at(const uint8_t *text)
{
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return word;
}

/* Whether `length` bytes of private memory are all below 128. */
static SHC_ALWAYS_INLINE bool
pyshc_is_ascii(const uint8_t *text, size_t length)
{
    uint64_t all = 0;
    const uint8_t *end = text + length;
    for (; end - text >= 32; text += 32)
        all |= (pyshc_word_at(text) | pyshc_word_at(text + 8)) | (pyshc_word_at(text + 16) | pyshc_word_at(text + 24));
    for (; end - text >= 8; text += 8)
        all |= pyshc_word_at(text);
    for (; text < end; text++)
        all |= *text;
    return (all & UINT64_C(0x8080808080808080)) == 0;
}

/* Text that has been checked after it was copied; NULL without an exception if it is not ASCII. */
static SHC_ALWAYS_INLINE PyObject *
pyshc_ascii_from(const uint8_t *src, size_t length)
{
    PyObject *text = PyUnicode_New((Py_ssize_t)length, 127);
    if (SHC_UNLIKELY(text == NULL || length == 0))
        return text;
    uint8_t *data = PyUnicode_1BYTE_DATA(text);
    shc_racy_copy(data, src, length);
    if (SHC_LIKELY(pyshc_is_ascii(data, length)))
        return text;
    Py_DECREF(text);
    return NULL;
}

/* NULL with MemoryError, or without an exception: not for the fast way, or not right; pyshc_incoming_read() says
 * which. */
static SHC_ALWAYS_INLINE PyObject *
pyshc_fast_read(pyshc_state_t *st, const pyshc_codec_t *codec, uint8_t tag, const uint8_t *src, size_t length)
{
    int64_t number;
    double real;
    if (SHC_UNLIKELY(tag > 63 || !(codec->takes >> tag & 1)))
        return NULL;
    switch (tag) {
    case SHC_WIRE_BYTES:
        return PyBytes_FromStringAndSize((const char *)src, (Py_ssize_t)length);
    case SHC_WIRE_INT64:
        return shc_wire_get_int64(tag, src, length, &number) ? PyLong_FromLongLong(number) : NULL;
    case SHC_WIRE_ASCII:
        return pyshc_ascii_from(src, length);
    case SHC_WIRE_FLOAT:
        return shc_wire_get_double(tag, src, length, &real) ? PyFloat_FromDouble(real) : NULL;
    case SHC_WIRE_NONE:
        return length == 0 ? Py_NewRef(Py_None) : NULL;
    case SHC_WIRE_TRUE:
        return length == 0 ? Py_NewRef(Py_True) : NULL;
    case SHC_WIRE_FALSE:
        return length == 0 ? Py_NewRef(Py_False) : NULL;
    case SHC_WIRE_VALUE:
        return pyshc_decode_quickly(st, src, length);
    default:
        return NULL;
    }
}

#endif
