/* shm_open(3) as it is. */
#ifndef PSHM_OPEN_H
#define PSHM_OPEN_H

#include "posix/base.h"
#include "posix/object/name.h"

/* shm_open(3), with a descriptor above 2, and for regular files only: other
 * files are not waited for (O_NONBLOCK) and closed again. Returns the
 * descriptor, or -errno: -EISDIR, -EINVAL (not a regular file; *kind is its
 * type, or 0), and the errors of open(2). */
int pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode,
                  mode_t *kind);

#endif
