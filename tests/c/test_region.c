#include "check.h"
#include "posix/object/map.h"
#include "posix/object/region.h"

#include <pthread.h>

static bool
is_mapped(void *base)
{
    unsigned char there;
    return mincore(base, PAGE, &there) == 0;
}

static struct pshm_region *
new_pages(void **base, size_t length)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, (off_t)length) == 0);
    CHECK_IS(pshm_map(fd, 0, length, PROT_READ | PROT_WRITE, base), 0);
    (void)close(fd);
    struct pshm_region *region = pshm_region_new(*base, length);
    CHECK(region != NULL);
    return region;
}

static struct pshm_region *
new_region(void **base)
{
    return new_pages(base, PAGE);
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
what_a_region_no_longer_has_stays(void)
{
    void *base;
    struct pshm_region *region = new_pages(&base, 2 * PAGE);
    char *end = (char *)base + PAGE;
    pshm_region_keep(region);
    pshm_region_shrink(region, PAGE);
    pshm_region_drop(region);
    CHECK(is_mapped(base) && is_mapped(end));
    pshm_region_drop(region);
    CHECK(!is_mapped(base) && is_mapped(end));
    pshm_unmap(end, PAGE);
}

static void
memory_of_malloc_is_freed(void)
{
    struct pshm_region *region = pshm_region_new(malloc(100), 0);
    pshm_region_keep(region);
    pshm_region_drop(region);
    pshm_region_drop(region);           /* AddressSanitizer sees a leak */
}

static void *
drop(void *region)
{
    pshm_region_drop(region);
    return NULL;
}

static void
any_thread_may_be_the_last(void)
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
find_no_memory(void *context)
{
    void *base = context;
    use_up_memory();
    CHECK(pshm_region_new(base, PAGE) == NULL);
    end_limit(RLIMIT_DATA);
    CHECK(is_mapped(base));
    return 0;
}

static void
without_memory_nothing_is_taken_over(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    void *base = shared_memory(PAGE);
    CHECK_IS(child_run(find_no_memory, base), 0);
    CHECK(munmap(base, PAGE) == 0);
}

int
main(void)
{
    RUN(last_owner_unmaps);
    RUN(what_a_region_no_longer_has_stays);
    RUN(memory_of_malloc_is_freed);
    RUN(any_thread_may_be_the_last);
    RUN(without_memory_nothing_is_taken_over);
    return finish();
}
