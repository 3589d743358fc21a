/* What every channel's Python face does alike: the options codec, spin and those of the envelope, attach(), open(),
 * pickling, and what an operation's status stands for. A kind says with codec_config and envelope_config in which words
 * of its config the creator's codec and envelope stand.
 *
 * None of this is in the way of a message. */
#ifndef PYSHC_CHANNEL_H
#define PYSHC_CHANNEL_H

#include "py/pyshc_handle.h"

#include <errno.h>

/* Beside the core's codes and those of the codec: another thread of this process has a reservation open. */
#define PYSHC_RESERVED 1101

/* ---- options ----  All: false with an exception set. */

/* NULL: the default. */
bool pyshc_channel_parse_codec(pyshc_handle_t *h, PyObject *codec);

/* None or NULL: the process decides anew whenever it waits; 0: never; seconds: always that long. */
bool pyshc_channel_parse_spin(pyshc_handle_t *h, PyObject *spin);

/* An option of open() beside what the existing channel has: LayoutError. */
bool pyshc_channel_number_agrees(pyshc_handle_t *h, const char *option, uint64_t there, uint64_t asked);

/* ---- classmethods and pickling ---- */

/* attach(name, *, timeout, directory, codec, spin, encryption_key, foreign) */
PyObject *pyshc_channel_attach(PyObject *cls, const pyshc_kind_t *kind, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

/* What open() was told, NULL where it was told nothing, and how its kind goes about it. All functions: false with an
 * exception set. */
typedef struct pyshc_opening {
    const pyshc_kind_t *kind;
    pyshc_creation_t creation; /* with the name */
    PyObject *codec, *spin;
    pyshc_envelope_options_t envelope;
    const void *options; /* the kind's own */
    /* Whether an existing channel has what was asked for of the kind's own options, and then pyshc_channel_agrees. */
    bool (*agrees)(pyshc_handle_t *h, const struct pyshc_opening *opening);
    /* Creates it, as pyshc_handle_create does; the codec is parsed. */
    bool (*create)(pyshc_handle_t *h, const struct pyshc_opening *opening, bool *exists);
    /* Whether the options are enough to create one. */
    bool (*check)(const struct pyshc_opening *opening);
} pyshc_opening_t;

/* The options that all channels have; takes the existing channel's codec and envelope. */
bool pyshc_channel_agrees(pyshc_handle_t *h, const pyshc_opening_t *opening);

/* The envelope of the channel that h has open, as its creator chose it. */
uint64_t pyshc_channel_envelope_word(const pyshc_handle_t *h);

/* Attaches, or creates; of several processes that do so at once, one creates. */
PyObject *pyshc_channel_open(PyObject *cls, const pyshc_opening_t *opening);

/* _rebuild(name, namespace, directory, codec, spin, key), and what leads to it. */
PyObject *pyshc_channel_rebuild(PyObject *cls, const pyshc_kind_t *kind, PyObject *const *args, Py_ssize_t nargs);
PyObject *pyshc_channel_reduce(PyObject *self, PyObject *unused);

/* ---- errors ---- */

/* Raises what a status of an operation on h stands for; returns NULL. PYSHC_RESERVED is Full: the time was over. */
PyObject *pyshc_channel_raise(pyshc_handle_t *h, int status);

/* Whether it was the size of a message that kept it from being sent. */
static inline bool
pyshc_channel_is_about_size(int status)
{
    return status == SHC_E_TOO_LARGE || status == -ENOSPC || status == -ENOMEM || status == -EBADF;
}

/* MessageTooLargeError for a message of `size` bytes, of up to that many if it is not exact; 0: not known. `most`: the
 * longest that can be; `advice`: how to get on. Returns PYSHC_RAISED. */
SHC_COLD int pyshc_channel_refuse_too_large(pyshc_handle_t *h, uint64_t size, bool exact, uint64_t most,
                                            const char *advice);

#endif
