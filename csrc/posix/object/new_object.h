/* An object in the making, that nobody else can see yet.
 *
 * make -> (fill the bytes) -> publish, or abandon at any point.  All that can
 * fail comes before publish gives the object its name. */
#ifndef PSHM_NEW_OBJECT_H
#define PSHM_NEW_OBJECT_H

#include <stdatomic.h>

#include "posix/base.h"
#include "posix/object/name.h"
#include "posix/object/size.h"

enum pshm_kind {
    PSHM_NAMED,         /* to be published under a name at once */
    PSHM_UNNAMED,       /* in PSHM_DIR, to be published later, or never */
    PSHM_MEMFD,         /* memfd_create(2): never has a name; cannot shrink */
};

struct pshm_new_object_params {
    enum pshm_kind kind;
    const struct pshm_name *name;       /* of PSHM_NAMED */
    const char *label;                  /* of PSHM_MEMFD, for /proc */
    off_t size;                         /* bytes, > 0 */
    size_t length;                      /* bytes to map, >= size */
    mode_t mode;                        /* permissions, whatever the umask */
    uid_t uid;                          /* or (uid_t)-1: the process's */
    gid_t gid;                          /* likewise */
    const void *acl;                    /* a list (acl.h), or NULL; mode is what
                                           it makes of the mode */
    size_t acl_size;                    /* bytes */
    bool reserve;                       /* memory for all of it, now */
    bool populate;                      /* and mapped */
    bool huge_pages;                    /* ask for huge ones */
};

/* How this machine lets an object get its name; found out once by the first
 * draft, so zero it and keep it.  Any number of threads may share it. */
struct pshm_way {
    atomic_int known;
};

struct pshm_new_object {
    int fd;                             /* or -1 */
    struct pshm_identity id;
    bool locked;                        /* it has a use lock (use_lock.h) */
    bool acl_refused;                   /* what failed was to set spec.acl */
    void *base;                         /* or NULL */
    size_t length;                      /* of the mapping */
    /* the rest is this file's own */
    int stage;
    bool has_temporary;
    struct pshm_name temporary;
    struct pshm_progress progress;
    size_t populated;
};

/* What an empty draft is; it may be abandoned as it is. */
#define PSHM_NEW_OBJECT_NONE ((struct pshm_new_object){.fd = -1})

/* Make what spec says.  Returns 0; -EINTR: look at signals, then call again
 * with the same arguments, or abandon; or -errno: abandon. */
int pshm_new_object_make(const struct pshm_new_object_params *spec,
                         struct pshm_way *way, struct pshm_new_object *new);

/* Link the object to its name; nothing can fail after that.
 * Returns 0, -EEXIST (the draft is as before, and may be published again), or
 * -errno. */
int pshm_new_object_publish(struct pshm_new_object *new,
                       const struct pshm_name *name);

/* The same, but an object that has the name loses it in the same step.  unused:
 * it must be one that no process uses.
 * Returns 0; -EEXIST: unused, and a process uses the object or that is unknown
 * (the draft is as before); or -errno. */
int pshm_new_object_replace(struct pshm_new_object *new,
                            const struct pshm_name *name, bool unused);

/* Undo everything: unmap, close, remove a temporary name. */
void pshm_new_object_discard(struct pshm_new_object *new);

/* fcntl(2): the seals of a memfd.  Returns the seals, 0, or -errno: -EINVAL
 * (cannot be sealed), -EPERM (sealed against that), -EBUSY (F_SEAL_WRITE while
 * a writable mapping exists). */
int pshm_seals_of(int fd);
int pshm_seals_add(int fd, int seals);

#endif
