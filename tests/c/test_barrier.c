#include "check.h"
#include "peers.h"
#include "posix/sync/barrier.h"
#include "posix/host.h"

#include <sched.h>

enum { PARTIES = 3 };

struct place {
    struct pshm_barrier barrier;
    struct pshm_robust runner;
    atomic_uint rounds, waiting, acting, in_action, ended;
    atomic_uint one_is_missed;          /* the waiter stops then */
    atomic_uint places[PARTIES];        /* how often each was given */
    struct pshm_arrival old;            /* before two meet */
    struct pshm_arrival arrivals[2];    /* of the two */
    int results[2];
};

struct side {
    struct place *place;
    struct pshm_mutex_state mstate;
    bool acts;
    int64_t patience;                   /* ms, or 0: before_long */
};

static struct side
make(unsigned parties)
{
    struct side side = {.place = shared_memory(sizeof(struct place))};
    side.place->barrier.parties = parties;
    CHECK_IS(pshm_robust_init(&side.place->runner, 0), 0);
    CHECK_IS(pshm_robust_open(&side.place->runner, 0, &side.mstate), 0);
    return side;
}

static void
unmake(struct side *side)
{
    CHECK(munmap(side->place, sizeof(struct place)) == 0);
}

static int64_t
end_of_patience(const struct side *side)
{
    return side->patience > 0 ? in_ms(side->patience) : before_long();
}

/* ---- a party, as the header wants it ---- */

static int
wait_for_end(struct side *side, const struct pshm_arrival *a)
{
    return pshm_barrier_wait(&side->place->barrier, a, &side->place->runner,
                             &side->mstate, end_of_patience(side));
}

static int
await_round(struct side *side, const struct pshm_arrival *a)
{
    int rc;
    int64_t deadline = end_of_patience(side);
    do {
        rc = pshm_barrier_wait(&side->place->barrier, a, &side->place->runner,
                               &side->mstate, deadline);
    } while (rc == -EINTR && atomic_load(&side->place->one_is_missed) == 0);
    if (rc < 0) {
        pshm_barrier_leave(&side->place->barrier, a);
    }
    return rc;
}

static int
arrive_until(struct side *side, int64_t deadline, struct pshm_arrival *a)
{
    return pshm_barrier_arrive(&side->place->barrier, &side->place->runner,
                               &side->mstate, side->acts, deadline, a);
}

/* At once: it does not have to wait for an action. */
static int
arrive(struct side *side, struct pshm_arrival *a)
{
    return arrive_until(side, before_long(), a);
}

static int
end_action(struct side *side, const struct pshm_arrival *a)
{
    return pshm_barrier_done(&side->place->barrier, &side->place->runner,
                             &side->mstate, a);
}

/* Is it free? */
static int
try_runner(struct side *side)
{
    int rc = pshm_robust_try(&side->place->runner, &side->mstate);
    if (rc == 0) {
        rc = pshm_robust_unlock(&side->place->runner, &side->mstate);
    }
    return rc;
}

static int
act_and_go_on(struct side *side, const struct pshm_arrival *a)
{
    CHECK_IS(atomic_fetch_add(&side->place->in_action, 1), 0);
    (void)atomic_fetch_add(&side->place->acting, 1);
    if (random_below(4) == 0) {
        (void)sched_yield();
    }
    (void)atomic_fetch_sub(&side->place->in_action, 1);
    return end_action(side, a);
}

/* The index; or -EPIPE, -ETIMEDOUT or -EINTR. */
static int
meet(struct side *side)
{
    struct pshm_arrival a;
    int64_t deadline = end_of_patience(side);
    int rc;
    do {
        rc = arrive_until(side, deadline, &a);
        if (rc == -EAGAIN) {
            rc = pshm_barrier_wait(&side->place->barrier, &a,
                                   &side->place->runner, &side->mstate,
                                   deadline);
            rc = rc == 0 || rc == -EPIPE ? -EINTR : rc;
        }
    } while (rc == -EINTR && atomic_load(&side->place->one_is_missed) == 0);
    if (rc == -ETIMEDOUT || rc == -EINTR) {
        pshm_barrier_miss(&side->place->barrier);
    }
    if (rc == 0) {
        (void)atomic_fetch_add(&side->place->waiting, 1);
        rc = a.action ? act_and_go_on(side, &a)
             : a.last ? 0 : await_round(side, &a);
    }
    return rc < 0 ? rc : (int)a.index;
}

