#include "check.h"
#include "posix/object/fd.h"
#include "posix/object/size.h"

#include <sys/syscall.h>

static int
open_fresh(const struct pshm_name *name)
{
    int fd = open(name->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static off_t
size_of(int fd)
{
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    return st.st_size;
}

/* The memory of the object, in bytes. */
static off_t
memory_of(int fd)
{
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    return (off_t)st.st_blocks * 512;
}

/* A container's /dev/shm may have as little as 64 MiB. */
static bool
has_space(off_t bytes)
{
    struct pshm_room room;
    CHECK_IS(pshm_room_of(-1, &room), 0);
    if (room.total_bytes == 0 || room.free_bytes >= (uint64_t)bytes) {
        return true;
    }
    skip("not enough space in /dev/shm");
    return false;
}

/* ---- a new object ---- */

static void
large_object_is_reserved_in_pieces(void)
{
    struct pshm_name name = name_of("object");
    off_t size = 66 * MIB + 5;
    if (!has_space(size)) {
        return;
    }
    int fd = open_fresh(&name);
    pshm_fault_arm("fallocate", 0, PSHM_FAULT_FAIL, 0);
    CHECK_IS(pshm_size_set(fd, size, true, &go_on), 0);
    CHECK(pshm_fault_disarm() > 1);
    CHECK_IS(size_of(fd), size);
    CHECK(memory_of(fd) >= size);
    (void)close(fd);
    remove_plain(&name);
}

static int
grow_without_fallocate(void *context)
{
    int fd = *(int *)context;
    if (forbid(SYS_fallocate, EOPNOTSUPP) != 0) {
        return 0;
    }
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_size_grow(fd, 20000, 30000, &go_on), -EIO);
    (void)pshm_fault_disarm();
    CHECK_IS(pshm_size_grow(fd, 10000, 15000, &go_on), 0);
    CHECK_IS(size_of(fd), 20000);
    return 0;
}

static void
file_system_that_cannot_reserve_sets_the_size(void)
{
    struct pshm_name name = name_of("object");
    int fd = open_fresh(&name);
    pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL_ON, EOPNOTSUPP);
    CHECK_IS(pshm_size_set(fd, 10000, true, &go_on), 0);
    CHECK_IS(size_of(fd), 10000);
    CHECK_IS(pshm_size_grow(fd, 10000, 20000, &go_on), 0);
    CHECK_IS(size_of(fd), 20000);
    (void)pshm_fault_disarm();
    CHECK_IS(child_run(grow_without_fallocate, &fd), 0);
    (void)close(fd);
    remove_plain(&name);
}

/* ---- each call fails ---- */

struct sizing {
    int fd;
    off_t from, to;
    bool reserve;
};

static int
set_size(void *context)
{
    const struct sizing *sizing = context;
    int rc = pshm_size_set(sizing->fd, sizing->to, sizing->reserve, &go_on);
    if (rc < 0) {
        CHECK(ftruncate(sizing->fd, 0) == 0);
    }
    return rc;
}

static int
grow_size(void *context)
{
    const struct sizing *sizing = context;
    int rc = pshm_size_grow(sizing->fd, sizing->from, sizing->to, &go_on);
    if (rc < 0) {
        CHECK_IS(size_of(sizing->fd), sizing->from);
        CHECK(memory_of(sizing->fd) < sizing->from + (off_t)PAGE);
    }
    return rc;
}

static void
undo_sizing(void *context)
{
    struct sizing *sizing = context;
    CHECK_IS(size_of(sizing->fd), sizing->to);
    CHECK(!sizing->reserve || memory_of(sizing->fd) >= sizing->to);
    CHECK(ftruncate(sizing->fd, sizing->from) == 0);
}

static void
each_failure_is_returned(void)
{
    struct pshm_name name = name_of("object");
    struct sizing sizing = {
        .fd = open_fresh(&name)};
    struct operation op = {
        .undo = undo_sizing, .context = &sizing, .resumes = true};
    for (int reserve = 0; reserve < 2; reserve++) {
        sizing.reserve = reserve;
        sizing.from = 0;
        sizing.to = 40 * MIB + 1;
        op.name = reserve ? "set and reserve" : "set";
        op.act = set_size;
        CHECK(fail_each(&op) >= 2);
        CHECK(ftruncate(sizing.fd, 0) == 0);
        sizing.from = 10000;
        CHECK(fallocate(sizing.fd, 0, 0, sizing.from) == 0);
        sizing.to = 3 * MIB + 10;
        sizing.reserve = true;
        op.name = "grow";
        op.act = grow_size;
        CHECK(fail_each(&op) >= 2);
        CHECK(ftruncate(sizing.fd, 0) == 0);
    }
    (void)close(sizing.fd);
    remove_plain(&name);
}

/* ---- growing ---- */

