/* Segment: the life of an object, in as few system calls as the promises
 * allow. */
#include "floor.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct object {
    int fd;
    void *base;
    size_t size;
    dev_t dev;
    ino_t ino;
};

/* ---- The system calls. Each returns 0 or -errno. ---- */

static int
map_object(struct object *object)
{
    object->base = mmap(NULL, object->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                        object->fd, 0);
    return object->base == MAP_FAILED ? -errno : 0;
}

/* Older kernels allow AT_EMPTY_PATH only to a privileged process. */
static int
link_object(int fd, const char *path)
{
    if (linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH) == 0) {
        return 0;
    }
    if (errno != ENOENT) {
        return -errno;
    }
    char proc[32];
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0
               ? -errno : 0;
}

/* An unlinked file, its use lock, its identity, its memory, then its name. */
static int
create_object(const char *path, size_t size, struct object *object)
{
    struct stat st;
    object->size = size;
    object->fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (object->fd < 0) {
        return -errno;
    }
    int rc = flock(object->fd, LOCK_SH | LOCK_NB) < 0
                     || fstat(object->fd, &st) < 0
                     || fallocate(object->fd, 0, 0, (off_t)size) < 0
                 ? -errno : map_object(object);
    if (rc == 0) {
        object->dev = st.st_dev;
        object->ino = st.st_ino;
        rc = link_object(object->fd, path);
        if (rc < 0) {
            (void)munmap(object->base, size);
        }
    }
    if (rc < 0) {
        (void)close(object->fd);
    }
    return rc;
}

/* The use lock before fstat, which then shows whether a reclaimer was faster:
 * st_nlink would be 0. */
static int
attach_object(const char *path, size_t Py_UNUSED(size), struct object *object)
{
    struct stat st;
    object->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (object->fd < 0) {
        return -errno;
    }
    int rc = flock(object->fd, LOCK_SH | LOCK_NB) < 0
                     || fstat(object->fd, &st) < 0
                 ? -errno
             : !S_ISREG(st.st_mode) || st.st_nlink == 0 || st.st_size == 0
                 ? -EINVAL : 0;
    if (rc == 0) {
        object->size = (size_t)st.st_size;
        object->dev = st.st_dev;
        object->ino = st.st_ino;
        rc = map_object(object);
    }
    if (rc < 0) {
        (void)close(object->fd);
    }
    return rc;
}

