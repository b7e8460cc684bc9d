/* A handle's size, and that of its object. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/attach.h"
#include "posix/constants.h"
#include "posix/object/new_object.h"
#include "posix/object/gate.h"
#include "posix/object/map.h"
#include "posix/object/procmaps.h"
#include "posix/object/size.h"

/* A mapping of [0, size) that takes the place of old, with its rights. */
static MemoryMapObject *
map_like(core_state *state, MemoryMapObject *old, int fd, Py_ssize_t size,
         PyObject *name)
{
    MemoryMapObject *map = mapping_new(state);
    if (map == NULL) {
        return NULL;
    }
    void *base;
    int rc, prot = old->prot;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map(fd, 0, (size_t)size, prot, &base);
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
    mapping_adopt(map, base, (size_t)size, size, prot);
    map->readonly = old->readonly;
    return map;
}

/* What a change of size works on. */
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
    struct pshm_progress progress = {0};
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_size_grow(c->fd->fd, c->from, c->to, true, &progress);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
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
        map_like(c->state, c->map, c->fd->fd, c->to, c->name);
    if (map == NULL) {
        return -1;
    }
    if (grow_object(c) < 0) {
        Py_DECREF(map);
        return -1;
    }
    return handle_replace_map(c->self, c->map, map);
}

/* From here on nobody gets a view of what is about to go.  NULL, or why not. */
static const char *
hide_end(size_change *c)
{
    SharedMemoryObject *self = c->self;
    const char *why = NULL;
    fields_lock_both(&self->fields, &c->map->fields);
    /* c->map is one reference, the handle has the other. */
    if (self->exported || self->kept != NULL) {
        why = "the handle's own buffer was taken, and its address may be in "
              "use past the new end";
    }
    else if (self->body.map != c->map
             || !mapping_is_private_locked(c->map, 2)) {
        why = "a view of this process reaches past the new end";
    }
    else {
        mapping_set_size(c->map, c->to);
        self->size = c->to;
    }
    fields_unlock(&c->map->fields);
    fields_unlock(&self->fields);
    return why;
}

/* With the gate closed.  It runs no Python code, which might want to pass the
 * gate, so it raises nothing either.  *why: why it may not be, or NULL.
 * Returns 0 or -errno. */
static int
shrink_closed(size_change *c, const char **why)
{
    SharedMemoryObject *self = c->self;
    struct pshm_status status;
    *why = NULL;
    int rc = pshm_status_of(c->fd->fd, &status);
    if (rc < 0 || status.size <= c->to) {
        return rc;
    }
    int seals = pshm_seals_of(c->fd->fd);
    if (seals > 0 && seals & F_SEAL_SHRINK) {
        return -EPERM;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_maps_reach(status.id, c->to, c->map->base, c->map->reserved);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        return rc;
    }
    Py_ssize_t size = mapping_size(c->map);
    *why = rc > 0 ? "another mapping of this process reaches past the new end"
                  : hide_end(c);
    if (*why != NULL) {
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_size_shrink(c->fd->fd, c->to);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        fields_lock(&self->fields);
        mapping_set_size(c->map, size);
        self->size = size;
        fields_unlock(&self->fields);
    }
    else if (c->max_size == 0) {
        mapping_trim(c->map);
    }
    return rc;
}

/* Inside the gate it was not known yet that the object is to shrink, so leave
 * and close it behind; without the GIL, which those inside may need. */
static int
shrink(size_change *c)
{
    const char *why = NULL;
    int rc, closed;
    Py_BEGIN_ALLOW_THREADS
    pshm_gate_leave();
    closed = pshm_gate_close();
    Py_END_ALLOW_THREADS
    rc = closed;
    if (closed == 0) {
        rc = shrink_closed(c, &why);
        pshm_gate_open();
    }
    Py_BEGIN_ALLOW_THREADS
    pshm_gate_enter();
    Py_END_ALLOW_THREADS
    if (closed == -EBUSY) {
        PyErr_SetString(PyExc_BufferError,
                        "cannot shrink now: a thread is in the middle of "
                        "mapping or growing an object; it can be tried again");
        return -1;
    }
    if (why != NULL) {
        PyErr_Format(PyExc_BufferError,
                     "cannot shrink: %s; its next access there would be a bus "
                     "error, or find zeros",
                     why);
        return -1;
    }
    if (rc == -EPERM) {
        raise_errno_words(rc, c->name,
                          "The object is sealed against shrinking");
    }
    else if (rc == -ENOENT) {
        raise_errno_words(rc, c->name,
                          "What this process has mapped cannot be seen, so "
                          "nothing is cut off (is /proc mounted?)");
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
        Py_BEGIN_ALLOW_THREADS
        pshm_gate_enter();
        Py_END_ALLOW_THREADS
        rc = look_at_size(c);
        if (rc == 0) {
            return 0;
        }
        pshm_gate_leave();
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
    pshm_gate_leave();
    handle_release(c->self);
    Py_DECREF(c->map);
    Py_XDECREF(c->name);
    fdref_drop(c->fd);
}

/* Make the handle's mapping fit the object, whose size somebody changed. */
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
        map_like(c->state, c->map, c->fd->fd, c->from, c->name);
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
    "Make the object at least size bytes long: " MAN(fallocate, 2) ", " MAN(ftruncate, 2)
    ".\n\n"
    "Returns the size that it has then, which is larger if another process\n"
    "made it so.  With shrink=True it is cut to size.\n\n"
    "Growing takes the memory at once, in one system call that may answer no\n"
    "signal before it is through.  With max_size it happens in place: old views\n"
    "stay valid, and every process that has mapped it with max_size sees the\n"
    "growth.  Without, the handle gets a new mapping, and old views\n"
    "stay valid on the old one.  To shrink takes shrink=True, and nobody else\n"
    "who uses the end: other processes cannot be asked.  What this process has\n"
    "mapped otherwise (older views, other handles) counts by whole pages.\n\n"
    "Raises ValueError; BufferError where a view of this process reaches past\n"
    "the new end, another thread is resizing it, or threads are mapping or\n"
    "growing objects and are not through after 50 ms; PermissionError for a\n"
    "read-only handle or a sealed object; OSError: ENOSPC, EFBIG, ENOMEM.";

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
    "Look at the object's size again, which another process may have changed,\n"
    "and map it anew if need be: " MAN(fstat, 2) ", " MAN(mmap, 2) ".\n\n"
    "Returns the size in bytes.  Old views stay valid on the old mapping.\n"
    "With max_size .size and .buf are always current.  Raises ValueError after\n"
    "close(); OSError (ENODATA: the size is 0; ENOMEM).";

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
