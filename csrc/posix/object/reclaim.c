#include "posix/object/reclaim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>

#include "posix/object/fd.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/object/procmaps.h"
#include "posix/object/name_lock.h"

/* The ctime, which no process can set: the time at which the object was
 * linked, resized, or given a mode or owner. Of writes to mapped memory, at
 * most the first one to a page counts. */
static double
age_of(const struct stat *st)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)(now.tv_sec - st->st_ctim.tv_sec)
           + (double)(now.tv_nsec - st->st_ctim.tv_nsec) / 1e9;
}

/* Store the attributes. Is the file an object, and old enough? */
static bool
is_selected(struct pshm_candidate *candidate, const struct stat *st,
            double older_than)
{
    candidate->id = (struct pshm_identity){st->st_dev, st->st_ino};
    candidate->size = st->st_size;
    candidate->age = age_of(st);
    return S_ISREG(st->st_mode) && candidate->age >= older_than;
}

/* Does a refusal prove that another process has the object open? Older kernels
 * refuse every write lease on tmpfs. */
static bool
refusal_is_proof(void)
{
    struct utsname system = {0};
    unsigned major = 0, minor = 0;
    (void)uname(&system);
    /* The kernel writes a number there, and it fits. */
    /* NOLINTNEXTLINE(bugprone-unchecked-string-to-number-conversion) */
    (void)sscanf(system.release, "%u.%u", &major, &minor);
    return major * 1000 + minor >= 5003;
}

/* If an open(2) has to wait for the write lease, the kernel sends the signal
 * of F_SETSIG: SIGURG, which is ignored by default, instead of SIGIO, which
 * ends the process. */
int
pshm_write_lease_take(int fd)
{
    int rc = pshm_result(fcntl(fd, F_SETSIG, SIGURG));
    return rc < 0 ? rc : pshm_result(fcntl(fd, F_SETLEASE, F_WRLCK));
}

void
pshm_write_lease_release(int fd)
{
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
}

enum pshm_state
pshm_state_of(int fd)
{
    int rc = pshm_write_lease_take(fd);
    if (rc == 0) {
        return PSHM_FREE;
    }
    if (rc == -EAGAIN && refusal_is_proof()) {
        return PSHM_IN_USE;
    }
    rc = pshm_use_lock_try_exclusive(fd);          /* does a user of this
                                                      library have it? */
    pshm_use_lock_release(fd);
    return rc == -EAGAIN ? PSHM_IN_USE : PSHM_UNKNOWN;
}

/* With the name lock. */
static void
remove_name(struct pshm_candidate *candidate)
{
    int rc = pshm_link_remove_locked(&candidate->name, candidate->id);
    if (rc == -ENOENT || rc == -ESTALE) {
        candidate->state = PSHM_NOT_SELECTED;
    }
    else {
        candidate->removed = rc == 0;
        candidate->error = rc;
    }
}

/* The state after open(2) failed. */
static enum pshm_state
state_of_refused(struct pshm_candidate *candidate, double older_than, int rc)
{
    struct stat st;
    if (rc == -ENOENT || rc == -ELOOP || rc == -ENXIO
        || lstat(candidate->name.path, &st) < 0
        || !is_selected(candidate, &st, older_than)) {
        return PSHM_NOT_SELECTED;
    }
    /* -EAGAIN: another process holds a file lease (F_SETLEASE). */
    return rc == -EAGAIN ? PSHM_IN_USE : PSHM_UNKNOWN;
}

static void
reclaim_by_proof(double older_than, bool remove, int *name_lock,
                 struct pshm_candidate *out)
{
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    struct stat st;
    int fd = pshm_fd_above_stdio(
        pshm_result(shm_open(pshm_name_posix(&out->name), flags, 0)));
    if (fd < 0) {
        out->state = state_of_refused(out, older_than, fd);
        return;
    }
    if (fstat(fd, &st) < 0) {
        out->state = PSHM_UNKNOWN;
    }
    else if (is_selected(out, &st, older_than)) {
        out->state = pshm_state_of(fd);
        if (out->state == PSHM_FREE && remove) {
            remove_name(out);
        }
    }
    /* Closing it may free all the memory, which takes long; other processes
     * need not wait for that. */
    if (out->removed) {
        pshm_name_lock_release(*name_lock);
        *name_lock = -1;
    }
    pshm_fd_close(fd);
}

/* The caller holds the name lock; otherwise the descriptors of two reclaimers
 * would make the kernel refuse both write leases. */
void
pshm_reclaim(const char *name, double older_than, bool remove,
             struct pshm_candidate *out)
{
    *out = (struct pshm_candidate){.state = PSHM_NOT_SELECTED};
    if (pshm_name_parse(name, strlen(name), &out->name) != NULL) {
        return;
    }
    int name_lock = remove ? pshm_name_lock_acquire() : -1;
    reclaim_by_proof(older_than, remove, &name_lock, out);
    pshm_name_lock_release(name_lock);
}

int
pshm_reclaim_unknown(struct pshm_candidate *candidates, size_t count,
                     bool remove)
{
    struct pshm_uses uses = PSHM_USES_NONE;
    bool looked = false;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct pshm_candidate *candidate = &candidates[i];
        if (candidate->state != PSHM_UNKNOWN) {
            continue;
        }
        if (!looked) {
            rc = pshm_uses_find(candidate->id.dev, &uses);
            rc = rc == -ENOENT ? 0 : rc;        /* /proc is not mounted */
            looked = true;
        }
        candidate->uninspected = uses.uninspected;
        if (pshm_uses_has(&uses, candidate->id.ino)) {
            candidate->state = PSHM_IN_USE;
            candidate->uninspected = 0;
        }
        else if (rc == 0 && remove) {
            int name_lock = pshm_name_lock_acquire();
            remove_name(candidate);
            pshm_name_lock_release(name_lock);
        }
    }
    pshm_uses_free(&uses);
    return rc;
}
