/* The objects of one ObjectPool handle: by slot, by identity, and those that are idle in order of use. */
#include "py/py_objects.h"

#include "base/shc_math.h"

/* ---- life ---- */

bool
pyshc_objects_table_init(pyshc_object_table_t *table, uint32_t max_size)
{
    uint32_t places = (uint32_t)shc_ceil_pow2(2 * (uint64_t)max_size);
    table->entries = PyMem_Calloc(max_size, sizeof *table->entries);
    table->index = PyMem_Calloc(places, sizeof *table->index);
    table->index_mask = places - 1;
    table->max_size = max_size;
    table->newest = PYSHC_NO_SLOT;
    if (table->entries != NULL && table->index != NULL)
        return true;
    PyMem_Free(table->entries);
    PyMem_Free(table->index);
    *table = (pyshc_object_table_t){0};
    return false;
}

void
pyshc_objects_table_drop(pyshc_object_table_t *table)
{
    pyshc_object_table_t old = *table;
    *table = (pyshc_object_table_t){.newest = PYSHC_NO_SLOT};
    for (uint32_t slot = 0; slot < old.max_size; slot++)
        Py_XDECREF(old.entries[slot].object);
    PyMem_Free(old.entries);
    PyMem_Free(old.index);
}

/* ---- by identity ---- */

static uint32_t
home_of(const pyshc_object_table_t *table, const PyObject *object)
{
    return (uint32_t)(((uint64_t)(uintptr_t)object >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32) & table->index_mask;
}

/* Where the object stands in the index, or the free place where it would stand. */
static uint32_t
place_of(const pyshc_object_table_t *table, const PyObject *object)
{
    uint32_t place = home_of(table, object);
    while (table->index[place] != 0 && table->entries[table->index[place] - 1].object != object)
        place = (place + 1) & table->index_mask;
    return place;
}

uint32_t
pyshc_objects_table_find(const pyshc_object_table_t *table, const PyObject *object)
{
    uint32_t found = table->index[place_of(table, object)];
    return found != 0 ? found - 1 : PYSHC_NO_SLOT;
}

bool
pyshc_objects_table_put(pyshc_object_table_t *table, uint32_t slot, PyObject *object)
{
    uint32_t place = place_of(table, object);
    if (table->index[place] != 0)
        return false;
    table->index[place] = slot + 1;
    table->entries[slot].object = object;
    return true;
}

/* Closes the gap, so that no search ends early: whoever stands behind it and would rather stand there moves up. */
static void
close_gap(pyshc_object_table_t *table, uint32_t gap)
{
    uint32_t mask = table->index_mask, place = gap;
    for (;;) {
        place = (place + 1) & mask;
        uint32_t found = table->index[place];
        if (found == 0)
            break;
        uint32_t home = home_of(table, table->entries[found - 1].object);
        if (((place - home) & mask) < ((place - gap) & mask))
            continue;
        table->index[gap] = found;
        gap = place;
    }
    table->index[gap] = 0;
}

PyObject *
pyshc_objects_table_take(pyshc_object_table_t *table, uint32_t slot)
{
    PyObject *object = table->entries[slot].object;
    if (object == NULL)
        return NULL;
    close_gap(table, place_of(table, object));
    table->entries[slot].object = NULL;
    return object;
}

/* ---- by age ---- */

void
pyshc_objects_table_rest(pyshc_object_table_t *table, uint32_t slot)
{
    pyshc_object_entry_t *e = &table->entries[slot];
    e->state = PYSHC_OBJECT_IDLE;
    e->newer = PYSHC_NO_SLOT;
    e->older = table->newest;
    if (e->older != PYSHC_NO_SLOT)
        table->entries[e->older].newer = slot;
    table->newest = slot;
}

void
pyshc_objects_table_rouse(pyshc_object_table_t *table, uint32_t slot, pyshc_object_state_t state)
{
    pyshc_object_entry_t *e = &table->entries[slot];
    if (e->newer != PYSHC_NO_SLOT)
        table->entries[e->newer].older = e->older;
    else
        table->newest = e->older;
    if (e->older != PYSHC_NO_SLOT)
        table->entries[e->older].newer = e->newer;
    e->state = state;
}
