/* RWLock: many readers or one writer. */
#include "core/sync/rwlock.h"

#include "core/args.h"
#include "core/errors.h"

struct rwlock_placed {
    struct pshm_primitive head;
    struct pshm_rwlock rw;
};

_Static_assert(sizeof(struct rwlock_placed) % 64 == 0
                   && offsetof(struct rwlock_placed, rw.owners) % 64 == 0,
               "whole lines");

/* rw.read() or rw.write(), for a with block. */
typedef struct {
    PyObject_HEAD
    PyObject *rw;
    wait_timeout how_long;
    bool writes;
} RWLockSideObject;

static RWLockSideObject *
as_side(PyObject *op)
{
    return (RWLockSideObject *)op;
}

/* ---- Opening ---- */

static struct pshm_rwlock *
words_of(struct pshm_primitive *place)
{
    return &((struct rwlock_placed *)(void *)place)->rw;
}

static struct pshm_lock *
gate_of(struct pshm_primitive *place)
{
    return (struct pshm_lock *)(void *)place->payload;
}

static int
init_placed(struct pshm_primitive *place, const void *Py_UNUSED(how))
{
    struct pshm_rwlock *words = words_of(place);
    pshm_primitive_mark(words);
    for (int i = 0; i < PSHM_OWNER_LINES; i++) {
        pshm_primitive_mark(&words->owners[i]);
    }
    return pshm_rw_init(gate_of(place), words_of(place));
}

static int
fill_in(RWLockObject *self, PyObject *recover)
{
    self->gate = gate_of(self->base.place);
    self->rw = words_of(self->base.place);
    self->mstate = PyMem_RawCalloc(1, sizeof(*self->mstate));
    if (self->mstate == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = pshm_rw_open(self->gate, self->rw, self->mstate);
    if (rc < 0) {
        return placed_raise(&self->base, rc);
    }
    self->recover = recover == Py_None ? NULL : Py_XNewRef(recover);
    return 0;
}

static PyObject *
open_rwlock(PyTypeObject *type, const placed_arguments *where,
            PyObject *recover)
{
    placed_params how = {
        .state = core_state_of_type(type),
        .type = type,
        .what = "RWLock",
        .spec = {
            .kind = PSHM_PRIMITIVE_RWLOCK,
            .size = sizeof(struct rwlock_placed),
            .owned = true,
            .init = init_placed,
        },
    };
    if (opening_parse(&how, where) < 0 || lock_check_recover(recover) < 0) {
        return NULL;
    }
    PlacedObject *self = placed_open(&how, where);
    if (self == NULL) {
        return NULL;
    }
    return fill_in((RWLockObject *)self, recover) < 0 ? placed_discard(self)
                                                : placed_complete(self);
}

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "The lock at an offset of shared memory.\n\n" PLACED_DOC_AT
    "on_owner_died: as for RWLock.\n\n" PLACED_DOC_RAISES);

static PyObject *
rwlock_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "create", "exist_ok",
                                        "on_owner_died", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[5];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.shm = values[0], .offset = values[1],
                       .options = values + 2};
    return open_rwlock((PyTypeObject *)type, &where, values[4]);
}

static PyObject *
rwlock_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", PLACED_OPTIONS, "on_owner_died",
                                        NULL};
    static const struct signature signature = {"RWLock", 1, 0, names};
    PyObject *values[2 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 1};
    return open_rwlock(type, &where, values[1 + PLACED_OPTION_COUNT]);
}

/* ---- Acquiring and releasing ---- */

#define WAIT_DOC                                                              \
    "timeout: seconds, on the monotonic clock; -1 or None: for ever; 0: as\n"\
    "blocking=False.\n"
#define RAISE_DOC                                                             \
    "Raises OwnerDiedError, not holding the lock, if a writer died while it\n"\
    "wrote: everyone is told until somebody acquires it to write with\n"     \
    "recover; OSError (EDEADLK) if this thread would wait for itself for\n"  \
    "ever; ValueError after close()."

PyDoc_STRVAR(
    acquire_read_doc,
    "acquire_read($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Acquire it to read, beside other readers: True; or False if that was not\n"
    "possible in time.  A writer that waits comes first, so a thread that\n"
    "reads must not ask again; if it does, each time counts as one of the 64\n"
    "readers of that time.\n\n" WAIT_DOC "\n" RAISE_DOC);

static PyObject *
rwlock_acquire_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct signature signature = {"acquire_read", 2, 0, names};
    PyObject *values[2];
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_acquire(values[0], values[1], &how_long) < 0) {
        return NULL;
    }
    int got = rwlock_get_read(as_rwlock(op), how_long);
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
    wait_timeout how_long;
    bool recover = false;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_acquire(values[0], values[1], &how_long) < 0
        || arg_bool(values[2], &recover) < 0) {
        return NULL;
    }
    int got = rwlock_get_write(as_rwlock(op), how_long, recover);
    return got < 0 ? NULL : PyBool_FromLong(got);
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
    return rwlock_let_go(as_rwlock(op)) < 0 ? NULL : Py_NewRef(Py_None);
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
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_acquire(NULL, values[0], &how_long) < 0) {
        return NULL;
    }
    RWLockSideObject *self = as_side(placed_alloc(type));
    if (self == NULL) {
        return NULL;
    }
    self->rw = Py_NewRef(op);
    timeout_begin(&how_long);
    self->how_long = how_long;
    self->writes = writes;
    PyObject_GC_Track(self);
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
    RWLockSideObject *self = as_side(op);
    RWLockObject *rw = as_rwlock(self->rw);
    int got = self->writes ? rwlock_get_write(rw, self->how_long, false)
                           : rwlock_get_read(rw, self->how_long);
    if (got == 0) {
        raise_errno_words(-ETIMEDOUT, NULL, "The lock was not free in time");
    }
    return got <= 0 ? NULL : Py_NewRef(self->rw);
}

