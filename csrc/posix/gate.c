#include "gate.h"

#include <pthread.h>

/* Not a pthread_rwlock_t: with a try to write, that of glibc before 2.30 can
 * leave its readers waiting for ever. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static int entered;                     /* under lock, as is the next */
static bool closed;

static pthread_once_t forks_handled = PTHREAD_ONCE_INIT;

/* How often this thread is inside. */
static _Thread_local int inside;

/* The thread that forked is the only one left, and may be inside itself. */
static void
reopen_in_child(void)
{
    (void)pthread_mutex_init(&lock, NULL);
    (void)pthread_cond_init(&opened, NULL);
    entered = inside;
    closed = false;
}

static void
handle_forks(void)
{
    (void)pthread_atfork(NULL, NULL, reopen_in_child);
}

static void
take_lock(void)
{
    (void)pthread_once(&forks_handled, handle_forks);
    (void)pthread_mutex_lock(&lock);
}

/* While it is closed nobody is inside, so a second time never waits. */
void
pshm_gate_enter(void)
{
    take_lock();
    while (closed) {
        (void)pthread_cond_wait(&opened, &lock);
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
    (void)pthread_mutex_unlock(&lock);
}

int
pshm_gate_close(void)
{
    take_lock();
    int rc = entered > 0 || closed ? -EBUSY : 0;
    closed = closed || rc == 0;
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

void
pshm_gate_open(void)
{
    take_lock();
    closed = false;
    (void)pthread_cond_broadcast(&opened);
    (void)pthread_mutex_unlock(&lock);
}
