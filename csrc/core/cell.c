/* Cells: what is done with an open one; closing, pickling; their types. */
#include "cell.h"

#include "errors.h"

int
cell_refuse(cell *self)
{
    if (atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        PyErr_Format(PyExc_ValueError, "the %s is closed",
                     Py_TYPE(self)->tp_name);
        return -1;
    }
    return cell_raise(self, -EBADMSG);
}

int
cell_raise(cell *self, int rc)
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
cell_traverse(cell *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->shm);
    return 0;
}

int
cell_clear(cell *self)
{
    Py_CLEAR(self->shm);
    return 0;
}

void
cell_end(cell *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
}

void
cell_free(cell *self, bool held)
{
    PyTypeObject *type = Py_TYPE(self);
    (void)cell_clear(self);
    if (!held) {
        Py_CLEAR(self->map);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyObject *
cell_repr(PyObject *op)
{
    cell *self = as_cell(op);
    PyObject *type = PyType_GetName(Py_TYPE(op));
    PyObject *name = cell_get_name(op, NULL);
    PyObject *result = NULL;
    if (type != NULL && name != NULL) {
        const char *closed = atomic_load(&self->closed) ? " (closed)" : "";
        result = name != Py_None
                     ? PyUnicode_FromFormat("%U(%R)%s", type, name, closed)
                     : PyUnicode_FromFormat("<posixshm.%U at offset %zd%s>",
                                            type, self->offset, closed);
    }
    Py_XDECREF(type);
    Py_XDECREF(name);
    return result;
}

const char cell_close_doc[] =
    "close($self, /)\n--\n\n"
    "Be done with it here.  Closing twice is harmless.  What this thread holds\n"
    "it can still release; the memory goes with the object.";

PyObject *
cell_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    cell *self = as_cell(op);
    atomic_store(&self->closed, true);
    if (self->named && self->shm != NULL) {
        PyObject *result = PyObject_CallMethod(self->shm, "close", NULL);
        if (result == NULL) {
            return NULL;
        }
        Py_DECREF(result);
    }
    Py_RETURN_NONE;
}

const char cell_unlink_doc[] =
    "unlink($self, /)\n--\n\n"
    "Remove its name, if that still is its own: " MAN(shm_unlink, 3) ".\n\n"
    "Who has it open keeps it.  Raises FileNotFoundError; ValueError for one\n"
    "that has no name but lies in a segment.";

PyObject *
cell_unlink(PyObject *op, PyObject *Py_UNUSED(unused))
{
    cell *self = as_cell(op);
    if (!self->named || self->shm == NULL) {
        return PyErr_Format(PyExc_ValueError,
                            "the %s has no name of its own to unlink",
                            Py_TYPE(op)->tp_name);
    }
    return PyObject_CallMethod(self->shm, "unlink", NULL);
}

const char cell_name_doc[] =
    "Its own name, without a slash, or None for one in a segment.";

PyObject *
cell_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    cell *self = as_cell(op);
    return self->named && self->shm != NULL
               ? PyObject_GetAttrString(self->shm, "name")
               : Py_NewRef(Py_None);
}

const char cell_offset_doc[] = "Where it begins in its segment, bytes.";

PyObject *
cell_get_offset(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(as_cell(op)->offset);
}

const char cell_closed_doc[] = "Whether close() was called.";

PyObject *
cell_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&as_cell(op)->closed));
}

/* ---- Pickling ---- */

PyObject *
cell_reduce(cell *self, PyObject *options)
{
    core_state *state = core_state_of_type(Py_TYPE(self));
    if (options == NULL) {
        return NULL;
    }
    if (atomic_load(&self->closed)) {
        Py_DECREF(options);
        return PyErr_Format(PyExc_ValueError, "the %s is closed",
                            Py_TYPE(self)->tp_name);
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
    return Py_BuildValue("O(OOnON)", state->open_cell_function, Py_TYPE(self),
                         self->shm, self->offset,
                         self->named ? Py_True : Py_False, options);
}

/* _open_cell(type, shm, offset, named, options) */
static PyObject *
open_cell(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *type, *shm, *offset, *options;
    int named;
    if (!PyArg_ParseTuple(args, "O!OOpO!:_open_cell", &PyType_Type, &type,
                          &shm, &offset, &named, &PyDict_Type, &options)) {
        return NULL;
    }
    bool known = false;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(state->cell_types); i++) {
        known = known || type == (PyObject *)state->cell_types[i];
    }
    if (!known) {
        return PyErr_Format(PyExc_TypeError, "not a pickle of a primitive");
    }
    PyObject *at = PyObject_GetAttrString(type, "at");
    PyObject *where = Py_BuildValue("(OO)", shm, offset);
    PyObject *result = at != NULL && where != NULL
                           ? PyObject_Call(at, where, options) : NULL;
    Py_XDECREF(at);
    Py_XDECREF(where);
    if (result != NULL) {
        as_cell(result)->named = named;
    }
    return result;
}

PyMethodDef cell_functions[] = {
    {"_open_cell", open_cell, METH_VARARGS, NULL},
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
cell_add_type(PyObject *module, PyType_Spec *spec, Py_ssize_t size,
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
