/* A robust mutex: if its owner dies, the next owner gets -EOWNERDEAD:
 * pthread_mutexattr_setrobust(3).
 *
 * While a thread holds such a mutex, the C library keeps it in a list of that
 * thread, whose links are addresses in the mutex itself. So the memory must
 * stay mapped as long as a thread of this process holds the mutex, and bytes
 * written over the links would crash the owner. Each thread therefore records
 * in private memory which mutexes it holds and in which order (thread.h). This
 * tells what the links must be.
 *
 * When a thread ends, the kernel follows the list and marks each mutex. A
 * mutex that was overwritten ends the list, and the mutexes after it keep an
 * owner that does not exist any more. So a waiter checks at each poll interval
 * whether the owner still exists, and marks the mutex itself if not. */
#ifndef PSHM_ROBUST_H
#define PSHM_ROBUST_H

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "posix/base.h"
#include "posix/host.h"
#include "posix/sync/thread.h"

enum pshm_robust_flags {
    PSHM_RECURSIVE = 1,                 /* its owner may lock it again */
};

struct pshm_robust {
    union {
        pthread_mutex_t mutex;
        unsigned char room[48];         /* enough for every C library */
    };
};

_Static_assert(sizeof(pthread_mutex_t) <= 48, "a robust mutex has no room");

/* The owner, as it records itself in shared memory beside the mutex. */
struct pshm_owner {
    atomic_uint thread;                 /* its id; 0: not held */
    atomic_uint started;                /* as in struct pshm_thread */
};

/* In place of an id: the Python object that held the mutex was deallocated, or
 * could not unlock it, but the mutex is still in the list of a living thread.
 */
#define PSHM_ORPHANED UINT32_MAX

/* The state of a mutex in one process; all zeros at first. Any number of
 * threads may share it. A thread unlocks a mutex with the state with which it
 * locked it. */
struct pshm_mutex_state {
    _Atomic(uint64_t) owner;            /* number of the thread that holds the
                                           mutex with this state; 0: none */
    /* written by the owner only: */
    unsigned depth;
    unsigned thread, started;           /* as in struct pshm_thread */
    int kind;
    struct pshm_owner *note;            /* or NULL */
    unsigned flags;
    uint32_t space;                     /* inode of the PID namespace, set by
                                           pshm_robust_watch; 0: owners are not
                                           checked */
    _Atomic(int64_t) looked;            /* when the owner was last checked,
                                           nanoseconds */
    atomic_uint spin_missed, spin_skip; /* after spins in vain: how many
                                           attempts to lock do not spin, and
                                           how many of them are left */
    atomic_bool lost;                   /* a second thread locked the mutex
                                           with this state although its living
                                           owner did not unlock it, so it is
                                           still in the list of the first one */
};

/* Make r, whose bytes are all zeros and which is not shared yet. Returns 0 or
 * -errno. */
int pshm_robust_init(struct pshm_robust *r, unsigned flags);

/* Attach to r, which was made with the same flags. Returns 0; -EBADMSG: it was
 * made with other flags or is not a mutex; or -errno. */
int pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                     struct pshm_mutex_state *mstate);

/* From now on, check whether the owner of the mutex has ended, and record the
 * owner in note when locking; note: all zeros at first, or NULL. Allowed only
 * if all threads that lock the mutex are in one PID namespace. */
void pshm_robust_watch(struct pshm_mutex_state *mstate,
                       struct pshm_owner *note);

/* Lock the mutex. Returns 0; or -EOWNERDEAD: locked, but the last owner died
 * while it held the mutex, so the data must be repaired; or, not locked:
 *
 * -EBUSY       another thread holds it
 * -EINPROGRESS it is held and orphaned (orphan.h): it cannot be taken
 *              over yet
 * -EDEADLK     this thread holds it
 * -ENOTRECOVERABLE  a thread that got -EOWNERDEAD unlocked it without a
 *              repair
 * -EBADMSG     its bytes were overwritten
 * -EINTR, -ETIMEDOUT  as pshm_futex_wait
 * -ENOMEM      the mutex cannot be recorded as held
 *
 * pshm_robust_lock returns -EDEADLK only if it would wait indefinitely. */
static inline int pshm_robust_try(struct pshm_robust *r,
                                  struct pshm_mutex_state *mstate);
int pshm_robust_lock(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                     int64_t deadline);

