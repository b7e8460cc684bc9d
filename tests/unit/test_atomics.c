#include "check.h"
#include "peers.h"
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

/* ---- processes ---- */

struct place {
    uint64_t word, rounds;
    size_t size;
};

static int
add_and_swap(void *context)
{
    struct place *place = context;
    for (int i = 0; i < ROUNDS(20000); i++) {
        (void)pshm_atomic_apply(PSHM_FETCH_ADD, &place->word, place->size, 3);
        uint64_t seen = pshm_atomic_load(&place->word, place->size);
        while (!pshm_atomic_compare_exchange(&place->word, place->size, &seen,
                                             seen - 1)) {
        }
    }
    return 0;
}

static void
no_update_between_processes_is_lost(void)
{
    for (size_t s = 0; s < COUNT(sizes); s++) {
        struct place *place = shared_memory(PAGE);
        place->size = sizes[s];
        together(3, add_and_swap, place);
        CHECK_IS(place->word, 3 * 2 * ROUNDS(20000));
        CHECK(munmap(place, PAGE) == 0);
    }
}

static int
wait_while(struct place *place, uint64_t expected)
{
    int rc;
    PATIENTLY(rc, pshm_atomic_wait(&place->word, place->size, expected,
                                   before_long()));
    return rc;
}

static void
waits_end_in_time(void)
{
    static const uint64_t words[] = {5, UINT64_MAX, 0x500000000};
    struct place *place = shared_memory(PAGE);
    for (size_t i = 0; i < COUNT(sizes) * COUNT(words); i++) {
        size_t size = sizes[i % 2];
        uint64_t word = words[i / 2];
        check_about("size %zu, word %zu", size, i / 2);
        pshm_atomic_store(&place->word, size, word);
        int64_t start = pshm_now();
        CHECK_IS(pshm_atomic_wait(&place->word, size, word, start + 20 * MS),
                 -ETIMEDOUT);
        CHECK(took(start, 20));
        start = pshm_now();
        CHECK_IS(pshm_atomic_wait(&place->word, size, word, PSHM_NEVER),
                 -EINTR);
        CHECK(took(start, 50));
        CHECK_IS(pshm_atomic_wait(&place->word, size, word, 0), -ETIMEDOUT);
        CHECK_IS(pshm_atomic_wait(&place->word, size, word + 1, 0), 0);
    }
    CHECK(munmap(place, PAGE) == 0);
}

static int
answer_each_change(void *context)
{
    struct place *place = context;
    for (uint64_t expected = 0; expected < 2 * (uint64_t)ROUNDS(2000);
         expected += 2) {
        CHECK_IS(wait_while(place, expected), 0);
        CHECK(pshm_atomic_load(&place->word, place->size) == expected + 1);
        pshm_atomic_store(&place->word, place->size, expected + 2);
        (void)pshm_atomic_notify(&place->word, place->size, 1);
    }
    return 0;
}

static void
two_processes_alternate(void)
{
    for (size_t s = 0; s < COUNT(sizes); s++) {
        struct place *place = shared_memory(PAGE);
        place->size = sizes[s];
        pid_t child = child_start(answer_each_change, place);
        for (uint64_t expected = 0; expected < 2 * (uint64_t)ROUNDS(2000);
             expected += 2) {
            pshm_atomic_store(&place->word, place->size, expected + 1);
            (void)pshm_atomic_notify(&place->word, place->size, INT_MAX);
            if (!CHECK_IS(wait_while(place, expected + 1), 0)) {
                break;
            }
        }
        CHECK_IS(child_wait(child), 0);
        CHECK(munmap(place, PAGE) == 0);
    }
}

static int
wait_for_a_change(void *context)
{
    struct place *place = context;
    return wait_while(place, 7);
}

static void
notify_wakes_at_most_the_given_number(void)
{
    struct place *place = shared_memory(PAGE);
    for (size_t s = 0; s < COUNT(sizes); s++) {
        pid_t pids[3];
        int woken = 0;
        place->size = sizes[s];
        pshm_atomic_store(&place->word, sizes[s], 7);
        for (size_t i = 0; i < COUNT(pids); i++) {
            pids[i] = child_start(wait_for_a_change, place);
        }
        for (int64_t deadline = before_long();
             woken < 3 && pshm_now() < deadline;) {
            int n = pshm_atomic_notify(&place->word, sizes[s], 2);
            CHECK(n >= 0 && n <= 2);
            woken += n;
        }
        CHECK(woken >= 3);
        pshm_atomic_store(&place->word, sizes[s], 8);
        (void)pshm_atomic_notify(&place->word, sizes[s], INT_MAX);
        for (size_t i = 0; i < COUNT(pids); i++) {
            CHECK_IS(child_wait(pids[i]), 0);
        }
    }
    CHECK(munmap(place, PAGE) == 0);
}

/* This change does not wake the waiter, which finds it at the end of its poll
 * interval. */
static void
change_of_the_upper_half_ends_the_wait(void)
{
    struct place *place = shared_memory(PAGE);
    place->size = 8;
    place->word = 7;
    pid_t child = child_start(wait_for_a_change, place);
    (void)usleep(5000);
    pshm_atomic_store(&place->word, 8, 0x100000007);
    CHECK_IS(child_wait(child), 0);
    CHECK(munmap(place, PAGE) == 0);
}

int
main(void)
{
    RUN(load_returns_the_stored_value);
    RUN(arithmetic_wraps);
    RUN(exchange_needs_the_expected_value);
    RUN(no_update_between_processes_is_lost);
    RUN(waits_end_in_time);
    RUN(two_processes_alternate);
    RUN(notify_wakes_at_most_the_given_number);
    RUN(change_of_the_upper_half_ends_the_wait);
    return finish();
}
