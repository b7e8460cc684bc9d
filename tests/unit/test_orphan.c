#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/orphan.h"

#include <pthread.h>
#include <sys/syscall.h>

/* A mutex that a thread holds, and whose object is deallocated. */
struct orphan {
    struct pshm_robust *mutex;
    struct pshm_mutex_state mstate;
    struct pshm_owner note;
    struct pshm_region *region;
    pthread_t thread;
    atomic_uint state;
    bool ends_at_once;                  /* without cleanup by the C library */
};

/* 1: holds the mutex; 2: may end. */
static void *
hold_mutex(void *context)
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

/* The caller also has a reference to the region. */
static void
make(struct orphan *orphan)
{
    orphan->mutex = shared_memory(PAGE);
    CHECK_IS(pshm_robust_init(orphan->mutex, 0), 0);
    CHECK_IS(pshm_robust_open(orphan->mutex, 0, &orphan->mstate), 0);
    pshm_robust_watch(&orphan->mstate, &orphan->note);
    orphan->region = pshm_region_new(orphan->mutex, PAGE);
    pshm_region_keep(orphan->region);
    CHECK(pthread_create(&orphan->thread, NULL, hold_mutex, orphan) == 0);
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
sleep_for_a_poll_interval(void)
{
    int64_t deadline = pshm_now() + PSHM_POLL_INTERVAL + 10 * MS;
    while (pshm_now() < deadline) {
        (void)usleep(1000);
    }
}

static void
ending_thread_releases_its_orphans(void)
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

/* A thread that ends without cleanup is found later by another thread. */
static int
run_threads_without_cleanup(void *context)
{
    struct orphan orphans[2] = {{.ends_at_once = true},
                                {.ends_at_once = true}};
    (void)context;
    for (int i = 0; i < 2; i++) {
        make(&orphans[i]);
        keep(&orphans[i]);
    }
    pshm_orphans_release();             /* now it has found them */
    end_thread(&orphans[0]);
    pshm_orphans_release();
    CHECK(!pshm_region_is_own(orphans[0].region));
    sleep_for_a_poll_interval();
    pshm_orphans_release();
    CHECK(pshm_region_is_own(orphans[0].region));
    CHECK(!pshm_region_is_own(orphans[1].region));
    end_thread(&orphans[1]);
    sleep_for_a_poll_interval();
    pshm_orphans_release();
    CHECK(pshm_region_is_own(orphans[1].region));
    CHECK(atomic_load(&pshm_orphans) == NULL);
    return 0;
}

static void
ended_thread_is_found_later(void)
{
    if (SANITIZED) {
        skip("a sanitizer must notice the end of a thread");
        return;
    }
    CHECK_IS(child_run(run_threads_without_cleanup, NULL), 0);
}

/* It is not known which threads still have the mutex in their lists. */
static int
lost_mutex_is_never_released(void *context)
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
orphan_without_memory_is_never_released(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    CHECK_IS(child_run(keep_one_without_memory, NULL), 0);
}

/* ---- two calls at once, the second at each step of the first ---- */

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
both_are_recorded(void *context)
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
two_orphans_at_once_are_both_recorded(void)
{
    meet_at_each_step(&(struct meeting){begin_with_two, keep_first,
                                        keep_second, both_are_recorded},
                      NULL);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(ending_thread_releases_its_orphans);
    RUN(two_orphans_at_once_are_both_recorded);
    RUN_IN_CHILD(lost_mutex_is_never_released, 0);
    RUN(ended_thread_is_found_later);
    RUN(orphan_without_memory_is_never_released);
    return finish();
}
