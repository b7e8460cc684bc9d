#include "check.h"
#include "peers.h"
#include "posix/sync/barrier.h"
#include "posix/host.h"

enum { PARTIES = 3 };

struct place {
    struct pshm_barrier barrier;
    struct pshm_robust runner;
    atomic_uint waiting;
    struct pshm_arrival old;            /* arrived before the two calls */
    struct pshm_arrival arrivals[2];    /* of the two calls */
    int results[2];
};

struct peer {
    struct place *place;
    struct pshm_mutex_state mstate;
    bool acts;
};

static struct peer
make(unsigned parties)
{
    struct peer peer = {.place = shared_memory(sizeof(struct place))};
    peer.place->barrier.parties = parties;
    CHECK_IS(pshm_robust_init(&peer.place->runner, 0), 0);
    CHECK_IS(pshm_robust_open(&peer.place->runner, 0, &peer.mstate), 0);
    return peer;
}

static void
unmake(struct peer *peer)
{
    CHECK(munmap(peer->place, sizeof(struct place)) == 0);
}

/* ---- a party, as barrier.h describes it ---- */

static int
wait_until(struct peer *peer, const struct pshm_arrival *a, int64_t deadline)
{
    return pshm_barrier_wait(&peer->place->barrier, a, &peer->place->runner,
                             &peer->mstate, deadline);
}

static int
arrive_until(struct peer *peer, int64_t deadline, struct pshm_arrival *a)
{
    return pshm_barrier_arrive(&peer->place->barrier, &peer->place->runner,
                               &peer->mstate, peer->acts, deadline, a);
}

/* Arrive while no action is running. */
static int
arrive(struct peer *peer, struct pshm_arrival *a)
{
    return arrive_until(peer, before_long(), a);
}

static int
end_action(struct peer *peer, const struct pshm_arrival *a)
{
    return pshm_barrier_done(&peer->place->barrier, &peer->place->runner,
                             &peer->mstate, a);
}

/* Is the runner unlocked? */
static int
try_runner(struct peer *peer)
{
    int rc = pshm_robust_try(&peer->place->runner, &peer->mstate);
    if (rc == 0) {
        rc = pshm_robust_unlock(&peer->place->runner, &peer->mstate);
    }
    return rc;
}

/* Without an action. */
static int
meet(struct peer *peer)
{
    struct pshm_arrival a;
    int rc = arrive(peer, &a);
    (void)atomic_fetch_add(&peer->place->waiting, 1);
    if (rc == 0 && !a.last) {
        PATIENTLY(rc, wait_until(peer, &a, before_long()));
    }
    return rc;
}

/* ---- generations ---- */

static void
generation_wraps_around(void)
{
    struct peer peer = make(1);
    struct pshm_barrier *barrier = &peer.place->barrier;
    struct pshm_arrival a;
    barrier->state = UINT64_C(0xfffffffe) << 32;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(arrive(&peer, &a), 0);
        CHECK(a.last && !a.action && a.index == 0);
        CHECK_IS(a.generation, 0xfffffffeU + (unsigned)i);
        CHECK_IS(wait_until(&peer, &a, 0), 0);
    }
    CHECK(barrier->state == UINT64_C(2) << 32);
    unmake(&peer);
}

/* ---- a broken barrier ---- */

static int
meet_broken(void *context)
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

static void
wait_for_all(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_IS(child_wait(pids[i]), 0);
    }
}

static void
leaving_an_older_generation_does_nothing(void)
{
    struct peer peer = make(1);
    struct pshm_arrival a;
    CHECK_IS(arrive(&peer, &a), 0);
    pshm_barrier_break(&peer.place->barrier, &a);
    CHECK(!pshm_barrier_broken(&peer.place->barrier));
    CHECK_IS(end_action(&peer, &a), -EPIPE);
    unmake(&peer);
}

/* A reset ends the wait of the parties that had arrived, but not of later
 * ones. */
