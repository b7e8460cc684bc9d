/* The doors that lead to an object that is there. */
#include "core/memory/handle.h"

#include <math.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/interrupt.h"

#include "posix/constants.h"
#include "posix/object/attach.h"
#include "posix/object/new_object.h"
#include "posix/object/fd.h"
#include "posix/object/region.h"
#include "posix/object/use_lock.h"
#include "posix/object/map.h"
#include "posix/clock.h"
#include "posix/object/size.h"

/* Pauses between two looks for a name, in seconds. */
#define SHORTEST_PAUSE 0.0002
#define LONGEST_PAUSE 0.01

SharedMemoryObject *
handle_alloc(core_state *state, PyObject *type)
{
    PyObject *none = PyTuple_New(0);    /* there is one only, always */
    PyObject *op = ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, none,
                                                  NULL);
    Py_DECREF(none);
    if (op == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(op, state->handle_type) || as_handle(op)->open) {
        PyErr_Format(PyExc_TypeError,
                     "%.200s.__new__ did not return a new handle",
                     ((PyTypeObject *)type)->tp_name);
        Py_DECREF(op);
        return NULL;
    }
    return as_handle(op);
}

/* ---- Attaching ---- */

/* Map an attached object and make a body of it.  Owns object->fd.
 * Returns 0; -ERANGE: larger than max_size; -ESTALE: shrunk meanwhile, start
 * again; or -errno. */
static int
make_body(const struct pshm_object *object, const attach_params *params,
          unsigned shrinks, handle_state *body)
{
    void *base;
    bool readonly = params->readonly;
    Py_ssize_t max_size = params->max_size;
    int prot = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    size_t length = (size_t)(max_size > 0 ? max_size : object->size);
    int rc = max_size > 0 && object->size > max_size ? -ERANGE : 0;
    if (rc == 0) {
        rc = pshm_map(object->fd, 0, length, prot, &base);
    }
    if (rc < 0) {
        return rc;
    }
    if (!mapping_set(body->map, base, length, (Py_ssize_t)object->size, prot,
                     object->id, shrinks)) {
        return -ESTALE;
    }
    body->map->readonly = readonly;
    body->fd->fd = object->fd;
    body->fd->id = object->id;
    body->id = object->id;
    body->readonly = readonly;
    body->locked = object->locked;
    body->last = object->last;
    body->max_size = max_size;
    return 0;
}

/* What a body needs before there is anything to put into it. */
static int
prepare_body(core_state *state, handle_state *body)
{
    *body = HANDLE_STATE_NONE;
    body->map = mapping_new(state);
    body->fd = body->map != NULL ? fdref_new() : NULL;
    if (body->fd == NULL) {
        handle_state_clear(body);
        return -ENOMEM;
    }
    return 0;
}

int
handle_attach(core_state *state, const struct pshm_name *path,
              const attach_params *params, handle_state *body,
              struct pshm_object *object)
{
    int rc = prepare_body(state, body);
    *object = (struct pshm_object){.fd = -1};
    if (rc < 0) {
        PyErr_Clear();
        return rc;
    }
    Py_BEGIN_ALLOW_THREADS
    unsigned shrinks = pshm_region_shrinks();
    rc = pshm_attach(path, params->readonly, &params->accepted, object);
    if (rc == 0) {
        rc = make_body(object, params, shrinks, body);
        if (rc < 0) {
            pshm_fd_close(object->fd);
        }
    }
    Py_END_ALLOW_THREADS
    body->path = *path;
    if (rc < 0) {
        handle_state_clear(body);
    }
    return rc == -ESTALE ? handle_attach(state, path, params, body, object)
                         : rc;
}

PyObject *
handle_raise_attach(int rc, PyObject *name, const attach_params *params,
                    const struct pshm_object *object)
{
    if (rc == -ERANGE) {
        return PyErr_Format(PyExc_ValueError,
                            "max_size of %zd bytes is less than the object "
                            "%R has by now",
                            params->max_size, name);
    }
    if (rc == -ENOMEM && params->max_size > 0) {
        return raise_no_addresses(name, params->max_size);
    }
    if (rc == -EACCES && object->mode != 0) {
        return pshm_owners_accept(&params->accepted.owners, object->uid)
                   ? raise_mode(name, object->mode, params->accepted.mode)
                   : raise_owner(name, object->uid, &params->accepted.owners);
    }
    if (rc == -EDOM) {
        return PyErr_Format(PyExc_ValueError,
                            "the object %R has %lld bytes, and size_at_least "
                            "is %lld",
                            name, (long long)object->size,
                            (long long)params->accepted.size);
    }
    return raise_attach(rc, name, object->mode);
}

