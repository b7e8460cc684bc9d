#include "check.h"
#include "posix/object/use_lock.h"
#include "posix/clock.h"

#include <sys/file.h>
#include <sys/sysmacros.h>

static struct pshm_name
fresh_object(void)
{
    struct pshm_name name = name_of("leased");
    (void)make_plain(&name, 1, 0666, 0);
    return name;
}

static int
open_it(const struct pshm_name *name, int flags)
{
    int fd = open(name->path, flags | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void
use_locks_are_shared_and_excluded_by_a_reclaimer(void)
{
    struct pshm_name name = fresh_object();
    int a = open_it(&name, O_RDWR), b = open_it(&name, O_RDONLY);
    int c = open_it(&name, O_RDWR), d = open_it(&name, O_RDONLY);
    CHECK_IS(pshm_use_lock_take(a), 0);
    CHECK_IS(pshm_use_lock_take(b), 0);
    CHECK_IS(pshm_use_lock_take(b), 0);
    CHECK_IS(pshm_use_lock_try_exclusive(c), -EAGAIN);
    CHECK_IS(pshm_use_lock_try_exclusive(d), -EAGAIN);
    (void)close(a);
    CHECK_IS(pshm_use_lock_try_exclusive(c), -EAGAIN);
    (void)close(b);
    CHECK_IS(pshm_use_lock_try_exclusive(c), 0);
    CHECK_IS(pshm_use_lock_try_exclusive(c), 0);
    CHECK_IS(pshm_use_lock_try_exclusive(d), -EAGAIN);
    pshm_use_lock_release(c);
    CHECK_IS(pshm_use_lock_try_exclusive(d), 0);
    (void)close(c);
    (void)close(d);
    remove_plain(&name);
}

/* Any process that can read the object can hold its lock for any time. */
static void
wait_for_an_exclusive_lock_is_limited(void)
{
    struct pshm_name name = fresh_object();
    int hostile = open_it(&name, O_RDONLY), fd = open_it(&name, O_RDWR);
    CHECK(flock(hostile, LOCK_EX) == 0);
    CHECK_IS(pshm_use_lock_take(fd), -EAGAIN);
    CHECK_IS(pshm_use_lock_try_exclusive(fd), -EAGAIN);
    double start = pshm_clock();
    CHECK_IS(pshm_use_lock_wait(fd), -EAGAIN);
    CHECK(pshm_clock() - start >= 0.02 && pshm_clock() - start < 2);
    (void)close(hostile);
    CHECK_IS(pshm_use_lock_take(fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

static int
take_and_stop(void *context)
{
    int fd = open_it(context, O_RDWR);
    CHECK_IS(pshm_use_lock_take(fd), 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
use_lock_ends_with_its_process(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR);
    pid_t child = child_start_stopped(take_and_stop, &name);
    CHECK_IS(pshm_use_lock_try_exclusive(fd), -EAGAIN);
    child_kill(child);
    CHECK_IS(pshm_use_lock_try_exclusive(fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

/* A mapping keeps the open file, and therefore the use lock. */
static void
mapping_keeps_the_use_lock(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR), other = open_it(&name, O_RDWR);
    CHECK_IS(pshm_use_lock_take(fd), 0);
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    (void)close(fd);
    CHECK_IS(pshm_use_lock_try_exclusive(other), -EAGAIN);
    CHECK(munmap(base, PAGE) == 0);
    CHECK_IS(pshm_use_lock_try_exclusive(other), 0);
    (void)close(other);
    remove_plain(&name);
}

static void
forked_child_keeps_the_use_lock(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR), other = open_it(&name, O_RDWR);
    CHECK_IS(pshm_use_lock_take(fd), 0);
    (void)close(other);
    pid_t child = child_start_stopped(stop_itself, NULL);
    (void)close(fd);
    other = open_it(&name, O_RDWR);
    CHECK_IS(pshm_use_lock_try_exclusive(other), -EAGAIN);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_use_lock_try_exclusive(other), 0);
    (void)close(other);
    remove_plain(&name);
}

static int
hold_exclusive_lock(void *context)
{
    int fd = open_it(context, O_RDWR);
    CHECK_IS(pshm_use_lock_try_exclusive(fd), 0);
    (void)raise(SIGSTOP);
    (void)usleep(3000);
    return 0;
}

static void
attach_waits_for_the_lock_of_a_reclaimer(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDONLY), other = open_it(&name, O_RDWR);
    pid_t child = child_start_stopped(hold_exclusive_lock, &name);
    CHECK_IS(pshm_use_lock_wait(fd), -EAGAIN);
    CHECK(kill(child, SIGCONT) == 0);
    int rc = -EAGAIN;
    for (int i = 0; rc == -EAGAIN && i < 100; i++) {
        rc = pshm_use_lock_wait(fd);
    }
    CHECK_IS(rc, 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_use_lock_try_exclusive(other), -EAGAIN);

    CHECK(flock(fd, LOCK_UN) == 0 && flock(other, LOCK_EX) == 0);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_use_lock_wait(fd), -EINTR);
    pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, ENOLCK);
    CHECK_IS(pshm_use_lock_wait(fd), -ENOLCK);
    (void)pshm_fault_disarm();
    (void)close(fd);
    (void)close(other);
    remove_plain(&name);
}

static void
errors_are_returned(void)
{
    static const int errnos[] = {EINTR, ENOLCK, EBADF};
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR);
    for (size_t i = 0; i < COUNT(errnos); i++) {
        pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_use_lock_take(fd), -errnos[i]);
        pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_use_lock_try_exclusive(fd), -errnos[i]);
        (void)pshm_fault_disarm();
    }
    (void)close(fd);
    remove_plain(&name);
}

int
main(void)
{
    RUN(use_locks_are_shared_and_excluded_by_a_reclaimer);
    RUN(wait_for_an_exclusive_lock_is_limited);
    RUN(use_lock_ends_with_its_process);
    RUN(mapping_keeps_the_use_lock);
    RUN(forked_child_keeps_the_use_lock);
    RUN(attach_waits_for_the_lock_of_a_reclaimer);
    RUN(errors_are_returned);
    return finish();
}
