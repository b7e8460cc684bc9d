#include "core/memory/taken.h"

#include "core/args.h"
#include "core/errors.h"

#include "posix/object/attach.h"
#include "posix/object/use_lock.h"
#include "posix/object/unused.h"

/* In use also if that is unknown. */
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
        Py_SETREF(text, PyUnicode_FromFormat("%U%s%ld", text,
                                             i == 0 ? "" : ", ",
                                             (long)pids[i]));
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

/* Of processes without a use lock, as far as /proc shows them; no exception. */
static int
find_pids(const struct pshm_name *name, pid_t *pids, int most)
{
    PyObject *module = PyImport_ImportModule("posixshm._holders");
    PyObject *holders = module == NULL
                            ? NULL : PyObject_CallMethod(module, "holders", "s",
                                                         pshm_name_plain(name));
    PyObject *found = holders == NULL
                          ? NULL : PySequence_Fast(holders, "not a list");
    int count = 0;
    for (Py_ssize_t i = 0; found != NULL && i < PySequence_Fast_GET_SIZE(found)
                           && count < most; i++) {
        PyObject *pid = PyObject_GetAttrString(
            PySequence_Fast_GET_ITEM(found, i), "pid");
        pids[count] = pid == NULL ? -1 : (pid_t)PyLong_AsLong(pid);
        count += pids[count] > 0;
        Py_XDECREF(pid);
    }
    PyErr_Clear();
    Py_XDECREF(found);
    Py_XDECREF(holders);
    Py_XDECREF(module);
    return count;
}

static struct use
inspect_use(const struct pshm_name *name)
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
        count = find_pids(name, pids, MOST + 1);
    }
    if (count > 0) {
        use.text = pids_text(pids, count > MOST ? MOST : count, count > MOST);
    }
    else if (rc == 0) {
        use.unused = true;
        use.text = unused_text(unused.changed);
    }
    else if (rc == -EBUSY) {
        use.text = PyUnicode_FromString("a process uses it, which cannot be "
                                        "seen from here");
    }
    else if (rc == -ENOENT) {
        use.text = PyUnicode_FromString("its name was removed just now");
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
                        "makes a new one; exist_ok=True attaches to what is "
                        "left"
                      : "exist_ok=True attaches to it; replace=True gives the "
                        "name to a new one, and processes that have the old "
                        "one keep it";
    case TAKEN_ATTACHING:
        return unused ? "stale='replace' makes a new one"
                      : "replace=True instead of exist_ok=True gives the name "
                        "to a new one, and processes that have the old one "
                        "keep it";
    case TAKEN_STALE:
        return "stale='replace' makes a new one, stale='attach' attaches to "
               "what is left";
    case TAKEN_LINKING:
        return unused ? "replace=True takes the name from it"
                      : "replace=True takes the name from it, and processes "
                        "that have it keep it";
    case TAKEN_DROPIN:
        break;
    }
    return "without create=True the constructor attaches to it, and without a "
           "name it chooses a name that is free";
}

PyObject *
raise_taken(PyObject *filename, const struct pshm_name *name,
            enum taken_by how, PyObject *what)
{
    if (what == NULL) {
        return NULL;
    }
    struct use use = inspect_use(name);
    if (use.text != NULL) {
        raise_errno_words(-EEXIST, filename, "%U; %U: %s", what, use.text,
                          advice(how, use.unused));
    }
    Py_XDECREF(use.text);
    Py_DECREF(what);
    return NULL;
}

PyObject *
raise_name_taken(PyObject *filename, const struct pshm_name *name,
                 enum taken_by how)
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
    return raise_taken(filename, name, how,
                       PyUnicode_FromString("An object of that name exists"));
}

/* _raise_unfit(name, what): exist_ok found an object that does not fit. */
static PyObject *
raise_unfit(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *name, *what;
    struct pshm_name path;
    if (!PyArg_ParseTuple(args, "UU:_raise_unfit", &name, &what)
        || arg_name(name, &path) < 0) {
        return NULL;
    }
    return raise_taken(name, &path, TAKEN_ATTACHING, Py_NewRef(what));
}

PyMethodDef taken_methods[] = {
    {"_raise_unfit", raise_unfit, METH_VARARGS, NULL},
    {0},
};
