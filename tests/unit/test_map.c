#include "check.h"
#include "posix/constants.h"
#include "posix/object/map.h"

static int
memory_file(off_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(ftruncate(fd, size) == 0);
    return fd;
}

/* ---- mapping ---- */

static void
any_range_is_mapped_shared(void)
{
    off_t page = (off_t)PAGE;
    int fd = memory_file(4 * page);
    void *all = NULL, *part = NULL;
    CHECK_IS(pshm_page_size(), PAGE);
    CHECK_IS(pshm_map(fd, 0, 4 * PAGE, PROT_READ | PROT_WRITE, &all), 0);
    CHECK_IS(pshm_map(fd, 2 * page, 10, PROT_READ, &part), 0);
    if (all != NULL && part != NULL) {
        ((char *)all)[2 * PAGE + 3] = 'x';
        CHECK(((char *)part)[3] == 'x');
        char byte = 0;
        CHECK(pread(fd, &byte, 1, 2 * page + 3) == 1 && byte == 'x');
    }
    pshm_unmap(all, 4 * PAGE);
    pshm_unmap(part, 10);
    pshm_unmap(NULL, 10);
    (void)close(fd);
}

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

static void
range_lies_within_the_object(void)
{
    static const struct {
        off_t offset, length;
        int rc;
        off_t mapped;
    } ranges[] = {
        {0, -1, 0, 3},       {1, -1, 0, 2},       {0, 3, 0, 3},
        {2, 1, 0, 1},        {0, 4, -ERANGE, 0},  {1, 3, -ERANGE, 0},
        {3, -1, -ERANGE, 0}, {3, 1, -ERANGE, 0},  {99, -1, -ERANGE, 0},
        {0, 0, -EINVAL, 0},
    };
    off_t page = (off_t)PAGE;
    int fd = memory_file(3 * page);
    for (size_t i = 0; i < COUNT(ranges); i++) {
        void *base = NULL;
        off_t length = ranges[i].length < 0 ? -1 : ranges[i].length * page;
        struct pshm_map_seen seen;
        check_about("range %zu", i);
        CHECK_IS(pshm_map_range(fd, ranges[i].offset * page, &length,
                                PROT_READ, false, &base, &seen),
                 ranges[i].rc);
        CHECK_IS(seen.size, 3 * page);
        if (base != NULL) {
            CHECK_IS(length, ranges[i].mapped * page);
            pshm_unmap(base, (size_t)length);
        }
    }
    void *base = NULL;
    off_t length = INT64_MAX;
    struct pshm_map_seen seen;
    CHECK_IS(pshm_map_range(fd, page, &length, PROT_READ, false, &base, &seen),
             -ERANGE);
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen),
             -EIO);
    (void)pshm_fault_disarm();
    (void)close(fd);

    /* a device has no size */
    fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    length = page;
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, false, &base, &seen),
             -EINVAL);
    CHECK(S_ISCHR(seen.mode));
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, true, &base, &seen), 0);
    CHECK_IS(seen.size, -1);
    pshm_unmap(base, PAGE);
    length = -1;
    CHECK_IS(pshm_map_range(fd, 0, &length, PROT_READ, true, &base, &seen),
             -ERANGE);
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

static void
protection_can_be_removed_and_restored(void)
{
    int fd = memory_file((off_t)(2 * PAGE));
    void *base = NULL;
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK_IS(pshm_map(fd, 0, 2 * PAGE, PROT_READ | PROT_WRITE, &base), 0);
    CHECK(write(ends[1], "xy", 2) == 2);
    CHECK_IS(pshm_map_protect(base, PAGE, PROT_READ), 0);
    /* the kernel writes for the caller, and returns an error instead of a
     * signal */
    CHECK(read(ends[0], base, 1) == -1 && errno == EFAULT);
    CHECK(read(ends[0], (char *)base + PAGE, 1) == 1);
    CHECK_IS(pshm_map_protect(base, PAGE, PROT_READ | PROT_WRITE), 0);
    CHECK(read(ends[0], base, 1) >= 0);
    pshm_unmap(base, 2 * PAGE);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(fd);

    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK_IS(pshm_map(fd, 0, PAGE, PROT_READ, &base), 0);
    CHECK_IS(pshm_map_protect(base, PAGE, PROT_READ | PROT_WRITE), -EACCES);
    CHECK_IS(pshm_map_protect(base, PAGE, -1), -EINVAL);
    pshm_unmap(base, PAGE);
    (void)close(fd);
}

static void
unsafe_advice_is_recognized(void)
{
    static const int safe[] = {
        MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
        MADV_DONTNEED, MADV_DOFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
        MADV_DONTDUMP, MADV_DODUMP, MADV_COLD, MADV_PAGEOUT,
        MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE};
    static const int unsafe[] = {
        MADV_REMOVE, MADV_DONTFORK, MADV_FREE, MADV_WIPEONFORK,
        MADV_HWPOISON, 102 /* MADV_GUARD_INSTALL */, 1000, -1};
    for (size_t i = 0; i < COUNT(safe); i++) {
        CHECK(pshm_advice_is_safe(safe[i]));
    }
    for (size_t i = 0; i < COUNT(unsafe); i++) {
        check_about("advice %d", unsafe[i]);
        CHECK(!pshm_advice_is_safe(unsafe[i]));
    }
}

