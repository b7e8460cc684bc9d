/* Lock and RLock, also as a part of a Condition. */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include "cell.h"
#include "waiting.h"

#include "posix/lock.h"

typedef struct {
    cell base;
    struct pshm_lock *lock;
    struct pshm_grip grip;
    PyObject *recover;                  /* callable, or NULL */
    atomic_bool recovered;              /* by the last one who got it */
    atomic_uint recovering;             /* recover is running: pshm_forks + 1 */
} lock_object;

static inline lock_object *
as_lock(PyObject *op)
{
    return (lock_object *)op;
}

/* ---- lock_acquire.c ---- */

/* Acquire it.  Returns 1; 0: not in time; or -1 with an exception, not held. */
int lock_acquire(lock_object *self, span how_long, bool recover);

/* Release it.  Returns 0, or -1 with RuntimeError or OSError. */
int lock_release(lock_object *self);

/* The end of a with block: does not raise over an exception that has left the
 * lock released, as that of a wait may. */
PyObject *lock_leave(lock_object *self, PyObject *const *args,
                     Py_ssize_t count);

/* Raise OwnerDiedError.  rc: -EOWNERDEAD, or -EINPROGRESS: it cannot be taken over
 * yet.  Returns -1. */
int lock_raise_owner_died(core_state *state, int rc);

static inline bool
lock_is_mine(lock_object *self)
{
    return pshm_grip_mine(&self->grip);
}

/* ---- lock.c ---- */

/* A new RLock that is a part of owner's cell, which is a condition's.  Owns
 * nothing of owner but a reference to its mapping. */
lock_object *lock_inside(core_state *state, cell *owner, PyObject *recover);

/* In a deallocator: r, which lies in map, still is in the list of a thread, so
 * the memory stays as long as it is. */
void lock_keep_orphan(void *map, struct pshm_robust *r,
                      const struct pshm_grip *grip);

/* on_owner_died=: a callable, None or NULL.  Returns 0, or -1 with TypeError. */
int lock_check_recover(PyObject *recover);

#endif
