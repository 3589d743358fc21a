/* Python objects to bytes: one walk that writes into the room it is given, or counts.
 *
 * Runs no Python code, so nothing that it looks at changes meanwhile, except in free-threaded builds, where each
 * container is locked while it is read (and the locks may be suspended at an inner one: a container of another size
 * at the end than at the start is an error). */
#include "py/pyshc_codec_internal.h"

#define WHY_TYPE "only exact built-in types and NumPy's travel natively"
#define WHY_TWICE "it occurs twice in one message, or contains itself, and would arrive as several objects"
#define WHY_DEEP "containers are nested deeper than 64"
#define WHY_VIEW "only C-contiguous memoryviews of native single-character formats travel natively"

void
pyshc_encode_begin(pyshc_encoder_t *e, pyshc_state_t *st, uint8_t *dst, size_t room, uint64_t limit)
{
    e->counting = dst == NULL;
    e->at = dst != NULL ? dst : e->scratch;
    e->end = dst != NULL ? dst + room : e->scratch;
    e->st = st;
    e->depth = 0;
    e->counted = 0;
    e->limit = limit;
    e->seen_count = 0;
    e->seen_room = 0;
    e->seen_many = NULL;
    e->reason = NULL;
    e->culprit = NULL;
}

void
pyshc_encode_end(pyshc_encoder_t *e)
{
    const void **table = e->seen_many != NULL ? e->seen_many : e->seen_few;
    uint32_t count = e->seen_many != NULL ? e->seen_room : e->seen_count;
    for (uint32_t i = 0; PYSHC_FREE_THREADED && i < count; i++) {
        if (table[i] != NULL)
            PYSHC_LET_GO((PyObject *)(uintptr_t)table[i]);
    }
    if (SHC_UNLIKELY(e->seen_many != NULL))
        PyMem_Free(e->seen_many);
}

uint8_t *
pyshc_encode_take_slowly(pyshc_encoder_t *e, size_t n)
{
    if (!e->counting)
        return NULL;
    e->counted += n;
    return e->counted > e->limit ? NULL : e->scratch;
}

int
pyshc_encode_refuse(pyshc_encoder_t *e, PyObject *obj, const char *reason)
{
    e->reason = reason;
    e->culprit = Py_TYPE(obj);
    return PYSHC_NOT_NATIVE;
}

/* Copies data of any length. */
static SHC_ALWAYS_INLINE int
put(pyshc_encoder_t *e, const void *data, size_t length)
{
    if (SHC_UNLIKELY((size_t)(e->end - e->at) < length))
        return pyshc_encode_take_slowly(e, length) != NULL ? 0 : PYSHC_NEED_ROOM;
    if (length != 0)
        memcpy(e->at, data, length);
    e->at += length;
    return 0;
}

static SHC_ALWAYS_INLINE int
put_tag(pyshc_encoder_t *e, uint8_t tag)
{
    uint8_t *at = pyshc_encode_take(e, 1);
    if (SHC_UNLIKELY(at == NULL))
        return PYSHC_NEED_ROOM;
    *at = tag;
    return 0;
}

static SHC_ALWAYS_INLINE int
put_head(pyshc_encoder_t *e, uint8_t tag, uint64_t length)
{
    uint8_t *at = pyshc_encode_take(e, 1 + shc_wire_length_size(length));
    if (SHC_UNLIKELY(at == NULL))
        return PYSHC_NEED_ROOM;
    *at = tag;
    (void)shc_wire_put_length(at + 1, length);
    return 0;
}

int
pyshc_encode_text(pyshc_encoder_t *e, const void *data, size_t length)
{
    uint8_t *at = pyshc_encode_take(e, shc_wire_length_size(length));
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    (void)shc_wire_put_length(at, length);
    return put(e, data, length);
}

int
pyshc_encode_aligned(pyshc_encoder_t *e, size_t length, uint8_t **dst)
{
    *dst = NULL;
    if (e->counting) {
        if (length > e->limit || pyshc_encode_take_slowly(e, SHC_WIRE_ALIGN + length) == NULL)
            return PYSHC_NEED_ROOM;
        return 0;
    }
    size_t room = (size_t)(e->end - e->at);
    size_t pad = pyshc_pad_behind(e->at);
    if (room < 1 + pad || room - 1 - pad < length)
        return PYSHC_NEED_ROOM;
    *e->at = (uint8_t)pad;
    memset(e->at + 1, 0, pad);
    *dst = e->at + 1 + pad;
    e->at = *dst + length;
    return 0;
}

