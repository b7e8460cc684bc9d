/* A handle and its name: giving it one, another one, none. */
#include "core/memory/handle.h"

#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/memory/last.h"
#include "core/memory/taken.h"

#include "posix/object/attach.h"
#include "posix/object/link.h"
#include "posix/object/size.h"

/* Which object it is and what it is called: also after close(). */
static bool
take_name(SharedMemoryObject *self, struct pshm_name *path,
          struct pshm_identity *id)
{
    bool named;
    fields_lock(&self->fields);
    named = self->body.name != NULL;
    *path = self->body.path;
    *id = self->body.id;
    fields_unlock(&self->fields);
    return named;
}

static PyObject *
support_of(PyObject *op)
{
    return core_state_of_type(Py_TYPE(op))->support;
}

/* Does the resource tracker know it?  *created: it was made by this handle. */
static bool
is_tracked(SharedMemoryObject *self, bool *created)
{
    bool tracked;
    fields_lock(&self->fields);
    tracked = self->body.track;
    *created = self->body.created;
    fields_unlock(&self->fields);
    return tracked;
}

static PyObject *
raise_gone(SharedMemoryObject *self, int rc)
{
    PyObject *name = handle_name_object(self);
    if (rc == -ESTALE) {
        raise_errno_words(-ENOENT, name,
                          "This object no longer has the name; another "
                          "object does");
    }
    else if (rc == -ENOENT) {
        raise_errno_words(rc, name,
                          "This object no longer has the name: it was removed "
                          "or renamed through another handle or by another "
                          "process; SharedMemory.open() of the new name has "
                          "a handle that can rename and unlink it");
    }
    else {
        raise_errno(rc, name);
    }
    Py_XDECREF(name);
    return NULL;
}

/* ---- Where it lies ---- */

const char handle_get_path_doc[] =
    "Where the file system shows the object, '/dev/shm/NAME'; None if it has\n"
    "no name.  os.fspath() gives the same.";

PyObject *
handle_get_path(PyObject *op, void *Py_UNUSED(closure))
{
    struct pshm_name path;
    struct pshm_identity id;
    if (!take_name(as_handle(op), &path, &id)) {
        Py_RETURN_NONE;
    }
    return PyUnicode_FromString(path.path);
}

const char handle_fspath_doc[] =
    "__fspath__($self, /)\n--\n\n"
    "As .path, for open() and others.  Raises ValueError if the object has no\n"
    "name.";

PyObject *
handle_fspath(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *path = handle_get_path(op, NULL);
    if (path == Py_None) {
        Py_DECREF(path);
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name, and so no path");
        return NULL;
    }
    return path;
}

/* ---- Removing ---- */

const char handle_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove the name, if it still is this object's: " MAN(shm_unlink, 3) ".\n\n"
    "The memory stays for every process that has it.  Works after close()\n"
    "too.  Processes that use this library hold a lock on the directory for\n"
    "this, so that it cannot remove the name of an object that gets it by\n"
    "link() or rename() in the same moment.  Raises FileNotFoundError if the\n"
    "name is gone or is another object's by now; ValueError for a handle that\n"
    "never had a name; PermissionError.";

PyObject *
handle_unlink(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    struct pshm_name path;
    struct pshm_identity id;
    if (!take_name(self, &path, &id)) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name to unlink");
        return NULL;
    }
    if (audit_unlink(&path) < 0) {
        return NULL;
    }
    bool created, tracked = is_tracked(self, &created);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_remove(&path, id);
    Py_END_ALLOW_THREADS
    /* Another object of that name may be in the tracker's set too. */
    if (tracked && (rc == 0 || rc == -ENOENT)) {
        PyObject *name = handle_name_object(self);
        int told = handle_track(support_of(op), name, "unregister");
        Py_XDECREF(name);
        if (told < 0) {
            return NULL;
        }
    }
    return rc < 0 ? raise_gone(self, rc) : Py_NewRef(Py_None);
}

const char handle_is_linked_doc[] =
    "is_linked($self, /)\n--\n\n"
    "Whether the object's name leads to it now: False once it was unlinked or\n"
    "the name became another object's, or where it never had one.  Works\n"
    "after close() too.  Raises OSError where that cannot be seen.";

