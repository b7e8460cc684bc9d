#include "check.h"
#include "posix/object/link.h"

#include <sys/stat.h>
#include <sys/syscall.h>

/* An object without a name. */
static int
nameless(void)
{
    int fd = open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(ftruncate(fd, 3) == 0);
    return fd;
}

static struct pshm_identity
identity_of_fd(int fd)
{
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    return (struct pshm_identity){st.st_dev, st.st_ino};
}

static bool
is(const struct pshm_name *name, struct pshm_identity id)
{
    return pshm_identity_same(identity_of(name), id);
}

/* Link it; a failure must not leave a temporary name. */
static int
link_it(int fd, const struct pshm_name *name, bool replace)
{
    struct pshm_name left;
    int rc = pshm_link(fd, name, replace, &left);
    CHECK(left.path[0] == '\0');
    return rc;
}

/* ---- giving a name ---- */

static void
older_kernels_link_through_proc(void)
{
    struct pshm_name name = name_of("object");
    for (int replace = 0; replace < 2; replace++) {
        int fd = nameless();
        pshm_fault_arm("linkat", 1, PSHM_FAULT_FAIL, ENOENT);
        CHECK_IS(link_it(fd, &name, replace), 0);
        CHECK_IS(pshm_fault_disarm(), 2);
        CHECK(is(&name, identity_of_fd(fd)));
        CHECK_IS(names_with(prefix()), 1);
        (void)close(fd);
    }
    remove_plain(&name);
}

static void
replacing_works_for_a_free_name(void)
{
    struct pshm_name name = name_of("object");
    int first = nameless(), second = nameless();
    CHECK_IS(link_it(first, &name, true), 0);
    CHECK(is(&name, identity_of_fd(first)));
    CHECK_IS(link_it(second, &name, true), 0);
    CHECK(is(&name, identity_of_fd(second)));
    CHECK_IS(names_with(prefix()), 1);
    (void)close(first);
    (void)close(second);
    remove_plain(&name);
}

static void
replacing_its_own_name_leaves_one_name(void)
{
    struct pshm_name name = name_of("object");
    int fd = nameless();
    CHECK_IS(link_it(fd, &name, false), 0);
    CHECK_IS(link_it(fd, &name, true), 0);
    CHECK(is(&name, identity_of_fd(fd)));
    CHECK_IS(names_with(prefix()), 1);
    (void)close(fd);
    remove_plain(&name);
}

static void
directory_is_not_replaced(void)
{
    struct pshm_name name = name_of("directory");
    CHECK(mkdir(name.path, 0700) == 0);
    int fd = nameless();
    CHECK_IS(link_it(fd, &name, false), -EEXIST);
    CHECK_IS(link_it(fd, &name, true), -EISDIR);
    CHECK_IS(names_with(prefix()), 1);
    /* the object can still get another name */
    struct pshm_name other = name_of("other");
    CHECK_IS(link_it(fd, &other, true), 0);
    remove_plain(&other);
    (void)close(fd);
    CHECK(rmdir(name.path) == 0);
}

static void
long_names_can_be_replaced_and_removed(void)
{
    struct pshm_name name;
    char text[PSHM_NAME_MAX];
    memset(text, '\x81', sizeof(text));
    memcpy(text, prefix(), strlen(prefix()));
    CHECK(pshm_name_parse(text, sizeof(text), &name) == NULL);
    int fd = nameless();
    CHECK_IS(link_it(fd, &name, true), 0);
    CHECK_IS(link_it(fd, &name, true), 0);
    CHECK_IS(pshm_link_remove(&name, identity_of_fd(fd)), 0);
    CHECK_IS(names_with(prefix()), 0);
    (void)close(fd);
}

/* ---- moving ---- */

static void
temporary_name_is_moved(void)
{
    struct pshm_name from = name_of("from"), to = name_of("to");
    struct pshm_identity id = make_plain(&from, 1, 0600, 0);
    CHECK_IS(pshm_link_move(&from, &to, false), 0);
    CHECK(is(&to, id));
    struct pshm_identity second = make_plain(&from, 1, 0600, 0);
    CHECK_IS(pshm_link_move(&from, &to, false), -EEXIST);
    CHECK(is(&to, id) && is(&from, second));
    remove_plain(&from);
    CHECK_IS(pshm_link_move(&from, &to, false), -ENOENT);
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&to);
}