static int
anonymous_object(const char *name, size_t size, struct object *object)
{
    object->size = size;
    object->dev = 0;
    object->ino = 0;
    object->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (object->fd < 0) {
        return -errno;
    }
    int rc = fallocate(object->fd, 0, 0, (off_t)size) < 0
                     || fcntl(object->fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0
                 ? -errno : map_object(object);
    if (rc < 0) {
        (void)close(object->fd);
    }
    return rc;
}

static void
close_object(struct object *object)
{
    (void)close(object->fd);
    (void)munmap(object->base, object->size);
}

/* The descriptor of /dev/shm stays open. A forked child opens its own, because
 * processes that share an open file share its lock. */
static int directory = -1;

static void
forget_directory(void)
{
    (void)close(directory);
    directory = -1;
}

/* Under the name lock: unlink the name if it still refers to this object. */
static int
unlink_object(const char *path, const struct object *object)
{
    struct stat st;
    if (directory < 0) {
        directory = open(SHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    while (flock(directory, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK) {
            return -errno;
        }
        (void)sched_yield();
    }
    int rc = lstat(path, &st) < 0 ? -errno
             : st.st_dev != object->dev || st.st_ino != object->ino ? -ESTALE
             : unlink(path) < 0 ? -errno : 0;
    (void)flock(directory, LOCK_UN);
    return rc;
}

/* ---- Raw loops ---- */

typedef int (*open_object)(const char *, size_t, struct object *);

static int
live_and_die(open_object open_it, const char *path, size_t size)
{
    struct object object;
    int rc = open_it(path, size, &object);
    if (rc == 0) {
        close_object(&object);
        rc = open_it == create_object ? unlink_object(path, &object) : 0;
    }
    return rc;
}

static PyObject *
run(PyObject *args, open_object open_it)
{
    const char *name;
    char path[PATH_SIZE];
    Py_ssize_t size;
    long long n;
    if (!PyArg_ParseTuple(args, "snL", &name, &size, &n)) {
        return NULL;
    }
    (void)snprintf(path, sizeof(path), SHM_DIR "/%s", name);
    int rc = 0;
    int64_t start = now();
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = live_and_die(open_it, path, (size_t)size);
    }
    return number_or_error(rc < 0 ? rc : now() - start);
}

static PyObject *
raw_create(PyObject *Py_UNUSED(module), PyObject *args)
{
    return run(args, create_object);
}

static PyObject *
raw_attach(PyObject *Py_UNUSED(module), PyObject *args)
{
    return run(args, attach_object);
}

static PyObject *
raw_anonymous(PyObject *Py_UNUSED(module), PyObject *args)
{
    return run(args, anonymous_object);
}

/* ---- Map: the only owner of an address ---- */

typedef struct {
    PyObject_HEAD
    void *base;
    size_t size;
} MapObject;

static void
map_dealloc(PyObject *op)
{
    MapObject *self = (MapObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->base != NULL) {
        Py_BEGIN_ALLOW_THREADS
        (void)munmap(self->base, self->size);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static int
map_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    MapObject *self = (MapObject *)op;
    return PyBuffer_FillInfo(view, op, self->base, (Py_ssize_t)self->size, 0,
                             flags);
}

static PyType_Slot map_slots[] = {
    {Py_tp_dealloc, map_dealloc},
    {Py_bf_getbuffer, map_getbuffer},
    {0, NULL},
};

static PyType_Spec map_spec = {
    .name = "floor.Map",
    .basicsize = sizeof(MapObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = map_slots,
};

static PyTypeObject *map_type;

/* ---- Segment ---- */

typedef struct {
    PyObject_HEAD
    MapObject *map;                     /* NULL after close() */
    PyObject *name;
    dev_t dev;
    ino_t ino;
    int fd;
} SegmentObject;

/* Returns 0, or -1 with an exception. */
static int
path_of(PyObject *name, char path[PATH_SIZE])
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(name, &length);
    if (text == NULL) {
        return -1;
    }
    if (length > 255 || memchr(text, '/', (size_t)length) != NULL) {
        PyErr_SetString(PyExc_ValueError, "bad name");
        return -1;
    }
    memcpy(path, SHM_DIR "/", sizeof(SHM_DIR));
    memcpy(path + sizeof(SHM_DIR), text, (size_t)length + 1);
    return 0;
}

static PyObject *
new_segment(PyTypeObject *type, PyObject *name, size_t size,
            open_object open_it)
{
    char path[PATH_SIZE] = "floor";
    struct object object;
    if (name != NULL && path_of(name, path) < 0) {
        return NULL;
    }
    MapObject *map = PyObject_New(MapObject, map_type);
    if (map == NULL) {
        return NULL;
    }
    map->base = NULL;
    SegmentObject *self = PyObject_New(SegmentObject, type);
    if (self == NULL) {
        Py_DECREF(map);
        return NULL;
    }
    self->map = NULL;
    self->name = Py_XNewRef(name);
    self->fd = -1;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = open_it(path, size, &object);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        Py_DECREF(map);
        Py_DECREF(self);
        errno = -rc;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    }
    map->base = object.base;
    map->size = object.size;
    self->map = map;
    self->dev = object.dev;
    self->ino = object.ino;
    self->fd = object.fd;
    return (PyObject *)self;
}

static PyObject *
segment_create(PyObject *type, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t size = count == 2 ? PyLong_AsSsize_t(args[1]) : -1;
    if (size < 0) {
        return PyErr_Format(PyExc_TypeError, "create(name, size)");
    }
    return new_segment((PyTypeObject *)type, args[0], (size_t)size,
                       create_object);
}

static PyObject *
segment_attach(PyObject *type, PyObject *name)
{
    return new_segment((PyTypeObject *)type, name, 0, attach_object);
}

static PyObject *
segment_anonymous(PyObject *type, PyObject *size)
{
    Py_ssize_t bytes = PyLong_AsSsize_t(size);
    return bytes < 0 ? NULL
                     : new_segment((PyTypeObject *)type, NULL, (size_t)bytes,
                                   anonymous_object);
}

/* Unmap with the same release of the GIL if no buffer needs the memory. */
static PyObject *
segment_close(PyObject *op, PyObject *Py_UNUSED(args))
{
    SegmentObject *self = (SegmentObject *)op;
    MapObject *map = self->map;
    if (map != NULL) {
        struct object object = {self->fd, map->base, map->size, 0, 0};
        bool last = Py_REFCNT(map) == 1;
        self->map = NULL;
        self->fd = -1;
        if (last) {
            map->base = NULL;
        }
        Py_BEGIN_ALLOW_THREADS
        if (last) {
            close_object(&object);
        }
        else {
            (void)close(object.fd);
        }
        Py_END_ALLOW_THREADS
        Py_DECREF(map);
    }
    Py_RETURN_NONE;
}

static PyObject *
segment_unlink(PyObject *op, PyObject *Py_UNUSED(args))
{
    SegmentObject *self = (SegmentObject *)op;
    struct object object = {.dev = self->dev, .ino = self->ino};
    char path[PATH_SIZE];
    int rc;
    if (path_of(self->name, path) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = unlink_object(path, &object);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        errno = -rc;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->name);
    }
    Py_RETURN_NONE;
}

static void
segment_dealloc(PyObject *op)
{
    SegmentObject *self = (SegmentObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    Py_DECREF(segment_close(op, NULL));
    Py_XDECREF(self->name);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
segment_map(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_XNewRef(((SegmentObject *)op)->map);
}

static PyMethodDef segment_methods[] = {
    {"create", _PyCFunction_CAST(segment_create), METH_FASTCALL | METH_CLASS,
     NULL},
    {"attach", segment_attach, METH_O | METH_CLASS, NULL},
    {"anonymous", segment_anonymous, METH_O | METH_CLASS, NULL},
    {"close", segment_close, METH_NOARGS, NULL},
    {"unlink", segment_unlink, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef segment_getset[] = {
    {"map", segment_map, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot segment_slots[] = {
    {Py_tp_dealloc, segment_dealloc},
    {Py_tp_methods, segment_methods},
    {Py_tp_getset, segment_getset},
    {0, NULL},
};

static PyType_Spec segment_spec = {
    .name = "floor.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = segment_slots,
};

static PyMethodDef functions[] = {
    {"raw_create", raw_create, METH_VARARGS, NULL},
    {"raw_attach", raw_attach, METH_VARARGS, NULL},
    {"raw_anonymous", raw_anonymous, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
floor_add_objects(PyObject *module)
{
    (void)pthread_atfork(NULL, NULL, forget_directory);
    map_type = (PyTypeObject *)PyType_FromSpec(&map_spec);
    PyObject *segment_type = PyType_FromSpec(&segment_spec);
    int rc = map_type == NULL || segment_type == NULL
                     || PyModule_AddType(module, (PyTypeObject *)segment_type)
                            < 0
                 ? -1 : PyModule_AddFunctions(module, functions);
    Py_XDECREF(segment_type);
    return rc;
}
