#include "reclaim.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fd.h"
#include "lease.h"
#include "link.h"
#include "turn.h"

/* ctime, for nobody can set it: when the object was linked, sized, or given a
 * mode or owner.  Of writes to mapped memory only the first to a page counts,
 * if any. */
static double
age_of(const struct stat *st)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)(now.tv_sec - st->st_ctim.tv_sec)
           + (double)(now.tv_nsec - st->st_ctim.tv_nsec) / 1e9;
}

static bool
is_no_object(int rc)
{
    return rc == -ENOENT || rc == -ELOOP || rc == -ENXIO;
}

/* Note its size and age; is it an object, and old enough? */
static bool
is_selected(struct pshm_candidate *candidate, const struct stat *st,
            double older_than)
{
    candidate->size = st->st_size;
    candidate->age = age_of(st);
    return S_ISREG(st->st_mode) && candidate->age >= older_than;
}

/* Is it selected, and does no process have a use lock? */
static int
inspect(struct pshm_candidate *candidate, double older_than)
{
    struct stat st;
    int rc = pshm_result(fstat(candidate->fd, &st));
    if (rc < 0) {
        return rc;
    }
    candidate->id = (struct pshm_identity){st.st_dev, st.st_ino};
    if (!is_selected(candidate, &st, older_than)) {
        return PSHM_NOT_SELECTED;
    }
    rc = pshm_lease_seize(candidate->fd);
    pshm_lease_release(candidate->fd);
    return rc == 0 ? PSHM_REMOVABLE : rc == -EAGAIN ? PSHM_IN_USE : rc;
}

/* What cannot be opened (rc) can be looked at. */
static int
refused(struct pshm_candidate *candidate, double older_than, int rc)
{
    struct stat st;
    if (is_no_object(rc)) {
        return PSHM_NOT_SELECTED;
    }
    int looked = pshm_result(lstat(candidate->name.path, &st));
    if (looked < 0) {
        return looked == -ENOENT ? PSHM_NOT_SELECTED : rc;
    }
    return is_selected(candidate, &st, older_than) ? rc : PSHM_NOT_SELECTED;
}

void
pshm_reclaim_inspect(const char *name, double older_than,
                   struct pshm_candidate *out)
{
    *out = (struct pshm_candidate){.fd = -1};
    if (pshm_name_parse(name, strlen(name), &out->name) != NULL) {
        out->verdict = -EINVAL;
        return;
    }
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    out->fd = pshm_fd_settle(
        pshm_result(shm_open(pshm_name_posix(&out->name), flags, 0)));
    if (out->fd < 0) {
        out->verdict = refused(out, older_than, out->fd);
        out->fd = -1;
        return;
    }
    out->verdict = inspect(out, older_than);
}

/* The exclusive lock is held for two system calls only: an attacher waits for
 * it, but not for long. */
static int
remove_unused(const struct pshm_candidate *candidate)
{
    int turn = pshm_turn_begin();
    int rc = pshm_lease_seize(candidate->fd);
    if (rc == 0) {
        rc = pshm_link_remove_locked(&candidate->name, candidate->id);
        pshm_lease_release(candidate->fd);
    }
    else if (rc == -EAGAIN) {
        rc = PSHM_IN_USE;
    }
    pshm_turn_end(turn);
    return rc == 0                          ? PSHM_REMOVED
           : rc == -ENOENT || rc == -ESTALE ? PSHM_NOT_SELECTED
                                            : rc;
}

void
pshm_reclaim_settle(struct pshm_candidate *candidate, bool dry_run,
                    const struct pshm_mapped *mapped)
{
    if (candidate->verdict == PSHM_REMOVABLE) {
        if (pshm_mapped_has(mapped, candidate->id.ino)) {
            candidate->verdict = PSHM_IN_USE;
        }
        else if (!dry_run) {
            candidate->verdict = remove_unused(candidate);
        }
    }
    pshm_fd_close(candidate->fd);
    candidate->fd = -1;
}

int
pshm_reclaim_some(const struct pshm_names *names, size_t *at,
                  double older_than, bool dry_run, dev_t device,
                  struct pshm_candidate *out, int room)
{
    struct pshm_mapped mapped = PSHM_MAPPED_NONE;
    int count = 0, removable = 0, rc = 0;
    for (; count < room && *at < names->length; count++) {
        const char *text = names->text + *at;
        pshm_reclaim_inspect(text, older_than, &out[count]);
        removable += out[count].verdict == PSHM_REMOVABLE;
        *at += strlen(text) + 1;
    }
    if (removable > 0) {
        rc = pshm_mapped_find(device, &mapped);
        rc = rc == -ENOENT ? 0 : rc;    /* no /proc: the lease has to do */
    }
    for (int i = 0; i < count; i++) {
        pshm_reclaim_settle(&out[i], dry_run || rc < 0, &mapped);
    }
    pshm_mapped_free(&mapped);
    return rc < 0 ? rc : count;
}
