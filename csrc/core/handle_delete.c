/* delete=True: the duty to remove a name when its handle is closed or goes, or
 * at the end of the process that made the object.
 *
 * The handle has it, and so has what is called at the end.  Whoever comes
 * first does it; in a forked child nobody does. */
#include "handle.h"

#include "posix/host.h"
#include "posix/link.h"

#define CAPSULE "posixshm.delete"

/* Among what multiprocessing calls at a worker's end: after the program's own,
 * which may still use the object. */
#define WORKER_END_PRIORITY (-100)

typedef struct {
    fields_mutex fields;
    enum { WANTED, DONE, CANCELLED } state;
    unsigned forks;                     /* the process: pshm_forks */
    bool track;                         /* and tell the resource tracker */
    struct pshm_identity id;
    int names;                          /* two while it is being renamed */
    struct pshm_name path[2];
} duty;

static duty *
as_duty(PyObject *op)
{
    return PyCapsule_GetPointer(op, CAPSULE);
}

static void
duty_free(PyObject *op)
{
    PyMem_Free(as_duty(op));
}

static PyObject *
duty_new(const struct pshm_name *path, struct pshm_identity id, bool track)
{
    duty *d = PyMem_Calloc(1, sizeof(*d));
    if (d == NULL) {
        return PyErr_NoMemory();
    }
    d->forks = pshm_forks();
    d->track = track;
    d->id = id;
    d->names = 1;
    d->path[0] = *path;
    PyObject *op = PyCapsule_New(d, CAPSULE, duty_free);
    if (op == NULL) {
        PyMem_Free(d);
    }
    return op;
}

static int
untrack(const struct pshm_name *path)
{
    PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
    int rc = name == NULL ? -1 : handle_track(name, "unregister");
    Py_XDECREF(name);
    return rc;
}

/* 0, or -1 where a signal handler raised. */
static int
duty_do(PyObject *op)
{
    duty *d = as_duty(op);
    struct pshm_name path[2];
    bool gone[2];
    int names = 0, rc = 0;
    fields_lock(&d->fields);
    if (d->state == WANTED && d->forks == pshm_forks()) {
        d->state = DONE;
        names = d->names;
        path[0] = d->path[0];
        path[1] = d->path[1];
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
        rc = gone[i] ? untrack(&path[i]) : 0;
    }
    return rc;
}

static void
duty_do_quietly(PyObject *op)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (duty_do(op) < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

/* multiprocessing ends the workers that it forks without the interpreter's own
 * end, but not without calling this. */
static int
call_at_worker_end(PyObject *self, PyObject *remove, PyObject *op)
{
    PyObject *modules = PyImport_GetModuleDict();   /* borrowed */
    PyObject *process = PyMapping_GetItemString(modules,
                                                "multiprocessing.process");
    PyObject *util = process == NULL ? NULL : PyMapping_GetItemString(
        modules, "multiprocessing.util");
    PyObject *parent = NULL, *result = NULL;
    int rc = 0;
    if (util == NULL) {
        PyErr_Clear();                  /* not in use, so this is no worker */
    }
    else {
        parent = PyObject_CallMethod(process, "parent_process", NULL);
        rc = parent == NULL ? -1 : 0;
    }
    if (parent != NULL && parent != Py_None) {
        result = PyObject_CallMethod(util, "Finalize", "OO(O)Oi", self, remove,
                                     op, Py_None, WORKER_END_PRIORITY);
        rc = result == NULL ? -1 : 0;
    }
    Py_XDECREF(result);
    Py_XDECREF(parent);
    Py_XDECREF(util);
    Py_XDECREF(process);
    return rc;
}

PyObject *
handle_delete_later(core_state *state, PyObject *self,
                    const struct pshm_name *path, struct pshm_identity id,
                    bool track)
{
    PyObject *op = duty_new(path, id, track);
    PyObject *weakref = op != NULL ? PyImport_ImportModule("weakref") : NULL;
    PyObject *finalizer = NULL;
    if (weakref != NULL) {
        finalizer = PyObject_CallMethod(weakref, "finalize", "OOO", self,
                                        state->remove_function, op);
        Py_DECREF(weakref);
    }
    if (finalizer == NULL
        || call_at_worker_end(self, state->remove_function, op) < 0) {
        handle_delete_cancel(op);
        op = NULL;
    }
    Py_XDECREF(finalizer);              /* the registry has it */
    return op;
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
    duty *d = as_duty(op);
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
    duty *d = as_duty(op);
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
    duty *d = as_duty(op);
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

PyMethodDef delete_methods[] = {
    {"_remove", core_remove, METH_O, NULL},
    {0},
};
