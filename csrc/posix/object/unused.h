/* The proof that no process uses the object called by a name.
 *
 * It is the write lease of reclaim.h. While the write lease is held, no
 * process can open the object, so its name can be removed or given to another
 * object, and a process that opens the name meanwhile finds the result. */
#ifndef PSHM_UNUSED_H
#define PSHM_UNUSED_H

#include "posix/base.h"
#include "posix/object/name.h"

struct pshm_unused {
    int fd;                             /* with the write lease; or -1 */
    int name_lock;                           /* the name lock (name_lock.h), or
                                                -1 */
    struct pshm_identity id;
    uid_t uid;                          /* the owner */
};

/* Take the name lock, and hold the object until pshm_unused_release, which the
 * caller must call soon. Waits for up to 50 ms for a process that has the
 * object open without a use lock, because such a process mostly only inspects
 * it. Returns 0; -EBUSY: a process uses the object; -EPERM: that is unknown;
 * -ENOENT; -EINTR; or -errno if it cannot be opened. After an error, nothing
 * is held. */
int pshm_unused_hold(const struct pshm_name *name, struct pshm_unused *out);
void pshm_unused_release(struct pshm_unused *unused);

#endif
