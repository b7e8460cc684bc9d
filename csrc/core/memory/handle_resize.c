/* The size of a handle, and that of its object. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/interrupt.h"

#include "posix/constants.h"
#include "posix/object/map.h"
#include "posix/object/new_object.h"
#include "posix/object/region.h"
#include "posix/object/size.h"

/* A change of size, with the handle claimed. */
typedef struct {
    SharedMemoryObject *self;
    handle_state now;
    Py_ssize_t from;                    /* bytes: the object's size */
    Py_ssize_t to;
} size_change;

enum { NEEDS = HANDLE_FD | HANDLE_MAP | HANDLE_CLAIM };

static int
begin_change(size_change *c, PyObject *op)
{
    struct pshm_status status;
    c->self = as_handle(op);
    if (handle_acquire(c->self, NEEDS, &c->now) < 0) {
        return -1;
    }
    int rc = pshm_status_of(c->now.fd->fd, &status);
    if (rc < 0) {
        raise_errno(rc, c->now.name);
        handle_release(c->self, NEEDS, &c->now);
        return -1;
    }
    c->from = (Py_ssize_t)status.size;
    return 0;
}

/* Returns the size of the handle, or NULL if rc < 0. */
static PyObject *
end_change(size_change *c, int rc)
{
    handle_release(c->self, NEEDS, &c->now);
    fields_lock(&c->self->fields);
    Py_ssize_t size = c->self->size;
    fields_unlock(&c->self->fields);
    return rc < 0 ? NULL : PyLong_FromSsize_t(size);
}

/* A mapping of [0, size) with the rights of the current one. That one is
 * counted (region.h), so no other handle can shrink the object meanwhile. */
static MemoryMapObject *
map_again(size_change *c, Py_ssize_t size)
{
    const MemoryMapObject *old = c->now.map;
    MemoryMapObject *map =
        mapping_new(core_state_of_type(Py_TYPE((PyObject *)c->self)));
    if (map == NULL) {
        return NULL;
    }
    void *base;
    int rc, prot = old->prot;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map(c->now.fd->fd, 0, (size_t)size, prot, &base);
    if (rc == 0) {
        (void)mapping_set(map, base, (size_t)size, size, prot, c->now.id, 0);
    }
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_DECREF(map);
        if (rc == -ENOMEM) {
            raise_no_addresses(c->now.name, size);
        }
        else {
            raise_errno(rc, c->now.name);
        }
        return NULL;
    }
    map->readonly = old->readonly;
    return map;
}

/* The object has changed in place. */
static void
set_size(size_change *c, Py_ssize_t size)
{
    fields_lock(&c->self->fields);
    mapping_set_size(c->now.map, size);
    if (c->self->state.map == c->now.map) {
        c->self->size = size;
    }
    fields_unlock(&c->self->fields);
}

static int
grow_object(size_change *c)
{
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_size_grow(c->now.fd->fd, c->from, c->to, &interrupt);
    PyEval_RestoreThread(released);
    if (rc < 0) {
        /* RLIMIT_FSIZE limits the size, not the growth. */
        raise_no_memory(rc, c->now.name, c->now.fd->fd,
                        rc == -EFBIG ? c->to : c->to - c->from);
    }
    return rc;
}

static int
grow(size_change *c)
{
    if (c->now.max_size > 0) {
        if (c->to > c->now.max_size) {
            PyErr_Format(PyExc_ValueError,
                         "size must be at most max_size, %zd bytes, not %zd",
                         c->now.max_size, c->to);
            return -1;
        }
        if (grow_object(c) < 0) {
            return -1;
        }
        set_size(c, c->to);
        return 0;
    }
    /* Map first: a range past the end can be mapped, and after the object has
     * grown nothing may fail. */
    MemoryMapObject *map = map_again(c, c->to);
    if (map == NULL) {
        return -1;
    }
    if (grow_object(c) < 0) {
        Py_DECREF(map);
        return -1;
    }
    return handle_replace_map(c->self, c->now.map, map);
}

/* Hide the end from new views, if no consumer of a buffer can reach it. Returns
 * whether it did. */
static bool
hide_end(size_change *c)
{
    SharedMemoryObject *self = c->self;
    MemoryMapObject *map = c->now.map;
    fields_lock_both(&self->fields, &map->fields);
    /* The handle and c have one reference each. */
    bool hidden = !self->has_exports && self->old_maps == NULL
                  && self->state.map == map
                  && mapping_is_private_locked(map, 2);
    if (hidden) {
        mapping_set_size(map, c->to);
        self->size = c->to;
    }
    fields_unlock(&map->fields);
    fields_unlock(&self->fields);
    return hidden;
}

