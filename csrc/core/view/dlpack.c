/* Views to other libraries: DLPack's capsules.
 *
 * What a capsule points to shares the memory by a region (posix/region.h) and
 * owns nothing of Python's, so it can be given back at any time and in any
 * thread, without the GIL, and after the interpreter has ended. */
#include "core/view/view.h"

#include <stdlib.h>

#include "core/args.h"
#include "core/view/dlpack_abi.h"

#include "posix/object/region.h"

#define LEGACY "dltensor"
#define VERSIONED "dltensor_versioned"

/* One allocation of malloc.  Which of the two is used the capsule's name says. */
struct export {
    union {
        struct dl_managed legacy;
        struct dl_managed_versioned versioned;
    };
    struct pshm_region *region;
    int64_t dimensions[];
};

static void
delete_legacy(struct dl_managed *managed)
{
    struct export *export = (struct export *)managed;
    pshm_region_drop(export->region);
    free(export);
}

static void
delete_versioned(struct dl_managed_versioned *managed)
{
    struct export *export = (struct export *)managed;
    pshm_region_drop(export->region);
    free(export);
}

/* Of a capsule that nobody took the tensor out of. */
static void
drop_capsule(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, LEGACY)) {
        delete_legacy(PyCapsule_GetPointer(capsule, LEGACY));
    }
    else if (PyCapsule_IsValid(capsule, VERSIONED)) {
        delete_versioned(PyCapsule_GetPointer(capsule, VERSIONED));
    }
}

/* ---- What was asked for ---- */

typedef struct {
    bool versioned;
    bool copy;
} dlpack_params;

static int
parse_pair(PyObject *value, const char *what, long *first, long *second)
{
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be None or a tuple of two ints, not %R", what,
                     value);
        return -1;
    }
    *first = PyLong_AsLong(PyTuple_GET_ITEM(value, 0));
    if (*first == -1 && PyErr_Occurred()) {
        return -1;
    }
    *second = PyLong_AsLong(PyTuple_GET_ITEM(value, 1));
    return *second == -1 && PyErr_Occurred() ? -1 : 0;
}

static bool
is_given(PyObject *value)
{
    return value != NULL && value != Py_None;
}

/* values: stream, max_version, dl_device, copy. */
static int
parse_wish(PyObject **values, dlpack_params *out)
{
    long major = 0, minor, device = DL_CPU, id = 0;
    *out = (dlpack_params){0};
    if (is_given(values[0])) {
        PyErr_Format(PyExc_BufferError,
                     "stream must be None for memory of the CPU, not %R",
                     values[0]);
        return -1;
    }
    if ((is_given(values[1])
         && parse_pair(values[1], "max_version", &major, &minor) < 0)
        || (is_given(values[2])
            && parse_pair(values[2], "dl_device", &device, &id) < 0)
        || (is_given(values[3]) && arg_bool(values[3], &out->copy) < 0)) {
        return -1;
    }
    if (device != DL_CPU || id != 0) {
        PyErr_Format(PyExc_BufferError,
                     "dl_device must be (1, 0), the CPU, not %R", values[2]);
        return -1;
    }
    out->versioned = major >= 1;
    return 0;
}

/* The BufferError of what DLPack has no words for. */
static int
check_view(ViewObject *self, const dlpack_params *wanted)
{
    const char *rule = NULL;
    Py_ssize_t align = self->format.kind == ITEM_COMPLEX
                           ? self->format.size / 2
                           : self->format.size;
    if (self->format.dl_bits == 0) {
        rule = "DLPack has no such type";
    }
    else if (wanted->copy) {
        return 0;
    }
    else if (self->readonly && !wanted->versioned) {
        rule = "it is read-only, which a consumer of DLPack before 1.0 cannot "
               "know";
    }
    else if ((uintptr_t)self->data % (size_t)align != 0) {
        rule = "its items are not aligned to their size; copy=True would";
    }
    for (int i = 0; i < self->ndim && rule == NULL; i++) {
        Py_ssize_t stride = self->dimensions[self->ndim + i];
        if (self->dimensions[i] <= 1) {
            continue;                   /* nothing goes by its stride */
        }
        if (stride % self->format.size != 0) {
            rule = "its strides are not whole items; copy=True would be";
        }
        else if (stride < 0) {
            /* DLPack has them, but PyTorch before 2.14 ends the process at
             * one. */
            rule = "its strides are negative, which not every consumer "
                   "survives; copy=True would not be";
        }
    }
    if (rule != NULL) {
        PyErr_Format(PyExc_BufferError, "a view of format %R: %s",
                     self->format.text, rule);
        return -1;
    }
    return 0;
}

