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
    atomic_uint party_died;          /* then the waiter stops waiting */
    atomic_uint indexes[PARTIES];        /* how often each index was returned */
    struct pshm_arrival old;            /* arrived before the two calls */
    struct pshm_arrival arrivals[2];    /* of the two calls */
    int results[2];
};

struct peer {
    struct place *place;
    struct pshm_mutex_state mstate;
    bool acts;
    int64_t patience;                   /* ms, or 0: before_long */
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

static int64_t
deadline_of(const struct peer *peer)
{
    return peer->patience > 0 ? in_ms(peer->patience) : before_long();
}

/* ---- a party, as barrier.h describes it ---- */

static int
wait_for_end(struct peer *peer, const struct pshm_arrival *a)
{
    return pshm_barrier_wait(&peer->place->barrier, a, &peer->place->runner,
                             &peer->mstate, deadline_of(peer));
}

static int
await_generation(struct peer *peer, const struct pshm_arrival *a)
{
    int rc;
    int64_t deadline = deadline_of(peer);
    do {
        rc = pshm_barrier_wait(&peer->place->barrier, a, &peer->place->runner,
                               &peer->mstate, deadline);
    } while (rc == -EINTR && atomic_load(&peer->place->party_died) == 0);
    if (rc < 0) {
        pshm_barrier_leave(&peer->place->barrier, a);
    }
    return rc;
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

static int
run_action(struct peer *peer, const struct pshm_arrival *a)
{
    CHECK_IS(atomic_fetch_add(&peer->place->in_action, 1), 0);
    (void)atomic_fetch_add(&peer->place->acting, 1);
    if (random_below(4) == 0) {
        (void)sched_yield();
    }
    (void)atomic_fetch_sub(&peer->place->in_action, 1);
    return end_action(peer, a);
}

/* Returns the index; or -EPIPE, -ETIMEDOUT or -EINTR. */
static int
meet(struct peer *peer)
{
    struct pshm_arrival a;
    int64_t deadline = deadline_of(peer);
    int rc;
    do {
        rc = arrive_until(peer, deadline, &a);
        if (rc == -EAGAIN) {
            rc = pshm_barrier_wait(&peer->place->barrier, &a,
                                   &peer->place->runner, &peer->mstate,
                                   deadline);
            rc = rc == 0 || rc == -EPIPE ? -EINTR : rc;
        }
    } while (rc == -EINTR && atomic_load(&peer->place->party_died) == 0);
    if (rc == -ETIMEDOUT || rc == -EINTR) {
        pshm_barrier_miss(&peer->place->barrier);
    }
    if (rc == 0) {
        (void)atomic_fetch_add(&peer->place->waiting, 1);
        rc = a.action ? run_action(peer, &a)
             : a.last ? 0 : await_generation(peer, &a);
    }
    return rc < 0 ? rc : (int)a.index;
}

/* ---- generations ---- */

/* No party is a generation ahead of another. */
static int
meet_many_times(void *context)
{
    struct peer *peer = context;
    struct place *place = peer->place;
    for (unsigned i = 0; i < (unsigned)ROUNDS(3000); i++) {
        unsigned begun = atomic_fetch_add(&place->rounds, 1);
        CHECK(begun >= i * PARTIES && begun < (i + 1) * PARTIES);
        int rc = meet(peer);
        if (!CHECK(rc >= 0 && rc < PARTIES)) {
            return 1;
        }
        (void)atomic_fetch_add(&place->indexes[rc], 1);
        CHECK(atomic_load(&place->rounds) >= (i + 1) * PARTIES);
        if (peer->acts) {
            CHECK(atomic_load(&place->acting) >= i + 1);
        }
    }
    return 0;
}

static void
no_party_continues_before_all_have_arrived(void)
{
    for (int acts = 0; acts < 2; acts++) {
        check_about("action %d", acts);
        struct peer peer = make(PARTIES);
        peer.acts = acts;
        together(PARTIES, meet_many_times, &peer);
        for (int i = 0; i < PARTIES; i++) {
            CHECK_IS(atomic_load(&peer.place->indexes[i]), ROUNDS(3000));
        }
        CHECK_IS(atomic_load(&peer.place->acting),
                 acts ? ROUNDS(3000) : 0);
        CHECK_IS(pshm_barrier_waiting(&peer.place->barrier), 0);
        CHECK(!pshm_barrier_broken(&peer.place->barrier));
        unmake(&peer);
    }
}

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
        CHECK_IS(wait_for_end(&peer, &a), 0);
    }
    CHECK(barrier->state == UINT64_C(2) << 32);
    unmake(&peer);
}

