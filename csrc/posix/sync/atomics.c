#include "posix/sync/atomics.h"

#include "posix/sync/futex.h"

/* The built-in functions of compilers need a constant order. */
#define FOR_ORDER(order, CALL)                                               \
    switch (order) {                                                         \
    case memory_order_relaxed:                                               \
        CALL(__ATOMIC_RELAXED);                                              \
        break;                                                               \
    case memory_order_consume:                                               \
    case memory_order_acquire:                                               \
        CALL(__ATOMIC_ACQUIRE);                                              \
        break;                                                               \
    case memory_order_release:                                               \
        CALL(__ATOMIC_RELEASE);                                              \
        break;                                                               \
    case memory_order_acq_rel:                                               \
        CALL(__ATOMIC_ACQ_REL);                                              \
        break;                                                               \
    case memory_order_seq_cst:                                               \
    default:                                                                 \
        CALL(__ATOMIC_SEQ_CST);                                              \
        break;                                                               \
    }

/* NOLINTBEGIN(bugprone-macro-parentheses): type is a type. */
#define DEFINE_APPLY(type)                                                   \
    static type apply_##type(enum pshm_atomic_op op, type *word, type value, \
                             memory_order order)                             \
    {                                                                        \
        type old = 0;                                                        \
        switch (op) {                                                        \
        case PSHM_EXCHANGE:                                                  \
            FOR_ORDER(order, EXCHANGE)                                       \
            break;                                                           \
        case PSHM_FETCH_ADD:                                                 \
            FOR_ORDER(order, FETCH_ADD)                                      \
            break;                                                           \
        case PSHM_FETCH_SUB:                                                 \
            FOR_ORDER(order, FETCH_SUB)                                      \
            break;                                                           \
        case PSHM_FETCH_AND:                                                 \
            FOR_ORDER(order, FETCH_AND)                                      \
            break;                                                           \
        case PSHM_FETCH_OR:                                                  \
            FOR_ORDER(order, FETCH_OR)                                       \
            break;                                                           \
        case PSHM_FETCH_XOR:                                                 \
        default:                                                             \
            FOR_ORDER(order, FETCH_XOR)                                      \
            break;                                                           \
        }                                                                    \
        return old;                                                          \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#define EXCHANGE(order) old = __atomic_exchange_n(word, value, order)
#define FETCH_ADD(order) old = __atomic_fetch_add(word, value, order)
#define FETCH_SUB(order) old = __atomic_fetch_sub(word, value, order)
#define FETCH_AND(order) old = __atomic_fetch_and(word, value, order)
#define FETCH_OR(order) old = __atomic_fetch_or(word, value, order)
#define FETCH_XOR(order) old = __atomic_fetch_xor(word, value, order)

DEFINE_APPLY(uint32_t)
DEFINE_APPLY(uint64_t)

uint64_t
pshm_atomic_apply(enum pshm_atomic_op op, void *word, size_t size,
                  uint64_t value, memory_order order)
{
    return size == 4 ? apply_uint32_t(op, word, (uint32_t)value, order)
                     : apply_uint64_t(op, word, value, order);
}

/* A load cannot release and a store cannot acquire: an order that is not
 * allowed is replaced by the strongest one. */
uint64_t
pshm_atomic_load(const void *word, size_t size, memory_order order)
{
    const uint32_t *narrow = word;
    const uint64_t *wide = word;
    switch (order) {
    case memory_order_relaxed:
        return size == 4 ? __atomic_load_n(narrow, __ATOMIC_RELAXED)
                         : __atomic_load_n(wide, __ATOMIC_RELAXED);
    case memory_order_acquire:
        return size == 4 ? __atomic_load_n(narrow, __ATOMIC_ACQUIRE)
                         : __atomic_load_n(wide, __ATOMIC_ACQUIRE);
    default:
        return size == 4 ? __atomic_load_n(narrow, __ATOMIC_SEQ_CST)
                         : __atomic_load_n(wide, __ATOMIC_SEQ_CST);
    }
}

#define STORE(order)                                                         \
    do {                                                                     \
        if (size == 4) {                                                     \
            __atomic_store_n((uint32_t *)word, (uint32_t)value, order);      \
        }                                                                    \
        else {                                                               \
            __atomic_store_n((uint64_t *)word, value, order);                \
        }                                                                    \
    } while (0)

void
pshm_atomic_store(void *word, size_t size, uint64_t value, memory_order order)
{
    switch (order) {
    case memory_order_relaxed:
        STORE(__ATOMIC_RELAXED);
        break;
    case memory_order_release:
        STORE(__ATOMIC_RELEASE);
        break;
    default:
        STORE(__ATOMIC_SEQ_CST);
        break;
    }
}

/* NOLINTBEGIN(bugprone-macro-parentheses): type is a type. */
#define DEFINE_COMPARE(type)                                                 \
    static bool compare_##type(type *word, type *expected, type desired,     \
                               memory_order success, bool plain_failure)     \
    {                                                                        \
        bool done = false;                                                   \
        if (plain_failure) {                                                 \
            FOR_ORDER(success, COMPARE_RELAXED)                              \
        }                                                                    \
        else {                                                               \
            COMPARE(__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                     \
        }                                                                    \
        return done;                                                         \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#define COMPARE(order, failure)                                              \
    done = __atomic_compare_exchange_n(word, expected, desired, false, order, \
                                       failure)
#define COMPARE_RELAXED(order) COMPARE(order, __ATOMIC_RELAXED)

DEFINE_COMPARE(uint32_t)
DEFINE_COMPARE(uint64_t)

/* If the failure order is not relaxed, both orders become sequentially
 * consistent. */
bool
pshm_atomic_compare_exchange(void *word, size_t size, uint64_t *expected,
                             uint64_t desired, memory_order success,
                             memory_order failure)
{
    bool plain = failure == memory_order_relaxed;
    if (size == 8) {
        return compare_uint64_t(word, expected, desired, success, plain);
    }
    uint32_t seen = (uint32_t)*expected;
    bool done = compare_uint32_t(word, &seen, (uint32_t)desired, success,
                                 plain);
    *expected = seen;
    return done;
}

static atomic_uint *
futex_of(void *word, size_t size)
{
    atomic_uint *words = word;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    (void)size;
    return words;
#else
    return size == 4 ? words : words + 1;
#endif
}

int
pshm_atomic_wait(void *word, size_t size, uint64_t expected, int64_t deadline)
{
    int rc = 0;
    if (size == 4) {
        expected = (uint32_t)expected;
    }
    while (pshm_atomic_load(word, size, memory_order_acquire) == expected) {
        if (rc < 0) {
            return rc;
        }
        rc = pshm_futex_wait(futex_of(word, size), (unsigned)expected,
                             deadline);
    }
    return 0;
}

int
pshm_atomic_notify(void *word, size_t size, int most)
{
    return pshm_futex_wake(futex_of(word, size), most);
}
