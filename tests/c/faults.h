/* Make one chosen system call fail, or the process die or stop at it.
 *
 * faults.c defines the C library's functions that csrc/posix uses and passes
 * each call on to the real one.  Linked into a C test, or preloaded into a
 * program (LD_PRELOAD) and then called by way of dlsym or ctypes, it is the
 * same: a thread arms itself, does something, and disarms.
 *
 * Everything is per thread, so threads do not disturb each other; a forked
 * child starts out as its parent was.  Calls that the C library itself makes
 * (the mmap in malloc) are not seen.  Those of an interpreter are: use
 * pshm_fault_from to look at one library's calls only.
 *
 * Under AddressSanitizer preload this before libasan, with
 * ASAN_OPTIONS=verify_asan_link_order=0, or pshm_fault_from sees libasan call.
 *
 * Calls go by their plain names: open64 is "open", fstat64 is "fstat", and so
 * on; a syscall(2) goes by the name of what it calls where that is known. */
#ifndef PSHM_FAULTS_H
#define PSHM_FAULTS_H

#include <stdbool.h>

enum pshm_fault_action {
    PSHM_FAULT_FAIL = 0,        /* the nth call fails and does nothing */
    PSHM_FAULT_KILL_BEFORE = 1, /* SIGKILL instead of the nth call */
    PSHM_FAULT_KILL_AFTER = 2,  /* SIGKILL once it is done */
    PSHM_FAULT_STOP_BEFORE = 3, /* SIGSTOP; after SIGCONT, the call */
    PSHM_FAULT_STOP_AFTER = 4,
    PSHM_FAULT_FAIL_ON = 5,     /* the nth and every later one fails */
    PSHM_FAULT_HOOK_BEFORE = 6, /* what pshm_fault_hook was given is */
    PSHM_FAULT_HOOK_AFTER = 7,  /* called; its calls do not count */
};

/* Arm this thread.  call: a name, or NULL for any, but for the "atomic" of
 * atomic_calls.h.  nth: counted from 1 among the matching calls from now on; 0:
 * only count and log them.  err: the errno to fail with.  close(2) that is to fail does close, as on Linux. */
void pshm_fault_arm(const char *call, int nth, int action, int err);

/* Returns how many matching calls this thread has made since it was armed. */
int pshm_fault_disarm(void);

/* The names of those calls, in order, with one space between; "..." at the end
 * if they were too many.  Valid until this thread arms itself again. */
const char *pshm_fault_log(void);

/* From now on see only what is called from the loaded object (the program or a
 * library) with this text in its path; "": from the program itself; NULL: from
 * anywhere.  For all threads.
 * Returns 0, or -1: no such object is loaded. */
int pshm_fault_from(const char *text);

/* What PSHM_FAULT_HOOK_* of this thread calls. */
void pshm_fault_hook(void (*hook)(void *context), void *context);

/* In an interpreter that preloaded this: from now on count what Python
 * allocates as calls of "allocate".  Once only.
 * Returns 0, or -1: this is no Python. */
int pshm_fault_allocations(void);

/* ---- For allocations.c ---- */

/* Is this thread armed, for calls of that name or any? */
bool pshm_fault_is_armed(const char *name);

/* Is a call from that address counted? */
bool pshm_fault_is_seen(const void *caller);

/* Count a call, and do what this thread is armed with.
 * Returns whether the call is to fail. */
bool pshm_fault_meet(const char *name, void *caller);

#endif
