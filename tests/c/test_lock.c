#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/lock.h"
#include "posix/sync/orphan.h"

#include <sched.h>

/* A lock and what it protects: two words that are equal while it is free,
 * except after a death. */
struct place {
    struct pshm_lock lock;
    volatile long first, second;
    atomic_uint steps, told, repaired;
};

struct side {
    struct place *place;
    struct pshm_mutex_state mstate;
};

static struct side
make(unsigned flags)
{
    struct side side = {.place = shared_memory(PAGE)};
    CHECK_IS(pshm_lock_init(&side.place->lock, flags), 0);
    CHECK_IS(pshm_lock_open(&side.place->lock, flags, &side.mstate), 0);
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
    PATIENTLY(rc, pshm_lock_wait(&side->place->lock, &side->mstate,
                                 before_long()));
    return rc;
}

static int
try(struct side *side)
{
    return pshm_lock_try(&side->place->lock, &side->mstate);
}

static int
unlock(struct side *side)
{
    return pshm_lock_release(&side->place->lock, &side->mstate);
}

static int
count_under_it(void *context)
{
    struct side *side = context;
    for (int i = 0; i < ROUNDS(20000); i++) {
        int rc = i % 2 == 0 ? -EBUSY : try(side);
        if (!CHECK_IS(rc == -EBUSY ? lock(side) : rc, 0)) {
            return 1;
        }
        side->place->first = side->place->first + 1;
        CHECK_IS(unlock(side), 0);
    }
    return 0;
}

static void
only_one_has_it(void)
{
    for (unsigned flags = 0; flags <= PSHM_RECURSIVE; flags++) {
        struct side side = make(flags);
        together(4, count_under_it, &side);
        CHECK_IS(side.place->first, 4 * ROUNDS(20000));
        CHECK(!pshm_lock_held(&side.place->lock));
        unmake(&side);
    }
}

