#include "core/view/view.h"

#include "core/args.h"

Py_ssize_t
range_bytes(const item_range *range, Py_ssize_t itemsize)
{
    Py_ssize_t bytes = itemsize;
    for (int i = 0; i < range->ndim; i++) {
        bytes *= range->shape[i];
    }
    return bytes;
}

PyObject *
view_new(core_state *state, MemoryMapObject *map,
         const struct view_origin *origin, const item_format *format,
         const item_range *range, bool readonly)
{
    PyTypeObject *type = state->view_type;
    int ndim = range->ndim;
    ViewObject *self = (ViewObject *)type->tp_alloc(type,
                                                    2 * (Py_ssize_t)ndim);
    if (self == NULL) {
        return NULL;
    }
    self->map = (MemoryMapObject *)Py_NewRef(map);
    self->origin = *origin;
    Py_XINCREF(origin->shm);
    self->data = range->data;
    self->format = *format;
    Py_INCREF(self->format.record);
    self->ndim = ndim;
    self->readonly = readonly;
    for (int i = 0; i < ndim; i++) {
        self->dimensions[i] = range->shape[i];
        self->dimensions[ndim + i] = range->strides[i];
    }
    self->nbytes = range_bytes(range, format->size);
    return (PyObject *)self;
}

static void
view_dealloc(PyObject *op)
{
    ViewObject *self = as_view(op);
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    Py_XDECREF(atomic_load_explicit(&self->items, memory_order_relaxed));
    Py_XDECREF(self->format.record);
    Py_XDECREF(self->map);
    Py_XDECREF(self->origin.shm);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Only the attributes of a subclass of SharedMemory can refer to the view. */
static int
view_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(as_view(op)->origin.shm);
    return 0;
}

static int
view_clear(PyObject *op)
{
    Py_CLEAR(as_view(op)->origin.shm);
    return 0;
}

/* ---- The buffer ---- */

/* Find why a buffer with these flags cannot describe the items; NULL: it can.
 */
static const char *
find_obstacle(ViewObject *self, int flags)
{
    Py_buffer items = view_buffer(self);
    bool c = PyBuffer_IsContiguous(&items, 'C');
    bool fortran = PyBuffer_IsContiguous(&items, 'F');
    if (flags & PyBUF_WRITABLE && self->readonly) {
        return "the view is read-only";
    }
    if (flags & PyBUF_FORMAT && !self->format.in_buffers) {
        return self->format.dl_bits > 0
                   ? "the buffer protocol does not have the format; use "
                     ".numpy(), DLPack, or .cast() to unsigned ints"
                   : "the buffer protocol does not have the format; use "
                     ".numpy(), or .cast() to ints";
    }
    if (flags & PyBUF_FORMAT && !(flags & PyBUF_ND)) {
        return "a format needs a shape, PyBUF_ND";
    }
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && !fortran) {
        return "it must be contiguous in Fortran order; .tobytes() makes a "
               "copy in C order";
    }
    if ((flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS && !c
        && !fortran) {
        return "it must be contiguous, in C or Fortran order with positive "
               "strides and without gaps; .tobytes() makes a copy that is";
    }
    if (((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS
         || (flags & PyBUF_STRIDES) != PyBUF_STRIDES)
        && !c) {
        return "it must be contiguous in C order; .tobytes() makes a copy "
               "that is";
    }
    return NULL;
}

static int
view_getbuffer(PyObject *op, Py_buffer *buffer, int flags)
{
    ViewObject *self = as_view(op);
    bool counted = (flags & PyBUF_ND) == PyBUF_ND;
    bool shape = counted && self->ndim > 0;     /* else NULL: PEP 3118 */
    bool strides = shape && (flags & PyBUF_STRIDES) == PyBUF_STRIDES;
    const char *obstacle = find_obstacle(self, flags), *format = NULL;
    buffer->obj = NULL;
    if (obstacle != NULL) {
        PyErr_Format(PyExc_BufferError,
                     "cannot export a View of format %R as the buffer that "
                     "the consumer asks for: %s",
                     self->format.text, obstacle);
        return -1;
    }
    if (flags & PyBUF_FORMAT) {
        format = PyUnicode_AsUTF8(self->format.text);
        if (format == NULL) {
            return -1;
        }
    }
    *buffer = view_buffer(self);
    buffer->obj = Py_NewRef(op);
    buffer->format = (char *)(uintptr_t)format;
    buffer->ndim = counted ? self->ndim : 1;
    buffer->shape = shape ? buffer->shape : NULL;
    buffer->strides = strides ? buffer->strides : NULL;
    return 0;
}

/* Empty, but it must exist: np.frombuffer() keeps a memoryview, which keeps the
 * view, only if the type has bf_releasebuffer. */
static void
view_releasebuffer(PyObject *Py_UNUSED(op), Py_buffer *Py_UNUSED(buffer))
{
}

/* ---- Attributes ---- */

static PyObject *
tuple_of(const Py_ssize_t *numbers, int count)
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; tuple != NULL && i < count; i++) {
        PyObject *number = PyLong_FromSsize_t(numbers[i]);
        if (number == NULL) {
            Py_CLEAR(tuple);
        }
        else {
            PyTuple_SET_ITEM(tuple, i, number);
        }
    }
    return tuple;
}

