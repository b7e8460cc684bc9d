/* Inspecting an object without a change that a user can see.
 *
 * The object is not mapped, no use lock is taken, and the access time stays as
 * it is: the bytes are read only if the kernel grants O_NOATIME, which it does
 * for the owner and for a process with CAP_FOWNER. Symbolic links are not
 * followed, and no call waits. */
#ifndef PSHM_INSPECT_H
#define PSHM_INSPECT_H

#include "posix/base.h"
#include "posix/object/reclaim.h"

#define PSHM_HEAD 512                   /* bytes */

struct pshm_inspected {
    struct stat st;
    enum pshm_state state;              /* from a write lease or a use lock */
    bool acl;                           /* it has an access control list */
    int head_length;                    /* bytes in head; -errno: could not be
                                           read */
    unsigned char head[PSHM_HEAD];      /* the first bytes of the object */
};

/* Inspect the object called name. Returns 0; -ENOENT: no regular file has the
 * name; or -errno. */
int pshm_inspect(const struct pshm_name *name, struct pshm_inspected *out);

#endif
