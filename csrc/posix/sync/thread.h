/* Threads as the owners of locks: identifies the calling thread, and tells
 * whether a thread has ended.
 *
 * The kernel reuses the id of a thread (gettid(2)) after the thread has ended.
 * So an owner also records its start time, which /proc shows. */
#ifndef PSHM_THREAD_H
#define PSHM_THREAD_H

#include "posix/base.h"
#include "posix/host.h"

/* glibc reserves room for thread-local variables of a library that is loaded
 * late, in the cheaper access model; musl does not. */
#ifdef __GLIBC__
#define PSHM_THREAD_LOCAL                                                    \
    _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define PSHM_THREAD_LOCAL _Thread_local
#endif

struct pshm_thread {
    uintptr_t number;                   /* unique in this process; 0: not set
                                           yet */
    unsigned forks;                     /* pshm_forks() when the other fields
                                           were read */
    unsigned id;
    unsigned started;                   /* ticks; 0: unknown */
    uintptr_t list;                     /* head of its list of robust mutexes:
                                           get_robust_list(2); 0: unknown */
    /* The mutexes that it locked through this library, in order, each as the
     * address of its forward link. */
    uintptr_t *held;
    unsigned held_count, held_room;
    bool held_unknown;                  /* an allocation failed, so some are
                                           missing */
    uintptr_t first_held[8];
};

extern PSHM_THREAD_LOCAL struct pshm_thread pshm_this_thread;
const struct pshm_thread *pshm_thread_enter(void);

/* The calling thread. Cheap except for the first call after the thread started
 * or the process forked. */
static inline const struct pshm_thread *
pshm_thread(void)
{
    const struct pshm_thread *self = &pshm_this_thread;
    return self->number != 0 && self->forks == pshm_forks()
               ? self : pshm_thread_enter();
}

/* Record that the calling thread has locked, or unlocked, the mutex with this
 * forward link. */
void pshm_thread_more_room(struct pshm_thread *self);
void pshm_thread_unlocked_inner(struct pshm_thread *self, uintptr_t link);

static inline void
pshm_thread_locked(uintptr_t link)
{
    struct pshm_thread *self = &pshm_this_thread;
    if (self->held_count == self->held_room) {
        pshm_thread_more_room(self);
    }
    if (self->held_count < self->held_room) {
        self->held[self->held_count++] = link;
    }
}

static inline void
pshm_thread_unlocked(uintptr_t link)
{
    struct pshm_thread *self = &pshm_this_thread;
    if (self->held_count > 0 && self->held[self->held_count - 1] == link) {
        self->held_count--;
    }
    else {
        pshm_thread_unlocked_inner(self, link);
    }
}

/* Has the calling thread locked the mutex with this forward link? */
static inline bool
pshm_thread_has_locked(uintptr_t link)
{
    const struct pshm_thread *self = &pshm_this_thread;
    unsigned i = self->held_count;
    while (i > 0 && self->held[i - 1] != link) {
        i--;
    }
    return i > 0;
}

/* The forward links of the neighbours of a mutex in the thread's list: of the
 * mutex locked after it, and of the one locked before it; the head of the list
 * if there is no such mutex. Returns false if they are unknown. */
static inline bool
pshm_thread_neighbours(uintptr_t link, uintptr_t neighbours[2])
{
    const struct pshm_thread *self = &pshm_this_thread;
    unsigned i = self->held_count;
    while (i > 0 && self->held[i - 1] != link) {
        i--;
    }
    if (i == 0 || self->held_unknown || self->list == 0) {
        return false;
    }
    neighbours[0] = i < self->held_count ? self->held[i] : self->list;
    neighbours[1] = i > 1 ? self->held[i - 2] : self->list;
    return true;
}

/* Have function called at the end of each thread that has called
 * pshm_thread(). Only one function can be set. */
void pshm_thread_at_end(void (*function)(void));

/* Has the thread with this id and start time (0: unknown) ended? Returns true
 * for a zombie, and if another thread has the id now; false if the answer is
 * unknown. Takes some microseconds. */
bool pshm_thread_has_ended(unsigned id, unsigned started);

#endif
