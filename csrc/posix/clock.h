/* The clock that deadlines refer to, and short sleeps. */
#ifndef PSHM_CLOCK_H
#define PSHM_CLOCK_H

#include "posix/base.h"

/* Seconds on the monotonic clock. */
double pshm_clock(void);

/* Sleep for the given number of seconds, less than 1, or until a signal.
 * Returns 0 or -EINTR. */
int pshm_sleep(double seconds);

#endif
