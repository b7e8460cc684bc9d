/* Sleeping until a word in shared memory changes: futex(2).
 *
 * Between processes, so words are found by the object they lie in, whatever
 * address it has here.  A word is 32 bits, aligned. */
#ifndef PSHM_FUTEX_H
#define PSHM_FUTEX_H

#include <stdatomic.h>
#include <time.h>

#include "posix/base.h"

/* Moments are nanoseconds on the monotonic clock. */
#define PSHM_NEVER INT64_MAX

/* The longest that a wait sleeps before it returns -EINTR, so that its caller
 * can look at signals, and it at what a dead process could not tell. */
#define PSHM_POLL_INTERVAL ((int64_t)50 * 1000 * 1000)

int64_t pshm_now(void);
int64_t pshm_now_coarse(void);          /* some ms behind, but cheaper */

/* A moment as system calls take it; and as those take it that know only the
 * real-time clock, where it is right until somebody sets that. */
struct timespec pshm_timespec(int64_t moment);
struct timespec pshm_timespec_realtime(int64_t moment);

/* The end of the sleep that begins now: until, or a slice from now. */
int64_t pshm_poll_end(int64_t deadline);

/* After a sleep that was to end at `end` did: -ETIMEDOUT where that was until,
 * or -EINTR. */
static inline int
pshm_poll_over(int64_t end, int64_t deadline)
{
    return end < deadline ? -EINTR : -ETIMEDOUT;
}

/* Sleep for as long as *word is expected, until woken.  Returns 0: look at the
 * word again, it may be as before; -EINTR: a slice is over or a signal came;
 * -ETIMEDOUT: it is until. */
int pshm_futex_wait(atomic_uint *word, unsigned expected, int64_t deadline);

/* Wake at most `most` of those who sleep on word.  Returns how many. */
int pshm_futex_wake(atomic_uint *word, int most);

/* Is the word at an address, where there may be no memory, the expected one?
 * No other call that can tell is allowed in every sandbox.  Returns 0: it is;
 * -EAGAIN: it is another; -EFAULT: no memory; -EINVAL: no address of a word. */
int pshm_futex_compare(uintptr_t address, unsigned expected);

#endif
