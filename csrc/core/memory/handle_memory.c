/* The memory of a handle: ranges of it, its protection, its pages. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/view/view.h"

/* ---- map ---- */

const char handle_map_doc[] =
    "map($self, /, offset=0, length=None, *, readonly=None)\n--\n\n"
    "A new MemoryMap of a range of the object: " MAN(mmap, 2) ".\n\n"
    "offset: bytes, a multiple of PAGESIZE.  length: bytes; None: up to the\n"
    "end.  readonly: None: as .readonly says.  It lives on after close().\n\n"
    "Raises ValueError for a range past the end of the object, or after\n"
    "close(); PermissionError for readonly=False on a read-only handle;\n"
    "OSError (ENOMEM).";

PyObject *
handle_map(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length", "readonly", NULL};
    static const struct signature signature = {"map", 2, 0, names};
    SharedMemoryObject *self = as_handle(op);
    PyObject *values[3];
    Py_ssize_t offset = 0, length = -1;
    bool readonly;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[0] != NULL && arg_offset(values[0], "offset", &offset) < 0)
        || (values[1] != NULL && values[1] != Py_None
            && arg_size(values[1], "length", &length) < 0)) {
        return NULL;
    }
    readonly = handle_is_readonly(self);
    if (values[2] != Py_None && arg_bool(values[2], &readonly) < 0) {
        return NULL;
    }
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    bool for_good;
    fields_lock(&self->fields);
    for_good = self->body.readonly;
    fields_unlock(&self->fields);
    PyObject *name = handle_name_object(self), *result = NULL;
    if (for_good && !readonly) {
        raise_errno_words(-EACCES, name, "The handle is read-only");
    }
    else {
        result = mapping_from_fd(core_state_of_type(Py_TYPE(op)), fd->fd,
                                 offset, length, readonly, false, name);
    }
    if (result != NULL) {
        ((MemoryMapObject *)result)->readonly = for_good;
        handle_share_last(self, (MemoryMapObject *)result);
    }
    Py_XDECREF(name);
    fdref_drop(fd);
    return result;
}

/* ---- Protection ---- */

const char handle_protect_doc[] =
    "protect($self, prot, /)\n--\n\n"
    "Set what this handle's memory may be used for: " MAN(mprotect, 2) ".\n\n"
    "prot: PROT_READ | PROT_WRITE, PROT_READ or PROT_NONE.\n\n"
    "Raises BufferError where a live view would lose a right, or the handle's\n"
    "own buffer was taken; PermissionError for PROT_WRITE on a read-only\n"
    "handle; ValueError after close().";

/* A map that other handles have too stays as it is for them: this one gets its
 * own.  Owns map.  Returns a new reference, or NULL with an exception. */
static MemoryMapObject *
separate(SharedMemoryObject *self, MemoryMapObject *map)
{
    struct fdref *fd = handle_take_fd(self);
    PyObject *name = handle_name_object(self), *own = NULL;
    if (fd != NULL) {
        own = mapping_from_fd(core_state_of_type(Py_TYPE(self)), fd->fd, 0,
                              mapping_size(map), map->readonly, false,
                              name);
        fdref_drop(fd);
    }
    if (own != NULL) {
        ((MemoryMapObject *)own)->readonly = map->readonly;
        (void)mapping_decide((MemoryMapObject *)own, MAPPING_SINGLE);
        if (handle_replace_map(self, map, (MemoryMapObject *)Py_NewRef(own))
            < 0) {
            Py_CLEAR(own);
        }
    }
    Py_XDECREF(name);
    Py_DECREF(map);
    return (MemoryMapObject *)own;
}

