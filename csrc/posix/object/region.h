/* A mapped range that is shared by owners of whatever kind: it is unmapped when
 * the last one lets go, in any thread, with or without an interpreter. */
#ifndef PSHM_REGION_H
#define PSHM_REGION_H

#include "posix/base.h"

struct pshm_region;

/* Take over what pshm_map returned, or memory of malloc (length 0), for one
 * owner.  Returns NULL, and has taken nothing, where there is no memory. */
struct pshm_region *pshm_region_new(void *base, size_t length);

void pshm_region_keep(struct pshm_region *region);
void pshm_region_drop(struct pshm_region *region);

/* Is there one owner only, who asks? */
bool pshm_region_is_own(const struct pshm_region *region);

/* Leave what is past length, in whole pages, to an owner who calls: it is not
 * unmapped with the rest.  One at a time. */
void pshm_region_shrink(struct pshm_region *region, size_t length);

#endif
