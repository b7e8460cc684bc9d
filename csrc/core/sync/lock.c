/* Lock and RLock. */
#include "core/sync/lock.h"

#include <limits.h>

#include "core/errors.h"

#include "posix/sync/orphan.h"

static LockObject *
as_lock(PyObject *op)
{
    return (LockObject *)op;
}

/* ---- Opening ---- */

static int
init_lock(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    return pshm_lock_init((struct pshm_lock *)(void *)primitive->payload, 0);
}

static int
init_rlock(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    return pshm_lock_init((struct pshm_lock *)(void *)primitive->payload,
                          PSHM_RECURSIVE);
}

static int
attach(LockObject *self, PyObject *on_owner_died)
{
    self->lock = placed_memory(&self->base);
    self->recovery.callback = Py_XNewRef(on_owner_died);
    int rc = pshm_lock_open(self->lock, self->base.type->flags, &self->mstate);
    return rc < 0 ? placed_raise(&self->base, rc) : 0;
}

static int
lock_attach(PlacedObject *self, const placed_params *params)
{
    return attach((LockObject *)self, params->values[0]);
}

LockObject *
lock_new_inside(core_state *state, PlacedObject *owner,
                PyObject *on_owner_died)
{
    LockObject *self = (LockObject *)placed_alloc(state->rlock_type);
    if (self == NULL) {
        return NULL;
    }
    self->base.type = &rlock_type;
    self->base.map = (MemoryMapObject *)Py_NewRef(owner->map);
    self->base.primitive = owner->primitive;
    self->base.kind = owner->kind;
    self->base.offset = owner->offset;
    if (attach(self, on_owner_died) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (LockObject *)placed_complete(&self->base);
}

/* ---- Acquiring ---- */

/* The last owner's data is consistent again. The waiters of a condition were
 * not notified of what that owner changed before it died. */
static int
repaired(LockObject *self)
{
    pshm_lock_repair(self->lock);
    atomic_store(&self->recovery.recovered, true);
    if (self->base.kind == PSHM_PRIMITIVE_CONDITION) {
        pshm_condition_notify((void *)(self->base.primitive + 1), UINT_MAX);
    }
    return 1;
}

/* The lock is held, and its last owner died. Returns 1 or -1. */
static int
recover_from_death(LockObject *self, bool recover)
{
    if (recover) {
        return repaired(self);
    }
    if (self->recovery.callback == NULL) {
        pshm_lock_release_unrepaired(self->lock, &self->mstate);
        return recovery_raise(&self->base, -EOWNERDEAD);
    }
    pshm_lock_begin_repair(self->lock);
    if (recovery_call(&self->recovery, (PyObject *)self) < 0) {
        pshm_lock_release_unrepaired(self->lock, &self->mstate);
        return -1;
    }
    return repaired(self);
}

/* After an attempt that did not simply acquire the lock. Not inline, so that
 * a free lock costs less. */
static Py_NO_INLINE int
acquire_slowly(LockObject *self, int rc, wait_timeout *timeout, bool recover)
{
    wait_timeout forever = WAIT_FOREVER;
    timeout = timeout == NULL ? &forever : timeout;
    if ((rc == -EBUSY || rc == -EDEADLK) && !timeout->now) {
        timeout_begin(timeout);
        WAIT_WITHOUT_GIL(rc, pshm_lock_wait(self->lock, &self->mstate,
                                            timeout->deadline));
    }
    switch (rc) {
    case 0:
        atomic_store(&self->recovery.recovered, false);
        return 1;
    case -EBUSY:
    case -ETIMEDOUT:
        return 0;
    case -EOWNERDEAD:
        return recover_from_death(self, recover);
    case -EINPROGRESS:
        return recovery_raise(&self->base, rc);
    case -EDEADLK:
        if (timeout->now) {
            return 0;
        }
        return placed_raise_words(
            &self->base, rc,
            "This thread already holds the %U, by this object or another one, "
            "so it would wait for itself; release it first, or give a timeout "
            "(an RLock can be acquired again by the same object)");
    default:
        return placed_raise(&self->base, rc);
    }
}

int
lock_acquire(LockObject *self, wait_timeout *timeout, bool recover)
{
    if (placed_check_writable(&self->base) < 0) {
        return -1;
    }
    int rc = pshm_lock_try(self->lock, &self->mstate);
    if (rc != 0) {
        return acquire_slowly(self, rc, timeout, recover);
    }
    if (atomic_load_explicit(&self->recovery.recovered, memory_order_relaxed)
        && self->mstate.depth == 1) {
        atomic_store_explicit(&self->recovery.recovered, false,
                              memory_order_relaxed);
    }
    return 1;
}

PARAMETERS(acquire, 2, 0, "blocking", "timeout", "recover");

PyDoc_STRVAR(
    lock_acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1, *, recover=False)\n--\n\n"
    "Acquire the lock: " MAN(pthread_mutexattr_setrobust, 3) ".\n\n"
    "timeout: seconds, on the monotonic clock; -1 or None: no limit; 0: as\n"
    "blocking=False. " RECOVER_DOC
    "Returns True, or False if the lock was not free in time.\n\n"
    "Raises OwnerDiedError if the last owner died, or if the Python object\n"
    "that held the lock was deallocated. The lock is then not acquired, and\n"
    "each acquire() raises until one recovers the lock. Without a timeout,\n"
    "raises OSError (EDEADLK) if this thread already holds the lock, unless\n"
    "it is an RLock that this object holds. Raises ValueError after close().");

