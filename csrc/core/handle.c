#include "handle.h"

#include "handle_table.h"

#include "posix/attach.h"
#include "posix/host.h"

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
 * buffer was taken.  Under the lock of its fields.  Returns 0 or -1. */
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
handle_install(handle *self, handle_body *body, PyObject **duty)
{
    handle_body old = HANDLE_BODY_NONE;
    int rc;
    *duty = NULL;
    mapping_complete(body->map);
    handle_table_remove(self);
    fields_lock(&self->fields);
    rc = keep_map_locked(self);
    if (rc == 0) {
        old = self->body;
        *duty = self->duty;
        self->body = *body;
        self->duty = NULL;
        self->exported = false;
        self->open = true;
        self->size = mapping_size(body->map);
    }
    fields_unlock(&self->fields);
    if (rc < 0) {
        handle_body_drop(body);
        return rc;
    }
    handle_body_drop(&old);
    return 0;
}

void
handle_raise_changed(void)
{
    PyErr_SetString(PyExc_ValueError,
                    "the shared memory was closed, or became another object, "
                    "in the middle of the call");
}

int
handle_replace_map(handle *self, mapping *old, mapping *map)
{
    mapping *drop = map;
    int rc = -1;
    mapping_complete(map);
    fields_lock(&self->fields);
    if (!self->open || self->body.map != old) {
        handle_raise_changed();
    }
    else if (keep_map_locked(self) == 0) {
        drop = old;
        self->body.map = map;
        self->exported = false;
        self->size = mapping_size(map);
        rc = 0;
    }
    fields_unlock(&self->fields);
    Py_DECREF(drop);
    return rc;
}

/* ---- What a call takes ---- */

void
handle_raise_closed(handle *self)
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
    fields_lock(&self->fields);
    name = Py_XNewRef(self->body.name);
    fields_unlock(&self->fields);
    return name;
}

int
handle_check_open(handle *self)
{
    bool open;
    fields_lock(&self->fields);
    open = self->open;
    fields_unlock(&self->fields);
    if (!open) {
        handle_raise_closed(self);
        return -1;
    }
    return 0;
}

struct fdref *
handle_take_fd(handle *self)
{
    struct fdref *fd = NULL;
    bool open;
    fields_lock(&self->fields);
    open = self->open;
    if (open && self->body.fd != NULL) {
        fd = fdref_take(self->body.fd);
    }
    fields_unlock(&self->fields);
    if (fd == NULL && open) {
        PyErr_SetString(PyExc_ValueError,
                        "the descriptor was given up with close_fd()");
    }
    else if (fd == NULL) {
        handle_raise_closed(self);
    }
    return fd;
}

mapping *
handle_take_map(handle *self)
{
    mapping *map = NULL;
    fields_lock(&self->fields);
    if (self->open) {
        map = (mapping *)Py_NewRef(self->body.map);
    }
    fields_unlock(&self->fields);
    if (map == NULL) {
        handle_raise_closed(self);
    }
    return map;
}

/* In a child that was forked meanwhile the thread that had it is not there. */
static bool
is_claimed_locked(handle *self)
{
    return self->claimed && self->claimed_in == pshm_forks();
}

int
handle_claim(handle *self)
{
    int rc = -1;
    fields_lock(&self->fields);
    if (is_claimed_locked(self)) {
        PyErr_SetString(PyExc_BufferError,
                        "another thread is changing this shared memory");
    }
    else {
        self->claimed = true;
        self->claimed_in = pshm_forks();
        rc = 0;
    }
    fields_unlock(&self->fields);
    return rc;
}

void
handle_release(handle *self)
{
    fields_lock(&self->fields);
    self->claimed = false;
    fields_unlock(&self->fields);
}

/* Where the object grows in place, others may have grown it. */
static void
update_size_locked(handle *self)
{
    struct pshm_status status;
    if (self->body.max_size == 0 || self->body.fd == NULL
        || is_claimed_locked(self)
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
    fields_lock(&self->fields);
    open = self->open;
    if (open) {
        update_size_locked(self);
    }
    *size = self->size;
    fields_unlock(&self->fields);
    return open;
}

/* ---- The buffer ---- */

int
handle_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    handle *self = as_handle(op);
    mapping *map = NULL;
    int rc = 1;
    view->obj = NULL;
    fields_lock(&self->fields);
    if (self->open) {
        update_size_locked(self);
        self->exported = true;
        rc = mapping_get_granted_buffer(self->body.map, view, flags);
        if (rc == 1) {
            map = (mapping *)Py_NewRef(self->body.map);
        }
    }
    fields_unlock(&self->fields);
    if (rc != 1) {
        return rc;
    }
    if (map == NULL) {
        handle_raise_closed(self);
        return -1;
    }
    rc = mapping_get_buffer(map, view, flags);
    Py_DECREF(map);
    return rc;
}

const char handle_get_buf_doc[] =
    "A new memoryview of all bytes.  It stays valid after close(): its obj\n"
    "is the MemoryMap.  Raises ValueError after close().";

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

/* ---- The end ---- */

void
handle_dealloc(PyObject *op)
{
    handle *self = as_handle(op);
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    handle_table_remove(self);
    if (self->duty != NULL) {
        /* The end of the weak references did it, unless weakref is through
         * with its own part of the interpreter's end. */
        handle_delete_last(self->duty);
    }
    handle_body_drop(&self->body);
    Py_CLEAR(self->kept);
    type->tp_free(op);
    Py_DECREF(type);
}
