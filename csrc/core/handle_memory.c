/* The memory of a handle: ranges of it, its size, its protection. */
#include "handle.h"


#include "args.h"
#include "errors.h"

#include "posix/constants.h"
#include "posix/attach.h"
#include "posix/draft.h"
#include "posix/map.h"
#include "posix/procmaps.h"
#include "posix/size.h"


/* ---- map ---- */

const char handle_map_doc[] =
    "map($self, /, offset=0, length=None, *, readonly=None)\n--\n\n"
    "A new Mapping of a range of the object: " MAN(mmap, 2) ".\n\n"
    "offset: bytes, a multiple of PAGESIZE.  length: bytes; None: up to the\n"
    "end.  readonly: None: as the handle.  It lives on after close().\n\n"
    "Raises ValueError for a range past the end of the object, or after\n"
    "close(); PermissionError for readonly=False on a read-only handle;\n"
    "OSError (ENOMEM).";

PyObject *
handle_map(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length", "readonly", NULL};
    static const struct signature signature = {"map", 2, 0, names};
    handle *self = as_handle(op);
    PyObject *values[3];
    Py_ssize_t offset = 0, length = -1;
    bool readonly;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[0] != NULL && arg_offset(values[0], "offset", &offset) < 0)
        || (values[1] != NULL && values[1] != Py_None
            && arg_size(values[1], "length", &length) < 0)) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    readonly = self->body.readonly;
    Py_END_CRITICAL_SECTION();
    if (values[2] != Py_None && arg_bool(values[2], &readonly) < 0) {
        return NULL;
    }
    struct fdref *fd = handle_take_fd(self);
    if (fd == NULL) {
        return NULL;
    }
    PyObject *name = handle_name_object(self);
    PyObject *result = mapping_from_fd(core_state_of_type(Py_TYPE(op)), fd->fd,
                                       offset, length, readonly, name);
    Py_XDECREF(name);
    fdref_drop(fd);
    return result;
}

/* ---- Size ---- */

/* A mapping of [0, size) that takes the place of old, with its rights. */
static mapping *
map_like(core_state *state, mapping *old, int fd, Py_ssize_t size,
         PyObject *name)
{
    mapping *map = mapping_new(state);
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
        raise_errno(rc, name);
        return NULL;
    }
    mapping_adopt(map, base, (size_t)size, size, prot);
    return map;
}

/* What a change of size works on. */
typedef struct {
    handle *self;
    core_state *state;
    struct fdref *fd;
    mapping *map;
    PyObject *name;                     /* or NULL */
    Py_ssize_t max_size;                /* or 0 */
    Py_ssize_t from;                    /* the object's size now */
    Py_ssize_t to;
} change;

/* Grow the object itself.  0 or -1. */
static int
grow_object(change *c)
{
    struct pshm_progress progress = {0};
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_size_grow(c->fd->fd, c->from, c->to, true, &progress);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    if (rc < 0) {
        raise_no_memory(rc, c->name, c->fd->fd, c->to - c->from);
    }
    return rc;
}

static int
grow(change *c)
{
    if (c->max_size > 0) {
        if (c->to > c->max_size) {
            PyErr_Format(PyExc_ValueError,
                         "size must be at most max_size, %zd bytes, not %zd",
                         c->max_size, c->to);
            return -1;
        }
        return grow_object(c);
    }
    /* Mapped first: a range past the end may be mapped, and then nothing that
     * can fail is left once the object has grown. */
    mapping *map = map_like(c->state, c->map, c->fd->fd, c->to, c->name);
    if (map == NULL) {
        return -1;
    }
    if (grow_object(c) < 0) {
        Py_DECREF(map);
        return -1;
    }
    return handle_replace_map(c->self, map);
}

static int
refuse_shrink(const char *why)
{
    PyErr_Format(PyExc_BufferError,
                 "cannot shrink: %s, which would be a bus error at its next "
                 "access",
                 why);
    return -1;
}

/* From here on nobody gets a view of what is about to go.  0 or -1. */
static int
hide_end(change *c)
{
    handle *self = c->self;
    const char *why = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    /* c->map is one reference, the handle has the other. */
    if (self->exported || self->kept != NULL) {
        why = "the handle's own buffer was taken, and its address may be in "
              "use";
    }
    else if (self->body.map != c->map || !mapping_is_private(c->map, 2)) {
        why = "a view of this process reaches past the new end";
    }
    else {
        mapping_set_size(c->map, c->to);
        self->size = c->to;
    }
    Py_END_CRITICAL_SECTION();
    return why == NULL ? 0 : refuse_shrink(why);
}

