/* The bytes of a message: what travels through rings, queues and maps, whatever carries it.
 *
 * A message is a tag (one byte, kept by the carrier beside the length) and a payload. Plain values are the payload
 * itself, so that 64 bytes take 64 bytes:
 *
 *     tag          payload
 *     NONE FALSE TRUE   nothing
 *     INT64        8 bytes, two's complement
 *     FLOAT        8 bytes, IEEE 754
 *     BYTES        the bytes (codec 'raw' sends nothing else)
 *     ASCII        the characters, each below 128
 *     VALUE        one nested value: everything else that is native
 *     PICKLE       LEN number of buffers, u64 length of the stream, the stream; then for each buffer u64 length,
 *                  PAD, the bytes
 *     CUSTOM       what the sender's own dumps() returned
 *     SEALED PACKED   an envelope: a message that was encrypted (and perhaps compressed before), or compressed, and
 *                  its own tag: shmcomm/_envelope.py. 0x60 .. 0x6f are kept for such.
 *
 * A nested value is its tag (one byte) and, behind it:
 *
 *     NONE FALSE TRUE   nothing
 *     INT8 INT32 INT64  1, 4, 8 bytes
 *     BIGINT       LEN, two's complement
 *     FLOAT        8 bytes                    COMPLEX   16 bytes: real, imaginary
 *     BYTES BYTEARRAY ASCII UTF8   LEN, the bytes; UTF8 may hold lone surrogates, three bytes each
 *     0x80 .. 0xff ASCII of 0 .. 127 characters
 *     TUPLE LIST SET FROZENSET   LEN, so many values
 *     DICT         LEN, so many times key and value, in order
 *     MEMORYVIEW   u8 flags (1: writable), u8 format character, u8 dimensions, u64 for each, PAD, the items in C order
 *     ARRAY        u8 flags (1: Fortran order), LEN type descriptor, u8 dimensions, u64 for each, PAD, the items
 *     SCALAR       LEN type descriptor, one item
 *     NUMPY_STR    a nested UTF8           NUMPY_BYTES   a nested BYTES
 *
 * LEN is one byte below 255, or 255 and a u64. PAD is one byte n and n bytes to skip, 0 <= n < 64, chosen by the
 * writer so that the data behind it start at an address that is a multiple of 64; carriers lie at the same offset in
 * a page in all processes. Numbers are little- endian. Containers nest to depth SHC_WIRE_DEPTH.
 *
 * Type descriptors (of NumPy's dtypes; `node` is recursive):
 *
 *     'p' LEN text                                  plain: byte order and type character, "<d", or NumPy's name,
 *                                                   "<U10", "<M8[ns]"
 *     'a' LEN dimensions, u64 for each, node        sub-array; only as a field
 *     's' u8 flags (1: aligned), u64 item size, LEN fields; for each LEN UTF-8 name, u64 offset, node
 *
 * Reading what nobody vouches for
 *   (a) The bytes may change while they are read. Every tag, length and number is read once, into a register; the
 *       checks and the use see the same value. Text is checked in a private copy.
 *   (b) No byte behind the payload is read: each read asks first.
 *   (c) A count is believed only if the rest of the payload, less one byte for each value that the containers around
 *       still miss, has one byte for each; so all containers of a message together have at most as many places as it
 *       has bytes.
 *   (d) Nothing is evaluated, imported by name or called, except loads() of codecs that say so.
 *
 * Nothing here allocates or knows Python; the binding's encoder and decoder are built on it, and C programs exchange
 * plain values with shc_wire_put_* and shc_wire_get_*. */
#ifndef SHC_WIRE_H
#define SHC_WIRE_H

#include "atomic/shc_atomic.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian and copied as it is");

enum {
    /* plain: message and nested */
    SHC_WIRE_NONE = 1,
    SHC_WIRE_FALSE = 2,
    SHC_WIRE_TRUE = 3,
    SHC_WIRE_INT64 = 4,
    SHC_WIRE_FLOAT = 5,
    SHC_WIRE_BYTES = 6,
    SHC_WIRE_ASCII = 7,
    SHC_WIRE_PLAIN_END = 8,
    /* nested only */
    SHC_WIRE_UTF8 = 8,
    SHC_WIRE_INT8 = 9,
    SHC_WIRE_INT32 = 10,
    SHC_WIRE_BIGINT = 11,
    SHC_WIRE_COMPLEX = 12,
    SHC_WIRE_BYTEARRAY = 13,
    SHC_WIRE_TUPLE = 14,
    SHC_WIRE_LIST = 15,
    SHC_WIRE_SET = 16,
    SHC_WIRE_FROZENSET = 17,
    SHC_WIRE_DICT = 18,
    SHC_WIRE_MEMORYVIEW = 19,
    SHC_WIRE_ARRAY = 20,
    SHC_WIRE_SCALAR = 21,
    SHC_WIRE_NUMPY_STR = 22,
    SHC_WIRE_NUMPY_BYTES = 23,
    /* message only */
    SHC_WIRE_VALUE = 32,
    SHC_WIRE_PICKLE = 33,
    SHC_WIRE_CUSTOM = 34,
    SHC_WIRE_ENVELOPE_FIRST = 96,
    SHC_WIRE_SEALED = 96,
    SHC_WIRE_PACKED = 97,
    SHC_WIRE_ENVELOPE_LAST = 111,
    /* nested only: the low seven bits are the length */
    SHC_WIRE_SHORT_ASCII = 128,
};

#define SHC_WIRE_DEPTH 64
#define SHC_WIRE_DIMENSIONS 64
#define SHC_WIRE_ALIGN 64u
#define SHC_WIRE_SHORT_MAX 127u
#define SHC_WIRE_LONG_LENGTH 255u

