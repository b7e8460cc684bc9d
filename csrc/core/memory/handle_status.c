/* The attributes of a handle, and those of its object: owner, mode, seals. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/constants.h"
#include "posix/object/new_object.h"

/* ---- Of the handle ---- */

const char handle_get_name_doc[] =
    "The name, a str without a slash; None if the object has no name.";

PyObject *
handle_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *name = handle_name_object(as_handle(op));
    return name != NULL ? name : Py_NewRef(Py_None);
}

const char handle_get_size_doc[] =
    "The size in bytes, as mapped. If the object grows in place (max_size),\n"
    "its current size. After close(), the last one known.";

PyObject *
handle_get_size(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    return PyLong_FromSsize_t(size);
}

/* A getter that returns make(value), read under the lock of the fields. */
#define ATTRIBUTE(name, type, make, value, text)                             \
    const char handle_get_##name##_doc[] = text;                             \
    PyObject *handle_get_##name(PyObject *op, void *Py_UNUSED(closure))      \
    {                                                                        \
        SharedMemoryObject *self = as_handle(op);                            \
        fields_lock(&self->fields);                                          \
        type result = (value);                                               \
        fields_unlock(&self->fields);                                        \
        return make(result);                                                 \
    }

static PyObject *
int_or_none(Py_ssize_t value)
{
    return value > 0 ? PyLong_FromSsize_t(value) : Py_NewRef(Py_None);
}

ATTRIBUTE(readonly, bool, PyBool_FromLong,
          self->state.readonly
              || (self->open && !(self->state.map->prot & PROT_WRITE)),
          "Whether the bytes cannot be written through this handle.")
ATTRIBUTE(closed, bool, PyBool_FromLong, !self->open,
          "Whether close() was called.")
ATTRIBUTE(created, bool, PyBool_FromLong, self->state.created,
          "Whether this handle made the object, instead of attaching to it.")
ATTRIBUTE(holds_use_lock, bool, PyBool_FromLong,
          self->open && self->state.locked,
          "Whether this handle has a lock that shows reclaim() that the\n"
          "object is in use, or is anonymous and needs none. False if\n"
          "another process had locked the object exclusively when this\n"
          "handle was made.")
ATTRIBUTE(max_size, Py_ssize_t, int_or_none, self->state.max_size,
          "Bytes of address space that are reserved for the object to grow\n"
          "in; None if it does not grow in place.")

bool
handle_was_created(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    bool created = self->state.created;
    fields_unlock(&self->fields);
    return created;
}

bool
handle_has_name(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    bool named = self->state.name != NULL;
    fields_unlock(&self->fields);
    return named;
}

/* ---- Of the object ---- */

const char handle_stat_doc[] =
    "stat($self, /)\n--\n\n"
    "Return the status of the object, an os.stat_result: " MAN(fstat, 2) ".\n\n"
    "Raises ValueError after close() or close_fd().";

PyObject *
handle_stat(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct fdref *fd = handle_take_fd(as_handle(op));
    if (fd == NULL) {
        return NULL;
    }
    PyObject *support = core_state_of_type(Py_TYPE(op))->support;
    PyObject *result = PyObject_CallMethod(support, "stat", "i", fd->fd);
    fdref_drop(fd);
    return result;
}

static int
read_status(PyObject *op, struct pshm_status *status)
{
    handle_state now;
    if (handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return -1;
    }
    int rc = pshm_status_of(now.fd->fd, status);
    if (rc < 0) {
        raise_errno(rc, now.name);
    }
    handle_release(as_handle(op), HANDLE_FD, &now);
    return rc;
}

#define AFTER_CLOSE "Raises ValueError after close() or close_fd()."

#define STATUS(name, value, text)                                            \
    const char handle_get_##name##_doc[] = text "\n" AFTER_CLOSE;            \
    PyObject *handle_get_##name(PyObject *op, void *Py_UNUSED(closure))      \
    {                                                                        \
        struct pshm_status status;                                           \
        return read_status(op, &status) < 0                                  \
                   ? NULL : PyLong_FromLongLong((long long)(value));         \
    }

STATUS(mode, status.mode & 07777,
       "The permissions of the object, an int as chmod() takes it.")
STATUS(uid, status.uid, "The user id of the object's owner.")
STATUS(gid, status.gid, "The group id of the object.")

