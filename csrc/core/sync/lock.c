/* Lock and RLock. */
#include "core/sync/lock.h"

#include "core/args.h"

#include "posix/sync/orphan.h"

/* ---- Opening ---- */

int
lock_check_recover(PyObject *recover)
{
    if (recover != NULL && recover != Py_None && !PyCallable_Check(recover)) {
        PyErr_Format(PyExc_TypeError,
                     "on_owner_died must be callable, not %.200s",
                     Py_TYPE(recover)->tp_name);
        return -1;
    }
    return 0;
}

static int
init_placed(struct pshm_primitive *place, const void *how)
{
    return pshm_lock_init((struct pshm_lock *)(void *)place->payload,
                          *(const unsigned *)how);
}

/* Fill in what is a lock's own.  Returns 0, or -1 with an exception. */
static int
fill_in(LockObject *self, unsigned flags, PyObject *recover)
{
    self->lock = (struct pshm_lock *)(void *)self->base.place->payload;
    if (recover != Py_None) {
        self->recover = Py_XNewRef(recover);
    }
    int rc = pshm_lock_open(self->lock, flags, &self->mstate);
    return rc < 0 ? placed_raise(&self->base, rc) : 0;
}

LockObject *
lock_inside(core_state *state, PlacedObject *owner, PyObject *recover)
{
    PyTypeObject *type = state->rlock_type;
    LockObject *self = as_lock(placed_alloc(type));
    if (self == NULL) {
        return NULL;
    }
    self->base.map = (MemoryMapObject *)Py_NewRef(owner->map);
    self->base.place = owner->place;
    self->base.kind = owner->kind;
    self->base.offset = owner->offset;
    return as_lock(fill_in(self, PSHM_RECURSIVE, recover) < 0
                       ? placed_discard(&self->base)
                       : placed_complete(&self->base));
}

static PyObject *
open_lock(PyTypeObject *type, const placed_arguments *where, PyObject *recover)
{
    core_state *state = core_state_of_type(type);
    bool recursive = type == state->rlock_type;
    unsigned flags = recursive ? PSHM_RECURSIVE : 0;
    placed_params how = {
        .state = state,
        .type = type,
        .what = recursive ? "RLock" : "Lock",
        .spec = {
            .kind = recursive ? PSHM_PRIMITIVE_RLOCK : PSHM_PRIMITIVE_LOCK,
            .size = sizeof(struct pshm_primitive),
            .owned = true,
            .flags = (uint8_t)flags,
            .init = init_placed,
            .how = &flags,
        },
        .reads = true,
    };
    if (opening_parse(&how, where) < 0 || lock_check_recover(recover) < 0) {
        return NULL;
    }
    PlacedObject *self = placed_open(&how, where);
    if (self == NULL) {
        return NULL;
    }
    return fill_in((LockObject *)self, flags, recover) < 0
               ? placed_discard(self) : placed_complete(self);
}

#define LOCK_DOC_KEYWORDS                                                     \
    "on_owner_died: called with the lock, held, when its last owner died; if it\n" \
    "returns, the lock is in order again and acquire() goes on.\n"

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "The lock at an offset of shared memory.\n\n" PLACED_DOC_AT
    LOCK_DOC_KEYWORDS
    PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

static PyObject *
lock_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
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
    return open_lock((PyTypeObject *)type, &where, values[4]);
}

static PyObject *
lock_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {
        "name", PLACED_OPTIONS, "on_owner_died", NULL};
    const struct signature signature = {
        type == core_state_of_type(type)->rlock_type ? "RLock" : "Lock", 1, 0,
        names};
    PyObject *values[2 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 1};
    return open_lock(type, &where, values[1 + PLACED_OPTION_COUNT]);
}

/* ---- Methods ---- */

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1, *, recover=False)\n--\n\n"
    "Acquire the lock: True; or False if it was not free in time.\n\n"
    "timeout: seconds, on the monotonic clock; -1 or None: for ever; 0: as\n"
    "blocking=False.  recover: also if its last owner died with it (see\n"
    ".recovered): what it protects is the caller's to repair.\n\n"
    "Raises OwnerDiedError, not holding the lock, if its last owner died, or\n"
    "the object that held it was deallocated: everyone is told until somebody\n"
    "acquires it with recover.  Without a timeout, raises OSError (EDEADLK) if\n"
    "this thread holds it already, unless it is an RLock held by this object.\n"
    "ValueError after close().  See " MAN(pthread_mutexattr_setrobust, 3) ".");

static PyObject *
lock_acquire_method(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", "recover",
                                        NULL};
    static const struct signature signature = {"acquire", 2, 0, names};
    PyObject *values[3];
    wait_timeout how_long = {.deadline = PSHM_NEVER};
    bool recover = false;
    if (count > 0 || kwnames != NULL) {
        if (args_match(&signature, args, count, kwnames, values) < 0
            || timeout_of_acquire(values[0], values[1], &how_long) < 0
            || arg_bool(values[2], &recover) < 0) {
            return NULL;
        }
    }
    int got = lock_acquire(as_lock(op), how_long, recover);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /)\n--\n\n"
    "Release the lock.  Raises RuntimeError where this thread has not acquired\n"
    "it by this object; OSError (EBADMSG) where its bytes were written over.");

static PyObject *
lock_release_method(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return lock_release(as_lock(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    locked_doc,
    "locked($self, /)\n--\n\n"
    "Whether anyone holds it at this moment.  Of a dead owner True, until a\n"
    "thread was told.");

static PyObject *
lock_locked(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pshm_lock_held(as_lock(op)->lock));
}

static PyObject *
lock_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    int got = lock_acquire(as_lock(op), (wait_timeout){.deadline = PSHM_NEVER},
                           false);
    return got < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
lock_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    return lock_leave(as_lock(op), args, count);
}

