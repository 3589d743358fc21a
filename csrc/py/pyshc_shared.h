/* A segment as this process has it open: one mapping, one participant slot and one private state per structure,
 * however many Python handles, leases and views lead to it. Interpreters of one process share nothing but the registry:
 * each is a participant of its own, so that one interpreter lock guards all that is private here.
 *
 * A registry, keyed by (interpreter, device, inode), finds the segment when it is opened again. Two counts
 * decide its life:
 *   users    open handles, and leases that hold an end. At 0 the process stops being a participant (the last one out
 *            removes the name) and the segment leaves the registry.
 *   exports  views of the memory. The mapping stays until both counts are 0: a view keeps its memory alive and
 *            nothing else.
 * Both, the ends' use counts and the registry itself change only under one process-wide lock, whose holders never
 * touch the interpreter and are soon done. Reserving the memory of a new segment takes long, so it is done before that
 * lock is taken, under one of its own. fork takes both, so that a child finds them free and no half-made segment.
 *
 * In a forked child seg.epoch no longer equals the process's epoch: pyshc_shared_refresh makes the child a
 * participant of its own, with no end taken and no lock held.
 *
 * Pairs
 *   A1 <- R1: one holder of a lock sees what the one before it did. */
#ifndef PYSHC_SHARED_H
#define PYSHC_SHARED_H

#include "py/pyshc_mutex.h" /* first: Python.h chooses the system's feature macros */

#include "ds/shc_buffer.h"
#include "ds/shc_objects.h"
#include "ds/shc_ring_extent.h"
#include "sync/shc_pace.h"

/* What looks and waits at one end lately were like. Private to the process, whose threads change it as they like: only
 * when it looks and how it spins depends on it. */
typedef struct pyshc_spin {
    shc_a32_t average_ns; /* how long waits took, when spinning was enough; 0: none yet */
    shc_a32_t vain;       /* spins in a row that were not enough */
    shc_a32_t rest;       /* waits that are still to sleep at once */
    shc_a32_t cpus;       /* that this process might run on, when last asked; 0: never asked */
    shc_pace_t pace;
} pyshc_spin_t;

typedef struct pyshc_shared {
    struct pyshc_shared *next;
    int64_t interpreter;
    shc_seg_t seg;
    uint32_t users;
    uint32_t exports;
    shc_a32_t end_users[2]; /* looked at without the lock, too */
    char *directory;
    char *file;
    union {
        shc_ring_t ring;
        shc_buffer_t buffer;
        shc_objects_t objects;
    };
    /* producer's end of this process */
    pyshc_mutex_t send_lock;
    pyshc_spin_t send_spin;
    shc_a64_t reserver; /* pyshc_thread_number() of who has an open reservation, 0: nobody; stored under send_lock */
    shc_event_shm_t reservation_over; /* where threads of this process wait for that; not in shared memory */
    pyshc_spin_t reservation_spin;
    uint8_t pad0[SHC_HOT_PAD];
    /* consumer's end of this process */
    pyshc_mutex_t receive_lock;
    pyshc_spin_t receive_spin;
    bool holds_deferred; /* a hold was released while its end was in use by the same thread */
    uint8_t pad1[SHC_HOT_PAD];
    /* both ends' large messages */
    pyshc_guard_t extents_guard;
    shc_arena_t *extents; /* malloc, when the first one is met */
} pyshc_shared_t;

/* Where a segment's file lies, and who asks. */
typedef struct pyshc_place {
    char *directory; /* absolute; PyMem */
    char file[SHC_SEG_FILE_MAX + 1];
    int64_t interpreter;
} pyshc_place_t;

extern shc_self_t pyshc_self;

/* Once per process, before anything else; -errno. */
SHC_MUST_USE int pyshc_shared_setup(void);

/* Not to be held while anything of Python's is done. */
void pyshc_registry_lock(void);
void pyshc_registry_unlock(void);

/* The epoch of this process, which a forked child gets here; 0 if the system refuses. Called before functions of the
 * core that would give it one without asking the other threads. */
uint64_t pyshc_shared_own_epoch(void);

/* Both return a segment with one user more. `bind` fills the union, *info is what its file was like. */
SHC_MUST_USE int pyshc_shared_create(const pyshc_place_t *place, const shc_seg_spec_t *spec,
                                     const shc_seg_create_args_t *args, void (*init)(shc_seg_t *),
                                     void (*bind)(pyshc_shared_t *), pyshc_shared_t **out);
SHC_MUST_USE int pyshc_shared_attach(const pyshc_place_t *place, const shc_seg_spec_t *spec, bool any_owner,
                                     void (*bind)(pyshc_shared_t *), shc_os_file_info_t *info, pyshc_shared_t **out);

/* One user less. `ends` is the set of ends that this user had taken. */
void pyshc_shared_release(pyshc_shared_t *shared, uint32_t ends);

void pyshc_shared_export(pyshc_shared_t *shared);
void pyshc_shared_unexport(pyshc_shared_t *shared);

/* A lease becomes a user of its own. */
void pyshc_shared_add_user(pyshc_shared_t *shared);

/* A lease of the consumer's or producer's end likewise, and keeps the end. */
void pyshc_shared_add_end_user(pyshc_shared_t *shared, int end);

/* Makes a forked child a participant of its own. */
SHC_MUST_USE int pyshc_shared_refresh(pyshc_shared_t *shared);

/* Takes an end for one more handle of this process. 0, SHC_BUSY, SHC_E_CORRUPT. The end's mutex is held. */
SHC_MUST_USE int pyshc_shared_take_end(pyshc_shared_t *shared, int end);

static SHC_ALWAYS_INLINE bool
pyshc_shared_is_current(const pyshc_shared_t *shared)
{
    return shared->seg.epoch == shc_self_epoch(&pyshc_self);
}

#endif
