/* A mapped range that is shared by owners of whatever kind: it is unmapped when
 * the last one lets go, in any thread, with or without an interpreter. */
#ifndef PSHM_REGION_H
#define PSHM_REGION_H

#include "base.h"

struct pshm_region;

/* Take over what pshm_map returned, or memory of malloc (length 0), for one
 * owner.  Returns NULL, and has taken nothing, where there is no memory. */
struct pshm_region *pshm_region_new(void *base, size_t length);

void pshm_region_keep(struct pshm_region *region);
void pshm_region_drop(struct pshm_region *region);

/* Is there one owner only, who asks? */
bool pshm_region_is_own(const struct pshm_region *region);

/* Let go of it as its only owner, and leave the memory as it is. */
void pshm_region_give_back(struct pshm_region *region);

#endif