static PyObject *
get_shape(PyObject *op, void *Py_UNUSED(closure))
{
    return tuple_of(as_view(op)->dimensions, as_view(op)->ndim);
}

static PyObject *
get_strides(PyObject *op, void *Py_UNUSED(closure))
{
    ViewObject *self = as_view(op);
    return tuple_of(self->dimensions + self->ndim, self->ndim);
}

static PyObject *
get_offset(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_view(op)->data - as_view(op)->map->base);
}

static PyObject *
get_address(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromVoidPtr(as_view(op)->data);
}

/* ---- The type ---- */

static PyObject *
view_repr(PyObject *op)
{
    ViewObject *self = as_view(op);
    PyObject *shape = get_shape(op, NULL);
    if (shape == NULL) {
        return NULL;
    }
    PyObject *result = PyUnicode_FromFormat(
        "<posixshm.View of format %R, shape %R%s at %p>", self->format.text,
        shape, self->readonly ? ", read-only" : "", self->data);
    Py_DECREF(shape);
    return result;
}

PyDoc_STRVAR(
    view_doc,
    "A range of shared memory as an array.\n\n"
    "SharedMemory.view() and MemoryMap.view() create it. It exports the items\n"
    "through the buffer protocol (PEP 3118) and DLPack, without copying. An\n"
    "index with an int for each dimension reads or writes an item; any other\n"
    "index, with slices, '...' or fewer ints, returns a View of the same\n"
    "memory. A buffer of the same format and shape can be assigned to such a\n"
    "range. The memory remains mapped as long as the view, or any object made\n"
    "from it, exists. A view of a SharedMemory keeps a reference to it, and\n"
    "is pickled with it, by reference.\n\n"
    "Raises IndexError for an index outside the shape; NotImplementedError if\n"
    "Python does not have a type for an item; TypeError if an item of a\n"
    "read-only view is written; ValueError for a value that does not fit, and\n"
    "for text whose bytes are not code points; BufferError if a consumer asks\n"
    "for a buffer that cannot describe the items.");

#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef view_methods[] = {
    {"cast", FAST(view_cast), METH_FASTCALL | METH_KEYWORDS, view_cast_doc},
    {"numpy", view_numpy, METH_NOARGS, view_numpy_doc},
    {"__array__", FAST(view_array), METH_FASTCALL | METH_KEYWORDS,
     view_array_doc},
    {"tolist", view_tolist, METH_NOARGS, view_tolist_doc},
    {"tobytes", view_tobytes, METH_NOARGS, view_tobytes_doc},
    {"__copy__", view_copy, METH_NOARGS, view_copy_doc},
    {"__reduce__", view_reduce, METH_NOARGS, view_reduce_doc},
    {"__dlpack__", FAST(view_dlpack), METH_FASTCALL | METH_KEYWORDS,
     view_dlpack_doc},
    {"__dlpack_device__", view_dlpack_device, METH_NOARGS,
     view_dlpack_device_doc},
    {0},
};

#define COMPUTED(name, text) {#name, get_##name, NULL, PyDoc_STR(text), NULL}

static PyGetSetDef view_getset[] = {
    COMPUTED(shape, "The number of items in each dimension, a tuple."),
    COMPUTED(strides, "The number of bytes from an item to the next in each "
                      "dimension, a tuple."),
    COMPUTED(offset, "The number of bytes from the start of obj to the item "
                     "with all indexes 0."),
    COMPUTED(address, "The address, in this process, of the item with all "
                      "indexes 0."),
    {0},
};

#define STORED(name, member, type, text) \
    {#name, type, offsetof(ViewObject, member), Py_READONLY, PyDoc_STR(text)}

static PyMemberDef view_members[] = {
    STORED(format, format.text, Py_T_OBJECT_EX,
           "The format of an item in the buffer protocol; if the protocol does "
           "not\nhave it, its name in DLPack or numpy."),
    STORED(ndim, ndim, Py_T_INT, "The number of dimensions, 0 to 64."),
    STORED(itemsize, format.size, Py_T_PYSSIZET,
           "The number of bytes of an item."),
    STORED(nbytes, nbytes, Py_T_PYSSIZET,
           "The number of bytes of all items, without gaps."),
    STORED(readonly, readonly, Py_T_BOOL,
           "Whether the items cannot be written through this view."),
    STORED(obj, map, Py_T_OBJECT_EX, "The MemoryMap that owns the memory."),
    STORED(__weaklistoffset__, weakrefs, Py_T_PYSSIZET, ""),
    {0},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)view_doc},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_traverse, view_traverse},
    {Py_tp_clear, view_clear},
    {Py_tp_repr, view_repr},
    {Py_tp_methods, view_methods},
    {Py_tp_getset, view_getset},
    {Py_tp_members, view_members},
    {Py_bf_getbuffer, view_getbuffer},
    {Py_bf_releasebuffer, view_releasebuffer},
    {Py_sq_length, view_length},
    {Py_sq_item, view_item},
    {Py_mp_length, view_length},
    {Py_mp_subscript, view_subscript},
    {Py_mp_ass_subscript, view_ass_subscript},
    {0, NULL},
};

PyType_Spec view_spec = {
    .name = "posixshm.View",
    .basicsize = offsetof(ViewObject, dimensions),
    .itemsize = sizeof(Py_ssize_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};
