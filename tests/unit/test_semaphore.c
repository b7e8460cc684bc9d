#include "check.h"
#include "peers.h"
#include "posix/sync/semaphore.h"

struct place {
    sem_t sem;
    atomic_uint taken;
    int results[2];                     /* of two calls at once */
};

static struct place *
make(unsigned value)
{
    struct place *place = shared_memory(PAGE);
    CHECK_IS(pshm_sem_init(&place->sem, value), 0);
    return place;
}

static void
unmake(struct place *place)
{
    CHECK(munmap(place, PAGE) == 0);
}

static int
take(sem_t *sem)
{
    int rc;
    PATIENTLY(rc, pshm_sem_wait(sem, before_long()));
    return rc;
}

static int
take_endlessly(void *context)
{
    struct place *place = context;
    while (CHECK_IS(take(&place->sem), 0)) {
        (void)atomic_fetch_add(&place->taken, 1);
    }
    return 1;
}

/* A killed process takes at most the unit that it was about to count. */
static void
killed_waiter_takes_at_most_one_unit(void)
{
    struct place *place = make(0);
    unsigned posted = 0, lost = 0;
    pid_t steady = child_start(take_endlessly, place);
    for (int round = 0; round < ROUNDS(200); round++) {
        pid_t child = child_start(take_endlessly, place);
        for (int i = 0; i < 10; i++, posted++) {
            CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
        }
        kill_within(child, 300);
        lost++;
    }
    await(&place->taken, posted - lost);
    CHECK(atomic_load(&place->taken) <= posted);
    child_kill(steady);
    unmake(place);
}

#if defined(__GLIBC__) && defined(__LP64__)

/* ---- two calls at once, the second at each step of the first ---- */

static void
begin_with_one(void *context)
{
    struct place *place = context;
    CHECK_IS(pshm_sem_init(&place->sem, 1), 0);
}

static void
begin_with_none(void *context)
{
    struct place *place = context;
    CHECK_IS(pshm_sem_init(&place->sem, 0), 0);
}

static void
try_first(void *context)
{
    struct place *place = context;
    place->results[0] = pshm_sem_try(&place->sem);
}

static void
wait_first(void *context)
{
    struct place *place = context;
    place->results[0] = pshm_sem_wait(&place->sem, 0);
}

static void
post_first(void *context)
{
    struct place *place = context;
    place->results[0] = pshm_sem_post(&place->sem, 1);
}

static void
try_second(void *context)
{
    struct place *place = context;
    place->results[1] = pshm_sem_try(&place->sem);
}

static void
post_second(void *context)
{
    struct place *place = context;
    place->results[1] = pshm_sem_post(&place->sem, 1);
}

static void
one_call_has_taken_it(void *context)
{
    const struct place *place = context;
    CHECK_IS((place->results[0] == 0) + (place->results[1] == 0), 1);
    CHECK_IS(pshm_sem_value(&place->sem), 0);
}

static void
it_is_taken_or_still_available(void *context)
{
    const struct place *place = context;
    CHECK(place->results[0] == 0 || place->results[0] == -ETIMEDOUT
          || place->results[0] == -EBUSY);
    CHECK_IS(place->results[1], 0);
    CHECK_IS(pshm_sem_value(&place->sem), place->results[0] != 0);
}

static void
posted_unit_is_available_or_taken(void *context)
{
    const struct place *place = context;
    CHECK_IS(place->results[0], 0);
    CHECK_IS(pshm_sem_value(&place->sem), place->results[1] != 0);
}

static void
two_calls_at_once_lose_no_unit(void)
{
    struct place *place = make(0);
    const struct meeting meetings[] = {
        {begin_with_one, try_first, try_second, one_call_has_taken_it},
        {begin_with_one, wait_first, try_second, one_call_has_taken_it},
        {begin_with_none, try_first, post_second,
         it_is_taken_or_still_available},
        {begin_with_none, wait_first, post_second,
         it_is_taken_or_still_available},
        {begin_with_none, post_first, try_second,
         posted_unit_is_available_or_taken},
    };
    for (size_t i = 0; i < COUNT(meetings); i++) {
        meet_at_each_step(&meetings[i], place);
    }
    unmake(place);
}

/* Another process wrote a value that no semaphore can have. */
static void
value_beyond_the_limit_is_an_error(void)
{
    struct place *place = make(0);
    memset(&place->sem, 0xff, sizeof(unsigned));
    CHECK_IS(pshm_sem_value(&place->sem), SEM_VALUE_MAX);
    CHECK_IS(pshm_sem_post(&place->sem, 1), -EOVERFLOW);
    CHECK_IS(pshm_sem_try(&place->sem), 0);
    unmake(place);
}

#endif

/* ---- a named semaphore ---- */

static struct pshm_name
file_of(const struct pshm_name *name)
{
    struct pshm_name file;
    CHECK_IS(pshm_sem_name(name, &file), 0);
    return file;
}

static void
name_is_that_of_sem_open(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    struct stat st;
    sem_t *sem = sem_open(pshm_name_posix(&name), O_CREAT | O_EXCL, 0600, 7);
    CHECK(sem != SEM_FAILED);
    CHECK(lstat(file.path, &st) == 0 && st.st_size == sizeof(sem_t));
    CHECK_IS(pshm_sem_unlink(&name), 0);
    CHECK(lstat(file.path, &st) < 0 && errno == ENOENT);
    CHECK_IS(pshm_sem_unlink(&name), -ENOENT);
    CHECK_IS(strcmp(pshm_sem_plain(pshm_name_plain(&file)),
                    pshm_name_plain(&name)), 0);
    CHECK_IS(strcmp(pshm_sem_plain("other"), "other"), 0);
    CHECK(sem_close(sem) == 0);
}

static void
name_may_be_too_long(void)
{
    char text[PSHM_NAME_MAX + 1];
    struct pshm_name name, file;
    int room = PSHM_NAME_MAX - (int)strlen("sem.");
    memset(text, 'x', sizeof(text));
    CHECK(pshm_name_parse(text, (size_t)room, &name) == NULL);
    CHECK_IS(pshm_sem_name(&name, &file), 0);
    CHECK(pshm_name_parse(text, (size_t)room + 1, &name) == NULL);
#ifdef __GLIBC__                        /* musl does not add a prefix to the
                                           name */
    CHECK_IS(pshm_sem_name(&name, &file), -ENAMETOOLONG);
#else
    CHECK_IS(pshm_sem_name(&name, &file), 0);
#endif
}

int
main(void)
{
    RUN(killed_waiter_takes_at_most_one_unit);
#if defined(__GLIBC__) && defined(__LP64__)
    RUN(two_calls_at_once_lose_no_unit);
    RUN(value_beyond_the_limit_is_an_error);
#endif
    RUN(name_is_that_of_sem_open);
    RUN(name_may_be_too_long);
    return finish();
}
