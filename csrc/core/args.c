#include "core/args.h"

#include <math.h>
#include <string.h>

static int
count_names(const struct signature *signature)
{
    int count = 0;
    while (signature->names[count] != NULL) {
        count++;
    }
    return count;
}

static int
place_positional(const struct signature *signature, PyObject *const *args,
                 Py_ssize_t count, PyObject **values)
{
    if (count > signature->positional) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %d positional argument%s (%zd given)",
                     signature->function, signature->positional,
                     signature->positional == 1 ? "" : "s", count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        values[i] = args[i];
    }
    return 0;
}

static int
place_keyword(const struct signature *signature, PyObject *key,
              PyObject *value, PyObject **values)
{
    if (!PyUnicode_Check(key)) {
        PyErr_Format(PyExc_TypeError, "%s() keywords must be strings",
                     signature->function);
        return -1;
    }
    for (int i = 0; signature->names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(key, signature->names[i]) != 0) {
            continue;
        }
        if (values[i] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() got multiple values for argument '%U'",
                         signature->function, key);
            return -1;
        }
        values[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R",
                 signature->function, key);
    return -1;
}

static int
check_required(const struct signature *signature, PyObject **values)
{
    for (int i = 0; i < signature->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() missing required argument '%s'",
                         signature->function, signature->names[i]);
            return -1;
        }
    }
    return 0;
}

int
args_match(const struct signature *signature, PyObject *const *args,
           Py_ssize_t count, PyObject *kwnames, PyObject **values)
{
    memset((void *)values, 0,
           sizeof(*values) * (size_t)count_names(signature));
    if (place_positional(signature, args, count, values) < 0) {
        return -1;
    }
    Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < keywords; i++) {
        if (place_keyword(signature, PyTuple_GET_ITEM(kwnames, i),
                          args[count + i], values) < 0) {
            return -1;
        }
    }
    return check_required(signature, values);
}

int
args_match_dict(const struct signature *signature, PyObject *args,
                PyObject *kwargs, PyObject **values)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    memset((void *)values, 0,
           sizeof(*values) * (size_t)count_names(signature));
    if (place_positional(signature, ((PyTupleObject *)args)->ob_item,
                         PyTuple_GET_SIZE(args), values) < 0) {
        return -1;
    }
    while (kwargs != NULL && PyDict_Next(kwargs, &at, &key, &value)) {
        if (place_keyword(signature, key, value, values) < 0) {
            return -1;
        }
    }
    return check_required(signature, values);
}

/* An int of any size. A bool or a float is an error. Returns a new reference.
 */
static PyObject *
whole_number(PyObject *value, const char *what)
{
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.200s", what,
                     Py_TYPE(value)->tp_name);
        return NULL;
    }
    return PyNumber_Index(value);
}

int
arg_long(PyObject *value, const char *what, long long least, long long most,
         long long *out)
{
    PyObject *number = whole_number(value, what);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    long long result = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 || result < least || result > most) {
        PyErr_Format(PyExc_ValueError,
                     "%s must be between %lld and %lld, not %R", what, least,
                     most, number);
        Py_DECREF(number);
        return -1;
    }
    Py_DECREF(number);
    *out = result;
    return 0;
}

static int
bytes_from(PyObject *value, const char *what, long long least, Py_ssize_t *out)
{
    PyObject *number = whole_number(value, what);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    long long result = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow == 0 && result >= least && result <= PY_SSIZE_T_MAX) {
        *out = (Py_ssize_t)result;
        Py_DECREF(number);
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "%s must be %s, in bytes, not %R", what,
                 overflow > 0 || (overflow == 0 && result > 0)
                     ? "less than 2**63"
                     : least > 0 ? "at least 1" : "at least 0",
                 number);
    Py_DECREF(number);
    return -1;
}

int
arg_size(PyObject *value, const char *what, Py_ssize_t *out)
{
    return bytes_from(value, what, 1, out);
}

int
arg_offset(PyObject *value, const char *what, Py_ssize_t *out)
{
    return bytes_from(value, what, 0, out);
}

int
arg_bool(PyObject *value, bool *out)
{
    if (value != NULL) {
        int truth = PyObject_IsTrue(value);
        if (truth < 0) {
            return -1;
        }
        *out = truth;
    }
    return 0;
}

static int
mode_from(PyObject *value, const char *what, mode_t *out)
{
    long long mode;
    if (arg_long(value, what, 0, 07777, &mode) < 0) {
        if (PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            PyObject *octal = PyNumber_ToBase(value, 8);
            if (octal != NULL) {
                PyErr_Format(PyExc_ValueError,
                             "%s must be between 0o0 and 0o7777, such as "
                             "0o600, not %U", what, octal);
                Py_DECREF(octal);
            }
        }
        return -1;
    }
    *out = (mode_t)mode;
    return 0;
}

int
arg_mode(PyObject *value, mode_t *out)
{
    return value == NULL ? 0 : mode_from(value, "mode", out);
}

int
arg_mode_at_most(PyObject *value, mode_t *out)
{
    return value == NULL || value == Py_None
               ? 0 : mode_from(value, "mode_at_most", out);
}

int
arg_id(PyObject *value, const char *what, uint32_t *out)
{
    long long id;
    if (value != NULL && value != Py_None) {
        if (arg_long(value, what, -1, (long long)UINT32_MAX - 1, &id) < 0) {
            return -1;
        }
        *out = (uint32_t)id;
    }
    return 0;
}

/* Returns -1 with an exception if value is not a number. */
static double
number_of_seconds(PyObject *value, const char *what)
{
    if (PyBool_Check(value) || !PyNumber_Check(value)
        || PyComplex_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a number of seconds or None, not %.200s",
                     what, Py_TYPE(value)->tp_name);
        return -1.0;
    }
    return PyFloat_AsDouble(value);
}

int
arg_seconds(PyObject *value, const char *what, double *out)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    double seconds = number_of_seconds(value, what);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s must be at least 0, in seconds, not %R", what,
                     value);
        return -1;
    }
    *out = seconds;
    return 0;
}

int
arg_timeout(PyObject *value, double *out)
{
    if (value == Py_None) {
        *out = INFINITY;
    }
    if (value == NULL || value == Py_None) {
        return 0;
    }
    double seconds = number_of_seconds(value, "timeout");
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError,
                        "timeout must be a number of seconds, not nan");
        return -1;
    }
    *out = seconds > 0 ? seconds : 0;
    return 0;
}
