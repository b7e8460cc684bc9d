#include "posix/sync/rwlock.h"

#include "posix/sync/futex.h"
#include "posix/sync/orphan.h"

/* How long a reader may hold the turnstile, nanoseconds. */
#define PASSING ((int64_t)1000 * 1000)

static struct pshm_owner *
owner_of(struct pshm_rwlock *rw, int slot)
{
    return &rw->owners[slot / PSHM_OWNERS_IN_LINE]
                .of[slot % PSHM_OWNERS_IN_LINE];
}

int
pshm_rw_init(struct pshm_lock *turnstile, struct pshm_rwlock *rw)
{
    int rc = pshm_lock_init(turnstile, 0);
    for (int i = 0; rc == 0 && i < PSHM_SLOTS; i++) {
        rc = pshm_robust_init(&rw->slots[i], 0);
    }
    return rc;
}

int
pshm_rw_open(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate)
{
    int rc = pshm_lock_open(turnstile, 0, &mstate->turnstile);
    for (int i = 0; rc == 0 && i < PSHM_SLOTS; i++) {
        rc = pshm_robust_open(&rw->slots[i], 0, &mstate->slots[i]);
        mstate->slots[i].space = mstate->turnstile.space;
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
is_inconsistent(const struct pshm_lock *turnstile)
{
    return atomic_load_explicit(&turnstile->inconsistent, memory_order_relaxed)
           != 0;
}

/* In this order, so that the next owner gets -EOWNERDEAD even if this thread
 * dies between the two steps. */
static void
mark_inconsistent(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate)
{
    atomic_store_explicit(&turnstile->inconsistent, 1, memory_order_relaxed);
    set_writing(rw, mstate, false);
}

/* ---- Acquiring ---- */

static int
lock_turnstile(struct pshm_lock *turnstile, const struct pshm_rwlock *rw,
          struct pshm_mutex_state *mstate, enum pshm_rw_patience patience,
          int64_t deadline)
{
    if (patience == PSHM_RW_WAIT) {
        return pshm_lock_wait(turnstile, mstate, deadline);
    }
    int rc = pshm_lock_try(turnstile, mstate);
    if (rc == -EBUSY && patience == PSHM_RW_PASS
        && atomic_load_explicit(&rw->writer_waits, memory_order_relaxed)
               == 0) {
        rc = pshm_lock_wait(turnstile, mstate, pshm_now() + PASSING);
        rc = rc == -ETIMEDOUT ? -EBUSY : rc;
    }
    return rc == -EDEADLK ? -EBUSY : rc;
}

/* Returns 0 or -EOWNERDEAD with the turnstile locked, or another error. */
static int
acquire_turnstile(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
          struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
          enum pshm_rw_patience patience, int64_t deadline)
{
    if (attempt->turnstile) {
        return 0;
    }
    int rc =
        lock_turnstile(turnstile, rw, &mstate->turnstile, patience, deadline);
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    attempt->turnstile = true;
    mstate->writing = false;
    if (rc == -EOWNERDEAD && !is_inconsistent(turnstile) && !was_writing(rw)) {
        atomic_store_explicit(&rw->writer_waits, 0, memory_order_relaxed);
        pshm_lock_repair(turnstile);         /* the dead owner did not write */
        rc = 0;
    }
    return rc;
}

/* Returns 0: locked. A slot whose owner died is free. */
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

/* No other reader will release a slot: all slots are held by this thread, so
 * that only a signal handler can release one, or orphaned, so that their
 * owners may end. */
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

/* Lock the first free slot, beginning at an index that depends on this
 * thread's number. If no slot is free, wait for the first one that another
 * reader will release. */
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

/* For the owner of the turnstile, so that the slot stays free: it has no
 * reader, or one whose Python object was deallocated. The kernel clears the id
 * of a dead owner. */
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
pshm_rw_undo(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt)
{
    if (attempt->turnstile) {
        atomic_store_explicit(&rw->writer_waits, 0, memory_order_relaxed);
        if (was_writing(rw) || is_inconsistent(turnstile)) {
            mark_inconsistent(turnstile, rw, mstate);
            pshm_lock_release_unrepaired(turnstile, &mstate->turnstile);
        }
        else {
            (void)pshm_lock_release(turnstile, &mstate->turnstile);
        }
    }
    *attempt = (struct pshm_rw_attempt){0};
}

/* Returns the result of an attempt, which is undone if it failed. */
static int
conclude(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
         struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt, int rc)
{
    if (rc < 0 && rc != -EINTR && rc != -EOWNERDEAD) {
        pshm_rw_undo(turnstile, rw, mstate, attempt);
    }
    return rc;
}

int
pshm_rw_read(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
             enum pshm_rw_patience patience, int64_t deadline, int *slot)
{
    int rc =
        acquire_turnstile(turnstile, rw, mstate, attempt, patience, deadline);
    if (rc == 0) {
        rc = find_slot(rw, mstate, patience, deadline, slot);
    }
    if (rc == 0) {
        (void)pshm_lock_release(turnstile, &mstate->turnstile);
        *attempt = (struct pshm_rw_attempt){0};
    }
    return conclude(turnstile, rw, mstate, attempt, rc);
}

int
pshm_rw_write(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
              struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
              enum pshm_rw_patience patience, int64_t deadline)
{
    int rc =
        acquire_turnstile(turnstile, rw, mstate, attempt, patience, deadline);
    if (rc == 0) {
        atomic_store_explicit(&rw->writer_waits, 1, memory_order_relaxed);
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
    return conclude(turnstile, rw, mstate, attempt, rc);
}

/* ---- Releasing ---- */

void
pshm_rw_repair(struct pshm_lock *turnstile)
{
    pshm_lock_repair(turnstile);
}

void
pshm_rw_release_unrepaired(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                struct pshm_rw_state *mstate)
{
    pshm_lock_begin_repair(turnstile);
    (void)pshm_rw_done(turnstile, rw, mstate);
}

int
pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_state *mstate, int slot)
{
    pshm_orphans_release();
    return pshm_robust_unlock(&rw->slots[slot], &mstate->slots[slot]);
}

int
pshm_rw_done(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
             struct pshm_rw_state *mstate)
{
    if (!pshm_rw_writes(mstate)) {
        return -EPERM;
    }
    set_writing(rw, mstate, false);
    atomic_store_explicit(&rw->writer_waits, 0, memory_order_relaxed);
    int rc = pshm_lock_release(turnstile, &mstate->turnstile);
    if (rc < 0) {
        /* Other threads may have held the lock at the same time. */
        atomic_store_explicit(&turnstile->inconsistent, 1,
                              memory_order_relaxed);
        mstate->writing = pshm_mutex_state_mine(&mstate->turnstile);
    }
    return rc;
}

/* The owner of the turnstile acquires or writes: it is not a reader of the
 * slots that it checks. */
int
pshm_rw_my_slot(const struct pshm_rw_state *mstate)
{
    if (pshm_mutex_state_mine(&mstate->turnstile)) {
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
    return pshm_mutex_state_mine(&mstate->turnstile) && mstate->writing;
}

void
pshm_rw_abandon(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                struct pshm_rw_state *mstate,
                void (*keep)(void *context, struct pshm_robust *r,
                             const struct pshm_mutex_state *mstate),
                void *context)
{
    if (pshm_lock_abandon(turnstile, &mstate->turnstile) < 0) {
        keep(context, &turnstile->mutex, &mstate->turnstile);
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
