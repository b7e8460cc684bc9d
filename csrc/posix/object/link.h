/* Giving an object its name and removing it: linkat, rename, unlink.
 *
 * The kernel has no call that removes a name only if it is a certain object's,
 * so that takes a look and then a step.  Processes that use this library hold
 * the name lock (name_lock.h) in between; a program that does not can give the name
 * to another object in these microseconds. */
#ifndef PSHM_LINK_H
#define PSHM_LINK_H

#include "posix/base.h"
#include "posix/object/name.h"

/* Is name this object's now?  Returns 1, 0 (it is another's), -ENOENT (the name
 * is free), or -errno. */
int pshm_link_holds(const struct pshm_name *name, struct pshm_identity id);

/* Give the object open as fd the name, in one step.  Unless replace the name
 * must be free: -EEXIST.  With replace an object of that name loses it in the
 * same step; that takes a temporary name first, and all that can be refused is
 * refused before.  Returns 0; -ENOENT: the object had a name, and the last one
 * was removed, after which the kernel gives it none; or -errno.
 * If it is not 0 nothing has changed, unless *left says what the object is
 * called now: *left is that temporary name, or "". */
int pshm_link(int fd, const struct pshm_name *name, bool replace,
              struct pshm_name *left);

/* The same with replace, for a caller that has the name lock. */
int pshm_link_replace_locked(int fd, const struct pshm_name *name,
                             struct pshm_name *left);

/* Move an object that is known by a temporary name to a name that must be free.
 * Returns 0, -EEXIST or -errno. */
int pshm_link_move(const struct pshm_name *from, const struct pshm_name *to);

/* The same for a name that an object may have, which loses it in the same step;
 * for a caller that has the name lock. */
int pshm_link_move_over_locked(const struct pshm_name *from,
                               const struct pshm_name *to);

/* Remove name if it is this object's.  Returns 0, -ENOENT (the name is free),
 * -ESTALE (it is another object's, and stays), or -errno.  The caller of the
 * second has the name lock. */
int pshm_link_remove(const struct pshm_name *name, struct pshm_identity id);
int pshm_link_remove_locked(const struct pshm_name *name,
                            struct pshm_identity id);

/* Give the object called from the name to, in one step.  Returns 0; -EEXIST;
 * -ENOENT or -ESTALE: from is not this object's; or -errno.  If it is not 0
 * nothing has changed. */
int pshm_link_rename(struct pshm_identity id, const struct pshm_name *from,
                     const struct pshm_name *to, bool replace);

/* Remove name, whatever it is: shm_unlink(3).  Returns 0 or -errno. */
int pshm_link_drop(const struct pshm_name *name);

#endif
