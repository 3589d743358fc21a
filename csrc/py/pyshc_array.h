/* An array message whose items are written in place: the head of the message is encoded first, the user fills the
 * rest. */
#ifndef PYSHC_ARRAY_H
#define PYSHC_ARRAY_H

#include "py/pyshc.h"

typedef struct pyshc_array_plan {
    pyshc_state_t *st;
    pyshc_dtype_entry_t type;
    PyObject *shape; /* tuple of ints */
    Py_ssize_t dimensions[SHC_WIRE_DIMENSIONS];
    int ndim;
    size_t nbytes; /* of the items */
} pyshc_array_plan_t;

/* Imports NumPy and understands shape (an int or a sequence of them) and dtype: 0 or PYSHC_RAISED. */
SHC_MUST_USE int pyshc_array_plan(pyshc_state_t *st, PyObject *shape, PyObject *dtype, pyshc_array_plan_t *out);
void pyshc_array_plan_clear(pyshc_array_plan_t *plan);

/* Bytes that the message needs wherever it lies. */
SHC_MUST_USE int pyshc_array_bound(const pyshc_array_plan_t *plan, size_t *bound);

/* Writes the head at dst, where `room` >= bound bytes are: where the items begin, the length of all, the tag. */
SHC_MUST_USE int pyshc_array_begin(const pyshc_array_plan_t *plan, uint8_t *dst, size_t room, size_t *offset,
                                   size_t *length, uint8_t *tag);

/* A writable array over what `exporter` exports. */
PyObject *pyshc_array_over(pyshc_state_t *st, PyObject *exporter, PyObject *shape, PyObject *dtype);

#endif
