/* The cost of the calls without Python: the C peers of bench_calls.py.
 *
 * Built with cc when the benchmark starts.  Every peer runs its cycle n times
 * and returns the nanoseconds of the whole loop, or -errno of the first call
 * that failed, so that the figure does not include the interpreter.  Paths are
 * built once, outside the loop.
 *
 * The *_same peers make the system calls that posixshm makes, in its order and
 * with its arguments: "bench_calls.py --calls" runs both under strace and
 * compares.  Change them together. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SHM_DIR "/dev/shm"
#define OBJECT_MODE 0600

int64_t peer_create_same(const char *name, size_t size, int64_t n);
int64_t peer_create_plain(const char *name, size_t size, int64_t n);
int64_t peer_attach_same(const char *name, size_t size, int64_t n);
int64_t peer_attach_plain(const char *name, size_t size, int64_t n);
int64_t peer_make_and_touch(const char *name, size_t size, int reserve);
void peer_touch(volatile unsigned char *base, size_t size);

static int64_t
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* -- create, close, unlink ------------------------------------------------ */

/* Create an unlinked object, set its size, take the use lock, and link it.
 * Before closing the descriptor, check that it refers to the object.  Unlink the
 * name under the name lock, and only if it still refers to the object. */
static int
create_same(const char *path, size_t size)
{
    struct stat made, found;
    struct rlimit limit;
    int rc;
    void *base = MAP_FAILED;

    int fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, OBJECT_MODE);
    if (fd < 0) {
        return -errno;
    }
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 || fstat(fd, &made) < 0
        || getrlimit(RLIMIT_FSIZE, &limit) < 0
        || fallocate(fd, 0, 0, (off_t)size) < 0) {
        goto error;
    }
    base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED
        || linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH) < 0
        || fstat(fd, &found) < 0) {
        goto error;
    }
    close(fd);
    munmap(base, size);
    int turn = open(SHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (turn < 0 || flock(turn, LOCK_EX | LOCK_NB) < 0) {
        return -errno;
    }
    if (lstat(path, &found) < 0 || unlink(path) < 0
        || flock(turn, LOCK_UN) < 0) {
        return -errno;
    }
    close(turn);
    return 0;

error:
    rc = -errno;
    close(fd);
    if (base != MAP_FAILED) {
        munmap(base, size);
    }
    return rc;
}

int64_t
peer_create_same(const char *name, size_t size, int64_t n)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, SHM_DIR "/%s", name);

    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = create_same(path, size);
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

/* The way of a textbook, without reservation and lock.  The name exists before
 * the size is set. */
static int
create_plain(const char *name, size_t size)
{
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, OBJECT_MODE);
    if (fd < 0) {
        return -errno;
    }
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0) {
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    int rc = base == MAP_FAILED ? -errno : 0;
    if (base != MAP_FAILED) {
        munmap(base, size);
    }
    close(fd);
    if (shm_unlink(name) < 0 && rc == 0) {
        rc = -errno;
    }
    return rc;
}

int64_t
peer_create_plain(const char *name, size_t size, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = create_plain(name, size);
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

/* -- attach, close -------------------------------------------------------- */

static int
attach_same(const char *name, size_t size)
{
    struct stat opened;
    void *base = MAP_FAILED;

    int fd = shm_open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    /* Does the last user remove the name? */
    struct flock mark = {.l_type = F_RDLCK, .l_start = (off_t)1 << 62};
    if (fcntl(fd, F_OFD_GETLK, &mark) == 0
        && flock(fd, LOCK_SH | LOCK_NB) == 0 && fstat(fd, &opened) == 0) {
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    int rc = base == MAP_FAILED || fstat(fd, &opened) < 0 ? -errno : 0;
    close(fd);
    if (base != MAP_FAILED) {
        munmap(base, size);
    }
    return rc;
}

int64_t
peer_attach_same(const char *name, size_t size, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = attach_same(name, size);
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

static int
attach_plain(const char *name)
{
    struct stat opened;
    void *base = MAP_FAILED;

    int fd = shm_open(name, O_RDWR, 0);
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &opened) == 0) {
        base = mmap(NULL, (size_t)opened.st_size, PROT_READ | PROT_WRITE,
                    MAP_SHARED, fd, 0);
    }
    int rc = base == MAP_FAILED ? -errno : 0;
    if (base != MAP_FAILED) {
        munmap(base, (size_t)opened.st_size);
    }
    close(fd);
    return rc;
}

/* size is not used: the plain way reads it from the object. */
int64_t
peer_attach_plain(const char *name, size_t size, int64_t n)
{
    (void)size;
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = attach_plain(name);
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

/* -- a large object ------------------------------------------------------- */

/* Write one byte to each page of [base, base + size). */
void
peer_touch(volatile unsigned char *base, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < size; i += page) {
        base[i] = 1;
    }
}

/* Create an object and touch every page.  reserve: 0 ftruncate, 1 fallocate.
 * Returns the nanoseconds without the removal. */
int64_t
peer_make_and_touch(const char *name, size_t size, int reserve)
{
    int64_t start = now();
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, OBJECT_MODE);
    if (fd < 0) {
        return -errno;
    }
    int64_t took;
    void *base = MAP_FAILED;
    int sized = reserve ? fallocate(fd, 0, 0, (off_t)size)
                        : ftruncate(fd, (off_t)size);
    if (sized == 0) {
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (base == MAP_FAILED) {
        took = -errno;
    }
    else {
        peer_touch(base, size);
        took = now() - start;
        munmap(base, size);
    }
    close(fd);
    shm_unlink(name);
    return took;
}
