/* Event: a flag that processes wait for. */
#include "core/sync/placed.h"
#include "core/sync/waiting.h"

#include "posix/sync/event.h"

static int
init_event(struct pshm_primitive *primitive, const void *Py_UNUSED(value))
{
    pshm_primitive_mark(primitive->payload);
    return 0;
}

PyDoc_STRVAR(event_is_set_doc,
             "is_set($self, /)\n--\n\n"
             "Return True if the flag is set. Raises ValueError after "
             "close().");

static PyObject *
event_is_set(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    return placed_check(self) < 0
               ? NULL
               : PyBool_FromLong(pshm_event_is_set(placed_memory(self)));
}

static PyObject *
change(PyObject *op, void (*operation)(struct pshm_event *event))
{
    PlacedObject *self = as_placed(op);
    if (placed_check_writable(self) < 0) {
        return NULL;
    }
    operation(placed_memory(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(event_set_doc,
             "set($self, /)\n--\n\n"
             "Set the flag and wake all waiters: " MAN(futex, 2) ".\n\n"
             "A waiter sees what this process wrote before that. Raises\n"
             "ValueError after close().");

static PyObject *
event_set(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return change(op, pshm_event_set);
}

PyDoc_STRVAR(event_clear_doc,
             "clear($self, /)\n--\n\n"
             "Reset the flag. Raises ValueError after close().");

static PyObject *
event_clear(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return change(op, pshm_event_clear);
}

PARAMETERS(wait, 1, 0, "timeout");

PyDoc_STRVAR(
    event_wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until the flag is set: " MAN(futex, 2) ".\n\n"
    WAIT_TIMEOUT_DOC "Returns True, also if the flag was cleared since; or\n"
    "False if it was not set in time. Raises ValueError after close().");

static PyObject *
event_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    PlacedObject *self = as_placed(op);
    PyObject *value;
    wait_timeout timeout;
    if (args_match(&wait_signature, args, count, kwnames, &value) < 0
        || timeout_of_wait(value, &timeout) < 0 || placed_check(self) < 0) {
        return NULL;
    }
    struct pshm_event *event = placed_memory(self);
    int rc = pshm_event_is_set(event) ? 0 : -ETIMEDOUT;
    if (rc < 0 && !timeout.now) {
        unsigned word = pshm_event_read(event);
        WAIT_WITHOUT_GIL(rc, pshm_event_wait(event, word, timeout.deadline));
    }
    if (rc == 0 || rc == -ETIMEDOUT) {
        return PyBool_FromLong(rc == 0);
    }
    (void)placed_raise(self, rc);
    return NULL;
}

static PyObject *
event_state(PlacedObject *self)
{
    bool set = pshm_event_is_set(placed_memory(self));
    return PyUnicode_FromString(set ? "set" : "unset");
}

PyDoc_STRVAR(
    event_at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False)\n--\n\n"
    "Open the event at an offset of shared memory. A new one is not set.\n\n"
    PLACED_DOC_AT PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

PyDoc_STRVAR(
    event_doc,
    "Event(name=None, *, " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A flag between processes, as threading.Event is between threads.\n\n"
    PLACED_DOC_NAME PLACED_DOC_OPTIONS
    "If a process is killed while it waits or sets the flag, all other\n"
    "waiters still wake.\n\n" PLACED_DOC_RAISES);

static PyMethodDef event_methods[] = {
    KEYWORD_METHOD(event, wait),
    PLAIN_METHOD(event, is_set),
    PLAIN_METHOD(event, set),
    PLAIN_METHOD(event, clear),
    PLACED_METHODS(event_at_doc),
    {0},
};

static PyGetSetDef event_getset[] = {PLACED_GETSET, {0}};

const struct placed_type event_type = {
    .name = "Event",
    .doc = event_doc,
    .methods = event_methods,
    .getset = event_getset,
    .object_size = sizeof(PlacedObject),
    .kind = PSHM_PRIMITIVE_EVENT,
    .size = sizeof(struct pshm_primitive),
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .reads = true,
    .init = init_event,
    .state = event_state,
};
