/* Bringing in the pages of a mapping before they are used: madvise(2). */
#ifndef PSHM_POPULATE_H
#define PSHM_POPULATE_H

#include "posix/base.h"
#include "posix/interrupt.h"

/* Bring in every page of the mapped range and map it, for writing if write. A
 * large range is divided among threads, as far as the CPUs of the caller
 * suffice; they have ended when the function returns.  Returns 0; -EINTR;
 * -EFAULT: a page is past the object's end, or cannot get memory; -EINVAL: the
 * kernel is older than Linux 5.14, or the memory is a device's; or -errno.  A
 * part of the pages may be there then. */
int pshm_populate(void *base, size_t length, bool write,
                  const struct pshm_interrupt *interrupt);

#endif
