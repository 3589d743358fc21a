#include "ds/shc_extent.h"

#include <errno.h>
#include <string.h>

typedef struct descriptor {
    uint64_t ref;
    uint64_t length;
} descriptor_t;

_Static_assert(sizeof(descriptor_t) == SHC_EXTENT_DESCRIPTOR, "two words");

static bool
is_system_short(int status)
{
    return status == -ENOSPC || status == -ENOMEM;
}

int
shc_extent_allocate(shc_arena_t *arena, uint64_t n, shc_extent_t *out)
{
    void *memory;
    uint64_t least = arena->small_max + 1, bytes = n < least ? least : n;
    int r = shc_arena_allocate(arena, bytes, &out->ref);
    if ((r == SHC_FULL || is_system_short(r)) && shc_seg_reap_participants(arena->seg) != 0)
        r = shc_arena_allocate(arena, bytes, &out->ref);
    if (is_system_short(r) && shc_arena_is_used(arena))
        return SHC_FULL;
    if (r == 0)
        r = shc_arena_resolve(arena, out->ref, &memory, &out->length);
    if (r == 0)
        out->memory = memory;
    return r;
}

void
shc_extent_describe(const shc_extent_t *extent, uint64_t length)
{
    descriptor_t d = {.ref = extent->ref, .length = length};
    memcpy(extent->descriptor, &d, sizeof d);
}

int
shc_extent_read(shc_arena_t *arena, const uint8_t *record, uint64_t length, shc_extent_t *out)
{
    void *memory;
    uint64_t room;
    if (length != SHC_EXTENT_DESCRIPTOR)
        return SHC_E_STALE;
    out->ref = shc_racy_u64(record);
    out->length = shc_racy_u64(record + sizeof(uint64_t));
    if (!shc_arena_is_ref(out->ref) || shc_arena_resolve(arena, out->ref, &memory, &room) != 0 || out->length > room)
        return SHC_E_STALE;
    out->memory = memory;
    return 0;
}
