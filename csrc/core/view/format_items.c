/* Single items that a memoryview cannot read, between memory and Python: floats
 * in another byte order, complex numbers, text of 4 bytes a character, and what
 * the struct module has. */
#include "core/view/format.h"

#include <string.h>

#include "core/args.h"

static PyObject *
raise_opaque(const struct item_format *format)
{
    return PyErr_Format(PyExc_NotImplementedError,
                        "single items of format %R cannot be read or written "
                        "here; take .numpy()",
                        format->text);
}

static int
raise_value(const struct item_format *format, PyObject *value)
{
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "an item of format %R cannot be %R",
                 format->text, value);
    return -1;
}

/* Is the least significant byte of an item the first one? */
static bool
is_little_endian(const struct item_format *format)
{
    return format->swapped == PY_BIG_ENDIAN;
}

/* size: of the float; a complex number has two of them. */
static double
read_float(const char *bytes, Py_ssize_t size, int little)
{
    return size == 2   ? PyFloat_Unpack2(bytes, little)
           : size == 4 ? PyFloat_Unpack4(bytes, little)
                       : PyFloat_Unpack8(bytes, little);
}

static int
write_float(char *bytes, Py_ssize_t size, int little, double number)
{
    return size == 2   ? PyFloat_Pack2(number, bytes, little)
           : size == 4 ? PyFloat_Pack4(number, bytes, little)
                       : PyFloat_Pack8(number, bytes, little);
}

/* ---- Reading ---- */

/* A single value as itself, several as a tuple. */
static PyObject *
unpack(core_state *state, const struct item_format *format, PyObject *bytes)
{
    PyObject *function = core_find(state, &state->unpack, "struct", "unpack");
    if (function == NULL) {
        return NULL;
    }
    PyObject *args[] = {format->text, bytes};
    PyObject *values = PyObject_Vectorcall(function, args, 2, NULL);
    Py_DECREF(function);
    if (values != NULL && PyTuple_CheckExact(values)
        && PyTuple_GET_SIZE(values) == 1) {
        Py_SETREF(values, Py_NewRef(PyTuple_GET_ITEM(values, 0)));
    }
    return values;
}

/* Without the zeros at its end, as numpy has it. */
static PyObject *
get_text(const struct item_format *format, PyObject *bytes)
{
    int order = is_little_endian(format) ? -1 : 1;
    PyObject *text = PyUnicode_DecodeUTF32(PyBytes_AS_STRING(bytes),
                                           format->size, "surrogatepass",
                                           &order);
    if (text == NULL) {
        return NULL;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    while (length > 0 && PyUnicode_READ_CHAR(text, length - 1) == 0) {
        length--;
    }
    PyObject *result = PyUnicode_Substring(text, 0, length);
    Py_DECREF(text);
    return result;
}

PyObject *
format_get(core_state *state, const struct item_format *format,
           const char *item)
{
    int little = is_little_endian(format);
    Py_ssize_t half = format->size / 2;
    switch (format->kind) {
    case ITEM_OPAQUE:
        return raise_opaque(format);
    case ITEM_FLOAT:
        return PyFloat_FromDouble(read_float(item, format->size, little));
    case ITEM_COMPLEX:
        return PyComplex_FromDoubles(read_float(item, half, little),
                                     read_float(item + half, half, little));
    default:
        break;
    }
    /* A copy, which another process cannot change meanwhile. */
    PyObject *bytes = PyBytes_FromStringAndSize(item, format->size);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *value = format->kind == ITEM_TEXT
                          ? get_text(format, bytes)
                          : unpack(state, format, bytes);
    Py_DECREF(bytes);
    return value;
}

/* ---- Writing ---- */

/* The bytes of one or two floats, written as a whole. */
static int
set_float(const struct item_format *format, char *item, PyObject *value)
{
    char bytes[16];
    int little = is_little_endian(format);
    Py_complex number = {0};
    Py_ssize_t size = format->size;
    if (format->kind == ITEM_FLOAT) {
        number.real = PyFloat_AsDouble(value);
    }
    else {
        number = PyComplex_AsCComplex(value);
        size /= 2;
    }
    if ((number.real == -1.0 && PyErr_Occurred())
        || write_float(bytes, size, little, number.real) < 0
        || (format->kind == ITEM_COMPLEX
            && write_float(bytes + size, size, little, number.imag) < 0)) {
        return PyErr_ExceptionMatches(PyExc_OverflowError)
                   ? raise_value(format, value)
                   : -1;
    }
    memcpy(item, bytes, (size_t)format->size);
    return 0;
}

/* value: of several values a tuple. */
static PyObject *
pack(core_state *state, const struct item_format *format, PyObject *value)
{
    PyObject *function = core_find(state, &state->pack, "struct", "pack");
    PyObject *words = PyTuple_Check(value) ? PyTuple_Pack(1, format->text)
                                           : PyTuple_Pack(2, format->text,
                                                          value);
    if (words != NULL && PyTuple_Check(value)) {
        Py_SETREF(words, PySequence_Concat(words, value));
    }
    PyObject *packed = function == NULL || words == NULL
                           ? NULL
                           : PyObject_CallObject(function, words);
    Py_XDECREF(function);
    Py_XDECREF(words);
    if (packed == NULL) {
        if (PyErr_ExceptionMatches(PyExc_Exception)
            && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
            raise_value(format, value);
        }
    }
    else if (!PyBytes_Check(packed)
             || PyBytes_GET_SIZE(packed) != format->size) {
        PyErr_Format(PyExc_TypeError,
                     "struct.pack of format %R must return %zd bytes, not %R",
                     format->text, format->size, packed);
        Py_CLEAR(packed);
    }
    return packed;
}

static PyObject *
encode(const struct item_format *format, PyObject *value)
{
    if (!PyUnicode_Check(value)) {
        return PyErr_Format(PyExc_TypeError,
                            "an item of format %R must be a str, not %.200s",
                            format->text, Py_TYPE(value)->tp_name);
    }
    if (PyUnicode_GET_LENGTH(value) > format->size / 4) {
        raise_value(format, value);
        return NULL;
    }
    return PyUnicode_AsEncodedString(value,
                                     is_little_endian(format) ? "utf-32-le"
                                                              : "utf-32-be",
                                     "surrogatepass");
}

int
format_set(core_state *state, const struct item_format *format, char *item,
           PyObject *value)
{
    if (format->kind == ITEM_OPAQUE) {
        (void)raise_opaque(format);
        return -1;
    }
    if (format->kind == ITEM_FLOAT || format->kind == ITEM_COMPLEX) {
        return set_float(format, item, value);
    }
    PyObject *bytes = format->kind == ITEM_TEXT ? encode(format, value)
                                                : pack(state, format, value);
    if (bytes == NULL) {
        return -1;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    memcpy(item, PyBytes_AS_STRING(bytes), (size_t)size);
    memset(item + size, 0, (size_t)(format->size - size));
    Py_DECREF(bytes);
    return 0;
}
