/* Bytes that nobody vouches for to Python objects: ds/shc_wire.h says what may be expected of them and how they are
 * read.
 *
 * Objects are complete before anybody else sees them; keys and members are hashed, which for the types of the format
 * runs no Python code. */
#include "py/pyshc_codec_internal.h"

#define KEY_MAX 32 /* longest key that is remembered */
#define UTF8_STACK 256
#define BIGINT_STACK 128

/* ---- what is wrong ---- */

PyObject *
pyshc_decode_corrupt(pyshc_decoder_t *d, const char *words)
{
    PyErr_Format(d->st->CorruptedError, "message damaged at byte %zd of %zd: %s", (Py_ssize_t)(d->in.at - d->start),
                 (Py_ssize_t)(d->in.end - d->start), words);
    return NULL;
}

PyObject *
pyshc_decode_blame(pyshc_decoder_t *d, const char *words)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(d->st->CorruptedError))
        return NULL;
    PYSHC_RAISE_FROM_CURRENT(pyshc_decode_corrupt(d, words));
    return NULL;
}

static PyObject *
cut_short(pyshc_decoder_t *d)
{
    return pyshc_decode_corrupt(d, "it ends in the middle of a value, or a length in it is wrong");
}

/* ---- memory of the owner ---- */

bool
pyshc_decode_in_place(const pyshc_decoder_t *d)
{
    return d->owner != NULL && d->hashed == 0;
}

static PyObject *
slice_of(Py_ssize_t from, Py_ssize_t to)
{
    PyObject *first = PyLong_FromSsize_t(from), *last = PyLong_FromSsize_t(to), *slice = NULL;
    if (first != NULL && last != NULL)
        slice = PySlice_New(first, last, NULL);
    Py_XDECREF(first);
    Py_XDECREF(last);
    return slice;
}

PyObject *
pyshc_decode_window(pyshc_decoder_t *d, const uint8_t *data, size_t length)
{
    if (d->window == NULL && (d->window = PyMemoryView_FromObject(d->owner)) == NULL)
        return NULL;
    if (!PyMemoryView_GET_BUFFER(d->window)->readonly ||
        PyMemoryView_GET_BUFFER(d->window)->len != d->in.end - d->start) {
        PyErr_SetString(PyExc_SystemError, "the owner of a message exports something else than the message, read-only");
        return NULL;
    }
    Py_ssize_t from = data - d->start;
    PyObject *slice = slice_of(from, from + (Py_ssize_t)length);
    if (slice == NULL)
        return NULL;
    PyObject *part = PyObject_GetItem(d->window, slice);
    Py_DECREF(slice);
    d->holds_owner = d->holds_owner || part != NULL;
    return part;
}

/* ---- text ---- */

static SHC_ALWAYS_INLINE PyObject *
decode_ascii(pyshc_decoder_t *d, uint64_t length)
{
    const uint8_t *src;
    if (SHC_UNLIKELY(!shc_wire_read_bytes(&d->in, length, &src)))
        return cut_short(d);
    PyObject *text = pyshc_ascii_from(src, (size_t)length);
    if (SHC_UNLIKELY(text == NULL) && !PyErr_Occurred())
        return pyshc_decode_corrupt(d, "a text that should be ASCII is not");
    return text;
}

static SHC_ALWAYS_INLINE uint32_t
key_slot(const uint8_t *text, size_t length)
{
    uint64_t first = 0, last = 0;
    if (length >= 8) {
        memcpy(&first, text, 8);
        memcpy(&last, text + length - 8, 8);
    } else {
        memcpy(&first, text, length);
    }
    uint64_t mixed = (first ^ (last << 29 | last >> 35) ^ length) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> 32) % PYSHC_CODEC_KEYS;
}

/* A short key. Messages repeat their keys: the str that came last time has its hash already. In free-threaded builds
 * the table would need a lock, which costs more than it saves. */
