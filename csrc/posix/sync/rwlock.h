/* RWLock: many readers or one writer, and the kernel releases what a dead one
 * held.
 *
 * All of it is robust mutexes.  A reader holds one of PSHM_SLOTS slots, a writer
 * the gate.  Everybody comes in through the gate: a reader holds it while it finds
 * a slot; a writer while it waits until all slots are free, and for as long as it
 * writes.  So a writer that waits for the readers of now keeps new ones out, and
 * they cannot starve it.
 *
 * A reader that dies leaves nothing to repair: its slot is free.  Whether a dead
 * owner of the gate was writing, the word `writing` says: it is set when the
 * writer has found all slots free and cleared before it leaves the gate.  If it
 * was, the next one is told, and everyone after it until somebody repairs. */
#ifndef PSHM_RWLOCK_H
#define PSHM_RWLOCK_H

#include <stdatomic.h>

#include "posix/base.h"
#include "posix/sync/lock.h"

#define PSHM_SLOTS 64                   /* readers at one time */

/* The owners of slots, in lines of a cell, whose ends are unused. */
enum { PSHM_OWNERS_IN_LINE = 7 };

struct pshm_rw_owners {
    struct pshm_owner of[PSHM_OWNERS_IN_LINE];
    uint32_t unused[2];
};

enum {
    PSHM_OWNER_LINES
        = (PSHM_SLOTS + PSHM_OWNERS_IN_LINE - 1) / PSHM_OWNERS_IN_LINE
};

struct pshm_rwlock {                    /* behind the tag */
    atomic_uint writing;
    atomic_uint coming;                 /* a writer has the gate: a hint only */
    uint32_t unused[14];
    struct pshm_robust slots[PSHM_SLOTS];
    struct pshm_rw_owners owners[PSHM_OWNER_LINES];
};

/* One process's side, zeroed at first. */
struct pshm_rw_state {
    struct pshm_mutex_state gate;
    bool writing;                       /* the gate's owner's: it writes */
    struct pshm_mutex_state slots[PSHM_SLOTS];
};

/* How far an attempt has come; zeroed at first, kept between calls. */
struct pshm_rw_attempt {
    bool gate;                          /* has the gate */
    int slots;                          /* so many were found free, to write */
};

enum pshm_rw_patience {
    PSHM_RW_TRY,                        /* do not wait */
    PSHM_RW_PASS,                       /* wait only for a reader that is on its
                                           way through the gate: 1 ms at most */
    PSHM_RW_WAIT,                       /* until a deadline */
};

int pshm_rw_init(struct pshm_lock *gate, struct pshm_rwlock *rw);
int pshm_rw_open(struct pshm_lock *gate, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate);

/* Acquire it to read, or to write.  Returns 0 with *slot for a reader; -EINTR:
 * call again with the same attempt; or with the attempt undone: -EBUSY or
 * -ETIMEDOUT, -EDEADLK (this thread has it, and would wait for ever), -EAGAIN (it
 * reads in all slots, and would wait for ever), -EBADMSG, -EINPROGRESS (as
 * pshm_robust_lock); or -EOWNERDEAD: a writer died, and the
 * attempt has the gate: a writer that will repair what it left calls again with
 * it, all others undo it. */
int pshm_rw_read(struct pshm_lock *gate, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
                 enum pshm_rw_patience patience, int64_t deadline, int *slot);
int pshm_rw_write(struct pshm_lock *gate, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate, struct pshm_rw_attempt *attempt,
                  enum pshm_rw_patience patience, int64_t deadline);

/* Undo an attempt: after -EINTR where it is not to go on, or -EOWNERDEAD, which
 * the next one is told then. */
void pshm_rw_undo(struct pshm_lock *gate, struct pshm_rwlock *rw,
                  struct pshm_rw_state *mstate,
                  struct pshm_rw_attempt *attempt);

/* By a writer that came in after -EOWNERDEAD: what the dead one left is in order;
 * or it is not, and this one leaves. */
void pshm_rw_repair(struct pshm_lock *gate);
void pshm_rw_give_up(struct pshm_lock *gate, struct pshm_rwlock *rw,
                     struct pshm_rw_state *mstate);

/* Return 0; -EPERM: this thread does not read in that slot, or write; or
 * -EBADMSG as pshm_robust_unlock. */
int pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_state *mstate,
                  int slot);
int pshm_rw_done(struct pshm_lock *gate, struct pshm_rwlock *rw,
                 struct pshm_rw_state *mstate);

/* A slot that this thread reads in, or -1; and does it write? */
int pshm_rw_my_slot(const struct pshm_rw_state *mstate);
bool pshm_rw_writes(const struct pshm_rw_state *mstate);

/* For a message: how many read at this moment, or -1: one writes. */
int pshm_rw_readers(struct pshm_rwlock *rw);

/* The object that has the grip goes away: a writer of it is dead, and its readers
 * read no more.  keep: called for each part that still is in the list of a
 * thread, to hand a reference to the memory to pshm_orphan_keep. */
void pshm_rw_abandon(struct pshm_lock *gate, struct pshm_rwlock *rw,
                     struct pshm_rw_state *mstate,
                     void (*keep)(void *context, struct pshm_robust *r,
                                  const struct pshm_mutex_state *mstate),
                     void *context);

#endif
