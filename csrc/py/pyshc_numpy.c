/* NumPy's arrays and scalars. NumPy's own headers are not needed: memory is reached through the buffer protocol,
 * which NumPy serves without running Python code as long as no format is asked for. */
#include "py/pyshc_codec_internal.h"

#define WHY_NOT_EXACT "of NumPy's objects only arrays and scalars travel natively"
#define WHY_ITEM "its items have no bytes, or it has no items and one would be very large"
#define WHY_DTYPE "its dtype holds Python objects, or is none of NumPy's plain and structured ones"

/* ---- finding NumPy ---- */

static const struct {
    const char *name;
    size_t offset;
} wanted[] = {
    {"ndarray", offsetof(pyshc_codec_state_t, ndarray)}, {"generic", offsetof(pyshc_codec_state_t, generic)},
    {"dtype", offsetof(pyshc_codec_state_t, dtype)},     {"str_", offsetof(pyshc_codec_state_t, str_)},
    {"bytes_", offsetof(pyshc_codec_state_t, bytes_)},   {"void", offsetof(pyshc_codec_state_t, void_)},
};

static PyObject **
place_of(pyshc_codec_state_t *cs, size_t i)
{
    return (PyObject **)(void *)((char *)cs + wanted[i].offset);
}

/* All of the names, or none: the module may be half imported in another thread. */
static bool
adopt(pyshc_state_t *st, PyObject *module)
{
    PyObject *found[SHC_ARRAY_SIZE(wanted)];
    bool complete = true;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(wanted); i++) {
        found[i] = pyshc_dict_get(PyModule_GetDict(module), wanted[i].name);
        complete = complete && found[i] != NULL && PyType_Check(found[i]);
    }
    for (size_t i = 0; i < SHC_ARRAY_SIZE(wanted); i++) {
        if (complete)
            *place_of(&st->codec, i) = found[i];
        else
            Py_XDECREF(found[i]);
    }
    return complete;
}

bool
pyshc_numpy_find(pyshc_state_t *st)
{
    PYSHC_GUARD_LOCK(&st->codec.guard);
    bool known = st->codec.void_ != NULL;
    PYSHC_GUARD_UNLOCK(&st->codec.guard);
    if (SHC_LIKELY(known))
        return true;
    PyObject *module = pyshc_dict_get(PyImport_GetModuleDict(), "numpy");
    bool found = false;
    if (module != NULL && PyModule_Check(module)) {
        PYSHC_GUARD_LOCK(&st->codec.guard);
        found = st->codec.void_ != NULL || adopt(st, module);
        PYSHC_GUARD_UNLOCK(&st->codec.guard);
    }
    Py_XDECREF(module);
    return found;
}

int
pyshc_numpy_import(pyshc_state_t *st, const char *what)
{
    if (SHC_LIKELY(pyshc_numpy_find(st)))
        return 0;
    PyObject *module = PyImport_ImportModule("numpy");
    if (module == NULL && PyErr_ExceptionMatches(PyExc_ModuleNotFoundError))
        PYSHC_RAISE_FROM_CURRENT(
            PyErr_Format(PyExc_ImportError, "%s, and NumPy is not installed: pip install 'shmcomm[numpy]'", what));
    if (module == NULL)
        return PYSHC_RAISED;
    Py_DECREF(module);
    if (pyshc_numpy_find(st))
        return 0;
    PyErr_SetString(PyExc_ImportError,
                    "the module numpy in sys.modules is not NumPy: it has no ndarray, dtype, generic and void");
    return PYSHC_RAISED;
}

/* ---- sending an array ---- */

typedef struct walk {
    const Py_ssize_t *shape, *strides;
    int ndim; /* dimensions left to be walked; below them lies a block that is one piece */
    size_t block;
} walk_t;

static uint8_t *
copy_row(uint8_t *dst, const char *src, Py_ssize_t count, Py_ssize_t stride, size_t block)
{
#define COPY_BLOCKS(n)                                                                                                 \
    for (Py_ssize_t i = 0; i < count; i++, src += stride, dst += (n))                                                  \
    memcpy(dst, src, (n))
    switch (block) {
    case 1:
        COPY_BLOCKS(1);
        break;
    case 2:
        COPY_BLOCKS(2);
        break;
    case 4:
        COPY_BLOCKS(4);
        break;
    case 8:
        COPY_BLOCKS(8);
        break;
    case 16:
        COPY_BLOCKS(16);
        break;
    default:
        COPY_BLOCKS(block);
        break;
    }
#undef COPY_BLOCKS
    return dst;
}

