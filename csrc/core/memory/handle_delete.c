/* delete=True: a finalizer that removes a name, and the resource tracker.
 *
 * A finalizer belongs to a handle, and is in the list of its interpreter, from
 * which posixshm._support runs it at the end of the process. It runs once, and
 * never in a forked child. */
#include "core/memory/handle.h"

#include "core/audit.h"
#include "core/memory/last.h"

#include "posix/host.h"
#include "posix/object/link.h"

struct finalizer {
    fields_mutex fields;
    atomic_int users;                   /* the handle, and calls that use it */
    enum { PENDING, DONE, CANCELLED } status;
    unsigned forks;                     /* of the process: pshm_forks */
    bool track;                         /* with the resource tracker */
    int names;                          /* 2 during a rename */
    PyObject *name[2];
    struct pshm_identity id;
    core_state *state;                  /* exists as long as the handle */
    /* Under the lock of the state's fields; link is NULL if it is not in the
     * list. */
    struct finalizer *next, **link;
};

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
    PyObject *error = core_take_error();
    if (handle_track(support, name, "unregister") < 0) {
        PyErr_Clear();
    }
    core_set_error(error);
}

/* ---- The list ---- */

static void
list_add(struct finalizer *f)
{
    fields_lock(&f->state->fields);
    f->next = f->state->finalizers;
    f->link = &f->state->finalizers;
    if (f->next != NULL) {
        f->next->link = &f->next;
    }
    f->state->finalizers = f;
    fields_unlock(&f->state->fields);
}

static void
list_remove_locked(struct finalizer *f)
{
    if (f->link != NULL) {
        *f->link = f->next;
        if (f->next != NULL) {
            f->next->link = f->link;
        }
        f->link = NULL;
    }
}

/* ---- The finalizer ---- */

static void
finalizer_drop(struct finalizer *f)
{
    if (atomic_fetch_sub_explicit(&f->users, 1, memory_order_acq_rel) == 1) {
        Py_XDECREF(f->name[0]);
        Py_XDECREF(f->name[1]);
        PyMem_Free(f);
    }
}

/* The handle does not have it any more. */
static void
finalizer_end(struct finalizer *f)
{
    fields_lock(&f->state->fields);
    list_remove_locked(f);
    fields_unlock(&f->state->fields);
    finalizer_drop(f);
}

/* The names that this process must remove now: new references. */
static int
names_to_remove(struct finalizer *f, PyObject *name[2], bool done)
{
    fields_lock(&f->fields);
    bool pending = f->status == PENDING && f->forks == pshm_forks();
    int names = pending ? f->names : 0;
    for (int i = 0; i < names; i++) {
        name[i] = Py_NewRef(f->name[i]);
    }
    if (pending && done) {
        f->status = DONE;
    }
    fields_unlock(&f->fields);
    return names;
}

/* Returns 0, or -1 with the exception of a hook. */
static int
finalizer_audit(struct finalizer *f)
{
    PyObject *name[2];
    int rc = 0, names = names_to_remove(f, name, false);
    for (int i = 0; i < names; i++) {
        struct pshm_name path = handle_path(name[i]);
        rc = rc == 0 ? audit_unlink(&path) : rc;
        Py_DECREF(name[i]);
    }
    return rc;
}

/* Returns 0, or -1 if a signal handler raised. */
static int
finalizer_run(struct finalizer *f)
{
    PyObject *name[2];
    int rc = 0, names = names_to_remove(f, name, true);
    for (int i = 0; i < names; i++) {
        struct pshm_name path = handle_path(name[i]);
        int removed;
        Py_BEGIN_ALLOW_THREADS
        removed = pshm_link_remove(&path, f->id);
        Py_END_ALLOW_THREADS
        if (rc == 0 && f->track && (removed == 0 || removed == -ENOENT)) {
            rc = handle_track(f->state->support, name[i], "unregister");
        }
        Py_DECREF(name[i]);
    }
    return rc;
}

