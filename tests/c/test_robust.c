#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/robust.h"

#include <pthread.h>

/* One mutex, this process's side of it, and what it protects. */
struct place {
    struct pshm_robust mutex;
    volatile long plain;
    atomic_uint steps;
    unsigned flags;
};

struct side {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct side
make(unsigned flags)
{
    struct side side = {.place = shared_memory(PAGE)};
    side.place->flags = flags;
    CHECK_IS(pshm_robust_init(&side.place->mutex, flags), 0);
    CHECK_IS(pshm_robust_open(&side.place->mutex, flags, &side.mstate), 0);
    return side;
}

static void
unmake(struct side *side)
{
    CHECK(munmap(side->place, PAGE) == 0);
}

static int
lock(struct side *side)
{
    int rc;
    PATIENTLY(rc, pshm_robust_lock(&side->place->mutex, &side->mstate,
                                   before_long()));
    return rc;
}

static int
try(struct side *side)
{
    return pshm_robust_try(&side->place->mutex, &side->mstate);
}

static int
unlock(struct side *side)
{
    return pshm_robust_unlock(&side->place->mutex, &side->mstate);
}

static const unsigned kinds[] = {0, PSHM_RECURSIVE};

/* ---- one owner at a time ---- */

static int
count_under_it(void *context)
{
    struct side *side = context;
    for (int i = 0; i < ROUNDS(20000); i++) {
        if (!CHECK_IS(lock(side), 0)) {
            return 1;
        }
        side->place->plain = side->place->plain + 1;
        CHECK_IS(unlock(side), 0);
    }
    return 0;
}

static void
only_one_has_it(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        together(3, count_under_it, &side);
        CHECK_IS(side.place->plain, 3 * ROUNDS(20000));
        unmake(&side);
    }
}

static int
find_it_taken(void *context)
{
    struct side *side = context;
    CHECK(!pshm_mutex_state_mine(&side->mstate)
          && !pshm_mutex_state_held(&side->mstate));
    CHECK_IS(try(side), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->mstate,
                              start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->mstate, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->mstate, 0),
             -ETIMEDOUT);
    CHECK_IS(unlock(side), -EPERM);
    CHECK(!pshm_mutex_state_mine(&side->mstate));
    return 0;
}

static void
others_find_it_taken(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        CHECK(!pshm_mutex_state_held(&side.mstate));
        CHECK_IS(try(&side), 0);
        CHECK(pshm_mutex_state_mine(&side.mstate)
              && pshm_mutex_state_held(&side.mstate));
        CHECK_IS(child_run(find_it_taken, &side), 0);
        CHECK_IS(unlock(&side), 0);
        CHECK(!pshm_mutex_state_mine(&side.mstate)
              && !pshm_mutex_state_held(&side.mstate));
        CHECK_IS(unlock(&side), -EPERM);
        unmake(&side);
    }
}

static void *
find_it_another_threads(void *context)
{
    struct side *side = context;
    intptr_t wrong = pshm_mutex_state_mine(&side->mstate)
                     || !pshm_mutex_state_held(&side->mstate)
                     || try(side) != -EBUSY || unlock(side) != -EPERM
                     || pshm_robust_lock(&side->place->mutex, &side->mstate,
                                         in_ms(5)) != -ETIMEDOUT;
    return (void *)wrong;
}

static void
threads_are_told_apart(void)
{
    struct side side = make(0);
    pthread_t thread;
    void *wrong;
    CHECK_IS(lock(&side), 0);
    CHECK(pthread_create(&thread, NULL, find_it_another_threads, &side) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
}

static void
owner_does_not_wait_for_itself(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        bool again = kinds[i] & PSHM_RECURSIVE;
        CHECK_IS(lock(&side), 0);
        int rc = try(&side);
        CHECK(again ? rc == 0 : rc == -EDEADLK || rc == -EBUSY);
        CHECK_IS(
            pshm_robust_lock(&side.place->mutex, &side.mstate, PSHM_NEVER),
            again ? 0 : -EDEADLK);
        if (!again) {
            int64_t start = pshm_now();
            CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.mstate,
                                      start + 20 * MS),
                     -ETIMEDOUT);
            CHECK(took(start, 20));
        }
        CHECK_IS(side.mstate.depth, again ? 3 : 1);
        for (int depth = again ? 3 : 1; depth > 0; depth--) {
            CHECK(pshm_mutex_state_mine(&side.mstate));
            CHECK_IS(child_run(find_it_taken, &side), 0);
            CHECK_IS(unlock(&side), 0);
        }
        CHECK_IS(unlock(&side), -EPERM);
        unmake(&side);
    }
}

static void
kinds_are_told_apart(void)
{
    struct pshm_robust mutex;
    struct pshm_mutex_state mstate = {0};
    memset(&mutex, 0, sizeof(mutex));
    for (size_t i = 0; i < COUNT(kinds); i++) {
        CHECK_IS(pshm_robust_open(&mutex, kinds[i], &mstate), -EBADMSG);
    }
    for (size_t made = 0; made < COUNT(kinds); made++) {
        struct side side = make(kinds[made]);
        for (size_t i = 0; i < COUNT(kinds); i++) {
            CHECK_IS(pshm_robust_open(&side.place->mutex, kinds[i], &mstate),
                     i == made ? 0 : -EBADMSG);
        }
        unmake(&side);
    }
}

/* ---- a fork ---- */

struct holder {
    struct side *side;
    atomic_uint state;
    unsigned thread;
};

/* 1: has it; 2: may release it; 3: has released it. */
static void *
hold_it(void *context)
{
    struct holder *holder = context;
    intptr_t wrong = lock(holder->side) != 0;
    atomic_store(&holder->state, 1);
    while (atomic_load(&holder->state) != 2) {
        (void)usleep(100);
    }
    wrong |= unlock(holder->side) != 0;
    return (void *)wrong;
}

