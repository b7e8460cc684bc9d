#include "check.h"
#include "posix/object/attach.h"
#include "posix/object/use_lock.h"
#include "posix/object/reclaim.h"

#include <sys/file.h>

/* ---- results for existing objects ---- */

static void
object_is_found_and_described(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 5000, 0640, 0);
    for (int readonly = 0; readonly < 2; readonly++) {
        struct pshm_object object;
        CHECK_IS(pshm_attach(&name, readonly, &PSHM_ACCEPT_ANY, &object), 0);
        CHECK(object.fd > 2);
        CHECK(pshm_identity_same(object.id, id));
        CHECK_IS(object.size, 5000);
        CHECK_IS(object.mode, S_IFREG | 0640);
        CHECK_IS(fcntl(object.fd, F_GETFD), FD_CLOEXEC);
        CHECK_IS(fcntl(object.fd, F_GETFL) & O_ACCMODE,
                 readonly ? O_RDONLY : O_RDWR);
        /* a process holds a write lease on it */
        int other = open(name.path, O_RDWR | O_CLOEXEC);
        CHECK_IS(pshm_use_lock_try_exclusive(other), -EAGAIN);
        (void)close(other);
        (void)close(object.fd);
    }
    remove_plain(&name);
}

static void
descriptor_of_the_caller_is_described(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 7, 0600, 0);
    struct pshm_object object;
    int fd = open(name.path, O_RDONLY | O_CLOEXEC);
    CHECK_IS(pshm_attach_inspect(fd, &object), 0);
    CHECK_IS(object.fd, fd);
    CHECK_IS(object.size, 7);
    CHECK(pshm_identity_same(object.id, id));
    CHECK(truncate(name.path, 0) == 0);
    CHECK_IS(pshm_attach_inspect(fd, &object), -ENODATA);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    (void)close(fd);
    remove_plain(&name);
    CHECK_IS(pshm_attach_inspect(fd, &object), -EBADF);

    fd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_IS(pshm_attach_inspect(fd, &object), -EISDIR);
    (void)close(fd);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK_IS(pshm_attach_inspect(ends[0], &object), -EINVAL);
    CHECK_IS(object.mode & S_IFMT, S_IFIFO);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- locks of other processes ---- */

/* The attach continues without a use lock, and the result says so. */
static void
exclusive_lock_does_not_prevent_an_attach(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0666, 0);
    struct pshm_object object;
    int hostile = open(name.path, O_RDONLY | O_CLOEXEC);
    for (int locked = 0; locked < 2; locked++) {
        CHECK(flock(hostile, locked ? LOCK_UN : LOCK_EX) == 0);
        for (int readonly = 0; readonly < 2; readonly++) {
            CHECK_IS(pshm_attach(&name, readonly, &PSHM_ACCEPT_ANY, &object),
                     0);
            CHECK_IS(object.locked, locked);
            (void)close(object.fd);
        }
    }
    (void)close(hostile);
    remove_plain(&name);
}

/* ---- each call fails ---- */

struct attempt {
    struct pshm_name name;
    bool readonly;
    struct pshm_object object;
};

static int
attempt_attach(void *context)
{
    struct attempt *attempt = context;
    int rc = pshm_attach(&attempt->name, attempt->readonly, &PSHM_ACCEPT_ANY,
                         &attempt->object);
    if (rc < 0) {
        CHECK_IS(attempt->object.fd, -1);
    }
    return rc;
}

static void
undo_attach(void *context)
{
    struct attempt *attempt = context;
    (void)close(attempt->object.fd);
}

static void
each_failure_is_returned(void)
{
    struct attempt attempt = {.name = name_of("object")};
    struct operation op = {
        .name = "attach", .act = attempt_attach, .undo = undo_attach,
        .context = &attempt, .resumes = true,
        .overcomes = " fcntl "};            /* the check for the mark */
    struct pshm_identity id = make_plain(&attempt.name, 1, 0600, 0);
    CHECK(fail_each(&op) >= 4);
    attempt.readonly = true;
    CHECK(fail_each(&op) >= 4);
    CHECK(pshm_identity_same(identity_of(&attempt.name), id));

    remove_plain(&attempt.name);
}

/* ---- a death at each step ---- */

