#include "check.h"
#include "posix/lease.h"
#include "posix/pause.h"

#include <sys/file.h>

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
leases_are_shared_and_seizure_is_exclusive(void)
{
    struct pshm_name name = fresh_object();
    int a = open_it(&name, O_RDWR), b = open_it(&name, O_RDONLY);
    int c = open_it(&name, O_RDWR), d = open_it(&name, O_RDONLY);
    CHECK_IS(pshm_lease_take(a), 0);
    CHECK_IS(pshm_lease_take(b), 0);
    CHECK_IS(pshm_lease_take(b), 0);
    CHECK_IS(pshm_lease_seize(c), -EAGAIN);
    CHECK_IS(pshm_lease_seize(d), -EAGAIN);
    (void)close(a);
    CHECK_IS(pshm_lease_seize(c), -EAGAIN);
    (void)close(b);
    CHECK_IS(pshm_lease_seize(c), 0);
    CHECK_IS(pshm_lease_seize(c), 0);
    CHECK_IS(pshm_lease_seize(d), -EAGAIN);
    CHECK_IS(pshm_lease_contested(c), 0);
    (void)close(c);
    (void)close(d);
    remove_plain(&name);
}

/* Either kind of descriptor may seize, and sees who comes afterwards. */
static void
lease_after_a_seizure_is_seen(void)
{
    struct pshm_name name = fresh_object();
    static const int modes[] = {O_RDONLY, O_RDWR};
    for (size_t i = 0; i < 4; i++) {
        int reclaimer = open_it(&name, modes[i / 2]);
        int fd = open_it(&name, modes[i % 2]);
        CHECK_IS(pshm_lease_seize(reclaimer), 0);
        CHECK_IS(pshm_lease_contested(reclaimer), 0);
        CHECK_IS(pshm_lease_take(fd), 1);
        CHECK_IS(pshm_lease_contested(reclaimer), -EAGAIN);
        CHECK_IS(pshm_lease_seize(reclaimer), -EAGAIN);
        (void)close(reclaimer);
        /* and it stays one that counts */
        reclaimer = open_it(&name, modes[i / 2]);
        CHECK_IS(pshm_lease_seize(reclaimer), -EAGAIN);
        (void)close(fd);
        CHECK_IS(pshm_lease_contested(reclaimer), 0);
        (void)close(reclaimer);
    }
    remove_plain(&name);
}

/* Someone who may only read the object keeps its flock: that hinders nobody
 * but a reclaimer. */
static void
reader_cannot_keep_others_out(void)
{
    struct pshm_name name = fresh_object();
    int hostile = open_it(&name, O_RDONLY);
    int a = open_it(&name, O_RDWR), b = open_it(&name, O_RDONLY);
    int reclaimer = open_it(&name, O_RDWR);
    CHECK(flock(hostile, LOCK_EX) == 0);
    CHECK_IS(pshm_lease_take(a), 1);
    CHECK_IS(pshm_lease_take(b), 1);
    CHECK_IS(pshm_lease_seize(reclaimer), -EAGAIN);
    /* These leases count when the flock is free again. */
    (void)close(hostile);
    CHECK_IS(pshm_lease_seize(reclaimer), -EAGAIN);
    (void)close(a);
    CHECK_IS(pshm_lease_seize(reclaimer), -EAGAIN);
    (void)close(b);
    CHECK_IS(pshm_lease_seize(reclaimer), 0);
    (void)close(reclaimer);
    remove_plain(&name);
}

