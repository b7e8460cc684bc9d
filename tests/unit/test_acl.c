#include "check.h"
#include "posix/object/acl.h"
#include "posix/object/new_object.h"

#include <linux/posix_acl_xattr.h>

#define LIST_MOST 6

/* The extended attribute that setfacl(1) sets for these entries. */
struct list {
    struct posix_acl_xattr_header header;
    struct posix_acl_xattr_entry entries[LIST_MOST];
};

static const struct list plain = {
    {2}, {{1, 6, UINT32_MAX}, {4, 4, UINT32_MAX}, {32, 0, UINT32_MAX}}};
static const struct list named = {
    {2},
    {{1, 6, UINT32_MAX}, {2, 6, 7}, {4, 0, UINT32_MAX}, {16, 4, UINT32_MAX},
     {32, 0, UINT32_MAX}}};

static size_t
size_of(int entries)
{
    return sizeof(struct posix_acl_xattr_header)
           + (size_t)entries * sizeof(struct posix_acl_xattr_entry);
}

static int
new_file(mode_t mode)
{
    int fd = open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_IS(fchmod(fd, mode), 0);
    return fd;
}

static mode_t
mode_of(int fd)
{
    struct stat st;
    CHECK_IS(fstat(fd, &st), 0);
    return st.st_mode & 07777;
}

static void
list_is_read_as_it_was_set(void)
{
    char buffer[PSHM_ACL_MAX];
    int fd = new_file(0600);
    CHECK_IS(pshm_acl_get(fd, buffer, sizeof(buffer)), 0);
    CHECK_IS(pshm_acl_set(fd, &named, size_of(5), 0640), 0);
    CHECK_IS(mode_of(fd), 0640);
    CHECK_IS(pshm_acl_get(fd, buffer, sizeof(buffer)), (int)size_of(5));
    CHECK_IS(memcmp(buffer, &named, size_of(5)), 0);
    CHECK_IS(pshm_acl_get(fd, buffer, 4), -ERANGE);
    (void)close(fd);
}

static void
list_of_mode_entries_removes_the_list(void)
{
    char buffer[PSHM_ACL_MAX];
    int fd = new_file(0600);
    CHECK_IS(pshm_acl_set(fd, &named, size_of(5), 0640), 0);
    CHECK_IS(pshm_acl_set(fd, &plain, size_of(3), 0640), 0);
    CHECK_IS(pshm_acl_get(fd, buffer, sizeof(buffer)), 0);
    CHECK_IS(mode_of(fd), 0640);
    (void)close(fd);
}

static void
mode_is_set_if_lists_are_not_supported(void)
{
    char buffer[PSHM_ACL_MAX];
    int fd = new_file(0600);
    pshm_fault_arm("fsetxattr", 1, PSHM_FAULT_FAIL, EOPNOTSUPP);
    CHECK_IS(pshm_acl_set(fd, &plain, size_of(3), 04640), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(mode_of(fd), 04640);
    pshm_fault_arm("fsetxattr", 1, PSHM_FAULT_FAIL, EOPNOTSUPP);
    CHECK_IS(pshm_acl_set(fd, &named, size_of(5), 0660), -EOPNOTSUPP);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(mode_of(fd), 04640);
    pshm_fault_arm("fgetxattr", 1, PSHM_FAULT_FAIL, EOPNOTSUPP);
    CHECK_IS(pshm_acl_get(fd, buffer, sizeof(buffer)), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    (void)close(fd);
}

static void
errors_are_returned(void)
{
    char buffer[PSHM_ACL_MAX];
    CHECK_IS(pshm_acl_get(-1, buffer, sizeof(buffer)), -EBADF);
    CHECK_IS(pshm_acl_set(-1, &plain, size_of(3), 0600), -EBADF);
    int fd = new_file(0600);
    CHECK_IS(pshm_acl_set(fd, &named, size_of(4), 0600), -EINVAL);
    pshm_fault_arm("fsetxattr", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_acl_set(fd, &plain, size_of(3), 0640), -EPERM);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(mode_of(fd), 0600);
    (void)close(fd);
}

static void
new_object_has_its_list_and_mode(void)
{
    char buffer[PSHM_ACL_MAX];
    struct pshm_new_object_params params = {
        .kind = PSHM_UNNAMED, .size = 100, .mode = 04640,
        .uid = (uid_t)-1, .gid = (gid_t)-1, .acl = &named,
        .acl_size = size_of(5)};
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    CHECK_IS(pshm_new_object_make(&params, &go_on, &new), 0);
    CHECK(!new.acl_refused);
    CHECK_IS(mode_of(new.fd), 04640);
    CHECK_IS(pshm_acl_get(new.fd, buffer, sizeof(buffer)),
             (int)size_of(5));
    CHECK_IS(memcmp(buffer, &named, size_of(5)), 0);
    pshm_new_object_discard(&new);
    pshm_fault_arm("fsetxattr", 1, PSHM_FAULT_FAIL, EOPNOTSUPP);
    CHECK_IS(pshm_new_object_make(&params, &go_on, &new), -EOPNOTSUPP);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(new.acl_refused);
    pshm_new_object_discard(&new);
}

/* Checks a memfd, because mount options do not affect it. */
static bool
kernel_supports_lists(void)
{
    int fd = memfd_create("acl", MFD_CLOEXEC);
    int rc = pshm_acl_set(fd, &named, size_of(5), 0640);
    (void)close(fd);
    return rc != -EOPNOTSUPP;
}

int
main(void)
{
    RUN(mode_is_set_if_lists_are_not_supported);
    if (!kernel_supports_lists()) {
        (void)printf("NOT TESTED: the kernel was built without "
                     "CONFIG_TMPFS_POSIX_ACL\n");
        return finish();
    }
    RUN(list_is_read_as_it_was_set);
    RUN(list_of_mode_entries_removes_the_list);
    RUN(errors_are_returned);
    RUN(new_object_has_its_list_and_mode);
    return finish();
}
