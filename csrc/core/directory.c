/* listdir and reclaim. */
#include "core/core.h"

#include <math.h>
#include <string.h>

#include "core/args.h"
#include "core/audit.h"
#include "core/errors.h"

#include "posix/object/directory.h"
#include "posix/object/reclaim.h"

/* A prefix of names; "" where value is NULL or None.  NULL: an exception. */
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
                     "bad prefix %A: it must have at least one character, "
                     "and no slash, null character or surrogate",
                     value);
        return NULL;
    }
    return text;
}

PyDoc_STRVAR(
    listdir_doc,
    "listdir()\n--\n\n"
    "The names of the shared memory objects that are there, a list of str in\n"
    "no order: what " MAN(readdir, 3) " says of /dev/shm.\n\n"
    "POSIX semaphores, whose names start with 'sem.', are left out.  Raises\n"
    "OSError where the directory cannot be read.");

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

/* An OSError about the object, or None. */
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

/* As many objects as are inspected between two looks at signals. */
#define BATCH 256

/* Inspect all the names, and remove what may be.  0 or -1. */
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
    "Remove the names of objects that no process uses.\n\n"
    "prefix: what the names start with.  older_than: seconds since the object\n"
    "was linked, sized or given a mode or owner, or a page of it first used.\n"
    "At least one of the two is needed.  dry_run: remove nothing.  force:\n"
    "remove also objects whose state is unknown.\n\n"
    "Returns a list of Reclaimed(name, size, age, state, removed, error,\n"
    "uninspected), sizes in bytes, ages in seconds.  The state is\n\n"
    "'free'     if the kernel granted a write lease, " MAN(fcntl, 2) ": no\n"
    "           process of this machine has the object open or mapped, also\n"
    "           not of another user or in another container;\n"
    "'in use'   if a process has it open or mapped;\n"
    "'unknown'  if the kernel does not tell, because the object is another\n"
    "           user's or Linux is older than 5.3, and no process is seen to\n"
    "           use it: uninspected is the number of processes in /proc whose\n"
    "           files this process may not inspect; those of other PID\n"
    "           namespaces are not in it.\n\n"
    "error is the OSError why a name could not be removed, or None.  Never\n"
    "waits.  Raises ValueError, TypeError, OSError.");

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
                        "reclaim() takes a prefix or older_than, or both");
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
    "reclaim() of exactly these files of /dev/shm, a sequence of str; also of\n"
    "the files of POSIX semaphores, sem.NAME.");

/* Append the names of a sequence of str.  0 or -1. */
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
                        "_reclaim_files() takes 3 arguments");
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
    {"name", "the object's name, without a slash"},
    {"size", "bytes"},
    {"age", "seconds since its status changed"},
    {"state", "'free', 'in use' or 'unknown'"},
    {"removed", "whether the name was removed"},
    {"error", "why it could not be removed: an OSError, or None"},
    {"uninspected", "processes that could not be inspected, if unknown"},
    {NULL, NULL},
};

static PyStructSequence_Desc reclaimed_desc = {
    .name = "posixshm.Reclaimed",
    .doc = "What reclaim() found, and what it did.",
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