int
pyshc_encode_data(pyshc_encoder_t *e, const void *data, size_t length)
{
    return put(e, data, length);
}

_Static_assert(sizeof(Py_ssize_t) == 8, "shapes are written as they lie in memory");

int
pyshc_encode_shape(pyshc_encoder_t *e, const Py_buffer *view)
{
    int r = view->ndim <= SHC_WIRE_DIMENSIONS ? put_tag(e, (uint8_t)view->ndim) : PYSHC_NOT_NATIVE;
    return r == 0 && view->ndim > 0 ? put(e, view->shape, (size_t)view->ndim * sizeof(*view->shape)) : r;
}

/* ---- things that may occur only once ----
 *
 * What has been noted is held: another thread may take it out of its container, and something new come to the same
 * address. */

static const void **
find_slot(const void **table, uint32_t room, const void *key)
{
    uint32_t i = (uint32_t)(((uintptr_t)key >> 4) * UINT32_C(0x9e3779b1));
    for (i = (i ^ i >> 15) & (room - 1); table[i] != NULL && table[i] != key; i = (i + 1) & (room - 1))
        continue;
    return &table[i];
}

static int
grow_seen(pyshc_encoder_t *e)
{
    uint32_t room = e->seen_room == 0 ? 4 * 16 : e->seen_room * 2;
    const void **table = room != 0 ? PyMem_Calloc(room, sizeof(*table)) : NULL;
    if (table == NULL) {
        PyErr_NoMemory();
        return PYSHC_RAISED;
    }
    const void **old = e->seen_room == 0 ? e->seen_few : e->seen_many;
    uint32_t count = e->seen_room == 0 ? e->seen_count : e->seen_room;
    for (uint32_t i = 0; i < count; i++) {
        if (old[i] != NULL)
            *find_slot(table, room, old[i]) = old[i];
    }
    PyMem_Free(e->seen_many);
    e->seen_many = table;
    e->seen_room = room;
    return 0;
}

static int
note_in_table(pyshc_encoder_t *e, PyObject *obj)
{
    if (e->seen_count >= e->seen_room / 2) {
        int r = grow_seen(e);
        if (r != 0)
            return r;
    }
    const void **slot = find_slot(e->seen_many, e->seen_room, obj);
    if (*slot != NULL)
        return pyshc_encode_refuse(e, obj, WHY_TWICE);
    *slot = obj;
    e->seen_count++;
    PYSHC_HOLD(obj);
    return 0;
}

/* An object with a single reference is reached through that one only. */
int
pyshc_encode_once(pyshc_encoder_t *e, PyObject *obj)
{
    if (Py_REFCNT(obj) == 1)
        return 0;
    if (e->seen_room == 0) {
        for (uint32_t i = 0; i < e->seen_count; i++) {
            if (e->seen_few[i] == obj)
                return pyshc_encode_refuse(e, obj, WHY_TWICE);
        }
        if (e->seen_count < PYSHC_ENCODER_FEW) {
            e->seen_few[e->seen_count++] = obj;
            PYSHC_HOLD(obj);
            return 0;
        }
    }
    return note_in_table(e, obj);
}

/* ---- text ---- */

static SHC_ALWAYS_INLINE int
encode_ascii(pyshc_encoder_t *e, PyObject *obj)
{
    size_t length = (size_t)PyUnicode_GET_LENGTH(obj);
    int r = SHC_LIKELY(length <= SHC_WIRE_SHORT_MAX) ? put_tag(e, (uint8_t)(SHC_WIRE_SHORT_ASCII | length))
                                                     : put_head(e, SHC_WIRE_ASCII, length);
    return SHC_LIKELY(r == 0) ? put(e, PyUnicode_DATA(obj), length) : r;
}

static size_t
utf8_size(PyObject *obj)
{
    int kind = PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    size_t n = (size_t)PyUnicode_GET_LENGTH(obj), size = n;
    for (size_t i = 0; i < n; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, (Py_ssize_t)i);
        size += (c > 0x7f) + (c > 0x7ff) + (size_t)(c > 0xffff);
    }
    return size;
}

