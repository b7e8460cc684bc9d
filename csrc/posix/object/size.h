/* The size of an object, and its memory.
 *
 * Memory is reserved with fallocate(2), so that no later store can fail for
 * want of it, which would be a SIGBUS.  posix_fallocate(3) of glibc does not
 * serve: if a file system cannot reserve, it writes into the object instead. */
#ifndef PSHM_SIZE_H
#define PSHM_SIZE_H

#include "posix/base.h"
#include "posix/interrupt.h"

/* The largest file that this process may make, RLIMIT_FSIZE in bytes, or
 * UINT64_MAX if there is no limit or it is unknown.  Returns 0 or -errno. */
int pshm_size_limit(uint64_t *out);

/* Check a size against RLIMIT_FSIZE, above which the kernel would send SIGXFSZ
 * and end the process.  Returns 0, -EFBIG or -errno. */
int pshm_size_check(off_t size);

/* Check that the file system of fd, and the machine, have that many bytes free,
 * before a part of them is taken in vain.  Returns 0, also if that is unknown;
 * -ENOSPC: the mount is too full; or -ENOMEM: the machine is, and the kernel
 * would end processes. */
int pshm_size_room(int fd, off_t bytes);

/* Bytes of memory and swap that the kernel estimates it can provide without
 * ending a process (/proc/meminfo, proc(5)), or all of the machine's. */
uint64_t pshm_memory_available(void);

/* Set the size of a new object that only the caller can reach, and if reserve,
 * take its memory.  A file system that cannot reserve sets the size only.
 * Returns 0, -ENOSPC, -ENOMEM, -EFBIG, -EINTR or -errno; unless it is 0, the
 * caller discards the object. */
int pshm_size_set(int fd, off_t size, bool reserve,
                  const struct pshm_interrupt *interrupt);

/* The least number of bytes that the first size bytes of an object still need;
 * exact if size is that of the object.  Returns 0 on a file system other than
 * tmpfs, in which to read a hole takes no memory; or -errno. */
off_t pshm_size_missing(int fd, off_t size);

/* Take the memory of the first size bytes of an object that other processes may
 * use.  Does not shrink it, and does not check the room.  If it fails, a part
 * of the memory remains taken.  Returns as pshm_size_set, or -EOPNOTSUPP. */
int pshm_size_reserve(int fd, off_t size,
                      const struct pshm_interrupt *interrupt);

/* Grow an object, which other processes may use and grow as well, from `from`
 * to at least `to` bytes, and reserve them.  A single system call does it, so
 * that the kernel undoes exactly that much if there is not enough room; newer
 * kernels answer only a deadly signal in its course.
 * Returns as pshm_size_set; unless it is 0, the object is unchanged. */
int pshm_size_grow(int fd, off_t from, off_t to,
                   const struct pshm_interrupt *interrupt);

/* Make an object smaller: ftruncate(2).  Returns 0 or -errno. */
int pshm_size_shrink(int fd, off_t to);

/* The room on the file system of fd, or of PSHM_DIR if fd is -1.  A total of 0
 * means that there is no limit.  Returns 0 or -errno. */
struct pshm_room {
    uint64_t total_bytes, free_bytes;
    uint64_t total_inodes, free_inodes;
};

int pshm_room_of(int fd, struct pshm_room *out);

#endif
