#include "check.h"
#include "peers.h"
#include "posix/sync/robust.h"
#include "posix/sync/thread.h"

#include <pthread.h>

/* ---- the end of a thread ---- */

static atomic_uint ends;

static void
count_end(void)
{
    (void)atomic_fetch_add(&ends, 1);
}

static void *
be_a_thread(void *context)
{
    (void)context;
    return (void *)(intptr_t)(pshm_thread()->id == 0);
}

static void
run_a_thread(void)
{
    pthread_t thread;
    void *wrong;
    CHECK(pthread_create(&thread, NULL, be_a_thread, NULL) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
}

/* A program may have used up the keys of pthread_key_create(3). */
static int
end_of_a_thread_is_not_noticed_without_a_key(void *context)
{
    pthread_key_t key;
    (void)context;
    while (pthread_key_create(&key, NULL) == 0) {
    }
    pshm_thread_at_end(count_end);
    run_a_thread();
    CHECK_IS(atomic_load(&ends), 0);
    return 0;
}

/* Runs before all other tests, because a process makes its key only once. */
static int
run_two_threads(void *context)
{
    (void)context;
    run_a_thread();
    CHECK_IS(atomic_load(&ends), 0);
    pshm_thread_at_end(count_end);
    run_a_thread();
    CHECK_IS(atomic_load(&ends), 1);
    return 0;
}

static void
end_of_each_thread_is_noticed(void)
{
    CHECK_IS(child_run(run_two_threads, NULL), 0);
}

/* ---- the mutexes that a thread holds ---- */

enum { MANY = 40 };

static void
record(uintptr_t link)
{
    CHECK_IS(pshm_thread_reserve(pshm_thread()), 0);
    pshm_thread_locked(pshm_thread(), link, 0);
}

static void
check_neighbours(const uintptr_t *links, unsigned count)
{
    const struct pshm_thread *self = pshm_thread();
    for (unsigned i = 0; i < count; i++) {
        uintptr_t found[2] = {0};
        CHECK_IS(pshm_thread_position(self, links[i]), i + 1);
        CHECK(pshm_thread_neighbours(self, links[i], found));
        CHECK(found[0] == (i + 1 < count ? links[i + 1] : self->list));
        CHECK(found[1] == (i > 0 ? links[i - 1] : self->list));
    }
}

static void
mutexes_are_recorded_in_order(void)
{
    struct pshm_thread *self = pshm_thread();
    uintptr_t links[MANY], found[2];
    /* musl makes the list when the thread locks its first mutex. */
    self->list = self->list != 0 ? self->list : 1;
    pshm_thread_unlocked(self, 999);
    for (unsigned i = 0; i < MANY; i++) {
        links[i] = 1000 + i;
        record(links[i]);
        check_neighbours(links, i + 1);
    }
    CHECK_IS(pshm_thread_position(self, 999), 0);
    CHECK(!pshm_thread_neighbours(self, 999, found));
    pshm_thread_unlocked(self, 999);
    check_neighbours(links, MANY);
    for (unsigned left = MANY; left > 0; left--) {
        pshm_thread_unlocked(self, links[left / 2]);
        memmove(&links[left / 2], &links[left / 2 + 1],
                (left - left / 2 - 1) * sizeof(*links));
        check_neighbours(links, left - 1);
    }
}

/* A mutex that cannot be recorded is not locked. */
static int
lock_without_memory(void *context)
{
    struct pshm_thread *self = pshm_thread();
    uintptr_t link = 0;
    (void)context;
    use_up_memory();
    while (link < MANY && pshm_thread_reserve(self) == 0) {
        pshm_thread_locked(self, ++link, 0);
    }
    CHECK(link > 0 && link < MANY);
    CHECK_IS(pshm_thread_reserve(self), -ENOMEM);
    end_limit(RLIMIT_DATA);
    CHECK_IS(pshm_thread_reserve(self), 0);
    return 0;
}

static void
without_memory_no_mutex_is_locked(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    CHECK_IS(child_run(lock_without_memory, NULL), 0);
}

/* ---- the state of a thread in a simulated /proc ---- */

static int
mount_proc(char *folder, size_t size, unsigned id)
{
    int rc = mount_own("/proc", "mode=755");
    (void)snprintf(folder, size, "/proc/%u", id);
    if (rc == 0) {
        make_folder(folder);
    }
    return rc;
}

/* The files describe this process. */
static int
check_states(void *context)
{
    static const struct {
        const char *text;
        bool ended;
    } cases[] = {
        {"", false},
        {"nothing", false},
        {"1 (x", false},
        {"1 (x)", false},
        {"1 (x) Z 4 5 6 7 8 9", false},
        {"1 (x) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21", false},
        {"1 (x) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 77", false},
        {"1 () R 3) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 77 5",
         false},
        {"1 (x) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 0", false},
        {"1 (x) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 78", true},
        {"1 (x) Z 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 77", true},
    };
    char folder[40], path[60];
    unsigned id = (unsigned)getpid();
    if (mount_proc(folder, sizeof(folder), id) != 0) {
        return CANNOT;
    }
    (void)context;
    (void)snprintf(path, sizeof(path), "%s/stat", folder);
    CHECK(!pshm_thread_has_ended(id, 77));
    for (size_t i = 0; i < COUNT(cases); i++) {
        check_about("%s", cases[i].text);
        write_file(path, cases[i].text);
        CHECK_IS(pshm_thread_has_ended(id, 77), cases[i].ended);
    }
    write_file(path, cases[COUNT(cases) - 2].text);
    CHECK(!pshm_thread_has_ended(id, 0));
    CHECK(pshm_thread_has_ended(id, 77));
    /* The 28th field tells whether the thread has replaced its program. */
    write_file(path, "1 (x) R 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 "
                     "77 23 24 25 26 27 1600");
    CHECK(!pshm_thread_is_gone(id, 77, 0));
    CHECK(!pshm_thread_is_gone(id, 77, 100));
    CHECK(pshm_thread_is_gone(id, 77, 101));
    CHECK_IS(pshm_thread_enter()->image, 100);
    write_file(path, cases[COUNT(cases) - 2].text);
    CHECK(!pshm_thread_is_gone(id, 78, 101));
    /* In another time namespace the times cannot be compared. */
    make_folder("/proc/self");
    make_folder("/proc/self/ns");
    write_file("/proc/self/ns/time", "");
    CHECK(!pshm_thread_has_ended(id, 77));
    CHECK_IS(pshm_thread_enter()->started, 0);
    CHECK(unlink("/proc/self/ns/time") == 0);
    CHECK_IS(pshm_thread_enter()->started, 78);
    CHECK(unlink(path) == 0);
    CHECK_IS(pshm_thread_enter()->started, 0);
    make_folder(path);                  /* a file that cannot be read */
    CHECK(!pshm_thread_has_ended(id, 77));
    return 0;
}

static void
ended_depends_on_state_and_start_time(void)
{
    CHECK_IN_CHILD(check_states, NULL, "cannot mount a tmpfs");
}

static void
thread_that_does_not_exist_has_ended(void)
{
    unsigned id = pshm_thread()->id, started = pshm_thread()->started;
    CHECK(started != 0);
    CHECK(!pshm_thread_has_ended(id, started));
    CHECK(pshm_thread_has_ended(id, started + 1));
    pid_t child = child_start(run_two_threads, NULL);
    CHECK_IS(child_wait(child), 0);
    CHECK(pshm_thread_has_ended((unsigned)child, 0));
}

int
main(void)
{
    pshm_forks_watch();
    RUN_IN_CHILD(end_of_a_thread_is_not_noticed_without_a_key, 0);
    RUN(end_of_each_thread_is_noticed);
    RUN(mutexes_are_recorded_in_order);
    RUN(without_memory_no_mutex_is_locked);
    RUN(ended_depends_on_state_and_start_time);
    RUN(thread_that_does_not_exist_has_ended);
    return finish();
}
