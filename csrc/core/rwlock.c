/* RWLock: many readers or one writer. */
#include "lock.h"

#include "args.h"
#include "errors.h"

#include "posix/rwlock.h"

typedef struct {
    cell base;
    struct pshm_lock *gate;
    struct pshm_rwlock *rw;
    struct pshm_rw_grip *grip;
    PyObject *recover;                  /* callable, or NULL */
    atomic_bool recovered;              /* by the last writer here */
    atomic_bool recovering;             /* recover is being called */
} rwlock;

struct rwlock_cell {
    struct pshm_cell head;
    struct pshm_rwlock rw;
};

_Static_assert(sizeof(struct rwlock_cell) % 64 == 0, "whole lines");

/* rw.read() or rw.write(), for a with block. */
typedef struct {
    PyObject_HEAD
    PyObject *rw;
    span how_long;
    bool writes;
} side;

static rwlock *
as_rwlock(PyObject *op)
{
    return (rwlock *)op;
}

static side *
as_side(PyObject *op)
{
    return (side *)op;
}

/* ---- Opening ---- */

static struct pshm_rwlock *
words_of(struct pshm_cell *place)
{
    return &((struct rwlock_cell *)(void *)place)->rw;
}

static struct pshm_lock *
gate_of(struct pshm_cell *place)
{
    return (struct pshm_lock *)(void *)place->payload;
}

static int
init_cell(struct pshm_cell *place, const void *Py_UNUSED(how))
{
    return pshm_rw_init(gate_of(place), words_of(place));
}

static int
complete(rwlock *self, PyObject *recover)
{
    self->gate = gate_of(self->base.place);
    self->rw = words_of(self->base.place);
    self->grip = PyMem_RawCalloc(1, sizeof(*self->grip));
    if (self->grip == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = pshm_rw_open(self->gate, self->rw, self->grip);
    if (rc < 0) {
        return cell_raise(&self->base, rc);
    }
    self->recover = recover == Py_None ? NULL : Py_XNewRef(recover);
    return 0;
}

/* values: create, exist_ok, recover. */
static PyObject *
open_rwlock(PyTypeObject *type, PyObject *name, PyObject *shm,
            PyObject *offset, PyObject *mode, PyObject **values)
{
    opening how = {
        .state = core_state_of_type(type),
        .type = type,
        .what = "RWLock",
        .mode = S_IRUSR | S_IWUSR,
        .spec = {
            .kind = PSHM_CELL_RWLOCK,
            .size = sizeof(struct rwlock_cell),
            .owned = true,
            .init = init_cell,
        },
    };
    if (opening_parse(&how, values) < 0 || arg_mode(mode, &how.mode) < 0
        || lock_check_recover(values[2]) < 0) {
        return NULL;
    }
    rwlock *self = (rwlock *)cell_open(&how, name, shm, offset);
    if (self != NULL && complete(self, values[2]) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False,\n"
    "   recover=None)\n--\n\n"
    "The lock at an offset of a segment.\n\n" CELL_DOC_WHERE
    "recover: as for RWLock.\n\n" CELL_DOC_RAISES);

static PyObject *
rwlock_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "create", "exist_ok",
                                        "recover", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[5];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    return open_rwlock((PyTypeObject *)type, NULL, values[0], values[1], NULL,
                       values + 2);
}

static PyObject *
rwlock_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "create", "exist_ok",
                                        "recover", "mode", NULL};
    static const struct signature signature = {"RWLock", 2, 1, names};
    PyObject *values[5];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    return open_rwlock(type, values[0], NULL, NULL, values[4], values + 1);
}

/* ---- Coming in ---- */

/* One attempt to the end, whichever: as pshm_rw_read or pshm_rw_write; -EINTR
 * only with an exception, and undone. */
static int
attempt(rwlock *self, bool writes, span how_long,
        struct pshm_rw_attempt *progress)
{
    int rc, seat;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = writes ? pshm_rw_write(self->gate, self->rw, self->grip, progress,
                                    how_long.now, how_long.until)
                    : pshm_rw_read(self->gate, self->rw, self->grip, progress,
                                   how_long.now, how_long.until, &seat);
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == -EINTR) {
        pshm_rw_undo(self->gate, self->rw, self->grip, progress);
    }
    return rc;
}

/* In to write, after a writer that died: call recover if it is to be.  1 or -1,
 * and then not in. */