static void
death_at_each_step_leaves_the_object(void)
{
    for (int i = 0; i < 4; i++) {
        int action = i & 1 ? PSHM_FAULT_KILL_AFTER : PSHM_FAULT_KILL_BEFORE;
        struct attempt attempt = {.name = name_of("object"),
                                  .readonly = i & 2};
        const struct pshm_name *name = &attempt.name;
        struct stat before, after;
        bool killed = true;
        (void)make_plain(name, 5000, 0640, 'x');
        CHECK(lstat(name->path, &before) == 0);
        for (int nth = 1; killed; nth++) {
            check_about("options %d, killed at call %d", i, nth);
            killed = child_killed_at(nth, action, attempt_attach, &attempt);
            CHECK(lstat(name->path, &after) == 0);
            CHECK(before.st_ino == after.st_ino);
            CHECK(before.st_size == after.st_size);
            CHECK(before.st_mode == after.st_mode);
            CHECK(before.st_nlink == after.st_nlink);
            CHECK(before.st_ctim.tv_sec == after.st_ctim.tv_sec
                  && before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
            int fd = open(name->path, O_RDWR | O_CLOEXEC);
            CHECK_IS(pshm_use_lock_try_exclusive(fd), 0);
            (void)close(fd);
        }
        remove_plain(name);
    }
}

/* ---- the name changes at each step ---- */

enum change { REMOVED, REPLACED, EMPTIED, DIRECTORY, LINK, CHANGES };

struct swap {
    struct pshm_name name, other;
    enum change change;
};

static void
swap_the_name(void *context)
{
    const struct swap *swap = context;
    if (swap->change == EMPTIED) {
        CHECK(truncate(swap->name.path, 0) == 0);
        return;
    }
    remove_plain(&swap->name);
    switch (swap->change) {
    case REPLACED:
        CHECK(link(swap->other.path, swap->name.path) == 0);
        break;
    case DIRECTORY:
        CHECK(mkdir(swap->name.path, 0700) == 0);
        break;
    case LINK:
        CHECK(symlink(swap->other.path, swap->name.path) == 0);
        break;
    default:
        break;
    }
}

static void
clear_name(const struct pshm_name *name)
{
    if (unlink(name->path) < 0 && errno == EISDIR) {
        (void)rmdir(name->path);
    }
}

/* Check a result of an attach during which the name changed. It may be the old
 * object if the last check was before the change, and the state after the
 * change otherwise; but never an object that did not have the name at the last
 * check. */
static void
check_outcome(const struct swap *swap, int rc, const struct pshm_object *got,
              bool was_last)
{
    static const int refusals[CHANGES] = {
        [REMOVED] = -ENOENT, [REPLACED] = 0, [EMPTIED] = -ENODATA,
        [DIRECTORY] = -EISDIR, [LINK] = -ELOOP};
    if (was_last) {
        CHECK_IS(rc, 0);
        return;
    }
    CHECK_IS(rc, refusals[swap->change]);
    if (rc == 0) {
        CHECK(pshm_identity_same(got->id, identity_of(&swap->other)));
        CHECK_IS(got->size, 2);
    }
}

static void
name_may_change_at_each_step(void)
{
    struct swap swap = {name_of("object"), name_of("other"), REMOVED};
    struct census before = census_take();
    for (int change = REMOVED; change < CHANGES; change++) {
        swap.change = (enum change)change;
        bool too_late = false;
        for (int nth = 1; !too_late; nth++) {
            (void)make_plain(&swap.name, 1, 0600, 0);
            (void)make_plain(&swap.other, 2, 0600, 0);
            check_about("change %d before call %d", change, nth);
            struct pshm_object object;
            pshm_fault_hook(swap_the_name, &swap);
            pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
            int rc = pshm_attach(&swap.name, false, &PSHM_ACCEPT_ANY, &object);
            too_late = pshm_fault_disarm() < nth;
            check_outcome(&swap, rc, &object, too_late);
            if (rc == 0) {
                (void)close(object.fd);
            }
            clear_name(&swap.name);
            clear_name(&swap.other);
            CHECK_NOTHING_LEFT(before);
        }
    }
}

static struct pshm_name restless;

static void
replace_again(void *context)
{
    (void)context;
    remove_plain(&restless);
    (void)make_plain(&restless, 1, 0600, 0);
    pshm_fault_arm("flock", 1, PSHM_FAULT_HOOK_BEFORE, 0);
}

static void
name_that_keeps_changing_ends_in_eagain(void)
{
    struct pshm_object object;
    restless = name_of("restless");
    (void)make_plain(&restless, 1, 0600, 0);
    pshm_fault_hook(replace_again, NULL);
    pshm_fault_arm("flock", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_attach(&restless, false, &PSHM_ACCEPT_ANY, &object),
             -EAGAIN);
    (void)pshm_fault_disarm();
    CHECK_IS(object.fd, -1);
    remove_plain(&restless);
}

/* The name is removed before the first attempt, and exists again at the next
 * one. */
static void
recreate_it(void *context)
{
    const struct swap *swap = context;
    CHECK(link(swap->other.path, swap->name.path) == 0);
}

static void
remove_it_until_the_next_attempt(void *context)
{
    struct swap *swap = context;
    remove_plain(&swap->name);
    pshm_fault_hook(recreate_it, swap);
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_HOOK_BEFORE, 0);
}

