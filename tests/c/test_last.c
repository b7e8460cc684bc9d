#include "check.h"
#include "peers.h"
#include "posix/object/attach.h"
#include "posix/object/last.h"
#include "posix/object/use_lock.h"
#include "posix/object/mark.h"
#include "posix/clock.h"

#include <sched.h>
#include <stdatomic.h>

static int
attach(const struct pshm_name *name, bool *last)
{
    struct pshm_object object;
    CHECK_IS(pshm_attach(name, false, &PSHM_ACCEPT_ANY, &object), 0);
    *last = object.last;
    return object.fd;
}

/* As a process that has unmapped the object. */
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
mark_is_inherited_as_long_as_it_lasts(void)
{
    struct pshm_name name = name_of("object");
    bool last;
    (void)make_plain(&name, 10, 0600, 0);
    int first = attach(&name, &last);
    CHECK(!last);
    CHECK_IS(pshm_mark_set(first), 0);
    CHECK(!pshm_mark_seen(first));      /* that is its own */
    int second = attach(&name, &last);
    CHECK(last);
    CHECK(pshm_mark_seen(first));
    (void)close(first);
    CHECK(!pshm_mark_seen(second));
    int third = attach(&name, &last);
    CHECK(last);
    (void)close(second);
    (void)close(third);
    third = attach(&name, &last);
    CHECK(!last);
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

/* A process that ends waits for the marks of others, not for its own. */
static void
mark_of_another_process_is_told_from_its_own(void)
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

/* The byte of a descriptor may be that of an open file which a forked child
 * still has. */
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

/* ---- the last one ---- */

static void
last_one_removes_the_name(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    bool last;
    int first = attach(&name, &last);
    CHECK_IS(pshm_mark_set(first), 0);
    int second = attach(&name, &last);
    CHECK_IS(end(&name, id, first), -EBUSY);
    CHECK_IS(names_with(prefix()), 1);
    CHECK_IS(end(&name, id, second), 0);
    CHECK_IS(names_with(prefix()), 0);
    CHECK_IS(end(&name, id, -1), -ESTALE);
}

static void
name_of_another_object_stays(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    bool last;
    int fd = attach(&name, &last);
    remove_plain(&name);
    (void)make_plain(&name, 20, 0600, 0);
    CHECK_IS(pshm_last_leave(fd, true, &name, id), -ESTALE);
    CHECK_IS(end(&name, id, fd), -ESTALE);
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&name);
}

static void
process_that_ends_leaves_it_to_the_other(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    bool last;
    int first = attach(&name, &last);
    CHECK_IS(pshm_mark_set(first), 0);
    int second = attach(&name, &last);
    CHECK_IS(pshm_last_leave(first, true, &name, id), -EBUSY);
    CHECK(!pshm_use_lock_is_shared(second));  /* it has no use lock any more */
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

/* In the first pause: between two checks, or for the name lock, before them. */
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
    bool last;
    int fd = attach(&both->name, &last);
    CHECK_IS(pshm_mark_set(fd), 0);
    (void)atomic_fetch_add(&both->attached, 1);
    await(&both->other_attaches, 1);
    pshm_fault_hook(let_the_other_leave, both);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_last_leave(fd, true, &both->name, both->id), 0);
    (void)pshm_fault_disarm();
    return 0;
}

/* The child waits for the parent, which has the object open, but not yet a use
 * lock when the child checks. Then the parent takes one, and must not wait for
 * the child. */
static void
of_two_that_end_one_waits(void)
{
    struct end *both = shared_memory(sizeof(*both));
    bool last;
    both->name = name_of("object");
    both->id = make_plain(&both->name, 10, 0600, 0);
    pid_t child = child_start(end_while_another_attaches, both);
    await(&both->attached, 1);
    int fd = attach(&both->name, &last);
    CHECK(last);
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

static int
wait_to_be_killed(void *context)
{
    (void)context;
    (void)raise(SIGSTOP);
    return 0;
}

static void
forked_child_is_seen(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    bool last;
    int fd = attach(&name, &last);
    pid_t child = child_start(wait_to_be_killed, NULL);
    child_wait_stopped(child);
    CHECK_IS(pshm_last_leave(fd, false, &name, id), -EBUSY);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK_IS(child_wait(child), -SIGKILL);
    CHECK_IS(pshm_last_leave(fd, false, &name, id), 0);
    (void)close(fd);
    CHECK_IS(names_with(prefix()), 0);
}

/* ---- processes that come and go ---- */

enum { PROCESSES = 4, ROUNDS = 300 };

struct traffic {
    struct pshm_name name;
    atomic_bool over;                   /* the first process does not use it */
};

/* Until the last one has removed the name. */
static int
come_and_go(void *context)
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
        CHECK(object.last);
        CHECK(pshm_identity_same(identity_of(&traffic->name), object.id));
        rc = end(&traffic->name, object.id, object.fd);
        CHECK(rc == 0 || rc == -EBUSY);
        i++;
    }
    return 0;
}