static void
moving_without_renameat2(void)
{
    static const int errnos[] = {EINVAL, ENOSYS};
    struct pshm_name from = name_of("from"), to = name_of("to");
    for (size_t i = 0; i < COUNT(errnos); i++) {
        struct pshm_identity id = make_plain(&from, 1, 0600, 0);
        pshm_fault_arm("renameat2", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_link_move(&from, &to, false), 0);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK(is(&to, id));
        struct pshm_identity second = make_plain(&from, 1, 0600, 0);
        pshm_fault_arm("renameat2", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(pshm_link_move(&from, &to, false), -EEXIST);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK(is(&to, id) && is(&from, second));
        remove_plain(&from);
        remove_plain(&to);
    }
}

/* ---- renaming ---- */

/* If the old name cannot be removed, the new one is removed. */
static int
move_with_failing_unlink(void *context)
{
    struct pshm_name from = name_of("from"), to = name_of("to");
    struct pshm_identity id = make_plain(&from, 1, 0600, 0);
    (void)context;
    if (forbid(SYS_renameat2, ENOSYS) != 0) {
        remove_plain(&from);
        return CANNOT;
    }
    pshm_fault_arm("unlink", 1, PSHM_FAULT_FAIL, EBUSY);
    CHECK_IS(pshm_link_move(&from, &to, false), -EBUSY);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK(is(&from, id));
    CHECK_IS(identity_of(&to).ino, 0);
    CHECK_IS(pshm_link_move(&from, &to, false), 0);
    CHECK(is(&to, id));
    remove_plain(&to);
    return 0;
}

static void
failed_move_without_renameat2_leaves_the_old_name(void)
{
    CHECK_IN_CHILD(move_with_failing_unlink, NULL,
                   "cannot forbid a system call");
}

static void
two_names_of_one_object_become_one(void)
{
    struct pshm_name from = name_of("from"), to = name_of("to");
    int fd = nameless();
    struct pshm_identity id = identity_of_fd(fd);
    CHECK_IS(link_it(fd, &from, false), 0);
    CHECK_IS(link_it(fd, &to, false), 0);
    CHECK_IS(pshm_link_rename(id, &from, &to, false), -EEXIST);
    CHECK_IS(names_with(prefix()), 2);
    CHECK_IS(pshm_link_rename(id, &from, &to, true), 0);
    CHECK(is(&to, id));
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&to);
    (void)close(fd);
}

static void
directory_is_not_replaced_by_renaming(void)
{
    struct pshm_name from = name_of("from"), to = name_of("directory");
    CHECK(mkdir(to.path, 0700) == 0);
    int fd = nameless();
    struct pshm_identity id = identity_of_fd(fd);
    CHECK_IS(link_it(fd, &from, false), 0);
    CHECK_IS(pshm_link_rename(id, &from, &to, true), -EISDIR);
    CHECK_IS(pshm_link_rename(id, &from, &to, false), -EEXIST);
    CHECK(is(&from, id));
    CHECK_IS(names_with(prefix()), 2);
    remove_plain(&from);
    (void)close(fd);
    CHECK(rmdir(to.path) == 0);
}

/* ---- unlinking ---- */

static void
only_the_name_of_this_object_is_removed(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 1, 0600, 0);
    CHECK_IS(pshm_link_remove(&name, id), 0);
    CHECK_IS(pshm_link_remove(&name, id), -ENOENT);
    struct pshm_identity hold = make_plain(&name, 1, 0600, 0);
    struct pshm_identity wrong = {hold.dev, hold.ino + 1000};
    CHECK_IS(pshm_link_remove(&name, wrong), -ESTALE);
    wrong = (struct pshm_identity){hold.dev + 1, hold.ino};
    CHECK_IS(pshm_link_remove(&name, wrong), -ESTALE);
    CHECK(is(&name, hold));
    remove_plain(&name);
    /* a symbolic link to it is not the object */
    struct pshm_name target = name_of("target");
    id = make_plain(&target, 1, 0600, 0);
    CHECK(symlink(target.path, name.path) == 0);
    CHECK_IS(pshm_link_remove(&name, id), -ESTALE);
    CHECK_IS(names_with(prefix()), 2);
    remove_plain(&name);
    remove_plain(&target);
}

/* ---- each call fails ---- */

struct linking {
    struct pshm_name name, from;
    int fd;
    bool replace;
    struct pshm_identity id;
};

/* After a failure the object must still be able to get a name. If the last
 * step failed, it has its temporary name. */
static int
act_link(void *context)
{
    struct linking *linking = context;
    struct pshm_name left, spare = name_of("spare");
    int rc = pshm_link(linking->fd, &linking->name, linking->replace, &left);
    (void)pshm_fault_disarm();
    struct pshm_identity id = identity_of_fd(linking->fd);
    if (rc < 0) {
        CHECK_IS(link_it(linking->fd, &spare, false), 0);
        CHECK_IS(pshm_link_remove(&spare, id), 0);
        if (left.path[0] != '\0') {
            CHECK_IS(pshm_link_remove(&left, id), 0);
        }
        (void)close(linking->fd);
        linking->fd = nameless();
    }
    return rc;
}

