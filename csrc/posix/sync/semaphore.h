/* POSIX semaphores: sem_overview(7).  In a segment, or with a name. */
#ifndef PSHM_SEMAPHORE_H
#define PSHM_SEMAPHORE_H

#include <semaphore.h>

#include "posix/base.h"
#include "posix/object/name.h"

/* The greatest value: SEM_VALUE_MAX. */
unsigned pshm_sem_most(void);

/* sem_init(3), for processes.  Returns 0 or -errno. */
int pshm_sem_init(sem_t *sem, unsigned value);

/* Take one.  Returns 0; -EBUSY: there is none; or -EINTR, -ETIMEDOUT as
 * pshm_futex_wait. */
int pshm_sem_try(sem_t *sem);
int pshm_sem_wait(sem_t *sem, int64_t deadline);

/* Add n.  Returns 0, or -EOVERFLOW with nothing added. */
int pshm_sem_post(sem_t *sem, unsigned n);

/* The value of now, 0 to SEM_VALUE_MAX.  Only reads. */
int pshm_sem_value(const sem_t *sem);

/* ---- With a name ----
 *
 * sem_open(3) makes a file in PSHM_DIR that is a bare sem_t. */

/* Where sem_open(3) keeps it.  Returns 0, or -ENAMETOOLONG: above 251 bytes
 * where the C library puts "sem." before it. */
int pshm_sem_name(const struct pshm_name *name, struct pshm_name *out);

/* A semaphore's name, of the name of its file; neither has a slash. */
const char *pshm_sem_plain(const char *file);

/* sem_unlink(3).  Returns 0 or -errno. */
int pshm_sem_unlink(const struct pshm_name *name);

#endif
