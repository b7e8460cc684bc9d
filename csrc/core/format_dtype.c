/* The formats of numpy's dtypes.  numpy is asked, and never needed for a format
 * that is given as text, except for its times. */
#include "format.h"

#include <string.h>

bool
format_is_time(const char *text)
{
    text += strchr("<>=|", text[0]) != NULL;
    return strncmp(text, "M8", 2) == 0 || strncmp(text, "m8", 2) == 0;
}

static int
raise_dtype(PyObject *dtype, const char *rule)
{
    PyErr_Format(PyExc_ValueError, "bad format %R: %s", dtype, rule);
    return -1;
}

static Py_ssize_t
dtype_itemsize(PyObject *dtype)
{
    PyObject *value = PyObject_GetAttrString(dtype, "itemsize");
    Py_ssize_t size = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return size;
}

/* Where the last field of a structure ends, in bytes; -1 with an exception. */
static Py_ssize_t
fields_end(PyObject *dtype)
{
    Py_ssize_t end = 0;
    PyObject *fields = PyObject_GetAttrString(dtype, "fields");
    PyObject *values = fields == NULL ? NULL : PyMapping_Values(fields);
    Py_XDECREF(fields);
    for (Py_ssize_t i = 0; values != NULL && i < PyList_GET_SIZE(values);
         i++) {
        PyObject *type, *title;
        Py_ssize_t offset, size = -1;
        if (PyArg_ParseTuple(PyList_GET_ITEM(values, i), "On|O", &type,
                             &offset, &title)) {
            size = dtype_itemsize(type);
        }
        if (size < 0) {
            end = -1;
            break;
        }
        end = offset + size > end ? offset + size : end;
    }
    Py_XDECREF(values);
    return values == NULL ? -1 : end;
}

/* Copy PEP 3118's words for a structure, with ^ for @: nothing is to be aligned
 * besides what is spelt out.  to: has room for twice as much. */
static void
copy_unaligned(char *to, const char *from)
{
    bool name = false;
    for (; *from != 0; from++) {
        name ^= *from == ':';
        *to++ = !name && *from == '@' ? '^' : *from;
        if (!name && strncmp(from, "T{", 2) == 0) {
            *to++ = *++from;
            if (strchr("<>=!@^", from[1]) == NULL) {
                *to++ = '^';
            }
        }
    }
    *to = 0;
}

/* numpy spells out what lies between two fields, so that all is said; but what
 * reads that, numpy too, would align the items once more.  What lies behind the
 * last field it leaves out. */
static PyObject *
spell_out(PyObject *text, Py_ssize_t padding)
{
    Py_ssize_t length;
    const char *words = text == NULL ? NULL
                                     : PyUnicode_AsUTF8AndSize(text, &length);
    PyObject *result = NULL;
    char *copy = words == NULL ? NULL : PyMem_Malloc(2 * (size_t)length + 1);
    if (copy != NULL) {
        copy_unaligned(copy, words);
        if (padding > 0) {
            copy[strlen(copy) - 1] = 0; /* the last brace */
        }
        result = padding > 0 ? PyUnicode_FromFormat("%s%zdx}", copy, padding)
                             : PyUnicode_FromString(copy);
        PyMem_Free(copy);
    }
    else if (words != NULL) {
        PyErr_NoMemory();
    }
    Py_XDECREF(text);
    return result;
}

/* What numpy itself says of a structure to the buffer protocol. */
static int
set_structure(struct item_format *out, PyObject *numpy, PyObject *dtype,
              Py_ssize_t itemsize)
{
    PyObject *view = NULL;
    Py_ssize_t end = fields_end(dtype);
    if (end < 0) {
        return -1;
    }
    PyObject *array = PyObject_CallMethod(numpy, "empty", "iO", 0, dtype);
    if (array != NULL) {
        view = PyMemoryView_FromObject(array);
        Py_DECREF(array);
    }
    if (view == NULL) {
        return -1;
    }
    out->text = spell_out(PyObject_GetAttrString(view, "format"),
                          itemsize - end);
    Py_DECREF(view);
    out->size = itemsize;
    out->in_buffers = true;
    return out->text == NULL ? -1 : 1;
}

/* An attribute of a dtype: whether it is true; -1 with an exception. */
static int
is_true(PyObject *dtype, const char *attribute)
{
    PyObject *value = PyObject_GetAttrString(dtype, attribute);
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return truth;
}

/* By its name where only DLPack has it (ml_dtypes), else by its string. */
static int
set_plain_dtype(struct item_format *out, PyObject *dtype)
{
    PyObject *text = PyObject_GetAttrString(dtype, "name");
    const char *string = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    int rc = string == NULL ? -1 : format_named(out, string, true);
    Py_XDECREF(text);
    if (rc != 0) {
        return rc;
    }
    text = PyObject_GetAttrString(dtype, "str");
    string = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    if (string != NULL && format_is_time(string)) {
        out->size = 8;
        out->text = text;
        return 1;
    }
    rc = string == NULL ? -1 : format_text(text, out);
    Py_XDECREF(text);
    return rc;
}

/* numpy is there, or nobody could have given one of its dtypes. */
int
format_dtype(struct item_format *out, PyObject *value)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *dtype = numpy == NULL ? NULL
                                    : PyObject_CallMethod(numpy, "dtype", "O",
                                                          value);
    int rc, objects, parts, fields;
    Py_ssize_t itemsize;
    if (dtype == NULL
        || (objects = is_true(dtype, "hasobject")) < 0
        || (parts = is_true(dtype, "subdtype")) < 0
        || (fields = is_true(dtype, "names")) < 0
        || (itemsize = dtype_itemsize(dtype)) < 0) {
        rc = -1;
    }
    else if (objects) {
        rc = raise_dtype(dtype, "objects cannot be shared, only their bytes");
    }
    else if (parts) {
        rc = raise_dtype(dtype, "it has a shape of its own, which belongs "
                                "into shape");
    }
    else if (itemsize == 0) {
        rc = raise_dtype(dtype, "its items have no bytes");
    }
    else {
        rc = fields ? set_structure(out, numpy, dtype, itemsize)
                     : set_plain_dtype(out, dtype);
    }
    Py_XDECREF(dtype);
    Py_XDECREF(numpy);
    return rc;
}

PyObject *
format_extension_dtype(const struct item_format *format)
{
    PyObject *numpy = PyImport_ImportModule("numpy"), *type = NULL;
    PyObject *dtype = NULL;
    if (numpy != NULL && format->dl_bits == 0) {
        type = Py_NewRef(format->text);
    }
    else if (numpy != NULL) {
        PyObject *types = PyImport_ImportModule("ml_dtypes");
        if (types != NULL) {
            type = PyObject_GetAttr(types, format->text);
            Py_DECREF(types);
        }
    }
    if (type != NULL) {
        dtype = PyObject_CallMethod(numpy, "dtype", "O", type);
        Py_DECREF(type);
    }
    Py_XDECREF(numpy);
    return dtype;
}