PyDoc_STRVAR(recovered_doc,
             "Whether the last one who acquired it by this object took it over\n"
             "from an owner that had died.");

static PyObject *
lock_get_recovered(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&as_lock(op)->recovered));
}

static PyObject *
lock_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    LockObject *self = as_lock(op);
    return placed_reduce(&self->base,
                       Py_BuildValue("{sO}", "on_owner_died",
                                     self->recover != NULL ? self->recover
                                                           : Py_None));
}

static PyObject *
lock_repr(PyObject *op)
{
    return placed_repr(op, PyUnicode_FromString(
                             pshm_lock_held(as_lock(op)->lock) ? "locked"
                                                               : "unlocked"));
}

/* ---- The types ---- */

static int
lock_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(as_lock(op)->recover);
    return placed_traverse(as_placed(op), visit, arg);
}

static int
lock_clear(PyObject *op)
{
    Py_CLEAR(as_lock(op)->recover);
    return placed_clear(as_placed(op));
}

static int
look_at_orphans(void *Py_UNUSED(unused))
{
    pshm_orphans_check();
    return 0;
}

void
lock_keep_orphan(void *map, struct pshm_robust *r,
                 const struct pshm_mutex_state *mstate)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    struct pshm_region *region = mapping_share(map);
    if (region != NULL) {
        pshm_orphan_keep(r, mstate, region);
        /* If it is the main thread's, at once; any other one does it when it
         * uses a lock. */
        (void)Py_AddPendingCall(look_at_orphans, NULL);
    }
    else {
        Py_INCREF(map);
    }
    PyErr_Restore(type, value, traceback);
}

/* If it is held, its owner is dead. */
static void
lock_dealloc(PyObject *op)
{
    LockObject *self = as_lock(op);
    placed_end(&self->base);
    Py_CLEAR(self->recover);
    if (self->lock != NULL
        && pshm_lock_abandon(self->lock, &self->mstate) < 0) {
        lock_keep_orphan(self->base.map, &self->lock->mutex, &self->mstate);
    }
    placed_free(&self->base);
}

static PyMethodDef lock_methods[] = {
    {"at", PLACED_CAST(lock_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"acquire", PLACED_CAST(lock_acquire_method), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", lock_release_method, METH_NOARGS, release_doc},
    {"locked", lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", lock_enter, METH_NOARGS, NULL},
    {"__exit__", PLACED_CAST(lock_exit), METH_FASTCALL, NULL},
    {"__reduce__", lock_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef lock_getset[] = {
    {"recovered", lock_get_recovered, NULL, recovered_doc, NULL},
    PLACED_GETSET,
    {0},
};

static PyMemberDef lock_members[] = {
    PLACED_MEMBERS(LockObject),
    {0},
};

#define LOCK_DOC(name, text)                                                 \
    name "(name=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"                       \
    "    on_owner_died=None)\n--\n\n" text                                   \
    "\n\nA thread owns it.  When its owner dies, the next acquire() raises\n"\
    "OwnerDiedError, and that thread can repair what the lock protects.\n\n" \
    PLACED_DOC_NAME PLACED_DOC_OPTIONS LOCK_DOC_KEYWORDS "\n" PLACED_DOC_RAISES    \
    "See " MAN(pthread_mutexattr_setrobust, 3) "."

static const char plain_doc[] = LOCK_DOC(
    "Lock", "A lock between processes, as threading.Lock is between threads.");
static const char recursive_doc[] = LOCK_DOC(
    "RLock",
    "A lock between processes that its owner may acquire again, as\n"
    "threading.RLock is between threads.");

#define LOCK_SLOTS(doc)                                                      \
    {                                                                        \
        {Py_tp_doc, (void *)(doc)},                                          \
        {Py_tp_new, lock_tp_new},                                            \
        {Py_tp_dealloc, lock_dealloc},                                       \
        {Py_tp_traverse, lock_traverse},                                     \
        {Py_tp_clear, lock_clear},                                           \
        {Py_tp_repr, lock_repr},                                             \
        {Py_tp_methods, lock_methods},                                       \
        {Py_tp_getset, lock_getset},                                         \
        {Py_tp_members, lock_members},                                       \
        {0, NULL},                                                           \
    }

static PyType_Slot plain_slots[] = LOCK_SLOTS(plain_doc);
static PyType_Slot recursive_slots[] = LOCK_SLOTS(recursive_doc);

static PyType_Spec plain_spec = {
    .name = "posixshm.Lock",
    .basicsize = sizeof(LockObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = plain_slots,
};

static PyType_Spec recursive_spec = {
    .name = "posixshm.RLock",
    .basicsize = sizeof(LockObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = recursive_slots,
};

static PyObject *
make_owner_died(PyObject *module)
{
    PyObject *type = PyErr_NewExceptionWithDoc(
        "posixshm.OwnerDiedError",
        "The process or thread that held a lock died with it (EOWNERDEAD).\n"
        "Who is told does not hold it.",
        PyExc_OSError, NULL);
    if (type != NULL && PyModule_AddObjectRef(module, "OwnerDiedError", type)
                            < 0) {
        Py_CLEAR(type);
    }
    return type;
}

int
lock_add_types(PyObject *module, core_state *state)
{
    const Py_ssize_t size = sizeof(struct pshm_primitive);
    state->owner_died_type = make_owner_died(module);
    state->lock_type = placed_add_type(module, &plain_spec, size,
                                     PSHM_PRIMITIVE_ALIGNMENT);
    state->rlock_type = placed_add_type(module, &recursive_spec, size,
                                      PSHM_PRIMITIVE_ALIGNMENT);
    return state->owner_died_type == NULL || state->lock_type == NULL
           || state->rlock_type == NULL ? -1 : 0;
}