static int
find_it_taken_then_lock_it(void *context)
{
    struct side *side = context;
    CHECK_IS(find_it_taken(side), 0);
    (void)atomic_fetch_add(&side->place->steps, 1);
    CHECK_IS(lock(side), 0);
    CHECK(pshm_mutex_state_mine(&side->mstate));
    CHECK_IS(unlock(side), 0);
    return 0;
}

static void
child_forked_beside_the_owner_waits_for_it(void)
{
    struct side side = make(0);
    struct holder holder = {.side = &side};
    pthread_t thread;
    void *wrong;
    CHECK(pthread_create(&thread, NULL, hold_it, &holder) == 0);
    await(&holder.state, 1);
    pid_t child = child_start(find_it_taken_then_lock_it, &side);
    await(&side.place->steps, 1);
    atomic_store(&holder.state, 2);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    CHECK_IS(child_wait(child), 0);
    unmake(&side);
}

/* It does not own the locks of its parent's thread, though it is the same
 * thread. */
static void
child_of_the_owner_has_nothing(void)
{
    struct side side = make(0);
    CHECK_IS(lock(&side), 0);
    pid_t child = child_start(find_it_taken_then_lock_it, &side);
    await(&side.place->steps, 1);
    CHECK_IS(unlock(&side), 0);
    CHECK_IS(child_wait(child), 0);
    unmake(&side);
}

/* ---- a death ---- */

static int
die_with_it(void *context)
{
    CHECK_IS(lock(context), 0);
    (void)raise(SIGKILL);
    return 1;
}

static void
next_owner_is_told_of_a_death(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        for (int waits = 0; waits < 2; waits++) {
            CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
            CHECK_IS(waits ? lock(&side) : try(&side), -EOWNERDEAD);
            CHECK(pshm_mutex_state_mine(&side.mstate));
            pshm_robust_repair(&side.place->mutex);
            CHECK_IS(unlock(&side), 0);
            CHECK_IS(try(&side), 0);
            CHECK_IS(unlock(&side), 0);
        }
        unmake(&side);
    }
}

static int
find_it_unrecoverable(void *context)
{
    for (int i = 0; i < 2; i++) {
        CHECK_IS(lock(context), -ENOTRECOVERABLE);
        CHECK_IS(try(context), -ENOTRECOVERABLE);
    }
    return 0;
}

static void
without_a_repair_nobody_gets_it_any_more(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
        CHECK_IS(lock(&side), -EOWNERDEAD);
        CHECK_IS(unlock(&side), 0);
        CHECK_IS(try(&side), -ENOTRECOVERABLE);
        CHECK_IS(child_run(find_it_unrecoverable, &side), 0);
        CHECK_IS(lock(&side), -ENOTRECOVERABLE);
        CHECK(!pshm_mutex_state_mine(&side.mstate));
        unmake(&side);
    }
}

/* Under it: plain is odd only while a thread is between the two. */
static int
count_for_ever(void *context)
{
    struct side *side = context;
    for (;;) {
        int rc = lock(side);
        if (rc == -EOWNERDEAD) {
            side->place->plain += side->place->plain % 2;
            pshm_robust_repair(&side->place->mutex);
            rc = 0;
        }
        if (!CHECK_IS(rc, 0) || !CHECK_IS(side->place->plain % 2, 0)) {
            return 1;
        }
        side->place->plain = side->place->plain + 1;
        side->place->plain = side->place->plain + 1;
        (void)atomic_fetch_add(&side->place->steps, 1);
        if (!CHECK_IS(unlock(side), 0)) {
            return 1;
        }
    }
}

static void
killed_at_any_moment_it_goes_on(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        pid_t steady = child_start(count_for_ever, &side);
        for (int round = 0; round < ROUNDS(120); round++) {
            pid_t child = child_start(count_for_ever, &side);
            await(&side.place->steps, atomic_load(&side.place->steps) + 2);
            kill_within(child, 300);
        }
        await(&side.place->steps, atomic_load(&side.place->steps) + 2);
        kill_now(steady);
        int rc = lock(&side);
        CHECK(rc == 0 || rc == -EOWNERDEAD);
        CHECK(rc == -EOWNERDEAD || side.place->plain % 2 == 0);
        CHECK_IS(unlock(&side), 0);
        unmake(&side);
    }
}

/* ---- written over ---- */

/* The last ones only if the links of the C library are known. */
static void
write_over(struct pshm_robust *mutex, int how)
{
    if (how < 2) {
        memset(mutex, how == 0 ? 0 : 0xff, sizeof(*mutex));
        return;
    }
#ifdef PSHM_ROBUST_LINKS
    static uintptr_t mine[8];
    uintptr_t links[2] = {(uintptr_t)&mine[2], (uintptr_t)&mine[4]};
    pthread_mutex_t *inside = &mutex->mutex;
    switch (how) {
    case 2:
        inside->__data.__kind ^= 2;
        break;
    case 3:
        memset(&inside->__data.__list, 0xa5, sizeof(links));
        break;
    case 4:
        memset(&inside->__data.__list, 0, sizeof(links));
        break;
    case 5:                             /* to valid memory */
        memcpy(&inside->__data.__list, links, sizeof(links));
        break;
    case 6:                             /* one of the two */
        memcpy(&inside->__data.__list, links, sizeof(links[0]));
        break;
    case 7:
        memcpy((char *)&inside->__data.__list + sizeof(links[0]), links,
               sizeof(links[0]));
        break;
    default:                            /* to a misaligned address */
        links[0] += 2;
        memcpy(&inside->__data.__list, links, sizeof(links));
        break;
    }
#endif
}

#ifdef PSHM_ROBUST_LINKS
enum { WAYS_TO_WRITE_OVER = 9 };
#else
enum { WAYS_TO_WRITE_OVER = 2 };
#endif

