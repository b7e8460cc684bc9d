/* Cells: what is done with an open one; closing, pickling; their types. */
#include "core/sync/placed.h"

#include "core/errors.h"
#include "core/memory/handle.h"
#include "core/sync/semaphore.h"

int
placed_refuse(PlacedObject *self)
{
    if (atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        PyErr_Format(PyExc_ValueError, "the %s is closed",
                     Py_TYPE(self)->tp_name);
        return -1;
    }
    if (self->readonly
        && (self->place == NULL
            || pshm_primitive_intact(self->place, self->kind))) {
        raise_errno_words(-EACCES, NULL,
                          "The %s is in read-only memory, where it can be read "
                          "only; open the SharedMemory without readonly=True",
                          Py_TYPE(self)->tp_name);
        return -1;
    }
    return placed_raise(self, -EBADMSG);
}

int
placed_raise(PlacedObject *self, int rc)
{
    if (rc == -EBADMSG) {
        raise_errno_words(rc, NULL,
                          "The bytes of the %s at offset %zd were written "
                          "over", Py_TYPE(self)->tp_name, self->offset);
    }
    else {
        raise_errno(rc, NULL);
    }
    return -1;
}

/* ---- The object ---- */

int
placed_traverse(PlacedObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->shm);
    return 0;
}

int
placed_clear(PlacedObject *self)
{
    self->own = false;
    Py_CLEAR(self->shm);
    return 0;
}

void
placed_end(PlacedObject *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
}

void
placed_free(PlacedObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    (void)placed_clear(self);
    Py_CLEAR(self->map);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyObject *
placed_describe(PlacedObject *self)
{
    PyObject *type = PyType_GetName(Py_TYPE(self));
    PyObject *name = type == NULL ? NULL
                                  : placed_get_name((PyObject *)self, NULL);
    PyObject *result = NULL;
    if (name != NULL && name != Py_None) {
        result = PyUnicode_FromFormat("%U %R", type, name);
    }
    else if (name != NULL && self->own) {
        result = PyUnicode_FromFormat("%U without a name", type);
    }
    else if (name != NULL) {
        result = PyUnicode_FromFormat("%U at offset %zd", type, self->offset);
    }
    Py_XDECREF(name);
    Py_XDECREF(type);
    return result;
}

int
placed_raise_words(PlacedObject *self, int rc, const char *format)
{
    PyObject *place = placed_describe(self);
    if (place != NULL) {
        raise_errno_words(rc, NULL, format, place);
        Py_DECREF(place);
    }
    return -1;
}

PyObject *
placed_repr(PyObject *op, PyObject *state)
{
    PyObject *place = state != NULL ? placed_describe(as_placed(op)) : NULL;
    PyObject *result = NULL;
    if (place != NULL && atomic_load(&as_placed(op)->closed)) {
        result = PyUnicode_FromFormat("<posixshm.%U: closed>", place);
    }
    else if (place != NULL) {
        result = PyUnicode_FromFormat("<posixshm.%U: %U>", place, state);
    }
    Py_XDECREF(place);
    Py_XDECREF(state);
    return result;
}

const char placed_close_doc[] =
    "close($self, /)\n--\n\n"
    "Refuse all further use through this Python object.  Closing twice is\n"
    "harmless.  A lock that this thread holds it can still release; the memory\n"
    "goes with the object.";

PyObject *
placed_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    atomic_store(&self->closed, true);
    if (self->own) {
        return handle_close(self->shm, NULL);
    }
    Py_RETURN_NONE;
}

const char placed_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove the name, if it still leads to this primitive: "
    MAN(shm_unlink, 3) ".\n\n"
    "Processes that have it open keep using it.  Raises FileNotFoundError;\n"
    "ValueError where it has no name of its own.";

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
                            "the %s has no name of its own to unlink",
                            Py_TYPE(op)->tp_name);
    }
    return handle_unlink(self->shm, NULL);
}

/* The SharedMemory that it lies in, borrowed; or NULL with ValueError. */
static PyObject *
object_of(PyObject *op)
{
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *shm = as_placed(op)->shm;
    if (shm == NULL || !PyObject_TypeCheck(shm, state->handle_type)) {
        PyErr_Format(PyExc_ValueError,
                     "the %s was opened in a MemoryMap, which does not tell "
                     "its object; open it in a SharedMemory",
                     Py_TYPE(op)->tp_name);
        return NULL;
    }
    return shm;
}

const char placed_stat_doc[] =
    "stat($self, /)\n--\n\n"
    "An os.stat_result of the object that it lies in: " MAN(fstat, 2) ".\n\n"
    "Raises ValueError after close(), or in a MemoryMap.";

PyObject *
placed_stat(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *shm = object_of(op);
    return shm == NULL ? NULL : handle_stat(shm, NULL);
}