static SHC_ALWAYS_INLINE PyObject *
decode_short_key(pyshc_decoder_t *d, size_t length)
{
    uint8_t text[KEY_MAX];
    const uint8_t *src;
    if (PYSHC_FREE_THREADED || length > KEY_MAX)
        return decode_ascii(d, length);
    if (SHC_UNLIKELY(!shc_wire_read_bytes(&d->in, length, &src)))
        return cut_short(d);
    shc_racy_copy(text, src, length);
    PyObject **slot = &d->st->codec.keys[key_slot(text, length)];
    PyObject *known = *slot;
    if (SHC_LIKELY(known != NULL && (size_t)PyUnicode_GET_LENGTH(known) == length &&
                   memcmp(PyUnicode_DATA(known), text, length) == 0))
        return Py_NewRef(known);
    PyObject *key = pyshc_ascii_from(text, length);
    if (key == NULL)
        return PyErr_Occurred() ? NULL : pyshc_decode_corrupt(d, "a text that should be ASCII is not");
    Py_XSETREF(*slot, Py_NewRef(key));
    return key;
}

PyObject *
pyshc_decode_utf8(pyshc_decoder_t *d, const uint8_t *src, uint64_t length)
{
    char stack[UTF8_STACK], *text = stack;
    if (length > UTF8_STACK && (text = PyMem_Malloc((size_t)length)) == NULL)
        return PyErr_NoMemory();
    shc_racy_copy(text, src, (size_t)length);
    PyObject *result = PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, "surrogatepass");
    if (text != stack)
        PyMem_Free(text);
    return result != NULL ? result : pyshc_decode_blame(d, "a text is not UTF-8");
}

/* ---- numbers ---- */

static PyObject *
decode_bigint(pyshc_decoder_t *d)
{
    uint8_t stack[BIGINT_STACK], *number = stack;
    const uint8_t *src;
    uint64_t length;
    if (!shc_wire_read_text(&d->in, &src, &length))
        return cut_short(d);
    if (length > BIGINT_STACK && (number = PyMem_Malloc((size_t)length)) == NULL)
        return PyErr_NoMemory();
    shc_racy_copy(number, src, (size_t)length);
    PyObject *result = pyshc_long_read(number, (size_t)length);
    if (number != stack)
        PyMem_Free(number);
    return result != NULL ? result : pyshc_decode_blame(d, "an integer is too large for this machine");
}

static SHC_ALWAYS_INLINE PyObject *
decode_int(pyshc_decoder_t *d, uint8_t tag)
{
    uint8_t tiny;
    uint32_t small;
    uint64_t wide;
    if (tag == SHC_WIRE_INT8)
        return shc_wire_read_u8(&d->in, &tiny) ? PyLong_FromLong((int8_t)tiny) : cut_short(d);
    if (tag == SHC_WIRE_INT32)
        return shc_wire_read_u32(&d->in, &small) ? PyLong_FromLong((int32_t)small) : cut_short(d);
    return shc_wire_read_u64(&d->in, &wide) ? PyLong_FromLongLong((int64_t)wide) : cut_short(d);
}

static SHC_ALWAYS_INLINE bool
read_double(pyshc_decoder_t *d, double *out)
{
    uint64_t bits;
    if (!shc_wire_read_u64(&d->in, &bits))
        return false;
    memcpy(out, &bits, sizeof(bits));
    return true;
}

static PyObject *
decode_complex(pyshc_decoder_t *d)
{
    double real, imag;
    if (!read_double(d, &real) || !read_double(d, &imag))
        return cut_short(d);
    return PyComplex_FromDoubles(real, imag);
}

/* ---- bytes ---- */

static PyObject *
decode_bytes(pyshc_decoder_t *d)
{
    const uint8_t *src;
    uint64_t length;
    if (!shc_wire_read_text(&d->in, &src, &length))
        return cut_short(d);
    if (pyshc_decode_in_place(d))
        return pyshc_decode_window(d, src, (size_t)length);
    return PyBytes_FromStringAndSize((const char *)src, (Py_ssize_t)length);
}

static PyObject *
bytearray_from(const uint8_t *src, size_t length)
{
    PyObject *result = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (result != NULL && length > 0)
        shc_racy_copy(PyByteArray_AS_STRING(result), src, length);
    return result;
}

