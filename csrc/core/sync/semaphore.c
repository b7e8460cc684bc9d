/* Semaphore: POSIX's, in a segment or by name. */
#include "core/sync/semaphore.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/sync/waiting.h"

/* ---- Opening ---- */

static int
init_placed(struct pshm_primitive *place, const void *how)
{
    pshm_primitive_mark(place->payload);
    return pshm_sem_init((sem_t *)(void *)place->payload,
                         *(const unsigned *)how);
}

static int
parse_value(PyObject *value, unsigned *out)
{
    long long number = 1;
    if (value != NULL
        && arg_long(value, "value", 0, pshm_sem_most(), &number) < 0) {
        return -1;
    }
    *out = (unsigned)number;
    return 0;
}

/* value: what a new one has, or NULL. */
static PyObject *
open_semaphore(PyTypeObject *type, const placed_arguments *where,
               PyObject *value)
{
    unsigned number;
    placed_params how = {
        .state = core_state_of_type(type),
        .type = type,
        .what = "Semaphore",
        .first = "value",
        .spec = {
            .kind = PSHM_PRIMITIVE_SEMAPHORE,
            .size = sizeof(struct pshm_primitive),
            .init = init_placed,
            .how = &number,
        },
        .reads = true,
    };
    if (opening_parse(&how, where) < 0 || parse_value(value, &number) < 0) {
        return NULL;
    }
    if (value != NULL && !how.create) {
        PyErr_SetString(PyExc_ValueError,
                        "value is that of a new semaphore: it goes with "
                        "create=True");
        return NULL;
    }
    if (where->name != NULL && where->name != Py_None) {
        return semaphore_open_named(&how, where->name, number);
    }
    PlacedObject *self = placed_open(&how, where);
    if (self == NULL) {
        return NULL;
    }
    ((SemaphoreObject *)self)->sem = (sem_t *)(void *)self->place->payload;
    return placed_complete(self);
}

#define VALUE_DOC                                                            \
    "value: that of a new one, 0 to SEM_VALUE_MAX; it goes with create.\n"

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, value=1, create=False, exist_ok=False)\n"
    "--\n\n"
    "The semaphore at an offset of shared memory: " MAN(sem_init, 3) ".  The\n"
    "sem_t is the first thing there.\n\n"
    PLACED_DOC_AT VALUE_DOC PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

static PyObject *
semaphore_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "value", "create",
                                        "exist_ok", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[5];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.shm = values[0], .offset = values[1],
                       .options = values + 3};
    return open_semaphore((PyTypeObject *)type, &where, values[2]);
}

static PyObject *
semaphore_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "value", PLACED_OPTIONS, NULL};
    static const struct signature signature = {"Semaphore", 2, 0, names};
    PyObject *values[2 + PLACED_OPTION_COUNT];
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_arguments where = {.name = values[0], .options = values + 2};
    return open_semaphore(type, &where, values[1]);
}

/* ---- Methods ---- */

/* Returns 1; 0: none in time; or -1 with an exception. */
static int
acquire(SemaphoreObject *self, wait_timeout how_long)
{
    if (placed_check_writable(&self->base) < 0) {
        return -1;
    }
    int rc = pshm_sem_try(self->sem);
    if (rc == -EBUSY && !how_long.now) {
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_sem_wait(self->sem, how_long.deadline);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
    }
    if (rc == 0 || rc == -EBUSY || rc == -ETIMEDOUT) {
        return rc == 0;
    }
    return placed_raise(&self->base, rc);
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
    "Decrement the value, which waits while it is 0: True; or False if it\n"
    "stayed 0: " MAN(sem_wait, 3) ".\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait, as with\n"
    "blocking=False; None: no limit.  Raises ValueError after close().");

static PyObject *
semaphore_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct signature signature = {"acquire", 2, 0, names};
    PyObject *values[2];
    wait_timeout how_long = {.deadline = PSHM_NEVER};
    if ((count > 0 || kwnames != NULL)
        && (args_match(&signature, args, count, kwnames, values) < 0
            || timeout_of_semaphore(values[0], values[1], &how_long) < 0)) {
        return NULL;
    }
    int got = acquire(as_semaphore(op), how_long);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

static int
release(SemaphoreObject *self, unsigned n)
{
    if (placed_check_writable(&self->base) < 0) {
        return -1;
    }
    int rc = pshm_sem_post(self->sem, n);
    if (rc < 0) {                       /* EOVERFLOW alone */
        PyObject *name = placed_get_name((PyObject *)self, NULL);
        raise_errno_words(rc, name == Py_None ? NULL : name,
                          "The semaphore would be above SEM_VALUE_MAX, %u",
                          pshm_sem_most());
        Py_XDECREF(name);
    }
    return rc;
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /, n=1)\n--\n\n"
    "Add n, at least 1, in one step: " MAN(sem_post, 3) ".\n\n"
    "Raises OSError (EOVERFLOW) above SEM_VALUE_MAX, with nothing added;\n"
    "ValueError after close().");

