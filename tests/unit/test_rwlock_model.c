/* A model of rwlock.c: its steps, and deaths between any two steps. The kernel
 * marks the turnstile of a dead owner; a check for dead readers and the end of
 * a poll interval are steps. */
#include "explorer.h"

static struct {
    /* errors, which rwlock.c does not have */
    bool entry_before_slot, forgets, never_checks, does_not_close;
} with;

enum rw_words { ENTRY, INCONSISTENT, SLOTS };
enum { CLOSED = 1, WRITING = 2 };
enum { SLOT_COUNT = 2, WAITED = 0x80 };

enum rw_steps {
    /* of a reader */
    LOOK = BEGIN, TAKE, CHECK_ENTRY, READ, LEAVE, WAKE,
    /* of the owner of the turnstile */
    LOCK, TOLD, MARK_CLOSED, UNDO, SLOW_TAKE, CLOSE, SCAN, WAIT_SLOT, ASLEEP,
    EVICT, EVICTED, START_WRITING, WRITE, WRITTEN, REPAIR, OPEN, UNLOCK,
};

/* The variables of a process. n: the number of rounds left; all: it writes;
 * seen: the slot of a reader + 1, or the slot that the owner of the turnstile
 * inspects; again: it repairs; notifies: a waiter has set the flag.
 *
 * items: 1 while the data is half written. */
static uint8_t
id_of(const struct state *s, const struct process *p)
{
    return (uint8_t)(p - s->p + 1);
}

static bool
is_dead(const struct state *s, uint8_t word)
{
    word &= (uint8_t)~WAITED;
    return word != 0 && s->p[word - 1].at == DEAD;
}

static void
check_inside(const struct state *s)
{
    int readers = 0, writers = 0;
    for (int i = 0; i < PROCESSES; i++) {
        readers += s->p[i].at == READ;
        writers += s->p[i].at == WRITE || s->p[i].at == WRITTEN;
    }
    rule(writers == 0 || (writers == 1 && readers == 0), "a writer is alone");
    rule(readers == 0 || s->items == 0, "readers find consistent data");
}

static void
end_round(struct process *p)
{
    p->seen = p->again = 0;
    p->n--;
    p->at = p->n == 0 ? ENDED
            : p->all  ? LOCK : with.entry_before_slot ? LOOK : TAKE;
}

/* Returns a slot that contains 0, or -1. */
static int
empty_slot(const struct state *s)
{
    for (int i = 0; i < SLOT_COUNT; i++) {
        if (s->words[SLOTS + i] == 0) {
            return i;
        }
    }
    return -1;
}

static bool
take(struct state *s, struct process *p)
{
    int slot = empty_slot(s);
    if (slot >= 0) {
        s->words[SLOTS + slot] = id_of(s, p);
        p->seen = (uint8_t)(slot + 1);
    }
    return slot >= 0;
}

/* Read the slots again. */
static void
wake_up(struct process *p)
{
    p->seen = 0;
    p->at = p->all ? SCAN : SLOW_TAKE;
}

static void
step_reader(struct state *s, struct process *p)
{
    uint8_t *slot = &s->words[SLOTS + p->seen - 1];
    switch (p->at) {
    case LOOK:
        p->at = s->words[ENTRY] == 0 ? TAKE : LOCK;
        break;
    case TAKE:
        p->at = !take(s, p) ? LOCK : with.entry_before_slot ? READ : CHECK_ENTRY;
        break;
    case CHECK_ENTRY:
        p->then = p->at = s->words[ENTRY] == 0 ? READ : LEAVE;
        break;
    case READ:
        p->at = LEAVE;
        break;
    case LEAVE:
        p->at = WAKE;
        p->notifies = (*slot & WAITED) != 0;
        *slot = 0;
        break;
    default:                            /* WAKE */
        for (int i = 0; i < PROCESSES && p->notifies; i++) {
            if (s->p[i].at == ASLEEP && s->p[i].seen == p->seen - 1) {
                wake_up(&s->p[i]);
            }
        }
        p->notifies = 0;
        if (p->then == READ) {
            end_round(p);
        }
        else {
            p->seen = 0;
            p->at = LOCK;
        }
        break;
    }
}

/* The next step of the owner of the turnstile. */
static uint8_t
next_of(const struct process *p)
{
    return p->all ? CLOSE : SLOW_TAKE;
}

static void
lock(struct state *s, struct process *p)
{
    bool died = s->owner == DEAD_OWNER;
    if (s->owner != FREE && !died) {
        return;                         /* another one has it */
    }
    s->owner = id_of(s, p);
    p->at = next_of(p);
    if (died && !s->words[INCONSISTENT] && !(s->words[ENTRY] & WRITING)) {
        died = false;
    }
    if (died || s->words[INCONSISTENT]) {
        p->at = with.forgets ? MARK_CLOSED : TOLD;
    }
}

