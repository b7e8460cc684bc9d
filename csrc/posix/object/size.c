#include "posix/object/size.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "posix/object/fd.h"

/* Bytes that are reserved between two checks for signals. */
#define PIECE ((off_t)16 << 20)

/* Bytes for which the room is checked before any of it is taken. */
#define LARGE ((off_t)64 << 20)

_Static_assert(RLIM_INFINITY == UINT64_MAX,
               "RLIM_INFINITY is the largest number");

int
pshm_size_limit(uint64_t *out)
{
    struct rlimit limit;
    int rc = pshm_result(getrlimit(RLIMIT_FSIZE, &limit));
    *out = rc < 0 ? UINT64_MAX : limit.rlim_cur;
    return rc;
}

int
pshm_size_check(off_t size)
{
    uint64_t limit;
    int rc = pshm_size_limit(&limit);
    return rc == 0 && (uint64_t)size > limit ? -EFBIG : rc;
}

int
pshm_room_of(int fd, struct pshm_room *out)
{
    struct statvfs vfs;
    int rc = pshm_result(fd < 0 ? statvfs(PSHM_DIR, &vfs)
                                : fstatvfs(fd, &vfs));
    if (rc == 0) {
        *out = (struct pshm_room){
            .total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize,
            .free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize,
            .total_inodes = vfs.f_files,
            .free_inodes = vfs.f_favail,
        };
    }
    return rc;
}

uint64_t
pshm_memory_available(void)
{
    char text[2048];
    unsigned long long available = 0, swap = 0;
    /* Any amount, if sysinfo(2) fails. */
    struct sysinfo all = {.totalram = ULONG_MAX, .mem_unit = 1};
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    pshm_fd_close(fd);
    text[n < 0 ? 0 : n] = '\0';
    /* NOLINTBEGIN(bugprone-unchecked-string-to-number-conversion): the
     * kernel's numbers fit. */
    const char *line = strstr(text, "MemAvailable:"),
               *swap_line = strstr(text, "SwapFree:");
    if (line != NULL && swap_line != NULL) {
        (void)sscanf(line, "MemAvailable: %llu", &available);
        (void)sscanf(swap_line, "SwapFree: %llu", &swap);
        /* NOLINTEND(bugprone-unchecked-string-to-number-conversion) */
        return (uint64_t)(available + swap) * 1024;
    }
    (void)sysinfo(&all);
    return ((uint64_t)all.totalram + all.totalswap) * all.mem_unit;
}

int
pshm_size_room(int fd, off_t bytes)
{
    struct pshm_room room;
    if (pshm_room_of(fd, &room) == 0 && room.total_bytes > 0
        && (uint64_t)bytes > room.free_bytes) {
        return -ENOSPC;
    }
    return bytes > LARGE && (uint64_t)bytes > pshm_memory_available()
               ? -ENOMEM : 0;
}

/* If a small one fails midway, not much memory was taken in vain. */
static int
check_room(int fd, off_t bytes)
{
    return bytes > LARGE ? pshm_size_room(fd, bytes) : 0;
}

off_t
pshm_size_missing(int fd, off_t size)
{
    struct stat st;
    struct statfs fs = {0};
    int rc = pshm_result(fstat(fd, &st));
    if (rc == 0) {
        rc = pshm_result(fstatfs(fd, &fs));
    }
    if (rc < 0) {
        return rc;
    }
    if (fs.f_type != TMPFS_MAGIC) {
        return 0;
    }
    off_t taken = (off_t)st.st_blocks * 512;
    return taken < size ? size - taken : 0;
}

/* In pieces, to answer signals. */
int
pshm_size_reserve(int fd, off_t size, const struct pshm_interrupt *interrupt)
{
    off_t done = 0, piece = size < PIECE ? size : PIECE;
    for (;;) {
        int rc = pshm_result(fallocate(fd, 0, done, piece));
        if (rc < 0 && rc != -EINTR) {
            return rc;
        }
        done += rc == 0 ? piece : 0;
        if (done >= size) {
            return 0;
        }
        rc = pshm_interrupt_check(interrupt);
        if (rc < 0) {
            return rc;
        }
        piece = size - done < PIECE ? size - done : PIECE;
    }
}

static int
set_plainly(int fd, off_t size, const struct pshm_interrupt *interrupt)
{
    int rc;
    do {
        rc = pshm_result(ftruncate(fd, size));
    } while (rc == -EINTR && pshm_interrupt_check(interrupt) == 0);
    return rc;
}

int
pshm_size_set(int fd, off_t size, bool reserve,
              const struct pshm_interrupt *interrupt)
{
    int rc = pshm_size_check(size);
    if (rc == 0 && reserve) {
        rc = check_room(fd, size);
        if (rc == 0) {
            rc = pshm_size_reserve(fd, size, interrupt);
        }
        if (rc != -EOPNOTSUPP) {
            return rc;
        }
        rc = 0;
    }
    return rc < 0 ? rc : set_plainly(fd, size, interrupt);
}

/* Without fallocate.  If another process grows the object further between the
 * two calls, that growth is lost. */
static int
grow_plainly(int fd, off_t to, const struct pshm_interrupt *interrupt)
{
    struct stat st;
    /* A bad descriptor gives EBADF, which does not lead to here. */
    /* NOLINTNEXTLINE(clang-analyzer-unix.StdCLibraryFunctions) */
    int rc = pshm_result(fstat(fd, &st));
    return rc == 0 && st.st_size < to ? set_plainly(fd, to, interrupt) : rc;
}

/* Not in pieces: each would set the size along with the memory, and another
 * process that grows the object could not tell the memory of the
 * two apart.
 * Unlike ftruncate, fallocate past the end cannot make an object smaller. */
int
pshm_size_grow(int fd, off_t from, off_t to,
               const struct pshm_interrupt *interrupt)
{
    int rc = pshm_size_check(to);
    if (rc == 0) {
        rc = check_room(fd, to - from);
    }
    if (rc < 0) {
        return rc;
    }
    do {
        rc = pshm_result(fallocate(fd, 0, from, to - from));
    } while (rc == -EINTR && pshm_interrupt_check(interrupt) == 0);
    return rc == -EOPNOTSUPP ? grow_plainly(fd, to, interrupt) : rc;
}

int
pshm_size_shrink(int fd, off_t to)
{
    int rc;
    do {
        rc = pshm_result(ftruncate(fd, to));
    } while (rc == -EINTR);
    return rc;
}
