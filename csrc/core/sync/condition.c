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

struct condition_memory {
    struct pshm_primitive head;         /* its payload is the lock */
    struct pshm_condition condition;
    unsigned char unused[48];
};

_Static_assert(sizeof(struct condition_memory) == 192, "three lines");

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
    if (lock == NULL || lock == Py_None) {
        return 0;
    }
    if (!Py_IS_TYPE(lock, params->state->lock_type)
        && !Py_IS_TYPE(lock, params->state->rlock_type)) {
        PyErr_Format(PyExc_TypeError,
                     "lock must be a Lock or an RLock, not %.200s",
                     Py_TYPE(lock)->tp_name);
        return -1;
    }
    if (on_owner_died != NULL && on_owner_died != Py_None) {
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
    self->given = lock != NULL && lock != Py_None;
    self->lock = self->given ? (LockObject *)Py_NewRef(lock)
                             : lock_new_inside(params->state, base,
                                               params->values[1]);
    return self->lock == NULL ? -1 : 0;
}

/* ---- Waiting ---- */

/* A wait by a thread that has acquired the lock depth times. */
typedef struct {
    ConditionObject *self;
    unsigned depth;
    struct pshm_waiter waiter;
} wait_state;

static int
release_all(wait_state *w)
{
    w->depth = w->self->lock->mstate.depth;
    for (unsigned i = 0; i < w->depth; i++) {
        if (lock_release(w->self->lock) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Returns 0, or -1 with an exception and without the lock. */
static int
acquire_all(wait_state *w)
{
    for (unsigned i = 0; i < w->depth; i++) {
        if (lock_acquire(w->self->lock, WAIT_FOREVER, false) < 0) {
            while (i-- > 0) {
                (void)lock_release(w->self->lock);
            }
            return -1;
        }
    }
    return 0;
}

/* The wait ends with the exception that is set.  If the lock cannot be acquired
 * for that, it ends with the exception of that attempt, whose context is the
 * first one. */
static void
end_raising(wait_state *w)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    if (acquire_all(w) == 0) {
        pshm_condition_leave(w->self->condition, &w->waiter);
        PyErr_Restore(type, value, traceback);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    PyObject *first = value;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *context = PyException_GetContext(value);
    if (context == NULL && value != first) {
        PyException_SetContext(value, Py_NewRef(first));
    }
    Py_XDECREF(context);
    Py_DECREF(first);
    PyErr_Restore(type, value, traceback);
}

/* Sleep without the lock.  An owner that dies while it holds the lock does not
 * wake a waiter, and perhaps no other process acquires the lock.  So check for
 * that after each poll interval, without the lock: a waiter that acquired it
 * for the check would delay others.  Returns 0, -ETIMEDOUT, or -EINTR: a signal
 * handler has raised, or else an owner died. */
static int
sleep_unlocked(wait_state *w, const wait_timeout *timeout)
{
    LockObject *lock = w->self->lock;
    int rc = -ETIMEDOUT;
    if (!timeout->now) {
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_condition_sleep(w->self->condition, &w->waiter,
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
    wait_state w = {.self = self};
    pshm_condition_enter(condition, &w.waiter);
    for (;;) {
        if (release_all(&w) < 0) {
            return -1;
        }
        int rc = sleep_unlocked(&w, &timeout);
        if (rc == -EINTR && PyErr_Occurred()) {
            end_raising(&w);
            return -1;
        }
        if (acquire_all(&w) < 0) {
            return -1;
        }
        if (pshm_condition_claim(condition, &w.waiter)) {
            return 1;
        }
        if (rc == 0 && PyErr_CheckSignals() < 0) {
            pshm_condition_leave(condition, &w.waiter);
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
            (void)pshm_condition_claim(condition, &w.waiter);
            return 1;
        }
        if (rc < 0) {
            pshm_condition_leave(condition, &w.waiter);
            return rc == -ETIMEDOUT ? 0 : placed_raise(&self->base, rc);
        }
    }
}

static int
check_mine(PyObject *op, const char *what)
{
    if (placed_check(as_placed(op)) < 0) {
        return -1;
    }
    if (!lock_is_mine(as_condition(op)->lock)) {
        PyErr_Format(PyExc_RuntimeError, "cannot %s on un-acquired lock",
                     what);
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
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None: no\n"
    "limit.  Returns True, or False if there was no notify in time.  After\n"
    "another waiter was killed it may return True without a notify: check the\n"
    "predicate, or use wait_for().\n\n"
    "Raises RuntimeError if this thread does not hold the lock; and what\n"
    "acquire() raises, and then does not hold the lock: OwnerDiedError also if\n"
    "the owner dies during the wait.  The thread that recovers the lock\n"
    "notifies all waiters; of a lock that was given with lock=, the caller must\n"
    "do that.");

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
    "timeout: seconds for the whole call; None: no limit.  Returns the last\n"
    "value of predicate().  Raises what wait() and predicate() raise.");

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
        if (truth < 0) {
            Py_XDECREF(result);
            return NULL;
        }
        if (truth || !notified) {
            return result;
        }
        Py_DECREF(result);
        if (check_mine(op, "wait") < 0) {
            return NULL;
        }
        notified = wait_once(as_condition(op), timeout);
        if (notified < 0) {
            return NULL;
        }
    }
}

/* ---- Notifying ---- */

PARAMETERS(notify, 1, 0, "n");

PyDoc_STRVAR(
    condition_notify_doc,
    "notify($self, /, n=1)\n--\n\n"
    "Wake at most n waiters, n at least 0.\n\n"
    "Raises RuntimeError if this thread does not hold the lock.");

static PyObject *
condition_notify(PyObject *op, PyObject *const *args, Py_ssize_t count,
                 PyObject *kwnames)
{
    PyObject *value;
    long long n = 1;
    if (args_match(&notify_signature, args, count, kwnames, &value) < 0
        || (value != NULL && arg_long(value, "n", 0, INT_MAX, &n) < 0)
        || check_mine(op, "notify") < 0) {
        return NULL;
    }
    pshm_condition_notify(as_condition(op)->condition, (unsigned)n);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    condition_notify_all_doc,
    "notify_all($self, /)\n--\n\n"
    "Wake all waiters.  Raises RuntimeError if this thread does not hold the\n"
    "lock.");

static PyObject *
condition_notify_all(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (check_mine(op, "notify") < 0) {
        return NULL;
    }
    pshm_condition_notify(as_condition(op)->condition, UINT_MAX);
    Py_RETURN_NONE;
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
    return lock_release(as_condition(op)->lock) < 0 ? NULL
                                                    : Py_NewRef(Py_None);
}

static PyObject *
condition_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return placed_check(as_placed(op)) < 0
                   || lock_acquire(as_condition(op)->lock, WAIT_FOREVER, false)
                          < 0
               ? NULL : Py_NewRef(Py_True);
}

static PyObject *
condition_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    return lock_exit(lock_of(op), args, count);
}

PyDoc_STRVAR(condition_lock_doc,
             "Lock of the condition: its own RLock, or what lock= was.");

static PyObject *
condition_get_lock(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(lock_of(op));
}

PyDoc_STRVAR(condition_recovered_doc,
             "True if the last acquire by .lock recovered the lock from an owner\n"
             "that had died: Lock.recovered.");

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

static PyObject *
condition_state(PlacedObject *self)
{
    return lock_state(&((ConditionObject *)self)->lock->base);
}

#define CONDITION_DOC_LOCK                                                    \
    "lock: a Lock or RLock, the same one in all processes that use the\n"     \
    "condition; None: an RLock that is a part of it.  on_owner_died: as for\n"\
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
    .keeps_references = true,           /* methods use the lock without a check */
    .kind = PSHM_PRIMITIVE_CONDITION,
    .size = sizeof(struct condition_memory),
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .owned = true,
    .init = init_condition,
    .own = {"lock", "on_owner_died"},
    .positional = 1,
    .parse = condition_parse,
    .attach = condition_attach,
    .own_values = condition_own_values,
    .state = condition_state,
};
