/* The use lock: what proves to a reclaimer that an object is in use.
 *
 * A handle holds a shared flock(2) on its object.  The kernel drops it with the
 * last descriptor and the last mapping of that open file, however the process
 * ends.
 *
 * flock(2) needs no more than a descriptor for reading, so any process that may
 * read an object can lock it exclusively for ever.  Then an attach goes on
 * without a use lock, after a wait that is longer than a reclaimer keeps its
 * exclusive lock.
 *
 * A reclaimer locks exclusively, and removes the name.  An attacher takes its
 * use lock, and then looks if the name still leads to the object.  So the
 * second of the two sees the first. */
#ifndef PSHM_USE_LOCK_H
#define PSHM_USE_LOCK_H

#include "posix/base.h"

/* Take a shared lock.  Never waits.  Returns 0; -EAGAIN: another process has
 * an exclusive one; or -errno. */
int pshm_use_lock_take(int fd);

/* The same, but wait for a moment (20 ms at most) while a process has an
 * exclusive lock.  Returns also -EINTR. */
int pshm_use_lock_wait(int fd);

/* Take an exclusive lock, until fd is closed.  Never waits.  Returns 0; -EAGAIN:
 * another process has a lock; or -errno. */
int pshm_use_lock_try_exclusive(int fd);
void pshm_use_lock_release(int fd);

/* Has another open file a lock on it?  Ends the lock of fd. */
bool pshm_use_lock_is_shared(int fd);

/* The processes that have a lock of flock(2) on the file at path, as far as
 * /proc/locks shows them: up to room of them in pids.  Returns how many. */
int pshm_use_lock_holders(const char *path, pid_t *pids, size_t room);

#endif
