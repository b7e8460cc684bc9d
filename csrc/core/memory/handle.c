#include "core/memory/handle.h"

#include "core/errors.h"
#include "core/memory/handle_table.h"
#include "core/memory/last.h"

#include "posix/object/attach.h"
#include "posix/host.h"

/* ---- Bodies ---- */

void
handle_state_clear(handle_state *body)
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

/* Not for the collector to show while it is empty. */
static PyObject *
new_pair(void)
{
    PyObject *pair = PyTuple_New(2);
    if (pair != NULL) {
        PyObject_GC_UnTrack(pair);
    }
    return pair;
}

/* Keep the handle's mapping for as long as the handle, if the handle's own
 * buffer was taken: as (mapping, what was kept before).  Under the lock of its
 * fields; *pair was made before, for that may run Python code. */
static void
keep_map_locked(SharedMemoryObject *self, PyObject **pair)
{
    if (self->exported && self->body.map != NULL) {
        PyTuple_SET_ITEM(*pair, 0, Py_NewRef(self->body.map));
        PyTuple_SET_ITEM(*pair, 1, self->kept != NULL ? self->kept
                                                      : Py_NewRef(Py_None));
        self->kept = *pair;
        *pair = NULL;
    }
}

/* delete="last": the mapping and the end of the process see to it. */
static int
prepare_last(SharedMemoryObject *self, const handle_state *body)
{
    core_state *state = core_state_of_type(Py_TYPE(self));
    if (!body->last || body->name == NULL) {
        return 0;
    }
    if (body->map->last == NULL) {
        body->map->last = last_new(state->support, &body->path, body->id,
                                   body->track);
    }
    PyObject *result = body->map->last == NULL
                           ? NULL
                           : PyObject_CallMethod(state->support,
                                                 "leave_at_end", "O", self);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_ImportError)) {
        /* Of a process that has changed its user, and cannot read the standard
         * library any more. */
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
handle_install(SharedMemoryObject *self, handle_state *body, PyObject **duty)
{
    handle_state old;
    PyObject *pair = new_pair();
    *duty = NULL;
    if (pair == NULL || prepare_last(self, body) < 0) {
        Py_XDECREF(pair);
        handle_state_clear(body);
        return -1;
    }
    mapping_complete(body->map);
    handle_table_remove(self);
    fields_lock(&self->fields);
    keep_map_locked(self, &pair);
    old = self->body;
    *duty = self->duty;
    self->body = *body;
    self->duty = NULL;
    self->exported = false;
    self->open = true;
    self->size = mapping_size(body->map);
    fields_unlock(&self->fields);
    Py_XDECREF(pair);
    handle_state_clear(&old);
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
handle_replace_map(SharedMemoryObject *self, MemoryMapObject *old,
                   MemoryMapObject *map)
{
    MemoryMapObject *drop = map;
    int rc = -1;
    PyObject *pair = new_pair();
    if (pair == NULL) {
        Py_DECREF(map);
        return -1;
    }
    mapping_complete(map);
    map->last = last_share(old->last);
    fields_lock(&self->fields);
    if (!self->open || self->body.map != old) {
        handle_raise_changed();
    }
    else {
        keep_map_locked(self, &pair);
        drop = old;
        self->body.map = map;
        self->exported = false;
        self->size = mapping_size(map);
        rc = 0;
    }
    fields_unlock(&self->fields);
    Py_XDECREF(pair);
    Py_DECREF(drop);
    return rc;
}

void
handle_share_last(SharedMemoryObject *self, MemoryMapObject *map)
{
    fields_lock(&self->fields);
    MemoryMapObject *own = (MemoryMapObject *)Py_XNewRef(self->body.map);
    fields_unlock(&self->fields);
    if (own != NULL) {
        map->last = last_share(own->last);
        Py_DECREF(own);
    }
}

/* ---- What a call takes ---- */

void
handle_raise_closed(SharedMemoryObject *self)
{
    PyObject *name = handle_name_object(self);
    if (name == NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "the shared memory without a name is closed");
    }
    else {
        PyErr_Format(PyExc_ValueError, "the shared memory %R is closed", name);
        Py_DECREF(name);
    }
}

PyObject *
handle_name_object(SharedMemoryObject *self)
{
    PyObject *name;
    fields_lock(&self->fields);
    name = Py_XNewRef(self->body.name);
    fields_unlock(&self->fields);
    return name;
}

int
handle_check_open(SharedMemoryObject *self)
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

/* rc: of fdref_check. */
static void
raise_lost(SharedMemoryObject *self, int rc, int fd)
{
    PyObject *name = handle_name_object(self);
    if (rc != -EBADF) {
        raise_errno(rc, name);
        Py_XDECREF(name);
        return;
    }
    raise_errno_words(-EBADF, name,
                      "Another part of this program closed descriptor %d of "
                      "this shared memory, and it is no longer that object; "
                      "the memory can still be used, and opened again by its "
                      "name", fd);
    Py_XDECREF(name);
}

struct fdref *
handle_take_fd(SharedMemoryObject *self)
{
    struct fdref *fd = NULL;
    bool open;
    fields_lock(&self->fields);
    open = self->open;
    if (open && self->body.fd != NULL) {
        fd = fdref_take(self->body.fd);
    }
    fields_unlock(&self->fields);
    int rc = fd == NULL ? 0 : fdref_check(fd);
    if (rc < 0) {
        raise_lost(self, rc, fd->fd);
        fdref_drop(fd);
        return NULL;
    }
    if (fd == NULL && open) {
        PyErr_SetString(PyExc_ValueError,
                        "the descriptor was given up with close_fd()");
    }
    else if (fd == NULL) {
        handle_raise_closed(self);
    }
    return fd;
}

MemoryMapObject *
handle_take_map(SharedMemoryObject *self)
{
    MemoryMapObject *map = NULL;
    fields_lock(&self->fields);
    if (self->open) {
        map = (MemoryMapObject *)Py_NewRef(self->body.map);
    }
    fields_unlock(&self->fields);
    if (map == NULL) {
        handle_raise_closed(self);
    }
    return map;
}

/* In a child that was forked meanwhile the thread that had it is not there. */
static bool
is_claimed_locked(SharedMemoryObject *self)
{
    return self->claimed && self->claimed_in == pshm_forks();
}

int
handle_claim(SharedMemoryObject *self)
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
handle_release(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    self->claimed = false;
    fields_unlock(&self->fields);
}

/* Where the object grows in place, others may have grown it. */
static void
update_size_locked(SharedMemoryObject *self)
{
    struct pshm_status status;
    if (self->body.max_size == 0 || self->body.fd == NULL
        || is_claimed_locked(self)
        || pshm_status_of(self->body.fd->fd, &status) < 0
        || !pshm_identity_same(status.id, self->body.fd->id)) {
        return;
    }
    self->size = status.size < self->body.max_size ? (Py_ssize_t)status.size
                                                   : self->body.max_size;
    mapping_set_size(self->body.map, self->size);
}

bool
handle_current_size(SharedMemoryObject *self, Py_ssize_t *size)
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
    SharedMemoryObject *self = as_handle(op);
    MemoryMapObject *map = NULL;
    int rc = 1;
    view->obj = NULL;
    fields_lock(&self->fields);
    if (self->open) {
        update_size_locked(self);
        self->exported = true;
        rc = mapping_get_granted_buffer(self->body.map, view, flags);
        if (rc == 1) {
            map = (MemoryMapObject *)Py_NewRef(self->body.map);
        }
    }
    fields_unlock(&self->fields);
    if (rc == 1 && map == NULL) {
        handle_raise_closed(self);
        return -1;
    }
    if (rc == 1) {
        rc = mapping_get_buffer(map, view, flags);
        Py_DECREF(map);
    }
    if (rc == 0) {
        view->internal = MAPPING_TAKEN_FROM_HANDLE;
    }
    return rc;
}

const char handle_get_buf_doc[] =
    "A new memoryview of all bytes.  It stays valid after close(): its obj\n"
    "is the MemoryMap.  Raises ValueError after close().";

PyObject *
handle_get_buf(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    Py_ssize_t size;
    (void)handle_current_size(self, &size);
    MemoryMapObject *map = handle_take_map(self);
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
    SharedMemoryObject *self = as_handle(op);
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
    handle_state_clear(&self->body);
    Py_CLEAR(self->kept);
    type->tp_free(op);
    Py_DECREF(type);
}
