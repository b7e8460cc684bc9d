#include "check.h"
#include "peers.h"
#include "posix/sync/condition.h"
#include "posix/host.h"
#include "posix/sync/lock.h"

#include <sched.h>

enum { QUEUE_SIZE = 4, MOST_ITEMS = 4096 };

/* A condition with its lock, and the data that the waiters wait for. */
struct place {
    struct pshm_lock lock;
    struct pshm_condition words;
    volatile unsigned long plain;
    atomic_uint waiting, passed, steps, owner_deaths;
    /* a queue of numbered items; under the lock */
    volatile unsigned made, taken, wanted;
    /* how often each was consumed */
    atomic_uchar consumed[MOST_ITEMS];
};

struct peer {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct peer
make(void)
{
    struct peer peer = {.place = shared_memory(sizeof(struct place))};
    CHECK_IS(pshm_lock_init(&peer.place->lock, 0), 0);
    CHECK_IS(pshm_lock_open(&peer.place->lock, 0, &peer.mstate), 0);
    return peer;
}

static void
unmake(struct peer *peer)
{
    CHECK(munmap(peer->place, sizeof(struct place)) == 0);
}

/* The dead owner may or may not have notified, so the next owner notifies all
 * waiters. */
static void
lock(struct peer *peer)
{
    int rc;
    PATIENTLY(rc, pshm_lock_wait(&peer->place->lock, &peer->mstate,
                                 before_long()));
    if (rc == -EOWNERDEAD) {
        (void)atomic_fetch_add(&peer->place->owner_deaths, 1);
        pshm_condition_notify(&peer->place->words, UINT_MAX);
        pshm_lock_repair(&peer->place->lock);
        rc = 0;
    }
    CHECK_IS(rc, 0);
}

static void
unlock(struct peer *peer)
{
    CHECK_IS(pshm_lock_release(&peer->place->lock, &peer->mstate), 0);
}

/* With the lock held, which is also held afterwards. Returns 0 or -ETIMEDOUT.
 */
static int
wait_until(struct peer *peer, int64_t deadline)
{
    struct pshm_waiter waiter;
    pshm_condition_enter(&peer->place->words, &waiter);
    for (;;) {
        int rc;
        unlock(peer);
        PATIENTLY(rc, pshm_condition_sleep(&peer->place->words, &waiter,
                                           deadline));
        lock(peer);
        if (pshm_condition_claim(&peer->place->words, &waiter)) {
            return 0;
        }
        if (rc < 0) {
            pshm_condition_leave(&peer->place->words, &waiter);
            return rc;
        }
    }
}

static void
notify(struct peer *peer, unsigned n)
{
    lock(peer);
    pshm_condition_notify(&peer->place->words, n);
    unlock(peer);
}

/* ---- the waiters that a notify releases ---- */

static int
wait_once(void *context)
{
    struct peer *peer = context;
    lock(peer);
    (void)atomic_fetch_add(&peer->place->waiting, 1);
    CHECK_IS(wait_until(peer, before_long()), 0);
    (void)atomic_fetch_add(&peer->place->passed, 1);
    unlock(peer);
    return 0;
}

/* Start processes and wait until they wait. A waiter counts itself with the
 * lock held, so it has entered when the lock is free again. */
static void
start_waiters(struct peer *peer, pid_t *pids, unsigned count)
{
    unsigned before = atomic_load(&peer->place->waiting);
    for (unsigned i = 0; i < count; i++) {
        pids[i] = child_start(wait_once, peer);
    }
    await(&peer->place->waiting, before + count);
}

static void
wait_for_all(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
}

static void
sleep_ends_after_a_poll_interval(void)
{
    struct peer peer = make();
    struct pshm_waiter waiter;
    pshm_condition_enter(&peer.place->words, &waiter);
    int64_t start = pshm_now();
    CHECK_IS(pshm_condition_sleep(&peer.place->words, &waiter, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    pshm_condition_leave(&peer.place->words, &waiter);
    unmake(&peer);
}

/* ---- a death ---- */

static int
notify_and_die_before_the_wake(void *context)
{
    struct peer *peer = context;
    lock(peer);
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_condition_notify(&peer->place->words, 1);
    return 1;
}

static void
notifier_killed_before_the_wake_has_notified(void)
{
    for (unsigned waiters = 1; waiters <= 3; waiters += 2) {
        struct peer peer = make();
        pid_t pids[3];
        start_waiters(&peer, pids, waiters);
        CHECK_IS(child_run(notify_and_die_before_the_wake, &peer), -SIGKILL);
        await(&peer.place->passed, 1);
        notify(&peer, UINT_MAX);
        wait_for_all(pids, waiters);
        unmake(&peer);
    }
}

/* A killed waiter stays counted, so its token remains. A living waiter takes
 * the token. */
static void
notify_outlives_a_killed_waiter(void)
{
    struct peer peer = make();
    pid_t pids[4];
    start_waiters(&peer, pids, 4);
    child_kill(pids[0]);
    child_kill(pids[1]);
    notify(&peer, 1);
    await(&peer.place->passed, 1);
    notify(&peer, 1);
    wait_for_all(pids + 2, 2);
    notify(&peer, 1);
    notify(&peer, 1);
    CHECK_IS(peer.place->words.waiters, 0);
    unmake(&peer);
}

/* ---- a queue ---- */

/* A consumer marks an item before it removes the item from the queue. So if it
 * is killed in between, the item is consumed twice, but never lost. */
static int
consume(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    for (;;) {
        lock(peer);
        while (place->made == place->taken) {
            if (place->taken == place->wanted) {
                unlock(peer);
                return 0;
            }
            if (!CHECK_IS(wait_until(peer, before_long()), 0)) {
                return 1;
            }
        }
        if (random_below(8) == 0) {
            (void)sched_yield();
        }
        (void)atomic_fetch_add(&place->consumed[place->taken], 1);
        place->taken = place->taken + 1;
        pshm_condition_notify(&place->words,
                              place->taken == place->wanted ? UINT_MAX : 1);
        unlock(peer);
    }
}

static void
check_all_consumed(struct place *place, unsigned deaths)
{
    unsigned twice = 0;
    CHECK_IS(place->made, place->wanted);
    CHECK_IS(place->taken, place->wanted);
    for (unsigned i = 0; i < place->wanted; i++) {
        CHECK(atomic_load(&place->consumed[i]) >= 1);
        twice += atomic_load(&place->consumed[i]) - 1U;
    }
    CHECK(twice <= deaths);
}

static void
await_all_taken(struct peer *peer)
{
    int64_t deadline = before_long();
    bool all;
    do {
        (void)usleep(20);
        lock(peer);
        all = peer->place->taken == peer->place->made;
        unlock(peer);
    } while (!all && pshm_now() < deadline);
    CHECK(all);
}

/* Only consumers are killed, and one of them always lives. */
static void
every_item_is_consumed_despite_deaths(void)
{
    struct peer peer = make();
    struct place *place = peer.place;
    place->wanted = MOST_ITEMS;
    unsigned deaths = 0;
    pid_t steady = child_start(consume, &peer);
    /* until a consumer has died with the lock held */
    for (int round = 0;
         round < ROUNDS(300) || atomic_load(&place->owner_deaths) == 0;
         round++) {
        pid_t victims[2];
        for (size_t i = 0; i < COUNT(victims); i++) {
            victims[i] = child_start(consume, &peer);
        }
        for (int i = 0; i < 6; i++) {
            lock(&peer);
            if (place->made < place->wanted
                && place->made - place->taken < QUEUE_SIZE) {
                place->made = place->made + 1;
                pshm_condition_notify(&place->words, 1);
            }
            unlock(&peer);
        }
        for (size_t i = 0; i < COUNT(victims); i++, deaths++) {
            kill_within(victims[i], 250);
        }
        await_all_taken(&peer);
    }
    /* The remaining consumer must not miss the last notify. */
    lock(&peer);
    place->wanted = place->made;
    pshm_condition_notify(&place->words, UINT_MAX);
    unlock(&peer);
    CHECK_IS(child_wait(steady), 0);
    check_all_consumed(place, deaths);
    unmake(&peer);
}

static int
notify_many_times(void *context)
{
    struct peer *peer = context;
    while (peer->place->wanted == 0) {
        lock(peer);
        peer->place->plain = peer->place->plain + 1;
        pshm_condition_notify(&peer->place->words, 1 + random_below(3));
        (void)atomic_fetch_add(&peer->place->steps, 1);
        unlock(peer);
        if (random_below(2) == 0) {
            (void)sched_yield();
        }
    }
    return 1;
}

/* Wait for each change of plain, with a deadline for each. */
static int
wait_many_times(void *context)
{
    struct peer *peer = context;
    unsigned long seen = 0;
    lock(peer);
    while (peer->place->wanted == 0) {
        if (peer->place->plain == seen
            && !CHECK_IS(wait_until(peer, before_long()), 0)) {
            return 1;
        }
        seen = peer->place->plain;
        (void)atomic_fetch_add(&peer->place->passed, 1);
    }
    unlock(peer);
    return 0;
}

static void
deaths_at_any_time_do_not_stop_the_others(void)
{
    struct peer peer = make();
    struct place *place = peer.place;
    pid_t steady[2];
    for (size_t i = 0; i < COUNT(steady); i++) {
        steady[i] = child_start(wait_many_times, &peer);
    }
    for (int round = 0; round < ROUNDS(200); round++) {
        pid_t waiter = child_start(wait_many_times, &peer);
        pid_t notifier = child_start(notify_many_times, &peer);
        await(&place->steps, atomic_load(&place->steps) + 2);
        kill_within(waiter, 200);
        await(&place->passed, atomic_load(&place->passed) + 2);
        kill_within(notifier, 200);
    }
    lock(&peer);
    place->wanted = 1;
    pshm_condition_notify(&place->words, UINT_MAX);
    unlock(&peer);
    for (size_t i = 0; i < COUNT(steady); i++) {
        CHECK_IS(child_wait(steady[i]), 0);
    }
    CHECK(place->words.tokens <= place->words.waiters);
    unmake(&peer);
}

/* ---- counts ---- */

/* A later waiter does not take the token either. */
static void
notify_releases_only_earlier_waiters(void)
{
    struct peer peer = make();
    struct pshm_condition *words = &peer.place->words;
    struct pshm_waiter early, other, late;
    pshm_condition_enter(words, &early);
    pshm_condition_enter(words, &other);
    CHECK(!pshm_condition_claim(words, &early));
    pshm_condition_notify(words, 1);
    pshm_condition_enter(words, &late);
    CHECK(!pshm_condition_claim(words, &late));
    CHECK_IS(pshm_condition_sleep(words, &late, pshm_now()), -ETIMEDOUT);
    CHECK_IS(pshm_condition_sleep(words, &other, pshm_now()), 0);
    CHECK(pshm_condition_claim(words, &other));
    CHECK(!pshm_condition_claim(words, &early));
    pshm_condition_notify(words, 2);
    pshm_condition_enter(words, &other);
    CHECK(!pshm_condition_claim(words, &other));
    CHECK(pshm_condition_claim(words, &late));
    CHECK(pshm_condition_claim(words, &early));
    CHECK(!pshm_condition_claim(words, &other));
    pshm_condition_leave(words, &other);
    CHECK_IS(words->waiters, 0);
    unmake(&peer);
}

static void
token_without_waiters_is_removed(void)
{
    struct pshm_condition words = {0};
    struct pshm_waiter first, second, later;
    pshm_condition_enter(&words, &first);
    pshm_condition_enter(&words, &second);
    pshm_condition_notify(&words, 1);
    pshm_condition_leave(&words, &first);
    CHECK_IS(words.tokens, 1);
    pshm_condition_leave(&words, &second);
    CHECK_IS(words.tokens, 0);
    pshm_condition_enter(&words, &later);
    CHECK(!pshm_condition_claim(&words, &later));
}

/* A waiter times out while another process notifies all. */
static void
waiter_that_leaves_is_not_counted_twice(void)
{
    struct pshm_condition words = {0};
    struct pshm_waiter old, later;
    pshm_condition_enter(&words, &old);
    pshm_condition_notify(&words, UINT_MAX);
    pshm_condition_enter(&words, &later);
    pshm_condition_leave(&words, &old);
    CHECK_IS(words.waiters, 1);
}

/* Another process overwrote the counts, so they may be too small. */
static void
wrong_counts_do_not_wrap(void)
{
    struct pshm_condition words = {0};
    struct pshm_waiter waiter;
    pshm_condition_enter(&words, &waiter);
    atomic_store(&words.waiters, 0);
    pshm_condition_leave(&words, &waiter);
    CHECK_IS(words.waiters, 0);
    atomic_store(&words.tokens, 1);
    atomic_store(&words.count, 1);
    CHECK(pshm_condition_claim(&words, &waiter));
    CHECK_IS(words.waiters, 0);
    CHECK_IS(words.tokens, 0);
}

/* There are more tokens than waiters, or more waiters than an int can count.
 */
static void
notify_works_with_wrong_counts(void)
{
    struct pshm_condition words = {.tokens = 2, .waiters = 1};
    struct pshm_waiter waiter = {0};
    pshm_condition_notify(&words, 1);
    CHECK(pshm_condition_claim(&words, &waiter));
    CHECK_IS(words.waiters, 0);
    words = (struct pshm_condition){.waiters = UINT_MAX};
    pshm_condition_notify(&words, INT_MAX + 1U);
    CHECK_IS(words.tokens, INT_MAX + 1U);
    CHECK(pshm_condition_claim(&words, &waiter));
    CHECK_IS(words.tokens, INT_MAX);
    CHECK_IS(words.waiters, UINT_MAX - 1);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(notify_releases_only_earlier_waiters);
    RUN(token_without_waiters_is_removed);
    RUN(waiter_that_leaves_is_not_counted_twice);
    RUN(wrong_counts_do_not_wrap);
    RUN(notify_works_with_wrong_counts);
    RUN(sleep_ends_after_a_poll_interval);
    RUN(notifier_killed_before_the_wake_has_notified);
    RUN(notify_outlives_a_killed_waiter);
    RUN(every_item_is_consumed_despite_deaths);
    RUN(deaths_at_any_time_do_not_stop_the_others);
    return finish();
}
