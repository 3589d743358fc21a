/* Robust lock for slow and compound paths: whoever dies holding it hands it, and the duty to repair, to the next.
 *
 * Word: {CONTENDED 1 | RECOVER 1 | generation 18 | holder's index + 1, 12}. 0 is free. The generation keeps "take it
 * from dead holder i" from hitting a new process that has meanwhile got index i and this lock (ambiguous only after
 * 2^18 reuses of a slot within one steal).
 *
 *     acquire   0 -> me.  Else spin for a few microseconds, set CONTENDED, sleep on the word in slices; whoever has
 *               slept acquires as me|CONTENDED, so that further sleepers are never forgotten.
 *     steal     holder dead (the kernel says so) -> me|CONTENDED|RECOVER: SHC_OWNER_DIED. The new holder repairs
 *               what the lock protects and calls shc_lock_mark_consistent; if it dies before, RECOVER is still there
 *               and the next one repairs.
 *     release   exchange(0); if CONTENDED was set, wake one.
 *
 * Guarantees
 *   (a) Mutual exclusion among participants that the kernel calls living.
 *   (b) A holder's death delays waiters by at most one slice (10 ms, growing to 100 ms), never for ever. The same
 *       bounds the two holes that the kernel's robust list would close: killed between exchange and wake, and killed
 *       after being woken.
 *   (c) Not recursive, not fair; one handle may hold it from one thread at a time.
 *
 * Progress: blocking. Uncontended acquire is one compare-and-swap, release one exchange.
 *
 * Pairs
 *   A1 <- R1: who acquires sees what the last holder stored before its release.
 *   AR1: mark_consistent; needs no partner, only the holder does it.
 *   A2: steal; the dead holder's stores are visible because its death was observed through the kernel.
 *
 * Crash points: after acquire: stealable. After set CONTENDED: one useless wake. After exchange, before wake: slice.
 * As recoverer: RECOVER stays, next one recovers.
 *
 * Source: the conservative re-acquire is the lesson of glibc bug 20973. */
#ifndef SHC_LOCK_H
#define SHC_LOCK_H

#include "sync/shc_lock_shm.h"
#include "sync/shc_participant.h"

#define SHC_LOCK_RECOVER (UINT32_C(1) << 30)
#define SHC_LOCK_CONTENDED (UINT32_C(1) << 31)
#define SHC_LOCK_INDEX_MASK UINT32_C(0xfff)
#define SHC_LOCK_GENERATION_MASK UINT32_C(0x3ffff)

/* Who is asking: one per handle, private. */
typedef struct shc_lock_party {
    const shc_participants_t *participants;
    const shc_identity_t *me;
    uint32_t index;
    uint32_t generation;
} shc_lock_party_t;

static inline uint32_t
shc_lock_owner_word(const shc_lock_party_t *party)
{
    return (party->index + 1) | (party->generation & SHC_LOCK_GENERATION_MASK) << 12;
}

/* 0, SHC_OWNER_DIED (locked; repair, then mark_consistent), or SHC_BUSY: somebody living holds it. Asks the kernel
 * only if the lock is taken. */
SHC_MUST_USE int shc_lock_try_acquire(shc_lock_shm_t *lock, const shc_lock_party_t *party);

/* As above, waiting until deadline_ns: SHC_TIMEOUT, or SHC_INTERRUPTED after a signal (call again to go on waiting). */
SHC_MUST_USE int shc_lock_acquire(shc_lock_shm_t *lock, const shc_lock_party_t *party, uint64_t deadline_ns);

/* The state that the lock protects is repaired. */
void shc_lock_mark_consistent(shc_lock_shm_t *lock);

void shc_lock_release(shc_lock_shm_t *lock);

/* Read-only: 0 or SHC_E_CORRUPT. */
SHC_MUST_USE int shc_lock_check(const shc_lock_shm_t *lock, const shc_participants_t *table);

#endif
