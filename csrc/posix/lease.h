/* The lease: what proves to a reclaimer that an object is in use.
 *
 * Who has an object open holds a shared flock(2) on it.  The kernel drops it
 * with the last descriptor and the last mapping of that open file, however the
 * process ends.
 *
 * flock(2) needs no more than a descriptor for reading, so anyone who may read
 * an object may also lock it exclusively for ever.  Then the lease is a shared
 * open-file-description lock (fcntl(2), F_OFD_SETLK) instead: to stand in the
 * way of that one takes the right to write the object.
 *
 * A reclaimer seizes the object, moves its name aside, and looks once more
 * whether it is contested.  Who attaches takes a lease first, and then looks
 * whether the name still leads there.  So whoever comes second sees the other.
 * A reclaimer that sees a lease puts the name back, and lets go.
 *
 * Nothing here waits for anybody to let go, but for a moment. */
#ifndef PSHM_LEASE_H
#define PSHM_LEASE_H

#include "base.h"

/* Returns 0; 1: it is of the second kind; -EAGAIN: someone who may write the
 * object keeps everybody out; or -errno. */
int pshm_lease_take(int fd);

/* With a lease of the second kind: has a reclaimer let go, so that there is one
 * of the first kind too?  Waits a moment for that (milliseconds), no more, for
 * it may not be a reclaimer.  Returns 0, -EAGAIN, -EINTR or -errno. */
int pshm_lease_improve(int fd);

/* Lock out new leases of the first kind, until fd is closed, and look for those
 * of the second.  Returns 0; -EAGAIN: somebody has a lease; or -errno. */
int pshm_lease_seize(int fd);

/* After the object was seized: has somebody a lease of the second kind?
 * Returns 0; -EAGAIN: yes; or -errno. */
int pshm_lease_contested(int fd);

#endif
