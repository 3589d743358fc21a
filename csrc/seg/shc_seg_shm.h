/* The head of every segment.
 *
 *     0        identification and geometry: written once before the segment has a name, never again
 *     256      life: {OPEN, seq} | {DOOMED, owner} | {UNLINKED}
 *     512      participant slots, 64 bytes each
 *     body     the structure, at body_offset
 *
 * Always true: magic, version, fingerprint and kind match the reader's, or it refuses; participants_offset == 512;
 * 512 + 64 * participants <= body_offset; body_offset + body_size == size == the file's size. */
#ifndef SHC_SEG_SHM_H
#define SHC_SEG_SHM_H

#include "sync/shc_event_shm.h"
#include "sync/shc_lock_shm.h"
#include "sync/shc_participant_shm.h"

#define SHC_SEG_MAGIC UINT64_C(0x314d4d4f434d4853) /* "SHMCOMM1", little-endian */
#define SHC_SEG_FORMAT_VERSION 1u
#define SHC_SEG_CONFIG_WORDS 8
#define SHC_SEG_PARTICIPANTS_OFFSET 512u
#define SHC_SEG_FLAG_PERSIST 1u
#define SHC_SEG_FLAG_GROWS 2u

typedef struct shc_seg_id {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t fingerprint;
    uint64_t size;
    uint64_t body_offset;
    uint64_t body_size;
    uint32_t participants_offset;
    uint32_t participants;
    uint32_t flags;
    uint32_t creator_pid;
    uint64_t created;
    uint64_t pidns;
    uint64_t key;
    uint64_t config[SHC_SEG_CONFIG_WORDS];
    uint64_t spare[13];
} shc_seg_id_t;

#define SHC_SEG_ID_LAYOUT(ROW, T)                                                                                      \
    ROW(T, magic, 0, 8, "creator", "\"SHMCOMM1\"")                                                                     \
    ROW(T, version, 8, 4, "creator", "format version")                                                                 \
    ROW(T, kind, 12, 4, "creator", "what the body is; seg/shc_kinds.def")                                              \
    ROW(T, fingerprint, 16, 8, "creator", "hash of the layout tables that apply to this kind")                         \
    ROW(T, size, 24, 8, "creator", "bytes of the whole segment")                                                       \
    ROW(T, body_offset, 32, 8, "creator", "where the structure begins")                                                \
    ROW(T, body_size, 40, 8, "creator", "bytes of the structure")                                                      \
    ROW(T, participants_offset, 48, 4, "creator", "512")                                                               \
    ROW(T, participants, 52, 4, "creator", "number of participant slots")                                              \
    ROW(T, flags, 56, 4, "creator", "bit 0: PERSIST, keep the name when nobody is left; bit 1: GROWS")                 \
    ROW(T, creator_pid, 60, 4, "creator", "for people")                                                                \
    ROW(T, created, 64, 8, "creator", "wall clock, ns since 1970, for people")                                         \
    ROW(T, pidns, 72, 8, "creator", "PID namespace whose process ids the slots hold, 0 unknown")                       \
    ROW(T, key, 80, 8, "creator", "random; makes stale bytes of other segments fail record checks")                    \
    ROW(T, config, 88, 64, "creator", "the kind's own geometry and options")                                           \
    ROW(T, spare, 152, 104, "nobody", "zero")

SHC_SEG_ID_LAYOUT(SHC_LAYOUT_ASSERT, shc_seg_id_t)

typedef struct shc_seg_shm {
    shc_seg_id_t id;
    shc_a64_t life;
    uint64_t spare[31];
} shc_seg_shm_t;

#define SHC_SEG_LAYOUT(ROW, T)                                                                                         \
    ROW(T, id, 0, 256, "creator", "immutable; see shc_seg_id_t")                                                       \
    ROW(T, life, 256, 8, "joiners, remover",                                                                           \
        "state 2 | index 12 | sequence, generation or pid 32; the owner-stamped word of the name")                     \
    ROW(T, spare, 264, 248, "nobody", "zero")

SHC_SEG_LAYOUT(SHC_LAYOUT_ASSERT, shc_seg_shm_t)
_Static_assert(sizeof(shc_seg_shm_t) == SHC_SEG_PARTICIPANTS_OFFSET, "the slots follow the head");

enum {
    SHC_SEG_OPEN = 0,     /* the name leads here; low bits count completed attaches */
    SHC_SEG_DOOMED = 1,   /* the stamped participant is removing the name */
    SHC_SEG_UNLINKED = 2, /* the name is gone; who has the segment open goes on using it */
};

/* In place of an index: a visitor that found no free slot. The number is its pid. */
#define SHC_SEG_LIFE_VISITOR UINT32_C(0xfff)

static inline uint64_t
shc_seg_life_word(uint32_t state, uint32_t index, uint32_t number)
{
    return (uint64_t)state | (uint64_t)(index & 0xfff) << 2 | (uint64_t)number << 14;
}

static inline uint32_t
shc_seg_life_state(uint64_t word)
{
    return (uint32_t)(word & 3);
}

static inline uint32_t
shc_seg_life_index(uint64_t word)
{
    return (uint32_t)(word >> 2) & 0xfff;
}

static inline uint32_t
shc_seg_life_number(uint64_t word)
{
    return (uint32_t)(word >> 14);
}

#endif
