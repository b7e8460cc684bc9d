#include "posix/object/gate.h"

#include <pthread.h>
#include <time.h>

#define LONGEST 50000000L               /* nanoseconds, less than a second */

/* Not a pthread_rwlock_t: with a try to write, that of glibc before 2.30 can
 * leave its readers waiting for ever. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;          /* that somebody may go on */
static int entered, closing;            /* under lock, as is the next */
static bool closed;

static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* How often this thread is inside. */
static _Thread_local int inside;

/* By a clock that nobody sets. */
static void
make_condition(void)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

/* The thread that forked is the only one left, and may be inside itself. */
static void
reopen_in_child(void)
{
    (void)pthread_mutex_init(&lock, NULL);
    make_condition();
    entered = inside;
    closing = 0;
    closed = false;
}

static void
prepare(void)
{
    make_condition();
    (void)pthread_atfork(NULL, NULL, reopen_in_child);
}

static void
take_lock(void)
{
    (void)pthread_once(&prepared, prepare);
    (void)pthread_mutex_lock(&lock);
}

/* While it is closed nobody is inside; and who is inside already must not wait
 * for those who wait for him. */
void
pshm_gate_enter(void)
{
    take_lock();
    while (closed || (closing > 0 && inside == 0)) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    entered++;
    inside++;
    (void)pthread_mutex_unlock(&lock);
}

void
pshm_gate_leave(void)
{
    take_lock();
    entered--;
    inside--;
    if (entered == 0 && closing > 0) {
        (void)pthread_cond_broadcast(&changed);
    }
    (void)pthread_mutex_unlock(&lock);
}

static struct timespec
end_of_wait(void)
{
    struct timespec deadline;
    (void)clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_nsec += LONGEST;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_nsec -= 1000000000L;
        deadline.tv_sec++;
    }
    return deadline;
}

int
pshm_gate_close(void)
{
    struct timespec deadline = end_of_wait();
    int rc = 0;
    take_lock();
    closing++;
    while (rc == 0 && inside == 0 && (entered > 0 || closed)) {
        rc = pthread_cond_timedwait(&changed, &lock, &deadline);
    }
    closing--;
    rc = entered > 0 || closed ? -EBUSY : 0;
    if (rc == 0) {
        closed = true;
    }
    else {
        (void)pthread_cond_broadcast(&changed);
    }
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

void
pshm_gate_open(void)
{
    take_lock();
    closed = false;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}
