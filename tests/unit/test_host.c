#include "check.h"
#include "posix/host.h"

static int
read_it(void *context)
{
    return pshm_boot_id(context);
}

static void
do_nothing(void *context)
{
    (void)context;
}

static void
boot_id_is_that_of_the_kernel(void)
{
    char id[PSHM_BOOT_ID_SIZE], expected[64] = "";
    CHECK_IS(pshm_boot_id(id), 0);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    CHECK(file != NULL && fgets(expected, sizeof(expected), file) != NULL);
    (void)fclose(file);
    CHECK_IS(strlen(id), 36);
    CHECK(strncmp(id, expected, 36) == 0);
}

static void
each_failure_is_returned(void)
{
    char id[PSHM_BOOT_ID_SIZE];
    struct operation op = {
        .name = "boot id", .act = read_it, .undo = do_nothing, .context = id,
        .overcomes = " close "};
    CHECK_IS(fail_each(&op), 3);
}

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

/* A boot id that is too short, or missing, is not that of the kernel. */
static int
read_another_boot_id(void *context)
{
    char id[PSHM_BOOT_ID_SIZE];
    (void)context;
    if (mount_own("/proc", "mode=755") != 0) {
        return CANNOT;
    }
    CHECK_IS(pshm_boot_id(id), -ENOENT);
    CHECK_IS(pshm_process_space(), 0);
    make_folder("/proc/sys");
    make_folder("/proc/sys/kernel");
    make_folder("/proc/sys/kernel/random");
    write_file("/proc/sys/kernel/random/boot_id", "short");
    CHECK_IS(pshm_boot_id(id), -EIO);
    return 0;
}

static void
proc_may_be_missing_or_replaced(void)
{
    CHECK(pshm_process_space() != 0);
    CHECK_IN_CHILD(read_another_boot_id, NULL, "cannot mount a tmpfs");
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
    CHECK_IS(pshm_forks(), 0);
}

int
main(void)
{
    RUN(boot_id_is_that_of_the_kernel);
    RUN(each_failure_is_returned);
    RUN(child_is_another_process);
    RUN(proc_may_be_missing_or_replaced);
    RUN(forks_are_counted);
    return finish();
}
