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

#define PYSHC_SPARE_BLOCKS 16

struct pyshc_state {
#define X(name) PyObject *name;
    PYSHC_EXCEPTIONS(X)
#undef X
    PyTypeObject *shared_object_type;
    PyTypeObject *buffer_type;
    PyTypeObject *ring_type;
    PyTypeObject *lease_type;
    PyTypeObject *reservation_type;
    PyTypeObject *pool_type;
    PyTypeObject *buffer_pool_type;
    PyTypeObject *block_type;
    PyObject *spare_blocks[PYSHC_SPARE_BLOCKS]; /* memory of Blocks that are gone, for the next ones */
    uint32_t n_spare_blocks;
    PyTypeObject *objects_type;
    PyTypeObject *slot_memory_type;
    PyTypeObject *borrow_type;
    pyshc_codec_state_t codec;
    pyshc_handle_t *handles; /* every open handle of this interpreter, for the end of the process */
    pyshc_guard_t handles_guard;
    PyObject *breather;       /* a Python function that does nothing; NULL with an interpreter lock */
    shc_a64_t farewell_epoch; /* of the process whose end multiprocessing has been told to announce */
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

/* "<what>: <sentence>; <advice>"; advice may be NULL. */
void pyshc_raise_advised(pyshc_state_t *st, int status, PyObject *what, PyObject *advice);

/* The OSError, or subclass, of an errno with a text of ours. Steals the text; NULL: its exception is set. */
void pyshc_raise_os_error(int number, PyObject *text);

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

/* "0o600", which Python's formats cannot write before 3.12. */
#define PYSHC_MODE_TEXT 8
const char *pyshc_mode_text(uint32_t mode, char out[PYSHC_MODE_TEXT]);

/* A bool (any truth value); absent leaves *out. */
bool pyshc_parse_flag(PyObject *arg, bool *out);

/* ---- types ---- */

extern PyType_Spec pyshc_shared_object_spec;
extern PyType_Spec pyshc_buffer_spec;
extern PyType_Spec pyshc_ring_spec;
extern PyType_Spec pyshc_lease_spec;
extern PyType_Spec pyshc_reservation_spec;
extern PyType_Spec pyshc_pool_spec;
extern PyType_Spec pyshc_buffer_pool_spec;
extern PyType_Spec pyshc_block_spec;
extern PyType_Spec pyshc_objects_spec;
extern PyType_Spec pyshc_slot_memory_spec;
extern PyType_Spec pyshc_borrow_spec;
extern PyMethodDef pyshc_tool_methods[];

/* Frees what is kept for the next Blocks. */
void pyshc_block_free_spare(pyshc_state_t *st);
/* Takes back what was posted for a message that will not be sent. `handle` is what stands in the pickle. */
void pyshc_block_unpost(pyshc_state_t *st, PyObject *handle);

#endif
