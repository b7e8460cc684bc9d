/* Condition: waiting for a change of what a lock protects. */
#include "core/sync/lock.h"

#include <limits.h>

#include "posix/sync/condition.h"

typedef struct {
    PlacedObject base;
    struct pshm_condition *condition;
    LockObject *lock;                   /* its own, or lock= */
    bool given;                         /* lock= */
} ConditionObject;

static ConditionObject *
as_condition(PyObject *op)
{
    return (ConditionObject *)op;
}

static PyObject *
lock_of(PyObject *op)
{
    return (PyObject *)as_condition(op)->lock;
}

/* ---- Opening ---- */

static int
init_condition(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    pshm_primitive_mark(primitive + 1);
    return pshm_lock_init((struct pshm_lock *)(void *)primitive->payload,
                          PSHM_RECURSIVE);
}

static int
condition_parse(placed_params *params)
{
    PyObject *lock = params->values[0], *on_owner_died = params->values[1];
    if (recovery_check(on_owner_died) < 0) {
        return -1;
    }
    if (lock != NULL && !Py_IS_TYPE(lock, params->state->lock_type)
        && !Py_IS_TYPE(lock, params->state->rlock_type)) {
        PyErr_Format(PyExc_TypeError,
                     "lock must be a Lock or an RLock, not %.200s",
                     Py_TYPE(lock)->tp_name);
        return -1;
    }
    if (lock != NULL && on_owner_died != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "on_owner_died is for the condition's own lock; give "
                        "it to the Lock or RLock that is passed as lock=");
        return -1;
    }
    return 0;
}

static int
condition_attach(PlacedObject *base, const placed_params *params)
{
    ConditionObject *self = (ConditionObject *)base;
    PyObject *lock = params->values[0];
    self->condition = (void *)(base->primitive + 1);
    self->given = lock != NULL;
    self->lock = self->given ? (LockObject *)Py_NewRef(lock)
                             : lock_new_inside(params->state, base,
                                               params->values[1]);
    return self->lock == NULL ? -1 : 0;
}

/* ---- Waiting and notifying ---- */

/* The wait ends with the exception that is set. If the lock cannot be acquired
 * for that, it ends with the exception of that attempt, whose context is the
 * first one. */
static void
end_raising(ConditionObject *self, struct pshm_waiter *waiter, int depth)
{
    PyObject *first = core_take_error();
    if (lock_acquire_all(self->lock, depth) == 0) {
        pshm_condition_leave(self->condition, waiter);
        core_set_error(first);
        return;
    }
    PyObject *error = core_take_error();
    PyObject *context = PyException_GetContext(error);
    if (context == NULL && error != first) {
        PyException_SetContext(error, Py_NewRef(first));
    }
    Py_XDECREF(context);
    Py_DECREF(first);
    core_set_error(error);
}

/* Sleep without the lock. An owner that dies while it holds the lock does not
 * wake a waiter, and perhaps no other process acquires the lock. So check for
 * that after each poll interval, without the lock: a waiter that acquired it
 * for the check would delay others. Returns 0, -ETIMEDOUT, or -EINTR: a signal
 * handler has raised, or else an owner died. */
static int
sleep_unlocked(ConditionObject *self, struct pshm_waiter *waiter,
               const wait_timeout *timeout)
{
    LockObject *lock = self->lock;
    int rc = -ETIMEDOUT;
    if (!timeout->now) {
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_condition_sleep(self->condition, waiter,
                                      timeout->deadline);
            Py_END_ALLOW_THREADS
        } while (wait_again(rc)
                 && !pshm_lock_owner_died(lock->lock, &lock->mstate));
    }
    return rc;
}

/* Returns 1; 0: not notified in time; or -1 with an exception, and perhaps
 * without the lock. */
static int
wait_once(ConditionObject *self, wait_timeout timeout)
{
    struct pshm_condition *condition = self->condition;
    struct pshm_waiter waiter;
    pshm_condition_enter(condition, &waiter);
    for (;;) {
        int depth = lock_release_all(self->lock);
        if (depth < 0) {
            return -1;
        }
        int rc = sleep_unlocked(self, &waiter, &timeout);
        if (rc == -EINTR && PyErr_Occurred()) {
            end_raising(self, &waiter, depth);
            return -1;
        }
        if (lock_acquire_all(self->lock, depth) < 0) {
            return -1;
        }
        if (pshm_condition_claim(condition, &waiter)) {
            return 1;
        }
        if (rc == 0 && PyErr_CheckSignals() < 0) {
            pshm_condition_leave(condition, &waiter);
            return -1;
        }
        /* A process that notifies all the time must not keep the waiter past
         * its timeout. */
        if (rc == 0 && pshm_now() >= timeout.deadline) {
            rc = -ETIMEDOUT;
        }
        if (rc == -EINTR) {
            /* The lock was recovered, so the predicate may be true. */
            pshm_condition_notify(condition, UINT_MAX);
            (void)pshm_condition_claim(condition, &waiter);
            return 1;
        }
        if (rc < 0) {
            pshm_condition_leave(condition, &waiter);
            return rc == -ETIMEDOUT ? 0 : placed_raise(&self->base, rc);
        }
    }
}

