/* Renewing primitives that the processes of an ended container have left.
 * Their owners are ids in a PID namespace that does not exist any more.
 *
 * A primitive is made again if no process uses the object, which the use lock
 * shows. Any number of processes may try at once. */
#ifndef PSHM_RENEW_H
#define PSHM_RENEW_H

#include "posix/base.h"
#include "posix/sync/primitive.h"

/* After pshm_primitive_check returned -EXDEV. fd: a descriptor of the object
 * that this process opened itself and does not share with another process; it
 * holds the use lock. Waits until the deadline for other processes that try
 * the same. Returns 0: the primitive is as params describe; -EXDEV: another
 * process uses the object; -EINTR: call again; or -errno. */
int pshm_renew(int fd, struct pshm_primitive *primitive,
               const struct pshm_primitive_params *params, int64_t deadline);

#endif