/* ---- rounds ---- */

/* No party is a generation ahead of another. */
static int
meet_again_and_again(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    for (unsigned i = 0; i < (unsigned)ROUNDS(3000); i++) {
        unsigned begun = atomic_fetch_add(&place->rounds, 1);
        CHECK(begun >= i * PARTIES && begun < (i + 1) * PARTIES);
        int rc = meet(side);
        if (!CHECK(rc >= 0 && rc < PARTIES)) {
            return 1;
        }
        (void)atomic_fetch_add(&place->places[rc], 1);
        CHECK(atomic_load(&place->rounds) >= (i + 1) * PARTIES);
        if (side->acts) {
            CHECK(atomic_load(&place->acting) >= i + 1);
        }
    }
    return 0;
}

static void
nobody_passes_before_all_are_there(void)
{
    for (int acts = 0; acts < 2; acts++) {
        check_about("action %d", acts);
        struct side side = make(PARTIES);
        side.acts = acts;
        together(PARTIES, meet_again_and_again, &side);
        for (int i = 0; i < PARTIES; i++) {
            CHECK_IS(atomic_load(&side.place->places[i]), ROUNDS(3000));
        }
        CHECK_IS(atomic_load(&side.place->acting),
                 acts ? ROUNDS(3000) : 0);
        CHECK_IS(pshm_barrier_waiting(&side.place->barrier), 0);
        CHECK(!pshm_barrier_broken(&side.place->barrier));
        unmake(&side);
    }
}

static void
rounds_go_on_past_the_last_number(void)
{
    struct side side = make(1);
    struct pshm_barrier *barrier = &side.place->barrier;
    struct pshm_arrival a;
    barrier->state = UINT64_C(0xfffffffe) << 32;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(arrive(&side, &a), 0);
        CHECK(a.last && !a.action && a.index == 0);
        CHECK_IS(a.generation, 0xfffffffeU + (unsigned)i);
        CHECK_IS(wait_for_end(&side, &a), 0);
    }
    CHECK(barrier->state == UINT64_C(2) << 32);
    unmake(&side);
}

