/* Envelopes: messages that are compressed or encrypted, whatever carries them. What is inside stands in
 * shmcomm/_envelope.py, which calls the libraries; tags in ds/shc_wire.h.
 *
 * A carrier takes this over as follows. One config word of its segment is the envelope's.
 *     creating    pyshc_envelope_word(values, &word) before; word into the config; when the handle has its segment,
 *                 pyshc_envelope_begin(h, word, key)
 *     attaching   pyshc_envelope_begin(h, config word, key), after the codec is known: it changes the fast way
 *     open()      pyshc_envelope_agrees(h, config word, values)
 *     pickling    pyshc_envelope_save(h): the value to pass as key when the handle is rebuilt
 *     sending     if (h->envelope.is_on)
 *                     pyshc_wrapped_make(h, obj, message_max, &w);          runs anybody's code: no end is entered
 *                     claim w.length bytes;  pyshc_wrapped_write(&w, place, dst);   no code of users, but a library's
 *                     stage w.tag;  pyshc_wrapped_clear(&w, sent)
 *     receiving   if (pyshc_envelope_is_wrapped(&h->envelope, tag))
 *                     copy the payload to private bytes, with its tag and place; go past it; leave the end;
 *                     pyshc_envelope_open(h, tag, bytes, place, limit, copy, peek)
 *
 * Place: a number that the sender and the receiver of one message agree on and that no other message of the channel
 * has soon: the ring's cursor word, the number of a message in a cell ring.
 *
 * Fast ways stay as they are: with an envelope codec.sends is 0, so that no value is taken for plain; with a key
 * codec.takes is 0, too. What the codec would have sent and taken is kept here. */
#ifndef PYSHC_ENVELOPE_H
#define PYSHC_ENVELOPE_H

#include "py/pyshc.h" /* Python.h comes before everything else */

typedef struct pyshc_envelope {
    bool is_on;
    bool is_encrypted;
    bool is_locked; /* opened to be looked at: neither sends nor receives */
    uint64_t sends, takes;
    PyObject *worker; /* shmcomm._envelope.Envelope */
} pyshc_envelope_t;

/* Values of the keywords, NULL if absent. */
typedef struct pyshc_envelope_options {
    PyObject *compression, *threshold, *key;
} pyshc_envelope_options_t;

#define PYSHC_ENVELOPE_NAMES "compression", "compression_threshold", "encryption_key"
#define PYSHC_ENVELOPE_COUNT 3

/* What a sealed message takes beside its bytes. */
#define PYSHC_ENVELOPE_OVERHEAD 56u

/* All: false with an exception set. */
bool pyshc_envelope_word(const pyshc_envelope_options_t *options, uint64_t *word);
bool pyshc_envelope_begin(pyshc_handle_t *h, uint64_t word, PyObject *key);
bool pyshc_envelope_agrees(pyshc_handle_t *h, uint64_t word, const pyshc_envelope_options_t *options);
PyObject *pyshc_envelope_save(const pyshc_handle_t *h);
/* (name or None, bool) for stats. New reference. */
PyObject *pyshc_envelope_describe(uint64_t word);
/* Whether h may send and receive: ValueError if it was opened without its key. */
bool pyshc_envelope_check(pyshc_handle_t *h);

int pyshc_envelope_traverse(pyshc_envelope_t *envelope, visitproc visit, void *arg);
void pyshc_envelope_clear(pyshc_envelope_t *envelope);

/* ---- one message out ---- */

typedef struct pyshc_wrapped {
    pyshc_codec_t codec; /* the handle's, borrowed, as it is inside */
    pyshc_outgoing_t out;
    bool has_out;
    uint8_t tag;
    size_t length;   /* of what goes out */
    PyObject *parts; /* (tag, head, body, nonce, encrypt, in_place) */
} pyshc_wrapped_t;

SHC_MUST_USE int pyshc_wrapped_make(pyshc_handle_t *h, PyObject *obj, uint64_t limit, pyshc_wrapped_t *w);
/* Of bytes that were written by somebody else; they must stay until clear. */
SHC_MUST_USE int pyshc_wrapped_bytes(pyshc_handle_t *h, uint8_t tag, const uint8_t *data, size_t n, pyshc_wrapped_t *w);
/* Writes w->length bytes; with a key only what is encrypted ever reaches dst. Succeeds once at most. */
SHC_MUST_USE int pyshc_wrapped_write(const pyshc_wrapped_t *w, uint64_t place, uint8_t *dst);
void pyshc_wrapped_clear(pyshc_wrapped_t *w, bool sent);

/* ---- one message in ---- */

static inline bool
pyshc_envelope_is_wrapped(const pyshc_envelope_t *envelope, uint8_t tag)
{
    return envelope->is_encrypted || (envelope->is_on && tag == SHC_WIRE_PACKED);
}

/* NULL: DecryptionError, CorruptedError, or what the codec raises. */
PyObject *pyshc_envelope_open(pyshc_handle_t *h, uint8_t tag, PyObject *bytes, uint64_t place, uint64_t limit,
                              bool copy, bool peek);

#endif
