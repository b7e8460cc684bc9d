#include "core/memory/handle.h"

#include <string.h>

#include "core/errors.h"
#include "core/memory/handle_table.h"
#include "core/memory/last.h"

#include "posix/host.h"

/* ---- The state ---- */

PyObject *
handle_name_of(const struct pshm_name *path, PyObject *given)
{
    const char *name = pshm_name_plain(path);
    if (given != NULL && PyUnicode_CheckExact(given)) {
        const char *text = PyUnicode_AsUTF8(given);
        if (text != NULL && strcmp(text, name) == 0) {
            return Py_NewRef(given);
        }
        PyErr_Clear();
    }
    PyObject *made = PyUnicode_FromString(name);
    if (made != NULL && PyUnicode_AsUTF8(made) == NULL) {
        Py_CLEAR(made);
    }
    return made;
}

struct pshm_name
handle_path(PyObject *name)
{
    struct pshm_name path;
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(name, &length);
    (void)pshm_name_parse(text, (size_t)length, &path);
    return path;
}

/* The last descriptor of an object without a name frees its memory, so it is
 * closed without the GIL: in the deallocator of the map if that has no other
 * user, so that the GIL is released once. */
void
handle_state_clear(handle_state *state)
{
    struct fdref *fd = state->fd;
    state->fd = NULL;
#ifndef Py_GIL_DISABLED
    if (state->map != NULL && Py_REFCNT(state->map) == 1) {
        state->map->closing = fd;
        fd = NULL;
    }
#endif
    if (fd != NULL) {
        Py_BEGIN_ALLOW_THREADS
        fdref_drop(fd);
        Py_END_ALLOW_THREADS
    }
    Py_CLEAR(state->map);
    Py_CLEAR(state->name);
    handle_delete_cancel(state->finalizer);
    state->finalizer = NULL;
}

/* Lock the fields. If the handle itself was exported, move its map to old_maps,
 * in a pair that is made without the lock, for that may run Python code. *pair:
 * to be released without the lock. Returns 0; or -1, without the lock, with an
 * exception. */
static int
lock_and_keep_map(SharedMemoryObject *self, PyObject **pair)
{
    *pair = NULL;
    fields_lock(&self->fields);
    while (self->has_exports && self->state.map != NULL) {
        if (*pair != NULL) {
            PyObject *rest = self->old_maps;
            PyTuple_SET_ITEM(*pair, 0, Py_NewRef(self->state.map));
            PyTuple_SET_ITEM(*pair, 1,
                             rest != NULL ? rest : Py_NewRef(Py_None));
            self->old_maps = *pair;
            *pair = NULL;
            return 0;
        }
        fields_unlock(&self->fields);
        *pair = PyTuple_New(2);
        if (*pair == NULL) {
            return -1;
        }
        /* The collector must not show it while it is empty. */
        PyObject_GC_UnTrack(*pair);
        fields_lock(&self->fields);
    }
    return 0;
}

/* delete="last": the mapping removes the name when it is unmapped, and the end
 * of the process does if the mapping still exists then. */
