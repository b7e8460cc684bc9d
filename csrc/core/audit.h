/* Audit events, which hooks of sys.addaudithook() receive before a name
 * changes.
 *
 * A call raises its event before it has changed anything, without an exception
 * set. Names do not have a slash; NULL: no name. Without a hook, an event
 * costs a few nanoseconds. Each function returns 0; or -1 with the exception
 * of a hook, after which the caller changes nothing. */
#ifndef CORE_AUDIT_H
#define CORE_AUDIT_H

#include "core/core.h"

#include "posix/object/name.h"

int audit_create(const struct pshm_name *name, Py_ssize_t size);
int audit_open(const struct pshm_name *name, bool readonly);
int audit_unlink(const struct pshm_name *name);
int audit_link(const struct pshm_name *name, bool replace);
int audit_rename(const struct pshm_name *from, const struct pshm_name *to,
                 bool replace);

/* prefix: "" for every name.  older_than: seconds; < 0: any age. */
int audit_reclaim(const char *prefix, double older_than, bool force);

#endif
