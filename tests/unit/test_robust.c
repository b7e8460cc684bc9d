#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/robust.h"

#include <pthread.h>

/* A mutex and the data that it protects. */
struct place {
    struct pshm_robust mutex;
    volatile long plain;
    atomic_uint steps;
    unsigned flags;
};

struct peer {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct peer
make(unsigned flags)
{
    struct peer peer = {.place = shared_memory(PAGE)};
    peer.place->flags = flags;
    CHECK_IS(pshm_robust_init(&peer.place->mutex, flags), 0);
    CHECK_IS(pshm_robust_open(&peer.place->mutex, flags, &peer.mstate), 0);
    return peer;
}

static void
unmake(struct peer *peer)
{
    CHECK(munmap(peer->place, PAGE) == 0);
}

static int
lock(struct peer *peer)
{
    int rc;
    PATIENTLY(rc, pshm_robust_lock(&peer->place->mutex, &peer->mstate,
                                   before_long()));
    return rc;
}

static int
try(struct peer *peer)
{
    return pshm_robust_try(&peer->place->mutex, &peer->mstate);
}

static int
unlock(struct peer *peer)
{
    return pshm_robust_unlock(&peer->place->mutex, &peer->mstate);
}

static const unsigned kinds[] = {0, PSHM_RECURSIVE};

/* ---- one owner at a time ---- */

static int
find_it_taken(void *context)
{
    struct peer *peer = context;
    CHECK(!pshm_mutex_state_mine(&peer->mstate)
          && !pshm_mutex_state_held(&peer->mstate));
    CHECK_IS(try(peer), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(pshm_robust_lock(&peer->place->mutex, &peer->mstate,
                              start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_robust_lock(&peer->place->mutex, &peer->mstate, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_robust_lock(&peer->place->mutex, &peer->mstate, 0),
             -ETIMEDOUT);
    CHECK_IS(unlock(peer), -EPERM);
    CHECK(!pshm_mutex_state_mine(&peer->mstate));
    return 0;
}

static void
owner_does_not_wait_for_itself(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct peer peer = make(kinds[i]);
        bool again = kinds[i] & PSHM_RECURSIVE;
        CHECK_IS(lock(&peer), 0);
        int rc = try(&peer);
        CHECK(again ? rc == 0 : rc == -EDEADLK || rc == -EBUSY);
        CHECK_IS(
            pshm_robust_lock(&peer.place->mutex, &peer.mstate, PSHM_NEVER),
            again ? 0 : -EDEADLK);
        if (!again) {
            int64_t start = pshm_now();
            CHECK_IS(pshm_robust_lock(&peer.place->mutex, &peer.mstate,
                                      start + 20 * MS),
                     -ETIMEDOUT);
            CHECK(took(start, 20));
        }
        CHECK_IS(peer.mstate.depth, again ? 3 : 1);
        for (int depth = again ? 3 : 1; depth > 0; depth--) {
            CHECK(pshm_mutex_state_mine(&peer.mstate));
            CHECK_IS(child_run(find_it_taken, &peer), 0);
            CHECK_IS(unlock(&peer), 0);
        }
        CHECK_IS(unlock(&peer), -EPERM);
        unmake(&peer);
    }
}

static void
kinds_are_distinguished(void)
{
    struct pshm_robust mutex;
    struct pshm_mutex_state mstate = {0};
    memset(&mutex, 0, sizeof(mutex));
    for (size_t i = 0; i < COUNT(kinds); i++) {
        CHECK_IS(pshm_robust_open(&mutex, kinds[i], &mstate), -EBADMSG);
    }
    for (size_t made = 0; made < COUNT(kinds); made++) {
        struct peer peer = make(kinds[made]);
        for (size_t i = 0; i < COUNT(kinds); i++) {
            CHECK_IS(pshm_robust_open(&peer.place->mutex, kinds[i], &mstate),
                     i == made ? 0 : -EBADMSG);
        }
        unmake(&peer);
    }
}

/* ---- a fork ---- */

struct holder {
    struct peer *peer;
    atomic_uint state;
    unsigned thread;
};

/* ---- a death ---- */

static int
lock_and_die(void *context)
{
    CHECK_IS(lock(context), 0);
    (void)raise(SIGKILL);
    return 1;
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
mutex_without_a_repair_is_not_recoverable(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        check_about("flags %u", kinds[i]);
        struct peer peer = make(kinds[i]);
        CHECK_IS(child_run(lock_and_die, &peer), -SIGKILL);
        CHECK_IS(lock(&peer), -EOWNERDEAD);
        CHECK_IS(unlock(&peer), 0);
        CHECK_IS(try(&peer), -ENOTRECOVERABLE);
        CHECK_IS(child_run(find_it_unrecoverable, &peer), 0);
        CHECK_IS(lock(&peer), -ENOTRECOVERABLE);
        CHECK(!pshm_mutex_state_mine(&peer.mstate));
        unmake(&peer);
    }
}

/* ---- an overwritten mutex ---- */

/* Overwrite the mutex. Only the first two ways are possible if the links of
 * the C library are not known. */
static void
overwrite(struct pshm_robust *mutex, int how)
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
    case 5:                             /* links to valid memory */
        memcpy(&inside->__data.__list, links, sizeof(links));
        break;
    case 6:                             /* one of the two links */
        memcpy(&inside->__data.__list, links, sizeof(links[0]));
        break;
    case 7:
        memcpy((char *)&inside->__data.__list + sizeof(links[0]), links,
               sizeof(links[0]));
        break;
    default:                            /* a link to a misaligned address */
        links[0] += 2;
        memcpy(&inside->__data.__list, links, sizeof(links));
        break;
    }
#endif
}

#ifdef PSHM_ROBUST_LINKS
enum { OVERWRITES = 9 };
#else
enum { OVERWRITES = 2 };
#endif

/* Overwrite one of three mutexes that the thread holds. before: the other two
 * are unlocked first. */
static int
unlock_overwritten(void *context)
{
    int how = *(int *)context, before = how / OVERWRITES;
    struct peer peer = make(0), older = make(0), newer = make(0);
    CHECK_IS(lock(&older), 0);
    CHECK_IS(lock(&peer), 0);
    CHECK_IS(lock(&newer), 0);
    if (before) {
        CHECK_IS(unlock(&older), 0);
        CHECK_IS(unlock(&newer), 0);
    }
    struct pshm_robust saved = peer.place->mutex;
    overwrite(&peer.place->mutex, how % OVERWRITES);
    CHECK_IS(unlock(&peer), -EBADMSG);
    if (pshm_mutex_state_mine(&peer.mstate)) {
        CHECK_IS(unlock(&peer), -EBADMSG);
        if (how % OVERWRITES < 3) {
            CHECK_IS(try(&peer), -EBADMSG);
            CHECK_IS(lock(&peer), -EBADMSG);
        }
        /* The unlock did not change the mutex, so it works again with its old
         * bytes. */
        peer.place->mutex = saved;
        CHECK_IS(unlock(&peer), 0);
    }
    else {
        CHECK_IS(unlock(&peer), -EPERM);
    }
    if (!before) {
        CHECK_IS(unlock(&newer), 0);
        CHECK_IS(unlock(&older), 0);
    }
    peer.place->mutex = saved;
    atomic_store(pshm_robust_word(&peer.place->mutex), 0);
    CHECK_IS(lock(&peer), 0);
    overwrite(&peer.place->mutex, how % OVERWRITES);
    CHECK_IS(unlock(&peer), -EBADMSG);
    return 0;                           /* the process ends with the mutex
                                           locked */
}

#ifdef PSHM_ROBUST_LINKS

/* After the unlock the memory may be unmapped, and the next owner gets
 * -EOWNERDEAD if the word still contained the id of this thread. */
static int
unlock_overwritten_alone(void *context)
{
    int how = *(int *)context;
    struct peer peer = make(how % 2 ? PSHM_RECURSIVE : 0), other = make(0);
    struct pshm_robust fresh = peer.place->mutex;
    CHECK_IS(lock(&peer), 0);
    overwrite(&peer.place->mutex, how);
    CHECK_IS(unlock(&peer), -EBADMSG);
    CHECK(!pshm_mutex_state_held(&peer.mstate));
    if (how > 2) {
        CHECK_IS(try(&peer), -EOWNERDEAD);
        CHECK_IS(unlock(&peer), 0);
    }
    peer.place->mutex = fresh;
    CHECK_IS(lock(&peer), 0);
    CHECK_IS(unlock(&peer), 0);
    unmake(&peer);
    CHECK_IS(lock(&other), 0);
    CHECK_IS(unlock(&other), 0);
    return 0;
}

static void
overwritten_mutex_is_removed_from_the_list(void)
{
    for (int how = 0; how < OVERWRITES; how++) {
        check_about("case %d", how);
        CHECK_IS(child_run(unlock_overwritten_alone, &how), 0);
    }
}

static void *
lock_and_end(void *context)
{
    struct peer *peer = context;
    intptr_t wrong = lock(peer) != 0;
    return (void *)wrong;
}

/* The links are those of the dead owner, which the record of this thread does
 * not confirm. */
static int
links_of_a_dead_thread_are_not_followed(void *context)
{
    struct peer peer = make(0), other = make(0);
    pthread_t thread;
    void *wrong;
    (void)context;
    CHECK(pthread_create(&thread, NULL, lock_and_end, &peer) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    struct pshm_robust saved = peer.place->mutex;
    CHECK_IS(lock(&peer), -EOWNERDEAD);
    pshm_robust_repair(&peer.place->mutex);
    peer.place->mutex.mutex.__data.__list = saved.mutex.__data.__list;
    CHECK_IS(unlock(&peer), -EBADMSG);
    CHECK(!pshm_mutex_state_held(&peer.mstate));
    unmake(&peer);
    CHECK_IS(lock(&other), 0);
    CHECK_IS(unlock(&other), 0);
    return 0;
}

/* The links lead to another mutex that this thread holds. That mutex confirms
 * them, but it is not the expected neighbour, which does not. */
static int
links_to_another_own_mutex_are_not_followed(void *context)
{
    struct peer peers[4] = {make(0), make(0), make(0), make(0)};
    (void)context;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(lock(&peers[i]), 0);
    }
    struct pshm_robust *before = &peers[0].place->mutex;
    struct pshm_robust *mine = &peers[1].place->mutex;
    struct pshm_robust saved = *mine, saved_before = *before;
    void *other
        = (void *)&peers[3].place->mutex.mutex.__data.__list.__next;
    mine->mutex.__data.__list.__next = other;
    before->mutex.__data.__list.__prev = other;
    CHECK_IS(unlock(&peers[1]), -EBADMSG);
    CHECK(pshm_mutex_state_held(&peers[1].mstate));
    *mine = saved;
    *before = saved_before;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(unlock(&peers[i]), 0);
        unmake(&peers[i]);
    }
    return 0;
}

