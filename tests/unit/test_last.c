#include "check.h"
#include "peers.h"
#include "posix/object/attach.h"
#include "posix/object/last.h"
#include "posix/object/use_lock.h"
#include "posix/object/mark.h"
#include "posix/clock.h"

#include <sched.h>
#include <stdatomic.h>

/* Attach to an object that is marked or not. */
static int
attach(const struct pshm_name *name, bool marked)
{
    struct pshm_object object;
    CHECK_IS(pshm_attach(name, false, &PSHM_ACCEPT_ANY, &object), 0);
    CHECK_IS(object.last, marked);
    return object.fd;
}

/* Stop using the object, as a process that has unmapped it. */
static int
end(const struct pshm_name *name, struct pshm_identity id, int fd)
{
    struct pshm_last last;
    pshm_last_begin(name, id, &last);
    (void)close(fd);
    return pshm_last_end(&last, name, id);
}

/* ---- the mark ---- */

static void
mark_is_inherited_while_it_exists(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 10, 0600, 0);
    int first = attach(&name, false);
    CHECK_IS(pshm_mark_set(first), 0);
    CHECK(!pshm_mark_seen(first));      /* the mark is its own */
    int second = attach(&name, true);
    CHECK(pshm_mark_seen(first));
    (void)close(first);
    CHECK(!pshm_mark_seen(second));
    int third = attach(&name, true);
    (void)close(second);
    (void)close(third);
    third = attach(&name, false);
    (void)close(third);
    remove_plain(&name);
}

static void
reader_sets_no_mark(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 10, 0600, 0);
    int reader = open(name.path, O_RDONLY | O_CLOEXEC);
    CHECK_IS(pshm_mark_set(reader), -EBADF);
    int writer = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK_IS(pshm_mark_set(writer), 0);
    CHECK(pshm_mark_inherit(reader));
    CHECK(!pshm_mark_seen(writer));
    (void)close(reader);
    (void)close(writer);
    remove_plain(&name);
}

/* A process that ends waits for the marks of other processes, but not for its
 * own. */
static void
marks_of_other_processes_are_distinguished(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 10, 0600, 0);
    int own = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK_IS(pshm_mark_set(own), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(name.path, O_RDWR | O_CLOEXEC);
        _exit(!(pshm_mark_seen_of_others(fd) && pshm_mark_set(fd) == 0));
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_IS(status, 0);
    CHECK(!pshm_mark_seen(own));
    (void)close(own);
    remove_plain(&name);
}

/* The byte of a descriptor may still be locked by an open file that a forked
 * child has. */
static void
marks_of_many_open_files(void)
{
    struct pshm_name name = name_of("object");
    int marked[20];
    (void)make_plain(&name, 10, 0600, 0);
    for (size_t i = 0; i < COUNT(marked); i++) {
        int fd = open(name.path, O_RDWR | O_CLOEXEC);
        CHECK_IS(pshm_mark_set(fd), 0);
        CHECK_IS(pshm_mark_seen(fd), i > 0);
        CHECK(!pshm_mark_seen_of_others(fd));
        marked[i] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        (void)close(fd);
    }
    for (size_t i = 0; i < COUNT(marked); i++) {
        (void)close(marked[i]);
    }
    remove_plain(&name);
}

/* ---- the last process ---- */

static void
process_leaves_the_name_to_the_other(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    int first = attach(&name, false);
    CHECK_IS(pshm_mark_set(first), 0);
    int second = attach(&name, true);
    CHECK_IS(pshm_last_leave(first, true, &name, id), -EBUSY);
    CHECK(!pshm_use_lock_is_shared(second));  /* the use lock is released */
    CHECK_IS(pshm_use_lock_take(second), 0);
    (void)close(first);
    CHECK_IS(pshm_last_leave(second, true, &name, id), 0);
    CHECK_IS(names_with(prefix()), 0);
    (void)close(second);
}

struct end {
    struct pshm_name name;
    struct pshm_identity id;
    atomic_uint attached, other_attaches, waits, other_has_left;
};

/* In the first pause, which is between two checks, or before them in the wait
 * for the name lock. */
static void
let_the_other_leave(void *context)
{
    struct end *both = context;
    (void)atomic_fetch_add(&both->waits, 1);
    await(&both->other_has_left, 1);
}

