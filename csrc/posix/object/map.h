/* Ranges of objects in the address space: mmap(2) and the calls on its pages.
 *
 * base is the address of a page, and length is in bytes; the kernel rounds it
 * up to whole pages.  The caller ensures that the range is mapped. */
#ifndef PSHM_MAP_H
#define PSHM_MAP_H

#include "posix/base.h"

/* Bytes in a page. */
size_t pshm_page_size(void);

/* MAP_SHARED.  offset: a multiple of the page size.  length: > 0.
 * Returns 0 and the address in *base, or -errno (-ENOMEM: the address
 * space, RLIMIT_AS or the number of mappings is exhausted; -EACCES: fd was
 * opened for less). */
int pshm_map(int fd, off_t offset, size_t length, int prot, void **base);

/* Map a range that the object has, for an access past its end would be a bus
 * error.  *length: bytes, or < 0 for up to the end, and then it is set.
 * device: also accept a descriptor that is not a regular file; it does not
 * have a size to check, so length must be given. Returns as pshm_map; -ERANGE:
 * past the end, or not in whole huge pages; or -EINVAL: not a regular file.
 * *seen describes the object. */
struct pshm_map_seen {
    struct pshm_identity id;
    off_t size;                         /* of the object; -1: not regular */
    mode_t mode;
    long huge_page;                     /* bytes, on a hugetlbfs; or 0 */
};

int pshm_map_range(int fd, off_t offset, off_t *length, int prot, bool device,
                   void **base, struct pshm_map_seen *seen);

/* Unmap a whole mapping of pshm_map; base may be NULL.  It fails only if the
 * process has reached its limit of mappings, and the kernel has joined the
 * range with its neighbours; then the addresses remain in use. */
void pshm_unmap(void *base, size_t length);

int pshm_map_protect(void *base, size_t length, int prot);
int pshm_map_advise(void *base, size_t length, int advice);
int pshm_map_sync(void *base, size_t length, int flags);
/* Keep the pages in memory, or with lock 0 no longer. */
int pshm_map_lock(void *base, size_t length, int lock);
/* Bytes that a process without CAP_IPC_LOCK may lock, RLIMIT_MEMLOCK, or
 * UINT64_MAX. */
uint64_t pshm_map_lock_limit(void);

/* Whether the advice leaves every byte of the range in place and readable. */
bool pshm_advice_is_safe(int advice);

/* Count the bytes of the range that are in memory, by whole pages: mincore(2).
 * Returns 0 or -errno. */
int pshm_map_resident(void *base, size_t length, size_t *bytes);

#endif