/* The bytes of an unlocked recursive mutex name this thread as the owner. The
 * C library would count that, and later remove the mutex from a list that does
 * not contain it. */
static void
unlocked_mutex_that_names_this_thread(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        for (int count = 0; count < 2; count++) {
            struct peer peer = make(kinds[i]);
            pthread_mutex_t *mutex = &peer.place->mutex.mutex;
            mutex->__data.__lock = mutex->__data.__owner
                = (int)pshm_thread()->id;
            mutex->__data.__count = (unsigned)count;
            /* only one link is set */
            mutex->__data.__list.__prev = count ? (void *)mutex : NULL;
            CHECK_IS(try(&peer), -EBADMSG);
            CHECK_IS(lock(&peer), -EBADMSG);
            CHECK(!pshm_mutex_state_held(&peer.mstate));
            CHECK_IS(unlock(&peer), -EPERM);
            unmake(&peer);
        }
    }
}

/* The mutex is not added to the list a second time. */
static void
held_mutex_with_the_word_of_an_unlocked_one(void)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct peer peer = make(kinds[i]), other = make(0);
        CHECK_IS(lock(&peer), 0);
        atomic_store(pshm_robust_word(&peer.place->mutex), 0);
        CHECK_IS(try(&peer), -EBADMSG);
        CHECK_IS(unlock(&peer), -EBADMSG);
        CHECK(!pshm_mutex_state_held(&peer.mstate));
        unmake(&peer);
        CHECK_IS(lock(&other), 0);
        CHECK_IS(unlock(&other), 0);
        unmake(&other);
    }
}