static int
end_while_another_attaches(void *context)
{
    struct end *both = context;
    int fd = attach(&both->name, false);
    CHECK_IS(pshm_mark_set(fd), 0);
    (void)atomic_fetch_add(&both->attached, 1);
    await(&both->other_attaches, 1);
    pshm_fault_hook(let_the_other_leave, both);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_last_leave(fd, true, &both->name, both->id), 0);
    (void)pshm_fault_disarm();
    return 0;
}

/* The child waits for the parent, which has the object open, but without a use
 * lock. Then the parent takes a use lock; it must not wait for the child. */
static void
one_of_two_ending_processes_waits(void)
{
    struct end *both = shared_memory(sizeof(*both));
    both->name = name_of("object");
    both->id = make_plain(&both->name, 10, 0600, 0);
    pid_t child = child_start(end_while_another_attaches, both);
    await(&both->attached, 1);
    int fd = attach(&both->name, true);
    pshm_use_lock_release(fd);
    (void)atomic_fetch_add(&both->other_attaches, 1);
    await(&both->waits, 1);
    CHECK_IS(pshm_use_lock_wait(fd), 0);
    CHECK_IS(pshm_last_leave(fd, true, &both->name, both->id), -EBUSY);
    (void)close(fd);
    (void)atomic_fetch_add(&both->other_has_left, 1);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(names_with(prefix()), 0);
    CHECK(munmap(both, sizeof(*both)) == 0);
}

/* ---- processes that attach and end at any time ---- */

enum { PROCESSES = 4, ROUNDS = 300 };

struct traffic {
    struct pshm_name name;
    atomic_bool over;                   /* the first process does not use it */
    atomic_bool late;                   /* a process stopped waiting for another
                                           that had not set its mark in time */
};

/* The time for which pshm_last_end waits; nanoseconds. */
#define LONGEST_LOOK 5000000

static int
end_in_traffic(struct traffic *traffic, struct pshm_identity id, int fd)
{
    int64_t start = pshm_now();
    int rc = end(&traffic->name, id, fd);
    CHECK(rc == 0 || rc == -EBUSY);
    if (rc == -EBUSY && pshm_now() - start >= LONGEST_LOOK) {
        atomic_store(&traffic->late, true);
    }
    return rc;
}

/* Attach and end until the last process has removed the name. */
static int
attach_and_end(void *context)
{
    struct traffic *traffic = context;
    for (int i = 0; i < ROUNDS;) {
        struct pshm_object object;
        bool over = atomic_load(&traffic->over);
        int rc = pshm_attach(&traffic->name, false, &PSHM_ACCEPT_ANY,
                             &object);
        if (rc == -ENOENT) {
            if (over) {
                break;
            }
            (void)sched_yield();
            continue;
        }
        CHECK_IS(rc, 0);
        if (!object.last && atomic_load(&traffic->late)) {
            (void)close(object.fd);
            break;
        }
        CHECK(object.last);
        CHECK(pshm_identity_same(identity_of(&traffic->name), object.id));
        (void)end_in_traffic(traffic, object.id, object.fd);
        i++;
    }
    return 0;
}

/* If each process finds the mark, the last one removes the name. On a busy
 * machine a process may take longer than the others wait; such a round shows
 * nothing. */
static void
no_process_misses_the_mark(void)
{
    struct traffic *traffic = shared_memory(sizeof(*traffic));
    int rounds_in_time = 0;
    traffic->name = name_of("object");
    for (int round = 0; round < 20; round++) {
        pid_t children[PROCESSES];
        atomic_store(&traffic->over, false);
        atomic_store(&traffic->late, false);
        for (int i = 0; i < PROCESSES; i++) {
            children[i] = child_start(attach_and_end, traffic);
        }
        struct pshm_name made = name_of("made");
        struct pshm_identity id = make_plain(&made, 10, 0600, 0);
        int fd = open(made.path, O_RDWR | O_CLOEXEC);
        CHECK_IS(pshm_mark_set(fd), 0);
        CHECK(rename(made.path, traffic->name.path) == 0);
        (void)end_in_traffic(traffic, id, fd);
        atomic_store(&traffic->over, true);
        for (int i = 0; i < PROCESSES; i++) {
            CHECK_IS(child_wait(children[i]), 0);
        }
        if (atomic_load(&traffic->late)) {
            (void)unlink(traffic->name.path);
            continue;
        }
        rounds_in_time++;
        CHECK_IS(names_with(prefix()), 0);
    }
    CHECK(rounds_in_time > 0);
    CHECK(munmap(traffic, sizeof(*traffic)) == 0);
}

