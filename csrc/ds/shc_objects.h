/* A pool of objects: a number of slots, each in the hands of at most one process.
 *
 * Overview. A slot is the right to use one object, and perhaps a piece of shared memory over which each process builds
 * an object of its own. Taking a slot and giving it back are one compare-and-swap each on the slot's word, which names
 * its holder. Nothing else decides: the hint bits only say where to look first, and there is no count to go wrong. A
 * slot whose holder was killed comes back as DIRTY: what it holds is half done, and its next holder, who has the code
 * for it, must reset it before use.
 *
 * Usage
 *     if (shc_objects_try_take(o, slot, &dirty)) ...               the slot that one knows from last time
 *     r = shc_objects_take(o, &slot, &dirty);                      0 or SHC_EMPTY
 *     use shc_objects_memory(o, slot), after a reset if it was dirty
 *     r = shc_objects_give_back(o, slot, is_dirty);                0 or SHC_E_CORRUPT
 *
 * Waiting is the caller's, on shm->returned: every slot that becomes free is followed by a notify. A process gets the
 * slots back that it used last, and so the objects that it has built, if it tries those first. So no list of free slots
 * is needed: it would be one more word for everybody to fight over.
 *
 * Guarantees
 *   (a) A slot that was taken is nobody else's until it is given back or its holder is dead.
 *   (b) Who takes a slot sees all that earlier holders wrote to its memory.
 *   (c) take says SHC_EMPTY only if it saw every slot's word name a holder, and asked the kernel about each of them.
 *   (d) Words are read once and never trusted: a holder that is in no participant slot counts as dead, bits without
 *       meaning are ignored and go with the next holder. Indices and loops are bounded by private geometry.
 *
 * Progress: try_take and give_back are wait-free; take looks at each slot at most three times (hints, words, holders),
 * and asks the kernel about each holder once, if nothing was free. What others do meanwhile makes no loop longer.
 *
 * Pairs
 *   A1 <- AR1: who takes a slot  <- who gave it back, or swept it: the holder's use of its memory.
 *   SC1: a slot's word is freed, then its hint is read (who gives back; the fence is the one of notify)  <->  a hint is
 *        cleared, then the slot's word is read (who searches): of the two at least one sees the other, and sets the
 *        hint again.
 *   `deaths` carries no data and has no order: relaxed.
 *
 * Crash points
 *   slot taken                          its word names the dead: who finds nothing free takes it over, or a reaper
 *                                       sweeps it; either way it is dirty
 *   word freed, no notify               the slice of a sleeper ends
 *   word freed, hint not set            take looks at all words before it says SHC_EMPTY
 *   hint cleared, slot not looked at    the same
 *   taken over from the dead            the slot is the new holder's; if it dies, too, the slot is dirty as before
 *   in the sweep                        what was swept is free; the rest still names the dead, for the next reaper
 *   swept, no notify                    the slice of a sleeper ends
 *
 * ABA: a free word carries nothing that could be stale: who sees it free may take it. A holder's word names a
 * generation of 32 bits.
 *
 * Source: ours. Hints that are set only if they are not, and cleared only by who was misled, are read by all and
 * written by nobody while each process goes on with its own slots. */
#ifndef SHC_OBJECTS_H
#define SHC_OBJECTS_H

#include "ds/shc_objects_shm.h"
#include "seg/shc_seg.h"
#include "sync/shc_event.h"

/* Process-private, and constant once it is open. */
typedef struct shc_objects {
    shc_objects_shm_t *shm;
    shc_a64_t *hints;
    shc_objects_slot_shm_t *slots;
    uint8_t *memory;
    const shc_seg_t *seg;
    uint32_t max_size;
    uint64_t slot_size;
    uint64_t pitch;
} shc_objects_t;

/* The slots at about one moment. */
typedef struct shc_objects_counts {
    uint32_t taken;
    uint32_t used;  /* that have ever been taken, those that are so now among them */
    uint32_t dirty; /* free ones that must be reset before use */
} shc_objects_counts_t;

extern const shc_seg_spec_t shc_objects_spec;

/* Bytes of the body for max_size and slot_size within their limits. */
uint64_t shc_objects_body_size(uint64_t max_size, uint64_t slot_size);

/* For shc_seg_create: all slots are free, and the hints say so. */
void shc_objects_init(shc_seg_t *seg);

/* Binds the private handle to an attached segment. Takes nothing. */
void shc_objects_open(shc_objects_t *o, const shc_seg_t *seg);

/* Takes this slot if it is free. *dirty: it must be reset before use. */
SHC_MUST_USE static SHC_ALWAYS_INLINE bool
shc_objects_try_take(const shc_objects_t *o, uint32_t slot, bool *dirty)
{
    shc_a64_t *word = &o->slots[slot].word;
    uint64_t seen = shc_a64_load_relaxed(word);
    if ((seen & SHC_OBJECTS_OWNER) != 0)
        return false;
    *dirty = (seen & SHC_OBJECTS_DIRTY) != 0;
    return shc_a64_cas_acquire(word, &seen, shc_seg_owner_word(o->seg) | SHC_OBJECTS_USED); /* A1 */
}

/* Takes any free slot, or one whose holder is dead. 0, SHC_EMPTY. */
SHC_MUST_USE int shc_objects_take(const shc_objects_t *o, uint32_t *slot, bool *dirty);

/* The slow part of giving back. */
void shc_objects__set_hint(const shc_objects_t *o, uint32_t slot);

static SHC_ALWAYS_INLINE bool
shc_objects__is_hinted(const shc_objects_t *o, uint32_t slot)
{
    return shc_a64_load_relaxed(&o->hints[slot / 64]) >> slot % 64 & 1;
}

/* Gives a slot back that this process holds, and wakes one that waits. SHC_E_CORRUPT: its word says something else. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_objects_give_back(const shc_objects_t *o, uint32_t slot, bool dirty)
{
    uint64_t mine = shc_seg_owner_word(o->seg) | SHC_OBJECTS_USED;
    uint64_t freed = SHC_OBJECTS_USED | (dirty ? SHC_OBJECTS_DIRTY : 0);
    if (SHC_UNLIKELY(!shc_a64_cas_seq_cst(&o->slots[slot].word, &mine, freed))) /* AR1 */
        return SHC_E_CORRUPT;
    shc_event_notify_one(&o->shm->returned);
    if (SHC_UNLIKELY(!shc_objects__is_hinted(o, slot)))
        shc_objects__set_hint(o, slot);
    return 0;
}

/* The slot's piece of shared memory; NULL if slots have none. */
static inline uint8_t *
shc_objects_memory(const shc_objects_t *o, uint32_t slot)
{
    return o->slot_size != 0 ? o->memory + slot * o->pitch : NULL;
}

/* Hints while others work. */
shc_objects_counts_t shc_objects_count(const shc_objects_t *o);

/* Slots in the hands of a participant. */
uint32_t shc_objects_held_by(const shc_objects_t *o, uint32_t index, uint32_t generation);

/* Read-only: every word and every hint is one that a correct process writes. 0 or SHC_E_CORRUPT. */
SHC_MUST_USE int shc_objects_check(const shc_objects_t *o);

#endif
