/* The base class of posixshm.array's arrays: indexing and copying return
 * numpy's views and copies, as fast as numpy.  Methods in Python would take up
 * to five times as long. */
#include "core/args.h"

/* Is base that of an array which owns its items?  It is None then, or a plain
 * array if numpy changed the type of a new array. */
static bool
has_own_items(core_state *state, PyObject *base)
{
    return base == Py_None || Py_IS_TYPE(base, state->ndarray_type);
}

static PyObject *
array_subscript(PyObject *self, PyObject *key)
{
    core_state *state = core_state_of_type(Py_TYPE(self));
    PyTypeObject *plain = state->ndarray_type;
    PyObject *result = plain->tp_as_mapping->mp_subscript(self, key);
    if (result == NULL || !Py_IS_TYPE(result, Py_TYPE(self))) {
        return result;
    }
    PyObject *base = PyObject_GetAttr(result, state->base_name);
    if (base == NULL) {
        Py_DECREF(result);
        return NULL;
    }
    if (has_own_items(state, base)) {
        Py_SETREF(result, PyObject_CallMethod(result, "view", "O", plain));
    }
    Py_DECREF(base);
    return result;
}

PyDoc_STRVAR(
    array_copy_doc,
    "copy($self, /, order='C')\n--\n\n"
    "Return a plain numpy.ndarray with a copy of the items.\n\n"
    "order: as of numpy.ndarray.copy().");

/* Copies a plain array of the same items: ndarray.copy() of self would return
 * an array of this type, and changing its type would take another array. */
static PyObject *
array_copy(PyObject *self, PyTypeObject *type, PyObject *const *args,
           Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"order", NULL};
    static const struct signature signature = {"copy", 1, 0, names};
    core_state *state = PyType_GetModuleState(type);
    PyObject *order[1] = {NULL};
    if ((count > 0 || kwnames != NULL)
        && args_match(&signature, args, count, kwnames, order) < 0) {
        return NULL;
    }
    PyObject *plain = PyObject_CallOneArg(state->ndarray_plain, self);
    if (plain == NULL) {
        return NULL;
    }
    PyObject *stack[] = {plain, order[0]};
    PyObject *result = PyObject_Vectorcall(state->ndarray_copy, stack,
                                           order[0] != NULL ? 2 : 1, NULL);
    Py_DECREF(plain);
    return result;
}

static PyMethodDef methods[] = {
    {"copy", (PyCFunction)(void (*)(void))array_copy,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, array_copy_doc},
    {0},
};

/* Returns 0 or -1. */
static int
find_methods(core_state *state, PyObject *ndarray)
{
    Py_XSETREF(state->ndarray_plain,
               PyObject_GetAttrString(ndarray, "__array__"));
    Py_XSETREF(state->ndarray_copy, PyObject_GetAttrString(ndarray, "copy"));
    if (state->base_name == NULL) {
        state->base_name = PyUnicode_InternFromString("base");
    }
    return state->ndarray_plain == NULL || state->ndarray_copy == NULL
           || state->base_name == NULL ? -1 : 0;
}

/* _array_type(ndarray): return a subclass of it.  Indexing returns a plain
 * array if numpy copies the items. */
static PyObject *
array_type(PyObject *module, PyObject *ndarray)
{
    core_state *state = core_state_of_module(module);
    if (!PyType_Check(ndarray)
        || ((PyTypeObject *)ndarray)->tp_as_mapping == NULL) {
        PyErr_SetString(PyExc_TypeError, "_array_type() takes numpy.ndarray");
        return NULL;
    }
    PyType_Slot slots[] = {
        {Py_mp_subscript, array_subscript},
        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "posixshm._core.ArrayBase",
        .basicsize = (int)((PyTypeObject *)ndarray)->tp_basicsize,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE
                 | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    if (find_methods(state, ndarray) < 0) {
        return NULL;
    }
    PyObject *bases = PyTuple_Pack(1, ndarray);
    if (bases == NULL) {
        return NULL;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, bases);
    Py_DECREF(bases);
    if (type != NULL) {
        Py_XSETREF(state->ndarray_type,
                   (PyTypeObject *)Py_NewRef(ndarray));
    }
    return type;
}

PyMethodDef array_methods[] = {
    {"_array_type", array_type, METH_O, NULL},
    {0},
};
