/* The bytes of a mapping as items: the values and errors are a memoryview's.
 *
 * Reading a slice returns a memoryview.  Other accesses do not create one: as
 * with any exported buffer, protect() could not remove its permissions as long
 * as the mapping exists.  They check the permissions under fields, so that
 * protect() does not change them during the access. */
#include "core/memory/mapping.h"

#include <string.h>
#include <sys/mman.h>

#include "core/args.h"

Py_ssize_t
mapping_length(PyObject *op)
{
    return mapping_size(as_mapping(op));
}

/* Under fields. */
static bool
can_access_locked(MemoryMapObject *self, Py_ssize_t index, int prot)
{
    return index >= 0 && index < mapping_size(self) && self->prot & prot;
}

/* Raise the exception for an access that can_access_locked() refused. */
static void
raise_access(MemoryMapObject *self, Py_ssize_t index, int prot)
{
    Py_ssize_t size = mapping_size(self);
    if (index < 0 || index >= size) {
        PyErr_Format(PyExc_IndexError,
                     "index %zd is out of range for a MemoryMap of %zd bytes",
                     index, size);
    }
    else if (prot == PROT_WRITE) {
        PyErr_SetString(PyExc_TypeError,
                        "cannot modify a MemoryMap that is read-only");
    }
    else {
        PyErr_SetString(PyExc_TypeError,
                        "cannot read a MemoryMap that is PROT_NONE; protect() "
                        "adds PROT_READ");
    }
}

PyObject *
mapping_item(PyObject *op, Py_ssize_t index)
{
    MemoryMapObject *self = as_mapping(op);
    long byte = -1;
    fields_lock(&self->fields);
    if (can_access_locked(self, index, PROT_READ)) {
        byte = (unsigned char)self->base[index];
    }
    fields_unlock(&self->fields);
    if (byte < 0) {
        raise_access(self, index, PROT_READ);
        return NULL;
    }
    return PyLong_FromLong(byte);
}

/* Returns 0 and an index that may be out of range, or -1 with an exception. */
static int
parse_index(PyObject *op, PyObject *key, Py_ssize_t *out)
{
    *out = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (*out == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (*out < 0) {
        *out += mapping_length(op);
    }
    return 0;
}

PyObject *
mapping_subscript(PyObject *op, PyObject *key)
{
    if (PyIndex_Check(key)) {
        Py_ssize_t index;
        return parse_index(op, key, &index) < 0 ? NULL
                                                : mapping_item(op, index);
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
    Py_ssize_t index;
    if (arg_long(value, "a byte", 0, 255, &byte) < 0
        || parse_index(op, key, &index) < 0) {
        return -1;
    }
    fields_lock(&self->fields);
    bool writable = can_access_locked(self, index, PROT_WRITE);
    if (writable) {
        self->base[index] = (char)byte;
    }
    fields_unlock(&self->fields);
    if (!writable) {
        raise_access(self, index, PROT_WRITE);
    }
    return writable ? 0 : -1;
}

/* Returns 0, or -1 with ValueError or TypeError. */
static int
copy_to_slice(MemoryMapObject *self, PyObject *slice, const char *items,
              Py_ssize_t length)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        return -1;
    }
    fields_lock(&self->fields);
    Py_ssize_t count = PySlice_AdjustIndices(mapping_size(self), &start,
                                             &stop, step);
    bool writable = count == 0 || can_access_locked(self, start, PROT_WRITE);
    if (count == length && count > 0 && writable) {
        if (step == 1) {
            memmove(self->base + start, items, (size_t)count);
        }
        else {
            for (Py_ssize_t i = 0; i < count; i++) {
                self->base[start + i * step] = items[i];
            }
        }
    }
    fields_unlock(&self->fields);
    if (count != length) {
        PyErr_Format(PyExc_ValueError,
                     "cannot assign %zd bytes to a slice of %zd bytes: both "
                     "must have the same length",
                     length, count);
        return -1;
    }
    if (!writable) {
        raise_access(self, start, PROT_WRITE);
    }
    return writable ? 0 : -1;
}

/* The source may be the same memory: memmove() allows that, other copies need
 * the source in memory of its own. */
static int
assign_slice(MemoryMapObject *self, PyObject *slice, const Py_buffer *source)
{
    PyObject *step = ((PySliceObject *)slice)->step;
    if (step == Py_None && PyBuffer_IsContiguous(source, 'C')) {
        return copy_to_slice(self, slice, source->buf, source->len);
    }
    char *items = PyMem_Malloc((size_t)source->len);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = PyBuffer_ToContiguous(items, source, source->len, 'C');
    if (rc == 0) {
        rc = copy_to_slice(self, slice, items, source->len);
    }
    PyMem_Free(items);
    return rc;
}

int
mapping_ass_subscript(PyObject *op, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "cannot delete bytes of a MemoryMap");
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
    int rc = assign_slice(as_mapping(op), key, &source);
    PyBuffer_Release(&source);
    return rc;
}
