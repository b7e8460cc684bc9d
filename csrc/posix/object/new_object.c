#include "posix/object/new_object.h"

#include <unistd.h>

#include "posix/constants.h"
#include "posix/object/acl.h"
#include "posix/object/fd.h"
#include "posix/object/link.h"
#include "posix/object/map.h"
#include "posix/object/name_lock.h"
#include "posix/object/populate.h"
#include "posix/object/size.h"
#include "posix/object/unused.h"
#include "posix/object/use_lock.h"

static int
open_tmpfile(mode_t mode)
{
    return pshm_fd_above_stdio(
        pshm_result(open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, mode)));
}

/* The file system cannot make files without a name, or a security module
 * refuses them: a confined program may make files with its own prefix only. */
static bool
lacks_tmpfile(int rc)
{
    return rc == -EOPNOTSUPP || rc == -EISDIR || rc == -ENOENT
           || rc == -EACCES || rc == -EPERM;
}

static int
open_temporary(const struct pshm_name *name, struct pshm_new_object *new)
{
    int rc = pshm_name_beside(name, &new->temporary);
    if (rc == 0) {
        rc = pshm_fd_above_stdio(pshm_result(open(
            new->temporary.path,
            O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW,
            S_IRUSR | S_IWUSR)));
        new->has_temporary = rc >= 0;
    }
    return rc;
}

static int
open_named(const struct pshm_new_object_params *params,
           struct pshm_new_object *new)
{
    if (!params->temporary) {
        int fd = open_tmpfile(params->mode);
        if (!lacks_tmpfile(fd)) {
            return fd;
        }
    }
    return open_temporary(params->name, new);
}

static int
open_memfd(const char *label)
{
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = pshm_result(memfd_create(label, flags | MFD_NOEXEC_SEAL));
    if (fd == -EINVAL) {
        fd = pshm_result(memfd_create(label, flags));
    }
    return pshm_fd_above_stdio(fd);
}

static int
open_object(const struct pshm_new_object_params *params,
            struct pshm_new_object *new)
{
    new->fd = params->kind == PSHM_MEMFD     ? open_memfd(params->label)
              : params->kind == PSHM_UNNAMED ? open_tmpfile(params->mode)
                                             : open_named(params, new);
    return new->fd < 0 ? new->fd : 0;
}

/* Take the use lock first: without it, a file with a temporary name looks
 * unused. A memfd needs none, because no process can reclaim it. Returns
 * -EINTR, to start again, if the file was reclaimed before that. */
static int
lock_object(const struct pshm_new_object_params *params,
            struct pshm_new_object *new)
{
    int rc = params->kind == PSHM_MEMFD ? 0 : pshm_use_lock_take(new->fd);
    new->locked = rc == 0;
    if (rc == 0 && new->has_temporary) {
        struct stat st;
        rc = pshm_result(fstat(new->fd, &st));
        if (rc == 0) {
            rc = pshm_link_holds(&new->temporary, (struct pshm_identity){
                                                      st.st_dev, st.st_ino});
        }
        if (rc == 0 || rc == -ENOENT) {
            /* The name is another object's now, or free. */
            new->has_temporary = false;
            rc = -EINTR;
        }
    }
    return rc == -EAGAIN && new->has_temporary ? -EINTR : rc < 0 ? rc : 0;
}

/* List before mode: an object with a temporary name must not, even briefly,
 * have group bits that the list does not grant. */
static int
own_object(const struct pshm_new_object_params *params,
           struct pshm_new_object *new)
{
    struct stat st;
    int rc = pshm_result(fstat(new->fd, &st));
    if (rc < 0) {
        return rc;
    }
    new->id = (struct pshm_identity){st.st_dev, st.st_ino};
    if (params->kind == PSHM_MEMFD) {
        return 0;
    }
    if (params->uid != (uid_t)-1 || params->gid != (gid_t)-1) {
        rc = pshm_result(fchown(new->fd, params->uid, params->gid));
    }
    if (rc == 0 && params->acl != NULL) {
        rc = pshm_acl_set(new->fd, params->acl, params->acl_size,
                          params->mode);
        new->acl_refused = rc < 0 && rc != -EINTR;
    }
    if (rc == 0 && (st.st_mode & 07777) != params->mode) {
        rc = pshm_result(fchmod(new->fd, params->mode));
    }
    return rc;
}

/* Huge pages, and pages that are to be mapped, are taken by populating: the
 * memory of fallocate(2) is in small pages, and to map it takes a second pass.
 */
static bool
populates(const struct pshm_new_object_params *params)
{
    return params->populate || (params->huge_pages && params->reserve);
}

/* Populating would not report a lack of room until it had filled the mount. */
static int
size_object(const struct pshm_new_object_params *params,
            const struct pshm_interrupt *interrupt,
            struct pshm_new_object *new)
{
    bool later = populates(params);
    int rc = later ? pshm_size_room(new->fd, params->size) : 0;
    return rc < 0 ? rc
                  : pshm_size_set(new->fd, params->size,
                                  params->reserve && !later, interrupt);
}

