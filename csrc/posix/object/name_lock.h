/* The name lock: an exclusive flock(2) on PSHM_DIR.
 *
 * The kernel cannot remove a name on condition that it is a certain object's
 * (link.h). Processes that use this library hold the name lock while they
 * check and then remove a name, and while they give a name that another object
 * may have. Giving a name that must be free needs no lock.
 *
 * Any process that can read PSHM_DIR can hold this lock indefinitely, so a
 * waiter continues without it after 100 ms. A child that is forked meanwhile
 * does not keep it, and the kernel releases it when the process ends. */
#ifndef PSHM_NAME_LOCK_H
#define PSHM_NAME_LOCK_H

#include "posix/base.h"

/* Never fails: returns a value for pshm_name_lock_release, with or without the
 * lock. A thread must not call it twice, or the second call waits for the
 * first. May sleep. */
int pshm_name_lock_acquire(void);
void pshm_name_lock_release(int name_lock);

#endif
