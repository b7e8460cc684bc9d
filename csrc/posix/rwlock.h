/* RWLock: many readers or one writer, and the kernel releases what a dead one
 * held.
 *
 * All of it is robust mutexes.  A reader holds one of PSHM_SEATS seats; a writer
 * holds the gate and all seats.  Everybody comes in through the gate: a reader
 * holds it while it finds a seat, a writer for as long as it writes.  So a
 * writer that waits for the readers of now keeps new ones out, and none can
 * starve it.
 *
 * A reader that dies leaves nothing to repair: its seat is taken over.  Whether
 * a dead owner of the gate was writing, the word `writing` says: it is set when
 * the writer has all seats and cleared before it leaves the gate.  If it was,
 * the next one is told, and everyone after it until somebody repairs. */
#ifndef PSHM_RWLOCK_H
#define PSHM_RWLOCK_H

#include <stdatomic.h>

#include "base.h"
#include "lock.h"

#define PSHM_SEATS 64                   /* readers at one time */

struct pshm_rwlock {                    /* behind the tag */
    atomic_uint writing;
    atomic_uint coming;                 /* a writer has the gate: a hint only */
    uint32_t unused[14];
    struct pshm_robust seats[PSHM_SEATS];
};

/* One process's side, zeroed at first. */
struct pshm_rw_grip {
    struct pshm_grip gate;
    struct pshm_grip seats[PSHM_SEATS];
};

/* How far an attempt has come; zeroed at first, kept between calls. */
struct pshm_rw_attempt {
    bool gate;                          /* has the gate */
    int seats;                          /* has so many, for writing */
};

int pshm_rw_init(struct pshm_lock *gate, struct pshm_rwlock *rw);
int pshm_rw_open(const struct pshm_lock *gate, const struct pshm_rwlock *rw,
                 struct pshm_rw_grip *grip);

/* Come in to read, or to write.  now: do not wait, but for who is on the way in
 * at this moment to read, and so gone from the gate at once.  Returns 0 with *seat for a
 * reader; -EINTR: call again with the same attempt; or with the attempt undone:
 * -EBUSY or -ETIMEDOUT, -EDEADLK (this thread has it), -EBADMSG; or -EOWNERDEAD:
 * a writer died, and the attempt has the gate: a writer that will repair what it
 * left calls again with it, all others undo it. */
int pshm_rw_read(struct pshm_lock *gate, struct pshm_rwlock *rw,
                 struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt,
                 bool now, int64_t until, int *seat);
int pshm_rw_write(struct pshm_lock *gate, struct pshm_rwlock *rw,
                  struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt,
                  bool now, int64_t until);

/* Undo an attempt: after -EINTR where it is not to go on, or -EOWNERDEAD, which
 * the next one is told then. */
void pshm_rw_undo(struct pshm_lock *gate, struct pshm_rwlock *rw,
                  struct pshm_rw_grip *grip, struct pshm_rw_attempt *attempt);

/* By a writer that came in after -EOWNERDEAD: what the dead one left is in order;
 * or it is not, and this one leaves. */
void pshm_rw_repair(struct pshm_lock *gate);
void pshm_rw_give_up(struct pshm_lock *gate, struct pshm_rwlock *rw,
                     struct pshm_rw_grip *grip);

/* Return 0, or -EPERM: this thread does not read in that seat, or write. */
int pshm_rw_leave(struct pshm_rwlock *rw, struct pshm_rw_grip *grip, int seat);
int pshm_rw_done(struct pshm_lock *gate, struct pshm_rwlock *rw,
                 struct pshm_rw_grip *grip);

/* A seat that this thread reads in, or -1; and does it write? */
int pshm_rw_my_seat(const struct pshm_rw_grip *grip);
bool pshm_rw_writes(const struct pshm_rwlock *rw,
                    const struct pshm_rw_grip *grip);

/* For a message: how many read at this moment, or -1: one writes. */
int pshm_rw_readers(const struct pshm_rwlock *rw);

/* Has any thread of this process a part of it? */
bool pshm_rw_held(const struct pshm_rw_grip *grip);

#endif
