/* Copying a view, and pickling it by reference: its handle, and which part of
 * it the view is. */
#include "core/view/view.h"

#include "core/memory/handle.h"

const char view_copy_doc[] =
    "__copy__($self, /)\n--\n\n"
    "The view itself: its attributes cannot be changed, and a copy of it is a\n"
    "view of the same memory.  Also after close() of the SharedMemory.";

PyObject *
view_copy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(op);
}

const char view_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle the view by reference: its SharedMemory, format, shape, offset and\n"
    "strides, and whether it is read-only.\n\n"
    "Unpickling attaches, with what SharedMemory's may raise.  Raises TypeError\n"
    "for a view that was not made by SharedMemory.view(), and what pickling\n"
    "the SharedMemory raises: one without a name can be passed through\n"
    "multiprocessing only.";

/* May origin.shm stand for the view's memory?  0, or -1 with TypeError. */
static int
check_origin(const struct view_origin *origin)
{
    if (origin->shm == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "a View of a MemoryMap cannot be pickled: a MemoryMap "
                        "does not know which object it maps; take "
                        "SharedMemory.view(), or SharedMemory.from_fd(fd)"
                        ".view() of a descriptor");
        return -1;
    }
    SharedMemoryObject *self = as_handle(origin->shm);
    struct pshm_identity id;
    fields_lock(&self->fields);
    id = self->body.id;
    fields_unlock(&self->fields);
    if (!pshm_identity_same(id, origin->id)) {
        PyErr_SetString(PyExc_TypeError,
                        "the View cannot be pickled: __init__() gave its "
                        "SharedMemory another object after view()");
        return -1;
    }
    return 0;
}

/* What view() takes for the format; a dtype of structures, whose words it does
 * not read. */
static PyObject *
format_argument(PyObject *op)
{
    PyObject *format = as_view(op)->format.text;
    if (PyUnicode_READ_CHAR(format, 0) != 'T') {
        return Py_NewRef(format);
    }
    PyObject *array = view_numpy(op, NULL);
    PyObject *dtype = array == NULL ? NULL
                                    : PyObject_GetAttrString(array, "dtype");
    Py_XDECREF(array);
    return dtype;
}

PyObject *
view_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    if (check_origin(&self->origin) < 0) {
        return NULL;
    }
    PyObject *make = PyObject_GetAttrString((PyObject *)state->handle_type,
                                            "view");
    PyObject *format = make == NULL ? NULL : format_argument(op);
    PyObject *shape = format == NULL ? NULL
                                     : PyObject_GetAttrString(op, "shape");
    PyObject *strides = shape == NULL ? NULL
                                      : PyObject_GetAttrString(op, "strides");
    PyObject *result = NULL;
    if (strides != NULL) {
        result = Py_BuildValue("O(OOOnOO)", make, self->origin.shm, format,
                               shape, self->data - self->map->base, strides,
                               self->readonly ? Py_True : Py_False);
    }
    Py_XDECREF(make);
    Py_XDECREF(format);
    Py_XDECREF(shape);
    Py_XDECREF(strides);
    return result;
}