static void
waits_end_in_time(void)
{
    struct side side = make(2);
    struct pshm_barrier *barrier = &side.place->barrier;
    struct pshm_robust *runner = &side.place->runner;
    struct pshm_arrival a;
    side.acts = true;
    CHECK_IS(arrive(&side, &a), 0);
    CHECK(!a.last && !a.action && a.index == 0 && a.generation == 0);
    CHECK_IS(pshm_barrier_waiting(barrier), 1);
    int64_t start = pshm_now();
    CHECK_IS(pshm_barrier_wait(barrier, &a, runner, &side.mstate,
                               start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_barrier_wait(barrier, &a, runner, &side.mstate, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK(!pshm_barrier_broken(barrier));
    unmake(&side);
}

/* ---- broken ---- */

static int
find_it_broken(void *context)
{
    CHECK_IS(meet(context), -EPIPE);
    return 0;
}

static int
meet_once(void *context)
{
    int rc = meet(context);
    CHECK(rc >= 0);
    return 0;
}

static int
lose_patience(void *context)
{
    struct side *side = context;
    side->patience = 30;
    CHECK_IS(meet(side), -ETIMEDOUT);
    return 0;
}

static void
wait_for_all(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
}

static void
who_abandons_it_breaks_it_for_all(void)
{
    struct side side = make(PARTIES);
    pid_t pids[2] = {child_start(find_it_broken, &side)};
    await(&side.place->waiting, 1);
    pids[1] = child_start(lose_patience, &side);
    wait_for_all(pids, 2);
    CHECK(pshm_barrier_broken(&side.place->barrier));
    CHECK_IS(child_run(find_it_broken, &side), 0);

    pshm_barrier_reset(&side.place->barrier);
    CHECK(!pshm_barrier_broken(&side.place->barrier));
    CHECK_IS(pshm_barrier_waiting(&side.place->barrier), 0);
    together(PARTIES, meet_once, &side);
    unmake(&side);
}

static void
abandoning_an_older_round_changes_nothing(void)
{
    struct side side = make(1);
    struct pshm_arrival a;
    CHECK_IS(arrive(&side, &a), 0);
    pshm_barrier_leave(&side.place->barrier, &a);
    CHECK(!pshm_barrier_broken(&side.place->barrier));
    CHECK_IS(end_action(&side, &a), -EPIPE);
    unmake(&side);
}

static void
aborted_or_reset_it_lets_nobody_wait_on(void)
{
    for (int reset = 0; reset < 2; reset++) {
        struct side side = make(PARTIES);
        pid_t pids[2];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(find_it_broken, &side);
        }
        await(&side.place->waiting, 2);
        if (reset) {
            pshm_barrier_reset(&side.place->barrier);
        }
        else {
            pshm_barrier_abort(&side.place->barrier);
        }
        wait_for_all(pids, 2);
        CHECK_IS(pshm_barrier_broken(&side.place->barrier), !reset);
        if (!reset) {
            CHECK_IS(child_run(find_it_broken, &side), 0);
            pshm_barrier_reset(&side.place->barrier);
        }
        together(PARTIES, meet_once, &side);
        unmake(&side);
    }
}

/* The parties that had arrived at the reset; not the later ones. */
static void
reset_is_remembered_for_its_round(void)
{
    struct side side = make(2);
    struct pshm_barrier *barrier = &side.place->barrier;
    struct pshm_arrival old, first, second;
    pshm_barrier_reset(barrier);        /* no party has arrived */
    CHECK_IS(barrier->state, 0);
    CHECK_IS(arrive(&side, &old), 0);
    pshm_barrier_reset(barrier);
    CHECK_IS(arrive(&side, &first), 0);
    CHECK_IS(arrive(&side, &second), 0);
    CHECK(second.last && first.generation == second.generation);
    CHECK_IS(wait_for_end(&side, &first), 0);
    CHECK_IS(wait_for_end(&side, &old), -EPIPE);
    unmake(&side);
}

static const uint64_t reset_flag = UINT64_C(1) << 29;

/* As if a process had been stopped between the two steps of a reset. */
static void
who_arrives_completes_a_reset(void)
{
    struct side side = make(2);
    struct pshm_barrier *barrier = &side.place->barrier;
    struct pshm_arrival old, first, last;
    CHECK_IS(arrive(&side, &old), 0);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    CHECK(!pshm_barrier_broken(barrier));
    CHECK_IS(pshm_barrier_waiting(barrier), 0);
    CHECK_IS(wait_for_end(&side, &old), -EPIPE);
    CHECK_IS(arrive(&side, &first), 0);
    CHECK(first.index == 0 && first.generation == old.generation + 1);
    CHECK_IS(wait_for_end(&side, &old), -EPIPE);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_leave(barrier, &first);      /* it ended by the reset */
    CHECK(!pshm_barrier_broken(barrier));
    CHECK_IS(arrive(&side, &first), 0);
    CHECK_IS(arrive(&side, &last), 0);
    CHECK(last.last && wait_for_end(&side, &first) == 0);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_abort(barrier);
    CHECK(pshm_barrier_broken(barrier));
    CHECK_IS(arrive(&side, &first), -EPIPE);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_reset(barrier);
    CHECK_IS(arrive(&side, &first), 0);
    unmake(&side);
}

/* ---- actions ---- */

static int
be_late(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    CHECK_IS(arrive_until(side, 0, &a), -ETIMEDOUT);
    CHECK_IS(arrive(side, &a), -EAGAIN);
    CHECK_IS(a.generation, 0);
    CHECK_IS(pshm_barrier_wait(&side->place->barrier, &a,
                               &side->place->runner, &side->mstate, in_ms(20)),
             -ETIMEDOUT);
    pshm_barrier_miss(&side->place->barrier);
    return 0;
}

static void
no_one_arrives_during_an_action(void)
{
    for (int misses = 0; misses < 2; misses++) {
        struct side side = make(1);
        struct pshm_barrier *barrier = &side.place->barrier;
        struct pshm_arrival acting, a;
        side.acts = true;
        CHECK_IS(arrive(&side, &acting), 0);
        CHECK(acting.last && acting.action);
        CHECK_IS(arrive(&side, &a), -EDEADLK);
        if (misses) {
            CHECK_IS(child_run(be_late, &side), 0);
            CHECK(!pshm_barrier_broken(barrier));
        }
        CHECK_IS(end_action(&side, &acting), 0);
        CHECK_IS(wait_for_end(&side, &acting), 0);
        CHECK_IS(pshm_barrier_broken(barrier), misses);
        CHECK_IS(arrive(&side, &a), misses ? -EPIPE : 0);
        if (!misses) {
            CHECK_IS(end_action(&side, &a), 0); /* or its memory stays locked */
        }
        unmake(&side);
    }
}

static void
action_of_a_broken_barrier_lets_nobody_go_on(void)
{
    for (int reset = 0; reset < 2; reset++) {
        struct side side = make(1);
        struct pshm_arrival a;
        side.acts = true;
        CHECK_IS(arrive(&side, &a), 0);
        if (reset) {
            pshm_barrier_reset(&side.place->barrier);
        }
        else {
            pshm_barrier_abort(&side.place->barrier);
        }
        CHECK_IS(end_action(&side, &a), -EPIPE);
        CHECK_IS(pshm_barrier_broken(&side.place->barrier), !reset);
        unmake(&side);
    }
}

static int
die_in_the_action(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    side->acts = true;
    CHECK_IS(arrive(side, &a), 0);
    CHECK(a.action);
    (void)raise(SIGKILL);
    return 1;
}

static void
death_in_the_action_breaks_it(void)
{
    for (int acts = 0; acts < 2; acts++) {
        struct side side = make(PARTIES);
        side.acts = acts;
        pid_t pids[3];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(find_it_broken, &side);
        }
        await(&side.place->waiting, 2);
        CHECK_IS(child_run(die_in_the_action, &side), -SIGKILL);
        /* also for a party that arrives then */
        pids[2] = child_start(find_it_broken, &side);
        wait_for_all(pids, 3);
        CHECK(pshm_barrier_broken(&side.place->barrier));
        pshm_barrier_reset(&side.place->barrier);
        side.acts = true;
        together(PARTIES, meet_once, &side);
        unmake(&side);
    }
}

/* ---- other deaths ---- */

static int
die_before_the_wake(void *context)
{
    struct side *side = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    (void)meet(side);
    return 1;
}

static int
reset_and_die_before_the_wake(void *context)
{
    struct side *side = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_barrier_reset(&side->place->barrier);
    return 1;
}

static int
abort_and_die_before_the_wake(void *context)
{
    struct side *side = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_barrier_abort(&side->place->barrier);
    return 1;
}

static void
killed_before_the_wake_it_has_happened(void)
{
    int (*const ends[])(void *) = {
        die_before_the_wake, reset_and_die_before_the_wake,
        abort_and_die_before_the_wake};
    for (size_t end = 0; end < COUNT(ends); end++) {
        check_about("end %zu", end);
        struct side side = make(PARTIES);
        pid_t pids[2];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(end == 0 ? meet_once : find_it_broken,
                                  &side);
        }
        await(&side.place->waiting, 2);
        CHECK_IS(child_run(ends[end], &side), -SIGKILL);
        wait_for_all(pids, 2);
        CHECK_IS(pshm_barrier_broken(&side.place->barrier), end == 2);
        unmake(&side);
    }
}

