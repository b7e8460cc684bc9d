#include "posix/object/attach.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "posix/object/fd.h"
#include "posix/object/use_lock.h"
#include "posix/object/mark.h"
#include "posix/clock.h"

/* The number of attempts if the object loses its name each time. */
#define MOST_TRIES 100

/* A reclaimer holds a write lease for microseconds, or longer if the scheduler
 * suspends it. Seconds. */
#define LONGEST_LEASE 1.0
#define LEASE_PAUSE 200e-6

static int
check_kind(mode_t mode)
{
    if (S_ISREG(mode)) {
        return 0;
    }
    return S_ISDIR(mode) ? -EISDIR : -EINVAL;
}

int
pshm_attach_inspect(int fd, struct pshm_object *out)
{
    struct stat st;
    out->fd = fd;
    out->mode = 0;
    int rc = pshm_result(fstat(fd, &st));
    if (rc < 0) {
        return rc;
    }
    out->id = (struct pshm_identity){st.st_dev, st.st_ino};
    out->size = st.st_size;
    out->mode = st.st_mode;
    out->uid = st.st_uid;
    out->links = st.st_nlink;
    rc = check_kind(st.st_mode);
    return rc == 0 && st.st_size == 0 ? -ENODATA : rc;
}

int
pshm_exists(const struct pshm_name *name)
{
    struct stat st;
    int rc = pshm_result(lstat(name->path, &st));
    return rc == 0 ? S_ISREG(st.st_mode) : rc == -ENOENT ? 0 : rc;
}

/* open(2) fails with ENXIO for a socket and for some devices. */
int
pshm_attach_refusal(const struct pshm_name *name, int rc, mode_t *mode)
{
    struct stat st;
    if (rc != -ENOENT && rc != -ELOOP && lstat(name->path, &st) == 0
        && !S_ISREG(st.st_mode)) {
        *mode = st.st_mode;
        return check_kind(st.st_mode);
    }
    return rc;
}

/* O_NONBLOCK: opening a FIFO of that name must not block. */
int
pshm_attach_open(const struct pshm_name *name, int flags, mode_t mode)
{
    double deadline = 0;
    for (;;) {
        int fd = pshm_result(
            shm_open(pshm_name_posix(name), flags | O_NONBLOCK, mode));
        if (fd != -EAGAIN) {
            return pshm_fd_above_stdio(fd);
        }
        double now = pshm_clock();
        deadline = deadline == 0 ? now + LONGEST_LEASE : deadline;
        int rc = now < deadline ? pshm_sleep(LEASE_PAUSE) : -EAGAIN;
        if (rc < 0) {
            return rc;
        }
    }
}

int
pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode,
              mode_t *kind)
{
    struct pshm_object object;
    *kind = 0;
    int fd = pshm_attach_open(name, flags, mode);
    if (fd < 0) {
        /* With O_EXCL any file that has the name is an error. */
        return fd == -EINTR || fd == -EEXIST
                   ? fd
                   : pshm_attach_refusal(name, fd, kind);
    }
    int rc = pshm_attach_inspect(fd, &object);
    if (rc < 0 && rc != -ENODATA) {
        *kind = object.mode;
        pshm_fd_close(fd);
        return rc;
    }
    return fd;
}

struct pshm_owners
pshm_owners_self(void)
{
    struct pshm_owners owners = {.count = 1, .uids = {geteuid()}};
    (void)pshm_owners_add(&owners, 0);
    return owners;
}

int
pshm_owners_add(struct pshm_owners *owners, uid_t uid)
{
    if (pshm_owners_accept(owners, uid)) {
        return 0;
    }
    if (owners->count == PSHM_OWNERS_MAX) {
        return -E2BIG;
    }
    owners->uids[owners->count++] = uid;
    return 0;
}

bool
pshm_owners_accept(const struct pshm_owners *owners, uid_t uid)
{
    bool accepted = owners->count < 0;
    for (int i = 0; i < owners->count; i++) {
        accepted = accepted || owners->uids[i] == uid;
    }
    return accepted;
}

/* Returns 0, -EACCES, -ENODATA or -EDOM. */
static int
check_accepted(const struct pshm_accepted *accepted,
               const struct pshm_object *object)
{
    if (!pshm_owners_accept(&accepted->owners, object->uid)
        || (object->mode & 07777 & ~accepted->mode) != 0) {
        return -EACCES;
    }
    if (object->size == 0) {
        return -ENODATA;
    }
    return object->size < accepted->size ? -EDOM : 0;
}

/* The order matters. The mark comes before the use lock: last.c. The count of
 * names comes after it: a reclaimer that removes a name later finds the lock.
 * If a process moved the object to another name meanwhile, this call precedes
 * that. Returns 0, -ESTALE (the object has lost its name) or an error of
 * pshm_attach. */
static int
use_object(int fd, const struct pshm_accepted *accepted,
           struct pshm_object *out)
{
    out->last = pshm_mark_inherit(fd);
    int rc = pshm_use_lock_wait(fd);
    out->locked = rc == 0;
    if (rc < 0 && rc != -EAGAIN) {
        return rc;
    }
    rc = pshm_attach_inspect(fd, out);
    if (rc < 0 && rc != -ENODATA) {
        return rc;
    }
    return out->links == 0 ? -ESTALE : check_accepted(accepted, out);
}

int
pshm_attach(const struct pshm_name *name, bool readonly,
            const struct pshm_accepted *accepted, struct pshm_object *out)
{
    int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        out->fd = -1;
        out->mode = 0;
        int fd = pshm_attach_open(name, flags, 0);
        if (fd < 0) {
            return fd == -EINTR ? fd
                                : pshm_attach_refusal(name, fd, &out->mode);
        }
        int rc = use_object(fd, accepted, out);
        if (rc == 0) {
            return 0;
        }
        pshm_fd_close(fd);
        out->fd = -1;
        if (rc != -ESTALE) {
            return rc;
        }
    }
    return -EAGAIN;
}

static struct pshm_status
status_of(const struct stat *st)
{
    return (struct pshm_status){
        .id = {st->st_dev, st->st_ino},
        .size = st->st_size,
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .links = st->st_nlink,
    };
}

int
pshm_status_of(int fd, struct pshm_status *out)
{
    struct stat st;
    int rc = pshm_result(fstat(fd, &st));
    if (rc == 0) {
        *out = status_of(&st);
    }
    return rc;
}

int
pshm_status_of_name(const struct pshm_name *name, struct pshm_status *out)
{
    struct stat st;
    int rc = pshm_result(lstat(name->path, &st));
    if (rc == 0) {
        *out = status_of(&st);
    }
    return rc;
}

int
pshm_set_mode(int fd, mode_t mode)
{
    return pshm_result(fchmod(fd, mode));
}

int
pshm_set_owner(int fd, uid_t uid, gid_t gid)
{
    return pshm_result(fchown(fd, uid, gid));
}
