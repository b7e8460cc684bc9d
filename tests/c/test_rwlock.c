#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/sync/rwlock.h"

#include <pthread.h>
#include <sched.h>

/* The turnstile, and what is protected: two words that are equal while no
 * thread writes, except after a death. */
struct place {
    struct pshm_lock turnstile;
    volatile long first, second;
    atomic_uint readers, writers, most_readers;
    atomic_uint steps, told, stopped;
};

/* The word `writing` has a page for itself, where a store to it can be caught;
 * the slots begin the page after that. */
struct side {
    struct place *place;
    struct pshm_lock *turnstile;
    struct pshm_rwlock *rw;
    struct pshm_rw_state mstate;
};

static char *
page_of(const struct side *side, size_t which)
{
    return (char *)side->place + which * PAGE;
}

static struct side
make(void)
{
    struct side side = {.place = shared_memory(4 * PAGE)};
    side.turnstile = &side.place->turnstile;
    side.rw = (struct pshm_rwlock *)(void *)(page_of(&side, 2)
                                             - offsetof(struct pshm_rwlock,
                                                        slots));
    CHECK_IS(pshm_rw_init(side.turnstile, side.rw), 0);
    CHECK_IS(pshm_rw_open(side.turnstile, side.rw, &side.mstate), 0);
    return side;
}

static void
unmake(struct side *side)
{
    CHECK(munmap(side->place, 4 * PAGE) == 0);
}

static int
read_until(struct side *side, enum pshm_rw_patience patience, int64_t deadline,
           int *slot)
{
    struct pshm_rw_attempt attempt = {0};
    int rc;
    PATIENTLY(rc, pshm_rw_read(side->turnstile, side->rw, &side->mstate,
                               &attempt, patience, deadline, slot));
    if (rc == -EOWNERDEAD) {
        pshm_rw_undo(side->turnstile, side->rw, &side->mstate,
                     &attempt);
    }
    return rc;
}

