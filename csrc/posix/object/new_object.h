/* A new object, which no other process sees until it has a name.
 *
 * make -> (fill the bytes) -> publish or replace, and discard at the end or at
 * any point before.  All that can fail comes before the object gets its name.
 */
#ifndef PSHM_NEW_OBJECT_H
#define PSHM_NEW_OBJECT_H

#include "posix/base.h"
#include "posix/interrupt.h"
#include "posix/object/name.h"

enum pshm_kind {
    PSHM_NAMED,         /* to be published under a name at once */
    PSHM_UNNAMED,       /* in PSHM_DIR, to be published later, or never */
    PSHM_MEMFD,         /* memfd_create(2): cannot get a name, nor shrink */
};

struct pshm_new_object_params {
    enum pshm_kind kind;
    const struct pshm_name *name;       /* of PSHM_NAMED */
    bool temporary;                     /* make a PSHM_NAMED one under a
                                           temporary name: for a machine without
                                           /proc, which linkat(2) may need */
    const char *label;                  /* of PSHM_MEMFD, for /proc */
    off_t size;                         /* bytes, > 0 */
    off_t max_size;                     /* bytes to map, if more than size */
    mode_t mode;                        /* permissions; the umask is ignored */
    uid_t uid;                          /* or (uid_t)-1: the process's */
    gid_t gid;                          /* or (gid_t)-1: the process's */
    const void *acl;                    /* a list (acl.h) or NULL; mode is what
                                           the list makes of the mode */
    size_t acl_size;                    /* bytes */
    bool reserve;                       /* take the memory now */
    bool populate;                      /* and map it */
    bool huge_pages;                    /* ask for huge pages */
};

struct pshm_new_object {
    int fd;                             /* or -1 */
    struct pshm_identity id;
    bool locked;                        /* it has a use lock (use_lock.h),
                                           or needs none */
    bool acl_refused;                   /* make failed to set the list */
    void *base;                         /* or NULL */
    size_t length;                      /* of the mapping */
    /* private: */
    bool has_temporary;
    struct pshm_name temporary;
};

/* An empty one, which may be discarded. */
#define PSHM_NEW_OBJECT_NONE ((struct pshm_new_object){.fd = -1})

/* Returns 0, -EINTR or -errno.  Unless it is 0, *new is discarded, and only its
 * id and acl_refused may be read. */
int pshm_new_object_make(const struct pshm_new_object_params *params,
                         const struct pshm_interrupt *interrupt,
                         struct pshm_new_object *new);

/* Link the object to its name.  Returns 0; -EEXIST: the object is unchanged and
 * can be published again; or -errno. */
int pshm_new_object_publish(struct pshm_new_object *new,
                            const struct pshm_name *name);

/* Link it also if another object has the name, which that loses in the same
 * step. unused: only if no process uses the other object. Returns 0; -EEXIST:
 * a process uses it, or that is unknown, and this object is unchanged; or
 * -errno. */
int pshm_new_object_replace(struct pshm_new_object *new,
                            const struct pshm_name *name, bool unused);

/* Unmap and close the object, and remove a temporary name. */
void pshm_new_object_discard(struct pshm_new_object *new);

/* The seals of a memfd: fcntl(2).  Returns the seals, 0, or -errno: -EINVAL
 * (cannot be sealed), -EPERM (sealed against that), -EBUSY (F_SEAL_WRITE while
 * a writable mapping exists). */
int pshm_seals_of(int fd);
int pshm_seals_add(int fd, int seals);

#endif
