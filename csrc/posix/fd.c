#include "fd.h"

#include <fcntl.h>
#include <unistd.h>

#define FIRST_SAFE_FD 3

int
pshm_fd_copy(int fd)
{
    return pshm_result(fcntl(fd, F_DUPFD_CLOEXEC, FIRST_SAFE_FD));
}

int
pshm_fd_settle(int fd)
{
    if (fd < 0 || fd >= FIRST_SAFE_FD) {
        return fd;
    }
    int moved = pshm_fd_copy(fd);
    pshm_fd_close(fd);
    return moved;
}

int
pshm_fd_adopt(int fd)
{
    if (fd < FIRST_SAFE_FD) {
        int moved = pshm_fd_copy(fd);
        if (moved >= 0) {
            pshm_fd_close(fd);
        }
        return moved;
    }
    int rc = pshm_result(fcntl(fd, F_SETFD, FD_CLOEXEC));
    return rc < 0 ? rc : fd;
}

void
pshm_fd_close(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

int
pshm_fd_access(int fd)
{
    int flags = pshm_result(fcntl(fd, F_GETFL));
    return flags < 0 ? flags : flags & O_ACCMODE;
}
