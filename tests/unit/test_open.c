#include "check.h"
#include "posix/object/attach.h"

static mode_t kind;

static void
flags_and_mode_are_used(void)
{
    struct pshm_name name = name_of("raw");
    mode_t old = umask(027);
    int fd = pshm_open_raw(&name, O_CREAT | O_EXCL | O_RDWR, 0666, &kind);
    (void)umask(old);
    CHECK(fd > 2);
    CHECK_IS(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    CHECK_IS(st.st_mode, S_IFREG | 0640);
    CHECK_IS(st.st_size, 0);
    CHECK_IS(pshm_open_raw(&name, O_CREAT | O_EXCL | O_RDWR, 0600, &kind),
             -EEXIST);
    (void)close(fd);
    remove_plain(&name);
    CHECK_IS(pshm_open_raw(&name, O_RDWR, 0, &kind), -ENOENT);
}

static int
open_with_0_closed(void *context)
{
    (void)close(0);
    int fd = pshm_open_raw(context, O_RDWR, 0, &kind);
    CHECK(fd > 2);
    CHECK_IS(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_IS(fcntl(0, F_GETFD), -1);
    return 0;
}

static void
descriptor_is_above_the_standard_ones(void)
{
    struct pshm_name name = name_of("raw");
    (void)make_plain(&name, 1, 0600, 0);
    CHECK_IS(child_run(open_with_0_closed, &name), 0);
    remove_plain(&name);
}

static void
other_files_are_refused_at_once(void)
{
    static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_CREAT,
                                O_RDWR | O_TRUNC};
    struct pshm_name name = name_of("fifo");
    CHECK(mkfifo(name.path, 0600) == 0);
    for (size_t i = 0; i < COUNT(flags); i++) {
        CHECK_IS(pshm_open_raw(&name, flags[i], 0600, &kind), -EINVAL);
        CHECK(S_ISFIFO(kind));
    }
    remove_plain(&name);
    CHECK(mkdir(name.path, 0700) == 0);
    CHECK_IS(pshm_open_raw(&name, O_RDONLY, 0, &kind), -EISDIR);
    CHECK_IS(pshm_open_raw(&name, O_RDWR, 0, &kind), -EISDIR);
    CHECK(rmdir(name.path) == 0);
    CHECK(symlink("/etc/passwd", name.path) == 0);
    CHECK_IS(pshm_open_raw(&name, O_RDONLY, 0, &kind), -ELOOP);
    remove_plain(&name);
}

static void
errors_are_returned(void)
{
    struct pshm_name name = name_of("raw");
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_open_raw(&name, O_CREAT | O_RDWR, 0600, &kind), -EINTR);
    (void)pshm_fault_disarm();
    CHECK_IS(names_with(prefix()), 0);
    (void)make_plain(&name, 1, 0600, 0);
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_open_raw(&name, O_RDWR, 0, &kind), -EIO);
    (void)pshm_fault_disarm();
    remove_plain(&name);
}

int
main(void)
{
    RUN(flags_and_mode_are_used);
    RUN(descriptor_is_above_the_standard_ones);
    RUN(other_files_are_refused_at_once);
    RUN(errors_are_returned);
    return finish();
}