static void
note_signal(int number)
{
    (void)number;
}

static int
meet_until_broken(void *context)
{
    struct side *side = context;
    struct sigaction action = {.sa_handler = note_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    int rc;
    do {
        rc = meet(side);
        (void)atomic_fetch_add(&side->place->rounds, rc >= 0);
    } while (rc >= 0);
    CHECK(rc == -EPIPE || rc == -EINTR);
    return 0;
}

/* A signal ends the sleep early, as it would a caller's. */
static void
tell_that_one_is_missed(struct side *side, pid_t survivor)
{
    int status = -1;
    pid_t ended = 0;
    atomic_store(&side->place->one_is_missed, 1);
    for (int64_t deadline = before_long();
         ended == 0 && pshm_now() < deadline;) {
        (void)kill(survivor, SIGUSR1);
        (void)usleep(100);
        ended = waitpid(survivor, &status, WNOHANG);
    }
    CHECK_IS(ended, survivor);
    CHECK_IS(status, 0);
}

/* A party that arrived and was killed counts for its generation, and is
 * missing in the next one. */
static void
killed_at_any_moment_the_others_are_told(void)
{
    struct side side = make(PARTIES);
    struct place *place = side.place;
    for (int generation = 0; generation < ROUNDS(200); generation++) {
        check_about("generation %d", generation);
        pid_t pids[PARTIES];
        side.acts = generation % 2;
        unsigned rounds = atomic_load(&place->rounds);
        for (int i = 0; i < PARTIES; i++) {
            pids[i] = child_start(meet_until_broken, &side);
        }
        await(&place->rounds, rounds + 2 * PARTIES);
        kill_within(pids[generation % PARTIES], 300);
        for (int i = 1; i < PARTIES; i++) {
            tell_that_one_is_missed(&side, pids[(generation + i) % PARTIES]);
        }
        CHECK(pshm_barrier_broken(&place->barrier));
        pshm_barrier_reset(&place->barrier);
        CHECK(!pshm_barrier_broken(&place->barrier));
        atomic_store(&place->one_is_missed, 0);
        atomic_store(&place->in_action, 0);
    }
    unmake(&side);
}

/* All end, with or without an error, while another process resets it again and
 * again. */
static int
meet_whatever_is_said(void *context)
{
    struct side *side = context;
    for (int i = 0; i < ROUNDS(1000); i++) {
        int rc = meet(side);
        CHECK(rc >= 0 || rc == -EPIPE);
    }
    (void)atomic_fetch_add(&side->place->ended, 1);
    return 0;
}

static int
reset_until_all_have_ended(void *context)
{
    struct side *side = context;
    while (atomic_load(&side->place->ended) < PARTIES) {
        pshm_barrier_reset(&side->place->barrier);
        (void)usleep(random_below(50));
    }
    return 0;
}

static int
meet_or_reset(void *context)
{
    struct side *side = context;
    return atomic_fetch_add(&side->place->acting, 1) == PARTIES
               ? reset_until_all_have_ended(side)
               : meet_whatever_is_said(side);
}

static void
resets_at_any_moment_let_nobody_hang(void)
{
    struct side side = make(PARTIES);
    together(PARTIES + 1, meet_or_reset, &side);
    unmake(&side);
}

/* ---- two at once, the second one at each step of the first one ---- */

/* One party is there already if there is room for more. */
static void
begin_meeting(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    unsigned parties = place->barrier.parties;
    place->barrier = (struct pshm_barrier){.parties = parties};
    place->results[0] = place->results[1] = 1;
    if (parties > 1) {
        CHECK_IS(arrive(side, &place->old), 0);
    }
}

static int
outcome_of_old(struct side *side)
{
    return pshm_barrier_wait(&side->place->barrier, &side->place->old,
                             &side->place->runner, &side->mstate, 0);
}

static void
arrive_first(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    place->results[0] = arrive(side, &place->arrivals[0]);
}

static void
arrive_second(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    place->results[1] = arrive(side, &place->arrivals[1]);
}

static void
run_the_action(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    place->results[0] = arrive(side, &place->arrivals[0]);
    if (place->results[0] == 0) {
        place->results[0] = end_action(side, &place->arrivals[0]);
    }
}

static void
fail_in_the_action(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    place->results[0] = arrive(side, &place->arrivals[0]);
    if (place->results[0] == 0) {
        pshm_barrier_fail(&place->barrier, &place->runner, &side->mstate,
                          &place->arrivals[0]);
    }
}

static void
reset_it(void *context)
{
    struct side *side = context;
    pshm_barrier_reset(&side->place->barrier);
}

static void
abort_it(void *context)
{
    struct side *side = context;
    pshm_barrier_abort(&side->place->barrier);
}

static void
miss_it(void *context)
{
    struct side *side = context;
    pshm_barrier_miss(&side->place->barrier);
}

static void
abandon_the_old_one(void *context)
{
    struct side *side = context;
    pshm_barrier_leave(&side->place->barrier, &side->place->old);
}

static void
meet_in(unsigned parties, bool acts, void (*first)(void *),
        void (*second)(void *), void (*end)(void *))
{
    struct side side = make(parties);
    side.acts = acts;
    meet_at_each_step(&(struct meeting){begin_meeting, first, second, end},
                      &side);
    unmake(&side);
}

static void
both_have_arrived(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    CHECK(place->results[0] == 0 && place->results[1] == 0);
    CHECK_IS(place->arrivals[0].index + place->arrivals[1].index, 3);
    CHECK(place->arrivals[0].last != place->arrivals[1].last);
    CHECK_IS(outcome_of_old(side), 0);
    CHECK_IS(pshm_barrier_waiting(&place->barrier), 0);
}

static void
two_that_arrive_at_once_have_two_places(void)
{
    meet_in(3, false, arrive_first, arrive_second, both_have_arrived);
}

/* The last party ended the generation, or the reset did before. */
static void
round_has_ended_once(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    const struct pshm_arrival *a = &place->arrivals[0];
    CHECK_IS(place->results[0], 0);
    CHECK_IS(outcome_of_old(side), a->last ? 0 : -EPIPE);
    CHECK(a->last || a->index == 0);
    CHECK(!pshm_barrier_broken(&place->barrier));
}

static void
last_one_arrives_or_it_is_reset(void)
{
    meet_in(2, false, arrive_first, reset_it, round_has_ended_once);
}

static void
it_is_empty_in_the_next_round(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    CHECK_IS(outcome_of_old(side), -EPIPE);
    CHECK(!pshm_barrier_broken(&side->place->barrier));
    CHECK_IS(arrive(side, &a), 0);
    CHECK(a.index == 0 && a.generation == side->place->old.generation + 1);
}

/* ... with an action, for which the last party holds the runner. */
static void
round_has_ended_once_and_the_runner_is_free(void *context)
{
    struct side *side = context;
    const struct pshm_arrival *a = &side->place->arrivals[0];
    CHECK_IS(side->place->results[0], 0);
    CHECK(a->action || a->index == 0);
    int rc = a->action ? end_action(side, a) : -EPIPE;
    CHECK_IS(outcome_of_old(side), rc);
    CHECK_IS(try_runner(side), 0);
}

static void
last_one_acts_or_it_is_reset(void)
{
    meet_in(2, true, arrive_first, reset_it,
            round_has_ended_once_and_the_runner_is_free);
}

static void
arrive_twice(void *context)
{
    struct side *side = context;
    for (int i = 0; i < 2; i++) {
        CHECK_IS(arrive(side, &side->place->arrivals[i]), 0);
    }
}

/* The reset ends the generation that it found, and no other one. */
static void
reset_ended_at_most_one_round(void *context)
{
    struct side *side = context;
    const struct pshm_arrival *arrivals = side->place->arrivals;
    bool came_first = outcome_of_old(side) == -EPIPE;
    CHECK_IS(arrivals[0].last, !came_first);
    CHECK_IS(arrivals[1].last, came_first);
    CHECK(!pshm_barrier_broken(&side->place->barrier));
}

static void
reset_as_the_next_round_begins(void)
{
    meet_in(2, false, reset_it, arrive_twice, reset_ended_at_most_one_round);
}

static void
two_resets_at_once_are_one(void)
{
    meet_in(3, false, reset_it, reset_it, it_is_empty_in_the_next_round);
}

static void
round_is_over(void *context)
{
    CHECK_IS(outcome_of_old(context), -EPIPE);
}

static void
abort_and_reset_at_once_end_the_round(void)
{
    meet_in(3, false, abort_it, reset_it, round_is_over);
    meet_in(3, false, reset_it, abort_it, round_is_over);
    meet_in(3, false, abandon_the_old_one, reset_it, round_is_over);
}

static void
it_is_broken(void *context)
{
    struct side *side = context;
    int rc = side->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE || rc == 1);
    CHECK(pshm_barrier_broken(&side->place->barrier));
    CHECK_IS(try_runner(side), 0);
}

