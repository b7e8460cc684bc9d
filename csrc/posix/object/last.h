/* delete="last": the last process that uses an object removes its name.
 *
 * A process tries that after it has unmapped the object. The proof that it was
 * the last one is a write lease (reclaim.h) on a descriptor of its own: the
 * kernel grants it if no other open file of the object exists.
 *
 * A process that attaches checks for the mark (mark.h) before it takes its use
 * lock. A process that stops using the object keeps the mark until it has
 * found that no other process has the object open, or that another process has
 * a use lock, and has therefore seen the mark. So no process misses the mark,
 * except one that takes longer than 5 ms from opening the object to its use
 * lock: then the name stays. */
#ifndef PSHM_LAST_H
#define PSHM_LAST_H

#include "posix/base.h"
#include "posix/object/name.h"

/* Between begin and end the caller unmaps the object. */
struct pshm_last {
    int fd;                             /* of the object, marked; or -1 */
    int name_lock;                      /* the name lock (name_lock.h), or -1 */
};

void pshm_last_begin(const struct pshm_name *name, struct pshm_identity id,
                     struct pshm_last *out);

/* Remove name if no process uses the object. Waits for up to 5 ms for a
 * process that only inspects it. Returns 0; -EBUSY; -ENOENT or -ESTALE: name
 * is free or another object's; or -errno. */
int pshm_last_end(struct pshm_last *last, const struct pshm_name *name,
                  struct pshm_identity id);

/* Remove name if this process, which is about to end, is the last one that
 * uses the object open as fd. alone: no other process shares this open file
 * through a fork. If another process has a use lock, this process releases its
 * own and leaves the name to the other. So if several processes end at once,
 * one of them keeps its use lock, and waits for up to 2 s until the others,
 * which still have their marks, have ended; and for up to 5 ms for a process
 * that attaches or only inspects. Returns as pshm_last_end. */
int pshm_last_leave(int fd, bool alone, const struct pshm_name *name,
                    struct pshm_identity id);

#endif