static PyObject *
side_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    RWLockObject *rw = as_rwlock(as_side(op)->rw);
    bool raising = count > 0 && args[0] != Py_None;
    if (!(raising && !rwlock_is_mine(rw)) && rwlock_let_go(rw) < 0) {
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
    {"__exit__", PLACED_CAST(side_exit), METH_FASTCALL, NULL},
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
    .basicsize = sizeof(RWLockSideObject),
    .flags = PLACED_TYPE_FLAGS
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

static PyObject *
rwlock_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *recover = as_rwlock(op)->recover;
    return placed_reduce(as_placed(op),
                       Py_BuildValue("{sO}", "on_owner_died",
                                     recover != NULL ? recover : Py_None));
}

static PyObject *
rwlock_repr(PyObject *op)
{
    int readers = pshm_rw_readers(as_rwlock(op)->rw);
    return placed_repr(op, readers < 0
                             ? PyUnicode_FromString("writing")
                             : PyUnicode_FromFormat("readers=%d", readers));
}

static int
rwlock_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(as_rwlock(op)->recover);
    return placed_traverse(as_placed(op), visit, arg);
}

static int
rwlock_clear(PyObject *op)
{
    Py_CLEAR(as_rwlock(op)->recover);
    return placed_clear(as_placed(op));
}

static void
rwlock_dealloc(PyObject *op)
{
    RWLockObject *self = as_rwlock(op);
    placed_end(&self->base);
    Py_CLEAR(self->recover);
    if (self->mstate != NULL) {
        pshm_rw_abandon(self->gate, self->rw, self->mstate, lock_keep_orphan,
                        self->base.map);
    }
    PyMem_RawFree(self->mstate);
    placed_free(&self->base);
}

PyDoc_STRVAR(
    rwlock_doc,
    "RWLock(name=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"
    "    on_owner_died=None)\n--\n\n"
    "A lock between processes for many readers or one writer.\n\n"
    "A writer that waits keeps new readers out.  At most 64 read at a time;\n"
    "more wait.  A thread owns it.  The kernel releases what a reader held\n"
    "that died; after a writer died, acquiring raises OwnerDiedError.\n\n"
    PLACED_DOC_NAME PLACED_DOC_OPTIONS
    "on_owner_died: called with the lock, held to write, after a writer died.\n"
    "See " MAN(pthread_mutexattr_setrobust, 3) ".\n\n" PLACED_DOC_RAISES);

static PyMethodDef rwlock_methods[] = {
    {"at", PLACED_CAST(rwlock_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"acquire_read", PLACED_CAST(rwlock_acquire_read),
     METH_FASTCALL | METH_KEYWORDS, acquire_read_doc},
    {"acquire_write", PLACED_CAST(rwlock_acquire_write),
     METH_FASTCALL | METH_KEYWORDS, acquire_write_doc},
    {"release", rwlock_release, METH_NOARGS, release_doc},
    {"read", PLACED_CAST(rwlock_read), METH_FASTCALL | METH_KEYWORDS, read_doc},
    {"write", PLACED_CAST(rwlock_write), METH_FASTCALL | METH_KEYWORDS,
     write_doc},
    {"__reduce__", rwlock_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef rwlock_getset[] = {
    {"recovered", rwlock_get_recovered, NULL, recovered_doc, NULL},
    PLACED_GETSET,
    {0},
};

static PyMemberDef rwlock_members[] = {
    PLACED_MEMBERS(RWLockObject),
    {0},
};

static PyType_Slot rwlock_slots[] = {
    {Py_tp_doc, (void *)rwlock_doc},
    {Py_tp_new, rwlock_tp_new},
    {Py_tp_dealloc, rwlock_dealloc},
    {Py_tp_traverse, rwlock_traverse},
    {Py_tp_clear, rwlock_clear},
    {Py_tp_repr, rwlock_repr},
    {Py_tp_methods, rwlock_methods},
    {Py_tp_getset, rwlock_getset},
    {Py_tp_members, rwlock_members},
    {0, NULL},
};

static PyType_Spec rwlock_spec = {
    .name = "posixshm.RWLock",
    .basicsize = sizeof(RWLockObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = rwlock_slots,
};

int
rwlock_add_types(PyObject *module, core_state *state)
{
    state->side_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &side_spec, NULL);
    state->rwlock_type = placed_add_type(module, &rwlock_spec,
                                       sizeof(struct rwlock_placed),
                                       PSHM_PRIMITIVE_ALIGNMENT);
    return state->side_type == NULL || state->rwlock_type == NULL ? -1 : 0;
}
