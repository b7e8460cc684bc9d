/* Barrier: parties that wait for each other. */
#include "core/sync/placed.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/sync/lock.h"

#include "posix/sync/barrier.h"

typedef struct {
    PlacedObject base;
    struct pshm_barrier *barrier;
    struct pshm_robust *runner;         /* held while an action runs */
    struct pshm_mutex_state mstate;
    PyObject *action;                   /* callable, or NULL */
    PyObject *timeout;                  /* what wait() takes, or NULL */
} BarrierObject;

struct barrier_placed {
    struct pshm_primitive head;
    struct pshm_robust runner;
    unsigned char unused[16];
};

_Static_assert(sizeof(struct barrier_placed) == 192, "three lines");

static BarrierObject *
as_barrier(PyObject *op)
{
    return (BarrierObject *)op;
}

/* ---- Opening ---- */

static int
init_placed(struct pshm_primitive *place, const void *how)
{
    struct barrier_placed *b = (struct barrier_placed *)(void *)place;
    struct pshm_barrier *words = (struct pshm_barrier *)(void *)place->payload;
    words->parties = *(const uint32_t *)how;
    return pshm_robust_init(&b->runner, 0);
}

/* 0, or -1 with self as it was. */
static int
fill_in(BarrierObject *self, uint32_t parties, PyObject *action,
        PyObject *timeout)
{
    struct barrier_placed *place =
        (struct barrier_placed *)(void *)self->base.place;
    self->barrier = (struct pshm_barrier *)(void *)self->base.place->payload;
    self->runner = &place->runner;
    if (parties != 0 && parties != self->barrier->parties) {
        PyErr_Format(PyExc_ValueError,
                     "the barrier is for %u parties, not %u",
                     (unsigned)self->barrier->parties, (unsigned)parties);
        return -1;
    }
    int rc = pshm_robust_open(self->runner, 0, &self->mstate);
    if (rc < 0) {
        return placed_raise(&self->base, rc);
    }
    pshm_robust_watch(&self->mstate, NULL);
    self->action = action == Py_None ? NULL : Py_XNewRef(action);
    self->timeout = timeout == Py_None ? NULL : Py_XNewRef(timeout);
    return 0;
}

/* values: parties, action, timeout. */
static PyObject *
open_barrier(PyTypeObject *type, const placed_arguments *where,
             PyObject **values)
{
    long long number = 0;
    uint32_t parties;
    wait_timeout ignored;
    placed_params how = {
        .state = core_state_of_type(type),
        .type = type,
        .what = "Barrier",
        .first = "parties",
        .spec = {
            .kind = PSHM_PRIMITIVE_BARRIER,
            .size = sizeof(struct barrier_placed),
            .owned = true,
            .init = init_placed,
            .how = &parties,
        },
        .reads = true,
    };
    PyObject *action = values[1];
    if (opening_parse(&how, where) < 0
        || (values[0] != NULL && values[0] != Py_None
            && arg_long(values[0], "parties", 1, PSHM_PARTIES_MOST, &number)
                   < 0)
        || timeout_of_wait(values[2], &ignored) < 0) {
        return NULL;
    }
    if (action != NULL && action != Py_None && !PyCallable_Check(action)) {
        return PyErr_Format(PyExc_TypeError,
                            "action must be callable, not %.200s",
                            Py_TYPE(action)->tp_name);
    }
    if (how.create && number == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "parties must be given to make a barrier");
        return NULL;
    }
    parties = (uint32_t)number;
    PlacedObject *self = placed_open(&how, where);
    if (self == NULL) {
        return NULL;
    }
    return fill_in((BarrierObject *)self, parties, action, values[2]) < 0
               ? placed_discard(self) : placed_complete(self);
}

#define PARTIES_DOC                                                          \
    "parties: how many wait for each other, 1 to 32767; needed to make one.\n"\
    "action: called by the last party that arrives, if it has one, before the\n"\
    "others go on.  timeout: seconds, the default of wait().\n"

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, parties=None, action=None, timeout=None,\n"
    "   create=False, exist_ok=False)\n--\n\n"
    "The barrier at an offset of shared memory.\n\n" PLACED_DOC_AT PARTIES_DOC
    PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

static PyObject *
barrier_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "parties", "action",
                                        "timeout", "create", "exist_ok", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[7];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.shm = values[0], .offset = values[1],
                       .options = values + 5};
    return open_barrier((PyTypeObject *)type, &where, values + 2);
}

