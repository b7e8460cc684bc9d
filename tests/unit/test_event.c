#include "check.h"
#include "peers.h"
#include "posix/sync/event.h"

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
        struct pshm_event event = {0};
        unsigned seen = pshm_event_read(&event);
        pshm_fault_hook(cleared ? set_and_clear_it : set_it, &event);
        pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_AFTER, 0);
        CHECK_IS(pshm_event_wait(&event, seen, 0), 0);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK_IS(pshm_event_is_set(&event), !cleared);
    }
}

static void
waits_end_in_time(void)
{
    struct pshm_event event = {0};
    unsigned seen = pshm_event_read(&event);
    int64_t start = pshm_now();
    CHECK_IS(pshm_event_wait(&event, seen, start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_event_wait(&event, seen, PSHM_NEVER), -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_event_wait(&event, seen, 0), -ETIMEDOUT);
}

int
main(void)
{
    RUN(set_at_the_deadline_ends_the_wait);
    RUN(waits_end_in_time);
    return finish();
}
