/* Opening a cell: in a segment, or in an object of its own. */
#include "core/sync/placed.h"

#include <string.h>
#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"
#include "core/memory/handle_make.h"
#include "core/sync/waiting.h"

#include "posix/sync/renew.h"
#include "posix/sync/semaphore.h"

/* How long to wait for another who is making the same cell, nanoseconds. */
#define PATIENCE ((int64_t)1000 * 1000 * 1000)

static const char *const kind_names[] = {
    "nothing", "a Semaphore", "a Lock", "an RLock", "a Condition", "an Event",
    "a Barrier", "an RWLock",
};

/* ---- Arguments ---- */

static int
check_name(const placed_params *how, PyObject *name)
{
    if (name == NULL || name == Py_None || PyUnicode_Check(name)) {
        return 0;
    }
    if (how->first == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "name must be a str or None, not %.200s",
                     Py_TYPE(name)->tp_name);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "name must be a str or None, not %.200s; without a name "
                     "write %s(%s=...)",
                     Py_TYPE(name)->tp_name, how->what, how->first);
    }
    return -1;
}

/* What goes with a name, or with create, must not be given without it. */
static int
check_option(const placed_params *how, const char *option, bool given,
             bool named)
{
    if (given && !named) {
        PyErr_Format(PyExc_ValueError,
                     "%s goes with a name: %s(name, create=True, %s=...)",
                     option, how->what, option);
        return -1;
    }
    if (given && !how->create) {
        PyErr_Format(PyExc_ValueError, "%s goes with create=True", option);
        return -1;
    }
    return 0;
}

/* What is accepted of an object that is there. */
static int
parse_accepted(placed_params *how, PyObject **options, bool named)
{
    PyObject *owner = options[PLACED_OWNER];
    PyObject *mode = options[PLACED_MODE_AT_MOST];
    mode = mode == Py_None ? NULL : mode;
    if (!named && (owner != NULL || mode != NULL)) {
        const char *option = owner != NULL ? "owner" : "mode_at_most";
        PyErr_Format(PyExc_ValueError, "%s goes with a name: %s(name, %s=...)",
                     option, how->what, option);
        return -1;
    }
    return arg_owners(owner, &how->accepted.owners) < 0
           || arg_mode_at_most(mode, &how->accepted.mode) < 0 ? -1 : 0;
}

int
opening_parse(placed_params *how, const placed_arguments *where)
{
    PyObject **options = where->options;
    bool placed = where->shm != NULL;
    bool named = placed || (where->name != NULL && where->name != Py_None);
    how->mode = S_IRUSR | S_IWUSR;
    how->acl = placed || options[PLACED_ACL] == Py_None ? NULL
                                                      : options[PLACED_ACL];
    if (!placed
        && (check_name(how, where->name) < 0
            || arg_mode(options[PLACED_MODE], &how->mode) < 0
            || arg_deletion(options[PLACED_DELETE], &how->deletion) < 0
            || arg_bool(options[PLACED_TRACK], &how->track) < 0)) {
        return -1;
    }
    if (arg_bool(options[PLACED_CREATE], &how->create) < 0
        || arg_existing(
               options[PLACED_EXIST_OK], placed ? NULL : options[PLACED_STALE],
               placed ? NULL : options[PLACED_REPLACE], &how->existing)
               < 0
        || check_option(how, "replace", how->existing.replace, named) < 0
        || check_option(how, "exist_ok", how->existing.exist_ok, named) < 0
        || check_option(how, "delete", how->deletion != DELETE_NOT, named) < 0
        || check_option(how, "track", how->track, named) < 0
        || check_option(how, "mode", !placed && options[PLACED_MODE] != NULL,
                        named)
               < 0
        || check_option(how, "acl", how->acl != NULL, named) < 0) {
        return -1;
    }
    how->accepted = PSHM_ACCEPT_ANY;
    if (how->create) {
        how->accepted.owners = pshm_owners_self();
    }
    if (!placed && parse_accepted(how, options, named) < 0) {
        return -1;
    }
    how->create = how->create || !named;
    return 0;
}

/* ---- Opening ---- */

/* The place, for messages: in an object of its own, or at an offset; name: the
 * object's, or NULL. */
static PyObject *
describe_place(Py_ssize_t offset, PyObject *name, bool own)
{
    return name == NULL ? PyUnicode_FromFormat("at offset %zd", offset)
           : own        ? PyUnicode_FromFormat("in the object %R", name)
                        : PyUnicode_FromFormat("at offset %zd of %R", offset,
                                               name);
}

