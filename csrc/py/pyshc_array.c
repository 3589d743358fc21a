#include "py/pyshc_array.h"

#include "base/shc_math.h"
#include "py/pyshc_codec_internal.h"

/* The shape as a tuple of ints that are not negative. */
static PyObject *
shape_tuple(PyObject *shape)
{
    PyObject *sizes = PyIndex_Check(shape) ? PyTuple_Pack(1, shape) : PySequence_Tuple(shape);
    if (sizes != NULL && PyTuple_GET_SIZE(sizes) > SHC_WIRE_DIMENSIONS) {
        PyErr_Format(PyExc_ValueError, "shape has %zd dimensions; at most %d can be sent", PyTuple_GET_SIZE(sizes),
                     SHC_WIRE_DIMENSIONS);
        Py_CLEAR(sizes);
    }
    return sizes;
}

static bool
read_dimensions(pyshc_array_plan_t *plan)
{
    uint64_t count = 1, size, nbytes;
    plan->ndim = (int)PyTuple_GET_SIZE(plan->shape);
    for (int i = 0; i < plan->ndim; i++) {
        if (!pyshc_parse_integer(PyTuple_GET_ITEM(plan->shape, i), "a dimension of shape", 0, PY_SSIZE_T_MAX, &size))
            return false;
        plan->dimensions[i] = (Py_ssize_t)size;
        if (!shc_mul_checked(count, size, &count))
            count = UINT64_MAX / 2; /* refused below unless a later dimension is 0 */
    }
    if (shc_mul_checked(count, plan->type.item_size, &nbytes) && nbytes <= PY_SSIZE_T_MAX &&
        pyshc_dtype_fits(&plan->type, nbytes)) {
        plan->nbytes = (size_t)nbytes;
        return true;
    }
    if (plan->type.item_size == 0)
        PyErr_Format(PyExc_ValueError, "items of dtype %R have no size: say how many bytes each has, as in 'S8'",
                     plan->type.dtype);
    else
        PyErr_Format(PyExc_ValueError, "an array of shape %R and dtype %R is larger than memory", plan->shape,
                     plan->type.dtype);
    return false;
}

static int
describe_dtype(pyshc_state_t *st, PyObject *dtype, pyshc_dtype_entry_t *out)
{
    PyObject *known = PyObject_CallOneArg(st->codec.dtype, dtype);
    if (known == NULL)
        return PYSHC_RAISED;
    int r = pyshc_dtype_describe(st, known, out);
    if (r == PYSHC_NOT_NATIVE)
        PyErr_Format(st->NotEncodableError,
                     "an array of dtype %R cannot be written in place: it holds Python objects, or is none of NumPy's "
                     "plain and structured ones",
                     known);
    Py_DECREF(known);
    return r == 0 ? 0 : PYSHC_RAISED;
}

int
pyshc_array_plan(pyshc_state_t *st, PyObject *shape, PyObject *dtype, pyshc_array_plan_t *out)
{
    if (pyshc_numpy_import(st, "this makes a NumPy array") != 0 || describe_dtype(st, dtype, &out->type) != 0)
        return PYSHC_RAISED;
    out->st = st;
    out->shape = shape_tuple(shape);
    if (out->shape != NULL && read_dimensions(out))
        return 0;
    pyshc_array_plan_clear(out);
    return PYSHC_RAISED;
}

void
pyshc_array_plan_clear(pyshc_array_plan_t *plan)
{
    pyshc_dtype_clear(&plan->type);
    Py_CLEAR(plan->shape);
}

/* Everything up to the items, and room for them. */
static int
encode_head(const pyshc_array_plan_t *plan, pyshc_encoder_t *e, uint8_t **items)
{
    Py_buffer view = {.ndim = plan->ndim, .shape = (Py_ssize_t *)(uintptr_t)plan->dimensions};
    PyObject *descriptor = plan->type.descriptor;
    uint8_t *at = pyshc_encode_take(e, 2);
    if (at == NULL)
        return PYSHC_NEED_ROOM;
    at[0] = SHC_WIRE_ARRAY;
    at[1] = 0;
    int r = pyshc_encode_text(e, PyBytes_AS_STRING(descriptor), (size_t)PyBytes_GET_SIZE(descriptor));
    if (r == 0)
        r = pyshc_encode_shape(e, &view);
    return r == 0 ? pyshc_encode_aligned(e, plan->nbytes, items) : r;
}

int
pyshc_array_bound(const pyshc_array_plan_t *plan, size_t *bound)
{
    pyshc_encoder_t e;
    uint8_t *items;
    pyshc_encode_begin(&e, plan->st, NULL, 0, UINT64_MAX);
    int r = encode_head(plan, &e, &items);
    *bound = (size_t)e.counted;
    pyshc_encode_end(&e);
    return r;
}

int
pyshc_array_begin(const pyshc_array_plan_t *plan, uint8_t *dst, size_t room, size_t *offset, size_t *length,
                  uint8_t *tag)
{
    pyshc_encoder_t e;
    uint8_t *items;
    pyshc_encode_begin(&e, plan->st, dst, room, UINT64_MAX);
    int r = encode_head(plan, &e, &items);
    if (r == 0) {
        *offset = (size_t)(items - dst);
        *length = *offset + plan->nbytes;
        *tag = SHC_WIRE_VALUE;
    }
    pyshc_encode_end(&e);
    return r;
}

PyObject *
pyshc_array_over(pyshc_state_t *st, PyObject *exporter, PyObject *shape, PyObject *dtype)
{
    return PyObject_CallFunctionObjArgs(st->codec.ndarray, shape, dtype, exporter, NULL);
}
