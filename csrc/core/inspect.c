/* _inspect: what the command reads of many objects at once. */
#include "core/core.h"

#include <string.h>

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/inspect.h"

/* The number of objects that are inspected without the GIL, before signals are
 * checked. */
#define BATCH 64

static const char *const state_names[] = {
    [PSHM_NOT_SELECTED] = "unknown",
    [PSHM_IN_USE] = "in use",
    [PSHM_FREE] = "free",
    [PSHM_UNKNOWN] = "unknown",
};

static PyObject *
row_of(PyObject *name, const struct pshm_inspected *found)
{
    const struct stat *st = &found->st;
    /* A NULL pointer for y# gives None. */
    const unsigned char *head = found->head_length < 0 ? NULL : found->head;
    Py_ssize_t length = head == NULL ? 0 : found->head_length;
    return Py_BuildValue(
        "OsNy#LKkkkkLLd", name, state_names[found->state],
        PyBool_FromLong(found->acl), head, length,
        (long long)st->st_dev, (unsigned long long)st->st_ino,
        (unsigned long)st->st_mode, (unsigned long)st->st_nlink,
        (unsigned long)st->st_uid, (unsigned long)st->st_gid,
        (long long)st->st_size, (long long)st->st_blocks * 512,
        (double)st->st_ctim.tv_sec + (double)st->st_ctim.tv_nsec / 1e9);
}

struct batch {
    struct pshm_name names[BATCH];
    struct pshm_inspected found[BATCH];
    int rc[BATCH];
};

/* Those of the sequence from start on, up to BATCH.  0 or -1. */
static int
inspect_batch(struct batch *batch, PyObject *fast, Py_ssize_t start,
              PyObject *result)
{
    Py_ssize_t count = PyTuple_GET_SIZE(fast) - start;
    count = count < BATCH ? count : BATCH;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(fast, start + i);
        if (arg_file_name(name, &batch->names[i]) < 0) {
            return -1;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        batch->rc[i] = pshm_inspect(&batch->names[i], &batch->found[i]);
    }
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(fast, start + i);
        if (batch->rc[i] == -ENOENT) {
            continue;
        }
        if (batch->rc[i] < 0) {
            raise_errno(batch->rc[i], name);
            return -1;
        }
        PyObject *row = row_of(name, &batch->found[i]);
        if (row == NULL || PyList_Append(result, row) < 0) {
            Py_XDECREF(row);
            return -1;
        }
        Py_DECREF(row);
    }
    return PyErr_CheckSignals();
}

PyDoc_STRVAR(
    inspect_doc,
    "_inspect($module, names, /)\n--\n\n"
    "A tuple for each of these files of /dev/shm that is there: name, state,\n"
    "has an ACL, its first bytes (None: they cannot be read unseen), device,\n"
    "inode, mode, links, uid, gid, size, allocated bytes, time of change.\n"
    "Nothing that a user can see is changed.");

static PyObject *
core_inspect(PyObject *Py_UNUSED(module), PyObject *names)
{
    PyObject *fast = PySequence_Tuple(names);
    struct batch *batch = PyMem_Malloc(sizeof(*batch));
    PyObject *result = NULL;
    if (fast != NULL && batch != NULL) {
        result = PyList_New(0);
    }
    else if (fast != NULL) {
        (void)PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0;
         result != NULL && i < PyTuple_GET_SIZE(fast); i += BATCH) {
        if (inspect_batch(batch, fast, i, result) < 0) {
            Py_CLEAR(result);
        }
    }
    PyMem_Free(batch);
    Py_XDECREF(fast);
    return result;
}

PyMethodDef inspect_methods[] = {
    {"_inspect", core_inspect, METH_O, inspect_doc},
    {0},
};
