#include "rwlock.h"

#include "futex.h"

/* What a reader may take to come through the gate, nanoseconds. */
#define PASSING ((int64_t)1000 * 1000)

int
pshm_rw_init(struct pshm_lock *gate, struct pshm_rwlock *rw)
{
    int rc = pshm_lock_init(gate, 0);
    for (int i = 0; rc == 0 && i < PSHM_SEATS; i++) {
        rc = pshm_robust_init(&rw->seats[i], 0);
    }
    return rc;
}

int
pshm_rw_open(const struct pshm_lock *gate, const struct pshm_rwlock *rw,
             struct pshm_rw_grip *grip)
{
    int rc = pshm_robust_open(&gate->mutex, 0, &grip->gate);
    for (int i = 0; rc == 0 && i < PSHM_SEATS; i++) {
        rc = pshm_robust_open(&rw->seats[i], 0, &grip->seats[i]);
    }
    return rc;
}

static bool
was_writing(const struct pshm_rwlock *rw)
{
    return atomic_load_explicit(&rw->writing, memory_order_relaxed) != 0;
}

static void
set_writing(struct pshm_rwlock *rw, bool writing)
{
    atomic_store_explicit(&rw->writing, writing, memory_order_relaxed);
}

static bool
is_broken(const struct pshm_lock *gate)
{
    return atomic_load_explicit(&gate->broken, memory_order_relaxed) != 0;
}

/* In this order, so that a death in between is still told. */
static void
mark_broken(struct pshm_lock *gate, struct pshm_rwlock *rw)
{
    atomic_store_explicit(&gate->broken, 1, memory_order_relaxed);
    set_writing(rw, false);
}

/* Lock it at once, unless a writer has it. */
static int
try_gate(struct pshm_lock *gate, const struct pshm_rwlock *rw,
         struct pshm_grip *grip)
{
    int rc = pshm_lock_try(gate, grip);
    if (rc == -EBUSY
        && atomic_load_explicit(&rw->coming, memory_order_relaxed) == 0) {
        rc = pshm_lock_wait(gate, grip, pshm_now() + PASSING);
        rc = rc == -ETIMEDOUT ? -EBUSY : rc;
    }
    return rc;
}

/* 0 or -EOWNERDEAD with the gate. */
static int
take_gate(struct pshm_lock *gate, struct pshm_rwlock *rw,
          struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt, bool now,
          int64_t until)
{
    if (attempt->gate) {
        return 0;
    }
    int rc = now ? try_gate(gate, rw, &grip->gate)
                 : pshm_lock_wait(gate, &grip->gate, until);
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    attempt->gate = true;
    if (rc == -EOWNERDEAD && !is_broken(gate) && !was_writing(rw)) {
        atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
        pshm_lock_repair(gate);         /* it only came or went */
        rc = 0;
    }
    return rc;
}

/* A seat whose owner died is free. */
static int
take_seat(struct pshm_robust *seat, struct pshm_grip *grip, bool now,
          int64_t until)
{
    int rc = now ? pshm_robust_try(seat, grip)
                 : pshm_robust_lock(seat, grip, until);
    if (rc == -EOWNERDEAD) {
        pshm_robust_repair(seat);
        rc = 0;
    }
    return rc;
}

/* The first free one; where none is, the one that this thread's number leads
 * to is waited for. */
static int
find_seat(struct pshm_rwlock *rw, struct pshm_rw_grip *grip, bool now,
          int64_t until, int *seat)
{
    int rc = -EBUSY, first = (int)((uintptr_t)pthread_self() / 4096
                                   % PSHM_SEATS);
    for (int i = 0; i < PSHM_SEATS; i++) {
        *seat = (first + i) % PSHM_SEATS;
        rc = take_seat(&rw->seats[*seat], &grip->seats[*seat], true, until);
        /* This thread reads there already. */
        if (rc != -EBUSY && rc != -EDEADLK) {
            return rc;
        }
    }
    if (now) {
        return -EBUSY;
    }
    *seat = first;
    return take_seat(&rw->seats[first], &grip->seats[first], false, until);
}

void
pshm_rw_undo(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt)
{
    while (attempt->seats > 0) {
        int i = --attempt->seats;
        (void)pshm_robust_unlock(&rw->seats[i], &grip->seats[i]);
    }
    if (attempt->gate) {
        attempt->gate = false;
        atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
        if (was_writing(rw) || is_broken(gate)) {
            mark_broken(gate, rw);
            pshm_lock_give_up(gate, &grip->gate);
        }
        else {
            (void)pshm_lock_release(gate, &grip->gate);
        }
    }
}

