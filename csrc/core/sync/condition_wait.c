/* Waiting for a condition. */
#include "core/sync/condition.h"

#include <limits.h>

/* What a wait works on. */
typedef struct {
    ConditionObject *self;
    LockObject *lock;
    unsigned depth;                     /* how often this thread had the lock */
    struct pshm_waiter waiter;
} condition_wait_state;

static int
let_go(condition_wait_state *w)
{
    w->depth = w->lock->mstate.depth;
    for (unsigned i = 0; i < w->depth; i++) {
        if (lock_release(w->lock) < 0) {
            return -1;
        }
    }
    return 0;
}

/* As often as before.  0, or -1 with an exception and without the lock. */
static int
get_back(condition_wait_state *w)
{
    wait_timeout for_ever = {.deadline = PSHM_NEVER};
    for (unsigned i = 0; i < w->depth; i++) {
        if (lock_acquire(w->lock, for_ever, false) < 0) {
            while (i-- > 0) {
                (void)lock_release(w->lock);
            }
            return -1;
        }
    }
    return 0;
}

/* The wait ends with an exception that is set: have the lock for that, if it
 * can be had; or else with what says why not, and that as its context. */
static void
end_raising(condition_wait_state *w)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    if (get_back(w) == 0) {
        pshm_condition_leave(w->self->words, &w->waiter);
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

/* An owner that dies while it holds the lock wakes no waiter, and no other
 * process may ever want the lock.  So check after each slice, without the lock:
 * a waiter that acquired it for that would be in the way of others. */
static bool
owner_has_died(const LockObject *lock)
{
    return pshm_lock_owner_died(lock->lock, &lock->mstate);
}

int
condition_wait_once(PyObject *op, wait_timeout how_long)
{
    condition_wait_state w = {.self = as_condition(op), .lock = lock_of(op)};
    struct pshm_condition *words = w.self->words;
    pshm_condition_enter(words, &w.waiter);
    for (;;) {
        if (let_go(&w) < 0) {
            return -1;
        }
        int rc = how_long.now ? -ETIMEDOUT : 0;
        if (!how_long.now) {
            do {
                Py_BEGIN_ALLOW_THREADS
                rc = pshm_condition_sleep(words, &w.waiter, how_long.deadline);
                Py_END_ALLOW_THREADS
            } while (wait_on(rc) && !owner_has_died(w.lock));
        }
        if (rc == -EINTR && PyErr_Occurred()) {
            end_raising(&w);
            return -1;
        }
        if (get_back(&w) < 0) {
            return -1;
        }
        if (pshm_condition_claim(words, &w.waiter)) {
            return 1;
        }
        if (rc == 0 && PyErr_CheckSignals() < 0) {
            pshm_condition_leave(words, &w.waiter);
            return -1;
        }
        /* A writer that changes the words all the time must not keep the waiter
         * past its timeout. */
        if (rc == 0 && pshm_now() >= how_long.deadline) {
            rc = -ETIMEDOUT;
        }
        if (rc == -EINTR) {
            /* It was recovered: what is waited for may have come about. */
            pshm_condition_notify(words, UINT_MAX);
            (void)pshm_condition_claim(words, &w.waiter);
            return 1;
        }
        if (rc < 0) {
            pshm_condition_leave(words, &w.waiter);
            return rc == -ETIMEDOUT ? 0 : placed_raise(&w.self->base, rc);
        }
    }
}
