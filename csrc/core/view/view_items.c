/* Items and ranges of a view: indexing, assignment, lists and bytes. */
#include "core/view/view.h"

#include <math.h>
#include <string.h>

/* ---- Indexes ---- */

/* What an index leaves of a view; of the arrays the first ndim are set. */
typedef struct {
    char *data;
    int ndim;
    Py_ssize_t shape[PSHM_MAX_DIMENSIONS];
    Py_ssize_t strides[PSHM_MAX_DIMENSIONS];
} item_selection;

static int
take_index(ViewObject *self, int dimension, Py_ssize_t index,
           item_selection *out)
{
    Py_ssize_t items = self->dimensions[dimension];
    Py_ssize_t at = index < 0 ? index + items : index;
    if (at < 0 || at >= items) {
        PyErr_Format(PyExc_IndexError,
                     "index %zd is out of range for dimension %d, which has "
                     "%zd items",
                     index, dimension, items);
        return -1;
    }
    out->data += at * self->dimensions[self->ndim + dimension];
    return 0;
}

static void
keep_dimension(ViewObject *self, int dimension, item_selection *out)
{
    out->shape[out->ndim] = self->dimensions[dimension];
    out->strides[out->ndim++] = self->dimensions[self->ndim + dimension];
}

/* The stride of a range of one item or none is never used, and could be past
 * what a number holds. */
static int
take_slice(ViewObject *self, int dimension, PyObject *slice,
           item_selection *out)
{
    Py_ssize_t start, stop, step, items;
    Py_ssize_t stride = self->dimensions[self->ndim + dimension];
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        return -1;
    }
    items = PySlice_AdjustIndices(self->dimensions[dimension], &start, &stop,
                                  step);
    if (items > 0) {
        out->data += start * stride;
    }
    out->shape[out->ndim] = items;
    out->strides[out->ndim++] = items > 1 ? stride * step : stride;
    return 0;
}

static int
take_key(ViewObject *self, PyObject *key, int *dimension, int rest,
         item_selection *out)
{
    if (key == Py_Ellipsis) {
        for (; *dimension < self->ndim - rest; (*dimension)++) {
            keep_dimension(self, *dimension, out);
        }
        return 0;
    }
    if (PySlice_Check(key)) {
        return take_slice(self, (*dimension)++, key, out);
    }
    if (!PyIndex_Check(key) || PyBool_Check(key)) {
        PyErr_Format(PyExc_TypeError,
                     "an index must be an int, a slice or ..., not %.200s",
                     Py_TYPE(key)->tp_name);
        return -1;
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return -1;
    }
    return take_index(self, (*dimension)++, index, out);
}

/* keys: a tuple.  Returns 1 where it leaves a single item, 0 where a range, or
 * -1. */
static int
select_keys(ViewObject *self, PyObject *keys, item_selection *out)
{
    Py_ssize_t count = PyTuple_GET_SIZE(keys), ellipses = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        ellipses += PyTuple_GET_ITEM(keys, i) == Py_Ellipsis;
    }
    if (ellipses > 1 || count - ellipses > self->ndim) {
        PyErr_Format(PyExc_IndexError,
                     ellipses > 1 ? "an index can have one ... only"
                                  : "%zd indexes are too many for %d "
                                    "dimensions",
                     count - ellipses, self->ndim);
        return -1;
    }
    int dimension = 0;
    out->data = self->data;
    out->ndim = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (take_key(self, PyTuple_GET_ITEM(keys, i), &dimension,
                     (int)(count - 1 - i), out) < 0) {
            return -1;
        }
    }
    bool single = dimension == self->ndim && out->ndim == 0 && ellipses == 0;
    for (; dimension < self->ndim; dimension++) {
        keep_dimension(self, dimension, out);
    }
    return single;
}

static int
select_key(ViewObject *self, PyObject *key, item_selection *out)
{
    if (PyTuple_Check(key)) {
        return select_keys(self, key, out);
    }
    PyObject *keys = PyTuple_Pack(1, key);
    if (keys == NULL) {
        return -1;
    }
    int rc = select_keys(self, keys, out);
    Py_DECREF(keys);
    return rc;
}

