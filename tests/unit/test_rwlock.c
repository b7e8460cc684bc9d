#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/rwlock.h"

#include <pthread.h>
#include <sched.h>

/* The turnstile, and the protected data: two words that are equal while no
 * thread writes, except after a death. */
struct place {
    struct pshm_lock turnstile;
    volatile long first, second;
    atomic_uint readers, writers, most_readers;
    atomic_uint steps, owner_deaths, stopped;
};

/* The word `writing` is alone in its page, so that a store to it can be
 * caught. The slots begin the next page. */
struct peer {
    struct place *place;
    struct pshm_lock *turnstile;
    struct pshm_rwlock *rw;
    struct pshm_rw_state mstate;
};

static char *
page_of(const struct peer *peer, size_t which)
{
    return (char *)peer->place + which * PAGE;
}

static struct peer
make(void)
{
    struct peer peer = {.place = shared_memory(4 * PAGE)};
    peer.turnstile = &peer.place->turnstile;
    peer.rw = (struct pshm_rwlock *)(void *)(page_of(&peer, 2)
                                             - offsetof(struct pshm_rwlock,
                                                        slots));
    CHECK_IS(pshm_rw_init(peer.turnstile, peer.rw), 0);
    CHECK_IS(pshm_rw_open(peer.turnstile, peer.rw, &peer.mstate), 0);
    return peer;
}

static void
unmake(struct peer *peer)
{
    CHECK(munmap(peer->place, 4 * PAGE) == 0);
}

static int
read_until(struct peer *peer, enum pshm_rw_patience patience, int64_t deadline,
           int *slot)
{
    struct pshm_rw_attempt attempt = {0};
    int rc;
    PATIENTLY(rc, pshm_rw_read(peer->turnstile, peer->rw, &peer->mstate,
                               &attempt, patience, deadline, slot));
    if (rc == -EOWNERDEAD) {
        pshm_rw_undo(peer->turnstile, peer->rw, &peer->mstate,
                     &attempt);
    }
    return rc;
}

static int
write_until(struct peer *peer, enum pshm_rw_patience patience,
            int64_t deadline)
{
    struct pshm_rw_attempt attempt = {0};
    int rc;
    PATIENTLY(rc, pshm_rw_write(peer->turnstile, peer->rw,
                                &peer->mstate, &attempt, patience, deadline));
    if (rc == -EOWNERDEAD) {
        pshm_rw_undo(peer->turnstile, peer->rw, &peer->mstate,
                     &attempt);
    }
    return rc;
}

static bool
is_held(const struct pshm_rw_state *mstate)
{
    bool held = pshm_mutex_state_held(&mstate->turnstile);
    for (int i = 0; i < PSHM_SLOTS; i++) {
        held = held || pshm_mutex_state_held(&mstate->slots[i]);
    }
    return held;
}

static int
begin_to_read(struct peer *peer, int *slot)
{
    return read_until(peer, PSHM_RW_WAIT, before_long(), slot);
}

static int
begin_to_write(struct peer *peer)
{
    return write_until(peer, PSHM_RW_WAIT, before_long());
}

/* Acquire it also if the last owner died. Returns 0; or -EOWNERDEAD: acquired,
 * to be repaired. */
static int
begin_to_repair(struct peer *peer)
{
    struct pshm_rw_attempt attempt = {0};
    int rc, first;
    PATIENTLY(first, pshm_rw_write(peer->turnstile, peer->rw,
                                   &peer->mstate, &attempt, PSHM_RW_WAIT,
                                   before_long()));
    if (first != -EOWNERDEAD) {
        return first;
    }
    PATIENTLY(rc, pshm_rw_write(peer->turnstile, peer->rw,
                                &peer->mstate, &attempt, PSHM_RW_WAIT,
                                before_long()));
    return rc == 0 ? first : rc;
}

static int
stop_reading(struct peer *peer, int slot)
{
    return pshm_rw_leave(peer->rw, &peer->mstate, slot);
}

static int
stop_writing(struct peer *peer)
{
    return pshm_rw_done(peer->turnstile, peer->rw, &peer->mstate);
}

static void
repair_it(struct peer *peer)
{
    CHECK_IS(begin_to_repair(peer), -EOWNERDEAD);
    pshm_rw_repair(peer->turnstile);
    CHECK_IS(stop_writing(peer), 0);
}

/* ---- threads that may hold it together ---- */

static int
can_read(void *context)
{
    int slot;
    CHECK_IS(read_until(context, PSHM_RW_PASS, 0, &slot), 0);
    CHECK_IS(pshm_rw_my_slot(&((struct peer *)context)->mstate), slot);
    CHECK_IS(stop_reading(context, slot), 0);
    return 0;
}

