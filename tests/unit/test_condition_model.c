/* A model of condition.c: its steps, the steps of the lock, and deaths between
 * any two steps. The end of a poll interval is one of the steps; without
 * polling, the wake-ups alone must suffice. */
#include "explorer.h"

/* Variants of the model. */
static struct {
    bool no_polling, no_repair, wakes_early;
    bool impatient;                     /* the first waiter times out */
} with;

enum { ALL = 255 };
enum condition_words { NOTIFIES, GENERATION, TOKENS, WAITERS };

enum condition_steps {
    LOCK = BEGIN, REPAIRED, UNLOCK, MAKE, INSPECT, ENTER, COUNTED, SLEEP,
    ASLEEP, CLAIM, TAKEN, LEAVE, LEFT, NOTIFY, PUT_TOKENS, PUT_WAITERS,
    PUT_COUNT, WAKE,
};

static bool
may_continue(const struct state *s, const struct process *p)
{
    return s->words[GENERATION] != p->generation
           || (s->words[TOKENS] > 0 && s->words[NOTIFIES] != p->arrived);
}

/* Acquire the lock and claim. If the claim fails, sleep again if in_time, and
 * stop waiting otherwise. */
static void
claim_next(struct process *p, bool in_time)
{
    p->at = LOCK;
    p->then = CLAIM;
    p->again = !in_time;
}

/* Wake n waiters: one state for each choice. */
static void
wake(struct state s, uint8_t next, int index)
{
    struct process *p = &s.p[index];
    bool all = p->all || p->n == ALL, asleep = false;
    struct state woken = s;
    woken.p[index].at = next;
    for (int i = 0; i < PROCESSES; i++) {
        if (s.p[i].at == ASLEEP) {
            asleep = true;
            claim_next(&woken.p[i], true);
            if (!all) {
                go(&woken);
                woken = s;
                woken.p[index].at = next;
            }
        }
    }
    if (all || !asleep) {
        go(&woken);
    }
}

static void
step_notify(struct state s, int index)
{
    struct process *p = &s.p[index];
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
            s.words[GENERATION] = (uint8_t)(s.words[GENERATION] + p->all);
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
        wake(s, with.wakes_early ? PUT_COUNT : last, index);
        return;
    }
    go(&s);
}

static void
step_wait(struct state s, int index)
{
    struct process *p = &s.p[index];
    switch (p->at) {
    case ENTER:
        p->arrived = p->seen = s.words[NOTIFIES];
        p->generation = s.words[GENERATION];
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
        if (with.no_polling) {
            return;
        }
        if (may_continue(&s, p) || (with.impatient && index == 0)) {
            claim_next(p, may_continue(&s, p));
        }
        else {
            p->at = SLEEP;
        }
        break;
    case CLAIM:
        p->seen = s.words[NOTIFIES];
        if (!may_continue(&s, p)) {
            p->at = p->again ? LEAVE : UNLOCK;
            p->then = SLEEP;
        }
        else if (s.words[GENERATION] == p->generation) {
            s.words[TOKENS]--;
            p->at = TAKEN;
        }
        else {
            p->at = INSPECT;
        }
        break;
    case TAKEN:
        s.words[WAITERS] -= s.words[WAITERS] > 0;
        p->at = INSPECT;
        break;
    case LEAVE:
        p->at = UNLOCK;
        p->then = ENDED;
        if (s.words[GENERATION] == p->generation && s.words[WAITERS] > 0) {
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

/* All waiters of this generation are counted. */
static void
check_waiters(const struct state *s)
{
    unsigned waiting = 0;
    for (int i = 0; i < PROCESSES; i++) {
        uint8_t at = s->p[i].at;
        waiting += (at == SLEEP || at == ASLEEP
                    || (at == LOCK && s->p[i].then == CLAIM))
                   && s->p[i].generation == s->words[GENERATION];
    }
    rule(s->owner != FREE || waiting <= s->words[WAITERS],
         "all waiters are counted");
}

/* A consumer locks and checks for an item; a producer locks, makes an item and
 * notifies. */
static void
step_condition(const struct state *before, int index)
{
    struct state s = *before;
    struct process *p = &s.p[index];
    check_waiters(before);
    switch (p->at) {
    case LOCK:
        if (s.owner != FREE && s.owner != DEAD_OWNER) {
            return;
        }
        p->at = p->then;
        if (s.owner == DEAD_OWNER && !with.no_repair) {
            struct process saved = *p;
            p->at = NOTIFY;             /* the next owner notifies */
            p->n = ALL;
            p->later = REPAIRED;
            p->then = saved.then;
        }
        s.owner = (uint8_t)(index + 1);
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
    case INSPECT:
        p->at = s.items > 0 ? UNLOCK : ENTER;
        p->then = ENDED;
        s.items = (uint8_t)(s.items - (s.items > 0));
        break;
    case NOTIFY: case PUT_TOKENS: case PUT_WAITERS: case PUT_COUNT: case WAKE:
        step_notify(s, index);
        return;
    default:
        step_wait(s, index);
        return;
    }
    go(&s);
}

/* Only sleeping waiters are left, and there is no item for them. Or a process
 * died after it made an item and before it notified: a sleeping waiter does
 * not find the item, but the next process that locks does. */
static bool
condition_may_end(const struct state *s)
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

/* n: the number that each producer notifies. */
static struct state
market(int consumers, int producers, uint8_t n)
{
    struct state s;
    memset(&s, 0, sizeof(s));
    for (int i = 0; i < consumers + producers; i++) {
        s.p[i] = (struct process){
            .at = LOCK, .then = i < consumers ? INSPECT : MAKE,
            .notifies = i < consumers ? 0 : n};
    }
    return s;
}

static const struct model condition = {step_condition, condition_may_end};

static void
notify_reaches_a_waiter(void)
{
    static const uint8_t numbers[] = {1, 2, ALL};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        check_about("notify of %d", numbers[i]);
        memset(&with, 0, sizeof(with));
        with.no_polling = true;
        check_model(&condition, market(3, 2, numbers[i]), 0);
        with.no_polling = false;
        check_model(&condition, market(2, 2, numbers[i]), 2);
        check_model(&condition, market(3, 1, numbers[i]), 2);
        with.impatient = true;
        check_model(&condition, market(3, 2, numbers[i]), 1);
    }
}

/* The exploration finds each of these errors: a wake-up before the change; a
 * death without polling; and an owner after a death that does not notify. */
static void
exploration_finds_errors(void)
{
    const char *failed;
    memset(&with, 0, sizeof(with));
    with.no_polling = with.wakes_early = true;
    CHECK(explore(&condition, market(2, 1, 1), 0, &failed) > 0);
    with.wakes_early = false;
    CHECK(explore(&condition, market(2, 1, 1), 1, &failed) > 0);
    with.no_polling = false;
    with.no_repair = true;
    CHECK(explore(&condition, market(2, 2, 1), 1, &failed) > 0);
}

int
main(void)
{
    (void)prefix();                     /* sets the deadline of this program */
    RUN(notify_reaches_a_waiter);
    RUN(exploration_finds_errors);
    return finish();
}
