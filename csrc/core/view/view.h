/* View: format, shape and strides over a MemoryMap.
 *
 * It keeps its mapping, and is the obj of every buffer taken from it.  Nothing
 * of it changes once it is made but items, which is set once, so it needs no
 * lock. */
#ifndef CORE_VIEW_H
#define CORE_VIEW_H

#include "core/view/format.h"
#include "core/memory/mapping.h"

#include "posix/object/attach.h"
#include "posix/object/strided.h"

/* What a view was made of, by which it is pickled. */
struct view_origin {
    PyObject *shm;                      /* a SharedMemory, or NULL */
    struct pshm_identity id;            /* its object at that time */
};

typedef struct {
    PyObject_VAR_HEAD                   /* 2 * ndim */
    MemoryMapObject *map;
    struct view_origin origin;          /* owned */
    char *data;                         /* the item whose indexes are all 0 */
    struct item_format format;
    Py_ssize_t nbytes;                  /* of its items, without gaps */
    int ndim;
    bool readonly;
    _Atomic(PyObject *) items;          /* a memoryview, from its first use on */
    PyObject *weakrefs;
    Py_ssize_t dimensions[];            /* the shape, in items; the strides, in
                                           bytes */
} ViewObject;

static inline ViewObject *
as_view(PyObject *op)
{
    return (ViewObject *)op;
}

static inline struct pshm_layout
view_layout(ViewObject *self)
{
    return (struct pshm_layout){
        .ndim = self->ndim,
        .shape = self->dimensions,
        .strides = self->dimensions + self->ndim,
        .itemsize = self->format.size,
    };
}

/* A new view; the caller has made sure that the whole of layout lies in map,
 * and that map has granted the rights.  Takes references of its own. */
PyObject *view_new(core_state *state, MemoryMapObject *map,
                   const struct view_origin *origin, char *data,
                   const struct item_format *format,
                   const struct pshm_layout *layout, bool readonly);

/* Fill buffer as bf_getbuffer, as far as flags ask. */
int view_getbuffer(PyObject *op, Py_buffer *buffer, int flags);

/* ---- view_make.c ---- */

/* SharedMemory.view, of a handle's mapping, MemoryMap.view and View.cast. */
PyObject *view_make(MemoryMapObject *map, const struct view_origin *origin,
                    PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames);
PyObject *view_of_mapping(PyObject *op, PyObject *const *args,
                          Py_ssize_t count, PyObject *kwnames);
PyObject *view_cast(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames);
extern const char view_of_mapping_doc[], view_cast_doc[];

/* ---- view_items.c ---- */

Py_ssize_t view_length(PyObject *op);
PyObject *view_item(PyObject *op, Py_ssize_t index);
PyObject *view_subscript(PyObject *op, PyObject *key);
int view_ass_subscript(PyObject *op, PyObject *key, PyObject *value);
PyObject *view_tolist(PyObject *op, PyObject *unused);
PyObject *view_tobytes(PyObject *op, PyObject *unused);
extern const char view_tolist_doc[], view_tobytes_doc[];

/* ---- view_numpy.c ---- */

PyObject *view_numpy(PyObject *op, PyObject *unused);
PyObject *view_array(PyObject *op, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames);
extern const char view_numpy_doc[], view_array_doc[];

/* Are value's items, as numpy has them, of the type of the view's?  -1 with an
 * exception. */
int view_has_dtype_of(ViewObject *self, PyObject *value);

/* value, a view or an array whose items are of the type of the view's, with
 * unsigned numbers of the same size in their place; for types that the buffer
 * protocol has no word for. */
PyObject *view_numbers_of(ViewObject *self, PyObject *value);

/* ---- view_pickle.c ---- */

PyObject *view_copy(PyObject *op, PyObject *unused);
extern const char view_copy_doc[];
PyObject *view_reduce(PyObject *op, PyObject *unused);
extern const char view_reduce_doc[];

/* ---- dlpack.c ---- */

PyObject *view_dlpack(PyObject *op, PyObject *const *args, Py_ssize_t count,
                      PyObject *kwnames);
PyObject *view_dlpack_device(PyObject *op, PyObject *unused);
extern const char view_dlpack_doc[], view_dlpack_device_doc[];

extern PyType_Spec view_spec;

#endif
