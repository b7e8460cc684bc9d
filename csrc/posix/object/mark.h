/* The mark of an object whose last user removes its name.
 *
 * A handle of such an object holds a lock of fcntl(2), F_OFD_SETLK, on a byte
 * far past the end of the object, and a process that attaches finds the locks
 * of others there. So the mark lasts as long as a process uses the object, and
 * the kernel removes it with the last one. It is a write lock, so only a
 * process that may write to the object can set it. */
#ifndef PSHM_MARK_H
#define PSHM_MARK_H

#include "posix/base.h"

/* Mark the object open as fd, as long as that open file exists. Returns 0;
 * -EBADF: not opened for writing; or -errno. */
int pshm_mark_set(int fd);

/* Is the object marked by another open file? By another process? */
bool pshm_mark_seen(int fd);
bool pshm_mark_seen_of_others(int fd);

/* As pshm_mark_seen; if so, mark the object through fd too, if that is
 * possible. */
bool pshm_mark_inherit(int fd);

#endif