/* Among others, which come and go meanwhile. */
static int
have_it_written_over(void *context)
{
    int how = *(int *)context, before = how / WAYS_TO_WRITE_OVER;
    struct side side = make(0), older = make(0), newer = make(0);
    CHECK_IS(lock(&older), 0);
    CHECK_IS(lock(&side), 0);
    CHECK_IS(lock(&newer), 0);
    if (before) {
        CHECK_IS(unlock(&older), 0);
        CHECK_IS(unlock(&newer), 0);
    }
    struct pshm_robust kept = side.place->mutex;
    write_over(&side.place->mutex, how % WAYS_TO_WRITE_OVER);
    CHECK_IS(unlock(&side), -EBADMSG);
    if (pshm_mutex_state_mine(&side.mstate)) {
        CHECK_IS(unlock(&side), -EBADMSG);
        if (how % WAYS_TO_WRITE_OVER < 3) {
            CHECK_IS(try(&side), -EBADMSG);
            CHECK_IS(lock(&side), -EBADMSG);
        }
        /* Nothing was done to it, so put right it is as it was. */
        side.place->mutex = kept;
        CHECK_IS(unlock(&side), 0);
    }
    else {
        CHECK_IS(unlock(&side), -EPERM);
    }
    if (!before) {
        CHECK_IS(unlock(&newer), 0);
        CHECK_IS(unlock(&older), 0);
    }
    side.place->mutex = kept;
    atomic_store(pshm_robust_word(&side.place->mutex), 0);
    CHECK_IS(lock(&side), 0);
    write_over(&side.place->mutex, how % WAYS_TO_WRITE_OVER);
    CHECK_IS(unlock(&side), -EBADMSG);
    return 0;                           /* and so ends with it */
}

#ifdef PSHM_ROBUST_LINKS

/* Its memory may be unmapped then, and the next owner gets an error if the
 * word still is ours. */
static int
have_only_it_written_over(void *context)
{
    int how = *(int *)context;
    struct side side = make(how % 2 ? PSHM_RECURSIVE : 0), other = make(0);
    struct pshm_robust fresh = side.place->mutex;
    CHECK_IS(lock(&side), 0);
    write_over(&side.place->mutex, how);
    CHECK_IS(unlock(&side), -EBADMSG);
    CHECK(!pshm_mutex_state_held(&side.mstate));
    if (how > 2) {
        CHECK_IS(try(&side), -EOWNERDEAD);
        CHECK_IS(unlock(&side), 0);
    }
    side.place->mutex = fresh;
    CHECK_IS(lock(&side), 0);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
    CHECK_IS(lock(&other), 0);
    CHECK_IS(unlock(&other), 0);
    return 0;
}

static void
one_that_is_written_over_leaves_the_list(void)
{
    for (int how = 0; how < WAYS_TO_WRITE_OVER; how++) {
        check_about("way %d", how);
        CHECK_IS(child_run(have_only_it_written_over, &how), 0);
    }
}

static void *
end_with_it(void *context)
{
    struct side *side = context;
    intptr_t wrong = lock(side) != 0;
    return (void *)wrong;
}

/* The record of the thread still says that it has the mutex. */
static int
have_the_links_of_a_dead_thread(void *context)
{
    struct side side = make(0), other = make(0);
    pthread_t thread;
    void *wrong;
    (void)context;
    CHECK(pthread_create(&thread, NULL, end_with_it, &side) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    struct pshm_robust kept = side.place->mutex;
    CHECK_IS(lock(&side), -EOWNERDEAD);
    pshm_robust_repair(&side.place->mutex);
    side.place->mutex.mutex.__data.__list = kept.mutex.__data.__list;
    CHECK_IS(unlock(&side), -EBADMSG);
    CHECK(!pshm_mutex_state_held(&side.mstate));
    unmake(&side);
    CHECK_IS(lock(&other), 0);
    CHECK_IS(unlock(&other), 0);
    return 0;
}

static void
links_that_a_dead_thread_left_are_not_followed(void)
{
    CHECK_IS(child_run(have_the_links_of_a_dead_thread, NULL), 0);
}

/* The kernel may refuse to say where a thread's list begins. */
static int
have_it_written_over_in_an_unknown_list(void *context)
{
    pshm_fault_arm("get_robust_list", 1, PSHM_FAULT_FAIL_ON, ENOSYS);
    CHECK_IS(pshm_thread()->list, 0);
    CHECK(pshm_fault_disarm() > 0);
    return have_it_written_over(context);
}

static void
list_that_the_kernel_does_not_tell(void)
{
    for (int how = 0; how < 2 * WAYS_TO_WRITE_OVER; how++) {
        check_about("way %d", how);
        CHECK_IS(child_run(have_it_written_over_in_an_unknown_list, &how), 0);
    }
}

/* With a C library that keeps the list in another way, only what is not part of
 * it says that it was written over. */
enum { ALL_COMPARED = 10 };

static int
use_it_where_links_are_unknown(void *context)
{
    int nth = *(int *)context, how = 0;
    pshm_fault_arm("futex", nth, PSHM_FAULT_FAIL, EAGAIN);
    struct side side = make(0), older = make(0);
    if (pshm_fault_disarm() < nth) {
        return ALL_COMPARED;
    }
    CHECK_IS(lock(&older), 0);
    CHECK_IS(pthread_mutex_lock(&side.place->mutex.mutex), 0);
    CHECK_IS(unlock(&older), 0);
    CHECK_IS(pthread_mutex_unlock(&side.place->mutex.mutex), 0);
    CHECK_IS(lock(&side), 0);
    side.place->mutex.mutex.__data.__kind ^= 2;
    CHECK_IS(unlock(&side), -EBADMSG);
    CHECK(pshm_mutex_state_held(&side.mstate));
    side.place->mutex.mutex.__data.__kind ^= 2;
    CHECK_IS(unlock(&side), 0);
    return have_it_written_over(&how);
}

/* Before all other tests: a process finds out once what it can know. */
static void
links_of_another_kind_are_not_followed(void)
{
    int nth = 0, status = 0;
    while (status == 0) {
        nth++;
        check_about("word %d", nth);
        status = child_run(use_it_where_links_are_unknown, &nth);
    }
    CHECK_IS(status, ALL_COMPARED);
    CHECK(nth > 8);
}

/* Its neighbours say where it is, also one that a thread waits for. */
static void
neighbour_with_waiters_confirms_a_link(void)
{
    struct side sides[3] = {make(0), make(0), make(0)};
    for (int i = 0; i < 3; i++) {
        CHECK_IS(lock(&sides[i]), 0);
    }
    for (int i = 0; i < 3; i += 2) {
        (void)atomic_fetch_or(pshm_robust_word(&sides[i].place->mutex),
                              FUTEX_WAITERS);
    }
    write_over(&sides[1].place->mutex, 3);
    CHECK_IS(unlock(&sides[1]), -EBADMSG);
    CHECK(!pshm_mutex_state_held(&sides[1].mstate));
    CHECK_IS(unlock(&sides[2]), 0);
    CHECK_IS(unlock(&sides[0]), 0);
    for (int i = 0; i < 3; i++) {
        unmake(&sides[i]);
    }
}

/* One that leads to another mutex of this library's that the thread has, which
 * confirms it, is not a neighbour, and the expected neighbour does not
 * confirm. */
static int
have_links_to_one_that_is_ours(void *context)
{
    struct side sides[4] = {make(0), make(0), make(0), make(0)};
    (void)context;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(lock(&sides[i]), 0);
    }
    struct pshm_robust *before = &sides[0].place->mutex;
    struct pshm_robust *mine = &sides[1].place->mutex;
    struct pshm_robust kept = *mine, kept_before = *before;
    void *other
        = (void *)&sides[3].place->mutex.mutex.__data.__list.__next;
    mine->mutex.__data.__list.__next = other;
    before->mutex.__data.__list.__prev = other;
    CHECK_IS(unlock(&sides[1]), -EBADMSG);
    CHECK(pshm_mutex_state_held(&sides[1].mstate));
    *mine = kept;
    *before = kept_before;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(unlock(&sides[i]), 0);
        unmake(&sides[i]);
    }
    return 0;
}