static struct pshm_layout
selection_layout(ViewObject *self, const item_selection *selected)
{
    return (struct pshm_layout){selected->ndim, selected->shape,
                                selected->strides, self->format.size};
}

/* ---- Items ----
 *
 * A memoryview reads and writes what it has a word for, the native numbers. */

static bool
is_native(const struct item_format *format)
{
    switch (format->kind) {
    case ITEM_INT:
    case ITEM_UINT:
    case ITEM_BOOL:
        return !format->swapped;
    case ITEM_FLOAT:
        return !format->swapped
               && (format->size > 2 || CORE_MEMORYVIEW_READS_HALF);
    default:
        return false;
    }
}

/* A memoryview of the same items, borrowed; NULL with an exception.  It is that
 * of a twin, for one of self would keep self, and self keeps it. */
static PyObject *
view_memoryview(ViewObject *self)
{
    PyObject *items = atomic_load_explicit(&self->items,
                                           memory_order_acquire);
    if (items != NULL) {
        return items;
    }
    struct pshm_layout layout = view_layout(self);
    PyObject *twin = view_new(core_state_of_type(Py_TYPE(self)), self->map,
                              &self->origin, self->data, &self->format,
                              &layout, self->readonly);
    PyObject *made = twin == NULL ? NULL : PyMemoryView_FromObject(twin);
    Py_XDECREF(twin);
    if (made != NULL
        && !atomic_compare_exchange_strong(&self->items, &items, made)) {
        Py_DECREF(made);                /* another thread was faster */
        made = items;
    }
    return made;
}

/* PyObject_GetItem would be a fifth of the time of an item. */
#define memoryview_slots PyMemoryView_Type.tp_as_mapping

/* key: what leaves a single item of self, which is at data. */
static PyObject *
read_item(ViewObject *self, PyObject *key, const char *data)
{
    if (!is_native(&self->format)) {
        return format_get(core_state_of_type(Py_TYPE(self)), &self->format,
                          data);
    }
    PyObject *items = view_memoryview(self);
    return items == NULL ? NULL : memoryview_slots->mp_subscript(items, key);
}

/* A memoryview makes an infinity of a number that a float cannot hold. */
static int
check_float(const struct item_format *format, PyObject *value)
{
    if (format->kind != ITEM_FLOAT || format->size != 4) {
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isfinite(number) && isinf((float)number)) {
        PyErr_Format(PyExc_ValueError, "an item of format %R cannot be %R",
                     format->text, value);
        return -1;
    }
    return 0;
}

static int
write_item(ViewObject *self, PyObject *key, char *data, PyObject *value)
{
    if (!is_native(&self->format)) {
        return format_set(core_state_of_type(Py_TYPE(self)), &self->format,
                          data, value);
    }
    PyObject *items = view_memoryview(self);
    if (items == NULL || check_float(&self->format, value) < 0) {
        return -1;
    }
    return memoryview_slots->mp_ass_subscript(items, key, value);
}

/* Is it an int for each dimension, by which a memoryview finds an item on its
 * own? */
static bool
is_plain_index(ViewObject *self, PyObject *key)
{
    if (!is_native(&self->format)) {
        return false;
    }
    if (!PyTuple_CheckExact(key)) {
        return self->ndim == 1 && PyLong_CheckExact(key);
    }
    bool plain = PyTuple_GET_SIZE(key) == self->ndim;
    for (int i = 0; plain && i < self->ndim; i++) {
        plain = PyLong_CheckExact(PyTuple_GET_ITEM(key, i));
    }
    return plain;
}

/* ---- Reading ---- */

Py_ssize_t
view_length(PyObject *op)
{
    ViewObject *self = as_view(op);
    if (self->ndim == 0) {
        PyErr_SetString(PyExc_TypeError, "a view of no dimensions has no len");
        return -1;
    }
    return self->dimensions[0];
}

static PyObject *
take_range(ViewObject *self, const item_selection *selected)
{
    struct pshm_layout layout = selection_layout(self, selected);
    return view_new(core_state_of_type(Py_TYPE(self)), self->map,
                    &self->origin, selected->data, &self->format, &layout,
                    self->readonly);
}

