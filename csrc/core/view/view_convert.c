/* Views as arrays of numpy, and as pickles that refer to the memory. */
#include "core/view/view.h"

#include "core/args.h"
#include "core/memory/handle.h"

/* ---- numpy ---- */

const char view_numpy_doc[] =
    "numpy($self, /)\n--\n\n"
    "Return a numpy.ndarray that shares the memory, shape and strides.\n\n"
    "The array keeps the memory mapped, and is read-only if the view is.\n"
    "numpy does not check text: bytes that are not code points become a\n"
    "damaged str, or raise SystemError; indexing the view raises ValueError\n"
    "for them.\n\n"
    "Raises ValueError if numpy does not have such items, for example the\n"
    "struct module's 'p'; ImportError if numpy is not installed, or, for\n"
    "bfloat16 and the float8 formats, if ml_dtypes is not installed.";

PyObject *
view_numpy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    core_state *state = core_state_of_type(Py_TYPE(op));
    if (!self->format.in_buffers) {
        return view_call(state, "to_numpy", PyTuple_Pack(1, op));
    }
    PyObject *asarray = core_find(state, &state->asarray, "numpy", "asarray");
    PyObject *array = asarray == NULL ? NULL
                                      : PyObject_CallOneArg(asarray, op);
    Py_XDECREF(asarray);
    /* numpy raises RuntimeError or ValueError for a format that it does not
     * have. */
    if (array == NULL && self->format.decode != NULL
        && (PyErr_ExceptionMatches(PyExc_ValueError)
            || (PyErr_ExceptionMatches(PyExc_RuntimeError)
                && !PyErr_ExceptionMatches(PyExc_RecursionError)))) {
        PyErr_Format(PyExc_ValueError,
                     "numpy does not have items of format %R; pass a numpy "
                     "dtype to view() or cast()",
                     self->format.text);
    }
    return array;
}

const char view_array_doc[] =
    "__array__($self, /, dtype=None, copy=None)\n--\n\n"
    "Return the array of numpy(), for numpy.asarray().\n\n"
    "dtype: that of the array; None: that of the items.\n"
    "copy: whether to copy the items; None: only if dtype requires it.\n\n"
    "Raises ValueError if copy is False and a copy is necessary, and what\n"
    "numpy() raises.\n"
    "https://numpy.org/doc/stable/user/basics.interoperability.html";

PyObject *
view_array(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"dtype", "copy", NULL};
    static const struct signature signature = {"__array__", 2, 0, names};
    PyObject *values[2];
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    if (!arg_given(values[0]) && !arg_given(values[1])) {
        return view_numpy(op, NULL);
    }
    return view_call(core_state_of_type(Py_TYPE(op)), "to_array",
                     PyTuple_Pack(3, op,
                                  values[0] != NULL ? values[0] : Py_None,
                                  values[1] != NULL ? values[1] : Py_None));
}

/* ---- Copies and pickles ---- */

const char view_copy_doc[] =
    "__copy__($self, /)\n--\n\n"
    "Return the view itself.\n\n"
    "Its attributes cannot change, and a copy would be a view of the same\n"
    "memory.";

PyObject *
view_copy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(op);
}

const char view_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle the view by reference: its SharedMemory, format, shape, offset\n"
    "and strides, and whether it is read-only.\n\n"
    "Unpickling attaches to the object, and raises what unpickling the\n"
    "SharedMemory raises. Raises TypeError if MemoryMap.view() made the view,\n"
    "and what pickling the SharedMemory raises.";

/* Check that origin->shm still has the view's object.  Returns 0, or -1 with
 * TypeError. */
static int
check_origin(const struct view_origin *origin)
{
    if (origin->shm == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "cannot pickle a View of a MemoryMap, which has no "
                        "reference to the object that it maps; use "
                        "SharedMemory.view(), or for a descriptor "
                        "SharedMemory.from_fd(fd).view()");
        return -1;
    }
    SharedMemoryObject *self = as_handle(origin->shm);
    struct pshm_identity id;
    fields_lock(&self->fields);
    id = self->state.id;
    fields_unlock(&self->fields);
    if (!pshm_identity_same(id, origin->id)) {
        PyErr_SetString(PyExc_TypeError,
                        "cannot pickle the View: a later call of __init__() "
                        "attached its SharedMemory to another object");
        return -1;
    }
    return 0;
}

PyObject *
view_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    if (check_origin(&self->origin) < 0) {
        return NULL;
    }
    return view_call(core_state_of_type(Py_TYPE(op)), "reduce",
                     PyTuple_Pack(3, op, self->origin.shm,
                                  self->format.argument));
}
