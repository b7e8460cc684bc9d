#include "check.h"
#include "posix/attach.h"
#include "posix/lease.h"
#include "posix/reclaim.h"

#include <sys/socket.h>
#include <sys/un.h>

static const struct pshm_mapped nothing_mapped = PSHM_MAPPED_NONE;

static struct pshm_candidate
reclaim(const struct pshm_name *name, double older_than, bool dry_run)
{
    struct pshm_candidate candidate;
    pshm_reclaim_inspect(pshm_name_plain(name), older_than, &candidate);
    pshm_reclaim_settle(&candidate, dry_run, &nothing_mapped);
    return candidate;
}

/* ---- verdicts ---- */

static void
unused_object_is_removed(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 5000, 0600, 0);
    struct pshm_candidate candidate = reclaim(&name, 0, true);
    CHECK_IS(candidate.verdict, PSHM_REMOVABLE);
    CHECK_IS(candidate.size, 5000);
    CHECK(candidate.age >= 0 && candidate.age < 10);
    CHECK(pshm_identity_same(identity_of(&name), id));
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_REMOVED);
    CHECK_IS(names_with(prefix()), 0);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_NOT_SELECTED);
}

static void
young_object_is_not_selected(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    CHECK_IS(reclaim(&name, 1000, false).verdict, PSHM_NOT_SELECTED);
    (void)usleep(30000);
    CHECK_IS(reclaim(&name, 0.02, true).verdict, PSHM_REMOVABLE);
    /* to be sized or given a mode makes it young again */
    CHECK(chmod(name.path, 0640) == 0);
    CHECK_IS(reclaim(&name, 0.02, true).verdict, PSHM_NOT_SELECTED);
    remove_plain(&name);
}

static void
leased_object_stays(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    for (int readonly = 0; readonly < 2; readonly++) {
        struct pshm_object object;
        CHECK_IS(pshm_attach(&name, readonly, &PSHM_OWNERS_ANY, &object), 0);
        CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_IN_USE);
        CHECK_IS(reclaim(&name, 0, true).verdict, PSHM_IN_USE);
        CHECK(pshm_identity_same(identity_of(&name), object.id));
        (void)close(object.fd);
    }
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_REMOVED);
}

static int
attach_and_stop(void *context)
{
    struct pshm_object object;
    CHECK_IS(pshm_attach(context, false, &PSHM_OWNERS_ANY, &object), 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
object_of_a_killed_process_is_removed(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    pid_t child = child_start(attach_and_stop, &name);
    child_wait_stopped(child);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_IN_USE);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK_IS(child_wait(child), -SIGKILL);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_REMOVED);
}

/* As a program that knows nothing of leases uses it. */
static void
mapped_object_stays(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, (off_t)PAGE, 0600, 0);
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    struct pshm_candidate candidate;
    struct pshm_mapped mapped;
    (void)close(fd);
    pshm_reclaim_inspect(pshm_name_plain(&name), 0, &candidate);
    CHECK_IS(candidate.verdict, PSHM_REMOVABLE);
    CHECK_IS(pshm_mapped_find(id.dev, &mapped), 0);
    pshm_reclaim_settle(&candidate, false, &mapped);
    CHECK_IS(candidate.verdict, PSHM_IN_USE);
    CHECK(pshm_identity_same(identity_of(&name), id));
    CHECK(munmap(base, PAGE) == 0);
    pshm_mapped_free(&mapped);
    remove_plain(&name);
}

static void
what_is_no_object_is_not_selected(void)
{
    struct pshm_name name = name_of("thing"), target = name_of("target");
    (void)make_plain(&target, 1, 0600, 0);
    CHECK(symlink(target.path, name.path) == 0);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_NOT_SELECTED);
    remove_plain(&name);
    CHECK(mkfifo(name.path, 0600) == 0);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_NOT_SELECTED);
    remove_plain(&name);
    CHECK(mkdir(name.path, 0700) == 0);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_NOT_SELECTED);
    CHECK(rmdir(name.path) == 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s",
                   name.path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_NOT_SELECTED);
    (void)close(fd);
    remove_plain(&name);
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&target);

    struct pshm_candidate candidate;
    pshm_reclaim_inspect("a/b", 0, &candidate);
    CHECK_IS(candidate.verdict, -EINVAL);
    pshm_reclaim_settle(&candidate, false, &nothing_mapped);
}

