/* The base class of posixshm.array's arrays, for indexing as fast as numpy's.
 * A method in Python would take up to five times as long. */
#include "core/core.h"

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
    if (result == NULL || !Py_IS_TYPE(result, Py_TYPE(self))
        || PyLong_CheckExact(key) || PySlice_Check(key)) {
        return result;                  /* an int or a slice copies nothing */
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
    if (state->base_name == NULL) {
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
