/* Shared between the files of MemoryPool, BufferPool and Block.
 *
 * Locks. The arena's private state is used by one thread of the process at a time: send_lock of the segment. Nobody
 * runs Python code while holding it. Who lets other threads run meanwhile gives it back before it waits for the
 * interpreter again, so whoever has the interpreter may wait for it; and it takes the segment from its handle before,
 * because the end of the process takes it away from there.
 *
 * Blocks. Each keeps a reference to its handle and a pin on it (pyshc_handle.h): close() of the pool lets the segment
 * go when the last of its blocks has gone, and until then their memory is theirs. At the end of the process, and in a
 * forked child, the blocks that are left are nobody's any more. */
#ifndef PY_POOL_H
#define PY_POOL_H

#include "py/pyshc_handle.h"

typedef struct pyshc_pool {
    pyshc_handle_t h;
    shc_a64_t tended_epoch; /* of the process whose timer knows this pool */
} pyshc_pool_t;

extern const pyshc_kind_t pyshc_pool_kind;

static inline bool
pyshc_pool_is_shelf(const pyshc_shared_t *shared)
{
    return shared->pool->n_places != 0;
}

/* Gives the lock back. False, with ValueError set: the process is at its end. */
bool pyshc_pool_refuse_end(pyshc_handle_t *h);

/* A pinned handle's arena is ours from now on. False: RuntimeError, or the process is at its end, ValueError. */
static SHC_ALWAYS_INLINE bool
pyshc_pool_lock(pyshc_handle_t *h)
{
    if (SHC_UNLIKELY(!pyshc_mutex_lock(&h->shared->send_lock)))
        return false;
    return SHC_LIKELY(shc_a32_load_relaxed(&h->closed) != 2) || pyshc_pool_refuse_end(h);
}

static SHC_ALWAYS_INLINE void
pyshc_pool_unlock(pyshc_shared_t *shared)
{
    pyshc_mutex_unlock(&shared->send_lock);
}

/* A Block of `size` bytes; `shelved`: one that was given back, if there is one. The pin on success is the block's. */
PyObject *pyshc_pool_allocate(pyshc_handle_t *h, PyObject *size, bool shelved);

/* release(block) and return_buffer(buf) of a pool. */
PyObject *pyshc_pool_release(PyObject *self, PyObject *block);

/* Sets the exception of an allocation that failed. NULL. */
PyObject *pyshc_pool_refuse(pyshc_handle_t *h, int status, uint64_t size);

/* Whether the timer of this process knows the pool, which is pinned. */
static SHC_ALWAYS_INLINE bool
pyshc_pool_is_tended(const pyshc_pool_t *p)
{
    return shc_a64_load_relaxed(&p->tended_epoch) == shc_self_epoch(&pyshc_self);
}

/* Has the pool tended by the timer of this process, if it wants to be. False: exception. */
bool pyshc_pool_tend(pyshc_pool_t *p);

/* Methods that both types of pool have. */
PyObject *pyshc_pool_cleanup(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_pool_do_tend(PyObject *self, PyObject *unused);
PyObject *pyshc_pool_stats(PyObject *self, PyObject *unused);
PyObject *pyshc_pool_reduce(PyObject *self, PyObject *unused);
PyObject *pyshc_pool_rebuild(PyObject *cls, PyObject *const *args, Py_ssize_t nargs);
PyObject *pyshc_pool_attach(PyObject *cls, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
pyshc_handle_t *pyshc_pool_attach_by(PyTypeObject *type, PyObject *name, PyObject *namespace, PyObject *directory,
                                     uint64_t deadline_ns, bool foreign);
PyObject *pyshc_pool_make(PyTypeObject *type, PyObject *places, PyObject *const *options,
                          const pyshc_creation_t *creation);
PyObject *pyshc_pool_open_or_make(PyTypeObject *type, PyObject *places, PyObject *const *options,
                                  const pyshc_creation_t *creation);

extern const char pyshc_pool_attach_doc[], pyshc_pool_cleanup_doc[], pyshc_pool_stats_doc[];

#define PYSHC_POOL_OPTION_NAMES "initial_size", "max_size", "growth_factor", "cleanup_interval"
#define PYSHC_POOL_OPTIONS 4

#endif
