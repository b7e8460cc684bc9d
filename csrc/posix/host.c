#include "posix/host.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

int
pshm_boot_id(char out[PSHM_BOOT_ID_SIZE])
{
    int fd = pshm_result(open(PSHM_BOOT_ID, O_RDONLY | O_CLOEXEC));
    if (fd < 0) {
        return fd;
    }
    ssize_t n = pshm_result((int)read(fd, out, PSHM_BOOT_ID_SIZE - 1));
    (void)close(fd);
    if (n >= 0 && n != PSHM_BOOT_ID_SIZE - 1) {
        n = -EIO;
    }
    out[PSHM_BOOT_ID_SIZE - 1] = '\0';
    return n < 0 ? (int)n : 0;
}

pid_t
pshm_process_id(void)
{
    return getpid();
}

unsigned pshm_fork_count;
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

bool
pshm_has_proc(void)
{
    return access("/proc/self/fd", X_OK) == 0;
}
