/* Giving an object its name and taking it away: linkat, rename, unlink.
 *
 * A name may become another object's at any moment, so nothing here acts on a
 * name because of what an earlier look at it said: an object is linked by its
 * descriptor, and a name is removed by moving it aside, looking what it was,
 * and only then deleting it, or putting it back.  That other object has no
 * name for this moment, and should the name be taken in it, keeps the one
 * aside.  Who uses this library does not come in between: see turn.h. */
#ifndef PSHM_LINK_H
#define PSHM_LINK_H

#include "base.h"
#include "name.h"

/* Is name this object's now?  Returns 1, 0 (it is another's), -ENOENT (nobody
 * has it), or -errno. */
int pshm_link_holds(const struct pshm_name *name, struct pshm_identity id);

/* Give the object open as fd the name, in one step.  Unless replace the name
 * must be free: -EEXIST.  With replace an object of that name loses it in the
 * same step.  Returns 0 or -errno; on failure nothing has changed, but that an
 * object without a name may not be linkable any more where the name was taken
 * over by another user in this very moment. */
int pshm_link(int fd, const struct pshm_name *name, bool replace);

/* Give an object that is known by a temporary name (where pshm_link cannot
 * work) its real one.  As pshm_link. */
int pshm_link_move(const struct pshm_name *from, const struct pshm_name *to,
                   bool replace);

/* Move name aside if it is this object's: it has the name *aside then, and
 * the caller unlinks that, or puts it back, which fails where the name was
 * taken meanwhile.  The caller has the turn (turn.h).  Returns 0, -ENOENT
 * (nobody has the name), -ESTALE (it is another object's, and stays), or
 * -errno.  Unless it is 0, aside->path is "", or what the object that had the
 * name is called now, for it could not be put back. */
int pshm_link_aside(const struct pshm_name *name, struct pshm_identity id,
                    struct pshm_name *aside);
int pshm_link_unlink(const struct pshm_name *aside);
int pshm_link_put_back(const struct pshm_name *aside,
                       const struct pshm_name *name);

/* Remove name if it is this object's: aside, and unlink.  Returns as
 * pshm_link_aside.  And one that says in *left what that says in *aside; ""
 * where it returns 0. */
int pshm_link_remove(const struct pshm_name *name, struct pshm_identity id);
int pshm_link_remove_or_tell(const struct pshm_name *name,
                             struct pshm_identity id, struct pshm_name *left);

/* Give the object open as fd, called from, the name to.  Unless replace both
 * names lead to it for a moment, and never none.  Returns 0; -EEXIST; -ENOENT
 * or -ESTALE: from is not this object's; or -errno.  Unless it is 0 nothing
 * has changed, but for what *left says: as pshm_link_remove_or_tell. */
int pshm_link_rename(int fd, struct pshm_identity id,
                     const struct pshm_name *from, const struct pshm_name *to,
                     bool replace, struct pshm_name *left);

/* Remove name, whatever it is: shm_unlink(3).  Returns 0 or -errno. */
int pshm_link_drop(const struct pshm_name *name);

#endif
