#include "posix/sync/rwlock.h"

#include "posix/sync/futex.h"
#include "posix/sync/orphan.h"

/* What a reader may take to come through the gate, nanoseconds. */
#define PASSING ((int64_t)1000 * 1000)

static struct pshm_owner *
owner_of(struct pshm_rwlock *rw, int slot)
{
    return &rw->owners[slot / PSHM_OWNERS_IN_LINE]
                .of[slot % PSHM_OWNERS_IN_LINE];
}

int
pshm_rw_init(struct pshm_lock *gate, struct pshm_rwlock *rw)
{
    int rc = pshm_lock_init(gate, 0);
    for (int i = 0; rc == 0 && i < PSHM_SLOTS; i++) {
        rc = pshm_robust_init(&rw->slots[i], 0);
    }
    return rc;
}

int
pshm_rw_open(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate)
{
    int rc = pshm_lock_open(gate, 0, &mstate->gate);
    for (int i = 0; rc == 0 && i < PSHM_SLOTS; i++) {
        rc = pshm_robust_open(&rw->slots[i], 0, &mstate->slots[i]);
        mstate->slots[i].space = mstate->gate.space;
        mstate->slots[i].note = owner_of(rw, i);
    }
    return rc;
}

static bool
was_writing(const struct pshm_rwlock *rw)
{
    return atomic_load_explicit(&rw->writing, memory_order_relaxed) != 0;
}

static void
set_writing(struct pshm_rwlock *rw, struct pshm_rw_state *mstate, bool writing)
{
    mstate->writing = writing;
    atomic_store_explicit(&rw->writing, writing, memory_order_relaxed);
}

static bool
is_inconsistent(const struct pshm_lock *gate)
{
    return atomic_load_explicit(&gate->inconsistent, memory_order_relaxed)
           != 0;
}

/* In this order, so that a death in between is still told. */
static void
mark_inconsistent(struct pshm_lock *gate, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate)
{
    atomic_store_explicit(&gate->inconsistent, 1, memory_order_relaxed);
    set_writing(rw, mstate, false);
}

/* ---- Coming in ---- */

static int
lock_gate(struct pshm_lock *gate, const struct pshm_rwlock *rw,
          struct pshm_mutex_state *mstate, enum pshm_rw_patience patience,
          int64_t deadline)
{
    if (patience == PSHM_RW_WAIT) {
        return pshm_lock_wait(gate, mstate, deadline);
    }
    int rc = pshm_lock_try(gate, mstate);
    if (rc == -EBUSY && patience == PSHM_RW_PASS
        && atomic_load_explicit(&rw->coming, memory_order_relaxed) == 0) {
        rc = pshm_lock_wait(gate, mstate, pshm_now() + PASSING);
        rc = rc == -ETIMEDOUT ? -EBUSY : rc;
    }
    return rc == -EDEADLK ? -EBUSY : rc;
}

/* 0 or -EOWNERDEAD with the gate. */
static int
take_gate(struct pshm_lock *gate, struct pshm_rwlock *rw,
          struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
          enum pshm_rw_patience patience, int64_t deadline)
{
    if (attempt->gate) {
        return 0;
    }
    int rc = lock_gate(gate, rw, &mstate->gate, patience, deadline);
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    attempt->gate = true;
    mstate->writing = false;
    if (rc == -EOWNERDEAD && !is_inconsistent(gate) && !was_writing(rw)) {
        atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
        pshm_lock_repair(gate);         /* it only came or went */
        rc = 0;
    }
    return rc;
}

/* 0: locked.  A slot whose owner died is free. */
static int
repaired(struct pshm_robust *slot, int rc)
{
    if (rc == -EOWNERDEAD) {
        pshm_robust_repair(slot);
        rc = 0;
    }
    return rc;
}

static bool
is_orphaned(struct pshm_rwlock *rw, int slot)
{
    return atomic_load_explicit(&owner_of(rw, slot)->thread,
                                memory_order_relaxed) == PSHM_ORPHANED;
}

