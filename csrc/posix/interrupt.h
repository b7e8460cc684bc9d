/* Answering signals in the middle of a long call. */
#ifndef PSHM_INTERRUPT_H
#define PSHM_INTERRUPT_H

#include "posix/base.h"

/* The caller's callback.  A long call makes it between two pieces of work, and
 * after a system call returned EINTR, and holds no lock then.
 *
 * check returns 0 to go on; or -EINTR if a signal handler has raised, and then
 * at each further call.  The long call then undoes what it did, and returns
 * -EINTR. */
struct pshm_interrupt {
    int (*check)(void *context);
    void *context;
};

static inline int
pshm_interrupt_check(const struct pshm_interrupt *interrupt)
{
    return interrupt->check(interrupt->context);
}

#endif
