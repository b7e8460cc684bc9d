/* What differs between the versions of CPython, 3.11 to 3.15, and between
 * builds with and without the GIL.  No other file asks for a version. */
#ifndef CORE_COMPAT_H
#define CORE_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_READONLY READONLY
#endif

/* Critical sections: locks of an object in builds without the GIL, nothing in
 * others.  A section ends wherever the thread lets go of the interpreter, so
 * it protects fields, never a system call. */
#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(a, b) {
#define Py_END_CRITICAL_SECTION2() }
#endif

/* Slots that only newer versions know; none of them is an error to leave out
 * elsewhere, for there is nothing to declare. */
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

#endif
