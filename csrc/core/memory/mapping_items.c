/* Items of a mapping, as a memoryview has them. */
#include "core/memory/mapping.h"

#include <string.h>
#include <sys/mman.h>

#include "core/args.h"

static MemoryMapObject *
as_mapping(PyObject *op)
{
    return (MemoryMapObject *)op;
}

Py_ssize_t
mapping_length(PyObject *op)
{
    return mapping_size(as_mapping(op));
}

static int
item_address(MemoryMapObject *self, Py_ssize_t index, int right, char **address)
{
    Py_ssize_t size = mapping_size(self);
    if (index < 0 || index >= size) {
        PyErr_Format(PyExc_IndexError,
                     "index %zd is out of range for %zd bytes", index, size);
        return -1;
    }
    if (!(self->prot & right)) {
        PyErr_SetString(PyExc_TypeError,
                        right == PROT_WRITE
                            ? "cannot modify read-only memory"
                            : "cannot read memory that is PROT_NONE");
        return -1;
    }
    *address = self->base + index;
    return 0;
}

PyObject *
mapping_item(PyObject *op, Py_ssize_t index)
{
    MemoryMapObject *self = as_mapping(op);
    char *address;
    long byte = -1;
    fields_lock(&self->fields);
    if (item_address(self, index, PROT_READ, &address) == 0) {
        byte = *(unsigned char *)address;
    }
    fields_unlock(&self->fields);
    return byte < 0 ? NULL : PyLong_FromLong(byte);
}

static Py_ssize_t
index_from(PyObject *op, PyObject *key)
{
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    return index < 0 ? index + mapping_length(op) : index;
}

PyObject *
mapping_subscript(PyObject *op, PyObject *key)
{
    if (PyIndex_Check(key)) {
        Py_ssize_t index = index_from(op, key);
        return PyErr_Occurred() ? NULL : mapping_item(op, index);
    }
    PyObject *view = PyMemoryView_FromObject(op);
    if (view == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_GetItem(view, key);
    Py_DECREF(view);
    return result;
}

static int
set_item(PyObject *op, PyObject *key, PyObject *value)
{
    MemoryMapObject *self = as_mapping(op);
    long long byte;
    char *address;
    if (arg_long(value, "a byte", 0, 255, &byte) < 0) {
        return -1;
    }
    Py_ssize_t index = index_from(op, key);
    if (PyErr_Occurred()) {
        return -1;
    }
    int rc;
    fields_lock(&self->fields);
    rc = item_address(self, index, PROT_WRITE, &address);
    if (rc == 0) {
        *(unsigned char *)address = (unsigned char)byte;
    }
    fields_unlock(&self->fields);
    return rc;
}

/* Bytes into a slice of ours.  Not by way of a memoryview, which would count
 * as a writable view that was handed out. */
static int
copy_into_slice(MemoryMapObject *self, PyObject *slice, const Py_buffer *source)
{
    Py_ssize_t start, stop, step;
    char *address, *copy = NULL;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        return -1;
    }
    bool in_order = PyBuffer_IsContiguous(source, 'C');
    if (step != 1 || !in_order) {       /* the source may be our own bytes */
        copy = PyMem_Malloc((size_t)source->len);
        if (copy == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (PyBuffer_ToContiguous(copy, source, source->len, 'C') < 0) {
            PyMem_Free(copy);
            return -1;
        }
    }
    const char *from = copy != NULL ? copy : source->buf;
    int rc = 0;
    fields_lock(&self->fields);
    Py_ssize_t count = PySlice_AdjustIndices(mapping_size(self), &start,
                                             &stop, step);
    if (count != source->len) {
        PyErr_Format(PyExc_ValueError,
                     "a slice of %zd bytes cannot take %zd bytes", count,
                     source->len);
        rc = -1;
    }
    else if (count > 0) {
        rc = item_address(self, start, PROT_WRITE, &address);
    }
    if (rc == 0 && step == 1) {
        memmove(self->base + start, from, (size_t)count);
    }
    else if (rc == 0) {
        for (Py_ssize_t i = 0; i < count; i++) {
            self->base[start + i * step] = from[i];
        }
    }
    fields_unlock(&self->fields);
    PyMem_Free(copy);
    return rc;
}

int
mapping_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "cannot delete memory");
        return -1;
    }
    if (PyIndex_Check(key)) {
        return set_item(op, key, value);
    }
    if (!PySlice_Check(key)) {
        PyErr_Format(PyExc_TypeError,
                     "an index must be an int or a slice, not %.200s",
                     Py_TYPE(key)->tp_name);
        return -1;
    }
    Py_buffer source;
    if (PyObject_GetBuffer(value, &source, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    int rc = copy_into_slice(as_mapping(op), key, &source);
    PyBuffer_Release(&source);
    return rc;
}