/* The C library reads these fields when it unlocks a recursive mutex. */
static void
overwritten_owner_or_count(void)
{
    for (int count = 0; count < 2; count++) {
        struct peer peer = make(PSHM_RECURSIVE);
        pthread_mutex_t *mutex = &peer.place->mutex.mutex;
        CHECK_IS(lock(&peer), 0);
        *(count ? &mutex->__data.__count
                : (unsigned *)&mutex->__data.__owner) += 1;
        CHECK_IS(unlock(&peer), -EBADMSG);
        CHECK(!pshm_mutex_state_held(&peer.mstate));
        CHECK_IS(try(&peer), -EOWNERDEAD);
        pshm_robust_repair(&peer.place->mutex);
        CHECK_IS(unlock(&peer), 0);
        unmake(&peer);
    }
}

/* The thread holds the mutex with another mutex state, and the word says that
 * it is unlocked. */
static void
overwritten_word_with_another_state(void)
{
    struct peer peer = make(0), again = peer;
    CHECK_IS(lock(&peer), 0);
    unsigned word = atomic_exchange(pshm_robust_word(&peer.place->mutex), 0);
    CHECK_IS(try(&again), -EBADMSG);
    atomic_store(pshm_robust_word(&peer.place->mutex), word);
    CHECK_IS(try(&again), -EDEADLK);
    CHECK_IS(unlock(&peer), 0);
    unmake(&peer);
}

#endif

static void
owner_of_an_overwritten_mutex_gets_an_error(void)
{
    for (int how = 0; how < 2 * OVERWRITES; how++) {
        check_about("case %d", how);
        CHECK_IS(child_run(unlock_overwritten, &how), 0);
    }
}

/* ---- an owner that the kernel did not mark ---- */

static int
do_nothing(void *context)
{
    (void)context;
    return 0;
}

struct watched {
    struct peer peers[2];
    struct pshm_owner owners[2];
};

