/* The type SharedMemory. */
#include "core/memory/handle.h"

#include "core/memory/pages.h"

/* No tp_clear: the members of a handle cannot refer to it, and an address must
 * stay valid as long as any object, garbage or not, can use it. */
static int
handle_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

/* The mapping is the exporter, so its slot is called instead; but
 * numpy.frombuffer keeps a view only if the type has this slot. */
static void
handle_releasebuffer(PyObject *Py_UNUSED(op), Py_buffer *Py_UNUSED(view))
{
}

static PyObject *
handle_repr(PyObject *op)
{
    PyObject *type = PyType_GetName(Py_TYPE(op));
    PyObject *name = handle_get_name(op, NULL);
    PyObject *result = NULL;
    if (type != NULL) {
        Py_ssize_t size;
        bool open = handle_current_size(as_handle(op), &size);
        bool locked;
        fields_lock(&as_handle(op)->fields);
        locked = as_handle(op)->state.locked;
        fields_unlock(&as_handle(op)->fields);
        result = PyUnicode_FromFormat("%U(%R, size=%zd)%s", type, name, size,
                                      !open     ? " (closed)"
                                      : !locked ? " (without a use lock)"
                                                : "");
        Py_DECREF(type);
    }
    Py_DECREF(name);
    return result;
}

static PyObject *
handle_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return handle_check_open(as_handle(op)) < 0 ? NULL : Py_NewRef(op);
}

static PyObject *
handle_exit(PyObject *op, PyObject *const *Py_UNUSED(args),
            Py_ssize_t Py_UNUSED(count))
{
    return handle_close(op, NULL);
}

PyDoc_STRVAR(
    handle_doc,
    "SharedMemory(name=None, create=False, size=0, *, track=False)\n--\n\n"
    "A POSIX shared memory object: " MAN(shm_overview, 7) ".\n\n"
    "The constructor takes the arguments of the standard library's: it\n"
    "attaches to the object called name, or with create=True makes an object\n"
    "of size bytes (name None: a random name). The class methods create,\n"
    "open, anonymous, unlinked and from_fd have more arguments. track: the\n"
    "resource tracker of the standard library removes the name after this\n"
    "process and its children have ended.\n\n"
    "Exports its bytes (format 'B', one dimension). As a context manager it\n"
    "closes itself. Every view stays valid as long as it exists.\n\n"
    "Raises FileExistsError, FileNotFoundError and other OSErrors; "
    "ValueError.");

#define CAST(function) (PyCFunction)(void (*)(void))(function)
#define CLASS_METHOD(name) \
    {#name, CAST(handle_##name), \
     METH_CLASS | METH_FASTCALL | METH_KEYWORDS, handle_##name##_doc},
#define KEYWORD_METHOD(name) \
    {#name, CAST(handle_##name), METH_FASTCALL | METH_KEYWORDS, \
     handle_##name##_doc},
#define PLAIN_METHOD(name) \
    {#name, handle_##name, METH_NOARGS, handle_##name##_doc},
#define ONE_METHOD(name) \
    {#name, handle_##name, METH_O, handle_##name##_doc},
#define ATTRIBUTE(name) \
    {#name, handle_get_##name, NULL, handle_get_##name##_doc, NULL},

static PyMethodDef handle_methods[] = {
    HANDLE_CLASS_METHODS(CLASS_METHOD)
    HANDLE_KEYWORD_METHODS(KEYWORD_METHOD)
    HANDLE_PLAIN_METHODS(PLAIN_METHOD)
    HANDLE_ONE_METHODS(ONE_METHOD)
    PAGES_METHODS,
    {"__reduce__", handle_reduce, METH_NOARGS, handle_reduce_doc},
    {"__fspath__", handle_fspath, METH_NOARGS, handle_fspath_doc},
    {"__enter__", handle_enter, METH_NOARGS, NULL},
    {"__exit__", CAST(handle_exit), METH_FASTCALL, NULL},
    {0},
};

static PyGetSetDef handle_getset[] = {
    HANDLE_ATTRIBUTES(ATTRIBUTE)
    PAGES_GETSET,
    {0},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET,
     offsetof(SharedMemoryObject, weakrefs), Py_READONLY, NULL},
    {0},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)handle_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, handle_tp_init},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {Py_bf_getbuffer, handle_getbuffer},
    {Py_bf_releasebuffer, handle_releasebuffer},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "posixshm.SharedMemory",
    .basicsize = sizeof(SharedMemoryObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};
