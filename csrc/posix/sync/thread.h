/* Threads, as the owners of locks: which one this is, and whether one has ended.
 *
 * The id of a thread (gettid(2)) is given to another one when the thread ends.
 * So an owner also notes when it started, which /proc tells. */
#ifndef PSHM_THREAD_H
#define PSHM_THREAD_H

#include "posix/base.h"
#include "posix/host.h"

/* glibc keeps room for what a library that is loaded late has by the cheaper of
 * the models; musl does not. */
#ifdef __GLIBC__
#define PSHM_THREAD_LOCAL                                                    \
    _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define PSHM_THREAD_LOCAL _Thread_local
#endif

struct pshm_thread {
    uintptr_t number;                   /* no other thread of this process ever
                                           has it; 0: not known yet */
    unsigned forks;                     /* as pshm_forks when the rest was read */
    unsigned id;
    unsigned started;                   /* ticks; 0: unknown */
    uintptr_t list;                     /* the head of its robust mutexes:
                                           get_robust_list(2); 0: unknown */
    /* Those that it locked by this library, by the address of their link forward,
     * the last one at the end. */
    uintptr_t *held;
    unsigned held_count, held_room;
    bool held_unknown;                  /* there was no memory for all */
    uintptr_t first_held[8];
};

extern PSHM_THREAD_LOCAL struct pshm_thread pshm_this_thread;
const struct pshm_thread *pshm_thread_enter(void);

/* The calling thread.  Cheap but for the first call after its start or a fork. */
static inline const struct pshm_thread *
pshm_thread(void)
{
    const struct pshm_thread *self = &pshm_this_thread;
    return self->number != 0 && self->forks == pshm_forks()
               ? self : pshm_thread_enter();
}

/* Note that the calling thread has locked, or unlocked, the mutex whose link
 * forward has this address. */
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

/* Has the calling thread locked it? */
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

/* Where its neighbours in the thread's list have their links forward: of the
 * one locked after it, and of the one before; the head where there is none.
 * Returns false where that is not known. */
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

/* From now on call the function in each thread that was here, when it ends.  One
 * function. */
void pshm_thread_at_end(void (*function)(void));

/* Has the thread of this id, which started then (0: unknown), ended?  False
 * where that cannot be known.  A zombie has ended, and so has a thread whose id
 * another one has now.  Some microseconds. */
bool pshm_thread_has_ended(unsigned id, unsigned started);

#endif
