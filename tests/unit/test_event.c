#include "check.h"
#include "peers.h"
#include "posix/sync/event.h"

#include <sched.h>

struct place {
    struct pshm_event event, answer;
    atomic_uint waiting, passed, stopped;
    volatile long written;
};

static struct place *
make(void)
{
    return shared_memory(PAGE);
}

static void
unmake(struct place *place)
{
    CHECK(munmap(place, PAGE) == 0);
}

static int
wait_since(struct pshm_event *event, unsigned seen)
{
    int rc;
    PATIENTLY(rc, pshm_event_wait(event, seen, before_long()));
    return rc;
}

static int
wait_for(struct pshm_event *event)
{
    return wait_since(event, pshm_event_read(event));
}

static void
flag_can_be_set_and_cleared(void)
{
    struct place *place = make();
    struct pshm_event *event = &place->event;
    CHECK(!pshm_event_is_set(event));
    pshm_event_clear(event);
    CHECK(!pshm_event_is_set(event));
    for (int i = 0; i < 3; i++) {
        pshm_event_set(event);
        CHECK(pshm_event_is_set(event));
        pshm_event_set(event);
        CHECK(pshm_event_is_set(event));
        CHECK_IS(pshm_event_wait(event, pshm_event_read(event), 0), 0);
        pshm_event_clear(event);
        pshm_event_clear(event);
        CHECK(!pshm_event_is_set(event));
    }
    unmake(place);
}

static void
set_it(void *context)
{
    pshm_event_set(context);
}

static void
set_and_clear_it(void *context)
{
    pshm_event_set(context);
    pshm_event_clear(context);
}

/* If the event is set when the deadline has passed, the wait succeeds. */
static void
set_at_the_deadline_ends_the_wait(void)
{
    for (int cleared = 0; cleared < 2; cleared++) {
        struct place *place = make();
        unsigned seen = pshm_event_read(&place->event);
        pshm_fault_hook(cleared ? set_and_clear_it : set_it, &place->event);
        pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_AFTER, 0);
        CHECK_IS(pshm_event_wait(&place->event, seen, 0), 0);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK_IS(pshm_event_is_set(&place->event), !cleared);
        unmake(place);
    }
}

