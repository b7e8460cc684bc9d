#include "posix/sync/robust_links.h"

#include <pthread.h>
#include <string.h>

#ifdef PSHM_ROBUST_LINKS

/* A link is the address of the neighbour's forward link, which follows the
 * neighbour's backward link. Its lowest bit is a flag. On side 0 of a mutex is
 * the mutex locked after it, and on side 1 the mutex locked before it. */
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

/* A mutex of another library may be on this side, unless the recorded neighbour
 * leads to this mutex. In front of the mutex that was recorded last, there is
 * one only if the head does not lead to this mutex. Its links are not checked,
 * and neither are links in an unknown list. */
static bool
is_right(const struct pshm_thread *self, uintptr_t link, int side,
         uintptr_t found, uintptr_t recorded)
{
    return found == recorded
           || ((self->foreign || recorded == self->list)
               && !leads_to(recorded, side, link));
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    const struct pshm_thread *self = pshm_thread();
    uintptr_t right[2], link = pshm_robust_link(r);
    return !links_known || !pshm_thread_neighbours(self, link, right)
           || (is_right(self, link, 0, read_link(r, 0), right[0])
               && is_right(self, link, 1, read_link(r, 1), right[1]));
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

/* As the C library does in its own functions. */
void
pshm_robust_announce(const struct pshm_robust *r)
{
    struct robust_list_head *head = (void *)pshm_thread()->list;
    if (head != NULL) {
        head->list_op_pending = r == NULL ? NULL
                                          : (void *)pshm_robust_link(r);
        atomic_signal_fence(memory_order_seq_cst);
    }
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

void
pshm_robust_announce(const struct pshm_robust *r)
{
    (void)r;
}

#endif
