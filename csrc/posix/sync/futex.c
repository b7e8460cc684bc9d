#include "posix/sync/futex.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NANO 1000000000

/* If time_t has 64 bits and long has 32, SYS_futex would misread a timespec.
 */
#if defined(SYS_futex_time64) && !defined(__LP64__)
#define FUTEX_CALL SYS_futex_time64
#else
#define FUTEX_CALL SYS_futex
#endif

int64_t
pshm_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NANO + now.tv_nsec;
}

int64_t
pshm_now_coarse(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * NANO + now.tv_nsec;
}

static struct timespec
timespec_of(int64_t time)
{
    return (struct timespec){.tv_sec = (time_t)(time / NANO),
                             .tv_nsec = (long)(time % NANO)};
}

struct timespec
pshm_timespec_realtime(int64_t time)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = time - pshm_now();
    return timespec_of((int64_t)now.tv_sec * NANO + now.tv_nsec
                       + (left > 0 ? left : 0));
}

int64_t
pshm_poll_end(int64_t deadline)
{
    int64_t end = pshm_now() + PSHM_POLL_INTERVAL;
    return end < deadline ? end : deadline;
}

/* FUTEX_WAIT_BITSET takes an absolute time; FUTEX_WAIT takes a relative one.
 */
int
pshm_futex_sleep(atomic_uint *word, unsigned expected, int64_t end)
{
    struct timespec at = timespec_of(end);
    int rc = pshm_result((int)syscall(FUTEX_CALL, word, FUTEX_WAIT_BITSET,
                                      expected, &at, NULL,
                                      FUTEX_BITSET_MATCH_ANY));
    return rc == -EAGAIN ? 0 : rc;
}

int
pshm_futex_wait(atomic_uint *word, unsigned expected, int64_t deadline)
{
    int64_t end = pshm_poll_end(deadline);
    int rc = pshm_futex_sleep(word, expected, end);
    /* Also checked if the word never equals expected when the call is made: a
     * writer that changes it all the time must not keep the caller past its
     * deadline. */
    if (rc == -ETIMEDOUT || (rc == 0 && pshm_now() >= end)) {
        rc = pshm_poll_over(end, deadline);
    }
    return rc;
}

int
pshm_futex_wake(atomic_uint *word, int most)
{
    return pshm_result(
        (int)syscall(FUTEX_CALL, word, FUTEX_WAKE, most, NULL, NULL, 0));
}
