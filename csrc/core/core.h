/* The state of the module, and declarations that all files of this room share.
 *
 * Only this room includes Python.h. It makes no raw system call: those are in
 * posix/, which does not know this room. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include "core/compat.h"
#include "core/fields.h"

#include <stdbool.h>

#include "posix/object/new_object.h"

/* A reference to a manual page, in a docstring. */
#define MAN(page, section) #page "(" #section ")"

/* The objects of the state, which the garbage collector visits. */
#define CORE_OBJECTS 22

typedef struct {
    union {
        PyObject *objects[CORE_OBJECTS];
        struct {
            PyTypeObject *mapping_type, *handle_type, *view_type;
            PyTypeObject *reclaimed_type;       /* a struct sequence */
            PyTypeObject *rwlock_context_type;  /* rwlock.c */
            union {
                PyTypeObject *placed_types[8];
                struct {
                    PyTypeObject *lock_type, *rlock_type, *semaphore_type,
                        *condition_type, *event_type, *barrier_type,
                        *rwlock_type, *atomic_type;
                };
            };
            PyTypeObject *ndarray_type;         /* numpy.ndarray once it was
                                                   needed, and "base":
                                                   array.c */
            PyObject *base_name;
            PyObject *asarray;                  /* core_find */
            PyObject *view_functions, *known_formats;   /* core_find:
                                                           format.c */
            PyObject *open_placed_function;
            PyObject *support;                  /* module posixshm._support */
            PyObject *reduction_name;           /* handle_pickle.c */
            PyObject *owner_died_type;          /* the last object */
        };
    };
    fields_mutex fields;
    bool registered;                    /* handle_pickle.c, under fields */
    struct finalizer *finalizers;       /* handle_delete.c, under fields */
    unsigned finalizers_in;             /* the process that runs them at its
                                           end: 1 + pshm_forks */
    struct handle_table *known_handles; /* handle_table.c */
    Py_ssize_t page_size;               /* bytes */
    atomic_int proc;                    /* pshm_has_proc when the first object
                                           was made: 1 or -1; 0: not yet */
} core_state;

_Static_assert(offsetof(core_state, owner_died_type)
                   == (CORE_OBJECTS - 1) * sizeof(PyObject *),
               "all objects of the state");

extern struct PyModuleDef core_module;

/* The state, given a type of the module or a subclass. */
core_state *core_state_of_type(PyTypeObject *type);

static inline core_state *
core_state_of_module(PyObject *module)
{
    return (core_state *)PyModule_GetState(module);
}

/* The attribute of a module, or if NULL the module itself, imported at the
 * first call and stored in *slot, a member of state. Returns a new reference,
 * or NULL with an exception. */
PyObject *core_find(core_state *state, PyObject **slot, const char *module,
                    const char *attribute);

extern PyType_Spec mapping_spec;
extern PyType_Spec handle_spec;

extern PyMethodDef directory_methods[];
extern PyMethodDef inspect_methods[];
extern PyMethodDef array_methods[];
extern PyMethodDef pickle_methods[];
extern PyMethodDef create_methods[];
extern PyMethodDef delete_methods[];
extern PyMethodDef guard_methods[];
int directory_add_types(PyObject *module, core_state *state);

#endif
