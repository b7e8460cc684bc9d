/* Guards: an access to memory that the object has lost reads zeros, instead of
 * ending the process with SIGBUS.
 *
 * A guard covers one mapping, and the accesses of the thread that entered it.
 * If another process truncates the object, or the file system has no memory
 * for a page that was not used yet, the handler (bus.h) replaces the lost page
 * by a page of zeros, and the guard records it. When the guard ends, the pages
 * of the object are mapped again.
 *
 * The handler and the list of guards belong to the process: the threads of all
 * interpreters share them. The handler is installed only while a guard exists.
 */
#ifndef PSHM_GUARD_H
#define PSHM_GUARD_H

#include "posix/base.h"

struct pshm_guard;

/* Guard [base, base + length), which is a whole mapping that pshm_map made and
 * which stays mapped until the guard is left; prot: its protection. A thread
 * may have any number of guards, also of one mapping. If SIGBUS is blocked, it
 * is unblocked in the calling thread while the thread has a guard. Returns 0
 * with the guard in *guard; -EINVAL or -EFAULT: this kind of mapping cannot be
 * guarded (hugetlbfs, a device); -ENOMEM: no address space for a second
 * mapping; -EAGAIN: the pages are locked and RLIMIT_MEMLOCK does not allow as
 * many again; or -errno. */
int pshm_guard_enter(void *base, size_t length, int prot,
                     struct pshm_guard **guard);

/* The range of pages that were lost, in bytes from the start of the mapping.
 */
struct pshm_guard_lost {
    size_t start;
    size_t end;                         /* 0: no page was lost */
};

/* End the guard; any thread may call this, once: map the pages of the object
 * again, with the current protection of the mapping. *lost: from the first to
 * the last page that was lost since the guard began, in any guard of the
 * mapping. Returns 0; or -errno if the pages cannot be mapped again: then the
 * zeros stay. */
int pshm_guard_leave(struct pshm_guard *guard, int prot,
                     struct pshm_guard_lost *lost);

#endif