PyObject *
handle_is_linked(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct pshm_name path;
    struct pshm_identity id;
    if (!take_name(as_handle(op), &path, &id)) {
        Py_RETURN_FALSE;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_holds(&path, id);
    Py_END_ALLOW_THREADS
    if (rc < 0 && rc != -ENOENT) {
        return raise_gone(as_handle(op), rc);
    }
    return PyBool_FromLong(rc == 1);
}

/* ---- Giving ---- */

static int
parse_link(const struct signature *signature, PyObject *const *args,
           Py_ssize_t count, PyObject *kwnames, PyObject **name,
           struct pshm_name *path, bool *replace)
{
    PyObject *values[2];
    *replace = false;
    if (args_match(signature, args, count, kwnames, values) < 0) {
        return -1;
    }
    *name = values[0];
    return arg_new_name(values[0], path) < 0
           || arg_bool(values[1], replace) < 0 ? -1 : 0;
}

/* Note the new name in the handle; owns name. */
static void
set_name(SharedMemoryObject *self, PyObject *name, const struct pshm_name *path)
{
    PyObject *old;
    fields_lock(&self->fields);
    old = self->body.name;
    self->body.name = name;
    self->body.path = *path;
    if (self->body.map != NULL) {
        last_rename(self->body.map->last, path);
    }
    fields_unlock(&self->fields);
    Py_XDECREF(old);
}

/* Tell the resource tracker.  The name is given already, so that this cannot
 * be done is no reason to fail; only a signal handler may raise.  0 or -1. */
static int
track_renamed(SharedMemoryObject *self, const struct pshm_name *from,
              bool created)
{
    PyObject *old = PyUnicode_FromString(pshm_name_plain(from));
    PyObject *name = handle_name_object(self);
    PyObject *support = support_of((PyObject *)self);
    int rc = old == NULL ? -1 : 0;
    if (rc == 0 && created) {
        rc = handle_track(support, name, "register_late");
    }
    if (rc == 0) {
        rc = handle_track(support, old, "unregister");
    }
    Py_XDECREF(old);
    Py_XDECREF(name);
    return rc;
}

const char handle_link_doc[] =
    "link($self, /, name, replace=False)\n--\n\n"
    "Give an unlinked object its name, in one step: " MAN(linkat, 2) ".\n\n"
    "replace: an object that has the name loses it in the same step, so that\n"
    "a process that opens the name gets either the old one or this one.\n\n"
    "An object whose name something else removed can be linked again if\n"
    "another name of it is left; without one the kernel refuses, and a copy\n"
    "has to do (FileNotFoundError).\n\n"
    "Raises FileExistsError; ValueError for a bad name, or if the object has\n"
    "a name (see rename); PermissionError; OSError (EXDEV) for an anonymous\n"
    "one.  After an error the object is as it was, unless the error says what\n"
    "it is called now.";

/* The error of pshm_link. */
static void
raise_link(int rc, PyObject *given, const struct pshm_name *path,
           struct fdref *fd)
{
    struct pshm_status status;
    if (rc == -ENOENT && pshm_status_of(fd->fd, &status) == 0
        && status.links == 0 && pshm_room_of(-1, &(struct pshm_room){0}) == 0) {
        raise_errno_words(
            rc, given,
            "The last name of this object was removed, and the kernel gives "
            "such an object no name again: copy it (copy = "
            "SharedMemory.unlinked(shm.size); copy.buf[:] = shm.buf; "
            "copy.link(name))");
        return;
    }
    if (rc == -EEXIST) {
        raise_name_taken(given, path, TAKEN_LINKING);
        return;
    }
    raise_no_memory(rc, given, -1, 0);
}

/* Does the name that the handle knows still lead to its object? */
static bool
has_its_name(SharedMemoryObject *self)
{
    struct pshm_name path;
    struct pshm_identity id;
    int rc = 0;
    if (take_name(self, &path, &id)) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_link_holds(&path, id);
        Py_END_ALLOW_THREADS
    }
    return rc == 1;
}

/* Note the name that the object has now, in the handle, the finalizer and the
 * tracker.  Owns name, which is path as a str.  0 or -1. */
static int
take_new_name(SharedMemoryObject *self, PyObject *name,
              const struct pshm_name *path)
{
    struct pshm_name from;
    struct pshm_identity id;
    bool named = take_name(self, &from, &id);
    set_name(self, name, path);
    PyObject *duty;
    fields_lock(&self->fields);
    duty = Py_XNewRef(self->duty);
    fields_unlock(&self->fields);
    handle_delete_only(duty, path);
    Py_XDECREF(duty);
    bool created, tracked = is_tracked(self, &created);
    return named && tracked && strcmp(from.path, path->path) != 0
               ? track_renamed(self, &from, created) : 0;
}

