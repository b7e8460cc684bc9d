#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/robust.h"

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
    struct pshm_grip grip;
};

static struct side
make(unsigned flags)
{
    struct side side = {.place = shared_memory(PAGE)};
    side.place->flags = flags;
    CHECK_IS(pshm_robust_init(&side.place->mutex, flags), 0);
    CHECK_IS(pshm_robust_open(&side.place->mutex, flags, &side.grip), 0);
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
    PATIENTLY(rc, pshm_robust_lock(&side->place->mutex, &side->grip,
                                   before_long()));
    return rc;
}

static int
try(struct side *side)
{
    return pshm_robust_try(&side->place->mutex, &side->grip);
}

static int
unlock(struct side *side)
{
    return pshm_robust_unlock(&side->place->mutex, &side->grip);
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
    CHECK(!pshm_grip_mine(&side->grip) && !pshm_grip_held(&side->grip));
    CHECK_IS(try(side), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->grip,
                              start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->grip, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_robust_lock(&side->place->mutex, &side->grip, 0),
             -ETIMEDOUT);
    CHECK_IS(unlock(side), -EPERM);
    CHECK(!pshm_grip_mine(&side->grip));
    return 0;
}

static void
others_find_it_taken(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct side side = make(kinds[i]);
        CHECK(!pshm_grip_held(&side.grip));
        CHECK_IS(try(&side), 0);
        CHECK(pshm_grip_mine(&side.grip) && pshm_grip_held(&side.grip));
        CHECK_IS(child_run(find_it_taken, &side), 0);
        CHECK_IS(unlock(&side), 0);
        CHECK(!pshm_grip_mine(&side.grip) && !pshm_grip_held(&side.grip));
        CHECK_IS(unlock(&side), -EPERM);
        unmake(&side);
    }
}

static void *
find_it_another_threads(void *context)
{
    struct side *side = context;
    intptr_t wrong = pshm_grip_mine(&side->grip)
                     || !pshm_grip_held(&side->grip)
                     || try(side) != -EBUSY || unlock(side) != -EPERM
                     || pshm_robust_lock(&side->place->mutex, &side->grip,
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
        CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.grip, PSHM_NEVER),
                 again ? 0 : -EDEADLK);
        if (!again) {
            int64_t start = pshm_now();
            CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.grip,
                                      start + 20 * MS),
                     -ETIMEDOUT);
            CHECK(took(start, 20));
        }
        CHECK_IS(side.grip.depth, again ? 3 : 1);
        for (int depth = again ? 3 : 1; depth > 0; depth--) {
            CHECK(pshm_grip_mine(&side.grip));
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
    struct pshm_grip grip = {0};
    memset(&mutex, 0, sizeof(mutex));
    for (size_t i = 0; i < COUNT(kinds); i++) {
        CHECK_IS(pshm_robust_open(&mutex, kinds[i], &grip), -EBADMSG);
    }
    for (size_t made = 0; made < COUNT(kinds); made++) {
        struct side side = make(kinds[made]);
        for (size_t i = 0; i < COUNT(kinds); i++) {
            CHECK_IS(pshm_robust_open(&side.place->mutex, kinds[i], &grip),
                     i == made ? 0 : -EBADMSG);
        }
        unmake(&side);
    }
}

/* ---- a fork ---- */

struct holder {
    struct side *side;
    atomic_uint state;
};

/* 1: has it; 2: may let go; 3: has. */
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
    CHECK(pshm_grip_mine(&side->grip));
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

/* What its parent's thread had it has not, though it is the same thread. */
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
            CHECK(pshm_grip_mine(&side.grip));
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
        CHECK(!pshm_grip_mine(&side.grip));
        unmake(&side);
    }
}

/* Under it: plain is odd only while somebody is between the two. */
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

/* The last ones only where it is known how the C library does it. */
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
    case 5:                             /* to where there is memory */
        memcpy(&inside->__data.__list, links, sizeof(links));
        break;
    case 6:                             /* one of the two */
        memcpy(&inside->__data.__list, links, sizeof(links[0]));
        break;
    default:
        memcpy((char *)&inside->__data.__list + sizeof(links[0]), links,
               sizeof(links[0]));
        break;
    }
#endif
}

#ifdef PSHM_ROBUST_LINKS
enum { WAYS_TO_WRITE_OVER = 8 };
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
    if (pshm_grip_mine(&side.grip)) {
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

/* Its memory may go then, and the next one is told if its word still is ours. */
static int
have_only_it_written_over(void *context)
{
    int how = *(int *)context;
    struct side side = make(how % 2 ? PSHM_RECURSIVE : 0), other = make(0);
    struct pshm_robust fresh = side.place->mutex;
    CHECK_IS(lock(&side), 0);
    write_over(&side.place->mutex, how);
    CHECK_IS(unlock(&side), -EBADMSG);
    CHECK(!pshm_grip_held(&side.grip));
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

/* What is left of the thread still says that it has the mutex. */
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
    CHECK(!pshm_grip_held(&side.grip));
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
            CHECK_IS(try(&side), -EBADMSG);
            CHECK_IS(lock(&side), -EBADMSG);
            CHECK(!pshm_grip_held(&side.grip));
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
        CHECK(!pshm_grip_held(&side.grip));
        unmake(&side);
        CHECK_IS(lock(&other), 0);
        CHECK_IS(unlock(&other), 0);
        unmake(&other);
    }
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
        pshm_robust_watch(&watched->sides[0].grip, &watched->owners[0]);
        pshm_robust_watch(&watched->sides[1].grip, &watched->owners[1]);
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
            CHECK(pshm_robust_owner_gone(&side->place->mutex, &side->grip));
            CHECK_IS(try(side), -EOWNERDEAD);
        }
        else if (how == 1) {
            CHECK_IS(pshm_robust_busy(&side->place->mutex, &side->grip),
                     -EOWNERDEAD);
        }
        else {
            CHECK_IS(lock(side), -EOWNERDEAD);
            CHECK_IS(child_wait(child), -SIGKILL);
        }
        pshm_robust_repair(&side->place->mutex);
        CHECK_IS(unlock(side), 0);
        CHECK(!pshm_robust_owner_gone(&side->place->mutex, &side->grip));
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
    pshm_robust_watch(&side.grip, &note);
    atomic_store(pshm_robust_word(&side.place->mutex), (unsigned)getppid());
    CHECK(!pshm_robust_owner_gone(&side.place->mutex, &side.grip));
    CHECK_IS(pshm_robust_lock(&side.place->mutex, &side.grip, in_ms(5)),
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

/* ... each of which the next one is told of. */
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
    RUN(words_that_say_that_it_is_ours);
    RUN(word_that_says_that_it_is_free_while_it_is_ours);
#endif
    RUN(owner_that_does_not_exist_is_found);
    RUN(owner_whose_id_was_given_away_is_found);
    RUN(one_beside_another_library_s_is_unlocked);
    RUN(several_are_unlocked_in_any_order);
    RUN(hand_over_hand_along_a_chain);
    RUN(death_with_several_is_told_of_each);
    return finish();
}
