/* Mapped ranges with several owners, and which objects this process maps.
 *
 * A region is unmapped when its last owner releases it, in any thread, with or
 * without an interpreter.
 *
 * The regions of each object are counted, for all interpreters of the process
 * together, so that pshm_region_shrink can refuse to cut off what another one
 * of them maps.  The size of an object must be read before it is mapped, and
 * the mapping is counted after that; so pshm_region_set tells whether an
 * object was shrunk in between. */
#ifndef PSHM_REGION_H
#define PSHM_REGION_H

#include "posix/base.h"

struct pshm_region;

/* A region of the memory that pshm_map returned, or of malloc (length 0), with
 * one owner.  It is not counted.  Returns NULL without memory, and then base
 * remains the caller's. */
struct pshm_region *pshm_region_new(void *base, size_t length);

/* How often this process has shrunk an object. */
unsigned pshm_region_shrinks(void);

/* Fill a region that was made with a base of NULL, and count it as a mapping of
 * the object id.  shrinks: what pshm_region_shrinks returned before the size of
 * the object was read.  Returns whether that is still so; if not, the size may
 * have changed, and the caller starts again. */
bool pshm_region_set(struct pshm_region *region, void *base, size_t length,
                     struct pshm_identity id, unsigned shrinks);

void pshm_region_keep(struct pshm_region *region);      /* one more owner */
void pshm_region_drop(struct pshm_region *region);      /* one owner less */

/* Whether the caller is the only owner. */
bool pshm_region_is_own(const struct pshm_region *region);

/* Cut the object that fd and own refer to, to `to` bytes.  Returns 0; -EBUSY:
 * this process has another region of it; or -errno. */
int pshm_region_shrink(const struct pshm_region *own, int fd, off_t to);

#endif