/* The end of a method that changed the object.  An exception that is set
 * stays. */
static PyObject *
end_change(PyObject *op, handle_state *now, int rc)
{
    if (rc < 0 && !PyErr_Occurred()) {
        raise_errno(rc, now->name);
    }
    handle_release(as_handle(op), HANDLE_FD, now);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_chmod_doc[] =
    "chmod($self, mode, /)\n--\n\n"
    "Set the permissions of the object: " MAN(fchmod, 2) ".\n\n"
    "mode: an int, 0 to 0o7777.\n\n"
    "Raises PermissionError; ValueError after close() or close_fd().";

PyObject *
handle_chmod(PyObject *op, PyObject *value)
{
    handle_state now;
    mode_t mode;
    if (arg_mode(value, &mode) < 0
        || handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_set_mode(now.fd->fd, mode);
    Py_END_ALLOW_THREADS
    return end_change(op, &now, rc);
}

const char handle_chown_doc[] =
    "chown($self, /, uid=-1, gid=-1)\n--\n\n"
    "Set the owner and the group of the object: " MAN(fchown, 2) ".\n\n"
    "uid, gid: -1 does not change it.\n\n"
    "Raises PermissionError; ValueError after close() or close_fd().";

PyObject *
handle_chown(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"uid", "gid", NULL};
    static const struct signature signature = {"chown", 2, 0, names};
    PyObject *values[2];
    uint32_t uid = (uint32_t)-1, gid = (uint32_t)-1;
    handle_state now;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_id(values[0], "uid", &uid) < 0
        || arg_id(values[1], "gid", &gid) < 0
        || handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_set_owner(now.fd->fd, (uid_t)uid, (gid_t)gid);
    Py_END_ALLOW_THREADS
    return end_change(op, &now, rc);
}

const char handle_get_seals_doc[] =
    "The seals of an anonymous object, F_SEAL_ constants: " MAN(fcntl, 2) ".\n"
    AFTER_CLOSE " Raises OSError (EINVAL) if the file system does not have\n"
    "seals.";

PyObject *
handle_get_seals(PyObject *op, void *Py_UNUSED(closure))
{
    handle_state now;
    if (handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    int seals = pshm_seals_of(now.fd->fd);
    PyObject *result = seals < 0 ? raise_errno(seals, now.name)
                                 : PyLong_FromLong(seals);
    handle_release(as_handle(op), HANDLE_FD, &now);
    return result;
}

const char handle_add_seals_doc[] =
    "add_seals($self, seals, /)\n--\n\n"
    "Seal the object permanently: " MAN(fcntl, 2) ".\n\n"
    "seals: F_SEAL_ constants.\n\n"
    "Raises BufferError for F_SEAL_WRITE while the object is mapped\n"
    "writable, as it is by the handle that made it (F_SEAL_FUTURE_WRITE\n"
    "permits that mapping); PermissionError if it is sealed against seals,\n"
    "as named objects are; ValueError after close() or close_fd().";

static void
raise_seals(int rc, const handle_state *now)
{
    int seals = pshm_seals_of(now->fd->fd);
    if (rc == -EBUSY) {
        PyErr_SetString(PyExc_BufferError,
                        "cannot add F_SEAL_WRITE: the object is mapped "
                        "writable, by this handle or another; "
                        "F_SEAL_FUTURE_WRITE permits such mappings");
    }
    else if (rc == -EPERM && seals > 0 && seals & F_SEAL_SEAL) {
        raise_errno_words(
            rc, now->name,
            now->name != NULL
                ? "Named objects cannot be sealed: the kernel makes them with "
                  "F_SEAL_SEAL; SharedMemory.anonymous() makes an object that "
                  "can be sealed"
                : "The object is sealed against further seals (F_SEAL_SEAL)");
    }
    else {
        raise_errno(rc, now->name);
    }
}

PyObject *
handle_add_seals(PyObject *op, PyObject *value)
{
    handle_state now;
    long long seals;
    if (arg_long(value, "seals", 0, INT_MAX, &seals) < 0
        || handle_acquire(as_handle(op), HANDLE_FD, &now) < 0) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_seals_add(now.fd->fd, (int)seals);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        raise_seals(rc, &now);
    }
    return end_change(op, &now, rc);
}
