/* Condition: waiting for a change of what a lock protects.
 *
 * Every step except the sleep is done with the lock held. notify(n) adds n
 * tokens; if that is enough for all waiters, it begins a new generation
 * instead. A waiter continues when it takes a token, or finds another
 * generation than the one in which it began to wait. Every notify changes the
 * word `count`, on which the waiters sleep.
 *
 * No wake-up is lost. A waiter reads count with the lock held, and a notifier
 * changes it with the lock held. So either the waiter does not fall asleep, or
 * the wake-up comes after it fell asleep. If the notifier is killed before it
 * wakes a waiter, or the woken waiter is killed before it takes its token, the
 * token remains, and the other waiters find it at the end of their poll
 * interval (futex.h). Only threads that were already waiting may take a token:
 * count has changed since they began to wait.
 *
 * A waiter that is killed stays counted in `waiters`. So a token may remain
 * that no waiter needs, and a later wait may end without a notify; a notify is
 * never lost. The next generation corrects the number. */
#ifndef PSHM_CONDITION_H
#define PSHM_CONDITION_H

#include <stdatomic.h>

#include "posix/base.h"

/* All zeros: no waiter. */
struct pshm_condition {
    atomic_uint count;                  /* of notifies */
    atomic_uint generation;
    atomic_uint tokens;
    atomic_uint waiters;
};

/* One wait. */
struct pshm_waiter {
    unsigned arrived;                      /* count when the wait began */
    unsigned seen;                      /* ... when the waiter last read it */
    unsigned generation;
};

/* With the lock held: begin to wait. */
void pshm_condition_enter(struct pshm_condition *c, struct pshm_waiter *w);

/* Without the lock: sleep. Returns 0: acquire the lock and call
 * pshm_condition_claim; or -EINTR, -ETIMEDOUT as pshm_futex_wait. */
int pshm_condition_sleep(struct pshm_condition *c, const struct pshm_waiter *w,
                         int64_t deadline);

/* With the lock held: may the waiter continue? If so, its wait is over. */
bool pshm_condition_claim(struct pshm_condition *c, struct pshm_waiter *w);

/* With the lock held: end a wait without a notify. */
void pshm_condition_leave(struct pshm_condition *c,
                          const struct pshm_waiter *w);

/* With the lock held: let n waiters continue, or all for UINT_MAX. Returns how
 * many must be woken. The caller does that with pshm_condition_wake, better
 * after it released the lock: a waiter that wakes before only waits again. */
unsigned pshm_condition_admit(struct pshm_condition *c, unsigned n);
void pshm_condition_wake(struct pshm_condition *c, unsigned most);

/* Both. */
void pshm_condition_notify(struct pshm_condition *c, unsigned n);

#endif
