/* Prints csrc/LAYOUT.md: `make -C csrc layout`. */
#include <stdio.h>

#include "seg/shc_seg.h"
#include "tool/shc_dump.h"

/* In a table's cell a bar must be escaped. */
static void
print_cell(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            putchar('\\');
        putchar(*text);
    }
    printf(" |");
}

static void
print_row(const shc_layout_row_t *row)
{
    printf("| %u | %u | `%s` | ", row->offset, row->size, row->field);
    print_cell(row->writer);
    putchar(' ');
    print_cell(row->note);
    putchar('\n');
}

static void
print_table(const shc_layout_table_t *table)
{
    printf("\n## %s: %zu bytes (%s)\n\n", table->type, table->size, table->source);
    printf("| offset | size | field | written by | meaning |\n| ---: | ---: | --- | --- | --- |\n");
    for (size_t i = 0; i < table->n; i++) {
        uint32_t line = table->rows[i].offset / SHC_CACHE_LINE;
        if (i > 0 && line != table->rows[i - 1].offset / SHC_CACHE_LINE)
            printf("| | | *line %u* | | |\n", line);
        print_row(&table->rows[i]);
    }
}

int
main(void)
{
    size_t n;
    const shc_layout_table_t *tables = shc_layout_tables(&n);
    uint64_t hash = shc_layout_hash_number(SHC_LAYOUT_SEED, SHC_SEG_FORMAT_VERSION);
    for (size_t i = 0; i < n; i++)
        hash = shc_layout_hash(hash, tables[i].rows, tables[i].n);
    printf("# What lies in shared memory\n\n"
           "Made by `make -C csrc layout` from the tables beside the structs; do not edit. Offsets and sizes are in "
           "bytes, numbers\n"
           "in the machine's byte order (little-endian on all supported machines). A line is %d bytes; `*line n*` "
           "marks where the\n"
           "next one begins.\n\n"
           "Format version %d, fingerprint of all tables `%016llx`.\n",
           SHC_CACHE_LINE, (int)SHC_SEG_FORMAT_VERSION, (unsigned long long)hash);
    for (size_t i = 0; i < n; i++)
        print_table(&tables[i]);
    return ferror(stdout) != 0;
}
