/* Descriptors that are close-on-exec and never 0, 1 or 2. */
#ifndef PSHM_FD_H
#define PSHM_FD_H

#include "posix/base.h"

/* The first descriptor that no stray print can reach: a daemon starts with its
 * standard descriptors closed. */
#define PSHM_FD_FIRST 3

/* Move fd to PSHM_FD_FIRST or above.  Owns fd: on failure it is closed.
 * A negative fd, an error, is passed on.  Returns the descriptor to use, or -errno. */
int pshm_fd_above_stdio(int fd);

/* Make fd, a caller's, close-on-exec. */
int pshm_fd_cloexec(int fd);

/* Close fd, once; -1 is nothing to close.  Linux gives the descriptor up
 * whatever close(2) returns, so there is nothing to report or to repeat. */
void pshm_fd_close(int fd);

/* A second descriptor of the same open file, likewise.  Or -errno. */
int pshm_fd_copy(int fd);

/* The access mode fd was opened with: O_RDONLY, O_RDWR, ...; or -errno. */
int pshm_fd_access(int fd);

#endif