static void
raise_timeout(PyObject *name, double wait, int rc,
              const struct pshm_object *object,
              const struct pshm_accepted *accepted)
{
    PyObject *seconds = PyFloat_FromDouble(wait);
    if (seconds != NULL && rc == -EDOM) {
        raise_errno_words(-ETIMEDOUT, name,
                          "The object has %lld bytes, and did not come to "
                          "have the %lld of size_at_least within %S seconds",
                          (long long)object->size, (long long)accepted->size,
                          seconds);
        Py_DECREF(seconds);
    }
    else if (seconds != NULL) {
        raise_errno_words(-ETIMEDOUT, name,
                          "No object of that name that has a size came "
                          "within %S seconds",
                          seconds);
        Py_DECREF(seconds);
    }
}

int
handle_pause(double deadline, double *pause)
{
    double left = deadline - pshm_clock();
    double span = left < *pause ? (left > 0 ? left : 0) : *pause;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_sleep(span);
    Py_END_ALLOW_THREADS
    *pause = *pause * 2 < LONGEST_PAUSE ? *pause * 2 : LONGEST_PAUSE;
    (void)rc;                           /* look at signals in any case */
    return PyErr_CheckSignals();
}

/* reserve=True: an access to any byte finds memory.  A hole that is read takes
 * memory too.  What was taken stays taken, because another process may have
 * written to it; so ask for the room first, and do not fill the mount in vain.
 * 0, or -1 with the body dropped. */
static int
reserve_body(handle_state *body, PyObject *name)
{
    MemoryMapObject *map = body->map;
    off_t size = (off_t)mapping_size(map);
    off_t missing;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    missing = pshm_size_missing(body->fd->fd, size);
    rc = missing < 0 ? (int)missing : pshm_size_room(body->fd->fd, missing);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        PyThreadState *released = PyEval_SaveThread();
        const struct pshm_interrupt interrupt = core_interrupt(&released);
        rc = body->readonly
                 ? pshm_map_populate(map->base, (size_t)size, false,
                                     &interrupt)
                 : pshm_size_reserve(body->fd->fd, size, &interrupt);
        PyEval_RestoreThread(released);
    }
    if (rc < 0) {
        raise_no_memory(rc == -EFAULT ? -ENOSPC : rc, name, body->fd->fd,
                        missing);
        handle_state_clear(body);
    }
    return rc;
}

/* wait: seconds to wait for the name to appear and be sized; 0: do not. */
static int
attach_waiting(core_state *state, PyObject *name, const struct pshm_name *path,
               const attach_params *params, double wait, handle_state *body)
{
    double start = wait > 0 ? pshm_clock() : 0, pause = SHORTEST_PAUSE;
    if (audit_open(path, params->readonly) < 0) {
        return -1;
    }
    for (;;) {
        struct pshm_object object;
        int rc = handle_attach(state, path, params, body, &object);
        if (rc == 0) {
            body->name = PyUnicode_FromString(pshm_name_plain(path));
            if (body->name == NULL) {
                handle_state_clear(body);
                return -1;
            }
            return params->reserve ? reserve_body(body, name) : 0;
        }
        if (try_again(rc)) {
            continue;
        }
        bool absent = rc == -ENOENT || rc == -ENODATA || rc == -EDOM;
        bool waits = wait > 0 && (absent || rc == -EAGAIN);
        if (waits && pshm_clock() < start + wait) {
            if (handle_pause(start + wait, &pause) < 0) {
                return -1;
            }
            continue;
        }
        if (absent && waits) {
            raise_timeout(name, wait, rc, &object, &params->accepted);
        }
        else {
            handle_raise_attach(rc, name, params, &object);
        }
        return -1;
    }
}

