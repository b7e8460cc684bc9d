#include "check.h"
#include "posix/host.h"

static int
own_id(void *context)
{
    CHECK(pshm_process_id() == getpid());
    return pshm_process_id() == *(pid_t *)context;
}

static void
child_is_another_process(void)
{
    pid_t pid = pshm_process_id();
    CHECK(pid == getpid());
    CHECK_IS(child_run(own_id, &pid), 0);
}

static int
space_without_proc(void *context)
{
    (void)context;
    if (mount_own("/proc", "mode=755") != 0) {
        return CANNOT;
    }
    CHECK_IS(pshm_process_space(), 0);
    return 0;
}

static void
proc_may_be_missing(void)
{
    CHECK(pshm_process_space() != 0);
    CHECK_IN_CHILD(space_without_proc, NULL, "cannot mount a tmpfs");
}

static int
end_at_once(void *context)
{
    (void)context;
    return 0;
}

static void
forks_are_counted(void)
{
    pshm_forks_watch();
    unsigned seen = pshm_forks_seen();
    CHECK_IS(child_run(end_at_once, NULL), 0);
    CHECK_IS(pshm_forks_seen(), seen + 1);
    CHECK_IS(pshm_forks(), 1);
}

int
main(void)
{
    RUN(child_is_another_process);
    RUN(proc_may_be_missing);
    RUN(forks_are_counted);
    return finish();
}
