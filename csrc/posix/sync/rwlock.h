/* RWLock: any number of readers, up to PSHM_SLOTS, or one writer. The kernel
 * releases what a killed process held.
 *
 * The lock consists of robust mutexes. A reader holds one of PSHM_SLOTS slots,
 * a writer holds the turnstile. Every thread that acquires the lock locks the
 * turnstile first: a reader holds it while it finds a slot; a writer holds it
 * while it waits until all slots are free, and then until it releases the
 * lock. So no new reader enters while a writer waits, and readers cannot
 * starve a writer.
 *
 * A reader that dies leaves nothing to repair: its slot becomes free. The word
 * `writing` says whether a dead owner of the turnstile was writing: a writer
 * sets it when it has found all slots free, and clears it before it unlocks
 * the turnstile. If it is set, the next owners get -EOWNERDEAD until one of
 * them repairs the data. */
#ifndef PSHM_RWLOCK_H
#define PSHM_RWLOCK_H

#include <stdatomic.h>

#include "posix/base.h"
#include "posix/sync/lock.h"

#define PSHM_SLOTS 64                   /* readers at one time */

/* The owners of the slots, in lines of a primitive whose last word is
 * constant. */
enum { PSHM_OWNERS_IN_LINE = 7 };

struct pshm_rw_owners {
    struct pshm_owner of[PSHM_OWNERS_IN_LINE];
    uint32_t unused[2];
};

enum {
    PSHM_OWNER_LINES
        = (PSHM_SLOTS + PSHM_OWNERS_IN_LINE - 1) / PSHM_OWNERS_IN_LINE
};

struct pshm_rwlock {                    /* after the header */
    atomic_uint writing;
    atomic_uint writer_waits;           /* a writer holds the turnstile; only a
                                           hint */
    uint32_t unused[14];
    struct pshm_robust slots[PSHM_SLOTS];
    struct pshm_rw_owners owners[PSHM_OWNER_LINES];
};

/* The state of the lock in one process; all zeros at first. */
struct pshm_rw_state {
    struct pshm_mutex_state turnstile;
    bool writing;                       /* the owner of the turnstile writes */
    struct pshm_mutex_state slots[PSHM_SLOTS];
};

/* The progress of an attempt; all zeros at first, kept between calls. */
struct pshm_rw_attempt {
    bool turnstile;                     /* it holds the turnstile */
    int slots;                          /* slots found free, to write */
};

enum pshm_rw_patience {
    PSHM_RW_TRY,                        /* do not wait */
    PSHM_RW_PASS,                       /* wait only for a reader that holds
                                           the turnstile, 1 ms at most */
    PSHM_RW_WAIT,                       /* wait until the deadline */
};

int pshm_rw_init(struct pshm_lock *turnstile, struct pshm_rwlock *rw);
int pshm_rw_open(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate);

/* Acquire the lock to read, or to write. Returns 0, with *slot for a reader;
 * or
 *
 * -EINTR       call again with the same attempt
 *
 * or one of these, with the attempt undone:
 *
 * -EBUSY, -ETIMEDOUT
 * -EDEADLK     this thread holds the lock, and would wait indefinitely
 * -EAGAIN      this thread reads in all slots, and would wait indefinitely
 * -EBADMSG, -EINPROGRESS  as pshm_robust_lock
 *
 * or -EOWNERDEAD: a writer died, and the attempt holds the turnstile. A writer
 * that will repair the data calls again with the same attempt; other callers
 * undo it. */
int pshm_rw_read(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
                 enum pshm_rw_patience patience, int64_t deadline, int *slot);
int pshm_rw_write(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate,
                  struct pshm_rw_attempt *attempt,
                  enum pshm_rw_patience patience, int64_t deadline);

/* Undo an attempt: after -EINTR if the caller does not call again, or after
 * -EOWNERDEAD, which the next thread then gets. */
void pshm_rw_undo(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate,
                  struct pshm_rw_attempt *attempt);

/* For a writer that acquired the lock after -EOWNERDEAD: the data is repaired;
 * or it is not, and the writer releases the lock. */
void pshm_rw_repair(struct pshm_lock *turnstile);
void pshm_rw_release_unrepaired(struct pshm_lock *turnstile,
                                struct pshm_rwlock *rw,
                                struct pshm_rw_state *mstate);

/* Return 0; -EPERM: this thread does not read in that slot, or does not write;
 * or -EBADMSG as pshm_robust_unlock. */
int pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_state *mstate,
                  int slot);
int pshm_rw_done(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate);

/* Returns a slot in which this thread reads, or -1. */
int pshm_rw_my_slot(const struct pshm_rw_state *mstate);
/* Does this thread write? */
bool pshm_rw_writes(const struct pshm_rw_state *mstate);

/* For error messages: the number of readers, or -1 if a thread writes. */
int pshm_rw_readers(struct pshm_rwlock *rw);

/* The Python object of this state is being deallocated: its writer counts as
 * dead, and its readers stop reading. keep: called for each mutex that is
 * still in the list of a thread, to pass a reference to the memory to
 * pshm_orphan_keep. */
void pshm_rw_abandon(struct pshm_lock *turnstile, struct pshm_rwlock *rw,
                     struct pshm_rw_state *mstate,
                     void (*keep)(void *context, struct pshm_robust *r,
                                  const struct pshm_mutex_state *mstate),
                     void *context);

#endif
