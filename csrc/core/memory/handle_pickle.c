/* Pickling by reference: what travels is which object it is, not its bytes. */
#include "core/memory/handle.h"

#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/memory/handle_table.h"

#include "posix/object/attach.h"
#include "posix/host.h"
#include "posix/object/link.h"

static PyObject *
raise_no_boot_id(int rc)
{
    PyObject *path = PyUnicode_FromString(PSHM_BOOT_ID);
    if (path != NULL) {
        raise_errno_words(rc, path,
                          "Which host this is cannot be told, as a pickle of "
                          "shared memory needs it (is /proc mounted?)");
        Py_DECREF(path);
    }
    return NULL;
}

/* A new reference, or NULL with an exception. */
static PyObject *
boot_id(core_state *state)
{
    char text[PSHM_BOOT_ID_SIZE];
    fields_lock(&state->fields);
    PyObject *id = Py_XNewRef(state->boot_id);
    fields_unlock(&state->fields);
    if (id != NULL) {
        return id;
    }
    int rc = pshm_boot_id(text);
    if (rc < 0) {
        return raise_no_boot_id(rc);
    }
    id = PyUnicode_FromString(text);
    PyObject *old = NULL;
    if (id != NULL) {
        fields_lock(&state->fields);
        old = state->boot_id;
        state->boot_id = Py_NewRef(id);
        fields_unlock(&state->fields);
        Py_XDECREF(old);
    }
    return id;
}

/* Device and inode, in hexadecimal: of the same length for every object. */
#define DIGITS 16

static void
write_number(char *text, uint64_t number)
{
    for (int i = DIGITS - 1; i >= 0; i--, number /= 16) {
        text[i] = "0123456789abcdef"[number % 16];
    }
}

