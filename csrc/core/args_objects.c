/* The arguments about objects: names, owners, and existing objects. */
#include "core/args.h"

#include <string.h>

#define SEMAPHORE_PREFIX "sem."

int
arg_owners(core_state *state, PyObject *value, struct pshm_owners *out)
{
    if (value == NULL) {
        return 0;
    }
    if (PyUnicode_Check(value)
        && PyUnicode_CompareWithASCIIString(value, "any") == 0) {
        *out = PSHM_OWNERS_ANY;
        return 0;
    }
    if (PyUnicode_Check(value)
        && PyUnicode_CompareWithASCIIString(value, "self") == 0) {
        *out = pshm_owners_self();
        return 0;
    }
    PyObject *uids = PyObject_CallMethod(state->support, "accepted_uids", "Oi",
                                         value, PSHM_OWNERS_MAX);
    if (uids == NULL) {
        return -1;
    }
    out->count = (int)PyTuple_GET_SIZE(uids);
    for (int i = 0; i < out->count; i++) {
        out->uids[i] = (uid_t)PyLong_AsLong(PyTuple_GET_ITEM(uids, i));
    }
    Py_DECREF(uids);
    return 0;
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
    bool is_text = PyUnicode_Check(value);
    for (size_t i = 0; is_text && i < Py_ARRAY_LENGTH(words); i++) {
        if (PyUnicode_CompareWithASCIIString(value, words[i]) == 0) {
            out->stale = (enum stale)i;
            return 0;
        }
    }
    PyErr_Format(is_text ? PyExc_ValueError : PyExc_TypeError,
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
