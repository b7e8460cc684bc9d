/* What processes have mapped, as the kernel tells it: /proc/PID/maps, proc(5).
 *
 * Only the processes that this one may look at are seen: its own user's, or
 * everyone's for root. */
#ifndef PSHM_PROCMAPS_H
#define PSHM_PROCMAPS_H

#include "base.h"

/* Does this process map a part of the object from its byte `past` on, other
 * than in [except, except + length)?  A mapping ends with a page, so one that
 * has the page of that byte does.  Returns 1, 0, or -errno. */
int pshm_maps_reach(struct pshm_identity id, off_t past, const void *except,
                    size_t length);

/* The objects of one file system that somebody has mapped. */
struct pshm_mapped {
    ino_t *inodes;                      /* sorted */
    size_t count, room;
};

#define PSHM_MAPPED_NONE ((struct pshm_mapped){0})

/* Look at all processes once.  The caller frees the result, also on failure.
 * Returns 0 or -errno. */
int pshm_mapped_find(dev_t dev, struct pshm_mapped *out);
bool pshm_mapped_has(const struct pshm_mapped *mapped, ino_t ino);
void pshm_mapped_free(struct pshm_mapped *mapped);

#endif
