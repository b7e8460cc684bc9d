/* RWLock: many readers or one writer. */
#include "core/sync/lock.h"

#include "core/errors.h"

#include "posix/sync/rwlock.h"

typedef struct {
    PlacedObject base;
    struct recovery recovery;           /* from a writer that died */
    struct pshm_rwlock *rw;             /* or NULL: not attached */
    struct pshm_rw_state state;
} RWLockObject;

static inline RWLockObject *
as_rwlock(PyObject *op)
{
    return (RWLockObject *)op;
}

/* ---- Opening ---- */

static int
init_rwlock(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    return pshm_rw_init((struct pshm_rwlock *)(void *)primitive);
}

static int
rwlock_attach(PlacedObject *base, const placed_params *params)
{
    RWLockObject *self = (RWLockObject *)base;
    self->rw = placed_memory(base);
    self->recovery.callback = Py_XNewRef(params->values[0]);
    int rc = pshm_rw_open(self->rw, &self->state);
    return rc < 0 ? placed_raise(base, rc) : 0;
}

/* ---- Acquiring ---- */

/* Returns as pshm_rw_acquire; -EINTR only with an exception, and the attempt is
 * undone. */
static int
attempt(RWLockObject *self, bool writes, wait_timeout *timeout, bool *pending)
{
    int rc = *pending ? -EBUSY : pshm_rw_acquire(self->rw, &self->state,
                                                 writes, pending, PSHM_RW_TRY);
    if (rc != -EBUSY) {
        return rc;
    }
    timeout_begin(timeout);
    WAIT_WITHOUT_GIL(rc, pshm_rw_acquire(self->rw, &self->state, writes,
                                         pending,
                                         timeout->now ? PSHM_RW_NOW
                                                      : timeout->deadline));
    if (rc == -EINTR) {
        pshm_rw_undo(self->rw, &self->state, pending);
    }
    return rc;
}

_Static_assert(PSHM_SLOTS == 64, "as the messages and docstrings say");

/* Returns 1; 0: not in time; or -1 with an exception. */
static int
conclude(RWLockObject *self, int rc)
{
    switch (rc) {
    case 0:
        return 1;
    case -EBUSY:
    case -ETIMEDOUT:
        return 0;
    case -EOWNERDEAD:
    case -EINPROGRESS:
        return recovery_raise(&self->base, rc);
    case -EDEADLK:
        return placed_raise_words(
            &self->base, rc,
            "This thread already holds the %U, so it would wait for itself; "
            "release it first, or give a timeout");
    case -EAGAIN:
        return placed_raise_words(
            &self->base, -EDEADLK,
            "This thread has acquired the %U to read 64 times, which is the "
            "limit for all readers, so it would wait for itself; release it "
            "first, acquire it once around all reads, or give a timeout");
    default:
        return placed_raise(&self->base, rc);
    }
}

/* This thread writes, after a writer that died. Returns 1; or -1 with an
 * exception, released. */
static int
recover_from_death(RWLockObject *self, bool recover)
{
    if (!recover && recovery_call(&self->recovery, (PyObject *)self) < 0) {
        pshm_rw_release_unrepaired(self->rw, &self->state);
        return -1;
    }
    pshm_lock_repair(&self->rw->turnstile);
    atomic_store(&self->recovery.recovered, true);
    return 1;
}

/* Returns 1; 0: not in time; or -1 with an exception. recover: also after a
 * writer that died. */
static int
acquire_to_write(RWLockObject *self, wait_timeout timeout, bool recover)
{
    bool pending = false;
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc = attempt(self, true, &timeout, &pending);
    if (rc == 0) {
        atomic_store_explicit(&self->recovery.recovered, false,
                              memory_order_relaxed);
    }
    else if (rc == -EOWNERDEAD && (recover || self->recovery.callback)) {
        rc = attempt(self, true, &timeout, &pending);
        if (rc == 0) {
            return recover_from_death(self, recover);
        }
    }
    pshm_rw_undo(self->rw, &self->state, &pending);
    return conclude(self, rc);
}

static int
acquire_to_read(RWLockObject *self, wait_timeout timeout)
{
    bool pending = false;
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc;
    while ((rc = attempt(self, false, &timeout, &pending))
           == -EOWNERDEAD) {
        pshm_rw_undo(self->rw, &self->state, &pending);
        if (self->recovery.callback == NULL) {
            break;
        }
        /* Only a writer can repair the data. Another writer may acquire the
         * lock and die before this thread reads. */
        int acquired = acquire_to_write(self, timeout, false);
        if (acquired <= 0) {
            return acquired;
        }
        (void)pshm_rw_release(self->rw, &self->state);
    }
    return conclude(self, rc);
}

#define TIMEOUT_DOC                                                           \
    "timeout: seconds, on the monotonic clock; -1 or None: no limit; 0: as\n" \
    "blocking=False. "
