/* Threads of one process use each algorithm that is built on atomic words.
 * Also run under ThreadSanitizer. */
#include "check.h"
#include "peers.h"
#include "posix/sync/atomics.h"
#include "posix/sync/barrier.h"
#include "posix/sync/condition.h"
#include "posix/sync/event.h"
#include "posix/host.h"
#include "posix/sync/lock.h"
#include "posix/sync/rwlock.h"

#include <pthread.h>

enum { THREADS = 4 };

/* Without a fork, a sanitizer costs less. */
#define TIMES(n) (SANITIZED ? (n) / 2 : (n))

/* The protected data is plain memory, so only the primitive orders the
 * accesses. */
struct place {
    struct pshm_lock lock;
    struct pshm_condition condition;
    struct pshm_event event, answer;
    struct pshm_barrier barrier;
    struct pshm_robust runner;
    struct pshm_rwlock rw;
    uint64_t word;
    struct pshm_mutex_state mstate, runner_state;
    struct pshm_rw_state rw_state;
    long plain, other, slots[THREADS];
    atomic_int wrong;                   /* CHECK is not thread-safe */
};

struct worker {
    struct place *place;
    int index;
};

static void
expect(struct worker *worker, bool holds)
{
    if (!holds) {
        (void)atomic_fetch_add(&worker->place->wrong, 1);
    }
}

/* ---- a lock, by pshm_lock_try and pshm_lock_wait ---- */

static void
lock(struct worker *worker)
{
    struct place *place = worker->place;
    int rc;
    PATIENTLY(rc, pshm_lock_wait(&place->lock, &place->mstate, before_long()));
    expect(worker, rc == 0);
}

static void
unlock(struct worker *worker)
{
    struct place *place = worker->place;
    expect(worker, pshm_lock_release(&place->lock, &place->mstate) == 0);
}

static void
use_the_lock(struct worker *worker)
{
    struct place *place = worker->place;
    for (int i = 0; i < TIMES(20000); i++) {
        if (i % 2 == 0 || pshm_lock_try(&place->lock, &place->mstate) != 0) {
            lock(worker);
        }
        expect(worker, pshm_mutex_state_mine(&place->mstate));
        place->plain++;
        unlock(worker);
    }
}

/* ---- a condition: the threads alternate ---- */

static void
use_the_condition(struct worker *worker)
{
    struct place *place = worker->place;
    struct pshm_condition *words = &place->condition;
    for (int i = 0; i < TIMES(2000); i++) {
        int rc = 0;
        lock(worker);
        while (rc == 0 && place->plain % THREADS != worker->index) {
            struct pshm_waiter waiter;
            bool continues;
            pshm_condition_enter(words, &waiter);
            do {
                unlock(worker);
                PATIENTLY(rc, pshm_condition_sleep(words, &waiter,
                                                   before_long()));
                lock(worker);
                continues = pshm_condition_claim(words, &waiter);
            } while (!continues && rc == 0);
            if (!continues) {
                pshm_condition_leave(words, &waiter);
            }
        }
        expect(worker, rc == 0);
        place->plain++;
        pshm_condition_notify(words, i % 2 ? THREADS : UINT_MAX);
        unlock(worker);
    }
}

/* ---- events: one thread writes, the others read and answer ---- */

static int
wait_for(struct pshm_event *event)
{
    int rc;
    unsigned seen = pshm_event_read(event);
    PATIENTLY(rc, pshm_event_wait(event, seen, before_long()));
    return rc;
}

static void
use_the_events(struct worker *worker)
{
    struct place *place = worker->place;
    for (long i = 1; worker->index < 2 && i <= TIMES(10000); i++) {
        if (worker->index == 0) {
            place->plain = i;
            pshm_event_set(&place->event);
            expect(worker, wait_for(&place->answer) == 0);
            pshm_event_clear(&place->answer);
            expect(worker, place->other == i);
        }
        else {
            expect(worker, wait_for(&place->event) == 0);
            pshm_event_clear(&place->event);
            place->other = place->plain;
            pshm_event_set(&place->answer);
        }
    }
    /* the other threads read words that change all the time */
    for (int i = 0; worker->index >= 2 && i < TIMES(10000); i++) {
        (void)pshm_event_wait(&place->event, pshm_event_read(&place->event),
                              0);
    }
}

/* ---- a barrier: a thread that has passed sees all earlier writes ---- */

static void
meet(struct worker *worker, bool acts)
{
    struct place *place = worker->place;
    struct pshm_arrival a;
    int rc;
    do {
        PATIENTLY(rc, pshm_barrier_arrive(&place->barrier, &place->runner,
                                          &place->runner_state, acts,
                                          before_long(), &a));
        if (rc == -EAGAIN) {
            (void)pshm_barrier_wait(&place->barrier, &a, &place->runner,
                                    &place->runner_state, before_long());
        }
    } while (rc == -EAGAIN);
    expect(worker, rc == 0);
    if (a.action) {
        place->plain++;
        expect(worker,
               pshm_barrier_done(&place->barrier, &place->runner,
                                 &place->runner_state, &a) == 0);
    }
    if (!a.last) {
        PATIENTLY(rc, pshm_barrier_wait(&place->barrier, &a, &place->runner,
                                        &place->runner_state, before_long()));
        expect(worker, rc == 0);
    }
}