PyObject *
view_subscript(PyObject *op, PyObject *key)
{
    ViewObject *self = as_view(op);
    if (is_plain_index(self, key)) {
        return read_item(self, key, NULL);
    }
    item_selection selected;
    int single = select_key(self, key, &selected);
    return single < 0 ? NULL
           : single   ? read_item(self, key, selected.data)
                      : take_range(self, &selected);
}

/* For iteration. */
PyObject *
view_item(PyObject *op, Py_ssize_t index)
{
    ViewObject *self = as_view(op);
    if (self->ndim == 0) {
        PyErr_SetString(PyExc_TypeError,
                        "a view of no dimensions has no items to go through");
        return NULL;
    }
    if (self->ndim == 1 && is_native(&self->format)) {
        PyObject *items = view_memoryview(self);
        return items == NULL ? NULL : PySequence_GetItem(items, index);
    }
    item_selection selected = {.data = self->data};
    if (take_index(self, 0, index, &selected) < 0) {
        return NULL;
    }
    if (self->ndim == 1) {
        return read_item(self, NULL, selected.data);
    }
    for (int i = 1; i < self->ndim; i++) {
        keep_dimension(self, i, &selected);
    }
    return take_range(self, &selected);
}

static PyObject *
list_from(ViewObject *self, int dimension, char *data)
{
    if (dimension == self->ndim) {
        return read_item(self, NULL, data);
    }
    Py_ssize_t items = self->dimensions[dimension];
    PyObject *list = PyList_New(items);
    for (Py_ssize_t i = 0; list != NULL && i < items; i++) {
        PyObject *item = list_from(
            self, dimension + 1,
            data + i * self->dimensions[self->ndim + dimension]);
        if (item == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, item);
        }
    }
    return list;
}

const char view_tolist_doc[] =
    "tolist($self, /)\n--\n\n"
    "The items as nested lists, one level a dimension; without any dimension\n"
    "the item.  Raises NotImplementedError where Python has no such items.";

PyObject *
view_tolist(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    if (!is_native(&self->format)) {
        return list_from(self, 0, self->data);
    }
    PyObject *items = view_memoryview(self);
    return items == NULL ? NULL : PyObject_CallMethod(items, "tolist", NULL);
}

const char view_tobytes_doc[] =
    "tobytes($self, /)\n--\n\n"
    "A copy of the items, one after the other in C order, as bytes.";

PyObject *
view_tobytes(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    struct pshm_layout layout = view_layout(self);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, self->nbytes);
    if (bytes != NULL) {
        char *to = PyBytes_AS_STRING(bytes);
        Py_BEGIN_ALLOW_THREADS
        pshm_gather(to, self->data, &layout);
        Py_END_ALLOW_THREADS
    }
    return bytes;
}

/* ---- Writing ---- */

static int
same_format(ViewObject *self, PyObject *value, const Py_buffer *source)
{
    struct item_format format;
    int same;
    const char *words = source->format != NULL ? source->format : "B";
    PyObject *text = PyUnicode_FromString(words);
    if (text == NULL) {
        return -1;
    }
    if (PyUnicode_Compare(text, self->format.text) == 0) {
        same = 1;
    }
    else if (strncmp(words, "T{", 2) == 0
             && PyUnicode_ReadChar(self->format.text, 0) == 'T') {
        same = view_has_dtype_of(self, value);  /* can be said in many ways */
    }
    else if (format_parse(text, &format) == 0) {
        bool number = format.kind != ITEM_STRUCT
                      && format.kind != ITEM_TEXT
                      && format.kind != ITEM_OPAQUE;
        same = format.kind == self->format.kind
               && format.swapped == self->format.swapped
               && (number
                   || PyUnicode_Compare(format.text, self->format.text) == 0);
        Py_DECREF(format.text);
    }
    else if (PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();                  /* a word that means nothing here */
        same = 0;
    }
    else {
        same = -1;
    }
    Py_DECREF(text);
    return same;
}

