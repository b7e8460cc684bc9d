#include "posix/sync/orphan.h"

#include <stdlib.h>

#include "posix/sync/futex.h"

struct pshm_orphan {
    struct pshm_orphan *next;
    struct pshm_robust *mutex;
    struct pshm_mutex_state mstate;
    struct pshm_region *region;
    int64_t looked;                     /* when the owner was last checked */
};

/* A stack that a thread removes as a whole and then processes alone. If the
 * process forks in between, the child loses only what the thread had removed.
 */
_Atomic(struct pshm_orphan *) pshm_orphans;

/* The number of orphans ever kept. */
static atomic_uint kept;

static void
push(struct pshm_orphan *orphan)
{
    orphan->next = atomic_load(&pshm_orphans);
    while (!atomic_compare_exchange_weak(&pshm_orphans, &orphan->next,
                                         orphan)) {
    }
}

void
pshm_orphan_keep(struct pshm_robust *r, const struct pshm_mutex_state *mstate,
                 struct pshm_region *region)
{
    struct pshm_orphan *orphan = malloc(sizeof(*orphan));
    if (orphan != NULL) {
        orphan->mutex = r;
        orphan->mstate = *mstate;
        orphan->region = region;
        orphan->looked = pshm_now();
        pshm_thread_at_end(pshm_orphans_check);
        push(orphan);
        /* Release: a thread that reads the new number also finds the orphan.
         */
        atomic_fetch_add_explicit(&kept, 1, memory_order_release);
    }
}

/* May the memory of the orphan be unmapped? */
static bool
is_over(struct pshm_orphan *orphan)
{
    struct pshm_mutex_state *mstate = &orphan->mstate;
    if (pshm_mutex_state_held(mstate) && !pshm_mutex_state_mine(mstate)) {
        int64_t now = pshm_now();
        if (now - orphan->looked < PSHM_POLL_INTERVAL) {
            return false;
        }
        orphan->looked = now;
    }
    return pshm_robust_abandon(orphan->mutex, mstate, NULL) == 0;
}

void
pshm_orphans_check(void)
{
    struct pshm_orphan *next, *orphan = atomic_exchange(&pshm_orphans, NULL);
    for (; orphan != NULL; orphan = next) {
        next = orphan->next;
        if (is_over(orphan)) {
            pshm_region_drop(orphan->region);
            free(orphan);
        }
        else {
            push(orphan);
        }
    }
}

void
pshm_orphans_check_in_time(void)
{
    static PSHM_THREAD_LOCAL unsigned seen;
    static PSHM_THREAD_LOCAL int64_t looked;
    unsigned now_kept = atomic_load_explicit(&kept, memory_order_acquire);
    int64_t now = pshm_now_coarse();
    if (seen != now_kept || now - looked >= PSHM_POLL_INTERVAL) {
        seen = now_kept;
        looked = now;
        pshm_orphans_check();
    }
}
