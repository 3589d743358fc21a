/* A process-private lock for the few instructions around one end of a channel.
 *
 * With the interpreter lock a look and a store are one step, and it is never contended, unless a holder lets the
 * interpreter lock go (a NumPy call while decoding): handles that share it belong to one interpreter
 * (pyshc_shared.h). Then a waiter detaches and yields until the holder is done: the holder may need the interpreter
 * lock to finish, so nobody waits here while attached. Free-threaded builds use CPython's own mutex, which detaches and
 * sleeps. It knows its owner: a finaliser or signal handler that re-enters the same end in the same thread gets a
 * RuntimeError instead of a deadlock. A forked child resets it. */
#ifndef PYSHC_MUTEX_H
#define PYSHC_MUTEX_H

#include "py/pyshc.h"

typedef struct pyshc_mutex {
    shc_a64_t owner; /* 0, or the number of its thread */
    pyshc_guard_t guard;
} pyshc_mutex_t;

/* A number that this thread alone has, in all the life of the process: shc_thread_pointer() is used again when a thread
 * has ended. */
uint64_t pyshc_thread_number(void);

static SHC_ALWAYS_INLINE bool
pyshc_mutex_is_mine(const pyshc_mutex_t *mutex)
{
    return shc_a64_load_relaxed(&mutex->owner) == shc_thread_pointer();
}

/* Slow half; false with RuntimeError set if this thread holds it. */
bool pyshc_mutex_wait(pyshc_mutex_t *mutex);

static SHC_ALWAYS_INLINE bool
pyshc_mutex_lock(pyshc_mutex_t *mutex)
{
    bool is_busy = PYSHC_FREE_THREADED ? pyshc_mutex_is_mine(mutex) : shc_a64_load_relaxed(&mutex->owner) != 0;
    if (SHC_UNLIKELY(is_busy))
        return pyshc_mutex_wait(mutex);
    PYSHC_GUARD_LOCK(&mutex->guard);
    shc_a64_store_relaxed(&mutex->owner, shc_thread_pointer());
    return true;
}

/* For who has another way to go on. In free-threaded builds it always has to. */
static SHC_ALWAYS_INLINE bool
pyshc_mutex_try(pyshc_mutex_t *mutex)
{
    if (PYSHC_FREE_THREADED || SHC_UNLIKELY(shc_a64_load_relaxed(&mutex->owner) != 0))
        return false;
    shc_a64_store_relaxed(&mutex->owner, shc_thread_pointer());
    return true;
}

static SHC_ALWAYS_INLINE void
pyshc_mutex_unlock(pyshc_mutex_t *mutex)
{
    shc_a64_store_relaxed(&mutex->owner, 0);
    PYSHC_GUARD_UNLOCK(&mutex->guard);
}

#endif
