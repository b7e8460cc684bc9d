/* Also run under ThreadSanitizer. */
#include "check.h"
#include "posix/object/gate.h"
#include "posix/object/map.h"
#include "posix/clock.h"
#include "posix/object/procmaps.h"
#include "posix/object/size.h"

#include <pthread.h>
#include <stdatomic.h>

static void
many_may_be_inside_and_one_more_than_once(void)
{
    pshm_gate_enter();
    pshm_gate_enter();
    CHECK_IS(pshm_gate_close(), -EBUSY);
    pshm_gate_leave();
    CHECK_IS(pshm_gate_close(), -EBUSY);
    pshm_gate_leave();
    CHECK_IS(pshm_gate_close(), 0);
    CHECK_IS(pshm_gate_close(), -EBUSY);
    pshm_gate_open();
    CHECK_IS(pshm_gate_close(), 0);
    pshm_gate_open();
    pshm_gate_enter();
    pshm_gate_leave();
}

struct waiter {
    atomic_bool inside;
    atomic_bool may_leave;
};

static void *
go_inside(void *context)
{
    struct waiter *waiter = context;
    pshm_gate_enter();
    atomic_store(&waiter->inside, true);
    while (!atomic_load(&waiter->may_leave)) {
        (void)usleep(100);
    }
    pshm_gate_leave();
    return NULL;
}

static void
who_comes_while_it_is_closed_waits(void)
{
    struct waiter waiter = {false, true};
    pthread_t thread;
    CHECK_IS(pshm_gate_close(), 0);
    CHECK(pthread_create(&thread, NULL, go_inside, &waiter) == 0);
    (void)usleep(20000);
    CHECK(!atomic_load(&waiter.inside));
    pshm_gate_open();
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&waiter.inside));
}

/* ---- closing waits a little ---- */

static void *
go_inside_briefly(void *context)
{
    struct waiter *waiter = context;
    pshm_gate_enter();
    atomic_store(&waiter->inside, true);
    (void)usleep(5000);
    pshm_gate_enter();          /* which waits for nobody */
    pshm_gate_leave();
    (void)usleep(5000);
    atomic_store(&waiter->may_leave, true);
    pshm_gate_leave();
    return NULL;
}

/* Should this machine take 50 ms for these 10, it is done again. */
static void
closing_waits_for_who_is_inside(void)
{
    for (int tries = 0; tries < 20; tries++) {
        struct waiter waiter = {false, false};
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, go_inside_briefly, &waiter) == 0);
        while (!atomic_load(&waiter.inside)) {
            (void)usleep(100);
        }
        double begun = pshm_clock();
        int rc = pshm_gate_close();
        double took = pshm_clock() - begun;
        CHECK(rc == 0 || took >= 0.05);
        CHECK(rc < 0 || atomic_load(&waiter.may_leave));
        if (rc == 0) {
            pshm_gate_open();
        }
        CHECK(pthread_join(thread, NULL) == 0);
        if (rc == 0) {
            return;
        }
    }
    CHECK(false);               /* 20 times in a row, it was not the machine */
}

static void *
enter_and_leave(void *context)
{
    pshm_gate_enter();
    atomic_store((atomic_bool *)context, true);
    pshm_gate_leave();
    return NULL;
}

static void *
close_and_open(void *context)
{
    int rc = pshm_gate_close();
    if (rc == 0) {
        pshm_gate_open();
    }
    atomic_store((atomic_int *)context, rc);
    return NULL;
}

static void
closing_gives_up_and_lets_in_whom_it_kept_back(void)
{
    pthread_t closer, comer;
    atomic_bool came = false;
    atomic_int closed = 1;
    double begun = pshm_clock();
    pshm_gate_enter();
    CHECK(pthread_create(&closer, NULL, close_and_open, &closed) == 0);
    (void)usleep(10000);
    CHECK(pthread_create(&comer, NULL, enter_and_leave, &came) == 0);
    CHECK(pthread_join(comer, NULL) == 0);
    CHECK(pthread_join(closer, NULL) == 0);
    CHECK(atomic_load(&came));
    CHECK_IS(atomic_load(&closed), -EBUSY);
    CHECK(pshm_clock() - begun >= 0.05);
    pshm_gate_leave();
    CHECK_IS(pshm_gate_close(), 0);
    pshm_gate_open();
}

static void
who_is_inside_does_not_wait_for_himself(void)
{
    pshm_gate_enter();
    double begun = pshm_clock();
    CHECK_IS(pshm_gate_close(), -EBUSY);
    CHECK(pshm_clock() - begun < 0.05);
    pshm_gate_leave();
}

