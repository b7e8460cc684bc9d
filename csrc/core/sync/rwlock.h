/* RWLock. */
#ifndef CORE_RWLOCK_H
#define CORE_RWLOCK_H

#include "core/sync/lock.h"

#include "posix/sync/rwlock.h"

typedef struct {
    PlacedObject base;
    struct recovery recovery;           /* from a writer that died */
    struct pshm_lock *turnstile;
    struct pshm_rwlock *rw;
    struct pshm_rw_state *mstate;       /* or NULL: not attached */
} RWLockObject;

static inline RWLockObject *
as_rwlock(PyObject *op)
{
    return (RWLockObject *)op;
}

/* Acquire the lock. recover: also after a writer that died. Returns 1; 0: not
 * in time; or -1 with an exception. */
int rwlock_get_read(RWLockObject *self, wait_timeout timeout);
int rwlock_get_write(RWLockObject *self, wait_timeout timeout, bool recover);

/* Does this thread hold the lock, to read or to write? */
bool rwlock_is_mine(const RWLockObject *self);

/* Release the lock. Returns 0, or -1 with RuntimeError or OSError. */
int rwlock_release(RWLockObject *self);

/* Methods: rwlock_context.c. */
PyObject *rwlock_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
                      PyObject *kwnames);
PyObject *rwlock_write(PyObject *op, PyObject *const *args, Py_ssize_t count,
                       PyObject *kwnames);
extern const char rwlock_read_doc[], rwlock_write_doc[];

#endif
