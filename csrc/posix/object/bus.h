/* The SIGBUS handler of this process: installed while a guard (guard.h) needs
 * it, and chained to the action that it replaces.
 *
 * The action of a signal is the process's, so the state of this file is too.
 * pshm_bus_install and pshm_bus_remove are called by one thread at a time. */
#ifndef PSHM_BUS_H
#define PSHM_BUS_H

#include "posix/base.h"

/* What the handler calls; both functions are async-signal-safe. */
struct pshm_bus_calls {
    /* Make the access to this address succeed.  Returns whether it will; if
     * not, the previous action is taken. */
    bool (*repair)(void *address);
    /* Is the calling thread inside a guard? */
    bool (*guarded)(void);
};

/* Install the handler, unless it is the current action.  The action that it
 * replaces is the one that it calls for every other SIGBUS: a function with
 * the mask and flags that it was installed with; SIG_DFL ends the process with
 * SIGBUS; and SIG_IGN ignores a SIGBUS that a process has sent.
 * Returns 0 or -errno. */
int pshm_bus_install(const struct pshm_bus_calls *calls);

/* Put the previous action back.  If another handler was installed meanwhile,
 * which may call this one, this one stays behind it. */
void pshm_bus_remove(void);

/* A handler that was installed on top may call raise(3) to reach this one, and
 * then return to the access, as faulthandler does.  So a SIGBUS that a guarded
 * thread sends to itself is postponed, and dropped if the access was repaired.
 * This sends it again, to a thread that has left its last guard. */
void pshm_bus_send_postponed(void);

#endif
