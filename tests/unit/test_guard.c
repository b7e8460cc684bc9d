#include "check.h"
#include "posix/object/guard.h"
#include "posix/host.h"
#include "posix/object/map.h"
#include "posix/sync/thread.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PAGES = 4 };

/* Map PAGES pages of 'a', and truncate the object to `left` pages. */
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

static void
unmap(char *base, int fd)
{
    pshm_unmap(base, PAGES * PAGE);
    (void)close(fd);
}

static char
peek(const char *base, size_t page)
{
    return *((const volatile char *)base + page * PAGE);
}

static void
lost_pages_are_zeros_inside_the_guard(void)
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
    unmap(base, fd);
}

static int
memory_that_is_not_shared_is_refused(void *context)
{
    (void)context;
    void *base = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);
    struct pshm_guard *guard;
    CHECK_IS(pshm_guard_enter(base, PAGE, PROT_READ, &guard), -EINVAL);
    (void)munmap(base, PAGE);
    return 0;
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

/* Without another guard, and while another guard of the mapping has replaced
 * pages that had another protection. */
static void
each_failure_of_entering_is_returned(void)
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
    unmap(entering.base, fd);
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
        unmap(base, fd);
    }
}

/* ---- many threads ---- */

enum { THREADS = 4, ROUNDS = 200 };

/* Another mapping, whose object is not truncated. */
static char *whole;

static bool
keeps_its_pages(void)
{
    struct pshm_guard *guard;
    struct pshm_guard_lost lost;
    int prot = PROT_READ | PROT_WRITE;
    return pshm_guard_enter(whole, PAGES * PAGE, prot, &guard) == 0
           && pshm_guard_leave(guard, prot, &lost) == 0 && lost.end == 0;
}

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
            || lost.start > page * PAGE || lost.end < (page + 1) * PAGE
            || !keeps_its_pages()) {
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
    int fd, other;
    char *base = truncated(&fd, 1);
    whole = truncated(&other, PAGES);
    CHECK_IS(child_run(read_in_threads, base), 0);
    pshm_unmap(base, PAGES * PAGE);
    unmap(whole, fd);
    (void)close(other);
}

/* ---- several guards ---- */

enum { READ_WRITE = PROT_READ | PROT_WRITE };

static struct pshm_guard *
begin(char *base, int prot)
{
    struct pshm_guard *guard = NULL;
    CHECK_IS(pshm_guard_enter(base, PAGES * PAGE, prot, &guard), 0);
    return guard;
}

/* Returns the first lost page, or -1. *count: the number of lost pages. */
static int
end(struct pshm_guard *guard, int prot, int *count)
{
    struct pshm_guard_lost lost;
    CHECK_IS(pshm_guard_leave(guard, prot, &lost), 0);
    *count = (int)((lost.end - lost.start) / PAGE);
    return lost.end == 0 ? -1 : (int)(lost.start / PAGE);
}

static void
each_guard_reports_its_own_mapping(void)
{
    int fds[2], count;
    char *bases[2] = {truncated(&fds[0], 1), truncated(&fds[1], 1)};
    for (int which = 0; which < 2; which++) {
        struct pshm_guard *guards[2] = {begin(bases[0], READ_WRITE),
                                        begin(bases[1], READ_WRITE)};
        CHECK_IS(peek(bases[which], 2), 0);
        CHECK_IS(peek(bases[which], 3), 0);
        CHECK_IS(peek(bases[which], 1), 0);
        for (int i = 0; i < 2; i++) {
            CHECK_IS(end(guards[i], READ_WRITE, &count),
                     i == which ? 1 : -1);
            CHECK_IS(count, i == which ? 3 : 0);
        }
    }
    for (int i = 0; i < 2; i++) {
        unmap(bases[i], fds[i]);
    }
}

/* Another guard of the same mapping has another protection, or the protection
 * has changed. */
static void
protection_is_that_of_the_mapping(void)
{
    int fd, count;
    char *base = truncated(&fd, 1);
    struct pshm_guard *outer = begin(base, PROT_READ);
    struct pshm_guard *inner = begin(base, READ_WRITE);
    CHECK_IS(peek(base, 2), 0);
    CHECK_IS(end(inner, READ_WRITE, &count), 2);
    CHECK_IS(end(outer, READ_WRITE, &count), 2);
    CHECK(ftruncate(fd, (off_t)(PAGES * PAGE)) == 0);
    base[2 * PAGE] = 'b';
    CHECK_IS(peek(base, 2), 'b');
    unmap(base, fd);
}