static void
waits_end_in_time(void)
{
    struct peer peer = make(2);
    struct pshm_barrier *barrier = &peer.place->barrier;
    struct pshm_robust *runner = &peer.place->runner;
    struct pshm_arrival a;
    peer.acts = true;
    CHECK_IS(arrive(&peer, &a), 0);
    CHECK(!a.last && !a.action && a.index == 0 && a.generation == 0);
    CHECK_IS(pshm_barrier_waiting(barrier), 1);
    int64_t start = pshm_now();
    CHECK_IS(pshm_barrier_wait(barrier, &a, runner, &peer.mstate,
                               start + 20 * MS),
             -ETIMEDOUT);
    CHECK(took(start, 20));
    start = pshm_now();
    CHECK_IS(pshm_barrier_wait(barrier, &a, runner, &peer.mstate, PSHM_NEVER),
             -EINTR);
    CHECK(took(start, 50));
    CHECK(!pshm_barrier_broken(barrier));
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

static int
time_out(void *context)
{
    struct peer *peer = context;
    peer->patience = 30;
    CHECK_IS(meet(peer), -ETIMEDOUT);
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
party_that_times_out_breaks_the_barrier(void)
{
    struct peer peer = make(PARTIES);
    pid_t pids[2] = {child_start(meet_broken, &peer)};
    await(&peer.place->waiting, 1);
    pids[1] = child_start(time_out, &peer);
    wait_for_all(pids, 2);
    CHECK(pshm_barrier_broken(&peer.place->barrier));
    CHECK_IS(child_run(meet_broken, &peer), 0);

    pshm_barrier_reset(&peer.place->barrier);
    CHECK(!pshm_barrier_broken(&peer.place->barrier));
    CHECK_IS(pshm_barrier_waiting(&peer.place->barrier), 0);
    together(PARTIES, meet_once, &peer);
    unmake(&peer);
}

static void
leaving_an_older_generation_does_nothing(void)
{
    struct peer peer = make(1);
    struct pshm_arrival a;
    CHECK_IS(arrive(&peer, &a), 0);
    pshm_barrier_leave(&peer.place->barrier, &a);
    CHECK(!pshm_barrier_broken(&peer.place->barrier));
    CHECK_IS(end_action(&peer, &a), -EPIPE);
    unmake(&peer);
}

static void
abort_and_reset_end_all_waits(void)
{
    for (int reset = 0; reset < 2; reset++) {
        struct peer peer = make(PARTIES);
        pid_t pids[2];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(meet_broken, &peer);
        }
        await(&peer.place->waiting, 2);
        if (reset) {
            pshm_barrier_reset(&peer.place->barrier);
        }
        else {
            pshm_barrier_abort(&peer.place->barrier);
        }
        wait_for_all(pids, 2);
        CHECK_IS(pshm_barrier_broken(&peer.place->barrier), !reset);
        if (!reset) {
            CHECK_IS(child_run(meet_broken, &peer), 0);
            pshm_barrier_reset(&peer.place->barrier);
        }
        together(PARTIES, meet_once, &peer);
        unmake(&peer);
    }
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
    CHECK_IS(wait_for_end(&peer, &first), 0);
    CHECK_IS(wait_for_end(&peer, &old), -EPIPE);
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
    CHECK_IS(wait_for_end(&peer, &old), -EPIPE);
    CHECK_IS(arrive(&peer, &first), 0);
    CHECK(first.index == 0 && first.generation == old.generation + 1);
    CHECK_IS(wait_for_end(&peer, &old), -EPIPE);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_leave(barrier, &first);      /* the reset has ended its
                                                 generation */
    CHECK(!pshm_barrier_broken(barrier));
    CHECK_IS(arrive(&peer, &first), 0);
    CHECK_IS(arrive(&peer, &last), 0);
    CHECK(last.last && wait_for_end(&peer, &first) == 0);
    (void)atomic_fetch_or(&barrier->state, reset_flag);
    pshm_barrier_abort(barrier);
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
    CHECK_IS(pshm_barrier_wait(&peer->place->barrier, &a,
                               &peer->place->runner, &peer->mstate, in_ms(20)),
             -ETIMEDOUT);
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
        CHECK_IS(wait_for_end(&peer, &acting), 0);
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
            pshm_barrier_abort(&peer.place->barrier);
        }
        CHECK_IS(end_action(&peer, &a), -EPIPE);
        CHECK_IS(pshm_barrier_broken(&peer.place->barrier), !reset);
        unmake(&peer);
    }
}

static int
die_in_the_action(void *context)
{
    struct peer *peer = context;
    struct pshm_arrival a;
    peer->acts = true;
    CHECK_IS(arrive(peer, &a), 0);
    CHECK(a.action);
    (void)raise(SIGKILL);
    return 1;
}

