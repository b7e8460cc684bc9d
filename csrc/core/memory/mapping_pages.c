/* The pages of a mapping: advice, locking, populating. */
#include "core/memory/mapping.h"

#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/view/view.h"

#include "posix/object/fd.h"
#include "posix/object/map.h"
#include "posix/object/populate.h"
#include "posix/object/procmaps.h"
#include "posix/object/size.h"

/* ---- Ranges ---- */

/* The arguments offset= and length=, a range of whole pages. Returns 0 or -1.
 */
static int
parse_range(MemoryMapObject *self, PyObject *offset_value,
            PyObject *length_value, Py_ssize_t *offset, Py_ssize_t *length)
{
    Py_ssize_t size, page = (Py_ssize_t)pshm_page_size();
    *offset = 0;
    *length = -1;
    if ((offset_value != NULL
         && arg_offset(offset_value, "offset", offset) < 0)
        || (length_value != NULL && length_value != Py_None
            && arg_offset(length_value, "length", length) < 0)) {
        return -1;
    }
    if (*offset % page != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of the page size, %zd bytes, "
                     "not %zd",
                     page, *offset);
        return -1;
    }
    size = mapping_size(self);
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
check_access(MemoryMapObject *self)
{
    if (self->prot != PROT_NONE) {
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

typedef int (*range_call)(void *base, size_t length);

static PyObject *
call_on_range(PyObject *op, const struct signature *signature,
              PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
              range_call call)
{
    MemoryMapObject *self = as_mapping(op);
    PyObject *values[2];
    Py_ssize_t offset, length;
    if (args_match(signature, args, count, kwnames, values) < 0
        || parse_range(self, values[0], values[1], &offset, &length) < 0
        || (call == pshm_map_lock && check_access(self) < 0)) {
        return NULL;
    }
    int rc = 0;
    if (length > 0) {
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = call(self->base + offset, (size_t)length);
            Py_END_ALLOW_THREADS
        } while (try_again(rc));
    }
    if (rc < 0) {
        return call == pshm_map_lock ? raise_lock(rc, length)
                                     : raise_errno(rc, NULL);
    }
    Py_RETURN_NONE;
}

static const char *const range_names[] = {"offset", "length", NULL};

#define RANGE_DOC                                                            \
    "offset: bytes, a multiple of PAGESIZE. length: bytes; None: up to the\n" \
    "end of the mapping.\n\n"                                                 \
    "Raises ValueError for a range outside the mapping; OSError"

PyDoc_STRVAR(
    lock_doc,
    "lock_pages($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages into memory and keep them there: " MAN(mlock, 2) ".\n\n"
    RANGE_DOC ": ENOMEM or\nEPERM above RLIMIT_MEMLOCK.");

PyObject *
mapping_lock_pages(PyObject *op, PyObject *const *args, Py_ssize_t count,
                   PyObject *kwnames)
{
    static const struct signature signature = {"lock_pages", 2, 0,
                                               range_names};
    return call_on_range(op, &signature, args, count, kwnames, pshm_map_lock);
}

PyDoc_STRVAR(
    unlock_doc,
    "unlock_pages($self, /, offset=0, length=None)\n--\n\n"
    "Undo lock_pages(): " MAN(munlock, 2) ".\n\n" RANGE_DOC ".");

PyObject *
mapping_unlock_pages(PyObject *op, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames)
{
    static const struct signature signature = {"unlock_pages", 2, 0,
                                               range_names};
    return call_on_range(op, &signature, args, count, kwnames,
                         pshm_map_unlock);
}

PyDoc_STRVAR(
    populate_doc,
    "populate($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages into memory and map them: " MAN(madvise, 2) ".\n\n"
    "No later access to them faults. The advice is MADV_POPULATE_WRITE, or\n"
    "MADV_POPULATE_READ if the mapping is read-only. Needs Linux 5.14.\n\n"
    RANGE_DOC ": ENOSPC if\n"
    "the file system has no room; EFAULT if a page is past the end of the\n"
    "object; EINVAL if the kernel cannot populate this memory. If the object\n"
    "can be found by its name or among the descriptors of this process, the\n"
    "room is checked before the first page is taken.");

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

/* where: the object that self maps. */
static PyObject *
populate(MemoryMapObject *self, const struct pshm_mapped *where,
         Py_ssize_t offset, Py_ssize_t length)
{
    bool write = self->prot & PROT_WRITE;
    off_t start = where->offset + (off_t)offset, end = start + (off_t)length;
    if (check_room(where->object, start, end) < 0) {
        return NULL;
    }
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_populate(self->base + offset, (size_t)length, write,
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
mapping_populate_object(MemoryMapObject *self, int fd, PyObject *const *args,
                        Py_ssize_t count, PyObject *kwnames)
{
    static const struct signature signature = {"populate", 2, 0, range_names};
    PyObject *values[2];
    Py_ssize_t offset, length;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_range(self, values[0], values[1], &offset, &length) < 0
        || check_access(self) < 0) {
        return NULL;
    }
    struct pshm_mapped where = {.object = fd, .folder = -1};
    if (fd < 0) {
        Py_BEGIN_ALLOW_THREADS
        (void)pshm_maps_find(self->base, &where);
        Py_END_ALLOW_THREADS
    }
    PyObject *result = populate(self, &where, offset, length);
    if (fd < 0) {
        pshm_fd_close(where.object);
        pshm_fd_close(where.folder);
    }
    return result;
}

static PyObject *
mapping_populate(PyObject *op, PyObject *const *args, Py_ssize_t count,
                 PyObject *kwnames)
{
    return mapping_populate_object(as_mapping(op), -1, args, count, kwnames);
}

PyDoc_STRVAR(
    advise_doc,
    "advise($self, /, advice, offset=0, length=None)\n--\n\n"
    "Tell the kernel how the pages will be used: " MAN(madvise, 2) ".\n\n"
    "advice: a MADV_ constant of this module. Advice that could lose bytes,\n"
    "or\n"
    "make a later access crash, raises ValueError.\n" RANGE_DOC ": EINVAL if\n"
    "the kernel does not support the advice.");

PyObject *
mapping_advise(PyObject *op, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {"advice", "offset", "length", NULL};
    static const struct signature signature = {"advise", 3, 1, names};
    MemoryMapObject *self = as_mapping(op);
    PyObject *values[3];
    Py_ssize_t offset, length;
    long long advice;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_long(values[0], "advice", 0, INT_MAX, &advice) < 0
        || parse_range(self, values[1], values[2], &offset, &length) < 0) {
        return NULL;
    }
    if (!pshm_advice_is_safe((int)advice)) {
        return PyErr_Format(PyExc_ValueError,
                            "advice %lld is not accepted: it could lose bytes "
                            "of the memory, or make an access to it crash",
                            advice);
    }
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_map_advise(self->base + offset, (size_t)length,
                             (int)advice);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    return rc < 0 ? raise_errno(rc, NULL) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    sync_doc,
    "sync($self, /, offset=0, length=None, flags=4)\n--\n\n"
    "Write the pages of a file to its disk: " MAN(msync, 2) ".\n\n"
    "It has no effect on objects in memory.\n\n"
    "flags: MS_SYNC (4) or MS_ASYNC, and MS_INVALIDATE.\n" RANGE_DOC ".");

PyObject *
mapping_sync(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"offset", "length", "flags", NULL};
    static const struct signature signature = {"sync", 3, 0, names};
    MemoryMapObject *self = as_mapping(op);
    PyObject *values[3];
    Py_ssize_t offset, length;
    long long flags = MS_SYNC;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_range(self, values[0], values[1], &offset, &length) < 0
        || (values[2] != NULL
            && arg_long(values[2], "flags", 0, INT_MAX, &flags) < 0)) {
        return NULL;
    }
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_map_sync(self->base + offset, (size_t)length, (int)flags);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    return rc < 0 ? raise_errno(rc, NULL) : Py_NewRef(Py_None);
}

