/* Ranges of objects in the address space: mmap(2) and its kin.
 *
 * base is a page's address and length is in bytes; the kernel rounds length up
 * to whole pages.  Who calls makes sure that the range is mapped. */
#ifndef PSHM_MAP_H
#define PSHM_MAP_H

#include "posix/base.h"

/* Bytes in a page. */
size_t pshm_page_size(void);

/* MAP_SHARED.  offset: a multiple of the page size.  length: > 0.
 * Returns 0 and the address in *base, or -errno (-ENOMEM: no address space,
 * RLIMIT_AS, or too many mappings; -EACCES: not as fd was opened). */
int pshm_map(int fd, off_t offset, size_t length, int prot, void **base);

/* As pshm_map, of a range that the object has: an access past its end would be
 * a bus error.  *length: bytes, or < 0 for up to the end, which is then put
 * there.  device: accept what is not a regular file; it has no size to look
 * at, so length must be given.  To be called inside the gate (gate.h).
 * Returns also -ERANGE: past the end, or not in whole huge pages; or -EINVAL:
 * not a regular file.  *seen then says why. */
struct pshm_map_seen {
    off_t size;                         /* of the object, or -1: it has none */
    mode_t mode;
    long huge_page;                     /* bytes, on a hugetlbfs, or 0 */
};

int pshm_map_range(int fd, off_t offset, off_t *length, int prot, bool device,
                   void **base, struct pshm_map_seen *seen);

/* A whole mapping that pshm_map made, or its end.  Can fail only where the
 * process has as many mappings as it may have and this one has become the middle
 * of another; then its addresses stay in use, and nothing dangles. */
void pshm_unmap(void *base, size_t length);

int pshm_map_protect(void *base, size_t length, int prot);
int pshm_map_advise(void *base, size_t length, int advice);
int pshm_map_sync(void *base, size_t length, int flags);
int pshm_map_lock(void *base, size_t length);
/* Bytes that a process without CAP_IPC_LOCK may have locked, RLIMIT_MEMLOCK;
 * UINT64_MAX: no limit. */
uint64_t pshm_map_lock_limit(void);

int pshm_map_unlock(void *base, size_t length);

/* Would this advice make an access to the range crash, or lose its bytes? */
bool pshm_advice_is_safe(int advice);

/* Bring every page in and map it, for writing if write.  Where the kernel
 * cannot (before Linux 5.14) the pages are touched, through the kernel, so
 * that a missing one is an error and not a signal.
 * In pieces: *done is 0 at first; -EINTR, with a signal or without, means to
 * look at signals and call again.
 * Returns 0, -EINTR, -EFAULT (a page past the object's end, or no room for
 * it), -ENOMEM, or -errno. */
int pshm_map_populate(void *base, size_t length, bool write, size_t *done);

/* How many bytes of the range are in memory: mincore(2), whole pages.
 * Returns 0 or -errno. */
int pshm_map_resident(void *base, size_t length, size_t *bytes);

#endif
