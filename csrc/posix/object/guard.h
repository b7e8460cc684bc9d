/* Guards: an access to memory that its object no longer has, or that cannot be
 * had, finds zeros instead of ending the process with SIGBUS.
 *
 * A guard is about one mapping, and about the accesses of the thread that
 * entered it.  Another process may truncate the object, or the file system may
 * have no memory for a page that was not used yet; the handler (bus.h) then
 * replaces the lost page by a page of zeros, and the guard notes it.
 * When a guard ends, the object's pages are mapped again.
 *
 * The handler is the process's, and so is the list of guards: the threads of
 * all interpreters share it.  It is installed only while a guard exists. */
#ifndef PSHM_GUARD_H
#define PSHM_GUARD_H

#include "posix/base.h"

struct pshm_guard;

/* Guard the mapping [base, base + length), all of a mapping that pshm_map made
 * and that stays mapped until the guard is left; prot: its protection.  The
 * thread may have any number of guards, also of the same mapping.  A blocked
 * SIGBUS is unblocked in the calling thread while it has a guard.
 * Returns 0 with the guard in *guard; -EINVAL or -EFAULT: a mapping of that
 * kind cannot be guarded (huge pages of hugetlbfs, a device); or -errno
 * (-ENOMEM: no address space for a second mapping; -EAGAIN: locked pages, and
 * RLIMIT_MEMLOCK does not allow as many again). */
int pshm_guard_enter(void *base, size_t length, int prot,
                     struct pshm_guard **guard);

/* The pages that were lost, bytes from the mapping's base. */
struct pshm_guard_lost {
    size_t start;
    size_t end;                         /* 0: none were */
};

/* End the guard, in any thread, once: map the object's pages again, with the
 * protection that the mapping has now.  *lost: the first to the last page that
 * was lost since it began, in any guard of the mapping.
 * Returns 0; or -errno if the pages cannot be mapped again: then there are
 * zeros for good. */
int pshm_guard_leave(struct pshm_guard *guard, int prot,
                     struct pshm_guard_lost *lost);

#endif
