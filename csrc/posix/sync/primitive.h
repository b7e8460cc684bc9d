/* The memory of a primitive in a segment, and the header that identifies it.
 *
 * A primitive begins at a multiple of PSHM_PRIMITIVE_ALIGNMENT. Its first 64
 * bytes are the payload: a sem_t or pthread_mutex_t lies at offset 0, so that
 * a C program can share it. The next 64 bytes are the header, which does not
 * change after the primitive was made. Data that does not fit into the payload
 * follows the header.
 *
 * No line of PSHM_PRIMITIVE_ALIGNMENT bytes of a primitive is ever all zeros:
 * if the words of a line may all be 0, its last word has a constant value
 * (pshm_primitive_mark). So no part of a primitive looks like unused memory,
 * and no other primitive can be made there.
 *
 * Memory that is all zeros, as in a new object, has no primitive yet. A
 * process that makes one sets the magic number PSHM_PRIMITIVE_MAKING and holds
 * the guard, a robust mutex in the header. If the process dies, the next one
 * clears the memory and makes the primitive. */
#ifndef PSHM_PRIMITIVE_H
#define PSHM_PRIMITIVE_H

#include <stdatomic.h>
#include <string.h>

#include "posix/base.h"
#include "posix/object/name.h"
#include "posix/sync/robust.h"

#define PSHM_PRIMITIVE_ALIGNMENT 64
#define PSHM_PRIMITIVE_MAGIC 0x4d485350U     /* "PSHM" */
#define PSHM_PRIMITIVE_MAKING 0x6d687370U    /* "pshm": being made */

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
    atomic_uint magic;                  /* written last; 0: no primitive yet */
    uint8_t version;                    /* of this layout */
    uint8_t kind;
    uint8_t flags;                      /* defined by the kind */
    uint8_t library;                    /* the C library that made it */
    uint16_t mutex_size, sem_size;      /* sizes of its types, bytes */
    atomic_uint space;                  /* inode of the PID namespace, or 0:
                                           any */
    struct pshm_robust guard;
};

struct pshm_primitive {
    unsigned char payload[64];
    struct pshm_header header;
};

_Static_assert(sizeof(struct pshm_primitive) == 128,
               "payload and header have 128 bytes");

/* The primitive that a caller makes or expects. */
struct pshm_primitive_params {
    enum pshm_primitive_kind kind;
    size_t size;                        /* bytes, with header and payload */
    bool owned;                         /* it has owners, identified by thread
                                           ids */
    uint8_t flags;
    /* Initialise a primitive whose bytes are all zeros; may be NULL. Returns 0
     * or -errno. */
    int (*init)(struct pshm_primitive *primitive, const void *how);
    const void *how;
};

/* Check for a primitive. Returns 0: there is one as params describe, with any
 * flags; or
 *
 * -ENOENT     all zeros, or a primitive that is being made
 * -EBADMSG    other bytes
 * -EPROTOTYPE a primitive of another kind; *found, unless NULL
 * -ENOEXEC    made by another C library, word size or version of this library
 * -EXDEV      its owners are in another PID namespace */
int pshm_primitive_check(const struct pshm_primitive *primitive,
                   const struct pshm_primitive_params *params,
                   enum pshm_primitive_kind *found);

/* Make a primitive if there is none. If another process is making it, wait for
 * that process until the deadline. Returns 0; -EEXIST: there is one as params
 * describe; the other errors of pshm_primitive_check, -EINTR, -ETIMEDOUT, or
 * the result of init: nothing was made; -EBADMSG or -ENOTRECOVERABLE: another
 * program overwrote the guard meanwhile. After -ENOTRECOVERABLE the guard is
 * still in the list of this thread, so the memory must stay mapped. */
int pshm_primitive_make(struct pshm_primitive *primitive,
                        const struct pshm_primitive_params *params,
                        int64_t deadline, enum pshm_primitive_kind *found);

/* After -EXDEV, if no other process uses the object: make the primitive again
 * for this PID namespace, whatever its state. Until the last step, other
 * processes still get -EXDEV, also if this process is killed. Returns 0 or the
 * result of init. */
int pshm_primitive_renew(struct pshm_primitive *primitive,
                         const struct pshm_primitive_params *params);

/* For error messages: is there an object called name, and with which primitive
 * does it begin? Returns 1, 0 or -errno. *found is PSHM_PRIMITIVE_NONE if the
 * object begins with other bytes or if this process may not read it. */
int pshm_primitive_named(const struct pshm_name *name,
                         enum pshm_primitive_kind *found);

/* To be called by an init function: mark a line whose words may all be 0 in a
 * valid primitive. */
static inline void
pshm_primitive_mark(void *line)
{
    const uint32_t mark = PSHM_PRIMITIVE_MAGIC;
    memcpy((char *)line + PSHM_PRIMITIVE_ALIGNMENT - sizeof(mark), &mark,
           sizeof(mark));
}

/* Is the header of an open primitive intact? Cheap. */
static inline bool
pshm_primitive_intact(const struct pshm_primitive *primitive,
                      enum pshm_primitive_kind kind)
{
    return atomic_load_explicit(&primitive->header.magic, memory_order_relaxed)
               == PSHM_PRIMITIVE_MAGIC
           && primitive->header.kind == kind;
}

#endif
