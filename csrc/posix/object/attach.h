/* Attaching to an existing object without changing anything. */
#ifndef PSHM_ATTACH_H
#define PSHM_ATTACH_H

#include "posix/base.h"
#include "posix/object/name.h"

struct pshm_object {
    int fd;
    struct pshm_identity id;
    off_t size;                         /* bytes */
    mode_t mode;                        /* with the type of the file: S_IFMT */
    uid_t uid;                          /* the owner */
    nlink_t links;                      /* number of names */
    bool locked;                        /* fd has a use lock (use_lock.h) */
    bool last;                          /* it is marked (mark.h) */
};

/* The users whose objects an attach accepts. */
#define PSHM_OWNERS_MAX 16

struct pshm_owners {
    int count;                          /* < 0: every user */
    uid_t uids[PSHM_OWNERS_MAX];
};

#define PSHM_OWNERS_ANY ((struct pshm_owners){.count = -1})

/* The process's effective user, and root. */
struct pshm_owners pshm_owners_self(void);

/* Add a user.  Returns 0, or -E2BIG if there are PSHM_OWNERS_MAX already. */
int pshm_owners_add(struct pshm_owners *owners, uid_t uid);
bool pshm_owners_accept(const struct pshm_owners *owners, uid_t uid);

/* The objects that an attach accepts. */
struct pshm_accepted {
    struct pshm_owners owners;
    mode_t mode;                        /* the only permitted bits */
    off_t size;                         /* minimum, bytes */
};

#define PSHM_ACCEPT_ANY                                                      \
    ((struct pshm_accepted){.owners = PSHM_OWNERS_ANY, .mode = 07777})

/* Open the object called name, take a use lock, and check that the object
 * still has a name, so that a reclaimer cannot have removed it in between.
 * If another process keeps it locked exclusively, out->locked is false. The
 * caller owns out->fd (close-on-exec, above 2). Returns 0, or -errno with
 * out->fd == -1:
 *
 * -ENOENT   no object has the name
 * -ENODATA  the size is 0: the creator has not set it yet
 * -ELOOP    a symbolic link, which is not followed
 * -EISDIR, -EINVAL  not a regular file; out->mode gives its type, or is 0
 * -EACCES   it may not be opened (out->mode is 0); or its owner out->uid
 *           or its mode out->mode is not accepted
 * -EDOM     it has out->size bytes, fewer than accepted
 * -EAGAIN   the object loses its name at each attempt
 * -EINTR and the errors of open(2) */
int pshm_attach(const struct pshm_name *name, bool readonly,
                const struct pshm_accepted *accepted,
                struct pshm_object *out);

/* shm_open(3) with O_NONBLOCK and a descriptor above 2. Waits for up to one
 * second while a reclaimer holds a write lease on the object (reclaim.h).
 * Returns the descriptor; -EAGAIN: a process still holds a write lease; or
 * -errno. */
int pshm_attach_open(const struct pshm_name *name, int flags, mode_t mode);

/* shm_open(3) for regular files only: others are not waited for, and closed
 * again. Returns the descriptor, above 2; or -errno: -EISDIR, -EINVAL (not a
 * regular file; *kind is its type, or 0), and the errors of pshm_attach_open.
 */
int pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode,
                  mode_t *kind);

/* Does an object called name exist? Returns 1, 0 or -errno. */
int pshm_exists(const struct pshm_name *name);

/* The error that pshm_attach reports when open(2) has failed with rc. If name
 * is not a regular file, *mode is its type and the result -EISDIR, -EINVAL or
 * -ELOOP; otherwise the result is rc. */
int pshm_attach_refusal(const struct pshm_name *name, int rc, mode_t *mode);

/* Read the attributes of the object open as fd, without a use lock. fd stays
 * the caller's. Returns 0, -ENODATA, -EISDIR, -EINVAL, or -errno. */
int pshm_attach_inspect(int fd, struct pshm_object *out);

/* The fields of fstat(2) that this library uses. */
struct pshm_status {
    struct pshm_identity id;
    off_t size;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    nlink_t links;                      /* number of names */
};

int pshm_status_of(int fd, struct pshm_status *out);
/* As pshm_status_of, by lstat(2). */
int pshm_status_of_name(const struct pshm_name *name, struct pshm_status *out);

/* fchmod(2) and fchown(2). (uid_t)-1 and (gid_t)-1 change nothing. */
int pshm_set_mode(int fd, mode_t mode);
int pshm_set_owner(int fd, uid_t uid, gid_t gid);

#endif
