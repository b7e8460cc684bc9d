/* A descriptor that a handle has, and that calls in other threads may be
 * using: it is closed when the last of them is through, not before, so that
 * no call works on a number that is another file's by then.
 *
 * Other parts of a program may close it nevertheless (a daemon closes all of
 * them), and then the number may become another file's.  So it is known which
 * object it was: that is compared before each use, and before it is closed. */
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

/* Returns a reference to a new one that has no descriptor yet (-1), or NULL
 * when there is no memory (no exception is set). */
struct fdref *fdref_new(void);
struct fdref *fdref_take(struct fdref *ref);    /* for one more user */
void fdref_drop(struct fdref *ref);             /* NULL is nothing to drop */

/* Has this process neither forked nor been forked since? */
bool fdref_is_private(const struct fdref *ref);

/* Does the descriptor still lead to the object?  Returns 0; -EBADF: no; or
 * -errno: that cannot be seen. */
int fdref_check(const struct fdref *ref);

#endif
