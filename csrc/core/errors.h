/* Raising exceptions for -errno. */
#ifndef CORE_ERRORS_H
#define CORE_ERRORS_H

#include "core/core.h"

#include "posix/object/attach.h"

/* Raise the OSError of rc (-errno) with the C library's message. filename: an
 * object, or NULL. If rc is -EINTR, a signal handler has raised already.
 * Returns NULL. */
PyObject *raise_errno(int rc, PyObject *filename);

/* The same with another message; format as for PyUnicode_FromFormat. */
PyObject *raise_errno_words(int rc, PyObject *filename, const char *format,
                            ...);

/* The same after an attempt to allocate size bytes for the object open as fd,
 * or, if fd is -1, for one in PSHM_DIR. If the mount is full, the message says
 * so. size 0: for a name, which needs at most an inode. */
PyObject *raise_no_memory(int rc, PyObject *filename, int fd, off_t size);

/* The same with ENOMEM, for a mapping of size bytes. */
PyObject *raise_no_addresses(PyObject *filename, Py_ssize_t size);

/* The same for an error of pshm_attach; mode: the mode of the file, or 0. */
PyObject *raise_attach(int rc, PyObject *filename, mode_t mode);

/* The kind of a file that is not a regular file, such as "a directory". */
const char *kind_of_file(mode_t mode);

/* Raise the error for a descriptor that is not a regular file. */
PyObject *raise_not_mappable(PyObject *filename, mode_t mode);

/* Raise the error for populating an object of this size up to end, which is
 * past its end. */
PyObject *raise_past_end(off_t size, off_t end);

/* Raise the error if no page in the bytes [start, end) of an object could be
 * populated. rc is -EFAULT, which has several reasons, or -errno. object: a
 * descriptor of the object, or -1; where: a descriptor of any file on its file
 * system, or -1. */
PyObject *raise_populate(int rc, int object, int where, off_t start, off_t end);

/* Raise the error for an object with this mode, which has permissions beyond
 * at_most. */
PyObject *raise_mode(PyObject *filename, mode_t mode, mode_t at_most);

/* Raise the error for an object of the user uid, if only owners are accepted.
 */
PyObject *raise_owner(PyObject *filename, uid_t uid,
                      const struct pshm_owners *owners);

/* Set the filename of the current exception, if it is an OSError without one.
 * filename: an object or NULL. */
void raise_again_with(PyObject *filename);

/* After a system call that returned -EINTR: should the caller repeat it? If
 * not, a signal handler has raised. */
static inline bool
try_again(int rc)
{
    return rc == -EINTR && PyErr_CheckSignals() == 0;
}

#endif
