/* What every file of the binding includes: Python, the module's state, and the helpers that all types share. */
#ifndef PYSHC_H
#define PYSHC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "atomic/shc_atomic.h"
#include "base/shc_status.h"
#include "py/pyshc_codec.h"
#include "py/pyshc_compat.h"

/* Returned beside the core's codes: a Python exception is set. */
#define PYSHC_RAISED INT32_MIN

typedef struct pyshc_handle pyshc_handle_t;

/* Exceptions, by the words that shc_status.def uses; created in shmcomm/_errors.py. */
#define PYSHC_EXCEPTIONS(X)                                                                                            \
    X(Error)                                                                                                           \
    X(Full)                                                                                                            \
    X(Empty)                                                                                                           \
    X(ShutDown)                                                                                                        \
    X(CorruptedError)                                                                                                  \
    X(LayoutError) X(MessageTooLargeError) X(LaggedError) X(BusyError) X(NotEncodableError) X(DecryptionError)

struct pyshc_state {
#define X(name) PyObject *name;
    PYSHC_EXCEPTIONS(X)
#undef X
    PyTypeObject *shared_object_type;
    PyTypeObject *buffer_type;
    PyTypeObject *ring_type;
    PyTypeObject *lease_type;
    PyTypeObject *reservation_type;
    pyshc_codec_state_t codec;
    pyshc_handle_t *handles; /* every open handle of this interpreter, for the end of the process */
    shc_a32_t handles_lock;
    uint64_t farewell_epoch; /* of the process whose end multiprocessing has been told to announce */
};

extern struct PyModuleDef pyshc_module;

static inline pyshc_state_t *
pyshc_state_of(PyObject *module)
{
    return (pyshc_state_t *)PyModule_GetState(module);
}

/* ---- errors ---- */

/* Sets the exception that a status stands for: "<what>: <sentence>". Returns NULL. -errno becomes OSError. */
PyObject *pyshc_raise(pyshc_state_t *st, int status, const char *format, ...);

/* Gives the exception that is set an attribute: what a caller needs in order to go on after a call that did a part of
 * its work. Takes the reference; with NULL, does nothing. */
void pyshc_error_note(const char *name, PyObject *value);

/* ---- arguments ---- */

/* Fills values[i] (borrowed, NULL if absent) for the names; `positional` of them may be given by position. Returns
 * false with TypeError set. */
bool pyshc_parse(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 const char *const *names, int count, int positional, int required, PyObject **values);

/* The same for a tuple and dict (constructors). */
bool pyshc_parse_tuple(const char *function, PyObject *args, PyObject *kwargs, const char *const *names, int count,
                       int positional, int required, PyObject **values);

/* Seconds (float) or None, as an absolute deadline in ns; SHC_NEVER for None. False: TypeError or ValueError set. */
bool pyshc_parse_timeout(PyObject *arg, uint64_t *deadline_ns);

/* An integer in [low, high]; false: TypeError or ValueError naming `what`. */
bool pyshc_parse_integer(PyObject *arg, const char *what, uint64_t low, uint64_t high, uint64_t *out);

/* A bool (any truth value); absent leaves *out. */
bool pyshc_parse_flag(PyObject *arg, bool *out);

/* ---- types ---- */

extern PyType_Spec pyshc_shared_object_spec;
extern PyType_Spec pyshc_buffer_spec;
extern PyType_Spec pyshc_ring_spec;
extern PyType_Spec pyshc_lease_spec;
extern PyType_Spec pyshc_reservation_spec;
extern PyMethodDef pyshc_tool_methods[];

#endif
