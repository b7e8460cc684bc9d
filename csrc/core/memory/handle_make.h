/* What the doors that make an object have in common. */
#ifndef CORE_HANDLE_MAKE_H
#define CORE_HANDLE_MAKE_H

#include "core/args.h"
#include "core/memory/handle.h"

/* What a caller asked for. */
typedef struct {
    struct pshm_new_object_params spec;
    struct pshm_name path;              /* what spec.name points at */
    PyObject *name;                     /* as given; NULL or None: none */
    Py_ssize_t size;
    Py_ssize_t max_size;                /* or 0 */
    PyObject *init;                     /* callable, or NULL */
    PyObject *acl;                      /* bytes that spec.acl points into, or
                                           NULL; owned until handle_make */
    /* Instead of init, where C fills the object: 0, or -1 with an exception. */
    int (*fill)(void *base, void *how);
    void *how;                          /* fill's */
    struct existing existing;
    bool dropin;                        /* the standard library's constructor */
    struct pshm_accepted accepted;      /* by exist_ok; its size is size */
    enum deletion deletion;
    bool track;
} create_params;

/* One that asks for the defaults. */
void request_init(create_params *req, enum pshm_kind kind);

/* Its size, bytes, where nothing else about the memory is asked for. */
void request_set_size(create_params *req, Py_ssize_t size);

/* acl=text (handle_acl.c): the list, and what it makes of the mode, which has
 * been set before.  The last thing to be set before handle_make, for the list
 * is owned.  Returns 0 or -1. */
int request_set_acl(create_params *req, core_state *state, PyObject *text);

/* The object of req, in a new SharedMemory of that type; releases req's list.
 * NULL with an exception. */
PyObject *handle_make(core_state *state, PyObject *type, create_params *req);

/* Make the object, or with exist_ok attach to it, and put it into self.
 * Returns 0, or -1 with an exception and nothing left of it. */
int handle_fulfil(core_state *state, create_params *req,
                  SharedMemoryObject *self);

#endif
