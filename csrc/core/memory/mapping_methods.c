/* What can be done to a mapping's pages. */
#include "core/memory/mapping.h"

#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/view/view.h"

#include "posix/host.h"
#include "posix/object/fd.h"
#include "posix/object/map.h"
#include "posix/object/procmaps.h"
#include "posix/object/size.h"

static MemoryMapObject *
as_mapping(PyObject *op)
{
    return (MemoryMapObject *)op;
}

/* ---- Protection ---- */

PyObject *
mapping_parse_prot(PyObject *value, int *prot)
{
    long long number;
    if (arg_long(value, "prot", INT_MIN, INT_MAX, &number) < 0) {
        return NULL;
    }
    if (number != PROT_NONE && number != PROT_READ
        && number != (PROT_READ | PROT_WRITE)) {
        PyErr_Format(PyExc_ValueError,
                     "prot must be PROT_NONE, PROT_READ or PROT_READ | "
                     "PROT_WRITE, not %lld",
                     number);
        return NULL;
    }
    *prot = (int)number;
    return Py_None;
}

/* In a child that was forked while a thread changed it, that thread is gone; and
 * prot has no right that the pages lack. */
static bool
start_changing_locked(MemoryMapObject *self)
{
    if (self->changing && self->changing_in == pshm_forks()) {
        return false;
    }
    self->changing = true;
    self->changing_in = pshm_forks();
    return true;
}

/* Claim the right to change it.  What is taken away cannot be handed out from
 * here on.  Returns the old protection, or -1. */
static int
begin_change(MemoryMapObject *self, int prot)
{
    int old = -1;
    fields_lock(&self->fields);
    if (self->granted & self->prot & ~prot) {
        PyErr_SetString(
            PyExc_BufferError,
            "a view that was handed out may be using the right that would be "
            "taken away; protect the memory before taking views of it, or "
            "map it a second time");
    }
    else if (!start_changing_locked(self)) {
        PyErr_SetString(PyExc_BufferError,
                        "another thread is changing the protection");
    }
    else {
        old = self->prot;
        self->prot &= prot;
    }
    fields_unlock(&self->fields);
    return old;
}

static void
end_change(MemoryMapObject *self, int prot)
{
    fields_lock(&self->fields);
    self->prot = prot;
    self->changing = false;
    fields_unlock(&self->fields);
}

