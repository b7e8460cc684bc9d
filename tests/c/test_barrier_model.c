/* barrier.c in a model: its steps, those of the runner's mutex, and deaths
 * between any two.  A sleep ends with its slice, a step as any other. */
#include "explorer.h"

static struct {
    unsigned parties, rounds;
    bool acts;
    bool late_only;                     /* beside the parties: no abort, no reset */
    /* what is different from the real thing */
    bool no_look_at_runner, mark_last, late_breaks;
} with;

enum barrier_words { ROUND, ARRIVED, FLAGS };
enum { BROKEN = 1, ACTION = 2, RESETTING = 4, MISSED = 8 };

enum barrier_steps {
    ARRIVE = BEGIN, LOCK_RUNNER, RUNNER_DIED, ACT, ACT_DONE, WAKE, DROP, WAIT,
    SLEEP, ASLEEP, BREAK, WELL, BADLY, RESET, COMPLETE_MARK, COMPLETE_ROUND,
    COMPLETE_LATE_MARK, ABORT, LATE,
};

static uint8_t
bit(uint8_t round)
{
    return (uint8_t)(1 << round);
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
next_round(struct state *s)
{
    bool broken = has(s, MISSED) && has(s, ACTION) && !has(s, RESETTING);
    s->words[ROUND]++;
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
wake_then(struct process *p, uint8_t there)
{
    p->at = WAKE;
    p->then = there;
}

/* Unlock the runner if it has it, and go on there. */
static void
drop_then(const struct state *s, struct process *p, uint8_t there)
{
    p->at = s->owner == (uint8_t)(p - s->p + 1) ? DROP : there;
    p->later = there;
}

/* Do the second step of a reset, and go on there. */
static void
complete_then(const struct state *s, struct process *p, uint8_t there)
{
    p->round = s->words[ROUND];
    p->at = with.mark_last ? COMPLETE_ROUND : COMPLETE_MARK;
    p->then = there;
}

static void
arrive(struct state *s, struct process *p)
{
    uint8_t round = s->words[ROUND];
    bool last = s->words[ARRIVED] + 1U >= with.parties;
    p->round = round;
    p->again = false;
    if (has(s, RESETTING)) {
        complete_then(s, p, ARRIVE);
        return;
    }
    if (has(s, BROKEN)) {
        drop_then(s, p, ENDED);
        return;
    }
    if (has(s, ACTION)) {
        p->again = true;
        drop_then(s, p, WAIT);
        return;
    }
    if (round >= COUNT(s->arrived)) {
        rule(false, "there are few rounds");
        return;
    }
    if (last && with.acts && s->owner != (uint8_t)(p - s->p + 1)) {
        p->at = LOCK_RUNNER;
        return;
    }
    s->arrived[round]++;
    if (!last) {
        s->words[ARRIVED]++;
        drop_then(s, p, WAIT);
    }
    else if (with.acts) {
        s->words[ARRIVED]++;
        set(s, ACTION);
        p->at = ACT;
    }
    else {
        next_round(s);
        wake_then(p, WELL);
    }
}

/* No party continues before all have arrived and the action is done; and all
 * parties that had arrived get one result. */
static void
end_of_round(struct state *s, struct process *p, bool well)
{
    if (well) {
        s->well |= bit(p->round);
        rule(s->arrived[p->round] == with.parties, "all were there");
        rule(s->acted[p->round] == with.acts, "the action was done once");
    }
    else {
        s->badly |= bit(p->round);
    }
    rule((s->well & s->badly) == 0, "all get one result");
    p->n++;
    p->at = well && p->n < with.rounds ? ARRIVE : ENDED;
}

static void
step_wait(struct state *s, struct process *p)
{
    bool over = s->words[ROUND] != p->round;
    switch (p->at) {
    case WAIT:
        if (over || has(s, BROKEN | RESETTING)) {
            p->at = p->again                            ? ARRIVE
                    : over && !(s->marks & bit(p->round)) ? WELL
                                                          : BADLY;
        }
        else {
            p->at = SLEEP;
        }
        break;
    case SLEEP:
        p->at = over ? WAIT : ASLEEP;
        break;
    case ASLEEP:                        /* its slice is over */
        p->at = has(s, ACTION) && s->owner == DEAD_OWNER
                        && !with.no_look_at_runner ? BREAK : WAIT;
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
    case COMPLETE_MARK: case COMPLETE_LATE_MARK:
        s->marks |= bit(p->round);
        p->at = p->at == COMPLETE_MARK ? COMPLETE_ROUND : WAKE;
        break;
    default:                            /* COMPLETE_ROUND */
        if (s->words[ROUND] == p->round) {
            next_round(s);
        }
        p->at = with.mark_last ? COMPLETE_LATE_MARK : WAKE;
        break;
    }
}

/* A party that breaks the barrier; or that stops before it has arrived. */
static void
step_break(struct state *s, struct process *p)
{
    if (has(s, RESETTING)) {
        complete_then(s, p, p->at);
    }
    else if (p->at == LATE && has(s, ACTION) && !has(s, BROKEN)
             && !with.late_breaks) {
        set(s, MISSED);
        p->at = ENDED;
    }
    else {
        set(s, BROKEN);
        wake_then(p, ENDED);
    }
}

static void
step_barrier(const struct state *before, int who)
{
    struct state s = *before;
    struct process *p = &s.p[who];
    switch (p->at) {
    case LOCK_RUNNER:
        p->at = s.owner == DEAD_OWNER ? RUNNER_DIED : ARRIVE;
        if (s.owner == DEAD_OWNER || s.owner == FREE) {
            s.owner = (uint8_t)(who + 1);
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
        s.acted[p->round]++;
        p->at = ACT_DONE;
        break;
    case ACT_DONE:
        if (has(&s, BROKEN | RESETTING) || s.words[ROUND] != p->round) {
            rule(!with.late_only, "a late party does not break the round");
            drop_then(&s, p, BADLY);
        }
        else {
            next_round(&s);
            wake_then(p, DROP);
            p->later = WELL;
        }
        break;
    case DROP:
        s.owner = FREE;
        p->at = p->later;
        break;
    case WELL: case BADLY:
        end_of_round(&s, p, p->at == WELL);
        break;
    case ABORT: case LATE:
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

/* All have ended; or the others wait for a party that will not arrive. */
static bool
barrier_may_stay(const struct state *s)
{
    unsigned waiting = 0;
    for (int i = 0; i < PROCESSES; i++) {
        const struct process *p = &s->p[i];
        if (lives(p)) {
            if (p->at != ASLEEP || p->round != s->words[ROUND]) {
                return false;
            }
            waiting++;
        }
    }
    return waiting == 0 || !has(s, BROKEN | ACTION | RESETTING);
}

static const struct model barrier = {step_barrier, barrier_may_stay};

/* Beside the parties, two more: the steps that they begin at. */
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
all_go_on_or_are_told(void)
{
    for (int acts = 0; acts < 2; acts++) {
        check_about("action %d", acts);
        memset(&with, 0, sizeof(with));
        with.acts = acts;
        with.parties = 3;
        with.rounds = 1;
        check_model(&barrier, meeting(NOBODY_THERE, NOBODY_THERE), 2);
        check_model(&barrier, meeting(RESET, NOBODY_THERE), 1);
        with.rounds = 3;
        check_model(&barrier, meeting(NOBODY_THERE, NOBODY_THERE), 1);
        with.parties = with.rounds = 2;
        check_model(&barrier, meeting(ABORT, RESET), 1);
        check_model(&barrier, meeting(RESET, RESET), 1);
        check_model(&barrier, meeting(LATE, RESET), 1);
        with.late_only = true;
        check_model(&barrier, meeting(LATE, NOBODY_THERE), 0);
        check_model(&barrier, meeting(LATE, LATE), 0);
    }
}

static const char *
broken_rule(struct state start, unsigned deaths)
{
    const char *broken = NULL;
    (void)explore(&barrier, start, deaths, &broken);
    return broken;
}

/* The explorer would see it: of a death in the action that no waiter checks for,
 * of a reset that is marked after it, and of a late party that breaks the round
 * whose action runs. */
static void
some_hang_or_differ_where_one_errs(void)
{
    const char *broken;
    memset(&with, 0, sizeof(with));
    with.parties = 3;
    with.rounds = 1;
    with.acts = with.no_look_at_runner = true;
    CHECK(explore(&barrier, meeting(NOBODY_THERE, NOBODY_THERE), 1, &broken)
          > 0);
    memset(&with, 0, sizeof(with));
    with.parties = with.rounds = 2;
    with.mark_last = true;
    CHECK(broken_rule(meeting(RESET, NOBODY_THERE), 0) != NULL);
    memset(&with, 0, sizeof(with));
    with.parties = with.rounds = 2;
    with.acts = with.late_only = with.late_breaks = true;
    CHECK(broken_rule(meeting(LATE, NOBODY_THERE), 0) != NULL);
}

int
main(void)
{
    (void)prefix();                     /* and its deadline */
    RUN(all_go_on_or_are_told);
    RUN(some_hang_or_differ_where_one_errs);
    return finish();
}
