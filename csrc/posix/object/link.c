#include "posix/object/link.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "posix/constants.h"
#include "posix/object/name_lock.h"

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

/* link(2) for a descriptor. AT_EMPTY_PATH is cheaper, but older kernels
 * require a capability for it and fail with ENOENT. */
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

/* The system call itself: not every C library has a function for it. On a file
 * system without it, the object has both names for a short time. */
static int
rename_if_free(const char *from, const char *to)
{
    int rc = pshm_result((int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD,
                                      to, RENAME_NOREPLACE));
    if (rc == -EINVAL || rc == -ENOSYS) {
        rc = pshm_result(link(from, to));
        if (rc == 0) {
            rc = pshm_result(unlink(from));
            if (rc < 0) {
                (void)unlink(to);
            }
        }
    }
    return rc;
}

/* May the caller remove the name at path? An unlinked object can be given a
 * name only once, so this must be known before it gets a temporary one. Only
 * the kernel can tell (sticky directories, user namespaces, security modules):
 * rmdir(2) checks the permission before it checks that the file is a
 * directory. Returns 0, also if the name is free; or -errno. */
static int
check_may_remove(const char *path)
{
    struct stat st;
    int rc = pshm_result(lstat(path, &st));
    if (rc == 0) {
        rc = S_ISDIR(st.st_mode) ? -EISDIR : pshm_result(rmdir(path));
    }
    return rc == -ENOTDIR || rc == -ENOENT ? 0 : rc;
}

int
pshm_link_replace_locked(int fd, const struct pshm_name *name,
                         struct pshm_name *left)
{
    struct pshm_name temporary;
    left->path[0] = '\0';
    int rc = check_may_remove(name->path);
    if (rc == 0) {
        rc = pshm_name_beside(name, &temporary);
    }
    if (rc == 0) {
        rc = link_fd(fd, temporary.path);
    }
    if (rc < 0) {
        return rc;
    }
    rc = pshm_result(rename(temporary.path, name->path));
    if (rc < 0) {
        *left = temporary;
    }
    else {
        /* If name was already this object's, rename(2) did nothing. */
        (void)unlink(temporary.path);
    }
    return rc;
}

int
pshm_link(int fd, const struct pshm_name *name, bool replace,
          struct pshm_name *left)
{
    if (!replace) {
        left->path[0] = '\0';
        return link_fd(fd, name->path);
    }
    int name_lock = pshm_name_lock_acquire();
    int rc = pshm_link_replace_locked(fd, name, left);
    pshm_name_lock_release(name_lock);
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
pshm_link_remove_locked(const struct pshm_name *name, struct pshm_identity id)
{
    int rc = pshm_link_holds(name, id);
    if (rc == 1) {
        rc = pshm_result(unlink(name->path));
    }
    else if (rc == 0) {
        rc = -ESTALE;
    }
    return rc;
}

int
pshm_link_remove(const struct pshm_name *name, struct pshm_identity id)
{
    int name_lock = pshm_name_lock_acquire();
    int rc = pshm_link_remove_locked(name, id);
    pshm_name_lock_release(name_lock);
    return rc;
}

/* The caller holds the name lock. */
static int
rename_locked(struct pshm_identity id, const struct pshm_name *from,
              const struct pshm_name *to, bool replace)
{
    int rc = pshm_link_holds(from, id);
    if (rc <= 0) {
        return rc < 0 ? rc : -ESTALE;
    }
    if (strcmp(from->path, to->path) == 0) {
        return 0;
    }
    /* rename(2) does nothing if both are names of one object. */
    rc = replace ? pshm_link_holds(to, id) : 0;
    if (rc == 1) {
        return pshm_result(unlink(from->path));
    }
    return rc < 0 && rc != -ENOENT ? rc : pshm_link_move(from, to, replace);
}

int
pshm_link_rename(struct pshm_identity id, const struct pshm_name *from,
                 const struct pshm_name *to, bool replace)
{
    int name_lock = pshm_name_lock_acquire();
    int rc = rename_locked(id, from, to, replace);
    pshm_name_lock_release(name_lock);
    return rc;
}

int
pshm_link_drop(const struct pshm_name *name)
{
    int name_lock = pshm_name_lock_acquire();
    int rc = pshm_result(shm_unlink(pshm_name_posix(name)));
    pshm_name_lock_release(name_lock);
    return rc;
}