/* ---- several at a time ---- */

static void
several_are_reclaimed_at_a_time(void)
{
    enum { ROOM = 4 };
    static const char *const suffixes[] = {"a", "b", "used", "c", "d", "e"};
    struct pshm_candidate candidates[ROOM];
    struct pshm_names names;
    struct pshm_object object;
    struct pshm_name name;
    dev_t device;
    CHECK_IS(pshm_directory_device(&device), 0);
    for (size_t i = 0; i < COUNT(suffixes); i++) {
        name = name_of(suffixes[i]);
        (void)make_plain(&name, 1, 0600, 0);
    }
    name = name_of("used");
    CHECK_IS(pshm_attach(&name, false, &PSHM_OWNERS_ANY, &object), 0);
    for (int dry_run = 1; dry_run >= 0; dry_run--) {
        int done = 0, used = 0, expected = dry_run ? PSHM_REMOVABLE
                                                   : PSHM_REMOVED;
        CHECK_IS(pshm_names_list(prefix(), &names), 0);
        for (size_t at = 0; at < names.length;) {
            int count = pshm_reclaim_some(&names, &at, 0, dry_run, device,
                                          candidates, ROOM);
            CHECK(count > 0 && count <= ROOM);
            for (int i = 0; i < count; i++) {
                done += candidates[i].verdict == expected;
                used += candidates[i].verdict == PSHM_IN_USE;
                CHECK_IS(candidates[i].fd, -1);
            }
        }
        pshm_names_free(&names);
        CHECK_IS(done, 5);
        CHECK_IS(used, 1);
    }
    CHECK_IS(names_with(prefix()), 1);
    CHECK(pshm_identity_same(identity_of(&name), object.id));
    (void)close(object.fd);
    remove_plain(&name);
}

static void
both_names_of_one_object_are_removed(void)
{
    struct pshm_candidate candidates[4];
    struct pshm_name first = name_of("first"), second = name_of("second");
    for (int dry_run = 1; dry_run >= 0; dry_run--) {
        struct pshm_names names;
        dev_t device;
        size_t at = 0;
        (void)make_plain(&first, 1, 0600, 0);
        CHECK(link(first.path, second.path) == 0);
        CHECK_IS(pshm_directory_device(&device), 0);
        CHECK_IS(pshm_names_list(prefix(), &names), 0);
        CHECK_IS(pshm_reclaim_some(&names, &at, 0, dry_run, device,
                                   candidates, 4),
                 2);
        CHECK_IS(at, names.length);
        for (int i = 0; i < 2; i++) {
            CHECK_IS(candidates[i].verdict,
                     dry_run ? PSHM_REMOVABLE : PSHM_REMOVED);
        }
        pshm_names_free(&names);
        CHECK_IS(names_with(prefix()), dry_run ? 2 : 0);
        remove_plain(&first);
        remove_plain(&second);
    }
}

/* Without a list of what is mapped nothing is removed. */
static void
nothing_goes_when_mappings_cannot_be_looked_at(void)
{
    static const char *const calls[] = {"opendir", "readdir", "getline"};
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 1, 0600, 0);
    for (size_t i = 0; i < COUNT(calls); i++) {
        struct pshm_candidate candidates[4];
        struct pshm_names names;
        size_t at = 0;
        struct census before = census_take();
        CHECK_IS(pshm_names_list(prefix(), &names), 0);
        pshm_fault_arm(calls[i], 1, PSHM_FAULT_FAIL, ENOMEM);
        CHECK_IS(pshm_reclaim_some(&names, &at, 0, false, id.dev, candidates,
                                   4),
                 -ENOMEM);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK(pshm_identity_same(identity_of(&name), id));
        pshm_names_free(&names);
        CHECK_NOTHING_LEFT(before);
    }
    remove_plain(&name);
}

