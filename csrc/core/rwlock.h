/* RWLock. */
#ifndef CORE_RWLOCK_H
#define CORE_RWLOCK_H

#include "lock.h"

#include "posix/rwlock.h"

typedef struct {
    cell base;
    struct pshm_lock *gate;
    struct pshm_rwlock *rw;
    struct pshm_rw_grip *grip;
    PyObject *recover;                  /* callable, or NULL */
    atomic_bool recovered;              /* by the last writer here */
    atomic_uint recovering;             /* recover is running: pshm_forks + 1 */
} rwlock;

static inline rwlock *
as_rwlock(PyObject *op)
{
    return (rwlock *)op;
}

/* Acquire it to read, or to write.  recover: also from a writer that died, whose
 * work is then the caller's to repair.  Returns 1; 0: not in time; or -1 with an
 * exception, not held. */
int rwlock_get_read(rwlock *self, span how_long);
int rwlock_get_write(rwlock *self, span how_long, bool recover);

/* Has this thread acquired it, either way? */
bool rwlock_is_mine(rwlock *self);

/* Release it, either way.  Returns 0, or -1 with RuntimeError or OSError. */
int rwlock_let_go(rwlock *self);

#endif
