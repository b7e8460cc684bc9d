/* Make a chosen system call fail, or kill or stop the process there.
 *
 * faults.c defines the functions of the C library that csrc/posix uses, and
 * passes each call on to the real function. It works in the same way linked
 * into a C test, or preloaded into a program (LD_PRELOAD) and called through
 * dlsym or ctypes: a thread arms itself, runs an operation, and disarms.
 *
 * All state is per thread, so threads do not disturb each other; a forked
 * child starts with the state of its parent. Calls that the C library itself
 * makes (the mmap in malloc) are not counted. Calls of an interpreter are
 * counted: pshm_fault_from restricts the counting to one library.
 *
 * Under AddressSanitizer, preload this library before libasan, with
 * ASAN_OPTIONS=verify_asan_link_order=0. Otherwise pshm_fault_from counts
 * calls of libasan.
 *
 * Calls are identified by their plain names: open64 is "open", fstat64 is
 * "fstat", and so on. A syscall(2) has the name of the system call, if it is
 * known. */
#ifndef PSHM_FAULTS_H
#define PSHM_FAULTS_H

#include <stdbool.h>

enum pshm_fault_action {
    PSHM_FAULT_FAIL = 0,        /* the nth call fails and does nothing */
    PSHM_FAULT_KILL_BEFORE = 1, /* SIGKILL instead of the nth call */
    PSHM_FAULT_KILL_AFTER = 2,  /* SIGKILL after the nth call */
    PSHM_FAULT_STOP_BEFORE = 3, /* SIGSTOP; after SIGCONT, the call */
    PSHM_FAULT_STOP_AFTER = 4,
    PSHM_FAULT_FAIL_ON = 5,     /* the nth and every later call fails */
    PSHM_FAULT_HOOK_BEFORE = 6, /* the function of pshm_fault_hook is */
    PSHM_FAULT_HOOK_AFTER = 7,  /* called; its calls do not count */
};

/* Arm this thread. call: a name; or NULL for any call except the "atomic" of
 * atomic_calls.h. nth: counted from 1 among the matching calls from now on; 0:
 * only count and log them. err: the errno of a failed call. A close(2) that
 * fails closes the descriptor, as on Linux. */
void pshm_fault_arm(const char *call, int nth, int action, int err);

/* Returns the number of matching calls of this thread since it was armed. */
int pshm_fault_disarm(void);

/* The names of those calls in order, separated by a space; "..." at the end if
 * there were too many. Valid until this thread arms itself again. */
const char *pshm_fault_log(void);

/* From now on, count only calls from the loaded object (the program or a
 * library) whose path contains this text; "": from the program itself; NULL:
 * from anywhere. For all threads. Returns 0, or -1: no such object is loaded.
 */
int pshm_fault_from(const char *text);

/* Set the function that PSHM_FAULT_HOOK_* calls in this thread. */
void pshm_fault_hook(void (*hook)(void *context), void *context);

/* In an interpreter that preloaded this library: from now on, count the
 * allocations of Python as calls of "allocate". Can be called once. Returns 0,
 * or -1: this is not a Python interpreter. */
int pshm_fault_allocations(void);

/* ---- For allocations.c ---- */

/* Is this thread armed for calls of this name or for any call? */
bool pshm_fault_is_armed(const char *name);

/* Is a call from that address counted? */
bool pshm_fault_is_seen(const void *caller);

/* Count a call, and do what this thread is armed for. Returns whether the call
 * must fail. */
bool pshm_fault_meet(const char *name, void *caller);

#endif