#define RAISES_DOC                                                            \
    "Returns True, or False if the lock was not acquired in time.\n\n"        \
    "Raises OwnerDiedError if a writer died: the lock is then not acquired,\n"\
    "and each call raises until acquire_write() recovers the lock; OSError\n"  \
    "(EDEADLK) if this thread would wait for itself; ValueError after close()."

PARAMETERS(acquire_read, 2, 0, "blocking", "timeout");
PARAMETERS(acquire_write, 2, 0, "blocking", "timeout", "recover");

/* A method to read or to write, by a function for both. */
#define SIDE_METHOD(method, function, writes)                                 \
    static PyObject *rwlock_##method(PyObject *op, PyObject *const *args,     \
                                     Py_ssize_t count, PyObject *kwnames)     \
    {                                                                         \
        return function(op, args, count, kwnames, &method##_signature,        \
                        writes);                                              \
    }

static PyObject *
acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
        PyObject *kwnames, const struct signature *signature, bool writes)
{
    PyObject *values[3] = {NULL};
    wait_timeout timeout = WAIT_FOREVER;
    bool recover = false;
    if ((count > 0 || kwnames != NULL)
        && (args_match(signature, args, count, kwnames, values) < 0
            || timeout_of_acquire(values[0], values[1], &timeout) < 0
            || arg_bool(values[2], &recover) < 0)) {
        return NULL;
    }
    int acquired = writes ? acquire_to_write(as_rwlock(op), timeout, recover)
                          : acquire_to_read(as_rwlock(op), timeout);
    return acquired < 0 ? NULL : PyBool_FromLong(acquired);
}

PyDoc_STRVAR(
    rwlock_acquire_read_doc,
    "acquire_read($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Acquire the lock to read, together with other readers.\n\n"
    "A writer that waits precedes new readers, so a thread that already reads\n"
    "must not acquire the lock again. Each acquire counts as one of the 64\n"
    "readers. " TIMEOUT_DOC RAISES_DOC);

SIDE_METHOD(acquire_read, acquire, false)

PyDoc_STRVAR(
    rwlock_acquire_write_doc,
    "acquire_write($self, /, blocking=True, timeout=-1, *, recover=False)\n"
    "--\n\n"
    "Acquire the lock to write, alone.\n\n"
    TIMEOUT_DOC RECOVER_DOC RAISES_DOC);

SIDE_METHOD(acquire_write, acquire, true)

PyDoc_STRVAR(
    rwlock_release_doc,
    "release($self, /)\n--\n\n"
    "Release the lock, which this thread has acquired to read or to write.\n\n"
    "Raises RuntimeError if it has not; OSError (EBADMSG) if the bytes of the\n"
    "lock were written over.");

static PyObject *
rwlock_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    RWLockObject *self = as_rwlock(op);
    int rc = pshm_primitive_intact(self->base.primitive, self->base.kind)
                 ? 0 : -EBADMSG;
    if (rc == 0 && pshm_rw_writes(&self->state)
        && recovery_check_release(&self->recovery) < 0) {
        return NULL;
    }
    if (rc == 0) {
        rc = pshm_rw_release(self->rw, &self->state);
    }
    if (rc < 0) {
        (void)(rc == -EPERM ? recovery_raise_not_held()
                            : placed_raise(&self->base, rc));
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- RWLock.read() and write(), for a with block ---- */

typedef struct {
    PyObject_HEAD
    RWLockObject *rwlock;
    wait_timeout timeout;
    bool writes;
} RWLockContextObject;

static PyObject *
new_context(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames, const struct signature *signature, bool writes)
{
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *value;
    wait_timeout timeout;
    if (args_match(signature, args, count, kwnames, &value) < 0
        || timeout_of_acquire(NULL, value, &timeout) < 0) {
        return NULL;
    }
    RWLockContextObject *self =
        (void *)placed_alloc(state->rwlock_context_type);
    if (self == NULL) {
        return NULL;
    }
    self->rwlock = (RWLockObject *)Py_NewRef(op);
    timeout_begin(&timeout);
    self->timeout = timeout;
    self->writes = writes;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

PARAMETERS(read, 1, 0, "timeout");
PARAMETERS(write, 1, 0, "timeout");

#define CONTEXT_DOC(method)                                                   \
    #method "($self, /, timeout=-1)\n--\n\n"                                  \
    "Return a context manager that acquires the lock to " #method ".\n\n"     \
    "Its __enter__ raises TimeoutError if the lock is not acquired within\n"  \
    "timeout seconds of this call."

PyDoc_STRVAR(rwlock_read_doc, CONTEXT_DOC(read));
PyDoc_STRVAR(rwlock_write_doc, CONTEXT_DOC(write));

SIDE_METHOD(read, new_context, false)
SIDE_METHOD(write, new_context, true)

static PyObject *
context_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    RWLockContextObject *self = (RWLockContextObject *)op;
    int acquired = self->writes
                       ? acquire_to_write(self->rwlock, self->timeout, false)
                       : acquire_to_read(self->rwlock, self->timeout);
    if (acquired == 0) {
        raise_errno_words(-ETIMEDOUT, NULL, "The lock was not free in time");
    }
    return acquired <= 0 ? NULL : Py_NewRef((PyObject *)self->rwlock);
}

/* As lock_exit(). */
static PyObject *
context_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    RWLockObject *rwlock = ((RWLockContextObject *)op)->rwlock;
    bool raising = count > 0 && args[0] != Py_None;
    bool held = !raising || pshm_rw_writes(&rwlock->state)
                || pshm_rw_reads(rwlock->rw, &rwlock->state);
    return held ? rwlock_release((PyObject *)rwlock, NULL)
                : Py_NewRef(Py_None);
}

