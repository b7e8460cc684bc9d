#include "check.h"
#include "posix/object/attach.h"
#include "posix/object/new_object.h"
#include "posix/object/unused.h"

static int
hold(const struct pshm_name *name)
{
    struct pshm_unused unused;
    int rc = pshm_unused_hold(name, &unused);
    if (rc == 0) {
        CHECK(pshm_identity_same(identity_of(name), unused.id));
        CHECK_IS(unused.uid, geteuid());
        pshm_unused_release(&unused);
    }
    return rc;
}

/* ---- the proof ---- */

static void
held_object_cannot_be_opened(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_unused unused;
    (void)make_plain(&name, 10, 0600, 0);
    CHECK_IS(pshm_unused_hold(&name, &unused), 0);
    CHECK_IS(open(name.path, O_RDONLY | O_NONBLOCK), -1);
    CHECK_IS(errno, EAGAIN);
    pshm_unused_release(&unused);
    pshm_unused_release(&unused);       /* nothing is held now */
    int fd = open(name.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(fd >= 0);
    (void)close(fd);
    remove_plain(&name);
}

static void
object_in_use_is_busy(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_object object;
    CHECK_IS(hold(&name), -ENOENT);
    (void)make_plain(&name, (off_t)PAGE, 0600, 0);
    CHECK_IS(hold(&name), 0);
    CHECK_IS(pshm_attach(&name, false, &PSHM_ACCEPT_ANY, &object), 0);
    CHECK_IS(hold(&name), -EBUSY);
    (void)close(object.fd);
    CHECK_IS(hold(&name), 0);
    /* without a use lock */
    int fd = open(name.path, O_RDONLY | O_CLOEXEC);
    CHECK_IS(hold(&name), -EBUSY);
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    CHECK_IS(hold(&name), -EBUSY);
    CHECK(munmap(base, PAGE) == 0);
    CHECK_IS(hold(&name), 0);
    remove_plain(&name);
}

static void
other_files_are_unknown(void)
{
    struct pshm_name name = name_of("thing");
    CHECK(mkdir(name.path, 0700) == 0);
    CHECK_IS(hold(&name), -EPERM);
    CHECK(rmdir(name.path) == 0);
    CHECK(symlink("/dev/null", name.path) == 0);
    CHECK_IS(hold(&name), -ELOOP);
    remove_plain(&name);
}

/* A child that was forked while the write lease was held has a copy of the
 * descriptor. */
static void
write_lease_ends_although_a_child_has_the_descriptor(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_unused unused;
    (void)make_plain(&name, 10, 0600, 0);
    CHECK_IS(pshm_unused_hold(&name, &unused), 0);
    pid_t child = child_start_stopped(stop_itself, NULL);
    pshm_unused_release(&unused);
    int fd = open(name.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(fd >= 0);
    (void)close(fd);
    child_kill(child);
    CHECK_IS(hold(&name), 0);
    remove_plain(&name);
}

/* ---- a new object takes the name ---- */

static struct pshm_new_object
new_object(const struct pshm_name *name, bool by_temporary_name)
{
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    const struct pshm_new_object_params params = {
        .kind = PSHM_NAMED,
        .name = name,
        .temporary = by_temporary_name,
        .size = 100,
        .mode = 0600,
        .uid = (uid_t)-1,
        .gid = (gid_t)-1,
    };
    CHECK_IS(pshm_new_object_make(&params, &go_on, &new), 0);
    return new;
}

static void
new_object_replaces_the_old_one(void)
{
    for (int i = 0; i < 4; i++) {
        bool unused = i & 1;
        struct pshm_name name = name_of("object");
        struct pshm_new_object new = new_object(&name, i & 2);
        check_about("unused %d, temporary name %d", unused, i & 2);
        CHECK_IS(pshm_new_object_replace(&new, &name, unused), 0);
        CHECK(pshm_identity_same(identity_of(&name), new.id));
        struct pshm_new_object next = new_object(&name, i & 2);
        if (unused) {
            CHECK_IS(pshm_new_object_replace(&next, &name, true), -EEXIST);
            CHECK(pshm_identity_same(identity_of(&name), new.id));
            pshm_new_object_discard(&new);
        }
        CHECK_IS(pshm_new_object_replace(&next, &name, unused), 0);
        CHECK(pshm_identity_same(identity_of(&name), next.id));
        CHECK_IS(names_with(prefix()), 1);
        pshm_new_object_discard(&new);
        pshm_new_object_discard(&next);
        CHECK_IS(names_with(prefix()), 1);
        remove_plain(&name);
    }
}

static void
failed_replace_leaves_no_name(void)
{
    for (int i = 0; i < 2; i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object new = new_object(&name, i);
        CHECK(mkdir(name.path, 0700) == 0);
        CHECK_IS(pshm_new_object_replace(&new, &name, false), -EISDIR);
        pshm_new_object_discard(&new);
        CHECK(rmdir(name.path) == 0);
        CHECK_IS(names_with(prefix()), 0);
    }
}

/* ---- processes at the same time ---- */

enum { PROCESSES = 4, ROUNDS = 300 };

/* Replace the object if no process uses it, or attach to it. Either object
 * must keep the name while it is in use. */
static int
replace_or_attach(void *context)
{
    const struct pshm_name *name = context;
    for (int i = 0; i < ROUNDS; i++) {
        struct pshm_new_object new = new_object(name, false);
        struct pshm_object object;
        int rc = pshm_new_object_replace(&new, name, true);
        if (rc == -EEXIST) {
            pshm_new_object_discard(&new);
            rc = pshm_attach(name, false, &PSHM_ACCEPT_ANY, &object);
            CHECK_IS(rc, 0);
            CHECK(pshm_identity_same(identity_of(name), object.id));
            (void)close(object.fd);
        }
        else {
            CHECK_IS(rc, 0);
            CHECK(pshm_identity_same(identity_of(name), new.id));
            pshm_new_object_discard(&new);
        }
    }
    return 0;
}

static void
object_in_use_keeps_its_name(void)
{
    struct pshm_name name = name_of("object");
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = child_start(replace_or_attach, &name);
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_IS(child_wait(children[i]), 0);
    }
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&name);
}

