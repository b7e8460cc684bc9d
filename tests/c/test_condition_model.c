/* condition.c in a model: its steps, those of the lock around them, and deaths
 * between any two.  A sleep ends with its slice, which is a step as any other;
 * without slices, the wakes alone must suffice. */
#include "explorer.h"

/* The variants of the model. */
static struct {
    bool no_slices, no_repair, wakes_early;
    bool impatient;                     /* the first waiter times out */
} with;

enum { ALL = 255 };
enum condition_words { NOTIFIES, EPOCH, TOKENS, WAITERS };

enum condition_steps {
    LOCK = BEGIN, REPAIRED, UNLOCK, MAKE, LOOK, ENTER, COUNTED, SLEEP, ASLEEP,
    CLAIM, TAKEN, LEAVE, LEFT, NOTIFY, PUT_TOKENS, PUT_WAITERS, PUT_COUNT,
    WAKE,
};

static bool
may_go_on(const struct state *s, const struct process *p)
{
    return s->words[EPOCH] != p->round
           || (s->words[TOKENS] > 0 && s->words[NOTIFIES] != p->came);
}

/* It takes the lock and claims; if that is in vain, it sleeps again or not. */
static void
claim_next(struct process *p, bool in_time)
{
    p->at = LOCK;
    p->then = CLAIM;
    p->again = !in_time;
}

/* A wake of n, whichever those are. */
static void
wake(struct state s, uint8_t next, int who)
{
    struct process *p = &s.p[who];
    bool all = p->all || p->n == ALL, asleep = false;
    struct state woken = s;
    woken.p[who].at = next;
    for (int i = 0; i < PROCESSES; i++) {
        if (s.p[i].at == ASLEEP) {
            asleep = true;
            claim_next(&woken.p[i], true);
            if (!all) {
                go(&woken);
                woken = s;
                woken.p[who].at = next;
            }
        }
    }
    if (all || !asleep) {
        go(&woken);
    }
}

static void
step_notify(struct state s, int who)
{
    struct process *p = &s.p[who];
    uint8_t last = p->later;
    switch (p->at) {
    case NOTIFY:
        p->all = s.words[TOKENS] >= s.words[WAITERS]
                 || p->n >= s.words[WAITERS] - s.words[TOKENS];
        if (s.words[WAITERS] == 0) {
            p->at = last;
        }
        else {
            p->at = PUT_TOKENS;
            s.words[EPOCH] = (uint8_t)(s.words[EPOCH] + p->all);
        }
        break;
    case PUT_TOKENS:
        s.words[TOKENS] = p->all ? 0 : (uint8_t)(s.words[TOKENS] + p->n);
        p->at = p->all ? PUT_WAITERS : with.wakes_early ? WAKE : PUT_COUNT;
        break;
    case PUT_WAITERS:
        s.words[WAITERS] = 0;
        p->at = with.wakes_early ? WAKE : PUT_COUNT;
        break;
    case PUT_COUNT:
        s.words[NOTIFIES]++;
        p->at = with.wakes_early ? last : WAKE;
        break;
    default:
        wake(s, with.wakes_early ? PUT_COUNT : last, who);
        return;
    }
    go(&s);
}

static void
step_wait(struct state s, int who)
{
    struct process *p = &s.p[who];
    switch (p->at) {
    case ENTER:
        p->came = p->seen = s.words[NOTIFIES];
        p->round = s.words[EPOCH];
        p->at = COUNTED;
        break;
    case COUNTED:
        s.words[WAITERS]++;
        p->at = UNLOCK;
        p->then = SLEEP;
        break;
    case SLEEP:
        if (s.words[NOTIFIES] == p->seen) {
            p->at = ASLEEP;
        }
        else {
            claim_next(p, true);
        }
        break;
    case ASLEEP:
        if (with.no_slices) {
            return;
        }
        if (may_go_on(&s, p) || (with.impatient && who == 0)) {
            claim_next(p, may_go_on(&s, p));
        }
        else {
            p->at = SLEEP;
        }
        break;
    case CLAIM:
        p->seen = s.words[NOTIFIES];
        if (!may_go_on(&s, p)) {
            p->at = p->again ? LEAVE : UNLOCK;
            p->then = SLEEP;
        }
        else if (s.words[EPOCH] == p->round) {
            s.words[TOKENS]--;
            p->at = TAKEN;
        }
        else {
            p->at = LOOK;
        }
        break;
    case TAKEN:
        s.words[WAITERS] -= s.words[WAITERS] > 0;
        p->at = LOOK;
        break;
    case LEAVE:
        p->at = UNLOCK;
        p->then = ENDED;
        if (s.words[EPOCH] == p->round && s.words[WAITERS] > 0) {
            s.words[WAITERS]--;
            p->at = LEFT;
        }
        break;
    default:                            /* LEFT */
        if (s.words[TOKENS] > s.words[WAITERS]) {
            s.words[TOKENS] = s.words[WAITERS];
        }
        p->at = UNLOCK;
        break;
    }
    go(&s);
}

