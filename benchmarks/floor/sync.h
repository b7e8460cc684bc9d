/* The synchronization of the floor: shared by its types and the raw loops. */
#ifndef FLOOR_SYNC_H
#define FLOOR_SYNC_H

#include "floor.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A mutex as that of a posixshm.Lock: robust, error-checking, shared. Returns
 * 0 or -errno. */
static inline int
mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t how;
    (void)pthread_mutexattr_init(&how);
    (void)pthread_mutexattr_settype(&how, PTHREAD_MUTEX_ERRORCHECK);
    (void)pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    (void)pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    int rc = -pthread_mutex_init(mutex, &how);
    (void)pthread_mutexattr_destroy(&how);
    return rc;
}

static inline void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Try a mutex up to `spins` more times while it is seen locked. */
static inline int
mutex_spin(pthread_mutex_t *mutex, int spins)
{
    for (int i = 0; i < spins; i++) {
        cpu_relax();
        if (*(volatile int *)mutex == 0) {
            int rc = pthread_mutex_trylock(mutex);
            if (rc != EBUSY) {
                return rc;
            }
        }
    }
    return EBUSY;
}

/* Returns 0 or -errno. timeout: NULL: none. */
static inline int
futex_wait(atomic_uint *word, unsigned value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0) < 0
               ? -errno : 0;
}

static inline int
futex_wake(atomic_uint *word, int count)
{
    return syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0) < 0
               ? -errno : 0;
}

#endif
