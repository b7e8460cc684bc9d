#include "core/memory/mapping.h"

#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"
#include "core/memory/fdref.h"
#include "core/memory/last.h"
#include "core/memory/pages.h"
#include "core/view/view.h"

#include "posix/host.h"
#include "posix/object/map.h"
#include "posix/object/region.h"

MemoryMapObject *
mapping_new(core_state *state)
{
    PyTypeObject *type = state->mapping_type;
    PyObject *op = type->tp_alloc(type, 0);
    if (op == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(op);
    as_mapping(op)->region = pshm_region_new(NULL, 0);
    if (as_mapping(op)->region == NULL) {
        Py_DECREF(op);
        PyErr_NoMemory();
        return NULL;
    }
    return as_mapping(op);
}

void
mapping_complete(MemoryMapObject *self)
{
    if (!PyObject_GC_IsTracked((PyObject *)self)) {
        PyObject_GC_Track(self);
    }
}

bool
mapping_set(MemoryMapObject *self, void *base, size_t reserved,
            Py_ssize_t size, int prot, struct pshm_identity id,
            unsigned shrinks)
{
    self->base = base;
    self->reserved = reserved;
    self->prot = prot;
    mapping_set_size(self, size);
    return pshm_region_set(self->region, base, reserved, id, shrinks);
}

static void
mapping_dealloc(PyObject *op)
{
    MemoryMapObject *self = as_mapping(op);
    PyTypeObject *type = Py_TYPE(op);
    struct last_unmap unmap;
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->last != NULL && self->base != NULL
        && pshm_region_is_own(self->region)) {
        /* To free much memory takes long, and must not be done with the name
         * lock. */
        Py_BEGIN_ALLOW_THREADS
        (void)pshm_map_advise(self->base, self->reserved, MADV_DONTNEED);
        Py_END_ALLOW_THREADS
    }
    last_before(self->last, &unmap);
    if (self->region != NULL) {
        struct pshm_region *region = self->region;
        self->region = NULL;
        Py_BEGIN_ALLOW_THREADS
        fdref_drop(self->closing);
        pshm_region_drop(region);
        Py_END_ALLOW_THREADS
    }
    last_after(self->last, &unmap);
    type->tp_free(op);
    Py_DECREF(type);
}

static int
mapping_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

/* ---- Mapping ---- */

static PyObject *
raise_range(off_t offset, off_t length, const struct pshm_map_seen *seen)
{
    off_t size = seen->size;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "length must be given for a descriptor that is not a "
                        "regular file, because it has no size");
        return NULL;
    }
    if (seen->huge_page > 0 && offset < size && length <= size - offset) {
        return PyErr_Format(PyExc_ValueError,
                            "offset %lld and length %lld must be multiples of "
                            "the page size of the file, %ld bytes",
                            (long long)offset, (long long)length,
                            seen->huge_page);
    }
    return PyErr_Format(PyExc_ValueError,
                        "offset %lld and length %lld reach past the end of "
                        "the object, which has %lld bytes",
                        (long long)offset,
                        (long long)(length < 0 ? 1 : length),
                        (long long)size);
}

PyObject *
mapping_from_fd(core_state *state, int fd, Py_ssize_t offset,
                Py_ssize_t length, bool readonly, bool device,
                PyObject *filename)
{
    if (offset % state->page_size != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of the page size, %zd bytes, "
                     "not %zd",
                     state->page_size, offset);
        return NULL;
    }
    MemoryMapObject *self = mapping_new(state);
    if (self == NULL) {
        return NULL;
    }
    void *base;
    off_t mapped = length;
    struct pshm_map_seen seen;
    int rc, prot = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    bool valid = true;
    Py_BEGIN_ALLOW_THREADS
    unsigned shrinks = pshm_region_shrinks();
    rc = pshm_map_range(fd, offset, &mapped, prot, device, &base, &seen);
    if (rc == 0) {
        valid = mapping_set(self, base, (size_t)mapped, (Py_ssize_t)mapped,
                            prot, seen.id, shrinks);
    }
    Py_END_ALLOW_THREADS
    if (!valid) {
        Py_DECREF(self);
        return mapping_from_fd(state, fd, offset, length, readonly, device,
                               filename);
    }
    if (rc < 0) {
        Py_DECREF(self);
        if (rc == -EINVAL && seen.size < 0 && !device) {
            return raise_not_mappable(filename, seen.mode);
        }
        return rc == -ERANGE ? raise_range(offset, length, &seen)
                             : raise_errno(rc, filename);
    }
    mapping_complete(self);
    return (PyObject *)self;
}

