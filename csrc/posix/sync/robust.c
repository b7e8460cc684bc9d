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
    pshm_robust_note_as_ours(pshm_robust_link(r));
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

/* Is the mutex in the list of a thread that is not recorded in this state any
 * more? */
static bool
is_lost(const struct pshm_mutex_state *mstate)
{
    unsigned before = atomic_load_explicit(&mstate->before,
                                           memory_order_relaxed);
    return atomic_load_explicit(&mstate->lost, memory_order_relaxed)
           || (before != 0
               && !pshm_thread_has_ended(
                   before, atomic_load_explicit(&mstate->before_started,
                                                memory_order_relaxed)));
}

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
    if (has_ended_by_now(mstate->thread, mstate->started)) {
        return;
    }
    if (is_lost(mstate)) {
        atomic_store_explicit(&mstate->lost, true, memory_order_relaxed);
    }
    atomic_store_explicit(&mstate->before_started, mstate->started,
                          memory_order_relaxed);
    atomic_store_explicit(&mstate->before, mstate->thread,
                          memory_order_relaxed);
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

/* Every other result of the C library means that the bytes are not those of a
 * valid mutex. */
int
pshm_robust_refused(struct pshm_robust *r, int rc)
{
    switch (rc) {
    case -ENOTRECOVERABLE:
        undo_unrecoverable(r);
        return rc;
    case -EOWNERDEAD:
    case -EBUSY:
    case -EDEADLK:
    case -ETIMEDOUT:
        return rc;
    default:
        return -EBADMSG;
    }
}

int
pshm_robust_again(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    uintptr_t links[2];
    bool mine = pshm_mutex_state_mine(mstate);
    if (pshm_robust_holder(r) != pshm_thread()->id) {
        return -EBADMSG;                /* it is locked, but its bytes say
                                           otherwise */
    }
    if (mine && mstate->flags & PSHM_RECURSIVE) {
        mstate->depth++;
        return 0;
    }
    pshm_robust_read_links(r, links);
#ifdef PSHM_ROBUST_LINKS
    if (links[0] == 0 || links[1] == 0) {
        return -EBADMSG;                /* it is in no list */
    }
#endif
    return -EDEADLK;
}

/* The C library's function that takes a clock, since glibc 2.30. Its address
 * is NULL if the C library does not have it. */
/* NOLINTNEXTLINE(readability-redundant-declaration) */
int pthread_mutex_clocklock(pthread_mutex_t *, clockid_t,
                            const struct timespec *)
    __attribute__((weak));

static int
lock_until(pthread_mutex_t *mutex, int64_t end)
{
    struct timespec at = pshm_timespec(end);
    if (pthread_mutex_clocklock != NULL) {
        return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &at);
    }
    at = pshm_timespec_realtime(end);
    return pthread_mutex_timedlock(mutex, &at);
}

int
pshm_robust_lock(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                 int64_t deadline)
{
    int rc = pshm_robust_try(r, mstate);
    if (rc == -EDEADLK && deadline != PSHM_NEVER) {
        /* Wait until the deadline: a signal handler may unlock it. */
        atomic_uint *word = pshm_robust_word(r);
        rc = pshm_futex_wait(word, atomic_load(word), deadline);
        return rc == 0 ? -EINTR : rc;
    }
    if (rc != -EBUSY) {
        return rc;
    }
    if (is_orphaned(r, mstate)) {
        return -EINPROGRESS;
    }
    int64_t end = pshm_poll_end(deadline);
    rc = -lock_until(&r->mutex, end);
    if (rc != 0) {
        rc = pshm_robust_refused(r, rc);
    }
    if (rc != -ETIMEDOUT) {
        return pshm_robust_locked(r, mstate, rc);
    }
    return is_dead(r, mstate) ? -EINTR : pshm_poll_over(end, deadline);
}

void
pshm_robust_repair(struct pshm_robust *r)
{
    (void)pthread_mutex_consistent(&r->mutex);
}

int
pshm_robust_force(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    if (!pshm_robust_unlink_by_neighbours(r)) {
        pshm_robust_note(mstate, PSHM_ORPHANED);
        return -EBADMSG;
    }
    pshm_thread_unlocked(pshm_robust_link(r));
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
    int free = is_lost(mstate) ? -EBUSY : 0;
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
