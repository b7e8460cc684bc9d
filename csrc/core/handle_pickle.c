/* Pickling by reference: what travels is which object it is, not its bytes. */
#include "handle.h"

#include <string.h>

#include "args.h"
#include "errors.h"

#include "posix/attach.h"
#include "posix/host.h"
#include "posix/link.h"

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

const char handle_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle the handle by reference.\n\n"
    "The pickle of a named handle has its name, the object's device and\n"
    "inode, and the boot id of this host.  close() does not change that: a\n"
    "closed handle can be pickled too.  Unpickling attaches.  It raises\n"
    "FileNotFoundError if the name is gone; OSError: ESTALE (another object\n"
    "has the name), EREMOTE (another host, or this one was restarted);\n"
    "ValueError if the object has outgrown max_size.\n\n"
    "A handle without a name is pickled only by multiprocessing, which passes\n"
    "its descriptor.  It must be open then.  A multiprocessing.Queue pickles\n"
    "in a thread after put() has returned, so the handle must stay open until\n"
    "the item was received.  Every other pickler raises TypeError.  Without\n"
    "/proc a named handle raises OSError.";

PyObject *
handle_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    handle *self = as_handle(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    char boot[PSHM_BOOT_ID_SIZE];
    PyObject *name = handle_name_object(self);
    if (name == NULL) {
        return handle_check_open(self) < 0
                   ? NULL
                   : PyObject_CallMethod(state->support, "reduce_unnamed",
                                         "O", op);
    }
    int rc = pshm_boot_id(boot);
    if (rc < 0) {
        Py_DECREF(name);
        return raise_no_boot_id(rc);
    }
    PyObject *attributes = PyObject_CallMethod(op, "__getstate__", NULL);
    if (attributes == NULL) {
        Py_DECREF(name);
        return NULL;
    }
    struct pshm_identity id;
    bool readonly, track;
    Py_ssize_t max_size;
    fields_lock(&self->fields);
    id = self->body.id;
    readonly = self->body.readonly;
    track = self->body.track;
    max_size = self->body.max_size;
    fields_unlock(&self->fields);
    /* Of the same length for every object. */
    char object[2 * 16 + 1];
    (void)PyOS_snprintf(object, sizeof(object), "%016llx%016llx",
                        (unsigned long long)id.dev,
                        (unsigned long long)id.ino);
    return Py_BuildValue("O(ONssOOn)N", state->attach_function,
                         (PyObject *)Py_TYPE(op), name, object, boot,
                         readonly ? Py_True : Py_False,
                         track ? Py_True : Py_False, max_size, attributes);
}

/* _attach(type, name, device and inode, boot id, readonly, track, max_size or
 * 0) */
static PyObject *
attach_reference(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *type, *name;
    const char *object, *boot;
    unsigned long long dev, ino;
    int readonly, track;
    Py_ssize_t max_size;
    char here[PSHM_BOOT_ID_SIZE];
    struct pshm_name path;
    if (!PyArg_ParseTuple(args, "O!Ussppn:_attach", &PyType_Type, &type,
                          &name, &object, &boot, &readonly, &track, &max_size)
        || arg_name(name, &path) < 0) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)type, state->handle_type)
        || max_size < 0
        /* So many digits fit. */
        /* NOLINTNEXTLINE(bugprone-unchecked-string-to-number-conversion) */
        || sscanf(object, "%16llx%16llx", &dev, &ino) != 2) {
        PyErr_SetString(PyExc_TypeError, "not a pickle of shared memory");
        return NULL;
    }
    int rc = pshm_boot_id(here);
    if (rc < 0) {
        return raise_no_boot_id(rc);
    }
    if (strcmp(boot, here) != 0) {
        return raise_errno_words(-EREMOTE, name,
                                 "The shared memory is on another host, or "
                                 "was there before this one was restarted");
    }
    handle *self = handle_alloc(state, type);
    if (self == NULL) {
        return NULL;
    }
    const attach_params params = {
        .readonly = readonly,
        .max_size = max_size,
        .owners = PSHM_OWNERS_ANY,      /* it is this object, whose ever */
    };
    handle_body body;
    struct pshm_object found;
    do {
        rc = handle_attach(state, &path, &params, &body, &found);
    } while (try_again(rc));
    struct pshm_identity id = {(dev_t)dev, (ino_t)ino};
    if (rc == -ERANGE && pshm_link_holds(&path, id) != 1) {
        rc = -ESTALE;
    }
    else if (rc == 0 && !pshm_identity_same(body.id, id)) {
        handle_body_drop(&body);
        rc = -ESTALE;
    }
    if (rc < 0) {
        Py_DECREF(self);
        return rc != -ESTALE
                   ? handle_raise_attach(rc, name, &params, &found)
                   : raise_errno_words(rc, name,
                                       "The shared memory is gone: another "
                                       "object has its name now");
    }
    body.name = Py_NewRef(name);
    body.track = track;
    PyObject *duty;
    if (handle_install(self, &body, &duty) < 0) {
        Py_CLEAR(self);
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