static PyObject *
barrier_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "parties", "action", "timeout",
                                        PLACED_OPTIONS, NULL};
    static const struct signature signature = {"Barrier", 4, 0, names};
    PyObject *values[4 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 4};
    return open_barrier(type, &where, values + 1);
}

/* ---- Waiting ---- */

static int
raise_broken(void)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *type = threading == NULL
                         ? NULL : PyObject_GetAttrString(threading,
                                                         "BrokenBarrierError");
    if (type != NULL) {
        PyErr_SetNone(type);
    }
    Py_XDECREF(type);
    Py_XDECREF(threading);
    return -1;
}

static int
raise_arrival(BarrierObject *self, int rc)
{
    switch (rc) {
    case -EPIPE:
    case -ETIMEDOUT:
        return raise_broken();
    case -EDEADLK:
        return placed_raise_words(
            &self->base, rc,
            "The action of the %U must not call wait() on that barrier: all "
            "parties, this thread among them, are released only after the "
            "action has returned; call it after the first wait() has returned");
    default:
        return placed_raise(&self->base, rc);
    }
}

/* Returns 0, or -1 with an exception; then the party's round is broken. */
static int
arrive(BarrierObject *self, int64_t deadline, struct pshm_arrival *a)
{
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_barrier_arrive(self->barrier, self->runner, &self->mstate,
                                 self->action != NULL, deadline, a);
        if (rc == -EAGAIN) {
            rc = pshm_barrier_wait(self->barrier, a, self->runner,
                                   &self->mstate, deadline);
            /* However that round ended, arrive at the next one. */
            rc = rc == 0 || rc == -EPIPE ? -EINTR : rc;
        }
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == -EINTR || rc == -ETIMEDOUT) {
        pshm_barrier_miss(self->barrier);
    }
    return rc == 0 ? 0 : raise_arrival(self, rc);
}

/* Returns 0, or -1 with an exception and the round broken. */
static int
await_round(BarrierObject *self, const struct pshm_arrival *a, int64_t deadline)
{
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_barrier_wait(self->barrier, a, self->runner, &self->mstate,
                               deadline);
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == 0) {
        return 0;
    }
    pshm_barrier_leave(self->barrier, a);
    return rc == -EINTR ? -1 : raise_broken();
}

/* Call the action and release all parties. */
static int
run_action(BarrierObject *self, const struct pshm_arrival *a)
{
    PyObject *result = PyObject_CallNoArgs(self->action);
    if (result == NULL) {
        pshm_barrier_fail(self->barrier, self->runner, &self->mstate, a);
        return -1;
    }
    Py_DECREF(result);
    return pshm_barrier_done(self->barrier, self->runner, &self->mstate, a) < 0
               ? raise_broken() : 0;
}

/* Returns the index, or -1. */
static int
wait_here(BarrierObject *self, int64_t deadline)
{
    struct pshm_arrival a;
    int rc = arrive(self, deadline, &a);
    if (rc == 0 && a.action) {
        rc = run_action(self, &a);
    }
    else if (rc == 0 && !a.last) {
        rc = await_round(self, &a, deadline);
    }
    return rc < 0 ? -1 : (int)a.index;
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until all parties have called this.  Returns how many parties\n"
    "arrived before, 0 to parties - 1.\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None:\n"
    "the barrier's own.  Raises threading.BrokenBarrierError if a party did\n"
    "not arrive in time or was interrupted, or if the barrier is broken or\n"
    "reset; ValueError after close(); OSError (EDEADLK) if the action of this\n"
    "barrier calls it.  A party that arrives while an action runs waits for\n"
    "the next round; if its timeout expires first, only that round is broken.");

static PyObject *
barrier_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    static const struct signature signature = {"wait", 1, 0, names};
    BarrierObject *self = as_barrier(op);
    PyObject *values[1];
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_wait(values[0] == NULL || values[0] == Py_None
                            ? self->timeout : values[0],
                        &how_long) < 0
        || placed_check_writable(&self->base) < 0) {
        return NULL;
    }
    int index = wait_here(self, how_long.deadline);
    return index < 0 ? NULL : PyLong_FromLong(index);
}

PyDoc_STRVAR(abort_doc,
             "abort($self, /)\n--\n\n"
             "Break the barrier: until reset(), waiting and arriving parties\n"
             "get BrokenBarrierError.  Raises ValueError after close().");

static PyObject *
barrier_abort(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (placed_check_writable(as_placed(op)) < 0) {
        return NULL;
    }
    pshm_barrier_abort(as_barrier(op)->barrier);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reset_doc,
             "reset($self, /)\n--\n\n"
             "Make the barrier whole and empty, in one step.  The parties that\n"
             "wait get BrokenBarrierError; if they arrive again at once, that is\n"
             "the new round.  Raises ValueError after close().");