static void
writer_keeps_others_out_but_nobody_waits(void)
{
    struct pshm_name name = fresh_object();
    int hostile = open_it(&name, O_RDWR), fd = open_it(&name, O_RDWR);
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CHECK(flock(hostile, LOCK_EX) == 0);
    CHECK(fcntl(hostile, F_OFD_SETLK, &all) == 0);
    CHECK_IS(pshm_lease_take(fd), -EAGAIN);
    CHECK_IS(pshm_lease_seize(fd), -EAGAIN);
    (void)close(hostile);
    CHECK_IS(pshm_lease_take(fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

/* A traditional lock of a range is an obstacle of the same kind. */
static int
lock_range_and_stop(void *context)
{
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 20,
        .l_len = 1};
    CHECK(fcntl(*(int *)context, F_SETLK, &range) == 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
lock_on_any_byte_counts(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR), own = open_it(&name, O_RDWR);
    pid_t child = child_start(lock_range_and_stop, &fd);
    child_wait_stopped(child);
    CHECK_IS(pshm_lease_seize(own), -EAGAIN);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_lease_seize(own), 0);
    (void)close(fd);
    (void)close(own);
    remove_plain(&name);
}

static int
take_and_stop(void *context)
{
    int fd = open_it(context, O_RDWR);
    CHECK_IS(pshm_lease_take(fd), 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
lease_ends_with_its_process(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR);
    pid_t child = child_start(take_and_stop, &name);
    child_wait_stopped(child);
    CHECK_IS(pshm_lease_seize(fd), -EAGAIN);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK_IS(child_wait(child), -SIGKILL);
    CHECK_IS(pshm_lease_seize(fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

/* A mapping keeps the open file, and with it the lease of either kind. */
static void
mapping_keeps_the_lease(void)
{
    struct pshm_name name = fresh_object();
    for (int second_kind = 0; second_kind < 2; second_kind++) {
        int hostile = open_it(&name, O_RDONLY);
        int fd = open_it(&name, O_RDWR), other = open_it(&name, O_RDWR);
        CHECK(!second_kind || flock(hostile, LOCK_EX) == 0);
        CHECK_IS(pshm_lease_take(fd), second_kind);
        void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        CHECK(base != MAP_FAILED);
        (void)close(fd);
        (void)close(hostile);
        CHECK_IS(pshm_lease_seize(other), -EAGAIN);
        CHECK(munmap(base, PAGE) == 0);
        CHECK_IS(pshm_lease_seize(other), 0);
        (void)close(other);
    }
    remove_plain(&name);
}

static int
stop(void *context)
{
    (void)context;
    (void)raise(SIGSTOP);
    return 0;
}

static void
forked_child_keeps_the_lease(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDWR), other = open_it(&name, O_RDWR);
    CHECK_IS(pshm_lease_take(fd), 0);
    (void)close(other);
    pid_t child = child_start(stop, NULL);
    child_wait_stopped(child);
    (void)close(fd);
    other = open_it(&name, O_RDWR);
    CHECK_IS(pshm_lease_seize(other), -EAGAIN);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_lease_seize(other), 0);
    (void)close(other);
    remove_plain(&name);
}

static int
seize_and_let_go(void *context)
{
    int fd = open_it(context, O_RDWR);
    CHECK_IS(pshm_lease_seize(fd), 0);
    (void)raise(SIGSTOP);
    (void)usleep(3000);
    return 0;
}

static void
lease_is_improved_when_a_reclaimer_lets_go(void)
{
    struct pshm_name name = fresh_object();
    int fd = open_it(&name, O_RDONLY), other = open_it(&name, O_RDWR);
    pid_t child = child_start(seize_and_let_go, &name);
    child_wait_stopped(child);
    CHECK_IS(pshm_lease_take(fd), 1);
    /* not for long, for it might be somebody who never lets go */
    double start = pshm_clock();
    CHECK_IS(pshm_lease_improve(fd), -EAGAIN);
    CHECK(pshm_clock() - start < 2);
    CHECK(kill(child, SIGCONT) == 0);
    int rc = -EAGAIN;
    for (int i = 0; rc == -EAGAIN && i < 100; i++) {
        rc = pshm_lease_improve(fd);
    }
    CHECK_IS(rc, 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_lease_seize(other), -EAGAIN);

    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_lease_improve(fd), -EINTR);
    pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, ENOLCK);
    CHECK_IS(pshm_lease_improve(fd), -ENOLCK);
    (void)pshm_fault_disarm();
    (void)close(fd);
    (void)close(other);
    remove_plain(&name);
}

static void
errors_are_told(void)
{
    static const int errnos[] = {EINTR, ENOLCK, EBADF};
    struct pshm_name name = fresh_object();
    int hostile = open_it(&name, O_RDONLY), fd = open_it(&name, O_RDWR);
    for (size_t i = 0; i < COUNT(errnos); i++) {
        pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_lease_take(fd), -errnos[i]);
        pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_lease_seize(fd), -errnos[i]);
        pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_lease_seize(fd), -errnos[i]);
        pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_lease_contested(fd), -errnos[i]);
        CHECK(flock(fd, LOCK_UN) == 0 && flock(hostile, LOCK_EX) == 0);
        pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_lease_take(fd), -errnos[i]);
        CHECK(flock(hostile, LOCK_UN) == 0);
    }
    (void)pshm_fault_disarm();
    /* POSIX lets a refused lock be EACCES. */
    CHECK(flock(hostile, LOCK_EX) == 0);
    pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, EACCES);
    CHECK_IS(pshm_lease_take(fd), -EAGAIN);
    (void)pshm_fault_disarm();
    (void)close(hostile);
    (void)close(fd);
    remove_plain(&name);
}

int
main(void)
{
    RUN(leases_are_shared_and_seizure_is_exclusive);
    RUN(lease_after_a_seizure_is_seen);
    RUN(reader_cannot_keep_others_out);
    RUN(writer_keeps_others_out_but_nobody_waits);
    RUN(lock_on_any_byte_counts);
    RUN(lease_ends_with_its_process);
    RUN(mapping_keeps_the_lease);
    RUN(forked_child_keeps_the_lease);
    RUN(lease_is_improved_when_a_reclaimer_lets_go);
    RUN(errors_are_told);
    return finish();
}
