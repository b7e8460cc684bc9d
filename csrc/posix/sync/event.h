/* Event: a flag that many can wait for.
 *
 * One word: its lowest bit is the flag, the rest counts how often it changed.
 * Who waits sleeps on the word as it was when the flag was down, so no change
 * after that look is lost: either the kernel sees another word and does not let
 * it sleep, or the wake comes after it sleeps.  And where the flag goes up and
 * down again before it is awake, it still sees another word.
 *
 * Who sets the flag and is killed before it wakes the others has changed the
 * word already: they see that at the end of their slice (futex.h). */
#ifndef PSHM_EVENT_H
#define PSHM_EVENT_H

#include <stdatomic.h>

#include "posix/base.h"

/* All zeros: not set. */
struct pshm_event {
    atomic_uint word;
};

bool pshm_event_is_set(const struct pshm_event *event);

/* Whoever waits sees what happened before the set. */
void pshm_event_set(struct pshm_event *event);
void pshm_event_clear(struct pshm_event *event);

/* Wait until it is set.  *seen: the word at the first call, from
 * pshm_event_look.  Returns 0, also where it was set and cleared since; or
 * -EINTR, -ETIMEDOUT as pshm_futex_wait. */
unsigned pshm_event_look(const struct pshm_event *event);
int pshm_event_wait(struct pshm_event *event, unsigned seen, int64_t deadline);

#endif
