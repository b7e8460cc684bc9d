#include "core/memory/last.h"

#include "core/audit.h"
#include "core/memory/handle.h"

struct last {
    fields_mutex fields;
    atomic_int users;
    bool wanted;                        /* under fields, as is path */
    bool track;
    struct pshm_name path;
    struct pshm_identity id;
    PyObject *support;
};

struct last *
last_new(PyObject *support, const struct pshm_name *path,
         struct pshm_identity id, bool track)
{
    struct last *last = PyMem_Calloc(1, sizeof(*last));
    if (last == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    atomic_init(&last->users, 1);
    last->wanted = true;
    last->track = track;
    last->path = *path;
    last->id = id;
    last->support = Py_NewRef(support);
    return last;
}

static bool
is_wanted(struct last *last, struct pshm_name *path)
{
    bool wanted;
    fields_lock(&last->fields);
    wanted = last->wanted;
    *path = last->path;
    fields_unlock(&last->fields);
    return wanted;
}

struct last *
last_share(struct last *last)
{
    if (last != NULL) {
        atomic_fetch_add_explicit(&last->users, 1, memory_order_relaxed);
    }
    return last;
}

void
last_rename(struct last *last, const struct pshm_name *path)
{
    if (last != NULL) {
        fields_lock(&last->fields);
        last->path = *path;
        fields_unlock(&last->fields);
    }
}

void
last_cancel(struct last *last)
{
    if (last != NULL) {
        fields_lock(&last->fields);
        last->wanted = false;
        fields_unlock(&last->fields);
    }
}

/* This process has removed the name. */
static void
note_removed(struct last *last, const struct pshm_name *path)
{
    last_cancel(last);
    if (last->track) {
        PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
        if (name != NULL) {
            handle_untrack(last->support, name);
            Py_DECREF(name);
        }
        PyErr_Clear();
    }
}

/* Raise the audit event, which precedes the attempt, so it is also raised if
 * the name is not removed then. Returns whether to remove it. */
static bool
may_remove(struct last *last, struct pshm_name *path)
{
    if (!is_wanted(last, path)) {
        return false;
    }
    if (audit_unlink(path) < 0) {
        PyErr_WriteUnraisable(last->support);
        return false;
    }
    return true;
}

void
last_before(struct last *last, struct last_unmap *unmap)
{
    unmap->wanted = false;
    if (last == NULL) {
        return;
    }
    PyObject *error = core_take_error();
    unmap->wanted = may_remove(last, &unmap->path);
    core_set_error(error);
    if (unmap->wanted) {
        Py_BEGIN_ALLOW_THREADS
        pshm_last_begin(&unmap->path, last->id, &unmap->end);
        Py_END_ALLOW_THREADS
    }
}

void
last_after(struct last *last, struct last_unmap *unmap)
{
    int rc = -ESTALE;
    if (last == NULL) {
        return;
    }
    if (unmap->wanted) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_last_end(&unmap->end, &unmap->path, last->id);
        Py_END_ALLOW_THREADS
    }
    if (rc == 0) {
        PyObject *error = core_take_error();
        note_removed(last, &unmap->path);
        core_set_error(error);
    }
    /* acq_rel: what other owners did comes before it is freed. */
    if (atomic_fetch_sub_explicit(&last->users, 1, memory_order_acq_rel)
        == 1) {
        Py_DECREF(last->support);
        PyMem_Free(last);
    }
}

void
last_leave(struct last *last, int fd, bool alone)
{
    struct pshm_name path;
    int rc;
    if (!may_remove(last, &path)) {
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_last_leave(fd, alone, &path, last->id);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        note_removed(last, &path);
    }
}
