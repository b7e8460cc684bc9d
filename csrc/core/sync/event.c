/* Event: a flag to wait for. */
#include "core/sync/placed.h"

#include "core/args.h"
#include "core/sync/waiting.h"

#include "posix/sync/event.h"

static struct pshm_event *
flag_of(PlacedObject *self)
{
    return (struct pshm_event *)(void *)self->place->payload;
}

static int
init_placed(struct pshm_primitive *place, const void *Py_UNUSED(how))
{
    pshm_primitive_mark(place->payload);
    return 0;
}

static PyObject *
open_event(PyTypeObject *type, const placed_arguments *where)
{
    placed_params how = {
        .state = core_state_of_type(type),
        .type = type,
        .what = "Event",
        .spec = {
            .kind = PSHM_PRIMITIVE_EVENT,
            .size = sizeof(struct pshm_primitive),
            .init = init_placed,
        },
        .reads = true,
    };
    PlacedObject *self = opening_parse(&how, where) < 0 ? NULL
                                                : placed_open(&how, where);
    return self == NULL ? NULL : placed_complete(self);
}

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, create=False, exist_ok=False)\n--\n\n"
    "The event at an offset of shared memory.  A new one is not set.\n\n"
    PLACED_DOC_AT PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

static PyObject *
event_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
         PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "create", "exist_ok",
                                        NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[4];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.shm = values[0], .offset = values[1],
                       .options = values + 2};
    return open_event((PyTypeObject *)type, &where);
}

static PyObject *
event_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", PLACED_OPTIONS, NULL};
    static const struct signature signature = {"Event", 1, 0, names};
    PyObject *values[1 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 1};
    return open_event(type, &where);
}

PyDoc_STRVAR(is_set_doc,
             "is_set($self, /)\n--\n\n"
             "Whether the flag is up.  Raises ValueError after close().");

static PyObject *
event_is_set(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    return placed_check(self) < 0
               ? NULL : PyBool_FromLong(pshm_event_is_set(flag_of(self)));
}

PyDoc_STRVAR(set_doc,
             "set($self, /)\n--\n\n"
             "Put the flag up and wake all who wait: " MAN(futex, 2) ".  They\n"
             "see what was written before.  Raises ValueError after close().");

static PyObject *
event_set(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    if (placed_check_writable(self) < 0) {
        return NULL;
    }
    pshm_event_set(flag_of(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(clear_doc,
             "clear($self, /)\n--\n\n"
             "Take the flag down.  Raises ValueError after close().");

static PyObject *
event_clear(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    if (placed_check_writable(self) < 0) {
        return NULL;
    }
    pshm_event_clear(flag_of(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until the flag is set: True, even if it was cleared again since; or\n"
    "False if it was not set in time.\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None: no\n"
    "limit.  "
    "Raises ValueError after close().");

static PyObject *
event_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    static const struct signature signature = {"wait", 1, 0, names};
    PlacedObject *self = as_placed(op);
    PyObject *values[1];
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || timeout_of_wait(values[0], &how_long) < 0
        || placed_check(self) < 0) {
        return NULL;
    }
    struct pshm_event *event = flag_of(self);
    int rc = pshm_event_is_set(event) ? 0 : -ETIMEDOUT;
    if (rc < 0 && !how_long.now) {
        unsigned seen = pshm_event_read(event);
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_event_wait(event, seen, how_long.deadline);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
    }
    if (rc == 0 || rc == -ETIMEDOUT) {
        return PyBool_FromLong(rc == 0);
    }
    (void)placed_raise(self, rc);
    return NULL;
}

static PyObject *
event_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return placed_reduce(as_placed(op), PyDict_New());
}

static PyObject *
event_repr(PyObject *op)
{
    return placed_repr(op, PyUnicode_FromString(
                             pshm_event_is_set(flag_of(as_placed(op)))
                                 ? "set" : "unset"));
}

static int
event_traverse(PyObject *op, visitproc visit, void *arg)
{
    return placed_traverse(as_placed(op), visit, arg);
}

static int
event_gc_clear(PyObject *op)
{
    return placed_clear(as_placed(op));
}

static void
event_dealloc(PyObject *op)
{
    placed_end(as_placed(op));
    placed_free(as_placed(op));
}

PyDoc_STRVAR(
    event_doc,
    "Event(name=None, *, " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A flag between processes, as threading.Event is between threads.\n\n"
    PLACED_DOC_NAME PLACED_DOC_OPTIONS
    "A process that is killed while it waits or sets leaves nothing behind\n"
    "that keeps another waiting.\n\n" PLACED_DOC_RAISES);

static PyMethodDef event_methods[] = {
    {"at", PLACED_CAST(event_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"is_set", event_is_set, METH_NOARGS, is_set_doc},
    {"set", event_set, METH_NOARGS, set_doc},
    {"clear", event_clear, METH_NOARGS, clear_doc},
    {"wait", PLACED_CAST(event_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"__reduce__", event_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef event_getset[] = {
    PLACED_GETSET,
    {0},
};

static PyMemberDef event_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(PlacedObject, weakrefs),
     Py_READONLY, NULL},
    {0},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, (void *)event_doc},
    {Py_tp_new, event_tp_new},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_traverse, event_traverse},
    {Py_tp_clear, event_gc_clear},
    {Py_tp_repr, event_repr},
    {Py_tp_methods, event_methods},
    {Py_tp_getset, event_getset},
    {Py_tp_members, event_members},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "posixshm.Event",
    .basicsize = sizeof(PlacedObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = event_slots,
};

int
event_add_type(PyObject *module, core_state *state)
{
    state->event_type = placed_add_type(module, &event_spec,
                                      sizeof(struct pshm_primitive),
                                      PSHM_PRIMITIVE_ALIGNMENT);
    return state->event_type == NULL ? -1 : 0;
}
