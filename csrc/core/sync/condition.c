/* Condition: waiting for a change of what a lock protects. */
#include "core/sync/condition.h"

#include <limits.h>

#include "core/args.h"
#include "core/errors.h"

/* Its size in a cell, behind the lock and the tag. */
struct condition_placed {
    struct pshm_primitive head;
    struct pshm_condition words;
    unsigned char unused[48];
};

_Static_assert(sizeof(struct condition_placed) == 192, "three lines");

/* ---- Opening ---- */

static int
init_placed(struct pshm_primitive *place, const void *Py_UNUSED(how))
{
    pshm_primitive_mark(&((struct condition_placed *)(void *)place)->words);
    return pshm_lock_init((struct pshm_lock *)(void *)place->payload,
                          PSHM_RECURSIVE);
}

static int
fill_in(core_state *state, ConditionObject *self, PyObject *lock,
        PyObject *recover)
{
    self->words
        = &((struct condition_placed *)(void *)self->base.place)->words;
    self->given = lock != NULL;
    self->lock = lock != NULL
                     ? Py_NewRef(lock)
                     : (PyObject *)lock_inside(state, &self->base, recover);
    return self->lock == NULL ? -1 : 0;
}

static PyObject *
open_condition(PyTypeObject *type, const placed_arguments *where,
               PyObject *lock, PyObject *recover)
{
    core_state *state = core_state_of_type(type);
    placed_params how = {
        .state = state,
        .type = type,
        .what = "Condition",
        .first = "lock",
        .spec = {
            .kind = PSHM_PRIMITIVE_CONDITION,
            .size = sizeof(struct condition_placed),
            .owned = true,
            .init = init_placed,
        },
    };
    lock = lock == Py_None ? NULL : lock;
    recover = recover == Py_None ? NULL : recover;
    if (opening_parse(&how, where) < 0 || lock_check_recover(recover) < 0) {
        return NULL;
    }
    if (lock != NULL && !Py_IS_TYPE(lock, state->lock_type)
        && !Py_IS_TYPE(lock, state->rlock_type)) {
        return PyErr_Format(PyExc_TypeError,
                            "lock must be a Lock or an RLock, not %.200s",
                            Py_TYPE(lock)->tp_name);
    }
    if (lock != NULL && recover != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "on_owner_died belongs to the lock that is given");
        return NULL;
    }
    PlacedObject *self = placed_open(&how, where);
    if (self == NULL) {
        return NULL;
    }
    return fill_in(state, (ConditionObject *)self, lock, recover) < 0
               ? placed_discard(self) : placed_complete(self);
}

#define LOCK_DOC                                                             \
    "lock: a Lock or RLock, which all that use the condition pass; None: an\n"\
    "RLock that is part of it.  on_owner_died: as for a Lock, for that RLock.\n"

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, lock=None, create=False, exist_ok=False,\n"
    "   on_owner_died=None)\n--\n\n"
    "The condition at an offset of shared memory.\n\n" PLACED_DOC_AT LOCK_DOC
    "\n" PLACED_DOC_RAISES);

static PyObject *
condition_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "lock", "create",
                                        "exist_ok", "on_owner_died", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[6];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.shm = values[0], .offset = values[1],
                       .options = values + 3};
    return open_condition((PyTypeObject *)type, &where, values[2], values[5]);
}

static PyObject *
condition_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "lock", PLACED_OPTIONS,
                                        "on_owner_died", NULL};
    static const struct signature signature = {"Condition", 2, 0, names};
    PyObject *values[3 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 2};
    return open_condition(type, &where, values[1],
                          values[2 + PLACED_OPTION_COUNT]);
}

/* ---- Waiting ---- */

static int
check_mine(PyObject *op, const char *what)
{
    if (placed_check(as_placed(op)) < 0) {
        return -1;
    }
    if (!lock_is_mine(lock_of(op))) {
        PyErr_Format(PyExc_RuntimeError, "cannot %s on un-acquired lock",
                     what);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    wait_doc,
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
    static const char *const names[] = {"timeout", NULL};
    static const struct signature signature = {"wait", 1, 0, names};
    PyObject *values[1];
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_wait(values[0], &how_long) < 0
        || check_mine(op, "wait") < 0) {
        return NULL;
    }
    int got = condition_wait_once(op, how_long);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

PyDoc_STRVAR(
    wait_for_doc,
    "wait_for($self, /, predicate, timeout=None)\n--\n\n"
    "Wait until predicate(), called with the lock, is true.  Returns its last\n"
    "value.  timeout: seconds for all of it; None: for ever.  Raises as wait(),\n"
    "and what predicate raises.");

static PyObject *
condition_wait_for(PyObject *op, PyObject *const *args, Py_ssize_t count,
                   PyObject *kwnames)
{
    static const char *const names[] = {"predicate", "timeout", NULL};
    static const struct signature signature = {"wait_for", 2, 1, names};
    PyObject *values[2];
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_wait(values[1], &how_long) < 0
        || check_mine(op, "wait") < 0) {
        return NULL;
    }
    for (int got = 1;;) {
        PyObject *result = PyObject_CallNoArgs(values[0]);
        int truth = result == NULL ? -1 : PyObject_IsTrue(result);
        if (truth < 0) {
            Py_XDECREF(result);
            return NULL;
        }
        if (truth || !got) {
            return result;
        }
        Py_DECREF(result);
        if (check_mine(op, "wait") < 0) {
            return NULL;
        }
        got = condition_wait_once(op, how_long);
        if (got < 0) {
            return NULL;
        }
    }
}

PyDoc_STRVAR(
    notify_doc,
    "notify($self, /, n=1)\n--\n\n"
    "Wake at most n waiters, n at least 0.  Raises RuntimeError if this thread\n"
    "does not hold the lock.");