static void
name_that_was_removed_and_recreated_is_found(void)
{
    struct swap swap = {name_of("object"), name_of("other"), REPLACED};
    struct pshm_object object;
    (void)make_plain(&swap.name, 1, 0600, 0);
    (void)make_plain(&swap.other, 2, 0600, 0);
    pshm_fault_hook(remove_it_until_the_next_attempt, &swap);
    pshm_fault_arm("flock", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_attach(&swap.name, false, &PSHM_ACCEPT_ANY, &object), 0);
    (void)pshm_fault_disarm();
    CHECK(pshm_identity_same(object.id, identity_of(&swap.other)));
    (void)close(object.fd);
    remove_plain(&swap.name);
    remove_plain(&swap.other);
}

/* ---- reclaiming at each step of an attach, and the reverse ---- */

struct meeting {
    struct pshm_name name;
    int attached;
    struct pshm_object object;
    bool removed;
    bool readonly;
};

static bool
reclaim_it(const struct pshm_name *name)
{
    struct pshm_candidate candidate;
    pshm_reclaim(pshm_name_plain(name), 0, true, &candidate);
    return candidate.removed;
}

static void
meet_reclaim(void *context)
{
    struct meeting *meeting = context;
    meeting->removed = reclaim_it(&meeting->name);
}

static void
meet_attach(void *context)
{
    struct meeting *meeting = context;
    meeting->attached = pshm_attach(&meeting->name, meeting->readonly,
                                    &PSHM_ACCEPT_ANY, &meeting->object);
}

/* Either the object is attached and has its name, or it was removed. */
static void
check_meeting(struct meeting *meeting)
{
    if (meeting->attached == 0) {
        struct stat st;
        CHECK(fstat(meeting->object.fd, &st) == 0);
        CHECK_IS(st.st_nlink, 1);
        CHECK(pshm_identity_same(identity_of(&meeting->name),
                                 meeting->object.id));
        CHECK(!meeting->removed);
        (void)close(meeting->object.fd);
    }
    else {
        /* -EAGAIN: the reclaimer was stopped while it held its write lease. */
        CHECK(meeting->attached == -ENOENT || meeting->attached == -EAGAIN);
        /* The next attach finds the object, or that its name was removed. */
        struct pshm_object object;
        int rc = pshm_attach(&meeting->name, meeting->readonly,
                             &PSHM_ACCEPT_ANY, &object);
        CHECK_IS(rc, meeting->removed ? -ENOENT : 0);
        if (rc == 0) {
            (void)close(object.fd);
        }
    }
    remove_plain(&meeting->name);
}

static void
reclaim_at_each_step_of_attach(void)
{
    struct meeting meeting = {.name = name_of("object")};
    struct census before = census_take();
    for (int nth = 1, seen = nth; nth <= seen; nth++) {
        (void)make_plain(&meeting.name, 1, 0600, 0);
        check_about("reclaimed before call %d of attach", nth);
        meeting.removed = false;
        pshm_fault_hook(meet_reclaim, &meeting);
        pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
        meet_attach(&meeting);
        seen = pshm_fault_disarm();
        check_meeting(&meeting);
        CHECK_NOTHING_LEFT(before);
    }
}

