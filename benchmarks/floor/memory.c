/* Raw work on much memory and on many names. */
#include "floor.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGE = 4096, MOST_THREADS = 16 };

/* ---- Pages ---- */

static void
touch_pages(volatile char *base, size_t size)
{
    for (size_t i = 0; i < size; i += PAGE) {
        base[i] = 1;
    }
}

struct part {
    char *base;
    size_t size;
    pthread_t thread;
    int error;
};

static void *
populate_part(void *argument)
{
    struct part *part = argument;
    if (madvise(part->base, part->size, MADV_POPULATE_WRITE) < 0) {
        part->error = errno;
    }
    return NULL;
}

static int
populate(char *base, size_t size, int threads)
{
    struct part parts[MOST_THREADS] = {0};
    size_t each = size / (size_t)threads / PAGE * PAGE;
    int error = 0;
    for (int i = 0; i < threads; i++) {
        parts[i].base = base + (size_t)i * each;
        parts[i].size = i == threads - 1 ? size - (size_t)i * each : each;
        if (i > 0) {
            error = pthread_create(&parts[i].thread, NULL, populate_part,
                                   &parts[i]);
            if (error != 0) {
                abort();
            }
        }
    }
    (void)populate_part(&parts[0]);
    for (int i = 0; i < threads; i++) {
        if (i > 0) {
            (void)pthread_join(parts[i].thread, NULL);
        }
        error = error != 0 ? error : parts[i].error;
    }
    return -error;
}

/* Size an object, map it and write to each page. how: "ftruncate",
 * "fallocate", "populate" or "huge"; the last two with `threads`. */
static int
make_pages(int fd, size_t size, const char *how, int threads, void **base)
{
    int rc = strcmp(how, "fallocate") == 0 ? fallocate(fd, 0, 0, (off_t)size)
                                           : ftruncate(fd, (off_t)size);
    if (rc < 0) {
        return -errno;
    }
    *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*base == MAP_FAILED) {
        return -errno;
    }
    if (strcmp(how, "huge") == 0) {
        (void)madvise(*base, size, MADV_HUGEPAGE);
    }
    if (threads > 0) {
        rc = populate(*base, size, threads);
    }
    touch_pages(*base, size);
    return rc;
}

/* raw_pages(size, how, threads) -> nanoseconds, without the removal */
static PyObject *
raw_pages(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_ssize_t size;
    const char *how;
    int threads;
    if (!PyArg_ParseTuple(args, "nsi", &size, &how, &threads)) {
        return NULL;
    }
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    int64_t took;
    Py_BEGIN_ALLOW_THREADS
    int64_t start = now();
    void *base = MAP_FAILED;
    int fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    took = fd < 0 ? -errno
                  : make_pages(fd, (size_t)size, how, threads, &base);
    took = took < 0 ? took : now() - start;
    if (base != MAP_FAILED) {
        (void)munmap(base, (size_t)size);
    }
    (void)close(fd);
    Py_END_ALLOW_THREADS
    return number_or_error(took);
}

static PyObject *
touch(PyObject *Py_UNUSED(module), PyObject *buffer)
{
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    touch_pages(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

/* ---- Saving an array ---- */

static int
write_all(int fd, const char *data, size_t size, off_t at)
{
    while (size > 0) {
        ssize_t written = pwrite(fd, data, size, at);
        if (written < 0) {
            return -errno;
        }
        data += written;
        size -= (size_t)written;
        at += written;
    }
    return 0;
}

/* raw_save(name, head, data, replace) -> nanoseconds. An unlinked file with
 * its use lock, then its bytes, then its name; replace: by rename(2). */
static PyObject *
raw_save(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *name;
    Py_buffer head, data;
    char path[PATH_SIZE], proc[32];
    if (!PyArg_ParseTuple(args, "sy*y*", &name, &head, &data)) {
        return NULL;
    }
    (void)snprintf(path, sizeof(path), SHM_DIR "/%s", name);
    int64_t took;
    Py_BEGIN_ALLOW_THREADS
    int64_t start = now();
    int fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    took = fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0
                   || ftruncate(fd, (off_t)(head.len + data.len)) < 0
               ? -errno
               : write_all(fd, head.buf, (size_t)head.len, 0);
    if (took == 0) {
        took = write_all(fd, data.buf, (size_t)data.len, (off_t)head.len);
    }
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    if (took == 0
        && linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0) {
        took = -errno;
    }
    took = took < 0 ? took : now() - start;
    (void)close(fd);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&head);
    PyBuffer_Release(&data);
    return number_or_error(took);
}

/* ---- Names ---- */

/* Make `count` objects of one page without memory. Returns 0 or -errno. */
static int
make_names(int directory, const char *prefix, long long count)
{
    char name[256];
    for (long long i = 0; i < count; i++) {
        (void)snprintf(name, sizeof(name), "%s%06lld", prefix, i);
        int fd = openat(directory, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
                        0600);
        if (fd < 0 || ftruncate(fd, PAGE) < 0) {
            return -errno;
        }
        (void)close(fd);
    }
    return 0;
}

static int
unlink_unused(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int rc = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0
                     || unlinkat(directory, name, 0) < 0
                 ? -errno : 0;
    (void)close(fd);
    return rc;
}

/* Read the directory; unlink what begins with the prefix if that is asked
 * for. Returns the number of names, or -errno. */
static int64_t
read_names(int directory, const char *prefix, bool remove)
{
    size_t length = strlen(prefix);
    int64_t count = 0;
    DIR *stream = fdopendir(directory);
    if (stream == NULL) {
        return -errno;
    }
    const struct dirent *entry;
    int rc = 0;
    while (rc == 0 && (entry = readdir(stream)) != NULL) {
        if (strncmp(entry->d_name, prefix, length) == 0) {
            count++;
            rc = remove ? unlink_unused(directory, entry->d_name) : 0;
        }
    }
    (void)closedir(stream);
    return rc < 0 ? rc : count;
}

/* raw_names(prefix, do, count) -> nanoseconds. do: "make", "list", or "reclaim"
 * without a proof that no process maps the object. */
static PyObject *
raw_names(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *prefix, *what;
    long long count;
    if (!PyArg_ParseTuple(args, "ssL", &prefix, &what, &count)) {
        return NULL;
    }
    int64_t start = now();
    int directory = open(SHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t rc = -errno;
    if (directory >= 0 && strcmp(what, "make") == 0) {
        rc = make_names(directory, prefix, count);
        (void)close(directory);
    }
    else if (directory >= 0) {
        rc = read_names(directory, prefix, strcmp(what, "reclaim") == 0);
        rc = rc < 0 || rc == count ? rc : -ENOENT;
    }
    return number_or_error(rc < 0 ? rc : now() - start);
}

static PyMethodDef functions[] = {
    {"raw_pages", raw_pages, METH_VARARGS, NULL},
    {"touch", touch, METH_O, NULL},
    {"raw_save", raw_save, METH_VARARGS, NULL},
    {"raw_names", raw_names, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
floor_add_memory(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