static int
write_until(struct side *side, enum pshm_rw_patience patience,
            int64_t deadline)
{
    struct pshm_rw_attempt attempt = {0};
    int rc;
    PATIENTLY(rc, pshm_rw_write(side->turnstile, side->rw,
                                &side->mstate, &attempt, patience, deadline));
    if (rc == -EOWNERDEAD) {
        pshm_rw_undo(side->turnstile, side->rw, &side->mstate,
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
begin_to_read(struct side *side, int *slot)
{
    return read_until(side, PSHM_RW_WAIT, before_long(), slot);
}

static int
begin_to_write(struct side *side)
{
    return write_until(side, PSHM_RW_WAIT, before_long());
}

/* As an owner that repairs: also after a death.  0 or -EOWNERDEAD. */
static int
begin_to_repair(struct side *side)
{
    struct pshm_rw_attempt attempt = {0};
    int rc, told;
    PATIENTLY(told, pshm_rw_write(side->turnstile, side->rw,
                                  &side->mstate, &attempt, PSHM_RW_WAIT,
                                  before_long()));
    if (told != -EOWNERDEAD) {
        return told;
    }
    PATIENTLY(rc, pshm_rw_write(side->turnstile, side->rw,
                                &side->mstate, &attempt, PSHM_RW_WAIT,
                                before_long()));
    return rc == 0 ? told : rc;
}

static int
stop_reading(struct side *side, int slot)
{
    return pshm_rw_leave(side->rw, &side->mstate, slot);
}

static int
stop_writing(struct side *side)
{
    return pshm_rw_done(side->turnstile, side->rw, &side->mstate);
}

static void
repair_it(struct side *side)
{
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    pshm_rw_repair(side->turnstile);
    CHECK_IS(stop_writing(side), 0);
}

/* ---- which threads may hold it together ---- */

static int
can_read(void *context)
{
    int slot;
    CHECK_IS(read_until(context, PSHM_RW_PASS, 0, &slot), 0);
    CHECK_IS(pshm_rw_my_slot(&((struct side *)context)->mstate), slot);
    CHECK_IS(stop_reading(context, slot), 0);
    return 0;
}

static int
can_write(void *context)
{
    struct side *side = context;
    CHECK_IS(write_until(side, PSHM_RW_PASS, 0), 0);
    CHECK(pshm_rw_writes(&side->mstate));
    CHECK_IS(stop_writing(side), 0);
    CHECK(!is_held(&side->mstate));
    return 0;
}

static int
cannot_write(void *context)
{
    struct side *side = context;
    CHECK_IS(write_until(side, PSHM_RW_PASS, 0), -EBUSY);
    CHECK_IS(write_until(side, PSHM_RW_TRY, 0), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(write_until(side, PSHM_RW_WAIT, start + 20 * MS), -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK(!is_held(&side->mstate));
    CHECK_IS(stop_writing(side), -EPERM);
    return 0;
}

static int
cannot_read(void *context)
{
    struct side *side = context;
    int slot;
    CHECK_IS(read_until(side, PSHM_RW_PASS, 0, &slot), -EBUSY);
    CHECK_IS(read_until(side, PSHM_RW_TRY, 0, &slot), -EBUSY);
    int64_t start = pshm_now();
    CHECK_IS(read_until(side, PSHM_RW_WAIT, start + 20 * MS, &slot),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    CHECK(!is_held(&side->mstate));
    CHECK_IS(pshm_rw_my_slot(&side->mstate), -1);
    return 0;
}

static void
readers_keep_writers_out_but_not_readers(void)
{
    struct side side = make();
    int slot, another;
    CHECK_IS(begin_to_read(&side, &slot), 0);
    CHECK(is_held(&side.mstate));
    CHECK(!pshm_rw_writes(&side.mstate));
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(child_run(cannot_write, &side), 0);
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(begin_to_read(&side, &another), 0);
    CHECK(another != slot);
    CHECK_IS(stop_reading(&side, slot), 0);
    CHECK_IS(stop_reading(&side, slot), -EPERM);
    CHECK_IS(pshm_rw_my_slot(&side.mstate), another);
    CHECK_IS(child_run(cannot_write, &side), 0);
    CHECK_IS(stop_reading(&side, another), 0);
    CHECK(!is_held(&side.mstate));
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

static void
writer_is_alone(void)
{
    struct side side = make();
    CHECK_IS(begin_to_write(&side), 0);
    CHECK(pshm_rw_writes(&side.mstate));
    CHECK_IS(child_run(cannot_write, &side), 0);
    CHECK_IS(child_run(cannot_read, &side), 0);
    CHECK_IS(stop_writing(&side), 0);
    CHECK_IS(stop_writing(&side), -EPERM);
    CHECK_IS(child_run(can_write, &side), 0);
    CHECK_IS(child_run(can_read, &side), 0);
    unmake(&side);
}

static void
nobody_waits_for_oneself(void)
{
    struct side side = make();
    int slot, other;
    CHECK_IS(begin_to_read(&side, &slot), 0);
    CHECK_IS(write_until(&side, PSHM_RW_WAIT, PSHM_NEVER), -EDEADLK);
    CHECK_IS(write_until(&side, PSHM_RW_WAIT, in_ms(5)), -ETIMEDOUT);
    CHECK_IS(pshm_rw_my_slot(&side.mstate), slot);
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(stop_reading(&side, slot), 0);
    CHECK_IS(begin_to_write(&side), 0);
    CHECK_IS(write_until(&side, PSHM_RW_WAIT, PSHM_NEVER), -EDEADLK);
    CHECK_IS(read_until(&side, PSHM_RW_WAIT, PSHM_NEVER, &other), -EDEADLK);
    CHECK_IS(read_until(&side, PSHM_RW_WAIT, in_ms(5), &other), -ETIMEDOUT);
    CHECK(pshm_rw_writes(&side.mstate));
    CHECK_IS(stop_writing(&side), 0);
    unmake(&side);
}

static void
writer_does_not_read_beside_itself(void)
{
    struct side side = make();
    int slot;
    CHECK_IS(begin_to_write(&side), 0);
    CHECK_IS(read_until(&side, PSHM_RW_TRY, 0, &slot), -EBUSY);
    CHECK_IS(write_until(&side, PSHM_RW_TRY, 0), -EBUSY);
    CHECK_IS(pshm_rw_my_slot(&side.mstate), -1);
    CHECK(pshm_rw_writes(&side.mstate));
    CHECK_IS(stop_writing(&side), 0);
    unmake(&side);
}

static void
readers_are_counted(void)
{
    struct side side = make();
    int slots[3];
    for (int i = 0; i < 3; i++) {
        CHECK_IS(pshm_rw_readers(side.rw), i);
        CHECK_IS(begin_to_read(&side, &slots[i]), 0);
    }
    for (int i = 3; i > 0; i--) {
        CHECK_IS(pshm_rw_readers(side.rw), i);
        CHECK_IS(stop_reading(&side, slots[i - 1]), 0);
    }
    CHECK_IS(begin_to_write(&side), 0);
    CHECK_IS(pshm_rw_readers(side.rw), -1);
    CHECK_IS(stop_writing(&side), 0);
    CHECK_IS(pshm_rw_readers(side.rw), 0);
    unmake(&side);
}

static void
kernel_without_robust_mutexes_is_told(void)
{
    struct side side = make();
    struct pshm_rw_state mstate = {0};
    for (int nth = 1; nth <= 1 + PSHM_SLOTS; nth++) {
        check_about("mutex %d", nth);
        pshm_fault_arm("pthread_mutex_init", nth, PSHM_FAULT_FAIL, ENOTSUP);
        CHECK_IS(pshm_rw_open(side.turnstile, side.rw, &mstate), -ENOTSUP);
        pshm_fault_arm("pthread_mutex_init", nth, PSHM_FAULT_FAIL, ENOTSUP);
        CHECK_IS(pshm_rw_init(side.turnstile, side.rw), -ENOTSUP);
        CHECK_IS(pshm_fault_disarm(), nth);
    }
    unmake(&side);
}

/* ---- a reader on its way through the turnstile ---- */

struct passing {
    struct side side;
    pthread_t thread;
    atomic_uint state;
    int rc;
};

/* 1: has the turnstile; 2: releases it; 3: has. */
static void *
pass_through_the_turnstile(void *context)
{
    struct passing *passing = context;
    struct side *side = &passing->side;
    intptr_t wrong =
        pshm_lock_try(side->turnstile, &side->mstate.turnstile) != 0;
    atomic_store(&passing->state, 1);
    while (atomic_load(&passing->state) != 2) {
        (void)usleep(20);
    }
    wrong |= pshm_lock_release(side->turnstile, &side->mstate.turnstile) != 0;
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
    passing->rc = write_until(&passing->side, PSHM_RW_PASS, 0);
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
it_was_waited_for_or_not(void *context)
{
    struct passing *passing = context;
    CHECK(passing->rc == 0 || passing->rc == -EBUSY);
    if (passing->rc == 0) {
        CHECK_IS(stop_writing(&passing->side), 0);
    }
    CHECK(!is_held(&passing->side.mstate));
}

static void
reader_that_passes_the_turnstile_is_waited_for(void)
{
    struct passing passing = {.side = make()};
    meet_at_each_step(&(struct meeting){begin_to_pass, write_in_passing,
                                        end_to_pass,
                                        it_was_waited_for_or_not},
                      &passing);
    begin_to_pass(&passing);
    int64_t start = pshm_now();
    write_in_passing(&passing);
    CHECK_IS(passing.rc, -EBUSY);
    CHECK(took(start, 1));
    end_to_pass(&passing);
    unmake(&passing.side);
}

/* ---- an object that goes away ---- */

static struct pshm_owner *
note_of(struct side *side, int slot)
{
    return side->mstate.slots[slot].note;
}

/* The slots of other threads, as if each slot had one. */
static void
make_an_orphan(struct side *side, int slot)
{
    atomic_store(pshm_robust_word(&side->rw->slots[slot]),
                 (unsigned)getppid());
    atomic_store(&note_of(side, slot)->thread, PSHM_ORPHANED);
}

static void
slots_of_orphans_keep_readers_out_but_no_writer(void)
{
    struct side side = make();
    int slot;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(&side, i);
    }
    CHECK_IS(read_until(&side, PSHM_RW_TRY, 0, &slot), -EBUSY);
    CHECK_IS(read_until(&side, PSHM_RW_WAIT, in_ms(5), &slot), -ETIMEDOUT);
    CHECK_IS(pshm_rw_readers(side.rw), 0);
    CHECK_IS(begin_to_write(&side), 0);
    CHECK_IS(stop_writing(&side), 0);
    unmake(&side);
}

static void
begin_with_a_reader(void *context)
{
    struct passing *passing = context;
    atomic_store(pshm_robust_word(&passing->side.rw->slots[0]),
                 (unsigned)getppid());
    atomic_store(&note_of(&passing->side, 0)->thread, (unsigned)getppid());
}

static void
have_the_reader_orphaned(void *context)
{
    struct passing *passing = context;
    make_an_orphan(&passing->side, 0);
}

static void
slot_may_be_orphaned_while_it_is_waited_for(void)
{
    struct passing passing = {.side = make()};
    meet_at_each_step(&(struct meeting){begin_with_a_reader, write_in_passing,
                                        have_the_reader_orphaned,
                                        it_was_waited_for_or_not},
                      &passing);
    unmake(&passing.side);
}

static void
begin_with_all_slots_taken(void *context)
{
    struct passing *passing = context;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(&passing->side, i);
    }
    begin_with_a_reader(passing);
}

static void
read_for_a_moment(void *context)
{
    struct passing *passing = context;
    int slot;
    CHECK_IS(read_until(&passing->side, PSHM_RW_WAIT, in_ms(1), &slot),
             -ETIMEDOUT);
}

static void
it_has_nothing(void *context)
{
    struct passing *passing = context;
    CHECK(!is_held(&passing->side.mstate));
}

static void
slot_may_be_orphaned_while_a_reader_waits_for_it(void)
{
    struct passing passing = {.side = make()};
    meet_at_each_step(&(struct meeting){begin_with_all_slots_taken,
                                        read_for_a_moment,
                                        have_the_reader_orphaned,
                                        it_has_nothing},
                      &passing);
    unmake(&passing.side);
}

/* An orphan's thread ends while a reader waits. */
static void
free_the_first_slot(void *context)
{
    struct passing *passing = context;
    int first = (int)(pshm_thread()->number % PSHM_SLOTS);
    atomic_store(pshm_robust_word(&passing->side.rw->slots[first]), 0);
}

static void
slot_of_an_orphan_that_is_freed_is_given(void)
{
    struct passing passing = {.side = make()};
    struct side *side = &passing.side;
    int slot;
    for (int i = 0; i < PSHM_SLOTS; i++) {
        make_an_orphan(side, i);
    }
    pshm_fault_hook(free_the_first_slot, &passing);
    pshm_fault_arm("futex", 1, PSHM_FAULT_HOOK_BEFORE, 0);
    CHECK_IS(begin_to_read(side, &slot), 0);
    CHECK(pshm_fault_disarm() >= 1);
    CHECK_IS(slot, (int)(pshm_thread()->number % PSHM_SLOTS));
    CHECK_IS(stop_reading(side, slot), 0);
    unmake(side);
}

struct kept {
    int count;
    const struct pshm_robust *last;
};

static void
keep_it(void *context, struct pshm_robust *r,
        const struct pshm_mutex_state *mstate)
{
    struct kept *kept = context;
    CHECK(pshm_mutex_state_held(mstate));
    kept->count++;
    kept->last = r;
}

static void *
read_and_stay(void *context)
{
    struct passing *passing = context;
    struct side *side = &passing->side;
    intptr_t wrong = passing->rc < 0 ? begin_to_write(side) != 0
                                     : begin_to_read(side, &passing->rc) != 0;
    atomic_store(&passing->state, 1);
    while (atomic_load(&passing->state) != 2) {
        (void)usleep(100);
    }
    return (void *)wrong;
}

/* A thread that reads or writes still has the mutex in its list. */
static void
parts_that_a_thread_has_are_kept(void)
{
    for (int writes = 0; writes < 2; writes++) {
        struct passing passing = {.side = make(), .rc = -writes};
        struct side *side = &passing.side;
        struct kept kept = {0};
        pshm_rw_abandon(side->turnstile, side->rw, &side->mstate, keep_it,
                        &kept);
        CHECK_IS(kept.count, 0);
        CHECK(pthread_create(&passing.thread, NULL, read_and_stay, &passing)
              == 0);
        await(&passing.state, 1);
        pshm_rw_abandon(side->turnstile, side->rw, &side->mstate, keep_it,
                        &kept);
        CHECK_IS(kept.count, 1);
        CHECK(kept.last == (writes ? &side->turnstile->mutex
                                   : &side->rw->slots[passing.rc]));
        end_to_pass(&passing);
        unmake(side);
    }
}

#ifdef PSHM_ROBUST_LINKS

/* Others may have been in beside it. */
static void
writer_whose_turnstile_was_written_over_leaves_it_inconsistent(void)
{
    struct side side = make();
    CHECK_IS(begin_to_write(&side), 0);
    side.turnstile->mutex.mutex.__data.__kind ^= 2;
    CHECK_IS(stop_writing(&side), -EBADMSG);
    CHECK(!pshm_rw_writes(&side.mstate));
    side.turnstile->mutex.mutex.__data.__kind ^= 2;
    repair_it(&side);
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

#endif

static void *
find_it_another_threads(void *context)
{
    struct side *side = context;
    int slot;
    intptr_t wrong = pshm_rw_writes(&side->mstate)
                     || !is_held(&side->mstate)
                     || stop_writing(side) != -EPERM
                     || write_until(side, PSHM_RW_PASS, 0) != -EBUSY
                     || read_until(side, PSHM_RW_PASS, 0, &slot) != -EBUSY;
    return (void *)wrong;
}

static void
threads_are_told_apart(void)
{
    struct side side = make();
    pthread_t thread;
    void *wrong;
    CHECK_IS(begin_to_write(&side), 0);
    CHECK(pthread_create(&thread, NULL, find_it_another_threads, &side) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    CHECK_IS(stop_writing(&side), 0);
    unmake(&side);
}

static void
there_are_so_many_slots(void)
{
    struct side side = make();
    int slots[PSHM_SLOTS], one_more = -1;
    bool given[PSHM_SLOTS] = {false};
    for (int i = 0; i < PSHM_SLOTS; i++) {
        CHECK_IS(begin_to_read(&side, &slots[i]), 0);
        CHECK(slots[i] >= 0 && slots[i] < PSHM_SLOTS && !given[slots[i]]);
        given[slots[i]] = true;
    }
    CHECK_IS(child_run(cannot_read, &side), 0);
    CHECK_IS(read_until(&side, PSHM_RW_PASS, 0, &one_more), -EBUSY);
    CHECK_IS(read_until(&side, PSHM_RW_WAIT, in_ms(5), &one_more), -ETIMEDOUT);
    CHECK_IS(read_until(&side, PSHM_RW_WAIT, PSHM_NEVER, &one_more), -EAGAIN);
    CHECK_IS(stop_reading(&side, slots[7]), 0);
    CHECK_IS(child_run(can_read, &side), 0);
    for (int i = 0; i < PSHM_SLOTS; i++) {
        CHECK_IS(stop_reading(&side, slots[i]), i == 7 ? -EPERM : 0);
    }
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

/* Here at the last slot that it asks for. */
static void
failed_attempt_gives_back_what_it_had(void)
{
    struct side side = make();
    struct pshm_rw_attempt attempt = {0};
    struct pshm_robust *last = &side.rw->slots[PSHM_SLOTS - 1];
    struct pshm_mutex_state *mstate = &side.mstate.slots[PSHM_SLOTS - 1];
    CHECK_IS(pshm_robust_try(last, mstate), 0);
    CHECK_IS(pshm_rw_write(side.turnstile, side.rw, &side.mstate, &attempt,
                           PSHM_RW_WAIT, PSHM_NEVER),
             -EDEADLK);
    CHECK(!attempt.turnstile);
    CHECK_IS(attempt.slots, 0);
    CHECK_IS(pshm_robust_unlock(last, mstate), 0);
    CHECK(!is_held(&side.mstate));
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

static int
read_until_stopped(void *context)
{
    struct side *side = context;
    int slot;
    CHECK_IS(begin_to_read(side, &slot), 0);
    (void)atomic_fetch_add(&side->place->steps, 1);
    while (atomic_load(&side->place->stopped) == 0) {
        (void)usleep(100);
    }
    CHECK_IS(stop_reading(side, slot), 0);
    return 0;
}

static void
writer_that_waits_keeps_new_readers_out(void)
{
    struct side side = make();
    struct pshm_rw_attempt attempt = {0};
    pid_t reader = child_start(read_until_stopped, &side);
    await(&side.place->steps, 1);
    int64_t start = pshm_now();
    CHECK_IS(pshm_rw_write(side.turnstile, side.rw, &side.mstate,
                           &attempt, PSHM_RW_WAIT, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK(attempt.turnstile);
    CHECK(!pshm_rw_writes(&side.mstate));
    CHECK_IS(child_run(cannot_read, &side), 0);
    CHECK_IS(child_run(cannot_write, &side), 0);
    /* it need not go on */
    pshm_rw_undo(side.turnstile, side.rw, &side.mstate, &attempt);
    CHECK(!attempt.turnstile);
    CHECK(!is_held(&side.mstate));
    CHECK_IS(child_run(can_read, &side), 0);
    /* or may */
    CHECK_IS(pshm_rw_write(side.turnstile, side.rw, &side.mstate,
                           &attempt, PSHM_RW_WAIT, PSHM_NEVER),
             -EINTR);
    atomic_store(&side.place->stopped, 1);
    int rc;
    PATIENTLY(rc, pshm_rw_write(side.turnstile, side.rw, &side.mstate,
                                &attempt, PSHM_RW_WAIT, before_long()));
    CHECK_IS(rc, 0);
    CHECK_IS(stop_writing(&side), 0);
    CHECK_IS(child_wait(reader), 0);
    unmake(&side);
}

/* ---- many of both ---- */

static int
read_and_write(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    for (int i = 0; i < ROUNDS(1500); i++) {
        int slot;
        CHECK_IS(begin_to_read(side, &slot), 0);
        unsigned readers = atomic_fetch_add(&place->readers, 1) + 1;
        if (readers > atomic_load(&place->most_readers)) {
            atomic_store(&place->most_readers, readers);
        }
        CHECK_IS(atomic_load(&place->writers), 0);
        CHECK_IS(place->first, place->second);
        (void)atomic_fetch_sub(&place->readers, 1);
        CHECK_IS(stop_reading(side, slot), 0);
        if (i % 4 == 0) {
            CHECK_IS(begin_to_write(side), 0);
            CHECK_IS(atomic_fetch_add(&place->writers, 1), 0);
            CHECK_IS(atomic_load(&place->readers), 0);
            place->first = place->first + 1;
            place->second = place->second + 1;
            (void)atomic_fetch_sub(&place->writers, 1);
            CHECK_IS(stop_writing(side), 0);
        }
    }
    return 0;
}

static void
many_readers_or_one_writer(void)
{
    struct side side = make();
    together(4, read_and_write, &side);
    CHECK_IS(side.place->first, 4 * ((ROUNDS(1500) + 3) / 4));
    CHECK_IS(side.place->second, side.place->first);
    unmake(&side);
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
    struct side side = make();
    for (int i = 0; i < 2 * PSHM_SLOTS; i++) {
        CHECK_IS(child_run(read_and_die, &side), -SIGKILL);
    }
    CHECK_IS(child_run(can_write, &side), 0);
    CHECK_IS(child_run(read_and_die, &side), -SIGKILL);
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
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
give_up_the_repair(void *context)
{
    struct side *side = context;
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    CHECK(pshm_rw_writes(&side->mstate));
    pshm_rw_release_unrepaired(side->turnstile, side->rw, &side->mstate);
    CHECK(!is_held(&side->mstate));
    return 0;
}

static int
is_told(void *context)
{
    struct side *side = context;
    int slot;
    for (int how = PSHM_RW_TRY; how <= PSHM_RW_WAIT; how++) {
        CHECK_IS(read_until(side, how, before_long(), &slot), -EOWNERDEAD);
        CHECK_IS(write_until(side, how, before_long()), -EOWNERDEAD);
    }
    CHECK(!is_held(&side->mstate));
    return 0;
}

static void
everyone_is_told_of_a_dead_writer_until_a_repair(void)
{
    struct side side = make();
    CHECK_IS(child_run(write_and_die, &side), -SIGKILL);
    CHECK_IS(child_run(is_told, &side), 0);
    CHECK_IS(is_told(&side), 0);
    CHECK_IS(child_run(give_up_the_repair, &side), 0);
    CHECK_IS(child_run(is_told, &side), 0);
    CHECK_IS(child_run(repair_and_die, &side), -SIGKILL);
    CHECK_IS(child_run(is_told, &side), 0);
    repair_it(&side);
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

/* Straight after the death, before any thread got an error. */
static void
first_one_told_may_be_the_one_to_repair(void)
{
    struct side side = make();
    CHECK_IS(child_run(write_and_die, &side), -SIGKILL);
    CHECK_IS(child_run(repair_and_die, &side), -SIGKILL);
    repair_it(&side);
    CHECK_IS(child_run(can_read, &side), 0);
    unmake(&side);
}

static void
attempt_to_repair_that_fails_tells_the_next_one(void)
{
    struct side side = make();
    struct pshm_rw_attempt attempt = {0};
    struct pshm_robust *mutex = &side.rw->slots[5];
    CHECK_IS(child_run(write_and_die, &side), -SIGKILL);
    CHECK_IS(pshm_robust_try(mutex, &side.mstate.slots[5]), 0);
    CHECK_IS(pshm_rw_write(side.turnstile, side.rw, &side.mstate, &attempt,
                           PSHM_RW_WAIT, before_long()),
             -EOWNERDEAD);
    CHECK(attempt.turnstile);
    int rc = pshm_rw_write(side.turnstile, side.rw, &side.mstate, &attempt,
                           PSHM_RW_PASS, 0);
    CHECK(rc == -EDEADLK || rc == -EBUSY);      /* this thread sits there */
    CHECK(!attempt.turnstile);
    CHECK_IS(pshm_robust_unlock(mutex, &side.mstate.slots[5]), 0);
    CHECK_IS(is_told(&side), 0);
    repair_it(&side);
    unmake(&side);
}

static int
wait_to_write(void *context)
{
    struct side *side = context;
    (void)atomic_fetch_add(&side->place->steps, 1);
    (void)begin_to_write(side);
    return 1;
}

/* It has the turnstile and some of the slots, but has not written. */
static void
death_of_a_writer_that_waits_is_not_told(void)
{
    struct side side = make();
    int slot;
    CHECK_IS(begin_to_read(&side, &slot), 0);
    pid_t child = child_start(wait_to_write, &side);
    await(&side.place->steps, 1);
    while (pshm_robust_try(&side.turnstile->mutex, &side.mstate.turnstile)
           != -EBUSY) {
        (void)pshm_robust_unlock(&side.turnstile->mutex,
                                 &side.mstate.turnstile);
        (void)usleep(100);
    }
    (void)usleep(2000);
    kill_now(child);
    CHECK_IS(child_run(can_read, &side), 0);
    CHECK_IS(stop_reading(&side, slot), 0);
    CHECK_IS(child_run(can_write, &side), 0);
    unmake(&side);
}

/* ---- at the very store to `writing` ---- */

static char *trapped, *trapped_next;

/* Die instead of making the store; or make it, and die of the next one to the
 * other page.  The kernel will store to the mutexes as well, if it can. */
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

enum { AT_THE_STORE = -1, GATE = 0 };

/* after: where the next store goes that a caller makes. */
static void
die_at_writing(const struct side *side, int after)
{
    struct sigaction action = {.sa_handler = at_a_store};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    trapped = page_of(side, 1);
    trapped_next = after == AT_THE_STORE ? NULL
                                         : page_of(side, (size_t)after);
    CHECK(mprotect(trapped, PAGE, PROT_READ) == 0);
}

static int
die_before_it_writes(void *context)
{
    die_at_writing(context, AT_THE_STORE);
    (void)begin_to_write(context);
    return 1;
}

static int
die_before_it_says_that_it_wrote(void *context)
{
    CHECK_IS(begin_to_write(context), 0);
    die_at_writing(context, AT_THE_STORE);
    (void)stop_writing(context);
    return 1;
}

static int
die_after_it_said_that_it_wrote(void *context)
{
    CHECK_IS(begin_to_write(context), 0);
    die_at_writing(context, GATE);
    (void)stop_writing(context);
    return 1;
}

static int
die_before_the_repair_is_over(void *context)
{
    struct side *side = context;
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    pshm_rw_repair(side->turnstile);
    die_at_writing(side, AT_THE_STORE);
    (void)stop_writing(side);
    return 1;
}

static int
die_after_the_repair(void *context)
{
    struct side *side = context;
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    pshm_rw_repair(side->turnstile);
    die_at_writing(side, GATE);
    (void)stop_writing(side);
    return 1;
}

static void
undo_and_die(struct side *side, int after)
{
    struct pshm_rw_attempt attempt = {0};
    CHECK_IS(pshm_rw_write(side->turnstile, side->rw, &side->mstate, &attempt,
                           PSHM_RW_PASS, 0),
             -EOWNERDEAD);
    die_at_writing(side, after);
    pshm_rw_undo(side->turnstile, side->rw, &side->mstate, &attempt);
}

static int
die_before_it_passes_it_on(void *context)
{
    undo_and_die(context, AT_THE_STORE);
    return 1;
}

static int
die_while_it_passes_it_on(void *context)
{
    undo_and_die(context, GATE);
    return 1;
}

static int
die_before_it_has_given_up(void *context)
{
    struct side *side = context;
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    die_at_writing(side, AT_THE_STORE);
    pshm_rw_release_unrepaired(side->turnstile, side->rw, &side->mstate);
    return 1;
}

static int
die_when_it_has_given_up(void *context)
{
    struct side *side = context;
    CHECK_IS(begin_to_repair(side), -EOWNERDEAD);
    die_at_writing(side, GATE);
    pshm_rw_release_unrepaired(side->turnstile, side->rw, &side->mstate);
    return 1;
}

static void
death_is_told_if_it_was_while_writing(void)
{
    static const struct {
        int (*death)(void *context);
        bool broken_before, told;
    } cases[] = {
        {die_before_it_writes, false, false},
        {write_and_die, false, true},
        {die_before_it_says_that_it_wrote, false, true},
        {die_after_it_said_that_it_wrote, false, false},
        {die_before_the_repair_is_over, true, true},
        {die_after_the_repair, true, false},
        {die_before_it_passes_it_on, true, true},
        {die_while_it_passes_it_on, true, true},
        {die_before_it_has_given_up, true, true},
        {die_when_it_has_given_up, true, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        check_about("case %zu", i);
        struct side side = make();
        if (cases[i].broken_before) {
            CHECK_IS(child_run(write_and_die, &side), -SIGKILL);
        }
        CHECK_IS(child_run(cases[i].death, &side), -SIGKILL);
        if (cases[i].told) {
            CHECK_IS(child_run(is_told, &side), 0);
            repair_it(&side);
        }
        CHECK_IS(child_run(can_read, &side), 0);
        CHECK_IS(child_run(can_write, &side), 0);
        unmake(&side);
    }
}

/* ---- at any moment ---- */

static int
read_for_ever(void *context)
{
    struct side *side = context;
    while (atomic_load(&side->place->stopped) == 0) {
        int slot, rc = begin_to_read(side, &slot);
        if (rc == -EOWNERDEAD) {
            (void)atomic_fetch_add(&side->place->told, 1);
            (void)sched_yield();
            continue;
        }
        if (!CHECK_IS(rc, 0)
            || !CHECK_IS(side->place->first, side->place->second)) {
            return 1;
        }
        (void)atomic_fetch_add(&side->place->steps, 1);
        CHECK_IS(stop_reading(side, slot), 0);
    }
    return 0;
}

/* Half of the owners after a death repair the words. */
static int
write_for_ever(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    while (atomic_load(&place->stopped) == 0) {
        bool repairs = random_below(2) == 0;
        int rc = repairs ? begin_to_repair(side) : begin_to_write(side);
        if (rc == -EOWNERDEAD && repairs) {
            (void)atomic_fetch_add(&place->told, 1);
            if (random_below(2) == 0) {
                pshm_rw_release_unrepaired(side->turnstile, side->rw,
                                           &side->mstate);
                continue;
            }
            place->second = place->first;
            pshm_rw_repair(side->turnstile);
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
        CHECK_IS(stop_writing(side), 0);
        /* The first thread gets a mutex: let others run. */
        (void)usleep(random_below(100));
    }
    return 0;
}

static void
whoever_is_not_told_finds_all_in_order(void)
{
    struct side side = make();
    struct place *place = side.place;
    pid_t steady[2] = {child_start(read_for_ever, &side),
                       child_start(write_for_ever, &side)};
    /* and until one has died while it wrote */
    for (int round = 0;
         round < ROUNDS(250) || atomic_load(&place->told) == 0; round++) {
        pid_t writer = child_start(write_for_ever, &side);
        pid_t reader = child_start(read_for_ever, &side);
        await(&place->writers, atomic_load(&place->writers) + 2);
        kill_within(writer, 250);
        kill_within(reader, 250);
        await(&place->steps, atomic_load(&place->steps) + 1);
    }
    atomic_store(&place->stopped, 1);
    CHECK_IS(child_wait(steady[0]), 0);
    CHECK_IS(child_wait(steady[1]), 0);
    unmake(&side);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(readers_keep_writers_out_but_not_readers);
    RUN(writer_is_alone);
    RUN(nobody_waits_for_oneself);
    RUN(writer_does_not_read_beside_itself);
    RUN(readers_are_counted);
    RUN(kernel_without_robust_mutexes_is_told);
    RUN(reader_that_passes_the_turnstile_is_waited_for);
    RUN(slots_of_orphans_keep_readers_out_but_no_writer);
    RUN(slot_may_be_orphaned_while_it_is_waited_for);
    RUN(slot_may_be_orphaned_while_a_reader_waits_for_it);
    RUN(slot_of_an_orphan_that_is_freed_is_given);
    RUN(parts_that_a_thread_has_are_kept);
#ifdef PSHM_ROBUST_LINKS
    RUN(writer_whose_turnstile_was_written_over_leaves_it_inconsistent);
#endif
    RUN(threads_are_told_apart);
    RUN(there_are_so_many_slots);
    RUN(failed_attempt_gives_back_what_it_had);
    RUN(writer_that_waits_keeps_new_readers_out);
    RUN(many_readers_or_one_writer);
    RUN(slot_of_a_dead_reader_is_free);
    RUN(everyone_is_told_of_a_dead_writer_until_a_repair);
    RUN(first_one_told_may_be_the_one_to_repair);
    RUN(attempt_to_repair_that_fails_tells_the_next_one);
    RUN(death_of_a_writer_that_waits_is_not_told);
    RUN(death_is_told_if_it_was_while_writing);
    RUN(whoever_is_not_told_finds_all_in_order);
    return finish();
}
