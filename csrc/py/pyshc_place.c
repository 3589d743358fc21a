/* Names, directories and namespaces: where the file of an object lies. */
#include "py/pyshc_place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_CHARS 200
#define NAMESPACE_MAX_CHARS 40

static bool
is_name_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '_' || c == '-';
        if (!fine)
            return false;
    }
    return true;
}

static bool
check_text(PyObject *arg, const char *what, Py_ssize_t low, Py_ssize_t high)
{
    if (!PyUnicode_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %s", what, Py_TYPE(arg)->tp_name);
        return false;
    }
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(arg, &n);
    if (text == NULL)
        PyErr_Clear(); /* lone surrogates: no name either, said below */
    if (text != NULL && n >= low && n <= high && is_name_text(text, (size_t)n))
        return true;
    PyErr_Format(PyExc_ValueError, "%s is %zd to %zd of the characters A-Z a-z 0-9 . _ -, not %R", what, low, high,
                 arg);
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

static PyObject *
environment(const char *variable, const char *otherwise)
{
    const char *value = getenv(variable);
    return PyUnicode_DecodeFSDefault(value != NULL && value[0] != '\0' ? value : otherwise);
}

bool
pyshc_place_check_namespace(PyObject *namespace)
{
    return check_text(namespace, "a namespace", 0, NAMESPACE_MAX_CHARS);
}

PyObject *
pyshc_place_namespace(void)
{
    PyObject *namespace = environment("SHMCOMM_NAMESPACE", "");
    if (namespace != NULL && !check_text(namespace, "SHMCOMM_NAMESPACE", 0, NAMESPACE_MAX_CHARS))
        Py_CLEAR(namespace);
    return namespace;
}

/* The directory as an absolute path, in new memory. */
static char *
absolute(PyObject *directory)
{
    PyObject *bytes;
    if (!PyUnicode_FSConverter(directory, &bytes))
        return NULL;
    char *path = realpath(PyBytes_AS_STRING(bytes), NULL);
    Py_DECREF(bytes);
    if (path == NULL)
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, directory);
    return path;
}

bool
pyshc_place_directory(PyObject *arg, char **path)
{
    PyObject *directory =
        arg == NULL || arg == Py_None ? environment("SHMCOMM_DIR", SHC_OS_DEFAULT_DIR) : Py_NewRef(arg);
    if (directory == NULL)
        return false;
    *path = absolute(directory);
    Py_DECREF(directory);
    return *path != NULL;
}

void
pyshc_place_prefix(PyObject *namespace, char *out, size_t size)
{
    Py_ssize_t n = 0;
    const char *text = PyUnicode_AsUTF8AndSize(namespace, &n);
    PyOS_snprintf(out, size, "%s%s%s", SHC_SEG_FILE_PREFIX, text, n > 0 ? "." : "");
}

bool
pyshc_place_resolve(PyObject *name, PyObject *namespace, PyObject *directory, pyshc_place_t *place)
{
    char prefix[64];
    if (!check_text(name, "a name", 1, NAME_MAX_CHARS) || !pyshc_place_check_namespace(namespace))
        return false;
    if (!pyshc_place_directory(directory, &place->directory))
        return false;
    pyshc_place_prefix(namespace, prefix, sizeof prefix);
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