static void
growing_never_shrinks(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 90000, 0600, 'x');
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    /* another process has grown the object since its size was read */
    CHECK_IS(pshm_size_grow(fd, 1000, 50000, &go_on), 0);
    CHECK_IS(size_of(fd), 90000);
    (void)close(fd);
    remove_plain(&name);
}

/* ---- another process grows it at each step of a growth that fails ---- */

#define OTHER_SIZE (100 * MIB)

/* The other process reserves memory and writes to it. */
static void
grow_and_write(void *context)
{
    int fd = *(int *)context;
    CHECK(fallocate(fd, 0, 0, OTHER_SIZE) == 0);
    CHECK(pwrite(fd, "theirs", 6, 20 * MIB) == 6);
}

static void
check_theirs(int fd, bool grown)
{
    char bytes[6] = "";
    if (!grown) {
        return;
    }
    CHECK(size_of(fd) >= OTHER_SIZE);
    CHECK(memory_of(fd) >= OTHER_SIZE);
    CHECK(pread(fd, bytes, 6, 20 * MIB) == 6);
    CHECK(memcmp(bytes, "theirs", 6) == 0);
}

/* A growth fails while another process has grown the object in between. */
static void
failed_growth_leaves_what_others_grew(void)
{
    static const int errnos[] = {ENOSPC, EINTR};
    struct pshm_name name = name_of("object");
    if (!has_space(200 * MIB)) {
        return;
    }
    int fd = open_fresh(&name), other = open(name.path, O_RDWR | O_CLOEXEC);
    for (int nth = 1, seen = nth; nth <= seen; nth++) {
        for (size_t i = 0; i < COUNT(errnos); i++) {
            check_about("another grows it before call %d", nth);
            CHECK(ftruncate(fd, 0) == 0 && ftruncate(fd, 10000) == 0);
            pshm_fault_hook(grow_and_write, &other);
            pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
            CHECK_IS(pshm_size_grow(fd, 10000, 130 * MIB, &go_on),
                     0);
            seen = pshm_fault_disarm();
            check_theirs(fd, seen >= nth);

            check_about("another has grown it, and errno %d", errnos[i]);
            struct interrupts interrupts = {.raises = 1};
            const struct pshm_interrupt raise_once = {count_interrupt,
                                                      &interrupts};
            pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL_ON, errnos[i]);
            CHECK_IS(pshm_size_grow(fd, 10000, 200 * MIB, &raise_once),
                     -errnos[i]);
            (void)pshm_fault_disarm();
            check_theirs(fd, seen >= nth);
        }
    }
    (void)close(fd);
    (void)close(other);
    remove_plain(&name);
}

/* The kernel undoes a fallocate(2) that runs out of space. */
static int
fail_beside_another(void *context)
{
    (void)context;
    if (mount_own(PSHM_DIR, "size=200m") != 0) {
        return CANNOT;
    }
    struct pshm_name name = name_of("object");
    int fd = open_fresh(&name);
    CHECK(ftruncate(fd, 10000) == 0);
    /* another process has memory past the end, but has not set the size yet */
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 50 * MIB, MIB) == 0);
    CHECK_IS(memory_of(fd), MIB);
    pshm_fault_arm("fstatvfs", 1, PSHM_FAULT_FAIL_ON, EIO);
    CHECK_IS(pshm_size_grow(fd, 10000, 201 * MIB, &go_on), -ENOSPC);
    (void)pshm_fault_disarm();
    CHECK_IS(size_of(fd), 10000);
    CHECK_IS(memory_of(fd), MIB);
    return 0;
}

static void
kernel_undoes_only_its_own_growth(void)
{
    CHECK_IN_CHILD(fail_beside_another, NULL, "cannot mount");
}

/* A growth of another process is interrupted. */
static void
be_interrupted(void *context)
{
    struct interrupts interrupts = {.raises = 1};
    const struct pshm_interrupt interrupt = {count_interrupt, &interrupts};
    pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_size_grow(*(int *)context, 10000, 200 * MIB, &interrupt),
             -EINTR);
    (void)pshm_fault_disarm();
}

static void
interrupted_growth_leaves_what_others_reserved(void)
{
    struct pshm_name name = name_of("object");
    if (!has_space(200 * MIB)) {
        return;
    }
    int fd = open_fresh(&name);
    int other = open(name.path, O_RDWR | O_CLOEXEC);
    for (int nth = 1, seen = nth; nth <= seen; nth++) {
        check_about("another process is interrupted before call %d", nth);
        CHECK(ftruncate(other, 0) == 0 && ftruncate(other, 10000) == 0);
        pshm_fault_hook(be_interrupted, &fd);
        pshm_fault_arm(NULL, nth, PSHM_FAULT_HOOK_BEFORE, 0);
        int rc = pshm_size_grow(other, 10000, 100 * MIB, &go_on);
        seen = pshm_fault_disarm();
        CHECK_IS(rc, 0);
        CHECK(size_of(other) >= 100 * MIB);
        CHECK(memory_of(other) >= 100 * MIB - 10000);
    }
    (void)close(fd);
    (void)close(other);
    remove_plain(&name);
}