/* Each of them finds the mark, so that the name is gone in the end. */
static void
no_process_misses_the_mark(void)
{
    struct traffic *traffic = shared_memory(sizeof(*traffic));
    traffic->name = name_of("object");
    for (int round = 0; round < 20; round++) {
        pid_t children[PROCESSES];
        atomic_store(&traffic->over, false);
        for (int i = 0; i < PROCESSES; i++) {
            children[i] = child_start(come_and_go, traffic);
        }
        struct pshm_name made = name_of("made");
        struct pshm_identity id = make_plain(&made, 10, 0600, 0);
        int fd = open(made.path, O_RDWR | O_CLOEXEC);
        CHECK_IS(pshm_mark_set(fd), 0);
        CHECK(rename(made.path, traffic->name.path) == 0);
        int rc = end(&traffic->name, id, fd);
        CHECK(rc == 0 || rc == -EBUSY);
        atomic_store(&traffic->over, true);
        for (int i = 0; i < PROCESSES; i++) {
            CHECK_IS(child_wait(children[i]), 0);
        }
        CHECK_IS(names_with(prefix()), 0);
    }
    CHECK(munmap(traffic, sizeof(*traffic)) == 0);
}

/* ---- what is in the way ---- */

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
        bool last;
        struct pshm_identity id = make_plain(&name, 10, 0600, 0);
        int fd = attach(&name, &last);
        pshm_fault_hook(replace_it, &name);
        pshm_fault_arm(faults[i].call, 1, faults[i].action, EACCES);
        CHECK_IS(end(&name, id, fd), faults[i].rc);
        (void)pshm_fault_disarm();
        CHECK_IS(names_with(prefix()), faults[i].rc < 0);
        remove_plain(&name);
    }
}

/* It has the object open without a use lock, as if to inspect it. */
static void
close_it(void *context)
{
    CHECK(close(*(int *)context) == 0);
}

static void
process_that_inspects_it_is_waited_for(void)
{
    struct pshm_name name = name_of("object");
    for (int stays = 0; stays < 2; stays++) {
        bool last;
        struct pshm_identity id = make_plain(&name, 10, 0600, 0);
        int fd = attach(&name, &last);
        int other = open(name.path, O_RDONLY | O_CLOEXEC);
        pshm_fault_hook(close_it, &other);
        pshm_fault_arm("clock_nanosleep", stays ? 0 : 1,
                       PSHM_FAULT_HOOK_BEFORE, 0);
        CHECK_IS(end(&name, id, fd), stays ? -EBUSY : 0);
        CHECK(pshm_fault_disarm() >= 1);
        if (stays) {
            (void)close(other);
            remove_plain(&name);
        }
        CHECK_IS(names_with(prefix()), 0);
    }
}

static void
process_that_ends_meanwhile_is_waited_for(void)
{
    struct pshm_name name = name_of("object");
    bool last;
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    int fd = attach(&name, &last);
    int other = open(name.path, O_RDWR | O_CLOEXEC);
    /* The byte of a process with another pid. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET,
                         .l_start = (off_t)1 << 62, .l_len = 1};
    CHECK(fcntl(other, F_OFD_SETLK, &lock) == 0);
    pshm_fault_hook(close_it, &other);
    pshm_fault_arm("clock_nanosleep", 2, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_last_leave(fd, true, &name, id), 0);
    CHECK(pshm_fault_disarm() >= 2);    /* more if the name lock is taken */
    CHECK_IS(names_with(prefix()), 0);
    (void)close(fd);
}

static void
relatives_that_cannot_be_looked_for_keep_the_name(void)
{
    struct pshm_name name = name_of("object");
    bool last;
    struct pshm_identity id = make_plain(&name, 10, 0600, 0);
    int fd = attach(&name, &last);
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
    RUN(mark_is_inherited_as_long_as_it_lasts);
    RUN(reader_sets_no_mark);
    RUN(mark_of_another_process_is_told_from_its_own);
    RUN(marks_of_many_open_files);
    RUN(last_one_removes_the_name);
    RUN(name_of_another_object_stays);
    RUN(process_that_ends_leaves_it_to_the_other);
    RUN(of_two_that_end_one_waits);
    RUN(forked_child_is_seen);
    RUN(no_process_misses_the_mark);
    RUN(mark_needs_a_free_byte);
    RUN(object_that_cannot_be_opened_again_keeps_its_name);
    RUN(process_that_inspects_it_is_waited_for);
    RUN(process_that_ends_meanwhile_is_waited_for);
    RUN(relatives_that_cannot_be_looked_for_keep_the_name);
    return finish();
}
