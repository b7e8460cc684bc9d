#include "core/memory/taken.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/host.h"
#include "posix/object/attach.h"
#include "posix/object/use_lock.h"
#include "posix/object/unused.h"

/* The use of an object; also if it is unknown. */
struct use {
    bool unused;
    PyObject *text;                     /* or NULL, with an exception */
};

static PyObject *
pids_text(const pid_t *pids, int count, bool more)
{
    PyObject *text = PyUnicode_FromString(count == 1 ? "process "
                                                     : "processes ");
    for (int i = 0; text != NULL && i < count; i++) {
        bool own = pids[i] == pshm_process_id();
        Py_SETREF(text, PyUnicode_FromFormat("%U%s%ld%s", text,
                                             i == 0 ? "" : ", ", (long)pids[i],
                                             own ? " (this process)" : ""));
    }
    if (text != NULL) {
        Py_SETREF(text, PyUnicode_FromFormat("%U%s %s it", text,
                                             more ? " and others" : "",
                                             count == 1 ? "uses" : "use"));
    }
    return text;
}

static PyObject *
unused_text(time_t changed)
{
    char text[PSHM_CHANGED_TEXT];
    pshm_unused_changed(changed, text);
    return PyUnicode_FromFormat("no process uses it, and it was last changed "
                                "at %s", text);
}

/* Find processes without a use lock, as far as /proc shows them. Sets no
 * exception. */
static int
find_pids(core_state *state, const struct pshm_name *name, pid_t *pids,
          int most)
{
    PyObject *found = PyObject_CallMethod(state->support, "holders_of", "s",
                                          pshm_name_plain(name));
    int count = 0;
    for (Py_ssize_t i = 0; found != NULL && PyList_Check(found)
                           && i < PyList_GET_SIZE(found) && count < most; i++) {
        pids[count] = (pid_t)PyLong_AsLong(PyList_GET_ITEM(found, i));
        count += pids[count] > 0;
    }
    PyErr_Clear();
    Py_XDECREF(found);
    return count;
}

static struct use
inspect_use(core_state *state, const struct pshm_name *name)
{
    enum { MOST = 8 };
    pid_t pids[MOST + 1];
    struct pshm_unused unused;
    struct use use = {0};
    int count, rc = -EBUSY;
    Py_BEGIN_ALLOW_THREADS
    count = pshm_use_lock_holders(name->path, pids, MOST + 1);
    if (count == 0) {
        rc = pshm_unused_hold(name, &unused);
        if (rc == 0) {
            pshm_unused_release(&unused);
        }
    }
    Py_END_ALLOW_THREADS
    if (count == 0 && rc == -EBUSY) {
        count = find_pids(state, name, pids, MOST + 1);
    }
    if (count > 0) {
        use.text = pids_text(pids, count > MOST ? MOST : count, count > MOST);
    }
    else if (rc == 0) {
        use.unused = true;
        use.text = unused_text(unused.changed);
    }
    else if (rc == -EBUSY) {
        use.text = PyUnicode_FromString("a process uses it, which is not "
                                        "visible from here");
    }
    else if (rc == -ENOENT) {
        use.text = PyUnicode_FromString("its name was removed meanwhile");
    }
    else {
        use.text = PyUnicode_FromString("whether a process uses it is "
                                        "unknown");
    }
    return use;
}

static const char *
advice(enum taken_by how, bool unused)
{
    switch (how) {
    case TAKEN_MAKING:
        return unused ? "replace=True, or exist_ok=True with stale='replace', "
                        "makes a new one; exist_ok=True attaches to the old "
                        "one"
                      : "exist_ok=True attaches to it; replace=True gives the "
                        "name to a new object, and processes that use the old "
                        "one are not affected";
    case TAKEN_ATTACHING:
        return unused ? "stale='replace' makes a new one"
                      : "replace=True instead of exist_ok=True gives the name "
                        "to a new object, and processes that use the old one "
                        "are not affected";
    case TAKEN_STALE:
        return "stale='replace' makes a new one, stale='attach' attaches to "
               "the old one";
    case TAKEN_LINKING:
        return unused ? "replace=True takes the name from it"
                      : "replace=True takes the name from it, and processes "
                        "that use it are not affected";
    case TAKEN_DROPIN:
        break;
    }
    return "without create=True the constructor attaches to it, and without a "
           "name it chooses a random one";
}

PyObject *
raise_taken(core_state *state, PyObject *filename,
            const struct pshm_name *name, enum taken_by how, PyObject *what)
{
    if (what == NULL) {
        return NULL;
    }
    struct use use = inspect_use(state, name);
    if (use.text != NULL) {
        raise_errno_words(-EEXIST, filename, "%U; %U: %s", what, use.text,
                          advice(how, use.unused));
    }
    Py_XDECREF(use.text);
    Py_DECREF(what);
    return NULL;
}

PyObject *
raise_name_taken(core_state *state, PyObject *filename,
                 const struct pshm_name *name, enum taken_by how)
{
    struct pshm_status status;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_status_of_name(name, &status);
    Py_END_ALLOW_THREADS
    if (rc == 0 && !S_ISREG(status.mode)) {
        return raise_errno_words(-EEXIST, filename,
                                 "The name is taken, not by a shared memory "
                                 "object, but by %s",
                                 kind_of_file(status.mode));
    }
    return raise_taken(state, filename, name, how,
                       PyUnicode_FromString("An object of that name exists"));
}

/* _raise_unfit(name, what): exist_ok has found an unfit object. */
static PyObject *
raise_unfit(PyObject *module, PyObject *args)
{
    PyObject *name, *what;
    struct pshm_name path;
    if (!PyArg_ParseTuple(args, "UU:_raise_unfit", &name, &what)
        || arg_name(name, &path) < 0) {
        return NULL;
    }
    return raise_taken(core_state_of_module(module), name, &path,
                       TAKEN_ATTACHING, Py_NewRef(what));
}

PyMethodDef taken_methods[] = {
    {"_raise_unfit", raise_unfit, METH_VARARGS, NULL},
    {0},
};
