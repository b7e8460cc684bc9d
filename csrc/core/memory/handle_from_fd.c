/* SharedMemory.from_fd(): a handle for an open descriptor. */
#include "core/memory/handle.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/constants.h"
#include "posix/object/fd.h"
#include "posix/object/new_object.h"

const char handle_from_fd_doc[] =
    "from_fd($type, /, fd, *, readonly=None, max_size=None,\n"
    "        require_seals=0)\n--\n\n"
    "Return a handle for the object of an open descriptor:\n"
    MAN(mmap, 2) ".\n\n"
    "The handle does not have a name. fd: an int, of a regular file or memfd\n"
    "that is not empty. It belongs to the handle then, unless this raises;\n"
    "an exclusive lock of it, " MAN(flock, 2) ", becomes a shared one.\n"
    "readonly: map the object for reading only; None: if fd or its seals do\n"
    "not allow writing. max_size: as for open(). require_seals: F_SEAL_\n"
    "constants that the object must have. With F_SEAL_SHRINK no access can\n"
    "cause a bus error.\n\n"
    "Raises ValueError; PermissionError (EPERM) if a seal is missing;\n"
    "OSError: EBADF, EINVAL (not a regular file), ENODATA (size 0), EACCES\n"
    "(fd was opened for less), ENOMEM.";

/* Whether fd or its seals forbid writing: 1, 0 or -errno. */
static int
forbids_writing(int fd)
{
    int access = pshm_fd_access(fd);
    if (access < 0) {
        return access;
    }
    int seals = pshm_seals_of(fd);
    return access == O_RDONLY
           || (seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/* A seal cannot be removed, so it can be checked first. Returns 0 or -1. */
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
        int rc = forbids_writing((int)fd);
        if (rc < 0) {
            return raise_errno(rc, NULL);
        }
        params.readonly = rc;
    }
    SharedMemoryObject *self = handle_alloc(state, type);
    handle_state attached;
    struct pshm_object object;
    if (self == NULL) {
        return NULL;
    }
    if (handle_register(state) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    int rc = handle_attach(state, NULL, NULL, (int)fd, &params, &attached,
                           &object);
    if (rc < 0) {
        Py_DECREF(self);
        /* Without a descriptor nothing was mapped: Python has no memory. */
        return rc == -ENOMEM && object.fd < 0
                   ? PyErr_NoMemory()
                   : handle_raise_attach(rc, values[0], &params, &object);
    }
    return handle_finish(self, &attached);
}