static void
undo_link(void *context)
{
    struct linking *linking = context;
    CHECK(is(&linking->name, identity_of_fd(linking->fd)));
    remove_plain(&linking->name);
    (void)close(linking->fd);
    linking->fd = nameless();
    if (linking->replace) {
        linking->id = make_plain(&linking->name, 1, 0600, 0);
    }
}

static int
act_remove(void *context)
{
    struct linking *linking = context;
    int rc = pshm_link_remove(&linking->name, linking->id);
    (void)pshm_fault_disarm();
    CHECK_IS(identity_of(&linking->name).ino, rc < 0 ? linking->id.ino : 0);
    return rc;
}

static void
undo_remove(void *context)
{
    struct linking *linking = context;
    linking->id = make_plain(&linking->name, 1, 0600, 0);
}

static int
act_holds(void *context)
{
    struct linking *linking = context;
    return pshm_link_holds(&linking->name, linking->id);
}

static int
act_drop(void *context)
{
    struct linking *linking = context;
    return pshm_link_drop(&linking->name);
}

static int
act_rename(void *context)
{
    struct linking *linking = context;
    int rc = pshm_link_rename(linking->id, &linking->from,
                              &linking->name, linking->replace);
    (void)pshm_fault_disarm();
    CHECK(is(rc < 0 ? &linking->from : &linking->name, linking->id));
    CHECK_IS(identity_of(&linking->name).ino != 0,
             rc == 0 || linking->replace);
    return rc;
}

static void
undo_rename(void *context)
{
    struct linking *linking = context;
    CHECK_IS(identity_of(&linking->from).ino, 0);
    CHECK(rename(linking->name.path, linking->from.path) == 0);
    if (linking->replace) {
        (void)make_plain(&linking->name, 1, 0600, 0);
    }
}

static void
do_nothing(void *context)
{
    (void)context;
}

static void
each_failure_is_returned(void)
{
    struct linking linking = {
        .name = name_of("object"), .from = name_of("from"), .fd = nameless()};
    struct operation op = {.context = &linking};

    op.name = "link";
    op.act = act_link;
    op.undo = undo_link;
    CHECK_IS(fail_each(&op), 1);
    op.name = "link and replace";
    op.overcomes = " unlink open flock close ";
    linking.replace = true;
    linking.id = make_plain(&linking.name, 1, 0600, 0);
    CHECK(fail_each(&op) >= 3);
    CHECK(is(&linking.name, linking.id));
    (void)close(linking.fd);

    linking.replace = false;
    remove_plain(&linking.name);

    op.overcomes = " open flock close sched_yield ";
    op.act = act_rename;
    op.undo = undo_rename;
    linking.fd = nameless();
    linking.id = identity_of_fd(linking.fd);
    CHECK_IS(link_it(linking.fd, &linking.from, false), 0);
    op.name = "rename";
    CHECK(fail_each(&op) >= 2);
    op.name = "rename and replace";
    linking.replace = true;
    (void)make_plain(&linking.name, 1, 0600, 0);
    CHECK(fail_each(&op) >= 2);
    remove_plain(&linking.from);
    remove_plain(&linking.name);
    (void)close(linking.fd);

    op.name = "remove";
    op.act = act_remove;
    op.undo = undo_remove;
    linking.id = make_plain(&linking.name, 1, 0600, 0);
    CHECK(fail_each(&op) >= 2);
    op.name = "drop";
    op.act = act_drop;
    CHECK_IS(fail_each(&op), 5);
    op.name = "holds";
    op.act = act_holds;
    op.undo = do_nothing;
    CHECK_IS(fail_each(&op), 1);
    remove_plain(&linking.name);
}

/* Only the last step can fail after the object has its temporary name. Then
 * the object keeps that name, because it could not get one again. */
static void
object_keeps_its_temporary_name_if_the_last_step_fails(void)
{
    struct pshm_name name = name_of("object"), left;
    struct pshm_identity other = make_plain(&name, 1, 0600, 0);
    int fd = nameless();
    struct pshm_identity id = identity_of_fd(fd);
    pshm_fault_arm("rename", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_link(fd, &name, true, &left), -EIO);
    (void)pshm_fault_disarm();
    CHECK(is(&name, other));
    CHECK(is(&left, id));
    CHECK(strncmp(left.path, name.path, strlen(name.path)) == 0);
    CHECK_IS(pshm_link_rename(id, &left, &name, true), 0);
    CHECK(is(&name, id));
    CHECK_IS(names_with(prefix()), 1);
    remove_plain(&name);
    (void)close(fd);
}

/* ---- a death at each step ---- */

/* The name is free, or refers to this object or to the replaced one. Any other
 * name that is left starts with it. */
