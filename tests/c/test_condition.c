#include "check.h"
#include "peers.h"
#include "posix/sync/condition.h"
#include "posix/host.h"
#include "posix/sync/lock.h"

#include <sched.h>

enum { ROOM = 4, MOST_ITEMS = 4096 };

/* A condition with its lock, and what is waited for. */
struct place {
    struct pshm_lock lock;
    struct pshm_condition words;
    volatile unsigned long plain;
    atomic_uint waiting, passed, steps, told;
    /* a queue of numbered items; under the lock */
    volatile unsigned made, taken, wanted;
    /* how often each was consumed */
    atomic_uchar consumed[MOST_ITEMS];
};

struct side {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct side
make(void)
{
    struct side side = {.place = shared_memory(sizeof(struct place))};
    CHECK_IS(pshm_lock_init(&side.place->lock, 0), 0);
    CHECK_IS(pshm_lock_open(&side.place->lock, 0, &side.mstate), 0);
    return side;
}

static void
unmake(struct side *side)
{
    CHECK(munmap(side->place, sizeof(struct place)) == 0);
}

/* A dead owner left a notify done or not done, so the next owner lets all
 * waiters check again. */
static void
lock(struct side *side)
{
    int rc;
    PATIENTLY(rc, pshm_lock_wait(&side->place->lock, &side->mstate,
                                 before_long()));
    if (rc == -EOWNERDEAD) {
        (void)atomic_fetch_add(&side->place->told, 1);
        pshm_condition_notify(&side->place->words, UINT_MAX);
        pshm_lock_repair(&side->place->lock);
        rc = 0;
    }
    CHECK_IS(rc, 0);
}

static void
unlock(struct side *side)
{
    CHECK_IS(pshm_lock_release(&side->place->lock, &side->mstate), 0);
}

/* With the lock, as before and after.  0 or -ETIMEDOUT. */
static int
wait_until(struct side *side, int64_t deadline)
{
    struct pshm_waiter waiter;
    pshm_condition_enter(&side->place->words, &waiter);
    for (;;) {
        int rc;
        unlock(side);
        PATIENTLY(rc, pshm_condition_sleep(&side->place->words, &waiter,
                                           deadline));
        lock(side);
        if (pshm_condition_claim(&side->place->words, &waiter)) {
            return 0;
        }
        if (rc < 0) {
            pshm_condition_leave(&side->place->words, &waiter);
            return rc;
        }
    }
}

static void
notify(struct side *side, unsigned n)
{
    lock(side);
    pshm_condition_notify(&side->place->words, n);
    unlock(side);
}

/* ---- which waiters wake ---- */

static int
wait_once(void *context)
{
    struct side *side = context;
    lock(side);
    (void)atomic_fetch_add(&side->place->waiting, 1);
    CHECK_IS(wait_until(side, before_long()), 0);
    (void)atomic_fetch_add(&side->place->passed, 1);
    unlock(side);
    return 0;
}

/* Until count are waiting: a waiter that counted itself under the lock has
 * entered when the lock is free again. */
static void
start_waiters(struct side *side, pid_t *pids, unsigned count)
{
    unsigned before = atomic_load(&side->place->waiting);
    for (unsigned i = 0; i < count; i++) {
        pids[i] = child_start(wait_once, side);
    }
    await(&side->place->waiting, before + count);
}

static void
wait_for_all(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
}

static void
notify_lets_so_many_go_on(void)
{
    struct side side = make();
    pid_t pids[5];
    start_waiters(&side, pids, 5);
    notify(&side, 0);
    notify(&side, 1);
    await(&side.place->passed, 1);
    notify(&side, 2);
    await(&side.place->passed, 3);
    (void)usleep(120000);               /* and no waiter wakes in vain */
    CHECK_IS(atomic_load(&side.place->passed), 3);
    notify(&side, 1);
    notify(&side, 7);
    wait_for_all(pids, 5);
    CHECK_IS(side.place->words.waiters, 0);
    CHECK_IS(side.place->words.tokens, 0);
    unmake(&side);
}

static void
notify_lets_all_go_on(void)
{
    struct side side = make();
    pid_t pids[5];
    start_waiters(&side, pids, 5);
    notify(&side, UINT_MAX);
    wait_for_all(pids, 5);
    CHECK_IS(side.place->words.waiters, 0);
    unmake(&side);
}

static void
notify_is_not_kept_for_later(void)
{
    struct side side = make();
    notify(&side, 1);
    notify(&side, UINT_MAX);
    lock(&side);
    int64_t start = pshm_now();
    CHECK_IS(wait_until(&side, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK_IS(wait_until(&side, 0), -ETIMEDOUT);
    unlock(&side);
    CHECK_IS(side.place->words.waiters, 0);
    unmake(&side);
}

/* A later waiter does not take it either. */
static void
notify_is_for_those_who_waited(void)
{
    struct side side = make();
    struct pshm_condition *words = &side.place->words;
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
    unmake(&side);
}

/* A waiter that times out takes no notify from another one. */
static void
notify_outlives_who_gives_up(void)
{
    struct side side = make();
    struct pshm_condition *words = &side.place->words;
    struct pshm_waiter first, second, third;
    pshm_condition_enter(words, &first);
    pshm_condition_enter(words, &second);
    pshm_condition_enter(words, &third);
    pshm_condition_notify(words, 1);
    pshm_condition_leave(words, &first);
    CHECK(pshm_condition_claim(words, &second));
    CHECK(!pshm_condition_claim(words, &third));
    pshm_condition_leave(words, &third);
    pshm_condition_enter(words, &first);
    pshm_condition_enter(words, &second);
    pshm_condition_notify(words, 1);
    pshm_condition_leave(words, &first);
    CHECK(pshm_condition_claim(words, &second));
    CHECK_IS(words->waiters, 0);
    CHECK_IS(words->tokens, 0);
    unmake(&side);
}

static void
sleep_ends_with_its_slice(void)
{
    struct side side = make();
    struct pshm_waiter waiter;
    pshm_condition_enter(&side.place->words, &waiter);
    int64_t start = pshm_now();
    CHECK_IS(pshm_condition_sleep(&side.place->words, &waiter, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    pshm_condition_leave(&side.place->words, &waiter);
    unmake(&side);
}

/* ---- turns ---- */

static void
take_turns(struct side *side, unsigned which)
{
    struct place *place = side->place;
    for (int i = 0; i < ROUNDS(2000); i++) {
        lock(side);
        while (place->plain % 2 != which) {
            if (!CHECK_IS(wait_until(side, before_long()), 0)) {
                break;
            }
        }
        place->plain = place->plain + 1;
        pshm_condition_notify(&place->words, 1);
        unlock(side);
    }
}

static int
take_odd_turns(void *context)
{
    take_turns(context, 1);
    return 0;
}

static void
two_processes_take_turns(void)
{
    struct side side = make();
    pid_t child = child_start(take_odd_turns, &side);
    take_turns(&side, 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(side.place->plain, 2 * ROUNDS(2000));
    unmake(&side);
}

/* ---- a death ---- */

static int
notify_and_die_before_the_wake(void *context)
{
    struct side *side = context;
    lock(side);
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_condition_notify(&side->place->words, 1);
    return 1;
}

static void
notifier_killed_before_the_wake_has_notified(void)
{
    for (unsigned waiters = 1; waiters <= 3; waiters += 2) {
        struct side side = make();
        pid_t pids[3];
        start_waiters(&side, pids, waiters);
        CHECK_IS(child_run(notify_and_die_before_the_wake, &side), -SIGKILL);
        await(&side.place->passed, 1);
        notify(&side, UINT_MAX);
        wait_for_all(pids, waiters);
        unmake(&side);
    }
}

/* It still is counted; so the first notify may be for it, and then another one
 * takes it. */
static void
killed_waiter_takes_no_notify_with_it(void)
{
    struct side side = make();
    pid_t pids[4];
    start_waiters(&side, pids, 4);
    kill_now(pids[0]);
    kill_now(pids[1]);
    notify(&side, 1);
    await(&side.place->passed, 1);
    notify(&side, 1);
    wait_for_all(pids + 2, 2);
    notify(&side, 1);
    notify(&side, 1);
    CHECK_IS(side.place->words.waiters, 0);
    unmake(&side);
}

/* ---- a queue ---- */

/* Every item is marked before it is off the queue, so that a process that is
 * killed in between leaves an item that is consumed twice, never one that is
 * not. */
static int
consume(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    for (;;) {
        lock(side);
        while (place->made == place->taken) {
            if (place->taken == place->wanted) {
                unlock(side);
                return 0;
            }
            if (!CHECK_IS(wait_until(side, before_long()), 0)) {
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
        unlock(side);
    }
}

static int
produce(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    for (;;) {
        lock(side);
        while (place->made - place->taken == ROOM) {
            if (!CHECK_IS(wait_until(side, before_long()), 0)) {
                return 1;
            }
        }
        if (place->made == place->wanted) {
            unlock(side);
            return 0;
        }
        place->made = place->made + 1;
        pshm_condition_notify(&place->words, 1);
        unlock(side);
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

/* One of either kind, and a notify for each item and each place: one that were
 * lost would leave both asleep. */
static void
every_item_is_consumed(void)
{
    struct side side = make();
    side.place->wanted = (unsigned)ROUNDS(4000);
    pid_t producer = child_start(produce, &side);
    together(1, consume, &side);
    CHECK_IS(child_wait(producer), 0);
    check_all_consumed(side.place, 0);
    unmake(&side);
}

static void
await_all_taken(struct side *side)
{
    int64_t deadline = before_long();
    bool all;
    do {
        (void)usleep(20);
        lock(side);
        all = side->place->taken == side->place->made;
        unlock(side);
    } while (!all && pshm_now() < deadline);
    CHECK(all);
}

/* Consumers only are killed; one of them always is alive. */
static void
every_item_is_consumed_though_consumers_are_killed(void)
{
    struct side side = make();
    struct place *place = side.place;
    place->wanted = MOST_ITEMS;
    unsigned deaths = 0;
    pid_t steady = child_start(consume, &side);
    /* and until one has died with the lock */
    for (int round = 0;
         round < ROUNDS(300) || atomic_load(&place->told) == 0; round++) {
        pid_t victims[2];
        for (size_t i = 0; i < COUNT(victims); i++) {
            victims[i] = child_start(consume, &side);
        }
        for (int i = 0; i < 6; i++) {
            lock(&side);
            if (place->made < place->wanted
                && place->made - place->taken < ROOM) {
                place->made = place->made + 1;
                pshm_condition_notify(&place->words, 1);
            }
            unlock(&side);
        }
        for (size_t i = 0; i < COUNT(victims); i++, deaths++) {
            kill_within(victims[i], 250);
        }
        await_all_taken(&side);
    }
    /* Now the rest of it, on which the steady one may not miss a notify. */
    lock(&side);
    place->wanted = place->made;
    pshm_condition_notify(&place->words, UINT_MAX);
    unlock(&side);
    CHECK_IS(child_wait(steady), 0);
    check_all_consumed(place, deaths);
    unmake(&side);
}

static int
notify_again_and_again(void *context)
{
    struct side *side = context;
    while (side->place->wanted == 0) {
        lock(side);
        side->place->plain = side->place->plain + 1;
        pshm_condition_notify(&side->place->words, 1 + random_below(3));
        (void)atomic_fetch_add(&side->place->steps, 1);
        unlock(side);
        if (random_below(2) == 0) {
            (void)sched_yield();
        }
    }
    return 1;
}

/* Waits for each change of plain, with a deadline for each. */
static int
wait_again_and_again(void *context)
{
    struct side *side = context;
    unsigned long seen = 0;
    lock(side);
    while (side->place->wanted == 0) {
        if (side->place->plain == seen
            && !CHECK_IS(wait_until(side, before_long()), 0)) {
            return 1;
        }
        seen = side->place->plain;
        (void)atomic_fetch_add(&side->place->passed, 1);
    }
    unlock(side);
    return 0;
}

static void
killed_at_any_moment_they_hinder_nobody(void)
{
    struct side side = make();
    struct place *place = side.place;
    pid_t steady[2];
    for (size_t i = 0; i < COUNT(steady); i++) {
        steady[i] = child_start(wait_again_and_again, &side);
    }
    for (int round = 0; round < ROUNDS(200); round++) {
        pid_t waiter = child_start(wait_again_and_again, &side);
        pid_t notifier = child_start(notify_again_and_again, &side);
        await(&place->steps, atomic_load(&place->steps) + 2);
        kill_within(waiter, 200);
        await(&place->passed, atomic_load(&place->passed) + 2);
        kill_within(notifier, 200);
    }
    lock(&side);
    place->wanted = 1;
    pshm_condition_notify(&place->words, UINT_MAX);
    unlock(&side);
    for (size_t i = 0; i < COUNT(steady); i++) {
        CHECK_IS(child_wait(steady[i]), 0);
    }
    CHECK(place->words.tokens <= place->words.waiters);
    unmake(&side);
}

/* ---- counts ---- */

static void
notify_that_nobody_is_left_to_take_is_gone(void)
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

/* It times out while the notify happens. */
static void
who_leaves_after_a_notify_for_all_is_not_counted_twice(void)
{
    struct pshm_condition words = {0};
    struct pshm_waiter old, later;
    pshm_condition_enter(&words, &old);
    pshm_condition_notify(&words, UINT_MAX);
    pshm_condition_enter(&words, &later);
    pshm_condition_leave(&words, &old);
    CHECK_IS(words.waiters, 1);
}

/* Another process wrote over them: then they may say less than is so. */
static void
counts_that_are_wrong_do_not_wrap(void)
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

/* More tokens than waiters, or more waiters than an int can count. */
static void
notify_whatever_the_counts_are(void)
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
    RUN(notify_lets_so_many_go_on);
    RUN(notify_lets_all_go_on);
    RUN(notify_is_not_kept_for_later);
    RUN(notify_is_for_those_who_waited);
    RUN(notify_outlives_who_gives_up);
    RUN(notify_that_nobody_is_left_to_take_is_gone);
    RUN(who_leaves_after_a_notify_for_all_is_not_counted_twice);
    RUN(counts_that_are_wrong_do_not_wrap);
    RUN(notify_whatever_the_counts_are);
    RUN(sleep_ends_with_its_slice);
    RUN(two_processes_take_turns);
    RUN(notifier_killed_before_the_wake_has_notified);
    RUN(killed_waiter_takes_no_notify_with_it);
    RUN(every_item_is_consumed);
    RUN(every_item_is_consumed_though_consumers_are_killed);
    RUN(killed_at_any_moment_they_hinder_nobody);
    return finish();
}
