/* Timeouts, and waits that answer signals. */
#ifndef CORE_WAITING_H
#define CORE_WAITING_H

#include "core/core.h"

#include "posix/sync/futex.h"

typedef struct {
    bool now;                           /* do not wait */
    int64_t deadline;                   /* nanoseconds, as futex.h has them */
    int64_t timeout;                    /* nanoseconds until the deadline; 0:
                                           timeout_begin has set that */
} wait_timeout;

#define WAIT_TIMEOUT_DOC                                                      \
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None:\n"\
    "no limit. "

#define WAIT_FOREVER ((wait_timeout){.deadline = PSHM_NEVER})

/* Before the first wait: read the clock only then. */
static inline void
timeout_begin(wait_timeout *timeout)
{
    if (timeout->timeout != 0) {
        timeout->deadline = pshm_now() + timeout->timeout;
        timeout->timeout = 0;
    }
}

/* The arguments of threading.Lock.acquire: blocking=True, timeout=-1; a value
 * may be NULL. A timeout of None or -1 waits without a limit. The wait has
 * not begun. Returns 0 or -1. */
int timeout_of_acquire(PyObject *blocking, PyObject *value, wait_timeout *out);

/* The argument of threading.Condition.wait: timeout=None, which waits without a
 * limit; a negative one does not wait. Returns 0 or -1. */
int timeout_of_wait(PyObject *value, wait_timeout *out);

/* The arguments of threading.Semaphore.acquire: blocking=True, timeout=None.
 * Returns 0 or -1. */
int timeout_of_semaphore(PyObject *blocking, PyObject *value,
                         wait_timeout *out);

/* After a wait of the posix layer: is it to be called again? If not and rc is
 * -EINTR, a signal handler has raised. */
static inline bool
wait_again(int rc)
{
    return rc == -EINTR && PyErr_CheckSignals() == 0;
}

/* Call a wait of the posix layer without the GIL until it ends; -EINTR: a
 * signal handler has raised. */
#define WAIT_WITHOUT_GIL(rc, call)                                            \
    do {                                                                      \
        Py_BEGIN_ALLOW_THREADS                                                \
        (rc) = (call);                                                        \
        Py_END_ALLOW_THREADS                                                  \
    } while (wait_again(rc))

#endif
