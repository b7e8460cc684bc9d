#include "check.h"
#include "posix/clock.h"
#include "posix/object/name_lock.h"

#include <sys/file.h>

/* Is the name lock free? */
static bool
is_free(void)
{
    int fd = open(PSHM_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool free = flock(fd, LOCK_EX | LOCK_NB) == 0;
    (void)close(fd);
    return free;
}

static void
one_process_holds_it_at_a_time(void)
{
    int name_lock = pshm_name_lock_acquire();
    CHECK(name_lock > 2);
    CHECK_IS(fcntl(name_lock, F_GETFD), FD_CLOEXEC);
    CHECK(!is_free());
    pshm_name_lock_release(name_lock);
    CHECK(is_free());
}

static void
wait_is_limited(void)
{
    int name_lock = pshm_name_lock_acquire();
    double begun = pshm_clock();
    int second = pshm_name_lock_acquire();
    double took = pshm_clock() - begun;
    CHECK(took >= 0.1 && took < 2);
    pshm_name_lock_release(second);
    CHECK(!is_free());
    pshm_name_lock_release(name_lock);
    CHECK(is_free());
}

static int
take_it_and_stop(void *context)
{
    (void)context;
    CHECK(pshm_name_lock_acquire() >= 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
it_ends_with_the_process(void)
{
    pid_t child = child_start_stopped(take_it_and_stop, NULL);
    CHECK(!is_free());
    child_kill(child);
    CHECK(is_free());
}

static void
forked_child_does_not_hold_it(void)
{
    int name_lock = pshm_name_lock_acquire();
    pid_t child = child_start_stopped(stop_itself, NULL);
    pshm_name_lock_release(name_lock);
    CHECK(is_free());
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
}

static void
release_it(void *context)
{
    pshm_name_lock_release(*(int *)context);
}

static void
waiter_gets_it_when_it_is_released(void)
{
    int name_lock = pshm_name_lock_acquire();
    pshm_fault_hook(release_it, &name_lock);
    pshm_fault_arm("clock_nanosleep", 2, PSHM_FAULT_HOOK_BEFORE, 0);
    int second = pshm_name_lock_acquire();
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK(!is_free());
    pshm_name_lock_release(second);
    CHECK(is_free());
}

static void
failure_means_to_continue_without_it(void)
{
    static const char *const calls[] = {"open", "flock"};
    for (size_t i = 0; i < COUNT(calls); i++) {
        struct census before = census_take();
        pshm_fault_arm(calls[i], 1, PSHM_FAULT_FAIL, EMFILE);
        int name_lock = pshm_name_lock_acquire();
        CHECK_IS(pshm_fault_disarm(), 1);
        pshm_name_lock_release(name_lock);
        CHECK(is_free());
        CHECK_NOTHING_LEFT(before);
    }
}

int
main(void)
{
    RUN(one_process_holds_it_at_a_time);
    RUN(wait_is_limited);
    RUN(it_ends_with_the_process);
    RUN(forked_child_does_not_hold_it);
    RUN(waiter_gets_it_when_it_is_released);
    RUN(failure_means_to_continue_without_it);
    return finish();
}
