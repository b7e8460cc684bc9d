/* A handle's size, and that of its object. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"
#include "core/interrupt.h"

#include "posix/object/attach.h"
#include "posix/constants.h"
#include "posix/object/new_object.h"
#include "posix/object/map.h"
#include "posix/object/region.h"
#include "posix/object/size.h"

/* A mapping of [0, size) that takes the place of old, with its rights. */
static MemoryMapObject *
map_like(core_state *state, MemoryMapObject *old, struct fdref *fd,
         Py_ssize_t size, PyObject *name)
{
    MemoryMapObject *map = mapping_new(state);
    if (map == NULL) {
        return NULL;
    }
    void *base;
    int rc, prot = old->prot;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map(fd->fd, 0, (size_t)size, prot, &base);
    if (rc == 0) {
        /* The old mapping is counted, so no other handle can shrink it. */
        (void)mapping_set(map, base, (size_t)size, size, prot, fd->id, 0);
    }
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_DECREF(map);
        if (rc == -ENOMEM) {
            raise_no_addresses(name, size);
        }
        else {
            raise_errno(rc, name);
        }
        return NULL;
    }
    map->readonly = old->readonly;
    return map;
}

/* A change of size. */
typedef struct {
    SharedMemoryObject *self;
    core_state *state;
    struct fdref *fd;
    MemoryMapObject *map;
    PyObject *name;                     /* or NULL */
    Py_ssize_t max_size;                /* or 0 */
    bool readonly;
    Py_ssize_t from;                    /* the object's size now */
    Py_ssize_t to;
} size_change;

/* Grow the object itself.  0 or -1. */
static int
grow_object(size_change *c)
{
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_size_grow(c->fd->fd, c->from, c->to, &interrupt);
    PyEval_RestoreThread(released);
    if (rc < 0) {
        /* The limit on a file is one on its size, not on what is added. */
        raise_no_memory(rc, c->name, c->fd->fd,
                        rc == -EFBIG ? c->to : c->to - c->from);
    }
    return rc;
}

/* The object changed in place. */
static int
note_size(size_change *c, Py_ssize_t size)
{
    int rc = -1;
    fields_lock(&c->self->fields);
    if (c->self->body.map == c->map) {
        c->self->size = size;
        mapping_set_size(c->map, size);
        rc = 0;
    }
    fields_unlock(&c->self->fields);
    if (rc < 0) {
        handle_raise_changed();
    }
    return rc;
}

static int
grow(size_change *c)
{
    if (c->max_size > 0) {
        if (c->to > c->max_size) {
            PyErr_Format(PyExc_ValueError,
                         "size must be at most max_size, %zd bytes, not %zd",
                         c->max_size, c->to);
            return -1;
        }
        return grow_object(c) < 0 ? -1 : note_size(c, c->to);
    }
    /* Mapped first: a range past the end may be mapped, and then nothing that
     * can fail is left once the object has grown. */
    MemoryMapObject *map =
        map_like(c->state, c->map, c->fd, c->to, c->name);
    if (map == NULL) {
        return -1;
    }
    if (grow_object(c) < 0) {
        Py_DECREF(map);
        return -1;
    }
    return handle_replace_map(c->self, c->map, map);
}

/* Make the end unreachable for new views, if no view can reach it.  Returns
 * NULL, or why it remains. */
static const char *
hide_end(size_change *c)
{
    SharedMemoryObject *self = c->self;
    const char *why = NULL;
    fields_lock_both(&self->fields, &c->map->fields);
    /* The handle and c have a reference each. */
    if (self->exported || self->kept != NULL || self->body.map != c->map
        || !mapping_is_private_locked(c->map, 2)) {
        why = "a buffer of this handle was exported, and its consumer may still "
              "use the address";
    }
    else {
        mapping_set_size(c->map, c->to);
        self->size = c->to;
    }
    fields_unlock(&c->map->fields);
    fields_unlock(&self->fields);
    return why;
}

static void
show_end(size_change *c)
{
    fields_lock(&c->self->fields);
    mapping_set_size(c->map, c->from);
    c->self->size = c->from;
    fields_unlock(&c->self->fields);
}

