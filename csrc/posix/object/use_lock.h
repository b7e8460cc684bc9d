/* The use lock: the proof for a reclaimer that an object is in use.
 *
 * A handle holds a shared flock(2) on its object. The kernel releases it with
 * the last descriptor and the last mapping of that open file, however the
 * process ends.
 *
 * flock(2) only needs a descriptor for reading, so any process that may read
 * an object can lock it exclusively, for any time. Then an attach continues
 * without a use lock, after a wait that is longer than a reclaimer holds its
 * exclusive lock.
 *
 * A reclaimer locks exclusively and then removes the name. An attaching
 * process takes its use lock and then checks that the object still has a name.
 * So the second of the two notices the first. */
#ifndef PSHM_USE_LOCK_H
#define PSHM_USE_LOCK_H

#include "posix/base.h"

/* Take a shared lock. Never waits. Returns 0; -EAGAIN: another process has an
 * exclusive one; or -errno. */
int pshm_use_lock_take(int fd);

/* The same, but wait for up to 20 ms while a process has an exclusive lock.
 * Also returns -EINTR. */
int pshm_use_lock_wait(int fd);

/* Take an exclusive lock, until fd is closed. Never waits. Returns 0; -EAGAIN:
 * another process has a lock; or -errno. */
int pshm_use_lock_try_exclusive(int fd);
void pshm_use_lock_release(int fd);

/* Does another open file have a lock on the object? Releases the lock of fd.
 */
bool pshm_use_lock_is_shared(int fd);

#endif
