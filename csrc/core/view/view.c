#include "core/view/view.h"

#include "core/args.h"

PyObject *
view_new(core_state *state, MemoryMapObject *map,
         const struct view_origin *origin, char *data,
         const struct item_format *format, const struct pshm_layout *layout,
         bool readonly)
{
    PyTypeObject *type = state->view_type;
    int ndim = layout->ndim;
    ViewObject *self = (ViewObject *)type->tp_alloc(type, 2 * (Py_ssize_t)ndim);
    if (self == NULL) {
        return NULL;
    }
    self->map = (MemoryMapObject *)Py_NewRef(map);
    self->origin = *origin;
    Py_XINCREF(origin->shm);
    self->data = data;
    self->format = *format;
    Py_INCREF(self->format.text);
    self->nbytes = pshm_layout_items(layout) * format->size;
    self->ndim = ndim;
    self->readonly = readonly;
    for (int i = 0; i < ndim; i++) {
        self->dimensions[i] = layout->shape[i];
        self->dimensions[ndim + i] = layout->strides[i];
    }
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
    Py_XDECREF(self->format.text);
    Py_XDECREF(self->map);
    Py_XDECREF(self->origin.shm);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Only a handle of a subclass can refer back, by its attributes. */
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

static int
raise_buffer(PyObject *format, const char *rule)
{
    PyErr_Format(PyExc_BufferError, "a view of format %R: %s", format, rule);
    return -1;
}

/* Can these items be described by what was asked for? */
static int
check_flags(ViewObject *self, int flags)
{
    struct pshm_layout layout = view_layout(self);
    PyObject *format = self->format.text;
    bool c = pshm_layout_is_contiguous(&layout, 'C');
    bool fortran = pshm_layout_is_contiguous(&layout, 'F');
    if (flags & PyBUF_WRITABLE && self->readonly) {
        return raise_buffer(format, "it is read-only");
    }
    if (flags & PyBUF_FORMAT && !self->format.in_buffers) {
        return raise_buffer(
            format, self->format.dl_bits > 0
                        ? "the buffer protocol has no word for it; take "
                          ".numpy(), DLPack, or .cast() to unsigned ints"
                        : "the buffer protocol has no word for it; take "
                          ".numpy(), or .cast() to ints");
    }
    if (flags & PyBUF_FORMAT && !(flags & PyBUF_ND)) {
        return raise_buffer(format, "a format can be had with a shape only");
    }
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && !fortran) {
        return raise_buffer(
            format, "the consumer needs a buffer that is contiguous in "
                    "Fortran order, and this view is not; .tobytes() makes a "
                    "copy");
    }
    if ((flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS && !c
        && !fortran) {
        return raise_buffer(
            format, "the consumer needs a contiguous buffer (in C or Fortran "
                    "order, every stride positive, no gaps), and this view is "
                    "not; .tobytes() makes a copy");
    }
    if (((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS
         || (flags & PyBUF_STRIDES) != PyBUF_STRIDES)
        && !c) {
        return raise_buffer(
            format, "the consumer needs a buffer that is contiguous in C "
                    "order, and this view is not; .tobytes() makes a copy");
    }
    return 0;
}

int
view_getbuffer(PyObject *op, Py_buffer *buffer, int flags)
{
    ViewObject *self = as_view(op);
    bool counted = (flags & PyBUF_ND) == PyBUF_ND;
    bool shape = counted && self->ndim > 0;     /* else it must be NULL */
    bool strides = shape && (flags & PyBUF_STRIDES) == PyBUF_STRIDES;
    buffer->obj = NULL;
    if (check_flags(self, flags) < 0) {
        return -1;
    }
    const char *format = NULL;
    if (flags & PyBUF_FORMAT) {
        format = PyUnicode_AsUTF8(self->format.text);
        if (format == NULL) {
            return -1;
        }
    }
    *buffer = (Py_buffer){
        .buf = self->data,
        .obj = Py_NewRef(op),
        .len = self->nbytes,
        .itemsize = self->format.size,
        .readonly = self->readonly,
        .ndim = counted ? self->ndim : 1,
        .format = (char *)(uintptr_t)format,
        .shape = shape ? self->dimensions : NULL,
        .strides = strides ? self->dimensions + self->ndim : NULL,
    };
    return 0;
}

/* Nothing to do; np.frombuffer asks whether it is there. */
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
get_format(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(as_view(op)->format.text);
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
get_ndim(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(as_view(op)->ndim);
}

static PyObject *
get_itemsize(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_view(op)->format.size);
}

static PyObject *
get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_view(op)->nbytes);
}

static PyObject *
get_offset(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_view(op)->data - as_view(op)->map->base);
}

static PyObject *
get_readonly(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(as_view(op)->readonly);
}

static PyObject *
get_address(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromVoidPtr(as_view(op)->data);
}

static PyObject *
get_obj(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(as_view(op)->map);
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
    "A range of shared memory as an array: format, shape and strides.\n\n"
    "Made by SharedMemory.view() and MemoryMap.view().  Exports its items by the\n"
    "buffer protocol (PEP 3118) and by DLPack, without a copy.  An index for\n"
    "every dimension gives an item; fewer, slices and ... give a view of the\n"
    "same memory.  Assigning to a range takes a buffer of the same format and\n"
    "shape.  The memory stays mapped for as long as a view, or anything that\n"
    "was made from one, lives; a view of a SharedMemory also keeps that\n"
    "object, and is pickled with it, by reference.\n\n"
    "Raises IndexError; NotImplementedError for an item that Python has not;\n"
    "TypeError where it is read-only; ValueError for what does not fit, and for\n"
    "text whose bytes are not code points;\n"
    "BufferError where a consumer wants what the memory is not.");

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

#define ATTRIBUTE(name, text) {#name, get_##name, NULL, PyDoc_STR(text), NULL}

static PyGetSetDef view_getset[] = {
    ATTRIBUTE(format, "The format of an item, as the buffer protocol has it; "
                      "for what that\nhas no word for, its name in DLPack or "
                      "numpy."),
    ATTRIBUTE(shape, "How many items each dimension has, a tuple."),
    ATTRIBUTE(strides, "How many bytes it is to the next item of each "
                       "dimension, a tuple."),
    ATTRIBUTE(ndim, "How many dimensions there are, 0 to 64."),
    ATTRIBUTE(itemsize, "Bytes of an item."),
    ATTRIBUTE(nbytes, "Bytes of all items, without gaps."),
    ATTRIBUTE(offset, "Where the item with the indexes 0 is, in bytes from "
                      "the start of obj."),
    ATTRIBUTE(readonly, "Whether the items cannot be written through it."),
    ATTRIBUTE(address, "Where the item with the indexes 0 is, in this "
                       "process's memory."),
    ATTRIBUTE(obj, "The MemoryMap whose memory it is."),
    {0},
};

static PyMemberDef view_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(ViewObject, weakrefs),
     Py_READONLY, NULL},
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
