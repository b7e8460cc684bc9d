#include "posix/sync/barrier.h"

#include <limits.h>

#include "posix/sync/futex.h"

#define COUNT UINT64_C(0xffff)
#define BROKEN (UINT64_C(1) << 31)
#define ACTION (UINT64_C(1) << 30)      /* one is running */
#define RESET (UINT64_C(1) << 29)       /* one is under way: complete it */
#define MISSED (UINT64_C(1) << 28)      /* the next generation begins broken */
#define GENERATION (UINT64_C(1) << 32)

static uint64_t
load(const struct pshm_barrier *b)
{
    return atomic_load_explicit(&b->state, memory_order_acquire);
}

static bool
replace(struct pshm_barrier *b, uint64_t *old, uint64_t state)
{
    return atomic_compare_exchange_weak_explicit(
        &b->state, old, state, memory_order_acq_rel, memory_order_acquire);
}

static uint32_t
generation_of(uint64_t state)
{
    return (uint32_t)(state / GENERATION);
}

static uint64_t
next_generation(uint64_t state)
{
    return (uint64_t)(generation_of(state) + 1) * GENERATION;
}

/* The word that waiters sleep on. */
static atomic_uint *
upper_half(struct pshm_barrier *b)
{
    atomic_uint *halves = (atomic_uint *)(void *)&b->state;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return &halves[1];
#else
    return &halves[0];
#endif
}

static void
wake_all(struct pshm_barrier *b)
{
    (void)pshm_futex_wake(upper_half(b), INT_MAX);
}

/* ---- Resetting ---- */

/* The value that records a reset of the generation. The index in the array
 * gives its lowest bits. It is never 0, the value in a new barrier. */
static unsigned
reset_entry(uint32_t generation)
{
    return generation - generation % PSHM_RESETS + 1;
}

/* Record that a reset ended the generation, unless a later one is recorded
 * there: its waiters may not have read it yet, and this process may have been
 * stopped for a long time. */
static void
record_reset(struct pshm_barrier *b, uint32_t generation)
{
    atomic_uint *entry = &b->resets[generation % PSHM_RESETS];
    unsigned new = reset_entry(generation);
    unsigned there = atomic_load_explicit(entry, memory_order_relaxed);
    while ((there == 0 || (int32_t)(new - there) > 0)
           && !atomic_compare_exchange_weak_explicit(
               entry, &there, new, memory_order_release,
               memory_order_relaxed)) {
    }
}

/* The second step of a reset of the generation. Any number of processes may do
 * it. */
static void
complete_reset(struct pshm_barrier *b, uint32_t generation)
{
    record_reset(b, generation);
    uint64_t state = load(b);
    while (generation_of(state) == generation
           && !replace(b, &state, next_generation(state))) {
    }
    wake_all(b);
}

void
pshm_barrier_reset(struct pshm_barrier *b)
{
    uint64_t state = load(b);
    uint32_t generation = generation_of(state);
    do {
        if ((state & (COUNT | ACTION | BROKEN | RESET)) == 0
            || generation_of(state) != generation) {
            return;                     /* empty, now or between two
                                           generations */
        }
    } while (!replace(b, &state, state | RESET));
    complete_reset(b, generation);
}

/* ---- Breaking ---- */

void
pshm_barrier_break(struct pshm_barrier *b, const struct pshm_arrival *a)
{
    uint64_t state = load(b);
    do {
        if (state & RESET) {
            complete_reset(b, generation_of(state));
            state = load(b);
        }
        if (a != NULL && generation_of(state) != a->generation) {
            return;
        }
    } while (state & RESET || !replace(b, &state, state | BROKEN));
    wake_all(b);
}

void
pshm_barrier_miss(struct pshm_barrier *b)
{
    uint64_t state = load(b);
    while ((state & (ACTION | BROKEN | RESET)) == ACTION) {
        if (replace(b, &state, state | MISSED)) {
            return;
        }
    }
    pshm_barrier_break(b, NULL);
}

/* ---- Arriving ---- */

/* If the owner of the runner died, the action that it ran did not complete. */
static int
lock_runner(struct pshm_barrier *b, struct pshm_robust *runner,
            struct pshm_mutex_state *mstate, int64_t deadline)
{
    int rc = pshm_robust_try(runner, mstate);
    if (rc == -EBUSY) {
        rc = pshm_robust_lock(runner, mstate, deadline);
    }
    if (rc == -EOWNERDEAD) {
        if (load(b) & ACTION) {
            pshm_barrier_break(b, NULL);
        }
        pshm_robust_repair(runner);
        rc = 0;
    }
    return rc;
}

