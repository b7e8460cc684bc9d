#include "check.h"
#include "peers.h"
#include "posix/semaphore.h"

struct place {
    sem_t sem, other;
    volatile long plain;
    atomic_uint taken;
};

static struct place *
make(unsigned value)
{
    struct place *place = shared_memory(PAGE);
    CHECK_IS(pshm_sem_init(&place->sem, value), 0);
    CHECK_IS(pshm_sem_init(&place->other, 0), 0);
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

static void
what_is_posted_can_be_taken(void)
{
    struct place *place = make(2);
    CHECK_IS(pshm_sem_value(&place->sem), 2);
    CHECK_IS(pshm_sem_try(&place->sem), 0);
    CHECK_IS(take(&place->sem), 0);
    CHECK_IS(pshm_sem_value(&place->sem), 0);
    CHECK_IS(pshm_sem_try(&place->sem), -EBUSY);
    CHECK_IS(pshm_sem_post(&place->sem, 3), 0);
    CHECK_IS(pshm_sem_value(&place->sem), 3);
    CHECK_IS(pshm_sem_post(&place->sem, 0), 0);
    CHECK_IS(pshm_sem_value(&place->sem), 3);
    unmake(place);
}

static void
waits_end_in_time(void)
{
    struct place *place = make(0);
    int64_t start = pshm_now();
    CHECK_IS(pshm_sem_wait(&place->sem, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_sem_wait(&place->sem, before_long()), -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_sem_wait(&place->sem, 0), -ETIMEDOUT);
    CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
    CHECK_IS(pshm_sem_wait(&place->sem, 0), 0);
    unmake(place);
}

static void
value_has_a_limit(void)
{
    unsigned most = pshm_sem_most();
    struct place *place = make(most - 1);
    sem_t beyond;
    CHECK_IS(pshm_sem_post(&place->sem, 2), -EOVERFLOW);
    CHECK_IS(pshm_sem_value(&place->sem), most - 1);
    CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
    CHECK_IS(pshm_sem_post(&place->sem, 1), -EOVERFLOW);
    CHECK_IS(pshm_sem_value(&place->sem), most);
    CHECK_IS(pshm_sem_init(&beyond, most + 1U), -EINVAL);
    unmake(place);
}

static int
count_under_it(void *context)
{
    struct place *place = context;
    for (int i = 0; i < ROUNDS(10000); i++) {
        if (!CHECK_IS(take(&place->sem), 0)) {
            return 1;
        }
        place->plain = place->plain + 1;
        CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
    }
    return 0;
}

static void
as_many_go_in_as_were_posted(void)
{
    struct place *place = make(1);
    together(4, count_under_it, place);
    CHECK_IS(place->plain, 4 * ROUNDS(10000));
    CHECK_IS(pshm_sem_value(&place->sem), 1);
    unmake(place);
}

static int
answer(void *context)
{
    struct place *place = context;
    for (int i = 0; i < ROUNDS(3000); i++) {
        CHECK_IS(take(&place->sem), 0);
        CHECK_IS(pshm_sem_post(&place->other, 1), 0);
    }
    return 0;
}

static void
two_processes_take_turns(void)
{
    struct place *place = make(0);
    pid_t child = child_start(answer, place);
    for (int i = 0; i < ROUNDS(3000); i++) {
        CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
        CHECK_IS(take(&place->other), 0);
    }
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_sem_value(&place->sem), 0);
    unmake(place);
}

static int
take_for_ever(void *context)
{
    struct place *place = context;
    while (CHECK_IS(take(&place->sem), 0)) {
        (void)atomic_fetch_add(&place->taken, 1);
    }
    return 1;
}

/* Who is killed takes at most the one with it that it was about to count. */
static void
killed_waiter_hinders_nobody(void)
{
    struct place *place = make(0);
    unsigned posted = 0, lost = 0;
    pid_t steady = child_start(take_for_ever, place);
    for (int round = 0; round < ROUNDS(200); round++) {
        pid_t child = child_start(take_for_ever, place);
        for (int i = 0; i < 10; i++, posted++) {
            CHECK_IS(pshm_sem_post(&place->sem, 1), 0);
        }
        kill_within(child, 300);
        lost++;
    }
    await(&place->taken, posted - lost);
    CHECK(atomic_load(&place->taken) <= posted);
    kill_now(steady);
    unmake(place);
}

/* ---- With a name ---- */

static struct pshm_way way;

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
    pshm_sem_close(sem);
    pshm_sem_close(NULL);
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
#ifdef __GLIBC__                        /* musl puts nothing before the name */
    CHECK_IS(pshm_sem_name(&name, &file), -ENAMETOOLONG);
#else
    CHECK_IS(pshm_sem_name(&name, &file), 0);
#endif
}

