/* The objects that processes map and have open: /proc/PID/maps and
 * /proc/PID/fd, proc(5).
 *
 * A process may inspect those of its own user, and root all of them, if they
 * are in its PID namespace. */
#ifndef PSHM_PROCMAPS_H
#define PSHM_PROCMAPS_H

#include "posix/base.h"

/* Does the process of that thread map the file that this process has mapped at
 * address?  Returns 1, 0 (also if there is none), or -errno: -EACCES if that
 * process may not be inspected. */
int pshm_maps_share(unsigned thread, const void *address);

/* The object that is mapped at an address of this process. */
struct pshm_mapped {
    off_t offset;                       /* bytes in the object */
    int object;                         /* a descriptor of the object, or -1 */
    int folder;                         /* of the folder in which it had a name,
                                           or -1 */
};

/* Find it by its name, or by any descriptor that this process has of it.  The
 * caller owns both descriptors, which are O_PATH: they serve for fstat(2) and
 * fstatvfs(3), and need no permission for the object.  Returns 0; -ENOENT: no
 * file is mapped there; or -errno, with both -1. */
int pshm_maps_find(const void *address, struct pshm_mapped *out);

/* The objects of one file system that a process has mapped or open. */
struct pshm_uses {
    ino_t *inodes;                      /* sorted */
    size_t count, room;
    size_t uninspected;                 /* processes: not permitted */
};

#define PSHM_USES_NONE ((struct pshm_uses){0})

/* Inspect all processes once.  The caller frees the result, also on failure.
 * Returns 0 or -errno. */
int pshm_uses_find(dev_t dev, struct pshm_uses *out);
/* The same without this process. */
int pshm_uses_find_others(dev_t dev, struct pshm_uses *out);
bool pshm_uses_has(const struct pshm_uses *uses, ino_t ino);
void pshm_uses_free(struct pshm_uses *uses);

#endif