static PyObject *
finish_factory(SharedMemoryObject *self, handle_state *body)
{
    PyObject *duty;
    if (handle_install(self, body, &duty) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

int
handle_attach_new(core_state *state, PyObject *given,
                  const struct pshm_name *path,
                  const struct pshm_accepted *accepted, PyObject **out)
{
    const attach_params params = {.accepted = *accepted};
    handle_state body;
    struct pshm_object object;
    int rc;
    *out = NULL;
    if (audit_open(path, false) < 0) {
        return -1;
    }
    SharedMemoryObject *self =
        handle_alloc(state, (PyObject *)state->handle_type);
    if (self == NULL) {
        return -1;
    }
    do {
        rc = handle_attach(state, path, &params, &body, &object);
    } while (try_again(rc));
    if (rc < 0) {
        Py_DECREF(self);
        if (rc != -ENOENT) {
            handle_raise_attach(rc, given, &params, &object);
        }
        return rc == -ENOENT ? rc : -1;
    }
    body.name = PyUnicode_FromString(pshm_name_plain(path));
    if (body.name == NULL) {
        handle_state_clear(&body);
        Py_DECREF(self);
        return -1;
    }
    *out = finish_factory(self, &body);
    return *out == NULL ? -1 : 0;
}

const char handle_open_doc[] =
    "open($type, /, name, *, readonly=False, timeout=0, max_size=None,\n"
    "     reserve=False, owner='any', mode_at_most=None, size_at_least=0)\n"
    "--\n\n"
    "Attach to the object called name: " MAN(shm_open, 3) ".  It changes nothing.\n"
    "\n"
    "readonly: open and map it for reading only.  timeout: seconds to wait\n"
    "for the name to appear and the object to have a size, which is at least\n"
    "size_at_least; None: for ever; 0 or less: not at all.  max_size: bytes of\n"
    "address space to reserve, so that the object can grow in place under\n"
    "every view.  reserve: take the memory that the object has not used yet,\n"
    "so that a full mount is an OSError (ENOSPC) here and not a bus error\n"
    "later.\n"
    OWNER_ARGUMENT_DOC MODE_AT_MOST_DOC
    "size_at_least: bytes.  All three are checked on the open descriptor.\n"
    "\n"
    "Raises FileNotFoundError; TimeoutError; PermissionError, also if the\n"
    "owner or the mode is not accepted; ValueError for a bad name, or an\n"
    "object larger than max_size or, without a timeout, smaller than\n"
    "size_at_least; OSError: ENODATA (size 0), ELOOP (a symbolic link), EISDIR,\n"
    "EINVAL (not a regular file), EMFILE, ENOMEM.";

PyObject *
handle_open(PyObject *type, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"name", "readonly", "timeout",
                                        "max_size", "reserve", "owner",
                                        "mode_at_most", "size_at_least", NULL};
    static const struct signature signature = {"open", 1, 1, names};
    core_state *state = core_state_of_type((PyTypeObject *)type);
    PyObject *values[8];
    struct pshm_name path;
    attach_params params = {.accepted = PSHM_ACCEPT_ANY};
    Py_ssize_t size_at_least = 0;
    double wait = 0;
    handle_state body;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &path) < 0
        || arg_bool(values[1], &params.readonly) < 0
        || arg_timeout(values[2], &wait) < 0
        || (values[3] != NULL && values[3] != Py_None
            && arg_size(values[3], "max_size", &params.max_size) < 0)
        || arg_bool(values[4], &params.reserve) < 0
        || arg_owners(values[5], &params.accepted.owners) < 0
        || arg_mode_at_most(values[6], &params.accepted.mode) < 0
        || (values[7] != NULL
            && arg_offset(values[7], "size_at_least", &size_at_least) < 0)) {
        return NULL;
    }
    params.accepted.size = size_at_least;
    SharedMemoryObject *self = handle_alloc(state, type);
    if (self == NULL) {
        return NULL;
    }
    if (attach_waiting(state, values[0], &path, &params, wait, &body) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return finish_factory(self, &body);
}

const char handle_from_fd_doc[] =
    "from_fd($type, /, fd, *, readonly=None, max_size=None,\n"
    "        require_seals=0)\n--\n\n"
    "A handle of an open descriptor's object, which has no name here.\n\n"
    "fd: an int, of a regular file or memfd that is not empty; it belongs to\n"
    "the handle then, unless this raises.  readonly: None: as fd was opened,\n"
    "or as its seals say.  max_size: as for open().  require_seals: F_SEAL_\n"
    "constants that the object must have: with F_SEAL_SHRINK no access can be\n"
    "a bus error.  See " MAN(mmap, 2) ".\n"
    "An exclusive lock that fd holds, " MAN(flock, 2) ", becomes a shared\n"
    "one.\n\n"
    "Raises ValueError; PermissionError (EPERM) if a seal is missing; OSError:\n"
    "EBADF, EINVAL (not a regular file), ENODATA\n"
    "(size 0), EACCES (not opened for that), ENOMEM.";

