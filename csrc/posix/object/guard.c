#include "posix/object/guard.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "posix/object/bus.h"
#include "posix/host.h"
#include "posix/object/map.h"
#include "posix/sync/thread.h"

/* The handler reads a guard at any time, also while another thread enters or
 * leaves it. It acts only on guards that the interrupted thread entered, and
 * those change in the meantime only if another thread leaves them. */
struct pshm_guard {
    struct pshm_guard *next;            /* set before it is in the list */
    atomic_uintptr_t thread;            /* number of its thread; 0: unused */
    atomic_uintptr_t base, end;
    /* The pages that are zeros, or were since the guard began: see noted(). */
    atomic_uintptr_t low, high;
    atomic_uint pieces;                 /* number of replaced pieces */
    /* Protected by the lock: */
    bool used;
    bool unblocked;                     /* SIGBUS was blocked before */
    int prot;
    char *spare;                        /* a second mapping, never accessed */
};

/* Never freed, because a handler may be reading it, but used again. */
static struct pshm_guard *_Atomic guards;

static struct pshm_guard *
first_guard(void)
{
    return atomic_load(&guards);
}

/* ---- The lock for entering and leaving ---- */

/* 1 + pshm_forks() of the process whose thread holds the lock, or 0. A child
 * that was forked while another thread held the lock finds it free. */
static atomic_uint locked_in;

static void
lock(void)
{
    unsigned mine = pshm_forks() + 1, found = 0;
    while (!atomic_compare_exchange_weak(&locked_in, &found, mine)) {
        if (found == mine) {
            (void)sched_yield();
            found = 0;
        }
    }
}

static void
unlock(void)
{
    atomic_store(&locked_in, 0);
}

/* ---- The handler ---- */

/* Only lost pages are replaced, one by one. Each piece is a mapping, of which
 * a process can have only so many (vm.max_map_count). After a number of
 * pieces, everything from there to the end is replaced. */
enum { MOST_PIECES = 64 };

/* The zeros are writable, because an access that was a write is repeated. */
static bool
map_zeros(uintptr_t start, uintptr_t end)
{
    int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#ifdef SYS_mmap2
    long rc = syscall(SYS_mmap2, start, end - start, prot, flags, -1, 0);
#else
    long rc = syscall(SYS_mmap, start, end - start, prot, flags, -1, 0);
#endif
    return rc != -1;
}

static void
widen(struct pshm_guard *guard, uintptr_t start, uintptr_t end)
{
    uintptr_t low = atomic_load(&guard->low);
    while (start < low
           && !atomic_compare_exchange_weak(&guard->low, &low, start)) {
    }
    uintptr_t high = atomic_load(&guard->high);
    while (end > high
           && !atomic_compare_exchange_weak(&guard->high, &high, end)) {
    }
}

/* Recorded in all guards of the mapping, because code in any of them may read
 * the zeros: in guards of other threads, and in other coroutines of this
 * thread. */
static void
note(struct pshm_guard *mine, uintptr_t start, uintptr_t end)
{
    uintptr_t base = atomic_load(&mine->base);
    for (struct pshm_guard *guard = first_guard(); guard != NULL;
         guard = guard->next) {
        if (atomic_load(&guard->thread) != 0
            && atomic_load(&guard->base) == base) {
            widen(guard, start, end);
        }
    }
}

/* Recorded before the pages are replaced, so that a thread that leaves maps
 * the object's pages again; and recorded after it, for a guard that was
 * entered in between and mapped the pages again that were recorded before. */
static bool
replace(struct pshm_guard *mine, uintptr_t start, uintptr_t end)
{
    note(mine, start, end);
    bool done = map_zeros(start, end);
    note(mine, start, end);
    return done;
}

