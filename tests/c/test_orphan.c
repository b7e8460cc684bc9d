#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/orphan.h"

#include <pthread.h>
#include <sys/syscall.h>

/* A mutex that a thread has, and whose object goes away. */
struct orphan {
    struct pshm_robust *mutex;
    struct pshm_mutex_state mstate;
    struct pshm_owner note;
    struct pshm_region *region;
    pthread_t thread;
    atomic_uint state;
    bool ends_at_once;                  /* without what the C library does */
};

/* 1: has it; 2: may end. */
static void *
hold_it(void *context)
{
    struct orphan *orphan = context;
    intptr_t wrong = pshm_robust_try(orphan->mutex, &orphan->mstate) != 0;
    atomic_store(&orphan->state, 1);
    while (atomic_load(&orphan->state) != 2) {
        (void)usleep(100);
    }
    if (orphan->ends_at_once) {
        (void)syscall(SYS_exit, 0);
    }
    return (void *)wrong;
}

/* The caller has a reference to its region as well. */
static void
make(struct orphan *orphan)
{
    orphan->mutex = shared_memory(PAGE);
    CHECK_IS(pshm_robust_init(orphan->mutex, 0), 0);
    CHECK_IS(pshm_robust_open(orphan->mutex, 0, &orphan->mstate), 0);
    pshm_robust_watch(&orphan->mstate, &orphan->note);
    orphan->region = pshm_region_new(orphan->mutex, PAGE);
    pshm_region_keep(orphan->region);
    CHECK(pthread_create(&orphan->thread, NULL, hold_it, orphan) == 0);
    await(&orphan->state, 1);
    CHECK_IS(pshm_robust_abandon(orphan->mutex, &orphan->mstate, NULL),
             -EBUSY);
}

static void
keep(struct orphan *orphan)
{
    pshm_orphan_keep(orphan->mutex, &orphan->mstate, orphan->region);
}

static void
end_thread(struct orphan *orphan)
{
    atomic_store(&orphan->state, 2);
    CHECK(orphan->ends_at_once || pthread_join(orphan->thread, NULL) == 0);
    await_end(orphan->mstate.thread);
}

static void
sleep_until_it_is_looked_for(void)
{
    int64_t deadline = pshm_now() + PSHM_POLL_INTERVAL + 10 * MS;
    while (pshm_now() < deadline) {
        (void)usleep(1000);
    }
}

static void
thread_that_ends_releases_its_own(void)
{
    struct orphan orphan = {0};
    make(&orphan);
    keep(&orphan);
    CHECK(!pshm_region_is_own(orphan.region));
    end_thread(&orphan);
    CHECK(pshm_region_is_own(orphan.region));
    CHECK_IS(pshm_robust_try(orphan.mutex, &orphan.mstate), -EOWNERDEAD);
    pshm_robust_repair(orphan.mutex);
    CHECK_IS(pshm_robust_unlock(orphan.mutex, &orphan.mstate), 0);
    pshm_region_drop(orphan.region);
}

/* Some other thread finds out in time if that thread could not. */
static int
have_threads_that_end_at_once(void *context)
{
    struct orphan orphans[2] = {{.ends_at_once = true},
                                {.ends_at_once = true}};
    (void)context;
    for (int i = 0; i < 2; i++) {
        make(&orphans[i]);
        keep(&orphans[i]);
    }
    pshm_orphans_release();             /* it has seen them then */
    end_thread(&orphans[0]);
    pshm_orphans_release();
    CHECK(!pshm_region_is_own(orphans[0].region));
    sleep_until_it_is_looked_for();
    pshm_orphans_release();
    CHECK(pshm_region_is_own(orphans[0].region));
    CHECK(!pshm_region_is_own(orphans[1].region));
    end_thread(&orphans[1]);
    sleep_until_it_is_looked_for();
    pshm_orphans_release();
    CHECK(pshm_region_is_own(orphans[1].region));
    CHECK(atomic_load(&pshm_orphans) == NULL);
    return 0;
}

static void
thread_that_has_ended_is_found_in_time(void)
{
    if (SANITIZED) {
        skip("a sanitizer wants to see a thread end");
        return;
    }
    CHECK_IS(child_run(have_threads_that_end_at_once, NULL), 0);
}

/* It is not known which threads still have it in their lists. */
static int
keep_one_that_is_lost(void *context)
{
    struct orphan orphan = {.mstate.lost = true};
    (void)context;
    orphan.mutex = shared_memory(PAGE);
    orphan.region = pshm_region_new(orphan.mutex, PAGE);
    CHECK_IS(pshm_robust_abandon(orphan.mutex, &orphan.mstate, NULL), -EBUSY);
    keep(&orphan);
    pshm_orphans_check();
    CHECK(atomic_load(&pshm_orphans) != NULL);
    pshm_orphans_check();
    CHECK(pshm_region_is_own(orphan.region));
    return 0;
}

static void
one_that_is_lost_stays_for_good(void)
{
    CHECK_IS(child_run(keep_one_that_is_lost, NULL), 0);
}

static int
keep_one_without_memory(void *context)
{
    struct orphan orphan = {0};
    (void)context;
    make(&orphan);
    use_up_memory();
    keep(&orphan);
    end_limit(RLIMIT_DATA);
    CHECK(atomic_load(&pshm_orphans) == NULL);
    end_thread(&orphan);
    CHECK(!pshm_region_is_own(orphan.region));
    return 0;
}

static void
without_memory_it_stays_for_good(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    CHECK_IS(child_run(keep_one_without_memory, NULL), 0);
}

/* ---- two at once, the second one at each step of the first one ---- */

static struct orphan both[2];

static void
begin_with_two(void *context)
{
    (void)context;
    for (int i = 0; i < 2; i++) {
        both[i] = (struct orphan){0};
        make(&both[i]);
    }
}

static void
keep_first(void *context)
{
    (void)context;
    keep(&both[0]);
}

static void
keep_second(void *context)
{
    (void)context;
    keep(&both[1]);
}

static void
neither_is_lost(void *context)
{
    (void)context;
    for (int i = 0; i < 2; i++) {
        end_thread(&both[i]);
        CHECK(pshm_region_is_own(both[i].region));
        pshm_region_drop(both[i].region);
    }
    CHECK(atomic_load(&pshm_orphans) == NULL);
}

static void
two_are_kept_at_once(void)
{
    meet_at_each_step(&(struct meeting){begin_with_two, keep_first,
                                        keep_second, neither_is_lost},
                      NULL);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(thread_that_ends_releases_its_own);
    RUN(two_are_kept_at_once);
    RUN(one_that_is_lost_stays_for_good);
    RUN(thread_that_has_ended_is_found_in_time);
    RUN(without_memory_it_stays_for_good);
    return finish();
}
