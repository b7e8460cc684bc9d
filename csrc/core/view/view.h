/* View: format, shape and strides over a MemoryMap.
 *
 * A View owns a reference to its MemoryMap, and is the obj of each buffer that
 * a consumer gets from it.  Only the member items changes after creation, once,
 * from NULL; so a View needs no lock. */
#ifndef CORE_VIEW_H
#define CORE_VIEW_H

#include "core/view/format.h"
#include "core/memory/mapping.h"

#include "posix/object/attach.h"

/* The SharedMemory that made a view, for pickling. */
struct view_origin {
    PyObject *shm;                      /* NULL: a MemoryMap made the view */
    struct pshm_identity id;            /* the object of shm at that time */
};

typedef struct {
    PyObject_VAR_HEAD                   /* 2 * ndim */
    MemoryMapObject *map;
    struct view_origin origin;          /* owns shm */
    char *data;                         /* the item with all indexes 0 */
    item_format format;                 /* owns its record */
    Py_ssize_t nbytes;                  /* of the items, without gaps */
    int ndim;
    bool readonly;
    _Atomic(PyObject *) items;          /* NULL, or a memoryview:
                                           view_items.c */
    PyObject *weakrefs;
    Py_ssize_t dimensions[];            /* the shape, in items; the strides, in
                                           bytes */
} ViewObject;

static inline ViewObject *
as_view(PyObject *op)
{
    return (ViewObject *)op;
}

/* The items as a buffer without an owner. */
static inline Py_buffer
view_buffer(ViewObject *self)
{
    return (Py_buffer){
        .buf = self->data,
        .len = self->nbytes,
        .itemsize = self->format.size,
        .readonly = self->readonly,
        .ndim = self->ndim,
        .shape = self->dimensions,
        .strides = self->dimensions + self->ndim,
    };
}

/* Items at regular distances; the first ndim members of the arrays are set. */
typedef struct {
    char *data;                         /* the item with all indexes 0 */
    int ndim;
    Py_ssize_t shape[PyBUF_MAX_NDIM];      /* items */
    Py_ssize_t strides[PyBUF_MAX_NDIM];    /* bytes */
} item_range;

/* The bytes of the items, without gaps. */
Py_ssize_t range_bytes(const item_range *range, Py_ssize_t itemsize);

/* A new view, or NULL with an exception.  The caller has made sure that the
 * range lies within map, and that map has granted the rights. */
PyObject *view_new(core_state *state, MemoryMapObject *map,
                   const struct view_origin *origin,
                   const item_format *format, const item_range *range,
                   bool readonly);

/* ---- view_make.c ---- */

/* SharedMemory.view() on the mapping of origin->shm, MemoryMap.view() and
 * View.cast(). */
PyObject *view_make(MemoryMapObject *map, const struct view_origin *origin,
                    PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames);
PyObject *view_of_mapping(PyObject *op, PyObject *const *args,
                          Py_ssize_t count, PyObject *kwnames);
PyObject *view_cast(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames);
extern const char view_of_mapping_doc[], view_cast_doc[];

/* ---- view_index.c ---- */

/* Select the items that keys leave of a view.  Returns 1 for a single item, 0
 * for a range, or -1 with IndexError, TypeError or ValueError. */
int view_select(ViewObject *self, PyObject *const *keys, Py_ssize_t count,
                item_range *out);

/* ---- view_items.c ---- */

Py_ssize_t view_length(PyObject *op);
PyObject *view_item(PyObject *op, Py_ssize_t index);
PyObject *view_subscript(PyObject *op, PyObject *key);
int view_ass_subscript(PyObject *op, PyObject *key, PyObject *value);
PyObject *view_tolist(PyObject *op, PyObject *unused);
PyObject *view_tobytes(PyObject *op, PyObject *unused);
/* Copy the items, in C order, to memory of self->nbytes bytes. */
void view_copy_items(ViewObject *self, char *to);
extern const char view_tolist_doc[], view_tobytes_doc[];

/* ---- view_convert.c ---- */

PyObject *view_numpy(PyObject *op, PyObject *unused);
PyObject *view_array(PyObject *op, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames);
PyObject *view_copy(PyObject *op, PyObject *unused);
PyObject *view_reduce(PyObject *op, PyObject *unused);
extern const char view_numpy_doc[], view_array_doc[], view_copy_doc[],
    view_reduce_doc[];

/* ---- dlpack.c ---- */

PyObject *view_dlpack(PyObject *op, PyObject *const *args, Py_ssize_t count,
                      PyObject *kwnames);
PyObject *view_dlpack_device(PyObject *op, PyObject *unused);
extern const char view_dlpack_doc[], view_dlpack_device_doc[];

extern PyType_Spec view_spec;

#endif