static bool
replace_page(void *address)
{
    uintptr_t thread = pshm_this_thread.number, at = (uintptr_t)address;
    struct pshm_guard *mine = first_guard();
    while (mine != NULL
           && (atomic_load(&mine->thread) != thread
               || at < atomic_load(&mine->base)
               || at >= atomic_load(&mine->end))) {
        mine = mine->next;
    }
    if (thread == 0 || mine == NULL) {
        return false;
    }
    uintptr_t page = pshm_page_size();
    uintptr_t start = at / page * page, end = atomic_load(&mine->end);
    if (start != atomic_load(&mine->high)
        && start + page != atomic_load(&mine->low)) {
        atomic_fetch_add(&mine->pieces, 1);
    }
    return (atomic_load(&mine->pieces) <= MOST_PIECES
            && replace(mine, start, start + page))
           || replace(mine, start, end);
}

static bool
has_guard(void)
{
    uintptr_t thread = pshm_this_thread.number;
    for (struct pshm_guard *guard = first_guard(); guard != NULL;
         guard = guard->next) {
        if (thread != 0 && atomic_load(&guard->thread) == thread) {
            return true;
        }
    }
    return false;
}

static const struct pshm_bus_calls calls = {
    .repair = replace_page,
    .guarded = has_guard,
};

/* ---- Entering ---- */

static struct pshm_guard *
find_unused(void)
{
    for (struct pshm_guard *guard = first_guard(); guard != NULL;
         guard = guard->next) {
        if (!guard->used) {
            return guard;
        }
    }
    struct pshm_guard *guard = calloc(1, sizeof(*guard));
    if (guard != NULL) {
        guard->next = atomic_load(&guards);
        atomic_store(&guards, guard);
    }
    return guard;
}

/* A second mapping of the same pages: mremap(2) with an old size of 0. If
 * another guard of the mapping exists, its spare is copied, because the
 * mapping itself may contain zeros. */
static int
map_spare(uintptr_t base, size_t length, int prot, char **spare)
{
    void *source = (void *)base;
    int its_prot = prot;
    for (struct pshm_guard *guard = first_guard(); guard != NULL;
         guard = guard->next) {
        if (guard->used && atomic_load(&guard->base) == base) {
            source = guard->spare;
            its_prot = guard->prot;
            break;
        }
    }
    void *made = mremap(source, 0, length, MREMAP_MAYMOVE);
    if (made == MAP_FAILED) {
        return -errno;
    }
    if (prot != its_prot && mprotect(made, length, prot) < 0) {
        int rc = -errno;
        pshm_unmap(made, length);
        return rc;
    }
    /* If the pages are locked in memory, those of the new mapping are locked
     * as well. */
    (void)munlock(made, length);
    *spare = made;
    return 0;
}

/* Map the pages of the object again in place of the zeros. */
static int
restore(const struct pshm_guard *guard, uintptr_t low, uintptr_t high,
        int prot)
{
    uintptr_t base = atomic_load(&guard->base);
    char *from = guard->spare + (low - base);
    if (prot != guard->prot && mprotect(from, high - low, prot) < 0) {
        return -errno;
    }
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    if (mremap(from, 0, high - low, flags, low) != MAP_FAILED) {
        return 0;
    }
    /* mremap may have unmapped the pages, and the addresses must stay in use.
     * If the process has as many mappings as it may have, this reduces the
     * number. */
    (void)map_zeros(low, high);
    return mremap(from, 0, high - low, flags, low) == MAP_FAILED ? -errno : 0;
}

/* The pages that handlers have recorded for a guard. A handler may be late and
 * record a page of the mapping that the guard was used for before, so only
 * pages of its current mapping count. */
static bool
noted(const struct pshm_guard *guard, uintptr_t *low, uintptr_t *high)
{
    uintptr_t base = atomic_load(&guard->base);
    uintptr_t end = atomic_load(&guard->end);
    *low = atomic_load(&guard->low);
    *high = atomic_load(&guard->high);
    *low = *low < base ? base : *low;
    *high = *high > end ? end : *high;
    return *low < *high;
}

/* This guard has not recorded anything, so it must not find the zeros that
 * another guard of the mapping has recorded. */
