/* The header of a primitive: making it, checking it, and what is wrong with
 * it. */
#include "core/sync/placed.h"

#include "core/errors.h"
#include "core/memory/handle.h"
#include "core/sync/waiting.h"

#include "posix/sync/renew.h"

/* The longest wait for another process that makes the same primitive. */
#define MAKING_SECONDS 1
#define MAKING_TIMEOUT ((int64_t)MAKING_SECONDS * 1000 * 1000 * 1000)

static struct pshm_primitive_params
header_params(const placed_params *params)
{
    const struct placed_type *type = params->type;
    return (struct pshm_primitive_params){
        .kind = type->kind,
        .size = (size_t)type->size,
        .owned = type->owned,
        .flags = type->flags,
        .init = type->init,
        .how = &params->value,
    };
}

/* ---- Errors ---- */

/* Describe other bytes, which may begin as a known file does. */
static const char *
describe_bytes(const struct pshm_primitive *primitive)
{
    static const struct {
        const char *start;
        const char *description;
    } known[] = {
        {"\x93NUMPY", "an array (.npy)"},
        {"ARROW1", "an Arrow table"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(known); i++) {
        if (memcmp(primitive->payload, known[i].start, strlen(known[i].start))
            == 0) {
            return known[i].description;
        }
    }
    return "other data";
}

static void
raise_header(int rc, const placed_params *params, const PlacedObject *self,
             PyObject *shm, PyObject *position, enum pshm_primitive_kind found)
{
    const char *type = params->type->name, *article = placed_article(type);
    const char *other = placed_kind_name(found);
    const bool exist_ok = params->object.existing.exist_ok;
    PyObject *name = Py_IS_TYPE(shm, params->state->mapping_type)
                         ? NULL
                         : handle_name_object((SharedMemoryObject *)shm);
    switch (rc) {
    case -ENOENT:
        raise_errno_words(rc, name,
                          exist_ok
                              ? "There is no %s %U, only bytes that are zero; "
                                "%s.at(shm, create=True) creates one of them"
                              : "There is no %s %U; create=True creates one",
                          type, position, type);
        break;
    case -EEXIST:
        raise_errno_words(rc, name,
                          "There is %s %s %U already; open it without "
                          "create=True, or with exist_ok=True", article, type,
                          position);
        break;
    case -ETIMEDOUT:
        raise_errno_words(rc, name,
                          "Another process began to create the primitive %U "
                          "and did not finish within %d second; try again",
                          position, MAKING_SECONDS);
        break;
    case -EXDEV:
        raise_errno_words(rc, name,
                          exist_ok
                              ? "The %s %U was created in another PID "
                                "namespace, whose process ids are not valid "
                                "here, and a process still uses the object; "
                                "if no process used it, this call would create "
                                "it again"
                              : "The %s %U was created in another PID "
                                "namespace, whose process ids are not valid "
                                "here; with create=True and exist_ok=True it "
                                "is created again, if no process uses the "
                                "object",
                          type, position);
        break;
    case -ENOEXEC:
        raise_errno_words(rc, name,
                          "The primitive %U was created with another C "
                          "library, word size or version of posixshm; use the "
                          "same ones in all processes", position);
        break;
    case -EPROTOTYPE:
        PyErr_Format(PyExc_ValueError, "there is %s %s %U, not %s %s",
                     other != NULL ? placed_article(other) : "a",
                     other != NULL ? other : "primitive of another version",
                     position, article, type);
        break;
    case -EBADMSG:
        PyErr_Format(PyExc_ValueError,
                     params->create || exist_ok
                         ? "there is %s %U; %s %s is created only in bytes "
                           "that are zero"
                         : "there is %s %U, not %s %s",
                     describe_bytes(self->primitive), position, article, type);
        break;
    default:
        raise_errno(rc, name);
    }
    Py_XDECREF(name);
}

/* ---- Making and checking ---- */

/* Returns 0 or -errno; -EINTR with an exception. */
static int
make(const placed_params *params, struct pshm_primitive *primitive,
     enum pshm_primitive_kind *found)
{
    const struct pshm_primitive_params header = header_params(params);
    int64_t deadline = pshm_now() + MAKING_TIMEOUT;
    int rc;
    WAIT_WITHOUT_GIL(rc, pshm_primitive_make(primitive, &header, deadline,
                                             found));
    return rc == -EEXIST && params->object.existing.exist_ok ? 0 : rc;
}

int
placed_make_header(const placed_params *params, void *memory)
{
    enum pshm_primitive_kind found;
    return make(params, memory, &found);
}

/* After -EXDEV, with exist_ok: the PID namespace may not exist any more, so
 * create the primitive again if no process uses its object. An object without
 * a name does not outlive its processes. A descriptor that forked processes
 * share does not tell whether another process uses the object. Returns as
 * make(). */
static int
renew(const placed_params *params, PyObject *shm,
      struct pshm_primitive *primitive)
{
    SharedMemoryObject *handle = (SharedMemoryObject *)shm;
    const struct pshm_primitive_params header = header_params(params);
    if (!params->object.existing.exist_ok
        || Py_IS_TYPE(shm, params->state->mapping_type)) {
        return -EXDEV;
    }
    struct fdref *fd = handle_take_fd(handle);
    if (fd == NULL) {
        PyErr_Clear();
        return -EXDEV;
    }
    int rc = -EXDEV;
    if (fdref_is_private(fd) && handle_has_name(handle)) {
        int64_t deadline = pshm_now() + MAKING_TIMEOUT;
        WAIT_WITHOUT_GIL(rc, pshm_renew(fd->fd, primitive, &header, deadline));
    }
    fdref_drop(fd);
    if (rc == -EINTR) {
        return rc;
    }
    /* The use lock was not held meanwhile: the object may be reclaimed. */
    PyObject *linked = rc == 0 && params->own ? handle_is_linked(shm, NULL)
                                              : NULL;
    rc = linked == Py_False ? -ESTALE : rc;
    PyErr_Clear();
    Py_XDECREF(linked);
    return rc;
}

int
placed_open_header(const placed_params *params, PlacedObject *self,
                   PyObject *shm, PyObject *position)
{
    const struct pshm_primitive_params header = header_params(params);
    struct pshm_primitive *primitive = placed_memory(self);
    enum pshm_primitive_kind found = PSHM_PRIMITIVE_NONE;
    int rc = params->create ? make(params, primitive, &found)
                            : pshm_primitive_check(primitive, &header, &found);
    self->primitive = primitive;
    self->kind = params->type->kind;
    if (rc == -ENOTRECOVERABLE) {
        /* The mutex of the header is in this thread's list for good. */
        Py_INCREF(self->map);
        rc = -EBADMSG;
    }
    if (rc == -EXDEV) {
        rc = renew(params, shm, primitive);
    }
    if (rc < 0) {
        raise_header(rc, params, self, shm, position, found);
    }
    return rc < 0 ? -1 : 0;
}