static uint8_t *
copy_strided(uint8_t *dst, const char *src, const walk_t *w, int dim)
{
    if (dim + 1 >= w->ndim)
        return copy_row(dst, src, w->ndim > 0 ? w->shape[dim] : 1, w->ndim > 0 ? w->strides[dim] : 0, w->block);
    for (Py_ssize_t i = 0; i < w->shape[dim]; i++, src += w->strides[dim])
        dst = copy_strided(dst, src, w, dim + 1);
    return dst;
}

/* In C order, whatever the strides are. */
static void
copy_in_order(uint8_t *dst, const Py_buffer *view)
{
    walk_t w = {view->shape, view->strides, view->ndim, (size_t)view->itemsize};
    while (w.ndim > 0 && w.strides[w.ndim - 1] == (Py_ssize_t)w.block) {
        w.block *= (size_t)w.shape[w.ndim - 1];
        w.ndim--;
    }
    (void)copy_strided(dst, view->buf, &w, 0);
}

static int
write_array(pyshc_encoder_t *e, const Py_buffer *view, const pyshc_dtype_entry_t *type)
{
    bool straight = PyBuffer_IsContiguous(view, 'C');
    bool fortran = !straight && PyBuffer_IsContiguous(view, 'F');
    uint8_t *dst, *at = pyshc_encode_take(e, 2);
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    at[0] = SHC_WIRE_ARRAY;
    at[1] = fortran ? SHC_WIRE_FORTRAN : 0;
    int r = pyshc_encode_text(e, PyBytes_AS_STRING(type->descriptor), (size_t)PyBytes_GET_SIZE(type->descriptor));
    if (r == 0)
        r = pyshc_encode_shape(e, view);
    if (r == 0)
        r = pyshc_encode_aligned(e, (size_t)view->len, &dst);
    if (r != 0 || dst == NULL || view->len == 0)
        return r;
    if (straight || fortran)
        memcpy(dst, view->buf, (size_t)view->len);
    else
        copy_in_order(dst, view);
    return 0;
}

static int
encode_array_as(pyshc_encoder_t *e, PyObject *obj, const pyshc_dtype_entry_t *type)
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_STRIDES) != 0) {
        PyErr_Clear();
        return pyshc_encode_refuse(e, obj, WHY_DTYPE);
    }
    int r;
    if ((uint64_t)view.itemsize != type->item_size)
        r = pyshc_encode_refuse(e, obj, WHY_DTYPE);
    else if (!pyshc_dtype_fits(type, (uint64_t)view.len))
        r = pyshc_encode_refuse(e, obj, WHY_ITEM);
    else
        r = write_array(e, &view, type);
    PyBuffer_Release(&view);
    return r;
}

static int
encode_array(pyshc_encoder_t *e, PyObject *obj)
{
    pyshc_dtype_entry_t type;
    int r = pyshc_encode_once(e, obj);
    if (r != 0)
        return r;
    PyObject *dtype = PyObject_GetAttr(obj, e->st->codec.names.n_dtype);
    if (dtype == NULL)
        return PYSHC_RAISED;
    r = pyshc_dtype_describe(e->st, dtype, &type);
    Py_DECREF(dtype);
    if (r != 0)
        return r == PYSHC_NOT_NATIVE ? pyshc_encode_refuse(e, obj, WHY_DTYPE) : r;
    r = encode_array_as(e, obj, &type);
    pyshc_dtype_clear(&type);
    return r;
}

/* ---- sending a scalar ---- */

static int
write_scalar(pyshc_encoder_t *e, const Py_buffer *view, const pyshc_dtype_entry_t *type)
{
    uint8_t *at = pyshc_encode_take(e, 1);
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    *at = SHC_WIRE_SCALAR;
    int r = pyshc_encode_text(e, PyBytes_AS_STRING(type->descriptor), (size_t)PyBytes_GET_SIZE(type->descriptor));
    return r == 0 ? pyshc_encode_data(e, view->buf, (size_t)view->len) : r;
}

