#include "link.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "constants.h"
#include "turn.h"

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
    if (!replace) {
        return rename_if_free(from->path, to->path);
    }
    int turn = pshm_turn_begin();
    int rc = pshm_result(rename(from->path, to->path));
    pshm_turn_end(turn);
    return rc;
}

int
pshm_link_unlink(const struct pshm_name *aside)
{
    return pshm_result(unlink(aside->path));
}

int
pshm_link_put_back(const struct pshm_name *aside, const struct pshm_name *name)
{
    return rename_if_free(aside->path, name->path);
}

/* *left: aside where it is still called that, or "". */
static void
put_back_or_tell(const struct pshm_name *aside, const struct pshm_name *name,
                 struct pshm_name *left)
{
    struct pshm_name now = *aside;
    int rc = pshm_link_put_back(aside, name);
    if (rc == 0 || rc == -ENOENT) {
        now.path[0] = '\0';
    }
    *left = now;
}

int
pshm_link_aside(const struct pshm_name *name, struct pshm_identity id,
                struct pshm_name *aside)
{
    aside->path[0] = '\0';
    int rc = pshm_link_holds(name, id);
    if (rc <= 0) {
        return rc < 0 ? rc : -ESTALE;
    }
    struct pshm_name beside;
    rc = pshm_name_beside(name, &beside);
    if (rc == 0) {
        /* Nobody else has that random name, so there is none to replace. */
        rc = pshm_result(rename(name->path, beside.path));
    }
    if (rc < 0) {
        return rc;
    }
    rc = pshm_link_holds(&beside, id);
    if (rc == 1) {
        *aside = beside;
        return 0;
    }
    put_back_or_tell(&beside, name, aside);
    return rc < 0 ? rc : -ESTALE;
}

/* With the turn. */
static int
remove_name(const struct pshm_name *name, struct pshm_identity id,
            struct pshm_name *left)
{
    int rc = pshm_link_aside(name, id, left);
    if (rc < 0) {
        return rc;
    }
    rc = pshm_link_unlink(left);
    if (rc == 0) {
        left->path[0] = '\0';
    }
    else {
        put_back_or_tell(left, name, left);
    }
    return rc;
}

int
pshm_link_remove_or_tell(const struct pshm_name *name,
                         struct pshm_identity id, struct pshm_name *left)
{
    int turn = pshm_turn_begin();
    int rc = remove_name(name, id, left);
    pshm_turn_end(turn);
    return rc;
}

int
pshm_link_remove(const struct pshm_name *name, struct pshm_identity id)
{
    struct pshm_name left;
    return pshm_link_remove_or_tell(name, id, &left);
}

static int
rename_to_free(int fd, struct pshm_identity id, const struct pshm_name *from,
               const struct pshm_name *to, struct pshm_name *left)
{
    int rc = link_fd(fd, to->path);
    if (rc == 0) {
        rc = remove_name(from, id, left);
        if (rc < 0) {
            struct pshm_name second;
            (void)remove_name(to, id, &second);
            *left = left->path[0] == '\0' ? second : *left;
        }
    }
    return rc;
}

/* The name to is taken last of all, for that cannot be undone. */
static int
rename_replacing(int fd, struct pshm_identity id, const struct pshm_name *from,
                 const struct pshm_name *to, struct pshm_name *left)
{
    struct pshm_name temporary;
    int rc = pshm_name_beside(to, &temporary);
    if (rc == 0) {
        rc = link_fd(fd, temporary.path);
    }
    if (rc < 0) {
        return rc;
    }
    rc = remove_name(from, id, left);
    if (rc < 0) {
        (void)unlink(temporary.path);
        return rc;
    }
    rc = pshm_result(rename(temporary.path, to->path));
    if (rc < 0) {
        put_back_or_tell(&temporary, from, left);
    }
    return rc;
}

static int
rename_object(int fd, struct pshm_identity id, const struct pshm_name *from,
              const struct pshm_name *to, bool replace, struct pshm_name *left)
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
        return rename_to_free(fd, id, from, to, left);
    }
    /* rename(2) does nothing where both are names of one object. */
    rc = pshm_link_holds(to, id);
    if (rc == 1) {
        return strcmp(from->path, to->path) == 0
                   ? 0
                   : remove_name(from, id, left);
    }
    rc = rc == -ENOENT ? 0 : rc;
    if (rc == 0) {
        rc = check_may_remove(to->path);
    }
    return rc < 0 ? rc : rename_replacing(fd, id, from, to, left);
}

int
pshm_link_rename(int fd, struct pshm_identity id, const struct pshm_name *from,
                 const struct pshm_name *to, bool replace,
                 struct pshm_name *left)
{
    left->path[0] = '\0';
    int turn = pshm_turn_begin();
    int rc = rename_object(fd, id, from, to, replace, left);
    pshm_turn_end(turn);
    return rc;
}

int
pshm_link_drop(const struct pshm_name *name)
{
    int turn = pshm_turn_begin();
    int rc = pshm_result(shm_unlink(pshm_name_posix(name)));
    pshm_turn_end(turn);
    return rc;
}
