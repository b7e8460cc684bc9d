/* Waiting: how long, and answering signals meanwhile. */
#ifndef CORE_WAITING_H
#define CORE_WAITING_H

#include "core/core.h"

#include "posix/sync/futex.h"

/* How long a call is to wait. */
typedef struct {
    bool now;                           /* not at all */
    int64_t deadline;                      /* moment of futex.h */
    int64_t timeout;                    /* nanoseconds until then, from
                                           timeout_begin on; 0: begun */
} wait_timeout;

/* Before the first wait: only then is the clock read. */
static inline void
timeout_begin(wait_timeout *how_long)
{
    if (how_long->timeout != 0) {
        how_long->deadline = pshm_now() + how_long->timeout;
        how_long->timeout = 0;
    }
}

/* blocking=True, timeout=-1 as threading.Lock.acquire has them: values NULL or
 * as given; a timeout of None or -1 is no limit.  Not begun.  Returns 0 or -1. */
int timeout_of_acquire(PyObject *blocking, PyObject *timeout,
                       wait_timeout *out);

/* timeout=None as threading.Condition.wait has it: a negative one is over.
 * Returns 0 or -1. */
int timeout_of_wait(PyObject *timeout, wait_timeout *out);

/* blocking=True, timeout=None as threading.Semaphore.acquire has them: likewise.
 * Returns 0 or -1. */
int timeout_of_semaphore(PyObject *blocking, PyObject *timeout,
                         wait_timeout *out);

/* After a wait of the posix room: is it to be called again?  If it is not and rc
 * is -EINTR, a signal handler has raised. */
static inline bool
wait_on(int rc)
{
    return rc == -EINTR && PyErr_CheckSignals() == 0;
}

#endif