static void
shrinking_is_exact_to_the_byte(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 90000, 0600, 'x');
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK_IS(pshm_size_shrink(fd, 10), 0);
    CHECK_IS(size_of(fd), 10);
    pshm_fault_arm("ftruncate", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_size_shrink(fd, 5), 0);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK_IS(size_of(fd), 5);
    pshm_fault_arm("ftruncate", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_size_shrink(fd, 3), -EIO);
    (void)pshm_fault_disarm();
    CHECK_IS(size_of(fd), 5);
    (void)close(fd);
    remove_plain(&name);
}

/* ---- signals ---- */

/* Some kernels end fallocate(2) with EINTR, and others do not. */
static void
interrupted_call_continues(void)
{
    struct pshm_name name = name_of("object");
    int fd = open_fresh(&name);
    pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_size_set(fd, 10000, true, &go_on), 0);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK_IS(size_of(fd), 10000);
    pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_size_grow(fd, 10000, 20000, &go_on), 0);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK_IS(size_of(fd), 20000);
    pshm_fault_arm("ftruncate", 1, PSHM_FAULT_FAIL, EINTR);
    CHECK_IS(pshm_size_set(fd, 30000, false, &go_on), 0);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK_IS(size_of(fd), 30000);
    (void)close(fd);
    remove_plain(&name);
}

static void
signals_are_checked_between_pieces(void)
{
    struct pshm_name name = name_of("object");
    if (!has_space(40 * MIB)) {
        return;
    }
    int fd = open_fresh(&name);
    for (int raises = 0; raises < 4; raises++) {
        struct interrupts interrupts = {.raises = raises};
        const struct pshm_interrupt interrupt = {count_interrupt,
                                                 &interrupts};
        check_about("a handler raises at check %d", raises);
        int rc = pshm_size_set(fd, 40 * MIB, true, &interrupt);
        CHECK_IS(rc, raises == 1 || raises == 2 ? -EINTR : 0);
        CHECK_IS(interrupts.calls, raises == 1 ? 1 : 2);
        CHECK(ftruncate(fd, 0) == 0);
    }
    (void)close(fd);
    remove_plain(&name);
}

/* ---- a small mount ---- */

static int
read_memory_without_swap(void *context)
{
    (void)context;
    uint64_t host = pshm_memory_available();
    if (mount_own("/proc", "mode=755") != 0) {
        return CANNOT;
    }
    uint64_t all = pshm_memory_available();     /* /proc is empty */
    CHECK(host <= all);
    write_file("/proc/meminfo", "MemAvailable: 3 kB\n");
    CHECK(pshm_memory_available() == all);
    write_file("/proc/meminfo", "MemAvailable: 3 kB\nSwapFree: 2 kB\n");
    CHECK_IS(pshm_memory_available(), 5 * 1024);
    return 0;
}

static void
memory_is_read_from_proc_if_possible(void)
{
    CHECK_IN_CHILD(read_memory_without_swap, NULL, "cannot mount a tmpfs");
}

static void
missing_memory_is_counted(void)
{
    struct pshm_name name = name_of("object");
    int fd = open_fresh(&name), other = open("/proc/self/maps", O_RDONLY);
    CHECK(ftruncate(fd, 4 * (off_t)PAGE) == 0);
    CHECK_IS(pshm_size_missing(fd, 4 * (off_t)PAGE), 4 * PAGE);
    CHECK_IS(pshm_size_reserve(fd, (off_t)PAGE, &go_on), 0);
    CHECK_IS(pshm_size_missing(fd, 4 * (off_t)PAGE), 3 * PAGE);
    CHECK_IS(pshm_size_missing(fd, (off_t)PAGE), 0);
    CHECK_IS(pshm_size_missing(other, 1000), 0);
    CHECK_IS(pshm_size_missing(-1, 1000), -EBADF);
    pshm_fault_arm("fstatfs", 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_size_missing(fd, 1000), -EIO);
    (void)pshm_fault_disarm();
    (void)close(other);
    (void)close(fd);
    remove_plain(&name);
}

static void
limit_that_cannot_be_read_is_an_error(void)
{
    uint64_t limit = 0;
    pshm_fault_arm("getrlimit", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_size_limit(&limit), -EPERM);
    CHECK(limit == UINT64_MAX);
    pshm_fault_arm("getrlimit", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_size_check(1), -EPERM);
    (void)pshm_fault_disarm();
}

/* With several pieces, the pieces before a failed one are freed. A size that
 * cannot fit is refused before the first piece. */
