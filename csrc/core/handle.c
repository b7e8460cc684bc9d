#include "handle.h"

#include <sys/mman.h>

#include "errors.h"

#include "posix/attach.h"
#include "posix/fd.h"
#include "posix/host.h"
#include "posix/link.h"

#include <fcntl.h>

/* ---- Bodies ---- */

void
handle_body_drop(handle_body *body)
{
    struct fdref *fd = body->fd;
    body->fd = NULL;
    if (fd != NULL) {
        /* With the last descriptor of an unlinked object goes its memory. */
        Py_BEGIN_ALLOW_THREADS
        fdref_drop(fd);
        Py_END_ALLOW_THREADS
    }
    Py_CLEAR(body->map);
    Py_CLEAR(body->name);
}

/* Keep the handle's mapping for as long as the handle, if the handle's own
 * buffer was taken.  In the critical section.  Returns 0 or -1. */
static int
keep_map_locked(handle *self)
{
    if (!self->exported || self->body.map == NULL) {
        return 0;
    }
    if (self->kept == NULL) {
        self->kept = PyList_New(0);
        if (self->kept == NULL) {
            return -1;
        }
    }
    return PyList_Append(self->kept, (PyObject *)self->body.map);
}

int
handle_finish(PyObject *finalizer)
{
    if (finalizer == NULL) {
        return 0;
    }
    PyObject *result = PyObject_CallNoArgs(finalizer);
    Py_DECREF(finalizer);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
handle_install(handle *self, handle_body *body, PyObject **finalizer)
{
    handle_body old = HANDLE_BODY_NONE;
    int rc;
    *finalizer = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    rc = keep_map_locked(self);
    if (rc == 0) {
        old = self->body;
        *finalizer = self->finalizer;
        self->body = *body;
        self->finalizer = NULL;
        self->exported = false;
        self->open = true;
        self->size = mapping_size(body->map);
    }
    Py_END_CRITICAL_SECTION();
    if (rc < 0) {
        handle_body_drop(body);
        return rc;
    }
    handle_body_drop(&old);
    return 0;
}

int
handle_replace_map(handle *self, mapping *map)
{
    mapping *old = map;
    int rc = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!self->open) {
        PyErr_SetString(PyExc_ValueError, "the shared memory was closed");
    }
    else if (keep_map_locked(self) == 0) {
        old = self->body.map;
        self->body.map = map;
        self->exported = false;
        self->size = mapping_size(map);
        rc = 0;
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(old);
    return rc;
}

/* ---- What a call takes ---- */

static void
raise_closed(handle *self)
{
    PyObject *name = handle_name_object(self);
    PyErr_Format(PyExc_ValueError, "the shared memory %R is closed",
                 name != NULL ? name : Py_None);
    Py_XDECREF(name);
}

PyObject *
handle_name_object(handle *self)
{
    PyObject *name;
    Py_BEGIN_CRITICAL_SECTION(self);
    name = Py_XNewRef(self->body.name);
    Py_END_CRITICAL_SECTION();
    return name;
}

int
handle_check_open(handle *self)
{
    bool open;
    Py_BEGIN_CRITICAL_SECTION(self);
    open = self->open;
    Py_END_CRITICAL_SECTION();
    if (!open) {
        raise_closed(self);
        return -1;
    }
    return 0;
}

struct fdref *
handle_take_fd(handle *self)
{
    struct fdref *fd = NULL;
    bool open;
    Py_BEGIN_CRITICAL_SECTION(self);
    open = self->open;
    if (open && self->body.fd != NULL) {
        fd = fdref_take(self->body.fd);
    }
    Py_END_CRITICAL_SECTION();
    if (fd == NULL && open) {
        PyErr_SetString(PyExc_ValueError,
                        "the descriptor was given up with close_fd()");
    }
    else if (fd == NULL) {
        raise_closed(self);
    }
    return fd;
}

mapping *
handle_take_map(handle *self)
{
    mapping *map = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->open) {
        map = (mapping *)Py_NewRef(self->body.map);
    }
    Py_END_CRITICAL_SECTION();
    if (map == NULL) {
        raise_closed(self);
    }
    return map;
}

int
handle_claim(handle *self)
{
    pid_t process = pshm_process_id();
    int rc = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->claimed && self->claimed_in == process) {
        PyErr_SetString(PyExc_BufferError,
                        "another thread is changing this shared memory");
    }
    else {
        self->claimed = true;
        self->claimed_in = process;
        rc = 0;
    }
    Py_END_CRITICAL_SECTION();
    return rc;
}

void
handle_release(handle *self)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    self->claimed = false;
    Py_END_CRITICAL_SECTION();
}

/* Where the object grows in place, others may have grown it. */
static void
update_size_locked(handle *self)
{
    struct pshm_status status;
    if (self->body.max_size == 0 || self->body.fd == NULL || self->claimed
        || pshm_status_of(self->body.fd->fd, &status) < 0) {
        return;
    }
    self->size = status.size < self->body.max_size ? (Py_ssize_t)status.size
                                                   : self->body.max_size;
    mapping_set_size(self->body.map, self->size);
}

bool
handle_current_size(handle *self, Py_ssize_t *size)
{
    bool open;
    Py_BEGIN_CRITICAL_SECTION(self);
    open = self->open;
    if (open) {
        update_size_locked(self);
    }
    *size = self->size;
    Py_END_CRITICAL_SECTION();
    return open;
}

/* ---- The buffer ---- */

int
handle_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    handle *self = as_handle(op);
    mapping *map = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->open) {
        update_size_locked(self);
        self->exported = true;
        map = (mapping *)Py_NewRef(self->body.map);
    }
    Py_END_CRITICAL_SECTION();
    view->obj = NULL;
    if (map == NULL) {
        raise_closed(self);
        return -1;
    }
    int rc = mapping_get_buffer(map, view, flags);
    Py_DECREF(map);
    return rc;
}