/* No slot will be left by another reader: all are this thread's, so that only a
 * signal handler can release one, or orphans, whose threads may end. */
static int
wait_for_any(struct pshm_rwlock *rw, int slot, bool all_mine, int64_t deadline)
{
    if (all_mine && deadline == PSHM_NEVER) {
        return -EAGAIN;
    }
    atomic_uint *word = pshm_robust_word(&rw->slots[slot]);
    int rc = pshm_futex_wait(word, atomic_load(word), deadline);
    return rc == 0 ? -EINTR : rc;
}

/* The first free one, from the one on that this thread's number leads to; if none
 * is free, the first one that another reader will leave is waited for. */
static int
find_slot(struct pshm_rwlock *rw, struct pshm_rw_state *mstate,
          enum pshm_rw_patience patience, int64_t deadline, int *slot)
{
    int rc, mine = 0, other = -1;
    int first = (int)(pshm_thread()->number % PSHM_SLOTS);
    for (int i = 0; i < PSHM_SLOTS; i++) {
        *slot = (first + i) % PSHM_SLOTS;
        rc = pshm_robust_try(&rw->slots[*slot], &mstate->slots[*slot]);
        if (rc != -EBUSY && rc != -EDEADLK) {
            return repaired(&rw->slots[*slot], rc);
        }
        mine += rc == -EDEADLK;
        if (rc == -EBUSY && other < 0 && !is_orphaned(rw, *slot)) {
            other = *slot;
        }
    }
    if (patience != PSHM_RW_WAIT) {
        return -EBUSY;
    }
    if (other < 0) {
        return wait_for_any(rw, first, mine == PSHM_SLOTS, deadline);
    }
    *slot = other;
    rc = pshm_robust_lock(&rw->slots[other], &mstate->slots[other], deadline);
    return repaired(&rw->slots[other], rc == -EINPROGRESS ? -EINTR : rc);
}

/* By the gate's owner, so that it stays free: no reader, or one whose object is
 * gone.  Of a dead one the kernel leaves no id. */
static bool
is_free(struct pshm_rwlock *rw, int i)
{
    unsigned word = atomic_load_explicit(pshm_robust_word(&rw->slots[i]),
                                         memory_order_acquire);
    return (word & FUTEX_TID_MASK) == 0 || is_orphaned(rw, i);
}

static int
wait_for_slot(struct pshm_rwlock *rw, struct pshm_rw_state *mstate, int i,
              enum pshm_rw_patience patience, int64_t deadline)
{
    struct pshm_robust *slot = &rw->slots[i];
    struct pshm_mutex_state *mine = &mstate->slots[i];
    int rc = patience == PSHM_RW_WAIT ? pshm_robust_lock(slot, mine, deadline)
                                      : pshm_robust_busy(slot, mine);
    rc = repaired(slot, rc);
    if (rc == 0) {
        rc = pshm_robust_unlock(slot, mine);
    }
    return rc == -EINPROGRESS ? 0 : rc;
}

void
pshm_rw_undo(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt)
{
    if (attempt->gate) {
        atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
        if (was_writing(rw) || is_inconsistent(gate)) {
            mark_inconsistent(gate, rw, mstate);
            pshm_lock_give_up(gate, &mstate->gate);
        }
        else {
            (void)pshm_lock_release(gate, &mstate->gate);
        }
    }
    *attempt = (struct pshm_rw_attempt){0};
}

/* What an attempt returns, with the attempt undone where it has failed. */
static int
conclude(struct pshm_lock *gate, struct pshm_rwlock *rw,
         struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt, int rc)
{
    if (rc < 0 && rc != -EINTR && rc != -EOWNERDEAD) {
        pshm_rw_undo(gate, rw, mstate, attempt);
    }
    return rc;
}

