/* The standard library's resource tracker: a process that removes names when
 * the processes that registered them have ended.  posixshm._support tells it. */
#include "core/memory/handle.h"

int
handle_track(PyObject *support, PyObject *name, const char *function)
{
    PyObject *result = PyObject_CallMethod(support, "track", "sO", function,
                                           name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
handle_untrack(PyObject *support, PyObject *name)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (handle_track(support, name, "unregister") < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

/* _set_support(module): posixshm._support, which must be importable by name
 * from Python for tools that look for imports. */
static PyObject *
core_set_support(PyObject *module, PyObject *support)
{
    core_state *state = core_state_of_module(module);
    Py_XSETREF(state->support, Py_NewRef(support));
    Py_RETURN_NONE;
}

PyMethodDef track_methods[] = {
    {"_set_support", core_set_support, METH_O, NULL},
    {0},
};
