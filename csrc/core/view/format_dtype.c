/* The formats of numpy's dtypes.  numpy is asked, and never needed for a format
 * that is given as text, except for its times. */
#include "core/view/format.h"

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

/* ---- Structures ----
 *
 * numpy would spell them out itself, but for a reader that aligns the items
 * again, and without what lies behind the last field of one within another. */

static PyObject *type_words(PyObject *numpy, PyObject *dtype);

/* numpy's words for what has no parts, with its byte order before them; without
 * alignment. */
static PyObject *
scalar_words(PyObject *numpy, PyObject *dtype)
{
    PyObject *array = PyObject_CallMethod(numpy, "empty", "iO", 0, dtype);
    PyObject *view = array == NULL ? NULL : PyMemoryView_FromObject(array);
    PyObject *words = view == NULL ? NULL
                                   : PyObject_GetAttrString(view, "format");
    Py_XDECREF(array);
    Py_XDECREF(view);
    const char *text = words == NULL ? NULL : PyUnicode_AsUTF8(words);
    PyObject *result = NULL;
    if (text != NULL) {
        bool ordered = text[0] != 0 && strchr("<>=!", text[0]) != NULL;
        result = PyUnicode_FromFormat(ordered ? "%U" : "^%U", words);
    }
    Py_XDECREF(words);
    return result;
}

/* Text, bytes or nothing of no length, which numpy makes no array of. */
static PyObject *
nothing_words(PyObject *dtype)
{
    PyObject *kind = PyObject_GetAttrString(dtype, "kind");
    const char *text = kind == NULL ? NULL : PyUnicode_AsUTF8(kind);
    PyObject *result = NULL;
    if (text != NULL) {
        result = PyUnicode_FromString(text[0] == 'S'   ? "^0s"
                                      : text[0] == 'U' ? "^0w"
                                                       : "^0x");
    }
    Py_XDECREF(kind);
    return result;
}

/* part: (dtype, shape) */
static PyObject *
subarray_words(PyObject *numpy, PyObject *part)
{
    PyObject *base, *shape;
    if (!PyArg_ParseTuple(part, "OO!", &base, &PyTuple_Type, &shape)) {
        return NULL;
    }
    PyObject *words = PyUnicode_FromString("(");
    for (Py_ssize_t i = 0; words != NULL && i < PyTuple_GET_SIZE(shape);
         i++) {
        PyUnicode_AppendAndDel(
            &words, PyUnicode_FromFormat(i == 0 ? "%S" : ",%S",
                                         PyTuple_GET_ITEM(shape, i)));
    }
    PyUnicode_AppendAndDel(&words, PyUnicode_FromString(")"));
    if (words != NULL) {
        PyUnicode_AppendAndDel(&words, type_words(numpy, base));
    }
    return words;
}

static int
check_name(PyObject *dtype, PyObject *name)
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(name, &length);
    if (text != NULL && strlen(text) == (size_t)length
        && strchr(text, ':') == NULL) {
        return 0;
    }
    PyErr_Clear();
    return raise_dtype(dtype, "the name of a field must be text without "
                              "colons and zeros");
}

/* A field of dtype, and what lies before it.  *end: where the one before it
 * ends, in bytes. */
static PyObject *
field_words(PyObject *numpy, PyObject *dtype, PyObject *field, PyObject *name,
            Py_ssize_t *end)
{
    PyObject *type, *title;
    Py_ssize_t offset, size;
    if (check_name(dtype, name) < 0
        || !PyArg_ParseTuple(field, "On|O", &type, &offset, &title)
        || (size = dtype_itemsize(type)) < 0) {
        return NULL;
    }
    if (offset < *end) {
        (void)raise_dtype(dtype, "the buffer protocol has no words for fields "
                                 "that overlap, or are out of order");
        return NULL;
    }
    PyObject *words = offset > *end
                          ? PyUnicode_FromFormat("%zdx", offset - *end)
                          : PyUnicode_FromString("");
    *end = offset + size;
    if (words != NULL) {
        PyUnicode_AppendAndDel(&words, type_words(numpy, type));
    }
    PyUnicode_AppendAndDel(&words, PyUnicode_FromFormat(":%U:", name));
    return words;
}

