/* What every file of this room starts from.
 *
 * The room: plain C11 and POSIX, no Python.  Every function returns 0 (or a
 * value >= 0 that its contract names) or -errno, and reads errno once, right
 * after the call that set it.  Static variables are only for what belongs to
 * the process or to a thread, such as the handler of a signal.  -EINTR is
 * returned to the caller, who looks at signals and calls again; long calls
 * return it now and then to have that done. */
#ifndef PSHM_BASE_H
#define PSHM_BASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Where Linux keeps the objects of shm_open(3): shm_overview(7). */
#define PSHM_DIR "/dev/shm"

/* Which object it is, whatever it is called at the moment. */
struct pshm_identity {
    dev_t dev;
    ino_t ino;
};

static inline bool
pshm_identity_same(struct pshm_identity a, struct pshm_identity b)
{
    return a.dev == b.dev && a.ino == b.ino;
}

/* The one place where the C library's -1 becomes -errno. */
static inline int
pshm_result(int rc)
{
    return rc < 0 ? -errno : rc;
}

#endif
