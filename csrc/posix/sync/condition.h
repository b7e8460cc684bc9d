/* Condition: waiting for a change of what a lock protects.
 *
 * All but the sleep itself is done by who has the lock.  notify(n) puts down n
 * tokens, or where that is enough for everyone who waits, begins a new epoch.
 * Who waits goes on when it takes a token, or finds another epoch than it began
 * in.  Every notify changes the word `count`, on which they sleep.
 *
 * No wake-up is lost.  A waiter has read count while it had the lock, and a
 * notifier changes it while it has the lock: so either the waiter does not fall
 * asleep, or the notifier's wake comes after it did.  Where the one that was
 * woken is killed before it took its token, or the notifier before it woke
 * anyone, the token lies there still: each sleep ends with its slice (futex.h),
 * and looks.  A token is for those only who waited when it was put down, which
 * is to say that count has changed since they came.
 *
 * Who is killed while it waits stays in `waiters`.  So a token may lie there
 * that nobody needs, and a later wait end without need; never the other way
 * round.  The next epoch puts that right. */
#ifndef PSHM_CONDITION_H
#define PSHM_CONDITION_H

#include <stdatomic.h>

#include "posix/base.h"

/* All zeros: nobody waits. */
struct pshm_condition {
    atomic_uint count;                  /* of notifies */
    atomic_uint epoch;
    atomic_uint tokens;
    atomic_uint waiters;
};

/* One wait. */
struct pshm_waiter {
    unsigned came;                      /* count when it came */
    unsigned seen;                      /* ... when it last looked */
    unsigned epoch;
};

/* With the lock: begin to wait. */
void pshm_condition_enter(struct pshm_condition *c, struct pshm_waiter *w);

/* Without the lock: sleep.  Returns 0: take the lock and claim; or -EINTR,
 * -ETIMEDOUT as pshm_futex_wait. */
int pshm_condition_sleep(struct pshm_condition *c, const struct pshm_waiter *w,
                         int64_t deadline);

/* With the lock: may it go on?  If so, the wait is over. */
bool pshm_condition_claim(struct pshm_condition *c, struct pshm_waiter *w);

/* With the lock: give up waiting. */
void pshm_condition_leave(struct pshm_condition *c,
                          const struct pshm_waiter *w);

/* With the lock: let n of those who wait go on; UINT_MAX: all. */
void pshm_condition_notify(struct pshm_condition *c, unsigned n);

#endif
