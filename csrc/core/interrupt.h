/* Signals in the long calls of the posix room. */
#ifndef CORE_INTERRUPT_H
#define CORE_INTERRUPT_H

#include "core/compat.h"

#include "posix/interrupt.h"

/* A callback that attaches the thread state *released, which
 * PyEval_SaveThread() returned, while Python's signal handlers run.  After a
 * handler has raised, it returns -EINTR as long as that exception is set. */
struct pshm_interrupt core_interrupt(PyThreadState **released);

#endif
