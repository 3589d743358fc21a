#include "py/pyshc_channel.h"

/* ---- options ---- */

bool
pyshc_channel_parse_codec(pyshc_handle_t *h, PyObject *codec)
{
    return pyshc_codec_parse(h->st, codec, &h->codec) == 0;
}

bool
pyshc_channel_parse_spin(pyshc_handle_t *h, PyObject *spin)
{
    if (spin == NULL || spin == Py_None)
        return true;
    double seconds = PyFloat_AsDouble(spin);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "spin must be seconds (a number) or None, not %s", Py_TYPE(spin)->tp_name);
        return false;
    }
    if (!(seconds >= 0 && seconds <= 1)) {
        PyErr_Format(PyExc_ValueError, "spin must be seconds from 0 to 1, or None to let it be learned, not %R", spin);
        return false;
    }
    h->spin_ns = (uint32_t)(seconds * 1e9);
    return true;
}

static uint64_t
codec_there(const pyshc_handle_t *h)
{
    return h->shared->seg.id.config[h->kind->codec_config];
}

/* An attached channel takes the codec of its creator unless told otherwise. */
static bool
adopt_codec(pyshc_handle_t *h, PyObject *codec)
{
    if (codec != NULL && codec != Py_None)
        return pyshc_channel_parse_codec(h, codec);
    return pyshc_codec_adopt(h->st, codec_there(h), &h->codec) == 0;
}

bool
pyshc_channel_number_agrees(pyshc_handle_t *h, const char *option, uint64_t there, uint64_t asked)
{
    if (asked != there)
        pyshc_handle_disagree(h, option, PyUnicode_FromFormat("%llu", (unsigned long long)there),
                              PyUnicode_FromFormat("%llu", (unsigned long long)asked));
    return asked == there;
}

/* The creator's choice stands in the segment. Of two objects nobody can say whether they are the same. */
bool
pyshc_channel_codec_agrees(pyshc_handle_t *h, PyObject *codec)
{
    uint64_t there = codec_there(h);
    if (codec == NULL || codec == Py_None || there > PYSHC_CODEC_CUSTOM)
        return adopt_codec(h, NULL);
    if (!pyshc_channel_parse_codec(h, codec))
        return false;
    if ((uint64_t)h->codec.kind != there)
        pyshc_handle_disagree(h, "codec", pyshc_codec_kind_text(there), pyshc_codec_kind_text((uint64_t)h->codec.kind));
    return (uint64_t)h->codec.kind == there;
}

uint64_t
pyshc_channel_envelope_word(const pyshc_handle_t *h)
{
    uint32_t at = h->kind->envelope_config;
    return at != 0 ? h->shared->seg.id.config[at] : 0;
}

/* ---- attaching and opening ---- */

static PyObject *
attach_with(PyTypeObject *type, const pyshc_kind_t *kind, PyObject *const *v, PyObject *namespace)
{
    uint64_t deadline_ns = 0;
    bool foreign = false;
    if ((v[1] != NULL && !pyshc_parse_timeout(v[1], &deadline_ns)) || !pyshc_parse_flag(v[6], &foreign))
        return NULL;
    pyshc_handle_t *h = pyshc_handle_new(type);
    if (h != NULL && !(pyshc_channel_parse_spin(h, v[4]) &&
                       pyshc_handle_attach(h, kind, v[0], namespace, v[2], deadline_ns, foreign, false) &&
                       adopt_codec(h, v[3]) && pyshc_envelope_begin(h, pyshc_channel_envelope_word(h), v[5])))
        Py_CLEAR(h);
    return (PyObject *)h;
}

PyObject *
pyshc_channel_attach(PyObject *cls, const pyshc_kind_t *kind, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    static const char *const names[] = {"name", "timeout", "directory", "codec", "spin", "encryption_key", "foreign"};
    PyObject *v[7];
    if (!pyshc_parse("attach", args, nargs, kwnames, names, 7, 1, 1, v))
        return NULL;
    return attach_with((PyTypeObject *)cls, kind, v, NULL);
}

