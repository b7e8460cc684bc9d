#include "check.h"
#include "posix/object/map.h"
#include "posix/object/region.h"

#include <pthread.h>

static bool
is_mapped(void *base)
{
    unsigned char resident;
    return mincore(base, PAGE, &resident) == 0;
}

static struct pshm_region *
new_region(void **base)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    CHECK_IS(pshm_map(fd, 0, PAGE, PROT_READ | PROT_WRITE, base), 0);
    (void)close(fd);
    struct pshm_region *region = pshm_region_new(*base, PAGE);
    CHECK(region != NULL);
    return region;
}

static void
last_owner_unmaps(void)
{
    void *base;
    struct pshm_region *region = new_region(&base);
    CHECK(pshm_region_is_own(region));
    pshm_region_keep(region);
    CHECK(!pshm_region_is_own(region));
    pshm_region_drop(region);
    CHECK(pshm_region_is_own(region) && is_mapped(base));
    pshm_region_drop(region);
    CHECK(!is_mapped(base));
}

static void
memory_of_malloc_is_freed(void)
{
    struct pshm_region *region = pshm_region_new(malloc(100), 0);
    pshm_region_keep(region);
    pshm_region_drop(region);
    pshm_region_drop(region);           /* or AddressSanitizer finds a leak */
}

/* ---- regions of an object ---- */

static struct pshm_region *
map_object(int fd, off_t size)
{
    struct stat st;
    void *base;
    unsigned shrinks = pshm_region_shrinks();
    struct pshm_region *region = pshm_region_new(NULL, 0);
    CHECK(region != NULL && fstat(fd, &st) == 0);
    CHECK_IS(pshm_map(fd, 0, (size_t)size, PROT_READ | PROT_WRITE, &base), 0);
    CHECK(pshm_region_set(region, base, (size_t)size,
                          (struct pshm_identity){st.st_dev, st.st_ino},
                          shrinks));
    return region;
}

static off_t
size_of(int fd)
{
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    return st.st_size;
}

static int
new_memfd(off_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, size) == 0);
    return fd;
}

static void
object_with_one_region_shrinks(void)
{
    int fd = new_memfd(4 * (off_t)PAGE), other = new_memfd((off_t)PAGE);
    struct pshm_region *region = map_object(fd, 4 * (off_t)PAGE);
    struct pshm_region *others = map_object(other, (off_t)PAGE);
    unsigned before = pshm_region_shrinks();
    CHECK_IS(pshm_region_shrink(region, fd, 10), 0);
    CHECK_IS(size_of(fd), 10);
    CHECK_IS(pshm_region_shrinks(), before + 1);
    pshm_fault_arm("ftruncate", 1, PSHM_FAULT_FAIL, EPERM);
    CHECK_IS(pshm_region_shrink(region, fd, 5), -EPERM);
    (void)pshm_fault_disarm();
    CHECK_IS(size_of(fd), 10);
    pshm_region_drop(others);
    pshm_region_drop(region);
    (void)close(fd);
    (void)close(other);
}

static void
object_with_another_region_does_not_shrink(void)
{
    int fd = new_memfd(4 * (off_t)PAGE);
    struct pshm_region *regions[3];
    for (size_t i = 0; i < COUNT(regions); i++) {
        regions[i] = map_object(fd, (off_t)PAGE);
    }
    for (size_t i = 0; i < COUNT(regions) - 1; i++) {
        CHECK_IS(pshm_region_shrink(regions[2], fd, 1), -EBUSY);
        CHECK_IS(size_of(fd), 4 * PAGE);
        pshm_region_drop(regions[i]);
    }
    CHECK_IS(pshm_region_shrink(regions[2], fd, 1), 0);
    CHECK_IS(size_of(fd), 1);
    pshm_region_drop(regions[2]);
    (void)close(fd);
}

static void
region_set_after_a_shrink_is_refused(void)
{
    int fd = new_memfd(4 * (off_t)PAGE);
    unsigned seen = pshm_region_shrinks();
    struct pshm_region *region = map_object(fd, 4 * (off_t)PAGE);
    CHECK_IS(pshm_region_shrink(region, fd, 1), 0);
    struct pshm_region *late = pshm_region_new(NULL, 0);
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(!pshm_region_set(late, base, PAGE, (struct pshm_identity){1, 2},
                           seen));
    pshm_region_drop(late);
    CHECK(!is_mapped(base));
    pshm_region_drop(region);
    (void)close(fd);
}