/* What the bytes are that are not a primitive, as far as that is plain. */
static const char *
describe_bytes(const struct pshm_primitive *place)
{
    static const struct {
        const char *start;
        const char *what;
    } known[] = {
        {"\x93NUMPY", "an array (.npy)"},
        {"ARROW1", "an Arrow table"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(known); i++) {
        if (memcmp(place->payload, known[i].start, strlen(known[i].start))
            == 0) {
            return known[i].what;
        }
    }
    return "other data";
}

static void
raise_opening(int rc, const placed_params *how,
              const struct pshm_primitive *place, PyObject *where,
              PyObject *name, enum pshm_primitive_kind found)
{
    const char *kind = kind_names[how->spec.kind];
    switch (rc) {
    case -ENOENT:
        raise_errno_words(rc, name,
                          how->existing.exist_ok
                              ? "There is no %s %U, but bytes that are zero; "
                                "at(shm, create=True) makes one of them"
                              : "There is no %s %U; create=True makes one",
                          how->what, where);
        break;
    case -EEXIST:
        raise_errno_words(rc, name,
                          "There is %s %U already; open it without "
                          "create=True, or with exist_ok=True", kind, where);
        break;
    case -ETIMEDOUT:
        raise_errno_words(rc, name,
                          "Another process began to make the primitive %U "
                          "and did not end", where);
        break;
    case -EXDEV:
        raise_errno_words(rc, name,
                          how->existing.exist_ok
                              ? "The %s %U was made in another PID namespace, "
                                "whose process ids mean nothing here, and a "
                                "process still uses the object; else it would "
                                "be made anew"
                              : "The %s %U was made in another PID namespace, "
                                "whose process ids mean nothing here; with "
                                "create=True and exist_ok=True it is made "
                                "anew, if no process uses the object",
                          how->what, where);
        break;
    case -ENOEXEC:
        raise_errno_words(rc, name,
                          "The primitive %U was made with another C library, "
                          "word size or version of posixshm", where);
        break;
    case -EPROTOTYPE:
        PyErr_Format(PyExc_ValueError, "there is %s %U, not %s",
                     found < Py_ARRAY_LENGTH(kind_names) ? kind_names[found]
                                                         : "something else",
                     where, kind);
        break;
    case -EBADMSG:
        PyErr_Format(PyExc_ValueError,
                     how->create || how->existing.exist_ok
                         ? "there is %s %U; %s is made of bytes that are zero"
                         : "there is %s %U, not %s",
                     describe_bytes(place), where, kind);
        break;
    default:
        raise_errno(rc, name);
    }
}

MemoryMapObject *
placed_take_map(core_state *state, PyObject *shm, const char *what,
              bool *readonly)
{
    MemoryMapObject *map;
    bool found = false;
    if (PyObject_TypeCheck(shm, state->handle_type)) {
        Py_ssize_t size;
        (void)handle_current_size(as_handle(shm), &size);
        map = handle_take_map(as_handle(shm));
    }
    else if (Py_IS_TYPE(shm, state->mapping_type)) {
        map = (MemoryMapObject *)Py_NewRef(shm);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "shm must be a SharedMemory or a MemoryMap, not %.200s",
                     Py_TYPE(shm)->tp_name);
        return NULL;
    }
    if (map != NULL && mapping_grant(map, &found) < 0) {
        Py_CLEAR(map);
    }
    if (map != NULL && found && readonly == NULL) {
        raise_errno_words(-EACCES, NULL,
                          "%s needs memory that can be written, and this is "
                          "read-only", what);
        Py_CLEAR(map);
    }
    if (readonly != NULL) {
        *readonly = found;
    }
    return map;
}

static int
check_range(const placed_params *how, MemoryMapObject *map, Py_ssize_t offset,
            PyObject *where)
{
    Py_ssize_t have = mapping_size(map), need = (Py_ssize_t)how->spec.size;
    if (offset % PSHM_PRIMITIVE_ALIGNMENT != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of %d, not %zd",
                     PSHM_PRIMITIVE_ALIGNMENT, offset);
        return -1;
    }
    if (need > have || offset > have - need) {
        PyErr_Format(PyExc_ValueError,
                     "%s %U takes %zd bytes, past the end at %zd",
                     kind_names[how->spec.kind], where, need, have);
        return -1;
    }
    return 0;
}

