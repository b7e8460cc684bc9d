/* Semaphore. */
#ifndef CORE_SEMAPHORE_H
#define CORE_SEMAPHORE_H

#include "cell.h"

#include "posix/semaphore.h"

typedef struct {
    cell base;                          /* without a place if it has a name */
    sem_t *sem;
    PyObject *name;                     /* str without slash, or NULL */
    struct pshm_name file;              /* valid where name is */
    struct pshm_identity id;
} semaphore;

static inline semaphore *
as_semaphore(PyObject *op)
{
    return (semaphore *)op;
}

/* ---- With a name: semaphore_named.c ---- */

/* Open the one that is there; or with value make it first, or with exist_ok
 * take the one that is there.  Returns 0, or -1 with an exception. */
int semaphore_open_named(semaphore *self, core_state *state, PyObject *given,
                         const unsigned *value, bool exist_ok, mode_t mode);

extern const char semaphore_reduce_doc[];
PyObject *semaphore_reduce(PyObject *op, PyObject *unused);

/* sem_unlink, and what unpickling calls. */
extern PyMethodDef semaphore_functions[];

#endif
