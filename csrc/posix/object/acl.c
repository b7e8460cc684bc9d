#include "posix/object/acl.h"

#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#define ATTRIBUTE "system.posix_acl_access"

/* The owner, the owning group and others: what a mode has. */
#define MODE_ENTRIES 3

int
pshm_acl_get(int fd, void *buffer, size_t size)
{
    int rc = pshm_result((int)fgetxattr(fd, ATTRIBUTE, buffer, size));
    return rc == -ENODATA || rc == -EOPNOTSUPP ? 0 : rc;
}

int
pshm_acl_set(int fd, const void *list, size_t size, mode_t mode)
{
    size_t most = sizeof(struct posix_acl_xattr_header)
                  + MODE_ENTRIES * sizeof(struct posix_acl_xattr_entry);
    int rc = pshm_result(fsetxattr(fd, ATTRIBUTE, list, size, 0));
    return rc == -EOPNOTSUPP && size <= most
               ? pshm_result(fchmod(fd, mode)) : rc;
}