/* Surrogates are written like any other character, so every str arrives as it was. */
static uint8_t *
write_utf8(uint8_t *at, Py_UCS4 c)
{
    if (c <= 0x7f) {
        *at++ = (uint8_t)c;
        return at;
    }
    if (c <= 0x7ff) {
        *at++ = (uint8_t)(0xc0 | c >> 6);
    } else {
        if (c <= 0xffff) {
            *at++ = (uint8_t)(0xe0 | c >> 12);
        } else {
            *at++ = (uint8_t)(0xf0 | c >> 18);
            *at++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        }
        *at++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    }
    *at++ = (uint8_t)(0x80 | (c & 0x3f));
    return at;
}

static SHC_NOINLINE int
encode_unicode(pyshc_encoder_t *e, PyObject *obj)
{
    size_t size = utf8_size(obj);
    int r = put_head(e, SHC_WIRE_UTF8, size);
    if (r != 0)
        return r;
    if ((size_t)(e->end - e->at) < size)
        return pyshc_encode_take_slowly(e, size) != NULL ? 0 : PYSHC_NEED_ROOM;
    int kind = PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    Py_ssize_t n = PyUnicode_GET_LENGTH(obj);
    for (Py_ssize_t i = 0; i < n; i++)
        e->at = write_utf8(e->at, PyUnicode_READ(kind, data, i));
    return 0;
}

static SHC_ALWAYS_INLINE int
encode_str(pyshc_encoder_t *e, PyObject *obj)
{
    return SHC_LIKELY(PyUnicode_IS_COMPACT_ASCII(obj)) ? encode_ascii(e, obj) : encode_unicode(e, obj);
}

/* ---- numbers ---- */

static SHC_NOINLINE int
encode_bigint(pyshc_encoder_t *e, PyObject *obj)
{
    size_t size = pyshc_long_size(obj);
    int r = put_head(e, SHC_WIRE_BIGINT, size);
    if (r != 0)
        return r;
    if ((size_t)(e->end - e->at) < size)
        return pyshc_encode_take_slowly(e, size) != NULL ? 0 : PYSHC_NEED_ROOM;
    if (pyshc_long_write(obj, e->at, size) != 0)
        return PYSHC_RAISED;
    e->at += size;
    return 0;
}

static SHC_ALWAYS_INLINE int
encode_int(pyshc_encoder_t *e, PyObject *obj)
{
    int64_t value;
    if (SHC_UNLIKELY(!pyshc_long_as_int64(obj, &value)))
        return encode_bigint(e, obj);
    unsigned size = value == (int8_t)value ? 1 : value == (int32_t)value ? 4 : 8;
    uint8_t *at = pyshc_encode_take(e, 1 + size);
    if (SHC_UNLIKELY(at == NULL))
        return PYSHC_NEED_ROOM;
    if (size == 1) {
        at[0] = SHC_WIRE_INT8;
        at[1] = (uint8_t)value;
    } else if (size == 4) {
        int32_t small = (int32_t)value;
        at[0] = SHC_WIRE_INT32;
        memcpy(at + 1, &small, 4);
    } else {
        at[0] = SHC_WIRE_INT64;
        memcpy(at + 1, &value, 8);
    }
    return 0;
}

static SHC_ALWAYS_INLINE int
encode_float(pyshc_encoder_t *e, PyObject *obj)
{
    uint8_t *at = pyshc_encode_take(e, 9);
    if (SHC_UNLIKELY(at == NULL))
        return PYSHC_NEED_ROOM;
    at[0] = SHC_WIRE_FLOAT;
    (void)shc_wire_put_double(at + 1, PyFloat_AS_DOUBLE(obj));
    return 0;
}

static int
encode_complex(pyshc_encoder_t *e, PyObject *obj)
{
    Py_complex value = ((PyComplexObject *)obj)->cval;
    uint8_t *at = pyshc_encode_take(e, 17);
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    at[0] = SHC_WIRE_COMPLEX;
    (void)shc_wire_put_double(at + 1, value.real);
    (void)shc_wire_put_double(at + 9, value.imag);
    return 0;
}

/* ---- bytes ---- */

static int
encode_bytes(pyshc_encoder_t *e, PyObject *obj)
{
    size_t length = (size_t)PyBytes_GET_SIZE(obj);
    int r = put_head(e, SHC_WIRE_BYTES, length);
    return r == 0 ? put(e, PyBytes_AS_STRING(obj), length) : r;
}

