/* What indexing an array in shared memory gives: numpy's own views, at numpy's
 * own speed.  A method in Python would take five times as long. */
#include "core.h"

/* The base of an array that has items of its own: None, or, if numpy gave the
 * array its type afterwards, a plain array. */
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

/* _array_type(ndarray): its subclass whose indexing gives plain arrays where
 * numpy copies. */
static PyObject *
array_type(PyObject *module, PyObject *ndarray)
{
    core_state *state = core_state_of_module(module);
    if (!PyType_Check(ndarray)
        || ((PyTypeObject *)ndarray)->tp_as_mapping == NULL) {
        PyErr_SetString(PyExc_TypeError, "_array_type takes numpy.ndarray");
        return NULL;
    }
    PyType_Slot slots[] = {
        {Py_mp_subscript, array_subscript},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "posixshm._core.ArrayBase",
        .basicsize = (int)((PyTypeObject *)ndarray)->tp_basicsize,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE
                 | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    if (state->base_name == NULL) {
        state->base_name = PyUnicode_InternFromString("base");
    }
    PyObject *bases = PyTuple_Pack(1, ndarray);
    if (state->base_name == NULL || bases == NULL) {
        Py_XDECREF(bases);
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
