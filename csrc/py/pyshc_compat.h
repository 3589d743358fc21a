/* What differs between the versions of CPython and its builds: the only file that asks for PY_VERSION_HEX, apart
 * from module slots. */
#ifndef PYSHC_COMPAT_H
#define PYSHC_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "atomic/shc_atomic.h"

/* ---- free-threaded builds ---- */

/* Keeps other threads from changing a list, dict, set or bytearray. A section may be suspended when an inner one has
 * to wait, so what is taken out of the container is held by a reference of its own. */
#ifdef Py_GIL_DISABLED
#define PYSHC_FREE_THREADED 1
#define PYSHC_CRITICAL_BEGIN(obj) Py_BEGIN_CRITICAL_SECTION(obj)
#define PYSHC_CRITICAL_END() Py_END_CRITICAL_SECTION()
#define PYSHC_HOLD(obj) Py_INCREF(obj)
#define PYSHC_LET_GO(obj) Py_DECREF(obj)
typedef PyMutex pyshc_guard_t;
#define PYSHC_GUARD_LOCK(guard) PyMutex_Lock(guard)
#define PYSHC_GUARD_UNLOCK(guard) PyMutex_Unlock(guard)
#else
#define PYSHC_FREE_THREADED 0
#define PYSHC_CRITICAL_BEGIN(obj) {
#define PYSHC_CRITICAL_END() }
#define PYSHC_HOLD(obj) ((void)(obj))
#define PYSHC_LET_GO(obj) ((void)(obj))
typedef char pyshc_guard_t; /* the interpreter lock does it */
#define PYSHC_GUARD_LOCK(guard) ((void)(guard))
#define PYSHC_GUARD_UNLOCK(guard) ((void)(guard))
#endif

/* A count of threads that are inside something, and the mark that nobody may enter any more. Who counts itself in and
 * then looks at the mark, and who sets the mark and then looks at the count, must not both miss the other; and who sees
 * the count go to 0 sees what the others did inside. With an interpreter lock nobody comes in between anyway. */
static SHC_ALWAYS_INLINE void
pyshc_count_up(shc_a32_t *count)
{
    if (PYSHC_FREE_THREADED)
        (void)shc_a32_fetch_add_seq_cst(count, 1); /* AR1 */
    else
        shc_a32_store_relaxed(count, shc_a32_load_relaxed(count) + 1);
}

/* Returns what it was. A count of 0 stays: a thread that was forked while it was inside finds it so. */
static SHC_ALWAYS_INLINE uint32_t
pyshc_count_down(shc_a32_t *count)
{
    uint32_t before = shc_a32_load_relaxed(count);
    if (PYSHC_FREE_THREADED) {
        while (before != 0 && !shc_a32_cas_seq_cst(count, &before, before - 1)) /* AR1 */
            continue;
    } else if (SHC_LIKELY(before != 0)) {
        shc_a32_store_relaxed(count, before - 1);
    }
    return before;
}

static SHC_ALWAYS_INLINE uint32_t
pyshc_mark_load(const shc_a32_t *mark)
{
    return PYSHC_FREE_THREADED ? shc_a32_load_seq_cst(mark) : shc_a32_load_relaxed(mark);
}

/* What a dict has under a name, as a reference of its own; NULL, without an exception, if it has nothing. */
static inline PyObject *
pyshc_dict_get(PyObject *dict, const char *name)
{
    PyObject *value;
#if PY_VERSION_HEX >= 0x030D0000
    if (PyDict_GetItemStringRef(dict, name, &value) < 0)
        PyErr_Clear();
#else
    value = Py_XNewRef(PyDict_GetItemString(dict, name));
#endif
    return value;
}

/* ---- collector ---- */

/* Up to 3.11 an allocation may run the collector, and so finalisers, which are anybody's code; from 3.12 on it only
 * asks for a run. */
#if PY_VERSION_HEX < 0x030C0000
static inline int
pyshc_gc_pause(void)
{
    return PyGC_Disable();
}