static void
links_to_one_that_is_ours_are_not_followed(void)
{
    CHECK_IS(child_run(have_links_to_one_that_is_ours, NULL), 0);
}

/* The words of a free recursive one say that this thread has it: the C library
 * would count it, and take it out of a list that it is not in. */
static void
words_that_say_that_it_is_ours(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        for (int count = 0; count < 2; count++) {
            struct side side = make(kinds[i]);
            pthread_mutex_t *mutex = &side.place->mutex.mutex;
            mutex->__data.__lock = mutex->__data.__owner
                = (int)pshm_thread()->id;
            mutex->__data.__count = (unsigned)count;
            /* half of a list */
            mutex->__data.__list.__prev = count ? (void *)mutex : NULL;
            CHECK_IS(try(&side), -EBADMSG);
            CHECK_IS(lock(&side), -EBADMSG);
            CHECK(!pshm_mutex_state_held(&side.mstate));
            CHECK_IS(unlock(&side), -EPERM);
            unmake(&side);
        }
    }
}

/* It is not put into the list a second time. */
static void
word_that_says_that_it_is_free_while_it_is_ours(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct side side = make(kinds[i]), other = make(0);
        CHECK_IS(lock(&side), 0);
        atomic_store(pshm_robust_word(&side.place->mutex), 0);
        CHECK_IS(try(&side), -EBADMSG);
        CHECK_IS(unlock(&side), -EBADMSG);
        CHECK(!pshm_mutex_state_held(&side.mstate));
        unmake(&side);
        CHECK_IS(lock(&other), 0);
        CHECK_IS(unlock(&other), 0);
        unmake(&other);
    }
}

/* The C library reads them when it unlocks a recursive mutex. */
static void
owner_or_count_that_is_written_over(void)
{
    for (int count = 0; count < 2; count++) {
        struct side side = make(PSHM_RECURSIVE);
        pthread_mutex_t *mutex = &side.place->mutex.mutex;
        CHECK_IS(lock(&side), 0);
        *(count ? &mutex->__data.__count
                : (unsigned *)&mutex->__data.__owner) += 1;
        CHECK_IS(unlock(&side), -EBADMSG);
        CHECK(!pshm_mutex_state_held(&side.mstate));
        CHECK_IS(try(&side), -EOWNERDEAD);
        pshm_robust_repair(&side.place->mutex);
        CHECK_IS(unlock(&side), 0);
        unmake(&side);
    }
}

/* It has it by another mutex state, and the word says that it is free. */
static void
word_that_says_that_it_is_free_by_another_grip(void)
{
    struct side side = make(0), again = side;
    CHECK_IS(lock(&side), 0);
    unsigned word = atomic_exchange(pshm_robust_word(&side.place->mutex), 0);
    CHECK_IS(try(&again), -EBADMSG);
    atomic_store(pshm_robust_word(&side.place->mutex), word);
    CHECK_IS(try(&again), -EDEADLK);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
}

#endif

static void
who_holds_it_while_it_is_written_over_is_told(void)
{
    for (int how = 0; how < 2 * WAYS_TO_WRITE_OVER; how++) {
        check_about("way %d", how);
        CHECK_IS(child_run(have_it_written_over, &how), 0);
    }
}

/* ---- an owner that the kernel did not mark ---- */

static int
find_nothing(void *context)
{
    (void)context;
    return 0;
}

struct watched {
    struct side sides[2];
    struct pshm_owner owners[2];
};

/* Of the two that it has the kernel finds the other one behind it. */
static int
cut_the_list_and_die(void *context)
{
    struct watched *watched = context;
    CHECK_IS(lock(&watched->sides[0]), 0);
    CHECK_IS(lock(&watched->sides[1]), 0);
    memset(&watched->sides[1].place->mutex, 0xa5,
           sizeof(watched->sides[1].place->mutex));
    (void)raise(SIGKILL);
    return 1;
}