static void
step_owner(struct state *s, struct process *p)
{
    uint8_t word;
    switch (p->at) {
    case LOCK:
        lock(s, p);
        break;
    case TOLD:
        s->words[INCONSISTENT] = 1;
        p->at = MARK_CLOSED;
        break;
    case MARK_CLOSED:
        s->words[ENTRY] = CLOSED;
        p->again = p->all;
        p->at = p->all ? CLOSE : UNDO;
        break;
    case UNDO:                       /* a reader, or no repair */
        s->words[ENTRY] = CLOSED;
        p->at = UNLOCK;
        break;
    case CLOSE:
        if (!with.does_not_close) {
            s->words[ENTRY] = CLOSED;
        }
        p->at = SCAN;
        p->seen = 0;
        break;
    case SCAN:                          /* one slot in each step */
        if (p->seen == SLOT_COUNT) {
            p->at = START_WRITING;
        }
        else if (s->words[SLOTS + p->seen] == 0) {
            p->seen++;
        }
        else {
            p->at = EVICT;
        }
        break;
    case EVICT:
        word = s->words[SLOTS + p->seen];
        p->at = WAIT_SLOT;
        if (is_dead(s, word) && !with.never_checks) {
            s->words[SLOTS + p->seen] = id_of(s, p);
            p->at = EVICTED;
        }
        break;
    case EVICTED:
        s->words[SLOTS + p->seen] = 0;
        wake_up(p);
        break;
    case WAIT_SLOT:                     /* set the flag, and fall asleep */
        word = s->words[SLOTS + p->seen];
        if (word != 0) {
            s->words[SLOTS + p->seen] = (uint8_t)(word | WAITED);
        }
        if (word != 0) {
            p->at = ASLEEP;
        }
        else {
            wake_up(p);
        }
        break;
    case START_WRITING:
        s->words[ENTRY] = CLOSED | WRITING;
        p->at = WRITE;
        break;
    case WRITE:
        rule(s->items == 0 || p->again, "each owner after a death gets the error");
        s->items = 1;
        p->at = WRITTEN;
        break;
    case WRITTEN:
        s->items = 0;
        p->at = p->again ? REPAIR : OPEN;
        break;
    case REPAIR:
        s->words[INCONSISTENT] = 0;
        p->at = OPEN;
        break;
    case OPEN:
        s->words[ENTRY] = 0;
        p->at = UNLOCK;
        break;
    default:                            /* UNLOCK */
        s->owner = FREE;
        p->at = LEAVE;
        if (p->all || p->seen == 0) {
            end_round(p);
        }
        else {
            p->at = READ;
            p->then = READ;
        }
        break;
    }
}

static void
step_rwlock(const struct state *before, int index)
{
    struct state s = *before;
    struct process *p = &s.p[index];
    switch (p->at) {
    case LOOK: case TAKE: case CHECK_ENTRY: case READ: case LEAVE: case WAKE:
        step_reader(&s, p);
        break;
    case ASLEEP:                        /* a poll interval has passed */
        wake_up(p);
        break;
    case SLOW_TAKE:
        if (take(&s, p)) {
            p->at = OPEN;
        }
        else {
            s.words[ENTRY] = CLOSED;
            p->seen = 0;
            p->at = EVICT;
        }
        break;
    default:
        step_owner(&s, p);
        break;
    }
    check_inside(&s);
    go(&s);
}

static bool
all_have_ended(const struct state *s)
{
    for (int i = 0; i < PROCESSES; i++) {
        if (lives(&s->p[i])) {
            return false;
        }
    }
    return true;
}

static const struct model rwlock = {step_rwlock, all_have_ended};

static struct state
meeting(int readers, int writers, int rounds)
{
    struct state s;
    memset(&s, 0, sizeof(s));
    for (int i = 0; i < readers + writers; i++) {
        bool writes = i >= readers;
        s.p[i] = (struct process){.at = writes                  ? LOCK
                                        : with.entry_before_slot ? LOOK : TAKE,
                                  .all = writes,
                                  .n = (uint8_t)rounds};
    }
    return s;
}

static void
readers_and_writers_exclude_each_other(void)
{
    memset(&with, 0, sizeof(with));
    check_model(&rwlock, meeting(2, 1, 2), 0);
    check_model(&rwlock, meeting(1, 2, 2), 0);
    check_model(&rwlock, meeting(3, 1, 1), 0);
}

static void
deaths_hang_no_other_process(void)
{
    memset(&with, 0, sizeof(with));
    check_model(&rwlock, meeting(1, 2, 1), 2);
    check_model(&rwlock, meeting(2, 2, 1), 2);
    check_model(&rwlock, meeting(3, 1, 1), 2);
    check_model(&rwlock, meeting(1, 1, 2), 2);
}

static void
model_finds_errors(void)
{
    bool *errors[] = {&with.entry_before_slot, &with.forgets,
                      &with.never_checks, &with.does_not_close};
    for (size_t i = 0; i < COUNT(errors); i++) {
        const char *failed;
        memset(&with, 0, sizeof(with));
        *errors[i] = true;
        check_about("error %zu", i);
        unsigned stuck = explore(&rwlock, meeting(2, 2, 1), 2, &failed);
        CHECK(stuck > 0 || failed != NULL);
    }
}

int
main(void)
{
    RUN(readers_and_writers_exclude_each_other);
    RUN(deaths_hang_no_other_process);
    RUN(model_finds_errors);
    return finish();
}