/* mode: the permissions of the object. */
static void
check_attach_at_each_step(struct meeting *meeting, mode_t mode)
{
    struct census before = census_take();
    for (int nth = 1, seen = nth; nth <= seen; nth++) {
        (void)make_plain(&meeting->name, 1, mode, 0);
        check_about("attach before call %d of reclaim, mode %o", nth, mode);
        meeting->attached = -ENOENT;
        pshm_fault_hook(meet_attach, meeting);
        pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
        meet_reclaim(meeting);
        seen = pshm_fault_disarm();
        check_meeting(meeting);
        CHECK_NOTHING_LEFT(before);
    }
}

static void
attach_at_each_step_of_reclaim(void)
{
    struct meeting meeting = {.name = name_of("object")};
    check_attach_at_each_step(&meeting, 0600);
}

static int
check_attach_as_nobody(void *context)
{
    struct meeting *meeting = context;
    if (become_nobody() != 0) {
        return CANNOT;
    }
    check_attach_at_each_step(meeting, 0600);
    check_attach_at_each_step(meeting, 0400);
    return 0;
}

static void
attach_at_each_step_of_an_unprivileged_reclaim(void)
{
    struct meeting meeting = {.name = name_of("object"), .readonly = true};
    CHECK_IN_CHILD(check_attach_as_nobody, &meeting, "cannot change the user");
}

/* ---- accepted owners ---- */

static void
only_added_owners_are_accepted(void)
{
    struct pshm_owners owners = pshm_owners_self();
    int most = PSHM_OWNERS_MAX - owners.count;
    CHECK(pshm_owners_accept(&owners, geteuid()));
    CHECK(pshm_owners_accept(&owners, 0));
    CHECK(!pshm_owners_accept(&owners, 70000));
    CHECK(pshm_owners_accept(&PSHM_OWNERS_ANY, 70000));
    for (int i = 0; i < most; i++) {
        CHECK_IS(pshm_owners_add(&owners, (uid_t)(70000 + i)), 0);
        CHECK_IS(pshm_owners_add(&owners, 70000), 0);
    }
    CHECK(pshm_owners_accept(&owners, 70000));
    CHECK_IS(pshm_owners_add(&owners, 71000), -E2BIG);
    CHECK(!pshm_owners_accept(&owners, 71000));
    CHECK_IS(pshm_owners_add(&owners, 70000), 0);
}

static void
truncate_it(void *context)
{
    const struct pshm_name *name = context;
    CHECK(truncate(name->path, 0) == 0);
}

static void
object_truncated_during_an_attach_is_refused(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_object object;
    (void)make_plain(&name, 9, 0600, 0);
    pshm_fault_hook(truncate_it, &name);
    pshm_fault_arm("flock", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_attach(&name, false, &PSHM_ACCEPT_ANY, &object), -ENODATA);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(object.fd, -1);
    remove_plain(&name);
}

/* The file may have been removed before its kind is determined. */
static void
error_for_a_removed_file_does_not_change(void)
{
    struct pshm_name name = name_of("absent");
    mode_t mode = 0;
    CHECK_IS(pshm_attach_refusal(&name, -ENXIO, &mode), -ENXIO);
    (void)make_plain(&name, 9, 0600, 0);
    CHECK_IS(pshm_attach_refusal(&name, -EACCES, &mode), -EACCES);
    CHECK_IS(mode, 0);
    remove_plain(&name);
}

/* ---- the raw call ---- */

static void
errors_of_the_raw_call_are_returned(void)
{
    struct pshm_name name = name_of("raw");
    mode_t kind;
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
    RUN(object_is_found_and_described);
    RUN(descriptor_of_the_caller_is_described);
    RUN(exclusive_lock_does_not_prevent_an_attach);
    RUN(each_failure_is_returned);
    RUN(death_at_each_step_leaves_the_object);
    RUN(name_may_change_at_each_step);
    RUN(name_that_was_removed_and_recreated_is_found);
    RUN(name_that_keeps_changing_ends_in_eagain);
    RUN(reclaim_at_each_step_of_attach);
    RUN(attach_at_each_step_of_reclaim);
    RUN(attach_at_each_step_of_an_unprivileged_reclaim);
    RUN(only_added_owners_are_accepted);
    RUN(object_truncated_during_an_attach_is_refused);
    RUN(error_for_a_removed_file_does_not_change);
    RUN(errors_of_the_raw_call_are_returned);
    return finish();
}
