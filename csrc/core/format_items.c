/* Single items, between the memory of a view and Python. */
#include "format.h"

#include <string.h>

#include "args.h"

/* The item's bytes in the machine's order; of a complex number each half. */
static void
put_in_order(const struct item_format *format, char *to, const char *from)
{
    size_t size = (size_t)format->size;
    size_t part = format->kind == ITEM_COMPLEX ? size / 2 : size;
    if (!format->swapped) {
        memcpy(to, from, size);
        return;
    }
    for (size_t start = 0; start < size; start += part) {
        for (size_t i = 0; i < part; i++) {
            to[start + i] = from[start + part - 1 - i];
        }
    }
}

static double
read_float(const char *bytes, Py_ssize_t size)
{
    return size == 2   ? PyFloat_Unpack2(bytes, !PY_BIG_ENDIAN)
           : size == 4 ? PyFloat_Unpack4(bytes, !PY_BIG_ENDIAN)
                       : PyFloat_Unpack8(bytes, !PY_BIG_ENDIAN);
}

static int
write_float(char *bytes, Py_ssize_t size, double number)
{
    return size == 2   ? PyFloat_Pack2(number, bytes, !PY_BIG_ENDIAN)
           : size == 4 ? PyFloat_Pack4(number, bytes, !PY_BIG_ENDIAN)
                       : PyFloat_Pack8(number, bytes, !PY_BIG_ENDIAN);
}

#define READ(type, make) \
    do { \
        type number; \
        memcpy(&number, bytes, sizeof(number)); \
        result = make(number); \
    } while (0)

static PyObject *
read_int(const char *bytes, Py_ssize_t size)
{
    PyObject *result = NULL;
    switch (size) {
    case 1: READ(int8_t, PyLong_FromLong); break;
    case 2: READ(int16_t, PyLong_FromLong); break;
    case 4: READ(int32_t, PyLong_FromLong); break;
    default: READ(int64_t, PyLong_FromLongLong);
    }
    return result;
}

static PyObject *
read_uint(const char *bytes, Py_ssize_t size)
{
    PyObject *result = NULL;
    switch (size) {
    case 1: READ(uint8_t, PyLong_FromUnsignedLong); break;
    case 2: READ(uint16_t, PyLong_FromUnsignedLong); break;
    case 4: READ(uint32_t, PyLong_FromUnsignedLong); break;
    default: READ(uint64_t, PyLong_FromUnsignedLongLong);
    }
    return result;
}

/* A single value as itself, several as a tuple. */
static PyObject *
unpack(const struct item_format *format, const char *item)
{
    PyObject *module = PyImport_ImportModule("struct");
    if (module == NULL) {
        return NULL;
    }
    PyObject *values = PyObject_CallMethod(module, "unpack", "Oy#",
                                           format->text, item, format->size);
    Py_DECREF(module);
    if (values != NULL && PyTuple_Check(values)
        && PyTuple_GET_SIZE(values) == 1) {
        PyObject *value = Py_NewRef(PyTuple_GET_ITEM(values, 0));
        Py_DECREF(values);
        return value;
    }
    return values;
}

static void
raise_opaque(const struct item_format *format)
{
    PyErr_Format(PyExc_NotImplementedError,
                 "single items of format %R cannot be read or written here; "
                 "take .numpy()",
                 format->text);
}

PyObject *
format_get(const struct item_format *format, const char *item)
{
    char bytes[16];
    if (format->kind == ITEM_OPAQUE) {
        raise_opaque(format);
        return NULL;
    }
    if (format->kind == ITEM_STRUCT) {
        return unpack(format, item);
    }
    put_in_order(format, bytes, item);
    switch (format->kind) {
    case ITEM_INT:
        return read_int(bytes, format->size);
    case ITEM_UINT:
        return read_uint(bytes, format->size);
    case ITEM_BOOL:
        return PyBool_FromLong(bytes[0] != 0);
    case ITEM_FLOAT:
        return PyFloat_FromDouble(read_float(bytes, format->size));
    default:
        return PyComplex_FromDoubles(
            read_float(bytes, format->size / 2),
            read_float(bytes + format->size / 2, format->size / 2));
    }
}