/* ---- rights ---- */

static int
reclaim_as_nobody(void *context)
{
    const struct pshm_name *roots = context;
    static const mode_t modes[] = {0600, 0400, 0444};
    struct pshm_name own = name_of("nobodys");
    if (become_nobody() != 0) {
        return CANNOT;
    }
    struct pshm_identity id = identity_of(&roots[0]);
    CHECK_IS(reclaim(&roots[0], 0, true).verdict, PSHM_REMOVABLE);
    CHECK_IS(reclaim(&roots[0], 0, false).verdict, -EPERM);
    CHECK(pshm_identity_same(identity_of(&roots[0]), id));
    struct pshm_candidate closed = reclaim(&roots[1], 0, false);
    CHECK_IS(closed.verdict, -EACCES);
    CHECK_IS(closed.size, 5000);
    CHECK(closed.age > 0);
    CHECK_IS(reclaim(&roots[1], 1000, false).verdict, PSHM_NOT_SELECTED);
    for (size_t i = 0; i < COUNT(modes); i++) {
        (void)make_plain(&own, 1, modes[i], 0);
        struct pshm_object object;
        CHECK_IS(pshm_attach(&own, true, &PSHM_OWNERS_ANY, &object), 0);
        CHECK_IS(reclaim(&own, 0, false).verdict, PSHM_IN_USE);
        (void)close(object.fd);
        CHECK_IS(reclaim(&own, 0, false).verdict, PSHM_REMOVED);
    }
    return 0;
}

static void
others_objects_stay(void)
{
    struct pshm_name names[2] = {name_of("open"), name_of("closed")};
    (void)make_plain(&names[0], 1, 0666, 0);
    (void)make_plain(&names[1], 5000, 0600, 0);
    int status = child_run(reclaim_as_nobody, names);
    if (status == CANNOT) {
        skip("cannot change the user");
    }
    else {
        CHECK_IS(status, 0);
    }
    remove_plain(&names[0]);
    remove_plain(&names[1]);
}

/* ---- between inspecting and settling ---- */

static void
attacher_that_comes_in_between_keeps_it(void)
{
    struct pshm_name name = name_of("object");
    for (int keep = 0; keep < 3; keep++) {
        struct pshm_identity id = make_plain(&name, (off_t)PAGE, 0600, 0);
        struct pshm_candidate candidate;
        struct pshm_object object;
        void *base = NULL;
        pshm_reclaim_inspect(pshm_name_plain(&name), 0, &candidate);
        CHECK_IS(candidate.verdict, PSHM_REMOVABLE);
        CHECK_IS(pshm_attach(&name, false, &PSHM_OWNERS_ANY, &object), 0);
        if (keep == 1) {
            /* without a descriptor, but mapped */
            base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, object.fd, 0);
            CHECK(base != MAP_FAILED);
        }
        if (keep != 0) {
            (void)close(object.fd);
        }
        pshm_reclaim_settle(&candidate, false, &nothing_mapped);
        CHECK_IS(candidate.verdict, keep < 2 ? PSHM_IN_USE : PSHM_REMOVED);
        CHECK_IS(identity_of(&name).ino, keep < 2 ? id.ino : 0);
        CHECK_IS(names_with(prefix()), keep < 2);
        if (keep == 0) {
            (void)close(object.fd);
        }
        if (base != NULL) {
            CHECK(munmap(base, PAGE) == 0);
        }
        remove_plain(&name);
    }
}

static void
another_object_of_the_name_stays(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_candidate candidate;
    (void)make_plain(&name, 1, 0600, 0);
    pshm_reclaim_inspect(pshm_name_plain(&name), 0, &candidate);
    remove_plain(&name);
    struct pshm_identity id = make_plain(&name, 1, 0600, 0);
    pshm_reclaim_settle(&candidate, false, &nothing_mapped);
    CHECK_IS(candidate.verdict, PSHM_NOT_SELECTED);
    CHECK(pshm_identity_same(identity_of(&name), id));
    remove_plain(&name);
}

