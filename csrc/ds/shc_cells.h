/* The cell ring: any number of senders and receivers, messages of any length up to half of the memory or 64 KiB.
 *
 * Overview. A message goes through one word, that of its entry:
 *
 *     over(n - entries)   --claim-->      CLAIMED(n, me)    number n, a place and memory are this process's
 *     CLAIMED(n, me)      --publish-->    READY(n)          the message exists
 *     CLAIMED(n, me)      --abort-->      ABORTED(n)
 *     READY(n)            --take-->       TAKEN(n, me)      nobody else gets it; its memory stays until
 *     TAKEN(n, me)        --give_back-->  FREE(n)
 *     CLAIMED | TAKEN(n, dead)  --unblock, sweep-->  LOST(n)
 *
 * each step ONE atomic operation, so that at every instruction a message is nobody's or an identified process's. The
 * claim takes number, place and memory at once, since where a message lies follows from its number and from what was
 * claimed before it. At no instant has a number been given out to somebody whom one could not ask the kernel about;
 * such an instant is what stops other queues for good when a process is killed in it.
 *
 * tail, head and recl are hints in a strict sense: each may lag, none may lead, and what moves them is derived from
 * the words. Whoever finds one lagging moves it, by a compare-and-swap from what it was to what must follow. So the
 * one who claims or takes moves it last, after the publication, where that step is also the fence that it needs.
 *
 * An entry is one line and has room for a short payload: such a message costs one transfer of one line. A longer one
 * has contiguous cells beside. Words lie where no payload ever lies. (With the word at the start of the first cell, as
 * the obvious layout has it, inner cells of long messages would overwrite old words, and a late claim might take bytes
 * for the word that it expects.)
 *
 * Usage. A kind has the engine in its body, with two config words and its rows, and calls shc_cells_sweep in its
 * sweep.
 *     r = shc_cells_claim(c, n, &slot);         0; SHC_FULL, SHC_SHUTDOWN, SHC_E_TOO_LARGE, SHC_E_CORRUPT
 *     fill at most slot.room bytes at slot.payload, now or later;
 *     shc_cells_send(c, &slot, length, tag, flags);      or shc_cells_abort(c, &slot)
 *
 *     r = shc_cells_take(c, &slot);             0; SHC_EMPTY, SHC_BUSY, SHC_SHUTDOWN, SHC_E_CORRUPT
 *     use slot.length bytes at slot.payload;
 *     shc_cells_finish(c, &slot);               in any order, from any thread
 *
 *     a batch: claim, claim_next ...; publish each; end_claims with the last one; notify_one(&c->shm->items)
 *              take, take_next ...; give_back each; end_takes with the last one; notify_space
 *     kept:    claim, end_claims; ...; send                take, hold, end_takes, notify_space; ...; finish, end_hold
 *
 * Nobody may wait for anything while he has a claim open: others wait for him. So a batch that meets SHC_FULL
 * publishes what it has. After a process has given up its participant, or has swept itself, its slots are void.
 *
 * SHC_BUSY: the oldest message is still being written, so younger ones must wait. To who does not wait that is the
 * same as SHC_EMPTY. After SHC_FULL and SHC_BUSY slot.entry and slot.word say what is in the way. Before the caller
 * reports such an outcome, or sleeps, it calls shc_cells_unblock(c, &slot), which asks the kernel whether the owner in
 * that word is dead; true: try again. Nothing else here asks the kernel.
 *
 * Waiting. After SHC_FULL, SHC_EMPTY and SHC_BUSY nothing can have changed before slot.entry->word != slot.word: that
 * is what to spin on. Then prepare, try again, unblock, and wait in slices, by the rules of shc_event.h, on items or
 * on shc_cells_space_event(c, &slot). Senders sleep in two places: a place serves any of them, so one is woken; memory
 * may be too little for one and enough for another, so all are. Who is woken and now lacks the other thing leaves the
 * first event as the rules say, and goes to the second. Who sleeps behind a word that names an owner takes short
 * slices and unblocks after each: nobody tells him of a death.
 *
 * Guarantees
 *   (a) One order: messages are received in the order of their claims, over all senders and receivers.
 *   (b) Each message is received once. A process that is killed loses at most what it was writing (CLAIMED) and what
 *       it had taken and not given back. Each such message is counted in `lost`, once, whoever mends it and however
 *       often the mending is killed.
 *   (c) SHC_EMPTY: at some instant of the call there was no message that had been claimed and not been taken.
 *       SHC_FULL: at some instant there were `capacity` of those, or no memory, or `entries` messages that were not
 *       over. So `capacity` counts messages, to the last; one that was taken does not count, though it is still read,
 *       as long as there are entries left (entries - capacity of them). One that was aborted or lost counts until
 *       those before it have been taken.
 *   (d) After a shutdown no claim succeeds, and each message whose claim did is delivered before any take says
 *       SHC_SHUTDOWN, unless the shutdown was immediate.
 *   (e) What is taken stays as it is until it is given back, in whatever order that happens. Memory is given to
 *       senders in order: a message that is held keeps the memory of all younger ones. Hence a limit per process.
 *   (f) A living process that is stopped while it writes stops all receivers at its message; one that is stopped while
 *       it reads stops reclamation there, so that senders go on until memory or entries run out. Nobody is taken for
 *       dead. So who writes for long should write elsewhere, into an arena's block, and send the reference.
 *   (g) Nothing read from the ring is trusted: counts, lengths and positions are bounded by private geometry before
 *       use, each shared word is read once, and every loop ends.
 *
 * Progress: lock-free. Who loses a compare-and-swap lost it to somebody who got on. No order among those who wait.
 *
 * Reclamation costs receivers nothing in most calls: every so often one walks over the words behind it, which are
 * still in its cache, and moves recl once. A sender walks only when it sees no room by the copy of recl that its
 * process has. How far recl may go is the decision of one function (may_pass): past what is over. A ring that is
 * broadcast would have another one: past what every subscriber has read.
 *
 * Large messages. Flag SHC_CELLS_REFERENCE: the payload is {reference, length} of an arena's block; all else about it
 * is the kind's. The block stays OWNED by the sender until the receiver adopts it, to which the entry's word alone
 * entitles him. READY keeps the sender in its word, so that a sweep finds by shc_cells_walk what a dead one had sent,
 * and can make those blocks ATTACHED. That must come before the arena's sweep, and shc_cells_sweep before both.
 *
 * Pairs
 *   A1 <- R1: who takes  <- who published: the message.
 *   A2 <- R2: who moves recl  <- who gave back or aborted: its use of the memory is over.
 *   A3 <- AR1: who uses what recl says  <- who moved it: what that one saw by A2.
 *   A4 <- R4: the same between the threads of a process, through its copy of recl.
 *   AR2: claim. It is for SC1 alone: that the last user of place and memory is done, A3 or A4 has said.
 *   AR3: LOST, by one to whom the kernel has said that the owner is dead, so that all its stores are visible.
 *   SC1, AR4: the claim is stored (AR2), then shutdown is read (sender)  <->  shutdown is stored (AR4), then, by
 *        whoever saw it, the word is read (SC2). Either the reader sees the claim, and waits for what becomes of it,
 *        or the sender sees the shutdown, and aborts.
 *   SC2: see SC1.
 *   SC3: a message is published or given back, then a sleeper's flag is read  <->  shc_event.h. In between tail or
 *        head is moved by a read-modify-write. The pair rests on the machines' order, not on C's: x86 lets no load
 *        pass that instruction; on arm64 no load-acquire, which the read of the flag is, passes the store-release
 *        before it.
 *   SC4: who peeks copies, then looks at the word again.
 *   tail and head carry no data. What they lead to, the words say.
 *
 * Crash points
 *   claimed, tail not moved           CLAIMED(dead)    tail: the next sender; the word: unblock or sweep make it LOST
 *   payload half written              CLAIMED(dead)    the same
 *   published, tail not moved         READY            the next sender
 *   published or aborted, no notify   READY, ABORTED   the slice of a sleeper ends
 *   claimed after a shutdown          CLAIMED(dead)    LOST; then receivers get SHC_SHUTDOWN
 *   taken, head not moved             TAKEN(dead)      head: the next one who looks; the word: LOST
 *   copied out, not given back        TAKEN(dead)      LOST: the message went with its receiver
 *   given back, head not moved        FREE             the next one who looks
 *   given back, recl not moved        FREE             whoever walks next
 *   in a batch, tail far behind       all of these     the next sender, step by step: a batch claims at most `run`
 *                                                      numbers beyond a tail, which are less than the entries
 *   LOST, not counted                 LOST             counted when recl passes it
 *   counted, recl not moved           LOST             not again: `lost` has its number
 *   mended, no notify                 LOST             the slice of a sleeper ends
 *   swept, half                       some LOST        the next reaper
 *
 * ABA: numbers only grow, and come round after 2^40 messages (30 hours at 10 million a second). A stale
 * compare-and-swap succeeds only if its process stood still for exactly that many, and all other bits agree. Between
 * the threads of a process nothing is different. An index alone names an owner: it is not given to another process
 * before all that its last one held has been swept.
 *
 * Source: the slot that is claimed first, with the cursor helped behind it, is that of NCQ (Nikolaev); owners in the
 * words, and what follows from them, are ours. */
