/* Reading what an object is, without changing anything that a user can see.
 *
 * The object is not mapped, its use lock is not taken, and its access time stays:
 * its bytes are read only if the kernel grants O_NOATIME, that is to the owner and
 * to a process with CAP_FOWNER.  No link is followed, and nothing waits. */
#ifndef PSHM_INSPECT_H
#define PSHM_INSPECT_H

#include "posix/base.h"
#include "posix/object/reclaim.h"

#define PSHM_HEAD 512                   /* bytes */

struct pshm_inspected {
    struct stat st;
    enum pshm_state state;              /* by a write lease or a use lock */
    bool acl;                           /* has an access control list */
    int head_length;                    /* bytes in head; -errno: not read */
    unsigned char head[PSHM_HEAD];      /* the first bytes of the object */
};

/* Inspect the object called name.  Returns 0; -ENOENT: the name is free or not
 * that of a regular file; or -errno. */
int pshm_inspect(const struct pshm_name *name, struct pshm_inspected *out);

#endif
