/* Status -> exception, from the one table. */
#include "py/pyshc.h"

#include <errno.h>
#include <string.h>

static PyObject *
exception_for(pyshc_state_t *st, int status)
{
    /* The words of shc_status.def, as expressions. */
    PyObject *const Full = st->Full, *const Empty = st->Empty, *const ShutDown = st->ShutDown;
    PyObject *const CorruptedError = st->CorruptedError, *const LayoutError = st->LayoutError;
    PyObject *const BusyError = st->BusyError, *const MessageTooLargeError = st->MessageTooLargeError;
    PyObject *const TimeoutError = PyExc_TimeoutError, *const FileNotFoundError = PyExc_FileNotFoundError;
    PyObject *const PermissionError = PyExc_PermissionError, *const OSError = PyExc_OSError;
    PyObject *const ValueError = PyExc_ValueError, *const BufferError = PyExc_BufferError;
    PyObject *const None = PyExc_SystemError; /* an outcome that must not reach the user */
    switch (status) {
#define SHC_STATUS(name, value, exception, sentence)                                                                   \
    case name:                                                                                                         \
        return exception;
#include "base/shc_status.def"
#undef SHC_STATUS
    default:
        return PyExc_SystemError;
    }
}

/* The errno that our own codes carry where their exception is an OSError. */
static int
errno_for(int status)
{
    switch (status) {
    case SHC_GONE:
        return ENOENT;
    case SHC_E_PARTICIPANTS:
        return EUSERS;
    case SHC_E_FOREIGN_USER:
    case SHC_E_FOREIGN_PIDNS:
        return EACCES;
    default:
        return status < 0 && status > -4096 ? -status : 0;
    }
}

static const char *
sentence_for(int status)
{
    const char *sentence = shc_status_sentence(status);
    return sentence != NULL ? sentence : strerror(errno_for(status));
}

PyObject *
pyshc_raise(pyshc_state_t *st, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *what = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (what == NULL)
        return NULL;
    int number = errno_for(status);
    if (number == 0) {
        PyErr_Format(exception_for(st, status), "%U: %s", what, sentence_for(status));
    } else {
        PyObject *text = PyUnicode_FromFormat("%U: %s", what, sentence_for(status));
        PyObject *error = text != NULL ? PyObject_CallFunction(PyExc_OSError, "iO", number, text) : NULL;
        if (error != NULL)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(text);
        Py_XDECREF(error);
    }
    Py_DECREF(what);
    return NULL;
}

void
pyshc_error_note(const char *name, PyObject *value)
{
    if (value == NULL)
        return;
    PyObject *error = pyshc_error_take();
    if (PyObject_SetAttrString(error, name, value) < 0)
        PyErr_Clear(); /* an exception without attributes: then it is still the one to tell */
    Py_DECREF(value);
    pyshc_error_restore(error);
}
