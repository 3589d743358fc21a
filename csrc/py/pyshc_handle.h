/* Handles: the Python objects that lead to a segment. Base of every named type.
 *
 * A call pins its handle; close() marks it closed, wakes whoever waits through it, and the last pin (or close
 * itself) lets the segment go: no wake-up is lost, because the closer marks first and then notifies, and a waiter
 * arms first and then looks at the mark. Views and leases do not pin: they keep what they need alive on their own.
 *
 * In a forked child a handle is its parent's until the first call: `epoch` tells. That call forgets the pins of threads
 * that do not exist here before it adds its own.
 *
 * Pairs
 *   A1 <- R1: who sees the handle's new epoch sees the segment joined under it.
 *   AR1: pins and the mark, as pyshc_compat.h explains; the mark's last step is one thread's alone. */
#ifndef PYSHC_HANDLE_H
#define PYSHC_HANDLE_H

#include "py/pyshc_envelope.h"
#include "py/pyshc_shared.h"

/* What a kind does when it is created, attached and closed. */
typedef struct pyshc_kind {
    const shc_seg_spec_t *spec;
    void (*init)(shc_seg_t *);
    void (*bind)(pyshc_shared_t *);
    void (*wake)(pyshc_shared_t *); /* every waiter, because a handle closes; may be NULL */
    /* Gives back what the handle holds, while it still has its segment; may be NULL. */
    void (*let_go)(pyshc_handle_t *);
    uint32_t codec_config;    /* of a channel: the config word that has its creator's codec, */
    uint32_t envelope_config; /* and that of its envelope; 0: it has none */
    /* Completes what is asked of the segment, when the number of participants is known; may be NULL. */
    int (*lay_out)(shc_seg_create_args_t *);
    /* The system refused a segment of that size: asks for a smaller one, laid out. False: none is; may be NULL. */
    bool (*make_do)(shc_seg_create_args_t *, int status);
} pyshc_kind_t;

struct pyshc_handle {
    PyObject_HEAD pyshc_state_t *st;
    PyObject *module; /* whose state that is: kept to the last, since collected types forget their module */
    const pyshc_kind_t *kind;
    pyshc_shared_t *shared; /* NULL once let go */
    shc_a64_t epoch;        /* of the process that may use it without more ado; 0: none yet */
    shc_a64_t taken[2];     /* for each end: under which epoch the handle took it, or 0; set under the end's lock */
    shc_a32_t pins;
    shc_a32_t closed;    /* 0 open, 1 closed, 2 let go */
    uint64_t pins_epoch; /* of the process whose threads `pins` counts; under the registry's lock */
    uint32_t spin_ns;    /* fixed spin budget; UINT32_MAX: learned */
    uint32_t mode;       /* permission bits that the file had when it was attached */
    PyObject *name;
    PyObject *namespace;
    PyObject *directory;
    PyObject *foreign; /* a stdlib SharedMemory whose memory this is, or NULL */
    pyshc_codec_t codec;
    pyshc_envelope_t envelope;
    pyshc_handle_t *next, **link; /* in the interpreter's list */
    PyObject *weakrefs;
    PyObject *known; /* free-threaded builds: a weak reference, by which who finds it in the list gets a strong one */
};

/* Values of the keywords that every constructor has, NULL if absent. */
typedef struct pyshc_creation {
    PyObject *name, *mode, *persist, *directory, *max_participants;
} pyshc_creation_t;

#define PYSHC_CREATION_NAMES "name", "mode", "persist", "directory", "max_participants"
#define PYSHC_CREATION_COUNT 5

/* For the dealloc and traverse of types with more members. */
void pyshc_handle_dealloc(PyObject *self);
int pyshc_handle_traverse(PyObject *self, visitproc visit, void *arg);

/* An empty handle of a type or subclass; close it by dropping the reference if it is not filled. */
pyshc_handle_t *pyshc_handle_new(PyTypeObject *type);

/* Fill a new handle; false with an exception set. `create` takes body_size and config in args. With `*exists` not
 * NULL a taken name is no error: true, *exists set, h->shared NULL. */
bool pyshc_handle_create(pyshc_handle_t *h, const pyshc_kind_t *kind, const pyshc_creation_t *creation,
                         shc_seg_create_args_t *args, bool *exists);
/* Tries once if deadline_ns is 0. With `absent_is_fine` a missing object returns true and leaves h->shared NULL. */
bool pyshc_handle_attach(pyshc_handle_t *h, const pyshc_kind_t *kind, PyObject *name, PyObject *namespace,
                         PyObject *directory, uint64_t deadline_ns, bool any_owner, bool absent_is_fine);

/* Whether the object that open() found has what its caller stated of mode, persist and max_participants. What was not
 * stated is taken as it is. False: LayoutError, or what a bad value raises. */
bool pyshc_handle_agrees(pyshc_handle_t *h, const pyshc_creation_t *creation);

/* The LayoutError of an option that open() was given and that differs. Steals both texts; NULL: an exception is set. */
void pyshc_handle_disagree(pyshc_handle_t *h, const char *option, PyObject *there, PyObject *asked);

void pyshc_handle_close(pyshc_handle_t *h);

/* A new reference to an open handle of this interpreter to the segment of that kind and key, or NULL (without an
 * exception). */
pyshc_handle_t *pyshc_handle_find(pyshc_state_t *st, const pyshc_kind_t *kind, uint64_t key);

/* Lets go of everything that this interpreter has open. */
void pyshc_handle_close_all(pyshc_state_t *st);

/* The name of its type as users write it. */
const char *pyshc_handle_type_name(const pyshc_handle_t *h);

/* Sets ValueError; returns PYSHC_RAISED. */
int pyshc_handle_raise_closed(pyshc_handle_t *h);

/* Slow halves. */
bool pyshc_handle_refuse_closed(pyshc_handle_t *h);
bool pyshc_handle_pin_slowly(pyshc_handle_t *h);
void pyshc_handle_unpin_last(pyshc_handle_t *h);

/* A call begins: false with an exception set if the handle is closed. */
static SHC_ALWAYS_INLINE bool
pyshc_handle_pin(pyshc_handle_t *h)
{
    if (SHC_UNLIKELY(shc_a64_load_acquire(&h->epoch) != shc_self_epoch(&pyshc_self))) /* A1 */
        return pyshc_handle_pin_slowly(h);
    pyshc_count_up(&h->pins);
    if (SHC_LIKELY(!pyshc_mark_load(&h->closed)))
        return true;
    return pyshc_handle_refuse_closed(h);
}

static SHC_ALWAYS_INLINE void
pyshc_handle_unpin(pyshc_handle_t *h)
{
    uint32_t before = pyshc_count_down(&h->pins);
    if (SHC_UNLIKELY(before == 1 && pyshc_mark_load(&h->closed)))
        pyshc_handle_unpin_last(h);
}

static inline bool
pyshc_handle_is_closed(const pyshc_handle_t *h)
{
    return shc_a32_load_relaxed(&h->closed) != 0;
}

/* Deferred to shmcomm._stats: cls(**fields). Steals fields. */
PyObject *pyshc_make_stats(const char *cls, PyObject *fields);

/* [{pid, since, alive, holds}] of a segment; holds(shared, index, generation) adds what each holds (may be NULL). */
PyObject *pyshc_participants(pyshc_shared_t *shared, PyObject *(*holds)(pyshc_shared_t *, uint32_t, uint32_t));

#endif
