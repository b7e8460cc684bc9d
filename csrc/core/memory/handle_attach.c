/* Attaching to an object by its name or its descriptor. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"
#include "core/interrupt.h"

#include "posix/clock.h"
#include "posix/constants.h"
#include "posix/object/fd.h"
#include "posix/object/map.h"
#include "posix/object/populate.h"
#include "posix/object/region.h"
#include "posix/object/size.h"
#include "posix/object/use_lock.h"

/* Pauses between two attempts to attach, in seconds. */
#define FIRST_PAUSE 0.0002
#define LONGEST_PAUSE 0.01

/* ---- Handles ---- */

SharedMemoryObject *
handle_alloc(core_state *state, PyObject *type)
{
    PyObject *none = PyTuple_New(0);    /* always the same object */
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

PyObject *
handle_finish(SharedMemoryObject *self, handle_state *state)
{
    if (handle_install(self, state) != 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

int
handle_prepare(core_state *state, handle_state *out)
{
    *out = HANDLE_STATE_NONE;
    out->map = mapping_new(state);
    out->fd = out->map != NULL ? fdref_new() : NULL;
    if (out->fd == NULL) {
        PyErr_Clear();
        handle_state_clear(out);
        return -ENOMEM;
    }
    return 0;
}

/* ---- Attaching ---- */

/* An internal result: start again, for the object was shrunk in between. */
#define SHRUNK (-ESTALE)

/* Map an object and fill *out. Steals object->fd if it succeeds. Returns 0,
 * -ERANGE, SHRUNK or -errno. Without the GIL, as the next two. */
static int
fill_state(const struct pshm_object *object, const attach_params *params,
           unsigned shrinks, handle_state *out)
{
    void *base;
    Py_ssize_t max_size = params->max_size;
    int prot = params->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    size_t length = (size_t)(max_size > 0 ? max_size : object->size);
    if (max_size > 0 && object->size > max_size) {
        return -ERANGE;
    }
    int rc = pshm_map(object->fd, 0, length, prot, &base);
    if (rc < 0) {
        return rc;
    }
    if (!mapping_set(out->map, base, length, (Py_ssize_t)object->size, prot,
                     object->id, shrinks)) {
        return SHRUNK;
    }
    out->map->readonly = params->readonly;
    out->fd->fd = object->fd;
    out->fd->id = object->id;
    out->id = object->id;
    out->readonly = params->readonly;
    out->locked = object->locked;
    out->last = object->last;
    out->max_size = max_size;
    return 0;
}

static int
attach_path(const struct pshm_name *path, const attach_params *params,
            handle_state *out, struct pshm_object *object)
{
    unsigned shrinks = pshm_region_shrinks();
    int rc = pshm_attach(path, params->readonly, &params->accepted, object);
    if (rc == 0) {
        rc = fill_state(object, params, shrinks, out);
        if (rc < 0) {
            pshm_fd_close(object->fd);
        }
    }
    return rc;
}

/* The use lock comes last, because a descriptor that remains the caller's must
 * not get one. */
static int
attach_fd(int fd, const attach_params *params, handle_state *out,
          struct pshm_object *object)
{
    int own = fd < PSHM_FD_FIRST ? pshm_fd_copy(fd) : fd;
    unsigned shrinks = pshm_region_shrinks();
    int rc = own < 0 ? own : pshm_attach_inspect(own, object);
    if (rc == 0) {
        rc = fill_state(object, params, shrinks, out);
    }
    if (rc == 0) {
        rc = pshm_use_lock_take(own);
        out->locked = rc == 0;
        rc = rc == -EAGAIN ? 0 : rc;
    }
    if (rc >= 0) {
        rc = pshm_fd_cloexec(own);
    }
    if (rc < 0) {
        out->fd->fd = -1;
    }
    if (own != fd) {
        pshm_fd_close(rc < 0 ? own : fd);
    }
    return rc;
}

int
handle_attach(core_state *state, PyObject *given,
              const struct pshm_name *path, int fd,
              const attach_params *params, handle_state *out,
              struct pshm_object *object)
{
    int rc;
    *object = (struct pshm_object){.fd = -1};
    do {
        rc = handle_prepare(state, out);
        if (rc < 0) {
            return rc;
        }
        Py_BEGIN_ALLOW_THREADS
        rc = path != NULL ? attach_path(path, params, out, object)
                          : attach_fd(fd, params, out, object);
        Py_END_ALLOW_THREADS
        if (rc == 0 && path != NULL) {
            out->name = handle_name_of(path, given);
            rc = out->name == NULL ? -ENOMEM : 0;
            PyErr_Clear();
        }
        if (rc < 0) {
            handle_state_clear(out);
        }
    } while (rc == SHRUNK || try_again(rc));
    return rc;
}

PyObject *
handle_raise_attach(int rc, PyObject *name, const attach_params *params,
                    const struct pshm_object *object)
{
    if (rc == -ERANGE) {
        return PyErr_Format(PyExc_ValueError,
                            "max_size must be at least the size of the object "
                            "%R, %lld bytes, not %zd",
                            name, (long long)object->size, params->max_size);
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
                            "the object %R has %lld bytes, fewer than "
                            "size_at_least, %lld; timeout= waits until it has "
                            "grown",
                            name, (long long)object->size,
                            (long long)params->accepted.size);
    }
    return raise_attach(rc, name, object->mode);
}

/* ---- Waiting ---- */

int
handle_pause(double deadline, double *pause)
{
    double left = deadline - pshm_clock();
    double seconds = left < *pause ? (left > 0 ? left : 0) : *pause;
    Py_BEGIN_ALLOW_THREADS
    (void)pshm_sleep(seconds);
    Py_END_ALLOW_THREADS
    *pause = *pause * 2 < LONGEST_PAUSE ? *pause * 2 : LONGEST_PAUSE;
    return PyErr_CheckSignals();
}

static void
raise_timeout(PyObject *name, double timeout, int rc,
              const struct pshm_object *object,
              const struct pshm_accepted *accepted)
{
    PyObject *seconds = PyFloat_FromDouble(timeout);
    if (seconds != NULL && rc == -EDOM) {
        raise_errno_words(-ETIMEDOUT, name,
                          "The object has %lld bytes, and did not grow to "
                          "size_at_least, %lld bytes, within %S seconds",
                          (long long)object->size, (long long)accepted->size,
                          seconds);
    }
    else if (seconds != NULL) {
        raise_errno_words(-ETIMEDOUT, name,
                          "No process created an object of that name and set "
                          "its size within %S seconds",
                          seconds);
    }
    Py_XDECREF(seconds);
}

/* reserve=True: take the memory of all bytes, of which a hole that is read
 * also needs some. It stays taken, because another process may have written to
 * it, so check the room first. Returns 0, or -1 with the state released. */
static int
reserve(handle_state *state, PyObject *name)
{
    MemoryMapObject *map = state->map;
    off_t size = (off_t)mapping_size(map);
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    off_t missing = pshm_size_missing(state->fd->fd, size);
    int rc = missing < 0 ? (int)missing
                         : pshm_size_room(state->fd->fd, missing);
    if (rc == 0) {
        rc = state->readonly
                 ? pshm_populate(map->base, (size_t)size, false, &interrupt)
                 : pshm_size_reserve(state->fd->fd, size, &interrupt);
    }
    PyEval_RestoreThread(released);
    if (rc < 0) {
        raise_no_memory(rc == -EFAULT ? -ENOSPC : rc, name, state->fd->fd,
                        missing);
        handle_state_clear(state);
    }
    return rc < 0 ? -1 : 0;
}

/* Attach, and wait up to timeout seconds for an object that is accepted.
 * Returns 0 or -1. */
static int
attach_waiting(core_state *state, PyObject *name, const struct pshm_name *path,
               const attach_params *params, double timeout, handle_state *out)
{
    double deadline = timeout > 0 ? pshm_clock() + timeout : 0;
    double pause = FIRST_PAUSE;
    struct pshm_object object;
    if (audit_open(path, params->readonly) < 0) {
        return -1;
    }
    for (;;) {
        int rc = handle_attach(state, name, path, -1, params, out, &object);
        if (rc == 0) {
            return params->reserve ? reserve(out, name) : 0;
        }
        bool absent = rc == -ENOENT || rc == -ENODATA || rc == -EDOM;
        bool waits = timeout > 0 && (absent || rc == -EAGAIN);
        if (waits && pshm_clock() < deadline) {
            if (handle_pause(deadline, &pause) < 0) {
                return -1;
            }
            continue;
        }
        if (absent && waits) {
            raise_timeout(name, timeout, rc, &object, &params->accepted);
        }
        else {
            handle_raise_attach(rc, name, params, &object);
        }
        return -1;
    }
}

int
handle_attach_into(core_state *state, SharedMemoryObject *self,
                   PyObject *name, bool track)
{
    const attach_params params = {.accepted = PSHM_ACCEPT_ANY};
    struct pshm_name path;
    handle_state attached;
    if (arg_name(name, &path) < 0
        || attach_waiting(state, name, &path, &params, 0, &attached) < 0) {
        return -1;
    }
    attached.track = track;
    return handle_install(self, &attached) == 0 ? 0 : -1;
}

PyObject *
handle_attach_new(core_state *state, PyObject *type, PyObject *given,
                  const struct pshm_name *path, const attach_params *params,
                  double timeout)
{
    handle_state attached;
    SharedMemoryObject *self = handle_alloc(state, type);
    if (self == NULL) {
        return NULL;
    }
    if (attach_waiting(state, given, path, params, timeout, &attached) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return handle_finish(self, &attached);
}

/* ---- open() ---- */

const char handle_open_doc[] =
    "open($type, /, name, *, readonly=False, timeout=0, max_size=None,\n"
    "     reserve=False, owner='any', mode_at_most=None, size_at_least=0)\n"
    "--\n\n"
    "Attach to the object called name: " MAN(shm_open, 3) ".\n\n"
    "This does not change the object. name: a str, with or without a leading\n"
    "slash. readonly: open and map the object for reading only. timeout:\n"
    "seconds to wait until an object has the name and at least size_at_least\n"
    "bytes; None: no limit; 0 or less: do not wait. max_size: bytes of\n"
    "address space to reserve, so that the object can grow in place under\n"
    "all views. reserve: take the memory that the object has not used yet,\n"
    "so that a full mount raises OSError (ENOSPC) here instead of causing a\n"
    "bus error later.\n"
    OWNER_ARGUMENT_DOC MODE_AT_MOST_DOC
    "size_at_least: bytes. The last three are checked on the open\n"
    "descriptor. Raises FileNotFoundError; TimeoutError; PermissionError,\n"
    "also if the owner or the mode is not accepted; ValueError for a bad\n"
    "name, and for an object that is larger than max_size or, without a\n"
    "timeout, smaller than size_at_least; OSError: ENODATA (size 0), ELOOP\n"
    "(a symbolic link), EISDIR, EINVAL (not a regular file), EMFILE, ENOMEM.";

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
    double timeout = 0;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &path) < 0
        || arg_bool(values[1], &params.readonly) < 0
        || arg_timeout(values[2], &timeout) < 0
        || (values[3] != NULL && values[3] != Py_None
            && arg_size(values[3], "max_size", &params.max_size) < 0)
        || arg_bool(values[4], &params.reserve) < 0
        || arg_owners(state, values[5], &params.accepted.owners) < 0
        || arg_mode_at_most(values[6], &params.accepted.mode) < 0
        || (values[7] != NULL
            && arg_offset(values[7], "size_at_least", &size_at_least) < 0)) {
        return NULL;
    }
    params.accepted.size = size_at_least;
    return handle_attach_new(state, type, values[0], &path, &params, timeout);
}
