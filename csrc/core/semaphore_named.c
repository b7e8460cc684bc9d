/* Semaphores with a name: opening, pickling, unlinking. */
#include "semaphore.h"

#include <string.h>

#include "args.h"
#include "errors.h"
#include "waiting.h"

#include "posix/host.h"

static int
raise_named(int rc, PyObject *name)
{
    if (rc == -EINVAL) {
        raise_errno_words(rc, name, "What has that name is no semaphore");
    }
    else if (rc == -ENAMETOOLONG) {
        PyErr_Format(PyExc_ValueError,
                     "bad name %R: a semaphore's must not be longer than 251 "
                     "bytes", name);
    }
    else {
        raise_errno(rc, name);
    }
    return -1;
}

int
semaphore_open_named(semaphore *self, core_state *state, PyObject *given,
                     const unsigned *value, bool exist_ok, mode_t mode)
{
    struct pshm_name name;
    if (arg_name(given, &name) < 0) {
        return -1;
    }
    int rc = pshm_sem_name(&name, &self->file);
    if (rc < 0) {
        return raise_named(rc, given);
    }
    self->name = PyUnicode_FromString(pshm_name_plain(&name));
    if (self->name == NULL) {
        return -1;
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = -ENOENT;
        if (value == NULL || exist_ok) {
            rc = pshm_sem_open(&name, &self->file, &self->sem, &self->id);
        }
        if (rc == -ENOENT && value != NULL) {
            rc = pshm_sem_create(&self->file, *value, mode, &state->way);
            /* Ours, or with exist_ok that of one who was faster: see. */
            if (rc == 0 || (rc == -EEXIST && exist_ok)) {
                rc = pshm_sem_open(&name, &self->file, &self->sem, &self->id);
                rc = rc == -ENOENT ? -EINTR : rc;
            }
        }
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == -EINTR) {
        return -1;
    }
    return rc < 0 ? raise_named(rc, given) : 0;
}

const char semaphore_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle by reference: the name and which one that is, or the segment.";

PyObject *
semaphore_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    semaphore *self = as_semaphore(op);
    char boot[PSHM_BOOT_ID_SIZE], which[2 * 16 + 1];
    if (self->name == NULL) {
        return cell_reduce(&self->base, PyDict_New());
    }
    if (cell_check(&self->base) < 0) {
        return NULL;
    }
    int rc = pshm_boot_id(boot);
    if (rc < 0) {
        return raise_errno(rc, NULL);
    }
    (void)PyOS_snprintf(which, sizeof(which), "%016llx%016llx",
                        (unsigned long long)self->id.dev,
                        (unsigned long long)self->id.ino);
    core_state *state = core_state_of_type(Py_TYPE(op));
    return Py_BuildValue("O(Oss)", state->open_semaphore_function, self->name,
                         which, boot);
}

/* _open_semaphore(name, which, boot) */
static PyObject *
open_semaphore(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *name;
    const char *which, *boot;
    char here[PSHM_BOOT_ID_SIZE], found[2 * 16 + 1];
    if (!PyArg_ParseTuple(args, "Uss:_open_semaphore", &name, &which,
                          &boot)) {
        return NULL;
    }
    int rc = pshm_boot_id(here);
    if (rc < 0) {
        return raise_errno(rc, NULL);
    }
    if (strcmp(boot, here) != 0) {
        return raise_errno_words(-EREMOTE, name,
                                 "The semaphore is on another host, or was "
                                 "there before this one was restarted");
    }
    PyTypeObject *type = state->semaphore_type;
    semaphore *self = (semaphore *)type->tp_alloc(type, 0);
    if (self == NULL
        || semaphore_open_named(self, state, name, NULL, false, 0) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    (void)PyOS_snprintf(found, sizeof(found), "%016llx%016llx",
                        (unsigned long long)self->id.dev,
                        (unsigned long long)self->id.ino);
    if (strcmp(found, which) != 0) {
        raise_errno_words(-ESTALE, name,
                          "The semaphore is gone: another one has its name "
                          "now");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* ---- Without an object ---- */

PyDoc_STRVAR(
    sem_unlink_doc,
    "sem_unlink(name)\n--\n\n"
    "Remove a semaphore's name, whichever has it: " MAN(sem_unlink, 3) ".\n\n"
    "Raises FileNotFoundError, PermissionError, OSError; ValueError for a bad\n"
    "name.");

static PyObject *
core_sem_unlink(PyObject *Py_UNUSED(module), PyObject *const *args,
                Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"name", NULL};
    static const struct signature signature = {"sem_unlink", 1, 1, names};
    PyObject *values[1];
    struct pshm_name name, file;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &name) < 0) {
        return NULL;
    }
    int rc = pshm_sem_name(&name, &file);
    if (rc == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_sem_unlink(&name);
        Py_END_ALLOW_THREADS
    }
    if (rc < 0) {
        (void)raise_named(rc, values[0]);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef semaphore_functions[] = {
    {"sem_unlink", CELL_CAST(core_sem_unlink), METH_FASTCALL | METH_KEYWORDS,
     sem_unlink_doc},
    {"_open_semaphore", open_semaphore, METH_VARARGS, NULL},
    {0},
};