#ifndef SHC_CELLS_H
#define SHC_CELLS_H

#include "ds/shc_cells_shm.h"
#include "seg/shc_seg.h"
#include "sync/shc_event.h"

/* Where the engine lies in a body, and how large it is. The kind chooses the first part, and keeps it in two config
 * words of its segment; shc_cells_lay_out computes the rest. */
typedef struct shc_cells_geometry {
    uint64_t capacity;   /* messages */
    uint64_t entries;    /* a power of two >= capacity; what is beyond it may be held without being felt */
    uint64_t cells;      /* a power of two */
    uint64_t entries_at; /* offsets from where the engine begins */
    uint64_t cells_at;
    uint64_t size;
} shc_cells_geometry_t;

/* Process-private, shared by its threads; constant but for the last line. */
typedef struct shc_cells {
    shc_cells_shm_t *shm;
    shc_cells_entry_shm_t *entries;
    uint8_t *cells;
    const shc_seg_t *seg;
    uint64_t entry_mask;
    uint64_t cell_count;
    uint64_t near;     /* a copy of recl that is fewer numbers old says all that must be known */
    uint64_t capacity; /* in numbers, shifted as they are in words */
    uint64_t lap;      /* entries, shifted */
    uint64_t run;      /* so far behind the last one claimed a batch may leave tail, shifted */
    uint64_t chunk;    /* so far behind a receiver recl may be, shifted */
    uint32_t payload_max;
    uint32_t hold_limit;
    uint8_t pad0[SHC_HOT_PAD];
    shc_a64_t recl_seen;
    shc_a32_t held;
} shc_cells_t;

