/* Tensors of other libraries, by DLPack's capsules: what they are, and their
 * bytes. */
#include "view.h"

#include "args.h"
#include "dlpack_abi.h"

#define LEGACY "dltensor"
#define VERSIONED "dltensor_versioned"

static void
raise_capsule(PyObject *capsule)
{
    PyErr_Format(PyExc_TypeError,
                 "__dlpack__() must return a capsule with a tensor, not %R",
                 capsule);
}

/* The tensor in a capsule that nobody has taken it out of.  The capsule keeps
 * it, and gives it back to its maker in the end.  NULL with an exception. */
static const struct dl_tensor *
tensor_of(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, VERSIONED)) {
        const struct dl_managed_versioned *managed = PyCapsule_GetPointer(
            capsule, VERSIONED);
        if (managed->major == 1) {
            return &managed->tensor;
        }
        PyErr_Format(PyExc_BufferError,
                     "a tensor of DLPack %u.%u cannot be read, only of 1",
                     managed->major, managed->minor);
        return NULL;
    }
    if (PyCapsule_IsValid(capsule, LEGACY)) {
        const struct dl_managed *managed = PyCapsule_GetPointer(capsule,
                                                                LEGACY);
        return &managed->tensor;
    }
    raise_capsule(capsule);
    return NULL;
}

static int
check_tensor(const struct dl_tensor *tensor)
{
    int device = tensor->device.type;
    if (device != DL_CPU && device != DL_CUDA_HOST && device != DL_ROCM_HOST) {
        PyErr_Format(PyExc_BufferError,
                     "the tensor is on DLPack's device %d, not on the CPU",
                     device);
        return -1;
    }
    if (tensor->dtype.lanes != 1 || tensor->ndim < 0
        || tensor->ndim > PSHM_MAX_DIMENSIONS) {
        PyErr_Format(PyExc_BufferError,
                     "the tensor has %d dimensions and %d lanes; possible are "
                     "%d and 1",
                     (int)tensor->ndim, (int)tensor->dtype.lanes,
                     PSHM_MAX_DIMENSIONS);
        return -1;
    }
    return 0;
}

static PyObject *
read_tensor(PyObject *Py_UNUSED(module), PyObject *capsule)
{
    struct item_format format;
    const struct dl_tensor *tensor = tensor_of(capsule);
    if (tensor == NULL || check_tensor(tensor) < 0
        || format_from_dlpack(tensor->dtype.code, tensor->dtype.bits, &format)
               < 0) {
        return NULL;
    }
    PyObject *shape = PyTuple_New(tensor->ndim);
    for (int i = 0; shape != NULL && i < tensor->ndim; i++) {
        PyObject *items = PyLong_FromLongLong(tensor->shape[i]);
        if (items == NULL) {
            Py_CLEAR(shape);
        }
        else {
            PyTuple_SET_ITEM(shape, i, items);
        }
    }
    if (shape == NULL) {
        Py_DECREF(format.text);
        return NULL;
    }
    return Py_BuildValue("(NNn)", format.text, shape, format.size);
}

/* Whether the view is what read_tensor said of the tensor. */
static bool
is_for(view *self, const struct dl_tensor *tensor)
{
    bool same = self->ndim == tensor->ndim && !self->readonly
                && self->format.dl_code == tensor->dtype.code
                && self->format.dl_bits == tensor->dtype.bits;
    for (int i = 0; same && i < self->ndim; i++) {
        same = self->dimensions[i] == tensor->shape[i];
    }
    return same;
}

/* Take the tensor out of its capsule, so that no other consumer can, who might
 * give it back while it is read.  Returns what is to be given back, or NULL with
 * an exception: somebody else took it. */
static void *
take_out(core_state *state, PyObject *capsule, bool *versioned)
{
    void *managed = NULL;
    fields_lock(&state->fields);
    *versioned = PyCapsule_IsValid(capsule, VERSIONED);
    if (*versioned || PyCapsule_IsValid(capsule, LEGACY)) {
        managed = PyCapsule_GetPointer(capsule,
                                       *versioned ? VERSIONED : LEGACY);
        (void)PyCapsule_SetName(capsule,
                                *versioned ? "used_dltensor_versioned"
                                           : "used_dltensor");
    }
    fields_unlock(&state->fields);
    if (managed == NULL) {
        raise_capsule(capsule);
    }
    return managed;
}

static void
give_back(void *managed, bool versioned)
{
    if (versioned) {
        struct dl_managed_versioned *tensor = managed;
        if (tensor->deleter != NULL) {
            tensor->deleter(tensor);
        }
    }
    else {
        struct dl_managed *tensor = managed;
        if (tensor->deleter != NULL) {
            tensor->deleter(tensor);
        }
    }
}

static PyObject *
copy_tensor(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    core_state *state = core_state_of_module(module);
    Py_ssize_t strides[PSHM_MAX_DIMENSIONS];
    bool versioned;
    if (count != 2 || !Py_IS_TYPE(args[1], state->view_type)) {
        PyErr_SetString(PyExc_TypeError, "a capsule and a View are needed");
        return NULL;
    }
    view *to = as_view(args[1]);
    const struct dl_tensor *tensor = tensor_of(args[0]);
    if (tensor == NULL || check_tensor(tensor) < 0) {
        return NULL;
    }
    struct pshm_layout layout = view_layout(to);
    if (!is_for(to, tensor) || !pshm_layout_is_contiguous(&layout, 'C')) {
        PyErr_SetString(PyExc_ValueError,
                        "the view is not made for this tensor");
        return NULL;
    }
    if (tensor->strides != NULL) {
        for (int i = 0; i < to->ndim; i++) {
            strides[i] = (Py_ssize_t)tensor->strides[i] * layout.itemsize;
        }
        layout.strides = strides;
    }
    void *managed = take_out(state, args[0], &versioned);
    if (managed == NULL) {
        return NULL;
    }
    const char *from = (const char *)tensor->data + tensor->byte_offset;
    Py_BEGIN_ALLOW_THREADS
    pshm_gather(to->data, from, &layout);
    Py_END_ALLOW_THREADS
    give_back(managed, versioned);
    Py_RETURN_NONE;
}

PyMethodDef dlpack_functions[] = {
    {"_read_tensor", read_tensor, METH_O,
     PyDoc_STR("_read_tensor(capsule, /)\n--\n\n"
               "Format, shape and itemsize of the tensor in a capsule.")},
    {"_copy_tensor", (PyCFunction)(void (*)(void))copy_tensor, METH_FASTCALL,
     PyDoc_STR("_copy_tensor(capsule, view, /)\n--\n\n"
               "Copy a capsule's tensor into a view as _read_tensor has it, "
               "and give it\nback to its maker.")},
    {0},
};