static void
who_arrives_at_once_with_an_abort_finds_it_broken(void)
{
    meet_in(3, false, arrive_first, abort_it, it_is_broken);
    meet_in(3, false, abort_it, arrive_second, it_is_broken);
}

/* Another process has set the flag of a reset and does not go on. */
static void
begin_with_a_reset(void *context)
{
    struct side *side = context;
    begin_meeting(side);
    (void)atomic_fetch_or(&side->place->barrier.state, reset_flag);
}

static void
arrive_and_begin_a_reset(void *context)
{
    struct side *side = context;
    if (arrive(side, &side->place->arrivals[1]) == 0) {
        (void)atomic_fetch_or(&side->place->barrier.state, reset_flag);
    }
}

static void
abort_completes_each_reset_before(void)
{
    struct side side = make(3);
    meet_at_each_step(&(struct meeting){begin_with_a_reset, abort_it,
                                        arrive_and_begin_a_reset,
                                        round_is_over},
                      &side);
    unmake(&side);
}

/* In the action's generation, or in the next one. */
static void
abort_at_any_step_of_an_action_breaks_it(void)
{
    meet_in(1, true, run_the_action, abort_it, it_is_broken);
}

static void
missing_party_at_any_step_of_an_action_breaks_it(void)
{
    meet_in(1, true, run_the_action, miss_it, it_is_broken);
    meet_in(1, true, fail_in_the_action, miss_it, it_is_broken);
}