static void
reset_affects_only_its_generation(void)
{
    struct peer peer = make(2);
    struct pshm_barrier *barrier = &peer.place->barrier;
    struct pshm_arrival old, first, second;
    pshm_barrier_reset(barrier);        /* no party has arrived */
    CHECK_IS(barrier->state, 0);
    CHECK_IS(arrive(&peer, &old), 0);
    pshm_barrier_reset(barrier);
    CHECK_IS(arrive(&peer, &first), 0);
    CHECK_IS(arrive(&peer, &second), 0);
    CHECK(second.last && first.generation == second.generation);
    CHECK_IS(wait_until(&peer, &first, 0), 0);
    CHECK_IS(wait_until(&peer, &old, 0), -EPIPE);
    unmake(&peer);
}

static const uint64_t reset_flag = UINT64_C(1) << 29;

/* The flag of a reset is set, as if a process were stopped between its two
 * steps. */
static void
arriving_party_completes_a_reset(void)
{
    struct peer peer = make(2);
    struct pshm_barrier *barrier = &peer.place->barrier;
    struct pshm_arrival old, first, last;
    CHECK_IS(arrive(&peer, &old), 0);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    CHECK(!pshm_barrier_broken(barrier));
    CHECK_IS(pshm_barrier_waiting(barrier), 0);
    CHECK_IS(wait_until(&peer, &old, 0), -EPIPE);
    CHECK_IS(arrive(&peer, &first), 0);
    CHECK(first.index == 0 && first.generation == old.generation + 1);
    CHECK_IS(wait_until(&peer, &old, 0), -EPIPE);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_break(barrier, &first);      /* the reset has ended its
                                                 generation */
    CHECK(!pshm_barrier_broken(barrier));
    CHECK_IS(arrive(&peer, &first), 0);
    CHECK_IS(arrive(&peer, &last), 0);
    CHECK(last.last && wait_until(&peer, &first, 0) == 0);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_break(barrier, NULL);
    CHECK(pshm_barrier_broken(barrier));
    CHECK_IS(arrive(&peer, &first), -EPIPE);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_reset(barrier);
    CHECK_IS(arrive(&peer, &first), 0);
    unmake(&peer);
}

/* ---- actions ---- */

static int
miss_the_action(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    CHECK_IS(arrive_until(peer, 0, &a), -ETIMEDOUT);
    CHECK_IS(arrive(peer, &a), -EAGAIN);
    CHECK_IS(a.generation, 0);
    CHECK_IS(wait_until(peer, &a, in_ms(20)), -ETIMEDOUT);
    pshm_barrier_miss(&peer->place->barrier);
    return 0;
}

static void
no_party_arrives_during_an_action(void)
{
    for (int misses = 0; misses < 2; misses++) {
        struct peer peer = make(1);
        struct pshm_barrier *barrier = &peer.place->barrier;
        struct pshm_arrival acting, a;
        peer.acts = true;
        CHECK_IS(arrive(&peer, &acting), 0);
        CHECK(acting.last && acting.action);
        CHECK_IS(arrive(&peer, &a), -EDEADLK);
        if (misses) {
            CHECK_IS(child_run(miss_the_action, &peer), 0);
            CHECK(!pshm_barrier_broken(barrier));
        }
        CHECK_IS(end_action(&peer, &acting), 0);
        CHECK_IS(wait_until(&peer, &acting, 0), 0);
        CHECK_IS(pshm_barrier_broken(barrier), misses);
        CHECK_IS(arrive(&peer, &a), misses ? -EPIPE : 0);
        if (!misses) {
            CHECK_IS(end_action(&peer, &a), 0); /* otherwise its memory stays
                                                   locked */
        }
        unmake(&peer);
    }
}

static void
action_of_a_broken_barrier_fails(void)
{
    for (int reset = 0; reset < 2; reset++) {
        struct peer peer = make(1);
        struct pshm_arrival a;
        peer.acts = true;
        CHECK_IS(arrive(&peer, &a), 0);
        if (reset) {
            pshm_barrier_reset(&peer.place->barrier);
        }
        else {
            pshm_barrier_break(&peer.place->barrier, NULL);
        }
        CHECK_IS(end_action(&peer, &a), -EPIPE);
        CHECK_IS(pshm_barrier_broken(&peer.place->barrier), !reset);
        unmake(&peer);
    }
}

