#include "check.h"
#include "posix/host.h"
#include "posix/object/attach.h"
#include "posix/object/new_object.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/object/reclaim.h"

#include <linux/posix_acl_xattr.h>

static struct pshm_new_object_params
params_of(enum pshm_kind kind, const struct pshm_name *name, off_t size)
{
    return (struct pshm_new_object_params){
        .kind = kind, .name = name, .label = "test", .size = size,
        .mode = 0600, .uid = (uid_t)-1,
        .gid = (gid_t)-1, .reserve = true};
}

static int
make(const struct pshm_new_object_params *params, struct pshm_new_object *new)
{
    return pshm_new_object_make(params, &go_on, new);
}

static bool
all_bytes_are(const void *base, size_t length, char byte)
{
    const char *bytes = base;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != byte) {
            return false;
        }
    }
    return true;
}

/* ---- the object that is made ---- */

static void
object_has_no_name_until_it_is_published(void)
{
    for (int i = 0; i < 2; i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params =
            params_of(PSHM_NAMED, &name, 5000);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i;
        struct stat st;
        check_about("temporary %d", i);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(identity_of(&name).ino, 0);
        CHECK(new.fd > 2);
        CHECK_IS(fcntl(new.fd, F_GETFD), FD_CLOEXEC);
        CHECK_IS(new.length, 5000);
        CHECK(all_bytes_are(new.base, new.length, 0));
        memset(new.base, 'x', new.length);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        CHECK(pshm_identity_same(identity_of(&name), new.id));
        CHECK_IS(names_with(prefix()), 1);
        CHECK(stat(name.path, &st) == 0);
        CHECK_IS(st.st_size, 5000);
        CHECK_IS(st.st_mode, S_IFREG | 0600);
        CHECK_IS(st.st_blocks * 512, 8192);
        /* the use lock is held from the start */
        int other = open(name.path, O_RDWR | O_CLOEXEC);
        CHECK_IS(pshm_use_lock_try_exclusive(other), -EAGAIN);
        (void)close(other);
        /* a discard now does not remove the name */
        pshm_new_object_discard(&new);
        CHECK_IS(new.fd, -1);
        CHECK(new.base == NULL);
        CHECK_IS(names_with(prefix()), 1);
        pshm_new_object_discard(&new);
        remove_plain(&name);
    }
}

static void
taken_name_leaves_the_object_unchanged(void)
{
    for (int i = 0; i < 2; i++) {
        struct pshm_name name = name_of("object"), free = name_of("free");
        struct pshm_identity id = make_plain(&name, 1, 0600, 0);
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i;
        check_about("temporary %d", i);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, &name), -EEXIST);
        CHECK_IS(pshm_new_object_publish(&new, &name), -EEXIST);
        CHECK(pshm_identity_same(identity_of(&name), id));
        CHECK_IS(pshm_new_object_publish(&new, &free), 0);
        CHECK(pshm_identity_same(identity_of(&free), new.id));
        pshm_new_object_discard(&new);
        remove_plain(&name);
        remove_plain(&free);
    }
}

static void
unnamed_object_can_be_published_later(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_new_object_params params = params_of(PSHM_UNNAMED, NULL, 10);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    CHECK_IS(make(&params, &new), 0);
    CHECK_IS(names_with(prefix()), 0);
    struct pshm_name left;
    CHECK_IS(pshm_link(new.fd, &name, false, &left), 0);
    CHECK(pshm_identity_same(identity_of(&name), new.id));
    pshm_new_object_discard(&new);
    remove_plain(&name);

    /* an unnamed object needs O_TMPFILE */
    pshm_fault_arm("open", 1, PSHM_FAULT_FAIL, EOPNOTSUPP);
    CHECK_IS(make(&params, &new), -EOPNOTSUPP);
    CHECK_IS(pshm_fault_disarm(), 1);
    pshm_new_object_discard(&new);
}

static void
named_object_without_o_tmpfile(void)
{
    static const int errnos[] = {EOPNOTSUPP, EISDIR, ENOENT, EACCES, EPERM};
    for (size_t i = 0; i < COUNT(errnos); i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        pshm_fault_arm("open", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_fault_disarm(), 2);
        CHECK_IS(identity_of(&name).ino, 0);
        CHECK_IS(names_with(pshm_name_plain(&name)), 1);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        CHECK_IS(names_with(prefix()), 1);
        pshm_new_object_discard(&new);
        remove_plain(&name);
    }
}

