/* Barrier: parties that wait for each other. */
#include "core/sync/lock.h"

#include "posix/sync/barrier.h"

typedef struct {
    PlacedObject base;
    struct pshm_barrier *barrier;
    struct pshm_robust *runner;         /* held while an action runs */
    struct pshm_mutex_state mstate;     /* of the runner */
    PyObject *action;                   /* callable, or NULL */
    PyObject *timeout;                  /* the default of wait(), or NULL */
} BarrierObject;

static BarrierObject *
as_barrier(PyObject *op)
{
    return (BarrierObject *)op;
}

/* ---- Opening ---- */

static int
init_barrier(struct pshm_primitive *primitive, const void *value)
{
    struct pshm_barrier *barrier = (void *)primitive->payload;
    barrier->parties = *(const unsigned *)value;
    return pshm_robust_init((void *)(primitive + 1), 0);
}

/* parties, action, timeout; params->value: parties, or 0. */
static int
barrier_parse(placed_params *params)
{
    PyObject *parties = params->values[0], *action = params->values[1];
    wait_timeout ignored;
    long long number = 0;
    if ((parties != NULL
         && arg_long(parties, "parties", 1, PSHM_PARTIES_MOST, &number) < 0)
        || timeout_of_wait(params->values[2], &ignored) < 0) {
        return -1;
    }
    if (action != NULL && !PyCallable_Check(action)) {
        PyErr_Format(PyExc_TypeError,
                     "action must be callable or None, not %.200s",
                     Py_TYPE(action)->tp_name);
        return -1;
    }
    if (params->create && number == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "parties must be given to create a barrier");
        return -1;
    }
    params->value = (unsigned)number;
    return 0;
}

static int
barrier_attach(PlacedObject *base, const placed_params *params)
{
    BarrierObject *self = (BarrierObject *)base;
    struct pshm_barrier *barrier = placed_memory(base);
    if (params->value != 0 && params->value != barrier->parties) {
        PyErr_Format(PyExc_ValueError,
                     "the barrier is for %u parties, not %u",
                     (unsigned)barrier->parties, params->value);
        return -1;
    }
    struct pshm_robust *runner = (void *)(base->primitive + 1);
    int rc = pshm_robust_open(runner, 0, &self->mstate);
    if (rc < 0) {
        return placed_raise(base, rc);
    }
    pshm_robust_watch(&self->mstate, NULL);
    self->barrier = barrier;
    self->runner = runner;
    self->action = Py_XNewRef(params->values[1]);
    self->timeout = Py_XNewRef(params->values[2]);
    return 0;
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

/* Arrive, after the end of a generation whose action runs. Without the GIL. */
static int
try_to_arrive(BarrierObject *self, int64_t deadline,
              struct pshm_arrival *arrival)
{
    int rc = pshm_barrier_arrive(self->barrier, self->runner, &self->mstate,
                                 self->action != NULL, deadline, arrival);
    if (rc == -EAGAIN) {
        rc = pshm_barrier_wait(self->barrier, arrival, self->runner,
                               &self->mstate, deadline);
        /* If that generation passed or broke, arrive in the next one. */
        rc = rc == 0 || rc == -EPIPE ? -EINTR : rc;
    }
    return rc;
}

/* Returns 0, or -1 with an exception; then the party's generation is broken. */
static int
arrive(BarrierObject *self, int64_t deadline, struct pshm_arrival *arrival)
{
    int rc;
    WAIT_WITHOUT_GIL(rc, try_to_arrive(self, deadline, arrival));
    if (rc == -EINTR || rc == -ETIMEDOUT) {
        pshm_barrier_miss(self->barrier);
    }
    return rc == 0 ? 0 : raise_arrival(self, rc);
}

/* Returns 0, or -1 with an exception; then the generation is broken. */
static int
wait_for_others(BarrierObject *self, const struct pshm_arrival *arrival,
                int64_t deadline)
{
    int rc;
    WAIT_WITHOUT_GIL(rc, pshm_barrier_wait(self->barrier, arrival, self->runner,
                                           &self->mstate, deadline));
    if (rc == 0) {
        return 0;
    }
    pshm_barrier_break(self->barrier, arrival);
    return rc == -EINTR ? -1 : raise_broken();
}

/* Call the action and release all parties. */
static int
run_action(BarrierObject *self, const struct pshm_arrival *arrival)
{
    PyObject *result = PyObject_CallNoArgs(self->action);
    if (result == NULL) {
        pshm_barrier_fail(self->barrier, self->runner, &self->mstate, arrival);
        return -1;
    }
    Py_DECREF(result);
    return pshm_barrier_done(self->barrier, self->runner, &self->mstate,
                             arrival) < 0
               ? raise_broken() : 0;
}

PARAMETERS(wait, 1, 0, "timeout");

PyDoc_STRVAR(
    barrier_wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until all parties have called this.\n\n"
    "Returns how many parties arrived before, 0 to parties - 1.\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None:\n"
    "the barrier's own. Raises threading.BrokenBarrierError if a party did\n"
    "not arrive in time or was interrupted, or if the barrier is broken or\n"
    "reset; ValueError after close(); OSError (EDEADLK) if the action of this\n"
    "barrier calls it. A party that arrives while an action runs waits for\n"
    "the next generation. If its timeout expires first, only the next\n"
    "generation breaks.");

static PyObject *
barrier_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    BarrierObject *self = as_barrier(op);
    PyObject *value;
    wait_timeout timeout;
    struct pshm_arrival arrival;
    if (args_match(&wait_signature, args, count, kwnames, &value) < 0
        || timeout_of_wait(value == NULL || value == Py_None ? self->timeout
                                                             : value,
                           &timeout) < 0
        || placed_check_writable(&self->base) < 0
        || arrive(self, timeout.deadline, &arrival) < 0) {
        return NULL;
    }
    int rc = 0;
    if (arrival.action) {
        rc = run_action(self, &arrival);
    }
    else if (!arrival.last) {
        rc = wait_for_others(self, &arrival, timeout.deadline);
    }
    return rc < 0 ? NULL : PyLong_FromUnsignedLong(arrival.index);
}

