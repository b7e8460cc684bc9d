/* Acquiring and releasing a Lock or RLock, and what happens where its owner died. */
#include "core/sync/lock.h"

#include <limits.h>

#include "core/errors.h"

#include "posix/sync/condition.h"
#include "posix/host.h"

int
lock_raise_owner_died(core_state *state, int rc)
{
    PyObject *error = PyObject_CallFunction(
        state->owner_died_type, "is", EOWNERDEAD,
        rc == -EINPROGRESS
            ? "The object that held the lock is gone, but the thread that "
              "acquired it still runs; acquire(recover=True) takes the lock "
              "over once that thread uses another lock or ends"
            : "The owner of the lock died while it held it, so what it "
              "protects "
              "may be half changed; acquire(recover=True) takes it over, to "
              "repair that");
    if (error != NULL) {
        PyErr_SetObject(state->owner_died_type, error);
        Py_DECREF(error);
    }
    return -1;
}

/* What its last owner left is in order.  Those who wait in its condition were not
 * notified of what that one had changed before it died. */
static void
repaired(LockObject *self)
{
    pshm_lock_repair(self->lock);
    atomic_store(&self->recovered, true);
    if (self->base.kind == PSHM_PRIMITIVE_CONDITION) {
        struct pshm_condition *words = (void *)(self->base.place + 1);
        pshm_condition_notify(words, UINT_MAX);
    }
}

/* The lock is held, its last owner dead: call recover, and repair it or give it
 * up.  Returns 1 or -1. */
static int
call_recover(LockObject *self)
{
    pshm_lock_begin_repair(self->lock);
    atomic_store(&self->recovering, pshm_forks() + 1);
    PyObject *result = PyObject_CallOneArg(self->recover, (PyObject *)self);
    atomic_store(&self->recovering, 0);
    if (result == NULL) {
        pshm_lock_release_unrepaired(self->lock, &self->mstate);
        return -1;
    }
    Py_DECREF(result);
    repaired(self);
    return 1;
}

static int
owner_died(LockObject *self, bool recover)
{
    if (recover) {
        repaired(self);
        return 1;
    }
    if (self->recover != NULL) {
        return call_recover(self);
    }
    pshm_lock_release_unrepaired(self->lock, &self->mstate);
    return lock_raise_owner_died(core_state_of_type(Py_TYPE(self)),
                                 -EOWNERDEAD);
}

/* Where it is not free. */
static int
acquire_slowly(LockObject *self, int rc, wait_timeout how_long, bool recover)
{
    if ((rc == -EBUSY || rc == -EDEADLK) && !how_long.now) {
        timeout_begin(&how_long);
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_lock_wait(self->lock, &self->mstate, how_long.deadline);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
    }
    switch (rc) {
    case 0:
        atomic_store(&self->recovered, false);
        return 1;
    case -EBUSY:
    case -ETIMEDOUT:
        return 0;
    case -EOWNERDEAD:
        return owner_died(self, recover);
    case -EINPROGRESS:
        return lock_raise_owner_died(core_state_of_type(Py_TYPE(self)), rc);
    case -EDEADLK:
        if (how_long.now) {
            return 0;
        }
        return placed_raise_words(
            &self->base, rc,
            "This thread holds the %U already, by this object or another one, "
            "and would wait for itself for ever; release it before, or give a "
            "timeout (an RLock can be acquired again by the same object)");
    default:
        return placed_raise(&self->base, rc);
    }
}

int
lock_acquire(LockObject *self, wait_timeout how_long, bool recover)
{
    if (placed_check_writable(&self->base) < 0) {
        return -1;
    }
    int rc = pshm_lock_try(self->lock, &self->mstate);
    if (rc != 0) {
        return acquire_slowly(self, rc, how_long, recover);
    }
    if (self->mstate.depth == 1) {
        atomic_store_explicit(&self->recovered, false, memory_order_relaxed);
    }
    return 1;
}

static int
raise_not_held(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "cannot release a lock that this thread has not acquired "
                    "by this object");
    return -1;
}

int
lock_release(LockObject *self)
{
    if (!pshm_primitive_intact(self->base.place, self->base.kind)) {
        return placed_raise(&self->base, -EBADMSG);
    }
    if (atomic_load_explicit(&self->recovering, memory_order_relaxed)
            == pshm_forks() + 1
        && lock_is_mine(self) && self->mstate.depth == 1) {
        PyErr_SetString(PyExc_RuntimeError,
                        "on_owner_died must not release the lock; it is released "
                        "by whoever acquired it, after that");
        return -1;
    }
    int rc = pshm_lock_release(self->lock, &self->mstate);
    if (rc == -EPERM) {
        return raise_not_held();
    }
    return rc < 0 ? placed_raise(&self->base, rc) : 0;
}

PyObject *
lock_leave(LockObject *self, PyObject *const *args, Py_ssize_t count)
{
    bool raising = count > 0 && args[0] != Py_None;
    if (!(raising && !lock_is_mine(self)) && lock_release(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