static void
death_in_the_action_breaks_the_barrier(void)
{
    for (int acts = 0; acts < 2; acts++) {
        struct peer peer = make(PARTIES);
        peer.acts = acts;
        pid_t pids[3];
        for (int i = 0; i < 2; i++) {
            pids[i] = child_start(meet_broken, &peer);
        }
        await(&peer.place->waiting, 2);
        CHECK_IS(child_run(die_in_the_action, &peer), -SIGKILL);
        /* a party that arrives later also gets -EPIPE */
        pids[2] = child_start(meet_broken, &peer);
        wait_for_all(pids, 3);
        CHECK(pshm_barrier_broken(&peer.place->barrier));
        pshm_barrier_reset(&peer.place->barrier);
        peer.acts = true;
        together(PARTIES, meet_once, &peer);
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
    pshm_barrier_abort(&peer->place->barrier);
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

static void
note_signal(int number)
{
    (void)number;
}

static int
meet_while_intact(void *context)
{
    struct peer *peer = context;
    struct sigaction action = {.sa_handler = note_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    int rc;
    do {
        rc = meet(peer);
        (void)atomic_fetch_add(&peer->place->rounds, rc >= 0);
    } while (rc >= 0);
    CHECK(rc == -EPIPE || rc == -EINTR);
    return 0;
}

/* A signal ends the sleep early, as it does for a caller of the library. */
static void
interrupt_survivor(struct peer *peer, pid_t survivor)
{
    int status = -1;
    pid_t ended = 0;
    atomic_store(&peer->place->party_died, 1);
    for (int64_t deadline = before_long();
         ended == 0 && pshm_now() < deadline;) {
        (void)kill(survivor, SIGUSR1);
        (void)usleep(100);
        ended = waitpid(survivor, &status, WNOHANG);
    }
    CHECK_IS(ended, survivor);
    CHECK_IS(status, 0);
}

/* A party that is killed after it arrived counts in its generation, and is
 * missing in the next one. */
static void
death_at_any_time_breaks_the_barrier(void)
{
    struct peer peer = make(PARTIES);
    struct place *place = peer.place;
    for (int generation = 0; generation < ROUNDS(200); generation++) {
        check_about("generation %d", generation);
        pid_t pids[PARTIES];
        peer.acts = generation % 2;
        unsigned rounds = atomic_load(&place->rounds);
        for (int i = 0; i < PARTIES; i++) {
            pids[i] = child_start(meet_while_intact, &peer);
        }
        await(&place->rounds, rounds + 2 * PARTIES);
        kill_within(pids[generation % PARTIES], 300);
        for (int i = 1; i < PARTIES; i++) {
            interrupt_survivor(&peer, pids[(generation + i) % PARTIES]);
        }
        CHECK(pshm_barrier_broken(&place->barrier));
        pshm_barrier_reset(&place->barrier);
        CHECK(!pshm_barrier_broken(&place->barrier));
        atomic_store(&place->party_died, 0);
        atomic_store(&place->in_action, 0);
    }
    unmake(&peer);
}

/* All parties continue, with or without an error, while another process resets
 * the barrier again and again. */
static int
meet_and_ignore_errors(void *context)
{
    struct peer *peer = context;
    for (int i = 0; i < ROUNDS(1000); i++) {
        int rc = meet(peer);
        CHECK(rc >= 0 || rc == -EPIPE);
    }
    (void)atomic_fetch_add(&peer->place->ended, 1);
    return 0;
}

static int
reset_while_any_party_runs(void *context)
{
    struct peer *peer = context;
    while (atomic_load(&peer->place->ended) < PARTIES) {
        pshm_barrier_reset(&peer->place->barrier);
        (void)usleep(random_below(50));
    }
    return 0;
}

static int
meet_or_reset(void *context)
{
    struct peer *peer = context;
    return atomic_fetch_add(&peer->place->acting, 1) == PARTIES
               ? reset_while_any_party_runs(peer)
               : meet_and_ignore_errors(peer);
}

static void
resets_at_any_time_leave_no_party_waiting(void)
{
    struct peer peer = make(PARTIES);
    together(PARTIES + 1, meet_or_reset, &peer);
    unmake(&peer);
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
    return pshm_barrier_wait(&peer->place->barrier, &peer->place->old,
                             &peer->place->runner, &peer->mstate, 0);
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
    pshm_barrier_abort(&peer->place->barrier);
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
    pshm_barrier_leave(&peer->place->barrier, &peer->place->old);
}

static void
meet_in(unsigned parties, bool acts, void (*first)(void *),
        void (*second)(void *), void (*end)(void *))
{
    struct peer peer = make(parties);
    peer.acts = acts;
    meet_at_each_step(&(struct meeting){begin_meeting, first, second, end},
                      &peer);
    unmake(&peer);
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

static void
two_parties_at_once_get_different_indexes(void)
{
    meet_in(3, false, arrive_first, arrive_second, both_have_arrived);
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
last_arrival_or_reset_ends_the_generation(void)
{
    meet_in(2, false, arrive_first, reset_it, generation_has_ended_once);
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
last_party_runs_the_action_or_reset_wins(void)
{
    meet_in(2, true, arrive_first, reset_it,
            generation_has_ended_and_runner_is_unlocked);
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
reset_as_the_next_generation_begins(void)
{
    meet_in(2, false, reset_it, arrive_twice,
            reset_ended_at_most_one_generation);
}

static void
two_resets_at_once_are_one(void)
{
    meet_in(3, false, reset_it, reset_it, next_generation_is_empty);
}

static void
generation_has_failed(void *context)
{
    CHECK_IS(result_of_old(context), -EPIPE);
}

static void
abort_and_reset_at_once_end_the_generation(void)
{
    meet_in(3, false, abort_it, reset_it, generation_has_failed);
    meet_in(3, false, reset_it, abort_it, generation_has_failed);
    meet_in(3, false, leave_old, reset_it, generation_has_failed);
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

static void
arrival_during_an_abort_finds_it_broken(void)
{
    meet_in(3, false, arrive_first, abort_it, barrier_is_broken);
    meet_in(3, false, abort_it, arrive_second, barrier_is_broken);
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
abort_completes_an_earlier_reset(void)
{
    struct peer peer = make(3);
    meet_at_each_step(&(struct meeting){begin_with_a_reset, abort_it,
                                        arrive_and_begin_a_reset,
                                        generation_has_failed},
                      &peer);
    unmake(&peer);
}

/* The abort breaks the generation of the action or the next one. */
static void
abort_at_any_step_of_an_action_breaks_it(void)
{
    meet_in(1, true, run_the_action, abort_it, barrier_is_broken);
}

static void
missing_party_at_any_step_of_an_action_breaks_it(void)
{
    meet_in(1, true, run_the_action, miss_it, barrier_is_broken);
    meet_in(1, true, fail_in_the_action, miss_it, barrier_is_broken);
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

static void
missing_party_as_an_action_ends_breaks_it(void)
{
    struct peer peer = make(1);
    peer.acts = true;
    meet_at_each_step(&(struct meeting){begin_an_action, miss_it,
                                        end_the_action, barrier_is_broken},
                      &peer);
    unmake(&peer);
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
death_in_the_action_as_another_party_arrives(void)
{
    meet_in(1, true, run_the_action, die_in_another_process,
            barrier_works_after_a_reset);
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

static void
reset_at_any_step_of_an_action_works(void)
{
    meet_in(1, true, run_the_action, reset_it, barrier_is_intact_and_empty);
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
actions_run_one_after_the_other(void)
{
    meet_in(1, true, run_the_action, arrive_in_another_process,
            both_have_acted_or_one_timed_out);
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
party_leaves_as_the_last_one_arrives(void)
{
    meet_in(2, false, leave_old, arrive_second,
            both_parties_got_the_same_result);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(no_party_continues_before_all_have_arrived);
    RUN(generation_wraps_around);
    RUN(waits_end_in_time);
    RUN(party_that_times_out_breaks_the_barrier);
    RUN(leaving_an_older_generation_does_nothing);
    RUN(abort_and_reset_end_all_waits);
    RUN(reset_affects_only_its_generation);
    RUN(arriving_party_completes_a_reset);
    RUN(no_party_arrives_during_an_action);
    RUN(action_of_a_broken_barrier_fails);
    RUN(death_in_the_action_breaks_the_barrier);
    RUN(step_of_a_process_killed_before_its_wake_counts);
    RUN(death_at_any_time_breaks_the_barrier);
    RUN(resets_at_any_time_leave_no_party_waiting);
    RUN(two_parties_at_once_get_different_indexes);
    RUN(last_arrival_or_reset_ends_the_generation);
    RUN(last_party_runs_the_action_or_reset_wins);
    RUN(reset_as_the_next_generation_begins);
    RUN(two_resets_at_once_are_one);
    RUN(abort_completes_an_earlier_reset);
    RUN(abort_and_reset_at_once_end_the_generation);
    RUN(arrival_during_an_abort_finds_it_broken);
    RUN(abort_at_any_step_of_an_action_breaks_it);
    RUN(missing_party_at_any_step_of_an_action_breaks_it);
    RUN(missing_party_as_an_action_ends_breaks_it);
    RUN(death_in_the_action_as_another_party_arrives);
    RUN(reset_at_any_step_of_an_action_works);
    RUN(actions_run_one_after_the_other);
    RUN(party_leaves_as_the_last_one_arrives);
    return finish();
}