/* ---- other deaths ---- */

static int
die_before_the_wake(void *context)
{
    struct peer *peer = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    (void)meet(peer);
    return 1;
}

static int
reset_and_die_before_the_wake(void *context)
{
    struct peer *peer = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_barrier_reset(&peer->place->barrier);
    return 1;
}

static int
abort_and_die_before_the_wake(void *context)
{
    struct peer *peer = context;
    pshm_fault_arm("futex", 1, PSHM_FAULT_KILL_BEFORE, 0);
    pshm_barrier_break(&peer->place->barrier, NULL);
    return 1;
}

static void
step_of_a_process_killed_before_its_wake_counts(void)
{
    int (*const ends[])(void *) = {
        die_before_the_wake, reset_and_die_before_the_wake,
        abort_and_die_before_the_wake};
    for (size_t end = 0; end < COUNT(ends); end++) {
        check_about("end %zu", end);
        struct peer peer = make(PARTIES);
        pid_t pids[2];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(end == 0 ? meet_once : meet_broken,
                                  &peer);
        }
        await(&peer.place->waiting, 2);
        CHECK_IS(child_run(ends[end], &peer), -SIGKILL);
        wait_for_all(pids, 2);
        CHECK_IS(pshm_barrier_broken(&peer.place->barrier), end == 2);
        unmake(&peer);
    }
}

/* ---- two calls at once, the second at each step of the first ---- */

/* One party has already arrived, unless there is only one. */
static void
begin_meeting(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    unsigned parties = place->barrier.parties;
    place->barrier = (struct pshm_barrier){.parties = parties};
    place->results[0] = place->results[1] = 1;
    if (parties > 1) {
        CHECK_IS(arrive(peer, &place->old), 0);
    }
}

static int
result_of_old(struct peer *peer)
{
    return wait_until(peer, &peer->place->old, 0);
}

static void
arrive_first(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    place->results[0] = arrive(peer, &place->arrivals[0]);
}

static void
arrive_second(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    place->results[1] = arrive(peer, &place->arrivals[1]);
}

static void
run_the_action(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    place->results[0] = arrive(peer, &place->arrivals[0]);
    if (place->results[0] == 0) {
        place->results[0] = end_action(peer, &place->arrivals[0]);
    }
}

static void
fail_in_the_action(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    place->results[0] = arrive(peer, &place->arrivals[0]);
    if (place->results[0] == 0) {
        pshm_barrier_fail(&place->barrier, &place->runner, &peer->mstate,
                          &place->arrivals[0]);
    }
}

static void
reset_it(void *context)
{
    struct peer *peer = context;
    pshm_barrier_reset(&peer->place->barrier);
}

static void
abort_it(void *context)
{
    struct peer *peer = context;
    pshm_barrier_break(&peer->place->barrier, NULL);
}

static void
miss_it(void *context)
{
    struct peer *peer = context;
    pshm_barrier_miss(&peer->place->barrier);
}

static void
leave_old(void *context)
{
    struct peer *peer = context;
    pshm_barrier_break(&peer->place->barrier, &peer->place->old);
}

static void
both_have_arrived(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    CHECK(place->results[0] == 0 && place->results[1] == 0);
    CHECK_IS(place->arrivals[0].index + place->arrivals[1].index, 3);
    CHECK(place->arrivals[0].last != place->arrivals[1].last);
    CHECK_IS(result_of_old(peer), 0);
    CHECK_IS(pshm_barrier_waiting(&place->barrier), 0);
}

/* Either the last party or the reset ended the generation. */
static void
generation_has_ended_once(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    const struct pshm_arrival *a = &place->arrivals[0];
    CHECK_IS(place->results[0], 0);
    CHECK_IS(result_of_old(peer), a->last ? 0 : -EPIPE);
    CHECK(a->last || a->index == 0);
    CHECK(!pshm_barrier_broken(&place->barrier));
}

