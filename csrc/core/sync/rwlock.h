/* RWLock. */
#ifndef CORE_RWLOCK_H
#define CORE_RWLOCK_H

#include "core/sync/lock.h"

#include "posix/sync/rwlock.h"

typedef struct {
    PlacedObject base;
    struct pshm_lock *gate;
    struct pshm_rwlock *rw;
    struct pshm_rw_state *mstate;
    PyObject *recover;                  /* callable, or NULL */
    atomic_bool recovered;              /* by the last writer here */
    atomic_uint recovering;             /* recover is running: pshm_forks + 1 */
} RWLockObject;

static inline RWLockObject *
as_rwlock(PyObject *op)
{
    return (RWLockObject *)op;
}

/* Acquire it to read, or to write.  recover: also from a writer that died, whose
 * work is then the caller's to repair.  Returns 1; 0: not in time; or -1 with an
 * exception, not held. */
int rwlock_get_read(RWLockObject *self, wait_timeout how_long);
int rwlock_get_write(RWLockObject *self, wait_timeout how_long, bool recover);

/* Has this thread acquired it, either way? */
bool rwlock_is_mine(RWLockObject *self);

/* Release it, either way.  Returns 0, or -1 with RuntimeError or OSError. */
int rwlock_let_go(RWLockObject *self);

#endif
