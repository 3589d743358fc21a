#include "ds/shc_buffer.h"

#include <string.h>

#include "base/shc_crc32c.h"

static const shc_layout_row_t buffer_rows[] = {SHC_BUFFER_LAYOUT(SHC_LAYOUT_ROW, shc_buffer_shm_t)};

static int
validate(const shc_seg_id_t *id)
{
    uint64_t size = id->config[SHC_BUFFER_CONFIG_SIZE];
    bool sound = size >= 1 && size <= SHC_BUFFER_SIZE_MAX && id->body_size == shc_buffer_body_size(size) &&
                 id->config[SHC_BUFFER_CONFIG_CHECKSUM] <= 1;
    return sound ? 0 : SHC_E_CORRUPT;
}

uint64_t
shc_buffer_body_size(uint64_t size)
{
    return sizeof(shc_buffer_shm_t) + size;
}

void
shc_buffer_init(shc_seg_t *seg)
{
    shc_buffer_shm_t *shm = shc_seg_body(seg);
    shc_a32_store_relaxed(&shm->magic, SHC_BUFFER_MAGIC);
    shc_a32_store_relaxed(&shm->version, SHC_BUFFER_VERSION);
    shc_a64_store_relaxed(&shm->size, seg->id.config[SHC_BUFFER_CONFIG_SIZE]);
}

void
shc_buffer_open(shc_buffer_t *buffer, shc_seg_t *seg)
{
    buffer->shm = shc_seg_body(seg);
    buffer->data = (uint8_t *)(buffer->shm + 1);
    buffer->size = seg->id.config[SHC_BUFFER_CONFIG_SIZE];
}

uint64_t
shc_buffer_used(const shc_buffer_t *buffer)
{
    uint64_t used = shc_a64_load_acquire(&buffer->shm->used); /* A1 */
    return used < buffer->size ? used : buffer->size;
}

void
shc_buffer_note_write(shc_buffer_t *buffer, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;
    uint64_t used = shc_a64_load_relaxed(&buffer->shm->used);
    while (used < end && !shc_a64_cas_seq_cst(&buffer->shm->used, &used, end)) /* AR1 */
        ;
}

/* Whether the mark lies in (offset, offset + length]; a forged one beyond the size counts as the size. */
static bool
ends_inside(const shc_buffer_t *buffer, uint64_t used, uint64_t offset, uint64_t length)
{
    uint64_t end = used < buffer->size ? used : buffer->size;
    return end > offset && end <= offset + length;
}

void
shc_buffer_clear(shc_buffer_t *buffer, uint64_t offset, uint64_t length)
{
    uint64_t used = shc_a64_load_relaxed(&buffer->shm->used);
    memset(buffer->data + offset, 0, length);
    while (ends_inside(buffer, used, offset, length) &&
           !shc_a64_cas_seq_cst(&buffer->shm->used, &used, offset)) /* AR1 */
        ;
}

uint32_t
shc_buffer_checksum(const shc_buffer_t *buffer)
{
    return shc_crc32c(0, buffer->data, buffer->size);
}

int
shc_buffer_check(const shc_buffer_t *buffer)
{
    const shc_buffer_shm_t *shm = buffer->shm;
    bool sound = shc_a32_load_relaxed(&shm->magic) == SHC_BUFFER_MAGIC &&
                 shc_a32_load_relaxed(&shm->version) == SHC_BUFFER_VERSION &&
                 shc_a64_load_relaxed(&shm->size) == buffer->size && shc_a64_load_relaxed(&shm->used) <= buffer->size;
    return sound ? 0 : SHC_E_CORRUPT;
}

/* Each word by itself is sound at any time. */
static int
check_segment(shc_seg_t *seg, bool at_rest)
{
    shc_buffer_t buffer;
    (void)at_rest;
    shc_buffer_open(&buffer, seg);
    return shc_buffer_check(&buffer);
}

const shc_seg_spec_t shc_buffer_spec = {
    .kind = SHC_KIND_BUFFER,
    .rows = buffer_rows,
    .row_count = SHC_ARRAY_SIZE(buffer_rows),
    .body_align = SHC_HOT_PAD,
    .sweep = NULL,
    .validate = validate,
    .check = check_segment,
};
