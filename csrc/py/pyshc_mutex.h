/* A process-private lock for the few instructions around one end of a channel.
 *
 * With the interpreter lock it is never contended, unless a holder lets the interpreter lock go (a NumPy call while
 * decoding); then, between interpreters, and in free-threaded builds, a waiter detaches and yields until the holder
 * is done. The holder may need the interpreter lock to finish, so nobody waits here while attached. It knows its
 * owner: a finaliser or signal handler that re-enters the same end in the same thread gets a RuntimeError instead of
 * a deadlock. A forked child resets it.
 *
 * Pairs: A1 <- R1, the private cursors of the end. */
#ifndef PYSHC_MUTEX_H
#define PYSHC_MUTEX_H

#include "py/pyshc.h"

typedef struct pyshc_mutex {
    shc_a64_t owner; /* 0, or a number that is this thread's alone */
} pyshc_mutex_t;

extern _Thread_local char pyshc_thread_mark;

static SHC_ALWAYS_INLINE uint64_t
pyshc_thread_id(void)
{
    return (uint64_t)(uintptr_t)&pyshc_thread_mark;
}

/* A number that this thread alone has, in all the life of the process: the address above is used again when a thread
 * has ended. */
uint64_t pyshc_thread_number(void);

/* Slow half; false with RuntimeError set if this thread holds it. */
bool pyshc_mutex_wait(pyshc_mutex_t *mutex);

static SHC_ALWAYS_INLINE bool
pyshc_mutex_lock(pyshc_mutex_t *mutex)
{
    uint64_t nobody = 0;
    if (SHC_LIKELY(shc_a64_cas_acquire(&mutex->owner, &nobody, pyshc_thread_id()))) /* A1 */
        return true;
    return pyshc_mutex_wait(mutex);
}

static SHC_ALWAYS_INLINE void
pyshc_mutex_unlock(pyshc_mutex_t *mutex)
{
    shc_a64_store_release(&mutex->owner, 0); /* R1 */
}

static SHC_ALWAYS_INLINE bool
pyshc_mutex_is_mine(const pyshc_mutex_t *mutex)
{
    return shc_a64_load_relaxed(&mutex->owner) == pyshc_thread_id();
}

#endif
