#include "posix/object/name_lock.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>

#include "posix/object/fd.h"
#include "posix/clock.h"

/* Seconds. */
#define LONGEST 0.1
#define FIRST_PAUSE 20e-6
#define LAST_PAUSE 1e-3

/* The lock is held for about 10 us. flock(2) has no timeout, so this polls. */
#define YIELDS 4

int
pshm_name_lock_acquire(void)
{
    int fd = pshm_result(open(PSHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0) {
        return -1;
    }
    double deadline = 0, pause = FIRST_PAUSE;
    for (int tries = 0;
         pshm_result(flock(fd, LOCK_EX | LOCK_NB)) == -EWOULDBLOCK; tries++) {
        if (tries < YIELDS) {
            (void)sched_yield();
            continue;
        }
        double now = pshm_clock();
        deadline = deadline > 0 ? deadline : now + LONGEST;
        if (now >= deadline) {
            break;
        }
        /* A signal shortens the sleep, which does no harm. */
        (void)pshm_sleep(pause);
        pause = pause * 2 < LAST_PAUSE ? pause * 2 : LAST_PAUSE;
    }
    return fd;
}

/* A forked child may have a copy of the descriptor, so closing it would not
 * release the lock. */
void
pshm_name_lock_release(int name_lock)
{
    if (name_lock >= 0) {
        (void)flock(name_lock, LOCK_UN);
        pshm_fd_close(name_lock);
    }
}
