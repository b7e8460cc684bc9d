#include "link.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "constants.h"

int
pshm_link_holds(const struct pshm_name *name, struct pshm_identity id)
{
    struct stat st;
    int rc = pshm_result(lstat(name->path, &st));
    if (rc < 0) {
        return rc;
    }
    return pshm_identity_same(id,
                              (struct pshm_identity){st.st_dev, st.st_ino});
}

/* link(2) by descriptor.  By AT_EMPTY_PATH it is cheaper, but older kernels
 * want a capability for that, and say ENOENT without it. */
static int
link_fd(int fd, const char *path)
{
    int rc = pshm_result(linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH));
    if (rc == -ENOENT) {
        char proc[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
        (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
        rc = pshm_result(
            linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
    }
    return rc;
}

/* The system call itself: not every C library has a function for it.  A file
 * system without it gets the two names for a moment. */
static int
rename_if_free(const char *from, const char *to)
{
    int rc = pshm_result((int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD,
                                      to, RENAME_NOREPLACE));
    if (rc == -EINVAL || rc == -ENOSYS) {
        rc = pshm_result(link(from, to));
        if (rc == 0) {
            (void)unlink(from);
        }
    }
    return rc;
}

/* May this user take the name at path away?  In a sticky directory only its or
 * the file's owner may; but anyone may give a file that he can write another
 * name, which he could not take away either, and a nameless file can be given a
 * name only once.  So this must be known first.  0, also for a name that is
 * free; or -errno. */
static int
check_may_remove(const char *path)
{
    struct stat target, dir;
    int rc = pshm_result(lstat(path, &target));
    if (rc < 0) {
        return rc == -ENOENT ? 0 : rc;
    }
    if (S_ISDIR(target.st_mode)) {
        return -EISDIR;
    }
    rc = pshm_result(stat(PSHM_DIR, &dir));
    if (rc < 0) {
        return rc;
    }
    uid_t user = geteuid();
    bool ours = user == 0 || user == target.st_uid || user == dir.st_uid;
    return dir.st_mode & S_ISVTX && !ours ? -EPERM : 0;
}

int
pshm_link(int fd, const struct pshm_name *name, bool replace)
{
    if (!replace) {
        return link_fd(fd, name->path);
    }
    struct pshm_name temporary;
    int rc = check_may_remove(name->path);
    if (rc == 0) {
        rc = pshm_name_beside(name, &temporary);
    }
    if (rc == 0) {
        rc = link_fd(fd, temporary.path);
    }
    if (rc == 0) {
        rc = pshm_link_move(&temporary, name, true);
        /* Still there if that failed; and where name was this very object's
         * already, for then rename(2) does nothing. */
        (void)unlink(temporary.path);
    }
    return rc;
}

int
pshm_link_move(const struct pshm_name *from, const struct pshm_name *to,
               bool replace)
{
    return replace ? pshm_result(rename(from->path, to->path))
                   : rename_if_free(from->path, to->path);
}

int
pshm_link_unlink(const struct pshm_name *aside)
{
    return pshm_result(unlink(aside->path));
}

/* Should the name have been taken a third time in this moment, that object
 * keeps it, as if it had replaced this one. */
void
pshm_link_put_back(const struct pshm_name *aside, const struct pshm_name *name)
{
    (void)rename_if_free(aside->path, name->path);
}

int
pshm_link_aside(const struct pshm_name *name, struct pshm_identity id,
                struct pshm_name *aside)
{
    int rc = pshm_link_holds(name, id);
    if (rc <= 0) {
        return rc < 0 ? rc : -ESTALE;
    }
    rc = pshm_name_beside(name, aside);
    if (rc == 0) {
        /* Nobody else has that random name, so there is none to replace. */
        rc = pshm_result(rename(name->path, aside->path));
    }
    if (rc < 0) {
        return rc;
    }
    rc = pshm_link_holds(aside, id);
    if (rc == 1) {
        return 0;
    }
    pshm_link_put_back(aside, name);
    return rc < 0 ? rc : -ESTALE;
}

int
pshm_link_remove(const struct pshm_name *name, struct pshm_identity id)
{
    struct pshm_name aside;
    int rc = pshm_link_aside(name, id, &aside);
    if (rc == 0) {
        rc = pshm_link_unlink(&aside);
        if (rc < 0) {
            pshm_link_put_back(&aside, name);
        }
    }
    return rc;
}

static int
rename_to_free(int fd, struct pshm_identity id, const struct pshm_name *from,
               const struct pshm_name *to)
{
    int rc = link_fd(fd, to->path);
    if (rc == 0) {
        rc = pshm_link_remove(from, id);
        if (rc < 0) {
            (void)pshm_link_remove(to, id);
        }
    }
    return rc;
}

/* The name to is taken last of all, for that cannot be undone. */
static int
rename_replacing(int fd, struct pshm_identity id, const struct pshm_name *from,
                 const struct pshm_name *to)
{
    struct pshm_name temporary;
    int rc = pshm_name_beside(to, &temporary);
    if (rc == 0) {
        rc = link_fd(fd, temporary.path);
    }
    if (rc < 0) {
        return rc;
    }
    rc = pshm_link_remove(from, id);
    if (rc < 0) {
        (void)unlink(temporary.path);
        return rc;
    }
    rc = pshm_result(rename(temporary.path, to->path));
    if (rc < 0) {
        (void)rename_if_free(temporary.path, from->path);
    }
    return rc;
}

int
pshm_link_rename(int fd, struct pshm_identity id, const struct pshm_name *from,
                 const struct pshm_name *to, bool replace)
{
    int rc = pshm_link_holds(from, id);
    if (rc <= 0) {
        return rc < 0 ? rc : -ESTALE;
    }
    rc = check_may_remove(from->path);
    if (rc < 0) {
        return rc;
    }
    if (!replace) {
        return rename_to_free(fd, id, from, to);
    }
    /* rename(2) does nothing where both are names of one object. */
    rc = pshm_link_holds(to, id);
    if (rc == 1) {
        return strcmp(from->path, to->path) == 0 ? 0
                                                 : pshm_link_remove(from, id);
    }
    rc = rc == -ENOENT ? 0 : rc;
    if (rc == 0) {
        rc = check_may_remove(to->path);
    }
    return rc < 0 ? rc : rename_replacing(fd, id, from, to);
}

int
pshm_link_drop(const struct pshm_name *name)
{
    return pshm_result(shm_unlink(pshm_name_posix(name)));
}