/* A message in this process's hands, or what is in the way of one. */
typedef struct shc_cells_slot {
    shc_cells_entry_shm_t *entry;
    uint64_t word;   /* of the entry */
    uint64_t cursor; /* at which it was claimed or taken */
    uint64_t next;   /* the cursor behind it */
    uint64_t base;   /* where tail or head stood, as far as is known: that, or in a batch further back */
    uint8_t *payload;
    uint32_t room;   /* bytes that may be written, or lie there at most */
    uint32_t length; /* of a message that was taken */
    uint8_t tag;
    uint8_t flags;
    bool wants_memory; /* after SHC_FULL: there is a place, but no memory */
} shc_cells_slot_t;

/* Flags that the engine knows of; the others are the kind's. */
#define SHC_CELLS_REFERENCE 1u

/* ---- life ---- */

/* Computes the second part of the geometry. -EINVAL: no such ring. */
SHC_MUST_USE int shc_cells_lay_out(shc_cells_geometry_t *g);

void shc_cells_to_config(const shc_cells_geometry_t *g, uint64_t config[SHC_CELLS_CONFIG_WORDS]);

/* From config words that somebody else wrote: SHC_E_CORRUPT. */
SHC_MUST_USE int shc_cells_from_config(const uint64_t config[SHC_CELLS_CONFIG_WORDS], shc_cells_geometry_t *g);

