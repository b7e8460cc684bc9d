/* Taking turns at taking names away.
 *
 * Nothing the kernel has removes a name only if it is a certain object's, so
 * that takes a look and then a step (link.h), and in between the name may be
 * given to another object.  Those who use this library do not do that to each
 * other: whoever takes a name away, or gives one that may be another's
 * already, has the turn meanwhile, an exclusive flock(2) on PSHM_DIR.  Who
 * gives a name that must be free needs none.
 *
 * Anyone may hold that lock for ever, and nobody is to wait for ever: after
 * some 20 ms it goes on without the turn.  A child forked meanwhile does not
 * keep it, and the kernel ends it with the process. */
#ifndef PSHM_TURN_H
#define PSHM_TURN_H

#include "base.h"

/* Never fails: returns what pshm_turn_end takes, with the turn or without.
 * Not to be begun twice, or the second waits for the first.  May sleep. */
int pshm_turn_begin(void);
void pshm_turn_end(int turn);

#endif
