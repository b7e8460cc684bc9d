/* Threads, as the owners of locks: which one this is, and whether one has ended.
 *
 * The id of a thread (gettid(2)) is given to another one when the thread ends.
 * So an owner also notes when it started, which /proc tells. */
#ifndef PSHM_THREAD_H
#define PSHM_THREAD_H

#include "base.h"
#include "host.h"

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

/* From now on call the function in each thread that was here, when it ends.  One
 * function. */
void pshm_thread_at_end(void (*function)(void));

/* Has the thread of this id, which started then (0: unknown), ended?  False
 * where that cannot be known.  A zombie has ended, and so has a thread whose id
 * another one has now.  Some microseconds. */
bool pshm_thread_has_ended(unsigned id, unsigned started);

#endif