static int
make_without_proc(void *context)
{
    struct pshm_name name = name_of("object");
    struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    if (mount_own("/proc", "size=4k") != 0) {
        return CANNOT;
    }
    if (*(bool *)context && become_nobody() != 0) {
        return CANNOT;
    }
    CHECK(!pshm_has_proc());
    params.temporary = true;
    CHECK_IS(make(&params, &new), 0);
    CHECK_IS(pshm_new_object_publish(&new, &name), 0);
    CHECK_IS(names_with(prefix()), 1);
    CHECK_IS(make(&params, &new), 0);
    pshm_new_object_discard(&new);
    remove_plain(&name);
    return 0;
}

struct intruder {
    struct pshm_name name;              /* the name of the new object */
    int how, fd;
};

/* 0: a reclaimer removes the temporary name; 1: in addition, another process
 * uses that name; 2: a process locks the object. */
static void
intrude(void *context)
{
    struct intruder *intruder = context;
    struct pshm_name temporary = first_with(pshm_name_plain(&intruder->name));
    if (intruder->how == 2) {
        intruder->fd = open(temporary.path, O_RDONLY | O_CLOEXEC);
        CHECK_IS(pshm_use_lock_try_exclusive(intruder->fd), 0);
        return;
    }
    remove_plain(&temporary);
    if (intruder->how == 1) {
        (void)make_plain(&temporary, 1, 0600, 0);
    }
}

static void
object_is_made_again_if_it_is_reclaimed_at_once(void)
{
    for (int how = 0; how < 3; how++) {
        check_about("temporary %d", how);
        struct intruder intruder = {.name = name_of("object"), .how = how,
                                    .fd = -1};
        struct pshm_new_object_params params =
            params_of(PSHM_NAMED, &intruder.name, 10);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        struct interrupts interrupts = {.raises = 1};
        const struct pshm_interrupt interrupt = {count_interrupt,
                                                 &interrupts};
        params.temporary = true;
        pshm_fault_hook(intrude, &intruder);
        pshm_fault_arm("open", 1, PSHM_FAULT_HOOK_AFTER, 0);
        CHECK_IS(pshm_new_object_make(&params, &interrupt, &new), -EINTR);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK_IS(interrupts.calls, 1);
        CHECK_IS(names_with(prefix()), how == 1);
        if (intruder.fd >= 0) {
            (void)close(intruder.fd);
        }
        if (how == 1) {
            struct pshm_name left = first_with(prefix());
            remove_plain(&left);
        }
        pshm_fault_arm("open", 1, PSHM_FAULT_HOOK_AFTER, 0);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_fault_disarm(), 2);
        CHECK(new.locked);
        CHECK_IS(pshm_new_object_publish(&new, &intruder.name), 0);
        pshm_new_object_discard(&new);
        remove_plain(&intruder.name);
        if (how == 1) {                 /* the object of the other process
                                           still exists */
            struct pshm_name left = first_with(prefix());
            CHECK(left.path[0] != '\0');
            remove_plain(&left);
        }
        if (intruder.fd >= 0) {
            (void)close(intruder.fd);
        }
    }
}

static void
named_object_without_proc(void)
{
    for (int as_nobody = 0; as_nobody < 2; as_nobody++) {
        bool choice = as_nobody;
        CHECK_IN_CHILD(make_without_proc, &choice,
                       "cannot mount, or change the user");
    }
}

