/* What all primitives have in common: a cell in shared memory.
 *
 * An object of theirs keeps the mapping that its cell lies in, so the address
 * is good for as long as the object lives, whatever happens to the handle.  One
 * that is gone while a thread of this process holds it leaves the mapping to the
 * process for good: the C library has the thread's mutexes in a list. */
#ifndef CORE_CELL_H
#define CORE_CELL_H

#include "core.h"
#include "fields.h"
#include "mapping.h"

#include "posix/cell.h"

typedef struct {
    PyObject_HEAD
    mapping *map;                       /* or NULL */
    struct pshm_cell *place;
    enum pshm_cell_kind kind;
    Py_ssize_t offset;                  /* bytes */
    PyObject *shm;                      /* what it was opened with, or NULL */
    bool named;                         /* shm is its own */
    atomic_bool closed;
    PyObject *weakrefs;
} cell;

static inline cell *
as_cell(PyObject *op)
{
    return (cell *)op;
}

/* How one is to be opened. */
typedef struct {
    core_state *state;
    PyTypeObject *type;
    const char *what;                   /* "Lock", for messages */
    struct pshm_cell_spec spec;
    bool create;
    bool exist_ok;
    mode_t mode;                        /* of a named one's object */
} opening;

/* The arguments that all have: create and exist_ok, from values[0] on.
 * Returns 0 or -1. */
int opening_parse(opening *how, PyObject **values);

/* A new object of how->type with its cell at that offset of shm, a SharedMemory
 * or a MemoryMap; made if how says so.  NULL with an exception. */
cell *cell_open_at(opening *how, PyObject *shm, PyObject *offset);

/* The same in an object of its own called name. */
cell *cell_open_named(opening *how, PyObject *name);

/* The mapping that shm is or has, which can be written and stays so: a new
 * reference, or NULL. */
mapping *cell_take_writable(core_state *state, PyObject *shm,
                            const char *what);

/* at() or the constructor, whichever it was. */
static inline cell *
cell_open(opening *how, PyObject *name, PyObject *shm, PyObject *offset)
{
    return shm != NULL ? cell_open_at(how, shm, offset)
                       : cell_open_named(how, name);
}

/* Before a use: is it open and nobody has written over its tag?  Returns 0, or
 * -1 with ValueError or OSError (EBADMSG). */
int cell_refuse(cell *self);            /* the slow half */

static inline int
cell_check(cell *self)
{
    return !atomic_load_explicit(&self->closed, memory_order_relaxed)
           && (self->place == NULL
               || pshm_cell_intact(self->place, self->kind))
               ? 0 : cell_refuse(self);
}

/* Raise what a use returned: -EBADMSG, or -errno.  Returns -1. */
int cell_raise(cell *self, int rc);

/* Slots.  A type with fields of its own calls these from its slots. */
int cell_traverse(cell *self, visitproc visit, void *arg);
int cell_clear(cell *self);
void cell_end(cell *self);              /* first of all: nobody finds it now */
void cell_free(cell *self, bool held);  /* last of all */
PyObject *cell_repr(PyObject *op);

/* (opener, (type, shm, offset, named, options)): pickling by reference.
 * Owns options, a dict, or NULL. */
PyObject *cell_reduce(cell *self, PyObject *options);
extern PyMethodDef cell_functions[];    /* the opener */

/* Methods and attributes of all. */
PyObject *cell_close(PyObject *op, PyObject *unused);
PyObject *cell_unlink(PyObject *op, PyObject *unused);
PyObject *cell_get_name(PyObject *op, void *closure);
PyObject *cell_get_offset(PyObject *op, void *closure);
PyObject *cell_get_closed(PyObject *op, void *closure);
extern const char cell_close_doc[], cell_unlink_doc[], cell_name_doc[],
    cell_offset_doc[], cell_closed_doc[];

#define CELL_CAST(function) (PyCFunction)(void (*)(void))(function)

#define CELL_METHODS                                                         \
    {"close", cell_close, METH_NOARGS, cell_close_doc},                      \
    {"unlink", cell_unlink, METH_NOARGS, cell_unlink_doc}

#define CELL_GETSET                                                          \
    {"name", cell_get_name, NULL, cell_name_doc, NULL},                      \
    {"offset", cell_get_offset, NULL, cell_offset_doc, NULL},                \
    {"closed", cell_get_closed, NULL, cell_closed_doc, NULL}

#define CELL_MEMBERS(type)                                                   \
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(type, base.weakrefs),     \
     Py_READONLY, NULL}

#define CELL_DOC_WHERE                                                       \
    "shm: a SharedMemory or MemoryMap that can be written.  offset: bytes, a\n"\
    "multiple of .alignment; .size bytes from there are the cell.  create:\n"\
    "make it, of bytes that are zero; exist_ok: or take the one there is.\n"
#define CELL_DOC_RAISES                                                      \
    "Raises FileNotFoundError: no cell there; FileExistsError; ValueError:\n"\
    "something else is there, or a bad offset; PermissionError; OSError:\n"  \
    "EXDEV (made in another space of process ids), ENOEXEC (by another C\n"  \
    "library or word size).\n"

#define CELL_TYPE_FLAGS                                                      \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)

/* Add a type to the module, with size and alignment.  Returns it, or NULL. */
PyTypeObject *cell_add_type(PyObject *module, PyType_Spec *spec,
                            Py_ssize_t size, Py_ssize_t alignment);

/* Each primitive's file: add its types.  Returns 0 or -1. */
int lock_add_types(PyObject *module, core_state *state);
int semaphore_add_type(PyObject *module, core_state *state);
int condition_add_type(PyObject *module, core_state *state);
int event_add_type(PyObject *module, core_state *state);
int barrier_add_type(PyObject *module, core_state *state);
int rwlock_add_types(PyObject *module, core_state *state);
int atomic_add_type(PyObject *module, core_state *state);

#endif