static inline void
pyshc_gc_resume(int was_enabled)
{
    if (was_enabled)
        PyGC_Enable();
}
#else
static inline int
pyshc_gc_pause(void)
{
    return 0;
}

static inline void
pyshc_gc_resume(int Py_UNUSED(was_enabled))
{
}
#endif

/* ---- exceptions ---- */

/* Takes the exception that is set, as an object; NULL if there is none. */
static inline PyObject *
pyshc_error_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL)
        PyException_SetTraceback(value, trace);
    Py_DECREF(type);
    Py_XDECREF(trace);
    return value;
#endif
}

/* Sets it again; takes the reference. */
static inline void
pyshc_error_restore(PyObject *error)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* The exception that is set becomes the cause of the one that `raise` sets. */
#define PYSHC_RAISE_FROM_CURRENT(raise)                                                                                \
    do {                                                                                                               \
        PyObject *pyshc_cause = pyshc_error_take();                                                                    \
        (void)(raise);                                                                                                 \
        PyObject *pyshc_error = pyshc_error_take();                                                                    \
        if (pyshc_cause != NULL && pyshc_error != NULL) {                                                              \
            PyException_SetContext(pyshc_error, Py_NewRef(pyshc_cause));                                               \
            PyException_SetCause(pyshc_error, pyshc_cause);                                                            \
        } else {                                                                                                       \
            Py_XDECREF(pyshc_cause);                                                                                   \
        }                                                                                                              \
        pyshc_error_restore(pyshc_error);                                                                              \
    } while (0)

/* ---- int ---- */

/* The value of an exact int of one digit, without a call; false: it has more. */
static SHC_ALWAYS_INLINE bool
pyshc_long_is_compact(PyObject *obj, int64_t *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)obj))
        return false;
    *value = PyUnstable_Long_CompactValue((PyLongObject *)obj);
    return true;
#else
    Py_ssize_t size = Py_SIZE(obj);
    if (size < -1 || size > 1)
        return false;
    *value = size == 0 ? 0 : (int64_t)size * ((PyLongObject *)obj)->ob_digit[0];
    return true;
#endif
}

/* Bytes that the two's complement of an exact int takes. */
static inline size_t
pyshc_long_size(PyObject *obj)
{
#if PY_VERSION_HEX >= 0x030D0000
    return (size_t)PyLong_AsNativeBytes(obj, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_NumBits(obj) / 8 + 1;
#endif
}

/* Its two's complement, little-endian, in `size` bytes: 0, or -1 with an exception set. */
static inline int
pyshc_long_write(PyObject *obj, uint8_t *dst, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(obj, dst, (Py_ssize_t)size, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)obj, dst, size, 1, 1);
#endif
}

static inline PyObject *
pyshc_long_read(const uint8_t *src, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromNativeBytes(src, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(src, size, 1, 1);
#endif
}

/* ---- weak references ---- */

/* What a weak reference refers to, as a new reference; NULL, without an exception, if that is gone. */
static inline PyObject *
pyshc_weakref_get(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *obj;
    return PyWeakref_GetRef(reference, &obj) > 0 ? obj : NULL;
#else
    PyObject *obj = PyWeakref_GetObject(reference);
    return obj != Py_None ? Py_XNewRef(obj) : NULL;
#endif
}

/* ---- members ---- */

#if PY_VERSION_HEX >= 0x030C0000
#define PYSHC_T_PYSSIZET Py_T_PYSSIZET
#define PYSHC_READONLY Py_READONLY
#else
#include <structmember.h>
#define PYSHC_T_PYSSIZET T_PYSSIZET
#define PYSHC_READONLY READONLY
#endif

/* ---- module slots ---- */

#if PY_VERSION_HEX >= 0x030C0000
#define PYSHC_MULTIPLE_INTERPRETERS                                                                                    \
    {                                                                                                                  \
        Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED                                             \
    }
#endif
#if PY_VERSION_HEX >= 0x030D0000
#define PYSHC_NO_GIL                                                                                                   \
    {                                                                                                                  \
        Py_mod_gil, Py_MOD_GIL_NOT_USED                                                                                \
    }
#endif

#endif