static void
replace_it(void *context)
{
    remove_plain(context);
    (void)make_plain(context, 20, 0600, 0);
}

static void
changed_name_is_tried_again(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 10, 0600, 0);
    pshm_fault_hook(replace_it, &name);
    pshm_fault_arm("lstat", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(hold(&name), 0);
    CHECK(pshm_fault_disarm() > 1);
    remove_plain(&name);
}

static void
each_failure_is_returned(void)
{
    static const struct {
        const char *call;
        int err, rc;
    } faults[] = {{"fstat", EIO, -EIO}, {"lstat", EIO, -EIO},
                  {"fcntl", EINVAL, -EPERM}, {"shm_open", EMFILE, -EMFILE}};
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 10, 0600, 0);
    struct census before = census_take();
    for (size_t i = 0; i < COUNT(faults); i++) {
        check_about("%s", faults[i].call);
        pshm_fault_arm(faults[i].call, 1, PSHM_FAULT_FAIL, faults[i].err);
        CHECK_IS(hold(&name), faults[i].rc);
        (void)pshm_fault_disarm();
        CHECK_NOTHING_LEFT(before);
    }
    remove_plain(&name);
}

int
main(void)
{
    RUN(held_object_cannot_be_opened);
    RUN(object_in_use_is_busy);
    RUN(other_files_are_unknown);
    RUN(write_lease_ends_although_a_child_has_the_descriptor);
    RUN(new_object_replaces_the_old_one);
    RUN(failed_replace_leaves_no_name);
    RUN(object_in_use_keeps_its_name);
    RUN(changed_name_is_tried_again);
    RUN(each_failure_is_returned);
    return finish();
}
