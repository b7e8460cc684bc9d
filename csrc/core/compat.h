/* The differences between CPython 3.11 to 3.15, and between builds with and
 * without the GIL. No other file tests the version. */
#ifndef CORE_COMPAT_H
#define CORE_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_BOOL T_BOOL
#define Py_T_INT T_INT
#define Py_T_OBJECT_EX T_OBJECT_EX
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_READONLY READONLY
#endif

/* Slots that only newer versions support. Older versions do not need them. */
#if PY_VERSION_HEX >= 0x030C0000
#define CORE_SLOT_INTERPRETERS \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#define CORE_SLOT_INTERPRETERS
#endif
#if PY_VERSION_HEX >= 0x030D0000
#define CORE_SLOT_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#define CORE_SLOT_GIL
#endif

/* Take the exception that is set, which may be NULL; and set it again. */
#if PY_VERSION_HEX >= 0x030C0000
#define core_take_error PyErr_GetRaisedException
#define core_set_error PyErr_SetRaisedException
#else
static inline PyObject *
core_take_error(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(error, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

static inline void
core_set_error(PyObject *error)
{
    PyErr_Restore(error == NULL ? NULL : Py_NewRef(Py_TYPE(error)), error,
                  error == NULL ? NULL : PyException_GetTraceback(error));
}
#endif

/* Does op have this number of references? Without the GIL the count is the sum
 * of two numbers that are read one after the other. If one thread acquires a
 * reference while another thread releases one, a single sum can be too small,
 * but not 64 sums in a row. */
static inline int
has_references(PyObject *op, Py_ssize_t references)
{
#ifdef Py_GIL_DISABLED
    for (int i = 0; i < 64; i++) {
        if (Py_REFCNT(op) != references) {
            return 0;
        }
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return 1;
#else
    return Py_REFCNT(op) == references;
#endif
}

#endif
