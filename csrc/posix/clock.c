#include "posix/clock.h"

#include <time.h>

double
pshm_clock(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int
pshm_sleep(double seconds)
{
    struct timespec timeout = {.tv_nsec = (long)(seconds * 1e9)};
    return -clock_nanosleep(CLOCK_MONOTONIC, 0, &timeout, NULL);
}
