#include "posix/sync/robust_links.h"

#include <pthread.h>
#include <string.h>

#include "posix/sync/futex.h"

#ifdef PSHM_ROBUST_LINKS

/* A link is the address of the neighbour's forward link, which follows the
 * neighbour's backward link. Its lowest bit is a flag. Side 0 is the mutex
 * locked after this one, and side 1 the mutex locked before it. */
static const uintptr_t flag_bit = 1;

static bool links_known;

static uintptr_t
read_link(const struct pshm_robust *r, int side)
{
    void *const volatile *links
        = (void *const volatile *)&r->mutex.__data.__list;
    return (uintptr_t)links[side];
}

/* The link of a neighbour on this side that leads back. */
static uintptr_t
back_link(uintptr_t neighbour, int side)
{
    return (neighbour & ~flag_bit) - (side == 0 ? 0 : sizeof(neighbour));
}

/* Does a recorded neighbour, which is mapped, lead to the mutex? */
static bool
leads_to(uintptr_t neighbour, int side, uintptr_t link)
{
    const volatile uintptr_t *back
        = (const volatile uintptr_t *)back_link(neighbour, side);
    return (*back & ~flag_bit) == link;
}

/* ---- Neighbours of another library ---- */

/* Does the memory at an address, which may be unmapped, contain this word? */
static bool
contains(uintptr_t where, unsigned word)
{
    int rc = pshm_futex_compare(where, word);
    return rc != -EAGAIN && rc != -EFAULT && rc != -EINVAL;
}

static bool
contains_link(uintptr_t where, uintptr_t link)
{
    unsigned half[sizeof(link) / sizeof(unsigned)];
    bool same = true;
    memcpy(half, &link, sizeof(link));
    for (size_t i = 0; i < sizeof(half) / sizeof(*half); i++) {
        same = same && contains(where + i * sizeof(*half), half[i]);
    }
    return same;
}

/* Is this the head of the thread's list, or a mutex that the thread holds,
 * and does it lead to the mutex? Memory that a dead thread left could lead to
 * it, too. */
static bool
is_confirmed(const struct pshm_thread *self, uintptr_t neighbour, int side,
             uintptr_t link)
{
    uintptr_t back = back_link(neighbour, side);
    uintptr_t word = (neighbour & ~flag_bit)
                     - offsetof(pthread_mutex_t, __data.__list.__next)
                     + offsetof(pthread_mutex_t, __data.__lock);
    return (self->list == 0 || (neighbour & ~flag_bit) == self->list
            || contains(word, self->id)
            || contains(word, self->id | FUTEX_WAITERS))
           && (contains_link(back, link)
               || contains_link(back, link | flag_bit));
}

/* ---- The operations ---- */

/* Does this C library link mutexes as expected? Tried once, with two mutexes.
 */
static void
try_links(void)
{
    static struct pshm_robust first, second;
    (void)pshm_robust_init(&first, 0);
    (void)pshm_robust_init(&second, 0);
    (void)pthread_mutex_lock(&first.mutex);
    (void)pthread_mutex_lock(&second.mutex);
    links_known = read_link(&first, 0) == pshm_robust_link(&second)
                  && read_link(&second, 1) == pshm_robust_link(&first)
                  && read_link(&second, 0) == pshm_thread()->list;
    (void)pthread_mutex_unlock(&second.mutex);
    (void)pthread_mutex_unlock(&first.mutex);
}

void
pshm_robust_learn_links(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, try_links);
}

bool
pshm_robust_is_unlinked(const struct pshm_robust *r)
{
    return read_link(r, 0) == 0 || read_link(r, 1) == 0;
}

/* Can a mutex of another library be on this side of the mutex? In front of the
 * one that was recorded last, there is one if the head does not lead to it. */
static bool
may_be_foreign(const struct pshm_thread *self, int side, uintptr_t link,
               uintptr_t recorded)
{
    return side == 0 && recorded == self->list
               ? !leads_to(self->list, side, link) : self->foreign;
}

/* right: the recorded neighbours; NULL: unknown. A mutex of this library
 * would have been recorded as the neighbour. */
static bool
is_right(const struct pshm_thread *self, const struct pshm_robust *r, int side,
         const uintptr_t *right)
{
    uintptr_t link = pshm_robust_link(r), found = read_link(r, side);
    if (right != NULL && found == right[side]) {
        return true;
    }
    if (right != NULL
        && (!may_be_foreign(self, side, link, right[side])
            || leads_to(right[side], side, link)
            || pshm_thread_position(self, found & ~flag_bit) != 0)) {
        return false;
    }
    return is_confirmed(self, found, side, link);
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    const struct pshm_thread *self = pshm_thread();
    uintptr_t neighbours[2];
    const uintptr_t *right
        = pshm_thread_neighbours(self, pshm_robust_link(r), neighbours)
              ? neighbours : NULL;
    return !links_known
           || (is_right(self, r, 0, right) && is_right(self, r, 1, right));
}

/* The links of the mutex may belong to another owner by now, which locked it
 * because its word was overwritten. Otherwise they are cleared. */
bool
pshm_robust_unlink(struct pshm_robust *r)
{
    uintptr_t right[2], link = pshm_robust_link(r);
    if (!links_known || !pshm_thread_neighbours(pshm_thread(), link, right)
        || !leads_to(right[0], 0, link) || !leads_to(right[1], 1, link)) {
        return false;
    }
    bool mine[2] = {read_link(r, 0) == right[0], read_link(r, 1) == right[1]};
    memcpy((void *)back_link(right[0], 0), &right[1], sizeof(*right));
    memcpy((void *)back_link(right[1], 1), &right[0], sizeof(*right));
    if (mine[0]) {
        r->mutex.__data.__list.__prev = NULL;
    }
    if (mine[1]) {
        r->mutex.__data.__list.__next = NULL;
    }
    return true;
}

#else

void
pshm_robust_learn_links(void)
{
}

bool
pshm_robust_is_unlinked(const struct pshm_robust *r)
{
    (void)r;
    return false;
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    (void)r;
    return true;
}

bool
pshm_robust_unlink(struct pshm_robust *r)
{
    (void)r;
    return false;
}

#endif
