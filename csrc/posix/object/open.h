/* The raw shm_open(3). */
#ifndef PSHM_OPEN_H
#define PSHM_OPEN_H

#include "posix/base.h"
#include "posix/object/name.h"

/* shm_open(3), with a descriptor above 2, and for regular files only: what
 * else has the name is never waited for (O_NONBLOCK), and closed again.
 * Returns the descriptor, or -errno: -EISDIR, -EINVAL (not a regular file;
 * *kind says what it is, or is 0), and what open(2) says else. */
int pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode,
                  mode_t *kind);

#endif