static int
context_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((RWLockContextObject *)op)->rwlock);
    return 0;
}

static void
context_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((RWLockContextObject *)op)->rwlock);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef context_methods[] = {WITH_METHODS(context), {0}};

static PyType_Slot context_slots[] = {
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_traverse, context_traverse},
    {Py_tp_methods, context_methods},
    {0, NULL},
};

static PyType_Spec context_spec = {
    .name = "posixshm._core._RWLockContext",
    .basicsize = sizeof(RWLockContextObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = context_slots,
};

int
rwlock_add_context_type(PyObject *module, core_state *state)
{
    state->rwlock_context_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &context_spec, NULL);
    return state->rwlock_context_type == NULL ? -1 : 0;
}

/* ---- The type ---- */

static PyObject *
rwlock_own_values(PlacedObject *self)
{
    return recovery_values(&((RWLockObject *)self)->recovery);
}

static PyObject *
rwlock_state(PlacedObject *self)
{
    int readers = pshm_rw_readers(((RWLockObject *)self)->rw);
    return readers < 0 ? PyUnicode_FromString("writing")
                       : PyUnicode_FromFormat("readers=%d", readers);
}

static void
rwlock_finalize(PlacedObject *base)
{
    RWLockObject *self = (RWLockObject *)base;
    if (self->rw != NULL && pshm_rw_abandon(self->rw, &self->state) < 0) {
        lock_keep_orphan(base->map, &self->rw->turnstile.mutex,
                         &self->state.turnstile);
    }
}

#define RWLOCK_RECOVERY_DOC                                                   \
    "on_owner_died: a callable. If a writer died, the next acquire calls it\n"\
    "with the lock, acquired to write. If it returns, the lock is\n"         \
    "consistent again; if it raises, that acquire raises its exception.\n"

PyDoc_STRVAR(
    rwlock_at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "Open the lock at an offset of shared memory.\n\n"
    PLACED_DOC_AT RWLOCK_RECOVERY_DOC "\n" PLACED_DOC_RAISES);

PyDoc_STRVAR(
    rwlock_doc,
    "RWLock(name=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"
    "    on_owner_died=None)\n--\n\n"
    "A lock between processes for many readers or one writer.\n\n"
    "A writer that waits precedes new readers. At most 64 readers hold the\n"
    "lock at a time; further readers wait. The thread that acquires the lock\n"
    "is an owner. If a reader dies, a writer that waits notices it within 0.1\n"
    "seconds. If a writer dies, acquiring the lock raises OwnerDiedError:\n"
    MAN(pthread_mutexattr_setrobust, 3) ".\n\n"
    PLACED_DOC_NAME PLACED_DOC_OPTIONS RWLOCK_RECOVERY_DOC "\n"
    PLACED_DOC_RAISES);

static PyMethodDef rwlock_methods[] = {
    KEYWORD_METHOD(rwlock, acquire_read),
    KEYWORD_METHOD(rwlock, acquire_write),
    PLAIN_METHOD(rwlock, release),
    KEYWORD_METHOD(rwlock, read),
    KEYWORD_METHOD(rwlock, write),
    PLACED_METHODS(rwlock_at_doc),
    {0},
};

static PyGetSetDef rwlock_getset[] = {
    RECOVERED_ATTRIBUTE(RWLockObject),
    PLACED_GETSET,
    {0},
};

const struct placed_type rwlock_type = {
    .name = "RWLock",
    .doc = rwlock_doc,
    .methods = rwlock_methods,
    .getset = rwlock_getset,
    .object_size = sizeof(RWLockObject),
    .references = {offsetof(RWLockObject, recovery.callback)},
    .kind = PSHM_PRIMITIVE_RWLOCK,
    .size = sizeof(struct pshm_rwlock),
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .owned = true,
    .init = init_rwlock,
    .own = {"on_owner_died"},
    .none_is_default = true,
    .parse = recovery_parse,
    .attach = rwlock_attach,
    .finalize = rwlock_finalize,
    .own_values = rwlock_own_values,
    .state = rwlock_state,
};
