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

/* Also wakes the waiters if the flag is set already: the process that set it
 * may have been killed before it woke them. */
void
pshm_event_set(struct pshm_event *event)
{
    (void)change(event, 1);
    (void)pshm_futex_wake(&event->word, INT_MAX);
}

void
pshm_event_clear(struct pshm_event *event)
{
    (void)change(event, 0);
}

int
pshm_event_wait(struct pshm_event *event, unsigned seen, int64_t deadline)
{
    int rc = 0;
    while (rc == 0) {
        unsigned word = pshm_event_read(event);
        if (word & 1 || word != seen) {
            return 0;
        }
        rc = pshm_futex_wait(&event->word, word, deadline);
    }
    /* A change at the end of the sleep counts, too. */
    unsigned word = pshm_event_read(event);
    return word & 1 || word != seen ? 0 : rc;
}
