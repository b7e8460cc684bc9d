/* Removing the names of objects that no process uses any more.
 *
 * Inspect some objects, look once which are mapped, then settle each, which
 * locks the object exclusively and so sees the use lock of an attacher that
 * came meanwhile.  The look is for other programs, which hold no use lock. */
#ifndef PSHM_RECLAIM_H
#define PSHM_RECLAIM_H

#include "base.h"
#include "directory.h"
#include "name.h"
#include "procmaps.h"

enum pshm_verdict {
    PSHM_NOT_SELECTED,                  /* gone, too young, not an object */
    PSHM_IN_USE,                        /* locked, or mapped */
    PSHM_REMOVABLE,
    PSHM_REMOVED,
};

struct pshm_candidate {
    off_t size;                         /* bytes */
    double age;                         /* seconds since its status changed */
    int verdict;                        /* enum pshm_verdict, or -errno */
    /* the rest is this file's own */
    int fd;
    struct pshm_name name;
    struct pshm_identity id;
};

/* Look at the object called name (without a slash): is it at least older_than
 * seconds old, and without a use lock?  Never waits.  To be settled
 * by pshm_reclaim_settle, whatever the verdict is.  What cannot be opened, and
 * is old enough, has its size and age too. */
void pshm_reclaim_inspect(const char *name, double older_than,
                        struct pshm_candidate *out);

/* Unlink what is removable and not mapped, and close it.  dry_run: only
 * say in the verdict that it could be. */
void pshm_reclaim_settle(struct pshm_candidate *candidate, bool dry_run,
                         const struct pshm_mapped *mapped);

/* Both for the next of the names, from *at on, up to room of them.  device:
 * PSHM_DIR's.  Returns how many are in out, or -errno. */
int pshm_reclaim_some(const struct pshm_names *names, size_t *at,
                      double older_than, bool dry_run, dev_t device,
                      struct pshm_candidate *out, int room);

#endif
