#include "check.h"
#include "posix/clock.h"

static void
pause_lasts_for_the_given_time(void)
{
    double start = pshm_clock();
    CHECK_IS(pshm_sleep(0.02), 0);
    double passed = pshm_clock() - start;
    CHECK(passed >= 0.02 && passed < 5);
    CHECK_IS(pshm_sleep(0), 0);
}

static void
ignore_signal(int number)
{
    (void)number;
}

static void
signal_ends_a_pause(void)
{
    struct sigaction action = {.sa_handler = ignore_signal}, old;
    CHECK(sigaction(SIGUSR1, &action, &old) == 0);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        (void)usleep(20000);
        _exit(kill(parent, SIGUSR1) < 0);
    }
    double start = pshm_clock();
    CHECK_IS(pshm_sleep(0.9), -EINTR);
    CHECK(pshm_clock() - start < 0.8);
    CHECK_IS(child_wait(child), 0);
    CHECK(sigaction(SIGUSR1, &old, NULL) == 0);
}

static void
errors_are_returned(void)
{
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_sleep(0.9), -EINTR);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(pshm_sleep(1.5), -EINVAL);
}

int
main(void)
{
    RUN(pause_lasts_for_the_given_time);
    RUN(signal_ends_a_pause);
    RUN(errors_are_returned);
    return finish();
}
