/* A model of barrier.c: its steps, the steps of the runner's mutex, and deaths
 * between any two steps. The end of a poll interval is one of the steps. */
#include "explorer.h"

static struct {
    unsigned parties, generations;
    bool acts;
    bool miss_only;                     /* no other process aborts or resets */
    /* errors, which barrier.c does not have */
    bool never_checks, records_late, miss_breaks;
} with;

enum barrier_words { GENERATION, ARRIVED, FLAGS };
enum { BROKEN = 1, ACTION = 2, RESETTING = 4, MISSED = 8 };

enum barrier_steps {
    ARRIVE = BEGIN, LOCK_RUNNER, RUNNER_DIED, ACT, ACT_DONE, WAKE, UNLOCK, WAIT,
    SLEEP, ASLEEP, BREAK, PASSED, FAILED, RESET, RECORD_RESET, END_GENERATION,
    RECORD_LATE, ABORT, MISS,
};

static uint8_t
bit(uint8_t generation)
{
    return (uint8_t)(1 << generation);
}

static bool
has(const struct state *s, int flags)
{
    return (s->words[FLAGS] & flags) != 0;
}

static void
set(struct state *s, int flags)
{
    s->words[FLAGS] = (uint8_t)(s->words[FLAGS] | flags);
}

static void
next_generation(struct state *s)
{
    bool broken = has(s, MISSED) && has(s, ACTION) && !has(s, RESETTING);
    s->words[GENERATION]++;
    s->words[ARRIVED] = 0;
    s->words[FLAGS] = broken ? BROKEN : 0;
}

static void
wake_all(struct state *s)
{
    for (int i = 0; i < PROCESSES; i++) {
        if (s->p[i].at == ASLEEP) {
            s->p[i].at = WAIT;
        }
    }
}

static void
wake_then(struct process *p, uint8_t next)
{
    p->at = WAKE;
    p->then = next;
}

/* Unlock the runner if this process holds it; then continue with next. */
static void
unlock_then(const struct state *s, struct process *p, uint8_t next)
{
    p->at = s->owner == (uint8_t)(p - s->p + 1) ? UNLOCK : next;
    p->later = next;
}

/* Do the second step of a reset; then continue with next. */
static void
complete_then(const struct state *s, struct process *p, uint8_t next)
{
    p->generation = s->words[GENERATION];
    p->at = with.records_late ? END_GENERATION : RECORD_RESET;
    p->then = next;
}

static void
arrive(struct state *s, struct process *p)
{
    uint8_t generation = s->words[GENERATION];
    bool last = s->words[ARRIVED] + 1U >= with.parties;
    p->generation = generation;
    p->again = false;
    if (has(s, RESETTING)) {
        complete_then(s, p, ARRIVE);
        return;
    }
    if (has(s, BROKEN)) {
        unlock_then(s, p, ENDED);
        return;
    }
    if (has(s, ACTION)) {
        p->again = true;
        unlock_then(s, p, WAIT);
        return;
    }
    if (generation >= COUNT(s->arrived)) {
        rule(false, "there are few generations");
        return;
    }
    if (last && with.acts && s->owner != (uint8_t)(p - s->p + 1)) {
        p->at = LOCK_RUNNER;
        return;
    }
    s->arrived[generation]++;
    if (!last) {
        s->words[ARRIVED]++;
        unlock_then(s, p, WAIT);
    }
    else if (with.acts) {
        s->words[ARRIVED]++;
        set(s, ACTION);
        p->at = ACT;
    }
    else {
        next_generation(s);
        wake_then(p, PASSED);
    }
}

/* No party continues before all parties have arrived and the action is done.
 * All parties of a generation get the same result. */
static void
end_wait(struct state *s, struct process *p, bool passed)
{
    if (passed) {
        s->passed |= bit(p->generation);
        rule(s->arrived[p->generation] == with.parties, "all have arrived");
        rule(s->acted[p->generation] == with.acts, "the action was done once");
    }
    else {
        s->broken |= bit(p->generation);
    }
    rule((s->passed & s->broken) == 0, "all get the same result");
    p->n++;
    p->at = passed && p->n < with.generations ? ARRIVE : ENDED;
}

static void
step_wait(struct state *s, struct process *p)
{
    bool over = s->words[GENERATION] != p->generation;
    switch (p->at) {
    case WAIT:
        if (over || has(s, BROKEN | RESETTING)) {
            bool passed = over && !(s->resets & bit(p->generation));
            p->at = p->again ? ARRIVE : passed ? PASSED : FAILED;
        }
        else {
            p->at = SLEEP;
        }
        break;
    case SLEEP:
        p->at = over ? WAIT : ASLEEP;
        break;
    case ASLEEP:                        /* a poll interval has passed */
        p->at = has(s, ACTION) && s->owner == DEAD_OWNER
                        && !with.never_checks ? BREAK : WAIT;
        break;
    default:                            /* BREAK */
        if (!over) {
            set(s, BROKEN);
        }
        wake_then(p, WAIT);
        break;
    }
}

static void
step_reset(struct state *s, struct process *p)
{
    switch (p->at) {
    case RESET:
        p->at = ENDED;
        if (s->words[ARRIVED] || has(s, BROKEN | ACTION | RESETTING)) {
            set(s, RESETTING);
            complete_then(s, p, ENDED);
        }
        break;
    case RECORD_RESET: case RECORD_LATE:
        s->resets |= bit(p->generation);
        p->at = p->at == RECORD_RESET ? END_GENERATION : WAKE;
        break;
    default:                            /* END_GENERATION */
        if (s->words[GENERATION] == p->generation) {
            next_generation(s);
        }
        p->at = with.records_late ? RECORD_LATE : WAKE;
        break;
    }
}