/* The bytes must not change, with or without huge pages, here and in a child.
 */
static int
check_bytes(void *context)
{
    const char *bytes = context;
    return bytes[0] != 'b' || bytes[PAGE] != 'c';
}

static void
safe_advice_keeps_the_bytes(void)
{
    int fd = memory_file((off_t)(2 * PAGE));
    void *base = NULL;
    CHECK_IS(pshm_map(fd, 0, 2 * PAGE, PROT_READ | PROT_WRITE, &base), 0);
    char *bytes = base;
    for (int advice = 0; advice < 128; advice++) {
        if (!pshm_advice_is_safe(advice)) {
            continue;
        }
        bytes[0] = 'b';
        bytes[PAGE] = 'c';
        check_about("advice %d", advice);
        int rc = pshm_map_advise(base, 2 * PAGE, advice);
        CHECK(rc == 0 || rc == -EINVAL || rc == -EAGAIN);
        CHECK(bytes[0] == 'b' && bytes[PAGE] == 'c');
        CHECK_IS(child_run(check_bytes, base), 0);
    }
    pshm_unmap(base, 2 * PAGE);
    (void)close(fd);
}

static int
lock_without_permission(void *context)
{
    limit_to(RLIMIT_MEMLOCK, 0);
    if (become_nobody() != 0) {
        return CANNOT;
    }
    int rc = pshm_map_lock(context, PAGE, true);
    CHECK(rc == -EPERM || rc == -ENOMEM);
    return 0;
}

static void
locked_pages_remain_resident(void)
{
    if (SANITIZED) {
        skip("sanitizers ignore mlock");
        return;
    }
    int fd = memory_file((off_t)(4 * PAGE));
    void *base = NULL;
    size_t resident = 0;
    CHECK_IS(pshm_map(fd, 0, 4 * PAGE, PROT_READ | PROT_WRITE, &base), 0);
    CHECK_IS(pshm_map_lock(base, 2 * PAGE, true), 0);
    CHECK_IS(pshm_map_resident(base, 4 * PAGE, &resident), 0);
    CHECK_IS(resident, 2 * PAGE);
    /* MADV_DONTNEED is refused for locked pages */
    CHECK_IS(pshm_map_advise(base, PAGE, MADV_DONTNEED), -EINVAL);
    CHECK_IS(pshm_map_lock(base, 2 * PAGE, false), 0);
    CHECK_IS(pshm_map_advise(base, PAGE, MADV_DONTNEED), 0);
    int status = child_run(lock_without_permission, base);
    CHECK(status == 0 || status == CANNOT);
    pshm_unmap(base, 4 * PAGE);
    (void)close(fd);
}

static void
syncing_checks_its_flags(void)
{
    int fd = memory_file((off_t)PAGE);
    void *base = NULL;
    CHECK_IS(pshm_map(fd, 0, PAGE, PROT_READ | PROT_WRITE, &base), 0);
    CHECK_IS(pshm_map_sync(base, PAGE, MS_SYNC), 0);
    CHECK_IS(pshm_map_sync(base, PAGE, MS_ASYNC | MS_INVALIDATE), 0);
    CHECK_IS(pshm_map_sync(base, PAGE, MS_SYNC | MS_ASYNC), -EINVAL);
    pshm_unmap(base, PAGE);
    CHECK_IS(pshm_map_sync(base, PAGE, MS_SYNC), -ENOMEM);
    (void)close(fd);
}

/* More pages than one call of mincore(2) is used for. */
static void
resident_pages_are_counted(void)
{
    size_t length = 10000 * PAGE, resident = 0;
    int fd = memory_file((off_t)length);
    void *base = NULL;
    CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE, &base), 0);
    ((volatile char *)base)[0] = 1;
    ((volatile char *)base)[4095 * PAGE] = 1;
    ((volatile char *)base)[4096 * PAGE] = 1;
    ((volatile char *)base)[9999 * PAGE] = 1;
    CHECK_IS(pshm_map_resident(base, length, &resident), 0);
    CHECK_IS(resident, 4 * PAGE);
    CHECK_IS(pshm_map_resident(base, length - PAGE + 1, &resident), 0);
    CHECK_IS(resident, 4 * PAGE);
    CHECK_IS(pshm_map_resident(base, length - PAGE, &resident), 0);
    CHECK_IS(resident, 3 * PAGE);
    pshm_unmap(base, length);
    (void)close(fd);
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
    RUN(any_range_is_mapped_shared);
    RUN(bad_ranges_are_errors);
    RUN(range_lies_within_the_object);
    RUN(huge_pages_are_mapped_whole);
    RUN(large_blocks_are_not_huge_pages);
    RUN_IN_CHILD(limit_of_locked_memory_is_returned, 0);
    RUN(lack_of_address_space_is_an_error);
    RUN(too_many_mappings_are_an_error);
    RUN(protection_can_be_removed_and_restored);
    RUN(unsafe_advice_is_recognized);
    RUN(safe_advice_keeps_the_bytes);
    RUN(locked_pages_remain_resident);
    RUN(syncing_checks_its_flags);
    RUN(resident_pages_are_counted);
    RUN(each_failure_is_returned);
    return finish();
}