/* After pshm_robust_try returned -EBUSY: returns the error to report, or the
 * result of another attempt if the owner has ended. Checks the owner at most
 * once in a poll interval. */
int pshm_robust_busy(struct pshm_robust *r, struct pshm_mutex_state *mstate);

/* After -EOWNERDEAD, before the mutex is unlocked: mark it consistent. */
void pshm_robust_repair(struct pshm_robust *r);

/* Did the owner die, so that the next thread to lock the mutex gets
 * -EOWNERDEAD; or is the mutex orphaned? If owners are checked
 * (pshm_robust_watch), this also finds a dead owner that the kernel did not
 * mark. Does not lock the mutex. Takes some microseconds. */
bool pshm_robust_owner_gone(struct pshm_robust *r,
                            const struct pshm_mutex_state *mstate);

/* Unlock the mutex. Returns 0; -EPERM: this thread does not hold it with this
 * state; or -EBADMSG: its bytes were overwritten. In the last case the mutex
 * is removed from the list if the recorded neighbours confirm its place there,
 * and the next owner gets -EOWNERDEAD; otherwise it stays held, and is
 * orphaned. */
static inline int pshm_robust_unlock(struct pshm_robust *r,
                                     struct pshm_mutex_state *mstate);

/* The Python object of this state is being deallocated, by any thread. If the
 * mutex is held, it is unlocked so that the next owner gets -EOWNERDEAD;
 * *inconsistent, if not NULL, becomes 1. Returns 0: the memory may be
 * unmapped; or -EBUSY: the mutex is still in the list of a thread (orphan.h).
 */
int pshm_robust_abandon(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                        atomic_uint *inconsistent);

/* ---- The operations on a free mutex ----
 *
 * They are inline because the function calls would take longer than the work.
 */

#if defined(__GLIBC__) && __PTHREAD_MUTEX_HAVE_PREV
#define PSHM_ROBUST_LINKS               /* the members of glibc's mutex are
                                           known */
#endif

/* The kind, which init sets and nothing changes. */
static inline int
pshm_robust_kind(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    return r->mutex.__data.__kind;
#else
    int kind;                           /* musl: the first member */
    memcpy(&kind, r, sizeof(kind));
    return kind;
#endif
}

/* The word that contains the id of the owner. */
static inline atomic_uint *
pshm_robust_word(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    return (atomic_uint *)(uintptr_t)&r->mutex.__data.__lock;
#else
    return (atomic_uint *)(uintptr_t)r + 1;     /* musl: the second member */
#endif
}

/* The id of the owner, or 0. */
static inline unsigned
pshm_robust_holder(const struct pshm_robust *r)
{
    return atomic_load_explicit(pshm_robust_word(r), memory_order_acquire)
           & FUTEX_TID_MASK;
}

/* The address that identifies the mutex in the lists. */
static inline uintptr_t
pshm_robust_link(const struct pshm_robust *r)
{
#ifdef PSHM_ROBUST_LINKS
    return (uintptr_t)&r->mutex.__data.__list.__next;
#else
    return (uintptr_t)r;
#endif
}

/* The address to which its forward link leads, or 0. */
static inline uintptr_t
pshm_robust_next(const struct pshm_robust *r)
{
#ifdef PSHM_ROBUST_LINKS
    return (uintptr_t)r->mutex.__data.__list.__next;
#else
    (void)r;
    return 0;
#endif
}

/* Does this thread hold the mutex with this state? Does any thread of this
 * process? */
static inline bool
pshm_mutex_state_mine(const struct pshm_mutex_state *mstate)
{
    return atomic_load_explicit(&mstate->owner, memory_order_relaxed)
           == pshm_thread()->number;
}

static inline bool
pshm_mutex_state_held(const struct pshm_mutex_state *mstate)
{
    return atomic_load_explicit(&mstate->owner, memory_order_relaxed) >> 32
           == pshm_forks();
}

static inline void
pshm_robust_note(const struct pshm_mutex_state *mstate, unsigned thread)
{
    if (mstate->note != NULL) {
        atomic_store_explicit(&mstate->note->thread, thread,
                              memory_order_relaxed);
    }
}

/* A thread has locked the mutex with a state whose recorded owner did not
 * unlock it: that owner died, or the bytes were overwritten. */
void pshm_robust_overtaken(struct pshm_mutex_state *mstate);

