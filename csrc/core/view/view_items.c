/* Items: indexing, assignment, lists and bytes.
 *
 * A memoryview reads and writes the items of the formats that it supports.
 * Those of other formats are decoded and encoded by posixshm._view. */
#include "core/view/view.h"

#include <string.h>

/* A view of a part of self; a new reference. */
static PyObject *
view_of_range(ViewObject *self, const item_range *range)
{
    return view_new(core_state_of_type(Py_TYPE(self)), self->map,
                    &self->origin, &self->format, range, self->readonly);
}

/* ---- Single items ---- */

/* Calling the slots takes four fifths of the time of PyObject_GetItem(). */
#define memoryview_slots PyMemoryView_Type.tp_as_mapping

/* A memoryview of the items, borrowed from self; NULL with an exception.  Its
 * obj is another view of the same items: it would keep self alive otherwise,
 * and self keeps it. */
static PyObject *
borrow_memoryview(ViewObject *self)
{
    PyObject *items = atomic_load_explicit(&self->items,
                                           memory_order_acquire);
    if (items != NULL) {
        return items;
    }
    item_range all;
    (void)view_select(self, NULL, 0, &all);
    PyObject *twin = view_of_range(self, &all);
    PyObject *made = twin == NULL ? NULL : PyMemoryView_FromObject(twin);
    Py_XDECREF(twin);
    if (made != NULL
        && !atomic_compare_exchange_strong(&self->items, &items, made)) {
        Py_DECREF(made);                /* another thread was faster */
        made = items;
    }
    return made;
}

/* key: the index of a single item, which is at data. */
static PyObject *
read_item(ViewObject *self, PyObject *key, const char *data)
{
    if (self->format.decode == NULL) {
        PyObject *items = borrow_memoryview(self);
        return items == NULL ? NULL
                             : memoryview_slots->mp_subscript(items, key);
    }
    /* A copy, which another process cannot change in the meantime. */
    PyObject *bytes = PyBytes_FromStringAndSize(data, self->format.size);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_CallOneArg(self->format.decode, bytes);
    Py_DECREF(bytes);
    return value;
}

static int
write_item(ViewObject *self, PyObject *key, char *data, PyObject *value)
{
    if (self->format.decode == NULL) {
        PyObject *items = borrow_memoryview(self);
        return items == NULL ? -1
                             : memoryview_slots->mp_ass_subscript(items, key,
                                                                  value);
    }
    PyObject *bytes = PyObject_CallOneArg(self->format.encode, value);
    if (bytes == NULL) {
        return -1;
    }
    int rc = 0;
    if (PyBytes_Check(bytes)
        && PyBytes_GET_SIZE(bytes) == self->format.size) {
        memcpy(data, PyBytes_AS_STRING(bytes), (size_t)self->format.size);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%R is not an item of format %R",
                     bytes, self->format.text);
        rc = -1;
    }
    Py_DECREF(bytes);
    return rc;
}