static int
encode_bytearray(pyshc_encoder_t *e, PyObject *obj)
{
    int r = pyshc_encode_once(e, obj);
    if (r != 0)
        return r;
    PYSHC_CRITICAL_BEGIN(obj);
    size_t length = (size_t)PyByteArray_GET_SIZE(obj);
    r = put_head(e, SHC_WIRE_BYTEARRAY, length);
    if (r == 0)
        r = put(e, PyByteArray_AS_STRING(obj), length);
    PYSHC_CRITICAL_END();
    return r;
}

/* The character of a native single-character format that memoryview.cast() can make again, or 0. */
static uint8_t
native_format(const Py_buffer *view)
{
    const char *format = view->format != NULL ? view->format : "B";
    format += format[0] == '@';
    return format[0] != 0 && format[1] == 0 && strchr("cbBhHiIlLqQnNfd?", format[0]) != NULL ? (uint8_t)format[0] : 0;
}

static int
write_view(pyshc_encoder_t *e, const Py_buffer *view, uint8_t format)
{
    uint8_t *dst, *at = pyshc_encode_take(e, 3);
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    at[0] = SHC_WIRE_MEMORYVIEW;
    at[1] = view->readonly ? 0 : SHC_WIRE_WRITABLE;
    at[2] = format;
    int r = pyshc_encode_shape(e, view);
    if (r == 0)
        r = pyshc_encode_aligned(e, (size_t)view->len, &dst);
    if (r == 0 && dst != NULL && view->len > 0)
        memcpy(dst, view->buf, (size_t)view->len);
    return r;
}

static int
encode_memoryview(pyshc_encoder_t *e, PyObject *obj)
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_FULL_RO) != 0)
        return PYSHC_RAISED; /* released: its own words */
    uint8_t format = native_format(&view);
    bool empty_plane = view.len == 0 && view.ndim > 1; /* cast() refuses such shapes */
    int r = 0;
    if (format == 0 || empty_plane || !PyBuffer_IsContiguous(&view, 'C'))
        r = pyshc_encode_refuse(e, obj, WHY_VIEW);
    else if (!view.readonly)
        r = pyshc_encode_once(e, obj);
    if (r == 0)
        r = write_view(e, &view, format);
    PyBuffer_Release(&view);
    return r;
}

/* ---- containers ---- */

static int
changed_size(PyObject *obj)
{
    PyErr_Format(PyExc_RuntimeError, "%s changed size while it was being encoded", Py_TYPE(obj)->tp_name);
    return PYSHC_RAISED;
}

static int
encode_tuple(pyshc_encoder_t *e, PyObject *obj)
{
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    int r = put_head(e, SHC_WIRE_TUPLE, (uint64_t)n);
    for (Py_ssize_t i = 0; r == 0 && i < n; i++)
        r = pyshc_encode_value(e, PyTuple_GET_ITEM(obj, i));
    return r;
}

static int
encode_list_items(pyshc_encoder_t *e, PyObject *obj)
{
    Py_ssize_t n = PyList_GET_SIZE(obj), i = 0;
    int r = put_head(e, SHC_WIRE_LIST, (uint64_t)n);
    for (; r == 0 && i < n && i < PyList_GET_SIZE(obj); i++) {
        PyObject *item = PyList_GET_ITEM(obj, i);
        PYSHC_HOLD(item);
        r = pyshc_encode_value(e, item);
        PYSHC_LET_GO(item);
    }
    return r == 0 && PyList_GET_SIZE(obj) != n ? changed_size(obj) : r;
}

static int
encode_list(pyshc_encoder_t *e, PyObject *obj)
{
    int r = pyshc_encode_once(e, obj);
    if (r != 0)
        return r;
    PYSHC_CRITICAL_BEGIN(obj);
    r = encode_list_items(e, obj);
    PYSHC_CRITICAL_END();
    return r;
}