static void
begin_an_action(void *context)
{
    struct side *side = context;
    begin_meeting(side);
    CHECK_IS(arrive(side, &side->place->arrivals[0]), 0);
}

static void
end_the_action(void *context)
{
    struct side *side = context;
    side->place->results[0] = end_action(side, &side->place->arrivals[0]);
}

static void
missing_party_as_an_action_ends_breaks_it(void)
{
    struct side side = make(1);
    side.acts = true;
    meet_at_each_step(&(struct meeting){begin_an_action, miss_it,
                                        end_the_action, it_is_broken},
                      &side);
    unmake(&side);
}

static int
die_in_the_action_if_there_is_none(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    int rc = arrive_until(side, 0, &a);
    if (rc == 0) {
        (void)raise(SIGKILL);
    }
    CHECK_IS(rc, -ETIMEDOUT);
    return 0;
}

static void
die_in_the_action_of_another_process(void *context)
{
    int status = child_run(die_in_the_action_if_there_is_none, context);
    CHECK(status == 0 || status == -SIGKILL);
}

static void
it_works_after_a_reset(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    int rc = side->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE || rc == -EAGAIN);
    pshm_barrier_reset(&side->place->barrier);
    CHECK_IS(arrive(side, &a), 0);
    CHECK_IS(end_action(side, &a), 0);
}

