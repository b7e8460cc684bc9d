/* delete=True: a finalizer that removes a name, and the resource tracker.
 *
 * The handle and posixshm._support, which runs it at the end of the process,
 * each have a reference to the finalizer, a capsule. It runs once, and never
 * in a forked child. */
#include "core/memory/handle.h"

#include "core/audit.h"
#include "core/memory/last.h"

#include "posix/host.h"
#include "posix/object/link.h"

#define CAPSULE "posixshm.delete"

typedef struct {
    fields_mutex fields;
    enum { PENDING, DONE, CANCELLED } state;
    unsigned forks;                     /* of the process: pshm_forks */
    bool track;                         /* with the resource tracker */
    PyObject *support;                  /* posixshm._support */
    struct pshm_identity id;
    int names;                          /* 2 during a rename */
    struct pshm_name path[2];
} finalizer;

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

static finalizer *
finalizer_of(PyObject *op)
{
    return PyCapsule_GetPointer(op, CAPSULE);
}

static void
finalizer_free(PyObject *op)
{
    finalizer *d = finalizer_of(op);
    Py_DECREF(d->support);
    PyMem_Free(d);
}

static PyObject *
finalizer_new(PyObject *support, const struct pshm_name *path,
              struct pshm_identity id, bool track)
{
    finalizer *d = PyMem_Calloc(1, sizeof(*d));
    if (d == NULL) {
        return PyErr_NoMemory();
    }
    d->forks = pshm_forks();
    d->track = track;
    d->support = Py_NewRef(support);
    d->id = id;
    d->names = 1;
    d->path[0] = *path;
    PyObject *op = PyCapsule_New(d, CAPSULE, finalizer_free);
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

/* The names that this process must remove now. */
static int
names_to_remove_locked(const finalizer *d, struct pshm_name path[2])
{
    if (d->state != PENDING || d->forks != pshm_forks()) {
        return 0;
    }
    path[0] = d->path[0];
    path[1] = d->path[1];
    return d->names;
}

/* Returns 0, or -1 with the exception of a hook. */
static int
finalizer_audit(PyObject *op)
{
    finalizer *d = finalizer_of(op);
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

/* Returns 0, or -1 if a signal handler raised. */
static int
finalizer_run(PyObject *op)
{
    finalizer *d = finalizer_of(op);
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
finalizer_run_quietly(PyObject *op)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (finalizer_audit(op) < 0) {
        PyErr_WriteUnraisable(finalizer_of(op)->support);
    }
    else if (finalizer_run(op) < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

PyObject *
handle_delete_later(core_state *state, PyObject *self,
                    const struct pshm_name *path, struct pshm_identity id,
                    bool track)
{
    PyObject *op = finalizer_new(state->support, path, id, track);
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
    PyObject *op = Py_XNewRef(self->state.finalizer);
    fields_unlock(&self->fields);
    int rc = op == NULL ? 0 : finalizer_audit(op);
    Py_XDECREF(op);
    return rc;
}

int
handle_delete_now(PyObject *op)
{
    int rc = op == NULL ? 0 : finalizer_run(op);
    Py_XDECREF(op);
    return rc;
}

void
handle_delete_last(PyObject *op)
{
    finalizer_run_quietly(op);
    Py_DECREF(op);
}

void
handle_delete_cancel(PyObject *op)
{
    if (op == NULL) {
        return;
    }
    finalizer *d = finalizer_of(op);
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
    finalizer *d = finalizer_of(op);
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
    finalizer *d = finalizer_of(op);
    bool again;
    fields_lock(&d->fields);
    d->path[0] = *path;
    d->names = 1;
    again = d->state == DONE;           /* it may have run before the rename */
    if (again) {
        d->state = PENDING;
    }
    fields_unlock(&d->fields);
    if (again) {
        finalizer_run_quietly(op);
    }
}

/* _remove(finalizer): run it, when the handle or the process ends. */
static PyObject *
core_remove(PyObject *Py_UNUSED(module), PyObject *op)
{
    if (!PyCapsule_IsValid(op, CAPSULE)) {
        PyErr_SetString(PyExc_TypeError, "_remove takes a finalizer");
        return NULL;
    }
    finalizer_run_quietly(op);
    Py_RETURN_NONE;
}

/* _leave(handle): delete="last", at the end of the process. */
static PyObject *
core_leave(PyObject *module, PyObject *op)
{
    enum { NEEDS = HANDLE_FD | HANDLE_MAP };
    handle_state now;
    if (!PyObject_TypeCheck(op, core_state_of_module(module)->handle_type)) {
        PyErr_SetString(PyExc_TypeError, "_leave takes a SharedMemory");
        return NULL;
    }
    if (handle_acquire(as_handle(op), NEEDS, &now) < 0) {
        PyErr_Clear();                  /* closed, or without a descriptor */
        Py_RETURN_NONE;
    }
    if (now.map->last != NULL) {
        last_leave(now.map->last, now.fd->fd, fdref_is_private(now.fd));
    }
    handle_release(as_handle(op), NEEDS, &now);
    Py_RETURN_NONE;
}

/* _set_support(module): set posixshm._support, which Python code imports, so
 * that tools that search for imports find it. */
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