static int
encode_dict_items(pyshc_encoder_t *e, PyObject *obj)
{
    Py_ssize_t n = PyDict_GET_SIZE(obj), done = 0, pos = 0;
    PyObject *key, *value;
    int r = put_head(e, SHC_WIRE_DICT, (uint64_t)n);
    while (r == 0 && PyDict_Next(obj, &pos, &key, &value)) {
        PYSHC_HOLD(key);
        PYSHC_HOLD(value);
        r = SHC_LIKELY(PyUnicode_CheckExact(key)) ? encode_str(e, key) : pyshc_encode_value(e, key);
        if (SHC_LIKELY(r == 0))
            r = pyshc_encode_value(e, value);
        PYSHC_LET_GO(key);
        PYSHC_LET_GO(value);
        done++;
    }
    return r == 0 && (done != n || PyDict_GET_SIZE(obj) != n) ? changed_size(obj) : r;
}

static int
encode_dict(pyshc_encoder_t *e, PyObject *obj)
{
    int r = pyshc_encode_once(e, obj);
    if (r != 0)
        return r;
    PYSHC_CRITICAL_BEGIN(obj);
    r = encode_dict_items(e, obj);
    PYSHC_CRITICAL_END();
    return r;
}

static int
encode_members(pyshc_encoder_t *e, PyObject *obj, uint8_t tag)
{
    Py_ssize_t n = PySet_GET_SIZE(obj), done = 0;
    int r = put_head(e, tag, (uint64_t)n);
    if (r != 0 || n == 0)
        return r;
    PyObject *item, *iterator = PyObject_GetIter(obj);
    if (iterator == NULL)
        return PYSHC_RAISED;
    while (r == 0 && (item = PyIter_Next(iterator)) != NULL) {
        r = pyshc_encode_value(e, item);
        Py_DECREF(item);
        done++;
    }
    Py_DECREF(iterator);
    if (r == 0 && PyErr_Occurred())
        return PYSHC_RAISED;
    return r == 0 && done != n ? changed_size(obj) : r;
}

static int
encode_set(pyshc_encoder_t *e, PyObject *obj)
{
    int r = pyshc_encode_once(e, obj);
    return r == 0 ? encode_members(e, obj, SHC_WIRE_SET) : r;
}

static int
encode_container(pyshc_encoder_t *e, PyObject *obj, PyTypeObject *type)
{
    if (e->depth == SHC_WIRE_DEPTH)
        return pyshc_encode_refuse(e, obj, WHY_DEEP);
    e->depth++;
    int r;
    if (type == &PyDict_Type)
        r = encode_dict(e, obj);
    else if (type == &PyTuple_Type)
        r = encode_tuple(e, obj);
    else if (type == &PyList_Type)
        r = encode_list(e, obj);
    else if (type == &PySet_Type)
        r = encode_set(e, obj);
    else
        r = encode_members(e, obj, SHC_WIRE_FROZENSET);
    e->depth--;
    return r;
}

int
pyshc_encode_inner(pyshc_encoder_t *e, uint8_t tag, PyObject *obj)
{
    int r = put_tag(e, tag);
    if (r != 0)
        return r;
    return PyUnicode_Check(obj) ? encode_unicode(e, obj) : encode_bytes(e, obj);
}

static int
encode_rare(pyshc_encoder_t *e, PyObject *obj, PyTypeObject *type)
{
    if (type == &PyByteArray_Type)
        return encode_bytearray(e, obj);
    if (type == &PyMemoryView_Type)
        return encode_memoryview(e, obj);
    if (type == &PyComplex_Type)
        return encode_complex(e, obj);
    if (strncmp(type->tp_name, "numpy.", 6) == 0)
        return pyshc_numpy_encode(e, obj);
    return pyshc_encode_refuse(e, obj, WHY_TYPE);
}

int
pyshc_encode_value(pyshc_encoder_t *e, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type)
        return encode_str(e, obj);
    if (type == &PyLong_Type)
        return encode_int(e, obj);
    if (type == &PyFloat_Type)
        return encode_float(e, obj);
    if (type == &PyBool_Type)
        return put_tag(e, obj == Py_True ? SHC_WIRE_TRUE : SHC_WIRE_FALSE);
    if (obj == Py_None)
        return put_tag(e, SHC_WIRE_NONE);
    if (type == &PyBytes_Type)
        return encode_bytes(e, obj);
    if (type == &PyDict_Type || type == &PyTuple_Type || type == &PyList_Type || type == &PySet_Type ||
        type == &PyFrozenSet_Type)
        return encode_container(e, obj, type);
    return encode_rare(e, obj, type);
}
