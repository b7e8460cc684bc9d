/* Processes that use one primitive at the same time, and deaths among them. */
#ifndef PSHM_PEERS_H
#define PSHM_PEERS_H

#include <stdatomic.h>

#include "check.h"
#include "posix/sync/futex.h"

/* ---- time ---- */

#define MS ((int64_t)1000 * 1000)

/* The time a number of milliseconds from now. */
int64_t in_ms(int64_t ms);

/* A deadline before which everything happens on a busy machine, unless it
 * hangs. */
int64_t before_long(void);

/* Has at least this number of milliseconds passed since start, but less than a
 * hang takes? */
bool took(int64_t start, int64_t ms);

/* Repeat a call as long as it returns -EINTR, which means that a poll interval
 * has passed. */
#define PATIENTLY(rc, call)                                                  \
    do {                                                                     \
        (rc) = (call);                                                       \
    } while ((rc) == -EINTR)

/* Sleep until *word is at least least. Fails a check if that takes too long.
 */
void await(const atomic_uint *word, unsigned least);

/* Wait until the kernel does not find a joined thread any more, which takes a
 * short time. */
void await_end(unsigned thread);

/* ---- random numbers ---- */

/* A random number from 0 to n - 1. A forked child has its own sequence. */
unsigned random_below(unsigned n);

/* ---- processes ---- */

/* The full number in the plain flavour; a tenth of it under a sanitizer. */
#define ROUNDS(n) (SANITIZED ? (n) / 10 : (n))

/* Run the function in a number of children that start at the same time; each
 * must exit with 0. */
void together(int count, int (*function)(void *context), void *context);

/* Send SIGKILL at a random time within this number of microseconds, and reap
 * the child. */
void kill_within(pid_t pid, unsigned us);

/* ---- steps ---- */

/* Run `second` before each atomic operation of `first`, one run for each, and
 * finally after `first`. */
struct meeting {
    void (*begin)(void *context);       /* prepare the state for both */
    void (*first)(void *context);
    void (*second)(void *context);
    void (*end)(void *context);         /* check the result */
};

void meet_at_each_step(const struct meeting *meeting, void *context);

/* The same; about: the subject of failed checks. */
void meet_about(const char *about, const struct meeting *meeting,
                void *context);

#endif