static void
next_generation_is_empty(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    CHECK_IS(result_of_old(peer), -EPIPE);
    CHECK(!pshm_barrier_broken(&peer->place->barrier));
    CHECK_IS(arrive(peer, &a), 0);
    CHECK(a.index == 0 && a.generation == peer->place->old.generation + 1);
}

/* The same with an action, during which the last party holds the runner. */
static void
generation_has_ended_and_runner_is_unlocked(void *context)
{
    struct peer *peer = context;
    const struct pshm_arrival *a = &peer->place->arrivals[0];
    CHECK_IS(peer->place->results[0], 0);
    CHECK(a->action || a->index == 0);
    int rc = a->action ? end_action(peer, a) : -EPIPE;
    CHECK_IS(result_of_old(peer), rc);
    CHECK_IS(try_runner(peer), 0);
}

static void
arrive_twice(void *context)
{
    struct peer *peer = context;
    for (int i = 0; i < 2; i++) {
        CHECK_IS(arrive(peer, &peer->place->arrivals[i]), 0);
    }
}

/* The reset ends only the generation that it found. */
static void
reset_ended_at_most_one_generation(void *context)
{
    struct peer *peer = context;
    const struct pshm_arrival *arrivals = peer->place->arrivals;
    bool reset_first = result_of_old(peer) == -EPIPE;
    CHECK_IS(arrivals[0].last, !reset_first);
    CHECK_IS(arrivals[1].last, reset_first);
    CHECK(!pshm_barrier_broken(&peer->place->barrier));
}

static void
generation_has_failed(void *context)
{
    CHECK_IS(result_of_old(context), -EPIPE);
}

static void
barrier_is_broken(void *context)
{
    struct peer *peer = context;
    int rc = peer->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE || rc == 1);
    CHECK(pshm_barrier_broken(&peer->place->barrier));
    CHECK_IS(try_runner(peer), 0);
}

/* Another process has set the flag of a reset and has stopped. */
static void
begin_with_a_reset(void *context)
{
    struct peer *peer = context;
    begin_meeting(peer);
    (void)atomic_fetch_or(&peer->place->barrier.state, reset_flag);
}

static void
arrive_and_begin_a_reset(void *context)
{
    struct peer *peer = context;
    if (arrive(peer, &peer->place->arrivals[1]) == 0) {
        (void)atomic_fetch_or(&peer->place->barrier.state, reset_flag);
    }
}

static void
begin_an_action(void *context)
{
    struct peer *peer = context;
    begin_meeting(peer);
    CHECK_IS(arrive(peer, &peer->place->arrivals[0]), 0);
}

static void
end_the_action(void *context)
{
    struct peer *peer = context;
    peer->place->results[0] = end_action(peer, &peer->place->arrivals[0]);
}

static int
die_in_own_action(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    int rc = arrive_until(peer, 0, &a);
    if (rc == 0) {
        (void)raise(SIGKILL);
    }
    CHECK_IS(rc, -ETIMEDOUT);
    return 0;
}

static void
die_in_another_process(void *context)
{
    int status = child_run(die_in_own_action, context);
    CHECK(status == 0 || status == -SIGKILL);
}

static void
barrier_works_after_a_reset(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    int rc = peer->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE || rc == -EAGAIN);
    pshm_barrier_reset(&peer->place->barrier);
    CHECK_IS(arrive(peer, &a), 0);
    CHECK_IS(end_action(peer, &a), 0);
}

static void
barrier_is_intact_and_empty(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    int rc = peer->place->results[0];
    CHECK(rc == 0 || rc == -EPIPE);
    CHECK(!pshm_barrier_broken(&peer->place->barrier));
    CHECK_IS(arrive(peer, &a), 0);
    CHECK(a.action);
    CHECK_IS(end_action(peer, &a), 0);
}

static int
act_or_time_out(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    place->results[1] = arrive_until(peer, 0, &place->arrivals[1]);
    if (place->results[1] == 0) {
        place->results[1] = end_action(peer, &place->arrivals[1]);
    }
    return 0;
}

static void
arrive_in_another_process(void *context)
{
    CHECK_IS(child_run(act_or_time_out, context), 0);
}

