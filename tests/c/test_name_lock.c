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
one_has_it_at_a_time(void)
{
    int name_lock = pshm_name_lock_acquire();
    CHECK(name_lock > 2);
    CHECK_IS(fcntl(name_lock, F_GETFD), FD_CLOEXEC);
    CHECK(!is_free());
    pshm_name_lock_release(name_lock);
    CHECK(is_free());
}

static void
nobody_waits_for_ever(void)
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
hold_it_and_stop(void *context)
{
    (void)context;
    CHECK(pshm_name_lock_acquire() >= 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
it_ends_with_the_process(void)
{
    pid_t child = child_start(hold_it_and_stop, NULL);
    child_wait_stopped(child);
    CHECK(!is_free());
    CHECK(kill(child, SIGKILL) == 0);
    CHECK_IS(child_wait(child), -SIGKILL);
    CHECK(is_free());
}

static int
stop(void *context)
{
    (void)context;
    (void)raise(SIGSTOP);
    return 0;
}

static void
child_forked_meanwhile_does_not_keep_it(void)
{
    int name_lock = pshm_name_lock_acquire();
    pid_t child = child_start(stop, NULL);
    child_wait_stopped(child);
    pshm_name_lock_release(name_lock);
    CHECK(is_free());
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
}

static void
end_it(void *context)
{
    pshm_name_lock_release(*(int *)context);
}

static void
who_waits_gets_it_once_it_is_free(void)
{
    int name_lock = pshm_name_lock_acquire();
    pshm_fault_hook(end_it, &name_lock);
    pshm_fault_arm("clock_nanosleep", 2, PSHM_FAULT_HOOK_BEFORE, 0);
    int second = pshm_name_lock_acquire();
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK(!is_free());
    pshm_name_lock_release(second);
    CHECK(is_free());
}

static void
what_fails_is_no_obstacle(void)
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
    RUN(one_has_it_at_a_time);
    RUN(nobody_waits_for_ever);
    RUN(it_ends_with_the_process);
    RUN(child_forked_meanwhile_does_not_keep_it);
    RUN(who_waits_gets_it_once_it_is_free);
    RUN(what_fails_is_no_obstacle);
    return finish();
}
