/* FileExistsError: its message lists the processes that use the object of that
 * name, and the arguments that solve the problem. */
#ifndef CORE_TAKEN_H
#define CORE_TAKEN_H

#include "core/core.h"

#include "posix/object/name.h"

/* The operation of the caller, which determines the advice. */
enum taken_by {
    TAKEN_MAKING,                       /* without exist_ok */
    TAKEN_ATTACHING,                    /* by exist_ok, to an unfit object */
    TAKEN_STALE,                        /* by exist_ok and stale='error' */
    TAKEN_LINKING,                      /* link and rename */
    TAKEN_DROPIN,                       /* the standard library's arguments */
};

/* Raise it for name. filename: the name as it was given. what: the first part
 * of the message, a new reference; if it is NULL, its exception stays. Returns
 * NULL. */
PyObject *raise_taken(core_state *state, PyObject *filename,
                      const struct pshm_name *name, enum taken_by how,
                      PyObject *what);

/* The same with "An object of that name exists", or the type of a file that is
 * not an object. */
PyObject *raise_name_taken(core_state *state, PyObject *filename,
                           const struct pshm_name *name, enum taken_by how);

#endif
