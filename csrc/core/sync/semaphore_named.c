/* Semaphores with a name: the files of sem_open(3). */
#include "core/sync/semaphore.h"

#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/memory/handle.h"

static int
raise_named(int rc, PyObject *name)
{
    if (rc == -ENAMETOOLONG) {
        PyErr_Format(PyExc_ValueError,
                     "bad name %R: a semaphore's must not be longer than 251 "
                     "bytes", name);
    }
    else {
        raise_errno(rc, name);
    }
    return -1;
}

static int
fill(void *base, void *arg)
{
    int rc = pshm_sem_init(base, *(const unsigned *)arg);
    if (rc < 0) {
        raise_errno(rc, NULL);
    }
    return rc < 0 ? -1 : 0;
}

/* The semaphore that shm is; name: for messages. */
static PyObject *
open_file(core_state *state, PyObject *shm, PyObject *name)
{
    SemaphoreObject *self =
        (SemaphoreObject *)placed_alloc(state->semaphore_type);
    if (self == NULL) {
        return NULL;
    }
    self->base.map = placed_take_map(state, shm, "Semaphore", NULL);
    if (self->base.map == NULL
        || mapping_size(self->base.map) < (Py_ssize_t)sizeof(sem_t)) {
        if (self->base.map != NULL) {
            raise_errno_words(-EINVAL, name,
                              "What has this name is not a semaphore: it has "
                              "%zd bytes, a semaphore %zd",
                              mapping_size(self->base.map),
                              (Py_ssize_t)sizeof(sem_t));
        }
        Py_DECREF(self);
        return NULL;
    }
    self->base.shm = Py_NewRef(shm);
    self->base.own = true;
    self->sem = (sem_t *)(void *)self->base.map->base;
    return placed_complete(&self->base);
}

PyObject *
semaphore_open_named(placed_params *how, PyObject *given, unsigned value)
{
    struct pshm_name name, file;
    if (arg_name(given, &name) < 0) {
        return NULL;
    }
    int rc = pshm_sem_name(&name, &file);
    if (rc < 0) {
        (void)raise_named(rc, given);
        return NULL;
    }
    PyObject *shm = placed_open_object(how, given, &file, sizeof(sem_t), fill,
                                     &value);
    PyObject *self = NULL;
    if (shm != NULL) {
        self = open_file(how->state, shm, given);
        if (self == NULL) {
            placed_discard_object(shm);
        }
        Py_DECREF(shm);
    }
    return self;
}

PyObject *
semaphore_from_file(core_state *state, PyObject *shm)
{
    PyObject *name = handle_name_object(as_handle(shm));
    PyObject *self = open_file(state, shm, name);
    Py_XDECREF(name);
    return self;
}

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
        if (audit_unlink(&file) < 0) {
            return NULL;
        }
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
    {"sem_unlink", PLACED_CAST(core_sem_unlink), METH_FASTCALL | METH_KEYWORDS,
     sem_unlink_doc},
    {0},
};