/* Can a memoryview find the item on its own, by an int for each dimension? */
static bool
is_plain_index(ViewObject *self, PyObject *key)
{
    if (self->format.decode != NULL) {
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

static int
select_key(ViewObject *self, PyObject *key, item_range *out)
{
    return PyTuple_Check(key)
               ? view_select(self, PySequence_Fast_ITEMS(key),
                             PyTuple_GET_SIZE(key), out)
               : view_select(self, &key, 1, out);
}

/* ---- Reading ---- */

static int
check_dimensions(ViewObject *self, const char *purpose)
{
    if (self->ndim == 0) {
        PyErr_Format(PyExc_TypeError,
                     "a View without dimensions does not have %s; its item is "
                     "view[()]",
                     purpose);
        return -1;
    }
    return 0;
}

Py_ssize_t
view_length(PyObject *op)
{
    ViewObject *self = as_view(op);
    return check_dimensions(self, "a length") < 0 ? -1 : self->dimensions[0];
}

PyObject *
view_subscript(PyObject *op, PyObject *key)
{
    ViewObject *self = as_view(op);
    if (is_plain_index(self, key)) {
        return read_item(self, key, NULL);
    }
    item_range range;
    int single = select_key(self, key, &range);
    return single < 0 ? NULL
           : single   ? read_item(self, key, range.data)
                      : view_of_range(self, &range);
}

/* For iteration; PySequence_GetItem() has added the length to a negative
 * index. */
PyObject *
view_item(PyObject *op, Py_ssize_t index)
{
    ViewObject *self = as_view(op);
    if (check_dimensions(self, "items to iterate over") < 0) {
        return NULL;
    }
    if (index < 0) {
        PyErr_SetString(PyExc_IndexError, "index is out of range");
        return NULL;
    }
    if (self->ndim == 1 && self->format.decode == NULL) {
        PyObject *items = borrow_memoryview(self);
        return items == NULL ? NULL : PySequence_GetItem(items, index);
    }
    PyObject *key = PyLong_FromSsize_t(index);
    PyObject *result = key == NULL ? NULL : view_subscript(op, key);
    Py_XDECREF(key);
    return result;
}

const char view_tolist_doc[] =
    "tolist($self, /)\n--\n\n"
    "Return the items as nested lists, one level for each dimension.\n\n"
    "The result for a view without dimensions is a single value.\n\n"
    "Raises NotImplementedError if Python does not have a type for the items,\n"
    "and ValueError for text whose bytes are not code points.";

PyObject *
view_tolist(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    if (self->format.decode == NULL) {
        PyObject *items = borrow_memoryview(self);
        return items == NULL ? NULL
                             : PyObject_CallMethod(items, "tolist", NULL);
    }
    return view_call(core_state_of_type(Py_TYPE(op)), "to_list",
                     PyTuple_Pack(2, op, self->format.decode));
}

/* ---- Copies ---- */

/* Inlined with a constant size, it copies each item by a single instruction. */
static inline void
copy_each(char *to, Py_ssize_t to_step, const char *from,
          Py_ssize_t from_step, Py_ssize_t count, size_t size)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(to, from, size);
        to += to_step;
        from += from_step;
    }
}

static void
copy_row(char *to, Py_ssize_t to_step, const char *from, Py_ssize_t from_step,
         Py_ssize_t count, size_t size)
{
    switch (size) {
    case 1:
        copy_each(to, to_step, from, from_step, count, 1);
        break;
    case 2:
        copy_each(to, to_step, from, from_step, count, 2);
        break;
    case 4:
        copy_each(to, to_step, from, from_step, count, 4);
        break;
    case 8:
        copy_each(to, to_step, from, from_step, count, 8);
        break;
    case 16:
        copy_each(to, to_step, from, from_step, count, 16);
        break;
    default:
        copy_each(to, to_step, from, from_step, count, size);
    }
}

/* Copy between the dimensions of view from `dimension` on, whose first item is
 * at data, and their items in C order.  gather: to the items.  Returns the end
 * of the items. */
static char *
copy_from(const Py_buffer *view, int dimension, char *data, char *items,
          bool gather)
{
    Py_ssize_t count = 1, stride = 0, size = view->itemsize;
    if (dimension < view->ndim) {
        count = view->shape[dimension];
        stride = view->strides[dimension];
    }
    if (dimension + 1 < view->ndim) {
        for (Py_ssize_t i = 0; i < count; i++) {
            items = copy_from(view, dimension + 1, data, items, gather);
            data += stride;
        }
        return items;
    }
    if (gather) {
        copy_row(items, size, data, stride, count, (size_t)size);
    }
    else {
        copy_row(data, stride, items, size, count, (size_t)size);
    }
    return items + count * size;
}

/* The last dimensions whose items are contiguous count as one item. */
static void
copy_all(Py_buffer view, char *items, bool gather)
{
    while (view.ndim > 0
           && (view.shape[view.ndim - 1] == 1
               || view.strides[view.ndim - 1] == view.itemsize)) {
        view.itemsize *= view.shape[--view.ndim];
    }
    (void)copy_from(&view, 0, view.buf, items, gather);
}

void
view_copy_items(ViewObject *self, char *to)
{
    Py_buffer from = view_buffer(self);
    Py_BEGIN_ALLOW_THREADS
    copy_all(from, to, true);
    Py_END_ALLOW_THREADS
}

const char view_tobytes_doc[] =
    "tobytes($self, /)\n--\n\n"
    "Return a copy of the items as bytes, in C order without gaps.";

