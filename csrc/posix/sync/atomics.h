/* Atomic words in shared memory, with the memory orders of C11 (stdatomic.h).
 *
 * A word has 4 or 8 bytes and is aligned to its size. Values are passed as 64
 * bits; a word of 4 bytes uses the lower half. Arithmetic wraps around.
 *
 * A waiter sleeps on a futex in the word; in a word of 8 bytes, in its lower
 * half. If only the upper half changes just before the waiter falls asleep,
 * the waiter finds the change at the end of its poll interval (futex.h). */
#ifndef PSHM_ATOMICS_H
#define PSHM_ATOMICS_H

#include <stdatomic.h>

#include "posix/base.h"

enum pshm_atomic_op {
    PSHM_EXCHANGE,
    PSHM_FETCH_ADD,
    PSHM_FETCH_SUB,
    PSHM_FETCH_AND,
    PSHM_FETCH_OR,
    PSHM_FETCH_XOR,
};

uint64_t pshm_atomic_load(const void *word, size_t size, memory_order order);
void pshm_atomic_store(void *word, size_t size, uint64_t value,
                       memory_order order);

/* Returns the value before the operation. */
uint64_t pshm_atomic_apply(enum pshm_atomic_op op, void *word, size_t size,
                           uint64_t value, memory_order order);

/* Store desired if the word equals *expected; otherwise store the value of the
 * word in *expected. Returns true in the first case. */
bool pshm_atomic_compare_exchange(void *word, size_t size, uint64_t *expected,
                                  uint64_t desired, memory_order success,
                                  memory_order failure);

/* Wait while the word equals expected. Returns 0; or -EINTR, -ETIMEDOUT as
 * pshm_futex_wait. */
int pshm_atomic_wait(void *word, size_t size, uint64_t expected,
                     int64_t deadline);

/* Wake at most `most` waiters. Returns how many were woken. */
int pshm_atomic_notify(void *word, size_t size, int most);

#endif
