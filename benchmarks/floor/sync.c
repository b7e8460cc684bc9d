/* Lock, Event and Atomic, at an offset of a writable buffer. */
#include "sync.h"

/* A wait is divided, because a signal may arrive just before the sleep. */
#define POLL_NS 50000000

typedef struct {
    PyObject_HEAD
    Py_buffer buffer;
    void *memory;
    int spins;                          /* of a Lock */
} PlacedObject;

/* ---- Opening ---- */

static PyObject *
placed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"buffer", "offset", "spins", NULL};
    Py_buffer buffer;
    Py_ssize_t offset;
    int spins = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "w*n|i", names, &buffer,
                                     &offset, &spins)) {
        return NULL;
    }
    PlacedObject *self = PyObject_New(PlacedObject, type);
    if (self == NULL || offset < 0 || offset + 64 > buffer.len) {
        PyBuffer_Release(&buffer);
        Py_XDECREF(self);
        return PyErr_Format(PyExc_ValueError, "bad offset");
    }
    self->buffer = buffer;
    self->memory = (char *)buffer.buf + offset;
    self->spins = spins;
    return (PyObject *)self;
}

static PyObject *
lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PlacedObject *self = (PlacedObject *)placed_new(type, args, kwargs);
    if (self != NULL) {
        (void)mutex_init(self->memory);
    }
    return (PyObject *)self;
}

static void
placed_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyBuffer_Release(&((PlacedObject *)op)->buffer);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- Lock ---- */

static Py_NO_INLINE int
wait_for_lock(PlacedObject *self)
{
    int rc;
    do {
        struct timespec end;
        Py_BEGIN_ALLOW_THREADS
        rc = mutex_spin(self->memory, self->spins);
        if (rc == EBUSY) {
            (void)clock_gettime(CLOCK_REALTIME, &end);
            end.tv_nsec += POLL_NS;
            end.tv_sec += end.tv_nsec / 1000000000;
            end.tv_nsec %= 1000000000;
            rc = pthread_mutex_timedlock(self->memory, &end);
        }
        Py_END_ALLOW_THREADS
    } while (rc == ETIMEDOUT && PyErr_CheckSignals() == 0);
    return rc;
}

static PyObject *
result_of_lock(int rc)
{
    if (rc != 0) {
        errno = rc;
        return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_TRUE;
}

static PyObject *
acquire(PlacedObject *self)
{
    int rc = pthread_mutex_trylock(self->memory);
    if (rc == EBUSY) {
        rc = wait_for_lock(self);
    }
    return result_of_lock(rc);
}

static PyObject *
lock_acquire(PyObject *op, PyObject *const *Py_UNUSED(args), Py_ssize_t count,
             PyObject *names)
{
    if (count > 0 || names != NULL) {
        return PyErr_Format(PyExc_TypeError, "acquire()");
    }
    return acquire((PlacedObject *)op);
}

static PyObject *
lock_enter(PyObject *op, PyObject *Py_UNUSED(args))
{
    return acquire((PlacedObject *)op);
}

static PyObject *
lock_release(PyObject *op, PyObject *Py_UNUSED(args))
{
    int rc = pthread_mutex_unlock(((PlacedObject *)op)->memory);
    if (rc != 0) {
        return result_of_lock(rc);
    }
    Py_RETURN_NONE;
}

static PyObject *
lock_exit(PyObject *op, PyObject *const *Py_UNUSED(args),
          Py_ssize_t Py_UNUSED(count))
{
    return lock_release(op, NULL);
}

/* ---- Event: two words, the value and the number of waiters ---- */

static PyObject *
event_set(PyObject *op, PyObject *Py_UNUSED(args))
{
    atomic_uint *word = ((PlacedObject *)op)->memory;
    atomic_store(&word[0], 1);
    if (atomic_load(&word[1]) != 0) {
        (void)futex_wake(word, INT_MAX);
    }
    Py_RETURN_NONE;
}

static PyObject *
event_wait(PyObject *op, PyObject *const *Py_UNUSED(args),
           Py_ssize_t Py_UNUSED(count), PyObject *Py_UNUSED(names))
{
    atomic_uint *word = ((PlacedObject *)op)->memory;
    const struct timespec poll = {.tv_nsec = POLL_NS};
    while (atomic_load(word) == 0) {
        Py_BEGIN_ALLOW_THREADS
        atomic_fetch_add(&word[1], 1);
        (void)futex_wait(word, 0, &poll);
        atomic_fetch_sub(&word[1], 1);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    Py_RETURN_TRUE;
}

static PyObject *
event_clear(PyObject *op, PyObject *Py_UNUSED(args))
{
    atomic_store((atomic_uint *)((PlacedObject *)op)->memory, 0);
    Py_RETURN_NONE;
}

/* ---- Atomic ---- */

static PyObject *
atomic_fetch_add_(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *names)
{
    if (count != 1 || names != NULL) {
        return PyErr_Format(PyExc_TypeError, "fetch_add(value)");
    }
    long long value = PyLong_AsLongLong(args[0]);
    if (value == -1 && PyErr_Occurred()) {
        return NULL;
    }
    _Atomic(long long) *word = ((PlacedObject *)op)->memory;
    return PyLong_FromLongLong(atomic_fetch_add(word, value));
}

/* ---- Types ---- */

static PyMethodDef lock_methods[] = {
    {"acquire", _PyCFunction_CAST(lock_acquire), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"release", lock_release, METH_NOARGS, NULL},
    {"__enter__", lock_enter, METH_NOARGS, NULL},
    {"__exit__", _PyCFunction_CAST(lock_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef event_methods[] = {
    {"set", event_set, METH_NOARGS, NULL},
    {"wait", _PyCFunction_CAST(event_wait), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"clear", event_clear, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef atomic_methods[] = {
    {"fetch_add", _PyCFunction_CAST(atomic_fetch_add_),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, const char *name, newfunc new, PyMethodDef *methods)
{
    PyType_Slot slots[] = {
        {Py_tp_new, new},
        {Py_tp_dealloc, placed_dealloc},
        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {name, sizeof(PlacedObject), 0, Py_TPFLAGS_DEFAULT,
                        slots};
    PyObject *type = PyType_FromSpec(&spec);
    int rc = type == NULL ? -1 : PyModule_AddType(module,
                                                  (PyTypeObject *)type);
    Py_XDECREF(type);
    return rc;
}

int
floor_add_sync(PyObject *module)
{
    return add_type(module, "floor.Lock", lock_new, lock_methods) < 0
                   || add_type(module, "floor.Event", placed_new,
                               event_methods) < 0
                   || add_type(module, "floor.Atomic", placed_new,
                               atomic_methods) < 0
               ? -1 : 0;
}
