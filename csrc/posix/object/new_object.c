#include "posix/object/new_object.h"

#include <unistd.h>

#include "posix/object/acl.h"
#include "posix/constants.h"
#include "posix/object/fd.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/object/map.h"
#include "posix/object/name_lock.h"
#include "posix/object/unused.h"

/* struct pshm_way: what is known */
enum { UNKNOWN, BY_DESCRIPTOR, BY_TEMPORARY_NAME };

enum stage { OPEN, LEASE, OWN, SIZE, MAP, ADVISE, POPULATE, RESERVE, FINISH,
             READY };

/* O_TMPFILE needs a file system that has it, and a security module that does
 * not refuse files without a name (a confined program may make files with its
 * own prefix only); to link the file afterwards takes /proc, or a kernel that
 * lets every user link by descriptor. */
static int
open_tmpfile(mode_t mode)
{
    return pshm_fd_above_stdio(
        pshm_result(open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, mode)));
}

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
open_named(const struct pshm_new_object_params *spec, struct pshm_way *way,
           struct pshm_new_object *new)
{
    int known = atomic_load_explicit(&way->known, memory_order_relaxed);
    if (known == UNKNOWN) {
        known = access("/proc/self/fd", X_OK) == 0 ? BY_DESCRIPTOR
                                                   : BY_TEMPORARY_NAME;
        atomic_store_explicit(&way->known, known, memory_order_relaxed);
    }
    if (known == BY_DESCRIPTOR) {
        int fd = open_tmpfile(spec->mode);
        if (!lacks_tmpfile(fd)) {
            return fd;
        }
    }
    return open_temporary(spec->name, new);
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
open_object(const struct pshm_new_object_params *spec, struct pshm_way *way,
            struct pshm_new_object *new)
{
    int fd = spec->kind == PSHM_MEMFD     ? open_memfd(spec->label)
             : spec->kind == PSHM_UNNAMED ? open_tmpfile(spec->mode)
                                          : open_named(spec, way, new);
    if (fd < 0) {
        return fd;
    }
    new->fd = fd;
    return 0;
}

/* Before all else, for until then a file with a temporary name looks unused.
 * If it is reclaimed in that moment, start again. */
static int
lease_object(struct pshm_new_object *new)
{
    struct stat st;
    int rc = pshm_use_lock_take(new->fd);
    new->locked = rc == 0;
    if (!new->has_temporary) {
        return rc;
    }
    if (rc == 0) {
        rc = pshm_result(fstat(new->fd, &st));
    }
    if (rc == 0) {
        rc = pshm_link_holds(&new->temporary, (struct pshm_identity){
                                                    st.st_dev, st.st_ino});
    }
    if (rc == 1) {
        return 0;
    }
    if (rc < 0 && rc != -ENOENT && rc != -EAGAIN) {
        return rc;
    }
    new->has_temporary = rc == -EAGAIN;       /* else it is not ours now */
    pshm_new_object_discard(new);
    return -EINTR;
}

/* Owner before mode: a change of owner may clear bits of the mode.  List before
 * mode: until the list is there, the mode could let in a group that the list does
 * not, if the object has a temporary name. */
static int
own_object(const struct pshm_new_object_params *spec,
           struct pshm_new_object *new)
{
    struct stat st;
    int rc = pshm_result(fstat(new->fd, &st));
    if (rc < 0) {
        return rc;
    }
    new->id = (struct pshm_identity){st.st_dev, st.st_ino};
    if (spec->kind == PSHM_MEMFD) {
        return 0;
    }
    bool chown = spec->uid != (uid_t)-1 || spec->gid != (gid_t)-1;
    if (chown) {
        rc = pshm_result(fchown(new->fd, spec->uid, spec->gid));
    }
    if (rc == 0 && spec->acl != NULL) {
        rc = pshm_acl_set(new->fd, spec->acl, spec->acl_size, spec->mode);
        new->acl_refused = rc < 0 && rc != -EINTR;
    }
    if (rc == 0 && (chown || (st.st_mode & 07777) != spec->mode)) {
        rc = pshm_result(fchmod(new->fd, spec->mode));
    }
    return rc;
}

/* Pages that are to be huge, or mapped, are made by populating: memory that
 * fallocate(2) takes is in small pages, and costs a second walk to map. */
static bool
populates(const struct pshm_new_object_params *spec)
{
    return spec->populate || (spec->huge_pages && spec->reserve);
}

static int
advise_object(const struct pshm_new_object_params *spec,
              struct pshm_new_object *new)
{
    if (!spec->huge_pages) {
        return 0;
    }
    int rc = pshm_map_advise(new->base, new->length, MADV_HUGEPAGE);
    return rc == -EINVAL ? 0 : rc;      /* a kernel without huge pages */
}

static int
populate_object(const struct pshm_new_object_params *spec,
                struct pshm_new_object *new)
{
    if (!populates(spec)) {
        return 0;
    }
    int rc = pshm_map_populate(new->base, (size_t)spec->size, true,
                               &new->populated);
    /* No room, or so it seems: reserving finds out and says it properly. */
    return rc == -EFAULT && spec->reserve ? 0 : rc == -EFAULT ? -ENOSPC : rc;
}

/* Memory that populating will take is not taken here, but there must be room:
 * populating would not notice before it had filled the mount. */
static int
size_object(const struct pshm_new_object_params *spec,
            struct pshm_new_object *new)
{
    bool later = populates(spec);
    int rc = 0;
    if (later) {
        rc = pshm_size_room(new->fd, spec->size);
        new->progress.room_known = true;
    }
    if (rc == 0) {
        rc = pshm_size_set(new->fd, spec->size, spec->reserve && !later,
                           &new->progress);
    }
    return rc;
}

/* What has been sized must not shrink under those it is passed to.  And when an
 * ordinary user changes the size, the kernel clears two bits of the mode. */
static int
finish_object(const struct pshm_new_object_params *spec,
              struct pshm_new_object *new)
{
    if (spec->kind == PSHM_MEMFD) {
        return pshm_seals_add(new->fd, F_SEAL_SHRINK);
    }
    return spec->mode & (S_ISUID | S_ISGID)
               ? pshm_result(fchmod(new->fd, spec->mode)) : 0;
}

static int
do_stage(const struct pshm_new_object_params *spec, struct pshm_way *way,
         struct pshm_new_object *new)
{
    switch ((enum stage)new->stage) {
    case OPEN:
        return open_object(spec, way, new);
    case LEASE:
        return lease_object(new);
    case OWN:
        return own_object(spec, new);
    case SIZE:
        return size_object(spec, new);
    case MAP:
        new->length = spec->length;
        return pshm_map(new->fd, 0, spec->length, PROT_READ | PROT_WRITE,
                        &new->base);
    case ADVISE:
        return advise_object(spec, new);
    case POPULATE:
        return populate_object(spec, new);
    case RESERVE:
        return spec->reserve && populates(spec)
                   ? pshm_size_set(new->fd, spec->size, true,
                                   &new->progress)
                   : 0;
    case FINISH:
    default:
        return finish_object(spec, new);
    }
}

int
pshm_new_object_make(const struct pshm_new_object_params *spec,
                     struct pshm_way *way, struct pshm_new_object *new)
{
    for (; new->stage < READY; new->stage++) {
        int rc = do_stage(spec, way, new);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int
pshm_new_object_publish(struct pshm_new_object *new,
                        const struct pshm_name *name)
{
    struct pshm_name left;
    if (!new->has_temporary) {
        return pshm_link(new->fd, name, false, &left);
    }
    int rc = pshm_link_move(&new->temporary, name);
    new->has_temporary = rc < 0;
    return rc;
}

static int
replace_locked(struct pshm_new_object *new, const struct pshm_name *name)
{
    int rc;
    if (new->has_temporary) {
        rc = pshm_link_move_over_locked(&new->temporary, name);
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
    *new = PSHM_NEW_OBJECT_NONE;
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
