/* delete="last": what a mapping has to do after it was unmapped.
 *
 * The mappings of the object own it, so that it is done after the last view is
 * gone.  A handle that is open when its process ends does it before. */
#ifndef CORE_LAST_H
#define CORE_LAST_H

#include "core/core.h"

#include "posix/object/last.h"
#include "posix/object/name.h"

struct last;

/* What lies between. */
struct last_time {
    bool wanted;
    struct pshm_name path;
    struct pshm_last end;
};

/* To remove path, if it is that object's and no process uses it.  track: and to
 * tell the resource tracker.  NULL with an exception. */
struct last *last_new(PyObject *support, const struct pshm_name *path,
                      struct pshm_identity id, bool track);

/* For one more mapping of the object.  NULL: nothing. */
struct last *last_share(struct last *last);

/* The object has another name by now.  NULL: nothing. */
void last_rename(struct last *last, const struct pshm_name *path);

/* Nothing is to be removed any more.  NULL: nothing. */
void last_cancel(struct last *last);

/* Around the unmapping of one of its mappings.  NULL: nothing.  The second owns
 * last.  Both leave an exception that is set as it is, and set none. */
void last_before(struct last *last, struct last_time *time);
void last_after(struct last *last, struct last_time *time);

/* Do it at the end of a process that has the object open as fd; alone: as for
 * pshm_last_leave.  Sets no exception. */
void last_leave(struct last *last, int fd, bool alone);

#endif
