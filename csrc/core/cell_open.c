/* Opening a cell: in a segment, or in an object of its own. */
#include "cell.h"

#include <sys/mman.h>

#include "args.h"
#include "errors.h"
#include "handle.h"
#include "waiting.h"

/* How long to wait for another who is making the same cell, nanoseconds. */
#define PATIENCE ((int64_t)1000 * 1000 * 1000)

static const char *const kind_names[] = {
    "nothing", "a Semaphore", "a Lock", "an RLock", "a Condition", "an Event",
    "a Barrier", "an RWLock",
};

/* ---- Opening ---- */

int
opening_parse(opening *how, PyObject **values)
{
    if (arg_bool(values[0], &how->create) < 0
        || arg_bool(values[1], &how->exist_ok) < 0) {
        return -1;
    }
    if (how->exist_ok && !how->create) {
        PyErr_SetString(PyExc_ValueError, "exist_ok goes with create=True");
        return -1;
    }
    return 0;
}

static void
raise_opening(int rc, const opening *how, Py_ssize_t offset, PyObject *name,
              enum pshm_cell_kind found)
{
    switch (rc) {
    case -ENOENT:
        raise_errno_words(rc, name, "There is no %s at offset %zd", how->what,
                          offset);
        break;
    case -EEXIST:
        raise_errno_words(rc, name, "There is %s at offset %zd already",
                          kind_names[how->spec.kind], offset);
        break;
    case -ETIMEDOUT:
        raise_errno_words(rc, name,
                          "Somebody began to make the cell at offset %zd and "
                          "does not end", offset);
        break;
    case -EXDEV:
        raise_errno_words(rc, name,
                          "The %s at offset %zd is of processes in another "
                          "PID namespace, whose ids mean nothing here",
                          how->what, offset);
        break;
    case -ENOEXEC:
        raise_errno_words(rc, name,
                          "The cell at offset %zd was made with another C "
                          "library, word size or version of posixshm", offset);
        break;
    case -EPROTOTYPE:
        PyErr_Format(PyExc_ValueError, "there is %s at offset %zd, not %s",
                     found < Py_ARRAY_LENGTH(kind_names) ? kind_names[found]
                                                         : "something",
                     offset, kind_names[how->spec.kind]);
        break;
    case -EBADMSG:
        PyErr_Format(PyExc_ValueError,
                     "the bytes at offset %zd are no %s, nor all zero for one "
                     "to be made of them", offset, how->what);
        break;
    default:
        raise_errno(rc, name);
    }
}

mapping *
cell_take_writable(core_state *state, PyObject *shm, const char *what)
{
    mapping *map;
    Py_buffer view;
    if (PyObject_TypeCheck(shm, state->handle_type)) {
        Py_ssize_t size;
        (void)handle_current_size(as_handle(shm), &size);
        map = handle_take_map(as_handle(shm));
    }
    else if (Py_IS_TYPE(shm, state->mapping_type)) {
        map = (mapping *)Py_NewRef(shm);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "shm must be a SharedMemory or a MemoryMap, not %.200s",
                     Py_TYPE(shm)->tp_name);
        return NULL;
    }
    /* As a view that was handed out, it forbids to take the right away. */
    if (map != NULL && mapping_get_buffer(map, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        raise_errno_words(-EACCES, NULL,
                          "%s needs memory that can be written, and this is "
                          "read-only", what);
        Py_CLEAR(map);
    }
    if (map != NULL) {
        PyBuffer_Release(&view);
    }
    return map;
}

static int
check_range(const opening *how, mapping *map, Py_ssize_t offset)
{
    Py_ssize_t have = mapping_size(map), need = (Py_ssize_t)how->spec.size;
    if (offset % PSHM_CELL_ALIGNMENT != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of %d, not %zd",
                     PSHM_CELL_ALIGNMENT, offset);
        return -1;
    }
    if (need > have || offset > have - need) {
        PyErr_Format(PyExc_ValueError,
                     "%s at offset %zd takes %zd bytes, past the end at %zd",
                     kind_names[how->spec.kind], offset, need, have);
        return -1;
    }
    return 0;
}

