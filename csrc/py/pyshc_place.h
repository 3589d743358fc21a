/* Names, directories and namespaces: where the file of an object lies.
 *
 * The file is <directory>/shmcomm.<namespace>.<name>, or <directory>/shmcomm.<name> without a namespace. The
 * directory is what the caller says, else $SHMCOMM_DIR, else /dev/shm; the namespace is $SHMCOMM_NAMESPACE. */
#ifndef PYSHC_PLACE_H
#define PYSHC_PLACE_H

#include "py/pyshc_shared.h"

/* New references; NULL with an exception set. */
PyObject *pyshc_place_random_name(void);
PyObject *pyshc_place_namespace(void);

bool pyshc_place_check_namespace(PyObject *namespace);

/* All false/NULL with an exception set: a bad name is a ValueError or TypeError, a missing directory an OSError. */
bool pyshc_place_resolve(PyObject *name, PyObject *namespace, PyObject *directory, pyshc_place_t *place);
bool pyshc_place_directory(PyObject *arg, char **path);
void pyshc_place_clear(pyshc_place_t *place);

/* "shmcomm." or "shmcomm.<namespace>." */
void pyshc_place_prefix(PyObject *namespace, char *out, size_t size);

#endif
