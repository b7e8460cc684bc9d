#include "posix/sync/robust.h"

#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "posix/sync/futex.h"
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
    /* Fails, or makes init fail, if the kernel has no lists of mutexes. */
    int rc = -pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (rc == 0) {
        rc = -pthread_mutex_init(&r->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return rc;
}

/* ---- Its place in the list of its owner's mutexes ---- */

#ifdef PSHM_ROBUST_LINKS

static bool links_known;

/* Is the word there another one, or none?  Where the kernel no longer lets us ask,
 * what the caller has no proof of is `unproven`. */
static bool
differs(uintptr_t where, unsigned word, bool unproven)
{
    int rc = pshm_futex_compare(where, word);
    return rc == -EAGAIN || rc == -EFAULT || rc == -EINVAL
           || (rc < 0 && unproven);
}

/* Is it this address, apart from the flag in its lowest bit, that lies where
 * there may be no memory? */
static bool
holds(uintptr_t where, uintptr_t address, bool unproven)
{
    unsigned half[sizeof(address) / sizeof(unsigned)];
    for (uintptr_t flag = 0; flag <= 1; flag++) {
        uintptr_t word = address | flag;
        size_t same = 0;
        memcpy(half, &word, sizeof(word));
        while (same < sizeof(half) / sizeof(*half)
               && !differs(where + same * sizeof(*half), half[same],
                           unproven)) {
            same++;
        }
        if (same == sizeof(half) / sizeof(*half)) {
            return true;
        }
    }
    return false;
}

static const uintptr_t flag_bit = 1;

/* Is that where the list of this thread begins, or in a mutex that it has?  What
 * is left of a dead thread may confirm a link too. */
static bool
is_neighbour(uintptr_t address, bool unproven)
{
    const struct pshm_thread *self = pshm_thread();
    uintptr_t word = address
                     - offsetof(pthread_mutex_t, __data.__list.__next)
                     + offsetof(pthread_mutex_t, __data.__lock);
    return self->list == 0 || address == self->list
           || !differs(word, self->id, unproven)
           || !differs(word, self->id | FUTEX_WAITERS, unproven);
}

/* Does the neighbour to which this link leads confirm it?  It leads to the
 * neighbour's link forward, before which its link back lies; the lowest bit is a
 * flag.  side: 0: the one before r, 1: the one behind it. */
static bool
is_confirmed(const struct pshm_robust *r, uintptr_t link, int side,
             bool unproven)
{
    uintptr_t self = (uintptr_t)&r->mutex.__data.__list.__next;
    uintptr_t where = (link & ~flag_bit) - (side == 0 ? 0 : sizeof(self));
    return is_neighbour(link & ~flag_bit, unproven)
           && holds(where, self, unproven);
}

static bool
are_confirmed(const struct pshm_robust *r)
{
    uintptr_t links[2];
    pshm_robust_read_links(r, links);
    return is_confirmed(r, links[0], 0, false)
           && is_confirmed(r, links[1], 1, false);
}

/* Is that how this C library does it?  Tried once, with two of our own. */
static void
try_links(void)
{
    static struct pshm_robust first, second;
    (void)pshm_robust_init(&first, 0);
    (void)pshm_robust_init(&second, 0);
    (void)pthread_mutex_lock(&first.mutex);
    (void)pthread_mutex_lock(&second.mutex);
    links_known = are_confirmed(&first) && are_confirmed(&second);
    (void)pthread_mutex_unlock(&second.mutex);
    (void)pthread_mutex_unlock(&first.mutex);
}

static void
learn_links(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, try_links);
}

/* Addresses by which this library ever locked a mutex, as a filter: where the bits
 * of one are not set it is not among them. */
enum { FILTER_BITS = 1 << 19 };
static atomic_uchar filter[FILTER_BITS / 8];

static unsigned
filter_bit(uintptr_t link, int which)
{
    uint64_t mixed = (uint64_t)link / sizeof(link)
                     * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mixed >> (which == 0 ? 44 : 24)) % FILTER_BITS;
}

static void
note_as_ours(uintptr_t link)
{
    for (int i = 0; i < 2; i++) {
        unsigned bit = filter_bit(link, i);
        atomic_fetch_or_explicit(&filter[bit / 8],
                                 (unsigned char)(1U << bit % 8),
                                 memory_order_relaxed);
    }
}

static bool
may_be_ours(uintptr_t link)
{
    for (int i = 0; i < 2; i++) {
        unsigned bit = filter_bit(link, i);
        if ((atomic_load_explicit(&filter[bit / 8], memory_order_relaxed)
             >> bit % 8 & 1) == 0) {
            return false;
        }
    }
    return true;
}

/* What this thread knows is right unless the mutex of another library came
 * between, which confirms what is found then.  One of ours would be known. */
static bool
is_right(const struct pshm_robust *r, const uintptr_t *right, uintptr_t found,
         int side, bool unproven)
{
    if (right == NULL) {
        return is_confirmed(r, found, side, unproven);
    }
    return found == right[side]
           || (!is_confirmed(r, right[side], side, true)
               && !may_be_ours(found & ~flag_bit)
               && is_confirmed(r, found, side, unproven));
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    uintptr_t found[2], right[2];
    pshm_robust_read_links(r, found);
    bool known = pshm_thread_neighbours(pshm_robust_link(r), right);
    for (int side = 0; links_known && side < 2; side++) {
        if (!is_right(r, known ? right : NULL, found[side], side, false)) {
            return false;
        }
    }
    return true;
}