/* Returns 0; -EINTR, where a signal handler raised; or -errno. */
static int
make_or_look(const placed_params *how, struct pshm_primitive *place,
             enum pshm_primitive_kind *found)
{
    int rc;
    if (!how->create) {
        return pshm_primitive_check(place, &how->spec, found);
    }
    int64_t deadline = pshm_now() + PATIENCE;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_primitive_make(place, &how->spec, deadline, found);
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    return rc == -EEXIST && how->existing.exist_ok ? 0 : rc;
}

/* exist_ok, and it is of a PID namespace that may be gone: what is there now.
 * An object without a name has not outlived its processes; and where others
 * share the descriptor, as forked ones do, its use lock tells nothing.  Returns
 * as make_or_look. */
static int
renew(const placed_params *how, PyObject *shm, struct pshm_primitive *place,
      bool own)
{
    if (!how->existing.exist_ok || Py_IS_TYPE(shm, how->state->mapping_type)) {
        return -EXDEV;
    }
    struct fdref *fd = handle_take_fd(as_handle(shm));
    if (fd == NULL) {
        PyErr_Clear();
        return -EXDEV;
    }
    int rc = -EXDEV;
    if (fdref_is_private(fd) && handle_has_name(as_handle(shm))) {
        int64_t deadline = pshm_now() + PATIENCE;
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_renew(fd->fd, place, &how->spec, deadline);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
    }
    fdref_drop(fd);
    /* In between it had no use lock: was it reclaimed? */
    PyObject *linked = rc == 0 && own ? handle_is_linked(shm, NULL) : NULL;
    rc = linked == Py_False ? -ESTALE : rc;
    PyErr_Clear();
    Py_XDECREF(linked);
    return rc;
}

/* The cell in map, which is shm's; 0, or -1 with an exception. */
static int
open_in_map(const placed_params *how, PyObject *shm, MemoryMapObject *map,
            Py_ssize_t offset, PyObject *name, bool own)
{
    struct pshm_primitive *place =
        (struct pshm_primitive *)(void *)(map->base + offset);
    enum pshm_primitive_kind found = PSHM_PRIMITIVE_NONE;
    PyObject *where = describe_place(offset, name, own);
    int rc = where == NULL ? -1 : check_range(how, map, offset, where);
    if (rc == 0) {
        rc = make_or_look(how, place, &found);
        if (rc == -ENOTRECOVERABLE) {
            Py_INCREF(map);             /* for good */
            rc = -EBADMSG;
        }
        if (rc == -EXDEV) {
            rc = renew(how, shm, place, own);
        }
        if (rc < 0) {
            raise_opening(rc, how, place, where, name, found);
        }
    }
    Py_XDECREF(where);
    return rc < 0 ? -1 : 0;
}

PyObject *
placed_alloc(PyTypeObject *type)
{
    PyObject *op = type->tp_alloc(type, 0);
    if (op != NULL) {
        PyObject_GC_UnTrack(op);
    }
    return op;
}

static PlacedObject *
open_at(const placed_params *how, PyObject *shm, PyObject *offset_value,
        bool own)
{
    Py_ssize_t offset = 0;
    if (offset_value != NULL
        && arg_offset(offset_value, "offset", &offset) < 0) {
        return NULL;
    }
    PlacedObject *self = as_placed(placed_alloc(how->type));
    if (self == NULL) {
        return NULL;
    }
    self->map = placed_take_map(how->state, shm, how->what,
                              how->reads && !how->create ? &self->readonly
                                                         : NULL);
    PyObject *name = self->map == NULL
                             || Py_IS_TYPE(shm, how->state->mapping_type)
                         ? NULL : handle_name_object(as_handle(shm));
    if (self->map == NULL
        || open_in_map(how, shm, self->map, offset, name, own) < 0) {
        Py_CLEAR(self);
    }
    else {
        self->place =
            (struct pshm_primitive *)(void *)(self->map->base + offset);
        self->kind = how->spec.kind;
        self->offset = offset;
        self->shm = Py_NewRef(shm);
        self->own = own;
    }
    Py_XDECREF(name);
    return self;
}

/* ---- In an object of its own ---- */

/* Semaphores have names of their own: what has this one besides? */
static int
find_other(const placed_params *how, PyObject *given,
           const struct pshm_name *path, enum pshm_primitive_kind *found)
{
    struct pshm_name other;
    int rc = how->spec.kind == PSHM_PRIMITIVE_SEMAPHORE
                 ? arg_name(given, &other) : pshm_sem_name(path, &other);
    if (rc == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_primitive_named(&other, found);
        Py_END_ALLOW_THREADS
    }
    PyErr_Clear();
    return rc > 0;
}

