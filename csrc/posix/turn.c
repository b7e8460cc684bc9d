#include "turn.h"

#include <fcntl.h>
#include <sys/file.h>

#include "fd.h"
#include "pause.h"

#define LONGEST 0.02                    /* seconds */
#define PAUSE 0.0005

int
pshm_turn_begin(void)
{
    int fd = pshm_result(open(PSHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0) {
        return -1;
    }
    double begun = 0;
    while (pshm_result(flock(fd, LOCK_EX | LOCK_NB)) == -EWOULDBLOCK) {
        double now = pshm_clock();
        begun = begun > 0 ? begun : now;
        if (now - begun >= LONGEST) {
            break;
        }
        /* Interrupted by a signal it is shorter, and no harm. */
        (void)pshm_pause(PAUSE);
    }
    return fd;
}

/* A child forked meanwhile has a copy of the descriptor, so closing would not
 * do. */
void
pshm_turn_end(int turn)
{
    if (turn >= 0) {
        (void)flock(turn, LOCK_UN);
        pshm_fd_close(turn);
    }
}