/* The waiters of this generation are counted. */
static void
check_waiters(const struct state *s)
{
    unsigned waiting = 0;
    for (int i = 0; i < PROCESSES; i++) {
        uint8_t at = s->p[i].at;
        waiting += (at == SLEEP || at == ASLEEP
                    || (at == LOCK && s->p[i].then == CLAIM))
                   && s->p[i].round == s->words[EPOCH];
    }
    rule(s->owner != FREE || waiting <= s->words[WAITERS],
         "all waiters count");
}

/* A consumer locks and looks; a producer locks, makes an item and notifies. */
static void
step_condition(const struct state *before, int who)
{
    struct state s = *before;
    struct process *p = &s.p[who];
    check_waiters(before);
    switch (p->at) {
    case LOCK:
        if (s.owner != FREE && s.owner != DEAD_OWNER) {
            return;
        }
        p->at = p->then;
        if (s.owner == DEAD_OWNER && !with.no_repair) {
            struct process kept = *p;
            p->at = NOTIFY;             /* the owner after a death notifies */
            p->n = ALL;
            p->later = REPAIRED;
            p->then = kept.then;
        }
        s.owner = (uint8_t)(who + 1);
        break;
    case REPAIRED:
        p->at = p->then;
        break;
    case UNLOCK:
        s.owner = FREE;
        p->at = p->then;
        break;
    case MAKE:
        s.items++;
        p->at = NOTIFY;
        p->n = p->notifies;
        p->later = UNLOCK;
        p->then = ENDED;
        break;
    case LOOK:
        p->at = s.items > 0 ? UNLOCK : ENTER;
        p->then = ENDED;
        s.items = (uint8_t)(s.items - (s.items > 0));
        break;
    case NOTIFY: case PUT_TOKENS: case PUT_WAITERS: case PUT_COUNT: case WAKE:
        step_notify(s, who);
        return;
    default:
        step_wait(s, who);
        return;
    }
    go(&s);
}

/* Nothing is left for the waiters, and no process does anything else; or an
 * item is left by a process that died before it notified: a sleeping waiter
 * does not see it, but the next process that locks does. */
static bool
condition_may_stay(const struct state *s)
{
    unsigned waiting = 0;
    for (int i = 0; i < PROCESSES; i++) {
        if (lives(&s->p[i])) {
            if (s->p[i].at != ASLEEP) {
                return false;
            }
            waiting++;
        }
    }
    return waiting == 0 || s->items == 0 || s->owner == DEAD_OWNER;
}

/* n: what each producer's notify is for. */
static struct state
market(int consumers, int producers, uint8_t n)
{
    struct state s;
    memset(&s, 0, sizeof(s));
    for (int i = 0; i < consumers + producers; i++) {
        s.p[i] = (struct process){
            .at = LOCK, .then = i < consumers ? LOOK : MAKE,
            .notifies = i < consumers ? 0 : n};
    }
    return s;
}

static const struct model condition = {step_condition, condition_may_stay};

static void
notify_reaches_somebody(void)
{
    static const uint8_t numbers[] = {1, 2, ALL};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        check_about("notify of %d", numbers[i]);
        memset(&with, 0, sizeof(with));
        with.no_slices = true;
        check_model(&condition, market(3, 2, numbers[i]), 0);
        with.no_slices = false;
        check_model(&condition, market(2, 2, numbers[i]), 2);
        check_model(&condition, market(3, 1, numbers[i]), 2);
        with.impatient = true;
        check_model(&condition, market(3, 2, numbers[i]), 1);
    }
}

/* The explorer would see it: of a wake before the change, of a death without
 * slices, and of an owner after a death that does not notify. */
static void
notify_is_lost_where_one_errs(void)
{
    const char *broken;
    memset(&with, 0, sizeof(with));
    with.no_slices = with.wakes_early = true;
    CHECK(explore(&condition, market(2, 1, 1), 0, &broken) > 0);
    with.wakes_early = false;
    CHECK(explore(&condition, market(2, 1, 1), 1, &broken) > 0);
    with.no_slices = false;
    with.no_repair = true;
    CHECK(explore(&condition, market(2, 2, 1), 1, &broken) > 0);
}

int
main(void)
{
    (void)prefix();                     /* and its deadline */
    RUN(notify_reaches_somebody);
    RUN(notify_is_lost_where_one_errs);
    return finish();
}
