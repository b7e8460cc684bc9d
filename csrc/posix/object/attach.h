/* Attaching: getting hold of an object that is there, changing nothing. */
#ifndef PSHM_ATTACH_H
#define PSHM_ATTACH_H

#include "posix/base.h"
#include "posix/object/name.h"

struct pshm_object {
    int fd;
    struct pshm_identity id;
    off_t size;                         /* bytes */
    mode_t mode;                        /* with the kind of file: S_IFMT */
    uid_t uid;                          /* the owner */
    bool locked;                        /* fd has a use lock (use_lock.h) */
    bool last;                          /* it has the mark of mark.h */
};

/* The users whose objects an attach accepts. */
#define PSHM_OWNERS_MAX 16

struct pshm_owners {
    int count;                          /* < 0: every user */
    uid_t uids[PSHM_OWNERS_MAX];
};

#define PSHM_OWNERS_ANY ((struct pshm_owners){.count = -1})

/* This process's effective user, and root. */
struct pshm_owners pshm_owners_self(void);

/* Add a user.  Returns 0, or -E2BIG if there are PSHM_OWNERS_MAX already. */
int pshm_owners_add(struct pshm_owners *owners, uid_t uid);
bool pshm_owners_accept(const struct pshm_owners *owners, uid_t uid);

/* The objects that an attach accepts. */
struct pshm_accepted {
    struct pshm_owners owners;
    mode_t mode;                        /* the object has no other bits */
    off_t size;                         /* bytes, at least */
};

#define PSHM_ACCEPT_ANY                                                      \
    ((struct pshm_accepted){.owners = PSHM_OWNERS_ANY, .mode = 07777})

/* Open the object called name, take its use lock, and make sure that it still
 * has that name then, so that no reclaimer can have been faster.  If another
 * process keeps it locked exclusively, out->locked is false.  The caller owns
 * out->fd (close-on-exec, above 2).
 * Returns 0, or -errno with out->fd == -1:
 *   -ENOENT   there is none
 *   -ENODATA  it has no bytes: its creator has not sized it yet
 *   -ELOOP    a symbolic link; not followed
 *   -EISDIR, -EINVAL  not a regular file; out->mode says what, or is 0
 *   -EACCES   may not be opened, and out->mode is 0; or its owner, out->uid,
 *             or its mode, out->mode, is not accepted
 *   -EDOM     it has out->size bytes, less than accepted
 *   -EAGAIN   the name changes hands too often
 *   -EINTR and what open(2) says else. */
int pshm_attach(const struct pshm_name *name, bool readonly,
                const struct pshm_accepted *accepted,
                struct pshm_object *out);

/* shm_open(3) with O_NONBLOCK and a descriptor above 2.  Waits, one second at
 * most, while a reclaimer holds a write lease on the object (reclaim.h).
 * Returns the descriptor; -EAGAIN: a process still holds one; or -errno. */
int pshm_attach_open(const struct pshm_name *name, int flags, mode_t mode);

/* Is there an object called name?  Returns 1, 0 or -errno. */
int pshm_exists(const struct pshm_name *name);

/* What a refusal of open(2) to open name (rc) means: rc; or where it is about
 * what is no regular file, what pshm_attach says of that, with *mode. */
int pshm_attach_refusal(const struct pshm_name *name, int rc, mode_t *mode);

/* Look at an open descriptor's object; without a lease.  fd stays the caller's.
 * Returns 0, -ENODATA, -EISDIR, -EINVAL, or -errno. */
int pshm_attach_look(int fd, struct pshm_object *out);

/* fstat(2), as far as this library wants it. */
struct pshm_status {
    struct pshm_identity id;
    off_t size;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    nlink_t links;                      /* names that lead to it */
};

int pshm_status_of(int fd, struct pshm_status *out);
/* lstat(2), likewise. */
int pshm_status_of_name(const struct pshm_name *name, struct pshm_status *out);

/* fchmod(2); fchown(2), where (uid_t)-1 and (gid_t)-1 leave as it is. */
int pshm_set_mode(int fd, mode_t mode);
int pshm_set_owner(int fd, uid_t uid, gid_t gid);

#endif