/* A party that breaks the barrier, or that stops waiting before it has
 * arrived. */
static void
step_break(struct state *s, struct process *p)
{
    if (has(s, RESETTING)) {
        complete_then(s, p, p->at);
    }
    else if (p->at == MISS && has(s, ACTION) && !has(s, BROKEN)
             && !with.miss_breaks) {
        set(s, MISSED);
        p->at = ENDED;
    }
    else {
        set(s, BROKEN);
        wake_then(p, ENDED);
    }
}

static void
step_barrier(const struct state *before, int index)
{
    struct state s = *before;
    struct process *p = &s.p[index];
    switch (p->at) {
    case LOCK_RUNNER:
        p->at = s.owner == DEAD_OWNER ? RUNNER_DIED : ARRIVE;
        if (s.owner == DEAD_OWNER || s.owner == FREE) {
            s.owner = (uint8_t)(index + 1);
        }
        break;
    case RUNNER_DIED:
        if (has(&s, ACTION)) {
            set(&s, BROKEN);
        }
        wake_then(p, ARRIVE);
        break;
    case WAKE:
        wake_all(&s);
        p->at = p->then;
        break;
    case ARRIVE:
        arrive(&s, p);
        break;
    case ACT:
        s.acted[p->generation]++;
        p->at = ACT_DONE;
        break;
    case ACT_DONE:
        if (has(&s, BROKEN | RESETTING)
            || s.words[GENERATION] != p->generation) {
            rule(!with.miss_only,
                 "a missing party does not break this generation");
            unlock_then(&s, p, FAILED);
        }
        else {
            next_generation(&s);
            wake_then(p, UNLOCK);
            p->later = PASSED;
        }
        break;
    case UNLOCK:
        s.owner = FREE;
        p->at = p->later;
        break;
    case PASSED: case FAILED:
        end_wait(&s, p, p->at == PASSED);
        break;
    case ABORT: case MISS:
        step_break(&s, p);
        break;
    case WAIT: case SLEEP: case ASLEEP: case BREAK:
        step_wait(&s, p);
        break;
    default:
        step_reset(&s, p);
        break;
    }
    go(&s);
}

/* All processes have ended, or the others wait for a party that will not
 * arrive. */
static bool
barrier_may_end(const struct state *s)
{
    unsigned waiting = 0;
    for (int i = 0; i < PROCESSES; i++) {
        const struct process *p = &s->p[i];
        if (lives(p)) {
            if (p->at != ASLEEP || p->generation != s->words[GENERATION]) {
                return false;
            }
            waiting++;
        }
    }
    return waiting == 0 || !has(s, BROKEN | ACTION | RESETTING);
}

static const struct model barrier = {step_barrier, barrier_may_end};

/* The parties, and two other processes that begin with these steps. */
static struct state
meeting(uint8_t one_more, uint8_t another)
{
    struct state s;
    memset(&s, 0, sizeof(s));
    for (unsigned i = 0; i < with.parties; i++) {
        s.p[i] = (struct process){.at = ARRIVE};
    }
    s.p[PROCESSES - 2] = (struct process){.at = one_more};
    s.p[PROCESSES - 1] = (struct process){.at = another};
    return s;
}

static void
all_continue_or_get_an_error(void)
{
    for (int acts = 0; acts < 2; acts++) {
        check_about("action %d", acts);
        memset(&with, 0, sizeof(with));
        with.acts = acts;
        with.parties = 3;
        with.generations = 1;
        check_model(&barrier, meeting(UNUSED, UNUSED), 2);
        check_model(&barrier, meeting(RESET, UNUSED), 1);
        with.generations = 3;
        check_model(&barrier, meeting(UNUSED, UNUSED), 1);
        with.parties = with.generations = 2;
        check_model(&barrier, meeting(ABORT, RESET), 1);
        check_model(&barrier, meeting(RESET, RESET), 1);
        check_model(&barrier, meeting(MISS, RESET), 1);
        with.miss_only = true;
        check_model(&barrier, meeting(MISS, UNUSED), 0);
        check_model(&barrier, meeting(MISS, MISS), 0);
    }
}

static const char *
failed_rule(struct state start, unsigned deaths)
{
    const char *failed = NULL;
    (void)explore(&barrier, start, deaths, &failed);
    return failed;
}

/* The exploration finds each of these errors: no waiter checks whether the
 * process that runs the action has died; a reset is recorded after its second
 * step; and a party that has not arrived breaks the generation whose action
 * runs. */
static void
exploration_finds_errors(void)
{
    const char *failed;
    memset(&with, 0, sizeof(with));
    with.parties = 3;
    with.generations = 1;
    with.acts = with.never_checks = true;
    CHECK(explore(&barrier, meeting(UNUSED, UNUSED), 1, &failed)
          > 0);
    memset(&with, 0, sizeof(with));
    with.parties = with.generations = 2;
    with.records_late = true;
    CHECK(failed_rule(meeting(RESET, UNUSED), 0) != NULL);
    memset(&with, 0, sizeof(with));
    with.parties = with.generations = 2;
    with.acts = with.miss_only = with.miss_breaks = true;
    CHECK(failed_rule(meeting(MISS, UNUSED), 0) != NULL);
}

int
main(void)
{
    (void)prefix();                     /* sets the deadline of this program */
    RUN(all_continue_or_get_an_error);
    RUN(exploration_finds_errors);
    return finish();
}
