/* Atomic words in shared memory, with the orders of C11 (stdatomic.h).
 *
 * A word has 4 or 8 bytes and is aligned to that; its values are handed around
 * as 64 bits, of which a word of 4 bytes has the lower half.  Arithmetic wraps.
 *
 * Who waits sleeps on a futex in the word, for one of 8 bytes in its lower half:
 * a change of the upper half alone that comes just before the sleep is seen at
 * the end of the slice (futex.h). */
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

/* Returns what was there before. */
uint64_t pshm_atomic_apply(enum pshm_atomic_op op, void *word, size_t size,
                           uint64_t value, memory_order order);

/* Put desired there if *expected is; otherwise put what is there in *expected.
 * Returns whether it did. */
bool pshm_atomic_compare_exchange(void *word, size_t size, uint64_t *expected,
                                  uint64_t desired, memory_order success,
                                  memory_order failure);

/* Wait while the word is expected.  Returns 0; or -EINTR, -ETIMEDOUT as
 * pshm_futex_wait. */
int pshm_atomic_wait(void *word, size_t size, uint64_t expected,
                     int64_t deadline);

/* Wake at most `most` of those who wait.  Returns how many. */
int pshm_atomic_notify(void *word, size_t size, int most);

#endif