static Py_NO_INLINE int
acquire_with(LockObject *self, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    PyObject *values[3];
    wait_timeout timeout;
    bool recover = false;
    if (args_match(&acquire_signature, args, count, kwnames, values) < 0
        || timeout_of_acquire(values[0], values[1], &timeout) < 0
        || arg_bool(values[2], &recover) < 0) {
        return -1;
    }
    return lock_acquire(self, &timeout, recover);
}

PyObject *
lock_acquire_method(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    int acquired = count == 0 && kwnames == NULL
                       ? lock_acquire(as_lock(op), NULL, false)
                       : acquire_with(as_lock(op), args, count, kwnames);
    return acquired < 0 ? NULL : PyBool_FromLong(acquired);
}

PyObject *
lock_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return lock_acquire(as_lock(op), NULL, false) < 0
               ? NULL : Py_NewRef(Py_True);
}

/* ---- Releasing ---- */

void
lock_wake_now(LockObject *self, const struct pshm_condition *condition)
{
    struct pshm_condition *notified = self->notified;
    if (notified != NULL && (condition == NULL || condition == notified)) {
        self->notified = NULL;
        pshm_condition_wake(notified, self->to_wake);
    }
}

void
lock_wake_later(LockObject *self, struct pshm_condition *condition,
                unsigned most)
{
    if (most == 0) {
        return;
    }
    if (self->notified != condition) {
        lock_wake_now(self, NULL);
        self->notified = condition;
        self->to_wake = 0;
    }
    self->to_wake = most < UINT_MAX - self->to_wake ? self->to_wake + most
                                                    : UINT_MAX;
}

int
lock_release(LockObject *self)
{
    if (!pshm_primitive_intact(self->base.primitive, self->base.kind)) {
        return placed_raise(&self->base, -EBADMSG);
    }
    if (atomic_load_explicit(&self->recovery.running, memory_order_relaxed)
        && lock_is_mine(self) && self->mstate.depth == 1
        && recovery_check_release(&self->recovery) < 0) {
        return -1;
    }
    int rc;
    struct pshm_condition *notified = self->notified;
    if (notified != NULL && lock_is_mine(self) && self->mstate.depth == 1) {
        unsigned most = self->to_wake;
        self->notified = NULL;          /* another thread may own it then */
        rc = pshm_lock_release(self->lock, &self->mstate);
        pshm_condition_wake(notified, most);
    }
    else {
        rc = pshm_lock_release(self->lock, &self->mstate);
    }
    return rc == -EPERM ? recovery_raise_not_held()
           : rc < 0     ? placed_raise(&self->base, rc) : 0;
}

int
lock_release_all(LockObject *self)
{
    int depth = (int)self->mstate.depth;
    for (int i = 0; i < depth; i++) {
        if (lock_release(self) < 0) {
            return -1;
        }
    }
    return depth;
}

