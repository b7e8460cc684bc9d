#include "core/memory/pages.h"

#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/memory/handle.h"

#include "posix/object/fd.h"
#include "posix/object/map.h"
#include "posix/object/populate.h"
#include "posix/object/procmaps.h"
#include "posix/object/size.h"

/* ---- The memory of a MemoryMap or of a handle ---- */

typedef struct {
    MemoryMapObject *map;
    SharedMemoryObject *handle;         /* or NULL, and now is not used */
    handle_state now;
} memory;

/* Returns 0, or -1 with an exception. */
static int
acquire(PyObject *op, memory *m)
{
    m->handle = NULL;
    if (Py_IS_TYPE(op, core_state_of_type(Py_TYPE(op))->mapping_type)) {
        m->map = as_mapping(Py_NewRef(op));
        return 0;
    }
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    if (handle_acquire(as_handle(op), HANDLE_MAP, &m->now) < 0) {
        return -1;
    }
    m->handle = as_handle(op);
    m->map = m->now.map;
    return 0;
}

/* Returns result. An OSError gets the name of the object. */
static PyObject *
release(memory *m, PyObject *result)
{
    if (m->handle == NULL) {
        Py_DECREF(m->map);
        return result;
    }
    if (result == NULL) {
        raise_again_with(m->now.name);
    }
    handle_release(m->handle, HANDLE_MAP, &m->now);
    return result;
}

/* ---- Ranges ---- */

/* The arguments offset= and length=, a range of whole pages. Returns 0 or -1.
 */
static int
parse_range(MemoryMapObject *map, PyObject **values, Py_ssize_t *offset,
            Py_ssize_t *length)
{
    Py_ssize_t size, page = (Py_ssize_t)pshm_page_size();
    *offset = 0;
    *length = -1;
    if ((values[0] != NULL && arg_offset(values[0], "offset", offset) < 0)
        || (values[1] != NULL && values[1] != Py_None
            && arg_offset(values[1], "length", length) < 0)) {
        return -1;
    }
    if (*offset % page != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of the page size, %zd bytes, "
                     "not %zd",
                     page, *offset);
        return -1;
    }
    size = mapping_size(map);
    if (*offset > size || *length > size - *offset) {
        PyErr_Format(PyExc_ValueError,
                     "offset %zd and length %zd reach past the end of the "
                     "mapping, which has %zd bytes",
                     *offset, *length, size);
        return -1;
    }
    if (*length < 0) {
        *length = size - *offset;
    }
    return 0;
}

/* The kernel brings in only pages that may be accessed. Returns 0 or -1. */
static int
check_access(MemoryMapObject *map)
{
    if (map->prot != PROT_NONE) {
        return 0;
    }
    raise_errno_words(-EACCES, NULL,
                      "The memory is protected with PROT_NONE; "
                      "protect(PROT_READ) allows access to it");
    return -1;
}

/* mlock(2) returns ENOMEM both for the limit and for a missing page. */
static PyObject *
raise_lock(int rc, Py_ssize_t length)
{
    uint64_t limit = pshm_map_lock_limit();
    if (limit == UINT64_MAX || (rc != -ENOMEM && rc != -EPERM)) {
        return raise_errno(rc, NULL);
    }
    return raise_errno_words(
        rc, NULL,
        "Cannot lock %zd bytes in memory: RLIMIT_MEMLOCK (ulimit -l) allows "
        "this process %llu bytes in total%s",
        length, (unsigned long long)limit,
        (uint64_t)length > limit
            ? "" : ", or a page of the range is past the end of the object");
}

static int
check_advice(long long advice)
{
    if (pshm_advice_is_safe((int)advice)) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "advice %lld is not accepted: it could lose bytes of the "
                 "memory, or make an access to it crash",
                 advice);
    return -1;
}

/* A method that makes one system call on a range. */
struct range_method {
    struct signature signature;
    int offset;                         /* position of offset=, before length= */
    int flag;                           /* position of the int flag */
    int value;                          /* the flag if it is not given */
    int (*call)(void *base, size_t length, int flag);
};

