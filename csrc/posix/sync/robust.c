#include "posix/sync/robust.h"

#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "posix/sync/futex.h"
#include "posix/sync/robust_links.h"
#include "posix/clock.h"
#include "posix/object/procmaps.h"

int
pshm_robust_init(struct pshm_robust *r, unsigned flags)
{
    pthread_mutexattr_t attributes;
    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_settype(&attributes,
                                    flags & PSHM_RECURSIVE
                                        ? PTHREAD_MUTEX_RECURSIVE
                                        : PTHREAD_MUTEX_ERRORCHECK);
    (void)pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    /* Fails, or makes init fail, if the kernel does not have lists of robust
     * mutexes. */
    int rc = -pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (rc == 0) {
        rc = -pthread_mutex_init(&r->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return rc;
}

int
pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                 struct pshm_mutex_state *mstate)
{
    struct pshm_robust model;
    memset(&model, 0, sizeof(model));
    int rc = pshm_robust_init(&model, flags);
    if (rc < 0) {
        return rc;
    }
    pshm_robust_learn_links();
    mstate->kind = pshm_robust_kind(&model);
    mstate->flags = flags;
    (void)pthread_mutex_destroy(&model.mutex);
    return pshm_robust_kind(r) == mstate->kind ? 0 : -EBADMSG;
}

void
pshm_robust_watch(struct pshm_mutex_state *mstate, struct pshm_owner *note)
{
    mstate->space = pshm_process_space();
    mstate->note = note;
}

/* ---- Dead owners ---- */

/* If an owner dies, its record stays. Another program may then take over the
 * mutex and lock it later without a record. So: does a living thread hold the
 * mutex that is not the one recorded, and that can have locked it? Then the
 * record is not about that thread, even if the ids are equal. */
static bool
is_held_without_note(const struct pshm_robust *r, unsigned id,
                     unsigned started)
{
    return id != 0 && started != 0 && pshm_thread_has_ended(id, started)
           && !pshm_thread_has_ended(id, 0) && pshm_maps_share(id, r) != 0;
}

static bool
is_orphaned(const struct pshm_robust *r, const struct pshm_mutex_state *mstate)
{
    return mstate->note != NULL
           && atomic_load_explicit(&mstate->note->thread, memory_order_acquire)
                  == PSHM_ORPHANED
           && !is_held_without_note(
               r, pshm_robust_holder(r),
               atomic_load_explicit(&mstate->note->started,
                                    memory_order_relaxed));
}

/* Has the thread ended that this value of the word names? */
static bool
holder_has_ended(const struct pshm_robust *r, unsigned word,
                 const struct pshm_mutex_state *mstate)
{
    unsigned id = word & FUTEX_TID_MASK, started = 0;
    if (id == 0 || mstate->space == 0
        || pshm_process_space() != mstate->space) {
        return false;
    }
    /* Another program does not record its owner. */
    if (mstate->note != NULL
        && atomic_load_explicit(&mstate->note->thread, memory_order_acquire)
               == id) {
        started = atomic_load_explicit(&mstate->note->started,
                                       memory_order_relaxed);
    }
    return pshm_thread_has_ended(id, started)
           && !is_held_without_note(r, id, started);
}

/* Mark the mutex as the kernel does when the owner ends. */
static void
mark_dead(struct pshm_robust *r, unsigned word)
{
    if (atomic_compare_exchange_strong(
            pshm_robust_word(r), &word,
            (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED)) {
        (void)pshm_futex_wake(pshm_robust_word(r), 1);
    }
}

/* Is the owner dead, as the kernel says or as this function finds out? In the
 * second case the mutex is marked. */
static bool
is_dead(struct pshm_robust *r, const struct pshm_mutex_state *mstate)
{
    unsigned word = atomic_load(pshm_robust_word(r));
    if (word & FUTEX_OWNER_DIED) {
        return true;
    }
    if (!holder_has_ended(r, word, mstate)) {
        return false;
    }
    mark_dead(r, word);
    return true;
}

bool
pshm_robust_owner_gone(struct pshm_robust *r,
                       const struct pshm_mutex_state *mstate)
{
    return is_orphaned(r, mstate) || is_dead(r, mstate);
}

int
pshm_robust_busy(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    if (is_orphaned(r, mstate)) {
        return -EINPROGRESS;
    }
    if (mstate->space == 0) {
        return -EBUSY;
    }
    int64_t now = pshm_now_coarse();
    int64_t last = atomic_load_explicit(&mstate->looked, memory_order_relaxed);
    if (last != 0 && now - last < PSHM_POLL_INTERVAL) {
        return -EBUSY;
    }
    atomic_store_explicit(&mstate->looked, now, memory_order_relaxed);
    return is_dead(r, mstate) ? pshm_robust_try(r, mstate) : -EBUSY;
}

/* ---- Locking ---- */

/* The kernel marks the mutexes of an owner shortly before the thread has
 * ended, so wait for that: some microseconds, or up to one poll interval if
 * the bytes were overwritten and the thread lives. */
static bool
has_ended_by_now(unsigned thread, unsigned started)
{
    int64_t deadline = pshm_now() + PSHM_POLL_INTERVAL;
    bool ended = pshm_thread_has_ended(thread, started);
    while (!ended && pshm_now() < deadline) {
        (void)pshm_sleep(100e-6);
        ended = pshm_thread_has_ended(thread, started);
    }
    return ended;
}

/* The list of a dead thread does not exist any more. */
void
pshm_robust_overtaken(struct pshm_mutex_state *mstate)
{
    if (!has_ended_by_now(mstate->thread, mstate->started)) {
        atomic_store_explicit(&mstate->lost, true, memory_order_relaxed);
    }
}

/* glibc's trylock returns ENOTRECOVERABLE and keeps the mutex locked, and no
 * unlock releases it. This releases it for other threads. */
static void
undo_unrecoverable(struct pshm_robust *r)
{
#ifdef __GLIBC__
    if (pshm_robust_holder(r) == pshm_thread()->id) {
        atomic_store(pshm_robust_word(r), 0);
        (void)pshm_futex_wake(pshm_robust_word(r), INT_MAX);
    }
#else
    (void)r;
#endif
}

/* This thread holds the mutex, with this or another state. The C library must
 * not lock it again, because that would add it to the list a second time, or
 * count on overwritten bytes. */
static int
lock_again(const struct pshm_thread *self, const struct pshm_robust *r,
           struct pshm_mutex_state *mstate)
{
    if (pshm_robust_holder(r) != self->id) {
        return -EBADMSG;                /* it is locked, but its bytes say
                                           otherwise */
    }
    if (pshm_mutex_state_mine(mstate) && mstate->flags & PSHM_RECURSIVE) {
        mstate->depth++;
        return 0;
    }
    return pshm_robust_is_unlinked(r) ? -EBADMSG : -EDEADLK;
}

int
pshm_robust_try_slowly(struct pshm_thread *self, struct pshm_robust *r,
                       struct pshm_mutex_state *mstate)
{
    if (pshm_robust_kind(r) != mstate->kind) {
        return -EBADMSG;
    }
    if (pshm_robust_holder(r) == self->id
        || pshm_thread_position(self, pshm_robust_link(r)) != 0) {
        return lock_again(self, r, mstate);
    }
    if (pshm_thread_reserve(self) < 0) {
        return -ENOMEM;
    }
    /* Not held any more, or held by another thread, or not recoverable. */
    int rc = -pthread_mutex_trylock(&r->mutex);
    if (rc == 0) {
        pshm_robust_locked(self, r, mstate);
    }
    return rc == 0 ? 0 : pshm_robust_refused(self, r, mstate, rc);
}

int
pshm_robust_refused(struct pshm_thread *self, struct pshm_robust *r,
                    struct pshm_mutex_state *mstate, int rc)
{
    switch (rc) {
    case -EOWNERDEAD:
        pshm_robust_locked(self, r, mstate);
        return rc;
    case -EBUSY:
        return rc;
    case -ENOTRECOVERABLE:
        undo_unrecoverable(r);
        return rc;
    default:
        return -EBADMSG;                /* not the bytes of a valid mutex */
    }
}

/* ---- Waiting ---- */

/* How often a spin reads the word; how long it pauses before each, so that the
 * owner can use the cache line; and how many attempts after a spin in vain do
 * not spin. In all some microseconds, less than a sleep takes. */
enum { LOOKS = 8, PAUSES = 40, MOST_SKIPPED = 63 };

static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Can the owner run while this thread spins? Not if it is a thread of this
 * process, which may need the GIL that this thread holds soon; nor if this
 * process has one CPU. */
static bool
may_spin(const struct pshm_mutex_state *mstate)
{
    static atomic_int several;          /* 0: not known */
    static _Atomic(int64_t) looked;
    if (pshm_mutex_state_held(mstate)) {
        return false;
    }
    int64_t now = pshm_now_coarse();
    if (now - atomic_load_explicit(&looked, memory_order_relaxed)
        >= PSHM_POLL_INTERVAL) {
        atomic_store_explicit(&several, pshm_has_cpus(), memory_order_relaxed);
        atomic_store_explicit(&looked, now, memory_order_relaxed);
    }
    return atomic_load_explicit(&several, memory_order_relaxed) != 0;
}

/* After -EBUSY: wait for a moment without sleeping, because to wake a thread
 * takes longer than most owners hold a lock. Each spin in vain doubles the
 * number of attempts that do not spin: the owner holds the lock for long, or
 * does not run because the CPUs are busy. */
static int
spin(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    unsigned skip = atomic_load_explicit(&mstate->spin_skip,
                                         memory_order_relaxed);
    if (skip > 0) {
        atomic_store_explicit(&mstate->spin_skip, skip - 1,
                              memory_order_relaxed);
        return -EBUSY;
    }
    if (!may_spin(mstate)) {
        return -EBUSY;
    }
    int rc = -EBUSY;
    for (int i = 0; rc == -EBUSY && i < LOOKS; i++) {
        for (int pauses = 0; pauses < PAUSES; pauses++) {
            relax();
        }
        if (pshm_robust_holder(r) == 0) {
            rc = pshm_robust_try(r, mstate);
        }
    }
    unsigned missed = atomic_load_explicit(&mstate->spin_missed,
                                           memory_order_relaxed);
    missed = rc != -EBUSY ? missed / 2
             : missed < MOST_SKIPPED ? missed * 2 + 1 : missed;
    atomic_store_explicit(&mstate->spin_missed, missed, memory_order_relaxed);
    atomic_store_explicit(&mstate->spin_skip, rc == -EBUSY ? missed : 0,
                          memory_order_relaxed);
    return rc;
}

/* As the C library does, but a signal ends the wait. A thread that slept marks
 * the word when it has locked the mutex, because other threads may sleep, and
 * the wake-up was for one of them. */
int
pshm_robust_lock(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                 int64_t deadline)
{
    atomic_uint *word = pshm_robust_word(r);
    int64_t end = 0;
    int slept = 0;
    int rc = pshm_robust_try(r, mstate);
    if (rc == -EBUSY) {
        rc = spin(r, mstate);
    }
    /* A signal handler may unlock a mutex that this thread holds. */
    while (slept == 0
           && (rc == -EBUSY || (rc == -EDEADLK && deadline != PSHM_NEVER))) {
        unsigned seen = atomic_load(word);
        if (end == 0 && is_orphaned(r, mstate)) {
            return -EINPROGRESS;
        }
        end = end != 0 ? end : pshm_poll_end(deadline);
        if (seen != 0 && (seen & FUTEX_OWNER_DIED) == 0
            && (seen & FUTEX_WAITERS
                || atomic_compare_exchange_strong(word, &seen,
                                                  seen | FUTEX_WAITERS))) {
            pshm_robust_announce(r);
            slept = pshm_futex_sleep(word, seen | FUTEX_WAITERS, end);
        }
        rc = pshm_robust_try(r, mstate);
        pshm_robust_announce(NULL);
        if (rc == 0 || rc == -EOWNERDEAD) {
            (void)atomic_fetch_or(word, FUTEX_WAITERS);
        }
        /* As pshm_futex_wait: the word may never be as it was read. */
        else if (slept == 0 && pshm_now() >= end) {
            slept = -ETIMEDOUT;
        }
    }
    if ((rc == -EBUSY || rc == -EDEADLK) && slept < 0) {
        rc = slept == -ETIMEDOUT && !is_dead(r, mstate)
                 ? pshm_poll_over(end, deadline) : -EINTR;
    }
    return rc;
}

void
pshm_robust_repair(struct pshm_robust *r)
{
    (void)pthread_mutex_consistent(&r->mutex);
}

int
pshm_robust_force(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    if (!pshm_robust_unlink(r)) {
        pshm_robust_note(mstate, PSHM_ORPHANED);
        return -EBADMSG;
    }
    pshm_thread_unlocked(pshm_thread(), pshm_robust_link(r));
    pshm_robust_note(mstate, 0);
    atomic_store_explicit(&mstate->owner, 0, memory_order_relaxed);
    unsigned word = atomic_load(pshm_robust_word(r));
    if ((word & FUTEX_TID_MASK) == mstate->thread) {
        mark_dead(r, word);
    }
    return -EBADMSG;
}

/* For the owner. The word is for other programs, which do not read
 * `inconsistent`. */
static int
abandon_mine(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    unsigned unlocked = 0;
    mstate->depth = 1;
    if (pshm_robust_unlock(r, mstate) == 0) {
        (void)atomic_compare_exchange_strong(pshm_robust_word(r), &unlocked,
                                             FUTEX_OWNER_DIED);
    }
    return pshm_mutex_state_held(mstate) ? -EBUSY : 0;
}

int
pshm_robust_abandon(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                    atomic_uint *inconsistent)
{
    unsigned owner = mstate->thread;
    int free = atomic_load_explicit(&mstate->lost, memory_order_relaxed)
                   ? -EBUSY : 0;
    if (!pshm_mutex_state_held(mstate)) {
        return free;
    }
    if (pshm_mutex_state_mine(mstate)) {
        if (inconsistent != NULL) {
            atomic_store_explicit(inconsistent, 1, memory_order_relaxed);
        }
        int rc = abandon_mine(r, mstate);
        return rc == 0 ? free : rc;
    }
    if (pshm_thread_has_ended(owner, mstate->started)) {
        return free;
    }
    /* Not if the kernel has just marked the mutex and another thread holds it.
     */
    if (pshm_robust_holder(r) == owner && mstate->note != NULL
        && atomic_compare_exchange_strong(&mstate->note->thread, &owner,
                                          PSHM_ORPHANED)
        && inconsistent != NULL) {
        atomic_store_explicit(inconsistent, 1, memory_order_relaxed);
    }
    return -EBUSY;
}