/* What an attempt returns, with the attempt undone where it has failed. */
static int
conclude(struct pshm_lock *gate, struct pshm_rwlock *rw,
         struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt, int rc)
{
    if (rc < 0 && rc != -EINTR && rc != -EOWNERDEAD) {
        pshm_rw_undo(gate, rw, grip, attempt);
    }
    return rc;
}

int
pshm_rw_read(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt,
             bool now, int64_t until, int *seat)
{
    int rc = take_gate(gate, rw, grip, attempt, now, until);
    if (rc == 0) {
        rc = find_seat(rw, grip, now, until, seat);
    }
    if (rc == 0) {
        pshm_robust_renew(&gate->mutex, &grip->gate);
        (void)pshm_lock_release(gate, &grip->gate);
        pshm_robust_renew(&rw->seats[*seat], &grip->seats[*seat]);
        *attempt = (struct pshm_rw_attempt){0};
    }
    return conclude(gate, rw, grip, attempt, rc);
}

int
pshm_rw_write(struct pshm_lock *gate, struct pshm_rwlock *rw,
              struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt,
              bool now, int64_t until)
{
    int rc = take_gate(gate, rw, grip, attempt, now, until);
    if (rc == 0) {
        atomic_store_explicit(&rw->coming, 1, memory_order_relaxed);
    }
    while (rc == 0 && attempt->seats < PSHM_SEATS) {
        int i = attempt->seats;
        rc = take_seat(&rw->seats[i], &grip->seats[i], now, until);
        attempt->seats += rc == 0;
    }
    if (rc == 0) {
        set_writing(rw, true);
    }
    return conclude(gate, rw, grip, attempt, rc);
}

void
pshm_rw_repair(struct pshm_lock *gate)
{
    pshm_lock_repair(gate);
}

void
pshm_rw_give_up(struct pshm_lock *gate, struct pshm_rwlock *rw,
                struct pshm_rw_grip *grip)
{
    atomic_store_explicit(&gate->broken, 1, memory_order_relaxed);
    pshm_robust_repair(&gate->mutex);
    (void)pshm_rw_done(gate, rw, grip);
}

int
pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_grip *grip, int seat)
{
    return pshm_robust_unlock(&rw->seats[seat], &grip->seats[seat]);
}

/* The last one locked comes first (pshm_robust_renew), and says whether it is
 * ours at all. */
int
pshm_rw_done(struct pshm_lock *gate, struct pshm_rwlock *rw,
             struct pshm_rw_grip *grip)
{
    if (!pshm_rw_writes(rw, grip)) {
        return -EPERM;
    }
    int i = PSHM_SEATS - 1;
    int rc = pshm_robust_unlock(&rw->seats[i], &grip->seats[i]);
    if (rc < 0) {
        return rc;
    }
    set_writing(rw, false);
    while (--i >= 0) {
        (void)pshm_robust_unlock(&rw->seats[i], &grip->seats[i]);
    }
    atomic_store_explicit(&rw->coming, 0, memory_order_relaxed);
    return pshm_lock_release(gate, &grip->gate);
}

/* Who has the gate comes or writes: its seats are not a reader's. */
int
pshm_rw_my_seat(const struct pshm_rw_grip *grip)
{
    if (pshm_grip_mine(&grip->gate)) {
        return -1;
    }
    for (int i = 0; i < PSHM_SEATS; i++) {
        if (pshm_grip_mine(&grip->seats[i])) {
            return i;
        }
    }
    return -1;
}

bool
pshm_rw_writes(const struct pshm_rwlock *rw, const struct pshm_rw_grip *grip)
{
    return pshm_grip_mine(&grip->gate) && was_writing(rw);
}

bool
pshm_rw_held(const struct pshm_rw_grip *grip)
{
    if (pshm_grip_held(&grip->gate)) {
        return true;
    }
    for (int i = 0; i < PSHM_SEATS; i++) {
        if (pshm_grip_held(&grip->seats[i])) {
            return true;
        }
    }
    return false;
}

/* The word that the kernel and the C library have a mutex's owner in. */
static bool
is_owned(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    const volatile int *word = &r->mutex.__data.__lock;
#else
    const volatile int *word = (const int *)(const void *)r + 1;    /* musl */
#endif
    return (*word & 0x3fffffff) != 0;
}

int
pshm_rw_readers(const struct pshm_rwlock *rw)
{
    int count = 0;
    if (atomic_load_explicit(&rw->writing, memory_order_relaxed) != 0) {
        return -1;
    }
    for (int i = 0; i < PSHM_SEATS; i++) {
        count += is_owned(&rw->seats[i]);
    }
    return count;
}
