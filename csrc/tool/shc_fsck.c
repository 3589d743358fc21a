#include "tool/shc_fsck.h"

#include "tool/shc_dump.h"

static int
check_body(shc_seg_t *seg, shc_fsck_t *out)
{
    shc_a64_t *life = &shc_seg_shm(seg)->life;
    uint64_t before = shc_a64_load_relaxed(life);
    int r = seg->spec->check(seg, !out->in_use);
    bool came = !out->in_use && (shc_seg_is_in_use(seg) || shc_a64_load_relaxed(life) != before);
    return r != 0 && came ? SHC_AGAIN : r;
}

static int
check_mapped(shc_seg_t *seg, shc_fsck_t *out)
{
    out->part = SHC_FSCK_HEAD;
    out->in_use = shc_seg_is_in_use(seg);
    int r = shc_seg_check(seg);
    if (r != 0)
        return r;
    out->part = SHC_FSCK_BODY;
    return check_body(seg, out);
}

int
shc_fsck(int dir_fd, const char *file, shc_self_t *self, shc_fsck_t *out)
{
    shc_seg_t seg;
    *out = (shc_fsck_t){.part = SHC_FSCK_HEAD};
    int r = shc_seg_inspect(dir_fd, file, self, &out->report);
    const shc_seg_spec_t *spec = shc_kind_spec(out->report.id.kind);
    if (r == 0)
        r = spec != NULL ? shc_seg_view(dir_fd, file, self, spec, &seg) : SHC_E_KIND;
    if (r == 0) {
        r = check_mapped(&seg, out);
        shc_seg_unmap(&seg);
    }
    out->part = r == SHC_E_CORRUPT ? out->part : SHC_FSCK_NOTHING;
    return r;
}