/* 0, or -1 with an exception. */
static int
make_or_look(opening *how, struct pshm_cell *place, Py_ssize_t offset,
             PyObject *name)
{
    enum pshm_cell_kind found = PSHM_CELL_NONE;
    int rc;
    if (how->create) {
        int64_t until = pshm_now() + PATIENCE;
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_cell_make(place, &how->spec, until, &found);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
        if (rc == -EEXIST && how->exist_ok) {
            rc = 0;
        }
    }
    else {
        rc = pshm_cell_look(place, &how->spec, &found);
    }
    if (rc == -EINTR) {
        return -1;
    }
    if (rc < 0) {
        raise_opening(rc, how, offset, name, found);
    }
    return rc < 0 ? -1 : 0;
}

cell *
cell_open_at(opening *how, PyObject *shm, PyObject *offset_value)
{
    Py_ssize_t offset = 0;
    if (offset_value != NULL
        && arg_offset(offset_value, "offset", &offset) < 0) {
        return NULL;
    }
    mapping *map = cell_take_writable(how->state, shm, how->what);
    if (map == NULL) {
        return NULL;
    }
    struct pshm_cell *place = (struct pshm_cell *)(void *)(map->base + offset);
    PyObject *name = Py_IS_TYPE(shm, how->state->mapping_type)
                         ? NULL : handle_name_object(as_handle(shm));
    cell *self = NULL;
    if (check_range(how, map, offset) == 0
        && make_or_look(how, place, offset, name) == 0) {
        self = (cell *)how->type->tp_alloc(how->type, 0);
    }
    Py_XDECREF(name);
    if (self == NULL) {
        Py_DECREF(map);
        return NULL;
    }
    self->map = map;
    self->place = place;
    self->kind = how->spec.kind;
    self->offset = offset;
    self->shm = Py_NewRef(shm);
    return self;
}

/* ---- In an object of its own ---- */

#define CAPSULE "posixshm.opening"

/* init= of SharedMemory.create: make the cell before anybody can see it. */
static PyObject *
fill_object(PyObject *capsule, PyObject *buffer)
{
    opening *how = PyCapsule_GetPointer(capsule, CAPSULE);
    Py_buffer view;
    if (how == NULL || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    opening fresh = *how;
    fresh.create = true;
    int rc = make_or_look(&fresh, view.buf, 0, NULL);
    PyBuffer_Release(&view);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef fill_method = {"fill", fill_object, METH_O, NULL};

static PyObject *
create_object(opening *how, PyObject *name)
{
    PyObject *handles = (PyObject *)how->state->handle_type;
    PyObject *create = NULL, *args = NULL, *kwargs = NULL, *result = NULL;
    PyObject *capsule = PyCapsule_New(how, CAPSULE, NULL);
    PyObject *fill = capsule != NULL ? PyCFunction_New(&fill_method, capsule)
                                     : NULL;
    if (fill != NULL) {
        create = PyObject_GetAttrString(handles, "create");
        args = Py_BuildValue("(On)", name, (Py_ssize_t)how->spec.size);
        kwargs = Py_BuildValue("{sIsOsO}", "mode", (unsigned)how->mode,
                               "exist_ok", how->exist_ok ? Py_True : Py_False,
                               "init", fill);
    }
    if (create != NULL && args != NULL && kwargs != NULL) {
        result = PyObject_Call(create, args, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(create);
    Py_XDECREF(fill);
    Py_XDECREF(capsule);
    return result;
}

cell *
cell_open_named(opening *how, PyObject *name)
{
    struct pshm_name path;
    if (arg_name(name, &path) < 0) {
        return NULL;
    }
    PyObject *shm = how->create
                        ? create_object(how, name)
                        : PyObject_CallMethod(
                              (PyObject *)how->state->handle_type, "open",
                              "O", name);
    if (shm == NULL) {
        return NULL;
    }
    opening there = *how;
    there.create = false;
    cell *self = cell_open_at(&there, shm, NULL);
    if (self != NULL) {
        self->named = true;
    }
    Py_DECREF(shm);
    return self;
}
