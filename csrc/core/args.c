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

/* Which ints an argument accepts, and the rule in the message for one that is
 * too small or too large. */
struct int_rule {
    long long least, most;
    const char *small, *large;          /* NULL: "between least and most" */
    int base;                           /* of the number in the message */
};

static void
raise_range(const char *what, const struct int_rule *rule, bool small,
            PyObject *number)
{
    const char *text = small ? rule->small : rule->large;
    char range[64];
    if (text == NULL) {
        (void)PyOS_snprintf(range, sizeof(range), "between %lld and %lld",
                            rule->least, rule->most);
        text = range;
    }
    PyObject *digits = PyNumber_ToBase(number, rule->base);
    if (digits != NULL) {
        PyErr_Format(PyExc_ValueError, "%s must be %s, not %U", what, text,
                     digits);
        Py_DECREF(digits);
    }
}

/* A bool or a float is an error. */
static int
int_from(PyObject *value, const char *what, const struct int_rule *rule,
         long long *out)
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
    long long result = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 || result < rule->least || result > rule->most) {
        bool small = overflow < 0 || (overflow == 0 && result < rule->least);
        raise_range(what, rule, small, number);
        rc = -1;
    }
    else {
        *out = result;
    }
    Py_DECREF(number);
    return rc;
}

int
arg_long(PyObject *value, const char *what, long long least, long long most,
         long long *out)
{
    const struct int_rule rule = {least, most, NULL, NULL, 10};
    return int_from(value, what, &rule, out);
}

static int
bytes_from(PyObject *value, const char *what, const struct int_rule *rule,
           Py_ssize_t *out)
{
    long long bytes = 0;
    int rc = int_from(value, what, rule, &bytes);
    if (rc == 0) {
        *out = (Py_ssize_t)bytes;
    }
    return rc;
}

#define TOO_LARGE "less than 2**63, in bytes"

int
arg_size(PyObject *value, const char *what, Py_ssize_t *out)
{
    static const struct int_rule rule = {
        1, PY_SSIZE_T_MAX, "at least 1, in bytes", TOO_LARGE, 10};
    return bytes_from(value, what, &rule, out);
}

int
arg_offset(PyObject *value, const char *what, Py_ssize_t *out)
{
    static const struct int_rule rule = {
        0, PY_SSIZE_T_MAX, "at least 0, in bytes", TOO_LARGE, 10};
    return bytes_from(value, what, &rule, out);
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
    static const char text[] = "between 0o0 and 0o7777, such as 0o600";
    static const struct int_rule rule = {0, 07777, text, text, 8};
    long long mode = 0;
    int rc = int_from(value, what, &rule, &mode);
    if (rc == 0) {
        *out = (mode_t)mode;
    }
    return rc;
}

int
arg_mode(PyObject *value, mode_t *out)
{
    return value == NULL ? 0 : mode_from(value, "mode", out);
}

int
arg_mode_at_most(PyObject *value, mode_t *out)
{
    return arg_given(value) ? mode_from(value, "mode_at_most", out) : 0;
}

int
arg_id(PyObject *value, const char *what, uint32_t *out)
{
    long long id = *out;
    int rc = arg_given(value) ? arg_long(value, what, -1,
                                         (long long)UINT32_MAX - 1, &id)
                              : 0;
    *out = (uint32_t)id;
    return rc;
}

/* least: a smaller number is an error.  Returns 0 or -1. */
static int
seconds_from(PyObject *value, const char *what, double least, double *out)
{
    if (PyBool_Check(value) || !PyNumber_Check(value)
        || PyComplex_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a number of seconds or None, not %.200s",
                     what, Py_TYPE(value)->tp_name);
        return -1;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds) || seconds < least) {
        PyErr_Format(PyExc_ValueError, "%s must be %s, not %S", what,
                     least < 0 ? "a number of seconds"
                               : "at least 0, in seconds",
                     value);
        return -1;
    }
    *out = seconds > 0 ? seconds : 0;
    return 0;
}

int
arg_seconds(PyObject *value, const char *what, double *out)
{
    return arg_given(value) ? seconds_from(value, what, 0, out) : 0;
}

int
arg_timeout(PyObject *value, double *out)
{
    if (value == Py_None) {
        *out = INFINITY;
    }
    return arg_given(value) ? seconds_from(value, "timeout", -INFINITY, out)
                            : 0;
}
