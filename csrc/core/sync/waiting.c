#include "core/sync/waiting.h"

#include <math.h>

#include "core/args.h"

/* Longer than that is for ever: some 146 years. */
#define LONGEST (4.6e18 / 1e9)

static void
timeout_of_seconds(double seconds, wait_timeout *out)
{
    *out = (wait_timeout){.now = seconds <= 0};
    out->deadline = out->now ? 0 : PSHM_NEVER;
    if (!out->now && seconds <= LONGEST) {
        out->timeout = (int64_t)(seconds * 1e9) + 1;
    }
}

/* -1, as an int or a float. */
static bool
is_minus_one(PyObject *value)
{
    return (PyLong_Check(value) || PyFloat_Check(value))
           && PyFloat_AsDouble(value) == -1.0 && !PyErr_Occurred();
}

int
timeout_of_acquire(PyObject *blocking, PyObject *timeout, wait_timeout *out)
{
    bool blocks = true;
    if (arg_bool(blocking, &blocks) < 0) {
        return -1;
    }
    *out = (wait_timeout){.now = !blocks, .deadline = PSHM_NEVER};
    if (timeout == NULL || timeout == Py_None) {
        return 0;
    }
    bool none = is_minus_one(timeout);
    PyErr_Clear();
    if (none) {
        return 0;
    }
    if (!blocks) {
        PyErr_SetString(PyExc_ValueError,
                        "can't specify a timeout for a non-blocking call");
        return -1;
    }
    double seconds = 0;
    if (arg_seconds(timeout, "timeout", &seconds) < 0) {
        return -1;
    }
    timeout_of_seconds(seconds, out);
    return 0;
}

int
timeout_of_wait(PyObject *timeout, wait_timeout *out)
{
    double seconds = INFINITY;
    if (arg_timeout(timeout, &seconds) < 0) {
        return -1;
    }
    timeout_of_seconds(seconds, out);
    timeout_begin(out);
    return 0;
}

int
timeout_of_semaphore(PyObject *blocking, PyObject *timeout, wait_timeout *out)
{
    bool blocks = true;
    if (arg_bool(blocking, &blocks) < 0 || timeout_of_wait(timeout, out) < 0) {
        return -1;
    }
    if (!blocks && timeout != NULL && timeout != Py_None) {
        PyErr_SetString(PyExc_ValueError,
                        "can't specify a timeout for a non-blocking call");
        return -1;
    }
    out->now |= !blocks;
    return 0;
}
