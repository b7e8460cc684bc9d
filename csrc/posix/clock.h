/* Short pauses between two looks, and the clock that deadlines are set by. */
#ifndef PSHM_CLOCK_H
#define PSHM_CLOCK_H

#include "posix/base.h"

/* Seconds on the monotonic clock. */
double pshm_clock(void);

/* Sleep for that many seconds, less than 1; or until a signal.
 * Returns 0 or -EINTR. */
int pshm_sleep(double seconds);

#endif
