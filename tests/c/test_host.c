#include "check.h"
#include "posix/host.h"

static int
read_it(void *context)
{
    return pshm_boot_id(context);
}

static void
nothing(void *context)
{
    (void)context;
}

static void
boot_id_is_the_kernels(void)
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
each_failure_is_told(void)
{
    char id[PSHM_BOOT_ID_SIZE];
    struct operation op = {
        .name = "boot id", .act = read_it, .undo = nothing, .context = id,
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

int
main(void)
{
    RUN(boot_id_is_the_kernels);
    RUN(each_failure_is_told);
    RUN(child_is_another_process);
    return finish();
}