static int
restore_noted(struct pshm_guard *guard)
{
    uintptr_t base = atomic_load(&guard->base), low, high;
    int rc = 0;
    for (struct pshm_guard *other = first_guard(); other != NULL;
         other = other->next) {
        if (rc == 0 && other != guard && atomic_load(&other->thread) != 0
            && atomic_load(&other->base) == base
            && noted(other, &low, &high)) {
            rc = restore(guard, low, high, guard->prot);
        }
    }
    return rc;
}

static void
forget(struct pshm_guard *guard)
{
    uintptr_t length = atomic_load(&guard->end) - atomic_load(&guard->base);
    atomic_store(&guard->thread, 0);
    guard->used = false;    /* before the next line: another thread may fork in
                               between */
    pshm_unmap(guard->spare, length);
}

static void
remove_if_last(void)
{
    for (struct pshm_guard *guard = first_guard(); guard != NULL;
         guard = guard->next) {
        if (atomic_load(&guard->thread) != 0) {
            return;
        }
    }
    pshm_bus_remove();
}

static int
enter_locked(uintptr_t thread, uintptr_t base, size_t length, int prot,
             struct pshm_guard **out)
{
    struct pshm_guard *guard = find_unused();
    if (guard == NULL) {
        return -ENOMEM;
    }
    int rc = map_spare(base, length, prot, &guard->spare);
    if (rc < 0) {
        return rc;
    }
    guard->used = true;
    guard->prot = prot;
    atomic_store(&guard->base, base);
    atomic_store(&guard->end, base + length);
    atomic_store(&guard->low, UINTPTR_MAX);
    atomic_store(&guard->high, 0);
    atomic_store(&guard->pieces, 0);
    atomic_store(&guard->thread, thread);
    rc = pshm_bus_install(&calls);
    if (rc == 0) {
        rc = restore_noted(guard);
    }
    if (rc < 0) {
        forget(guard);
        remove_if_last();
        return rc;
    }
    *out = guard;
    return 0;
}

static bool
set_blocked(int how)
{
    sigset_t bus, old;
    (void)sigemptyset(&bus);
    (void)sigaddset(&bus, SIGBUS);
    (void)pthread_sigmask(how, &bus, &old);
    return sigismember(&old, SIGBUS) == 1;
}

int
pshm_guard_enter(void *base, size_t length, int prot,
                 struct pshm_guard **guard)
{
    uintptr_t thread = pshm_thread()->number;
    size_t page = pshm_page_size();
    length = (length + page - 1) / page * page;
    lock();
    int rc = enter_locked(thread, (uintptr_t)base, length, prot, guard);
    if (rc == 0) {
        (*guard)->unblocked = set_blocked(SIG_UNBLOCK);
    }
    unlock();
    return rc;
}

/* ---- Leaving ---- */

/* Block SIGBUS again, or leave that to the last guard of the thread. */
static void
block_again(uintptr_t thread)
{
    for (struct pshm_guard *other = first_guard(); other != NULL;
         other = other->next) {
        if (atomic_load(&other->thread) == thread) {
            other->unblocked = true;
            return;
        }
    }
    (void)set_blocked(SIG_BLOCK);
}

int
pshm_guard_leave(struct pshm_guard *guard, int prot,
                 struct pshm_guard_lost *lost)
{
    int rc = 0;
    lock();
    uintptr_t thread = atomic_exchange(&guard->thread, 0);
    uintptr_t base = atomic_load(&guard->base), low, high;
    *lost = (struct pshm_guard_lost){0};
    if (noted(guard, &low, &high)) {
        rc = restore(guard, low, high, prot);
        *lost = (struct pshm_guard_lost){low - base, high - base};
    }
    if (guard->unblocked && thread == pshm_this_thread.number) {
        block_again(thread);
    }
    forget(guard);
    remove_if_last();
    unlock();
    if (!has_guard()) {
        pshm_bus_send_postponed();
    }
    return rc;
}
