/* Event: a flag that any number of threads can wait for.
 *
 * The state is one word. Its lowest bit is the flag, and the other bits count
 * the changes. A waiter sleeps on the value that it read while the flag was
 * clear, so no change after the read is lost: either the kernel finds another
 * value and does not let the waiter sleep, or the wake-up comes after the
 * waiter fell asleep. If the flag is set and cleared before the waiter runs,
 * the waiter still finds another value.
 *
 * If a process sets the flag and is killed before it wakes the waiters, they
 * find the new value at the end of their poll interval (futex.h). */
#ifndef PSHM_EVENT_H
#define PSHM_EVENT_H

#include <stdatomic.h>

#include "posix/base.h"

/* All zeros: the flag is clear. */
struct pshm_event {
    atomic_uint word;
};

bool pshm_event_is_set(const struct pshm_event *event);

/* A waiter sees what the setting thread wrote before the call. */
void pshm_event_set(struct pshm_event *event);
void pshm_event_clear(struct pshm_event *event);

/* Wait until the flag is set. seen: the word as pshm_event_read returned it
 * before the first call. Returns 0 if the flag is set or was set in the
 * meantime; or -EINTR, -ETIMEDOUT as pshm_futex_wait. */
unsigned pshm_event_read(const struct pshm_event *event);
int pshm_event_wait(struct pshm_event *event, unsigned seen, int64_t deadline);

#endif
