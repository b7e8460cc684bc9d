#include "mark.h"

#include <fcntl.h>
#include <unistd.h>

#define FIRST ((off_t)1 << 62)
#define TRIES 64

static struct flock
lock_of(short type, off_t start, off_t length)
{
    return (struct flock){
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = start,
        .l_len = length,
    };
}

/* Each open file has a byte of its own.  A forked child may still have the open
 * file of which the number is used again here. */
int
pshm_mark_set(int fd)
{
    off_t start = FIRST + (off_t)getpid() * 65536 + fd;
    int rc = -EAGAIN;
    for (int i = 0; i < TRIES && rc == -EAGAIN; i++) {
        struct flock lock = lock_of(F_WRLCK, start + (off_t)i * 8192, 1);
        rc = pshm_result(fcntl(fd, F_OFD_SETLK, &lock));
    }
    return rc < 0 ? rc : 0;
}

bool
pshm_mark_seen(int fd)
{
    struct flock lock = lock_of(F_RDLCK, FIRST, 0);
    int rc = pshm_result(fcntl(fd, F_OFD_GETLK, &lock));
    return rc == 0 && lock.l_type != F_UNLCK;
}

bool
pshm_mark_inherit(int fd)
{
    bool marked = pshm_mark_seen(fd);
    if (marked) {
        (void)pshm_mark_set(fd);
    }
    return marked;
}
