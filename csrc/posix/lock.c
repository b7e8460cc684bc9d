#include "lock.h"

int
pshm_lock_init(struct pshm_lock *lock, unsigned flags)
{
    return pshm_robust_init(&lock->mutex, flags);
}

/* Who has it already, and locks it once more, was told the first time.  Not by
 * another grip: its place in the thread's list is the address by which it was
 * locked first, and that grip alone says that the memory there must stay. */
static int
note_locked(struct pshm_lock *lock, struct pshm_grip *grip, int rc)
{
    if (rc == 0 && grip->depth == 1 && pshm_robust_count(&lock->mutex) > 1) {
        (void)pshm_robust_let_go(&lock->mutex, grip);
        return -EDEADLK;
    }
    if (rc == 0 || rc == -EOWNERDEAD) {
        atomic_store_explicit(&lock->held, 1, memory_order_relaxed);
        if (grip->depth == 1
            && atomic_load_explicit(&lock->broken, memory_order_relaxed) != 0) {
            rc = -EOWNERDEAD;
        }
    }
    return rc;
}

int
pshm_lock_try(struct pshm_lock *lock, struct pshm_grip *grip)
{
    return note_locked(lock, grip, pshm_robust_try(&lock->mutex, grip));
}

int
pshm_lock_wait(struct pshm_lock *lock, struct pshm_grip *grip, int64_t until)
{
    return note_locked(lock, grip,
                       pshm_robust_lock(&lock->mutex, grip, until));
}

int
pshm_lock_release(struct pshm_lock *lock, struct pshm_grip *grip)
{
    int rc = pshm_robust_may_unlock(&lock->mutex, grip);
    if (rc < 0) {
        return rc;
    }
    bool last = grip->depth == 1;
    if (last) {
        atomic_store_explicit(&lock->held, 0, memory_order_relaxed);
    }
    rc = pshm_robust_let_go(&lock->mutex, grip);
    if (rc < 0 && last) {
        atomic_store_explicit(&lock->held, 1, memory_order_relaxed);
    }
    return rc;
}

void
pshm_lock_repair(struct pshm_lock *lock)
{
    pshm_robust_repair(&lock->mutex);
    atomic_store_explicit(&lock->broken, 0, memory_order_relaxed);
}

void
pshm_lock_begin_repair(struct pshm_lock *lock)
{
    atomic_store_explicit(&lock->broken, 1, memory_order_relaxed);
    pshm_robust_repair(&lock->mutex);
}

void
pshm_lock_give_up(struct pshm_lock *lock, struct pshm_grip *grip)
{
    pshm_lock_begin_repair(lock);
    while (pshm_lock_release(lock, grip) == 0 && pshm_grip_mine(grip)) {
    }
}

bool
pshm_lock_held(const struct pshm_lock *lock)
{
    return atomic_load_explicit(&lock->held, memory_order_relaxed) != 0;
}
