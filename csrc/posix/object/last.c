#include "posix/object/last.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "posix/object/fd.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/object/mark.h"
#include "posix/clock.h"
#include "posix/object/procmaps.h"
#include "posix/object/reclaim.h"
#include "posix/object/name_lock.h"

/* Seconds. */
#define LONGEST_LOOK 0.005
#define LOOK_PAUSE 0.2e-3
#define LONGEST_END 2.0
#define END_PAUSE 2e-3

/* Returns a descriptor, or -1. It takes no use lock, which would look like
 * that of another process. */
static int
open_marked(const struct pshm_name *name, struct pshm_identity id)
{
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    struct stat st;
    int fd = pshm_result(shm_open(pshm_name_posix(name), O_RDWR | flags, 0));
    if (fd == -EACCES) {
        fd = pshm_result(shm_open(pshm_name_posix(name), O_RDONLY | flags, 0));
    }
    fd = pshm_fd_above_stdio(fd);
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &st) < 0
        || !pshm_identity_same(id, (struct pshm_identity){st.st_dev,
                                                          st.st_ino})) {
        pshm_fd_close(fd);
        return -1;
    }
    (void)pshm_mark_set(fd);
    return fd;
}

void
pshm_last_begin(const struct pshm_name *name, struct pshm_identity id,
                struct pshm_last *out)
{
    *out = (struct pshm_last){.fd = -1, .name_lock = -1};
    if (pshm_link_holds(name, id) == 1) {
        out->name_lock = pshm_name_lock_acquire();
        out->fd = open_marked(name, id);
    }
}

/* The caller holds the name lock. Uses the descriptor that this process has.
 */
static int
remove_by_locked(int fd, const struct pshm_name *name,
                 struct pshm_identity id)
{
    int rc = pshm_write_lease_take(fd);
    if (rc == 0) {
        rc = pshm_link_remove_locked(name, id);
        pshm_write_lease_release(fd);
    }
    return rc == -EAGAIN ? -EBUSY : rc;
}

int
pshm_last_end(struct pshm_last *last, const struct pshm_name *name,
              struct pshm_identity id)
{
    int rc = -ESTALE;
    double deadline = pshm_clock() + LONGEST_LOOK;
    while (last->fd >= 0) {
        rc = remove_by_locked(last->fd, name, id);
        if (rc != -EBUSY || pshm_use_lock_is_shared(last->fd)
            || pshm_clock() >= deadline) {
            break;
        }
        (void)pshm_sleep(LOOK_PAUSE);
    }
    /* Closing it may free all the memory, which takes long; other processes
     * need not wait for that. */
    if (rc == 0) {
        pshm_name_lock_release(last->name_lock);
        last->name_lock = -1;
    }
    pshm_fd_close(last->fd);
    pshm_name_lock_release(last->name_lock);
    return rc;
}

/* For a process that shares its open file with its children or parent: the
 * write lease does not show these. */
static int
leave_relatives(int fd, const struct pshm_name *name, struct pshm_identity id)
{
    struct pshm_uses uses = PSHM_USES_NONE;
    int rc = pshm_uses_find_others(id.dev, &uses);
    if (rc == 0 && pshm_uses_has(&uses, id.ino)) {
        rc = -EBUSY;
    }
    pshm_uses_free(&uses);
    if (rc == 0) {
        int name_lock = pshm_name_lock_acquire();
        rc = remove_by_locked(fd, name, id);
        pshm_name_lock_release(name_lock);
    }
    return rc;
}

/* Does another process have a use lock? If not, this process keeps its own;
 * otherwise it loses it. */
static bool
others_use(int fd)
{
    return pshm_use_lock_try_exclusive(fd) != 0 || pshm_use_lock_take(fd) != 0;
}

int
pshm_last_leave(int fd, bool alone, const struct pshm_name *name,
                struct pshm_identity id)
{
    if (!alone) {
        return leave_relatives(fd, name, id);
    }
    double now = pshm_clock();
    const double deadline = now + LONGEST_END;
    double look_until = now + LONGEST_LOOK;
    for (;;) {
        int name_lock = pshm_name_lock_acquire();
        bool marked = pshm_mark_seen_of_others(fd);
        int rc = remove_by_locked(fd, name, id);
        bool leave = rc != -EBUSY || others_use(fd);
        pshm_name_lock_release(name_lock);
        now = pshm_clock();
        /* A mark disappears shortly before the kernel has closed the file. */
        if (marked) {
            look_until = now + LONGEST_LOOK;
        }
        if (leave || now >= look_until || now >= deadline) {
            return rc;
        }
        (void)pshm_sleep(END_PAUSE);
    }
}
