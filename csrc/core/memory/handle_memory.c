/* The memory of a handle: ranges of it, its protection, its views. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/memory/last.h"
#include "core/view/view.h"

/* ---- map ---- */

const char handle_map_doc[] =
    "map($self, /, offset=0, length=None, *, readonly=None)\n--\n\n"
    "Return a new MemoryMap of a range of the object: " MAN(mmap, 2) ".\n\n"
    "The map stays valid after close().\n\n"
    "offset: bytes, a multiple of PAGESIZE. length: bytes; None: up to the\n"
    "end of the object. readonly: whether the bytes cannot be written; None:\n"
    "as .readonly of the handle.\n\n"
    "Raises ValueError for a range past the end of the object, and after\n"
    "close(); PermissionError for readonly=False on a read-only handle;\n"
    "OSError: ENOMEM.";

PyObject *
handle_map(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length", "readonly", NULL};
    static const struct signature signature = {"map", 2, 0, names};
    PyObject *values[3], *result = NULL;
    Py_ssize_t offset = 0, length = -1;
    handle_state now;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[0] != NULL && arg_offset(values[0], "offset", &offset) < 0)
        || (values[1] != NULL && values[1] != Py_None
            && arg_size(values[1], "length", &length) < 0)
        || handle_acquire(as_handle(op), HANDLE_FD | HANDLE_MAP, &now) < 0) {
        return NULL;
    }
    bool readonly = now.readonly || !(now.map->prot & PROT_WRITE);
    if (values[2] != Py_None && arg_bool(values[2], &readonly) < 0) {
        /* raised */
    }
    else if (now.readonly && !readonly) {
        raise_errno_words(-EACCES, now.name,
                          "The handle is read-only, and cannot be mapped for "
                          "writing");
    }
    else {
        result = mapping_from_fd(core_state_of_type(Py_TYPE(op)), now.fd->fd,
                                 offset, length, readonly, false, now.name);
    }
    if (result != NULL) {
        ((MemoryMapObject *)result)->readonly = now.readonly;
        ((MemoryMapObject *)result)->last = last_share(now.map->last);
    }
    handle_release(as_handle(op), HANDLE_FD | HANDLE_MAP, &now);
    return result;
}

/* ---- Protection ---- */

const char handle_protect_doc[] =
    "protect($self, prot, /)\n--\n\n"
    "Set the protection of this handle's memory: " MAN(mprotect, 2) ".\n\n"
    "prot: PROT_READ | PROT_WRITE, PROT_READ or PROT_NONE.\n\n"
    "Raises BufferError if a live view would lose a right, or if the handle\n"
    "itself was exported as a buffer; PermissionError for PROT_WRITE on a\n"
    "read-only handle; ValueError after close().";

/* Other handles share the map, and must keep its rights, so this handle gets a
 * map of its own. Replaces now->map. Returns 0 or -1. */
static int
separate_map(SharedMemoryObject *self, handle_state *now)
{
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return -1;
    }
    MemoryMapObject *own = (MemoryMapObject *)mapping_from_fd(
        core_state_of_type(Py_TYPE((PyObject *)self)), fd->fd, 0,
        mapping_size(now->map), now->map->readonly, false, now->name);
    fdref_drop(fd);
    if (own == NULL) {
        return -1;
    }
    own->readonly = now->map->readonly;
    (void)mapping_decide(own, MAPPING_SINGLE);
    if (handle_replace_map(self, now->map,
                           (MemoryMapObject *)Py_NewRef((PyObject *)own))
        < 0) {
        Py_DECREF(own);
        return -1;
    }
    Py_SETREF(now->map, own);
    return 0;
}

/* If all views are gone, their rights are too. */
static void
forget_grants(SharedMemoryObject *self, MemoryMapObject *map)
{
    fields_lock_both(&self->fields, &map->fields);
    /* The caller and the handle have one reference each. */
    if (!self->has_exports && self->state.map == map
        && mapping_is_private_locked(map, 2)) {
        map->granted = 0;
    }
    fields_unlock(&map->fields);
    fields_unlock(&self->fields);
}

PyObject *
handle_protect(PyObject *op, PyObject *value)
{
    SharedMemoryObject *self = as_handle(op);
    handle_state now;
    int prot, rc = 0;
    if (mapping_parse_prot(value, &prot) < 0
        || handle_acquire(self, HANDLE_MAP, &now) < 0) {
        return NULL;
    }
    bool changes = now.map->prot != prot;
    bool shared = changes ? !mapping_decide(now.map, MAPPING_SINGLE)
                          : atomic_load_explicit(&now.map->use,
                                                 memory_order_acquire)
                                == MAPPING_SHARED;
    /* If it is shared and does not change, protect() of another handle must not
     * find a change in progress. */
    if (changes || !shared) {
        rc = shared ? separate_map(self, &now) : 0;
        if (rc == 0) {
            forget_grants(self, now.map);
            rc = mapping_protect(now.map, prot, now.name);
        }
    }
    handle_release(self, HANDLE_MAP, &now);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- view ---- */

const char handle_view_doc[] =
    "view($self, /, format='B', shape=None, offset=0, strides=None,\n"
    "     readonly=False)\n--\n\n"
    "Return a View: this memory as an array, without a copy: PEP 3118.\n\n"
    "As MemoryMap.view, for the memory of this handle. The view keeps a\n"
    "reference to the handle, by which it is pickled. Raises ValueError after\n"
    "close().";

PyObject *
handle_view(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    Py_ssize_t size;
    handle_state now;
    (void)handle_current_size(as_handle(op), &size);
    if (handle_acquire(as_handle(op), HANDLE_MAP, &now) < 0) {
        return NULL;
    }
    struct view_origin origin = {.shm = op, .id = now.id};
    PyObject *result = view_make(now.map, &origin, args, count, kwnames);
    handle_release(as_handle(op), HANDLE_MAP, &now);
    return result;
}
