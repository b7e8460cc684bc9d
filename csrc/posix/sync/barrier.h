/* Barrier: a number of parties wait for each other, any number of times.
 *
 * The whole state is one word of 64 bits: the generation in its upper half; in
 * its lower half the number of parties that have arrived, and flags. It
 * changes in single steps, so a process that is killed leaves it before or
 * after a step. Waiters sleep on the upper half. It changes when the last
 * party arrives or when the barrier is reset. Breaking the barrier wakes the
 * waiters as well. If a process is killed after its step and before its
 * wake-up call, the waiters find the change at the end of their poll interval
 * (futex.h).
 *
 * The last party runs an action while it holds a robust mutex, the runner. The
 * parties that wait for an action check whether the owner of the runner died;
 * if so, they break the barrier.
 *
 * A reset takes two steps. The first one, a flag, ends the generation for all
 * its parties. A party that arrives after it completes the reset before
 * anything else, so no party finds the barrier between the two steps. */
#ifndef PSHM_BARRIER_H
#define PSHM_BARRIER_H

#include <stdatomic.h>

#include "posix/base.h"
#include "posix/sync/robust.h"

#define PSHM_PARTIES_MOST 32767

enum { PSHM_RESETS = 8 };

/* 64 bytes: the payload of a primitive. The runner follows the header. */
struct pshm_barrier {
    _Atomic(uint64_t) state;
    uint32_t parties;
    uint32_t unused;
    /* If a reset ended generation g: g with 1 in place of g % PSHM_RESETS, at
     * index g % PSHM_RESETS. */
    atomic_uint resets[PSHM_RESETS];
    uint32_t more[4];
};

_Static_assert(sizeof(struct pshm_barrier) == 64, "it fills a payload");

/* One arrival. */
struct pshm_arrival {
    uint32_t generation;
    unsigned index;                     /* 0 for the first one to arrive */
    bool last;
    bool action;                        /* the caller runs the action now */
};

/* Arrive. action: the caller runs an action if it is the last party; then it
 * holds the runner until it calls pshm_barrier_done or pshm_barrier_fail.
 * Returns 0; -EPIPE: broken; -EAGAIN: an action is running, so wait for the
 * end of a->generation, ignore the result, and call again; -EDEADLK: this
 * thread runs that action; or -EBADMSG, -EINTR, -ETIMEDOUT as
 * pshm_robust_lock. */
int pshm_barrier_arrive(struct pshm_barrier *b, struct pshm_robust *runner,
                        struct pshm_mutex_state *mstate, bool action,
                        int64_t deadline, struct pshm_arrival *a);

/* A party that has not arrived stops waiting: break its generation. While an
 * action runs, that is the next generation. */
void pshm_barrier_miss(struct pshm_barrier *b);

/* The action is done: release all parties. Returns 0 or -EPIPE. */
int pshm_barrier_done(struct pshm_barrier *b, struct pshm_robust *runner,
                      struct pshm_mutex_state *mstate,
                      const struct pshm_arrival *a);

/* The action failed: break the generation. */
void pshm_barrier_fail(struct pshm_barrier *b, struct pshm_robust *runner,
                       struct pshm_mutex_state *mstate,
                       const struct pshm_arrival *a);

/* Wait for the end of the generation. Returns 0; -EPIPE: broken or reset; or
 * -EINTR, -ETIMEDOUT as pshm_futex_wait. */
int pshm_barrier_wait(struct pshm_barrier *b, const struct pshm_arrival *a,
                      struct pshm_robust *runner,
                      const struct pshm_mutex_state *mstate, int64_t deadline);

/* Break the barrier. a: NULL; or an arrival: only if its generation has not
 * ended. */
void pshm_barrier_break(struct pshm_barrier *b, const struct pshm_arrival *a);

/* Make the barrier empty and not broken. Waiting parties get -EPIPE. */
void pshm_barrier_reset(struct pshm_barrier *b);

bool pshm_barrier_broken(const struct pshm_barrier *b);
unsigned pshm_barrier_waiting(const struct pshm_barrier *b);

#endif