static PyObject *
structure_words(PyObject *numpy, PyObject *dtype, PyObject *names)
{
    Py_ssize_t end = 0, size = dtype_itemsize(dtype);
    PyObject *fields = PyObject_GetAttrString(dtype, "fields");
    PyObject *words = size < 0 || fields == NULL ? NULL
                                                 : PyUnicode_FromString("T{");
    for (Py_ssize_t i = 0; words != NULL && i < PyTuple_GET_SIZE(names);
         i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *field = PyObject_GetItem(fields, name);
        PyUnicode_AppendAndDel(
            &words, field == NULL
                        ? NULL
                        : field_words(numpy, dtype, field, name, &end));
        Py_XDECREF(field);
    }
    PyUnicode_AppendAndDel(
        &words, size > end ? PyUnicode_FromFormat("%zdx}", size - end)
                           : PyUnicode_FromString("}"));
    Py_XDECREF(fields);
    return words;
}

/* Of any dtype without objects; a new reference. */
static PyObject *
type_words(PyObject *numpy, PyObject *dtype)
{
    PyObject *names = PyObject_GetAttrString(dtype, "names"), *words = NULL;
    PyObject *part = names == NULL ? NULL
                                   : PyObject_GetAttrString(dtype, "subdtype");
    Py_ssize_t size = part == NULL ? -1 : dtype_itemsize(dtype);
    if (size >= 0 && Py_EnterRecursiveCall(" in a dtype") == 0) {
        words = part != Py_None              ? subarray_words(numpy, part)
                : PyTuple_Check(names)
                          && PyTuple_GET_SIZE(names) > 0
                    ? structure_words(numpy, dtype, names)
                : size == 0                  ? nothing_words(dtype)
                                             : scalar_words(numpy, dtype);
        Py_LeaveRecursiveCall();
    }
    Py_XDECREF(part);
    Py_XDECREF(names);
    return words;
}

static int
set_structure(struct item_format *out, PyObject *numpy, PyObject *dtype,
              Py_ssize_t itemsize)
{
    out->text = type_words(numpy, dtype);
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

/* Refuse a type of another library's whose string says nothing but its size, as
 * that of ml_dtypes' int4, '|V1'.  Returns 0, or -1 with an exception. */
static int
check_void(PyObject *dtype)
{
    PyObject *kind = PyObject_GetAttrString(dtype, "kind");
    PyObject *origin = PyObject_GetAttrString(dtype, "isbuiltin");
    long registered = origin == NULL ? -1 : PyLong_AsLong(origin);
    int rc = 0;
    if (kind == NULL || registered < 0) {
        rc = -1;
    }
    else if (registered == 2            /* numpy's word for user-defined */
             && PyUnicode_CompareWithASCIIString(kind, "V") == 0) {
        rc = raise_dtype(dtype, "there are no words for its items");
    }
    Py_XDECREF(kind);
    Py_XDECREF(origin);
    return rc;
}

/* What only DLPack has is in the machine's byte order there.  Returns 0, or -1
 * with an exception. */
static int
check_order(PyObject *dtype)
{
    int native = is_true(dtype, "isnative");
    if (native == 0) {
        return raise_dtype(dtype, "there are no words for its byte order");
    }
    return native < 0 ? -1 : 0;
}

/* By its name where only DLPack has it (ml_dtypes), else by its string. */
static int
set_plain_dtype(struct item_format *out, PyObject *dtype)
{
    PyObject *text = PyObject_GetAttrString(dtype, "name");
    const char *string = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    int rc = string == NULL ? -1 : format_named(out, string, true);
    Py_XDECREF(text);
    if (rc > 0 && out->size > 1 && check_order(dtype) < 0) {
        Py_CLEAR(out->text);
        return -1;
    }
    if (rc == 0) {
        rc = check_void(dtype);
    }
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
    PyObject *dtype = numpy == NULL ? NULL  /* value may be a tuple */
                                    : PyObject_CallMethod(numpy, "dtype",
                                                          "(O)", value);
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
            if (type == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
                PyErr_Format(PyExc_ImportError,
                             "this version of ml_dtypes has no %U, a newer "
                             "one may",
                             format->text);
            }
        }
    }
    if (type != NULL) {
        dtype = PyObject_CallMethod(numpy, "dtype", "O", type);
        Py_DECREF(type);
    }
    Py_XDECREF(numpy);
    return dtype;
}
