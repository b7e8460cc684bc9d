#include "posix/object/use_lock.h"

#include <sys/file.h>

#include "posix/clock.h"

/* Seconds. */
#define LONGEST 0.02
#define FIRST_PAUSE 50e-6
#define LAST_PAUSE 1e-3

static int
file_lock(int fd, int operation)
{
    int rc = pshm_result(flock(fd, operation | LOCK_NB));
    return rc == -EWOULDBLOCK ? -EAGAIN : rc;
}

int
pshm_use_lock_take(int fd)
{
    return file_lock(fd, LOCK_SH);
}

int
pshm_use_lock_wait(int fd)
{
    int rc = file_lock(fd, LOCK_SH);
    if (rc != -EAGAIN) {
        return rc;
    }
    double deadline = pshm_clock() + LONGEST, pause = FIRST_PAUSE;
    while (rc == -EAGAIN && pshm_clock() < deadline) {
        rc = pshm_sleep(pause);
        rc = rc == 0 ? file_lock(fd, LOCK_SH) : rc;
        pause = pause * 2 < LAST_PAUSE ? pause * 2 : LAST_PAUSE;
    }
    return rc;
}

int
pshm_use_lock_try_exclusive(int fd)
{
    return file_lock(fd, LOCK_EX);
}

void
pshm_use_lock_release(int fd)
{
    (void)flock(fd, LOCK_UN);
}

bool
pshm_use_lock_is_shared(int fd)
{
    int rc = pshm_use_lock_try_exclusive(fd);
    pshm_use_lock_release(fd);
    return rc != 0;
}
