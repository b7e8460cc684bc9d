#include "posix/host.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

pid_t
pshm_process_id(void)
{
    return getpid();
}

unsigned pshm_fork_count = 1;
static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;

static void
count_fork(void)
{
    pshm_fork_count++;
}

static atomic_uint forks_seen;

static void
note_fork(void)
{
    (void)atomic_fetch_add_explicit(&forks_seen, 1, memory_order_relaxed);
}

unsigned
pshm_forks_seen(void)
{
    return atomic_load_explicit(&forks_seen, memory_order_relaxed);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(note_fork, NULL, count_fork);
}

void
pshm_forks_watch(void)
{
    (void)pthread_once(&forks_watched, watch_forks);
}

uint32_t
pshm_process_space(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) < 0 ? 0 : (uint32_t)st.st_ino;
}

/* Fails on a machine that has more CPUs than the set has room for. */
bool
pshm_has_cpus(void)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof(cpus), &cpus) < 0
           || CPU_COUNT(&cpus) > 1;
}

bool
pshm_has_proc(void)
{
    return access("/proc/self/fd", X_OK) == 0;
}