static int
check_mine(PyObject *op, const char *method)
{
    if (placed_check(as_placed(op)) < 0) {
        return -1;
    }
    if (!lock_is_mine(as_condition(op)->lock)) {
        PyErr_Format(PyExc_RuntimeError, "cannot %s on un-acquired lock",
                     method);
        return -1;
    }
    return 0;
}

PARAMETERS(wait, 1, 0, "timeout");
PARAMETERS(wait_for, 2, 1, "predicate", "timeout");

PyDoc_STRVAR(
    condition_wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Release the lock, wait for a notify, and acquire the lock again.\n\n"
    WAIT_TIMEOUT_DOC "Returns True, or False if there was no notify in time.\n"
    "After another waiter was killed, it may return True without a notify, so\n"
    "check the predicate, or use wait_for().\n\n"
    "Raises RuntimeError if this thread does not hold the lock; and what\n"
    "acquire() raises, and then this thread does not hold the lock:\n"
    "OwnerDiedError also if the owner dies during the wait. A thread that\n"
    "recovers the condition's own lock notifies all waiters; if lock= was\n"
    "given, the caller must do that.");

static PyObject *
condition_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    PyObject *value;
    wait_timeout timeout;
    if (args_match(&wait_signature, args, count, kwnames, &value) < 0
        || timeout_of_wait(value, &timeout) < 0
        || check_mine(op, "wait") < 0) {
        return NULL;
    }
    int notified = wait_once(as_condition(op), timeout);
    return notified < 0 ? NULL : PyBool_FromLong(notified);
}

PyDoc_STRVAR(
    condition_wait_for_doc,
    "wait_for($self, /, predicate, timeout=None)\n--\n\n"
    "Wait until predicate(), called with the lock acquired, is true.\n\n"
    "timeout: seconds for the whole call; None: no limit. Returns the last\n"
    "value of predicate(). Raises what wait() and predicate() raise.");

static PyObject *
condition_wait_for(PyObject *op, PyObject *const *args, Py_ssize_t count,
                   PyObject *kwnames)
{
    PyObject *values[2];
    wait_timeout timeout;
    if (args_match(&wait_for_signature, args, count, kwnames, values) < 0
        || timeout_of_wait(values[1], &timeout) < 0
        || check_mine(op, "wait") < 0) {
        return NULL;
    }
    for (int notified = 1;;) {
        PyObject *result = PyObject_CallNoArgs(values[0]);
        int truth = result == NULL ? -1 : PyObject_IsTrue(result);
        if (truth > 0 || (truth == 0 && !notified)) {
            return result;
        }
        Py_XDECREF(result);
        notified = truth < 0 || check_mine(op, "wait") < 0
                       ? -1 : wait_once(as_condition(op), timeout);
        if (notified < 0) {
            return NULL;
        }
    }
}

PARAMETERS(notify, 1, 0, "n");

PyDoc_STRVAR(
    condition_notify_doc,
    "notify($self, /, n=1)\n--\n\n"
    "Wake at most n waiters, n at least 0.\n\n"
    "Raises RuntimeError if this thread does not hold the lock.");

static PyObject *
notify(PyObject *op, long long n)
{
    if (check_mine(op, "notify") < 0) {
        return NULL;
    }
    ConditionObject *self = as_condition(op);
    lock_wake_later(self->lock, self->condition,
                    pshm_condition_admit(self->condition, (unsigned)n));
    Py_RETURN_NONE;
}

static PyObject *
condition_notify(PyObject *op, PyObject *const *args, Py_ssize_t count,
                 PyObject *kwnames)
{
    PyObject *value;
    long long n = 1;
    return args_match(&notify_signature, args, count, kwnames, &value) < 0
                   || (value != NULL
                       && arg_long(value, "n", 0, INT_MAX, &n) < 0)
               ? NULL : notify(op, n);
}

PyDoc_STRVAR(
    condition_notify_all_doc,
    "notify_all($self, /)\n--\n\n"
    "Wake all waiters.\n\n"
    "Raises RuntimeError if this thread does not hold the lock.");

