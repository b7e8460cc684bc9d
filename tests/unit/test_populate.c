#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>

#include "check.h"
#include "posix/object/map.h"
#include "posix/object/populate.h"

/* More than one piece of a thread. */
#define LARGE (80 * MIB)

static off_t
memory_of(int fd)
{
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    return (off_t)st.st_blocks * 512;
}

/* With one CPU the caller populates all pieces itself. */
static cpu_set_t
use_one_cpu(void)
{
    cpu_set_t old, one;
    CHECK(sched_getaffinity(0, sizeof(old), &old) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &old)) {
            CPU_SET(cpu, &one);
        }
    }
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
    return old;
}

static void
use_cpus(cpu_set_t cpus)
{
    CHECK(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

static int
populate_all(void *base, size_t length, bool write)
{
    return pshm_populate(base, length, write, &go_on);
}

static void
all_pages_are_populated(void)
{
    static const off_t sizes[] = {1, 5000, 1 << 20, (100 << 20) + 1};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (int write = 0; write < 2; write++) {
            void *base = NULL;
            size_t resident = 0;
            size_t length = (size_t)sizes[i];
            size_t pages = (length + PAGE - 1) / PAGE;
            int fd = memory_file(sizes[i]);
            check_about("size %zu, write %d", length, write);
            CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE,
                              &base),
                     0);
            CHECK_IS(pshm_map_resident(base, length, &resident), 0);
            CHECK_IS(resident, 0);
            CHECK_IS(populate_all(base, length, write), 0);
            CHECK_IS(memory_of(fd), pages * PAGE);
            CHECK_IS(pshm_map_resident(base, length, &resident), 0);
            CHECK_IS(resident, pages * PAGE);
            pshm_unmap(base, length);
            (void)close(fd);
        }
    }
}

/* The pages in the page table of this process, from /proc/self/smaps. */
static long
mapped_kib(const void *base)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[1024];
    unsigned long start;
    bool within = false;
    long kib = -1;
    while (file != NULL && kib < 0
           && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%lx-%*x ", &start) == 1
            && strchr(line, '-') < strchr(line, ' ')) {
            within = start == (unsigned long)base;
        }
        else if (within) {
            (void)sscanf(line, "Rss: %ld kB", &kib);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib;
}

static void
pages_are_mapped_not_only_allocated(void)
{
    void *base = NULL;
    int fd = memory_file(MIB);
    CHECK(fallocate(fd, 0, 0, MIB) == 0);
    CHECK_IS(pshm_map(fd, 0, (size_t)MIB, PROT_READ | PROT_WRITE, &base),
             0);
    CHECK_IS(mapped_kib(base), 0);
    CHECK_IS(populate_all(base, (size_t)MIB, true), 0);
    CHECK_IS(mapped_kib(base), 1024);

    /* no store causes a page fault now */
    struct rusage before, after;
    CHECK(getrusage(RUSAGE_SELF, &before) == 0);
    for (size_t at = 0; at < (size_t)MIB; at += PAGE) {
        ((volatile char *)base)[at] = 1;
    }
    CHECK(getrusage(RUSAGE_SELF, &after) == 0);
    CHECK(after.ru_minflt - before.ru_minflt < 100);
    check_about(NULL);
    pshm_unmap(base, (size_t)MIB);
    (void)close(fd);
}

static void
populating_changes_no_bytes(void)
{
    void *base = NULL;
    int fd = memory_file(MIB);
    CHECK(pwrite(fd, "bytes", 5, MIB / 2) == 5);
    CHECK_IS(pshm_map(fd, 0, (size_t)MIB, PROT_READ | PROT_WRITE, &base),
             0);
    CHECK_IS(populate_all(base, (size_t)MIB, true), 0);
    CHECK(memcmp((char *)base + MIB / 2, "bytes", 5) == 0);
    CHECK(((char *)base)[0] == 0);
    pshm_unmap(base, (size_t)MIB);
    (void)close(fd);
}

/* Any of the threads may have the last piece. */
static void
page_past_the_end_is_an_error_not_a_signal(void)
{
    static const off_t sizes[] = {1, LARGE - 1};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        void *base = NULL;
        size_t length = (size_t)sizes[i] + 3 * PAGE;
        int fd = memory_file(sizes[i]);
        CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE, &base), 0);
        CHECK_IS(populate_all(base, length, true), -EFAULT);
        pshm_unmap(base, length);
        (void)close(fd);
    }
}

