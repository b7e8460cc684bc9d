/* Access control lists: acl(5).
 *
 * A list is the value of an extended attribute, in the kernel's format
 * (linux/posix_acl_xattr.h). The C code does not interpret it: the Python
 * package converts between text and this format. */
#ifndef PSHM_ACL_H
#define PSHM_ACL_H

#include "posix/base.h"

/* Enough bytes for every list: the kernel's limit for an attribute. */
#define PSHM_ACL_MAX 65536

/* Read the list of the object open as fd into buffer of size bytes. Returns
 * its length in bytes; 0: the object has only a mode; -ERANGE: the buffer is
 * too small; or -errno. */
int pshm_acl_get(int fd, void *buffer, size_t size);

/* Replace the list of the object open as fd, and its mode. mode: the mode that
 * results from the list. On a file system without lists it is set if the list
 * is equivalent to a mode. Returns 0; -EOPNOTSUPP: the file system has no
 * lists; -EINVAL: this user namespace does not map an id; -EPERM: the caller
 * is not the owner; or -errno. */
int pshm_acl_set(int fd, const void *list, size_t size, mode_t mode);

#endif
