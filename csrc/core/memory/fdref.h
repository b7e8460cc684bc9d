/* A descriptor of a handle, with a count of its users.
 *
 * It is closed when the last call that uses it has ended, so that no call works
 * with a number that belongs to another file by then.
 *
 * Other code of the program may close the descriptor (a daemon closes all of
 * them), and its number may then belong to another file. So the identity of the
 * object is compared before each use, and before the descriptor is closed. */
#ifndef CORE_FDREF_H
#define CORE_FDREF_H

#include "core/compat.h" /* Python.h comes before what the system has */

#include <stdatomic.h>
#include <stdbool.h>

#include "posix/base.h"

struct fdref {
    int fd;
    struct pshm_identity id;            /* set together with fd */
    atomic_int users;
    unsigned forks;                     /* pshm_forks_seen when it was made */
};

/* A new one without a descriptor (-1). Returns NULL without memory, and does
 * not set an exception. */
struct fdref *fdref_new(void);
struct fdref *fdref_take(struct fdref *ref);    /* one more user */
void fdref_drop(struct fdref *ref);             /* NULL does nothing */

/* Whether this process has not forked, or been forked, since it was made. */
bool fdref_is_private(const struct fdref *ref);

/* Check that the descriptor still refers to the object. Returns 0; -EBADF: it
 * does not; or -errno. */
int fdref_check(const struct fdref *ref);

#endif
