/* Lock and RLock, also as a part of a Condition. */
#ifndef CORE_LOCK_H
#define CORE_LOCK_H

#include "core/sync/recovery.h"
#include "core/sync/waiting.h"

#include "posix/sync/condition.h"
#include "posix/sync/lock.h"

typedef struct {
    PlacedObject base;
    struct pshm_lock *lock;
    struct pshm_mutex_state mstate;
    /* For the owner: a condition that it notified, and how many waiters it
     * wakes when it has released the lock. */
    _Atomic(struct pshm_condition *) notified;
    unsigned to_wake;
    struct recovery recovery;           /* last: a fast acquire uses the fields
                                           before it */
} LockObject;

static inline bool
lock_is_mine(const LockObject *self)
{
    return pshm_mutex_state_mine(&self->mstate);
}

/* Acquire the lock; timeout NULL: without a limit. Returns 1; 0: not in time;
 * or -1 with an exception. */
int lock_acquire(LockObject *self, wait_timeout *timeout, bool recover);

/* Release the lock. Returns 0, or -1 with RuntimeError or OSError. */
int lock_release(LockObject *self);

/* Release the lock as often as this thread acquired it. Returns how often; or
 * -1 with an exception. */
int lock_release_all(LockObject *self);

/* Acquire it as often again. Returns 0, or -1 with an exception and without
 * the lock. */
int lock_acquire_all(LockObject *self, int depth);

/* The owner notified a condition: wake so many waiters after the release. */
void lock_wake_later(LockObject *self, struct pshm_condition *condition,
                     unsigned most);

/* Wake them now, if they are those of this condition or it is NULL. */
void lock_wake_now(LockObject *self, const struct pshm_condition *condition);

/* Methods, which Condition has too.  __exit__ does not replace an exception
 * after which this thread does not hold the lock, as wait() may raise it. */
PyObject *lock_acquire_method(PyObject *op, PyObject *const *args,
                              Py_ssize_t count, PyObject *kwnames);
PyObject *lock_release_method(PyObject *op, PyObject *unused);
PyObject *lock_enter(PyObject *op, PyObject *unused);
PyObject *lock_exit(PyObject *op, PyObject *const *args, Py_ssize_t count);

/* "locked" or "unlocked", for repr(). */
PyObject *lock_state(PlacedObject *self);

/* A new RLock that is a part of a condition. It has a reference to owner's
 * mapping, but not to owner. NULL with an exception. */
LockObject *lock_new_inside(core_state *state, PlacedObject *owner,
                            PyObject *on_owner_died);

/* The owner of map is deallocated while r, which lies in it, is in the list of
 * a thread: keep the memory until it is not. */
void lock_keep_orphan(void *map, struct pshm_robust *r,
                      const struct pshm_mutex_state *mstate);

#endif
