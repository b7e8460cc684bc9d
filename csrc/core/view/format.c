#include "core/view/format.h"

#define FORMATS "posixshm._format"

/* The format of text that parse() has seen before; a new reference, or NULL
 * with KeyError or another exception. */
static PyObject *
find_known(core_state *state, PyObject *text)
{
    PyObject *known = core_find(state, &state->known_formats, FORMATS,
                                "known");
    PyObject *record = known == NULL ? NULL : PyObject_GetItem(known, text);
    Py_XDECREF(known);
    return record;
}

static PyObject *
find_record(core_state *state, PyObject *value)
{
    if (PyUnicode_CheckExact(value)) {
        PyObject *record = find_known(state, value);
        if (record != NULL || !PyErr_ExceptionMatches(PyExc_KeyError)) {
            return record;
        }
        PyErr_Clear();
    }
    return format_call(state, &state->parse_format, FORMATS, "parse",
                       PyTuple_Pack(1, value));
}

/* Set the members that record owns.  Returns 0, or -1 with an exception. */
static int
unpack_record(PyObject *record, item_format *out)
{
    enum { TEXT, SIZE, IN_BUFFERS, CODE, BITS, KEY, ARGUMENT, DECODE, ENCODE,
           MEMBERS };
    if (!PyTuple_CheckExact(record) || PyTuple_GET_SIZE(record) != MEMBERS
        || !PyUnicode_Check(PyTuple_GET_ITEM(record, TEXT))) {
        PyErr_Format(PyExc_TypeError, FORMATS ".parse() must return a tuple "
                                              "of %d items, not %R",
                     MEMBERS, record);
        return -1;
    }
    *out = (item_format){
        .record = record,
        .text = PyTuple_GET_ITEM(record, TEXT),
        .key = PyTuple_GET_ITEM(record, KEY),
        .argument = PyTuple_GET_ITEM(record, ARGUMENT),
        .decode = PyTuple_GET_ITEM(record, DECODE),
        .encode = PyTuple_GET_ITEM(record, ENCODE),
        .size = PyLong_AsSsize_t(PyTuple_GET_ITEM(record, SIZE)),
        .in_buffers = PyTuple_GET_ITEM(record, IN_BUFFERS) == Py_True,
        .dl_code = (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(record, CODE)),
        .dl_bits = (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(record, BITS)),
    };
    if (out->decode == Py_None) {
        out->decode = NULL;
    }
    if (out->size <= 0 && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError,
                     "bad format %R: an item must have at least one byte",
                     out->text);
    }
    return PyErr_Occurred() ? -1 : 0;
}

int
format_parse(core_state *state, PyObject *value, item_format *out)
{
    PyObject *record = find_record(state, value);
    if (record != NULL && unpack_record(record, out) < 0) {
        Py_CLEAR(record);
    }
    return record == NULL ? -1 : 0;
}

PyObject *
format_call(core_state *state, PyObject **slot, const char *module,
            const char *function, PyObject *args)
{
    PyObject *found = args == NULL
                          ? NULL
                          : core_find(state, slot, module, function);
    PyObject *result = found == NULL ? NULL : PyObject_CallObject(found, args);
    if (result == NULL && !PyErr_Occurred()) {
        /* CPython 3.11 does not set an exception if it cannot allocate the
         * frame of a Python function. */
        (void)PyErr_NoMemory();
    }
    Py_XDECREF(found);
    Py_XDECREF(args);
    return result;
}