static int
prepare_last(SharedMemoryObject *self, const handle_state *state)
{
    core_state *module = core_state_of_type(Py_TYPE(self));
    if (!state->last || state->name == NULL) {
        return 0;
    }
    if (state->map->last == NULL) {
        struct pshm_name path = handle_path(state->name);
        state->map->last = last_new(module->support, &path, state->id,
                                    state->track);
    }
    PyObject *result = state->map->last == NULL
                           ? NULL
                           : PyObject_CallMethod(module->support,
                                                 "leave_at_end", "O", self);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_ImportError)) {
        /* A process that has changed its user cannot read the standard library
         * any more. */
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
handle_install(SharedMemoryObject *self, handle_state *state)
{
    PyObject *pair;
    if (prepare_last(self, state) < 0) {
        handle_state_clear(state);
        return -1;
    }
    mapping_complete(state->map);
    handle_table_remove(self);
    if (lock_and_keep_map(self, &pair) < 0) {
        handle_state_clear(state);
        return -1;
    }
    handle_state old = self->state;
    self->state = *state;
    self->has_exports = false;
    self->open = true;
    self->size = mapping_size(state->map);
    fields_unlock(&self->fields);
    Py_XDECREF(pair);
    struct finalizer *finalizer = old.finalizer;
    old.finalizer = NULL;
    handle_state_clear(&old);
    return handle_delete_now(finalizer) < 0 ? 1 : 0;
}

int
handle_replace_map(SharedMemoryObject *self, MemoryMapObject *old,
                   MemoryMapObject *map)
{
    PyObject *pair;
    mapping_complete(map);
    map->last = last_share(old->last);
    if (lock_and_keep_map(self, &pair) < 0) {
        Py_DECREF(map);
        return -1;
    }
    bool valid = self->open && self->state.map == old;
    if (valid) {
        self->state.map = map;
        self->has_exports = false;
        self->size = mapping_size(map);
    }
    fields_unlock(&self->fields);
    Py_XDECREF(pair);
    Py_DECREF(valid ? old : map);
    if (!valid) {
        PyErr_SetString(PyExc_ValueError,
                        "another thread closed or reopened the shared memory "
                        "during the call");
    }
    return valid ? 0 : -1;
}

/* ---- Acquiring ---- */

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

/* rc: the result of fdref_check. */
static void
raise_lost(const handle_state *now, int rc)
{
    if (rc != -EBADF) {
        raise_errno(rc, now->name);
        return;
    }
    raise_errno_words(rc, now->name,
                      "Other code of this program closed descriptor %d of the "
                      "shared memory; views of it stay valid, and it can be "
                      "opened again by its name",
                      now->fd->fd);
}

/* In a child that was forked meanwhile, the thread that claimed it does not
 * exist. */
static bool
is_claimed_locked(SharedMemoryObject *self)
{
    return self->claimed && self->claimed_in == pshm_forks();
}

int
handle_acquire(SharedMemoryObject *self, int needs, handle_state *now)
{
    fields_lock(&self->fields);
    bool open = self->open, has_fd = self->state.fd != NULL;
    bool claimed = needs & HANDLE_CLAIM && is_claimed_locked(self);
    bool valid = (needs == 0 || open) && (!(needs & HANDLE_FD) || has_fd)
                 && !claimed;
    *now = self->state;
    now->fd = NULL;
    now->map = NULL;
    now->finalizer = NULL;
    now->name = valid ? Py_XNewRef(self->state.name) : NULL;
    if (valid && needs & HANDLE_FD) {
        now->fd = fdref_take(self->state.fd);
    }
    if (valid && needs & HANDLE_MAP) {
        now->map = (MemoryMapObject *)Py_NewRef(self->state.map);
    }
    if (valid && needs & HANDLE_CLAIM) {
        self->claimed = true;
        self->claimed_in = pshm_forks();
    }
    fields_unlock(&self->fields);
    int rc = now->fd != NULL ? fdref_check(now->fd) : 0;
    if (rc < 0) {
        raise_lost(now, rc);
        handle_release(self, needs, now);
        return -1;
    }
    if (!valid && needs != 0 && !open) {
        handle_raise_closed(self);
    }
    else if (!valid && !claimed) {
        PyErr_SetString(PyExc_ValueError,
                        "close_fd() closed the descriptor of the shared "
                        "memory, which this call needs");
    }
    else if (!valid) {
        PyErr_SetString(PyExc_BufferError,
                        "another thread is renaming or resizing this shared "
                        "memory");
    }
    return valid ? 0 : -1;
}

void
handle_release(SharedMemoryObject *self, int needs, handle_state *now)
{
    if (needs & HANDLE_CLAIM) {
        fields_lock(&self->fields);
        self->claimed = false;
        fields_unlock(&self->fields);
    }
    fdref_drop(now->fd);
    Py_XDECREF(now->map);
    Py_XDECREF(now->name);
}

struct fdref *
handle_take_fd(SharedMemoryObject *self)
{
    handle_state now;
    if (handle_acquire(self, HANDLE_FD, &now) < 0) {
        return NULL;
    }
    Py_XDECREF(now.name);
    return now.fd;
}

MemoryMapObject *
handle_take_map(SharedMemoryObject *self)
{
    MemoryMapObject *map = NULL;
    fields_lock(&self->fields);
    if (self->open) {
        map = (MemoryMapObject *)Py_NewRef(self->state.map);
    }
    fields_unlock(&self->fields);
    if (map == NULL) {
        handle_raise_closed(self);
    }
    return map;
}

int
handle_check_open(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    bool open = self->open;
    fields_unlock(&self->fields);
    if (!open) {
        handle_raise_closed(self);
    }
    return open ? 0 : -1;
}

PyObject *
handle_name_object(SharedMemoryObject *self)
{
    fields_lock(&self->fields);
    PyObject *name = Py_XNewRef(self->state.name);
    fields_unlock(&self->fields);
    return name;
}

/* Another process may have grown the object in place. */
static void
update_size_locked(SharedMemoryObject *self)
{
    struct pshm_status status;
    handle_state *state = &self->state;
    if (state->max_size == 0 || state->fd == NULL || is_claimed_locked(self)
        || pshm_status_of(state->fd->fd, &status) < 0
        || !pshm_identity_same(status.id, state->fd->id)) {
        return;
    }
    self->size = status.size < state->max_size ? (Py_ssize_t)status.size
                                               : state->max_size;
    mapping_set_size(state->map, self->size);
}

bool
handle_current_size(SharedMemoryObject *self, Py_ssize_t *size)
{
    fields_lock(&self->fields);
    bool open = self->open;
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
        self->has_exports = true;
        rc = mapping_get_granted_buffer(self->state.map, view, flags);
        if (rc == 1) {
            map = (MemoryMapObject *)Py_NewRef(self->state.map);
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
        view->internal = MAPPING_EXPORTED_BY_HANDLE;
    }
    return rc;
}

const char handle_get_buf_doc[] =
    "A new memoryview of all bytes. It stays valid after close(): its obj is\n"
    "the MemoryMap. Raises ValueError after close().";

PyObject *
handle_get_buf(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    MemoryMapObject *map = handle_take_map(as_handle(op));
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
    handle_delete_last(self->state.finalizer);
    self->state.finalizer = NULL;
    handle_state_clear(&self->state);
    Py_CLEAR(self->old_maps);
    type->tp_free(op);
    Py_DECREF(type);
}
