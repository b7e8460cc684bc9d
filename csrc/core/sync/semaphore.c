/* Semaphore: a POSIX semaphore, at an offset or by name. */
#include "core/sync/placed.h"

#include "core/audit.h"
#include "core/errors.h"
#include "core/sync/waiting.h"

#include "posix/sync/semaphore.h"

/* ---- Opening ---- */

static int
init_semaphore(struct pshm_primitive *primitive, const void *value)
{
    pshm_primitive_mark(primitive->payload);
    return pshm_sem_init(primitive->payload, *(const unsigned *)value);
}

static int
name_of_file(PyObject *given, struct pshm_name *file)
{
    struct pshm_name name;
    if (arg_name(given, &name) < 0) {
        return -1;
    }
    if (pshm_sem_name(&name, file) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "bad name %R: the name of a semaphore must be at most 251 "
                     "bytes long", given);
        return -1;
    }
    return 0;
}

/* The file of sem_open(3), a bare sem_t. */
static const struct placed_file semaphore_file = {
    .size = sizeof(sem_t),
    .name = name_of_file,
    .plain = pshm_sem_plain,
    .init = pshm_sem_init,
};

static int
semaphore_parse(placed_params *params)
{
    PyObject *value = params->values[0];
    long long number = 1;
    if (value != NULL
        && arg_long(value, "value", 0, SEM_VALUE_MAX, &number) < 0) {
        return -1;
    }
    if (value != NULL && !params->create) {
        PyErr_SetString(PyExc_ValueError,
                        "value is for a new semaphore; it goes with "
                        "create=True");
        return -1;
    }
    params->value = (unsigned)number;
    return 0;
}

/* ---- Methods ---- */

/* Returns 1; 0: the value stayed 0; or -1 with an exception. */
static int
acquire(PlacedObject *self, wait_timeout timeout)
{
    if (placed_check_writable(self) < 0) {
        return -1;
    }
    sem_t *sem = placed_memory(self);
    int rc = pshm_sem_try(sem);
    if (rc == -EBUSY && !timeout.now) {
        WAIT_WITHOUT_GIL(rc, pshm_sem_wait(sem, timeout.deadline));
    }
    if (rc == 0 || rc == -EBUSY || rc == -ETIMEDOUT) {
        return rc == 0;
    }
    return placed_raise(self, rc);
}

PARAMETERS(acquire, 2, 0, "blocking", "timeout");
PARAMETERS(release, 1, 0, "n");
PARAMETERS(sem_unlink, 1, 1, "name");

PyDoc_STRVAR(
    semaphore_acquire_doc,
    "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
    "Wait until the value is above 0 and decrement it: " MAN(sem_wait, 3)
    ".\n\n"
    WAIT_TIMEOUT_DOC "Returns True, or False if the value stayed 0. Raises\n"
    "ValueError after close().");

static PyObject *
semaphore_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    PyObject *values[2];
    wait_timeout timeout = WAIT_FOREVER;
    if ((count > 0 || kwnames != NULL)
        && (args_match(&acquire_signature, args, count, kwnames, values) < 0
            || timeout_of_semaphore(values[0], values[1], &timeout) < 0)) {
        return NULL;
    }
    int acquired = acquire(as_placed(op), timeout);
    return acquired < 0 ? NULL : PyBool_FromLong(acquired);
}

static PyObject *
release(PlacedObject *self, unsigned n)
{
    if (placed_check_writable(self) < 0) {
        return NULL;
    }
    int rc = pshm_sem_post(placed_memory(self), n);
    if (rc < 0) {                       /* EOVERFLOW alone */
        PyObject *name = placed_get_name((PyObject *)self, NULL);
        raise_errno_words(rc, name == Py_None ? NULL : name,
                          "The semaphore would be above SEM_VALUE_MAX, %u; "
                          "nothing was added", (unsigned)SEM_VALUE_MAX);
        Py_XDECREF(name);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    semaphore_release_doc,
    "release($self, /, n=1)\n--\n\n"
    "Add n, at least 1, to the value in one step: " MAN(sem_post, 3) ".\n\n"
    "Raises OSError (EOVERFLOW) without a change if the value would be above\n"
    "SEM_VALUE_MAX; ValueError after close().");

static PyObject *
semaphore_release(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    PyObject *value;
    long long n = 1;
    if ((count > 0 || kwnames != NULL)
        && (args_match(&release_signature, args, count, kwnames, &value) < 0
            || (value != NULL
                && arg_long(value, "n", 1, SEM_VALUE_MAX, &n) < 0))) {
        return NULL;
    }
    return release(as_placed(op), (unsigned)n);
}

static PyObject *
semaphore_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return acquire(as_placed(op), WAIT_FOREVER) < 0 ? NULL
                                                    : Py_NewRef(Py_True);
}

