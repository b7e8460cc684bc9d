#include "core/memory/fdref.h"

#include "core/core.h"

#include "posix/object/attach.h"
#include "posix/object/fd.h"
#include "posix/host.h"

struct fdref *
fdref_new(void)
{
    struct fdref *ref = PyMem_RawMalloc(sizeof(*ref));
    if (ref != NULL) {
        ref->fd = -1;
        ref->forks = pshm_forks_seen();
        atomic_init(&ref->users, 1);
    }
    return ref;
}

struct fdref *
fdref_take(struct fdref *ref)
{
    atomic_fetch_add_explicit(&ref->users, 1, memory_order_relaxed);
    return ref;
}

int
fdref_check(const struct fdref *ref)
{
    struct pshm_status status;
    int rc = pshm_status_of(ref->fd, &status);
    return rc == 0 && !pshm_identity_same(status.id, ref->id) ? -EBADF : rc;
}

/* acq_rel: each use of the descriptor comes before its close. */
void
fdref_drop(struct fdref *ref)
{
    if (ref != NULL
        && atomic_fetch_sub_explicit(&ref->users, 1, memory_order_acq_rel)
               == 1) {
        if (ref->fd >= 0 && fdref_check(ref) != -EBADF) {
            pshm_fd_close(ref->fd);
        }
        PyMem_RawFree(ref);
    }
}

bool
fdref_is_private(const struct fdref *ref)
{
    return ref->forks == pshm_forks_seen();
}
