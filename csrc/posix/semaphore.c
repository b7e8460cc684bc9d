#include "semaphore.h"

#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"
#include "libc.h"

/* What the C library puts before the name of a semaphore's file. */
#ifdef __GLIBC__
#define PREFIX "sem."
#else
#define PREFIX ""
#endif

unsigned
pshm_sem_most(void)
{
    return SEM_VALUE_MAX;
}

int
pshm_sem_init(sem_t *sem, unsigned value)
{
    return pshm_result(sem_init(sem, 1, value));
}

int
pshm_sem_try(sem_t *sem)
{
    int rc = pshm_result(sem_trywait(sem));
    return rc == -EAGAIN ? -EBUSY : rc;
}

/* The C library's function that takes a clock, where it has it: glibc 2.30. */
typedef int (*clockwait)(sem_t *, clockid_t, const struct timespec *);

static int
wait_until(sem_t *sem, int64_t end)
{
    struct timespec at = pshm_moment(end);
    static atomic_uintptr_t found;
    clockwait function;
    void *symbol = pshm_libc_function("sem_clockwait", &found);
    memcpy((void *)&function, (const void *)&symbol, sizeof(function));
    if (function != NULL) {
        return pshm_result(function(sem, CLOCK_MONOTONIC, &at));
    }
    at = pshm_moment_realtime(end);
    return pshm_result(sem_timedwait(sem, &at));
}

int
pshm_sem_wait(sem_t *sem, int64_t until)
{
    if (until == PSHM_NEVER) {          /* a signal ends it: -EINTR */
        return pshm_result(sem_wait(sem));
    }
    int64_t end = pshm_slice_end(until);
    int rc = wait_until(sem, end);
    return rc == -ETIMEDOUT ? pshm_slice_over(end, until) : rc;
}

int
pshm_sem_post(sem_t *sem, unsigned n)
{
    int value = pshm_sem_value(sem);
    if (value < 0) {
        return value;
    }
    if (n > SEM_VALUE_MAX - (unsigned)value) {
        return -EOVERFLOW;
    }
    int rc = 0;
    for (; rc == 0 && n > 0; n--) {
        rc = pshm_result(sem_post(sem));
    }
    return rc;
}

int
pshm_sem_value(sem_t *sem)
{
    int value;
    int rc = pshm_result(sem_getvalue(sem, &value));
    return rc < 0 ? rc : value < 0 ? 0 : value;
}

/* ---- With a name ---- */

int
pshm_sem_name(const struct pshm_name *name, struct pshm_name *out)
{
    char text[PSHM_NAME_MAX + sizeof(PREFIX)];
    size_t length = strlen(pshm_name_plain(name));
    if (length > PSHM_NAME_MAX - (sizeof(PREFIX) - 1)) {
        return -ENAMETOOLONG;
    }
    memcpy(text, PREFIX, sizeof(PREFIX) - 1);
    memcpy(text + sizeof(PREFIX) - 1, pshm_name_plain(name), length);
    return pshm_name_parse(text, length + sizeof(PREFIX) - 1, out) == NULL
               ? 0 : -ENAMETOOLONG;
}

const char *
pshm_sem_plain(const char *file)
{
    const size_t length = sizeof(PREFIX) - 1;
    return strncmp(file, PREFIX, length) == 0 ? file + length : file;
}

int
pshm_sem_unlink(const struct pshm_name *name)
{
    return pshm_result(sem_unlink(pshm_name_posix(name)));
}
