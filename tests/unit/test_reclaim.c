#include "check.h"
#include "posix/object/attach.h"
#include "posix/object/reclaim.h"

#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct pshm_candidate
reclaim(const struct pshm_name *name, double older_than, bool remove)
{
    struct pshm_candidate candidate;
    pshm_reclaim(pshm_name_plain(name), older_than, remove, &candidate);
    CHECK(!candidate.removed || remove);
    return candidate;
}

static int
state_of(const struct pshm_name *name, double older_than)
{
    return (int)reclaim(name, older_than, false).state;
}

static bool
removes(const struct pshm_name *name)
{
    return reclaim(name, 0, true).removed;
}

/* ---- states ---- */

static void
other_files_are_not_selected(void)
{
    struct pshm_name name = name_of("thing"), target = name_of("target");
    (void)make_plain(&target, 1, 0600, 0);
    CHECK(symlink(target.path, name.path) == 0);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_NOT_SELECTED);
    remove_plain(&name);
    CHECK(mkfifo(name.path, 0600) == 0);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_NOT_SELECTED);
    remove_plain(&name);
    CHECK(mkdir(name.path, 0700) == 0);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_NOT_SELECTED);
    CHECK(rmdir(name.path) == 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s",
                   name.path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0
          && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_NOT_SELECTED);
    (void)close(fd);
    remove_plain(&name);
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&target);

    struct pshm_candidate candidate;
    pshm_reclaim("a/b", 0, true, &candidate);
    CHECK_IS(candidate.state, PSHM_NOT_SELECTED);
}

static void
both_names_of_one_object_are_removed(void)
{
    struct pshm_name first = name_of("first"), second = name_of("second");
    (void)make_plain(&first, 1, 0600, 0);
    CHECK(link(first.path, second.path) == 0);
    CHECK_IS(state_of(&first, 0), PSHM_FREE);
    CHECK_IS(state_of(&second, 0), PSHM_FREE);
    CHECK(removes(&first));
    CHECK(removes(&second));
    CHECK_IS(names_with(prefix()), 0);
}

/* ---- without proof ---- */

static void
object_is_unknown_if_it_cannot_be_checked(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    pshm_fault_arm("fcntl", 1, PSHM_FAULT_FAIL, EINVAL);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_UNKNOWN);
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_UNKNOWN);
    (void)pshm_fault_disarm();
    CHECK(removes(&name));
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_NOT_SELECTED);
    (void)pshm_fault_disarm();
}

/* An older kernel also refuses the write lease of an object that no process
 * has open. */
static int
reclaim_on_an_older_kernel(void *context)
{
    struct pshm_name name = name_of("object");
    struct pshm_object object;
    (void)context;
    if (personality(UNAME26) < 0) {
        return CANNOT;
    }
    (void)make_plain(&name, 1, 0600, 0);
    int fd = open(name.path, O_RDONLY | O_CLOEXEC);
    CHECK_IS(state_of(&name, 0), PSHM_UNKNOWN);
    CHECK_IS(pshm_attach(&name, false, &PSHM_ACCEPT_ANY, &object), 0);
    CHECK_IS(state_of(&name, 0), PSHM_IN_USE);
    (void)close(object.fd);
    (void)close(fd);
    CHECK_IS(state_of(&name, 0), PSHM_FREE);
    remove_plain(&name);
    return 0;
}

static void
refusal_by_an_older_kernel_proves_nothing(void)
{
    CHECK_IN_CHILD(reclaim_on_an_older_kernel, NULL,
                   "cannot simulate an older kernel");
}

static int
hold_write_lease(void *context)
{
    const struct pshm_name *name = context;
    int fd = open(name->path, O_RDONLY | O_CLOEXEC);
    (void)signal(SIGIO, SIG_IGN);
    CHECK(fcntl(fd, F_SETLEASE, F_WRLCK) == 0);
    (void)raise(SIGSTOP);
    (void)close(fd);
    return 0;
}

static void
object_with_a_write_lease_is_in_use(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    pid_t child = child_start_stopped(hold_write_lease, &name);
    CHECK_IS(reclaim(&name, 0, true).state, PSHM_IN_USE);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
    CHECK(removes(&name));
}

/* A program that does not use this library does not take the name lock. */
static void
remove_it(void *context)
{
    remove_plain(context);
}

static void
replace_it(void *context)
{
    remove_plain(context);
    (void)make_plain(context, 7, 0600, 0);
}

static void
name_that_changes_meanwhile_is_not_removed(void)
{
    struct pshm_name name = name_of("object");
    for (int replaced = 0; replaced < 2; replaced++) {
        (void)make_plain(&name, 1, 0600, 0);
        pshm_fault_hook(replaced ? replace_it : remove_it, &name);
        pshm_fault_arm("lstat", 1, PSHM_FAULT_HOOK_BEFORE, 0);
        struct pshm_candidate found = reclaim(&name, 0, true);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK_IS(found.state, PSHM_NOT_SELECTED);
        CHECK(!found.removed && found.error == 0);
        CHECK_IS(names_with(prefix()), replaced);
    }
    CHECK(removes(&name));
}

