/* Everything there is to say about the memory format, for LAYOUT.md, tests and viewers. */
#ifndef SHC_DUMP_H
#define SHC_DUMP_H

#include "seg/shc_seg.h"

typedef struct shc_layout_table {
    const char *type;
    const char *source; /* header that documents it */
    const shc_layout_row_t *rows;
    size_t n;
    size_t size; /* of the struct */
} shc_layout_table_t;

const shc_layout_table_t *shc_layout_tables(size_t *n);

/* The name of a kind ("ring"), or NULL. */
const char *shc_kind_name(uint32_t kind);

/* What a kind asks of its segment, or NULL. */
const shc_seg_spec_t *shc_kind_spec(uint32_t kind);

#endif