static int
shrink(change *c)
{
    handle *self = c->self;
    int rc, seals = pshm_seals_of(c->fd->fd);
    if (seals > 0 && seals & F_SEAL_SHRINK) {
        raise_errno_words(-EPERM, c->name,
                          "The object is sealed against shrinking");
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_maps_reach(self->body.id, c->to, c->map->base,
                         c->map->reserved);
    Py_END_ALLOW_THREADS
    if (rc != 0) {
        return rc < 0 ? (raise_errno(rc, NULL), -1)
                      : refuse_shrink("another mapping of this process "
                                      "reaches past the new end");
    }
    Py_ssize_t size = mapping_size(c->map);
    if (hide_end(c) < 0) {
        return -1;
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_size_shrink(c->fd->fd, c->to);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    if (rc < 0) {
        Py_BEGIN_CRITICAL_SECTION(self);
        mapping_set_size(c->map, size);
        self->size = size;
        Py_END_CRITICAL_SECTION();
        raise_errno(rc, c->name);
        return -1;
    }
    if (c->max_size == 0) {
        mapping_trim(c->map);
    }
    return 0;
}

static int
change_begin(change *c, PyObject *op)
{
    *c = (change){
        .self = as_handle(op),
        .state = core_state_of_type(Py_TYPE(op)),
    };
    c->fd = handle_take_fd(c->self);
    if (c->fd == NULL) {
        return -1;
    }
    c->map = handle_take_map(c->self);
    c->name = handle_name_object(c->self);
    struct pshm_status status;
    int rc = c->map == NULL ? -1 : handle_claim(c->self);
    if (rc == 0) {
        Py_BEGIN_CRITICAL_SECTION(c->self);
        c->max_size = c->self->body.max_size;
        Py_END_CRITICAL_SECTION();
        rc = pshm_status_of(c->fd->fd, &status);
        if (rc == 0) {
            c->from = (Py_ssize_t)status.size;
            return 0;
        }
        raise_errno(rc, c->name);
        handle_release(c->self);
    }
    Py_XDECREF(c->map);
    Py_XDECREF(c->name);
    fdref_drop(c->fd);
    return -1;
}

static void
change_end(change *c)
{
    handle_release(c->self);
    Py_DECREF(c->map);
    Py_XDECREF(c->name);
    fdref_drop(c->fd);
}

/* Make the handle's mapping fit the object, whose size somebody changed. */
static int
follow(change *c)
{
    if (c->from == 0) {
        raise_attach(-ENODATA, c->name, 0);
        return -1;
    }
    if (c->max_size > 0 || c->from == mapping_size(c->map)) {
        return 0;
    }
    mapping *map = map_like(c->state, c->map, c->fd->fd, c->from, c->name);
    return map == NULL ? -1 : handle_replace_map(c->self, map);
}

const char handle_resize_doc[] =
    "resize($self, /, size, *, shrink=False)\n--\n\n"
    "Change the object's size, in bytes: " MAN(fallocate, 2) ", " MAN(ftruncate, 2)
    ".\n\n"
    "Growing takes the memory at once.  With max_size it happens in place:\n"
    "old views stay valid, and every process that has mapped it with max_size\n"
    "sees the growth.  Without, the handle gets a new mapping, and old views\n"
    "stay valid on the old one.  To shrink takes shrink=True, and nobody else\n"
    "who uses the end: other processes cannot be asked.\n\n"
    "Raises ValueError; BufferError where a view of this process reaches past\n"
    "the new end, or another thread is resizing; PermissionError for a\n"
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
    change c;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_size(values[0], "size", &size) < 0
        || arg_bool(values[1], &may_shrink) < 0
        || change_begin(&c, op) < 0) {
        return NULL;
    }
    c.to = size;
    int rc = -1;
    if (c.self->body.readonly) {
        raise_errno_words(-EACCES, c.name, "The handle is read-only");
    }
    else if (size > c.from) {
        rc = grow(&c);
    }
    else if (size == c.from) {
        rc = follow(&c);
    }
    else if (!may_shrink) {
        PyErr_Format(PyExc_ValueError,
                     "size %zd is less than the object's, %zd bytes; "
                     "shrink=True allows that",
                     size, c.from);
    }
    else {
        rc = shrink(&c);
    }
    change_end(&c);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
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
    change c;
    if (change_begin(&c, op) < 0) {
        return NULL;
    }
    int rc = follow(&c);
    change_end(&c);
    return rc < 0 ? NULL : handle_get_size(op, NULL);
}

/* ---- Protection ---- */

const char handle_protect_doc[] =
    "protect($self, prot, /)\n--\n\n"
    "Set what this handle's memory may be used for: " MAN(mprotect, 2) ".\n\n"
    "prot: PROT_READ | PROT_WRITE, PROT_READ or PROT_NONE.\n\n"
    "Raises BufferError where a live view would lose a right, or the handle's\n"
    "own buffer was taken; PermissionError for PROT_WRITE on a read-only\n"
    "handle; ValueError after close().";

PyObject *
handle_protect(PyObject *op, PyObject *value)
{
    handle *self = as_handle(op);
    int prot;
    if (mapping_parse_prot(value, &prot) == NULL) {
        return NULL;
    }
    mapping *map = handle_take_map(self);
    if (map == NULL) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION2(self, map);
    /* Ours and the handle's: all views are gone, and with them their rights. */
    if (!self->exported && self->body.map == map
        && mapping_is_private(map, 2)) {
        map->granted = 0;
    }
    Py_END_CRITICAL_SECTION2();
    int rc = mapping_protect(map, prot);
    Py_DECREF(map);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- What a Mapping can do, on the whole of the handle's ---- */

static PyObject *
delegate(PyObject *op, const char *method, PyObject *const *args,
         Py_ssize_t count, PyObject *kwnames)
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    mapping *map = handle_take_map(as_handle(op));
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
    return result;
}

#define DELEGATED(name, signature, text)                                     \
    const char handle_##name##_doc[] =                                       \
        #name "($self, /, " signature ")\n--\n\n" text                       \
        "\n\nAs Mapping." #name ", on this handle's memory.  Raises\n"       \
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
DELEGATED(populate, "offset=0, length=None",
          "Bring pages in and map them: " MAN(madvise, 2) ".")

const char handle_get_resident_doc[] =
    "How many bytes, in whole pages, are in memory now: " MAN(mincore, 2) ".\n"
    "Raises ValueError after close().";

PyObject *
handle_get_resident(PyObject *op, void *Py_UNUSED(closure))
{
    mapping *map = handle_take_map(as_handle(op));
    if (map == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_GetAttrString((PyObject *)map, "resident");
    Py_DECREF(map);
    return result;
}
