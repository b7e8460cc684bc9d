/* The floor: an extension that makes the system calls, or executes the
 * instructions, that the promises of posixshm need, and nothing else.
 *
 * For each cost there is a method, which a benchmark calls as it calls
 * posixshm, and a raw loop, which runs n times in C and returns nanoseconds.
 * Both call the same C function, so their difference is the call from Python.
 */
#ifndef FLOOR_H
#define FLOOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define SHM_DIR "/dev/shm"
#define PATH_SIZE (sizeof(SHM_DIR "/") + 255)

/* Each adds its types and functions. Returns 0, or -1 with an exception. */
int floor_add_objects(PyObject *module);
int floor_add_sync(PyObject *module);
int floor_add_raw_sync(PyObject *module);
int floor_add_memory(PyObject *module);

static inline int64_t
now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The result of a raw loop: nanoseconds or a count, or -errno. */
static inline PyObject *
number_or_error(int64_t result)
{
    if (result < 0) {
        errno = (int)-result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLongLong(result);
}

#endif
