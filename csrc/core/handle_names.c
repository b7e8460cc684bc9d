/* A handle and its name: giving it one, another one, none. */
#include "handle.h"

#include <string.h>

#include "args.h"
#include "errors.h"

#include "posix/link.h"

/* Which object it is and what it is called: also after close(). */
static bool
take_name(handle *self, struct pshm_name *path, struct pshm_identity *id)
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
is_tracked(handle *self, bool *created)
{
    bool tracked;
    fields_lock(&self->fields);
    tracked = self->body.track;
    *created = self->body.created;
    fields_unlock(&self->fields);
    return tracked;
}

/* An object was moved aside, and its name was taken before it could be put
 * back: what became of it matters more than why. */
static PyObject *
raise_left(int rc, PyObject *name, const struct pshm_name *left)
{
    return raise_errno_words(
        rc, name,
        "The name could not be given back to the object that had it, which "
        "is now called '%s'",
        pshm_name_plain(left));
}

/* left: as pshm_link_remove_or_tell has it, or NULL. */
static PyObject *
raise_gone(handle *self, int rc, const struct pshm_name *left)
{
    PyObject *name = handle_name_object(self);
    if (left != NULL && left->path[0] != '\0') {
        raise_left(rc, name, left);
    }
    else if (rc == -ESTALE) {
        raise_errno_words(-ENOENT, name,
                          "This object no longer has the name; another "
                          "object does");
    }
    else {
        raise_errno(rc, name);
    }
    Py_XDECREF(name);
    return NULL;
}

/* ---- Removing ---- */

const char handle_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove the name, if it still is this object's: " MAN(shm_unlink, 3) ".\n\n"
    "The memory stays for all who have it.  Works after close() too.  Those\n"
    "who use this library take turns at this, so that it cannot hit an object\n"
    "that link() or rename() gives the name in the same moment; who keeps the\n"
    "turn to himself delays it by 20 ms at most.  Raises FileNotFoundError\n"
    "where the name is gone or is another object's by now; ValueError for a\n"
    "handle that never had a name; PermissionError; OSError (ESTALE) where\n"
    "another program gave the name away twice meanwhile, and what that object\n"
    "is called now.";

PyObject *
handle_unlink(PyObject *op, PyObject *Py_UNUSED(unused))
{
    handle *self = as_handle(op);
    struct pshm_name path;
    struct pshm_identity id;
    if (!take_name(self, &path, &id)) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name to unlink");
        return NULL;
    }
    struct pshm_name left;
    bool created, tracked = is_tracked(self, &created);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_remove_or_tell(&path, id, &left);
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
    return rc < 0 ? raise_gone(self, rc, &left) : Py_NewRef(Py_None);
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
        return raise_gone(as_handle(op), rc, NULL);
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
set_name(handle *self, PyObject *name, const struct pshm_name *path)
{
    PyObject *old;
    fields_lock(&self->fields);
    old = self->body.name;
    self->body.name = name;
    self->body.path = *path;
    fields_unlock(&self->fields);
    Py_XDECREF(old);
}

const char handle_link_doc[] =
    "link($self, /, name, replace=False)\n--\n\n"
    "Give an unlinked object its name, in one step: " MAN(linkat, 2) ".\n\n"
    "replace: an object that has the name loses it in the same step, so that\n"
    "whoever opens the name gets either the old one or this one.\n\n"
    "Raises FileExistsError; ValueError for a bad name, or where the object\n"
    "has a name already (see rename); OSError (EXDEV) for an anonymous one.";

/* With the handle claimed, so that no other thread names it meanwhile. */
static int
link_claimed(handle *self, int fd, PyObject *given,
             const struct pshm_name *path, bool replace)
{
    bool anonymous;
    PyObject *name = handle_name_object(self);
    if (name != NULL) {
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
    name = PyUnicode_FromString(pshm_name_plain(path));
    if (name == NULL) {
        return -1;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link(fd, path, replace);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_DECREF(name);
        raise_no_memory(rc, given, -1, 0);
        return -1;
    }
    set_name(self, name, path);
    return 0;
}

PyObject *
handle_link(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"name", "replace", NULL};
    static const struct signature signature = {"link", 2, 1, names};
    handle *self = as_handle(op);
    struct pshm_name path;
    bool replace;
    PyObject *given;
    if (parse_link(&signature, args, count, kwnames, &given, &path, &replace)
        < 0) {
        return NULL;
    }
    if (handle_claim(self) < 0) {
        return NULL;
    }
    int rc = -1;
    struct fdref *fd = handle_take_fd(self);
    if (fd != NULL) {
        rc = link_claimed(self, fd->fd, given, &path, replace);
        fdref_drop(fd);
    }
    handle_release(self);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_rename_doc[] =
    "rename($self, /, name, replace=False)\n--\n\n"
    "Give the object another name: " MAN(linkat, 2) ", then the old one is\n"
    "removed.  For a moment both lead to it, and never none.\n\n"
    "replace: an object that has the name loses it; here there is a moment in\n"
    "which the object has neither name.\n\n"
    "Where a forked child renames what its parent is to delete (delete=True),\n"
    "the parent does not know the new name, and leaves it.\n\n"
    "Raises FileExistsError; FileNotFoundError where the old name is not this\n"
    "object's any more; ValueError; PermissionError; BufferError where another\n"
    "thread is naming or resizing it.";

/* Tell the resource tracker.  The name is given already, so that this cannot
 * be done is no reason to fail; only a signal handler may raise.  0 or -1. */
static int
track_renamed(handle *self, const struct pshm_name *from, bool created)
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

static int
rename_claimed(handle *self, int fd, PyObject *given,
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
    struct pshm_name left;
    PyObject *duty;
    fields_lock(&self->fields);
    duty = Py_XNewRef(self->duty);
    fields_unlock(&self->fields);
    handle_delete_also(duty, to);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_rename(fd, id, &from, to, replace, &left);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        handle_delete_only(duty, &from);
        Py_DECREF(name);
        if (rc == -ESTALE || rc == -ENOENT || left.path[0] != '\0') {
            raise_gone(self, rc, &left);
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
    handle *self = as_handle(op);
    struct pshm_name path;
    bool replace;
    PyObject *given;
    if (parse_link(&signature, args, count, kwnames, &given, &path, &replace)
        < 0) {
        return NULL;
    }
    if (handle_claim(self) < 0) {
        return NULL;
    }
    int rc = -1;
    struct fdref *fd = handle_take_fd(self);
    if (fd != NULL) {
        rc = rename_claimed(self, fd->fd, given, &path, replace);
        fdref_drop(fd);
    }
    handle_release(self);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}
