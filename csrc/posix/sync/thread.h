/* Threads as the owners of locks: identifies the calling thread, records which
 * mutexes it holds, and tells whether a thread has ended.
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
    uint64_t number;                    /* unique in this process and its
                                           ancestors; pshm_forks() is its
                                           upper half */
    unsigned forks;                     /* pshm_forks() when the other fields
                                           were read; 0: not yet */
    unsigned id;                        /* gettid(2) */
    unsigned started;                   /* ticks; 0: unknown */
    unsigned image;                     /* differs after execve(2), if
                                           addresses are random; 0: unknown */
    unsigned held_count, held_room;
    bool foreign;                       /* another library's mutex may be
                                           between those of held */
    /* The mutexes that it locked through this library, in order, each as the
     * address of its forward link. */
    uintptr_t *held;
    uintptr_t list;                     /* head of its list of robust mutexes:
                                           get_robust_list(2); 0: unknown */
    uintptr_t first_held[8];
};

extern PSHM_THREAD_LOCAL struct pshm_thread pshm_this_thread;
struct pshm_thread *pshm_thread_enter(void);

/* The calling thread. Cheap except for the first call after the thread started
 * or the process forked. */
static inline struct pshm_thread *
pshm_thread(void)
{
    struct pshm_thread *self = &pshm_this_thread;
    return self->forks == pshm_forks() ? self : pshm_thread_enter();
}

/* Before the thread locks a mutex: make room for the record. Returns 0 or
 * -ENOMEM. */
int pshm_thread_grow(struct pshm_thread *self);

static inline int
pshm_thread_reserve(struct pshm_thread *self)
{
    return self->held_count < self->held_room ? 0 : pshm_thread_grow(self);
}

/* Record that the calling thread has locked, or unlocked, the mutex with this
 * forward link. A mutex is added at the head of the list. So if it leads to
 * `next` now, the mutex that was recorded last or else the head, no mutex will
 * ever be between the two. */
static inline void
pshm_thread_locked(struct pshm_thread *self, uintptr_t link, uintptr_t next)
{
    unsigned i = self->held_count;
    self->foreign = i == 0 ? next != self->list
                           : self->foreign || next != self->held[i - 1];
    self->held[i] = link;
    self->held_count = i + 1;
}

void pshm_thread_unlocked_inner(struct pshm_thread *self, uintptr_t link);

static inline void
pshm_thread_unlocked(struct pshm_thread *self, uintptr_t link)
{
    if (self->held_count > 0 && self->held[self->held_count - 1] == link) {
        self->held_count--;
    }
    else {
        pshm_thread_unlocked_inner(self, link);
    }
}

/* How many mutexes the calling thread had locked when it had locked this mutex;
 * 0: it has not locked it. */
static inline unsigned
pshm_thread_position(const struct pshm_thread *self, uintptr_t link)
{
    unsigned i = self->held_count;
    while (i > 0 && self->held[i - 1] != link) {
        i--;
    }
    return i;
}

/* The forward links of the neighbours of a mutex in the thread's list: of the
 * mutex locked after it, and of the one locked before it; the head of the list
 * if there is no such mutex. Returns false if they are unknown. */
static inline bool
pshm_thread_neighbours(const struct pshm_thread *self, uintptr_t link,
                       uintptr_t neighbours[2])
{
    unsigned i = pshm_thread_position(self, link);
    neighbours[0] = i < self->held_count ? self->held[i] : self->list;
    neighbours[1] = i > 1 ? self->held[i - 2] : self->list;
    return i > 0 && self->list != 0;
}

/* Have function called at the end of each thread that has called
 * pshm_thread(). Only one function can be set. */
void pshm_thread_at_end(void (*function)(void));

/* Has the thread with this id and start time (0: unknown) ended? Returns true
 * for a zombie, and if another thread has the id now; false if the answer is
 * unknown. Takes some microseconds. */
bool pshm_thread_has_ended(unsigned id, unsigned started);

/* The same, and true also if the thread has replaced its program: its image is
 * another one now. */
bool pshm_thread_is_gone(unsigned id, unsigned started, unsigned image);

#endif
