#include "posix/object/open.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "posix/object/attach.h"
#include "posix/object/fd.h"

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