static bool
read_number(const char *text, uint64_t *number)
{
    *number = 0;
    for (int i = 0; i < DIGITS; i++) {
        char c = text[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) {
            return false;
        }
        *number = *number * 16 + (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

const char handle_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle the handle by reference.\n\n"
    "The pickle of a named handle has its name, the object's device and\n"
    "inode, and the boot id of this host.  close() does not change that: a\n"
    "closed handle can be pickled too.  Unpickling attaches.  It raises\n"
    "FileNotFoundError if the name is gone; OSError: ESTALE (another object\n"
    "has the name), EREMOTE (another host, or this one was restarted);\n"
    "ValueError if the object has outgrown max_size.\n\n"
    "A process that has the object already, by a handle of the same access\n"
    "that was pickled or unpickled in it, does not map it again: the new\n"
    "handle shares that descriptor and that memory, until the last of them is\n"
    "closed.\n\n"
    "A handle without a name is pickled only by multiprocessing, which passes\n"
    "its descriptor.  It must be open then.  A multiprocessing.Queue pickles\n"
    "in a thread after put() has returned, so the handle must stay open until\n"
    "the item was received.  Every other pickler raises TypeError.  Without\n"
    "/proc a named handle raises OSError.";

PyObject *
handle_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *name = handle_name_object(self);
    if (name == NULL) {
        if (handle_check_open(self) < 0) {
            PyErr_SetString(PyExc_ValueError,
                            "this shared memory has no name and is closed: "
                            "only its descriptor could be passed; a "
                            "multiprocessing.Queue does that after put() has "
                            "returned, so close it when the item was "
                            "received");
            return NULL;
        }
        return PyObject_CallMethod(state->support, "reduce_unnamed", "O", op);
    }
    PyObject *boot = boot_id(state), *attributes = NULL;
    if (boot != NULL) {
        attributes = PyObject_CallMethod(op, "__getstate__", NULL);
    }
    if (attributes == NULL) {
        Py_XDECREF(boot);
        Py_DECREF(name);
        return NULL;
    }
    handle_table_add(state->known_handles, self);
    struct pshm_identity id;
    bool readonly, track;
    Py_ssize_t max_size;
    fields_lock(&self->fields);
    id = self->state.id;
    readonly = self->state.readonly;
    track = self->state.track;
    max_size = self->state.max_size;
    fields_unlock(&self->fields);
    char object[2 * DIGITS + 1] = {0};
    write_number(object, (uint64_t)id.dev);
    write_number(object + DIGITS, (uint64_t)id.ino);
    return Py_BuildValue("O(ONsNOOn)N", state->attach_function,
                         (PyObject *)Py_TYPE(op), name, object, boot,
                         readonly ? Py_True : Py_False,
                         track ? Py_True : Py_False, max_size, attributes);
}

/* Fill body from a handle that this process has of that object, if there is
 * one, and the name still leads to the object.  Returns whether it did. */
static bool
attach_known(core_state *state, const struct pshm_name *path,
             struct pshm_identity id, bool readonly, handle_state *body)
{
    struct pshm_status named, opened;
    int rc;
    *body = HANDLE_STATE_NONE;
    if (!handle_table_take(state->known_handles, id, readonly, body)) {
        return false;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_status_of_name(path, &named);
    if (rc == 0) {
        /* Somebody may have closed it, and another file has the number. */
        rc = pshm_status_of(body->fd->fd, &opened);
    }
    Py_END_ALLOW_THREADS
    if (rc < 0 || !pshm_identity_same(named.id, id)
        || !pshm_identity_same(opened.id, id)
        || named.size != mapping_size(body->map)) {
        handle_state_clear(body);
        return false;
    }
    body->path = *path;
    body->id = id;
    body->readonly = readonly;
    return true;
}

/* The same of an object that is not known.  Returns 0 or -1. */
static int
attach_named(core_state *state, PyObject *name, const struct pshm_name *path,
             struct pshm_identity id, const attach_params *params,
             handle_state *body)
{
    struct pshm_object found;
    int rc;
    do {
        rc = handle_attach(state, path, params, body, &found);
    } while (try_again(rc));
    if (rc == -ERANGE && pshm_link_holds(path, id) != 1) {
        rc = -ESTALE;
    }
    else if (rc == 0 && !pshm_identity_same(body->id, id)) {
        handle_state_clear(body);
        rc = -ESTALE;
    }
    if (rc == -ESTALE) {
        raise_errno_words(rc, name,
                          "The shared memory is gone: another object has its "
                          "name now");
    }
    else if (rc < 0) {
        handle_raise_attach(rc, name, params, &found);
    }
    return rc < 0 ? -1 : 0;
}

/* Is the pickle from this run of this host?  0, or -1 with an exception. */
static int
check_host(core_state *state, PyObject *name, PyObject *boot)
{
    PyObject *here = boot_id(state);
    if (here == NULL) {
        return -1;
    }
    int same = PyUnicode_Compare(boot, here) == 0;
    Py_DECREF(here);
    if (!same) {
        raise_errno_words(-EREMOTE, name,
                          "The shared memory is on another host, or was there "
                          "before this one was restarted");
    }
    return same ? 0 : -1;
}

/* _attach(type, name, device and inode, boot id, readonly, track, max_size or
 * 0) */
static PyObject *
attach_reference(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *type, *name, *boot;
    const char *object;
    uint64_t dev, ino;
    int readonly, track;
    attach_params params = {
        .accepted = PSHM_ACCEPT_ANY,    /* it is this object, whose ever */
    };
    struct pshm_name path;
    if (!PyArg_ParseTuple(args, "O!UsUppn:_attach", &PyType_Type, &type,
                          &name, &object, &boot, &readonly, &track,
                          &params.max_size)
        || arg_name(name, &path) < 0) {
        return NULL;
    }
    params.readonly = readonly;
    if (!PyType_IsSubtype((PyTypeObject *)type, state->handle_type)
        || params.max_size < 0 || !read_number(object, &dev)
        || !read_number(object + DIGITS, &ino)) {
        PyErr_SetString(PyExc_TypeError, "not a pickle of shared memory");
        return NULL;
    }
    struct pshm_identity id = {(dev_t)dev, (ino_t)ino};
    if (check_host(state, name, boot) < 0
        || audit_open(&path, params.readonly) < 0) {
        return NULL;
    }
    SharedMemoryObject *self = handle_alloc(state, type);
    handle_state body;
    if (self == NULL) {
        return NULL;
    }
    bool known = params.max_size == 0
                 && attach_known(state, &path, id, readonly, &body);
    if (!known
        && attach_named(state, name, &path, id, &params, &body) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    body.name = Py_NewRef(name);
    body.track = track;
    PyObject *duty;
    if (handle_install(self, &body, &duty) < 0) {
        Py_CLEAR(self);
    }
    else {
        handle_table_add(state->known_handles, self);
    }
    return (PyObject *)self;
}

int
handle_register(core_state *state)
{
    fields_lock(&state->fields);
    bool registered = state->registered;
    fields_unlock(&state->fields);
    if (registered
        || !PyMapping_HasKeyString(PyImport_GetModuleDict(),
                                   "multiprocessing.reduction")) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(state->support, "register", NULL);
    if (result == NULL) {
        /* Making a handle does not need it: a daemon that has changed its user
         * may not be able to read the package any more. */
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(result);
    fields_lock(&state->fields);
    state->registered = true;
    fields_unlock(&state->fields);
    return 0;
}

PyMethodDef pickle_methods[] = {
    {"_attach", attach_reference, METH_VARARGS, NULL},
    {0},
};