/* ---- The other way ---- */

/* The low bytes of a number, in the machine's order. */
static void
write_whole(char *bytes, Py_ssize_t size, unsigned long long number)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        bytes[PY_BIG_ENDIAN ? size - 1 - i : i] = (char)(number >> (8 * i));
    }
}

static int
raise_range(const struct item_format *format, PyObject *value)
{
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "an item of format %R cannot be %R",
                 format->text, value);
    return -1;
}

static int
pack_whole(const struct item_format *format, char *bytes, PyObject *value)
{
    unsigned bits = (unsigned)format->size * 8;
    if (format->kind == ITEM_INT || bits < 64) {
        long long number, most = format->kind == ITEM_INT
                                     ? (long long)(~0ULL >> (65 - bits))
                                     : (long long)(~0ULL >> (64 - bits));
        long long least = format->kind == ITEM_INT ? -most - 1 : 0;
        if (arg_long(value, "an item", least, most, &number) < 0) {
            return -1;
        }
        write_whole(bytes, format->size, (unsigned long long)number);
        return 0;
    }
    PyObject *whole = PyBool_Check(value) ? NULL : PyNumber_Index(value);
    if (whole == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError,
                            "an item must be an int, not bool");
        }
        return -1;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(whole);
    if (number == ~0ULL && PyErr_Occurred()) {
        Py_DECREF(whole);
        return PyErr_ExceptionMatches(PyExc_OverflowError)
                   ? raise_range(format, value)
                   : -1;
    }
    Py_DECREF(whole);
    write_whole(bytes, format->size, number);
    return 0;
}

static int
pack_float(const struct item_format *format, char *bytes, PyObject *value)
{
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
        || write_float(bytes, size, number.real) < 0
        || (format->kind == ITEM_COMPLEX
            && write_float(bytes + size, size, number.imag) < 0)) {
        return PyErr_ExceptionMatches(PyExc_OverflowError)
                   ? raise_range(format, value)
                   : -1;
    }
    return 0;
}

static int
pack(const struct item_format *format, char *item, PyObject *value)
{
    PyObject *module = PyImport_ImportModule("struct");
    PyObject *function = module == NULL ? NULL
                                        : PyObject_GetAttrString(module,
                                                                 "pack");
    PyObject *first = NULL, *packed = NULL;
    Py_XDECREF(module);
    if (function != NULL) {
        first = PyTuple_Check(value)
                    ? PyTuple_Pack(1, format->text)
                    : PyTuple_Pack(2, format->text, value);
    }
    if (first != NULL && PyTuple_Check(value)) {
        Py_SETREF(first, PySequence_Concat(first, value));
    }
    if (first != NULL) {
        packed = PyObject_CallObject(function, first);
        Py_DECREF(first);
    }
    Py_XDECREF(function);
    if (packed == NULL) {
        return PyErr_ExceptionMatches(PyExc_Exception)
                       && !PyErr_ExceptionMatches(PyExc_MemoryError)
                   ? raise_range(format, value)
                   : -1;
    }
    if (!PyBytes_Check(packed) || PyBytes_GET_SIZE(packed) != format->size) {
        PyErr_Format(PyExc_TypeError,
                     "struct.pack of format %R must return %zd bytes, not %R",
                     format->text, format->size, packed);
        Py_DECREF(packed);
        return -1;
    }
    memcpy(item, PyBytes_AS_STRING(packed), (size_t)format->size);
    Py_DECREF(packed);
    return 0;
}

int
format_set(const struct item_format *format, char *item, PyObject *value)
{
    char bytes[16];
    int rc;
    switch (format->kind) {
    case ITEM_OPAQUE:
        raise_opaque(format);
        return -1;
    case ITEM_STRUCT:
        return pack(format, item, value);
    case ITEM_BOOL:
        rc = PyObject_IsTrue(value);
        bytes[0] = (char)(rc > 0);
        break;
    case ITEM_INT:
    case ITEM_UINT:
        rc = pack_whole(format, bytes, value);
        break;
    default:
        rc = pack_float(format, bytes, value);
    }
    if (rc < 0) {
        return -1;
    }
    put_in_order(format, item, bytes);
    return 0;
}