int
lock_acquire_all(LockObject *self, int depth)
{
    for (int i = 0; i < depth; i++) {
        if (lock_acquire(self, NULL, false) < 0) {
            while (i-- > 0) {
                (void)lock_release(self);
            }
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(
    lock_release_doc,
    "release($self, /)\n--\n\n"
    "Release the lock.\n\n"
    "Raises RuntimeError if this thread has not acquired it by this object;\n"
    "OSError (EBADMSG) if its bytes were written over.");

PyObject *
lock_release_method(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return lock_release(as_lock(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
lock_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    LockObject *self = as_lock(op);
    bool raising = count > 0 && args[0] != Py_None;
    if (!(raising && !lock_is_mine(self)) && lock_release(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- The rest ---- */

PyDoc_STRVAR(
    lock_locked_doc,
    "locked($self, /)\n--\n\n"
    "Return True if a thread holds the lock.\n\n"
    "A dead owner counts until the next acquire() raises OwnerDiedError.");

static PyObject *
lock_locked(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pshm_lock_held(as_lock(op)->lock));
}

PyObject *
lock_state(PlacedObject *self)
{
    bool held = pshm_lock_held(((LockObject *)self)->lock);
    return PyUnicode_FromString(held ? "locked" : "unlocked");
}

static PyObject *
lock_own_values(PlacedObject *self)
{
    return recovery_values(&((LockObject *)self)->recovery);
}

static int
release_orphans(void *Py_UNUSED(unused))
{
    pshm_orphans_check();
    return 0;
}

void
lock_keep_orphan(void *map, struct pshm_robust *r,
                 const struct pshm_mutex_state *mstate)
{
    PyObject *error = core_take_error();
    struct pshm_region *region = mapping_share(map);
    if (region != NULL) {
        pshm_orphan_keep(r, mstate, region);
        /* The main thread releases its own ones now; another thread does it
         * when it uses a lock. */
        (void)Py_AddPendingCall(release_orphans, NULL);
    }
    else {
        Py_INCREF(map);
    }
    core_set_error(error);
}

/* If this object holds the lock, the next acquire() raises OwnerDiedError. */
static void
lock_finalize(PlacedObject *op)
{
    LockObject *self = (LockObject *)op;
    lock_wake_now(self, NULL);
    if (self->lock != NULL
        && pshm_lock_abandon(self->lock, &self->mstate) < 0) {
        lock_keep_orphan(op->map, &self->lock->mutex, &self->mstate);
    }
}

/* ---- The types ---- */

PyDoc_STRVAR(
    lock_at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "Open the lock at an offset of shared memory.\n\n"
    PLACED_DOC_AT RECOVERY_DOC PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

static PyMethodDef lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))lock_acquire_method,
     METH_FASTCALL | METH_KEYWORDS, lock_acquire_doc},
    {"release", lock_release_method, METH_NOARGS, lock_release_doc},
    PLAIN_METHOD(lock, locked),
    WITH_METHODS(lock),
    PLACED_METHODS(lock_at_doc),
    {0},
};

static PyGetSetDef lock_getset[] = {
    RECOVERED_ATTRIBUTE(LockObject),
    PLACED_GETSET,
    {0},
};

#define LOCK_DOC(name, summary)                                               \
    name "(name=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"                     \
    "    on_owner_died=None)\n--\n\n" summary                                 \
    "\n\nThe thread that acquires it is its owner. If the owner dies, the\n" \
    "next acquire() raises OwnerDiedError, and its caller can repair what\n"   \
    "the lock protects: " MAN(pthread_mutexattr_setrobust, 3) ".\n\n"         \
    PLACED_DOC_NAME PLACED_DOC_OPTIONS RECOVERY_DOC "\n" PLACED_DOC_RAISES

#define LOCK_TYPE                                                             \
    .methods = lock_methods,                                                  \
    .getset = lock_getset,                                                    \
    .object_size = sizeof(LockObject),                                        \
    .references = {offsetof(LockObject, recovery.callback)},                  \
    .size = sizeof(struct pshm_primitive),                                    \
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,                                    \
    .owned = true,                                                            \
    .reads = true,                                                            \
    .own = {"on_owner_died"},                                                 \
    .none_is_default = true,                                                  \
    .parse = recovery_parse,                                                  \
    .attach = lock_attach,                                                    \
    .finalize = lock_finalize,                                                \
    .own_values = lock_own_values,                                            \
    .state = lock_state

const struct placed_type lock_type = {
    .name = "Lock",
    .doc = LOCK_DOC("Lock", "A lock between processes, as threading.Lock is "
                            "between threads."),
    .kind = PSHM_PRIMITIVE_LOCK,
    .init = init_lock,
    LOCK_TYPE,
};

const struct placed_type rlock_type = {
    .name = "RLock",
    .doc = LOCK_DOC("RLock",
                    "A lock between processes that its owner may acquire "
                    "again, as\nthreading.RLock is between threads."),
    .kind = PSHM_PRIMITIVE_RLOCK,
    .flags = PSHM_RECURSIVE,
    .init = init_rlock,
    LOCK_TYPE,
};