/* ---- Attributes ---- */

PyObject *
mapping_get_resident(PyObject *op, void *Py_UNUSED(closure))
{
    MemoryMapObject *self = as_mapping(op);
    size_t size = (size_t)mapping_size(self), bytes = 0;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map_resident(self->base, size, &bytes);
    Py_END_ALLOW_THREADS
    return rc < 0 ? raise_errno(rc, NULL) : PyLong_FromSize_t(bytes);
}

static PyObject *
mapping_get_readonly(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!(as_mapping(op)->prot & PROT_WRITE));
}

static PyObject *
mapping_get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(mapping_size(as_mapping(op)));
}

static PyObject *
mapping_get_prot(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(as_mapping(op)->prot);
}

#define RANGE_METHOD(name, function, doc) \
    {name, (PyCFunction)(void (*)(void))(function), \
     METH_FASTCALL | METH_KEYWORDS, doc}

PyMethodDef mapping_methods[] = {
    {"protect", mapping_protect_method, METH_O, mapping_protect_doc},
    RANGE_METHOD("advise", mapping_advise, advise_doc),
    RANGE_METHOD("sync", mapping_sync, sync_doc),
    RANGE_METHOD("lock_pages", mapping_lock_pages, lock_doc),
    RANGE_METHOD("unlock_pages", mapping_unlock_pages, unlock_doc),
    RANGE_METHOD("populate", mapping_populate, populate_doc),
    RANGE_METHOD("view", view_of_mapping, view_of_mapping_doc),
    {0},
};

PyGetSetDef mapping_getset[] = {
    {"nbytes", mapping_get_nbytes, NULL, PyDoc_STR("The size in bytes."), NULL},
    {"readonly", mapping_get_readonly, NULL,
     PyDoc_STR("Whether the bytes cannot be written through this mapping."),
     NULL},
    {"prot", mapping_get_prot, NULL,
     PyDoc_STR("The protection: PROT_NONE, PROT_READ or PROT_READ | "
               "PROT_WRITE."),
     NULL},
    {"resident", mapping_get_resident, NULL,
     PyDoc_STR("The number of bytes in memory, by whole pages:\n"
               MAN(mincore, 2) ". A process that cannot write to the\n"
               "object and does not own it sees all of it as resident."),
     NULL},
    {0},
};
