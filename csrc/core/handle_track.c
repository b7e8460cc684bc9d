/* The standard library's resource tracker: a process that removes names when
 * the processes that registered them have ended. */
#include "handle.h"

int
handle_track(PyObject *name, const char *function)
{
    PyObject *module = PyImport_ImportModule("posixshm._track");
    if (module == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallMethod(module, function, "O", name);
    Py_DECREF(module);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
handle_untrack(PyObject *name)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (handle_track(name, "unregister") < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}
