/* What a handle knows of itself. */
#include "core/memory/handle.h"

#include "posix/constants.h"

const char handle_get_name_doc[] =
    "The name, a str without a slash; None where the object has none.";

PyObject *
handle_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *name = handle_name_object(as_handle(op));
    return name != NULL ? name : Py_NewRef(Py_None);
}

const char handle_get_size_doc[] =
    "Size in bytes, as mapped; where the object grows in place (max_size),\n"
    "its size of now.  After close() the last one known.";

PyObject *
handle_get_size(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size;
    (void)handle_current_size(as_handle(op), &size);
    return PyLong_FromSsize_t(size);
}

const char handle_get_readonly_doc[] =
    "Whether the bytes cannot be written through this handle.";

bool
handle_is_readonly(SharedMemoryObject *self)
{
    bool readonly;
    fields_lock(&self->fields);
    readonly = self->body.readonly
               || (self->open && !(self->body.map->prot & PROT_WRITE));
    fields_unlock(&self->fields);
    return readonly;
}

PyObject *
handle_get_readonly(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(handle_is_readonly(as_handle(op)));
}

const char handle_get_closed_doc[] = "Whether close() was called.";

PyObject *
handle_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    bool open;
    fields_lock(&self->fields);
    open = self->open;
    fields_unlock(&self->fields);
    return PyBool_FromLong(!open);
}

const char handle_get_created_doc[] =
    "Whether this handle made the object, and did not attach to it.";

bool
handle_has_name(SharedMemoryObject *self)
{
    bool named;
    fields_lock(&self->fields);
    named = self->body.name != NULL;
    fields_unlock(&self->fields);
    return named;
}

bool
handle_was_created(SharedMemoryObject *self)
{
    bool created;
    fields_lock(&self->fields);
    created = self->body.created;
    fields_unlock(&self->fields);
    return created;
}

PyObject *
handle_get_created(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(handle_was_created(as_handle(op)));
}

const char handle_get_holds_use_lock_doc[] =
    "Whether reclaim() sees by a lock that the object is in use.  False if\n"
    "another process keeps the object locked exclusively since before this\n"
    "handle was made.";

PyObject *
handle_get_holds_use_lock(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    bool locked;
    fields_lock(&self->fields);
    locked = self->open && self->body.locked;
    fields_unlock(&self->fields);
    return PyBool_FromLong(locked);
}

const char handle_get_max_size_doc[] =
    "Bytes of address space reserved for the object to grow in; None where\n"
    "it does not grow in place.";

PyObject *
handle_get_max_size(PyObject *op, void *Py_UNUSED(closure))
{
    SharedMemoryObject *self = as_handle(op);
    Py_ssize_t max_size;
    fields_lock(&self->fields);
    max_size = self->body.max_size;
    fields_unlock(&self->fields);
    return max_size > 0 ? PyLong_FromSsize_t(max_size) : Py_NewRef(Py_None);
}
