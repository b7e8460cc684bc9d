/* What the kernel knows of a handle's object: owner, mode, seals. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/attach.h"
#include "posix/constants.h"
#include "posix/object/new_object.h"

static PyObject *
raise_with_name(SharedMemoryObject *self, int rc)
{
    PyObject *name = handle_name_object(self);
    raise_errno(rc, name);
    Py_XDECREF(name);
    return NULL;
}

const char handle_stat_doc[] =
    "stat($self, /)\n--\n\n"
    "The object's status, an os.stat_result: " MAN(fstat, 2) ".\n\n"
    "Raises ValueError after close() or close_fd().";

PyObject *
handle_stat(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct fdref *fd = handle_take_fd(as_handle(op));
    if (fd == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *os = PyImport_ImportModule("os");
    if (os != NULL) {
        result = PyObject_CallMethod(os, "fstat", "i", fd->fd);
        Py_DECREF(os);
    }
    fdref_drop(fd);
    return result;
}

static int
take_status(PyObject *op, struct pshm_status *status)
{
    SharedMemoryObject *self = as_handle(op);
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return -1;
    }
    int rc = pshm_status_of(fd->fd, status);
    fdref_drop(fd);
    if (rc < 0) {
        raise_with_name(self, rc);
    }
    return rc;
}

const char handle_get_mode_doc[] =
    "The permissions of now, an int, as chmod() takes them.  Raises\n"
    "ValueError after close() or close_fd().";

PyObject *
handle_get_mode(PyObject *op, void *Py_UNUSED(closure))
{
    struct pshm_status status;
    return take_status(op, &status) < 0
               ? NULL : PyLong_FromLong((long)(status.mode & 07777));
}

const char handle_get_uid_doc[] =
    "The owner's user id of now.  Raises ValueError after close() or\n"
    "close_fd().";

PyObject *
handle_get_uid(PyObject *op, void *Py_UNUSED(closure))
{
    struct pshm_status status;
    return take_status(op, &status) < 0
               ? NULL : PyLong_FromUnsignedLong(status.uid);
}

const char handle_get_gid_doc[] =
    "The owner's group id of now.  Raises ValueError after close() or\n"
    "close_fd().";

PyObject *
handle_get_gid(PyObject *op, void *Py_UNUSED(closure))
{
    struct pshm_status status;
    return take_status(op, &status) < 0
               ? NULL : PyLong_FromUnsignedLong(status.gid);
}

const char handle_chmod_doc[] =
    "chmod($self, mode, /)\n--\n\n"
    "Set the permissions: " MAN(fchmod, 2) ".  mode: an int, 0 to 0o7777.\n\n"
    "Raises PermissionError; ValueError after close() or close_fd().";

PyObject *
handle_chmod(PyObject *op, PyObject *value)
{
    SharedMemoryObject *self = as_handle(op);
    mode_t mode;
    if (arg_mode(value, &mode) < 0) {
        return NULL;
    }
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_set_mode(fd->fd, mode);
    Py_END_ALLOW_THREADS
    fdref_drop(fd);
    return rc < 0 ? raise_with_name(self, rc) : Py_NewRef(Py_None);
}

const char handle_chown_doc[] =
    "chown($self, /, uid=-1, gid=-1)\n--\n\n"
    "Set the owner: " MAN(fchown, 2) ".  -1: leave it as it is.\n\n"
    "Raises PermissionError; ValueError after close() or close_fd().";

PyObject *
handle_chown(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"uid", "gid", NULL};
    static const struct signature signature = {"chown", 2, 0, names};
    SharedMemoryObject *self = as_handle(op);
    PyObject *values[2];
    uint32_t uid = (uint32_t)-1, gid = (uint32_t)-1;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_id(values[0], "uid", &uid) < 0
        || arg_id(values[1], "gid", &gid) < 0) {
        return NULL;
    }
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_set_owner(fd->fd, (uid_t)uid, (gid_t)gid);
    Py_END_ALLOW_THREADS
    fdref_drop(fd);
    return rc < 0 ? raise_with_name(self, rc) : Py_NewRef(Py_None);
}

const char handle_get_seals_doc[] =
    "What the object is sealed against, F_SEAL_ constants: " MAN(fcntl, 2) ".\n"
    "Only anonymous objects can be sealed.  Raises ValueError after close()\n"
    "or close_fd(); OSError (EINVAL) where there are no seals.";

PyObject *
handle_get_seals(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    int seals = pshm_seals_of(fd->fd);
    fdref_drop(fd);
    return seals < 0 ? raise_with_name(self, seals) : PyLong_FromLong(seals);
}

const char handle_add_seals_doc[] =
    "add_seals($self, seals, /)\n--\n\n"
    "Seal the object for ever, against what the F_SEAL_ constants say:\n"
    MAN(fcntl, 2) ".\n\n"
    "Raises BufferError for F_SEAL_WRITE while it is mapped writable, which\n"
    "it is by the handle that made it (F_SEAL_FUTURE_WRITE leaves that one);\n"
    "PermissionError where it is sealed against seals, as named objects are;\n"
    "ValueError after close() or close_fd().";

PyObject *
handle_add_seals(PyObject *op, PyObject *value)
{
    SharedMemoryObject *self = as_handle(op);
    long long seals;
    if (arg_long(value, "seals", 0, INT_MAX, &seals) < 0) {
        return NULL;
    }
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_seals_add(fd->fd, (int)seals);
    Py_END_ALLOW_THREADS
    int sealed = rc < 0 ? pshm_seals_of(fd->fd) : 0;
    fdref_drop(fd);
    if (rc == -EBUSY) {
        PyErr_SetString(PyExc_BufferError,
                        "the object is mapped writable, by this handle or "
                        "another; F_SEAL_FUTURE_WRITE leaves such mappings "
                        "as they are");
        return NULL;
    }
    if (rc == -EPERM && sealed > 0 && sealed & F_SEAL_SEAL) {
        PyObject *name = handle_name_object(self);
        raise_errno_words(
            rc, name,
            name != NULL
                ? "Named objects cannot be sealed: the kernel makes them with "
                  "F_SEAL_SEAL; SharedMemory.anonymous() makes one that can"
                : "The object is sealed against further seals (F_SEAL_SEAL)");
        Py_XDECREF(name);
        return NULL;
    }
    return rc < 0 ? raise_with_name(self, rc) : Py_NewRef(Py_None);
}
