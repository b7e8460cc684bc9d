/* Cells that processes of an ended container have left: a PID namespace that is
 * gone, whose ids mean nothing here.
 *
 * If no process uses the object any more, which its use lock says, the cell is
 * made anew.  Any number of processes may try at once. */
#ifndef PSHM_RENEW_H
#define PSHM_RENEW_H

#include "base.h"
#include "cell.h"

/* After pshm_cell_look said -EXDEV.  fd: a descriptor of the object that this
 * process has opened by itself, and no other shares; it has the use lock.  Waits
 * for others that try, but not past until.  Returns 0: it is a cell as
 * specified now; -EXDEV: a process uses the object; -EINTR: call again; or
 * -errno. */
int pshm_renew(int fd, struct pshm_cell *cell,
               const struct pshm_cell_spec *spec, int64_t until);

#endif