/* In init() of shc_seg_create: `at` is memory of g->size bytes, aligned to SHC_HOT_PAD, all zero. */
void shc_cells_init(void *at, const shc_cells_geometry_t *g);

/* Binds the private handle. hold_limit: messages that this process may keep (shc_cells_hold). */
void shc_cells_open(shc_cells_t *c, const shc_seg_t *seg, void *at, const shc_cells_geometry_t *g, uint32_t hold_limit);

/* For the kind's sweep, and for a process that leaves: what participant `index` was writing or reading is lost. */
void shc_cells_sweep(const shc_cells_t *c, uint32_t index);

/* ---- shared between the two files ---- */

static SHC_ALWAYS_INLINE uint64_t
shc_cells__me(const shc_cells_t *c)
{
    return c->seg->index + UINT64_C(1);
}

static SHC_ALWAYS_INLINE shc_cells_entry_shm_t *
shc_cells__entry(const shc_cells_t *c, uint64_t cursor)
{
    return &c->entries[cursor >> SHC_CELLS_NUMBER_SHIFT & c->entry_mask];
}

static SHC_ALWAYS_INLINE bool
shc_cells__same(uint64_t a, uint64_t b)
{
    return ((a ^ b) & SHC_CELLS_NUMBER) == 0;
}

/* Whether the memory before `next` is free but for what lies from `recl` on. The two are less than 2^24 positions
 * apart. */
static SHC_ALWAYS_INLINE bool
shc_cells__fit(const shc_cells_t *c, uint64_t next, uint64_t recl)
{
    return ((next - recl) & SHC_CELLS_POSITION) <= c->cell_count;
}

/* Moves tail or head behind the message. False: somebody else has moved it. */
static SHC_ALWAYS_INLINE bool
shc_cells__step(shc_a64_t *hint, const shc_cells_slot_t *slot)
{
    uint64_t seen = slot->base;
    return shc_a64_cas_seq_cst(hint, &seen, slot->next); /* SC3 */
}

/* Whether somebody sleeps who must see what was stored before `stepped`. */
static SHC_ALWAYS_INLINE bool
shc_cells__has_sleepers(const shc_event_shm_t *event, bool stepped)
{
    if (SHC_UNLIKELY(!stepped))
        shc_fence_seq_cst();                                               /* SC3 */
    return (shc_a32_load_seq_cst(&event->word) & SHC_EVENT_SLEEPERS) != 0; /* SC3 */
}

/* From the word, the cursor and `next`. */
static SHC_ALWAYS_INLINE void
shc_cells__set_payload(const shc_cells_t *c, shc_cells_slot_t *slot)
{
    uint64_t count = shc_cells_count_of(slot->word);
    uint64_t first = (slot->next - count) & (c->cell_count - 1);
    slot->payload = count == 0 ? slot->entry->small : c->cells + first * SHC_CELLS_CELL;
    slot->room = count == 0 ? SHC_CELLS_SMALL : (uint32_t)count * SHC_CELLS_CELL;
}

/* ---- senders ---- */

SHC_MUST_USE int shc_cells__claim_slow(shc_cells_t *c, uint64_t count, shc_cells_slot_t *slot);
SHC_MUST_USE int shc_cells__withdraw(shc_cells_t *c, const shc_cells_slot_t *slot);

/* The entry's word says CLAIMED(me): was that still allowed? */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells__claimed(shc_cells_t *c, shc_cells_slot_t *slot)
{
    shc_cells__set_payload(c, slot);
    if (SHC_UNLIKELY(shc_a32_load_seq_cst(&c->shm->shutdown) != 0)) /* SC1 */
        return shc_cells__withdraw(c, slot);
    return 0;
}

SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells__claim_at(shc_cells_t *c, uint64_t tail, uint64_t need, shc_cells_slot_t *slot)
{
    if (SHC_UNLIKELY(need > c->payload_max))
        return SHC_E_TOO_LARGE;
    uint64_t count = need <= SHC_CELLS_SMALL ? 0 : (need + SHC_CELLS_CELL - 1) / SHC_CELLS_CELL;
    uint64_t recl = shc_a64_load_acquire(&c->recl_seen); /* A4 */
    slot->cursor = tail;
    slot->next = shc_cells_after(tail, count, c->cell_count);
    slot->entry = shc_cells__entry(c, tail);
    uint64_t before = shc_a64_load_relaxed(&slot->entry->word);
    slot->word = shc_cells_word(tail & SHC_CELLS_NUMBER, SHC_CELLS_CLAIMED, count, shc_cells__me(c));
    if (SHC_LIKELY(shc_cells_apart(before, tail) == c->lap && shc_cells_apart(recl, tail) < c->near &&
                   shc_cells__fit(c, slot->next, recl) && shc_a32_load_relaxed(&c->shm->shutdown) == 0) &&
        SHC_LIKELY(shc_a64_cas_seq_cst(&slot->entry->word, &before, slot->word))) /* AR2 */
        return shc_cells__claimed(c, slot);
    return shc_cells__claim_slow(c, count, slot);
}

/* The next message, with room for a payload of at least `need` bytes. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells_claim(shc_cells_t *c, uint64_t need, shc_cells_slot_t *slot)
{
    slot->base = shc_a64_load_relaxed(&c->shm->tail);
    return shc_cells__claim_at(c, slot->base, need, slot);
}

/* Moves tail behind what was claimed: for who publishes it later only. */
static SHC_ALWAYS_INLINE void
shc_cells_end_claims(const shc_cells_t *c, const shc_cells_slot_t *slot)
{
    (void)shc_cells__step(&c->shm->tail, slot);
}

/* In a batch, the one behind `last`, which this process has just claimed: as claim. tail stays where it is for a
 * while; after the last one shc_cells_end_claims moves it. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells_claim_next(shc_cells_t *c, const shc_cells_slot_t *last, uint64_t need, shc_cells_slot_t *slot)
{
    if (SHC_UNLIKELY(shc_cells_apart(last->base, last->cursor) >= c->run)) {
        shc_cells_end_claims(c, last);
        return shc_cells_claim(c, need, slot);
    }
    slot->base = last->base;
    return shc_cells__claim_at(c, last->next, need, slot);
}

/* The message exists from here on. length <= slot->room. Of a batch: then shc_event_notify_one(&c->shm->items). */
static SHC_ALWAYS_INLINE void
shc_cells_publish(const shc_cells_slot_t *slot, uint32_t length, uint8_t tag, uint8_t flags)
{
    shc_a64_store_relaxed(&slot->entry->meta, shc_cells_meta(length, tag, flags));
    shc_a64_store_release(&slot->entry->word, (slot->word & ~SHC_CELLS_STATE) | SHC_CELLS_READY); /* R1 */
}

/* All that there is to do about a single message: publishes it, moves tail, wakes a receiver. */
static SHC_ALWAYS_INLINE void
shc_cells_send(const shc_cells_t *c, const shc_cells_slot_t *slot, uint32_t length, uint8_t tag, uint8_t flags)
{
    shc_cells_publish(slot, length, tag, flags);
    bool stepped = shc_cells__step(&c->shm->tail, slot);
    if (SHC_UNLIKELY(shc_cells__has_sleepers(&c->shm->items, stepped)))
        shc_event_wake(&c->shm->items, 1);
}

/* The message will not be. Those behind it need not wait any longer. */
void shc_cells_abort(const shc_cells_t *c, const shc_cells_slot_t *slot);

/* Where to sleep after SHC_FULL. */
static inline shc_event_shm_t *
shc_cells_space_event(const shc_cells_t *c, const shc_cells_slot_t *slot)
{
    return slot->wants_memory ? &c->shm->memory : &c->shm->space;
}

