#include "barrier.h"

#include <limits.h>

#include "futex.h"

#define COUNT UINT64_C(0xffff)
#define BROKEN (UINT64_C(1) << 31)
#define ACTION (UINT64_C(1) << 30)
#define ROUND (UINT64_C(1) << 32)

static uint64_t
look(const struct pshm_barrier *b)
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
round_of(uint64_t state)
{
    return (uint32_t)(state / ROUND);
}

static uint64_t
next_round(uint64_t state)
{
    return (uint64_t)(round_of(state) + 1) * ROUND;
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

int
pshm_barrier_arrive(struct pshm_barrier *b, bool action,
                    struct pshm_arrival *a)
{
    uint64_t state = look(b), then;
    do {
        unsigned before = (unsigned)(state & COUNT);
        *a = (struct pshm_arrival){.round = round_of(state)};
        if (state & (BROKEN | ACTION)) {
            return state & BROKEN ? -EPIPE : -EAGAIN;
        }
        *a = (struct pshm_arrival){
            .round = round_of(state),
            .place = before,
            .last = before + 1 >= b->parties,
        };
        a->action = a->last && action;
        then = !a->last ? state + 1 : action ? (state + 1) | ACTION
                                             : next_round(state);
    } while (!replace(b, &state, then));
    if (a->last && !action) {
        wake_all(b);
    }
    return 0;
}

int
pshm_barrier_done(struct pshm_barrier *b, const struct pshm_arrival *a)
{
    uint64_t state = look(b);
    do {
        if (state & BROKEN || round_of(state) != a->round) {
            return -EPIPE;
        }
    } while (!replace(b, &state, next_round(state)));
    wake_all(b);
    return 0;
}

void
pshm_barrier_runner_died(struct pshm_barrier *b, struct pshm_robust *runner)
{
    if (look(b) & ACTION) {
        pshm_barrier_abort(b);
    }
    pshm_robust_repair(runner);
}

/* Has the action's owner died?  Then it is broken after this. */
static void
check_runner(struct pshm_barrier *b, struct pshm_robust *runner,
             struct pshm_grip *grip)
{
    int rc = pshm_robust_try(runner, grip);
    if (rc == -EOWNERDEAD) {
        pshm_barrier_runner_died(b, runner);
    }
    if (rc == 0 || rc == -EOWNERDEAD) {
        (void)pshm_robust_unlock(runner, grip);
    }
}

/* Its place says the lowest bits of the round; never 0, as a new one has it. */
static unsigned
reset_mark(uint32_t round)
{
    return round - round % PSHM_RESETS + 1;
}

/* Say that the round was reset; not in the place of a later one, whose sleepers
 * may not have looked yet: who resets may be stopped for long before this. */
static void
leave_mark(struct pshm_barrier *b, uint32_t round)
{
    atomic_uint *place = &b->resets[round % PSHM_RESETS];
    unsigned mark = reset_mark(round);
    unsigned there = atomic_load_explicit(place, memory_order_relaxed);
    while ((there == 0 || (int32_t)(mark - there) > 0)
           && !atomic_compare_exchange_weak_explicit(
               place, &there, mark, memory_order_release,
               memory_order_relaxed)) {
    }
}

/* 1: the round goes on; 0: it ended well; -EPIPE: it did not. */
static int
outcome(struct pshm_barrier *b, uint32_t round)
{
    uint64_t state = look(b);
    uint32_t later = round_of(state) - round;
    if (later == 0) {
        return state & BROKEN ? -EPIPE : 1;
    }
    unsigned reset = atomic_load_explicit(&b->resets[round % PSHM_RESETS],
                                          memory_order_acquire);
    /* That of a later round may have taken the place of this one's. */
    return reset != 0 && (int32_t)(reset - reset_mark(round)) >= 0 ? -EPIPE
                                                                   : 0;
}

int
pshm_barrier_wait(struct pshm_barrier *b, const struct pshm_arrival *a,
                  struct pshm_robust *runner, struct pshm_grip *grip,
                  int64_t until)
{
    int rc = 0;
    while (rc == 0) {
        int end = outcome(b, a->round);
        if (end <= 0) {
            return end;
        }
        rc = pshm_futex_wait(upper_half(b), a->round, until);
        if (rc == -EINTR && look(b) & ACTION) {
            check_runner(b, runner, grip);
        }
    }
    int end = outcome(b, a->round);
    return end <= 0 ? end : rc;
}

/* Set the flag, if it still is the round; 0: whichever it is. */
static void
break_it(struct pshm_barrier *b, const struct pshm_arrival *a)
{
    uint64_t state = look(b);
    do {
        if (a != NULL && round_of(state) != a->round) {
            return;
        }
    } while (!replace(b, &state, state | BROKEN));
    wake_all(b);
}

void
pshm_barrier_abort(struct pshm_barrier *b)
{
    break_it(b, NULL);
}

void
pshm_barrier_abandon(struct pshm_barrier *b, const struct pshm_arrival *a)
{
    break_it(b, a);
}

/* Broken first: from then on the round can only end by a reset, so to say that
 * it did is true whoever ends it. */
void
pshm_barrier_reset(struct pshm_barrier *b)
{
    uint64_t state = look(b);
    if ((state & (COUNT | ACTION | BROKEN)) == 0) {
        return;
    }
    uint32_t round = round_of(state);
    break_it(b, &(struct pshm_arrival){.round = round});
    state = look(b);
    if (round_of(state) != round) {
        return;                         /* it ended before that */
    }
    leave_mark(b, round);
    while (round_of(state) == round && !replace(b, &state, next_round(state))) {
    }
    wake_all(b);
}

bool
pshm_barrier_broken(const struct pshm_barrier *b)
{
    return look(b) & BROKEN;
}

unsigned
pshm_barrier_waiting(const struct pshm_barrier *b)
{
    uint64_t state = look(b);
    return state & BROKEN ? 0 : (unsigned)(state & COUNT);
}