static int
can_write(void *context)
{
    struct peer *peer = context;
    CHECK_IS(write_until(peer, PSHM_RW_PASS, 0), 0);
    CHECK(pshm_rw_writes(&peer->mstate));
    CHECK_IS(stop_writing(peer), 0);
    CHECK(!is_held(&peer->mstate));
    return 0;
}

static int
cannot_write(void *context)
{
    struct peer *peer = context;
    CHECK_IS(write_until(peer, PSHM_RW_PASS, 0), -EBUSY);
    CHECK_IS(write_until(peer, PSHM_RW_TRY, 0), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(write_until(peer, PSHM_RW_WAIT, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK(!is_held(&peer->mstate));
    CHECK_IS(stop_writing(peer), -EPERM);
    return 0;
}

static int
cannot_read(void *context)
{
    struct peer *peer = context;
    int slot;
    CHECK_IS(read_until(peer, PSHM_RW_PASS, 0, &slot), -EBUSY);
    CHECK_IS(read_until(peer, PSHM_RW_TRY, 0, &slot), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(read_until(peer, PSHM_RW_WAIT, start + 20 * MS, &slot),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK(!is_held(&peer->mstate));
    CHECK_IS(pshm_rw_my_slot(&peer->mstate), -1);
    return 0;
}

static void
readers_keep_writers_out_but_not_readers(void)
{
    struct peer peer = make();
    int slot, another;
    CHECK_IS(begin_to_read(&peer, &slot), 0);
    CHECK(is_held(&peer.mstate));
    CHECK(!pshm_rw_writes(&peer.mstate));
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(child_run(cannot_write, &peer), 0);
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(begin_to_read(&peer, &another), 0);
    CHECK(another != slot);
    CHECK_IS(stop_reading(&peer, slot), 0);
    CHECK_IS(stop_reading(&peer, slot), -EPERM);
    CHECK_IS(pshm_rw_my_slot(&peer.mstate), another);
    CHECK_IS(child_run(cannot_write, &peer), 0);
    CHECK_IS(stop_reading(&peer, another), 0);
    CHECK(!is_held(&peer.mstate));
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

static void
writer_is_alone(void)
{
    struct peer peer = make();
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK(pshm_rw_writes(&peer.mstate));
    CHECK_IS(child_run(cannot_write, &peer), 0);
    CHECK_IS(child_run(cannot_read, &peer), 0);
    CHECK_IS(stop_writing(&peer), 0);
    CHECK_IS(stop_writing(&peer), -EPERM);
    CHECK_IS(child_run(can_write, &peer), 0);
    CHECK_IS(child_run(can_read, &peer), 0);
    unmake(&peer);
}

static void
thread_does_not_wait_for_itself(void)
{
    struct peer peer = make();
    int slot, other;
    CHECK_IS(begin_to_read(&peer, &slot), 0);
    CHECK_IS(write_until(&peer, PSHM_RW_WAIT, PSHM_NEVER), -EDEADLK);
    CHECK_IS(write_until(&peer, PSHM_RW_WAIT, in_ms(5)), -ETIMEDOUT);
    CHECK_IS(pshm_rw_my_slot(&peer.mstate), slot);
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(stop_reading(&peer, slot), 0);
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK_IS(write_until(&peer, PSHM_RW_WAIT, PSHM_NEVER), -EDEADLK);
    CHECK_IS(read_until(&peer, PSHM_RW_WAIT, PSHM_NEVER, &other), -EDEADLK);
    CHECK_IS(read_until(&peer, PSHM_RW_WAIT, in_ms(5), &other), -ETIMEDOUT);
    CHECK(pshm_rw_writes(&peer.mstate));
    CHECK_IS(stop_writing(&peer), 0);
    unmake(&peer);
}

static void
writer_does_not_read_beside_itself(void)
{
    struct peer peer = make();
    int slot;
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK_IS(read_until(&peer, PSHM_RW_TRY, 0, &slot), -EBUSY);
    CHECK_IS(write_until(&peer, PSHM_RW_TRY, 0), -EBUSY);
    CHECK_IS(pshm_rw_my_slot(&peer.mstate), -1);
    CHECK(pshm_rw_writes(&peer.mstate));
    CHECK_IS(stop_writing(&peer), 0);
    unmake(&peer);
}

static void
readers_are_counted(void)
{
    struct peer peer = make();
    int slots[3];
    for (int i = 0; i < 3; i++) {
        CHECK_IS(pshm_rw_readers(peer.rw), i);
        CHECK_IS(begin_to_read(&peer, &slots[i]), 0);
    }
    for (int i = 3; i > 0; i--) {
        CHECK_IS(pshm_rw_readers(peer.rw), i);
        CHECK_IS(stop_reading(&peer, slots[i - 1]), 0);
    }
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK_IS(pshm_rw_readers(peer.rw), -1);
    CHECK_IS(stop_writing(&peer), 0);
    CHECK_IS(pshm_rw_readers(peer.rw), 0);
    unmake(&peer);
}

static void
kernel_without_robust_mutexes_is_an_error(void)
{
    struct peer peer = make();
    struct pshm_rw_state mstate = {0};
    for (int nth = 1; nth <= 1 + PSHM_SLOTS; nth++) {
        check_about("mutex %d", nth);
        pshm_fault_arm("pthread_mutex_init", nth, PSHM_FAULT_FAIL, ENOTSUP);
        CHECK_IS(pshm_rw_open(peer.turnstile, peer.rw, &mstate), -ENOTSUP);
        pshm_fault_arm("pthread_mutex_init", nth, PSHM_FAULT_FAIL, ENOTSUP);
        CHECK_IS(pshm_rw_init(peer.turnstile, peer.rw), -ENOTSUP);
        CHECK_IS(pshm_fault_disarm(), nth);
    }
    unmake(&peer);
}

/* ---- a reader that passes the turnstile ---- */

struct passing {
    struct peer peer;
    pthread_t thread;
    atomic_uint state;
    int rc;
};

/* 1: holds the turnstile; 2: must release it; 3: has released it. */
static void *
pass_through_the_turnstile(void *context)
{
    struct passing *passing = context;
    struct peer *peer = &passing->peer;
    intptr_t wrong =
        pshm_lock_try(peer->turnstile, &peer->mstate.turnstile) != 0;
    atomic_store(&passing->state, 1);
    while (atomic_load(&passing->state) != 2) {
        (void)usleep(20);
    }
    wrong |= pshm_lock_release(peer->turnstile, &peer->mstate.turnstile) != 0;
    atomic_store(&passing->state, 3);
    return (void *)wrong;
}

static void
begin_to_pass(void *context)
{
    struct passing *passing = context;
    atomic_store(&passing->state, 0);
    CHECK(pthread_create(&passing->thread, NULL, pass_through_the_turnstile,
                         passing)
          == 0);
    await(&passing->state, 1);
}

static void
write_in_passing(void *context)
{
    struct passing *passing = context;
    passing->rc = write_until(&passing->peer, PSHM_RW_PASS, 0);
}

static void
end_to_pass(void *context)
{
    struct passing *passing = context;
    void *wrong;
    atomic_store(&passing->state, 2);
    CHECK(pthread_join(passing->thread, &wrong) == 0);
    CHECK(wrong == NULL);
}

static void
write_waited_or_failed(void *context)
{
    struct passing *passing = context;
    CHECK(passing->rc == 0 || passing->rc == -EBUSY);
    if (passing->rc == 0) {
        CHECK_IS(stop_writing(&passing->peer), 0);
    }
    CHECK(!is_held(&passing->peer.mstate));
}

static void
writer_waits_for_a_reader_in_the_turnstile(void)
{
    struct passing passing = {.peer = make()};
    meet_at_each_step(&(struct meeting){begin_to_pass, write_in_passing,
                                        end_to_pass,
                                        write_waited_or_failed},
                      &passing);
    begin_to_pass(&passing);
    int64_t start = pshm_now();
    write_in_passing(&passing);
    CHECK_IS(passing.rc, -EBUSY);
    CHECK(took(start, 1));
    end_to_pass(&passing);
    unmake(&passing.peer);
}

/* ---- a deallocated object ---- */

static struct pshm_owner *
note_of(struct peer *peer, int slot)
{
    return peer->mstate.slots[slot].note;
}

/* The slot is held by another thread and orphaned. */
static void
make_an_orphan(struct peer *peer, int slot)
{
    atomic_store(pshm_robust_word(&peer->rw->slots[slot]),
                 (unsigned)getppid());
    atomic_store(&note_of(peer, slot)->thread, PSHM_ORPHANED);
}

static void
orphaned_slots_exclude_readers_but_not_writers(void)
{
    struct peer peer = make();
    int slot;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(&peer, i);
    }
    CHECK_IS(read_until(&peer, PSHM_RW_TRY, 0, &slot), -EBUSY);
    CHECK_IS(read_until(&peer, PSHM_RW_WAIT, in_ms(5), &slot), -ETIMEDOUT);
    CHECK_IS(pshm_rw_readers(peer.rw), 0);
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK_IS(stop_writing(&peer), 0);
    unmake(&peer);
}

static void
begin_with_a_reader(void *context)
{
    struct passing *passing = context;
    atomic_store(pshm_robust_word(&passing->peer.rw->slots[0]),
                 (unsigned)getppid());
    atomic_store(&note_of(&passing->peer, 0)->thread, (unsigned)getppid());
}

static void
orphan_the_reader(void *context)
{
    struct passing *passing = context;
    make_an_orphan(&passing->peer, 0);
}

static void
slot_may_be_orphaned_while_a_writer_waits(void)
{
    struct passing passing = {.peer = make()};
    meet_at_each_step(&(struct meeting){begin_with_a_reader, write_in_passing,
                                        orphan_the_reader,
                                        write_waited_or_failed},
                      &passing);
    unmake(&passing.peer);
}

static void
begin_with_orphaned_slots(void *context)
{
    struct passing *passing = context;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(&passing->peer, i);
    }
    begin_with_a_reader(passing);
}

static void
read_with_timeout(void *context)
{
    struct passing *passing = context;
    int slot;
    CHECK_IS(read_until(&passing->peer, PSHM_RW_WAIT, in_ms(1), &slot),
             -ETIMEDOUT);
}

static void
nothing_is_held(void *context)
{
    struct passing *passing = context;
    CHECK(!is_held(&passing->peer.mstate));
}

static void
slot_may_be_orphaned_while_a_reader_waits(void)
{
    struct passing passing = {.peer = make()};
    meet_at_each_step(&(struct meeting){begin_with_orphaned_slots,
                                        read_with_timeout,
                                        orphan_the_reader,
                                        nothing_is_held},
                      &passing);
    unmake(&passing.peer);
}

/* The thread that holds an orphaned slot ends while a reader waits. */
static void
free_the_first_slot(void *context)
{
    struct passing *passing = context;
    int first = (int)(pshm_thread()->number % PSHM_SLOTS);
    atomic_store(pshm_robust_word(&passing->peer.rw->slots[first]), 0);
}

static void
released_slot_of_an_orphan_is_reused(void)
{
    struct passing passing = {.peer = make()};
    struct peer *peer = &passing.peer;
    int slot;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(peer, i);
    }
    pshm_fault_hook(free_the_first_slot, &passing);
    pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(begin_to_read(peer, &slot), 0);
    CHECK(pshm_fault_disarm() >= 1);
    CHECK_IS(slot, (int)(pshm_thread()->number % PSHM_SLOTS));
    CHECK_IS(stop_reading(peer, slot), 0);
    unmake(peer);
}

struct held {
    int count;
    const struct pshm_robust *last;
};

static void
count_held(void *context, struct pshm_robust *r,
           const struct pshm_mutex_state *mstate)
{
    struct held *held = context;
    CHECK(pshm_mutex_state_held(mstate));
    held->count++;
    held->last = r;
}

static void *
read_or_write_and_wait(void *context)
{
    struct passing *passing = context;
    struct peer *peer = &passing->peer;
    intptr_t wrong = passing->rc < 0 ? begin_to_write(peer) != 0
                                     : begin_to_read(peer, &passing->rc) != 0;
    atomic_store(&passing->state, 1);
    while (atomic_load(&passing->state) != 2) {
        (void)usleep(100);
    }
    return (void *)wrong;
}

/* The mutex of a thread that reads or writes is still in its list. */
static void
held_mutexes_are_reported(void)
{
    for (int writes = 0; writes < 2; writes++) {
        struct passing passing = {.peer = make(), .rc = -writes};
        struct peer *peer = &passing.peer;
        struct held held = {0};
        pshm_rw_abandon(peer->turnstile, peer->rw, &peer->mstate, count_held,
                        &held);
        CHECK_IS(held.count, 0);
        CHECK(pthread_create(&passing.thread, NULL, read_or_write_and_wait,
                             &passing)
              == 0);
        await(&passing.state, 1);
        pshm_rw_abandon(peer->turnstile, peer->rw, &peer->mstate, count_held,
                        &held);
        CHECK_IS(held.count, 1);
        CHECK(held.last == (writes ? &peer->turnstile->mutex
                                   : &peer->rw->slots[passing.rc]));
        end_to_pass(&passing);
        unmake(peer);
    }
}

#ifdef PSHM_ROBUST_LINKS

/* Other threads may have read or written at the same time. */
static void
overwritten_turnstile_becomes_inconsistent(void)
{
    struct peer peer = make();
    CHECK_IS(begin_to_write(&peer), 0);
    peer.turnstile->mutex.mutex.__data.__kind ^= 2;
    CHECK_IS(stop_writing(&peer), -EBADMSG);
    CHECK(!pshm_rw_writes(&peer.mstate));
    peer.turnstile->mutex.mutex.__data.__kind ^= 2;
    repair_it(&peer);
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

#endif

static void *
check_not_owner(void *context)
{
    struct peer *peer = context;
    int slot;
    intptr_t wrong = pshm_rw_writes(&peer->mstate)
                     || !is_held(&peer->mstate)
                     || stop_writing(peer) != -EPERM
                     || write_until(peer, PSHM_RW_PASS, 0) != -EBUSY
                     || read_until(peer, PSHM_RW_PASS, 0, &slot) != -EBUSY;
    return (void *)wrong;
}

static void
threads_are_distinguished(void)
{
    struct peer peer = make();
    pthread_t thread;
    void *wrong;
    CHECK_IS(begin_to_write(&peer), 0);
    CHECK(pthread_create(&thread, NULL, check_not_owner, &peer) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    CHECK_IS(stop_writing(&peer), 0);
    unmake(&peer);
}

static void
number_of_slots_is_limited(void)
{
    struct peer peer = make();
    int slots[PSHM_SLOTS], one_more = -1;
    bool given[PSHM_SLOTS] = {false};
    for (int i = 0; i < PSHM_SLOTS; i++) {
        CHECK_IS(begin_to_read(&peer, &slots[i]), 0);
        CHECK(slots[i] >= 0 && slots[i] < PSHM_SLOTS && !given[slots[i]]);
        given[slots[i]] = true;
    }
    CHECK_IS(child_run(cannot_read, &peer), 0);
    CHECK_IS(read_until(&peer, PSHM_RW_PASS, 0, &one_more), -EBUSY);
    CHECK_IS(read_until(&peer, PSHM_RW_WAIT, in_ms(5), &one_more), -ETIMEDOUT);
    CHECK_IS(read_until(&peer, PSHM_RW_WAIT, PSHM_NEVER, &one_more), -EAGAIN);
    CHECK_IS(stop_reading(&peer, slots[7]), 0);
    CHECK_IS(child_run(can_read, &peer), 0);
    for (int i = 0; i < PSHM_SLOTS; i++) {
        CHECK_IS(stop_reading(&peer, slots[i]), i == 7 ? -EPERM : 0);
    }
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

/* The attempt fails at the last slot. */
static void
failed_attempt_releases_everything(void)
{
    struct peer peer = make();
    struct pshm_rw_attempt attempt = {0};
    struct pshm_robust *last = &peer.rw->slots[PSHM_SLOTS - 1];
    struct pshm_mutex_state *mstate = &peer.mstate.slots[PSHM_SLOTS - 1];
    CHECK_IS(pshm_robust_try(last, mstate), 0);
    CHECK_IS(pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate, &attempt,
                           PSHM_RW_WAIT, PSHM_NEVER),
             -EDEADLK);
    CHECK(!attempt.turnstile);
    CHECK_IS(attempt.slots, 0);
    CHECK_IS(pshm_robust_unlock(last, mstate), 0);
    CHECK(!is_held(&peer.mstate));
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

static int
read_until_stopped(void *context)
{
    struct peer *peer = context;
    int slot;
    CHECK_IS(begin_to_read(peer, &slot), 0);
    (void)atomic_fetch_add(&peer->place->steps, 1);
    while (atomic_load(&peer->place->stopped) == 0) {
        (void)usleep(100);
    }
    CHECK_IS(stop_reading(peer, slot), 0);
    return 0;
}

static void
writer_that_waits_keeps_new_readers_out(void)
{
    struct peer peer = make();
    struct pshm_rw_attempt attempt = {0};
    pid_t reader = child_start(read_until_stopped, &peer);
    await(&peer.place->steps, 1);
    int64_t start = pshm_now();
    CHECK_IS(pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate,
                           &attempt, PSHM_RW_WAIT, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK(attempt.turnstile);
    CHECK(!pshm_rw_writes(&peer.mstate));
    CHECK_IS(child_run(cannot_read, &peer), 0);
    CHECK_IS(child_run(cannot_write, &peer), 0);
    /* the writer may stop waiting */
    pshm_rw_undo(peer.turnstile, peer.rw, &peer.mstate, &attempt);
    CHECK(!attempt.turnstile);
    CHECK(!is_held(&peer.mstate));
    CHECK_IS(child_run(can_read, &peer), 0);
    /* or continue */
    CHECK_IS(pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate,
                           &attempt, PSHM_RW_WAIT, PSHM_NEVER),
             -EINTR);
    atomic_store(&peer.place->stopped, 1);
    int rc;
    PATIENTLY(rc, pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate,
                                &attempt, PSHM_RW_WAIT, before_long()));
    CHECK_IS(rc, 0);
    CHECK_IS(stop_writing(&peer), 0);
    CHECK_IS(child_wait(reader), 0);
    unmake(&peer);
}

/* ---- many readers and writers ---- */

static int
read_and_write(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    for (int i = 0; i < ROUNDS(1500); i++) {
        int slot;
        CHECK_IS(begin_to_read(peer, &slot), 0);
        unsigned readers = atomic_fetch_add(&place->readers, 1) + 1;
        if (readers > atomic_load(&place->most_readers)) {
            atomic_store(&place->most_readers, readers);
        }
        CHECK_IS(atomic_load(&place->writers), 0);
        CHECK_IS(place->first, place->second);
        (void)atomic_fetch_sub(&place->readers, 1);
        CHECK_IS(stop_reading(peer, slot), 0);
        if (i % 4 == 0) {
            CHECK_IS(begin_to_write(peer), 0);
            CHECK_IS(atomic_fetch_add(&place->writers, 1), 0);
            CHECK_IS(atomic_load(&place->readers), 0);
            place->first = place->first + 1;
            place->second = place->second + 1;
            (void)atomic_fetch_sub(&place->writers, 1);
            CHECK_IS(stop_writing(peer), 0);
        }
    }
    return 0;
}

static void
many_readers_or_one_writer(void)
{
    struct peer peer = make();
    together(4, read_and_write, &peer);
    CHECK_IS(peer.place->first, 4 * ((ROUNDS(1500) + 3) / 4));
    CHECK_IS(peer.place->second, peer.place->first);
    unmake(&peer);
}

/* ---- a death ---- */

static int
read_and_die(void *context)
{
    int slot;
    CHECK_IS(begin_to_read(context, &slot), 0);
    (void)raise(SIGKILL);
    return 1;
}

static void
slot_of_a_dead_reader_is_free(void)
{
    struct peer peer = make();
    for (int i = 0; i < 2 * PSHM_SLOTS; i++) {
        CHECK_IS(child_run(read_and_die, &peer), -SIGKILL);
    }
    CHECK_IS(child_run(can_write, &peer), 0);
    CHECK_IS(child_run(read_and_die, &peer), -SIGKILL);
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

static int
write_and_die(void *context)
{
    CHECK_IS(begin_to_write(context), 0);
    (void)raise(SIGKILL);
    return 1;
}

static int
repair_and_die(void *context)
{
    CHECK_IS(begin_to_repair(context), -EOWNERDEAD);
    (void)raise(SIGKILL);
    return 1;
}

static int
release_without_repair(void *context)
{
    struct peer *peer = context;
    CHECK_IS(begin_to_repair(peer), -EOWNERDEAD);
    CHECK(pshm_rw_writes(&peer->mstate));
    pshm_rw_release_unrepaired(peer->turnstile, peer->rw, &peer->mstate);
    CHECK(!is_held(&peer->mstate));
    return 0;
}

static int
get_ownerdead(void *context)
{
    struct peer *peer = context;
    int slot;
    for (int how = PSHM_RW_TRY; how <= PSHM_RW_WAIT; how++) {
        CHECK_IS(read_until(peer, how, before_long(), &slot), -EOWNERDEAD);
        CHECK_IS(write_until(peer, how, before_long()), -EOWNERDEAD);
    }
    CHECK(!is_held(&peer->mstate));
    return 0;
}

static void
every_owner_gets_eownerdead_before_the_repair(void)
{
    struct peer peer = make();
    CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
    CHECK_IS(child_run(get_ownerdead, &peer), 0);
    CHECK_IS(get_ownerdead(&peer), 0);
    CHECK_IS(child_run(release_without_repair, &peer), 0);
    CHECK_IS(child_run(get_ownerdead, &peer), 0);
    CHECK_IS(child_run(repair_and_die, &peer), -SIGKILL);
    CHECK_IS(child_run(get_ownerdead, &peer), 0);
    repair_it(&peer);
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

/* The owner repairs right after the death, before another thread got
 * -EOWNERDEAD. */
static void
first_owner_after_a_death_may_repair(void)
{
    struct peer peer = make();
    CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
    CHECK_IS(child_run(repair_and_die, &peer), -SIGKILL);
    repair_it(&peer);
    CHECK_IS(child_run(can_read, &peer), 0);
    unmake(&peer);
}

static void
failed_attempt_to_repair_leaves_the_error(void)
{
    struct peer peer = make();
    struct pshm_rw_attempt attempt = {0};
    struct pshm_robust *mutex = &peer.rw->slots[5];
    CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
    CHECK_IS(pshm_robust_try(mutex, &peer.mstate.slots[5]), 0);
    CHECK_IS(pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate, &attempt,
                           PSHM_RW_WAIT, before_long()),
             -EOWNERDEAD);
    CHECK(attempt.turnstile);
    int rc = pshm_rw_write(peer.turnstile, peer.rw, &peer.mstate, &attempt,
                           PSHM_RW_PASS, 0);
    /* this thread holds the slot */
    CHECK(rc == -EDEADLK || rc == -EBUSY);
    CHECK(!attempt.turnstile);
    CHECK_IS(pshm_robust_unlock(mutex, &peer.mstate.slots[5]), 0);
    CHECK_IS(get_ownerdead(&peer), 0);
    repair_it(&peer);
    unmake(&peer);
}

static int
wait_to_write(void *context)
{
    struct peer *peer = context;
    (void)atomic_fetch_add(&peer->place->steps, 1);
    (void)begin_to_write(peer);
    return 1;
}

/* The writer holds the turnstile and some slots, but has not written. */
static void
death_of_a_waiting_writer_is_not_an_error(void)
{
    struct peer peer = make();
    int slot;
    CHECK_IS(begin_to_read(&peer, &slot), 0);
    pid_t child = child_start(wait_to_write, &peer);
    await(&peer.place->steps, 1);
    while (pshm_robust_try(&peer.turnstile->mutex, &peer.mstate.turnstile)
           != -EBUSY) {
        (void)pshm_robust_unlock(&peer.turnstile->mutex,
                                 &peer.mstate.turnstile);
        (void)usleep(100);
    }
    (void)usleep(2000);
    child_kill(child);
    CHECK_IS(child_run(can_read, &peer), 0);
    CHECK_IS(stop_reading(&peer, slot), 0);
    CHECK_IS(child_run(can_write, &peer), 0);
    unmake(&peer);
}

/* ---- a death at the store to `writing` ---- */

static char *trapped, *trapped_next;

/* Die instead of the store; or allow it, and die at the next store, to the
 * other page. The kernel then marks the mutexes in the pages that it can
 * write. */
static void
at_a_store(int number)
{
    (void)number;
    (void)mprotect(trapped, PAGE, PROT_READ | PROT_WRITE);
    if (trapped_next == NULL) {
        (void)kill(getpid(), SIGKILL);
    }
    (void)mprotect(trapped_next, PAGE, PROT_READ);
    trapped = trapped_next;
    trapped_next = NULL;
}

enum { AT_THE_STORE = -1, TURNSTILE_PAGE = 0 };

/* after: the page of the next store. */
static void
die_at_writing(const struct peer *peer, int after)
{
    struct sigaction action = {.sa_handler = at_a_store};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    trapped = page_of(peer, 1);
    trapped_next = after == AT_THE_STORE ? NULL
                                         : page_of(peer, (size_t)after);
    CHECK(mprotect(trapped, PAGE, PROT_READ) == 0);
}

static void
write_without_a_trap(struct peer *peer, int after)
{
    (void)after;
    (void)write_and_die(peer);
}

/* Each of the others dies at a store to `writing`. */
static void
set_writing(struct peer *peer, int after)
{
    die_at_writing(peer, after);
    (void)begin_to_write(peer);
}

static void
clear_writing(struct peer *peer, int after)
{
    CHECK_IS(begin_to_write(peer), 0);
    die_at_writing(peer, after);
    (void)stop_writing(peer);
}

static void
end_the_repair(struct peer *peer, int after)
{
    CHECK_IS(begin_to_repair(peer), -EOWNERDEAD);
    pshm_rw_repair(peer->turnstile);
    die_at_writing(peer, after);
    (void)stop_writing(peer);
}

static void
undo_the_attempt(struct peer *peer, int after)
{
    struct pshm_rw_attempt attempt = {0};
    CHECK_IS(pshm_rw_write(peer->turnstile, peer->rw, &peer->mstate, &attempt,
                           PSHM_RW_PASS, 0),
             -EOWNERDEAD);
    die_at_writing(peer, after);
    pshm_rw_undo(peer->turnstile, peer->rw, &peer->mstate, &attempt);
}

static void
release_unrepaired(struct peer *peer, int after)
{
    CHECK_IS(begin_to_repair(peer), -EOWNERDEAD);
    die_at_writing(peer, after);
    pshm_rw_release_unrepaired(peer->turnstile, peer->rw, &peer->mstate);
}

struct death {
    struct peer *peer;
    void (*call)(struct peer *peer, int after);
    int after;
};

static int
die_in_call(void *context)
{
    struct death *death = context;
    death->call(death->peer, death->after);
    return 1;
}

static void
only_a_death_while_writing_is_an_error(void)
{
    static const struct {
        void (*call)(struct peer *peer, int after);
        int after;
        bool inconsistent;              /* before the death */
        bool is_error;                  /* for the next owner */
    } cases[] = {
        {set_writing, AT_THE_STORE, false, false},
        {write_without_a_trap, AT_THE_STORE, false, true},
        {clear_writing, AT_THE_STORE, false, true},
        {clear_writing, TURNSTILE_PAGE, false, false},
        {end_the_repair, AT_THE_STORE, true, true},
        {end_the_repair, TURNSTILE_PAGE, true, false},
        {undo_the_attempt, AT_THE_STORE, true, true},
        {undo_the_attempt, TURNSTILE_PAGE, true, true},
        {release_unrepaired, AT_THE_STORE, true, true},
        {release_unrepaired, TURNSTILE_PAGE, true, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        check_about("case %zu", i);
        struct peer peer = make();
        struct death death = {&peer, cases[i].call, cases[i].after};
        if (cases[i].inconsistent) {
            CHECK_IS(child_run(write_and_die, &peer), -SIGKILL);
        }
        CHECK_IS(child_run(die_in_call, &death), -SIGKILL);
        if (cases[i].is_error) {
            CHECK_IS(child_run(get_ownerdead, &peer), 0);
            repair_it(&peer);
        }
        CHECK_IS(child_run(can_read, &peer), 0);
        CHECK_IS(child_run(can_write, &peer), 0);
        unmake(&peer);
    }
}

/* ---- deaths at any time ---- */

static int
read_endlessly(void *context)
{
    struct peer *peer = context;
    while (atomic_load(&peer->place->stopped) == 0) {
        int slot, rc = begin_to_read(peer, &slot);
        if (rc == -EOWNERDEAD) {
            (void)atomic_fetch_add(&peer->place->owner_deaths, 1);
            (void)sched_yield();
            continue;
        }
        if (!CHECK_IS(rc, 0)
            || !CHECK_IS(peer->place->first, peer->place->second)) {
            return 1;
        }
        (void)atomic_fetch_add(&peer->place->steps, 1);
        CHECK_IS(stop_reading(peer, slot), 0);
    }
    return 0;
}

/* Half of the owners that get -EOWNERDEAD repair the words. */
static int
write_endlessly(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    while (atomic_load(&place->stopped) == 0) {
        bool repairs = random_below(2) == 0;
        int rc = repairs ? begin_to_repair(peer) : begin_to_write(peer);
        if (rc == -EOWNERDEAD && repairs) {
            (void)atomic_fetch_add(&place->owner_deaths, 1);
            if (random_below(2) == 0) {
                pshm_rw_release_unrepaired(peer->turnstile, peer->rw,
                                           &peer->mstate);
                continue;
            }
            place->second = place->first;
            pshm_rw_repair(peer->turnstile);
        }
        else if (rc == -EOWNERDEAD) {
            continue;
        }
        else if (!CHECK_IS(rc, 0)
                 || !CHECK_IS(place->first, place->second)) {
            return 1;
        }
        place->first = place->first + 1;
        if (random_below(4) == 0) {
            (void)sched_yield();
        }
        place->second = place->first;
        (void)atomic_fetch_add(&place->writers, 1);
        CHECK_IS(stop_writing(peer), 0);
        /* A mutex is not fair, so let the other threads run. */
        (void)usleep(random_below(100));
    }
    return 0;
}

static void
owner_without_an_error_finds_equal_words(void)
{
    struct peer peer = make();
    struct place *place = peer.place;
    pid_t steady[2] = {child_start(read_endlessly, &peer),
                       child_start(write_endlessly, &peer)};
    /* until a process has died while it wrote */
    for (int round = 0;
         round < ROUNDS(250) || atomic_load(&place->owner_deaths) == 0;
         round++) {
        pid_t writer = child_start(write_endlessly, &peer);
        pid_t reader = child_start(read_endlessly, &peer);
        await(&place->writers, atomic_load(&place->writers) + 2);
        kill_within(writer, 250);
        kill_within(reader, 250);
        await(&place->steps, atomic_load(&place->steps) + 1);
    }
    atomic_store(&place->stopped, 1);
    CHECK_IS(child_wait(steady[0]), 0);
    CHECK_IS(child_wait(steady[1]), 0);
    unmake(&peer);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(readers_keep_writers_out_but_not_readers);
    RUN(writer_is_alone);
    RUN(thread_does_not_wait_for_itself);
    RUN(writer_does_not_read_beside_itself);
    RUN(readers_are_counted);
    RUN(kernel_without_robust_mutexes_is_an_error);
    RUN(writer_waits_for_a_reader_in_the_turnstile);
    RUN(orphaned_slots_exclude_readers_but_not_writers);
    RUN(slot_may_be_orphaned_while_a_writer_waits);
    RUN(slot_may_be_orphaned_while_a_reader_waits);
    RUN(released_slot_of_an_orphan_is_reused);
    RUN(held_mutexes_are_reported);
#ifdef PSHM_ROBUST_LINKS
    RUN(overwritten_turnstile_becomes_inconsistent);
#endif
    RUN(threads_are_distinguished);
    RUN(number_of_slots_is_limited);
    RUN(failed_attempt_releases_everything);
    RUN(writer_that_waits_keeps_new_readers_out);
    RUN(many_readers_or_one_writer);
    RUN(slot_of_a_dead_reader_is_free);
    RUN(every_owner_gets_eownerdead_before_the_repair);
    RUN(first_owner_after_a_death_may_repair);
    RUN(failed_attempt_to_repair_leaves_the_error);
    RUN(death_of_a_waiting_writer_is_not_an_error);
    RUN(only_a_death_while_writing_is_an_error);
    RUN(owner_without_an_error_finds_equal_words);
    return finish();
}