static int
use_the_gate(void *context)
{
    (void)context;
    pshm_gate_enter();
    pshm_gate_leave();
    CHECK_IS(pshm_gate_close(), 0);
    pshm_gate_open();
    pshm_gate_enter();
    pshm_gate_leave();
    return 0;
}

static void
child_finds_it_open(void)
{
    struct waiter waiter = {false, false};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, go_inside, &waiter) == 0);
    while (!atomic_load(&waiter.inside)) {
        (void)usleep(100);
    }
    CHECK_IS(child_run(use_the_gate, NULL), 0);
    atomic_store(&waiter.may_leave, true);
    CHECK(pthread_join(thread, NULL) == 0);

    CHECK_IS(pshm_gate_close(), 0);
    CHECK_IS(child_run(use_the_gate, NULL), 0);
    pshm_gate_open();
    CHECK_IS(use_the_gate(NULL), 0);
}

static int
leave_and_use_the_gate(void *context)
{
    pshm_gate_leave();
    return use_the_gate(context);
}

/* A signal handler may fork in the middle of a call, and both processes go on
 * with that call. */
static void
child_may_leave_where_its_parent_was_inside(void)
{
    pshm_gate_enter();
    CHECK_IS(child_run(leave_and_use_the_gate, NULL), 0);
    pshm_gate_leave();
    CHECK_IS(use_the_gate(NULL), 0);
}

/* ---- mapping and shrinking at once ---- */

struct traffic {
    int fd;
    atomic_bool stop;
    atomic_int mapped, shrunk;
};

/* Write to all that was mapped: past the end that would be a bus error. */
static void *
map_and_write(void *context)
{
    struct traffic *traffic = context;
    while (!atomic_load(&traffic->stop)) {
        void *base;
        off_t length = -1;
        struct pshm_map_seen seen;
        pshm_gate_enter();
        int rc = pshm_map_range(traffic->fd, 0, &length,
                                PROT_READ | PROT_WRITE, false, &base, &seen);
        pshm_gate_leave();
        if (rc == 0) {
            (void)atomic_fetch_add(&traffic->mapped, 1);
            for (off_t at = 0; at < length; at += (off_t)PAGE) {
                __atomic_store_n((char *)base + at, 1, __ATOMIC_RELAXED);
            }
            pshm_unmap(base, (size_t)length);
        }
        (void)usleep(10);
    }
    return NULL;
}

static void
shrink_if_nobody_minds(struct traffic *traffic, struct pshm_identity id)
{
    if (pshm_gate_close() < 0) {
        return;
    }
    if (pshm_maps_reach(id, (off_t)PAGE, NULL, 0) == 0) {
        CHECK_IS(pshm_size_shrink(traffic->fd, (off_t)PAGE), 0);
        (void)atomic_fetch_add(&traffic->shrunk, 1);
    }
    pshm_gate_open();
}

static void
nobody_gets_a_mapping_past_the_end(void)
{
    struct traffic traffic = {.fd = memfd_create("test", MFD_CLOEXEC)};
    pthread_t threads[2];
    struct stat st;
    off_t large = 16 * (off_t)PAGE;
    CHECK(ftruncate(traffic.fd, large) == 0 && fstat(traffic.fd, &st) == 0);
    struct pshm_identity id = {st.st_dev, st.st_ino};
    for (size_t i = 0; i < COUNT(threads); i++) {
        CHECK(pthread_create(&threads[i], NULL, map_and_write, &traffic)
              == 0);
    }
    for (int i = 0; i < (SANITIZED ? 300 : 3000); i++) {
        shrink_if_nobody_minds(&traffic, id);
        struct pshm_progress progress = {0};
        pshm_gate_enter();
        CHECK_IS(pshm_size_grow(traffic.fd, (off_t)PAGE, large, true,
                                &progress),
                 0);
        pshm_gate_leave();
    }
    atomic_store(&traffic.stop, true);
    for (size_t i = 0; i < COUNT(threads); i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(atomic_load(&traffic.mapped) > 0);
    (void)close(traffic.fd);
}

int
main(void)
{
    RUN(many_may_be_inside_and_one_more_than_once);
    RUN(who_comes_while_it_is_closed_waits);
    RUN(closing_waits_for_who_is_inside);
    RUN(closing_gives_up_and_lets_in_whom_it_kept_back);
    RUN(who_is_inside_does_not_wait_for_himself);
    RUN(child_finds_it_open);
    RUN(child_may_leave_where_its_parent_was_inside);
    RUN(nobody_gets_a_mapping_past_the_end);
    return finish();
}
