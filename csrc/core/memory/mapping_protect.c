/* The protection of a mapping: the rights that its consumers may have. */
#include "core/memory/mapping.h"

#include <sys/mman.h>

#include "core/args.h"
#include "core/errors.h"

#include "posix/host.h"
#include "posix/object/map.h"

int
mapping_parse_prot(PyObject *value, int *prot)
{
    long long number;
    if (arg_long(value, "prot", INT_MIN, INT_MAX, &number) < 0) {
        return -1;
    }
    if (number != PROT_NONE && number != PROT_READ
        && number != (PROT_READ | PROT_WRITE)) {
        PyErr_Format(PyExc_ValueError,
                     "prot must be PROT_NONE, PROT_READ or PROT_READ | "
                     "PROT_WRITE, not %lld",
                     number);
        return -1;
    }
    *prot = (int)number;
    return 0;
}

/* In a child that was forked while a thread changed it, that thread does not
 * exist; and prot has no right that the pages lack. */
static bool
start_changing_locked(MemoryMapObject *self)
{
    if (self->changing && self->changing_in == pshm_forks()) {
        return false;
    }
    self->changing = true;
    self->changing_in = pshm_forks();
    return true;
}

/* From here on no right that prot lacks can be granted. Returns the old
 * protection, or -1. */
static int
begin_change(MemoryMapObject *self, int prot)
{
    int old = -1;
    fields_lock(&self->fields);
    if (self->granted & self->prot & ~prot) {
        PyErr_SetString(
            PyExc_BufferError,
            "a consumer of a buffer may still use the right that protect() "
            "would revoke; protect the memory before it is exported, or map "
            "it a second time");
    }
    else if (!start_changing_locked(self)) {
        PyErr_SetString(PyExc_BufferError,
                        "another thread is changing the protection of this "
                        "memory");
    }
    else {
        old = self->prot;
        self->prot &= prot;
    }
    fields_unlock(&self->fields);
    return old;
}

static void
end_change(MemoryMapObject *self, int prot)
{
    fields_lock(&self->fields);
    self->prot = prot;
    self->changing = false;
    fields_unlock(&self->fields);
}

int
mapping_protect(MemoryMapObject *self, int prot, PyObject *filename)
{
    if (self->readonly && prot & PROT_WRITE) {
        raise_errno_words(-EACCES, filename,
                          "The shared memory is read-only, and cannot be made "
                          "writable");
        return -1;
    }
    int old = begin_change(self, prot);
    if (old < 0) {
        return -1;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_map_protect(self->base, self->reserved, prot);
    Py_END_ALLOW_THREADS
    end_change(self, rc < 0 ? old : prot);
    if (rc < 0) {
        raise_errno(rc, filename);
    }
    return rc;
}

const char mapping_protect_doc[] =
    "protect($self, prot, /)\n--\n\n"
    "Set the protection of the pages: " MAN(mprotect, 2) ".\n\n"
    "prot: PROT_READ | PROT_WRITE, PROT_READ or PROT_NONE.\n\n"
    "Raises BufferError if a view that was ever taken would lose a right\n"
    "(numpy keeps an address after it has released the view);\n"
    "PermissionError for PROT_WRITE if the descriptor or the handle of the\n"
    "memory is read-only.";

PyObject *
mapping_protect_method(PyObject *op, PyObject *value)
{
    int prot;
    if (mapping_parse_prot(value, &prot) < 0
        || mapping_protect(as_mapping(op), prot, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
