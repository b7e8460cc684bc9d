/* Pickling by reference: a pickle identifies the object, without its bytes.
 * posixshm._support determines what it consists of. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/memory/handle_table.h"

#include "posix/object/attach.h"
#include "posix/object/link.h"

const char handle_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle the handle by reference.\n\n"
    "The pickle of a handle with a name contains the name, the device and\n"
    "inode number of the object, and the boot id of the host. A closed\n"
    "handle can be pickled, too. Unpickling attaches to the object. It\n"
    "raises FileNotFoundError if the name does not exist; OSError: ESTALE\n"
    "(the name refers to another object), EREMOTE (another host, or the host\n"
    "was restarted); ValueError if the object has outgrown max_size.\n\n"
    "If a handle of the same object and access was pickled or unpickled in\n"
    "this process, the new handle shares its descriptor and memory, until\n"
    "the last of them is closed.\n\n"
    "A handle without a name must be open, and only multiprocessing pickles\n"
    "it, which passes the descriptor. A multiprocessing.Queue pickles in a\n"
    "thread after put() has returned, so keep the handle open until the item\n"
    "was received. Every other pickler raises TypeError. Without /proc, a\n"
    "handle with a name raises OSError.";

PyObject *
handle_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    handle_state now;
    (void)handle_acquire(self, 0, &now);
    if (now.name != NULL) {
        handle_table_add(state->known_handles, self);
    }
    PyObject *result = PyObject_CallMethod(
        state->support, "reduce", "OOKKOOn", op,
        now.name != NULL ? now.name : Py_None, (unsigned long long)now.id.dev,
        (unsigned long long)now.id.ino, now.readonly ? Py_True : Py_False,
        now.track ? Py_True : Py_False, now.max_size);
    handle_release(self, 0, &now);
    return result;
}

/* Fill *out from a handle of this process that has the object, if there is one
 * and the name still refers to the object. Returns whether it did. */
static bool
attach_known(core_state *state, PyObject *name, const struct pshm_name *path,
             struct pshm_identity id, bool readonly, handle_state *out)
{
    struct pshm_status named = {0}, opened = {0};
    int rc;
    *out = HANDLE_STATE_NONE;
    if (!handle_table_take(state->known_handles, id, readonly, out)) {
        return false;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_status_of_name(path, &named);
    if (rc == 0) {
        /* Other code may have closed it, and the number is another file's. */
        rc = pshm_status_of(out->fd->fd, &opened);
    }
    Py_END_ALLOW_THREADS
    out->name = handle_name_of(path, name);
    if (out->name == NULL || rc < 0 || !pshm_identity_same(named.id, id)
        || !pshm_identity_same(opened.id, id)
        || named.size != mapping_size(out->map)) {
        PyErr_Clear();
        handle_state_clear(out);
        return false;
    }
    out->id = id;
    out->readonly = readonly;
    return true;
}

/* Attach to the object by its name. Returns 0 or -1. */
static int
attach_named(core_state *state, PyObject *name, const struct pshm_name *path,
             struct pshm_identity id, const attach_params *params,
             handle_state *out)
{
    struct pshm_object found;
    int rc = handle_attach(state, name, path, -1, params, out, &found);
    if (rc == -ERANGE && pshm_link_holds(path, id) != 1) {
        rc = -ESTALE;
    }
    else if (rc == 0 && !pshm_identity_same(out->id, id)) {
        handle_state_clear(out);
        rc = -ESTALE;
    }
    if (rc == -ESTALE) {
        raise_errno_words(rc, name,
                          "The shared memory does not have its name any more, "
                          "which refers to another object");
    }
    else if (rc < 0) {
        handle_raise_attach(rc, name, params, &found);
    }
    return rc < 0 ? -1 : 0;
}

/* _attach(type, name, device, inode, readonly, track, max_size or 0): a new
 * handle, for posixshm._support. */
static PyObject *
attach_reference(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *type, *name;
    unsigned long long dev, ino;
    int readonly, track;
    attach_params params = {
        .accepted = PSHM_ACCEPT_ANY,    /* the identity is checked */
    };
    struct pshm_name path;
    if (!PyArg_ParseTuple(args, "O!UKKppn:_attach", &PyType_Type, &type, &name,
                          &dev, &ino, &readonly, &track, &params.max_size)
        || arg_name(name, &path) < 0) {
        return NULL;
    }
    params.readonly = readonly;
    if (!PyType_IsSubtype((PyTypeObject *)type, state->handle_type)
        || params.max_size < 0) {
        PyErr_SetString(PyExc_TypeError,
                        "the arguments are not those of a pickle of shared "
                        "memory");
        return NULL;
    }
    struct pshm_identity id = {(dev_t)dev, (ino_t)ino};
    if (audit_open(&path, params.readonly) < 0) {
        return NULL;
    }
    SharedMemoryObject *self = handle_alloc(state, type);
    handle_state attached;
    if (self == NULL) {
        return NULL;
    }
    bool known = params.max_size == 0
                 && attach_known(state, name, &path, id, readonly,
                                 &attached);
    if (!known
        && attach_named(state, name, &path, id, &params, &attached) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    attached.track = track;
    PyObject *result = handle_finish(self, &attached);
    if (result != NULL) {
        handle_table_add(state->known_handles, self);
    }
    return result;
}

int
handle_register(core_state *state)
{
    fields_lock(&state->fields);
    bool registered = state->registered;
    fields_unlock(&state->fields);
    int imported = registered ? 0
                              : PyDict_Contains(PyImport_GetModuleDict(),
                                                state->reduction_name);
    if (imported <= 0) {
        return imported;
    }
    PyObject *result = PyObject_CallMethod(state->support, "register", NULL);
    if (result == NULL) {
        /* A daemon that has changed its user may not be able to read the
         * package any more, and a handle is made without it. */
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