static int
map_object(const struct pshm_new_object_params *params,
           struct pshm_new_object *new)
{
    new->length = (size_t)(params->max_size > params->size ? params->max_size
                                                            : params->size);
    int rc = pshm_map(new->fd, 0, new->length, PROT_READ | PROT_WRITE,
                      &new->base);
    if (rc == 0 && params->huge_pages) {
        rc = pshm_map_advise(new->base, new->length, MADV_HUGEPAGE);
        rc = rc == -EINVAL ? 0 : rc;    /* a kernel without huge pages */
    }
    return rc;
}

/* Reserve, unless each page has memory already. */
static int
reserve_rest(int fd, off_t size, const struct pshm_interrupt *interrupt)
{
    struct stat st;
    int rc = pshm_result(fstat(fd, &st));
    if (rc < 0 || (off_t)st.st_blocks * 512 >= size) {
        return rc;
    }
    rc = pshm_size_reserve(fd, size, interrupt);
    return rc == -EOPNOTSUPP ? 0 : rc;
}

/* If populating fails but the memory may be reserved otherwise, that is done,
 * and reports a lack of room properly. */
static int
populate_object(const struct pshm_new_object_params *params,
                const struct pshm_interrupt *interrupt,
                struct pshm_new_object *new)
{
    if (!populates(params)) {
        return 0;
    }
    int rc = pshm_populate(new->base, (size_t)params->size, true, interrupt);
    if (rc == -EFAULT && !params->reserve) {
        return -ENOSPC;
    }
    if (rc == -EFAULT || (rc == -EINVAL && !params->populate)) {
        rc = 0;
    }
    return rc == 0 && params->reserve
               ? reserve_rest(new->fd, params->size, interrupt) : rc;
}

/* Seal a memfd, so that processes that receive it cannot get a bus error.  Set
 * the mode again, because the kernel clears two bits of it when the owner
 * changes, and when an ordinary user changes the size. */
static int
finish_object(const struct pshm_new_object_params *params,
              struct pshm_new_object *new)
{
    if (params->kind == PSHM_MEMFD) {
        return pshm_seals_add(new->fd, F_SEAL_SHRINK);
    }
    return params->mode & (S_ISUID | S_ISGID)
               ? pshm_result(fchmod(new->fd, params->mode)) : 0;
}

static int
make_once(const struct pshm_new_object_params *params,
          const struct pshm_interrupt *interrupt, struct pshm_new_object *new)
{
    *new = PSHM_NEW_OBJECT_NONE;
    int rc = open_object(params, new);
    if (rc == 0) {
        rc = lock_object(params, new);
    }
    if (rc == 0) {
        rc = own_object(params, new);
    }
    if (rc == 0) {
        rc = size_object(params, interrupt, new);
    }
    if (rc == 0) {
        rc = map_object(params, new);
    }
    if (rc == 0) {
        rc = populate_object(params, interrupt, new);
    }
    if (rc == 0) {
        rc = finish_object(params, new);
    }
    if (rc < 0) {
        pshm_new_object_discard(new);
    }
    return rc;
}

int
pshm_new_object_make(const struct pshm_new_object_params *params,
                     const struct pshm_interrupt *interrupt,
                     struct pshm_new_object *new)
{
    int rc;
    do {
        rc = make_once(params, interrupt, new);
    } while (rc == -EINTR && pshm_interrupt_check(interrupt) == 0);
    return rc;
}

int
pshm_new_object_publish(struct pshm_new_object *new,
                        const struct pshm_name *name)
{
    struct pshm_name left;
    if (!new->has_temporary) {
        return pshm_link(new->fd, name, false, &left);
    }
    int rc = pshm_link_move(&new->temporary, name, false);
    new->has_temporary = rc < 0;
    return rc;
}

static int
replace_locked(struct pshm_new_object *new, const struct pshm_name *name)
{
    int rc;
    if (new->has_temporary) {
        rc = pshm_link_move(&new->temporary, name, true);
        new->has_temporary = rc < 0;
    }
    else {
        rc = pshm_link_replace_locked(new->fd, name, &new->temporary);
        new->has_temporary = rc < 0 && new->temporary.path[0] != '\0';
    }
    return rc;
}

int
pshm_new_object_replace(struct pshm_new_object *new,
                        const struct pshm_name *name, bool unused)
{
    struct pshm_unused old;
    int rc;
    if (!unused) {
        int name_lock = pshm_name_lock_acquire();
        rc = replace_locked(new, name);
        pshm_name_lock_release(name_lock);
        return rc;
    }
    rc = pshm_unused_hold(name, &old);
    if (rc < 0) {
        return rc == -ENOENT ? pshm_new_object_publish(new, name) : -EEXIST;
    }
    rc = replace_locked(new, name);
    pshm_unused_release(&old);
    return rc;
}

void
pshm_new_object_discard(struct pshm_new_object *new)
{
    if (new->has_temporary) {
        (void)unlink(new->temporary.path);
    }
    pshm_unmap(new->base, new->length);
    pshm_fd_close(new->fd);
    new->has_temporary = false;
    new->base = NULL;
    new->fd = -1;
}

int
pshm_seals_of(int fd)
{
    return pshm_result(fcntl(fd, F_GET_SEALS));
}

int
pshm_seals_add(int fd, int seals)
{
    return pshm_result(fcntl(fd, F_ADD_SEALS, seals));
}