static int
find_it_taken(void *context)
{
    struct side *side = context;
    CHECK(pshm_lock_held(&side->place->lock));
    CHECK_IS(try(side), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(
        pshm_lock_wait(&side->place->lock, &side->mstate, start + 20 * MS),
        -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_lock_wait(&side->place->lock, &side->mstate, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(unlock(side), -EPERM);
    CHECK(pshm_lock_held(&side->place->lock));
    return 0;
}

static void
held_says_whether_somebody_has_it(void)
{
    struct side side = make(PSHM_RECURSIVE);
    CHECK(!pshm_lock_held(&side.place->lock));
    CHECK_IS(lock(&side), 0);
    CHECK_IS(try(&side), 0);
    CHECK_IS(child_run(find_it_taken, &side), 0);
    CHECK_IS(unlock(&side), 0);
    CHECK_IS(child_run(find_it_taken, &side), 0);
    CHECK_IS(unlock(&side), 0);
    CHECK(!pshm_lock_held(&side.place->lock));
    CHECK_IS(unlock(&side), -EPERM);
    CHECK(!pshm_lock_held(&side.place->lock));
    unmake(&side);
}

static void
kernel_without_robust_mutexes_is_told(void)
{
    struct side side = make(0);
    struct pshm_mutex_state mstate = {0};
    pshm_fault_arm("pthread_mutex_init", 1, PSHM_FAULT_FAIL, ENOTSUP);
    CHECK_IS(pshm_lock_open(&side.place->lock, 0, &mstate), -ENOTSUP);
    (void)pshm_fault_disarm();
    CHECK(mstate.note == NULL);
    unmake(&side);
}

static void
inconsistent_one_has_a_dead_owner_until_it_is_held(void)
{
    struct side side = make(0);
    CHECK(!pshm_lock_owner_died(&side.place->lock, &side.mstate));
    CHECK_IS(lock(&side), 0);
    pshm_lock_release_unrepaired(&side.place->lock, &side.mstate);
    CHECK(pshm_lock_owner_died(&side.place->lock, &side.mstate));
    CHECK_IS(lock(&side), -EOWNERDEAD);
    CHECK(!pshm_lock_owner_died(&side.place->lock, &side.mstate));
    pshm_lock_repair(&side.place->lock);
    CHECK_IS(unlock(&side), 0);
    CHECK(!pshm_lock_owner_died(&side.place->lock, &side.mstate));
    unmake(&side);
}

/* ---- an object that is gone ---- */

static int
is_told(void *context);

static void
owner_whose_object_is_gone_is_dead(void)
{
    for (unsigned flags = 0; flags <= PSHM_RECURSIVE; flags++) {
        struct side side = make(flags);
        struct pshm_mutex_state other = {0};
        CHECK_IS(pshm_lock_open(&side.place->lock, flags, &other), 0);
        CHECK_IS(pshm_lock_abandon(&side.place->lock, &side.mstate), 0);
        CHECK_IS(pshm_lock_try(&side.place->lock, &other), 0);
        CHECK_IS(pshm_lock_release(&side.place->lock, &other), 0);
        for (unsigned i = 0; i <= 2 * flags; i++) {
            CHECK_IS(lock(&side), 0);
        }
        CHECK_IS(pshm_lock_abandon(&side.place->lock, &side.mstate), 0);
        CHECK(pshm_lock_owner_died(&side.place->lock, &other));
        CHECK(!pshm_mutex_state_held(&side.mstate));
        /* A program without this library gets EOWNERDEAD, too. */
        CHECK_IS(pthread_mutex_trylock(&side.place->lock.mutex.mutex),
                 EOWNERDEAD);
        CHECK(pthread_mutex_consistent(&side.place->lock.mutex.mutex) == 0);
        CHECK(pthread_mutex_unlock(&side.place->lock.mutex.mutex) == 0);
        CHECK_IS(child_run(is_told, &side), 0);
        CHECK_IS(pshm_lock_try(&side.place->lock, &other), -EOWNERDEAD);
        pshm_lock_repair(&side.place->lock);
        CHECK_IS(pshm_lock_release(&side.place->lock, &other), 0);
        CHECK(!pshm_lock_owner_died(&side.place->lock, &other));
        unmake(&side);
    }
}

struct holder {
    struct side *side;
    struct side *another;
    atomic_uint state;
};

/* 1: has it; 2: its object is gone; 3: has used another one; 4: may end. */
static void *
hold_it_then_use_another(void *context)
{
    struct holder *holder = context;
    intptr_t wrong = lock(holder->side) != 0;
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
object_that_is_gone_while_its_thread_lives(void)
{
    for (int ends = 0; ends < 2; ends++) {
        check_about("ends %d", ends);
        struct side side = make(0), another = make(0);
        struct pshm_mutex_state other = {0};
        struct holder holder = {.side = &side,
                                .another = ends ? NULL : &another};
        pthread_t thread;
        void *wrong;
        struct pshm_region *region = pshm_region_new(side.place, PAGE);
        CHECK(pthread_create(&thread, NULL, hold_it_then_use_another, &holder)
              == 0);
        await(&holder.state, 1);
        CHECK_IS(pshm_lock_open(&side.place->lock, 0, &other), 0);
        CHECK_IS(pshm_lock_abandon(&side.place->lock, &side.mstate), -EBUSY);
        pshm_region_keep(region);
        pshm_orphan_keep(&side.place->lock.mutex, &side.mstate, region);
        CHECK_IS(pshm_lock_try(&side.place->lock, &other), -EINPROGRESS);
        CHECK_IS(pshm_lock_wait(&side.place->lock, &other, PSHM_NEVER),
                 -EINPROGRESS);
        CHECK(pshm_lock_owner_died(&side.place->lock, &other));
        CHECK(!pshm_region_is_own(region));
        atomic_store(&holder.state, 2);
        if (!ends) {
            await(&holder.state, 3);
            CHECK_IS(pshm_lock_try(&side.place->lock, &other), -EOWNERDEAD);
            CHECK(pshm_region_is_own(region));
            pshm_lock_release_unrepaired(&side.place->lock, &other);
            atomic_store(&holder.state, 4);
        }
        CHECK(pthread_join(thread, &wrong) == 0);
        CHECK(wrong == NULL);
        if (ends) {
            CHECK_IS(pshm_lock_try(&side.place->lock, &other), -EOWNERDEAD);
            pshm_lock_repair(&side.place->lock);
            CHECK_IS(pshm_lock_release(&side.place->lock, &other), 0);
            CHECK(pshm_region_is_own(region));
        }
        pshm_region_drop(region);
        unmake(&another);
    }
}

/* ---- turns ---- */

/* The next process is read under the lock. */
static int
take_odd_turns(void *context)
{
    struct side *side = context;
    for (long name_lock = 1; name_lock < ROUNDS(400);) {
        CHECK_IS(lock(side), 0);
        if (side->place->first == name_lock) {
            side->place->first = name_lock + 1;
            name_lock += 2;
        }
        CHECK_IS(unlock(side), 0);
        (void)usleep(1);
    }
    return 0;
}

static void
two_processes_take_turns(void)
{
    struct side side = make(0);
    pid_t child = child_start(take_odd_turns, &side);
    int64_t deadline = before_long();
    for (long name_lock = 0;
         name_lock < ROUNDS(400) && pshm_now() < deadline;) {
        CHECK_IS(lock(&side), 0);
        if (side.place->first == name_lock) {
            side.place->first = name_lock + 1;
            name_lock += 2;
        }
        CHECK_IS(unlock(&side), 0);
        (void)usleep(1);
    }
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(side.place->first, ROUNDS(400));
    unmake(&side);
}

/* ---- a death ---- */

static int
die_with_it(void *context)
{
    int rc = lock(context);
    CHECK(rc == 0 || rc == -EOWNERDEAD);
    (void)raise(SIGKILL);
    return 1;
}

static int
is_told(void *context)
{
    struct side *side = context;
    CHECK_IS(try(side), -EOWNERDEAD);
    pshm_lock_release_unrepaired(&side->place->lock, &side->mstate);
    CHECK_IS(lock(side), -EOWNERDEAD);
    pshm_lock_release_unrepaired(&side->place->lock, &side->mstate);
    return 0;
}

static void
everyone_is_told_of_a_death_until_a_repair(void)
{
    for (unsigned flags = 0; flags <= PSHM_RECURSIVE; flags++) {
        struct side side = make(flags);
        CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
        CHECK(pshm_lock_held(&side.place->lock));
        for (int i = 0; i < 3; i++) {
            CHECK_IS(child_run(is_told, &side), 0);
            CHECK(!pshm_lock_held(&side.place->lock));
            CHECK_IS(is_told(&side), 0);
        }
        /* also after the death of an owner that had got it */
        CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
        CHECK_IS(child_run(is_told, &side), 0);

        CHECK_IS(lock(&side), -EOWNERDEAD);
        pshm_lock_repair(&side.place->lock);
        CHECK_IS(unlock(&side), 0);
        CHECK_IS(lock(&side), 0);
        CHECK_IS(unlock(&side), 0);
        unmake(&side);
    }
}

static int
repair_and_die(void *context)
{
    struct side *side = context;
    CHECK_IS(lock(side), -EOWNERDEAD);
    pshm_lock_repair(&side->place->lock);
    (void)raise(SIGKILL);
    return 1;
}

static void
death_after_a_repair_is_told_too(void)
{
    struct side side = make(0);
    CHECK_IS(child_run(die_with_it, &side), -SIGKILL);
    CHECK_IS(child_run(repair_and_die, &side), -SIGKILL);
    CHECK_IS(child_run(is_told, &side), 0);
    unmake(&side);
}

/* An owner without an error finds the two words equal. After an error it
 * repairs them, or leaves the repair to the next owner. */
static int
change_both_for_ever(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    for (;;) {
        int rc = random_below(8) == 0 ? try(side) : lock(side);
        if (rc == -EBUSY) {
            continue;
        }
        if (rc == -EOWNERDEAD) {
            (void)atomic_fetch_add(&place->told, 1);
            if (random_below(2) == 0) {
                pshm_lock_release_unrepaired(&place->lock, &side->mstate);
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
        if (!CHECK_IS(unlock(side), 0)) {
            return 1;
        }
    }
}

static void
whoever_is_not_told_finds_all_in_order(void)
{
    struct side side = make(0);
    atomic_uint *steps = &side.place->steps;
    pid_t steady = child_start(change_both_for_ever, &side), victims[2];
    /* and until one has died with it */
    for (int round = 0;
         round < ROUNDS(250) || atomic_load(&side.place->told) == 0;
         round++) {
        for (size_t i = 0; i < COUNT(victims); i++) {
            victims[i] = child_start(change_both_for_ever, &side);
        }
        await(steps, atomic_load(steps) + 3);
        for (size_t i = 0; i < COUNT(victims); i++) {
            kill_within(victims[i], 200);
        }
    }
    await(steps, atomic_load(steps) + 10);
    kill_now(steady);
    int rc = lock(&side);
    CHECK(rc == -EOWNERDEAD || side.place->first == side.place->second);
    CHECK(rc == 0 || rc == -EOWNERDEAD);
    CHECK_IS(unlock(&side), 0);
    unmake(&side);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(only_one_has_it);
    RUN(held_says_whether_somebody_has_it);
    RUN(kernel_without_robust_mutexes_is_told);
    RUN(inconsistent_one_has_a_dead_owner_until_it_is_held);
    RUN(owner_whose_object_is_gone_is_dead);
    RUN(object_that_is_gone_while_its_thread_lives);
    RUN(two_processes_take_turns);
    RUN(everyone_is_told_of_a_death_until_a_repair);
    RUN(death_after_a_repair_is_told_too);
    RUN(whoever_is_not_told_finds_all_in_order);
    return finish();
}
