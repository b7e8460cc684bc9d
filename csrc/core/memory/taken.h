/* FileExistsError: its message lists the processes that use the object of that
 * name, and the arguments that solve the problem (posixshm._taken). */
#ifndef CORE_TAKEN_H
#define CORE_TAKEN_H

#include "core/core.h"

#include "posix/object/name.h"

/* Raise it for name. filename: the name as it was given. operation: that of the
 * caller, which determines the advice: "create" (without exist_ok), "exist_ok"
 * (for an unfit object), "stale" (exist_ok with stale='error'), "link" or
 * "constructor" (the standard library's arguments). what: the first part of the
 * message, a new reference; if it is NULL, its exception stays. Returns NULL.
 */
PyObject *raise_taken(core_state *state, PyObject *filename,
                      const struct pshm_name *name, const char *operation,
                      PyObject *what);

/* The same with "An object of that name exists", or the type of a file that is
 * not an object. */
PyObject *raise_name_taken(core_state *state, PyObject *filename,
                           const struct pshm_name *name,
                           const char *operation);

#endif