/* What it made is what the C library knows, with its mode at once. */
static void
made_by_name_it_is_the_c_librarys(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    struct pshm_identity id, found;
    struct stat st;
    sem_t *sem = NULL;
    mode_t mask = umask(077);
    CHECK_IS(pshm_sem_create(&file, 3, 0666, &way), 0);
    (void)umask(mask);
    CHECK(lstat(file.path, &st) == 0);
    CHECK_IS(st.st_mode & 07777, 0666);
    CHECK_IS(st.st_size, sizeof(sem_t));
    CHECK_IS(pshm_sem_create(&file, 9, 0600, &way), -EEXIST);

    sem_t *theirs = sem_open(pshm_name_posix(&name), 0);
    CHECK(theirs != SEM_FAILED);
    CHECK_IS(pshm_sem_open(&name, &file, &sem, &id), 0);
    found = identity_of(&file);
    CHECK(pshm_identity_same(id, found));
    CHECK_IS(pshm_sem_value(sem), 3);
    CHECK_IS(pshm_sem_try(sem), 0);
    CHECK_IS(pshm_sem_value(theirs), 2);
    pshm_sem_close(theirs);
    pshm_sem_close(sem);
    CHECK_IS(pshm_sem_unlink(&name), 0);
    CHECK_IS(pshm_sem_open(&name, &file, &sem, &id), -ENOENT);
}

static void
value_that_cannot_be_leaves_no_name(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    CHECK_IS(pshm_sem_create(&file, pshm_sem_most() + 1U, 0600, &way),
             -EINVAL);
    CHECK_IS(identity_of(&file).ino, 0);
}

static void
something_else_of_that_name_is_told(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    struct pshm_identity id;
    sem_t *sem;
    (void)make_plain(&file, (off_t)sizeof(sem_t) - 1, 0600, 0);
    CHECK_IS(pshm_sem_open(&name, &file, &sem, &id), -EINVAL);
    remove_plain(&file);
    CHECK(mkfifo(file.path, 0600) == 0);
    CHECK_IS(pshm_sem_open(&name, &file, &sem, &id), -EINVAL);
    remove_plain(&file);
    CHECK(mkdir(file.path, 0700) == 0);
    CHECK_IS(pshm_sem_open(&name, &file, &sem, &id), -EINVAL);
    CHECK(rmdir(file.path) == 0);
}

/* The nth call on the way fails.  Returns false past the last one. */
static bool
fail_at(const struct pshm_name *file, int nth, int err)
{
    pshm_fault_arm(NULL, nth, PSHM_FAULT_FAIL, err);
    int rc = pshm_sem_create(file, 1, 0640, &way);
    int calls = pshm_fault_disarm();
    CHECK(rc == 0 || rc == -err);
    CHECK_IS(identity_of(file).ino != 0, rc == 0);
    if (rc == 0) {
        remove_plain(file);
    }
    return calls >= nth;
}

/* But for munmap, whose failure would leave the memory mapped. */
static void
each_failure_leaves_nothing(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    char log[1000];
    pshm_fault_arm(NULL, 0, PSHM_FAULT_FAIL, 0);
    CHECK_IS(pshm_sem_create(&file, 1, 0640, &way), 0);
    (void)pshm_fault_disarm();
    (void)snprintf(log, sizeof(log), "%s", pshm_fault_log());
    remove_plain(&file);
    char *rest = log;
    for (int nth = 1; rest != NULL; nth++) {
        const char *call = strsep(&rest, " ");
        check_about("call %d, %s", nth, call);
        if (strcmp(call, "munmap") != 0) {
            CHECK(fail_at(&file, nth, EIO));
            CHECK(fail_at(&file, nth, EINTR));
        }
    }
}

/* ---- in use by name across processes ---- */

static int
race_to_make(void *context)
{
    const struct pshm_name *name = context;
    struct pshm_name file = file_of(name);
    struct pshm_identity id;
    sem_t *sem;
    int rc = pshm_sem_create(&file, 1, 0600, &way);
    CHECK(rc == 0 || rc == -EEXIST);
    CHECK_IS(pshm_sem_open(name, &file, &sem, &id), 0);
    for (int i = 0; i < 100; i++) {
        CHECK_IS(take(sem), 0);
        CHECK_IS(pshm_sem_value(sem), 0);
        CHECK_IS(pshm_sem_post(sem, 1), 0);
    }
    pshm_sem_close(sem);
    return 0;
}

static void
whoever_makes_it_all_use_the_same(void)
{
    struct pshm_name name = name_of("sem"), file = file_of(&name);
    for (int round = 0; round < ROUNDS(30); round++) {
        together(3, race_to_make, &name);
        CHECK(identity_of(&file).ino != 0);
        CHECK_IS(pshm_sem_unlink(&name), 0);
    }
}

int
main(void)
{
    RUN(what_is_posted_can_be_taken);
    RUN(waits_end_in_time);
    RUN(value_has_a_limit);
    RUN(as_many_go_in_as_were_posted);
    RUN(two_processes_take_turns);
    RUN(killed_waiter_hinders_nobody);
    RUN(name_is_that_of_sem_open);
    RUN(name_may_be_too_long);
    RUN(made_by_name_it_is_the_c_librarys);
    RUN(value_that_cannot_be_leaves_no_name);
    RUN(something_else_of_that_name_is_told);
    RUN(each_failure_leaves_nothing);
    RUN(whoever_makes_it_all_use_the_same);
    return finish();
}