static void
both_have_acted_or_one_timed_out(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    CHECK_IS(place->results[0], 0);
    CHECK(place->results[1] == 0 || place->results[1] == -ETIMEDOUT);
    CHECK_IS(pshm_barrier_waiting(&place->barrier), 0);
    CHECK_IS(try_runner(peer), 0);
}

static void
both_parties_got_the_same_result(void *context)
{
    struct peer *peer = context;
    int rc = peer->place->results[1];
    CHECK(rc == 0 || rc == -EPIPE);
    CHECK_IS(result_of_old(peer), rc);
    CHECK_IS(pshm_barrier_broken(&peer->place->barrier), rc == -EPIPE);
}

static void
calls_may_meet_at_each_step(void)
{
    static const struct {
        const char *about;
        unsigned parties;
        bool acts;
        struct meeting meeting;
    } cases[] = {
        {"two parties get different indexes", 3, false,
         {begin_meeting, arrive_first, arrive_second, both_have_arrived}},
        {"the last party or a reset ends the generation", 2, false,
         {begin_meeting, arrive_first, reset_it, generation_has_ended_once}},
        {"the last party runs the action, or a reset wins", 2, true,
         {begin_meeting, arrive_first, reset_it,
          generation_has_ended_and_runner_is_unlocked}},
        {"a reset as the next generation begins", 2, false,
         {begin_meeting, reset_it, arrive_twice,
          reset_ended_at_most_one_generation}},
        {"two resets are one", 3, false,
         {begin_meeting, reset_it, reset_it, next_generation_is_empty}},
        {"an abort completes an earlier reset", 3, false,
         {begin_with_a_reset, abort_it, arrive_and_begin_a_reset,
          generation_has_failed}},
        {"an abort and a reset", 3, false,
         {begin_meeting, abort_it, reset_it, generation_has_failed}},
        {"a reset and an abort", 3, false,
         {begin_meeting, reset_it, abort_it, generation_has_failed}},
        {"a party leaves during a reset", 3, false,
         {begin_meeting, leave_old, reset_it, generation_has_failed}},
        {"a party arrives, and an abort", 3, false,
         {begin_meeting, arrive_first, abort_it, barrier_is_broken}},
        {"an abort, and a party arrives", 3, false,
         {begin_meeting, abort_it, arrive_second, barrier_is_broken}},
        {"a party leaves as the last one arrives", 2, false,
         {begin_meeting, leave_old, arrive_second,
          both_parties_got_the_same_result}},
        /* The abort breaks the generation of the action or the next one. */
        {"an abort during an action", 1, true,
         {begin_meeting, run_the_action, abort_it, barrier_is_broken}},
        {"a party misses an action", 1, true,
         {begin_meeting, run_the_action, miss_it, barrier_is_broken}},
        {"a party misses an action that fails", 1, true,
         {begin_meeting, fail_in_the_action, miss_it, barrier_is_broken}},
        {"a party misses an action as it ends", 1, true,
         {begin_an_action, miss_it, end_the_action, barrier_is_broken}},
        {"a reset during an action", 1, true,
         {begin_meeting, run_the_action, reset_it,
          barrier_is_intact_and_empty}},
        {"a death in another action", 1, true,
         {begin_meeting, run_the_action, die_in_another_process,
          barrier_works_after_a_reset}},
        {"two actions", 1, true,
         {begin_meeting, run_the_action, arrive_in_another_process,
          both_have_acted_or_one_timed_out}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct peer peer = make(cases[i].parties);
        peer.acts = cases[i].acts;
        meet_about(cases[i].about, &cases[i].meeting, &peer);
        unmake(&peer);
    }
}

int
main(void)
{
    pshm_forks_watch();
    RUN(generation_wraps_around);
    RUN(leaving_an_older_generation_does_nothing);
    RUN(reset_affects_only_its_generation);
    RUN(arriving_party_completes_a_reset);
    RUN(no_party_arrives_during_an_action);
    RUN(action_of_a_broken_barrier_fails);
    RUN(step_of_a_process_killed_before_its_wake_counts);
    RUN(calls_may_meet_at_each_step);
    return finish();
}
