/* Values of words, and orders of memory. */
#include "core/sync/atomic.h"

PyObject *
word_to_python(AtomicObject *self, uint64_t bits)
{
    if (self->width == 4) {
        return self->is_signed ? PyLong_FromLong((int32_t)(uint32_t)bits)
                               : PyLong_FromUnsignedLong((uint32_t)bits);
    }
    return self->is_signed ? PyLong_FromLongLong((int64_t)bits)
                           : PyLong_FromUnsignedLongLong(bits);
}

static int
raise_out_of_range(AtomicObject *self, const char *what, PyObject *value)
{
    PyErr_Format(PyExc_OverflowError,
                 "%s must fit %s integer of %zu bytes, not %R", what,
                 self->is_signed ? "a signed" : "an unsigned", self->width,
                 value);
    return -1;
}

int
word_to_bits(AtomicObject *self, const char *what, PyObject *value,
             uint64_t *bits)
{
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.200s", what,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    PyObject *number = PyNumber_Index(value);
    if (number == NULL) {
        return -1;
    }
    int overflow, rc = 0;
    long long small = PyLong_AsLongLongAndOverflow(number, &overflow);
    *bits = (uint64_t)small;
    if (!self->is_signed && self->width == 8 && overflow > 0) {
        *bits = PyLong_AsUnsignedLongLong(number);
        if (PyErr_Occurred()) {
            PyErr_Clear();
            rc = -1;
        }
    }
    else if (overflow != 0 || (!self->is_signed && small < 0)
             || (self->width == 4
                 && (self->is_signed ? small < INT32_MIN || small > INT32_MAX
                                     : small > UINT32_MAX))) {
        rc = -1;
    }
    else if (self->width == 4) {
        *bits = (uint32_t)small;
    }
    if (rc < 0) {
        (void)raise_out_of_range(self, what, number);
    }
    Py_DECREF(number);
    return rc;
}

int
word_parse_order(PyObject *value, int does, memory_order *order)
{
    static const struct {
        const char *name;
        memory_order order;
        int of;                         /* what it makes sense for */
    } orders[] = {
        {"seq_cst", memory_order_seq_cst, BOTH},
        {"relaxed", memory_order_relaxed, BOTH},
        {"acquire", memory_order_acquire, LOADS},
        {"release", memory_order_release, STORES},
        {"acq_rel", memory_order_acq_rel, 0},
    };
    *order = memory_order_seq_cst;
    if (value == NULL) {
        return 0;
    }
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "order must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(orders); i++) {
        if (PyUnicode_CompareWithASCIIString(value, orders[i].name) != 0) {
            continue;
        }
        if (does != BOTH && (orders[i].of & does) == 0) {
            PyErr_Format(PyExc_ValueError, "order %R is not for a %s", value,
                         does == LOADS ? "load" : "store");
            return -1;
        }
        *order = orders[i].order;
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "order must be 'relaxed', 'acquire', 'release', 'acq_rel' or "
                 "'seq_cst', not %R", value);
    return -1;
}
