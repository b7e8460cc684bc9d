#include "posix/object/region.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "posix/object/map.h"
#include "posix/object/size.h"

#define BUCKETS 64

struct pshm_region {
    atomic_size_t owners;
    void *base;
    size_t length;                      /* 0: of malloc */
    bool counted;                       /* it is in the table */
    /* Under the lock of the table, if it is counted. */
    struct pshm_identity id;
    struct pshm_region *next, **link;
};

/* Of the process, as its address space is.  No thread waits for anything but a
 * system call while it holds the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pshm_region *buckets[BUCKETS];
static atomic_uint shrinks;

static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void
lock_table(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void
unlock_table(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* A fork waits until the table is consistent. */
static void
prepare(void)
{
    (void)pthread_atfork(lock_table, unlock_table, unlock_table);
}

struct pshm_region *
pshm_region_new(void *base, size_t length)
{
    struct pshm_region *region = malloc(sizeof(*region));
    if (region != NULL) {
        atomic_init(&region->owners, 1);
        region->base = base;
        region->length = length;
        region->counted = false;
    }
    return region;
}

unsigned
pshm_region_shrinks(void)
{
    return atomic_load_explicit(&shrinks, memory_order_acquire);
}

bool
pshm_region_set(struct pshm_region *region, void *base, size_t length,
                struct pshm_identity id, unsigned seen)
{
    (void)pthread_once(&prepared, prepare);
    region->base = base;
    region->length = length;
    region->id = id;
    region->counted = true;
    lock_table();
    struct pshm_region **first = &buckets[(size_t)id.ino % BUCKETS];
    region->next = *first;
    region->link = first;
    if (*first != NULL) {
        (*first)->link = &region->next;
    }
    *first = region;
    bool valid = pshm_region_shrinks() == seen;
    unlock_table();
    return valid;
}

static void
forget(struct pshm_region *region)
{
    if (region->counted) {
        lock_table();
        *region->link = region->next;
        if (region->next != NULL) {
            region->next->link = region->link;
        }
        unlock_table();
    }
}

/* relaxed: the caller is an owner, so nothing depends on the order. */
void
pshm_region_keep(struct pshm_region *region)
{
    atomic_fetch_add_explicit(&region->owners, 1, memory_order_relaxed);
}

/* acq_rel: what each owner did to the memory comes before it is unmapped. */
void
pshm_region_drop(struct pshm_region *region)
{
    if (atomic_fetch_sub_explicit(&region->owners, 1, memory_order_acq_rel)
        > 1) {
        return;
    }
    forget(region);
    if (region->length == 0) {
        free(region->base);
    }
    else {
        pshm_unmap(region->base, region->length);
    }
    free(region);
}

bool
pshm_region_is_own(const struct pshm_region *region)
{
    return atomic_load_explicit(&region->owners, memory_order_acquire) == 1;
}

/* Truncated under the lock, or a thread could read the old size after the count
 * and map it. */
int
pshm_region_shrink(const struct pshm_region *own, int fd, off_t to)
{
    int rc = 0;
    lock_table();
    const struct pshm_region *at = buckets[(size_t)own->id.ino % BUCKETS];
    for (; at != NULL && rc == 0; at = at->next) {
        rc = at != own && pshm_identity_same(at->id, own->id) ? -EBUSY : 0;
    }
    if (rc == 0) {
        atomic_fetch_add_explicit(&shrinks, 1, memory_order_release);
        rc = pshm_size_shrink(fd, to);
    }
    unlock_table();
    return rc;
}
