/* MemoryMap: the only owner of an address.
 *
 * Views, and whoever took an address through the buffer protocol and kept a
 * reference to what the buffer's `obj` is, keep it alive.  The address is
 * unmapped in its deallocator and nowhere else. */
#ifndef CORE_MAPPING_H
#define CORE_MAPPING_H

#include "core/core.h"
#include "core/fields.h"

/* Handles share a mapping, or protect() of one handle may change it. */
enum mapping_use { MAPPING_UNDECIDED, MAPPING_SHARED, MAPPING_SINGLE };

typedef struct {
    PyObject_HEAD
    fields_mutex fields;
    char *base;                         /* NULL until adopted */
    size_t reserved;                    /* bytes mapped; never grows */
    /* Bytes that can be reached, at most reserved.  Where an object grows in
     * place, the rest has no memory yet. */
    _Atomic(Py_ssize_t) size;
    /* Under fields: */
    atomic_int prot;                    /* rights that can be handed out;
                                           others may look at it */
    atomic_int granted;                 /* rights that ever were */
    atomic_bool released;               /* a view of the kind below was */
    bool changing;                      /* a thread changes prot */
    unsigned changing_in;               /* ... of this process: pshm_forks */
    bool readonly;                      /* for good, whatever the descriptor
                                           would allow; set when adopted */
    atomic_int use;                     /* enum mapping_use */
    struct pshm_region *region;         /* the memory, which may have owners
                                           that are not Python objects */
    struct last *last;                  /* last.h; or NULL */
    PyObject *weakrefs;
} MemoryMapObject;

/* A new one without an address; it may be dropped as it is.  The collector does
 * not show it to other threads before mapping_complete. */
MemoryMapObject *mapping_new(core_state *state);

/* Give it the memory that pshm_map returned for the object id.  shrinks, and the
 * result: as for pshm_region_set.  Needs no GIL. */
bool mapping_set(MemoryMapObject *self, void *base, size_t reserved,
                 Py_ssize_t size, int prot, struct pshm_identity id,
                 unsigned shrinks);

/* Let the collector show it, if it does not yet: it has what it was given. */
void mapping_complete(MemoryMapObject *self);

/* Map [offset, offset + length) of fd; length < 0: to the object's end.
 * device: fd need not be a regular file.  filename is for messages, or NULL.  Returns NULL with an exception. */
PyObject *mapping_from_fd(core_state *state, int fd, Py_ssize_t offset,
                          Py_ssize_t length, bool readonly, bool device,
                          PyObject *filename);

/* view->internal of a buffer that was taken from a handle, whose consumer has a
 * reference to the handle, and to the mapping only until it is released. */
#define MAPPING_TAKEN_FROM_HANDLE ((void *)1)

/* Was such a one released?  Its consumer may still use the address, as
 * np.ndarray(buffer=handle) does.  Those that live keep the mapping. */
static inline bool
mapping_may_be_kept(MemoryMapObject *self)
{
    return self != NULL
           && atomic_load_explicit(&self->released, memory_order_acquire);
}

/* bf_getbuffer; the view's obj is the mapping.  The second needs no lock of the
 * mapping's: it serves where all rights were granted before, for those are
 * never taken away.  Returns 0, -1, or 1: take the first. */
int mapping_get_granted_buffer(MemoryMapObject *self, Py_buffer *view,
                               int flags);
int mapping_get_buffer(MemoryMapObject *self, Py_buffer *view, int flags);

/* Let the rights be used by what keeps the mapping: reading and, unless
 * *readonly or the pages are, writing; *readonly: which it became.  Returns 0,
 * or -1 with BufferError where it cannot be read. */
int mapping_grant(MemoryMapObject *self, bool *readonly);

/* Its memory, for one more owner, which releases it with pshm_region_drop. */
struct pshm_region *mapping_share(MemoryMapObject *self);

/* Does nobody have it but those who hold these many references, all of them
 * known to the caller, who keeps others from getting one meanwhile?  Under
 * fields, by which an owner that is no Python object comes to have it. */
bool mapping_is_private_locked(MemoryMapObject *self, Py_ssize_t references);

/* Decide what self is used for, if that is undecided.  The first decision
 * stays, so that no handle gets a mapping that protect() is about to change.
 * Returns whether the decision is use. */
static inline bool
mapping_decide(MemoryMapObject *self, enum mapping_use use)
{
    int decided = MAPPING_UNDECIDED;
    return atomic_compare_exchange_strong_explicit(
               &self->use, &decided, use, memory_order_acq_rel,
               memory_order_acquire)
           || decided == (int)use;
}

/* mprotect; filename as for mapping_from_fd.  Returns 0, or -1 with
 * BufferError where a right would go that was granted, or OSError (EACCES:
 * readonly). */
int mapping_protect(MemoryMapObject *self, int prot, PyObject *filename);

/* Methods that a handle has too, on the whole of its mapping.  fd: of the
 * object that self maps from its first byte on, or -1 if that is not known. */
PyObject *mapping_populate(MemoryMapObject *self, int fd, PyObject *const *args,
                           Py_ssize_t count, PyObject *kwnames);
PyObject *mapping_parse_prot(PyObject *value, int *prot);
extern PyMethodDef mapping_methods[];
extern PyGetSetDef mapping_getset[];

/* Slots: its bytes as items, each under the lock that a change of protection
 * takes. */
Py_ssize_t mapping_length(PyObject *op);
PyObject *mapping_item(PyObject *op, Py_ssize_t index);
PyObject *mapping_subscript(PyObject *op, PyObject *key);
int mapping_ass_subscript(PyObject *op, PyObject *key, PyObject *value);

static inline Py_ssize_t
mapping_size(MemoryMapObject *self)
{
    return atomic_load_explicit(&self->size, memory_order_relaxed);
}

static inline void
mapping_set_size(MemoryMapObject *self, Py_ssize_t size)
{
    atomic_store_explicit(&self->size, size, memory_order_relaxed);
}

#endif