const char handle_get_buf_doc[] =
    "A new memoryview of all bytes.  It stays valid after close(): its obj\n"
    "is the Mapping.  Raises ValueError after close().";

PyObject *
handle_get_buf(PyObject *op, void *Py_UNUSED(closure))
{
    handle *self = as_handle(op);
    Py_ssize_t size;
    (void)handle_current_size(self, &size);
    mapping *map = handle_take_map(self);
    if (map == NULL) {
        return NULL;
    }
    PyObject *view = PyMemoryView_FromObject((PyObject *)map);
    Py_DECREF(map);
    return view;
}

/* ---- Plain attributes ---- */

const char handle_get_name_doc[] =
    "The name, a str without a slash; None where the object has none.";

PyObject *
handle_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *name = handle_name_object(as_handle(op));
    return name != NULL ? name : Py_NewRef(Py_None);
}

const char handle_get_size_doc[] =
    "Size in bytes, as mapped; where the object grows in place (max_size),\n"
    "its size of now.  After close() the last one known.";

PyObject *
handle_get_size(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    return PyLong_FromSsize_t(size);
}

const char handle_get_readonly_doc[] =
    "Whether the bytes cannot be written through this handle.";

PyObject *
handle_get_readonly(PyObject *op, void *Py_UNUSED(closure))
{
    handle *self = as_handle(op);
    bool readonly;
    Py_BEGIN_CRITICAL_SECTION(self);
    readonly = self->body.readonly
               || (self->open && !(self->body.map->prot & PROT_WRITE));
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(readonly);
}

const char handle_get_closed_doc[] = "Whether close() was called.";

PyObject *
handle_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    handle *self = as_handle(op);
    bool open;
    Py_BEGIN_CRITICAL_SECTION(self);
    open = self->open;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(!open);
}

const char handle_get_created_doc[] =
    "Whether this handle made the object, and did not attach to it.";

PyObject *
handle_get_created(PyObject *op, void *Py_UNUSED(closure))
{
    handle *self = as_handle(op);
    bool created;
    Py_BEGIN_CRITICAL_SECTION(self);
    created = self->body.created;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(created);
}

const char handle_get_max_size_doc[] =
    "Bytes of address space reserved for the object to grow in; None where\n"
    "it does not grow in place.";

PyObject *
handle_get_max_size(PyObject *op, void *Py_UNUSED(closure))
{
    handle *self = as_handle(op);
    Py_ssize_t max_size;
    Py_BEGIN_CRITICAL_SECTION(self);
    max_size = self->body.max_size;
    Py_END_CRITICAL_SECTION();
    return max_size > 0 ? PyLong_FromSsize_t(max_size) : Py_NewRef(Py_None);
}

/* ---- Letting go ---- */

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
    handle *self = as_handle(op);
    handle_body old = HANDLE_BODY_NONE;
    PyObject *finalizer;
    Py_BEGIN_CRITICAL_SECTION(self);
    self->open = false;
    old.fd = self->body.fd;
    self->body.fd = NULL;
    if (!self->exported) {
        old.map = self->body.map;
        self->body.map = NULL;
    }
    finalizer = self->finalizer;
    self->finalizer = NULL;
    Py_END_CRITICAL_SECTION();
    handle_body_drop(&old);
    return handle_finish(finalizer) < 0 ? NULL : Py_NewRef(Py_None);
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
    handle *self = as_handle(op);
    handle_body old = HANDLE_BODY_NONE;
    if (handle_check_open(self) < 0) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    old.fd = self->body.fd;
    self->body.fd = NULL;
    Py_END_CRITICAL_SECTION();
    handle_body_drop(&old);
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
    "(delete=True) stays.  Raises ValueError after close()\n"
    "or close_fd().";

/* A call in another thread that still uses the descriptor must not find it
 * closed and taken by somebody else, so then the caller gets a copy. */
static int
separate_fd(struct fdref **ref)
{
    struct fdref *fd = *ref;
    int users = atomic_load_explicit(&fd->users, memory_order_acquire);
    int number = users == 1 ? fd->fd : pshm_fd_copy(fd->fd);
    if (number >= 0 && users == 1) {
        fd->fd = -1;
    }
    return number;
}

PyObject *
handle_detach(PyObject *op, PyObject *unused)
{
    handle *self = as_handle(op);
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    fdref_drop(fd);
    int number = -1;
    PyObject *finalizer = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->open && self->body.fd != NULL) {
        number = separate_fd(&self->body.fd);
        finalizer = self->finalizer;
        if (number >= 0) {
            self->finalizer = NULL;
        }
        else {
            finalizer = NULL;
        }
    }
    else {
        number = -EBADF;
    }
    Py_END_CRITICAL_SECTION();
    if (number < 0) {
        return raise_errno(number, NULL);
    }
    PyObject *result = PyLong_FromLong(number);
    if (finalizer != NULL) {
        PyObject *info = PyObject_CallMethod(finalizer, "detach", NULL);
        Py_XDECREF(info);
        Py_DECREF(finalizer);
    }
    PyObject *closed = handle_close(op, unused);
    if (closed == NULL || result == NULL || PyErr_Occurred()) {
        Py_XDECREF(closed);
        Py_XDECREF(result);
        return NULL;
    }
    Py_DECREF(closed);
    return result;
}

void
handle_dealloc(PyObject *op)
{
    handle *self = as_handle(op);
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);     /* calls the finalizer */
    }
    handle_body_drop(&self->body);
    Py_CLEAR(self->kept);
    Py_CLEAR(self->finalizer);
    type->tp_free(op);
    Py_DECREF(type);
}
