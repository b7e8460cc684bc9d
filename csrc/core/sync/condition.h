/* Condition. */
#ifndef CORE_CONDITION_H
#define CORE_CONDITION_H

#include "core/sync/lock.h"

#include "posix/sync/condition.h"

typedef struct {
    PlacedObject base;
    struct pshm_condition *words;
    PyObject *lock;                     /* its own, or the one it was given */
    bool given;
} ConditionObject;

static inline ConditionObject *
as_condition(PyObject *op)
{
    return (ConditionObject *)op;
}

static inline LockObject *
lock_of(PyObject *op)
{
    return as_lock(as_condition(op)->lock);
}

/* Let go of the lock, which this thread has, wait, and get it back.  Returns 1:
 * notified; 0: not in time; or -1 with an exception, and perhaps without the
 * lock. */
int condition_wait_once(PyObject *op, wait_timeout how_long);

#endif
