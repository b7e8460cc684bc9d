#include "check.h"
#include "peers.h"
#include "posix/sync/futex.h"

#include <time.h>

static void
time_is_that_of_the_monotonic_clock(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    int64_t expected = (int64_t)now.tv_sec * 1000 * MS + now.tv_nsec;
    CHECK(pshm_now() - expected >= 0);
    CHECK(pshm_now() - expected < 10000 * MS);
}

static void
sleep_ends_after_a_poll_interval(void)
{
    int64_t now = pshm_now();
    CHECK_IS(pshm_poll_end(now - 5), now - 5);
    CHECK_IS(pshm_poll_end(now + MS), now + MS);
    int64_t end = pshm_poll_end(PSHM_NEVER);
    CHECK(end >= now + PSHM_POLL_INTERVAL
          && end <= pshm_now() + PSHM_POLL_INTERVAL);
    CHECK_IS(pshm_poll_over(5, 6), -EINTR);
    CHECK_IS(pshm_poll_over(5, 5), -ETIMEDOUT);

    atomic_uint *word = shared_memory(PAGE);
    int64_t start = pshm_now();
    CHECK_IS(pshm_futex_wait(word, 0, PSHM_NEVER), -EINTR);
    CHECK(took(start, 50));
    start = pshm_now();
    CHECK_IS(pshm_futex_wait(word, 0, in_ms(60000)), -EINTR);
    CHECK(took(start, 50));
    CHECK(munmap(word, PAGE) == 0);
}

static void
sleep_ends_at_the_deadline(void)
{
    atomic_uint *word = shared_memory(PAGE);
    int64_t start = pshm_now();
    CHECK_IS(pshm_futex_wait(word, 0, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK_IS(pshm_futex_wait(word, 0, start), -ETIMEDOUT);
    CHECK_IS(pshm_futex_wait(word, 0, 0), -ETIMEDOUT);
    CHECK(munmap(word, PAGE) == 0);
}

static void
different_word_prevents_the_sleep(void)
{
    atomic_uint *word = shared_memory(PAGE);
    CHECK_IS(pshm_futex_wait(word, 1, PSHM_NEVER), 0);
    atomic_store(word, UINT_MAX);
    CHECK_IS(pshm_futex_wait(word, 0, PSHM_NEVER), 0);
    CHECK_IS(pshm_futex_wait(word, UINT_MAX, pshm_now()), -ETIMEDOUT);
    CHECK(munmap(word, PAGE) == 0);
}

static volatile sig_atomic_t signals;

static void
note_signal(int number)
{
    (void)number;
    signals++;
}

/* On a busy machine the signal does not always arrive during the sleep. It
 * must never count as a wake-up. */
static void
signal_ends_a_sleep(void)
{
    atomic_uint *word = shared_memory(PAGE);
    struct sigaction action = {.sa_handler = note_signal}, before;
    int64_t start = pshm_now();
    CHECK(sigaction(SIGUSR1, &action, &before) == 0);
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    for (int i = 0; i < 20; i++) {
        struct itimerspec once = {.it_value = {.tv_nsec = 2 * MS}};
        CHECK(timer_settime(timer, 0, &once, NULL) == 0);
        CHECK_IS(pshm_futex_wait(word, 0, PSHM_NEVER), -EINTR);
    }
    CHECK(pshm_now() - start < 20 * PSHM_POLL_INTERVAL);
    CHECK(signals > 0);
    CHECK(timer_delete(timer) == 0);
    CHECK(sigaction(SIGUSR1, &before, NULL) == 0);
    CHECK(munmap(word, PAGE) == 0);
}

/* A wake-up without a change also ends the sleep: the caller checks the word.
 */
static int
sleep_until_woken(void *context)
{
    int rc;
    PATIENTLY(rc, pshm_futex_wait(context, 7, before_long()));
    return rc == 0 ? 0 : 1;
}

static void
wake_wakes_at_most_the_given_number(void)
{
    enum { SLEEPERS = 3 };
    atomic_uint *word = shared_memory(PAGE);
    pid_t pids[SLEEPERS];
    int woken = 0;
    atomic_store(word, 7);
    CHECK_IS(pshm_futex_wake(word, INT_MAX), 0);
    for (int i = 0; i < SLEEPERS; i++) {
        pids[i] = child_start(sleep_until_woken, word);
    }
    for (int64_t deadline = before_long();
         woken < SLEEPERS && pshm_now() < deadline;) {
        int n = pshm_futex_wake(word, 1);
        CHECK(n == 0 || n == 1);
        woken += n;
    }
    CHECK_IS(woken, SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
    CHECK_IS(pshm_futex_wake(word, INT_MAX), 0);
    CHECK(munmap(word, PAGE) == 0);
}

/* ---- one word at two addresses ---- */

struct places {
    atomic_uint *here, *there;
};

static int
sleep_there(void *context)
{
    struct places *places = context;
    return sleep_until_woken(places->there);
}

static void
word_is_identified_by_its_object(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    struct places places = {
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)};
    CHECK(places.here != MAP_FAILED && places.there != MAP_FAILED);
    CHECK(places.here != places.there);
    atomic_store(places.here, 7);
    pid_t child = child_start(sleep_there, &places);
    int woken = 0;
    for (int64_t deadline = before_long();
         woken == 0 && pshm_now() < deadline;) {
        woken = pshm_futex_wake(places.here, INT_MAX);
    }
    CHECK_IS(woken, 1);
    CHECK_IS(child_wait(child), 0);
    CHECK(munmap(places.here, PAGE) == 0 && munmap(places.there, PAGE) == 0);
    (void)close(fd);
}

/* ---- every change is noticed ---- */

enum { CHANGES = 3000 };

static int
answer_each_change(void *context)
{
    atomic_uint *word = context;
    for (unsigned expected = 0; expected < 2 * ROUNDS(CHANGES);
         expected += 2) {
        while (atomic_load(word) != expected + 1) {
            int rc;
            PATIENTLY(rc, pshm_futex_wait(word, expected, before_long()));
            if (!CHECK_IS(rc, 0)) {
                return 1;
            }
        }
        atomic_store(word, expected + 2);
        (void)pshm_futex_wake(word, 1);
    }
    return 0;
}

static void
two_processes_alternate(void)
{
    atomic_uint *word = shared_memory(PAGE);
    pid_t child = child_start(answer_each_change, word);
    int rc = 0;
    for (unsigned expected = 0; rc == 0 && expected < 2 * ROUNDS(CHANGES);
         expected += 2) {
        atomic_store(word, expected + 1);
        (void)pshm_futex_wake(word, 1);
        while (rc == 0 && atomic_load(word) != expected + 2) {
            PATIENTLY(rc, pshm_futex_wait(word, expected + 1, before_long()));
        }
    }
    CHECK_IS(rc, 0);
    CHECK_IS(child_wait(child), 0);
    CHECK(munmap(word, PAGE) == 0);
}

int
main(void)
{
    RUN(time_is_that_of_the_monotonic_clock);
    RUN(sleep_ends_after_a_poll_interval);
    RUN(sleep_ends_at_the_deadline);
    RUN(different_word_prevents_the_sleep);
    RUN(signal_ends_a_sleep);
    RUN(wake_wakes_at_most_the_given_number);
    RUN(word_is_identified_by_its_object);
    RUN(two_processes_alternate);
    return finish();
}
