#include "core/interrupt.h"

static int
check_signals(void *context)
{
    PyThreadState **released = (PyThreadState **)context;
    PyEval_RestoreThread(*released);
    bool raised = PyErr_Occurred() != NULL || PyErr_CheckSignals() < 0;
    *released = PyEval_SaveThread();
    return raised ? -EINTR : 0;
}

struct pshm_interrupt
core_interrupt(PyThreadState **released)
{
    return (struct pshm_interrupt){check_signals, (void *)released};
}