/* ---- receivers ---- */

SHC_MUST_USE int shc_cells__take_slow(shc_cells_t *c, shc_cells_slot_t *slot);
void shc_cells__reclaim_some(shc_cells_t *c);

/* Reads what stands in an entry that is this process's; SHC_E_CORRUPT: it cannot be. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells__read(const shc_cells_t *c, shc_cells_slot_t *slot)
{
    uint64_t meta = shc_a64_load_relaxed(&slot->entry->meta);
    shc_cells__set_payload(c, slot);
    slot->length = (uint32_t)meta;
    slot->tag = (uint8_t)(meta >> 32);
    slot->flags = (uint8_t)(meta >> 40);
    return SHC_LIKELY(slot->length <= slot->room) ? 0 : SHC_E_CORRUPT;
}

/* READY that was found in slot->entry, at slot->cursor, becomes TAKEN(me): true. */
SHC_MUST_USE static SHC_ALWAYS_INLINE bool
shc_cells__take_ready(const shc_cells_t *c, uint64_t ready, shc_cells_slot_t *slot)
{
    slot->word = (ready & ~(SHC_CELLS_STATE | SHC_CELLS_OWNER)) | SHC_CELLS_TAKEN | shc_cells__me(c);
    slot->next = shc_cells_after(slot->cursor, shc_cells_count_of(ready), c->cell_count);
    return shc_a64_cas_acquire(&slot->entry->word, &ready, slot->word); /* A1 */
}

/* What was taken and cannot be read is given back, for the others' sake. */
SHC_MUST_USE int shc_cells__refuse(shc_cells_t *c, const shc_cells_slot_t *slot);

SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells__taken(shc_cells_t *c, shc_cells_slot_t *slot)
{
    return SHC_LIKELY(shc_cells__read(c, slot) == 0) ? 0 : shc_cells__refuse(c, slot);
}

SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells__take_at(shc_cells_t *c, uint64_t head, shc_cells_slot_t *slot)
{
    slot->cursor = head;
    slot->entry = shc_cells__entry(c, head);
    uint64_t word = shc_a64_load_relaxed(&slot->entry->word);
    if (SHC_LIKELY(shc_cells__same(word, head) && shc_cells_state(word) == SHC_CELLS_READY &&
                   shc_cells_count_of(word) * SHC_CELLS_CELL <= c->payload_max &&
                   (shc_a32_load_relaxed(&c->shm->shutdown) & SHC_CELLS_IMMEDIATE) == 0) &&
        SHC_LIKELY(shc_cells__take_ready(c, word, slot)))
        return shc_cells__taken(c, slot);
    return shc_cells__take_slow(c, slot);
}

/* The oldest message. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells_take(shc_cells_t *c, shc_cells_slot_t *slot)
{
    slot->base = shc_a64_load_relaxed(&c->shm->head);
    return shc_cells__take_at(c, slot->base, slot);
}

/* In a batch, the one behind `last`, which this process has just taken: as take. */
SHC_MUST_USE static SHC_ALWAYS_INLINE int
shc_cells_take_next(shc_cells_t *c, const shc_cells_slot_t *last, shc_cells_slot_t *slot)
{
    slot->base = last->base;
    return shc_cells__take_at(c, last->next, slot);
}

/* Moves head behind what was taken: for who gives it back later only, or after the last one of a batch. */
static SHC_ALWAYS_INLINE void
shc_cells_end_takes(const shc_cells_t *c, const shc_cells_slot_t *slot)
{
    (void)shc_cells__step(&c->shm->head, slot);
}

/* The message's memory is not used any more. Of a batch: then shc_cells_notify_space. */
static SHC_ALWAYS_INLINE void
shc_cells_give_back(shc_cells_t *c, const shc_cells_slot_t *slot)
{
    shc_a64_store_release(&slot->entry->word, slot->word & ~(SHC_CELLS_STATE | SHC_CELLS_OWNER)); /* R2 */
    uint64_t behind = shc_cells_apart(shc_a64_load_relaxed(&c->recl_seen), slot->word);
    if (SHC_UNLIKELY((int64_t)(behind - c->chunk) >= 0))
        shc_cells__reclaim_some(c);
}

