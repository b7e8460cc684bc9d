/* Raw loops of synchronization, on a page of shared memory. */
#include "sync.h"

#include <semaphore.h>

/* Initially all zeros; each member has its own cache line. */
struct page {
    _Alignas(64) pthread_mutex_t mutex;
    _Alignas(64) sem_t one;             /* its value is 1 */
    _Alignas(64) sem_t ping;
    _Alignas(64) sem_t pong;
    _Alignas(64) atomic_uint turn;      /* 1: the other process runs */
    _Alignas(64) _Atomic(long long) counter;
};

/* Each runs n times. Returns 0 or -errno. */
typedef int (*loop)(struct page *, long long n);

static int
errno_of(int rc)
{
    return rc < 0 ? -errno : 0;
}

static int
prepare(struct page *page, long long Py_UNUSED(n))
{
    int rc = mutex_init(&page->mutex);
    if (rc == 0
        && (sem_init(&page->one, 1, 1) < 0 || sem_init(&page->ping, 1, 0) < 0
            || sem_init(&page->pong, 1, 0) < 0)) {
        rc = -errno;
    }
    return rc;
}

static int
mutex(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = -pthread_mutex_lock(&page->mutex);
        if (rc == 0) {
            rc = -pthread_mutex_unlock(&page->mutex);
        }
    }
    return rc;
}

static int
semaphore(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = errno_of(sem_wait(&page->one) < 0 ? -1 : sem_post(&page->one));
    }
    return rc;
}

static int
add(struct page *page, long long n)
{
    for (long long i = 0; i < n; i++) {
        atomic_fetch_add(&page->counter, 1);
    }
    return 0;
}

static int
ping_semaphore(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = errno_of(sem_post(&page->ping) < 0 ? -1 : sem_wait(&page->pong));
    }
    return rc;
}

static int
pong_semaphore(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = errno_of(sem_wait(&page->ping) < 0 ? -1 : sem_post(&page->pong));
    }
    return rc;
}

static int
pass(struct page *page, unsigned turn)
{
    atomic_store(&page->turn, turn);
    return futex_wake(&page->turn, 1);
}

static int
wait_while(struct page *page, unsigned turn)
{
    while (atomic_load(&page->turn) == turn) {
        int rc = futex_wait(&page->turn, turn, NULL);
        if (rc < 0 && rc != -EAGAIN) {
            return rc;
        }
    }
    return 0;
}

static int
ping_futex(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = pass(page, 1);
        if (rc == 0) {
            rc = wait_while(page, 1);
        }
    }
    return rc;
}

static int
pong_futex(struct page *page, long long n)
{
    int rc = 0;
    for (long long i = 0; i < n && rc == 0; i++) {
        rc = wait_while(page, 0);
        if (rc == 0) {
            rc = pass(page, 0);
        }
    }
    return rc;
}

static const struct {
    const char *name;
    loop run;
} loops[] = {
    {"prepare", prepare}, {"mutex", mutex}, {"semaphore", semaphore},
    {"fetch_add", add}, {"ping_semaphore", ping_semaphore},
    {"pong_semaphore", pong_semaphore}, {"ping_futex", ping_futex},
    {"pong_futex", pong_futex},
};

/* raw_sync(name, page, n) -> nanoseconds. Keeps the GIL: a process that plays
 * a part in it has no other thread. */
static PyObject *
raw_sync(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *name;
    Py_buffer page;
    long long n;
    if (!PyArg_ParseTuple(args, "sw*L", &name, &page, &n)) {
        return NULL;
    }
    int64_t result = -ENOSYS;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(loops); i++) {
        if (strcmp(loops[i].name, name) == 0) {
            int64_t start = now();
            result = loops[i].run(page.buf, n);
            result = result < 0 ? result : now() - start;
        }
    }
    PyBuffer_Release(&page);
    return number_or_error(result);
}

/* raw_count(page, numbers, spins) -> the number of times that this process
 * added 1 to numbers[0], under the mutex, while numbers[1] was not 0. */
static PyObject *
raw_count(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer, numbers;
    int spins;
    if (!PyArg_ParseTuple(args, "w*w*i", &buffer, &numbers, &spins)) {
        return NULL;
    }
    struct page *page = buffer.buf;
    volatile int64_t *number = numbers.buf;
    int64_t count = 0;
    while (number[1] != 0 && count >= 0) {
        int rc = spins == 0 ? EBUSY : pthread_mutex_trylock(&page->mutex);
        if (rc == EBUSY) {
            rc = mutex_spin(&page->mutex, spins);
        }
        if (rc == EBUSY) {
            rc = pthread_mutex_lock(&page->mutex);
        }
        if (rc == 0) {
            number[0]++;
            count++;
            rc = pthread_mutex_unlock(&page->mutex);
        }
        count = rc != 0 ? -rc : count;
    }
    PyBuffer_Release(&numbers);
    PyBuffer_Release(&buffer);
    return number_or_error(count);
}

static PyMethodDef functions[] = {
    {"raw_sync", raw_sync, METH_VARARGS, NULL},
    {"raw_count", raw_count, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
floor_add_raw_sync(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