int
pshm_barrier_arrive(struct pshm_barrier *b, struct pshm_robust *runner,
                    struct pshm_mutex_state *mstate, bool action,
                    int64_t deadline, struct pshm_arrival *a)
{
    uint64_t state = load(b);
    bool locked = false, arrived = false;
    int rc = 0;
    while (rc == 0 && !arrived) {
        unsigned before = (unsigned)(state & COUNT);
        *a = (struct pshm_arrival){
            .generation = generation_of(state),
            .index = before,
            .last = before + 1 >= b->parties,
        };
        a->action = a->last && action;
        if (state & RESET) {
            complete_reset(b, a->generation);
            state = load(b);
        }
        else if (state & BROKEN) {
            rc = -EPIPE;
        }
        else if (state & ACTION) {
            /* Does this thread run it, through any mutex state? */
            bool mine = pshm_robust_holder(runner) == pshm_thread()->id;
            rc = mine                    ? -EDEADLK
                 : pshm_now() < deadline ? -EAGAIN
                                         : -ETIMEDOUT;
        }
        else if (a->action && !locked) {
            rc = lock_runner(b, runner, mstate, deadline);
            locked = rc == 0;
            state = load(b);
        }
        else {
            arrived = replace(b, &state,
                              !a->last    ? state + 1
                              : a->action ? (state + 1) | ACTION
                                          : next_generation(state));
        }
    }
    if (locked && !(arrived && a->action)) {
        (void)pshm_robust_unlock(runner, mstate);
    }
    if (arrived && a->last && !a->action) {
        wake_all(b);
    }
    return rc;
}

int
pshm_barrier_done(struct pshm_barrier *b, struct pshm_robust *runner,
                  struct pshm_mutex_state *mstate,
                  const struct pshm_arrival *a)
{
    uint64_t state = load(b);
    int rc;
    do {
        rc = state & (BROKEN | RESET) || generation_of(state) != a->generation
                 ? -EPIPE
                 : 0;
    } while (
        rc == 0
        && !replace(b, &state,
                    next_generation(state) | (state & MISSED ? BROKEN : 0)));
    if (rc == 0) {
        wake_all(b);
    }
    (void)pshm_robust_unlock(runner, mstate);
    return rc;
}

void
pshm_barrier_fail(struct pshm_barrier *b, struct pshm_robust *runner,
                  struct pshm_mutex_state *mstate,
                  const struct pshm_arrival *a)
{
    pshm_barrier_break(b, a);
    (void)pshm_robust_unlock(runner, mstate);
}

/* ---- Waiting ---- */

/* Returns 1: the generation has not ended; 0: all parties arrived; -EPIPE:
 * broken or reset. */
static int
outcome(struct pshm_barrier *b, uint32_t generation)
{
    uint64_t state = load(b);
    uint32_t later = generation_of(state) - generation;
    if (later == 0) {
        return state & (BROKEN | RESET) ? -EPIPE : 1;
    }
    unsigned reset = atomic_load_explicit(&b->resets[generation % PSHM_RESETS],
                                          memory_order_acquire);
    /* Another reset may have replaced the entry of this generation. */
    return reset != 0 && (int32_t)(reset - reset_entry(generation)) >= 0
               ? -EPIPE
               : 0;
}

int
pshm_barrier_wait(struct pshm_barrier *b, const struct pshm_arrival *a,
                  struct pshm_robust *runner,
                  const struct pshm_mutex_state *mstate, int64_t deadline)
{
    for (int rc = 0;;) {
        int end = outcome(b, a->generation);
        if (end <= 0 || rc < 0) {
            return end <= 0 ? end : rc;
        }
        rc = pshm_futex_wait(upper_half(b), a->generation, deadline);
        if (rc == -EINTR && load(b) & ACTION
            && pshm_robust_owner_gone(runner, mstate)) {
            pshm_barrier_break(b, a);
        }
    }
}

bool
pshm_barrier_broken(const struct pshm_barrier *b)
{
    return (load(b) & (BROKEN | RESET)) == BROKEN;
}

unsigned
pshm_barrier_waiting(const struct pshm_barrier *b)
{
    uint64_t state = load(b);
    return state & (BROKEN | RESET) ? 0 : (unsigned)(state & COUNT);
}
