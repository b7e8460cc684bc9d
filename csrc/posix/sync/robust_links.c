#include "posix/sync/robust_links.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "posix/sync/futex.h"


#ifdef PSHM_ROBUST_LINKS

static bool links_known;

/* Does the memory at `where` differ from word, or is there no memory? If the
 * kernel does not allow the comparison, the answer is `unproven`. */
static bool
differs(uintptr_t where, unsigned word, bool unproven)
{
    int rc = pshm_futex_compare(where, word);
    return rc == -EAGAIN || rc == -EFAULT || rc == -EINVAL
           || (rc < 0 && unproven);
}

/* Does the memory at `where`, which may be unmapped, contain this address,
 * with or without the flag in its lowest bit? */
static bool
holds(uintptr_t where, uintptr_t address, bool unproven)
{
    unsigned half[sizeof(address) / sizeof(unsigned)];
    for (uintptr_t flag = 0; flag <= 1; flag++) {
        uintptr_t word = address | flag;
        size_t same = 0;
        memcpy(half, &word, sizeof(word));
        while (same < sizeof(half) / sizeof(*half)
               && !differs(where + same * sizeof(*half), half[same],
                           unproven)) {
            same++;
        }
        if (same == sizeof(half) / sizeof(*half)) {
            return true;
        }
    }
    return false;
}

static const uintptr_t flag_bit = 1;

/* Is the address the head of this thread's list, or the link of a mutex that
 * this thread holds? Memory that a dead thread left could confirm a link, too.
 */
static bool
is_neighbour(uintptr_t address, bool unproven)
{
    const struct pshm_thread *self = pshm_thread();
    uintptr_t word = address
                     - offsetof(pthread_mutex_t, __data.__list.__next)
                     + offsetof(pthread_mutex_t, __data.__lock);
    return self->list == 0 || address == self->list
           || !differs(word, self->id, unproven)
           || !differs(word, self->id | FUTEX_WAITERS, unproven);
}

/* Does the neighbour to which this link leads confirm it? A link is the
 * address of the neighbour's forward link, after its backward link; the lowest
 * bit is a flag. side: 0: the mutex before r, 1: the one after it. */
static bool
is_confirmed(const struct pshm_robust *r, uintptr_t link, int side,
             bool unproven)
{
    uintptr_t self = (uintptr_t)&r->mutex.__data.__list.__next;
    uintptr_t where = (link & ~flag_bit) - (side == 0 ? 0 : sizeof(self));
    return is_neighbour(link & ~flag_bit, unproven)
           && holds(where, self, unproven);
}

static bool
are_confirmed(const struct pshm_robust *r)
{
    uintptr_t links[2];
    pshm_robust_read_links(r, links);
    return is_confirmed(r, links[0], 0, false)
           && is_confirmed(r, links[1], 1, false);
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
    links_known = are_confirmed(&first) && are_confirmed(&second);
    (void)pthread_mutex_unlock(&second.mutex);
    (void)pthread_mutex_unlock(&first.mutex);
}

void
pshm_robust_learn_links(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, try_links);
}

/* A Bloom filter of the links of all mutexes that this library has opened: if
 * the bits of a link are not set, the mutex is not among them. */
enum { FILTER_BITS = 1 << 19 };
static atomic_uchar filter[FILTER_BITS / 8];

static unsigned
filter_bit(uintptr_t link, int which)
{
    uint64_t mixed = (uint64_t)link / sizeof(link)
                     * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mixed >> (which == 0 ? 44 : 24)) % FILTER_BITS;
}

void
pshm_robust_note_as_ours(uintptr_t link)
{
    for (int i = 0; i < 2; i++) {
        unsigned bit = filter_bit(link, i);
        atomic_fetch_or_explicit(&filter[bit / 8],
                                 (unsigned char)(1U << bit % 8),
                                 memory_order_relaxed);
    }
}

static bool
may_be_ours(uintptr_t link)
{
    for (int i = 0; i < 2; i++) {
        unsigned bit = filter_bit(link, i);
        if ((atomic_load_explicit(&filter[bit / 8], memory_order_relaxed)
             >> bit % 8 & 1) == 0) {
            return false;
        }
    }
    return true;
}

/* The recorded neighbour is right unless another library locked a mutex in
 * between; then that mutex confirms the link that is found. A mutex of this
 * library would have been recorded. */
static bool
is_right(const struct pshm_robust *r, const uintptr_t *right, uintptr_t found,
         int side, bool unproven)
{
    if (right == NULL) {
        return is_confirmed(r, found, side, unproven);
    }
    return found == right[side]
           || (!is_confirmed(r, right[side], side, true)
               && !may_be_ours(found & ~flag_bit)
               && is_confirmed(r, found, side, unproven));
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    uintptr_t found[2], right[2];
    pshm_robust_read_links(r, found);
    bool known = pshm_thread_neighbours(pshm_robust_link(r), right);
    for (int side = 0; links_known && side < 2; side++) {
        if (!is_right(r, known ? right : NULL, found[side], side, false)) {
            return false;
        }
    }
    return true;
}

/* Clear the links, which would confirm a place in the list that the mutex does
 * not have any more. Links with another value belong to another owner. */
static void
forget_links(struct pshm_robust *r, const uintptr_t links[2])
{
    uintptr_t found[2];
    pshm_robust_read_links(r, found);
    if (found[0] == links[0]) {
        r->mutex.__data.__list.__prev = NULL;
    }
    if (found[1] == links[1]) {
        r->mutex.__data.__list.__next = NULL;
    }
}

/* Remove the mutex from this thread's list, by the links that its neighbours
 * confirm. Returns whether that was possible. */
bool
pshm_robust_unlink_by_neighbours(struct pshm_robust *r)
{
    uintptr_t found[2], right[2], links[2];
    pshm_robust_read_links(r, found);
    bool known = pshm_thread_neighbours(pshm_robust_link(r), right);
    for (int side = 0; side < 2; side++) {
        bool confirmed = known && is_confirmed(r, right[side], side, true);
        links[side] = confirmed ? right[side] : found[side];
        if (!links_known
            || !(confirmed || is_right(r, known ? right : NULL, found[side],
                                       side, true))) {
            return false;
        }
    }
    memcpy((void *)((links[1] & ~flag_bit) - sizeof(*links)), &links[0],
           sizeof(*links));
    memcpy((void *)(links[0] & ~flag_bit), &links[1], sizeof(*links));
    forget_links(r, links);
    return true;
}

#else

void
pshm_robust_learn_links(void)
{
}

void
pshm_robust_note_as_ours(uintptr_t link)
{
    (void)link;
}

bool
pshm_robust_linked(const struct pshm_robust *r)
{
    (void)r;
    return true;
}

bool
pshm_robust_unlink_by_neighbours(struct pshm_robust *r)
{
    (void)r;
    return false;
}

#endif
