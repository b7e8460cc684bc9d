#include "core/sync/waiting.h"

#include <math.h>

#include "core/args.h"

/* A longer timeout, of about 146 years, is not a limit. */
#define LONGEST_SECONDS (4.6e18 / 1e9)

static void
timeout_of_seconds(double seconds, wait_timeout *out)
{
    *out = (wait_timeout){.now = seconds <= 0};
    out->deadline = out->now ? 0 : PSHM_NEVER;
    if (!out->now && seconds <= LONGEST_SECONDS) {
        out->timeout = (int64_t)(seconds * 1e9) + 1;
    }
}

static int
check_blocking(bool blocks)
{
    if (!blocks) {
        PyErr_SetString(PyExc_ValueError,
                        "can't specify a timeout for a non-blocking call");
    }
    return blocks ? 0 : -1;
}

static bool
is_minus_one(PyObject *value)
{
    bool result = (PyLong_Check(value) || PyFloat_Check(value))
                  && PyFloat_AsDouble(value) == -1.0 && !PyErr_Occurred();
    PyErr_Clear();
    return result;
}

int
timeout_of_acquire(PyObject *blocking, PyObject *value, wait_timeout *out)
{
    bool blocks = true;
    double seconds = 0;
    if (arg_bool(blocking, &blocks) < 0) {
        return -1;
    }
    *out = (wait_timeout){.now = !blocks, .deadline = PSHM_NEVER};
    if (value == NULL || value == Py_None || is_minus_one(value)) {
        return 0;
    }
    if (check_blocking(blocks) < 0
        || arg_seconds(value, "timeout", &seconds) < 0) {
        return -1;
    }
    timeout_of_seconds(seconds, out);
    return 0;
}

int
timeout_of_wait(PyObject *value, wait_timeout *out)
{
    double seconds = INFINITY;
    if (arg_timeout(value, &seconds) < 0) {
        return -1;
    }
    timeout_of_seconds(seconds, out);
    timeout_begin(out);
    return 0;
}

int
timeout_of_semaphore(PyObject *blocking, PyObject *value, wait_timeout *out)
{
    bool blocks = true;
    if (arg_bool(blocking, &blocks) < 0 || timeout_of_wait(value, out) < 0
        || (value != NULL && value != Py_None && check_blocking(blocks) < 0)) {
        return -1;
    }
    out->now |= !blocks;
    return 0;
}
