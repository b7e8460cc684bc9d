/* Cells: the memory of a primitive in a segment, and the tag that says so.
 *
 * A cell begins at a multiple of PSHM_PRIMITIVE_ALIGNMENT.  Its first 64 bytes are
 * the primitive itself (a sem_t or pthread_mutex_t begins the cell, so a C
 * program can share it), the next 64 its tag, which is never written again, and
 * what does not fit follows.
 *
 * No line of a cell, of PSHM_PRIMITIVE_ALIGNMENT bytes, is ever all zeros, used or
 * not: where the primitive's own words may be, its last word is a mark.  So no
 * part of a cell looks like memory that another one can be made of.
 *
 * Bytes that are all zero, as those of a new object, are no cell yet.  Who
 * makes one of them says so in the tag's magic, and holds the guard in the tag
 * meanwhile, a robust mutex: if he dies, the next one wipes what he left and
 * makes it himself. */
#ifndef PSHM_PRIMITIVE_H
#define PSHM_PRIMITIVE_H

#include <stdatomic.h>
#include <string.h>

#include "posix/base.h"
#include "posix/object/name.h"
#include "posix/sync/robust.h"

#define PSHM_PRIMITIVE_ALIGNMENT 64
#define PSHM_PRIMITIVE_MAGIC 0x4d485350U     /* "PSHM" */
#define PSHM_PRIMITIVE_MAKING 0x6d687370U    /* "pshm": a cell in the making */

enum pshm_primitive_kind {
    PSHM_PRIMITIVE_NONE,
    PSHM_PRIMITIVE_SEMAPHORE,
    PSHM_PRIMITIVE_LOCK,
    PSHM_PRIMITIVE_RLOCK,
    PSHM_PRIMITIVE_CONDITION,
    PSHM_PRIMITIVE_EVENT,
    PSHM_PRIMITIVE_BARRIER,
    PSHM_PRIMITIVE_RWLOCK,
};

struct pshm_header {
    atomic_uint magic;                  /* written last; 0: no cell yet */
    uint8_t version;                    /* of this layout */
    uint8_t kind;
    uint8_t flags;                      /* the kind's own */
    uint8_t library;                    /* the C library */
    uint16_t mutex_size, sem_size;      /* its types', bytes */
    atomic_uint space;                  /* of process ids, or 0: any */
    struct pshm_robust guard;
};

struct pshm_primitive {
    unsigned char payload[64];
    struct pshm_header header;
};

_Static_assert(sizeof(struct pshm_primitive) == 128,
               "a cell's head is 128 bytes");

/* A kind of cell, as it is to be made or expected. */
struct pshm_primitive_params {
    enum pshm_primitive_kind kind;
    size_t size;                        /* bytes, whole cell */
    bool owned;                         /* by threads, known by their ids */
    uint8_t flags;
    /* Fill a cell of zeros; may be NULL.  Returns 0 or -errno. */
    int (*init)(struct pshm_primitive *primitive, const void *how);
    const void *how;
};

/* What is there?  Returns 0: a cell as specified, whatever its flags; or
 *   -ENOENT    zeros, or a cell in the making
 *   -EBADMSG   neither a cell nor zeros
 *   -EPROTOTYPE  a cell of another kind: *found, if not NULL
 *   -ENOEXEC   one of another C library, word size or version of this one
 *   -EXDEV     one of processes in another space of process ids */
int pshm_primitive_check(const struct pshm_primitive *primitive,
                   const struct pshm_primitive_params *spec,
                   enum pshm_primitive_kind *found);

/* Make it, if there is none.  Waits for another who is at it, but not past
 * until.  Returns 0; -EEXIST: there is one, as specified; or as pshm_primitive_check,
 * -EINTR, -ETIMEDOUT or what init returns, with nothing made; or -EBADMSG, or
 * -ENOTRECOVERABLE: the guard was written over meanwhile, and after the latter it
 * still is in this thread's list, so the memory must stay mapped for good. */
int pshm_primitive_make(struct pshm_primitive *primitive,
                        const struct pshm_primitive_params *spec,
                        int64_t deadline, enum pshm_primitive_kind *found);

/* After -EXDEV, by the only process that uses the object: make it anew for this
 * space of process ids, whatever state it is in.  Until the last step it is what
 * it was to others, and to the next one where this process is killed.  Returns 0
 * or what init returns. */
int pshm_primitive_renew(struct pshm_primitive *primitive,
                         const struct pshm_primitive_params *spec);

/* For a message: is there an object called name, and which primitive begins it?
 * Returns 1, 0 or -errno; *found: PSHM_PRIMITIVE_NONE for other bytes, or for an object
 * that this process may not read. */
int pshm_primitive_named(const struct pshm_name *name,
                         enum pshm_primitive_kind *found);

/* By an init: mark a line whose words may all be 0 in a valid cell. */
static inline void
pshm_primitive_mark(void *line)
{
    const uint32_t mark = PSHM_PRIMITIVE_MAGIC;
    memcpy((char *)line + PSHM_PRIMITIVE_ALIGNMENT - sizeof(mark), &mark,
           sizeof(mark));
}

/* Has nobody written over the tag of an open cell?  Cheap. */
static inline bool
pshm_primitive_intact(const struct pshm_primitive *primitive,
                      enum pshm_primitive_kind kind)
{
    return atomic_load_explicit(&primitive->header.magic, memory_order_relaxed)
               == PSHM_PRIMITIVE_MAGIC
           && primitive->header.kind == kind;
}

#endif
