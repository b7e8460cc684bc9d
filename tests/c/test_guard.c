#include "check.h"
#include "posix/guard.h"
#include "posix/map.h"

#include <pthread.h>

enum { PAGES = 4 };

/* A mapping of PAGES pages of 'a', of which the object has `left` now. */
static char *
truncated(int *fd, size_t left)
{
    void *base = NULL;
    *fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(*fd >= 0 && ftruncate(*fd, (off_t)(PAGES * PAGE)) == 0);
    CHECK_IS(pshm_map(*fd, 0, PAGES * PAGE, PROT_READ | PROT_WRITE, &base), 0);
    memset(base, 'a', PAGES * PAGE);
    CHECK(ftruncate(*fd, (off_t)(left * PAGE)) == 0);
    return base;
}

static char
peek(const char *base, size_t page)
{
    return *((const volatile char *)base + page * PAGE);
}

static void
lost_pages_are_zeros_and_come_back(void)
{
    int fd;
    char *base = truncated(&fd, 1);
    struct pshm_guard *guard = NULL;
    struct pshm_guard_lost lost = {9, 9};
    CHECK_IS(pshm_guard_enter(base, PAGES * PAGE - 5,
                              PROT_READ | PROT_WRITE, &guard), 0);
    errno = 4711;
    CHECK_IS(peek(base, 0), 'a');
    CHECK_IS(peek(base, 2), 0);
    CHECK_IS(errno, 4711);
    CHECK_IS(pshm_guard_leave(guard, PROT_READ | PROT_WRITE, &lost), 0);
    CHECK_IS(lost.start, 2 * PAGE);
    CHECK_IS(lost.end, 3 * PAGE);
    CHECK(ftruncate(fd, (off_t)(PAGES * PAGE)) == 0);
    CHECK(pwrite(fd, "b", 1, (off_t)(2 * PAGE)) == 1);
    CHECK_IS(peek(base, 2), 'b');
    pshm_unmap(base, PAGES * PAGE);
    (void)close(fd);
}

static void
what_is_not_lost_is_not_reported(void)
{
    int fd;
    char *base = truncated(&fd, PAGES);
    struct pshm_guard *outer = NULL, *inner = NULL;
    struct pshm_guard_lost lost;
    int prot = PROT_READ | PROT_WRITE;
    CHECK_IS(pshm_guard_enter(base, PAGES * PAGE, prot, &outer), 0);
    CHECK_IS(peek(base, 3), 'a');
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    CHECK_IS(pshm_guard_enter(base, PAGES * PAGE, prot, &inner), 0);
    CHECK_IS(peek(base, 3), 0);
    CHECK_IS(pshm_guard_leave(inner, prot, &lost), 0);
    CHECK_IS(lost.end, PAGES * PAGE);
    CHECK_IS(pshm_guard_leave(outer, prot, &lost), 0);
    CHECK_IS(lost.end, 0);
    pshm_unmap(base, PAGES * PAGE);
    (void)close(fd);
}

static void
the_action_is_put_back(void)
{
    int fd;
    char *base = truncated(&fd, PAGES);
    struct pshm_guard *guard[2];
    struct pshm_guard_lost lost;
    struct sigaction before, action;
    CHECK(sigaction(SIGBUS, NULL, &before) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK_IS(pshm_guard_enter(base, PAGES * PAGE, PROT_READ, &guard[i]),
                 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(sigaction(SIGBUS, NULL, &action) == 0);
        CHECK(action.sa_handler != before.sa_handler);
        CHECK_IS(pshm_guard_leave(guard[i], PROT_READ, &lost), 0);
    }
    CHECK(sigaction(SIGBUS, NULL, &action) == 0);
    CHECK(action.sa_handler == before.sa_handler);
    pshm_unmap(base, PAGES * PAGE);
    (void)close(fd);
}

static int
private_memory_is_an_error(void *context)
{
    (void)context;
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);
    struct pshm_guard *guard;
    CHECK_IS(pshm_guard_enter(base, PAGE, PROT_READ, &guard), -EINVAL);
    (void)munmap(base, PAGE);
    return 0;
}

static void
memory_that_is_not_shared_is_refused(void)
{
    CHECK_IS(child_run(private_memory_is_an_error, NULL), 0);
}

/* ---- failures ---- */

struct entering {
    char *base;
    int prot;
    struct pshm_guard *guard;
};

static int
enter(void *context)
{
    struct entering *entering = context;
    return pshm_guard_enter(entering->base, PAGES * PAGE, entering->prot,
                            &entering->guard);
}

static void
undo_enter(void *context)
{
    struct entering *entering = context;
    struct pshm_guard_lost lost;
    CHECK_IS(pshm_guard_leave(entering->guard, entering->prot, &lost), 0);
}

/* Alone, and while a guard of the same mapping has zeros in it, made when it
 * had another protection. */
