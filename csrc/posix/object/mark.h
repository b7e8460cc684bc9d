/* The mark of an object whose last user removes its name.
 *
 * A handle of such an object has a lock of fcntl(2), F_OFD_SETLK, on a byte far
 * past the end of the object, and a process that attaches finds the locks of
 * others there.  So the mark lasts as long as a process uses the object, and
 * the kernel drops it with the last of them.  It is a write lock, so that only
 * a process that may write to the object can set it. */
#ifndef PSHM_MARK_H
#define PSHM_MARK_H

#include "posix/base.h"

/* Mark the object open as fd, for as long as that open file lives.  Returns 0;
 * -EBADF: not opened for writing; or -errno. */
int pshm_mark_set(int fd);

/* Does another open file mark it?  Or one of another process? */
bool pshm_mark_seen(int fd);
bool pshm_mark_seen_of_others(int fd);

/* As pshm_mark_seen, and then mark it by this one too, if that is possible. */
bool pshm_mark_inherit(int fd);

#endif
