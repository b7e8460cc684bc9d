/* The raw shm_open(3). */
#ifndef PSHM_OPEN_H
#define PSHM_OPEN_H

#include "base.h"
#include "name.h"

/* shm_open(3), with a descriptor above 2.  Returns it, or -errno. */
int pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode);

#endif