static PyObject *
semaphore_exit(PyObject *op, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(count))
{
    return release(as_placed(op), 1);
}

PyDoc_STRVAR(semaphore_value_doc,
             "Current value: " MAN(sem_getvalue, 3) ".\n\n"
             "Raises ValueError after close().");

static PyObject *
semaphore_get_value(PyObject *op, void *Py_UNUSED(closure))
{
    PlacedObject *self = as_placed(op);
    if (placed_check(self) < 0) {
        return NULL;
    }
    int value = pshm_sem_value(placed_memory(self));
    return value < 0 ? raise_errno(value, NULL) : PyLong_FromLong(value);
}

static PyObject *
semaphore_state(PlacedObject *self)
{
    return PyUnicode_FromFormat("value=%d",
                                pshm_sem_value(placed_memory(self)));
}

/* ---- sem_unlink ---- */

PyDoc_STRVAR(
    core_sem_unlink_doc,
    "sem_unlink(name)\n--\n\n"
    "Remove the name of a semaphore, whichever semaphore it refers to:\n"
    MAN(sem_unlink, 3) ".\n\n"
    "Raises FileNotFoundError, PermissionError, OSError; ValueError for a bad\n"
    "name.");

static PyObject *
core_sem_unlink(PyObject *Py_UNUSED(module), PyObject *const *args,
                Py_ssize_t count, PyObject *kwnames)
{
    PyObject *given;
    struct pshm_name name, file;
    if (args_match(&sem_unlink_signature, args, count, kwnames, &given) < 0
        || name_of_file(given, &file) < 0 || arg_name(given, &name) < 0
        || audit_unlink(&file) < 0) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_sem_unlink(&name);
    Py_END_ALLOW_THREADS
    return rc < 0 ? raise_errno(rc, given) : Py_NewRef(Py_None);
}

PyMethodDef semaphore_functions[] = {
    KEYWORD_METHOD(core, sem_unlink),
    {0},
};

/* ---- The type ---- */

#define SEMAPHORE_DOC_VALUE                                                   \
    "value: that of a new semaphore, 0 to SEM_VALUE_MAX; with create only.\n"

PyDoc_STRVAR(
    semaphore_at_doc,
    "at($type, /, shm, offset=0, *, value=1, create=False, exist_ok=False)\n"
    "--\n\n"
    "Open the semaphore at an offset of shared memory: " MAN(sem_init, 3) ".\n"
    "\nThe sem_t is at that offset.\n\n"
    PLACED_DOC_AT SEMAPHORE_DOC_VALUE PLACED_DOC_READS "\n" PLACED_DOC_RAISES);

PyDoc_STRVAR(
    semaphore_doc,
    "Semaphore(name=None, value=1, *, " PLACED_OPTIONS_SIGNATURE ")\n--\n\n"
    "A POSIX semaphore: " MAN(sem_overview, 7) ".\n\n"
    "name: a name of at most 251 bytes, as sem_open(3) takes it, so that\n"
    "other programs can open the semaphore; None: a new anonymous object, for\n"
    "this process and the processes that receive the semaphore through\n"
    "multiprocessing.\n"
    SEMAPHORE_DOC_VALUE PLACED_DOC_OPTIONS
    "A semaphore does not have an owner: if a process dies after acquire(),\n"
    "the value stays decremented. Use a Lock if that must not happen.\n\n"
    PLACED_DOC_RAISES);

static PyMethodDef semaphore_methods[] = {
    KEYWORD_METHOD(semaphore, acquire),
    KEYWORD_METHOD(semaphore, release),
    WITH_METHODS(semaphore),
    PLACED_METHODS(semaphore_at_doc),
    {0},
};

static PyGetSetDef semaphore_getset[] = {
    ATTRIBUTE(semaphore, value),
    PLACED_GETSET,
    {0},
};

const struct placed_type semaphore_type = {
    .name = "Semaphore",
    .doc = semaphore_doc,
    .methods = semaphore_methods,
    .getset = semaphore_getset,
    .object_size = sizeof(PlacedObject),
    .kind = PSHM_PRIMITIVE_SEMAPHORE,
    .size = sizeof(struct pshm_primitive),
    .alignment = PSHM_PRIMITIVE_ALIGNMENT,
    .reads = true,
    .init = init_semaphore,
    .file = &semaphore_file,
    .own = {"value"},
    .positional = 1,
    .parse = semaphore_parse,
    .state = semaphore_state,
};
