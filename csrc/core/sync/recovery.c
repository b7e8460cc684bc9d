#include "core/sync/recovery.h"

#include "posix/host.h"

int
recovery_check(PyObject *callback)
{
    if (callback == NULL || PyCallable_Check(callback)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "on_owner_died must be callable or None, not %.200s",
                 Py_TYPE(callback)->tp_name);
    return -1;
}

int
recovery_parse(placed_params *params)
{
    return recovery_check(params->values[0]);
}

PyObject *
recovery_values(const struct recovery *recovery)
{
    PyObject *callback = recovery->callback;
    return Py_BuildValue("{sO}", "on_owner_died",
                         callback != NULL ? callback : Py_None);
}

int
recovery_call(struct recovery *recovery, PyObject *lock)
{
    atomic_store(&recovery->running, pshm_forks() + 1);
    PyObject *result = PyObject_CallOneArg(recovery->callback, lock);
    atomic_store(&recovery->running, 0);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
recovery_check_release(const struct recovery *recovery)
{
    if (atomic_load_explicit(&recovery->running, memory_order_relaxed)
        != pshm_forks() + 1) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "on_owner_died must not release the lock; the caller of "
                    "acquire() releases it");
    return -1;
}

int
recovery_raise(PlacedObject *self, int rc)
{
    PyObject *type = core_state_of_type(Py_TYPE(self))->owner_died_type;
    PyObject *error = PyObject_CallFunction(
        type, "is", EOWNERDEAD,
        rc == -EINPROGRESS
            ? "The object that held the lock was deallocated, but the thread "
              "that acquired it still runs; acquire(recover=True) acquires the "
              "lock once that thread uses another lock or ends"
            : "The owner of the lock died while it held the lock, so what the "
              "lock protects may be half changed; acquire(recover=True) "
              "acquires it, and the caller then repairs that");
    if (error != NULL) {
        PyErr_SetObject(type, error);
        Py_DECREF(error);
    }
    return -1;
}

int
recovery_raise_not_held(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "cannot release a lock that this thread has not acquired "
                    "by this object");
    return -1;
}

const char recovery_doc[] =
    "True if the last acquire by this object recovered the lock from an owner\n"
    "that had died.";

PyObject *
recovery_get(PyObject *op, void *closure)
{
    const struct recovery *recovery =
        (const void *)((const char *)op + (uintptr_t)closure);
    return PyBool_FromLong(atomic_load(&recovery->recovered));
}

int
recovery_add_type(PyObject *module, core_state *state)
{
    PyObject *type = PyErr_NewExceptionWithDoc(
        "posixshm.OwnerDiedError",
        "The owner of a lock, a process or a thread, died while it held the\n"
        "lock (EOWNERDEAD).\n\n"
        "The thread that receives this error does not hold the lock.",
        PyExc_OSError, NULL);
    state->owner_died_type = type;
    return type == NULL
               ? -1 : PyModule_AddObjectRef(module, "OwnerDiedError", type);
}
