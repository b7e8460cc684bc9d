/* listdir() and reclaim(). */
#include "core/core.h"

#include <math.h>
#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"

#include "posix/object/directory.h"
#include "posix/object/reclaim.h"

/* The prefix of names that value means, "" if it is NULL or None; NULL with an
 * exception.  It is borrowed from value. */
static const char *
parse_prefix(PyObject *value)
{
    if (value == NULL || value == Py_None) {
        return "";
    }
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "prefix must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return NULL;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text != NULL && length > 0 && text[0] == '/') {
        text++;
        length--;
    }
    if (text == NULL || length == 0 || strlen(text) != (size_t)length
        || strchr(text, '/') != NULL) {
        PyErr_Format(PyExc_ValueError,
                     "bad prefix %A: it must not be empty, and must not "
                     "contain slashes, null characters or surrogates",
                     value);
        return NULL;
    }
    return text;
}

PyDoc_STRVAR(
    listdir_doc,
    "listdir()\n--\n\n"
    "Return the names of the shared memory objects, a list of str.\n\n"
    "The order is that of " MAN(readdir, 3) " in /dev/shm.  The files of\n"
    "POSIX semaphores, whose names start with 'sem.', are left out.\n\n"
    "Raises OSError if the directory cannot be read.");

static PyObject *
core_listdir(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct pshm_names names;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_names_list("", &names);
    Py_END_ALLOW_THREADS
    PyObject *result = rc < 0 ? NULL : PyList_New(0);
    for (size_t at = 0; result != NULL && at < names.length;) {
        PyObject *name = PyUnicode_DecodeFSDefault(names.text + at);
        if (name == NULL || PyList_Append(result, name) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(name);
        at += strlen(names.text + at) + 1;
    }
    pshm_names_free(&names);
    return rc < 0 ? raise_errno(rc, NULL) : result;
}

/* ---- reclaim ---- */

static const char *const state_names[] = {
    [PSHM_IN_USE] = "in use",
    [PSHM_FREE] = "free",
    [PSHM_UNKNOWN] = "unknown",
};

/* Why a name could not be removed: an OSError or None; NULL with an
 * exception. */
static PyObject *
error_of(const struct pshm_candidate *candidate, PyObject *name)
{
    if (candidate->error == 0) {
        Py_RETURN_NONE;
    }
    return PyObject_CallFunction(PyExc_OSError, "isO", -candidate->error,
                                 strerror(-candidate->error), name);
}

static int
append_row(PyObject *list, core_state *state,
           const struct pshm_candidate *candidate)
{
    PyObject *row = PyStructSequence_New(state->reclaimed_type);
    PyObject *name = PyUnicode_DecodeFSDefault(
        pshm_name_plain(&candidate->name));
    if (row == NULL || name == NULL) {
        Py_XDECREF(row);
        Py_XDECREF(name);
        return -1;
    }
    PyObject *fields[] = {
        name,
        PyLong_FromLongLong((long long)candidate->size),
        PyFloat_FromDouble(candidate->age),
        PyUnicode_FromString(state_names[candidate->state]),
        PyBool_FromLong(candidate->removed),
        error_of(candidate, name),
        PyLong_FromSize_t(candidate->uninspected),
    };
    int rc = 0;
    for (Py_ssize_t i = 0; i < (Py_ssize_t)Py_ARRAY_LENGTH(fields); i++) {
        rc = fields[i] == NULL ? -1 : rc;
        PyStructSequence_SetItem(row, i, fields[i]);
    }
    if (rc == 0) {
        rc = PyList_Append(list, row);
    }
    Py_DECREF(row);
    return rc;
}

/* The number of objects to inspect between two checks for signals. */
#define BATCH 256

/* Inspect the objects with these names and, if remove is true, remove the
 * names of unused ones.  Returns 0, or -1 with an exception. */
static int
reclaim_all(const struct pshm_names *names, double older_than, bool remove,
            bool force, struct pshm_candidate *candidates, size_t count)
{
    const char *text = names->text;
    for (size_t i = 0; i < count;) {
        Py_BEGIN_ALLOW_THREADS
        for (size_t end = i + BATCH; i < count && i < end; i++) {
            pshm_reclaim(text, older_than, remove, &candidates[i]);
            text += strlen(text) + 1;
        }
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_reclaim_unknown(candidates, count, remove && force);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        raise_errno(rc, NULL);
    }
    return rc;
}

static PyObject *
reclaim_names(core_state *state, const struct pshm_names *names,
              double older_than, bool remove, bool force)
{
    size_t count = 0;
    for (size_t at = 0; at < names->length; count++) {
        at += strlen(names->text + at) + 1;
    }
    struct pshm_candidate *candidates = PyMem_New(struct pshm_candidate,
                                                  count);
    PyObject *result = candidates == NULL ? PyErr_NoMemory() : PyList_New(0);
    if (result != NULL
        && reclaim_all(names, older_than, remove, force, candidates, count)
               < 0) {
        Py_CLEAR(result);
    }
    for (size_t i = 0; result != NULL && i < count; i++) {
        if (candidates[i].state != PSHM_NOT_SELECTED
            && append_row(result, state, &candidates[i]) < 0) {
            Py_CLEAR(result);
        }
    }
    PyMem_Free(candidates);
    return result;
}

PyDoc_STRVAR(
    reclaim_doc,
    "reclaim(prefix=None, *, older_than=None, dry_run=False, force=False)\n"
    "--\n\n"
    "Remove the names of shared memory objects that no process uses.\n\n"
    "prefix: the start of the names; None: any.\n"
    "older_than: the least age in seconds, since the object was linked,\n"
    "resized or given another mode or owner, or one of its pages was first\n"
    "used; None: any.  At least one of prefix and older_than is necessary.\n"
    "dry_run: do not remove names.\n"
    "force: also remove the names of objects whose state is unknown.\n\n"
    "Returns a list of Reclaimed(name, size, age, state, removed, error,\n"
    "uninspected), with sizes in bytes and ages in seconds.\n\n"
    "The state 'free' means that the kernel granted a write lease: see\n"
    MAN(fcntl, 2) ".  It does so only if no process has the object open or\n"
    "mapped, of any user and in any container of this machine.  'in use'\n"
    "means that a process has it open or mapped.  'unknown' means that the\n"
    "kernel cannot grant write leases on it, because it belongs to another\n"
    "user or Linux is older than 5.3, and no visible process uses it.\n"
    "uninspected is then the number of processes in /proc whose files the\n"
    "caller may not inspect; processes in other PID namespaces are not\n"
    "counted.  error is the OSError with which removing the name failed, or\n"
    "None.  The function does not wait for locks.\n\n"
    "Raises ValueError for a bad prefix or if prefix and older_than are both\n"
    "None, TypeError for an argument of another type, and OSError if /dev/shm\n"
    "or /proc cannot be read.");

static PyObject *
core_reclaim(PyObject *module, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const keywords[] = {"prefix", "older_than", "dry_run",
                                           "force", NULL};
    static const struct signature signature = {"reclaim", 1, 0, keywords};
    PyObject *values[4];
    double older_than = -INFINITY;
    bool dry_run = false, force = false;
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    const char *prefix = parse_prefix(values[0]);
    if (prefix == NULL
        || arg_seconds(values[1], "older_than", &older_than) < 0
        || arg_bool(values[2], &dry_run) < 0
        || arg_bool(values[3], &force) < 0) {
        return NULL;
    }
    if (*prefix == '\0' && older_than < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "reclaim() needs the argument prefix or older_than, or "
                        "both");
        return NULL;
    }
    if (!dry_run && audit_reclaim(prefix, older_than, force) < 0) {
        return NULL;
    }
    struct pshm_names names = PSHM_NAMES_NONE;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_names_list(prefix, &names);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (rc < 0) {
        raise_errno(rc, NULL);
    }
    else {
        result = reclaim_names(core_state_of_module(module), &names,
                               older_than, !dry_run, force);
    }
    pshm_names_free(&names);
    return result;
}