static void
owner_that_does_not_exist_is_found(void)
{
    struct watched *watched = shared_memory(PAGE);
    struct side *side = &watched->sides[0];
    for (int how = 0; how < 4; how++) {
        check_about("way %d", how);
        watched->sides[0] = make(how % 2 ? PSHM_RECURSIVE : 0);
        watched->sides[1] = make(0);
        pshm_robust_watch(&watched->sides[0].mstate, &watched->owners[0]);
        pshm_robust_watch(&watched->sides[1].mstate, &watched->owners[1]);
        /* It is found also while it is a zombie. */
        pid_t child = child_start(cut_the_list_and_die, watched);
        if (how < 2) {
            CHECK_IS(child_wait(child), -SIGKILL);
        }
        else {
            siginfo_t info;
            CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
        }
        CHECK_IS(try(side), -EBUSY);
        if (how == 0) {
            CHECK(pshm_robust_owner_gone(&side->place->mutex, &side->mstate));
            CHECK_IS(try(side), -EOWNERDEAD);
        }
        else if (how == 1) {
            CHECK_IS(pshm_robust_busy(&side->place->mutex, &side->mstate),
                     -EOWNERDEAD);
        }
        else {
            CHECK_IS(lock(side), -EOWNERDEAD);
            CHECK_IS(child_wait(child), -SIGKILL);
        }
        pshm_robust_repair(&side->place->mutex);
        CHECK_IS(unlock(side), 0);
        CHECK(!pshm_robust_owner_gone(&side->place->mutex, &side->mstate));
        unmake(side);
        unmake(&watched->sides[1]);
    }
    CHECK(munmap(watched, PAGE) == 0);
}

/* The id is another thread's now, for instance the first one's of all. */
static void
owner_whose_id_was_given_away_is_found(void)
{
    struct side side = make(0);
    struct pshm_owner note = {0};
    pshm_robust_watch(&side.mstate, &note);
    atomic_store(pshm_robust_word(&side.place->mutex), (unsigned)getppid());
    CHECK(!pshm_robust_owner_gone(&side.place->mutex, &side.mstate));
    CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.mstate, in_ms(5)),
             -ETIMEDOUT);
    atomic_store(&note.thread, (unsigned)getppid());
    atomic_store(&note.started, 1);
    CHECK_IS(lock(&side), -EOWNERDEAD);
    CHECK_IS(atomic_load(&note.thread), pshm_thread()->id);
    pshm_robust_repair(&side.place->mutex);
    CHECK_IS(unlock(&side), 0);
    CHECK_IS(atomic_load(&note.thread), 0);
    unmake(&side);
}

/* A mutex of another library in the list is not known to be there.  A sandbox may
 * forbid at any moment the call that compares what such a neighbour says. */
static void
one_beside_another_library_s_is_unlocked(void)
{
    static const int errors[] = {0, EPERM, EACCES, ENOSYS};
    static struct pshm_robust other;
    struct side sides[3];
    CHECK_IS(pshm_robust_init(&other, 0), 0);
    for (size_t i = 0; i < COUNT(sides); i++) {
        sides[i] = make(0);
    }
    for (size_t e = 0; e < COUNT(errors); e++) {
        CHECK_IS(lock(&sides[0]), 0);
        CHECK_IS(lock(&sides[1]), 0);
        CHECK_IS(pthread_mutex_lock(&other.mutex), 0);
        CHECK_IS(lock(&sides[2]), 0);
        if (errors[e] != 0) {
            pshm_fault_arm("futex", 1, PSHM_FAULT_FAIL_ON, errors[e]);
        }
        CHECK_IS(unlock(&sides[1]), 0);
        CHECK_IS(unlock(&sides[0]), 0);
        CHECK_IS(unlock(&sides[2]), 0);
        if (errors[e] != 0) {
            CHECK_IS(pshm_fault_disarm() > 0, WAYS_TO_WRITE_OVER > 2);
        }
        CHECK_IS(pthread_mutex_unlock(&other.mutex), 0);
    }
    for (size_t i = 0; i < COUNT(sides); i++) {
        unmake(&sides[i]);
    }
}

