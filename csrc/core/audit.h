/* Audit events: what a hook of sys.addaudithook() is told before a name changes.
 *
 * Each function is called before the call has changed anything, and with no
 * exception set.  Names are without a slash; NULL if it has no name.
 * Without a hook a call costs a few nanoseconds.  Returns 0, or -1 with the
 * exception of a hook, and then the caller changes nothing. */
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