/* ---- Making it ---- */

/* A copy of the items in memory of malloc; *data: where. */
static struct pshm_region *
copy_items(ViewObject *self, void **data)
{
    struct pshm_layout layout = view_layout(self);
    char *items = malloc((size_t)self->nbytes + 1);
    struct pshm_region *region = items == NULL ? NULL
                                               : pshm_region_new(items, 0);
    if (region == NULL) {
        free(items);
        PyErr_NoMemory();
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    pshm_gather(items, self->data, &layout);
    Py_END_ALLOW_THREADS
    *data = items;
    return region;
}

static void
fill_tensor(ViewObject *self, bool copied, int64_t *dimensions, void *data,
            struct dl_tensor *tensor)
{
    const Py_ssize_t *strides = self->dimensions + self->ndim;
    int64_t step = 1;
    tensor->data = data;
    tensor->device.type = DL_CPU;
    tensor->ndim = self->ndim;
    tensor->dtype.code = self->format.dl_code;
    tensor->dtype.bits = self->format.dl_bits;
    tensor->dtype.lanes = 1;
    tensor->shape = dimensions;
    tensor->strides = dimensions + self->ndim;
    for (int i = self->ndim - 1; i >= 0; i--) {
        Py_ssize_t items = self->dimensions[i];
        tensor->shape[i] = items;
        tensor->strides[i] = copied || items <= 1
                                 ? step : strides[i] / self->format.size;
        step *= items > 0 ? items : 1;
    }
}

static struct export *
make_export(ViewObject *self, const dlpack_params *wanted)
{
    struct export *export = calloc(
        1, sizeof(*export) + sizeof(int64_t) * 2 * (size_t)self->ndim);
    void *data = self->data;
    if (export == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    export->region = wanted->copy ? copy_items(self, &data)
                                  : mapping_share(self->map);
    if (export->region == NULL) {
        free(export);
        return NULL;
    }
    if (wanted->versioned) {
        struct dl_managed_versioned *managed = &export->versioned;
        managed->major = 1;
        managed->minor = self->format.dl_code >= DL_FLOAT8_E3M4 ? 1 : 0;
        managed->deleter = delete_versioned;
        managed->flags = wanted->copy     ? DL_FLAG_IS_COPIED
                         : self->readonly ? DL_FLAG_READ_ONLY
                                          : 0;
        fill_tensor(self, wanted->copy, export->dimensions, data,
                    &managed->tensor);
    }
    else {
        export->legacy.deleter = delete_legacy;
        fill_tensor(self, wanted->copy, export->dimensions, data,
                    &export->legacy.tensor);
    }
    return export;
}

const char view_dlpack_doc[] =
    "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None,\n"
    "           copy=None)\n--\n\n"
    "A capsule for another library's from_dlpack(): the DLPack protocol of the\n"
    "Python array API standard.\n\n"
    "stream: None.  max_version: (major, minor) that the consumer knows; below\n"
    "(1, 0) or None the tensor is of the old form.  dl_device: None or (1, 0).\n"
    "copy: True for memory of its own.  Without it the memory stays mapped\n"
    "until the consumer gives the tensor back.\n\n"
    "Raises BufferError where DLPack cannot say it: a format that it has not,\n"
    "items out of alignment, negative strides, another device, and in the old\n"
    "form a view that is read-only.";

PyObject *
view_dlpack(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"stream", "max_version", "dl_device",
                                        "copy", NULL};
    static const struct signature signature = {"__dlpack__", 0, 0, names};
    PyObject *values[4];
    dlpack_params wanted;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_wish(values, &wanted) < 0
        || check_view(as_view(op), &wanted) < 0) {
        return NULL;
    }
    struct export *export = make_export(as_view(op), &wanted);
    if (export == NULL) {
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(
        export, wanted.versioned ? VERSIONED : LEGACY, drop_capsule);
    if (capsule == NULL) {
        pshm_region_drop(export->region);
        free(export);
    }
    return capsule;
}

const char view_dlpack_device_doc[] =
    "__dlpack_device__($self, /)\n--\n\n"
    "(1, 0): the CPU, in DLPack's numbers.";

PyObject *
view_dlpack_device(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue("(ii)", DL_CPU, 0);
}
