#include "peers.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "posix/sync/thread.h"

int64_t
in_ms(int64_t ms)
{
    return pshm_now() + ms * MS;
}

int64_t
before_long(void)
{
    return in_ms(20000);
}

bool
took(int64_t start, int64_t ms)
{
    int64_t duration = pshm_now() - start;
    return duration >= ms * MS && duration < (ms + 10000) * MS;
}

void
await(const atomic_uint *word, unsigned least)
{
    int64_t deadline = before_long();
    while (atomic_load(word) < least && pshm_now() < deadline) {
        (void)usleep(20);
    }
    CHECK(atomic_load(word) >= least);
}

void
await_end(unsigned thread)
{
    int64_t deadline = before_long();
    while (!pshm_thread_has_ended(thread, 0) && pshm_now() < deadline) {
        (void)usleep(20);
    }
    CHECK(pshm_thread_has_ended(thread, 0));
}

unsigned
random_below(unsigned n)
{
    static uint32_t state;
    static pid_t whose;
    if (whose != getpid()) {
        whose = getpid();
        state = (state ^ (uint32_t)whose * 2654435761U) | 1;
    }
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

struct team {
    int (*function)(void *context);
    void *context;
    unsigned count;
    atomic_uint *here;
};

static int
start_at_once(void *context)
{
    struct team *team = context;
    (void)atomic_fetch_add(team->here, 1);
    while (atomic_load(team->here) < team->count) {
        (void)sched_yield();
    }
    return team->function(team->context);
}

void
together(int count, int (*function)(void *context), void *context)
{
    struct team team = {function, context, (unsigned)count,
                        shared_memory(sizeof(atomic_uint))};
    pid_t pids[16];
    for (int i = 0; i < count; i++) {
        pids[i] = child_start(start_at_once, &team);
    }
    for (int i = 0; i < count; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
    CHECK(munmap(team.here, sizeof(atomic_uint)) == 0);
}

/* Spins, because a sleep would be too long; and yields, because otherwise the
 * victim would not run on a machine with one processor. */
void
kill_within(pid_t pid, unsigned us)
{
    int64_t deadline = pshm_now() + (int64_t)random_below(us) * 1000;
    while (pshm_now() < deadline) {
        (void)sched_yield();
    }
    child_kill(pid);
}

/* Some versions of ThreadSanitizer do not know these functions of the C
 * library, and report the accesses that they order as races. The definitions
 * here call older functions. */
#if defined(__SANITIZE_THREAD__)
#define THREADS_WATCHED
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREADS_WATCHED
#endif
#endif

#ifdef THREADS_WATCHED

static struct timespec
by_the_real_time_clock(clockid_t clock, const struct timespec *at)
{
    struct timespec now, then;
    (void)clock_gettime(clock, &now);
    (void)clock_gettime(CLOCK_REALTIME, &then);
    int64_t left = (int64_t)(at->tv_sec - now.tv_sec) * 1000 * MS
                   + at->tv_nsec - now.tv_nsec;
    int64_t nanos = then.tv_nsec + (left > 0 ? left : 0);
    then.tv_sec += (time_t)(nanos / (1000 * MS));
    then.tv_nsec = (long)(nanos % (1000 * MS));
    return then;
}

int
pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                        const struct timespec *at)
{
    struct timespec then = by_the_real_time_clock(clock, at);
    return pthread_mutex_timedlock(mutex, &then);
}

int
sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *at)
{
    struct timespec then = by_the_real_time_clock(clock, at);
    return sem_timedwait(sem, &then);
}

#endif

void
meet_at_each_step(const struct meeting *meeting, void *context)
{
    meet_about("a meeting", meeting, context);
}

void
meet_about(const char *about, const struct meeting *meeting, void *context)
{
    int seen = 0;
    for (int nth = 1; nth <= seen + 1; nth++) {
        check_about("%s, before atomic operation %d", about, nth);
        meeting->begin(context);
        pshm_fault_hook(meeting->second, context);
        pshm_fault_arm("atomic", nth, PSHM_FAULT_HOOK_BEFORE, 0);
        meeting->first(context);
        seen = pshm_fault_disarm();
        if (seen < nth) {
            meeting->second(context);
        }
        meeting->end(context);
    }
    check_about(NULL);
    CHECK(seen > 0);
}
