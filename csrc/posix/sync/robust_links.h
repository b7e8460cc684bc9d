/* The links of a held mutex in its owner's list, if its bytes may be
 * overwritten.
 *
 * Only glibc's layout is known. With another C library every mutex counts as
 * valid, and none can be removed. */
#ifndef PSHM_ROBUST_LINKS_H
#define PSHM_ROBUST_LINKS_H

#include "posix/sync/robust.h"

/* Find out, once in a process, whether the C library links mutexes as
 * expected. */
void pshm_robust_learn_links(void);

/* Is the mutex in no list? False if that is unknown. */
bool pshm_robust_is_unlinked(const struct pshm_robust *r);

/* Remove the mutex from the calling thread's list, if the recorded neighbours
 * lead to it. Returns whether they do. */
bool pshm_robust_unlink(struct pshm_robust *r);

/* Before the calling thread sleeps until r may be free; NULL: after it has then
 * tried to lock r. If it is killed after a wake-up and before it locks r, the
 * kernel wakes the next waiter. Does nothing with another C library, in which
 * the next waiter wakes at the end of its poll interval. */
void pshm_robust_announce(const struct pshm_robust *r);

#endif