static int
repair(rwlock *self, bool by_caller)
{
    if (!by_caller) {
        atomic_store(&self->recovering, true);
        PyObject *result = PyObject_CallOneArg(self->recover,
                                               (PyObject *)self);
        atomic_store(&self->recovering, false);
        if (result == NULL) {
            pshm_rw_give_up(self->gate, self->rw, self->grip);
            return -1;
        }
        Py_DECREF(result);
    }
    pshm_rw_repair(self->gate);
    atomic_store(&self->recovered, true);
    return 1;
}

/* 1, 0 (not in time) or -1. */
static int
conclude(rwlock *self, int rc, bool now)
{
    switch (rc) {
    case 0:
        return 1;
    case -EBUSY:
    case -ETIMEDOUT:
        return 0;
    case -EINTR:
        return -1;
    case -EOWNERDEAD:
        return lock_raise_owner_died(core_state_of_type(Py_TYPE(self)),
                                     &self->base);
    case -EDEADLK:
        if (now) {
            return 0;
        }
        raise_errno_words(rc, NULL,
                          "This thread holds the lock already, and would wait "
                          "for itself for ever");
        return -1;
    default:
        return cell_raise(&self->base, rc);
    }
}

static int
acquire_write(rwlock *self, span how_long, bool recover)
{
    struct pshm_rw_attempt progress = {0};
    if (cell_check(&self->base) < 0) {
        return -1;
    }
    int rc = attempt(self, true, how_long, &progress);
    if (rc != -EOWNERDEAD) {
        if (rc == 0) {
            atomic_store(&self->recovered, false);
        }
        return conclude(self, rc, how_long.now);
    }
    if (!recover && self->recover == NULL) {
        pshm_rw_undo(self->gate, self->rw, self->grip, &progress);
        return conclude(self, rc, false);
    }
    rc = attempt(self, true, how_long, &progress);
    return rc == 0 ? repair(self, recover) : conclude(self, rc, how_long.now);
}

static int
acquire_read(rwlock *self, span how_long)
{
    struct pshm_rw_attempt progress = {0};
    if (cell_check(&self->base) < 0) {
        return -1;
    }
    int rc = attempt(self, false, how_long, &progress);
    if (rc == -EOWNERDEAD) {
        pshm_rw_undo(self->gate, self->rw, self->grip, &progress);
        if (self->recover != NULL) {
            /* What was written is to be repaired by one who writes. */
            int got = acquire_write(self, how_long, false);
            if (got <= 0) {
                return got;
            }
            (void)pshm_rw_done(self->gate, self->rw, self->grip);
            rc = attempt(self, false, how_long, &progress);
        }
    }
    return conclude(self, rc, how_long.now);
}

#define WAIT_DOC                                                              \
    "timeout: seconds, on the monotonic clock; -1 or None: for ever; 0: as\n"\
    "blocking=False.\n"
#define RAISE_DOC                                                             \
    "Raises OwnerDiedError, not holding the lock, if a writer died while it\n"\
    "wrote: everyone is told until somebody acquires it to write with\n"     \
    "recover; OSError (EDEADLK) where this thread would wait for itself;\n"   \
    "ValueError after close()."

PyDoc_STRVAR(
    acquire_read_doc,
    "acquire_read($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Acquire it to read, beside other readers: True; or False if that was not\n"
    "possible in time.  A writer that waits comes first, so a thread that\n"
    "reads must not ask again.\n\n" WAIT_DOC "\n" RAISE_DOC);

static PyObject *
rwlock_acquire_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct signature signature = {"acquire_read", 2, 0, names};
    PyObject *values[2];
    span how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || span_of_acquire(values[0], values[1], &how_long) < 0) {
        return NULL;
    }
    int got = acquire_read(as_rwlock(op), how_long);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

PyDoc_STRVAR(
    acquire_write_doc,
    "acquire_write($self, /, blocking=True, timeout=-1, *, recover=False)\n"
    "--\n\n"
    "Acquire it to write, alone: True; or False if that was not possible in\n"
    "time.\n\n" WAIT_DOC
    "recover: also if a writer died while it wrote (see .recovered): what it\n"
    "wrote is the caller's to repair.\n\n" RAISE_DOC);

