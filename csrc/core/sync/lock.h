/* Lock and RLock, also as a part of a Condition. */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include "core/sync/placed.h"
#include "core/sync/waiting.h"

#include "posix/sync/lock.h"

typedef struct {
    PlacedObject base;
    struct pshm_lock *lock;
    struct pshm_mutex_state mstate;
    PyObject *recover;                  /* callable, or NULL */
    atomic_bool recovered;              /* by the last one who got it */
    atomic_uint recovering;             /* recover is running: pshm_forks + 1 */
} LockObject;

static inline LockObject *
as_lock(PyObject *op)
{
    return (LockObject *)op;
}

/* ---- lock_acquire.c ---- */

/* Acquire it.  Returns 1; 0: not in time; or -1 with an exception, not held. */
int lock_acquire(LockObject *self, wait_timeout how_long, bool recover);

/* Release it.  Returns 0, or -1 with RuntimeError or OSError. */
int lock_release(LockObject *self);

/* The end of a with block: does not raise over an exception that has left the
 * lock released, as that of a wait may. */
PyObject *lock_leave(LockObject *self, PyObject *const *args,
                     Py_ssize_t count);

/* Raise OwnerDiedError.  rc: -EOWNERDEAD, or -EINPROGRESS: it cannot be taken over
 * yet.  Returns -1. */
int lock_raise_owner_died(core_state *state, int rc);

static inline bool
lock_is_mine(LockObject *self)
{
    return pshm_mutex_state_mine(&self->mstate);
}

/* ---- lock.c ---- */

/* A new RLock that is a part of owner's cell, which is a condition's.  Owns
 * nothing of owner but a reference to its mapping. */
LockObject *lock_inside(core_state *state, PlacedObject *owner,
                        PyObject *recover);

/* In a deallocator: r, which lies in map, still is in the list of a thread, so
 * the memory stays as long as it is. */
void lock_keep_orphan(void *map, struct pshm_robust *r,
                      const struct pshm_mutex_state *mstate);

/* on_owner_died=: a callable, None or NULL.  Returns 0, or -1 with TypeError. */
int lock_check_recover(PyObject *recover);

#endif
