/* A handle's descriptor, and letting go of it and of the rest. */
#include "core/memory/handle.h"

#include "core/errors.h"
#include "core/memory/handle_table.h"
#include "core/memory/last.h"

#include "posix/object/fd.h"

const char handle_close_doc[] =
    "close($self, /)\n--\n\n"
    "Give up the descriptor and this handle's hold on the memory.\n\n"
    "Views stay valid; the memory goes with the last thing that can reach it.\n"
    "The object and its name stay, unless it was made with delete=True.\n"
    "Closing twice is harmless; it raises nothing.  See " MAN(close, 2)
    " and\n" MAN(munmap, 2) ".";

PyObject *
handle_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    handle_state old = HANDLE_STATE_NONE;
    PyObject *duty;
    if (handle_delete_audit(self) < 0) {
        return NULL;
    }
    handle_table_remove(self);
    fields_lock(&self->fields);
    self->open = false;
    old.fd = self->body.fd;
    self->body.fd = NULL;
    if (!self->exported || !mapping_may_be_kept(self->body.map)) {
        old.map = self->body.map;
        self->body.map = NULL;
    }
    duty = self->duty;
    self->duty = NULL;
    fields_unlock(&self->fields);
    handle_state_clear(&old);
    return handle_delete_now(duty) < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_close_fd_doc[] =
    "close_fd($self, /)\n--\n\n"
    "Give up the descriptor only: " MAN(close, 2) ".  The memory stays usable.\n"
    "\n"
    "What needs a descriptor (resize, stat, ...) raises ValueError from here\n"
    "on.  The mapping holds the lease, so reclaim() still sees the object in\n"
    "use.  Twice is harmless.";

PyObject *
handle_close_fd(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    handle_state old = HANDLE_STATE_NONE;
    if (handle_check_open(self) < 0) {
        return NULL;
    }
    fields_lock(&self->fields);
    old.fd = self->body.fd;
    self->body.fd = NULL;
    fields_unlock(&self->fields);
    handle_state_clear(&old);
    Py_RETURN_NONE;
}

const char handle_fileno_doc[] =
    "fileno($self, /)\n--\n\n"
    "The descriptor, an int; it stays the handle's.  Raises ValueError after\n"
    "close() or close_fd().";

PyObject *
handle_fileno(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct fdref *fd = handle_take_fd(as_handle(op));
    if (fd == NULL) {
        return NULL;
    }
    PyObject *number = PyLong_FromLong(fd->fd);
    fdref_drop(fd);
    return number;
}

const char handle_detach_doc[] =
    "detach($self, /)\n--\n\n"
    "Close the handle, but for its descriptor, which is the caller's now.\n\n"
    "Returns it, an int.  A name that was to go with the handle\n"
    "(delete=True or 'last') stays.  Raises ValueError after close()\n"
    "or close_fd().";

/* Take the descriptor itself out of ref, whose last user this is; or where a
 * call in another thread still uses it, which must not find it closed and taken
 * by somebody else, a copy.  Owns ref unless it fails. */
static int
separate_fd(struct fdref *ref)
{
    int number = ref->fd;
    if (atomic_load_explicit(&ref->users, memory_order_acquire) == 1) {
        ref->fd = -1;
    }
    else {
        number = pshm_fd_copy(number);
        if (number < 0) {
            return number;
        }
    }
    fdref_drop(ref);
    return number;
}

PyObject *
handle_detach(PyObject *op, PyObject *unused)
{
    SharedMemoryObject *self = as_handle(op);
    int number = -EBADF;
    PyObject *duty = NULL;
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    fdref_drop(fd);
    fields_lock(&self->fields);
    if (self->open && self->body.fd != NULL) {
        number = separate_fd(self->body.fd);
    }
    if (number >= 0) {
        self->body.fd = NULL;
        duty = self->duty;
        self->duty = NULL;
        last_cancel(self->body.map->last);
    }
    fields_unlock(&self->fields);
    if (number == -EBADF) {
        fdref_drop(handle_take_fd(self));           /* raises: it has none */
        return NULL;
    }
    if (number < 0) {
        return raise_errno(number, NULL);
    }
    handle_delete_cancel(duty);
    PyObject *closed = handle_close(op, unused);
    PyObject *result = closed == NULL ? NULL : PyLong_FromLong(number);
    Py_XDECREF(closed);
    if (result == NULL) {
        pshm_fd_close(number);
    }
    return result;
}
