/* DLPack: views as capsules for other libraries.
 *
 * A capsule refers to the memory through a region (posix/object/region.h) and
 * owns no Python object, so a consumer may delete the tensor at any time, in
 * any thread, without the GIL, and after the interpreter has ended. */
#include "core/view/view.h"

#include <stdlib.h>

#include "core/args.h"

#include "posix/object/region.h"

/* ---- The structures that a capsule points to ----
 * https://dmlc.github.io/dlpack/latest/c_api.html */

enum { DL_CPU = 1 };

/* The codes of types of which this file knows more than posixshm._format. */
enum { DL_COMPLEX = 5, DL_FLOAT8_E3M4 = 7 };

enum { DL_FLAG_READ_ONLY = 1, DL_FLAG_IS_COPIED = 2 };

struct dl_tensor {
    void *data;
    struct {
        int32_t type;
        int32_t id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code;
        uint8_t bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;
    int64_t *strides;                   /* in items; NULL: C order */
    uint64_t byte_offset;
};

struct dl_managed {
    struct dl_tensor tensor;
    void *context;
    void (*deleter)(struct dl_managed *);
};

struct dl_managed_versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct dl_managed_versioned *);
    uint64_t flags;
    struct dl_tensor tensor;
};

/* ---- Capsules ---- */

#define LEGACY "dltensor"
#define VERSIONED "dltensor_versioned"

/* One allocation of malloc().  The capsule's name says which member of the
 * union it has; both begin with what the consumer gets. */
struct export {
    union {
        struct dl_managed legacy;
        struct dl_managed_versioned versioned;
    };
    struct pshm_region *region;         /* owned */
    int64_t dimensions[];               /* the tensor's shape and strides */
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

/* A consumer renames a capsule when it takes ownership of the tensor. */
static void
capsule_destructor(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, LEGACY)) {
        delete_legacy(PyCapsule_GetPointer(capsule, LEGACY));
    }
    else if (PyCapsule_IsValid(capsule, VERSIONED)) {
        delete_versioned(PyCapsule_GetPointer(capsule, VERSIONED));
    }
}

/* ---- Arguments ---- */

typedef struct {
    bool versioned;
    bool copy;
} dlpack_params;

