#include "check.h"
#include "posix/object/fd.h"

static bool
closes_on_exec(int fd)
{
    return fcntl(fd, F_GETFD) == FD_CLOEXEC;
}

static void
settle_leaves_high_descriptors_alone(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(fd > 2);
    CHECK_IS(pshm_fd_above_stdio(fd), fd);
    pshm_fd_close(fd);
    CHECK_IS(fcntl(fd, F_GETFD), -1);
}

static void
settle_returns_errors(void)
{
    CHECK_IS(pshm_fd_above_stdio(-EACCES), -EACCES);
}

static int
settle_moves_standard_descriptors(void *context)
{
    (void)context;
    (void)close(0);
    CHECK_IS(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    int fd = pshm_fd_above_stdio(0);
    CHECK(fd > 2);
    CHECK(closes_on_exec(fd));
    CHECK_IS(fcntl(0, F_GETFD), -1);
    pshm_fd_close(fd);

    CHECK_IS(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(pshm_fd_above_stdio(0), -EMFILE);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(fcntl(0, F_GETFD), -1);
    return 0;
}

static void
descriptor_is_made_to_close_on_exec(void)
{
    int fd = open("/dev/null", O_RDONLY);
    pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_fd_cloexec(fd), -EPERM);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(fcntl(fd, F_GETFD), 0);
    CHECK_IS(pshm_fd_cloexec(fd), 0);
    CHECK(closes_on_exec(fd));
    (void)close(fd);
    CHECK_IS(pshm_fd_cloexec(fd), -EBADF);
}

static void
copy_refers_to_the_same_open_file(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int copy = pshm_fd_copy(fd);
    CHECK(copy > 2 && copy != fd);
    CHECK(closes_on_exec(copy));
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK((fcntl(copy, F_GETFL) & O_NONBLOCK) != 0);
    pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(pshm_fd_copy(fd), -EMFILE);
    CHECK_IS(pshm_fault_disarm(), 1);
    pshm_fd_close(copy);
    pshm_fd_close(fd);
}

static int
copy_with_0_closed(void *context)
{
    (void)close(0);
    int copy = pshm_fd_copy(*(int *)context);
    CHECK(copy > 2);
    CHECK(closes_on_exec(copy));
    CHECK_IS(fcntl(0, F_GETFD), -1);
    return 0;
}

static void
copy_is_above_the_standard_descriptors(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_IS(child_run(copy_with_0_closed, &fd), 0);
    (void)close(fd);
    CHECK_IS(pshm_fd_copy(fd), -EBADF);
    CHECK_IS(pshm_fd_copy(-1), -EBADF);
}

static void
access_mode_is_returned(void)
{
    static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR};
    for (size_t i = 0; i < COUNT(modes); i++) {
        int fd = open("/dev/null", modes[i] | O_CLOEXEC | O_NONBLOCK);
        CHECK_IS(pshm_fd_access(fd), modes[i]);
        pshm_fd_close(fd);
        CHECK_IS(pshm_fd_access(fd), -EBADF);
    }
}

static void
close_without_a_descriptor_does_nothing(void)
{
    pshm_fault_arm("close", 0, PSHM_FAULT_FAIL, 0);
    pshm_fd_close(-1);
    CHECK_IS(pshm_fault_disarm(), 0);
}

/* After EINTR the number may already be a descriptor of another thread. */
static void
close_is_not_repeated(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pshm_fault_arm("close", 1, PSHM_FAULT_FAIL, EINTR);
    pshm_fd_close(fd);
    CHECK_IS(pshm_fault_disarm(), 1);
}

int
main(void)
{
    RUN(settle_leaves_high_descriptors_alone);
    RUN(settle_returns_errors);
    RUN_IN_CHILD(settle_moves_standard_descriptors, 0);
    RUN(descriptor_is_made_to_close_on_exec);
    RUN(copy_refers_to_the_same_open_file);
    RUN(copy_is_above_the_standard_descriptors);
    RUN(access_mode_is_returned);
    RUN(close_without_a_descriptor_does_nothing);
    RUN(close_is_not_repeated);
    return finish();
}
