/* Making an object, from the parameters of create() and its kin. */
#ifndef CORE_HANDLE_MAKE_H
#define CORE_HANDLE_MAKE_H

#include "core/args.h"
#include "core/memory/handle.h"

#include "posix/object/new_object.h"

typedef struct {
    struct pshm_new_object_params spec;
    struct pshm_name path;              /* spec.name points to it */
    PyObject *name;                     /* as given, borrowed; or NULL */
    PyObject *init;                     /* callable, borrowed; or NULL */
    PyObject *acl;                      /* bytes of spec.acl, owned; or NULL */
    /* Instead of init, to fill the object. Returns 0, or -1 with an exception.
     */
    int (*fill)(void *base, void *how);
    void *how;                          /* for fill */
    struct existing existing;
    bool dropin;                        /* the standard library's constructor */
    struct pshm_accepted accepted;      /* by exist_ok */
    enum deletion deletion;
    bool track;
} create_params;

/* Set the defaults. */
void create_params_init(create_params *params, enum pshm_kind kind);

/* Set the access control list, and the mode that it results in; the mode was
 * set before. Must be the last call before handle_make, which releases the
 * list. Returns 0 or -1. */
int create_params_set_acl(create_params *params, core_state *state,
                          PyObject *text);

/* Make a new SharedMemory of that type, and its object; or with exist_ok,
 * attach to one. Releases params->acl. Returns NULL with an exception. */
PyObject *handle_make(core_state *state, PyObject *type,
                      create_params *params);

/* The same in a handle that exists. Returns 0; or -1 with an exception, and
 * nothing made. */
int handle_make_into(core_state *state, create_params *params,
                     SharedMemoryObject *self);

#endif
