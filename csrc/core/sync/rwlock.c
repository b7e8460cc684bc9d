/* RWLock: many readers or one writer. */
#include "core/sync/rwlock.h"

struct rwlock_memory {
    struct pshm_primitive head;         /* its payload is rw's lock */
    struct pshm_rwlock rw;
};

_Static_assert(sizeof(struct rwlock_memory) % 64 == 0
                   && offsetof(struct rwlock_memory, rw.owners) % 64 == 0,
               "whole lines");

/* ---- Opening ---- */

static int
init_rwlock(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    struct pshm_rwlock *rw = (void *)(primitive + 1);
    pshm_primitive_mark(rw);
    for (int i = 0; i < PSHM_OWNER_LINES; i++) {
        pshm_primitive_mark(&rw->owners[i]);
    }
    return pshm_rw_init((void *)primitive->payload, rw);
}

static int
rwlock_attach(PlacedObject *base, const placed_params *params)
{
    RWLockObject *self = (RWLockObject *)base;
    self->turnstile = placed_memory(base);
    self->rw = (void *)(base->primitive + 1);
    self->mstate = PyMem_RawCalloc(1, sizeof(*self->mstate));
    if (self->mstate == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    recovery_set(&self->recovery, params->values[0]);
    int rc = pshm_rw_open(self->turnstile, self->rw, self->mstate);
    return rc < 0 ? placed_raise(base, rc) : 0;
}

/* ---- Acquiring ---- */

static int
attempt_once(RWLockObject *self, bool writes, enum pshm_rw_patience patience,
             int64_t deadline, struct pshm_rw_attempt *progress)
{
    int slot;
    return writes ? pshm_rw_write(self->turnstile, self->rw, self->mstate,
                                  progress, patience, deadline)
                  : pshm_rw_read(self->turnstile, self->rw, self->mstate,
                                 progress, patience, deadline, &slot);
}

/* Returns as pshm_rw_read or pshm_rw_write; -EINTR only with an exception, and
 * the attempt is undone. */
static int
attempt(RWLockObject *self, bool writes, wait_timeout *timeout,
        struct pshm_rw_attempt *progress)
{
    int rc = progress->turnstile ? -EBUSY
                            : attempt_once(self, writes, PSHM_RW_TRY, 0,
                                           progress);
    if (rc != -EBUSY) {
        return rc;
    }
    timeout_begin(timeout);
    WAIT_WITHOUT_GIL(rc, attempt_once(self, writes,
                                      timeout->now ? PSHM_RW_PASS
                                                   : PSHM_RW_WAIT,
                                      timeout->deadline, progress));
    if (rc == -EINTR) {
        pshm_rw_undo(self->turnstile, self->rw, self->mstate, progress);
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
        pshm_rw_release_unrepaired(self->turnstile, self->rw, self->mstate);
        return -1;
    }
    pshm_rw_repair(self->turnstile);
    atomic_store(&self->recovery.recovered, true);
    return 1;
}

int
rwlock_get_write(RWLockObject *self, wait_timeout timeout, bool recover)
{
    struct pshm_rw_attempt progress = {0};
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc = attempt(self, true, &timeout, &progress);
    if (rc != -EOWNERDEAD) {
        if (rc == 0) {
            atomic_store(&self->recovery.recovered, false);
        }
        return conclude(self, rc);
    }
    if (!recover && self->recovery.callback == NULL) {
        pshm_rw_undo(self->turnstile, self->rw, self->mstate, &progress);
        return conclude(self, rc);
    }
    rc = attempt(self, true, &timeout, &progress);
    return rc == 0 ? recover_from_death(self, recover) : conclude(self, rc);
}

int
rwlock_get_read(RWLockObject *self, wait_timeout timeout)
{
    struct pshm_rw_attempt progress = {0};
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc;
    while ((rc = attempt(self, false, &timeout, &progress)) == -EOWNERDEAD) {
        pshm_rw_undo(self->turnstile, self->rw, self->mstate, &progress);
        if (self->recovery.callback == NULL) {
            break;
        }
        /* Only a writer can repair the data. Another writer may acquire the
         * lock and die before this thread reads. */
        int acquired = rwlock_get_write(self, timeout, false);
        if (acquired <= 0) {
            return acquired;
        }
        (void)pshm_rw_done(self->turnstile, self->rw, self->mstate);
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

static PyObject *
acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
        PyObject *kwnames, const struct signature *signature, bool writes)
{
    PyObject *values[3] = {NULL};
    wait_timeout timeout;
    bool recover = false;
    if (args_match(signature, args, count, kwnames, values) < 0
        || timeout_of_acquire(values[0], values[1], &timeout) < 0
        || arg_bool(values[2], &recover) < 0) {
        return NULL;
    }
    int acquired = writes ? rwlock_get_write(as_rwlock(op), timeout, recover)
                          : rwlock_get_read(as_rwlock(op), timeout);
    return acquired < 0 ? NULL : PyBool_FromLong(acquired);
}

PyDoc_STRVAR(
    rwlock_acquire_read_doc,
    "acquire_read($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Acquire the lock to read, together with other readers.\n\n"
    "A writer that waits precedes new readers, so a thread that already reads\n"
    "must not acquire the lock again. Each acquire counts as one of the 64\n"
    "readers. " TIMEOUT_DOC RAISES_DOC);

static PyObject *
rwlock_acquire_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    return acquire(op, args, count, kwnames, &acquire_read_signature, false);
}

PyDoc_STRVAR(
    rwlock_acquire_write_doc,
    "acquire_write($self, /, blocking=True, timeout=-1, *, recover=False)\n"
    "--\n\n"
    "Acquire the lock to write, alone.\n\n"
    TIMEOUT_DOC RECOVER_DOC RAISES_DOC);

static PyObject *
rwlock_acquire_write(PyObject *op, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames)
{
    return acquire(op, args, count, kwnames, &acquire_write_signature, true);
}

/* ---- Releasing ---- */

bool
rwlock_is_mine(const RWLockObject *self)
{
    return pshm_rw_writes(self->mstate) || pshm_rw_my_slot(self->mstate) >= 0;
}

int
rwlock_release(RWLockObject *self)
{
    int rc;
    if (!pshm_primitive_intact(self->base.primitive, self->base.kind)) {
        return placed_raise(&self->base, -EBADMSG);
    }
    if (pshm_rw_writes(self->mstate)) {
        if (recovery_check_release(&self->recovery) < 0) {
            return -1;
        }
        rc = pshm_rw_done(self->turnstile, self->rw, self->mstate);
    }
    else {
        int slot = pshm_rw_my_slot(self->mstate);
        rc = slot < 0 ? -EPERM : pshm_rw_leave(self->rw, self->mstate, slot);
    }
    return rc == -EPERM ? recovery_raise_not_held()
           : rc < 0     ? placed_raise(&self->base, rc) : 0;
}

PyDoc_STRVAR(
    rwlock_release_doc,
    "release($self, /)\n--\n\n"
    "Release the lock, which this thread has acquired to read or to write.\n\n"
    "Raises RuntimeError if it has not; OSError (EBADMSG) if the bytes of the\n"
    "lock were written over.");

static PyObject *
rwlock_release_method(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return rwlock_release(as_rwlock(op)) < 0 ? NULL : Py_NewRef(Py_None);
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
    if (self->mstate != NULL) {
        pshm_rw_abandon(self->turnstile, self->rw, self->mstate,
                        lock_keep_orphan, base->map);
    }
    PyMem_RawFree(self->mstate);
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
    "is an owner. If a reader dies, the kernel releases its slot. If a writer\n"
    "dies, acquiring the lock raises OwnerDiedError:\n"
    MAN(pthread_mutexattr_setrobust, 3) ".\n\n"
    PLACED_DOC_NAME PLACED_DOC_OPTIONS RWLOCK_RECOVERY_DOC "\n"
    PLACED_DOC_RAISES);

static PyMethodDef rwlock_methods[] = {
    KEYWORD_METHOD(rwlock, acquire_read),
    KEYWORD_METHOD(rwlock, acquire_write),
    {"release", rwlock_release_method, METH_NOARGS, rwlock_release_doc},
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
    .size = sizeof(struct rwlock_memory),
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