PyObject *
view_tobytes(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ViewObject *self = as_view(op);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, self->nbytes);
    if (bytes != NULL) {
        view_copy_items(self, PyBytes_AS_STRING(bytes));
    }
    return bytes;
}

/* ---- Assignment to a range ---- */

/* Returns 1 if the items of value, whose buffer source is, have self's format;
 * 0 if not, or -1 with an exception. */
static int
has_same_format(ViewObject *self, PyObject *value, const Py_buffer *source)
{
    if (source->itemsize != self->format.size) {
        return 0;
    }
    const char *format = source->format != NULL ? source->format : "B";
    if (self->format.in_buffers
        && PyUnicode_CompareWithASCIIString(self->format.text, format) == 0) {
        return 1;
    }
    PyObject *key = view_call(core_state_of_type(Py_TYPE(self)), "key_of",
                              PyTuple_Pack(1, value));
    if (key == NULL) {
        return -1;
    }
    int same = PyObject_RichCompareBool(key, self->format.key, Py_EQ);
    Py_DECREF(key);
    return same;
}

static bool
has_same_shape(ViewObject *self, const Py_buffer *source)
{
    bool same = source->ndim == self->ndim && source->len == self->nbytes;
    for (int i = 0; same && i < self->ndim; i++) {
        same = source->shape[i] == self->dimensions[i];
    }
    return same;
}

static int
copy_items(ViewObject *self, const Py_buffer *source)
{
    Py_buffer target = view_buffer(self);
    if (target.len == 0) {
        return 0;
    }
    if (PyBuffer_IsContiguous(source, 'C')
        && PyBuffer_IsContiguous(&target, 'C')) {
        Py_BEGIN_ALLOW_THREADS
        memmove(target.buf, source->buf, (size_t)target.len);
        Py_END_ALLOW_THREADS
        return 0;
    }
    /* Through a copy: the source may be the same memory in another order. */
    char *items = PyMem_Malloc((size_t)target.len);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = PyBuffer_ToContiguous(items, source, source->len, 'C');
    if (rc == 0) {
        Py_BEGIN_ALLOW_THREADS
        copy_all(target, items, false);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(items);
    return rc;
}

/* Copy the items of a buffer of the same format and shape. */
static int
assign_buffer(ViewObject *self, PyObject *value)
{
    if (!PyObject_CheckBuffer(value)) {
        PyErr_Format(PyExc_TypeError,
                     "cannot assign an object of type %.200s to a range of a "
                     "View: it must be a buffer of the same format and shape; "
                     ".numpy() accepts all that numpy does",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    /* A buffer of such items cannot have a format if self's cannot. */
    Py_buffer source;
    if (PyObject_GetBuffer(value, &source,
                           self->format.in_buffers ? PyBUF_FULL_RO
                                                   : PyBUF_INDIRECT) < 0) {
        return -1;
    }
    int rc = -1, same = has_same_format(self, value, &source);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError,
                     "cannot assign a %.200s to a range of a View of format "
                     "%R: the items must have the same format",
                     Py_TYPE(value)->tp_name, self->format.text);
    }
    else if (same > 0 && !has_same_shape(self, &source)) {
        PyErr_Format(PyExc_ValueError,
                     "cannot assign a %.200s to a range of a View of %zd "
                     "bytes: both must have the same shape",
                     Py_TYPE(value)->tp_name, self->nbytes);
    }
    else if (same > 0) {
        rc = copy_items(self, &source);
    }
    PyBuffer_Release(&source);
    return rc;
}

int
view_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    ViewObject *self = as_view(op);
    if (value == NULL || self->readonly) {
        PyErr_SetString(PyExc_TypeError,
                        value == NULL ? "cannot delete items of a View"
                                      : "cannot modify items of a read-only "
                                        "View");
        return -1;
    }
    if (is_plain_index(self, key)) {
        return write_item(self, key, NULL, value);
    }
    item_range range;
    int single = select_key(self, key, &range);
    if (single != 0) {
        return single < 0 ? -1 : write_item(self, key, range.data, value);
    }
    PyObject *part = view_of_range(self, &range);
    int rc = part == NULL ? -1 : assign_buffer(as_view(part), value);
    Py_XDECREF(part);
    return rc;
}
