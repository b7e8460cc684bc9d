#include "posix/object/populate.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "posix/constants.h"

/* Bytes that a thread populates in one call, and the caller between two checks
 * for signals. */
#define PIECE ((size_t)16 << 20)

/* Most of the time goes into clearing pages, which a few threads do as fast as
 * the memory allows. */
#define MOST_THREADS 4

struct work {
    char *base;
    size_t length;
    int advice;
    atomic_size_t next;                 /* the first byte that no thread has
                                           begun */
    atomic_int rc;                      /* the first error: all threads stop */
};

/* Populate the next piece. interrupt: NULL in a helper.  Returns whether to go
 * on. */
static bool
populate_next(struct work *work, const struct pshm_interrupt *interrupt)
{
    if (atomic_load(&work->rc) < 0) {
        return false;
    }
    size_t start = atomic_fetch_add(&work->next, PIECE);
    if (start >= work->length) {
        return false;
    }
    size_t left = work->length - start;
    int rc;
    do {
        rc = pshm_result(madvise(work->base + start,
                                 left < PIECE ? left : PIECE, work->advice));
    } while (rc == -EINTR && atomic_load(&work->rc) == 0
             && (interrupt == NULL || pshm_interrupt_check(interrupt) == 0));
    int none = 0;
    if (rc < 0) {
        (void)atomic_compare_exchange_strong(&work->rc, &none, rc);
    }
    return rc == 0;
}

static void *
help(void *context)
{
    while (populate_next(context, NULL)) {
    }
    return NULL;
}

static int
count_helpers(size_t length)
{
    cpu_set_t cpus;
    size_t pieces = (length - 1) / PIECE;
    int most = MOST_THREADS;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0) {
        return 0;
    }
    most = CPU_COUNT(&cpus) < most ? CPU_COUNT(&cpus) : most;
    return pieces < (size_t)most ? (int)pieces : most - 1;
}

/* Start threads that do not receive signals.  Returns their number: the caller
 * alone populates as well. */
static int
start_helpers(struct work *work, pthread_t threads[MOST_THREADS])
{
    int wanted = count_helpers(work->length), count = 0;
    sigset_t all, old;
    if (wanted == 0) {
        return 0;
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (count < wanted
           && pthread_create(&threads[count], NULL, help, work) == 0) {
        count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return count;
}

int
pshm_populate(void *base, size_t length, bool write,
              const struct pshm_interrupt *interrupt)
{
    struct work work = {
        .base = base,
        .length = length,
        .advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ,
    };
    pthread_t threads[MOST_THREADS];
    if (length == 0) {
        return 0;
    }
    int helpers = start_helpers(&work, threads);
    while (populate_next(&work, interrupt)) {
        if (atomic_load(&work.next) < length
            && pshm_interrupt_check(interrupt) < 0) {
            atomic_store(&work.rc, -EINTR);
        }
    }
    for (int i = 0; i < helpers; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return atomic_load(&work.rc);
}
