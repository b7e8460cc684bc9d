/* The name lock: an exclusive flock(2) on PSHM_DIR.
 *
 * The kernel has no call that removes a name only if it is a certain object's:
 * that takes a look and then a step (link.h).  Processes that use this library
 * hold the name lock in between, and also while they give a name that may be
 * another object's.  To give a name that must be free takes no lock.
 *
 * Any process that can read PSHM_DIR can hold this lock for ever, so a waiter
 * goes on without it after 100 ms.  A child that is forked meanwhile does not
 * keep it, and the kernel releases it when the process ends. */
#ifndef PSHM_NAME_LOCK_H
#define PSHM_NAME_LOCK_H

#include "posix/base.h"

/* Never fails: returns what pshm_name_lock_release takes, with the lock or without.
 * Not to be called twice by one thread, or the second call waits for the
 * first.  May sleep. */
int pshm_name_lock_acquire(void);
void pshm_name_lock_release(int name_lock);

#endif
