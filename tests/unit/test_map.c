#include "check.h"
#include "posix/constants.h"
#include "posix/object/map.h"

/* ---- mapping ---- */

static void
bad_ranges_are_errors(void)
{
    int fd = memory_file((off_t)PAGE);
    int reading = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    void *base = &fd;
    CHECK_IS(pshm_map(fd, 1, PAGE, PROT_READ, &base), -EINVAL);
    CHECK_IS(pshm_map(fd, 0, 0, PROT_READ, &base), -EINVAL);
    CHECK_IS(pshm_map(fd, 0, SIZE_MAX - PAGE, PROT_READ, &base), -ENOMEM);
    CHECK_IS(pshm_map(-1, 0, PAGE, PROT_READ, &base), -EBADF);
    CHECK_IS(pshm_map(reading, 0, PAGE, PROT_READ | PROT_WRITE, &base),
             -EACCES);
    CHECK(base == &fd);
    (void)close(reading);
    (void)close(fd);
}

static int
map_with_little_address_space(void *context)
{
    void *base = NULL;
    limit_to(RLIMIT_AS, 64 << 20);
    CHECK_IS(pshm_map(*(int *)context, 0, 65 << 20, PROT_READ, &base),
             -ENOMEM);
    CHECK(base == NULL);
    CHECK_IS(pshm_map(*(int *)context, 0, PAGE, PROT_READ, &base), 0);
    return 0;
}

/* munmap(2) only accepts whole huge pages. */
static void
huge_pages_are_mapped_whole(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_HUGETLB);
    struct stat st;
    if (fd < 0) {
        skip("the kernel has no huge pages");
        return;
    }
    CHECK(fstat(fd, &st) == 0);
    off_t huge = st.st_blksize, length = (off_t)PAGE;
    struct pshm_map_seen seen;
    void *base = NULL;
    CHECK(ftruncate(fd, 2 * huge) == 0);
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen),
             -ERANGE);
    CHECK_IS(seen.huge_page, huge);
    length = huge;
    CHECK_IS(pshm_map_range(fd, (off_t)PAGE, &length, PROT_READ, false, &base,
                            &seen),
             -ERANGE);
    /* The machine may not have a free huge page. */
    int rc = pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen);
    CHECK(rc == 0 || rc == -ENOMEM);
    pshm_unmap(base, (size_t)length);
    /* The kind of the file system may be unknown. */
    length = (off_t)PAGE;
    pshm_fault_arm("fstatfs", 1, PSHM_FAULT_FAIL, EIO);
    (void)pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(seen.huge_page, 0);
    (void)close(fd);
}

/* Blocks of a file system may be larger than a page. */
static int
map_on_a_mount_with_large_blocks(void *context)
{
    struct pshm_name name = name_of("object");
    struct pshm_map_seen seen;
    off_t length = -1;
    void *base = NULL;
    (void)context;
    if (mount_own(PSHM_DIR, "mode=1777,huge=always") != 0) {
        return CANNOT;
    }
    (void)make_plain(&name, 10, 0600, 0);
    int fd = open(name.path, O_RDONLY | O_CLOEXEC);
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen),
             0);
    CHECK_IS(length, 10);
    CHECK_IS(seen.huge_page, 0);
    pshm_unmap(base, 10);
    (void)close(fd);
    return 0;
}

static void
large_blocks_are_not_huge_pages(void)
{
    CHECK_IN_CHILD(map_on_a_mount_with_large_blocks, NULL,
                   "cannot mount a tmpfs of huge pages");
}

static int
limit_of_locked_memory_is_returned(void *context)
{
    (void)context;
    limit_to(RLIMIT_MEMLOCK, 4096);
    CHECK_IS(pshm_map_lock_limit(), 4096);
    pshm_fault_arm("getrlimit", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK(pshm_map_lock_limit() == UINT64_MAX);
    (void)pshm_fault_disarm();
    return 0;
}

static void
lack_of_address_space_is_an_error(void)
{
    if (SANITIZED) {
        skip("sanitizers need much address space");
        return;
    }
    int fd = memory_file(100 * MIB);
    CHECK_IS(child_run(map_with_little_address_space, &fd), 0);
    (void)close(fd);
}

/* Debian allows 65,530 mappings, Ubuntu and Fedora 1,048,576. */
#define MOST_MAPPINGS 3000000

/* Reach vm.max_map_count in a child, whose mappings end with it. */
static int
make_too_many_mappings(void *context)
{
    void *base = NULL, *last = NULL;
    int rc = 0;
    for (long i = 0; rc == 0 && i <= MOST_MAPPINGS; i++) {
        last = base;
        /* always the same page, so that the kernel cannot join the mappings */
        rc = pshm_map(*(int *)context, 0, PAGE, PROT_READ, &base);
    }
    CHECK_IS(rc, -ENOMEM);
    pshm_unmap(last, PAGE);
    CHECK_IS(pshm_map(*(int *)context, 0, PAGE, PROT_READ, &base), 0);
    return 0;
}

static void
too_many_mappings_are_an_error(void)
{
    long most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    if (file == NULL || fscanf(file, "%ld", &most) != 1 || most > MOST_MAPPINGS
        || SANITIZED) {
        skip("vm.max_map_count is high, or sanitizers need too much memory");
    }
    else {
        int fd = memory_file((off_t)PAGE);
        CHECK_IS(child_run(make_too_many_mappings, &fd), 0);
        (void)close(fd);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

/* ---- the other calls ---- */

static void
do_nothing(void *context)
{
    (void)context;
}

static void *range;

static int
act_map(void *context)
{
    return pshm_map(*(int *)context, 0, PAGE, PROT_READ, &range);
}

static void
undo_map(void *context)
{
    (void)context;
    pshm_unmap(range, PAGE);
}

static int
act_protect(void *context)
{
    return pshm_map_protect(context, PAGE, PROT_READ);
}

static int
act_advise(void *context)
{
    return pshm_map_advise(context, PAGE, MADV_NORMAL);
}

static int
act_sync(void *context)
{
    return pshm_map_sync(context, PAGE, MS_SYNC);
}

static int
act_lock(void *context)
{
    return pshm_map_lock(context, PAGE, true);
}

static int
act_unlock(void *context)
{
    return pshm_map_lock(context, PAGE, false);
}

static int
act_resident(void *context)
{
    size_t bytes;
    return pshm_map_resident(context, PAGE, &bytes);
}

static void
each_failure_is_returned(void)
{
    static int (*const acts[])(void *context) = {
        act_protect, act_advise, act_sync, act_lock, act_unlock, act_resident};
    int fd = memory_file((off_t)PAGE);
    struct operation op = {
        .name = "map", .act = act_map, .undo = undo_map, .context = &fd};
    CHECK_IS(fail_each(&op), 1);
    CHECK_IS(pshm_map(fd, 0, PAGE, PROT_READ, &range), 0);
    for (size_t i = 0; i < COUNT(acts); i++) {
        op = (struct operation){.name = "a call on a mapping",
                                .act = acts[i],
                                .undo = do_nothing,
                                .context = range};
        CHECK_IS(fail_each(&op), 1);
    }
    pshm_unmap(range, PAGE);
    (void)close(fd);
}

int
main(void)
{
    RUN(bad_ranges_are_errors);
    RUN(huge_pages_are_mapped_whole);
    RUN(large_blocks_are_not_huge_pages);
    RUN_IN_CHILD(limit_of_locked_memory_is_returned, 0);
    RUN(lack_of_address_space_is_an_error);
    RUN(too_many_mappings_are_an_error);
    RUN(each_failure_is_returned);
    return finish();
}