static PyObject *
decode_bytearray(pyshc_decoder_t *d)
{
    const uint8_t *src;
    uint64_t length;
    if (!shc_wire_read_text(&d->in, &src, &length))
        return cut_short(d);
    return pyshc_decode_in_place(d) ? pyshc_decode_window(d, src, (size_t)length) : bytearray_from(src, (size_t)length);
}

/* ---- memoryview ---- */

bool
pyshc_decode_shape(pyshc_decoder_t *d, uint64_t *shape, unsigned *ndim, uint64_t *count)
{
    uint8_t dimensions;
    *count = 1;
    bool empty = false;
    if (!shc_wire_read_u8(&d->in, &dimensions)) {
        cut_short(d);
        return false;
    }
    for (unsigned i = 0; i < dimensions; i++) {
        if (i >= SHC_WIRE_DIMENSIONS || !shc_wire_read_u64(&d->in, &shape[i])) {
            cut_short(d);
            return false;
        }
        empty = empty || shape[i] == 0;
        if (shape[i] > PY_SSIZE_T_MAX || (shape[i] != 0 && !shc_mul_checked(*count, shape[i], count))) {
            pyshc_decode_corrupt(d, "an array is larger than memory can be");
            return false;
        }
    }
    *ndim = dimensions;
    if (empty)
        *count = 0;
    return true;
}

PyObject *
pyshc_decode_shape_tuple(const uint64_t *shape, unsigned ndim)
{
    PyObject *tuple = PyTuple_New(ndim);
    for (unsigned i = 0; tuple != NULL && i < ndim; i++) {
        PyObject *length = PyLong_FromUnsignedLongLong(shape[i]);
        if (length == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, length);
    }
    return tuple;
}

static unsigned
format_size(uint8_t format)
{
    switch (format) {
    case 'c':
    case 'b':
    case 'B':
    case '?':
        return 1;
    case 'h':
    case 'H':
        return sizeof(short);
    case 'i':
    case 'I':
    case 'f':
        return sizeof(int);
    case 'l':
    case 'L':
    case 'q':
    case 'Q':
    case 'n':
    case 'N':
    case 'd':
        return sizeof(long);
    default:
        return 0;
    }
}

_Static_assert(sizeof(long) == 8 && sizeof(long long) == 8 && sizeof(float) == sizeof(int),
               "format_size() groups by size");

/* Takes its reference to bytes; gives the shaped view. */
static PyObject *
shape_view(pyshc_decoder_t *d, PyObject *bytes, uint8_t format, const uint64_t *shape, unsigned ndim)
{
    PyObject *flat = bytes != NULL ? PyMemoryView_FromObject(bytes) : NULL;
    Py_XDECREF(bytes);
    if (flat == NULL || (format == 'B' && ndim == 1))
        return flat;
    char text[2] = {(char)format, 0};
    PyObject *result = NULL, *name = PyUnicode_FromString(text), *sizes = pyshc_decode_shape_tuple(shape, ndim);
    if (name != NULL && sizes != NULL) /* an empty dimension is understood only if it is the only one, and not named */
        result = PyObject_CallMethodObjArgs(flat, d->st->codec.names.n_cast, name, ndim == 1 ? NULL : sizes, NULL);
    Py_XDECREF(name);
    Py_XDECREF(sizes);
    Py_DECREF(flat);
    return result;
}

static PyObject *
decode_memoryview(pyshc_decoder_t *d)
{
    uint64_t shape[SHC_WIRE_DIMENSIONS], count, length;
    uint8_t flags, format;
    unsigned ndim;
    const uint8_t *src;
    if (!shc_wire_read_u8(&d->in, &flags) || !shc_wire_read_u8(&d->in, &format))
        return cut_short(d);
    if (flags > SHC_WIRE_WRITABLE || format_size(format) == 0)
        return pyshc_decode_corrupt(d, "a memoryview has no format that is known here");
    if (!pyshc_decode_shape(d, shape, &ndim, &count))
        return NULL;
    if (!shc_mul_checked(count, format_size(format), &length) || !shc_wire_read_pad(&d->in) ||
        !shc_wire_read_bytes(&d->in, length, &src))
        return cut_short(d);
    PyObject *bytes;
    if (pyshc_decode_in_place(d))
        bytes = pyshc_decode_window(d, src, (size_t)length);
    else if (flags & SHC_WIRE_WRITABLE)
        bytes = bytearray_from(src, (size_t)length);
    else
        bytes = PyBytes_FromStringAndSize((const char *)src, (Py_ssize_t)length);
    PyObject *view = shape_view(d, bytes, format, shape, ndim);
    return view != NULL ? view : pyshc_decode_blame(d, "a memoryview has no possible shape");
}