static void
memfd_is_sealed_against_shrinking(void)
{
    struct pshm_new_object_params params = params_of(PSHM_MEMFD, NULL, 5000);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    for (int old_kernel = 0; old_kernel < 2; old_kernel++) {
        pshm_fault_arm("memfd_create", old_kernel, PSHM_FAULT_FAIL, EINVAL);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_fault_disarm(), 1 + old_kernel);
        CHECK_IS(fcntl(new.fd, F_GETFD), FD_CLOEXEC);
        CHECK((pshm_seals_of(new.fd) & F_SEAL_SHRINK) != 0);
        CHECK((pshm_seals_of(new.fd) & (F_SEAL_GROW | F_SEAL_SEAL)) == 0);
        CHECK(ftruncate(new.fd, 100) == -1 && errno == EPERM);
        CHECK(ftruncate(new.fd, 10000) == 0);
        CHECK_IS(pshm_seals_add(new.fd, F_SEAL_WRITE), -EBUSY);
        CHECK_IS(pshm_seals_add(new.fd, F_SEAL_GROW | F_SEAL_SEAL), 0);
        CHECK(ftruncate(new.fd, 20000) == -1 && errno == EPERM);
        CHECK_IS(pshm_seals_add(new.fd, F_SEAL_WRITE), -EPERM);
        CHECK((pshm_seals_of(new.fd) & F_SEAL_SEAL) != 0);
        pshm_new_object_discard(&new);
    }
    int ends[2];
    CHECK_IS(pipe2(ends, O_CLOEXEC), 0);
    CHECK_IS(pshm_seals_of(ends[1]), -EINVAL);
    CHECK_IS(pshm_seals_add(ends[1], F_SEAL_GROW), -EINVAL);
    (void)close(ends[0]);
    (void)close(ends[1]);
    int fd = open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    int rc = pshm_seals_add(fd, F_SEAL_SHRINK);
    CHECK(rc == -EPERM || rc == -EINVAL);
    (void)close(fd);
}

static void
mapping_may_be_longer_than_the_object(void)
{
    struct pshm_new_object_params params = params_of(PSHM_UNNAMED, NULL, 4096);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    params.max_size = 10 * MIB;
    CHECK_IS(make(&params, &new), 0);
    CHECK_IS(new.length, 10 * MIB);
    CHECK(ftruncate(new.fd, 10 * MIB) == 0);
    ((volatile char *)new.base)[10 * MIB - 1] = 1;
    pshm_new_object_discard(&new);
}

/* ---- memory ---- */

static int
make_huge_pages(int err)
{
    struct pshm_name name = name_of("object");
    struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    params.huge_pages = true;
    pshm_fault_arm("madvise", 1, PSHM_FAULT_FAIL, err);
    int rc = make(&params, &new);
    CHECK(pshm_fault_disarm() >= 1);
    pshm_new_object_discard(&new);
    return rc;
}

static void
list_is_set_before_the_object_has_a_name(void)
{
    struct {
        struct posix_acl_xattr_header header;
        struct posix_acl_xattr_entry entries[3];
    } list = {{POSIX_ACL_XATTR_VERSION},
              {{1, 6, (uint32_t)-1}, {4, 4, (uint32_t)-1},
               {32, 0, (uint32_t)-1}}};
    struct pshm_name name = name_of("object");
    struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    struct stat st;
    params.acl = &list;
    params.acl_size = sizeof(list);
    params.mode = 0640;
    CHECK_IS(make(&params, &new), 0);
    CHECK(!new.acl_refused);
    CHECK(fstat(new.fd, &st) == 0);
    CHECK_IS(st.st_mode & 07777, 0640);
    pshm_new_object_discard(&new);
}

/* A signal may arrive before the list is set. acl_refused reports a list that
 * the kernel refuses. */
static void
refused_list_is_reported(void)
{
    static const struct {
        int err;
        bool refused;
    } cases[] = {{EINTR, false}, {EPERM, true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.acl = "list";
        params.acl_size = 4;
        pshm_fault_arm("fsetxattr", 1, PSHM_FAULT_FAIL, cases[i].err);
        struct interrupts interrupts = {.raises = 1};
        const struct pshm_interrupt interrupt = {count_interrupt,
                                                 &interrupts};
        CHECK_IS(pshm_new_object_make(&params, &interrupt, &new),
                 -cases[i].err);
        CHECK_IS(pshm_fault_disarm(), 1);
        CHECK_IS(new.acl_refused, cases[i].refused);
        pshm_new_object_discard(&new);
    }
}

static void
kernel_without_huge_pages_uses_small_pages(void)
{
    CHECK_IS(make_huge_pages(EINVAL), 0);
    CHECK_IS(make_huge_pages(ENOMEM), -ENOMEM);
}

/* The kernel returns EFAULT for a page that it cannot provide. */
static void
pages_that_cannot_be_populated_are_reserved_or_reported(void)
{
    for (int reserve = 0; reserve < 2; reserve++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 10);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.populate = true;
        params.reserve = reserve;
        pshm_fault_arm("madvise", 1, PSHM_FAULT_FAIL, EFAULT);
        CHECK_IS(make(&params, &new), reserve ? 0 : -ENOSPC);
        CHECK_IS(pshm_fault_disarm(), 1);
        pshm_new_object_discard(&new);
    }
}