static int
parse_pair(PyObject *value, const char *name, long *first, long *second)
{
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be None or a tuple of two ints, not %R", name,
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

/* values: stream, max_version, dl_device, copy. */
static int
parse_params(PyObject **values, dlpack_params *out)
{
    long major = 0, minor, device = DL_CPU, id = 0;
    *out = (dlpack_params){0};
    if (arg_given(values[0])) {
        PyErr_Format(PyExc_BufferError,
                     "stream must be None for CPU memory, not %R",
                     values[0]);
        return -1;
    }
    if ((arg_given(values[1])
         && parse_pair(values[1], "max_version", &major, &minor) < 0)
        || (arg_given(values[2])
            && parse_pair(values[2], "dl_device", &device, &id) < 0)
        || (arg_given(values[3]) && arg_bool(values[3], &out->copy) < 0)) {
        return -1;
    }
    if (device != DL_CPU || id != 0) {
        PyErr_Format(PyExc_BufferError,
                     "dl_device must be None or (1, 0), the CPU, not "
                     "%R", values[2]);
        return -1;
    }
    out->versioned = major >= 1;
    return 0;
}

/* Check the strides of dimensions with at least two items; DLPack ignores the
 * others.  Returns NULL or the rule that is not met. */
static const char *
check_strides(ViewObject *self)
{
    for (int i = 0; i < self->ndim; i++) {
        Py_ssize_t stride = self->dimensions[self->ndim + i];
        if (self->dimensions[i] <= 1) {
            continue;
        }
        if (stride % self->format.size != 0) {
            return "the strides are not multiples of the item size; "
                   "copy=True copies the items";
        }
        if (stride < 0) {
            /* Valid in DLPack, but PyTorch before 2.14 aborts the process. */
            return "a stride is negative, which some consumers do not "
                   "support; copy=True copies the items";
        }
    }
    return NULL;
}

/* Check that DLPack can describe the view.  Returns 0, or -1 with
 * BufferError. */
static int
check_view(ViewObject *self, const dlpack_params *params)
{
    const char *rule = NULL;
    Py_ssize_t align = self->format.dl_code == DL_COMPLEX
                           ? self->format.size / 2
                           : self->format.size;
    if (self->format.dl_bits == 0) {
        rule = "DLPack does not have such a type";
    }
    else if (params->copy) {
        return 0;
    }
    else if (self->readonly && !params->versioned) {
        rule = "the view is read-only, which DLPack before 1.0 cannot describe";
    }
    else if ((uintptr_t)self->data % (size_t)align != 0) {
        rule = "the items are not aligned to their size; copy=True copies "
               "them";
    }
    else {
        rule = check_strides(self);
    }
    if (rule != NULL) {
        PyErr_Format(PyExc_BufferError,
                     "cannot export a View of format %R by DLPack: %s",
                     self->format.text, rule);
        return -1;
    }
    return 0;
}

/* ---- The tensor ---- */

/* Copy the items to memory of malloc(), whose address is stored in *data.
 * Returns a new region, or NULL with MemoryError. */
static struct pshm_region *
copy_items(ViewObject *self, void **data)
{
    char *items = malloc((size_t)self->nbytes + 1);
    struct pshm_region *region = items == NULL ? NULL
                                               : pshm_region_new(items, 0);
    if (region == NULL) {
        free(items);
        PyErr_NoMemory();
        return NULL;
    }
    view_copy_items(self, items);
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
make_export(ViewObject *self, const dlpack_params *params)
{
    struct export *export = calloc(
        1, sizeof(*export) + sizeof(int64_t) * 2 * (size_t)self->ndim);
    void *data = self->data;
    if (export == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    export->region = params->copy ? copy_items(self, &data)
                                  : mapping_share(self->map);
    if (export->region == NULL) {
        free(export);
        return NULL;
    }
    struct dl_tensor *tensor = &export->legacy.tensor;
    export->legacy.deleter = delete_legacy;
    if (params->versioned) {
        struct dl_managed_versioned *managed = &export->versioned;
        *managed = (struct dl_managed_versioned){
            .major = 1,
            .minor = self->format.dl_code >= DL_FLOAT8_E3M4 ? 1 : 0,
            .deleter = delete_versioned,
            .flags = params->copy     ? DL_FLAG_IS_COPIED
                     : self->readonly ? DL_FLAG_READ_ONLY
                                      : 0,
        };
        tensor = &managed->tensor;
    }
    fill_tensor(self, params->copy, export->dimensions, data, tensor);
    return export;
}

const char view_dlpack_doc[] =
    "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None,\n"
    "           copy=None)\n--\n\n"
    "Return a DLPack capsule for from_dlpack() of another library.\n\n"
    "stream: None.\n"
    "max_version: the newest version that the consumer supports, (major,\n"
    "minor); None or less than (1, 0): the capsule has the old form.\n"
    "dl_device: None or (1, 0).\n"
    "copy: True copies the items.  Without a copy, the memory remains mapped\n"
    "until the consumer deletes the tensor.\n\n"
    "Raises BufferError if DLPack cannot describe the view: for some formats,\n"
    "for items that are not aligned, for negative strides, for another\n"
    "device, and, in the old form, for a read-only view.\n"
    "https://dmlc.github.io/dlpack/latest/python_spec.html";

PyObject *
view_dlpack(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"stream", "max_version", "dl_device",
                                        "copy", NULL};
    static const struct signature signature = {"__dlpack__", 0, 0, names};
    PyObject *values[4];
    dlpack_params params;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_params(values, &params) < 0
        || check_view(as_view(op), &params) < 0) {
        return NULL;
    }
    struct export *export = make_export(as_view(op), &params);
    if (export == NULL) {
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(
        export, params.versioned ? VERSIONED : LEGACY, capsule_destructor);
    if (capsule == NULL) {
        pshm_region_drop(export->region);
        free(export);
    }
    return capsule;
}

const char view_dlpack_device_doc[] =
    "__dlpack_device__($self, /)\n--\n\n"
    "Return (1, 0), which stands for the CPU in DLPack.";

PyObject *
view_dlpack_device(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue("(ii)", DL_CPU, 0);
}