/* ---- containers ---- */

static SHC_ALWAYS_INLINE bool
begin_container(pyshc_decoder_t *d, unsigned values, uint64_t *count)
{
    if (SHC_UNLIKELY(d->depth >= SHC_WIRE_DEPTH)) {
        pyshc_decode_corrupt(d, "containers are nested deeper than 64");
        return false;
    }
    if (SHC_UNLIKELY(!shc_wire_read_count(&d->in, values, count))) {
        cut_short(d);
        return false;
    }
    d->depth++;
    return true;
}

static SHC_ALWAYS_INLINE PyObject *
next_value(pyshc_decoder_t *d)
{
    d->in.owed--;
    return pyshc_decode_value(d);
}

static PyObject *
decode_tuple(pyshc_decoder_t *d)
{
    uint64_t count;
    if (!begin_container(d, 1, &count))
        return NULL;
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (Py_ssize_t i = 0; tuple != NULL && i < (Py_ssize_t)count; i++) {
        PyObject *item = next_value(d);
        if (SHC_LIKELY(item != NULL))
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    d->depth--;
    return tuple;
}

static PyObject *
decode_list(pyshc_decoder_t *d)
{
    uint64_t count;
    if (!begin_container(d, 1, &count))
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (Py_ssize_t i = 0; list != NULL && i < (Py_ssize_t)count; i++) {
        PyObject *item = next_value(d);
        if (SHC_LIKELY(item != NULL))
            PyList_SET_ITEM(list, i, item);
        else
            Py_CLEAR(list);
    }
    d->depth--;
    return list;
}

static PyObject *
next_hashed(pyshc_decoder_t *d)
{
    d->hashed++;
    PyObject *value = next_value(d);
    d->hashed--;
    return value;
}

static SHC_ALWAYS_INLINE PyObject *
next_key(pyshc_decoder_t *d)
{
    const uint8_t *at = d->in.at;
    if (SHC_LIKELY(at != d->in.end)) {
        uint8_t tag = shc_racy_u8(at);
        if (SHC_LIKELY(tag >= SHC_WIRE_SHORT_ASCII)) {
            d->in.owed--;
            d->in.at = at + 1;
            return decode_short_key(d, tag - SHC_WIRE_SHORT_ASCII);
        }
    }
    return next_hashed(d);
}

static SHC_NOINLINE bool
blame_unhashable(pyshc_decoder_t *d)
{
    pyshc_decode_blame(d, "a key or member cannot be hashed");
    return false;
}

static SHC_ALWAYS_INLINE bool
decode_item(pyshc_decoder_t *d, PyObject *dict)
{
    PyObject *key = next_key(d);
    if (SHC_UNLIKELY(key == NULL))
        return false;
    PyObject *value = next_value(d);
    bool good = false;
    if (SHC_LIKELY(value != NULL)) {
        good = SHC_LIKELY(PyDict_SetItem(dict, key, value) == 0) || blame_unhashable(d);
        Py_DECREF(value);
    }
    Py_DECREF(key);
    return good;
}

static PyObject *
decode_dict(pyshc_decoder_t *d)
{
    uint64_t count;
    if (!begin_container(d, 2, &count))
        return NULL;
    PyObject *dict = PyDict_New();
    for (uint64_t i = 0; dict != NULL && i < count; i++) {
        if (SHC_UNLIKELY(!decode_item(d, dict)))
            Py_CLEAR(dict);
    }
    d->depth--;
    return dict;
}

static PyObject *
decode_set(pyshc_decoder_t *d, uint8_t tag)
{
    uint64_t count;
    if (!begin_container(d, 1, &count))
        return NULL;
    PyObject *set = tag == SHC_WIRE_SET ? PySet_New(NULL) : PyFrozenSet_New(NULL);
    for (uint64_t i = 0; set != NULL && i < count; i++) {
        PyObject *member = next_hashed(d);
        if (member == NULL || (PySet_Add(set, member) != 0 && !blame_unhashable(d)))
            Py_CLEAR(set);
        Py_XDECREF(member);
    }
    d->depth--;
    return set;
}

/* ---- any value ---- */

PyObject *
pyshc_decode_inner(pyshc_decoder_t *d, PyTypeObject *type)
{
    const uint8_t *src;
    uint64_t length;
    uint8_t tag;
    if (!shc_wire_read_u8(&d->in, &tag))
        return cut_short(d);
    if (type == &PyBytes_Type && tag == SHC_WIRE_BYTES)
        return shc_wire_read_text(&d->in, &src, &length)
                   ? PyBytes_FromStringAndSize((const char *)src, (Py_ssize_t)length)
                   : cut_short(d);
    if (type == &PyUnicode_Type && tag == SHC_WIRE_UTF8)
        return shc_wire_read_text(&d->in, &src, &length) ? pyshc_decode_utf8(d, src, length) : cut_short(d);
    return pyshc_decode_corrupt(d, "a NumPy text holds something else than text");
}

static SHC_NOINLINE PyObject *
decode_rare(pyshc_decoder_t *d, uint8_t tag)
{
    const uint8_t *src;
    uint64_t length;
    switch (tag) {
    case SHC_WIRE_ASCII:
        return shc_wire_read_length(&d->in, &length) ? decode_ascii(d, length) : cut_short(d);
    case SHC_WIRE_UTF8:
        return shc_wire_read_text(&d->in, &src, &length) ? pyshc_decode_utf8(d, src, length) : cut_short(d);
    case SHC_WIRE_BIGINT:
        return decode_bigint(d);
    case SHC_WIRE_COMPLEX:
        return decode_complex(d);
    case SHC_WIRE_BYTEARRAY:
        return decode_bytearray(d);
    case SHC_WIRE_SET:
    case SHC_WIRE_FROZENSET:
        return decode_set(d, tag);
    case SHC_WIRE_MEMORYVIEW:
        return decode_memoryview(d);
    case SHC_WIRE_ARRAY:
    case SHC_WIRE_SCALAR:
    case SHC_WIRE_NUMPY_STR:
    case SHC_WIRE_NUMPY_BYTES:
        return pyshc_numpy_decode(d, tag);
    default:
        return pyshc_decode_corrupt(d, "no value begins with such a byte");
    }
}

PyObject *
pyshc_decode_value(pyshc_decoder_t *d)
{
    uint8_t tag;
    double real;
    if (SHC_UNLIKELY(!shc_wire_read_u8(&d->in, &tag)))
        return cut_short(d);
    if (tag >= SHC_WIRE_SHORT_ASCII)
        return decode_ascii(d, tag - SHC_WIRE_SHORT_ASCII);
    switch (tag) {
    case SHC_WIRE_NONE:
        return Py_NewRef(Py_None);
    case SHC_WIRE_FALSE:
        return Py_NewRef(Py_False);
    case SHC_WIRE_TRUE:
        return Py_NewRef(Py_True);
    case SHC_WIRE_INT8:
    case SHC_WIRE_INT32:
    case SHC_WIRE_INT64:
        return decode_int(d, tag);
    case SHC_WIRE_FLOAT:
        return read_double(d, &real) ? PyFloat_FromDouble(real) : cut_short(d);
    case SHC_WIRE_BYTES:
        return decode_bytes(d);
    case SHC_WIRE_TUPLE:
        return decode_tuple(d);
    case SHC_WIRE_LIST:
        return decode_list(d);
    case SHC_WIRE_DICT:
        return decode_dict(d);
    default:
        return decode_rare(d, tag);
    }
}