static void
check_after_death(const struct linking *linking, struct pshm_identity id)
{
    struct pshm_identity now = identity_of(&linking->name);
    CHECK(now.ino == 0 || pshm_identity_same(now, id)
          || pshm_identity_same(now, linking->id));
    remove_plain(&linking->name);
    char text[PSHM_NAME_MAX + 2];
    (void)snprintf(text, sizeof(text), "%s~",
                   pshm_name_plain(&linking->name));
    int left = names_with(text);
    CHECK(left <= 1);
    if (left > 0) {
        struct pshm_name name = first_with(text);
        CHECK(is(&name, id));
        remove_plain(&name);
    }
}

static void
kill_at_each_step(int (*act)(void *context), bool linked, bool replace)
{
    for (int action = PSHM_FAULT_KILL_BEFORE; action <= PSHM_FAULT_KILL_AFTER;
         action++) {
        bool killed = true;
        for (int nth = 1; killed; nth++) {
            struct census before = census_take();
            struct linking linking = {.name = name_of("object"),
                                      .fd = nameless(), .replace = replace};
            struct pshm_identity id = identity_of_fd(linking.fd);
            linking.id = id;
            if (linked) {
                CHECK_IS(link_it(linking.fd, &linking.name, false), 0);
            }
            if (replace) {
                linking.id = make_plain(&linking.name, 1, 0600, 0);
            }
            check_about("killed by action %d at call %d", action, nth);
            killed = child_killed_at(nth, action, act, &linking);
            if (replace) {
                CHECK(identity_of(&linking.name).ino != 0);
            }
            check_after_death(&linking, id);
            (void)close(linking.fd);
            CHECK_NOTHING_LEFT(before);
        }
    }
}

static void
death_at_each_step_of_linking(void)
{
    kill_at_each_step(act_link, false, false);
}

static void
death_at_each_step_of_replacing(void)
{
    kill_at_each_step(act_link, false, true);
}

static int
act_remove_only(void *context)
{
    struct linking *linking = context;
    return pshm_link_remove(&linking->name, linking->id);
}

static void
death_at_each_step_of_removing(void)
{
    kill_at_each_step(act_remove_only, true, false);
}

static int
act_rename_only(void *context)
{
    struct linking *linking = context;
    return pshm_link_rename(linking->id, &linking->from,
                            &linking->name, linking->replace);
}

/* The object has its old or its new name, or a temporary one that starts with
 * one of them. */
static void
death_at_each_step_of_renaming(void)
{
    for (int i = 0; i < 4; i++) {
        int action = i & 1 ? PSHM_FAULT_KILL_AFTER : PSHM_FAULT_KILL_BEFORE;
        bool killed = true;
        for (int nth = 1; killed; nth++) {
            struct linking linking = {
                .name = name_of("to"), .from = name_of("from"),
                .fd = nameless(), .replace = i & 2};
            struct pshm_identity replaced = {0};
            linking.id = identity_of_fd(linking.fd);
            CHECK_IS(link_it(linking.fd, &linking.from, false), 0);
            if (linking.replace) {
                replaced = make_plain(&linking.name, 1, 0600, 0);
            }
            check_about("options %d, killed at call %d", i, nth);
            killed = child_killed_at(nth, action, act_rename_only, &linking);
            if (linking.replace) {
                struct pshm_identity now = identity_of(&linking.name);
                CHECK(pshm_identity_same(now, replaced)
                      || pshm_identity_same(now, linking.id));
            }
            if (is(&linking.name, replaced)) {
                remove_plain(&linking.name);
            }
            int names = 0;
            for (;; names++) {
                struct pshm_name name = first_with(prefix());
                if (name.path[0] == '\0') {
                    break;
                }
                CHECK(is(&name, linking.id));
                remove_plain(&name);
            }
            CHECK(names >= 1 && names <= 2);
            (void)close(linking.fd);
        }
    }
}

int
main(void)
{
    RUN(older_kernels_link_through_proc);
    RUN(replacing_works_for_a_free_name);
    RUN(replacing_its_own_name_leaves_one_name);
    RUN(directory_is_not_replaced);
    RUN(long_names_can_be_replaced_and_removed);
    RUN(temporary_name_is_moved);
    RUN(moving_without_renameat2);
    RUN(failed_move_without_renameat2_leaves_the_old_name);
    RUN(two_names_of_one_object_become_one);
    RUN(directory_is_not_replaced_by_renaming);
    RUN(only_the_name_of_this_object_is_removed);
    RUN(each_failure_is_returned);
    RUN(object_keeps_its_temporary_name_if_the_last_step_fails);
    RUN(death_at_each_step_of_linking);
    RUN(death_at_each_step_of_replacing);
    RUN(death_at_each_step_of_removing);
    RUN(death_at_each_step_of_renaming);
    return finish();
}
