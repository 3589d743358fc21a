/* Names, directories and namespaces: where the file of an object lies. */
#include "py/pyshc_place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_CHARS 200
#define NAMESPACE_MAX_CHARS 40
#define SEPARATOR "+"

_Static_assert(sizeof SHC_SEG_FILE_PREFIX + NAMESPACE_MAX_CHARS + 1 <= PYSHC_PREFIX_SIZE, "a prefix fits its buffer");
_Static_assert(sizeof SHC_SEG_FILE_PREFIX + NAMESPACE_MAX_CHARS + 1 + NAME_MAX_CHARS <= SHC_SEG_FILE_MAX,
               "the name of a file fits its buffer, and is none too long for the system");

static bool
is_name_character(Py_UCS4 c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

/* `bad` is the index of the first character that may not stand there. */
static void
raise_bad_text(PyObject *arg, const char *what, Py_ssize_t low, Py_ssize_t high, Py_ssize_t bad)
{
    PyObject *why = NULL;
    if (PyUnicode_GET_LENGTH(arg) > high) {
        why = PyUnicode_FromFormat("%zd of them, %.40R...", PyUnicode_GET_LENGTH(arg), arg);
    } else if (bad < PyUnicode_GET_LENGTH(arg)) {
        PyObject *character = PyUnicode_Substring(arg, bad, bad + 1);
        why = character != NULL ? PyUnicode_FromFormat("%R (%R is none of them)", arg, character) : NULL;
        Py_XDECREF(character);
    } else {
        why = PyObject_Repr(arg);
    }
    if (why != NULL)
        PyErr_Format(PyExc_ValueError, "%s is %zd to %zd of the characters A-Z a-z 0-9 . _ -, not %U", what, low, high,
                     why);
    Py_XDECREF(why);
}

static bool
check_text(PyObject *arg, const char *what, Py_ssize_t low, Py_ssize_t high)
{
    if (!PyUnicode_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %s", what, Py_TYPE(arg)->tp_name);
        return false;
    }
    Py_ssize_t n = PyUnicode_GET_LENGTH(arg), good = 0;
    while (good < n && is_name_character(PyUnicode_READ_CHAR(arg, good)))
        good++;
    if (n >= low && n <= high && good == n)
        return true;
    raise_bad_text(arg, what, low, high, good);
    return false;
}

PyObject *
pyshc_place_random_name(void)
{
    uint64_t bits;
    char text[32];
    int r = shc_os_random(&bits, sizeof bits);
    if (r != 0) {
        errno = -r;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyOS_snprintf(text, sizeof text, "anon-%016llx", (unsigned long long)bits);
    return PyUnicode_FromString(text);
}

/* The value of a variable, NULL if it is not set or empty. */
static const char *
environment(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

bool
pyshc_place_check_namespace(PyObject *namespace)
{
    return check_text(namespace, "a namespace", 0, NAMESPACE_MAX_CHARS);
}

PyObject *
pyshc_place_namespace(void)
{
    const char *value = environment("SHMCOMM_NAMESPACE");
    PyObject *namespace = PyUnicode_DecodeFSDefault(value != NULL ? value : "");
    if (namespace != NULL && !check_text(namespace, "SHMCOMM_NAMESPACE", 0, NAMESPACE_MAX_CHARS))
        Py_CLEAR(namespace);
    return namespace;
}

/* The directory as an absolute path, in new memory. `source`: who named it, for an error. */
static char *
absolute(PyObject *directory, const char *source)
{
    PyObject *bytes;
    if (!PyUnicode_FSConverter(directory, &bytes)) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "directory must be a str, bytes or os.PathLike object, not %s",
                         Py_TYPE(directory)->tp_name);
        return NULL;
    }
    char *path = realpath(PyBytes_AS_STRING(bytes), NULL);
    Py_DECREF(bytes);
    if (path != NULL)
        return path;
    int number = errno;
    PyObject *text = PyUnicode_FromFormat("%s (the directory for shared memory%s)", strerror(number), source);
    PyObject *error = text != NULL ? PyObject_CallFunction(PyExc_OSError, "iOO", number, text, directory) : NULL;
    if (error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(text);
    Py_XDECREF(error);
    return NULL;
}

/* A path that depends on where a process happens to be would part those who are to meet there. */
static char *
absolute_from_environment(const char *value)
{
    PyObject *directory = PyUnicode_DecodeFSDefault(value);
    char *path = NULL;
    if (directory != NULL && value[0] != '/')
        PyErr_Format(PyExc_ValueError, "SHMCOMM_DIR must be an absolute path, not %R", directory);
    else if (directory != NULL)
        path = absolute(directory, ", from SHMCOMM_DIR");
    Py_XDECREF(directory);
    return path;
}

static char *
default_directory(void)
{
    PyObject *directory = PyUnicode_FromString(SHC_OS_DEFAULT_DIR);
    char *path = directory != NULL ? absolute(directory, ", by default; SHMCOMM_DIR may name another one") : NULL;
    Py_XDECREF(directory);
    return path;
}

bool
pyshc_place_directory(PyObject *arg, char **path)
{
    const char *value = environment("SHMCOMM_DIR");
    if (arg != NULL && arg != Py_None)
        *path = absolute(arg, "");
    else
        *path = value != NULL ? absolute_from_environment(value) : default_directory();
    return *path != NULL;
}

void
pyshc_place_prefix(PyObject *namespace, char out[PYSHC_PREFIX_SIZE])
{
    Py_ssize_t n = 0;
    const char *text = PyUnicode_AsUTF8AndSize(namespace, &n);
    PyOS_snprintf(out, PYSHC_PREFIX_SIZE, "%s%s%s", SHC_SEG_FILE_PREFIX, text, n > 0 ? SEPARATOR : "");
}

const char *
pyshc_place_qualified(const char *file)
{
    return file + strlen(SHC_SEG_FILE_PREFIX);
}

const char *
pyshc_place_split(const char *qualified, size_t *length)
{
    const char *separator = strstr(qualified, SEPARATOR);
    bool parts = separator != NULL && separator != qualified;
    *length = parts ? (size_t)(separator - qualified) : 0;
    return parts ? separator + strlen(SEPARATOR) : qualified;
}

bool
pyshc_place_resolve(PyObject *name, PyObject *namespace, PyObject *directory, pyshc_place_t *place)
{
    char prefix[PYSHC_PREFIX_SIZE];
    if (!check_text(name, "a name", 1, NAME_MAX_CHARS) || !pyshc_place_check_namespace(namespace))
        return false;
    if (!pyshc_place_directory(directory, &place->directory))
        return false;
    pyshc_place_prefix(namespace, prefix);
    PyOS_snprintf(place->file, sizeof place->file, "%s%s", prefix, PyUnicode_AsUTF8(name));
    place->interpreter = PyInterpreterState_GetID(PyInterpreterState_Get());
    return true;
}

void
pyshc_place_clear(pyshc_place_t *place)
{
    free(place->directory);
    place->directory = NULL;
}
