/* The one wait loop of the binding: try, spin, arm, try again, sleep, signals, deadline.
 *
 * An operation is a function that tries once, attached to the interpreter, and says how it went; when it would have
 * to wait it leaves the word to watch. The loop glances at that word, then spins on it for a learned time that is
 * bounded by the clock (neither where only one CPU is allowed, and the more seldom the more often it was in vain): the
 * first microseconds attached, the rest detached; then it sleeps on the event count in slices. Every return to the
 * interpreter runs signal handlers; a closed handle ends the wait; leaving after a wake passes it on.
 *
 * In free-threaded builds an object is destroyed by the thread that made it, at its next step in Python, even if
 * another thread drops it. So a thread that sleeps here takes such a step before each slice: among what it made may be
 * the views that keep the ring full. */
#ifndef PYSHC_WAIT_H
#define PYSHC_WAIT_H

#include "py/pyshc_handle.h"
#include "sync/shc_event.h"

typedef struct pyshc_operation pyshc_operation_t;

struct pyshc_operation {
    /* Tries once. `would_block`: look at watch. PYSHC_RAISED: exception set. Anything else ends the wait and is
     * returned. */
    int (*attempt)(pyshc_operation_t *op);
    pyshc_handle_t *handle;
    int would_block;
    shc_event_shm_t *event;
    shc_watch_t watch;
    uint64_t gained; /* messages, or room for so many, that a successful attempt found beyond what the watch had seen */
    pyshc_spin_t *spin;
    void (*idle)(pyshc_operation_t *op); /* told once, attached, after a second asleep; may be NULL */
};

/* Once per interpreter: 0, or -1 with an exception set. */
int pyshc_wait_state_init(pyshc_state_t *st);

/* Slow half: says what changed. */
void pyshc_raise_changed(pyshc_handle_t *h);

/* Whether the handle is still what it was when the call began, which pinned it. Since then other threads may have
 * closed it, and Python code (a codec, an iterator, a signal handler) may have forked: a child must not go on with its
 * parent's ends. False with an exception set. */
static SHC_ALWAYS_INLINE bool
pyshc_check_unchanged(pyshc_handle_t *h)
{
    if (SHC_LIKELY(!pyshc_handle_is_closed(h) && pyshc_shared_is_current(h->shared)))
        return true;
    pyshc_raise_changed(h);
    return false;
}

/* Tries until the deadline (0: once). Returns what the last attempt returned, or PYSHC_RAISED. */
SHC_MUST_USE int pyshc_wait(pyshc_operation_t *op, uint64_t deadline_ns);

#endif