struct forked {
    int fd;
    struct pshm_region *own, *other;
};

static int
shrink_in_child(void *context)
{
    const struct forked *forked = context;
    CHECK_IS(pshm_region_shrink(forked->own, forked->fd, 1), -EBUSY);
    pshm_region_drop(forked->other);
    CHECK_IS(pshm_region_shrink(forked->own, forked->fd, 1), 0);
    return 0;
}

static void
forked_child_has_the_same_regions(void)
{
    struct forked forked = {.fd = new_memfd(2 * (off_t)PAGE)};
    forked.own = map_object(forked.fd, (off_t)PAGE);
    forked.other = map_object(forked.fd, (off_t)PAGE);
    CHECK_IS(child_run(shrink_in_child, &forked), 0);
    CHECK_IS(size_of(forked.fd), 1);
    CHECK_IS(pshm_region_shrink(forked.own, forked.fd, 0), -EBUSY);
    pshm_region_drop(forked.other);
    pshm_region_drop(forked.own);
    (void)close(forked.fd);
}

/* Read the size, map that many bytes, and write to the last page. */
static void *
map_and_write(void *context)
{
    int fd = *(int *)context;
    for (int round = 0; round < 2000; round++) {
        struct stat st;
        void *base = NULL;
        struct pshm_region *region = pshm_region_new(NULL, 0);
        unsigned shrinks = pshm_region_shrinks();
        CHECK(fstat(fd, &st) == 0);
        size_t size = (size_t)st.st_size;
        CHECK_IS(pshm_map(fd, 0, size, PROT_READ | PROT_WRITE, &base), 0);
        if (pshm_region_set(region, base, size,
                            (struct pshm_identity){st.st_dev, st.st_ino},
                            shrinks)) {
            ((volatile char *)base)[size - 1] = 1;
        }
        pshm_region_drop(region);
    }
    return NULL;
}

static void
threads_never_write_past_the_end(void)
{
    pthread_t threads[2];
    int fd = new_memfd((off_t)PAGE);
    struct pshm_region *own = map_object(fd, (off_t)PAGE);
    for (size_t i = 0; i < COUNT(threads); i++) {
        CHECK(pthread_create(&threads[i], NULL, map_and_write, &fd) == 0);
    }
    for (int round = 0; round < 2000; round++) {
        CHECK(ftruncate(fd, 8 * (off_t)PAGE) == 0);
        (void)pshm_region_shrink(own, fd, (off_t)PAGE);
    }
    for (size_t i = 0; i < COUNT(threads); i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK_IS(pshm_region_shrink(own, fd, 1), 0);
    pshm_region_drop(own);
    (void)close(fd);
}

static void *
drop(void *region)
{
    pshm_region_drop(region);
    return NULL;
}

static void
any_thread_may_be_the_last_owner(void)
{
    for (int round = 0; round < 200; round++) {
        void *base;
        pthread_t threads[3];
        struct pshm_region *region = new_region(&base);
        for (size_t i = 0; i < COUNT(threads); i++) {
            pshm_region_keep(region);
            CHECK(pthread_create(&threads[i], NULL, drop, region) == 0);
        }
        pshm_region_drop(region);
        for (size_t i = 0; i < COUNT(threads); i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
        CHECK(!is_mapped(base));
    }
}

static int
make_regions_without_memory(void *context)
{
    void *base = context;
    struct pshm_region *region;
    use_up_memory();
    do {                                /* malloc may have some memory left */
        region = pshm_region_new(base, PAGE);
    } while (region != NULL);
    end_limit(RLIMIT_DATA);
    CHECK(is_mapped(base));
    return 0;
}

static void
without_memory_the_caller_keeps_the_mapping(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    void *base = shared_memory(PAGE);
    CHECK_IS(child_run(make_regions_without_memory, base), 0);
    CHECK(munmap(base, PAGE) == 0);
}

int
main(void)
{
    RUN(last_owner_unmaps);
    RUN(object_with_one_region_shrinks);
    RUN(object_with_another_region_does_not_shrink);
    RUN(region_set_after_a_shrink_is_refused);
    RUN(forked_child_has_the_same_regions);
    RUN(threads_never_write_past_the_end);
    RUN(memory_of_malloc_is_freed);
    RUN(any_thread_may_be_the_last_owner);
    RUN(without_memory_the_caller_keeps_the_mapping);
    return finish();
}