static void
two_reclaimers_do_not_disturb_each_other(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_candidate first;
    (void)make_plain(&name, 1, 0600, 0);
    pshm_reclaim_inspect(pshm_name_plain(&name), 0, &first);
    CHECK_IS(first.verdict, PSHM_REMOVABLE);
    CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_REMOVED);
    pshm_reclaim_settle(&first, false, &nothing_mapped);
    CHECK_IS(first.verdict, PSHM_NOT_SELECTED);
}

/* ---- each call failing ---- */

static int
act_reclaim(void *context)
{
    struct pshm_candidate candidate = reclaim(context, 0, false);
    (void)pshm_fault_disarm();
    CHECK_IS(candidate.fd, -1);
    if (candidate.verdict < 0) {
        CHECK(identity_of(context).ino != 0);
    }
    return candidate.verdict;
}

static void
undo_reclaim(void *context)
{
    CHECK_IS(identity_of(context).ino, 0);
    (void)make_plain(context, 1, 0600, 0);
}

static void
each_failure_is_told(void)
{
    struct pshm_name name = name_of("object");
    struct operation op = {
        .name = "reclaim", .act = act_reclaim, .undo = undo_reclaim,
        .context = &name, .overcomes = " close open flock "};
    (void)make_plain(&name, 1, 0600, 0);
    CHECK(fail_each(&op) >= 9);
    remove_plain(&name);
}

/* Unlike a failure to get the name lock. */
static void
failure_to_seize_is_told(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 1, 0600, 0);
    pshm_fault_arm("flock", 1, PSHM_FAULT_FAIL, ENOLCK);
    CHECK_IS(reclaim(&name, 0, false).verdict, -ENOLCK);
    (void)pshm_fault_disarm();
    CHECK(identity_of(&name).ino != 0);
    remove_plain(&name);
}

/* ---- killed at each step ---- */

struct death {
    struct pshm_name name;
    int nth, action;
};

static int
reclaim_and_be_killed(void *context)
{
    struct death *death = context;
    pshm_fault_arm(NULL, death->nth, death->action, 0);
    int verdict = reclaim(&death->name, 0, false).verdict;
    (void)pshm_fault_disarm();
    CHECK_IS(verdict, PSHM_REMOVED);
    return 0;
}

/* Whatever is left can be found by the name's start, and reclaimed. */
static void
killed_at_each_step(void)
{
    for (int action = PSHM_FAULT_KILL_BEFORE; action <= PSHM_FAULT_KILL_AFTER;
         action++) {
        struct death death = {.name = name_of("object"), .action = action};
        int status = -SIGKILL;
        for (death.nth = 1; status == -SIGKILL; death.nth++) {
            struct pshm_identity id = make_plain(&death.name, 1, 0600, 0);
            check_about("killed by action %d at call %d", action, death.nth);
            status = child_run(reclaim_and_be_killed, &death);
            CHECK(status == 0 || status == -SIGKILL);
            int left = names_with(pshm_name_plain(&death.name));
            CHECK(left <= 1 && names_with(prefix()) == left);
            if (left > 0) {
                struct pshm_name name = first_with(prefix());
                CHECK(pshm_identity_same(identity_of(&name), id));
                CHECK_IS(reclaim(&name, 0, false).verdict, PSHM_REMOVED);
            }
        }
    }
}

int
main(void)
{
    RUN(unused_object_is_removed);
    RUN(young_object_is_not_selected);
    RUN(leased_object_stays);
    RUN(object_of_a_killed_process_is_removed);
    RUN(mapped_object_stays);
    RUN(what_is_no_object_is_not_selected);
    RUN(several_are_reclaimed_at_a_time);
    RUN(both_names_of_one_object_are_removed);
    RUN(nothing_goes_when_mappings_cannot_be_looked_at);
    RUN(others_objects_stay);
    RUN(attacher_that_comes_in_between_keeps_it);
    RUN(another_object_of_the_name_stays);
    RUN(two_reclaimers_do_not_disturb_each_other);
    RUN(each_failure_is_told);
    RUN(failure_to_seize_is_told);
    RUN(killed_at_each_step);
    return finish();
}
