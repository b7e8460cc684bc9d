#include "lease.h"

#include <fcntl.h>
#include <sys/file.h>

#include "pause.h"

/* A reclaimer needs microseconds, or what the scheduler makes of them. */
#define MOST_TRIES 20
#define PAUSE 0.001                     /* seconds */

static int
file_lock(int fd, int operation)
{
    int rc = pshm_result(flock(fd, operation | LOCK_NB));
    return rc == -EWOULDBLOCK ? -EAGAIN : rc;
}

/* The whole file, however long it is or gets. */
#define WHOLE_FILE(type) {.l_type = (type), .l_whence = SEEK_SET}

int
pshm_lease_take(int fd)
{
    int rc = file_lock(fd, LOCK_SH);
    if (rc == -EAGAIN) {
        struct flock lock = WHOLE_FILE(F_RDLCK);
        rc = pshm_result(fcntl(fd, F_OFD_SETLK, &lock));
        rc = rc == 0 ? 1 : rc;
    }
    return rc == -EACCES ? -EAGAIN : rc;
}

int
pshm_lease_improve(int fd)
{
    int rc = -EAGAIN;
    for (int tries = 0; rc == -EAGAIN && tries < MOST_TRIES; tries++) {
        rc = pshm_pause(PAUSE);
        rc = rc == 0 ? file_lock(fd, LOCK_SH) : rc;
    }
    return rc;
}

int
pshm_lease_seize(int fd)
{
    int rc = file_lock(fd, LOCK_EX);
    return rc < 0 ? rc : pshm_lease_contested(fd);
}

/* To ask takes no right to write, which the lock itself would. */
int
pshm_lease_contested(int fd)
{
    struct flock lock = WHOLE_FILE(F_WRLCK);
    int rc = pshm_result(fcntl(fd, F_OFD_GETLK, &lock));
    return rc == 0 && lock.l_type != F_UNLCK ? -EAGAIN : rc;
}