static PyObject *
barrier_reset(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (placed_check_writable(as_placed(op)) < 0) {
        return NULL;
    }
    pshm_barrier_reset(as_barrier(op)->barrier);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(parties_doc, "How many it takes to pass.");

static PyObject *
barrier_get_parties(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(as_barrier(op)->barrier->parties);
}

PyDoc_STRVAR(n_waiting_doc,
             "How many have come and wait for the others, those included that\n"
             "were killed meanwhile; 0 where it is broken.");

static PyObject *
barrier_get_n_waiting(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(
        pshm_barrier_waiting(as_barrier(op)->barrier));
}

PyDoc_STRVAR(broken_doc, "Whether it is broken.");

static PyObject *
barrier_get_broken(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pshm_barrier_broken(as_barrier(op)->barrier));
}

static PyObject *
barrier_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    BarrierObject *self = as_barrier(op);
    return placed_reduce(
        &self->base,
        Py_BuildValue("{sOsO}", "action",
                      self->action != NULL ? self->action : Py_None, "timeout",
                      self->timeout != NULL ? self->timeout : Py_None));
}

static PyObject *
barrier_repr(PyObject *op)
{
    struct pshm_barrier *words = as_barrier(op)->barrier;
    return placed_repr(op, pshm_barrier_broken(words)
                             ? PyUnicode_FromString("broken")
                             : PyUnicode_FromFormat(
                                   "waiters=%u/%u",
                                   pshm_barrier_waiting(words),
                                   (unsigned)words->parties));
}

/* ---- The type ---- */

static int
barrier_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(as_barrier(op)->action);
    Py_VISIT(as_barrier(op)->timeout);
    return placed_traverse(as_placed(op), visit, arg);
}

static int
barrier_clear(PyObject *op)
{
    Py_CLEAR(as_barrier(op)->action);
    Py_CLEAR(as_barrier(op)->timeout);
    return placed_clear(as_placed(op));
}

static void
barrier_dealloc(PyObject *op)
{
    BarrierObject *self = as_barrier(op);
    placed_end(&self->base);
    Py_CLEAR(self->action);
    Py_CLEAR(self->timeout);
    if (self->runner != NULL
        && pshm_robust_abandon(self->runner, &self->mstate, NULL) < 0) {
        lock_keep_orphan(self->base.map, self->runner, &self->mstate);
    }
    placed_free(&self->base);
}

PyDoc_STRVAR(
    barrier_doc,
    "Barrier(name=None, parties=None, action=None, timeout=None, *,\n"
    "    " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A barrier between processes, as threading.Barrier is between threads.\n\n"
    PLACED_DOC_NAME PARTIES_DOC PLACED_DOC_OPTIONS
    "A party that is killed while it waits counts as arrived; one that is\n"
    "killed in its action breaks the barrier.\n\n" PLACED_DOC_RAISES);

static PyMethodDef barrier_methods[] = {
    {"at", PLACED_CAST(barrier_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"wait", PLACED_CAST(barrier_wait), METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"abort", barrier_abort, METH_NOARGS, abort_doc},
    {"reset", barrier_reset, METH_NOARGS, reset_doc},
    {"__reduce__", barrier_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef barrier_getset[] = {
    {"parties", barrier_get_parties, NULL, parties_doc, NULL},
    {"n_waiting", barrier_get_n_waiting, NULL, n_waiting_doc, NULL},
    {"broken", barrier_get_broken, NULL, broken_doc, NULL},
    PLACED_GETSET,
    {0},
};

static PyMemberDef barrier_members[] = {
    PLACED_MEMBERS(BarrierObject),
    {0},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, (void *)barrier_doc},
    {Py_tp_new, barrier_tp_new},
    {Py_tp_dealloc, barrier_dealloc},
    {Py_tp_traverse, barrier_traverse},
    {Py_tp_clear, barrier_clear},
    {Py_tp_repr, barrier_repr},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_getset},
    {Py_tp_members, barrier_members},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "posixshm.Barrier",
    .basicsize = sizeof(BarrierObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = barrier_slots,
};

int
barrier_add_type(PyObject *module, core_state *state)
{
    state->barrier_type = placed_add_type(module, &barrier_spec,
                                        sizeof(struct barrier_placed),
                                        PSHM_PRIMITIVE_ALIGNMENT);
    return state->barrier_type == NULL ? -1 : 0;
}
