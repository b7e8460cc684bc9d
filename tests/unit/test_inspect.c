#include "check.h"
#include "posix/object/inspect.h"

#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

static void
object_is_described(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 5000, 0640, 'x');
    struct pshm_inspected found;
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK(pshm_identity_same(id, (struct pshm_identity){found.st.st_dev,
                                                        found.st.st_ino}));
    CHECK_IS(found.st.st_size, 5000);
    CHECK_IS(found.st.st_mode, S_IFREG | 0640);
    CHECK_IS(found.state, PSHM_FREE);
    CHECK(!found.acl);
    CHECK_IS(found.head_length, PSHM_HEAD);
    CHECK(found.head[0] == 'x' && found.head[PSHM_HEAD - 1] == 'x');
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK(ftruncate(fd, 3) == 0);
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK_IS(found.state, PSHM_IN_USE);
    CHECK_IS(found.head_length, 3);
    (void)close(fd);
    remove_plain(&name);
}

/* The entries of the mode, and one for a user. */
static void
list_is_reported(void)
{
    struct {
        struct posix_acl_xattr_header header;
        struct posix_acl_xattr_entry entries[5];
    } list = {{POSIX_ACL_XATTR_VERSION},
              {{1, 6, (uint32_t)-1}, {2, 4, 5}, {4, 4, (uint32_t)-1},
               {16, 4, (uint32_t)-1}, {32, 0, (uint32_t)-1}}};
    struct pshm_name name = name_of("object");
    struct pshm_inspected found;
    (void)make_plain(&name, 1, 0640, 0);
    if (setxattr(name.path, "system.posix_acl_access", &list, sizeof(list),
                 0) < 0) {
        skip("access control lists are not supported");
    }
    else {
        CHECK_IS(pshm_inspect(&name, &found), 0);
        CHECK(found.acl);
        pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL_ON, EACCES);
        CHECK_IS(pshm_inspect(&name, &found), 0);
        (void)pshm_fault_disarm();
        CHECK(found.acl);
    }
    remove_plain(&name);
}

static void
other_files_are_not_found(void)
{
    struct pshm_name name = name_of("other");
    struct pshm_inspected found;
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    CHECK(mkfifo(name.path, 0600) == 0);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    remove_plain(&name);
    CHECK(symlink("/proc/self/maps", name.path) == 0);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    remove_plain(&name);
}

/* The bytes are not read, because that would change the access time. */
static void
object_of_another_user_is_described(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_inspected found;
    (void)make_plain(&name, 9, 0644, 'x');
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK_IS(found.head_length, -EPERM);
    CHECK_IS(found.head[0], 0);
    CHECK_IS(found.state, PSHM_FREE);
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL_ON, EACCES);
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK_IS(found.head_length, -EACCES);
    CHECK_IS(found.state, PSHM_UNKNOWN);
    CHECK_IS(found.st.st_size, 9);
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL_ON, EAGAIN);
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK_IS(found.state, PSHM_IN_USE);
    (void)pshm_fault_disarm();
    remove_plain(&name);
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL_ON, EACCES);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    (void)pshm_fault_disarm();
}

static void
each_failure_is_returned(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_inspected found;
    (void)make_plain(&name, 9, 0644, 'x');
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_inspect(&name, &found), -EIO);
    pshm_fault_arm("pread", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_inspect(&name, &found), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(found.head_length, -EIO);
    remove_plain(&name);
}

int
main(void)
{
    RUN(object_is_described);
    RUN(list_is_reported);
    RUN(other_files_are_not_found);
    RUN(object_of_another_user_is_described);
    RUN(each_failure_is_returned);
    return finish();
}