static PyObject *
call_on_range(PyObject *op, const struct range_method *method,
              PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    PyObject *values[4] = {NULL}, *result = NULL;
    Py_ssize_t offset, length;
    long long flag = method->value;
    memory m;
    if (args_match(&method->signature, args, count, kwnames, values) < 0
        || (values[method->flag] != NULL
            && arg_long(values[method->flag],
                        method->signature.names[method->flag], 0, INT_MAX,
                        &flag) < 0)
        || acquire(op, &m) < 0) {
        return NULL;
    }
    bool locks = method->call == pshm_map_lock;
    if (parse_range(m.map, values + method->offset, &offset, &length) == 0
        && (method->call != pshm_map_advise || check_advice(flag) == 0)
        && (!locks || !flag || check_access(m.map) == 0)) {
        int rc;
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = method->call(m.map->base + offset, (size_t)length, (int)flag);
            Py_END_ALLOW_THREADS
        } while (try_again(rc));
        result = rc == 0           ? Py_NewRef(Py_None)
                 : locks && flag   ? raise_lock(rc, length)
                                   : raise_errno(rc, NULL);
    }
    return release(&m, result);
}

static const char *const range_names[] = {"offset", "length", NULL};

#define RANGE_DOC                                                            \
    "offset: bytes, a multiple of PAGESIZE. length: bytes; None: up to the\n" \
    "end of the mapping.\n\n"                                                 \
    "Raises ValueError for a range outside the mapping, and after close() of\n"\
    "a handle; OSError"

const char pages_lock_doc[] =
    "lock_pages($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages into memory and keep them there: " MAN(mlock, 2) ".\n\n"
    RANGE_DOC ": ENOMEM or EPERM above RLIMIT_MEMLOCK.";

PyObject *
pages_lock(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const struct range_method method = {
        {"lock_pages", 2, 0, range_names}, 0, 3, true, pshm_map_lock};
    return call_on_range(op, &method, args, count, kwnames);
}

const char pages_unlock_doc[] =
    "unlock_pages($self, /, offset=0, length=None)\n--\n\n"
    "Undo lock_pages(): " MAN(munlock, 2) ".\n\n" RANGE_DOC ".";

PyObject *
pages_unlock(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const struct range_method method = {
        {"unlock_pages", 2, 0, range_names}, 0, 3, false, pshm_map_lock};
    return call_on_range(op, &method, args, count, kwnames);
}

const char pages_advise_doc[] =
    "advise($self, /, advice, offset=0, length=None)\n--\n\n"
    "Tell the kernel how the pages will be used: " MAN(madvise, 2) ".\n\n"
    "advice: a MADV_ constant of this module. Advice that could lose bytes,\n"
    "or make a later access crash, raises ValueError.\n" RANGE_DOC ": EINVAL\n"
    "if the kernel does not support the advice.";

PyObject *
pages_advise(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"advice", "offset", "length", NULL};
    static const struct range_method method = {
        {"advise", 3, 1, names}, 1, 0, 0, pshm_map_advise};
    return call_on_range(op, &method, args, count, kwnames);
}

const char pages_sync_doc[] =
    "sync($self, /, offset=0, length=None, flags=4)\n--\n\n"
    "Write the pages of a file to its disk: " MAN(msync, 2) ".\n\n"
    "It has no effect on objects in memory.\n\n"
    "flags: MS_SYNC (4) or MS_ASYNC, and MS_INVALIDATE.\n" RANGE_DOC ".";

PyObject *
pages_sync(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length", "flags", NULL};
    static const struct range_method method = {
        {"sync", 3, 0, names}, 0, 2, MS_SYNC, pshm_map_sync};
    return call_on_range(op, &method, args, count, kwnames);
}

/* ---- Populating ---- */

