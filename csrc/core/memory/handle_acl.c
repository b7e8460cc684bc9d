/* Access control lists. posixshm._acl, which posixshm._support calls, converts
 * between lists and text. */
#include "core/memory/handle_make.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/acl.h"

/* Convert text to the list of an object that has the mode *mode and the list
 * current, bytes that are empty if it has a mode only; and set *mode to the
 * mode with the new list. Returns new bytes, or NULL. */
static PyObject *
encode(core_state *state, PyObject *text, mode_t *mode, PyObject *current)
{
    PyObject *list = NULL;
    unsigned int number;
    PyObject *result = PyObject_CallMethod(state->support, "encode_acl", "OIO",
                                           text, (unsigned int)*mode, current);
    if (result != NULL && PyArg_ParseTuple(result, "SI", &list, &number)) {
        Py_INCREF(list);
        *mode = (mode_t)number;
    }
    Py_XDECREF(result);
    return list;
}

int
create_params_set_acl(create_params *params, core_state *state, PyObject *text)
{
    if (text == NULL || text == Py_None) {
        return 0;
    }
    PyObject *none = PyBytes_FromStringAndSize(NULL, 0);
    params->acl = none == NULL ? NULL
                            : encode(state, text, &params->spec.mode, none);
    Py_XDECREF(none);
    if (params->acl == NULL) {
        return -1;
    }
    params->spec.acl = PyBytes_AS_STRING(params->acl);
    params->spec.acl_size = (size_t)PyBytes_GET_SIZE(params->acl);
    return 0;
}

void
handle_raise_acl(core_state *state, int rc, PyObject *name,
                 struct pshm_identity id)
{
    if (rc == -EOPNOTSUPP) {
        PyObject *words = PyObject_CallMethod(state->support, "explain_no_acl",
                                              "K",
                                              (unsigned long long)id.dev);
        if (words != NULL) {
            raise_errno_words(rc, name, "%U", words);
            Py_DECREF(words);
        }
    }
    else if (rc == -EINVAL) {
        raise_errno_words(rc, name,
                          "The kernel refuses the access control list: a user "
                          "or group in it has an id that is not mapped in this "
                          "user namespace, see user_namespaces(7)");
    }
    else if (rc == -EPERM) {
        raise_errno_words(rc, name,
                          "Only the owner of the object and root can change "
                          "its access control list");
    }
    else {
        raise_errno(rc, name);
    }
}

/* Read the list of the object, bytes that are empty if it has a mode only, and
 * its status. Returns 0, with a new reference in *list; or -1. */
static int
read_list(core_state *state, const handle_state *now,
          struct pshm_status *status, PyObject **list)
{
    int rc, length;
    *list = PyBytes_FromStringAndSize(NULL, PSHM_ACL_MAX);
    if (*list == NULL) {
        return -1;
    }
    char *buffer = PyBytes_AS_STRING(*list);
    Py_BEGIN_ALLOW_THREADS
    length = pshm_acl_get(now->fd->fd, buffer, PSHM_ACL_MAX);
    rc = length < 0 ? length : pshm_status_of(now->fd->fd, status);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_CLEAR(*list);
        handle_raise_acl(state, rc, now->name, now->id);
        return -1;
    }
    return _PyBytes_Resize(list, length);
}

const char handle_getfacl_doc[] =
    "getfacl($self, /, *, numeric=False)\n--\n\n"
    "Return the access control list as " MAN(getfacl, 1) " prints it:\n"
    MAN(acl, 5) ".\n\n"
    "A str with one entry per line, such as 'user:alice:rw-'. An object\n"
    "without a list has the three entries of its mode. If the mask limits an\n"
    "entry, a comment shows the effective permissions: '#effective:r--'.\n\n"
    "numeric: print ids instead of the names of users and groups.\n\n"
    "Raises ValueError after close() or close_fd(); OSError.";

PyObject *
handle_getfacl(PyObject *op, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {"numeric", NULL};
    static const struct signature signature = {"getfacl", 0, 0, names};
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *values[1], *list, *text = NULL;
    struct pshm_status status;
    bool numeric = false;
    handle_state now;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_bool(values[0], &numeric) < 0
        || handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    if (read_list(state, &now, &status, &list) == 0) {
        text = PyObject_CallMethod(state->support, "format_acl", "OIO", list,
                                   (unsigned int)status.mode,
                                   numeric ? Py_True : Py_False);
        Py_DECREF(list);
    }
    handle_release(as_handle(op), HANDLE_FD, &now);
    return text;
}

const char handle_setfacl_doc[] =
    "setfacl($self, text, /)\n--\n\n"
    "Replace the access control list: " MAN(acl, 5) ", " MAN(setfacl, 1) ".\n\n"
    "text: entries as getfacl() returns them, in the long or the short form,\n"
    "separated by line breaks or commas: 'user:alice:rw,g:1000:r'. The\n"
    "owner, the owning group and all others keep their permissions if text\n"
    "has no entry for them (user::, group::, other::). The default mask does\n"
    "not limit any entry. None or '' removes the list.\n\n"
    "With a list, the group bits of .mode are the mask, and chmod() changes\n"
    "it.\n\n"
    "Raises ValueError for a bad text, and after close() or close_fd();\n"
    "LookupError for an unknown user or group; PermissionError if the\n"
    "process does not own the object; OSError: EOPNOTSUPP (the file system\n"
    "has no access control lists), EINVAL (an id is not mapped in this user\n"
    "namespace).";

PyObject *
handle_setfacl(PyObject *op, PyObject *text)
{
    core_state *state = core_state_of_type(Py_TYPE(op));
    struct pshm_status status;
    PyObject *current, *list = NULL;
    handle_state now;
    int rc = -1;
    if (handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    if (read_list(state, &now, &status, &current) == 0) {
        mode_t mode = status.mode & 07777;
        list = encode(state, text, &mode, current);
        Py_DECREF(current);
        if (list != NULL) {
            const char *bytes = PyBytes_AS_STRING(list);
            size_t size = (size_t)PyBytes_GET_SIZE(list);
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_acl_set(now.fd->fd, bytes, size, mode);
            Py_END_ALLOW_THREADS
            Py_DECREF(list);
            if (rc < 0) {
                handle_raise_acl(state, rc, now.name, now.id);
            }
        }
    }
    handle_release(as_handle(op), HANDLE_FD, &now);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}
