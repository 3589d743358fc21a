/* The cell ring in shared memory: the engine of every queue that has many producers or many consumers. Not a kind by
 * itself: a kind has it in its body, where it likes.
 *
 *     0      tail                      the next message to be claimed
 *     128    head                      the oldest message that nobody has taken
 *     256    recl                      the oldest message whose memory is in use; counts of what came to nothing
 *     384    items                     where receivers sleep
 *     512    space, memory             where senders sleep, by what they lack
 *     640    control                   shutdown; read by all, hardly ever written
 *     768    entries                   `entries` lines of 64 bytes, a power of two
 *     ...    cells                     `cells` pieces of 64 bytes, a power of two
 *
 * Messages are numbered in the order in which they were claimed: modulo 2^40, from 0. Number n belongs to entry
 * n % entries, whose word {n 40 | state 3 | cells 10 | owner 11} is the only truth about it. A short payload lies in
 * the entry, a longer one in that many contiguous cells. Where those begin follows from where those of all earlier
 * messages lie, so a cursor is one word {number 40 | position 24}: the position is that of the first cell behind those
 * of message number - 1, modulo 2^24; and shc_cells_start() and _after() are all there is to know about wrapping.
 *
 * Always true: recl <= head, in numbers; head and tail each pass a number only after it was claimed; recl passes it
 * only when it is over; what is claimed at tail is less than `entries` numbers and at most `cells` positions beyond
 * recl. The entry of a number that was never claimed names number - entries, which is over. */
#ifndef SHC_CELLS_SHM_H
#define SHC_CELLS_SHM_H

#include "base/shc_math.h"
#include "sync/shc_event_shm.h"

typedef struct shc_cells_shm {
    shc_a64_t tail;
    uint8_t pad0[120];
    shc_a64_t head;
    uint8_t pad1[120];
    shc_a64_t recl;
    shc_a64_t lost;
    shc_a64_t aborted;
    uint8_t pad2[104];
    shc_event_shm_t items;
    uint8_t pad3[124];
    shc_event_shm_t space;
    shc_event_shm_t memory;
    uint8_t pad4[120];
    shc_a32_t shutdown;
    uint8_t pad5[124];
} shc_cells_shm_t;

#define SHC_CELLS_LAYOUT(ROW, T)                                                                                       \
    ROW(T, tail, 0, 8, "senders", "number 40 | position 24 behind the last claimed message; helped")                   \
    ROW(T, pad0, 8, 120, "nobody", "zero")                                                                             \
    ROW(T, head, 128, 8, "receivers, senders", "the same of the oldest message that nobody has taken; helped")         \
    ROW(T, pad1, 136, 120, "nobody", "zero")                                                                           \
    ROW(T, recl, 256, 8, "receivers, senders", "the same of the oldest message that is not over; helped")              \
    ROW(T, lost, 264, 8, "who moves recl", "number 40 of the last one that was counted | count 24, sticks at its end") \
    ROW(T, aborted, 272, 8, "who moves recl", "the same for reservations that were given up")                          \
    ROW(T, pad2, 280, 104, "nobody", "zero")                                                                           \
    ROW(T, items, 384, 4, "all", "event count: the oldest message can be taken")                                       \
    ROW(T, pad3, 388, 124, "nobody", "zero")                                                                           \
    ROW(T, space, 512, 4, "all", "event count: there is a place for one more")                                         \
    ROW(T, memory, 516, 4, "all", "event count: there is a place, and more memory than there was")                     \
    ROW(T, pad4, 520, 120, "nobody", "zero")                                                                           \
    ROW(T, shutdown, 640, 4, "anybody", "bit 0: no more sends; bit 1: what is left is not delivered; sticky")          \
    ROW(T, pad5, 644, 124, "nobody", "zero")

SHC_CELLS_LAYOUT(SHC_LAYOUT_ASSERT, shc_cells_shm_t)
_Static_assert(sizeof(shc_cells_shm_t) == 768, "entries follow the head");

#define SHC_CELLS_SMALL 48u
#define SHC_CELLS_CELL 64u

typedef struct shc_cells_entry_shm {
    shc_a64_t word;
    shc_a64_t meta;
    uint8_t small[SHC_CELLS_SMALL];
} shc_cells_entry_shm_t;

#define SHC_CELLS_ENTRY_LAYOUT(ROW, T)                                                                                 \
    ROW(T, word, 0, 8, "claimer, sender, receiver, who mends",                                                         \
        "number 40 | state 3 | cells 10 | owner's index + 1 11")                                                       \
    ROW(T, meta, 8, 8, "sender", "length 32 | tag 8 | flags 8 | zero 16")                                              \
    ROW(T, small, 16, 48, "sender", "the payload, if it takes no cells")

