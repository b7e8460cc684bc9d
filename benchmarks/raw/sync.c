/* The cost of synchronizing without Python: the C peers of bench_sync.py.
 *
 * Built with cc when the benchmark starts.  All peers work on one page of
 * shared memory.  A function with n rounds returns the nanoseconds of the
 * whole loop, or -errno of the first call that failed. */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Initially all zeros; each member has its own cache lines. */
struct page {
    _Alignas(64) pthread_mutex_t mutex;
    _Alignas(64) sem_t one;             /* its value is 1 */
    _Alignas(64) sem_t ping;
    _Alignas(64) sem_t pong;
    _Alignas(64) atomic_uint turn;
};

int64_t peer_prepare(struct page *page);
int64_t peer_end_with_parent(void);
int64_t peer_mutex(struct page *page, int64_t n);
int64_t peer_semaphore(struct page *page, int64_t n);
int64_t peer_ping_semaphore(struct page *page, int64_t n);
int64_t peer_pong_semaphore(struct page *page, int64_t n);
int64_t peer_ping_futex(struct page *page, int64_t n);
int64_t peer_pong_futex(struct page *page, int64_t n);
int64_t peer_count_mutex(struct page *page, volatile int64_t *counter,
                         const volatile int64_t *running);

static int64_t
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The mutex has the same type as that of a posixshm.Lock. */
int64_t
peer_prepare(struct page *page)
{
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_settype(&how, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    int rc = -pthread_mutex_init(&page->mutex, &how);
    pthread_mutexattr_destroy(&how);
    if (rc == 0
        && (sem_init(&page->one, 1, 1) < 0 || sem_init(&page->ping, 1, 0) < 0
            || sem_init(&page->pong, 1, 0) < 0)) {
        rc = -errno;
    }
    return rc;
}

/* A child must not wait forever for a process that was killed. */
int64_t
peer_end_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

/* -- without contention --------------------------------------------------- */

int64_t
peer_mutex(struct page *page, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = -pthread_mutex_lock(&page->mutex);
        if (rc == 0) {
            rc = -pthread_mutex_unlock(&page->mutex);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

int64_t
peer_semaphore(struct page *page, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        if (sem_wait(&page->one) < 0 || sem_post(&page->one) < 0) {
            return -errno;
        }
    }
    return now() - start;
}

/* -- ping-pong ------------------------------------------------------------ */

int64_t
peer_ping_semaphore(struct page *page, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        if (sem_post(&page->ping) < 0 || sem_wait(&page->pong) < 0) {
            return -errno;
        }
    }
    return now() - start;
}

int64_t
peer_pong_semaphore(struct page *page, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (sem_wait(&page->ping) < 0 || sem_post(&page->pong) < 0) {
            return -errno;
        }
    }
    return 0;
}

/* Set the word that says which process runs, and wake its waiter. */
static int
pass(atomic_uint *turn, unsigned to)
{
    atomic_store(turn, to);
    return syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0) < 0
               ? -errno : 0;
}

static int
wait_while(atomic_uint *turn, unsigned value)
{
    while (atomic_load(turn) == value) {
        if (syscall(SYS_futex, turn, FUTEX_WAIT, value, NULL, NULL, 0) < 0
            && errno != EAGAIN) {
            return -errno;
        }
    }
    return 0;
}

int64_t
peer_ping_futex(struct page *page, int64_t n)
{
    int64_t start = now();
    for (int64_t i = 0; i < n; i++) {
        int rc = pass(&page->turn, 1);
        if (rc == 0) {
            rc = wait_while(&page->turn, 1);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return now() - start;
}

int64_t
peer_pong_futex(struct page *page, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int rc = wait_while(&page->turn, 0);
        if (rc == 0) {
            rc = pass(&page->turn, 0);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* -- one counter for all -------------------------------------------------- */

/* Increment while *running is not 0.  Returns the number of increments. */
int64_t
peer_count_mutex(struct page *page, volatile int64_t *counter,
                 const volatile int64_t *running)
{
    int64_t count = 0;
    while (*running) {
        int rc = -pthread_mutex_lock(&page->mutex);
        if (rc == 0) {
            ++*counter;
            ++count;
            rc = -pthread_mutex_unlock(&page->mutex);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return count;
}
