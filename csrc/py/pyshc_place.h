/* Names, directories and namespaces: where the file of an object lies.
 *
 * The file is <directory>/shmcomm.<namespace>+<name>, or <directory>/shmcomm.<name> without a namespace. Neither has a
 * plus sign, so a file belongs to one namespace and one name only, and a program without a namespace cannot reach into
 * another's; whoever needs to (the command line) says <namespace>+<name>. The directory is what the caller says, else
 * $SHMCOMM_DIR, else /dev/shm; the namespace is $SHMCOMM_NAMESPACE. */
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

/* How the files of a namespace begin: "shmcomm." or "shmcomm.<namespace>+". */
#define PYSHC_PREFIX_SIZE 64
void pyshc_place_prefix(PyObject *namespace, char out[PYSHC_PREFIX_SIZE]);

/* "<name>" or "<namespace>+<name>", of a file of ours. */
const char *pyshc_place_qualified(const char *file);

/* Parts a qualified name: the bare name; *length bytes of the text are its namespace. */
const char *pyshc_place_split(const char *qualified, size_t *length);

#endif
