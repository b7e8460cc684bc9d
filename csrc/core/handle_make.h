/* What the doors that make an object have in common. */
#ifndef CORE_HANDLE_MAKE_H
#define CORE_HANDLE_MAKE_H

#include "handle.h"

/* What a caller asked for. */
typedef struct {
    struct pshm_spec spec;
    struct pshm_name path;              /* what spec.name points at */
    PyObject *name;                     /* as given; NULL or None: none */
    Py_ssize_t size;
    Py_ssize_t max_size;                /* or 0 */
    PyObject *init;                     /* callable, or NULL */
    bool exist_ok;
    struct pshm_owners owners;          /* accepted by exist_ok */
    bool delete;
    bool track;
} request;

/* Make the object, or with exist_ok attach to it, and put it into self.
 * Returns 0, or -1 with an exception and nothing left of it. */
int handle_fulfil(core_state *state, request *req, handle *self);

#endif
