/* Giving an object its name and removing it: linkat, rename, unlink.
 *
 * The kernel cannot remove a name on condition that it is a certain object's,
 * so this library checks first and then removes it. Processes that use this
 * library hold the name lock (name_lock.h) during both steps. A program that
 * does not can give the name to another object in the microseconds between
 * them. */
#ifndef PSHM_LINK_H
#define PSHM_LINK_H

#include "posix/base.h"
#include "posix/object/name.h"

/* Does name refer to this object? Returns 1; 0: it is another object's;
 * -ENOENT: the name is free; or -errno. */
int pshm_link_holds(const struct pshm_name *name, struct pshm_identity id);

/* Give the object open as fd the name, in one step. Without replace the name
 * must be free, or else -EEXIST. With replace, an object that has the name
 * loses it in the same step; this uses a temporary name, and everything that
 * can be refused is checked before. Returns 0; -ENOENT: the last name of the
 * object was removed, after which the kernel does not give it another one; or
 * -errno. After an error nothing has changed, unless *left is the temporary
 * name that the object then has; otherwise *left is "". */
int pshm_link(int fd, const struct pshm_name *name, bool replace,
              struct pshm_name *left);

/* The same with replace. The caller holds the name lock. */
int pshm_link_replace_locked(int fd, const struct pshm_name *name,
                             struct pshm_name *left);

/* Move an object from a temporary name to another. Without replace the name
 * must be free, or else -EEXIST. With replace, an object that has the name
 * loses it in the same step, and the caller holds the name lock. Returns 0 or
 * -errno. */
int pshm_link_move(const struct pshm_name *from, const struct pshm_name *to,
                   bool replace);

/* Remove name if it is this object's. Returns 0; -ENOENT: the name is free;
 * -ESTALE: it is another object's, and stays; or -errno. The caller of the
 * second function holds the name lock. */
int pshm_link_remove(const struct pshm_name *name, struct pshm_identity id);
int pshm_link_remove_locked(const struct pshm_name *name,
                            struct pshm_identity id);

/* Rename the object from one name to another, in one step. Returns 0; -EEXIST;
 * -ENOENT or -ESTALE: from is not this object's; or -errno. After an error
 * nothing has changed. */
int pshm_link_rename(struct pshm_identity id, const struct pshm_name *from,
                     const struct pshm_name *to, bool replace);

/* Remove name, whichever object has it: shm_unlink(3). Returns 0 or -errno. */
int pshm_link_drop(const struct pshm_name *name);

#endif
