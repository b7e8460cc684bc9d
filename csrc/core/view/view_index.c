/* The items that an index selects: ints, slices and "...", one a dimension. */
#include "core/view/view.h"

static int
take_index(ViewObject *self, int dimension, PyObject *key, item_range *out)
{
    Py_ssize_t items = self->dimensions[dimension];
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return -1;
    }
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

/* The stride of a dimension with at most one item is not used, and with the
 * step it could overflow. */
static int
take_slice(ViewObject *self, int dimension, PyObject *slice, item_range *out)
{
    Py_ssize_t start, stop, step;
    Py_ssize_t stride = self->dimensions[self->ndim + dimension];
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        return -1;
    }
    Py_ssize_t items = PySlice_AdjustIndices(self->dimensions[dimension],
                                             &start, &stop, step);
    if (items > 0) {
        out->data += start * stride;
    }
    out->shape[out->ndim] = items;
    out->strides[out->ndim++] = items > 1 ? stride * step : stride;
    return 0;
}

/* Take the dimensions from *dimension up to end as they are. */
static void
take_all(ViewObject *self, int *dimension, Py_ssize_t end, item_range *out)
{
    for (; *dimension < end; (*dimension)++) {
        out->shape[out->ndim] = self->dimensions[*dimension];
        out->strides[out->ndim++] = self->dimensions[self->ndim + *dimension];
    }
}

/* Returns the number of keys that are "...", or -1 with IndexError. */
static Py_ssize_t
count_ellipses(ViewObject *self, PyObject *const *keys, Py_ssize_t count)
{
    Py_ssize_t ellipses = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        ellipses += keys[i] == Py_Ellipsis;
    }
    if (ellipses > 1) {
        PyErr_SetString(PyExc_IndexError,
                        "an index can contain one '...' at most");
        return -1;
    }
    if (count - ellipses > self->ndim) {
        PyErr_Format(PyExc_IndexError,
                     "too many indexes: the view has %d dimensions, and the "
                     "index has %zd",
                     self->ndim, count - ellipses);
        return -1;
    }
    return ellipses;
}

int
view_select(ViewObject *self, PyObject *const *keys, Py_ssize_t count,
            item_range *out)
{
    Py_ssize_t ellipses = count_ellipses(self, keys, count);
    int dimension = 0, rc = ellipses < 0 ? -1 : 0;
    out->data = self->data;
    out->ndim = 0;
    for (Py_ssize_t i = 0; i < count && rc == 0; i++) {
        PyObject *key = keys[i];
        if (key == Py_Ellipsis) {
            take_all(self, &dimension, self->ndim - (count - 1 - i), out);
        }
        else if (PySlice_Check(key)) {
            rc = take_slice(self, dimension++, key, out);
        }
        else if (PyIndex_Check(key) && !PyBool_Check(key)) {
            rc = take_index(self, dimension++, key, out);
        }
        else {
            PyErr_Format(PyExc_TypeError,
                         "an index must be an int, a slice or '...', not "
                         "%.200s",
                         Py_TYPE(key)->tp_name);
            rc = -1;
        }
    }
    if (rc < 0) {
        return -1;
    }
    take_all(self, &dimension, self->ndim, out);
    return out->ndim == 0 && ellipses == 0;
}
