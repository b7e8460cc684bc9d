/* Lock: a robust mutex whose broken state lasts until somebody repairs it.
 *
 * When its owner dies, whoever locks it next is told (-EOWNERDEAD), has it, and
 * either repairs what it protects (pshm_lock_repair) or gives it up
 * (pshm_lock_give_up): then the next one is told likewise.  The order is such
 * that a death at any point leaves it as it was: broken is set before the mutex
 * is marked consistent, and cleared by a repair while it is still held. */
#ifndef PSHM_LOCK_H
#define PSHM_LOCK_H

#include <stdatomic.h>

#include "robust.h"

/* 64 bytes, the payload of a cell; the mutex begins it. */
struct pshm_lock {
    struct pshm_robust mutex;
    atomic_uint broken;
    atomic_uint held;                   /* for those who only want to know */
    uint32_t unused[2];
};

_Static_assert(sizeof(struct pshm_lock) == 64, "a lock fills a payload");

/* All as pshm_robust_init, ..._try, ..._lock and ..._unlock.  -EDEADLK also for
 * a recursive one that this thread has by another grip. */
int pshm_lock_init(struct pshm_lock *lock, unsigned flags);
int pshm_lock_try(struct pshm_lock *lock, struct pshm_grip *grip);
int pshm_lock_wait(struct pshm_lock *lock, struct pshm_grip *grip,
                   int64_t until);
int pshm_lock_release(struct pshm_lock *lock, struct pshm_grip *grip);

/* After -EOWNERDEAD, by who has it.  First, if the repair is to lock and unlock
 * a recursive one again meanwhile: that can be done only while the mutex is
 * consistent.  Whoever comes next is told until the repair is done. */
void pshm_lock_begin_repair(struct pshm_lock *lock);

/* In the end one of these; the second however often this thread has it. */
void pshm_lock_repair(struct pshm_lock *lock);
void pshm_lock_give_up(struct pshm_lock *lock, struct pshm_grip *grip);

/* Had it somebody just now?  A dead owner counts until somebody was told. */
bool pshm_lock_held(const struct pshm_lock *lock);

#endif
