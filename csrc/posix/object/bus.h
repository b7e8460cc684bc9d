/* The SIGBUS handler of the process. It is installed while a guard (guard.h)
 * needs it, and calls the action that it replaced.
 *
 * The action of a signal belongs to the process, and the state of this file as
 * well. Only one thread at a time may call pshm_bus_install or
 * pshm_bus_remove. */
#ifndef PSHM_BUS_H
#define PSHM_BUS_H

#include "posix/base.h"

/* The functions that the handler calls. Both are async-signal-safe. */
struct pshm_bus_calls {
    /* Make an access to this address succeed. Returns whether it will; if not,
     * the handler calls the previous action. */
    bool (*repair)(void *address);
    /* Is the calling thread inside a guard? */
    bool (*guarded)(void);
};

/* Install the handler, unless it is the current action. For every other SIGBUS
 * it calls the action that it replaced: a function, with the mask and flags
 * that it was installed with; SIG_DFL ends the process with SIGBUS; SIG_IGN
 * ignores a SIGBUS that a process has sent. Returns 0 or -errno. */
int pshm_bus_install(const struct pshm_bus_calls *calls);

/* Restore the previous action. If another handler was installed since, which
 * may call this handler, this handler stays in place behind it. */
void pshm_bus_remove(void);

/* Another handler, installed on top, may call raise(3) to reach this handler,
 * and then return to the access, as faulthandler does. So a SIGBUS that a
 * guarded thread sends to itself is postponed, and dropped if the access was
 * repaired. This function sends it again, when the thread has left its last
 * guard. */
void pshm_bus_send_postponed(void);

#endif
