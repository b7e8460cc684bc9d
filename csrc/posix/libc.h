/* Functions that the C library may have or not, depending on how new it is: not
 * by linking, for then they would have to be there. */
#ifndef PSHM_LIBC_H
#define PSHM_LIBC_H

#include <stdatomic.h>

#include "base.h"

/* The function's address, or NULL.  found: zero at first, for this name alone;
 * looking it up takes longer than most that is done with it. */
void *pshm_libc_function(const char *name, atomic_uintptr_t *found);

#endif
