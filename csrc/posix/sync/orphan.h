/* Mutexes whose object is gone while a thread still has them in its list.
 *
 * Only that thread can unlock one, for the list is its own.  So it is kept here,
 * with its memory, until the thread locks or unlocks something else, or ends. */
#ifndef PSHM_ORPHAN_H
#define PSHM_ORPHAN_H

#include "posix/object/region.h"
#include "posix/sync/robust.h"

struct pshm_orphan;
extern _Atomic(struct pshm_orphan *) pshm_orphans;
void pshm_orphans_look_in_time(void);

/* Keep r, which lies in region, after pshm_robust_abandon returned -EBUSY.
 * Takes over the reference to region.  Without memory for the note of it the
 * region stays for good. */
void pshm_orphan_keep(struct pshm_robust *r,
                      const struct pshm_mutex_state *mstate,
                      struct pshm_region *region);

/* Release those of the calling thread, and the memory of those whose thread has
 * ended. */
void pshm_orphans_look(void);

/* The same where the calling thread may have one that it has not seen; and of those
 * of others once in a poll interval, for each look is at all of them. */
static inline void
pshm_orphans_release(void)
{
    if (atomic_load_explicit(&pshm_orphans, memory_order_relaxed) != NULL) {
        pshm_orphans_look_in_time();
    }
}

#endif
