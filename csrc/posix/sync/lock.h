/* Lock: a robust mutex that stays inconsistent until a thread repairs the
 * data.
 *
 * If the owner dies, the next thread that locks the mutex gets -EOWNERDEAD and
 * holds it. It either repairs the protected data (pshm_lock_repair) or
 * releases the lock as it is (pshm_lock_release_unrepaired); then the next
 * thread gets -EOWNERDEAD, too. A death at any point leaves the lock
 * inconsistent: the word `inconsistent` is set before the mutex is marked
 * consistent, and a repair clears it while the mutex is still held. */
#ifndef PSHM_LOCK_H
#define PSHM_LOCK_H

#include <stdatomic.h>

#include "posix/sync/orphan.h"

/* 64 bytes: the payload of a primitive, with the mutex at offset 0. */
struct pshm_lock {
    struct pshm_robust mutex;
    atomic_uint inconsistent;
    struct pshm_owner owner;
    uint32_t unused;
};

_Static_assert(sizeof(struct pshm_lock) == 64, "a lock fills a payload");

/* As pshm_robust_init; pshm_robust_open and _watch; pshm_robust_try and _busy;
 * pshm_robust_lock; pshm_robust_unlock. A recursive lock can be locked again
 * only with the same mutex state. */
int pshm_lock_init(struct pshm_lock *lock, unsigned flags);
int pshm_lock_open(struct pshm_lock *lock, unsigned flags,
                   struct pshm_mutex_state *mstate);
static inline int pshm_lock_try(struct pshm_lock *lock,
                                struct pshm_mutex_state *mstate);
int pshm_lock_wait(struct pshm_lock *lock, struct pshm_mutex_state *mstate,
                   int64_t deadline);
static inline int pshm_lock_release(struct pshm_lock *lock,
                                    struct pshm_mutex_state *mstate);

/* For the owner after -EOWNERDEAD. Must be called first if the repair locks
 * and unlocks a recursive lock again, which needs a consistent mutex. Until
 * the repair is done, the next owner still gets -EOWNERDEAD. */
void pshm_lock_begin_repair(struct pshm_lock *lock);

/* Then one of these. The second releases the lock completely, also if this
 * thread locked it several times. */
void pshm_lock_repair(struct pshm_lock *lock);
void pshm_lock_release_unrepaired(struct pshm_lock *lock,
                                  struct pshm_mutex_state *mstate);

/* The Python object of this mutex state is being deallocated. If it holds the
 * lock, the next owner gets -EOWNERDEAD. Returns 0; or -EBUSY: the mutex is
 * still in the list of a thread of this process, so the caller must pass a
 * reference to the region to pshm_orphan_keep. */
int pshm_lock_abandon(struct pshm_lock *lock, struct pshm_mutex_state *mstate);

/* Is the lock held? A dead owner counts until another thread gets -EOWNERDEAD.
 * The answer may be out of date when the caller gets it. */
bool pshm_lock_held(const struct pshm_lock *lock);

/* Would the next thread that locks it get -EOWNERDEAD? Takes no lock; takes
 * some microseconds. */
bool pshm_lock_owner_died(struct pshm_lock *lock,
                          const struct pshm_mutex_state *mstate);

/* ---- The operations on a free lock, inline as those of robust.h ---- */

static inline int
pshm_lock_tried(const struct pshm_lock *lock,
                const struct pshm_mutex_state *mstate, int rc)
{
    /* A thread that locks it once more got -EOWNERDEAD the first time. */
    return atomic_load_explicit(&lock->inconsistent, memory_order_relaxed) != 0
                   && rc == 0 && mstate->depth == 1
               ? -EOWNERDEAD : rc;
}

static inline int
pshm_lock_try(struct pshm_lock *lock, struct pshm_mutex_state *mstate)
{
    pshm_orphans_release();
    int rc = pshm_robust_try(&lock->mutex, mstate);
    if (rc == -EBUSY) {
        rc = pshm_robust_busy(&lock->mutex, mstate);
    }
    return pshm_lock_tried(lock, mstate, rc);
}

static inline int
pshm_lock_release(struct pshm_lock *lock, struct pshm_mutex_state *mstate)
{
    pshm_orphans_release();
    return pshm_robust_unlock(&lock->mutex, mstate);
}

#endif