/* It would confirm to its neighbours what is not so any more.  What else is there
 * may be another owner's. */
static void
forget_links(struct pshm_robust *r, const uintptr_t links[2])
{
    uintptr_t found[2];
    pshm_robust_read_links(r, found);
    if (found[0] == links[0]) {
        r->mutex.__data.__list.__prev = NULL;
    }
    if (found[1] == links[1]) {
        r->mutex.__data.__list.__next = NULL;
    }
}

/* Take it out of this thread's list, by the links that its neighbours confirm.
 * Returns whether that was possible. */
static bool
unlink_by_neighbours(struct pshm_robust *r)
{
    uintptr_t found[2], right[2], links[2];
    pshm_robust_read_links(r, found);
    bool known = pshm_thread_neighbours(pshm_robust_link(r), right);
    for (int side = 0; side < 2; side++) {
        bool confirmed = known && is_confirmed(r, right[side], side, true);
        links[side] = confirmed ? right[side] : found[side];
        if (!links_known
            || !(confirmed || is_right(r, known ? right : NULL, found[side],
                                       side, true))) {
            return false;
        }
    }
    memcpy((void *)((links[1] & ~flag_bit) - sizeof(*links)), &links[0],
           sizeof(*links));
    memcpy((void *)(links[0] & ~flag_bit), &links[1], sizeof(*links));
    forget_links(r, links);
    return true;
}

#else

static void
learn_links(void)
{
}

static void
note_as_ours(uintptr_t link)
{
    (void)link;
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    (void)r;
    return true;
}

static bool
unlink_by_neighbours(struct pshm_robust *r)
{
    (void)r;
    return false;
}

#endif

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
    learn_links();
    note_as_ours(pshm_robust_link(r));
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

/* ---- An owner that died ---- */

/* The note stays as it is if its owner dies, and a program that is not this
 * library may take the mutex over then, and lock it again at any later time,
 * without a note.  So does a thread have it that lives, that is not the one that
 * the note says started then, and that can have locked it?  Then the note is
 * not about this thread, even if their ids are the same. */
static bool
is_held_without_note(const struct pshm_robust *r, unsigned id, unsigned started)
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

/* Has the thread ended that this word of r names? */
static bool
holder_has_ended(const struct pshm_robust *r, unsigned word,
                 const struct pshm_mutex_state *mstate)
{
    unsigned id = word & FUTEX_TID_MASK, started = 0;
    if (id == 0 || mstate->space == 0
        || pshm_process_space() != mstate->space) {
        return false;
    }
    /* A program that is not this library notes nothing. */
    if (mstate->note != NULL
        && atomic_load_explicit(&mstate->note->thread, memory_order_acquire)
               == id) {
        started = atomic_load_explicit(&mstate->note->started,
                                       memory_order_relaxed);
    }
    return pshm_thread_has_ended(id, started)
           && !is_held_without_note(r, id, started);
}

/* As the kernel does for what a thread held when it ended. */
static void
mark_dead(struct pshm_robust *r, unsigned word)
{
    if (atomic_compare_exchange_strong(
            pshm_robust_word(r), &word,
            (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED)) {
        (void)pshm_futex_wake(pshm_robust_word(r), 1);
    }
}

/* Is its owner dead, as the kernel says, or else as we find and say then? */
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

/* Is it in the list of a thread that does not know it by this grip any more? */
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

/* The kernel says that an owner has died shortly before the thread has ended, so
 * that is waited for: some microseconds, or a poll interval at most if the bytes
 * were written over and the thread lives. */
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

/* A dead one's list is gone with it. */
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

/* glibc's trylock says ENOTRECOVERABLE and keeps the mutex, which no unlock
 * undoes: all others would find it taken for ever.  This releases it. */
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

/* Of what the C library may say of a sound mutex the rest means that this one is
 * not. */
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
        return -EBADMSG;                /* it has, but the bytes say other */
    }
    if (mine && mstate->flags & PSHM_RECURSIVE) {
        mstate->depth++;
        return 0;
    }
    pshm_robust_read_links(r, links);
#ifdef PSHM_ROBUST_LINKS
    if (links[0] == 0 || links[1] == 0) {
        return -EBADMSG;                /* it is in no thread's list */
    }
#endif
    return -EDEADLK;
}

/* The C library's function that takes a clock, where it has it: glibc 2.30.
 * Elsewhere its address is NULL. */
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
        /* Until then: a signal handler may release it. */
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
    if (!unlink_by_neighbours(r)) {
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

/* By its owner.  The word is for a program that is not this library. */
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
    /* Not if the kernel has marked it just now, and another thread has it. */
    if (pshm_robust_holder(r) == owner && mstate->note != NULL
        && atomic_compare_exchange_strong(&mstate->note->thread, &owner,
                                          PSHM_ORPHANED)
        && inconsistent != NULL) {
        atomic_store_explicit(inconsistent, 1, memory_order_relaxed);
    }
    return -EBUSY;
}
