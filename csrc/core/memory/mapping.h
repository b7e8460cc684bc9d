/* MemoryMap: the only owner of an address.
 *
 * It lives as long as a view of it, or a consumer that took the address through
 * the buffer protocol and kept a reference to the `obj` of the buffer. Only its
 * deallocator unmaps the address. */
#ifndef CORE_MAPPING_H
#define CORE_MAPPING_H

#include "core/core.h"
#include "core/fields.h"

#include <sys/mman.h>

/* Handles share a mapping, or protect() of one handle may change it. */
enum mapping_use { MAPPING_UNDECIDED, MAPPING_SHARED, MAPPING_SINGLE };

typedef struct {
    PyObject_HEAD
    fields_mutex fields;
    char *base;                         /* NULL until mapping_set */
    size_t reserved;                    /* bytes mapped */
    /* Bytes that can be reached. If the object grows in place, the rest of what
     * is reserved has no memory yet. */
    _Atomic(Py_ssize_t) size;
    /* Written under fields: */
    atomic_int prot;                    /* rights that can be granted */
    atomic_int granted;                 /* rights that ever were */
    atomic_bool released;               /* see MAPPING_EXPORTED_BY_HANDLE */
    bool changing;                      /* a thread changes prot */
    unsigned changing_in;               /* ... of this process: pshm_forks */
    bool readonly;                      /* permanently, even if the descriptor
                                           allows writing */
    atomic_int use;                     /* enum mapping_use */
    struct pshm_region *region;         /* the memory, which may have owners
                                           that are not Python objects */
    struct last *last;                  /* last.h; or NULL */
    struct fdref *closing;              /* closed with the mapping; or NULL */
    PyObject *weakrefs;
} MemoryMapObject;

static inline MemoryMapObject *
as_mapping(PyObject *op)
{
    return (MemoryMapObject *)op;
}

/* ---- mapping.c ---- */

/* A new one without an address, which may be released as it is. The collector
 * does not show it to other threads before mapping_complete. */
MemoryMapObject *mapping_new(core_state *state);

/* Give it the memory that pshm_map returned for the object id. shrinks, and the
 * result: as for pshm_region_set. Does not need the GIL. */
bool mapping_set(MemoryMapObject *self, void *base, size_t reserved,
                 Py_ssize_t size, int prot, struct pshm_identity id,
                 unsigned shrinks);

/* Let the collector show it. */
void mapping_complete(MemoryMapObject *self);

/* Map [offset, offset + length) of fd. length < 0: up to the end of the object.
 * device: fd need not be a regular file. filename: for messages, or NULL.
 * Returns NULL with an exception. */
PyObject *mapping_from_fd(core_state *state, int fd, Py_ssize_t offset,
                          Py_ssize_t length, bool readonly, bool device,
                          PyObject *filename);

/* view->internal of a buffer that a handle exported. Its consumer has a
 * reference to the handle, and to the mapping only until it releases the
 * buffer. */
#define MAPPING_EXPORTED_BY_HANDLE ((void *)1)

/* Whether such a buffer was released, so that its consumer may use the address
 * without a reference to the mapping. */
static inline bool
mapping_may_be_used(MemoryMapObject *self)
{
    return self != NULL
           && atomic_load_explicit(&self->released, memory_order_acquire);
}

/* bf_getbuffer. The first does not take the lock of the fields: if all rights
 * were granted before, it returns 0 or -1, and otherwise 1, to call the second.
 * Granted rights are never revoked. */
int mapping_get_granted_buffer(MemoryMapObject *self, Py_buffer *view,
                               int flags);
int mapping_get_buffer(MemoryMapObject *self, Py_buffer *view, int flags);

/* Grant reading, and unless *readonly, also writing if the pages can be
 * written, to an object that keeps the mapping. *readonly is set to what was
 * granted. Returns 0, or -1 with BufferError if the pages cannot be read. */
int mapping_grant(MemoryMapObject *self, bool *readonly);

/* The memory, for one more owner, which releases it with pshm_region_drop. */
struct pshm_region *mapping_share(MemoryMapObject *self);

/* Whether the mapping has no references but these, which the caller knows, and
 * the memory has no other owner. The caller prevents new references. */
bool mapping_is_private_locked(MemoryMapObject *self, Py_ssize_t references);

/* Decide what self is used for, if that is undecided. The first decision stays,
 * so that no handle gets a mapping that protect() is about to change. Returns
 * whether the decision is use. */
static inline bool
mapping_decide(MemoryMapObject *self, enum mapping_use use)
{
    int decided = MAPPING_UNDECIDED;
    return atomic_compare_exchange_strong_explicit(
               &self->use, &decided, use, memory_order_acq_rel,
               memory_order_acquire)
           || decided == (int)use;
}

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

/* ---- mapping_protect.c ---- */

/* The argument prot=. Returns 0, or -1 with ValueError. */
int mapping_parse_prot(PyObject *value, int *prot);

/* mprotect(2). filename: for messages, or NULL. Returns 0; or -1 with
 * BufferError if a granted right would be lost, or with OSError (EACCES:
 * readonly). */
int mapping_protect(MemoryMapObject *self, int prot, PyObject *filename);

PyObject *mapping_protect_method(PyObject *op, PyObject *value);
extern const char mapping_protect_doc[];

/* ---- mapping_items.c ---- */

/* Slots: the bytes as items, each read or written under the lock of the fields,
 * as the protection is. */
Py_ssize_t mapping_length(PyObject *op);
PyObject *mapping_item(PyObject *op, Py_ssize_t index);
PyObject *mapping_subscript(PyObject *op, PyObject *key);
int mapping_ass_subscript(PyObject *op, PyObject *key, PyObject *value);

#endif