/* /proc is searched once for all unknown objects, and only for them. */
static void
only_unknown_objects_are_searched(void)
{
    struct pshm_name names[2] = {name_of("first"), name_of("second")};
    struct pshm_candidate found[3] = {{.state = PSHM_FREE}};
    for (int i = 0; i < 2; i++) {
        (void)make_plain(&names[i], 1, 0600, 0);
        pshm_fault_arm("fcntl", 2, PSHM_FAULT_FAIL, EINVAL);
        found[i + 1] = reclaim(&names[i], 0, true);
        CHECK_IS(found[i + 1].state, PSHM_UNKNOWN);
        (void)pshm_fault_disarm();
    }
    pshm_fault_arm("opendir", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(pshm_reclaim_unknown(found, 3, true), -EMFILE);
    CHECK_IS(names_with(prefix()), 2);
    pshm_fault_arm("opendir", 1, PSHM_FAULT_FAIL, ENOENT);
    CHECK_IS(pshm_reclaim_unknown(found, 3, true), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(!found[0].removed && found[1].removed && found[2].removed);
    CHECK_IS(names_with(prefix()), 0);
}

/* An object is removed only if the list of objects in use is known. */
static void
nothing_is_removed_if_processes_cannot_be_inspected(void)
{
    static const char *const calls[] = {"opendir", "readdir", "getline"};
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 1, 0600, 0);
    for (size_t i = 0; i < COUNT(calls); i++) {
        struct pshm_candidate candidate = {
            .name = name, .id = id, .state = PSHM_UNKNOWN};
        struct census before = census_take();
        pshm_fault_arm(calls[i], 1, PSHM_FAULT_FAIL, ENOMEM);
        CHECK_IS(pshm_reclaim_unknown(&candidate, 1, true), -ENOMEM);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK(pshm_identity_same(identity_of(&name), id));
        CHECK_NOTHING_LEFT(before);
    }
    remove_plain(&name);
}

/* ---- permissions ---- */

static int
reclaim_as_nobody(void *context)
{
    const struct pshm_name *roots = context;
    static const mode_t modes[] = {0600, 0400, 0444};
    struct pshm_name own = name_of("nobodys");
    if (become_nobody() != 0) {
        return CANNOT;
    }
    for (int i = 0; i < 2; i++) {
        struct pshm_identity id = identity_of(&roots[i]);
        struct pshm_candidate found = reclaim(&roots[i], 0, true);
        CHECK_IS(found.state, PSHM_UNKNOWN);
        CHECK_IS(found.size, 5000);
        CHECK(found.age > 0);
        CHECK_IS(pshm_reclaim_unknown(&found, 1, true), 0);
        CHECK_IS(found.state, PSHM_UNKNOWN);
        CHECK_IS(found.error, -EPERM);
        CHECK(found.uninspected > 0);
        CHECK(pshm_identity_same(identity_of(&roots[i]), id));
        CHECK_IS(state_of(&roots[i], 1000), PSHM_NOT_SELECTED);
    }
    for (size_t i = 0; i < COUNT(modes); i++) {
        (void)make_plain(&own, 1, modes[i], 0);
        struct pshm_object object;
        CHECK_IS(pshm_attach(&own, true, &PSHM_ACCEPT_ANY, &object), 0);
        CHECK_IS(reclaim(&own, 0, true).state, PSHM_IN_USE);
        (void)close(object.fd);
        CHECK(removes(&own));
    }
    return 0;
}

static void
objects_of_other_users_are_not_removed(void)
{
    struct pshm_name names[2] = {name_of("open"), name_of("closed")};
    (void)make_plain(&names[0], 5000, 0666, 0);
    (void)make_plain(&names[1], 5000, 0600, 0);
    CHECK_IN_CHILD(reclaim_as_nobody, names, "cannot change the user");
    remove_plain(&names[0]);
    remove_plain(&names[1]);
}

int
main(void)
{
    RUN(other_files_are_not_selected);
    RUN(both_names_of_one_object_are_removed);
    RUN(object_is_unknown_if_it_cannot_be_checked);
    RUN(refusal_by_an_older_kernel_proves_nothing);
    RUN(object_with_a_write_lease_is_in_use);
    RUN(name_that_changes_meanwhile_is_not_removed);
    RUN(only_unknown_objects_are_searched);
    RUN(nothing_is_removed_if_processes_cannot_be_inspected);
    RUN(objects_of_other_users_are_not_removed);
    return finish();
}
