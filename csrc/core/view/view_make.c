/* Making views: what was asked for, and whether it lies in the memory. */
#include "core/view/view.h"

#include "core/args.h"

typedef struct {
    int ndim;
    Py_ssize_t shape[PSHM_MAX_DIMENSIONS];      /* items */
    Py_ssize_t strides[PSHM_MAX_DIMENSIONS];    /* bytes */
} dimensions;

/* ---- Arguments ---- */

static int
parse_number(PyObject *value, const char *what, long long least,
             Py_ssize_t *out)
{
    long long number;
    if (arg_long(value, what, least, PY_SSIZE_T_MAX, &number) < 0) {
        return -1;
    }
    *out = (Py_ssize_t)number;
    return 0;
}

/* A sequence of numbers; returns how many, or -1.  what: a singular. */
static int
parse_numbers(PyObject *value, const char *what, long long least,
              Py_ssize_t *numbers)
{
    PyObject *items = NULL;
    if (PyUnicode_Check(value)
        || (items = PySequence_Tuple(value)) == NULL) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError)) {
            return -1;
        }
        PyErr_Format(PyExc_TypeError, "%s must be a tuple of ints, not %.200s",
                     what, Py_TYPE(value)->tp_name);
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    int rc = 0;
    if (count > PSHM_MAX_DIMENSIONS) {
        PyErr_Format(PyExc_ValueError, "%s has %zd dimensions; at most %d are "
                                       "possible",
                     what, count, PSHM_MAX_DIMENSIONS);
        rc = -1;
    }
    for (Py_ssize_t i = 0; i < count && rc == 0; i++) {
        rc = parse_number(PyTuple_GET_ITEM(items, i), what, least,
                          &numbers[i]);
    }
    Py_DECREF(items);
    return rc < 0 ? -1 : (int)count;
}

static int
parse_shape(PyObject *value, dimensions *out)
{
    if (PyIndex_Check(value) && !PySequence_Check(value)) {
        out->ndim = 1;
        return parse_number(value, "shape", 0, &out->shape[0]);
    }
    out->ndim = parse_numbers(value, "shape", 0, out->shape);
    return out->ndim < 0 ? -1 : 0;
}

static int
parse_strides(PyObject *value, dimensions *out)
{
    int count = parse_numbers(value, "strides", -PY_SSIZE_T_MAX,
                              out->strides);
    if (count >= 0 && count != out->ndim) {
        PyErr_Format(PyExc_ValueError,
                     "strides has %d dimensions and shape has %d", count,
                     out->ndim);
        return -1;
    }
    return count < 0 ? -1 : 0;
}

/* ---- Sizes ---- */

/* A dimension without items counts as 1, as with numpy, so that no stride is
 * too large either. */
static int
check_bytes(const dimensions *d, Py_ssize_t itemsize)
{
    Py_ssize_t bytes = itemsize;
    for (int i = 0; i < d->ndim; i++) {
        Py_ssize_t items = d->shape[i] > 0 ? d->shape[i] : 1;
        if (__builtin_mul_overflow(bytes, items, &bytes)) {
            PyErr_Format(PyExc_ValueError,
                         "shape is too large: with items of %zd bytes it has "
                         "2**63 bytes or more",
                         itemsize);
            return -1;
        }
    }
    return 0;
}

static bool
has_items(const dimensions *d)
{
    for (int i = 0; i < d->ndim; i++) {
        if (d->shape[i] == 0) {
            return false;
        }
    }
    return true;
}

static void
fill_c_order(dimensions *d, Py_ssize_t itemsize)
{
    Py_ssize_t stride = itemsize;
    for (int i = d->ndim - 1; i >= 0; i--) {
        d->strides[i] = stride;
        stride *= d->shape[i] > 0 ? d->shape[i] : 1;
    }
}

/* How far the array reaches before and past its first item, in bytes. */
static int
find_reach(const dimensions *d, Py_ssize_t itemsize, Py_ssize_t *before,
           Py_ssize_t *past)
{
    *before = 0;
    *past = has_items(d) ? itemsize : 0;
    for (int i = 0; i < d->ndim && *past > 0; i++) {
        Py_ssize_t *side = d->strides[i] < 0 ? before : past;
        Py_ssize_t step = d->strides[i] < 0 ? -d->strides[i] : d->strides[i];
        Py_ssize_t length;
        if (__builtin_mul_overflow(step, d->shape[i] - 1, &length)
            || __builtin_add_overflow(*side, length, side)) {
            PyErr_SetString(PyExc_ValueError,
                            "shape and strides reach 2**63 bytes or more");
            return -1;
        }
    }
    return 0;
}

static int
check_range(const dimensions *d, Py_ssize_t itemsize, Py_ssize_t offset,
            Py_ssize_t size)
{
    Py_ssize_t before, past;
    if (find_reach(d, itemsize, &before, &past) < 0) {
        return -1;
    }
    if (before > offset) {
        PyErr_Format(PyExc_ValueError,
                     "shape and strides reach %zd bytes before offset %zd",
                     before, offset);
        return -1;
    }
    if (offset > size || past > size - offset) {
        PyErr_Format(PyExc_ValueError,
                     "offset %zd and a reach of %zd bytes lie past the end of "
                     "the memory, which has %zd bytes",
                     offset, past, size);
        return -1;
    }
    return 0;
}

/* ---- The two ways ---- */

static PyObject *
finish(MemoryMapObject *map, const struct view_origin *origin, char *data,
       const struct item_format *format, const dimensions *d, bool readonly)
{
    struct pshm_layout layout = {d->ndim, d->shape, d->strides, format->size};
    return view_new(core_state_of_type(Py_TYPE(map)), map, origin, data,
                    format, &layout, readonly);
}

