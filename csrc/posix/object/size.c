#include "posix/object/size.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "posix/object/fd.h"

#define PIECE_MOST ((off_t)64 << 20)
#define PIECE_LEAST ((off_t)256 << 10)
#define INTERRUPTIONS_MOST 8

_Static_assert(RLIM_INFINITY == UINT64_MAX, "no limit is the largest one");

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
    /* If the kernel refuses to say: any. */
    struct sysinfo all = {.totalram = ULONG_MAX, .mem_unit = 1};
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    pshm_fd_close(fd);
    text[n < 0 ? 0 : n] = '\0';
    /* NOLINTBEGIN(bugprone-unchecked-string-to-number-conversion): what the
     * kernel counts fits. */
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
    return bytes > PIECE_MOST && (uint64_t)bytes > pshm_memory_available()
               ? -ENOMEM : 0;
}

static int
know_room(int fd, off_t bytes, struct pshm_progress *progress)
{
    /* What one piece takes is discarded with the object. */
    int rc = progress->room_known || bytes <= PIECE_MOST
                 ? 0 : pshm_size_room(fd, bytes);
    progress->room_known = true;
    return rc;
}

/* fallocate in pieces, with a look at signals after each.  Where a signal makes
 * the kernel undo the piece it is in, pieces get smaller until one fits between
 * two signals. */
static int
reserve_pieces(int fd, off_t size, struct pshm_progress *progress)
{
    if (progress->piece == 0) {
        progress->piece = PIECE_MOST;
    }
    off_t length = size - progress->done;
    if (length > progress->piece) {
        length = progress->piece;
    }
    int rc = pshm_result(fallocate(fd, 0, progress->done, length));
    if (rc == -EINTR && progress->piece > PIECE_LEAST) {
        progress->piece /= 2;
    }
    if (rc < 0) {
        return rc;
    }
    progress->done += length;
    return progress->done < size ? -EINTR : 0;
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

int
pshm_size_reserve(int fd, off_t size, struct pshm_progress *progress)
{
    return reserve_pieces(fd, size, progress);
}

int
pshm_size_set(int fd, off_t size, bool reserve,
              struct pshm_progress *progress)
{
    int rc = pshm_size_check(size);
    if (rc == 0 && reserve) {
        rc = know_room(fd, size, progress);
        if (rc == 0) {
            rc = reserve_pieces(fd, size, progress);
        }
        if (rc != -EOPNOTSUPP) {
            return rc;
        }
        rc = 0;
    }
    return rc < 0 ? rc : pshm_result(ftruncate(fd, size));
}

/* Not in pieces: each would have to set the size along with the memory, or
 * another who grows the object at the same time could not tell its memory from
 * ours; and then it would stay grown part of the way.  Where signals keep
 * coming, they have to wait for this once. */
static int
grow_reserved(int fd, off_t from, off_t to, struct pshm_progress *progress)
{
    sigset_t all, old;
    bool block = progress->interrupted >= INTERRUPTIONS_MOST;
    if (block) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    }
    int rc = pshm_result(fallocate(fd, 0, from, to - from));
    if (block) {
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    progress->interrupted += rc == -EINTR;
    return rc;
}

/* Where there is no fallocate.  Another who grows the object further in this
 * very moment would lose that again. */
static int
grow_plainly(int fd, off_t to)
{
    struct stat st;
    /* What a bad descriptor gives is EBADF, which does not lead to here. */
    /* NOLINTNEXTLINE(clang-analyzer-unix.StdCLibraryFunctions) */
    int rc = pshm_result(fstat(fd, &st));
    return rc == 0 && st.st_size < to ? pshm_result(ftruncate(fd, to)) : rc;
}

int
pshm_size_grow(int fd, off_t from, off_t to, bool reserve,
               struct pshm_progress *progress)
{
    int rc = pshm_size_check(to);
    if (rc == 0 && reserve) {
        rc = know_room(fd, to - from, progress);
    }
    /* Unlike ftruncate, a fallocate past the end can only make it longer. */
    if (rc == 0) {
        rc = reserve ? grow_reserved(fd, from, to, progress)
                     : pshm_result(fallocate(fd, 0, to - 1, 1));
    }
    return rc == -EOPNOTSUPP ? grow_plainly(fd, to) : rc;
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