static void
death_in_the_action_as_another_one_arrives(void)
{
    meet_in(1, true, run_the_action, die_in_the_action_of_another_process,
            it_works_after_a_reset);
}

static void
it_is_whole_and_empty(void *context)
{
    struct side *side = context;
    struct pshm_arrival a;
    int rc = side->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE);
    CHECK(!pshm_barrier_broken(&side->place->barrier));
    CHECK_IS(arrive(side, &a), 0);
    CHECK(a.action);
    CHECK_IS(end_action(side, &a), 0);
}

static void
reset_at_any_step_of_an_action_makes_it_whole(void)
{
    meet_in(1, true, run_the_action, reset_it, it_is_whole_and_empty);
}

static int
act_or_be_late(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    place->results[1] = arrive_until(side, 0, &place->arrivals[1]);
    if (place->results[1] == 0) {
        place->results[1] = end_action(side, &place->arrivals[1]);
    }
    return 0;
}

static void
arrive_in_another_process(void *context)
{
    CHECK_IS(child_run(act_or_be_late, context), 0);
}

static void
both_have_acted_or_one_came_too_late(void *context)
{
    struct side *side = context;
    struct place *place = side->place;
    CHECK_IS(place->results[0], 0);
    CHECK(place->results[1] == 0 || place->results[1] == -ETIMEDOUT);
    CHECK_IS(pshm_barrier_waiting(&place->barrier), 0);
    CHECK_IS(try_runner(side), 0);
}

