/* Event count: sleep until a condition on other words may have become true, at no cost to notifiers when nobody sleeps.
 *
 * Usage
 *     waiter:    if (condition) go on;                     notifier:  make the condition true;
 *                v = shc_event_prepare(ev);                           shc_event_notify_one(ev);   (or _all)
 *                if (condition) go on;
 *                r = shc_event_wait(ev, v, deadline);
 *                look again; when leaving for whatever reason after r == 0: shc_event_pass_on(ev), and if the
 *                condition is still true for somebody else, shc_event_notify_one(ev)
 *
 * The word holds {sequence 31 | SLEEPERS 1}. The flag is sticky: a waiter that was killed leaves it set, which costs
 * the next notifier one useless system call and nothing else; a count of waiters would stay too high for ever (the one
 * for reports stands in each participant's slot, and goes with it).
 *
 * Guarantees
 *   (a) No lost wake-up: either the waiter's second look at the condition sees the notifier's change, or the
 *       notifier sees the flag (both sides have a sequentially consistent fence between their store and their load:
 *       Dekker).
 *   (b) Setting the flag and bumping the sequence exclude each other: a notifier clears the flag and bumps the
 *       sequence in one compare-and-swap, so a waiter that armed before finds the value changed and one that arms
 *       later is seen by the next notifier.
 *   (c) notify_one wakes one sleeper and takes the flag from all: whoever was woken owes a pass_on, which arms the
 *       flag again and hands the wake on if there is more to take. Without it, three puts and three sleepers lose a
 *       wake-up.
 *   (d) Kill-safe by slices: a notifier killed between its change and its wake, or a woken waiter killed before its
 *       pass_on, delays the others until the end of their slice; waiters therefore never sleep without one
 *       (SHC_EVENT_SLICE_*).
 *
 * Progress: notify is wait-free when nobody sleeps (fence + load), else one compare-and-swap and one system call.
 *
 * Pairs: none carries data. The condition's own words do that with their acquire and release; SC1 is Dekker's pattern.
 *   SC1: flag set, then condition read (waiter)  <->  condition stored, then flag read (notifier).
 *   AR2: the waiter sets the flag.
 *   AR1: the notifier's exchange of {flag set, n} for {clear, n+1}.
 *
 * Crash points: every one leaves either nothing or the flag set; see (d).
 *
 * Source: the flag inside the counter follows ck_ec of Concurrency Kit; the pass_on rule was found by model
 * checking. */
#ifndef SHC_EVENT_H
#define SHC_EVENT_H

#include "os/shc_os.h"
#include "sync/shc_event_shm.h"

#define SHC_EVENT_SLEEPERS 1u

/* Nobody sleeps longer than this without looking again: 50 ms at first, doubling to 400 ms. */
#define SHC_EVENT_SLICE_MIN_NS UINT64_C(50000000)
#define SHC_EVENT_SLICE_MAX_NS UINT64_C(400000000)

/* What to look at while waiting: the condition cannot have changed before *word != seen. */
typedef struct shc_watch {
    const shc_a64_t *word;
    uint64_t seen;
} shc_watch_t;

/* The slow half of notify: clears the flag, bumps the sequence, wakes. */
void shc_event_wake(shc_event_shm_t *ev, uint32_t count);

static SHC_ALWAYS_INLINE void
shc_event_notify_one(shc_event_shm_t *ev)
{
    shc_fence_seq_cst(); /* SC1 */
    if (SHC_UNLIKELY(shc_a32_load_relaxed(&ev->word) & SHC_EVENT_SLEEPERS))
        shc_event_wake(ev, 1);
}

static SHC_ALWAYS_INLINE void
shc_event_notify_all(shc_event_shm_t *ev)
{
    shc_fence_seq_cst(); /* SC1 */
    if (SHC_UNLIKELY(shc_a32_load_relaxed(&ev->word) & SHC_EVENT_SLEEPERS))
        shc_event_wake(ev, INT32_MAX);
}

/* Announces a sleeper; returns the value to pass to wait. Look at the condition once more between the two. */
uint32_t shc_event_prepare(shc_event_shm_t *ev);

/* Sleeps until notified, a signal, or deadline_ns. 0: woken by a notifier or for no reason (a pass_on is owed);
 * SHC_AGAIN: notified before the sleep began; SHC_TIMEOUT; SHC_INTERRUPTED. The deadline ends the slice, too. */
SHC_MUST_USE int shc_event_wait(shc_event_shm_t *ev, uint32_t prepared, uint64_t deadline_ns);

/* Arms the flag again for those who still sleep. The caller then looks at the condition and, if it still holds, calls
 * notify_one. */
void shc_event_pass_on(shc_event_shm_t *ev);

#endif