static PyObject *
mapping_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"fd", "length", "offset", "readonly",
                                        "device", NULL};
    static const struct signature signature = {"MemoryMap", 3, 1, names};
    PyObject *values[5];
    Py_ssize_t length = -1, offset = 0;
    bool readonly = false, device = false;
    if (args_match_dict(&signature, args, kwargs, values) < 0
        || (values[1] != NULL && values[1] != Py_None
            && arg_size(values[1], "length", &length) < 0)
        || (values[2] != NULL
            && arg_offset(values[2], "offset", &offset) < 0)
        || arg_bool(values[3], &readonly) < 0
        || arg_bool(values[4], &device) < 0) {
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(values[0]);
    if (fd < 0) {
        return NULL;
    }
    return mapping_from_fd(core_state_of_type(type), fd, offset, length,
                           readonly, device, NULL);
}

/* ---- The buffer ---- */

int
mapping_get_granted_buffer(MemoryMapObject *self, Py_buffer *view, int flags)
{
    int prot = atomic_load_explicit(&self->prot, memory_order_acquire);
    int granted = atomic_load_explicit(&self->granted, memory_order_acquire);
    if (!(prot & PROT_READ) || granted != prot) {
        return 1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, self->base,
                             mapping_size(self), (prot & PROT_WRITE) == 0,
                             flags);
}

static void
raise_unreadable(void)
{
    PyErr_SetString(PyExc_BufferError,
                    "the memory cannot be read: its protection is PROT_NONE; "
                    "protect(PROT_READ) allows access to it");
}

int
mapping_get_buffer(MemoryMapObject *self, Py_buffer *view, int flags)
{
    int rc = mapping_get_granted_buffer(self, view, flags);
    if (rc != 1) {
        return rc;
    }
    fields_lock(&self->fields);
    if (self->prot & PROT_READ) {
        rc = PyBuffer_FillInfo(view, (PyObject *)self, self->base,
                               mapping_size(self),
                               (self->prot & PROT_WRITE) == 0, flags);
        if (rc == 0) {
            self->granted |= self->prot;
        }
    }
    else {
        raise_unreadable();
        view->obj = NULL;
        rc = -1;
    }
    fields_unlock(&self->fields);
    return rc;
}

int
mapping_grant(MemoryMapObject *self, bool *readonly)
{
    int rc = 0;
    fields_lock(&self->fields);
    if (self->prot & PROT_READ) {
        *readonly = *readonly || !(self->prot & PROT_WRITE);
        self->granted |= *readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    }
    else {
        raise_unreadable();
        rc = -1;
    }
    fields_unlock(&self->fields);
    return rc;
}

struct pshm_region *
mapping_share(MemoryMapObject *self)
{
    pshm_region_keep(self->region);
    return self->region;
}

static int
mapping_bf_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    return mapping_get_buffer(as_mapping(op), view, flags);
}

/* numpy.frombuffer keeps a view, and with it a reference to the mapping, only
 * if the type has this slot. */
static void
mapping_bf_releasebuffer(PyObject *op, Py_buffer *view)
{
    if (view->internal == MAPPING_EXPORTED_BY_HANDLE) {
        atomic_store_explicit(&as_mapping(op)->released, true,
                              memory_order_release);
    }
}

