/* Atomic words in shared memory: C11 (stdatomic.h).
 *
 * A word has 4 or 8 bytes and is aligned to its size. Values are passed as 64
 * bits; a word of 4 bytes uses the lower half. Arithmetic wraps around.
 *
 * All operations are sequentially consistent: the difference to the weaker
 * orders is small compared with a call from Python.
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

typedef _Atomic(uint32_t) pshm_word4;
typedef _Atomic(uint64_t) pshm_word8;

static inline uint64_t
pshm_atomic_load(const void *word, size_t size)
{
    return size == 8 ? atomic_load((const pshm_word8 *)word)
                     : atomic_load((const pshm_word4 *)word);
}

static inline void
pshm_atomic_store(void *word, size_t size, uint64_t value)
{
    if (size == 8) {
        atomic_store((pshm_word8 *)word, value);
    }
    else {
        atomic_store((pshm_word4 *)word, (uint32_t)value);
    }
}

/* Returns the value before the operation. Inline, so that a constant operation
 * is one instruction. */
static inline uint64_t
pshm_atomic_apply(enum pshm_atomic_op op, void *word, size_t size,
                  uint64_t value)
{
    pshm_word8 *wide = word;
    pshm_word4 *narrow = word;
    uint32_t half = (uint32_t)value;
    switch (op) {
    case PSHM_EXCHANGE:
        return size == 8 ? atomic_exchange(wide, value)
                         : atomic_exchange(narrow, half);
    case PSHM_FETCH_ADD:
        return size == 8 ? atomic_fetch_add(wide, value)
                         : atomic_fetch_add(narrow, half);
    case PSHM_FETCH_SUB:
        return size == 8 ? atomic_fetch_sub(wide, value)
                         : atomic_fetch_sub(narrow, half);
    case PSHM_FETCH_AND:
        return size == 8 ? atomic_fetch_and(wide, value)
                         : atomic_fetch_and(narrow, half);
    case PSHM_FETCH_OR:
        return size == 8 ? atomic_fetch_or(wide, value)
                         : atomic_fetch_or(narrow, half);
    case PSHM_FETCH_XOR:
    default:
        return size == 8 ? atomic_fetch_xor(wide, value)
                         : atomic_fetch_xor(narrow, half);
    }
}

/* Store desired if the word equals *expected; otherwise store the value of the
 * word in *expected. Returns true in the first case. */
static inline bool
pshm_atomic_compare_exchange(void *word, size_t size, uint64_t *expected,
                             uint64_t desired)
{
    if (size == 8) {
        return atomic_compare_exchange_strong((pshm_word8 *)word, expected,
                                              desired);
    }
    uint32_t seen = (uint32_t)*expected;
    bool done = atomic_compare_exchange_strong((pshm_word4 *)word, &seen,
                                               (uint32_t)desired);
    *expected = seen;
    return done;
}

/* Wait while the word equals expected. Returns 0; or -EINTR, -ETIMEDOUT as
 * pshm_futex_wait. */
int pshm_atomic_wait(void *word, size_t size, uint64_t expected,
                     int64_t deadline);

/* Wake at most `most` waiters. Returns how many were woken. */
int pshm_atomic_notify(void *word, size_t size, int most);

#endif
