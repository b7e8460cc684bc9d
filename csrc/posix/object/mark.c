#include "posix/object/mark.h"

#include <fcntl.h>
#include <unistd.h>

#define FIRST ((off_t)1 << 62)
#define OF_ONE_PROCESS 65536
#define TRIES 64

/* Processes in different PID namespaces may have the same pid, but rarely do.
 */
static off_t
own_first(void)
{
    return FIRST + (off_t)getpid() * OF_ONE_PROCESS;
}

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

/* Each open file locks a byte of its own. A forked child may still have the
 * open file whose number is used again here. */
int
pshm_mark_set(int fd)
{
    off_t start = own_first() + fd;
    int rc = -EAGAIN;
    for (int i = 0; i < TRIES && rc == -EAGAIN; i++) {
        struct flock lock = lock_of(F_WRLCK, start + (off_t)i * 1024, 1);
        rc = pshm_result(fcntl(fd, F_OFD_SETLK, &lock));
    }
    return rc < 0 ? rc : 0;
}

/* A program that locks the whole file, from its start, has not set a mark. */
static bool
seen_in(int fd, off_t start, off_t length)
{
    struct flock lock = lock_of(F_RDLCK, start, length);
    int rc = pshm_result(fcntl(fd, F_OFD_GETLK, &lock));
    return rc == 0 && lock.l_type != F_UNLCK && lock.l_start >= FIRST;
}

bool
pshm_mark_seen(int fd)
{
    return seen_in(fd, FIRST, 0);
}

bool
pshm_mark_seen_of_others(int fd)
{
    off_t own = own_first();
    return seen_in(fd, FIRST, own - FIRST)
           || seen_in(fd, own + OF_ONE_PROCESS, 0);
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
