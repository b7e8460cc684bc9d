/* Included before each file of csrc/posix, and before each test for the
 * headers that it uses: an atomic operation becomes a call of "atomic" in
 * faults.h, so that a test can run code before it. */
#ifndef PSHM_ATOMIC_CALLS_H
#define PSHM_ATOMIC_CALLS_H

#include <stdatomic.h>

void pshm_fault_atomic(void);

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit

#ifdef __clang__
#define ATOMIC_LOAD __c11_atomic_load
#define ATOMIC_STORE __c11_atomic_store
#define ATOMIC_EXCHANGE __c11_atomic_exchange
#define ATOMIC_COMPARE(object, expected, desired, success, failure)    \
    __c11_atomic_compare_exchange_strong(object, expected, desired, success, \
                                         failure)
#else
#define ATOMIC_LOAD __atomic_load_n
#define ATOMIC_STORE __atomic_store_n
#define ATOMIC_EXCHANGE __atomic_exchange_n
#define ATOMIC_COMPARE(object, expected, desired, success, failure)          \
    __atomic_compare_exchange_n(object, expected, desired, 0, success, failure)
#endif

#define atomic_load_explicit(object, order)                                  \
    (pshm_fault_atomic(), ATOMIC_LOAD(object, order))
#define atomic_store_explicit(object, value, order)                          \
    (pshm_fault_atomic(), ATOMIC_STORE(object, value, order))
#define atomic_exchange_explicit(object, value, order)                       \
    (pshm_fault_atomic(), ATOMIC_EXCHANGE(object, value, order))
#define atomic_compare_exchange_strong_explicit(...)                         \
    (pshm_fault_atomic(), ATOMIC_COMPARE(__VA_ARGS__))
#define atomic_compare_exchange_weak_explicit(...)                           \
    (pshm_fault_atomic(), ATOMIC_COMPARE(__VA_ARGS__))

/* Without these, the calls would bypass the macros above. */
#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak

#define atomic_load(object) atomic_load_explicit(object, __ATOMIC_SEQ_CST)
#define atomic_store(object, value)                                          \
    atomic_store_explicit(object, value, __ATOMIC_SEQ_CST)
#define atomic_exchange(object, value)                                       \
    atomic_exchange_explicit(object, value, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong(object, expected, desired)            \
    atomic_compare_exchange_strong_explicit(object, expected, desired,       \
                                            __ATOMIC_SEQ_CST,                \
                                            __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak atomic_compare_exchange_strong

#endif
