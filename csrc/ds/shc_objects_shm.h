/* A pool of objects in shared memory: who may use which of them.
 *
 *     0      returned                  where those sleep who found nothing free
 *     128    deaths
 *     256    hints                     one bit per slot, in 64-bit words, rounded up to 128 bytes
 *     ...    slots                     `max_size` words of 8 bytes, rounded up to 128 bytes
 *     ...    memory                    `max_size` pieces of `slot_size` bytes, each 64-byte aligned; none if that is 0
 *
 * Always true: a slot's word is {owner 44 | DIRTY | USED} and nothing else. owner 0: the slot is free. Else it is in
 * the hands of that participant, USED is set and DIRTY is not. DIRTY comes with USED. A hint says that a slot may be
 * free, and may be wrong either way. */
#ifndef SHC_OBJECTS_SHM_H
#define SHC_OBJECTS_SHM_H

#include "base/shc_math.h"
#include "sync/shc_event_shm.h"

typedef struct shc_objects_shm {
    shc_event_shm_t returned;
    uint8_t pad0[124];
    shc_a64_t deaths;
    uint8_t pad1[120];
} shc_objects_shm_t;

#define SHC_OBJECTS_LAYOUT(ROW, T)                                                                                     \
    ROW(T, returned, 0, 4, "both", "event count: a slot was given back")                                               \
    ROW(T, pad0, 4, 124, "nobody", "zero")                                                                             \
    ROW(T, deaths, 128, 8, "who mends", "slots that came back from dead holders; hint")                                \
    ROW(T, pad1, 136, 120, "nobody", "zero")

SHC_OBJECTS_LAYOUT(SHC_LAYOUT_ASSERT, shc_objects_shm_t)
_Static_assert(sizeof(shc_objects_shm_t) == 256, "hints follow the head");

typedef struct shc_objects_slot_shm {
    shc_a64_t word;
} shc_objects_slot_shm_t;

#define SHC_OBJECTS_SLOT_LAYOUT(ROW, T)                                                                                \
    ROW(T, word, 0, 8, "taker, owner, who mends",                                                                      \
        "index + 1 12 | generation 32 of the holder, 0 free | bit 44 DIRTY: reset before use | bit 45 USED")

SHC_OBJECTS_SLOT_LAYOUT(SHC_LAYOUT_ASSERT, shc_objects_slot_shm_t)

#define SHC_OBJECTS_OWNER ((UINT64_C(1) << 44) - 1)
#define SHC_OBJECTS_DIRTY (UINT64_C(1) << 44)
#define SHC_OBJECTS_USED (UINT64_C(1) << 45)

/* Config words of the segment. */
enum {
    SHC_OBJECTS_CONFIG_MAX_SIZE = 0,  /* slots */
    SHC_OBJECTS_CONFIG_SLOT_SIZE = 1, /* bytes of memory of each, 0: none */
};

#define SHC_OBJECTS_MAX_SIZE_MAX (UINT64_C(1) << 16)
#define SHC_OBJECTS_SLOT_SIZE_MAX (UINT64_C(1) << 40)
#define SHC_OBJECTS_SLOT_ALIGN UINT64_C(64)

static inline uint64_t
shc_objects_hint_words(uint64_t max_size)
{
    return (max_size + 63) / 64;
}

/* Offsets in the body. */
static inline uint64_t
shc_objects_slots_at(uint64_t max_size)
{
    return sizeof(shc_objects_shm_t) + shc_align_up(shc_objects_hint_words(max_size) * 8, SHC_HOT_PAD);
}

static inline uint64_t
shc_objects_memory_at(uint64_t max_size)
{
    return shc_objects_slots_at(max_size) + shc_align_up(max_size * sizeof(shc_objects_slot_shm_t), SHC_HOT_PAD);
}

/* Bytes from one slot's memory to the next. */
static inline uint64_t
shc_objects_pitch(uint64_t slot_size)
{
    return shc_align_up(slot_size, SHC_OBJECTS_SLOT_ALIGN);
}

#endif