static void
rest_is_replaced_at_once_after_many_pieces(void)
{
    enum { MANY = 200 };
    int fd = memfd_create("test", MFD_CLOEXEC);
    void *base = NULL;
    struct pshm_guard *guard;
    struct pshm_guard_lost lost;
    CHECK(ftruncate(fd, (off_t)(MANY * PAGE)) == 0);
    CHECK_IS(pshm_map(fd, 0, MANY * PAGE, READ_WRITE, &base), 0);
    CHECK(ftruncate(fd, 0) == 0);
    CHECK_IS(pshm_guard_enter(base, MANY * PAGE, READ_WRITE, &guard), 0);
    for (size_t page = 0; page < 140; page += 2) {
        CHECK_IS(peek(base, page), 0);
    }
    CHECK_IS(pshm_guard_leave(guard, READ_WRITE, &lost), 0);
    CHECK(lost.start == 0 && lost.end == MANY * PAGE);
    pshm_unmap(base, MANY * PAGE);
    (void)close(fd);
}

static void
page_that_cannot_be_replaced_alone_goes_with_the_rest(void)
{
    int fd, count;
    char *base = truncated(&fd, 1);
    struct pshm_guard *guard = begin(base, READ_WRITE);
    pshm_fault_arm("syscall", 1, PSHM_FAULT_FAIL, ENOMEM);
    CHECK_IS(peek(base, 1), 0);
    (void)pshm_fault_disarm();
    CHECK_IS(end(guard, READ_WRITE, &count), 1);
    CHECK_IS(count, 3);
    unmap(base, fd);
}

/* ---- a lack of memory ---- */

static int
enter_without_memory(void *context)
{
    struct pshm_guard *guard;
    use_up_memory();
    CHECK_IS(pshm_guard_enter(context, PAGES * PAGE, READ_WRITE, &guard),
             -ENOMEM);
    end_limit(RLIMIT_DATA);
    return 0;
}

/* Runs before all other tests, which leave guards that can be reused. */
static void
without_memory_there_is_no_guard(void)
{
    if (SANITIZED) {
        skip("a sanitizer has its own malloc");
        return;
    }
    int fd;
    char *base = truncated(&fd, 1);
    CHECK_IS(child_run(enter_without_memory, base), 0);
    unmap(base, fd);
}

/* ---- a fork, and a signal mask ---- */

static int
enter_and_leave(void *context)
{
    int count;
    CHECK_IS(end(begin(context, READ_WRITE), READ_WRITE, &count), -1);
    return 0;
}

static void
fork_now(void *context)
{
    CHECK_IS(child_run(enter_and_leave, context), 0);
}