static int
encode_scalar_as(pyshc_encoder_t *e, PyObject *obj, const pyshc_dtype_entry_t *type)
{
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_SIMPLE) != 0) {
        PyErr_Clear();
        return pyshc_encode_refuse(e, obj, WHY_DTYPE);
    }
    int r;
    if ((uint64_t)view.len != type->item_size)
        r = pyshc_encode_refuse(e, obj, WHY_DTYPE);
    else if (!pyshc_dtype_fits(type, 1))
        r = pyshc_encode_refuse(e, obj, WHY_ITEM);
    else
        r = write_scalar(e, &view, type);
    PyBuffer_Release(&view);
    return r;
}

static int
encode_scalar(pyshc_encoder_t *e, PyObject *obj)
{
    pyshc_dtype_entry_t type;
    PyObject *dtype = PyObject_GetAttr(obj, e->st->codec.names.n_dtype);
    if (dtype == NULL)
        return PYSHC_RAISED;
    PyObject *scalar_type = PyObject_GetAttr(dtype, e->st->codec.names.n_type);
    int r = PYSHC_NOT_NATIVE;
    if (scalar_type == NULL)
        r = PYSHC_RAISED;
    else if (scalar_type == (PyObject *)Py_TYPE(obj))
        r = pyshc_dtype_describe(e->st, dtype, &type);
    Py_XDECREF(scalar_type);
    Py_DECREF(dtype);
    if (r != 0)
        return r == PYSHC_NOT_NATIVE ? pyshc_encode_refuse(e, obj, WHY_DTYPE) : r;
    r = encode_scalar_as(e, obj, &type);
    pyshc_dtype_clear(&type);
    return r;
}

/* np.void is a window on memory that may be shared and written to: like an array, it must not occur twice. */
static int
encode_void(pyshc_encoder_t *e, PyObject *obj)
{
    int r = pyshc_encode_once(e, obj);
    return r == 0 ? encode_scalar(e, obj) : r;
}

int
pyshc_numpy_encode(pyshc_encoder_t *e, PyObject *obj)
{
    pyshc_codec_state_t *cs = &e->st->codec;
    PyObject *type = (PyObject *)Py_TYPE(obj);
    if (!pyshc_numpy_find(e->st))
        return pyshc_encode_refuse(e, obj, WHY_NOT_EXACT);
    if (type == cs->ndarray)
        return encode_array(e, obj);
    if (type == cs->str_)
        return pyshc_encode_inner(e, SHC_WIRE_NUMPY_STR, obj);
    if (type == cs->bytes_)
        return pyshc_encode_inner(e, SHC_WIRE_NUMPY_BYTES, obj);
    if (type == cs->void_)
        return encode_void(e, obj);
    if (PyType_IsSubtype((PyTypeObject *)type, (PyTypeObject *)cs->generic))
        return encode_scalar(e, obj);
    return pyshc_encode_refuse(e, obj, WHY_NOT_EXACT);
}

/* ---- receiving ---- */

/* ndarray(shape, dtype, buffer, offset, strides, order); the last three are mostly what NumPy takes anyway, and making
 * objects of them costs as much as the array. */
static PyObject *
make_array(pyshc_state_t *st, PyObject *shape, PyObject *dtype, PyObject *buffer, bool fortran)
{
    if (SHC_LIKELY(!fortran))
        return PyObject_CallFunctionObjArgs(st->codec.ndarray, shape, dtype, buffer, NULL);
    return PyObject_CallFunction(st->codec.ndarray, "OOOiOs", shape, dtype, buffer, 0, Py_None, "F");
}

/* Copies into an array that nobody else has. */
static bool
fill_array(PyObject *array, const uint8_t *src, uint64_t length)
{
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_STRIDES | PyBUF_WRITABLE) != 0)
        return false;
    bool fits = (uint64_t)view.len == length;
    if (fits && length > 0)
        shc_racy_copy(view.buf, src, (size_t)length);
    else if (!fits)
        PyErr_SetString(PyExc_SystemError, "NumPy made an array of another size than was asked for");
    PyBuffer_Release(&view);
    return fits;
}

static PyObject *
copied_array(pyshc_decoder_t *d, PyObject *shape, PyObject *dtype, const uint8_t *src, uint64_t length, bool fortran)
{
    PyObject *array = make_array(d->st, shape, dtype, Py_None, fortran);
    if (array != NULL && !fill_array(array, src, length))
        Py_CLEAR(array);
    return array;
}

