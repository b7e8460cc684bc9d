/* Views as numpy has them: its arrays, and its dtypes to compare by. */
#include "core/view/view.h"

#include "core/args.h"

static PyObject *
as_array(ViewObject *self, PyObject *value)
{
    core_state *state = core_state_of_type(Py_TYPE(self));
    PyObject *asarray = core_find(state, &state->asarray, "numpy", "asarray");
    if (asarray == NULL) {
        return NULL;
    }
    PyObject *array = PyObject_CallOneArg(asarray, value);
    Py_DECREF(asarray);
    return array;
}

/* ---- What the buffer protocol has no word for ---- */

/* The word for unsigned numbers of its items' size. */
static const char *
carrier_text(ViewObject *self)
{
    return self->format.size == 1 ? "B" : self->format.size == 2 ? "H" : "Q";
}

static PyObject *
view_as_numbers(ViewObject *self)
{
    struct pshm_layout layout = view_layout(self);
    struct item_format carrier = {
        .text = PyUnicode_FromString(carrier_text(self)),
        .size = self->format.size,
        .kind = ITEM_UINT,
        .in_buffers = true,
    };
    if (carrier.text == NULL) {
        return NULL;
    }
    PyObject *numbers = view_new(core_state_of_type(Py_TYPE(self)), self->map,
                                 &self->origin, self->data, &carrier, &layout,
                                 self->readonly);
    Py_DECREF(carrier.text);
    return numbers;
}

/* Numbers of the same size that are then called by the right name. */
static PyObject *
extension_array(ViewObject *self)
{
    PyObject *result = NULL, *array = NULL;
    PyObject *dtype = format_extension_dtype(&self->format);
    PyObject *numbers = dtype == NULL ? NULL : view_as_numbers(self);
    if (numbers != NULL) {
        array = as_array(self, numbers);
        Py_DECREF(numbers);
    }
    if (array != NULL) {
        result = PyObject_CallMethod(array, "view", "O", dtype);
        Py_DECREF(array);
    }
    Py_XDECREF(dtype);
    return result;
}

PyObject *
view_numbers_of(ViewObject *self, PyObject *value)
{
    if (Py_IS_TYPE(value, Py_TYPE(self))) {
        return view_as_numbers(as_view(value));
    }
    PyObject *array = as_array(self, value);
    if (array == NULL) {
        return NULL;
    }
    PyObject *numbers = PyObject_CallMethod(array, "view", "s",
                                            carrier_text(self));
    Py_DECREF(array);
    return numbers;
}

int
view_has_dtype_of(ViewObject *self, PyObject *value)
{
    PyObject *values[2] = {(PyObject *)self, value}, *types[2] = {0};
    int same = 0;
    for (int i = 0; i < 2 && same == 0; i++) {
        PyObject *array = Py_IS_TYPE(values[i], Py_TYPE(self))
                              ? view_numpy(values[i], NULL)
                              : as_array(self, values[i]);
        types[i] = array == NULL ? NULL
                                 : PyObject_GetAttrString(array, "dtype");
        same = types[i] == NULL ? -1 : 0;
        Py_XDECREF(array);
    }
    if (same == 0) {
        same = PyObject_RichCompareBool(types[0], types[1], Py_EQ);
    }
    Py_XDECREF(types[0]);
    Py_XDECREF(types[1]);
    return same;
}

/* ---- The array ---- */

const char view_numpy_doc[] =
    "numpy($self, /)\n--\n\n"
    "A numpy.ndarray of the same memory, with this shape and these strides.\n\n"
    "It keeps the memory mapped, and is read-only where the view is.  numpy does\n"
    "not check text: a str that it makes of bytes that are no code points is\n"
    "damaged, or raises SystemError; an item of the view raises ValueError.\n\n"
    "Raises ValueError where numpy has no such items, as of the struct module's 'p';\n"
    "ImportError without numpy, and where the format is bfloat16 or a float8,\n"
    "which numpy knows from ml_dtypes, without that.";

PyObject *
view_numpy(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    if (!self->format.in_buffers) {
        return extension_array(self);
    }
    PyObject *array = as_array(self, op);
    if (array == NULL && self->format.kind == ITEM_STRUCT
        && (PyErr_ExceptionMatches(PyExc_ValueError)
            || PyErr_ExceptionMatches(PyExc_RuntimeError))
        && !PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Format(PyExc_ValueError,
                     "numpy has no items of format %R; a view of a numpy dtype "
                     "it has",
                     self->format.text);
    }
    return array;
}

/* array in that dtype; the same object where it is that already. */
static PyObject *
as_type(PyObject *array, PyObject *dtype)
{
    PyObject *args[] = {array, dtype, Py_False}, *result = NULL;
    PyObject *name = PyUnicode_FromString("astype");
    PyObject *kwnames = Py_BuildValue("(s)", "copy");
    if (name != NULL && kwnames != NULL) {
        result = PyObject_VectorcallMethod(name, args, 2, kwnames);
    }
    Py_XDECREF(name);
    Py_XDECREF(kwnames);
    return result;
}

const char view_array_doc[] =
    "__array__($self, /, dtype=None, copy=None)\n--\n\n"
    "The array of numpy(), for numpy, which asks for it where the buffer\n"
    "protocol has no word for the items.\n\n"
    "dtype: of the array; None: as the items are.  copy: whether it is a copy;\n"
    "None: only where dtype makes that necessary.  Raises ValueError where\n"
    "copy=False cannot be; else as numpy().\n"
    "https://numpy.org/doc/stable/user/basics.interoperability.html";

PyObject *
view_array(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    static const char *const names[] = {"dtype", "copy", NULL};
    static const struct signature signature = {"__array__", 2, 0, names};
    PyObject *values[2];
    bool copy = false;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[1] != NULL && values[1] != Py_None
            && arg_bool(values[1], &copy) < 0)) {
        return NULL;
    }
    bool never = values[1] != NULL && values[1] != Py_None && !copy;
    PyObject *array = view_numpy(op, NULL);
    if (array == NULL) {
        return NULL;
    }
    bool same = values[0] == NULL || values[0] == Py_None;
    PyObject *result = same ? Py_NewRef(array) : as_type(array, values[0]);
    if (result != NULL && result != array && never) {
        PyErr_Format(PyExc_ValueError,
                     "dtype %R needs a copy of items of format %R, and copy is "
                     "False",
                     values[0], as_view(op)->format.text);
        Py_CLEAR(result);
    }
    else if (result == array && copy) {
        Py_SETREF(result, PyObject_CallMethod(array, "copy", NULL));
    }
    Py_DECREF(array);
    return result;
}
