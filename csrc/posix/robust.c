#include "robust.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"
#include "host.h"

#define NANO 1000000000

/* What init sets and nothing changes. */
static int
kind_of(const struct pshm_robust *r)
{
#ifdef __GLIBC__
    return r->mutex.__data.__kind;
#else
    int kind;                           /* musl: the first member */
    memcpy(&kind, r, sizeof(kind));
    return kind;
#endif
}

int
pshm_robust_init(struct pshm_robust *r, unsigned flags)
{
    pthread_mutexattr_t attributes;
    int rc = -pthread_mutexattr_init(&attributes);
    if (rc < 0) {
        return rc;
    }
    int type = flags & PSHM_RECURSIVE ? PTHREAD_MUTEX_RECURSIVE
                                      : PTHREAD_MUTEX_ERRORCHECK;
    rc = -pthread_mutexattr_settype(&attributes, type);
    if (rc == 0) {
        rc = -pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    if (rc == 0) {
        rc = -pthread_mutexattr_setpshared(&attributes,
                                           PTHREAD_PROCESS_SHARED);
    }
    if (rc == 0 && flags & PSHM_INHERIT) {
        rc = -pthread_mutexattr_setprotocol(&attributes,
                                            PTHREAD_PRIO_INHERIT);
    }
    if (rc == 0) {
        rc = -pthread_mutex_init(&r->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return rc;
}

/* ---- Its place in the list of its owner's mutexes ---- */

#if defined(__GLIBC__) && __PTHREAD_MUTEX_HAVE_PREV

static void
read_links(const struct pshm_robust *r, uintptr_t links[2])
{
    links[0] = (uintptr_t)r->mutex.__data.__list.__prev;
    links[1] = (uintptr_t)r->mutex.__data.__list.__next;
}

static bool links_known;

/* Read a word where there may be no memory.  Returns whether there was; also
 * where the kernel does not let us look, with *word as it is then. */
static bool
look_at(uintptr_t address, uintptr_t *word)
{
    struct iovec here = {word, sizeof(*word)};
    struct iovec there = {(void *)address, sizeof(*word)};
    ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    return n == (ssize_t)sizeof(*word) || (n < 0 && errno != EFAULT);
}

/* Do both neighbours know it?  A link leads to the neighbour's link forward,
 * before which its link back lies; the lowest bit is a flag. */
static bool
is_linked(const struct pshm_robust *r, const uintptr_t links[2])
{
    const uintptr_t flag = 1;
    uintptr_t self = (uintptr_t)&r->mutex.__data.__list.__next;
    uintptr_t forward = self, back = self;
    return look_at(links[0] & ~flag, &forward) && (forward & ~flag) == self
           && look_at((links[1] & ~flag) - sizeof(back), &back)
           && (back & ~flag) == self;
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
    read_links(&first, links);
    links_known = is_linked(&first, links);
    read_links(&second, links);
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

static void
remember_links(const struct pshm_robust *r, struct pshm_grip *grip)
{
    read_links(r, grip->links);
}

/* They differ from what they were where a neighbour came or went. */
static bool
links_intact(const struct pshm_robust *r, const struct pshm_grip *grip)
{
    uintptr_t links[2];
    read_links(r, links);
    return memcmp(links, grip->links, sizeof(links)) == 0 || !links_known
           || is_linked(r, links);
}

#else

static void
learn_links(void)
{
}

static void
remember_links(const struct pshm_robust *r, struct pshm_grip *grip)
{
    (void)r;
    (void)grip;
}

static bool
links_intact(const struct pshm_robust *r, const struct pshm_grip *grip)
{
    (void)r;
    (void)grip;
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
    grip->kind = kind_of(&model);
    (void)pthread_mutex_destroy(&model.mutex);
    return kind_of(r) == grip->kind ? 0 : -EBADMSG;
}

/* ---- Who has it ---- */

bool
pshm_grip_held(const struct pshm_grip *grip)
{
    return atomic_load_explicit(&grip->owner, memory_order_relaxed) != 0
           && atomic_load_explicit(&grip->forks, memory_order_relaxed)
                  == pshm_forks();
}

bool
pshm_grip_mine(const struct pshm_grip *grip)
{
    return atomic_load_explicit(&grip->owner, memory_order_relaxed)
               == (uintptr_t)pthread_self()
           && pshm_grip_held(grip);
}

static int
locked(const struct pshm_robust *r, struct pshm_grip *grip, int rc)
{
    if (rc != 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    grip->depth = rc == 0 && pshm_grip_mine(grip) ? grip->depth + 1 : 1;
    remember_links(r, grip);
    atomic_store_explicit(&grip->forks, pshm_forks(), memory_order_relaxed);
    atomic_store_explicit(&grip->owner, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
    return rc;
}

/* ---- Locking ---- */

int
pshm_robust_try(struct pshm_robust *r, struct pshm_grip *grip)
{
    if (kind_of(r) != grip->kind) {
        return -EBADMSG;
    }
    return locked(r, grip, -pthread_mutex_trylock(&r->mutex));
}

/* The C library's function that takes a clock, where it has it (glibc 2.30);
 * not by linking, for then it would have to be there. */
typedef int (*clocklock)(pthread_mutex_t *, clockid_t,
                         const struct timespec *);

static int
lock_until(pthread_mutex_t *mutex, int64_t end)
{
    struct timespec at = {.tv_sec = (time_t)(end / NANO),
                          .tv_nsec = (long)(end % NANO)};
    clocklock function;
    void *symbol = dlsym(RTLD_DEFAULT, "pthread_mutex_clocklock");
    memcpy(&function, &symbol, sizeof(function));
    if (function != NULL) {
        int error = function(mutex, CLOCK_MONOTONIC, &at);
        if (error != EINVAL) {          /* not with priority inheritance */
            return -error;
        }
    }
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = end - pshm_now();
    int64_t then = (int64_t)now.tv_nsec + (left > 0 ? left : 0);
    at.tv_sec = now.tv_sec + (time_t)(then / NANO);
    at.tv_nsec = (long)(then % NANO);
    return -pthread_mutex_timedlock(mutex, &at);
}

int
pshm_robust_lock(struct pshm_robust *r, struct pshm_grip *grip, int64_t until)
{
    if (kind_of(r) != grip->kind) {
        return -EBADMSG;
    }
    int64_t end = pshm_slice_end(until);
    int rc = locked(r, grip, lock_until(&r->mutex, end));
    return rc == -ETIMEDOUT ? pshm_slice_over(end, until) : rc;
}

void
pshm_robust_repair(struct pshm_robust *r)
{
    (void)pthread_mutex_consistent(&r->mutex);
}

void
pshm_robust_renew(const struct pshm_robust *r, struct pshm_grip *grip)
{
    if (pshm_grip_mine(grip)) {
        remember_links(r, grip);
    }
}

int
pshm_robust_unlock(struct pshm_robust *r, struct pshm_grip *grip)
{
    if (!pshm_grip_mine(grip)) {
        return -EPERM;
    }
    if (kind_of(r) != grip->kind || !links_intact(r, grip)) {
        return -EBADMSG;
    }
    /* Before, for afterwards it may be another thread's. */
    unsigned depth = --grip->depth;
    if (depth == 0) {
        atomic_store_explicit(&grip->owner, 0, memory_order_relaxed);
    }
    int rc = -pthread_mutex_unlock(&r->mutex);
    if (rc < 0 && depth == 0) {
        grip->depth = 1;
        atomic_store_explicit(&grip->owner, (uintptr_t)pthread_self(),
                              memory_order_relaxed);
    }
    return rc;
}
