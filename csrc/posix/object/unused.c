#include "posix/object/unused.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "posix/object/fd.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/clock.h"
#include "posix/object/reclaim.h"
#include "posix/object/name_lock.h"

/* Seconds. */
#define LONGEST 0.05
#define PAUSE 0.5e-3

/* Returns 0; -EAGAIN: try again; or an error of pshm_unused_hold. */
static int
prove(const struct pshm_name *name, struct pshm_unused *out)
{
    struct stat st;
    int rc = pshm_result(fstat(out->fd, &st));
    if (rc < 0 || !S_ISREG(st.st_mode)) {
        return rc < 0 ? rc : -EPERM;
    }
    out->id = (struct pshm_identity){st.st_dev, st.st_ino};
    out->uid = st.st_uid;
    switch (pshm_state_of(out->fd)) {
    case PSHM_FREE:
        /* The name may have been removed before the write lease was granted.
         */
        rc = pshm_link_holds(name, out->id);
        return rc == 1 ? 0 : rc == 0 ? -EAGAIN : rc;
    case PSHM_IN_USE:
        return pshm_use_lock_is_shared(out->fd) ? -EBUSY : -EAGAIN;
    default:
        return -EPERM;
    }
}

/* The caller holds the name lock; otherwise the descriptors of two processes
 * would make the kernel refuse both write leases. */
static int
hold_once(const struct pshm_name *name, struct pshm_unused *out)
{
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    out->name_lock = pshm_name_lock_acquire();
    out->fd = pshm_fd_above_stdio(
        pshm_result(shm_open(pshm_name_posix(name), flags, 0)));
    int rc = out->fd < 0 ? out->fd : prove(name, out);
    if (rc < 0) {
        pshm_unused_release(out);
    }
    return rc;
}

int
pshm_unused_hold(const struct pshm_name *name, struct pshm_unused *out)
{
    double deadline = pshm_clock() + LONGEST;
    int rc = hold_once(name, out);
    while (rc == -EAGAIN) {
        rc = pshm_clock() < deadline ? pshm_sleep(PAUSE) : -EBUSY;
        if (rc == 0) {
            rc = hold_once(name, out);
        }
    }
    return rc;
}

/* A forked child may have a copy of the descriptor, so closing it would not
 * end the write lease. */
void
pshm_unused_release(struct pshm_unused *unused)
{
    if (unused->fd >= 0) {
        pshm_write_lease_release(unused->fd);
        pshm_fd_close(unused->fd);
    }
    pshm_name_lock_release(unused->name_lock);
    unused->fd = unused->name_lock = -1;
}
