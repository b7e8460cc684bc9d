#include "posix/sync/semaphore.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "posix/sync/futex.h"

/* The prefix that the C library adds to the name of a semaphore. */
#ifdef __GLIBC__
#define PREFIX "sem."
#else
#define PREFIX ""
#endif

int
pshm_sem_init(void *memory, unsigned value)
{
    return pshm_result(sem_init(memory, 1, value));
}

#if defined(__GLIBC__) && defined(__LP64__)

/* The algorithms of sem_trywait(3), sem_clockwait(3) and sem_post(3) on the
 * words of glibc's sem_t since 2.21: the value is in the lower half of one
 * 64-bit word, the number of waiters in its upper half.
 *
 * The C library's functions pass another word of the sem_t to futex(2), and
 * abort the process if the call fails. Another process can write that word at
 * any time, so a check before the call would not help. Here every value of
 * every word is valid, and n units are added in one step. */
#define WAITER (UINT64_C(1) << 32)

static _Atomic(uint64_t) *
words_of(sem_t *sem)
{
    return (_Atomic(uint64_t) *)(void *)sem;
}

static unsigned
value_of(uint64_t words)
{
    return (unsigned)(words % WAITER);
}

/* The word that waiters sleep on. */
static atomic_uint *
value_word(sem_t *sem)
{
    atomic_uint *halves = (atomic_uint *)(void *)sem;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return &halves[0];
#else
    return &halves[1];
#endif
}

/* Acquire: the new owner sees what was written before the post. */
static bool
replace(sem_t *sem, uint64_t *old, uint64_t words)
{
    return atomic_compare_exchange_weak_explicit(
        words_of(sem), old, words, memory_order_acquire,
        memory_order_relaxed);
}

int
pshm_sem_try(sem_t *sem)
{
    uint64_t words = atomic_load_explicit(words_of(sem),
                                          memory_order_relaxed);
    while (value_of(words) > 0) {
        if (replace(sem, &words, words - 1)) {
            return 0;
        }
    }
    return -EBUSY;
}

/* A waiter that was woken decrements the value or finds it 0, even after its
 * deadline. Otherwise it would lose a wake-up that another waiter needs. */
int
pshm_sem_wait(sem_t *sem, int64_t deadline)
{
    int rc = 0;
    uint64_t words = atomic_fetch_add_explicit(words_of(sem), WAITER,
                                               memory_order_relaxed);
    for (words += WAITER;;) {
        if (value_of(words) > 0) {
            if (replace(sem, &words, words - 1 - WAITER)) {
                return 0;
            }
        }
        else if (rc < 0) {
            if (replace(sem, &words, words - WAITER)) {
                return rc;
            }
        }
        else {
            rc = pshm_futex_wait(value_word(sem), 0, deadline);
            words = atomic_load_explicit(words_of(sem),
                                         memory_order_relaxed);
        }
    }
}

int
pshm_sem_post(sem_t *sem, unsigned n)
{
    uint64_t words = atomic_load_explicit(words_of(sem),
                                          memory_order_relaxed);
    do {
        if (value_of(words) > SEM_VALUE_MAX
            || n > SEM_VALUE_MAX - value_of(words)) {
            return -EOVERFLOW;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        words_of(sem), &words, words + n, memory_order_release,
        memory_order_relaxed));
    if (words >= WAITER) {
        (void)pshm_futex_wake(value_word(sem), (int)n);
    }
    return 0;
}

int
pshm_sem_value(const sem_t *sem)
{
    unsigned value = value_of(atomic_load_explicit(
        (const _Atomic(uint64_t) *)(const void *)sem, memory_order_relaxed));
    return value > SEM_VALUE_MAX ? SEM_VALUE_MAX : (int)value;
}

#else

/* Another C library, which does not abort. */

int
pshm_sem_try(sem_t *sem)
{
    int rc = pshm_result(sem_trywait(sem));
    return rc == -EAGAIN ? -EBUSY : rc;
}

int
pshm_sem_wait(sem_t *sem, int64_t deadline)
{
    int64_t end = pshm_poll_end(deadline);
    struct timespec at = pshm_timespec_realtime(end);
    int rc = pshm_result(sem_timedwait(sem, &at));
    return rc == -ETIMEDOUT ? pshm_poll_over(end, deadline) : rc;
}

/* Other processes may post at the same time, so some of the n units may have
 * been added when this returns -EOVERFLOW. */
int
pshm_sem_post(sem_t *sem, unsigned n)
{
    int rc = n > SEM_VALUE_MAX - (unsigned)pshm_sem_value(sem) ? -EOVERFLOW
                                                               : 0;
    for (; rc == 0 && n > 0; n--) {
        rc = pshm_result(sem_post(sem));
    }
    return rc;
}

int
pshm_sem_value(const sem_t *sem)
{
    int value = 0;
    (void)sem_getvalue((sem_t *)(uintptr_t)sem, &value);
    return value < 0 ? 0 : value;
}

#endif

/* ---- With a name ---- */

int
pshm_sem_name(const struct pshm_name *name, struct pshm_name *out)
{
    char text[PSHM_NAME_MAX + sizeof(PREFIX)];
    size_t length = strlen(pshm_name_plain(name));
    if (length > PSHM_NAME_MAX - (sizeof(PREFIX) - 1)) {
        return -ENAMETOOLONG;
    }
    memcpy(text, PREFIX, sizeof(PREFIX) - 1);
    memcpy(text + sizeof(PREFIX) - 1, pshm_name_plain(name), length);
    (void)pshm_name_parse(text, length + sizeof(PREFIX) - 1, out);
    return 0;
}

const char *
pshm_sem_plain(const char *file)
{
    const size_t length = sizeof(PREFIX) - 1;
    return strncmp(file, PREFIX, length) == 0 ? file + length : file;
}

int
pshm_sem_unlink(const struct pshm_name *name)
{
    return pshm_result(sem_unlink(pshm_name_posix(name)));
}