static void
each_failure_of_entering_is_told(void)
{
    int fd;
    struct entering entering = {.base = truncated(&fd, 1), .prot = PROT_READ};
    struct pshm_guard *outer = NULL;
    struct pshm_guard_lost lost;
    struct operation op = {.name = "enter", .act = enter, .undo = undo_enter,
                           .context = &entering, .overcomes = " munlock "};
    CHECK(fail_each(&op) >= 4);
    CHECK_IS(pshm_guard_enter(entering.base, PAGES * PAGE,
                              PROT_READ | PROT_WRITE, &outer), 0);
    CHECK_IS(peek(entering.base, PAGES - 1), 0);
    CHECK_IS(pshm_map_protect(entering.base, PAGES * PAGE, PROT_READ), 0);
    op.overcomes = " munlock mremap ";
    CHECK(fail_each(&op) >= 4);
    CHECK_IS(pshm_guard_leave(outer, PROT_READ, &lost), 0);
    pshm_unmap(entering.base, PAGES * PAGE);
    (void)close(fd);
}

static void
pages_that_cannot_be_mapped_again_are_zeros(void)
{
    static const struct {
        const char *call;
        int nth, action, result;
    } cases[] = {
        {"mremap", 1, PSHM_FAULT_FAIL, 0},
        {"mremap", 1, PSHM_FAULT_FAIL_ON, -ENOMEM},
        {"mprotect", 1, PSHM_FAULT_FAIL, -ENOMEM},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int fd;
        char *base = truncated(&fd, 1);
        struct pshm_guard *guard = NULL;
        struct pshm_guard_lost lost;
        CHECK_IS(pshm_guard_enter(base, PAGES * PAGE, PROT_READ, &guard), 0);
        CHECK_IS(peek(base, 2), 0);
        pshm_fault_arm(cases[i].call, cases[i].nth, cases[i].action, ENOMEM);
        CHECK_IS(pshm_guard_leave(guard, PROT_READ | PROT_WRITE, &lost),
                 cases[i].result);
        (void)pshm_fault_disarm();
        CHECK_IS(lost.end, 3 * PAGE);
        CHECK(ftruncate(fd, (off_t)(PAGES * PAGE)) == 0);
        CHECK(pwrite(fd, "b", 1, (off_t)(2 * PAGE)) == 1);
        CHECK_IS(peek(base, 2), cases[i].result == 0 ? 'b' : 0);
        pshm_unmap(base, PAGES * PAGE);
        (void)close(fd);
    }
}

/* ---- the same from many threads ---- */

enum { THREADS = 4, ROUNDS = 200 };

static void *
read_lost(void *base)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct pshm_guard *guard;
        struct pshm_guard_lost lost;
        int prot = PROT_READ | PROT_WRITE;
        if (pshm_guard_enter(base, PAGES * PAGE, prot, &guard) < 0) {
            return base;
        }
        size_t page = 1 + (size_t)i % (PAGES - 1);
        if (peek(base, page) != 0 || peek(base, 0) != 'a'
            || pshm_guard_leave(guard, prot, &lost) < 0
            || lost.start > page * PAGE || lost.end < (page + 1) * PAGE) {
            return base;
        }
    }
    return NULL;
}

static int
read_in_threads(void *base)
{
    pthread_t threads[THREADS];
    int wrong = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK_IS(pthread_create(&threads[i], NULL, read_lost, base), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK_IS(pthread_join(threads[i], &result), 0);
        wrong += result != NULL;
    }
    return wrong;
}

static void
threads_enter_read_and_leave(void)
{
    int fd;
    char *base = truncated(&fd, 1);
    CHECK_IS(child_run(read_in_threads, base), 0);
    pshm_unmap(base, PAGES * PAGE);
    (void)close(fd);
}

/* ---- what ends a process ---- */

struct death {
    char *base;
    bool outside;                       /* of the guard */
    bool sent;                          /* and not an access */
};

static int
die(void *context)
{
    struct death *death = context;
    struct pshm_guard *guard;
    struct pshm_guard_lost lost;
    int fd;
    char *other = truncated(&fd, 1);
    /* A sanitizer has a handler, whose end is another one. */
    struct sigaction action = {.sa_handler = SIG_DFL};
    (void)sigaction(SIGBUS, &action, NULL);
    CHECK_IS(pshm_guard_enter(death->base, PAGES * PAGE, PROT_READ, &guard),
             0);
    if (death->outside) {
        CHECK_IS(pshm_guard_leave(guard, PROT_READ, &lost), 0);
    }
    if (death->sent) {
        (void)kill(getpid(), SIGBUS);
    }
    return peek(death->outside ? death->base : other, 2);
}

static void
all_else_ends_the_process(void)
{
    int fd;
    struct death death = {.base = truncated(&fd, 1)};
    CHECK_IS(child_run(die, &death), -SIGBUS);
    death.sent = true;
    CHECK_IS(child_run(die, &death), -SIGBUS);
    death = (struct death){.base = death.base, .outside = true};
    CHECK_IS(child_run(die, &death), -SIGBUS);
    pshm_unmap(death.base, PAGES * PAGE);
    (void)close(fd);
}

int
main(void)
{
    RUN(lost_pages_are_zeros_and_come_back);
    RUN(what_is_not_lost_is_not_reported);
    RUN(the_action_is_put_back);
    RUN(memory_that_is_not_shared_is_refused);
    RUN(each_failure_of_entering_is_told);
    RUN(pages_that_cannot_be_mapped_again_are_zeros);
    RUN(threads_enter_read_and_leave);
    RUN(all_else_ends_the_process);
    return finish();
}
