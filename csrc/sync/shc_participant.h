/* Participants: who has a segment open, and who of them is dead.
 *
 * Overview. A table of slots, one per PROCESS. Every word in shared memory that can be "in somebody's hands" names its
 * holder as (slot index, generation). The kernel alone says who is dead (shc_os_is_dead); a time-out never does. A
 * stopped process is alive.
 *
 * Slot word: {phase | pid of whoever acts on it | generation}. Transitions, each ONE compare-and-swap or the owner's
 * store:
 *
 *     FREE(g) --join--> JOINING(g, my pid) --identity filled--> LIVE(g)
 *     FREE(g) --visit--> JOINING(g, my pid) --identity filled--> LEAVING(g)
 *     LIVE(g) --close begins--> LEAVING(g) --close done--> FREE(g+1)
 *     LIVE | LEAVING | JOINING | DEAD (g), process dead --> REAPING(g, reaper's pid) --swept--> FREE(g+1)
 *     REAPING(g, pid), that pid dead --> REAPING(g, my pid): the sweep starts again (it is idempotent)
 *
 * Beside it lies a count for reports: how many of the process's threads are in a blocking wait on the segment. Its
 * owner changes it around the sleep, and its word names the generation that it belongs to. So it needs no sweep: a
 * killed waiter's count goes with its slot, and who comes back to a slot that is no longer its own (a thread that
 * outlived the leaving of its process) changes nothing.
 *
 * Guarantees for callers
 *   (a) An index is not given to another process before everything that its last holder owned has been swept: an
 *       owner word with index i and an older generation than the slot's belongs to somebody who is gone.
 *   (b) Generations count up; an owner word that keeps only the low k bits of one is ambiguous after 2^k reuses of a
 *       slot within the life of that word.
 *   (c) Joining and leaving are lock-free; is_dead, reap and count_waiters do system calls and belong to slow paths.
 *   (d) The count of waiters is a hint, bounded whatever stands there: nothing but a report depends on it.
 *
 * Pairs
 *   A1 <- R1: a reader that sees LIVE (or LEAVING) sees the identity that was filled before.
 *   A1 <- R2: a joiner that sees FREE(g+1) sees everything that the leaver or the sweep changed before.
 *   AR1: claims a slot (join, leave begins, reap); as acquire it pairs with R1 and R2, as release it publishes nothing.
 *   SC1: who begins to leave and then counts the others has a fence in between: of two that leave at once, at least one
 *        sees the other LEAVING.
 *   `waiters` carries no data and has no order: relaxed.
 *
 * Crash points (where killed -> what stays -> who mends it)
 *   after FREE->JOINING      JOINING(pid)      any reaper: by pid alone. If that pid was reused meanwhile, the slot
 *                                              stays taken until the stranger ends; nothing else is affected.
 *   while LIVE               LIVE              any reaper sweeps what it held
 *   while counted as waiting LIVE, waiters > 0 nobody need: no dead process is counted
 *   after LIVE->LEAVING      LEAVING           the same
 *   while reaping            REAPING(pid)      the next reaper sweeps again; by pid alone, as for JOINING
 */
#ifndef SHC_PARTICIPANT_H
#define SHC_PARTICIPANT_H

#include "sync/shc_participant_shm.h"
#include "sync/shc_self.h"

typedef struct shc_participants {
    shc_participant_shm_t *slots;
    uint32_t count; /* private, validated copy */
} shc_participants_t;

/* Gives back everything in the structure that (index, generation) held. Idempotent; may be killed anywhere. */
typedef void (*shc_sweep_fn)(void *arg, uint32_t index, uint32_t generation);

/* Takes a free slot. SHC_FULL: none is free (reap, then try again). */
SHC_MUST_USE int shc_participant_join(const shc_participants_t *table, const shc_identity_t *me, uint32_t *index,
                                      uint32_t *generation);

/* The same for who does not use the segment, but needs a name of its own for a step that is stamped with one: nobody
 * counts it. Ends with end_leave. */
SHC_MUST_USE int shc_participant_visit(const shc_participants_t *table, const shc_identity_t *me, uint32_t *index,
                                       uint32_t *generation);

/* LIVE -> LEAVING: from now on the process does not count as using the segment. A count of the others may follow
 * (SC1). */
void shc_participant_begin_leave(const shc_participants_t *table, uint32_t index);

/* LEAVING -> FREE. The caller has given back all it held. */
void shc_participant_end_leave(const shc_participants_t *table, uint32_t index);

/* True if holder (index, generation) can never act again: its process is dead, or the slot has moved on. Only the
 * bits of `generation_mask` are compared. An index outside the table is nobody: true. */
bool shc_participant_is_dead(const shc_participants_t *table, uint32_t index, uint32_t generation,
                             uint32_t generation_mask, const shc_identity_t *me);

/* How many living processes other than `self_index` (pass SHC_PARTICIPANT_MAX for none) use the segment; who is still
 * joining or already leaving does not. Stops counting at `enough`. */
uint32_t shc_participant_count_alive(const shc_participants_t *table, uint32_t self_index, uint32_t enough,
                                     const shc_identity_t *me);

/* Whether a living process acts on any slot: uses the segment, joins, leaves, or reaps. */
bool shc_participant_any_acts(const shc_participants_t *table, const shc_identity_t *me);

/* One more, or one less, thread of the participant (index, generation) is in a blocking wait. Without effect if the
 * slot has moved on. */
void shc_participant_begin_wait(const shc_participants_t *table, uint32_t index, uint32_t generation);
void shc_participant_end_wait(const shc_participants_t *table, uint32_t index, uint32_t generation);

/* Threads of living processes that are in a blocking wait. Asks the kernel about those processes only. */
uint64_t shc_participant_count_waiters(const shc_participants_t *table, const shc_identity_t *me);

/* Turns the slots of dead processes into free ones. Returns how many. */
uint32_t shc_participant_reap(const shc_participants_t *table, const shc_identity_t *me, shc_sweep_fn sweep, void *arg);

/* Reads one slot for a report; false if it is free. */
bool shc_participant_read(const shc_participants_t *table, uint32_t index, shc_identity_t *who, uint64_t *since,
                          uint32_t *phase, uint32_t *generation);

/* Read-only: 0 or SHC_E_CORRUPT. */
SHC_MUST_USE int shc_participant_check(const shc_participants_t *table);

#endif
