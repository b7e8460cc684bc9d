#include "check.h"
#include "posix/host.h"
#include "posix/object/attach.h"
#include "posix/object/new_object.h"
#include "posix/object/use_lock.h"
#include "posix/object/link.h"
#include "posix/object/reclaim.h"

#include <linux/posix_acl_xattr.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/statvfs.h>

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
mode_does_not_depend_on_the_umask(void)
{
    static const mode_t umasks[] = {0, 077, 0777};
    static const mode_t modes[] = {0, 0400, 0600, 0640, 0666, 0777, 01660};
    for (size_t i = 0; i < 2 * COUNT(umasks) * COUNT(modes); i++) {
        mode_t mask = umasks[i / 2 % COUNT(umasks)];
        mode_t mode = modes[i / 2 / COUNT(umasks)];
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        struct stat st;
        params.mode = mode;
        params.temporary = i % 2;
        check_about("temporary %d, umask %o, mode %o", params.temporary, mask,
                    mode);
        mode_t old = umask(mask);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        (void)umask(old);
        CHECK(stat(name.path, &st) == 0);
        CHECK_IS(st.st_mode & 07777, mode);
        pshm_new_object_discard(&new);
        remove_plain(&name);
    }
}

static void
owner_is_set_before_the_mode(void)
{
    if (geteuid() != 0) {
        skip("only root can change the owner of an object");
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i;
        struct stat st;
        params.uid = 12;
        params.gid = 34;
        params.mode = 06755;
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        CHECK(stat(name.path, &st) == 0);
        CHECK_IS(st.st_uid, 12);
        CHECK_IS(st.st_gid, 34);
        CHECK_IS(st.st_mode & 07777, 06755);
        pshm_new_object_discard(&new);
        remove_plain(&name);
    }
}

static int
change_the_owner_as_nobody(void *context)
{
    struct pshm_name name = name_of("nobodys");
    struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 1);
    int status = become_nobody();
    if (status != 0) {
        return status;
    }
    for (int i = 0; i < 2; i++) {
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i;
        params.uid = (uid_t)-1;
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        CHECK_IS(pshm_link_remove(&name, new.id), 0);
        pshm_new_object_discard(&new);
        params.uid = 0;
        CHECK_IS(make(&params, &new), -EPERM);
        pshm_new_object_discard(&new);
        /* the name of another user's object is taken, but another name can be
         * used */
        params.uid = (uid_t)-1;
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, context), -EEXIST);
        struct pshm_name spare = name_of("spare");
        CHECK_IS(pshm_new_object_publish(&new, &spare), 0);
        CHECK_IS(pshm_link_remove(&spare, new.id), 0);
        pshm_new_object_discard(&new);
    }
    remove_plain(&name);
    return 0;
}

static void
unprivileged_user_can_make_objects(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 1, 0666, 0);
    CHECK_IN_CHILD(change_the_owner_as_nobody, &name,
                   "cannot change the user");
    CHECK(pshm_identity_same(identity_of(&name), id));
    remove_plain(&name);
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

