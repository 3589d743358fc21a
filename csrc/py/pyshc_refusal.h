/* What cannot be created, attached, unlinked or removed, said in the words of the user: what was wrong, with which
 * object, and how to get on. Beside the status, these look at whatever has the name now. */
#ifndef PYSHC_REFUSAL_H
#define PYSHC_REFUSAL_H

#include "py/pyshc_handle.h"
#include "py/pyshc_place.h"

/* Each sets an exception. `type` is the name of the type that was to be made, `kind` its kind, `size` what its
 * segment would take; `waited`: for the object to appear. */
void pyshc_refuse_creation(pyshc_state_t *st, int status, const char *type, uint32_t kind, const pyshc_place_t *place,
                           PyObject *name, uint64_t size);
void pyshc_refuse_attach(pyshc_state_t *st, int status, const char *type, const pyshc_place_t *place, PyObject *name,
                         bool waited);
/* The system has no memory for `asked` bytes more of an object that grows, or lets this process have no more. `what`:
 * for what they are. */
void pyshc_refuse_growth(pyshc_handle_t *h, int status, const char *what, uint64_t asked);

void pyshc_refuse_unlink(pyshc_state_t *st, int status, const char *type, const char *directory, PyObject *name);

/* The command line may add that --force removes it anyway: so it is for every exception but an OSError whose errno is
 * not EACCES. */
void pyshc_refuse_removal(pyshc_state_t *st, int status, const pyshc_place_t *place, PyObject *name);

#endif
