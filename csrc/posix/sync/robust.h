/* A mutex whose next owner is told that the last one died while it had it:
 * pthread_mutexattr_setrobust(3).
 *
 * While a thread holds it the C library keeps it in a list of that thread, by
 * addresses in the mutex itself.  So the memory must stay mapped as long as a
 * thread of this process holds it; and bytes written over those addresses would
 * crash the owner.  So each thread remembers, in private memory, which mutexes it
 * has and in what order (thread.h): that says what the addresses must be.
 *
 * When a thread ends, the kernel walks that list and marks each mutex.  A mutex
 * that was written over ends the walk, and those behind it keep an owner that
 * does not exist any more.  So a thread that waits looks at each poll interval
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
        unsigned char room[48];         /* of any C library's */
    };
};

_Static_assert(sizeof(pthread_mutex_t) <= 48, "a robust mutex has no room");

/* What the owner notes of itself in shared memory, beside the mutex. */
struct pshm_owner {
    atomic_uint thread;                 /* its id; 0: not held */
    atomic_uint started;                /* as in struct pshm_thread */
};

/* In place of an id: the object that held the mutex is gone, or could not unlock
 * it, but the mutex still is in the list of a thread that lives. */
#define PSHM_ORPHANED UINT32_MAX

/* One process's side of a mutex, zeroed at first; for any number of threads.  A
 * thread that locks it by one grip unlocks it by that. */
struct pshm_mutex_state {
    int kind;
    unsigned flags;
    uint32_t space;                     /* of process ids, as pshm_robust_watch
                                           found it; 0: owners are not looked
                                           for */
    struct pshm_owner *note;            /* or NULL */
    _Atomic(int64_t) looked;            /* ... the last time, nanoseconds */
    atomic_uintptr_t owner;             /* number of the thread that has it by
                                           this grip */
    atomic_uint forks;                  /* ... since how many forks */
    atomic_bool lost;                   /* another one locked it by this grip
                                           before its owner unlocked it, so it
                                           still is in that one's list ... */
    atomic_uint before, before_started; /* ... if this one has not ended */
    /* its owner's: */
    unsigned depth;
    unsigned thread, started;           /* as in struct pshm_thread */
};

/* Does this thread hold it by this grip?  Does any thread of this process? */
static inline bool pshm_mutex_state_mine(const struct pshm_mutex_state *mstate);
static inline bool pshm_mutex_state_held(const struct pshm_mutex_state *mstate);

/* Make r, which is all zeros and not shared yet.  Returns 0 or -errno. */
int pshm_robust_init(struct pshm_robust *r, unsigned flags);

/* Use r, which was made with these flags.  Returns 0; -EBADMSG: it is not of that
 * kind; or -errno. */
int pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                     struct pshm_mutex_state *mstate);

/* From now on find out by oneself whether the owner of a mutex has ended, and
 * note there when locking it who that is; note: zeros at first, or NULL.  Only if
 * all threads that lock it are of one space of process ids. */
void pshm_robust_watch(struct pshm_mutex_state *mstate,
                       struct pshm_owner *note);

/* Lock it.  Returns 0; -EOWNERDEAD: locked, but its last owner died with it, and
 * it is to be repaired; or it is not locked:
 *   -EBUSY       it is held
 *   -EINPROGRESS it is held, and orphaned (pshm_robust_abandon): it cannot be
 *                taken over yet
 *   -EDEADLK     this thread holds it
 *   -ENOTRECOVERABLE  a thread that was told of a death unlocked it without a
 *                repair
 *   -EBADMSG     it was written over
 *   -EINTR, -ETIMEDOUT  as pshm_futex_wait
 * pshm_robust_lock returns -EDEADLK only if it would wait for ever. */
static inline int pshm_robust_try(struct pshm_robust *r,
                                  struct pshm_mutex_state *mstate);
int pshm_robust_lock(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                     int64_t deadline);

/* After -EBUSY of the first: what is to be said of it?  Returns that, or what
 * another try returned after its owner was found to have ended.  Looks for the
 * owner at most once in a poll interval. */
int pshm_robust_busy(struct pshm_robust *r, struct pshm_mutex_state *mstate);

