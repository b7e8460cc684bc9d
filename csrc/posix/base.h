/* The basis of every file of this room.
 *
 * The posix room is plain C11 and POSIX, without Python. Every function
 * returns 0 (or another value >= 0 that its contract names) or -errno, and
 * reads errno once, right after the call that set it. Static variables hold
 * only what belongs to the process or to a thread, such as the handler of a
 * signal. A function that waits returns -EINTR so that its caller can run signal
 * handlers, and call again; a function that works for long takes a callback for
 * that (interrupt.h). */
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

/* The directory of the objects of shm_open(3): shm_overview(7). */
#define PSHM_DIR "/dev/shm"

/* Identifies an object, whatever its name is. */
struct pshm_identity {
    dev_t dev;
    ino_t ino;
};

static inline bool
pshm_identity_same(struct pshm_identity a, struct pshm_identity b)
{
    return a.dev == b.dev && a.ino == b.ino;
}

/* Turns the result of a C library call into 0 or more, or -errno. Must be
 * called right after it. */
static inline int
pshm_result(int rc)
{
    return rc < 0 ? -errno : rc;
}

#endif
