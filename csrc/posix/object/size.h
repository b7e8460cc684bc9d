/* The size of an object and the memory behind it.
 *
 * Memory is reserved with fallocate(2), so that no later store can fail for
 * want of it (that would be a SIGBUS).  glibc's posix_fallocate(3) is not used:
 * where a file system cannot reserve, it writes into the object instead.
 *
 * A call that is long says -EINTR from time to time, signal or not, and is then
 * resumed: the caller keeps a struct pshm_progress, zeroed at first, and calls
 * again with it. */
#ifndef PSHM_SIZE_H
#define PSHM_SIZE_H

#include "posix/base.h"

struct pshm_progress {
    bool room_known;                    /* pshm_size_room was asked */
    off_t done;                         /* bytes behind us */
    off_t piece;                        /* bytes in one go; shrinks if signals
                                           come faster than a piece */
    int interrupted;                    /* how often */
};

/* The largest file that this process may make, RLIMIT_FSIZE in bytes;
 * UINT64_MAX: no limit, or it is not known.  Returns 0 or -errno. */
int pshm_size_limit(uint64_t *out);

/* May this process make a file of size bytes?  0, -EFBIG or -errno.  Above
 * RLIMIT_FSIZE the kernel would send SIGXFSZ, which kills by default. */
int pshm_size_check(off_t size);

/* Can bytes more be reserved where fd lives?  0; -ENOSPC: not on that mount;
 * -ENOMEM: not on this machine, where the kernel would end processes to get
 * them.  Asked before many pieces are taken, so as not to starve everyone only
 * to find no room for the last piece.  0 too where that is not known. */
int pshm_size_room(int fd, off_t bytes);

/* Bytes of memory and swap that can be had without ending a process, as the
 * kernel estimates it (/proc/meminfo, proc(5)); or all there is. */
uint64_t pshm_memory_available(void);

/* Give a fresh object, that nobody else can reach, its size and, if reserve,
 * the memory for it.  A file system that cannot reserve gets the size only.
 * Returns 0, -ENOSPC, -EFBIG, -EINTR (call again) or -errno. */
int pshm_size_set(int fd, off_t size, bool reserve,
                  struct pshm_progress *progress);

/* How many bytes of memory size bytes of an object need at least that it does
 * not have yet; exact if size is all of it.  0 on a file system other than
 * tmpfs, where a hole that is read takes no room.  Or -errno. */
off_t pshm_size_missing(int fd, off_t size);

/* Take the memory of the first size bytes of an object that others may be using
 * too; never changes its size to less.  progress->room_known must be set.
 * Returns as pshm_size_set, or -EOPNOTSUPP. */
int pshm_size_reserve(int fd, off_t size, struct pshm_progress *progress);

/* Grow an object, that others may be using and growing too, from a size of
 * from to at least to bytes.  It never makes the object smaller, whoever else
 * grows it meanwhile.  Without reserve only the last page gets memory.
 * In one system call, so that the kernel undoes just what it did where there
 * is not room for all of it.  Newer kernels look at no signal meanwhile but a
 * deadly one.
 * Returns as pshm_size_set; unless it is 0 the object is as before. */
int pshm_size_grow(int fd, off_t from, off_t to, bool reserve,
                   struct pshm_progress *progress);

/* ftruncate(2) to a smaller size; goes on after -EINTR.  Returns 0 or -errno. */
int pshm_size_shrink(int fd, off_t to);

/* How much room there is where fd, or if fd is -1 PSHM_DIR, lives.  Numbers of
 * 0 in total mean: no limit. */
struct pshm_room {
    uint64_t total_bytes, free_bytes;
    uint64_t total_inodes, free_inodes;
};

int pshm_room_of(int fd, struct pshm_room *out);

#endif
