#include "tool/shc_dump.h"

#include "ds/shc_buffer.h"
#include "ds/shc_cells_shm.h"
#include "ds/shc_objects.h"
#include "ds/shc_pool.h"
#include "ds/shc_ring.h"
#include "seg/shc_arena_shm.h"

#define ROWS(name, LAYOUT, T) static const shc_layout_row_t name##_rows[] = {LAYOUT(SHC_LAYOUT_ROW, T)};
#define TABLE(name, T, source)                                                                                         \
    {                                                                                                                  \
#T, source, name##_rows, SHC_ARRAY_SIZE(name##_rows), sizeof(T)                                                \
    }

ROWS(seg_id, SHC_SEG_ID_LAYOUT, shc_seg_id_t)
ROWS(seg, SHC_SEG_LAYOUT, shc_seg_shm_t)
ROWS(participant, SHC_PARTICIPANT_LAYOUT, shc_participant_shm_t)
ROWS(event, SHC_EVENT_LAYOUT, shc_event_shm_t)
ROWS(lock, SHC_LOCK_LAYOUT, shc_lock_shm_t)
ROWS(arena, SHC_ARENA_LAYOUT, shc_arena_shm_t)
ROWS(arena_map, SHC_ARENA_MAP_LAYOUT, shc_arena_map_shm_t)
ROWS(arena_party, SHC_ARENA_PARTY_LAYOUT, shc_arena_party_shm_t)
ROWS(buffer, SHC_BUFFER_LAYOUT, shc_buffer_shm_t)
ROWS(ring, SHC_RING_LAYOUT, shc_ring_shm_t)
ROWS(pool, SHC_POOL_LAYOUT, shc_pool_shm_t)
ROWS(pool_place, SHC_POOL_PLACE_LAYOUT, shc_pool_place_shm_t)
ROWS(cells, SHC_CELLS_LAYOUT, shc_cells_shm_t)
ROWS(cells_entry, SHC_CELLS_ENTRY_LAYOUT, shc_cells_entry_shm_t)
ROWS(objects, SHC_OBJECTS_LAYOUT, shc_objects_shm_t)
ROWS(objects_slot, SHC_OBJECTS_SLOT_LAYOUT, shc_objects_slot_shm_t)

static const shc_layout_table_t tables[] = {
    TABLE(seg_id, shc_seg_id_t, "seg/shc_seg_shm.h"),
    TABLE(seg, shc_seg_shm_t, "seg/shc_seg_shm.h"),
    TABLE(participant, shc_participant_shm_t, "sync/shc_participant_shm.h"),
    TABLE(event, shc_event_shm_t, "sync/shc_event_shm.h"),
    TABLE(lock, shc_lock_shm_t, "sync/shc_lock_shm.h"),
    TABLE(arena, shc_arena_shm_t, "seg/shc_arena_shm.h"),
    TABLE(arena_map, shc_arena_map_shm_t, "seg/shc_arena_shm.h"),
    TABLE(arena_party, shc_arena_party_shm_t, "seg/shc_arena_shm.h"),
    TABLE(buffer, shc_buffer_shm_t, "ds/shc_buffer_shm.h"),
    TABLE(ring, shc_ring_shm_t, "ds/shc_ring_shm.h"),
    TABLE(pool, shc_pool_shm_t, "ds/shc_pool_shm.h"),
    TABLE(pool_place, shc_pool_place_shm_t, "ds/shc_pool_shm.h"),
    TABLE(cells, shc_cells_shm_t, "ds/shc_cells_shm.h"),
    TABLE(cells_entry, shc_cells_entry_shm_t, "ds/shc_cells_shm.h"),
    TABLE(objects, shc_objects_shm_t, "ds/shc_objects_shm.h"),
    TABLE(objects_slot, shc_objects_slot_shm_t, "ds/shc_objects_shm.h"),
};

const shc_layout_table_t *
shc_layout_tables(size_t *n)
{
    *n = SHC_ARRAY_SIZE(tables);
    return tables;
}

const char *
shc_kind_name(uint32_t kind)
{
    switch (kind) {
#define SHC_KIND(id, NAME, stem)                                                                                       \
    case id:                                                                                                           \
        return #stem;
#include "seg/shc_kinds.def"
#undef SHC_KIND
    default:
        return NULL;
    }
}

const shc_seg_spec_t *
shc_kind_spec(uint32_t kind)
{
    switch (kind) {
#define SHC_KIND(id, NAME, stem)                                                                                       \
    case id:                                                                                                           \
        return &shc_##stem##_spec;
#include "seg/shc_kinds.def"
#undef SHC_KIND
    default:
        return NULL;
    }
}
