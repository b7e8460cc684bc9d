/* Barrier: so many parties wait for each other, again and again.
 *
 * One word of 64 bits says it all: the round in its upper half, and in the
 * lower one how many have arrived, whether it is broken, and whether the last
 * one is at its action.  It changes in single steps, so whoever is killed leaves
 * it before or after one.  Waiters sleep on the upper half: it changes when the
 * last one arrives, or when the barrier is reset, and breaking it wakes them as
 * well.  Who is killed before it woke the others has made the change, which they
 * see at the end of their slice (futex.h).
 *
 * An action is done under a robust mutex.  Those who wait for one look whether
 * it still is held; if its owner died, the barrier is broken. */
#ifndef PSHM_BARRIER_H
#define PSHM_BARRIER_H

#include <stdatomic.h>

#include "base.h"
#include "robust.h"

#define PSHM_PARTIES_MOST 32767

enum { PSHM_RESETS = 8 };

/* 64 bytes, and the mutex behind the tag. */
struct pshm_barrier {
    _Atomic(uint64_t) state;
    uint32_t parties;
    uint32_t unused;
    /* Round r, if it was ended by a reset: in place r % PSHM_RESETS, r with 1
     * for that remainder. */
    atomic_uint resets[PSHM_RESETS];
    uint32_t more[4];
};

_Static_assert(sizeof(struct pshm_barrier) == 64, "it fills a payload");

/* One arrival. */
struct pshm_arrival {
    uint32_t round;
    unsigned place;                     /* 0 for the first one to arrive */
    bool last;
    bool action;                        /* and is to call pshm_barrier_done */
};

/* Arrive.  action: there is one to do if this is the last arrival; then the
 * caller has the runner's mutex, and keeps it until pshm_barrier_done.
 * Returns 0; -EPIPE: it is broken; or -EAGAIN: all are there and an action is
 * under way, so wait for the end of a->round and arrive again. */
int pshm_barrier_arrive(struct pshm_barrier *b, bool action,
                        struct pshm_arrival *a);

/* The runner's mutex was found with a dead owner.  Repairs it. */
void pshm_barrier_runner_died(struct pshm_barrier *b,
                              struct pshm_robust *runner);

/* The last one's action is done: let all go on.  0 or -EPIPE. */
int pshm_barrier_done(struct pshm_barrier *b, const struct pshm_arrival *a);

/* Wait for the round to end.  Returns 0; -EPIPE: broken or reset; or -EINTR,
 * -ETIMEDOUT as pshm_futex_wait. */
int pshm_barrier_wait(struct pshm_barrier *b, const struct pshm_arrival *a,
                      struct pshm_robust *runner, struct pshm_grip *grip,
                      int64_t until);

/* Break it, for all who wait and will come; or only if it still is that
 * arrival's round. */
void pshm_barrier_abort(struct pshm_barrier *b);
void pshm_barrier_abandon(struct pshm_barrier *b,
                          const struct pshm_arrival *a);

/* Begin anew; who waits is told that it is broken. */
void pshm_barrier_reset(struct pshm_barrier *b);

bool pshm_barrier_broken(const struct pshm_barrier *b);
unsigned pshm_barrier_waiting(const struct pshm_barrier *b);

#endif
