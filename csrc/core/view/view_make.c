/* New views: the arguments of view() and cast(), and whether the items lie
 * within the memory. */
#include "core/view/view.h"

#include <string.h>

#include "core/args.h"

/* ---- Shapes and strides ---- */

/* Parse a sequence of numbers, one for each dimension; for a shape, whose
 * numbers are at least 0, also a single number.  Returns how many, or -1 with
 * an exception. */
static int
parse_numbers(PyObject *value, const char *name, long long least,
              Py_ssize_t *numbers)
{
    bool single = least == 0 && PyIndex_Check(value)
                  && !PySequence_Check(value);
    PyObject *items = single                   ? PyTuple_Pack(1, value)
                      : PyUnicode_Check(value) ? NULL
                                               : PySequence_Tuple(value);
    if (items == NULL) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError,
                         "%s must be a tuple of ints, not %.200s", name,
                         Py_TYPE(value)->tp_name);
        }
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    int rc = 0;
    if (count > PyBUF_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError,
                     "%s must have at most %d dimensions, not %zd", name,
                     PyBUF_MAX_NDIM, count);
        rc = -1;
    }
    for (Py_ssize_t i = 0; i < count && rc == 0; i++) {
        long long number = 0;
        rc = arg_long(PyTuple_GET_ITEM(items, i), name, least, PY_SSIZE_T_MAX,
                      &number);
        numbers[i] = (Py_ssize_t)number;
    }
    Py_DECREF(items);
    return rc < 0 ? -1 : (int)count;
}

/* Set the strides of C order.  As in numpy, a dimension without items counts
 * as 1, so that no stride overflows either. */
static int
set_c_order(item_range *range, Py_ssize_t itemsize)
{
    Py_ssize_t bytes = itemsize;
    for (int i = range->ndim - 1; i >= 0; i--) {
        Py_ssize_t items = range->shape[i] > 0 ? range->shape[i] : 1;
        range->strides[i] = bytes;
        if (__builtin_mul_overflow(bytes, items, &bytes)) {
            PyErr_Format(PyExc_ValueError,
                         "shape is too large: with items of %zd bytes it must "
                         "have less than 2**63 bytes",
                         itemsize);
            return -1;
        }
    }
    return 0;
}

/* Parse a shape, by default one dimension with as many items as fit into size
 * bytes, and set the strides of C order. */
static int
parse_shape(PyObject *value, Py_ssize_t size, Py_ssize_t itemsize,
            item_range *out)
{
    out->ndim = 1;
    out->shape[0] = size > 0 ? size / itemsize : 0;
    if (arg_given(value)) {
        out->ndim = parse_numbers(value, "shape", 0, out->shape);
    }
    return out->ndim < 0 ? -1 : set_c_order(out, itemsize);
}

/* If there are no items, the strides remain those of C order. */
static int
parse_strides(PyObject *value, Py_ssize_t itemsize, item_range *out)
{
    Py_ssize_t strides[PyBUF_MAX_NDIM];
    int count = parse_numbers(value, "strides", -PY_SSIZE_T_MAX, strides);
    if (count >= 0 && count != out->ndim) {
        PyErr_Format(PyExc_ValueError,
                     "strides and shape must have the same number of "
                     "dimensions; strides has %d, shape has %d",
                     count, out->ndim);
        return -1;
    }
    if (count > 0 && range_bytes(out, itemsize) > 0) {
        memcpy(out->strides, strides, (size_t)count * sizeof(*strides));
    }
    return count < 0 ? -1 : 0;
}

/* Find how many bytes the items extend before and after the start of the item
 * with all indexes 0, and check that all of them lie within size bytes. */
static int
check_extent(const item_range *range, Py_ssize_t itemsize, Py_ssize_t offset,
             Py_ssize_t size)
{
    Py_ssize_t before = 0;
    Py_ssize_t after = range_bytes(range, itemsize) > 0 ? itemsize : 0;
    for (int i = 0; i < range->ndim && after > 0; i++) {
        Py_ssize_t stride = range->strides[i], length;
        Py_ssize_t *direction = stride < 0 ? &before : &after;
        if (__builtin_mul_overflow(stride < 0 ? -stride : stride,
                                   range->shape[i] - 1, &length)
            || __builtin_add_overflow(*direction, length, direction)) {
            PyErr_SetString(PyExc_ValueError,
                            "shape and strides must extend over less than "
                            "2**63 bytes");
            return -1;
        }
    }
    if (before > offset) {
        PyErr_Format(PyExc_ValueError,
                     "shape and strides extend %zd bytes before offset %zd, "
                     "which is before the start of the memory",
                     before, offset);
        return -1;
    }
    if (offset > size || after > size - offset) {
        PyErr_Format(PyExc_ValueError,
                     "a view of %zd bytes at offset %zd extends past the end "
                     "of the memory, which has %zd bytes",
                     after, offset, size);
        return -1;
    }
    return 0;
}

/* ---- view() ---- */