const char pages_populate_doc[] =
    "populate($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages into memory and map them: " MAN(madvise, 2) ".\n\n"
    "No later access to them faults. The advice is MADV_POPULATE_WRITE, or\n"
    "MADV_POPULATE_READ if the mapping is read-only. Needs Linux 5.14.\n\n"
    RANGE_DOC ":\n"
    "ENOSPC if the file system has no room; EFAULT if a page is past the end\n"
    "of the object; EINVAL if the kernel cannot populate this memory. If the\n"
    "object can be found by its name or among the descriptors of this\n"
    "process, the room is checked before the first page is taken.";

/* Check the room before pages are taken: they stay taken, because another
 * process may have written to them. The number of missing bytes is exact if
 * the range is the whole object, and otherwise a minimum. If the room is
 * unknown, the pages are populated all the same. Returns 0 or -1. */
static int
check_room(int object, off_t start, off_t end)
{
    struct pshm_status status;
    off_t missing = 0;
    if (object < 0) {
        return 0;
    }
    int rc;
    bool past;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_status_of(object, &status);
    past = rc == 0 && S_ISREG(status.mode) && end > status.size;
    if (rc == 0 && !past) {
        missing = pshm_size_missing(object, end - start);
        rc = missing > 0 ? pshm_size_room(object, missing) : 0;
    }
    Py_END_ALLOW_THREADS
    if (past) {
        raise_past_end(status.size, end);
    }
    else if (rc == -ENOSPC || rc == -ENOMEM) {
        raise_no_memory(rc, NULL, object, missing);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* where: the object that map has mapped. */
static PyObject *
populate(MemoryMapObject *map, const struct pshm_mapped *where,
         Py_ssize_t offset, Py_ssize_t length)
{
    bool write = map->prot & PROT_WRITE;
    off_t start = where->offset + (off_t)offset, end = start + (off_t)length;
    if (check_room(where->object, start, end) < 0) {
        return NULL;
    }
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_populate(map->base + offset, (size_t)length, write,
                           &interrupt);
    PyEval_RestoreThread(released);
    if (rc == 0) {
        Py_RETURN_NONE;
    }
    int mount = where->object >= 0 ? where->object : where->folder;
    return rc == -EINTR ? NULL
                        : raise_populate(rc, where->object, mount, start, end);
}

PyObject *
pages_populate(PyObject *op, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const struct signature signature = {"populate", 2, 0, range_names};
    PyObject *values[2], *result = NULL;
    Py_ssize_t offset, length;
    memory m;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || acquire(op, &m) < 0) {
        return NULL;
    }
    if (parse_range(m.map, values, &offset, &length) == 0
        && check_access(m.map) == 0) {
        struct fdref *fd = m.handle != NULL ? handle_take_fd(m.handle) : NULL;
        PyErr_Clear();                  /* after close_fd() */
        struct pshm_mapped where = {.object = -1, .folder = -1};
        if (fd != NULL) {
            where.object = fd->fd;
        }
        else {
            Py_BEGIN_ALLOW_THREADS
            (void)pshm_maps_find(m.map->base, &where);
            Py_END_ALLOW_THREADS
        }
        result = populate(m.map, &where, offset, length);
        if (fd == NULL) {
            pshm_fd_close(where.object);
            pshm_fd_close(where.folder);
        }
        fdref_drop(fd);
    }
    return release(&m, result);
}

/* ---- The pages in memory ---- */

const char pages_resident_doc[] =
    "The number of bytes in memory, by whole pages: " MAN(mincore, 2) ".\n"
    "A process that cannot write to the object and does not own it sees all\n"
    "of it as resident. Raises ValueError after close() of a handle.";

PyObject *
pages_get_resident(PyObject *op, void *Py_UNUSED(closure))
{
    memory m;
    if (acquire(op, &m) < 0) {
        return NULL;
    }
    size_t size = (size_t)mapping_size(m.map), bytes = 0;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map_resident(m.map->base, size, &bytes);
    Py_END_ALLOW_THREADS
    return release(&m, rc < 0 ? raise_errno(rc, NULL)
                              : PyLong_FromSize_t(bytes));
}