static int
check_shape(const item_selection *to, const Py_buffer *source)
{
    bool fits = source->ndim == to->ndim;
    for (int i = 0; fits && i < to->ndim; i++) {
        fits = source->shape[i] == to->shape[i];
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError,
                        "the range and what is assigned to it have not the "
                        "same shape");
        return -1;
    }
    return 0;
}

/* By way of a copy: the source may be the very same memory.  Strides that were
 * asked for and not given, as by the arrays of ctypes, mean C order. */
static int
copy_range(ViewObject *self, const item_selection *to, const Py_buffer *source)
{
    Py_ssize_t in_c_order[PSHM_MAX_DIMENSIONS], stride = source->itemsize;
    for (int i = PSHM_MAX_DIMENSIONS - 1; i >= 0; i--) {
        if (i < source->ndim) {
            in_c_order[i] = stride;
            stride *= source->shape[i];
        }
    }
    struct pshm_layout from_layout = {
        source->ndim, source->shape,
        source->strides != NULL ? source->strides : in_c_order,
        source->itemsize};
    struct pshm_layout to_layout = selection_layout(self, to);
    char *items = PyMem_RawMalloc((size_t)source->len + 1);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    pshm_gather(items, source->buf, &from_layout);
    pshm_scatter(to->data, items, &to_layout);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(items);
    return 0;
}

/* known: it is known already that value has such items, but for their size. */
static int
assign_buffer(ViewObject *self, const item_selection *to, PyObject *value,
              bool known)
{
    Py_buffer source;
    if (PyObject_GetBuffer(value, &source, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    int rc = -1, same = source.itemsize == self->format.size;
    if (same && !known) {
        same = same_format(self, value, &source);
    }
    if (same == 0) {
        PyErr_Format(PyExc_ValueError,
                     "a view of format %R cannot take items of format '%s'",
                     self->format.text,
                     source.format != NULL ? source.format : "B");
    }
    else if (source.suboffsets != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "a buffer of pointers (suboffsets) cannot be copied "
                        "from");
    }
    else if (same > 0 && check_shape(to, &source) == 0) {
        rc = copy_range(self, to, &source);
    }
    PyBuffer_Release(&source);
    return rc;
}

/* Of items that the buffer protocol has no word for: from a view of the same
 * format, or from what numpy says has such items. */
static int
assign_extension(ViewObject *self, const item_selection *to, PyObject *value)
{
    int same;
    if (Py_IS_TYPE(value, Py_TYPE(self))) {
        PyObject *format = as_view(value)->format.text;
        same = PyUnicode_Compare(format, self->format.text) == 0;
    }
    else {
        same = view_has_dtype_of(self, value);
    }
    if (same == 0) {
        PyErr_Format(PyExc_ValueError,
                     "a view of format %R takes a buffer of such items, which "
                     "this %.200s has not",
                     self->format.text, Py_TYPE(value)->tp_name);
    }
    PyObject *numbers = same < 1 ? NULL : view_numbers_of(self, value);
    if (numbers == NULL) {
        return -1;
    }
    int rc = assign_buffer(self, to, numbers, true);
    Py_DECREF(numbers);
    return rc;
}

static int
assign_range(ViewObject *self, const item_selection *to, PyObject *value)
{
    if (!PyObject_CheckBuffer(value)) {
        PyErr_Format(PyExc_TypeError,
                     "a range takes a buffer of the same format and shape, "
                     "not %.200s; .numpy() takes all that numpy does",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    return self->format.in_buffers ? assign_buffer(self, to, value, false)
                                   : assign_extension(self, to, value);
}

int
view_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    ViewObject *self = as_view(op);
    if (value == NULL || self->readonly) {
        PyErr_SetString(PyExc_TypeError,
                        value == NULL ? "cannot delete memory"
                                      : "cannot modify read-only memory");
        return -1;
    }
    if (is_plain_index(self, key)) {
        return write_item(self, key, NULL, value);
    }
    item_selection selected;
    int single = select_key(self, key, &selected);
    return single < 0 ? -1
           : single   ? write_item(self, key, selected.data, value)
                      : assign_range(self, &selected, value);
}
