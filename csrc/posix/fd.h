/* Descriptors that are close-on-exec and never 0, 1 or 2. */
#ifndef PSHM_FD_H
#define PSHM_FD_H

#include "base.h"

/* Move fd above 2, where no stray print can reach it (a daemon starts with
 * its standard descriptors closed).  Owns fd: on failure it is closed.
 * A negative fd, an error, is passed on.  Returns the descriptor to use, or -errno. */
int pshm_fd_settle(int fd);

/* Take fd, a caller's, over: close-on-exec and above 2.  On failure fd is
 * still open and the caller's.  Returns the descriptor to use; if that is
 * another one, fd is closed.  Or -errno. */
int pshm_fd_adopt(int fd);

/* Close fd, once; -1 is nothing to close.  Linux gives the descriptor up
 * whatever close(2) returns, so there is nothing to report or to repeat. */
void pshm_fd_close(int fd);

/* A second descriptor of the same open file, likewise.  Or -errno. */
int pshm_fd_copy(int fd);

/* The access mode fd was opened with: O_RDONLY, O_RDWR, ...; or -errno. */
int pshm_fd_access(int fd);

#endif
