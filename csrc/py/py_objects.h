/* ObjectPool: what its files share.
 *
 * The pool's slots are shared (ds/shc_objects.h); the objects are this process's own, and this handle's, whose
 * callables made them. A table has an entry per slot; an index finds the entry of an object by the object's identity,
 * so that objects need neither hash nor equality. Entries whose object is built and whose slot this handle has given
 * back stand in a list, the one used last first: that is the order in which their slots are tried.
 *
 *     NONE  no object              -> BUSY by acquire
 *     IDLE  built, in the list     -> BUSY or OUT by acquire, NONE by clear
 *     BUSY  the slot is ours, and one thread runs factory, validate or reset for it; nobody else touches the entry
 *     OUT   the slot is ours, and the user has the object -> BUSY or IDLE by release
 *
 * Where slots have no memory an object may change its slot while it is idle: a slot is a mere permission then.
 *
 * Tables and index are guarded by the lock of the process's sending end, which a pool has no other use for. No Python
 * code runs under it: what is dropped is dropped afterwards. */
#ifndef PY_OBJECTS_H
#define PY_OBJECTS_H

#include "py/pyshc_wait.h"

#define PYSHC_NO_SLOT UINT32_MAX

typedef enum pyshc_object_state {
    PYSHC_OBJECT_NONE = 0,
    PYSHC_OBJECT_IDLE,
    PYSHC_OBJECT_BUSY,
    PYSHC_OBJECT_OUT
} pyshc_object_state_t;

typedef struct pyshc_object_entry {
    PyObject *object; /* NULL: none is built here */
    uint32_t newer;   /* in the list of idle ones: slot or PYSHC_NO_SLOT */
    uint32_t older;
    pyshc_object_state_t state;
} pyshc_object_entry_t;

/* For max_size slots. All zero: there is none. */
typedef struct pyshc_object_table {
    pyshc_object_entry_t *entries;
    uint32_t *index; /* slot + 1 by hash of the object's address, 0 nothing; open addressing, at most half full */
    uint32_t index_mask;
    uint32_t max_size;
    uint32_t newest; /* head of the list of idle ones */
} pyshc_object_table_t;

typedef struct pyshc_objects {
    pyshc_handle_t h;
    PyObject *factory;
    PyObject *reset;    /* NULL: none */
    PyObject *validate; /* NULL: none */
    pyshc_object_table_t table;
    shc_a64_t table_epoch; /* of the process whose objects they are; 0: no table yet */
} pyshc_objects_t;

/* ---- the table: py_objects_table.c; the caller holds the lock ---- */

/* False: no memory. */
SHC_MUST_USE bool pyshc_objects_table_init(pyshc_object_table_t *table, uint32_t max_size);

/* Drops all objects; no lock is held. */
void pyshc_objects_table_drop(pyshc_object_table_t *table);

/* The slot of an object, or PYSHC_NO_SLOT. */
uint32_t pyshc_objects_table_find(const pyshc_object_table_t *table, const PyObject *object);

/* The entry gets an object; takes the reference. False: the table has that very object already. */
SHC_MUST_USE bool pyshc_objects_table_put(pyshc_object_table_t *table, uint32_t slot, PyObject *object);

/* The entry's object leaves the table; returns the reference, NULL if there is none. */
PyObject *pyshc_objects_table_take(pyshc_object_table_t *table, uint32_t slot);

/* Into the list of idle ones, as the newest; out of it, into another state. */
void pyshc_objects_table_rest(pyshc_object_table_t *table, uint32_t slot);
void pyshc_objects_table_rouse(pyshc_object_table_t *table, uint32_t slot, pyshc_object_state_t state);

/* ---- use: py_objects_use.c ---- */

/* What pyshc_handle_pin() is to other kinds: also sees to it that the table is this process's own. */
bool pyshc_objects_enter(pyshc_objects_t *p);

/* Builds so many objects, which are idle then. */
bool pyshc_objects_build_first(pyshc_objects_t *p, uint64_t count);

/* For the kind: what the handle has acquired goes back, dirty, and its objects go. */
void pyshc_objects_let_go(pyshc_handle_t *h);

PyObject *pyshc_objects_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_objects_try_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_objects_release(PyObject *self, PyObject *object);
PyObject *pyshc_objects_borrow(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyshc_objects_clear(PyObject *self, PyObject *unused);

#endif
