/* Processes that meet at one primitive, and deaths among them. */
#ifndef PSHM_PEERS_H
#define PSHM_PEERS_H

#include <stdatomic.h>

#include "check.h"
#include "posix/sync/futex.h"

/* ---- time ---- */

#define MS ((int64_t)1000 * 1000)

/* A moment so many milliseconds from now. */
int64_t in_ms(int64_t ms);

/* However busy the machine, what is to happen happens before that; or it
 * hangs. */
int64_t before_long(void);

/* Has it taken at least so many milliseconds since start, and not for ever? */
bool took(int64_t start, int64_t ms);

/* Call again for as long as it only says that a slice is over. */
#define PATIENTLY(rc, call)                                                  \
    do {                                                                     \
        (rc) = (call);                                                       \
    } while ((rc) == -EINTR)

/* Sleep until *word is at least so much; a failed check if that takes long. */
void await(const atomic_uint *word, unsigned least);

/* The kernel still knows a thread for a moment when it has been joined. */
void await_end(unsigned thread);

/* ---- chance ---- */

/* 0 to n - 1; a forked child goes on with numbers of its own. */
unsigned random_below(unsigned n);

/* ---- processes ---- */

/* In the plain flavour; a tenth of it under a sanitizer. */
#define ROUNDS(n) (SANITIZED ? (n) / 10 : (n))

/* All do the same, from one moment on; each has to exit with 0. */
void together(int count, int (*function)(void *context), void *context);

/* SIGKILL it at some moment within so many microseconds, and reap it. */
void kill_within(pid_t pid, unsigned us);
void kill_now(pid_t pid);

/* ---- steps ---- */

/* What the second one does comes before each atomic operation of what the first
 * one does, in turn, and at last after all of it. */
struct meeting {
    void (*begin)(void *context);       /* make it as it is before both */
    void (*first)(void *context);
    void (*second)(void *context);
    void (*end)(void *context);         /* check what came of it */
};

void meet_at_each_step(const struct meeting *meeting, void *context);

#endif
