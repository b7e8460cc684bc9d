/* RWLock: any number of readers, up to PSHM_SLOTS, or one writer.
 *
 * A reader takes a slot: it replaces 0 by its id and start time in a word that
 * other readers seldom use. Then it reads the word `entry`. If the entry is
 * open, it has acquired the lock. Otherwise it leaves the slot and passes the
 * turnstile.
 *
 * A writer locks the turnstile, a robust mutex; closes the entry; waits until
 * each slot has been empty once; and then holds the turnstile until it
 * releases the lock. It does not take a slot. A reader that found the entry
 * closed locks the turnstile, takes a slot and unlocks the turnstile. So new
 * readers wait while a writer waits, and readers cannot starve a writer.
 *
 * A reader stores to its slot and then loads the entry; a writer stores to the
 * entry and then loads the slots; all four are sequentially consistent. So if
 * the reader finds the entry open, the writer finds the slot taken. Only the
 * owner of the turnstile opens the entry, before it unlocks the turnstile. A
 * slot that is emptied while the entry is closed stays empty, except for a
 * reader that leaves it again. A writer that finds such a reader waits for it
 * for no reason, but not for long; if neither of the two may wait, both can
 * fail.
 *
 * Deaths. The kernel marks the turnstile of an owner that dies, so the next
 * thread that locks it gets -EOWNERDEAD. The entry says what the owner was
 * doing:
 *
 * open         it passed as a reader, or had released the lock
 * closed       it waited for readers: nothing to repair
 * writing      the data must be repaired
 *
 * In the last case the next owner first sets `inconsistent` in the turnstile,
 * and only then changes the entry; the entry stays closed until a writer has
 * repaired the data and releases the lock. So each reader passes the
 * turnstile, and gets -EOWNERDEAD, too.
 *
 * A slot whose reader died, or replaced its program, is emptied by the owner
 * of the turnstile that waits for it, which checks the readers at most once in
 * a poll interval: it replaces the reader's id by its own, and then leaves the
 * slot. Only one thread can replace an id, so a slot cannot be emptied a
 * second time after another reader has taken it; and a death between the two
 * steps leaves the slot of a dead thread, as before. A reader that leaves a
 * slot wakes a waiter only if the waiter has set a bit in the word; if the
 * reader dies between the two steps, the waiter reads the word again at the
 * end of its poll interval.
 *
 * No word is an address, and each value of each word is valid: other bytes
 * can make the lock wait or stay unlocked, but not crash a process. */
#ifndef PSHM_RWLOCK_H
#define PSHM_RWLOCK_H

#include <stdatomic.h>

#include "posix/base.h"
#include "posix/sync/lock.h"
#include "posix/sync/primitive.h"

#define PSHM_SLOTS 64                   /* readers at one time */
#define PSHM_SLOT_LINES (PSHM_SLOTS / 2)

struct pshm_rw_slot {
    _Atomic(uint64_t) reader;           /* start time and id of a thread, and
                                           a flag; 0: empty */
    /* written by the reader; 0 in an empty slot: */
    atomic_uint image;                  /* as in struct pshm_thread */
    atomic_uint object;                 /* number of the Python object */
};

/* A cache line with slot i and slot i + PSHM_SLOT_LINES: threads whose ids
 * follow each other use different lines. */
struct pshm_rw_line {
    struct pshm_rw_slot slots[2];
    uint32_t unused[7];
    uint32_t mark;                      /* constant: pshm_primitive_mark */
};

/* The whole primitive. */
struct pshm_rwlock {
    struct pshm_lock turnstile;
    struct pshm_header header;
    atomic_uint entry;                  /* 0: open; or PSHM_ENTRY_CLOSED, with
                                           _WRITING or not */
    uint32_t unused[14];
    uint32_t mark;
    struct pshm_rw_line lines[PSHM_SLOT_LINES];
};

enum { PSHM_ENTRY_CLOSED = 1, PSHM_ENTRY_WRITING = 2 };

_Static_assert(sizeof(struct pshm_rw_line) == 64
                   && offsetof(struct pshm_rwlock, entry) == 128,
               "whole lines");

/* The state of the lock of one Python object; all zeros at first. */
struct pshm_rw_state {
    struct pshm_mutex_state turnstile;
    bool writing;                       /* the owner of the turnstile writes */
    unsigned number;                    /* unique in this process */
    atomic_uint reads;                  /* slots that it has taken; in a forked
                                           child also those of its parent */
    _Atomic(int64_t) looked;            /* when it last checked the readers,
                                           nanoseconds */
};

/* Init: the bytes are all zeros. */
int pshm_rw_init(struct pshm_rwlock *rw);
int pshm_rw_open(struct pshm_rwlock *rw, struct pshm_rw_state *state);

/* Deadlines that do not wait: without a system call if the turnstile is free;
 * or with a check for dead readers. */
#define PSHM_RW_TRY ((int64_t)-1)
#define PSHM_RW_NOW ((int64_t)0)

/* Acquire the lock to read, or to write. *pending: false at first; the caller
 * holds the turnstile, unless it is a child that was forked since: then the
 * attempt begins anew. Returns 0; or
 *
 * -EINTR       call again with the same pending
 *
 * or one of these, with the attempt undone:
 *
 * -EBUSY, -ETIMEDOUT
 * -EDEADLK     this thread holds the lock, and would wait indefinitely
 * -EAGAIN      this thread reads in all slots, and would wait indefinitely
 * -EBADMSG, -EINPROGRESS  as pshm_robust_lock
 *
 * or -EOWNERDEAD: a writer died, and the attempt is pending. A writer that
 * will repair the data calls again; other callers undo it. */
int pshm_rw_acquire(struct pshm_rwlock *rw, struct pshm_rw_state *state,
                    bool writes, bool *pending, int64_t deadline);

/* Undo an attempt that is pending: after -EINTR if the caller does not call
 * again, or after -EOWNERDEAD, which the next thread then gets. */
void pshm_rw_undo(struct pshm_rwlock *rw, struct pshm_rw_state *state,
                  bool *pending);

/* For a writer that acquired the lock after -EOWNERDEAD: release it without a
 * repair. After a repair: pshm_lock_repair of the turnstile. */
void pshm_rw_release_unrepaired(struct pshm_rwlock *rw,
                                struct pshm_rw_state *state);

/* Release the lock, which this thread acquired by this state. Returns 0;
 * -EPERM: it has not; or -EBADMSG as pshm_robust_unlock. */
int pshm_rw_release(struct pshm_rwlock *rw, struct pshm_rw_state *state);

/* Does this thread write, or read, by this state? */
bool pshm_rw_writes(const struct pshm_rw_state *state);
bool pshm_rw_reads(const struct pshm_rwlock *rw,
                   const struct pshm_rw_state *state);

/* For error messages: the number of readers, or -1 if a thread writes. */
int pshm_rw_readers(const struct pshm_rwlock *rw);

/* The Python object of this state is being deallocated: its writer counts as
 * dead, and its readers stop reading. Returns 0; or -EBUSY as
 * pshm_lock_abandon, for the turnstile. */
int pshm_rw_abandon(struct pshm_rwlock *rw, struct pshm_rw_state *state);

#endif