/* References first: a thread that released one may have left a weak reference,
 * or an owner of another kind, which is then seen. A thread that makes a
 * reference of a weak one later finds the memory as it is by then. */
bool
mapping_is_private_locked(MemoryMapObject *self, Py_ssize_t references)
{
    return has_references((PyObject *)self, references)
           && __atomic_load_n(&self->weakrefs, __ATOMIC_ACQUIRE) == NULL
           && pshm_region_is_own(self->region);
}

static PyObject *
mapping_repr(PyObject *op)
{
    MemoryMapObject *self = as_mapping(op);
    return PyUnicode_FromFormat(
        "<posixshm.MemoryMap of %zd bytes%s at %p>", mapping_size(self),
        self->prot & PROT_WRITE ? "" : ", read-only", self->base);
}

PyDoc_STRVAR(
    mapping_doc,
    "MemoryMap(fd, length=None, offset=0, *, readonly=False,\n"
    "          device=False)\n--\n\n"
    "A range of the object of a descriptor, mapped shared:\n"
    MAN(mmap, 2) ".\n\n"
    "fd: an open descriptor, or an object with fileno(). It is not kept, and\n"
    "can be closed at once. length: bytes, at least 1; None: up to the end\n"
    "of the object. offset: bytes, a multiple of PAGESIZE. readonly: map the\n"
    "range for reading only. device: accept a descriptor that is not a\n"
    "regular file or memfd; the driver determines what an access does, which\n"
    "may be a bus error.\n\n"
    "Exports its bytes (format 'B', one dimension). len(), indexing, slices\n"
    "and iteration are those of a memoryview. The range is unmapped when the\n"
    "last reference to the MemoryMap, or to a view of it, is released.\n\n"
    "Raises ValueError for a range past the end of the object; OSError:\n"
    "EINVAL (not a regular file), ENOMEM (address space, RLIMIT_AS, too many\n"
    "mappings), EACCES (fd was opened for less), EBADF.");

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

static PyMethodDef mapping_methods[] = {
    PAGES_METHODS,
    {"protect", mapping_protect_method, METH_O, mapping_protect_doc},
    {"view", (PyCFunction)(void (*)(void))view_of_mapping,
     METH_FASTCALL | METH_KEYWORDS, view_of_mapping_doc},
    {0},
};

static PyGetSetDef mapping_getset[] = {
    PAGES_GETSET,
    {"nbytes", mapping_get_nbytes, NULL, PyDoc_STR("The size in bytes."), NULL},
    {"readonly", mapping_get_readonly, NULL,
     PyDoc_STR("Whether the bytes cannot be written through this mapping."),
     NULL},
    {"prot", mapping_get_prot, NULL,
     PyDoc_STR("The protection: PROT_NONE, PROT_READ or PROT_READ | "
               "PROT_WRITE."),
     NULL},
    {0},
};

static PyMemberDef mapping_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(MemoryMapObject, weakrefs),
     Py_READONLY, NULL},
    {0},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, (void *)mapping_doc},
    {Py_tp_new, mapping_tp_new},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_tp_traverse, mapping_traverse},
    {Py_tp_repr, mapping_repr},
    {Py_tp_methods, mapping_methods},
    {Py_tp_getset, mapping_getset},
    {Py_tp_members, mapping_members},
    {Py_bf_getbuffer, mapping_bf_getbuffer},
    {Py_bf_releasebuffer, mapping_bf_releasebuffer},
    {Py_sq_length, mapping_length},
    {Py_sq_item, mapping_item},
    {Py_mp_length, mapping_length},
    {Py_mp_subscript, mapping_subscript},
    {Py_mp_ass_subscript, mapping_ass_subscript},
    {0, NULL},
};

PyType_Spec mapping_spec = {
    .name = "posixshm.MemoryMap",
    .basicsize = sizeof(MemoryMapObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapping_slots,
};
