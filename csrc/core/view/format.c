#include "core/view/format.h"

#define FUNCTIONS "posixshm._view"

PyObject *
view_call(core_state *state, const char *function, PyObject *args)
{
    PyObject *module = args == NULL ? NULL
                                    : core_find(state, &state->view_functions,
                                                FUNCTIONS, NULL);
    PyObject *found = module == NULL
                          ? NULL : PyObject_GetAttrString(module, function);
    PyObject *result = found == NULL ? NULL : PyObject_CallObject(found, args);
    if (result == NULL && !PyErr_Occurred()) {
        /* CPython 3.11 does not set an exception if it cannot allocate the
         * frame of a Python function. */
        (void)PyErr_NoMemory();
    }
    Py_XDECREF(found);
    Py_XDECREF(module);
    Py_XDECREF(args);
    return result;
}

/* A new reference, or NULL with an exception. */
static PyObject *
find_record(core_state *state, PyObject *value)
{
    if (PyUnicode_CheckExact(value)) {
        PyObject *known = core_find(state, &state->known_formats, FUNCTIONS,
                                    "known");
        PyObject *record = known == NULL ? NULL
                                         : PyObject_GetItem(known, value);
        Py_XDECREF(known);
        if (record != NULL || !PyErr_ExceptionMatches(PyExc_KeyError)) {
            return record;
        }
        PyErr_Clear();
    }
    return view_call(state, "parse", PyTuple_Pack(1, value));
}

int
format_parse(core_state *state, PyObject *value, item_format *out)
{
    enum { TEXT, SIZE, IN_BUFFERS, CODE, BITS, KEY, ARGUMENT, DECODE, ENCODE };
    PyObject *record = find_record(state, value);
    if (record == NULL) {
        return -1;
    }
    PyObject *decode = PyTuple_GET_ITEM(record, DECODE);
    *out = (item_format){
        .record = record,
        .text = PyTuple_GET_ITEM(record, TEXT),
        .key = PyTuple_GET_ITEM(record, KEY),
        .argument = PyTuple_GET_ITEM(record, ARGUMENT),
        .decode = decode == Py_None ? NULL : decode,
        .encode = PyTuple_GET_ITEM(record, ENCODE),
        .size = PyLong_AsSsize_t(PyTuple_GET_ITEM(record, SIZE)),
        .in_buffers = PyTuple_GET_ITEM(record, IN_BUFFERS) == Py_True,
        .dl_code = (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(record, CODE)),
        .dl_bits = (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(record, BITS)),
    };
    return 0;
}
