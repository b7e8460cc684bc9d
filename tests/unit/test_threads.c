/* csrc/posix/object has no shared state without a lock, so threads may call
 * anything at the same time. Also run under ThreadSanitizer. */
#include "check.h"
#include "posix/object/attach.h"
#include "posix/object/directory.h"
#include "posix/object/new_object.h"
#include "posix/object/link.h"
#include "posix/object/map.h"
#include "posix/object/reclaim.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4 };

struct worker {
    pthread_t thread;
    int index, rounds;
    pthread_barrier_t *start;
    struct pshm_name shared, own;
    atomic_int *published;
    /* the first failed check */
    const char *failed;
    int rc;
};

/* CHECK is not thread-safe, so a worker records its first failed check. */
static void
expect(struct worker *worker, bool holds, const char *what, int rc)
{
    if (!holds && worker->failed == NULL) {
        worker->failed = what;
        worker->rc = rc;
    }
}

static int
make(struct worker *worker, struct pshm_new_object *new)
{
    struct pshm_new_object_params params = {
        .kind = PSHM_NAMED, .name = &worker->own, .size = 10000,
        .mode = 0600, .uid = (uid_t)-1, .gid = (gid_t)-1,
        .reserve = true, .populate = worker->index & 1};
    return pshm_new_object_make(&params, &go_on, new);
}

static void
attach_and_check(struct worker *worker, const struct pshm_name *name,
                 char expected)
{
    struct pshm_object object;
    void *base = NULL;
    int rc = pshm_attach(name, worker->index & 2, &PSHM_ACCEPT_ANY, &object);
    if (rc == -ENOENT && expected == 0) {
        return;
    }
    expect(worker, rc == 0, "attach", rc);
    if (rc < 0) {
        return;
    }
    rc = pshm_map(object.fd, 0, 10000, PROT_READ, &base);
    expect(worker, rc == 0, "map", rc);
    if (rc == 0) {
        char byte = *(const char *)base;
        expect(worker, byte == expected || (expected == 0 && byte != 0),
               "bytes", byte);
        pshm_unmap(base, 10000);
    }
    (void)close(object.fd);
}

/* Make, use and remove an object of its own. */
static void
use_own_object(struct worker *worker, char fill)
{
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    struct pshm_candidate candidate;
    int rc = make(worker, &new);
    expect(worker, rc == 0, "make", rc);
    if (rc == 0) {
        memset(new.base, fill, new.length);
        rc = pshm_new_object_publish(&new, &worker->own);
        expect(worker, rc == 0, "publish", rc);
    }
    attach_and_check(worker, &worker->own, fill);
    pshm_reclaim(pshm_name_plain(&worker->own), 0, true, &candidate);
    expect(worker, candidate.state == PSHM_IN_USE, "reclaim",
           candidate.state);
    rc = pshm_link_remove(&worker->own, new.id);
    expect(worker, rc == 0, "remove", rc);
    pshm_new_object_discard(&new);
}

/* All threads use one name: one thread publishes it, and one removes it. */
static void
use_shared_name(struct worker *worker)
{
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    int rc = make(worker, &new);
    expect(worker, rc == 0, "make", rc);
    if (rc < 0) {
        return;
    }
    memset(new.base, 's', new.length);
    rc = pshm_new_object_publish(&new, &worker->shared);
    expect(worker, rc == 0 || rc == -EEXIST, "publish", rc);
    attach_and_check(worker, &worker->shared, 0);
    if (rc == 0) {
        expect(worker, atomic_fetch_add(worker->published, 1) == 0,
               "two have published", 0);
        (void)atomic_fetch_sub(worker->published, 1);
        rc = pshm_link_remove(&worker->shared, new.id);
        expect(worker, rc == 0, "remove", rc);
    }
    pshm_new_object_discard(&new);
}

static void *
work(void *context)
{
    struct worker *worker = context;
    (void)pthread_barrier_wait(worker->start);
    for (int round = 0; round < worker->rounds; round++) {
        struct pshm_names names;
        use_own_object(worker, (char)('a' + round % 26));
        use_shared_name(worker);
        int rc = pshm_names_list(prefix(), &names);
        expect(worker, rc == 0, "list", rc);
        pshm_names_free(&names);
    }
    return NULL;
}

static void
threads_do_everything_at_once(void)
{
    struct worker workers[THREADS] = {0};
    atomic_int published = 0;
    pthread_barrier_t start;
    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) {
        char suffix[16];
        (void)snprintf(suffix, sizeof(suffix), "own%d", i);
        workers[i] = (struct worker){
            .index = i, .rounds = SANITIZED ? 100 : 500,
            .start = &start, .shared = name_of("shared"),
            .own = name_of(suffix), .published = &published};
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i])
              == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
        check_about("thread %d: %s, %d", i,
                    workers[i].failed ? workers[i].failed : "",
                    workers[i].rc);
        CHECK(workers[i].failed == NULL);
    }
    (void)pthread_barrier_destroy(&start);
}

/* A fault in one thread does not affect the others. */
static void *
open_and_close(void *context)
{
    int *failures = context;
    for (int i = 0; i < 200; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        *failures += fd < 0;
        *failures += close(fd) < 0;
    }
    return NULL;
}

static void
faults_affect_one_thread(void)
{
    pthread_t threads[2];
    int failures[2] = {0, 0};
    pshm_fault_arm("open", 1, PSHM_FAULT_FAIL_ON, EIO);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, open_and_close, &failures[i])
              == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_IS(failures[i], 0);
    }
    CHECK_IS(open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
    CHECK_IS(pshm_fault_disarm(), 1);
}

int
main(void)
{
    RUN(threads_do_everything_at_once);
    RUN(faults_affect_one_thread);
    return finish();
}
