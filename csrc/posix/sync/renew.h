/* Cells that processes of an ended container have left: a PID namespace that is
 * gone, whose ids mean nothing here.
 *
 * If no process uses the object any more, which its use lock says, the cell is
 * made anew.  Any number of processes may try at once. */
#ifndef PSHM_RENEW_H
#define PSHM_RENEW_H

#include "posix/base.h"
#include "posix/sync/primitive.h"

/* After pshm_primitive_check said -EXDEV.  fd: a descriptor of the object that this
 * process has opened by itself, and no other shares; it has the use lock.  Waits
 * for others that try, but not past until.  Returns 0: it is a cell as
 * specified now; -EXDEV: a process uses the object; -EINTR: call again; or
 * -errno. */
int pshm_renew(int fd, struct pshm_primitive *primitive,
               const struct pshm_primitive_params *spec, int64_t deadline);

#endif
