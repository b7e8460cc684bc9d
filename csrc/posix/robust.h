/* A mutex whose next owner is told that the last one died while it had it:
 * pthread_mutexattr_setrobust(3).
 *
 * While it is held the C library keeps it in a list of its thread's, by
 * addresses in the mutex itself.  So the memory must stay mapped as long as a
 * thread of this process holds it; and who writes over those addresses would
 * crash the holder.  A grip remembers, in private memory, what they were.
 */
#ifndef PSHM_ROBUST_H
#define PSHM_ROBUST_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base.h"
#include "host.h"

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

/* One process's side of it, zeroed at first; for any number of threads.  Who
 * locks it by one grip unlocks it by that. */
struct pshm_grip {
    int kind;
    unsigned flags;
    atomic_uintptr_t owner;             /* thread that has it by this grip */
    atomic_uint forks;                  /* ... since how many forks */
    /* its owner's: */
    unsigned depth;
    uintptr_t links[2];
};

/* Has this thread got it by this grip?  Has any thread of this process? */
static inline bool pshm_grip_mine(const struct pshm_grip *grip);
static inline bool pshm_grip_held(const struct pshm_grip *grip);

/* Make r, which is all zeros and nobody else's yet.  Returns 0 or -errno. */
int pshm_robust_init(struct pshm_robust *r, unsigned flags);

/* Know r, which somebody made with these flags.  Returns 0, -EBADMSG: it is
 * none of that kind; or -errno. */
int pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                     struct pshm_grip *grip);

/* Lock it.  Returns 0; -EOWNERDEAD: locked, but its last owner died with it,
 * and it is to be repaired; or it is not locked: -EBUSY (somebody has it),
 * -EDEADLK (this thread has it), -ENOTRECOVERABLE (whoever was told before let
 * go of it without a repair), -EBADMSG (written over), -EINTR and -ETIMEDOUT as
 * pshm_futex_wait. */
static inline int pshm_robust_try(struct pshm_robust *r,
                                  struct pshm_grip *grip);
int pshm_robust_lock(struct pshm_robust *r, struct pshm_grip *grip,
                     int64_t until);

/* After -EOWNERDEAD, and before it is unlocked. */
void pshm_robust_repair(struct pshm_robust *r);

/* Did its owner die, and has no thread locked it since?  Only reads a word, so
 * the mutex stays free for others. */
bool pshm_robust_owner_died(const struct pshm_robust *r);

/* By its owner, who has just locked or unlocked another one: what its place in
 * the list is now is right.  Saves asking the kernel when it is unlocked, which
 * has to be done where that has changed since; not where the last one locked is
 * the first one unlocked. */
void pshm_robust_renew(const struct pshm_robust *r, struct pshm_grip *grip);

/* Returns 0; -EPERM: this thread has not got it by this grip; -EBADMSG: written
 * over. */
int pshm_robust_unlock(struct pshm_robust *r, struct pshm_grip *grip);

/* The two halves of that, for who has something to do in between. */
static inline int pshm_robust_may_unlock(const struct pshm_robust *r,
                                         const struct pshm_grip *grip);
static inline int pshm_robust_let_go(struct pshm_robust *r,
                                     struct pshm_grip *grip);

/* ---- What a lock does each time that nobody else wants it ----
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

/* How often its owner, who asks, has locked a recursive one. */
static inline unsigned
pshm_robust_count(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    return r->mutex.__data.__count;
#else
    int words[6];                       /* musl: how often more than once */
    memcpy(words, r, sizeof(words));
    return (unsigned)words[5] + 1;
#endif
}

/* Do its neighbours in the list know it?  True where that cannot be told. */
bool pshm_robust_linked(const struct pshm_robust *r);

/* This thread's number, which no other one of this process ever has.  That of
 * pthread_self(3) passes on to another when a thread ends, also when it ends
 * with a mutex that it locked by a grip.  glibc keeps room for what a library
 * that is loaded late has by the cheaper of the models; musl does not. */
#ifdef __GLIBC__
#define PSHM_THREAD_LOCAL                                                    \
    _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define PSHM_THREAD_LOCAL _Thread_local
#endif
extern PSHM_THREAD_LOCAL uintptr_t pshm_thread_number;
uintptr_t pshm_thread_count(void);      /* gives it one */

static inline uintptr_t
pshm_thread(void)
{
    return pshm_thread_number != 0 ? pshm_thread_number : pshm_thread_count();
}

static inline bool
pshm_grip_is_of(const struct pshm_grip *grip, uintptr_t thread, unsigned forks)
{
    return atomic_load_explicit(&grip->owner, memory_order_relaxed) == thread
           && atomic_load_explicit(&grip->forks, memory_order_relaxed)
                  == forks;
}

static inline bool
pshm_grip_mine(const struct pshm_grip *grip)
{
    return pshm_grip_is_of(grip, pshm_thread(), pshm_forks());
}

static inline bool
pshm_grip_held(const struct pshm_grip *grip)
{
    return atomic_load_explicit(&grip->owner, memory_order_relaxed) != 0
           && atomic_load_explicit(&grip->forks, memory_order_relaxed)
                  == pshm_forks();
}

/* Note in the grip what an attempt to lock has returned, and return it. */
static inline int
pshm_robust_locked(const struct pshm_robust *r, struct pshm_grip *grip, int rc)
{
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    uintptr_t self = pshm_thread();
    unsigned forks = pshm_forks();
    grip->depth = rc == 0 && pshm_grip_is_of(grip, self, forks)
                      ? grip->depth + 1 : 1;
    pshm_robust_read_links(r, grip->links);
    atomic_store_explicit(&grip->forks, forks, memory_order_relaxed);
    atomic_store_explicit(&grip->owner, self, memory_order_relaxed);
    return rc;
}

/* What an attempt means that did not simply lock it. */
int pshm_robust_refused(struct pshm_robust *r, int rc);

static inline int
pshm_robust_try(struct pshm_robust *r, struct pshm_grip *grip)
{
    if (pshm_robust_kind(r) != grip->kind) {
        return -EBADMSG;
    }
    int rc = -pthread_mutex_trylock(&r->mutex);
    if (rc != 0) {
        rc = pshm_robust_refused(r, rc);
    }
    return pshm_robust_locked(r, grip, rc);
}

/* The links differ from what they were where a neighbour came or went.  And of
 * a recursive one the C library must count as we do: who took for the last unlock
 * what is one of several would let the memory go with the mutex in the list. */
static inline int
pshm_robust_may_unlock(const struct pshm_robust *r,
                       const struct pshm_grip *grip)
{
    uintptr_t links[2];
    if (!pshm_grip_mine(grip)) {
        return -EPERM;
    }
    pshm_robust_read_links(r, links);
    return pshm_robust_kind(r) == grip->kind
           && (grip->flags != PSHM_RECURSIVE
               || pshm_robust_count(r) == grip->depth)
           && ((links[0] == grip->links[0] && links[1] == grip->links[1])
               || pshm_robust_linked(r)) ? 0 : -EBADMSG;
}

static inline int
pshm_robust_let_go(struct pshm_robust *r, struct pshm_grip *grip)
{
    /* Before, for afterwards it may be another thread's. */
    unsigned depth = --grip->depth;
    if (depth == 0) {
        atomic_store_explicit(&grip->owner, 0, memory_order_relaxed);
    }
    int rc = -pthread_mutex_unlock(&r->mutex);
    if (rc < 0 && depth == 0) {
        grip->depth = 1;
        atomic_store_explicit(&grip->owner, pshm_thread(),
                              memory_order_relaxed);
    }
    return rc;
}

#endif
