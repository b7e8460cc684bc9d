/* Acquiring an RWLock, and releasing it. */
#include "core/sync/rwlock.h"

#include "core/errors.h"

#include "posix/host.h"

static int
attempt_once(RWLockObject *self, bool writes, enum pshm_rw_patience patience,
             int64_t deadline, struct pshm_rw_attempt *progress)
{
    int slot;
    return writes ? pshm_rw_write(self->gate, self->rw, self->mstate, progress,
                                  patience, deadline)
                  : pshm_rw_read(self->gate, self->rw, self->mstate, progress,
                                 patience, deadline, &slot);
}

/* One attempt to the end, whichever: as pshm_rw_read or pshm_rw_write; -EINTR
 * only with an exception, and undone. */
static int
attempt(RWLockObject *self, bool writes, wait_timeout *how_long,
        struct pshm_rw_attempt *progress)
{
    int rc = progress->turnstile ? -EBUSY
                            : attempt_once(self, writes, PSHM_RW_TRY, 0,
                                           progress);
    if (rc != -EBUSY) {
        return rc;
    }
    timeout_begin(how_long);
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = attempt_once(self, writes,
                          how_long->now ? PSHM_RW_PASS : PSHM_RW_WAIT,
                          how_long->deadline, progress);
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == -EINTR) {
        pshm_rw_undo(self->gate, self->rw, self->mstate, progress);
    }
    return rc;
}

/* In to write, after a writer that died: call recover if it is to be.  1 or -1,
 * and then not in. */
static int
repair(RWLockObject *self, bool by_caller)
{
    if (!by_caller) {
        atomic_store(&self->recovering, pshm_forks() + 1);
        PyObject *result = PyObject_CallOneArg(self->recover,
                                               (PyObject *)self);
        atomic_store(&self->recovering, 0);
        if (result == NULL) {
            pshm_rw_release_unrepaired(self->gate, self->rw, self->mstate);
            return -1;
        }
        Py_DECREF(result);
    }
    pshm_rw_repair(self->gate);
    atomic_store(&self->recovered, true);
    return 1;
}

#define TEXT_OF(number) TEXT_OF_VALUE(number)
#define TEXT_OF_VALUE(number) #number

static int
raise_all_mine(RWLockObject *self)
{
    return placed_raise_words(
        &self->base, -EDEADLK,
        "An RWLock is acquired to read at most " TEXT_OF(PSHM_SLOTS)
        " times at one time, and this thread has acquired the %U so often "
        "itself, so it would wait for itself for ever; release it before, "
        "acquire it once around all that reads, or give a timeout");
}

/* 1, 0 (not in time) or -1. */
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
        return lock_raise_owner_died(core_state_of_type(Py_TYPE(self)), rc);
    case -EDEADLK:
        return placed_raise_words(
            &self->base, rc,
            "This thread holds the %U already, and would wait for itself for "
            "ever; release it before, or give a timeout");
    case -EAGAIN:
        return raise_all_mine(self);
    default:
        return placed_raise(&self->base, rc);
    }
}

int
rwlock_get_write(RWLockObject *self, wait_timeout how_long, bool recover)
{
    struct pshm_rw_attempt progress = {0};
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc = attempt(self, true, &how_long, &progress);
    if (rc != -EOWNERDEAD) {
        if (rc == 0) {
            atomic_store(&self->recovered, false);
        }
        return conclude(self, rc);
    }
    if (!recover && self->recover == NULL) {
        pshm_rw_undo(self->gate, self->rw, self->mstate, &progress);
        return conclude(self, rc);
    }
    rc = attempt(self, true, &how_long, &progress);
    return rc == 0 ? repair(self, recover) : conclude(self, rc);
}

int
rwlock_get_read(RWLockObject *self, wait_timeout how_long)
{
    struct pshm_rw_attempt progress = {0};
    if (placed_check(&self->base) < 0) {
        return -1;
    }
    int rc;
    while ((rc = attempt(self, false, &how_long, &progress)) == -EOWNERDEAD) {
        pshm_rw_undo(self->gate, self->rw, self->mstate, &progress);
        if (self->recover == NULL) {
            break;
        }
        /* What was written is to be repaired by one who writes; and another
         * writer may come and die before this one reads. */
        int got = rwlock_get_write(self, how_long, false);
        if (got <= 0) {
            return got;
        }
        (void)pshm_rw_done(self->gate, self->rw, self->mstate);
    }
    return conclude(self, rc);
}

bool
rwlock_is_mine(RWLockObject *self)
{
    return pshm_rw_writes(self->mstate) || pshm_rw_my_slot(self->mstate) >= 0;
}

int
rwlock_let_go(RWLockObject *self)
{
    int rc;
    if (!pshm_primitive_intact(self->base.place, self->base.kind)) {
        return placed_raise(&self->base, -EBADMSG);
    }
    if (pshm_rw_writes(self->mstate)) {
        if (atomic_load_explicit(&self->recovering, memory_order_relaxed)
            == pshm_forks() + 1) {
            PyErr_SetString(PyExc_RuntimeError,
                            "on_owner_died must not release the lock; it is "
                            "released by whoever acquired it, after that");
            return -1;
        }
        rc = pshm_rw_done(self->gate, self->rw, self->mstate);
    }
    else {
        int slot = pshm_rw_my_slot(self->mstate);
        rc = slot < 0 ? -EPERM : pshm_rw_leave(self->rw, self->mstate, slot);
    }
    if (rc == -EPERM) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot release a lock that this thread has not "
                        "acquired by this object");
        return -1;
    }
    return rc < 0 ? placed_raise(&self->base, rc) : 0;
}