SHC_CELLS_ENTRY_LAYOUT(SHC_LAYOUT_ASSERT, shc_cells_entry_shm_t)
_Static_assert(sizeof(shc_cells_entry_shm_t) == SHC_CACHE_LINE, "an entry is one line");

/* ---- words ---- */

#define SHC_CELLS_NUMBER_SHIFT 24
#define SHC_CELLS_NUMBER (~UINT64_C(0) << SHC_CELLS_NUMBER_SHIFT)
#define SHC_CELLS_POSITION ((UINT64_C(1) << SHC_CELLS_NUMBER_SHIFT) - 1)
#define SHC_CELLS_OWNER UINT64_C(0x7ff)
#define SHC_CELLS_STATE (UINT64_C(7) << 21)

/* Those up to ABORTED are over: nobody needs the message any more. */
#define SHC_CELLS_FREE (UINT64_C(0) << 21)    /* received */
#define SHC_CELLS_LOST (UINT64_C(1) << 21)    /* its owner died while it wrote or read */
#define SHC_CELLS_ABORTED (UINT64_C(2) << 21) /* its sender thought better of it */
#define SHC_CELLS_CLAIMED (UINT64_C(3) << 21) /* owner writes */
#define SHC_CELLS_READY (UINT64_C(4) << 21)   /* owner has sent it */
#define SHC_CELLS_TAKEN (UINT64_C(5) << 21)   /* owner reads */

#define SHC_CELLS_SHUTDOWN 1u
#define SHC_CELLS_IMMEDIATE 2u

static inline uint64_t
shc_cells_state(uint64_t word)
{
    return word & SHC_CELLS_STATE;
}

static inline bool
shc_cells_is_over(uint64_t word)
{
    return shc_cells_state(word) <= SHC_CELLS_ABORTED;
}

static inline bool
shc_cells_is_held(uint64_t word)
{
    return shc_cells_state(word) == SHC_CELLS_CLAIMED || shc_cells_state(word) == SHC_CELLS_TAKEN;
}

static inline uint64_t
shc_cells_count_of(uint64_t word)
{
    return word >> 11 & 0x3ff;
}

static inline uint64_t
shc_cells_word(uint64_t number_bits, uint64_t state, uint64_t count, uint64_t owner)
{
    return number_bits | state | count << 11 | owner;
}

/* How far `to` is beyond `from`, in units of 2^24: numbers stand in the highest bits, so they wrap by themselves. */
static inline uint64_t
shc_cells_apart(uint64_t from, uint64_t to)
{
    return (to & SHC_CELLS_NUMBER) - (from & SHC_CELLS_NUMBER);
}

/* Position of the first of `count` contiguous cells that are claimed at a cursor. */
static inline uint64_t
shc_cells_start(uint64_t cursor, uint64_t count, uint64_t cells)
{
    uint64_t at = cursor & SHC_CELLS_POSITION, to_end = cells - (at & (cells - 1));
    return count <= to_end ? at : at + to_end;
}

/* The cursor behind that message. */
static inline uint64_t
shc_cells_after(uint64_t cursor, uint64_t count, uint64_t cells)
{
    uint64_t position = (shc_cells_start(cursor, count, cells) + count) & SHC_CELLS_POSITION;
    return ((cursor & SHC_CELLS_NUMBER) + (UINT64_C(1) << SHC_CELLS_NUMBER_SHIFT)) | position;
}

static inline uint64_t
shc_cells_meta(uint32_t length, uint8_t tag, uint8_t flags)
{
    return (uint64_t)length | (uint64_t)tag << 32 | (uint64_t)flags << 40;
}

/* ---- geometry: two config words of the kind ---- */

#define SHC_CELLS_CONFIG_WORDS 2
#define SHC_CELLS_CAPACITY_MAX (UINT64_C(1) << 22)
#define SHC_CELLS_CELLS_MIN (UINT64_C(1) << 6)
#define SHC_CELLS_CELLS_MAX (UINT64_C(1) << 23)
#define SHC_CELLS_COUNT_MAX UINT64_C(1023)

/* Cells that one message may take: it fits into an empty ring wherever that begins. */
static inline uint64_t
shc_cells_count_max(uint64_t cells)
{
    return cells / 2 < SHC_CELLS_COUNT_MAX ? cells / 2 : SHC_CELLS_COUNT_MAX;
}

#endif
