#include "posix/sync/condition.h"

#include <limits.h>

#include "posix/sync/futex.h"

/* The lock orders all accesses except those of a sleeping waiter. */
static unsigned
get(const atomic_uint *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void
put(atomic_uint *word, unsigned value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

void
pshm_condition_enter(struct pshm_condition *c, struct pshm_waiter *w)
{
    w->arrived = w->seen = get(&c->count);
    w->generation = get(&c->generation);
    put(&c->waiters, get(&c->waiters) + 1);
}

static bool
may_continue(const struct pshm_condition *c, const struct pshm_waiter *w)
{
    return get(&c->generation) != w->generation
           || (get(&c->tokens) > 0 && get(&c->count) != w->arrived);
}

int
pshm_condition_sleep(struct pshm_condition *c, const struct pshm_waiter *w,
                     int64_t deadline)
{
    int64_t end = pshm_poll_end(deadline);
    int rc = pshm_futex_sleep(&c->count, w->seen, end);
    return rc == 0 || may_continue(c, w) ? 0
           : rc == -ETIMEDOUT            ? pshm_poll_over(end, deadline) : rc;
}

bool
pshm_condition_claim(struct pshm_condition *c, struct pshm_waiter *w)
{
    w->seen = get(&c->count);
    if (!may_continue(c, w)) {
        return false;
    }
    if (get(&c->generation) == w->generation) {
        put(&c->tokens, get(&c->tokens) - 1);
        if (get(&c->waiters) > 0) {
            put(&c->waiters, get(&c->waiters) - 1);
        }
    }
    return true;
}

void
pshm_condition_leave(struct pshm_condition *c, const struct pshm_waiter *w)
{
    unsigned waiters = get(&c->waiters);
    if (get(&c->generation) == w->generation && waiters > 0) {
        put(&c->waiters, waiters - 1);
        if (get(&c->tokens) > waiters - 1) {
            put(&c->tokens, waiters - 1);
        }
    }
}

/* A thread that is killed between two of these steps held the lock, so the
 * next owner learns of its death. That owner finds the notify either done or
 * not done, except that waiters may be counted twice. */
unsigned
pshm_condition_admit(struct pshm_condition *c, unsigned n)
{
    unsigned waiters = get(&c->waiters), tokens = get(&c->tokens);
    if (waiters == 0 || n == 0) {
        return 0;
    }
    bool all = tokens >= waiters || n >= waiters - tokens;
    if (all) {
        put(&c->generation, get(&c->generation) + 1);
        put(&c->tokens, 0);
        put(&c->waiters, 0);
    }
    else {
        put(&c->tokens, tokens + n);
    }
    put(&c->count, get(&c->count) + 1);
    return all ? UINT_MAX : n;
}

void
pshm_condition_wake(struct pshm_condition *c, unsigned most)
{
    if (most > 0) {
        (void)pshm_futex_wake(&c->count, most > INT_MAX ? INT_MAX : (int)most);
    }
}

void
pshm_condition_notify(struct pshm_condition *c, unsigned n)
{
    pshm_condition_wake(c, pshm_condition_admit(c, n));
}