static void
finalizer_run_quietly(struct finalizer *f)
{
    PyObject *error = core_take_error();
    if (finalizer_audit(f) < 0) {
        PyErr_WriteUnraisable(f->state->support);
    }
    else if (finalizer_run(f) < 0) {
        PyErr_Clear();
    }
    core_set_error(error);
}

/* Have _remove_all called at the end of this process. */
static int
prepare_end(core_state *state)
{
    const unsigned process = pshm_forks() + 1;
    fields_lock(&state->fields);
    bool prepared = state->finalizers_in == process;
    fields_unlock(&state->fields);
    if (prepared) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(state->support, "delete_at_end",
                                           NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    fields_lock(&state->fields);
    state->finalizers_in = process;
    fields_unlock(&state->fields);
    return 0;
}

struct finalizer *
handle_delete_later(core_state *state, PyObject *name,
                    struct pshm_identity id, bool track)
{
    if (prepare_end(state) < 0) {
        return NULL;
    }
    struct finalizer *f = PyMem_Calloc(1, sizeof(*f));
    if (f == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    atomic_init(&f->users, 1);
    f->forks = pshm_forks();
    f->track = track;
    f->id = id;
    f->names = 1;
    f->name[0] = Py_NewRef(name);
    f->state = state;
    list_add(f);
    return f;
}

struct finalizer *
handle_take_finalizer(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    struct finalizer *f = self->state.finalizer;
    if (f != NULL) {
        atomic_fetch_add_explicit(&f->users, 1, memory_order_relaxed);
    }
    fields_unlock(&self->fields);
    return f;
}

void
handle_drop_finalizer(struct finalizer *f)
{
    if (f != NULL) {
        finalizer_drop(f);
    }
}

int
handle_delete_audit(SharedMemoryObject *self)
{
    struct finalizer *f = handle_take_finalizer(self);
    int rc = f == NULL ? 0 : finalizer_audit(f);
    handle_drop_finalizer(f);
    return rc;
}

int
handle_delete_now(struct finalizer *f)
{
    if (f == NULL) {
        return 0;
    }
    int rc = finalizer_run(f);
    finalizer_end(f);
    return rc;
}

void
handle_delete_last(struct finalizer *f)
{
    if (f != NULL) {
        finalizer_run_quietly(f);
        finalizer_end(f);
    }
}

void
handle_delete_cancel(struct finalizer *f)
{
    if (f != NULL) {
        fields_lock(&f->fields);
        f->status = CANCELLED;
        fields_unlock(&f->fields);
        finalizer_end(f);
    }
}

void
handle_delete_also(struct finalizer *f, PyObject *name)
{
    if (f != NULL) {
        fields_lock(&f->fields);
        PyObject *old = f->name[1];
        f->name[1] = Py_NewRef(name);
        f->names = 2;
        fields_unlock(&f->fields);
        Py_XDECREF(old);
    }
}

void
handle_delete_only(struct finalizer *f, PyObject *name)
{
    if (f == NULL) {
        return;
    }
    fields_lock(&f->fields);
    PyObject *old = f->name[0];
    f->name[0] = Py_NewRef(name);
    f->names = 1;
    bool again = f->status == DONE;     /* it may have run before the rename */
    if (again) {
        f->status = PENDING;
    }
    fields_unlock(&f->fields);
    Py_DECREF(old);
    if (again) {
        finalizer_run_quietly(f);
    }
}

/* _remove_all(): run all finalizers, the newest first, when the process ends.
 * Threads may add and remove some meanwhile. */
static PyObject *
core_remove_all(PyObject *module, PyObject *Py_UNUSED(unused))
{
    core_state *state = core_state_of_module(module);
    for (;;) {
        fields_lock(&state->fields);
        struct finalizer *f = state->finalizers;
        if (f != NULL) {
            list_remove_locked(f);
            atomic_fetch_add_explicit(&f->users, 1, memory_order_relaxed);
        }
        fields_unlock(&state->fields);
        if (f == NULL) {
            Py_RETURN_NONE;
        }
        finalizer_run_quietly(f);
        finalizer_drop(f);
    }
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
    {"_remove_all", core_remove_all, METH_NOARGS, NULL},
    {"_leave", core_leave, METH_O, NULL},
    {0},
};
