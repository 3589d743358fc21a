/* Arguments by hand: the generic parsers cost more than a whole send. */
#include "py/pyshc.h"

#include <math.h>

#include "os/shc_os.h"

static int
index_of(PyObject *key, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(key, names[i]) == 0)
            return i;
    }
    return -1;
}

static bool
put_keyword(const char *function, PyObject *key, PyObject *value, const char *const *names, int count,
            PyObject **values)
{
    int i = index_of(key, names, count);
    if (i < 0)
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, key);
    else if (values[i] != NULL)
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", function, key);
    else
        values[i] = value;
    return !PyErr_Occurred();
}

static bool
put_positional(const char *function, PyObject *const *args, Py_ssize_t nargs, int count, int positional,
               PyObject **values)
{
    for (int i = 0; i < count; i++)
        values[i] = i < nargs && i < positional ? args[i] : NULL;
    if (nargs <= positional)
        return true;
    if (positional == 0)
        PyErr_Format(PyExc_TypeError, "%s() takes no positional arguments (%zd given)", function, nargs);
    else
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional argument%s (%zd given)", function, positional,
                     positional == 1 ? "" : "s", nargs);
    return false;
}

static bool
check_required(const char *function, const char *const *names, int required, PyObject *const *values)
{
    for (int i = 0; i < required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", function, names[i]);
            return false;
        }
    }
    return true;
}

bool
pyshc_parse(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *const *names,
            int count, int positional, int required, PyObject **values)
{
    if (!put_positional(function, args, nargs, count, positional, values))
        return false;
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < keywords; k++) {
        if (!put_keyword(function, PyTuple_GET_ITEM(kwnames, k), args[nargs + k], names, count, values))
            return false;
    }
    return check_required(function, names, required, values);
}

bool
pyshc_parse_tuple(const char *function, PyObject *args, PyObject *kwargs, const char *const *names, int count,
                  int positional, int required, PyObject **values)
{
    PyObject *const *items = &PyTuple_GET_ITEM(args, 0);
    if (!put_positional(function, items, PyTuple_GET_SIZE(args), count, positional, values))
        return false;
    PyObject *key, *value;
    for (Py_ssize_t pos = 0; kwargs != NULL && PyDict_Next(kwargs, &pos, &key, &value);) {
        if (!put_keyword(function, key, value, names, count, values))
            return false;
    }
    return check_required(function, names, required, values);
}

/* An integer beyond all floats: infinite, with its sign. */
static double
huge_number(PyObject *arg)
{
    PyErr_Clear();
    PyObject *zero = PyLong_FromLong(0);
    int negative = zero != NULL ? PyObject_RichCompareBool(arg, zero, Py_LT) : -1;
    Py_XDECREF(zero);
    return negative > 0 ? -HUGE_VAL : HUGE_VAL;
}

bool
pyshc_parse_timeout(PyObject *arg, uint64_t *deadline_ns)
{
    *deadline_ns = SHC_NEVER;
    if (arg == NULL || arg == Py_None)
        return true;
    if (PyBool_Check(arg)) { /* queue.get() has `block` in this place */
        PyErr_SetString(PyExc_TypeError, "timeout must be seconds (a number) or None, not bool: 0 does not wait, None "
                                         "waits for ever");
        return false;
    }
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            seconds = huge_number(arg);
        else if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "timeout must be seconds (a number) or None, not %s", Py_TYPE(arg)->tp_name);
        if (PyErr_Occurred())
            return false;
    }
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "timeout must be a non-negative number of seconds or None, not %R", arg);
        return false;
    }
    if (seconds < 1e9) /* longer is for ever */
        *deadline_ns = seconds == 0 ? 0 : shc_os_now_ns() + (uint64_t)(seconds * 1e9);
    return true;
}

bool
pyshc_parse_integer(PyObject *arg, const char *what, uint64_t low, uint64_t high, uint64_t *out)
{
    PyObject *number = PyNumber_Index(arg);
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s must be an integer, not %s", what, Py_TYPE(arg)->tp_name);
        return false;
    }
    uint64_t value = PyLong_AsUnsignedLongLong(number);
    bool overflow = value == UINT64_MAX && PyErr_Occurred();
    if (overflow)
        PyErr_Clear(); /* negative or huge: said below in the caller's terms */
    if (overflow || value < low || value > high) {
        PyErr_Format(PyExc_ValueError, "%s must be between %llu and %llu, not %S", what, (unsigned long long)low,
                     (unsigned long long)high, number);
        Py_DECREF(number);
        return false;
    }
    Py_DECREF(number);
    *out = value;
    return true;
}

const char *
pyshc_mode_text(uint32_t mode, char out[PYSHC_MODE_TEXT])
{
    PyOS_snprintf(out, PYSHC_MODE_TEXT, "0o%03o", (unsigned)(mode & 07777));
    return out;
}

bool
pyshc_parse_flag(PyObject *arg, bool *out)
{
    if (arg == NULL)
        return true;
    int truth = PyObject_IsTrue(arg);
    if (truth >= 0)
        *out = truth;
    return truth >= 0;
}
