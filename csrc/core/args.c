#include "core/args.h"

#include <math.h>
#include <string.h>

#define SEMAPHORE_PREFIX "sem."

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
            PyErr_Format(PyExc_ValueError,
                         "%s must be between 0o0 and 0o7777, such as 0o600, "
                         "not %R", what, value);
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

/* The uid of a user name, from the module pwd: getpwnam(3). */
static int
uid_of_name(PyObject *name, uid_t *out)
{
    PyObject *pwd = PyImport_ImportModule("pwd");
    PyObject *entry = pwd == NULL ? NULL
                                  : PyObject_CallMethod(pwd, "getpwnam", "O",
                                                        name);
    PyObject *number = entry == NULL
                           ? NULL : PyObject_GetAttrString(entry, "pw_uid");
    uint32_t uid = 0;
    int rc = number == NULL ? -1 : arg_id(number, "owner", &uid);
    if (entry == NULL
        && (PyErr_ExceptionMatches(PyExc_KeyError)
            || PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Format(PyExc_ValueError,
                     "owner: the user %R does not exist; a uid always works",
                     name);
    }
    Py_XDECREF(number);
    Py_XDECREF(entry);
    Py_XDECREF(pwd);
    *out = uid;
    return rc;
}

static int
add_owner(PyObject *user, struct pshm_owners *out)
{
    struct pshm_owners added = {.count = 1};
    if (PyUnicode_Check(user)) {
        if (PyUnicode_CompareWithASCIIString(user, "self") == 0) {
            added = pshm_owners_self();
        }
        else if (uid_of_name(user, added.uids) < 0) {
            return -1;
        }
    }
    else if (!PyIndex_Check(user) || PyBool_Check(user)) {
        PyErr_Format(PyExc_TypeError,
                     "owner must be a uid, a user name, 'self', a set of "
                     "them, or 'any', not %.200s", Py_TYPE(user)->tp_name);
        return -1;
    }
    else {
        long long number;
        if (arg_long(user, "owner", 0, (long long)UINT32_MAX - 1, &number)
            < 0) {
            return -1;
        }
        added.uids[0] = (uid_t)number;
    }
    int rc = 0;
    for (int i = 0; rc == 0 && i < added.count; i++) {
        rc = pshm_owners_add(out, added.uids[i]);
    }
    if (rc < 0) {
        PyErr_Format(PyExc_ValueError, "owner must be at most %d users",
                     PSHM_OWNERS_MAX);
        return -1;
    }
    return 0;
}

int
arg_owners(PyObject *value, struct pshm_owners *out)
{
    if (value == NULL) {
        return 0;
    }
    if (PyUnicode_Check(value)
        && PyUnicode_CompareWithASCIIString(value, "any") == 0) {
        *out = PSHM_OWNERS_ANY;
        return 0;
    }
    *out = (struct pshm_owners){0};
    if (!PyAnySet_Check(value) && !PyList_Check(value)
        && !PyTuple_Check(value)) {
        return add_owner(value, out);
    }
    PyObject *users = PySequence_Tuple(value);
    int rc = users == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyTuple_GET_SIZE(users); i++) {
        rc = add_owner(PyTuple_GET_ITEM(users, i), out);
    }
    if (rc == 0 && out->count == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "owner must be at least one user, or 'any'");
        rc = -1;
    }
    Py_XDECREF(users);
    return rc;
}

int
arg_deletion(PyObject *value, enum deletion *out)
{
    bool delete = false;
    if (value != NULL && PyUnicode_Check(value)) {
        if (PyUnicode_CompareWithASCIIString(value, "last") != 0) {
            PyErr_Format(PyExc_ValueError,
                         "delete must be True, False or 'last', not %R",
                         value);
            return -1;
        }
        *out = DELETE_LAST;
        return 0;
    }
    if (arg_bool(value, &delete) < 0) {
        return -1;
    }
    *out = delete ? DELETE_OWN : DELETE_NOT;
    return 0;
}

static int
stale_from(PyObject *value, struct existing *out)
{
    static const char *const words[] = {
        [STALE_ATTACH] = "attach",
        [STALE_REPLACE] = "replace",
        [STALE_ERROR] = "error",
    };
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "stale must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(words); i++) {
        if (PyUnicode_CompareWithASCIIString(value, words[i]) == 0) {
            out->stale = (enum stale)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "stale must be 'attach', 'replace' or 'error', not %R",
                 value);
    return -1;
}

int
arg_existing(PyObject *exist_ok, PyObject *stale, PyObject *replace,
             struct existing *out)
{
    *out = (struct existing){0};
    if (arg_bool(exist_ok, &out->exist_ok) < 0
        || (stale != NULL && stale_from(stale, out) < 0)
        || arg_bool(replace, &out->replace) < 0) {
        return -1;
    }
    if (out->replace && out->exist_ok) {
        PyErr_SetString(PyExc_ValueError,
                        "exist_ok=True attaches to an object that exists, and "
                        "replace=True replaces it; give one of the two");
        return -1;
    }
    if (out->stale != STALE_ATTACH && !out->exist_ok) {
        PyErr_Format(PyExc_ValueError,
                     "stale=%R needs exist_ok=True; replace=True replaces "
                     "an object whether or not a process uses it", stale);
        return -1;
    }
    return 0;
}

int
arg_name(PyObject *value, struct pshm_name *out)
{
    Py_ssize_t length;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    const char *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError,
                     "bad name %A: it must not contain a surrogate "
                     "character", value);
        return -1;
    }
    const char *rule = pshm_name_parse(text, (size_t)length, out);
    if (rule != NULL) {
        PyErr_Format(PyExc_ValueError, "bad name %R: %s", value, rule);
        return -1;
    }
    return 0;
}

int
arg_file_name(PyObject *value, struct pshm_name *out)
{
    PyObject *bytes = PyUnicode_Check(value)
                      ? PyUnicode_EncodeFSDefault(value)
                      : PyErr_Format(PyExc_TypeError,
                                     "name must be a str, not %.200s",
                                     Py_TYPE(value)->tp_name);
    if (bytes == NULL) {
        return -1;
    }
    const char *wrong = pshm_name_parse(PyBytes_AS_STRING(bytes),
                                        (size_t)PyBytes_GET_SIZE(bytes), out);
    Py_DECREF(bytes);
    if (wrong != NULL) {
        PyErr_Format(PyExc_ValueError, "bad name %A: %s", value, wrong);
    }
    return wrong == NULL ? 0 : -1;
}

int
arg_new_name(PyObject *value, struct pshm_name *out)
{
    if (arg_name(value, out) < 0) {
        return -1;
    }
    if (strncmp(pshm_name_plain(out), SEMAPHORE_PREFIX,
                strlen(SEMAPHORE_PREFIX)) == 0) {
        PyErr_Format(PyExc_ValueError,
                     "bad name %R: it must not begin with '" SEMAPHORE_PREFIX
                     "', as the files of POSIX semaphores do",
                     value);
        return -1;
    }
    return 0;
}