/* The end of the range remains mapped: it cannot be reached. */
static int
shrink(size_change *c)
{
    int rc = -EBUSY, seals = pshm_seals_of(c->fd->fd);
    if (seals > 0 && seals & F_SEAL_SHRINK) {
        raise_errno_words(-EPERM, c->name,
                          "The object is sealed against shrinking");
        return -1;
    }
    const char *why = hide_end(c);
    if (why == NULL) {
        why = "another mapping of the object exists in this process";
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_region_shrink(c->map->region, c->fd->fd, c->to);
        Py_END_ALLOW_THREADS
        if (rc < 0) {
            show_end(c);
        }
    }
    if (rc == -EBUSY) {
        PyErr_Format(PyExc_BufferError,
                     "cannot shrink the object: %s; delete the views, maps and "
                     "other handles of the object first",
                     why);
    }
    else if (rc < 0) {
        raise_errno(rc, c->name);
    }
    return rc;
}

static int
look_at_size(size_change *c)
{
    struct pshm_status status;
    int rc = pshm_status_of(c->fd->fd, &status);
    if (rc < 0) {
        raise_errno(rc, c->name);
        return rc;
    }
    c->from = (Py_ssize_t)status.size;
    return 0;
}

static int
change_begin(size_change *c, PyObject *op)
{
    *c = (size_change){
        .self = as_handle(op),
        .state = core_state_of_type(Py_TYPE(op)),
    };
    c->fd = handle_take_fd(c->self);
    if (c->fd == NULL) {
        return -1;
    }
    c->map = handle_take_map(c->self);
    c->name = handle_name_object(c->self);
    int rc = c->map == NULL ? -1 : handle_claim(c->self);
    if (rc == 0) {
        fields_lock(&c->self->fields);
        c->max_size = c->self->body.max_size;
        c->readonly = c->self->body.readonly;
        fields_unlock(&c->self->fields);
        rc = look_at_size(c);
        if (rc == 0) {
            return 0;
        }
        handle_release(c->self);
    }
    Py_XDECREF(c->map);
    Py_XDECREF(c->name);
    fdref_drop(c->fd);
    return -1;
}

static void
change_end(size_change *c)
{
    handle_release(c->self);
    Py_DECREF(c->map);
    Py_XDECREF(c->name);
    fdref_drop(c->fd);
}

/* Make the handle's mapping fit the object, whose size another process changed. */
static int
follow(size_change *c)
{
    if (c->from == 0) {
        raise_attach(-ENODATA, c->name, 0);
        return -1;
    }
    if (c->max_size > 0) {
        return note_size(c, c->from < c->max_size ? c->from : c->max_size);
    }
    if (c->from == mapping_size(c->map)) {
        return 0;
    }
    MemoryMapObject *map =
        map_like(c->state, c->map, c->fd, c->from, c->name);
    return map == NULL ? -1 : handle_replace_map(c->self, c->map, map);
}

static Py_ssize_t
last_size(SharedMemoryObject *self)
{
    Py_ssize_t size;
    fields_lock(&self->fields);
    size = self->size;
    fields_unlock(&self->fields);
    return size;
}

const char handle_resize_doc[] =
    "resize($self, /, size, *, shrink=False)\n--\n\n"
    "Grow the object to at least size bytes: " MAN(fallocate, 2) ", " MAN(ftruncate, 2)
    ".\n\n"
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
        || change_begin(&c, op) < 0) {
        return NULL;
    }
    c.to = size;
    int rc = -1;
    if (c.readonly) {
        raise_errno_words(-EACCES, c.name, "The handle is read-only");
    }
    else if (size > c.from) {
        rc = grow(&c);
    }
    else if (size == c.from || !may_shrink) {
        rc = follow(&c);
    }
    else {
        rc = shrink(&c);
    }
    change_end(&c);
    return rc < 0 ? NULL : PyLong_FromSsize_t(last_size(c.self));
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
    if (change_begin(&c, op) < 0) {
        return NULL;
    }
    int rc = follow(&c);
    change_end(&c);
    return rc < 0 ? NULL : handle_get_size(op, NULL);
}
