/* Shared between the codec's files. */
#ifndef PYSHC_CODEC_INTERNAL_H
#define PYSHC_CODEC_INTERNAL_H

#include "py/pyshc.h" /* Python.h comes before everything else */

#include "base/shc_math.h"

/* ---- encoder: walks the object and writes, or only counts ---- */

#define PYSHC_ENCODER_FEW 12
#define PYSHC_ENCODER_FIELD 96 /* longest run of fixed fields that is asked for at once */

typedef struct pyshc_encoder {
    uint8_t *at, *end;
    pyshc_state_t *st;
    bool counting;
    int depth;
    uint64_t counted, limit;
    /* mutable objects seen so far: one that occurs twice would arrive as two */
    uint32_t seen_count;
    uint32_t seen_room; /* of seen_many, a power of two; 0: seen_few is used */
    const void **seen_many;
    const void *seen_few[PYSHC_ENCODER_FEW];
    /* why the result was PYSHC_NOT_NATIVE */
    const char *reason;
    PyTypeObject *culprit;
    uint8_t scratch[PYSHC_ENCODER_FIELD];
} pyshc_encoder_t;

/* 0, PYSHC_NEED_ROOM, PYSHC_NOT_NATIVE, PYSHC_RAISED: as do all functions that take an encoder. */
SHC_MUST_USE int pyshc_encode_value(pyshc_encoder_t *e, PyObject *obj);
SHC_MUST_USE int pyshc_encode_refuse(pyshc_encoder_t *e, PyObject *obj, const char *reason);
SHC_MUST_USE int pyshc_encode_once(pyshc_encoder_t *e, PyObject *obj);
SHC_MUST_USE int pyshc_encode_data(pyshc_encoder_t *e, const void *data, size_t length);
/* LEN and the data. */
SHC_MUST_USE int pyshc_encode_text(pyshc_encoder_t *e, const void *data, size_t length);
SHC_MUST_USE int pyshc_encode_shape(pyshc_encoder_t *e, const Py_buffer *view);
/* A tag and behind it the value that a subclass of str or bytes holds. */
SHC_MUST_USE int pyshc_encode_inner(pyshc_encoder_t *e, uint8_t tag, PyObject *obj);
/* Room for data behind a pad byte, aligned; *dst NULL when only counting. */
SHC_MUST_USE int pyshc_encode_aligned(pyshc_encoder_t *e, size_t length, uint8_t **dst);

SHC_COLD uint8_t *pyshc_encode_take_slowly(pyshc_encoder_t *e, size_t n);

/* Room for n <= PYSHC_ENCODER_FIELD bytes, or NULL: PYSHC_NEED_ROOM. */
static SHC_ALWAYS_INLINE uint8_t *
pyshc_encode_take(pyshc_encoder_t *e, size_t n)
{
    uint8_t *at = e->at;
    if (SHC_UNLIKELY((size_t)(e->end - at) < n))
        return pyshc_encode_take_slowly(e, n);
    e->at = at + n;
    return at;
}

/* An encoder that writes to [dst, dst + room), or counts if dst is NULL. */
void pyshc_encode_begin(pyshc_encoder_t *e, pyshc_state_t *st, uint8_t *dst, size_t room, uint64_t limit);
void pyshc_encode_end(pyshc_encoder_t *e);

/* Where data that must be aligned start if the pad byte is at `at`. */
static inline size_t
pyshc_pad_behind(const uint8_t *at)
{
    return (size_t)(-((uintptr_t)at + 1) & (SHC_WIRE_ALIGN - 1));
}

/* ---- decoder ---- */

typedef struct pyshc_decoder {
    shc_wire_reader_t in;
    pyshc_state_t *st;
    const uint8_t *start;
    PyObject *owner;  /* exports [start, in.end), or NULL: copy */
    PyObject *window; /* memoryview of all of it, made when needed */
    int depth;
    int hashed; /* inside a key or member: copied, so that its hash stays true */
    bool need_numpy;
    bool holds_owner;
} pyshc_decoder_t;

/* NULL: an exception is set, or d->need_numpy. So for all that take a decoder. */
PyObject *pyshc_decode_value(pyshc_decoder_t *d);
/* Raises CorruptedError with these words. Returns NULL. */
PyObject *pyshc_decode_corrupt(pyshc_decoder_t *d, const char *words);
/* The exception that is set becomes CorruptedError, except MemoryError. Returns NULL. */
PyObject *pyshc_decode_blame(pyshc_decoder_t *d, const char *words);
/* A read-only view of [data, data + length) of the owner. */
PyObject *pyshc_decode_window(pyshc_decoder_t *d, const uint8_t *data, size_t length);
bool pyshc_decode_in_place(const pyshc_decoder_t *d);
/* Reads dimensions; false with CorruptedError. *count: their product. */
bool pyshc_decode_shape(pyshc_decoder_t *d, uint64_t *shape, unsigned *ndim, uint64_t *count);
/* A tuple of ints. */
PyObject *pyshc_decode_shape_tuple(const uint64_t *shape, unsigned ndim);
/* A nested UTF8 or BYTES, as the type says. */
PyObject *pyshc_decode_inner(pyshc_decoder_t *d, PyTypeObject *type);
PyObject *pyshc_decode_utf8(pyshc_decoder_t *d, const uint8_t *src, uint64_t length);

/* ---- arrays ---- */

/* Finds NumPy in sys.modules, without importing. */
bool pyshc_numpy_find(pyshc_state_t *st);
SHC_MUST_USE int pyshc_numpy_encode(pyshc_encoder_t *e, PyObject *obj);
PyObject *pyshc_numpy_decode(pyshc_decoder_t *d, uint8_t tag);

/* ---- types of arrays: entries hold their own references; clear them after use ---- */

/* 0, PYSHC_NOT_NATIVE, PYSHC_RAISED */
SHC_MUST_USE int pyshc_dtype_describe(pyshc_state_t *st, PyObject *dtype, pyshc_dtype_entry_t *out);
/* Reads a descriptor; false with an exception set. */
bool pyshc_dtype_parse(pyshc_decoder_t *d, pyshc_dtype_entry_t *out);
/* Whether so many items, or bytes of them, may be sent and made. */
bool pyshc_dtype_fits(const pyshc_dtype_entry_t *entry, uint64_t count);
void pyshc_dtype_clear(pyshc_dtype_entry_t *entry);

/* ---- pickle ---- */

/* Calls pickle.dumps(): 0 or PYSHC_RAISED; NotEncodableError tells why the value was not native, too, if that was
 * tried. */
SHC_MUST_USE int pyshc_pickle_dump(pyshc_outgoing_t *out);
SHC_MUST_USE int pyshc_pickle_write(pyshc_encoder_t *e, const pyshc_outgoing_t *out);
SHC_MUST_USE int pyshc_pickle_read(pyshc_decoder_t *d, PyObject **stream, PyObject **buffers);
PyObject *pyshc_pickle_load(pyshc_state_t *st, PyObject *stream, PyObject *buffers);

#endif