/* Read-only where writing is not possible: 1, 0 or -errno. */
static int
must_be_readonly(int fd)
{
    int access = pshm_fd_access(fd);
    if (access < 0) {
        return access;
    }
    int seals = pshm_seals_of(fd);
    return access == O_RDONLY
           || (seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/* Seals are never taken off, so they can be looked at first.  0 or -1. */
static int
check_seals(int fd, int required)
{
    int seals = required == 0 ? 0 : pshm_seals_of(fd);
    if (seals < 0 && seals != -EINVAL) {
        raise_errno(seals, NULL);
        return -1;
    }
    if ((required & ~(seals < 0 ? 0 : seals)) != 0) {
        raise_errno_words(-EPERM, NULL,
                          "The object must have the seals 0x%x and has 0x%x "
                          "(F_SEAL_ constants; add_seals() adds them)",
                          required, seals < 0 ? 0 : seals);
        return -1;
    }
    return 0;
}

/* The lease comes last: on a descriptor that stays the caller's there is to be
 * none. */
static int
adopt_fd(int fd, const attach_params *params, handle_state *body,
         struct pshm_object *object)
{
    int own = fd < PSHM_FD_FIRST ? pshm_fd_copy(fd) : fd;
    unsigned shrinks = pshm_region_shrinks();
    int rc = own < 0 ? own : pshm_attach_inspect(own, object);
    if (rc == 0) {
        rc = make_body(object, params, shrinks, body);
    }
    if (rc == 0) {
        rc = pshm_use_lock_take(own);
        body->locked = rc == 0;
        rc = rc == -EAGAIN ? 0 : rc;
    }
    if (rc >= 0) {
        rc = pshm_fd_cloexec(own);
    }
    if (rc < 0) {
        body->fd->fd = -1;
    }
    if (own != fd) {
        pshm_fd_close(rc < 0 ? own : fd);
    }
    return rc;
}

PyObject *
handle_from_fd(PyObject *type, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {"fd", "readonly", "max_size",
                                        "require_seals", NULL};
    static const struct signature signature = {"from_fd", 1, 1, names};
    core_state *state = core_state_of_type((PyTypeObject *)type);
    PyObject *values[4];
    attach_params params = {.accepted = PSHM_ACCEPT_ANY};
    long long fd, seals = 0;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_long(values[0], "fd", 0, INT_MAX, &fd) < 0
        || (values[1] != Py_None && arg_bool(values[1], &params.readonly) < 0)
        || (values[2] != NULL && values[2] != Py_None
            && arg_size(values[2], "max_size", &params.max_size) < 0)
        || (values[3] != NULL
            && arg_long(values[3], "require_seals", 0, INT_MAX, &seals) < 0)
        || check_seals((int)fd, (int)seals) < 0) {
        return NULL;
    }
    if (values[1] == NULL || values[1] == Py_None) {
        int rc = must_be_readonly((int)fd);
        if (rc < 0) {
            return raise_errno(rc, NULL);
        }
        params.readonly = rc;
    }
    SharedMemoryObject *self = handle_alloc(state, type);
    if (self == NULL) {
        return NULL;
    }
    handle_state body;
    struct pshm_object object = {.fd = -1};
    int rc = handle_register(state);
    do {
        if (rc == 0 || rc == -ESTALE) {
            rc = prepare_body(state, &body);
        }
        if (rc < 0) {
            Py_DECREF(self);
            return rc == -ENOMEM ? PyErr_NoMemory() : NULL;
        }
        Py_BEGIN_ALLOW_THREADS
        rc = adopt_fd((int)fd, &params, &body, &object);
        Py_END_ALLOW_THREADS
        if (rc < 0) {
            handle_state_clear(&body);
        }
    } while (rc == -ESTALE);
    if (rc < 0) {
        Py_DECREF(self);
        return handle_raise_attach(rc, values[0], &params, &object);
    }
    return finish_factory(self, &body);
}

/* ---- The standard library's door ---- */

static int
attach_into(core_state *state, SharedMemoryObject *self, PyObject *name,
            bool track)
{
    const attach_params params = {.accepted = PSHM_ACCEPT_ANY};
    struct pshm_name path;
    handle_state body;
    PyObject *duty;
    if (arg_name(name, &path) < 0
        || attach_waiting(state, name, &path, &params, 0, &body) < 0) {
        return -1;
    }
    body.track = track;
    if (handle_install(self, &body, &duty) < 0) {
        return -1;
    }
    return handle_delete_now(duty);
}

int
handle_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "create", "size", "track",
                                        NULL};
    static const struct signature signature = {"SharedMemory", 3, 0, names};
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *values[4];
    bool create = false, track = false;
    if (args_match_dict(&signature, args, kwargs, values) < 0
        || arg_bool(values[1], &create) < 0
        || arg_bool(values[3], &track) < 0
        || handle_delete_audit(as_handle(op)) < 0) {
        return -1;
    }
    PyObject *name = values[0] == NULL ? Py_None : values[0];
    if (create) {
        if (values[2] == NULL) {
            PyErr_SetString(PyExc_ValueError,
                            "size must be given to create an object");
            return -1;
        }
        return handle_create_into(state, as_handle(op), name, values[2],
                                  S_IRUSR | S_IWUSR, track, true);
    }
    Py_ssize_t ignored;
    if (values[2] != NULL && arg_offset(values[2], "size", &ignored) < 0) {
        return -1;
    }
    if (name == Py_None) {
        PyErr_SetString(PyExc_ValueError,
                        "name can be None only together with create=True");
        return -1;
    }
    return attach_into(state, as_handle(op), name, track);
}
