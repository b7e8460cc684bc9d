/* Finding objects that no process uses, and removing their names.
 *
 * The proof is a write lease, fcntl(2) with F_SETLEASE: the kernel grants one
 * only if no other open file description of the object exists.  A descriptor
 * is one, and so is what a mapping holds, in every process, of every user and
 * PID namespace, also in a container that shares this mount.  While the lease
 * is held an open(2) waits for its end, or fails with EAGAIN if it has
 * O_NONBLOCK; so the name is removed before another process can have it.
 *
 * The kernel grants a lease to the owner of the object and to root (CAP_LEASE).
 * Before Linux 5.3 it refused all of them on tmpfs.  Without a lease the state
 * is unknown, unless a use lock or a look into /proc shows a user. */
#ifndef PSHM_RECLAIM_H
#define PSHM_RECLAIM_H

#include "posix/base.h"
#include "posix/object/name.h"

enum pshm_state {
    PSHM_NOT_SELECTED,                  /* gone, too young, not an object */
    PSHM_IN_USE,
    PSHM_FREE,                          /* no process had it */
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
    size_t uninspected;                 /* PSHM_UNKNOWN: processes */
};

/* A write lease on the object open as fd.  Returns 0; -EAGAIN: another open file
 * of it exists; or -errno. */
int pshm_write_lease_take(int fd);
void pshm_write_lease_release(int fd);

/* The state of the object open as fd, by the lease or by the use lock.  The lease
 * of a free one is held until fd is closed. */
enum pshm_state pshm_state_of(int fd);

/* The state of the object called name (without a slash), if it is at least
 * older_than seconds old; and if remove, remove the name of a free one.  Never
 * waits. */
void pshm_reclaim(const char *name, double older_than, bool remove,
                  struct pshm_candidate *out);

/* Those of count candidates that are unknown: find out by /proc, once for all,
 * which of them a process uses, and if remove, remove the others' names without
 * proof.  Returns 0 or -errno. */
int pshm_reclaim_unknown(struct pshm_candidate *candidates, size_t count,
                         bool remove);

#endif