PyObject *
handle_protect(PyObject *op, PyObject *value)
{
    SharedMemoryObject *self = as_handle(op);
    int prot;
    if (mapping_parse_prot(value, &prot) == NULL) {
        return NULL;
    }
    MemoryMapObject *map = handle_take_map(self);
    if (map == NULL) {
        return NULL;
    }
    if (map->prot == prot) {
        /* No change; and protect() of another handle must not find one. */
        if (atomic_load_explicit(&map->use, memory_order_acquire)
            == MAPPING_SHARED) {
            Py_DECREF(map);
            Py_RETURN_NONE;
        }
    }
    else if (!mapping_decide(map, MAPPING_SINGLE)) {
        map = separate(self, map);
        if (map == NULL) {
            return NULL;
        }
    }
    fields_lock_both(&self->fields, &map->fields);
    /* Ours and the handle's: all views are gone, and with them their rights. */
    if (!self->exported && self->body.map == map
        && mapping_is_private_locked(map, 2)) {
        map->granted = 0;
    }
    fields_unlock(&map->fields);
    fields_unlock(&self->fields);
    PyObject *name = handle_name_object(self);
    int rc = mapping_protect(map, prot, name);
    Py_XDECREF(name);
    Py_DECREF(map);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- What a MemoryMap can do, on the whole of the handle's ---- */

static PyObject *
name_failure(PyObject *op)
{
    PyObject *name = handle_name_object(as_handle(op));
    raise_again_with(name);
    Py_XDECREF(name);
    return NULL;
}

static PyObject *
delegate(PyObject *op, const char *method, PyObject *const *args,
         Py_ssize_t count, PyObject *kwnames)
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    MemoryMapObject *map = handle_take_map(as_handle(op));
    if (map == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *bound = PyObject_GetAttrString((PyObject *)map, method);
    if (bound != NULL) {
        result = PyObject_Vectorcall(bound, args, (size_t)count, kwnames);
        Py_DECREF(bound);
    }
    Py_DECREF(map);
    return result != NULL ? result : name_failure(op);
}

#define DELEGATED(name, signature, text)                                     \
    const char handle_##name##_doc[] =                                       \
        #name "($self, /, " signature ")\n--\n\n" text                       \
        "\n\nAs MemoryMap." #name ", on this handle's memory.  Raises\n"       \
        "ValueError after close().";                                         \
    PyObject *handle_##name(PyObject *op, PyObject *const *args,             \
                            Py_ssize_t count, PyObject *kwnames)             \
    {                                                                        \
        return delegate(op, #name, args, count, kwnames);                    \
    }

DELEGATED(advise, "advice, offset=0, length=None",
          "Tell the kernel how pages will be used: " MAN(madvise, 2) ".")
DELEGATED(sync, "offset=0, length=None, flags=4",
          "Write pages of a file back: " MAN(msync, 2) ".  flags: 4 is MS_SYNC.")
DELEGATED(lock_pages, "offset=0, length=None",
          "Keep pages in memory: " MAN(mlock, 2) ".")
DELEGATED(unlock_pages, "offset=0, length=None",
          "Undo lock_pages: " MAN(munlock, 2) ".")
const char handle_populate_doc[] =
    "populate($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages in and map them: " MAN(madvise, 2) ".\n\n"
    "As MemoryMap.populate, on this handle's memory.  If it is known before\n"
    "that the memory cannot be had (OSError: ENOSPC, ENOMEM), none is taken.\n"
    "Raises ValueError after close().";

PyObject *
handle_populate(PyObject *op, PyObject *const *args, Py_ssize_t count,
                PyObject *kwnames)
{
    SharedMemoryObject *self = as_handle(op);
    Py_ssize_t size;
    (void)handle_current_size(self, &size);
    MemoryMapObject *map = handle_take_map(self);
    if (map == NULL) {
        return NULL;
    }
    /* Without one, as after close_fd(), it is looked for. */
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        PyErr_Clear();
    }
    PyObject *result = mapping_populate(map, fd != NULL ? fd->fd : -1, args,
                                        count, kwnames);
    if (fd != NULL) {
        fdref_drop(fd);
    }
    Py_DECREF(map);
    return result != NULL ? result : name_failure(op);
}

const char handle_view_doc[] =
    "view($self, /, format='B', shape=None, offset=0, strides=None,\n"
    "     readonly=False)\n--\n\n"
    "A View: this memory as an array, without a copy: PEP 3118.\n\n"
    "As MemoryMap.view, on this handle's memory.  The view keeps the handle, by\n"
    "which it is pickled.  Raises ValueError after close().";

PyObject *
handle_view(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    SharedMemoryObject *self = as_handle(op);
    struct view_origin origin = {.shm = op};
    Py_ssize_t size;
    (void)handle_current_size(self, &size);
    fields_lock(&self->fields);
    MemoryMapObject *map =
        self->open ? (MemoryMapObject *)Py_NewRef(self->body.map) : NULL;
    origin.id = self->body.id;
    fields_unlock(&self->fields);
    if (map == NULL) {
        handle_raise_closed(self);
        return NULL;
    }
    PyObject *result = view_make(map, &origin, args, count, kwnames);
    Py_DECREF(map);
    return result;
}

const char handle_get_resident_doc[] =
    "How many bytes, in whole pages, are in memory now: " MAN(mincore, 2) ".\n"
    "Raises ValueError after close().";

PyObject *
handle_get_resident(PyObject *op, void *Py_UNUSED(closure))
{
    MemoryMapObject *map = handle_take_map(as_handle(op));
    if (map == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_GetAttrString((PyObject *)map, "resident");
    Py_DECREF(map);
    return result != NULL ? result : name_failure(op);
}
