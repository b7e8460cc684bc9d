/* Sleeping until a word in shared memory changes: futex(2).
 *
 * The words are shared between processes, so the kernel identifies a word by
 * its object, not by its address in a process. A word has 32 bits and is
 * aligned. */
#ifndef PSHM_FUTEX_H
#define PSHM_FUTEX_H

#include <stdatomic.h>
#include <time.h>

#include "posix/base.h"

/* All times are nanoseconds on the monotonic clock. */
#define PSHM_NEVER INT64_MAX

/* The longest sleep of one wait, in nanoseconds. After it the wait returns
 * -EINTR, so that the caller can check for changes that a killed process did
 * not announce, and can run the handlers of signals that did not interrupt the
 * sleep: the kernel delivered them just before it, or to another thread. */
#define PSHM_POLL_INTERVAL ((int64_t)80 * 1000 * 1000)

int64_t pshm_now(void);
int64_t pshm_now_coarse(void);          /* up to a few ms late, but cheaper */

/* Convert a time for system calls that only accept the real-time clock. The
 * result is wrong if that clock is set afterwards. */
struct timespec pshm_timespec_realtime(int64_t time);

/* Returns the end of a sleep that begins now: the deadline, or the end of one
 * poll interval. */
int64_t pshm_poll_end(int64_t deadline);

/* After a sleep until `end`: returns -ETIMEDOUT if that was the deadline, or
 * else -EINTR. */
static inline int
pshm_poll_over(int64_t end, int64_t deadline)
{
    return end < deadline ? -EINTR : -ETIMEDOUT;
}

/* Sleep while *word equals expected, until a wake-up or the end. Returns 0: the
 * word may have changed; -EINTR: a signal arrived; or -ETIMEDOUT. */
int pshm_futex_sleep(atomic_uint *word, unsigned expected, int64_t end);

/* Sleep while *word equals expected, until a wake-up. Returns 0: the word may
 * have changed, so read it again; -EINTR: a poll interval has passed or a
 * signal arrived; -ETIMEDOUT: the deadline has passed. */
int pshm_futex_wait(atomic_uint *word, unsigned expected, int64_t deadline);

/* Wake at most `most` waiters of the word. Returns how many were woken. */
int pshm_futex_wake(atomic_uint *word, int most);

#endif
