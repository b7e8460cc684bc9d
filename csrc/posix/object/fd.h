/* Descriptors that are close-on-exec and above 2. */
#ifndef PSHM_FD_H
#define PSHM_FD_H

#include "posix/base.h"

/* The lowest descriptor that this library uses. A daemon may start with its
 * standard descriptors closed, and a print to descriptor 1 must not overwrite
 * an object. */
#define PSHM_FD_FIRST 3

/* Move fd to PSHM_FD_FIRST or above. Steals fd: after an error it is closed.
 * If fd is negative, an error, it is returned. Returns the descriptor to use,
 * or -errno. */
int pshm_fd_above_stdio(int fd);

/* Make fd close-on-exec; it stays the caller's. Returns 0 or -errno. */
int pshm_fd_cloexec(int fd);

/* Close fd once; -1 does nothing. Linux releases the descriptor whatever
 * close(2) returns, so there is no error to report and the call must not be
 * repeated. */
void pshm_fd_close(int fd);

/* Returns a second descriptor of the same open file, close-on-exec and above
 * 2; or -errno. */
int pshm_fd_copy(int fd);

/* The access mode of fd: O_RDONLY, O_RDWR, ...; or -errno. */
int pshm_fd_access(int fd);

#endif
