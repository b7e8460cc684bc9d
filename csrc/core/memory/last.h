/* delete="last", for a mapping: removes the name after it was unmapped.
 *
 * The mappings of an object own it together, so that it happens after the last
 * view was deallocated. If a handle is open when the process ends, last_leave
 * does it instead. */
#ifndef CORE_LAST_H
#define CORE_LAST_H

#include "core/core.h"

#include "posix/object/last.h"
#include "posix/object/name.h"

struct last;

/* Passed from last_before to last_after. */
struct last_unmap {
    bool wanted;
    struct pshm_name path;
    struct pshm_last end;
};

/* Remove path, if it refers to the object id and no process uses the object.
 * track: and unregister it with the resource tracker. NULL with an exception.
 */
struct last *last_new(PyObject *support, const struct pshm_name *path,
                      struct pshm_identity id, bool track);

/* The functions below accept NULL, and do nothing. */

/* For one more mapping of the object. */
struct last *last_share(struct last *last);

/* The object was renamed. */
void last_rename(struct last *last, const struct pshm_name *path);

/* Do not remove the name. */
void last_cancel(struct last *last);

/* Around the unmapping of a mapping; the second steals last. Both leave an
 * exception that is set, and set none. */
void last_before(struct last *last, struct last_unmap *unmap);
void last_after(struct last *last, struct last_unmap *unmap);

/* At the end of a process that has the object open as fd. alone: as for
 * pshm_last_leave. Sets no exception. */
void last_leave(struct last *last, int fd, bool alone);

#endif
