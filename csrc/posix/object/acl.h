/* Access control lists: acl(5).
 *
 * A list is the value of one attribute, in the kernel's format
 * (linux/posix_acl_xattr.h).  Neither this file nor core reads it: the package
 * makes it from text, and text from it. */
#ifndef PSHM_ACL_H
#define PSHM_ACL_H

#include "posix/base.h"

/* Bytes that every list fits into: the kernel's limit for an attribute. */
#define PSHM_ACL_MAX 65536

/* Read the list of fd's object into buffer, size bytes.  Returns its length in
 * bytes; 0: the object has a mode only; -ERANGE: the buffer is too small; or
 * -errno. */
int pshm_acl_get(int fd, void *buffer, size_t size);

/* Replace the list of fd's object, and with it the mode.  mode: what the list
 * makes of it; a file system without lists gets that if the list says no more.
 * Returns 0, -EOPNOTSUPP (no lists there), -EINVAL (an id that this user
 * namespace does not map), -EPERM (not the owner) or -errno. */
int pshm_acl_set(int fd, const void *list, size_t size, mode_t mode);

#endif