/* ---- obstacles ---- */

static void
mark_needs_a_free_byte(void)
{
    struct pshm_name name = name_of("object");
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET,
                        .l_start = (off_t)1 << 62};
    (void)make_plain(&name, 10, 0600, 0);
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    int other = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK(fcntl(other, F_OFD_SETLK, &all) == 0);
    CHECK_IS(pshm_mark_set(fd), -EAGAIN);
    (void)close(other);
    CHECK_IS(pshm_mark_set(fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

static void
replace_it(void *context)
{
    remove_plain(context);
    (void)make_plain(context, 10, 0600, 0);
}

static void
object_that_cannot_be_opened_again_keeps_its_name(void)
{
    static const struct {
        const char *call;
        int action, rc;
    } faults[] = {{"shm_open", PSHM_FAULT_FAIL, 0},
                  {"shm_open", PSHM_FAULT_FAIL_ON, -ESTALE},
                  {"fstat", PSHM_FAULT_FAIL, -ESTALE},
                  {"shm_open", PSHM_FAULT_HOOK_BEFORE, -ESTALE}};
    struct pshm_name name = name_of("object");
    for (size_t i = 0; i < COUNT(faults); i++) {
        check_about("case %zu", i);
        struct pshm_identity id = make_plain(&name, 10, 0600, 0);
        int fd = attach(&name, false);
        pshm_fault_hook(replace_it, &name);
        pshm_fault_arm(faults[i].call, 1, faults[i].action, EACCES);
        CHECK_IS(end(&name, id, fd), faults[i].rc);
        (void)pshm_fault_disarm();
        CHECK_IS(names_with(prefix()), faults[i].rc < 0);
        remove_plain(&name);
    }
}

/* Close a descriptor without a use lock, as of a process that inspects the
 * object. */
static void
close_it(void *context)
{
    CHECK(close(*(int *)context) == 0);
}

static void
process_that_inspects_it_is_waited_for(void)
{
    struct pshm_name name = name_of("object");
    for (int remains = 0; remains < 2; remains++) {
        struct pshm_identity id = make_plain(&name, 10, 0600, 0);
        int fd = attach(&name, false);
        int other = open(name.path, O_RDONLY | O_CLOEXEC);
        pshm_fault_hook(close_it, &other);
        pshm_fault_arm("clock_nanosleep", remains ? 0 : 1,
                       PSHM_FAULT_HOOK_BEFORE, 0);
        CHECK_IS(end(&name, id, fd), remains ? -EBUSY : 0);
        CHECK(pshm_fault_disarm() >= 1);
        if (remains) {
            (void)close(other);
            remove_plain(&name);
        }
        CHECK_IS(names_with(prefix()), 0);
    }
}

static void
process_that_is_ending_is_waited_for(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    int fd = attach(&name, false);
    int other = open(name.path, O_RDWR | O_CLOEXEC);
    /* The byte of a process with another pid. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET,
                         .l_start = (off_t)1 << 62, .l_len = 1};
    CHECK(fcntl(other, F_OFD_SETLK, &lock) == 0);
    pshm_fault_hook(close_it, &other);
    pshm_fault_arm("clock_nanosleep", 2, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_last_leave(fd, true, &name, id), 0);
    CHECK(pshm_fault_disarm() >= 2);    /* more if another process holds the
                                           name lock */
    CHECK_IS(names_with(prefix()), 0);
    (void)close(fd);
}

static void
failed_search_for_other_processes_keeps_the_name(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    int fd = attach(&name, false);
    pshm_fault_arm("opendir", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(pshm_last_leave(fd, false, &name, id), -EMFILE);
    (void)pshm_fault_disarm();
    CHECK_IS(names_with(prefix()), 1);
    (void)close(fd);
    remove_plain(&name);
}

int
main(void)
{
    RUN(mark_is_inherited_while_it_exists);
    RUN(reader_sets_no_mark);
    RUN(marks_of_other_processes_are_distinguished);
    RUN(marks_of_many_open_files);
    RUN(process_leaves_the_name_to_the_other);
    RUN(one_of_two_ending_processes_waits);
    RUN(no_process_misses_the_mark);
    RUN(mark_needs_a_free_byte);
    RUN(object_that_cannot_be_opened_again_keeps_its_name);
    RUN(process_that_inspects_it_is_waited_for);
    RUN(process_that_is_ending_is_waited_for);
    RUN(failed_search_for_other_processes_keeps_the_name);
    return finish();
}
