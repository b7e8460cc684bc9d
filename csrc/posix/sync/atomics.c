#include "posix/sync/atomics.h"

#include "posix/sync/futex.h"

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
    while (pshm_atomic_load(word, size) == expected) {
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