void shc_cells__wake_senders(const shc_cells_t *c);

static SHC_ALWAYS_INLINE void
shc_cells__look_for_senders(const shc_cells_t *c, bool stepped)
{
    bool sleeping = shc_cells__has_sleepers(&c->shm->space, stepped);
    sleeping |= shc_cells__has_sleepers(&c->shm->memory, true);
    if (SHC_UNLIKELY(sleeping))
        shc_cells__wake_senders(c);
}

static SHC_ALWAYS_INLINE void
shc_cells_notify_space(const shc_cells_t *c)
{
    shc_cells__look_for_senders(c, false);
}

/* All that there is to do about a single message: gives it back, moves head, wakes a sender. */
static SHC_ALWAYS_INLINE void
shc_cells_finish(shc_cells_t *c, const shc_cells_slot_t *slot)
{
    shc_cells_give_back(c, slot);
    shc_cells__look_for_senders(c, shc_cells__step(&c->shm->head, slot));
}

/* Before what was taken is kept for longer: SHC_E_LEASES, copy it instead. Then shc_cells_end_hold, when it has been
 * given back. */
SHC_MUST_USE int shc_cells_hold(shc_cells_t *c);
void shc_cells_end_hold(shc_cells_t *c);

/* The oldest message, which others may take at any time: 0, SHC_EMPTY, SHC_BUSY, SHC_E_CORRUPT. What is copied from it
 * (shc_racy_copy) counts only if shc_cells_peeked says so afterwards. */
SHC_MUST_USE int shc_cells_peek(const shc_cells_t *c, shc_cells_slot_t *slot);
bool shc_cells_peeked(const shc_cells_slot_t *slot);

/* Takes and gives back every message that was there when it was called, as far as none is being written; returns how
 * many. `drop` (may be NULL) is told each. Senders are woken. */
uint64_t shc_cells_clear(shc_cells_t *c, void (*drop)(void *arg, const shc_cells_slot_t *slot), void *arg);

/* ---- anybody ---- */

/* Whether the one whose word is in the way is dead; then the word is mended, and who may wait for it is woken. Also
 * true if it changed meanwhile. Asks the kernel. */
SHC_MUST_USE bool shc_cells_unblock(const shc_cells_t *c, const shc_cells_slot_t *slot);

/* No more sends; with `immediate`, what is left is not delivered. Wakes everybody. Sticky. */
void shc_cells_shutdown(const shc_cells_t *c, bool immediate);

static inline uint32_t
shc_cells_shutdown_flags(const shc_cells_t *c)
{
    return shc_a32_load_relaxed(&c->shm->shutdown);
}

/* Messages claimed and not taken: a hint while others work. */
uint64_t shc_cells_length(const shc_cells_t *c);

/* Exact when nobody is at work, else hints. sent = received + lost + ready + held. */
typedef struct shc_cells_counts {
    uint64_t sent; /* modulo 2^40, with those that were lost when half written */
    uint64_t received;
    uint64_t lost;
    uint64_t aborted;
    uint64_t writing;
    uint64_t ready;
    uint64_t held;
} shc_cells_counts_t;

/* Read-only, as are the others below. */
shc_cells_counts_t shc_cells_count(const shc_cells_t *c);

/* Tells `visit` each entry's word and payload that is not over, oldest first. For sweeps and reports: a hint while
 * others work. */
void shc_cells_walk(const shc_cells_t *c, void (*visit)(void *arg, const shc_cells_slot_t *slot), void *arg);

/* Messages that a participant is writing or reading. */
uint32_t shc_cells_held_by(const shc_cells_t *c, uint32_t index);

/* Read-only: 0 or SHC_E_CORRUPT. The ring must be at rest; the dead may have left things. */
SHC_MUST_USE int shc_cells_check(const shc_cells_t *c);

#endif