static void
child_forked_during_an_enter_can_enter(void)
{
    int fd, count;
    char *base = truncated(&fd, 1);
    pshm_fault_hook(fork_now, base);
    pshm_fault_arm("mremap", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    struct pshm_guard *guard = begin(base, READ_WRITE);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(end(guard, READ_WRITE, &count), -1);
    unmap(base, fd);
}

static bool
is_blocked(void)
{
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    return sigismember(&mask, SIGBUS) == 1;
}

/* ---- accesses outside a guard ---- */

static char *not_guarded;
static atomic_int not_repaired;

static void
map_it(int number)
{
    (void)number;
    (void)atomic_fetch_add(&not_repaired, 1);
    /* The signal is raised by a read of memory, so it does not interrupt a
     * function. */
    /* NOLINTBEGIN(bugprone-signal-handler,cert-msc54-cpp,cert-sig30-c) */
    CHECK(mmap(not_guarded, PAGE, PROT_READ,
               MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
          == not_guarded);
    /* NOLINTEND(bugprone-signal-handler,cert-msc54-cpp,cert-sig30-c) */
}

static void *
access_without_a_guard(void *context)
{
    return (void *)(intptr_t)peek(context, 0);
}

/* An access by a thread that has never used this library, by a thread without
 * a guard, and past the mapping; and an access for which no memory can be
 * mapped. */
static int
other_accesses_go_to_the_previous_action(void *context)
{
    int fd, count;
    char *base = truncated(&fd, 0);
    (void)context;
    (void)signal(SIGBUS, map_it);
    struct pshm_guard *guard = begin(base, READ_WRITE);
    int other_fd;
    char *other = truncated(&other_fd, 0);
    pthread_t thread;
    void *result;
    not_guarded = other;
    CHECK(pthread_create(&thread, NULL, access_without_a_guard, other) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == NULL);
    CHECK_IS(atomic_load(&not_repaired), 1);
    not_guarded = other + PAGE;
    CHECK_IS(peek(other, 1), 0);
    CHECK_IS(atomic_load(&not_repaired), 2);
    not_guarded = base + PAGE;
    pshm_fault_arm("syscall", 1, PSHM_FAULT_FAIL_ON, ENOMEM);
    CHECK_IS(peek(base, 1), 0);
    CHECK_IS(pshm_fault_disarm(), 2);
    CHECK_IS(atomic_load(&not_repaired), 3);
    CHECK_IS(end(guard, READ_WRITE, &count), 1);
    return 0;
}

static void *
signal_itself(void *context)
{
    (void)context;
    (void)raise(SIGBUS);
    return NULL;
}

static void
count_it(int number)
{
    (void)number;
    (void)atomic_fetch_add(&not_repaired, 1);
}

static int
signal_is_postponed_only_for_the_thread_in_a_guard(void *context)
{
    int fd, count;
    char *base = truncated(&fd, 1);
    pthread_t thread;
    (void)context;
    (void)signal(SIGBUS, count_it);
    struct pshm_guard *guard = begin(base, READ_WRITE);
    CHECK(pthread_create(&thread, NULL, signal_itself, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_IS(atomic_load(&not_repaired), 1);
    (void)raise(SIGBUS);                /* postponed */
    CHECK_IS(atomic_load(&not_repaired), 1);
    CHECK_IS(end(guard, READ_WRITE, &count), -1);
    CHECK_IS(atomic_load(&not_repaired), 2);
    return 0;
}

static void *
leave_for_another(void *context)
{
    int count;
    (void)pshm_thread();
    return (void *)(intptr_t)(end(context, READ_WRITE, &count) != -1);
}

/* Each thread has its own mask. */
static int
leave_in_another_thread_does_not_change_its_mask(void *context)
{
    int fd;
    char *base = truncated(&fd, 1);
    pthread_t thread;
    void *wrong;
    sigset_t bus;
    (void)context;
    (void)sigemptyset(&bus);
    (void)sigaddset(&bus, SIGBUS);
    CHECK(pthread_sigmask(SIG_BLOCK, &bus, NULL) == 0);
    struct pshm_guard *guard = begin(base, READ_WRITE);
    CHECK(pthread_create(&thread, NULL, leave_for_another, guard) == 0);
    CHECK(pthread_join(thread, &wrong) == 0 && wrong == NULL);
    CHECK(!is_blocked());
    return 0;
}

int
main(void)
{
    pshm_forks_watch();
    RUN(without_memory_there_is_no_guard);
    RUN(lost_pages_are_zeros_inside_the_guard);
    RUN_IN_CHILD(memory_that_is_not_shared_is_refused, 0);
    RUN(each_failure_of_entering_is_returned);
    RUN(pages_that_cannot_be_mapped_again_are_zeros);
    RUN(threads_enter_read_and_leave);
    RUN(each_guard_reports_its_own_mapping);
    RUN(protection_is_that_of_the_mapping);
    RUN(rest_is_replaced_at_once_after_many_pieces);
    RUN(page_that_cannot_be_replaced_alone_goes_with_the_rest);
    RUN(child_forked_during_an_enter_can_enter);
    RUN_IN_CHILD(other_accesses_go_to_the_previous_action, 0);
    RUN_IN_CHILD(signal_is_postponed_only_for_the_thread_in_a_guard, 0);
    RUN_IN_CHILD(leave_in_another_thread_does_not_change_its_mask, 0);
    return finish();
}
