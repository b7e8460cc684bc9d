#include "posix/object/region.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "posix/object/map.h"

struct pshm_region {
    atomic_size_t owners;
    void *base;
    size_t length;                      /* 0: of malloc */
};

struct pshm_region *
pshm_region_new(void *base, size_t length)
{
    struct pshm_region *region = malloc(sizeof(*region));
    if (region != NULL) {
        atomic_init(&region->owners, 1);
        region->base = base;
        region->length = length;
    }
    return region;
}

/* Nothing is read on the strength of it: who calls has an owner's hold. */
void
pshm_region_keep(struct pshm_region *region)
{
    atomic_fetch_add_explicit(&region->owners, 1, memory_order_relaxed);
}

/* What every owner did to the memory comes before it is unmapped. */
void
pshm_region_drop(struct pshm_region *region)
{
    if (atomic_fetch_sub_explicit(&region->owners, 1, memory_order_acq_rel)
        > 1) {
        return;
    }
    if (region->length == 0) {
        free(region->base);
    }
    else {
        pshm_unmap(region->base, region->length);
    }
    free(region);
}

bool
pshm_region_is_own(const struct pshm_region *region)
{
    return atomic_load_explicit(&region->owners, memory_order_acquire) == 1;
}

/* The last owner reads it, after this one let go. */
void
pshm_region_shrink(struct pshm_region *region, size_t length)
{
    region->length = length;
}