static void
populated_memory_is_not_reserved_again(void)
{
    struct pshm_new_object_params params = params_of(PSHM_MEMFD, NULL, MIB);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    params.populate = true;
    pshm_fault_arm("fallocate", 0, PSHM_FAULT_FAIL, 0);
    CHECK_IS(make(&params, &new), 0);
    CHECK_IS(pshm_fault_disarm(), 0);
    pshm_new_object_discard(&new);
}

/* ---- each call fails ---- */

struct making {
    struct pshm_new_object_params params;
    struct pshm_new_object new;
    struct pshm_name name;
};

static int
act_make(void *context)
{
    struct making *making = context;
    struct pshm_new_object *new = &making->new;
    int rc = make(&making->params, new);
    if (rc == 0 && making->params.kind == PSHM_NAMED) {
        rc = pshm_new_object_publish(new, &making->name);
        if (rc < 0) {
            pshm_new_object_discard(new);
        }
    }
    return rc;
}

static void
undo_make(void *context)
{
    struct making *making = context;
    struct stat st;
    CHECK(fstat(making->new.fd, &st) == 0);
    CHECK_IS(st.st_size, making->params.size);
    CHECK(!making->params.reserve || st.st_blocks * 512 >= making->params.size);
    if (making->params.kind == PSHM_NAMED) {
        CHECK_IS(st.st_mode & 07777, making->params.mode);
        CHECK_IS(st.st_nlink, 1);
        CHECK(pshm_identity_same(identity_of(&making->name),
                                 making->new.id));
        remove_plain(&making->name);
    }
    pshm_new_object_discard(&making->new);
}

static void
each_failure_is_returned(void)
{
    mode_t old = umask(077);
    for (int i = 0; i < 16; i++) {
        struct making making = {.new = PSHM_NEW_OBJECT_NONE,
                                .name = name_of("object")};
        struct operation op = {
            .name = "make and publish", .act = act_make, .undo = undo_make,
            .context = &making, .resumes = true,
            .overcomes = " access open fstatvfs close unlink munmap lstat "};
        making.params = params_of(PSHM_NAMED, &making.name, 70000);
        making.params.temporary = i & 1;
        making.params.reserve = i & 2;
        making.params.populate = i & 4;
        making.params.huge_pages = i & 8;
        making.params.mode = 0644;
        making.params.gid = i & 1 ? getegid() : (gid_t)-1;
        int calls = fail_each(&op);
        check_about("options %d: %s", i, pshm_fault_log());
        CHECK(calls >= 7);
        remove_plain(&making.name);
    }
    for (int i = 0; i < 4; i++) {
        struct making making = {.new = PSHM_NEW_OBJECT_NONE};
        struct operation op = {
            .name = i & 1 ? "make a memfd" : "make unnamed",
            .act = act_make, .undo = undo_make, .context = &making,
            .resumes = true, .overcomes = " fstatvfs close "};
        making.params = params_of(i & 1 ? PSHM_MEMFD : PSHM_UNNAMED, NULL,
                                  70000);
        making.params.populate = i & 2;
        CHECK(fail_each(&op) >= 5);
    }
    (void)umask(old);
}

/* ---- a death at each step ---- */

#define FILL 'f'

static int
make_fill_and_publish(void *context)
{
    struct making *making = context;
    int rc = make(&making->params, &making->new);
    if (rc == 0) {
        memset(making->new.base, FILL, making->new.length);
        rc = pshm_new_object_publish(&making->new, &making->name);
    }
    return rc;
}

/* The name is free, or refers to a finished object. */
static void
check_only_finished_objects(const struct making *making)
{
    struct pshm_object object;
    int rc = pshm_attach(&making->name, false, &PSHM_ACCEPT_ANY, &object);
    if (rc < 0) {
        CHECK_IS(rc, -ENOENT);
        return;
    }
    CHECK_IS(object.size, making->params.size);
    CHECK_IS(object.mode & 07777, making->params.mode);
    size_t size = (size_t)object.size;
    void *base = mmap(NULL, size, PROT_READ, MAP_SHARED, object.fd, 0);
    if (CHECK(base != MAP_FAILED)) {
        CHECK(all_bytes_are(base, size, FILL));
        (void)munmap(base, size);
    }
    (void)close(object.fd);
}