static void
waits_end_in_time(void)
{
    struct place *place = make();
    unsigned seen = pshm_event_read(&place->event);
    int64_t start = pshm_now();
    CHECK_IS(pshm_event_wait(&place->event, seen, start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_event_wait(&place->event, seen, PSHM_NEVER), -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_event_wait(&place->event, seen, 0), -ETIMEDOUT);
    unmake(place);
}

/* The event was set and cleared after the waiter read it. */
static void
set_and_clear_ends_the_wait(void)
{
    struct place *place = make();
    unsigned seen = pshm_event_read(&place->event);
    pshm_event_set(&place->event);
    pshm_event_clear(&place->event);
    CHECK_IS(pshm_event_wait(&place->event, seen, 0), 0);
    CHECK_IS(pshm_event_wait(&place->event, pshm_event_read(&place->event),
                             0),
             -ETIMEDOUT);
    unmake(place);
}

static int
wait_once(void *context)
{
    struct place *place = context;
    unsigned seen = pshm_event_read(&place->event);
    (void)atomic_fetch_add(&place->waiting, 1);
    CHECK_IS(wait_since(&place->event, seen), 0);
    CHECK_IS(place->written, 1);
    (void)atomic_fetch_add(&place->passed, 1);
    return 0;
}

static void
set_and_clear_releases_all_waiters(void)
{
    struct place *place = make();
    pid_t pids[4];
    for (size_t i = 0; i < COUNT(pids); i++) {
        pids[i] = child_start(wait_once, place);
    }
    await(&place->waiting, COUNT(pids));
    (void)usleep(5000);
    CHECK_IS(atomic_load(&place->passed), 0);
    place->written = 1;
    pshm_event_set(&place->event);
    pshm_event_clear(&place->event);
    for (size_t i = 0; i < COUNT(pids); i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
    unmake(place);
}

static int
reply(void *context)
{
    struct place *place = context;
    for (long i = 1; i <= ROUNDS(2000); i++) {
        CHECK_IS(wait_for(&place->event), 0);
        pshm_event_clear(&place->event);
        CHECK_IS(place->written, i);
        pshm_event_set(&place->answer);
    }
    return 0;
}

static void
two_processes_alternate(void)
{
    struct place *place = make();
    pid_t child = child_start(reply, place);
    for (long i = 1; i <= ROUNDS(2000); i++) {
        place->written = i;
        pshm_event_set(&place->event);
        if (!CHECK_IS(wait_for(&place->answer), 0)) {
            break;
        }
        pshm_event_clear(&place->answer);
    }
    CHECK_IS(child_wait(child), 0);
    unmake(place);
}

/* ---- a death ---- */

static int
set_and_die_before_the_wake(void *context)
{
    struct place *place = context;
    place->written = 1;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_event_set(&place->event);
    return 1;
}

static void
killed_setter_has_set_the_flag(void)
{
    struct place *place = make();
    pid_t pids[2];
    for (size_t i = 0; i < COUNT(pids); i++) {
        pids[i] = child_start(wait_once, place);
    }
    await(&place->waiting, COUNT(pids));
    (void)usleep(5000);
    CHECK_IS(child_run(set_and_die_before_the_wake, place), -SIGKILL);
    for (size_t i = 0; i < COUNT(pids); i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
    /* A second set wakes the waiters too. */
    pshm_event_set(&place->event);
    CHECK(pshm_event_is_set(&place->event));
    unmake(place);
}

static int
wait_again_and_again(void *context)
{
    struct place *place = context;
    while (atomic_load(&place->stopped) == 0) {
        if (!CHECK_IS(wait_for(&place->event), 0)) {
            return 1;
        }
        (void)atomic_fetch_add(&place->passed, 1);
        if (random_below(4) == 0) {
            pshm_event_clear(&place->event);
        }
    }
    return 0;
}

static int
set_and_clear(void *context)
{
    struct place *place = context;
    while (atomic_load(&place->stopped) == 0) {
        pshm_event_set(&place->event);
        if (random_below(4) == 0) {
            (void)sched_yield();
        }
        pshm_event_clear(&place->event);
        (void)atomic_fetch_add(&place->waiting, 1);
    }
    return 1;
}

static void
deaths_at_any_time_do_not_stop_the_others(void)
{
    struct place *place = make();
    pid_t steady[2];
    for (size_t i = 0; i < COUNT(steady); i++) {
        steady[i] = child_start(wait_again_and_again, place);
    }
    for (int round = 0; round < ROUNDS(150); round++) {
        pid_t waiter = child_start(wait_again_and_again, place);
        pid_t setter = child_start(set_and_clear, place);
        unsigned passed = atomic_load(&place->passed);
        await(&place->waiting, atomic_load(&place->waiting) + 1);
        kill_within(waiter, 200);
        await(&place->passed, passed + 1);
        kill_within(setter, 200);
    }
    atomic_store(&place->stopped, 1);
    pshm_event_set(&place->event);
    int64_t deadline = before_long();
    for (size_t i = 0; i < COUNT(steady); i++) {
        while (pshm_now() < deadline
               && waitpid(steady[i], NULL, WNOHANG) == 0) {
            pshm_event_set(&place->event); /* a process may have cleared it */
            (void)usleep(100);
        }
        CHECK(pshm_now() < deadline);
    }
    unmake(place);
}

int
main(void)
{
    RUN(flag_can_be_set_and_cleared);
    RUN(set_at_the_deadline_ends_the_wait);
    RUN(waits_end_in_time);
    RUN(set_and_clear_ends_the_wait);
    RUN(set_and_clear_releases_all_waiters);
    RUN(two_processes_alternate);
    RUN(killed_setter_has_set_the_flag);
    RUN(deaths_at_any_time_do_not_stop_the_others);
    return finish();
}
