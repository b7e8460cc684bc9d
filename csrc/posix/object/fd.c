#include "posix/object/fd.h"

#include <fcntl.h>
#include <unistd.h>

int
pshm_fd_copy(int fd)
{
    return pshm_result(fcntl(fd, F_DUPFD_CLOEXEC, PSHM_FD_FIRST));
}

int
pshm_fd_above_stdio(int fd)
{
    if (fd < 0 || fd >= PSHM_FD_FIRST) {
        return fd;
    }
    int moved = pshm_fd_copy(fd);
    pshm_fd_close(fd);
    return moved;
}

int
pshm_fd_cloexec(int fd)
{
    return pshm_result(fcntl(fd, F_SETFD, FD_CLOEXEC));
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