static PyObject *
array_in_place(pyshc_decoder_t *d, PyObject *shape, PyObject *dtype, const uint8_t *src, uint64_t length, bool fortran)
{
    PyObject *window = pyshc_decode_window(d, src, (size_t)length);
    PyObject *array = window != NULL ? make_array(d->st, shape, dtype, window, fortran) : NULL;
    Py_XDECREF(window);
    return array;
}

static PyObject *
read_array(pyshc_decoder_t *d, const pyshc_dtype_entry_t *type, bool fortran)
{
    uint64_t shape[SHC_WIRE_DIMENSIONS], count, length;
    unsigned ndim;
    const uint8_t *src;
    if (!pyshc_decode_shape(d, shape, &ndim, &count))
        return NULL;
    if (!pyshc_dtype_fits(type, count) || !shc_mul_checked(count, type->item_size, &length) ||
        !shc_wire_read_pad(&d->in) || !shc_wire_read_bytes(&d->in, length, &src))
        return pyshc_decode_corrupt(d, "an array claims more data than there are");
    PyObject *sizes = pyshc_decode_shape_tuple(shape, ndim);
    if (sizes == NULL)
        return NULL;
    bool in_place = pyshc_decode_in_place(d) && length > 0;
    PyObject *array = in_place ? array_in_place(d, sizes, type->dtype, src, length, fortran)
                               : copied_array(d, sizes, type->dtype, src, length, fortran);
    Py_DECREF(sizes);
    return array != NULL ? array : pyshc_decode_blame(d, "an array has a shape that NumPy refuses");
}

static PyObject *
decode_array(pyshc_decoder_t *d)
{
    pyshc_dtype_entry_t type;
    uint8_t flags;
    if (!shc_wire_read_u8(&d->in, &flags) || flags > SHC_WIRE_FORTRAN)
        return pyshc_decode_corrupt(d, "an array has flags that are not known here");
    if (!pyshc_dtype_parse(d, &type))
        return NULL;
    PyObject *array = read_array(d, &type, flags == SHC_WIRE_FORTRAN);
    pyshc_dtype_clear(&type);
    return array;
}

static PyObject *
read_scalar(pyshc_decoder_t *d, const pyshc_dtype_entry_t *type)
{
    const uint8_t *src;
    if (!pyshc_dtype_fits(type, 1) || !shc_wire_read_bytes(&d->in, type->item_size, &src))
        return pyshc_decode_corrupt(d, "a NumPy scalar claims more data than there are");
    PyObject *empty = d->st->codec.empty_tuple;
    PyObject *array = copied_array(d, empty, type->dtype, src, type->item_size, false);
    PyObject *scalar = array != NULL ? PyObject_GetItem(array, empty) : NULL;
    Py_XDECREF(array);
    return scalar != NULL ? scalar : pyshc_decode_blame(d, "a NumPy scalar cannot be made");
}

static PyObject *
decode_scalar(pyshc_decoder_t *d)
{
    pyshc_dtype_entry_t type;
    if (!pyshc_dtype_parse(d, &type))
        return NULL;
    PyObject *scalar = read_scalar(d, &type);
    pyshc_dtype_clear(&type);
    return scalar;
}

/* np.str_ or np.bytes_ of the plain value that follows. */
static PyObject *
decode_subclass(pyshc_decoder_t *d, PyObject *type, PyTypeObject *base)
{
    PyObject *plain = pyshc_decode_inner(d, base);
    if (plain == NULL)
        return NULL;
    PyObject *value = PyObject_CallOneArg(type, plain);
    Py_DECREF(plain);
    return value != NULL ? value : pyshc_decode_blame(d, "a NumPy text cannot be made");
}

PyObject *
pyshc_numpy_decode(pyshc_decoder_t *d, uint8_t tag)
{
    pyshc_codec_state_t *cs = &d->st->codec;
    if (!pyshc_numpy_find(d->st)) {
        d->need_numpy = true;
        return NULL;
    }
    switch (tag) {
    case SHC_WIRE_ARRAY:
        return decode_array(d);
    case SHC_WIRE_SCALAR:
        return decode_scalar(d);
    case SHC_WIRE_NUMPY_STR:
        return decode_subclass(d, cs->str_, &PyUnicode_Type);
    default:
        return decode_subclass(d, cs->bytes_, &PyBytes_Type);
    }
}
