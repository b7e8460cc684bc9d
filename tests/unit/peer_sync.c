/* The peer of tests/processes/test_sync_peer.py: a program that does not use posixshm. It
 * only gets the offsets of the objects of the C library in a file.
 *
 *   peer_sync semaphores FILE OFFSET OFFSET ROUNDS
 *       wait for the first, post the second
 *   peer_sync named NAME NAME ROUNDS
 *       the same with two semaphores of sem_open
 *   peer_sync mutex FILE OFFSET COUNTER ROUNDS
 *       lock the mutex and add to the counter
 *   peer_sync die FILE OFFSET
 *       end with the mutex locked
 *   peer_sync inherit FILE OFFSET
 *       lock a mutex whose owner died
 *   peer_sync word4|word8 FILE OFFSET ROUNDS
 *       replace each odd value by the next even one
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void
check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void
check_code(int code, const char *what)
{
    errno = code;
    check(code == 0, what);
}

static char *
map_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR);
    check(fd >= 0 && fstat(fd, &st) == 0, path);
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
                      MAP_SHARED, fd, 0);
    check(base != MAP_FAILED, "mmap");
    (void)close(fd);
    return base;
}

static void
ready(void)
{
    (void)puts("ready");
    (void)fflush(stdout);
}

static void
wait_and_post(sem_t *first, sem_t *second, long rounds)
{
    ready();
    for (long i = 0; i < rounds; i++) {
        int rc;
        do {
            rc = sem_wait(first);
        } while (rc < 0 && errno == EINTR);
        check(rc == 0, "sem_wait");
        check(sem_post(second) == 0, "sem_post");
    }
}

static void
count(pthread_mutex_t *mutex, volatile int64_t *counter, long rounds)
{
    ready();
    for (long i = 0; i < rounds; i++) {
        check_code(pthread_mutex_lock(mutex), "pthread_mutex_lock");
        *counter = *counter + 1;
        check_code(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
    }
}

static void
inherit(pthread_mutex_t *mutex)
{
    int code = pthread_mutex_lock(mutex);
    check(code == EOWNERDEAD, "no EOWNERDEAD");
    puts("EOWNERDEAD");
    check_code(pthread_mutex_consistent(mutex), "pthread_mutex_consistent");
    check_code(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
}

static void
futex(void *word, int operation, uint32_t value)
{
    long rc = syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
    check(rc >= 0 || errno == EAGAIN || errno == EINTR, "futex");
}

static void
play4(_Atomic(int32_t) *word, long rounds)
{
    ready();
    for (long i = 0; i < rounds; i++) {
        int32_t seen;
        while ((seen = atomic_load(word)) % 2 == 0) {
            futex(word, FUTEX_WAIT, (uint32_t)seen);
        }
        atomic_fetch_add(word, 1);
        futex(word, FUTEX_WAKE, INT_MAX);
    }
}

static void
play8(_Atomic(uint64_t) *word, long rounds)
{
    char *low = (char *)word;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    low += 4;
#endif
    ready();
    for (long i = 0; i < rounds; i++) {
        uint64_t seen;
        while ((seen = atomic_load(word)) % 2 == 0) {
            futex(low, FUTEX_WAIT, (uint32_t)seen);
        }
        atomic_fetch_add(word, 1);
        futex(low, FUTEX_WAKE, INT_MAX);
    }
}

int
main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    if (strcmp(mode, "named") == 0 && argc == 5) {
        sem_t *first = sem_open(argv[2], 0), *second = sem_open(argv[3], 0);
        check(first != SEM_FAILED && second != SEM_FAILED, "sem_open");
        wait_and_post(first, second, atol(argv[4]));
        return 0;
    }
    if (argc < 4) {
        (void)fputs("see the first comment of the source\n", stderr);
        return 2;
    }
    char *base = map_file(argv[2]);
    void *place = base + atol(argv[3]);
    if (strcmp(mode, "semaphores") == 0 && argc == 6) {
        wait_and_post(place, (sem_t *)(void *)(base + atol(argv[4])),
                      atol(argv[5]));
    }
    else if (strcmp(mode, "mutex") == 0 && argc == 6) {
        count(place, (volatile int64_t *)(void *)(base + atol(argv[4])),
              atol(argv[5]));
    }
    else if (strcmp(mode, "die") == 0) {
        check_code(pthread_mutex_lock(place), "pthread_mutex_lock");
        ready();
        _exit(getchar() == EOF ? 0 : 1);
    }
    else if (strcmp(mode, "inherit") == 0) {
        inherit(place);
    }
    else if (strcmp(mode, "word4") == 0 && argc == 5) {
        play4(place, atol(argv[4]));
    }
    else if (strcmp(mode, "word8") == 0 && argc == 5) {
        play8(place, atol(argv[4]));
    }
    else {
        (void)fputs("see the first comment of the source\n", stderr);
        return 2;
    }
    return 0;
}
