#include "core/errors.h"

#include <stdarg.h>
#include <string.h>

#include "posix/object/directory.h"
#include "posix/object/size.h"

/* OSError chooses the subclass when it is called with an errno. */
static void
set_os_error(int rc, PyObject *words, PyObject *filename)
{
    PyObject *error = PyObject_CallFunction(
        PyExc_OSError, filename != NULL ? "iOO" : "iO", -rc, words, filename);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

PyObject *
raise_errno(int rc, PyObject *filename)
{
    if (rc == -EINTR && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *words = PyUnicode_DecodeLocale(strerror(-rc), "surrogateescape");
    if (words != NULL) {
        set_os_error(rc, words, filename);
        Py_DECREF(words);
    }
    return NULL;
}

PyObject *
raise_errno_words(int rc, PyObject *filename, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *words = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (words != NULL) {
        set_os_error(rc, words, filename);
        Py_DECREF(words);
    }
    return NULL;
}

void
raise_again_with(PyObject *filename)
{
    if (filename == NULL || !PyErr_ExceptionMatches(PyExc_OSError)) {
        return;
    }
    PyObject *error = core_take_error();
    PyObject *known = PyObject_GetAttrString(error, "filename");
    if (known == Py_None) {
        (void)PyObject_SetAttrString(error, "filename", filename);
    }
    Py_XDECREF(known);
    PyErr_Clear();
    core_set_error(error);
}

/* Is the object on another mount than PSHM_DIR? */
static bool
is_elsewhere(int fd)
{
    struct pshm_status status;
    dev_t device;
    return fd >= 0 && pshm_status_of(fd, &status) == 0
           && pshm_directory_device(&device) == 0 && status.id.dev != device;
}

PyObject *
raise_no_memory(int rc, PyObject *filename, int fd, off_t size)
{
    struct pshm_room room;
    if (rc == -ENOENT && pshm_room_of(fd, &room) == -ENOENT) {
        return raise_attach(rc, filename, 0);
    }
    if (rc == -EFBIG) {
        uint64_t limit;
        (void)pshm_size_limit(&limit);
        if ((uint64_t)size > limit) {
            return raise_errno_words(
                rc, filename,
                "File too large: a size of %lld bytes asked for, and "
                "RLIMIT_FSIZE allows %llu (ulimit -f)",
                (long long)size, (unsigned long long)limit);
        }
        return raise_errno_words(
            rc, filename,
            "File too large: a size of %lld bytes asked for, more than the "
            "file system allows",
            (long long)size);
    }
    if (rc == -ENOMEM && (uint64_t)size > pshm_memory_available()) {
        return raise_errno_words(
            rc, filename,
            "Cannot allocate memory: %lld bytes asked for, %llu bytes "
            "available on this machine",
            (long long)size, (unsigned long long)pshm_memory_available());
    }
    if (rc != -ENOSPC || pshm_room_of(fd, &room) < 0) {
        return raise_errno(rc, filename);
    }
    if (is_elsewhere(fd)) {
        return raise_errno_words(
            rc, filename,
            "No space left on the mount of the object, which is not " PSHM_DIR
            ": %lld bytes asked for, %llu bytes free",
            (long long)size, (unsigned long long)room.free_bytes);
    }
    if (room.total_inodes > 0 && room.free_inodes == 0) {
        return raise_errno_words(
            rc, filename,
            "No inodes left on " PSHM_DIR " (%llu in all): remove unused "
            "objects (posixshm.reclaim), or remount it with more inodes "
            "(mount -o remount,nr_inodes=...)",
            (unsigned long long)room.total_inodes);
    }
    if (size == 0) {
        return raise_errno(rc, filename);
    }
    return raise_errno_words(
        rc, filename,
        "No space left on " PSHM_DIR ": %lld bytes asked for, %llu bytes "
        "free; remove unused objects (posixshm.reclaim), enlarge the mount "
        "(mount -o remount,size=... " PSHM_DIR "; in a container "
        "--shm-size), or allocate memory at the first write "
        "(reserve=False)",
        (long long)size, (unsigned long long)room.free_bytes);
}

PyObject *
raise_no_addresses(PyObject *filename, Py_ssize_t size)
{
    return raise_errno_words(
        -ENOMEM, filename,
        "Cannot allocate memory: no address space for %zd bytes; the machine, "
        "RLIMIT_AS (ulimit -v) or the number of mappings limits it",
        size);
}

const char *
kind_of_file(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    case S_IFLNK:
        return "a symbolic link";
    case S_IFCHR:
    case S_IFBLK:
        return "a device";
    default:
        return "an anonymous inode";
    }
}

PyObject *
raise_attach(int rc, PyObject *filename, mode_t mode)
{
    const char *text;
    switch (rc) {
    case -ENOENT:
        text = pshm_room_of(-1, &(struct pshm_room){0}) == -ENOENT
                   ? "The directory " PSHM_DIR " for shared memory does not "
                     "exist: mount it (mount -t tmpfs tmpfs " PSHM_DIR ")"
                   : "No shared memory object has this name; "
                     "SharedMemory.open(name, timeout=seconds) waits for it";
        break;
    case -ENODATA:
        text = "The size of the object is 0 bytes: its creator has not set it "
               "yet";
        break;
    case -ELOOP:
        text = "Not a shared memory object, but a symbolic link, which is not "
               "followed";
        break;
    case -EAGAIN:
        text = "A process holds a write lease on the object, or its name "
               "referred to another object at each attempt; try again";
        break;
    default:
        mode = rc == -EISDIR ? S_IFDIR : mode;
        return (rc == -EINVAL || rc == -EISDIR) && mode != 0
                   ? raise_errno_words(rc, filename,
                                       "Not a shared memory object, but %s",
                                       kind_of_file(mode))
                   : raise_errno(rc, filename);
    }
    return raise_errno_words(rc, filename, "%s", text);
}

PyObject *
raise_owner(PyObject *filename, uid_t uid, const struct pshm_owners *owners)
{
    char text[PSHM_OWNERS_MAX * 12];
    size_t length = 0;
    for (int i = 0; i < owners->count; i++) {
        (void)PyOS_snprintf(text + length, sizeof(text) - length, "%s%lu",
                            i == 0 ? "" : ", ",
                            (unsigned long)owners->uids[i]);
        length += strlen(text + length);
    }
    return raise_errno_words(
        -EACCES, filename,
        "The object belongs to the user with uid %lu, but the caller accepts "
        "the uids %s (owner='any' accepts every owner)",
        (unsigned long)uid, text);
}

PyObject *
raise_mode(PyObject *filename, mode_t mode, mode_t at_most)
{
    char text[2][8];
    (void)PyOS_snprintf(text[0], sizeof(text[0]), "0o%o", mode & 07777);
    (void)PyOS_snprintf(text[1], sizeof(text[1]), "0o%o", at_most);
    return raise_errno_words(
        -EACCES, filename,
        "The object has mode %s, which is more than mode_at_most %s (chmod() "
        "changes the mode of an object)",
        text[0], text[1]);
}

PyObject *
raise_not_mappable(PyObject *filename, mode_t mode)
{
    return raise_errno_words(
        -EINVAL, filename,
        "The descriptor is not a regular file or memfd, but %s: an access to "
        "its memory may be a bus error (device=True maps it all the same)",
        kind_of_file(mode));
}

PyObject *
raise_past_end(off_t size, off_t end)
{
    return raise_errno_words(
        -EFAULT, NULL,
        "The bytes to be populated end at %lld, past the end of the object, "
        "which has %lld bytes: it was truncated after it was mapped",
        (long long)end, (long long)size);
}

PyObject *
raise_populate(int rc, int object, int where, off_t start, off_t end)
{
    struct pshm_status status;
    struct pshm_room room;
    if (rc == -EINVAL) {
        return raise_errno_words(rc, NULL,
                                 "The kernel cannot populate this memory: it "
                                 "needs Linux 5.14 or later, and does not "
                                 "populate memory of a device");
    }
    if (rc != -EFAULT) {
        return raise_no_memory(rc, NULL, where, end - start);
    }
    if (object >= 0 && pshm_status_of(object, &status) == 0
        && S_ISREG(status.mode) && end > status.size) {
        return raise_past_end(status.size, end);
    }
    if (where >= 0 && pshm_room_of(where, &room) == 0 && room.total_bytes > 0
        && room.free_bytes < (uint64_t)(end - start)) {
        return raise_no_memory(-ENOSPC, NULL, where, end - start);
    }
    return raise_errno_words(rc, NULL,
                             "A page of the range is past the end of the "
                             "object, or the system has no memory for it");
}
