#include "posix/object/inspect.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "posix/object/fd.h"

#define ACL "system.posix_acl_access"

static int
open_for_reading(const struct pshm_name *name, int flags)
{
    flags |= O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    return pshm_fd_above_stdio(
        pshm_result(shm_open(pshm_name_posix(name), flags, 0)));
}

/* The object could not be opened, for the reason rc. */
static int
inspect_refused(const struct pshm_name *name, int rc,
                struct pshm_inspected *out)
{
    int found = pshm_result(lstat(name->path, &out->st));
    if (found == 0 && !S_ISREG(out->st.st_mode)) {
        found = -ENOENT;
    }
    if (found < 0) {
        return found;
    }
    /* -EAGAIN: another process holds a file lease (F_SETLEASE). */
    out->state = rc == -EAGAIN ? PSHM_IN_USE : PSHM_UNKNOWN;
    out->head_length = rc;
    out->acl = lgetxattr(name->path, ACL, NULL, 0) > 0;
    return 0;
}

int
pshm_inspect(const struct pshm_name *name, struct pshm_inspected *out)
{
    *out = (struct pshm_inspected){.state = PSHM_UNKNOWN};
    int fd = open_for_reading(name, O_NOATIME), refused = 0;
    if (fd == -EPERM) {
        refused = fd;
        fd = open_for_reading(name, 0);
    }
    if (fd == -ENOENT) {
        return fd;
    }
    if (fd < 0) {
        return inspect_refused(name, fd, out);
    }
    int rc = pshm_result(fstat(fd, &out->st));
    if (rc == 0 && !S_ISREG(out->st.st_mode)) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        out->state = pshm_state_of(fd);
        out->acl = fgetxattr(fd, ACL, NULL, 0) > 0;
        out->head_length = refused;
        if (refused == 0) {
            ssize_t n = pread(fd, out->head, sizeof(out->head), 0);
            out->head_length = n < 0 ? -errno : (int)n;
        }
    }
    pshm_fd_close(fd);
    return rc;
}