static void
use_the_barrier(struct worker *worker)
{
    struct place *place = worker->place;
    for (int i = 0; i < TIMES(2000); i++) {
        place->slots[worker->index] = i;
        meet(worker, i % 2);
        for (int other = 0; other < THREADS; other++) {
            expect(worker, place->slots[other] == i);
        }
        expect(worker, place->plain == (i + 1) / 2);
        meet(worker, false);
    }
}

/* ---- readers and writers ---- */

static void
use_the_rwlock(struct worker *worker)
{
    struct place *place = worker->place;
    for (int i = 0; i < TIMES(2000); i++) {
        bool pending = false;
        int rc;
        if (i % 4 == worker->index) {
            PATIENTLY(rc, pshm_rw_acquire(&place->rw, &place->rw_state, true,
                                          &pending, before_long()));
            expect(worker, rc == 0);
            place->plain++;
            place->other++;
            rc = pshm_rw_release(&place->rw, &place->rw_state);
            expect(worker, rc == 0);
        }
        PATIENTLY(rc, pshm_rw_acquire(&place->rw, &place->rw_state, false,
                                      &pending, before_long()));
        expect(worker, rc == 0);
        expect(worker, place->plain == place->other);
        rc = pshm_rw_release(&place->rw, &place->rw_state);
        expect(worker, rc == 0);
    }
}

/* ---- a word, by which the threads pass on a value ---- */

static void
use_the_word(struct worker *worker, size_t size)
{
    struct place *place = worker->place;
    for (unsigned i = 0; i < (unsigned)TIMES(2000); i++) {
        uint64_t name_lock = i * THREADS + (unsigned)worker->index;
        uint64_t now;
        while ((now = pshm_atomic_load(&place->word, size)) != name_lock) {
            int rc;
            PATIENTLY(rc, pshm_atomic_wait(&place->word, size, now,
                                           before_long()));
            if (rc < 0) {
                expect(worker, false);
                return;
            }
        }
        expect(worker, place->plain == (long)name_lock);
        place->plain++;
        (void)pshm_atomic_apply(PSHM_FETCH_ADD, &place->word, size, 1);
        (void)pshm_atomic_notify(&place->word, size, INT_MAX);
    }
}

static void
use_a_narrow_word(struct worker *worker)
{
    use_the_word(worker, 4);
}

static void
use_a_wide_word(struct worker *worker)
{
    use_the_word(worker, 8);
}

/* ---- the tests ---- */

static void (*what_to_use)(struct worker *);

static void *
work(void *context)
{
    what_to_use(context);
    return NULL;
}

/* Returns the final value of plain. */
static long
use_in_threads(void (*use)(struct worker *))
{
    static struct place place;
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    memset(&place, 0, sizeof(place));
    place.barrier.parties = THREADS;
    CHECK_IS(pshm_lock_init(&place.lock, 0), 0);
    CHECK_IS(pshm_rw_init(&place.rw), 0);
    CHECK_IS(pshm_rw_open(&place.rw, &place.rw_state), 0);
    CHECK_IS(pshm_lock_open(&place.lock, 0, &place.mstate), 0);
    CHECK_IS(pshm_robust_init(&place.runner, 0), 0);
    CHECK_IS(pshm_robust_open(&place.runner, 0, &place.runner_state), 0);
    what_to_use = use;
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){&place, i};
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK_IS(atomic_load(&place.wrong), 0);
    return place.plain;
}

static void
lock_orders_threads(void)
{
    CHECK_IS(use_in_threads(use_the_lock), THREADS * TIMES(20000));
}

static void
condition_orders_threads(void)
{
    CHECK_IS(use_in_threads(use_the_condition), THREADS * TIMES(2000));
}

static void
event_orders_threads(void)
{
    CHECK_IS(use_in_threads(use_the_events), TIMES(10000));
}

static void
barrier_orders_threads(void)
{
    CHECK_IS(use_in_threads(use_the_barrier), TIMES(2000) / 2);
}

static void
rwlock_orders_threads(void)
{
    CHECK_IS(use_in_threads(use_the_rwlock), TIMES(2000));
}

static void
words_order_threads(void)
{
    CHECK_IS(use_in_threads(use_a_narrow_word), THREADS * TIMES(2000));
    CHECK_IS(use_in_threads(use_a_wide_word), THREADS * TIMES(2000));
}

int
main(void)
{
    (void)prefix();                     /* sets the deadline of this program */
    pshm_forks_watch();
    RUN(lock_orders_threads);
    RUN(condition_orders_threads);
    RUN(event_orders_threads);
    RUN(barrier_orders_threads);
    RUN(rwlock_orders_threads);
    RUN(words_order_threads);
    return finish();
}
