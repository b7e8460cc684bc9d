/* Semaphore. */
#ifndef CORE_SEMAPHORE_H
#define CORE_SEMAPHORE_H

#include "core/sync/placed.h"

#include "posix/sync/semaphore.h"

typedef struct {
    PlacedObject base;                          /* without a place if it is a file */
    sem_t *sem;
} SemaphoreObject;

static inline SemaphoreObject *
as_semaphore(PyObject *op)
{
    return (SemaphoreObject *)op;
}

/* ---- With a name: semaphore_named.c ----
 *
 * Its object is the file of sem_open(3), a bare sem_t: base.shm has it. */

/* Open it, or make it with that value, as how says.  NULL with an exception. */
PyObject *semaphore_open_named(placed_params *how, PyObject *given,
                               unsigned value);

/* The one that shm, its own object, is: by a pickle. */
PyObject *semaphore_from_file(core_state *state, PyObject *shm);

extern PyMethodDef semaphore_functions[];           /* sem_unlink */

#endif
