/* A mutex whose next owner is told that the last one died while it had it:
 * pthread_mutexattr_setrobust(3).
 *
 * While it is held the C library keeps it in a list of its thread's, by
 * addresses in the mutex itself.  So the memory must stay mapped as long as a
 * thread of this process holds it; and who writes over those addresses would
 * crash the holder.  A grip remembers, in private memory, what they were. */
#ifndef PSHM_ROBUST_H
#define PSHM_ROBUST_H

#include <pthread.h>
#include <stdatomic.h>

#include "base.h"

enum pshm_robust_flags {
    PSHM_RECURSIVE = 1,                 /* its owner may lock it again */
    PSHM_INHERIT = 2,                   /* priority inheritance */
};

struct pshm_robust {
    union {
        pthread_mutex_t mutex;
        unsigned char room[48];         /* of any C library's */
    };
};

_Static_assert(sizeof(pthread_mutex_t) <= 48, "a robust mutex has no room");

/* One process's side of it, zeroed at first; for any number of threads.  Who
 * locks it by one grip unlocks it by that. */
struct pshm_grip {
    int kind;
    atomic_uintptr_t owner;             /* thread that has it by this grip */
    atomic_uint forks;                  /* ... since how many forks */
    /* its owner's: */
    unsigned depth;
    uintptr_t links[2];
};

/* Has this thread got it by this grip?  Has any thread of this process? */
bool pshm_grip_mine(const struct pshm_grip *grip);
bool pshm_grip_held(const struct pshm_grip *grip);

/* Make r, which is all zeros and nobody else's yet.  Returns 0 or -errno. */
int pshm_robust_init(struct pshm_robust *r, unsigned flags);

/* Know r, which somebody made with these flags.  Returns 0, -EBADMSG: it is
 * none of that kind; or -errno. */
int pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                     struct pshm_grip *grip);

/* Lock it.  Returns 0; -EOWNERDEAD: locked, but its last owner died with it,
 * and it is to be repaired; or it is not locked: -EBUSY (somebody has it),
 * -EDEADLK (this thread has it), -ENOTRECOVERABLE (whoever was told before let
 * go of it without a repair), -EBADMSG (written over), -EINTR and -ETIMEDOUT
 * as pshm_futex_wait. */
int pshm_robust_try(struct pshm_robust *r, struct pshm_grip *grip);
int pshm_robust_lock(struct pshm_robust *r, struct pshm_grip *grip,
                     int64_t until);

/* After -EOWNERDEAD, and before it is unlocked. */
void pshm_robust_repair(struct pshm_robust *r);

/* By its owner, who has just locked or unlocked another one: what its place in
 * the list is now is right.  Saves asking the kernel when it is unlocked, which
 * has to be done where that has changed since; not where the last one locked is
 * the first one unlocked. */
void pshm_robust_renew(const struct pshm_robust *r, struct pshm_grip *grip);

/* Returns 0; -EPERM: this thread has not got it by this grip; -EBADMSG: written
 * over. */
int pshm_robust_unlock(struct pshm_robust *r, struct pshm_grip *grip);

#endif
