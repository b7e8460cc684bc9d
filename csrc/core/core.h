/* The module's own: its state, and what its files share.
 *
 * The room: the only one with Python.h.  It makes no raw system call; those
 * are in posix/, which knows nothing of this room. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include "compat.h"
#include "fields.h"

#include <stdbool.h>

#include "posix/draft.h"

/* A page of the manual, in a docstring. */
#define MAN(page, section) #page "(" #section ")"

typedef struct {
    PyTypeObject *mapping_type;
    PyTypeObject *handle_type;
    PyTypeObject *view_type;
    fields_mutex fields;
    /* Functions of Python modules: core_find. */
    PyObject *asarray, *unpack, *pack;
    PyTypeObject *ndarray_type;         /* numpy.ndarray once it was needed,
                                           its methods __array__ and copy, and
                                           "base": array.c */
    PyObject *ndarray_plain, *ndarray_copy;
    PyObject *base_name;
    PyTypeObject *reclaimed_type;       /* a struct sequence */
    PyObject *remove_function;          /* handle_delete.c */
    PyObject *attach_function;          /* handle_pickle.c */
    PyObject *support;                  /* posixshm._support */
    bool registered;                    /* handle_pickle.c, under fields */
    PyObject *boot_id;                  /* str, likewise, once it was needed */
    struct handle_table *known_handles; /* handle_table.c */
    /* The primitives'. */
    union {
        PyTypeObject *cell_types[8];
        struct {
            PyTypeObject *lock_type, *rlock_type, *semaphore_type,
                *condition_type, *event_type, *barrier_type, *rwlock_type,
                *atomic_type;
        };
    };
    PyTypeObject *side_type;            /* rwlock.c */
    PyObject *owner_died_type;
    PyObject *open_cell_function;
    Py_ssize_t page_size;               /* bytes */
    struct pshm_way way;
} core_state;

extern struct PyModuleDef core_module;

/* The state, from a type that the module made or a subclass of it. */
core_state *core_state_of_type(PyTypeObject *type);

static inline core_state *
core_state_of_module(PyObject *module)
{
    return (core_state *)PyModule_GetState(module);
}

/* The attribute of a module, imported at the first call and kept in *slot, a
 * member of state.  Returns a new reference, or NULL with an exception. */
PyObject *core_find(core_state *state, PyObject **slot, const char *module,
                    const char *attribute);

extern PyType_Spec mapping_spec;
extern PyType_Spec handle_spec;

extern PyMethodDef directory_methods[];
extern PyMethodDef inspect_methods[];
extern PyMethodDef track_methods[];
extern PyMethodDef array_methods[];
extern PyMethodDef pickle_methods[];
extern PyMethodDef create_methods[];
extern PyMethodDef delete_methods[];
int directory_add_types(PyObject *module, core_state *state);

#endif
