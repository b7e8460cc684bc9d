/* Lock: a robust mutex that stays inconsistent until a thread repairs it.
 *
 * When its owner dies, the thread that locks it next is told (-EOWNERDEAD), has
 * it, and either repairs what it protects (pshm_lock_repair) or gives it up
 * (pshm_lock_give_up): then the next one is told likewise.  The order is such
 * that a death at any point leaves it as it was: inconsistent is set before the
 * mutex is marked consistent, and cleared by a repair while it is still held. */
#ifndef PSHM_LOCK_H
#define PSHM_LOCK_H

#include <stdatomic.h>

#include "posix/object/region.h"
#include "posix/sync/robust.h"

/* 64 bytes, the payload of a cell; the mutex begins it. */
struct pshm_lock {
    struct pshm_robust mutex;
    atomic_uint inconsistent;
    struct pshm_owner owner;
    uint32_t unused;
};

_Static_assert(sizeof(struct pshm_lock) == 64, "a lock fills a payload");

/* All as pshm_robust_init, ..._open with ..._watch, ..._try with ..._busy, ..._lock
 * and ..._unlock.  A recursive one can be locked again by the same grip only. */
int pshm_lock_init(struct pshm_lock *lock, unsigned flags);
int pshm_lock_open(struct pshm_lock *lock, unsigned flags,
                   struct pshm_mutex_state *mstate);
int pshm_lock_try(struct pshm_lock *lock, struct pshm_mutex_state *mstate);
int pshm_lock_wait(struct pshm_lock *lock, struct pshm_mutex_state *mstate,
                   int64_t deadline);
int pshm_lock_release(struct pshm_lock *lock, struct pshm_mutex_state *mstate);

/* After -EOWNERDEAD, by its owner.  First, if the repair is to lock and unlock a
 * recursive one again meanwhile: that can be done only while the mutex is
 * consistent.  The next owner is told until the repair is done. */
void pshm_lock_begin_repair(struct pshm_lock *lock);

/* In the end one of these; the second however often this thread has it. */
void pshm_lock_repair(struct pshm_lock *lock);
void pshm_lock_give_up(struct pshm_lock *lock, struct pshm_mutex_state *mstate);

/* The object that has the grip goes away.  If it is held, the next owner is told.
 * Returns 0; or -EBUSY: a thread of this process
 * still has it in its list, so the caller must hand a reference to the region to
 * pshm_orphan_keep. */
int pshm_lock_abandon(struct pshm_lock *lock, struct pshm_mutex_state *mstate);

/* Was it held just now?  A dead owner counts until a thread was told. */
bool pshm_lock_held(const struct pshm_lock *lock);

/* Would the next thread to lock it be told of a death, if it could have it now?
 * Takes no lock; some microseconds. */
bool pshm_lock_owner_died(struct pshm_lock *lock,
                          const struct pshm_mutex_state *mstate);

#endif
