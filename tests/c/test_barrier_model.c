/* barrier.c in a model: its steps, those of the runner's mutex, and deaths
 * between any two.  A sleep ends with its slice, a step as any other. */
#include "explorer.h"

static struct {
    unsigned parties, rounds;
    bool acts;
    /* what is different from the real thing */
    bool no_look_at_runner, break_last;
} with;

enum barrier_words { ROUND, ARRIVED, BROKEN, ACTION };

enum barrier_steps {
    ARRIVE_WITH_RUNNER = BEGIN, RUNNER_DIED, WAKE_OF_BROKEN, ARRIVE, ACT,
    ACT_DONE, WAKE, DROP, WAIT, SLEEP, ASLEEP, LOOK_AT_RUNNER, WELL, BADLY,
    RESET, RESET_BREAK, RESET_LOOK, RESET_MARK, RESET_ROUND, ABORT,
};

static uint8_t
bit(uint8_t round)
{
    return (uint8_t)(1 << round);
}

static void
next_round(struct state *s)
{
    s->words[ROUND]++;
    s->words[ARRIVED] = s->words[BROKEN] = s->words[ACTION] = 0;
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

static uint8_t
first_step(void)
{
    return with.acts ? ARRIVE_WITH_RUNNER : ARRIVE;
}

/* Drop the runner's mutex if it has it, and go on there. */
static void
drop_then(struct process *p, uint8_t there)
{
    p->at = with.acts ? DROP : there;
    p->later = there;
}

static void
arrive(struct state *s, struct process *p)
{
    uint8_t round = s->words[ROUND];
    p->round = round;
    p->again = false;
    if (s->words[BROKEN]) {
        drop_then(p, ENDED);
        return;
    }
    if (s->words[ACTION]) {
        p->again = true;
        drop_then(p, WAIT);
        return;
    }
    if (round >= COUNT(s->arrived)) {
        rule(false, "there are few rounds");
        return;
    }
    s->arrived[round]++;
    if (s->words[ARRIVED] + 1U < with.parties) {
        s->words[ARRIVED]++;
        drop_then(p, WAIT);
    }
    else if (with.acts) {
        s->words[ARRIVED]++;
        s->words[ACTION] = 1;
        p->at = ACT;
    }
    else {
        next_round(s);
        p->at = WAKE;
        p->then = p->later = WELL;
    }
}

/* Nobody goes on before all are there and the action is done; and all who were
 * there are told the same. */
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
    rule((s->well & s->badly) == 0, "all are told the same");
    p->n++;
    p->at = well && p->n < with.rounds ? first_step() : ENDED;
}

static void
step_wait(struct state *s, struct process *p)
{
    switch (p->at) {
    case WAIT:
        if (s->words[ROUND] != p->round) {
            bool well = !(s->marks & bit(p->round));
            p->at = !p->again ? (well ? WELL : BADLY)
                    : well ? first_step() : ENDED;
        }
        else {
            p->at = !s->words[BROKEN] ? SLEEP : p->again ? ENDED : BADLY;
        }
        break;
    case SLEEP:
        p->at = s->words[ROUND] == p->round ? ASLEEP : WAIT;
        break;
    case ASLEEP:
        p->at = s->words[ACTION] && !with.no_look_at_runner ? LOOK_AT_RUNNER
                                                            : WAIT;
        break;
    default:
        p->at = WAIT;                   /* LOOK_AT_RUNNER, of one alive */
        break;
    }
}

static void
step_reset(struct state *s, struct process *p)
{
    switch (p->at) {
    case RESET:
        p->round = s->words[ROUND];
        p->at = s->words[ARRIVED] || s->words[BROKEN] || s->words[ACTION]
                    ? with.break_last ? RESET_MARK : RESET_BREAK : ENDED;
        break;
    case RESET_BREAK:
        p->at = ENDED;
        if (s->words[ROUND] == p->round) {
            s->words[BROKEN] = 1;
            p->at = WAKE;
            p->then = p->later = RESET_LOOK;
        }
        break;
    case RESET_LOOK:
        p->at = s->words[ROUND] == p->round ? RESET_MARK : ENDED;
        break;
    case RESET_MARK:
        s->marks |= bit(p->round);
        p->at = RESET_ROUND;
        break;
    default:
        if (s->words[ROUND] == p->round) {
            next_round(s);
        }
        p->at = WAKE;
        p->then = p->later = ENDED;
        break;
    }
}

/* The runner's mutex: to have it, or to see whether its owner died. */
static bool
step_runner(struct state *s, struct process *p, int who)
{
    bool looks = p->at == LOOK_AT_RUNNER;
    if (s->owner != FREE && s->owner != DEAD_OWNER) {
        p->at = WAIT;
        return looks;
    }
    p->then = looks ? DROP : ARRIVE;
    p->at = s->owner == DEAD_OWNER ? RUNNER_DIED : p->then;
    p->later = WAIT;
    s->owner = (uint8_t)(who + 1);
    return true;
}

static void
step_barrier(const struct state *before, int who)
{
    struct state s = *before;
    struct process *p = &s.p[who];
    switch (p->at) {
    case ARRIVE_WITH_RUNNER: case LOOK_AT_RUNNER:
        if (!step_runner(&s, p, who)) {
            return;
        }
        break;
    case RUNNER_DIED:
        p->at = s.words[ACTION] ? WAKE_OF_BROKEN : p->then;
        s.words[BROKEN] |= s.words[ACTION];
        break;
    case WAKE_OF_BROKEN: case WAKE:
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
        if (s.words[BROKEN] || s.words[ROUND] != p->round) {
            drop_then(p, BADLY);
        }
        else {
            next_round(&s);
            p->at = WAKE;
            p->then = DROP;
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
    case ABORT:
        s.words[BROKEN] = 1;
        p->at = WAKE;
        p->then = p->later = ENDED;
        break;
    case WAIT: case SLEEP: case ASLEEP:
        step_wait(&s, p);
        break;
    default:
        step_reset(&s, p);
        break;
    }
    go(&s);
}

/* All have ended; or those who have not wait for one who will not come. */
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
    return waiting == 0 || (!s->words[BROKEN] && !s->words[ACTION]);
}

static const struct model barrier = {step_barrier, barrier_may_stay};

/* Beside the parties, two more: the steps that they begin at. */
static struct state
meeting(uint8_t one_more, uint8_t another)
{
    struct state s;
    memset(&s, 0, sizeof(s));
    for (unsigned i = 0; i < with.parties; i++) {
        s.p[i] = (struct process){.at = first_step()};
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
    }
}

/* The explorer would see it: of a death in the action that nobody looks for,
 * and of a reset that does not break the round first. */
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
    with.acts = false;
    with.parties = with.rounds = 2;
    with.break_last = true;
    (void)explore(&barrier, meeting(RESET, NOBODY_THERE), 0, &broken);
    CHECK(broken != NULL);
}

int
main(void)
{
    (void)prefix();                     /* and its deadline */
    RUN(all_go_on_or_are_told);
    RUN(some_hang_or_differ_where_one_errs);
    return finish();
}
