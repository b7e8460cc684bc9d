/* FileExistsError: which processes use the object that has the name, or that
 * none does, and which argument does what the caller may want. */
#ifndef CORE_TAKEN_H
#define CORE_TAKEN_H

#include "core/core.h"

#include "posix/object/name.h"

/* What the caller was doing, which decides the advice. */
enum taken_by {
    TAKEN_MAKING,                       /* without exist_ok */
    TAKEN_ATTACHING,                    /* by exist_ok, to what does not fit */
    TAKEN_STALE,                        /* by exist_ok and stale='error' */
    TAKEN_LINKING,                      /* link and rename */
    TAKEN_DROPIN,                       /* the standard library's arguments */
};

/* Raise it for name, which filename says as it was given.  what: the first part
 * of the text, a new reference; NULL with an exception is passed on.  Returns
 * NULL. */
PyObject *raise_taken(PyObject *filename, const struct pshm_name *name,
                      enum taken_by how, PyObject *what);

/* The same with "An object of that name exists". */
PyObject *raise_name_taken(PyObject *filename, const struct pshm_name *name,
                           enum taken_by how);

#endif
