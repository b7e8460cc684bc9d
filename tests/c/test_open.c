#include "check.h"
#include "posix/open.h"

static void
flags_and_mode_are_the_callers(void)
{
    struct pshm_name name = name_of("raw");
    mode_t old = umask(027);
    int fd = pshm_open_raw(&name, O_CREAT | O_EXCL | O_RDWR, 0666);
    (void)umask(old);
    CHECK(fd > 2);
    CHECK_IS(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    CHECK_IS(st.st_mode, S_IFREG | 0640);
    CHECK_IS(st.st_size, 0);
    CHECK_IS(pshm_open_raw(&name, O_CREAT | O_EXCL | O_RDWR, 0600), -EEXIST);
    (void)close(fd);
    remove_plain(&name);
    CHECK_IS(pshm_open_raw(&name, O_RDWR, 0), -ENOENT);
}

static int
open_with_0_closed(void *context)
{
    (void)close(0);
    int fd = pshm_open_raw(context, O_RDWR, 0);
    CHECK(fd > 2);
    CHECK_IS(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_IS(fcntl(0, F_GETFD), -1);
    return 0;
}

static void
stays_above_the_standard_descriptors(void)
{
    struct pshm_name name = name_of("raw");
    (void)make_plain(&name, 1, 0600, 0);
    CHECK_IS(child_run(open_with_0_closed, &name), 0);
    remove_plain(&name);
}

static void
errors_are_told(void)
{
    struct pshm_name name = name_of("raw");
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_open_raw(&name, O_CREAT | O_RDWR, 0600), -EINTR);
    (void)pshm_fault_disarm();
    CHECK_IS(names_with(prefix()), 0);
}

int
main(void)
{
    RUN(flags_and_mode_are_the_callers);
    RUN(stays_above_the_standard_descriptors);
    RUN(errors_are_told);
    return finish();
}
