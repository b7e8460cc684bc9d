#include "robust.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"
#include "libc.h"
#include "host.h"

PSHM_THREAD_LOCAL uintptr_t pshm_thread_number;

uintptr_t
pshm_thread_count(void)
{
    static atomic_uintptr_t last;
    pshm_thread_number
        = atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
    return pshm_thread_number;
}

int
pshm_robust_init(struct pshm_robust *r, unsigned flags)
{
    pthread_mutexattr_t attributes;
    int rc = -pthread_mutexattr_init(&attributes);
    if (rc < 0) {
        return rc;
    }
    rc = -pthread_mutexattr_settype(&attributes,
                                    flags & PSHM_RECURSIVE
                                        ? PTHREAD_MUTEX_RECURSIVE
                                        : PTHREAD_MUTEX_ERRORCHECK);
    if (rc == 0) {
        rc = -pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    if (rc == 0) {
        rc = -pthread_mutexattr_setpshared(&attributes,
                                           PTHREAD_PROCESS_SHARED);
    }
    if (rc == 0) {
        rc = -pthread_mutex_init(&r->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return rc;
}

/* ---- Its place in the list of its owner's mutexes ---- */

#ifdef PSHM_ROBUST_LINKS

static bool links_known;

/* Is the word there another one, or none?  Not where the kernel no longer lets
 * us ask. */
static bool
differs(uintptr_t where, unsigned word)
{
    int rc = pshm_futex_compare(where, word);
    return rc == -EAGAIN || rc == -EFAULT || rc == -EINVAL;
}

/* Is it this address, apart from the flag in its lowest bit, that lies where
 * there may be no memory? */
static bool
holds(uintptr_t where, uintptr_t address)
{
    unsigned half[sizeof(address) / sizeof(unsigned)];
    for (uintptr_t flag = 0; flag <= 1; flag++) {
        uintptr_t word = address | flag;
        size_t same = 0;
        memcpy(half, &word, sizeof(word));
        while (same < sizeof(half) / sizeof(*half)
               && !differs(where + same * sizeof(*half), half[same])) {
            same++;
        }
        if (same == sizeof(half) / sizeof(*half)) {
            return true;
        }
    }
    return false;
}

/* Do both neighbours know it?  A link leads to the neighbour's link forward,
 * before which its link back lies; the lowest bit is a flag. */
static bool
is_linked(const struct pshm_robust *r, const uintptr_t links[2])
{
    const uintptr_t flag = 1;
    uintptr_t self = (uintptr_t)&r->mutex.__data.__list.__next;
    return holds(links[0] & ~flag, self)
           && holds((links[1] & ~flag) - sizeof(self), self);
}

/* Is that how this C library does it?  Tried once, with two of our own. */
static void
try_links(void)
{
    static struct pshm_robust first, second;
    uintptr_t links[2];
    if (pshm_robust_init(&first, 0) < 0 || pshm_robust_init(&second, 0) < 0) {
        return;
    }
    (void)pthread_mutex_lock(&first.mutex);
    (void)pthread_mutex_lock(&second.mutex);
    pshm_robust_read_links(&first, links);
    links_known = is_linked(&first, links);
    pshm_robust_read_links(&second, links);
    links_known = links_known && is_linked(&second, links);
    (void)pthread_mutex_unlock(&second.mutex);
    (void)pthread_mutex_unlock(&first.mutex);
}

static void
learn_links(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, try_links);
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    uintptr_t links[2];
    pshm_robust_read_links(r, links);
    return !links_known || is_linked(r, links);
}

#else

static void
learn_links(void)
{
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    (void)r;
    return true;
}

#endif

int
pshm_robust_open(const struct pshm_robust *r, unsigned flags,
                 struct pshm_grip *grip)
{
    struct pshm_robust model;
    memset(&model, 0, sizeof(model));
    int rc = pshm_robust_init(&model, flags);
    if (rc < 0) {
        return rc;
    }
    learn_links();
    grip->kind = pshm_robust_kind(&model);
    grip->flags = flags;
    (void)pthread_mutex_destroy(&model.mutex);
    return pshm_robust_kind(r) == grip->kind ? 0 : -EBADMSG;
}

/* ---- Locking ---- */

/* The word that says which thread has it. */
static atomic_uint *
owner_word(struct pshm_robust *r)
{
#ifdef __GLIBC__
    return (atomic_uint *)(void *)&r->mutex.__data.__lock;
#else
    return (atomic_uint *)(void *)r + 1;        /* musl: the second member */
#endif
}

static pid_t
this_thread(void)
{
    return (pid_t)syscall(SYS_gettid);
}

/* glibc's trylock says ENOTRECOVERABLE and keeps the mutex, which no unlock
 * knows of: all others would find it taken for ever.  This lets go of it. */
static void
forget(struct pshm_robust *r)
{
#ifdef __GLIBC__
    atomic_uint *word = owner_word(r);
    if ((pid_t)(atomic_load(word) & FUTEX_TID_MASK) == this_thread()) {
        atomic_store(word, 0);
        (void)pshm_futex_wake(word, INT_MAX);
    }
#else
    (void)r;
#endif
}

int
pshm_robust_refused(struct pshm_robust *r, int rc)
{
    if (rc == -ENOTRECOVERABLE) {
        forget(r);
    }
    return rc;
}

/* The C library's function that takes a clock, where it has it: glibc 2.30. */
typedef int (*clocklock)(pthread_mutex_t *, clockid_t,
                         const struct timespec *);

static int
lock_until(pthread_mutex_t *mutex, int64_t end)
{
    struct timespec at = pshm_moment(end);
    static atomic_uintptr_t found;
    clocklock function;
    void *symbol = pshm_libc_function("pthread_mutex_clocklock", &found);
    memcpy((void *)&function, (const void *)&symbol, sizeof(function));
    if (function != NULL) {
        return -function(mutex, CLOCK_MONOTONIC, &at);
    }
    at = pshm_moment_realtime(end);
    return -pthread_mutex_timedlock(mutex, &at);
}

int
pshm_robust_lock(struct pshm_robust *r, struct pshm_grip *grip, int64_t until)
{
    if (pshm_robust_kind(r) != grip->kind) {
        return -EBADMSG;
    }
    int64_t end = pshm_slice_end(until);
    int rc = pshm_robust_locked(r, grip, lock_until(&r->mutex, end));
    return rc == -ETIMEDOUT ? pshm_slice_over(end, until) : rc;
}

void
pshm_robust_repair(struct pshm_robust *r)
{
    (void)pthread_mutex_consistent(&r->mutex);
}

bool
pshm_robust_owner_died(const struct pshm_robust *r)
{
    unsigned word = atomic_load(owner_word((struct pshm_robust *)(uintptr_t)r));
    return word & FUTEX_OWNER_DIED && (word & FUTEX_TID_MASK) == 0;
}

void
pshm_robust_renew(const struct pshm_robust *r, struct pshm_grip *grip)
{
    if (pshm_grip_mine(grip)) {
        pshm_robust_read_links(r, grip->links);
    }
}

int
pshm_robust_unlock(struct pshm_robust *r, struct pshm_grip *grip)
{
    int rc = pshm_robust_may_unlock(r, grip);
    return rc < 0 ? rc : pshm_robust_let_go(r, grip);
}
