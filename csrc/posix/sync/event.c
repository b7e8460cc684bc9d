#include "posix/sync/event.h"

#include <limits.h>

#include "posix/sync/futex.h"

unsigned
pshm_event_read(const struct pshm_event *event)
{
    return atomic_load_explicit(&event->word, memory_order_acquire);
}

bool
pshm_event_is_set(const struct pshm_event *event)
{
    return pshm_event_read(event) & 1;
}

/* Returns true if this call changed the flag. */
static bool
change(struct pshm_event *event, unsigned flag)
{
    unsigned word = pshm_event_read(event);
    while ((word & 1) != flag) {
        if (atomic_compare_exchange_weak_explicit(
                &event->word, &word, word + 1, memory_order_acq_rel,
                memory_order_acquire)) {
            return true;
        }
    }
    return false;
}

/* Waiters cannot announce themselves, because they may be in read-only memory.
 */
void
pshm_event_set(struct pshm_event *event)
{
    if (change(event, 1)) {
        (void)pshm_futex_wake(&event->word, INT_MAX);
    }
}

void
pshm_event_clear(struct pshm_event *event)
{
    (void)change(event, 0);
}

int
pshm_event_wait(struct pshm_event *event, unsigned seen, int64_t deadline)
{
    int64_t end = pshm_poll_end(deadline);
    unsigned word = pshm_event_read(event);
    for (int rc = 0; (word & 1) == 0 && word == seen;) {
        if (rc < 0) {
            return rc == -ETIMEDOUT ? pshm_poll_over(end, deadline) : rc;
        }
        rc = pshm_futex_sleep(&event->word, word, end);
        word = pshm_event_read(event);
    }
    return 0;
}
