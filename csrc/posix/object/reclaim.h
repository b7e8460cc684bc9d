/* Finding objects that no process uses, and removing their names.
 *
 * The proof is a write lease, fcntl(2) with F_SETLEASE: the kernel grants one
 * only if no other open file description of the object exists. Descriptors and
 * mappings have open file descriptions, in every process, of every user and
 * PID namespace, also in a container that shares the mount. While the write
 * lease is held, open(2) waits for its end, or fails with EAGAIN if it has
 * O_NONBLOCK; so the name is removed before another process can open it.
 *
 * The kernel grants a write lease to the owner of the object and to root
 * (CAP_LEASE). Before Linux 5.3 it refused all write leases on tmpfs. Without
 * a write lease the state is unknown, unless a use lock or /proc shows a user.
 */
#ifndef PSHM_RECLAIM_H
#define PSHM_RECLAIM_H

#include "posix/base.h"
#include "posix/object/name.h"

enum pshm_state {
    PSHM_NOT_SELECTED,                  /* removed, too young, not an object */
    PSHM_IN_USE,
    PSHM_FREE,                          /* no process used it */
    PSHM_UNKNOWN,
};

struct pshm_candidate {
    struct pshm_name name;
    struct pshm_identity id;
    off_t size;                         /* bytes */
    double age;                         /* seconds since its status changed */
    enum pshm_state state;
    bool removed;
    int error;                          /* -errno: why it was not removed */
    size_t uninspected;                 /* for PSHM_UNKNOWN: number of
                                           processes */
};

/* Take a write lease on the object open as fd. Returns 0; -EAGAIN: another
 * open file of it exists; or -errno. */
int pshm_write_lease_take(int fd);
void pshm_write_lease_release(int fd);

/* The state of the object open as fd, from a write lease or from use locks. If
 * the state is PSHM_FREE, the write lease is held until fd is closed. */
enum pshm_state pshm_state_of(int fd);

/* The state of the object called name (without a slash), if it is at least
 * older_than seconds old. If remove is true, also remove the name of a free
 * one. Never waits. */
void pshm_reclaim(const char *name, double older_than, bool remove,
                  struct pshm_candidate *out);

/* For those of count candidates whose state is unknown: find out from /proc,
 * once for all, which of them a process uses. If remove is true, remove the
 * names of the others without proof. Returns 0 or -errno. */
int pshm_reclaim_unknown(struct pshm_candidate *candidates, size_t count,
                         bool remove);

#endif