/* One round: attach, else create. false: exception. h->shared NULL afterwards: lost both races, try again. */
static bool
open_once(pyshc_handle_t *h, const pyshc_opening_t *opening)
{
    const pyshc_creation_t *creation = &opening->creation;
    PyObject *codec = opening->codec != Py_None ? opening->codec : NULL;
    bool exists = false;
    if (!pyshc_handle_attach(h, opening->kind, creation->name, NULL, creation->directory, 0, false, true))
        return false;
    if (h->shared != NULL)
        return opening->agrees(h, opening);
    return opening->check(opening) && pyshc_channel_parse_codec(h, codec) && opening->create(h, opening, &exists);
}

PyObject *
pyshc_channel_open(PyObject *cls, const pyshc_opening_t *opening)
{
    pyshc_handle_t *h = pyshc_handle_new((PyTypeObject *)cls);
    if (h == NULL || !pyshc_channel_parse_spin(h, opening->spin)) {
        Py_XDECREF(h);
        return NULL;
    }
    while (h->shared == NULL) {
        if (!open_once(h, opening) || PyErr_CheckSignals() < 0) {
            Py_DECREF(h);
            return NULL;
        }
    }
    return (PyObject *)h;
}

/* ---- pickling ---- */

PyObject *
pyshc_channel_rebuild(PyObject *cls, const pyshc_kind_t *kind, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_rebuild() takes 6 arguments");
        return NULL;
    }
    PyObject *codec = pyshc_codec_restore(args[3]);
    if (codec == NULL)
        return NULL;
    PyObject *v[7] = {args[0], NULL, args[2], codec, args[4], args[5], Py_False};
    PyObject *h = attach_with((PyTypeObject *)cls, kind, v, args[1]);
    Py_DECREF(codec);
    return h;
}

PyObject *
pyshc_channel_reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyshc_handle_t *h = (pyshc_handle_t *)self;
    if (!pyshc_handle_pin(h))
        return NULL;
    PyObject *rebuild = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_rebuild");
    PyObject *codec = pyshc_codec_save(&h->codec);
    PyObject *spin = h->spin_ns == UINT32_MAX ? Py_NewRef(Py_None) : PyFloat_FromDouble(h->spin_ns / 1e9);
    PyObject *key = pyshc_envelope_save(h);
    PyObject *result = NULL;
    if (rebuild != NULL && codec != NULL && spin != NULL && key != NULL)
        result = Py_BuildValue("O(OOOOOO)", rebuild, h->name, h->namespace, h->directory, codec, spin, key);
    Py_XDECREF(key);
    Py_XDECREF(rebuild);
    Py_XDECREF(codec);
    Py_XDECREF(spin);
    pyshc_handle_unpin(h);
    return result;
}

/* ---- errors ---- */

PyObject *
pyshc_channel_raise(pyshc_handle_t *h, int status)
{
    if (status == PYSHC_RAISED)
        return NULL;
    if (status == PYSHC_RESERVED) {
        PyErr_Format(h->st->Full, "%R: another thread has not yet committed or aborted its reservation", h);
        return NULL;
    }
    return pyshc_raise(h->st, status, "%R", h);
}

int
pyshc_channel_refuse_too_large(pyshc_handle_t *h, uint64_t size, bool exact, uint64_t most, const char *advice)
{
    char message[64] = "the message";
    if (size != 0)
        PyOS_snprintf(message, sizeof message, "the message of %s%llu bytes", exact ? "" : "up to ",
                      (unsigned long long)size);
    PyErr_Format(h->st->MessageTooLargeError, "%s is larger than %R can ever hold (%llu bytes): %s", message, h,
                 (unsigned long long)most, advice);
    return PYSHC_RAISED;
}
