/* Access control lists.  posixshm._acl, which posixshm._support calls, makes
 * lists from text and text from lists. */
#include "core/memory/handle_make.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/acl.h"

/* The list that text makes of an object with that mode and that list, bytes
 * that are empty if it has a mode only; and what it makes of the mode.
 * Returns new bytes, or NULL with an exception. */
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
request_set_acl(create_params *req, core_state *state, PyObject *text)
{
    if (text == NULL || text == Py_None) {
        return 0;
    }
    PyObject *none = PyBytes_FromStringAndSize(NULL, 0);
    req->acl = none == NULL ? NULL
                            : encode(state, text, &req->spec.mode, none);
    Py_XDECREF(none);
    if (req->acl == NULL) {
        return -1;
    }
    req->spec.acl = PyBytes_AS_STRING(req->acl);
    req->spec.acl_size = (size_t)PyBytes_GET_SIZE(req->acl);
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
                          "The kernel refuses the access control list: it "
                          "names a user or a group whose id is not mapped in "
                          "this user namespace, see user_namespaces(7)");
    }
    else if (rc == -EPERM) {
        raise_errno_words(rc, name,
                          "Only the owner of the object and root may change "
                          "its access control list");
    }
    else {
        raise_errno(rc, name);
    }
}

/* The list of fd's object, bytes that are empty if it has a mode only, with its
 * status.  Returns 0 or -errno; without an exception. */
static int
read_list(int fd, struct pshm_status *status, PyObject **list)
{
    int rc, length;
    *list = PyBytes_FromStringAndSize(NULL, PSHM_ACL_MAX);
    if (*list == NULL) {
        PyErr_Clear();
        return -ENOMEM;
    }
    char *buffer = PyBytes_AS_STRING(*list);
    Py_BEGIN_ALLOW_THREADS
    length = pshm_acl_get(fd, buffer, PSHM_ACL_MAX);
    rc = length < 0 ? length : pshm_status_of(fd, status);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_CLEAR(*list);
    }
    else if (_PyBytes_Resize(list, length) < 0) {
        PyErr_Clear();
        rc = -ENOMEM;
    }
    return rc;
}

/* A reference to the handle's descriptor, and the list as read_list gives it.
 * NULL with an exception. */
static struct fdref *
take_list(SharedMemoryObject *self, core_state *state,
          struct pshm_status *status, PyObject **list)
{
    struct fdref *fd = handle_take_fd(self);
    int rc = fd == NULL ? 0 : read_list(fd->fd, status, list);
    if (rc < 0) {
        PyObject *name = handle_name_object(self);
        handle_raise_acl(state, rc, name, fd->id);
        Py_XDECREF(name);
        fdref_drop(fd);
        return NULL;
    }
    return fd;
}

const char handle_getfacl_doc[] =
    "getfacl($self, /, *, numeric=False)\n--\n\n"
    "The access control list, a str as " MAN(getfacl, 1) " prints it:\n"
    MAN(acl, 5) ".\n\n"
    "One entry a line: 'user:alice:rw-'.  An object without a list has the\n"
    "three entries of its mode.  A comment '#effective:r--' says what the mask\n"
    "leaves of an entry.  numeric: ids, and no names of users and groups.\n\n"
    "Raises ValueError after close() or close_fd(); OSError.";

PyObject *
handle_getfacl(PyObject *op, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {"numeric", NULL};
    static const struct signature signature = {"getfacl", 0, 0, names};
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *values[1], *list;
    struct pshm_status status;
    bool numeric = false;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_bool(values[0], &numeric) < 0) {
        return NULL;
    }
    struct fdref *fd = take_list(as_handle(op), state, &status, &list);
    if (fd == NULL) {
        return NULL;
    }
    fdref_drop(fd);
    PyObject *text = PyObject_CallMethod(state->support, "format_acl", "OIO",
                                         list, (unsigned int)status.mode,
                                         numeric ? Py_True : Py_False);
    Py_DECREF(list);
    return text;
}

const char handle_setfacl_doc[] =
    "setfacl($self, text, /)\n--\n\n"
    "Replace the access control list: " MAN(acl, 5) ", " MAN(setfacl, 1) ".\n\n"
    "text: entries in the form of getfacl(), long or short, separated by line\n"
    "breaks or commas: 'user:alice:rw,g:1000:r'.  If it lacks an entry for the\n"
    "owner (user::), the owning group (group::) or all others (other::), these\n"
    "keep the rights that they have.  The mask, if it is not given, lets all\n"
    "entries have their rights.  None or '' removes the list.  The group bits\n"
    "of .mode are the mask then, and chmod() changes it.\n\n"
    "Raises ValueError for a bad text, and after close() or close_fd();\n"
    "LookupError for an unknown user or group; PermissionError if the process\n"
    "is not the owner; OSError: EOPNOTSUPP (the file system has no lists),\n"
    "EINVAL (an id that this user namespace does not have).";

PyObject *
handle_setfacl(PyObject *op, PyObject *text)
{
    SharedMemoryObject *self = as_handle(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    struct pshm_status status;
    PyObject *current;
    struct fdref *fd = take_list(self, state, &status, &current);
    if (fd == NULL) {
        return NULL;
    }
    mode_t mode = status.mode & 07777;
    PyObject *list = encode(state, text, &mode, current);
    Py_DECREF(current);
    int rc = 0;
    if (list != NULL) {
        const char *bytes = PyBytes_AS_STRING(list);
        size_t size = (size_t)PyBytes_GET_SIZE(list);
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_acl_set(fd->fd, bytes, size, mode);
        Py_END_ALLOW_THREADS
    }
    struct pshm_identity id = fd->id;
    fdref_drop(fd);
    if (rc < 0) {
        PyObject *name = handle_name_object(self);
        handle_raise_acl(state, rc, name, id);
        Py_XDECREF(name);
    }
    bool failed = list == NULL || rc < 0;
    Py_XDECREF(list);
    return failed ? NULL : Py_NewRef(Py_None);
}