static void
reclaim_all(const char *start, bool *all_removed)
{
    for (;;) {
        struct pshm_name name = first_with(start);
        struct pshm_candidate candidate;
        if (name.path[0] == '\0') {
            return;
        }
        pshm_reclaim(pshm_name_plain(&name), 0, true, &candidate);
        if (!candidate.removed) {
            *all_removed = false;
            return;
        }
    }
}

static void
death_at_each_step_of_making(void)
{
    for (int i = 0; i < 8; i++) {
        int action = i & 1 ? PSHM_FAULT_KILL_BEFORE : PSHM_FAULT_KILL_AFTER;
        struct making making = {.new = PSHM_NEW_OBJECT_NONE,
                                .name = name_of("object")};
        making.params = params_of(PSHM_NAMED, &making.name, 70000);
        making.params.mode = 0640;
        making.params.temporary = i & 2;
        making.params.populate = i & 4;
        bool killed = true;
        struct census before = census_take();
        for (int nth = 1; killed; nth++) {
            bool all_removed = true;
            char beside[PSHM_NAME_MAX + 2];
            (void)snprintf(beside, sizeof(beside), "%s~",
                           pshm_name_plain(&making.name));
            check_about("options %d, killed at call %d", i, nth);
            killed = child_killed_at(nth, action, make_fill_and_publish,
                                     &making);
            check_only_finished_objects(&making);
            int left = names_with(beside);
            CHECK(left <= 1);
            CHECK_IS(names_with(prefix()) - left,
                     identity_of(&making.name).ino != 0);
            reclaim_all(pshm_name_plain(&making.name), &all_removed);
            CHECK(all_removed);
            CHECK_NOTHING_LEFT(before);
        }
    }
}

/* ---- other processes at each step ---- */

struct visitor {
    struct pshm_name name;
    bool all_removed;
};

static void
reclaim_by_prefix(void *context)
{
    struct visitor *visitor = context;
    reclaim_all(pshm_name_plain(&visitor->name), &visitor->all_removed);
}

/* A reclaimer selects the prefix of the name while the object is made. */
static void
new_object_is_not_reclaimed(void)
{
    for (int i = 0; i < 2; i++) {
        struct visitor visitor = {.name = name_of("object")};
        struct pshm_new_object_params params =
            params_of(PSHM_NAMED, &visitor.name, 70000);
        struct census before = census_take();
        for (int nth = 1, seen = nth; nth <= seen; nth++) {
            struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
            check_about("temporary %d, reclaimed before call %d", i, nth);
            pshm_fault_hook(reclaim_by_prefix, &visitor);
            pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
            CHECK_IS(make(&params, &new), 0);
            CHECK_IS(pshm_new_object_publish(&new, &visitor.name), 0);
            seen = pshm_fault_disarm();
            CHECK(pshm_identity_same(identity_of(&visitor.name), new.id));
            pshm_new_object_discard(&new);
            remove_plain(&visitor.name);
            CHECK_NOTHING_LEFT(before);
        }
    }
}

int
main(void)
{
    RUN(object_has_no_name_until_it_is_published);
    RUN(taken_name_leaves_the_object_unchanged);
    RUN(unnamed_object_can_be_published_later);
    RUN(named_object_without_o_tmpfile);
    RUN(object_is_made_again_if_it_is_reclaimed_at_once);
    RUN(named_object_without_proc);
    RUN(memfd_is_sealed_against_shrinking);
    RUN(mapping_may_be_longer_than_the_object);
    RUN(list_is_set_before_the_object_has_a_name);
    RUN(refused_list_is_reported);
    RUN(kernel_without_huge_pages_uses_small_pages);
    RUN(pages_that_cannot_be_populated_are_reserved_or_reported);
    RUN(populated_memory_is_not_reserved_again);
    RUN(each_failure_is_returned);
    RUN(death_at_each_step_of_making);
    RUN(new_object_is_not_reclaimed);
    return finish();
}