enum {
    SHC_WIRE_WRITABLE = 1,
    SHC_WIRE_FORTRAN = 1,
    SHC_WIRE_ALIGNED = 1
};

/* ---- plain messages ---- */

static inline size_t
shc_wire_put_int64(uint8_t *dst, int64_t value)
{
    memcpy(dst, &value, sizeof(value));
    return sizeof(value);
}

static inline size_t
shc_wire_put_double(uint8_t *dst, double value)
{
    memcpy(dst, &value, sizeof(value));
    return sizeof(value);
}

static inline size_t
shc_wire_put_bytes(uint8_t *dst, const void *data, size_t length)
{
    if (length != 0)
        memcpy(dst, data, length);
    return length;
}

/* False: the message is something else. */
static inline bool
shc_wire_get_int64(uint8_t tag, const uint8_t *payload, size_t length, int64_t *value)
{
    if (tag != SHC_WIRE_INT64 || length != sizeof(*value))
        return false;
    *value = (int64_t)shc_racy_u64(payload);
    return true;
}

static inline bool
shc_wire_get_double(uint8_t tag, const uint8_t *payload, size_t length, double *value)
{
    if (tag != SHC_WIRE_FLOAT || length != sizeof(*value))
        return false;
    uint64_t bits = shc_racy_u64(payload);
    memcpy(value, &bits, sizeof(bits));
    return true;
}

/* Copies at most `room` bytes of a BYTES or ASCII message; *needed is its whole length. */
static inline bool
shc_wire_get_bytes(uint8_t tag, const uint8_t *payload, size_t length, void *dst, size_t room, size_t *needed)
{
    if (tag != SHC_WIRE_BYTES && tag != SHC_WIRE_ASCII)
        return false;
    size_t n = length < room ? length : room;
    if (n != 0)
        shc_racy_copy(dst, payload, n);
    *needed = length;
    return true;
}

/* ---- writing ---- */

static inline size_t
shc_wire_length_size(uint64_t length)
{
    return length < SHC_WIRE_LONG_LENGTH ? 1 : 9;
}

/* Returns the place behind it. */
static SHC_ALWAYS_INLINE uint8_t *
shc_wire_put_length(uint8_t *dst, uint64_t length)
{
    if (SHC_LIKELY(length < SHC_WIRE_LONG_LENGTH)) {
        *dst = (uint8_t)length;
        return dst + 1;
    }
    *dst = SHC_WIRE_LONG_LENGTH;
    memcpy(dst + 1, &length, sizeof(length));
    return dst + 9;
}

/* ---- reading: false means that the payload is not what it claims to be ---- */

typedef struct shc_wire_reader {
    const uint8_t *at, *end;
    uint64_t owed; /* values that containers begun so far still miss */
} shc_wire_reader_t;

static inline size_t
shc_wire_left(const shc_wire_reader_t *r)
{
    return (size_t)(r->end - r->at);
}

static SHC_ALWAYS_INLINE bool
shc_wire_read_u8(shc_wire_reader_t *r, uint8_t *out)
{
    if (SHC_UNLIKELY(r->at == r->end))
        return false;
    *out = shc_racy_u8(r->at++);
    return true;
}

static SHC_ALWAYS_INLINE bool
shc_wire_read_u32(shc_wire_reader_t *r, uint32_t *out)
{
    if (SHC_UNLIKELY(shc_wire_left(r) < sizeof(*out)))
        return false;
    *out = shc_racy_u32(r->at);
    r->at += sizeof(*out);
    return true;
}

static SHC_ALWAYS_INLINE bool
shc_wire_read_u64(shc_wire_reader_t *r, uint64_t *out)
{
    if (SHC_UNLIKELY(shc_wire_left(r) < sizeof(*out)))
        return false;
    *out = shc_racy_u64(r->at);
    r->at += sizeof(*out);
    return true;
}

static SHC_ALWAYS_INLINE bool
shc_wire_read_length(shc_wire_reader_t *r, uint64_t *out)
{
    uint8_t first;
    if (SHC_UNLIKELY(!shc_wire_read_u8(r, &first)))
        return false;
    *out = first;
    return SHC_LIKELY(first != SHC_WIRE_LONG_LENGTH) || shc_wire_read_u64(r, out);
}

/* The next `length` bytes, where they lie. */
static SHC_ALWAYS_INLINE bool
shc_wire_read_bytes(shc_wire_reader_t *r, uint64_t length, const uint8_t **out)
{
    if (SHC_UNLIKELY(length > shc_wire_left(r)))
        return false;
    *out = r->at;
    r->at += length;
    return true;
}

/* LEN and so many bytes, where they lie. */
static SHC_ALWAYS_INLINE bool
shc_wire_read_text(shc_wire_reader_t *r, const uint8_t **out, uint64_t *length)
{
    return shc_wire_read_length(r, length) && shc_wire_read_bytes(r, *length, out);
}

static inline bool
shc_wire_read_pad(shc_wire_reader_t *r)
{
    uint8_t pad;
    if (!shc_wire_read_u8(r, &pad) || pad >= SHC_WIRE_ALIGN || pad > shc_wire_left(r))
        return false;
    r->at += pad;
    return true;
}

/* LEN of a container of which each element is `values` values: believed only if they can all be there. Each value
 * that is then read must be taken off `owed`. */
static SHC_ALWAYS_INLINE bool
shc_wire_read_count(shc_wire_reader_t *r, unsigned values, uint64_t *count)
{
    if (SHC_UNLIKELY(!shc_wire_read_length(r, count) || r->owed > shc_wire_left(r) ||
                     *count > (shc_wire_left(r) - r->owed) / values))
        return false;
    r->owed += *count * values;
    return true;
}

#endif