static int
populate_small_mount(void *context)
{
    (void)context;
    if (mount_own(PSHM_DIR, "size=1m") != 0) {
        return CANNOT;
    }
    void *base = NULL;
    int fd = open(PSHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(ftruncate(fd, 2 * MIB) == 0);
    CHECK_IS(pshm_map(fd, 0, (size_t)(2 * MIB), PROT_READ | PROT_WRITE,
                      &base),
             0);
    CHECK_IS(populate_all(base, (size_t)(2 * MIB), true),
             -EFAULT);
    pshm_unmap(base, (size_t)(2 * MIB));
    (void)close(fd);
    return 0;
}

static void
full_mount_is_an_error_not_a_signal(void)
{
    CHECK_IN_CHILD(populate_small_mount, NULL, "cannot mount");
}

struct populating {
    void *base;
    size_t length;
};

static int
populate(void *context)
{
    const struct populating *populating = context;
    return populate_all(populating->base, populating->length, true);
}

static void
do_nothing(void *context)
{
    (void)context;
}

static void
each_failure_is_returned(void)
{
    struct populating populating = {.length = (size_t)LARGE};
    cpu_set_t cpus = use_one_cpu();
    struct operation op = {
        .name = "populate", .act = populate, .undo = do_nothing,
        .context = &populating, .resumes = true};
    int fd = memory_file(LARGE);
    CHECK_IS(pshm_map(fd, 0, populating.length, PROT_READ | PROT_WRITE,
                      &populating.base),
             0);
    CHECK_IS(fail_each(&op), 5);
    use_cpus(cpus);
    pshm_unmap(populating.base, populating.length);
    (void)close(fd);
}

static void
signals_are_checked_between_pieces(void)
{
    size_t length = (size_t)LARGE;
    void *base = NULL;
    cpu_set_t cpus = use_one_cpu();
    int fd = memory_file((off_t)length);
    CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE, &base), 0);
    for (int raises = 0; raises < 6; raises++) {
        struct interrupts interrupts = {.raises = raises};
        const struct pshm_interrupt interrupt = {count_interrupt,
                                                 &interrupts};
        check_about("a handler raises at check %d", raises);
        int rc = pshm_populate(base, length, false, &interrupt);
        CHECK_IS(rc, raises >= 1 && raises <= 4 ? -EINTR : 0);
        CHECK_IS(interrupts.calls, raises >= 1 && raises <= 4 ? raises : 4);
    }
    use_cpus(cpus);
    pshm_unmap(base, length);
    (void)close(fd);
}

static int
threads_of_this_process(void)
{
    struct dirent **entries = NULL;
    int count = scandir("/proc/self/task", &entries, NULL, NULL);
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free((void *)entries);
    return count - 2;                   /* "." and ".." */
}

/* With any number of CPUs, and also if a handler raises. */
static void
threads_end_with_the_call(void)
{
    int before = threads_of_this_process();
    size_t length = (size_t)LARGE;
    void *base = NULL;
    struct interrupts interrupts = {.raises = 1};
    const struct pshm_interrupt interrupt = {count_interrupt, &interrupts};
    int fd = memory_file(LARGE);
    CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE, &base), 0);
    int rc = pshm_populate(base, length, true, &interrupt);
    CHECK_IS(rc, interrupts.calls > 0 ? -EINTR : 0);
    CHECK_IS(threads_of_this_process(), before);
    pshm_unmap(base, length);
    (void)close(fd);
}

/* As before Linux 5.14: the kernel also returns EINVAL for a read-only mapping
 * that is populated for writing. */
static void
kernel_that_cannot_populate_is_an_error(void)
{
    int fd = memory_file((off_t)PAGE);
    void *base = NULL;
    CHECK_IS(pshm_map(fd, 0, PAGE, PROT_READ, &base), 0);
    CHECK_IS(populate_all(base, PAGE, true), -EINVAL);
    pshm_unmap(base, PAGE);
    (void)close(fd);
}

int
main(void)
{
    RUN(all_pages_are_populated);
    RUN(pages_are_mapped_not_only_allocated);
    RUN(populating_changes_no_bytes);
    RUN(page_past_the_end_is_an_error_not_a_signal);
    RUN(full_mount_is_an_error_not_a_signal);
    RUN(each_failure_is_returned);
    RUN(signals_are_checked_between_pieces);
    RUN(threads_end_with_the_call);
    RUN(kernel_that_cannot_populate_is_an_error);
    return finish();
}