/* The end of the range remains mapped, but is unreachable. */
static int
shrink(size_change *c)
{
    int rc, seals = pshm_seals_of(c->now.fd->fd);
    if (seals > 0 && seals & F_SEAL_SHRINK) {
        raise_errno_words(-EPERM, c->now.name,
                          "The object is sealed against shrinking "
                          "(F_SEAL_SHRINK)");
        return -1;
    }
    if (!hide_end(c)) {
        PyErr_SetString(PyExc_BufferError,
                        "cannot shrink the object: a buffer of this handle was "
                        "exported; delete the views of the handle first, or "
                        "open the object again if the handle itself was the "
                        "buffer, as in numpy.frombuffer(handle)");
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_region_shrink(c->now.map->region, c->now.fd->fd, c->to);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        set_size(c, c->from);
    }
    if (rc == -EBUSY) {
        PyErr_SetString(PyExc_BufferError,
                        "cannot shrink the object: another mapping of the "
                        "object exists in this process; delete the older "
                        "views, maps and other handles of the object first");
    }
    else if (rc < 0) {
        raise_errno(rc, c->now.name);
    }
    return rc;
}

/* Make the mapping fit the object, which another process may have changed. */
static int
follow(size_change *c)
{
    if (c->from == 0) {
        raise_attach(-ENODATA, c->now.name, 0);
        return -1;
    }
    if (c->now.max_size > 0) {
        set_size(c, c->from < c->now.max_size ? c->from : c->now.max_size);
        return 0;
    }
    if (c->from == mapping_size(c->now.map)) {
        return 0;
    }
    MemoryMapObject *map = map_again(c, c->from);
    return map == NULL ? -1 : handle_replace_map(c->self, c->now.map, map);
}

const char handle_resize_doc[] =
    "resize($self, /, size, *, shrink=False)\n--\n\n"
    "Grow the object to at least size bytes: " MAN(fallocate, 2) ".\n\n"
    "Returns the new size in bytes, which is larger than size if another\n"
    "process has grown the object further. The new memory is reserved in one\n"
    "system call, which may not answer a signal before it ends.\n\n"
    "With max_size the object grows in place: old views stay valid, and every\n"
    "process that has mapped it with max_size sees the growth. Without\n"
    "max_size the handle gets a new mapping, and old views stay valid on the\n"
    "old one.\n\n"
    "shrink: also make a larger object smaller. This is refused if this\n"
    "process has another mapping of the object (an older view, another\n"
    "handle) or an exported buffer of this handle. The caller must ensure\n"
    "that no other process, and no other library of this process, uses the\n"
    "end of the object.\n\n"
    "Raises BufferError if shrinking is refused, or if another thread is\n"
    "resizing the handle; PermissionError for a read-only handle or a sealed\n"
    "object; ValueError for a size that is less than 1 or more than max_size,\n"
    "and after close(); OSError: ENOSPC, EFBIG, ENOMEM.";

PyObject *
handle_resize(PyObject *op, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    static const char *const names[] = {"size", "shrink", NULL};
    static const struct signature signature = {"resize", 1, 1, names};
    PyObject *values[2];
    Py_ssize_t size;
    bool may_shrink = false;
    size_change c;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_size(values[0], "size", &size) < 0
        || arg_bool(values[1], &may_shrink) < 0
        || begin_change(&c, op) < 0) {
        return NULL;
    }
    c.to = size;
    int rc = -1;
    if (c.now.readonly) {
        raise_errno_words(-EACCES, c.now.name,
                          "The handle is read-only, and cannot resize the "
                          "object");
    }
    else if (size > c.from) {
        rc = grow(&c);
    }
    else if (size < c.from && may_shrink) {
        rc = shrink(&c);
    }
    else {
        rc = follow(&c);
    }
    return end_change(&c, rc);
}

const char handle_refresh_doc[] =
    "refresh($self, /)\n--\n\n"
    "Read the size of the object, and map it again if that has changed:\n"
    MAN(fstat, 2) ", " MAN(mmap, 2) ".\n\n"
    "Returns the size in bytes. Old views stay valid on the old mapping. A\n"
    "handle with max_size does not need this: its .size and .buf are always\n"
    "current. Raises ValueError after close(); OSError: ENODATA (the size is\n"
    "0), ENOMEM.";

PyObject *
handle_refresh(PyObject *op, PyObject *Py_UNUSED(unused))
{
    size_change c;
    if (begin_change(&c, op) < 0) {
        return NULL;
    }
    return end_change(&c, follow(&c));
}