/* After -EOWNERDEAD, and before it is unlocked. */
void pshm_robust_repair(struct pshm_robust *r);

/* Did its owner die, and has no thread locked it since; or is it orphaned?  Also
 * if the kernel did not mark the owner, for a grip that is watched.  Only reads
 * a word, so the mutex stays free for others; some microseconds. */
bool pshm_robust_owner_gone(struct pshm_robust *r,
                            const struct pshm_mutex_state *mstate);

/* Returns 0; -EPERM: this thread does not hold it by this grip; -EBADMSG: it was
 * written over.  Then it is taken out of the list, if its neighbours there say
 * where it is, and the next owner is told; if not, the grip still is held, and
 * the mutex is orphaned. */
static inline int pshm_robust_unlock(struct pshm_robust *r,
                                     struct pshm_mutex_state *mstate);

/* The object that has the grip goes away; by any thread.  If it is held, it is
 * unlocked for the next owner to be told, by the kernel's word and by
 * *inconsistent, if not NULL, which becomes 1.  Returns 0: the memory may be
 * unmapped; or -EBUSY: it still is in the list of a thread (orphan.h). */
int pshm_robust_abandon(struct pshm_robust *r, struct pshm_mutex_state *mstate,
                        atomic_uint *inconsistent);

/* ---- What a lock does each time that it is not contended ----
 *
 * Here, because the calls would cost more than what they do. */

#if defined(__GLIBC__) && __PTHREAD_MUTEX_HAVE_PREV
#define PSHM_ROBUST_LINKS               /* we know where they are */
#endif

/* What init sets and nothing changes. */
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

/* The word that says which thread has it. */
static inline atomic_uint *
pshm_robust_word(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    return (atomic_uint *)(uintptr_t)&r->mutex.__data.__lock;
#else
    return (atomic_uint *)(uintptr_t)r + 1;     /* musl: the second member */
#endif
}

/* The id of the thread that has it, or 0. */
static inline unsigned
pshm_robust_holder(const struct pshm_robust *r)
{
    return atomic_load_explicit(pshm_robust_word(r), memory_order_acquire)
           & FUTEX_TID_MASK;
}

/* Each by itself: a load of both at once would have to wait until the two
 * stores of locking have come to the cache. */
static inline void
pshm_robust_read_links(const struct pshm_robust *r, uintptr_t links[2])
{
#ifdef PSHM_ROBUST_LINKS
    void *const volatile *links_of
        = (void *const volatile *)&r->mutex.__data.__list;
    links[0] = (uintptr_t)links_of[0];
    links[1] = (uintptr_t)links_of[1];
#else
    (void)r;
    links[0] = links[1] = 0;
#endif
}

/* What the lists of mutexes know it by. */
static inline uintptr_t
pshm_robust_link(const struct pshm_robust *r)
{
#ifdef PSHM_ROBUST_LINKS
    return (uintptr_t)&r->mutex.__data.__list.__next;
#else
    return (uintptr_t)r;
#endif
}

/* Are its links right, though they do not lead to the mutexes of this library
 * that this thread locked before and after it?  True where that cannot be
 * told. */
bool pshm_robust_linked(const struct pshm_robust *r);

static inline bool
pshm_mutex_state_is_of(const struct pshm_mutex_state *mstate,
                       const struct pshm_thread *thread)
{
    return atomic_load_explicit(&mstate->owner, memory_order_relaxed)
               == thread->number
           && atomic_load_explicit(&mstate->forks, memory_order_relaxed)
                  == thread->forks;
}

static inline bool
pshm_mutex_state_mine(const struct pshm_mutex_state *mstate)
{
    return pshm_mutex_state_is_of(mstate, pshm_thread());
}