int
pshm_rw_read(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
             enum pshm_rw_patience patience, int64_t deadline, int *slot)
{
    int rc = take_gate(gate, rw, mstate, attempt, patience, deadline);
    if (rc == 0) {
        rc = find_slot(rw, mstate, patience, deadline, slot);
    }
    if (rc == 0) {
        (void)pshm_lock_release(gate, &mstate->gate);
        *attempt = (struct pshm_rw_attempt){0};
    }
    return conclude(gate, rw, mstate, attempt, rc);
}

int
pshm_rw_write(struct pshm_lock *gate, struct pshm_rwlock *rw,
              struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
              enum pshm_rw_patience patience, int64_t deadline)
{
    int rc = take_gate(gate, rw, mstate, attempt, patience, deadline);
    if (rc == 0) {
        atomic_store_explicit(&rw->coming, 1, memory_order_relaxed);
    }
    while (rc == 0 && attempt->slots < PSHM_SLOTS) {
        int i = attempt->slots;
        rc = is_free(rw, i) ? 0
                            : wait_for_slot(rw, mstate, i, patience, deadline);
        attempt->slots += rc == 0;
    }
    if (rc == 0) {
        set_writing(rw, mstate, true);
        *attempt = (struct pshm_rw_attempt){0};
    }
    return conclude(gate, rw, mstate, attempt, rc);
}

/* ---- Leaving ---- */

void
pshm_rw_repair(struct pshm_lock *gate)
{
    pshm_lock_repair(gate);
}

void
pshm_rw_give_up(struct pshm_lock *gate, struct pshm_rwlock *rw,
                struct pshm_rw_state *mstate)
{
    pshm_lock_begin_repair(gate);
    (void)pshm_rw_done(gate, rw, mstate);
}

int
pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_state *mstate, int slot)
{
    pshm_orphans_release();
    return pshm_robust_unlock(&rw->slots[slot], &mstate->slots[slot]);
}

int
pshm_rw_done(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate)
{
    if (!pshm_rw_writes(mstate)) {
        return -EPERM;
    }
    set_writing(rw, mstate, false);
    atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
    int rc = pshm_lock_release(gate, &mstate->gate);
    if (rc < 0) {
        /* Others may have been in beside this writer. */
        atomic_store_explicit(&gate->inconsistent, 1, memory_order_relaxed);
        mstate->writing = pshm_mutex_state_mine(&mstate->gate);
    }
    return rc;
}

/* The gate's owner comes or writes: its slots are not a reader's. */
int
pshm_rw_my_slot(const struct pshm_rw_state *mstate)
{
    if (pshm_mutex_state_mine(&mstate->gate)) {
        return -1;
    }
    for (int i = 0; i < PSHM_SLOTS; i++) {
        if (pshm_mutex_state_mine(&mstate->slots[i])) {
            return i;
        }
    }
    return -1;
}

bool
pshm_rw_writes(const struct pshm_rw_state *mstate)
{
    return pshm_mutex_state_mine(&mstate->gate) && mstate->writing;
}

void
pshm_rw_abandon(struct pshm_lock *gate, struct pshm_rwlock *rw,
                struct pshm_rw_state *mstate,
                void (*keep)(void *context, struct pshm_robust *r,
                             const struct pshm_mutex_state *mstate),
                void *context)
{
    if (pshm_lock_abandon(gate, &mstate->gate) < 0) {
        keep(context, &gate->mutex, &mstate->gate);
    }
    for (int i = 0; i < PSHM_SLOTS; i++) {
        if (pshm_robust_abandon(&rw->slots[i], &mstate->slots[i], NULL) < 0) {
            keep(context, &rw->slots[i], &mstate->slots[i]);
        }
    }
}

int
pshm_rw_readers(struct pshm_rwlock *rw)
{
    int count = 0;
    if (was_writing(rw)) {
        return -1;
    }
    for (int i = 0; i < PSHM_SLOTS; i++) {
        count += !is_free(rw, i);
    }
    return count;
}