static PyObject *
rwlock_acquire_write(PyObject *op, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", "recover",
                                        NULL};
    static const struct signature signature = {"acquire_write", 2, 0, names};
    PyObject *values[3];
    span how_long;
    bool recover = false;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || span_of_acquire(values[0], values[1], &how_long) < 0
        || arg_bool(values[2], &recover) < 0) {
        return NULL;
    }
    int got = acquire_write(as_rwlock(op), how_long, recover);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

static bool
is_mine(rwlock *self)
{
    return pshm_rw_writes(self->rw, self->grip)
           || pshm_rw_my_seat(self->grip) >= 0;
}

static int
release(rwlock *self)
{
    int rc;
    if (!pshm_cell_intact(self->base.place, self->base.kind)) {
        return cell_raise(&self->base, -EBADMSG);
    }
    if (pshm_rw_writes(self->rw, self->grip)) {
        if (atomic_load_explicit(&self->recovering, memory_order_relaxed)) {
            PyErr_SetString(PyExc_RuntimeError,
                            "recover must not release the lock; it is "
                            "released by whoever acquired it, after that");
            return -1;
        }
        rc = pshm_rw_done(self->gate, self->rw, self->grip);
    }
    else {
        int seat = pshm_rw_my_seat(self->grip);
        rc = seat < 0 ? -EPERM : pshm_rw_leave(self->rw, self->grip, seat);
    }
    if (rc == -EPERM) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot release a lock that this thread has not "
                        "acquired by this object");
        return -1;
    }
    return rc < 0 ? cell_raise(&self->base, rc) : 0;
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /)\n--\n\n"
    "Release what this thread has acquired, to read or to write.  Raises\n"
    "RuntimeError where that is nothing; OSError (EBADMSG) where its bytes\n"
    "were written over.");

static PyObject *
rwlock_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return release(as_rwlock(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- with rw.read(): ---- */

static PyObject *
make_side(PyObject *op, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames, const char *function, bool writes)
{
    static const char *const names[] = {"timeout", NULL};
    const struct signature signature = {function, 1, 0, names};
    PyTypeObject *type = core_state_of_type(Py_TYPE(op))->side_type;
    PyObject *values[1];
    span how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || span_of_acquire(NULL, values[0], &how_long) < 0) {
        return NULL;
    }
    side *self = (side *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->rw = Py_NewRef(op);
        self->how_long = how_long;
        self->writes = writes;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(read_doc,
             "read($self, /, timeout=-1)\n--\n\n"
             "For a with block that reads: acquire_read(), release().  Raises\n"
             "TimeoutError where it is not acquired within timeout seconds of\n"
             "this call.");

static PyObject *
rwlock_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    return make_side(op, args, count, kwnames, "read", false);
}

PyDoc_STRVAR(write_doc,
             "write($self, /, timeout=-1)\n--\n\n"
             "For a with block that writes: acquire_write(), release().\n"
             "Raises TimeoutError where it is not acquired within timeout\n"
             "seconds of this call.");

static PyObject *
rwlock_write(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    return make_side(op, args, count, kwnames, "write", true);
}

static PyObject *
side_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    side *self = as_side(op);
    rwlock *rw = as_rwlock(self->rw);
    int got = self->writes ? acquire_write(rw, self->how_long, false)
                           : acquire_read(rw, self->how_long);
    if (got == 0) {
        raise_errno_words(-ETIMEDOUT, NULL, "The lock was not free in time");
    }
    return got <= 0 ? NULL : Py_NewRef(self->rw);
}

static PyObject *
side_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    rwlock *rw = as_rwlock(as_side(op)->rw);
    bool raising = count > 0 && args[0] != Py_None;
    if (!(raising && !is_mine(rw)) && release(rw) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
side_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(as_side(op)->rw);
    return 0;
}

static void
side_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(as_side(op)->rw);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef side_methods[] = {
    {"__enter__", side_enter, METH_NOARGS, NULL},
    {"__exit__", CELL_CAST(side_exit), METH_FASTCALL, NULL},
    {0},
};

static PyType_Slot side_slots[] = {
    {Py_tp_dealloc, side_dealloc},
    {Py_tp_traverse, side_traverse},
    {Py_tp_methods, side_methods},
    {0, NULL},
};

static PyType_Spec side_spec = {
    .name = "posixshm._core._Side",
    .basicsize = sizeof(side),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = side_slots,
};

/* ---- The type ---- */

PyDoc_STRVAR(recovered_doc,
             "Whether the last one who acquired it by this object to write took\n"
             "it over from a writer that had died.");

static PyObject *
rwlock_get_recovered(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&as_rwlock(op)->recovered));
}