static void
memory_is_as_requested(void)
{
    static const enum pshm_kind kinds[] = {PSHM_UNNAMED, PSHM_MEMFD};
    for (int i = 0; i < 16; i++) {
        struct pshm_new_object_params params =
            params_of(kinds[i & 1], NULL, 3 * MIB + 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        struct stat st;
        params.reserve = i & 2;
        params.populate = i & 4;
        params.huge_pages = i & 8;
        check_about("reserve %d, populate %d, huge pages %d", params.reserve,
                    params.populate, params.huge_pages);
        CHECK_IS(make(&params, &new), 0);
        CHECK(fstat(new.fd, &st) == 0);
        CHECK_IS(st.st_size, params.size);
        if (params.reserve || params.populate) {
            CHECK(st.st_blocks * 512 >= params.size);
        }
        else {
            CHECK_IS(st.st_blocks, 0);
        }
        pshm_new_object_discard(&new);
    }
}

struct space {
    const char *options;
    off_t size;
    int rc;                     /* with reserve or populate */
};

/* A new object that failed must not leave memory or a name on the mount. */
static int
make_on_small_mount(void *context)
{
    const struct space *space = context;
    struct statvfs before, after;
    if (mount_own(PSHM_DIR, space->options) != 0) {
        return CANNOT;
    }
    CHECK(statvfs(PSHM_DIR, &before) == 0);
    for (int i = 1; i < 16; i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params =
            params_of(PSHM_NAMED, &name, space->size);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i & 1;
        params.reserve = i & 2;
        params.populate = i & 4;
        params.huge_pages = i & 8;
        check_about("%s, %lld bytes, temporary %d, reserve %d, populate %d, "
                    "huge pages %d",
                    space->options, (long long)space->size, i & 1,
                    params.reserve, params.populate, params.huge_pages);
        int rc = make(&params, &new);
        CHECK_IS(rc, params.reserve || params.populate ? space->rc : 0);
        pshm_new_object_discard(&new);
        CHECK_IS(names_with(prefix()), 0);
        CHECK(statvfs(PSHM_DIR, &after) == 0);
        CHECK_IS(after.f_bfree, before.f_bfree);
        CHECK_IS(after.f_ffree, before.f_ffree);
    }
    return 0;
}

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

static void
full_mount_is_an_error_not_a_signal(void)
{
    static const struct space spaces[] = {
        {"size=1m", 2 * MIB, -ENOSPC},
        {"size=1m", MIB, 0},
        {"size=1m", MIB + 1, -ENOSPC},
        {"size=100m", 101 * MIB, -ENOSPC},
        /* more than half of the mount, and more than one piece */
        {"size=100m", 80 * MIB, 0},
    };
    for (size_t i = 0; i < COUNT(spaces); i++) {
        struct space space = spaces[i];
        CHECK_IN_CHILD(make_on_small_mount, &space, "cannot mount");
    }
}

static int
make_without_inodes(void *context)
{
    (void)context;
    if (mount_own(PSHM_DIR, "size=1m,nr_inodes=3") != 0) {
        return CANNOT;
    }
    struct statvfs before, after;
    CHECK(statvfs(PSHM_DIR, &before) == 0);
    struct pshm_name first = name_of("first"), second = name_of("second");
    struct pshm_name name = name_of("object");
    (void)make_plain(&first, 1, 0600, 0);
    (void)make_plain(&second, 1, 0600, 0);
    for (int i = 0; i < 2; i++) {
        struct pshm_new_object_params params =
            params_of(i ? PSHM_UNNAMED : PSHM_NAMED, &name, 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        CHECK_IS(make(&params, &new), -ENOSPC);
        pshm_new_object_discard(&new);
    }
    remove_plain(&second);
    /* one inode is free, which is enough to make an object and publish it */
    for (int i = 0; i < 2; i++) {
        struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 1);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.temporary = i;
        check_about("temporary %d", i);
        CHECK_IS(make(&params, &new), 0);
        CHECK_IS(pshm_new_object_publish(&new, &name), 0);
        pshm_new_object_discard(&new);
        remove_plain(&name);
    }
    remove_plain(&first);
    CHECK(statvfs(PSHM_DIR, &after) == 0);
    CHECK_IS(after.f_ffree, before.f_ffree);
    return 0;
}

static void
lack_of_inodes_is_an_error(void)
{
    CHECK_IN_CHILD(make_without_inodes, NULL, "cannot mount");
}

static int
make_under_limits(void *context)
{
    struct pshm_name name = name_of("object");
    struct pshm_new_object_params params = params_of(PSHM_NAMED, &name, 8193);
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    /* Otherwise SIGXFSZ would end this child. */
    limit_to(RLIMIT_FSIZE, 8192);
    for (int i = 0; i < 8; i++) {
        params.reserve = i & 1;
        params.populate = i & 2;
        params.kind = i & 4 ? PSHM_MEMFD : PSHM_NAMED;
        params.temporary = *(int *)context;
        CHECK_IS(make(&params, &new), -EFBIG);
        pshm_new_object_discard(&new);
    }
    limit_to(RLIMIT_NOFILE, 0);
    for (int kind = PSHM_NAMED; kind <= PSHM_MEMFD; kind++) {
        params = params_of((enum pshm_kind)kind, &name, 1);
        CHECK_IS(make(&params, &new), -EMFILE);
        pshm_new_object_discard(&new);
    }
    return 0;
}

static void
limits_of_the_process_are_errors(void)
{
    for (int i = 0; i < 2; i++) {
        CHECK_IS(child_run(make_under_limits, &i), 0);
        CHECK_IS(names_with(prefix()), 0);
    }
}

/* The size is refused before any memory is reserved. Otherwise a memfd, which
 * has no limit, would use up the memory of the machine. */
static void
impossible_size_is_an_error(void)
{
    static const off_t sizes[] = {INT64_MAX, INT64_MAX - 4095,
                                  (off_t)1 << 45};
    for (int i = 0; i < 27; i++) {
        struct pshm_name name = name_of("object");
        struct pshm_new_object_params params =
            params_of((enum pshm_kind)(i % 3), &name, sizes[i / 9]);
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        params.reserve = i / 3 % 3 != 1;
        params.populate = i / 3 % 3 != 0;
        check_about("kind %d, reserve %d, populate %d, size %lld", i % 3,
                    params.reserve, params.populate, (long long)params.size);
        pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL_ON, EIO);
        int rc = make(&params, &new);
        (void)pshm_fault_disarm();
        CHECK(rc == -EFBIG || rc == -ENOSPC || rc == -ENOMEM
              || rc == -EINVAL);
        pshm_new_object_discard(&new);
    }
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

/* Of two processes that publish one name at once, one gets an error. */
static int
publish_after_a_stop(void *context)
{
    struct making *making = context;
    CHECK_IS(make(&making->params, &making->new), 0);
    (void)raise(SIGSTOP);
    int rc = pshm_new_object_publish(&making->new, &making->name);
    CHECK(rc == 0 || rc == -EEXIST);
    if (rc < 0) {
        pshm_new_object_discard(&making->new);
    }
    return rc == 0 ? 3 : 4;
}

static void
one_of_two_publishers_wins(void)
{
    for (int round = 0; round < 40; round++) {
        pid_t children[2];
        struct making making = {.new = PSHM_NEW_OBJECT_NONE,
                                .name = name_of("object")};
        making.params = params_of(PSHM_NAMED, &making.name, 10);
        for (size_t i = 0; i < COUNT(children); i++) {
            making.params.temporary = (round / 2 + (int)i * round) % 2;
            children[i] = child_start_stopped(publish_after_a_stop, &making);
        }
        CHECK_IS(identity_of(&making.name).ino, 0);
        for (size_t i = 0; i < COUNT(children); i++) {
            CHECK(kill(children[i], SIGCONT) == 0);
        }
        CHECK_IS(child_wait(children[0]) + child_wait(children[1]), 3 + 4);
        CHECK_IS(names_with(prefix()), 1);
        remove_plain(&making.name);
    }
}

/* ---- no process sees a half-made object ---- */

struct traffic {
    struct pshm_name name;
    bool temporary;
    atomic_bool stop;
};

#define TRAFFIC_SIZE (3 * 4096 + 5)

static int
publish_many_times(void *context)
{
    struct traffic *traffic = context;
    struct pshm_new_object_params params =
        params_of(PSHM_NAMED, &traffic->name, TRAFFIC_SIZE);
    params.temporary = traffic->temporary;
    params.mode = 0660;
    for (unsigned int i = 0; !atomic_load(&traffic->stop); i++) {
        struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
        CHECK_IS(make(&params, &new), 0);
        memset(new.base, 'a' + (char)(i % 26), new.length);
        CHECK_IS(pshm_new_object_publish(&new, &traffic->name), 0);
        CHECK_IS(pshm_link_remove(&traffic->name, new.id), 0);
        pshm_new_object_discard(&new);
    }
    return 0;
}

/* Returns whether there was an object. */
static bool
inspect_object(const struct traffic *traffic)
{
    struct pshm_object object;
    int rc = pshm_attach(&traffic->name, false, &PSHM_ACCEPT_ANY, &object);
    if (rc < 0) {
        CHECK_IS(rc, -ENOENT);
        return false;
    }
    CHECK_IS(object.size, TRAFFIC_SIZE);
    CHECK_IS(object.mode, S_IFREG | 0660);
    char *base = mmap(NULL, TRAFFIC_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      object.fd, 0);
    if (CHECK(base != MAP_FAILED)) {
        CHECK(base[0] >= 'a' && base[0] <= 'z');
        CHECK(all_bytes_are(base, TRAFFIC_SIZE, base[0]));
        (void)munmap(base, TRAFFIC_SIZE);
    }
    (void)close(object.fd);
    return true;
}

static void
no_process_sees_a_half_made_object(void)
{
    for (int i = 0; i < 2; i++) {
        struct traffic *traffic = shared_memory(sizeof(*traffic));
        traffic->name = name_of("object");
        traffic->temporary = i;
        check_about("temporary %d", i);
        pid_t child = child_start(publish_many_times, traffic);
        int seen = 0, reads = 0, wanted = SANITIZED ? 1000 : 5000;
        for (; reads < 40 * wanted && (reads < wanted || seen < 100);
             reads++) {
            seen += inspect_object(traffic);
        }
        atomic_store(&traffic->stop, true);
        CHECK_IS(child_wait(child), 0);
        remove_plain(&traffic->name);
        (void)munmap(traffic, sizeof(*traffic));
    }
}

int
main(void)
{
    RUN(object_has_no_name_until_it_is_published);
    RUN(mode_does_not_depend_on_the_umask);
    RUN(owner_is_set_before_the_mode);
    RUN(unprivileged_user_can_make_objects);
    RUN(taken_name_leaves_the_object_unchanged);
    RUN(unnamed_object_can_be_published_later);
    RUN(named_object_without_o_tmpfile);
    RUN(object_is_made_again_if_it_is_reclaimed_at_once);
    RUN(named_object_without_proc);
    RUN(memfd_is_sealed_against_shrinking);
    RUN(mapping_may_be_longer_than_the_object);
    RUN(memory_is_as_requested);
    RUN(list_is_set_before_the_object_has_a_name);
    RUN(refused_list_is_reported);
    RUN(kernel_without_huge_pages_uses_small_pages);
    RUN(pages_that_cannot_be_populated_are_reserved_or_reported);
    RUN(populated_memory_is_not_reserved_again);
    RUN(full_mount_is_an_error_not_a_signal);
    RUN(lack_of_inodes_is_an_error);
    RUN(limits_of_the_process_are_errors);
    RUN(impossible_size_is_an_error);
    RUN(each_failure_is_returned);
    RUN(death_at_each_step_of_making);
    RUN(new_object_is_not_reclaimed);
    RUN(one_of_two_publishers_wins);
    RUN(no_process_sees_a_half_made_object);
    return finish();
}