/* shape None: all items that fit, in one dimension. */
static void
fit_shape(Py_ssize_t size, Py_ssize_t offset, Py_ssize_t itemsize,
          dimensions *d)
{
    d->ndim = 1;
    d->shape[0] = offset < size ? (size - offset) / itemsize : 0;
}

static bool
is_given(PyObject *value)
{
    return value != NULL && value != Py_None;
}

static PyObject *
make_at(MemoryMapObject *map, const struct view_origin *origin,
        const struct item_format *format, PyObject **values)
{
    dimensions d;
    Py_ssize_t offset = 0;
    bool readonly = false;
    bool has_shape = is_given(values[1]), has_strides = is_given(values[3]);
    if ((values[2] != NULL && arg_offset(values[2], "offset", &offset) < 0)
        || arg_bool(values[4], &readonly) < 0
        || (has_shape && parse_shape(values[1], &d) < 0)) {
        return NULL;
    }
    Py_ssize_t size = mapping_size(map);
    if (!has_shape) {
        if (has_strides) {
            PyErr_SetString(PyExc_ValueError,
                            "strides must come with a shape");
            return NULL;
        }
        fit_shape(size, offset, format->size, &d);
    }
    if (check_bytes(&d, format->size) < 0) {
        return NULL;
    }
    if (has_strides && parse_strides(values[3], &d) < 0) {
        return NULL;
    }
    if (!has_strides || !has_items(&d)) {
        fill_c_order(&d, format->size); /* without items they mean nothing */
    }
    if (check_range(&d, format->size, offset, mapping_size(map)) < 0
        || mapping_grant(map, &readonly) < 0) {
        return NULL;
    }
    return finish(map, origin, map->base + offset, format, &d, readonly);
}

const char view_of_mapping_doc[] =
    "view($self, /, format='B', shape=None, offset=0, strides=None,\n"
    "     readonly=False)\n--\n\n"
    "A View: this memory as an array, without a copy: PEP 3118.\n\n"
    "format: of the struct module ('f', '<hh'), a numpy dtype or its string\n"
    "('<f4', 'float32', 'S5', complex, structured), or what DLPack has besides\n"
    "('bfloat16', 'float8_e4m3fn', ...); once numpy is imported, every str that\n"
    "numpy.dtype() takes ('double', 'i4,f8').  What both read, as 'p' and '3i',\n"
    "has the struct module's meaning.  shape: items, an int or a tuple; None:\n"
    "as many as fit, in one dimension.  offset: bytes, of the item whose\n"
    "indexes are all 0.  strides: bytes, of either sign or 0, a tuple; None: in\n"
    "C order.  readonly: for its consumers; always so where the memory is.\n\n"
    "Raises ValueError for a bad format, a range outside the memory, 2**63\n"
    "bytes or more, over 64 dimensions; BufferError where it is PROT_NONE.";

PyObject *
view_make(MemoryMapObject *map, const struct view_origin *origin,
          PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"format",  "shape",    "offset",
                                        "strides", "readonly", NULL};
    static const struct signature signature = {"view", 5, 0, names};
    struct item_format format;
    PyObject *values[5], *result = NULL;
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    PyObject *text = values[0] != NULL ? Py_NewRef(values[0])
                                       : PyUnicode_FromString("B");
    if (text != NULL && format_parse(text, &format) == 0) {
        result = make_at(map, origin, &format, values);
        Py_DECREF(format.text);
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

static PyObject *
make_cast(ViewObject *self, const struct item_format *format, PyObject *shape)
{
    struct pshm_layout layout = view_layout(self);
    dimensions d;
    if (!pshm_layout_is_contiguous(&layout, 'C')) {
        PyErr_SetString(PyExc_ValueError,
                        "only a view that is contiguous in C order can be "
                        "cast; .tobytes() makes a copy");
        return NULL;
    }
    if (is_given(shape)) {
        if (parse_shape(shape, &d) < 0) {
            return NULL;
        }
    }
    else {
        if (self->nbytes % format->size != 0) {
            PyErr_Format(PyExc_ValueError,
                         "%zd bytes are no whole number of items of %zd bytes",
                         self->nbytes, format->size);
            return NULL;
        }
        fit_shape(self->nbytes, 0, format->size, &d);
    }
    if (check_bytes(&d, format->size) < 0) {
        return NULL;
    }
    fill_c_order(&d, format->size);
    layout = (struct pshm_layout){d.ndim, d.shape, d.strides, format->size};
    if (pshm_layout_items(&layout) * format->size != self->nbytes) {
        PyErr_Format(PyExc_ValueError,
                     "shape has %zd bytes, and the view has %zd",
                     pshm_layout_items(&layout) * format->size, self->nbytes);
        return NULL;
    }
    return finish(self->map, &self->origin, self->data, format, &d,
                  self->readonly);
}

const char view_cast_doc[] =
    "cast($self, /, format, shape=None)\n--\n\n"
    "The same bytes with another format and shape, without a copy: PEP 3118.\n\n"
    "format: as for view().  shape: items, an int or a tuple; None: one\n"
    "dimension.  Raises ValueError if the view is not contiguous in C order,\n"
    "or if the shape has more bytes or fewer.";

PyObject *
view_cast(PyObject *op, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    static const char *const names[] = {"format", "shape", NULL};
    static const struct signature signature = {"cast", 2, 1, names};
    struct item_format format;
    PyObject *values[2];
    if (args_match(&signature, args, count, kwnames, values) < 0
        || format_parse(values[0], &format) < 0) {
        return NULL;
    }
    PyObject *result = make_cast(as_view(op), &format, values[1]);
    Py_DECREF(format.text);
    return result;
}
