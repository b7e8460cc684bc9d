#include "check.h"
#include "posix/sync/atomics.h"

static const size_t sizes[] = {4, 8};

static const uint64_t values[] = {
    0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x123456789abcdef0,
    INT64_MAX, UINT64_MAX};

/* The value truncated to a word of this size. */
static uint64_t
part(uint64_t value, size_t size)
{
    return size == 4 ? (uint32_t)value : value;
}

static uint64_t
applied(enum pshm_atomic_op op, uint64_t old, uint64_t value)
{
    switch (op) {
    case PSHM_FETCH_ADD:
        return old + value;
    case PSHM_FETCH_SUB:
        return old - value;
    case PSHM_FETCH_AND:
        return old & value;
    case PSHM_FETCH_OR:
        return old | value;
    case PSHM_FETCH_XOR:
        return old ^ value;
    default:
        return value;
    }
}

/* A word between two neighbours, which must not change. */
struct neighbours {
    uint64_t before, word, after;
    uint32_t narrow[4];
};

static const struct neighbours untouched = {
    UINT64_MAX, 0, UINT64_MAX, {UINT32_MAX, 0, UINT32_MAX, UINT32_MAX}};

static void *
word_of(struct neighbours *place, size_t size)
{
    *place = untouched;
    return size == 4 ? (void *)&place->narrow[1] : (void *)&place->word;
}

static void
check_neighbours(const struct neighbours *place)
{
    CHECK(place->before == UINT64_MAX && place->after == UINT64_MAX);
    CHECK(place->narrow[0] == UINT32_MAX && place->narrow[2] == UINT32_MAX);
}

static void
load_returns_the_stored_value(void)
{
    struct neighbours place;
    for (size_t s = 0; s < COUNT(sizes); s++) {
        void *word = word_of(&place, sizes[s]);
        for (size_t v = 0; v < COUNT(values); v++) {
            pshm_atomic_store(word, sizes[s], values[v]);
            CHECK(pshm_atomic_load(word, sizes[s])
                  == part(values[v], sizes[s]));
        }
        check_neighbours(&place);
    }
}

static void
arithmetic_wraps(void)
{
    struct neighbours place;
    for (size_t s = 0; s < COUNT(sizes); s++) {
        size_t size = sizes[s];
        void *word = word_of(&place, size);
        for (int op = PSHM_EXCHANGE; op <= PSHM_FETCH_XOR; op++) {
            for (size_t a = 0; a < COUNT(values); a++) {
                for (size_t b = 0; b < COUNT(values); b++) {
                    check_about("operation %d of size %zu on %zu, %zu", op,
                                size, a, b);
                    pshm_atomic_store(word, size, values[a]);
                    uint64_t old = pshm_atomic_apply(
                        (enum pshm_atomic_op)op, word, size, values[b]);
                    CHECK(old == part(values[a], size));
                    CHECK(pshm_atomic_load(word, size)
                          == part(applied((enum pshm_atomic_op)op, values[a],
                                          values[b]),
                                  size));
                }
            }
        }
        check_neighbours(&place);
    }
}

static void
exchange_needs_the_expected_value(void)
{
    struct neighbours place;
    for (size_t s = 0; s < COUNT(sizes); s++) {
        size_t size = sizes[s];
        void *word = word_of(&place, size);
        uint64_t expected = 0x1ffffffff;
        pshm_atomic_store(word, size, 0x2ffffffff);
        bool narrow = size == 4;        /* the lower halves are equal */
        CHECK_IS(pshm_atomic_compare_exchange(word, size, &expected, 7),
                 narrow);
        if (!narrow) {
            CHECK(expected == 0x2ffffffff);
            CHECK(pshm_atomic_compare_exchange(word, size, &expected, 7));
        }
        expected = 8;
        CHECK(!pshm_atomic_compare_exchange(word, size, &expected, 9));
        CHECK(expected == 7);
        CHECK(pshm_atomic_load(word, size) == 7);
        check_neighbours(&place);
    }
}

int
main(void)
{
    RUN(load_returns_the_stored_value);
    RUN(arithmetic_wraps);
    RUN(exchange_needs_the_expected_value);
    return finish();
}
