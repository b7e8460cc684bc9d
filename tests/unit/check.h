/* The harness of the C tests: checks, a census of leftovers, children with a
 * deadline, and a driver that makes each call fail once. */
#ifndef PSHM_CHECK_H
#define PSHM_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults.h"
#include "posix/base.h"
#include "posix/interrupt.h"
#include "posix/object/name.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))
#define MIB ((off_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- checks: a failed check is printed and counted, and the test continues
 * ---- */

#ifdef __clang_analyzer__
/* The analyzer examines the code after a check that succeeded. */
static inline bool
check_held(bool holds)
{
    if (!holds) {
        abort();
    }
    return true;
}
#define CHECK(condition) check_held(condition)
#define CHECK_IS(actual, expected)                                           \
    check_held((long long)(actual) == (long long)(expected))
#else
#define CHECK(condition)                                                     \
    check_that((condition), __FILE__, __LINE__, #condition)
/* Prints both sides when they differ. */
#define CHECK_IS(actual, expected)                                           \
    check_equal((long long)(actual), (long long)(expected), __FILE__,        \
                __LINE__, #actual)
#endif

bool check_that(bool holds, const char *file, int line, const char *text);
bool check_equal(long long actual, long long expected, const char *file,
                 int line, const char *text);

/* The subject of the next failed checks; NULL: none. */
void check_about(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* ---- signals of long calls ---- */

/* The context of count_interrupt, which counts its calls. From call number
 * `raises` on (0: never) it returns -EINTR, as after a signal handler that
 * raises. */
struct interrupts {
    int calls, raises;
};
int count_interrupt(void *context);

/* An interrupt callback that never raises. */
extern const struct pshm_interrupt go_on;

/* ---- tests ---- */

/* Run a test. Afterwards there must be no new descriptor, mapping of shared
 * memory or name with the prefix. */
#define RUN(function) run_test(function, #function)
void run_test(void (*test)(void), const char *name);

/* Run a test in a child, which must end with this status (child_wait). */
#define RUN_IN_CHILD(function, status)                                       \
    run_test_in_child(function, #function, status)
void run_test_in_child(int (*test)(void *context), const char *name,
                       int status);

/* Report that this test, or a part of it, cannot be run here. Printed and
 * counted. */
void skip(const char *reason);

/* Print the closing line; returns what main returns. */
int finish(void);

/* ---- names and objects ---- */

/* "pshmtest.PID.": the prefix of all names that this program and its children
 * make. */
const char *prefix(void);

/* A name with the prefix. */
struct pshm_name name_of(const char *suffix);

/* The number of names in PSHM_DIR that start with text (without a slash). */
int names_with(const char *text);

/* A name that starts with text, or "". */
struct pshm_name first_with(const char *text);

/* Make an object by plain system calls, with size bytes of value fill. */
struct pshm_identity make_plain(const struct pshm_name *name, off_t size,
                                mode_t mode, char fill);
void remove_plain(const struct pshm_name *name);

/* The descriptor of a new memfd of size bytes. */
int memory_file(off_t size);

/* The identity of the object that has the name; ino is 0 if the name is free.
 */
struct pshm_identity identity_of(const struct pshm_name *name);

/* ---- leftovers ---- */

struct census {
    int descriptors, mappings, names;
};

struct census census_take(void);
void census_compare(struct census before, const char *file, int line);
#define CHECK_NOTHING_LEFT(before) census_compare(before, __FILE__, __LINE__)

/* ---- children ---- */

/* Run the function in a child with a deadline of 60 seconds. The child exits
 * with 1 if a check failed in it, otherwise with the result of the function.
 * Returns its pid. */
pid_t child_start(int (*function)(void *context), void *context);

/* Wait for a child. Returns its exit status, or -SIGNAL if a signal ended it.
 */
int child_wait(pid_t pid);
int child_run(int (*function)(void *context), void *context);

/* Send SIGKILL to a child, and wait for it. */
void child_kill(pid_t pid);

/* Run the function in a child that is killed at its nth call. action:
 * PSHM_FAULT_KILL_BEFORE or PSHM_FAULT_KILL_AFTER. Returns false if there were
 * fewer calls; then the function must have returned 0. */
bool child_killed_at(int nth, int action, int (*function)(void *context),
                     void *context);

/* Wait until the child has stopped itself. */
void child_wait_stopped(pid_t pid);
pid_t child_start_stopped(int (*function)(void *context), void *context);

/* For a child: stop until SIGCONT. */
int stop_itself(void *context);

/* Zeroed memory that this process and its children share. */
void *shared_memory(size_t size);

/* The exit status of a child that means: the kernel does not permit the test.
 * The parent must call skip. */
#define CANNOT 77

/* Run the function in a child, which must end with 0. If it ends with CANNOT,
 * skip the test for this reason. */
#define CHECK_IN_CHILD(function, context, reason)                            \
    check_in_child(function, context, reason, __FILE__, __LINE__)
void check_in_child(int (*function)(void *context), void *context,
                    const char *reason, const char *file, int line);

/* In a child: enter a mount namespace of its own and mount a tmpfs at `where`,
 * with options as of mount(8). Returns 0 or CANNOT. */
int mount_own(const char *where, const char *options);

/* In a child with a /proc of its own (mount_own): make a folder, or a file
 * with this text. */
void make_folder(const char *path);
void write_file(const char *path, const char *text);

/* In a child: make the kernel refuse this system call from now on. Returns 0
 * or CANNOT. */
int forbid(long number, int err);

/* In a child: change to the user with the id NOBODY, without privileges.
 * Returns 0 or CANNOT. */
int become_nobody(void);
#define NOBODY 65534

/* In a child: set a limit of getrlimit(2), or restore it. */
void limit_to(int resource, rlim_t most);
void end_limit(int resource);

/* In a child: use up the memory, so that malloc(3) fails until the limit of
 * RLIMIT_DATA is restored. */
void use_up_memory(void);

/* ---- faults ---- */

/* An operation under test. It returns 0 (or another value) or -errno. After a
 * failure it must leave nothing that its contract does not name. */
struct operation {
    const char *name;
    int (*act)(void *context);
    /* Undo a successful act. */
    void (*undo)(void *context);
    void *context;
    /* Calls whose failure the act may handle, with spaces around each. */
    const char *overcomes;
    /* -EINTR means that act must be called again. */
    bool resumes;
};

/* Record the calls of the operation. Then make each of them fail with each
 * errno that it can have: act must return that errno, or, if it may handle the
 * failure or resumes, succeed; and nothing may be left over. Returns the
 * number of calls. */
int fail_each(const struct operation *operation);

#endif
