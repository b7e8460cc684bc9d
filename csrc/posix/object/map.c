#include "posix/object/map.h"

#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "posix/constants.h"

size_t
pshm_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

int
pshm_map(int fd, off_t offset, size_t length, int prot, void **base)
{
    void *address = mmap(NULL, length, prot, MAP_SHARED, fd, offset);
    if (address == MAP_FAILED) {
        return -errno;
    }
    *base = address;
    return 0;
}

/* The size of the pages of a hugetlbfs, or 0.  The size of a block does not
 * tell: other file systems have blocks larger than a page, too. */
static long
huge_page_of(int fd, const struct stat *st)
{
    struct statfs fs;
    if ((size_t)st->st_blksize <= pshm_page_size() || fstatfs(fd, &fs) < 0
        || fs.f_type != HUGETLBFS_MAGIC) {
        return 0;
    }
    return (long)fs.f_bsize;
}

int
pshm_map_range(int fd, off_t offset, off_t *length, int prot, bool device,
               void **base, struct pshm_map_seen *seen)
{
    struct stat st;
    *seen = (struct pshm_map_seen){.size = -1};
    int rc = pshm_result(fstat(fd, &st));
    if (rc < 0) {
        return rc;
    }
    seen->id = (struct pshm_identity){st.st_dev, st.st_ino};
    seen->mode = st.st_mode;
    if (S_ISREG(st.st_mode)) {
        seen->size = st.st_size;
        if (offset >= st.st_size || *length > st.st_size - offset) {
            return -ERANGE;
        }
        if (*length < 0) {
            *length = st.st_size - offset;
        }
        /* munmap(2) accepts only whole huge pages. */
        seen->huge_page = huge_page_of(fd, &st);
        if (seen->huge_page > 0
            && (offset % seen->huge_page != 0
                || *length % seen->huge_page != 0)) {
            return -ERANGE;
        }
    }
    else if (!device) {
        return -EINVAL;
    }
    if (*length < 0) {
        return -ERANGE;
    }
    return pshm_map(fd, offset, (size_t)*length, prot, base);
}

void
pshm_unmap(void *base, size_t length)
{
    if (base != NULL) {
        (void)munmap(base, length);
    }
}

int
pshm_map_protect(void *base, size_t length, int prot)
{
    return pshm_result(mprotect(base, length, prot));
}

int
pshm_map_advise(void *base, size_t length, int advice)
{
    return pshm_result(madvise(base, length, advice));
}

int
pshm_map_sync(void *base, size_t length, int flags)
{
    return pshm_result(msync(base, length, flags));
}

int
pshm_map_lock(void *base, size_t length, int lock)
{
    if (length == 0) {
        return 0;
    }
    return pshm_result(lock ? mlock(base, length) : munlock(base, length));
}

_Static_assert(RLIM_INFINITY == UINT64_MAX,
               "RLIM_INFINITY is the largest number");

uint64_t
pshm_map_lock_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_MEMLOCK, &limit) < 0 ? UINT64_MAX : limit.rlim_cur;
}

bool
pshm_advice_is_safe(int advice)
{
    switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:                 /* shared pages keep their bytes */
    case MADV_DOFORK:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
    case MADV_COLLAPSE:
        return true;
    default:
        /* REMOVE frees reserved memory; with DONTFORK a child crashes, and with
         * GUARD_INSTALL and HWPOISON this process. */
        return false;
    }
}

int
pshm_map_resident(void *base, size_t length, size_t *bytes)
{
    enum { MOST = 4096 };
    unsigned char pages[MOST];
    size_t page = pshm_page_size();
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        size_t piece = length - at;
        if (piece > MOST * page) {
            piece = MOST * page;
        }
        int rc = pshm_result(mincore((char *)base + at, piece, pages));
        if (rc < 0) {
            return rc;
        }
        for (size_t i = 0; i < (piece + page - 1) / page; i++) {
            count += pages[i] & 1;
        }
        at += piece;
    }
    *bytes = count * page;
    return 0;
}
