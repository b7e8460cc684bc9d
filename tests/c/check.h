/* The harness of the C tests: checks, a census of what is left over, children
 * with a deadline, and the driver that makes each call fail in turn. */
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

/* ---- checks: a failed one is printed, counted, and the test goes on ---- */

#ifdef __clang_analyzer__
/* It looks at what follows where they hold. */
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

/* What the next failed checks are about; NULL: nothing in particular. */
void check_about(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* ---- signals of long calls ---- */

/* The context of count_interrupt, which counts its calls, and from call number
 * `raises` on (0: never) returns -EINTR, as after a handler that raises. */
struct interrupts {
    int calls, raises;
};
int count_interrupt(void *context);

/* No handler raises. */
extern const struct pshm_interrupt go_on;

/* ---- tests ---- */

/* Run a test; afterwards no descriptor, no mapping of shared memory and no
 * name with our prefix may be there that was not there before. */
#define RUN(function) run_test(function, #function)
void run_test(void (*test)(void), const char *name);

/* This test, or a part of it, cannot be run here.  Printed and counted. */
void skip(const char *reason);

/* Print the closing line; returns what main returns. */
int finish(void);

/* ---- names and objects ---- */

/* "pshmtest.PID.": all names that this program and its children make. */
const char *prefix(void);

/* A name with our prefix. */
struct pshm_name name_of(const char *suffix);

/* How many names in PSHM_DIR start with text (the plain name, no slash). */
int names_with(const char *text);

/* One of the names that start with text, "" if there is none. */
struct pshm_name first_with(const char *text);

/* Make an object by plain system calls: size bytes, all of them fill. */
struct pshm_identity make_plain(const struct pshm_name *name, off_t size,
                                mode_t mode, char fill);
void remove_plain(const struct pshm_name *name);

/* Whose the name is now; ino 0 if it is nobody's. */
struct pshm_identity identity_of(const struct pshm_name *name);

/* ---- what is left over ---- */

struct census {
    int descriptors, mappings, names;
};

struct census census_take(void);
void census_compare(struct census before, const char *file, int line);
#define CHECK_NOTHING_LEFT(before) census_compare(before, __FILE__, __LINE__)

/* ---- children ---- */

/* Run the function in a child with a deadline of 60 seconds; it exits with 1
 * if a check failed in it, or what the function returned.  Returns its pid. */
pid_t child_start(int (*function)(void *context), void *context);

/* Wait for it; returns its exit status, or -SIGNAL if one ended it. */
int child_wait(pid_t pid);
int child_run(int (*function)(void *context), void *context);

/* Wait until the child has stopped itself. */
void child_wait_stopped(pid_t pid);

/* Memory, zeroed, that this process and its children share. */
void *shared_memory(size_t size);

/* What a child exits with to say that the kernel does not let it: the parent
 * has to call skip. */
#define CANNOT 77

/* In a child: a mount namespace of its own, with a tmpfs on where, options as
 * of mount(8).  Returns 0, or CANNOT. */
int mount_own(const char *where, const char *options);

/* In a child, for a /proc of its own (mount_own): make one of its folders, or a
 * file with that text. */
void make_folder(const char *path);
void write_file(const char *path, const char *text);

/* In a child: from now on the kernel refuses this system call.  Returns 0, or
 * CANNOT. */
int forbid(long number, int err);

/* In a child: be nobody, without privileges.  Returns 0, or CANNOT. */
int become_nobody(void);
#define NOBODY 65534

/* In a child: limit a resource of getrlimit(2); and do so no more. */
void limit_to(int resource, rlim_t most);
void end_limit(int resource);

/* In a child, until the limit of RLIMIT_DATA ends: malloc(3) has no memory. */
void use_up_memory(void);

/* ---- faults ---- */

/* An operation under test.  It returns 0 (or a value) or -errno, and after a
 * failure has nothing left that its contract does not name. */
struct operation {
    const char *name;
    int (*act)(void *context);
    /* Undo an act that succeeded. */
    void (*undo)(void *context);
    void *context;
    /* Calls whose failure the act may overcome, with spaces round each. */
    const char *overcomes;
    /* -EINTR means that act is to be called again. */
    bool resumes;
};

/* Record the calls of the operation; then, for each of them and for each errno
 * that it may give, make it fail: act must say just that errno, or, where it
 * may overcome it or resumes, succeed; and nothing may be left.  Returns the
 * number of calls. */
int fail_each(const struct operation *operation);

#endif