static void
two_actions_at_once_come_one_after_the_other(void)
{
    meet_in(1, true, run_the_action, arrive_in_another_process,
            both_have_acted_or_one_came_too_late);
}

static void
old_one_is_told_what_the_last_one_found(void *context)
{
    struct side *side = context;
    int rc = side->place->results[1];
    CHECK(rc == 0 || rc == -EPIPE);
    CHECK_IS(outcome_of_old(side), rc);
    CHECK_IS(pshm_barrier_broken(&side->place->barrier), rc == -EPIPE);
}

static void
who_abandons_it_as_the_last_one_arrives(void)
{
    meet_in(2, false, abandon_the_old_one, arrive_second,
            old_one_is_told_what_the_last_one_found);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(nobody_passes_before_all_are_there);
    RUN(rounds_go_on_past_the_last_number);
    RUN(waits_end_in_time);
    RUN(who_abandons_it_breaks_it_for_all);
    RUN(abandoning_an_older_round_changes_nothing);
    RUN(aborted_or_reset_it_lets_nobody_wait_on);
    RUN(reset_is_remembered_for_its_round);
    RUN(who_arrives_completes_a_reset);
    RUN(no_one_arrives_during_an_action);
    RUN(action_of_a_broken_barrier_lets_nobody_go_on);
    RUN(death_in_the_action_breaks_it);
    RUN(killed_before_the_wake_it_has_happened);
    RUN(killed_at_any_moment_the_others_are_told);
    RUN(resets_at_any_moment_let_nobody_hang);
    RUN(two_that_arrive_at_once_have_two_places);
    RUN(last_one_arrives_or_it_is_reset);
    RUN(last_one_acts_or_it_is_reset);
    RUN(reset_as_the_next_round_begins);
    RUN(two_resets_at_once_are_one);
    RUN(abort_completes_each_reset_before);
    RUN(abort_and_reset_at_once_end_the_round);
    RUN(who_arrives_at_once_with_an_abort_finds_it_broken);
    RUN(abort_at_any_step_of_an_action_breaks_it);
    RUN(missing_party_at_any_step_of_an_action_breaks_it);
    RUN(missing_party_as_an_action_ends_breaks_it);
    RUN(death_in_the_action_as_another_one_arrives);
    RUN(reset_at_any_step_of_an_action_makes_it_whole);
    RUN(two_actions_at_once_come_one_after_the_other);
    RUN(who_abandons_it_as_the_last_one_arrives);
    return finish();
}
