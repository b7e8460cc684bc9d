#include "core/memory/taken.h"

#include "core/errors.h"

#include "posix/object/attach.h"

PyObject *
raise_taken(core_state *state, PyObject *filename,
            const struct pshm_name *name, const char *operation,
            PyObject *what)
{
    if (what == NULL) {
        return NULL;
    }
    PyObject *text = PyObject_CallMethod(state->support, "explain_taken",
                                         "ssO", pshm_name_plain(name),
                                         operation, what);
    if (text != NULL) {
        raise_errno_words(-EEXIST, filename, "%U", text);
    }
    Py_XDECREF(text);
    Py_DECREF(what);
    return NULL;
}

PyObject *
raise_name_taken(core_state *state, PyObject *filename,
                 const struct pshm_name *name, const char *operation)
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
    return raise_taken(state, filename, name, operation,
                       PyUnicode_FromString("An object of that name exists"));
}
