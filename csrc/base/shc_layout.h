/* Layout stated once. Beside each `*_shm_t` struct stands a table
 *
 *     #define SHC_X_LAYOUT(ROW, T) \
 *         ROW(T, field, offset, size, "who writes it", "what it means") ...
 *
 * that this header expands to static asserts (offset and size of every field) and to rows. The rows are rendered into
 * csrc/LAYOUT.md, and hashed into the fingerprint that every segment carries: a process built from another layout is
 * refused at attach. A table must cover its struct without a hole (tests/test_layout.py): padding is a named field. */
#ifndef SHC_LAYOUT_H
#define SHC_LAYOUT_H

#include "base/shc_base.h"

typedef struct shc_layout_row {
    const char *type;
    const char *field;
    uint32_t offset;
    uint32_t size;
    const char *writer;
    const char *note;
} shc_layout_row_t;

#define SHC_LAYOUT_ASSERT(T, field, off, bytes, writer, note)                                                          \
    _Static_assert(offsetof(T, field) == (off), #T "." #field " is not at the documented offset");                     \
    _Static_assert(sizeof(((T *)0)->field) == (bytes), #T "." #field " has not the documented size");

#define SHC_LAYOUT_ROW(T, field, off, bytes, writer, note) {#T, #field, (off), (bytes), (writer), (note)},

/* FNV-1a over what makes the format: type, field, offset, size. Notes and writers are prose and do not count. */
static inline uint64_t
shc_layout_hash_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

static inline uint64_t
shc_layout_hash_number(uint64_t h, uint64_t n)
{
    for (int i = 0; i < 8; i++, n >>= 8)
        h = (h ^ (n & 0xff)) * UINT64_C(0x100000001b3);
    return h;
}

static inline uint64_t
shc_layout_hash(uint64_t h, const shc_layout_row_t *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h = shc_layout_hash_text(h, rows[i].type);
        h = shc_layout_hash_text(h, rows[i].field);
        h = shc_layout_hash_number(h, rows[i].offset);
        h = shc_layout_hash_number(h, rows[i].size);
    }
    return h;
}

#define SHC_LAYOUT_SEED UINT64_C(0xcbf29ce484222325)

#endif