static PyObject *
semaphore_release(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const struct signature signature = {"release", 1, 0, names};
    PyObject *values[1];
    long long n = 1;
    if ((count > 0 || kwnames != NULL)
        && (args_match(&signature, args, count, kwnames, values) < 0
            || (values[0] != NULL
                && arg_long(values[0], "n", 1, pshm_sem_most(), &n) < 0))) {
        return NULL;
    }
    return release(as_semaphore(op), (unsigned)n) < 0 ? NULL
                                                      : Py_NewRef(Py_None);
}

static PyObject *
semaphore_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    int got = acquire(as_semaphore(op), (wait_timeout){.deadline = PSHM_NEVER});
    return got < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
semaphore_exit(PyObject *op, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(count))
{
    return release(as_semaphore(op), 1) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(value_doc,
             "How many there are at this moment: " MAN(sem_getvalue, 3) ".\n"
             "Raises ValueError after close().");

static PyObject *
semaphore_get_value(PyObject *op, void *Py_UNUSED(closure))
{
    SemaphoreObject *self = as_semaphore(op);
    if (placed_check(&self->base) < 0) {
        return NULL;
    }
    int value = pshm_sem_value(self->sem);
    return value < 0 ? raise_errno(value, NULL) : PyLong_FromLong(value);
}

static PyObject *
semaphore_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return placed_reduce(as_placed(op), PyDict_New());
}

static PyObject *
semaphore_repr(PyObject *op)
{
    int value = pshm_sem_value(as_semaphore(op)->sem);
    return placed_repr(op, PyUnicode_FromFormat("value=%d", value));
}

/* ---- The type ---- */

static int
semaphore_traverse(PyObject *op, visitproc visit, void *arg)
{
    return placed_traverse(as_placed(op), visit, arg);
}

static int
semaphore_clear(PyObject *op)
{
    return placed_clear(as_placed(op));
}

static void
semaphore_dealloc(PyObject *op)
{
    placed_end(as_placed(op));
    placed_free(as_placed(op));
}

PyDoc_STRVAR(
    semaphore_doc,
    "Semaphore(name=None, value=1, *, " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A POSIX semaphore: " MAN(sem_overview, 7) ".\n\n"
    "name: as sem_open(3) has it, so that any program can open it; at most\n"
    "251 bytes.  None: in an anonymous object, which is new, for this process\n"
    "and those that get it through multiprocessing.\n"
    VALUE_DOC PLACED_DOC_OPTIONS
    "A semaphore has no owner: what a process had acquired that dies is not\n"
    "released.  A Lock is.\n\n" PLACED_DOC_RAISES);

static PyMethodDef semaphore_methods[] = {
    {"at", PLACED_CAST(semaphore_at),
     METH_CLASS | METH_FASTCALL | METH_KEYWORDS, at_doc},
    {"acquire", PLACED_CAST(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", PLACED_CAST(semaphore_release), METH_FASTCALL | METH_KEYWORDS,
     release_doc},
    {"__enter__", semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", PLACED_CAST(semaphore_exit), METH_FASTCALL, NULL},
    {"__reduce__", semaphore_reduce, METH_NOARGS, placed_reduce_doc},
    PLACED_METHODS,
    {0},
};

static PyGetSetDef semaphore_getset[] = {
    {"value", semaphore_get_value, NULL, value_doc, NULL},
    PLACED_GETSET,
    {0},
};

static PyMemberDef semaphore_members[] = {
    PLACED_MEMBERS(SemaphoreObject),
    {0},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)semaphore_doc},
    {Py_tp_new, semaphore_tp_new},
    {Py_tp_dealloc, semaphore_dealloc},
    {Py_tp_traverse, semaphore_traverse},
    {Py_tp_clear, semaphore_clear},
    {Py_tp_repr, semaphore_repr},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_getset},
    {Py_tp_members, semaphore_members},
    {0, NULL},
};

static PyType_Spec semaphore_spec = {
    .name = "posixshm.Semaphore",
    .basicsize = sizeof(SemaphoreObject),
    .flags = PLACED_TYPE_FLAGS,
    .slots = semaphore_slots,
};

int
semaphore_add_type(PyObject *module, core_state *state)
{
    if (PyModule_AddFunctions(module, semaphore_functions) < 0
        || PyModule_AddIntConstant(module, "SEM_VALUE_MAX",
                                   (long)pshm_sem_most()) < 0) {
        return -1;
    }
    state->semaphore_type = placed_add_type(module, &semaphore_spec,
                                          sizeof(struct pshm_primitive),
                                          PSHM_PRIMITIVE_ALIGNMENT);
    return state->semaphore_type == NULL ? -1 : 0;
}