/* values: those of format, shape, offset, strides and readonly. */
static PyObject *
make_view(MemoryMapObject *map, const struct view_origin *origin,
          const item_format *format, PyObject **values)
{
    item_range range;
    Py_ssize_t offset = 0, size = mapping_size(map);
    bool readonly = false;
    if ((values[2] != NULL && arg_offset(values[2], "offset", &offset) < 0)
        || arg_bool(values[4], &readonly) < 0) {
        return NULL;
    }
    if (!arg_given(values[1]) && arg_given(values[3])) {
        PyErr_SetString(PyExc_ValueError,
                        "strides must be passed together with shape");
        return NULL;
    }
    if (parse_shape(values[1], size - offset, format->size, &range) < 0
        || (arg_given(values[3])
            && parse_strides(values[3], format->size, &range) < 0)
        || check_extent(&range, format->size, offset, size) < 0
        || mapping_grant(map, &readonly) < 0) {
        return NULL;
    }
    range.data = map->base + offset;
    return view_new(core_state_of_type(Py_TYPE(map)), map, origin, format,
                    &range, readonly);
}

const char view_of_mapping_doc[] =
    "view($self, /, format='B', shape=None, offset=0, strides=None,\n"
    "     readonly=False)\n--\n\n"
    "Return a View, an array of this memory, without copying: PEP 3118.\n\n"
    "format: a format of the struct module ('f', '<hh'); a numpy dtype or its\n"
    "str ('<f4', 'float32', 'S5'); or a type that only DLPack has\n"
    "('bfloat16', 'float8_e4m3fn').  Once numpy is imported, also any other\n"
    "str that numpy.dtype() takes ('double', 'i4,f8').  A str that both have,\n"
    "for example 'p' or '3i', has the meaning of the struct module.\n"
    "shape: items, an int or a tuple of ints; None: one dimension with as\n"
    "many items as fit.\n"
    "offset: bytes from the start of the memory to the item with all indexes\n"
    "0.\n"
    "strides: bytes from an item to the next in each dimension, a tuple of\n"
    "ints that may be negative or 0; None: C order.\n"
    "readonly: make the view read-only; it always is if the memory is.\n\n"
    "Raises ValueError if the format is unknown, if the items do not lie\n"
    "within the memory, and if there are more than 64 dimensions; TypeError\n"
    "for an argument of another type; BufferError if the memory is PROT_NONE.";

PyObject *
view_make(MemoryMapObject *map, const struct view_origin *origin,
          PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"format",  "shape",    "offset",
                                        "strides", "readonly", NULL};
    static const struct signature signature = {"view", 5, 0, names};
    core_state *state = core_state_of_type(Py_TYPE(map));
    item_format format;
    PyObject *values[5], *result = NULL;
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    PyObject *text = values[0] != NULL ? Py_NewRef(values[0])
                                       : PyUnicode_FromString("B");
    if (text != NULL && format_parse(state, text, &format) == 0) {
        result = make_view(map, origin, &format, values);
        Py_DECREF(format.record);
    }
    Py_XDECREF(text);
    return result;
}

PyObject *
view_of_mapping(PyObject *op, PyObject *const *args, Py_ssize_t count,
                PyObject *kwnames)
{
    const struct view_origin origin = {0};
    return view_make((MemoryMapObject *)op, &origin, args, count, kwnames);
}

/* ---- cast() ---- */

static PyObject *
make_cast(ViewObject *self, const item_format *format, PyObject *shape)
{
    Py_buffer items = view_buffer(self);
    item_range range = {.data = self->data};
    if (!PyBuffer_IsContiguous(&items, 'C')) {
        PyErr_SetString(PyExc_ValueError,
                        "cannot cast a View that is not contiguous in C "
                        "order; .tobytes() makes a copy that is");
        return NULL;
    }
    if (parse_shape(shape, self->nbytes, format->size, &range) < 0) {
        return NULL;
    }
    Py_ssize_t bytes = range_bytes(&range, format->size);
    if (bytes != self->nbytes) {
        PyErr_Format(PyExc_ValueError,
                     "cannot cast a View of %zd bytes to items of %zd bytes "
                     "that have %zd bytes together: the number of bytes must "
                     "not change",
                     self->nbytes, format->size, bytes);
        return NULL;
    }
    return view_new(core_state_of_type(Py_TYPE(self)), self->map,
                    &self->origin, format, &range, self->readonly);
}

const char view_cast_doc[] =
    "cast($self, /, format, shape=None)\n--\n\n"
    "Return a View of the same bytes in another format: PEP 3118.\n\n"
    "format: as for view().\n"
    "shape: items, an int or a tuple of ints; None: one dimension.\n\n"
    "Raises ValueError if the view is not contiguous in C order, if the\n"
    "number of bytes would change, and if the format is unknown.";

PyObject *
view_cast(PyObject *op, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    static const char *const names[] = {"format", "shape", NULL};
    static const struct signature signature = {"cast", 2, 1, names};
    core_state *state = core_state_of_type(Py_TYPE(op));
    item_format format;
    PyObject *values[2];
    if (args_match(&signature, args, count, kwnames, values) < 0
        || format_parse(state, values[0], &format) < 0) {
        return NULL;
    }
    PyObject *result = make_cast(as_view(op), &format, values[1]);
    Py_DECREF(format.record);
    return result;
}