/* Record in mstate that this thread has locked the mutex. */
static inline void
pshm_robust_locked(struct pshm_thread *self, const struct pshm_robust *r,
                   struct pshm_mutex_state *mstate)
{
    if (pshm_mutex_state_held(mstate)) {
        pshm_robust_overtaken(mstate);
    }
    mstate->depth = 1;
    mstate->thread = self->id;
    mstate->started = self->started;
    pshm_thread_locked(self, pshm_robust_link(r), pshm_robust_next(r));
    atomic_store_explicit(&mstate->owner, self->number, memory_order_relaxed);
    if (mstate->note != NULL) {
        atomic_store_explicit(&mstate->note->started, self->started,
                              memory_order_relaxed);
        atomic_store_explicit(&mstate->note->thread, self->id,
                              memory_order_release);
    }
}

/* The mutex is not free, or not as it should be. */
int pshm_robust_try_slowly(struct pshm_thread *self, struct pshm_robust *r,
                           struct pshm_mutex_state *mstate);

/* The C library returned a result other than 0. Returns the error that it
 * means. */
int pshm_robust_refused(struct pshm_thread *self, struct pshm_robust *r,
                        struct pshm_mutex_state *mstate, int rc);

static inline int
pshm_robust_try(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    struct pshm_thread *self = pshm_thread();
    if (pshm_robust_kind(r) != mstate->kind || pshm_robust_holder(r) != 0
        || pshm_thread_position(self, pshm_robust_link(r)) != 0
        || pshm_thread_reserve(self) != 0) {
        return pshm_robust_try_slowly(self, r, mstate);
    }
    int rc = -pthread_mutex_trylock(&r->mutex);
    if (rc != 0) {
        return pshm_robust_refused(self, r, mstate, rc);
    }
    pshm_robust_locked(self, r, mstate);
    return 0;
}

/* Do the links lead to the neighbours that this thread recorded? True if the C
 * library's links are not known. Reads the links one by one: a single load of
 * both would have to wait until the two stores of the locking thread have
 * reached the cache. */
static inline bool
pshm_robust_in_order(const struct pshm_thread *self,
                     const struct pshm_robust *r)
{
#ifdef PSHM_ROBUST_LINKS
    void *const volatile *found
        = (void *const volatile *)&r->mutex.__data.__list;
    uintptr_t right[2];
    return pshm_thread_neighbours(self, pshm_robust_link(r), right)
           && (uintptr_t)found[0] == right[0]
           && (uintptr_t)found[1] == right[1];
#else
    (void)self;
    (void)r;
    return true;
#endif
}

/* If they do not: are the links valid because a mutex of another library is
 * between? True if that cannot be determined. */
bool pshm_robust_linked(const struct pshm_robust *r);

/* Are its bytes as the owner left them? */
static inline bool
pshm_robust_intact(const struct pshm_thread *self, const struct pshm_robust *r,
                   const struct pshm_mutex_state *mstate)
{
    return pshm_robust_kind(r) == mstate->kind
           && pshm_robust_holder(r) == self->id
#ifdef __GLIBC__
           && (mstate->flags != PSHM_RECURSIVE || r->mutex.__data.__count == 1)
#endif
           && (pshm_robust_in_order(self, r) || pshm_robust_linked(r));
}

/* Unlock a mutex that is not intact, or that the C library did not unlock. */
int pshm_robust_force(struct pshm_robust *r, struct pshm_mutex_state *mstate);

static inline int
pshm_robust_unlock(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    struct pshm_thread *self = pshm_thread();
    if (atomic_load_explicit(&mstate->owner, memory_order_relaxed)
        != self->number) {
        return -EPERM;
    }
    if (mstate->depth > 1) {              /* the C library counts one */
        mstate->depth--;
        return 0;
    }
    if (!pshm_robust_intact(self, r, mstate)) {
        return pshm_robust_force(r, mstate);
    }
    /* Before the mutex is unlocked: afterwards another thread may own these
     * fields. */
    pshm_robust_note(mstate, 0);
    atomic_store_explicit(&mstate->owner, 0, memory_order_relaxed);
    if (pthread_mutex_unlock(&r->mutex) == 0) {
        pshm_thread_unlocked(self, pshm_robust_link(r));
        return 0;
    }
    atomic_store_explicit(&mstate->owner, self->number, memory_order_relaxed);
    return pshm_robust_force(r, mstate);
}

#endif
