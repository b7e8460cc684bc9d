/* The methods and attributes that all primitives share. */
#include "core/sync/placed.h"

#include "core/errors.h"
#include "core/memory/handle.h"

/* ---- Errors ---- */

int
placed_raise_unusable(PlacedObject *self)
{
    if (atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        PyErr_Format(PyExc_ValueError, "the %s is closed", self->type->name);
        return -1;
    }
    if (self->readonly
        && (self->primitive == NULL
            || pshm_primitive_intact(self->primitive, self->kind))) {
        raise_errno_words(-EACCES, NULL,
                          "The %s is in read-only memory, so it cannot be "
                          "changed; open the SharedMemory without "
                          "readonly=True", self->type->name);
        return -1;
    }
    return placed_raise(self, -EBADMSG);
}

int
placed_raise(PlacedObject *self, int rc)
{
    if (rc == -EBADMSG) {
        return placed_raise_words(self, rc,
                                  "The bytes of the %U were written over; all "
                                  "processes must write to its memory only "
                                  "through its methods");
    }
    raise_errno(rc, NULL);
    return -1;
}

int
placed_raise_words(PlacedObject *self, int rc, const char *format)
{
    PyObject *description = placed_describe(self);
    if (description != NULL) {
        raise_errno_words(rc, NULL, format, description);
        Py_DECREF(description);
    }
    return -1;
}

PyObject *
placed_describe(PlacedObject *self)
{
    const char *type = self->type->name;
    PyObject *name = placed_get_name((PyObject *)self, NULL);
    if (name == NULL) {
        return NULL;
    }
    PyObject *result =
        name != Py_None ? PyUnicode_FromFormat("%s %R", type, name)
        : self->own     ? PyUnicode_FromFormat("%s without a name", type)
                        : PyUnicode_FromFormat("%s at offset %zd", type,
                                               self->offset);
    Py_DECREF(name);
    return result;
}

/* ---- Methods ---- */

const char placed_close_doc[] =
    "close($self, /)\n--\n\n"
    "Make all further uses of this Python object raise ValueError.\n\n"
    "Closing it again does nothing. A thread that holds a lock can still\n"
    "release it. The memory is unmapped after the object is deallocated.";

PyObject *
placed_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    atomic_store(&self->closed, true);
    return self->own ? handle_close(self->shm, NULL) : Py_NewRef(Py_None);
}

const char placed_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove the name, if it still refers to this primitive: "
    MAN(shm_unlink, 3) ".\n\n"
    "Processes that have the primitive open keep using it. Raises\n"
    "FileNotFoundError; ValueError if it does not have a name of its own.";

PyObject *
placed_unlink(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    PyObject *name = placed_get_name(op, NULL);
    if (name == NULL) {
        return NULL;
    }
    Py_DECREF(name);
    if (name == Py_None) {
        return PyErr_Format(PyExc_ValueError,
                            "the %s has no name of its own to unlink; unlink "
                            "the SharedMemory that contains it",
                            self->type->name);
    }
    return handle_unlink(self->shm, NULL);
}

/* The SharedMemory that contains it, borrowed; or NULL with ValueError. */
static PyObject *
handle_of(PyObject *op)
{
    core_state *state = core_state_of_type(Py_TYPE(op));
    PlacedObject *self = as_placed(op);
    if (self->shm == NULL
        || !PyObject_TypeCheck(self->shm, state->handle_type)) {
        PyErr_Format(PyExc_ValueError,
                     "the %s was opened in a MemoryMap, which does not refer "
                     "to its object; open it in a SharedMemory",
                     self->type->name);
        return NULL;
    }
    return self->shm;
}

const char placed_stat_doc[] =
    "stat($self, /)\n--\n\n"
    "Return an os.stat_result of the object that contains it: "
    MAN(fstat, 2) ".\n\n"
    "Raises ValueError after close(), or if it was opened in a MemoryMap.";

PyObject *
placed_stat(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *shm = handle_of(op);
    return shm == NULL ? NULL : handle_stat(shm, NULL);
}

/* ---- Attributes ---- */

const char placed_uid_doc[] =
    "User id of the owner of the object that contains it.\n\n"
    "Raises ValueError after close(), or if it was opened in a MemoryMap.";

PyObject *
placed_get_uid(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *shm = handle_of(op);
    return shm == NULL ? NULL : handle_get_uid(shm, NULL);
}

const char placed_shm_doc[] =
    "SharedMemory or MemoryMap that it was opened in.\n\n"
    "A SharedMemory of its own if it was opened by name or is anonymous; None\n"
    "for the lock that is a part of a Condition.";

PyObject *
placed_get_shm(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *shm = as_placed(op)->shm;
    return Py_NewRef(shm != NULL ? shm : Py_None);
}

const char placed_name_doc[] =
    "Its own name, a str without a slash; None if it does not have one.";

PyObject *
placed_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PlacedObject *self = as_placed(op);
    PyObject *name =
        self->own ? handle_name_object((SharedMemoryObject *)self->shm) : NULL;
    if (name == NULL) {
        Py_RETURN_NONE;
    }
    if (self->primitive == NULL && self->type->file != NULL) {
        const char *text = PyUnicode_AsUTF8(name);
        Py_XSETREF(name, text == NULL ? NULL
                                      : PyUnicode_FromString(
                                            self->type->file->plain(text)));
    }
    return name;
}

const char placed_offset_doc[] = "Its offset in the object, bytes.";

const char placed_closed_doc[] = "True after close() was called.";

PyObject *
placed_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&as_placed(op)->closed));
}
