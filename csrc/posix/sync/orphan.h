/* Orphans: mutexes whose Python object was deallocated while a thread still
 * holds them.
 *
 * Only the owner can unlock such a mutex, because the list of held mutexes is
 * the owner's. So the mutex and its memory are kept until the owner locks or
 * unlocks another mutex, or ends. */
#ifndef PSHM_ORPHAN_H
#define PSHM_ORPHAN_H

#include "posix/object/region.h"
#include "posix/sync/robust.h"

struct pshm_orphan;
extern _Atomic(struct pshm_orphan *) pshm_orphans;
void pshm_orphans_check_in_time(void);

/* Keep r, which lies in region, after pshm_robust_abandon returned -EBUSY.
 * Steals the reference to region. If an allocation fails, the region stays
 * mapped until the process ends. */
void pshm_orphan_keep(struct pshm_robust *r,
                      const struct pshm_mutex_state *mstate,
                      struct pshm_region *region);

/* Release the orphans of the calling thread, and the memory of the orphans
 * whose owner has ended. */
void pshm_orphans_check(void);

/* The same if the calling thread may have an orphan that it has not seen, and
 * otherwise at most once in a poll interval, because each call checks all
 * orphans. */
static inline void
pshm_orphans_release(void)
{
    if (atomic_load_explicit(&pshm_orphans, memory_order_relaxed) != NULL) {
        pshm_orphans_check_in_time();
    }
}

#endif