/* The thread holds two mutexes. The kernel does not find the first, because
 * the second, which was overwritten, ends the list. */
static int
overwrite_and_die(void *context)
{
    struct watched *watched = context;
    CHECK_IS(lock(&watched->peers[0]), 0);
    CHECK_IS(lock(&watched->peers[1]), 0);
    memset(&watched->peers[1].place->mutex, 0xa5,
           sizeof(watched->peers[1].place->mutex));
    (void)raise(SIGKILL);
    return 1;
}

static void
owner_that_does_not_exist_is_found(void)
{
    struct watched *watched = shared_memory(PAGE);
    struct peer *peer = &watched->peers[0];
    for (int how = 0; how < 4; how++) {
        check_about("case %d", how);
        watched->peers[0] = make(how % 2 ? PSHM_RECURSIVE : 0);
        watched->peers[1] = make(0);
        pshm_robust_watch(&watched->peers[0].mstate, &watched->owners[0]);
        pshm_robust_watch(&watched->peers[1].mstate, &watched->owners[1]);
        /* a zombie counts as ended */
        pid_t child = child_start(overwrite_and_die, watched);
        if (how < 2) {
            CHECK_IS(child_wait(child), -SIGKILL);
        }
        else {
            siginfo_t info;
            CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
        }
        CHECK_IS(try(peer), -EBUSY);
        if (how == 0) {
            CHECK(pshm_robust_owner_gone(&peer->place->mutex, &peer->mstate));
            CHECK_IS(try(peer), -EOWNERDEAD);
        }
        else if (how == 1) {
            CHECK_IS(pshm_robust_busy(&peer->place->mutex, &peer->mstate),
                     -EOWNERDEAD);
        }
        else {
            CHECK_IS(lock(peer), -EOWNERDEAD);
            CHECK_IS(child_wait(child), -SIGKILL);
        }
        pshm_robust_repair(&peer->place->mutex);
        CHECK_IS(unlock(peer), 0);
        CHECK(!pshm_robust_owner_gone(&peer->place->mutex, &peer->mstate));
        unmake(peer);
        unmake(&watched->peers[1]);
    }
    CHECK(munmap(watched, PAGE) == 0);
}

/* The id now belongs to another thread, which started at another time. */
static void
dead_owner_is_found_if_its_id_is_reused(void)
{
    struct peer peer = make(0);
    struct pshm_owner note = {0};
    pshm_robust_watch(&peer.mstate, &note);
    atomic_store(pshm_robust_word(&peer.place->mutex), (unsigned)getppid());
    CHECK(!pshm_robust_owner_gone(&peer.place->mutex, &peer.mstate));
    CHECK_IS(pshm_robust_lock(&peer.place->mutex, &peer.mstate, in_ms(5)),
             -ETIMEDOUT);
    atomic_store(&note.thread, (unsigned)getppid());
    atomic_store(&note.started, 1);
    CHECK_IS(lock(&peer), -EOWNERDEAD);
    CHECK_IS(atomic_load(&note.thread), pshm_thread()->id);
    pshm_robust_repair(&peer.place->mutex);
    CHECK_IS(unlock(&peer), 0);
    CHECK_IS(atomic_load(&note.thread), 0);
    unmake(&peer);
}

/* This library does not know that a mutex of another library is in the list. A
 * sandbox may forbid the call that reads such a neighbour at any time. */
static void
neighbour_of_another_library_does_not_matter(void)
{
    static struct pshm_robust other;
    struct peer peers[3];
    CHECK_IS(pshm_robust_init(&other, 0), 0);
    for (size_t i = 0; i < COUNT(peers); i++) {
        peers[i] = make(0);
    }
    CHECK_IS(lock(&peers[0]), 0);
    CHECK_IS(lock(&peers[1]), 0);
    CHECK_IS(pthread_mutex_lock(&other.mutex), 0);
    CHECK_IS(lock(&peers[2]), 0);
    CHECK_IS(unlock(&peers[1]), 0);
    CHECK_IS(unlock(&peers[0]), 0);
    CHECK_IS(unlock(&peers[2]), 0);
    CHECK_IS(pthread_mutex_unlock(&other.mutex), 0);
    for (size_t i = 0; i < COUNT(peers); i++) {
        unmake(&peers[i]);
    }
}

