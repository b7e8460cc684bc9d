#include "gate.h"

#include <pthread.h>

static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t forks_handled = PTHREAD_ONCE_INIT;

/* How often this thread is inside. */
static _Thread_local int inside;

/* The thread that forked is the only one left, and may be inside itself. */
static void
reopen_in_child(void)
{
    (void)pthread_rwlock_init(&gate, NULL);
    for (int i = 0; i < inside; i++) {
        (void)pthread_rwlock_rdlock(&gate);
    }
}

static void
handle_forks(void)
{
    (void)pthread_atfork(NULL, NULL, reopen_in_child);
}

/* Nobody ever waits to write, so a reader may come in a second time. */
void
pshm_gate_enter(void)
{
    (void)pthread_once(&forks_handled, handle_forks);
    (void)pthread_rwlock_rdlock(&gate);
    inside++;
}

void
pshm_gate_leave(void)
{
    inside--;
    (void)pthread_rwlock_unlock(&gate);
}

int
pshm_gate_close(void)
{
    (void)pthread_once(&forks_handled, handle_forks);
    return -pthread_rwlock_trywrlock(&gate);
}

void
pshm_gate_open(void)
{
    (void)pthread_rwlock_unlock(&gate);
}