static int
fill_larger_mount(void *context)
{
    (void)context;
    if (mount_own(PSHM_DIR, "size=100m") != 0) {
        return CANNOT;
    }
    struct pshm_name name = name_of("object");
    struct pshm_room room;
    int fd = open_fresh(&name);
    pshm_fault_arm("fallocate", 0, PSHM_FAULT_FAIL, 0);
    CHECK_IS(pshm_size_room(fd, 101 * MIB), -ENOSPC);
    CHECK_IS(pshm_size_room(fd, 100 * MIB), 0);
    CHECK_IS(pshm_size_set(fd, 101 * MIB, true, &go_on), -ENOSPC);
    CHECK_IS(pshm_fault_disarm(), 0);
    CHECK_IS(memory_of(fd), 0);

    CHECK(fallocate(fd, 0, 0, 10 * MIB) == 0);
    /* without statvfs only the kernel finds that the mount is full */
    pshm_fault_arm("fstatvfs", 1, PSHM_FAULT_FAIL_ON, EIO);
    CHECK_IS(pshm_size_grow(fd, 10 * MIB, 120 * MIB, &go_on),
             -ENOSPC);
    (void)pshm_fault_disarm();
    CHECK_IS(size_of(fd), 10 * MIB);
    CHECK_IS(memory_of(fd), 10 * MIB);
    CHECK_IS(pshm_room_of(fd, &room), 0);
    CHECK_IS(room.free_bytes, 90 * MIB);
    CHECK_IS(pshm_size_grow(fd, 10 * MIB, 100 * MIB, &go_on), 0);
    return 0;
}

static void
size_that_cannot_fit_is_refused_at_once(void)
{
    CHECK_IN_CHILD(fill_larger_mount, NULL, "cannot mount");
}

static void
memfd_has_no_limit(void)
{
    struct pshm_room room;
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK_IS(pshm_room_of(fd, &room), 0);
    CHECK_IS(room.total_bytes, 0);
    CHECK_IS(pshm_size_room(fd, 100 * MIB), 0);
    CHECK_IS(pshm_size_set(fd, 100 * MIB, false, &go_on), 0);
    CHECK_IS(pshm_room_of(99, &room), -EBADF);
    pshm_fault_arm(NULL, 1, PSHM_FAULT_FAIL, EIO);
    CHECK_IS(pshm_room_of(-1, &room), -EIO);
    (void)pshm_fault_disarm();
    (void)close(fd);
}

/* If the mount has no limit, the memory of the machine is the limit. */
static void
more_than_the_machine_has_is_refused(void)
{
    static const char *const without[] = {NULL, "open", "read"};
    int fd = memfd_create("test", MFD_CLOEXEC);
    for (size_t i = 0; i < COUNT(without); i++) {
        check_about("without %s", without[i] ? without[i] : "a failure");
        pshm_fault_arm(without[i], without[i] ? 1 : 0, PSHM_FAULT_FAIL_ON,
                       ENOENT);
        CHECK_IS(pshm_size_room(fd, INT64_MAX), -ENOMEM);
        CHECK_IS(pshm_size_room(fd, (off_t)1 << 45), -ENOMEM);
        CHECK_IS(pshm_size_room(fd, 100 * MIB), 0);
        CHECK(pshm_fault_disarm() >= 3);
    }
    /* The memory must not be requested, because the kernel would end processes
     * to provide it. */
    pshm_fault_arm("fallocate", 1, PSHM_FAULT_FAIL_ON, EIO);
    CHECK_IS(pshm_size_set(fd, (off_t)1 << 45, true, &go_on), -ENOMEM);
    CHECK_IS(pshm_size_grow(fd, 0, (off_t)1 << 45, &go_on), -ENOMEM);
    CHECK_IS(pshm_fault_disarm(), 0);
    CHECK_IS(size_of(fd), 0);
    CHECK_IS(memory_of(fd), 0);
    (void)close(fd);
}

int
main(void)
{
    RUN(large_object_is_reserved_in_pieces);
    RUN(file_system_that_cannot_reserve_sets_the_size);
    RUN(each_failure_is_returned);
    RUN(growing_never_shrinks);
    RUN(failed_growth_leaves_what_others_grew);
    RUN(kernel_undoes_only_its_own_growth);
    RUN(interrupted_growth_leaves_what_others_reserved);
    RUN(shrinking_is_exact_to_the_byte);
    RUN(interrupted_call_continues);
    RUN(signals_are_checked_between_pieces);
    RUN(memory_is_read_from_proc_if_possible);
    RUN(missing_memory_is_counted);
    RUN(limit_that_cannot_be_read_is_an_error);
    RUN(size_that_cannot_fit_is_refused_at_once);
    RUN(memfd_has_no_limit);
    RUN(more_than_the_machine_has_is_refused);
    return finish();
}
