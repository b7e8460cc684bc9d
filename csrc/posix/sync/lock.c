#include "posix/sync/lock.h"

int
pshm_lock_init(struct pshm_lock *lock, unsigned flags)
{
    return pshm_robust_init(&lock->mutex, flags);
}

int
pshm_lock_open(struct pshm_lock *lock, unsigned flags,
               struct pshm_mutex_state *mstate)
{
    int rc = pshm_robust_open(&lock->mutex, flags, mstate);
    if (rc == 0) {
        pshm_robust_watch(mstate, &lock->owner);
    }
    return rc;
}

static bool
is_inconsistent(const struct pshm_lock *lock)
{
    return atomic_load_explicit(&lock->inconsistent, memory_order_relaxed)
           != 0;
}

static void
set_inconsistent(struct pshm_lock *lock)
{
    atomic_store_explicit(&lock->inconsistent, 1, memory_order_relaxed);
}

int
pshm_lock_wait(struct pshm_lock *lock, struct pshm_mutex_state *mstate,
               int64_t deadline)
{
    pshm_orphans_release();
    return pshm_lock_tried(lock, mstate,
                           pshm_robust_lock(&lock->mutex, mstate, deadline));
}

void
pshm_lock_repair(struct pshm_lock *lock)
{
    pshm_robust_repair(&lock->mutex);
    atomic_store_explicit(&lock->inconsistent, 0, memory_order_relaxed);
}

void
pshm_lock_begin_repair(struct pshm_lock *lock)
{
    set_inconsistent(lock);
    pshm_robust_repair(&lock->mutex);
}

void
pshm_lock_release_unrepaired(struct pshm_lock *lock,
                             struct pshm_mutex_state *mstate)
{
    pshm_lock_begin_repair(lock);
    mstate->depth = 1;
    (void)pshm_lock_release(lock, mstate);
}

int
pshm_lock_abandon(struct pshm_lock *lock, struct pshm_mutex_state *mstate)
{
    return pshm_robust_abandon(&lock->mutex, mstate, &lock->inconsistent);
}

bool
pshm_lock_held(const struct pshm_lock *lock)
{
    unsigned word = atomic_load(pshm_robust_word(&lock->mutex));
    return (word & (FUTEX_TID_MASK | FUTEX_OWNER_DIED)) != 0;
}

bool
pshm_lock_owner_died(struct pshm_lock *lock,
                     const struct pshm_mutex_state *mstate)
{
    return pshm_robust_owner_gone(&lock->mutex, mstate)
           || (is_inconsistent(lock) && pshm_robust_holder(&lock->mutex) == 0);
}
