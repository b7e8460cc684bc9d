/* The name of a handle: unlink, link, rename. */
#include "core/memory/handle.h"

#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/memory/last.h"
#include "core/memory/taken.h"

#include "posix/object/link.h"
#include "posix/object/size.h"

static core_state *
state_of(SharedMemoryObject *self)
{
    return core_state_of_type(Py_TYPE((PyObject *)self));
}

/* Raise rc, the error of a call that found that the name is not the object's.
 */
static void
raise_gone(const handle_state *now, int rc)
{
    if (rc == -ESTALE) {
        raise_errno_words(-ENOENT, now->name,
                          "The object no longer has the name, which refers to "
                          "another object now");
    }
    else if (rc == -ENOENT) {
        raise_errno_words(rc, now->name,
                          "The object no longer has the name: another handle "
                          "or process removed or renamed it; "
                          "SharedMemory.open() of the new name returns a "
                          "handle that can rename and unlink the object");
    }
    else {
        raise_errno(rc, now->name);
    }
}

/* ---- The path ---- */

const char handle_get_path_doc[] =
    "The path of the object in the file system, '/dev/shm/NAME'; None if it\n"
    "has no name. os.fspath() returns the same.";

PyObject *
handle_get_path(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    PyObject *name = handle_name_object(self);
    if (name == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *path = PyUnicode_FromFormat(PSHM_DIR "/%U", name);
    Py_DECREF(name);
    return path;
}

const char handle_fspath_doc[] =
    "__fspath__($self, /)\n--\n\n"
    "Return .path, for open() and other functions.\n\n"
    "Raises ValueError if the object has no name.";

PyObject *
handle_fspath(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *path = handle_get_path(op, NULL);
    if (path == Py_None) {
        Py_DECREF(path);
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name, and therefore no path");
        return NULL;
    }
    return path;
}

/* ---- Removing ---- */

const char handle_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove the name, if it still refers to this object:\n"
    MAN(shm_unlink, 3) ".\n\n"
    "Processes that have the object can still use it. unlink() also works\n"
    "after close(). It is safe against link() and rename() of other processes\n"
    "that use this library: they hold a lock on the directory.\n\n"
    "Raises FileNotFoundError if the name does not exist or refers to another\n"
    "object; ValueError if the handle never had a name; PermissionError.";

PyObject *
handle_unlink(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    handle_state now;
    int rc = -1, told = 0;
    (void)handle_acquire(self, 0, &now);
    if (now.name == NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name to unlink");
        return NULL;
    }
    struct pshm_name path = handle_path(now.name);
    if (audit_unlink(&path) == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_link_remove(&path, now.id);
        Py_END_ALLOW_THREADS
        /* -ESTALE: the tracker may have another object of that name. */
        if (now.track && (rc == 0 || rc == -ENOENT)) {
            told = handle_track(state_of(self)->support, now.name,
                                "unregister");
        }
        if (rc < 0 && told == 0) {
            raise_gone(&now, rc);
        }
    }
    handle_release(self, 0, &now);
    return rc < 0 || told < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_is_linked_doc[] =
    "is_linked($self, /)\n--\n\n"
    "Return whether the name refers to this object now.\n\n"
    "False if the name was removed or refers to another object, or if the\n"
    "object has no name. Also works after close(). Raises OSError if that\n"
    "cannot be determined.";

PyObject *
handle_is_linked(PyObject *op, PyObject *Py_UNUSED(unused))
{
    handle_state now;
    int rc = 0;
    (void)handle_acquire(as_handle(op), 0, &now);
    if (now.name != NULL) {
        struct pshm_name path = handle_path(now.name);
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_link_holds(&path, now.id);
        Py_END_ALLOW_THREADS
        rc = rc == -ENOENT ? 0 : rc;
    }
    if (rc < 0) {
        raise_errno(rc, now.name);
    }
    handle_release(as_handle(op), 0, &now);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

/* ---- Giving a name ---- */

/* The arguments of link() and rename(). */
typedef struct {
    PyObject *given;                    /* name, borrowed */
    PyObject *name;                     /* without a slash; or NULL */
    struct pshm_name path;
    bool replace;
} new_name;

static int
parse_new_name(const struct signature *signature, PyObject *const *args,
               Py_ssize_t count, PyObject *kwnames, new_name *to)
{
    PyObject *values[2];
    *to = (new_name){0};
    if (args_match(signature, args, count, kwnames, values) < 0
        || arg_new_name(values[0], &to->path) < 0
        || arg_bool(values[1], &to->replace) < 0) {
        return -1;
    }
    to->given = values[0];
    return 0;
}

/* Register the new name with the resource tracker. The object has it already,
 * so a failure of the tracker does not matter; only a signal handler may
 * raise. */
static int
track_renamed(SharedMemoryObject *self, const handle_state *old,
              PyObject *name)
{
    PyObject *support = state_of(self)->support;
    int rc = old->created ? handle_track(support, name, "register_late") : 0;
    return rc < 0 ? rc : handle_track(support, old->name, "unregister");
}

/* Record the new name in the handle, the finalizer and the tracker. name: path
 * as a str. old: the state before. Returns 0 or -1. */
static int
set_name(SharedMemoryObject *self, const handle_state *old, PyObject *name,
         const struct pshm_name *path)
{
    fields_lock(&self->fields);
    PyObject *replaced = self->state.name;
    self->state.name = Py_NewRef(name);
    if (self->state.map != NULL) {
        last_rename(self->state.map->last, path);
    }
    fields_unlock(&self->fields);
    Py_XDECREF(replaced);
    struct finalizer *finalizer = handle_take_finalizer(self);
    handle_delete_only(finalizer, name);
    handle_drop_finalizer(finalizer);
    return old->track && old->name != NULL
                   && PyUnicode_Compare(old->name, name) != 0
               ? track_renamed(self, old, name) : 0;
}

const char handle_link_doc[] =
    "link($self, /, name, replace=False)\n--\n\n"
    "Give a name to an object without one, in one step: " MAN(linkat, 2) ".\n\n"
    "replace: if another object has the name, it loses it in the same step,\n"
    "so that a process that opens the name gets one of the two.\n\n"
    "After the last name of an object was removed, the kernel cannot give\n"
    "the object a name again (FileNotFoundError): copy it.\n\n"
    "Raises FileExistsError; ValueError for a bad name, or if the object has\n"
    "a name (see rename()); PermissionError; OSError: EXDEV for an anonymous\n"
    "object. After an error the object is unchanged, unless the message\n"
    "states its name.";

static void
raise_link(SharedMemoryObject *self, int rc, const new_name *to,
           const handle_state *now)
{
    struct pshm_status status;
    if (rc == -EEXIST) {
        raise_name_taken(state_of(self), to->given, &to->path, "link");
    }
    else if (rc == -ENOENT && pshm_status_of(now->fd->fd, &status) == 0
             && status.links == 0
             && pshm_room_of(-1, &(struct pshm_room){0}) == 0) {
        raise_errno_words(
            rc, to->given,
            "The last name of this object was removed, and the kernel cannot "
            "link such an object again: copy it (copy = "
            "SharedMemory.unlinked(shm.size); copy.buf[:] = shm.buf; "
            "copy.link(name))");
    }
    else {
        raise_no_memory(rc, to->given, -1, 0);
    }
}

static int
link_acquired(SharedMemoryObject *self, const handle_state *now,
              const new_name *to)
{
    struct pshm_name left;
    int rc = 0;
    if (now->name != NULL) {
        struct pshm_name path = handle_path(now->name);
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_link_holds(&path, now->id);
        Py_END_ALLOW_THREADS
    }
    if (rc == 1) {
        PyErr_Format(PyExc_ValueError,
                     "the shared memory already has the name %R; rename() "
                     "changes it",
                     now->name);
        return -1;
    }
    if (now->anonymous) {
        raise_errno_words(-EXDEV, to->given,
                          "An anonymous object cannot have a name; "
                          "SharedMemory.unlinked() makes an object that can");
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link(now->fd->fd, &to->path, to->replace, &left);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        return set_name(self, now, to->name, &to->path);
    }
    if (left.path[0] == '\0') {
        raise_link(self, rc, to, now);
        return -1;
    }
    PyObject *name = handle_name_of(&left, NULL);
    if (name != NULL && set_name(self, now, name, &left) == 0) {
        raise_errno_words(rc, to->given,
                          "%s; the object has the name '%s' now, and rename() "
                          "changes it",
                          strerror(-rc), pshm_name_plain(&left));
    }
    Py_XDECREF(name);
    return -1;
}

const char handle_rename_doc[] =
    "rename($self, /, name, replace=False)\n--\n\n"
    "Give the object another name, in one step: " MAN(rename, 2) ".\n\n"
    "replace: if another object has the name, it loses it in the same step.\n"
    "To rename an object to its own name has no effect.\n\n"
    "If a forked child renames an object of its parent, which was made with\n"
    "delete=True, the parent does not remove the new name.\n\n"
    "Raises FileExistsError; FileNotFoundError if the old name does not refer\n"
    "to this object; ValueError; PermissionError; BufferError if another\n"
    "thread is renaming or resizing the handle.";

/* The finalizer has both names meanwhile. */
static int
rename_acquired(SharedMemoryObject *self, const handle_state *now,
                const new_name *to)
{
    if (now->name == NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory has no name; link() gives it one");
        return -1;
    }
    if (now->track && now->created
        && handle_track(state_of(self)->support, to->name, "check") < 0) {
        return -1;
    }
    struct pshm_name from = handle_path(now->name);
    struct finalizer *finalizer = handle_take_finalizer(self);
    handle_delete_also(finalizer, to->name);
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_rename(now->id, &from, &to->path, to->replace);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        handle_delete_only(finalizer, now->name);
    }
    handle_drop_finalizer(finalizer);
    if (rc == 0) {
        return set_name(self, now, to->name, &to->path);
    }
    if (rc == -ESTALE || rc == -ENOENT) {
        raise_gone(now, rc);
    }
    else if (rc == -EEXIST) {
        raise_name_taken(state_of(self), to->given, &to->path, "link");
    }
    else {
        raise_no_memory(rc, to->given, -1, 0);
    }
    return -1;
}

typedef int name_function(SharedMemoryObject *self, const handle_state *now,
                          const new_name *to);

static PyObject *
change_name(SharedMemoryObject *self, new_name *to, name_function *change)
{
    enum { NEEDS = HANDLE_FD | HANDLE_CLAIM };
    handle_state now;
    if (handle_acquire(self, NEEDS, &now) < 0) {
        return NULL;
    }
    to->name = handle_name_of(&to->path, to->given);
    int rc = to->name == NULL ? -1 : change(self, &now, to);
    Py_XDECREF(to->name);
    handle_release(self, NEEDS, &now);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static const char *const name_arguments[] = {"name", "replace", NULL};

PyObject *
handle_link(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const struct signature signature = {"link", 2, 1, name_arguments};
    new_name to;
    if (parse_new_name(&signature, args, count, kwnames, &to) < 0
        || audit_link(&to.path, to.replace) < 0) {
        return NULL;
    }
    return change_name(as_handle(op), &to, link_acquired);
}

PyObject *
handle_rename(PyObject *op, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    static const struct signature signature = {"rename", 2, 1, name_arguments};
    handle_state now;
    new_name to;
    if (parse_new_name(&signature, args, count, kwnames, &to) < 0) {
        return NULL;
    }
    (void)handle_acquire(as_handle(op), 0, &now);
    bool refused = false;
    if (now.name != NULL) {
        struct pshm_name from = handle_path(now.name);
        refused = audit_rename(&from, &to.path, to.replace) < 0;
    }
    handle_release(as_handle(op), 0, &now);
    return refused ? NULL
                   : change_name(as_handle(op), &to, rename_acquired);
}
