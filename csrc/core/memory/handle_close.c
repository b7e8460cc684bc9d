/* Closing a handle, and its descriptor. */
#include "core/memory/handle.h"

#include "core/errors.h"
#include "core/memory/handle_table.h"
#include "core/memory/last.h"

#include "posix/object/fd.h"

const char handle_close_doc[] =
    "close($self, /)\n--\n\n"
    "Close the descriptor and release the memory: " MAN(close, 2) ".\n\n"
    "Views stay valid: the memory is unmapped when the last of them is\n"
    "deallocated, " MAN(munmap, 2) ". The object and its name stay, unless\n"
    "the object was made with delete=True, or with delete='last' and no\n"
    "process uses it any more. Further calls have no effect.";

PyObject *
handle_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    handle_state old = HANDLE_STATE_NONE;
    if (handle_delete_audit(self) < 0) {
        return NULL;
    }
    handle_table_remove(self);
    fields_lock(&self->fields);
    self->open = false;
    old.fd = self->state.fd;
    self->state.fd = NULL;
    if (!self->has_exports || !mapping_may_be_used(self->state.map)) {
        old.map = self->state.map;
        self->state.map = NULL;
    }
    struct finalizer *finalizer = self->state.finalizer;
    self->state.finalizer = NULL;
    fields_unlock(&self->fields);
    handle_state_clear(&old);
    return handle_delete_now(finalizer) < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_close_fd_doc[] =
    "close_fd($self, /)\n--\n\n"
    "Close the descriptor only: " MAN(close, 2) ". The memory stays usable.\n\n"
    "Methods that need a descriptor (resize, stat, ...) raise ValueError\n"
    "afterwards. The mapping keeps the use lock, so reclaim() still sees that\n"
    "the object is in use. Further calls have no effect.\n\n"
    "Raises ValueError after close().";

PyObject *
handle_close_fd(PyObject *op, PyObject *Py_UNUSED(unused))
{
    SharedMemoryObject *self = as_handle(op);
    handle_state old = HANDLE_STATE_NONE;
    if (handle_check_open(self) < 0) {
        return NULL;
    }
    fields_lock(&self->fields);
    old.fd = self->state.fd;
    self->state.fd = NULL;
    fields_unlock(&self->fields);
    handle_state_clear(&old);
    Py_RETURN_NONE;
}

const char handle_fileno_doc[] =
    "fileno($self, /)\n--\n\n"
    "Return the descriptor, an int. It remains the handle's.\n\n"
    "Raises ValueError after close() or close_fd().";

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
    "Close the handle and return its descriptor, an int.\n\n"
    "The descriptor then belongs to the caller.\n\n"
    "A name that the handle would remove (delete=True or 'last') stays.\n\n"
    "Raises ValueError after close() or close_fd().";

/* Take the descriptor out of ref; or if a call in another thread still uses it,
 * a copy. Steals ref, unless it fails. */
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
    struct finalizer *finalizer = NULL;
    int number = -EBADF;
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    fdref_drop(fd);
    fields_lock(&self->fields);
    if (self->open && self->state.fd != NULL) {
        number = separate_fd(self->state.fd);
    }
    if (number >= 0) {
        self->state.fd = NULL;
        finalizer = self->state.finalizer;
        self->state.finalizer = NULL;
        last_cancel(self->state.map->last);
    }
    fields_unlock(&self->fields);
    if (number == -EBADF) {
        /* Another thread closed it meanwhile; this raises. */
        fdref_drop(handle_take_fd(self));
        return NULL;
    }
    if (number < 0) {
        return raise_errno(number, NULL);
    }
    handle_delete_cancel(finalizer);
    PyObject *closed = handle_close(op, unused);
    PyObject *result = closed == NULL ? NULL : PyLong_FromLong(number);
    Py_XDECREF(closed);
    if (result == NULL) {
        pshm_fd_close(number);
    }
    return result;
}
