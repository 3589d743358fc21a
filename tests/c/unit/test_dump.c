/* What there is to say about kinds and layouts. */
#include "tool/shc_dump.h"

#include <string.h>

#include "support/segfix.h"
#include "t.h"

TEST(every_kind_has_a_name_and_a_spec_of_its_own)
{
#define SHC_KIND(id, NAME, stem)                                                                                       \
    CHECK_STR(shc_kind_name(id), #stem);                                                                               \
    CHECK(shc_kind_spec(id) == &shc_##stem##_spec);                                                                    \
    CHECK_EQ(shc_kind_spec(id)->kind, id);
#include "seg/shc_kinds.def"
#undef SHC_KIND
}

TEST(what_is_no_kind_has_neither)
{
    static const uint32_t numbers[] = {0, 77, UINT32_MAX};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(numbers); i++) {
        CHECK_STR(shc_kind_name(numbers[i]), NULL);
        CHECK(shc_kind_spec(numbers[i]) == NULL);
    }
}

TEST(a_segment_is_laid_out_as_its_kind_and_as_no_other)
{
    shc_seg_t seg;
    fix_open();
    CHECK_OK(fix_create_ring("shmcomm.ring", 4, 4096, &seg));
    CHECK(shc_seg_is_laid_out(&seg.id, shc_kind_spec(SHC_KIND_RING)));
    CHECK(!shc_seg_is_laid_out(&seg.id, shc_kind_spec(SHC_KIND_BUFFER)));
    seg.id.fingerprint ^= 1;
    CHECK(!shc_seg_is_laid_out(&seg.id, shc_kind_spec(SHC_KIND_RING)));
    fix_leave(&seg, "shmcomm.ring");
    fix_close();
}

TEST(every_table_has_rows_and_a_source)
{
    size_t n;
    const shc_layout_table_t *tables = shc_layout_tables(&n);
    CHECK_GT(n, 0);
    for (size_t i = 0; i < n; i++) {
        CHECK_GT(tables[i].n, 0);
        CHECK_GT(tables[i].size, 0);
        CHECK(strstr(tables[i].source, ".h") != NULL);
    }
}
