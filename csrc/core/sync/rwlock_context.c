/* RWLock.read() and RWLock.write(), for a with block. */
#include "core/sync/rwlock.h"

#include "core/errors.h"

typedef struct {
    PyObject_HEAD
    RWLockObject *rwlock;
    wait_timeout timeout;
    bool writes;
} RWLockContextObject;

static PyObject *
new_context(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames, const struct signature *signature, bool writes)
{
    PyTypeObject *type =
        core_state_of_type(Py_TYPE(op))->rwlock_context_type;
    PyObject *value;
    wait_timeout timeout;
    if (args_match(signature, args, count, kwnames, &value) < 0
        || timeout_of_acquire(NULL, value, &timeout) < 0) {
        return NULL;
    }
    RWLockContextObject *self = (RWLockContextObject *)placed_alloc(type);
    if (self == NULL) {
        return NULL;
    }
    self->rwlock = (RWLockObject *)Py_NewRef(op);
    timeout_begin(&timeout);
    self->timeout = timeout;
    self->writes = writes;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

PARAMETERS(read, 1, 0, "timeout");
PARAMETERS(write, 1, 0, "timeout");

#define CONTEXT_DOC(method)                                                   \
    #method "($self, /, timeout=-1)\n--\n\n"                                  \
    "Return a context manager that acquires the lock to " #method ".\n\n"     \
    "Its __enter__ raises TimeoutError if the lock is not acquired within\n"  \
    "timeout seconds of this call."

const char rwlock_read_doc[] = CONTEXT_DOC(read);
const char rwlock_write_doc[] = CONTEXT_DOC(write);

PyObject *
rwlock_read(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    return new_context(op, args, count, kwnames, &read_signature, false);
}

PyObject *
rwlock_write(PyObject *op, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    return new_context(op, args, count, kwnames, &write_signature, true);
}

static PyObject *
context_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    RWLockContextObject *self = (RWLockContextObject *)op;
    int acquired = self->writes
                       ? rwlock_get_write(self->rwlock, self->timeout, false)
                       : rwlock_get_read(self->rwlock, self->timeout);
    if (acquired == 0) {
        raise_errno_words(-ETIMEDOUT, NULL, "The lock was not free in time");
    }
    return acquired <= 0 ? NULL : Py_NewRef((PyObject *)self->rwlock);
}

/* As lock_exit(). */
static PyObject *
context_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    RWLockObject *rwlock = ((RWLockContextObject *)op)->rwlock;
    bool raising = count > 0 && args[0] != Py_None;
    if (!(raising && !rwlock_is_mine(rwlock)) && rwlock_release(rwlock) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
context_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((RWLockContextObject *)op)->rwlock);
    return 0;
}

static void
context_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((RWLockContextObject *)op)->rwlock);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef context_methods[] = {WITH_METHODS(context), {0}};

static PyType_Slot context_slots[] = {
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_traverse, context_traverse},
    {Py_tp_methods, context_methods},
    {0, NULL},
};

static PyType_Spec context_spec = {
    .name = "posixshm._core._RWLockContext",
    .basicsize = sizeof(RWLockContextObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = context_slots,
};

int
rwlock_add_context_type(PyObject *module, core_state *state)
{
    state->rwlock_context_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &context_spec, NULL);
    return state->rwlock_context_type == NULL ? -1 : 0;
}