/* With the handle claimed, so that no other thread names it meanwhile. */
static int
link_claimed(SharedMemoryObject *self, struct fdref *fd, PyObject *given,
             const struct pshm_name *path, bool replace)
{
    bool anonymous;
    if (has_its_name(self)) {
        PyObject *name = handle_name_object(self);
        PyErr_Format(PyExc_ValueError,
                     "the shared memory has the name %R already; rename() "
                     "gives it another",
                     name);
        Py_DECREF(name);
        return -1;
    }
    fields_lock(&self->fields);
    anonymous = self->body.anonymous;
    fields_unlock(&self->fields);
    if (anonymous) {
        raise_errno_words(-EXDEV, given,
                          "An anonymous object cannot have a name; unlinked() "
                          "makes one that can");
        return -1;
    }
    struct pshm_name left;
    PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
    int rc;
    if (name == NULL) {
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link(fd->fd, path, replace, &left);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        return take_new_name(self, name, path);
    }
    Py_DECREF(name);
    if (left.path[0] == '\0') {
        raise_link(rc, given, path, fd);
        return -1;
    }
    name = PyUnicode_FromString(pshm_name_plain(&left));
    if (name != NULL && take_new_name(self, name, &left) == 0) {
        raise_errno_words(rc, given,
                          "%s; the object is called '%s' now, and rename() "
                          "gives it another name",
                          strerror(-rc), pshm_name_plain(&left));
    }
    return -1;
}

PyObject *
handle_link(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"name", "replace", NULL};
    static const struct signature signature = {"link", 2, 1, names};
    SharedMemoryObject *self = as_handle(op);
    struct pshm_name path;
    bool replace;
    PyObject *given;
    if (parse_link(&signature, args, count, kwnames, &given, &path, &replace)
            < 0
        || audit_link(&path, replace) < 0) {
        return NULL;
    }
    if (handle_claim(self) < 0) {
        return NULL;
    }
    int rc = -1;
    struct fdref *fd = handle_take_fd(self);
    if (fd != NULL) {
        rc = link_claimed(self, fd, given, &path, replace);
        fdref_drop(fd);
    }
    handle_release(self);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_rename_doc[] =
    "rename($self, /, name, replace=False)\n--\n\n"
    "Give the object another name, in one step: " MAN(rename, 2) ".\n\n"
    "replace: an object that has the name loses it in the same step.  Its\n"
    "own name: does nothing.\n\n"
    "If a forked child renames what its parent is to delete (delete=True),\n"
    "the parent does not know the new name, and leaves it.\n\n"
    "Raises FileExistsError; FileNotFoundError if the old name is not this\n"
    "object's any more; ValueError; PermissionError; BufferError if another\n"
    "thread is naming or resizing it.";

static int
rename_claimed(SharedMemoryObject *self, PyObject *given,
               const struct pshm_name *to, bool replace)
{
    struct pshm_name from;
    struct pshm_identity id;
    if (!take_name(self, &from, &id)) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name; link() gives it one");
        return -1;
    }
    PyObject *name = PyUnicode_FromString(pshm_name_plain(to));
    if (name == NULL) {
        return -1;
    }
    bool created, tracked = is_tracked(self, &created);
    if (tracked && created
        && handle_track(support_of((PyObject *)self), name, "check") < 0) {
        Py_DECREF(name);
        return -1;
    }
    PyObject *duty;
    fields_lock(&self->fields);
    duty = Py_XNewRef(self->duty);
    fields_unlock(&self->fields);
    handle_delete_also(duty, to);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_rename(id, &from, to, replace);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        handle_delete_only(duty, &from);
        Py_DECREF(name);
        if (rc == -ESTALE || rc == -ENOENT) {
            raise_gone(self, rc);
        }
        else if (rc == -EEXIST) {
            raise_name_taken(given, to, TAKEN_LINKING);
        }
        else {
            raise_no_memory(rc, given, -1, 0);
        }
    }
    else {
        set_name(self, name, to);
        if (tracked && strcmp(from.path, to->path) != 0) {
            rc = track_renamed(self, &from, created);
        }
        handle_delete_only(duty, to);
    }
    Py_XDECREF(duty);
    return rc < 0 ? -1 : 0;
}

PyObject *
handle_rename(PyObject *op, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    static const char *const names[] = {"name", "replace", NULL};
    static const struct signature signature = {"rename", 2, 1, names};
    SharedMemoryObject *self = as_handle(op);
    struct pshm_name path;
    bool replace;
    PyObject *given;
    if (parse_link(&signature, args, count, kwnames, &given, &path, &replace)
        < 0) {
        return NULL;
    }
    struct pshm_name from;
    struct pshm_identity id;
    if (take_name(self, &from, &id)
        && audit_rename(&from, &path, replace) < 0) {
        return NULL;
    }
    if (handle_claim(self) < 0) {
        return NULL;
    }
    int rc = -1;
    struct fdref *fd = handle_take_fd(self);
    if (fd != NULL) {
        rc = rename_claimed(self, given, &path, replace);
        fdref_drop(fd);
    }
    handle_release(self);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}