/* No note says which thread has it: then its id alone does. */
static void
owner_that_noted_nothing_is_found(void)
{
    struct side side = make(0);
    pid_t ended = child_start(find_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    pshm_robust_watch(&side.mstate, NULL);
    atomic_store(pshm_robust_word(&side.place->mutex), (unsigned)ended);
    CHECK_IS(pshm_robust_busy(&side.place->mutex, &side.mstate), -EOWNERDEAD);
    pshm_robust_repair(&side.place->mutex);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
}

/* Its ids mean other processes there. */
static void
owner_is_not_looked_for_in_another_space(void)
{
    struct side side = make(0);
    CHECK_IS(pshm_robust_busy(&side.place->mutex, &side.mstate), -EBUSY);
    pid_t ended = child_start(find_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    pshm_robust_watch(&side.mstate, NULL);
    side.mstate.space++;
    atomic_store(pshm_robust_word(&side.place->mutex), (unsigned)ended);
    CHECK(!pshm_robust_owner_gone(&side.place->mutex, &side.mstate));
    CHECK_IS(pshm_robust_busy(&side.place->mutex, &side.mstate), -EBUSY);
    unmake(&side);
}

static int
stop_and_end(void *context)
{
    (void)context;
    (void)raise(SIGSTOP);
    return 0;
}

static int
stop_without_it(void *context)
{
    struct side *side = context;
    unmake(side);
    return stop_and_end(NULL);
}

/* A program that is not this library has it.  The note is of the owner before,
 * which died or whose object is gone. */
static void
owner_that_is_not_noted_is_not_taken_for_a_dead_one(void)
{
    for (int maps = 0; maps < 2; maps++) {
        struct side side = make(0);
        struct pshm_owner note = {0};
        pid_t child = child_start(maps ? stop_and_end : stop_without_it,
                                  &side);
        child_wait_stopped(child);
        pshm_robust_watch(&side.mstate, &note);
        atomic_uint *word = pshm_robust_word(&side.place->mutex);
        for (int orphaned = 0; orphaned < 2; orphaned++) {
            check_about("maps %d, orphaned %d", maps, orphaned);
            atomic_store(word, (unsigned)child);
            atomic_store(&note.thread,
                         orphaned ? PSHM_ORPHANED : (unsigned)child);
            atomic_store(&note.started, 1);
            CHECK_IS(pshm_robust_owner_gone(&side.place->mutex, &side.mstate),
                     !maps);
            atomic_store(word, (unsigned)child);
            atomic_store(&side.mstate.looked, 0);
            int rc = pshm_robust_busy(&side.place->mutex, &side.mstate);
            CHECK_IS(rc, maps       ? -EBUSY
                         : orphaned ? -EINPROGRESS
                                    : -EOWNERDEAD);
            if (rc == -EOWNERDEAD) {
                pshm_robust_repair(&side.place->mutex);
                CHECK_IS(unlock(&side), 0);
            }
        }
        /* The thread of the orphan has ended. */
        atomic_store(word, FUTEX_OWNER_DIED);
        CHECK(pshm_robust_owner_gone(&side.place->mutex, &side.mstate));
        CHECK(kill(child, SIGCONT) == 0);
        CHECK_IS(child_wait(child), 0);
        unmake(&side);
    }
}

struct found {
    struct side side;
    unsigned ended;
    int rc;
};

static void
begin_with_an_ended_owner(void *context)
{
    struct found *found = context;
    atomic_store(pshm_robust_word(&found->side.place->mutex), found->ended);
}

static void
look_for_the_owner(void *context)
{
    struct found *found = context;
    CHECK(pshm_robust_owner_gone(&found->side.place->mutex,
                                 &found->side.mstate));
}

static void
it_is_marked_once(void *context)
{
    struct found *found = context;
    CHECK_IS(atomic_load(pshm_robust_word(&found->side.place->mutex)),
             FUTEX_OWNER_DIED);
}

static void
two_find_the_ended_owner_at_once(void)
{
    struct found found = {.side = make(0)};
    pid_t ended = child_start(find_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    found.ended = (unsigned)ended;
    pshm_robust_watch(&found.side.mstate, NULL);
    meet_at_each_step(&(struct meeting){begin_with_an_ended_owner,
                                        look_for_the_owner,
                                        look_for_the_owner,
                                        it_is_marked_once},
                      &found);
    unmake(&found.side);
}

/* ---- what the C library refuses ---- */

static void
kernel_without_robust_mutexes_is_told(void)
{
    struct side side = make(0);
    struct pshm_robust fresh;
    struct pshm_mutex_state mstate = {0};
    memset(&fresh, 0, sizeof(fresh));
    pshm_fault_arm("pthread_mutex_init", 1, PSHM_FAULT_FAIL_ON, ENOTSUP);
    CHECK_IS(pshm_robust_init(&fresh, 0), -ENOTSUP);
    CHECK_IS(pshm_robust_open(&side.place->mutex, 0, &mstate), -ENOTSUP);
    pshm_fault_arm("pthread_mutexattr_setrobust", 1, PSHM_FAULT_FAIL_ON,
                   ENOSYS);
    CHECK_IS(pshm_robust_init(&fresh, 0), -ENOSYS);
    (void)pshm_fault_disarm();
    unmake(&side);
}

static int
wait_until_it_is_unrecoverable(void *context)
{
    CHECK_IS(lock(context), -ENOTRECOVERABLE);
    return 0;
}

/* A waiter existed when the owner after a death unlocked it. */
static void
waiter_is_told_that_it_was_not_repaired(void)
{
    struct side side = make(0);
    const atomic_uint *word = pshm_robust_word(&side.place->mutex);
    CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
    CHECK_IS(lock(&side), -EOWNERDEAD);
    pid_t child = child_start(wait_until_it_is_unrecoverable, &side);
    int64_t deadline = before_long();
    while ((atomic_load(word) & FUTEX_WAITERS) == 0 && pshm_now() < deadline) {
        (void)usleep(20);
    }
    CHECK_IS(unlock(&side), 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(try(&side), -ENOTRECOVERABLE);
    unmake(&side);
}

static void
unlock_it(void *context)
{
    CHECK_IS(unlock(context), 0);
}

/* A signal handler that runs while the owner waits for itself. */
static void
owner_that_waits_for_itself_may_be_freed_by_a_signal(void)
{
    struct side side = make(0);
    CHECK_IS(lock(&side), 0);
    pshm_fault_hook(unlock_it, &side);
    pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.mstate, before_long()),
             -EINTR);
    (void)pshm_fault_disarm();
    CHECK_IS(lock(&side), 0);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
}

#ifdef PSHM_ROBUST_LINKS

static void
begin_with_a_sound_one(void *context)
{
    struct found *found = context;
    memset(&found->side.place->mutex, 0, sizeof(found->side.place->mutex));
    CHECK_IS(pshm_robust_init(&found->side.place->mutex, 0), 0);
}

static void
try_it(void *context)
{
    struct found *found = context;
    found->rc = try(&found->side);
}

static void
write_another_kind(void *context)
{
    struct found *found = context;
    found->side.place->mutex.mutex.__data.__kind = 0x7f;
}

static void
it_is_refused_or_was_locked_before(void *context)
{
    struct found *found = context;
    CHECK(found->rc == 0 || found->rc == -EBADMSG);
    CHECK_IS(pshm_mutex_state_held(&found->side.mstate), found->rc == 0);
    CHECK_IS(unlock(&found->side), found->rc == 0 ? -EBADMSG : -EPERM);
    CHECK(!pshm_mutex_state_held(&found->side.mstate));
}

static void
kind_may_change_at_each_step(void)
{
    struct found found = {.side = make(0)};
    meet_at_each_step(&(struct meeting){begin_with_a_sound_one, try_it,
                                        write_another_kind,
                                        it_is_refused_or_was_locked_before},
                      &found);
    unmake(&found.side);
}

#endif

/* ---- a mutex state that several threads have had at once ---- */

/* Bytes that were copied while it was free are written back while a thread has
 * it: another thread gets it by the same mutex state. */
struct replay {
    struct side side;
    struct pshm_robust fresh;
    struct holder holders[3];
    pthread_t threads[3];
};

/* 1: has it; 2: may end. */
static void *
hold_it_and_end(void *context)
{
    struct holder *holder = context;
    int rc = lock(holder->side);
    intptr_t wrong = rc != 0 && rc != -EOWNERDEAD;
    holder->thread = pshm_thread()->id;
    atomic_store(&holder->state, 1);
    while (atomic_load(&holder->state) != 2) {
        (void)usleep(100);
    }
    return (void *)wrong;
}

static void
start_holder(struct replay *replay, int which)
{
    struct holder *holder = &replay->holders[which];
    *holder = (struct holder){.side = &replay->side};
    CHECK(pthread_create(&replay->threads[which], NULL, hold_it_and_end,
                         holder)
          == 0);
    await(&holder->state, 1);
}

static void
end_holder(struct replay *replay, int which)
{
    void *wrong;
    atomic_store(&replay->holders[which].state, 2);
    CHECK(pthread_join(replay->threads[which], &wrong) == 0);
    CHECK(wrong == NULL);
    await_end(replay->holders[which].thread);
}

/* The lists of musl's threads would lead into each other. */
#ifdef PSHM_ROBUST_LINKS

static int
have_it_replayed(void *context)
{
    struct replay replay = {.side = make(0)};
    struct side *side = &replay.side;
    int times = *(int *)context;
    replay.fresh = side->place->mutex;
    for (int i = 0; i < times; i++) {
        start_holder(&replay, i);
        CHECK_IS(atomic_load(&side->mstate.before) != 0, i > 0);
        CHECK_IS(atomic_load(&side->mstate.lost), i > 1);
        side->place->mutex = replay.fresh;
    }
    CHECK_IS(lock(side), 0);
    CHECK_IS(pshm_robust_abandon(&side->place->mutex, &side->mstate, NULL),
             -EBUSY);
    CHECK(!pshm_mutex_state_held(&side->mstate));
    for (int i = 0; i < times; i++) {
        end_holder(&replay, i);
    }
    /* Of one it is known when it ended, of several not. */
    CHECK_IS(pshm_robust_abandon(&side->place->mutex, &side->mstate, NULL),
             times == 1 ? 0 : -EBUSY);
    return 0;
}

static void
memory_of_one_that_was_replayed_is_kept(void)
{
    for (int times = 1; times <= 3; times++) {
        check_about("%d times", times);
        CHECK_IS(child_run(have_it_replayed, &times), 0);
    }
}

static void
end_first_holder(void *context)
{
    end_holder(context, 0);
}

/* The kernel marks what a thread had shortly before the thread has ended. */
static int
lock_it_as_its_owner_ends(void *context)
{
    struct replay replay = {.side = make(0)};
    struct side *side = &replay.side;
    (void)context;
    start_holder(&replay, 0);
    atomic_store(pshm_robust_word(&side->place->mutex), FUTEX_OWNER_DIED);
    pshm_fault_hook(end_first_holder, &replay);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(try(side), -EOWNERDEAD);
    CHECK(pshm_fault_disarm() >= 1);
    CHECK_IS(atomic_load(&side->mstate.before), 0);
    return 0;
}

static void
owner_that_is_about_to_end_is_waited_for(void)
{
    CHECK_IS(child_run(lock_it_as_its_owner_ends, NULL), 0);
}

#endif

/* ---- an object that goes away ---- */

static void
object_of_an_ended_thread_may_go(void)
{
    struct replay replay = {.side = make(0)};
    struct side *side = &replay.side;
    start_holder(&replay, 0);
    end_holder(&replay, 0);
    CHECK(pshm_mutex_state_held(&side->mstate));
    CHECK_IS(pshm_robust_abandon(&side->place->mutex, &side->mstate, NULL), 0);
    unmake(side);
}

/* Another thread has it by the mutex state: its memory stays. The next owner
 * gets an error unless the words name another thread. */
static void
object_of_a_thread_that_lives_stays(void)
{
    enum {
        NOTED,
        NOT_NOTED,
        HELD_BY_ANOTHER,
        NOTED_BY_ANOTHER,
        NO_WORD,
        HOWS
    };
    for (int how = 0; how < HOWS; how++) {
        check_about("way %d", how);
        struct replay replay = {.side = make(0)};
        struct side *side = &replay.side;
        struct pshm_owner note = {0};
        atomic_uint inconsistent = 0;
        atomic_uint *word = pshm_robust_word(&side->place->mutex);
        pshm_robust_watch(&side->mstate, how == NOT_NOTED ? NULL : &note);
        start_holder(&replay, 0);
        unsigned kept = atomic_load(word);
        if (how == HELD_BY_ANOTHER) {
            atomic_store(word, (unsigned)getppid());
        }
        if (how == NOTED_BY_ANOTHER) {
            atomic_store(&note.thread, (unsigned)getppid());
        }
        CHECK_IS(pshm_robust_abandon(&side->place->mutex, &side->mstate,
                                     how == NO_WORD ? NULL : &inconsistent),
                 -EBUSY);
        CHECK_IS(atomic_load(&inconsistent), how == NOTED);
        CHECK_IS(atomic_load(&note.thread) == PSHM_ORPHANED,
                 how == NOTED || how == NO_WORD);
        atomic_store(word, kept);
        end_holder(&replay, 0);
        unmake(side);
    }
}

/* It cannot be unlocked, and its neighbours cannot be read. */
static int
abandon_one_that_is_written_over(void *context)
{
    struct side side = make(0);
    (void)context;
    CHECK_IS(lock(&side), 0);
    write_over(&side.place->mutex, 0);
    pshm_fault_arm("futex", 1, PSHM_FAULT_FAIL_ON, EPERM);
    CHECK_IS(pshm_robust_abandon(&side.place->mutex, &side.mstate, NULL),
             -EBUSY);
    (void)pshm_fault_disarm();
    CHECK(pshm_mutex_state_held(&side.mstate));
    return 0;
}

static void
object_of_one_that_cannot_be_unlocked_stays(void)
{
    CHECK_IS(child_run(abandon_one_that_is_written_over, NULL), 0);
}

/* ---- several of them ---- */

static void
several_are_unlocked_in_any_order(void)
{
    enum { MANY = 4 };
    struct side sides[MANY];
    for (int i = 0; i < MANY; i++) {
        sides[i] = make(i % 2 ? PSHM_RECURSIVE : 0);
    }
    for (int order = 0; order < MANY * MANY * MANY * MANY; order++) {
        bool done[MANY] = {false};
        for (int i = 0; i < MANY; i++) {
            CHECK_IS(lock(&sides[i]), 0);
        }
        for (int i = 0, digits = order; i < MANY; i++, digits /= MANY) {
            int next = digits % MANY;
            while (done[next]) {
                next = (next + 1) % MANY;
            }
            done[next] = true;
            CHECK_IS(unlock(&sides[next]), 0);
        }
    }
    for (int i = 0; i < MANY; i++) {
        unmake(&sides[i]);
    }
}

static void
hand_over_hand_along_a_chain(void)
{
    enum { LINKS = 50 };
    static struct side sides[LINKS];
    for (int i = 0; i < LINKS; i++) {
        sides[i] = make(0);
    }
    for (int round = 0; round < 20; round++) {
        CHECK_IS(lock(&sides[0]), 0);
        for (int i = 1; i < LINKS; i++) {
            CHECK_IS(lock(&sides[i]), 0);
            CHECK_IS(unlock(&sides[i - 1]), 0);
        }
        CHECK_IS(unlock(&sides[LINKS - 1]), 0);
    }
    for (int i = 0; i < LINKS; i++) {
        unmake(&sides[i]);
    }
}

/* ... after each of which the next owner gets an error. */
static int
die_with_several(void *context)
{
    struct side *sides = context;
    for (int i = 0; i < 3; i++) {
        CHECK_IS(lock(&sides[i]), 0);
    }
    CHECK_IS(unlock(&sides[1]), 0);
    (void)raise(SIGKILL);
    return 1;
}

static void
death_with_several_is_told_of_each(void)
{
    struct side sides[3] = {make(0), make(0), make(PSHM_RECURSIVE)};
    CHECK_IS(child_run(die_with_several, sides), -SIGKILL);
    CHECK_IS(try(&sides[0]), -EOWNERDEAD);
    CHECK_IS(try(&sides[1]), 0);
    CHECK_IS(try(&sides[2]), -EOWNERDEAD);
    for (int i = 0; i < 3; i++) {
        pshm_robust_repair(&sides[i].place->mutex);
        CHECK_IS(unlock(&sides[i]), 0);
        unmake(&sides[i]);
    }
}

int
main(void)
{
    pshm_forks_watch();
#ifdef PSHM_ROBUST_LINKS
    RUN(links_of_another_kind_are_not_followed);
#endif
    RUN(only_one_has_it);
    RUN(others_find_it_taken);
    RUN(threads_are_told_apart);
    RUN(owner_does_not_wait_for_itself);
    RUN(kinds_are_told_apart);
    RUN(child_forked_beside_the_owner_waits_for_it);
    RUN(child_of_the_owner_has_nothing);
    RUN(next_owner_is_told_of_a_death);
    RUN(without_a_repair_nobody_gets_it_any_more);
    RUN(killed_at_any_moment_it_goes_on);
    RUN(who_holds_it_while_it_is_written_over_is_told);
#ifdef PSHM_ROBUST_LINKS
    RUN(one_that_is_written_over_leaves_the_list);
    RUN(links_that_a_dead_thread_left_are_not_followed);
    RUN(list_that_the_kernel_does_not_tell);
    RUN(neighbour_with_waiters_confirms_a_link);
    RUN(links_to_one_that_is_ours_are_not_followed);
    RUN(words_that_say_that_it_is_ours);
    RUN(word_that_says_that_it_is_free_while_it_is_ours);
    RUN(owner_or_count_that_is_written_over);
    RUN(word_that_says_that_it_is_free_by_another_grip);
#endif
    RUN(owner_that_does_not_exist_is_found);
    RUN(owner_whose_id_was_given_away_is_found);
    RUN(owner_that_noted_nothing_is_found);
    RUN(owner_is_not_looked_for_in_another_space);
    RUN(owner_that_is_not_noted_is_not_taken_for_a_dead_one);
    RUN(two_find_the_ended_owner_at_once);
    RUN(kernel_without_robust_mutexes_is_told);
    RUN(waiter_is_told_that_it_was_not_repaired);
    RUN(owner_that_waits_for_itself_may_be_freed_by_a_signal);
#ifdef PSHM_ROBUST_LINKS
    RUN(kind_may_change_at_each_step);
#endif
#ifdef PSHM_ROBUST_LINKS
    RUN(memory_of_one_that_was_replayed_is_kept);
    RUN(owner_that_is_about_to_end_is_waited_for);
#endif
    RUN(object_of_an_ended_thread_may_go);
    RUN(object_of_a_thread_that_lives_stays);
    RUN(object_of_one_that_cannot_be_unlocked_stays);
    RUN(one_beside_another_library_s_is_unlocked);
    RUN(several_are_unlocked_in_any_order);
    RUN(hand_over_hand_along_a_chain);
    RUN(death_with_several_is_told_of_each);
    return finish();
}