/* No object has this path. */
static void
raise_none(const placed_params *how, PyObject *given,
           const struct pshm_name *path)
{
    enum pshm_primitive_kind found = PSHM_PRIMITIVE_NONE;
    if (!find_other(how, given, path, &found)) {
        raise_errno_words(-ENOENT, given,
                          "No object has this name; %s(name, create=True) "
                          "makes one", how->what);
    }
    else if (how->spec.kind != PSHM_PRIMITIVE_SEMAPHORE) {
        raise_errno_words(-ENOENT, given,
                          "There is a named semaphore of this name, which "
                          "Semaphore(name) opens, and no %s; %s(name, "
                          "create=True) makes one beside it, because a "
                          "semaphore's object is called 'sem.' and the name",
                          how->what, how->what);
    } else if (found > PSHM_PRIMITIVE_SEMAPHORE
               && found < Py_ARRAY_LENGTH(kind_names)) {
        raise_errno_words(-ENOENT, given,
                          "There is %s of this name, which %s(name) opens, and "
                          "no named semaphore, whose object is called 'sem.' "
                          "and the name; Semaphore(name, create=True) makes "
                          "one beside it", kind_names[found],
                          strchr(kind_names[found], ' ') + 1);
    } else {
        raise_errno_words(-ENOENT, given,
                          "There is shared memory of this name, which "
                          "SharedMemory.open(name) opens, and no named "
                          "semaphore, whose object is called 'sem.' and the "
                          "name; Semaphore(name, create=True) makes one beside "
                          "it");
    }
}

PyObject *
placed_open_object(const placed_params *how, PyObject *given,
                 const struct pshm_name *path, Py_ssize_t size,
                 int (*fill)(void *base, void *arg), void *arg)
{
    PyObject *shm;
    if (!how->create) {
        if (handle_attach_new(how->state, given, path, &how->accepted,
                              &shm) == -ENOENT) {
            raise_none(how, given, path);
        }
        return shm;
    }
    create_params req;
    request_init(&req, PSHM_NAMED);
    request_set_size(&req, size);
    req.spec.mode = how->mode;
    req.spec.name = &req.path;
    req.path = *path;
    req.name = given;
    req.fill = fill;
    req.how = arg;
    req.existing = how->existing;
    req.accepted = how->accepted;
    req.deletion = how->deletion;
    req.track = how->track;
    return request_set_acl(&req, how->state, how->acl) < 0
               ? NULL
               : handle_make(how->state, (PyObject *)how->state->handle_type,
                             &req);
}

/* No other process can see the object yet. */
static int
fill_object(void *base, void *arg)
{
    const placed_params *how = arg;
    enum pshm_primitive_kind found;
    int rc = make_or_look(how, base, &found);
    if (rc < 0) {
        raise_errno(rc, NULL);
        return -1;
    }
    return 0;
}

static PyObject *
open_named(placed_params *how, PyObject *given)
{
    struct pshm_name path;
    if ((how->create ? arg_new_name(given, &path) : arg_name(given, &path))
        < 0) {
        return NULL;
    }
    return placed_open_object(how, given, &path, (Py_ssize_t)how->spec.size,
                            fill_object, how);
}

static PyObject *
open_anonymous(const placed_params *how)
{
    create_params req;
    request_init(&req, PSHM_MEMFD);
    request_set_size(&req, (Py_ssize_t)how->spec.size);
    req.spec.label = "posixshm";
    return handle_make(how->state, (PyObject *)how->state->handle_type, &req);
}

void
placed_discard_object(PyObject *shm)
{
    PyObject *type, *value, *traceback;
    if (handle_was_created(as_handle(shm))) {
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *result = handle_unlink(shm, NULL);
        PyErr_Clear();
        Py_XDECREF(result);
        PyErr_Restore(type, value, traceback);
    }
}

PlacedObject *
placed_open(placed_params *how, const placed_arguments *where)
{
    if (where->shm != NULL) {
        return open_at(how, where->shm, where->offset, false);
    }
    bool named = where->name != NULL && where->name != Py_None;
    PyObject *shm = named ? open_named(how, where->name)
                          : open_anonymous(how);
    if (shm == NULL) {
        return NULL;
    }
    placed_params there = *how;
    there.create = !named;
    PlacedObject *self = open_at(&there, shm, NULL, true);
    if (self == NULL) {
        placed_discard_object(shm);
    }
    Py_DECREF(shm);
    return self;
}

PyObject *
placed_complete(PlacedObject *self)
{
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

PyObject *
placed_discard(PlacedObject *self)
{
    if (self->own) {
        placed_discard_object(self->shm);
    }
    Py_DECREF(self);
    return NULL;
}
