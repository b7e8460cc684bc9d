#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/lock.h"
#include "posix/sync/orphan.h"

#include <sched.h>

/* A lock and the data that it protects: two words that are equal while the
 * lock is free, except after a death. */
struct place {
    struct pshm_lock lock;
    volatile long first, second;
    atomic_uint steps, owner_deaths, repaired;
};

struct peer {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct peer
make(unsigned flags)
{
    struct peer peer = {.place = shared_memory(PAGE)};
    CHECK_IS(pshm_lock_init(&peer.place->lock, flags), 0);
    CHECK_IS(pshm_lock_open(&peer.place->lock, flags, &peer.mstate), 0);
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
    PATIENTLY(rc, pshm_lock_wait(&peer->place->lock, &peer->mstate,
                                 before_long()));
    return rc;
}

static int
try(struct peer *peer)
{
    return pshm_lock_try(&peer->place->lock, &peer->mstate);
}

static int
unlock(struct peer *peer)
{
    return pshm_lock_release(&peer->place->lock, &peer->mstate);
}

static void
inconsistent_lock_has_a_dead_owner(void)
{
    struct peer peer = make(0);
    CHECK(!pshm_lock_owner_died(&peer.place->lock, &peer.mstate));
    CHECK_IS(lock(&peer), 0);
    pshm_lock_release_unrepaired(&peer.place->lock, &peer.mstate);
    CHECK(pshm_lock_owner_died(&peer.place->lock, &peer.mstate));
    CHECK_IS(lock(&peer), -EOWNERDEAD);
    CHECK(!pshm_lock_owner_died(&peer.place->lock, &peer.mstate));
    pshm_lock_repair(&peer.place->lock);
    CHECK_IS(unlock(&peer), 0);
    CHECK(!pshm_lock_owner_died(&peer.place->lock, &peer.mstate));
    unmake(&peer);
}

/* ---- a deallocated object ---- */

static int
get_ownerdead(void *context);

static void
owner_of_a_deallocated_object_counts_as_dead(void)
{
    for (unsigned flags = 0; flags <= PSHM_RECURSIVE; flags++) {
        struct peer peer = make(flags);
        struct pshm_mutex_state other = {0};
        CHECK_IS(pshm_lock_open(&peer.place->lock, flags, &other), 0);
        CHECK_IS(pshm_lock_abandon(&peer.place->lock, &peer.mstate), 0);
        CHECK_IS(pshm_lock_try(&peer.place->lock, &other), 0);
        CHECK_IS(pshm_lock_release(&peer.place->lock, &other), 0);
        for (unsigned i = 0; i <= 2 * flags; i++) {
            CHECK_IS(lock(&peer), 0);
        }
        CHECK_IS(pshm_lock_abandon(&peer.place->lock, &peer.mstate), 0);
        CHECK(pshm_lock_owner_died(&peer.place->lock, &other));
        CHECK(!pshm_mutex_state_held(&peer.mstate));
        /* A program that does not use this library also gets EOWNERDEAD. */
        CHECK_IS(pthread_mutex_trylock(&peer.place->lock.mutex.mutex),
                 EOWNERDEAD);
        CHECK(pthread_mutex_consistent(&peer.place->lock.mutex.mutex) == 0);
        CHECK(pthread_mutex_unlock(&peer.place->lock.mutex.mutex) == 0);
        CHECK_IS(child_run(get_ownerdead, &peer), 0);
        CHECK_IS(pshm_lock_try(&peer.place->lock, &other), -EOWNERDEAD);
        pshm_lock_repair(&peer.place->lock);
        CHECK_IS(pshm_lock_release(&peer.place->lock, &other), 0);
        CHECK(!pshm_lock_owner_died(&peer.place->lock, &other));
        unmake(&peer);
    }
}

struct holder {
    struct peer *peer;
    struct peer *another;
    atomic_uint state;
};

/* 1: holds the lock; 2: the object is deallocated; 3: has used another lock;
 * 4: may end. */
static void *
hold_then_use_another(void *context)
{
    struct holder *holder = context;
    intptr_t wrong = lock(holder->peer) != 0;
    atomic_store(&holder->state, 1);
    await(&holder->state, 2);
    if (holder->another != NULL) {
        wrong |= lock(holder->another) != 0 || unlock(holder->another) != 0;
        atomic_store(&holder->state, 3);
        await(&holder->state, 4);
    }
    return (void *)wrong;
}

static void
object_is_deallocated_while_its_thread_lives(void)
{
    for (int ends = 0; ends < 2; ends++) {
        check_about("ends %d", ends);
        struct peer peer = make(0), another = make(0);
        struct pshm_mutex_state other = {0};
        struct holder holder = {.peer = &peer,
                                .another = ends ? NULL : &another};
        pthread_t thread;
        void *wrong;
        struct pshm_region *region = pshm_region_new(peer.place, PAGE);
        CHECK(pthread_create(&thread, NULL, hold_then_use_another, &holder)
              == 0);
        await(&holder.state, 1);
        CHECK_IS(pshm_lock_open(&peer.place->lock, 0, &other), 0);
        CHECK_IS(pshm_lock_abandon(&peer.place->lock, &peer.mstate), -EBUSY);
        pshm_region_keep(region);
        pshm_orphan_keep(&peer.place->lock.mutex, &peer.mstate, region);
        CHECK_IS(pshm_lock_try(&peer.place->lock, &other), -EINPROGRESS);
        CHECK_IS(pshm_lock_wait(&peer.place->lock, &other, PSHM_NEVER),
                 -EINPROGRESS);
        CHECK(pshm_lock_owner_died(&peer.place->lock, &other));
        CHECK(!pshm_region_is_own(region));
        atomic_store(&holder.state, 2);
        if (!ends) {
            await(&holder.state, 3);
            CHECK_IS(pshm_lock_try(&peer.place->lock, &other), -EOWNERDEAD);
            CHECK(pshm_region_is_own(region));
            pshm_lock_release_unrepaired(&peer.place->lock, &other);
            atomic_store(&holder.state, 4);
        }
        CHECK(pthread_join(thread, &wrong) == 0);
        CHECK(wrong == NULL);
        if (ends) {
            CHECK_IS(pshm_lock_try(&peer.place->lock, &other), -EOWNERDEAD);
            pshm_lock_repair(&peer.place->lock);
            CHECK_IS(pshm_lock_release(&peer.place->lock, &other), 0);
            CHECK(pshm_region_is_own(region));
        }
        pshm_region_drop(region);
        unmake(&another);
    }
}

/* ---- a death ---- */

static int
lock_and_die(void *context)
{
    int rc = lock(context);
    CHECK(rc == 0 || rc == -EOWNERDEAD);
    (void)raise(SIGKILL);
    return 1;
}

static int
get_ownerdead(void *context)
{
    struct peer *peer = context;
    CHECK_IS(try(peer), -EOWNERDEAD);
    pshm_lock_release_unrepaired(&peer->place->lock, &peer->mstate);
    CHECK_IS(lock(peer), -EOWNERDEAD);
    pshm_lock_release_unrepaired(&peer->place->lock, &peer->mstate);
    return 0;
}

static void
every_owner_gets_eownerdead_before_the_repair(void)
{
    for (unsigned flags = 0; flags <= PSHM_RECURSIVE; flags++) {
        struct peer peer = make(flags);
        CHECK_IS(child_run(lock_and_die, &peer), -SIGKILL);
        CHECK(pshm_lock_held(&peer.place->lock));
        for (int i = 0; i < 3; i++) {
            CHECK_IS(child_run(get_ownerdead, &peer), 0);
            CHECK(!pshm_lock_held(&peer.place->lock));
            CHECK_IS(get_ownerdead(&peer), 0);
        }
        /* an owner that got -EOWNERDEAD dies without a repair */
        CHECK_IS(child_run(lock_and_die, &peer), -SIGKILL);
        CHECK_IS(child_run(get_ownerdead, &peer), 0);

        CHECK_IS(lock(&peer), -EOWNERDEAD);
        pshm_lock_repair(&peer.place->lock);
        CHECK_IS(unlock(&peer), 0);
        CHECK_IS(lock(&peer), 0);
        CHECK_IS(unlock(&peer), 0);
        unmake(&peer);
    }
}

/* An owner that does not get -EOWNERDEAD finds the two words equal. Otherwise
 * it repairs them, or leaves the repair to the next owner. */
static int
change_both_endlessly(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    for (;;) {
        int rc = random_below(8) == 0 ? try(peer) : lock(peer);
        if (rc == -EBUSY) {
            continue;
        }
        if (rc == -EOWNERDEAD) {
            (void)atomic_fetch_add(&place->owner_deaths, 1);
            if (random_below(2) == 0) {
                pshm_lock_release_unrepaired(&place->lock, &peer->mstate);
                continue;
            }
            place->second = place->first;
            pshm_lock_repair(&place->lock);
            (void)atomic_fetch_add(&place->repaired, 1);
            rc = 0;
        }
        if (!CHECK_IS(rc, 0) || !CHECK_IS(place->first, place->second)) {
            return 1;
        }
        place->first = place->first + 1;
        if (random_below(4) == 0) {
            (void)sched_yield();
        }
        place->second = place->first;
        (void)atomic_fetch_add(&place->steps, 1);
        if (!CHECK_IS(unlock(peer), 0)) {
            return 1;
        }
    }
}

static void
owner_without_an_error_finds_equal_words(void)
{
    struct peer peer = make(0);
    atomic_uint *steps = &peer.place->steps;
    pid_t steady = child_start(change_both_endlessly, &peer), victims[2];
    /* until a process has died with the lock held */
    for (int round = 0;
         round < ROUNDS(250) || atomic_load(&peer.place->owner_deaths) == 0;
         round++) {
        for (size_t i = 0; i < COUNT(victims); i++) {
            victims[i] = child_start(change_both_endlessly, &peer);
        }
        await(steps, atomic_load(steps) + 3);
        for (size_t i = 0; i < COUNT(victims); i++) {
            kill_within(victims[i], 200);
        }
    }
    await(steps, atomic_load(steps) + 10);
    child_kill(steady);
    int rc = lock(&peer);
    CHECK(rc == -EOWNERDEAD || peer.place->first == peer.place->second);
    CHECK(rc == 0 || rc == -EOWNERDEAD);
    CHECK_IS(unlock(&peer), 0);
    unmake(&peer);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(inconsistent_lock_has_a_dead_owner);
    RUN(owner_of_a_deallocated_object_counts_as_dead);
    RUN(object_is_deallocated_while_its_thread_lives);
    RUN(every_owner_gets_eownerdead_before_the_repair);
    RUN(owner_without_an_error_finds_equal_words);
    return finish();
}
