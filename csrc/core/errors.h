/* From -errno to the exception. */
#ifndef CORE_ERRORS_H
#define CORE_ERRORS_H

#include "core/core.h"

#include "posix/object/attach.h"

/* Raise the OSError of rc (-errno) with the C library's words; filename: an
 * object, or NULL.  Where rc is -EINTR a signal handler has already raised.
 * Returns NULL. */
PyObject *raise_errno(int rc, PyObject *filename);

/* The same with words of our own; format as PyUnicode_FromFormat. */
PyObject *raise_errno_words(int rc, PyObject *filename, const char *format,
                            ...);

/* The same for an attempt to get size bytes of memory for fd's object, or if
 * fd is -1 for one in PSHM_DIR: a full mount is explained.  size 0: for a
 * name, which takes an inode at most. */
PyObject *raise_no_memory(int rc, PyObject *filename, int fd, off_t size);

/* The same with ENOMEM for a mapping of size bytes. */
PyObject *raise_no_addresses(PyObject *filename, Py_ssize_t size);

/* The same for pshm_attach; mode: its object's, or 0. */
PyObject *raise_attach(int rc, PyObject *filename, mode_t mode);

/* "a directory", and so on, of what is not a regular file. */
const char *kind_of_file(mode_t mode);

/* A descriptor of that mode is not a regular file. */
PyObject *raise_not_mappable(PyObject *filename, mode_t mode);

/* Bytes of an object that has this size are to be populated up to end, which is
 * past it. */
PyObject *raise_past_end(off_t size, off_t end);

/* No page could be populated of the bytes [start, end) of an object: rc is
 * -EFAULT, for whatever reason, or -errno.  object: a descriptor of the object, or
 * -1; where: of anything on its file system, or -1. */
PyObject *raise_populate(int rc, int object, int where, off_t start, off_t end);

/* An object of that mode was found, with permissions beyond at_most. */
PyObject *raise_mode(PyObject *filename, mode_t mode, mode_t at_most);

/* An object of the user uid was found, and only owners are accepted. */
PyObject *raise_owner(PyObject *filename, uid_t uid,
                      const struct pshm_owners *owners);

/* Put filename, an object or NULL, into the OSError that is set, if it has
 * none; any other exception stays as it is. */
void raise_again_with(PyObject *filename);

/* After a system call that gave -EINTR: may it be made again?  If not, a
 * signal handler has raised. */
static inline bool
try_again(int rc)
{
    return rc == -EINTR && PyErr_CheckSignals() == 0;
}

#endif