int
mapping_protect(MemoryMapObject *self, int prot, PyObject *filename)
{
    if (self->readonly && prot & PROT_WRITE) {
        raise_errno_words(-EACCES, filename, "The shared memory is read-only");
        return -1;
    }
    int old = begin_change(self, prot);
    if (old < 0) {
        return -1;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map_protect(self->base, self->reserved, prot);
    Py_END_ALLOW_THREADS
    end_change(self, rc < 0 ? old : prot);
    if (rc < 0) {
        raise_errno(rc, filename);
    }
    return rc;
}

PyDoc_STRVAR(
    protect_doc,
    "protect($self, prot, /)\n--\n\n"
    "Set what may be done to the pages: " MAN(mprotect, 2) ".\n\n"
    "prot: PROT_READ | PROT_WRITE, PROT_READ or PROT_NONE.\n\n"
    "Raises BufferError where a right would go that any view taken so far\n"
    "has (numpy keeps an address after it has released the view);\n"
    "PermissionError for PROT_WRITE where the descriptor was read-only, or\n"
    "the handle whose memory it is.");

static PyObject *
mapping_protect_method(PyObject *op, PyObject *value)
{
    int prot;
    if (mapping_parse_prot(value, &prot) == NULL
        || mapping_protect(as_mapping(op), prot, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- Ranges ---- */

/* offset and length of a range of whole pages; 0 or -1. */
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

/* The kernel brings in only what may be accessed.  0 or -1. */
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

/* mlock(2) says ENOMEM for the limit and for a missing page. */
static PyObject *
raise_lock(int rc, Py_ssize_t length)
{
    uint64_t limit = pshm_map_lock_limit();
    if (limit == UINT64_MAX || (rc != -ENOMEM && rc != -EPERM)) {
        return raise_errno(rc, NULL);
    }
    return raise_errno_words(
        rc, NULL,
        "Cannot lock %zd bytes in memory: RLIMIT_MEMLOCK allows this process "
        "%llu bytes in all (ulimit -l)%s",
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
    "offset: bytes, a multiple of PAGESIZE.  length: bytes; None: up to the\n"\
    "end.  Raises ValueError for a range outside the mapping, and OSError"

PyDoc_STRVAR(
    lock_doc,
    "lock_pages($self, /, offset=0, length=None)\n--\n\n"
    "Bring pages in and keep them in memory: " MAN(mlock, 2) ".\n\n"
    RANGE_DOC ":\nENOMEM or EPERM above RLIMIT_MEMLOCK.");

static PyObject *
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
    "Undo lock_pages: " MAN(munlock, 2) ".\n\n" RANGE_DOC ".");

static PyObject *
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
    "Bring every page of a range in and map it, so that no later access\n"
    "faults: " MAN(madvise, 2) ", MADV_POPULATE_WRITE, or MADV_POPULATE_READ if\n"
    "the mapping is read-only. Needs Linux 5.14.\n\n"
    RANGE_DOC ":\n"
    "ENOSPC if the file system has no room; EFAULT if a page is past the end of\n"
    "the object; EINVAL if the kernel cannot populate this memory. The room is\n"
    "checked first, so that a mount is not filled in vain, if the object can be\n"
    "found by its name or among the descriptors of this process.");

/* What was taken stays taken, because another process may have written to it; so
 * ask for the room first, and do not fill the mount in vain.  At least so much is
 * missing, and that exactly if length is that of the whole object.  If it cannot
 * be asked, the pages are brought in all the same.  Returns 0 or -1. */
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

/* where: what self maps. */
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
    int rc = pshm_map_populate(self->base + offset, (size_t)length, write,
                               &interrupt);
    PyEval_RestoreThread(released);
    if (rc == 0) {
        Py_RETURN_NONE;
    }
    return rc == -EINTR
               ? NULL
               : raise_populate(
                   rc, where->object,
                   where->object >= 0 ? where->object : where->folder,
                   start, end);
}

PyObject *
mapping_populate(MemoryMapObject *self, int fd, PyObject *const *args,
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
mapping_populate_method(PyObject *op, PyObject *const *args, Py_ssize_t count,
                        PyObject *kwnames)
{
    return mapping_populate(as_mapping(op), -1, args, count, kwnames);
}

PyDoc_STRVAR(
    advise_doc,
    "advise($self, /, advice, offset=0, length=None)\n--\n\n"
    "Tell the kernel how the pages will be used: " MAN(madvise, 2) ".\n\n"
    "advice: one of the module's MADV_ constants.  Advice that could make a\n"
    "later access crash, or lose bytes, is a ValueError.\n" RANGE_DOC
    ":\nEINVAL where the kernel does not know the advice.");

static PyObject *
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
                            "advice %lld is not one that leaves every byte "
                            "in place and reachable",
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
    "Write pages of a file back to its disk: " MAN(msync, 2) ".  On objects\n"
    "in memory it has no effect.\n\n"
    "flags: MS_SYNC (4) or MS_ASYNC, and MS_INVALIDATE.\n" RANGE_DOC ".");

static PyObject *
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

static PyObject *
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
    {"protect", mapping_protect_method, METH_O, protect_doc},
    RANGE_METHOD("advise", mapping_advise, advise_doc),
    RANGE_METHOD("sync", mapping_sync, sync_doc),
    RANGE_METHOD("lock_pages", mapping_lock_pages, lock_doc),
    RANGE_METHOD("unlock_pages", mapping_unlock_pages, unlock_doc),
    RANGE_METHOD("populate", mapping_populate_method, populate_doc),
    RANGE_METHOD("view", view_of_mapping, view_of_mapping_doc),
    {0},
};

PyGetSetDef mapping_getset[] = {
    {"nbytes", mapping_get_nbytes, NULL, PyDoc_STR("Size in bytes."), NULL},
    {"readonly", mapping_get_readonly, NULL,
     PyDoc_STR("Whether the bytes cannot be written through it."), NULL},
    {"prot", mapping_get_prot, NULL,
     PyDoc_STR("The protection: PROT_NONE, PROT_READ or PROT_READ | "
               "PROT_WRITE."),
     NULL},
    {"resident", mapping_get_resident, NULL,
     PyDoc_STR("How many bytes, in whole pages, are in memory now:\n"
               MAN(mincore, 2) ".  The kernel tells only who may write the\n"
               "object or owns it; anyone else sees all of it as resident."),
     NULL},
    {0},
};