/* Without a record of the owner, the id alone identifies it. */
static void
dead_owner_without_a_record_is_found(void)
{
    struct peer peer = make(0);
    pid_t ended = child_start(do_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    pshm_robust_watch(&peer.mstate, NULL);
    atomic_store(pshm_robust_word(&peer.place->mutex), (unsigned)ended);
    CHECK_IS(pshm_robust_busy(&peer.place->mutex, &peer.mstate), -EOWNERDEAD);
    pshm_robust_repair(&peer.place->mutex);
    CHECK_IS(unlock(&peer), 0);
    unmake(&peer);
}

/* In another PID namespace the ids refer to other processes. */
static void
owner_in_another_pid_namespace_is_not_checked(void)
{
    struct peer peer = make(0);
    CHECK_IS(pshm_robust_busy(&peer.place->mutex, &peer.mstate), -EBUSY);
    pid_t ended = child_start(do_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    pshm_robust_watch(&peer.mstate, NULL);
    peer.mstate.space++;
    atomic_store(pshm_robust_word(&peer.place->mutex), (unsigned)ended);
    CHECK(!pshm_robust_owner_gone(&peer.place->mutex, &peer.mstate));
    CHECK_IS(pshm_robust_busy(&peer.place->mutex, &peer.mstate), -EBUSY);
    unmake(&peer);
}

static int
unmap_and_stop(void *context)
{
    unmake(context);
    return stop_itself(NULL);
}

/* A program that does not use this library holds the mutex. The record is that
 * of the previous owner, which died or whose object was deallocated. */
static void
unrecorded_owner_does_not_count_as_dead(void)
{
    for (int maps = 0; maps < 2; maps++) {
        struct peer peer = make(0);
        struct pshm_owner note = {0};
        pid_t child = child_start_stopped(
            maps ? stop_itself : unmap_and_stop, &peer);
        pshm_robust_watch(&peer.mstate, &note);
        atomic_uint *word = pshm_robust_word(&peer.place->mutex);
        for (int orphaned = 0; orphaned < 2; orphaned++) {
            check_about("maps %d, orphaned %d", maps, orphaned);
            atomic_store(word, (unsigned)child);
            atomic_store(&note.thread,
                         orphaned ? PSHM_ORPHANED : (unsigned)child);
            atomic_store(&note.started, 1);
            CHECK_IS(pshm_robust_owner_gone(&peer.place->mutex, &peer.mstate),
                     !maps);
            atomic_store(word, (unsigned)child);
            atomic_store(&peer.mstate.looked, 0);
            int rc = pshm_robust_busy(&peer.place->mutex, &peer.mstate);
            CHECK_IS(rc, maps       ? -EBUSY
                         : orphaned ? -EINPROGRESS
                                    : -EOWNERDEAD);
            if (rc == -EOWNERDEAD) {
                pshm_robust_repair(&peer.place->mutex);
                CHECK_IS(unlock(&peer), 0);
            }
        }
        /* The thread of the orphan has ended. */
        atomic_store(word, FUTEX_OWNER_DIED);
        CHECK(pshm_robust_owner_gone(&peer.place->mutex, &peer.mstate));
        CHECK(kill(child, SIGCONT) == 0);
        CHECK_IS(child_wait(child), 0);
        unmake(&peer);
    }
}

struct found {
    struct peer peer;
    unsigned ended;
    int rc;
};

static void
begin_with_an_ended_owner(void *context)
{
    struct found *found = context;
    atomic_store(pshm_robust_word(&found->peer.place->mutex), found->ended);
}

static void
check_owner(void *context)
{
    struct found *found = context;
    CHECK(pshm_robust_owner_gone(&found->peer.place->mutex,
                                 &found->peer.mstate));
}

static void
it_is_marked(void *context)
{
    struct found *found = context;
    CHECK_IS(atomic_load(pshm_robust_word(&found->peer.place->mutex)),
             FUTEX_OWNER_DIED);
}

static void
two_checks_find_the_ended_owner(void)
{
    struct found found = {.peer = make(0)};
    pid_t ended = child_start(do_nothing, NULL);
    CHECK_IS(child_wait(ended), 0);
    found.ended = (unsigned)ended;
    pshm_robust_watch(&found.peer.mstate, NULL);
    meet_at_each_step(&(struct meeting){begin_with_an_ended_owner,
                                        check_owner, check_owner,
                                        it_is_marked},
                      &found);
    unmake(&found.peer);
}

/* ---- errors of the C library ---- */

static void
kernel_without_robust_mutexes_is_an_error(void)
{
    struct peer peer = make(0);
    struct pshm_robust fresh;
    struct pshm_mutex_state mstate = {0};
    memset(&fresh, 0, sizeof(fresh));
    pshm_fault_arm("pthread_mutex_init", 1, PSHM_FAULT_FAIL_ON, ENOTSUP);
    CHECK_IS(pshm_robust_init(&fresh, 0), -ENOTSUP);
    CHECK_IS(pshm_robust_open(&peer.place->mutex, 0, &mstate), -ENOTSUP);
    pshm_fault_arm("pthread_mutexattr_setrobust", 1, PSHM_FAULT_FAIL_ON,
                   ENOSYS);
    CHECK_IS(pshm_robust_init(&fresh, 0), -ENOSYS);
    (void)pshm_fault_disarm();
    unmake(&peer);
}

static int
wait_for_unrecoverable(void *context)
{
    CHECK_IS(lock(context), -ENOTRECOVERABLE);
    return 0;
}

/* A waiter existed when the owner that got -EOWNERDEAD unlocked the mutex. */
static void
waiter_gets_enotrecoverable(void)
{
    struct peer peer = make(0);
    const atomic_uint *word = pshm_robust_word(&peer.place->mutex);
    CHECK_IS(child_run(lock_and_die, &peer), -SIGKILL);
    CHECK_IS(lock(&peer), -EOWNERDEAD);
    pid_t child = child_start(wait_for_unrecoverable, &peer);
    int64_t deadline = before_long();
    while ((atomic_load(word) & FUTEX_WAITERS) == 0 && pshm_now() < deadline) {
        (void)usleep(20);
    }
    CHECK_IS(unlock(&peer), 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(try(&peer), -ENOTRECOVERABLE);
    unmake(&peer);
}

/* ---- a wait ---- */

static int
lock_and_stop(void *context)
{
    CHECK_IS(lock(context), 0);
    return stop_itself(NULL);
}

/* As if the word changed before each sleep. */
static void
word_that_never_matches_does_not_outlast_the_deadline(void)
{
    struct peer peer = make(0);
    pid_t child = child_start_stopped(lock_and_stop, &peer);
    pshm_fault_arm("futex", 1, PSHM_FAULT_FAIL_ON, EAGAIN);
    int rc;
    PATIENTLY(rc, pshm_robust_lock(&peer.place->mutex, &peer.mstate,
                                   in_ms(5)));
    (void)pshm_fault_disarm();
    CHECK_IS(rc, -ETIMEDOUT);
    child_kill(child);
    unmake(&peer);
}

#ifdef PSHM_ROBUST_LINKS

/* Wait until the child, which does nothing else, sleeps in its call. */
static void
await_sleep(pid_t child)
{
    char path[40], state = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
    for (int64_t end = before_long(); state != 'S' && pshm_now() < end;) {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fscanf(file, "%*d %*s %c", &state) == 1);
        (void)fclose(file);
    }
    CHECK_IS(state, 'S');
}

static void
die_soon(void *context)
{
    (void)context;
    pshm_fault_arm("atomic", 1, PSHM_FAULT_KILL_BEFORE, 0);
}

static int
die_when_woken(void *context)
{
    pshm_fault_hook(die_soon, context);
    pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_AFTER, 0);
    return lock(context);
}

/* Without a poll interval. */
static int
wait_by_the_c_library(void *context)
{
    struct peer *peer = context;
    CHECK_IS(pthread_mutex_lock(&peer->place->mutex.mutex), 0);
    CHECK_IS(pthread_mutex_unlock(&peer->place->mutex.mutex), 0);
    return 0;
}

/* The wake-up of a waiter that is killed before it locks the mutex. */
static void
next_waiter_is_woken_after_a_death(void)
{
    struct peer peer = make(0);
    CHECK_IS(lock(&peer), 0);
    pid_t first = child_start(die_when_woken, &peer);
    await_sleep(first);
    pid_t second = child_start(wait_by_the_c_library, &peer);
    await_sleep(second);
    CHECK_IS(unlock(&peer), 0);
    CHECK_IS(child_wait(first), -SIGKILL);
    CHECK_IS(child_wait(second), 0);
    unmake(&peer);
}

#endif

static void
unlock_it(void *context)
{
    CHECK_IS(unlock(context), 0);
}

/* A signal handler unlocks the mutex while the owner waits for itself. */
static void
signal_handler_may_release_a_waiting_owner(void)
{
    struct peer peer = make(0);
    CHECK_IS(lock(&peer), 0);
    pshm_fault_hook(unlock_it, &peer);
    pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(pshm_robust_lock(&peer.place->mutex, &peer.mstate, before_long()),
             0);
    (void)pshm_fault_disarm();
    CHECK_IS(unlock(&peer), 0);
    unmake(&peer);
}

#ifdef PSHM_ROBUST_LINKS

static void
begin_with_new_mutex(void *context)
{
    struct found *found = context;
    memset(&found->peer.place->mutex, 0, sizeof(found->peer.place->mutex));
    CHECK_IS(pshm_robust_init(&found->peer.place->mutex, 0), 0);
}

static void
try_it(void *context)
{
    struct found *found = context;
    found->rc = try(&found->peer);
}

static void
write_other_kind(void *context)
{
    struct found *found = context;
    found->peer.place->mutex.mutex.__data.__kind = 0x7f;
}

static void
it_was_refused_or_locked_before(void *context)
{
    struct found *found = context;
    CHECK(found->rc == 0 || found->rc == -EBADMSG);
    CHECK_IS(pshm_mutex_state_held(&found->peer.mstate), found->rc == 0);
    CHECK_IS(unlock(&found->peer), found->rc == 0 ? -EBADMSG : -EPERM);
    CHECK(!pshm_mutex_state_held(&found->peer.mstate));
}

static void
kind_may_change_at_each_step(void)
{
    struct found found = {.peer = make(0)};
    meet_at_each_step(&(struct meeting){begin_with_new_mutex, try_it,
                                        write_other_kind,
                                        it_was_refused_or_locked_before},
                      &found);
    unmake(&found.peer);
}

#endif

/* ---- a mutex state with several owners ---- */

/* Bytes that were copied while the mutex was unlocked are restored while a
 * thread holds it. So another thread can lock it with the same mutex state. */
struct replay {
    struct peer peer;
    struct pshm_robust fresh;
    struct holder holders[3];
    pthread_t threads[3];
};

/* 1: holds the mutex; 2: may end. */
static void *
hold_and_end(void *context)
{
    struct holder *holder = context;
    int rc = lock(holder->peer);
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
    *holder = (struct holder){.peer = &replay->peer};
    CHECK(pthread_create(&replay->threads[which], NULL, hold_and_end,
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

/* With musl, the lists of the threads would be linked to each other. */
#ifdef PSHM_ROBUST_LINKS

static int
memory_of_a_mutex_with_restored_bytes_is_kept(void *context)
{
    struct replay replay = {.peer = make(0)};
    struct peer *peer = &replay.peer;
    (void)context;
    replay.fresh = peer->place->mutex;
    for (int i = 0; i < 2; i++) {
        start_holder(&replay, i);
        CHECK_IS(atomic_load(&peer->mstate.lost), i);
        peer->place->mutex = replay.fresh;
    }
    CHECK_IS(lock(peer), 0);
    CHECK_IS(pshm_robust_abandon(&peer->place->mutex, &peer->mstate, NULL),
             -EBUSY);
    CHECK(!pshm_mutex_state_held(&peer->mstate));
    end_holder(&replay, 0);
    end_holder(&replay, 1);
    return 0;
}

static void
end_first_holder(void *context)
{
    end_holder(context, 0);
}

/* The kernel marks the mutexes of a thread shortly before it ends. */
static int
lock_waits_for_an_ending_owner(void *context)
{
    struct replay replay = {.peer = make(0)};
    struct peer *peer = &replay.peer;
    (void)context;
    start_holder(&replay, 0);
    atomic_store(pshm_robust_word(&peer->place->mutex), FUTEX_OWNER_DIED);
    pshm_fault_hook(end_first_holder, &replay);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(try(peer), -EOWNERDEAD);
    CHECK(pshm_fault_disarm() >= 1);
    CHECK_IS(atomic_load(&peer->mstate.lost), 0);
    return 0;
}

#endif

/* ---- a deallocated object ---- */

static void
memory_of_an_ended_thread_can_be_unmapped(void)
{
    struct replay replay = {.peer = make(0)};
    struct peer *peer = &replay.peer;
    start_holder(&replay, 0);
    end_holder(&replay, 0);
    CHECK(pshm_mutex_state_held(&peer->mstate));
    CHECK_IS(pshm_robust_abandon(&peer->place->mutex, &peer->mstate, NULL), 0);
    unmake(peer);
}

/* Another thread holds the mutex with the state, so its memory must stay
 * mapped. The next owner gets -EOWNERDEAD unless the record or the word names
 * another thread. */
static void
memory_of_a_living_thread_is_kept(void)
{
    enum {
        NOTED,
        NOT_NOTED,
        HELD_BY_ANOTHER,
        NOTED_BY_ANOTHER,
        NO_WORD,
        CASES
    };
    for (int how = 0; how < CASES; how++) {
        check_about("case %d", how);
        struct replay replay = {.peer = make(0)};
        struct peer *peer = &replay.peer;
        struct pshm_owner note = {0};
        atomic_uint inconsistent = 0;
        atomic_uint *word = pshm_robust_word(&peer->place->mutex);
        pshm_robust_watch(&peer->mstate, how == NOT_NOTED ? NULL : &note);
        start_holder(&replay, 0);
        unsigned saved = atomic_load(word);
        if (how == HELD_BY_ANOTHER) {
            atomic_store(word, (unsigned)getppid());
        }
        if (how == NOTED_BY_ANOTHER) {
            atomic_store(&note.thread, (unsigned)getppid());
        }
        CHECK_IS(pshm_robust_abandon(&peer->place->mutex, &peer->mstate,
                                     how == NO_WORD ? NULL : &inconsistent),
                 -EBUSY);
        CHECK_IS(atomic_load(&inconsistent), how == NOTED);
        CHECK_IS(atomic_load(&note.thread) == PSHM_ORPHANED,
                 how == NOTED || how == NO_WORD);
        atomic_store(word, saved);
        end_holder(&replay, 0);
        unmake(peer);
    }
}

/* The mutex cannot be removed from the list, because its neighbour there was
 * overwritten, too. */
static int
memory_of_a_mutex_that_cannot_be_unlocked_is_kept(void *context)
{
    struct peer peer = make(0), newer = make(0);
    (void)context;
    CHECK_IS(lock(&peer), 0);
    CHECK_IS(lock(&newer), 0);
    overwrite(&peer.place->mutex, 0);
    overwrite(&newer.place->mutex, 0);
    CHECK_IS(pshm_robust_abandon(&peer.place->mutex, &peer.mstate, NULL),
             -EBUSY);
    CHECK(pshm_mutex_state_held(&peer.mstate));
    return 0;
}

/* ---- several mutexes ---- */

static void
hand_over_hand_locking(void)
{
    enum { LINKS = 50 };
    static struct peer peers[LINKS];
    for (int i = 0; i < LINKS; i++) {
        peers[i] = make(0);
    }
    for (int round = 0; round < 20; round++) {
        CHECK_IS(lock(&peers[0]), 0);
        for (int i = 1; i < LINKS; i++) {
            CHECK_IS(lock(&peers[i]), 0);
            CHECK_IS(unlock(&peers[i - 1]), 0);
        }
        CHECK_IS(unlock(&peers[LINKS - 1]), 0);
    }
    for (int i = 0; i < LINKS; i++) {
        unmake(&peers[i]);
    }
}

/* Die with several mutexes, after which the next owner of each gets
 * -EOWNERDEAD. */
static int
die_with_several(void *context)
{
    struct peer *peers = context;
    for (int i = 0; i < 3; i++) {
        CHECK_IS(lock(&peers[i]), 0);
    }
    CHECK_IS(unlock(&peers[1]), 0);
    (void)raise(SIGKILL);
    return 1;
}

static void
next_owners_of_several_mutexes_get_eownerdead(void)
{
    struct peer peers[3] = {make(0), make(0), make(PSHM_RECURSIVE)};
    CHECK_IS(child_run(die_with_several, peers), -SIGKILL);
    CHECK_IS(try(&peers[0]), -EOWNERDEAD);
    CHECK_IS(try(&peers[1]), 0);
    CHECK_IS(try(&peers[2]), -EOWNERDEAD);
    for (int i = 0; i < 3; i++) {
        pshm_robust_repair(&peers[i].place->mutex);
        CHECK_IS(unlock(&peers[i]), 0);
        unmake(&peers[i]);
    }
}

int
main(void)
{
    pshm_forks_watch();
    RUN(owner_does_not_wait_for_itself);
    RUN(kinds_are_distinguished);
    RUN(mutex_without_a_repair_is_not_recoverable);
    RUN(owner_of_an_overwritten_mutex_gets_an_error);
#ifdef PSHM_ROBUST_LINKS
    RUN(overwritten_mutex_is_removed_from_the_list);
    RUN_IN_CHILD(links_of_a_dead_thread_are_not_followed, 0);
    RUN_IN_CHILD(links_to_another_own_mutex_are_not_followed, 0);
    RUN(unlocked_mutex_that_names_this_thread);
    RUN(held_mutex_with_the_word_of_an_unlocked_one);
    RUN(overwritten_owner_or_count);
    RUN(overwritten_word_with_another_state);
#endif
    RUN(owner_that_does_not_exist_is_found);
    RUN(dead_owner_is_found_if_its_id_is_reused);
    RUN(dead_owner_without_a_record_is_found);
    RUN(owner_in_another_pid_namespace_is_not_checked);
    RUN(unrecorded_owner_does_not_count_as_dead);
    RUN(two_checks_find_the_ended_owner);
    RUN(kernel_without_robust_mutexes_is_an_error);
    RUN(waiter_gets_enotrecoverable);
    RUN(word_that_never_matches_does_not_outlast_the_deadline);
#ifdef PSHM_ROBUST_LINKS
    RUN(next_waiter_is_woken_after_a_death);
#endif
    RUN(signal_handler_may_release_a_waiting_owner);
#ifdef PSHM_ROBUST_LINKS
    RUN(kind_may_change_at_each_step);
#endif
#ifdef PSHM_ROBUST_LINKS
    RUN_IN_CHILD(memory_of_a_mutex_with_restored_bytes_is_kept, 0);
    RUN_IN_CHILD(lock_waits_for_an_ending_owner, 0);
#endif
    RUN(memory_of_an_ended_thread_can_be_unmapped);
    RUN(memory_of_a_living_thread_is_kept);
    RUN_IN_CHILD(memory_of_a_mutex_that_cannot_be_unlocked_is_kept, 0);
    RUN(neighbour_of_another_library_does_not_matter);
    RUN(hand_over_hand_locking);
    RUN(next_owners_of_several_mutexes_get_eownerdead);
    return finish();
}