static PyObject *
condition_notify(PyObject *op, PyObject *const *args, Py_ssize_t count,
                 PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const struct signature signature = {"notify", 1, 0, names};
    PyObject *values[1];
    long long n = 1;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[0] != NULL && arg_long(values[0], "n", 0, INT_MAX, &n) < 0)
        || check_mine(op, "notify") < 0) {
        return NULL;
    }
    pshm_condition_notify(as_condition(op)->words, (unsigned)n);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    notify_all_doc,
    "notify_all($self, /)\n--\n\n"
    "Wake all waiters.  Raises RuntimeError if this thread does not hold the\n"
    "lock.");

static PyObject *
condition_notify_all(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (check_mine(op, "notify") < 0) {
        return NULL;
    }
    pshm_condition_notify(as_condition(op)->words, UINT_MAX);
    Py_RETURN_NONE;
}

/* ---- What the lock does ---- */

static PyObject *
forward(PyObject *op, const char *method, PyObject *const *args,
        Py_ssize_t count, PyObject *kwnames)
{
    PyObject *bound = PyObject_GetAttrString(as_condition(op)->lock, method);
    if (bound == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(bound, args, (size_t)count,
                                           kwnames);
    Py_DECREF(bound);
    return result;
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1, *, recover=False)\n--\n\n"
    "Acquire the lock: Lock.acquire.");

static PyObject *
condition_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    return placed_check(as_placed(op)) < 0
               ? NULL : forward(op, "acquire", args, count, kwnames);
}

PyDoc_STRVAR(release_doc,
             "release($self, /)\n--\n\nRelease the lock: Lock.release.");

static PyObject *
condition_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return lock_release(lock_of(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
condition_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (placed_check(as_placed(op)) < 0
        || lock_acquire(lock_of(op), (wait_timeout){.deadline = PSHM_NEVER},
                        false)
               < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *
condition_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    return lock_leave(lock_of(op), args, count);
}

PyDoc_STRVAR(lock_doc, "The lock: its own, an RLock, or the one it was given.");

static PyObject *
condition_get_lock(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(as_condition(op)->lock);
}

PyDoc_STRVAR(recovered_doc,
             "Whether the last one who acquired the lock, by the object that is\n"
             ".lock, took it over from an owner that had died: Lock.recovered.");

static PyObject *
condition_get_recovered(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&lock_of(op)->recovered));
}

static PyObject *
condition_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ConditionObject *self = as_condition(op);
    PyObject *recover = lock_of(op)->recover;
    return placed_reduce(
        &self->base,
        self->given ? Py_BuildValue("{sO}", "lock", self->lock)
                    : Py_BuildValue("{sO}", "on_owner_died",
                                    recover != NULL ? recover : Py_None));
}

static PyObject *
condition_repr(PyObject *op)
{
    return placed_repr(op, PyUnicode_FromString(
                             pshm_lock_held(lock_of(op)->lock) ? "locked"
                                                               : "unlocked"));
}

/* ---- The type ---- */

static int
condition_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(as_condition(op)->lock);
    return placed_traverse(as_placed(op), visit, arg);
}

/* The lock stays until the end: what is left of the object still has one. */
static int
condition_clear(PyObject *op)
{
    return placed_clear(as_placed(op));
}

static void
condition_dealloc(PyObject *op)
{
    placed_end(as_placed(op));
    Py_CLEAR(as_condition(op)->lock);
    placed_free(as_placed(op));
}

PyDoc_STRVAR(
    condition_doc,
    "Condition(name=None, lock=None, *, " PLACED_OPTIONS_SIGNATURE ",\n"
    "    on_owner_died=None)\n"
    "--\n\n"
    "A condition between processes, as threading.Condition is between\n"
    "threads.\n\n" PLACED_DOC_NAME LOCK_DOC PLACED_DOC_OPTIONS
    "A process that is killed while it waits or notifies keeps no other\n"
    "waiting: " MAN(futex, 2) ".\n\n" PLACED_DOC_RAISES);

static PyMethodDef condition_methods[] = {
    {"at", PLACED_CAST(condition_at),
     METH_CLASS | METH_FASTCALL | METH_KEYWORDS, at_doc},
    {"acquire", PLACED_CAST(condition_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", condition_release, METH_NOARGS, release_doc},
    {"wait", PLACED_CAST(condition_wait), METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"wait_for", PLACED_CAST(condition_wait_for),
     METH_FASTCALL | METH_KEYWORDS, wait_for_doc},
    {"notify", PLACED_CAST(condition_notify), METH_FASTCALL | METH_KEYWORDS,
     notify_doc},
    {"notify_all", condition_notify_all, METH_NOARGS, notify_all_doc},
    {"__enter__", condition_enter, METH_NOARGS, NULL},
    {"__exit__", PLACED_CAST(condition_exit), METH_FASTCALL, NULL},
    {"__reduce__", condition_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef condition_getset[] = {
    {"lock", condition_get_lock, NULL, lock_doc, NULL},
    {"recovered", condition_get_recovered, NULL, recovered_doc, NULL},
    PLACED_GETSET,
    {0},
};

static PyMemberDef condition_members[] = {
    PLACED_MEMBERS(ConditionObject),
    {0},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, (void *)condition_doc},
    {Py_tp_new, condition_tp_new},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_repr, condition_repr},
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_getset},
    {Py_tp_members, condition_members},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "posixshm.Condition",
    .basicsize = sizeof(ConditionObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = condition_slots,
};

int
condition_add_type(PyObject *module, core_state *state)
{
    state->condition_type = placed_add_type(module, &condition_spec,
                                          sizeof(struct condition_placed),
                                          PSHM_PRIMITIVE_ALIGNMENT);
    return state->condition_type == NULL ? -1 : 0;
}
