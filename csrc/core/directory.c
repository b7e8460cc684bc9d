/* listdir and reclaim. */
#include "core.h"

#include <math.h>
#include <string.h>

#include "args.h"
#include "errors.h"

#include "posix/directory.h"
#include "posix/reclaim.h"

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

static PyObject *
action_of(int verdict)
{
    switch (verdict) {
    case PSHM_REMOVED:
        return PyUnicode_FromString("removed");
    case PSHM_REMOVABLE:
        return PyUnicode_FromString("removable");
    case PSHM_IN_USE:
        return PyUnicode_FromString("in use");
    default:
        return PyUnicode_FromFormat("failed: %s", strerror(-verdict));
    }
}

static int
append_row(PyObject *list, core_state *state,
           const struct pshm_candidate *candidate)
{
    if (candidate->verdict == PSHM_NOT_SELECTED) {
        return 0;
    }
    PyObject *row = PyStructSequence_New(state->reclaimed_type);
    if (row == NULL) {
        return -1;
    }
    PyObject *fields[] = {
        PyUnicode_DecodeFSDefault(pshm_name_plain(&candidate->name)),
        PyLong_FromLongLong((long long)candidate->size),
        PyFloat_FromDouble(candidate->age),
        action_of(candidate->verdict),
    };
    int rc = 0;
    for (int i = 0; i < 4; i++) {
        rc = fields[i] == NULL ? -1 : rc;
        PyStructSequence_SetItem(row, i, fields[i]);
    }
    if (rc == 0) {
        rc = PyList_Append(list, row);
    }
    Py_DECREF(row);
    return rc;
}

/* As many objects as are seized at a time, each with a descriptor. */
#define BATCH 64

static PyObject *
reclaim_names(core_state *state, const struct pshm_names *names,
              double older_than, bool dry_run, dev_t device)
{
    struct pshm_candidate *candidates = PyMem_New(struct pshm_candidate,
                                                  BATCH);
    PyObject *result = candidates == NULL ? PyErr_NoMemory() : PyList_New(0);
    for (size_t at = 0; result != NULL && at < names->length;) {
        int count;
        Py_BEGIN_ALLOW_THREADS
        count = pshm_reclaim_some(names, &at, older_than, dry_run, device,
                                  candidates, BATCH);
        Py_END_ALLOW_THREADS
        int rc = count;
        if (count < 0) {
            raise_errno(count, NULL);
        }
        for (int i = 0; rc >= 0 && i < count; i++) {
            rc = append_row(result, state, &candidates[i]);
        }
        if (rc < 0 || PyErr_CheckSignals() < 0) {
            Py_CLEAR(result);
        }
    }
    PyMem_Free(candidates);
    return result;
}

PyDoc_STRVAR(
    reclaim_doc,
    "reclaim(prefix=None, *, older_than=None, dry_run=False)\n--\n\n"
    "Remove names of objects that nobody uses any more, of those selected.\n\n"
    "prefix: what the names start with.  older_than: seconds since the object\n"
    "was linked, sized or given a mode or owner, or a page of it first used.\n"
    "At least one of the two is needed.  dry_run: only say what would go.\n\n"
    "In use is what a handle or a view has, in any process: the lock that\n"
    "these hold, " MAN(flock, 2) ", cannot be seized; and, as other programs\n"
    "hold no lock, what a process has mapped that this one may look at:\n"
    MAN(proc, 5) ".  Never waits.\n\n"
    "Returns a list of Reclaimed(name, size, age, action), sizes in bytes,\n"
    "ages in seconds; action is 'removed', 'removable' (dry_run), 'in use' or\n"
    "'failed: ' and why.  Raises ValueError, TypeError, OSError.");

static PyObject *
core_reclaim(PyObject *module, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const keywords[] = {"prefix", "older_than", "dry_run",
                                           NULL};
    static const struct signature signature = {"reclaim", 1, 0, keywords};
    PyObject *values[3];
    double older_than = -INFINITY;
    bool dry_run = false;
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    const char *prefix = parse_prefix(values[0]);
    if (prefix == NULL
        || arg_seconds(values[1], "older_than", &older_than) < 0
        || arg_bool(values[2], &dry_run) < 0) {
        return NULL;
    }
    if (*prefix == '\0' && older_than < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "reclaim() takes a prefix or older_than, or both");
        return NULL;
    }
    struct pshm_names names = PSHM_NAMES_NONE;
    dev_t device = 0;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_names_list(prefix, &names);
    if (rc == 0) {
        rc = pshm_directory_device(&device);
    }
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (rc < 0) {
        raise_errno(rc, NULL);
    }
    else {
        result = reclaim_names(core_state_of_module(module), &names,
                               older_than, dry_run, device);
    }
    pshm_names_free(&names);
    return result;
}

static PyStructSequence_Field reclaimed_fields[] = {
    {"name", "the object's name, without a slash"},
    {"size", "bytes"},
    {"age", "seconds since its status changed"},
    {"action", "'removed', 'removable', 'in use' or 'failed: ' and why"},
    {NULL, NULL},
};

static PyStructSequence_Desc reclaimed_desc = {
    .name = "posixshm.Reclaimed",
    .doc = "What reclaim() found, and did about it.",
    .fields = reclaimed_fields,
    .n_in_sequence = 4,
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
    {0},
};