PyDoc_STRVAR(reduce_doc,
             "__reduce__($self, /)\n--\n\n"
             "Pickle by reference, together with the segment.");

static PyObject *
rwlock_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *recover = as_rwlock(op)->recover;
    return cell_reduce(as_cell(op),
                       Py_BuildValue("{sO}", "recover",
                                     recover != NULL ? recover : Py_None));
}

static int
rwlock_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(as_rwlock(op)->recover);
    return cell_traverse(as_cell(op), visit, arg);
}

static int
rwlock_clear(PyObject *op)
{
    Py_CLEAR(as_rwlock(op)->recover);
    return cell_clear(as_cell(op));
}

static void
rwlock_dealloc(PyObject *op)
{
    rwlock *self = as_rwlock(op);
    cell_end(&self->base);
    Py_CLEAR(self->recover);
    bool held = self->grip != NULL && pshm_rw_held(self->grip);
    PyMem_RawFree(self->grip);
    cell_free(&self->base, held);
}

PyDoc_STRVAR(
    rwlock_doc,
    "RWLock(name, create=False, *, exist_ok=False, recover=None, mode=0o600)\n"
    "--\n\n"
    "A lock between processes for many readers or one writer.  Named, in an\n"
    "object of its own; or at() an offset of a segment.\n\n"
    "A writer that waits keeps new readers out.  At most 64 read at a time;\n"
    "more wait.  It belongs to a thread; what a reader held that died is free\n"
    "again, and of a writer that died while it wrote the next one is told\n"
    "(OwnerDiedError).  recover: called with the lock, held to write, then.\n"
    "create: make it; exist_ok: or take the one there is.  mode: permissions,\n"
    "whatever the umask is.  See " MAN(pthread_mutexattr_setrobust, 3) ".\n\n"
    CELL_DOC_RAISES);

static PyMethodDef rwlock_methods[] = {
    {"at", CELL_CAST(rwlock_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"acquire_read", CELL_CAST(rwlock_acquire_read),
     METH_FASTCALL | METH_KEYWORDS, acquire_read_doc},
    {"acquire_write", CELL_CAST(rwlock_acquire_write),
     METH_FASTCALL | METH_KEYWORDS, acquire_write_doc},
    {"release", rwlock_release, METH_NOARGS, release_doc},
    {"read", CELL_CAST(rwlock_read), METH_FASTCALL | METH_KEYWORDS, read_doc},
    {"write", CELL_CAST(rwlock_write), METH_FASTCALL | METH_KEYWORDS,
     write_doc},
    {"__reduce__", rwlock_reduce, METH_NOARGS, reduce_doc},
    CELL_METHODS,
    {0},
};

static PyGetSetDef rwlock_getset[] = {
    {"recovered", rwlock_get_recovered, NULL, recovered_doc, NULL},
    CELL_GETSET,
    {0},
};

static PyMemberDef rwlock_members[] = {
    CELL_MEMBERS(rwlock),
    {0},
};

static PyType_Slot rwlock_slots[] = {
    {Py_tp_doc, (void *)rwlock_doc},
    {Py_tp_new, rwlock_tp_new},
    {Py_tp_dealloc, rwlock_dealloc},
    {Py_tp_traverse, rwlock_traverse},
    {Py_tp_clear, rwlock_clear},
    {Py_tp_repr, cell_repr},
    {Py_tp_methods, rwlock_methods},
    {Py_tp_getset, rwlock_getset},
    {Py_tp_members, rwlock_members},
    {0, NULL},
};

static PyType_Spec rwlock_spec = {
    .name = "posixshm.RWLock",
    .basicsize = sizeof(rwlock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = rwlock_slots,
};

int
rwlock_add_types(PyObject *module, core_state *state)
{
    state->side_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &side_spec, NULL);
    state->rwlock_type = cell_add_type(module, &rwlock_spec,
                                       sizeof(struct rwlock_cell),
                                       PSHM_CELL_ALIGNMENT);
    return state->side_type == NULL || state->rwlock_type == NULL ? -1 : 0;
}