PyDoc_STRVAR(
    reclaim_files_doc,
    "_reclaim_files($module, names, older_than, force, /)\n--\n\n"
    "Do what reclaim() does for these files of /dev/shm, a sequence of str.\n\n"
    "They may also be the files of POSIX semaphores, sem.NAME.");

/* Append the names in a sequence of str.  Returns 0, or -1 with an
 * exception. */
static int
collect_files(PyObject *sequence, struct pshm_names *names)
{
    PyObject *fast = PySequence_Tuple(sequence);
    int rc = fast == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyTuple_GET_SIZE(fast);
         i++) {
        struct pshm_name name;
        rc = arg_file_name(PyTuple_GET_ITEM(fast, i), &name);
        if (rc == 0 && pshm_names_add(names, pshm_name_plain(&name)) < 0) {
            (void)PyErr_NoMemory();
            rc = -1;
        }
    }
    Py_XDECREF(fast);
    return rc;
}

static PyObject *
core_reclaim_files(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    double older_than;
    bool force;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError,
                        "_reclaim_files() takes exactly 3 arguments");
        return NULL;
    }
    if (arg_seconds(args[1], "older_than", &older_than) < 0
        || arg_bool(args[2], &force) < 0) {
        return NULL;
    }
    struct pshm_names names = PSHM_NAMES_NONE;
    PyObject *result = NULL;
    if (audit_reclaim("", older_than, force) == 0
        && collect_files(args[0], &names) == 0) {
        result = reclaim_names(core_state_of_module(module), &names,
                               older_than, true, force);
    }
    pshm_names_free(&names);
    return result;
}

static PyStructSequence_Field reclaimed_fields[] = {
    {"name", "The object's name, without a slash."},
    {"size", "The size in bytes."},
    {"age", "Seconds since the object's status changed."},
    {"state", "'free', 'in use' or 'unknown'."},
    {"removed", "Whether the name was removed."},
    {"error", "The OSError with which removing the name failed, or None."},
    {"uninspected", "The number of processes that the caller may not inspect, "
                    "if the state is 'unknown'."},
    {NULL, NULL},
};

static PyStructSequence_Desc reclaimed_desc = {
    .name = "posixshm.Reclaimed",
    .doc = "An object that reclaim() inspected, and the result.",
    .fields = reclaimed_fields,
    .n_in_sequence = 7,
};

int
directory_add_types(PyObject *module, core_state *state)
{
    state->reclaimed_type = PyStructSequence_NewType(&reclaimed_desc);
    if (state->reclaimed_type == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->reclaimed_type);
}

PyMethodDef directory_methods[] = {
    {"listdir", core_listdir, METH_NOARGS, listdir_doc},
    {"reclaim", (PyCFunction)(void (*)(void))core_reclaim,
     METH_FASTCALL | METH_KEYWORDS, reclaim_doc},
    {"_reclaim_files", (PyCFunction)(void (*)(void))core_reclaim_files,
     METH_FASTCALL, reclaim_files_doc},
    {0},
};
