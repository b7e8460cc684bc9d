/* POSIX semaphores, in a segment or with a name: sem_overview(7). */
#ifndef PSHM_SEMAPHORE_H
#define PSHM_SEMAPHORE_H

#include <limits.h>
#include <semaphore.h>

#include "posix/base.h"
#include "posix/object/name.h"

/* sem_init(3), for processes, in memory for a sem_t.  Returns 0 or -errno. */
int pshm_sem_init(void *memory, unsigned value);

/* Decrement the value. Returns 0; -EBUSY: it is 0; or -EINTR, -ETIMEDOUT as
 * pshm_futex_wait. */
int pshm_sem_try(sem_t *sem);
int pshm_sem_wait(sem_t *sem, int64_t deadline);

/* Add n to the value. Returns 0; or -EOVERFLOW, with nothing added. */
int pshm_sem_post(sem_t *sem, unsigned n);

/* The current value, 0 to SEM_VALUE_MAX. Does not write. */
int pshm_sem_value(const sem_t *sem);

/* ---- With a name ----
 *
 * sem_open(3) makes a file in PSHM_DIR that consists of one sem_t. */

/* The name of the file of a semaphore. Returns 0; or -ENAMETOOLONG: more than
 * 251 bytes, if the C library prepends "sem.". */
int pshm_sem_name(const struct pshm_name *name, struct pshm_name *out);

/* The name of a semaphore, given the name of its file. Neither begins with a
 * slash. */
const char *pshm_sem_plain(const char *file);

/* sem_unlink(3).  Returns 0 or -errno. */
int pshm_sem_unlink(const struct pshm_name *name);

#endif