static PyObject *
condition_notify_all(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return notify(op, UINT_MAX);
}

/* ---- The lock ---- */

PyDoc_STRVAR(
    condition_acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1, *, recover=False)\n--\n\n"
    "Acquire the lock: Lock.acquire.");

static PyObject *
condition_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    return placed_check(as_placed(op)) < 0
               ? NULL
               : lock_acquire_method(lock_of(op), args, count, kwnames);
}

PyDoc_STRVAR(condition_release_doc,
             "release($self, /)\n--\n\nRelease the lock: Lock.release.");

static PyObject *
condition_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return lock_release_method(lock_of(op), NULL);
}

static PyObject *
condition_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return placed_check(as_placed(op)) < 0 ? NULL
                                           : lock_enter(lock_of(op), NULL);
}

static PyObject *
condition_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    return lock_exit(lock_of(op), args, count);
}

PyDoc_STRVAR(condition_lock_doc,
             "Lock of the condition: its own RLock, or the lock of lock=.");

static PyObject *
condition_get_lock(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(lock_of(op));
}

PyDoc_STRVAR(condition_recovered_doc,
             "True if the last acquire by .lock recovered it from a dead\n"
             "owner: Lock.recovered.");

static PyObject *
condition_get_recovered(PyObject *op, void *Py_UNUSED(closure))
{
    return recovery_get(lock_of(op), (void *)offsetof(LockObject, recovery));
}

/* ---- The type ---- */

static PyObject *
condition_own_values(PlacedObject *base)
{
    ConditionObject *self = (ConditionObject *)base;
    return self->given ? Py_BuildValue("{sO}", "lock", self->lock)
                       : recovery_values(&self->lock->recovery);
}

/* The memory of the condition may be unmapped before the lock is released. */
static void
condition_finalize(PlacedObject *base)
{
    ConditionObject *self = (ConditionObject *)base;
    if (self->lock != NULL) {
        lock_wake_now(self->lock, self->condition);
    }
}

static PyObject *
condition_state(PlacedObject *self)
{
    return lock_state(&((ConditionObject *)self)->lock->base);
}

#define CONDITION_DOC_LOCK                                                    \
    "lock: a Lock or RLock, the same one in all processes that use the\n"     \
    "condition; None: an RLock that is a part of it. on_owner_died: as for\n"\
    "RLock, for that RLock.\n"

PyDoc_STRVAR(
    condition_at_doc,
    "at($type, /, shm, offset=0, *, lock=None, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "Open the condition at an offset of shared memory.\n\n"
    PLACED_DOC_AT CONDITION_DOC_LOCK "\n" PLACED_DOC_RAISES);

PyDoc_STRVAR(
    condition_doc,
    "Condition(name=None, lock=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"
    "    on_owner_died=None)\n--\n\n"
    "A condition between processes, as threading.Condition is between\n"
    "threads.\n\n" PLACED_DOC_NAME CONDITION_DOC_LOCK PLACED_DOC_OPTIONS
    "If a process is killed while it waits or notifies, all other waiters can\n"
    "still be notified: " MAN(futex, 2) ".\n\n" PLACED_DOC_RAISES);

static PyMethodDef condition_methods[] = {
    KEYWORD_METHOD(condition, acquire),
    PLAIN_METHOD(condition, release),
    KEYWORD_METHOD(condition, wait),
    KEYWORD_METHOD(condition, wait_for),
    KEYWORD_METHOD(condition, notify),
    PLAIN_METHOD(condition, notify_all),
    WITH_METHODS(condition),
    PLACED_METHODS(condition_at_doc),
    {0},
};

static PyGetSetDef condition_getset[] = {
    ATTRIBUTE(condition, lock),
    ATTRIBUTE(condition, recovered),
    PLACED_GETSET,
    {0},
};

const struct placed_type condition_type = {
    .name = "Condition",
    .doc = condition_doc,
    .methods = condition_methods,
    .getset = condition_getset,
    .object_size = sizeof(ConditionObject),
    .references = {offsetof(ConditionObject, lock)},
    .keeps_references = true,           /* methods do not check for NULL */
    .kind = PSHM_PRIMITIVE_CONDITION,
    /* The lock is the payload; the condition's words are on a line after it. */
    .size = sizeof(struct pshm_primitive) + PSHM_PRIMITIVE_ALIGNMENT,
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .owned = true,
    .init = init_condition,
    .own = {"lock", "on_owner_died"},
    .positional = 1,
    .none_is_default = true,
    .parse = condition_parse,
    .attach = condition_attach,
    .finalize = condition_finalize,
    .own_values = condition_own_values,
    .state = condition_state,
};
