/* The links of a held mutex in its owner's list: whether they are valid, and
 * removing the mutex by the links that its neighbours confirm.
 *
 * Only glibc's layout is known.  With another C library every mutex counts as
 * valid, and none can be removed. */
#ifndef PSHM_ROBUST_LINKS_H
#define PSHM_ROBUST_LINKS_H

#include "posix/sync/robust.h"

/* Find out, once in a process, whether the C library links mutexes as
 * expected. */
void pshm_robust_learn_links(void);

/* Record that this library uses the mutex with this link. */
void pshm_robust_note_as_ours(uintptr_t link);

/* Remove the mutex from the calling thread's list.  Returns whether that was
 * possible. */
bool pshm_robust_unlink_by_neighbours(struct pshm_robust *r);

#endif