PyDoc_STRVAR(barrier_abort_doc,
             "abort($self, /)\n--\n\n"
             "Break the barrier.\n\n"
             "Until reset(), parties that wait or arrive get\n"
             "BrokenBarrierError. Raises ValueError after close().");

static PyObject *
barrier_abort(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (placed_check_writable(as_placed(op)) < 0) {
        return NULL;
    }
    pshm_barrier_break(as_barrier(op)->barrier, NULL);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(barrier_reset_doc,
             "reset($self, /)\n--\n\n"
             "Make the barrier intact and empty, in one step.\n\n"
             "The parties that wait get BrokenBarrierError, and a new\n"
             "generation begins. Raises ValueError after close().");

static PyObject *
barrier_reset(PyObject *op, PyObject *Py_UNUSED(unused))
{
    if (placed_check_writable(as_placed(op)) < 0) {
        return NULL;
    }
    pshm_barrier_reset(as_barrier(op)->barrier);
    Py_RETURN_NONE;
}

/* ---- Attributes ---- */

PyDoc_STRVAR(barrier_parties_doc,
             "Number of parties that are released together.");

static PyObject *
barrier_get_parties(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(as_barrier(op)->barrier->parties);
}

PyDoc_STRVAR(barrier_n_waiting_doc,
             "Number of parties that wait for the others.\n\n"
             "Includes parties that were killed; 0 if the barrier is broken.");

static PyObject *
barrier_get_n_waiting(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(
        pshm_barrier_waiting(as_barrier(op)->barrier));
}

PyDoc_STRVAR(barrier_broken_doc, "True if the barrier is broken.");

static PyObject *
barrier_get_broken(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pshm_barrier_broken(as_barrier(op)->barrier));
}

/* ---- The type ---- */

static PyObject *
barrier_own_values(PlacedObject *base)
{
    BarrierObject *self = (BarrierObject *)base;
    return Py_BuildValue("{sOsO}", "action",
                         self->action != NULL ? self->action : Py_None,
                         "timeout",
                         self->timeout != NULL ? self->timeout : Py_None);
}

static PyObject *
barrier_state(PlacedObject *self)
{
    struct pshm_barrier *barrier = ((BarrierObject *)self)->barrier;
    return pshm_barrier_broken(barrier)
               ? PyUnicode_FromString("broken")
               : PyUnicode_FromFormat("waiters=%u/%u",
                                      pshm_barrier_waiting(barrier),
                                      (unsigned)barrier->parties);
}

static void
barrier_finalize(PlacedObject *base)
{
    BarrierObject *self = (BarrierObject *)base;
    if (self->runner != NULL
        && pshm_robust_abandon(self->runner, &self->mstate, NULL) < 0) {
        lock_keep_orphan(base->map, self->runner, &self->mstate);
    }
}

#define BARRIER_DOC_OWN                                                       \
    "parties: how many wait for each other, 1 to 32767; required to create\n"\
    "one. action: a callable. The party that arrives last calls its own,\n"   \
    "before the parties are released. timeout: seconds, the default of\n"     \
    "wait().\n"

PyDoc_STRVAR(
    barrier_at_doc,
    "at($type, /, shm, offset=0, *, parties=None, action=None, timeout=None,\n"
    "   create=False, exist_ok=False)\n--\n\n"
    "Open the barrier at an offset of shared memory.\n\n"
    PLACED_DOC_AT BARRIER_DOC_OWN PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

PyDoc_STRVAR(
    barrier_doc,
    "Barrier(name=None, parties=None, action=None, timeout=None, *,\n"
    "    " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A barrier between processes, as threading.Barrier is between threads.\n\n"
    PLACED_DOC_NAME BARRIER_DOC_OWN PLACED_DOC_OPTIONS
    "A party that is killed while it waits counts as arrived; if it is killed\n"
    "while it runs the action, the barrier breaks.\n\n" PLACED_DOC_RAISES);

static PyMethodDef barrier_methods[] = {
    KEYWORD_METHOD(barrier, wait),
    PLAIN_METHOD(barrier, abort),
    PLAIN_METHOD(barrier, reset),
    PLACED_METHODS(barrier_at_doc),
    {0},
};

static PyGetSetDef barrier_getset[] = {
    ATTRIBUTE(barrier, parties),
    ATTRIBUTE(barrier, n_waiting),
    ATTRIBUTE(barrier, broken),
    PLACED_GETSET,
    {0},
};

const struct placed_type barrier_type = {
    .name = "Barrier",
    .doc = barrier_doc,
    .methods = barrier_methods,
    .getset = barrier_getset,
    .object_size = sizeof(BarrierObject),
    .references = {offsetof(BarrierObject, action),
                   offsetof(BarrierObject, timeout)},
    .kind = PSHM_PRIMITIVE_BARRIER,
    /* The barrier is the payload; the runner is on a line after it. */
    .size = sizeof(struct pshm_primitive) + PSHM_PRIMITIVE_ALIGNMENT,
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .owned = true,
    .reads = true,
    .init = init_barrier,
    .own = {"parties", "action", "timeout"},
    .positional = 3,
    .none_is_default = true,
    .parse = barrier_parse,
    .attach = barrier_attach,
    .finalize = barrier_finalize,
    .own_values = barrier_own_values,
    .state = barrier_state,
};