const char placed_uid_doc[] =
    "The owner's user id, of the object that it lies in.  Raises ValueError\n"
    "after close(), or in a MemoryMap.";

PyObject *
placed_get_uid(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *shm = object_of(op);
    return shm == NULL ? NULL : handle_get_uid(shm, NULL);
}

const char placed_shm_doc[] =
    "The SharedMemory or MemoryMap that it lies in.  Where it has a name of\n"
    "its own, or none, its own SharedMemory; of a condition's own lock None.";

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
    PyObject *name = self->own ? handle_name_object(as_handle(self->shm))
                               : NULL;
    if (name == NULL) {
        Py_RETURN_NONE;
    }
    if (self->place == NULL) {          /* a semaphore's file */
        const char *text = PyUnicode_AsUTF8(name);
        Py_XSETREF(name, text == NULL ? NULL : PyUnicode_FromString(
                                                   pshm_sem_plain(text)));
    }
    return name;
}

const char placed_offset_doc[] = "Where it begins in its object, bytes.";

PyObject *
placed_get_offset(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_placed(op)->offset);
}

const char placed_closed_doc[] = "Whether close() was called.";

PyObject *
placed_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&as_placed(op)->closed));
}

/* ---- Pickling ---- */

const char placed_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle by reference, together with the object that it lies in.  Works\n"
    "after close() too, unless that has no name.  Raises TypeError where it is\n"
    "a MemoryMap.";

PyObject *
placed_reduce(PlacedObject *self, PyObject *options)
{
    core_state *state = core_state_of_type(Py_TYPE(self));
    if (options == NULL) {
        return NULL;
    }
    if (self->shm == NULL) {
        Py_DECREF(options);
        return PyErr_Format(PyExc_TypeError,
                            "a condition's own lock cannot be pickled; pickle "
                            "the condition");
    }
    if (Py_IS_TYPE(self->shm, state->mapping_type)) {
        Py_DECREF(options);
        return PyErr_Format(PyExc_TypeError,
                            "a %s that was opened in a MemoryMap cannot be "
                            "pickled; open it in a SharedMemory",
                            Py_TYPE(self)->tp_name);
    }
    return Py_BuildValue("O(OOnON)", state->open_placed_function, Py_TYPE(self),
                         self->shm, self->offset,
                         self->own ? Py_True : Py_False, options);
}

static PyObject *
call_at(PyObject *type, PyObject *shm, PyObject *offset, PyObject *options)
{
    PyObject *at = PyObject_GetAttrString(type, "at");
    PyObject *where = Py_BuildValue("(OO)", shm, offset);
    PyObject *result = at != NULL && where != NULL
                           ? PyObject_Call(at, where, options) : NULL;
    Py_XDECREF(at);
    Py_XDECREF(where);
    return result;
}

/* _open_placed(type, shm, offset, own, options) */
static PyObject *
open_placed(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *type, *shm, *offset, *options;
    int own;
    if (!PyArg_ParseTuple(args, "O!OOpO!:_open_placed", &PyType_Type, &type,
                          &shm, &offset, &own, &PyDict_Type, &options)) {
        return NULL;
    }
    bool known = false;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(state->placed_types); i++) {
        known = known || type == (PyObject *)state->placed_types[i];
    }
    own = own && PyObject_TypeCheck(shm, state->handle_type);
    if (!known || (own && type == (PyObject *)state->atomic_type)) {
        return PyErr_Format(PyExc_TypeError, "not a pickle of a primitive");
    }
    if (own && type == (PyObject *)state->semaphore_type) {
        PyObject *name = handle_name_object(as_handle(shm));
        if (name != NULL) {
            Py_DECREF(name);
            return semaphore_from_file(state, shm);
        }
    }
    PyObject *result = call_at(type, shm, offset, options);
    if (result != NULL) {
        as_placed(result)->own = own;
    }
    return result;
}

PyMethodDef placed_functions[] = {
    {"_open_placed", open_placed, METH_VARARGS, NULL},
    {0},
};

/* ---- Types ---- */

/* The type is immutable, so its numbers go into its dict, before anything but
 * the module has it. */
static int
set_number(PyTypeObject *type, const char *name, Py_ssize_t value)
{
    PyObject *number = PyLong_FromSsize_t(value);
    int rc = number == NULL ? -1 : PyDict_SetItemString(type->tp_dict, name,
                                                        number);
    Py_XDECREF(number);
    return rc;
}

PyTypeObject *
placed_add_type(PyObject *module, PyType_Spec *spec, Py_ssize_t size,
              Py_ssize_t alignment)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, spec, NULL);
    if (type == NULL || set_number(type, "nbytes", size) < 0
        || set_number(type, "alignment", alignment) < 0) {
        Py_XDECREF(type);
        return NULL;
    }
    PyType_Modified(type);
    if (PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}