static inline bool
pshm_mutex_state_held(const struct pshm_mutex_state *mstate)
{
    return atomic_load_explicit(&mstate->owner, memory_order_relaxed) != 0
           && atomic_load_explicit(&mstate->forks, memory_order_relaxed)
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

/* A thread has locked it by a grip that another one has: that one is dead, or the
 * bytes were written over. */
void pshm_robust_overtaken(struct pshm_mutex_state *mstate);

/* Note in the grip what an attempt to lock has returned, and return it. */
static inline int
pshm_robust_locked(const struct pshm_robust *r,
                   struct pshm_mutex_state *mstate, int rc)
{
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    const struct pshm_thread *self = pshm_thread();
    if (pshm_mutex_state_held(mstate)) {
        pshm_robust_overtaken(mstate);
    }
    mstate->depth = 1;
    mstate->thread = self->id;
    mstate->started = self->started;
    pshm_thread_locked(pshm_robust_link(r));
    atomic_store_explicit(&mstate->forks, self->forks, memory_order_relaxed);
    atomic_store_explicit(&mstate->owner, self->number, memory_order_relaxed);
    if (mstate->note != NULL) {
        atomic_store_explicit(&mstate->note->started, self->started,
                              memory_order_relaxed);
        atomic_store_explicit(&mstate->note->thread, self->id,
                              memory_order_release);
    }
    return rc;
}

/* What an attempt means that did not simply lock it. */
int pshm_robust_refused(struct pshm_robust *r, int rc);

/* This thread holds it, by this grip or another one: the C library is not to
 * lock it again, for that would put it into the list a second time or count what
 * was written over. */
int pshm_robust_again(struct pshm_robust *r, struct pshm_mutex_state *mstate);

static inline int
pshm_robust_try(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    const struct pshm_thread *self = pshm_thread();
    if (pshm_robust_kind(r) != mstate->kind) {
        return -EBADMSG;
    }
    if (pshm_mutex_state_is_of(mstate, self)
        || pshm_robust_holder(r) == self->id
        || pshm_thread_has_locked(pshm_robust_link(r))) {
        return pshm_robust_again(r, mstate);
    }
    int rc = -pthread_mutex_trylock(&r->mutex);
    if (rc != 0) {
        rc = pshm_robust_refused(r, rc);
    }
    return pshm_robust_locked(r, mstate, rc);
}

/* Do its links lead where this thread knows that they should?  A C library whose
 * links we do not know has none that we know to be wrong. */
static inline bool
pshm_robust_in_order(const struct pshm_robust *r)
{
#ifdef PSHM_ROBUST_LINKS
    uintptr_t found[2], right[2];
    pshm_robust_read_links(r, found);
    return pshm_thread_neighbours(pshm_robust_link(r), right)
           && found[0] == right[0] && found[1] == right[1];
#else
    (void)r;
    return true;
#endif
}

/* Is it as its owner left it? */
static inline bool
pshm_robust_intact(const struct pshm_robust *r,
                   const struct pshm_mutex_state *mstate)
{
    return pshm_robust_kind(r) == mstate->kind
           && pshm_robust_holder(r) == mstate->thread
#ifdef __GLIBC__
           && (mstate->flags != PSHM_RECURSIVE || r->mutex.__data.__count == 1)
#endif
           && (pshm_robust_in_order(r) || pshm_robust_linked(r));
}

/* Unlock one that is not intact, or that the C library did not unlock. */
int pshm_robust_force(struct pshm_robust *r, struct pshm_mutex_state *mstate);

static inline int
pshm_robust_unlock(struct pshm_robust *r, struct pshm_mutex_state *mstate)
{
    const struct pshm_thread *self = pshm_thread();
    if (!pshm_mutex_state_is_of(mstate, self)) {
        return -EPERM;
    }
    if (mstate->depth > 1) {              /* the C library has it once only */
        mstate->depth--;
        return 0;
    }
    if (!pshm_robust_intact(r, mstate)) {
        return pshm_robust_force(r, mstate);
    }
    /* Before, for afterwards they may be another thread's. */
    pshm_robust_note(mstate, 0);
    atomic_store_explicit(&mstate->owner, 0, memory_order_relaxed);
    if (pthread_mutex_unlock(&r->mutex) == 0) {
        pshm_thread_unlocked(pshm_robust_link(r));
        return 0;
    }
    atomic_store_explicit(&mstate->owner, self->number, memory_order_relaxed);
    return pshm_robust_force(r, mstate);
}

#endif
