/* delete=True: the duty to remove a name when its handle is closed or goes, or
 * at the end of the process that made the object.
 *
 * The handle has it, and so has what is called at the end.  Whoever comes
 * first does it; in a forked child nobody does. */
#include "core/memory/handle.h"

#include "core/audit.h"
#include "core/memory/last.h"

#include "posix/host.h"
#include "posix/object/link.h"

#define CAPSULE "posixshm.delete"

typedef struct {
    fields_mutex fields;
    enum { WANTED, DONE, CANCELLED } state;
    unsigned forks;                     /* the process: pshm_forks */
    bool track;                         /* and tell the resource tracker */
    PyObject *support;                  /* ... through this */
    struct pshm_identity id;
    int names;                          /* two while it is being renamed */
    struct pshm_name path[2];
} DeleteObject;

/* ---- The resource tracker ---- */

int
handle_track(PyObject *support, PyObject *name, const char *function)
{
    PyObject *result = PyObject_CallMethod(support, "track", "sO", function,
                                           name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
handle_untrack(PyObject *support, PyObject *name)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (handle_track(support, name, "unregister") < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

/* ---- The finalizer ---- */

static DeleteObject *
as_duty(PyObject *op)
{
    return PyCapsule_GetPointer(op, CAPSULE);
}

static void
duty_free(PyObject *op)
{
    DeleteObject *d = as_duty(op);
    Py_DECREF(d->support);
    PyMem_Free(d);
}

static PyObject *
duty_new(PyObject *support, const struct pshm_name *path,
         struct pshm_identity id, bool track)
{
    DeleteObject *d = PyMem_Calloc(1, sizeof(*d));
    if (d == NULL) {
        return PyErr_NoMemory();
    }
    d->forks = pshm_forks();
    d->track = track;
    d->support = Py_NewRef(support);
    d->id = id;
    d->names = 1;
    d->path[0] = *path;
    PyObject *op = PyCapsule_New(d, CAPSULE, duty_free);
    if (op == NULL) {
        Py_DECREF(d->support);
        PyMem_Free(d);
    }
    return op;
}

static int
untrack(PyObject *support, const struct pshm_name *path)
{
    PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
    int rc = name == NULL ? -1 : handle_track(support, name, "unregister");
    Py_XDECREF(name);
    return rc;
}

/* The names that this process is to remove now.  Under d's fields. */
static int
names_to_remove_locked(const DeleteObject *d, struct pshm_name path[2])
{
    if (d->state != WANTED || d->forks != pshm_forks()) {
        return 0;
    }
    path[0] = d->path[0];
    path[1] = d->path[1];
    return d->names;
}

/* 0, or -1 with the exception of a hook. */
static int
duty_audit(PyObject *op)
{
    DeleteObject *d = as_duty(op);
    struct pshm_name path[2];
    int names, rc = 0;
    fields_lock(&d->fields);
    names = names_to_remove_locked(d, path);
    fields_unlock(&d->fields);
    for (int i = 0; rc == 0 && i < names; i++) {
        rc = audit_unlink(&path[i]);
    }
    return rc;
}

/* 0, or -1 where a signal handler raised. */
static int
duty_do(PyObject *op)
{
    DeleteObject *d = as_duty(op);
    struct pshm_name path[2];
    bool gone[2];
    int names, rc = 0;
    fields_lock(&d->fields);
    names = names_to_remove_locked(d, path);
    if (names > 0) {
        d->state = DONE;
    }
    fields_unlock(&d->fields);
    for (int i = 0; i < names; i++) {
        int removed;
        Py_BEGIN_ALLOW_THREADS
        removed = pshm_link_remove(&path[i], d->id);
        Py_END_ALLOW_THREADS
        gone[i] = removed == 0 || removed == -ENOENT;
    }
    for (int i = 0; rc == 0 && d->track && i < names; i++) {
        rc = gone[i] ? untrack(d->support, &path[i]) : 0;
    }
    return rc;
}

static void
duty_do_quietly(PyObject *op)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (duty_audit(op) < 0) {
        PyErr_WriteUnraisable(as_duty(op)->support);
    }
    else if (duty_do(op) < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

PyObject *
handle_delete_later(core_state *state, PyObject *self,
                    const struct pshm_name *path, struct pshm_identity id,
                    bool track)
{
    PyObject *op = duty_new(state->support, path, id, track);
    if (op == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(state->support, "call_at_end",
                                           "OOO", self,
                                           state->remove_function, op);
    Py_XDECREF(result);
    if (result == NULL) {
        handle_delete_cancel(op);
        op = NULL;
    }
    return op;
}

int
handle_delete_audit(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    PyObject *op = Py_XNewRef(self->finalizer);
    fields_unlock(&self->fields);
    int rc = op == NULL ? 0 : duty_audit(op);
    Py_XDECREF(op);
    return rc;
}

int
handle_delete_now(PyObject *op)
{
    int rc = op == NULL ? 0 : duty_do(op);
    Py_XDECREF(op);
    return rc;
}

void
handle_delete_last(PyObject *op)
{
    duty_do_quietly(op);
    Py_DECREF(op);
}

void
handle_delete_cancel(PyObject *op)
{
    if (op == NULL) {
        return;
    }
    DeleteObject *d = as_duty(op);
    fields_lock(&d->fields);
    d->state = CANCELLED;
    fields_unlock(&d->fields);
    Py_DECREF(op);
}

void
handle_delete_also(PyObject *op, const struct pshm_name *path)
{
    if (op == NULL) {
        return;
    }
    DeleteObject *d = as_duty(op);
    fields_lock(&d->fields);
    d->path[1] = *path;
    d->names = 2;
    fields_unlock(&d->fields);
}

void
handle_delete_only(PyObject *op, const struct pshm_name *path)
{
    if (op == NULL) {
        return;
    }
    DeleteObject *d = as_duty(op);
    bool again;
    fields_lock(&d->fields);
    d->path[0] = *path;
    d->names = 1;
    again = d->state == DONE;           /* it may have come too early */
    if (again) {
        d->state = WANTED;
    }
    fields_unlock(&d->fields);
    if (again) {
        duty_do_quietly(op);
    }
}

/* _remove(duty): at the end. */
static PyObject *
core_remove(PyObject *Py_UNUSED(module), PyObject *op)
{
    if (!PyCapsule_IsValid(op, CAPSULE)) {
        PyErr_SetString(PyExc_TypeError, "not what is to be removed");
        return NULL;
    }
    duty_do_quietly(op);
    Py_RETURN_NONE;
}

/* _leave(handle): at the end of the process, for delete="last". */
static PyObject *
core_leave(PyObject *module, PyObject *op)
{
    struct fdref *fd = NULL;
    MemoryMapObject *map = NULL;
    if (!PyObject_TypeCheck(op, core_state_of_module(module)->handle_type)) {
        PyErr_SetString(PyExc_TypeError, "not a SharedMemory");
        return NULL;
    }
    SharedMemoryObject *self = as_handle(op);
    fields_lock(&self->fields);
    if (self->open && self->state.fd != NULL) {
        fd = fdref_take(self->state.fd);
        map = (MemoryMapObject *)Py_NewRef(self->state.map);
    }
    fields_unlock(&self->fields);
    if (fd != NULL && map->last != NULL && fdref_check(fd) == 0) {
        last_leave(map->last, fd->fd, fdref_is_private(fd));
    }
    fdref_drop(fd);
    Py_XDECREF(map);
    Py_RETURN_NONE;
}

/* _set_support(module): posixshm._support, which must be importable by name
 * from Python for tools that look for imports. */
static PyObject *
core_set_support(PyObject *module, PyObject *support)
{
    core_state *state = core_state_of_module(module);
    Py_XSETREF(state->support, Py_NewRef(support));
    Py_RETURN_NONE;
}

PyMethodDef delete_methods[] = {
    {"_set_support", core_set_support, METH_O, NULL},
    {"_remove", core_remove, METH_O, NULL},
    {"_leave", core_leave, METH_O, NULL},
    {0},
};
