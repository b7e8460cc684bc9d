#include "posix/sync/thread.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

PSHM_THREAD_LOCAL struct pshm_thread pshm_this_thread;

/* The inode of the initial time namespace. In another one, /proc shows other
 * start times, which cannot be compared. */
#define FIRST_TIME_SPACE 0xeffffffaU

static bool
times_can_be_compared(void)
{
    struct stat st;
    return stat("/proc/self/ns/time", &st) < 0
           || (unsigned)st.st_ino == FIRST_TIME_SPACE;
}

struct thread_stat {
    char state;
    unsigned started, image;
};

/* Read /proc/ID/stat. Returns 0 or -errno. */
static int
read_stat(unsigned id, struct thread_stat *out)
{
    char path[40], text[1024];
    (void)snprintf(path, sizeof(path), "/proc/%u/stat", id);
    int fd = pshm_result(open(path, O_RDONLY | O_CLOEXEC));
    if (fd < 0) {
        return fd;
    }
    ssize_t n = pshm_result((int)read(fd, text, sizeof(text) - 1));
    (void)close(fd);
    if (n < 0) {
        return (int)n;
    }
    text[n] = '\0';
    /* The name of the program may contain any character except NUL. The state
     * is the third field, the start time the 22nd. The 28th is the address of
     * the stack, which is random in each image; it is 0 if this process may not
     * inspect the other one. */
    const char *fields = strrchr(text, ')');
    unsigned long long ticks = 0, stack = 0;
    if (fields == NULL
        /* The kernel writes a number there, and it fits. */
        /* NOLINTNEXTLINE(bugprone-unchecked-string-to-number-conversion) */
        || sscanf(fields,
                  ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s"
                  " %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu"
                  " %*s %*s %*s %*s %*s %llu",
                  &out->state, &ticks, &stack)
               < 2) {
        return -EBADMSG;
    }
    out->started = (unsigned)ticks;
    out->image = (unsigned)(stack / 16);
    return 0;
}

/* ---- The mutexes that the thread holds ---- */

enum { FIRST_ROOM = sizeof(pshm_this_thread.first_held)
                    / sizeof(*pshm_this_thread.first_held) };

static void
forget_held(struct pshm_thread *self)
{
    if (self->held != self->first_held) {
        free(self->held);
    }
    self->held = self->first_held;
    self->held_room = FIRST_ROOM;
    self->held_count = 0;
}

int
pshm_thread_grow(struct pshm_thread *self)
{
    uintptr_t *room = malloc((size_t)2 * self->held_room * sizeof(*room));
    if (room == NULL) {
        return -ENOMEM;
    }
    memcpy(room, self->held, self->held_count * sizeof(*room));
    if (self->held != self->first_held) {
        free(self->held);
    }
    self->held = room;
    self->held_room *= 2;
    return 0;
}

void
pshm_thread_unlocked_inner(struct pshm_thread *self, uintptr_t link)
{
    unsigned i = pshm_thread_position(self, link);
    if (i > 0) {
        memmove(&self->held[i - 1], &self->held[i],
                (self->held_count - i) * sizeof(*self->held));
        self->held_count--;
    }
}

/* ---- The end of a thread ---- */

static void (*_Atomic at_end)(void);
static pthread_key_t end_key;
static bool end_key_made;

static void
end_thread(void *value)
{
    void (*function)(void) = atomic_load(&at_end);
    (void)value;
    if (function != NULL) {
        function();
    }
    forget_held(&pshm_this_thread);
}

static void
make_end_key(void)
{
    end_key_made = pthread_key_create(&end_key, end_thread) == 0;
}

static void
watch_end(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_end_key);
    if (end_key_made) {
        (void)pthread_setspecific(end_key, &pshm_this_thread);
    }
}

void
pshm_thread_at_end(void (*function)(void))
{
    atomic_store(&at_end, function);
}

/* ---- The calling thread ---- */

struct pshm_thread *
pshm_thread_enter(void)
{
    static atomic_uint last;
    struct pshm_thread *self = &pshm_this_thread;
    struct thread_stat stat = {0};
    if (self->forks == 0) {
        watch_end();
    }
    void *list = NULL;
    size_t size;
    self->list = syscall(SYS_get_robust_list, 0, &list, &size) < 0
                     ? 0 : (uintptr_t)list;
    /* A forked child holds no mutex. */
    forget_held(self);
    self->forks = pshm_forks();
    self->number = (uint64_t)self->forks << 32
                   | (atomic_fetch_add_explicit(&last, 1, memory_order_relaxed)
                      & UINT32_MAX);
    self->id = (unsigned)syscall(SYS_gettid);
    (void)read_stat(self->id, &stat);
    self->started = times_can_be_compared() ? stat.started : 0;
    self->image = stat.image;
    return self;
}

bool
pshm_thread_is_gone(unsigned id, unsigned started, unsigned image)
{
    struct thread_stat stat;
    /* kill(2) also finds a thread that is not the first one of its process,
     * and a zombie process. */
    if (pshm_result(kill((pid_t)id, 0)) == -ESRCH) {
        return true;
    }
    if (read_stat(id, &stat) < 0) {
        return false;
    }
    return stat.state == 'Z'
           || (image != 0 && stat.image != 0 && stat.image != image)
           || (started != 0 && stat.started != 0 && stat.started != started
               && times_can_be_compared());
}

bool
pshm_thread_has_ended(unsigned id, unsigned started)
{
    return pshm_thread_is_gone(id, started, 0);
}
